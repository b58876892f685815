//! Times of an open loop, part by part: each request is noted in the part in which it was due.

use super::generator::LATENCY_MAX_US;
use hdrhistogram::Histogram;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;

/// Parts that are kept; what is due later counts to the last one.
const PARTS_MAX: usize = 2000;

/// Times under way. Clones are the same.
#[derive(Debug, Clone)]
pub struct Timeline {
    part: Duration,
    parts: Arc<Mutex<Vec<Histogram<u64>>>>,
}

/// What requests took, counted from when each was due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// Requests that were answered.
    pub operations: u64,
    /// Median.
    pub p50: Duration,
    /// 99th percentile.
    pub p99: Duration,
    /// 99.9th percentile.
    pub p999: Duration,
    /// Longest.
    pub max: Duration,
}

impl Timeline {
    /// Parts of this length, from the start of the load on.
    pub fn new(part: Duration) -> Timeline {
        assert!(!part.is_zero(), "a part takes time");
        Timeline { part, parts: Arc::default() }
    }

    /// Notes a request that was due so long after the start.
    pub(super) fn note(&self, due: Duration, took: Duration) {
        let number = due.as_nanos() / self.part.as_nanos();
        let number = usize::try_from(number).unwrap_or(usize::MAX).min(PARTS_MAX - 1);
        let mut parts = self.parts.lock();
        while parts.len() <= number {
            parts.push(empty());
        }
        let micros = u64::try_from(took.as_micros()).unwrap_or(LATENCY_MAX_US);
        parts[number].saturating_record(micros.max(1));
    }

    /// What was due in one part, from 0; `None` where nothing was answered yet.
    pub fn part(&self, number: usize) -> Option<Times> {
        self.parts.lock().get(number).and_then(Times::of)
    }

    /// Everything.
    pub fn all(&self) -> Option<Times> {
        let mut all = empty();
        for part in self.parts.lock().iter() {
            all.add(part).expect("all have the same bounds");
        }
        Times::of(&all)
    }
}

impl Times {
    fn of(histogram: &Histogram<u64>) -> Option<Times> {
        let at = |quantile| Duration::from_micros(histogram.value_at_quantile(quantile));
        (!histogram.is_empty()).then(|| Times {
            operations: histogram.len(),
            p50: at(0.5),
            p99: at(0.99),
            p999: at(0.999),
            max: at(1.0),
        })
    }
}

fn empty() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_MAX_US, 3).expect("constant bounds are valid")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_counts_to_the_part_in_which_it_was_due() {
        let timeline = Timeline::new(Duration::from_secs(60));
        assert_eq!((timeline.part(0), timeline.all()), (None, None));
        for second in 0..120 {
            let took = if second == 59 { 5000 } else { 2 };
            timeline.note(Duration::from_secs(second), Duration::from_millis(took));
        }
        let [first, second] = [0, 1].map(|number| timeline.part(number).unwrap());
        assert_eq!((first.operations, second.operations), (60, 60));
        assert!(first.max >= Duration::from_secs(5), "though it ended in the second part");
        assert!(second.max < Duration::from_millis(3) && first.p50 < Duration::from_millis(3));
        let all = timeline.all().unwrap();
        assert_eq!(all.operations, 120);
        assert!(all.p999 >= Duration::from_secs(5) && all.p99 < Duration::from_millis(3));
        timeline.note(Duration::from_secs(60 * 1_000_000), Duration::ZERO);
        assert_eq!(timeline.part(PARTS_MAX - 1).unwrap().operations, 1);
    }
}
