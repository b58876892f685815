//! What the connections ask of the rest of the node.

use super::patience::Patience;
use crate::command::Command;
use crate::group::transaction::{Transaction, Watch};
use crate::resp::{Protocol, Reply};
use bytes::Bytes;
use flotilla_topology::api::ClusterMap;
use flotilla_topology::ids::NamespaceId;
use futures::future::BoxFuture;
use std::sync::Arc;

/// By which port a client came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// Any client: commands are forwarded to where they belong.
    Plain,
    /// Clients that know of slots: MOVED where a command does not belong.
    Cluster,
}

impl Door {
    /// The word in metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Door::Plain => "plain",
            Door::Cluster => "cluster",
        }
    }
}

/// What executing a run of commands needs to know of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionView {
    /// The connection; unique for the life of the process.
    pub client: u64,
    /// Whose keys are meant.
    pub namespace: NamespaceId,
    /// By which port it came.
    pub door: Door,
    /// Whether READONLY allows stale reads of replicas (cluster door only).
    pub readonly: bool,
    /// The version of the protocol, where a reply depends on it.
    pub protocol: Protocol,
    /// Replies of the run should not take more bytes than this in all: a run of many reads of large
    /// values is answered by an error in place of what would pass it. The connection is closed when
    /// they take more than twice as much.
    pub reply_bytes_max: usize,
}

/// The rest of the node, as connections see it. What gives a future may wait, and
/// nothing else.
pub trait Backend: Send + Sync + 'static {
    /// Executes data commands of one connection in the order given, and returns one reply for
    /// each. Commands of different groups run in parallel. A connection has one run at a time. A
    /// command over all groups ([`Place::EveryGroup`](crate::command::Place)) comes alone.
    fn execute(
        self: Arc<Self>,
        session: SessionView,
        commands: Vec<Command>,
    ) -> BoxFuture<'static, Vec<Reply>>;

    /// Waits for what a blocking command has not found, and carries it out once that is there: its
    /// answer, also when its time is up or the wait is ended otherwise. None if the client is gone:
    /// then nothing was popped for it.
    fn wait(
        self: Arc<Self>,
        session: SessionView,
        command: Command,
        patience: Patience,
    ) -> BoxFuture<'static, Option<Reply>>;

    /// Whether a data command may be queued for a transaction, as far as that is known now. The error
    /// is the answer to it.
    fn may_queue(&self, session: SessionView, command: &Command) -> Result<(), Reply>;

    /// Watches keys, all of one group; answered when everything that was acknowledged before can be
    /// read. The error is the answer to the client.
    fn watch(
        self: Arc<Self>,
        session: SessionView,
        keys: Vec<Bytes>,
    ) -> BoxFuture<'static, Result<Vec<Watch>, Reply>>;

    /// Carries out a transaction: all of it, or nothing.
    fn transact(
        self: Arc<Self>,
        session: SessionView,
        transaction: Transaction,
    ) -> BoxFuture<'static, Reply>;

    /// The namespace of that name, if there is one.
    fn namespace(&self, name: &str) -> Option<NamespaceId>;

    /// The newest partition map; `None` before the first has come.
    fn map(&self) -> Option<Arc<ClusterMap>>;

    /// This node's name in the map.
    fn node(&self) -> &str;

    /// The datacenter that this node stands in: clients get the addresses seen from there.
    fn datacenter(&self) -> &str;

    /// Fields of an INFO section (in lower case), beside those that the server knows by itself or
    /// in place of them. It is asked for `flotilla` and every section of Redis.
    fn info(&self, section: &str) -> Vec<(String, String)>;

    /// Settings that CONFIG GET shows, beside those of the server.
    fn settings(&self) -> Vec<(String, String)>;
}
