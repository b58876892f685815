//! Hash slots, as in Redis Cluster: CRC16 (XMODEM) of the key or of its `{hash tag}`, modulo 16384.

use serde::{Deserialize, Serialize};
use std::fmt;

/// How many slots a namespace has.
pub const SLOT_COUNT: u16 = 16_384;

/// A hash slot, 0 to 16383.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Slot(pub u16);

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl Slot {
    /// The slot of a key. Only what stands between the first `{` and the next `}` counts, if that
    /// is not empty, so that keys with one hash tag share a slot.
    pub fn of(key: &[u8]) -> Slot {
        Slot(crc16(hash_tag(key)) % SLOT_COUNT)
    }
}

fn hash_tag(key: &[u8]) -> &[u8] {
    let Some(open) = key.iter().position(|&b| b == b'{') else { return key };
    match key[open + 1..].iter().position(|&b| b == b'}') {
        Some(len) if len > 0 => &key[open + 1..open + 1 + len],
        _ => key,
    }
}

/// A contiguous range of slots, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SlotRange {
    /// First slot.
    pub first: Slot,
    /// Last slot, included.
    pub last: Slot,
}

impl SlotRange {
    /// All slots.
    pub const ALL: SlotRange = SlotRange { first: Slot(0), last: Slot(SLOT_COUNT - 1) };

    /// Whether `slot` lies in the range.
    pub fn contains(&self, slot: Slot) -> bool {
        self.first <= slot && slot <= self.last
    }

    /// The slots that both have.
    pub fn common(&self, other: &SlotRange) -> Option<SlotRange> {
        let common =
            SlotRange { first: self.first.max(other.first), last: self.last.min(other.last) };
        (common.first <= common.last).then_some(common)
    }

    /// What is left of it without another range: none, one or two ranges.
    pub fn without(&self, other: &SlotRange) -> impl Iterator<Item = SlotRange> {
        let before = SlotRange {
            first: self.first,
            last: Slot(self.last.0.min(other.first.0.saturating_sub(1))),
        };
        let after = SlotRange {
            first: Slot(self.first.0.max(other.last.0.saturating_add(1))),
            last: self.last,
        };
        let before = (self.first < other.first).then_some(before);
        let after = (self.last > other.last).then_some(after);
        before.into_iter().chain(after)
    }

    /// Whether the ranges share a slot.
    pub fn intersects(&self, other: &SlotRange) -> bool {
        self.first <= other.last && other.first <= self.last
    }

    /// The range of partition `index` of `count`, so that sizes differ by one at most.
    ///
    /// # Panics
    /// If `index >= count` or `count` is 0 or more than [`SLOT_COUNT`].
    pub fn partition(index: u32, count: u32) -> SlotRange {
        assert!(index < count && count <= u32::from(SLOT_COUNT), "partition {index} of {count}");
        let bound = |i: u32| (u64::from(i) * u64::from(SLOT_COUNT) / u64::from(count)) as u16;
        SlotRange { first: Slot(bound(index)), last: Slot(bound(index + 1) - 1) }
    }
}

impl fmt::Display for SlotRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

const CRC16_TABLE: [u16; 256] = {
    let mut table = [0u16; 256];
    let mut i = 0;
    while i < 256 {
        let mut crc = (i as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 != 0 { (crc << 1) ^ 0x1021 } else { crc << 1 };
            bit += 1;
        }
        table[i] = crc;
        i += 1;
    }
    table
};

fn crc16(bytes: &[u8]) -> u16 {
    bytes
        .iter()
        .fold(0, |crc, &byte| (crc << 8) ^ CRC16_TABLE[usize::from((crc >> 8) as u8 ^ byte)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc16_is_the_one_of_redis_cluster() {
        assert_eq!(crc16(b"123456789"), 0x31C3); // check value from the cluster specification
        assert_eq!(Slot::of(b"foo"), Slot(12182)); // redis-cli: CLUSTER KEYSLOT foo
        assert_eq!(Slot::of(b"{user1000}.following"), Slot::of(b"{user1000}.followers"));
        assert_eq!(Slot::of(b"foo{}{bar}"), Slot(crc16(b"foo{}{bar}") % SLOT_COUNT));
        assert_eq!(Slot::of(b"foo{{bar}}zap"), Slot(crc16(b"{bar") % SLOT_COUNT));
    }

    #[test]
    fn partitions_cover_every_slot_once() {
        for count in [1, 2, 3, 7, 8, 100, 16_384] {
            let mut next = 0;
            for index in 0..count {
                let range = SlotRange::partition(index, count);
                assert_eq!(range.first.0, next);
                assert!(range.last >= range.first);
                next = range.last.0 + 1;
            }
            assert_eq!(next, SLOT_COUNT);
        }
    }
}
