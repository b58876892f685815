//! Syncers compare clusters all the time: they say nothing wrong under load, and find what was lost.

use crate::harness::{Demo, Redis, alone, eventually, said};
use flotilla_chaos::http;
use flotilla_node::group::entry::Fence;
use flotilla_node::group::remote::{
    Answer, CursorsAnswer, CursorsRequest, RemoteAnswer, RemoteBatch, Verdict,
};
use flotilla_node::tls::{Tls, TlsFiles};
use flotilla_node::transport::{Class, Client, Expect, kinds};
use flotilla_topology::api::{ClusterMap, ClusterStatus, GroupInfo, LinkAudit};
use flotilla_topology::ids::{LogId, Origin, Role};
use flotilla_topology::slot::Slot;
use flotilla_topology::stamp::Stamp;
use serde_json::Value as Json;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const DEADLINE: Duration = Duration::from_secs(10);
/// Keys that are written while nothing is shipped: some of them are in every group.
const KEYS: u32 = 200;

/// Has the syncers compare as often as they may, and starts them again.
fn compare_often(demo: &Demo) {
    for (name, _) in demo.pids().iter().filter(|(name, _)| name.contains("syncer")) {
        let config = demo.config(name);
        let text = std::fs::read_to_string(&config).expect("its configuration");
        assert!(!text.contains("audit_every"), "{text}");
        std::fs::write(&config, format!("audit_every = \"1s\"\n{text}")).expect("a configuration");
        demo.ctl(&["kill", name]);
        demo.ctl(&["restart", name]);
    }
}

fn status(demo: &Demo, cluster: &str) -> ClusterStatus {
    let output = demo.tool(&["status", "--json"]);
    let told: Json = serde_json::from_slice(&output.stdout).expect("status prints JSON");
    let clusters: Vec<ClusterStatus> =
        serde_json::from_value(told["clusters"].clone()).expect("clusters");
    let found = clusters.into_iter().find(|one| one.map.name == cluster);
    found.unwrap_or_else(|| panic!("no cluster {cluster}: {told}"))
}

/// The sum of a gauge over all syncers of a cluster.
fn gauge(demo: &Demo, cluster: &str, name: &str) -> f64 {
    let state = demo.cluster(cluster);
    let address = state["syncers"][0]["http"].as_str().expect("an address").to_owned();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let answer = runtime.block_on(http::get(&address, "/metrics", DEADLINE)).expect("metrics");
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    let lines: Vec<&str> = text.lines().filter(|line| line.starts_with(name)).collect();
    assert!(!lines.is_empty(), "no {name}");
    lines.iter().filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

/// Waits until every group of a cluster was compared as a whole, in a pass that began after `since`.
fn passes_since(demo: &Demo, cluster: &str, since: Instant) -> Vec<LinkAudit> {
    eventually(&format!("{cluster} has compared everything"), || {
        let status = status(demo, cluster);
        let audits: Vec<LinkAudit> =
            status.links.iter().filter_map(|link| link.audit.clone()).collect();
        let slots: u64 = audits.iter().map(|audit| audit.compared_slots).sum();
        let fresh = |audit: &LinkAudit| {
            audit.age_seconds.is_some_and(|age| age < since.elapsed().as_secs_f64())
        };
        let all = audits.len() == status.map.groups.len() && slots >= 16_384;
        if all && audits.iter().all(fresh) { Ok(audits) } else { Err(format!("{audits:?}")) }
    })
}

/// Writes to both sides until it is told to end: new keys, a key that never rests, deletes, ends.
struct Load {
    ends: Arc<AtomicBool>,
    writes: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    fn start(demo: &Demo) -> Load {
        let (ends, writes) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let thread = |cluster: &'static str| {
            let (mut redis, ends) = (demo.redis(cluster, 0), Arc::clone(&ends));
            let writes = Arc::clone(&writes);
            std::thread::spawn(move || {
                for n in 0u64.. {
                    if ends.load(Ordering::Relaxed) {
                        return;
                    }
                    one_round(&mut redis, cluster, n);
                    writes.fetch_add(1, Ordering::Relaxed);
                }
            })
        };
        let threads = ["east", "west"].map(thread).into();
        Load { ends, writes, threads }
    }

    fn end(self) -> u64 {
        self.ends.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().expect("every write is answered");
        }
        self.writes.load(Ordering::Relaxed)
    }
}

fn one_round(redis: &mut Redis, cluster: &str, n: u64) {
    redis.call(&["SET", &format!("load:{cluster}:{n}"), "v"]);
    redis.call(&["INCR", "hot"]);
    redis.call(&["HSET", &format!("shared:{}", n % 50), cluster, &n.to_string()]);
    redis.call(&["DEL", &format!("load:{cluster}:{}", n / 2)]);
    redis.call(&["SET", &format!("short:{}", n % 20), cluster, "PX", "300"]);
}

