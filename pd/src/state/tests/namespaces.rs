//! Stories of namespaces: how they are created, and synced later.

use super::*;

#[test]
fn namespaces_are_idempotent_and_checked() {
    let mut world = east();
    let first = world.ask(PdRequest::CreateNamespace { spec: spec("jobs", 4, 3) });
    let epoch = world.state.map().epoch;
    assert_eq!(first, world.ask(PdRequest::CreateNamespace { spec: spec("jobs", 4, 3) }));
    assert_eq!(epoch, world.state.map().epoch, "repeating changes nothing");
    for (bad, word) in [
        (spec("jobs", 5, 3), "exists with 4 partitions"),
        (spec("", 4, 3), "1 to 64 characters"),
        (spec("a/b", 4, 3), "1 to 64 characters"),
        (spec("big", 0, 3), "1 to 1024"),
        (spec("big", 1_025, 3), "1 to 1024"),
        (spec("even", 1, 2), "1, 3 or 5"),
        (spec("wide", 1, 5), "5 live nodes and there are 3"),
    ] {
        let reason = world.refused(PdRequest::CreateNamespace { spec: bad });
        assert!(reason.contains(word), "{reason}");
    }
    assert_eq!(world.ask(PdRequest::DropNamespace { name: "jobs".into() }), PdResponse::Done);
    assert_eq!(world.ask(PdRequest::DropNamespace { name: "jobs".into() }), PdResponse::Done);
    assert_eq!(world.state.map().namespaces.len(), 1);
}

#[test]
fn sync_is_switched_on_once_and_for_good() {
    let mut world = east();
    world.register_syncer("s1");
    let plain = NamespaceSpec { synced: false, ..spec("old", 4, 3) };
    world.ask(PdRequest::CreateNamespace { spec: plain.clone() });
    let held = world.held("s1").len();
    let ask = |dry_run| PdRequest::SyncNamespace { name: "old".into(), dry_run };
    let info = |world: &World| {
        let map = world.state.map();
        map.namespaces.iter().find(|ns| ns.spec.name == "old").unwrap().clone()
    };
    assert!(!info(&world).born_synced() && !info(&world).spec.synced);

    let epoch = world.state.map().epoch;
    let PdResponse::LinkPlan { lines, done: false } = world.ask(ask(true)) else { panic!() };
    let told = lines.join("\n");
    for word in ["in 4 groups", "`west`", "full state", "tombstones", "no way back"] {
        assert!(told.contains(word), "{told}");
    }
    assert_eq!(world.state.map().epoch, epoch, "a dry run changes nothing");
    assert!(!info(&world).spec.synced);

    let PdResponse::LinkPlan { lines: same, done: true } = world.ask(ask(false)) else { panic!() };
    assert_eq!(same, lines);
    assert!(info(&world).spec.synced && !info(&world).born_synced());
    world.pass(1_000, &["n1", "n2", "n3"], &["s1"]);
    assert_eq!(world.held("s1").len(), held + 4, "each of its groups has a tenure");
    let epoch = world.state.map().epoch;
    let PdResponse::LinkPlan { lines, done: true } = world.ask(ask(false)) else { panic!() };
    assert!(lines.concat().contains("synced already"), "{lines:?}");
    assert_eq!(world.state.map().epoch, epoch, "repeating changes nothing");

    world.restart();
    assert!(info(&world).spec.synced && !info(&world).born_synced(), "it is stored");
    let reason = world.refused(PdRequest::CreateNamespace { spec: plain });
    assert!(reason.contains("never switched off"), "{reason}");
    let other = NamespaceSpec { synced: false, ..spec("other", 1, 3) };
    world.ask(PdRequest::CreateNamespace { spec: other });
    let reason = world.refused(PdRequest::CreateNamespace { spec: spec("other", 1, 3) });
    assert!(reason.contains("flotilla namespace sync other"), "{reason}");
    let nothing = PdRequest::SyncNamespace { name: "nothing".into(), dry_run: false };
    let reason = world.refused(nothing);
    assert!(reason.contains("no namespace `nothing`: there are default, old"), "{reason}");
}

#[test]
fn the_largest_namespace_fits_one_transaction() {
    let mut world = east();
    world.register_syncer("s1");
    let spec = spec("huge", PARTITIONS_MAX, 3);
    assert!(matches!(world.ask(PdRequest::CreateNamespace { spec }), PdResponse::Namespace { .. }));
    world.pass(20_000, &["n1", "n2", "n3"], &["s1"]);
    assert_eq!(world.held("s1").len(), 8 + PARTITIONS_MAX as usize);
    world.restart();
    world.ask(PdRequest::DropNamespace { name: "huge".into() });
    assert_eq!(world.state.map().groups.len(), 8);
}
