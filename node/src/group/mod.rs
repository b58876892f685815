//! One Raft group on one node: what its log holds, how its leader evaluates, how its replicas apply
//! and read.
//!
//! [`Group`] is the handle that the router, the RPC service and maintenance use. Everything that
//! writes goes through its evaluator's queue; everything that reads waits for a [`Barrier`] first.

pub mod cursor;

pub mod entry;

pub mod exec;

pub mod digest;

mod forgotten;

mod number;

pub mod remote;

pub mod run;

mod levelled;

pub mod life;

pub mod live;

pub mod state;

pub mod rows;

pub mod compare;

pub mod source;

pub mod census;

pub mod leader;

mod merge;

pub mod losers;

pub mod skew;

mod statemerge;

pub(crate) mod synced;

pub mod upkeep;

pub mod transaction;

pub(crate) mod transact;

pub mod wait;

mod evaluator;

pub mod handover;

mod apply;

mod read;

pub(crate) mod fuzz;

pub use apply::{AppliedState, Machine};
pub use leader::Work;
pub use read::ReadError;

use crate::engine::keys;
use crate::engine::rocks::Engine;
use crate::engine::rows::TabletRows;
use crate::engine::view::{Overlay, Rows, View};
use crate::eval::ScanMarks;
use crate::group::evaluator::Evaluator;
use crate::group::exec::{Barrier, BarrierAnswer, Outcome};
use crate::group::handover::{ANSWER_MAX, HandOver};
use crate::group::live::LiveSet;
use crate::group::remote::{Answer, LeaderIs, LinkFloor, RemoteAnswer, RemoteBatch};
use crate::group::run::Verdict;
use crate::group::skew::{Clocks, SkewLimit};
use crate::group::state::{StateRequest, StateVerdict};
use crate::group::transaction::Ask;
use crate::group::wait::{Told, Wait};
use crate::model::Synced;
use crate::raft::{ChangeError, Completions, Membership, RaftGroup, RaftRole, RaftStatus, Stopped};
use flotilla_topology::api::PeerCluster;
use flotilla_topology::ids::{ClusterId, GroupId, Origin, ReplicaId};
use flotilla_topology::slot::SlotRange;
use flotilla_topology::stamp::{Hlc, Stamp};
use parking_lot::Mutex;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot, watch};

/// Work that waits for a group's evaluator, at most: one batch of each of many connections.
pub const WORK_QUEUE_MAX: usize = 4096;
/// How long a replica waits for its state to reach a barrier before it gives the read back.
const APPLY_DEADLINE: Duration = Duration::from_secs(2);

/// What everything inside a group needs to know of it.
pub struct GroupContext {
    /// Its number.
    pub group: GroupId,
    /// The slots that it carries.
    pub slots: SlotRange,
    /// Whether it is kept in step with other clusters since its birth. Any other group's log says
    /// whether it is now: see [`GroupContext::synced`].
    pub born_synced: bool,
    /// This cluster in its present life.
    pub origin: Origin,
    /// Stamps of other clusters that run further ahead of this clock are parked.
    pub max_skew_ms: u64,
}

impl GroupContext {
    /// A stamp of this cluster.
    pub fn stamp(&self, hlc: Hlc) -> Stamp {
        Stamp { hlc, cluster: self.origin.cluster }
    }

    /// This cluster's first stamp of a millisecond.
    pub fn stamp_at_ms(&self, ms: u64) -> Stamp {
        self.stamp(Hlc::from_ms(ms))
    }
}

/// A group's queue takes no more work at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueFull;

/// A group on this node.
pub struct Group {
    /// What it is.
    pub context: Arc<GroupContext>,
    /// Which replica this node carries.
    pub replica: ReplicaId,
    /// Its Raft.
    pub raft: RaftGroup,
    engine: Arc<Engine>,
    status: watch::Receiver<RaftStatus>,
    applied: watch::Receiver<AppliedState>,
    skew: Arc<Mutex<SkewLimit>>,
    work: mpsc::Sender<Work>,
    handovers: mpsc::Sender<HandOver>,
    scans: ScanMarks,
}

