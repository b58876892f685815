//! Effects of other clusters: joined into this cluster's rows, in log order.
//!
//! Joining is all there is to it; which effects come, once each and without gaps, is decided by
//! the group before this. What loses by it is counted and told, since a client was once told that
//! it was written.
//!
//! What counts as a loser:
//! * **What arrives and does not win** against what is here, unless this group already had it (a
//!   full state repeats what came by the log and was overwritten since). In the log's stream every
//!   effect comes once, so whoever wrote what is here had not seen it, unless a third cluster had
//!   and its answer came first.
//! * **What was here and is replaced** by a value, removal, expiry, type or floor of another cluster
//!   whose stamp is at most [`CONFLICT_WINDOW_MS`] later. Whether the other side had seen it when it
//!   wrote is not in the stamps: clients of two clusters who take turns at a key within seconds are
//!   counted too, and a cut that lasts longer is told of by the side that keeps its value, where
//!   the losing one arrives. Fields that fall with a floor are told of as one loser, the key.

use super::txn::{Key, Txn};
use crate::model::{Closed, Effect, Element, Head, Type};
use bytes::Bytes;
use flotilla_topology::stamp::Stamp;
use std::io;

/// A value that is replaced by one of another cluster, stamped no more than this later, may have
/// been written without either side seeing the other: about what a healthy link and its retries
/// take.
pub const CONFLICT_WINDOW_MS: u64 = 5_000;

/// Most losers that one call describes; all are counted.
const LOSERS_TOLD_MAX: usize = 64;

/// How much of a losing value is told.
const VALUE_TOLD_BYTES: usize = 32;

/// How much of a key's and an element's name is told: the log of losers must stay small.
pub(super) const NAME_TOLD_BYTES: usize = 1024;

/// Why a write lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LoserKind {
    /// It arrived, and a later write, or removal, of the same element is here.
    Register,
    /// It arrived, and a later change of the key's expiry is here.
    Expiry,
    /// It arrived, and a later write made the key another type.
    Type,
    /// It arrived, and a later delete or overwrite of the whole key is here.
    Floor,
    /// It was here, and what arrived from another cluster replaced it.
    Replaced,
}

impl LoserKind {
    /// All kinds, in the order of [`Losers::counts`] and of their numbers in rows.
    pub const ALL: [LoserKind; 5] = [
        LoserKind::Register,
        LoserKind::Expiry,
        LoserKind::Type,
        LoserKind::Floor,
        LoserKind::Replaced,
    ];

    /// Its label in metrics and replies.
    pub fn name(self) -> &'static str {
        match self {
            LoserKind::Register => "register",
            LoserKind::Expiry => "expiry",
            LoserKind::Type => "type",
            LoserKind::Floor => "floor",
            LoserKind::Replaced => "replaced",
        }
    }

    /// Its number in rows.
    pub(super) fn number(self) -> u8 {
        self as u8
    }
}

/// One write that lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loser {
    /// Why, and which side lost: what was here if it was replaced, what arrived otherwise.
    pub kind: LoserKind,
    /// The first bytes of the key.
    pub key: Bytes,
    /// The first bytes of the element's name; empty for a string or for the key as a whole.
    pub element: Bytes,
    /// The stamp that lost; it names the origin.
    pub lost: Stamp,
    /// The stamp that won.
    pub won: Stamp,
    /// The first bytes of the value that lost, if there was one.
    pub value: Bytes,
}

/// All that lost in one call.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Losers {
    /// How many, by kind, in the order of [`LoserKind::ALL`].
    pub counts: [u64; LoserKind::ALL.len()],
    /// The first of them.
    pub told: Vec<Loser>,
}

impl Losers {
    /// How many lost in all.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }
}

/// The first bytes, copied: a slice would keep the whole message alive.
fn first_bytes(bytes: &[u8], max: usize) -> Bytes {
    Bytes::copy_from_slice(told_bytes(bytes, max))
}

