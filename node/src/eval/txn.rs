//! One command's work on keys: loading and saving heads, and the rules of writing.
//!
//! Rules of a synced namespace, all from the model (`crate::model`):
//! * Every value write raises the claim to the command's stamp, also when the value is unchanged:
//!   another cluster's older removal must lose against it.
//! * DEL is a floor, and only on a key that exists; an overwrite is a floor and a value under one
//!   stamp; removing an element is a register without a value and no claim.
//! * A write that creates a key voids the expiry that an emptied one may have left.
//! * A passed expiry is never made a floor: it hides by itself.

use super::marks::ScanMarks;
use super::order::order_of;
use crate::codec::DecodeError;
use crate::engine::keys::{self, RowKey};
use crate::engine::view::View;
use crate::flaws::{self, Flaw};
use crate::model::{
    Claim, Count, Element, Expiry, Floor, Head, Parts, Synced, Type, decode_element_since,
    decode_head_since, encode_head,
};
use bytes::Bytes;
use flotilla_topology::ids::Origin;
use flotilla_topology::slot::{Slot, SlotRange};
use flotilla_topology::stamp::{Hlc, Stamp};
use std::cell::Cell;
use std::io;
use std::ops::Range;

/// When, where and how a command is evaluated.
#[derive(Debug, Clone, Copy)]
pub struct EvalContext {
    /// This cluster in its present life: whose sums its increments go to.
    pub origin: Origin,
    /// The slots of the group.
    pub slots: SlotRange,
    /// Whether the group is synced, and since when.
    pub synced: Synced,
    /// The command's stamp, above every stamp in the group. Ignored where nothing is synced.
    pub stamp: Stamp,
    /// The group's clock. While a synced namespace is written it is the stamp's.
    pub now_ms: u64,
    /// The group's clock as applied: keys that ended up to here have ended for good.
    pub applied_clock_ms: u64,
    /// Up to when ends may have been collected in the group, and their keys with them. Of a key that is
    /// not here now, everything stamped before has come and is gone.
    pub forgotten_ms: u64,
    /// What a command leaves to chance begins with this number; it is another for each.
    pub chance: u64,
}

/// Evaluates one command.
pub struct Txn<'a> {
    pub(super) view: View<'a>,
    pub(super) context: EvalContext,
    /// Where scans of this replica stand, if it remembers.
    pub(super) marks: Option<&'a ScanMarks>,
    needs_tick: Cell<bool>,
    wrote: bool,
}

/// A key as a command sees it.
pub(super) struct Key {
    pub(super) name: Bytes,
    pub(super) slot: Slot,
    pub(super) head: Head,
    /// Its type, if it is visible.
    pub(super) ty: Option<Type>,
    /// What hides its rows now.
    pub(super) floor: Floor,
    /// Parts of the head that this command has written.
    parts: Parts,
    /// Whether there is a head row.
    stored: bool,
    /// The end that the expiry index has for it.
    indexed: u64,
    /// What the garbage index has for the head.
    waits: Option<Hlc>,
    /// Elements of another type were hidden for good and must be swept.
    sweep: bool,
}

impl Key {
    /// What its element of this type shows goes back to `earliest`: nothing that was forgotten of the
    /// key can have hidden that, and no later end may.
    pub(super) fn shows_since(&mut self, ty: Type, earliest: Option<Stamp>) {
        if let Some(stamp) = earliest.filter(|_| self.head.ty() == Some(ty)) {
            self.head.forgot_nothing_since(stamp);
        }
    }

    /// The value, if it is a visible string.
    pub(super) fn string(&self) -> Option<Bytes> {
        self.head.string.value(self.floor).filter(|_| self.ty == Some(Type::String))
    }
}

