//! Consensus: one replicated log per group, and the state machine that it builds.
//!
//! This is the only module that names the Raft library. What it promises to the rest:
//! * Proposals of one task enter the log in the order of [`RaftGroup::propose`], or are refused
//!   before they enter; each comes back through [`Completions`] as applied, refused or unknown.
//! * A [`StateMachine`] sees each committed entry once, in order, with its term.
//! * A leader that has not applied its own term's blank entry is not [`RaftStatus::ready`].
//! * A group that nobody reads or writes is parked ([`RaftGroups::park_idle`]): it costs next to nothing, and
//!   the first read or write finds its leader a round trip later.
//! * The log is purged only by [`RaftGroup::purge`], never beyond what is durably applied.
//!
//! Not here: what entries mean, the (term, seq) fence, which members a group should have.

mod adapter;
mod config;
mod convert;
pub(crate) mod fuzz;
mod group;
mod herd;
mod machine;
mod network;
mod news;
mod pace;
mod parking;
mod peer;
mod purge;
mod recv_snapshot;
mod registry;
mod send_snapshot;
mod server;
mod status;
mod storage;
mod types;
mod wire;

#[cfg(test)]
mod tests;

pub use config::Completions;
pub use group::{RaftGroup, Start, StartError};
pub use machine::{
    CHUNK_BYTES_MAX, SnapshotCut, SnapshotReceiver, SnapshotSink, SnapshotSource, StateMachine,
};
pub use pace::Pace;
pub use peer::{Network, Peer};
pub use purge::Lags;
pub use registry::RaftGroups;
pub use types::{
    Applied, Body, ChangeError, Committed, Completion, Member, Membership, NotLeader, Outcome,
    RaftRole, RaftStatus, Settings, Stopped, Verdict,
};
pub use wire::group_of;
