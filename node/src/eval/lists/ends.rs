//! Pushes, pops and moves.

use super::super::args::{Outcome, Stop};
use super::super::blocking::{keys_before_timeout, timeout};
use super::super::collection::{Budget, first_there, mpop, positive};
use super::super::txn::{Key, Txn};
use super::{Side, edge, load, load_to_write, position};
use crate::engine::order::Span;
use crate::model::Type;
use crate::resp::Reply;
use bytes::Bytes;

/// Puts elements at an end of a list, one before or behind the other.
fn put(txn: &mut Txn<'_>, key: &mut Key, side: Side, values: &[Bytes]) -> Result<(), Stop> {
    let mut last = match key.ty {
        Some(_) => edge(txn, key, side)?,
        None => None,
    };
    txn.claim(key, Type::List);
    for value in values {
        let position = match side {
            Side::Left => position::before(last.as_deref(), txn.stamp()),
            Side::Right => position::behind(last.as_deref(), txn.stamp()),
        };
        txn.set_field(key, &position, value.clone())?;
        last = Some(position);
    }
    Ok(())
}

/// LPUSH and RPUSH, or LPUSHX and RPUSHX if the key must exist.
pub(in super::super) fn push(
    txn: &mut Txn<'_>,
    args: &[Bytes],
    side: Side,
    must_exist: bool,
) -> Outcome {
    let mut key = load_to_write(txn, &args[1])?;
    if must_exist && key.ty.is_none() {
        return Ok(Reply::Int(0));
    }
    put(txn, &mut key, side, &args[2..])?;
    let len = txn.count(&key)?;
    txn.save(key);
    Ok(Reply::Int(len as i64))
}

/// Takes up to so many elements from an end of a visible list, which is left to be saved.
fn take(txn: &mut Txn<'_>, key: &mut Key, side: Side, count: u64) -> Result<Vec<Bytes>, Stop> {
    let (mut taken, mut budget) = (Vec::new(), Budget::write(key));
    let mut reply = Budget::reply();
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    for entry in txn.in_order(key, &Span::ALL, side == Side::Right).take(count) {
        let position = entry?.place;
        let value = txn.field(key, &position)?.unwrap_or_default();
        budget.take(position.len())?;
        reply.take(value.len())?;
        taken.push((position, value));
    }
    let mut values = Vec::with_capacity(taken.len());
    for (position, value) in taken {
        txn.remove_field(key, &position)?;
        values.push(value);
    }
    Ok(values)
}

/// LPOP and RPOP.
pub(in super::super) fn pop(txn: &mut Txn<'_>, args: &[Bytes], side: Side, name: &str) -> Outcome {
    if args.len() > 3 {
        return Err(Stop::arity(name));
    }
    let count = args.get(2).map(|count| positive(count)).transpose()?;
    let mut key = load_to_write(txn, &args[1])?;
    if key.ty.is_none() {
        return Ok(count.map_or(Reply::Null, |_| Reply::NullArray));
    }
    let values = take(txn, &mut key, side, count.unwrap_or(1))?;
    if !values.is_empty() {
        txn.save_or_drop(key)?;
    }
    Ok(match count {
        None => Reply::bulk_or_null(values.into_iter().next()),
        Some(_) => Reply::bulks(values),
    })
}

/// Takes up to so many elements from an end of the first of the keys that exists: which one, and they.
fn take_of_first<'n>(
    txn: &mut Txn<'_>,
    names: &'n [Bytes],
    side: Side,
    count: u64,
) -> Result<Option<(&'n Bytes, Vec<Bytes>)>, Stop> {
    let Some((name, mut key)) = first_there(txn, names, Type::List)? else { return Ok(None) };
    let values = take(txn, &mut key, side, count)?;
    txn.save_or_drop(key)?;
    Ok(Some((name, values)))
}

/// LMPOP, by what stands behind its name; BLMPOP if it has a timeout.
pub(in super::super) fn lmpop(
    txn: &mut Txn<'_>,
    args: &[Bytes],
    max_wait: Option<&Bytes>,
) -> Outcome {
    let (names, side, count) = mpop(args, max_wait, Side::parse)?;
    Ok(match take_of_first(txn, names, side, count)? {
        Some((name, values)) => Reply::Array(vec![Reply::Bulk(name.clone()), Reply::bulks(values)]),
        None => Reply::NullArray,
    })
}

/// BLPOP and BRPOP.
pub(in super::super) fn blpop(txn: &mut Txn<'_>, args: &[Bytes], side: Side) -> Outcome {
    let names = keys_before_timeout(&args[1..])?;
    Ok(match take_of_first(txn, names, side, 1)? {
        Some((name, values)) => Reply::bulks(std::iter::once(name.clone()).chain(values)),
        None => Reply::NullArray,
    })
}

/// LMOVE, and BLMOVE if it has a timeout.
pub(in super::super) fn lmove(txn: &mut Txn<'_>, args: &[Bytes]) -> Outcome {
    let (from, to) = (Side::parse(&args[3])?, Side::parse(&args[4])?);
    if let Some(max_wait) = args.get(5) {
        timeout(max_wait)?;
    }
    move_one(txn, &args[1], &args[2], from, to)
}

/// RPOPLPUSH, and BRPOPLPUSH if it has a timeout.
pub(in super::super) fn rpoplpush(txn: &mut Txn<'_>, args: &[Bytes]) -> Outcome {
    if let Some(max_wait) = args.get(3) {
        timeout(max_wait)?;
    }
    move_one(txn, &args[1], &args[2], Side::Right, Side::Left)
}

fn move_one(txn: &mut Txn<'_>, from: &Bytes, to: &Bytes, out: Side, into: Side) -> Outcome {
    let mut source = load_to_write(txn, from)?;
    if source.ty.is_none() {
        return Ok(Reply::Null);
    }
    load(txn, to)?; // a wrong type is told before anything is written
    let values = take(txn, &mut source, out, 1)?;
    if from == to {
        put(txn, &mut source, into, &values)?;
        txn.save(source);
    } else {
        txn.save_or_drop(source)?;
        let mut target = load_to_write(txn, to)?;
        put(txn, &mut target, into, &values)?;
        txn.save(target);
    }
    Ok(Reply::bulk_or_null(values.into_iter().next()))
}
