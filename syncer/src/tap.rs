//! The state machine of a learner that keeps no data: it follows a group's committed log and hands
//! what took effect to the shippers of the group's links.
//!
//! It applies the same fence as the replicas do, so that an entry that was a no-op there ships
//! nothing here, and keeps what a position means beside its log id: the highest own stamp, and the
//! closed stamp of every other cluster, read from the cursor rows in the entries. Invariants:
//! * Every entry behind the seed goes to every shipper once, in order; entries that ship nothing
//!   move the position.
//! * Only what was born in this cluster is shipped: passing on what was received would echo.
//! * Once a snapshot has replaced entries, nothing is handed on any more: it would leave a gap.
//!
//! It never blocks. What holds back a leader that is faster than a link is the gate, see
//! [`crate::gate`].

use crate::gate::Gate;
use crate::learned::{Learned, Position};
use bytes::Bytes;
use flotilla_node::codec::Encoder;
use flotilla_node::flaws::{self, Flaw};
use flotilla_node::group::cursor::{self, Cursors};
use flotilla_node::group::entry::{Entry, Fence, RowOp};
use flotilla_node::group::remote::{LinkFloor, RemoteEffect, Vector};
use flotilla_node::model::{Effect, Parts, effect_of};
use flotilla_node::raft::{
    Applied, Body, Committed, Membership, Outcome, SnapshotCut, SnapshotReceiver, SnapshotSink,
    SnapshotSource, StateMachine,
};
use flotilla_topology::ids::{GroupId, LogId, Origin};
use flotilla_topology::slot::SlotRange;
use flotilla_topology::stamp::Stamp;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use tokio::sync::mpsc;

/// What the shippers of a group are told.
#[derive(Debug, Clone)]
pub enum News {
    /// The log goes on.
    Committed(Vec<Arc<Learned>>),
    /// A snapshot took the place of entries: what stood before this position will never come.
    Jumped(LogId),
}

/// Where the tap of a group puts what it learns: one queue per peer, each counted by its gate.
#[derive(Clone, Default)]
pub struct Outlets {
    queues: Arc<Mutex<Vec<Outlet>>>,
}

/// One peer's queue, and what counts what is in it.
type Outlet = (mpsc::UnboundedSender<News>, Gate);

impl Outlets {
    /// Adds a peer. The queue is unbounded; the gate keeps the leader from filling it.
    pub fn add(&self, gate: Gate) -> mpsc::UnboundedReceiver<News> {
        let (queue, news) = mpsc::unbounded_channel();
        self.queues.lock().push((queue, gate));
        news
    }

    /// Tells all peers.
    pub fn tell(&self, news: &News) {
        let bytes = match news {
            News::Committed(entries) => entries.iter().map(|entry| entry.bytes).sum(),
            News::Jumped(_) => 0,
        };
        self.queues.lock().retain(|(queue, gate)| {
            gate.add(bytes);
            queue.send(news.clone()).is_ok()
        });
    }
}

/// See the module's text.
pub struct Tap {
    group: GroupId,
    /// This cluster: only what was born here is shipped.
    own: Origin,
    slots: SlotRange,
    membership: Membership,
    at: Position,
    cursors: Cursors,
    /// Closed stamps as of the seed, until cursor rows behind it say more.
    seeded: BTreeMap<flotilla_topology::ids::ClusterId, Stamp>,
    outlets: Outlets,
    jumped: bool,
}

/// Where a learner starts, from what a peer has acknowledged; `None` is the log's start.
pub fn seed_position(floor: Option<&LinkFloor>) -> Position {
    floor.map_or_else(Position::default, |floor| Position {
        id: floor.position,
        fence: floor.fence,
        closed: floor.closed,
        vector: Arc::new(floor.vector.clone()),
    })
}

impl Tap {
    /// Of a learner whose log begins behind `seed`.
    pub fn new(group: GroupId, own: Origin, slots: SlotRange, seed: Position, out: Outlets) -> Tap {
        Tap {
            group,
            own,
            slots,
            membership: Membership { log_id: LogId::default(), ..Membership::default() },
            seeded: seed.vector.iter().copied().collect(),
            at: seed,
            cursors: Cursors::new(),
            outlets: out,
            jumped: false,
        }
    }

    fn learn(&mut self, entry: Committed) -> io::Result<(Learned, Outcome)> {
        let prev = self.at.id;
        let mut learned = Learned {
            prev,
            at: Position::default(),
            effects: Vec::new(),
            bytes: 0,
            born_ms: 0,
            news: false,
        };
        let mut outcome = Outcome::TookEffect;
        match entry.body {
            Body::Blank => self.at.fence.blank(entry.log_id.term),
            Body::Membership(membership) => self.membership = membership,
            Body::Normal(bytes) => outcome = self.effective(entry.log_id, &bytes, &mut learned)?,
        }
        self.at.id = entry.log_id;
        learned.at = self.at.clone();
        Ok((learned, outcome))
    }