pub(super) fn told_bytes(bytes: &[u8], max: usize) -> &[u8] {
    &bytes[..bytes.len().min(max)]
}

/// Joins effects of another cluster's log, in order. The transaction's time must not lie before any
/// of their stamps: evaluating an effect raises the group's clock.
///
/// # Panics
/// In a namespace that is not synced.
pub fn remote<'e>(
    txn: &mut Txn<'_>,
    effects: impl IntoIterator<Item = &'e Effect>,
) -> io::Result<Losers> {
    remote_state(txn, effects, &Closed::new())
}

/// The same with effects that may be here already: what is stamped up to `seen` and does not win
/// has lost long ago, and to somebody who knew it.
pub fn remote_state<'e>(
    txn: &mut Txn<'_>,
    effects: impl IntoIterator<Item = &'e Effect>,
    seen: &Closed,
) -> io::Result<Losers> {
    assert!(txn.is_synced(), "only synced namespaces take effects of other clusters");
    let mut judge = Judge { seen, losers: Losers::default() };
    for effect in effects {
        match effect {
            Effect::Head { slot, key, head } => {
                let key = txn.load_unseen(*slot, key)?;
                join_head(txn, key, head, &mut judge)?;
            }
            // A string's element is in its head; no release ships it as a row.
            Effect::Element { ty: Type::String, .. } => {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a string's element row"));
            }
            Effect::Element { slot, key, ty, name, element } => {
                let key = txn.load_unseen(*slot, key)?;
                join_element(txn, key, (*ty, name), element, &mut judge)?;
            }
        }
    }
    Ok(judge.losers)
}

fn join_head(
    txn: &mut Txn<'_>,
    mut key: Key,
    theirs: &Head,
    judge: &mut Judge<'_>,
) -> io::Result<()> {
    let before = key.head.clone();
    txn.join_head(&mut key, theirs.clone());
    judge.head_arrived(&key, theirs);
    judge.head_replaced(&key, &before);
    key.head.trim();
    if key.head == before {
        return Ok(());
    }
    if judge.is_state() && key.head.is_bare() {
        // Of a full state it may be all that is left of the key: the cleaner will see.
        txn.queue_bare(&key)?;
    }
    txn.save(key);
    Ok(())
}

fn join_element(
    txn: &mut Txn<'_>,
    mut key: Key,
    (ty, name): (Type, &Bytes),
    theirs: &Element,
    judge: &mut Judge<'_>,
) -> io::Result<()> {
    let (count, forgotten) = (key.head.count, key.head.forgotten);
    let (ours, joined) = txn.join_element(&mut key, (ty, name), theirs.clone())?;
    judge.element_arrived(&key, name, theirs, &joined);
    judge.element_replaced(&key, name, &ours, &joined);
    if (key.head.count, key.head.forgotten) != (count, forgotten) {
        txn.save(key);
    }
    Ok(())
}

/// Which write lost, and which one won.
type Stamps = (Stamp, Stamp);

/// Tells losers from those who only came late.
struct Judge<'s> {
    seen: &'s Closed,
    losers: Losers,
}

