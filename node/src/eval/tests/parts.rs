//! Random commands on parts of strings, bits, sketches, and on keys under other names, for the
//! comparison with Redis; and floats, which it compares in many more forms than others need.

use super::redis::{Dice, FIELDS, KEYS, NUMBERS, Redis, VALUES, Value, value_of};
use super::world::World;

/// Keys of sketches: their bytes differ from those of Redis, so no other command reads them.
pub(super) const SKETCHES: &[&str] = &["p", "q", "{p}r", "pw"];
const NAMES: &[&str] = &[
    "INCRBYFLOAT",
    "GETRANGE",
    "SUBSTR",
    "SETRANGE",
    "LCS",
    "MSETNX",
    "SETBIT",
    "GETBIT",
    "BITCOUNT",
    "BITPOS",
    "BITOP",
    "BITFIELD",
    "BITFIELD",
    "BITFIELD_RO",
    "PFADD",
    "PFADD",
    "PFCOUNT",
    "PFMERGE",
    "HSTRLEN",
    "HRANDFIELD",
    "HSCAN",
    "HINCRBYFLOAT",
    "KEYS",
    "RANDOMKEY",
    "COPY",
    "RENAME",
    "RENAMENX",
    "OBJECT",
    "SKETCH",
];
/// Of bytes and bits; none in between is so far that Redis would make a value of 512 MB.
const PLACES: &[&str] =
    &["0", "1", "2", "7", "8", "19", "-1", "-2", "-9", "100", "-100", "x", "", "1.5", " 1"];
const OFFSETS: &[&str] = &["0", "1", "3", "7", "8", "15", "77", "300", "-1", "x", "", "536870913"];
const BIT_OFFSETS: &[&str] =
    &["0", "1", "5", "7", "8", "63", "100", "777", "-1", "x", "", "4294967296", "#1"];
const FIELD_OFFSETS: &[&str] =
    &["0", "3", "8", "60", "#0", "#1", "#5", "#-1", "#x", "#9223372036854775807", "-1", "x", ""];
const KINDS: &[&str] = &[
    "u1", "u8", "i8", "i5", "u13", "u63", "i64", "i1", "u64", "i65", "i0", "x8", "i", "", "U8",
    "i08",
];
const FLOATS: &[&str] = &[
    "0.1",
    "0.2",
    "-1.5",
    "3.0e3",
    "1e-17",
    "1e40",
    "0x1p-3",
    ".5",
    "5.",
    "+1",
    "inf",
    "-inf",
    "nan",
    "1e",
    " 1",
    "1 ",
    "",
    "x",
    "1e5000",
    "9223372036854775807",
];
const PATTERNS: &[&str] = &["*", "?", "h", "[a-h]", "{a}*", "p*", "", "k\u{0}?", "\\a"];

struct Words<'a> {
    dice: &'a mut Dice,
    words: Vec<String>,
}

impl Words<'_> {
    fn add(&mut self, list: &[&str]) {
        let word = self.dice.pick(list);
        self.words.push(word.to_owned());
    }

    /// Now and then.
    fn maybe(&mut self, list: &[&str]) -> bool {
        let added = self.dice.roll(2) == 0;
        if added {
            self.add(list);
        }
        added
    }

    fn some(&mut self, up_to: usize, mut add: impl FnMut(&mut Self)) {
        for _ in 0..self.dice.roll(up_to + 1) {
            add(self);
        }
    }
}

/// A command of these families, and now and then one with a word too many or too few.
pub(super) fn random_command(dice: &mut Dice) -> Vec<String> {
    let name = dice.pick(NAMES);
    let mut out = Words { dice, words: vec![name.to_owned()] };
    match name {
        "BITFIELD" | "BITFIELD_RO" => bitfield(&mut out, name),
        "PFADD" | "PFCOUNT" | "PFMERGE" | "SKETCH" => sketch(&mut out, name),
        "HSTRLEN" | "HRANDFIELD" | "HSCAN" | "HINCRBYFLOAT" => hash(&mut out, name),
        "KEYS" | "RANDOMKEY" | "COPY" | "RENAME" | "RENAMENX" | "OBJECT" => keys(&mut out, name),
        "SETBIT" | "GETBIT" | "BITCOUNT" | "BITPOS" | "BITOP" => bits(&mut out, name),
        _ => strings(&mut out, name),
    }
    let Words { dice, mut words } = out;
    match dice.roll(60) {
        // A key too many would be a sketch, or one more copy to elsewhere.
        0 if name != "SKETCH" => words.push("extra".to_owned()),
        1 if words.len() > 1 && name != "SKETCH" => {
            words.pop();
        }
        _ => {}
    }
    words
}

