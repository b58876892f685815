//! What is asked: commands, and their bytes.

use rand::Rng;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::io::Write;

/// Collections (hashes, lists, sets, sorted sets) at most, however many keys there are.
const COLLECTIONS_MAX: u32 = 1000;
/// Fields of a hash.
const FIELDS: u32 = 10;
/// Members of a sorted set.
const MEMBERS: u32 = 100;
/// Elements that each list is given before its elements are popped.
const LIST_FILL: usize = 100;
/// Keys of MGET and MSET, members of ZRANGE.
const SEVERAL: usize = 10;

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Command {
    /// SET of a value of the configured size.
    Set,
    /// GET of such a value.
    Get,
    /// INCR of a counter.
    Incr,
    /// HSET of one of ten fields.
    Hset,
    /// HGET of one of ten fields.
    Hget,
    /// LPUSH of one value.
    Lpush,
    /// LPOP of one value.
    Lpop,
    /// SADD of a member that is new.
    Sadd,
    /// ZADD that changes the score of one of a hundred members.
    Zadd,
    /// ZRANGE of ten of a hundred members.
    Zrange,
    /// MGET of ten keys, wherever they lie.
    Mget,
    /// MSET of ten keys, wherever they lie.
    Mset,
    /// One of the five of a mixed load, by chance.
    Mixed,
}

/// What a mixed load asks, each as often as the number says.
const MIX: [(Command, u32); 5] = [
    (Command::Get, 4),
    (Command::Set, 3),
    (Command::Hget, 1),
    (Command::Hset, 1),
    (Command::Incr, 1),
];

impl Command {
    /// One of each family besides SET and GET. LPOP follows LPUSH.
    pub const FAMILIES: [Command; 10] = [
        Command::Incr,
        Command::Hset,
        Command::Hget,
        Command::Lpush,
        Command::Lpop,
        Command::Sadd,
        Command::Zadd,
        Command::Zrange,
        Command::Mget,
        Command::Mset,
    ];

    /// Its name, as it is sent and shown.
    pub fn name(self) -> &'static str {
        match self {
            Command::Set => "SET",
            Command::Get => "GET",
            Command::Incr => "INCR",
            Command::Hset => "HSET",
            Command::Hget => "HGET",
            Command::Lpush => "LPUSH",
            Command::Lpop => "LPOP",
            Command::Sadd => "SADD",
            Command::Zadd => "ZADD",
            Command::Zrange => "ZRANGE",
            Command::Mget => "MGET",
            Command::Mset => "MSET",
            Command::Mixed => "MIXED",
        }
    }

    /// Whether no reply may be empty, since all that is read was written before.
    pub(super) fn finds(self) -> bool {
        use Command::{Get, Hget, Lpop, Mget, Zrange};
        matches!(self, Get | Hget | Lpop | Mget | Zrange)
    }
}

/// One way to ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Case {
    /// What.
    pub command: Command,
    /// Over how many connections.
    pub connections: usize,
    /// How many commands are sent at once.
    pub pipeline: usize,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} c{} P{}", self.command.name(), self.connections, self.pipeline)
    }
}

/// The name of a key.
pub(super) fn key(number: u32) -> String {
    format!("bench:{number:08}")
}

/// A value that changes with each use, and the dice that all else is chosen by.
pub(super) struct Material {
    pub(super) dice: SmallRng,
    value: Vec<u8>,
}

impl Material {
    pub(super) fn new(mut dice: SmallRng, value_bytes: usize) -> Material {
        // Text without repetition, so that no compression makes it cheaper than it looks.
        let value = (0..value_bytes).map(|_| dice.random_range(b'!'..=b'~')).collect();
        Material { dice, value }
    }

    /// The next value: each differs from the one before.
    pub(super) fn value(&mut self) -> &[u8] {
        let at = self.dice.random_range(0..self.value.len().max(1));
        if let Some(byte) = self.value.get_mut(at) {
            *byte = if *byte == b'~' { b'!' } else { *byte + 1 };
        }
        &self.value
    }
}

/// Appends one command to `out`; `key_number` chooses keys. Returns the bytes of keys, fields,
/// members and values in it: what the user gave.
pub(super) fn append(
    command: Command,
    mut key_number: impl FnMut(&mut SmallRng) -> u32,
    with: &mut Material,
    out: &mut Vec<u8>,
) -> usize {
    let command = match command {
        Command::Mixed => mixed(&mut with.dice),
        command => command,
    };
    let mut first = key_number(&mut with.dice);
    let name = |family: char| format!("bench:{family}:{:05}", first % COLLECTIONS_MAX);
    let mut words = Words { out, user_bytes: 0 };
    let below = |with: &mut Material, end: u32| with.dice.random_range(0..end);
    match command {
        Command::Get => words.head(2, command).word(key(first)),
        Command::Set => words.head(3, command).word(key(first)).word(with.value()),
        Command::Incr => words.head(2, command).word(format!("bench:n:{first:08}")),
        Command::Hset => {
            let field = format!("f{}", below(with, FIELDS));
            words.head(4, command).word(name('h')).word(field).word(with.value())
        }
        Command::Hget => {
            words.head(3, command).word(name('h')).word(format!("f{}", below(with, FIELDS)))
        }
        Command::Lpush => words.head(3, command).word(name('l')).word(with.value()),
        Command::Lpop => words.head(2, command).word(name('l')),
        Command::Sadd => {
            let member = format!("m{:016x}", with.dice.random::<u64>());
            words.head(3, command).word(name('s')).word(member)
        }
        Command::Zadd => {
            let (score, member) = (below(with, 1_000_000), below(with, MEMBERS));
            let (score, member) = (score.to_string(), format!("m{member:02}"));
            words.head(4, command).word(name('z')).word(score).word(member)
        }
        Command::Zrange => {
            let start = below(with, MEMBERS - SEVERAL as u32 + 1);
            let (start, stop) = (start.to_string(), (start + SEVERAL as u32 - 1).to_string());
            words.head(4, command).word(name('z')).word(start).word(stop)
        }
        Command::Mget | Command::Mset => {
            let values = command == Command::Mset;
            words.head(1 + SEVERAL * if values { 2 } else { 1 }, command);
            for _ in 0..SEVERAL {
                words.word(key(first));
                if values {
                    words.word(with.value());
                }
                first = key_number(&mut with.dice);
            }
            &mut words
        }
        // Chosen above, and no part of the mix.
        Command::Mixed => &mut words,
    };
    words.user_bytes
}

