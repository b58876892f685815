//! PD's decisions, pure: a request and the time in, the next state and an answer out. No IO, no
//! clock, no tasks; the driver is `crate::driver`.
//!
//! Invariants:
//! * [`State::step`] changes nothing: it gives the next state. The driver makes it the present one
//!   only when its [`Step::changes`] are in the store, so nobody is told what could be forgotten.
//! * The epoch rises with every change of the map but liveness and leader hints, the revision with
//!   every change at all; both also over restarts and changes of the leading PD.
//! * No number of a namespace, group, replica or learner is given out twice.
//!
//! Elsewhere: what is stored (`durable`), who is there (`members`), what data exists
//! (`namespaces`), which syncer holds which group (`tenures`), what the cluster is linked with
//! (`links`), what is wrong (`problems`).

pub mod durable;

mod live;

mod members;

mod namespaces;

mod tenures;

mod together;

mod links;

mod problems;

#[cfg(test)]
mod tests;

use durable::{Change, Durable, FORMAT, LoadError, Meta, Records};
use flotilla_topology::api::{
    Assignment, BacklogBudget, ClusterMap, ClusterStatus, GroupInfo, LearnerInfo, LinkStatus,
    NamespaceInfo, PdRequest, PdResponse, PeerCluster, ReplicaStatus,
};
use flotilla_topology::ids::{ClusterId, Epoch, Incarnation};
use live::Live;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub(crate) use namespaces::PARTITIONS_MAX;

/// A life of the store has this many revisions: at one per microsecond, more than an hour; at the
/// few per second that a cluster makes, some decades. Lives times this stay exact in a double
/// (JavaScript) up to two million restarts.
const REVISIONS_PER_LIFE: u64 = 1 << 32;

/// Nodes that a cluster may have.
pub const NODES_MAX: usize = 256;

/// Syncers that a cluster may have.
pub const SYNCERS_MAX: usize = 64;

/// When and how the namespace `default` is created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bootstrap {
    /// Nodes that must have registered.
    pub nodes: usize,
    /// How many groups it gets.
    pub partitions: u32,
    /// Replicas of each.
    pub replicas: u8,
}

/// What is configured, not decided.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Whose PD this is.
    pub cluster: ClusterId,
    /// Its name.
    pub name: String,
    /// Its present life.
    pub incarnation: Incarnation,
    /// Datacenters of this cluster by the topology file; empty: any name goes.
    pub datacenters: Vec<String>,
    /// Clusters on the other end of links by the topology file.
    pub peers: Vec<PeerCluster>,
    /// The namespace `default`.
    pub bootstrap: Bootstrap,
    /// Bytes of log that a group keeps for a peer that lags; beyond, that peer needs a merge.
    pub backlog_budget_bytes: u64,
    /// How old a backlog may get, in seconds.
    pub backlog_budget_seconds: u64,
    /// A peer that is away beyond its backlog budget for so many seconds may be fenced.
    pub fence_after_seconds: Option<u64>,
}

impl Settings {
    /// What nodes keep for peers that lag.
    fn backlog(&self) -> BacklogBudget {
        let (bytes, age_seconds) = (self.backlog_budget_bytes, self.backlog_budget_seconds);
        BacklogBudget { bytes, age_seconds }
    }
}

/// What the state is told.
#[derive(Debug, Clone)]
pub enum Input {
    /// Somebody asks. Watches are not asked here but answered from published views.
    Request(PdRequest),
    /// Time passed.
    Tick,
}

/// What came of an input.
#[derive(Debug, Clone)]
pub struct Step {
    /// The state from now on, once `changes` are stored.
    pub state: State,
    /// To be stored in one transaction; empty when nothing durable changed.
    pub changes: Vec<Change>,
    /// To be sent afterwards; `None` for a tick.
    pub answer: Option<PdResponse>,
}