fn strings(out: &mut Words<'_>, name: &str) {
    out.add(KEYS);
    match name {
        "INCRBYFLOAT" => out.add(FLOATS),
        "SETRANGE" => {
            out.add(OFFSETS);
            out.add(VALUES);
        }
        "LCS" => {
            out.add(KEYS);
            out.some(3, |out| {
                out.add(&["LEN", "idx", "IDX", "WITHMATCHLEN", "MINMATCHLEN", "foo"]);
                if out.words.last().is_some_and(|word| word == "MINMATCHLEN") {
                    out.maybe(&["0", "1", "2", "5", "-1", "x"]);
                }
            });
        }
        "MSETNX" => {
            out.add(VALUES);
            out.some(2, |out| {
                out.add(KEYS);
                out.add(VALUES);
            });
        }
        _ => {
            out.add(PLACES);
            out.add(PLACES);
        }
    }
}

fn bits(out: &mut Words<'_>, name: &str) {
    if name == "BITOP" {
        out.add(&["AND", "or", "XOR", "NOT", "NAND"]);
        out.add(KEYS);
        out.add(KEYS);
        out.some(2, |out| out.add(KEYS));
        return;
    }
    out.add(KEYS);
    match name {
        "SETBIT" => {
            out.add(BIT_OFFSETS);
            out.add(&["0", "1", "1", "2", "-1", "x"]);
        }
        "GETBIT" => out.add(&[BIT_OFFSETS, &["4294967295"]].concat()),
        _ => {
            if name == "BITPOS" {
                out.add(&["0", "1", "0", "1", "2", "x"]);
            }
            let units = &["BIT", "byte", "Bit", "foo"];
            let _ = out.maybe(PLACES) && out.maybe(PLACES) && out.maybe(units);
        }
    }
}

fn bitfield(out: &mut Words<'_>, name: &str) {
    out.add(KEYS);
    let writes: &[&str] = &["GET", "SET", "incrby", "OVERFLOW", "foo"];
    let reads: &[&str] = &["GET", "get", "GET", "OVERFLOW", "SET"];
    out.some(4, |out| {
        out.add(if name == "BITFIELD" { writes } else { reads });
        let operation = out.words.last().cloned().unwrap_or_default();
        if operation == "OVERFLOW" {
            out.add(&["WRAP", "sat", "SAT", "FAIL", "foo"]);
            return;
        }
        // Mostly good ones, or hardly a command of several operations would be.
        let (bad_kind, bad_offset) = (out.dice.roll(4) == 0, out.dice.roll(4) == 0);
        out.add(if bad_kind { KINDS } else { &KINDS[..8] });
        out.add(if bad_offset { FIELD_OFFSETS } else { &FIELD_OFFSETS[..7] });
        if matches!(&operation[..], "SET" | "incrby") {
            out.add(&[NUMBERS, &["1", "-1", "127", "-128", "255", "3"]].concat());
        }
    });
}

fn sketch(out: &mut Words<'_>, name: &str) {
    match name {
        "SKETCH" => {
            let key = out.dice.pick(SKETCHES).to_owned();
            let lines =
                ["SET pw x", "HSET pw f v", "DEL pw", "SET pw HYLL", "RENAME p q", "COPY q p"];
            let line = match out.dice.roll(12) {
                at if at < lines.len() => lines[at].to_owned(),
                at => format!("{} {key}", ["DEL", "EXISTS", "TYPE", "TTL"][at % 4]),
            };
            out.words = line.split(' ').map(str::to_owned).collect();
        }
        "PFADD" => {
            out.add(SKETCHES);
            let many = [0, 1, 3, 40][out.dice.roll(4)];
            let range = [10, 1000, 1_000_000][out.dice.roll(3)];
            for _ in 0..many {
                let element = out.dice.roll(range).to_string();
                out.words.push(element);
            }
        }
        _ => {
            out.add(SKETCHES);
            let count = name == "PFCOUNT";
            out.some(2, |out| out.add(if count { KEYS } else { SKETCHES }));
            out.some(1, |out| out.add(SKETCHES));
        }
    }
}

fn hash(out: &mut Words<'_>, name: &str) {
    out.add(KEYS);
    match name {
        "HSTRLEN" => out.add(FIELDS),
        "HINCRBYFLOAT" => {
            out.add(FIELDS);
            out.add(FLOATS);
        }
        "HSCAN" => {
            out.add(&["0", "0", "0", "x", " 0", ""]);
            out.some(2, |out| {
                out.add(&["MATCH", "COUNT", "count", "TYPE"]);
                out.maybe(&["*", "f", "[f-g]", "1", "100", "0", "x"]);
            });
        }
        _ => {
            let counts = &["0", "1", "3", "-4", "100", "-1", "x", "-9223372036854775808"];
            let _ = out.maybe(&[&counts[..], &["4611686018427387904"]].concat())
                && out.maybe(&["WITHVALUES", "withvalues", "foo"]);
        }
    }
}

fn keys(out: &mut Words<'_>, name: &str) {
    match name {
        "KEYS" => out.add(PATTERNS),
        "RANDOMKEY" => {}
        "OBJECT" => {
            out.add(&["ENCODING", "refcount", "FREQ", "foo"]);
            out.add(KEYS);
        }
        _ => {
            out.add(KEYS);
            out.add(KEYS);
            if name == "COPY" {
                out.maybe(&["REPLACE", "replace", "foo"]);
            }
        }
    }
}

