//! The thread that writes the logs of all groups.
//!
//! It takes everything that waits (appends, votes, truncations, purges of any group), writes it as
//! one batch, syncs once, and calls back everybody who waited for it. While it syncs, the next
//! batch gathers, so the slower the disk, the more goes into one sync. It is woken when the thread
//! that feeds it has nothing else to do, so all groups' appends of that turn share a sync.
//!
//! It must not fail: whatever goes wrong here ends the process, because callers have been promised
//! an order and a durability that nobody could restore.

use super::group::GroupInner;
use super::record::{Record, Stored, StoredIndex};
use super::{Flushed, LogConfig};
use crate::threads::set_nice;
use bytes::Bytes;
use flotilla_topology::ids::LogId;
use parking_lot::{Condvar, Mutex};
use raft_engine::{Command, Engine, LogBatch};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

/// How nice the log writer is. Everybody's acknowledgement waits for it, and on a busy machine a thread of
/// normal priority that was asleep in a sync may wait milliseconds for a processor afterwards. Nearly the
/// strongest, since it sleeps nearly always.
const NICE: i32 = -15;

/// Largest batch of one write. The engine keeps a buffer of this size for the next one.
const BATCH_BYTES_MAX: usize = 8 << 20;

/// Room in the queue is counted in pieces of this size.
const ROOM_BYTES: usize = 1024;

/// Keys of a group's small values in the engine.
pub(super) const KEY_VOTE: &[u8] = b"vote";
/// The position up to which the log is purged.
pub(super) const KEY_PURGED: &[u8] = b"purged";
/// Where the log was truncated, until entries follow: the engine itself only overwrites.
pub(super) const KEY_CUT: &[u8] = b"cut";

/// What is to be done for one group.
pub(super) enum Work {
    Append { records: Vec<Record>, era: u64 },
    Vote(Bytes),
    Truncate { after: u64 },
    Purge(LogId),
    Forget,
}

/// Work, and who waits for it.
pub(super) struct Job {
    pub(super) group: Arc<GroupInner>,
    pub(super) work: Work,
    pub(super) flushed: Option<Flushed>,
    pub(super) room: u32,
}

impl Job {
    fn bytes(&self) -> usize {
        self.room as usize * ROOM_BYTES + 64
    }
}

/// What the writer shares with those who feed it.
pub(super) struct Shared {
    pub(super) config: LogConfig,
    /// Bytes in the tails of all groups.
    pub(super) tail_bytes: AtomicUsize,
    /// Syncs so far.
    pub(super) syncs: AtomicU64,
    queue: Mutex<Queue>,
    wake: Condvar,
    room: Semaphore,
    room_total: u32,
}

/// Wakes the writer when it is dropped.
struct Wake(Arc<Shared>);

impl Drop for Wake {
    fn drop(&mut self) {
        self.0.wake.notify_one();
    }
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    closed: bool,
}

impl Shared {
    pub(super) fn new(config: LogConfig) -> Shared {
        let room_total = u32::try_from(config.queue_bytes / ROOM_BYTES).unwrap_or(u32::MAX).max(1);
        Shared {
            config,
            tail_bytes: AtomicUsize::new(0),
            syncs: AtomicU64::new(0),
            queue: Mutex::default(),
            wake: Condvar::new(),
            room: Semaphore::new(room_total as usize),
            room_total,
        }
    }

    /// Waits until the queue has room for `bytes`, and takes it. An append larger than the whole
    /// queue waits for all of it.
    pub(super) async fn take_room(&self, bytes: usize) -> u32 {
        let pieces = u32::try_from(bytes.div_ceil(ROOM_BYTES)).unwrap_or(u32::MAX);
        let pieces = pieces.min(self.room_total);
        if let Ok(permit) = self.room.acquire_many(pieces).await {
            permit.forget(); // given back by the writer
        }
        pieces
    }

    /// Hands work to the writer. After the store was closed it is dropped, and with it the
    /// callback: nobody is told that it became durable.
    pub(super) fn enqueue(self: &Arc<Self>, job: Job) {
        let mut queue = self.queue.lock();
        if queue.closed {
            drop(queue);
            self.room.add_permits(job.room as usize);
            return;
        }
        let first = queue.jobs.is_empty();
        queue.jobs.push_back(job);
        drop(queue);
        if first {
            self.wake_behind_this_turn();
        }
    }

