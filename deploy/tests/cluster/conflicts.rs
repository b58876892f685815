//! What clients learn of each other's writes when two clusters could not, and what a node does whose
//! clock is wrong.

use crate::harness::{Demo, Redis, alone, eventually};
use flotilla_chaos::http;
use serde_json::Value as Json;
use std::path::Path;
use std::time::Duration;

/// The node that leads the group of a key: the one that is not moved away from.
fn leader(demo: &Demo, cluster: &str, key: &str) -> Json {
    let nodes = demo.cluster(cluster)["nodes"].as_array().expect("nodes").clone();
    eventually("a node leads", || {
        for node in &nodes {
            let address = node["cluster_resp"].as_str().expect("an address");
            if Redis::new(address).try_call(&["SET", key, "v"]).is_ok() {
                return Ok(node.clone());
            }
        }
        Err("nobody takes a write".to_owned())
    })
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
fn a_leader_whose_clock_is_ahead_takes_no_writes() {
    let _alone = alone();
    let demo = Demo::start(&["--rtt", "5ms"]);
    let leading = leader(&demo, "east", "k");
    let name = leading["name"].as_str().expect("a name").to_owned();
    let mut redis = Redis::new(leading["resp"].as_str().expect("an address"));
    let clocks = Path::new(&demo.state).with_file_name("demo").join("clocks");
    let shift = |ms: &str| {
        std::fs::create_dir_all(&clocks).expect("a directory");
        let half = clocks.join("half-written");
        std::fs::write(&half, ms).expect("a file");
        std::fs::rename(half, clocks.join(&name)).expect("it is replaced in one step");
    };
    shift("3000");
    eventually("writes are refused", || match redis.try_call(&["SET", "k", "later"]) {
        Err(why) if why.contains("TRYAGAIN") => Ok(()),
        other => Err(format!("{other:?}")),
    });
    assert!(metric(&leading, "flotilla_clock_ahead_ms") > 2_500.0);
    assert!(metric(&leading, "flotilla_refused_clock_ahead_total") >= 1.0);
    assert!(redis.try_call(&["GET", "k"]).is_ok(), "reads go on");
    shift("0");
    eventually("writes are taken again", || redis.try_call(&["SET", "k", "again"]).map(|_| ()));
    demo.redis("west", 0).becomes(&["GET", "k"], "again");
    demo.stop();
}