/// The assignments of one syncer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Assigned {
    /// Rises with every change.
    pub version: u64,
    /// What it shall serve.
    pub groups: Vec<Assignment>,
}

/// All that PD knows.
#[derive(Debug, Clone)]
pub struct State {
    settings: Arc<Settings>,
    durable: Arc<Durable>,
    live: Live,
    /// Rises with every change of the map or of an assignment.
    revision: u64,
    map: Arc<ClusterMap>,
    assigned: Arc<BTreeMap<String, Assigned>>,
}

/// How a request ended, before the map is made.
enum Done {
    Plain,
    Registered,
    Namespace(NamespaceInfo),
    Plan { lines: Vec<String>, done: bool },
    Status,
}

/// A request was refused with this line.
#[derive(Debug, PartialEq, Eq)]
struct Refusal(String);

/// Shorthand for `Err(Refusal(format!(..)))`.
macro_rules! refuse {
    ($($arg:tt)*) => { return Err($crate::state::Refusal(format!($($arg)*))) };
}
use refuse;

impl State {
    /// Takes up a store: checks that it is ours and begins a new life of it. The changes must be
    /// stored before anything is answered.
    pub fn load(
        settings: Settings,
        records: &Records,
        now_ms: u64,
    ) -> Result<(State, Vec<Change>), LoadError> {
        let stored = Durable::load(records)?;
        let mut durable = stored.clone();
        if !records.is_empty() {
            check_owner(&stored.meta, &settings)?;
        }
        durable.meta = Meta {
            format: FORMAT,
            cluster: settings.cluster,
            name: settings.name.clone(),
            incarnation: settings.incarnation,
        };
        durable.peers = links::merged(&stored.peers, &settings.peers, records.is_empty())?;
        durable.counters.mesh = links::mesh_version(&stored, &durable);
        durable.counters.life += 1;
        let same_peers = stored.present_peers().eq(durable.present_peers());
        let same_mesh = stored.counters.mesh == durable.counters.mesh;
        if stored.meta != durable.meta || !same_peers || !same_mesh {
            durable.counters.epoch.0 += 1;
        }
        let revision = durable.counters.life * REVISIONS_PER_LIFE;
        let changes = stored.changes(&durable);
        let live = Live::after_load(&durable, now_ms);
        let map = Arc::new(build_map(&settings, &durable, &live, revision));
        let mut state = State {
            settings: Arc::new(settings),
            durable: Arc::new(durable),
            live,
            revision,
            map,
            assigned: Arc::default(),
        };
        state.assigned = Arc::new(state.assignments(revision));
        Ok((state, changes))
    }

    /// The map as of now.
    pub fn map(&self) -> &Arc<ClusterMap> {
        &self.map
    }

    /// The assignments of all syncers, by name.
    pub fn assigned(&self) -> &Arc<BTreeMap<String, Assigned>> {
        &self.assigned
    }

    /// Decides. See [`Step`].
    pub fn step(&self, now_ms: u64, input: Input) -> Step {
        let mut next = self.clone();
        next.live.now_ms = next.live.now_ms.max(now_ms);
        let outcome = match input {
            Input::Tick => Ok(None),
            Input::Request(request) => next.request(request).map(Some),
        };
        if outcome.is_err() {
            // A refusal leaves no trace, whatever the handler did before it found the reason.
            let now_ms = next.live.now_ms;
            next = self.clone();
            next.live.now_ms = now_ms;
        }
        next.upkeep();
        let changes = next.publish(self);
        let answer = match outcome {
            Ok(done) => done.map(|done| next.answer(done)),
            Err(Refusal(reason)) => Some(PdResponse::Refused { reason }),
        };
        Step { state: next, changes, answer }
    }

    /// How many groups nobody leads, and how many problems there are.
    pub fn troubles(&self) -> (usize, usize) {
        let led = self.led();
        let leaderless = self.durable.groups.keys().filter(|group| !led.contains(group)).count();
        (leaderless, self.problems().len())
    }

