//! What clients learn of each other's writes when two clusters could not, and what a node does whose
//! clock is wrong; and what nodes tell of what they hold.

use crate::harness::{Demo, Redis, alone, eventually, said};
use flotilla_chaos::http;
use flotilla_node::clock;
use flotilla_node::group::digest::{DigestCall, KeyPage, KeysRequest, ReplicaState};
use flotilla_node::group::remote::{Answer, Outcome};
use flotilla_node::tls::{Tls, TlsFiles};
use flotilla_node::transport::{Class, Client, Expect, kinds};
use flotilla_topology::ids::{ClusterId, GroupId, Role};
use flotilla_topology::slot::Slot;
use serde_json::Value as Json;
use std::path::Path;
use std::time::Duration;

/// The group of a key, once the node leads that is to lead: after a start leaderships move.
fn group_of(demo: &Demo, cluster: &str, key: &str) -> Json {
    let slot = u64::from(Slot::of(key.as_bytes()).0);
    eventually("the preferred leader leads", || {
        let output = demo.tool(&["status", "--json"]);
        let status: Json = serde_json::from_slice(&output.stdout).map_err(|_| said(&output))?;
        let clusters = status["clusters"].as_array().ok_or("no clusters")?;
        let found = clusters.iter().find(|told| told["map"]["name"] == cluster);
        let groups = found.and_then(|told| told["map"]["groups"].as_array()).ok_or("no groups")?;
        let carries = |group: &&Json| {
            let bound = |name: &str| group["slots"][name].as_u64().expect("a slot");
            (bound("first")..=bound("last")).contains(&slot)
        };
        let group = groups.iter().find(carries).ok_or("no group")?;
        let (leader, preferred) = (&group["leader"]["node"], &group["preferred_leader"]);
        if leader == preferred { Ok(group.clone()) } else { Err(group.to_string()) }
    })
}

fn node(demo: &Demo, cluster: &str, name: &Json) -> Json {
    let nodes = demo.cluster(cluster)["nodes"].as_array().expect("nodes").clone();
    nodes.into_iter().find(|node| node["name"] == *name).expect("a node of that name")
}

/// Asks a node of east for digests, as the command line does.
fn digests<T: Outcome>(demo: &Demo, node: &Json, call: &DigestCall) -> Result<T, String> {
    let east = demo.cluster("east");
    let path = |key: &str| east["client"][key].as_str().expect("a file").into();
    let files = TlsFiles { ca: path("ca"), cert: path("cert"), key: path("key") };
    let tls = Tls::load(&files).map_err(|error| error.to_string())?;
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let asked = runtime.block_on(async {
        let address = node["rpc"].as_str().expect("an address").to_owned();
        let expect = Expect { cluster: ClusterId(1), role: Role::Node, name: None };
        let client = Client::new(address, &tls, expect);
        client.call(Class::Bulk, kinds::DIGEST, call.encode(), Duration::from_secs(10)).await
    });
    let bytes = asked.map_err(|error| error.to_string())?;
    match Answer::<T>::decode(&bytes).map_err(|error| error.to_string())? {
        Answer::Done(answer) => Ok(answer),
        Answer::NotLeader(leader) => Err(format!("not the leader: {leader:?}")),
        Answer::Refused { reason } => Err(reason),
    }
}

/// The leader names the keys of a slot; all replicas tell the same of themselves at one position.
fn digests_are_told(demo: &Demo, group: &Json, key: &'static str) {
    let id = GroupId(group["id"].as_u64().expect("a number").try_into().expect("a group"));
    let leading = node(demo, "east", &group["leader"]["node"]);
    let (at_ms, slot) = (clock::wall_ms(), Slot::of(key.as_bytes()));
    let call = DigestCall::Keys(KeysRequest { group: id, at_ms, slot, after: None, max: 10 });
    let page: KeyPage = eventually("the keys are told", || digests(demo, &leading, &call));
    let names: Vec<&[u8]> = page.keys.iter().map(|digest| &digest.key[..]).collect();
    assert_eq!((names, page.more), (vec![key.as_bytes()], false));
    let replicas = group["replicas"].as_array().expect("replicas").clone();
    assert_eq!(replicas.len(), 3);
    eventually("all replicas stand at one position", || {
        let told = replicas.iter().map(|replica| {
            let node = node(demo, "east", &replica["node"]);
            digests::<ReplicaState>(demo, &node, &DigestCall::Replica(id))
        });
        let told = told.collect::<Result<Vec<_>, String>>()?;
        let level = told.iter().all(|state| state.at == told[0].at);
        assert!(!level || told.iter().all(|state| *state == told[0]), "{told:?}");
        if level { Ok(()) } else { Err(format!("{told:?}")) }
    });
}

