//! The one way in which evaluation and reads see data: an overlay over stored rows.
//!
//! The [`Overlay`] holds what proposed entries wrote and storage does not have yet. A [`View`] is
//! both together. What must always hold:
//! * A row in the overlay is newer than the stored row of the same key and than every range
//!   delete in the overlay: a range delete removes the overlay rows that it covers.
//! * Rows leave the overlay only by [`Overlay::retire`], after storage has them, or all at once
//!   when a run of the evaluator ends.
//! * [`Overlay::finish`] gives exactly what was written since [`Overlay::begin`], each row once.
//!
//! A client's read uses a view with an empty overlay: it sees applied state only.

use crate::engine::waited::Waited;
use crate::engine::watch::Watches;
use crate::model::Parts;
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::iter::Peekable;
use std::ops::Range;

/// Bytes of keys and values in an overlay above which its owner must wait for entries to apply
/// before it evaluates more.
pub const OVERLAY_BYTES_MAX: usize = 256 << 20;

/// What a row costs in the overlay besides its bytes, about.
const ROW_OVERHEAD_BYTES: usize = 128;
/// What a row costs in an entry besides its bytes, about.
const OP_OVERHEAD_BYTES: usize = 12;

/// A row key and its value.
pub type Row = (Bytes, Bytes);

/// Rows in order, or the error that ended them.
pub type RowIter<'a> = Box<dyn Iterator<Item = io::Result<Row>> + 'a>;

/// Stored rows of one group, at one moment. Keys are row keys, without anything local in front.
pub trait Rows {
    /// The value of a row.
    fn get(&self, key: &[u8]) -> io::Result<Option<Bytes>>;

    /// The rows of a range, from its start, or from its end if `reverse`.
    fn scan<'a>(&'a self, range: Range<Bytes>, reverse: bool) -> RowIter<'a>;
}

impl Rows for BTreeMap<Bytes, Bytes> {
    fn get(&self, key: &[u8]) -> io::Result<Option<Bytes>> {
        Ok(BTreeMap::get(self, key).cloned())
    }

    fn scan<'a>(&'a self, range: Range<Bytes>, reverse: bool) -> RowIter<'a> {
        if range.start >= range.end {
            return Box::new(std::iter::empty());
        }
        let rows = self.range(range).map(|(key, value)| Ok((key.clone(), value.clone())));
        if reverse { Box::new(rows.rev()) } else { Box::new(rows) }
    }
}

/// One row as an entry writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowWrite {
    /// The row key.
    pub key: Bytes,
    /// The new value, or none to delete the row.
    pub value: Option<Bytes>,
    /// What in it other clusters need.
    pub parts: Parts,
}

/// What one entry writes: first the range deletes, then the rows, which are sorted by key.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Batch {
    /// Ranges whose stored rows all go.
    pub range_deletes: Vec<Range<Bytes>>,
    /// Rows to put or delete.
    pub rows: Vec<RowWrite>,
}

impl Batch {
    /// Whether it writes nothing.
    pub fn is_empty(&self) -> bool {
        self.range_deletes.is_empty() && self.rows.is_empty()
    }

    /// Bytes that it takes in an entry, about.
    pub fn bytes(&self) -> usize {
        let rows = self.rows.iter();
        let rows = rows.map(|row| row.key.len() + row.value.as_ref().map_or(0, Bytes::len));
        let ranges = self.range_deletes.iter().map(|range| range.start.len() + range.end.len());
        let count = self.rows.len() + self.range_deletes.len();
        rows.chain(ranges).sum::<usize>() + count * OP_OVERHEAD_BYTES
    }

    /// Writes it all into the current entry of `view`.
    pub fn write_to(self, view: &mut View<'_>) {
        for range in self.range_deletes {
            view.delete_range(range);
        }
        for row in self.rows {
            match row.value {
                Some(value) => view.put(row.key, value, row.parts),
                None => view.delete(row.key),
            }
        }
    }

    /// Writes it all into `rows`: what applying an entry does, for tests and tools.
    pub fn apply_to(&self, rows: &mut BTreeMap<Bytes, Bytes>) {
        for range in &self.range_deletes {
            rows.retain(|key, _| !range.contains(key));
        }
        for write in &self.rows {
            match &write.value {
                Some(value) => rows.insert(write.key.clone(), value.clone()),
                None => rows.remove(&write.key),
            };
        }
    }
}

