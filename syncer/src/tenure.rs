//! One tenure of this syncer in one group: a learner under a Raft node id that is used once, the
//! shippers of all its links, and what the group is told of their progress.
//!
//! Nothing of it is on disk. A tenure begins where the group itself recorded that every peer had
//! come to (its link floors), so a syncer may be killed at any time and lose nothing: the next one
//! starts there, and receivers skip what they have.

use crate::audit::Audits;
use crate::audit::run::{Audit, run as run_audit};
use crate::gate::{Door, Gate};
use crate::leaders::Leaders;
use crate::learned::Position;
use crate::link::dial::LinkStatus as Connection;
use crate::merge::send;
use crate::outbound::{Merger, Merges, Outbound, Route, Window};
use crate::ports::Doors;
use crate::tap::{Outlets, Tap, seed_position};
use flotilla_node::group::remote::{LinkFloor, Seed, SeedRequest};
use flotilla_node::log::MemoryLog;
use flotilla_node::raft::{RaftGroup, RaftGroups, RaftRole, Settings, Start};
use flotilla_node::transport::{Class, kinds};
use flotilla_topology::api::{Assignment, LinkStatus, PeerCluster, Standing};
use flotilla_topology::ids::{ClusterId, GroupId, Origin};
use flotilla_topology::slot::SlotRange;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

/// How often progress is told to the group, when there is any.
const FLOOR_INTERVAL: Duration = Duration::from_secs(1);
/// How often the learner's log is looked at.
const PURGE_INTERVAL: Duration = Duration::from_millis(200);
/// The learner's log is emptied of what was handed on when it holds so much ...
const PURGE_BYTES: usize = 256 << 10;
/// ... or after so long.
const PURGE_AFTER: Duration = Duration::from_secs(5);
/// One question to a leader.
const ASK_DEADLINE: Duration = Duration::from_secs(2);

/// What all tenures of a process share.
#[derive(Clone)]
pub struct Context {
    /// This cluster, in its present life.
    pub own: Origin,
    /// Speaks to the nodes of this cluster.
    pub leaders: Leaders,
    /// The learners of this process.
    pub groups: RaftGroups,
    /// Their doors.
    pub doors: Doors,
    /// Where Raft runs.
    pub runtime: Handle,
    /// How groups are compared with those of peers.
    pub audits: Audits,
}

/// A cluster to ship to.
#[derive(Clone)]
pub struct Peer {
    /// Its id.
    pub id: ClusterId,
    /// Its name.
    pub name: String,
    /// Tells this peer from one of the same id that was removed before.
    pub number: u64,
    /// The connection to it.
    pub link: watch::Receiver<Connection>,
    /// What PD says of it, as it changes: its standing, whether it is paused, which merge and which
    /// rewind an operator asked for last.
    pub told: watch::Receiver<PeerCluster>,
}

/// What a tenure is for.
#[derive(Clone)]
pub struct Task {
    /// Group and Raft node id.
    pub assignment: Assignment,
    /// Name of the group's namespace.
    pub namespace: String,
    /// The group's slots.
    pub slots: SlotRange,
    /// All peers.
    pub peers: Vec<Peer>,
    /// Bytes that each peer may have unacknowledged.
    pub memory: usize,
}

/// The states of a tenure's links, for heartbeats.
pub type Windows = Arc<Mutex<Vec<Window>>>;

/// The states of all links in these windows.
pub fn statuses(windows: &Windows) -> Vec<LinkStatus> {
    let status = |window: &Window| LinkStatus {
        audit: window.audit.status(),
        ..window.status.lock().clone()
    };
    windows.lock().iter().map(status).collect()
}

/// Runs a tenure until it cannot go on; dropping the future ends it at once. `ready` is called when
/// the learner runs and may be added to the group.
pub async fn run(
    context: Context,
    task: Task,
    windows: Windows,
    ready: impl AsyncFnOnce() -> Result<(), String>,
) -> String {
    let group = task.assignment.group;
    let (base, seed) = match base(&context, &task).await {
        Ok(found) => found,
        Err(reason) => return format!("the group gives no place to begin: {reason}"),
    };
    tracing::info!(%group, learner = %task.assignment.learner, from = %base.id, "tenure begins");
    let (mut links, outlets, mut gates) = (JoinSet::new(), Outlets::default(), Vec::new());
    let mut audits = JoinSet::new();
    let merges = Merges::new(merger(&context));
    for peer in &task.peers {
        // A peer of which nothing is known yet has had no merge.
        let floor = seed.floors.iter().find(|floor| floor.peer == peer.id);
        let merged = floor.and_then(|floor| floor.merged).unwrap_or_default();
        let begin = (base.clone(), merged);
        let ends = (&outlets, &mut gates);
        let window = start_link(&context, &task, peer, begin, &merges, ends, &mut links);
        if let Some(audit) = audit(&context, &task, peer, &window) {
            audits.spawn(audit);
        }
        windows.lock().push(window);
    }
    let log = MemoryLog::seeded(base.id);
    let tap = Tap::new(group, context.own, task.slots, base.clone(), outlets);
    let start = Start {
        group,
        me: task.assignment.learner,
        settings: Settings::default(),
        network: Arc::new(context.leaders.clone()),
        runtime: context.runtime.clone(),
    };
    let raft = match RaftGroup::start(start, log.clone(), Box::new(tap)).await {
        Ok((raft, _completions)) => raft,
        Err(error) => return error.to_string(),
    };
    let _guard = Guard::open(&context, raft.clone(), gates, task.memory);
    if let Err(reason) = ready().await {
        return reason;
    }
    let end = tokio::select! {
        reason = tend(&raft, &log) => reason,
        () = tell_floors(&context, group, &windows) => "no links".into(),
        ended = links.join_next() => match ended {
            Some(Err(error)) => format!("a link failed: {error}"),
            _ => "a peer that was away for long is back".into(),
        },
    };
    raft.shutdown().await;
    end
}

