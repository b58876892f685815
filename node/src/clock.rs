//! The only place that reads the wall clock, so that a test can shift it per process.
//!
//! Wall time stamps writes and decides expiry. Leases and timeouts use monotonic time
//! ([`std::time::Instant`]) and never come here.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// Environment variable: milliseconds (also negative) added to the wall clock of this process.
pub const SHIFT_VARIABLE: &str = "FLOTILLA_CLOCK_SHIFT_MS";

static SHIFT_MS: OnceLock<AtomicI64> = OnceLock::new();

fn shift() -> &'static AtomicI64 {
    SHIFT_MS.get_or_init(|| {
        let text = std::env::var(SHIFT_VARIABLE).unwrap_or_default();
        AtomicI64::new(parse_shift(&text))
    })
}

/// A value that is not a number counts as no shift, with a warning: a clock must always answer.
fn parse_shift(text: &str) -> i64 {
    if text.is_empty() {
        return 0;
    }
    text.trim().parse().unwrap_or_else(|_| {
        tracing::warn!("{SHIFT_VARIABLE}={text} ignored: give whole milliseconds, such as -1500");
        0
    })
}

/// Milliseconds since 1970, shifted. Never negative.
pub fn wall_ms() -> u64 {
    let real = match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
        Err(_) => 0, // a machine that believes in a time before 1970
    };
    shifted(real, shift().load(Ordering::Relaxed))
}

fn shifted(real_ms: i64, shift_ms: i64) -> u64 {
    real_ms.saturating_add(shift_ms).max(0).unsigned_abs()
}

/// Milliseconds that are added to the wall clock now.
pub fn shift_ms() -> i64 {
    shift().load(Ordering::Relaxed)
}

/// Shifts the clock of this process from now on. For tests of skew; a running cluster sets it by
/// environment at its start.
pub fn set_shift_ms(shift_ms: i64) {
    shift().store(shift_ms, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shift_is_a_whole_number_of_milliseconds() {
        assert_eq!(parse_shift(""), 0);
        assert_eq!(parse_shift(" -1500 "), -1500);
        assert_eq!(parse_shift("1.5"), 0);
    }

    #[test]
    fn shifting_saturates() {
        assert_eq!(shifted(1000, -400), 600);
        assert_eq!(shifted(1000, -4000), 0);
        assert_eq!(shifted(1000, i64::MAX), i64::MAX as u64);
    }

    #[test]
    fn the_clock_runs() {
        assert!(wall_ms() > 1_700_000_000_000, "the test machine's clock is set");
    }
}
