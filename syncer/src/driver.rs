//! The syncer process: registers with PD, keeps links to the peers, runs a tenure for every group
//! that PD gives it, and takes what other clusters send.
//!
//! It keeps nothing but the last map, for a start without PD. PD decides who ships what; that two
//! syncers ship the same for a while is harmless.

use crate::batch::{Hello, LINK_VERSION};
use crate::config::Config;
use crate::inbound::{self, Budget};
use crate::leaders::{Leaders, MapWatch};
use crate::link::accept::{self, Host, Opened};
use crate::link::dial::{Dialer, LinkStatus as Connection};
use crate::ports::{Doors, RpcDoor, StartError, bind_link, bind_rpc, check_identity, with_port};
use crate::tenure::{self, Context, Peer, Task, Windows};
use flotilla_node::http::{Health, Http};
use flotilla_node::pd_client::{PdClient, PdError};
use flotilla_node::raft::RaftGroups;
use flotilla_node::tls::Tls;
use flotilla_node::transport::Server;
use flotilla_topology::api::{
    Assignment, ClusterMap, LinkStatus, PdRequest, PdResponse, PeerCluster, SyncerInfo,
};
use flotilla_topology::ids::{ClusterId, GroupId, Identity, Origin, Role};
use parking_lot::Mutex;
use quinn::Endpoint;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
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
    doors: Doors,
    /// Memory of the receiving side.
    budget: Budget,
    endpoint: Endpoint,
    config: Config,
    peers: Mutex<BTreeMap<ClusterId, KeptPeer>>,
    tenures: Mutex<BTreeMap<GroupId, KeptTenure>>,
    /// There are groups to serve and no peer to ship to.
    lonely: AtomicBool,
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
        let (groups, doors) = (RaftGroups::default(), Doors::default());
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
            budget: Budget::new(usize::try_from(config.memory).unwrap_or(usize::MAX)),
            endpoint,
            config,
            peers: Mutex::default(),
            tenures: Mutex::default(),
            lonely: AtomicBool::new(false),
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

async fn bind_http(addr: &str, shared: &Arc<Shared>) -> Result<Http, StartError> {
    let failed = |source| StartError::Listen { key: "listen.http", addr: addr.to_owned(), source };
    let of_health = Arc::downgrade(shared);
    let health = move || match of_health.upgrade() {
        Some(shared) => shared.health(),
        None => Health::new(false, serde_json::json!({ "detail": "stopping" })),
    };
    let of_links = Arc::downgrade(shared);
    let links = move || {
        let links = of_links.upgrade().map(|shared| shared.links()).unwrap_or_default();
        async move { axum::Json(links) }
    };
    let extra = axum::Router::new().route("/api/v1/links", axum::routing::get(links));
    Http::bind(addr, health, extra).await.map_err(failed)
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
        let (leaders, map) = (self.leaders.clone(), self.map.clone());
        tokio::spawn(inbound::run(stream, leaders, map, self.budget.clone()));
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
        let lonely = self.lonely.swap(false, Ordering::SeqCst);
        let had_some = !peers.is_empty() || lonely;
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
        self.lonely.store(lonely && !changed, Ordering::SeqCst);
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
            let (name, links) = (self.info.name.clone(), Some(self.links()));
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
        // Tenures know their peers from their beginning, so these must be there first.
        self.update_peers(&map);
        let peers = self.peers();
        if peers.is_empty() {
            // Nobody to ship to: when somebody appears, all begins anew.
            self.lonely.store(!wanted.is_empty(), Ordering::SeqCst);
            return true;
        }
        let mut tenures = self.tenures.lock();
        tenures.retain(|_, kept| {
            let stays = wanted.contains(&kept.assignment);
            if !stays {
                kept.task.abort();
            }
            stays
        });
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
            tracing::warn!(%group, %reason, "tenure ended, needs a new one");
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