impl Group {
    /// Puts the parts together and starts the evaluator on the current runtime.
    pub fn start(
        context: Arc<GroupContext>,
        engine: Arc<Engine>,
        replica: ReplicaId,
        raft: RaftGroup,
        applied: watch::Receiver<AppliedState>,
        completions: Completions,
        clocks: Arc<dyn Clocks>,
    ) -> Arc<Group> {
        let (work, queue) = mpsc::channel(WORK_QUEUE_MAX);
        let (handovers, asked) = mpsc::channel(1);
        let skew = Arc::new(Mutex::new(SkewLimit::new(context.max_skew_ms)));
        let evaluator = Evaluator::new(
            context.clone(),
            engine.clone(),
            raft.clone(),
            applied.clone(),
            (queue, asked),
            completions,
            (clocks, skew.clone()),
        );
        tokio::spawn(evaluator.drive());
        let status = raft.watch();
        let scans = ScanMarks::default();
        Arc::new(Group {
            context,
            replica,
            raft,
            engine,
            status,
            applied,
            skew,
            work,
            handovers,
            scans,
        })
    }

    /// Leader only: hands the leadership to `to`, a voter that says that it has `applied` up to that index.
    /// Work waits meanwhile, and what is in flight ends first; one that lacks much is refused at once.
    /// Returns when the target was told, or why it was not.
    pub async fn hand_over(&self, to: ReplicaId, applied: u64) -> Result<(), ChangeError> {
        HandOver::check(&self.raft.status(), to, applied)?;
        let ended = || Stopped("the group's evaluator has ended".to_owned());
        let (asked, told) = HandOver::new(to);
        let answered = async {
            self.handovers.send(asked).await.map_err(|_| ended())?;
            told.await.unwrap_or_else(|_| Err(ended().into()))
        };
        let busy = || ChangeError::Refused("the group's evaluator is busy: try again".to_owned());
        tokio::time::timeout(ANSWER_MAX, answered).await.unwrap_or_else(|_| Err(busy()))
    }

    /// Where the applied state is.
    pub fn applied(&self) -> AppliedState {
        *self.applied.borrow()
    }

    /// Where its rows are.
    pub(crate) fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    /// Its applied rows, as they are at the moment of each call.
    pub fn rows(&self) -> TabletRows {
        TabletRows::new(&self.engine, self.applied().tablet)
    }

    /// What each peer has acknowledged of this group's log.
    pub fn link_floors(&self) -> io::Result<Vec<LinkFloor>> {
        let rows = self.rows();
        rows.scan(keys::of_kind(keys::LINK_FLOOR), false)
            .map(|row| LinkFloor::decode(&row?.1).map_err(io::Error::other))
            .collect()
    }

