//! What PD tells and what PD is told: the JSON types of its `rpc` port (mutual TLS, see
//! `flotilla_node::transport`) and of its read-only `http` port.
//!
//! The [`ClusterMap`] is the one versioned fact that nodes, syncers and tools share. Everything in
//! it is desired state: nodes and group leaders make it so, by themselves, and repeating is safe.

mod links;

pub use links::{LinkAudit, LinkOp, LinkState, LinkStatus, PeerCluster, PeerView, Standing, View};

use crate::ids::{ClusterId, Epoch, GroupId, Incarnation, LogId, NamespaceId, ReplicaId};
use crate::slot::SlotRange;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Where a node listens, each as `host:port`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeAddresses {
    /// Plain RESP port: forwards to the leader by itself.
    pub resp: String,
    /// Cluster RESP port: answers MOVED.
    pub cluster_resp: String,
    /// Internal port, mutual TLS: Raft, forwards, remote batches.
    pub rpc: String,
    /// Metrics and health.
    pub http: String,
}

/// A storage server, as it registers and as the map shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeInfo {
    /// Unique in the cluster, as in its certificate.
    pub name: String,
    /// The failure domain that it stands in.
    pub datacenter: String,
    /// Its addresses as most see them.
    pub addresses: NodeAddresses,
    /// Its addresses as seen from certain datacenters (NAT, VPN, the demo's WAN relay).
    #[serde(default)]
    pub advertise: BTreeMap<String, NodeAddresses>,
    /// Whether PD has heard from it lately.
    #[serde(default)]
    pub alive: bool,
}

impl NodeInfo {
    /// The addresses to use from a process that stands in `datacenter`.
    pub fn addresses_from(&self, datacenter: &str) -> &NodeAddresses {
        self.advertise.get(datacenter).unwrap_or(&self.addresses)
    }
}

/// A syncer, as it registers and as the map shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncerInfo {
    /// Unique in the cluster, as in its certificate.
    pub name: String,
    /// The datacenter that it stands in.
    pub datacenter: String,
    /// Internal port (mutual TLS): the Raft traffic of its learners.
    pub rpc: String,
    /// QUIC address where other clusters reach it, `host:port` (UDP).
    pub link: String,
    /// Metrics and health.
    pub http: String,
    /// Whether PD has heard from it lately.
    #[serde(default)]
    pub alive: bool,
}

/// What a namespace is asked to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamespaceSpec {
    /// 1 to 64 characters of `a-z A-Z 0-9 . _ -`.
    pub name: String,
    /// How many groups share its slots, 1 to 1024.
    pub partitions: u32,
    /// Replicas of each group: 1, 3 or 5.
    pub replicas: u8,
    /// Whether it is kept in step with the other clusters (stamps and tombstones are kept).
    pub synced: bool,
}

/// A namespace in the map.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamespaceInfo {
    /// Its number, never reused.
    pub id: NamespaceId,
    /// What it was asked to be.
    #[serde(flatten)]
    pub spec: NamespaceSpec,
    /// It was born unsynced, and sync was switched on later: each group's log says where.
    #[serde(default)]
    pub switched: bool,
}

impl NamespaceInfo {
    /// Whether its groups are synced since their birth.
    pub fn born_synced(&self) -> bool {
        self.spec.synced && !self.switched
    }
}

/// One voting replica of a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaInfo {
    /// Its Raft node id.
    pub id: ReplicaId,
    /// The node that carries it.
    pub node: String,
}

/// One learner of a group: a syncer's tenure, published once the syncer is ready to be added.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LearnerInfo {
    /// Its Raft node id, new for every tenure.
    pub id: ReplicaId,
    /// The syncer that holds it.
    pub syncer: String,
}

/// Who leads a group, as last heard; a hint, never a promise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaderHint {
    /// The node.
    pub node: String,
    /// In which term; a hint of a higher term replaces this one.
    pub term: u64,
}

/// A group in the map.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupInfo {
    /// Its number, never reused.
    pub id: GroupId,
    /// Whose slots it carries.
    pub namespace: NamespaceId,
    /// Which of them.
    pub slots: SlotRange,
    /// First membership, fixed at birth: each of these may initialize the group with just this.
    pub birth: Vec<ReplicaInfo>,
    /// Voters wanted now.
    pub replicas: Vec<ReplicaInfo>,
    /// Learners wanted now.
    #[serde(default)]
    pub learners: Vec<LearnerInfo>,
    /// The node that should lead, so that leaders are spread.
    pub preferred_leader: String,
    /// The node that leads, as last heard.
    #[serde(default)]
    pub leader: Option<LeaderHint>,
}

