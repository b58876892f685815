//! DUMP and RESTORE: payloads that go from here to a running Redis and back, and payloads that lie.

use super::redis::{Dice, Redis, Value, value_of, wall_ms};
use super::world::World;
use crate::command::Command;
use crate::eval::{VALUE_BYTES_MAX, WRITE_BYTES_MAX};
use crate::resp::Reply;
use bytes::Bytes;
use crc::{CRC_64_REDIS, Crc};

const KEYS_PER_SEED: usize = 80;
const SEEDS: u64 = 4;

/// A payload with this body, of Redis 7.0.
pub(super) fn sealed(body: &[u8]) -> Vec<u8> {
    versioned(body, 10)
}

fn versioned(body: &[u8], version: u16) -> Vec<u8> {
    let checked = [body, &version.to_le_bytes()].concat();
    let checksum = Crc::<u64>::new(&CRC_64_REDIS).checksum(&checked);
    [&checked[..], &checksum.to_le_bytes()].concat()
}

pub(super) fn words(line: &str) -> Vec<Vec<u8>> {
    line.split(' ').map(|word| word.as_bytes().to_vec()).collect()
}

/// A command with a payload as its fourth word.
pub(super) fn restore(key: &str, ttl: &str, payload: &[u8], options: &str) -> Vec<Vec<u8>> {
    let mut all = words(&format!("RESTORE {key} {ttl}"));
    all.push(payload.to_vec());
    all.extend(options.split(' ').filter(|word| !word.is_empty()).map(|word| word.into()));
    all
}

pub(super) fn ours(world: &mut World, command: &[Vec<u8>]) -> Value {
    let words: Vec<&[u8]> = command.iter().map(Vec::as_slice).collect();
    value_of(&world.at(wall_ms()).run(&words).0)
}

pub(super) fn ok() -> Value {
    Value::Line("+OK".to_owned())
}

fn payload(value: Value) -> Vec<u8> {
    match value {
        Value::Bulk(Some(payload)) => payload,
        other => panic!("no payload: {other:?}"),
    }
}

/// All that a key holds, as `ask` reads it.
pub(super) fn contents(key: &str, mut ask: impl FnMut(&[Vec<u8>]) -> Value) -> Value {
    let Value::Line(ty) = ask(&words(&format!("TYPE {key}"))) else { panic!("no type") };
    let read = match &ty[1..] {
        "string" => format!("GET {key}"),
        "list" => format!("LRANGE {key} 0 -1"),
        "set" => format!("SMEMBERS {key}"),
        "hash" => format!("HGETALL {key}"),
        "zset" => format!("ZRANGE {key} 0 -1 WITHSCORES"),
        "none" => return Value::Bulk(None),
        other => panic!("{other}"),
    };
    let read = ask(&words(&read));
    let pairs = |items: Vec<Value>, of: usize| {
        let mut items: Vec<Value> =
            items.chunks(of).map(|items| Value::Array(items.to_vec())).collect();
        items.sort();
        Value::Array(items)
    };
    match (&ty[1..], read) {
        ("set", Value::Array(items)) => pairs(items, 1),
        ("hash", Value::Array(items)) => pairs(items, 2),
        // Their order follows from the scores, unless a payload has lied about it.
        ("zset", Value::Array(items)) => {
            let known = items.chunks(2).flat_map(|pair| [pair[0].clone(), score(&pair[1])]);
            pairs(known.collect(), 2)
        }
        (_, read) => read,
    }
}

/// Redis 7.0 writes scores with other digits; there is one zero here.
fn score(text: &Value) -> Value {
    let Value::Bulk(Some(text)) = text else { panic!("no score: {text:?}") };
    let score: f64 = std::str::from_utf8(text).unwrap().parse().unwrap();
    Value::Line(format!("{:?}", score + 0.0))
}

