//! What a replica's rows are, counted by a scan of all of them: live data, and what waits to be
//! collected. Payload of RPC kind 37; any replica answers.

use crate::codec::{DecodeError, Decoder, Encoder};
use crate::engine::keys;
use crate::engine::rows::FrozenRows;
use crate::engine::view::Rows;
use crate::group::Group;
use crate::group::remote::Outcome;
use crate::group::rows::{Resume, Unit, Units};
use crate::model::{Effect, Element, Floor, Head, Type};
use bytes::Bytes;
use flotilla_topology::ids::GroupId;
use flotilla_topology::slot::SlotRange;
use std::io;
use std::ops::AddAssign;

const CENSUS_VERSION: u8 = 1;

/// Counts of rows. Of a synced namespace that is quiet, only the first two are not zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Census {
    /// Keys that are visible.
    pub keys: u64,
    /// Elements that are visible, strings included.
    pub elements: u64,
    /// Heads of keys that are not visible.
    pub dead_heads: u64,
    /// Floors that hide something, or may.
    pub floors: u64,
    /// Elements that were removed or lie under a floor.
    pub tombstones: u64,
    /// Expiries that have passed or were taken back.
    pub lapsed: u64,
    /// Rows of the garbage index.
    pub queued: u64,
}

impl Census {
    /// Rows and parts of rows that wait to be collected.
    pub fn garbage(&self) -> u64 {
        self.dead_heads + self.floors + self.tombstones + self.lapsed + self.queued
    }

    fn fields(&mut self) -> [&mut u64; 7] {
        [
            &mut self.keys,
            &mut self.elements,
            &mut self.dead_heads,
            &mut self.floors,
            &mut self.tombstones,
            &mut self.lapsed,
            &mut self.queued,
        ]
    }
}

impl AddAssign for Census {
    fn add_assign(&mut self, mut other: Census) {
        for (sum, more) in self.fields().into_iter().zip(other.fields()) {
            *sum += *more;
        }
    }
}

impl Outcome for Census {
    fn put(&self, out: &mut Encoder) {
        let mut all = *self;
        all.fields().into_iter().for_each(|count| out.put_varint(*count));
    }

    fn take(from: &mut Decoder<'_>) -> Result<Census, DecodeError> {
        let mut census = Census::default();
        for count in census.fields() {
            *count = from.varint()?;
        }
        Ok(census)
    }
}

/// The payload: which group.
pub fn encode_request(group: GroupId) -> Bytes {
    let mut out = Encoder::new();
    out.put_u8(CENSUS_VERSION);
    out.put_group(group);
    out.into_bytes()
}

/// Reads it.
pub fn decode_request(payload: &[u8]) -> Result<GroupId, DecodeError> {
    let mut input = Decoder::new(payload);
    input.version(CENSUS_VERSION)?;
    let group = input.group()?;
    input.finish()?;
    Ok(group)
}

/// Counts a replica's applied rows. Blocks on the disk.
pub fn census(group: &Group) -> io::Result<Census> {
    let (rows, meta) = FrozenRows::of_group(group.engine(), group.context.group)?;
    count(&rows, meta.clock.ms())
}

/// Counts rows as seen at `now_ms`, in one walk over heads and elements.
pub fn count(rows: &dyn Rows, now_ms: u64) -> io::Result<Census> {
    let mut census = Census::default();
    let queue = rows.scan(keys::of_kind(keys::GARBAGE), false);
    census.queued = queue.map(|row| row.map(|_| 1)).sum::<io::Result<u64>>()?;
    let mut open: Option<KeyCount> = None;
    for unit in Units::new(rows, SlotRange::ALL, &Resume::at(SlotRange::ALL), 0) {
        let Unit { key, effect, .. } = unit?;
        if let Some(other) = open.take_if(|open| open.key != key) {
            other.end(now_ms, &mut census);
        }
        match effect {
            Effect::Head { head, .. } => open = Some(KeyCount::new(key, head, now_ms)),
            Effect::Element { ty, element, .. } => match &mut open {
                Some(open) if open.shows(ty, &element) => open.visible += 1,
                _ => census.tombstones += 1,
            },
        }
    }
    if let Some(last) = open {
        last.end(now_ms, &mut census);
    }
    Ok(census)
}

/// The key whose rows are being walked over.
struct KeyCount {
    key: Bytes,
    head: Head,
    floor: Floor,
    visible: u64,
}

impl KeyCount {
    fn new(key: Bytes, head: Head, now_ms: u64) -> KeyCount {
        let floor = head.floor_at(now_ms);
        let string = head.ty() == Some(Type::String) && head.string.exists(floor);
        KeyCount { key, head, floor, visible: u64::from(string) }
    }

    fn shows(&self, ty: Type, element: &Element) -> bool {
        Some(ty) == self.head.ty() && element.exists(self.floor)
    }

    fn end(self, now_ms: u64, census: &mut Census) {
        let KeyCount { head, visible, .. } = self;
        census.elements += visible;
        census.keys += u64::from(visible > 0);
        census.dead_heads += u64::from(visible == 0);
        // A string's floor under its own stamp costs nothing and hides nothing that is there.
        let bare = visible > 0 && head.garbage().is_none();
        census.floors += u64::from(!head.floor.is_none() && !bare);
        let lapsed = |end: u64| end == 0 || end <= now_ms;
        census.lapsed += u64::from(head.expiry.is_some_and(|expiry| lapsed(expiry.at)));
    }
}
