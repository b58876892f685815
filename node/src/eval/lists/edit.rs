//! Writes anywhere in a list.

use super::super::args::{Outcome, Stop, integer, is};
use super::super::collection::{self, Budget};
use super::super::txn::{Key, Txn};
use super::super::zsets::places;
use super::{from_index, load_to_write, position, position_at};
use crate::engine::keys;
use crate::engine::order::Span;
use crate::model::Type;
use crate::resp::Reply;
use bytes::Bytes;

pub(in super::super) fn lset(txn: &mut Txn<'_>, args: &[Bytes]) -> Outcome {
    let mut key = load_to_write(txn, &args[1])?;
    if key.ty.is_none() {
        return Err(Stop::error("ERR no such key".to_owned()));
    }
    let Some(position) = position_at(txn, &key, integer(&args[2])?)? else {
        return Err(Stop::error("ERR index out of range".to_owned()));
    };
    txn.claim(&mut key, Type::List);
    txn.set_field(&mut key, &position, args[3].clone())?;
    txn.save(key);
    Ok(Reply::Ok)
}

pub(in super::super) fn linsert(txn: &mut Txn<'_>, args: &[Bytes]) -> Outcome {
    let before = match () {
        () if is(&args[2], "BEFORE") => true,
        () if is(&args[2], "AFTER") => false,
        () => return Err(Stop::syntax()),
    };
    let mut key = load_to_write(txn, &args[1])?;
    if key.ty.is_none() {
        return Ok(Reply::Int(0));
    }
    let Some(pivot) = find(txn, &key, &args[3])? else { return Ok(Reply::Int(-1)) };
    let beside = match before {
        true => Span::before(pivot.clone()),
        false => Span { start: keys::behind(&pivot), end: None },
    };
    let neighbour = txn.in_order(&key, &beside, before).next().transpose()?;
    let position = match (neighbour.map(|entry| entry.place), before, txn.stamp()) {
        (None, true, stamp) => position::before(Some(&pivot), stamp),
        (None, false, stamp) => position::behind(Some(&pivot), stamp),
        (Some(left), true, stamp) => position::between(&left, &pivot, stamp)?,
        (Some(right), false, stamp) => position::between(&pivot, &right, stamp)?,
    };
    txn.claim(&mut key, Type::List);
    txn.set_field(&mut key, &position, args[4].clone())?;
    let len = txn.count(&key)?;
    txn.save(key);
    Ok(Reply::Int(len as i64))
}

/// The position of the first element with a value.
fn find(txn: &Txn<'_>, key: &Key, value: &Bytes) -> Result<Option<Bytes>, Stop> {
    for element in txn.fields_in(key, Span::ALL, false) {
        let (position, found) = element?;
        if found == *value {
            return Ok(Some(position));
        }
    }
    Ok(None)
}

pub(in super::super) fn lrem(txn: &mut Txn<'_>, args: &[Bytes]) -> Outcome {
    let count = integer(&args[2])?;
    let key = load_to_write(txn, &args[1])?;
    if key.ty.is_none() {
        return Ok(Reply::Int(0));
    }
    let most = if count == 0 { u64::MAX } else { count.unsigned_abs() };
    let (mut positions, mut budget) = (Vec::new(), Budget::write(&key));
    for element in txn.fields_in(&key, Span::ALL, count < 0) {
        let (position, value) = element?;
        if value == args[3] {
            budget.take(position.len())?;
            positions.push(position);
        }
        if positions.len() as u64 == most {
            break;
        }
    }
    Ok(Reply::Int(collection::remove(txn, key, &positions)?))
}

pub(in super::super) fn ltrim(txn: &mut Txn<'_>, args: &[Bytes]) -> Outcome {
    let (start, stop) = (integer(&args[2])?, integer(&args[3])?);
    let key = load_to_write(txn, &args[1])?;
    if key.ty.is_none() {
        return Ok(Reply::Ok);
    }
    let count = txn.count(&key)?;
    let kept = places(start, stop, count);
    if kept.is_empty() {
        txn.delete(key);
        return Ok(Reply::Ok);
    }
    let (mut positions, mut budget) = (Vec::new(), Budget::write(&key));
    for (from, many) in [(0, kept.start), (kept.end, count - kept.end)] {
        if many == 0 {
            continue;
        }
        for element in from_index(txn, &key, from)?.take(many as usize) {
            let (position, _) = element?;
            budget.take(position.len())?;
            positions.push(position);
        }
    }
    collection::remove(txn, key, &positions)?;
    Ok(Reply::Ok)
}
