//! The rate at which a node sends what is old: entries that a member lacks because it was away.
//!
//! Without one a leader reads and sends what a returning member lacks as fast as it goes, on the
//! thread that carries every group's appends, to a disk that everybody's syncs wait for.

use parking_lot::Mutex;
use std::time::{Duration, Instant};

/// What may leave at once after a pause: as much as the rate gives in this time.
const BURST: Duration = Duration::from_millis(50);
/// For each byte of new entries so many of old ones may leave beside the rate: who catches up must be
/// faster than what comes.
const PER_NEW_BYTE: u32 = 2;

/// One budget for all groups of a node.
#[derive(Debug)]
pub struct Pace {
    bytes_per_s: u64,
    /// When all that has left is paid for.
    paid: Mutex<Option<Instant>>,
}

impl Pace {
    /// Bytes per second; 0 is no limit.
    pub fn new(bytes_per_s: u64) -> Pace {
        Pace { bytes_per_s, paid: Mutex::default() }
    }

    fn time_of(&self, bytes: usize) -> Duration {
        match self.bytes_per_s {
            0 => Duration::ZERO,
            rate => Duration::from_secs_f64(bytes as f64 / rate as f64),
        }
    }

    /// Counts old entries that leave now; nothing old of the same stream should leave before the
    /// answer.
    pub(super) fn old(&self, bytes: usize, now: Instant) -> Instant {
        let mut paid = self.paid.lock();
        let earliest = now.checked_sub(BURST).unwrap_or(now);
        let until = paid.map_or(earliest, |paid| paid.max(earliest)) + self.time_of(bytes);
        *paid = Some(until);
        until
    }

    /// Counts new entries: they wait for nothing, and let old ones go sooner.
    pub(super) fn new_entries(&self, bytes: usize) {
        self.gain(self.time_of(bytes) * PER_NEW_BYTE);
    }

    /// Old entries that were counted did not leave: their member is not there.
    pub(super) fn give_back(&self, bytes: usize) {
        self.gain(self.time_of(bytes));
    }

    fn gain(&self, time: Duration) {
        let mut paid = self.paid.lock();
        *paid = paid.and_then(|paid| paid.checked_sub(time));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn old_entries_leave_at_the_rate_of_all_together_after_a_burst() {
        let pace = Pace::new(1000);
        let start = Instant::now() + SECOND;
        assert_eq!(pace.old(1000, start), start + SECOND - BURST);
        assert_eq!(pace.old(1000, start), start + 2 * SECOND - BURST);
        let late = start + 10 * SECOND;
        assert_eq!(pace.old(50, late), late, "a pause earns one burst and no more");
    }

    #[test]
    fn new_entries_and_what_did_not_leave_let_old_ones_go_sooner() {
        let pace = Pace::new(1000);
        let start = Instant::now() + SECOND;
        assert_eq!(pace.old(4000, start), start + 4 * SECOND - BURST);
        pace.new_entries(1000);
        assert_eq!(pace.old(0, start), start + 2 * SECOND - BURST);
        pace.give_back(1000);
        assert_eq!(pace.old(0, start), start + SECOND - BURST);
    }

    #[test]
    fn no_rate_is_no_limit() {
        let pace = Pace::new(0);
        let start = Instant::now() + SECOND;
        assert!((0..3).all(|_| pace.old(usize::MAX, start) <= start));
    }
}
