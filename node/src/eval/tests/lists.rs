//! Lists: random commands against a running Redis, synced and unsynced; indexes in blocks; and what two
//! clusters make of them.

use super::redis::{Dice, replies_are_the_same};
use super::world::World;

const COMMANDS: usize = 8_000;
const SEEDS: u64 = 3;
const KEYS: &[&str] = &["a", "b", "c", "string", "k\u{0}z"];
const VALUES: &[&str] = &["x", "y", "", "1", "z\u{0}", "\u{ff}", "x"];
const INDEXES: &[&str] =
    &["0", "1", "2", "-1", "-2", "-100", "100", "5", "x", "-9223372036854775808"];
const COUNTS: &[&str] = &["0", "1", "2", "-1", "-2", "100", "x"];
const SIDES: &[&str] = &["LEFT", "right", "RIGHT", "left", "x"];

const NAMES: &[&str] = &[
    "RPUSH",
    "RPUSH",
    "RPUSH",
    "LPUSH",
    "LPUSH",
    "LPUSHX",
    "RPUSHX",
    "LPOP",
    "RPOP",
    "LLEN",
    "LINDEX",
    "LRANGE",
    "LRANGE",
    "LPOS",
    "LPOS",
    "LSET",
    "LSET",
    "LINSERT",
    "LINSERT",
    "LREM",
    "LTRIM",
    "LMOVE",
    "RPOPLPUSH",
    "LMPOP",
    "DEL",
    "TYPE",
    "EXISTS",
    "SET",
    "HSET",
    "PEXPIREAT",
    "RENAME",
    "COPY",
];

fn random_command(dice: &mut Dice) -> Vec<String> {
    let name = dice.pick(NAMES);
    let mut words = vec![name.to_owned()];
    let mut add = |lists: &[&[&str]]| {
        for list in lists {
            words.push(dice.pick(list).to_owned());
        }
    };
    match name {
        "RPUSH" | "LPUSH" | "LPUSHX" | "RPUSHX" => add(&[KEYS, VALUES, VALUES]),
        "LINDEX" => add(&[KEYS, INDEXES]),
        "LRANGE" | "LTRIM" => add(&[KEYS, INDEXES, INDEXES]),
        "LPOS" => add(&[KEYS, VALUES]),
        "LSET" => add(&[KEYS, INDEXES, VALUES]),
        "LINSERT" => add(&[KEYS, &["BEFORE", "after", "BEFORE", "AFTER", "x"], VALUES, VALUES]),
        "LREM" => add(&[KEYS, COUNTS, VALUES]),
        "LMOVE" => add(&[KEYS, KEYS, SIDES, SIDES]),
        "RPOPLPUSH" | "RENAME" | "COPY" => add(&[KEYS, KEYS]),
        "LMPOP" => add(&[&["1", "2", "2", "0", "-1", "9", "x"], KEYS, KEYS, SIDES]),
        "SET" => add(&[&["string"], &["v"]]),
        "HSET" => add(&[KEYS, &["f"], &["v"]]),
        "PEXPIREAT" => add(&[KEYS, &["1", "4102444800000"]]),
        _ => add(&[KEYS]),
    }
    if matches!(name, "LPOP" | "RPOP") && dice.roll(2) == 0 {
        words.push(dice.pick(COUNTS).to_owned());
    }
    if name == "LMPOP" && dice.roll(2) == 0 {
        words.extend(["COUNT".to_owned(), dice.pick(COUNTS).to_owned()]);
    }
    if name == "COPY" && dice.roll(2) == 0 {
        words.push("REPLACE".to_owned());
    }
    if name == "LPOS" {
        for _ in 0..dice.roll(3) {
            words.push(dice.pick(&["RANK", "COUNT", "maxlen", "x"]).to_owned());
            words.push(dice.pick(COUNTS).to_owned());
        }
    }
    match dice.roll(60) {
        0 => words.push("extra".to_owned()),
        1 if words.len() > 1 => drop(words.pop()),
        _ => {}
    }
    words
}

#[test]
fn replies_on_lists_are_those_of_redis() {
    replies_are_the_same((SEEDS, COMMANDS), random_command, |reply| reply);
}

