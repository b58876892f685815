//! Stories and laws of the state. Stories are told with a small world that keeps a store beside the
//! state, as the driver does.

use super::durable::{CHANGES_MAX, Durable, Records};
use super::live::{SILENCE_MS, STEADY_MS, SYNCER_SILENCE_MS};
use super::*;
use flotilla_topology::api::{
    GroupInfo, LinkAudit, LinkState, NamespaceSpec, NodeAddresses, NodeInfo, ReplicaStatus,
    SyncerInfo,
};
use flotilla_topology::ids::{GroupId, LogId, ReplicaId};
use flotilla_topology::slot::Slot;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

mod laws;

mod namespaces;

mod peers;

mod together;

fn settings(nodes: usize, replicas: u8) -> Settings {
    Settings {
        cluster: ClusterId(1),
        name: "east".into(),
        incarnation: Incarnation(1),
        datacenters: Vec::new(),
        peers: vec![PeerCluster {
            id: ClusterId(2),
            name: "west".into(),
            syncers: vec!["127.0.0.1:1".into()],
            rtt_ms: Some(60.0),
            ..PeerCluster::default()
        }],
        bootstrap: Bootstrap { nodes, partitions: 8, replicas },
        backlog_budget_bytes: 1 << 30,
        backlog_budget_seconds: 86_400,
        fence_after_seconds: None,
    }
}

fn node(name: &str, datacenter: &str) -> NodeInfo {
    let at = |port: u16| format!("127.0.0.1:{port}");
    NodeInfo {
        name: name.into(),
        datacenter: datacenter.into(),
        addresses: NodeAddresses { resp: at(1), cluster_resp: at(2), rpc: at(3), http: at(4) },
        advertise: BTreeMap::new(),
        alive: false,
    }
}

fn syncer(name: &str) -> SyncerInfo {
    let at = |port: u16| format!("127.0.0.1:{port}");
    SyncerInfo {
        name: name.into(),
        datacenter: "e1".into(),
        rpc: at(5),
        link: at(6),
        http: at(7),
        alive: false,
    }
}

fn spec(name: &str, partitions: u32, replicas: u8) -> NamespaceSpec {
    NamespaceSpec { name: name.into(), partitions, replicas, synced: true }
}

/// A state with its store and a clock.
struct World {
    settings: Settings,
    state: State,
    records: Records,
    now_ms: u64,
}

impl World {
    fn new(settings: Settings) -> World {
        let mut records = Records::new();
        let (state, changes) = State::load(settings.clone(), &records, 0).unwrap();
        store(&mut records, &changes);
        World { settings, state, records, now_ms: 0 }
    }

    fn input(&mut self, input: Input) -> Option<PdResponse> {
        let step = self.state.step(self.now_ms, input);
        assert!(step.changes.len() <= CHANGES_MAX, "{} changes", step.changes.len());
        store(&mut self.records, &step.changes);
        self.state = step.state;
        step.answer
    }

    fn ask(&mut self, request: PdRequest) -> PdResponse {
        self.input(Input::Request(request)).expect("requests are answered")
    }

    fn refused(&mut self, request: PdRequest) -> String {
        match self.ask(request) {
            PdResponse::Refused { reason } => reason,
            other => panic!("not refused: {other:?}"),
        }
    }

    fn register(&mut self, name: &str, datacenter: &str) -> PdResponse {
        let directory = name.bytes().fold(7, |sum, byte| sum * 31 + u64::from(byte));
        let node = node(name, datacenter);
        self.ask(PdRequest::RegisterNode { node, directory, seen_epoch: Epoch(0) })
    }

    fn register_syncer(&mut self, name: &str) -> PdResponse {
        self.ask(PdRequest::RegisterSyncer { syncer: syncer(name) })
    }

    /// Everybody named sends a heartbeat now; the first replica of each group leads if it is
    /// among them.
    fn beat(&mut self, nodes: &[&str], syncers: &[&str]) {
        for name in nodes {
            let replicas = self.statuses(name);
            self.ask(PdRequest::NodeHeartbeat { name: (*name).into(), replicas });
        }
        for name in syncers {
            self.ask(PdRequest::SyncerHeartbeat {
                name: (*name).into(),
                links: None,
                views: vec![],
            });
        }
    }

    fn statuses(&self, node: &str) -> Vec<ReplicaStatus> {
        let groups = self.state.map().groups.iter();
        groups
            .filter_map(|group| {
                let replica = group.replicas.iter().find(|replica| replica.node == node)?;
                Some(ReplicaStatus {
                    group: group.id,
                    replica: replica.id,
                    term: 1,
                    leads: group.replicas[0].node == node,
                    applied: LogId { term: 1, index: 1 },
                    outrun: vec![],
                })
            })
            .collect()
    }