#[derive(Debug)]
struct Pending {
    value: Option<Bytes>,
    seq: u64,
}

#[derive(Debug, Default)]
struct OpenEntry {
    range_deletes: Vec<Range<Bytes>>,
    rows: BTreeMap<Bytes, Parts>,
    bytes: usize,
}

/// Rows written by entries that are proposed, or being built, and not applied yet.
#[derive(Debug, Default)]
pub struct Overlay {
    rows: BTreeMap<Bytes, Pending>,
    range_deletes: Vec<(Range<Bytes>, u64)>,
    written: VecDeque<(u64, Vec<Bytes>)>,
    entry: OpenEntry,
    seq: u64,
    bytes: usize,
    /// Which keys somebody wants to know the changes of: all that is written comes by here.
    pub watches: Watches,
    /// Which keys somebody waits for.
    pub waited: Waited,
}

impl Overlay {
    /// An overlay without rows.
    pub fn new() -> Overlay {
        Overlay::default()
    }

    /// Starts the entry `seq`: what is written from now on belongs to it.
    ///
    /// # Panics
    /// If `seq` does not rise, or the entry before was not finished.
    pub fn begin(&mut self, seq: u64) {
        assert!(seq > self.seq, "entries of a run must rise: {seq} after {}", self.seq);
        assert!(self.entry.rows.is_empty(), "entry {} was not finished", self.seq);
        assert!(self.entry.range_deletes.is_empty(), "entry {} was not finished", self.seq);
        self.seq = seq;
    }

    /// What was written since [`Overlay::begin`]. It stays visible until it is retired.
    pub fn finish(&mut self) -> Batch {
        let entry = std::mem::take(&mut self.entry);
        let mut rows = Vec::with_capacity(entry.rows.len());
        let mut keys = Vec::with_capacity(entry.rows.len());
        for (key, parts) in entry.rows {
            let value = self.rows.get(&key).and_then(|pending| pending.value.clone());
            rows.push(RowWrite { key: key.clone(), value, parts });
            keys.push(key);
        }
        self.written.push_back((self.seq, keys));
        Batch { range_deletes: entry.range_deletes, rows }
    }

    /// Drops what entries up to `seq` wrote, unless a later one wrote it again. Call it only
    /// after a new view would read those rows from storage.
    pub fn retire(&mut self, seq: u64) {
        while self.written.front().is_some_and(|(written, _)| *written <= seq) {
            let Some((_, keys)) = self.written.pop_front() else { break };
            for key in keys {
                if self.rows.get(&key).is_some_and(|pending| pending.seq <= seq) {
                    self.remove(&key);
                }
            }
        }
        self.range_deletes.retain(|(_, written)| *written > seq);
    }

    /// Bytes that the entry being built holds so far, about.
    pub fn entry_bytes(&self) -> usize {
        self.entry.bytes
    }

    /// Whether the entry being built has written nothing.
    pub fn entry_is_empty(&self) -> bool {
        self.entry.rows.is_empty() && self.entry.range_deletes.is_empty()
    }

    /// Bytes that it holds, about.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether its owner must wait for entries to apply before it evaluates more.
    pub fn is_full(&self) -> bool {
        self.bytes >= OVERLAY_BYTES_MAX
    }

    fn covers(&self, key: &[u8]) -> bool {
        self.range_deletes.iter().any(|(range, _)| &range.start[..] <= key && key < &range.end[..])
    }

    fn cost(key: &Bytes, value: &Option<Bytes>) -> usize {
        key.len() + value.as_ref().map_or(0, Bytes::len) + ROW_OVERHEAD_BYTES
    }

    fn remove(&mut self, key: &Bytes) {
        if let Some(pending) = self.rows.remove(key) {
            self.bytes -= Self::cost(key, &pending.value);
        }
    }

