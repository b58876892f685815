//! Groups that nobody uses are parked: a leader that is stopped meanwhile and goes on must not answer from
//! what it had when it parked.

use crate::harness::{Demo, Redis, alone, eventually, show, signal};
use std::time::Duration;

const KEYS: usize = 32;

/// All groups of a node are parked, on whichever side.
fn is_parked(redis: &mut Redis) -> Result<(), String> {
    let info = redis.call(&["INFO", "flotilla"]);
    let field = |name: &str| {
        let line = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.and_then(|value| value.trim().parse::<u32>().ok())
    };
    match (field("groups"), field("groups_parked")) {
        (Some(groups), Some(parked)) if groups > 0 && groups == parked => Ok(()),
        other => Err(format!("groups and parked: {other:?}")),
    }
}

fn write_all(redis: &mut Redis, value: &str) {
    for n in 0..KEYS {
        let key = format!("key:{n}");
        eventually("a write is acknowledged", || redis.try_call(&["SET", &key, value]));
    }
}

#[test]
fn a_node_that_was_stopped_while_its_groups_were_parked_answers_nothing_old() {
    let _alone = alone();
    let demo = Demo::start(&["--datacenters", "east"]);
    let mut doors: Vec<Redis> = (0..3).map(|node| demo.redis("east", node)).collect();
    assert_eq!(doors[0].call(&["CONFIG", "GET", "park-after-ms"]), "park-after-ms 3000");
    let cluster = demo.cluster("east");
    for stopped in 0..3 {
        let (old, new) = (format!("old {stopped}"), format!("new {stopped}"));
        let other = (stopped + 1) % 3;
        write_all(&mut doors[other], &old);
        for door in &mut doors {
            eventually("all groups are parked", || is_parked(door));
        }
        let pid = cluster["nodes"][stopped]["pid"].as_u64().expect("a number");
        signal("-STOP", pid);
        write_all(&mut doors[other], &new);
        // The first read waits in the socket when the node goes on.
        let mut door = doors.remove(stopped);
        let wanted = new.clone();
        let reads = std::thread::spawn(move || {
            for n in 0..KEYS {
                let key = format!("key:{n}");
                let read = || door.try_call(&["GET", &key]).map(|reply| show(&reply));
                assert_eq!(eventually("a read is answered", read), wanted, "{key}");
            }
            door
        });
        std::thread::sleep(Duration::from_millis(200));
        signal("-CONT", pid);
        doors.insert(stopped, reads.join().expect("no old value"));
    }
    demo.stop();
}
