//! One replica of one group: the handle that the rest of the program holds.

use super::adapter::{Machine, Progress};
use super::config::{self, Answer, AnswerSender, C, Completions, Payload};
use super::convert;
use super::machine::StateMachine;
use super::network::Links;
use super::news::Told;
use super::parking::Parking;
use super::peer::{Network, Peer};
use super::purge::Transfers;
use super::server::{Door, Gate};
use super::status;
use super::storage::Storage;
use super::types::{
    ChangeError, Member, Membership, NotLeader, RaftRole, RaftStatus, Settings, Stopped,
};
use crate::log::Log;
use crate::transport::ReplyTo;
use bytes::Bytes;
use flotilla_topology::ids::{GroupId, LogId, ReplicaId, Role};
use openraft::ChangeMembers;
use openraft::errors::{
    ClientWriteError, Fatal, InitializeError, LinearizableReadError, RaftError,
};
use openraft::raft::linearizable_read::LinearizerOption;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};

/// A replica cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The settings contradict themselves.
    #[error("settings of group {group}: {reason}")]
    Settings {
        /// The group.
        group: GroupId,
        /// What is wrong.
        reason: String,
    },
    /// Log or state machine could not be read, or do not fit together.
    #[error("group {group} cannot start: {reason}")]
    Storage {
        /// The group.
        group: GroupId,
        /// What is wrong.
        reason: String,
    },
}

/// What it takes to start a replica, besides its log and its state.
pub struct Start {
    /// The group.
    pub group: GroupId,
    /// This replica: one tenure of this process in the group.
    pub me: ReplicaId,
    /// Timing and limits.
    pub settings: Settings,
    /// Finds the other members.
    pub network: Arc<dyn Network>,
    /// Where everything of Raft runs. A runtime of its own, with several threads, so that the load
    /// of commands never delays a heartbeat.
    pub runtime: Handle,
}

pub(super) type Raft = openraft::Raft<C, Machine>;

/// A replica of a group. Clones are handles of the same one.
#[derive(Clone)]
pub struct RaftGroup {
    inner: Arc<Inner>,
}

struct Inner {
    group: GroupId,
    me: ReplicaId,
    settings: Settings,
    raft: Raft,
    door: Door,
    progress: Arc<Progress>,
    answers: AnswerSender,
    reader: Arc<status::Reader>,
    status: watch::Receiver<RaftStatus>,
    /// The term in which this replica has handed its leadership over; 0 for none.
    handed_over: AtomicU64,
    told: Told,
    transfers: Transfers,
    parking: Arc<Parking>,
    network: Arc<dyn Network>,
    runtime: Handle,
}

impl RaftGroup {
    /// Starts a replica over its log and state, as they were left. It joins what its log says it is
    /// a member of; a new one waits for [`RaftGroup::initialize`] or for a leader.
    pub async fn start<L: Log>(
        start: Start,
        log: L,
        machine: Box<dyn StateMachine>,
    ) -> Result<(RaftGroup, Completions), StartError> {
        let runtime = start.runtime.clone();
        let group = start.group;
        // On the Raft runtime, because the library spawns its tasks on the one that it is called on.
        let started = runtime.spawn(start_inside(start, log, machine)).await;
        started.map_err(|error| StartError::Storage { group, reason: error.to_string() })?
    }

    /// The group.
    pub fn group(&self) -> GroupId {
        self.inner.group
    }

    /// This replica.
    pub fn me(&self) -> ReplicaId {
        self.inner.me
    }

    /// The settings it runs with.
    pub fn settings(&self) -> &Settings {
        &self.inner.settings
    }

    /// Gives a newly born group its first members. Every one of them may do so, with the same
    /// members; done again, or on a replica that has a log already, it does nothing.
    pub async fn initialize(&self, membership: &Membership) -> Result<(), ChangeError> {
        let members: BTreeMap<u64, Member> =
            membership.members.iter().map(|(id, member)| (id.0, member.clone())).collect();
        self.refuse_syncers(&membership.members)?;
        match self.inner.raft.initialize(members).await {
            Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
            Err(RaftError::APIError(error)) => Err(ChangeError::Refused(error.to_string())),
            Err(RaftError::Fatal(fatal)) => Err(stopped(&fatal).into()),
        }
    }

