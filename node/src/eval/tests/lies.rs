//! Payloads that nobody dumped: old forms, which Redis still reads, and damaged ones with a right checksum.

use super::dump::{contents, ok, ours, restore, sealed, words};
use super::redis::{Dice, Redis, Value};
use super::world::World;
use std::time::{Duration, Instant};

const DAMAGED: usize = 30_000;

/// A length of RDB in the form that takes any.
fn len(value: u64) -> Vec<u8> {
    [&[0x81][..], &value.to_be_bytes()].concat()
}

fn text(text: &[u8]) -> Vec<u8> {
    [&len(text.len() as u64)[..], text].concat()
}

/// A ziplist, as Redis made them before 7.0.
fn ziplist(items: &[&[u8]]) -> Vec<u8> {
    let (mut body, mut before, mut last) = (Vec::new(), 0, 10);
    for item in items {
        let begin = body.len();
        last = 10 + begin as u32;
        match before {
            0..254 => body.push(before as u8),
            _ => body.extend([&[0xFE][..], &(before as u32).to_le_bytes()].concat()),
        }
        let number = std::str::from_utf8(item).ok().and_then(|item| item.parse::<i64>().ok());
        match (number, item.len()) {
            (Some(small @ 0..=12), _) => body.push(0xF1 + small as u8),
            (Some(number), _) => match (i8::try_from(number), i16::try_from(number)) {
                (Ok(number), _) => body.extend([0xFE, number as u8]),
                (_, Ok(number)) => body.extend([&[0xC0][..], &number.to_le_bytes()].concat()),
                _ if number.unsigned_abs() < 1 << 23 => {
                    body.push(0xF0);
                    body.extend(&number.to_le_bytes()[..3]);
                }
                _ if i32::try_from(number).is_ok() => {
                    body.extend([&[0xD0][..], &(number as i32).to_le_bytes()].concat());
                }
                _ => body.extend([&[0xE0][..], &number.to_le_bytes()].concat()),
            },
            (None, len @ 0..64) => body.push(len as u8),
            (None, len @ 64..16_384) => body.extend((0x4000 | len as u16).to_be_bytes()),
            (None, len) => body.extend([&[0x80][..], &(len as u32).to_be_bytes()].concat()),
        }
        if number.is_none() {
            body.extend_from_slice(item);
        }
        before = body.len() - begin;
    }
    let bytes = 11 + body.len() as u32;
    let head = [bytes.to_le_bytes(), last.to_le_bytes()].concat();
    [&head[..], &(items.len() as u16).to_le_bytes(), &body, &[0xFF]].concat()
}

fn old_bodies() -> Vec<Vec<u8>> {
    let long = vec![b'x'; 300];
    let longer = vec![b'y'; 20_000];
    let numbers = ["0", "12", "13", "-128", "-129", "32767", "-8388607", "8388607", "2147483647"];
    let numbers = numbers.iter().chain(&["-9223372036854775808", "9223372036854775807"]);
    let mut items: Vec<&[u8]> = numbers.map(|number| number.as_bytes()).collect();
    items.extend([&b"007"[..], b"", b"-0", &long, b"after", &longer, b"last"]);
    let pairs = [&b"d"[..], b"-inf", b"b", b"-2.5", b"a", b"1", b"e", b"1e+20", b"c", b"inf"];
    let with = |form: u8, parts: &[Vec<u8>]| [vec![form], parts.concat()].concat();
    let scored = |score: &str| [text(b"m"), vec![score.len() as u8], score.into()].concat();
    vec![
        with(10, &[text(&ziplist(&items))]),
        with(12, &[text(&ziplist(&pairs))]),
        with(13, &[text(&ziplist(&items))]),
        with(14, &[len(2), text(&ziplist(&items)), text(&ziplist(&items[..3]))]),
        with(3, &[len(1), scored("-1.5")]),
        with(3, &[len(2), text(b"n"), vec![254], text(b"m"), vec![255]]),
        with(2, &[len(3), vec![0xC0, 0x80], vec![0xC1, 0, 0x80], vec![0xC2, 1, 2, 3, 0x84]]),
        with(1, &[len(1), vec![0xC3, 5, 0x41, 9, 0, b'x', 0xE0, 255, 0]]),
    ]
}

