//! Histories that broke earlier rules of merging, one test each.

use super::world::World;
use crate::engine::keys;
use crate::eval::{self, CONFLICT_WINDOW_MS, CleanFrom, CleanRules, LoserKind, Losers};
use crate::model::{Closed, Effect, Stability};
use flotilla_topology::ids::ClusterId;
use flotilla_topology::slot::Slot;
use flotilla_topology::stamp::Stamp;

/// Clusters with one group each, and what each has shipped and taken.
struct Clusters {
    worlds: Vec<World>,
    shipped: Vec<Vec<Vec<Effect>>>,
    taken: Vec<Vec<usize>>,
}

impl Clusters {
    fn new(count: usize) -> Clusters {
        Clusters {
            worlds: (1..=count).map(|id| World::new(id as u8, true)).collect(),
            shipped: vec![Vec::new(); count],
            taken: vec![vec![0; count]; count],
        }
    }

    /// Runs a command in a cluster at a time; its reply.
    fn run(&mut self, cluster: usize, ms: u64, line: &str) -> String {
        let (reply, effects) = self.worlds[cluster].at(ms).ship(line);
        self.shipped[cluster].push(effects);
        super::world::show(&reply)
    }

    /// Runs commands in a cluster as one entry.
    fn run_entry(&mut self, cluster: usize, ms: u64, lines: &[&str]) {
        let world = self.worlds[cluster].at(ms);
        world.begin();
        for line in lines {
            world.act_line(line);
        }
        let effects = world.commit();
        self.shipped[cluster].push(effects);
    }

    /// Delivers all that `from` has shipped to `to`.
    fn send(&mut self, from: usize, to: usize) {
        for entry in self.taken[to][from]..self.shipped[from].len() {
            self.worlds[to].take(&self.shipped[from][entry]);
        }
        self.taken[to][from] = self.shipped[from].len();
    }

    /// Delivers everything; all must then be equal, and a read answers the same everywhere.
    fn settle(&mut self, ms: u64, read: &str) -> String {
        let count = self.worlds.len();
        for (from, to) in (0..count).flat_map(|from| (0..count).map(move |to| (from, to))) {
            if from != to {
                self.send(from, to);
            }
        }
        let answers: Vec<String> =
            self.worlds.iter_mut().map(|world| world.at(ms).cmd(read)).collect();
        let now = self.worlds.iter().map(|world| world.clock.ms()).max().unwrap();
        for world in &mut self.worlds {
            world.at(now);
        }
        for later in [0, 1, 1000] {
            let first = self.worlds[0].digest(now + later);
            assert!(self.worlds.iter_mut().all(|world| world.digest(now + later) == first));
        }
        assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
        answers[0].clone()
    }
}

/// A reset is joined per slot, whichever register wins: cluster 1 removes a counter that cluster 0
/// had counted; a register of cluster 1 which knows nothing of the counter must not revive it.
#[test]
fn f1_a_later_register_does_not_undo_a_reset() {
    for zero_first in [true, false] {
        let mut clusters = Clusters::new(3);
        clusters.run(0, 26, "HINCRBY h f 4");
        clusters.run(0, 27, "HDEL h f");
        clusters.run(1, 57, "HSET h f 10");
        if zero_first {
            clusters.send(0, 2);
        } else {
            clusters.send(1, 2);
        }
        assert_eq!(clusters.settle(60, "HGET h f"), "\"10\"");
    }
}

/// What a passed expiry hid stays hidden when the expiry is replaced.
#[test]
fn f2_a_new_expiry_does_not_reveal_what_lapsed() {
    let mut clusters = Clusters::new(2);
    clusters.run(0, 4, "HSET h f1 a");
    clusters.run(0, 5, "PEXPIREAT h 10");
    clusters.send(0, 1);
    clusters.run(0, 12, "HSET h f2 b");
    clusters.run(0, 13, "PEXPIREAT h 1000");
    assert_eq!(clusters.run(0, 14, "HGETALL h"), "{\"f2\"=\"b\"}");
    clusters.run(0, 15, "PERSIST h");
    assert_eq!(clusters.settle(20, "HGETALL h"), "{\"f2\"=\"b\"}");
    assert_eq!(clusters.settle(2000, "HLEN h"), "1");
}

