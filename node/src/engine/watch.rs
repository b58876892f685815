//! Which watched keys were written since somebody began to watch them.
//!
//! Exact and cheap: only keys that are watched are remembered, whatever they hold, and while none is,
//! a write pays one comparison. Every write of a group goes through one overlay, so none is missed.
//! Invariants:
//! * A key that is no longer remembered counts as changed, and is never remembered with a number
//!   that was given out before: forgetting may only fail a transaction, never let one through.
//! * A watch lives for [`WATCH_AGE`] at least, unless [`WATCHED_KEYS_MAX`] other keys or
//!   [`WATCHED_BYTES_MAX`] are watched meanwhile.

use crate::engine::keys;
use bytes::Bytes;
use flotilla_topology::slot::Slot;
use std::collections::HashMap;
use std::ops::Range;
use std::time::{Duration, Instant};

/// Keys that are remembered in each of two generations, at most.
pub const WATCHED_KEYS_MAX: usize = 32_768;
/// Bytes of their names in each of two generations, about, at most.
pub const WATCHED_BYTES_MAX: usize = 8 << 20;
/// How long a watch lives at least, while few keys are watched. Who is gone leaves its watches
/// behind, and they must not be looked up for ever.
pub const WATCH_AGE: Duration = Duration::from_secs(600);

/// The watched keys of one overlay. Two generations: what is watched is put into the young one; when
/// that is full or old, it becomes the old one, and the old one is forgotten.
#[derive(Debug, Default)]
pub struct Watches {
    /// Numbers the changes of watched keys, and the keys as they are first watched.
    change: u64,
    young: Generation,
    old: Generation,
    turned: Option<Instant>,
}

/// Keys by slot and escaped name, each with the number of its last change.
#[derive(Debug, Default)]
struct Generation {
    changes: HashMap<Bytes, u64>,
    bytes: usize,
}

impl Generation {
    fn put(&mut self, name: Bytes, change: u64) {
        let bytes = name.len();
        if self.changes.insert(name, change).is_none() {
            self.bytes += bytes;
        }
    }

    fn take(&mut self, name: &[u8]) -> Option<u64> {
        let change = self.changes.remove(name)?;
        self.bytes -= name.len();
        Some(change)
    }

    fn is_full(&self) -> bool {
        self.changes.len() >= WATCHED_KEYS_MAX || self.bytes >= WATCHED_BYTES_MAX
    }
}

/// What [`keys::owner`] gives of the rows of a key.
pub(super) fn name_of(slot: Slot, key: &[u8]) -> Bytes {
    keys::head(slot, key).slice(1..)
}

impl Watches {
    /// Watches a key from now on. What [`Watches::is_unchanged`] wants to hear.
    pub fn watch(&mut self, slot: Slot, key: &[u8], now: Instant) -> u64 {
        if self.turned.is_none() || self.young.is_full() {
            self.turn(now);
        }
        let name = name_of(slot, key);
        let known = self.young.changes.get(&name).copied().or_else(|| self.old.take(&name));
        let change = known.unwrap_or_else(|| {
            // Whoever watched it before it was forgotten must not take it for unchanged.
            self.change += 1;
            self.change
        });
        self.young.put(name, change);
        self.change
    }

    /// Whether a key was not written since [`Watches::watch`] answered `since`, for certain.
    pub fn is_unchanged(&self, slot: Slot, key: &[u8], since: u64) -> bool {
        let name = name_of(slot, key);
        let found = self.young.changes.get(&name).or_else(|| self.old.changes.get(&name));
        found.is_some_and(|change| *change <= since)
    }

    /// Whether no key is watched.
    pub fn is_empty(&self) -> bool {
        self.young.changes.is_empty() && self.old.changes.is_empty()
    }

    /// Forgets what has been watched for long.
    pub fn age(&mut self, now: Instant) {
        let since = self.turned.map(|turned| now.saturating_duration_since(turned));
        if !self.is_empty() && since.is_some_and(|since| since >= WATCH_AGE) {
            self.turn(now);
        }
    }

    fn turn(&mut self, now: Instant) {
        self.old = std::mem::take(&mut self.young);
        self.turned = Some(now);
    }

    /// A row is written or deleted.
    pub(super) fn touch(&mut self, row: &[u8]) {
        if self.is_empty() {
            return;
        }
        if row.first() == Some(&keys::RANGE_FLOOR) {
            self.forget(); // it may hide any key
        }
        let Some(name) = keys::owner(row) else { return };
        for generation in [&mut self.young, &mut self.old] {
            if let Some(change) = generation.changes.get_mut(name) {
                self.change += 1;
                *change = self.change;
            }
        }
    }

