//! What the tests need: an authority, PDs, and players who speak to them.

use flotilla_node::pd_client::{PdClient, PdError};
use flotilla_node::tls::Tls;
use flotilla_node::tls::dev::{Authority, Request};
use flotilla_pd::config::{BootstrapConfig, Config, Listen, StoreConfig};
use flotilla_pd::{Pd, StartError};
use flotilla_topology::api::{
    Assignment, ClusterMap, ClusterStatus, LinkOp, NamespaceSpec, NodeAddresses, NodeInfo,
    PdRequest, PdResponse, PeerCluster, ReplicaStatus, SyncerInfo,
};
use flotilla_topology::ids::{ClusterId, Epoch, Identity, Incarnation, LogId, Role};
use std::collections::BTreeMap;
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::watch;

pub const EAST: ClusterId = ClusterId(1);

/// Everything must happen within this; a machine under load takes its time.
pub const PATIENCE: Duration = Duration::from_secs(40);

pub struct World {
    pub dir: TempDir,
    authority: Authority,
}

impl World {
    pub fn new() -> World {
        let authority = Authority::create("pd tests", 1).unwrap();
        World { dir: tempfile::tempdir().unwrap(), authority }
    }

    pub fn tls(&self, cluster: ClusterId, role: Role, name: &str) -> Tls {
        self.authority.tls(Identity { cluster, role, name: name.into() }).unwrap()
    }

    /// A configuration for one PD, of the cluster `east` unless changed, with free ports.
    pub fn config(&self, name: &str) -> Config {
        self.config_of(EAST, "east", name)
    }

    pub fn config_of(&self, cluster: ClusterId, cluster_name: &str, name: &str) -> Config {
        let identity = Identity { cluster, role: Role::Pd, name: name.into() };
        let home = self.dir.path().join(format!("{cluster_name}-{name}"));
        let certificates = home.join("certificates");
        if certificates.exists() {
            std::fs::remove_dir_all(&certificates).unwrap();
        }
        Config {
            name: name.into(),
            cluster,
            cluster_name: cluster_name.into(),
            incarnation: Incarnation(1),
            dir: home,
            listen: Listen { rpc: "127.0.0.1:0".into(), http: "127.0.0.1:0".into() },
            advertise: None,
            tls: self.authority.issue_files(&Request::of(identity), &certificates).unwrap(),
            store: StoreConfig::Embedded,
            topology: None,
            bootstrap: BootstrapConfig { nodes: 3, partitions: 4, replicas: None },
            peers: BTreeMap::new(),
            backlog_budget_bytes: 1 << 30,
            backlog_budget_seconds: flotilla_pd::config::BACKLOG_SECONDS_DEFAULT,
            fence_after_seconds: None,
        }
    }

    pub fn client(&self, pds: &[&Pd], role: Role, name: &str) -> PdClient {
        self.client_of(EAST, pds, role, name)
    }

    pub fn client_of(&self, cluster: ClusterId, pds: &[&Pd], role: Role, name: &str) -> PdClient {
        let addrs = pds.iter().map(|pd| pd.rpc_addr().to_string()).collect();
        PdClient::new(addrs, self.tls(cluster, role, name))
    }

    pub fn admin(&self, pds: &[&Pd]) -> PdClient {
        self.client(pds, Role::Client, "admin")
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Registers `n1` to `n3`; answers the map that the last one got.
    pub async fn three_nodes(&self, pds: &[&Pd]) -> ClusterMap {
        for name in ["n1", "n2"] {
            register(&self.client(pds, Role::Node, name), name).await.unwrap();
        }
        register(&self.client(pds, Role::Node, "n3"), "n3").await.unwrap()
    }
}

pub async fn start(config: Config) -> Pd {
    within("PD starts", Pd::start(config)).await.unwrap()
}

pub async fn start_fails(config: Config) -> String {
    let error: StartError = within("PD refuses", Pd::start(config)).await.err().expect("refused");
    error.to_string()
}

pub async fn within<T>(what: &str, work: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, work).await {
        Ok(value) => value,
        Err(_) => panic!("not in {PATIENCE:?}: {what}"),
    }
}

