//! Open loop: requests come at a fixed rate, whether the server keeps up or not.
//!
//! The requests of a schedule are due one after the other, evenly, and go to the connections in
//! turn. A connection sends a request when it is due, or as soon as the one before it is answered;
//! its time counts from when it was due in both cases. So a server that stalls for a second is
//! charged with all requests that were due in that second, not with one (no coordinated omission).

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};
use tokio::io::unix::AsyncFd;

/// After so many times the planned duration, what is still due is not sent any more.
const OVERRUN: u32 = 3;

/// When requests are due.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Schedule {
    /// Per second, over all connections.
    pub(super) rate: f64,
    pub(super) duration: Duration,
}

impl Schedule {
    /// When connection `number` of `count` sends its request `turn`, all from 0; `None`: it is over.
    pub(super) fn due(&self, turn: u64, number: usize, count: usize) -> Option<Duration> {
        let index = turn as f64 * count as f64 + number as f64;
        let seconds = index / self.rate;
        (seconds < self.duration.as_secs_f64()).then(|| Duration::from_secs_f64(seconds))
    }

    /// When requests that are still due are left out.
    pub(super) fn gives_up(&self) -> Duration {
        self.duration * OVERRUN
    }
}

/// Waits to within some ten microseconds. The runtime's own timers count milliseconds, which is
/// longer than a request takes.
pub(super) struct Timer {
    fd: AsyncFd<OwnedFd>,
}

impl Timer {
    pub(super) fn new() -> io::Result<Timer> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let fd = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        // Sound: an `OwnedFd` stays the same file until it is dropped. What replaces this is unsafe.
        #[allow(deprecated)]
        let fd = AsyncFd::new(fd)?;
        Ok(Timer { fd })
    }

    /// Returns when it is `at`, or at once when that has passed.
    pub(super) async fn until(&mut self, at: Instant) -> io::Result<()> {
        let left = at.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        let left = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        };
        let once = Itimerspec { it_interval: zero, it_value: left };
        timerfd_settime(self.fd.get_ref(), TimerfdTimerFlags::empty(), &once)?;
        loop {
            let mut ready = self.fd.readable().await?;
            let mut count = [0; 8];
            let read = ready.try_io(|fd| Ok(rustix::io::read(fd.get_ref(), &mut count)?));
            if let Ok(read) = read {
                return read.map(|_| ());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_due_evenly_and_in_turn_over_the_connections() {
        let schedule = Schedule { rate: 1000.0, duration: Duration::from_millis(10) };
        let mut all = Vec::new();
        for number in 0..4 {
            let turns = (0..).map_while(|turn| schedule.due(turn, number, 4));
            all.extend(turns.map(|due| (due, number)));
        }
        all.sort();
        let expected: Vec<_> =
            (0..10u64).map(|n| (Duration::from_millis(n), n as usize % 4)).collect();
        assert_eq!(all, expected);
        assert_eq!(schedule.gives_up(), Duration::from_millis(30));
    }

    #[tokio::test]
    async fn the_timer_waits_for_less_than_a_millisecond_too() {
        let mut timer = Timer::new().unwrap();
        let started = Instant::now();
        for n in 1..=20u32 {
            let due = started + Duration::from_micros(300) * n;
            timer.until(due).await.unwrap();
            assert!(Instant::now() >= due, "too early");
        }
        let passed = Instant::now();
        timer.until(started).await.unwrap();
        assert!(passed.elapsed() < Duration::from_secs(1), "what has passed is not waited for");
    }
}
