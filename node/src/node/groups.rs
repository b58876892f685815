//! Makes what the map says of this node's groups so: starts those that it gives us, gives newborn
//! groups their first members, lets leaders add and remove learners and hand leadership to whom the
//! map prefers, and drops groups that are gone.
//!
//! Everything is done again and again from the newest map, so any step may fail and repeat.

use crate::config::Config;
use crate::engine::rocks::Engine;
use crate::group::exec::encode_barriers_request;
use crate::group::handover::decode_applied;
use crate::group::{Group, GroupContext, Machine};
use crate::http::Health;
use crate::log::LogStore;
use crate::node::StartError;
use crate::pd_client::{PdClient, PdError};
use crate::raft::{ChangeError, Member, Membership, RaftGroup, RaftGroups, Settings, Start};
use crate::router::Places;
use crate::transport::{Class, kinds};
use flotilla_topology::api::{
    ClusterMap, GroupInfo, NodeInfo, PdRequest, PdResponse, ReplicaInfo, ReplicaStatus,
};
use flotilla_topology::ids::{ClusterId, GroupId, Origin, ReplicaId, Role};
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

/// How often the map is compared with what is here, besides when it changes.
const KEEP_INTERVAL: Duration = Duration::from_millis(250);
/// How often PD hears from us.
const HEARTBEAT_INTERVAL: Duration = Duration::from_millis(500);
/// A leadership that the map prefers elsewhere is handed over when it is so old, and at most this often
/// per group.
const TRANSFER_INTERVAL: Duration = Duration::from_secs(3);
/// Stamps of other clusters that run further ahead of our clock are parked.
const MAX_SKEW_MS: u64 = 500;
/// Exit code of a node one of whose groups stopped itself.
const EXIT_GROUP_STOPPED: i32 = 1;
/// Exit code when the cluster begins another life.
const EXIT_OTHER_LIFE: i32 = 1;
/// How long a replica may take to say how far it is, before its group's leadership goes to it.
const APPLIED_DEADLINE: Duration = Duration::from_millis(500);
/// How long a stopping node tries to hand its leaderships over.
const HAND_OVER_MAX: Duration = Duration::from_secs(2);

/// Carries this node's groups.
pub struct GroupKeeper {
    /// The address book, with the map.
    pub places: Arc<Places>,
    /// Where rows are.
    pub engine: Arc<Engine>,
    /// Where logs are.
    pub logs: Arc<LogStore>,
    raft: RaftGroups,
    raft_runtime: Handle,
    settings: Settings,
    transfers: parking_lot::Mutex<BTreeMap<GroupId, Instant>>,
    /// The node stops in good order: groups that stop now were told to.
    stopping: AtomicBool,
}

impl GroupKeeper {
    /// Carries nothing yet.
    pub fn new(
        config: &Config,
        places: Arc<Places>,
        raft: RaftGroups,
        engine: Arc<Engine>,
        logs: Arc<LogStore>,
        raft_runtime: Handle,
    ) -> Arc<GroupKeeper> {
        let settings = Settings {
            park_after_ms: config.raft.park_after_ms,
            snapshot_bytes_per_s: config.raft.snapshot_bytes_per_second,
            ..Settings::for_rtt(config.raft.rtt_ms)
        };
        Arc::new(GroupKeeper {
            places,
            engine,
            logs,
            raft,
            raft_runtime,
            settings,
            transfers: Default::default(),
            stopping: AtomicBool::new(false),
        })
    }