#[test]
fn old_forms_are_read_as_by_redis() {
    let mut redis = Redis::start();
    let mut world = World::new(1, true);
    for (place, body) in old_bodies().iter().enumerate() {
        let command = restore("k", "0", &sealed(body), "REPLACE");
        let theirs = redis.ask(&command);
        assert_eq!(ours(&mut world, &command), theirs, "{place}");
        let wanted = contents("k", |ask| redis.ask(ask));
        assert_eq!(contents("k", |ask| ours(&mut world, ask)), wanted, "{place}");
    }
    // Redis 7.2 makes listpacks of sets too, which 7.0 does not know.
    let set = b"\x14\x0E\x0E\0\0\0\x03\0\x81a\x02\x01\x01\x02\x01\xFF";
    assert_eq!(ours(&mut world, &restore("s", "0", &sealed(set), "")), ok());
    assert_eq!(world.cmd("SMEMBERS s"), world.cmd("SUNION s"));
    assert_eq!(world.cmd("SMISMEMBER s a 1 2"), "[1 1 1]");
    for (body, why) in [
        (&b"\x0F"[..], "streams"),
        (b"\x13\0", "streams"),
        (b"\x07\0", "module"),
        (b"\x09\x02\0\xFF", "zipmap"),
        (b"\x16\0", "ERR Bad data format\""),
    ] {
        let answer = format!("{:?}", ours(&mut world, &restore("x", "0", &sealed(body), "")));
        assert!(answer.contains("-ERR Bad data format") && answer.contains(why), "{answer}");
    }
}

/// Payloads of all forms, of Redis and of here.
fn samples(redis: &mut Redis, world: &mut World) -> Vec<Vec<u8>> {
    let long = "long and long and long and ".repeat(20);
    let lines = [
        "SET string value",
        "SET number -1234567",
        &format!("SET packed {}", long.replace(' ', "_")),
        "RPUSH list a b -5 1000 100000 3000000000 1234567890123",
        &format!("RPUSH list2 {long} end"),
        "SADD numbers 1 2 3 -70000",
        "SADD set a b c 1",
        "HSET hash f v g 17 h -1000000",
        &format!("HSET hash2 f {} g w", long.replace(' ', "_")),
        "ZADD zset 1 a 2.5 b -inf c 1e20 d",
        &format!("ZADD zset2 1 a 2 {}", long.replace(' ', "_")),
    ];
    let mut all: Vec<Vec<u8>> = old_bodies().into_iter().filter(|body| body.len() < 900).collect();
    redis.ask(&words("CONFIG SET list-max-listpack-size 4"));
    redis.ask(&words("CONFIG SET list-compress-depth 1"));
    for line in lines {
        let line = words(line.trim());
        let dump = [b"DUMP".to_vec(), line[1].clone()];
        redis.ask(&line);
        ours(world, &line);
        for value in [redis.ask(&dump), ours(world, &dump)] {
            let Value::Bulk(Some(payload)) = value else { panic!("{value:?}") };
            all.push(payload[..payload.len() - 10].to_vec());
        }
    }
    all
}

fn damaged(dice: &mut Dice, samples: &[Vec<u8>]) -> Vec<u8> {
    let mut body = samples[dice.roll(samples.len())].clone();
    let other = &samples[dice.roll(samples.len())];
    for _ in 0..1 + dice.roll(3) {
        if body.is_empty() {
            break;
        }
        let at = match dice.roll(2) {
            0 => dice.roll(body.len()),
            _ => dice.roll(body.len().min(16)), // where lengths stand
        };
        match dice.roll(8) {
            0 => body.truncate(at),
            1 => drop(body.remove(at)),
            2 => body.insert(at, dice.roll(256) as u8),
            3 => body[at] = [0, 0xFF, 0x7F, 0x80, 0x81, 0xC3, 0xFE][dice.roll(7)],
            4 => body.splice(at.., other[dice.roll(other.len())..].iter().copied()).for_each(drop),
            _ => body[at] ^= 1 << dice.roll(8),
        }
    }
    body
}

