//! Reading the full state of a group: whole rows key by key, head first, from any place and in
//! stretches of any size.

use crate::codec::{DecodeError, Decoder, Encoder};
use crate::engine::keys::{self, RowKey};
use crate::engine::view::{Row, RowIter, Rows};
use crate::flaws::{self, Flaw};
use crate::group::synced;
use crate::model::{Effect, Head, decode_element_since, decode_head_since};
use bytes::Bytes;
use flotilla_topology::slot::{Slot, SlotRange};
use flotilla_topology::stamp::Stamp;
use std::io;
use std::iter::Peekable;
use std::ops::Range;

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

/// The rows of one slot, or those between two places of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stretch {
    /// The slot.
    pub slot: Slot,
    /// From here on; from the slot's first row if none.
    pub from: Option<Resume>,
    /// Up to here, excluded; up to the slot's end if none.
    pub to: Option<Resume>,
}

impl Stretch {
    /// All rows of a slot.
    pub fn of_slot(slot: Slot) -> Stretch {
        Stretch { slot, from: None, to: None }
    }

    fn slots(&self) -> SlotRange {
        SlotRange { first: self.slot, last: self.slot }
    }

    /// Where it begins.
    pub fn begin(&self) -> Resume {
        self.from.clone().unwrap_or_else(|| Resume::at(self.slots()))
    }

    /// Where it ends.
    pub fn end(&self) -> Resume {
        self.to.clone().unwrap_or_else(|| Resume::behind(self.slots()))
    }

    /// Its head rows.
    pub fn heads(&self) -> Range<Bytes> {
        self.begin().heads..self.end().heads
    }

    /// Its element rows.
    pub fn elements(&self) -> Range<Bytes> {
        self.begin().elements..self.end().elements
    }

    /// Whether its places are of its slot, and in order: what is told may be anything.
    pub fn is_sound(&self) -> bool {
        let within = |of: fn(&Resume) -> &Bytes| {
            let (first, end) = (Resume::at(self.slots()), Resume::behind(self.slots()));
            let (from, to) = (self.begin(), self.end());
            of(&first) <= of(&from) && of(&from) <= of(&to) && of(&to) <= of(&end)
        };
        within(|place| &place.heads) && within(|place| &place.elements)
    }

    /// Bytes that it takes at least: what [`Decoder::count`] needs to know.
    pub const BYTES_MIN: usize = 4;

    /// Appends it.
    pub fn put(&self, out: &mut Encoder) {
        out.put_slot(self.slot);
        out.put_option(self.from.as_ref(), |out, from| from.put(out));
        out.put_option(self.to.as_ref(), |out, to| to.put(out));
    }

    /// Reads it.
    pub fn take(from: &mut Decoder<'_>) -> Result<Stretch, DecodeError> {
        Ok(Stretch {
            slot: from.slot()?,
            from: from.option(Resume::take)?,
            to: from.option(Resume::take)?,
        })
    }
}

/// All rows of a stretch as effects, or of those keys of it that are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StretchRows {
    /// Which.
    pub stretch: Stretch,
    /// Encoded effects, of each key the head first.
    pub effects: Vec<Bytes>,
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
}

fn corrupt(error: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error.to_string())
}

impl<'a> Units<'a> {
    /// The rows of `slots` from `from` on. `now_ms` is the group's clock.
    pub fn new(rows: &'a dyn Rows, slots: SlotRange, from: &Resume, now_ms: u64) -> Units<'a> {
        Units::between(rows, from, Resume::behind(slots), now_ms)
    }

    /// The rows of a stretch. `now_ms` is the group's clock.
    pub fn of(rows: &'a dyn Rows, stretch: &Stretch, now_ms: u64) -> Units<'a> {
        Units::between(rows, &stretch.begin(), stretch.end(), now_ms)
    }

    fn between(rows: &'a dyn Rows, from: &Resume, end: Resume, now_ms: u64) -> Units<'a> {
        let heads = rows.scan(from.heads.clone()..end.heads, false);
        let elements = rows.scan(from.elements.clone()..end.elements, false);
        let lapsed_at = flaws::has(Flaw::LapsedLeftOut).then_some(now_ms);
        let (heads, elements) = (heads.peekable(), elements.peekable());
        let unstamped = synced::unstamped(rows);
        Units { heads, elements, lapsed_at, head: None, unstamped }
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
        let since = *self.unstamped.as_ref().map_err(corrupt)?;
        match keys::decode(&row.0).map_err(corrupt)? {
            RowKey::Head { slot, key } => {
                let next = resume(slot, &key, head_first, &row.0);
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
                let next = resume(slot, &key, head_first, &row.0);
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
}

/// The place behind a row of a key: before all rows of later keys, whoever has such.
fn resume(slot: Slot, key: &Bytes, was_head: bool, row: &Bytes) -> Resume {
    match was_head {
        true => Resume { heads: keys::behind(row), elements: keys::elements(slot, key).start },
        false => {
            Resume { heads: keys::behind(&keys::head(slot, key)), elements: keys::behind(row) }
        }
    }
}

impl Iterator for Units<'_> {
    type Item = io::Result<Unit>;

    fn next(&mut self) -> Option<io::Result<Unit>> {
        self.unit().transpose()
    }
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
    use crate::model::{Element, Type, encode_element, encode_head};
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
}
