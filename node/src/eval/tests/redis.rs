//! Redis as the oracle: the same random commands go to a `redis-server` and to evaluation, synced
//! and unsynced, and every reply must be the same.

use super::parts::{self, SKETCHES};
use super::world::World;
use crate::resp::{Protocol, Reply};
use bytes::BytesMut;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command as Process, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const COMMANDS: usize = 16_000;
const SEEDS: u64 = 3;

/// Ends with the test, however that ends.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(super) struct Redis {
    _server: Server,
    stream: BufReader<TcpStream>,
}

impl Redis {
    pub(super) fn start() -> Redis {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let dir = std::env::temp_dir();
        let process = Process::new("redis-server")
            .args(["--save", "", "--appendonly", "no", "--bind", "127.0.0.1", "--port"])
            .arg(port.to_string())
            .current_dir(dir)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("redis-server must be installed (make setup)");
        let server = Server(process);
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            if let Ok(stream) = TcpStream::connect(("127.0.0.1", port)) {
                stream.set_nodelay(true).unwrap();
                return Redis { _server: server, stream: BufReader::new(stream) };
            }
            assert!(Instant::now() < deadline, "redis-server does not answer on port {port}");
            std::thread::yield_now();
        }
    }

    fn touch_all(&mut self) {
        let keys = KEYS.iter().chain(SKETCHES).map(|key| key.as_bytes().to_vec());
        self.ask(&std::iter::once(b"EXISTS".to_vec()).chain(keys).collect::<Vec<_>>());
    }

    pub(super) fn ask(&mut self, words: &[Vec<u8>]) -> Value {
        let mut request = format!("*{}\r\n", words.len()).into_bytes();
        for word in words {
            request.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
            request.extend_from_slice(word);
            request.extend_from_slice(b"\r\n");
        }
        self.stream.get_mut().write_all(&request).unwrap();
        read_value(&mut self.stream)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Value {
    Line(String),
    Int(i64),
    Bulk(Option<Vec<u8>>),
    Array(Vec<Value>),
}

fn read_value(input: &mut impl BufRead) -> Value {
    let mut line = String::new();
    input.read_line(&mut line).unwrap();
    let (kind, rest) = line.trim_end_matches("\r\n").split_at(1);
    match kind {
        "+" | "-" => Value::Line(format!("{kind}{rest}")),
        ":" => Value::Int(rest.parse().unwrap()),
        "$" if rest == "-1" => Value::Bulk(None),
        "$" => {
            let mut bytes = vec![0; rest.parse::<usize>().unwrap() + 2];
            input.read_exact(&mut bytes).unwrap();
            bytes.truncate(bytes.len() - 2);
            Value::Bulk(Some(bytes))
        }
        "*" if rest == "-1" => Value::Bulk(None),
        "*" => {
            let count: usize = rest.parse().unwrap();
            Value::Array((0..count).map(|_| read_value(input)).collect())
        }
        _ => panic!("not RESP2: {line}"),
    }
}

pub(super) fn value_of(reply: &Reply) -> Value {
    let mut out = BytesMut::new();
    reply.encode(Protocol::Resp2, &mut out);
    read_value(&mut &out[..])
}

/// Seeded numbers: a failure names its seed.
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Dice {
        Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub(super) fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0 >> 33) as usize) % sides
    }

    pub(super) fn pick<'a>(&mut self, words: &[&'a str]) -> &'a str {
        words[self.roll(words.len())]
    }
}

pub(super) const KEYS: &[&str] = &["a", "b", "{a}h", "h", "k\u{0}z", ""];
pub(super) const FIELDS: &[&str] = &["f", "g", "x\u{0}", "", "n"];
pub(super) const VALUES: &[&str] = &[
    "",
    "0",
    "1",
    "-5",
    "007",
    " 5",
    "5 ",
    "+5",
    "-0",
    "x",
    "hello",
    "9223372036854775807",
    "-9223372036854775808",
    "9223372036854775806",
    "12345678901234567890",
];
pub(super) const NUMBERS: &[&str] = &[
    "0",
    "1",
    "-1",
    "17",
    "-40",
    "9223372036854775807",
    "-9223372036854775808",
    "x",
    "",
    "1.5",
    " 1",
    "9223372036854775808",
];
const OPTIONS: &[&str] =
    &["NX", "xx", "GET", "KEEPTTL", "EX", "PX", "EXAT", "pxat", "PERSIST", "foo"];
