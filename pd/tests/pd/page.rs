//! The http port: the page, and what it is made of.

use crate::embedded::two_clusters;
use crate::world::*;
use flotilla_pd::Pd;
use flotilla_topology::api::{LinkState, LinkStatus, PdRequest};
use flotilla_topology::ids::{ClusterId, Role};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

async fn get(pd: &Pd, path: &str) -> String {
    let mut tcp = TcpStream::connect(pd.http_addr()).await.unwrap();
    let request = format!("GET {path} HTTP/1.0\r\nHost: pd\r\n\r\n");
    tcp.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    within(path, tcp.read_to_string(&mut answer)).await.unwrap();
    answer
}

async fn json(pd: &Pd, path: &str) -> Value {
    let answer = get(pd, path).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.0 200"), "{path}: {head}");
    serde_json::from_str(body).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_is_whole_and_asks_nobody_else() {
    let world = World::new();
    let pd = start(world.config("pd")).await;
    world.three_nodes(&[&pd]).await;
    let page = get(&pd, "/").await;
    let head = page.to_lowercase();
    assert!(head.contains("content-security-policy: default-src 'none'; script-src 'self'"));
    for asset in ["/app.js", "/style.css", "/icon.svg"] {
        assert!(page.contains(asset), "{asset} is not on the page");
        let text = get(&pd, asset).await;
        assert!(text.starts_with("HTTP/1.0 200"), "{asset}");
        let allowed = text.replace("http://www.w3.org/2000/svg", "");
        assert!(!allowed.contains("http://") && !allowed.contains("https://"), "{asset}");
    }
    assert!(
        !page.contains("style=") && !page.contains("onclick"),
        "the policy forbids inline code"
    );

    assert_eq!(json(&pd, "/health").await["leads"], true);
    assert_eq!(json(&pd, "/api/v1/map").await["groups"].as_array().unwrap().len(), 4);
    assert_eq!(json(&pd, "/api/v1/status").await["map"]["name"], "east");
    let metrics = get(&pd, "/metrics").await;
    for name in ["flotilla_pd_map_epoch", "flotilla_pd_requests_total", "flotilla_pd_nodes"] {
        assert!(metrics.contains(name), "{name}");
    }
    assert!(get(&pd, "/nothing").await.starts_with("HTTP/1.0 404"));
    pd.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_directions_of_a_link_are_shown() {
    let world = World::new();
    let west_id = ClusterId(2);
    let mut config = world.config_of(west_id, "west", "pd");
    config.topology = Some(two_clusters(&world));
    config.bootstrap.nodes = 1;
    let west = start(config).await;
    let mut config = world.config("pd");
    config.topology = Some(two_clusters(&world));
    config.bootstrap.nodes = 1;
    config.peers.insert("west".into(), vec![west.http_addr().to_string()]);
    let east = start(config).await;

    let link = |group, peer, milliseconds: f64| LinkStatus {
        lag_p50_seconds: Some(milliseconds / 2000.0),
        lag_p99_seconds: Some(milliseconds / 1000.0),
        ..LinkStatus::new(group, peer, LinkState::Live)
    };
    let mut syncers = Vec::new();
    for (cluster, pd, peer, lag) in [(EAST, &east, west_id, 43.0), (west_id, &west, EAST, 31.0)] {
        let n1 = world.client_of(cluster, &[pd], Role::Node, "n1");
        let mut info = node("n1");
        info.datacenter = if cluster == EAST { "east".into() } else { "west".into() };
        let map = register_node(&n1, info).await.unwrap();
        let s1 = world.client_of(cluster, &[pd], Role::Syncer, "s1");
        let syncer = flotilla_topology::api::SyncerInfo {
            name: "s1".into(),
            datacenter: if cluster == EAST { "east".into() } else { "west".into() },
            rpc: "127.0.0.1:5".into(),
            link: "127.0.0.1:6".into(),
            http: "127.0.0.1:7".into(),
            alive: false,
        };
        s1.call(PdRequest::RegisterSyncer { syncer }).await.unwrap();
        let (_, groups) = assignments(&s1, "s1", 0).await;
        let links: Vec<_> = groups.iter().map(|one| link(one.group, peer, lag)).collect();
        syncers.push((n1, map, s1, links));
    }
    // Whoever does not go on sending heartbeats falls silent within a second.
    let both_told = async {
        loop {
            for (n1, map, s1, links) in &syncers {
                beat(n1, map, "n1").await.unwrap();
                let links = Some(links.clone());
                s1.call(PdRequest::SyncerHeartbeat { name: "s1".into(), links, views: vec![] })
                    .await
                    .unwrap();
            }
            let seen = json(&east, "/api/v1/overview").await;
            if (0..2).all(|n| seen["links"][n]["state"] == "live") {
                break seen;
            }
        }
    };
    let seen = within("both are live", both_told).await;
    assert_eq!(seen["links"][0]["from"], "east");
    assert_eq!(seen["links"][1]["from"], "west", "{seen}");
    assert_eq!(seen["links"][1]["lag_p99_seconds"], 0.031);
    let sentence = seen["verdict"]["sentence"].as_str().unwrap();
    assert!(
        sentence.starts_with("All links live. Worst lag 43 ms east→west, group "),
        "{sentence}"
    );

    // West's PD was told no address of east's: it says so instead of guessing.
    let seen = json(&west, "/api/v1/overview").await;
    assert!(seen["clusters"][1]["error"].as_str().unwrap().contains("peers.east"), "{seen}");
    east.shutdown().await;
    west.shutdown().await;
}
