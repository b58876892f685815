//! Row keys: their layout and the ranges of rows that belong together.
//!
//! | kind | key | value |
//! |---|---|---|
//! | 0x10 head | slot, escaped key | `model::Head` |
//! | 0x20 element | slot, escaped key, type, name | `model::Element` |
//! | 0x30 expiry index | end in ms (8), slot, key | empty |
//! | 0x31 garbage index | stamp's clock (8), slot, escaped key, [type, name] | how far a walk came, or empty |
//! | 0x32, 0x33 order index | see [`super::order`] | |
//! | 0x60 cursor | origin, source group | a position in another cluster's log |
//! | 0x61 link floor | peer cluster | a position that a peer has acknowledged |
//! | 0x62 range floor | kept for deletes of key ranges | |
//! | 0x63 live set | | which clusters count |
//! | 0x64 open merge | origin, source group | the full state that is being merged |
//! | 0x65 merges | | how many full states were merged |
//! | 0x66 forgotten | | up to when ends may have been collected (8) |
//! | 0x67 levelled | origin, source group | what other clusters had of a fenced one |
//! | 0x68 life | | the life of this cluster that the group is in, and what it owes |
//! | 0x69 levels | | whose states were merged since a cluster is fenced |
//! | 0x6A synced | | the stamp of the entry that switched sync on |
//! | 0x70 loser | number (8) | a write that lost against another cluster's |
//!
//! Numbers are big-endian. A key is escaped (0x00 becomes 0x00 0xFF) and ends with 0x00 0x01, so
//! that rows stand in the order of (slot, key, element) and no key's rows contain another's. The
//! local tablet number, which the engine puts in front, is not part of a row key: row keys are in
//! log entries and are the same on all replicas.

use crate::codec::{DecodeError, Decoder, Encoder};
use crate::model::Type;
use bytes::Bytes;
use flotilla_topology::ids::{ClusterId, GroupId, Incarnation, Origin};
use flotilla_topology::slot::{Slot, SlotRange};
use flotilla_topology::stamp::Hlc;
use std::ops::Range;

/// Head rows: one per key.
pub const HEAD: u8 = 0x10;
/// Element rows.
pub const ELEMENT: u8 = 0x20;
/// Expiry index rows, local upkeep.
pub const EXPIRY: u8 = 0x30;
/// Garbage index rows, local upkeep.
pub const GARBAGE: u8 = 0x31;
/// Order index rows, local upkeep.
pub const ORDER: u8 = 0x32;
/// Rows of blocks of the order index, local upkeep.
pub const BLOCK: u8 = 0x33;
/// Cursor rows.
pub const CURSOR: u8 = 0x60;
/// Link floor rows.
pub const LINK_FLOOR: u8 = 0x61;
/// Range floor rows.
pub const RANGE_FLOOR: u8 = 0x62;
/// The live set, one row.
pub const LIVE: u8 = 0x63;
/// Open merge rows.
pub const MERGE: u8 = 0x64;
/// The number of merged states, one row.
pub const MERGES: u8 = 0x65;
/// Up to when ends may have been collected, one row.
pub const FORGOTTEN: u8 = 0x66;
/// What other clusters had of a group of a fenced one.
pub const LEVELLED: u8 = 0x67;
/// The life that the group is in, one row.
pub const LIFE: u8 = 0x68;
/// Whose states were merged since a cluster is fenced, one row.
pub const LEVELS: u8 = 0x69;
/// Since when the group is synced, one row; none if it was born so or is not.
pub const SYNCED: u8 = 0x6A;
/// Rows of the log of losers, local upkeep.
pub const LOSER: u8 = 0x70;

const ESCAPE: u8 = 0x00;
const ESCAPED_ZERO: u8 = 0xFF;
const TERMINATOR: u8 = 0x01;

