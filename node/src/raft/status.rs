//! Turns the library's metrics into [`RaftStatus`].

use super::adapter::{Machine, Progress};
use super::config::{C, StoredMembership};
use super::convert;
use super::parking::Rest;
use super::types::{Membership, RaftRole, RaftStatus};
use flotilla_topology::ids::{LogId, ReplicaId};
use openraft::async_runtime::watch::WatchReceiver;
use openraft::type_config::alias::WatchReceiverOf;
use openraft::{Instant as _, RaftMetrics, ServerState, TokioInstant};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;
use tokio::sync::watch;

/// What a replica is and knows, read from the library's metrics when somebody asks: they change several
/// times with each entry.
pub(super) struct Reader {
    metrics: WatchReceiverOf<C, RaftMetrics<C>>,
    progress: Arc<Progress>,
    epoch: Epoch,
    members: Mutex<Members>,
}

impl Reader {
    /// All of it, now.
    pub(super) fn status(&self) -> RaftStatus {
        let metrics = self.metrics.borrow_watched();
        status(&metrics, &self.progress, self.epoch, &mut self.members.lock())
    }

    /// Of a leader that has applied its term's first entry: the term, and when the last message was
    /// sent that a majority has answered by now: that is now if it alone votes, since each turn of the
    /// library's core, and so each change of who votes, ends with these metrics.
    pub(super) fn last_quorum_ack(&self) -> Option<(u64, Instant)> {
        let metrics = self.metrics.borrow_watched();
        let term = metrics.current_term;
        let ready = role(&metrics) == RaftRole::Leader
            && self.progress.blank_term.load(Ordering::Acquire) == term;
        if !ready {
            return None;
        }
        let voters = metrics.membership_config.get_joint_config();
        if voters.iter().all(|set| set.len() == 1 && set.contains(&metrics.id)) {
            return Some((term, Instant::now()));
        }
        Some((term, self.epoch.ours(metrics.last_quorum_acked?.into_inner())?))
    }

    /// The log has been purged up to here.
    pub(super) fn purged(&self) -> LogId {
        convert::log_id(self.metrics.borrow_watched().purged.as_ref())
    }

    /// What it is.
    pub(super) fn role(&self) -> RaftRole {
        role(&self.metrics.borrow_watched())
    }

    /// How a leader stands if its group may be parked, and who its members are: nothing is under way, all
    /// members vote, and a majority has everything. A voter that lacks something and can be reached does not
    /// agree to be parked; a learner is asked by nobody, so a group with one is never parked.
    pub(super) fn rest(&self, me: ReplicaId) -> Option<(Rest, Arc<Membership>)> {
        let metrics = self.metrics.borrow_watched();
        let term = metrics.current_term;
        let leads = role(&metrics) == RaftRole::Leader;
        if !leads || self.progress.blank_term.load(Ordering::Acquire) != term {
            return None;
        }
        let index = convert::log_id(metrics.last_applied.as_ref()).index;
        if known_log(&metrics) != (index, index) {
            return None;
        }
        let members = self.members.lock().of(&metrics.membership_config);
        let [voters] = &members.configs[..] else { return None };
        if !voters.contains(&me) || voters.len() != members.members.len() {
            return None;
        }
        let at = |voter: &ReplicaId| metrics.replication.as_ref()?.get(&voter.0);
        let has_all = |voter: &&ReplicaId| {
            let at = at(voter).map(|at| convert::log_id(at.as_ref()).index);
            **voter == me || at == Some(index)
        };
        let most = voters.iter().filter(has_all).count() * 2 > voters.len();
        most.then(|| (Rest { term, index }, members.clone()))
    }

    /// Whether this replica follows `leader` and has all that it has.
    pub(super) fn agrees(&self, leader: ReplicaId, rest: Rest) -> bool {
        let metrics = self.metrics.borrow_watched();
        role(&metrics) == RaftRole::Follower
            && metrics.current_term == rest.term
            && metrics.current_leader == Some(leader.0)
            && known_log(&metrics) == (rest.index, rest.index)
    }
}

/// Whoever follows a replica is told when this changes, and not with each entry.
struct Standing {
    role: RaftRole,
    term: u64,
    leader: Option<u64>,
    blank_term: u64,
    members: Arc<StoredMembership>,
}

impl Standing {
    fn of(metrics: &RaftMetrics<C>, progress: &Progress) -> Standing {
        Standing {
            role: role(metrics),
            term: metrics.current_term,
            leader: metrics.current_leader,
            blank_term: progress.blank_term.load(Ordering::Acquire),
            members: metrics.membership_config.clone(),
        }
    }
}

