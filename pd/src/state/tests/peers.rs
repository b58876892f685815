//! Stories of links: what operators do with them, restarts in between, and what the file says.

use super::*;
use flotilla_topology::api::{LinkOp, Standing};

fn peer(id: u8, name: &str) -> PeerCluster {
    PeerCluster {
        id: ClusterId(id),
        name: name.into(),
        syncers: vec![format!("127.0.0.1:{}", 100 + u16::from(id))],
        ..PeerCluster::default()
    }
}

impl World {
    fn link(&mut self, peer: &str, op: LinkOp) -> PdResponse {
        self.ask(PdRequest::Link { peer: peer.into(), op, dry_run: false })
    }

    /// Done; answers its lines as one text.
    fn does(&mut self, peer: &str, op: LinkOp) -> String {
        match self.link(peer, op) {
            PdResponse::LinkPlan { lines, done: true } => lines.join("\n"),
            other => panic!("not done: {other:?}"),
        }
    }

    fn refuses(&mut self, peer: &str, op: LinkOp) -> String {
        self.refused(PdRequest::Link { peer: peer.into(), op, dry_run: false })
    }

    fn peer(&self, name: &str) -> Option<PeerCluster> {
        self.state.map().peers.iter().find(|peer| peer.name == name).cloned()
    }

    fn standing(&self, name: &str) -> Standing {
        self.peer(name).expect("it is a peer").standing
    }

    fn mesh(&self) -> u64 {
        self.state.map().mesh_version
    }
}

#[test]
fn pauses_and_epochs_survive_restarts_and_bear_repeating() {
    let mut world = east();
    assert_eq!((world.mesh(), world.peer("west").unwrap().paused), (1, false));
    let epoch = world.state.map().epoch;
    let said = world.does("west", LinkOp::Pause);
    assert!(said.contains("8 groups") && said.contains("1.0 GiB"), "{said}");
    assert!(world.state.map().epoch > epoch, "nodes and syncers are told");
    let before = world.state.map().clone();
    assert!(world.does("2", LinkOp::Pause).contains("paused already"), "by id, and again");
    assert_eq!(before.epoch, world.state.map().epoch);
    let problems = world.state.status().problems;
    assert!(problems.iter().any(|line| line.contains("link resume west")), "{problems:?}");
    world.does("west", LinkOp::Rewind);
    assert!(world.does("west", LinkOp::Merge).contains("it begins with `flotilla link resume"));
    world.restart();
    let west = world.peer("west").unwrap();
    assert_eq!((west.paused, west.rewind_epoch, west.merge_epoch), (true, 1, 1));
    world.does("west", LinkOp::Resume);
    assert!(world.does("west", LinkOp::Resume).contains("nothing changes"));
    assert!(!world.peer("west").unwrap().paused);
    assert_eq!(world.mesh(), 1, "standings did not change");
}

#[test]
fn a_dry_run_answers_as_the_real_one_and_changes_nothing() {
    let mut world = east();
    let ops = [
        LinkOp::Pause,
        LinkOp::Rewind,
        LinkOp::Merge,
        LinkOp::Add { peer: peer(3, "north") },
        LinkOp::Fence,
        LinkOp::Return,
        LinkOp::Resume,
        LinkOp::Fence,
        LinkOp::Remove,
    ];
    for op in ops {
        let at = if matches!(op, LinkOp::Add { .. }) { "north" } else { "west" };
        let before = (world.records.clone(), world.state.map().clone());
        let asked = PdRequest::Link { peer: at.into(), op: op.clone(), dry_run: true };
        let PdResponse::LinkPlan { lines, done: false } = world.ask(asked) else {
            panic!("{op:?} has no plan")
        };
        assert_eq!(before, (world.records.clone(), world.state.map().clone()), "{op:?}");
        assert_eq!(lines.join("\n"), world.does(at, op));
    }
    assert!(world.peer("west").is_none() && world.peer("north").is_some());
}

#[test]
fn a_fenced_peer_returns_before_it_is_live() {
    let mut world = east();
    let live = || PdRequest::PeerLive { peer: ClusterId(2) };
    assert_eq!(world.ask(live()), PdResponse::Done, "it is");
    let said = world.does("west", LinkOp::Fence);
    assert!(said.contains("flotilla link return west"), "{said}");
    assert_eq!((world.standing("west"), world.mesh()), (Standing::Fenced, 2));
    for op in [LinkOp::Merge, LinkOp::Rewind] {
        assert!(world.refuses("west", op).contains("let it return first"));
    }
    assert!(world.refused(live()).contains("return first"));
    world.restart();
    assert_eq!((world.standing("west"), world.mesh()), (Standing::Fenced, 2));
    world.does("west", LinkOp::Return);
    assert!(world.does("west", LinkOp::Return).contains("returning already"));
    assert_eq!((world.standing("west"), world.mesh()), (Standing::Returning, 3));
    assert_eq!(world.ask(live()), PdResponse::Done);
    assert_eq!((world.standing("west"), world.mesh()), (Standing::Live, 4));
    assert!(world.does("west", LinkOp::Return).contains("is live"));
}