/// Replies that are left to chance, or to the form in which a value is kept, agree in their shape.
pub(super) fn alike(name: &str, ours: &Value, theirs: &Value) -> Option<bool> {
    let sorted = |items: &[Value], by: usize| {
        let mut parts: Vec<Vec<Value>> = items.chunks(by).map(<[Value]>::to_vec).collect();
        parts.sort();
        parts
    };
    match (name, ours, theirs) {
        ("HRANDFIELD", Value::Array(a), Value::Array(b)) => Some(a.len() == b.len()),
        ("HRANDFIELD" | "RANDOMKEY" | "OBJECT", Value::Bulk(Some(_)), Value::Bulk(Some(_))) => {
            Some(true)
        }
        // Small integers are shared in Redis.
        ("OBJECT", Value::Int(1), Value::Int(count)) => Some(*count > 0),
        ("KEYS", Value::Array(a), Value::Array(b)) => Some(sorted(a, 1) == sorted(b, 1)),
        ("HSCAN", Value::Array(a), Value::Array(b)) => match (&a[..], &b[..]) {
            ([at, Value::Array(a)], [end, Value::Array(b)]) => {
                Some(at == end && sorted(a, 2) == sorted(b, 2))
            }
            _ => Some(false),
        },
        _ => None,
    }
}

/// A text that looks like a float: any length, point and exponent, up to the ends of the range.
fn random_float(dice: &mut Dice) -> String {
    let digits = |dice: &mut Dice, up_to: usize| -> String {
        (0..dice.roll(up_to)).map(|_| char::from(b'0' + dice.roll(10) as u8)).collect()
    };
    let sign = ["", "", "-", "+"][dice.roll(4)];
    let length = [2, 5, 25, 60][dice.roll(4)];
    let (whole, fraction) = (digits(dice, length), digits(dice, length));
    let point = if fraction.is_empty() && dice.roll(2) == 0 { "" } else { "." };
    match dice.roll(8) {
        0 => format!("{sign}0x{whole}{point}{fraction}p{}", dice.roll(200) as i64 - 100),
        1 => format!("{sign}{whole}{point}{fraction}e{}", dice.roll(10_000) as i64 - 5_000),
        2 | 3 => format!("{sign}{whole}{point}{fraction}e{}", dice.roll(60) as i64 - 30),
        _ => format!("{sign}{whole}{point}{fraction}"),
    }
}

/// Each side counts what the other one's GET gives, sparse and dense, and can go on with it.
#[test]
fn sketches_go_to_redis_and_back() {
    let mut redis = Redis::start();
    let mut world = World::new(1, true);
    let words = |line: &str| -> Vec<Vec<u8>> { line.split(' ').map(Into::into).collect() };
    let ours = |world: &mut World, words: &[Vec<u8>]| {
        let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
        value_of(&world.run(&words).0)
    };
    let bytes = |value: Value| match value {
        Value::Bulk(Some(bytes)) => bytes,
        other => panic!("{other:?}"),
    };
    for many in [0, 1, 30, 500, 20_000] {
        let mut add = words("PFADD p");
        add.extend((0..many).map(|element: u32| format!("{many}-{element}").into_bytes()));
        assert_eq!(ours(&mut world, &add), redis.ask(&add));
        let (our, their) = (ours(&mut world, &words("GET p")), redis.ask(&words("GET p")));
        let set = |value| vec![b"SET".to_vec(), b"q".to_vec(), bytes(value)];
        redis.ask(&set(our));
        ours(&mut world, &set(their));
        let lines = ["PFCOUNT q", "PFCOUNT p q", "PFADD q one more", "PFCOUNT q", "PFMERGE r p q"];
        for line in lines.iter().chain(&["PFCOUNT r", "PFADD q one", "DEL p q r"]) {
            let (our, their) = (ours(&mut world, &words(line)), redis.ask(&words(line)));
            assert_eq!(our, their, "{line} of {many}");
        }
    }
}

#[test]
fn floats_are_those_of_redis() {
    let mut redis = Redis::start();
    let mut world = World::new(1, true);
    let mut dice = Dice::new(5);
    let mut sums = 0;
    for step in 0..4_000 {
        let (old, amount) = (random_float(&mut dice), random_float(&mut dice));
        for line in [format!("SET f {old}"), format!("INCRBYFLOAT f {amount}")] {
            let words: Vec<Vec<u8>> = line.split(' ').map(|word| word.into()).collect();
            let theirs = redis.ask(&words);
            let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
            let ours = value_of(&world.run(&words).0);
            assert_eq!(ours, theirs, "step {step}: {old} + {amount}");
            sums += usize::from(matches!(theirs, Value::Bulk(_)));
        }
    }
    assert!(sums > 1_000, "most texts are floats: {sums}");
}