/// Rows that cannot be decoded are a broken disk or a newer release, never the client's fault.
pub(super) fn corrupt(error: DecodeError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

impl<'a> Txn<'a> {
    /// Starts one command on a view.
    pub fn new(view: View<'a>, context: EvalContext) -> Txn<'a> {
        Txn { view, context, marks: None, needs_tick: Cell::new(false), wrote: false }
    }

    /// The same with a memory of where scans stand: without it each step looks for its place.
    pub fn with_marks(self, marks: &'a ScanMarks) -> Txn<'a> {
        Txn { marks: Some(marks), ..self }
    }

    /// Whether a key was found ended that applied state does not know to have ended: before the
    /// answer leaves, a tick at this time must be in the log, or a later leader could revive it.
    /// An entry with this command's stamp is such a tick.
    pub fn needs_tick(&self) -> bool {
        self.needs_tick.get()
    }

    /// What it reads from.
    pub fn view(&self) -> &View<'a> {
        &self.view
    }

    /// Whether the command wrote anything.
    pub fn wrote(&self) -> bool {
        self.wrote
    }

    /// Whether what is written now must be joined elsewhere.
    pub(super) fn is_synced(&self) -> bool {
        self.context.synced.is_on()
    }

    /// Takes a head row apart: the only way for whoever evaluates.
    pub(super) fn read_head(&self, row: &Bytes) -> io::Result<Head> {
        decode_head_since(row, self.context.synced.unstamped()).map_err(corrupt)
    }

    /// Takes an element row apart.
    pub(super) fn read_element(&self, row: &Bytes) -> io::Result<Element> {
        decode_element_since(row, self.context.synced.unstamped()).map_err(corrupt)
    }

    /// The stamp of what this command writes.
    pub(super) fn stamp(&self) -> Stamp {
        if self.is_synced() { self.context.stamp } else { Stamp::ZERO }
    }

    /// Reads a key.
    pub(super) fn load(&self, name: &Bytes) -> io::Result<Key> {
        let slot = Slot::of(name);
        let row = self.view.get(&keys::head(slot, name))?;
        let head = row.as_ref().map(|row| self.read_head(row)).transpose()?;
        self.open(name.clone(), slot, head)
    }

    /// A key whose head row is known.
    pub(super) fn open(&self, name: Bytes, slot: Slot, head: Option<Head>) -> io::Result<Key> {
        let mut key = self.open_unseen(name, slot, head);
        if self.has_elements(&key)? {
            key.ty = key.head.ty();
        }
        Ok(key)
    }

    /// Reads a key without finding out whether it is visible: joins do not ask.
    pub(super) fn load_unseen(&self, slot: Slot, name: &Bytes) -> io::Result<Key> {
        let row = self.view.get(&keys::head(slot, name))?;
        let head = row.as_ref().map(|row| self.read_head(row)).transpose()?;
        Ok(self.open_unseen(name.clone(), slot, head))
    }

    fn open_unseen(&self, name: Bytes, slot: Slot, head: Option<Head>) -> Key {
        let now = self.context.now_ms;
        let stored = head.is_some();
        let forgotten = if self.is_synced() { self.context.forgotten_ms } else { 0 };
        let head = head.unwrap_or_else(|| Head { forgotten, ..Head::default() });
        if head.due(self.context.applied_clock_ms, now) {
            self.needs_tick.set(true);
        }
        let floor = head.floor_at(now);
        let indexed = head.expiry.map_or(0, |expiry| expiry.at);
        let waits = head.garbage().map(|stamp| stamp.hlc);
        let parts = Parts::NONE;
        Key { name, slot, head, ty: None, floor, parts, stored, indexed, waits, sweep: false }
    }

    fn has_elements(&self, key: &Key) -> io::Result<bool> {
        match key.head.ty() {
            None => Ok(false),
            Some(Type::String) => Ok(key.head.string.exists(key.floor)),
            Some(ty) => match key.head.known_count(self.context.now_ms) {
                Some(count) => Ok(count > 0),
                None => Ok(self.elements_of(key, ty).next().transpose()?.is_some()),
            },
        }
    }

    /// All keys of some slots, visible or not, in order.
    pub(super) fn keys(&self, slots: SlotRange) -> impl Iterator<Item = io::Result<Key>> {
        self.keys_in(keys::of_slots(keys::HEAD, slots))
    }

    /// The same, by a range of head rows.
    pub(super) fn keys_in(&self, range: Range<Bytes>) -> impl Iterator<Item = io::Result<Key>> {
        self.view.scan(range, false).map(move |row| {
            let (row, value) = row?;
            match keys::decode(&row).map_err(corrupt)? {
                RowKey::Head { slot, key } => self.open(key, slot, Some(self.read_head(&value)?)),
                _ => Err(io::Error::new(io::ErrorKind::InvalidData, "not a head row")),
            }
        })
    }

    pub(super) fn put_row(&mut self, row: Bytes, value: Bytes, parts: Parts) {
        self.view.put(row, value, parts);
        self.wrote = true;
    }

    pub(super) fn drop_row(&mut self, row: Bytes) {
        self.view.delete(row);
        self.wrote = true;
    }

    /// Writes the head and its index row. Call it once, after the last change of the key.
    pub(super) fn save(&mut self, mut key: Key) {
        key.head.trim();
        let end = key.head.expiry.map_or(0, |expiry| expiry.at);
        self.reindex(&key, end);
        self.queue(&key);
        let row = keys::head(key.slot, &key.name);
        self.put_row(row, encode_head(&key.head), key.parts);
    }

    /// Takes a head away of which nothing is left.
    pub(super) fn drop_head(&mut self, key: &Key) {
        self.reindex(key, 0);
        self.drop_row(keys::head(key.slot, &key.name));
    }

    /// Keeps the invariant: what can be collected of a head some day is in the garbage index, at
    /// the clock of its latest stamp.
    fn queue(&mut self, key: &Key) {
        if !self.is_synced() {
            return;
        }
        let waits = key.head.garbage().map(|stamp| stamp.hlc);
        let at = match waits {
            Some(at) if waits != key.waits || key.sweep => at,
            None if key.sweep => key.head.floor.stamp.hlc,
            _ => return,
        };
        self.put_row(keys::garbage(at, key.slot, &key.name, None), Bytes::new(), Parts::NONE);
    }

    /// Lets the cleaner look at a key of which something went without a trace. What it looks at
    /// already is not written again.
    pub(super) fn queue_bare(&mut self, key: &Key) -> io::Result<()> {
        let at = key.head.claim.map_or(Hlc::ZERO, |claim| claim.stamp.hlc);
        let row = keys::garbage(at, key.slot, &key.name, None);
        if self.view.get(&row)?.is_none() {
            self.put_row(row, Bytes::new(), Parts::NONE);
        }
        Ok(())
    }

    /// Keeps the invariant: a key is in the expiry index iff its head has an expiry with an end.
    fn reindex(&mut self, key: &Key, end: u64) {
        if key.indexed == end {
            return;
        }
        if key.indexed != 0 {
            self.drop_row(keys::expiry(key.indexed, key.slot, &key.name));
        }
        if end != 0 {
            let row = keys::expiry(end, key.slot, &key.name);
            self.put_row(row, Bytes::new(), Parts::NONE);
        }
    }

    /// Deletes a key that exists.
    pub(super) fn delete(&mut self, mut key: Key) {
        if self.is_synced() {
            self.raise_floor(&mut key);
            self.save(key);
        } else {
            self.erase(&mut key);
            self.drop_head(&key);
        }
    }

    fn raise_floor(&mut self, key: &mut Key) {
        key.sweep |= key.head.ty().is_some_and(Type::has_elements);
        key.head.floor = key.head.floor.max(Floor::below(self.stamp()));
        key.parts |= Parts::FLOOR;
        key.head.count = None;
        key.floor = key.head.floor_at(self.context.now_ms);
        key.ty = None;
    }

    /// Physically: only where nothing is synced.
    fn erase(&mut self, key: &mut Key) {
        debug_assert!(!self.is_synced(), "a synced key is deleted by a floor");
        if key.head.ty().is_some_and(Type::has_elements) {
            self.view.delete_range(keys::elements(key.slot, &key.name));
            if let Some(ty) = key.head.ty().filter(|ty| ty.has_order()) {
                for rows in order_of(key, ty).all() {
                    self.view.delete_range(rows);
                }
            }
            self.wrote = true;
        }
        key.head = Head::default();
        key.floor = Floor::NONE;
        key.ty = None;
    }

    /// Empties a key, whatever it holds, for a value that replaces all of it.
    pub(super) fn overwrite(&mut self, key: &mut Key) {
        if self.is_synced() {
            self.raise_floor(key);
        } else {
            self.erase(key);
        }
    }

    /// Claims a key for a value write of type `ty`; the key is of that type or does not exist.
    pub(super) fn claim(&mut self, key: &mut Key, ty: Type) {
        debug_assert!(key.ty.is_none_or(|is| is == ty), "a type is checked before it is claimed");
        let creates = key.ty.is_none();
        if creates && !self.is_synced() && key.stored {
            self.erase(key); // it has lapsed
        } else if creates {
            self.void_inherited_expiry(key, ty);
        }
        let floor = key.head.floor;
        key.head.join_claim(Claim { stamp: self.stamp(), ty });
        key.parts |= Parts::CLAIM;
        if key.head.floor != floor {
            // The claim that lost may be of this very entry, and then nobody else learns of it.
            key.parts |= Parts::FLOOR;
        }
        key.floor = key.head.floor_at(self.context.now_ms);
        key.ty = Some(ty);
        if creates {
            // Nothing of it was visible, so nothing but what follows is.
            key.head.count = Self::none_of(key, ty);
        }
    }

    /// An emptied key keeps its expiry register, and a created one must not inherit it.
    fn void_inherited_expiry(&mut self, key: &mut Key, ty: Type) {
        let (stamp, now, floor) = (self.stamp(), self.context.now_ms, key.head.floor);
        let inherited = key.head.expiry.filter(|e| e.ty == ty && !floor.hides(e.stamp));
        if let Some(old) = inherited.filter(|e| e.at > now && !flaws::has(Flaw::TtlInherited)) {
            key.head.expiry = Some(Expiry { stamp, ty, at: 0, low: old.low });
            key.parts |= Parts::EXPIRY;
        }
    }

    /// Lets a visible key end at `at`, or never if 0.
    pub(super) fn set_expiry(&mut self, key: &mut Key, at: u64) {
        let Some(ty) = key.head.ty() else { return };
        let low = key.head.low(self.context.now_ms);
        key.head.expiry = match at {
            0 if !self.is_synced() => None,
            at => Some(Expiry { stamp: self.stamp(), ty, at, low }),
        };
        key.parts |= Parts::EXPIRY;
    }

    /// Writes a string's value over what the key has seen. Claim the key before.
    pub(super) fn write_string(&mut self, key: &mut Key, value: Bytes) {
        key.head.string.write(self.stamp(), Some(value));
        key.parts |= Parts::REGISTER;
    }

    /// Adds to a string's counter, which then shows `shown`. Claim the key before.
    pub(super) fn add_to_string(&mut self, key: &mut Key, amount: i64, shown: Bytes) {
        if self.is_synced() {
            let (origin, stamp) = (self.context.origin, self.stamp());
            key.head.string.add(origin, stamp, amount, key.floor);
            key.parts |= Parts::SUM;
        } else {
            self.write_string(key, shown);
        }
    }

    /// Joins a state of the head that came from another cluster, and makes the local parts anew.
    pub(super) fn join_head(&mut self, key: &mut Key, theirs: Head) {
        let type_before = key.head.ty();
        let head = std::mem::take(&mut key.head);
        let floor_before = head.floor;
        key.head = head.join(theirs);
        // Elements that the new floor hides are swept, whatever the type is now.
        key.sweep |= type_before.is_some_and(Type::has_elements) && key.head.floor != floor_before;
        key.floor = key.head.floor_at(self.context.now_ms);
        key.shows_since(Type::String, key.head.string.earliest_visible(key.floor));
        if key.head.ty() != type_before {
            // The losing type's claim was above every element of the winner that is known here,
            // and the floor rose to it, so nothing of the winner is visible yet.
            key.head.count = key.head.ty().and_then(|ty| Self::none_of(key, ty));
        }
    }

    /// The count of a key of which nothing is visible.
    fn none_of(key: &Key, ty: Type) -> Option<Count> {
        ty.has_elements().then_some(Count { live: 0, under: key.floor })
    }
}
