//! A state machine that remembers what it was given, and a group of replicas with it.

use super::net::{NodeNet, TestNet};
use super::real::RealNet;
use crate::codec::{Decoder, Encoder};
use crate::log::{LogConfig, LogStore, MemoryLog};
use crate::raft::{
    Applied, Body, Committed, Completion, Completions, Member, Membership, Outcome, RaftGroup,
    RaftGroups, RaftStatus, Settings, SnapshotCut, SnapshotReceiver, SnapshotSink, SnapshotSource,
    Start, StateMachine, Verdict,
};
use crate::transport::Server;
use bytes::Bytes;
use flotilla_topology::ids::{GroupId, LogId, ReplicaId};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio_util::sync::{CancellationToken, DropGuard};

pub(super) const GROUP: GroupId = GroupId(1);

/// How long anything that must happen may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// So short that groups park all the time in tests.
const PARK_AFTER_MS: u64 = 300;

/// Waits until something is so.
pub(super) async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "still not: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// What a state machine keeps: it survives the replica, as a disk does.
#[derive(Clone, Default)]
pub(super) struct Book {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) applied: Applied,
    pub(super) entries: Vec<(LogId, Bytes)>,
    pub(super) installs: usize,
    pub(super) sinks_opened: usize,
    pub(super) keeps_no_data: bool,
}

impl Book {
    /// One that begins behind a position, and keeps no data, as a syncer does.
    pub(super) fn seeded(applied: Applied) -> Book {
        let book = Book::default();
        *book.state() = State { applied, keeps_no_data: true, ..State::default() };
        book
    }

    pub(super) fn state(&self) -> parking_lot::MutexGuard<'_, State> {
        self.state.lock()
    }

    pub(super) fn applied(&self) -> LogId {
        self.state().applied.log_id
    }

    pub(super) fn payloads(&self) -> Vec<Bytes> {
        self.state().entries.iter().map(|(_, bytes)| bytes.clone()).collect()
    }
}

struct TestMachine {
    book: Book,
}

impl StateMachine for TestMachine {
    fn applied(&mut self) -> io::Result<Applied> {
        Ok(self.book.state().applied.clone())
    }

    fn apply(&mut self, entries: Vec<Committed>) -> io::Result<Vec<Outcome>> {
        let mut state = self.book.state();
        let mut outcomes = Vec::new();
        for Committed { log_id, body } in entries {
            assert_eq!(log_id.index, state.applied.log_id.index + 1, "no gap, none twice");
            assert!(log_id.term >= state.applied.log_id.term);
            state.applied.log_id = log_id;
            let mut outcome = Outcome::TookEffect;
            match body {
                Body::Blank => {}
                Body::Normal(bytes) if bytes.starts_with(b"fenced") => outcome = Outcome::Fenced,
                Body::Normal(bytes) => state.entries.push((log_id, bytes)),
                Body::Membership(membership) => {
                    assert_eq!(membership.log_id, log_id);
                    state.applied.membership = membership;
                }
            }
            outcomes.push(outcome);
        }
        Ok(outcomes)
    }

    fn durable(&mut self) -> io::Result<Applied> {
        self.applied()
    }

    fn snapshot(&mut self) -> io::Result<SnapshotCut> {
        let state = self.book.state();
        let source = TestSource { entries: state.entries.clone(), at: 0 };
        Ok(SnapshotCut { applied: state.applied.clone(), source: Box::new(source) })
    }

    fn receiver(&self) -> Arc<dyn SnapshotReceiver> {
        Arc::new(TestReceiver { book: self.book.clone() })
    }

    fn install(&mut self, applied: Applied, sink: Box<dyn SnapshotSink>) -> io::Result<()> {
        sink.finish(&applied)
    }
}

struct TestSource {
    entries: Vec<(LogId, Bytes)>,
    at: usize,
}

/// Entries in one chunk of a test's snapshot.
pub(super) const CHUNK_ENTRIES: usize = 100;

impl SnapshotSource for TestSource {
    fn next_chunk(&mut self) -> io::Result<Option<Bytes>> {
        if self.at == self.entries.len() {
            return Ok(None);
        }
        let mut out = Encoder::new();
        for (log_id, bytes) in self.entries.iter().skip(self.at).take(CHUNK_ENTRIES) {
            out.put_log_id(*log_id);
            out.put_bytes(bytes);
            self.at += 1;
        }
        Ok(Some(out.into_bytes()))
    }
}

struct TestReceiver {
    book: Book,
}