/// Tells the leader of the group in west that carries a slot that it has everything of east's: what
/// a syncer would do that skips a stretch of the log. Whatever waits there is lost.
async fn skip_what_waits(demo: &Demo, slot: Slot) {
    let (east, west) = (status(demo, "east"), status(demo, "west"));
    let owner = |map: &ClusterMap| -> GroupInfo {
        map.groups.iter().find(|group| group.slots.contains(slot)).expect("an owner").clone()
    };
    let (source, target) = (owner(&east.map), owner(&west.map));
    let origin = Origin { cluster: east.map.cluster, incarnation: east.map.incarnation };
    let applied = east.replicas.iter().filter(|replica| replica.group == source.id);
    let end = applied.map(|replica| replica.applied).max_by_key(|at| at.index).expect("replicas");
    let tls = syncer_of_west(demo);
    for node in &west.map.nodes {
        let expect =
            Expect { cluster: west.map.cluster, role: Role::Node, name: Some(node.name.clone()) };
        let client = Client::new(node.addresses.rpc.clone(), &tls, expect);
        let asks = CursorsRequest { group: target.id, origin, source_groups: vec![source.id] };
        let answer =
            client.call(Class::Control, kinds::CURSORS, asks.encode(), DEADLINE).await.unwrap();
        let Ok(Answer::Done(cursors)) = CursorsAnswer::decode(&answer) else { continue };
        let from: LogId = cursors[0];
        assert!(from.index < end.index, "something waits behind {from}, up to {end}");
        let batch = RemoteBatch {
            target: target.id,
            origin,
            source_group: source.id,
            source_slots: source.slots,
            from,
            to: end,
            closed: Stamp::ZERO,
            fence: Fence::default(),
            vector: vec![],
            effects: vec![],
        };
        let answer = client
            .call(Class::Forward, kinds::REMOTE_BATCH, batch.encode(), DEADLINE)
            .await
            .unwrap();
        let taken = RemoteAnswer::decode(&answer).unwrap();
        assert_eq!(taken, Answer::Done(Verdict::Accepted { cursor: end }));
        return;
    }
    panic!("nobody leads group {} of west", target.id);
}

fn syncer_of_west(demo: &Demo) -> Tls {
    let state = demo.cluster("west");
    let name = state["syncers"][0]["name"].as_str().expect("a name");
    let text = std::fs::read_to_string(demo.config(name)).expect("its configuration");
    let config: toml::Table = toml::from_str(&text).expect("TOML");
    let path = |key: &str| config["tls"][key].as_str().expect("a path").into();
    Tls::load(&TlsFiles { ca: path("ca"), cert: path("cert"), key: path("key") }).unwrap()
}

fn problems(demo: &Demo, cluster: &str) -> Vec<String> {
    let all = status(demo, cluster).problems;
    all.into_iter().filter(|line| line.contains("differ in")).collect()
}

#[test]
fn what_was_lost_between_clusters_is_found_under_load_and_mended() {
    let _alone = alone();
    let demo = Demo::start(&["--rtt", "20ms"]);
    compare_often(&demo);
    let load = Load::start(&demo);
    for cluster in ["east", "west"] {
        // Twice: the first pass may have begun before the load.
        let first = Instant::now();
        passes_since(&demo, cluster, first);
        let audits = passes_since(&demo, cluster, Instant::now());
        let different: u64 = audits.iter().map(|audit| audit.different_slots).sum();
        assert_eq!(different, 0, "{audits:?}");
        assert_eq!(problems(&demo, cluster), Vec::<String>::new());
        assert_eq!(gauge(&demo, cluster, "flotilla_link_different_slots"), 0.0);
    }

    demo.does(&["link", "pause", "west"]);
    eventually("east ships nothing", || {
        let links = status(&demo, "east").links;
        let paused = |word: &str| links.iter().all(|link| link.state.word() == word);
        if paused("paused") { Ok(()) } else { Err(format!("{links:?}")) }
    });
    let mut east = demo.redis("east", 0);
    for n in 0..KEYS {
        east.call(&["SET", &format!("lost:{n}"), "v"]);
    }
    let slot = Slot::of(b"lost:0");
    eventually("PD has heard how far east is", || {
        // Heartbeats of nodes tell of it; what was written a while ago is in them.
        let lag = status(&demo, "east").links.iter().map(|link| link.backlog_entries).min();
        if lag.is_some_and(|entries| entries > 0) { Ok(()) } else { Err(format!("{lag:?}")) }
    });
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(skip_what_waits(&demo, slot));
    demo.does(&["link", "resume", "west"]);

    for (cluster, other) in [("east", "west"), ("west", "east")] {
        let line = eventually("PD names the difference", || {
            problems(&demo, cluster).pop().ok_or_else(|| format!("{:?}", status(&demo, cluster)))
        });
        let names = format!("`{cluster}` and `{other}` differ in");
        assert!(line.contains(&names) && line.contains("namespace `default`"), "{line}");
        assert!(line.contains(&format!("flotilla link merge {other}")), "{line}");
        assert!(gauge(&demo, cluster, "flotilla_link_different_slots") > 0.0);
    }
    let writes = load.end();
    assert!(writes > 100, "{writes} rounds are no load");

    // The lost key has not come by itself, and verify names its slot.
    let lost = eventually("a lost key is named", || {
        let slots = slot.to_string();
        let words = ["verify", "--namespace", "default", "--slots", &slots, "--json"];
        let output = demo.tool(&words);
        if output.status.code() == Some(1) { Ok(said(&output)) } else { Err(said(&output)) }
    });
    assert!(lost.contains("lost:0"), "{lost}");
    let nonsense = demo.tool(&["verify", "--slots", "9-7"]);
    assert_eq!(nonsense.status.code(), Some(2), "{}", said(&nonsense));
    let nowhere = demo.tool(&["verify", "--namespace", "nowhere"]);
    assert_eq!(nowhere.status.code(), Some(2), "{}", said(&nowhere));

    // Both ways: a delete that was lost may have been forgotten in east meanwhile, since west had said
    // that it has everything.
    demo.does(&["link", "merge", "west"]);
    demo.does(&["link", "merge", "east"]);
    demo.redis("west", 0).becomes(&["GET", "lost:0"], "v");
    demo.verify_equal();
    for cluster in ["east", "west"] {
        eventually("the problem goes", || {
            let lines = problems(&demo, cluster);
            if lines.is_empty() { Ok(()) } else { Err(lines.join("; ")) }
        });
        assert_eq!(gauge(&demo, cluster, "flotilla_link_different_slots"), 0.0);
    }
    demo.stop();
}
