//! Whatever happens in whatever order, with restarts in between: nothing is forgotten, no number
//! is given out twice, versions rise, and replicas stay spread.

use super::*;
use flotilla_topology::api::{LinkOp, Standing};
use flotilla_topology::ids::NamespaceId;

#[derive(Debug, Clone)]
enum Move {
    Node(u8),
    WrongDirectory(u8),
    Syncer(u8),
    Beat(u8),
    SyncerBeat(u8),
    Ready(u8, u8),
    Create(u8, u8, u8),
    Sync(u8, bool),
    Drop(u8),
    RemoveNode(u8),
    RemoveSyncer(u8),
    Renew(u8, u8),
    Link(u8, u8, bool),
    /// A restart with another topology file: whether it lists the peers 2 and 3.
    File(bool, bool),
    Wait(u16),
    Restart,
}

fn any_move() -> impl Strategy<Value = Move> {
    prop_oneof![
        4 => (0..6u8).prop_map(Move::Node),
        1 => (0..6u8).prop_map(Move::WrongDirectory),
        3 => (0..3u8).prop_map(Move::Syncer),
        4 => (0..6u8).prop_map(Move::Beat),
        4 => (0..3u8).prop_map(Move::SyncerBeat),
        4 => (0..3u8, 0..8u8).prop_map(|(syncer, nth)| Move::Ready(syncer, nth)),
        2 => (0..4u8, 1..70u8, 0..5u8).prop_map(|(name, partitions, replicas)| {
            Move::Create(name, partitions, [1, 3, 5, 2, 3][usize::from(replicas)])
        }),
        2 => (0..4u8, any::<bool>()).prop_map(|(name, dry)| Move::Sync(name, dry)),
        1 => (0..4u8).prop_map(Move::Drop),
        1 => (0..6u8).prop_map(Move::RemoveNode),
        1 => (0..3u8).prop_map(Move::RemoveSyncer),
        2 => (0..3u8, 0..8u8).prop_map(|(syncer, nth)| Move::Renew(syncer, nth)),
        4 => (2..5u8, 0..9u8, any::<bool>()).prop_map(|(id, op, dry)| Move::Link(id, op, dry)),
        1 => (any::<bool>(), any::<bool>()).prop_map(|(two, three)| Move::File(two, three)),
        4 => (0..4_000u16).prop_map(Move::Wait),
        1 => Just(Move::Restart),
    ]
}

/// What an observer remembers of all maps and assignments.
#[derive(Default)]
struct Memory {
    /// Whose a replica number is: group and carrier.
    replicas: BTreeMap<ReplicaId, (GroupId, String)>,
    births: BTreeMap<GroupId, GroupInfo>,
    gone: BTreeSet<GroupId>,
    epochs: BTreeMap<GroupId, u64>,
    tenures: BTreeSet<ReplicaId>,
    ended: BTreeSet<ReplicaId>,
    map: Option<ClusterMap>,
    /// Merge and rewind epochs.
    peer_epochs: BTreeMap<ClusterId, (u64, u64)>,
    ever_peers: BTreeSet<ClusterId>,
    /// Whether it was born synced, and whether it is.
    synced: BTreeMap<NamespaceId, (bool, bool)>,
}

fn mesh(map: &ClusterMap) -> BTreeSet<(ClusterId, Standing)> {
    map.peers.iter().map(|peer| (peer.id, peer.standing)).collect()
}

impl Memory {
    fn look(&mut self, world: &World) {
        let map = &**world.state.map();
        for ns in &map.namespaces {
            let now = (ns.born_synced(), ns.spec.synced);
            let (born, was) = self.synced.insert(ns.id, now).unwrap_or(now);
            assert!(born == now.0 && was <= now.1, "sync is switched on only, and birth stays");
        }
        if let Some(last) = self.map.replace(map.clone()) {
            let changed = ClusterMap { revision: 0, ..last.clone() }
                != ClusterMap { revision: 0, ..map.clone() };
            assert!(map.revision >= last.revision && map.epoch >= last.epoch);
            assert!(!changed || map.revision > last.revision, "a change without a revision");
            let moved = skeleton(&last) != skeleton(map);
            assert_eq!(moved, map.epoch > last.epoch, "the epoch counts just these changes");
            assert_eq!(
                mesh(&last) != mesh(map),
                map.mesh_version > last.mesh_version,
                "the mesh version counts changes of the mesh"
            );
            assert!(map.mesh_version >= last.mesh_version);
            for peer in &map.peers {
                let (merge, rewind) = self.peer_epochs.entry(peer.id).or_default();
                assert!(peer.merge_epoch >= *merge && peer.rewind_epoch >= *rewind);
                (*merge, *rewind) = (peer.merge_epoch, peer.rewind_epoch);
                let came_back = self.ever_peers.contains(&peer.id)
                    && last.peers.iter().all(|known| known.id != peer.id);
                assert!(!came_back || peer.standing == Standing::Fenced, "back, and not fenced");
            }
            self.ever_peers.extend(map.peers.iter().map(|peer| peer.id));
        }
        for group in &map.groups {
            assert!(!self.gone.contains(&group.id), "group number given out twice");
            let first = self.births.entry(group.id).or_insert_with(|| group.clone());
            assert_eq!(first.birth, group.birth, "the first membership is for ever");
            for replica in &group.replicas {
                self.owns(replica.id, group.id, &replica.node);
            }
            assert!(group.replicas.iter().any(|r| r.node == group.preferred_leader));
            let nodes: BTreeSet<_> = group.replicas.iter().map(|r| &r.node).collect();
            assert_eq!(nodes.len(), group.replicas.len(), "two replicas on one node");
            for learner in &group.learners {
                let held = world.held(&learner.syncer);
                assert!(held.iter().any(|a| a.group == group.id && a.learner == learner.id));
            }
        }
        let present: BTreeSet<_> = map.groups.iter().map(|group| group.id).collect();
        self.gone.extend(self.births.keys().filter(|id| !present.contains(id)));
        self.look_at_assignments(world);
    }