impl SnapshotReceiver for TestReceiver {
    fn wants_data(&self) -> bool {
        !self.book.state().keeps_no_data
    }

    fn open(&self, _applied: &Applied) -> io::Result<Box<dyn SnapshotSink>> {
        self.book.state().sinks_opened += 1;
        Ok(Box::new(TestSink { book: self.book.clone(), entries: Vec::new() }))
    }
}

struct TestSink {
    book: Book,
    entries: Vec<(LogId, Bytes)>,
}

impl SnapshotSink for TestSink {
    fn write_chunk(&mut self, chunk: Bytes) -> io::Result<()> {
        let mut input = Decoder::shared(&chunk);
        while !input.is_empty() {
            let log_id = input.log_id().map_err(io::Error::other)?;
            self.entries.push((log_id, input.bytes(1 << 20).map_err(io::Error::other)?));
        }
        Ok(())
    }

    fn finish(self: Box<Self>, applied: &Applied) -> io::Result<()> {
        let mut state = self.book.state();
        state.applied = applied.clone();
        state.entries = self.entries;
        state.installs += 1;
        Ok(())
    }
}

/// One replica, running.
pub(super) struct Node {
    pub(super) raft: RaftGroup,
    pub(super) completions: Completions,
    store: Option<Arc<LogStore>>,
    server: Option<Server>,
    /// Ends its process' rounds.
    _rounds: DropGuard,
}

/// A group of replicas.
pub(super) struct Cluster {
    pub(super) net: TestNet,
    real: Option<RealNet>,
    dir: tempfile::TempDir,
    pub(super) books: BTreeMap<ReplicaId, Book>,
    pub(super) nodes: BTreeMap<ReplicaId, Node>,
}

pub(super) fn id(number: u64) -> ReplicaId {
    ReplicaId(number)
}

pub(super) fn member(replica: ReplicaId) -> Member {
    Member::node(format!("n{replica}"))
}

fn log_config() -> LogConfig {
    LogConfig {
        file_bytes: 4 << 20,
        reclaim_bytes: 16 << 20,
        prefill_bytes: 0,
        tail_bytes: 512 << 10,
        group_tail_bytes: 512 << 10,
        ..LogConfig::default()
    }
}

impl Cluster {
    /// Three voters, one of them ready to lead.
    pub(super) async fn of_three() -> Cluster {
        Cluster::of_three_over(None).await
    }

    /// As `of_three`, over real sockets if given.
    pub(super) async fn of_three_over(real: Option<RealNet>) -> Cluster {
        let mut cluster = Cluster {
            net: TestNet::default(),
            real,
            dir: tempfile::tempdir().unwrap(),
            books: BTreeMap::new(),
            nodes: BTreeMap::new(),
        };
        let voters: BTreeMap<_, _> = (1..=3).map(|n| (id(n), member(id(n)))).collect();
        for replica in voters.keys() {
            cluster.start(*replica).await;
        }
        for node in cluster.nodes.values() {
            node.raft.initialize(&Membership::of_voters(voters.clone())).await.unwrap();
        }
        cluster.leader().await;
        cluster
    }

    pub(super) async fn start(&mut self, replica: ReplicaId) {
        let store = LogStore::open(&self.dir.path().join(format!("{replica}")), &log_config());
        let store = store.unwrap();
        let log = store.group(GROUP).unwrap();
        let book = self.books.entry(replica).or_default().clone();
        let machine = Box::new(TestMachine { book });
        let started = RaftGroup::start(self.options(replica), log, machine).await;
        self.join(replica, started.unwrap(), Some(store)).await;
    }

    /// A learner whose log is in memory only.
    pub(super) async fn start_in_memory(&mut self, replica: ReplicaId, book: Book) {
        let log = MemoryLog::seeded(book.applied());
        self.books.insert(replica, book.clone());
        let machine = Box::new(TestMachine { book });
        let started = RaftGroup::start(self.options(replica), log, machine).await;
        self.join(replica, started.unwrap(), None).await;
    }

    fn options(&self, replica: ReplicaId) -> Start {
        Start {
            group: GROUP,
            me: replica,
            settings: Settings {
                snapshot_stall_ms: 2_000,
                park_after_ms: PARK_AFTER_MS,
                ..Settings::default()
            },
            network: match &self.real {
                Some(real) => real.of(replica),
                None => Arc::new(NodeNet { net: self.net.clone(), me: replica }),
            },
            runtime: Handle::current(),
        }
    }