    /// Wakes the writer when the runtime of this thread, if it is one's, has run what is ready to run: at
    /// once, it would take the processor from the thread that is about to bring more. That is after 61
    /// polls at the latest (Tokio's `event_interval`), and also if the runtime ends before.
    fn wake_behind_this_turn(self: &Arc<Self>) {
        let wake = Wake(self.clone());
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move {
                tokio::task::yield_now().await;
                drop(wake);
            });
        }
    }

    /// Lets the writer finish what waits and then end.
    pub(super) fn close(&self) {
        self.queue.lock().closed = true;
        self.wake.notify_all();
    }

    /// The next batch of jobs; `None` when closed and done.
    fn take(&self) -> Option<Vec<Job>> {
        let mut queue = self.queue.lock();
        while queue.jobs.is_empty() {
            if queue.closed {
                return None;
            }
            self.wake.wait(&mut queue);
        }
        let mut jobs = Vec::with_capacity(queue.jobs.len());
        let mut bytes = 0;
        while bytes < BATCH_BYTES_MAX
            && let Some(job) = queue.jobs.pop_front()
        {
            bytes += job.bytes();
            jobs.push(job);
        }
        Some(jobs)
    }
}

/// Ends the process when the writer panics: everybody else would wait for it for ever.
struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            stop_process("the log writer panicked");
        }
    }
}

fn stop_process(reason: &str) -> ! {
    tracing::error!(reason, "stopping this process: its log can no longer be trusted");
    eprintln!("flotilla: {reason}; stopping this process: its log can no longer be trusted");
    std::process::abort()
}

/// Body of the thread.
pub(super) fn run(engine: &Engine, shared: &Shared) {
    let _guard = AbortOnPanic;
    if !set_nice(NICE) {
        tracing::debug!("the log writer runs at normal priority: raising it was not permitted");
    }
    while let Some(jobs) = shared.take() {
        write(engine, shared, jobs);
    }
}

fn write(engine: &Engine, shared: &Shared, mut jobs: Vec<Job>) {
    let mut batch = LogBatch::with_capacity(jobs.len() * 2);
    let mut must_sync = false;
    let mut entries = 0;
    let mut written: Vec<Option<(u64, u64)>> = Vec::with_capacity(jobs.len());
    for job in &mut jobs {
        must_sync |= !matches!(job.work, Work::Truncate { .. } | Work::Purge(_));
        written.push(add(&mut batch, job, &mut entries));
    }
    let start = Instant::now();
    let bytes = match engine.write(&mut batch, must_sync) {
        Ok(bytes) => bytes,
        Err(error) => stop_process(&format!("writing the log failed: {error}")),
    };
    if must_sync {
        shared.syncs.fetch_add(1, Ordering::Relaxed);
        metrics::counter!("flotilla_log_syncs_total").increment(1);
        metrics::histogram!("flotilla_log_sync_seconds").record(start.elapsed().as_secs_f64());
        metrics::histogram!("flotilla_log_batch_entries").record(entries as f64);
    }
    metrics::counter!("flotilla_log_bytes_total").increment(bytes as u64);
    for (job, written) in jobs.into_iter().zip(written) {
        if let Some((era, index)) = written {
            job.group.mark_written(era, index);
        }
        shared.room.add_permits(job.room as usize);
        if let Some(flushed) = job.flushed {
            flushed();
        }
    }
}

/// Adds a job to the batch. For an append: its era and last index.
fn add(batch: &mut LogBatch, job: &mut Job, entries: &mut usize) -> Option<(u64, u64)> {
    let id = job.group.engine_id();
    let put = |batch: &mut LogBatch, key: &[u8], value: Vec<u8>| {
        if let Err(error) = batch.put(id, key.to_vec(), value) {
            stop_process(&format!("the log engine refuses a key: {error}"));
        }
    };
    match &mut job.work {
        Work::Append { records, era } => {
            let stored: Vec<Stored> =
                std::mem::take(records).into_iter().map(Stored::from).collect();
            let last = stored.last()?.record.id.index;
            *entries += stored.len();
            if let Err(error) = batch.add_entries::<StoredIndex>(id, &stored) {
                stop_process(&format!("the log engine refuses entries: {error}"));
            }
            if job.group.cut.swap(false, Ordering::Relaxed) {
                batch.delete(id, KEY_CUT.to_vec());
            }
            return Some((*era, last));
        }
        Work::Vote(vote) => put(batch, KEY_VOTE, vote.to_vec()),
        Work::Truncate { after } => {
            job.group.cut.store(true, Ordering::Relaxed);
            put(batch, KEY_CUT, after.to_be_bytes().to_vec());
        }
        Work::Purge(upto) => {
            put(batch, KEY_PURGED, super::group::encode_log_id(*upto));
            batch.add_command(id, Command::Compact { index: upto.index + 1 });
        }
        Work::Forget => batch.add_command(id, Command::Clean),
    }
    None
}
