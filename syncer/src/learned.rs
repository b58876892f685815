//! What the learner tells the shippers: committed positions, and what happened between them.

use flotilla_node::group::entry::Fence;
use flotilla_node::group::remote::{RemoteEffect, Vector};
use flotilla_topology::ids::LogId;
use flotilla_topology::stamp::Stamp;
use std::sync::Arc;

/// A place between two entries of a group's log, with all that one needs to know to go on from
/// there without what stands before it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Position {
    /// The last entry before it.
    pub id: LogId,
    /// The fence there.
    pub fence: Fence,
    /// Highest stamp of the group's own entries up to there.
    pub closed: Stamp,
    /// What the group has of every other cluster as of there.
    pub vector: Arc<Vector>,
}

/// A stretch of committed log: one entry, or several that ship nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Learned {
    /// Where it begins.
    pub prev: LogId,
    /// Where it ends.
    pub at: Position,
    /// What it ships, in order; empty for entries of other clusters, no-ops and ticks.
    pub effects: Vec<RemoteEffect>,
    /// Bytes of the effects.
    pub bytes: usize,
    /// When it was evaluated, by its stamp; 0 if it was not born here.
    pub born_ms: u64,
    /// Whether peers wait for it: effects, or a tick. Everything else travels along with the next
    /// news, since shipping it by itself would make two clusters answer each other for ever.
    pub news: bool,
}

impl Learned {
    /// This stretch and the one behind it as one, if neither ships anything.
    pub fn merged(&self, next: &Learned) -> Option<Learned> {
        assert_eq!(self.at.id, next.prev, "the learner must not skip or repeat an entry");
        let silent = self.effects.is_empty() && next.effects.is_empty();
        silent.then(|| Learned {
            prev: self.prev,
            born_ms: if self.born_ms == 0 { next.born_ms } else { self.born_ms },
            news: self.news || next.news,
            ..next.clone()
        })
    }
}
