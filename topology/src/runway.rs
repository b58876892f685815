//! How long a backlog may go on growing before it exceeds its budget.

use std::collections::VecDeque;

/// How far back the rate of growth looks.
const WINDOW_MS: u64 = 60_000;

/// Samples are this far apart; a rate needs two.
const SAMPLE_MS: u64 = 5_000;

/// A runway beyond this is none: a link that keeps up has a backlog that breathes, and nobody acts
/// on what may be in a month.
pub const RUNWAY_SECONDS_MAX: f64 = 30.0 * 24.0 * 3600.0;

/// A backlog over the last minute, coarsely.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Growth {
    /// Time and bytes, oldest first.
    samples: VecDeque<(u64, u64)>,
    last: (u64, u64),
}

impl Growth {
    /// At `now_ms` the backlog has so many bytes. Time does not go back.
    pub fn tell(&mut self, now_ms: u64, bytes: u64) {
        self.last = (now_ms, bytes);
        let due = |(at_ms, _): &(u64, u64)| now_ms.saturating_sub(*at_ms) >= SAMPLE_MS;
        if self.samples.back().is_none_or(due) {
            self.samples.push_back(self.last);
        }
        while self.samples.len() > 1
            && self.samples.front().is_some_and(|(at_ms, _)| now_ms - at_ms > WINDOW_MS)
        {
            self.samples.pop_front();
        }
    }

    /// Bytes a second, below zero when it shrinks. `None` until it was told for some seconds.
    pub fn per_second(&self) -> Option<f64> {
        let (first_ms, first) = *self.samples.front()?;
        let (last_ms, last) = self.last;
        let span_ms = last_ms.checked_sub(first_ms).filter(|span| *span >= SAMPLE_MS)?;
        Some((last as f64 - first as f64) * 1000.0 / span_ms as f64)
    }

    /// Seconds until the backlog exceeds `budget` bytes at this rate; 0 when it does already, and
    /// `None` when it does not grow.
    pub fn runway_seconds(&self, budget: u64) -> Option<f64> {
        let (_, bytes) = self.last;
        if bytes >= budget {
            return Some(0.0);
        }
        let rate = self.per_second().filter(|rate| *rate > 0.0)?;
        let seconds = (budget - bytes) as f64 / rate;
        (seconds <= RUNWAY_SECONDS_MAX).then_some(seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn told(points: impl IntoIterator<Item = (u64, u64)>) -> Growth {
        let mut growth = Growth::default();
        points.into_iter().for_each(|(now_ms, bytes)| growth.tell(now_ms, bytes));
        growth
    }

    #[test]
    fn a_steady_growth_is_seen_to_its_end() {
        let growth = told((0..=60).map(|s| (s * 1000, s * 1_000_000)));
        assert_eq!(growth.per_second(), Some(1_000_000.0));
        let runway = growth.runway_seconds(100_000_000).unwrap();
        assert!((runway - 40.0).abs() < 1e-9, "{runway}");
        assert_eq!(growth.runway_seconds(60_000_000), Some(0.0), "it is exceeded already");
    }

    #[test]
    fn what_does_not_grow_has_none() {
        assert_eq!(Growth::default().runway_seconds(GIB), None);
        assert_eq!(told([(0, 5)]).runway_seconds(GIB), None, "one sample is no rate");
        assert_eq!(told([(0, 0), (4_000, 999)]).runway_seconds(GIB), None, "nor is a moment");
        assert_eq!(told((0..60).map(|s| (s * 1000, 7))).runway_seconds(GIB), None);
        assert_eq!(told((0..60).map(|s| (s * 1000, 700 - s))).runway_seconds(GIB), None);
        let breathes = told([(0, 0), (60_000, 300)]);
        assert_eq!(breathes.runway_seconds(GIB), None, "years are nobody's concern");
    }

    #[test]
    fn only_the_last_minute_counts_and_memory_is_bounded() {
        let quiet_then_fast = told(
            (0..600).map(|s| (s * 1000, 0)).chain((600..=670).map(|s| (s * 1000, (s - 600) * 10))),
        );
        assert_eq!(quiet_then_fast.per_second(), Some(10.0));
        assert!(quiet_then_fast.samples.len() <= 14, "{}", quiet_then_fast.samples.len());
    }
}
