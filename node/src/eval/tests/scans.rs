//! A scan returns every key that is there throughout, whatever else comes and goes.

use super::world::World;
use crate::eval::{ScanCursor, ScanOptions, scan};
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