    /// Time passes while those named go on sending heartbeats.
    fn pass(&mut self, ms: u64, nodes: &[&str], syncers: &[&str]) {
        let end = self.now_ms + ms;
        while self.now_ms < end {
            self.now_ms = end.min(self.now_ms + 250);
            self.beat(nodes, syncers);
            self.input(Input::Tick);
        }
    }

    fn restart(&mut self) {
        let (state, changes) = State::load(self.settings.clone(), &self.records, self.now_ms)
            .expect("what was stored can be loaded");
        store(&mut self.records, &changes);
        self.state = state;
    }

    fn held(&self, syncer: &str) -> Vec<flotilla_topology::api::Assignment> {
        self.state.assigned().get(syncer).map(|a| a.groups.clone()).unwrap_or_default()
    }

    fn group(&self, id: GroupId) -> GroupInfo {
        self.state.map().groups.iter().find(|group| group.id == id).unwrap().clone()
    }
}

fn store(records: &mut Records, changes: &[Change]) {
    for change in changes {
        match &change.value {
            Some(value) => records.insert(change.key.clone(), value.clone()),
            None => records.remove(&change.key),
        };
    }
}

/// Three nodes, one datacenter, two syncers to come.
fn east() -> World {
    let mut world = World::new(settings(3, 3));
    for name in ["n1", "n2", "n3"] {
        world.register(name, "e1");
    }
    world
}

#[test]
fn default_is_born_when_enough_nodes_are_there_and_only_once() {
    let mut world = World::new(settings(3, 3));
    world.register("n1", "e1");
    world.register("n2", "e1");
    assert!(world.state.map().groups.is_empty());
    assert!(world.state.status().problems[0].contains("3 nodes are expected and 2 are alive"));
    let PdResponse::Registered { map } = world.register("n3", "e1") else { panic!() };
    assert_eq!((map.namespaces.len(), map.groups.len()), (1, 8));
    assert!(map.namespaces[0].spec.synced, "there is a peer");
    for group in &map.groups {
        assert_eq!((group.birth.len(), &group.birth), (3, &group.replicas));
        assert!(group.replicas.iter().any(|replica| replica.node == group.preferred_leader));
    }
    let leaders = map.groups.iter().fold(BTreeMap::<_, usize>::new(), |mut count, group| {
        *count.entry(group.preferred_leader.clone()).or_default() += 1;
        count
    });
    assert!(leaders.len() == 3 && leaders.values().all(|n| (2..=3).contains(n)), "{leaders:?}");

    world.ask(PdRequest::DropNamespace { name: "default".into() });
    world.pass(1_000, &["n1", "n2", "n3"], &[]);
    world.restart();
    world.register("n1", "e1");
    assert!(world.state.map().groups.is_empty(), "what was dropped stays dropped");
}

#[test]
fn a_known_name_with_another_directory_is_refused() {
    let mut world = east();
    let before = (world.state.map().epoch, world.records.clone());
    let node = node("n1", "e1");
    let seen_epoch = Epoch(0);
    let reason =
        world.refused(PdRequest::RegisterNode { node: node.clone(), directory: 1, seen_epoch });
    assert!(reason.contains("`n1`") && reason.contains("vote twice"), "{reason}");
    assert_eq!(before, (world.state.map().epoch, world.records.clone()));

    let directory = world.state.durable.nodes["n1"].directory;
    let renamed = NodeInfo { name: "n9".into(), ..node };
    let reason = world.refused(PdRequest::RegisterNode { node: renamed, directory, seen_epoch });
    assert!(reason.contains("belongs to node `n1`"), "{reason}");
}

#[test]
fn a_lost_store_is_noticed_by_what_nodes_have_seen() {
    let mut world = World::new(settings(1, 1));
    let request = |seen| PdRequest::RegisterNode {
        node: node("n1", "e1"),
        directory: 5,
        seen_epoch: Epoch(seen),
    };
    let reason = world.refused(request(40));
    assert!(reason.contains("map epoch 40"), "{reason}");
    assert!(world.state.map().nodes.is_empty());

    world.ask(request(0));
    let foreign = ReplicaStatus {
        group: GroupId(77),
        replica: ReplicaId(500),
        term: 3,
        leads: true,
        applied: LogId::default(),
        outrun: vec![],
    };
    world.ask(PdRequest::NodeHeartbeat { name: "n1".into(), replicas: vec![foreign] });
    assert!(world.state.status().problems.iter().any(|line| line.contains("never gave out")));
    let reason = world.refused(PdRequest::CreateNamespace { spec: spec("more", 1, 1) });
    assert!(reason.contains("Give PD its store back"), "{reason}");
}