/// A value that is stored as an integer, short, compressible, or long.
fn random_text(dice: &mut Dice) -> Vec<u8> {
    let number = dice.roll(1 << 30) as i64 * [1, -1, 1 << 20, 1 << 33][dice.roll(4)];
    let number = number >> dice.roll(40);
    match dice.roll(10) {
        0..4 => number.to_string().into_bytes(),
        4..7 => (0..dice.roll(30)).map(|_| dice.roll(256) as u8).collect(),
        7 => vec![b'a' + dice.roll(3) as u8; dice.roll(400)],
        8 => "a word and a number 17, again and again; ".repeat(dice.roll(40)).into_bytes(),
        _ => (0..dice.roll(9_000)).map(|_| dice.roll(256) as u8).collect(),
    }
}

fn random_score(dice: &mut Dice) -> Vec<u8> {
    let fixed = ["inf", "-inf", "0", "-0", "1e300", "5e-324", "0.1", "-3.5", "1e21"];
    match dice.roll(3) {
        0 => dice.pick(&fixed).into(),
        1 => (dice.roll(2_000) as i64 - 1_000).to_string().into_bytes(),
        _ => (dice.roll(1 << 30) as f64 / 1_000.0).to_string().into_bytes(),
    }
}

/// Commands that make a key of some type and size.
fn random_key(dice: &mut Dice, key: &str) -> Vec<Vec<Vec<u8>>> {
    let name = dice.pick(&["SET", "RPUSH", "SADD", "SADD", "HSET", "ZADD", "PFADD"]);
    let many = [1, 3, 20, 150, 700][dice.roll(5)].min(1 + dice.roll(700));
    let only_numbers = dice.roll(2) == 0;
    let mut commands = Vec::new();
    let begin = || [name.as_bytes().to_vec(), key.as_bytes().to_vec()].to_vec();
    if name == "SET" {
        let value = random_text(dice);
        return vec![[begin(), vec![value]].concat()];
    }
    for _ in 0..many {
        let mut command = begin();
        if name == "ZADD" {
            command.push(random_score(dice));
        }
        command.push(match name {
            "SADD" if only_numbers => dice.roll(100_000).to_string().into_bytes(),
            _ => random_text(dice),
        });
        if name == "HSET" {
            command.push(random_text(dice));
        }
        commands.push(command);
    }
    if name == "RPUSH" && dice.roll(2) == 0 {
        commands.push(words(&format!("LPUSH {key} first")));
        commands.push(words(&format!("LTRIM {key} 1 -1")));
        commands.push(words(&format!("RPUSH {key} last")));
    }
    commands
}

fn random_settings(dice: &mut Dice, redis: &mut Redis) {
    let settings = [
        ("list-max-listpack-size", ["-2", "1", "5", "-1"]),
        ("list-compress-depth", ["0", "1", "2", "0"]),
        ("rdbcompression", ["yes", "no", "yes", "yes"]),
        ("set-max-intset-entries", ["512", "0", "4", "100"]),
        ("hash-max-listpack-entries", ["128", "0", "4", "700"]),
        ("hash-max-listpack-value", ["64", "10000", "1", "100"]),
        ("zset-max-listpack-entries", ["128", "0", "4", "700"]),
        ("zset-max-listpack-value", ["64", "10000", "1", "100"]),
    ];
    for (name, values) in settings {
        let set = format!("CONFIG SET {name} {}", dice.pick(&values));
        assert_eq!(redis.ask(&words(&set)), ok());
    }
}

