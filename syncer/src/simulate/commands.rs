//! Random commands, and what each must do: what it does where nothing is synced, which Redis itself
//! has judged elsewhere.

use super::dice::Dice;
use super::group::{MemoryRows, SimGroup};
use bytes::Bytes;
use flotilla_node::command::Command;
use flotilla_node::engine::view::{Overlay, Rows, View};
use flotilla_node::eval::{self, EvalContext, Txn};
use flotilla_node::model::Synced;
use flotilla_node::resp::Reply;
use flotilla_topology::ids::{ClusterId, Incarnation, Origin};
use flotilla_topology::slot::SlotRange;
use flotilla_topology::stamp::{Hlc, Stamp};

/// Keys of all histories; each uses some of them.
pub const KEYS: [&str; 6] = ["a", "b", "c", "dd", "e7", "f"];
const FIELDS: [&str; 2] = ["f", "g"];

/// Which commands a history favours.
#[derive(Debug, Clone, Copy)]
pub struct Mix {
    favours: usize,
    /// Counters also go down.
    pub down: bool,
}

impl Mix {
    /// One for a history.
    pub fn new(dice: &mut Dice) -> Mix {
        Mix { favours: dice.roll(15), down: dice.chance(30) }
    }

    /// One thing only: a hash or a set is added to, or a hash is removed from.
    pub fn of_one(dice: &mut Dice) -> Mix {
        Mix { favours: dice.pick(&[15, 16, 17]), down: false }
    }

    /// A set is added to.
    pub const FILLS_SET: Mix = Mix { favours: 17, down: false };
    /// Nothing is done.
    pub const RESTS: Mix = Mix { favours: 18, down: false };

    /// A command on `key`.
    pub fn command(self, dice: &mut Dice, key: &str, now_ms: u64) -> String {
        let one = matches!(self.favours, 1..4 | 15..18);
        let field = FIELDS[if one { 0 } else { dice.roll(2) }];
        let value = dice.roll(40) as i64;
        let added = if self.down { value - 20 } else { 1 + value % 9 };
        let end = now_ms + 1 + dice.roll(8) as u64;
        let of: &[usize] = match self.favours {
            1 => &[10, 10, 13, 13],                             // fields set and removed
            2 => &[10, 15, 13, 14, 7],                          // counters and removals
            3 => &[15, 15, 13, 10, 0],                          // counters and overwrites
            4 => &[10, 13, 17, 17, 7],                          // ends
            5 => &[4, 0, 7, 17],                                // strings as counters
            6 => &[10, 17, 20, 7, 12],                          // ends taken back
            9 => &[22, 22, 23, 24, 17, 25, 7, 10],              // sets, and hashes in their place
            10 => &[26, 26, 27, 28, 29, 29, 17, 7, 10],         // sorted sets
            11 => &[30, 31, 32, 33, 34, 35, 36, 30, 17, 7, 10], // lists
            // Types in each other's place without a delete: heads of which nothing is left.
            12 => &[10, 13, 13, 22, 24, 17, 26, 29, 17],
            13 => &[10, 22, 17, 17, 17, 13], // the same, mostly ends
            14 => &[10, 13, 22, 24],         // the same, removals only
            15 => &[10],
            16 => &[13],
            17 => &[22],
            18 => &[20],
            _ => &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21],
        };
        match dice.pick(of) {
            0 => format!("SET {key} {value}"),
            1 => format!("SET {key} {value} PXAT {end}"),
            2 => format!("SET {key} {value} KEEPTTL"),
            3 => format!("SET {key} {value} NX"),
            4 | 5 => format!("INCRBY {key} {added}"),
            6 => format!("APPEND {key} {value}"),
            7 | 8 => format!("DEL {key}"),
            9 => format!("GETEX {key} PXAT {end}"),
            10 | 11 => format!("HSET {key} {field} {value}"),
            12 => format!("HSET {key} {field} {value} x{} {value}", value % 3),
            13 | 14 => format!("HDEL {key} {field}"),
            15 | 16 => format!("HINCRBY {key} {field} {added}"),
            17..=19 => format!("PEXPIREAT {key} {end}"),
            20 => format!("PERSIST {key}"),
            22 => format!("SADD {key} {field}"),
            23 => format!("SADD {key} {field} x{} {field}", value % 3),
            24 => format!("SREM {key} {field} x{}", value % 3),
            25 => format!("SUNIONSTORE {key} {key}"),
            26 => format!("ZADD {key} {value} {field}"),
            27 => format!("ZADD {key} {value} {field} {} x{}", value % 5, value % 3),
            28 => format!("ZINCRBY {key} {added} {field}"),
            29 => format!("ZREM {key} {field} x{}", value % 3),
            30 => format!("RPUSH {key} {}", value % 4),
            31 => format!("LPUSH {key} {} {}", value % 4, value % 3),
            32 => format!("LPOP {key}"),
            33 => format!("RPOP {key}"),
            34 => format!("LSET {key} {} {value}", value % 4 - 2),
            35 => format!("LREM {key} 0 {}", value % 4),
            36 => format!("LINSERT {key} BEFORE {} {value}", value % 4),
            _ => format!("GETDEL {key}"),
        }
    }
}

