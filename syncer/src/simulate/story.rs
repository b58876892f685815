//! What happened in a history, line by line, for people who look for a fault: what was done, and
//! which rows changed where since the line before.

use super::group::SimGroup;
use super::oracle::dump_rows;
use std::collections::{BTreeMap, BTreeSet};

/// See the module.
#[derive(Default)]
pub struct Story {
    lines: Vec<String>,
    /// The rows of each group, by place of its cluster and its own, as of the last line.
    rows: BTreeMap<(usize, usize), BTreeSet<String>>,
}

impl Story {
    /// What was changed by what the last line said, then the next line.
    pub(super) fn tell(&mut self, clusters: &[Vec<SimGroup>], what: String) {
        self.look(clusters);
        self.lines.push(what);
    }

    /// All of it.
    pub(super) fn end(mut self, clusters: &[Vec<SimGroup>]) -> Vec<String> {
        self.look(clusters);
        self.lines
    }

    fn look(&mut self, clusters: &[Vec<SimGroup>]) {
        for (cluster, groups) in clusters.iter().enumerate() {
            for (place, group) in groups.iter().enumerate() {
                let now: BTreeSet<String> = dump_rows(&group.state.rows).into_iter().collect();
                let before = self.rows.entry((cluster, place)).or_default();
                let at = (cluster, place);
                let gone = before.difference(&now).map(|row| format!("    {at:?} - {row}"));
                let new = now.difference(before).map(|row| format!("    {at:?} + {row}"));
                self.lines.extend(gone.chain(new));
                *before = now;
            }
        }
    }
}
