//! The types that the Raft library is built over, and its settings.

use super::types::{Completion, Member, Outcome, Settings, Verdict};
use bytes::Bytes;
use flotilla_topology::ids::ReplicaId;
use openraft::errors::ClientWriteError;
use openraft::raft::ClientWriteResult;
use openraft::raft::responder::Responder;
use openraft::vote::RaftLeaderId;
use openraft::{OptionalSend, RaftTypeConfig, SnapshotPolicy};
use std::fmt;
use std::sync::Arc;
use tokio::sync::mpsc;

/// What a proposal carries. The library copies the handle, never the bytes.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Payload(pub(super) Bytes);

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl fmt::Display for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Names the types. `leader_id_std` allows one leader per term, so that a term names an evaluator.
#[derive(Debug, Clone, Copy, Default, Eq, PartialEq, Ord, PartialOrd)]
pub(super) struct C;

impl RaftTypeConfig for C {
    type D = Payload;
    type R = Outcome;
    type NodeId = u64;
    type Node = Member;
    type Term = u64;
    type LeaderId = openraft::impls::leader_id_std::LeaderId<u64, u64>;
    type Vote = openraft::impls::Vote<Self::LeaderId>;
    type Payload = openraft::EntryPayload<Payload, u64, Member>;
    type Entry = openraft::Entry<
        <Self::LeaderId as RaftLeaderId>::Committed,
        <Self as RaftTypeConfig>::Payload,
    >;
    type AsyncRuntime = openraft::TokioRuntime;
    type Responder<T>
        = Answer<T>
    where
        T: OptionalSend + 'static;
    type Batch<T>
        = openraft::impls::InlineBatch<T>
    where
        T: OptionalSend + 'static;
    type ErrorSource = openraft::impls::BoxedErrorSource;
}

pub(super) type Entry = openraft::alias::EntryOf<C>;
pub(super) type Vote = openraft::alias::VoteOf<C>;
pub(super) type RaftLogId = openraft::alias::LogIdOf<C>;
pub(super) type StoredMembership = openraft::alias::StoredMembershipOf<C>;
pub(super) type SnapshotMeta = openraft::alias::SnapshotMetaOf<C>;

/// Carries the end of one proposal into the group's completion queue: one queue per group instead
/// of a channel per proposal.
pub(super) struct Answer<T> {
    tag: u64,
    queue: Option<mpsc::UnboundedSender<(u64, Option<T>)>>,
}

impl<T> Answer<T> {
    pub(super) fn new(tag: u64, queue: mpsc::UnboundedSender<(u64, Option<T>)>) -> Answer<T> {
        Answer { tag, queue: Some(queue) }
    }
}

impl<T: OptionalSend + 'static> Responder<C, T> for Answer<T> {
    fn on_complete(mut self, result: T) {
        if let Some(queue) = self.queue.take() {
            let _ = queue.send((self.tag, Some(result)));
        }
    }
}

impl<T> Drop for Answer<T> {
    /// The library forgot it (it stopped): nobody knows what became of the entry.
    fn drop(&mut self) {
        if let Some(queue) = self.queue.take() {
            let _ = queue.send((self.tag, None));
        }
    }
}

pub(super) type AnswerSender = mpsc::UnboundedSender<(u64, Option<ClientWriteResult<C>>)>;

/// The ends of a group's proposals, in the order of the log. It holds at most as many as there are
/// proposals in flight, which the proposer bounds.
pub struct Completions {
    pub(super) queue: mpsc::UnboundedReceiver<(u64, Option<ClientWriteResult<C>>)>,
}

impl Completions {
    /// The next one; `None` when the group has stopped and nothing is in flight any more.
    pub async fn recv(&mut self) -> Option<Completion> {
        self.queue.recv().await.map(completion)
    }

    /// The next one, if it is there.
    pub fn try_recv(&mut self) -> Option<Completion> {
        self.queue.try_recv().ok().map(completion)
    }
}

fn completion((tag, result): (u64, Option<ClientWriteResult<C>>)) -> Completion {
    let verdict = match result {
        Some(Ok(response)) => {
            Verdict::Applied(super::convert::log_id(Some(&response.log_id)), response.data)
        }
        Some(Err(ClientWriteError::ForwardToLeader(to))) => {
            Verdict::Refused { leader: to.leader_id.map(ReplicaId) }
        }
        // Only changes of members meet these, and they are answered elsewhere; both are refusals.
        Some(Err(
            ClientWriteError::ChangeMembershipError(_) | ClientWriteError::PreconditionFailed(_),
        )) => Verdict::Refused { leader: None },
        Some(Err(ClientWriteError::LogEntryDiscarded(_))) | None => Verdict::Unknown,
    };
    Completion { tag, verdict }
}

/// Entries that one append message carries at most (also cut by bytes, where they are read).
const APPEND_ENTRIES_MAX: u64 = 2048;

/// Our settings in the library's words.
pub(super) fn library_config(
    name: String,
    settings: &Settings,
    may_elect: bool,
) -> Result<Arc<openraft::Config>, String> {
    settings.validate()?;
    let config = openraft::Config {
        cluster_name: name,
        heartbeat_interval: settings.heartbeat_ms,
        heartbeat_min_interval: None,
        election_timeout_min: settings.election_min_ms,
        election_timeout_max: settings.election_max_ms,
        max_payload_entries: APPEND_ENTRIES_MAX,
        // We cut snapshots and purge by our own rules: the log is kept for those who are behind.
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: u64::MAX,
        // For the whole transfer. Our own stall detection ends those that do not move.
        install_snapshot_timeout: 3_600_000,
        enable_elect: may_elect,
        enable_pre_vote: Some(true),
        // Otherwise a leader that restarts goes on in its old term without a new blank entry, and
        // (term, seq) numbers would be given twice.
        enable_leader_restore: Some(false),
        // Without an upper bound a follower that was away gets its entries a second late.
        backoff: "50ms 100ms ...300ms".to_owned(),
        ..openraft::Config::default()
    };
    config.validate().map(Arc::new).map_err(|error| error.to_string())
}
