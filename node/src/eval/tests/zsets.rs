//! Sorted sets: random commands against a running Redis, synced and unsynced; ranks in blocks; and what
//! two clusters make of them.

use super::redis::{Dice, Value, replies_are_the_same, value_of};
use super::world::World;
use std::collections::{BTreeMap, BTreeSet};

const COMMANDS: usize = 8_000;
const SEEDS: u64 = 3;
const KEYS: &[&str] = &["a", "b", "c", "string", "set", "k\u{0}z"];
const MEMBERS: &[&str] = &["x", "y", "", "1", "12", "z\u{0}", "\u{ff}", "member:00017", "w", "v"];
const SCORES: &[&str] =
    &["0", "1", "-1", "2.5", "2.5", "1e3", "-inf", "+inf", "inf", "-0", "17", "x", "nan", ""];
const BOUNDS: &[&str] =
    &["0", "(0", "-inf", "+inf", "(1", "2.5", "(2.5", "-1", "1000", "x", "(inf"];
const NAMES_FROM: &[&str] = &["-", "+", "[x", "(x", "[", "(1", "[w", "x", "[z\u{0}", "(\u{ff}"];
const RANKS: &[&str] = &["0", "1", "2", "-1", "-2", "-100", "100", "5", "x"];
/// All of its members have one score.
const NAMED: &str = "named";

const NAMES: &[&str] = &[
    "ZADD",
    "ZADD",
    "ZADD",
    "ZADD",
    "ZADD",
    "ZINCRBY",
    "ZREM",
    "ZCARD",
    "ZSCORE",
    "ZMSCORE",
    "ZRANK",
    "ZREVRANK",
    "ZCOUNT",
    "ZRANGE",
    "ZRANGE",
    "ZREVRANGE",
    "ZRANGEBYSCORE",
    "ZREVRANGEBYSCORE",
    "ZRANGEBYLEX",
    "ZREVRANGEBYLEX",
    "ZLEXCOUNT",
    "ZRANGESTORE",
    "ZREMRANGEBYRANK",
    "ZREMRANGEBYSCORE",
    "ZREMRANGEBYLEX",
    "ZPOPMIN",
    "ZPOPMAX",
    "ZMPOP",
    "ZUNION",
    "ZUNIONSTORE",
    "ZINTER",
    "ZINTERSTORE",
    "ZDIFF",
    "ZDIFFSTORE",
    "ZINTERCARD",
    "DEL",
    "TYPE",
    "EXISTS",
    "SET",
    "SADD",
    "HSET",
    "PEXPIREAT",
    "RENAME",
    "COPY",
];

/// A command's words, put together by chance.
struct Words<'d> {
    dice: &'d mut Dice,
    words: Vec<String>,
}

impl Words<'_> {
    fn add(&mut self, list: &[&str]) -> &mut Self {
        let word = self.dice.pick(list).to_owned();
        self.words.push(word);
        self
    }

    fn sometimes(&mut self, words: &[&str]) -> &mut Self {
        if self.dice.roll(3) == 0 {
            self.words.extend(words.iter().map(|word| (*word).to_owned()));
        }
        self
    }

    fn limit(&mut self) {
        if self.dice.roll(3) == 0 {
            self.add(&["LIMIT"]).add(&["0", "1", "-1", "x"]).add(&["0", "1", "2", "-1"]);
        }
    }

    fn keys(&mut self, algebra: bool) {
        self.add(&["1", "2", "2", "2", "0", "-1", "9", "x"]).add(KEYS).add(KEYS);
        if algebra && self.dice.roll(3) == 0 {
            self.add(&["WEIGHTS"]).add(SCORES).add(&["2", "0", "-1", "inf", "x"]);
        }
        if algebra && self.dice.roll(3) == 0 {
            self.add(&["AGGREGATE", "aggregate"]).add(&["SUM", "MIN", "max", "x"]);
        }
    }
}

