//! Rows that were written before sync was switched on: what they mean from then on.

use super::world::World;
use crate::engine::keys;
use crate::eval::{self, CleanFrom, CleanRules};
use crate::model::{Closed, Effect, Stability, Type};
use flotilla_topology::ids::ClusterId;
use flotilla_topology::stamp::Stamp;

/// Two clusters that were never synced, with what they hold.
fn pair(east: &[&str], west: &[&str]) -> [World; 2] {
    let world = |id, lines: &[&str]| {
        let mut world = World::new(id, false);
        world.at(100);
        for line in lines {
            world.cmd(line);
        }
        world
    };
    [world(1, east), world(2, west)]
}

/// Gives each the other's state, switched on at these times, and compares; what one of them answers.
fn merged(worlds: &mut [World; 2], switched_ms: [u64; 2], ask: &[&str]) -> Vec<String> {
    for (world, ms) in worlds.iter_mut().zip(switched_ms) {
        world.at(ms).switch_on();
    }
    exchange(worlds);
    let [east, west] = worlds;
    let answers: Vec<String> = ask.iter().map(|line| east.cmd(line)).collect();
    let others: Vec<String> = ask.iter().map(|line| west.cmd(line)).collect();
    assert_eq!(answers, others);
    answers
}

fn exchange(worlds: &mut [World; 2]) {
    let states = [worlds[0].state(), worlds[1].state()];
    let [east, west] = worlds;
    east.take(&states[1]);
    west.take(&states[0]);
    let now = east.clock.ms().max(west.clock.ms());
    east.at(now);
    west.at(now);
    for later in [0, 1, 1_000_000] {
        assert_eq!(east.digest(now + later), west.digest(now + later), "at {}", now + later);
    }
}

fn lowest(effects: &[Effect]) -> Stamp {
    let stamps = effects.iter().filter(|effect| match effect {
        Effect::Head { head, .. } => head.ty() == Some(Type::String),
        Effect::Element { .. } => true,
    });
    stamps.map(Effect::max_stamp).min().unwrap()
}

#[test]
fn both_sides_keep_what_only_they_have_and_the_later_switch_wins_the_rest() {
    let east = ["SET mine e", "SET both e", "HSET h a e both e", "INCRBY n 5", "SET text 7"];
    let west = ["SET yours w", "SET both w", "HSET h b w both w", "INCRBY n 100", "HSET text f w"];
    let ask = ["GET mine", "GET yours", "GET both", "HGETALL h", "HLEN h", "GET n", "TYPE text"];
    let late_west = merged(&mut pair(&east, &west), [200, 300], &ask);
    let fields = "{\"a\"=\"e\" \"b\"=\"w\" \"both\"=\"w\"}";
    assert_eq!(late_west, ["\"e\"", "\"w\"", "\"w\"", fields, "3", "\"100\"", "hash"]);
    let late_east = merged(&mut pair(&east, &west), [400, 300], &ask);
    let fields = "{\"a\"=\"e\" \"b\"=\"w\" \"both\"=\"e\"}";
    assert_eq!(late_east, ["\"e\"", "\"w\"", "\"e\"", fields, "3", "\"5\"", "string"]);
}

/// Of two strings one wins with its end, or with having none; fields of a hash are joined, and so is its
/// end.
#[test]
fn ends_go_with_their_strings() {
    let lines = ["SET a e PXAT 9000", "SET b e", "HSET h f e", "PEXPIREAT h 9000"];
    let other = ["SET a w", "SET b w PXAT 8000", "HSET h g w"];
    let ask = ["PEXPIRETIME a", "PEXPIRETIME b", "PEXPIRETIME h"];
    assert_eq!(merged(&mut pair(&lines, &other), [200, 300], &ask), ["-1", "8000", "9000"]);
    let mut worlds = pair(&lines, &other);
    assert_eq!(merged(&mut worlds, [400, 300], &ask), ["9000", "-1", "9000"]);
    for world in &mut worlds {
        assert_eq!(world.at(9001).cmd("EXISTS a"), "0");
        assert_eq!((world.cmd("EXISTS h"), world.cmd("HLEN h")), ("0".into(), "0".into()));
        assert_eq!(world.cmd("EXISTS b"), "1");
    }
}

#[test]
fn what_has_ended_by_the_switch_stays_gone() {
    let mut world = World::new(1, false);
    for line in ["SET s v PXAT 500", "HSET h f v", "PEXPIREAT h 500", "SET later v PXAT 501"] {
        world.at(100).cmd(line);
    }
    world.at(500).switch_on();
    assert_eq!(world.cmd("EXISTS s"), "0");
    assert_eq!(world.cmd("HLEN h"), "0");
    assert_eq!(world.cmd("PTTL later"), "1");
    let state = world.state();
    assert_eq!(state.len(), 1, "neither key nor field of what has ended: {state:?}");
    assert_eq!(world.at(501).cmd("GET later"), "nil");
}

