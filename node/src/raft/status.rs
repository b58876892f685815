//! Turns the library's metrics into [`RaftStatus`].

use super::adapter::{Machine, Progress};
use super::config::{C, StoredMembership};
use super::convert;
use super::types::{Membership, RaftRole, RaftStatus};
use flotilla_topology::ids::ReplicaId;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::{Instant as _, RaftMetrics, ServerState, TokioInstant};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;
use tokio::sync::watch;

/// Follows the metrics until the group stops. Runs on the caller's runtime.
pub(super) fn follow(
    raft: &openraft::Raft<C, Machine>,
    progress: Arc<Progress>,
) -> watch::Receiver<RaftStatus> {
    let mut metrics = raft.metrics();
    // The reference is let go before anything waits: held over an await it stops the library.
    let epoch = Epoch { theirs: TokioInstant::now(), ours: Instant::now() };
    let mut members = Members::default();
    let first = status(&metrics.borrow_and_update(), &progress, epoch, &mut members);
    let (tell, told) = watch::channel(first);
    tokio::spawn(async move {
        loop {
            let open = metrics.changed().await.is_ok();
            let mut now = status(&metrics.borrow_and_update(), &progress, epoch, &mut members);
            if !open {
                now.role = RaftRole::Stopped;
            }
            let stopped = now.role == RaftRole::Stopped;
            tell.send_if_modified(|before| {
                let changed = *before != now;
                *before = now;
                changed
            });
            if stopped || tell.is_closed() {
                return;
            }
        }
    });
    told
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

fn status(
    metrics: &RaftMetrics<C>,
    progress: &Progress,
    epoch: Epoch,
    members: &mut Members,
) -> RaftStatus {
    let membership = members.of(&metrics.membership_config);
    let role = match (&metrics.running_state, metrics.state) {
        (Err(_), _) | (_, ServerState::Shutdown) => RaftRole::Stopped,
        (_, ServerState::Leader) => RaftRole::Leader,
        (_, ServerState::Follower) => RaftRole::Follower,
        (_, ServerState::Candidate) => RaftRole::Candidate,
        (_, ServerState::Learner) => RaftRole::Learner,
    };
    let leader = metrics.current_leader.map(ReplicaId);
    let leader = leader.and_then(|id| Some((id, membership.members.get(&id)?.clone())));
    let blank_term = progress.blank_term.load(Ordering::Acquire);
    let replication = metrics.replication.iter().flatten();
    RaftStatus {
        role,
        term: metrics.current_term,
        leader,
        last_index: metrics.last_log_index.map_or(0, |index| index + 1),
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
