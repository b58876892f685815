//! What a replica's rows are, counted by a scan of all of them: live data, and what waits to be
//! collected. Payload of RPC kind 37; any replica answers.

use crate::codec::{DecodeError, Decoder, Encoder};
use crate::engine::keys::{self, RowKey};
use crate::engine::rows::FrozenRows;
use crate::engine::view::Rows;
use crate::group::Group;
use crate::group::remote::Outcome;
use crate::group::synced;
use crate::model::{Head, Type, decode_element_since, decode_head_since};
use bytes::Bytes;
use flotilla_topology::ids::GroupId;
use flotilla_topology::slot::SlotRange;
use flotilla_topology::stamp::Stamp;
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

fn corrupt(error: DecodeError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// Counts rows as seen at `now_ms`.
pub fn count(rows: &dyn Rows, now_ms: u64) -> io::Result<Census> {
    let mut census = Census::default();
    let since = synced::unstamped(rows)?;
    let queue = rows.scan(keys::of_kind(keys::GARBAGE), false);
    census.queued = queue.map(|row| row.map(|_| 1)).sum::<io::Result<u64>>()?;
    for row in rows.scan(keys::of_slots(keys::HEAD, SlotRange::ALL), false) {
        let (key, value) = row?;
        let head = decode_head_since(&value, since).map_err(corrupt)?;
        let RowKey::Head { slot, key } = keys::decode(&key).map_err(corrupt)? else { continue };
        census_of_key((rows, since), &head, now_ms, keys::elements(slot, &key), &mut census)?;
    }
    Ok(census)
}

fn census_of_key(
    (rows, since): (&dyn Rows, Stamp),
    head: &Head,
    now_ms: u64,
    elements: std::ops::Range<Bytes>,
    census: &mut Census,
) -> io::Result<()> {
    let floor = head.floor_at(now_ms);
    let string = head.ty() == Some(Type::String) && head.string.exists(floor);
    let mut visible = u64::from(string);
    for row in rows.scan(elements, false) {
        let (key, value) = row?;
        let RowKey::Element { ty, .. } = keys::decode(&key).map_err(corrupt)? else { continue };
        let element = decode_element_since(&value, since).map_err(corrupt)?;
        match Some(ty) == head.ty() && element.exists(floor) {
            true => visible += 1,
            false => census.tombstones += 1,
        }
    }
    census.elements += visible;
    census.keys += u64::from(visible > 0);
    census.dead_heads += u64::from(visible == 0);
    // A string's floor under its own stamp costs nothing and hides nothing that is there.
    let bare = visible > 0 && head.garbage().is_none();
    census.floors += u64::from(!head.floor.is_none() && !bare);
    let lapsed = |end: u64| end == 0 || end <= now_ms;
    census.lapsed += u64::from(head.expiry.is_some_and(|expiry| lapsed(expiry.at)));
    Ok(())
}