/// The partition map of a cluster.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClusterMap {
    /// Whose map this is.
    pub cluster: ClusterId,
    /// Its name.
    pub name: String,
    /// Its present life.
    pub incarnation: Incarnation,
    /// Version; rises with every change of anything below but liveness and leader hints.
    pub epoch: Epoch,
    /// Version that rises with every change at all, hints too: what a watcher passes.
    pub revision: u64,
    /// All storage servers.
    pub nodes: Vec<NodeInfo>,
    /// All syncers.
    pub syncers: Vec<SyncerInfo>,
    /// All namespaces.
    pub namespaces: Vec<NamespaceInfo>,
    /// All groups, by id.
    pub groups: Vec<GroupInfo>,
    /// Clusters on the other end of links.
    pub peers: Vec<PeerCluster>,
    /// Version of the set of (peer id, standing); rises with every change of it and never goes
    /// back. 0 while there never was a peer.
    #[serde(default)]
    pub mesh_version: u64,
    /// How much log each group keeps for a peer that lags.
    #[serde(default)]
    pub backlog: BacklogBudget,
}

impl ClusterMap {
    /// A cluster in its first life that has nothing yet.
    pub fn new(cluster: ClusterId, name: &str) -> ClusterMap {
        ClusterMap {
            cluster,
            name: name.to_owned(),
            incarnation: Incarnation(1),
            epoch: Epoch(1),
            revision: 1,
            nodes: Vec::new(),
            syncers: Vec::new(),
            namespaces: Vec::new(),
            groups: Vec::new(),
            peers: Vec::new(),
            mesh_version: 0,
            backlog: BacklogBudget::default(),
        }
    }
}

/// How much log a group keeps for a peer that lags; beyond either, the peer merges a full state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BacklogBudget {
    /// In bytes of entries.
    pub bytes: u64,
    /// In seconds.
    pub age_seconds: u64,
}

impl Default for BacklogBudget {
    /// One gibibyte, one day.
    fn default() -> BacklogBudget {
        BacklogBudget { bytes: 1 << 30, age_seconds: 24 * 3600 }
    }
}

/// What a replica tells of itself in a heartbeat.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaStatus {
    /// The group.
    pub group: GroupId,
    /// The replica.
    pub replica: ReplicaId,
    /// Its term.
    pub term: u64,
    /// Whether it leads and may evaluate.
    pub leads: bool,
    /// Last applied position.
    pub applied: LogId,
    /// Live peers to which the log no longer reaches back; told by who leads.
    #[serde(default)]
    pub outrun: Vec<ClusterId>,
}

