//! The library's own tests of a log and a state machine, over both of our logs.

use crate::log::tests::small;
use crate::log::{GroupLog, LogStore, MemoryLog};
use crate::raft::adapter::Machine;
use crate::raft::config::C;
use crate::raft::machine::{SnapshotCut, SnapshotReceiver, SnapshotSink, StateMachine};
use crate::raft::storage::Storage;
use crate::raft::types::{Applied, Body, Committed, Member, Outcome};
use flotilla_topology::ids::{GroupId, LogId};
use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use std::io;
use std::sync::Arc;

impl Default for Member {
    /// The library's tests want members without a word about them.
    fn default() -> Member {
        Member::node("")
    }
}

/// Remembers positions only.
#[derive(Default)]
struct Positions {
    applied: Applied,
}

struct Nothing;

impl crate::raft::SnapshotSource for Nothing {
    fn next_chunk(&mut self) -> io::Result<Option<bytes::Bytes>> {
        Ok(None)
    }
}

impl SnapshotSink for Nothing {
    fn write_chunk(&mut self, _chunk: bytes::Bytes) -> io::Result<()> {
        Ok(())
    }

    fn finish(self: Box<Self>, _applied: &Applied) -> io::Result<()> {
        Ok(())
    }
}

impl SnapshotReceiver for Nothing {
    fn open(&self, _applied: &Applied) -> io::Result<Box<dyn SnapshotSink>> {
        Ok(Box::new(Nothing))
    }
}

impl StateMachine for Positions {
    fn applied(&mut self) -> io::Result<Applied> {
        Ok(self.applied.clone())
    }

    fn apply(&mut self, entries: Vec<Committed>) -> io::Result<Vec<Outcome>> {
        let count = entries.len();
        for Committed { log_id, body } in entries {
            self.applied.log_id = log_id;
            if let Body::Membership(membership) = body {
                self.applied.membership = membership;
            }
        }
        Ok(vec![Outcome::TookEffect; count])
    }

    fn durable(&mut self) -> io::Result<Applied> {
        self.applied()
    }

    fn snapshot(&mut self) -> io::Result<SnapshotCut> {
        Ok(SnapshotCut { applied: self.applied.clone(), source: Box::new(Nothing) })
    }

    fn receiver(&self) -> Arc<dyn SnapshotReceiver> {
        Arc::new(Nothing)
    }

    fn install(&mut self, applied: Applied, sink: Box<dyn SnapshotSink>) -> io::Result<()> {
        self.applied = applied.clone();
        sink.finish(&applied)
    }
}

fn machine() -> Machine {
    Machine::new(Box::<Positions>::default(), Box::new(|_| {})).unwrap().0
}

struct OnDisk;

type Kept = (Arc<LogStore>, tempfile::TempDir);

impl StoreBuilder<C, Storage<GroupLog>, Machine, Kept> for OnDisk {
    async fn build(&self) -> Result<(Kept, Storage<GroupLog>, Machine), StorageError<C>> {
        let dir = tempfile::tempdir().unwrap();
        let store = LogStore::open(dir.path(), &small()).unwrap();
        let log = store.group(GroupId(3)).unwrap();
        Ok(((store, dir), Storage::new(log), machine()))
    }
}

struct InMemory;

impl StoreBuilder<C, Storage<MemoryLog>, Machine, ()> for InMemory {
    async fn build(&self) -> Result<((), Storage<MemoryLog>, Machine), StorageError<C>> {
        Ok(((), Storage::new(MemoryLog::seeded(LogId::default())), machine()))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_librarys_suite_over_the_disk() {
    Suite::test_all(OnDisk).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_librarys_suite_in_memory() {
    Suite::test_all(InMemory).await.unwrap();
}