/// A row key taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RowKey {
    /// The head of a key.
    Head {
        /// The key's slot.
        slot: Slot,
        /// The key.
        key: Bytes,
    },
    /// An element of a key.
    Element {
        /// The key's slot.
        slot: Slot,
        /// The key.
        key: Bytes,
        /// The type it belongs to.
        ty: Type,
        /// Its name.
        name: Bytes,
    },
    /// When a key ends.
    Expiry {
        /// The end, in milliseconds since 1970.
        at: u64,
        /// The key's slot.
        slot: Slot,
        /// The key.
        key: Bytes,
    },
    /// Something waits to be collected.
    Garbage {
        /// The clock of the stamp from which on it can be.
        at: Hlc,
        /// The key's slot.
        slot: Slot,
        /// The key.
        key: Bytes,
        /// The element, or none for the key as a whole.
        element: Option<(Type, Bytes)>,
    },
    /// The full state that is being merged from a source group.
    Merge {
        /// Where its entries were born.
        origin: Origin,
        /// The group there.
        group: GroupId,
    },
    /// How far another cluster's group has been received.
    Cursor {
        /// Where its entries were born.
        origin: Origin,
        /// The group there.
        group: GroupId,
    },
    /// How far a peer has acknowledged this group.
    LinkFloor {
        /// The peer.
        peer: ClusterId,
    },
    /// A write that lost.
    Loser {
        /// Counts the group's losers.
        number: u64,
    },
    /// A row of a kind whose insides are not known here.
    Other {
        /// Its first byte.
        kind: u8,
    },
}

pub(super) fn start(kind: u8, slot: Slot, key: &[u8], more: usize) -> Vec<u8> {
    let mut row = Vec::with_capacity(3 + key.len() + 2 + more);
    row.push(kind);
    put_key(&mut row, slot, key);
    row
}

fn put_key(row: &mut Vec<u8>, slot: Slot, key: &[u8]) {
    row.extend_from_slice(&slot.0.to_be_bytes());
    for part in key.split_inclusive(|&byte| byte == ESCAPE) {
        row.extend_from_slice(part);
        if part.last() == Some(&ESCAPE) {
            row.push(ESCAPED_ZERO);
        }
    }
    row.extend_from_slice(&[ESCAPE, TERMINATOR]);
}

/// What stands right behind a row, or behind any bytes.
pub fn behind(row: &[u8]) -> Bytes {
    [row, &[0]].concat().into()
}

/// The head row of a key.
pub fn head(slot: Slot, key: &[u8]) -> Bytes {
    start(HEAD, slot, key, 0).into()
}

/// An element row of a key.
pub fn element(slot: Slot, key: &[u8], ty: Type, name: &[u8]) -> Bytes {
    let mut row = start(ELEMENT, slot, key, 1 + name.len());
    row.push(ty.number());
    row.extend_from_slice(name);
    row.into()
}

/// The index row that says when a key ends.
pub fn expiry(at: u64, slot: Slot, key: &[u8]) -> Bytes {
    let mut row = Encoder::with_capacity(11 + key.len());
    row.put_u8(EXPIRY);
    row.put_u64(at);
    row.put_slot(slot);
    row.put_raw(key);
    row.into_bytes()
}

/// The index row of something that can be collected from the stamp's clock `at` on.
pub fn garbage(at: Hlc, slot: Slot, key: &[u8], element: Option<(Type, &[u8])>) -> Bytes {
    let name = element.map_or(0, |(_, name)| 1 + name.len());
    let mut row = Vec::with_capacity(13 + key.len() + name);
    row.push(GARBAGE);
    row.extend_from_slice(&at.0.to_be_bytes());
    put_key(&mut row, slot, key);
    if let Some((ty, name)) = element {
        row.push(ty.number());
        row.extend_from_slice(name);
    }
    row.into()
}

/// The garbage index up to a reading of the clock, included.
pub fn garbage_until(at: Hlc) -> Range<Bytes> {
    let mut to = vec![GARBAGE];
    to.extend_from_slice(&at.0.saturating_add(1).to_be_bytes());
    Bytes::from_static(&[GARBAGE])..to.into()
}

