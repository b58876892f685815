//! Applying committed entries: one RocksDB batch for a chunk of entries, without reads.
//!
//! Invariants:
//! * An entry takes effect only if the fence admits it; replicas and syncers share that rule.
//! * The applied position, the fence and the clock stand in the same batch as the rows.
//! * Within a chunk the last write of a row wins and rows are written in key order; a range delete
//!   comes before the rows that were written after it.
//! * An entry that cannot be decoded stops the replica: going on would let it differ silently.

use crate::engine::keys;
use crate::engine::meta::GroupMeta;
use crate::engine::rocks::{Engine, EngineError, TabletId};
use crate::engine::row_cache::Change;
use crate::engine::snapshot::{RowStream, TabletSink};
use crate::group::entry::{Entry, Fence, RowOp};
use crate::group::synced;
use crate::raft::{
    Applied, Body, Committed, Outcome, SnapshotCut, SnapshotReceiver, SnapshotSink, StateMachine,
};
use flotilla_topology::ids::{GroupId, LogId, Origin, ReplicaId};
use flotilla_topology::stamp::{Hlc, Stamp};
use rocksdb::WriteBatch;
use std::io;
use std::sync::Arc;
use tokio::sync::watch;

/// Where a replica's applied state is, for everyone who waits for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AppliedState {
    /// Where the rows stand.
    pub tablet: TabletId,
    /// Last applied position; index 0 before the first.
    pub log_id: LogId,
    /// What the next entry must carry.
    pub fence: Fence,
    /// The group's clock.
    pub clock: Hlc,
    /// Highest stamp of this cluster's own effects.
    pub own: Stamp,
    /// The stamp of the entry that switched sync on, if one did.
    pub since: Option<Stamp>,
    /// Bytes of entries that this process has applied.
    pub bytes: u64,
}

/// The state machine of a replica with data.
pub struct Machine {
    engine: Arc<Engine>,
    group: GroupId,
    home: Origin,
    meta: GroupMeta,
    since: Option<Stamp>,
    bytes: u64,
    published: watch::Sender<AppliedState>,
}

impl Machine {
    /// Loads or creates the state of a group that this node carries as `replica`.
    pub fn open(
        engine: &Arc<Engine>,
        group: GroupId,
        replica: ReplicaId,
        home: Origin,
    ) -> io::Result<(Machine, watch::Receiver<AppliedState>)> {
        let meta = match engine.group(group)? {
            Some(meta) => meta,
            None => {
                let meta = GroupMeta::new(engine.new_tablet()?, replica);
                let mut batch = WriteBatch::default();
                engine.put_group(&mut batch, group, &meta);
                engine.write(batch)?;
                meta
            }
        };
        if meta.replica != replica {
            return Err(io::Error::other(format!(
                "group {group} is here as replica {}, not {replica}: this directory belongs to \
                 another member; start with the right `dir`",
                meta.replica
            )));
        }
        let since = since(engine, meta.tablet)?;
        let (published, watch) = watch::channel(state_of(&meta, since, 0));
        let engine = engine.clone();
        Ok((Machine { engine, group, home, meta, since, bytes: 0, published }, watch))
    }

    fn position(&self) -> Applied {
        Applied { log_id: self.meta.applied, membership: self.meta.membership.clone() }
    }
}

/// Since when the group whose rows stand in a tablet is synced, if sync was switched on there.
fn since(engine: &Engine, tablet: TabletId) -> io::Result<Option<Stamp>> {
    synced::read(engine.get(&tablet.key(&[keys::SYNCED]))?)
}

fn state_of(meta: &GroupMeta, since: Option<Stamp>, bytes: u64) -> AppliedState {
    AppliedState {
        tablet: meta.tablet,
        log_id: meta.applied,
        fence: meta.fence,
        clock: meta.clock,
        own: meta.own,
        since,
        bytes,
    }
}

impl GroupMeta {
    /// Takes the next committed entry of a group of `home`: whether it takes effect, and what it
    /// then does to rows.
    ///
    /// # Panics
    /// If it is not the next one.
    pub fn take(
        &mut self,
        home: Origin,
        Committed { log_id, body }: Committed,
    ) -> io::Result<(Outcome, Vec<RowOp>)> {
        assert_eq!(log_id.index, self.applied.index + 1, "apply must not skip or repeat an entry");
        self.applied = log_id;
        let bytes = match body {
            Body::Blank => {
                self.fence.blank(log_id.term);
                return Ok((Outcome::TookEffect, Vec::new()));
            }
            Body::Membership(membership) => {
                self.membership = membership;
                return Ok((Outcome::TookEffect, Vec::new()));
            }
            Body::Normal(bytes) => bytes,
        };
        let entry = Entry::decode(&bytes)
            .map_err(|error| io::Error::other(format!("entry {log_id}: {error}")))?;
        if !self.fence.admit(log_id.term, entry.header.evaluation) {
            metrics::counter!("flotilla_entries_fenced_total").increment(1);
            return Ok((Outcome::Fenced, Vec::new()));
        }
        self.clock = self.clock.max(entry.header.clock);
        // The switch stamps all rows that have no stamp.
        let effects = entry.header.slots.is_some() || synced::switched_by(&entry.ops)?.is_some();
        if entry.header.origin.cluster == home.cluster && effects {
            self.own = self.own.max(entry.header.last);
        }
        Ok((Outcome::TookEffect, entry.ops))
    }
}

