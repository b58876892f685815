//! One Raft group of the simulation: the real leader and the real rules of applying, over rows in
//! memory. Raft itself is a list of proposals that get committed in order, refused, or lost with
//! their leader.

use super::checker::Heard;
use super::dice::Dice;
use flotilla_node::engine::meta::GroupMeta;
use flotilla_node::engine::rocks::TabletId;
use flotilla_node::engine::view::{Batch, RowWrite};
use flotilla_node::group::GroupContext;
use flotilla_node::group::entry::RowOp;
use flotilla_node::group::leader::{Leader, LeaderClock, Work};
use flotilla_node::group::run::{Proposal, Run, Verdict};
use flotilla_node::model::Parts;
use flotilla_node::raft::{Body, Committed, Outcome};
use flotilla_topology::ids::{LogId, Origin, ReplicaId};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

/// Rows of a replica.
pub type MemoryRows = BTreeMap<bytes::Bytes, bytes::Bytes>;

/// A replica's applied state.
#[derive(Clone)]
pub struct Replica {
    /// Its rows.
    pub rows: MemoryRows,
    /// Its position.
    pub meta: GroupMeta,
}

impl Replica {
    fn new() -> Replica {
        let meta = GroupMeta::new(TabletId(0), ReplicaId(1));
        Replica { rows: MemoryRows::new(), meta }
    }

    fn apply(&mut self, context: &GroupContext, entry: Committed) -> Outcome {
        let taken = self.meta.take(context.origin, entry);
        let (outcome, ops) = taken.expect("entries of the simulation are readable");
        let mut batch = Batch::default();
        for op in ops {
            match op {
                RowOp::Put { key, value, parts } => {
                    batch.rows.push(RowWrite { key, value: Some(value), parts: Parts(parts) });
                }
                RowOp::Delete { key } => {
                    batch.rows.push(RowWrite { key, value: None, parts: Parts::NONE });
                }
                RowOp::DeleteRange { from, to } => batch.range_deletes.push(from..to),
            }
        }
        batch.apply_to(&mut self.rows);
        outcome
    }
}

/// A group.
pub struct SimGroup {
    /// What it is.
    pub context: Arc<GroupContext>,
    /// The replica that leads.
    pub state: Replica,
    /// A replica that lags.
    pub lagging: Replica,
    /// Everything that was committed.
    pub log: Vec<Committed>,
    /// The present leader.
    pub leader: Leader,
    /// What its leaders have evaluated since the checker has looked.
    pub heard: Vec<Heard>,
    /// How far its clock is off, in milliseconds.
    pub offset_ms: i64,
    term: u64,
    flying: VecDeque<Proposal>,
}

impl SimGroup {
    /// A group with a first leader.
    pub fn new(context: GroupContext) -> SimGroup {
        let context = Arc::new(context);
        let mut state = Replica::new();
        let blank = Committed { log_id: LogId { term: 1, index: 1 }, body: Body::Blank };
        state.apply(&context, blank.clone());
        let run = Run::start(1, state.meta.fence, state.meta.clock, context.origin);
        SimGroup {
            leader: Leader::new(context.clone(), run),
            context,
            state,
            lagging: Replica::new(),
            log: vec![blank],
            heard: Vec::new(),
            offset_ms: 0,
            term: 1,
            flying: VecDeque::new(),
        }
    }

    /// What the leader's node says of time.
    pub fn clock(&self, wall_ms: u64, now: Instant) -> LeaderClock {
        let wall_ms = wall_ms.saturating_add_signed(self.offset_ms).max(1);
        LeaderClock { wall_ms, applied: self.state.meta.clock, now }
    }

    /// Evaluates work and closes the entry.
    pub fn submit(&mut self, clock: LeaderClock, work: Work) {
        if self.leader.run.is_stopped() || !self.leader.run.can_take() {
            return work.refuse(None, self.term);
        }
        let now = self.leader.run.clock_at(clock.wall_ms).ms();
        let heard = Heard::of(&work, now, self.log.len());
        let evaluated = self.leader.evaluate(&self.state.rows, clock, work);
        evaluated.expect("rows in memory can be read");
        self.leader.close();
        let under_way = self.flying.len();
        self.fly();
        let newest = self.flying.back().map(|proposal| proposal.bytes.clone());
        let heard = heard.map(|heard| heard.goes_into(newest, self.flying.len() > under_way));
        self.heard.extend(heard);
    }