impl PartialEq for Standing {
    fn eq(&self, other: &Standing) -> bool {
        let of = |standing: &Standing| {
            (standing.role, standing.term, standing.leader, standing.blank_term)
        };
        of(self) == of(other) && Arc::ptr_eq(&self.members, &other.members)
    }
}

/// A reader, and what tells of each new [`Standing`] until the group stops. Follows the metrics on the
/// caller's runtime.
pub(super) fn follow(
    raft: &openraft::Raft<C, Machine>,
    progress: Arc<Progress>,
) -> (Arc<Reader>, watch::Receiver<RaftStatus>) {
    let mut metrics = raft.metrics();
    let epoch = Epoch { theirs: TokioInstant::now(), ours: Instant::now() };
    let reader = Reader { metrics: metrics.clone(), progress, epoch, members: Mutex::default() };
    let reader = Arc::new(reader);
    // A reference is let go before anything waits or borrows again: held it stops the library.
    let mut standing = Standing::of(&metrics.borrow_and_update(), &reader.progress);
    let (tell, told) = watch::channel(reader.status());
    let follower = reader.clone();
    tokio::spawn(async move {
        loop {
            let open = metrics.changed().await.is_ok();
            let new = Standing::of(&metrics.borrow_and_update(), &follower.progress);
            if open && new == standing {
                continue;
            }
            standing = new;
            let now = follower.status();
            let role = if open { now.role } else { RaftRole::Stopped };
            tell.send_replace(RaftStatus { role, ..now });
            if role == RaftRole::Stopped || tell.is_closed() {
                return;
            }
        }
    });
    (reader, told)
}

/// One moment on both clocks: the library hides the time in its own type.
#[derive(Clone, Copy)]
struct Epoch {
    theirs: TokioInstant,
    ours: Instant,
}

impl Epoch {
    fn ours(&self, theirs: TokioInstant) -> Option<Instant> {
        (theirs >= self.theirs).then(|| self.ours + (theirs - self.theirs))
    }
}

/// The members as the library last had them, and as ours: they change far less often than all else.
#[derive(Default)]
struct Members(Option<(Arc<StoredMembership>, Arc<Membership>)>);

impl Members {
    fn of(&mut self, theirs: &Arc<StoredMembership>) -> Arc<Membership> {
        match &self.0 {
            Some((known, ours)) if Arc::ptr_eq(known, theirs) => ours.clone(),
            _ => {
                let ours = Arc::new(convert::membership(theirs));
                self.0 = Some((theirs.clone(), ours.clone()));
                ours
            }
        }
    }
}

/// The last index of the log, and of what is known to be committed.
fn known_log(metrics: &RaftMetrics<C>) -> (u64, u64) {
    let committed = convert::log_id(metrics.local_committed.as_ref()).index;
    (last_index(metrics), committed)
}

fn last_index(metrics: &RaftMetrics<C>) -> u64 {
    metrics.last_log_index.map_or(0, |index| index + 1)
}

fn role(metrics: &RaftMetrics<C>) -> RaftRole {
    match (&metrics.running_state, metrics.state) {
        (Err(_), _) | (_, ServerState::Shutdown) => RaftRole::Stopped,
        (_, ServerState::Leader) => RaftRole::Leader,
        (_, ServerState::Follower) => RaftRole::Follower,
        (_, ServerState::Candidate) => RaftRole::Candidate,
        (_, ServerState::Learner) => RaftRole::Learner,
    }
}

fn status(
    metrics: &RaftMetrics<C>,
    progress: &Progress,
    epoch: Epoch,
    members: &mut Members,
) -> RaftStatus {
    let membership = members.of(&metrics.membership_config);
    let role = role(metrics);
    let leader = metrics.current_leader.map(ReplicaId);
    let leader = leader.and_then(|id| Some((id, membership.members.get(&id)?.clone())));
    let blank_term = progress.blank_term.load(Ordering::Acquire);
    let replication = metrics.replication.iter().flatten();
    RaftStatus {
        role,
        term: metrics.current_term,
        leader,
        last_index: last_index(metrics),
        committed: convert::log_id(metrics.local_committed.as_ref()),
        applied: convert::log_id(metrics.last_applied.as_ref()),
        own_blank_applied: role == RaftRole::Leader && blank_term == metrics.current_term,
        replication: replication
            .map(|(id, at)| (ReplicaId(*id), convert::log_id(at.as_ref())))
            .collect(),
        last_quorum_ack: metrics.last_quorum_acked.and_then(|at| epoch.ours(at.into_inner())),
        membership,
        purged: convert::log_id(metrics.purged.as_ref()),
    }
}
