//! Effects of other clusters: joined into this cluster's rows, in log order.
//!
//! Joining is all there is to it; which effects come, once each and without gaps, is decided by
//! the group before this. What an effect loses to a later stamp is counted and told, since a
//! client was once told that it was written.

use super::txn::{Key, Txn};
use crate::model::{Effect, Element, Head, Type};
use bytes::Bytes;
use flotilla_topology::stamp::Stamp;
use std::io;

/// Most losers that one call describes; all are counted.
const LOSERS_TOLD_MAX: usize = 16;

/// How much of a losing value is told.
const VALUE_TOLD_BYTES: usize = 32;

/// Why an effect, or a part of it, did not win.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LoserKind {
    /// A later write, or removal, of the same element is here.
    Register,
    /// A later change of the key's expiry is here.
    Expiry,
    /// A later write made the key another type.
    Type,
    /// A later delete or overwrite of the whole key is here.
    Floor,
}

impl LoserKind {
    /// All kinds, in the order of [`Losers::counts`].
    pub const ALL: [LoserKind; 4] =
        [LoserKind::Register, LoserKind::Expiry, LoserKind::Type, LoserKind::Floor];

    /// Its label in metrics.
    pub fn name(self) -> &'static str {
        match self {
            LoserKind::Register => "register",
            LoserKind::Expiry => "expiry",
            LoserKind::Type => "type",
            LoserKind::Floor => "floor",
        }
    }
}

/// One write that lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loser {
    /// Why.
    pub kind: LoserKind,
    /// The key.
    pub key: Bytes,
    /// The element; empty for a string or for the key as a whole.
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
    pub counts: [u64; 4],
    /// The first of them.
    pub told: Vec<Loser>,
}

impl Losers {
    /// How many lost in all.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    fn add(&mut self, loser: Loser) {
        let place = LoserKind::ALL.iter().position(|kind| *kind == loser.kind);
        self.counts[place.unwrap_or(0)] += 1;
        if self.told.len() < LOSERS_TOLD_MAX {
            self.told.push(loser);
        }
    }
}

/// Joins effects of another cluster, in order. The transaction's time must not lie before any of
/// their stamps: evaluating an effect raises the group's clock.
///
/// # Panics
/// In a namespace that is not synced.
pub fn remote<'e>(
    txn: &mut Txn<'_>,
    effects: impl IntoIterator<Item = &'e Effect>,
) -> io::Result<Losers> {
    assert!(txn.context.synced, "only synced namespaces take effects of other clusters");
    let mut losers = Losers::default();
    for effect in effects {
        match effect {
            Effect::Head { slot, key, head } => {
                let key = txn.load_unseen(*slot, key)?;
                join_head(txn, key, head, &mut losers);
            }
            Effect::Element { slot, key, ty: Type::Hash, name, element } => {
                let key = txn.load_unseen(*slot, key)?;
                join_field(txn, key, name, element, &mut losers)?;
            }
            // A string's element is in its head; no release ships it as a row.
            Effect::Element { ty: Type::String, .. } => {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a string's element row"));
            }
        }
    }
    Ok(losers)
}

fn join_head(txn: &mut Txn<'_>, mut key: Key, theirs: &Head, losers: &mut Losers) {
    let before = key.head.clone();
    txn.join_head(&mut key, theirs.clone());
    let head = &key.head;
    let lost = |kind, lost, won| Loser {
        kind,
        key: key.name.clone(),
        element: Bytes::new(),
        lost,
        won,
        value: Bytes::new(),
    };
    if let (Some(claim), Some(won)) = (theirs.claim, head.claim)
        && claim.ty != won.ty
    {
        losers.add(lost(LoserKind::Type, claim.stamp, won.stamp));
    }
    if let (Some(expiry), Some(won)) = (theirs.expiry, head.expiry)
        && won != expiry
    {
        losers.add(lost(LoserKind::Expiry, expiry.stamp, won.stamp));
    }
    tell_element(&key, &Bytes::new(), &theirs.string, &head.string, losers);
    key.head.trim();
    if key.head != before {
        txn.save(key);
    }
}

fn join_field(
    txn: &mut Txn<'_>,
    mut key: Key,
    name: &Bytes,
    theirs: &Element,
    losers: &mut Losers,
) -> io::Result<()> {
    let count = key.head.count;
    let joined = txn.join_field(&mut key, name, theirs.clone())?;
    tell_element(&key, name, theirs, &joined, losers);
    if key.head.count != count {
        txn.save(key);
    }
    Ok(())
}

/// Tells of what in `theirs` did not make it into `joined`, or is hidden there for good.
fn tell_element(key: &Key, name: &Bytes, theirs: &Element, joined: &Element, losers: &mut Losers) {
    let floor = key.head.floor;
    let mut tell = |kind, lost, won, value: Option<&Bytes>| {
        let value = value.map_or(Bytes::new(), |value| {
            Bytes::copy_from_slice(&value[..value.len().min(VALUE_TOLD_BYTES)])
        });
        let (key, element) = (key.name.clone(), name.clone());
        losers.add(Loser { kind, key, element, lost, won, value });
    };
    if let Some(register) = &theirs.register {
        let value = register.value.as_ref();
        if floor.hides(register.stamp) {
            tell(LoserKind::Floor, register.stamp, floor.stamp, value);
        } else if let Some(won) = joined.register.as_ref().filter(|won| *won != register) {
            tell(LoserKind::Register, register.stamp, won.stamp, value);
        }
    }
    for sum in theirs.sums.iter().filter(|sum| floor.hides(sum.start)) {
        tell(LoserKind::Floor, sum.stamp, floor.stamp, None);
    }
}
