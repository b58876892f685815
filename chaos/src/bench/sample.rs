//! One measurement, and how many become medians.

use super::canary::Canary;
use super::case::Case;
use super::kind::Kind;
use std::fmt;

/// One measurement.
#[derive(Debug, Clone)]
pub(super) struct Sample {
    pub(super) kind: Kind,
    pub(super) label: String,
    pub(super) case: Case,
    pub(super) round: usize,
    /// Per second that were due, in an open loop.
    pub(super) rate: Option<f64>,
    pub(super) per_second: f64,
    pub(super) operations: u64,
    pub(super) unsent: u64,
    pub(super) errors: u64,
    pub(super) nothing: u64,
    pub(super) first_error: Option<String>,
    pub(super) p50_us: f64,
    pub(super) p99_us: f64,
    pub(super) p999_us: f64,
    /// CPU seconds of each process of the server during the measurement.
    pub(super) cpu: Vec<(String, f64)>,
    /// The same of the generator.
    pub(super) generator_cpu: f64,
    /// Bytes that the disk was given to write meanwhile, where /proc tells.
    pub(super) written: Option<u64>,
    /// Bytes of keys, fields, members and values that were sent.
    pub(super) user_bytes: u64,
    /// The disk right before.
    pub(super) canary: Canary,
}

impl Sample {
    /// CPU milliseconds of all processes of the server per 1000 operations; `None` without any.
    pub(super) fn cpu_per_1000(&self) -> Option<f64> {
        let sum: f64 = self.cpu.iter().map(|(_, seconds)| seconds).sum();
        (self.operations > 0).then(|| sum * 1e6 / self.operations as f64)
    }

    /// Whether it proves nothing.
    pub(super) fn failed(&self) -> bool {
        self.errors > 0 || self.nothing > 0 || self.operations == 0
    }
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Sample { kind, label, case, per_second, p50_us, p99_us, errors, nothing, .. } = self;
        if !label.is_empty() {
            write!(f, "[{label}] ")?;
        }
        write!(f, "{case} {kind}: {per_second:.0}/s, p50 {p50_us} us, p99 {p99_us} us")?;
        if let Some(rate) = self.rate {
            write!(f, ", p99.9 {} us at {rate:.0}/s due, {} unsent", self.p999_us, self.unsent)?;
        }
        write!(f, ", {errors} errors, ")?;
        if *nothing > 0 {
            write!(f, "{nothing} NOT FOUND, ")?;
        }
        write!(f, "canary {:.0} syncs/s", self.canary.per_second)
    }
}

/// Measurements that belong together.
#[derive(Debug, Clone, Default)]
pub struct Samples(pub(super) Vec<Sample>);

impl Samples {
    /// Adds those of another variation.
    pub fn add(&mut self, other: Samples) {
        self.0.extend(other.0);
    }

    /// Whether nothing was measured.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Operations per second of a case on a server: the median of the rounds.
    pub fn per_second(&self, kind: Kind, case: Case) -> Option<f64> {
        let mine = self.0.iter().filter(|one| one.kind == kind && one.case == case);
        spread(mine.map(|one| one.per_second)).map(|[median, ..]| median)
    }

    /// In each round: a number of one server as a multiple of the same of another one.
    pub(super) fn ratios(
        &self,
        (label, case): (&str, Case),
        kind: Kind,
        to: Kind,
        number: impl Fn(&Sample) -> Option<f64>,
    ) -> Option<[f64; 3]> {
        let of = |kind: Kind| {
            let all = self.0.iter();
            all.filter(move |one| one.kind == kind && one.case == case && one.label == label)
        };
        let ratios = of(kind).filter_map(|one| {
            let other = number(of(to).find(|other| other.round == one.round)?)?;
            (other > 0.0).then_some(number(one)? / other)
        });
        spread(ratios)
    }
}

/// Median, least and most; `None` of nothing.
pub(super) fn spread(values: impl Iterator<Item = f64>) -> Option<[f64; 3]> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let (least, most) = (*values.first()?, *values.last()?);
    let middle = values.len() / 2;
    let median = if values.len().is_multiple_of(2) {
        (values[middle - 1] + values[middle]) / 2.0
    } else {
        values[middle]
    };
    Some([median, least, most])
}

/// A median with its spread, for a table.
pub(super) fn shown([median, least, most]: [f64; 3], digits: usize) -> String {
    format!("{median:.digits$} ({least:.digits$} to {most:.digits$})")
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::case::Command;
    use super::*;

    pub(in super::super) fn case(command: Command, connections: usize, pipeline: usize) -> Case {
        Case { command, connections, pipeline }
    }

    /// A sample of `per_second` operations, each of which took half a CPU millisecond.
    pub(in super::super) fn sample(kind: Kind, round: usize, per_second: f64) -> Sample {
        Sample {
            kind,
            label: String::new(),
            case: case(Command::Set, 50, 1),
            round,
            rate: None,
            per_second,
            operations: 1000,
            unsent: 0,
            errors: 0,
            nothing: 0,
            first_error: None,
            p50_us: 10.0,
            p99_us: 20.0,
            p999_us: 30.0,
            cpu: vec![("x".into(), 0.4), ("y".into(), 0.1)],
            generator_cpu: 0.2,
            written: Some(30_000),
            user_bytes: 10_000,
            canary: Canary { per_second: 9000.0, p50_us: 100.0 },
        }
    }

    #[test]
    fn the_spread_is_median_least_and_most() {
        assert_eq!(spread([3.0, 1.0, 2.0].into_iter()), Some([2.0, 1.0, 3.0]));
        assert_eq!(spread([4.0, 1.0].into_iter()), Some([2.5, 1.0, 4.0]));
        assert_eq!(spread(std::iter::empty()), None);
        assert_eq!(shown([2.5, 1.0, 4.0], 1), "2.5 (1.0 to 4.0)");
    }

    #[test]
    fn ratios_are_taken_within_a_round_and_a_label() {
        let stranger = Sample { label: "other".into(), ..sample(Kind::Redis, 0, 1.0) };
        let samples = Samples(vec![
            stranger,
            sample(Kind::Redis, 0, 100.0),
            sample(Kind::Flotilla, 0, 50.0),
            sample(Kind::Redis, 1, 1000.0),
            sample(Kind::Flotilla, 1, 600.0),
        ]);
        let what = ("", case(Command::Set, 50, 1));
        let number = |one: &Sample| Some(one.per_second);
        let ratio = |kind, to| samples.ratios(what, kind, to, number);
        assert_eq!(ratio(Kind::Flotilla, Kind::Redis), Some([0.55, 0.5, 0.6]));
        assert_eq!(ratio(Kind::Flotilla, Kind::Etcd), None);
        assert_eq!(samples.per_second(Kind::Flotilla, what.1), Some(325.0));
        assert_eq!(samples.per_second(Kind::Etcd, what.1), None);
    }

    #[test]
    fn the_cpu_of_all_processes_counts_and_nothing_done_has_no_cost() {
        let one = sample(Kind::Flotilla, 0, 1.0);
        assert_eq!(one.cpu_per_1000(), Some(500.0));
        assert!(!one.failed());
        let none = Sample { operations: 0, ..one };
        assert_eq!(none.cpu_per_1000(), None);
        assert!(none.failed());
    }
}
