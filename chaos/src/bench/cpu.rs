//! CPU time of processes, from /proc.

use anyhow::{Context, Result};

/// Linux reports CPU time to user space in hundredths of a second on every machine.
const TICKS_PER_SECOND: f64 = 100.0;

/// CPU seconds that each process has used, user and system.
pub(super) fn seconds_of_all(processes: &[(String, u32)]) -> Result<Vec<f64>> {
    let seconds = processes.iter().map(|(name, pid)| {
        seconds(&format!("/proc/{pid}/stat")).with_context(|| format!("{name} (pid {pid}) is gone"))
    });
    seconds.collect()
}

/// CPU seconds that the calling thread has used.
pub(super) fn seconds_of_this_thread() -> Result<f64> {
    seconds("/proc/thread-self/stat")
}

fn seconds(path: &str) -> Result<f64> {
    let stat = std::fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
    parse(&stat).with_context(|| format!("{path} is not as expected: {stat}"))
}

fn parse(stat: &str) -> Option<f64> {
    // The name, in parentheses, may contain anything; the fields behind it do not.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some((user + system) as f64 / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_times_are_found_behind_any_name() {
        let stat = "42 (a) b (c) S 1 42 42 0 -1 4194560 100 0 0 0 250 150 0 0 20 0 8 0 100 0";
        assert_eq!(parse(stat), Some(4.0));
        assert_eq!(parse("42 (x) S 1"), None);
        assert!(seconds_of_this_thread().unwrap() >= 0.0);
    }
}
