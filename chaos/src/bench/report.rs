//! All that a run showed, as one document.

use super::Config;
use super::gates::{self, Gate};
use super::idle::{self, IdleRow};
use super::open_table::{self, OpenRow};
use super::sample::{Samples, shown, spread};
use super::table::Table;
use serde::{Deserialize, Serialize};

/// All that was measured. Three numbers are a median, the least and the most.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Version of this document.
    pub schema: u32,
    /// Rounds.
    pub rounds: usize,
    /// Seconds per measurement.
    pub seconds: f64,
    /// Different keys.
    pub keys: u32,
    /// Bytes of a value.
    pub value_bytes: usize,
    /// Processors of the machine, which all share.
    pub processors: usize,
    /// What the cluster is: nodes, replicas, groups and where they are led, internal TLS.
    pub cluster: String,
    /// Write and fdatasync per second beside the measurements.
    pub canary_per_second: [f64; 3],
    /// Median time of one of them, in microseconds.
    pub canary_p50_us: [f64; 3],
    /// Closed loops.
    pub tables: Vec<Table>,
    /// The open loop, if there was one.
    pub open: Vec<OpenRow>,
    /// Idle connections, if there were any.
    pub idle: Vec<IdleRow>,
    /// The gates, if they were asked for.
    pub gates: Vec<Gate>,
}

impl Report {
    /// One of nothing yet.
    pub fn new(config: &Config, cluster: String) -> Report {
        Report {
            schema: 2,
            rounds: config.rounds,
            seconds: config.duration.as_secs_f64(),
            keys: config.keys,
            value_bytes: config.value_bytes,
            processors: std::thread::available_parallelism().map_or(0, usize::from),
            cluster,
            canary_per_second: [0.0; 3],
            canary_p50_us: [0.0; 3],
            tables: vec![],
            open: vec![],
            idle: vec![],
            gates: vec![],
        }
    }

    /// Notes what the disk did beside all measurements.
    pub fn set_canary(&mut self, all: &Samples) {
        let canaries = || all.0.iter().map(|one| one.canary);
        let per_second = spread(canaries().map(|canary| canary.per_second));
        self.canary_per_second = per_second.unwrap_or_default();
        self.canary_p50_us = spread(canaries().map(|canary| canary.p50_us)).unwrap_or_default();
    }

    /// The tables for people.
    pub fn markdown(&self) -> String {
        let mut text = format!(
            "{}\nEvery write is synced on a majority; `redis` has `appendfsync always`. All servers \
             and the load generator\nshare {} processors. {} rounds of {:.1} s, interleaved; medians \
             (least to most). {} keys, values of {} bytes.\nSync canary (one write and fdatasync): \
             {} per second, p50 {} us.\n",
            self.cluster,
            self.processors,
            self.rounds,
            self.seconds,
            self.keys,
            self.value_bytes,
            shown(self.canary_per_second, 0),
            shown(self.canary_p50_us, 0),
        );
        let mut parts: Vec<String> = self.tables.iter().map(Table::markdown).collect();
        if !self.open.is_empty() {
            parts.push(open_table::markdown(&self.open));
        }
        if !self.idle.is_empty() {
            parts.push(idle::markdown(&self.idle));
        }
        if !self.gates.is_empty() {
            parts.push(gates::markdown(&self.gates));
        }
        for part in parts {
            text.push('\n');
            text.push_str(&part);
        }
        text
    }
}