/// Removes a learner from the process when its tenure ends, however it ends.
struct Guard {
    context: Context,
    raft: RaftGroup,
    tender: tokio::task::AbortHandle,
}

impl Guard {
    fn open(context: &Context, raft: RaftGroup, gates: Vec<Gate>, memory: usize) -> Guard {
        let behind = raft.clone();
        let pass = move |(kind, payload, reply)| behind.handle(kind, &payload, reply);
        let door = Arc::new(Door::new(gates, memory, pass));
        context.doors.lock().insert(raft.group(), Arc::clone(&door));
        context.groups.insert(raft.clone());
        let tender = tokio::spawn(async move { door.tend().await }).abort_handle();
        Guard { context: context.clone(), raft, tender }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.tender.abort();
        let (group, me) = (self.raft.group(), self.raft.me());
        // A later tenure may stand there already.
        if self.context.groups.get(group).is_some_and(|raft| raft.me() == me) {
            self.context.groups.remove(group);
            self.context.doors.lock().remove(&group);
        }
        let raft = self.raft.clone();
        self.context.runtime.spawn(async move { raft.shutdown().await });
    }
}

/// Merges full states as this cluster can.
fn merger(context: &Context) -> Merger {
    let leaders = context.leaders.clone();
    Arc::new(move |route, link, after, request, progress| {
        let leaders = leaders.clone();
        Box::pin(send::run(route, link, leaders, after, request, progress))
    })
}

fn route_to(context: &Context, task: &Task, peer: ClusterId) -> Route {
    Route {
        origin: context.own,
        namespace: task.namespace.clone(),
        group: task.assignment.group,
        slots: task.slots,
        peer,
        peer_name: String::new(),
        shed_bytes: None,
    }
}

fn start_link(
    context: &Context,
    task: &Task,
    peer: &Peer,
    begin: (Position, u64),
    merges: &Merges,
    (outlets, gates): (&Outlets, &mut Vec<Gate>),
    links: &mut JoinSet<()>,
) -> Window {
    let shed_bytes = (task.peers.len() > 1).then_some(task.memory / 2);
    let route =
        Route { peer_name: peer.name.clone(), shed_bytes, ..route_to(context, task, peer.id) };
    let gate = gates.first().map_or_else(Gate::default, Gate::beside);
    let news = outlets.add(gate.clone());
    gates.push(gate.clone());
    let (link, told) = (peer.link.clone(), peer.told.clone());
    let (outbound, window) = Outbound::new(route, begin, gate, news, link, told, merges.clone());
    links.spawn(outbound.run());
    window
}

/// Compares the group with a peer's, if that is wanted.
fn audit(
    context: &Context,
    task: &Task,
    peer: &Peer,
    window: &Window,
) -> Option<impl Future<Output = ()> + Send + 'static> {
    if context.audits.every.is_zero() {
        return None;
    }
    Some(run_audit(Audit {
        route: Route { peer_name: peer.name.clone(), ..route_to(context, task, peer.id) },
        peer: peer.clone(),
        leaders: context.leaders.clone(),
        audits: context.audits.clone(),
        status: Arc::clone(&window.status),
        shown: window.audit.clone(),
    }))
}

async fn seed(context: &Context, group: GroupId) -> Result<Seed, String> {
    let request = SeedRequest { group }.encode();
    context.leaders.ask_until_answered(group, kinds::LINK_SEED, request, ASK_DEADLINE).await
}

/// Where a tenure begins. When no peer can be served from the log, at the group's present end: who
/// lacks more merges a full state.
async fn base(context: &Context, task: &Task) -> Result<(Position, Seed), String> {
    let seed = seed(context, task.assignment.group).await?;
    if let Some(lowest) = lowest(&seed, &task.peers) {
        return Ok((lowest, seed));
    }
    let route = route_to(context, task, task.peers.first().map_or(ClusterId(0), |peer| peer.id));
    let (_, _, cut) = send::cut(&context.leaders, &route, seed.start, false).await?;
    let vector = Arc::new(cut.vector);
    let base = Position { id: cut.position, fence: cut.fence, closed: cut.closed, vector };
    Ok((base, seed))
}

