//! Sync is switched on for a namespace that has data in two clusters which never knew of each other's.

use crate::harness::{Demo, Redis, alone, eventually, said, show};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Keys of each kind.
const KEYS: u64 = 60;
/// Writes that each writer has done before sync is switched on, and does after.
const WRITES: u64 = 30;

/// A connection that asks in the namespace `old`, also after it was made anew.
struct Old(Redis);

impl Old {
    fn of(demo: &Demo, cluster: &str, node: usize) -> Old {
        let mut redis = demo.redis(cluster, node);
        eventually("the namespace takes writes", || {
            redis.try_call(&["SELECT", "old"])?;
            redis.try_call(&["SET", "first", "1"])
        });
        Old(redis)
    }

    fn call(&mut self, words: &[&str]) -> String {
        self.0.call(&["SELECT", "old"]);
        self.0.call(words)
    }

    fn line(&mut self, line: &str) -> String {
        self.call(&line.split(' ').collect::<Vec<_>>())
    }

    fn becomes(&mut self, line: &str, wanted: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        eventually(&format!("{line} becomes {wanted}"), || {
            self.0.try_call(&["SELECT", "old"])?;
            let reply = show(&self.0.try_call(&words)?);
            if reply == wanted { Ok(()) } else { Err(reply) }
        });
    }
}

fn sync(demo: &Demo, cluster: &str, more: &[&str]) -> String {
    demo.does(&[&["namespace", "sync", "old", "--cluster", cluster], more].concat())
}

fn fill(old: &mut Old, cluster: &str, base: u64) {
    for n in 0..KEYS {
        old.line(&format!("SET {cluster}:{n} {cluster}"));
        old.line(&format!("SET both:{n} {cluster}"));
        old.line(&format!("HSET h:{n} {cluster} 1 same {cluster}"));
        old.line(&format!("INCRBY n:{n} {base}"));
        old.line(&format!("SET {cluster}:ends:{n} v EX 3600"));
        old.line(&format!("SET {cluster}:gone:{n} v PX 50"));
        old.line(&format!("SET {cluster}:deleted:{n} v"));
        old.line(&format!("DEL {cluster}:deleted:{n}"));
    }
    old.line("HSET h:ends f v");
    old.line("EXPIRE h:ends 3600");
}

/// Writes until `stop`, and tells how often.
fn write(mut old: Old, cluster: &str, stop: &AtomicBool, done: &AtomicU64) {
    while !stop.load(Ordering::SeqCst) {
        let n = done.load(Ordering::SeqCst);
        old.line(&format!("INCR hits:{cluster}"));
        old.line(&format!("HSET run:{cluster} f{} {n}", n % 50));
        old.line(&format!("SET run:{cluster}:{n} {n}"));
        if n.is_multiple_of(3) {
            old.line(&format!("DEL run:{cluster}:{n}"));
        }
        done.store(n + 1, Ordering::SeqCst);
    }
}

#[test]
fn two_clusters_with_data_are_kept_in_step_from_now_on() {
    let _alone = alone();
    let demo = Demo::start(&["--rtt", "20ms"]);
    for (cluster, partitions) in [("east", "3"), ("west", "2")] {
        let made = ["namespace", "create", "old", "--partitions", partitions, "--cluster", cluster];
        assert!(demo.does(&made).contains("not synced"));
    }
    let (mut east, mut west) = (Old::of(&demo, "east", 0), Old::of(&demo, "west", 0));
    fill(&mut east, "east", 5);
    fill(&mut west, "west", 100);
    let (stop, done) = (AtomicBool::new(false), [const { AtomicU64::new(0) }; 2]);
    let wait = |more: u64| {
        let until = done.each_ref().map(|done| done.load(Ordering::SeqCst) + more);
        eventually("both sides have written on", || {
            let now = done.each_ref().map(|done| done.load(Ordering::SeqCst));
            if now.iter().zip(until).all(|(now, until)| *now >= until) {
                Ok(())
            } else {
                Err(format!("{now:?} of {until:?}"))
            }
        });
    };
    std::thread::scope(|scope| {
        for (cluster, done) in ["east", "west"].into_iter().zip(&done) {
            let (old, stop) = (Old::of(&demo, cluster, 1), &stop);
            scope.spawn(move || write(old, cluster, stop, done));
        }
        // However this ends, the writers must.
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            wait(WRITES);
            switch_on(&demo);
            wait(WRITES);
        }));
        stop.store(true, Ordering::SeqCst);
        if let Err(panic) = ended {
            std::panic::resume_unwind(panic);
        }
    });
    demo.verify_equal();
    let hits = done.each_ref().map(|done| done.load(Ordering::SeqCst));
    all_is_everywhere(&mut east, &mut west, hits);
    writes_go_both_ways(&mut east, &mut west);
    demo.verify_equal();
    demo.stop();
}

