//! The rate at which a node sends what is old: entries that a member lacks because it was away.
//!
//! Without one a leader reads and sends what a returning member lacks as fast as it goes, on the
//! thread that carries every group's appends, to a disk that everybody's syncs wait for.
//!
//! It is the configured one where there is room, and a share of it where the node is busy: each pause
//! between two messages tells how late Raft's thread gets to what is due. A late one halves the share, any
//! other raises it by a twentieth, so it stays where one in fifteen is late. Snapshots go by the same share.

use parking_lot::Mutex;
use std::time::{Duration, Instant};

/// What may leave at once after a pause: as much as the rate gives in this time.
const BURST: Duration = Duration::from_millis(50);
/// For each byte of new entries so many of old ones may leave beside the rate: who catches up must be
/// faster than what comes.
const PER_NEW_BYTE: u32 = 2;
/// The share begins with this, and so it does again after a time in which nothing old was sent.
const FIRST_SHARE: f64 = 1.0 / 8.0;
const FORGOTTEN_AFTER: Duration = Duration::from_secs(10);
/// The least share, however busy the node is.
const LEAST_SHARE: f64 = 1.0 / 32.0;
/// A node that gets to what is due so late is busy: it is more than a timer's step.
const LATE: Duration = Duration::from_millis(3);
const SLOWER: f64 = 0.5;
const FASTER: f64 = 1.05;
/// Between two changes of the share: all groups feel the same, and what a change does must be seen first.
const CHANGE_PAUSE: Duration = Duration::from_millis(50);

/// One budget for all groups of a node.
#[derive(Debug)]
pub struct Pace {
    /// Bytes per second; 0 is no limit.
    most: u64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    share: f64,
    /// When the share was last changed.
    changed: Option<Instant>,
    /// When all that has left is paid for.
    paid: Option<Instant>,
}

impl Pace {
    /// The most bytes per second; 0 is no limit.
    pub fn new(most: u64) -> Pace {
        let state = State { share: FIRST_SHARE, changed: None, paid: None };
        Pace { most, state: Mutex::new(state) }
    }

    /// The part of a rate that the node has room for at the moment: more than 0, 1 at most.
    pub(super) fn share(&self, now: Instant) -> f64 {
        self.state.lock().share(now)
    }

    /// Counts old entries that leave now; nothing old of the same stream should leave before the
    /// answer.
    pub(super) fn old(&self, bytes: usize, now: Instant) -> Instant {
        let mut state = self.state.lock();
        let earliest = now.checked_sub(BURST).unwrap_or(now);
        let time = time_of(bytes, self.most, state.share(now));
        let until = state.paid.map_or(earliest, |paid| paid.max(earliest)) + time;
        state.paid = Some(until);
        until
    }

    /// Notes when it was gone on after a pause that had ended at `due`: see the module's text.
    pub(super) fn woke(&self, due: Instant, now: Instant) {
        let mut state = self.state.lock();
        let share = state.share(now);
        if state.changed.is_some_and(|at| now.saturating_duration_since(at) < CHANGE_PAUSE) {
            return;
        }
        let late = now.saturating_duration_since(due) > LATE;
        let share = share * if late { SLOWER } else { FASTER };
        state.share = share.clamp(LEAST_SHARE, 1.0);
        state.changed = Some(now);
        metrics::gauge!("flotilla_raft_catch_up_share").set(state.share);
    }

    /// Counts new entries: they wait for nothing, and let old ones go sooner.
    pub(super) fn new_entries(&self, bytes: usize) {
        self.gain(bytes, PER_NEW_BYTE);
    }

    /// Old entries that were counted did not leave: their member is not there.
    pub(super) fn give_back(&self, bytes: usize) {
        self.gain(bytes, 1);
    }

    fn gain(&self, bytes: usize, times: u32) {
        let mut state = self.state.lock();
        let time = time_of(bytes, self.most, state.share) * times;
        state.paid = state.paid.and_then(|paid| paid.checked_sub(time));
    }
}

impl State {
    fn share(&mut self, now: Instant) -> f64 {
        let since = self.changed.map(|at| now.saturating_duration_since(at));
        if since.is_some_and(|since| since > FORGOTTEN_AFTER) {
            (self.share, self.changed) = (FIRST_SHARE, None);
        }
        self.share
    }
}

fn time_of(bytes: usize, most: u64, share: f64) -> Duration {
    match most {
        0 => Duration::ZERO,
        most => Duration::from_secs_f64(bytes as f64 / (most as f64 * share)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// One that begins with 1000 bytes per second.
    fn pace() -> Pace {
        Pace::new(8000)
    }

    #[test]
    fn old_entries_leave_at_the_rate_of_all_together_after_a_burst() {
        let pace = pace();
        let start = Instant::now() + SECOND;
        assert_eq!(pace.old(1000, start), start + SECOND - BURST);
        assert_eq!(pace.old(1000, start), start + 2 * SECOND - BURST);
        let late = start + 10 * SECOND;
        assert_eq!(pace.old(50, late), late, "a pause earns one burst and no more");
    }

    #[test]
    fn new_entries_and_what_did_not_leave_let_old_ones_go_sooner() {
        let pace = pace();
        let start = Instant::now() + SECOND;
        assert_eq!(pace.old(4000, start), start + 4 * SECOND - BURST);
        pace.new_entries(1000);
        assert_eq!(pace.old(0, start), start + 2 * SECOND - BURST);
        pace.give_back(1000);
        assert_eq!(pace.old(0, start), start + SECOND - BURST);
    }

    #[test]
    fn a_busy_node_sends_less_down_to_a_least_and_one_with_room_more_up_to_all() {
        let pace = pace();
        let mut now = Instant::now();
        let mut wakes = |late: Duration, times: u32| {
            for _ in 0..times {
                now += CHANGE_PAUSE;
                pace.woke(now - late, now);
            }
            pace.share(now)
        };
        assert_eq!(wakes(2 * LATE, 1), FIRST_SHARE / 2.0);
        assert_eq!(wakes(2 * LATE, 10), LEAST_SHARE);
        assert_eq!(wakes(LATE, 1), LEAST_SHARE * FASTER);
        assert_eq!(wakes(Duration::ZERO, 100), 1.0);
        let soon = now + CHANGE_PAUSE / 2;
        pace.woke(soon - SECOND, soon);
        assert_eq!(pace.share(soon), 1.0, "what the last change did is not seen yet");
        assert_eq!(pace.old(8000, soon), soon + SECOND - BURST);
        let later = now + FORGOTTEN_AFTER + SECOND;
        assert_eq!(pace.share(later), FIRST_SHARE, "that was long ago");
    }

    #[test]
    fn no_rate_is_no_limit() {
        let pace = Pace::new(0);
        let start = Instant::now() + SECOND;
        assert!((0..3).all(|_| pace.old(usize::MAX, start) <= start));
        pace.woke(start, start);
        assert!(pace.old(usize::MAX, start) <= start);
    }
}