#[test]
fn who_adds_a_peer_is_told_what_it_will_not_get() {
    let mut world = east();
    let spec = NamespaceSpec { synced: false, ..spec("jobs", 1, 1) };
    world.ask(PdRequest::CreateNamespace { spec });
    let said = world.does("north", LinkOp::Add { peer: peer(3, "north") });
    let expected = "nothing of `jobs` travels until `flotilla namespace sync jobs`";
    assert!(said.contains(expected), "{said}");
}

#[test]
fn peers_are_added_while_pd_runs_and_the_file_wins_on_addresses() {
    let mut world = east();
    let said = world.does("north", LinkOp::Add { peer: peer(3, "north") });
    assert!(said.contains("add it at `west` too") && !said.contains("travels"), "{said}");
    assert_eq!((world.standing("north"), world.mesh()), (Standing::Live, 2));
    let again = world.does("3", LinkOp::Add { peer: peer(3, "north") });
    assert!(again.contains("nothing changes"), "{again}");
    world.restart();
    assert_eq!(world.state.map().peers.len(), 2, "it is kept");

    let moved = PeerCluster { syncers: vec!["h:9".into()], ..peer(3, "north") };
    world.does("north", LinkOp::Add { peer: moved });
    assert_eq!(world.peer("north").unwrap().syncers, ["h:9"]);
    world.does("north", LinkOp::Pause);
    let listed = PeerCluster { syncers: vec!["f:1".into()], ..peer(3, "north") };
    world.settings.peers.push(listed.clone());
    world.restart();
    let north = world.peer("north").unwrap();
    assert_eq!((north.syncers, north.paused), (listed.syncers.clone(), true));
    let moved = PeerCluster { syncers: vec!["h:9".into()], ..peer(3, "north") };
    assert!(world.refuses("north", LinkOp::Add { peer: moved }).contains("topology file"));
    assert_eq!(world.mesh(), 2, "addresses are not the mesh");

    // The file has taken it over: when it leaves the file it is gone, and comes back fenced.
    world.settings.peers.pop();
    world.restart();
    assert_eq!((world.peer("north"), world.mesh()), (None, 3));
    assert!(world.refuses("north", LinkOp::Pause).contains("no peer any more"));
    world.settings.peers.push(listed);
    world.restart();
    assert_eq!((world.standing("north"), world.mesh()), (Standing::Fenced, 4));

    world.settings.peers.push(peer(4, "south"));
    world.does("east2", LinkOp::Add { peer: peer(5, "east2") });
    world.settings.peers[2].name = "east2".into();
    let clash = State::load(world.settings.clone(), &world.records, 0).err().map(|e| e.to_string());
    assert!(clash.as_ref().is_some_and(|line| line.contains("both called `east2`")), "{clash:?}");
}

#[test]
fn what_cannot_be_a_peer_is_refused() {
    let mut world = east();
    let named = |id, name: &str| peer(id, name);
    for (bad, word) in [
        (named(0, "north"), "1 to 255"),
        (named(1, "north"), "no link to itself"),
        (named(3, "east"), "no link to itself"),
        (named(3, "west"), "unique"),
        (named(2, "north"), "calls cluster 2 `west`"),
        (named(3, "no/rth"), "1 to 64 characters"),
        (PeerCluster { syncers: vec![], ..peer(3, "north") }, "mesh is partial"),
        (PeerCluster { syncers: vec!["north".into()], ..peer(3, "north") }, "host:port"),
        (PeerCluster { rtt_ms: Some(f64::NAN), ..peer(3, "north") }, "round trip time"),
    ] {
        let name = bad.name.clone();
        let reason = world.refuses(&name, LinkOp::Add { peer: bad });
        assert!(reason.contains(word), "{reason}");
    }
    let reason = world.refuses("other", LinkOp::Add { peer: peer(3, "north") });
    assert!(reason.contains("name one"), "{reason}");
    assert!(world.refuses("north", LinkOp::Pause).contains("there are west"));
    assert_eq!((world.state.map().peers.len(), world.mesh()), (1, 1));
}

