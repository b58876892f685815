//! The process's threads: how they are scheduled, and what may hold those of a runtime up.

use tokio::runtime::{Handle, RuntimeFlavor};

/// Bytes of rows or entries that are decoded and written on the spot. More of them take so long that it
/// is worth giving the thread to others.
pub(crate) const INLINE_BYTES_MAX: usize = 64 << 10;

/// Does what may block, for milliseconds or more: gives this thread's other tasks to another one first.
/// That costs two switches of threads, so it is not for what usually takes less.
pub(crate) fn may_block<T>(what: impl FnOnce() -> T) -> T {
    match Handle::try_current().map(|handle| handle.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(what),
        _ => what(), // a test's runtime of one thread, or none: there is nobody else to hold up
    }
}

/// Has the kernel schedule this thread, and those that it starts from now on, as batch work: see
/// [`crate::config::Scheduling::Batch`]. False if it does not; nothing else changes then. What an operator
/// chose, other than the usual policy, stays.
#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
pub fn schedule_as_batch() -> bool {
    // SAFETY: both take integers and a pointer to an initialised struct that outlives the call; "thread 0"
    // is the calling one.
    unsafe {
        let usual = libc::sched_getscheduler(0) == libc::SCHED_OTHER;
        let parameters = libc::sched_param { sched_priority: 0 };
        usual && libc::sched_setscheduler(0, libc::SCHED_BATCH, &raw const parameters) == 0
    }
}

/// Not on this system.
#[cfg(not(target_os = "linux"))]
pub fn schedule_as_batch() -> bool {
    false
}

/// Sets how nice the calling thread is, and those that it starts from now on: 19 asks for least, -20 for most
/// of a processor that others want, too. Refusal is normal for less than now (it takes a privilege), and
/// changes nothing.
#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
pub(crate) fn set_nice(nice: i32) -> bool {
    // SAFETY: setpriority takes three integers and touches no memory of ours. On Linux, "process 0"
    // means the calling thread only, which is what we want.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) == 0 }
}

/// Not on this system.
#[cfg(not(target_os = "linux"))]
pub(crate) fn set_nice(_nice: i32) -> bool {
    false
}

/// A field of a thread's `stat`, from the third on, by its number in proc_pid_stat(5).
#[cfg(all(test, target_os = "linux"))]
pub(crate) fn stat_field(stat: &str, number: usize) -> &str {
    let (_, behind_the_name) = stat.rsplit_once(") ").unwrap();
    behind_the_name.split(' ').nth(number - 3).unwrap()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::stat_field;

    #[test]
    fn threads_started_later_are_batch_too() {
        let policy = || std::fs::read_to_string("/proc/thread-self/stat").unwrap();
        let told = |stat: String| stat_field(&stat, 41).to_owned();
        std::thread::spawn(move || {
            assert!(super::schedule_as_batch());
            let child = std::thread::spawn(move || told(policy())).join().unwrap();
            assert_eq!((told(policy()), child), ("3".into(), "3".into()));
        })
        .join()
        .unwrap();
    }
}
