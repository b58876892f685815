//! Parts of strings: GETRANGE (SUBSTR), SETRANGE.

use super::VALUE_BYTES_MAX;
use super::args::{Outcome, Stop, integer};
use super::strings::value_of;
use super::txn::Txn;
use crate::model::Type;
use crate::resp::Reply;
use bytes::{Bytes, BytesMut};

/// GETRANGE and SUBSTR, its old name.
pub(super) fn getrange(txn: &mut Txn<'_>, args: &[Bytes]) -> Outcome {
    let (start, end) = (integer(&args[2])?, integer(&args[3])?);
    let key = txn.load(&args[1])?;
    let value = value_of(&key)?.unwrap_or_default();
    Ok(Reply::Bulk(match range(start, end, value.len()) {
        Some((start, end)) => value.slice(start..=end),
        None => Bytes::new(),
    }))
}

/// First and last position that a range means in something of this length; none if it is empty.
/// Negative positions count from the end.
pub(super) fn range(start: i64, end: i64, len: usize) -> Option<(usize, usize)> {
    if start < 0 && end < 0 && start > end {
        return None; // both might mean the first position
    }
    let len = i64::try_from(len).ok()?;
    let from_end = |at: i64| if at < 0 { (len + at).max(0) } else { at };
    let (start, end) = (from_end(start), from_end(end).min(len - 1));
    (start <= end).then_some((start as usize, end as usize))
}

pub(super) fn setrange(txn: &mut Txn<'_>, args: &[Bytes]) -> Outcome {
    let offset = usize::try_from(integer(&args[2])?)
        .map_err(|_| Stop::error("ERR offset is out of range".to_owned()))?;
    let (mut key, part) = (txn.load(&args[1])?, &args[3]);
    let old = value_of(&key)?.unwrap_or_default();
    if part.is_empty() {
        return Ok(Reply::Int(old.len() as i64));
    }
    let end = offset.saturating_add(part.len());
    if end > VALUE_BYTES_MAX {
        return Err(Stop::too_long());
    }
    let mut value = BytesMut::zeroed(end.max(old.len()));
    value[..old.len()].copy_from_slice(&old);
    value[offset..end].copy_from_slice(part);
    let len = value.len();
    txn.claim(&mut key, Type::String);
    txn.write_string(&mut key, value.freeze());
    txn.save(key);
    Ok(Reply::Int(len as i64))
}
