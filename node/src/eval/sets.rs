//! Commands on sets. A member is an element with an empty value.
//!
//! Unions, intersections and differences are merges of [sorted streams](Streams).

use super::args::{Outcome, Stop, integer, is};
use super::collection::{self, Budget, load, load_to_write, positive};
use super::sample::Sample;
use super::streams::{Algebra, Streams};
use super::txn::{Key, Txn};
use crate::model::Type;
use crate::resp::Reply;
use bytes::Bytes;

pub(super) fn sadd(txn: &mut Txn<'_>, args: &[Bytes]) -> Outcome {
    let mut key = load_to_write(txn, &args[1], Type::Set)?;
    txn.claim(&mut key, Type::Set);
    let mut added = 0;
    for member in &args[2..] {
        added += i64::from(txn.set_field(&mut key, member, Bytes::new())?);
    }
    txn.save(key);
    Ok(Reply::Int(added))
}

pub(super) fn smismember(txn: &mut Txn<'_>, args: &[Bytes]) -> Outcome {
    let key = load(txn, &args[1], Type::Set)?;
    let mut found = Vec::with_capacity(args.len() - 2);
    for member in &args[2..] {
        found.push(Reply::Int(i64::from(txn.field(&key, member)?.is_some())));
    }
    Ok(Reply::Array(found))
}

pub(super) fn smove(txn: &mut Txn<'_>, args: &[Bytes]) -> Outcome {
    let (from, to, member) = (&args[1], &args[2], &args[3]);
    let mut source = txn.load(from)?;
    if source.ty.is_none() {
        return Ok(Reply::Int(0));
    }
    source = load_to_write(txn, from, Type::Set)?;
    let mut target = load_to_write(txn, to, Type::Set)?;
    if txn.field(&source, member)?.is_none() {
        return Ok(Reply::Int(0));
    }
    if from == to {
        return Ok(Reply::Int(1));
    }
    txn.remove_field(&mut source, member)?;
    txn.save_or_drop(source)?;
    txn.claim(&mut target, Type::Set);
    txn.set_field(&mut target, member, Bytes::new())?;
    txn.save(target);
    Ok(Reply::Int(1))
}

pub(super) fn spop(txn: &mut Txn<'_>, args: &[Bytes]) -> Outcome {
    if args.len() > 3 {
        return Err(Stop::syntax());
    }
    let count = args.get(2).map(|count| positive(count)).transpose()?;
    let key = load_to_write(txn, &args[1], Type::Set)?;
    if key.ty.is_none() {
        return Ok(count.map_or(Reply::Null, |_| Reply::Set(Vec::new())));
    }
    let mut sample = Sample::new(txn, &key);
    let popped = sample.distinct(txn, &key, count.unwrap_or(1), Budget::write(&key))?;
    collection::remove(txn, key, popped.iter().map(|(member, _)| member))?;
    let mut members = popped.into_iter().map(|(member, _)| Reply::Bulk(member));
    Ok(match count {
        None => members.next().unwrap_or(Reply::Null),
        Some(_) => Reply::Set(members.collect()),
    })
}

pub(super) fn srandmember(txn: &mut Txn<'_>, args: &[Bytes]) -> Outcome {
    if args.len() > 3 {
        return Err(Stop::syntax());
    }
    let count = args.get(2).map(|count| integer(count)).transpose()?;
    if count == Some(i64::MIN) {
        return Err(Stop::not_between(-i64::MAX, i64::MAX));
    }
    let key = load(txn, &args[1], Type::Set)?;
    if key.ty.is_none() {
        return Ok(count.map_or(Reply::Null, |_| Reply::Array(Vec::new())));
    }
    let mut sample = Sample::new(txn, &key);
    let picked = match count {
        Some(count) if count < 0 => {
            sample.with_repeats(txn, &key, count.unsigned_abs(), Budget::reply())?
        }
        _ => sample.distinct(txn, &key, count.unwrap_or(1) as u64, Budget::reply())?,
    };
    let mut members = picked.into_iter().map(|(member, _)| Reply::Bulk(member));
    Ok(match count {
        None => members.next().unwrap_or(Reply::Null),
        Some(_) => Reply::Array(members.collect()),
    })
}

/// Sets by name. All are looked at, so that a wrong type is found wherever it is.
fn load_all(txn: &mut Txn<'_>, names: &[Bytes]) -> Result<Vec<Key>, Stop> {
    names.iter().map(|name| load(txn, name, Type::Set)).collect()
}

/// SMEMBERS, SINTER, SUNION and SDIFF.
pub(super) fn algebra(txn: &mut Txn<'_>, names: &[Bytes], algebra: Algebra) -> Outcome {
    let keys = load_all(txn, names)?;
    let (mut members, mut budget) = (Vec::new(), Budget::reply());
    for member in Streams::new(txn, &keys, algebra) {
        let member = member?;
        budget.take(member.len())?;
        members.push(Reply::Bulk(member));
    }
    Ok(Reply::Set(members))
}

/// SINTERSTORE, SUNIONSTORE and SDIFFSTORE: the target first, then the sources.
pub(super) fn store(txn: &mut Txn<'_>, args: &[Bytes], algebra: Algebra) -> Outcome {
    let keys = load_all(txn, &args[2..])?;
    let target = txn.load(&args[1])?;
    let (mut members, mut budget) = (Vec::new(), Budget::write(&target));
    for member in Streams::new(txn, &keys, algebra) {
        let member = member?;
        budget.take(member.len())?;
        members.push((member, Bytes::new()));
    }
    collection::store(txn, target, Type::Set, members)
}

pub(super) fn sintercard(txn: &mut Txn<'_>, args: &[Bytes]) -> Outcome {
    let error = |line: &str| Err(Stop::error(line.to_owned()));
    let Ok(count @ 1..) = integer(&args[1]) else {
        return error("ERR numkeys should be greater than 0");
    };
    let options = usize::try_from(count).ok().and_then(|count| args.get(2 + count..));
    let Some(mut options) = options else {
        return error("ERR Number of keys can't be greater than number of args");
    };
    let names = &args[2..args.len() - options.len()];
    let mut limit = 0;
    while let [option, rest @ ..] = options {
        let [value, rest @ ..] = rest else { return Err(Stop::syntax()) };
        if !is(option, "limit") {
            return Err(Stop::syntax());
        }
        limit = match integer(value) {
            Ok(limit @ 0..) => limit,
            _ => return error("ERR LIMIT can't be negative"),
        };
        options = rest;
    }
    let keys = load_all(txn, names)?;
    let most = if limit == 0 { usize::MAX } else { limit as usize };
    let mut found = 0;
    for member in Streams::new(txn, &keys, Algebra::Inter).take(most) {
        member?;
        found += 1;
    }
    Ok(Reply::Int(found))
}
