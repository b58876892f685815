//! Commands that write only if a value is what the client thinks it is, and the conditions of TXN.
//!
//! Names and answers are those that exist: CAS and CAD of Kvrocks and Tair, DELIFEQ of Valkey 9,
//! DELEX and SET's IFEQ and IFNE of Redis 8.4. The comparison and the write are one command, decided
//! once by the group's leader.

use super::args::{Outcome, Stop, is};
use super::set::{Deadline, deadline, end_of, set_with_end};
use super::strings::value_of;
use super::txn::Txn;
use crate::model::Type;
use crate::resp::Reply;
use bytes::Bytes;
use std::io;

/// CAS and CAD: there is no such key.
const NO_KEY: i64 = -1;

/// How a condition of TXN looks at a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// The key exists, whatever it holds.
    Exists,
    /// The key does not exist.
    NotExists,
    /// The value is this one.
    Eq,
    /// The value is another one, or there is none.
    Ne,
    /// The value stands behind this one, byte by byte.
    Gt,
    /// The value is this one or stands behind it.
    Ge,
    /// The value stands before this one.
    Lt,
    /// The value is this one or stands before it.
    Le,
}

impl Comparison {
    /// All of them, by the words that clients send. A place never gets another meaning: it is the
    /// number on the wire.
    pub const ALL: [(&'static str, Comparison); 8] = [
        ("EXISTS", Comparison::Exists),
        ("NOTEXISTS", Comparison::NotExists),
        ("EQ", Comparison::Eq),
        ("NE", Comparison::Ne),
        ("GT", Comparison::Gt),
        ("GE", Comparison::Ge),
        ("LT", Comparison::Lt),
        ("LE", Comparison::Le),
    ];

    /// The comparison of that word, in upper or lower case.
    pub fn of(word: &[u8]) -> Option<Comparison> {
        let mut all = Comparison::ALL.iter();
        all.find(|(name, _)| is(word, name)).map(|(_, comparison)| *comparison)
    }

    /// Whether it compares with a value.
    pub fn takes_value(self) -> bool {
        !matches!(self, Comparison::Exists | Comparison::NotExists)
    }
}

/// One condition of TXN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// The key that it looks at.
    pub key: Bytes,
    /// How.
    pub comparison: Comparison,
    /// What the value is compared with; empty if it is not.
    pub value: Bytes,
}

/// Whether a condition is met. The inner error is an answer: the key holds no string.
pub fn is_met(txn: &Txn<'_>, condition: &Condition) -> io::Result<Result<bool, Reply>> {
    let key = txn.load(&condition.key)?;
    match condition.comparison {
        Comparison::Exists => return Ok(Ok(key.ty.is_some())),
        Comparison::NotExists => return Ok(Ok(key.ty.is_none())),
        _ => {}
    }
    let value = match value_of(&key) {
        Ok(value) => value,
        Err(Stop::Reply(reply)) => return Ok(Err(reply)),
        Err(Stop::Io(error)) => return Err(error),
    };
    let wanted = &condition.value;
    Ok(Ok(match (condition.comparison, value) {
        (Comparison::Ne, value) => value.as_ref() != Some(wanted),
        (_, None) => false,
        (Comparison::Eq, Some(value)) => value == wanted,
        (Comparison::Gt, Some(value)) => value > wanted,
        (Comparison::Ge, Some(value)) => value >= wanted,
        (Comparison::Lt, Some(value)) => value < wanted,
        (Comparison::Le, Some(value)) => value <= wanted,
        (Comparison::Exists | Comparison::NotExists, Some(_)) => unreachable!("answered above"),
    }))
}

/// When a visible key will end, in milliseconds; 0: never, or there is none.
pub fn end_of_key(txn: &Txn<'_>, key: &Bytes) -> io::Result<u64> {
    let key = txn.load(key)?;
    let end = key.ty.and_then(|_| key.head.deadline(txn.context.now_ms));
    Ok(end.unwrap_or(0))
}

/// The type of a visible key.
pub fn type_of_key(txn: &Txn<'_>, key: &Bytes) -> io::Result<Option<Type>> {
    Ok(txn.load(key)?.ty)
}

/// `CAS key old new`, with an expiry as SET has it: 1 done, 0 it holds another value, -1 no key.
pub(super) fn cas(txn: &mut Txn<'_>, args: &[Bytes]) -> Outcome {
    let mut rest = args[4..].iter();
    let given = match rest.next() {
        Some(option) => match deadline(option, &mut rest, true) {
            Some(given) if given != Deadline::Keep && rest.next().is_none() => given,
            _ => return Err(Stop::syntax()),
        },
        None => Deadline::Unchanged,
    };
    let end = end_of(given, txn.context.now_ms, "cas")?;
    let key = txn.load(&args[1])?;
    let Some(value) = value_of(&key)? else { return Ok(Reply::Int(NO_KEY)) };
    if value != args[2] {
        return Ok(Reply::Int(0));
    }
    set_with_end(txn, key, &args[3], end);
    Ok(Reply::Int(1))
}

/// `CAD key value`: 1 deleted, 0 it holds another value, -1 no key.
pub(super) fn cad(txn: &mut Txn<'_>, args: &[Bytes]) -> Outcome {
    Ok(match delete_if(txn, &args[1], |value| *value == args[2])? {
        Some(deleted) => Reply::Int(i64::from(deleted)),
        None => Reply::Int(NO_KEY),
    })
}

/// `DELIFEQ key value`: 1 deleted, else 0.
pub(super) fn delifeq(txn: &mut Txn<'_>, args: &[Bytes]) -> Outcome {
    let deleted = delete_if(txn, &args[1], |value| *value == args[2])?;
    Ok(Reply::Int(i64::from(deleted == Some(true))))
}

/// `DELEX key [IFEQ value | IFNE value]`: 1 deleted, else 0. Without a condition a key of any type.
pub(super) fn delex(txn: &mut Txn<'_>, args: &[Bytes]) -> Outcome {
    let deleted = match &args[2..] {
        [] => return super::keyspace::del(txn, args),
        [option, wanted] if is(option, "IFEQ") => delete_if(txn, &args[1], |v| v == wanted)?,
        [option, wanted] if is(option, "IFNE") => delete_if(txn, &args[1], |v| v != wanted)?,
        _ => return Err(Stop::syntax()),
    };
    Ok(Reply::Int(i64::from(deleted == Some(true))))
}

/// Deletes a string whose value fits; whether it did, or none if there is no such key.
fn delete_if(
    txn: &mut Txn<'_>,
    name: &Bytes,
    fits: impl FnOnce(&Bytes) -> bool,
) -> Result<Option<bool>, Stop> {
    let key = txn.load(name)?;
    let Some(value) = value_of(&key)? else { return Ok(None) };
    let fits = fits(&value);
    if fits {
        txn.delete(key);
    }
    Ok(Some(fits))
}
