//! A cluster that comes back from a fence, next to one that went on.

use super::world::World;
use crate::engine::keys;
use crate::eval::{Coverage, cover};
use crate::model::Effect;
use flotilla_topology::slot::SlotRange;

/// Covers everything with a state that holds `effects` and had what was stamped up to `had_ms`, in
/// as many steps as the budget makes of it; how many these were.
fn covered(world: &mut World, effects: &[Effect], had_ms: u64, budget: usize) -> usize {
    let mut heads = keys::of_slots(keys::HEAD, SlotRange::ALL);
    let mut elements = keys::of_slots(keys::ELEMENT, SlotRange::ALL);
    for step in 1.. {
        let had = |_, stamp: flotilla_topology::stamp::Stamp| stamp.hlc.ms() <= had_ms;
        let (left, _) = world.entry(|txn| {
            let (heads, elements) = (heads.clone(), elements.clone());
            let coverage = Coverage { heads, elements, effects, had: &had };
            cover(txn, &coverage, &mut budget.clone()).unwrap()
        });
        let Some(next) = left else { return step };
        (heads.start, elements.start) = next;
    }
    unreachable!("a stretch ends")
}

#[test]
fn what_the_other_had_and_has_not_goes_and_what_it_never_saw_stays() {
    for (budget, least) in [(100, 1), (2, 3), (1, 6)] {
        let mut world = World::new(1, true);
        world.at(100);
        let (_, kept) = world.run(&[b"HSET", b"h", b"f", b"kept"]);
        world.cmd("HSET h g deleted");
        world.cmd("SET s deleted");
        world.cmd("HSET gone f 1");
        world.cmd("INCRBY n 5");
        world.at(200);
        world.cmd("HSET h new 1");
        world.cmd("SET t new");
        world.cmd("INCRBY n 7");

        let steps = covered(&mut world, &kept, 150, budget);
        assert!(steps >= least, "{steps} steps of {budget} rows");
        assert_eq!(world.cmd("HGETALL h"), "{\"f\"=\"kept\" \"new\"=\"1\"}", "budget {budget}");
        assert_eq!(world.cmd("HLEN h"), "2");
        assert_eq!(world.cmd("GET t"), "\"new\"");
        assert_eq!(world.cmd("EXISTS s"), "0");
        assert_eq!(world.cmd("EXISTS gone"), "0");
        assert_eq!(world.cmd("EXISTS n"), "0", "to go on would bring back what was deleted");
    }
}

#[test]
fn of_what_goes_the_older_state_that_the_other_has_is_left() {
    let mut world = World::new(1, true);
    world.at(100);
    let (_, mut theirs) = world.run(&[b"HSET", b"h", b"f", b"older"]);
    theirs.extend(world.run(&[b"SET", b"s", b"older"]).1);
    world.at(120);
    world.cmd("HSET h f deleted");
    world.cmd("APPEND s deleted");
    covered(&mut world, &theirs, 150, 100);
    assert_eq!(world.cmd("HGETALL h"), "{\"f\"=\"older\"}");
    assert_eq!(world.cmd("HLEN h"), "1");
    assert_eq!(world.cmd("GET s"), "\"older\"");
}

#[test]
fn a_removal_stays_whoever_has_it() {
    let mut world = World::new(1, true);
    world.at(100);
    let (_, written) = world.run(&[b"HSET", b"h", b"f", b"1"]);
    world.cmd("HDEL h f");
    covered(&mut world, &[], 150, 100);
    world.entry(|txn| crate::eval::remote(txn, &written).unwrap());
    assert_eq!(world.cmd("HLEN h"), "0", "the older value comes and stays removed");
}

/// Seed 51226 of the simulator: what the other had forgotten of a key came with its head, and the next
/// change of the expiry hid what was written here meanwhile.
#[test]
fn what_stays_is_not_hidden_by_what_the_other_forgot() {
    for budget in [100, 1] {
        let (mut away, mut other) = (World::new(1, true), World::new(2, true));
        away.at(30);
        away.cmd("HSET h mine 1");
        other.forgotten_ms = 35;
        other.at(40);
        let (_, theirs) = other.run(&[b"HSET", b"h", b"theirs", b"1"]);
        let theirs: Vec<Effect> = theirs
            .into_iter()
            .map(|effect| match effect {
                Effect::Head { slot, key, head } => {
                    Effect::Head { slot, key, head: crate::model::Head { forgotten: 35, ..head } }
                }
                element => element,
            })
            .collect();
        away.at(50);
        away.entry(|txn| crate::eval::remote(txn, &theirs).unwrap());
        covered(&mut away, &theirs, 29, budget);
        away.at(54);
        away.cmd("PEXPIREAT h 90");
        away.cmd("PERSIST h");
        assert_eq!(away.cmd("HGETALL h"), "{\"mine\"=\"1\" \"theirs\"=\"1\"}", "budget {budget}");
    }
}