    /// Everything at once.
    pub fn status(&self) -> ClusterStatus {
        ClusterStatus {
            map: (*self.map).clone(),
            replicas: self.replicas(),
            links: self.links(),
            problems: self.problems(),
        }
    }

    /// Last heartbeat of every replica that the map knows.
    fn replicas(&self) -> Vec<ReplicaStatus> {
        let mut all: Vec<_> =
            self.live.nodes.values().flat_map(|node| node.replicas.iter().cloned()).collect();
        all.sort_by_key(|replica| (replica.group, replica.replica));
        all
    }

    /// Last heartbeat of every link to a peer, from the syncer that holds the group now.
    fn links(&self) -> Vec<LinkStatus> {
        let budget = self.settings.backlog_budget_bytes;
        let peers: BTreeSet<ClusterId> = self.durable.present_peers().map(|peer| peer.id).collect();
        let mut all = Vec::new();
        for (name, syncer) in &self.live.syncers {
            let holds = |link: &LinkStatus| {
                let group = self.durable.groups.get(&link.group);
                group.and_then(|g| self.tenure(g)).is_some_and(|t| t.syncer == *name)
            };
            for (link, growth) in syncer.links.iter() {
                if peers.contains(&link.peer) && holds(link) {
                    let mut link = syncer.as_seen_now(link, name, self.live.now_ms);
                    link.runway_seconds = growth.runway_seconds(budget);
                    all.push(link);
                }
            }
        }
        all.sort_by_key(|link| (link.group, link.peer));
        all
    }

    fn request(&mut self, request: PdRequest) -> Result<Done, Refusal> {
        match request {
            PdRequest::RegisterNode { node, directory, seen_epoch } => {
                self.register_node(node, directory, seen_epoch)
            }
            PdRequest::RegisterSyncer { syncer } => self.register_syncer(syncer),
            PdRequest::NodeHeartbeat { name, replicas } => self.node_heartbeat(&name, replicas),
            PdRequest::SyncerHeartbeat { name, links, views } => {
                self.syncer_heartbeat(&name, links, views)
            }
            PdRequest::LearnerReady { name, group, learner } => {
                self.learner_ready(&name, group, learner)
            }
            PdRequest::RenewTenure { name, group, learner } => {
                self.renew_tenure(&name, group, learner)
            }
            PdRequest::PeerLive { peer } => self.peer_live(peer),
            PdRequest::Link { peer, op, dry_run } => self.link(&peer, op, dry_run),
            PdRequest::CreateNamespace { spec } => self.create_namespace(spec).map(Done::Namespace),
            PdRequest::SyncNamespace { name, dry_run } => self.sync_namespace(&name, dry_run),
            PdRequest::DropNamespace { name } => self.drop_namespace(&name),
            PdRequest::RemoveNode { name } => self.remove_node(&name),
            PdRequest::RemoveSyncer { name } => self.remove_syncer(&name),
            PdRequest::Status => Ok(Done::Status),
            PdRequest::WatchMap { .. } | PdRequest::WatchAssignments { .. } => {
                unreachable!("watches are answered from the published view")
            }
        }
    }

    /// What is due by itself: silence noticed, groups given to live syncers, the first namespace.
    fn upkeep(&mut self) {
        self.live.notice_silence();
        self.bootstrap();
        self.tend_tenures();
        self.notice_returned();
        self.notice_overdue();
        self.fence_together();
    }