#[test]
fn payloads_go_both_ways() {
    let mut redis = Redis::start();
    let mut forms = std::collections::BTreeSet::new();
    for seed in 1..=SEEDS {
        redis.ask(&words("FLUSHALL"));
        let mut dice = Dice::new(seed);
        let mut worlds = [World::new(1, true), World::new(1, false)];
        worlds.iter_mut().for_each(|world| world.flight_max = dice.roll(4));
        for step in 0..KEYS_PER_SEED {
            random_settings(&mut dice, &mut redis);
            let key = format!("k{step}");
            for command in random_key(&mut dice, &key) {
                redis.ask(&command);
                worlds.iter_mut().for_each(|world| drop(ours(world, &command)));
            }
            // The sketches differ: ours are dense.
            let sketch = contents(&key, |ask| redis.ask(ask));
            let sketch = matches!(sketch, Value::Bulk(Some(value)) if value.starts_with(b"HYLL"));
            let theirs = payload(redis.ask(&words(&format!("DUMP {key}"))));
            forms.insert(theirs[0]);
            for world in &mut worlds {
                let at = format!("seed {seed} step {step} synced {}", world.synced.is_on());
                let own = payload(ours(world, &words(&format!("DUMP {key}"))));
                assert_eq!(redis.ask(&restore("there", "0", &own, "REPLACE")), ok(), "{at}");
                assert_eq!(ours(world, &restore("here", "0", &theirs, "replace")), ok(), "{at}");
                for (name, origin) in [("there", &key), ("here", &key)] {
                    let read = match name {
                        "there" => contents(name, |ask| redis.ask(ask)),
                        _ => contents(name, |ask| ours(world, ask)),
                    };
                    let wanted = match (name, sketch) {
                        ("there", true) => contents(origin, |ask| ours(world, ask)),
                        _ => contents(origin, |ask| redis.ask(ask)),
                    };
                    assert_eq!(read, wanted, "{at}: {name}");
                }
                if sketch {
                    let ours = ours(world, &words(&format!("PFCOUNT {key}")));
                    assert_eq!(redis.ask(&words("PFCOUNT there")), ours, "{at}");
                }
            }
        }
    }
    // Strings, sets, hashes, sorted sets, intsets, hashes and sorted sets as listpacks, quicklists.
    assert_eq!(forms.into_iter().collect::<Vec<_>>(), [0, 2, 4, 5, 11, 16, 17, 18]);
}

#[test]
fn arguments_are_checked_as_by_redis() {
    let mut redis = Redis::start();
    let mut dice = Dice::new(5);
    let mut worlds = [World::new(1, true), World::new(1, false)];
    let string = sealed(b"\0\x05value");
    let mut broken = string.clone();
    broken[3] ^= 1;
    let payloads = [
        string.clone(),
        sealed(b"\x01\x02\x01a\x01b"),
        broken,
        versioned(b"\0\x05value", 99),
        sealed(b"\0\x20value"),
        sealed(b"\x01\0"),
        sealed(b""),
        sealed(b"\xC8"),
        string[..9].to_vec(),
        Vec::new(),
    ];
    let options = ["REPLACE", "replace", "ABSTTL", "IDLETIME", "FREQ", "freq", "foo", "7", "-1"];
    let more = ["x", "255", "256", "9223372036854775808", "", "DB"];
    let options = [&options[..], &more].concat();
    let ttls = ["0", "0", "100000000", "-1", "x", "", "1.5", "1", "9223372036854775808"];
    let mut answers = std::collections::BTreeSet::new();
    for step in 0..6_000 {
        let key = dice.pick(&["a", "b", "c"]);
        let mut command = match dice.roll(8) {
            0 => words(&format!("DEL {key}")),
            1 => words(&format!("TYPE {key}")),
            2 => words(&format!("DUMP {key}z")),
            _ => {
                let payload = &payloads[dice.roll(payloads.len()).min(dice.roll(16))];
                restore(key, dice.pick(&ttls), payload, "")
            }
        };
        if command.len() > 3 {
            (0..dice.roll(5)).for_each(|_| command.push(dice.pick(&options).into()));
            let absolute = command[4..].iter().any(|word| word == b"ABSTTL");
            match (absolute, dice.roll(3)) {
                (true, 0) => command[2] = b"4102444800000".to_vec(),
                (false, _) if command[2] == b"1" => command[2] = b"200000000".to_vec(),
                _ => {}
            }
            if dice.roll(40) == 0 {
                command.truncate(dice.roll(command.len()).max(1));
            }
        }
        let theirs = redis.ask(&command);
        for world in &mut worlds {
            assert_eq!(ours(world, &command), theirs, "step {step}: {command:?}");
            let ttl = words(&format!("PTTL {key}"));
            let (Value::Int(our), Value::Int(their)) = (ours(world, &ttl), redis.ask(&ttl)) else {
                panic!("no time")
            };
            let near = our == their || (our > 0 && their > 0 && our.abs_diff(their) < 20_000);
            assert!(near, "step {step}: {command:?} {our} {their}");
        }
        if let Value::Line(line) = theirs {
            answers.insert(line);
        }
    }
    let seen = answers.into_iter().collect::<Vec<_>>().join("\n");
    for wanted in ["BUSYKEY", "checksum", "Bad data", "TTL value", "IDLETIME", "FREQ", "syntax"] {
        assert!(seen.contains(wanted), "{wanted} in {seen}");
    }
}