    fn write(&mut self, key: Bytes, value: Option<Bytes>, parts: Parts) {
        self.watches.touch(&key);
        self.waited.touch(&key);
        let cost = Self::cost(&key, &value);
        self.bytes += cost;
        self.entry.bytes += cost;
        *self.entry.rows.entry(key.clone()).or_default() |= parts;
        let pending = Pending { value, seq: self.seq };
        if let Some(old) = self.rows.insert(key.clone(), pending) {
            let old_cost = Self::cost(&key, &old.value);
            self.bytes -= old_cost;
            if old.seq == self.seq {
                self.entry.bytes -= old_cost;
            }
        }
    }

    fn delete_range(&mut self, range: Range<Bytes>) {
        self.watches.touch_range(&range);
        let covered: Vec<Bytes> =
            self.rows.range(range.clone()).map(|(key, _)| key.clone()).collect();
        for key in covered {
            self.remove(&key);
            self.entry.rows.remove(&key);
        }
        self.entry.bytes += range.start.len() + range.end.len() + ROW_OVERHEAD_BYTES;
        self.entry.range_deletes.push(range.clone());
        self.range_deletes.push((range, self.seq));
    }
}

/// Stored rows with an overlay on top.
pub struct View<'a> {
    rows: &'a dyn Rows,
    overlay: &'a mut Overlay,
}

impl<'a> View<'a> {
    /// What is stored, as changed by what is under way.
    pub fn new(rows: &'a dyn Rows, overlay: &'a mut Overlay) -> View<'a> {
        View { rows, overlay }
    }

    /// The value of a row.
    pub fn get(&self, key: &[u8]) -> io::Result<Option<Bytes>> {
        if let Some(pending) = self.overlay.rows.get(key) {
            return Ok(pending.value.clone());
        }
        if self.overlay.covers(key) {
            return Ok(None);
        }
        self.rows.get(key)
    }

    /// The rows of a range, from its start, or from its end if `reverse`.
    pub fn scan(&self, range: Range<Bytes>, reverse: bool) -> RowIter<'_> {
        if range.start >= range.end {
            return Box::new(std::iter::empty());
        }
        let stored = self.rows.scan(range.clone(), reverse);
        if self.overlay.rows.is_empty() && self.overlay.range_deletes.is_empty() {
            return stored;
        }
        let pending = self.overlay.rows.range(range);
        let pending: Box<dyn Iterator<Item = (&Bytes, &Pending)>> =
            if reverse { Box::new(pending.rev()) } else { Box::new(pending) };
        let (stored, pending) = (stored.peekable(), pending.peekable());
        Box::new(Merged { overlay: self.overlay, stored, pending, reverse })
    }

    /// Writes a row in the current entry.
    pub fn put(&mut self, key: Bytes, value: Bytes, parts: Parts) {
        self.overlay.write(key, Some(value), parts);
    }

    /// Deletes a row in the current entry: local upkeep, which no other cluster learns of.
    pub fn delete(&mut self, key: Bytes) {
        self.overlay.write(key, None, Parts::NONE);
    }

    /// Deletes the rows of a range in the current entry, without reading them.
    pub fn delete_range(&mut self, range: Range<Bytes>) {
        if range.start < range.end {
            self.overlay.delete_range(range);
        }
    }
}

/// What a view shows can lie below another overlay: one whose writes may yet be dropped.
impl Rows for View<'_> {
    fn get(&self, key: &[u8]) -> io::Result<Option<Bytes>> {
        View::get(self, key)
    }

    fn scan<'a>(&'a self, range: Range<Bytes>, reverse: bool) -> RowIter<'a> {
        View::scan(self, range, reverse)
    }
}

/// Stored rows and overlay rows in one order.
struct Merged<'a> {
    overlay: &'a Overlay,
    stored: Peekable<RowIter<'a>>,
    pending: Peekable<Box<dyn Iterator<Item = (&'a Bytes, &'a Pending)> + 'a>>,
    reverse: bool,
}

