//! What a command must do where it is carried out: its answer, and what it says of the key.
//!
//! One stamp for all of it. What a command says is what it means, also when that changes nothing:
//! a value that is set once more has a later stamp. A condition that fails says nothing.

use super::ordered;
use super::plain::{
    Claim, Counter, Element, Expiry, Floor, Key, Kind, NOBODY, ONLY, Register, Reset, Seen, Stamp,
    Sum, Text, integer,
};
use std::collections::BTreeMap;

/// Where and when a command is carried out.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// Its stamp.
    pub stamp: Stamp,
    /// The group's clock, in milliseconds.
    pub now: u64,
    /// Who counts here.
    pub counter: Counter,
    /// Positions of a list that its entry names and nobody named before, in order.
    pub fresh: &'a [Text],
}

/// What a client is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Done.
    Ok,
    /// Nothing.
    Null,
    /// A number.
    Int(i64),
    /// A value.
    Bulk(Text),
    /// The code of an error.
    Error(Text),
    /// There is no rule for such a command.
    NoRule,
}

/// What came of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// What it says of the key; empty if nothing.
    pub said: Key,
    /// What the client is told.
    pub answer: Answer,
}

pub(super) fn told(answer: Answer) -> Outcome {
    Outcome { said: Key::default(), answer }
}

pub(super) fn error(code: &str) -> Outcome {
    told(Answer::Error(code.into()))
}

/// Carries out a command on a key.
pub fn carry_out(before: &Key, words: &[&[u8]], place: Place<'_>) -> Outcome {
    let seen = before.seen(place.now);
    let writer = Writer { before, place, seen, said: Key::default() };
    let name = String::from_utf8_lossy(words[0]).to_uppercase();
    let number = |at: usize| words.get(at).and_then(|word| integer(word));
    match (name.as_str(), words.len()) {
        ("SET", 3..) => set(writer, words),
        ("INCRBY", 3) => increment(writer, Kind::Text, ONLY, number(2)),
        ("HINCRBY", 4) => increment(writer, Kind::Hash, words[2], number(3)),
        ("APPEND", 3) => append(writer, words[2]),
        ("GETDEL", 2) => get_and_delete(writer),
        ("GETEX", 4) if words[2] == b"PXAT" => get_and_end(writer, number(3)),
        ("DEL", 2) => delete(writer),
        ("HSET", 4..) if words.len().is_multiple_of(2) => {
            let pairs = words[2..].chunks_exact(2).map(|pair| (pair[0], pair[1]));
            put(writer, Kind::Hash, pairs)
        }
        ("SADD", 3..) => {
            put(writer, Kind::Set, words[2..].iter().map(|member| (*member, &b""[..])))
        }
        ("HDEL", 3..) => remove(writer, Kind::Hash, &words[2..]),
        ("SREM", 3..) => remove(writer, Kind::Set, &words[2..]),
        ("SUNIONSTORE", 3) if words[1] == words[2] => store_again(writer),
        ("PEXPIREAT", 3) => expire(writer, number(2)),
        ("PERSIST", 2) => persist(writer),
        _ => ordered::carry_out(writer, &name, words),
    }
}

/// A command that is being carried out.
pub(super) struct Writer<'a> {
    before: &'a Key,
    pub(super) place: Place<'a>,
    /// Of what was there before.
    pub(super) seen: Seen,
    said: Key,
}

