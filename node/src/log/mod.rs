//! The Raft logs of all groups of one process: one file sequence, one writer thread, one sync for
//! everybody who waits.
//!
//! Owns the durable log and votes. Invariants:
//! * What a flush callback reports is on the disk: entries of any group and votes alike.
//! * A write or sync that fails ends the process. It is never retried, because after a failed sync
//!   nobody knows what the disk holds.
//! * Entries are readable from the moment that `append` returns, from memory until they are
//!   written, and from the files afterwards.
//! * Every queue and buffer has a limit in bytes: [`LogConfig`].
//!
//! [`MemoryLog`] has the same face for a learner whose log may vanish with it.
//!
//! Not here: what an entry means (`crate::raft`, `crate::group`), when to purge (`crate::group`).

mod group;
mod memory;
mod record;
mod store;
mod tail;
mod writer;

#[cfg(test)]
pub(crate) mod tests;

pub use group::GroupLog;
pub use memory::{MEMORY_LOG_BYTES_MAX, MemoryLog};
pub use record::{Record, RecordError, RecordKind};
pub use store::LogStore;

use bytes::Bytes;
use flotilla_topology::ids::LogId;
use std::future::Future;
use std::io;

/// Called once, when what was handed over with it is durable.
pub type Flushed = Box<dyn FnOnce() + Send>;

/// Which part of a log is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogState {
    /// Everything up to here is gone (applied, and part of the state machine). Index 0: nothing.
    pub purged: LogId,
    /// Index of the first entry: the one behind `purged`, whether it is there yet or not. Only a log
    /// that never was purged may begin later.
    pub first: u64,
    /// The last entry; equal to `purged` when there is none behind it.
    pub last: LogId,
}

impl LogState {
    /// Nothing behind `purged`.
    pub fn behind(purged: LogId) -> LogState {
        LogState { purged, first: purged.index + 1, last: purged }
    }

    /// Takes note of an entry that was appended.
    fn append(&mut self, id: LogId) {
        if self.last.index == 0 {
            self.first = id.index;
        } else {
            assert_eq!(id.index, self.last.index + 1, "a log has no gaps");
        }
        self.last = id;
    }

    /// Takes note of a purge. False if it is not news.
    fn purge(&mut self, upto: LogId) -> bool {
        if upto.index <= self.purged.index {
            return false;
        }
        self.purged = upto;
        self.first = self.first.max(upto.index + 1);
        if self.last.index < upto.index {
            self.last = upto;
        }
        true
    }
}

/// One group's log. The caller is one task per group for everything that changes it; readers may
/// be many.
pub trait Log: Clone + Send + Sync + 'static {
    /// Which part is there.
    fn state(&self) -> LogState;

    /// Appends entries that follow `state().last` without a gap. They are readable when this
    /// returns, and durable when `flushed` is called. Waits only while the writer's queue is full.
    fn append(&self, records: Vec<Record>, flushed: Flushed) -> impl Future<Output = ()> + Send;

    /// Drops all entries behind `index`.
    fn truncate_after(&self, index: u64);

    /// Drops all entries up to and including `upto`, which may be ahead of the last one (a snapshot
    /// was installed). The position stays known.
    fn purge(&self, upto: LogId);

    /// The state machine has applied everything up to here. A log in memory lets go of it.
    fn applied(&self, _upto: LogId) {}

    /// Stores the vote; durable when `flushed` is called.
    fn save_vote(&self, vote: Bytes, flushed: Flushed);

    /// The vote stored last.
    fn vote(&self) -> Option<Bytes>;

    /// Entries `from..to` (exclusive), in order, from `from` on without a gap, cut after the entry
    /// that reaches `max_bytes`. Never empty unless nothing of the range is there.
    fn read(
        &self,
        from: u64,
        to: u64,
        max_bytes: usize,
    ) -> impl Future<Output = io::Result<Vec<Record>>> + Send;
}

/// Sizes of a log store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    /// Size of a log file.
    pub file_bytes: u64,
    /// Files are reclaimed once they exceed this together; what is still needed of idle groups
    /// is copied forward then.
    pub reclaim_bytes: u64,
    /// Files of this size together are written with zeros when a store is opened, since syncing
    /// into blocks that exist is several times cheaper than growing a file.
    pub prefill_bytes: u64,
    /// Recent entries kept in memory, of all groups together.
    pub tail_bytes: usize,
    /// Recent entries kept in memory, of one group.
    pub group_tail_bytes: usize,
    /// Entries that wait for the writer. Whoever wants to append more waits for room.
    pub queue_bytes: usize,
}

impl Default for LogConfig {
    fn default() -> Self {
        LogConfig {
            file_bytes: 64 << 20,
            reclaim_bytes: 1 << 30,
            prefill_bytes: 192 << 20,
            tail_bytes: 32 << 20,
            group_tail_bytes: 8 << 20,
            queue_bytes: 64 << 20,
        }
    }
}

impl LogConfig {
    /// Fractions of a node's memory budget, and files that fit a machine of that size: the prefill
    /// is written at every first start, so a small node gets a small one.
    pub fn for_memory(bytes: u64) -> LogConfig {
        let base = LogConfig::default();
        let file_bytes = (bytes / 16).clamp(8 << 20, base.file_bytes);
        let tail_bytes = usize::try_from(bytes / 16)
            .map_or(base.tail_bytes, |tail| tail.clamp(4 << 20, base.tail_bytes));
        base.with_files_of(file_bytes).with_tail_of(tail_bytes)
    }

    /// With files of that size, reclaimed from 16 of them on, and two filled with zeros at first.
    pub fn with_files_of(self, file_bytes: u64) -> LogConfig {
        let (reclaim_bytes, prefill_bytes) = (file_bytes * 16, file_bytes * 2);
        LogConfig { file_bytes, reclaim_bytes, prefill_bytes, ..self }
    }

    /// With so many bytes of recent entries in memory, a quarter of them of one group.
    pub fn with_tail_of(self, tail_bytes: usize) -> LogConfig {
        LogConfig { tail_bytes, group_tail_bytes: tail_bytes / 4, ..self }
    }

    /// Says what is wrong with the relation of two sizes.
    pub fn validate(&self) -> Result<(), String> {
        if self.reclaim_bytes < 2 * self.file_bytes {
            return Err(format!(
                "log reclaim_bytes ({}) must be at least twice file_bytes ({}): the file being \
                 written cannot be reclaimed",
                self.reclaim_bytes, self.file_bytes
            ));
        }
        if self.group_tail_bytes > self.tail_bytes {
            return Err(format!(
                "log group_tail_bytes ({}) must not exceed tail_bytes ({})",
                self.group_tail_bytes, self.tail_bytes
            ));
        }
        Ok(())
    }
}

/// A log store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The configuration contradicts itself.
    #[error("{0}")]
    Config(String),
    /// The directory, a file in it, or the writer thread could not be had.
    #[error("log directory {dir}: {source}")]
    Io {
        /// The directory.
        dir: String,
        /// What the system said.
        source: io::Error,
    },
    /// What is on the disk is not what we wrote.
    #[error("log of group {group} is damaged: {reason}")]
    Damaged {
        /// Whose log.
        group: u32,
        /// What is wrong with it.
        reason: String,
    },
}
