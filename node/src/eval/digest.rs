//! Convergence digests: what clusters compare to find out whether they hold the same.
//!
//! Per slot, the sum of a 128-bit hash over everything visible at one group time: each element
//! with key, type, name, value and stamp, and each expiry with its end. Sums have no order, so the
//! digest does not depend on how many groups a cluster has. Tombstones, floors and claims are not
//! in it: clusters collect them at different times.

use super::mix::Mix;
use super::txn::{Key, Txn};
use crate::engine::keys;
use crate::model::{Element, Type};
use bytes::Bytes;
use flotilla_topology::slot::{Slot, SlotRange};
use flotilla_topology::stamp::Stamp;
use std::io;

/// The digest of one slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotDigest {
    /// The slot.
    pub slot: Slot,
    /// Sum of the hashes of what is visible in it.
    pub sum: u128,
    /// How many keys are visible in it.
    pub keys: u64,
}

/// The digest of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyDigest {
    /// The key.
    pub key: Bytes,
    /// Sum of the hashes of what is visible of it.
    pub sum: u128,
}

/// Seeds of the two halves of a hash.
const SEEDS: [u64; 2] = [0x466C_6F74, 0x696C_6C61];

/// What a hashed item is.
const ELEMENT: u64 = 1;
const EXPIRY: u64 = 2;

/// Digests of the slots in `slots` that hold anything visible at the transaction's time, in order.
pub fn digest(txn: &Txn<'_>, slots: SlotRange) -> io::Result<Vec<SlotDigest>> {
    let mut digests: Vec<SlotDigest> = Vec::new();
    for key in visible_keys(txn, slots) {
        let (slot, KeyDigest { sum, .. }) = key?;
        match digests.last_mut() {
            Some(last) if last.slot == slot => {
                last.sum = last.sum.wrapping_add(sum);
                last.keys += 1;
            }
            _ => digests.push(SlotDigest { slot, sum, keys: 1 }),
        }
    }
    Ok(digests)
}

/// Digests of the keys of some slots that are visible at the transaction's time, in order.
pub fn visible_keys<'t>(
    txn: &'t Txn<'_>,
    slots: SlotRange,
) -> impl Iterator<Item = io::Result<(Slot, KeyDigest)>> + 't {
    visible(txn, txn.keys(slots))
}

/// Of these keys the visible ones, with their slots.
fn visible<'t>(
    txn: &'t Txn<'_>,
    keys: impl Iterator<Item = io::Result<Key>> + 't,
) -> impl Iterator<Item = io::Result<(Slot, KeyDigest)>> + 't {
    keys.filter_map(move |key| {
        let digest = |key: Key| {
            let sum = of_key(txn, &key)?;
            Ok(sum.map(|sum| (key.slot, KeyDigest { key: key.name, sum })))
        };
        key.and_then(digest).transpose()
    })
}

/// Digests of the keys of a slot that are visible at the transaction's time, in the order of the
/// keys, from behind `after` on.
pub fn key_digests<'t>(
    txn: &'t Txn<'_>,
    slot: Slot,
    after: Option<&[u8]>,
) -> impl Iterator<Item = io::Result<KeyDigest>> + 't {
    let mut range = keys::of_slots(keys::HEAD, SlotRange { first: slot, last: slot });
    if let Some(after) = after {
        range.start = keys::behind(&keys::head(slot, after));
    }
    visible(txn, txn.keys_in(range)).map(|key| key.map(|(_, digest)| digest))
}

fn of_key(txn: &Txn<'_>, key: &Key) -> io::Result<Option<u128>> {
    let mut sum = match key.ty {
        None => return Ok(None),
        Some(Type::String) => of_element(key, Type::String, b"", &key.head.string),
        Some(ty) => {
            let range = keys::elements_of_type(key.slot, &key.name, ty);
            let prefix = range.start.len();
            let mut sum = 0u128;
            for row in txn.view.scan(range, false) {
                let (row, value) = row?;
                let element = txn.read_element(&value)?;
                sum = sum.wrapping_add(of_element(key, ty, &row[prefix..], &element));
            }
            sum
        }
    };
    if let (Some(end), Some(expiry)) =
        (key.head.deadline(txn.context.now_ms), key.head.standing_expiry())
    {
        sum = sum.wrapping_add(hash(|mix| {
            mix.number(EXPIRY);
            mix.bytes(&key.name);
            mix.number(end);
            put_stamp(mix, expiry.stamp);
        }));
    }
    Ok(Some(sum))
}

/// The hash of an element, 0 if it is not visible.
fn of_element(key: &Key, ty: Type, name: &[u8], element: &Element) -> u128 {
    let (value, stamp) = (element.value(key.floor), element.visible_stamp(key.floor));
    let (Some(value), Some(stamp)) = (value, stamp) else { return 0 };
    hash(|mix| {
        mix.number(ELEMENT);
        mix.bytes(&key.name);
        mix.number(u64::from(ty.number()));
        mix.bytes(name);
        mix.bytes(&value);
        put_stamp(mix, stamp);
    })
}

fn put_stamp(mix: &mut Mix, stamp: Stamp) {
    mix.number(stamp.hlc.0);
    mix.number(u64::from(stamp.cluster.0));
}

fn hash(put: impl Fn(&mut Mix)) -> u128 {
    let [high, low] = SEEDS.map(|seed| {
        let mut mix = Mix::new(seed);
        put(&mut mix);
        mix.finish()
    });
    u128::from(high) << 64 | u128::from(low)
}
