//! A cluster is fenced, both sides go on, and it comes back with its data.

use crate::harness::{Demo, alone, eventually, runs, said};
use serde_json::Value as Json;

/// Raises the incarnation in the configuration of a cluster's PD and starts that again. What runs in
/// the former life ends when it hears of the new one; [`supervise`] starts it again.
fn begins_another_life(demo: &Demo, cluster: &str) {
    let names: Vec<String> = demo.pids().into_iter().map(|(name, _)| name).collect();
    let mine = |name: &&String| name.starts_with(&format!("{cluster}-"));
    let pd = names.iter().find(|name| mine(name) && name.contains("pd")).expect("a PD");
    let config = demo.config(pd);
    let text = std::fs::read_to_string(&config).expect("its configuration");
    assert!(!text.contains("incarnation"), "{text}");
    std::fs::write(&config, format!("incarnation = 2\n{text}")).expect("its configuration");
    for name in names.iter().filter(mine) {
        demo.ctl(&["kill", name]);
    }
    demo.ctl(&["restart", pd]);
}

/// Starts again what has ended in a cluster, as a supervisor does.
fn supervise(demo: &Demo, cluster: &str) {
    for (name, pid) in demo.pids() {
        if name.starts_with(&format!("{cluster}-")) && !runs(pid) {
            // It may end once more, with a map of the former life in its directory.
            demo.try_ctl(&["restart", &name]);
        }
    }
}

fn links_are(demo: &Demo, state: &str) {
    eventually(&format!("all links are {state}"), || {
        supervise(demo, "west");
        let output = demo.tool(&["link", "list", "--json"]);
        let links: Json = serde_json::from_slice(&output.stdout).map_err(|e| e.to_string())?;
        let all = links.as_array().expect("links");
        match all.len() == 2 && all.iter().all(|l| l["state"] == state && l["standing"] == state) {
            true => Ok(()),
            false => Err(links.to_string()),
        }
    });
}

#[test]
fn a_fenced_cluster_returns_with_its_data_and_nothing_deleted_comes_back() {
    let _alone = alone();
    let demo = Demo::start(&["--rtt", "20ms"]);
    let (mut east, mut west) = (demo.redis("east", 0), demo.redis("west", 0));
    for number in 0..100 {
        east.call(&["SET", &format!("old:{number}"), "east"]);
        west.call(&["HSET", &format!("hash:{number}"), "f", "west", "g", "west"]);
    }
    west.becomes(&["GET", "old:99"], "east");
    east.becomes(&["HGET", "hash:99", "g"], "west");
    demo.verify_equal();

    demo.ctl(&["cut", "east", "west"]);
    demo.ctl(&["cut", "west", "east"]);
    demo.does(&["link", "fence", "west"]);
    for number in 0..50 {
        east.call(&["DEL", &format!("old:{number}")]);
        east.call(&["HDEL", &format!("hash:{number}"), "f"]);
        east.call(&["SET", &format!("new:{number}"), "east"]);
        west.call(&["SET", &format!("there:{number}"), "west"]);
        west.call(&["HSET", &format!("hash:{number}"), "h", "west"]);
        west.call(&["DEL", &format!("old:{}", number + 50)]);
    }
    // Nobody holds back what east deletes: it is forgotten.
    eventually("east has forgotten what it deleted", || {
        let census = said(&demo.tool(&["census"]));
        let mut east = census.lines().filter(|line| line.contains("east-n"));
        let clean = |line: &str| {
            let numbers: Vec<&str> = line.split_whitespace().skip(1).collect();
            numbers.iter().skip(2).all(|number| *number == "0")
        };
        if east.all(clean) { Ok(()) } else { Err(census) }
    });
    demo.ctl(&["heal"]);

    begins_another_life(&demo, "west");
    demo.does(&["link", "return", "west"]);
    links_are(&demo, "live");
    demo.verify_equal();
    for (name, redis) in [("east", &mut east), ("west", &mut west)] {
        redis.becomes(&["PING"], "PONG");
        let is_there = |number: &i32| redis.call(&["EXISTS", &format!("old:{number}")]) == "1";
        let back: Vec<i32> = (0..100).filter(is_there).collect();
        assert!(back.is_empty(), "deleted keys are in {name}: {back:?}");
        redis.becomes(&["DBSIZE"], "200");
        for number in [0, 20, 49] {
            redis.becomes(
                &["EXISTS", &format!("old:{number}"), &format!("old:{}", number + 50)],
                "0",
            );
            redis.becomes(&["GET", &format!("new:{number}")], "east");
            redis.becomes(&["GET", &format!("there:{number}")], "west");
            redis.becomes(&["HGET", &format!("hash:{number}"), "f"], "nil");
            redis.becomes(&["HMGET", &format!("hash:{number}"), "g", "h"], "west west");
        }
        assert_eq!(redis.call(&["GET", "old:0"]), "nil", "{name}");
    }
    east.call(&["SET", "after", "it"]);
    west.becomes(&["GET", "after"], "it");
    west.call(&["SET", "and", "back"]);
    east.becomes(&["GET", "and"], "back");
    eventually("nothing waits to be collected", || {
        let census = demo.tool(&["census"]);
        if census.status.success() { Ok(()) } else { Err(said(&census)) }
    });
    demo.verify_equal();
    demo.stop();
}