    fn look_at_assignments(&mut self, world: &World) {
        let mut served = BTreeSet::new();
        let mut tenures = BTreeSet::new();
        for (syncer, assigned) in world.state.assigned().iter() {
            for one in &assigned.groups {
                assert!(served.insert(one.group), "two syncers for one group");
                self.owns(one.learner, one.group, syncer);
                assert!(!self.ended.contains(&one.learner), "an ended tenure came back");
                tenures.insert(one.learner);
                let epoch = self.epochs.entry(one.group).or_insert(one.epoch);
                assert!(one.epoch >= *epoch, "tenures only follow one another");
                *epoch = one.epoch;
            }
        }
        let last = std::mem::replace(&mut self.tenures, tenures);
        self.ended.extend(last.difference(&self.tenures));
    }

    fn owns(&mut self, id: ReplicaId, group: GroupId, carrier: &str) {
        let owner = self.replicas.entry(id).or_insert_with(|| (group, carrier.to_owned()));
        assert_eq!((owner.0, owner.1.as_str()), (group, carrier), "number {id} given out twice");
    }
}

fn make(world: &mut World, step: Move) {
    let node_name = |n: u8| format!("n{n}");
    let syncer_name = |n: u8| format!("s{n}");
    let datacenter = |n: u8| format!("dc{}", n % 3);
    let namespace = |n: u8| if n == 0 { "default".to_owned() } else { format!("ns{n}") };
    match step {
        Move::Node(n) => drop(world.register(&node_name(n), &datacenter(n))),
        Move::WrongDirectory(n) => drop(world.ask(PdRequest::RegisterNode {
            node: node(&node_name(n), &datacenter(n)),
            directory: 1_000 + u64::from(n),
            seen_epoch: Epoch(0),
        })),
        Move::Syncer(n) => drop(world.register_syncer(&syncer_name(n))),
        Move::Beat(n) => world.beat(&[&node_name(n)], &[]),
        Move::SyncerBeat(n) => world.beat(&[], &[&syncer_name(n)]),
        Move::Ready(n, nth) => {
            if let Some(one) = world.held(&syncer_name(n)).get(usize::from(nth)) {
                let (group, learner) = (one.group, one.learner);
                world.ask(PdRequest::LearnerReady { name: syncer_name(n), group, learner });
            }
        }
        Move::Create(name, partitions, replicas) => {
            let spec = spec(&namespace(name), u32::from(partitions), replicas);
            let spec = NamespaceSpec { synced: partitions % 2 == 0, ..spec };
            world.ask(PdRequest::CreateNamespace { spec });
        }
        Move::Sync(name, dry_run) => sync(world, namespace(name), dry_run),
        Move::Drop(name) => drop(world.ask(PdRequest::DropNamespace { name: namespace(name) })),
        Move::RemoveNode(n) => drop(world.ask(PdRequest::RemoveNode { name: node_name(n) })),
        Move::RemoveSyncer(n) => drop(world.ask(PdRequest::RemoveSyncer { name: syncer_name(n) })),
        Move::Renew(n, nth) => {
            if let Some(one) = world.held(&syncer_name(n)).get(usize::from(nth)) {
                let (group, learner) = (one.group, one.learner);
                world.ask(PdRequest::RenewTenure { name: syncer_name(n), group, learner });
                assert!(world.held(&syncer_name(n)).iter().all(|now| now.learner != learner));
            }
        }
        Move::Link(id, op, dry_run) => link(world, id, op, dry_run),
        Move::File(two, three) => {
            let listed = [(two, 2), (three, 3)].into_iter().filter(|(listed, _)| *listed);
            world.settings.peers = listed.map(|(_, id)| cluster(id)).collect();
            world.restart();
        }
        Move::Wait(ms) => {
            world.now_ms += u64::from(ms);
            world.input(Input::Tick);
        }
        Move::Restart => world.restart(),
    }
}