impl Judge<'_> {
    /// Whether effects are rows of a full state.
    fn is_state(&self) -> bool {
        !self.seen.is_empty()
    }

    fn add(
        &mut self,
        kind: LoserKind,
        key: &Key,
        element: &[u8],
        (lost, won): Stamps,
        value: Option<&Bytes>,
    ) {
        self.losers.counts[usize::from(kind.number())] += 1;
        if self.losers.told.len() < LOSERS_TOLD_MAX {
            let name = |bytes| first_bytes(bytes, NAME_TOLD_BYTES);
            let (key, element) = (name(&key.name), name(element));
            let value = value.map_or(Bytes::new(), |value| first_bytes(value, VALUE_TOLD_BYTES));
            self.losers.told.push(Loser { kind, key, element, lost, won, value });
        }
    }

    fn arrived(
        &mut self,
        kind: LoserKind,
        key: &Key,
        element: &[u8],
        stamps: Stamps,
        value: Option<&Bytes>,
    ) {
        let lost = stamps.0;
        if self.seen.get(&lost.cluster).is_none_or(|seen| *seen < lost) {
            self.add(kind, key, element, stamps, value);
        }
    }

    fn replaced(&mut self, key: &Key, element: &[u8], stamps: Stamps, value: Option<&Bytes>) {
        let (lost, won) = stamps;
        let later_ms = won.hlc.ms().saturating_sub(lost.hlc.ms());
        if lost.cluster != won.cluster && later_ms <= CONFLICT_WINDOW_MS {
            self.add(LoserKind::Replaced, key, element, stamps, value);
        }
    }

    /// What of an arriving head did not make it into the key's.
    fn head_arrived(&mut self, key: &Key, theirs: &Head) {
        let head = &key.head;
        if let (Some(claim), Some(won)) = (theirs.claim, head.claim)
            && claim.ty != won.ty
        {
            self.arrived(LoserKind::Type, key, b"", (claim.stamp, won.stamp), None);
        }
        if let (Some(expiry), Some(won)) = (theirs.expiry, head.expiry)
            && won != expiry
        {
            self.arrived(LoserKind::Expiry, key, b"", (expiry.stamp, won.stamp), None);
        }
        self.element_arrived(key, b"", &theirs.string, &head.string);
    }

    /// What of an arriving element did not make it into `joined`, or is hidden there for good.
    fn element_arrived(&mut self, key: &Key, name: &[u8], theirs: &Element, joined: &Element) {
        let floor = key.head.floor;
        if let Some(register) = &theirs.register {
            let (lost, value) = (register.stamp, register.value.as_ref());
            if floor.hides(lost) {
                self.arrived(LoserKind::Floor, key, name, (lost, floor.stamp), value);
            } else if let Some(won) = joined.register.as_ref().filter(|won| *won != register) {
                self.arrived(LoserKind::Register, key, name, (lost, won.stamp), value);
            }
        }
        for sum in theirs.sums.iter().filter(|sum| floor.hides(sum.start)) {
            self.arrived(LoserKind::Floor, key, name, (sum.stamp, floor.stamp), None);
        }
    }

    /// What of the head that was here is gone now.
    fn head_replaced(&mut self, key: &Key, before: &Head) {
        if let Some((stamps, value)) = replaced_value(before, &key.head) {
            self.replaced(key, b"", stamps, value.as_ref());
        }
        if let (Some(old), Some(new)) = (before.standing_expiry(), key.head.expiry)
            && old.at != new.at
        {
            self.replaced(key, b"", (old.stamp, new.stamp), None);
        }
    }

    /// The value or removal of an element that was here, if another one is there now.
    fn element_replaced(&mut self, key: &Key, name: &[u8], ours: &Element, joined: &Element) {
        if let (Some(old), Some(new)) = (&ours.register, &joined.register)
            && old.value != new.value
            && !key.head.floor.hides(old.stamp)
        {
            self.replaced(key, name, (old.stamp, new.stamp), old.value.as_ref());
        }
    }
}

/// The last value write of a key that was here and is gone after a join, and what took its place.
fn replaced_value(before: &Head, after: &Head) -> Option<(Stamps, Option<Bytes>)> {
    let claim = before.claim.filter(|claim| !before.floor.hides(claim.stamp))?;
    let value = before.string.value(before.floor);
    let now = after.claim?;
    if now.ty != claim.ty {
        return Some(((claim.stamp, now.stamp), value));
    }
    if value.is_some() && value == after.string.value(after.floor) {
        return None; // both sides wrote the same: nobody misses anything
    }
    if after.floor.hides(claim.stamp) {
        return Some(((claim.stamp, after.floor.stamp), value));
    }
    let (old, new) = (before.string.register.as_ref()?, after.string.register.as_ref()?);
    (old != new).then(|| ((old.stamp, new.stamp), old.value.clone()))
}
