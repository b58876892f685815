//! PDs that keep nothing themselves, on a real etcd.

use crate::world::*;
use flotilla_node::pd_client::PdError;
use flotilla_pd::config::{EtcdConfig, StoreConfig};
use flotilla_pd::{Config, Pd};
use flotilla_topology::api::PdRequest;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

/// An etcd of this test alone.
struct Etcd {
    process: Child,
    endpoint: String,
    _dir: TempDir,
}

impl Drop for Etcd {
    fn drop(&mut self) {
        // It may have ended already; either way it is waited for.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn free_ports() -> [u16; 2] {
    let held = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    held.map(|listener| listener.local_addr().unwrap().port())
}

fn etcd() -> Etcd {
    let dir = tempfile::tempdir().unwrap();
    let [client, peer] = free_ports();
    let (endpoint, peer) =
        (format!("http://127.0.0.1:{client}"), format!("http://127.0.0.1:{peer}"));
    let process = Command::new("etcd")
        .arg("--data-dir")
        .arg(dir.path().join("data"))
        .args(["--listen-client-urls", &endpoint, "--advertise-client-urls", &endpoint])
        .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
        .args(["--initial-cluster", &format!("default={peer}")])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("etcd is needed for this test: `make setup` installs it");
    Etcd { process, endpoint, _dir: dir }
}

fn config(world: &World, etcd: &Etcd, name: &str) -> Config {
    let endpoints = vec![etcd.endpoint.clone()];
    Config {
        store: StoreConfig::Etcd(EtcdConfig { endpoints, lease_seconds: 2 }),
        ..world.config(name)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_leads_and_the_other_takes_over() {
    let (world, etcd) = (World::new(), etcd());
    let first = start(config(&world, &etcd, "pd-1")).await;
    let only_first = world.admin(&[&first]);
    let mut map = only_first.watch_map();
    until("the first leads", &mut map, |_| true).await;
    let second = start(config(&world, &etcd, "pd-2")).await;

    // Who knows only the follower is pointed to the leader.
    let born = world.three_nodes(&[&second]).await;
    assert_eq!(born.groups.len(), 4);
    let both = world.admin(&[&first, &second]);
    let mut map = both.watch_map();
    let before = until("the map", &mut map, |map| map.groups.len() == 4).await;

    add_north(&both).await;
    // As if killed: nothing is resigned, the lease runs out.
    drop(first);
    both.call(PdRequest::CreateNamespace { spec: spec("jobs") }).await.unwrap_or_else(|error| {
        panic!("nobody took over: {error}");
    });
    let after = until("jobs", &mut map, |map| map.namespaces.len() == 2).await;
    assert!(after.revision > before.revision && after.epoch > before.epoch);
    assert!(after.peers[0].paused && after.mesh_version == 1, "{:?}", after.peers);
    let highest = before.groups.iter().flat_map(|group| &group.replicas).map(|r| r.id).max();
    let new = after.groups.iter().filter(|group| group.id > before.groups[3].id);
    assert!(new.flat_map(|group| &group.birth).all(|replica| Some(replica.id) > highest));

    // An orderly end hands over at once, and what was written is there again.
    let third = start(config(&world, &etcd, "pd-1")).await;
    second.shutdown().await;
    let again = status(&world.admin(&[&third])).await.map;
    assert_eq!(lasting(&again), lasting(&after));
    third.shutdown().await;
}

/// What a PD feels that slept through the end of its lease while another one took over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deposed_leader_writes_nothing() {
    let (world, etcd) = (World::new(), etcd());
    let pd = start(config(&world, &etcd, "pd-1")).await;
    let born = world.three_nodes(&[&pd]).await;
    let mut keys = etcd_client::Client::connect([&etcd.endpoint], None).await.unwrap();
    let leader = format!("/flotilla/{EAST}/leader");
    let held = keys.get(leader.as_str(), None).await.unwrap();
    assert_eq!(held.kvs()[0].value(), pd.rpc_addr().to_string().as_bytes());
    keys.delete(leader.as_str(), None).await.unwrap();
    keys.put(leader.as_str(), "127.0.0.1:1", None).await.unwrap();

    let admin = world.admin(&[&pd]);
    let error = admin.call(PdRequest::CreateNamespace { spec: spec("jobs") }).await.unwrap_err();
    assert!(matches!(error, PdError::Unavailable(_)), "{error}");
    keys.delete(leader.as_str(), None).await.unwrap();
    let mut map = admin.watch_map();
    let again = until("it leads again", &mut map, |map| map.revision > born.revision).await;
    assert_eq!(lasting(&again), lasting(&born), "nothing was written meanwhile");
    admin.call(PdRequest::CreateNamespace { spec: spec("jobs") }).await.unwrap();
    pd.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_of_another_cluster_name_is_apart() {
    let (world, etcd) = (World::new(), etcd());
    let east = start(config(&world, &etcd, "pd-1")).await;
    let endpoints = vec![etcd.endpoint.clone()];
    let west_id = flotilla_topology::ids::ClusterId(2);
    let west: Pd = start(Config {
        store: StoreConfig::Etcd(EtcdConfig { endpoints, lease_seconds: 2 }),
        ..world.config_of(west_id, "west", "pd-1")
    })
    .await;
    world.three_nodes(&[&east]).await;
    let admin = world.client_of(west_id, &[&west], flotilla_topology::ids::Role::Client, "admin");
    assert!(status(&admin).await.map.nodes.is_empty());
    east.shutdown().await;
    west.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_waits_for_an_etcd_that_comes_back() {
    let (world, mut etcd) = (World::new(), etcd());
    let pd = start(config(&world, &etcd, "pd-1")).await;
    world.three_nodes(&[&pd]).await;
    let admin = world.admin(&[&pd]);
    let before = status(&admin).await.map;
    etcd.process.kill().unwrap();
    etcd.process.wait().unwrap();
    let spec = spec("jobs");
    assert!(admin.call(PdRequest::CreateNamespace { spec: spec.clone() }).await.is_err());
    // The same data directory and ports.
    let dir = etcd._dir.path().join("data");
    let peer = format!("http://127.0.0.1:{}", free_ports()[0]);
    etcd.process = Command::new("etcd")
        .arg("--data-dir")
        .arg(dir)
        .args(["--listen-client-urls", &etcd.endpoint, "--advertise-client-urls", &etcd.endpoint])
        .args(["--listen-peer-urls", &peer])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    within("it leads again", async {
        while admin.call(PdRequest::CreateNamespace { spec: spec.clone() }).await.is_err() {}
    })
    .await;
    let after = status(&admin).await.map;
    assert_eq!(after.groups.len(), before.groups.len() + 2);
    pd.shutdown().await;
}
