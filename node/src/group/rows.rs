//! Reading the full state of a group: whole rows key by key, head first, and what two clusters
//! compare to find out which rows must travel.
//!
//! A state digest covers everything that a join looks at, hidden or not: tombstones, floors, claims
//! and sums too. If two groups have the same digest of a slot, joining one into the other changes
//! nothing, so nothing of that slot needs to travel; if they differ only in what one of them has
//! collected already, the rows travel in vain and change nothing either. Counts and what was forgotten
//! are not covered: they are each cluster's own.

use crate::codec::{DecodeError, Decoder, Encoder};
use crate::engine::keys::{self, RowKey};
use crate::engine::view::{Row, RowIter, Rows};
use crate::eval::Mix;
use crate::flaws::{self, Flaw};
use crate::group::synced;
use crate::model::{Effect, Head, decode_element_since, decode_head_since, encode_head};
use bytes::Bytes;
use flotilla_topology::slot::{Slot, SlotRange};
use flotilla_topology::stamp::Stamp;
use std::io;
use std::iter::Peekable;
use std::ops::Range;

/// Seed of state digests.
const SEED: u64 = 0x5374_6174;
/// Seed of the hashes that stand for keys.
const KEY_SEED: u64 = 0x4B65_7973;

/// One row of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    /// The key's slot.
    pub slot: Slot,
    /// The key.
    pub key: Bytes,
    /// The row.
    pub effect: Effect,
    /// Where reading goes on behind it.
    pub next: Resume,
}

/// A place between two rows of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resume {
    heads: Bytes,
    elements: Bytes,
}

impl Resume {
    /// Before the first row of some slots.
    pub fn at(slots: SlotRange) -> Resume {
        let start = |kind| keys::of_slots(kind, slots).start;
        Resume { heads: start(keys::HEAD), elements: start(keys::ELEMENT) }
    }

    /// Behind a head row and an element row.
    pub fn new(heads: Bytes, elements: Bytes) -> Resume {
        Resume { heads, elements }
    }

    /// Behind the last row of some slots.
    pub fn behind(slots: SlotRange) -> Resume {
        let end = |kind| keys::of_slots(kind, slots).end;
        Resume { heads: end(keys::HEAD), elements: end(keys::ELEMENT) }
    }

    /// Appends it.
    pub fn put(&self, out: &mut Encoder) {
        out.put_bytes(&self.heads);
        out.put_bytes(&self.elements);
    }

    /// Reads it.
    pub fn take(from: &mut Decoder<'_>) -> Result<Resume, DecodeError> {
        Ok(Resume { heads: from.bytes(usize::MAX)?, elements: from.bytes(usize::MAX)? })
    }
}

/// All rows between two places of one slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stretch {
    /// From here on,
    pub from: Resume,
    /// up to here, excluded.
    pub to: Resume,
}

impl Stretch {
    /// All rows of a slot.
    pub fn of_slot(slot: Slot) -> Stretch {
        let slots = SlotRange { first: slot, last: slot };
        Stretch { from: Resume::at(slots), to: Resume::behind(slots) }
    }

    /// Its head rows.
    pub fn heads(&self) -> Range<Bytes> {
        self.from.heads.clone()..self.to.heads.clone()
    }

    /// Its element rows.
    pub fn elements(&self) -> Range<Bytes> {
        self.from.elements.clone()..self.to.elements.clone()
    }

    /// Whether it lies within some slots.
    pub fn is_within(&self, slots: SlotRange) -> bool {
        let (first, end) = (Resume::at(slots), Resume::behind(slots));
        let within = |from: &Bytes, to: &Bytes, first: &Bytes, end: &Bytes| {
            first <= from && from <= to && to <= end
        };
        within(&self.from.heads, &self.to.heads, &first.heads, &end.heads)
            && within(&self.from.elements, &self.to.elements, &first.elements, &end.elements)
    }

    /// Appends it.
    pub fn put(&self, out: &mut Encoder) {
        self.from.put(out);
        self.to.put(out);
    }

