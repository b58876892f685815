//! How messages reach other members: the small part of the transport that Raft needs.

use super::types::Member;
use bytes::Bytes;
use flotilla_topology::ids::ReplicaId;
use futures::future::BoxFuture;
use std::sync::Arc;
use std::time::Duration;

/// Which connection a message takes, so that heartbeats and votes never queue behind data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Lane {
    /// Heartbeats, votes, leader transfers.
    Control,
    /// Log entries.
    Data,
    /// Snapshots.
    Bulk,
}

/// A message was not answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// Certainly not delivered: back off.
    #[error("unreachable: {0}")]
    Unreachable(String),
    /// Perhaps delivered; no answer came.
    #[error("no answer: {0}")]
    NoAnswer(String),
    /// Delivered and refused.
    #[error("refused: {0}")]
    Refused(String),
}

/// One other process.
pub trait Peer: Send + Sync + 'static {
    /// Sends a message and gives its answer. The message is queued when this returns, before the
    /// future is polled: the order of calls is the order on the wire, per lane.
    fn call(
        &self,
        lane: Lane,
        kind: u16,
        payload: Bytes,
        deadline: Duration,
    ) -> BoxFuture<'static, Result<Bytes, CallError>>;
}

/// The address book.
pub trait Network: Send + Sync + 'static {
    /// Whom to talk to in order to reach this replica. Asked when the library opens a client, which
    /// it keeps for a term; so the peer itself must follow a change of address.
    fn peer(&self, replica: ReplicaId, member: &Member) -> Arc<dyn Peer>;
}

/// Answers one message. Dropped without an answer, the sender hears that there is none.
pub type Reply = Box<dyn FnOnce(Result<Bytes, String>) + Send>;
