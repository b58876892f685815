//! Histories that must pass, faulty ones that must not, and random ones from a real sequential run
//! and from a brute force oracle.

use super::*;
use crate::history::{Answer, Op};
use proptest::prelude::*;

const OPEN: u64 = u64::MAX;

fn record(op: Op, invoked: u64, returned: u64, answer: Answer) -> Record {
    let returned = (returned != OPEN).then_some((returned, answer));
    Record { client: 0, key: "k".into(), op, invoked, returned }
}

fn set(value: &str, invoked: u64, returned: u64) -> Record {
    record(Op::Set(value.into()), invoked, returned, Answer::Done)
}

fn nx(value: &str, invoked: u64, returned: u64, met: bool) -> Record {
    let answer = if met { Answer::Done } else { Answer::Unmet };
    record(Op::SetNx(value.into()), invoked, returned, answer)
}

fn get(value: &str, invoked: u64, returned: u64) -> Record {
    let value = (!value.is_empty()).then(|| value.to_owned());
    record(Op::Get, invoked, returned, Answer::Value(value))
}

fn swap(value: &str, old: &str, invoked: u64, returned: u64) -> Record {
    let old = (!old.is_empty()).then(|| old.to_owned());
    record(Op::GetSet(value.into()), invoked, returned, Answer::Value(old))
}

fn incr(result: i64, invoked: u64, returned: u64) -> Record {
    record(Op::Incr, invoked, returned, Answer::Int(result))
}

fn del(removed: i64, invoked: u64, returned: u64) -> Record {
    record(Op::Del, invoked, returned, Answer::Int(removed))
}

fn hset(field: &str, value: &str, added: i64, invoked: u64, returned: u64) -> Record {
    record(Op::HSet(field.into(), value.into()), invoked, returned, Answer::Int(added))
}

fn hget(field: &str, value: &str, invoked: u64, returned: u64) -> Record {
    let value = (!value.is_empty()).then(|| value.to_owned());
    record(Op::HGet(field.into()), invoked, returned, Answer::Value(value))
}

fn passes(records: &[Record]) -> bool {
    let report = check(&History { records: records.to_vec() });
    assert_eq!(report.undecided, Vec::<String>::new());
    report.violations.is_empty()
}

#[test]
fn correct_histories_pass() {
    let cases: &[(&str, Vec<Record>)] = &[
        ("nothing", vec![]),
        (
            "one after the other",
            vec![set("a", 0, 1), get("a", 2, 3), set("b", 4, 5), get("b", 6, 7)],
        ),
        ("a read beside a write, either way", vec![set("a", 0, 10), get("", 1, 2), get("a", 3, 4)]),
        ("an open write seen late", vec![set("a", 0, OPEN), get("", 1, 2), get("a", 9, 10)]),
        ("an open write never seen", vec![set("a", 0, OPEN), get("", 5, 6)]),
        ("an open increment that counted", vec![incr(1, 0, 1), incr(0, 2, OPEN), incr(3, 4, 5)]),
        ("two open increments", vec![incr(0, 0, OPEN), incr(0, 0, OPEN), incr(3, 4, 5)]),
        ("one winner of two", vec![nx("a", 0, 5, true), nx("b", 0, 5, false), get("a", 6, 7)]),
        ("an open winner", vec![nx("a", 0, OPEN, true), nx("b", 1, 5, false), get("a", 6, 7)]),
        ("a chain of swaps", vec![swap("a", "", 0, 9), swap("b", "a", 0, 9), swap("c", "b", 0, 9)]),
        ("a delete between", vec![set("a", 0, 1), del(1, 2, 3), get("", 4, 5), del(0, 6, 7)]),
        (
            "fields",
            vec![
                hset("f", "a", 1, 0, 1),
                hset("f", "b", 0, 2, 3),
                hget("f", "b", 4, 5),
                hget("g", "", 4, 5),
            ],
        ),
        (
            "fields deleted",
            vec![
                hset("f", "a", 1, 0, 1),
                del(1, 2, 3),
                hget("f", "", 4, 5),
                hset("f", "b", 1, 6, 7),
            ],
        ),
        ("numbers set and counted", vec![set("41", 0, 1), incr(42, 2, 3), get("42", 4, 5)]),
        ("equal times overlap", vec![set("a", 0, 1), get("", 1, 2)]),
    ];
    for (name, records) in cases {
        assert!(passes(records), "{name}");
    }
}