    fn effective(&mut self, id: LogId, bytes: &Bytes, to: &mut Learned) -> io::Result<Outcome> {
        let entry = Entry::decode(bytes).map_err(|error| self.unreadable(id, &error))?;
        let admitted = self.at.fence.admit(id.term, entry.header.evaluation);
        if !admitted && !flaws::has(Flaw::ShipsNoOps) {
            return Ok(Outcome::Fenced);
        }
        let own = entry.header.origin.cluster == self.own.cluster;
        if own {
            self.at.closed = self.at.closed.max(entry.header.last);
            to.born_ms = entry.header.last.hlc.ms();
            to.news = entry.ops.is_empty(); // a tick: peers wait for its stamp
        }
        let mut moved = false;
        for op in &entry.ops {
            let RowOp::Put { key, value, parts } = op else { continue };
            let row = cursor::read_row(key, value).map_err(|error| self.unreadable(id, &error))?;
            if let Some((name, cursor)) = row {
                self.cursors.insert(name, cursor);
                moved = true;
            } else if own {
                let effect = effect_of(entry.header.origin, key, value, Parts(*parts))
                    .map_err(|error| self.unreadable(id, &error))?;
                if let Some(effect) = effect.map(|effect| portable(id, &effect)) {
                    // The receiver writes the whole row, however little of it travels: a batch of
                    // new expiries on large values must still fit into one entry there.
                    to.bytes += effect.body.len().max(value.len()) + 64;
                    to.effects.push(effect);
                }
            }
        }
        if moved {
            self.at.vector = Arc::new(self.vector());
        }
        to.news |= !to.effects.is_empty();
        Ok(Outcome::TookEffect)
    }

    /// What this group has of every other cluster: never less than the seed said.
    fn vector(&self) -> Vector {
        let mut vector = self.seeded.clone();
        for (cluster, stamp) in cursor::closed_vector(&self.cursors, self.slots) {
            let known = vector.entry(cluster).or_insert(stamp);
            *known = (*known).max(stamp);
        }
        vector.into_iter().collect()
    }

    /// Skipping what we cannot read would lose it for good: the learner stops with a reason.
    fn unreadable(&self, id: LogId, error: &dyn std::fmt::Display) -> io::Error {
        let group = self.group;
        tracing::error!(%group, entry = %id, %error, "cannot read a committed entry: link stops");
        io::Error::other(format!("group {group}, entry {id}: {error}"))
    }

    fn applied_now(&self) -> Applied {
        Applied { log_id: self.at.id, membership: self.membership.clone() }
    }
}

fn portable(id: LogId, effect: &Effect) -> RemoteEffect {
    let mut body = Encoder::new();
    effect.to_wire(&mut body);
    RemoteEffect { index: id.index, slot: Some(effect.slot()), body: body.into_bytes() }
}

impl StateMachine for Tap {
    fn applied(&mut self) -> io::Result<Applied> {
        Ok(self.applied_now())
    }

    fn apply(&mut self, entries: Vec<Committed>) -> io::Result<Vec<Outcome>> {
        let mut outcomes = Vec::with_capacity(entries.len());
        let mut news: Vec<Arc<Learned>> = Vec::new();
        for entry in entries {
            let (learned, outcome) = self.learn(entry)?;
            outcomes.push(outcome);
            match news.last().and_then(|last| last.merged(&learned)) {
                Some(merged) => *news.last_mut().expect("just seen") = Arc::new(merged),
                None => news.push(Arc::new(learned)),
            }
        }
        if !self.jumped && !news.is_empty() {
            self.outlets.tell(&News::Committed(news));
        }
        Ok(outcomes)
    }

    fn durable(&mut self) -> io::Result<Applied> {
        Ok(self.applied_now()) // nothing survives, so the log may forget what was handed on
    }

    fn snapshot(&mut self) -> io::Result<SnapshotCut> {
        Ok(SnapshotCut { applied: self.applied_now(), source: Box::new(Nothing) })
    }

    fn receiver(&self) -> Arc<dyn SnapshotReceiver> {
        Arc::new(Nothing)
    }

    fn install(&mut self, applied: Applied, sink: Box<dyn SnapshotSink>) -> io::Result<()> {
        sink.finish(&applied)?;
        let (group, from, to) = (self.group, self.at.id, applied.log_id);
        tracing::error!(%group, %from, %to, "the log no longer reaches back: needs-merge");
        self.jumped = true;
        self.at = Position { id: applied.log_id, fence: Fence::default(), ..self.at.clone() };
        self.membership = applied.membership;
        self.outlets.tell(&News::Jumped(applied.log_id));
        Ok(())
    }
}

/// Snapshots of nothing, and a place where they end.
struct Nothing;

impl SnapshotSource for Nothing {
    fn next_chunk(&mut self) -> io::Result<Option<Bytes>> {
        Ok(None)
    }
}

impl SnapshotReceiver for Nothing {
    fn wants_data(&self) -> bool {
        false
    }

    fn open(&self, _applied: &Applied) -> io::Result<Box<dyn SnapshotSink>> {
        Ok(Box::new(Nothing))
    }
}

impl SnapshotSink for Nothing {
    fn write_chunk(&mut self, _chunk: Bytes) -> io::Result<()> {
        Ok(())
    }

    fn finish(self: Box<Self>, _applied: &Applied) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