/// Switches sync on; what is asked again at once must not be refused.
fn sync(world: &mut World, name: String, dry_run: bool) {
    let before = world.state.map().namespaces.clone();
    let asked = PdRequest::SyncNamespace { name, dry_run };
    let refused = |answer: &PdResponse| matches!(answer, PdResponse::Refused { .. });
    let answer = world.ask(asked.clone());
    if dry_run || refused(&answer) {
        // `default` may have been created in the same step.
        let known = world.state.map().namespaces.iter().filter(|ns| before.contains(ns));
        assert_eq!(known.count(), before.len(), "nothing was to change");
    } else {
        assert!(!refused(&world.ask(asked)), "it must bear repeating");
    }
}

fn cluster(id: u8) -> PeerCluster {
    let name = if id == 2 { "west".to_owned() } else { format!("c{id}") };
    let syncers = vec![format!("127.0.0.1:{id}")];
    PeerCluster { id: ClusterId(id), name, syncers, ..PeerCluster::default() }
}

/// An operation; what is asked again at once must not be refused if it was not the first time.
fn link(world: &mut World, id: u8, op: u8, dry_run: bool) {
    let op = match op {
        0 => LinkOp::Pause,
        1 => LinkOp::Resume,
        2 => LinkOp::Rewind,
        3 => LinkOp::Merge,
        4 => LinkOp::Remove,
        5 => LinkOp::Add { peer: cluster(id) },
        6 => LinkOp::Fence,
        7 => LinkOp::Return,
        _ => return drop(world.ask(PdRequest::PeerLive { peer: ClusterId(id) })),
    };
    // What else is due may go on in the same step.
    let peers =
        |world: &World| (world.records.get("peers").cloned(), world.state.map().mesh_version);
    let before = peers(world);
    let asked = PdRequest::Link { peer: id.to_string(), op, dry_run };
    let answer = world.ask(asked.clone());
    let refused = |answer: &PdResponse| matches!(answer, PdResponse::Refused { .. });
    if dry_run || refused(&answer) {
        assert_eq!(before, peers(world), "nothing was to change");
    } else {
        assert!(!refused(&world.ask(asked)), "it must bear repeating");
    }
}

proptest! {
    #[test]
    fn nothing_is_forgotten_and_no_number_comes_twice(
        moves in prop::collection::vec(any_move(), 1..80)
    ) {
        let mut world = World::new(settings(3, 3));
        let mut memory = Memory::default();
        for step in moves {
            make(&mut world, step);
            memory.look(&world);
            let stored = Durable::load(&world.records).unwrap();
            prop_assert_eq!(&stored, &*world.state.durable);
        }
        // When all is calm, live syncers share the groups evenly.
        world.register_syncer("s0");
        world.register_syncer("s1");
        world.pass(STEADY_MS + 2_000, &[], &["s0", "s1"]);
        memory.look(&world);
        let (a, b) = (world.held("s0").len(), world.held("s1").len());
        let map = world.state.map();
        let is_synced = |group: &&GroupInfo| {
            map.namespaces.iter().any(|ns| ns.id == group.namespace && ns.spec.synced)
        };
        let synced = map.groups.iter().filter(is_synced).count();
        prop_assert!(a + b == synced && a.abs_diff(b) <= 1, "{} + {} of {}", a, b, synced);
    }

    #[test]
    fn replicas_and_leaders_are_spread(
        nodes in 3..12usize, datacenters in 1..4usize, partitions in 1..64u32, five in any::<bool>()
    ) {
        let replicas = if five && nodes >= 9 { 5u8 } else { 3 };
        let mut world = World::new(settings(nodes, 3));
        for n in 0..nodes {
            world.register(&format!("n{n}"), &format!("dc{}", n % datacenters));
        }
        let spec = NamespaceSpec { synced: false, ..spec("x", partitions, replicas) };
        let PdResponse::Namespace { namespace } = world.ask(PdRequest::CreateNamespace { spec })
            else { panic!("not created") };
        let home = |node: &str| node[1..].parse::<usize>().unwrap() % datacenters;
        let mut leaders = vec![0usize; nodes];
        for group in world.state.map().groups.iter().filter(|g| g.namespace == namespace.id) {
            let mut per = vec![0usize; datacenters];
            group.replicas.iter().for_each(|replica| per[home(&replica.node)] += 1);
            prop_assert!(per.iter().max().unwrap() - per.iter().min().unwrap() <= 1);
            if datacenters > 2 {
                prop_assert!(per.iter().all(|n| n * 2 < usize::from(replicas)), "{:?}", per);
            }
            leaders[group.preferred_leader[1..].parse::<usize>().unwrap()] += 1;
        }
        let ideal = (partitions as usize + 8).div_ceil(nodes);
        prop_assert!(leaders.iter().all(|n| *n <= ideal + 2), "{:?}", leaders);
    }
}