/// Everything that may be done to such a row afterwards, and that another cluster comes to the same by
/// the state at the switch and what was shipped since.
#[test]
fn what_is_written_over_such_rows_is_shipped() {
    let before = [
        "SET s v PXAT 9000",
        "SET gone v",
        "SET n 5",
        "HSET h a 1 b 2 c x",
        "HSET dead f v",
        "SET kept v",
        "PEXPIREAT h 9000",
    ];
    let after = [
        ("SET s w", "OK"),
        ("DEL gone", "1"),
        ("INCRBY n 3", "8"),
        ("DECR n", "7"),
        ("HINCRBY h a 10", "11"),
        ("HDEL h b", "1"),
        ("HDEL h nothing", "0"),
        ("HLEN h", "2"),
        ("DEL dead", "1"),
        ("EXISTS dead", "0"),
        ("HSET dead g again", "1"),
        ("HGETALL dead", "{\"g\"=\"again\"}"),
        ("PERSIST h", "1"),
        ("APPEND kept more", "5"),
        ("PEXPIREAT kept 8000", "1"),
    ];
    let [mut east, mut west] = pair(&before, &[]);
    let since = east.at(200).switch_on();
    west.at(150).switch_on();
    let state = east.state();
    assert!(lowest(&state) == since, "no row travels without a stamp: {state:?}");
    let mut shipped = Vec::new();
    for (line, wanted) in after {
        let (reply, effects) = east.ship(line);
        assert_eq!(super::world::show(&reply), wanted, "{line}");
        let old = effects.iter().filter(|effect| effect.max_stamp() <= since);
        assert_eq!(old.count(), 0, "{line} ships what is older: {effects:?}");
        shipped.extend(effects);
    }
    west.take(&state);
    west.take(&shipped);
    let now = east.clock.ms();
    assert_eq!(west.at(now).digest(now), east.digest(now));
    for (line, wanted) in [
        ("GET s", "\"w\""),
        ("PTTL s", "-1"),
        ("EXISTS gone", "0"),
        ("GET n", "\"7\""),
        ("HGETALL h", "{\"a\"=\"11\" \"c\"=\"x\"}"),
        ("HLEN h", "2"),
        ("HGETALL dead", "{\"g\"=\"again\"}"),
        ("GET kept", "\"vmore\""),
        ("PEXPIRETIME kept", "8000"),
    ] {
        assert_eq!((west.cmd(line), east.cmd(line)), (wanted.into(), wanted.into()), "{line}");
    }
}

/// What another cluster did before the switch loses against such rows, what it did after wins.
#[test]
fn effects_of_others_meet_such_rows_by_their_stamps() {
    for (ms, older) in [(150, true), (250, false)] {
        let mut east = World::new(1, false);
        for line in ["SET s e", "HSET h f e g e", "SET n 1"] {
            east.at(100).cmd(line);
        }
        let mut west = World::new(2, true);
        west.at(ms);
        let mut effects = Vec::new();
        for line in ["SET s w", "DEL s", "HSET h f w", "HDEL h f", "SET n 9", "INCR n"] {
            effects.extend(west.ship(line).1);
        }
        east.at(200).switch_on();
        east.take(&effects);
        let got = ["GET s", "HGETALL h", "HLEN h", "GET n"].map(|line| east.cmd(line));
        let wanted = match older {
            true => ["\"e\"", "{\"f\"=\"e\" \"g\"=\"e\"}", "2", "\"1\""],
            false => ["nil", "{\"g\"=\"e\"}", "1", "\"10\""],
        };
        assert_eq!(got, wanted, "effects of {ms} ms");
        let state = east.state();
        west.take(&state);
        let now = east.clock.ms();
        assert_eq!(west.at(now).digest(now), east.digest(now));
    }
}

#[test]
fn increments_of_both_sides_add_up_over_one_value() {
    let mut worlds = pair(&["INCRBY n 5", "HINCRBY h f 5"], &["SET n 100", "HSET h f 100"]);
    merged(&mut worlds, [200, 300], &["GET n", "HGET h f"]);
    for (world, by) in worlds.iter_mut().zip([7, 20]) {
        world.cmd(&format!("INCRBY n {by}"));
        world.cmd(&format!("HINCRBY h f {by}"));
    }
    exchange(&mut worlds);
    for world in &mut worlds {
        assert_eq!(
            (world.cmd("GET n"), world.cmd("HGET h f")),
            ("\"127\"".into(), "\"127\"".into())
        );
    }
}

/// With no other cluster everything is stable at once: what ends or is deleted leaves nothing behind,
/// and what stays is as it was.
#[test]
fn the_cleaner_leaves_nothing_of_such_rows() {
    let mut world = World::new(1, false);
    for line in [
        "SET ends v PXAT 500",
        "HSET h f v g w",
        "PEXPIREAT h 500",
        "HSET fields f v g w",
        "SET n 5",
        "SET deleted v",
        "HSET dropped f v",
        "SET kept v PXAT 9000",
    ] {
        world.at(100).cmd(line);
    }
    world.at(200).switch_on();
    for line in ["INCR n", "DEL deleted", "DEL dropped", "HDEL fields f", "PERSIST kept"] {
        world.cmd(line);
    }
    let stability = Stability {
        own: ClusterId(1),
        heard: Closed::new(),
        told: std::collections::BTreeMap::new(),
    };
    let rules = CleanRules { stability: &stability, merges: 0, budget: 512 };
    let mut from = CleanFrom::default();
    for ms in 600..610 {
        world.at(ms).entry(|txn| eval::clean(txn, &mut from, &rules).unwrap());
    }
    assert_eq!(world.cmd("GET n"), "\"6\"");
    assert_eq!(world.cmd("HGETALL fields"), "{\"g\"=\"w\"}");
    assert_eq!((world.cmd("GET kept"), world.cmd("PTTL kept")), ("\"v\"".into(), "-1".into()));
    let left = world.state();
    let mut names: Vec<&[u8]> = left.iter().map(|effect| &effect.key()[..]).collect();
    names.dedup();
    assert_eq!(names.len(), 3, "{left:?}");
    let index = world.rows.keys().filter(|row| matches!(row[0], keys::GARBAGE | keys::EXPIRY));
    assert_eq!(index.count(), 0, "{:?}", world.rows);
}