impl Iterator for Merged<'_> {
    type Item = io::Result<Row>;

    fn next(&mut self) -> Option<io::Result<Row>> {
        loop {
            let order = match (self.stored.peek(), self.pending.peek()) {
                (None, None) => return None,
                (Some(Err(_)), _) => return self.stored.next(),
                (Some(Ok(_)), None) => std::cmp::Ordering::Less,
                (None, Some(_)) => std::cmp::Ordering::Greater,
                (Some(Ok((stored, _))), Some((pending, _))) => {
                    let order = stored.cmp(pending);
                    if self.reverse { order.reverse() } else { order }
                }
            };
            if order.is_lt() {
                match self.stored.next() {
                    Some(Ok((key, _))) if self.overlay.covers(&key) => continue,
                    row => return row,
                }
            }
            if order.is_eq() {
                self.stored.next();
            }
            if let Some((key, Pending { value: Some(value), .. })) = self.pending.next() {
                return Some(Ok((key.clone(), value.clone())));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, Clone)]
    enum Step {
        Put(u8, u8),
        Delete(u8),
        DeleteRange(u8, u8),
        NextEntry,
        Apply(u8),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let key = 0u8..12;
        let step = prop_oneof![
            4 => (key.clone(), any::<u8>()).prop_map(|(k, v)| Step::Put(k, v)),
            2 => key.clone().prop_map(Step::Delete),
            1 => (key.clone(), key).prop_map(|(a, b)| Step::DeleteRange(a, b)),
            2 => Just(Step::NextEntry),
            1 => (0u8..3).prop_map(Step::Apply),
        ];
        proptest::collection::vec(step, 0..60)
    }

    fn row(key: u8) -> Bytes {
        Bytes::copy_from_slice(&[key])
    }

    fn check(rows: &BTreeMap<Bytes, Bytes>, overlay: &mut Overlay, all: &BTreeMap<Bytes, Bytes>) {
        let view = View::new(rows, overlay);
        for key in 0..12 {
            assert_eq!(view.get(&row(key)).unwrap().as_ref(), all.get(&row(key)));
        }
        for (from, to) in [(0, 12), (3, 7), (5, 5)] {
            let want: Vec<Row> =
                all.range(row(from)..row(to)).map(|(k, v)| (k.clone(), v.clone())).collect();
            let scan = |reverse| view.scan(row(from)..row(to), reverse).map(Result::unwrap);
            assert_eq!(scan(false).collect::<Vec<_>>(), want);
            assert_eq!(scan(true).collect::<Vec<_>>(), want.into_iter().rev().collect::<Vec<_>>());
        }
    }

    proptest! {
        /// Whatever is applied and retired when, the view shows what all writes together gave.
        #[test]
        fn a_view_shows_every_write(steps in steps()) {
            let mut all = BTreeMap::new();
            let mut rows = BTreeMap::new();
            let mut overlay = Overlay::new();
            let mut in_flight = VecDeque::new();
            let mut seq = 1;
            overlay.begin(seq);
            for step in steps {
                let mut view = View::new(&rows, &mut overlay);
                match step {
                    Step::Put(key, value) => {
                        view.put(row(key), row(value), Parts::REGISTER);
                        all.insert(row(key), row(value));
                    }
                    Step::Delete(key) => {
                        view.delete(row(key));
                        all.remove(&row(key));
                    }
                    Step::DeleteRange(a, b) => {
                        view.delete_range(row(a)..row(b));
                        all.retain(|key, _| !(row(a)..row(b)).contains(key));
                    }
                    Step::NextEntry => {
                        in_flight.push_back((seq, overlay.finish()));
                        seq += 1;
                        overlay.begin(seq);
                    }
                    Step::Apply(count) => {
                        for (seq, batch) in in_flight.drain(..in_flight.len().min(count.into())) {
                            let batch: Batch = batch;
                            batch.apply_to(&mut rows);
                            overlay.retire(seq);
                        }
                    }
                }
                check(&rows, &mut overlay, &all);
            }
            overlay.finish();
            overlay.retire(seq);
            prop_assert_eq!(overlay.bytes(), 0);
            prop_assert!(overlay.rows.is_empty() && overlay.range_deletes.is_empty());
        }
    }

    #[test]
    fn writes_to_one_row_within_an_entry_become_one() {
        let rows = BTreeMap::new();
        let mut overlay = Overlay::new();
        overlay.begin(1);
        let mut view = View::new(&rows, &mut overlay);
        view.put(row(1), row(10), Parts::REGISTER);
        view.put(row(1), row(11), Parts::CLAIM);
        let batch = overlay.finish();
        let parts = Parts::REGISTER | Parts::CLAIM;
        assert_eq!(batch.rows, [RowWrite { key: row(1), value: Some(row(11)), parts }]);
    }
}