#[test]
fn replicas_stand_in_different_datacenters_or_not_at_all() {
    let mut world = World::new(Settings {
        datacenters: vec!["a".into(), "b".into(), "c".into()],
        ..settings(3, 3)
    });
    for name in ["n1", "n2", "n3"] {
        world.register(name, "a");
    }
    assert!(world.state.map().groups.is_empty());
    world.register("n4", "b");
    assert!(world.state.status().problems[0].contains("start nodes in c"));
    let reason = world.refused(PdRequest::CreateNamespace { spec: spec("x", 1, 3) });
    assert!(reason.contains("start nodes in c"), "{reason}");
    let PdResponse::Refused { reason } = world.register("n5", "d") else { panic!() };
    assert!(reason.contains("a, b, c"), "{reason}");
    world.register("n6", "c");
    assert_eq!(world.state.map().groups.len(), 8);
}

#[test]
fn hints_change_the_revision_and_not_the_epoch() {
    let mut world = east();
    let map = world.state.map().clone();
    world.beat(&["n1"], &[]);
    let hinted = world.state.map().clone();
    assert_eq!(map.epoch, hinted.epoch);
    assert!(hinted.revision > map.revision);
    assert_eq!(hinted.groups[0].leader.as_ref().unwrap().node, hinted.groups[0].replicas[0].node);
    world.beat(&["n1"], &[]);
    assert_eq!(hinted.revision, world.state.map().revision, "the same again is no change");

    // An older term cannot take the hint back.
    let group = hinted.groups[0].clone();
    for (term, leads) in [(5, 1), (3, 2)] {
        let replica = &group.replicas[leads];
        let replicas = vec![ReplicaStatus {
            group: group.id,
            replica: replica.id,
            term,
            leads: true,
            applied: LogId::default(),
            outrun: vec![],
        }];
        world.ask(PdRequest::NodeHeartbeat { name: replica.node.clone(), replicas });
    }
    assert_eq!(world.group(group.id).leader.unwrap().node, group.replicas[1].node);
}

#[test]
fn silence_is_noticed_and_forgiven() {
    let mut world = east();
    let all = ["n1", "n2", "n3"];
    world.register_syncer("s1");
    world.beat(&all, &["s1"]);
    for group in world.held("s1") {
        let (group, learner) = (group.group, group.learner);
        world.ask(PdRequest::LearnerReady { name: "s1".into(), group, learner });
    }
    assert_eq!(world.state.status().problems, Vec::<String>::new());
    world.pass(SILENCE_MS + 500, &["n2", "n3"], &["s1"]);
    let map = world.state.map();
    assert!(!map.nodes[0].alive && map.nodes[1].alive);
    let problems = world.state.status().problems;
    assert!(problems.iter().any(|line| line.starts_with("node `n1`")), "{problems:?}");
    assert!(problems.iter().any(|line| line.contains("has no leader")), "{problems:?}");
    world.beat(&all, &["s1"]);
    assert!(world.state.map().nodes[0].alive);
    assert_eq!(world.state.status().problems, Vec::<String>::new());
    let reason = world.refused(PdRequest::NodeHeartbeat { name: "n7".into(), replicas: vec![] });
    assert!(reason.contains("register first"), "{reason}");
}

#[test]
fn tenures_end_when_a_syncer_comes_back_and_move_when_it_does_not() {
    let mut world = east();
    let nodes = ["n1", "n2", "n3"];
    world.register_syncer("s1");
    let first = world.held("s1");
    assert_eq!(first.len(), 8);
    let learner = first[0].learner;
    let ready = |learner| PdRequest::LearnerReady { name: "s1".into(), group: GroupId(1), learner };
    assert!(world.group(GroupId(1)).learners.is_empty(), "not before it is ready");
    let epoch = world.state.map().epoch;
    assert_eq!(world.ask(ready(learner)), PdResponse::Done);
    assert_eq!(world.group(GroupId(1)).learners[0].id, learner);
    assert!(world.state.map().epoch > epoch);

    world.register_syncer("s1");
    let second = world.held("s1");
    assert!(second.iter().zip(&first).all(|(b, a)| b.learner > a.learner && b.epoch > a.epoch));
    assert!(world.group(GroupId(1)).learners.is_empty(), "the old learner is to be removed");
    assert!(world.refused(ready(learner)).contains("has ended"));

    // A second one gets its half once it is steady, and everything when the first falls silent.
    world.register_syncer("s2");
    assert!(world.held("s2").is_empty());
    world.pass(STEADY_MS + 500, &nodes, &["s1", "s2"]);
    assert_eq!((world.held("s1").len(), world.held("s2").len()), (4, 4));
    world.pass(SYNCER_SILENCE_MS, &nodes, &["s2"]);
    assert_eq!((world.held("s1").len(), world.held("s2").len()), (4, 4), "not yet");
    world.pass(250, &nodes, &["s2"]);
    assert_eq!((world.held("s1").len(), world.held("s2").len()), (0, 8));

    // With nobody else there, a silent syncer keeps what it has: it may come back any moment.
    world.pass(SILENCE_MS + 500, &nodes, &[]);
    assert_eq!(world.held("s2").len(), 8);
    let problems = world.state.status().problems;
    assert!(problems.iter().any(|line| line.contains("served by no live syncer")), "{problems:?}");
    assert_eq!(world.ask(PdRequest::RemoveSyncer { name: "s2".into() }), PdResponse::Done);
    assert!(world.held("s2").is_empty());
}

