//! How much of a group's log stands behind a position, in bytes and in time: what a peer that lags
//! may hold back before its link has to merge a full state.
//!
//! Coarse on purpose: a sample a second at first, and ever fewer the longer it goes back. What
//! happened before the process started is not known; budgets count from then.

use flotilla_topology::api::BacklogBudget;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Samples that are kept; when there are more, every second one goes.
const SAMPLES_MAX: usize = 512;
/// Between two samples, until some have gone.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy)]
struct Sample {
    at: Instant,
    index: u64,
    bytes: u64,
}

/// See the module.
#[derive(Debug)]
pub struct Backlog {
    samples: VecDeque<Sample>,
    interval: Duration,
}

impl Default for Backlog {
    fn default() -> Backlog {
        Backlog { samples: VecDeque::new(), interval: SAMPLE_INTERVAL }
    }
}

impl Backlog {
    /// The log has come to `index`, and `bytes` were appended since the process started.
    pub fn note(&mut self, at: Instant, index: u64, bytes: u64) {
        if self.samples.back().is_some_and(|last| at < last.at + self.interval) {
            return;
        }
        self.samples.push_back(Sample { at, index, bytes });
        if self.samples.len() > SAMPLES_MAX {
            let mut odd = false;
            self.samples.retain(|_| {
                odd = !odd;
                odd
            });
            self.interval *= 2;
        }
    }

    /// The log up to here is beyond the budget, whoever needs it; 0 if nothing is. `bytes` as for
    /// [`Backlog::note`].
    pub fn beyond(&self, now: Instant, bytes: u64, budget: BacklogBudget) -> u64 {
        let age = Duration::from_secs(budget.age_seconds);
        let covers = |sample: &&Sample| {
            bytes.saturating_sub(sample.bytes) <= budget.bytes
                && now.saturating_duration_since(sample.at) <= age
        };
        let over = self.samples.iter().take_while(|sample| !covers(sample)).last();
        over.map_or(0, |sample| sample.index)
    }

    /// Bytes behind a position, as far as they are known.
    pub fn bytes_behind(&self, index: u64, bytes: u64) -> u64 {
        let known = self.samples.iter().take_while(|sample| sample.index <= index).last();
        let from = known.or(self.samples.front()).map_or(bytes, |sample| sample.bytes);
        bytes.saturating_sub(from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_older_or_larger_than_the_budget_is_beyond_it() {
        let (start, mut backlog) = (Instant::now(), Backlog::default());
        let after = |seconds| start + Duration::from_secs(seconds);
        for second in 0..100 {
            backlog.note(after(second), second * 10, second * 1000);
        }
        let budget = |bytes, age_seconds| BacklogBudget { bytes, age_seconds };
        let beyond = |bytes, age| backlog.beyond(after(99), 99_000, budget(bytes, age));
        assert_eq!(beyond(u64::MAX, 1000), 0);
        assert_eq!(beyond(20_000, 1000), 780, "the last 20 seconds are 20,000 bytes");
        assert_eq!(beyond(u64::MAX, 30), 680);
        assert_eq!(backlog.bytes_behind(500, 99_000), 49_000);
    }

    #[test]
    fn samples_are_bounded_and_still_reach_back() {
        let (start, mut backlog) = (Instant::now(), Backlog::default());
        for second in 0..100_000 {
            backlog.note(start + Duration::from_secs(second), second, second);
        }
        assert!(backlog.samples.len() <= SAMPLES_MAX);
        assert_eq!(backlog.samples.front().map(|sample| sample.index), Some(0));
        assert!(backlog.samples.back().is_some_and(|sample| sample.index > 99_000));
    }
}