/// Waits until the map is so.
pub async fn until(
    what: &str,
    map: &mut watch::Receiver<Option<Arc<ClusterMap>>>,
    is_so: impl Fn(&ClusterMap) -> bool,
) -> Arc<ClusterMap> {
    let so = map.wait_for(|map| map.as_ref().is_some_and(|map| is_so(map)));
    within(what, so).await.unwrap().clone().unwrap()
}

pub fn node(name: &str) -> NodeInfo {
    let at = |port: u16| format!("127.0.0.1:{port}");
    NodeInfo {
        name: name.into(),
        datacenter: "east".into(),
        addresses: NodeAddresses { resp: at(1), cluster_resp: at(2), rpc: at(3), http: at(4) },
        advertise: BTreeMap::new(),
        alive: false,
    }
}

pub fn directory(name: &str) -> u64 {
    name.bytes().fold(7, |sum, byte| sum * 31 + u64::from(byte))
}

pub async fn register(client: &PdClient, name: &str) -> Result<ClusterMap, PdError> {
    register_node(client, node(name)).await
}

pub async fn register_node(client: &PdClient, node: NodeInfo) -> Result<ClusterMap, PdError> {
    let directory = directory(&node.name);
    let seen_epoch = client.seen_epoch();
    match client.call(PdRequest::RegisterNode { node, directory, seen_epoch }).await? {
        PdResponse::Registered { map } => Ok(*map),
        other => panic!("{other:?}"),
    }
}

pub async fn register_syncer(client: &PdClient, name: &str) {
    let at = |port: u16| format!("127.0.0.1:{port}");
    let syncer = SyncerInfo {
        name: name.into(),
        datacenter: "east".into(),
        rpc: at(5),
        link: at(6),
        http: at(7),
        alive: false,
    };
    client.call(PdRequest::RegisterSyncer { syncer }).await.unwrap();
}

/// A heartbeat in which the node leads each group whose first replica it carries.
pub async fn beat(client: &PdClient, map: &ClusterMap, name: &str) -> Result<(), PdError> {
    let groups = map.groups.iter();
    let replicas = groups.filter_map(|group| {
        let replica = group.replicas.iter().find(|replica| replica.node == name)?;
        Some(ReplicaStatus {
            group: group.id,
            replica: replica.id,
            term: 1,
            leads: group.replicas[0].node == name,
            applied: LogId { term: 1, index: 1 },
            outrun: vec![],
        })
    });
    let replicas = replicas.collect();
    client.call(PdRequest::NodeHeartbeat { name: name.into(), replicas }).await.map(drop)
}

pub async fn assignments(client: &PdClient, name: &str, version: u64) -> (u64, Vec<Assignment>) {
    let request = PdRequest::WatchAssignments { name: name.into(), version };
    match within("assignments", client.call(request)).await.unwrap() {
        PdResponse::Assignments { version, groups } => (version, groups),
        other => panic!("{other:?}"),
    }
}

pub async fn status(client: &PdClient) -> ClusterStatus {
    match within("status", client.call(PdRequest::Status)).await.unwrap() {
        PdResponse::Status { status } => *status,
        other => panic!("{other:?}"),
    }
}

pub fn spec(name: &str) -> NamespaceSpec {
    NamespaceSpec { name: name.into(), partitions: 2, replicas: 3, synced: true }
}

/// An operator adds the cluster 3, `north`, and pauses it.
pub async fn add_north(admin: &PdClient) {
    let peer = PeerCluster {
        id: ClusterId(3),
        name: "north".into(),
        syncers: vec!["127.0.0.1:9".into()],
        ..PeerCluster::default()
    };
    for op in [LinkOp::Add { peer }, LinkOp::Pause] {
        let asked = PdRequest::Link { peer: "north".into(), op, dry_run: false };
        let answer = admin.call(asked).await.unwrap();
        assert!(matches!(answer, PdResponse::LinkPlan { done: true, .. }), "{answer:?}");
    }
}

/// The map without what restarts may change.
pub fn lasting(map: &ClusterMap) -> ClusterMap {
    let mut map = ClusterMap { revision: 0, epoch: Epoch(0), ..map.clone() };
    map.nodes.iter_mut().for_each(|node| node.alive = false);
    map.syncers.iter_mut().for_each(|syncer| syncer.alive = false);
    map.groups.iter_mut().for_each(|group| group.leader = None);
    map
}