/// The row of the full state that is being merged from a source group.
pub fn merge(origin: Origin, group: GroupId) -> Bytes {
    of_source(MERGE, origin, group)
}

/// The row of what other clusters had of a group of a fenced one.
pub fn levelled(origin: Origin, group: GroupId) -> Bytes {
    of_source(LEVELLED, origin, group)
}

/// The one row of a kind that has only one.
pub fn single(kind: u8) -> Bytes {
    Bytes::copy_from_slice(&[kind])
}

/// The cursor row of a source group.
pub fn cursor(origin: Origin, group: GroupId) -> Bytes {
    of_source(CURSOR, origin, group)
}

fn of_source(kind: u8, origin: Origin, group: GroupId) -> Bytes {
    let mut row = Encoder::with_capacity(10);
    row.put_u8(kind);
    row.put_cluster(origin.cluster);
    row.put_u32(origin.incarnation.0);
    row.put_u32(group.0);
    row.into_bytes()
}

/// The row with what a peer has acknowledged.
pub fn link_floor(peer: ClusterId) -> Bytes {
    Bytes::copy_from_slice(&[LINK_FLOOR, peer.0])
}

/// The row of a loser, by number.
pub fn loser(number: u64) -> Bytes {
    let mut row = Encoder::with_capacity(9);
    row.put_u8(LOSER);
    row.put_u64(number);
    row.into_bytes()
}

/// Takes a row key apart.
pub fn decode(row: &[u8]) -> Result<RowKey, DecodeError> {
    let mut input = Decoder::new(row);
    Ok(match input.u8()? {
        HEAD => {
            let slot = input.slot()?;
            let key = unescape(&mut input)?;
            input.finish()?;
            RowKey::Head { slot, key }
        }
        ELEMENT => {
            let slot = input.slot()?;
            let key = unescape(&mut input)?;
            let unknown = input.error("a type that this release knows");
            let ty = Type::from_number(input.u8()?).ok_or(unknown)?;
            RowKey::Element { slot, key, ty, name: input.rest_bytes() }
        }
        EXPIRY => {
            let at = input.u64()?;
            RowKey::Expiry { at, slot: input.slot()?, key: input.rest_bytes() }
        }
        GARBAGE => {
            let at = Hlc(input.u64()?);
            let (slot, key) = (input.slot()?, unescape(&mut input)?);
            let unknown = input.error("a type that this release knows");
            let element = match input.is_empty() {
                true => None,
                false => {
                    let ty = Type::from_number(input.u8()?).ok_or(unknown)?;
                    Some((ty, input.rest_bytes()))
                }
            };
            RowKey::Garbage { at, slot, key, element }
        }
        kind @ (CURSOR | MERGE) => {
            let cluster = input.cluster()?;
            let origin = Origin { cluster, incarnation: Incarnation(input.u32()?) };
            let group = GroupId(input.u32()?);
            input.finish()?;
            match kind {
                CURSOR => RowKey::Cursor { origin, group },
                _ => RowKey::Merge { origin, group },
            }
        }
        LINK_FLOOR => {
            let peer = input.cluster()?;
            input.finish()?;
            RowKey::LinkFloor { peer }
        }
        LOSER => {
            let number = input.u64()?;
            input.finish()?;
            RowKey::Loser { number }
        }
        kind => RowKey::Other { kind },
    })
}

fn unescape(input: &mut Decoder<'_>) -> Result<Bytes, DecodeError> {
    let mut key = Vec::with_capacity(input.remaining());
    loop {
        let error = input.error("an escaped key");
        match input.u8()? {
            ESCAPE => match input.u8()? {
                ESCAPED_ZERO => key.push(0),
                TERMINATOR => return Ok(key.into()),
                _ => return Err(error),
            },
            byte => key.push(byte),
        }
    }
}

