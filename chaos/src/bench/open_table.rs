//! An open loop as rows: times, and the same in syncs of the disk.

use super::case::Case;
use super::kind::Kind;
use super::sample::{Sample, Samples, shown, spread};
use serde::{Deserialize, Serialize};
use std::fmt::Write;

/// One case on one server at a fixed rate, over all rounds. Three numbers are the median, the least
/// and the most. Times count from when a request was due.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OpenRow {
    /// The case.
    pub case: Case,
    /// The server.
    pub server: Kind,
    /// Requests per second that were due.
    pub rate: f64,
    /// Requests per second that were answered.
    pub per_second: [f64; 3],
    /// Median, 99th and 99.9th percentile of the times, in microseconds.
    pub us: [[f64; 3]; 3],
    /// The same as multiples of the canary's median time in the same round.
    pub canaries: [[f64; 3]; 3],
    /// Requests that were due and never sent, since the server was too far behind.
    pub unsent: u64,
    /// Replies that were errors, or found nothing. With any, the row proves nothing.
    pub errors: u64,
}

impl OpenRow {
    /// The rows of all samples, case by case, server by server.
    pub fn all(samples: &Samples) -> Vec<OpenRow> {
        let mut places: Vec<(Case, Kind)> = Vec::new();
        for one in &samples.0 {
            if !places.contains(&(one.case, one.kind)) {
                places.push((one.case, one.kind));
            }
        }
        let of = |(case, kind): (Case, Kind)| {
            let all = samples.0.iter();
            let mine = all.filter(|one| one.case == case && one.kind == kind);
            Self::of(case, kind, &mine.collect::<Vec<_>>())
        };
        places.into_iter().filter_map(of).collect()
    }

    fn of(case: Case, server: Kind, mine: &[&Sample]) -> Option<OpenRow> {
        let times: [fn(&Sample) -> f64; 3] =
            [|one| one.p50_us, |one| one.p99_us, |one| one.p999_us];
        let us = times.map(|time| spread(mine.iter().map(|one| time(one))).unwrap_or_default());
        let canaries = times.map(|time| {
            let multiple = |one: &&Sample| time(one) / one.canary.p50_us;
            spread(mine.iter().map(multiple)).unwrap_or_default()
        });
        Some(OpenRow {
            case,
            server,
            rate: mine.first()?.rate?,
            per_second: spread(mine.iter().map(|one| one.per_second))?,
            us,
            canaries,
            unsent: mine.iter().map(|one| one.unsent).sum(),
            errors: mine.iter().map(|one| one.errors + one.nothing).sum(),
        })
    }
}

/// The table for people.
pub(super) fn markdown(rows: &[OpenRow]) -> String {
    let mut text = "### Open loop: times from when a request was due\n\n\
        | case | server | due/s | answered/s | p50 ms | p99 ms | p99.9 ms \
        | p50 in canaries | p99 in canaries | p99.9 in canaries |\n\
        |---|---|---|---|---|---|---|---|---|---|\n"
        .to_owned();
    for row in rows {
        let OpenRow { case, server, rate, unsent, .. } = row;
        let errors = if row.errors > 0 { " (ERRORS)" } else { "" };
        let behind =
            if *unsent > 0 { format!(" (TOO FAST, {unsent} unsent)") } else { String::new() };
        let us = row.us.map(|us| shown(us.map(|us| us / 1e3), 2));
        let canaries = row.canaries.map(|canaries| shown(canaries, 1));
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "| {case} | {server}{errors}{behind} | {rate:.0} | {} | {} | {} |",
            shown(row.per_second, 0),
            us.join(" | "),
            canaries.join(" | ")
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::canary::Canary;
    use super::super::sample::tests::sample;
    use super::*;

    #[test]
    fn times_are_multiples_of_the_canary_of_their_own_round() {
        let at = |round, p99_us, canary| Sample {
            rate: Some(500.0),
            p99_us,
            canary: Canary { per_second: 1.0, p50_us: canary },
            ..sample(Kind::FlotillaOne, round, 499.0)
        };
        let late = Sample { unsent: 7, ..at(2, 3000.0, 100.0) };
        let samples = Samples(vec![at(0, 1000.0, 100.0), at(1, 2000.0, 50.0), late]);
        let rows = OpenRow::all(&samples);
        let [row] = rows.as_slice() else { panic!("{rows:?}") };
        assert_eq!((row.rate, row.unsent, row.errors), (500.0, 7, 0));
        assert_eq!(row.us[1], [2000.0, 1000.0, 3000.0]);
        assert_eq!(row.canaries[1], [30.0, 10.0, 40.0]);
        let text = markdown(&rows);
        assert!(
            text.contains("flotilla-one (TOO FAST, 7 unsent) | 500 | 499 (499 to 499)"),
            "{text}"
        );
        assert!(OpenRow::all(&Samples(vec![sample(Kind::Redis, 0, 1.0)])).is_empty());
    }
}