    /// Proposes an entry that was evaluated in `term`. Returns when it is queued; what becomes of
    /// it comes out of [`Completions`] under `tag`. To be called from one task, which must not
    /// drop the future half way: the order of calls is the order in the log.
    pub async fn propose(&self, bytes: Bytes, term: u64, tag: u64) -> Result<(), Stopped> {
        if self.inner.parking.note_use() {
            self.rise().await;
        }
        self.inner
            .raft
            .write(Payload(bytes))
            .responder(Answer::new(tag, self.inner.answers.clone()))
            .with_leader(term)
            .await
            .map_err(|fatal| stopped(&fatal))
    }

    /// What this replica is and knows. Who follows it is told when its role, the term, the leader, the
    /// members, or whether it is ready change; the rest is as of then.
    pub fn watch(&self) -> watch::Receiver<RaftStatus> {
        self.inner.status.clone()
    }

    /// What this replica is and knows now.
    pub fn status(&self) -> RaftStatus {
        let told = self.inner.status.borrow();
        match told.role {
            RaftRole::Stopped => told.clone(),
            _ => self.inner.reader.status(),
        }
    }

    /// The log has been purged up to here.
    pub fn purged(&self) -> LogId {
        self.inner.reader.purged()
    }

    /// The last applied entry, followed as it changes.
    pub fn watch_applied(&self) -> watch::Receiver<LogId> {
        self.inner.progress.applied.subscribe()
    }

    /// The last applied entry.
    pub fn applied(&self) -> LogId {
        *self.inner.progress.applied.borrow()
    }

    /// If this replica leads and no other can as yet, since a majority has promised so less than a lease
    /// ago: the index that must be applied here before a read is answered. Everything that anybody may
    /// have read or been told is at or below it, or applied here: this leader's answers leave behind
    /// that, and other replicas know no more of what is committed than it has told them.
    ///
    /// It is the library's own rule, judged by the newest status and not by its core task: that would
    /// cost two changes of task, more than all else of a small read. A status that is late tells of an
    /// older promise. A parked leader has no lease; who asks it by [`RaftGroup::read_index`] wakes it.
    pub fn leased_index(&self) -> Option<u64> {
        if self.inner.parking.note_use() && self.inner.parking.is_parked() {
            return None;
        }
        let (term, acknowledged) = self.inner.reader.last_quorum_ack()?;
        let handed_over = self.has_handed_over(term);
        let holds = !handed_over && Instant::now() < acknowledged + self.inner.settings.lease();
        holds.then(|| self.inner.told.index())
    }

    /// Leader only: another replica waits until it knows that `index` is committed. Without this it hears so
    /// with the next entries, or some milliseconds later.
    pub fn hasten(&self, index: u64) {
        self.inner.told.want(index);
    }

    /// Leader only: how far a replica must have applied to answer a read that begins now. Answered
    /// from the lease while it holds, else after asking a majority. One call serves any number of
    /// reads that began before it.
    pub async fn read_index(&self) -> Result<LogId, NotLeader> {
        if self.inner.parking.note_use() {
            self.wake();
        }
        self.confirmed_index().await
    }

