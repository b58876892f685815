//! Whether rows are kept in step with other clusters, and since when.

use flotilla_topology::stamp::Stamp;

/// Whether a group is synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Synced {
    /// It is not: rows have no stamps, and deletes are physical.
    No,
    /// It was born so: every row has its stamps.
    Always,
    /// Since the entry with this stamp. A row without stamps was written before, and counts as
    /// written by that entry.
    Since(Stamp),
}

impl Synced {
    /// Whether it is, now.
    pub fn is_on(self) -> bool {
        self != Synced::No
    }

    /// What a row without stamps is stamped by.
    pub fn unstamped(self) -> Stamp {
        match self {
            Synced::No | Synced::Always => Stamp::ZERO,
            Synced::Since(stamp) => stamp,
        }
    }
}