    async fn join(
        &mut self,
        replica: ReplicaId,
        (raft, completions): (RaftGroup, Completions),
        store: Option<Arc<LogStore>>,
    ) {
        let groups = RaftGroups::default();
        groups.insert(raft.clone());
        let server = match &self.real {
            Some(real) => Some(real.listen(replica, groups.clone()).await),
            None => None,
        };
        let stop = CancellationToken::new();
        groups.park_idle(&Handle::current(), stop.clone());
        let _rounds = stop.drop_guard();
        self.net.attach(replica, groups);
        self.nodes.insert(replica, Node { raft, completions, store, server, _rounds });
    }

    /// Stops a replica. Gives the ends of what was in flight.
    pub(super) async fn stop(&mut self, replica: ReplicaId) -> Vec<Completion> {
        self.net.detach(replica);
        let mut node = self.nodes.remove(&replica).unwrap();
        node.raft.shutdown().await;
        if let Some(server) = node.server.take() {
            server.shutdown().await;
        }
        let store = node.store.as_ref().map(Arc::downgrade);
        let mut ends = Vec::new();
        while let Some(end) = node.completions.try_recv() {
            ends.push(end);
        }
        drop(node);
        // Its tasks let go of the store one after the other.
        until("the store is closed", || store.as_ref().is_none_or(|it| it.strong_count() == 0))
            .await;
        ends
    }

    pub(super) fn raft(&self, replica: ReplicaId) -> &RaftGroup {
        &self.nodes[&replica].raft
    }

    pub(super) fn status(&self, replica: ReplicaId) -> RaftStatus {
        self.raft(replica).status()
    }

    fn ready(&self, among: &[ReplicaId]) -> Option<ReplicaId> {
        let ready = |replica: &&ReplicaId| {
            self.nodes.get(replica).is_some_and(|node| node.raft.status().ready())
        };
        among.iter().filter(ready).max_by_key(|replica| self.status(**replica).term).copied()
    }

    /// The replica that is ready to lead, once there is one.
    pub(super) async fn leader(&self) -> ReplicaId {
        let all: Vec<ReplicaId> = self.nodes.keys().copied().collect();
        self.leader_among(&all).await
    }

    pub(super) async fn leader_among(&self, among: &[ReplicaId]) -> ReplicaId {
        until("a leader is ready", || self.ready(among).is_some()).await;
        self.ready(among).unwrap()
    }

    /// Proposes through `leader` in its term and waits for all ends, which must come in order.
    pub(super) async fn propose(
        &mut self,
        leader: ReplicaId,
        payloads: Vec<Bytes>,
    ) -> Vec<Verdict> {
        let term = self.status(leader).term;
        let node = self.nodes.get_mut(&leader).unwrap();
        let count = payloads.len();
        for (tag, payload) in payloads.into_iter().enumerate() {
            node.raft.propose(payload, term, tag as u64).await.unwrap();
        }
        let mut verdicts = Vec::new();
        while verdicts.len() < count {
            let next = tokio::time::timeout(PATIENCE, node.completions.recv()).await;
            let completion = next.expect("an end in time").unwrap();
            assert_eq!(completion.tag, verdicts.len() as u64, "ends come in order");
            verdicts.push(completion.verdict);
        }
        verdicts
    }

    /// As `propose`, of numbered payloads that all must take effect.
    pub(super) async fn write(&mut self, leader: ReplicaId, range: std::ops::Range<u64>) {
        let payloads = range.map(payload).collect();
        for verdict in self.propose(leader, payloads).await {
            assert!(matches!(verdict, Verdict::Applied(_, Outcome::TookEffect)), "{verdict:?}");
        }
    }

    /// One of the others, once `leader` knows that it has all that `leader` has now.
    pub(super) async fn follower_with_all(&self, leader: ReplicaId) -> ReplicaId {
        let follower = *self.nodes.keys().find(|node| **node != leader).unwrap();
        let last = self.status(leader).last_index;
        until("a follower has all", || self.status(leader).matched(follower) == last).await;
        follower
    }

    /// Waits until these replicas have applied the same, and as much as `leader`.
    pub(super) async fn settle(&self, leader: ReplicaId, replicas: &[ReplicaId]) {
        let goal = self.raft(leader).applied();
        for replica in replicas {
            let reached = || self.books[replica].applied().index >= goal.index;
            until(&format!("{replica} has applied {goal}"), reached).await;
        }
    }
}

/// Payload number `n`: long enough that some thousand do not fit into a tail.
pub(super) fn payload(n: u64) -> Bytes {
    let mut out = Encoder::new();
    out.put_u64(n);
    out.put_raw(&[n as u8; 500]);
    out.into_bytes()
}