#[test]
fn between_clusters_restore_is_an_overwrite() {
    let (mut west, mut east) = (World::new(1, true), World::new(2, true));
    west.at(100);
    let (_, first) = west.run(&[b"HSET", b"h", b"old", b"1"]);
    east.take(&first);
    let body = b"\x04\x01\x03new\x011";
    east.at(150);
    let (_, earlier) = east.run(&[b"HSET", b"h", b"earlier", b"1"]);
    west.at(200);
    let command = restore("h", "0", &sealed(body), "REPLACE");
    let (reply, restored) = west.run(&command.iter().map(Vec::as_slice).collect::<Vec<_>>());
    assert_eq!(reply, Reply::Ok);
    east.at(250);
    let (_, later) = east.run(&[b"HSET", b"h", b"later", b"1"]);
    east.take(&restored);
    west.take(&earlier);
    west.take(&later);
    for world in [&mut west, &mut east] {
        assert_eq!(world.cmd("HGETALL h"), "{\"later\"=\"1\" \"new\"=\"1\"}");
    }
    assert_eq!(west.digest(1_000), east.digest(1_000));
    // A payload over a key with an expiry takes that away, and an end in the past the key.
    west.cmd("PEXPIREAT h 999999");
    for (ttl, left, kind) in [("0", "-1", "hash"), ("1", "-2", "none")] {
        let command = restore("h", ttl, &sealed(body), "REPLACE ABSTTL");
        let (_, effects) = west.run(&command.iter().map(Vec::as_slice).collect::<Vec<_>>());
        assert!(!effects.is_empty());
        assert_eq!((west.cmd("PTTL h"), west.cmd("TYPE h")), (left.into(), kind.into()));
    }
}

#[test]
fn what_is_too_large_is_refused_and_the_rest_passes() {
    let mut world = World::new(1, false);
    let dump = |world: &mut World, key: &str| {
        let words = [b"DUMP", key.as_bytes()].map(Bytes::copy_from_slice);
        let command = Command::parse(words.to_vec()).unwrap();
        world.entry(|txn| crate::eval::command(txn, &command).unwrap()).0
    };
    let largest = vec![b'x'; VALUE_BYTES_MAX - 16];
    world.run(&[b"SET", b"s", &largest]);
    let Reply::Bulk(payload) = dump(&mut world, "s") else { panic!("it fits") };
    assert_eq!(world.run(&[b"RESTORE", b"t", b"0", &payload]).0, Reply::Ok);
    assert_eq!(world.cmd("STRLEN t"), largest.len().to_string());
    world.cmd("APPEND s y");
    let refused = format!("{:?}", dump(&mut world, "s"));
    assert!(refused.contains("would take more than 16777216 bytes"), "{refused}");
    for half in ["a", "b"] {
        let value = vec![b'x'; WRITE_BYTES_MAX / 2];
        world.run(&[b"HSET", b"h", half.as_bytes(), &value]);
    }
    let refused = format!("{:?}", dump(&mut world, "h"));
    assert!(refused.contains("would write more than 20971520 bytes"), "{refused}");
}
