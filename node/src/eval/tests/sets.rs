//! Sets: random commands against a running Redis, synced and unsynced, and what is left to chance.

use super::redis::{Dice, Redis, Value, value_of, wall_ms};
use super::world::World;
use std::collections::{BTreeMap, BTreeSet};

const COMMANDS: usize = 6_000;
const SEEDS: u64 = 3;
const KEYS: &[&str] = &["a", "b", "c", "string", "k\u{0}z"];
const MEMBERS: &[&str] = &["x", "y", "", "1", "12", "z\u{0}", "\u{ff}", "member:00017"];
const COUNTS: &[&str] = &["0", "1", "2", "3", "100", "-1", "-3", "x", "9223372036854775808"];

const NAMES: &[&str] = &[
    "SADD",
    "SADD",
    "SADD",
    "SADD",
    "SREM",
    "SMEMBERS",
    "SISMEMBER",
    "SMISMEMBER",
    "SCARD",
    "SMOVE",
    "SPOP",
    "SRANDMEMBER",
    "SINTER",
    "SINTERCARD",
    "SINTERSTORE",
    "SUNION",
    "SUNIONSTORE",
    "SDIFF",
    "SDIFFSTORE",
    "DEL",
    "TYPE",
    "EXISTS",
    "SET",
    "HSET",
    "PEXPIREAT",
    "PERSIST",
    "GET",
];

fn random_command(dice: &mut Dice) -> Vec<String> {
    let name = dice.pick(NAMES);
    let mut words = vec![name.to_owned()];
    let mut add = |list: &[&str]| words.push(dice.pick(list).to_owned());
    if name != "SINTERCARD" {
        add(KEYS);
    }
    match name {
        "SADD" | "SREM" | "SISMEMBER" | "SMISMEMBER" => add(MEMBERS),
        "SMOVE" => {
            add(KEYS);
            add(MEMBERS);
        }
        "SINTERCARD" => {
            add(&["1", "2", "2", "0", "-1", "9", "x"]);
            add(KEYS);
            add(KEYS);
        }
        "SINTERSTORE" | "SUNIONSTORE" | "SDIFFSTORE" => add(KEYS),
        "SET" => add(&["v"]),
        "HSET" => {
            add(&["f"]);
            add(&["v"]);
        }
        "PEXPIREAT" => add(&["1", "4102444800000"]),
        _ => {}
    }
    for _ in 0..dice.roll(4) {
        let more = match name {
            "SADD" | "SREM" | "SMISMEMBER" => dice.pick(MEMBERS),
            "SINTER" | "SUNION" | "SDIFF" | "SINTERSTORE" | "SUNIONSTORE" | "SDIFFSTORE" => {
                dice.pick(KEYS)
            }
            "SPOP" | "SRANDMEMBER" => dice.pick(COUNTS),
            "SINTERCARD" => dice.pick(&["LIMIT", "limit", "0", "1", "-1", "x"]),
            _ => break,
        };
        words.push(more.to_owned());
        if name.ends_with("MEMBER") || name == "SPOP" {
            break;
        }
    }
    match dice.roll(60) {
        0 => words.push("extra".to_owned()),
        1 if words.len() > 1 => drop(words.pop()),
        _ => {}
    }
    words
}

fn sorted(value: Value) -> Value {
    match value {
        Value::Array(mut items) => {
            items.sort();
            Value::Array(items)
        }
        other => other,
    }
}

fn words(of: &[&str]) -> Vec<Vec<u8>> {
    of.iter().map(|word| word.as_bytes().to_vec()).collect()
}

/// What Redis says to a command; of what it leaves to chance it is made to follow `ours`.
fn theirs(redis: &mut Redis, command: &[Vec<u8>], ours: &Value) -> Value {
    let name = String::from_utf8_lossy(&command[0]).into_owned();
    let by_chance = command.len() <= 3 && (name == "SPOP" || name == "SRANDMEMBER");
    if !by_chance {
        return redis.ask(command);
    }
    let members = match ours {
        Value::Bulk(Some(member)) => vec![member.clone()],
        Value::Array(members) => members
            .iter()
            .map(|member| match member {
                Value::Bulk(Some(member)) => member.clone(),
                other => panic!("not a member: {other:?}"),
            })
            .collect(),
        _ => vec![],
    };
    if members.is_empty() {
        return redis.ask(command);
    }
    let key = command[1].clone();
    let Value::Int(card) = redis.ask(&[b"SCARD".to_vec(), key.clone()]) else { panic!("no set") };
    let asked = command.get(2).map_or(1, |count| {
        String::from_utf8_lossy(count).parse::<i64>().expect("a number was understood")
    });
    let distinct: BTreeSet<_> = members.iter().cloned().collect();
    match asked < 0 {
        true => assert_eq!(members.len() as i64, -asked),
        false => assert_eq!(distinct.len() as i64, asked.min(card), "{command:?}"),
    }
    let verb = if name == "SPOP" { "SREM" } else { "SMISMEMBER" };
    let mut check = vec![verb.as_bytes().to_vec(), key];
    check.extend(distinct.iter().cloned());
    match redis.ask(&check) {
        Value::Int(removed) => assert_eq!(removed, distinct.len() as i64),
        Value::Array(found) => assert!(found.iter().all(|found| *found == Value::Int(1))),
        other => panic!("{other:?}"),
    }
    ours.clone()
}

