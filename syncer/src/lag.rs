//! How far a link is behind, measured end to end by the stamps of what travels on it.
//!
//! A command's stamp holds the wall clock of the leader that evaluated it, an acknowledgement that
//! of the receiver when it had committed it there. Their difference, corrected by the offset
//! between the two clusters' clocks, is what a reader at the other side had to wait: from
//! evaluation here to commit there, without the way back. The offset comes from pings, with the
//! usual error of half the asymmetry of the path.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Pings that are remembered for the clock offset: the fastest of the last minute or so.
const PINGS_MAX: usize = 32;
/// How far back percentiles look.
const WINDOW: Duration = Duration::from_secs(60);
/// Samples per group and peer; above it every second one is forgotten.
const SAMPLES_MAX: usize = 2048;

/// Offset between two wall clocks.
#[derive(Debug, Default)]
pub struct ClockOffset {
    pings: VecDeque<(u64, i64)>,
}

impl ClockOffset {
    /// A ping left at `sent_ms` and came back at `back_ms` by our clock; the other side read
    /// `theirs_ms` in between.
    pub fn ping(&mut self, sent_ms: u64, theirs_ms: u64, back_ms: u64) {
        let rtt_ms = back_ms.saturating_sub(sent_ms);
        let middle = i64::try_from(sent_ms + rtt_ms / 2).unwrap_or(i64::MAX);
        let offset = i64::try_from(theirs_ms).unwrap_or(i64::MAX).saturating_sub(middle);
        if self.pings.len() == PINGS_MAX {
            self.pings.pop_front();
        }
        self.pings.push_back((rtt_ms, offset));
    }

    /// Milliseconds that their clock is ahead of ours, by the fastest ping: it had the least room
    /// for an error.
    pub fn offset_ms(&self) -> i64 {
        self.pings.iter().min_by_key(|(rtt_ms, _)| *rtt_ms).map_or(0, |(_, offset)| *offset)
    }

    /// The fastest round trip lately.
    #[cfg(test)]
    pub fn rtt_ms(&self) -> Option<u64> {
        self.pings.iter().map(|(rtt_ms, _)| *rtt_ms).min()
    }
}

/// The lags of the last minute, of one group and peer.
#[derive(Debug, Default)]
pub struct Lag {
    samples: VecDeque<(Instant, u64)>,
}

impl Lag {
    /// An effect stamped at `born_ms` by our clock was committed there at `committed_ms` by their
    /// clock, which is `offset_ms` ahead of ours.
    pub fn delivered(&mut self, now: Instant, born_ms: u64, committed_ms: u64, offset_ms: i64) {
        let committed = i64::try_from(committed_ms).unwrap_or(i64::MAX).saturating_sub(offset_ms);
        let born = i64::try_from(born_ms).unwrap_or(i64::MAX);
        // The offset is an estimate: a lag below zero is a lag too small to be seen.
        let lag_ms = committed.saturating_sub(born).max(0).unsigned_abs();
        if self.samples.len() >= SAMPLES_MAX {
            let mut keep = false;
            self.samples.retain(|_| {
                keep = !keep;
                keep
            });
        }
        self.samples.push_back((now, lag_ms));
    }

    /// Seconds below which this share (0 to 1) of the last minute's lags were.
    pub fn quantile(&mut self, now: Instant, share: f64) -> Option<f64> {
        while self.samples.front().is_some_and(|(at, _)| now.duration_since(*at) > WINDOW) {
            self.samples.pop_front();
        }
        let mut lags: Vec<u64> = self.samples.iter().map(|(_, lag_ms)| *lag_ms).collect();
        lags.sort_unstable();
        let last = lags.len().checked_sub(1)?;
        let at = (last as f64 * share.clamp(0.0, 1.0)).round() as usize;
        Some(lags[at.min(last)] as f64 / 1000.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fastest_ping_tells_the_offset() {
        let mut clock = ClockOffset::default();
        assert_eq!((clock.offset_ms(), clock.rtt_ms()), (0, None));
        clock.ping(1000, 6100, 1200); // slow one way: says 5000
        clock.ping(2000, 7030, 2060); // 5000
        clock.ping(3000, 8500, 3600); // 5200, but slow
        assert_eq!((clock.offset_ms(), clock.rtt_ms()), (5000, Some(60)));
        let mut behind = ClockOffset::default();
        behind.ping(5000, 1030, 5060);
        assert_eq!(behind.offset_ms(), -4000);
    }

    #[test]
    fn lags_are_corrected_and_forgotten_after_a_minute() {
        let start = Instant::now();
        let mut lag = Lag::default();
        assert_eq!(lag.quantile(start, 0.5), None);
        for at in 1..=100 {
            lag.delivered(start, 1000, 6000 + at, 5000);
        }
        assert_eq!(lag.quantile(start, 0.5), Some(0.051));
        assert_eq!(lag.quantile(start, 0.99), Some(0.099));
        lag.delivered(start, 9000, 1000, 0);
        assert_eq!(lag.quantile(start, 0.0), Some(0.0), "never below zero");
        assert_eq!(lag.quantile(start + Duration::from_secs(61), 0.5), None);
    }

    #[test]
    fn samples_are_bounded() {
        let (start, mut lag) = (Instant::now(), Lag::default());
        for at in 0..10_000 {
            lag.delivered(start, 0, at, 0);
        }
        assert!(lag.samples.len() <= SAMPLES_MAX);
        assert!(lag.quantile(start, 1.0) > Some(9.9));
    }
}