    /// Reads it.
    pub fn take(from: &mut Decoder<'_>) -> Result<Stretch, DecodeError> {
        Ok(Stretch { from: Resume::take(from)?, to: Resume::take(from)? })
    }
}

/// The rows of some slots, key by key.
pub struct Units<'a> {
    heads: Peekable<RowIter<'a>>,
    elements: Peekable<RowIter<'a>>,
    /// What lapsed before is left out; only a flaw does that.
    lapsed_at: Option<u64>,
    head: Option<Head>,
    /// What rows without stamps are stamped by, or why that could not be read.
    unstamped: io::Result<Stamp>,
    /// Behind the last row.
    end: Resume,
}

fn corrupt(error: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error.to_string())
}

/// Row key behind this one.
fn behind(row: &Bytes) -> Bytes {
    [&row[..], &[0]].concat().into()
}

impl<'a> Units<'a> {
    /// The rows of `slots` from `from` on. `now_ms` is the group's clock.
    pub fn new(rows: &'a dyn Rows, slots: SlotRange, from: &Resume, now_ms: u64) -> Units<'a> {
        let end = Resume::behind(slots);
        let heads = rows.scan(from.heads.clone()..end.heads.clone(), false);
        let elements = rows.scan(from.elements.clone()..end.elements.clone(), false);
        let lapsed_at = flaws::has(Flaw::LapsedLeftOut).then_some(now_ms);
        let (heads, elements) = (heads.peekable(), elements.peekable());
        let unstamped = synced::unstamped(rows);
        Units { heads, elements, lapsed_at, head: None, unstamped, end }
    }

    /// The key part of a row behind its kind, for the order of rows of two kinds.
    fn place(row: Option<&io::Result<Row>>) -> Option<Bytes> {
        let (key, _) = row?.as_ref().ok()?;
        let len = match keys::decode(key) {
            Ok(RowKey::Element { name, .. }) => key.len() - 1 - name.len(),
            _ => key.len(),
        };
        Some(key.slice(1..len))
    }

    fn unit(&mut self) -> io::Result<Option<Unit>> {
        let (head, element) = (Self::place(self.heads.peek()), Self::place(self.elements.peek()));
        let head_first = match (&head, &element) {
            (Some(head), Some(element)) => head <= element,
            (head, _) => head.is_some() || self.heads.peek().is_some(),
        };
        let row = if head_first { self.heads.next() } else { self.elements.next() };
        let Some(row) = row.transpose()? else { return Ok(None) };
        let next = self.resume(head_first, &row.0);
        let since = *self.unstamped.as_ref().map_err(corrupt)?;
        match keys::decode(&row.0).map_err(corrupt)? {
            RowKey::Head { slot, key } => {
                let mut head = decode_head_since(&row.1, since).map_err(corrupt)?;
                head.count = None;
                self.head = Some(head.clone());
                if let Some(now) = self.lapsed_at {
                    head.string.trim(head.floor_at(now));
                }
                let effect = Effect::Head { slot, key: key.clone(), head };
                Ok(Some(Unit { slot, key, effect, next }))
            }
            RowKey::Element { slot, key, ty, name } => {
                let mut element = decode_element_since(&row.1, since).map_err(corrupt)?;
                if let (Some(now), Some(head)) = (self.lapsed_at, &self.head) {
                    element.trim(head.floor_at(now));
                }
                let effect = Effect::Element { slot, key: key.clone(), ty, name, element };
                Ok(Some(Unit { slot, key, effect, next }))
            }
            _ => Err(corrupt("a row of another kind among heads and elements")),
        }
    }

    fn resume(&mut self, was_head: bool, row: &Bytes) -> Resume {
        let start = |rows: &mut Peekable<RowIter<'a>>, end: &Bytes| match rows.peek() {
            Some(Ok((key, _))) => key.clone(),
            _ => end.clone(),
        };
        if was_head {
            Resume { heads: behind(row), elements: start(&mut self.elements, &self.end.elements) }
        } else {
            Resume { heads: start(&mut self.heads, &self.end.heads), elements: behind(row) }
        }
    }
}