    /// Compares the map with what is here until `stop`.
    pub async fn keep(self: Arc<Self>, stop: CancellationToken) {
        let mut tick = tokio::time::interval(KEEP_INTERVAL);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = tick.tick() => {}
            }
            if let Some(map) = self.places.map() {
                self.reconcile(&map).await;
            }
        }
    }

    async fn reconcile(&self, map: &ClusterMap) {
        self.mind_life(map);
        for info in &map.groups {
            let mine = info.replicas.iter().find(|replica| replica.node == self.places.node);
            match (mine, self.places.group(info.id)) {
                (Some(replica), None) => {
                    if let Err(error) = self.start_group(map, info, replica).await {
                        tracing::error!(group = %info.id, %error, "cannot start the group");
                    }
                }
                (Some(_), Some(group)) if group.is_stopped() => self.give_up(&group),
                (Some(_), Some(group)) if group.leads() => self.lead(map, info, &group).await,
                // Who leads next waits anew before it hands over: the node that the map prefers may be
                // the one that has just handed over to it, since it is about to stop.
                _ => {
                    self.transfers.lock().remove(&info.id);
                }
            }
        }
        let wanted: HashSet<GroupId> = map.groups.iter().map(|info| info.id).collect();
        for group in self.places.groups() {
            if !wanted.contains(&group.context.group) {
                self.drop_group(&group).await;
            }
        }
    }

    async fn start_group(
        &self,
        map: &ClusterMap,
        info: &GroupInfo,
        replica: &ReplicaInfo,
    ) -> anyhow::Result<()> {
        let born_synced = map
            .namespaces
            .iter()
            .find(|namespace| namespace.id == info.namespace)
            .is_some_and(|namespace| namespace.born_synced());
        let origin = Origin { cluster: map.cluster, incarnation: map.incarnation };
        let (machine, applied) = Machine::open(&self.engine, info.id, replica.id, origin)?;
        let start = Start {
            group: info.id,
            me: replica.id,
            settings: self.settings.clone(),
            network: self.places.clone(),
            runtime: self.raft_runtime.clone(),
        };
        let log = self.logs.group(info.id)?;
        let (raft, completions) = RaftGroup::start(start, log, Box::new(machine)).await?;
        self.raft.insert(raft.clone());
        let context = Arc::new(GroupContext {
            group: info.id,
            slots: info.slots,
            born_synced,
            origin,
            max_skew_ms: MAX_SKEW_MS,
        });
        let (engine, clocks) = (self.engine.clone(), self.places.clone());
        let group = Group::start(context, engine, replica.id, raft, applied, completions, clocks);
        if group.is_unborn() && info.birth.iter().any(|born| born.id == replica.id) {
            group.raft.initialize(&birth(info)).await?;
        }
        self.places.add_group(group);
        tracing::info!(group = %info.id, replica = %replica.id, slots = %info.slots, "group started");
        Ok(())
    }

    /// Groups carry the life of their cluster in everything they write, so a new life begins with new
    /// processes; a supervisor starts them again.
    fn mind_life(&self, map: &ClusterMap) {
        let former = |group: &Arc<Group>| group.context.origin.incarnation < map.incarnation;
        if self.places.groups().iter().any(former) && !self.stopping.load(Ordering::SeqCst) {
            let life = map.incarnation;
            tracing::error!(%life, "the cluster begins another life: the node ends, start it again");
            std::process::exit(EXIT_OTHER_LIFE);
        }
    }

    /// A group stops itself when it cannot write its log or apply an entry. Going on without it would
    /// hide that; a supervisor that starts the process again makes it try again.
    fn give_up(&self, group: &Group) {
        if !self.stopping.load(Ordering::SeqCst) {
            let id = group.context.group;
            tracing::error!(group = %id, "the group has stopped itself (see above): the node ends");
            std::process::exit(EXIT_GROUP_STOPPED);
        }
    }

    async fn lead(&self, map: &ClusterMap, info: &GroupInfo, group: &Group) {
        let learners: BTreeMap<ReplicaId, Member> = info
            .learners
            .iter()
            .map(|learner| (learner.id, Member::syncer(learner.syncer.clone())))
            .collect();
        if let Err(error) = group.raft.set_learners(&learners).await {
            tracing::debug!(group = %info.id, %error, "learners not changed yet");
        }
        if info.preferred_leader == self.places.node {
            return;
        }
        let preferred = info.replicas.iter().find(|replica| replica.node == info.preferred_leader);
        let alive = map.nodes.iter().any(|node| node.name == info.preferred_leader && node.alive);
        let Some(preferred) = preferred.filter(|_| alive) else { return };
        {
            let mut transfers = self.transfers.lock();
            let last = transfers.entry(info.id).or_insert_with(Instant::now);
            // A group that was handed over and is still here takes no writes: said again at once.
            let stuck = group.raft.has_handed_over(group.term());
            if last.elapsed() < TRANSFER_INTERVAL && !stuck {
                return;
            }
            *last = Instant::now();
        }
        if let Err(error) = self.hand_over_to(group, preferred.id, &preferred.node).await {
            tracing::debug!(group = %info.id, %error, "leadership not handed over yet");
        }
    }

    /// Hands a group's leadership to the replica `to` on `node`, once that says how far it is.
    async fn hand_over_to(
        &self,
        group: &Group,
        to: ReplicaId,
        node: &str,
    ) -> Result<(), ChangeError> {
        let silent = || ChangeError::Refused(format!("node {node} does not say how far it is"));
        let client = self.places.client(Role::Node, node).ok_or_else(silent)?;
        let payload = encode_barriers_request(&[group.context.group]);
        let asked = client.call(Class::Forward, kinds::APPLIED, payload, APPLIED_DEADLINE);
        let answer = asked.await.map_err(|_| silent())?;
        let applied = decode_applied(&answer).ok().and_then(|applied| applied.first().copied());
        group.hand_over(to, applied.ok_or_else(silent)?).await
    }

    async fn drop_group(&self, group: &Group) {
        let id = group.context.group;
        tracing::info!(group = %id, "the group is gone from the map: dropping its data");
        self.places.remove_group(id);
        self.raft.remove(id);
        group.raft.shutdown().await;
        let tablet = group.applied().tablet;
        let engine = self.engine.clone();
        let dropped = tokio::task::spawn_blocking(move || engine.drop_group(id, tablet)).await;
        if let Err(error) = self.logs.drop_group(id).await {
            tracing::error!(group = %id, %error, "the log of a dropped group stays");
        }
        if let Ok(Err(error)) = dropped {
            tracing::error!(group = %id, %error, "rows of a dropped group stay");
        }
    }

    /// What PD hears of the groups here.
    pub fn statuses(&self) -> Vec<ReplicaStatus> {
        let groups = self.places.groups();
        let status = |group: &Arc<Group>| {
            let leads = group.leads();
            let outrun = if leads { self.outrun(group) } else { Vec::new() };
            ReplicaStatus {
                outrun,
                group: group.context.group,
                replica: group.replica,
                term: group.term(),
                leads,
                applied: group.applied().log_id,
            }
        };
        groups.iter().map(status).collect()
    }

    /// Peers that count, and lack more than the log has.
    fn outrun(&self, group: &Group) -> Vec<ClusterId> {
        let Some(map) = self.places.map().filter(|_| group.synced().is_on()) else {
            return Vec::new();
        };
        let positions = group
            .acknowledged(map.peers.iter().filter(|peer| peer.counts()))
            .unwrap_or_else(|error| {
                tracing::error!(group = %group.context.group, %error, "cannot read link floors");
                Vec::new()
            });
        let start = group.raft.purged().index;
        positions.into_iter().filter(|(_, at)| *at < start).map(|(peer, _)| peer).collect()
    }

    /// Healthy: a map is here and no group has stopped itself.
    pub fn health(&self) -> Health {
        let groups = self.places.groups();
        let stopped: Vec<GroupId> =
            groups.iter().filter(|group| group.is_stopped()).map(|g| g.context.group).collect();
        let leaderless = groups.iter().filter(|group| group.leader().is_none()).count();
        let map = self.places.map();
        let ok = map.is_some() && stopped.is_empty();
        let details = serde_json::json!({
            "node": self.places.node,
            "epoch": map.map(|map| map.epoch),
            "groups": groups.len(),
            "groups_led": groups.iter().filter(|group| group.leads()).count(),
            "groups_without_leader": leaderless,
            "groups_stopped": stopped,
        });
        Health::new(ok, details)
    }

    /// Hands every leadership over, as far as that goes in time.
    pub async fn hand_over(&self) {
        let deadline = Instant::now() + HAND_OVER_MAX;
        while Instant::now() < deadline {
            let led: Vec<_> = self.places.groups().into_iter().filter(|g| g.leads()).collect();
            let hand_over = |group: &Arc<Group>| {
                let (group, status) = (group.clone(), group.raft.status());
                let others = status
                    .replication
                    .iter()
                    .filter(|(id, _)| **id != group.replica && status.membership.is_voter(**id));
                let to = *others.max_by_key(|(_, at)| at.index)?.0;
                let node = status.membership.members.get(&to)?.name.clone();
                Some(async move { self.hand_over_to(&group, to, &node).await })
            };
            let all: Vec<_> = led.iter().filter_map(hand_over).collect();
            if all.is_empty() {
                return;
            }
            // Who is behind is asked again.
            let _ = futures::future::join_all(all).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Stops all groups and makes what they applied durable.
    pub async fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        for group in self.places.groups() {
            // First, or who goes on sending to it would be told so by an error in the log for each message.
            self.raft.remove(group.context.group);
            group.raft.shutdown().await;
        }
        let engine = self.engine.clone();
        if let Ok(Err(error)) = tokio::task::spawn_blocking(move || engine.flush()).await {
            tracing::error!(%error, "flush at the end failed: the log is applied again");
        }
    }
}

