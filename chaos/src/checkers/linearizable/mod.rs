//! `linearizable`: operations on one key through any nodes of a cluster are linearizable.
//!
//! Linearizability composes: a history is linearizable when the history of each key is. For each
//! key this searches an order of the operations (Wing and Gong's search with Lowe's memo) in which
//! each operation stands between its invocation and its return, and in which each answer is what a
//! single Redis would have given. An open operation may stand anywhere after its invocation, or be
//! left out.
//!
//! Three observations keep open operations, which stay concurrent with all that follows, from making
//! the search exponential: texts that nobody ever read are interchangeable; of open operations that
//! do the same, the earlier may always go first; and one whose effect the next operation does not
//! notice need not have been placed.
//!
//! `model` is the sequential Redis; `search` is the search.

mod model;
mod search;

#[cfg(test)]
mod tests;

use super::Violation;
use crate::history::{History, Record};
use model::Model;
use search::Found;
use std::collections::BTreeMap;
use std::fmt::Write;

const INVARIANT: &str = "linearizable";
/// Steps of the search on one key; beyond it the key counts as undecided. Some seconds of work.
const STEPS_MAX: u64 = 20_000_000;
/// Operations of a key that are shown around the one that does not fit.
const SHOWN_MAX: usize = 24;

/// What the check found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Keys that were checked.
    pub keys: usize,
    /// Operations on them.
    pub operations: usize,
    /// How many of those stayed open.
    pub open: usize,
    /// Keys without a linearization.
    pub violations: Vec<Violation>,
    /// Keys whose search was given up. Not a pass.
    pub undecided: Vec<String>,
}

/// Checks every key of a history.
pub fn check(history: &History) -> Report {
    check_within(history, STEPS_MAX)
}

fn check_within(history: &History, steps: u64) -> Report {
    let mut keys: BTreeMap<&str, Vec<&Record>> = BTreeMap::new();
    for record in &history.records {
        keys.entry(&record.key).or_default().push(record);
    }
    let mut report = Report { keys: keys.len(), ..Report::default() };
    for (key, mut records) in keys {
        records.sort_by_key(|record| record.invoked);
        report.operations += records.len();
        report.open += records.iter().filter(|record| record.returned.is_none()).count();
        match search::search(&Model::new(&records), steps) {
            Found::Order => {}
            Found::NoOrder { stuck } => {
                let what = explain(key, &records, stuck);
                report.violations.push(Violation { invariant: INVARIANT, what });
            }
            Found::GaveUp => report.undecided.push(key.to_owned()),
        }
    }
    report
}

/// Shows the operation that fits nowhere among those around it.
fn explain(key: &str, records: &[&Record], stuck: usize) -> String {
    let mut text = format!("no order explains what clients saw of {key} (times in us):");
    let first = stuck.saturating_sub(SHOWN_MAX * 3 / 4);
    for (number, record) in records.iter().enumerate().skip(first).take(SHOWN_MAX) {
        let mark = if number == stuck { "  <- fits nowhere" } else { "" };
        let (at, answer) = match &record.returned {
            Some((at, answer)) => ((at / 1000).to_string(), format!("{answer:?}")),
            None => ("open".into(), "unknown".into()),
        };
        let Record { client, op, invoked, .. } = record;
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "\n  {:>10} - {at:>10}  client {client}: {op:?} -> {answer}{mark}",
            invoked / 1000
        );
    }
    text
}