impl Iterator for Units<'_> {
    type Item = io::Result<Unit>;

    fn next(&mut self) -> Option<io::Result<Unit>> {
        self.unit().transpose()
    }
}

/// What stands for a key in comparisons.
pub fn key_hash(key: &[u8]) -> u64 {
    let mut mix = Mix::new(KEY_SEED);
    mix.bytes(key);
    mix.finish()
}

/// Of one row.
fn row_digest(effect: &Effect) -> u64 {
    let mut mix = Mix::new(SEED);
    mix.bytes(effect.key());
    match effect {
        Effect::Head { head, .. } => {
            mix.bytes(&encode_head(&Head { forgotten: 0, ..head.clone() }));
        }
        Effect::Element { ty, name, element, .. } => {
            mix.number(u64::from(ty.number()));
            mix.bytes(name);
            mix.bytes(&crate::model::encode_element(element));
        }
    }
    mix.finish()
}

/// What each row of some slots adds to a state digest, with its slot and key, in order.
pub fn row_digests(
    rows: &dyn Rows,
    slots: SlotRange,
) -> impl Iterator<Item = io::Result<(Slot, Bytes, u64)>> + '_ {
    let units = Units::new(rows, slots, &Resume::at(slots), 0);
    units.map(|unit| unit.map(|unit| (unit.slot, unit.key, row_digest(&unit.effect))))
}

/// The state digest of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotState {
    /// The slot.
    pub slot: Slot,
    /// Sum over its rows.
    pub sum: u64,
    /// Rows, so that who compares knows how much it is about.
    pub rows: u64,
}

/// The state digest of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyState {
    /// Stands for the key.
    pub key: u64,
    /// Sum over its rows.
    pub sum: u64,
}

/// State digests of those slots of a range that have any rows, in order.
pub fn slot_states(rows: &dyn Rows, slots: SlotRange) -> io::Result<Vec<SlotState>> {
    let mut states: Vec<SlotState> = Vec::new();
    for unit in Units::new(rows, slots, &Resume::at(slots), 0) {
        let unit = unit?;
        let digest = row_digest(&unit.effect);
        match states.last_mut().filter(|state| state.slot == unit.slot) {
            Some(state) => {
                state.sum = state.sum.wrapping_add(digest);
                state.rows += 1;
            }
            None => states.push(SlotState { slot: unit.slot, sum: digest, rows: 1 }),
        }
    }
    Ok(states)
}

/// State digests of the keys of a slot, in the order of their hashes.
pub fn key_states(rows: &dyn Rows, slot: Slot) -> io::Result<Vec<KeyState>> {
    let slots = SlotRange { first: slot, last: slot };
    let mut states: Vec<KeyState> = Vec::new();
    let mut last: Option<Bytes> = None;
    for unit in Units::new(rows, slots, &Resume::at(slots), 0) {
        let unit = unit?;
        let digest = row_digest(&unit.effect);
        match states.last_mut().filter(|_| last.as_ref() == Some(&unit.key)) {
            Some(state) => state.sum = state.sum.wrapping_add(digest),
            None => states.push(KeyState { key: key_hash(&unit.key), sum: digest }),
        }
        last = Some(unit.key);
    }
    states.sort_unstable();
    Ok(states)
}

/// A slot whose state is another at the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DifferentSlot {
    /// Which.
    pub slot: Slot,
    /// The target has nothing there: keys need not be compared.
    pub empty: bool,
}

/// Slots of `theirs` whose state is another here. One without rows has sum 0.
pub fn differing_slots(rows: &dyn Rows, theirs: &[SlotState]) -> io::Result<Vec<DifferentSlot>> {
    let (Some(first), Some(last)) = (theirs.first(), theirs.last()) else { return Ok(Vec::new()) };
    let ours = slot_states(rows, SlotRange { first: first.slot, last: last.slot })?;
    let different = |state: &SlotState| {
        let at = ours.binary_search_by_key(&state.slot, |ours| ours.slot);
        let (sum, rows) = at.map_or((0, 0), |at| (ours[at].sum, ours[at].rows));
        let differs = (sum, rows) != (state.sum, state.rows);
        differs.then_some(DifferentSlot { slot: state.slot, empty: rows == 0 })
    };
    Ok(theirs.iter().filter_map(different).collect())
}