/// Elements by index from both ends against a plain model, while they come and go anywhere.
#[test]
fn blocks_of_a_long_list_count_its_elements() {
    for (seed, synced) in [(1, true), (2, false)] {
        let mut dice = Dice::new(seed);
        let mut world = World::new(1, synced);
        world.at(100);
        let mut model: Vec<String> = Vec::new();
        for round in 0..3_000 {
            let value = format!("v{round}");
            match dice.roll(10) {
                0..3 => {
                    world.cmd(&format!("RPUSH l {value}"));
                    model.push(value);
                }
                3..6 => {
                    world.cmd(&format!("LPUSH l {value}"));
                    model.insert(0, value);
                }
                6 | 7 if !model.is_empty() => {
                    let at = dice.roll(model.len());
                    let len = world.cmd(&format!("LINSERT l BEFORE {} {value}", model[at]));
                    model.insert(at, value);
                    assert_eq!(len, model.len().to_string());
                }
                8 if !model.is_empty() => {
                    let gone = model.remove(dice.roll(model.len()));
                    assert_eq!(world.cmd(&format!("LREM l 1 {gone}")), "1");
                }
                _ if !model.is_empty() => {
                    assert_eq!(world.cmd("LPOP l"), format!("\"{}\"", model.remove(0)));
                }
                _ => {}
            }
            if round % 10 == 0 && !model.is_empty() {
                let (at, len) = (dice.roll(model.len()), model.len());
                let want = format!("\"{}\"", model[at]);
                assert_eq!(world.cmd(&format!("LINDEX l {at}")), want);
                assert_eq!(world.cmd(&format!("LINDEX l -{}", len - at)), want);
                let some = model[at..len.min(at + 3)].iter().map(|value| format!("\"{value}\""));
                let some = format!("[{}]", some.collect::<Vec<_>>().join(" "));
                assert_eq!(world.cmd(&format!("LRANGE l {at} {}", at + 2)), some);
            }
        }
    }
}

/// Two clusters that have the same list of three.
fn both() -> (World, World) {
    let (mut west, mut east) = (World::new(1, true), World::new(2, true));
    west.at(100);
    let (_, first) = west.run(&[b"RPUSH", b"l", b"a", b"b", b"c"]);
    east.take(&first);
    west.at(200);
    east.at(201);
    (west, east)
}

#[test]
fn what_two_clusters_push_stays_in_one_order() {
    let (mut west, mut east) = both();
    let (_, right) = west.run(&[b"RPUSH", b"l", b"w1", b"w2"]);
    let (_, left) = west.run(&[b"LPUSH", b"l", b"w0"]);
    let (_, inner) = west.run(&[b"LINSERT", b"l", b"AFTER", b"a", b"wi"]);
    let (_, theirs) = east.run(&[b"RPUSH", b"l", b"e1"]);
    let (_, their_inner) = east.run(&[b"LINSERT", b"l", b"BEFORE", b"b", b"ei"]);
    west.take(&theirs);
    west.take(&their_inner);
    for effects in [&right, &left, &inner] {
        east.take(effects);
    }
    let list = west.cmd("LRANGE l 0 -1");
    assert_eq!(east.cmd("LRANGE l 0 -1"), list);
    for value in ["w0", "a", "wi", "ei", "b", "c", "w1", "w2", "e1"] {
        assert!(list.contains(&format!("\"{value}\"")), "{value} in {list}");
    }
    assert_eq!(west.cmd("LLEN l"), "9");
    assert!(list.starts_with("[\"w0\" \"a\""), "{list}");
}

/// A consumer has it, so nobody may find it again: a removal wins against any value, also a later one,
/// in whatever order they come, and also where a delete that neither has seen comes between.
#[test]
fn what_was_popped_is_not_brought_back_by_a_later_lset() {
    for removed_first in [true, false] {
        for deleted in [None, Some(true), Some(false)] {
            let (mut west, mut east) = both();
            let mut third = World::new(3, true);
            third.take(&west.state());
            let (popped, removal) = west.run(&[b"LPOP", b"l"]);
            assert_eq!(super::world::show(&popped), "\"a\"");
            let floor = deleted.map(|_| third.at(205).run(&[b"DEL", b"l"]).1);
            let (_, set) = east.at(210).run(&[b"LSET", b"l", b"0", b"later"]);
            let mut news = [&removal, &set];
            if !removed_first {
                news.reverse();
            }
            for world in [&mut west, &mut east, &mut third] {
                if let (Some(floor), Some(true)) = (&floor, deleted) {
                    world.take(floor);
                }
                for effects in news {
                    world.take(effects);
                }
                if let (Some(floor), Some(false)) = (&floor, deleted) {
                    world.take(floor);
                }
            }
            for world in [&mut west, &mut east, &mut third] {
                let left = if deleted.is_some() { "[]" } else { "[\"b\" \"c\"]" };
                assert_eq!(world.cmd("LRANGE l 0 -1"), left, "{removed_first} {deleted:?}");
            }
            assert_eq!(west.digest(300), east.digest(300));
            assert_eq!(west.digest(300), third.digest(300));
        }
    }
}
