//! SORT: random commands against a running Redis, synced and unsynced; which patterns are refused; and
//! what two clusters make of its results.

use super::redis::{Dice, replies_are_the_same};
use super::world::World;

const LISTS: &[&str] = &["{t}l", "{t}m"];
/// A list, a set, a sorted set, a set of numbers, nothing, a string, a hash; some become lists.
const KEYS: &[&str] =
    &["{t}l", "{t}m", "{t}l", "{t}s", "{t}z", "{t}z", "{t}n", "{t}none", "{t}string", "{t}h_x"];
const TARGETS: &[&str] = &["{t}l", "{t}m", "{t}none", "{t}string"];
const ELEMENTS: &[&str] = &["1", "2", "3", "10", "-5", "2.5", "007", "1e1", "x", "y", "xx"];
const NUMBERS: &[&str] = &["1", "2", "3", "10", "-5", "2.5", "007", "1e1", "-0", "0"];
const WEIGHTS: &[&str] = &[
    "1", "2", "3", "-1", "0", "", " 7", "+7", "1.5e3", ".5", "5.", "0x1F", "0x1p-2", "inf", "-Inf",
    "-0", "30", "4", "b", "B",
];
/// None beyond the range of floats: after one Redis 7.0 takes the next numbers for such ones as well.
const WRONG_WEIGHTS: &[&str] =
    &["x", "1x", "nan", "  ", "1 ", "\u{ff}", "0x", ".", "1e", "--1", "0x1p"];
const PATTERNS: &[&str] = &[
    "{t}w_*",
    "{t}w_*",
    "{t}w*_",
    "{t}h_*->f",
    "{t}h_*->f",
    "{t}*->f",
    "{t}w_*->",
    "{t}->*",
    "{t}w_*\0",
];
const CONSTANT: &[&str] = &["nosort", "#", "{t}w_1", "", "->", "#\0"];
const LIMITS: &[&str] = &["0", "1", "2", "3", "100", "-1", "-3"];

fn random_command(dice: &mut Dice) -> Vec<String> {
    let roll = dice.roll(20);
    let mut pick = |list: &[&str]| dice.pick(list).to_owned();
    // Two alphabets, so that lists of numbers alone are frequent.
    let elements = if roll.is_multiple_of(2) { NUMBERS } else { ELEMENTS };
    match roll {
        0..2 => ["RPUSH", LISTS[0], &pick(NUMBERS), &pick(NUMBERS)].map(str::to_owned).to_vec(),
        2 => ["RPUSH", LISTS[1], &pick(ELEMENTS), &pick(ELEMENTS)].map(str::to_owned).to_vec(),
        3..5 => ["SADD", "{t}s", &pick(elements), &pick(elements)].map(str::to_owned).to_vec(),
        5 => ["SADD", "{t}n", &pick(&["1", "2", "3", "10", "-5"])].map(str::to_owned).to_vec(),
        6..8 => ["ZADD", "{t}z", &pick(LIMITS), &pick(elements)].map(str::to_owned).to_vec(),
        8..10 => {
            let weights = if pick(NUMBERS) == "1" { WRONG_WEIGHTS } else { WEIGHTS };
            let (string, field) = (pick(&["SET", "HSET"]), pick(&["f", "f", "g"]));
            let (element, weight) = (pick(ELEMENTS), pick(weights));
            match &string[..] {
                "SET" => vec![string, format!("{{t}}w_{element}"), weight],
                _ => vec![string, format!("{{t}}h_{element}"), field, weight],
            }
        }
        10 => vec!["DEL".to_owned(), pick(KEYS)],
        11 => vec!["DEL".to_owned(), format!("{{t}}w_{}", pick(ELEMENTS))],
        12 => ["LTRIM", &pick(LISTS), "-4", "-1"].map(str::to_owned).to_vec(),
        13 => ["LRANGE", &pick(TARGETS), "0", "-1"].map(str::to_owned).to_vec(),
        14 => ["SET", "{t}string", "v"].map(str::to_owned).to_vec(),
        _ => sort(dice),
    }
}

fn sort(dice: &mut Dice) -> Vec<String> {
    let name = dice.pick(&["SORT", "SORT", "sort", "SORT_RO"]);
    let key = dice.pick(KEYS);
    let mut words = vec![name.to_owned(), key.to_owned()];
    let mut add = |of: &[&str]| words.extend(of.iter().map(|word| (*word).to_owned()));
    let (ordered, stores) = (LISTS.contains(&key), name != "SORT_RO" && dice.roll(3) == 0);
    let (alpha, mut limited) = (dice.roll(2) == 0, dice.roll(2) == 0);
    match dice.roll(4) {
        // What has no order of its own comes in another one from Redis where weights are alike, and of
        // some of a longer list of them it says nothing.
        0 if ordered || !alpha => {
            add(&["BY", dice.pick(PATTERNS)]);
            limited &= !alpha;
        }
        1 if ordered || key == "{t}z" || stores => add(&["by", dice.pick(CONSTANT)]),
        _ => {}
    }
    if limited {
        add(&["LIMIT", dice.pick(LIMITS), dice.pick(LIMITS)]);
    }
    if alpha {
        add(&["ALPHA"]);
    }
    for _ in 0..dice.roll(3) {
        let get = if dice.roll(3) == 0 { CONSTANT } else { PATTERNS };
        match dice.roll(3) {
            0 => add(&[dice.pick(&["asc", "DESC", "DESC"])]),
            _ => add(&["GET", dice.pick(get)]),
        }
    }
    if stores {
        add(&["STORE", dice.pick(TARGETS)]);
    }
    match dice.roll(60) {
        0 => add(&[dice.pick(&["x", "STORE", "BY", "GET", "LIMIT", "DESC"])]),
        1 => add(&["LIMIT", dice.pick(&["x", "0"]), dice.pick(&["y", ""])]),
        _ => {}
    }
    words
}

