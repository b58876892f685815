//! Commands on hashes.

use super::args::{Outcome, Stop, integer};
use super::collection;
use super::txn::{Key, Txn};
use crate::model::{Type, format_integer, parse_integer};
use crate::resp::{COMMAND_REPLY_BYTES_MAX, Reply};
use bytes::Bytes;

pub(super) fn load(txn: &mut Txn<'_>, name: &Bytes) -> Result<Key, Stop> {
    collection::load(txn, name, Type::Hash)
}

pub(super) fn load_to_write(txn: &mut Txn<'_>, name: &Bytes) -> Result<Key, Stop> {
    collection::load_to_write(txn, name, Type::Hash)
}

/// HSET and HMSET, which differ in their answer.
pub(super) fn hset(txn: &mut Txn<'_>, args: &[Bytes], name: &str) -> Outcome {
    if !args.len().is_multiple_of(2) {
        return Err(Stop::arity(name));
    }
    let mut key = load_to_write(txn, &args[1])?;
    txn.claim(&mut key, Type::Hash);
    let mut created = 0;
    for pair in args[2..].chunks_exact(2) {
        created += i64::from(txn.set_field(&mut key, &pair[0], pair[1].clone())?);
    }
    txn.save(key);
    Ok(if name == "hmset" { Reply::Ok } else { Reply::Int(created) })
}

pub(super) fn hsetnx(txn: &mut Txn<'_>, args: &[Bytes]) -> Outcome {
    let mut key = load_to_write(txn, &args[1])?;
    if txn.field(&key, &args[2])?.is_some() {
        return Ok(Reply::Int(0));
    }
    txn.claim(&mut key, Type::Hash);
    txn.set_field(&mut key, &args[2], args[3].clone())?;
    txn.save(key);
    Ok(Reply::Int(1))
}

pub(super) fn hget(txn: &mut Txn<'_>, args: &[Bytes]) -> Outcome {
    let key = load(txn, &args[1])?;
    Ok(Reply::bulk_or_null(txn.field(&key, &args[2])?))
}

pub(super) fn hmget(txn: &mut Txn<'_>, args: &[Bytes]) -> Outcome {
    let key = load(txn, &args[1])?;
    let mut values = Vec::with_capacity(args.len() - 2);
    for name in &args[2..] {
        values.push(Reply::bulk_or_null(txn.field(&key, name)?));
    }
    Ok(Reply::Array(values))
}

/// Fields of a hash in order; none if the key does not exist.
fn fields(txn: &mut Txn<'_>, name: &Bytes) -> Result<Vec<(Bytes, Bytes)>, Stop> {
    let key = load(txn, name)?;
    let mut all = Vec::new();
    if key.ty.is_none() {
        return Ok(all);
    }
    let mut bytes = 0;
    for field in txn.fields(&key) {
        let (name, value) = field?;
        bytes += 2 * size_of::<Reply>() + name.len() + value.len();
        if bytes > COMMAND_REPLY_BYTES_MAX {
            return Err(Stop::reply_too_large());
        }
        all.push((name, value));
    }
    Ok(all)
}

pub(super) fn hgetall(txn: &mut Txn<'_>, args: &[Bytes]) -> Outcome {
    let pairs = fields(txn, &args[1])?.into_iter();
    Ok(Reply::Map(pairs.map(|(name, value)| (Reply::Bulk(name), Reply::Bulk(value))).collect()))
}

pub(super) fn hkeys(txn: &mut Txn<'_>, args: &[Bytes]) -> Outcome {
    Ok(Reply::bulks(fields(txn, &args[1])?.into_iter().map(|(name, _)| name)))
}

pub(super) fn hvals(txn: &mut Txn<'_>, args: &[Bytes]) -> Outcome {
    Ok(Reply::bulks(fields(txn, &args[1])?.into_iter().map(|(_, value)| value)))
}

pub(super) fn hincrby(txn: &mut Txn<'_>, args: &[Bytes]) -> Outcome {
    let amount = integer(&args[3])?;
    let mut key = load_to_write(txn, &args[1])?;
    let old = match txn.field(&key, &args[2])? {
        Some(value) => parse_integer(&value).ok_or_else(Stop::hash_value_not_an_integer)?,
        None => 0,
    };
    let new = old.checked_add(amount).ok_or_else(Stop::overflow)?;
    txn.claim(&mut key, Type::Hash);
    txn.add_to_field(&mut key, &args[2], amount, format_integer(new))?;
    txn.save(key);
    Ok(Reply::Int(new))
}

pub(super) fn hstrlen(txn: &mut Txn<'_>, args: &[Bytes]) -> Outcome {
    let key = load(txn, &args[1])?;
    Ok(Reply::Int(txn.field(&key, &args[2])?.map_or(0, |value| value.len() as i64)))
}
