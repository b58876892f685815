//! `bounded`: memory, queues, logs and disks of every process stay below named limits, whatever
//! breaks.
//!
//! Judged by what the system says of the processes and by what they publish as metrics.

use super::Violation;
use std::collections::BTreeMap;

const INVARIANT: &str = "bounded";
const MIB: u64 = 1 << 20;

/// What is measured in each process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Measure {
    /// Resident memory.
    Memory,
    /// Its data directory.
    Data,
    /// Raft logs on disk.
    Log,
    /// Raft logs in memory.
    LogTail,
    /// What peers have not acknowledged.
    Backlog,
}

impl Measure {
    /// All of them.
    pub const ALL: [Measure; 5] =
        [Measure::Memory, Measure::Data, Measure::Log, Measure::LogTail, Measure::Backlog];

    /// The metric that says it, summed over its labels; `None` where the system is asked.
    pub fn metric(self) -> Option<&'static str> {
        match self {
            Measure::Memory | Measure::Data => None,
            Measure::Log => Some("flotilla_log_disk_bytes"),
            Measure::LogTail => Some("flotilla_log_tail_bytes"),
            Measure::Backlog => Some("flotilla_link_backlog_bytes"),
        }
    }

    fn words(self) -> (&'static str, &'static str) {
        match self {
            Measure::Memory => ("resident memory", "memory_max"),
            Measure::Data => ("data directory", "data_max"),
            Measure::Log => ("logs on disk", "log_max"),
            Measure::LogTail => ("logs in memory", "log_tail_max"),
            Measure::Backlog => ("backlog of links", "backlog_max"),
        }
    }
}

/// How much one process may have, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Resident memory.
    pub memory_max: u64,
    /// Its data directory.
    pub data_max: u64,
    /// Raft logs on disk.
    pub log_max: u64,
    /// Raft logs in memory.
    pub log_tail_max: u64,
    /// What peers have not acknowledged, over all groups and peers.
    pub backlog_max: u64,
}

impl Default for Limits {
    /// Far above what the processes of a demo need under the load of a trial, so that only what
    /// grows without end passes them.
    fn default() -> Self {
        Limits {
            memory_max: 1536 * MIB,
            data_max: 4096 * MIB,
            log_max: 2048 * MIB,
            log_tail_max: 256 * MIB,
            backlog_max: 1024 * MIB,
        }
    }
}

impl Limits {
    fn of(&self, measure: Measure) -> u64 {
        match measure {
            Measure::Memory => self.memory_max,
            Measure::Data => self.data_max,
            Measure::Log => self.log_max,
            Measure::LogTail => self.log_tail_max,
            Measure::Backlog => self.backlog_max,
        }
    }
}

/// The most that was seen of each process.
#[derive(Debug, Clone, Default)]
pub struct Peaks {
    most: BTreeMap<(Measure, String), u64>,
    /// How often the processes were looked at.
    pub samples: u64,
}

impl Peaks {
    /// Takes one measurement.
    pub fn saw(&mut self, process: &str, measure: Measure, bytes: u64) {
        let most = self.most.entry((measure, process.to_owned())).or_default();
        *most = bytes.max(*most);
    }

    /// What passed its limit.
    pub fn check(&self, limits: &Limits) -> Vec<Violation> {
        let over = self.most.iter().filter(|((measure, _), most)| **most > limits.of(*measure));
        let told = over.map(|((measure, process), most)| {
            let (what, limit) = measure.words();
            let (most, most_max) = (shown(*most), shown(limits.of(*measure)));
            format!("{process}: {what} {most}, above {limit} = {most_max}")
        });
        told.map(|what| Violation { invariant: INVARIANT, what }).collect()
    }

    /// The largest of each kind, in one line.
    pub fn told(&self) -> String {
        let largest = Measure::ALL.into_iter().filter_map(|measure| {
            let of_kind = self.most.iter().filter(|((kind, _), _)| *kind == measure);
            let ((_, process), most) = of_kind.max_by_key(|(_, most)| **most)?;
            Some(format!("{} {} ({process})", measure.words().0, shown(*most)))
        });
        let largest: Vec<String> = largest.collect();
        format!("most of {} samples: {}", self.samples, largest.join(", "))
    }
}

fn shown(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / MIB as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_the_amount_and_the_limit_are_told() {
        let mut peaks = Peaks::default();
        for (process, mib) in [("east-n1", 900), ("east-n1", 1600), ("east-n1", 100), ("pd", 1536)]
        {
            peaks.saw(process, Measure::Memory, mib * MIB);
        }
        peaks.saw("east-syncer", Measure::Backlog, 1025 * MIB);
        let told: Vec<String> =
            peaks.check(&Limits::default()).into_iter().map(|violation| violation.what).collect();
        assert_eq!(
            told,
            [
                "east-n1: resident memory 1600.0 MiB, above memory_max = 1536.0 MiB",
                "east-syncer: backlog of links 1025.0 MiB, above backlog_max = 1024.0 MiB"
            ],
            "the peak counts, once, and a limit that is just reached is kept"
        );
        let wide = Limits { memory_max: 2000 * MIB, backlog_max: 2000 * MIB, ..Limits::default() };
        assert_eq!(peaks.check(&wide), []);
        assert!(peaks.told().contains("resident memory 1600.0 MiB (east-n1)"), "{}", peaks.told());
    }

    #[test]
    fn every_measure_has_a_limit_of_its_own() {
        for measure in Measure::ALL {
            let mut peaks = Peaks::default();
            peaks.saw("p", measure, u64::MAX);
            let told = peaks.check(&Limits::default());
            assert_eq!(told.len(), 1, "{measure:?}");
            assert!(told[0].what.contains(measure.words().1), "{told:?}");
        }
    }
}