    /// Lets the leader do what is due by itself.
    pub fn housekeep(&mut self, clock: LeaderClock) {
        if self.leader.run.is_stopped() {
            return;
        }
        self.leader.housekeep(&self.state.rows, clock).expect("rows in memory can be read");
        self.fly();
    }

    fn fly(&mut self) {
        self.flying.extend(self.leader.take_proposals());
    }

    /// What wrote nothing is true once leadership is confirmed. Later work may come before that.
    fn confirm(&mut self) {
        if !self.leader.run.is_stopped() && self.leader.run.has_unproposed() {
            let unproposed = self.leader.run.take_unproposed();
            let at = self.state.meta.applied;
            self.leader.run.settle_unproposed(unproposed, Verdict::Applied(at));
        }
    }

    /// Commits up to `most` proposals; with `refusals`, Raft may refuse one and take the next.
    pub fn commit(&mut self, dice: &mut Dice, most: usize, refusals: bool) {
        self.confirm();
        for _ in 0..most {
            let Some(proposal) = self.flying.pop_front() else { break };
            if refusals && dice.chance(4) {
                self.leader.run.complete(proposal.seq, Verdict::NotApplied);
            } else {
                let verdict = self.append(&proposal);
                self.leader.run.complete(proposal.seq, verdict);
            }
        }
        if self.leader.run.is_stopped() && self.flying.is_empty() {
            self.begin_run();
        }
    }

    /// Commits everything that is under way.
    pub fn commit_all(&mut self, dice: &mut Dice) {
        self.commit(dice, usize::MAX, false);
        assert!(self.flying.is_empty(), "everything was committed");
    }

    fn append(&mut self, proposal: &Proposal) -> Verdict {
        let at = LogId { term: self.term, index: self.log.len() as u64 + 1 };
        let entry = Committed { log_id: at, body: Body::Normal(proposal.bytes.clone()) };
        self.log.push(entry.clone());
        match self.state.apply(&self.context, entry) {
            Outcome::TookEffect => Verdict::Applied(at),
            Outcome::Fenced => Verdict::NotApplied,
        }
    }

    fn begin_run(&mut self) {
        let (fence, clock) = (self.state.meta.fence, self.state.meta.clock);
        let run = Run::start(self.term, fence, clock, self.context.origin);
        self.leader = Leader::new(self.context.clone(), run);
    }

    /// All nodes start anew, in another life of their cluster.
    pub fn begin_life(&mut self, dice: &mut Dice, origin: Origin) {
        let GroupContext { group, slots, born_synced, max_skew_ms, .. } = *self.context;
        self.context = Arc::new(GroupContext { group, slots, born_synced, origin, max_skew_ms });
        self.elect(dice, self.offset_ms);
    }

    /// Another node leads, with another clock. Of what was under way some is committed.
    pub fn elect(&mut self, dice: &mut Dice, offset_ms: i64) {
        let kept = dice.roll(self.flying.len() + 1);
        self.commit(dice, kept, false);
        self.flying.clear();
        self.leader.run.stop();
        self.leader.run.give_up(Instant::now() + std::time::Duration::from_secs(1 << 20));
        self.term += 1;
        self.offset_ms = offset_ms;
        let at = LogId { term: self.term, index: self.log.len() as u64 + 1 };
        let blank = Committed { log_id: at, body: Body::Blank };
        self.log.push(blank.clone());
        self.state.apply(&self.context, blank);
        self.begin_run();
    }

    /// Lets the lagging replica apply some of what it lacks.
    pub fn catch_up(&mut self, dice: &mut Dice) {
        let done = self.lagging.meta.applied.index as usize;
        let until = done + dice.roll(self.log.len() - done + 1);
        for entry in self.log[done..until].iter().cloned() {
            self.lagging.apply(&self.context, entry);
        }
    }
}
