//! Links to other clusters: who is at the other end, how a link of a group stands, and what an
//! operator may do with one.

use crate::ids::{ClusterId, GroupId, LogId};
use crate::slot::Slot;
use serde::{Deserialize, Serialize};

/// What a peer counts for here.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// It counts: collection and purge floors wait for it.
    #[default]
    Live,
    /// The live clusters have given it up: its stream is not taken, and it holds nothing back.
    Fenced,
    /// It counts again, and merges its state before it ships.
    Returning,
}

impl Standing {
    /// The word, as in JSON.
    pub fn word(self) -> &'static str {
        match self {
            Standing::Live => "live",
            Standing::Fenced => "fenced",
            Standing::Returning => "returning",
        }
    }
}

/// What a cluster says of one of its peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum View {
    /// It counts.
    Counts,
    /// It counts, and has been away beyond its backlog budget for so long that it may be fenced.
    Overdue,
    /// It was given up.
    Fenced,
}

/// What a peer says of its peers, as it told last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerView {
    /// Who says it.
    pub by: ClusterId,
    /// Of all that it knows.
    pub of: Vec<(ClusterId, View)>,
}

/// A cluster on the other end of links, from the topology file or added while PD runs.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct PeerCluster {
    /// Its id, as in the certificates of its syncers.
    pub id: ClusterId,
    /// Its name.
    pub name: String,
    /// QUIC addresses of its syncers.
    pub syncers: Vec<String>,
    /// Round trip time to it in milliseconds, if the topology file says so. Sizes windows.
    #[serde(default)]
    pub rtt_ms: Option<f64>,
    /// What it counts for here.
    #[serde(default)]
    pub standing: Standing,
    /// Nothing is shipped to it, by an operator's wish. It counts as before.
    #[serde(default)]
    pub paused: bool,
    /// Rises when an operator asks for a merge of everything to that peer.
    #[serde(default)]
    pub merge_epoch: u64,
    /// Rises when an operator asks that all streams to it begin anew at the receiver's cursors.
    #[serde(default)]
    pub rewind_epoch: u64,
    /// It has been away beyond its backlog budget for longer than the configuration allows: it is
    /// fenced when all other clusters find so.
    #[serde(default)]
    pub overdue: bool,
}

impl PeerCluster {
    /// Whether it counts here: collection and purge floors wait for it.
    pub fn counts(&self) -> bool {
        self.standing != Standing::Fenced
    }

    /// What this cluster says of it.
    pub fn view(&self) -> View {
        match self.standing {
            Standing::Fenced => View::Fenced,
            _ if self.overdue => View::Overdue,
            _ => View::Counts,
        }
    }
}

/// State of a link of one group, with a reason code. Numbers are of the sending side.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LinkStatus {
    /// The sending cluster's group.
    pub group: GroupId,
    /// The receiving cluster.
    pub peer: ClusterId,
    /// Reason code, see [`LinkState`].
    pub state: LinkState,
    /// One line for people: what was seen last.
    pub detail: String,
    /// Age of the oldest entry that the receiver has not acknowledged, in seconds; 0 when none is.
    pub lag_seconds: f64,
    /// Median over the last minute of the time from commit here to acknowledged commit there minus
    /// the way back, in seconds, by stamps. `None` when nothing was sent.
    pub lag_p50_seconds: Option<f64>,
    /// 99th percentile of the same.
    pub lag_p99_seconds: Option<f64>,
    /// Entries committed here and not yet acknowledged there.
    pub backlog_entries: u64,
    /// Their size in bytes, as far as it is known.
    pub backlog_bytes: u64,
    /// What the receiver has committed.
    pub cursor: LogId,
    /// Mean size of a log entry for this link, as far as its syncer has read the log: PD takes it
    /// for what the syncer has not read yet. 0 while it has read nothing.
    #[serde(default)]
    pub entry_bytes: f64,
    /// Time until the backlog budget would force a merge, at the rate of the last minute. `None`
    /// when the backlog does not grow. Told by PD, which knows the budget.
    #[serde(default)]
    pub runway_seconds: Option<f64>,
    /// Share of a full-state merge that is done, 0 to 1. `None` when none is under way.
    #[serde(default)]
    pub merge_done: Option<f64>,
    /// How long ago the receiver acknowledged anything last: the group keeps its log from there.
    /// `None` before the first time in a tenure.
    #[serde(default)]
    pub floor_age_seconds: Option<f64>,
    /// Milliseconds that the peer's clock is ahead of ours. `None` without a connection.
    #[serde(default)]
    pub clock_offset_ms: Option<i64>,
    /// What comparing the group with the peer's has shown. `None` when nothing is compared.
    #[serde(default)]
    pub audit: Option<LinkAudit>,
}

