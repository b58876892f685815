//! A log that vanishes with its process, for learners that are only a window on a group's log.
//!
//! It is seeded as purged up to a position, so that the leader streams from there on. Nothing is
//! written anywhere: its promises ("durable when called back") count for nothing but a learner's
//! progress, and a learner that lost its log must come back under a new replica id.
//!
//! What was applied is let go at once: nobody asks a learner for entries. What was not is bounded by
//! [`MEMORY_LOG_BYTES_MAX`]: above it, appends are not reported as flushed until enough was applied.
//! So the leader's window fills and it stops sending. Every entry that is reported can be applied,
//! hence this always ends.

use super::tail::Tail;
use super::{Flushed, Log, LogState, Record};
use bytes::Bytes;
use flotilla_topology::ids::LogId;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

/// Bytes that wait to be applied before the sender is held back. A sender has a window of its own
/// in flight beyond that.
pub const MEMORY_LOG_BYTES_MAX: usize = 8 << 20;

/// An in-memory log. Clones share it.
#[derive(Clone)]
pub struct MemoryLog {
    inner: Arc<Mutex<Inner>>,
}

struct Inner {
    state: LogState,
    vote: Option<Bytes>,
    tail: Tail,
    /// What was applied and let go; a truncation may lead back to it.
    released: LogId,
    /// Appends that are not reported yet, and their bytes.
    held: VecDeque<(usize, Flushed)>,
    held_bytes: usize,
}

impl Inner {
    /// What may be reported now. The caller reports it after letting go of the lock.
    fn due(&mut self) -> Vec<Flushed> {
        let mut due = Vec::new();
        // Counted is what was reported and waits to be applied. So an entry that is larger than the
        // bound is held until everything before it is applied, and then passes.
        while self.tail.bytes().saturating_sub(self.held_bytes) < MEMORY_LOG_BYTES_MAX
            && let Some((bytes, flushed)) = self.held.pop_front()
        {
            self.held_bytes -= bytes;
            due.push(flushed);
        }
        due
    }

    fn floor(&self) -> LogId {
        self.state.purged.max(self.released)
    }
}

impl MemoryLog {
    /// An empty log behind `purged`: the next entry is the one after it.
    pub fn seeded(purged: LogId) -> MemoryLog {
        let inner = Inner {
            state: LogState::behind(purged),
            vote: None,
            tail: Tail::default(),
            released: purged,
            held: VecDeque::new(),
            held_bytes: 0,
        };
        MemoryLog { inner: Arc::new(Mutex::new(inner)) }
    }

    /// Bytes that it holds.
    pub fn bytes(&self) -> usize {
        self.inner.lock().tail.bytes()
    }
}

impl Log for MemoryLog {
    fn state(&self) -> LogState {
        self.inner.lock().state
    }

    async fn append(&self, records: Vec<Record>, flushed: Flushed) {
        let due = {
            let mut inner = self.inner.lock();
            let before = inner.tail.bytes();
            for record in records {
                inner.state.append(record.id);
                inner.tail.push(record);
            }
            let bytes = inner.tail.bytes() - before;
            inner.held.push_back((bytes, flushed));
            inner.held_bytes += bytes;
            inner.due()
        };
        due.into_iter().for_each(|flushed| flushed());
    }

    fn truncate_after(&self, index: u64) {
        let held = {
            let mut inner = self.inner.lock();
            inner.tail.truncate_after(index);
            inner.state.last = match inner.tail.last() {
                Some(record) => record.id,
                None => inner.floor(),
            };
            inner.state.first = inner.state.first.min(inner.state.last.index + 1);
            inner.held_bytes = 0;
            std::mem::take(&mut inner.held)
        };
        // Rare, and what was held may be gone: nothing is held back by it.
        held.into_iter().for_each(|(_, flushed)| flushed());
    }

    fn purge(&self, upto: LogId) {
        let due = {
            let mut inner = self.inner.lock();
            if inner.state.purge(upto) {
                inner.tail.purge(upto.index);
            }
            inner.due()
        };
        due.into_iter().for_each(|flushed| flushed());
    }

    fn applied(&self, upto: LogId) {
        let due = {
            let mut inner = self.inner.lock();
            inner.released = inner.released.max(upto);
            inner.tail.purge(upto.index);
            inner.due()
        };
        due.into_iter().for_each(|flushed| flushed());
    }

    fn save_vote(&self, vote: Bytes, flushed: Flushed) {
        self.inner.lock().vote = Some(vote);
        flushed();
    }

    fn vote(&self) -> Option<Bytes> {
        self.inner.lock().vote.clone()
    }

    async fn read(&self, from: u64, to: u64, max_bytes: usize) -> io::Result<Vec<Record>> {
        Ok(self.inner.lock().tail.read(from, to, max_bytes).unwrap_or_default())
    }
}
