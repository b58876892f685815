//! What a trial showed.

use crate::checkers::Violation;
use crate::workload::Counts;
use std::fmt;
use std::time::Duration;

/// The invariant besides those of the design: a cluster that has a quorum acknowledges writes, and
/// no process dies by itself.
pub const SERVES: &str = "serves";

/// The result of a trial.
#[derive(Debug, Clone)]
pub struct Report {
    /// The scenario's name.
    pub scenario: String,
    /// What to give to see it again.
    pub seed: u64,
    /// What happened when, since the start of the trial.
    pub story: Vec<(Duration, String)>,
    /// Broken promises.
    pub violations: Vec<Violation>,
    /// Keys whose search was given up.
    pub undecided: Vec<String>,
    /// How the operations ended, per cluster, with the longest time without an acknowledged write.
    pub counts: Vec<(String, Counts, Duration)>,
    /// How long it took.
    pub took: Duration,
}

impl Report {
    /// Whether all promises were kept, and all could be checked.
    pub fn passed(&self) -> bool {
        self.violations.is_empty() && self.undecided.is_empty()
    }

    /// One line.
    pub fn summary(&self) -> String {
        let verdict = if self.passed() { "passed" } else { "FAILED" };
        let writes: u64 = self.counts.iter().map(|(_, counts, _)| counts.writes).sum();
        let unknown: u64 = self.counts.iter().map(|(_, counts, _)| counts.unknown).sum();
        let silence = self.counts.iter().map(|(_, _, silence)| *silence).max().unwrap_or_default();
        format!(
            "{} seed {}: {verdict}, {writes} writes, {unknown} unknown, longest silence {silence:.1?}, took {:.1?}",
            self.scenario, self.seed, self.took
        )
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.summary())?;
        for (at, what) in &self.story {
            writeln!(f, "  {:>8.3} s  {what}", at.as_secs_f64())?;
        }
        for (cluster, counts, silence) in &self.counts {
            writeln!(f, "  {cluster}: {counts:?}, longest silence {silence:.1?}")?;
        }
        for violation in &self.violations {
            writeln!(f, "  {violation}")?;
        }
        for key in &self.undecided {
            writeln!(f, "  linearizable is undecided for {key}: too many operations in doubt")?;
        }
        if !self.passed() {
            let Report { scenario, seed, .. } = self;
            writeln!(f, "  Replay: flotilla chaos --scenario {scenario} --seed {seed}")?;
        }
        Ok(())
    }
}