impl Writer<'_> {
    pub(super) fn done(self, answer: Answer) -> Outcome {
        Outcome { said: self.said, answer }
    }

    pub(super) fn exists(&self) -> bool {
        self.seen.kind.is_some()
    }

    pub(super) fn is_other_than(&self, kind: Kind) -> bool {
        self.seen.kind.is_some_and(|is| is != kind)
    }

    pub(super) fn value(&self, name: &[u8]) -> Option<&Text> {
        self.seen.values.get(name)
    }

    /// A delete of what is there. What is said besides stays: it has the same stamp.
    fn floor(&mut self) {
        self.said.floor = Floor::below(self.place.stamp);
    }

    /// A value of this kind is written. If that creates the key, it must not get the end of one
    /// that was emptied before.
    pub(super) fn claim(&mut self, kind: Kind, creates: bool) {
        let Place { stamp, now, .. } = self.place;
        self.said.claim = Some(Claim { stamp, kind });
        let floor = self.before.floor.max(self.said.floor);
        let there = self.before.expiry.filter(|e| e.kind == kind && !floor.hides(e.stamp));
        if let Some(old) = there.filter(|old| creates && old.end > now) {
            self.said.expiry = Some(Expiry { stamp, kind, end: 0, low: old.low });
        }
    }

    /// The register of an element, over all sums that are there.
    pub(super) fn register(&mut self, kind: Kind, name: &[u8], value: Option<Text>) {
        let stamp = self.place.stamp;
        let name = (kind, name.to_vec());
        let sums = self.before.elements.get(&name).map(|element| &element.sums);
        let resets = sums
            .into_iter()
            .flatten()
            .map(|(who, sum)| (*who, Reset { stamp: sum.stamp, sum: sum.sum, by: stamp }));
        let resets: BTreeMap<Counter, Reset> = resets.collect();
        let register = Some(Register { stamp, value });
        self.said.elements.insert(name, Element { register, resets, ..Element::default() });
    }

    /// The removal of an element that no later value brings back.
    pub(super) fn remove_for_good(&mut self, name: &[u8]) {
        let stamp = self.place.stamp;
        let resets = BTreeMap::from([(NOBODY, Reset { stamp, sum: 0, by: stamp })]);
        let register = Some(Register { stamp, value: None });
        let gone = Element { register, resets, ..Element::default() };
        self.said.elements.insert((Kind::List, name.to_vec()), gone);
    }

    /// The own sum of an element: it goes on, or begins anew if nothing of it is left.
    fn add(&mut self, kind: Kind, name: &[u8], amount: i64) {
        let Place { stamp, now, counter, .. } = self.place;
        let floor = self.before.with(&self.said).floor_at(now);
        let name = (kind, name.to_vec());
        let old = self.before.elements.get(&name);
        let goes_on = old.filter(|element| element.adds(counter, floor).is_some());
        let sum = match goes_on.and_then(|element| element.sums.get(&counter)) {
            Some(old) => Sum { stamp, sum: old.sum + i128::from(amount), ..*old },
            None => Sum { start: stamp, stamp, sum: i128::from(amount) },
        };
        let sums = BTreeMap::from([(counter, sum)]);
        self.said.elements.insert(name, Element { sums, ..Element::default() });
    }

    /// The key, of this kind, ends at `end`, or never if that is 0.
    fn ends(&mut self, kind: Kind, end: u64) {
        let Place { stamp, now, .. } = self.place;
        let floor = self.before.floor.max(self.said.floor);
        let counts = self.before.counting_expiry().filter(|old| !floor.hides(old.stamp));
        let low = counts.map_or(0, |old| {
            let passed = if old.end <= now { old.end } else { 0 };
            passed.max(old.low)
        });
        self.said.expiry = Some(Expiry { stamp, kind, end, low });
    }

    /// The key ends, now if that time has come.
    fn ends_at(&mut self, kind: Kind, end: i64) {
        match u64::try_from(end) {
            Ok(end) if end > self.place.now => self.ends(kind, end),
            _ => self.floor(),
        }
    }
}

fn set(mut w: Writer<'_>, words: &[&[u8]]) -> Outcome {
    let (mut only_new, mut keeps, mut end) = (false, false, None);
    match &words[3..] {
        [] => {}
        [b"NX"] => only_new = true,
        [b"KEEPTTL"] => keeps = true,
        [b"PXAT", at] => match integer(at) {
            Some(at) if at > 0 => end = Some(at as u64),
            _ => return error("ERR"),
        },
        _ => return told(Answer::NoRule),
    }
    if only_new && w.exists() {
        return told(Answer::Null);
    }
    let value = Some(words[2].to_vec());
    if keeps && w.seen.kind == Some(Kind::Text) {
        w.claim(Kind::Text, false);
        w.register(Kind::Text, ONLY, value);
        return w.done(Answer::Ok);
    }
    if end.is_some_and(|end| end <= w.place.now) {
        if w.exists() {
            w.floor();
        }
        return w.done(Answer::Ok);
    }
    w.floor();
    w.claim(Kind::Text, true);
    w.register(Kind::Text, ONLY, value);
    if let Some(end) = if keeps { w.seen.end } else { end } {
        w.ends(Kind::Text, end);
    }
    w.done(Answer::Ok)
}