/// A hash that was emptied field by field and created anew has no expiry.
#[test]
fn f3_a_created_key_does_not_inherit_an_expiry() {
    let mut clusters = Clusters::new(2);
    clusters.run(0, 4, "HSET h f a");
    clusters.run(0, 5, "PEXPIREAT h 100");
    clusters.send(0, 1);
    clusters.run(1, 6, "HDEL h f");
    clusters.run(1, 7, "HSET h g b");
    assert_eq!(clusters.run(1, 8, "TTL h"), "-1");
    assert_eq!(clusters.settle(9, "TTL h"), "-1");
    assert_eq!(clusters.settle(200, "HGETALL h"), "{\"g\"=\"b\"}");
}

/// Floor and value of an overwrite have one stamp: a floor hides what is below it only.
#[test]
fn a14_an_overwrite_does_not_hide_its_own_value() {
    let mut clusters = Clusters::new(2);
    clusters.run(0, 1, "HSET k f a");
    clusters.run(0, 2, "SET k v");
    assert_eq!(clusters.settle(3, "GET k"), "\"v\"");
    assert_eq!(clusters.settle(3, "TYPE k"), "string");
}

/// Two lives of a cluster that issue one stamp twice still agree: the greater encoding wins.
#[test]
fn a14_equal_stamps_fall_back_to_the_greater_value() {
    let mut clusters = Clusters::new(2);
    clusters.worlds[1].origin = clusters.worlds[0].origin;
    clusters.run(0, 5, "SET k a");
    clusters.run(1, 5, "SET k b");
    assert_eq!(clusters.settle(9, "GET k"), "\"b\"");
}

/// Every value write raises the claim, so the later write decides the type, and what the losing
/// type wrote before its claim is gone for good.
#[test]
fn a15_the_later_claim_decides_the_type() {
    for string_first in [true, false] {
        let mut clusters = Clusters::new(3);
        clusters.run(0, 1, "HSET k f1 a");
        clusters.run(1, 2, "INCRBY k 7");
        clusters.run(0, 3, "HSET k f2 b");
        if string_first {
            clusters.send(1, 2);
        }
        clusters.send(0, 2);
        assert_eq!(clusters.settle(5, "HGETALL k"), "{\"f2\"=\"b\"}");
        clusters.run(2, 6, "HDEL k f2");
        assert_eq!(clusters.settle(7, "TYPE k"), "none");
        assert_eq!(clusters.run(2, 8, "INCR k"), "1", "the sum of the losing type is gone");
        assert_eq!(clusters.settle(9, "GET k"), "\"1\"");
    }
}

/// A loser of a type conflict is told.
#[test]
fn a15_the_losing_type_is_told() {
    let mut clusters = Clusters::new(2);
    clusters.run(0, 1, "INCR k");
    clusters.run(1, 2, "HSET k f v");
    let losers = clusters.worlds[1].take(&clusters.shipped[0][0].clone());
    let kinds: Vec<LoserKind> = losers.told.iter().map(|loser| loser.kind).collect();
    assert_eq!(kinds, [LoserKind::Type, LoserKind::Floor]);
    assert_eq!(losers.total(), 2);
}

/// What cluster 1 has when cluster 2 does `theirs`, `after_ms` later and without having seen it.
fn replaced(ours: &[&str], after_ms: u64, theirs: &str) -> Losers {
    let mut clusters = Clusters::new(2);
    for line in ours {
        clusters.run(0, 1_000, line);
    }
    clusters.run(1, 1_000 + after_ms, theirs);
    let arriving = clusters.shipped[1][0].clone();
    clusters.worlds[0].take(&arriving)
}

/// A value that another cluster's replaces within the window is told of: key, element, value, and
/// both stamps with their clusters.
#[test]
fn what_is_replaced_within_the_window_is_told() {
    for (ours, theirs, element, value) in [
        (&["SET k a"][..], "SET k b", "", "a"),
        (&["SET k a"], "APPEND k b", "", "a"),
        (&["SET k a"], "HSET k f b", "", "a"),
        (&["HSET k f a"], "HSET k f b", "f", "a"),
        (&["HSET k f a", "HDEL k f"], "HSET k f b", "f", ""),
        (&["HSET k f a"], "SET k b", "", ""),
        (&["INCRBY k 7"], "SET k b", "", "7"),
    ] {
        let losers = replaced(ours, 500, theirs);
        assert_eq!(losers.told.len(), 1, "{ours:?}, then {theirs}: {losers:?}");
        assert_eq!(losers.counts, [0, 0, 0, 0, 1]);
        let loser = &losers.told[0];
        assert_eq!((&loser.key[..], &loser.element[..]), (&b"k"[..], element.as_bytes()));
        assert_eq!(&loser.value[..], value.as_bytes(), "{ours:?}, then {theirs}");
        assert_eq!((loser.lost.cluster.0, loser.won.cluster.0), (1, 2));
        assert_eq!((loser.lost.hlc.ms(), loser.won.hlc.ms()), (1_000, 1_500));
    }
}

