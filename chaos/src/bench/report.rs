//! The samples as a table: medians with their spread, and ratios to redis within each round.

use super::{Case, Command, Config, REDIS};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::{self, Write};

/// One measurement.
#[derive(Debug, Clone)]
pub(super) struct Sample {
    pub(super) server: &'static str,
    pub(super) case: Case,
    pub(super) round: usize,
    pub(super) per_second: f64,
    pub(super) operations: u64,
    pub(super) errors: u64,
    pub(super) first_error: Option<String>,
    pub(super) p50_us: u64,
    pub(super) p99_us: u64,
    /// CPU seconds of each process during the measurement.
    pub(super) cpu: Vec<(String, f64)>,
    /// Syncs per second right before.
    pub(super) canary: f64,
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Sample { server, case, per_second, p50_us, p99_us, canary, errors, .. } = self;
        write!(f, "{case} {server}: {per_second:.0}/s, p50 {p50_us} us, p99 {p99_us} us")?;
        write!(f, ", {errors} errors, canary {canary:.0} syncs/s")
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let command = if self.command == Command::Set { "SET" } else { "GET" };
        write!(f, "{command} c{} P{}", self.connections, self.pipeline)
    }
}

/// One case on one server, over all rounds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The case.
    pub case: Case,
    /// The server.
    pub server: String,
    /// Operations per second: median, least and most of the rounds.
    pub per_second: [f64; 3],
    /// Median over the rounds of the median time of a batch, in microseconds.
    pub p50_us: f64,
    /// Median over the rounds of the 99th percentile of a batch, in microseconds.
    pub p99_us: f64,
    /// Operations per second as a multiple of redis in the same round: median, least, most.
    pub to_redis: [f64; 3],
    /// CPU seconds per 1000 operations, of each process.
    pub cpu_per_1000: BTreeMap<String, f64>,
    /// Replies that were errors, of all rounds. With any, the row proves nothing.
    pub errors: u64,
    /// The first of them.
    pub first_error: Option<String>,
}

/// All that was measured.
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
    /// Nodes.
    pub nodes: usize,
    /// Processors of the machine, which all share.
    pub processors: usize,
    /// Write and fdatasync per second beside the measurements: median, least, most.
    pub canary: [f64; 3],
    /// Case by case, server by server.
    pub rows: Vec<Row>,
}

impl Report {
    pub(super) fn new(config: &Config, samples: &[Sample]) -> Report {
        let mut servers: Vec<&str> = Vec::new();
        for sample in samples {
            if !servers.contains(&sample.server) {
                servers.push(sample.server);
            }
        }
        let mut rows = Vec::new();
        for case in &config.cases {
            rows.extend(servers.iter().map(|server| row(*case, server, samples)));
        }
        Report {
            schema: 1,
            rounds: config.rounds,
            seconds: config.duration.as_secs_f64(),
            keys: config.keys,
            value_bytes: config.value_bytes,
            nodes: config.nodes.len(),
            processors: std::thread::available_parallelism().map_or(0, usize::from),
            canary: spread(samples.iter().map(|sample| sample.canary)),
            rows,
        }
    }

