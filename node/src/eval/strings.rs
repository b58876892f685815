//! Commands on strings, but those with SET's options (`set`).

use super::VALUE_BYTES_MAX;
use super::args::{Outcome, Stop, integer};
use super::txn::{Key, Txn};
use crate::model::{Type, format_integer, parse_integer};
use crate::resp::{COMMAND_REPLY_BYTES_MAX, Reply};
use bytes::{Bytes, BytesMut};

/// The value of a string key, or none; another type is an error.
pub(super) fn value_of(key: &Key) -> Result<Option<Bytes>, Stop> {
    match key.ty {
        None | Some(Type::String) => Ok(key.string()),
        Some(_) => Err(Stop::wrong_type()),
    }
}

/// Replaces whatever the key holds by a string without an expiry.
pub(super) fn replace(txn: &mut Txn<'_>, key: &mut Key, value: &Bytes) {
    txn.overwrite(key);
    txn.claim(key, Type::String);
    txn.write_string(key, value.clone());
}

pub(super) fn get(txn: &mut Txn<'_>, args: &[Bytes]) -> Outcome {
    let key = txn.load(&args[1])?;
    Ok(Reply::bulk_or_null(value_of(&key)?))
}

pub(super) fn mget(txn: &mut Txn<'_>, args: &[Bytes]) -> Outcome {
    let mut values = Vec::with_capacity(args.len() - 1);
    let mut bytes = 0;
    for name in &args[1..] {
        let value = Reply::bulk_or_null(txn.load(name)?.string());
        bytes += value.size();
        if bytes > COMMAND_REPLY_BYTES_MAX {
            return Err(Stop::reply_too_large());
        }
        values.push(value);
    }
    Ok(Reply::Array(values))
}

pub(super) fn mset(txn: &mut Txn<'_>, args: &[Bytes]) -> Outcome {
    if args.len().is_multiple_of(2) {
        return Err(Stop::arity("mset"));
    }
    for pair in args[1..].chunks_exact(2) {
        let mut key = txn.load(&pair[0])?;
        replace(txn, &mut key, &pair[1]);
        txn.save(key);
    }
    Ok(Reply::Ok)
}

pub(super) fn getset(txn: &mut Txn<'_>, args: &[Bytes]) -> Outcome {
    let mut key = txn.load(&args[1])?;
    let old = value_of(&key)?;
    replace(txn, &mut key, &args[2]);
    txn.save(key);
    Ok(Reply::bulk_or_null(old))
}

pub(super) fn getdel(txn: &mut Txn<'_>, args: &[Bytes]) -> Outcome {
    let key = txn.load(&args[1])?;
    let old = value_of(&key)?;
    if old.is_some() {
        txn.delete(key);
    }
    Ok(Reply::bulk_or_null(old))
}

pub(super) fn setnx(txn: &mut Txn<'_>, args: &[Bytes]) -> Outcome {
    let mut key = txn.load(&args[1])?;
    if key.ty.is_some() {
        return Ok(Reply::Int(0));
    }
    replace(txn, &mut key, &args[2]);
    txn.save(key);
    Ok(Reply::Int(1))
}

pub(super) fn append(txn: &mut Txn<'_>, args: &[Bytes]) -> Outcome {
    let mut key = txn.load(&args[1])?;
    let old = value_of(&key)?.unwrap_or_default();
    if old.len() + args[2].len() > VALUE_BYTES_MAX {
        return Err(Stop::too_long());
    }
    let mut value = BytesMut::with_capacity(old.len() + args[2].len());
    value.extend_from_slice(&old);
    value.extend_from_slice(&args[2]);
    let len = value.len();
    txn.claim(&mut key, Type::String);
    txn.write_string(&mut key, value.freeze());
    txn.save(key);
    Ok(Reply::Int(len as i64))
}

pub(super) fn strlen(txn: &mut Txn<'_>, args: &[Bytes]) -> Outcome {
    let key = txn.load(&args[1])?;
    Ok(Reply::Int(value_of(&key)?.map_or(0, |value| value.len() as i64)))
}

pub(super) fn incr(txn: &mut Txn<'_>, args: &[Bytes], amount: i64) -> Outcome {
    let mut key = txn.load(&args[1])?;
    let old = match value_of(&key)? {
        Some(value) => parse_integer(&value).ok_or_else(Stop::not_an_integer)?,
        None => 0,
    };
    let new = old.checked_add(amount).ok_or_else(Stop::overflow)?;
    txn.claim(&mut key, Type::String);
    txn.add_to_string(&mut key, amount, format_integer(new));
    txn.save(key);
    Ok(Reply::Int(new))
}

pub(super) fn incrby(txn: &mut Txn<'_>, args: &[Bytes]) -> Outcome {
    let amount = integer(&args[2])?;
    incr(txn, args, amount)
}

pub(super) fn decrby(txn: &mut Txn<'_>, args: &[Bytes]) -> Outcome {
    let amount = integer(&args[2])?.checked_neg().ok_or_else(Stop::decrement_overflow)?;
    incr(txn, args, amount)
}

/// All keys or none, within one slot.
pub(super) fn msetnx(txn: &mut Txn<'_>, args: &[Bytes]) -> Outcome {
    if args.len().is_multiple_of(2) {
        return Err(Stop::arity("msetnx"));
    }
    for pair in args[1..].chunks_exact(2) {
        if txn.load(&pair[0])?.ty.is_some() {
            return Ok(Reply::Int(0));
        }
    }
    mset(txn, args)?;
    Ok(Reply::Int(1))
}