/// The lowest floor of those peers that the log still reaches back to, live ones first. Others do
/// not count: who is fenced holds nothing back, and who has less than the log merges a full state;
/// to begin where the log does not reach would cost everybody their links.
fn lowest(seed: &Seed, peers: &[Peer]) -> Option<Position> {
    let served = |standing: Standing| {
        let mut positions = Vec::new();
        for peer in peers.iter().filter(|peer| peer.told.borrow().standing == standing) {
            let floor = seed.floors.iter().find(|floor| floor.peer == peer.id);
            let at = floor.map_or(0, |floor| floor.position.index);
            if at >= seed.start.index {
                positions.push((at, seed_position(floor)));
            }
        }
        positions.into_iter().min_by_key(|(at, _)| *at).map(|(_, position)| position)
    };
    served(Standing::Live).or_else(|| served(Standing::Returning))
}

/// Empties the learner's log of what was handed on; says why the learner stopped.
async fn tend(raft: &RaftGroup, log: &MemoryLog) -> String {
    let mut ticks = interval(PURGE_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last = Instant::now();
    loop {
        ticks.tick().await;
        if raft.status().role == RaftRole::Stopped {
            return "the learner has stopped, see its error above".into();
        }
        if log.bytes() < PURGE_BYTES && last.elapsed() < PURGE_AFTER {
            continue;
        }
        last = Instant::now();
        if let Err(stopped) = raft.purge(raft.applied().index).await {
            return stopped.to_string();
        }
    }
}

/// Writes what peers have acknowledged into the group, so that its log may be purged and the next
/// tenure starts there.
async fn tell_floors(context: &Context, group: GroupId, windows: &Windows) {
    let mut ticks = interval(FLOOR_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told: BTreeMap<ClusterId, u64> = BTreeMap::new();
    loop {
        ticks.tick().await;
        let floors: Vec<(ClusterId, Option<Position>)> = windows
            .lock()
            .iter()
            .map(|window| (window.status.lock().peer, window.floor.borrow().clone()))
            .collect();
        for (peer, position) in floors {
            let Some(position) = position else { continue };
            if told.get(&peer).is_some_and(|index| *index >= position.id.index) {
                continue;
            }
            let index = position.id.index;
            let floor = LinkFloor {
                group,
                peer,
                position: position.id,
                fence: position.fence,
                closed: position.closed,
                vector: position.vector.to_vec(),
                merged: None,
            };
            let (leaders, payload) = (&context.leaders, floor.encode());
            let told_it = leaders
                .ask::<()>(group, Class::Control, kinds::LINK_FLOOR, payload, ASK_DEADLINE)
                .await;
            match told_it {
                Ok(()) => drop(told.insert(peer, index)),
                // The next round tells a newer one.
                Err(error) => tracing::debug!(%group, %peer, ?error, "floor not recorded"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flotilla_node::group::entry::Fence;
    use flotilla_topology::ids::LogId;
    use flotilla_topology::stamp::Stamp;

    fn floor(peer: u8, index: u64) -> LinkFloor {
        LinkFloor {
            group: GroupId(1),
            peer: ClusterId(peer),
            position: LogId { term: 1, index },
            fence: Fence { term: 1, next_seq: index },
            closed: Stamp::ZERO,
            vector: vec![],
            merged: None,
        }
    }

    #[test]
    fn a_tenure_begins_where_the_slowest_peer_is() {
        let peer = |id: u8| {
            let (_, link) = watch::channel(Connection::Down(String::new()));
            let (_, told) = watch::channel(PeerCluster::default());
            Peer { id: ClusterId(id), name: format!("c{id}"), number: 0, link, told }
        };
        let with = |id: u8, standing| {
            let (_, told) = watch::channel(PeerCluster { standing, ..PeerCluster::default() });
            Peer { told, ..peer(id) }
        };
        let seed = |start: u64| Seed {
            floors: vec![floor(2, 70), floor(3, 50), floor(4, 10)],
            start: LogId { term: 1, index: start },
        };
        let at = |start, peers: &[Peer]| lowest(&seed(start), peers).map(|base| base.id.index);
        assert_eq!(at(0, &[peer(2), peer(3)]), Some(50));
        assert_eq!(lowest(&seed(0), &[peer(2)]).unwrap().fence.next_seq, 70);
        assert_eq!(at(0, &[peer(2), peer(9)]), Some(0), "9 has nothing yet, and the log is whole");
        assert_eq!(at(20, &[peer(2), peer(9)]), Some(70), "9 needs a full state");
        assert_eq!(at(60, &[peer(2), peer(3)]), Some(70), "3 needs a full state");
        assert_eq!(at(80, &[peer(2), peer(3)]), None);
        let (fenced, returning) =
            (|id| with(id, Standing::Fenced), |id| with(id, Standing::Returning));
        assert_eq!(at(0, &[peer(2), returning(3), fenced(4)]), Some(70));
        assert_eq!(at(0, &[returning(3), fenced(4)]), Some(50));
        assert_eq!(at(0, &[fenced(3), fenced(4)]), None, "nothing is shipped");
    }
}
