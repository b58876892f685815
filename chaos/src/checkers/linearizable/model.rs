//! One key of a sequential Redis: what each operation does to it, and whether its answer fits.

use crate::history::{Answer, Op, Record};
use std::collections::{HashMap, HashSet};

/// Text that no answer contains: all such texts are one, since nobody could tell them apart.
const UNREAD: u32 = 0;

/// A stored string.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Stored {
    /// A text, by its number in the model.
    Text(u32),
    /// A number, on which INCR works.
    Number(i64),
}

/// What a key holds.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum State {
    Absent,
    Is(Stored),
    /// Fields in order of their numbers; never empty.
    Hash(Vec<(u32, Stored)>),
}

/// An operation without its strings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Get,
    Set(Stored),
    SetNx(Stored),
    SetXx(Stored),
    GetSet(Stored),
    GetDel,
    Del,
    Incr,
    HSet(u32, Stored),
    HGet(u32),
}

/// An answer without its strings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reply {
    Done,
    Unmet,
    Int(i64),
    Value(Option<Stored>),
}

/// One operation of the key, in the order of invocation.
#[derive(Debug)]
pub(super) struct Operation {
    kind: Kind,
    answer: Option<Reply>,
    pub(super) invoked: u64,
    /// `None` for an open operation.
    pub(super) returned: Option<u64>,
    /// The open operation before this open one that does the same; it goes first.
    pub(super) twin: Option<usize>,
}

/// The operations of one key.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) operations: Vec<Operation>,
}

/// Numbers for texts and fields.
#[derive(Default)]
struct Names<'a> {
    read: HashSet<&'a str>,
    texts: HashMap<&'a str, u32>,
    fields: HashMap<&'a str, u32>,
}

impl<'a> Names<'a> {
    fn stored(&mut self, text: &'a str) -> Stored {
        // Only what INCR would accept and print the same way is a number.
        if let Ok(number) = text.parse::<i64>()
            && number.to_string() == text
        {
            return Stored::Number(number);
        }
        if !self.read.contains(text) {
            return Stored::Text(UNREAD);
        }
        let next = self.texts.len() as u32 + UNREAD + 1;
        Stored::Text(*self.texts.entry(text).or_insert(next))
    }

    fn field(&mut self, name: &'a str) -> u32 {
        let next = self.fields.len() as u32;
        *self.fields.entry(name).or_insert(next)
    }

    fn kind(&mut self, op: &'a Op) -> Kind {
        match op {
            Op::Get => Kind::Get,
            Op::Set(value) => Kind::Set(self.stored(value)),
            Op::SetNx(value) => Kind::SetNx(self.stored(value)),
            Op::SetXx(value) => Kind::SetXx(self.stored(value)),
            Op::GetSet(value) => Kind::GetSet(self.stored(value)),
            Op::GetDel => Kind::GetDel,
            Op::Del => Kind::Del,
            Op::Incr => Kind::Incr,
            Op::HSet(field, value) => Kind::HSet(self.field(field), self.stored(value)),
            Op::HGet(field) => Kind::HGet(self.field(field)),
        }
    }

    fn reply(&mut self, answer: &'a Answer) -> Reply {
        match answer {
            Answer::Done => Reply::Done,
            Answer::Unmet => Reply::Unmet,
            Answer::Int(number) => Reply::Int(*number),
            Answer::Value(value) => Reply::Value(value.as_ref().map(|value| self.stored(value))),
        }
    }
}

impl Model {
    /// `records` are those of one key, in the order of invocation.
    pub(super) fn new(records: &[&Record]) -> Model {
        let mut names = Names::default();
        for record in records {
            if let Some((_, Answer::Value(Some(value)))) = &record.returned {
                names.read.insert(value);
            }
        }
        let mut twins: HashMap<Kind, usize> = HashMap::new();
        let operations = records.iter().enumerate().map(|(number, record)| {
            let kind = names.kind(&record.op);
            let open = record.returned.is_none();
            Operation {
                kind,
                answer: record.returned.as_ref().map(|(_, answer)| names.reply(answer)),
                invoked: record.invoked,
                returned: record.returned.as_ref().map(|(at, _)| *at),
                twin: if open { twins.insert(kind, number) } else { None },
            }
        });
        Model { operations: operations.collect() }
    }

    /// What the key holds after an operation, or `None` where a Redis would have answered
    /// otherwise. An open operation fits whatever it would have answered, unless it would have
    /// been refused, which is as if it had never happened.
    pub(super) fn step(&self, state: &State, operation: usize) -> Option<State> {
        let Operation { kind, answer, .. } = &self.operations[operation];
        let (reply, next) = apply(state, *kind)?;
        answer.is_none_or(|answer| answer == reply).then_some(next)
    }
}

/// What Redis answers and keeps; `None` where it answers with an error.
fn apply(state: &State, kind: Kind) -> Option<(Reply, State)> {
    let text = match state {
        State::Absent => Some(None),
        State::Is(stored) => Some(Some(*stored)),
        State::Hash(_) => None,
    };
    let exists = *state != State::Absent;
    Some(match kind {
        Kind::Get => (Reply::Value(text?), state.clone()),
        Kind::Set(value) => (Reply::Done, State::Is(value)),
        Kind::SetNx(_) if exists => (Reply::Unmet, state.clone()),
        Kind::SetXx(_) if !exists => (Reply::Unmet, state.clone()),
        Kind::SetNx(value) | Kind::SetXx(value) => (Reply::Done, State::Is(value)),
        Kind::GetSet(value) => (Reply::Value(text?), State::Is(value)),
        Kind::GetDel => (Reply::Value(text?), State::Absent),
        Kind::Del => (Reply::Int(i64::from(exists)), State::Absent),
        Kind::Incr => {
            let number = match text? {
                None => 0,
                Some(Stored::Number(number)) => number,
                Some(Stored::Text(_)) => return None,
            };
            let number = number.checked_add(1)?;
            (Reply::Int(number), State::Is(Stored::Number(number)))
        }
        Kind::HSet(field, value) => put_field(state, field, value)?,
        Kind::HGet(field) => (Reply::Value(get_field(state, field)?), state.clone()),
    })
}

fn get_field(state: &State, field: u32) -> Option<Option<Stored>> {
    match state {
        State::Absent => Some(None),
        State::Is(_) => None,
        State::Hash(fields) => {
            Some(fields.iter().find(|(name, _)| *name == field).map(|(_, value)| *value))
        }
    }
}

fn put_field(state: &State, field: u32, value: Stored) -> Option<(Reply, State)> {
    let mut fields = match state {
        State::Absent => vec![],
        State::Is(_) => return None,
        State::Hash(fields) => fields.clone(),
    };
    let added = match fields.binary_search_by_key(&field, |(name, _)| *name) {
        Ok(at) => {
            fields[at].1 = value;
            0
        }
        Err(at) => {
            fields.insert(at, (field, value));
            1
        }
    };
    Some((Reply::Int(added), State::Hash(fields)))
}
