//! Keys of the order index: the elements of a sorted set or a list in their order, and blocks of them.
//!
//! | first byte | then | value |
//! |---|---|---|
//! | 0x32 | slot, escaped key, type, place | stamp of the element's value; a member's score |
//! | 0x33 | slot, escaped key, type, level, place of its first entry | how many entries the block has |
//!
//! A *place* is bytes that stand in the order of the elements: a member's ordered score before its name,
//! a list element's position as it is.

use super::keys::{BLOCK, ORDER, start};
use crate::model::Type;
use bytes::Bytes;
use flotilla_topology::slot::Slot;
use std::ops::Range;

/// Places from one on, up to another one or to the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// The first that is in it.
    pub start: Bytes,
    /// The first that is not.
    pub end: Option<Bytes>,
}

impl Span {
    /// Everything.
    pub const ALL: Span = Span { start: Bytes::new(), end: None };

    /// All that stands before a place.
    pub fn before(place: Bytes) -> Span {
        Span { start: Bytes::new(), end: Some(place) }
    }
}

/// A score as bytes that stand in the order of scores; both zeros are one.
pub fn ordered_score(score: f64) -> [u8; 8] {
    let bits = if score == 0.0 { 0 } else { score.to_bits() };
    let ordered = if bits >> 63 == 1 { !bits } else { bits | 1 << 63 };
    ordered.to_be_bytes()
}

/// The order index of one key.
#[derive(Debug, Clone, Copy)]
pub struct OrderOf<'k> {
    /// The key's slot.
    pub slot: Slot,
    /// The key.
    pub key: &'k [u8],
    /// The type that its elements are of.
    pub ty: Type,
}

impl OrderOf<'_> {
    fn row(self, level: u8, place: &[u8]) -> Vec<u8> {
        let kind = if level == 0 { ORDER } else { BLOCK };
        let mut row = start(kind, self.slot, self.key, 2 + place.len());
        row.push(self.ty.number());
        row.extend((level > 0).then_some(level));
        row.extend_from_slice(place);
        row
    }

    /// The row of an entry, which is on level 0, or of the block of a level that begins at a place.
    pub fn at(self, level: u8, place: &[u8]) -> Bytes {
        self.row(level, place).into()
    }

    /// How many bytes stand before the place in a row of a level.
    pub fn prefix(self, level: u8) -> usize {
        self.row(level, b"").len()
    }

    /// Rows of a level.
    pub fn rows(self, level: u8, span: &Span) -> Range<Bytes> {
        let end = match &span.end {
            Some(end) => self.row(level, end),
            None => {
                let mut end = self.row(level, b"");
                // A type or a level, which can grow by one.
                *end.last_mut().expect("a row has a kind") += 1;
                end
            }
        };
        self.at(level, &span.start)..end.into()
    }

    /// All rows of the index.
    pub fn all(self) -> [Range<Bytes>; 2] {
        [ORDER, BLOCK].map(|kind| {
            let mut row = start(kind, self.slot, self.key, 1);
            row.push(self.ty.number());
            let from = Bytes::copy_from_slice(&row);
            *row.last_mut().expect("a row has a kind") += 1;
            from..row.into()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::keys::behind;
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn scores_stand_in_their_order(a in any::<f64>(), b in any::<f64>()) {
            prop_assume!(!a.is_nan() && !b.is_nan());
            prop_assert_eq!(a.partial_cmp(&b).unwrap(), ordered_score(a).cmp(&ordered_score(b)));
        }

        #[test]
        fn spans_hold_their_rows_and_no_others(
            key in proptest::collection::vec(any::<u8>(), 0..4),
            other in proptest::collection::vec(any::<u8>(), 0..4),
            place in proptest::collection::vec(any::<u8>(), 0..4),
            end in proptest::collection::vec(any::<u8>(), 0..4),
            level in 0..3_u8,
        ) {
            let of = |key| OrderOf { slot: Slot(7), key, ty: Type::SortedSet };
            let row = of(&key).at(level, &place);
            let span = Span::before(end.clone().into());
            prop_assert_eq!(of(&key).rows(level, &span).contains(&row), place < end);
            prop_assert_eq!(&row[of(&key).prefix(level)..], &place[..]);
            for level_of in 0..3 {
                let all = of(&other).rows(level_of, &Span::ALL);
                prop_assert_eq!(all.contains(&row), key == other && level == level_of);
            }
            let all = of(&other).all();
            prop_assert_eq!(all.iter().any(|all| all.contains(&row)), key == other);
            prop_assert!(place[..] < behind(&place)[..]);
        }
    }
}
