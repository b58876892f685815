//! The library's view of a [`StateMachine`].
//!
//! Its calls may block on the disk. They run on the task that the library gives to the state
//! machine, after telling the runtime ([`may_block`]): a write stall may last seconds, and other
//! groups' heartbeats wait in the same thread's queue. Telling it costs two switches of threads, so a
//! small chunk of entries is applied without: its write tells it if it has to wait.

use super::config::{C, RaftLogId, SnapshotMeta, StoredMembership};
use super::convert::{self, invalid};
use super::machine::{SnapshotCut, SnapshotReceiver, SnapshotSink, StateMachine};
use super::types::{Applied, Body};
use crate::threads::{INLINE_BYTES_MAX, may_block};
use flotilla_topology::ids::LogId;
use futures::{FutureExt, Stream, StreamExt};
use openraft::storage::{ApplyResponder, EntryResponder, RaftStateMachine, Snapshot};
use openraft::{OptionalSend, RaftSnapshotBuilder};
use parking_lot::Mutex;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::watch;

/// Entries and bytes that are applied as one batch, at most: one RocksDB write of sorted keys.
const CHUNK_ENTRIES_MAX: usize = 256;
const CHUNK_BYTES_MAX: usize = 4 << 20;

/// What is known about the state machine outside its task.
pub(super) struct Progress {
    pub(super) applied: watch::Sender<LogId>,
    /// Term of the last blank entry that was applied.
    pub(super) blank_term: AtomicU64,
}

/// A snapshot in the library's hands, on either side.
pub(super) enum SnapshotData {
    /// Cut here, to be sent.
    Cut(SnapshotCut),
    /// Received completely, to be installed.
    Received(Box<dyn SnapshotSink>),
    /// Marks only how far the log may be purged.
    Mark,
}

/// A state machine in the library's hands.
pub(super) struct Machine {
    // The mutex is never contended: it makes the type shareable, as the library demands.
    inner: Mutex<Box<dyn StateMachine>>,
    progress: Arc<Progress>,
    /// Tells the log how far it was applied.
    log: Box<dyn Fn(LogId) + Send + Sync>,
}

impl Machine {
    pub(super) fn new(
        mut inner: Box<dyn StateMachine>,
        log: Box<dyn Fn(LogId) + Send + Sync>,
    ) -> io::Result<(Machine, Arc<Progress>, Arc<dyn SnapshotReceiver>)> {
        let applied = inner.applied()?.log_id;
        let receiver = inner.receiver();
        let progress = Arc::new(Progress {
            applied: watch::Sender::new(applied),
            // What a former life applied says nothing: leading again takes a new term.
            blank_term: AtomicU64::new(0),
        });
        let machine = Machine { inner: Mutex::new(inner), progress: progress.clone(), log };
        Ok((machine, progress, receiver))
    }

    fn call<T>(&mut self, call: impl FnOnce(&mut dyn StateMachine) -> T) -> T {
        let inner = self.inner.get_mut().as_mut();
        may_block(|| call(inner))
    }

    fn apply_chunk(&mut self, chunk: Vec<EntryResponder<C>>, bytes: usize) -> io::Result<()> {
        let mut entries = Vec::with_capacity(chunk.len());
        let mut waiting: Vec<Option<ApplyResponder<C>>> = Vec::with_capacity(chunk.len());
        let mut blank_term = None;
        for (entry, responder) in chunk {
            let entry = convert::committed(entry);
            if entry.body == Body::Blank {
                blank_term = Some(entry.log_id.term);
            }
            entries.push(entry);
            waiting.push(responder);
        }
        let Some(last) = entries.last().map(|entry| entry.log_id) else { return Ok(()) };
        let count = entries.len();
        let outcomes = match bytes > INLINE_BYTES_MAX {
            true => self.call(|inner| inner.apply(entries))?,
            false => self.inner.get_mut().apply(entries)?,
        };
        assert_eq!(outcomes.len(), count, "apply gives one outcome per entry");
        if let Some(term) = blank_term {
            self.progress.blank_term.store(term, Ordering::Release);
        }
        self.progress.applied.send_replace(last);
        (self.log)(last);
        for (responder, outcome) in waiting.into_iter().zip(outcomes) {
            if let Some(responder) = responder {
                responder.send(outcome);
            }
        }
        Ok(())
    }
}

