//! One tenure of this syncer in one group: a learner under a Raft node id that is used once, the
//! shippers of all its links, and what the group is told of their progress.
//!
//! Nothing of it is on disk. A tenure begins where the group itself recorded that every peer had
//! come to (its link floors), so a syncer may be killed at any time and lose nothing: the next one
//! starts there, and receivers skip what they have.

use crate::gate::{Door, Gate};
use crate::leaders::Leaders;
use crate::learned::Position;
use crate::link::dial::LinkStatus as Connection;
use crate::outbound::{Outbound, Route, Window};
use crate::ports::Doors;
use crate::tap::{Outlets, Tap, seed_position};
use flotilla_node::group::remote::{LinkFloor, SeedRequest};
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
    windows.lock().iter().map(|window| window.status.lock().clone()).collect()
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
    let floors = match seed(&context, group).await {
        Ok(floors) => floors,
        Err(reason) => return format!("the group's leader gives no seed: {reason}"),
    };
    let base = lowest(&floors, &task.peers);
    tracing::info!(%group, learner = %task.assignment.learner, from = %base.id, "tenure begins");
    let (mut links, outlets, mut gates) = (JoinSet::new(), Outlets::default(), Vec::new());
    for peer in &task.peers {
        let window = start_link(&context, &task, peer, &base, &outlets, &mut gates, &mut links);
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

fn start_link(
    context: &Context,
    task: &Task,
    peer: &Peer,
    base: &Position,
    outlets: &Outlets,
    gates: &mut Vec<Gate>,
    links: &mut JoinSet<()>,
) -> Window {
    let route = Route {
        origin: context.own,
        namespace: task.namespace.clone(),
        group: task.assignment.group,
        slots: task.slots,
        peer: peer.id,
        peer_name: peer.name.clone(),
        shed_bytes: (task.peers.len() > 1).then_some(task.memory / 2),
    };
    let gate = gates.first().map_or_else(Gate::default, Gate::beside);
    let news = outlets.add(gate.clone());
    gates.push(gate.clone());
    let (link, told) = (peer.link.clone(), peer.told.clone());
    let (outbound, window) = Outbound::new(route, base.clone(), gate, news, link, told);
    links.spawn(outbound.run());
    window
}

async fn seed(context: &Context, group: GroupId) -> Result<Vec<LinkFloor>, String> {
    let request = SeedRequest { group }.encode();
    context.leaders.ask_until_answered(group, kinds::LINK_SEED, request, ASK_DEADLINE).await
}

/// The lowest floor of the live peers; the log's start when one of them has none. Who is fenced
/// holds nothing back, and who returns merges: the log is not kept for either, and to begin where it
/// no longer reaches would cost the others their links.
fn lowest(floors: &[LinkFloor], peers: &[Peer]) -> Position {
    let of = |peer: &Peer| floors.iter().find(|floor| floor.peer == peer.id);
    let standing = |peer: &Peer| peer.told.borrow().standing;
    let best = peers.iter().map(standing).min_by_key(|standing| match standing {
        Standing::Live => 0,
        Standing::Returning => 1,
        Standing::Fenced => 2,
    });
    let counted: Vec<&Peer> = peers.iter().filter(|peer| Some(standing(peer)) == best).collect();
    if best == Some(Standing::Fenced) {
        // Nothing is shipped: begin where the log surely reaches.
        let known = counted.into_iter().filter_map(of);
        return seed_position(known.max_by_key(|floor| floor.position.index));
    }
    let all: Option<Vec<&LinkFloor>> = counted.into_iter().map(of).collect();
    let lowest = all.and_then(|all| all.into_iter().min_by_key(|floor| floor.position.index));
    seed_position(lowest)
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
        let floors = [floor(2, 70), floor(3, 50), floor(4, 10)];
        assert_eq!(lowest(&floors, &[peer(2), peer(3)]).id.index, 50);
        assert_eq!(lowest(&floors, &[peer(2)]).fence.next_seq, 70);
        assert_eq!(lowest(&floors, &[peer(2), peer(9)]), Position::default(), "9 has nothing yet");
        let (fenced, returning) =
            (|id| with(id, Standing::Fenced), |id| with(id, Standing::Returning));
        assert_eq!(lowest(&floors, &[peer(2), returning(3), fenced(4)]).id.index, 70);
        assert_eq!(lowest(&floors, &[returning(3), fenced(4)]).id.index, 50);
        assert_eq!(lowest(&floors, &[fenced(3), fenced(4)]).id.index, 50, "where the log reaches");
        assert_eq!(lowest(&floors, &[peer(2), fenced(9)]).id.index, 70);
    }
}