/// What a process asks of PD.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "method", rename_all = "snake_case")]
pub enum PdRequest {
    /// A node (re)appears. Answered by [`PdResponse::Registered`].
    RegisterNode {
        /// Who it is.
        node: NodeInfo,
        /// Random number made when its directory was created; a known name with another one is
        /// refused, since a replica that lost its log would vote twice.
        directory: u64,
        /// Epoch of the newest map that the node has seen, 0 for none. A PD that is behind it has
        /// lost its store and refuses, since it would give out used numbers again.
        #[serde(default)]
        seen_epoch: Epoch,
    },
    /// A syncer (re)appears; its earlier tenures end. Answered by [`PdResponse::Registered`].
    RegisterSyncer {
        /// Who it is.
        syncer: SyncerInfo,
    },
    /// Liveness and what leads where, about once a second.
    NodeHeartbeat {
        /// Node name.
        name: String,
        /// All its replicas.
        replicas: Vec<ReplicaStatus>,
    },
    /// Liveness, four times a second, and the state of links, about once a second.
    SyncerHeartbeat {
        /// Syncer name.
        name: String,
        /// The links of all its groups; `None` when this is a sign of life only.
        links: Option<Vec<LinkStatus>>,
        /// What peers say of each other, with the links.
        #[serde(default)]
        views: Vec<PeerView>,
    },
    /// The map, answered once its revision is above `revision` or after 20 s.
    WatchMap {
        /// The revision that the caller has; 0 for none.
        revision: u64,
    },
    /// Which groups a syncer shall serve, answered once that differs from `version` or after 20 s.
    WatchAssignments {
        /// Syncer name.
        name: String,
        /// The version that the caller has; 0 for none.
        version: u64,
    },
    /// The syncer runs the learner of this tenure and it may be added to the group.
    LearnerReady {
        /// Syncer name.
        name: String,
        /// The group.
        group: GroupId,
        /// The tenure.
        learner: ReplicaId,
    },
    /// The syncer's tenure of this one group cannot go on: it is given a new one, and its others
    /// go on. Asked again for a tenure that has ended already, this changes nothing.
    RenewTenure {
        /// Syncer name.
        name: String,
        /// The group.
        group: GroupId,
        /// The tenure that cannot go on.
        learner: ReplicaId,
    },
    /// A returning peer has merged its state: it is live from now on.
    PeerLive {
        /// It.
        peer: ClusterId,
    },
    /// An operator does something with the link to a peer. Answered by [`PdResponse::LinkPlan`].
    Link {
        /// Name or id of the peer.
        peer: String,
        /// What.
        op: LinkOp,
        /// Only tell what would happen.
        dry_run: bool,
    },
    /// Creates a namespace; repeating the same is fine.
    CreateNamespace {
        /// What it shall be.
        spec: NamespaceSpec,
    },
    /// Switches sync on for a namespace that may have data; it cannot be switched off again. Repeating
    /// it is fine. Answered by [`PdResponse::LinkPlan`].
    SyncNamespace {
        /// Its name.
        name: String,
        /// Only tell what would happen.
        dry_run: bool,
    },
    /// Drops a namespace and all its data.
    DropNamespace {
        /// Its name.
        name: String,
    },
    /// Takes a node out of the map for good. Refused while it is alive or carries replicas.
    RemoveNode {
        /// Node name.
        name: String,
    },
    /// Takes a syncer out of the map for good. Refused while it is alive.
    RemoveSyncer {
        /// Syncer name.
        name: String,
    },
    /// Everything at once, for `flotilla status` and the page.
    Status,
}

/// One group to serve.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// The group.
    pub group: GroupId,
    /// The Raft node id of this tenure.
    pub learner: ReplicaId,
    /// Rises with every new tenure of the group.
    pub epoch: u64,
}

/// What PD answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum PdResponse {
    /// Done, nothing to tell.
    Done,
    /// The caller is known now.
    Registered {
        /// The map as of now.
        map: Box<ClusterMap>,
    },
    /// A newer map, or the same one after the wait.
    Map {
        /// It.
        map: Box<ClusterMap>,
    },
    /// Assignments of a syncer.
    Assignments {
        /// Their version.
        version: u64,
        /// All of them.
        groups: Vec<Assignment>,
    },
    /// A namespace exists now.
    Namespace {
        /// It.
        namespace: NamespaceInfo,
    },
    /// What an operation on a link or a namespace does, or would do.
    LinkPlan {
        /// For people.
        lines: Vec<String>,
        /// Whether it was done.
        done: bool,
    },
    /// Everything at once.
    Status {
        /// It.
        status: Box<ClusterStatus>,
    },
    /// Refused; one line that says what to do.
    Refused {
        /// The line.
        reason: String,
    },
    /// Another PD leads, or none does at the moment; `PdClient` follows by itself.
    NotLeader {
        /// RPC address of the one that leads, if it is known.
        leader: Option<String>,
    },
}

/// The whole of a cluster as PD sees it: `GET /api/v1/status` and `flotilla status`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClusterStatus {
    /// The map.
    pub map: ClusterMap,
    /// Last heartbeat of every replica.
    pub replicas: Vec<ReplicaStatus>,
    /// Last heartbeat of every outgoing link and group.
    pub links: Vec<LinkStatus>,
    /// Groups without a leader, placement rules that do not hold, processes not heard of; one line
    /// each. Empty means healthy.
    pub problems: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_from_before_sync_could_be_switched_on_is_as_it_was_born() {
        let of = |synced: bool| {
            let old = format!(
                r#"{{"id": 3, "name": "jobs", "partitions": 4, "replicas": 3, "synced": {synced}}}"#
            );
            serde_json::from_str::<NamespaceInfo>(&old).unwrap()
        };
        assert!(of(true).born_synced() && !of(false).born_synced());
        let switched = NamespaceInfo { switched: true, ..of(true) };
        assert!(!switched.born_synced());
        let text = serde_json::to_string(&switched).unwrap();
        assert_eq!(serde_json::from_str::<NamespaceInfo>(&text).unwrap(), switched);
    }
}
