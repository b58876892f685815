//! The library's view of a log.

use super::config::{C, Entry, RaftLogId, Vote};
use super::convert::{self, invalid};
use crate::log::{Log, Record};
use futures::Stream;
use openraft::storage::{IOFlushed, LogState, RaftLogStorage};
use openraft::{OptionalSend, RaftLogReader};
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};

/// Bytes of entries that one append message carries, and that apply reads at once.
const READ_BYTES_MAX: usize = 1 << 20;

/// A log in the library's hands.
#[derive(Clone)]
pub(super) struct Storage<L> {
    log: L,
}

impl<L: Log> Storage<L> {
    pub(super) fn new(log: L) -> Storage<L> {
        Storage { log }
    }

    /// The library's range in our numbers, cut to what is there: first, and behind the last.
    fn bounds(&self, range: &impl RangeBounds<u64>) -> (u64, u64) {
        let state = self.log.state();
        let from = match range.start_bound() {
            Bound::Included(index) => index + 1,
            Bound::Excluded(index) => index + 2,
            Bound::Unbounded => 0,
        };
        let to = match range.end_bound() {
            Bound::Included(index) => index.saturating_add(2),
            Bound::Excluded(index) => index.saturating_add(1),
            Bound::Unbounded => u64::MAX,
        };
        (from.max(state.first), to.min(state.last.index + 1))
    }

    async fn read(&self, from: u64, to: u64) -> io::Result<Vec<Entry>> {
        let records = self.log.read(from, to, READ_BYTES_MAX).await?;
        if from < to && records.first().is_none_or(|record| record.id.index != from) {
            return Err(io::Error::other(format!("log entry {from} is not there")));
        }
        records.into_iter().map(to_entry).collect()
    }
}

fn to_entry(record: Record) -> io::Result<Entry> {
    convert::entry(record).map_err(invalid)
}

impl<L: Log> RaftLogReader<C> for Storage<L> {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        let (mut from, to) = self.bounds(&range);
        let mut out = Vec::new();
        while from < to {
            let entries = self.read(from, to).await?;
            from += entries.len() as u64;
            out.extend(entries);
        }
        Ok(out)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        // Not cut to what is there: a replication that asks for a purged entry must hear so,
        // since it would take a later first entry for the one that it asked for.
        if start >= end { Ok(Vec::new()) } else { self.read(start + 1, end + 1).await }
    }

    async fn entries_stream<RB>(
        &mut self,
        range: RB,
    ) -> impl Stream<Item = Result<Entry, io::Error>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        // In pieces: a replica that applies a long backlog must not hold it in memory at once.
        let (from, to) = self.bounds(&range);
        let this = self.clone();
        Box::pin(futures::stream::unfold(
            (this, from, to, Vec::new().into_iter()),
            |(this, mut from, to, mut ready)| async move {
                loop {
                    if let Some(entry) = ready.next() {
                        return Some((Ok(entry), (this, from, to, ready)));
                    }
                    if from >= to {
                        return None;
                    }
                    match this.read(from, to).await {
                        Ok(entries) => {
                            from += entries.len() as u64;
                            ready = entries.into_iter();
                        }
                        Err(error) => return Some((Err(error), (this, to, to, ready))),
                    }
                }
            },
        ))
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        self.log.vote().map(|bytes| convert::decode_vote(&bytes).map_err(invalid)).transpose()
    }
}

impl<L: Log> RaftLogStorage<C> for Storage<L> {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<C>, io::Error> {
        let state = self.log.state();
        Ok(LogState {
            last_purged_log_id: convert::raft_log_id(state.purged),
            last_log_id: convert::raft_log_id(state.last),
        })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        let (tell, told) = tokio::sync::oneshot::channel();
        let flushed = Box::new(move || {
            let _ = tell.send(());
        });
        self.log.save_vote(convert::encode_vote(vote), flushed);
        told.await.map_err(|_| io::Error::other("the log store was closed"))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<C>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let records = entries.into_iter().map(convert::record).collect();
        self.log.append(records, Box::new(move || callback.io_completed(Ok(())))).await;
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<RaftLogId>) -> Result<(), io::Error> {
        self.log.truncate_after(convert::log_id(last.as_ref()).index);
        Ok(())
    }

    async fn purge(&mut self, upto: RaftLogId) -> Result<(), io::Error> {
        self.log.purge(convert::log_id(Some(&upto)));
        Ok(())
    }
}
