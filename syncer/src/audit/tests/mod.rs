//! Random histories of clusters of which the audit may say nothing wrong, and must find what is.

mod world;

use super::pass::{Found, Next, Part, Pass, Question, Seen};
use flotilla_node::group::digest::Look;
use flotilla_topology::ids::ClusterId;
use flotilla_topology::slot::{Slot, SlotRange};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use world::{KEYS, Lie, SLOTS, World};

const HISTORIES: u64 = 120;
/// Comparing takes so long in a model, at most.
const STEPS_MAX: usize = 200_000;

fn slots() -> SlotRange {
    SlotRange { first: Slot(0), last: Slot(SLOTS - 1) }
}

/// Asks both sides of clusters 1 and 2, one after the other; life goes on meanwhile.
fn ask(world: &mut World, random: &mut StdRng, question: &Question) -> Seen {
    let at_ms = world.wall_ms(0);
    let ours_first = random.random_bool(0.5);
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for ours_now in [ours_first, !ours_first] {
        for _ in 0..random.random_range(0..20) {
            world.step(random);
        }
        if ours_now {
            ours = world.look(0, at_ms, &question.cells);
        } else {
            theirs = world.look(1, at_ms, &question.cells);
        }
    }
    Seen { at_ms, ours, theirs }
}

/// Walks over all slots once.
fn pass(world: &mut World, random: &mut StdRng) -> BTreeMap<Slot, Found> {
    let base = Instant::now();
    let start = world.now_ms;
    let now = |world: &World| base + Duration::from_millis(world.now_ms - start);
    let ids = (world.id(0), world.id(1));
    let mut pass = Pass::new(ids, [slots()], random.random(), base);
    let mut found = BTreeMap::new();
    for _ in 0..STEPS_MAX {
        match pass.next(now(world)) {
            Next::Done => return found,
            Next::Wait(at) => {
                while now(world) < at {
                    world.step(random);
                }
            }
            Next::Ask(question) => {
                let seen = ask(world, random, &question);
                let took = Duration::from_millis(random.random_range(1..10));
                let decided = pass.answered(&question, &seen, took, now(world)).unwrap();
                for (slot, verdict) in decided {
                    assert_eq!(found.insert(slot, verdict), None, "slot {slot} was decided");
                }
            }
        }
    }
    panic!("a pass does not end: {found:?}");
}

fn different(found: &BTreeMap<Slot, Found>) -> Vec<Slot> {
    let different = found.iter().filter(|(_, found)| **found == Found::Different);
    different.map(|(slot, _)| *slot).collect()
}

/// A history of this seed, and a pass while it goes on.
fn history(seed: u64, lie: Lie) -> (World, StdRng, BTreeMap<Slot, Found>) {
    let mut random = StdRng::seed_from_u64(seed);
    let mut world = World::new(&mut random, lie);
    for _ in 0..random.random_range(0..2000) {
        world.step(&mut random);
    }
    let found = pass(&mut world, &mut random);
    (world, random, found)
}

/// Deletes, ends, collection, third clusters, clocks apart, long ways, keys that never rest: what is
/// under way is never called a difference, and when all is quiet everything is equal.
#[test]
fn what_is_under_way_is_never_a_difference() {
    let mut undecided = 0;
    for seed in 0..HISTORIES {
        let (mut world, mut random, found) = history(seed, Lie::None);
        assert_eq!(found.len(), usize::from(SLOTS), "seed {seed}: every slot is decided");
        assert_eq!(different(&found), [], "seed {seed}");
        undecided += found.values().filter(|found| **found == Found::Undecided).count();
        world.quiet = true;
        let found = pass(&mut world, &mut random);
        assert!(found.values().all(|found| *found == Found::Equal), "seed {seed}: {found:?}");
    }
    // What was too busy to tell is the exception.
    let slots = HISTORIES as usize * usize::from(SLOTS);
    assert!(undecided < slots / 4, "{undecided} of {slots} slots were undecided");
}