#[test]
fn faulty_histories_are_rejected() {
    let xx = |value: &str, invoked, returned| {
        record(Op::SetXx(value.into()), invoked, returned, Answer::Done)
    };
    let getdel = |value: &str, invoked, returned| {
        record(Op::GetDel, invoked, returned, Answer::Value(Some(value.into())))
    };
    let cases: &[(&str, Vec<Record>)] = &[
        ("a lost write", vec![set("a", 0, 1), get("", 2, 3)]),
        ("a stale read", vec![set("a", 0, 1), set("b", 2, 3), get("a", 4, 5)]),
        ("a value from nowhere", vec![set("a", 0, 1), get("b", 2, 3)]),
        ("a read before its write", vec![get("a", 0, 1), set("a", 2, 3)]),
        (
            "two reads that go back in time",
            vec![set("a", 0, 1), set("b", 2, 20), get("b", 3, 4), get("a", 5, 6)],
        ),
        (
            "an open write that comes and goes",
            vec![set("a", 0, OPEN), get("a", 2, 3), get("", 4, 5)],
        ),
        ("an open write seen before its call", vec![get("a", 0, 1), set("a", 2, OPEN)]),
        ("an increment lost", vec![incr(1, 0, 1), incr(1, 2, 3)]),
        ("an increment twice", vec![incr(1, 0, 1), incr(3, 2, 3)]),
        ("two concurrent increments, one answer", vec![incr(1, 0, 5), incr(1, 0, 5)]),
        ("an open increment counted twice", vec![incr(1, 0, 1), incr(0, 2, OPEN), incr(4, 4, 5)]),
        ("two winners of NX", vec![nx("a", 0, 5, true), nx("b", 0, 5, true)]),
        ("no winner of NX", vec![nx("a", 0, 5, false), nx("b", 0, 5, false)]),
        ("NX over an existing key", vec![set("a", 0, 1), nx("b", 2, 3, true)]),
        ("XX without a key", vec![xx("a", 0, 1)]),
        ("XX after a delete", vec![set("a", 0, 1), del(1, 2, 3), xx("b", 4, 5)]),
        (
            "one old value swapped out twice",
            vec![set("a", 0, 1), swap("b", "a", 2, 9), swap("c", "a", 2, 9)],
        ),
        ("one value taken twice", vec![set("a", 0, 1), getdel("a", 2, 9), getdel("a", 2, 9)]),
        ("deleted twice", vec![set("a", 0, 1), del(1, 2, 9), del(1, 2, 9)]),
        ("back after its delete", vec![set("a", 0, 1), del(1, 2, 3), get("a", 4, 5)]),
        ("a delete of nothing", vec![del(1, 0, 1)]),
        ("a field lost", vec![hset("f", "a", 1, 0, 1), hget("f", "", 2, 3)]),
        ("a field added twice", vec![hset("f", "a", 1, 0, 1), hset("f", "b", 1, 2, 3)]),
        (
            "a field that survived its key",
            vec![hset("f", "a", 1, 0, 1), del(1, 2, 3), hget("f", "a", 4, 5)],
        ),
        (
            "fields mixed up",
            vec![hset("f", "a", 1, 0, 1), hset("g", "b", 1, 2, 3), hget("f", "b", 4, 5)],
        ),
        ("a counter set back", vec![set("41", 0, 1), incr(42, 2, 3), get("41", 4, 5)]),
    ];
    for (name, records) in cases {
        assert!(!passes(records), "{name}");
    }
}

#[test]
fn the_operation_that_fits_nowhere_is_named() {
    let records = vec![set("a", 0, 1000), set("b", 2000, 3000), get("a", 4000, 5000)];
    let report = check(&History { records });
    let what = &report.violations[0].what;
    assert!(what.contains("Get -> Value(Some(\"a\"))  <- fits nowhere"), "{what}");
}

#[test]
fn keys_are_judged_one_by_one() {
    let mut other = get("", 2, 3);
    other.key = "l".into();
    let report = check(&History { records: vec![set("a", 0, 1), other] });
    assert_eq!((report.keys, report.operations, report.violations.len()), (2, 2, 0));
}

#[test]
fn many_open_operations_do_not_stop_the_search() {
    // Thirty open writes of each kind, none of them seen: without the three observations this is a
    // search over 2^60 subsets.
    let mut records = vec![];
    for n in 0..30 {
        records.push(set(&format!("lost{n}"), n, OPEN));
        records.push(incr(0, n, OPEN));
        records.push(del(0, n, OPEN));
    }
    for n in 0..200 {
        let at = 100 + 4 * n;
        records.push(set(&format!("v{n}"), at, at + 1));
        records.push(get(&format!("v{n}"), at + 2, at + 3));
    }
    assert!(passes(&records));
    records.push(get("v100", 5000, 5001));
    assert!(!passes(&records), "a stale read among open writes");
}

