//! The cleaner: forgets, through the log and in bounded steps, what no live cluster can need any
//! more: removed elements, floors and what lies under them, expiries that have passed or were taken
//! back, and last the heads of keys of which nothing else is left.
//!
//! Where to look is indexed. Whatever leaves garbage behind puts a row into the garbage index, under
//! the stamp from which on it can be collected ([`Head::garbage`](crate::model::Head::garbage) and
//! its like); keys with an end are in the expiry index. So the cleaner never scans live data, except
//! the elements of a key whose floor or end it collects: these it walks once, `budget` rows at a
//! time, and notes in the index row how far it came.
//!
//! Rules:
//! * Cleaning changes nothing that can be seen, and nothing of it is shipped.
//! * A floor or a passed expiry goes only after a whole walk under it found and removed what it
//!   hides. A walk that was interrupted begins anew when floor or end have changed since, or when a
//!   full state was merged in between: that may have brought back what the walk had removed.
//! * A collected end is remembered, in the head and, for keys of which nothing is left, in the group:
//!   a later expiry must go on hiding what it hid ([`Head::forgotten`](crate::model::Head::forgotten)).
//! * Never while a full state is being merged into the group; who calls sees to that.

use super::txn::{Key, Txn, corrupt};
use crate::codec::{Decoder, Encoder};
use crate::engine::keys::{self, RowKey};
use crate::flaws::{self, Flaw};
use crate::model::{Element, Expiry, Floor, Head, Parts, Stability, Type};
use bytes::Bytes;
use flotilla_topology::slot::Slot;
use flotilla_topology::stamp::{Hlc, Stamp};
use std::io;
use std::ops::Range;

/// Where the next step goes on; forgotten when leadership moves, which costs one round.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CleanFrom {
    garbage: Option<Bytes>,
    lapsed: Option<Bytes>,
}

/// What a step may rely on.
pub struct CleanRules<'a> {
    /// What all live clusters have.
    pub stability: &'a Stability,
    /// How many full states were merged into this group so far.
    pub merges: u64,
    /// Rows that the step may look at, about.
    pub budget: usize,
}

/// What a step did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cleaned {
    /// Elements, floors, expiries and heads that are gone.
    pub collected: u64,
    /// Index rows that were looked at and must wait.
    pub waiting: u64,
    /// Whether there is more to do at once.
    pub more: bool,
    /// The latest end that was collected, in milliseconds since 1970; 0 for none.
    pub forgotten_ms: u64,
}

/// How far the walk over a key's elements has come, in the value of its index row.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Walk {
    floor: Floor,
    lapse: u64,
    merges: u64,
    after: Bytes,
}

const WALK_VERSION: u8 = 1;

impl Walk {
    fn encode(&self) -> Bytes {
        let mut out = Encoder::with_capacity(32 + self.after.len());
        out.put_u8(WALK_VERSION);
        out.put_stamp(self.floor.stamp);
        out.put_bool(self.floor.inclusive);
        out.put_varint(self.lapse);
        out.put_varint(self.merges);
        out.put_bytes(&self.after);
        out.into_bytes()
    }

    /// None if there is none, or one that this release cannot read: then it begins anew.
    fn decode(value: &Bytes) -> Option<Walk> {
        let mut input = Decoder::shared(value);
        input.version(WALK_VERSION).ok()?;
        Some(Walk {
            floor: Floor { stamp: input.stamp().ok()?, inclusive: input.bool().ok()? },
            lapse: input.varint().ok()?,
            merges: input.varint().ok()?,
            after: input.bytes(usize::MAX).ok()?,
        })
    }
}

/// One step over both indexes.
///
/// # Panics
/// In a namespace that is not synced: nothing waits there.
pub fn clean(
    txn: &mut Txn<'_>,
    from: &mut CleanFrom,
    rules: &CleanRules<'_>,
) -> io::Result<Cleaned> {
    assert!(txn.is_synced(), "only synced namespaces keep garbage");
    let mut cleaner = Cleaner { txn, rules, left: rules.budget, done: Cleaned::default() };
    let now = cleaner.txn.context.now_ms;
    let horizon = rules.stability.horizon(Hlc::from_ms(now));
    from.garbage = cleaner.round(keys::garbage_until(horizon), from.garbage.take())?;
    from.lapsed = cleaner.round(keys::expiries_until(now), from.lapsed.take())?;
    Ok(cleaner.done)
}