/// Rows of a chunk on their way into a batch.
struct Rows<'a> {
    engine: &'a Engine,
    tablet: TabletId,
    rows: Vec<Change>,
    batch: WriteBatch,
    /// What is in the batch beside ranges.
    changes: Vec<Change>,
    ranges: bool,
}

impl Rows<'_> {
    fn push(&mut self, op: RowOp) {
        match op {
            RowOp::Put { key, value, .. } => self.rows.push((self.tablet.key(&key), Some(value))),
            RowOp::Delete { key } => self.rows.push((self.tablet.key(&key), None)),
            RowOp::DeleteRange { from, to } => {
                self.settle();
                self.ranges = true;
                let (from, to) = (self.tablet.key(&from), self.tablet.key(&to));
                self.batch.delete_range_cf(self.engine.data(), from, to);
            }
        }
    }

    /// Moves the collected rows into the batch: sorted, since sorted inserts are cheaper, and only
    /// the last write of each.
    fn settle(&mut self) {
        self.rows.sort_by(|a, b| a.0.cmp(&b.0)); // stable: later writes stay behind earlier ones
        let mut rows = std::mem::take(&mut self.rows).into_iter().peekable();
        while let Some((key, value)) = rows.next() {
            if rows.peek().is_some_and(|(next, _)| *next == key) {
                continue;
            }
            match &value {
                Some(value) => self.batch.put_cf(self.engine.data(), &key, value),
                None => self.batch.delete_cf(self.engine.data(), &key),
            }
            self.changes.push((key, value));
        }
    }

    /// Writes all rows, and where the group stands behind them.
    fn write(mut self, group: GroupId, meta: &GroupMeta) -> Result<(), EngineError> {
        self.settle();
        self.engine.put_group(&mut self.batch, group, meta);
        match self.ranges {
            true => self.engine.write_ranges(self.batch),
            false => self.engine.write_rows(self.batch, self.changes),
        }
    }
}

impl StateMachine for Machine {
    fn applied(&mut self) -> io::Result<Applied> {
        Ok(self.position())
    }

    fn apply(&mut self, entries: Vec<Committed>) -> io::Result<Vec<Outcome>> {
        let mut rows = Rows {
            engine: &self.engine,
            tablet: self.meta.tablet,
            rows: Vec::with_capacity(entries.len() * 4),
            batch: WriteBatch::default(),
            changes: Vec::new(),
            ranges: false,
        };
        let mut outcomes = Vec::with_capacity(entries.len());
        for committed in entries {
            if let Body::Normal(bytes) = &committed.body {
                self.bytes += bytes.len() as u64;
            }
            let (outcome, ops) = self
                .meta
                .take(self.home, committed)
                .map_err(|error| io::Error::other(format!("group {}: {error}", self.group)))?;
            if let Some(since) = synced::switched_by(&ops)? {
                tracing::info!(group = %self.group, stamp = %since, "sync is switched on");
                self.since = Some(since);
            }
            ops.into_iter().for_each(|op| rows.push(op));
            outcomes.push(outcome);
        }
        rows.write(self.group, &self.meta)?;
        self.published.send_replace(state_of(&self.meta, self.since, self.bytes));
        Ok(outcomes)
    }

    fn durable(&mut self) -> io::Result<Applied> {
        match self.engine.group_on_disk(self.group)? {
            Some(meta) => Ok(Applied { log_id: meta.applied, membership: meta.membership }),
            // Nothing at all yet, and so there is little to write.
            None => {
                let position = self.position();
                self.engine.flush()?;
                Ok(position)
            }
        }
    }

    fn snapshot(&mut self) -> io::Result<SnapshotCut> {
        let (meta, stream) = RowStream::cut(&self.engine, self.group)?
            .ok_or_else(|| io::Error::other("a group with a state machine has a meta row"))?;
        let applied = Applied { log_id: meta.applied, membership: meta.membership };
        Ok(SnapshotCut { applied, source: Box::new(stream) })
    }

    fn receiver(&self) -> Arc<dyn SnapshotReceiver> {
        Arc::new(Receiver {
            engine: self.engine.clone(),
            group: self.group,
            replica: self.meta.replica,
        })
    }

    fn install(&mut self, applied: Applied, sink: Box<dyn SnapshotSink>) -> io::Result<()> {
        let old = self.meta.tablet;
        sink.finish(&applied)?;
        self.meta = self
            .engine
            .group(self.group)?
            .ok_or_else(|| io::Error::other("an installed snapshot has a meta row"))?;
        self.since = since(&self.engine, self.meta.tablet)?;
        self.published.send_replace(state_of(&self.meta, self.since, self.bytes));
        // Not sooner: who reads there and finds nothing sees then that it looked at the wrong place.
        self.engine.drop_tablet(old)?;
        tracing::info!(group = %self.group, at = %applied.log_id, "installed a snapshot");
        Ok(())
    }
}

struct Receiver {
    engine: Arc<Engine>,
    group: GroupId,
    replica: ReplicaId,
}

impl SnapshotReceiver for Receiver {
    fn open(&self, _applied: &Applied) -> io::Result<Box<dyn SnapshotSink>> {
        Ok(Box::new(TabletSink::open(&self.engine, self.group, self.replica)?))
    }
}
