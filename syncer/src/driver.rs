//! The syncer process: registers with PD, keeps links to the peers, runs a tenure for every group
//! that PD gives it, and takes what other clusters send.
//!
//! It keeps nothing but the last map, for a start without PD. PD decides who ships what; that two
//! syncers ship the same for a while is harmless.

use crate::batch::{Hello, LINK_VERSION};
use crate::config::Config;
use crate::inbound;
use crate::leaders::{Leaders, MapWatch};
use crate::link::accept::{self, Host, Opened};
use crate::link::dial::{Dialer, LinkStatus as Connection};
use crate::link::{LinkError, transport};
use crate::tenure::{self, Context, Peer, Task, Windows};
use bytes::Bytes;
use flotilla_node::http::{Health, Http};
use flotilla_node::pd_client::{PdClient, PdError};
use flotilla_node::raft::{RaftGroups, group_of};
use flotilla_node::tls::{Tls, TlsError};
use flotilla_node::transport::{ReplyTo, RpcRefused, Server, Service, kinds};
use flotilla_topology::api::{
    Assignment, ClusterMap, LinkStatus, PdRequest, PdResponse, PeerCluster, SyncerInfo,
};
use flotilla_topology::ids::{ClusterId, GroupId, Identity, Origin, Role};
use parking_lot::Mutex;
use quinn::Endpoint;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio::sync::{Notify, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::sleep;

/// How often PD hears of us.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// Wait before PD is asked again after it failed.
const PD_PAUSE: Duration = Duration::from_secs(1);
/// A learner that cannot go on gets a new tenure at most this often: all groups get one with it.
const RENEW_PAUSE: Duration = Duration::from_secs(10);
/// Threads of the learners' Raft: mostly waiting.
const RAFT_THREADS: usize = 2;

/// A syncer cannot start; one line that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Certificates.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The certificate is of somebody else.
    #[error("the certificate is {found}, the configuration says {expected}: use the right one")]
    Identity {
        /// What the certificate says.
        found: Identity,
        /// What the configuration says.
        expected: Identity,
    },
    /// A port.
    #[error("cannot listen on {addr}: {source} (set {key}, or stop who listens there)")]
    Listen {
        /// Which key of the configuration.
        key: &'static str,
        /// Its value.
        addr: String,
        /// Why.
        source: std::io::Error,
    },
    /// The link's port.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The operating system.
    #[error("cannot start: {0}")]
    Io(#[from] std::io::Error),
}

/// A running syncer. Dropping it stops it at once, which loses nothing.
pub struct Syncer {
    shared: Arc<Shared>,
    rpc: Option<Server>,
    http: Option<Http>,
    tasks: JoinSet<()>,
    addresses: [SocketAddr; 3],
    runtime: Option<Runtime>,
}

struct Shared {
    info: SyncerInfo,
    tls: Tls,
    pd: PdClient,
    map: MapWatch,
    leaders: Leaders,
    groups: RaftGroups,
    doors: Arc<Mutex<BTreeMap<GroupId, Arc<crate::gate::Door>>>>,
    endpoint: Endpoint,
    config: Config,
    peers: Mutex<BTreeMap<ClusterId, KeptPeer>>,
    tenures: Mutex<BTreeMap<GroupId, KeptTenure>>,
    /// Somebody's tenure cannot go on.
    renew: Notify,
    raft: tokio::runtime::Handle,
}

struct KeptPeer {
    name: String,
    told: watch::Sender<PeerCluster>,
    link: watch::Receiver<Connection>,
    dialer: AbortHandle,
}

struct KeptTenure {
    assignment: Assignment,
    windows: Windows,
    task: AbortHandle,
}

impl Syncer {
    /// Starts it. It is of use once PD has registered it, and keeps trying until then.
    pub async fn start(config: Config) -> Result<Syncer, StartError> {
        let tls = Tls::load(&config.tls)?;
        check_identity(&config, tls.identity())?;
        flotilla_node::http::install_metrics();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(RAFT_THREADS)
            .thread_name("flotilla-raft")
            .enable_all()
            .build()?;
        let mut pd = PdClient::new(config.pd.clone(), tls.clone());
        if let Some(dir) = &config.dir {
            std::fs::create_dir_all(dir)?;
            pd = pd.with_map_file(dir.join("map.json"));
        }
        let endpoint = bind_link(&config.listen.link, &tls).await?;
        let map = pd.watch_map();
        let raft = runtime.handle().clone();
        let here = config.datacenter.clone();
        let leaders = Leaders::new(tls.clone(), here, map.clone(), raft.clone());
        let (groups, doors) = (RaftGroups::default(), Arc::default());
        let door = RpcDoor { groups: groups.clone(), doors: Arc::clone(&doors) };
        let (addr, own) = (&config.listen.rpc, config.cluster);
        let allow = move |peer: &Identity| peer.cluster == own && peer.role == Role::Node;
        let rpc = bind_rpc(addr, &tls, allow, Arc::new(door), &raft).await?;
        let mut info = config.info();
        let addresses = [rpc.local_addr(), endpoint.local_addr()?];
        info.rpc = with_port(&info.rpc, addresses[0]);
        info.link = with_port(&info.link, addresses[1]);
        let http_addr = config.listen.http.clone();
        let shared = Arc::new(Shared {
            info,
            tls,
            pd,
            map,
            leaders,
            groups,
            doors,
            endpoint,
            config,
            peers: Mutex::default(),
            tenures: Mutex::default(),
            renew: Notify::new(),
            raft,
        });
        let http = bind_http(&http_addr, &shared).await?;
        let addresses = [addresses[0], addresses[1], http.local_addr()];
        let mut tasks = JoinSet::new();
        tasks.spawn(accept::run(shared.endpoint.clone(), Arc::clone(&shared) as Arc<dyn Host>));
        tasks.spawn(Arc::clone(&shared).follow_map());
        tasks.spawn(Arc::clone(&shared).serve_pd());
        let (rpc, http, runtime) = (Some(rpc), Some(http), Some(runtime));
        Ok(Syncer { shared, rpc, http, tasks, addresses, runtime })
    }

    /// Where it listens: rpc, link, http.
    pub fn addresses(&self) -> [SocketAddr; 3] {
        self.addresses
    }

    /// The state of every outgoing link and group.
    pub fn links(&self) -> Vec<LinkStatus> {
        self.shared.links()
    }

    /// Stops. Being killed is as good; this only spares the others a timeout.
    pub async fn shutdown(mut self) {
        self.tasks.shutdown().await;
        self.shared.end_all();
        self.shared.endpoint.close(0u32.into(), b"the syncer stops");
        let _ =
            tokio::time::timeout(Duration::from_secs(1), self.shared.endpoint.wait_idle()).await;
        if let Some(rpc) = self.rpc.take() {
            rpc.shutdown().await;
        }
        if let Some(http) = self.http.take() {
            http.shutdown().await;
        }
    }
}

impl Drop for Syncer {
    fn drop(&mut self) {
        self.shared.end_all();
        self.shared.endpoint.close(0u32.into(), b"the syncer stops");
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn check_identity(config: &Config, found: &Identity) -> Result<(), StartError> {
    let (cluster, name) = (config.cluster, config.name.clone());
    let expected = Identity { cluster, role: Role::Syncer, name };
    if *found == expected {
        return Ok(());
    }
    Err(StartError::Identity { found: found.clone(), expected })
}

async fn bind_link(addr: &str, tls: &Tls) -> Result<Endpoint, StartError> {
    let failed = |source| StartError::Listen { key: "listen.link", addr: addr.to_owned(), source };
    let mut found = tokio::net::lookup_host(addr).await.map_err(failed)?;
    let none = || failed(std::io::Error::other("the name has no address"));
    Ok(transport::endpoint(found.next().ok_or_else(none)?, tls)?)
}

async fn bind_rpc(
    addr: &str,
    tls: &Tls,
    allow: impl Fn(&Identity) -> bool + Send + Sync + 'static,
    service: Arc<dyn Service>,
    raft: &tokio::runtime::Handle,
) -> Result<Server, StartError> {
    let failed = |source| StartError::Listen { key: "listen.rpc", addr: addr.to_owned(), source };
    // On Raft's runtime: what is spawned by a server runs where it was made.
    let (address, tls) = (addr.to_owned(), tls.clone());
    let bound = raft.spawn(async move { Server::bind(address, &tls, allow, service).await });
    bound.await.map_err(std::io::Error::other)?.map_err(failed)
}

async fn bind_http(addr: &str, shared: &Arc<Shared>) -> Result<Http, StartError> {
    let failed = |source| StartError::Listen { key: "listen.http", addr: addr.to_owned(), source };
    let of_health = Arc::downgrade(shared);
    let health = move || of_health.upgrade().map_or_else(gone, |shared| shared.health());
    let of_links = Arc::downgrade(shared);
    let links = move || {
        let links = of_links.upgrade().map(|shared| shared.links()).unwrap_or_default();
        async move { axum::Json(links) }
    };
    let extra = axum::Router::new().route("/api/v1/links", axum::routing::get(links));
    Http::bind(addr, health, extra).await.map_err(failed)
}

fn gone() -> Health {
    Health::new(false, serde_json::json!({ "detail": "stopping" }))
}

/// The port that was given out, where the configuration left it to the system (port 0).
fn with_port(advertised: &str, bound: SocketAddr) -> String {
    match advertised.rsplit_once(':') {
        Some((host, "0")) => format!("{host}:{}", bound.port()),
        _ => advertised.to_owned(),
    }
}

/// The Raft messages of this cluster's leaders.
struct RpcDoor {
    groups: RaftGroups,
    doors: Arc<Mutex<BTreeMap<GroupId, Arc<crate::gate::Door>>>>,
}

impl Service for RpcDoor {
    fn call(&self, _peer: &Identity, kind: u16, payload: Bytes, reply: ReplyTo) {
        if !(kinds::RAFT_APPEND..=kinds::TRANSFER_LEADER).contains(&kind) {
            let code = RpcRefused::UNKNOWN_KIND;
            return reply.send(Err(RpcRefused::new(code, "a syncer takes Raft messages only")));
        }
        let door = (kind == kinds::RAFT_APPEND)
            .then(|| group_of(&payload).ok())
            .flatten()
            .and_then(|group| self.doors.lock().get(&group).cloned());
        match door {
            Some(door) => door.append(kind, payload, reply),
            None => self.groups.handle(kind, &payload, reply),
        }
    }
}

impl Host for Shared {
    fn hello(&self) -> Hello {
        let map = self.map.borrow();
        Hello {
            oldest: 1,
            newest: LINK_VERSION,
            cluster: self.config.cluster,
            incarnation: map.as_ref().map(|map| map.incarnation).unwrap_or_default(),
            layout: map.as_ref().map_or(0, |map| map.epoch.0),
        }
    }

    fn knows(&self, cluster: ClusterId) -> bool {
        let map = self.map.borrow();
        map.as_ref().is_some_and(|map| map.peers.iter().any(|peer| peer.id == cluster))
    }

    fn opened(&self, stream: Opened) {
        tokio::spawn(inbound::run(stream, self.leaders.clone(), self.map.clone()));
    }
}

impl Shared {
    fn links(&self) -> Vec<LinkStatus> {
        self.tenures.lock().values().flat_map(|kept| tenure::statuses(&kept.windows)).collect()
    }

    fn health(&self) -> Health {
        let known = self.map.borrow().is_some();
        let links = self.links();
        let live = links.iter().filter(|link| {
            use flotilla_topology::api::LinkState::{CatchingUp, Live};
            matches!(link.state, Live | CatchingUp)
        });
        let details = serde_json::json!({
            "name": self.info.name,
            "groups": self.tenures.lock().len(),
            "links": links.len(),
            "links_live": live.count(),
            "detail": if known { "serving" } else { "no map yet: PD has not answered" },
        });
        Health::new(known, details)
    }

    fn end_all(&self) {
        for (_, kept) in std::mem::take(&mut *self.tenures.lock()) {
            kept.task.abort();
        }
        for (_, peer) in std::mem::take(&mut *self.peers.lock()) {
            peer.dialer.abort();
        }
    }

    /// Keeps a dialer for each peer of the map.
    async fn follow_map(self: Arc<Self>) {
        let mut map = self.map.clone();
        loop {
            let now = map.borrow_and_update().clone();
            if let Some(now) = now
                && self.update_peers(&now)
            {
                // Tenures know their peers from their beginning.
                self.renew.notify_one();
            }
            if map.changed().await.is_err() {
                return;
            }
        }
    }

    /// Whether there are others than before.
    fn update_peers(self: &Arc<Self>, map: &ClusterMap) -> bool {
        let mut peers = self.peers.lock();
        let had_some = !peers.is_empty();
        let mut changed = false;
        peers.retain(|id, kept| {
            let stays = map.peers.iter().any(|peer| peer.id == *id);
            if !stays {
                kept.dialer.abort();
                changed = true;
            }
            stays
        });
        for peer in &map.peers {
            match peers.get(&peer.id) {
                Some(kept) => {
                    kept.told.send_if_modified(|told| {
                        let new = told != peer;
                        told.clone_from(peer);
                        new
                    });
                }
                None => {
                    changed = true;
                    peers.insert(peer.id, self.keep_peer(peer));
                }
            }
        }
        changed && had_some
    }

    fn keep_peer(self: &Arc<Self>, peer: &PeerCluster) -> KeptPeer {
        let (told, telling) = watch::channel(peer.clone());
        let (status, link) = watch::channel(Connection::Down("not dialed yet".into()));
        let shared = Arc::downgrade(self);
        let nobody = self.hello();
        let hello = move || shared.upgrade().map_or(nobody.clone(), |shared| shared.hello());
        let dialer = Dialer {
            endpoint: self.endpoint.clone(),
            tls: self.tls.clone(),
            hello: Box::new(hello),
            peer: telling,
        };
        let dialer = tokio::spawn(dialer.run(status)).abort_handle();
        KeptPeer { name: peer.name.clone(), told, link, dialer }
    }

    /// Registers, and follows the assignments until they have to begin anew.
    async fn serve_pd(self: Arc<Self>) {
        loop {
            let registered = Instant::now();
            if let Err(error) = self.register().await {
                tracing::warn!("cannot register with PD: {error}");
                sleep(PD_PAUSE).await;
                continue;
            }
            tokio::select! {
                () = self.heartbeats() => {}
                () = self.assignments() => {}
                () = self.renew.notified() => {
                    sleep(RENEW_PAUSE.saturating_sub(registered.elapsed())).await;
                    tracing::info!("asks PD for new tenures");
                }
            }
        }
    }

    async fn register(&self) -> Result<(), PdError> {
        let syncer = self.info.clone();
        let registered = self.pd.call(PdRequest::RegisterSyncer { syncer }).await?;
        // PD has ended all earlier tenures with it.
        self.tenures.lock().retain(|_, kept| {
            kept.task.abort();
            false
        });
        if let PdResponse::Registered { map } = registered
            && map.cluster != self.config.cluster
        {
            let (theirs, ours) = (map.cluster, self.config.cluster);
            let what = format!("PD serves cluster {theirs}, we are of {ours}: check `pd`");
            return Err(PdError::Refused(what));
        }
        Ok(())
    }

    /// Until PD does not know us any more.
    async fn heartbeats(&self) {
        loop {
            let (name, links) = (self.info.name.clone(), self.links());
            match self.pd.call(PdRequest::SyncerHeartbeat { name, links }).await {
                Ok(_) => sleep(HEARTBEAT).await,
                Err(PdError::Refused(reason)) => {
                    tracing::warn!(%reason, "PD refuses our heartbeat: registers anew");
                    return sleep(PD_PAUSE).await;
                }
                Err(PdError::Unavailable(_)) => sleep(PD_PAUSE).await,
            }
        }
    }

    /// Until PD does not know us any more.
    async fn assignments(self: &Arc<Self>) {
        let mut version = 0;
        loop {
            let name = self.info.name.clone();
            match self.pd.call(PdRequest::WatchAssignments { name, version }).await {
                Ok(PdResponse::Assignments { version: newer, groups }) => {
                    // A group that the map does not show yet is looked for again.
                    let complete = self.assign(&groups);
                    version = if complete { newer } else { 0 };
                    if !complete {
                        sleep(Duration::from_millis(200)).await;
                    }
                }
                Ok(_) => sleep(PD_PAUSE).await,
                Err(PdError::Refused(reason)) => {
                    tracing::warn!(%reason, "PD gives no assignments: registers anew");
                    return sleep(PD_PAUSE).await;
                }
                Err(PdError::Unavailable(_)) => sleep(PD_PAUSE).await,
            }
        }
    }

    /// Makes the tenures what PD wants. False if the map does not show all groups yet.
    fn assign(self: &Arc<Self>, wanted: &[Assignment]) -> bool {
        let map = self.map.borrow().clone();
        let Some(map) = map else { return false };
        let mut tenures = self.tenures.lock();
        tenures.retain(|_, kept| {
            let stays = wanted.contains(&kept.assignment);
            if !stays {
                kept.task.abort();
            }
            stays
        });
        let peers = self.peers();
        let memory = self.config.stream_memory(wanted.len() * peers.len());
        let mut complete = true;
        for assignment in wanted {
            if tenures.contains_key(&assignment.group) {
                continue;
            }
            match task_for(&map, assignment, &peers, memory) {
                Some(task) => {
                    tenures.insert(assignment.group, self.keep_tenure(&map, task));
                }
                None => complete = false,
            }
        }
        complete
    }

    fn peers(&self) -> Vec<Peer> {
        let peers = self.peers.lock();
        peers
            .iter()
            .map(|(id, kept)| Peer { id: *id, name: kept.name.clone(), link: kept.link.clone() })
            .collect()
    }

    fn keep_tenure(self: &Arc<Self>, map: &ClusterMap, task: Task) -> KeptTenure {
        let context = Context {
            own: Origin { cluster: map.cluster, incarnation: map.incarnation },
            leaders: self.leaders.clone(),
            groups: self.groups.clone(),
            doors: Arc::clone(&self.doors),
            runtime: self.raft.clone(),
        };
        let (windows, assignment) = (Windows::default(), task.assignment.clone());
        let (shared, shown) = (Arc::clone(self), Arc::clone(&windows));
        let ready = {
            let (pd, name) = (self.pd.clone(), self.info.name.clone());
            let (group, learner) = (assignment.group, assignment.learner);
            async move || tell_ready(&pd, name, group, learner).await
        };
        let task = tokio::spawn(async move {
            let group = task.assignment.group;
            let reason = tenure::run(context, task, shown, ready).await;
            tracing::error!(%group, %reason, "tenure ended, needs a new one");
            shared.renew.notify_one();
        });
        KeptTenure { assignment, windows, task: task.abort_handle() }
    }
}

async fn tell_ready(
    pd: &PdClient,
    name: String,
    group: GroupId,
    learner: flotilla_topology::ids::ReplicaId,
) -> Result<(), String> {
    loop {
        let ready = PdRequest::LearnerReady { name: name.clone(), group, learner };
        match pd.call(ready).await {
            Ok(_) => return Ok(()),
            Err(PdError::Refused(reason)) => return Err(reason),
            Err(PdError::Unavailable(_)) => sleep(PD_PAUSE).await,
        }
    }
}

fn task_for(
    map: &ClusterMap,
    assignment: &Assignment,
    peers: &[Peer],
    memory: usize,
) -> Option<Task> {
    let group = map.groups.iter().find(|group| group.id == assignment.group)?;
    let namespace = map.namespaces.iter().find(|info| info.id == group.namespace)?;
    Some(Task {
        assignment: assignment.clone(),
        namespace: namespace.spec.name.clone(),
        slots: group.slots,
        peers: peers.to_vec(),
        memory,
    })
}
