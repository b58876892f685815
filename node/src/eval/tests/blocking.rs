//! Commands that wait, evaluated: in a transaction of Redis they do not wait either.

use super::redis::{Dice, Redis, Value, value_of, wall_ms};
use super::world::World;

const COMMANDS: usize = 6_000;
const SEEDS: u64 = 2;
const KEYS: &[&str] = &["a", "b", "c", "string", "nokey"];
const SIDES: &[&str] = &["LEFT", "right", "RIGHT", "x"];
const ENDS: &[&str] = &["MIN", "max", "MIN", "x"];
const NUMBERS: &[&str] = &["1", "2", "1", "2", "0", "-1", "9", "x"];
const TIMEOUTS: &[&str] = &["0", "1.5", "0x1p3", "-1", "x", "1e17", "inf", "nan", "-0.0001", " 1"];
const NAMES: &[&str] = &[
    "RPUSH",
    "RPUSH",
    "ZADD",
    "ZADD",
    "DEL",
    "SET",
    "BLPOP",
    "BRPOP",
    "BLMPOP",
    "BLMOVE",
    "BRPOPLPUSH",
    "BZPOPMIN",
    "BZPOPMAX",
    "BZMPOP",
];

fn random_command(dice: &mut Dice) -> Vec<String> {
    let name = dice.pick(NAMES);
    // Half of them are in order, as far as that goes.
    let timeouts = if dice.roll(2) == 0 { &TIMEOUTS[..2] } else { TIMEOUTS };
    let mut words = vec![name.to_owned()];
    let mut add = |lists: &[&[&str]]| {
        for list in lists {
            words.push(dice.pick(list).to_owned());
        }
    };
    match name {
        "RPUSH" => add(&[KEYS, &["x", "y", ""], &["z"]]),
        "ZADD" => add(&[KEYS, &["1", "2.5", "-inf"], &["m", "n"], &["3"], &["o"]]),
        "SET" => add(&[&["string"], &["v"]]),
        "BLPOP" | "BRPOP" | "BZPOPMIN" | "BZPOPMAX" => add(&[KEYS, KEYS, timeouts]),
        "BLMPOP" => add(&[timeouts, NUMBERS, KEYS, KEYS, SIDES]),
        "BZMPOP" => add(&[timeouts, NUMBERS, KEYS, KEYS, ENDS]),
        "BLMOVE" => add(&[KEYS, KEYS, SIDES, SIDES, timeouts]),
        "BRPOPLPUSH" => add(&[KEYS, KEYS, timeouts]),
        _ => add(&[KEYS]),
    }
    if name.ends_with("MPOP") && dice.roll(2) == 0 {
        words.extend(["COUNT".to_owned(), dice.pick(NUMBERS).to_owned()]);
    }
    match dice.roll(40) {
        0 => words.push("extra".to_owned()),
        1 if words.len() > 1 => drop(words.pop()),
        _ => {}
    }
    words
}

/// The reply to a command in a transaction of its own.
fn in_multi(redis: &mut Redis, command: &[Vec<u8>]) -> Value {
    let word = |word: &str| [word.as_bytes().to_vec()];
    redis.ask(&word("MULTI"));
    let queued = redis.ask(command);
    if queued != Value::Line("+QUEUED".to_owned()) {
        redis.ask(&word("DISCARD"));
        return queued;
    }
    match redis.ask(&word("EXEC")) {
        Value::Array(mut replies) => replies.remove(0),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_waits_is_evaluated_as_in_a_transaction_of_redis() {
    let mut redis = Redis::start();
    for seed in 1..=SEEDS {
        redis.ask(&[b"FLUSHALL".to_vec()]);
        let mut dice = Dice::new(seed);
        let mut worlds = [World::new(1, true), World::new(1, false)];
        worlds.iter_mut().for_each(|world| world.flight_max = dice.roll(4));
        let mut popped = 0;
        for step in 0..COMMANDS {
            let command = random_command(&mut dice);
            let shown = format!("seed {seed} step {step}: {command:?}");
            let command: Vec<Vec<u8>> = command.into_iter().map(String::into_bytes).collect();
            let theirs = in_multi(&mut redis, &command);
            popped += usize::from(command[0][0] == b'B' && matches!(theirs, Value::Array(_)));
            for world in &mut worlds {
                world.at(wall_ms());
                let words: Vec<&[u8]> = command.iter().map(Vec::as_slice).collect();
                let ours = value_of(&world.run(&words).0);
                assert_eq!(ours, theirs, "synced {}: {shown}", world.synced.is_on());
            }
        }
        assert!(popped > COMMANDS / 20, "{popped} have popped something");
    }
}
