//! `acked_survives`: a write acknowledged in a cluster is readable there after any crash or
//! partition that leaves a quorum.
//!
//! Compares the acknowledged writes with what is read in the end, key by key, without a search: an
//! oracle besides `linearizable` that explains a loss in one sentence. It relies on each text being
//! written once in a history (numbers come from INCR). What it cannot decide it lets pass.

use super::{Finals, Violation, shown};
use crate::history::{Answer, History, Op, Record};
use std::collections::BTreeMap;

const INVARIANT: &str = "acked_survives";

/// Checks every key that was read in the end.
pub fn check(history: &History, finals: &Finals) -> Vec<Violation> {
    let mut cells: BTreeMap<(&str, Option<&str>), Vec<&Record>> = BTreeMap::new();
    let mut whole: BTreeMap<&str, Vec<&Record>> = BTreeMap::new();
    for record in &history.records {
        match &record.op {
            Op::HSet(field, _) | Op::HGet(field) => {
                cells.entry((&record.key, Some(field))).or_default().push(record);
            }
            // Concerns the value and all fields of the key.
            Op::Del | Op::GetDel => whole.entry(&record.key).or_default().push(record),
            _ => cells.entry((&record.key, None)).or_default().push(record),
        }
    }
    let mut violations = Vec::new();
    for ((key, field), found) in finals {
        let writes = cells.remove(&(key.as_str(), field.as_deref())).unwrap_or_default();
        let deletes = whole.get(key.as_str()).map_or(&[][..], Vec::as_slice);
        if let Some(what) = broken(&writes, deletes, found) {
            let name = field.as_ref().map_or(key.clone(), |field| format!("{key} field {field}"));
            violations.push(Violation { invariant: INVARIANT, what: format!("{name}: {what}") });
        }
    }
    violations
}

fn broken(writes: &[&Record], deletes: &[&Record], found: &Option<String>) -> Option<String> {
    if writes.iter().any(|record| record.op == Op::Incr) {
        return broken_counter(writes, deletes, found);
    }
    match found {
        Some(value) => broken_value(writes, deletes, value),
        None => missing(writes, deletes),
    }
}

/// The value read in the end must have been written, and not be covered by an acknowledged write
/// that began after it had returned.
fn broken_value(writes: &[&Record], deletes: &[&Record], value: &str) -> Option<String> {
    let source = writes
        .iter()
        .find(|record| written(&record.op) == Some(value) && record.took_effect() != Some(false));
    let Some(source) = source else { return Some(format!("reads `{value}`, which nobody wrote")) };
    let covered = writes
        .iter()
        .chain(deletes)
        .find(|record| record.took_effect() == Some(true) && record.invoked > source.returned_at());
    covered.map(|lost| format!("reads `{value}`, so the acknowledged {} is lost", told(lost)))
}

/// Nothing is read in the end: each acknowledged write needs a delete that may have come after it.
fn missing(writes: &[&Record], deletes: &[&Record]) -> Option<String> {
    let lost = writes
        .iter()
        .filter(|record| record.took_effect() == Some(true))
        .max_by_key(|record| record.invoked)?;
    let deleted = deletes
        .iter()
        .any(|delete| delete.took_effect() != Some(false) && delete.returned_at() > lost.invoked);
    (!deleted).then(|| format!("reads nothing, so the acknowledged {} is lost", told(lost)))
}

/// A key on which there were increments only ends between the acknowledged ones and all.
fn broken_counter(
    writes: &[&Record],
    deletes: &[&Record],
    found: &Option<String>,
) -> Option<String> {
    let only = writes.iter().all(|record| matches!(record.op, Op::Incr | Op::Get));
    if !only || deletes.iter().any(|delete| delete.took_effect() != Some(false)) {
        return None;
    }
    let increments = || writes.iter().filter(|record| record.op == Op::Incr);
    let acked = increments().filter(|record| record.returned.is_some()).count() as i64;
    let open = increments().count() as i64 - acked;
    let number = match found {
        Some(text) => match text.parse::<i64>() {
            Ok(number) => number,
            Err(_) => return Some(format!("a counter reads {}", shown(found))),
        },
        None => 0,
    };
    if !(acked..=acked + open).contains(&number) {
        return Some(format!("reads {number} after {acked} acknowledged and {open} open INCR"));
    }
    let highest = increments().filter_map(|record| match record.returned {
        Some((_, Answer::Int(value))) => Some(value),
        _ => None,
    });
    let highest = highest.max().unwrap_or(0);
    (highest > number).then(|| format!("reads {number}, but INCR has answered {highest}"))
}

fn written(op: &Op) -> Option<&str> {
    match op {
        Op::Set(value) | Op::SetNx(value) | Op::SetXx(value) | Op::GetSet(value) => Some(value),
        Op::HSet(_, value) => Some(value),
        Op::Get | Op::GetDel | Op::Del | Op::Incr | Op::HGet(_) => None,
    }
}

