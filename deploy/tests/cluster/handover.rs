//! A node that is told to stop hands its groups over while clients write.

use crate::harness::{Demo, alone, eventually, runs, signal};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Connections that write, each its own keys.
const WRITERS: usize = 8;
/// Writes that all of them together have acknowledged between two steps.
const WRITES: u64 = 2_000;

/// How often a replica of a log began to evaluate, by what it says of the group and the term.
fn begun(log: &str) -> BTreeMap<String, usize> {
    let mut begun = BTreeMap::new();
    for line in log.lines() {
        if let Some((_, of)) = line.split_once("leads and evaluates ") {
            *begun.entry(of.to_owned()).or_default() += 1;
        }
    }
    begun
}

#[test]
fn a_node_that_is_told_to_stop_leads_once_and_every_write_is_kept() {
    let _alone = alone();
    let demo = Demo::start(&["--datacenters", "east"]);
    let (stop, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            // Not through the node that stops.
            let mut redis = demo.redis("east", 1 + writer % 2);
            let (stop, written) = (stop.clone(), written.clone());
            std::thread::spawn(move || {
                let mut n = 0;
                while !stop.load(Ordering::SeqCst) {
                    let (key, value) = (format!("key:{writer}:{}", n % 64), n.to_string());
                    // What was under way as a leader went may end as unknown: then it is done again.
                    eventually("a write ends", || redis.try_call(&["SET", &key, &value]));
                    written.fetch_add(1, Ordering::SeqCst);
                    n += 1;
                }
                n
            })
        })
        .collect();
    let wait_for_writes = |what: &str| {
        let goal = written.load(Ordering::SeqCst) + WRITES;
        eventually(what, || match written.load(Ordering::SeqCst) {
            at if at >= goal => Ok(()),
            at => Err(format!("{at} of {goal}")),
        });
    };
    wait_for_writes("clients write");
    eventually("the first node leads", || match begun(&demo.log("east-n1")).is_empty() {
        true => Err("no group".to_owned()),
        false => Ok(()),
    });
    let pid = demo.pid("east-n1");
    signal("-TERM", pid);
    wait_for_writes("clients write while a node leaves");
    eventually("the node ends", || if runs(pid) { Err(demo.log("east-n1")) } else { Ok(()) });
    let handed_over = begun(&demo.log("east-n1"));
    demo.ctl(&["restart", "east-n1"]);
    wait_for_writes("clients write while it comes back");
    stop.store(true, Ordering::SeqCst);
    let mut redis = demo.redis("east", 2);
    for (writer, thread) in writers.into_iter().enumerate() {
        let n: u64 = thread.join().expect("every write is acknowledged");
        for last in n.saturating_sub(64)..n {
            let key = format!("key:{writer}:{}", last % 64);
            assert_eq!(redis.call(&["GET", &key]), last.to_string(), "{key}");
        }
    }
    // Elsewhere a leader whose lease ran out for a moment may begin again in its term.
    for (of, times) in handed_over {
        assert_eq!(times, 1, "it began so often to lead {of}");
    }
    demo.stop();
}
