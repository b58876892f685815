//! A closed loop as rows: medians with their spread, and ratios within each round.

use super::case::Case;
use super::kind::Kind;
use super::sample::{Sample, Samples, shown, spread};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::Write;

/// What stands where there is no number.
pub(super) const NONE: &str = "-";

/// One case on one server, over all rounds. Three numbers are the median, the least and the most.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// What is different from other rows with the same case and server; empty where nothing is.
    pub label: String,
    /// The case.
    pub case: Case,
    /// The server.
    pub server: Kind,
    /// Operations per second.
    pub per_second: [f64; 3],
    /// Median time of a batch, in microseconds.
    pub p50_us: [f64; 3],
    /// 99th percentile of the time of a batch, in microseconds.
    pub p99_us: [f64; 3],
    /// Operations per second as a multiple of redis in the same round.
    pub to_redis: Option<[f64; 3]>,
    /// CPU milliseconds per 1000 operations, of all processes of the server.
    pub cpu_ms_per_1000: Option<[f64; 3]>,
    /// The same as a multiple of the standalone node in the same round.
    pub cpu_to_standalone: Option<[f64; 3]>,
    /// CPU milliseconds per 1000 operations, of each process and the generator; over all rounds.
    pub cpu_ms_per_1000_of: BTreeMap<String, f64>,
    /// Bytes written to disk per byte of key and value that was sent; of commands that write.
    pub written_per_user_byte: Option<[f64; 3]>,
    /// Replies that were errors, of all rounds. With any, the row proves nothing.
    pub errors: u64,
    /// Reads that found nothing, of all rounds. With any, the row proves nothing.
    pub nothing: u64,
    /// The first error.
    pub first_error: Option<String>,
}

impl Row {
    fn of(samples: &Samples, label: &str, case: Case, kind: Kind) -> Option<Row> {
        let mine = samples.0.iter();
        let mine: Vec<&Sample> =
            mine.filter(|one| one.kind == kind && one.case == case && one.label == label).collect();
        let all = |number: &dyn Fn(&Sample) -> Option<f64>| {
            spread(mine.iter().filter_map(|one| number(one)))
        };
        let place = (label, case);
        let written = |one: &Sample| {
            let bytes = one.written.filter(|_| !case.command.finds() && one.user_bytes > 0)?;
            Some(bytes as f64 / one.user_bytes as f64)
        };
        Some(Row {
            label: label.to_owned(),
            case,
            server: kind,
            per_second: all(&|one| Some(one.per_second))?,
            p50_us: all(&|one| Some(one.p50_us))?,
            p99_us: all(&|one| Some(one.p99_us))?,
            to_redis: samples.ratios(place, kind, Kind::Redis, |one| Some(one.per_second)),
            cpu_ms_per_1000: all(&Sample::cpu_per_1000),
            cpu_to_standalone: samples.ratios(place, kind, Kind::Standalone, Sample::cpu_per_1000),
            cpu_ms_per_1000_of: cpu_of(&mine),
            written_per_user_byte: all(&written),
            errors: mine.iter().map(|one| one.errors).sum(),
            nothing: mine.iter().map(|one| one.nothing).sum(),
            first_error: mine.iter().find_map(|one| one.first_error.clone()),
        })
    }

    fn mark(&self) -> &'static str {
        if self.errors + self.nothing > 0 { " (ERRORS)" } else { "" }
    }
}

fn cpu_of(samples: &[&Sample]) -> BTreeMap<String, f64> {
    let operations: u64 = samples.iter().map(|one| one.operations).sum();
    let mut cpu: BTreeMap<String, f64> = BTreeMap::new();
    for one in samples {
        let generator = ("generator".to_owned(), one.generator_cpu);
        for (name, seconds) in one.cpu.iter().chain([&generator]) {
            *cpu.entry(name.clone()).or_default() += seconds;
        }
    }
    cpu.values_mut().for_each(|seconds| *seconds *= 1e6 / operations.max(1) as f64);
    cpu
}

/// Rows that belong together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Table {
    /// What it is about.
    pub title: String,
    /// What the label is; empty where there is none.
    pub axis: String,
    /// Label by label, case by case, server by server.
    pub rows: Vec<Row>,
    /// Whether people are shown CPU and bytes written too.
    pub costs: bool,
}

impl Table {
    /// The rows of all samples, in the order in which they came.
    pub fn new(title: &str, axis: &str, costs: bool, samples: &Samples) -> Table {
        let mut places: Vec<(&str, Case)> = Vec::new();
        let mut kinds: Vec<Kind> = Vec::new();
        for one in &samples.0 {
            if !places.contains(&(&one.label, one.case)) {
                places.push((&one.label, one.case));
            }
            if !kinds.contains(&one.kind) {
                kinds.push(one.kind);
            }
        }
        let all = places.iter().flat_map(|place| kinds.iter().map(move |kind| (place, kind)));
        let rows = all.filter_map(|((label, case), kind)| Row::of(samples, label, *case, *kind));
        Table { title: title.to_owned(), axis: axis.to_owned(), rows: rows.collect(), costs }
    }

