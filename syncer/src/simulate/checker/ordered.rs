//! What commands on sorted sets and lists must do.
//!
//! Of a list's positions the rules only say what they must be like: new, and where the element goes.
//! What is to be seen decides that, so they are taken from the entry and checked.

use super::local::{Answer, Outcome, Writer, error, put, remove, told};
use super::plain::{Kind, Text, integer};

/// A score as the value of a member: a whole number here.
fn score(number: i64) -> Text {
    (number as f64).to_bits().to_be_bytes().to_vec()
}

/// The number in the value of a member.
pub fn shown(value: &[u8]) -> f64 {
    f64::from_bits(u64::from_be_bytes(value.try_into().expect("a score has eight bytes")))
}

/// A command on a sorted set or a list, if there is a rule for it.
pub fn carry_out(writer: Writer<'_>, name: &str, words: &[&[u8]]) -> Outcome {
    let number = |at: usize| words.get(at).and_then(|word| integer(word)).unwrap_or_default();
    match (name, words.len()) {
        ("ZADD", 4..) if words.len().is_multiple_of(2) => {
            let scores: Vec<Text> =
                (2..words.len()).step_by(2).map(|at| score(number(at))).collect();
            let members = words[2..].chunks_exact(2).map(|pair| pair[1]);
            put(writer, Kind::Scores, members.zip(scores.iter().map(|score| &score[..])))
        }
        ("ZINCRBY", 4) => add_to_score(writer, number(2), words[3]),
        ("ZREM", 3..) => remove(writer, Kind::Scores, &words[2..]),
        ("RPUSH", 3..) => push(writer, &words[2..], false),
        ("LPUSH", 3..) => push(writer, &words[2..], true),
        ("LPOP", 2) => pop(writer, true),
        ("RPOP", 2) => pop(writer, false),
        ("LSET", 4) => set(writer, number(2), words[3]),
        ("LREM", 4) if words[2] == b"0" => remove_values(writer, words[3]),
        ("LINSERT", 5) if words[2] == b"BEFORE" => insert_before(writer, words[3], words[4]),
        _ => told(Answer::NoRule),
    }
}

fn add_to_score(mut w: Writer<'_>, amount: i64, member: &[u8]) -> Outcome {
    if w.is_other_than(Kind::Scores) {
        return error("WRONGTYPE");
    }
    let sum = w.value(member).map_or(0.0, |value| shown(value)) as i64 + amount;
    let creates = !w.exists();
    w.claim(Kind::Scores, creates);
    w.register(Kind::Scores, member, Some(score(sum)));
    w.done(Answer::Bulk(sum.to_string().into_bytes()))
}

/// Positions of what is seen, in order.
fn positions(w: &Writer<'_>) -> Vec<Text> {
    w.seen.values.keys().cloned().collect()
}

/// A position that the entry should have named and did not.
fn nowhere() -> Text {
    b"a new position at its place".to_vec()
}

fn push(mut w: Writer<'_>, values: &[&[u8]], left: bool) -> Outcome {
    if w.is_other_than(Kind::List) {
        return error("WRONGTYPE");
    }
    let (there, mut fresh) = (positions(&w), w.place.fresh.to_vec());
    let at_its_end = match left {
        true => there.first().is_none_or(|first| fresh.iter().all(|new| new < first)),
        false => there.last().is_none_or(|last| fresh.iter().all(|new| new > last)),
    };
    if left {
        fresh.reverse();
    }
    let right_number = fresh.len() == values.len();
    let creates = !w.exists();
    w.claim(Kind::List, creates);
    for (at, value) in values.iter().enumerate() {
        let position = fresh.get(at).filter(|_| at_its_end && right_number);
        let position = position.cloned().unwrap_or_else(nowhere);
        w.register(Kind::List, &position, Some(value.to_vec()));
    }
    w.done(Answer::Int((there.len() + values.len()) as i64))
}

fn pop(mut w: Writer<'_>, left: bool) -> Outcome {
    if w.is_other_than(Kind::List) {
        return error("WRONGTYPE");
    }
    let there = positions(&w);
    let position = if left { there.first() } else { there.last() };
    let Some(position) = position else { return told(Answer::Null) };
    let value = w.value(position).cloned().unwrap_or_default();
    w.remove_for_good(position);
    w.done(Answer::Bulk(value))
}

fn set(mut w: Writer<'_>, index: i64, value: &[u8]) -> Outcome {
    if w.is_other_than(Kind::List) {
        return error("WRONGTYPE");
    }
    let there = positions(&w);
    let at = if index < 0 { there.len() as i64 + index } else { index };
    let position = usize::try_from(at).ok().and_then(|at| there.get(at));
    let Some(position) = position else { return error("ERR") };
    w.claim(Kind::List, false);
    w.register(Kind::List, position, Some(value.to_vec()));
    w.done(Answer::Ok)
}

fn remove_values(mut w: Writer<'_>, value: &[u8]) -> Outcome {
    if w.is_other_than(Kind::List) {
        return error("WRONGTYPE");
    }
    let found = positions(&w);
    let found = found.iter().filter(|position| w.value(position).is_some_and(|v| v == value));
    let found: Vec<&Text> = found.collect();
    for position in &found {
        w.remove_for_good(position);
    }
    w.done(Answer::Int(found.len() as i64))
}

fn insert_before(mut w: Writer<'_>, pivot: &[u8], value: &[u8]) -> Outcome {
    if w.is_other_than(Kind::List) {
        return error("WRONGTYPE");
    }
    let there = positions(&w);
    let Some(at) = there.iter().position(|p| w.value(p).is_some_and(|v| v == pivot)) else {
        return told(Answer::Int(if there.is_empty() { 0 } else { -1 }));
    };
    let fits = |new: &&Text| **new < there[at] && (at == 0 || **new > there[at - 1]);
    let position = w.place.fresh.first().filter(fits).cloned().unwrap_or_else(nowhere);
    w.claim(Kind::List, false);
    w.register(Kind::List, &position, Some(value.to_vec()));
    w.done(Answer::Int(there.len() as i64 + 1))
}
