use super::*;
use crate::engine::keys;
use crate::model::{Element, Type};
use flotilla_topology::ids::ClusterId;
use flotilla_topology::stamp::{Hlc, Stamp};
use std::collections::{BTreeMap, BTreeSet};

type Memory = BTreeMap<Bytes, Bytes>;

fn element(text: &str) -> Element {
    let stamp = Stamp { hlc: Hlc(5), cluster: ClusterId(1) };
    Element::of(stamp, Bytes::copy_from_slice(text.as_bytes()))
}

fn head(rows: &mut Memory, slot: u16, key: &str, text: &str) {
    let head = Head { string: element(text), ..Head::default() };
    rows.insert(keys::head(Slot(slot), key.as_bytes()), encode_head(&head));
}

fn field(rows: &mut Memory, slot: u16, key: &str, name: &str, text: &str) {
    let row = keys::element(Slot(slot), key.as_bytes(), Type::Hash, name.as_bytes());
    rows.insert(row, encode_element(&element(text)));
}

/// Heads a, c, d; elements of b (an orphan) and c; and e in another slot.
fn some_rows() -> Memory {
    let mut rows = Memory::new();
    for key in ["a", "c", "d"] {
        head(&mut rows, 7, key, "v");
    }
    for (key, name) in [("b", "x"), ("c", "y"), ("c", "z")] {
        field(&mut rows, 7, key, name, "w");
    }
    head(&mut rows, 9, "e", "v");
    rows
}

const STEPS: [Step; 4] = [
    Step::USUAL,
    Step { stretch_rows: 1, ..Step::USUAL },
    Step { stretch_rows: 2, rows: 3, ..Step::USUAL },
    Step { slots: 3, stretch_rows: 4, rows: 1, bytes: 1 },
];

/// All states that the source tells, step by step.
fn told(rows: &Memory, all: bool, step: &Step) -> Vec<StretchState> {
    let slots = SlotRange { first: Slot(5), last: Slot(12) };
    let (mut left, mut from, mut told) = (slots, None, Vec::new());
    loop {
        let States { states: some, next } = states(rows, left, from, all, step).unwrap();
        told.extend(some);
        let Some(next) = next else { return told };
        (left.first, from) = (next.slot, next.from);
    }
}

#[test]
fn stretches_hold_each_row_once_and_no_more_than_they_may() {
    let rows = some_rows();
    for step in STEPS {
        for all in [false, true] {
            let told = told(&rows, all, &step);
            assert!(told.iter().all(|state| state.stretch.is_sound() && (all || state.rows > 0)));
            assert!(told.iter().all(|state| state.rows <= step.stretch_rows), "{step:?}");
            let units = told.iter().flat_map(|state| Units::of(&rows, &state.stretch, 0));
            let effects: Vec<Effect> = units.map(|unit| unit.unwrap().effect).collect();
            let whole = SlotRange::ALL;
            let expected = Units::new(&rows, whole, &Resume::at(whole), 0);
            let expected: Vec<Effect> = expected.map(|unit| unit.unwrap().effect).collect();
            assert_eq!(effects, expected, "{step:?}");
            let slots: BTreeSet<u16> = told.iter().map(|state| state.stretch.slot.0).collect();
            assert_eq!(slots, if all { (5..=12).collect() } else { BTreeSet::from([7, 9]) });
        }
    }
}

/// What is wanted of `theirs`, found as two clusters find it.
fn wanted(ours: &Memory, theirs: &Memory, all: bool, step: &Step) -> Vec<Wanted> {
    let told = told(theirs, all, step);
    let different = differing(ours, &told).unwrap();
    let (empty, some): (Vec<_>, Vec<_>) = different.into_iter().partition(|one| one.empty);
    let stretch = |one: &Different| told[one.at].stretch.clone();
    let keys: Vec<StretchKeys> = some
        .iter()
        .map(stretch)
        .map(|stretch| {
            let keys = key_states(theirs, &stretch, &mut u64::MAX.clone()).unwrap().unwrap();
            StretchKeys { stretch, keys }
        })
        .collect();
    let mut wanted = wanted_of(ours, &keys).unwrap();
    wanted.extend(empty.iter().map(|one| Wanted::all(stretch(one))));
    wanted
}

/// Keys of `theirs` of which rows are wanted.
fn wanted_keys(ours: &Memory, theirs: &Memory, step: &Step) -> BTreeSet<Bytes> {
    let mut named = BTreeSet::new();
    for want in wanted(ours, theirs, false, step) {
        let units = Units::of(theirs, &want.stretch, 0).map(|unit| unit.unwrap().key);
        named.extend(units.filter(|key| want.has(key)));
    }
    named
}

#[test]
fn only_what_differs_is_wanted_however_it_is_cut() {
    let (ours, mut theirs) = (some_rows(), some_rows());
    for step in STEPS {
        assert_eq!(wanted(&ours, &theirs, true, &step), []);
    }
    field(&mut theirs, 7, "c", "z", "!");
    head(&mut theirs, 8, "new", "v");
    for step in STEPS {
        let keys = wanted_keys(&ours, &theirs, &step);
        assert_eq!(keys, [&b"c"[..], b"new"].map(Bytes::from_static).into(), "{step:?}");
    }
}

#[test]
fn what_only_the_target_has_is_told_only_to_who_asks_for_all() {
    let (mut ours, theirs) = (some_rows(), some_rows());
    head(&mut ours, 10, "mine", "v");
    for step in STEPS {
        assert_eq!(wanted(&ours, &theirs, false, &step), []);
        let told = told(&theirs, true, &step);
        let different = differing(&ours, &told).unwrap();
        let slots: BTreeSet<u16> =
            different.iter().map(|one| told[one.at].stretch.slot.0).collect();
        assert_eq!(slots, [10].into(), "{step:?}");
    }
}

#[test]
fn a_target_with_much_more_asks_for_all_and_looks_at_little() {
    let (mut ours, theirs) = (some_rows(), some_rows());
    for name in 0..LOOKS_MAX {
        field(&mut ours, 7, "c", &format!("{name:06}"), "w");
    }
    let told = told(&theirs, false, &Step::USUAL);
    let different = differing(&ours, &told).unwrap();
    assert_eq!(different, [Different { at: 0, empty: false }]);
    let stretch = &told[0].stretch;
    let mut left = 10;
    let keys = key_states(&theirs, stretch, &mut left).unwrap().unwrap();
    assert_eq!(left, 4, "six rows");
    assert_eq!(key_states(&theirs, stretch, &mut left).unwrap(), None);
    assert_eq!(left, 0);
    let asked = [StretchKeys { stretch: stretch.clone(), keys }];
    assert_eq!(wanted_of(&ours, &asked).unwrap(), [Wanted::all(stretch.clone())]);
    // One that holds rows comes after it: nothing is left for that.
    let last = StretchKeys { stretch: Stretch::of_slot(Slot(9)), keys: Vec::new() };
    let both = [asked[0].clone(), last];
    let whole = both.iter().map(|one| Wanted::all(one.stretch.clone())).collect::<Vec<_>>();
    assert_eq!(wanted_of(&ours, &both).unwrap(), whole);
    let lie = StretchState { rows: u64::MAX, ..told[0].clone() };
    assert_eq!(differing(&ours, &[lie]).unwrap(), [Different { at: 0, empty: false }]);
}