fn mixed(dice: &mut SmallRng) -> Command {
    let chosen = MIX.choose_weighted(dice, |(_, often)| *often);
    chosen.expect("the weights are above zero").0
}

struct Words<'a> {
    out: &'a mut Vec<u8>,
    user_bytes: usize,
}

impl Words<'_> {
    fn head(&mut self, count: usize, command: Command) -> &mut Self {
        // Writing to memory cannot fail.
        let _ = write!(self.out, "*{count}\r\n${}\r\n{}\r\n", command.name().len(), command.name());
        self
    }

    fn word(&mut self, word: impl AsRef<[u8]>) -> &mut Self {
        let word = word.as_ref();
        self.user_bytes += word.len();
        let _ = write!(self.out, "${}\r\n", word.len());
        self.out.extend_from_slice(word);
        self.out.extend_from_slice(b"\r\n");
        self
    }
}

/// What must be there before a case is measured, as whole commands. SET's keys are not among it.
pub(super) fn before(command: Command, value_bytes: usize) -> Vec<Vec<Vec<u8>>> {
    let value = vec![b'x'; value_bytes];
    let many = |family: char, name: &str, words: &dyn Fn() -> Vec<Vec<u8>>| {
        let command = |number: u32| {
            let head = [name.into(), format!("bench:{family}:{number:05}").into_bytes()];
            head.into_iter().chain(words()).collect()
        };
        (0..COLLECTIONS_MAX).map(command).collect()
    };
    match command {
        Command::Hget => many('h', "HSET", &|| {
            (0..FIELDS).flat_map(|field| [format!("f{field}").into(), value.clone()]).collect()
        }),
        Command::Lpop => many('l', "LPUSH", &|| vec![value.clone(); LIST_FILL]),
        Command::Zrange => many('z', "ZADD", &|| {
            let member = |number: u32| [number.to_string().into(), format!("m{number:02}").into()];
            (0..MEMBERS).flat_map(member).collect()
        }),
        _ => vec![],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn commands_are_whole_and_the_users_bytes_are_counted() {
        let mut with = Material::new(SmallRng::seed_from_u64(1), 100);
        let mut out = Vec::new();
        let given = append(Command::Set, |_| 7, &mut with, &mut out);
        assert_eq!(given, 14 + 100);
        assert!(out.starts_with(b"*3\r\n$3\r\nSET\r\n$14\r\nbench:00000007\r\n$100\r\n"));
        assert!(out.ends_with(b"\r\n"));
        out.clear();
        let mut next = 0;
        let given = append(
            Command::Mset,
            |_| {
                next += 1;
                next
            },
            &mut with,
            &mut out,
        );
        assert_eq!(given, 10 * (14 + 100));
        let text = String::from_utf8(out).unwrap();
        assert!(text.starts_with("*21\r\n$4\r\nMSET\r\n"));
        assert!(text.contains("bench:00000001") && text.contains("bench:00000010"));
        assert!(!text.contains("bench:00000011"));
    }

    #[test]
    fn a_mixed_load_asks_everything_of_the_mix_and_nothing_else() {
        let mut with = Material::new(SmallRng::seed_from_u64(1), 10);
        let mut asked = std::collections::BTreeMap::new();
        for _ in 0..10_000 {
            let mut out = Vec::new();
            append(Command::Mixed, |_| 7, &mut with, &mut out);
            let text = String::from_utf8(out).unwrap();
            let name = text.lines().nth(2).unwrap().to_owned();
            *asked.entry(name).or_insert(0) += 1;
        }
        let names: Vec<&str> = asked.keys().map(String::as_str).collect();
        assert_eq!(names, ["GET", "HGET", "HSET", "INCR", "SET"]);
        assert!((3700..4300).contains(&asked["GET"]), "{asked:?}");
    }

    #[test]
    fn a_value_differs_from_the_one_before() {
        let mut with = Material::new(SmallRng::seed_from_u64(1), 16);
        let one = with.value().to_vec();
        assert_ne!(one, with.value());
        assert_eq!(Material::new(SmallRng::seed_from_u64(1), 0).value(), b"");
    }

    #[test]
    fn what_is_read_is_written_before() {
        for command in Command::FAMILIES {
            let before = before(command, 10);
            let own = matches!(command, Command::Hget | Command::Lpop | Command::Zrange);
            assert_eq!(before.len(), if own { 1000 } else { 0 }, "{command:?}");
        }
        assert_eq!(before(Command::Lpop, 10)[3].len(), 2 + LIST_FILL);
    }
}