fn increment(mut w: Writer<'_>, kind: Kind, name: &[u8], amount: Option<i64>) -> Outcome {
    if w.is_other_than(kind) {
        return error("WRONGTYPE");
    }
    let old = match w.value(name) {
        None => Some(0),
        Some(value) => integer(value),
    };
    let (Some(old), Some(amount)) = (old, amount) else { return error("ERR") };
    let Some(new) = old.checked_add(amount) else { return error("ERR") };
    let creates = !w.exists();
    w.claim(kind, creates);
    w.add(kind, name, amount);
    w.done(Answer::Int(new))
}

fn append(mut w: Writer<'_>, tail: &[u8]) -> Outcome {
    if w.is_other_than(Kind::Text) {
        return error("WRONGTYPE");
    }
    let mut value = w.value(ONLY).cloned().unwrap_or_default();
    value.extend_from_slice(tail);
    let len = value.len() as i64;
    let creates = !w.exists();
    w.claim(Kind::Text, creates);
    w.register(Kind::Text, ONLY, Some(value));
    w.done(Answer::Int(len))
}

fn delete(mut w: Writer<'_>) -> Outcome {
    let exists = w.exists();
    if exists {
        w.floor();
    }
    w.done(Answer::Int(i64::from(exists)))
}

fn get_and_delete(mut w: Writer<'_>) -> Outcome {
    if w.is_other_than(Kind::Text) {
        return error("WRONGTYPE");
    }
    let Some(value) = w.value(ONLY).cloned() else { return told(Answer::Null) };
    w.floor();
    w.done(Answer::Bulk(value))
}

fn get_and_end(mut w: Writer<'_>, end: Option<i64>) -> Outcome {
    let Some(end) = end.filter(|end| *end > 0) else { return error("ERR") };
    if w.is_other_than(Kind::Text) {
        return error("WRONGTYPE");
    }
    let Some(value) = w.value(ONLY).cloned() else { return told(Answer::Null) };
    w.ends_at(Kind::Text, end);
    w.done(Answer::Bulk(value))
}

/// Fields with values, or members with empty ones.
pub(super) fn put<'a>(
    mut w: Writer<'_>,
    kind: Kind,
    elements: impl Iterator<Item = (&'a [u8], &'a [u8])>,
) -> Outcome {
    if w.is_other_than(kind) {
        return error("WRONGTYPE");
    }
    let creates = !w.exists();
    w.claim(kind, creates);
    let mut created = 0;
    for (name, value) in elements {
        let again = w.said.elements.contains_key(&(kind, name.to_vec()));
        created += i64::from(w.value(name).is_none() && !again);
        w.register(kind, name, Some(value.to_vec()));
    }
    w.done(Answer::Int(created))
}

/// A set that is stored over itself: a delete, and all members anew.
fn store_again(mut w: Writer<'_>) -> Outcome {
    if w.is_other_than(Kind::Set) {
        return error("WRONGTYPE");
    }
    let members: Vec<Text> = w.seen.values.keys().cloned().collect();
    if members.is_empty() {
        return told(Answer::Int(0));
    }
    w.floor();
    w.claim(Kind::Set, true);
    for member in &members {
        w.register(Kind::Set, member, Some(Vec::new()));
    }
    w.done(Answer::Int(members.len() as i64))
}

pub(super) fn remove(mut w: Writer<'_>, kind: Kind, names: &[&[u8]]) -> Outcome {
    if w.is_other_than(kind) {
        return error("WRONGTYPE");
    }
    let mut removed = 0;
    for name in names {
        let again = w.said.elements.contains_key(&(kind, name.to_vec()));
        if w.value(name).is_some() && !again {
            w.register(kind, name, None);
            removed += 1;
        }
    }
    w.done(Answer::Int(removed))
}

fn expire(mut w: Writer<'_>, end: Option<i64>) -> Outcome {
    let Some(end) = end else { return error("ERR") };
    let Some(kind) = w.seen.kind else { return told(Answer::Int(0)) };
    w.ends_at(kind, end);
    w.done(Answer::Int(1))
}

fn persist(mut w: Writer<'_>) -> Outcome {
    let (Some(kind), Some(_)) = (w.seen.kind, w.seen.end) else { return told(Answer::Int(0)) };
    w.ends(kind, 0);
    w.done(Answer::Int(1))
}
