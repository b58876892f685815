//! Rows that are read often, in front of the store: a hit costs a tenth of what a read of RocksDB costs
//! (a memtable, a filter and two blocks).
//!
//! Invariant: whoever reads a row here reads what the store holds at a moment during the call. So a row
//! that is written leaves the cache before it changes in the store and comes back afterwards, and what
//! was read from the store is kept only if nothing near it was written meanwhile. Otherwise one who
//! reads from the store could see a write, and the next one here not yet.
//!
//! Rows are written by one task at a time: that of the group whose tablet they stand in.

use bytes::Bytes;
use parking_lot::Mutex;
use quick_cache::DefaultHashBuilder;
use quick_cache::sync::Cache;
use std::hash::BuildHasher;

/// Locks between fills and writes. A write holds up fills of so many parts of all rows.
const STRIPES: usize = 256;
/// Larger values are not kept: copying them costs what the store does.
const VALUE_BYTES_MAX: usize = 16 << 10;
/// What a row takes beside its key and its value, about.
const OVERHEAD_BYTES: usize = 128;
/// A row of the size that the number of rows is estimated by.
const ROW_BYTES: usize = 256;

/// A row's full key, and its value; none if there is no such row.
pub type Change = (Vec<u8>, Option<Bytes>);

#[derive(Clone)]
struct Weight;

impl quick_cache::Weighter<Box<[u8]>, Option<Bytes>> for Weight {
    fn weight(&self, key: &Box<[u8]>, value: &Option<Bytes>) -> u64 {
        (OVERHEAD_BYTES + key.len() + value.as_ref().map_or(0, Bytes::len)) as u64
    }
}

#[derive(Default)]
struct Stripe {
    /// Writes that have begun.
    begun: u64,
    /// Of these, how many have not ended.
    under_way: u32,
}

/// What was being written when a row was looked for in the store.
pub struct Note(Option<u64>);

/// See the module.
pub struct RowCache {
    rows: Cache<Box<[u8]>, Option<Bytes>, Weight>,
    stripes: Box<[Mutex<Stripe>]>,
    hasher: DefaultHashBuilder,
}

impl RowCache {
    /// An empty one that takes up to so many bytes.
    pub fn new(bytes: usize) -> RowCache {
        let rows = Cache::with_weighter(bytes / ROW_BYTES, bytes as u64, Weight);
        let stripes = (0..STRIPES).map(|_| Mutex::default()).collect();
        RowCache { rows, stripes, hasher: DefaultHashBuilder::default() }
    }

    /// A row, if it is known whether there is one.
    pub fn get(&self, key: &[u8]) -> Option<Option<Bytes>> {
        self.rows.get(key)
    }

    /// To be called before a row is read from the store.
    pub fn note(&self, key: &[u8]) -> Note {
        let stripe = self.stripe(key).lock();
        Note((stripe.under_way == 0).then_some(stripe.begun))
    }

    /// Keeps what the store said, unless something may have changed since `note`.
    pub fn fill(&self, key: &[u8], value: Option<&Bytes>, note: Note) {
        if value.is_some_and(|value| value.len() > VALUE_BYTES_MAX) {
            return;
        }
        let stripe = self.stripe(key).lock();
        if note.0 == Some(stripe.begun) {
            self.rows.insert(key.into(), value.cloned());
        }
    }

    /// Changes rows by `write`, in the store, each of them once. Rows that were known are known
    /// afterwards.
    pub fn write<T, E>(
        &self,
        changes: Vec<Change>,
        write: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        let known: Vec<bool> = changes.iter().map(|(key, _)| self.begin(key)).collect();
        let written = write();
        for ((key, value), known) in changes.into_iter().zip(known) {
            let mut stripe = self.stripe(&key).lock();
            stripe.under_way -= 1;
            // What failed may have changed the store or not.
            let kept = known && written.is_ok();
            if kept && value.as_ref().is_none_or(|value| value.len() <= VALUE_BYTES_MAX) {
                // A copy: the value is a part of its entry, which need not stay for it.
                let value = value.map(|value| Bytes::copy_from_slice(&value));
                self.rows.insert(key.into(), value);
            }
        }
        written
    }