fn switch_on(demo: &Demo) {
    let plan = sync(demo, "east", &["--dry-run"]);
    for word in ["in 3 groups", "`west`", "tombstones", "no way back", "nothing was done"] {
        assert!(plan.contains(word), "{plan}");
    }
    assert!(demo.does(&["namespace", "list"]).contains("not synced"));
    let refused = demo.tool(&["namespace", "sync", "nothing", "--cluster", "east"]);
    assert_eq!(refused.status.code(), Some(1), "{}", said(&refused));
    assert!(said(&refused).contains("no namespace `nothing`"), "{}", said(&refused));

    // One side alone is refused by the other, and says why.
    assert!(!sync(demo, "east", &[]).contains("dry run"));
    demo.link_becomes("east", "is refused", |link| {
        let why = link["detail"].as_str().unwrap_or_default();
        link["state"] == "refused" && why.contains("flotilla namespace sync old")
    });
    sync(demo, "west", &[]);
    assert!(sync(demo, "west", &[]).contains("synced already"));
    for from in ["east", "west"] {
        demo.link_becomes(from, "is live", |link| {
            link["state"] == "live" && link["groups"] == link["groups_wanted"]
        });
    }
}

fn all_is_everywhere(east: &mut Old, west: &mut Old, hits: [u64; 2]) {
    for old in [&mut *east, &mut *west] {
        for n in 0..KEYS {
            for cluster in ["east", "west"] {
                assert_eq!(old.line(&format!("GET {cluster}:{n}")), cluster);
                assert_eq!(old.line(&format!("EXISTS {cluster}:gone:{n}")), "0");
                assert_eq!(old.line(&format!("EXISTS {cluster}:deleted:{n}")), "0");
                let ttl: i64 = old.line(&format!("TTL {cluster}:ends:{n}")).parse().unwrap();
                assert!((1..=3600).contains(&ttl), "{ttl}");
            }
            // West was switched on later.
            assert_eq!(old.line(&format!("GET both:{n}")), "west");
            assert_eq!(old.line(&format!("GET n:{n}")), "100");
            assert_eq!(old.line(&format!("HGET h:{n} same")), "west");
            assert_eq!(old.line(&format!("HLEN h:{n}")), "3");
        }
        assert_ne!(old.line("TTL h:ends"), "-1");
        for (cluster, hits) in ["east", "west"].into_iter().zip(hits) {
            let shown = old.line(&format!("GET hits:{cluster}"));
            assert_eq!(shown, hits.to_string(), "increments before, at and after the switch");
            assert_eq!(old.line(&format!("EXISTS run:{cluster}:0")), "0", "deleted before");
            assert_eq!(old.line(&format!("GET run:{cluster}:1")), "1");
        }
    }
    assert_eq!(east.line("DBSIZE"), west.line("DBSIZE"));
}

fn writes_go_both_ways(east: &mut Old, west: &mut Old) {
    west.line("DEL east:0");
    east.becomes("EXISTS east:0", "0");
    east.line("DEL h:0");
    west.becomes("EXISTS h:0", "0");
    east.line("INCRBY n:0 7");
    west.line("INCRBY n:0 20");
    west.line("HINCRBY h:1 east 4");
    for old in [east, west] {
        old.becomes("GET n:0", "127");
        old.becomes("HGET h:1 east", "5");
        assert_eq!(old.line("EXISTS east:0"), "0");
    }
}