    /// All rows of a range are deleted. Of a range that is not one key's all watches break.
    pub(super) fn touch_range(&mut self, range: &Range<Bytes>) {
        if self.is_empty() {
            return;
        }
        let own = keys::owner(&range.start).map(|name| 1 + name.len());
        let of_one_key = own.is_some_and(|len| {
            // Behind the last row of a key stands what begins as its rows do, with a higher last byte.
            let mut end = range.start[..len].to_vec();
            end[len - 1] += 1;
            range.end[..] <= end[..]
        });
        match of_one_key {
            true => self.touch(&range.start),
            false => self.forget(),
        }
    }

    /// Every key counts as changed.
    fn forget(&mut self) {
        (self.young, self.old) = Default::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Type;

    const SLOT: Slot = Slot(7);

    #[test]
    fn a_write_to_any_row_of_a_key_breaks_its_watches_and_no_others() {
        let now = Instant::now();
        let rows: [fn(&[u8]) -> Bytes; 2] = [
            |key| keys::head(SLOT, key),
            |key| keys::element(SLOT, key, Type::Hash, b"field\0\x01"),
        ];
        for row in rows {
            let mut watches = Watches::default();
            let since = watches.watch(SLOT, b"a\0b", now);
            for other in [&b"a"[..], b"a\0", b"a\0b\0", b"", b"a\0bc"] {
                watches.touch(&row(other));
            }
            watches.touch(&keys::expiry(1, SLOT, b"a\0b"));
            watches.touch(&keys::single(keys::LIVE));
            assert!(watches.is_unchanged(SLOT, b"a\0b", since));
            assert!(!watches.is_unchanged(Slot(8), b"a\0b", since), "it is not watched");
            watches.touch(&row(b"a\0b"));
            assert!(!watches.is_unchanged(SLOT, b"a\0b", since));
            let since = watches.watch(SLOT, b"a\0b", now);
            assert!(watches.is_unchanged(SLOT, b"a\0b", since), "watched anew");
        }
    }

    #[test]
    fn ranges_of_one_key_break_its_watches_and_all_others_break_all() {
        let now = Instant::now();
        let watched = || {
            let mut watches = Watches::default();
            (watches.watch(SLOT, b"a", now), watches.watch(SLOT, b"b", now), watches)
        };
        let (a, b, mut watches) = watched();
        watches.touch_range(&keys::elements(SLOT, b"a"));
        assert!(!watches.is_unchanged(SLOT, b"a", a) && watches.is_unchanged(SLOT, b"b", b));
        let (a, b, mut watches) = watched();
        watches.touch_range(&keys::elements_of_type(SLOT, b"b", Type::Hash));
        assert!(watches.is_unchanged(SLOT, b"a", a) && !watches.is_unchanged(SLOT, b"b", b));
        for range in [keys::of_kind(keys::HEAD), keys::of_kind(keys::ELEMENT)] {
            let (a, b, mut watches) = watched();
            watches.touch_range(&range);
            assert!(!watches.is_unchanged(SLOT, b"a", a) && !watches.is_unchanged(SLOT, b"b", b));
        }
    }

    #[test]
    fn a_floor_under_a_range_of_keys_breaks_all() {
        let mut watches = Watches::default();
        let a = watches.watch(SLOT, b"a", Instant::now());
        watches.touch(&[keys::RANGE_FLOOR, 1]);
        assert!(!watches.is_unchanged(SLOT, b"a", a));
    }

    #[test]
    fn what_was_forgotten_counts_as_changed_also_when_it_is_watched_again() {
        let mut watches = Watches::default();
        let start = Instant::now();
        let key = |number: usize| number.to_be_bytes();
        let first = watches.watch(SLOT, &key(0), start);
        for number in 1..=2 * WATCHED_KEYS_MAX {
            watches.watch(SLOT, &key(number), start);
        }
        assert!(watches.young.changes.len() + watches.old.changes.len() <= 2 * WATCHED_KEYS_MAX);
        assert!(!watches.is_unchanged(SLOT, &key(0), first));
        watches.touch(&keys::head(SLOT, &key(0))); // and nobody takes note
        let again = watches.watch(SLOT, &key(0), start);
        assert!(!watches.is_unchanged(SLOT, &key(0), first));
        assert!(watches.is_unchanged(SLOT, &key(0), again));

        watches.age(start + WATCH_AGE);
        assert!(watches.is_unchanged(SLOT, &key(0), again), "one turn keeps it");
        watches.age(start + WATCH_AGE + Duration::from_secs(1));
        assert!(!watches.is_empty(), "too early");
        watches.age(start + 2 * WATCH_AGE);
        assert!(watches.is_empty() && !watches.is_unchanged(SLOT, &key(0), again));
        let bytes = watches.young.bytes + watches.old.bytes;
        assert_eq!(bytes, 0, "the names are counted as they come and go");
    }
}