    /// Changes any number of rows by `write`: nothing is known afterwards.
    pub fn write_ranges<T>(&self, write: impl FnOnce() -> T) -> T {
        for stripe in &self.stripes {
            let mut stripe = stripe.lock();
            stripe.begun += 1;
            stripe.under_way += 1;
        }
        self.rows.clear();
        let written = write();
        self.stripes.iter().for_each(|stripe| stripe.lock().under_way -= 1);
        written
    }

    /// Bytes that it takes.
    pub fn bytes(&self) -> u64 {
        self.rows.weight()
    }

    /// How many reads found their row here, and how many did not.
    pub fn hits_and_misses(&self) -> (u64, u64) {
        (self.rows.hits(), self.rows.misses())
    }

    /// A row is about to be written; whether it was known.
    fn begin(&self, key: &[u8]) -> bool {
        let mut stripe = self.stripe(key).lock();
        stripe.begun += 1;
        stripe.under_way += 1;
        self.rows.remove(key).is_some()
    }

    fn stripe(&self, key: &[u8]) -> &Mutex<Stripe> {
        &self.stripes[self.hasher.hash_one(key) as usize % STRIPES]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &'static str) -> Option<Bytes> {
        Some(Bytes::from_static(text.as_bytes()))
    }

    fn written(cache: &RowCache, key: &str, value: Option<Bytes>, meanwhile: impl FnOnce()) {
        let changes = vec![(key.as_bytes().to_vec(), value)];
        let done: Result<(), ()> = cache.write(changes, || {
            meanwhile();
            Ok(())
        });
        assert_eq!(done, Ok(()));
    }

    #[test]
    fn a_row_that_was_read_is_known_until_it_changes_and_then_as_it_is_now() {
        let cache = RowCache::new(1 << 20);
        written(&cache, "a", value("1"), || {});
        assert_eq!(cache.get(b"a"), None, "nobody has read it");
        let note = cache.note(b"a");
        cache.fill(b"a", value("1").as_ref(), note);
        assert_eq!(cache.get(b"a"), Some(value("1")));
        written(&cache, "a", value("2"), || assert_eq!(cache.get(b"a"), None, "on its way"));
        assert_eq!(cache.get(b"a"), Some(value("2")));
        written(&cache, "a", None, || {});
        assert_eq!(cache.get(b"a"), Some(None), "known to be gone");
        let failed: Result<(), ()> = cache.write(vec![(b"a".to_vec(), value("3"))], || Err(()));
        assert_eq!((failed, cache.get(b"a")), (Err(()), None));
    }

    #[test]
    fn what_was_read_before_or_during_a_write_is_not_kept() {
        let cache = RowCache::new(1 << 20);
        let early = cache.note(b"a");
        let mut during = None;
        written(&cache, "a", value("2"), || during = Some(cache.note(b"a")));
        cache.fill(b"a", value("1").as_ref(), early);
        cache.fill(b"a", value("1").as_ref(), during.expect("it was written"));
        assert_eq!(cache.get(b"a"), None);
        let early = cache.note(b"a");
        let late = cache.write_ranges(|| cache.note(b"a"));
        cache.fill(b"a", value("1").as_ref(), early);
        cache.fill(b"a", value("1").as_ref(), late);
        assert_eq!(cache.get(b"a"), None);
    }

    #[test]
    fn ranges_leave_nothing_and_large_values_are_not_kept() {
        let cache = RowCache::new(1 << 20);
        let keep = |key: &[u8], value: &Bytes| cache.fill(key, Some(value), cache.note(key));
        keep(b"a", &Bytes::from_static(b"1"));
        cache.write_ranges(|| ());
        assert_eq!(cache.get(b"a"), None);
        keep(b"b", &Bytes::from(vec![0; VALUE_BYTES_MAX + 1]));
        assert_eq!(cache.get(b"b"), None);
    }

    #[test]
    fn it_takes_no_more_than_it_may() {
        let cache = RowCache::new(64 << 10);
        for number in 0..10_000u32 {
            let key = number.to_be_bytes();
            cache.fill(&key, value("some value").as_ref(), cache.note(&key));
        }
        assert!((32 << 10..=64 << 10).contains(&cache.bytes()), "{}", cache.bytes());
    }
}
