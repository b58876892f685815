//! The order index of sorted sets and lists: local upkeep, from which elements come in their order.
//!
//! A row stands for an element as its element row is, visible or not, and has the stamp of the write
//! that gave the value: so whoever walks over the index sees without another read what the key's floor
//! hides. An element without a value, which was removed, has no row.

use super::txn::{Key, Txn, corrupt};
use crate::codec::{DecodeError, Decoder, Encoder};
use crate::engine::order::{OrderOf, Span, ordered_score};
use crate::model::{Element, Parts, Type};
use bytes::Bytes;
use flotilla_topology::stamp::Stamp;
use std::io;

/// A score as the value of an element; there is one zero, as in small sorted sets of Redis.
pub(super) fn value_of(score: f64) -> Bytes {
    let score = if score == 0.0 { 0.0 } else { score };
    Bytes::copy_from_slice(&score.to_bits().to_be_bytes())
}

/// The score in the value of an element; none if it is none, which no release writes.
pub(super) fn score_of(value: &[u8]) -> Option<f64> {
    let score = f64::from_bits(u64::from_be_bytes(value.try_into().ok()?));
    (!score.is_nan()).then_some(score)
}

/// An element in its order.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    /// Where it stands.
    pub(super) place: Bytes,
    /// Its score, if it is a member of a sorted set; else 0.
    pub(super) score: f64,
}

impl Entry {
    /// The name of a member of a sorted set.
    pub(super) fn member(&self) -> Bytes {
        self.place.slice(size_of::<f64>()..)
    }
}

/// The place of a member.
pub(super) fn place_of(score: f64, member: &[u8]) -> Bytes {
    [&ordered_score(score)[..], member].concat().into()
}

/// The index of a key that holds this type.
pub(super) fn order_of(key: &Key, ty: Type) -> OrderOf<'_> {
    OrderOf { slot: key.slot, key: &key.name, ty }
}

/// What the index says of an element: its place, the stamp of its value, and a member's score.
fn indexed(ty: Type, name: &[u8], element: &Element) -> Option<(Bytes, Stamp, f64)> {
    let (stamp, value) = element.last_value()?;
    if ty == Type::List {
        return Some((Bytes::copy_from_slice(name), stamp, 0.0));
    }
    let score = score_of(value)?;
    Some((place_of(score, name), stamp, score))
}

fn encode(ty: Type, stamp: Stamp, score: f64) -> Bytes {
    let mut value = Encoder::with_capacity(17);
    value.put_stamp(stamp);
    if ty == Type::SortedSet {
        value.put_f64(score);
    }
    value.into_bytes()
}

fn decode(ty: Type, value: &[u8]) -> Result<(Stamp, f64), DecodeError> {
    let mut input = Decoder::new(value);
    let stamp = input.stamp()?;
    let score = if ty == Type::SortedSet { input.f64()? } else { 0.0 };
    input.finish()?;
    Ok((stamp, score))
}

impl<'a> Txn<'a> {
    /// Keeps the index as an element is now.
    pub(super) fn reorder(
        &mut self,
        key: &Key,
        (ty, name): (Type, &[u8]),
        before: &Element,
        after: &Element,
    ) -> io::Result<()> {
        let (old, new) = (indexed(ty, name, before), indexed(ty, name, after));
        if old == new {
            return Ok(());
        }
        let order = order_of(key, ty);
        let (from, to) = (old.map(|(place, ..)| place), new.as_ref().map(|(place, ..)| place));
        let moves = from.as_ref() != to;
        if let Some(place) = from.filter(|_| moves) {
            self.drop_row(order.at(0, &place));
            self.leave(order, &place)?;
        }
        if let Some((place, stamp, score)) = new {
            self.put_row(order.at(0, &place), encode(ty, stamp, score), Parts::NONE);
            if moves {
                self.enter(order, &place)?;
            }
        }
        Ok(())
    }

    /// The visible elements of a visible key in a span, in order.
    pub(super) fn in_order<'t>(
        &'t self,
        key: &Key,
        span: &Span,
        reverse: bool,
    ) -> impl Iterator<Item = io::Result<Entry>> + use<'t, 'a> {
        let rows = key.ty.map(|ty| {
            let order = order_of(key, ty);
            (ty, order.rows(0, span), order.prefix(0))
        });
        let (floor, unstamped) = (key.floor, self.context.synced.unstamped());
        rows.into_iter().flat_map(move |(ty, rows, prefix)| {
            self.view.scan(rows, reverse).filter_map(move |row| {
                let entry = row.and_then(|(row, value)| {
                    let (stamp, score) = decode(ty, &value).map_err(corrupt)?;
                    let stamp = if stamp.is_zero() { unstamped } else { stamp };
                    let entry = || Entry { place: row.slice(prefix..), score };
                    Ok((!floor.hides(stamp)).then(entry))
                });
                entry.transpose()
            })
        })
    }

    /// The score of a member of a visible sorted set.
    pub(super) fn score(&self, key: &Key, member: &[u8]) -> io::Result<Option<f64>> {
        Ok(self.field(key, member)?.and_then(|value| score_of(&value)))
    }
}