#[test]
fn a_search_without_end_is_not_a_pass() {
    let records = (0..20).map(|n| set(&format!("v{n}"), 0, 100)).collect();
    let report = check_within(&History { records }, 5);
    assert_eq!((report.undecided.len(), report.violations.len()), (1, 0));
}

/// The sequential Redis again, written the obvious way, to check the checker against.
fn run(state: &mut Option<String>, op: &Op) -> Answer {
    match op {
        Op::Get => Answer::Value(state.clone()),
        Op::Set(value) => {
            *state = Some(value.clone());
            Answer::Done
        }
        Op::SetNx(value) if state.is_none() => {
            *state = Some(value.clone());
            Answer::Done
        }
        Op::SetXx(value) if state.is_some() => {
            *state = Some(value.clone());
            Answer::Done
        }
        Op::SetNx(_) | Op::SetXx(_) => Answer::Unmet,
        Op::GetSet(value) => Answer::Value(state.replace(value.clone())),
        Op::GetDel => Answer::Value(state.take()),
        Op::Del => Answer::Int(i64::from(state.take().is_some())),
        Op::Incr | Op::HSet(..) | Op::HGet(_) => unreachable!("not generated"),
    }
}

/// Tries all orders and all subsets of the open operations.
fn brute_force(records: &[Record], left: u32, state: &Option<String>) -> bool {
    let is_left = |n: &usize| left & (1 << n) != 0;
    let must = (0..records.len()).filter(is_left).filter(|n| records[*n].returned.is_some());
    let Some(deadline) = must.map(|n| records[n].returned_at()).min() else { return true };
    (0..records.len()).filter(is_left).any(|n| {
        let mut next = state.clone();
        records[n].invoked <= deadline
            && {
                let answer = run(&mut next, &records[n].op);
                records[n].returned.as_ref().is_none_or(|(_, seen)| *seen == answer)
            }
            && brute_force(records, left & !(1 << n), &next)
    })
}

fn any_op() -> impl Strategy<Value = Op> {
    let value = || prop_oneof!["a", "b", "7"].prop_map(|value| value.to_string());
    prop_oneof![
        Just(Op::Get),
        Just(Op::Del),
        Just(Op::GetDel),
        value().prop_map(Op::Set),
        value().prop_map(Op::SetNx),
        value().prop_map(Op::SetXx),
        value().prop_map(Op::GetSet),
    ]
}

fn any_answer(op: &Op) -> BoxedStrategy<Answer> {
    let value = prop_oneof![Just(None), "a".prop_map(Some), "b".prop_map(Some), "7".prop_map(Some)];
    match op {
        Op::Get | Op::GetSet(_) | Op::GetDel => value.prop_map(Answer::Value).boxed(),
        Op::Del => (0..=1i64).prop_map(Answer::Int).boxed(),
        Op::SetNx(_) | Op::SetXx(_) => prop_oneof![Just(Answer::Done), Just(Answer::Unmet)].boxed(),
        _ => Just(Answer::Done).boxed(),
    }
}

fn any_record() -> impl Strategy<Value = Record> {
    any_op().prop_flat_map(|op| {
        let answer = any_answer(&op);
        (Just(op), 0..12u64, 0..8u64, proptest::bool::weighted(0.35), answer).prop_map(
            |(op, invoked, took, open, answer)| {
                record(op, invoked, if open { OPEN } else { invoked + took }, answer)
            },
        )
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn the_search_agrees_with_brute_force(records in proptest::collection::vec(any_record(), 0..7)) {
        let expected = brute_force(&records, (1 << records.len()) - 1, &None);
        prop_assert_eq!(passes(&records), expected);
    }

    #[test]
    fn what_really_happened_in_some_order_passes(
        steps in proptest::collection::vec((any_op(), 0..5u64, 0..5u64, any::<bool>()), 0..60)
    ) {
        let mut state = None;
        let records: Vec<Record> = steps.iter().enumerate().map(|(n, (op, before, after, open))| {
            let at = 10 * n as u64 + 50;
            let answer = run(&mut state, op);
            let returned = if *open && n % 7 == 0 { OPEN } else { at + after * 10 };
            record(op.clone(), at - before * 10, returned, answer)
        }).collect();
        prop_assert!(passes(&records));
    }
}
