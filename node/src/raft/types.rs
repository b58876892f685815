//! The words in which the rest of the program speaks about Raft.
//!
//! Nothing here names the Raft library: it is an alpha, and its types change from release to
//! release. `convert` is the only place where its types and ours meet.

use bytes::Bytes;
use flotilla_topology::election::Timing;
use flotilla_topology::ids::{LogId, ReplicaId, Role};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A replica's process, as the membership of a group names it. Where that process listens is in
/// the address book (see [`super::Network`]), because addresses change without a vote.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Member {
    /// `Node` for a replica with data; `Syncer` for a learner that never may become a voter.
    pub role: Role,
    /// Name of the process, unique among those of its role in the cluster.
    pub name: String,
}

impl Member {
    /// A storage node.
    pub fn node(name: impl Into<String>) -> Member {
        Member { role: Role::Node, name: name.into() }
    }

    /// A syncer.
    pub fn syncer(name: impl Into<String>) -> Member {
        Member { role: Role::Syncer, name: name.into() }
    }
}

/// Who belongs to a group.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Membership {
    /// Where it stands in the log; index 0 when it never was in the log.
    pub log_id: LogId,
    /// The voters. Two sets while a change of voters is under way (both majorities are needed).
    pub configs: Vec<BTreeSet<ReplicaId>>,
    /// All members: voters and learners.
    pub members: BTreeMap<ReplicaId, Member>,
}

impl Membership {
    /// A membership of voters only, as a group is born with.
    pub fn of_voters(members: BTreeMap<ReplicaId, Member>) -> Membership {
        let voters = members.keys().copied().collect();
        Membership { log_id: LogId::default(), configs: vec![voters], members }
    }

    /// True if the replica votes in this membership (in either set of a change).
    pub fn is_voter(&self, replica: ReplicaId) -> bool {
        self.configs.iter().any(|config| config.contains(&replica))
    }

    /// The members that do not vote.
    pub fn learners(&self) -> impl Iterator<Item = (ReplicaId, &Member)> {
        self.members.iter().filter(|(id, _)| !self.is_voter(**id)).map(|(id, m)| (*id, m))
    }
}

/// How far a state machine is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Applied {
    /// The last entry that was applied; index 0 for none.
    pub log_id: LogId,
    /// The last membership at or before it.
    pub membership: Membership,
}

/// What an entry holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// The first entry of a leader's term: from here on its (term, seq) numbers count.
    Blank,
    /// What was proposed.
    Normal(Bytes),
    /// A change of members.
    Membership(Membership),
}

/// A committed entry on its way into the state machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// Its position. The term is that of the leader that appended it.
    pub log_id: LogId,
    /// What it holds.
    pub body: Body,
}

/// What the state machine did with an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It changed the state as it said.
    TookEffect,
    /// The fence held it back: it had been evaluated on another prefix of the log. A no-op.
    Fenced,
}

/// What became of a proposal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Applied here, at this position.
    Applied(LogId, Outcome),
    /// Certainly never appended. The leader, if one is known: retry there.
    Refused {
        /// Whom to ask instead. May be this very replica, when the term it was proposed in is over.
        leader: Option<ReplicaId>,
    },
    /// Nobody can tell: the entry may or may not be committed. Never report it as failed, and
    /// never repeat it on a client's behalf.
    Unknown,
}

/// The end of one proposal, as it comes out of the group's completion queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Completion {
    /// The number that the proposer gave.
    pub tag: u64,
    /// What became of it.
    pub verdict: Verdict,
}

/// What a replica is at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RaftRole {
    /// Believes that it leads. Only [`RaftStatus::ready`] says that it may evaluate.
    Leader,
    /// Votes and follows.
    Follower,
    /// Asks for votes.
    Candidate,
    /// Follows without a vote; also what a replica is before it knows its group.
    #[default]
    Learner,
    /// Stopped, by us or by an error that it does not survive.
    Stopped,
}

/// A replica's view of its group.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RaftStatus {
    /// What this replica is.
    pub role: RaftRole,
    /// Its current term.
    pub term: u64,
    /// The leader it knows, if any.
    pub leader: Option<(ReplicaId, Member)>,
    /// Index of the last entry in its log (perhaps not committed).
    pub last_index: u64,
    /// The last entry that it knows to be committed.
    pub committed: LogId,
    /// The last entry that it has applied.
    pub applied: LogId,
    /// Leader only: it has applied its own term's blank entry, so its state is that of everything
    /// committed before its term, and it may evaluate.
    pub own_blank_applied: bool,
    /// Leader only: how much of the log each other member has.
    pub replication: BTreeMap<ReplicaId, LogId>,
    /// Leader only: when the last message was sent that a majority has answered by now.
    pub last_quorum_ack: Option<Instant>,
    /// The members, as this replica's log has them (the newest may not be committed yet).
    pub membership: Arc<Membership>,
    /// The log has been purged up to here.
    pub purged: LogId,
}