/// A line as a command.
pub fn parse(line: &str) -> Command {
    let words = line.split(' ').map(|word| Bytes::copy_from_slice(word.as_bytes()));
    match Command::parse(words.collect()) {
        Ok(command) => command,
        Err(_) => panic!("the simulation only gives whole commands: {line}"),
    }
}

fn text(reply: &Reply) -> String {
    let bulk = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
    match reply {
        Reply::Ok => "OK".into(),
        Reply::Simple(line) | Reply::Error(line) | Reply::Bulk(line) => bulk(line),
        Reply::Int(value) => value.to_string(),
        Reply::Null => "nil".into(),
        Reply::Array(items) | Reply::Set(items) => {
            items.iter().map(text).collect::<Vec<_>>().join(" ")
        }
        Reply::Double(number) => number.to_string(),
        Reply::Map(pairs) | Reply::Pairs(pairs) => {
            let pairs = pairs.iter().map(|(key, value)| format!("{} {}", text(key), text(value)));
            pairs.collect::<Vec<_>>().join(" ")
        }
        other => format!("{other:?}"),
    }
}

/// What a client can see of a key: type, value or elements, number of elements, end.
pub type Seen = Vec<String>;

fn look(ask: &mut dyn FnMut(&str) -> String, key: &str) -> Seen {
    let ty = ask(&format!("TYPE {key}"));
    let mut seen = vec![ty.clone()];
    let looks: &[&str] = match ty.as_str() {
        "string" => &["GET *"],
        "hash" => &["HGETALL *", "HLEN *"],
        "set" => &["SMEMBERS *", "SCARD *"],
        "zset" => &["ZRANGE * 0 -1 WITHSCORES", "ZCARD *"],
        "list" => &["LRANGE * 0 -1", "LLEN *"],
        _ => &[],
    };
    seen.extend(looks.iter().map(|line| ask(&line.replace('*', key))));
    seen.push(ask(&format!("PEXPIRETIME {key}")));
    seen
}

/// What the leader of a group shows of a key, with what is under way.
pub fn look_at(group: &mut SimGroup, key: &str, now_ms: u64) -> Seen {
    let context = group.context.clone();
    let stamp = context.stamp(Hlc::from_ms(now_ms));
    let (origin, slots, synced) = (context.origin, context.slots, Synced::Always);
    let (applied_clock_ms, forgotten_ms) = (now_ms, 0);
    let at = EvalContext {
        origin,
        slots,
        synced,
        stamp,
        now_ms,
        applied_clock_ms,
        forgotten_ms,
        chance: stamp.hlc.0,
    };
    let (rows, overlay) = (&group.state.rows, &mut group.leader.run.overlay);
    look(&mut |line| run(rows, overlay, at, line), key)
}

fn run(rows: &dyn Rows, overlay: &mut Overlay, at: EvalContext, line: &str) -> String {
    let mut txn = Txn::new(View::new(rows, overlay), at);
    text(&eval::command(&mut txn, &parse(line)).expect("rows in memory can be read"))
}

/// What a command leaves of a key that is seen as `before`, where nothing is synced.
pub fn expected(before: &Seen, ms: u64, key: &str, line: &str) -> Seen {
    let origin = Origin { cluster: ClusterId(1), incarnation: Incarnation(1) };
    let (stamp, slots) = (Stamp::ZERO, SlotRange::ALL);
    let at = |now_ms| EvalContext {
        origin,
        slots,
        synced: Synced::No,
        stamp,
        now_ms,
        applied_clock_ms: now_ms,
        forgotten_ms: 0,
        chance: 0,
    };
    let (rows, mut overlay) = (MemoryRows::new(), Overlay::new());
    overlay.begin(1);
    let mut ask = |ms, line: &str| run(&rows, &mut overlay, at(ms), line);
    match before[0].as_str() {
        "string" => drop(ask(1, &format!("SET {key} {}", before[1]))),
        "hash" => drop(ask(1, &format!("HSET {key} {}", before[1]))),
        "set" => drop(ask(1, &format!("SADD {key} {}", before[1]))),
        "zset" => {
            // Members and scores, the other way round.
            let words: Vec<&str> = before[1].split(' ').rev().collect();
            ask(1, &format!("ZADD {key} {}", words.join(" ")));
        }
        "list" => drop(ask(1, &format!("RPUSH {key} {}", before[1]))),
        _ => {}
    }
    if let Some(end) = before.last().filter(|end| !end.starts_with('-')) {
        ask(1, &format!("PEXPIREAT {key} {end}"));
    }
    ask(ms, line);
    look(&mut |line| ask(ms, line), key)
}