fn birth(info: &GroupInfo) -> Membership {
    let members = info.birth.iter().map(|r| (r.id, Member::node(r.node.clone()))).collect();
    Membership::of_voters(members)
}

/// Registers at PD and follows its map until `stop`. Returns once PD has answered, or at once with
/// the last map if PD is not reachable and this node has been here before.
pub async fn join(
    keeper: Arc<GroupKeeper>,
    pd: PdClient,
    info: NodeInfo,
    directory: u64,
    stop: CancellationToken,
) -> Result<(), StartError> {
    let mut maps = pd.watch_map();
    let cached = maps.borrow().clone();
    let seen_epoch = cached.as_ref().map(|map| map.epoch).unwrap_or_default();
    if let Some(map) = cached {
        keeper.places.set_map(map);
    }
    let request = PdRequest::RegisterNode { node: info, directory, seen_epoch };
    match pd.call(request.clone()).await {
        Err(PdError::Refused(reason)) => return Err(StartError::Refused(reason)),
        Ok(PdResponse::Registered { map }) => keeper.places.set_map(Arc::new(*map)),
        Ok(other) => return Err(StartError::Refused(format!("unexpected answer {other:?}"))),
        Err(error) => {
            tracing::warn!(%error, "PD is not reachable: going on with the last map");
        }
    }
    let follower = keeper.clone();
    let stopped = stop.clone();
    tokio::spawn(async move {
        loop {
            tokio::select! {
                () = stopped.cancelled() => return,
                changed = maps.changed() => if changed.is_err() { return },
            }
            if let Some(map) = maps.borrow_and_update().clone() {
                follower.places.set_map(map);
            }
        }
    });
    tokio::spawn(keeper.clone().keep(stop.clone()));
    tokio::spawn(heartbeat(keeper, pd, request, stop));
    Ok(())
}

/// Tells PD what is here; registers again when PD has forgotten this node.
async fn heartbeat(
    keeper: Arc<GroupKeeper>,
    pd: PdClient,
    register: PdRequest,
    stop: CancellationToken,
) {
    let mut tick = tokio::time::interval(HEARTBEAT_INTERVAL);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut registered = false;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = tick.tick() => {}
        }
        let request = if registered {
            let name = keeper.places.node.clone();
            PdRequest::NodeHeartbeat { name, replicas: keeper.statuses() }
        } else {
            register.clone()
        };
        match pd.call(request).await {
            Err(PdError::Refused(reason)) => {
                tracing::warn!(reason, "PD refuses this node's heartbeat: registering again");
                registered = false;
            }
            Ok(_) => registered = true,
            Err(error) => tracing::debug!(%error, "PD did not hear the heartbeat"),
        }
    }
}
