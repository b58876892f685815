//! How messages reach other members: the small part of the transport that Raft needs, as a trait,
//! so that tests may cut, hold and lose messages.

use super::pace::Pace;
use super::types::Member;
use crate::transport::{Class, Client, RpcError};
use bytes::Bytes;
use flotilla_topology::ids::ReplicaId;
use futures::FutureExt;
use futures::future::BoxFuture;
use std::sync::Arc;
use std::time::Duration;

/// One other process.
pub trait Peer: Send + Sync + 'static {
    /// Sends a message and gives its answer. The message is queued when this returns, before the
    /// future is polled: the order of calls is the order on the wire, per class.
    fn call(
        &self,
        class: Class,
        kind: u16,
        payload: Bytes,
        deadline: Duration,
    ) -> BoxFuture<'static, Result<Bytes, RpcError>>;
}

impl Peer for Client {
    fn call(
        &self,
        class: Class,
        kind: u16,
        payload: Bytes,
        deadline: Duration,
    ) -> BoxFuture<'static, Result<Bytes, RpcError>> {
        Client::call(self, class, kind, payload, deadline).boxed()
    }
}

/// The address book.
pub trait Network: Send + Sync + 'static {
    /// Whom to talk to in order to reach this replica; `None` while its address is not known. Asked
    /// for every message, so that an address may change. The same process must always give the same
    /// peer: the order of messages depends on it.
    fn peer(&self, replica: ReplicaId, member: &Member) -> Option<Arc<dyn Peer>>;

    /// How fast old entries may leave, of all groups together; `None`: as fast as it goes.
    fn catch_up(&self) -> Option<&Pace> {
        None
    }
}