/// The histories can tell a good rule from a bad one: without what is hidden, or with vectors that
/// say more than is true, there are false alarms.
#[test]
fn without_a_part_of_the_rule_there_are_false_alarms() {
    for lie in [Lie::VisibleOnly, Lie::VectorsAhead] {
        let alarms = (0..600).any(|seed| !different(&history(seed, lie).2).is_empty());
        assert!(alarms, "no history needs {lie:?}");
    }
}

/// An effect is lost on its way. Other keys of its slot are written all the time.
#[test]
fn a_lost_effect_is_found() {
    for seed in 0..100 {
        let mut random = StdRng::seed_from_u64(seed);
        let mut world = World::new(&mut random, Lie::None);
        for _ in 0..500 {
            world.step(&mut random);
        }
        // Nobody writes this key any more once it is lost.
        let key = random.random_range(0..KEYS);
        let side = random.random_range(0..2);
        world.lose(key, side);
        let slot = world::slot_of(key);
        for _ in 0..200 {
            world.step(&mut random);
        }
        let found = pass(&mut world, &mut random);
        assert_eq!(different(&found), [slot], "seed {seed}: {found:?}");
    }
}

/// While the one side cannot know what the other has, nothing is said.
#[test]
fn a_link_that_is_cut_gives_no_verdict() {
    let mut undecided = 0;
    for seed in 0..20 {
        let mut random = StdRng::seed_from_u64(seed);
        let mut world = World::new(&mut random, Lie::None);
        world.cut = true;
        for _ in 0..500 {
            world.step(&mut random);
        }
        world.still = true;
        let found = pass(&mut world, &mut random);
        assert_eq!(different(&found), [], "seed {seed}");
        undecided += found.values().filter(|found| **found == Found::Undecided).count();
    }
    assert!(undecided > 0, "something was under way");
}

/// Who may lack writes though its vector covers them says so, and so does who goes by other clusters.
#[test]
fn what_a_side_cannot_answer_for_is_not_compared() {
    let mut random = StdRng::seed_from_u64(1);
    let mut world = World::new(&mut random, Lie::None);
    let (now, clusters) = (Instant::now(), (world.id(0), world.id(1)));
    let begun = || Pass::new(clusters, [slots()], 1, now);
    let Next::Ask(question) = begun().next(now) else { panic!("it begins with a question") };
    let seen = ask(&mut world, &mut random, &question);
    let refused = |change: &dyn Fn(&mut Seen)| {
        let mut seen = seen.clone();
        change(&mut seen);
        begun().answered(&question, &seen, Duration::ZERO, now).unwrap_err()
    };
    let unsettled = |seen: &mut Seen| {
        seen.theirs[0].look.unsettled = Some("it levels".to_owned());
    };
    assert!(refused(&unsettled).contains("it levels"));
    let others = |seen: &mut Seen| {
        seen.theirs[0].look.live.insert(ClusterId(9));
    };
    assert!(refused(&others).contains("the same clusters"));
    let nobody = |seen: &mut Seen| seen.theirs.clear();
    assert!(refused(&nobody).contains("has no group"));
}

/// Stripes grow while they hold little, and nothing is asked for nine times as long as a look took.
#[test]
fn stripes_follow_the_rows_and_looks_keep_their_distance() {
    let now = Instant::now();
    let mut pass = Pass::new((ClusterId(1), ClusterId(2)), [SlotRange::ALL], 1, now);
    let empty = |other| {
        let look = Look { live: [ClusterId(other)].into(), ..Look::default() };
        vec![Part { slots: SlotRange::ALL, look }]
    };
    let seen = Seen { at_ms: 1, ours: empty(2), theirs: empty(1) };
    let (mut at, mut widths, mut slots) = (now, Vec::new(), 0);
    loop {
        let question = match pass.next(at) {
            Next::Ask(question) => question,
            Next::Wait(until) => {
                assert_eq!(until - at, Duration::from_millis(900));
                at = until;
                continue;
            }
            Next::Done => break,
        };
        let range = question.cells.slots;
        widths.push(range.last.0 - range.first.0 + 1);
        slots += pass.answered(&question, &seen, Duration::from_millis(100), at).unwrap().len();
    }
    assert_eq!(slots, 16_384);
    assert_eq!(widths[..7], [64, 128, 256, 512, 1024, 2048, 2048]);
}