/// What the head and element rows of a key have in common behind their kind: slot and escaped key.
/// `None` for rows of other kinds.
pub fn owner(row: &[u8]) -> Option<&[u8]> {
    let (kind, rest) = row.split_first()?;
    match *kind {
        // Not the beginning of a range of slots.
        HEAD => (rest.len() >= 4 && rest.ends_with(&[ESCAPE, TERMINATOR])).then_some(rest),
        ELEMENT => {
            let mut end = 2;
            loop {
                let step = rest.get(end..)?.iter().position(|&byte| byte == ESCAPE)?;
                end += step + 2;
                if rest.get(end - 1) == Some(&TERMINATOR) {
                    return Some(&rest[..end]);
                }
            }
        }
        _ => None,
    }
}

/// All element rows of one type of a key.
pub fn elements_of_type(slot: Slot, key: &[u8], ty: Type) -> Range<Bytes> {
    let mut from = start(ELEMENT, slot, key, 1);
    let mut to = from.clone();
    from.push(ty.number());
    to.push(ty.number() + 1);
    from.into()..to.into()
}

/// The element rows of one type of a key whose names begin so.
pub fn elements_under(slot: Slot, key: &[u8], ty: Type, prefix: &[u8]) -> Range<Bytes> {
    let all = elements_of_type(slot, key, ty);
    let from = element(slot, key, ty, prefix);
    // The next name that does not begin so: the last byte that can grow does, what follows goes.
    let grows = prefix.iter().rposition(|byte| *byte != u8::MAX);
    let end = grows.map(|at| [&prefix[..at], &[prefix[at] + 1]].concat());
    from..end.map_or(all.end, |end| element(slot, key, ty, &end))
}

/// All element rows of a key, of whatever type.
pub fn elements(slot: Slot, key: &[u8]) -> Range<Bytes> {
    let from = start(ELEMENT, slot, key, 0);
    let mut to = from.clone();
    if let Some(last) = to.last_mut() {
        *last = TERMINATOR + 1;
    }
    from.into()..to.into()
}

/// The rows of one kind whose slots are in `slots`; for heads and elements.
pub fn of_slots(kind: u8, slots: SlotRange) -> Range<Bytes> {
    debug_assert!(matches!(kind, HEAD | ELEMENT), "kind {kind:#x} does not begin with a slot");
    let bound = |slot: u16| {
        let [high, low] = slot.to_be_bytes();
        Bytes::copy_from_slice(&[kind, high, low])
    };
    bound(slots.first.0)..bound(slots.last.0 + 1)
}

/// The expiry index up to `ms`, included.
pub fn expiries_until(ms: u64) -> Range<Bytes> {
    let mut to = vec![EXPIRY];
    to.extend_from_slice(&ms.saturating_add(1).to_be_bytes());
    Bytes::from_static(&[EXPIRY])..to.into()
}