    /// The table for people.
    pub fn markdown(&self) -> String {
        let mut text = format!("### {}\n\n", self.title);
        self.head(&mut text, &["ops/s", "x redis", "p50 ms", "p99 ms"]);
        for row in &self.rows {
            let cells = [
                shown(row.per_second, 0),
                row.to_redis.map_or(NONE.into(), |ratio| shown(ratio, 2)),
                shown(row.p50_us.map(|us| us / 1e3), 2),
                shown(row.p99_us.map(|us| us / 1e3), 2),
            ];
            self.line(&mut text, row, &cells);
        }
        if self.costs {
            text.push('\n');
            let sum = "CPU ms per 1000 ops";
            let heads = [sum, "x standalone", "of each process", "disk bytes per user byte"];
            self.head(&mut text, &heads);
            for row in &self.rows {
                let each = row.cpu_ms_per_1000_of.iter();
                let each: Vec<String> = each.map(|(name, ms)| format!("{name} {ms:.1}")).collect();
                let cells = [
                    row.cpu_ms_per_1000.map_or(NONE.into(), |ms| shown(ms, 1)),
                    row.cpu_to_standalone.map_or(NONE.into(), |ratio| shown(ratio, 2)),
                    each.join(", "),
                    row.written_per_user_byte.map_or(NONE.into(), |bytes| shown(bytes, 2)),
                ];
                self.line(&mut text, row, &cells);
            }
        }
        for row in self.rows.iter().filter(|row| row.errors + row.nothing > 0) {
            let Row { case, server, errors, nothing, .. } = row;
            let first = row.first_error.as_deref().unwrap_or(NONE);
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "\n{case} on {server}: {errors} errors, first: {first}; {nothing} not found"
            );
        }
        text
    }

    fn head(&self, text: &mut String, cells: &[&str]) {
        let axis = if self.axis.is_empty() { String::new() } else { format!(" {} |", self.axis) };
        let _ = writeln!(text, "|{axis} case | server | {} |", cells.join(" | "));
        let columns = cells.len() + 2 + usize::from(!axis.is_empty());
        let _ = writeln!(text, "|{}", "---|".repeat(columns));
    }

    fn line(&self, text: &mut String, row: &Row, cells: &[String]) {
        let Row { label, case, server, .. } = row;
        let label = if self.axis.is_empty() { String::new() } else { format!(" {label} |") };
        let cells = cells.join(" | ");
        let _ = writeln!(text, "|{label} {case} | {server}{} | {cells} |", row.mark());
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::tests::sample;
    use super::*;

    #[test]
    fn costs_are_sums_of_processes_and_multiples_of_a_node_without_replicas() {
        let three = |round, cpu| {
            let cpu = vec![("n1".to_owned(), cpu), ("n2".to_owned(), cpu)];
            Sample { cpu, ..sample(Kind::FlotillaOne, round, 100.0) }
        };
        let one = |round| sample(Kind::Standalone, round, 100.0);
        let samples = Samples(vec![one(0), three(0, 0.5), one(1), three(1, 1.0)]);
        let table = Table::new("costs", "", true, &samples);
        let [standalone, flotilla] = table.rows.as_slice() else { panic!("{table:?}") };
        assert_eq!(standalone.cpu_to_standalone, Some([1.0; 3]));
        assert_eq!(standalone.cpu_ms_per_1000, Some([500.0; 3]));
        assert_eq!(flotilla.cpu_ms_per_1000, Some([1500.0, 1000.0, 2000.0]));
        assert_eq!(flotilla.cpu_to_standalone, Some([3.0, 2.0, 4.0]));
        assert_eq!(flotilla.cpu_ms_per_1000_of["n2"], 750.0);
        assert_eq!(flotilla.cpu_ms_per_1000_of["generator"], 200.0);
        assert_eq!(flotilla.written_per_user_byte, Some([3.0; 3]));
        assert_eq!(flotilla.to_redis, None);
        let text = table.markdown();
        assert!(text.contains("| SET c50 P1 | flotilla-one | 100 (100 to 100) | - |"), "{text}");
        assert!(text.contains("| 1500.0 (1000.0 to 2000.0) | 3.00 (2.00 to 4.00) |"), "{text}");
    }

    #[test]
    fn rows_with_errors_are_marked_and_labels_have_a_column() {
        let wrong = Sample {
            label: "8".into(),
            nothing: 3,
            errors: 2,
            first_error: Some("-ERR no".into()),
            ..sample(Kind::Redis, 0, 10.0)
        };
        let text = Table::new("groups", "partitions", false, &Samples(vec![wrong])).markdown();
        assert!(text.starts_with("### groups\n\n| partitions | case | server | ops/s |"), "{text}");
        assert!(
            text.contains("|---|---|---|---|---|---|---|\n| 8 | SET c50 P1 | redis (ERRORS) |")
        );
        assert!(text.contains("SET c50 P1 on redis: 2 errors, first: -ERR no; 3 not found"));
        assert!(!text.contains("CPU"));
    }
}
