//! The syncer process: registers with PD, keeps links to the peers, runs a tenure for every group
//! that PD gives it, and takes what other clusters send.
//!
//! It keeps nothing but the last map, for a start without PD. PD decides who ships what; that two
//! syncers ship the same for a while is harmless.

mod host;

use crate::audit::Audits;
use crate::config::Config;
use crate::inbound::Budget;
use crate::leaders::{Leaders, MapWatch};
use crate::link::accept::{self, Host};
use crate::link::dial::Dialer;
use crate::peers::{PeerSet, Peers};
use crate::ports::{Doors, RpcDoor, StartError, bind_link, bind_rpc, check_identity, with_port};
use crate::tenure::{self, Context, Peer, Task, Windows};
use flotilla_node::http::{Health, Http};
use flotilla_node::pd_client::{PdClient, PdError};
use flotilla_node::raft::RaftGroups;
use flotilla_node::tls::Tls;
use flotilla_node::transport::Server;
use flotilla_topology::api::{
    Assignment, ClusterMap, LinkStatus, PdRequest, PdResponse, SyncerInfo,
};
use flotilla_topology::ids::{GroupId, Identity, Origin, Role};
use parking_lot::Mutex;
use quinn::Endpoint;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{MissedTickBehavior, interval, sleep};

/// How often PD hears of us: it gives our groups to another syncer after one second of silence.
const HEARTBEAT: Duration = Duration::from_millis(250);
/// Every so many heartbeats tell of the links too.
const BEATS_PER_TELL: u32 = 4;
/// Exit code when the cluster begins another life.
const EXIT_OTHER_LIFE: i32 = 1;
/// Wait before PD is asked again after it failed.
const PD_PAUSE: Duration = Duration::from_secs(1);
/// A group gets a new tenure at most this often: each changes the group's membership twice.
const RENEW_PAUSE: Duration = Duration::from_secs(2);
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
    audits: Audits,
    endpoint: Endpoint,
    config: Config,
    peers: Arc<Peers>,
    tenures: Mutex<BTreeMap<GroupId, KeptTenure>>,
    raft: tokio::runtime::Handle,
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
            audits: Audits::new(config.audit_every),
            endpoint,
            config,
            peers: Arc::default(),
            tenures: Mutex::default(),
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

impl Shared {
    /// Of all peers; a tenure that outlives a peer still has its window.
    fn links(&self) -> Vec<LinkStatus> {
        let all: Vec<LinkStatus> =
            self.tenures.lock().values().flat_map(|kept| tenure::statuses(&kept.windows)).collect();
        all.into_iter().filter(|link| self.peers.has(link.peer)).collect()
    }

    fn health(&self) -> Health {
        let known = self.map.borrow().is_some();
        let links = self.links();
        let live = links.iter().filter(|link| link.state.moves());
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
        self.peers.end_all();
    }

    /// Keeps a dialer for each peer of the map.
    async fn follow_map(self: Arc<Self>) {
        let mut map = self.map.clone();
        let mut life = None;
        loop {
            let now = map.borrow_and_update().clone();
            if let Some(now) = &now {
                // Tenures ship what was born in one life; a supervisor starts the process again.
                let began = *life.get_or_insert(now.incarnation);
                if began < now.incarnation {
                    let life = now.incarnation;
                    tracing::error!(%life, "the cluster begins another life: the syncer ends, start it again");
                    std::process::exit(EXIT_OTHER_LIFE);
                }
            }
            if let Some(now) = now {
                self.update_peers(&now);
            }
            if map.changed().await.is_err() {
                return;
            }
        }
    }

    fn update_peers(self: &Arc<Self>, map: &ClusterMap) {
        self.peers.update(map, |peer| {
            let (shared, nobody) = (Arc::downgrade(self), self.hello());
            let hello = move || shared.upgrade().map_or(nobody.clone(), |shared| shared.hello());
            let (endpoint, tls) = (self.endpoint.clone(), self.tls.clone());
            Dialer { endpoint, tls, hello: Box::new(hello), peer }
        });
    }

