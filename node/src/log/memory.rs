//! A log that vanishes with its process, for learners that are only a window on a group's log.
//!
//! It is seeded as purged up to a position, so that the leader streams from there on. Nothing is
//! written anywhere: its promises ("durable when called back") count for nothing but a learner's
//! progress, and a learner that lost its log must come back under a new replica id.

use super::{Flushed, Log, LogState, Record};
use bytes::Bytes;
use flotilla_topology::ids::LogId;
use parking_lot::Mutex;
use std::io;
use std::sync::Arc;

use super::tail::Tail;

/// An in-memory log. Clones share it.
#[derive(Clone)]
pub struct MemoryLog {
    inner: Arc<Mutex<Inner>>,
}

struct Inner {
    state: LogState,
    vote: Option<Bytes>,
    tail: Tail,
}

impl MemoryLog {
    /// An empty log behind `purged`: the next entry is the one after it.
    pub fn seeded(purged: LogId) -> MemoryLog {
        let state = LogState::behind(purged);
        let inner = Inner { state, vote: None, tail: Tail::default() };
        MemoryLog { inner: Arc::new(Mutex::new(inner)) }
    }

    /// Bytes that it holds: the caller purges what it has applied to keep them bounded.
    pub fn bytes(&self) -> usize {
        self.inner.lock().tail.bytes()
    }
}

impl Log for MemoryLog {
    fn state(&self) -> LogState {
        self.inner.lock().state
    }

    async fn append(&self, records: Vec<Record>, flushed: Flushed) {
        {
            let mut inner = self.inner.lock();
            for record in records {
                inner.state.append(record.id);
                inner.tail.push(record);
            }
        }
        flushed();
    }

    fn truncate_after(&self, index: u64) {
        let mut inner = self.inner.lock();
        inner.tail.truncate_after(index);
        inner.state.last = match inner.tail.last() {
            Some(record) => record.id,
            None => inner.state.purged,
        };
        inner.state.first = inner.state.first.min(inner.state.last.index + 1);
    }

    fn purge(&self, upto: LogId) {
        let mut inner = self.inner.lock();
        if inner.state.purge(upto) {
            inner.tail.purge(upto.index);
        }
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
