//! What commands on all types with elements have in common.

use super::args::{Outcome, Stop, integer, is};
use super::blocking::timeout;
use super::txn::{Key, Txn};
use super::{ROW_OVERHEAD_BYTES, WRITE_BYTES_MAX, write_too_large};
use crate::model::Type;
use crate::resp::{COMMAND_REPLY_BYTES_MAX, Reply};
use bytes::Bytes;
use std::io;

/// A key that is of this type or does not exist.
pub(super) fn load(txn: &mut Txn<'_>, name: &Bytes, ty: Type) -> Result<Key, Stop> {
    let key = txn.load(name)?;
    match key.ty {
        Some(other) if other != ty => Err(Stop::wrong_type()),
        _ => Ok(key),
    }
}

/// The same, for a write: a count that is open is closed if that is cheap.
pub(super) fn load_to_write(txn: &mut Txn<'_>, name: &Bytes, ty: Type) -> Result<Key, Stop> {
    let mut key = load(txn, name, ty)?;
    txn.settle_count(&mut key)?;
    Ok(key)
}

/// The first of some keys that exists, for a write.
pub(super) fn first_there<'n>(
    txn: &mut Txn<'_>,
    names: &'n [Bytes],
    ty: Type,
) -> Result<Option<(&'n Bytes, Key)>, Stop> {
    for name in names {
        let key = load_to_write(txn, name, ty)?;
        if key.ty.is_some() {
            return Ok(Some((name, key)));
        }
    }
    Ok(None)
}

/// How many elements a key has; none if it does not exist.
pub(super) fn size(txn: &Txn<'_>, key: &Key) -> io::Result<u64> {
    if key.ty.is_some() { txn.count(key) } else { Ok(0) }
}

/// Removes elements of a visible key and saves it, if there were any; how many.
pub(super) fn remove<'n>(
    txn: &mut Txn<'_>,
    mut key: Key,
    names: impl IntoIterator<Item = &'n Bytes>,
) -> io::Result<i64> {
    let mut removed = 0;
    for name in names {
        removed += i64::from(txn.remove_field(&mut key, name)?);
    }
    if removed > 0 {
        txn.save_or_drop(key)?;
    }
    Ok(removed)
}

/// HLEN, LLEN, SCARD and ZCARD.
pub(super) fn tell_size(txn: &mut Txn<'_>, args: &[Bytes], ty: Type) -> Outcome {
    let key = load(txn, &args[1], ty)?;
    Ok(Reply::Int(size(txn, &key)? as i64))
}

/// HEXISTS and SISMEMBER.
pub(super) fn tell_whether_in(txn: &mut Txn<'_>, args: &[Bytes], ty: Type) -> Outcome {
    let key = load(txn, &args[1], ty)?;
    Ok(Reply::Int(i64::from(txn.field(&key, &args[2])?.is_some())))
}

/// HDEL, SREM and ZREM.
pub(super) fn remove_named(txn: &mut Txn<'_>, args: &[Bytes], ty: Type) -> Outcome {
    let key = load_to_write(txn, &args[1], ty)?;
    Ok(Reply::Int(if key.ty.is_some() { remove(txn, key, &args[2..])? } else { 0 }))
}

/// Writes elements with their values over whatever a key holds, as the STORE forms do; how many there are.
pub(super) fn store(
    txn: &mut Txn<'_>,
    mut target: Key,
    ty: Type,
    elements: Vec<(Bytes, Bytes)>,
) -> Outcome {
    let many = elements.len() as i64;
    if elements.is_empty() {
        if target.ty.is_some() {
            txn.delete(target);
        }
        return Ok(Reply::Int(many));
    }
    txn.overwrite(&mut target);
    txn.claim(&mut target, ty);
    for (name, value) in elements {
        txn.set_field(&mut target, &name, value)?;
    }
    txn.save(target);
    Ok(Reply::Int(many))
}

/// What a command may still write or answer, in bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Budget {
    left: usize,
    each: usize,
    beyond: fn() -> Stop,
}

impl Budget {
    /// Of an answer.
    pub(super) fn reply() -> Budget {
        let (left, each) = (COMMAND_REPLY_BYTES_MAX, size_of::<Reply>());
        Budget { left, each, beyond: Stop::reply_too_large }
    }

    /// Of an entry: each element has a row with the key in it.
    pub(super) fn write(key: &Key) -> Budget {
        Budget::write_under(key.name.len())
    }

    /// The same, by the length of the key's name.
    pub(super) fn write_under(name_bytes: usize) -> Budget {
        let (left, each) = (WRITE_BYTES_MAX, name_bytes + ROW_OVERHEAD_BYTES);
        Budget { left, each, beyond: write_too_large }
    }

    /// Takes an element of so many bytes from it.
    pub(super) fn take(&mut self, bytes: usize) -> Result<(), Stop> {
        self.left = self.left.checked_sub(bytes + self.each).ok_or_else(self.beyond)?;
        Ok(())
    }
}

/// How many are to be popped.
pub(super) fn positive(arg: &[u8]) -> Result<u64, Stop> {
    let out_of_range = || Stop::error("ERR value is out of range, must be positive".to_owned());
    u64::try_from(integer(arg).map_err(|_| out_of_range())?).map_err(|_| out_of_range())
}

/// Keys behind their number, and what follows them.
pub(super) fn counted_keys(args: &[Bytes]) -> Result<(&[Bytes], &[Bytes]), Stop> {
    let number = integer(&args[0]).ok().and_then(|number| usize::try_from(number).ok());
    let number = number.filter(|number| *number > 0);
    let number =
        number.ok_or_else(|| Stop::error("ERR numkeys should be greater than 0".to_owned()))?;
    args[1..].split_at_checked(number).ok_or_else(Stop::syntax)
}

/// The words of LMPOP and ZMPOP behind their names: keys, one of their ends, and how many elements may be
/// taken. With a timeout those of BLMPOP and BZMPOP, which read it last.
pub(super) fn mpop<'a, E>(
    args: &'a [Bytes],
    max_wait: Option<&Bytes>,
    end: fn(&[u8]) -> Result<E, Stop>,
) -> Result<(&'a [Bytes], E, u64), Stop> {
    let (names, options) = counted_keys(args)?;
    let [word, options @ ..] = options else { return Err(Stop::syntax()) };
    let words = (names, end(word)?, pop_count(options)?);
    if let Some(max_wait) = max_wait {
        timeout(max_wait)?;
    }
    Ok(words)
}

/// COUNT of LMPOP and ZMPOP, which may be left out.
fn pop_count(options: &[Bytes]) -> Result<u64, Stop> {
    let [word, count, rest @ ..] = options else {
        return if options.is_empty() { Ok(1) } else { Err(Stop::syntax()) };
    };
    if !is(word, "COUNT") {
        return Err(Stop::syntax());
    }
    let count = integer(count).ok().and_then(|count| u64::try_from(count).ok());
    let count = count.filter(|count| *count > 0);
    let count =
        count.ok_or_else(|| Stop::error("ERR count should be greater than 0".to_owned()))?;
    if rest.is_empty() { Ok(count) } else { Err(Stop::syntax()) }
}