/// A delete and another expiry replace as well.
#[test]
fn deletes_and_expiries_replace() {
    for (shared, ours, theirs) in
        [("SET k a", "SET k c", "DEL k"), ("SET k a", "PEXPIREAT k 9000", "PEXPIREAT k 8000")]
    {
        let mut clusters = Clusters::new(2);
        clusters.run(0, 1_000, shared);
        clusters.send(0, 1);
        clusters.run(0, 2_000, ours);
        clusters.run(1, 2_500, theirs);
        let arriving = clusters.shipped[1][0].clone();
        let told = clusters.worlds[0].take(&arriving).told;
        let kinds: Vec<LoserKind> = told.iter().map(|loser| loser.kind).collect();
        assert_eq!(kinds, [LoserKind::Replaced], "{ours}, then {theirs}");
    }
}

/// Outside of the window, of the same cluster, or with the same outcome: nobody lost anything.
#[test]
fn an_ordinary_overwrite_is_no_conflict() {
    assert_eq!(replaced(&["SET k a"], CONFLICT_WINDOW_MS + 1, "SET k b").total(), 0);
    assert_eq!(replaced(&["HSET k f a"], CONFLICT_WINDOW_MS + 1, "HSET k f b").total(), 0);
    assert_eq!(replaced(&["SET k a"], 10, "SET k a").total(), 0);
    assert_eq!(replaced(&["HSET k f a"], 10, "HSET k f a").total(), 0);
    assert_eq!(replaced(&["HSET k g a"], 10, "HSET k f b").total(), 0);
    assert_eq!(replaced(&["INCR k"], 10, "INCR k").total(), 0);
    let mut clusters = Clusters::new(2);
    clusters.run(0, 1_000, "SET k a");
    clusters.run(0, 1_010, "SET k b");
    for entry in clusters.shipped[0].clone() {
        assert_eq!(clusters.worlds[1].take(&entry).total(), 0);
    }
}

/// A full state repeats what came by the log and was overwritten by somebody who knew it.
#[test]
fn what_was_here_before_does_not_lose_again() {
    let mut clusters = Clusters::new(2);
    clusters.run(0, 1_000, "SET k a");
    clusters.send(0, 1);
    clusters.run(1, 2_000, "SET k b");
    let again = clusters.shipped[0][0].clone();
    let stamp = again[0].max_stamp();
    let seen = Closed::from([(stamp.cluster, stamp)]);
    let (losers, _) = clusters.worlds[1].entry(|txn| eval::remote_state(txn, &again, &seen));
    assert_eq!(losers.unwrap().total(), 0);
    let unseen = Closed::new();
    let (losers, _) = clusters.worlds[1].entry(|txn| eval::remote_state(txn, &again, &unseen));
    assert_eq!(losers.unwrap().total(), 1);
}

/// All losers are counted; names and values that are told are cut.
#[test]
fn what_is_told_is_bounded() {
    let key = "k".repeat(3_000);
    let value = "v".repeat(100);
    let told = replaced(&[&format!("SET {key} {value}")], 1, &format!("SET {key} b")).told;
    assert_eq!((told[0].key.len(), told[0].value.len()), (1_024, 32));
    let fields: String = (0..500).map(|n| format!(" f{n} a")).collect();
    let losers =
        replaced(&[&format!("HSET h{fields}")], 1, &format!("HSET h{}", fields.replace('a', "b")));
    assert_eq!(losers.counts, [0, 0, 0, 0, 500]);
    assert!(losers.told.len() < 100, "{}", losers.told.len());
}

/// Increments of both sides add up; a value written over them absorbs just those it saw.
#[test]
fn a16_a_value_absorbs_the_increments_that_it_saw() {
    let mut clusters = Clusters::new(2);
    clusters.run(0, 1, "INCRBY n 5");
    clusters.run(1, 1, "INCRBY n 7");
    assert_eq!(clusters.settle(2, "GET n"), "\"12\"");
    clusters.run(1, 3, "INCRBY n 100");
    clusters.run(0, 4, "APPEND n 0"); // 120, without the 100
    assert_eq!(clusters.settle(5, "GET n"), "\"220\"");
    clusters.run(0, 6, "INCR n");
    clusters.run(1, 6, "INCR n");
    assert_eq!(clusters.settle(7, "GET n"), "\"222\"");
}

