//! What a group needs from the state behind it.
//!
//! A [`StateMachine`] is called by one task at a time. Its calls may block on the disk: they run
//! where blocking holds up no other group.
//!
//! A snapshot travels as chunks of at most [`CHUNK_BYTES_MAX`] from a [`SnapshotSource`] (a
//! consistent cut that was taken at once, read while it is sent) into a [`SnapshotSink`] on the
//! other side (rows collected beside the live state), which becomes the state in one atomic step
//! or not at all.

use super::types::{Applied, Committed, Outcome};
use bytes::Bytes;
use std::io;
use std::sync::Arc;

/// Largest chunk of a snapshot: small enough to be sent again without regret.
pub const CHUNK_BYTES_MAX: usize = 1 << 20;

/// The state that a group's log builds. Implemented by a node's storage and by the syncer's tap.
pub trait StateMachine: Send + 'static {
    /// The last applied entry and membership. After a restart: what survived.
    fn applied(&mut self) -> io::Result<Applied>;

    /// Applies entries in order: no gap, none twice. One outcome per entry. An error stops the group
    /// here for good: a replica that alone fails to apply must not go on.
    fn apply(&mut self, entries: Vec<Committed>) -> io::Result<Vec<Outcome>>;

    /// The applied state that survives a crash of the machine. The log is purged only up to there. To
    /// flush here would hold up all other work of the group.
    fn durable(&mut self) -> io::Result<Applied>;

    /// Takes a consistent cut of data and position now. Must be cheap: it is asked for at every
    /// start of a transfer, and all other work of the group waits for it.
    fn snapshot(&mut self) -> io::Result<SnapshotCut>;

    /// Where incoming snapshots are collected. Asked once, at start.
    fn receiver(&self) -> Arc<dyn SnapshotReceiver>;

    /// Makes a completely received snapshot the state, by `sink.finish(applied)` and by reading
    /// anew what is kept in memory of it.
    fn install(&mut self, applied: Applied, sink: Box<dyn SnapshotSink>) -> io::Result<()>;
}

/// A consistent cut of the state.
pub struct SnapshotCut {
    /// What it contains.
    pub applied: Applied,
    /// Its bytes.
    pub source: Box<dyn SnapshotSource>,
}

/// Reads a cut chunk by chunk. Calls may block on the disk.
pub trait SnapshotSource: Send {
    /// The next chunk, of 1 to [`CHUNK_BYTES_MAX`] bytes; `None` at the end.
    fn next_chunk(&mut self) -> io::Result<Option<Bytes>>;
}

/// Opens sinks, while the state machine goes on applying.
pub trait SnapshotReceiver: Send + Sync {
    /// False for a replica that keeps no data: the sender then sends the position only.
    fn wants_data(&self) -> bool {
        true
    }

    /// Starts to collect a snapshot that will be at `applied`. What an earlier unfinished one
    /// left behind may be dropped.
    fn open(&self, applied: &Applied) -> io::Result<Box<dyn SnapshotSink>>;
}

/// Collects a snapshot beside the live state. Dropping it without `finish` aborts.
pub trait SnapshotSink: Send {
    /// The next chunk, in order, verified. May block on the disk.
    fn write_chunk(&mut self, chunk: Bytes) -> io::Result<()>;

    /// Everything has arrived: makes it durable and makes it the state, in one atomic step.
    fn finish(self: Box<Self>, applied: &Applied) -> io::Result<()>;
}
