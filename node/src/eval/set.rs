//! SET and GETEX with their options, SETEX and PSETEX.

use super::args::{Outcome, Stop, integer, is};
use super::strings::{replace, value_of};
use super::txn::{Key, Txn};
use crate::model::Type;
use crate::resp::Reply;
use bytes::Bytes;

/// In what an expiry is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    Seconds,
    Milliseconds,
}

/// What becomes of the expiry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Deadline<'a> {
    Unchanged,
    Keep,
    Persist,
    After(&'a Bytes, Unit),
    At(&'a Bytes, Unit),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Which {
    Set,
    GetEx,
}

struct Options<'a> {
    nx: bool,
    xx: bool,
    get: bool,
    /// Whether the value must be this one (IFEQ), or must not (IFNE).
    compare: Option<(bool, &'a Bytes)>,
    deadline: Deadline<'a>,
}

impl Options<'_> {
    fn has_condition(&self) -> bool {
        self.nx || self.xx || self.compare.is_some()
    }
}

/// As Redis does it: an option that excludes an earlier one is a syntax error, the same expiry
/// option again replaces the earlier one.
fn options(args: &[Bytes], which: Which) -> Result<Options<'_>, Stop> {
    let unchanged = Deadline::Unchanged;
    let mut found =
        Options { nx: false, xx: false, get: false, compare: None, deadline: unchanged };
    let set = which == Which::Set;
    let mut rest = args.iter();
    while let Some(option) = rest.next() {
        if set && is(option, "NX") && !found.xx && found.compare.is_none() {
            found.nx = true;
        } else if set && is(option, "XX") && !found.nx && found.compare.is_none() {
            found.xx = true;
        } else if set && (is(option, "IFEQ") || is(option, "IFNE")) && !found.has_condition() {
            let value = rest.next().ok_or_else(Stop::syntax)?;
            found.compare = Some((is(option, "IFEQ"), value));
        } else if set && is(option, "GET") {
            found.get = true;
        } else {
            let deadline = deadline(option, &mut rest, set).ok_or_else(Stop::syntax)?;
            let before = std::mem::replace(&mut found.deadline, deadline);
            let same = match (before, deadline) {
                (Deadline::Unchanged, _) => true,
                (Deadline::After(_, a), Deadline::After(_, b)) => a == b,
                (Deadline::At(_, a), Deadline::At(_, b)) => a == b,
                (before, deadline) => before == deadline,
            };
            if !same {
                return Err(Stop::syntax());
            }
        }
    }
    Ok(found)
}

pub(super) fn deadline<'a>(
    option: &[u8],
    rest: &mut std::slice::Iter<'a, Bytes>,
    set: bool,
) -> Option<Deadline<'a>> {
    Some(if set && is(option, "KEEPTTL") {
        Deadline::Keep
    } else if !set && is(option, "PERSIST") {
        Deadline::Persist
    } else if is(option, "EX") {
        Deadline::After(rest.next()?, Unit::Seconds)
    } else if is(option, "PX") {
        Deadline::After(rest.next()?, Unit::Milliseconds)
    } else if is(option, "EXAT") {
        Deadline::At(rest.next()?, Unit::Seconds)
    } else if is(option, "PXAT") {
        Deadline::At(rest.next()?, Unit::Milliseconds)
    } else {
        return None;
    })
}

/// The end that a deadline means, in milliseconds; none if it gives no time.
pub(super) fn end_of(deadline: Deadline<'_>, now_ms: u64, name: &str) -> Result<Option<u64>, Stop> {
    let (arg, unit, base) = match deadline {
        Deadline::After(arg, unit) => (arg, unit, now_ms),
        Deadline::At(arg, unit) => (arg, unit, 0),
        _ => return Ok(None),
    };
    let given = integer(arg)?;
    let scale = if unit == Unit::Seconds { 1000 } else { 1 };
    let end = given.checked_mul(scale).and_then(|ms| ms.checked_add_unsigned(base));
    match end {
        Some(end) if given > 0 => Ok(Some(end as u64)),
        _ => Err(Stop::invalid_expire(name)),
    }
}

pub(super) fn set(txn: &mut Txn<'_>, args: &[Bytes]) -> Outcome {
    let options = options(&args[3..], Which::Set)?;
    let end = end_of(options.deadline, txn.context.now_ms, "set")?;
    let mut key = txn.load(&args[1])?;
    let reads = options.get || options.compare.is_some();
    let old = if reads { value_of(&key)? } else { None };
    // What does not exist differs from every value.
    let differs =
        options.compare.is_some_and(|(equal, value)| (old.as_ref() == Some(value)) != equal);
    let answer = |done: bool| match options.get {
        true => Reply::bulk_or_null(old),
        false if done => Reply::Ok,
        false => Reply::Null,
    };
    if differs || (options.nx && key.ty.is_some()) || (options.xx && key.ty.is_none()) {
        return Ok(answer(false));
    }
    if options.deadline == Deadline::Keep {
        replace_keeping_expiry(txn, &mut key, &args[2]);
        txn.save(key);
    } else {
        set_with_end(txn, key, &args[2], end);
    }
    Ok(answer(true))
}

/// An end in the past makes the write a delete.
pub(super) fn set_with_end(txn: &mut Txn<'_>, mut key: Key, value: &Bytes, end: Option<u64>) {
    match end {
        Some(end) if end <= txn.context.now_ms => {
            if key.ty.is_some() {
                txn.delete(key);
            }
        }
        end => {
            replace(txn, &mut key, value);
            if let Some(end) = end {
                txn.set_expiry(&mut key, end);
            }
            txn.save(key);
        }
    }
}

/// A string keeps its own expiry register, so that another cluster's later EXPIRE still counts.
/// Over another type the floor voids it, and it is set anew.
fn replace_keeping_expiry(txn: &mut Txn<'_>, key: &mut Key, value: &Bytes) {
    if key.ty == Some(Type::String) {
        txn.claim(key, Type::String);
        txn.write_string(key, value.clone());
        return;
    }
    let end = key.ty.and_then(|_| key.head.deadline(txn.context.now_ms));
    replace(txn, key, value);
    if let Some(end) = end {
        txn.set_expiry(key, end);
    }
}

pub(super) fn setex(txn: &mut Txn<'_>, args: &[Bytes], unit: Unit, name: &str) -> Outcome {
    let end = end_of(Deadline::After(&args[2], unit), txn.context.now_ms, name)?;
    let key = txn.load(&args[1])?;
    set_with_end(txn, key, &args[3], end);
    Ok(Reply::Ok)
}

pub(super) fn getex(txn: &mut Txn<'_>, args: &[Bytes]) -> Outcome {
    let options = options(&args[2..], Which::GetEx)?;
    let mut key = txn.load(&args[1])?;
    let Some(value) = value_of(&key)? else { return Ok(Reply::Null) };
    let now = txn.context.now_ms;
    let end = end_of(options.deadline, now, "getex")?;
    match (options.deadline, end) {
        (_, Some(end)) if end <= now => txn.delete(key),
        (_, Some(end)) => {
            txn.set_expiry(&mut key, end);
            txn.save(key);
        }
        (Deadline::Persist, None) if key.head.deadline(now).is_some() => {
            txn.set_expiry(&mut key, 0);
            txn.save(key);
        }
        _ => {}
    }
    Ok(Reply::Bulk(value))
}