    async fn confirmed_index(&self) -> Result<LogId, NotLeader> {
        let option =
            LinearizerOption::new(None, true).with_wait_timeout(self.inner.settings.lease());
        match self.inner.raft.get_read_linearizer(option).await {
            Ok(linearizer) => {
                self.inner.parking.woken();
                Ok(convert::log_id(Some(linearizer.read_log_id().log_id())))
            }
            Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(to))) => {
                Err(NotLeader { leader: self.other(to.leader_id, to.leader_node) })
            }
            Err(_) => Err(NotLeader { leader: None }),
        }
    }

    /// A hint that names this very replica would send the caller in a circle.
    fn other(&self, id: Option<u64>, member: Option<Member>) -> Option<(ReplicaId, Member)> {
        let id = ReplicaId(id?);
        (id != self.inner.me).then_some((id, member?))
    }

    /// Waits until `log_id` is applied here; false when it takes longer than `within`.
    pub async fn wait_applied(&self, log_id: LogId, within: Duration) -> bool {
        let mut applied = self.watch_applied();
        let reached = applied.wait_for(|at| at.index >= log_id.index);
        matches!(tokio::time::timeout(within, reached).await, Ok(Ok(_)))
    }

    /// Leader only: makes `wanted` the learners: adds who is missing, removes who is too much.
    /// Voters stay what they are; one that is named in `wanted` stays a voter.
    pub async fn set_learners(
        &self,
        wanted: &BTreeMap<ReplicaId, Member>,
    ) -> Result<(), ChangeError> {
        let current = self.inner.status.borrow().membership.clone();
        let gone: BTreeSet<u64> = current
            .learners()
            .filter(|(id, _)| !wanted.contains_key(id))
            .map(|(id, _)| id.0)
            .collect();
        let missing: BTreeMap<u64, Member> = wanted
            .iter()
            .filter(|(id, _)| !current.members.contains_key(id))
            .map(|(id, member)| (id.0, member.clone()))
            .collect();
        let mut changes = Vec::new();
        if !gone.is_empty() {
            changes.push(ChangeMembers::RemoveNodes(gone));
        }
        if !missing.is_empty() {
            changes.push(ChangeMembers::AddNodes(missing));
        }
        if changes.is_empty() {
            return Ok(());
        }
        self.change(ChangeMembers::Batch(changes)).await
    }

    /// Leader only: makes `wanted` the voters, through a joint membership. Each new one must be a
    /// learner already (and had better be up to date). Who is voter no more is removed.
    pub async fn set_voters(&self, wanted: &BTreeSet<ReplicaId>) -> Result<(), ChangeError> {
        let current = self.inner.status.borrow().membership.clone();
        let members =
            wanted.iter().filter_map(|id| Some((*id, current.members.get(id)?.clone()))).collect();
        self.refuse_syncers(&members)?;
        self.change(ChangeMembers::ReplaceAllVoters(wanted.iter().map(|id| id.0).collect())).await
    }

    fn refuse_syncers(&self, voters: &BTreeMap<ReplicaId, Member>) -> Result<(), ChangeError> {
        match voters.iter().find(|(_, member)| member.role != Role::Node) {
            Some((id, member)) => Err(ChangeError::Refused(format!(
                "replica {id} on {} keeps no data and must never vote",
                member.name
            ))),
            None => Ok(()),
        }
    }

    async fn change(&self, changes: ChangeMembers<u64, Member>) -> Result<(), ChangeError> {
        if self.inner.parking.note_use() {
            self.rise().await;
        }
        let (raft, runtime) = (self.inner.raft.clone(), &self.inner.runtime);
        let changed = runtime.spawn(async move { raft.change_membership(changes, false).await });
        match changed.await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(to)))) => {
                Err(NotLeader { leader: self.other(to.leader_id, to.leader_node) }.into())
            }
            Ok(Err(RaftError::APIError(error))) => Err(ChangeError::Refused(error.to_string())),
            Ok(Err(RaftError::Fatal(fatal))) => Err(stopped(&fatal).into()),
            Err(error) => Err(Stopped(error.to_string()).into()),
        }
    }

    /// Leader only: hands the leadership to `to`, a voter that has the whole log. The evaluator
    /// must have stopped proposing before, else the target is always a little behind. Returns when
    /// the target was told; watch the status for what comes of it.
    pub async fn transfer_leader(&self, to: ReplicaId) -> Result<(), ChangeError> {
        if self.inner.parking.note_use() {
            self.rise().await;
        }
        // Read after the group has risen: it may have got another leader meanwhile, or be in a later term.
        let status = self.status();
        if status.role != RaftRole::Leader {
            return Err(NotLeader { leader: status.leader }.into());
        }
        // The library checks nothing: told to transfer to a dead node, it refuses writes for good.
        if !status.membership.is_voter(to) {
            return Err(ChangeError::Refused(format!("replica {to} does not vote")));
        }
        let matched = status.matched(to);
        if matched < status.last_index {
            return Err(ChangeError::Refused(format!(
                "replica {to} has {matched} of {} entries: stop proposing, and try again",
                status.last_index
            )));
        }
        // From here on the target may be elected although promises to us still hold.
        self.inner.handed_over.store(status.term, Ordering::Release);
        self.inner.raft.trigger().transfer_leader(to.0).await.map_err(|f| stopped(&f).into())
    }

    /// Takes one message of another member: see [`crate::transport::kinds`]. Never blocks; messages of one
    /// sender must be handed in in the order in which they came.
    pub fn handle(&self, kind: u16, payload: &Bytes, reply: ReplyTo) {
        self.inner.door.handle(kind, payload, reply);
    }

    /// Asks for an election now, for tests and for operators.
    pub async fn campaign(&self) -> Result<(), Stopped> {
        self.inner.parking.hear();
        self.inner.raft.trigger().elect(false).await.map_err(|fatal| stopped(&fatal))
    }

    /// Whether this replica is parked: its group has nothing to do, so nobody sends or waits for heartbeats.
    pub fn is_parked(&self) -> bool {
        self.inner.parking.is_parked()
    }

    /// Ends parking before something is proposed: returns when a majority has answered, since a leader without
    /// a lease takes no proposals, or when none does for as long as a lease.
    async fn rise(&self) {
        self.wake();
        // Who is refused hears so from the proposal itself.
        let _ = self.confirmed_index().await;
    }

    fn wake(&self) {
        if self.inner.parking.wake_leader() {
            self.show_life();
        }
    }

    /// Sends a heartbeat now: who is parked hears that its leader is not, any more.
    pub(super) fn show_life(&self) {
        let raft = self.inner.raft.clone();
        // An error means that the group has stopped.
        self.inner.runtime.spawn(async move { raft.trigger().heartbeat().await });
    }

    pub(super) fn library(&self) -> &Raft {
        &self.inner.raft
    }

    pub(super) fn transfers(&self) -> &Transfers {
        &self.inner.transfers
    }

    pub(super) fn parking(&self) -> &Parking {
        &self.inner.parking
    }

    pub(super) fn reader(&self) -> &status::Reader {
        &self.inner.reader
    }

    /// Whether it led in `term` and has handed that over: it takes no more proposals in that term, whatever
    /// comes of it.
    pub fn has_handed_over(&self, term: u64) -> bool {
        self.inner.handed_over.load(Ordering::Acquire) == term
    }

    pub(super) fn peer(&self, replica: ReplicaId, member: &Member) -> Option<Arc<dyn Peer>> {
        self.inner.network.peer(replica, member)
    }

    /// Stops this replica. What is in flight ends as unknown.
    pub async fn shutdown(&self) {
        if let Err(error) = self.inner.raft.shutdown().await {
            tracing::warn!(group = %self.inner.group, %error, "raft group did not stop cleanly");
        }
    }
}