#[test]
fn sorted_replies_are_those_of_redis() {
    replies_are_the_same((8, 6_000), random_command, |reply| reply);
}

#[test]
fn a_pattern_lies_in_the_slot_of_the_key_or_is_refused() {
    for synced in [true, false] {
        let mut world = World::new(1, synced);
        world.at(100);
        world.cmd("RPUSH user 2 1");
        world.cmd("RPUSH {} {x} 1");
        assert!(world.cmd("SORT {} ALPHA GET {}*").contains("ERR GET option of SORT denied"));
        world.cmd("MSET {user}w_1 5 {user}w_2 4 w_1 4 w_2 5");
        for pattern in ["{user}w_*", "{user}*", "{user}{*}", "nosort", "#", "{none}"] {
            let reply = world.cmd(&format!("SORT user BY {pattern} GET {pattern} GET #"));
            assert!(!reply.contains("ERR"), "{pattern}: {reply}");
        }
        assert_eq!(world.cmd("SORT user BY {user}w_* GET #"), "[\"2\" \"1\"]");
        for pattern in ["w_*", "*", "{w}_*", "{us*}er", "*{user}", "{}{user}*", "user*", "{user*"] {
            for option in ["BY", "GET"] {
                for name in ["SORT", "SORT_RO"] {
                    let reply = world.cmd(&format!("{name} user {option} {pattern}"));
                    let refusal = format!("ERR {option} option of SORT denied");
                    assert!(reply.contains(&refusal), "{pattern}: {reply}");
                }
            }
        }
    }
}

#[test]
fn numbers_beyond_the_range_of_floats_are_not_sorted() {
    let mut world = World::new(1, false);
    world.at(100);
    for (number, fits) in [
        ("1e308", true),
        ("1e309", false),
        ("-1e309", false),
        ("1e-300", true),
        ("1e-310", false),
        ("-0.00e-999", true),
        ("0x1p1023", true),
        ("0x1p1024", false),
        ("-infinity", true),
    ] {
        world.cmd(&format!("RPUSH l {number} 1"));
        let reply = world.cmd("SORT l");
        let wrong = "ERR One or more scores can't be converted into double";
        assert_eq!(reply != wrong, fits, "{number}: {reply}");
        world.cmd("DEL l");
    }
}

#[test]
fn a_list_that_is_too_large_is_not_sorted() {
    let mut world = World::new(1, false);
    world.at(100);
    for _ in 0..3 {
        let element = vec![b'x'; 12 << 20];
        world.run(&[b"RPUSH", b"l", &element]);
    }
    let reply = world.cmd("SORT l ALPHA");
    assert!(reply.contains("ERR 'sort' may read 33554432 bytes"), "{}", &reply[..100]);
    assert_eq!(world.cmd("SORT l BY nosort GET nothing LIMIT 0 2"), "[nil nil]");
    let reply = world.cmd("SORT l BY nosort LIMIT 0 2 STORE m");
    assert!(reply.contains("ERR a command may write 20971520 bytes"), "{}", &reply[..100]);
    assert_eq!(world.cmd("EXISTS m"), "0");
}

#[test]
fn of_two_sorted_results_at_once_the_later_stays() {
    let (mut west, mut east) = (World::new(1, true), World::new(2, true));
    west.at(100);
    for words in [&[&b"RPUSH"[..], b"{t}l", b"3", b"1", b"2"][..], &[b"SET", b"{t}to", b"old"]] {
        let (_, effects) = west.run(words);
        east.take(&effects);
    }
    west.at(200);
    east.at(201);
    let (_, first) = west.run(&[b"SORT", b"{t}l", b"STORE", b"{t}to"]);
    let (_, second) =
        east.run(&[b"SORT", b"{t}l", b"DESC", b"LIMIT", b"0", b"2", b"STORE", b"{t}to"]);
    assert_eq!(west.cmd("LRANGE {t}to 0 -1"), "[\"1\" \"2\" \"3\"]");
    west.take(&second);
    east.take(&first);
    for world in [&mut west, &mut east] {
        assert_eq!(world.cmd("LRANGE {t}to 0 -1"), "[\"3\" \"2\"]");
        assert_eq!(world.cmd("LLEN {t}to"), "2");
    }
    assert_eq!(west.digest(300), east.digest(300));
}
