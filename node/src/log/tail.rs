//! The newest entries of one log, in memory.
//!
//! Invariants:
//! * The entries are consecutive and end at the log's last one.
//! * What the engine does not hold yet is never evicted: until then this is the only copy.
//! * `written` never claims an entry of a truncated past: a truncation starts a new era, and what
//!   the writer finishes for an older era counts for nothing.

use super::Record;
use std::collections::VecDeque;

/// The in-memory end of a log.
#[derive(Debug, Default)]
pub(super) struct Tail {
    records: VecDeque<Record>,
    bytes: usize,
    /// Entries up to this index are in the engine.
    written: u64,
    era: u64,
    /// Whether entries came since the last sweep.
    used: bool,
}

impl Tail {
    /// Over a log of which the engine holds everything, up to `written`.
    pub(super) fn new(written: u64) -> Tail {
        Tail { written, ..Tail::default() }
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn era(&self) -> u64 {
        self.era
    }

    /// Index of its first entry.
    pub(super) fn first(&self) -> Option<u64> {
        self.records.front().map(|record| record.id.index)
    }

    pub(super) fn push(&mut self, record: Record) {
        if let Some(last) = self.records.back() {
            assert_eq!(record.id.index, last.id.index + 1, "a log has no gaps");
        }
        self.used = true;
        self.bytes += record.bytes();
        self.records.push_back(record);
    }

    /// The last entry, if it is still here.
    pub(super) fn last(&self) -> Option<&Record> {
        self.records.back()
    }

    /// The entry at `index`, if it is still here.
    pub(super) fn get(&self, index: u64) -> Option<&Record> {
        let first = self.first()?;
        let at = usize::try_from(index.checked_sub(first)?).ok()?;
        self.records.get(at)
    }

    /// Entries from `from` to `to` (exclusive), cut after the one that reaches `max_bytes`.
    /// `None` if `from` is not here.
    pub(super) fn read(&self, from: u64, to: u64, max_bytes: usize) -> Option<Vec<Record>> {
        let first = self.first()?;
        let at = usize::try_from(from.checked_sub(first)?).ok()?;
        let mut bytes = 0;
        let mut out = Vec::new();
        for record in self.records.range(at.min(self.records.len())..) {
            if record.id.index >= to || bytes >= max_bytes {
                break;
            }
            bytes += record.bytes();
            out.push(record.clone());
        }
        Some(out)
    }

    pub(super) fn truncate_after(&mut self, index: u64) {
        while self.records.back().is_some_and(|record| record.id.index > index) {
            self.drop_back();
        }
        self.written = self.written.min(index);
        self.era += 1;
    }

    pub(super) fn purge(&mut self, upto: u64) {
        while self.first().is_some_and(|first| first <= upto) {
            self.drop_front();
        }
        // Behind a snapshot that is ahead of the log, the next entry follows the snapshot.
        self.written = self.written.max(upto);
    }

    /// The engine holds everything up to `index` of that era.
    pub(super) fn mark_written(&mut self, era: u64, index: u64) {
        if era == self.era {
            self.written = self.written.max(index);
        }
    }

    /// Drops the oldest entries that the engine holds until at most `keep_bytes` are left.
    pub(super) fn shrink_to(&mut self, keep_bytes: usize) {
        while self.bytes > keep_bytes && self.first().is_some_and(|first| first <= self.written) {
            self.drop_front();
        }
    }

    /// True if nothing was appended since the last call.
    pub(super) fn idle_since_last_sweep(&mut self) -> bool {
        !std::mem::take(&mut self.used)
    }

    fn drop_front(&mut self) {
        if let Some(record) = self.records.pop_front() {
            self.bytes -= record.bytes();
        }
    }

    fn drop_back(&mut self) {
        if let Some(record) = self.records.pop_back() {
            self.bytes -= record.bytes();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::RecordKind;
    use bytes::Bytes;
    use flotilla_topology::ids::LogId;

    fn record(index: u64) -> Record {
        let payload = Bytes::from(vec![0; 36]); // 100 bytes with what surrounds it
        Record { id: LogId { term: 1, index }, kind: RecordKind::Normal, payload }
    }

    #[test]
    fn keeps_what_the_engine_does_not_hold() {
        let mut tail = Tail::new(0);
        (1..=10).for_each(|index| tail.push(record(index)));
        tail.shrink_to(0);
        assert_eq!(tail.bytes(), 1000);
        tail.mark_written(0, 7);
        tail.shrink_to(0);
        assert_eq!((tail.first(), tail.bytes()), (Some(8), 300));
        assert_eq!(tail.read(7, 11, 1000), None);
        assert_eq!(tail.read(8, 11, 1000).unwrap().len(), 3);
        assert_eq!(tail.read(8, 11, 1).unwrap().len(), 1);
        assert_eq!(tail.read(8, 10, 1000).unwrap().len(), 2);
    }

    #[test]
    fn a_truncated_past_does_not_count_as_written() {
        let mut tail = Tail::new(0);
        (1..=10).for_each(|index| tail.push(record(index)));
        tail.truncate_after(5);
        tail.mark_written(0, 10); // the writer was still busy with the old ones
        tail.push(record(6));
        tail.shrink_to(0);
        assert_eq!(tail.first(), Some(1), "nothing of this era is written yet");
        tail.mark_written(tail.era(), 6);
        tail.shrink_to(0);
        assert_eq!(tail.first(), None);
    }

    #[test]
    fn a_purge_may_run_ahead() {
        let mut tail = Tail::new(0);
        (1..=3).for_each(|index| tail.push(record(index)));
        tail.purge(100);
        assert_eq!((tail.first(), tail.bytes()), (None, 0));
        tail.push(record(101));
        assert_eq!(tail.read(101, 102, 1).unwrap().len(), 1);
    }
}
