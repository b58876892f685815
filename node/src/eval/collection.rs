//! What commands on all types with elements begin with.

use super::args::{Stop, integer, is};
use super::txn::{Key, Txn};
use super::{ROW_OVERHEAD_BYTES, WRITE_BYTES_MAX, write_too_large};
use crate::model::Type;
use crate::resp::{COMMAND_REPLY_BYTES_MAX, Reply};
use bytes::Bytes;

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
        let (left, each) = (WRITE_BYTES_MAX, key.name.len() + ROW_OVERHEAD_BYTES);
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

/// COUNT of LMPOP and ZMPOP, which may be left out.
pub(super) fn pop_count(options: &[Bytes]) -> Result<u64, Stop> {
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