/// A sum is killed by its start: increments from before a delete do not ride on a later one.
#[test]
fn a16_a_late_increment_does_not_bring_deleted_ones_back() {
    let mut clusters = Clusters::new(2);
    clusters.run(1, 1, "HINCRBY h f 5");
    clusters.send(1, 0);
    clusters.run(0, 2, "DEL h");
    clusters.run(1, 3, "HINCRBY h f 1"); // has not seen the delete
    assert_eq!(clusters.settle(4, "HGET h f"), "nil", "an increment at the same time is lost");
    clusters.run(1, 5, "HINCRBY h f 1");
    assert_eq!(clusters.settle(6, "HGET h f"), "\"1\"");
}

/// Negative increments: sums are never compared by size.
#[test]
fn a16_a_counter_may_fall() {
    let mut clusters = Clusters::new(2);
    clusters.run(0, 1, "INCRBY n 5");
    clusters.run(0, 2, "DECRBY n 9");
    clusters.run(1, 2, "DECR n");
    assert_eq!(clusters.settle(3, "GET n"), "\"-5\"");
}

/// A write of the value that is there already still counts as a write.
#[test]
fn a20_an_unchanged_value_is_stamped_anew() {
    let mut clusters = Clusters::new(2);
    clusters.run(0, 1, "HSET h f v");
    clusters.send(0, 1);
    clusters.run(1, 3, "HDEL h f");
    clusters.run(0, 5, "HSET h f v");
    assert_eq!(clusters.settle(6, "HGET h f"), "\"v\"");
}

/// A refused condition is no write: it does not beat another cluster's delete.
#[test]
fn a20_a_failed_condition_stamps_nothing() {
    let mut clusters = Clusters::new(2);
    clusters.run(0, 1, "SET k v");
    clusters.send(0, 1);
    clusters.run(1, 3, "DEL k");
    clusters.run(0, 5, "SET k w NX");
    clusters.run(0, 5, "HSETNX h f v");
    assert_eq!(clusters.settle(6, "GET k"), "nil");
}

/// SET with KEEPTTL leaves the expiry register alone: another cluster's later change counts.
#[test]
fn keepttl_leaves_the_expiry_to_others() {
    let mut clusters = Clusters::new(2);
    clusters.run(0, 1, "SET k v PXAT 5000");
    clusters.send(0, 1);
    clusters.run(1, 2, "PEXPIREAT k 9000");
    clusters.run(0, 3, "SET k w KEEPTTL");
    assert_eq!(clusters.settle(4, "PEXPIRETIME k"), "9000");
    assert_eq!(clusters.settle(4, "GET k"), "\"w\"");
}

/// A lapse is taken back by a longer expiry that was on its way; what came in between counts.
#[test]
fn a_count_survives_a_lapse_that_is_taken_back() {
    let mut clusters = Clusters::new(3);
    clusters.run(0, 1, "HSET h f1 a f2 b");
    clusters.run(0, 2, "PEXPIREAT h 10");
    clusters.send(0, 1);
    clusters.send(0, 2);
    clusters.run(1, 8, "PEXPIREAT h 1000");
    clusters.run(1, 11, "HSET h f3 c");
    clusters.run(2, 9, "HSET h f4 d");
    assert_eq!(clusters.run(0, 12, "HLEN h"), "0");
    clusters.send(2, 0);
    assert_eq!(clusters.settle(20, "HLEN h"), "4");
}

/// A hash that came from another cluster is counted as it comes.
#[test]
fn a_hash_from_elsewhere_has_a_count() {
    let mut clusters = Clusters::new(2);
    clusters.run(0, 1, "INCR h");
    clusters.run(1, 2, "HSET h f1 a f2 b");
    clusters.run(1, 3, "HDEL h f1");
    assert_eq!(clusters.settle(4, "HLEN h"), "1");
    // Where the hash was born a floor has risen under it: that count is open until a write.
    let count_of = |world: &World| {
        let row = &world.rows[&crate::engine::keys::head(Slot::of(b"h"), b"h")];
        crate::model::decode_head(row).unwrap().known_count(4)
    };
    let counts: Vec<Option<u64>> = clusters.worlds.iter().map(count_of).collect();
    assert_eq!(counts, [Some(1), None]);
    clusters.run(1, 5, "HSET h f2 c");
    assert_eq!(count_of(&clusters.worlds[1]), Some(1));
}