/// What is taken here, Redis takes too where it looks at everything, and reads the same. The rest is not
/// given to it: a number of members that lies keeps it busy for minutes.
#[test]
fn damaged_payloads_are_refused_or_read_as_by_redis() {
    let mut redis = Redis::start();
    redis.ask(&words("CONFIG SET sanitize-dump-payload yes"));
    let mut world = World::new(1, false);
    let samples = samples(&mut redis, &mut world);
    let mut dice = Dice::new(11);
    let (mut taken, mut newer) = (0, 0);
    for step in 0..DAMAGED {
        let body = damaged(&mut dice, &samples);
        let command = restore("k", "0", &sealed(&body), "REPLACE");
        match ours(&mut world, &command) {
            answer if answer == ok() => {}
            Value::Line(line) if line.starts_with("-ERR ") => continue,
            other => panic!("step {step}: {other:?} {body:?}"),
        }
        // Redis 7.2 makes listpacks of sets, which 7.0 does not know.
        if body.first() == Some(&20) {
            newer += 1;
            continue;
        }
        taken += 1;
        assert_eq!(redis.ask(&command), ok(), "step {step}: {body:?}");
        let wanted = contents("k", |ask| redis.ask(ask));
        assert_eq!(contents("k", |ask| ours(&mut world, ask)), wanted, "{step}: {body:?}");
    }
    assert!(taken > DAMAGED / 100 && taken + newer < DAMAGED / 2, "{taken} and {newer}");
}

/// Lengths that promise more than there is, or than may be.
#[test]
fn bombs_do_not_go_off() {
    let mut world = World::new(1, true);
    let ones = |many: usize| -> Vec<u8> {
        // 264 bytes of x for each three.
        let mut packed = vec![0, b'x'];
        (0..many).for_each(|_| packed.extend([0xE0, 255, 0]));
        [vec![0xC3], len(packed.len() as u64), len(1 + 264 * many as u64), packed].concat()
    };
    let huge = u64::MAX;
    let bombs = [
        [vec![0], len(huge)].concat(),
        [vec![0, 0xC3], len(huge), len(huge)].concat(),
        [vec![0, 0xC3], len(3), len(1 << 40), vec![0xE0, 255, 0]].concat(),
        [vec![0, 0xC3], len(3), len(20 << 20), vec![0xE0, 255, 0]].concat(),
        [vec![0], ones((17 << 20) / 264)].concat(),
        [vec![1], len(3), ones(40_000), ones(40_000), ones(1)].concat(),
        [vec![1], len(huge), text(b"a")].concat(),
        [vec![4], len(huge), text(b"a")].concat(),
        [vec![5], len(huge), text(b"a"), vec![0; 8]].concat(),
        [vec![14], len(huge)].concat(),
        [vec![18], len(huge), len(1), len(huge)].concat(),
        [vec![16], text(b"\xFF\xFF\xFF\xFF\xFF\xFF\xF0\xFF\xFF\xFF\xFF")].concat(),
        [vec![11], text(b"\x08\0\0\0\xFF\xFF\xFF\xFF")].concat(),
        [vec![11], text(b"\0\0\0\0\xFF\xFF\xFF\xFF")].concat(),
        // A million elements of a byte each.
        [vec![1], len(1 << 20), vec![0; 1 << 20]].concat(),
    ];
    for (place, bomb) in bombs.iter().enumerate() {
        let began = Instant::now();
        let answer = format!("{:?}", ours(&mut world, &restore("k", "0", &sealed(bomb), "")));
        let right = answer.contains("ERR Bad data format") || answer.contains("would write more");
        assert!(right, "{place}: {answer}");
        assert!(began.elapsed() < Duration::from_secs(10), "{place}: {:?}", began.elapsed());
    }
    assert_eq!(world.cmd("EXISTS k"), "0");
}