#[test]
fn a_peer_is_removed_only_when_nobody_counts_on_it() {
    let mut world = east();
    let reason = world.refuses("west", LinkOp::Remove);
    assert!(reason.contains("flotilla link pause west"), "{reason}");
    world.does("west", LinkOp::Pause);
    let said = world.does("west", LinkOp::Remove);
    assert!(said.contains("out of the topology file too"), "{said}");
    assert!(world.does("west", LinkOp::Remove).contains("nothing changes"), "again");
    assert_eq!((world.peer("west"), world.mesh()), (None, 2));
    world.restart();
    assert_eq!(world.peer("west"), None, "though the file still lists it");
    let problems = world.state.status().problems;
    assert!(problems.iter().any(|line| line.contains("take it out of the file")), "{problems:?}");
    let reason = world.refuses("west", LinkOp::Add { peer: peer(2, "west") });
    assert!(reason.contains("is in the topology file"), "other addresses: {reason}");
    let listed = world.settings.peers[0].clone();
    let said = world.does("west", LinkOp::Add { peer: listed.clone() });
    assert!(said.contains("fenced"), "{said}");
    let again = world.does("west", LinkOp::Add { peer: listed });
    assert!(again.contains("nothing changes"), "{again}");
    let west = world.peer("west").unwrap();
    assert_eq!((west.standing, west.paused), (Standing::Fenced, false));
    assert_eq!(west.syncers, ["127.0.0.1:1"], "as the file says");
}

#[test]
fn a_store_without_mesh_versions_begins_them() {
    let world = east();
    let mut records = world.records.clone();
    let old = r#"[{"id": 2, "name": "west", "syncers": ["127.0.0.1:1"], "rtt_ms": 60.0}]"#;
    records.insert("peers".into(), old.into());
    let counters = String::from_utf8(records["counters"].clone()).unwrap();
    let counters = counters.replace(",\"mesh\":1", "");
    assert!(!counters.contains("mesh"), "{counters}");
    records.insert("counters".into(), counters.into());
    let (state, _) = State::load(world.settings.clone(), &records, 0).unwrap();
    assert_eq!((state.map().mesh_version, state.map().peers.len()), (1, 1));
    assert!(state.map().epoch > world.state.map().epoch, "the map has changed");
}

#[test]
fn one_tenure_is_renewed_and_the_others_go_on() {
    let mut world = east();
    world.register_syncer("s1");
    let before = world.held("s1");
    let (group, old) = (before[3].group, before[3].learner);
    let renew = |name: &str, learner| PdRequest::RenewTenure { name: name.into(), group, learner };
    assert_eq!(world.ask(renew("s1", old)), PdResponse::Done);
    let after = world.held("s1");
    assert!(after[3].learner > old && after[3].epoch == before[3].epoch + 1);
    for n in [0, 1, 2, 4, 5, 6, 7] {
        assert_eq!(before[n], after[n], "it did not ask for these");
    }
    assert_eq!(world.ask(renew("s1", old)), PdResponse::Done, "the answer was lost");
    assert_eq!(world.held("s1"), after, "once is enough");
    assert!(world.refused(renew("s1", ReplicaId(9_999))).contains("never given out"));
    assert!(world.refused(renew("s9", old)).contains("register first"));
    world.register_syncer("s2");
    assert_eq!(world.ask(renew("s2", after[3].learner)), PdResponse::Done);
    assert_eq!(world.held("s1"), after, "nobody ends another one's tenure");
    let gone = PdRequest::RenewTenure { name: "s1".into(), group: GroupId(99), learner: old };
    assert!(world.refused(gone).contains("does not exist"));
}

#[test]
fn a_backlog_that_grows_has_a_runway_even_when_its_syncer_reads_no_further() {
    let mut world = east();
    world.register_syncer("s1");
    let holder = world.group(GroupId(1)).replicas[0].clone();
    for second in 0..=60u64 {
        world.now_ms += 1000;
        // The log grows by a thousand entries of 1 KiB a second; the syncer stopped reading at 30.
        let applied = LogId { term: 1, index: second * 1000 };
        let status = ReplicaStatus {
            group: GroupId(1),
            replica: holder.id,
            term: 1,
            leads: true,
            applied,
            outrun: vec![],
        };
        let replicas = vec![status];
        world.ask(PdRequest::NodeHeartbeat { name: holder.node.clone(), replicas });
        let known = second.min(30) * 1000;
        let link = LinkStatus {
            backlog_entries: known,
            backlog_bytes: known * 1024,
            entry_bytes: 1024.0,
            ..LinkStatus::new(GroupId(1), ClusterId(2), LinkState::Disconnected)
        };
        let links = Some(vec![link]);
        world.ask(PdRequest::SyncerHeartbeat { name: "s1".into(), links, views: vec![] });
    }
    let link = world.state.status().links[0].clone();
    let left = (1u64 << 30) as f64 / (1000.0 * 1024.0) - 60.0;
    let runway = link.runway_seconds.unwrap();
    assert!((runway - left).abs() < 1.0, "{runway} is not {left}");
    world.does("west", LinkOp::Pause);
    world.does("west", LinkOp::Remove);
    assert!(world.state.status().links.is_empty(), "it is no link any more");
}