fn random_command(dice: &mut Dice) -> Vec<String> {
    let name = dice.pick(NAMES);
    let mut words = Words { dice, words: vec![name.to_owned()] };
    match name {
        "ZADD" => add_members(&mut words),
        "ZINCRBY" => drop(words.add(KEYS).add(SCORES).add(MEMBERS)),
        "ZREM" | "ZMSCORE" => drop(words.add(KEYS).add(MEMBERS).add(MEMBERS)),
        "ZSCORE" | "ZRANK" | "ZREVRANK" => drop(words.add(KEYS).add(MEMBERS)),
        "ZCOUNT" | "ZREMRANGEBYSCORE" => drop(words.add(KEYS).add(BOUNDS).add(BOUNDS)),
        "ZREMRANGEBYRANK" => drop(words.add(KEYS).add(RANKS).add(RANKS)),
        "ZLEXCOUNT" | "ZREMRANGEBYLEX" => {
            words.add(&[NAMED]).add(NAMES_FROM).add(NAMES_FROM);
        }
        "ZRANGE" => range(&mut words),
        "ZRANGESTORE" => {
            words.add(KEYS);
            range(&mut words);
        }
        "ZREVRANGE" => drop(words.add(KEYS).add(RANKS).add(RANKS).sometimes(&["WITHSCORES"])),
        "ZRANGEBYSCORE" | "ZREVRANGEBYSCORE" => {
            words.add(KEYS).add(BOUNDS).add(BOUNDS).sometimes(&["withscores"]).limit();
        }
        "ZRANGEBYLEX" | "ZREVRANGEBYLEX" => {
            words.add(&[NAMED]).add(NAMES_FROM).add(NAMES_FROM).limit();
        }
        "ZPOPMIN" | "ZPOPMAX" => {
            words.add(KEYS);
            if words.dice.roll(2) == 0 {
                words.add(&["0", "1", "2", "100", "-1", "x"]);
            }
        }
        "ZMPOP" => {
            words.keys(false);
            words.add(&["MIN", "max", "x"]).sometimes(&["COUNT", "2"]).sometimes(&["COUNT", "0"]);
        }
        "ZUNION" | "ZINTER" => {
            words.keys(true);
            words.sometimes(&["WITHSCORES"]);
        }
        "ZDIFF" => {
            words.keys(false);
            words.sometimes(&["WITHSCORES"]).sometimes(&["WEIGHTS", "1", "1"]);
        }
        "ZUNIONSTORE" | "ZINTERSTORE" => {
            words.add(KEYS).keys(true);
            words.sometimes(&["WITHSCORES"]);
        }
        "ZDIFFSTORE" => words.add(KEYS).keys(false),
        "ZINTERCARD" => {
            words.keys(false);
            words.sometimes(&["LIMIT", "1"]).sometimes(&["LIMIT", "-1"]);
        }
        "SET" => drop(words.add(&["string"]).add(&["v"])),
        "SADD" => drop(words.add(&["set", "set", "c"]).add(MEMBERS)),
        "HSET" => drop(words.add(KEYS).add(&["f"]).add(&["v"])),
        "PEXPIREAT" => drop(words.add(KEYS).add(&["1", "4102444800000"])),
        "RENAME" => drop(words.add(KEYS).add(KEYS)),
        "COPY" => drop(words.add(KEYS).add(KEYS).sometimes(&["REPLACE"])),
        _ => drop(words.add(KEYS)),
    }
    let Words { dice, mut words } = words;
    match dice.roll(60) {
        0 => words.push("extra".to_owned()),
        1 if words.len() > 1 => drop(words.pop()),
        _ => {}
    }
    words
}

