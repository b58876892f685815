//! A scan returns every key that is there throughout, whatever else comes and goes.

use super::world::{World, elements, show};
use crate::eval::{ScanCursor, ScanMarks, ScanOptions, scan};
use crate::resp::Reply;
use bytes::Bytes;
use flotilla_topology::slot::{Slot, SlotRange};
use proptest::prelude::*;
use std::collections::BTreeSet;

fn args(line: &str) -> Vec<Bytes> {
    line.split(' ').map(|word| Bytes::copy_from_slice(word.as_bytes())).collect()
}

/// Scans the groups that `partitions` make, changing keys between the steps.
fn scan_all(
    world: &mut World,
    partitions: u32,
    rest: &str,
    mut between: impl FnMut(&mut World, usize),
) -> Vec<String> {
    let mut found = Vec::new();
    let mut cursor = ScanCursor::START;
    for step in 0.. {
        assert!(step < 100_000, "the scan does not end");
        let line = format!("SCAN {}{rest}", cursor.to_integer());
        let options = ScanOptions::parse(&args(&line)).unwrap();
        let ranges = (0..partitions).map(|index| SlotRange::partition(index, partitions));
        let owner = ranges.into_iter().find(|range| range.contains(cursor.slot)).unwrap();
        world.slots = owner;
        let (page, _) = world.entry(|txn| scan(txn, &options).unwrap());
        world.slots = SlotRange::ALL;
        found.extend(page.keys.iter().map(|key| String::from_utf8_lossy(key).into_owned()));
        match page.next {
            Some(next) => {
                assert!(next > cursor, "a scan gets on");
                cursor = next;
            }
            None => break,
        }
        between(world, step);
    }
    found
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn every_lasting_key_is_found(
        lasting in 0usize..300,
        tagged in 0usize..300,
        count in 1usize..40,
        partitions in 1u32..5,
        synced in any::<bool>(),
    ) {
        let mut world = World::new(1, synced);
        let mut want = BTreeSet::new();
        for key in 0..lasting {
            want.insert(format!("k{key}"));
        }
        for key in 0..tagged {
            want.insert(format!("{{tag}}{key}"));
        }
        for key in &want {
            world.cmd(&format!("SET {key} v"));
            world.cmd(&format!("SET gone{key} v"));
        }
        let found = scan_all(&mut world, partitions, &format!(" COUNT {count}"), |world, step| {
            world.cmd(&format!("SET new{step} v"));
            world.cmd(&format!("DEL gonek{step} {{tag}}gone{step}"));
        });
        let found: BTreeSet<String> = found.into_iter().collect();
        prop_assert!(want.is_subset(&found), "missing {:?}", want.difference(&found));
    }
}

#[test]
fn a_large_slot_comes_in_pages() {
    let mut world = World::new(1, false);
    for key in 0..5000 {
        world.cmd(&format!("SET {{t}}{key} v"));
    }
    let mut steps = 0;
    let found = scan_all(&mut world, 3, " COUNT 100", |world, step| {
        steps += 1;
        world.cmd(&format!("SET {{t}}new{step} v"));
    });
    let distinct: BTreeSet<&String> = found.iter().filter(|key| !key.contains("new")).collect();
    assert_eq!(distinct.len(), 5000);
    assert!(found.len() <= 5010, "a key is returned once if nothing makes it return");
    assert!(steps >= 4, "in several pages");
}

#[test]
fn patterns_and_types_filter() {
    let mut world = World::new(1, true);
    for line in ["SET a1 v", "SET b1 v", "HSET a2 f v", "SET a3 v", "DEL a3"] {
        world.cmd(line);
    }
    let mut sorted = |rest: &str| {
        let mut found = scan_all(&mut world, 2, rest, |_, _| {});
        found.sort();
        found.join(" ")
    };
    assert_eq!(sorted(""), "a1 a2 b1");
    assert_eq!(sorted(" MATCH a*"), "a1 a2");
    assert_eq!(sorted(" MATCH a* TYPE hash"), "a2");
    assert_eq!(sorted(" TYPE HASH"), "a2");
    assert_eq!(sorted(" TYPE list COUNT 1"), "");
}

#[test]
fn bad_arguments_are_refused_as_in_redis() {
    let error = |line: &str| super::world::show(&ScanOptions::parse(&args(line)).unwrap_err());
    assert_eq!(error("SCAN x"), "ERR invalid cursor");
    assert_eq!(error("SCAN -1"), "ERR invalid cursor");
    assert_eq!(error("SCAN 0 COUNT 0"), "ERR syntax error");
    assert_eq!(error("SCAN 0 COUNT x"), "ERR value is not an integer or out of range");
    assert_eq!(error("SCAN 0 COUNT"), "ERR syntax error");
    assert_eq!(error("SCAN 0 FOO 1"), "ERR syntax error");
}

