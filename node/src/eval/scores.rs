//! The score index of sorted sets: local upkeep, from which members come in the order of their scores.
//!
//! A row stands for a member as its element row is, visible or not, and has the stamp of the write that
//! gave the score: so whoever walks over the index sees without another read what the key's floor hides.

use super::txn::{Key, Txn, corrupt};
use crate::codec::{DecodeError, Decoder, Encoder};
use crate::engine::keys;
use crate::model::{Element, Parts};
use bytes::Bytes;
use flotilla_topology::stamp::Stamp;
use std::io;
use std::ops::Range;

/// A member and its score.
pub(super) type Scored = (Bytes, f64);

/// A score as the value of an element.
pub(super) fn value_of(score: f64) -> Bytes {
    Bytes::copy_from_slice(&score.to_bits().to_be_bytes())
}

/// The score in the value of an element; none if it is none, which no release writes.
pub(super) fn score_of(value: &[u8]) -> Option<f64> {
    let score = f64::from_bits(u64::from_be_bytes(value.try_into().ok()?));
    (!score.is_nan()).then_some(score)
}

/// What the index says of an element.
fn indexed(element: &Element) -> Option<(f64, Stamp)> {
    let register = element.register.as_ref()?;
    Some((score_of(register.value.as_ref()?)?, register.stamp))
}

fn decode(value: &[u8]) -> Result<(Stamp, f64), DecodeError> {
    let mut input = Decoder::new(value);
    let (stamp, score) = (input.stamp()?, input.f64()?);
    input.finish()?;
    Ok((stamp, score))
}

impl Txn<'_> {
    /// Keeps the index as a member's element is now.
    pub(super) fn rescore(&mut self, key: &Key, name: &[u8], before: &Element, after: &Element) {
        let (old, new) = (indexed(before), indexed(after));
        let row = |score| keys::score(key.slot, &key.name, score, name);
        if let Some((score, _)) = old
            && new.is_none_or(|(new, _)| new != score)
        {
            self.drop_row(row(score));
        }
        if let Some((score, stamp)) = new.filter(|_| old != new) {
            let mut value = Encoder::with_capacity(17);
            value.put_stamp(stamp);
            value.put_f64(score);
            self.put_row(row(score), value.into_bytes(), Parts::NONE);
        }
    }

    /// The visible members in a range of the index, which is of this key, in order.
    pub(super) fn by_score(
        &self,
        key: &Key,
        range: Range<Bytes>,
        reverse: bool,
    ) -> impl Iterator<Item = io::Result<Scored>> {
        let prefix = keys::scores(key.slot, &key.name).start.len() + size_of::<f64>();
        let (floor, unstamped) = (key.floor, self.context.synced.unstamped());
        self.view.scan(range, reverse).filter_map(move |row| {
            let scored = row.and_then(|(row, value)| {
                let (stamp, score) = decode(&value).map_err(corrupt)?;
                let stamp = if stamp.is_zero() { unstamped } else { stamp };
                Ok((!floor.hides(stamp)).then(|| (row.slice(prefix..), score)))
            });
            scored.transpose()
        })
    }

    /// The score of a member of a visible sorted set.
    pub(super) fn score(&self, key: &Key, member: &[u8]) -> io::Result<Option<f64>> {
        Ok(self.field(key, member)?.and_then(|value| score_of(&value)))
    }
}
