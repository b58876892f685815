//! What a cluster that comes back from a fence still has, next to the state of one that went on.
//!
//! While it was away the others have deleted, and forgotten what they deleted. So what only it has is
//! either new, because they never heard of it, or was deleted there, because they had it once. Which
//! of the two is told by the closed stamps at the cut. Removals, floors, claims and expiries are
//! never dropped for that reason: they are joined.

use super::txn::{Key, Txn, corrupt};
use crate::engine::keys::{self, RowKey};
use crate::flaws::{self, Flaw};
use crate::model::{Effect, Element, Parts, Type};
use bytes::Bytes;
use flotilla_topology::slot::Slot;
use flotilla_topology::stamp::Stamp;
use std::collections::BTreeMap;
use std::io;
use std::ops::Range;

/// A stretch of another cluster's state, and what that had.
pub struct Coverage<'c> {
    /// Head rows that it speaks of.
    pub heads: Range<Bytes>,
    /// Element rows that it speaks of.
    pub elements: Range<Bytes>,
    /// Everything that stands there.
    pub effects: &'c [Effect],
    /// Whether it had what was stamped so, in that slot.
    pub had: &'c dyn Fn(Slot, Stamp) -> bool,
}

/// Where the next step over a stretch goes on: head row and element row.
pub type CoverFrom = (Bytes, Bytes);

/// Drops what was deleted in the meantime, looking at no more rows than the budget has, which it draws
/// on; where to go on if that was too small.
///
/// # Panics
/// In a namespace that is not synced.
pub fn cover(
    txn: &mut Txn<'_>,
    coverage: &Coverage<'_>,
    budget: &mut usize,
) -> io::Result<Option<CoverFrom>> {
    assert!(txn.is_synced(), "only synced namespaces come back from a fence");
    let theirs: BTreeMap<Bytes, &Element> = coverage.effects.iter().map(place).collect();
    let (heads, left) = rows(txn, &coverage.heads, budget)?;
    for (row, _) in heads {
        let RowKey::Head { slot, key } = keys::decode(&row).map_err(corrupt)? else { continue };
        let mut key = txn.load_unseen(slot, &key)?;
        let had = |stamp| (coverage.had)(slot, stamp);
        let mut after = key.head.string.next_to(of(&theirs, &row), had);
        if after != key.head.string {
            after.trim(key.head.floor);
        }
        let ends = flaws::has(Flaw::CoverageOfAll) && drops_end(coverage, &key, had);
        if ends {
            key.head.expiry = None;
        }
        if after != key.head.string || ends {
            key.head.string = after;
            txn.queue_bare(&key)?;
            txn.save(key);
        }
    }
    if let Some(next) = left {
        return Ok(Some((next, coverage.elements.start.clone())));
    }
    let (elements, left) = rows(txn, &coverage.elements, budget)?;
    // The key of the row before, if that did not change it.
    let mut last: Option<Key> = None;
    for (row, value) in elements {
        let RowKey::Element { slot, key, ty, name } = keys::decode(&row).map_err(corrupt)? else {
            continue;
        };
        let before = txn.read_element(&value)?;
        let mut after = before.next_to(of(&theirs, &row), |stamp| (coverage.had)(slot, stamp));
        let mut key = match last.take().filter(|last| last.slot == slot && last.name == key) {
            Some(last) => last,
            None => txn.load_unseen(slot, &key)?,
        };
        if after != before {
            after.trim(key.head.floor);
        }
        // What stays may be older than what the other has forgotten, which came with the head.
        let forgotten = key.head.forgotten;
        key.shows_since(ty, after.earliest_visible(key.floor));
        if after == before && key.head.forgotten == forgotten {
            last = Some(key);
            continue;
        }
        if after != before {
            change(txn, &mut key, (ty, &name), &before, &after)?;
        }
        txn.save(key);
    }
    Ok(left.map(|next| (coverage.heads.end.clone(), next)))
}

/// Whether an end would go that only this side has, if ends were covered.
fn drops_end(coverage: &Coverage<'_>, key: &Key, had: impl Fn(Stamp) -> bool) -> bool {
    let has_end = |effect: &Effect| match effect {
        Effect::Head { key: name, head, .. } => *name == key.name && head.expiry.is_some(),
        Effect::Element { .. } => false,
    };
    let end = key.head.expiry.as_ref();
    end.is_some_and(|end| had(end.stamp)) && !coverage.effects.iter().any(has_end)
}

/// Writes what is left of an element, with what derives from it.
fn change(
    txn: &mut Txn<'_>,
    key: &mut Key,
    (ty, name): (Type, &Bytes),
    before: &Element,
    after: &Element,
) -> io::Result<()> {
    if key.head.ty() == Some(ty) {
        Txn::recount(key, before, after);
    }
    txn.store(key, (ty, name), before, after, Parts::NONE)?;
    txn.queue_element(key, ty, name, before, after);
    txn.queue_bare(key)
}

/// The row that an effect speaks of, and the element in it.
fn place(effect: &Effect) -> (Bytes, &Element) {
    match effect {
        Effect::Head { slot, key, head } => (keys::head(*slot, key), &head.string),
        Effect::Element { slot, key, ty, name, element } => {
            (keys::element(*slot, key, *ty, name), element)
        }
    }
}

fn of<'e>(theirs: &BTreeMap<Bytes, &'e Element>, row: &Bytes) -> &'e Element {
    static NONE: Element = Element { register: None, resets: Vec::new(), sums: Vec::new() };
    theirs.get(row).copied().unwrap_or(&NONE)
}

type Rows = Vec<(Bytes, Bytes)>;

/// The rows of a range, and the first one beyond the budget.
fn rows(
    txn: &Txn<'_>,
    range: &Range<Bytes>,
    budget: &mut usize,
) -> io::Result<(Rows, Option<Bytes>)> {
    let found = txn.view.scan(range.clone(), false).take(*budget + 1);
    let mut found: Rows = found.collect::<io::Result<_>>()?;
    let beyond = if found.len() > *budget { found.pop() } else { None };
    *budget -= found.len();
    Ok((found, beyond.map(|(row, _)| row)))
}