/// All rows of a kind.
pub fn of_kind(kind: u8) -> Range<Bytes> {
    Bytes::copy_from_slice(&[kind])..Bytes::copy_from_slice(&[kind + 1])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn keys() -> impl Strategy<Value = Vec<u8>> {
        let byte = prop_oneof![Just(0u8), Just(1), Just(2), Just(0xFE), Just(0xFF), any::<u8>()];
        proptest::collection::vec(byte, 0..6)
    }

    fn holds(range: &Range<Bytes>, row: &Bytes) -> bool {
        range.contains(row)
    }

    proptest! {
        #[test]
        fn rows_stand_in_the_order_of_their_keys(a in keys(), b in keys(), s in 0u16..16_384) {
            let slot = Slot(s);
            prop_assert_eq!(head(slot, &a).cmp(&head(slot, &b)), a.cmp(&b));
            let field = |key: &[u8], name: &[u8]| element(slot, key, Type::Hash, name);
            prop_assert_eq!(field(&a, b"z").cmp(&field(&b, b"a")), a.cmp(&b).then("z".cmp("a")));
        }

        #[test]
        fn row_keys_survive_being_taken_apart(a in keys(), b in keys(), s in 0u16..16_384) {
            let (slot, key, name) = (Slot(s), Bytes::from(a), Bytes::from(b));
            let row = head(slot, &key);
            prop_assert_eq!(decode(&row).unwrap(), RowKey::Head { slot, key: key.clone() });
            let row = element(slot, &key, Type::Hash, &name);
            let whole = RowKey::Element { slot, key: key.clone(), ty: Type::Hash, name };
            prop_assert_eq!(decode(&row).unwrap(), whole);
            for element in [None, Some((Type::Hash, Bytes::from_static(b"f\0")))] {
                let named = element.as_ref().map(|(ty, name)| (*ty, &name[..]));
                let row = garbage(Hlc(88), slot, &key, named);
                let whole = RowKey::Garbage { at: Hlc(88), slot, key: key.clone(), element };
                prop_assert_eq!(decode(&row).unwrap(), whole);
            }
            let row = expiry(77, slot, &key);
            prop_assert_eq!(decode(&row).unwrap(), RowKey::Expiry { at: 77, slot, key });
        }

        #[test]
        fn a_range_holds_the_rows_of_its_key_alone(a in keys(), b in keys(), name in keys()) {
            let slot = Slot(5);
            let row = element(slot, &a, Type::Hash, &name);
            prop_assert_eq!(holds(&elements(slot, &b), &row), a == b);
            prop_assert_eq!(holds(&elements_of_type(slot, &b, Type::Hash), &row), a == b);
            for cut in 0..=name.len() {
                let under = elements_under(slot, &a, Type::Hash, &name[..cut]);
                prop_assert!(holds(&under, &row));
                for row in [under.start, under.end] {
                    prop_assert!(row >= elements_of_type(slot, &a, Type::Hash).start);
                    prop_assert!(row <= elements_of_type(slot, &a, Type::Hash).end);
                }
            }
            prop_assert!(!holds(&elements_of_type(slot, &b, Type::String), &row));
        }

        #[test]
        fn garbage_is_an_error_or_a_row_key(
            bytes in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            let _ = decode(&bytes);
        }
    }

    #[test]
    fn slots_and_ends_bound_their_rows() {
        let all = of_slots(HEAD, SlotRange::ALL);
        assert!(holds(&all, &head(Slot(0), b"")) && holds(&all, &head(Slot(16_383), b"\xFF")));
        let some = of_slots(HEAD, SlotRange { first: Slot(3), last: Slot(4) });
        let inside = [2, 3, 4, 5].map(|slot| holds(&some, &head(Slot(slot), b"k")));
        assert_eq!(inside, [false, true, true, false]);
        let ended = expiries_until(1000);
        let inside = [0, 1000, 1001].map(|at| holds(&ended, &expiry(at, Slot(9), b"k")));
        assert_eq!(inside, [true, true, false]);
    }

    #[test]
    fn golden_row_keys() {
        assert_eq!(&head(Slot(0x0102), b"a\0b")[..], b"\x10\x01\x02a\x00\xFFb\x00\x01");
        let field = element(Slot(1), b"k", Type::Hash, b"f\0");
        assert_eq!(&field[..], b"\x20\x00\x01k\x00\x01\x02f\x00");
        assert_eq!(&expiry(258, Slot(1), b"k")[..], b"\x30\0\0\0\0\0\0\x01\x02\x00\x01k");
        let origin = Origin { cluster: ClusterId(7), incarnation: Incarnation(2) };
        assert_eq!(&cursor(origin, GroupId(3))[..], b"\x60\x07\0\0\0\x02\0\0\0\x03");
        assert_eq!(&link_floor(ClusterId(9))[..], b"\x61\x09");
        assert_eq!(&loser(258)[..], b"\x70\0\0\0\0\0\0\x01\x02");
        assert_eq!(decode(&loser(258)).unwrap(), RowKey::Loser { number: 258 });
    }
}