/// Claims that one entry overwrites are not shipped, so the floor that they raised must be.
#[test]
fn an_entry_that_changes_the_type_twice_ships_the_floor() {
    let mut clusters = Clusters::new(3);
    clusters.run(2, 9, "INCR k");
    clusters.run_entry(0, 10, &["HSET k f v", "HDEL k f", "INCR k"]);
    assert_eq!(clusters.settle(20, "GET k"), "\"1\"");
}

/// Seed 31273 of the simulator: a later end hid what a cluster had written while it was fenced, since the
/// others had forgotten ends of other keys meanwhile.
#[test]
fn what_a_returning_cluster_brings_is_not_taken_for_forgotten() {
    let (mut away, mut here) = (World::new(2, true), World::new(1, true));
    away.at(15);
    let lines: [&[&[u8]]; 4] = [
        &[b"APPEND", b"s", b"v"],
        &[b"INCRBY", b"n", b"5"],
        &[b"HSET", b"h", b"f", b"v"],
        &[b"HSET", b"h", b"g", b"w"],
    ];
    let effects: Vec<_> = lines.iter().flat_map(|line| away.run(line).1).collect();
    here.forgotten_ms = 20;
    here.at(42).take(&effects);
    here.at(69);
    for key in ["s", "n", "h"] {
        assert_eq!(here.cmd(&format!("PEXPIREAT {key} 76")), "1");
    }
    assert_eq!(here.cmd("GET s"), "\"v\"");
    assert_eq!(here.cmd("GET n"), "\"5\"");
    assert_eq!(here.cmd("HGETALL h"), "{\"f\"=\"v\" \"g\"=\"w\"}");
    // What is written here is above all that was forgotten, and an end hides what stood before that.
    here.at(80);
    here.cmd("HSET new f v");
    let (_, ended) = here.ship("PEXPIREAT new 90");
    let low = ended.iter().find_map(|effect| match effect {
        Effect::Head { head, .. } => head.expiry.map(|expiry| expiry.low),
        Effect::Element { .. } => None,
    });
    assert_eq!(low, Some(20));
}

/// A count goes on over a removal which did not see all of it, so the removal does not wait to be
/// collected. Then a delete comes that hides the count. When the cleaner takes the count away, it has
/// to note that the removal waits now.
#[test]
fn a_removal_is_collected_that_lay_under_a_count() {
    let mut clusters = Clusters::new(3);
    clusters.run(2, 16, "HINCRBY c f 7");
    clusters.send(2, 0);
    clusters.send(2, 1);
    clusters.run(2, 60, "HINCRBY c f 6");
    clusters.run(1, 76, "DEL c");
    clusters.run(0, 87, "HDEL c f");
    clusters.send(0, 2);
    assert_eq!(clusters.worlds[2].cmd("HGET c f"), "\"6\"");
    clusters.send(1, 2);
    for known_ms in [80, 200] {
        clean(&mut clusters.worlds[2], 100, known_ms);
    }
    let rows = &clusters.worlds[2].rows;
    assert!(rows.keys().all(|row| row[0] != keys::GARBAGE), "{rows:?}");
    assert!(clusters.worlds[2].state().is_empty(), "{:?}", clusters.worlds[2].state());
}

/// Cleans a cluster of three until nothing is left to do, when everybody knows everything until a time.
fn clean(world: &mut World, now_ms: u64, known_ms: u64) {
    let known = || -> Closed {
        let at = Stamp::floor_at_ms(known_ms).hlc;
        (1..=3).map(ClusterId).map(|cluster| (cluster, Stamp { hlc: at, cluster })).collect()
    };
    let own = world.origin.cluster;
    let others = (1..=3).map(ClusterId).filter(|cluster| *cluster != own);
    let told = others.map(|cluster| (cluster, known())).collect();
    let stability = Stability { own, heard: known(), told };
    let rules = CleanRules { stability: &stability, merges: 0, budget: 512 };
    for _ in 0..3 {
        let mut from = CleanFrom::default();
        world.at(now_ms).entry(|txn| eval::clean(txn, &mut from, &rules).unwrap());
    }
}
