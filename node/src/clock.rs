//! The only place that reads the wall clock, so that a test can shift it per process.
//!
//! Wall time stamps writes and decides expiry. Leases and timeouts use monotonic time
//! ([`std::time::Instant`]) and never come here.
//!
//! Both environment variables are testing aids: no configuration sets them.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Environment variable: milliseconds (also negative) added to the wall clock of this process.
pub const SHIFT_VARIABLE: &str = "FLOTILLA_CLOCK_SHIFT_MS";
/// Environment variable: a file that holds such milliseconds, added to the former. It is read
/// again while the process runs, so that a test can let its clock jump; without it: 0. Replace the
/// file in one step, since half a number is another number.
pub const OFFSET_FILE_VARIABLE: &str = "FLOTILLA_CLOCK_OFFSET_FILE";
/// How often that file is read.
const OFFSET_FILE_PERIOD: Duration = Duration::from_millis(200);

static SHIFT_MS: OnceLock<AtomicI64> = OnceLock::new();
/// What the file said last. It stays 0 without the variable.
static OFFSET_MS: AtomicI64 = AtomicI64::new(0);

fn shift() -> &'static AtomicI64 {
    SHIFT_MS.get_or_init(|| {
        if let Some(path) = std::env::var_os(OFFSET_FILE_VARIABLE) {
            follow(PathBuf::from(path));
        }
        let text = std::env::var(SHIFT_VARIABLE).unwrap_or_default();
        AtomicI64::new(parse_shift(&text))
    })
}

/// Reads the file now, and again and again in a thread of its own.
fn follow(path: PathBuf) {
    OFFSET_MS.store(read_offset(&path), Ordering::Relaxed);
    let run = move || loop {
        std::thread::sleep(OFFSET_FILE_PERIOD);
        let offset_ms = read_offset(&path);
        let before_ms = OFFSET_MS.swap(offset_ms, Ordering::Relaxed);
        if before_ms != offset_ms {
            tracing::warn!(
                "this clock jumps by {} ms, as a test asks",
                offset_ms.saturating_sub(before_ms)
            );
        }
    };
    if let Err(error) = std::thread::Builder::new().name("clock-offset".into()).spawn(run) {
        tracing::warn!(%error, "{OFFSET_FILE_VARIABLE} is not followed");
    }
}

fn read_offset(path: &Path) -> i64 {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.trim().parse().unwrap_or(0)
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
    shifted(real, shift_ms())
}

fn shifted(real_ms: i64, shift_ms: i64) -> u64 {
    real_ms.saturating_add(shift_ms).max(0).unsigned_abs()
}

/// Milliseconds that are added to the wall clock now.
pub fn shift_ms() -> i64 {
    shift().load(Ordering::Relaxed).saturating_add(OFFSET_MS.load(Ordering::Relaxed))
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
    fn an_offset_file_is_a_number_or_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("offset");
        assert_eq!(read_offset(&path), 0, "no file is no offset");
        for (text, offset) in [("-3000\n", -3000), ("250", 250), ("", 0), ("soon", 0)] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(read_offset(&path), offset, "{text}");
        }
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
