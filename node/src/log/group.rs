//! One group's durable log: a view of the node's store.
//!
//! Its state (positions, vote, tail) changes at once, in memory, under one lock; the writer makes it
//! durable in the same order. So whoever reads sees what was appended last, and whoever needs
//! durability waits for the callback.

use super::record::{Record, StoredIndex};
use super::tail::Tail;
use super::writer::{Job, KEY_CUT, KEY_PURGED, KEY_VOTE, Shared, Work};
use super::{Flushed, Log, LogError, LogState};
use crate::codec::{Decoder, Encoder};
use bytes::Bytes;
use flotilla_topology::ids::{GroupId, LogId};
use parking_lot::Mutex;
use raft_engine::Engine;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

/// Tail that a group keeps when all groups together exceed their limit: enough that replication
/// in step with the leader does not go to the disk.
const TAIL_BYTES_MIN: usize = 256 << 10;

/// Entries fetched from the files at once, at most.
const FETCH_ENTRIES_MAX: u64 = 4096;

/// A group's log. Clones share it.
#[derive(Clone)]
pub struct GroupLog {
    pub(super) inner: Arc<GroupInner>,
}

pub(super) struct GroupInner {
    group: GroupId,
    /// The store owns it: a group's handle that somebody forgot must not keep the files open.
    engine: Weak<Engine>,
    shared: Arc<Shared>,
    state: Mutex<State>,
    /// The engine holds a cut mark for this group. Only the writer looks at it.
    pub(super) cut: AtomicBool,
}

struct State {
    log: LogState,
    vote: Option<Bytes>,
    tail: Tail,
}

/// Durable form of a position: version byte, term, index.
pub(super) fn encode_log_id(id: LogId) -> Vec<u8> {
    let mut out = Encoder::with_capacity(16);
    out.put_u8(1);
    out.put_log_id(id);
    out.into_vec()
}

fn decode_log_id(bytes: &[u8]) -> Result<LogId, crate::codec::DecodeError> {
    let mut input = Decoder::new(bytes);
    input.version(1)?;
    let id = input.log_id()?;
    input.finish()?;
    Ok(id)
}

impl GroupInner {
    /// Reads what the engine has of this group.
    pub(super) fn recover(
        group: GroupId,
        engine: &Arc<Engine>,
        shared: Arc<Shared>,
    ) -> Result<GroupInner, LogError> {
        let id = u64::from(group.0);
        let damaged = |reason: String| LogError::Damaged { group: group.0, reason };
        let purged = match engine.get(id, KEY_PURGED) {
            Some(bytes) => {
                decode_log_id(&bytes).map_err(|e| damaged(format!("purge mark: {e}")))?
            }
            None => LogId::default(),
        };
        let cut = match engine.get(id, KEY_CUT) {
            Some(bytes) => Some(u64::from_be_bytes(
                bytes.try_into().map_err(|_| damaged("cut mark: not 8 bytes".into()))?,
            )),
            None => None,
        };
        let mut log = LogState::behind(purged);
        if let (Some(first), Some(end)) = (engine.first_index(id), engine.last_index(id)) {
            let end = cut.map_or(end, |cut| cut.min(end));
            if end > purged.index {
                if first != purged.index + 1 && purged.index > 0 {
                    return Err(damaged(format!(
                        "entries begin at {first}, but it is purged up to {}",
                        purged.index
                    )));
                }
                log.first = first;
                log.last = engine
                    .get_entry::<StoredIndex>(id, end)
                    .map_err(|e| damaged(e.to_string()))?
                    .ok_or_else(|| damaged(format!("entry {end} is missing")))?
                    .record
                    .id;
            }
        }
        let state = State {
            log,
            vote: engine.get(id, KEY_VOTE).map(Bytes::from),
            tail: Tail::new(log.last.index),
        };
        let cut = AtomicBool::new(cut.is_some());
        let engine = Arc::downgrade(engine);
        Ok(GroupInner { group, engine, shared, state: Mutex::new(state), cut })
    }

    pub(super) fn engine_id(&self) -> u64 {
        u64::from(self.group.0)
    }

    /// The engine holds the entries up to `index` of that era.
    pub(super) fn mark_written(&self, era: u64, index: u64) {
        self.with_tail(|state| {
            state.tail.mark_written(era, index);
            self.bound_tail(state);
        });
    }

    /// Gives up the memory of a log that nobody appends to, when memory is short.
    pub(super) fn sweep(&self) {
        let crowded =
            self.shared.tail_bytes.load(Ordering::Relaxed) * 2 > self.shared.config.tail_bytes;
        self.with_tail(|state| {
            if state.tail.idle_since_last_sweep() && crowded {
                state.tail.shrink_to(0);
            }
        });
    }