#[test]
fn cursors_fit_into_a_double() {
    let last = ScanCursor { slot: Slot(16_383), position: u32::MAX };
    assert!(last.to_integer() < 1 << 53);
    assert_eq!(ScanCursor::from_integer(last.to_integer()), Some(last));
    assert_eq!(ScanCursor::from_integer(last.to_integer() + 1), None);
    assert_eq!(ScanCursor::from_integer(0), Some(ScanCursor::START));
}

#[test]
fn the_command_answers_with_a_cursor_and_keys() {
    let mut world = World::new(1, true);
    world.cmd("SET k v");
    assert_eq!(world.cmd("SCAN 0"), "[\"0\" [\"k\"]]");
    assert_eq!(world.cmd("SCAN 0 COUNT 0"), "ERR syntax error");
    assert_eq!(world.cmd("DBSIZE"), "1");
    world.slots = SlotRange::partition(0, 2); // k has slot 7629
    assert_eq!(world.cmd("SCAN 0"), "[\"35184372088832\" [\"k\"]]");
    world.slots = SlotRange::partition(1, 2);
    assert_eq!(world.cmd("SCAN 35184372088832"), "[\"0\" []]");
}

/// Goes through a hash, changing it between the steps; all that was told, and the number of steps.
fn scan_hash(
    world: &mut World,
    mut between: impl FnMut(&mut World, &[String]),
) -> (Vec<String>, usize) {
    let (mut cursor, mut steps, mut found) = ("0".to_owned(), 0, Vec::new());
    loop {
        let line = format!("HSCAN h {cursor} COUNT 50");
        let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        let Reply::Array(step) = world.run(&words).0 else { panic!("an array") };
        let names: Vec<String> = elements(&step[1]).into_iter().step_by(2).collect();
        (cursor, steps) = (show(&step[0]).replace('"', ""), steps + 1);
        if cursor == "0" {
            found.extend(names);
            return (found, steps);
        }
        between(world, &names);
        found.extend(names);
    }
}

fn fill(world: &mut World) {
    for field in 0..5000 {
        world.cmd(&format!("HSET h f{field} v{field}"));
    }
}

fn lasting(found: &[String]) -> (usize, usize) {
    let lasting: Vec<&String> = found.iter().filter(|name| name.starts_with('f')).collect();
    (lasting.len(), lasting.iter().collect::<BTreeSet<_>>().len())
}

#[test]
fn a_large_hash_comes_in_steps() {
    for marks in [None, Some(ScanMarks::default())] {
        let mut world = World::new(1, false);
        world.marks = marks;
        fill(&mut world);
        let mut added = 0;
        let (found, steps) = scan_hash(&mut world, |world, _| {
            added += 1;
            world.cmd(&format!("HSET h a{added} v z{added} v"));
            world.cmd(&format!("HDEL h z{}", added - 1));
        });
        assert_eq!(steps, 5, "1024 at once");
        assert_eq!(lasting(&found), (5000, 5000), "each once");
    }
    let mut world = World::new(1, false);
    fill(&mut world);
    assert_eq!(world.cmd("HSCAN h 0 TYPE hash"), "ERR syntax error");
}

#[test]
fn a_scan_goes_on_behind_what_was_removed() {
    let last = |names: &[String]| names.last().unwrap().clone();
    for synced in [false, true] {
        let mut world = World::new(1, synced);
        world.marks = Some(ScanMarks::default());
        fill(&mut world);
        let (found, _) = scan_hash(&mut world, |world, names| {
            world.cmd(&format!("HDEL h {}", last(names)));
        });
        assert_eq!(lasting(&found), (5000, 5000), "each once");
    }
    // Where nobody remembers the name any more the scan begins anew, once.
    let mut world = World::new(1, false);
    fill(&mut world);
    let (mut removed, mut name) = (false, String::new());
    let (found, steps) = scan_hash(&mut world, |world, names| {
        if !removed {
            (removed, name) = (true, last(names));
            world.cmd(&format!("HDEL h {name}"));
        }
    });
    assert_eq!((lasting(&found).1, steps), (5000, 6));
    assert_eq!(found.iter().filter(|found| **found == name).count(), 1);
}

#[test]
fn a_step_over_what_is_not_visible_ends() {
    let mut world = World::new(1, true);
    world.marks = Some(ScanMarks::default());
    let fields: Vec<String> = (0..40_000).map(|field| format!("f{field:05}")).collect();
    for some in fields.chunks(1000) {
        let pairs: Vec<String> = some.iter().map(|field| format!("{field} v")).collect();
        world.cmd(&format!("HSET h {}", pairs.join(" ")));
        world.cmd(&format!("HDEL h {}", some.join(" ")));
    }
    world.cmd("HSET h last v");
    let (found, steps) = scan_hash(&mut world, |_, names| assert!(names.is_empty()));
    assert_eq!((found.join(" "), steps), ("last".to_owned(), 3), "16,384 rows a step");
}