    /// The table for people.
    pub fn markdown(&self) -> String {
        let [canary, least, most] = self.canary;
        let mut text = format!(
            "{} Flotilla nodes (each write synced on a majority) beside one redis-server with \
             `appendfsync always`;\nall and the load generator share {} processors. {} rounds of \
             {:.1} s, interleaved; medians (least to most).\n{} keys, values of {} bytes. \
             Sync canary: {canary:.0}/s ({least:.0} to {most:.0}).\n\n\
             | case | server | ops/s | x redis | p50 ms | p99 ms | CPU ms per 1000 ops |\n\
             |---|---|---|---|---|---|---|\n",
            self.nodes, self.processors, self.rounds, self.seconds, self.keys, self.value_bytes,
        );
        for row in &self.rows {
            let Row { case, server, per_second: [median, least, most], p50_us, p99_us, .. } = row;
            let [ratio, ratio_least, ratio_most] = row.to_redis;
            let cpu = row.cpu_per_1000.iter();
            let cpu: Vec<String> =
                cpu.map(|(name, seconds)| format!("{name} {:.1}", seconds * 1e3)).collect();
            let mark = if row.errors > 0 { " (ERRORS)" } else { "" };
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "| {case} | {server}{mark} | {median:.0} ({least:.0} to {most:.0}) \
                 | {ratio:.2} ({ratio_least:.2} to {ratio_most:.2}) | {:.2} | {:.2} | {} |",
                p50_us / 1e3,
                p99_us / 1e3,
                cpu.join(", ")
            );
        }
        for row in self.rows.iter().filter(|row| row.errors > 0) {
            let error = row.first_error.as_deref().unwrap_or("?");
            let _ = writeln!(
                text,
                "\n{} on {}: {} errors, first: {error}",
                row.case, row.server, row.errors
            );
        }
        text
    }
}

fn row(case: Case, server: &str, samples: &[Sample]) -> Row {
    let of = |server: &str| -> Vec<&Sample> {
        samples.iter().filter(|one| one.server == server && one.case == case).collect()
    };
    let (mine, redis) = (of(server), of(REDIS));
    let ratios = mine.iter().filter_map(|one| {
        let other = redis.iter().find(|other| other.round == one.round)?;
        Some(one.per_second / other.per_second)
    });
    let operations: u64 = mine.iter().map(|one| one.operations).sum();
    let mut cpu: BTreeMap<String, f64> = BTreeMap::new();
    for (name, seconds) in mine.iter().flat_map(|one| &one.cpu) {
        *cpu.entry(name.clone()).or_default() += seconds;
    }
    cpu.values_mut().for_each(|seconds| *seconds *= 1000.0 / operations.max(1) as f64);
    Row {
        case,
        server: server.to_owned(),
        per_second: spread(mine.iter().map(|one| one.per_second)),
        p50_us: spread(mine.iter().map(|one| one.p50_us as f64))[0],
        p99_us: spread(mine.iter().map(|one| one.p99_us as f64))[0],
        to_redis: spread(ratios),
        cpu_per_1000: cpu,
        errors: mine.iter().map(|one| one.errors).sum(),
        first_error: mine.iter().find_map(|one| one.first_error.clone()),
    }
}

/// Median, least and most; zeroes of nothing.
fn spread(values: impl Iterator<Item = f64>) -> [f64; 3] {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    match (values.first(), values.last()) {
        (Some(least), Some(most)) => {
            let middle = values.len() / 2;
            let median = if values.len().is_multiple_of(2) {
                (values[middle - 1] + values[middle]) / 2.0
            } else {
                values[middle]
            };
            [median, *least, *most]
        }
        _ => [0.0; 3],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spread_is_median_least_and_most() {
        assert_eq!(spread([3.0, 1.0, 2.0].into_iter()), [2.0, 1.0, 3.0]);
        assert_eq!(spread([4.0, 1.0].into_iter()), [2.5, 1.0, 4.0]);
        assert_eq!(spread(std::iter::empty()), [0.0; 3]);
    }

    #[test]
    fn ratios_are_taken_within_a_round() {
        let case = Case { command: Command::Set, connections: 1, pipeline: 1 };
        let sample = |server, round, per_second| Sample {
            server,
            case,
            round,
            per_second,
            operations: 1000,
            errors: 0,
            first_error: None,
            p50_us: 10,
            p99_us: 20,
            cpu: vec![("x".into(), 0.5)],
            canary: 9000.0,
        };
        let samples = [
            sample(REDIS, 0, 100.0),
            sample("flotilla", 0, 50.0),
            sample(REDIS, 1, 1000.0),
            sample("flotilla", 1, 600.0),
        ];
        let row = row(case, "flotilla", &samples);
        assert_eq!(row.to_redis, [0.55, 0.5, 0.6]);
        assert_eq!(row.cpu_per_1000["x"], 0.5);
    }
}