fn add_members(words: &mut Words<'_>) {
    if words.dice.roll(4) == 0 {
        words.add(&[NAMED]).add(&["0"]).add(MEMBERS).add(&["0"]).add(MEMBERS);
        return;
    }
    words.add(KEYS);
    for _ in 0..words.dice.roll(3) {
        words.add(&["NX", "xx", "GT", "LT", "CH", "INCR"]);
    }
    for _ in 0..1 + words.dice.roll(3) {
        words.add(SCORES).add(MEMBERS);
    }
}

fn range(words: &mut Words<'_>) {
    match words.dice.roll(4) {
        0 => words.add(&[NAMED]).add(NAMES_FROM).add(NAMES_FROM).add(&["BYLEX"]),
        1 => words.add(KEYS).add(BOUNDS).add(BOUNDS).add(&["BYSCORE"]),
        _ => words.add(KEYS).add(RANKS).add(RANKS),
    };
    words.sometimes(&["REV"]).sometimes(&["WITHSCORES"]).limit();
}

/// A command's reply as words.
fn cmd(world: &mut World, line: &str) -> String {
    fn flat(value: Value, words: &mut Vec<String>) {
        match value {
            Value::Array(items) => items.into_iter().for_each(|item| flat(item, words)),
            Value::Bulk(Some(bytes)) => words.push(String::from_utf8_lossy(&bytes).into_owned()),
            Value::Bulk(None) => words.push("nil".to_owned()),
            Value::Int(number) => words.push(number.to_string()),
            Value::Line(line) => words.push(line),
        }
    }
    let mut words = Vec::new();
    flat(value_of(&world.ship(line).0), &mut words);
    words.join(" ")
}

/// Floats are printed in the shortest form here and with 17 digits by Redis 7.0.
fn same_floats(value: Value) -> Value {
    match value {
        Value::Array(items) => Value::Array(items.into_iter().map(same_floats).collect()),
        Value::Bulk(Some(bytes)) => {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            let float = text.parse::<f64>().ok().filter(|_| text.len() > 2);
            Value::Bulk(Some(float.map_or(bytes, |float| float.to_string().into_bytes())))
        }
        other => other,
    }
}

#[test]
fn replies_on_sorted_sets_are_those_of_redis() {
    replies_are_the_same((SEEDS, COMMANDS), random_command, same_floats);
}

/// Ranks in both directions, ranges from any rank on and counts between any scores, against a plain
/// model, while members come, move and go.
#[test]
fn blocks_of_a_large_sorted_set_count_its_members() {
    for (seed, synced) in [(1, true), (2, false), (3, true)] {
        let mut dice = Dice::new(seed);
        let mut world = World::new(1, synced);
        world.at(100);
        let mut model: BTreeMap<String, i64> = BTreeMap::new();
        for round in 0..3_000 {
            let member = format!("m{}", dice.roll(600));
            let score = dice.roll(50) as i64;
            match dice.roll(100) {
                0..70 => {
                    cmd(&mut world, &format!("ZADD z {score} {member}"));
                    model.insert(member, score);
                }
                70..99 => {
                    cmd(&mut world, &format!("ZREM z {member}"));
                    model.remove(&member);
                }
                _ if seed > 1 && round % 7 == 0 => {
                    cmd(&mut world, "DEL z");
                    model.clear();
                }
                _ => {}
            }
            if round % 10 == 0 {
                check_ranks(&mut world, &mut dice, &model);
            }
        }
    }
}