#[test]
fn replies_are_those_of_redis() {
    let mut redis = Redis::start();
    for seed in 1..=SEEDS {
        redis.ask(&words(&["FLUSHALL"]));
        let mut dice = Dice::new(seed);
        let mut worlds = [World::new(1, true), World::new(1, false)];
        worlds[0].flight_max = dice.roll(4);
        let mut history: Vec<String> = Vec::new();
        for step in 0..COMMANDS {
            let command = random_command(&mut dice);
            history.push(format!("{command:?}"));
            let command: Vec<Vec<u8>> = command.into_iter().map(String::into_bytes).collect();
            let chance = dice.roll(1 << 20) as u64;
            let ours: [Value; 2] = worlds.each_mut().map(|world| {
                world.at(wall_ms());
                world.chance = chance;
                let words: Vec<&[u8]> = command.iter().map(Vec::as_slice).collect();
                sorted(value_of(&world.run(&words).0))
            });
            let theirs = sorted(theirs(&mut redis, &command, &ours[0]));
            for ours in ours {
                assert_eq!(
                    ours,
                    theirs,
                    "seed {seed} step {step}:\n{}",
                    history[step.saturating_sub(25)..=step].join("\n"),
                );
            }
        }
    }
}

/// How often each member comes when one is drawn from many, for numbered and for random names.
#[test]
fn members_of_a_large_set_come_about_equally_often() {
    let mut dice = Dice::new(7);
    let mut world = World::new(1, true);
    world.at(100);
    for start in (0..5_000).step_by(100) {
        let numbered = (start..start + 100).map(|n| format!("m:{n:04}"));
        world.cmd(&format!("SADD numbered {}", numbered.collect::<Vec<_>>().join(" ")));
        let random = (0..100).map(|_| format!("{:08x}", dice.roll(1 << 31)));
        world.cmd(&format!("SADD random {}", random.collect::<Vec<_>>().join(" ")));
    }
    for key in ["numbered", "random"] {
        let mut drawn: BTreeMap<String, usize> = BTreeMap::new();
        for chance in 0..20_000 {
            world.chance = chance;
            *drawn.entry(world.cmd(&format!("SRANDMEMBER {key}"))).or_default() += 1;
        }
        let (least, most) = (2_500, 60);
        assert!(drawn.len() > least, "{key}: {} different of 5000", drawn.len());
        let often = drawn.values().max().unwrap();
        assert!(*often < most, "{key}: one came {often} times of 20000");
        world.chance = 1;
        let many = world.cmd(&format!("SRANDMEMBER {key} 1500"));
        assert_eq!(many.split(' ').collect::<BTreeSet<_>>().len(), 1500, "{key}");
    }
}

/// Ranks are drawn, so it does not matter what names look like.
#[test]
fn members_of_a_large_sorted_set_come_equally_often() {
    let mut world = World::new(1, true);
    world.at(100);
    for start in (0..2_000).step_by(100) {
        let pairs: Vec<String> = (start..start + 100).map(|n| format!("{} m{n}", n % 7)).collect();
        world.cmd(&format!("ZADD z {}", pairs.join(" ")));
    }
    let mut drawn: BTreeMap<String, usize> = BTreeMap::new();
    for chance in 0..20_000 {
        world.chance = chance;
        *drawn.entry(world.cmd("ZRANDMEMBER z")).or_default() += 1;
    }
    let most = drawn.values().max().unwrap();
    assert!(drawn.len() > 1_990, "{} different of 2000", drawn.len());
    assert!(*most < 40, "one came {most} times of 20000, 10 were its share");
}

#[test]
fn two_clusters_join_sets_member_by_member() {
    let (mut west, mut east) = (World::new(1, true), World::new(2, true));
    west.at(100);
    let (_, first) = west.run(&[b"SADD", b"s", b"both", b"gone", b"again"]);
    east.take(&first);
    west.at(200);
    east.at(201);
    let (_, removed) = west.run(&[b"SREM", b"s", b"gone", b"again"]);
    let (_, added) = east.run(&[b"SADD", b"s", b"again", b"east"]);
    east.take(&removed);
    west.take(&added);
    for world in [&mut west, &mut east] {
        let members = world.cmd("SMEMBERS s");
        assert!(!members.contains("gone"), "{members}: removed, and nobody added it later");
        assert!(members.contains("again"), "{members}: added later than it was removed");
        assert_eq!(world.cmd("SCARD s"), "3");
    }
    // A delete hides what it has seen, a later add survives.
    west.at(300);
    east.at(301);
    let (_, deleted) = west.run(&[b"DEL", b"s"]);
    let (_, added) = east.run(&[b"SADD", b"s", b"new"]);
    east.take(&deleted);
    west.take(&added);
    for world in [&mut west, &mut east] {
        assert_eq!(world.cmd("SCARD s"), "1");
        assert_eq!(world.cmd("SISMEMBER s new"), "1");
    }
}