impl RaftStatus {
    /// True if this replica leads and has applied its own term's first entry.
    pub fn ready(&self) -> bool {
        self.role == RaftRole::Leader && self.own_blank_applied
    }

    /// Up to which index a member has this leader's log, as far as this leader knows; 0 for nothing.
    pub fn matched(&self, member: ReplicaId) -> u64 {
        self.replication.get(&member).map_or(0, |at| at.index)
    }
}

/// This replica does not lead, or cannot prove that it still does.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not the leader of the group{}", hint(.leader))]
pub struct NotLeader {
    /// Whom to ask instead. `None`: an election is on, or no majority answers; back off.
    pub leader: Option<(ReplicaId, Member)>,
}

fn hint(leader: &Option<(ReplicaId, Member)>) -> String {
    match leader {
        Some((id, member)) => format!("; ask replica {id} at {}", member.name),
        None => "; no leader is known, try again".to_owned(),
    }
}

/// The group has stopped on this node, by shutdown or by an error that it does not survive.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("raft group stopped on this node: {0}")]
pub struct Stopped(pub String);

/// A change of members was not made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// Ask the leader.
    #[error(transparent)]
    NotLeader(#[from] NotLeader),
    /// Another change is not finished, or the wish is not legal: says which.
    #[error("membership not changed: {0}")]
    Refused(String),
    /// The group has stopped here.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

/// A group that could not be parked is tried again after so many times the usual wait: a voter may be down.
const PARK_AGAIN_FACTOR: u64 = 3;

/// Timing and limits of one group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The leader shows that it lives this often.
    pub heartbeat_ms: u64,
    /// A follower that hears nothing waits for the lease and then for a random time from here ...
    pub election_min_ms: u64,
    /// ... to here, before it asks for votes. Also the lease in which a leader answers reads alone.
    pub election_max_ms: u64,
    /// A leader that had nothing to do for so long parks its group: no more heartbeats and elections, until
    /// somebody reads or writes. 0: never. One whose voters did not agree waits for
    /// [`Settings::park_again`]. The leader's setting holds, whatever those of its voters are.
    pub park_after_ms: u64,
    /// An append that is not answered for so long ends its stream, which is then opened anew.
    pub append_stall_ms: u64,
    /// Bytes of entries that are on their way to one member, of this group (one message more may
    /// exceed it). All groups' windows share the connection's limits.
    pub append_window_bytes: usize,
    /// A snapshot of which no chunk is accepted for so long is given up and cut anew.
    pub snapshot_stall_ms: u64,
    /// Bytes per second and transfer at which snapshots are sent. 0 is no limit.
    pub snapshot_bytes_per_s: u64,
}

impl Default for Settings {
    /// For one datacenter.
    fn default() -> Self {
        Settings {
            heartbeat_ms: 100,
            election_min_ms: 300,
            election_max_ms: 600,
            park_after_ms: 3_000,
            append_stall_ms: 10_000,
            append_window_bytes: 2 << 20,
            snapshot_stall_ms: 15_000,
            snapshot_bytes_per_s: 64 << 20,
        }
    }
}

impl Settings {
    /// For a group whose replicas are up to `rtt_ms` apart.
    pub fn for_rtt(rtt_ms: f64) -> Settings {
        let base = Settings::default();
        let timing = Timing::for_rtt(rtt_ms);
        Settings {
            heartbeat_ms: timing.heartbeat_ms,
            election_min_ms: timing.election_min_ms,
            election_max_ms: timing.election_max_ms,
            append_window_bytes: base.append_window_bytes + rtt_ms.min(100.0) as usize * (64 << 10),
            ..base
        }
    }

    /// Says what is wrong with the relation of two settings.
    pub fn validate(&self) -> Result<(), String> {
        let Settings { heartbeat_ms, election_min_ms, election_max_ms, .. } = *self;
        if heartbeat_ms == 0 {
            return Err("heartbeat_ms is 0: a leader must be able to show that it lives".into());
        }
        if election_min_ms < heartbeat_ms * 2 {
            return Err(format!(
                "election_min_ms ({election_min_ms}) must be at least twice heartbeat_ms \
                 ({heartbeat_ms}): one lost heartbeat must not start an election"
            ));
        }
        if election_max_ms <= election_min_ms {
            return Err(format!(
                "election_max_ms ({election_max_ms}) must be above election_min_ms \
                 ({election_min_ms}): candidates that wait equally long split the votes for ever"
            ));
        }
        Ok(())
    }

    /// How long a leader waits before it tries again to park a group of which a voter did not agree.
    pub fn park_again(&self) -> Duration {
        Duration::from_millis(self.park_after_ms.saturating_mul(PARK_AGAIN_FACTOR))
    }

    /// How long a leader may answer reads after a majority answered it.
    pub fn lease(&self) -> Duration {
        Duration::from_millis(self.election_max_ms)
    }
}
