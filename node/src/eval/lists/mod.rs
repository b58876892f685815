//! Commands on lists. An element's name is its [position](position), and the order index tells without
//! reading elements which stand at the ends and at which index.

mod edit;
mod ends;
mod find;
mod position;

pub(super) use edit::{linsert, lrem, lset, ltrim};
pub(super) use ends::{blpop, lmove, lmpop, pop, push, rpoplpush};
pub(super) use find::{lindex, lpos, lrange};
pub(super) use position::nth as position_of_index;

use super::args::{Stop, is};
use super::collection;
use super::txn::{Key, Txn};
use crate::engine::order::Span;
use crate::model::Type;
use bytes::Bytes;
use std::io;

/// An end of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Left,
    Right,
}

impl Side {
    fn parse(word: &[u8]) -> Result<Side, Stop> {
        match () {
            () if is(word, "LEFT") => Ok(Side::Left),
            () if is(word, "RIGHT") => Ok(Side::Right),
            () => Err(Stop::syntax()),
        }
    }
}

fn load(txn: &mut Txn<'_>, name: &Bytes) -> Result<Key, Stop> {
    collection::load(txn, name, Type::List)
}

fn load_to_write(txn: &mut Txn<'_>, name: &Bytes) -> Result<Key, Stop> {
    collection::load_to_write(txn, name, Type::List)
}

/// The position at an end of a list.
fn edge(txn: &Txn<'_>, key: &Key, side: Side) -> io::Result<Option<Bytes>> {
    let entry = txn.in_order(key, &Span::ALL, side == Side::Right).next().transpose()?;
    Ok(entry.map(|entry| entry.place))
}

/// The position of an index, which counts from the end if it is negative.
fn position_at(txn: &Txn<'_>, key: &Key, index: i64) -> io::Result<Option<Bytes>> {
    let (rank, reverse) = if index < 0 { (!index as u64, true) } else { (index as u64, false) };
    let entry = txn.in_order_from(key, rank, reverse)?.next().transpose()?;
    Ok(entry.map(|entry| entry.place))
}

/// Elements from an index on, with their positions.
fn from_index<'t>(
    txn: &'t Txn<'_>,
    key: &'t Key,
    index: u64,
) -> io::Result<impl Iterator<Item = io::Result<(Bytes, Bytes)>> + 't> {
    let first = txn.in_order_from(key, index, false)?.next().transpose()?;
    let span = first.map(|entry| Span { start: entry.place, end: None });
    Ok(span.into_iter().flat_map(|span| txn.fields_in(key, span, false)))
}