#[test]
fn links_of_a_silent_syncer_are_not_shown_as_live() {
    let mut world = east();
    world.register_syncer("s1");
    let link = LinkStatus {
        detail: "all is well".into(),
        ..LinkStatus::new(GroupId(1), ClusterId(2), LinkState::Live)
    };
    let links = Some(vec![link.clone()]);
    let beat = PdRequest::SyncerHeartbeat { name: "s1".into(), links, views: vec![] };
    world.ask(beat);
    assert_eq!(world.state.status().links, vec![link]);
    world.pass(SILENCE_MS + 500, &["n1", "n2", "n3"], &[]);
    let shown = &world.state.status().links[0];
    assert_eq!(shown.state, LinkState::Disconnected);
    assert!(shown.detail.contains("`s1`") && shown.lag_seconds > 3.0, "{shown:?}");
}

#[test]
fn a_difference_between_clusters_is_a_problem_until_it_is_mended() {
    let mut world = east();
    world.register_syncer("s1");
    let with = |group, slots: &[u16]| LinkStatus {
        audit: Some(LinkAudit {
            different_slots: slots.len() as u64,
            first_slots: slots.iter().map(|slot| Slot(*slot)).collect(),
            ..LinkAudit::default()
        }),
        ..LinkStatus::new(GroupId(group), ClusterId(2), LinkState::Live)
    };
    let beat = |world: &mut World, links| {
        world.ask(PdRequest::SyncerHeartbeat {
            name: "s1".into(),
            links: Some(links),
            views: vec![],
        });
        let problems = world.state.status().problems;
        problems.into_iter().filter(|line| line.contains("differ in")).collect::<Vec<_>>()
    };
    assert!(beat(&mut world, vec![with(1, &[]), with(2, &[])]).is_empty());
    let lines = beat(&mut world, vec![with(2, &[2100, 2101]), with(1, &[7])]);
    let [line] = lines.as_slice() else { panic!("one line for a peer and namespace: {lines:?}") };
    for part in [
        "`east` and `west` differ in 3 slots of namespace `default`, first 7, 2100, 2101",
        "flotilla verify --namespace default --slots 7-2101",
        "flotilla link merge west",
        "flotilla link merge east",
    ] {
        assert!(line.contains(part), "{line}");
    }
    assert!(beat(&mut world, vec![with(1, &[]), with(2, &[])]).is_empty());
}

#[test]
fn members_leave_only_when_nothing_is_left_of_them() {
    let mut world = east();
    let remove = |name: &str| PdRequest::RemoveNode { name: name.into() };
    assert!(world.refused(remove("n1")).contains("is alive"));
    world.pass(SILENCE_MS + 500, &["n2", "n3"], &[]);
    assert!(world.refused(remove("n1")).contains("carries 8 replicas"));
    world.ask(PdRequest::DropNamespace { name: "default".into() });
    assert_eq!(world.ask(remove("n1")), PdResponse::Done);
    assert_eq!(world.ask(remove("n1")), PdResponse::Done);
    assert_eq!(world.state.map().nodes.len(), 2);
}

#[test]
fn a_store_of_another_cluster_or_a_former_life_is_refused() {
    let world = east();
    let other = Settings { cluster: ClusterId(9), ..world.settings.clone() };
    assert!(matches!(
        State::load(other, &world.records, 0),
        Err(LoadError::OtherCluster { found: ClusterId(1), .. })
    ));
    let next = Settings { incarnation: Incarnation(2), ..world.settings.clone() };
    let (state, changes) = State::load(next, &world.records, 0).unwrap();
    assert!(state.map().epoch > world.state.map().epoch);
    let mut records = world.records.clone();
    store(&mut records, &changes);
    let former = State::load(world.settings.clone(), &records, 0);
    assert!(matches!(former, Err(LoadError::OldIncarnation { .. })));
}