fn told(record: &Record) -> String {
    format!("{:?} of client {} at {} us", record.op, record.client, record.invoked / 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(op: Op, invoked: u64, returned: Option<(u64, Answer)>) -> Record {
        Record { client: 1, key: "k".into(), op, invoked, returned }
    }

    fn set(value: &str, invoked: u64, returned: Option<u64>) -> Record {
        let returned = returned.map(|at| (at, Answer::Done));
        record(Op::Set(value.into()), invoked, returned)
    }

    fn verdict(records: &[Record], found: Option<&str>) -> Option<String> {
        let finals = [(("k".to_owned(), None), found.map(str::to_owned))].into();
        let history = History { records: records.to_vec() };
        check(&history, &finals).pop().map(|violation| violation.what)
    }

    #[test]
    fn an_acknowledged_write_must_be_there() {
        let history = [set("a", 0, Some(1)), set("b", 2, Some(3))];
        assert_eq!(verdict(&history, Some("b")), None);
        let lost = verdict(&history, Some("a")).unwrap();
        assert!(lost.starts_with("k: reads `a`, so the acknowledged Set(\"b\")"), "{lost}");
        assert!(verdict(&history, None).unwrap().contains("reads nothing"));
        assert!(verdict(&history, Some("c")).unwrap().contains("nobody wrote"));
        let concurrent = [set("a", 0, Some(3)), set("b", 1, Some(2))];
        assert_eq!(verdict(&concurrent, Some("a")), None);
        assert_eq!(verdict(&concurrent, Some("b")), None);
    }

    #[test]
    fn an_open_write_may_take_effect_at_any_time() {
        let history = [set("a", 0, None), set("b", 5, Some(6))];
        assert_eq!(verdict(&history, Some("a")), None, "it may have come late");
        assert_eq!(verdict(&history, Some("b")), None);
        assert!(verdict(&history, None).is_some());
        let deleted = [set("a", 0, Some(1)), record(Op::Del, 2, None)];
        assert_eq!(verdict(&deleted, None), None);
        assert_eq!(verdict(&deleted, Some("a")), None);
    }

    #[test]
    fn what_was_deleted_stays_deleted() {
        let del = |removed| record(Op::Del, 2, Some((3, Answer::Int(removed))));
        assert_eq!(verdict(&[set("a", 0, Some(1)), del(1)], None), None);
        assert!(verdict(&[set("a", 0, Some(1)), del(1)], Some("a")).is_some());
        assert!(verdict(&[set("a", 0, Some(1)), del(0)], None).is_some());
        let earlier = record(Op::Del, 0, Some((1, Answer::Int(1))));
        assert!(verdict(&[earlier, set("a", 2, Some(3))], None).is_some());
    }

    #[test]
    fn a_refused_condition_is_no_write() {
        let refused = record(Op::SetNx("b".into()), 2, Some((3, Answer::Unmet)));
        assert_eq!(verdict(&[set("a", 0, Some(1)), refused.clone()], Some("a")), None);
        assert!(verdict(&[set("a", 0, Some(1)), refused], Some("b")).is_some());
    }

    #[test]
    fn counters_count_what_was_acknowledged() {
        let incr =
            |n: u64, known: bool| record(Op::Incr, n, known.then_some((n, Answer::Int(n as i64))));
        let history = [incr(1, true), incr(2, true), incr(3, false)];
        assert_eq!(verdict(&history, Some("2")), None);
        assert_eq!(verdict(&history, Some("3")), None);
        assert!(verdict(&history, Some("1")).is_some());
        assert!(verdict(&history, Some("4")).is_some());
        assert!(verdict(&history, None).is_some());
        assert!(verdict(&history, Some("x")).is_some());
    }

    #[test]
    fn fields_are_cells_and_a_delete_takes_them_all() {
        let put = |field: &str, value: &str, at: u64| {
            record(Op::HSet(field.into(), value.into()), at, Some((at + 1, Answer::Int(1))))
        };
        let del = record(Op::Del, 4, Some((5, Answer::Int(1))));
        let history =
            History { records: vec![put("f", "a", 0), put("g", "b", 2), del, put("g", "c", 6)] };
        let finals = |f: Option<&str>, g: Option<&str>| -> Finals {
            let cell = |field: &str| ("k".to_owned(), Some(field.to_owned()));
            [(cell("f"), f.map(str::to_owned)), (cell("g"), g.map(str::to_owned))].into()
        };
        assert_eq!(check(&history, &finals(None, Some("c"))), []);
        assert_eq!(check(&history, &finals(Some("a"), Some("b"))).len(), 2);
        assert_eq!(check(&history, &finals(None, None)).len(), 1);
    }
}