/// Absolute ends in seconds; those in the future are far away, so that time does not matter.
const ENDS: &[&str] = &["0", "-1", "1", "4102444800", "4102444801", "9999999999999", "x"];
const COMPARED: &[&str] = &["NX", "XX", "GT", "LT", "gt", "foo"];

/// Commands, the more interesting ones more often.
const NAMES: &[&str] = &[
    "GET",
    "SET",
    "SET",
    "SET",
    "MGET",
    "MSET",
    "GETSET",
    "GETDEL",
    "GETEX",
    "SETNX",
    "SETEX",
    "PSETEX",
    "APPEND",
    "STRLEN",
    "INCR",
    "DECR",
    "INCRBY",
    "DECRBY",
    "DEL",
    "UNLINK",
    "EXISTS",
    "TOUCH",
    "TYPE",
    "EXPIRE",
    "PEXPIRE",
    "EXPIREAT",
    "PEXPIREAT",
    "EXPIREAT",
    "TTL",
    "PTTL",
    "EXPIRETIME",
    "PEXPIRETIME",
    "PERSIST",
    "HSET",
    "HSET",
    "HSET",
    "HSETNX",
    "HMSET",
    "HGET",
    "HMGET",
    "HGETALL",
    "HDEL",
    "HLEN",
    "HEXISTS",
    "HINCRBY",
    "HKEYS",
    "HVALS",
    "DBSIZE",
];

fn random_command(dice: &mut Dice) -> Vec<String> {
    if dice.roll(2) == 0 {
        return parts::random_command(dice);
    }
    let mut words = Vec::new();
    let name = dice.pick(NAMES);
    let mut add = |words: &mut Vec<String>, list: &[&str]| {
        let word = dice.pick(list);
        words.push(word.to_owned());
    };
    words.push(name.to_owned());
    if name != "DBSIZE" {
        add(&mut words, KEYS);
    }
    match name {
        "SET" | "GETSET" | "SETNX" | "APPEND" => add(&mut words, VALUES),
        "MSET" => {
            add(&mut words, VALUES);
            add(&mut words, KEYS);
            add(&mut words, VALUES);
        }
        "INCRBY" | "DECRBY" => add(&mut words, NUMBERS),
        "SETEX" | "PSETEX" => {
            add(&mut words, &["100000000", "4000000000", "0", "-1", "x", "9223372036854775807"]);
            add(&mut words, VALUES);
        }
        "EXPIRE" | "PEXPIRE" => {
            add(&mut words, &["100000000", "4000000000", "0", "-1", "x", "9223372036854775807"]);
        }
        "EXPIREAT" => add(&mut words, ENDS),
        "PEXPIREAT" => add(&mut words, &["0", "-5", "1", "4102444800000", "4102444800001"]),
        "HSET" | "HMSET" | "HSETNX" => {
            add(&mut words, FIELDS);
            add(&mut words, VALUES);
        }
        "HGET" | "HEXISTS" | "HMGET" | "HDEL" => add(&mut words, FIELDS),
        "HINCRBY" => {
            add(&mut words, FIELDS);
            add(&mut words, NUMBERS);
        }
        _ => {}
    }
    extend_at_random(dice, name, &mut words);
    words
}

/// Options, further keys and fields, and now and then a wrong number of arguments.
fn extend_at_random(dice: &mut Dice, name: &str, words: &mut Vec<String>) {
    let more = dice.roll(3);
    for _ in 0..more {
        match name {
            "SET" | "GETEX" => {
                let option = dice.pick(OPTIONS);
                words.push(option.to_owned());
                let time = match option {
                    "EX" | "PX" => dice.pick(&["100000000", "4000000000", "0", "-1", "x"]),
                    "EXAT" => dice.pick(ENDS),
                    "pxat" => dice.pick(&["4102444800000", "1", "0", "9223372036854775807"]),
                    _ => continue,
                };
                if dice.roll(10) > 0 {
                    words.push(time.to_owned());
                }
            }
            "EXPIREAT" | "PEXPIREAT" => words.push(dice.pick(COMPARED).to_owned()),
            "EXPIRE" | "PEXPIRE" => words.push(dice.pick(&["NX", "XX", "bar"]).to_owned()),
            "MGET" | "DEL" | "UNLINK" | "EXISTS" | "TOUCH" => {
                words.push(dice.pick(KEYS).to_owned());
            }
            "HMGET" | "HDEL" => words.push(dice.pick(FIELDS).to_owned()),
            "HSET" | "HMSET" => {
                words.push(dice.pick(FIELDS).to_owned());
                words.push(dice.pick(VALUES).to_owned());
            }
            _ => {}
        }
    }
    match dice.roll(60) {
        0 => words.push("extra".to_owned()),
        1 if words.len() > 1 => {
            words.pop();
        }
        _ => {}
    }
}