    /// Brings map, epoch, revision and assignments up to date with what changed since `old`.
    fn publish(&mut self, old: &State) -> Vec<Change> {
        let durable_changed = self.durable != old.durable;
        if !durable_changed && self.live.shown == old.live.shown {
            return Vec::new();
        }
        self.revision = old.revision + 1;
        let mesh = links::mesh_version(&old.durable, &self.durable);
        if mesh != self.durable.counters.mesh {
            self.durable_mut().counters.mesh = mesh;
        }
        assert!(
            self.revision / REVISIONS_PER_LIFE == self.durable.counters.life,
            "revisions must not run into those of the next life"
        );
        let mut map = build_map(&self.settings, &self.durable, &self.live, old.map.revision);
        if skeleton(&map) != skeleton(&old.map) {
            self.durable_mut().counters.epoch.0 += 1;
            map.epoch = self.durable.counters.epoch;
        }
        if map != *old.map {
            map.revision = self.revision;
            self.map = Arc::new(map);
        }
        let assigned = self.assignments(self.revision);
        if assigned != *self.assigned {
            self.assigned = Arc::new(assigned);
        }
        old.durable.changes(&self.durable)
    }

    fn answer(&self, done: Done) -> PdResponse {
        match done {
            Done::Plain => PdResponse::Done,
            Done::Registered => PdResponse::Registered { map: Box::new((*self.map).clone()) },
            Done::Namespace(namespace) => PdResponse::Namespace { namespace },
            Done::Plan { lines, done } => PdResponse::LinkPlan { lines, done },
            Done::Status => PdResponse::Status { status: Box::new(self.status()) },
        }
    }

    fn durable_mut(&mut self) -> &mut Durable {
        Arc::make_mut(&mut self.durable)
    }
}

fn check_owner(stored: &Meta, settings: &Settings) -> Result<(), LoadError> {
    if stored.cluster != settings.cluster {
        return Err(LoadError::OtherCluster {
            found: stored.cluster,
            found_name: stored.name.clone(),
            configured: settings.cluster,
        });
    }
    if stored.incarnation > settings.incarnation {
        return Err(LoadError::OldIncarnation {
            found: stored.incarnation,
            configured: settings.incarnation,
        });
    }
    Ok(())
}

/// The map without what the epoch does not count.
fn skeleton(map: &ClusterMap) -> ClusterMap {
    let mut bare = ClusterMap { epoch: Epoch(0), revision: 0, ..map.clone() };
    bare.nodes.iter_mut().for_each(|node| node.alive = false);
    bare.syncers.iter_mut().for_each(|syncer| syncer.alive = false);
    bare.groups.iter_mut().for_each(|group| group.leader = None);
    bare.peers.iter_mut().for_each(|peer| peer.overdue = false);
    bare
}

fn build_map(settings: &Settings, durable: &Durable, live: &Live, revision: u64) -> ClusterMap {
    let mut nodes: Vec<_> = durable.nodes.values().map(|record| record.info.clone()).collect();
    nodes.iter_mut().for_each(|node| node.alive = live.shown.nodes.contains(&node.name));
    let mut syncers: Vec<_> = durable.syncers.values().map(|record| record.info.clone()).collect();
    syncers.iter_mut().for_each(|syncer| syncer.alive = live.shown.syncers.contains(&syncer.name));
    let groups = durable.groups.values().map(|group| GroupInfo {
        id: group.id,
        namespace: group.namespace,
        slots: group.slots,
        birth: group.birth.clone(),
        replicas: group.replicas.clone(),
        learners: tenures::valid(durable, group)
            .filter(|tenure| tenure.ready)
            .map(|tenure| LearnerInfo { id: tenure.learner, syncer: tenure.syncer.clone() })
            .into_iter()
            .collect(),
        preferred_leader: group.preferred_leader.clone(),
        leader: live.shown.leaders.get(&group.id).cloned(),
    });
    ClusterMap {
        cluster: durable.meta.cluster,
        name: durable.meta.name.clone(),
        incarnation: durable.meta.incarnation,
        epoch: durable.counters.epoch,
        revision,
        nodes,
        syncers,
        namespaces: durable.namespaces.values().map(|record| record.info.clone()).collect(),
        groups: groups.collect(),
        peers: durable.present_peers().map(|peer| live.with_overdue(peer)).collect(),
        mesh_version: durable.counters.mesh,
        backlog: settings.backlog(),
    }
}