async fn start_inside<L: Log>(
    start: Start,
    log: L,
    machine: Box<dyn StateMachine>,
) -> Result<(RaftGroup, Completions), StartError> {
    let Start { group, me, settings, network, runtime } = start;
    let storage_error = |reason: String| StartError::Storage { group, reason };
    // A replica that voted in a former life may have answered a leader just before it ended, and that
    // leader answers reads alone for as long as the lease. So it takes part in no election before.
    let silence = log.vote().map(|_| settings.lease());
    let library = config::library_config(format!("group {group}"), &settings, silence.is_none())
        .map_err(|reason| StartError::Settings { group, reason })?;
    let applied_log = log.clone();
    let (machine, progress, receiver) =
        Machine::new(machine, Box::new(move |upto| applied_log.applied(upto)))
            .map_err(|error| storage_error(error.to_string()))?;
    let (told, transfers) = (Told::default(), Transfers::default());
    let links = Links {
        group,
        me,
        settings: settings.clone(),
        network: network.clone(),
        told: told.clone(),
        transfers: transfers.clone(),
    };
    let raft = Raft::new(me.0, library, links, Storage::new(log), machine)
        .await
        .map_err(|error| storage_error(error.to_string()))?;
    let (answers, queue) = mpsc::unbounded_channel();
    let (reader, status) = status::follow(&raft, progress.clone());
    let ticks = raft.clone();
    let parking = Arc::new(Parking::new(move |runs| ticks.runtime_config().tick(runs)));
    let gate = Gate::new(settings.clone(), parking.clone(), silence);
    let door = Door::new(group, me, raft.clone(), receiver, runtime.clone(), gate);
    if let Some(silence) = silence {
        let raft = raft.clone();
        runtime.spawn(async move {
            tokio::time::sleep(silence).await;
            raft.runtime_config().elect(true);
        });
    }
    let handed_over = AtomicU64::new(0);
    let inner = Inner {
        group,
        me,
        settings,
        raft,
        door,
        progress,
        answers,
        reader,
        status,
        handed_over,
        told,
        transfers,
        parking,
        network,
        runtime,
    };
    Ok((RaftGroup { inner: Arc::new(inner) }, Completions { queue }))
}

pub(super) fn stopped(fatal: &Fatal<C>) -> Stopped {
    Stopped(fatal.to_string())
}