/// Keys of `theirs` (all of a slot, by hash) whose state is another here.
pub fn differing_keys(rows: &dyn Rows, slot: Slot, theirs: &[KeyState]) -> io::Result<Vec<u64>> {
    let ours = key_states(rows, slot)?;
    let differs = |state: &&KeyState| ours.binary_search(state).is_err();
    Ok(theirs.iter().filter(differs).map(|state| state.key).collect())
}

/// An effect as it travels.
pub fn encode_effect(effect: &Effect) -> Bytes {
    let mut out = Encoder::with_capacity(64);
    effect.to_wire(&mut out);
    out.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Element, Type, encode_element};
    use flotilla_topology::ids::ClusterId;
    use flotilla_topology::stamp::Hlc;
    use std::collections::BTreeMap;

    fn element(text: &'static str) -> Element {
        let stamp = Stamp { hlc: Hlc(5), cluster: ClusterId(1) };
        Element::of(stamp, Bytes::from_static(text.as_bytes()))
    }

    /// Heads a, c, d; elements of b (an orphan) and c.
    fn rows() -> BTreeMap<Bytes, Bytes> {
        let mut rows = BTreeMap::new();
        for key in [b"a", b"c", b"d"] {
            let head = Head { string: element("v"), ..Head::default() };
            rows.insert(keys::head(Slot(7), key), encode_head(&head));
        }
        for (key, name) in [(b"b", b"x"), (b"c", b"y"), (b"c", b"z")] {
            rows.insert(
                keys::element(Slot(7), key, Type::Hash, name),
                encode_element(&element("w")),
            );
        }
        rows.insert(keys::head(Slot(9), b"e"), encode_head(&Head::default()));
        rows
    }

    fn names(units: Units<'_>) -> Vec<String> {
        let name = |unit: io::Result<Unit>| match unit.unwrap().effect {
            Effect::Head { key, .. } => String::from_utf8(key.to_vec()).unwrap(),
            Effect::Element { key, name, .. } => {
                format!("{}.{}", key.escape_ascii(), name.escape_ascii())
            }
        };
        units.map(name).collect()
    }

    #[test]
    fn a_key_comes_whole_head_first_and_reading_goes_on_anywhere() {
        let rows = rows();
        let all = ["a", "b.x", "c", "c.y", "c.z", "d", "e"];
        let start = Resume::at(SlotRange::ALL);
        assert_eq!(names(Units::new(&rows, SlotRange::ALL, &start, 0)), all);
        let units = Units::new(&rows, SlotRange::ALL, &start, 0);
        for (index, unit) in units.enumerate() {
            let next = unit.unwrap().next;
            let rest = names(Units::new(&rows, SlotRange::ALL, &next, 0));
            assert_eq!(rest, all[index + 1..], "behind {}", all[index]);
        }
    }

    #[test]
    fn only_what_differs_is_named() {
        let (ours, mut theirs) = (rows(), rows());
        let same = slot_states(&theirs, SlotRange::ALL).unwrap();
        assert_eq!(differing_slots(&ours, &same).unwrap(), []);
        theirs
            .insert(keys::element(Slot(7), b"c", Type::Hash, b"z"), encode_element(&element("!")));
        theirs.insert(keys::head(Slot(8), b"new"), encode_head(&Head::default()));
        let other = slot_states(&theirs, SlotRange::ALL).unwrap();
        assert_eq!(
            differing_slots(&ours, &other).unwrap(),
            [
                DifferentSlot { slot: Slot(7), empty: false },
                DifferentSlot { slot: Slot(8), empty: true },
            ]
        );
        let keys = key_states(&theirs, Slot(7)).unwrap();
        assert_eq!(differing_keys(&ours, Slot(7), &keys).unwrap(), [key_hash(b"c")]);
    }
}