fn check_ranks(world: &mut World, dice: &mut Dice, model: &BTreeMap<String, i64>) {
    let mut order: Vec<(i64, &str)> =
        model.iter().map(|(name, score)| (*score, &name[..])).collect();
    order.sort_unstable();
    assert_eq!(cmd(world, "ZCARD z"), order.len().to_string());
    if order.is_empty() {
        return;
    }
    let at = dice.roll(order.len());
    assert_eq!(cmd(world, &format!("ZRANK z {}", order[at].1)), at.to_string());
    let back = order.len() - 1 - at;
    assert_eq!(cmd(world, &format!("ZREVRANK z {}", order[at].1)), back.to_string());
    let names = |of: &[(i64, &str)]| of.iter().map(|(_, name)| *name).collect::<Vec<_>>().join(" ");
    let some = &order[at..order.len().min(at + 5)];
    assert_eq!(cmd(world, &format!("ZRANGE z {at} {}", at + 4)), names(some));
    let mut some = order[(at + 1).saturating_sub(5)..=at].to_vec();
    some.reverse();
    assert_eq!(cmd(world, &format!("ZREVRANGE z {back} {}", back + 4)), names(&some));
    let (low, high) = (dice.roll(50) as i64, dice.roll(50) as i64);
    let within = order.iter().filter(|(score, _)| (low..=high).contains(score)).count();
    assert_eq!(cmd(world, &format!("ZCOUNT z {low} {high}")), within.to_string());
    assert_eq!(cmd(world, &format!("ZRANGE z {} -1", order.len())), "");
    let mut within: Vec<_> =
        order.iter().filter(|(score, _)| (low..=high).contains(score)).cloned().collect();
    let over = dice.roll(within.len() + 3);
    for command in
        [format!("ZRANGEBYSCORE z {low} {high}"), format!("ZREVRANGEBYSCORE z {high} {low}")]
    {
        let rest = &within[over.min(within.len())..within.len().min(over + 5)];
        assert_eq!(cmd(world, &format!("{command} LIMIT {over} 5")), names(rest), "{command}");
        within.reverse();
    }
}

#[test]
fn members_by_chance_come_with_their_scores() {
    let mut world = World::new(1, true);
    world.at(100);
    cmd(&mut world, "ZADD z 1 a 2 b 3 c");
    let mut seen = BTreeSet::new();
    for chance in 0..100 {
        world.chance = chance;
        seen.insert(cmd(&mut world, "ZRANDMEMBER z 1 WITHSCORES"));
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), ["a 1", "b 2", "c 3"]);
    assert_eq!(cmd(&mut world, "ZRANDMEMBER z 5").split(' ').count(), 3);
    assert_eq!(cmd(&mut world, "ZRANDMEMBER z -5").split(' ').count(), 5);
    assert_eq!(cmd(&mut world, "ZRANDMEMBER none"), "nil");
    assert_eq!(cmd(&mut world, "ZSCAN z 0 MATCH b"), "0 b 2");
}

#[test]
fn two_clusters_join_sorted_sets_member_by_member() {
    let (mut west, mut east) = (World::new(1, true), World::new(2, true));
    west.at(100);
    let (_, first) = west.run(&[b"ZADD", b"z", b"1", b"both", b"2", b"gone", b"3", b"again"]);
    east.take(&first);
    west.at(200);
    east.at(201);
    let (_, removed) = west.run(&[b"ZREM", b"z", b"gone", b"again"]);
    let (_, moved) = west.run(&[b"ZADD", b"z", b"9", b"both"]);
    let (_, added) = east.run(&[b"ZADD", b"z", b"5", b"again", b"4", b"east"]);
    for effects in [&removed, &moved] {
        east.take(effects);
    }
    west.take(&added);
    for world in [&mut west, &mut east] {
        // The index has each member once, by the score that stands.
        assert_eq!(cmd(world, "ZRANGE z 0 -1 WITHSCORES"), "east 4 again 5 both 9");
        assert_eq!(cmd(world, "ZCARD z"), "3");
        assert_eq!(cmd(world, "ZCOUNT z 1 3"), "0");
    }
    west.at(300);
    east.at(301);
    let (_, deleted) = west.run(&[b"DEL", b"z"]);
    let (_, added) = east.run(&[b"ZADD", b"z", b"7", b"new"]);
    east.take(&deleted);
    west.take(&added);
    for world in [&mut west, &mut east] {
        assert_eq!(cmd(world, "ZRANGE z 0 -1 WITHSCORES"), "new 7");
        assert_eq!(cmd(world, "ZRANK z new"), "0");
    }
}
