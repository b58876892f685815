//! Up to when a group may have collected ends, and with them all that it knew of their keys: one row,
//! which only rises. See [`Head::forgotten`](crate::model::Head::forgotten) for what it is good for.

use crate::engine::keys;
use crate::engine::view::View;
use crate::model::Parts;
use bytes::Bytes;
use std::io;

/// Milliseconds since 1970; 0 before the first.
pub fn read(view: &View<'_>) -> io::Result<u64> {
    let row = view.get(&keys::single(keys::FORGOTTEN))?;
    let number = row.map(|value| <[u8; 8]>::try_from(&value[..]));
    let bad = |_| io::Error::new(io::ErrorKind::InvalidData, "what was forgotten takes 8 bytes");
    Ok(number.transpose().map_err(bad)?.map_or(0, u64::from_be_bytes))
}

pub(super) fn write(view: &mut View<'_>, ms: u64) {
    let value = Bytes::copy_from_slice(&ms.to_be_bytes());
    view.put(keys::single(keys::FORGOTTEN), value, Parts::NONE);
}
