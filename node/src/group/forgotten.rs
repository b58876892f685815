//! Up to when a group may have collected ends, and with them all that it knew of their keys: one row,
//! which only rises. See [`Head::forgotten`](crate::model::Head::forgotten) for what it is good for.

use super::number;
use crate::engine::keys;
use crate::engine::view::View;
use std::io;

/// Milliseconds since 1970; 0 before the first.
pub(super) fn read(view: &View<'_>) -> io::Result<u64> {
    number::read(view, keys::FORGOTTEN)
}

pub(super) fn write(view: &mut View<'_>, ms: u64) {
    number::write(view, keys::FORGOTTEN, ms);
}