    /// Up to which index each of these peers has this group's log; 0 if it acknowledged nothing yet.
    pub fn acknowledged<'p>(
        &self,
        peers: impl IntoIterator<Item = &'p PeerCluster>,
    ) -> io::Result<Vec<(ClusterId, u64)>> {
        let floors = self.link_floors()?;
        let position = |peer: &PeerCluster| {
            let floor = floors.iter().find(|floor| floor.peer == peer.id);
            (peer.id, floor.map_or(0, |floor| floor.position.index))
        };
        Ok(peers.into_iter().map(position).collect())
    }

    /// Whether this replica leads and evaluates.
    pub fn leads(&self) -> bool {
        self.status.borrow().ready()
    }

    /// The term of this replica.
    pub fn term(&self) -> u64 {
        self.status.borrow().term
    }

    /// The node that leads, as this replica knows it.
    pub fn leader(&self) -> Option<String> {
        self.status.borrow().leader.as_ref().map(|(_, member)| member.name.clone())
    }

    /// Whether this replica has no log, so that the group may still have to be born.
    pub fn is_unborn(&self) -> bool {
        let status = self.raft.status();
        status.last_index == 0 && *status.membership == Membership::default()
    }

    /// Whether it was stopped, or stopped itself on an error.
    pub fn is_stopped(&self) -> bool {
        self.status.borrow().role == RaftRole::Stopped
    }

    /// Queues work without waiting, so that work is evaluated in the order of the calls. Refused
    /// when the queue is full; whoever waits for its answer then hears that there is none.
    pub fn submit(&self, work: Work) -> Result<(), QueueFull> {
        self.work.try_send(work).map_err(|_| QueueFull)
    }

    /// Evaluates commands here, if this replica leads.
    pub async fn exec(&self, commands: Vec<crate::command::Command>) -> Vec<Outcome> {
        let count = commands.len();
        let (answer, outcomes) = oneshot::channel();
        if self.work.send(Work::Exec { commands, answer }).await.is_err() {
            return vec![Outcome::NotApplied { leader: None }; count];
        }
        // A dropped answer means that the evaluator went away with the commands in it.
        outcomes.await.unwrap_or_else(|_| vec![Outcome::Unknown; count])
    }

    /// Watches keys or carries out a transaction here, if this replica leads.
    pub async fn ask(&self, ask: Ask) -> Outcome {
        let (answer, outcomes) = oneshot::channel();
        if self.work.send(Work::Ask { ask, answer }).await.is_err() {
            return Outcome::NotApplied { leader: None };
        }
        let outcome = outcomes.await.ok().and_then(|mut outcomes| outcomes.pop());
        outcome.unwrap_or(Outcome::Unknown)
    }

    /// Waits for one of some keys, if this replica leads, until it is there or the time is up.
    pub async fn wait(&self, wait: Wait) -> Told {
        let (answer, told) = oneshot::channel();
        if self.work.send(Work::Wait { wait, answer }).await.is_err() {
            return Told::NotLeader { leader: None };
        }
        told.await.unwrap_or_else(|_| Told::NotLeader { leader: self.leader() })
    }

    /// Merges a batch of another cluster, if this replica leads.
    pub async fn merge(&self, batch: RemoteBatch) -> RemoteAnswer {
        let (answer, outcome) = oneshot::channel();
        if self.work.send(Work::Remote { batch, answer }).await.is_err() {
            return self.not_leader();
        }
        outcome.await.unwrap_or_else(|_| self.not_leader())
    }

    /// Takes a step of merging a full state, if this replica leads.
    pub async fn merge_state(&self, request: StateRequest) -> Answer<StateVerdict> {
        let (answer, outcome) = oneshot::channel();
        if self.work.send(Work::State { request, answer }).await.is_err() {
            return self.not_leader();
        }
        outcome.await.unwrap_or_else(|_| self.not_leader())
    }

    /// Goes by this live set from now on, if this replica leads; whether it is committed.
    pub async fn set_live(&self, set: LiveSet) -> bool {
        let (answer, verdict) = oneshot::channel();
        let sent = self.work.send(Work::Live { set, answer }).await;
        sent.is_ok() && matches!(verdict.await, Ok(Verdict::Applied(_)))
    }

    /// Whether applied state says that the group is synced.
    pub fn synced(&self) -> Synced {
        self.context.synced_since(self.applied().since)
    }

    /// Lets the group be synced from now on, with what is in it, if this replica leads; whether that
    /// is committed. It may have to be asked again, see [`Group::synced`].
    pub async fn switch_on(&self) -> bool {
        let (answer, verdict) = oneshot::channel();
        let sent = self.work.send(Work::SwitchOn { answer }).await;
        sent.is_ok() && matches!(verdict.await, Ok(Verdict::Applied(_)))
    }

    /// The live set of applied state.
    pub fn live_set(&self) -> io::Result<Option<LiveSet>> {
        let row = self.rows().get(&keys::single(keys::LIVE))?;
        row.map(|value| LiveSet::decode(&value)).transpose().map_err(io::Error::other)
    }

    /// Whether applied state knows which life of the cluster the group is in.
    pub fn is_life_current(&self) -> io::Result<bool> {
        let (rows, mut overlay) = (self.rows(), Overlay::new());
        life::is_current(&View::new(&rows, &mut overlay), &self.context)
    }

    /// Whether the group, in a new life, must still have the full state of a cluster.
    pub fn covers(&self, cluster: ClusterId) -> io::Result<bool> {
        let (rows, mut overlay) = (self.rows(), Overlay::new());
        life::covers(&View::new(&rows, &mut overlay), cluster)
    }

    /// Keeps what a peer has acknowledged, if this replica leads.
    pub async fn write_floor(&self, floor: LinkFloor) -> Answer<()> {
        let (answer, verdict) = oneshot::channel();
        if self.work.send(Work::LinkFloor { floor, answer }).await.is_err() {
            return self.not_leader();
        }
        match verdict.await {
            Ok(Verdict::Applied(_)) => Answer::Done(()),
            _ => self.not_leader(),
        }
    }

    /// What a question that only the leader may answer gets here.
    pub fn not_leader<T>(&self) -> Answer<T> {
        let status = self.raft.status();
        let node = status.leader.map(|(_, member)| member.name);
        Answer::NotLeader(LeaderIs { node, term: status.term })
    }

    /// The barrier that a linearizable read anywhere must wait for, and that is applied here. Leader
    /// only; the error names the leader, if one is known.
    pub async fn barrier(&self) -> BarrierAnswer {
        let index = match self.raft.leased_index() {
            Some(index) => index,
            None => match self.raft.read_index().await {
                Ok(log_id) => log_id.index,
                Err(not) => return Err(not.leader.map(|(_, member)| member.name)),
            },
        };
        self.wait_applied(index).await.map_err(|_| None)?;
        Ok(self.barrier_behind(self.applied()))
    }

    /// The barrier for a read of another replica, if it can be told at once: by the lease. It need not
    /// be applied here yet.
    pub fn barrier_now(&self) -> Option<BarrierAnswer> {
        let Some(index) = self.raft.leased_index() else {
            // A majority is asked, unless another replica leads.
            let leader = self.status.borrow().leader.clone();
            let (_, other) = leader.filter(|(replica, _)| *replica != self.replica)?;
            return Some(Err(Some(other.name)));
        };
        let mut barrier = self.barrier_behind(self.applied());
        if barrier.log_id.index < index {
            // Applied is its term's first entry at least, since there is a lease.
            barrier.log_id.index = index;
        }
        self.raft.hasten(barrier.log_id.index);
        Some(Ok(barrier))
    }

    /// The barrier for a read of another replica: behind a tick at `at_ms`, unless that is 0.
    pub async fn barrier_elsewhere(&self, at_ms: u64) -> BarrierAnswer {
        let barrier = if at_ms == 0 { self.barrier().await } else { self.tick(at_ms).await }?;
        self.raft.hasten(barrier.log_id.index);
        Ok(barrier)
    }

    fn barrier_behind(&self, applied: AppliedState) -> Barrier {
        let wall_ms = self.skew.lock().limited_ms(crate::clock::wall_ms(), Instant::now());
        Barrier { log_id: applied.log_id, clock_ms: applied.clock.ms().max(wall_ms) }
    }

    /// Commits a stamp at or above `at_ms`, and answers as a barrier behind it.
    pub async fn tick(&self, at_ms: u64) -> Result<Barrier, Option<String>> {
        let (answer, verdict) = oneshot::channel();
        if self.work.send(Work::Tick { at_ms, answer }).await.is_err() {
            return Err(None);
        }
        match verdict.await {
            Ok(Verdict::Applied(log_id)) => {
                let clock_ms = self.applied().clock.ms().max(at_ms);
                Ok(Barrier { log_id, clock_ms })
            }
            _ => Err(self.leader()),
        }
    }

    /// Waits until this replica has applied the entry at `index`.
    pub async fn wait_applied(&self, index: u64) -> Result<(), ReadError> {
        if self.applied().log_id.index >= index {
            return Ok(());
        }
        let mut applied = self.applied.clone();
        let reached = applied.wait_for(|state| state.log_id.index >= index);
        match tokio::time::timeout(APPLY_DEADLINE, reached).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(ReadError::Behind),
        }
    }
}
