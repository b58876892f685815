//! A lone PD on its own store.

use crate::world::*;
use bytes::Bytes;
use flotilla_node::pd_client::{PdClient, PdError};
use flotilla_node::transport::{Class, Client, Expect, RpcError, kinds};
use flotilla_topology::api::{PdRequest, PdResponse};
use flotilla_topology::ids::{ClusterId, Epoch, Role};
use std::time::Duration;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_is_born_and_watchers_are_told() {
    let world = World::new();
    let pd = start(world.config("pd")).await;
    let admin = world.admin(&[&pd]);
    let mut map = admin.watch_map();
    let n1 = world.client(&[&pd], Role::Node, "n1");
    assert!(register(&n1, "n1").await.unwrap().groups.is_empty(), "two more are expected");
    let born = world.three_nodes(&[&pd]).await;
    assert_eq!((born.namespaces[0].spec.name.as_str(), born.groups.len()), ("default", 4));
    until("the watcher sees it", &mut map, |map| map.epoch >= born.epoch).await;

    let created = admin.call(PdRequest::CreateNamespace { spec: spec("jobs") }).await.unwrap();
    let PdResponse::Namespace { namespace } = created else { panic!("{created:?}") };
    let seen = until("jobs", &mut map, |map| map.namespaces.len() == 2).await;
    assert_eq!(seen.groups.iter().filter(|group| group.namespace == namespace.id).count(), 2);

    for name in ["n1", "n2", "n3"] {
        let client = world.client(&[&pd], Role::Node, name);
        beat(&client, &seen, name).await.unwrap();
    }
    until("hints", &mut map, |map| map.groups.iter().all(|group| group.leader.is_some())).await;
    pd.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_must_not_be_is_refused() {
    let world = World::new();
    let pd = start(world.config("pd")).await;
    let n1 = world.client(&[&pd], Role::Node, "n1");
    register(&n1, "n1").await.unwrap();

    let again = PdRequest::RegisterNode { node: node("n1"), directory: 1, seen_epoch: Epoch(0) };
    let Err(PdError::Refused(reason)) = n1.call(again).await else { panic!("taken") };
    assert!(reason.contains("another data directory"), "{reason}");

    let Err(PdError::Refused(reason)) = register(&n1, "n2").await else { panic!("taken") };
    assert!(reason.contains("may not speak for node `n2`"), "{reason}");
    let Err(PdError::Refused(reason)) =
        n1.call(PdRequest::DropNamespace { name: "x".into() }).await
    else {
        panic!("a node dropped a namespace")
    };
    assert!(reason.contains("client certificate"), "{reason}");

    // A certificate of another cluster, though of the same authority, does not get in at all.
    let stranger = world.tls(ClusterId(2), Role::Node, "n1");
    let expect = Expect { cluster: EAST, role: Role::Pd, name: None };
    let address = pd.rpc_addr().to_string();
    let intruder = Client::new(address.clone(), &stranger, expect.clone());
    let call = |client: &Client, kind, payload: &'static [u8]| {
        client.call(Class::Control, kind, Bytes::from_static(payload), Duration::from_secs(5))
    };
    let outcome = call(&intruder, kinds::PD_CALL, br#"{"method":"status"}"#).await;
    assert!(outcome.is_err(), "a stranger was served: {outcome:?}");

    // Garbage is answered, and PD goes on.
    let own = Client::new(address, &world.tls(EAST, Role::Node, "n1"), expect);
    let deep = Box::leak(vec![b'['; 100_000].into_boxed_slice());
    for junk in [b"".as_slice(), b"{", br#"{"method":"fly"}"#, b"\xff\xfe", deep] {
        let outcome = call(&own, kinds::PD_CALL, junk).await;
        assert!(matches!(outcome, Err(RpcError::Refused(_))), "{outcome:?}");
    }
    assert!(matches!(call(&own, 1, b"").await, Err(RpcError::Refused(_))));
    assert!(call(&own, kinds::PD_CALL, br#"{"method":"status"}"#).await.is_ok());
    pd.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_keeps_everything() {
    let world = World::new();
    let config = world.config("pd");
    let pd = start(config.clone()).await;
    world.three_nodes(&[&pd]).await;
    let admin = world.admin(&[&pd]);
    admin.call(PdRequest::CreateNamespace { spec: spec("jobs") }).await.unwrap();
    admin.call(PdRequest::DropNamespace { name: "jobs".into() }).await.unwrap();
    let s1 = world.client(&[&pd], Role::Syncer, "s1");
    register_syncer(&s1, "s1").await;
    add_north(&admin).await;
    let before = status(&admin).await.map;
    assert!(before.peers[0].paused && before.mesh_version == 1);

    let second = start_fails(config.clone()).await;
    assert!(second.contains("stop the other PD"), "{second}");
    // No shutdown: as if it were killed.
    drop(pd);
    let mut config = world.config("pd");
    let pd = within("the lock is free", async {
        loop {
            match flotilla_pd::Pd::start(config.clone()).await {
                Ok(pd) => break pd,
                Err(error) => assert!(error.to_string().contains("stop the other PD"), "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    let admin = world.admin(&[&pd]);
    let after = status(&admin).await.map;
    assert_eq!(lasting(&before), lasting(&after));
    assert!(after.revision > before.revision && after.epoch == before.epoch);
    admin.call(PdRequest::CreateNamespace { spec: spec("jobs") }).await.unwrap();
    let jobs = status(&admin).await.map;
    let highest = before.groups.last().unwrap().id;
    let fresh = jobs.groups.iter().filter(|group| group.id > highest).map(|group| group.id.0);
    assert_eq!(fresh.collect::<Vec<_>>(), vec![highest.0 + 3, highest.0 + 4], "5 and 6 were used");
    pd.shutdown().await;

    config.cluster = ClusterId(7);
    let refused = start_fails(config.clone()).await;
    assert!(refused.contains("flotilla://1/pd/pd"), "{refused}");
    let other = world.config_of(ClusterId(7), "east", "pd");
    let refused = start_fails(other).await;
    assert!(refused.contains("belongs to cluster 1 `east`"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn syncers_are_given_groups_and_learners_are_published() {
    let world = World::new();
    let mut config = world.config("pd");
    config.topology = Some(two_clusters(&world));
    let pd = start(config).await;
    let born = world.three_nodes(&[&pd]).await;
    assert!(born.namespaces[0].spec.synced && born.peers[0].name == "west");
    let s1 = world.client(&[&pd], Role::Syncer, "s1");
    let mut map = s1.watch_map();
    register_syncer(&s1, "s1").await;
    let (version, first) = assignments(&s1, "s1", 0).await;
    assert_eq!(first.len(), 4);
    let ready = |assignment: &flotilla_topology::api::Assignment| PdRequest::LearnerReady {
        name: "s1".into(),
        group: assignment.group,
        learner: assignment.learner,
    };
    s1.call(ready(&first[0])).await.unwrap();
    let seen = until("the learner", &mut map, |map| !map.groups[0].learners.is_empty()).await;
    assert_eq!(seen.groups[0].learners[0].id, first[0].learner);

    // A watch that is under way hears of the new tenures of a syncer that registers again.
    let waiting = tokio::spawn({
        let s1 = s1.clone();
        async move { assignments(&s1, "s1", version).await }
    });
    register_syncer(&s1, "s1").await;
    let (_, second) = within("the watch wakes", waiting).await.unwrap();
    assert!(
        second.iter().zip(&first).all(|(b, a)| b.learner > a.learner && b.epoch == a.epoch + 1)
    );
    until("the old learner goes", &mut map, |map| map.groups[0].learners.is_empty()).await;
    assert!(matches!(s1.call(ready(&first[0])).await, Err(PdError::Refused(_))));
    pd.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silence_is_told_and_a_process_starts_without_pd() {
    let world = World::new();
    let pd = start(world.config("pd")).await;
    world.three_nodes(&[&pd]).await;
    let file = world.file("map.json");
    let client = world.client(&[&pd], Role::Node, "n1").with_map_file(file.clone());
    let mut map = client.watch_map();
    until("all fall silent", &mut map, |map| map.nodes.iter().all(|node| !node.alive)).await;
    let problems = status(&client).await.problems;
    assert!(problems.iter().any(|line| line.starts_with("node `n2`")), "{problems:?}");
    let known = client.map().unwrap();
    beat(&client, &known, "n1").await.unwrap();
    until("one is back", &mut map, |map| map.nodes[0].alive).await;
    within("the file", async {
        while !file.exists() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let nowhere = pd.rpc_addr().to_string();
    pd.shutdown().await;
    drop(client);

    let tls = world.tls(EAST, Role::Node, "n1");
    let client = PdClient::new(vec![nowhere.clone()], tls).with_map_file(file.clone());
    assert_eq!(client.seen_epoch(), known.epoch);
    assert_eq!(client.map().unwrap().groups.len(), 4);
    let foreign = world.tls(ClusterId(2), Role::Node, "n1");
    assert!(PdClient::new(vec![nowhere], foreign).with_map_file(file).map().is_none());

    // A PD without the old store is behind what the node has seen, and must not take it in.
    let empty = start(world.config("another")).await;
    let mut stranger = world.client(&[&empty], Role::Node, "n1");
    stranger = stranger.with_map_file(world.file("map.json"));
    let Err(PdError::Refused(reason)) = register(&stranger, "n1").await else { panic!("taken") };
    assert!(reason.contains("its store was lost"), "{reason}");
    empty.shutdown().await;
}

/// A topology file with east and west.
pub fn two_clusters(world: &World) -> std::path::PathBuf {
    let path = world.file("topology.toml");
    std::fs::write(
        &path,
        r#"
        mode = "async"
        [[datacenter]]
        name = "east"
        [[datacenter]]
        name = "west"
        [[rtt]]
        between = ["east", "west"]
        rtt = "60ms"
        [[cluster]]
        id = 1
        name = "east"
        datacenters = ["east"]
        pd = ["127.0.0.1:7510"]
        syncers = ["127.0.0.1:7610"]
        [[cluster]]
        id = 2
        name = "west"
        datacenters = ["west"]
        pd = ["127.0.0.1:7520"]
        syncers = ["127.0.0.1:7620"]
        "#,
    )
    .unwrap();
    path
}
