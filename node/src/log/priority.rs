//! Raises the priority of the calling thread.
//!
//! Everybody's acknowledgement waits for the log writer, and on a busy machine a thread of normal
//! priority that was asleep in a sync may wait milliseconds for a processor afterwards.

/// How much nicer than normal the log writer is not. The strongest, since it sleeps nearly always.
const NICE: i32 = -15;

/// Asks for a higher priority. Refusal is normal (it takes a privilege) and changes nothing.
pub(super) fn raise_current_thread() -> bool {
    set_nice(NICE)
}

#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
fn set_nice(nice: i32) -> bool {
    // SAFETY: setpriority takes three integers and touches no memory of ours. On Linux, "process 0"
    // means the calling thread only, which is what we want.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) == 0 }
}

#[cfg(not(target_os = "linux"))]
fn set_nice(_nice: i32) -> bool {
    false
}