fn metric(node: &Json, name: &str) -> f64 {
    let address = node["http"].as_str().expect("an address").to_owned();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let asked = http::get(&address, "/metrics", Duration::from_secs(5));
    let answer = runtime.block_on(asked).expect("metrics");
    let text = String::from_utf8_lossy(&answer.body);
    let values = text.lines().filter(|line| line.starts_with(name));
    let values = values.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
    values.fold(0.0, f64::max)
}

/// A conflict's fields by name; RESP2 shows them flat.
fn field(conflict: &str, name: &str) -> Option<String> {
    let words: Vec<&str> = conflict.split(' ').collect();
    let at = words.iter().position(|word| *word == name)?;
    words.get(at + 1).map(|word| (*word).to_owned())
}

#[test]
fn both_sides_tell_of_a_conflict() {
    let _alone = alone();
    let demo = Demo::start(&["--nodes", "1", "--rtt", "5ms"]);
    let (mut east, mut west) = (demo.redis("east", 0), demo.redis("west", 0));
    assert_eq!(east.call(&["FLOTILLA", "CONFLICTS"]), "");
    east.call(&["SET", "agreed", "v"]);
    west.becomes(&["GET", "agreed"], "v");
    for (from, to) in [("east", "west"), ("west", "east")] {
        demo.ctl(&["cut", from, to]);
    }
    east.call(&["SET", "both", "of-east"]);
    west.call(&["SET", "both", "of-west"]);
    demo.ctl(&["heal"]);
    east.becomes(&["GET", "both"], "of-west");
    for (redis, kind) in [(&mut west, "floor"), (&mut east, "replaced")] {
        let told = eventually("the conflict is told", || {
            let told = redis.call(&["FLOTILLA", "CONFLICTS", "KEY", "both"]);
            if told.is_empty() { Err("no conflict".to_owned()) } else { Ok(told) }
        });
        let get = |name: &str| field(&told, name).unwrap_or_else(|| panic!("no {name}: {told}"));
        assert_eq!(get("kind"), kind, "{told}");
        assert_eq!(get("lost-value"), "of-east", "{told}");
        assert_ne!(get("lost-cluster"), get("won-cluster"), "{told}");
        assert_eq!(redis.call(&["FLOTILLA", "CONFLICTS", "KEY", "agreed"]), "");
    }
    demo.verify_equal();
    demo.stop();
}

#[test]
fn a_leader_whose_clock_is_ahead_is_held_back() {
    let _alone = alone();
    let demo = Demo::start(&["--rtt", "5ms"]);
    let group = group_of(&demo, "east", "k");
    let leading = node(&demo, "east", &group["leader"]["node"]);
    let name = leading["name"].as_str().expect("a name").to_owned();
    let mut redis = Redis::new(leading["resp"].as_str().expect("an address"));
    redis.call(&["SET", "k", "v"]);
    digests_are_told(&demo, &group, "k");
    let clocks = Path::new(&demo.state).with_file_name("demo").join("clocks");
    let shift = |ms: &str| {
        std::fs::create_dir_all(&clocks).expect("a directory");
        let half = clocks.join("half-written");
        std::fs::write(&half, ms).expect("a file");
        std::fs::rename(half, clocks.join(&name)).expect("it is replaced in one step");
    };
    shift("3000");
    eventually("the node sees that its clock is ahead", || {
        let ahead_ms = metric(&leading, "flotilla_clock_ahead_ms");
        if ahead_ms > 2_500.0 { Ok(()) } else { Err(ahead_ms.to_string()) }
    });
    // Stamped by the others' clocks and the limit: nobody parks it, and it ends when it should.
    redis.call(&["SET", "k", "later"]);
    demo.redis("west", 0).becomes(&["GET", "k"], "later");
    let end: u64 = {
        redis.call(&["SET", "k", "ends", "PX", "60000"]);
        redis.call(&["PEXPIRETIME", "k"]).parse().expect("a time")
    };
    let latest = clock::wall_ms() + 60_000 + 600; // max_skew, and a little
    assert!(end <= latest, "{} ms later than it should", end - latest);
    shift("0");
    redis.call(&["SET", "k", "again"]);
    demo.redis("west", 0).becomes(&["GET", "k"], "again");
    demo.stop();
}