/// Times left are compared roughly, unordered replies without their order.
fn alike(name: &str, ours: Value, theirs: Value) -> bool {
    if let Some(alike) = parts::alike(name, &ours, &theirs) {
        return alike;
    }
    match (name, ours, theirs) {
        ("TTL" | "PTTL" | "EXPIRETIME" | "PEXPIRETIME", Value::Int(a), Value::Int(b)) => {
            let tolerance = if name.starts_with('P') { 20_000 } else { 20 };
            a == b || (a > 0 && b > 0 && a.abs_diff(b) <= tolerance)
        }
        ("HGETALL", Value::Array(a), Value::Array(b)) => {
            let sorted = |items: Vec<Value>| {
                let mut pairs: Vec<Vec<Value>> = items.chunks(2).map(<[Value]>::to_vec).collect();
                pairs.sort();
                pairs
            };
            sorted(a) == sorted(b)
        }
        ("HKEYS" | "HVALS", Value::Array(mut a), Value::Array(mut b)) => {
            a.sort();
            b.sort();
            a == b
        }
        (_, ours, theirs) => ours == theirs,
    }
}

pub(super) fn wall_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

/// Gives random commands to Redis and to evaluation, synced and unsynced. Replies must be the same, as
/// `seen` makes them comparable.
pub(super) fn replies_are_the_same(
    (seeds, commands): (u64, usize),
    random_command: impl Fn(&mut Dice) -> Vec<String>,
    seen: impl Fn(Value) -> Value,
) {
    let mut redis = Redis::start();
    for seed in 1..=seeds {
        redis.ask(&[b"FLUSHALL".to_vec()]);
        let mut dice = Dice::new(seed);
        let mut worlds = [World::new(1, true), World::new(1, false)];
        worlds.iter_mut().for_each(|world| world.flight_max = dice.roll(4));
        let mut history: Vec<String> = Vec::new();
        for step in 0..commands {
            let command = random_command(&mut dice);
            history.push(format!("{command:?}"));
            let command: Vec<Vec<u8>> = command.into_iter().map(String::into_bytes).collect();
            let theirs = seen(redis.ask(&command));
            for world in &mut worlds {
                world.at(wall_ms());
                let words: Vec<&[u8]> = command.iter().map(Vec::as_slice).collect();
                let ours = seen(value_of(&world.run(&words).0));
                assert_eq!(
                    ours,
                    theirs,
                    "seed {seed} step {step} synced {}:\n{}",
                    world.synced.is_on(),
                    history[step.saturating_sub(25)..=step].join("\n"),
                );
            }
        }
    }
}

#[test]
fn replies_are_those_of_redis() {
    let mut redis = Redis::start();
    for seed in 1..=SEEDS {
        redis.ask(&[b"FLUSHALL".to_vec()]);
        let mut dice = Dice::new(seed);
        let mut worlds = [World::new(1, true), World::new(1, false)];
        worlds[0].flight_max = dice.roll(4);
        worlds[1].flight_max = dice.roll(4);
        let mut history: Vec<String> = Vec::new();
        for step in 0..COMMANDS {
            let words = random_command(&mut dice);
            history.push(format!("{words:?}"));
            let words: Vec<Vec<u8>> = words.into_iter().map(String::into_bytes).collect();
            let name = String::from_utf8_lossy(&words[0]).into_owned();
            if name == "DBSIZE" {
                redis.touch_all(); // it counts what has ended until somebody looks
            }
            let theirs = redis.ask(&words);
            for world in &mut worlds {
                world.at(wall_ms());
                let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
                let ours = value_of(&world.run(&words).0);
                assert!(
                    alike(&name, ours.clone(), theirs.clone()),
                    "seed {seed} step {step} synced {}: {}\nours   {ours:?}\ntheirs {theirs:?}\n{}",
                    world.synced.is_on(),
                    history[step],
                    history[step.saturating_sub(25)..step].join("\n"),
                );
            }
        }
    }
}