fn entry_bytes((entry, _): &EntryResponder<C>) -> usize {
    match &entry.payload {
        openraft::EntryPayload::Normal(payload) => payload.0.len(),
        _ => 0,
    }
}

impl RaftStateMachine<C> for Machine {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = Mark;

    async fn applied_state(&mut self) -> Result<(Option<RaftLogId>, StoredMembership), io::Error> {
        let Applied { log_id, membership } = self.call(|inner| inner.applied())?;
        let membership = convert::stored_membership(&membership).map_err(invalid)?;
        Ok((convert::raft_log_id(log_id), membership))
    }

    async fn apply<S>(&mut self, entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<C>, io::Error>> + Unpin + OptionalSend,
    {
        let mut entries = entries.fuse();
        while let Some(first) = entries.next().await {
            let first = first?;
            let mut bytes = entry_bytes(&first);
            let mut chunk = vec![first];
            while chunk.len() < CHUNK_ENTRIES_MAX
                && bytes < CHUNK_BYTES_MAX
                && let Some(Some(next)) = entries.next().now_or_never()
            {
                let next = next?;
                bytes += entry_bytes(&next);
                chunk.push(next);
            }
            self.apply_chunk(chunk, bytes)?;
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Mark {
        // Taken here, where nothing is applied meanwhile; building runs beside the applying.
        Mark(Some(self.call(|inner| inner.durable())))
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: SnapshotData,
    ) -> Result<(), io::Error> {
        let sink = match snapshot {
            SnapshotData::Received(sink) => sink,
            SnapshotData::Cut(cut) => self.call(|inner| pump(cut, inner.receiver().as_ref()))?,
            SnapshotData::Mark => return Err(io::Error::other("a mark holds no data")),
        };
        let applied = convert::applied(meta);
        let log_id = applied.log_id;
        self.call(|inner| inner.install(applied, sink))?;
        self.progress.applied.send_replace(log_id);
        Ok(())
    }

    /// A new cut each time: an older one would only make the receiver's way longer. Never `None`
    /// once anything is applied, since a leader that needs one and gets none stops for good.
    async fn get_current_snapshot(
        &mut self,
    ) -> Result<
        Option<Snapshot<CommittedLeaderId, u64, super::types::Member, SnapshotData>>,
        io::Error,
    > {
        if self.call(|inner| inner.applied())?.log_id.index == 0 {
            return Ok(None);
        }
        let cut = self.call(|inner| inner.snapshot())?;
        let meta = convert::snapshot_meta(&cut.applied)?;
        Ok(Some(Snapshot { meta, snapshot: SnapshotData::Cut(cut) }))
    }
}

/// Moves a cut of this process into a sink, as the network does between processes.
fn pump(
    mut cut: SnapshotCut,
    receiver: &dyn SnapshotReceiver,
) -> io::Result<Box<dyn SnapshotSink>> {
    let mut sink = receiver.open(&cut.applied)?;
    while let Some(chunk) = cut.source.next_chunk()? {
        sink.write_chunk(chunk)?;
    }
    Ok(sink)
}

type CommittedLeaderId = openraft::alias::CommittedLeaderIdOf<C>;

/// "Building a snapshot" in the library's words: all it does is to say how far the state is
/// durable, and with it how far the log may be purged.
pub(super) struct Mark(Option<io::Result<Applied>>);

impl RaftSnapshotBuilder<C> for Mark {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(
        &mut self,
    ) -> Result<Snapshot<CommittedLeaderId, u64, super::types::Member, SnapshotData>, io::Error>
    {
        let applied = self.0.take().ok_or_else(|| io::Error::other("a mark is built once"))??;
        let meta = convert::snapshot_meta(&applied)?;
        Ok(Snapshot { meta, snapshot: SnapshotData::Mark })
    }
}