    /// Registers, and follows the assignments until they have to begin anew.
    async fn serve_pd(self: Arc<Self>) {
        loop {
            if let Err(error) = self.register().await {
                tracing::warn!("cannot register with PD: {error}");
                sleep(PD_PAUSE).await;
                continue;
            }
            tokio::select! {
                () = self.heartbeats() => {}
                () = self.assignments() => {}
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
        let mut beats = interval(HEARTBEAT);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut beat = 0u32;
        loop {
            beats.tick().await;
            let links = beat.is_multiple_of(BEATS_PER_TELL).then(|| self.links());
            let views = if links.is_some() { self.views() } else { Vec::new() };
            let name = self.info.name.clone();
            match self.pd.call(PdRequest::SyncerHeartbeat { name, links, views }).await {
                Ok(_) => beat = beat.wrapping_add(1),
                Err(PdError::Refused(reason)) => {
                    tracing::warn!(%reason, "PD refuses our heartbeat: registers anew");
                    return sleep(PD_PAUSE).await;
                }
                // It went on trying for long; the next beat tries again.
                Err(PdError::Unavailable(_)) => {}
            }
        }
    }

    /// Until PD does not know us any more. A tenure that PD has given to another syncer ends as soon
    /// as PD says so.
    async fn assignments(self: &Arc<Self>) {
        let (mut version, mut groups) = (0, Vec::new());
        let mut peer_set = self.peers.set();
        loop {
            let name = self.info.name.clone();
            let answer = tokio::select! {
                answer = self.pd.call(PdRequest::WatchAssignments { name, version }) => answer,
                // Without a peer there were no tenures.
                Ok(()) = peer_set.changed() => {
                    Ok(PdResponse::Assignments { version, groups: groups.clone() })
                }
            };
            match answer {
                Ok(PdResponse::Assignments { version: newer, groups: wanted }) => {
                    // A group that the map does not show yet is looked for again.
                    let complete = self.assign(&wanted);
                    groups = wanted;
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
        let peers = self.peers.all();
        if peers.is_empty() {
            return true; // nobody to ship to: when somebody appears, this is called again
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

    fn keep_tenure(self: &Arc<Self>, map: &ClusterMap, task: Task) -> KeptTenure {
        let context = Context {
            own: Origin { cluster: map.cluster, incarnation: map.incarnation },
            leaders: self.leaders.clone(),
            groups: self.groups.clone(),
            doors: Arc::clone(&self.doors),
            runtime: self.raft.clone(),
            audits: self.audits.clone(),
        };
        let (windows, assignment) = (Windows::default(), task.assignment.clone());
        let (shared, shown) = (Arc::clone(self), Arc::clone(&windows));
        let ready = {
            let (pd, name) = (self.pd.clone(), self.info.name.clone());
            let (group, learner) = (assignment.group, assignment.learner);
            async move || tell_ready(&pd, name, group, learner).await
        };
        let task = tokio::spawn(async move {
            let (began, assignment) = (Instant::now(), task.assignment.clone());
            let known: PeerSet = task.peers.iter().map(|peer| (peer.id, peer.number)).collect();
            let mut peer_set = shared.peers.set();
            let somebody_new = async {
                // It cannot fail: the sender lives as long as we do.
                let _ = peer_set.wait_for(|set| !set.is_subset(&known)).await;
            };
            let reason = tokio::select! {
                reason = tenure::run(context, task, shown, ready) => reason,
                () = somebody_new => "a cluster was added".to_owned(),
            };
            tracing::warn!(group = %assignment.group, %reason, "tenure ended, needs a new one");
            sleep(RENEW_PAUSE.saturating_sub(began.elapsed())).await;
            shared.renew(&assignment).await;
        });
        KeptTenure { assignment, windows, task: task.abort_handle() }
    }
}

impl Shared {
    /// Asks for a new tenure in one group; the assignments bring it.
    async fn renew(&self, ended: &Assignment) {
        let Assignment { group, learner, .. } = *ended;
        loop {
            let name = self.info.name.clone();
            match self.pd.call(PdRequest::RenewTenure { name, group, learner }).await {
                Ok(_) => return,
                Err(PdError::Refused(reason)) => {
                    return tracing::warn!(%group, %reason, "PD gives no new tenure");
                }
                Err(PdError::Unavailable(_)) => sleep(PD_PAUSE).await,
            }
        }
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