    /// Runs `change`, and keeps the sum over all groups right.
    fn with_tail<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state.lock();
        let before = state.tail.bytes();
        let out = change(&mut state);
        let after = state.tail.bytes();
        if after >= before {
            self.shared.tail_bytes.fetch_add(after - before, Ordering::Relaxed);
        } else {
            self.shared.tail_bytes.fetch_sub(before - after, Ordering::Relaxed);
        }
        out
    }

    fn bound_tail(&self, state: &mut State) {
        let config = &self.shared.config;
        let all = self.shared.tail_bytes.load(Ordering::Relaxed);
        let keep = if all > config.tail_bytes { TAIL_BYTES_MIN } else { config.group_tail_bytes };
        state.tail.shrink_to(keep.min(config.group_tail_bytes));
    }

    fn fetch(&self, from: u64, to: u64, max_bytes: usize) -> io::Result<Vec<Record>> {
        let mut stored = Vec::new();
        let closed = || io::Error::other("the log store was closed");
        self.engine
            .upgrade()
            .ok_or_else(closed)?
            .fetch_entries_to::<StoredIndex>(
                self.engine_id(),
                from,
                to.min(from + FETCH_ENTRIES_MAX),
                Some(max_bytes),
                &mut stored,
            )
            .map_err(|error| {
                io::Error::other(format!("log of group {}, entry {from}: {error}", self.group))
            })?;
        Ok(stored.into_iter().map(|stored| stored.record).collect())
    }
}

impl Drop for GroupInner {
    fn drop(&mut self) {
        let bytes = self.state.get_mut().tail.bytes();
        self.shared.tail_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl GroupLog {
    /// The group.
    pub fn group(&self) -> GroupId {
        self.inner.group
    }

    fn enqueue(&self, work: Work, flushed: Option<Flushed>, room: u32) {
        self.inner.shared.enqueue(Job { group: self.inner.clone(), work, flushed, room });
    }

    pub(super) fn forget(&self, flushed: Flushed) {
        self.enqueue(Work::Forget, Some(flushed), 0);
    }
}

impl Log for GroupLog {
    fn state(&self) -> LogState {
        self.inner.state.lock().log
    }

    async fn append(&self, records: Vec<Record>, flushed: Flushed) {
        if records.is_empty() {
            flushed();
            return;
        }
        let bytes = records.iter().map(Record::bytes).sum();
        let room = self.inner.shared.take_room(bytes).await;
        let era = self.inner.with_tail(|state| {
            for record in &records {
                state.log.append(record.id);
                state.tail.push(record.clone());
            }
            self.inner.bound_tail(state);
            state.tail.era()
        });
        self.enqueue(Work::Append { records, era }, Some(flushed), room);
    }

    fn truncate_after(&self, index: u64) {
        // The term of the entry that becomes the last is in the tail, or must be fetched.
        let known = {
            let state = self.inner.state.lock();
            if state.log.last.index <= index {
                return;
            }
            assert!(index >= state.log.purged.index, "what is purged is committed");
            match state.tail.get(index) {
                Some(record) => Some(record.id),
                None if state.log.purged.index == index => Some(state.log.purged),
                None => None,
            }
        };
        let last = known.or_else(|| {
            let records = self.inner.fetch(index, index + 1, 1).ok()?;
            records.first().map(|record| record.id)
        });
        let Some(last) = last else {
            // The library treats this as fatal for the group; so must we, in a call without a result.
            panic!("log of group {}: entry {index} cannot be read", self.inner.group);
        };
        self.inner.with_tail(|state| {
            state.tail.truncate_after(index);
            state.log.last = last;
            state.log.first = state.log.first.min(last.index + 1);
        });
        self.enqueue(Work::Truncate { after: index }, None, 0);
    }

    fn purge(&self, upto: LogId) {
        let changed = self.inner.with_tail(|state| {
            let news = state.log.purge(upto);
            if news {
                state.tail.purge(upto.index);
            }
            news
        });
        if changed {
            self.enqueue(Work::Purge(upto), None, 0);
        }
    }

    fn save_vote(&self, vote: Bytes, flushed: Flushed) {
        self.inner.state.lock().vote = Some(vote.clone());
        self.enqueue(Work::Vote(vote), Some(flushed), 0);
    }

    fn vote(&self) -> Option<Bytes> {
        self.inner.state.lock().vote.clone()
    }

    async fn read(&self, from: u64, to: u64, max_bytes: usize) -> io::Result<Vec<Record>> {
        let disk_to = {
            let state = self.inner.state.lock();
            let from_tail = state.tail.read(from, to, max_bytes);
            if let Some(records) = from_tail {
                return Ok(records);
            }
            if from < state.log.first || from > state.log.last.index {
                return Ok(Vec::new());
            }
            to.min(state.tail.first().unwrap_or(state.log.last.index + 1))
        };
        metrics::counter!("flotilla_log_disk_reads_total").increment(1);
        let inner = self.inner.clone();
        // Off this thread: heartbeats of other groups must not wait for the disk.
        tokio::task::spawn_blocking(move || inner.fetch(from, disk_to, max_bytes))
            .await
            .map_err(io::Error::other)?
    }
}