/// What comparing a group with a peer's has shown so far.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct LinkAudit {
    /// Slots that both sides hold differently although nothing is under way between them.
    pub different_slots: u64,
    /// The first of them.
    pub first_slots: Vec<Slot>,
    /// Slots of the last whole pass that were written too often to tell, or of which one side had
    /// not seen what the other has.
    pub undecided_slots: u64,
    /// Slots of the last whole pass that were compared.
    pub compared_slots: u64,
    /// How long ago a pass over the whole group ended. `None` before the first.
    #[serde(default)]
    pub age_seconds: Option<f64>,
    /// Why nothing is compared now; none while it is.
    #[serde(default)]
    pub waits_for: Option<String>,
}

impl LinkStatus {
    /// A link of which nothing is known yet but its state.
    pub fn new(group: GroupId, peer: ClusterId, state: LinkState) -> LinkStatus {
        LinkStatus {
            group,
            peer,
            state,
            detail: String::new(),
            lag_seconds: 0.0,
            lag_p50_seconds: None,
            lag_p99_seconds: None,
            backlog_entries: 0,
            backlog_bytes: 0,
            cursor: LogId::default(),
            entry_bytes: 0.0,
            runway_seconds: None,
            merge_done: None,
            floor_age_seconds: None,
            clock_offset_ms: None,
            audit: None,
        }
    }
}

/// Why a link of one group is as it is, from best to worst: of several groups the last one in this
/// order speaks for all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LinkState {
    /// The receiver has everything but what is under way.
    Live,
    /// Connected and moving, behind.
    CatchingUp,
    /// The group's whole state travels, since the log alone no longer does.
    Merging,
    /// An operator has paused it.
    Paused,
    /// The receiving cluster was fenced by this one: nothing is shipped to it.
    Fenced,
    /// No connection to any syncer of the receiving cluster.
    Disconnected,
    /// Connected, but nothing moved for a while although something waits.
    Stalled,
    /// Stamps run ahead of the receiver's clock.
    Parked,
    /// The receiver refuses the stream; `detail` says why.
    Refused,
    /// The log no longer reaches back to the cursor: a full-state merge is needed.
    NeedsMerge,
}

impl LinkState {
    /// The word, as in JSON.
    pub fn word(self) -> &'static str {
        match self {
            LinkState::Live => "live",
            LinkState::CatchingUp => "catching-up",
            LinkState::Merging => "merging",
            LinkState::Paused => "paused",
            LinkState::Fenced => "fenced",
            LinkState::Disconnected => "disconnected",
            LinkState::Stalled => "stalled",
            LinkState::Parked => "parked",
            LinkState::Refused => "refused",
            LinkState::NeedsMerge => "needs-merge",
        }
    }

    /// Whether news travel, or will without anybody doing anything.
    pub fn moves(self) -> bool {
        matches!(self, LinkState::Live | LinkState::CatchingUp | LinkState::Merging)
    }
}

/// What an operator does with the link to a peer. All of it may be repeated.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LinkOp {
    /// Ship nothing until it is resumed.
    Pause,
    /// Go on.
    Resume,
    /// Ask every receiver for its cursor again, and go on from there.
    Rewind,
    /// Compare all rows with the peer's and send what it lacks.
    Merge,
    /// Forget the peer. It must be paused or fenced.
    Remove,
    /// A new peer.
    Add {
        /// It. What an operator cannot set (standing, epochs) is not taken from here.
        peer: PeerCluster,
    },
    /// Give the peer up: it holds nothing back any more, and its stream is not taken.
    Fence,
    /// Let a fenced peer come back: it merges its state first.
    Return,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_those_of_the_json_and_old_peers_are_live() {
        for state in [LinkState::CatchingUp, LinkState::Merging, LinkState::NeedsMerge] {
            assert_eq!(serde_json::to_value(state).unwrap(), state.word());
        }
        for standing in [Standing::Live, Standing::Fenced, Standing::Returning] {
            assert_eq!(serde_json::to_value(standing).unwrap(), standing.word());
        }
        let old = r#"{"id": 2, "name": "west", "syncers": ["h:1"], "rtt_ms": 60.0}"#;
        let peer: PeerCluster = serde_json::from_str(old).unwrap();
        assert_eq!((peer.standing, peer.paused, peer.merge_epoch), (Standing::Live, false, 0));
        assert_eq!(serde_json::to_value(LinkOp::Pause).unwrap(), "pause");
    }
}
