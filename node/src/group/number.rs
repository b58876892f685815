//! Numbers that a group keeps in a row of their own: one for each kind of row key.

use crate::engine::keys;
use crate::engine::view::View;
use crate::model::Parts;
use bytes::Bytes;
use std::io;

/// The number of a kind of row; 0 before it was ever written.
pub(super) fn read(view: &View<'_>, kind: u8) -> io::Result<u64> {
    let Some(value) = view.get(&keys::single(kind))? else { return Ok(0) };
    let bad = |_| {
        let what = format!("row {kind:#04x} holds {} bytes: a number has 8", value.len());
        io::Error::new(io::ErrorKind::InvalidData, what)
    };
    <[u8; 8]>::try_from(&value[..]).map(u64::from_be_bytes).map_err(bad)
}

pub(super) fn write(view: &mut View<'_>, kind: u8, number: u64) {
    let value = Bytes::copy_from_slice(&number.to_be_bytes());
    view.put(keys::single(kind), value, Parts::NONE);
}
