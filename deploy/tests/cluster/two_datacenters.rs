//! The demo as a newcomer uses it: two clusters, a link each way, and what breaks them.

use crate::harness::{Demo, alone, eventually, flotilla, runs, said, signal};
use serde_json::Value as Json;

const INCREMENTS: i64 = 300;

#[test]
fn writes_travel_both_ways_and_nothing_is_lost_when_processes_die() {
    let _alone = alone();
    let demo = Demo::start(&["--rtt", "20ms"]);
    commands_follow(&demo);
    counters_add_up(&demo);
    tools_answer(&demo);
    a_cut_is_one_way(&demo);
    a_killed_syncer_comes_back(&demo);
    a_killed_leader_is_replaced(&demo);
    demo.verify_equal();
    demo.stop();
}

fn commands_follow(demo: &Demo) {
    let (mut east, mut west) = (demo.redis("east", 0), demo.redis("west", 1));
    assert_eq!(east.call(&["SET", "k", "v"]), "OK");
    west.becomes(&["GET", "k"], "v");
    west.call(&["HSET", "h", "a", "1", "b", "2"]);
    east.becomes(&["HGET", "h", "b"], "2");
    east.call(&["HDEL", "h", "a"]);
    west.becomes(&["HLEN", "h"], "1");
    east.call(&["EXPIRE", "h", "1000"]);
    eventually("the expiry follows", || match west.call(&["TTL", "h"]).parse::<i64>() {
        Ok(seconds) if seconds > 900 => Ok(()),
        other => Err(format!("{other:?}")),
    });
    west.call(&["DEL", "k"]);
    east.becomes(&["EXISTS", "k"], "0");
    east.call(&["SET", "soon", "gone", "PX", "300"]);
    west.becomes(&["GET", "soon"], "nil");
}

fn counters_add_up(demo: &Demo) {
    std::thread::scope(|scope| {
        for (cluster, node) in [("east", 1), ("west", 2)] {
            let mut redis = demo.redis(cluster, node);
            scope.spawn(move || {
                for _ in 0..INCREMENTS {
                    redis.call(&["INCR", "visits"]);
                }
            });
        }
    });
    for cluster in ["east", "west"] {
        let total = (2 * INCREMENTS).to_string();
        demo.redis(cluster, 0).becomes(&["GET", "visits"], &total);
    }
    demo.verify_equal();
}

fn tools_answer(demo: &Demo) {
    let status = eventually("status is healthy", || {
        let output = demo.tool(&["status", "--json"]);
        if output.status.success() { Ok(output.stdout) } else { Err(said(&output)) }
    });
    let status: Json = serde_json::from_slice(&status).unwrap();
    assert_eq!(status["clusters"].as_array().unwrap().len(), 2);
    let lag = demo.tool(&["lag", "--json"]);
    let links: Json = serde_json::from_slice(&lag.stdout).unwrap();
    assert_eq!(links.as_array().unwrap().len(), 2, "{links}");
    let pd = demo.cluster("east")["pd"][0]["http"].as_str().unwrap().to_owned();
    let by_address = flotilla(&["status", "--pd", &pd]);
    assert!(said(&by_address).contains("cluster east"), "{}", said(&by_address));
    assert!(demo.ctl(&["status"]).contains("network east -> west"));
    let wan = ["wan", "east", "west", "--rtt", "30ms", "--loss", "0.1%", "--rate", "100mbit"];
    let told = demo.ctl(&wan);
    assert!(told.contains("round trip 30ms") && told.contains("loss 0.1%, 100 mbit"), "{told}");
    let nobody = flotilla(&["demo-ctl", "--state", &demo.state, "kill", "nobody"]);
    assert_eq!(nobody.status.code(), Some(2), "{}", said(&nobody));
}

fn a_cut_is_one_way(demo: &Demo) {
    let (mut east, mut west) = (demo.redis("east", 0), demo.redis("west", 0));
    demo.ctl(&["cut", "east", "west"]);
    east.call(&["SET", "cut:east", "1"]);
    west.call(&["SET", "cut:west", "2"]);
    assert_eq!(west.call(&["GET", "cut:east"]), "nil");
    let verify = demo.tool(&["verify", "--timeout", "1s"]);
    assert_eq!(verify.status.code(), Some(6), "{}", said(&verify));
    demo.ctl(&["heal"]);
    west.becomes(&["GET", "cut:east"], "1");
    east.becomes(&["GET", "cut:west"], "2");
}

fn a_killed_syncer_comes_back(demo: &Demo) {
    let (mut east, mut west) = (demo.redis("east", 0), demo.redis("west", 0));
    let pid = demo.pid("east-syncer");
    signal("-KILL", pid);
    eventually("the demo tells of the death and names the log", || {
        let output = demo.process.output();
        let told = output.contains("east-syncer") && output.contains("east-syncer.log");
        if told && !runs(pid) { Ok(()) } else { Err(output) }
    });
    east.call(&["SET", "while", "dead"]);
    demo.ctl(&["restart", "east-syncer"]);
    assert_ne!(demo.pid("east-syncer"), pid, "the state file names the new process");
    west.becomes(&["GET", "while"], "dead");
}

fn a_killed_leader_is_replaced(demo: &Demo) {
    demo.ctl(&["kill", "east-n1"]);
    let (mut other, mut west) = (demo.redis("east", 1), demo.redis("west", 0));
    for n in 0..50 {
        let key = format!("leaderless:{n}");
        // Not applied, or unknown, while an election is on: SET may be repeated.
        eventually("a write is acknowledged", || other.try_call(&["SET", &key, "x"]));
        west.becomes(&["GET", &key], "x");
    }
    demo.ctl(&["restart", "east-n1"]);
    demo.redis("east", 0).becomes(&["GET", "leaderless:49"], "x");
}