/// Whether anything waits to be collected at time `now_ms`, now or later.
pub fn garbage_waits(txn: &Txn<'_>) -> io::Result<bool> {
    let now = txn.context.now_ms;
    for range in [keys::of_kind(keys::GARBAGE), keys::expiries_until(now)] {
        if txn.view.scan(range, false).next().transpose()?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Up to when an expiry has hidden what stands before it.
fn end_of(expiry: &Expiry) -> u64 {
    expiry.at.max(expiry.low)
}

/// Whether an expiry speaks of rows of a type.
fn lapses(expiry: &Expiry, ty: Type) -> bool {
    expiry.ty == ty || flaws::has(Flaw::ExpiryAnyType)
}

struct Cleaner<'c, 't> {
    txn: &'c mut Txn<'t>,
    rules: &'c CleanRules<'c>,
    left: usize,
    done: Cleaned,
}

impl Cleaner<'_, '_> {
    /// Goes through an index from where the last step ended; where the next one shall begin.
    fn round(&mut self, range: Range<Bytes>, from: Option<Bytes>) -> io::Result<Option<Bytes>> {
        let start = from.clone().filter(|from| range.contains(from)).unwrap_or(range.start);
        let rows = self.txn.view.scan(start..range.end, false).take(self.left.max(1));
        let rows: Vec<(Bytes, Bytes)> = rows.collect::<Result<_, _>>()?;
        let whole = rows.len() < self.left.max(1);
        for (row, value) in rows {
            if self.left == 0 {
                self.done.more = true;
                return Ok(Some(row));
            }
            self.left -= 1;
            let stays = match keys::decode(&row).map_err(corrupt)? {
                RowKey::Garbage { at, slot, key, element: Some((ty, name)) } => {
                    self.element(at, slot, &key, ty, &name)?
                }
                RowKey::Garbage { at, slot, key, element: None } => {
                    self.key(Some(at), slot, &key, &row, &value)?
                }
                RowKey::Expiry { slot, key, .. } => self.key(None, slot, &key, &row, &value)?,
                _ => false,
            };
            match stays {
                true => self.done.waiting += 1,
                false if self.txn.view.get(&row)?.is_some() => self.txn.drop_row(row),
                false => {}
            }
        }
        self.done.more |= !whole;
        Ok(None)
    }

    fn stable(&self, stamp: Stamp) -> bool {
        self.rules.stability.stable(stamp)
    }

    /// One element; whether its index row must stay.
    fn element(
        &mut self,
        at: Hlc,
        slot: Slot,
        name: &Bytes,
        ty: Type,
        field: &Bytes,
    ) -> io::Result<bool> {
        let mut key = self.txn.load_unseen(slot, name)?;
        let row = keys::element(slot, name, ty, field);
        let Some(value) = self.txn.view.get(&row)? else { return Ok(false) };
        let before = self.txn.read_element(&value)?;
        let after = self.collected(&key, ty, &before, None);
        let loaded = key.head.clone();
        let waits = after.garbage().is_some_and(|stamp| stamp.hlc <= at);
        let gone = after.is_empty();
        self.replace(&mut key, (ty, field), &before, after)?;
        if gone {
            self.finish(key, &loaded)?;
        } else if key.head.count != loaded.count {
            self.txn.save(key);
        }
        Ok(waits)
    }

    /// What is left of an element. An expiry speaks of the rows of its own type only.
    fn collected(&self, key: &Key, ty: Type, element: &Element, lapse: Option<&Expiry>) -> Element {
        let mut left = element.clone();
        left.trim(key.head.floor);
        if let Some(lapse) = lapse.filter(|lapse| lapses(lapse, ty)) {
            left.trim(Floor::below(Stamp::floor_at_ms(end_of(lapse))));
        }
        left.collect(|stamp| self.stable(stamp));
        left
    }

    fn replace(
        &mut self,
        key: &mut Key,
        (ty, name): (Type, &Bytes),
        before: &Element,
        after: Element,
    ) -> io::Result<()> {
        if *before == after {
            return Ok(());
        }
        if key.head.ty() == Some(ty) {
            Txn::recount(key, before, &after);
        }
        self.done.collected += u64::from(after.is_empty());
        if after.garbage() > before.garbage() {
            // A sum that stood on a removal went: the removal waits from now on.
            self.txn.queue_element(key, ty, name, before, &after);
        }
        self.txn.store(key, (ty, name), before, &after, Parts::NONE)
    }

    /// A key as a whole; whether its index row must stay. `at` is none in the expiry index.
    fn key(
        &mut self,
        at: Option<Hlc>,
        slot: Slot,
        name: &Bytes,
        row: &Bytes,
        value: &Bytes,
    ) -> io::Result<bool> {
        let mut key = self.txn.load_unseen(slot, name)?;
        let loaded = key.head.clone();
        let lapse = self.lapse(&key);
        if at.is_none() && lapse.is_none() {
            // The end was changed, or not all clusters have passed it.
            return Ok(key.head.expiry.is_some_and(|e| e.at <= self.txn.context.now_ms));
        }
        let end = lapse.as_ref().map_or(0, end_of);
        let whole = Walk {
            floor: key.head.floor,
            lapse: end,
            merges: self.rules.merges,
            after: Bytes::new(),
        };
        let hides = lapse.is_some() || !key.head.floor.is_none();
        let rest = if hides { self.walk(&mut key, &whole, lapse.as_ref(), value)? } else { None };
        if let Some(after) = rest {
            self.txn.put_row(row.clone(), Walk { after, ..whole }.encode(), Parts::NONE);
            self.txn.save(key);
            self.done.more = true;
            return Ok(true);
        }
        let before = key.head.clone();
        let floor_before = key.head.floor_at(self.txn.context.now_ms);
        if let Some(lapse) = &lapse {
            if lapses(lapse, Type::String) {
                key.head.string.trim(Floor::below(Stamp::floor_at_ms(end)));
            }
            if key.head.ty() == Some(lapse.ty) {
                // Rows of another type are hidden by the floor of their own claim.
                key.head.forget(end);
            }
            self.done.forgotten_ms = self.done.forgotten_ms.max(end);
            key.head.expiry = None;
        }
        let rules = self.rules;
        key.head.string.collect(|stamp| rules.stability.stable(stamp));
        if !key.head.floor.is_none() && self.stable(key.head.floor.stamp) {
            key.head.floor = Floor::NONE;
        }
        let floor_after = key.head.floor_at(self.txn.context.now_ms);
        if let Some(count) = key.head.count.as_mut().filter(|count| count.under == floor_before) {
            // Nothing is left that the one hides and the other does not.
            count.under = floor_after;
        }
        let waits = key.head.garbage().zip(at).is_some_and(|(stamp, at)| stamp.hlc <= at);
        self.done.collected += u64::from(key.head != before);
        let bare = self.finish(key, &loaded)?;
        Ok(waits || (at.is_some() && bare))
    }

    /// The expiry, if it can go: nothing stamped before its end can come any more.
    fn lapse(&self, key: &Key) -> Option<Expiry> {
        let expiry = key.head.expiry?;
        let passed = expiry.at == 0 || expiry.at <= self.txn.context.now_ms;
        let stability = self.rules.stability;
        let seen = stability.stable(expiry.stamp) && stability.passed(end_of(&expiry));
        let void = key.head.floor.hides(expiry.stamp);
        (passed && seen && !void).then_some(expiry)
    }

    /// Walks over the elements of a key and removes what `whole` hides; how far it came if the
    /// budget was too small.
    fn walk(
        &mut self,
        key: &mut Key,
        whole: &Walk,
        lapse: Option<&Expiry>,
        value: &Bytes,
    ) -> io::Result<Option<Bytes>> {
        let all = keys::elements(key.slot, &key.name);
        let same = |walk: &Walk| Walk { after: Bytes::new(), ..walk.clone() } == *whole;
        let start = match Walk::decode(value).filter(same) {
            Some(walk) => walk.after,
            None => all.start.clone(),
        };
        let most = self.left.max(1);
        let rows = self.txn.view.scan(start..all.end, false).take(most + 1);
        let rows: Vec<(Bytes, Bytes)> = rows.collect::<Result<_, _>>()?;
        for (index, (row, value)) in rows.into_iter().enumerate() {
            if index == most {
                return Ok(Some(row));
            }
            self.left = self.left.saturating_sub(1);
            let RowKey::Element { ty, name, .. } = keys::decode(&row).map_err(corrupt)? else {
                continue;
            };
            let before = self.txn.read_element(&value)?;
            let after = self.collected(key, ty, &before, lapse);
            self.replace(key, (ty, &name), &before, after)?;
        }
        Ok(None)
    }

    /// Saves a head, or drops it when nothing of the key is left and everybody knows its claim.
    /// Whether it waits for that. One that is still as it was `loaded` is left alone: what waits is
    /// looked at every second.
    fn finish(&mut self, key: Key, loaded: &Head) -> io::Result<bool> {
        let elements = keys::elements(key.slot, &key.name);
        let bare =
            key.head.is_bare() && self.txn.view.scan(elements, false).next().transpose()?.is_none();
        let claim = key.head.claim.map_or(Stamp::ZERO, |claim| claim.stamp);
        let known = claim.is_zero() || self.stable(claim) || flaws::has(Flaw::HeaderEarly);
        if bare && known {
            self.done.collected += 1;
            self.txn.drop_head(&key);
            return Ok(false);
        }
        if bare {
            self.txn.queue_bare(&key)?;
        }
        if key.head != *loaded {
            self.txn.save(key);
        }
        Ok(bare)
    }
}
