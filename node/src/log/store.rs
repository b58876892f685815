//! The node's log store: the engine, its writer thread, and its upkeep thread.

use super::group::{GroupInner, GroupLog};
use super::writer::{self, Shared};
use super::{LogConfig, LogError};
use flotilla_topology::ids::GroupId;
use parking_lot::{Condvar, Mutex};
use raft_engine::{Engine, ReadableSize, RecoveryMode};
use rustix::fs::Advice;
use std::collections::HashMap;
use std::io;
use std::num::NonZeroU64;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How often idle tails are given up.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// How often files that nobody needs are reclaimed.
const RECLAIM_EVERY: Duration = Duration::from_secs(5);

/// The zeros of a new file are handed to the disk in pieces, with pauses: all of them at once would hold up
/// every sync on that disk, half a minute after the start, when the kernel finds them.
const ZEROS_PIECE: u64 = 1 << 20;
const ZEROS_PAUSE: Duration = Duration::from_millis(20);
/// How the engine ends the names of files that it has not begun to use.
const UNUSED: &str = "raftlog.reserved";

/// The logs of all groups of this process. Dropping it writes and syncs what waits.
pub struct LogStore {
    engine: Arc<Engine>,
    shared: Arc<Shared>,
    groups: Arc<Mutex<HashMap<GroupId, GroupLog>>>,
    writer: Option<JoinHandle<()>>,
    upkeep: Option<JoinHandle<()>>,
    stop: Arc<(Mutex<bool>, Condvar)>,
}

impl LogStore {
    /// Opens the store in `dir`, creating it if needed, and recovers it. Blocks.
    pub fn open(dir: &Path, config: &LogConfig) -> Result<Arc<LogStore>, LogError> {
        config.validate().map_err(LogError::Config)?;
        let io_error = |source| LogError::Io { dir: dir.display().to_string(), source };
        std::fs::create_dir_all(dir).map_err(io_error)?;
        let engine = Engine::open(engine_config(dir, config))
            .map_err(|error| io_error(io::Error::other(error)))?;
        let engine = Arc::new(engine);
        let shared = Arc::new(Shared::new(config.clone()));
        let groups: Arc<Mutex<HashMap<GroupId, GroupLog>>> = Arc::default();
        let stop = Arc::new((Mutex::new(false), Condvar::new()));
        let spawn = |name: &str, body: Box<dyn FnOnce() + Send>| {
            std::thread::Builder::new().name(name.to_owned()).spawn(body).map_err(io_error)
        };
        let writer = {
            let (engine, shared) = (engine.clone(), shared.clone());
            spawn("flotilla-log", Box::new(move || writer::run(&engine, &shared)))?
        };
        let upkeep = {
            let (engine, shared) = (engine.clone(), shared.clone());
            let (groups, stop) = (groups.clone(), stop.clone());
            let dir = dir.to_owned();
            let body = move || {
                if let Err(error) = write_zeros_back(&dir, &stop) {
                    tracing::debug!(%error, "the kernel will write new log files when it likes");
                }
                upkeep(&engine, &shared, &groups, &stop);
            };
            spawn("flotilla-upkeep", Box::new(body))?
        };
        let (writer, upkeep) = (Some(writer), Some(upkeep));
        Ok(Arc::new(LogStore { engine, shared, groups, writer, upkeep, stop }))
    }

    /// The log of a group: what is there of it, or an empty one.
    pub fn group(&self, group: GroupId) -> Result<GroupLog, LogError> {
        let mut groups = self.groups.lock();
        if let Some(log) = groups.get(&group) {
            return Ok(log.clone());
        }
        let inner = GroupInner::recover(group, &self.engine, self.shared.clone())?;
        let log = GroupLog { inner: Arc::new(inner) };
        groups.insert(group, log.clone());
        Ok(log)
    }

    /// Groups that have anything in this store.
    pub fn stored_groups(&self) -> Vec<GroupId> {
        let ids = self.engine.raft_groups();
        ids.into_iter().filter_map(|id| u32::try_from(id).ok().map(GroupId)).collect()
    }

    /// Deletes all of a group: entries, vote, positions. Returns when that is durable. The group
    /// must have been stopped.
    pub async fn drop_group(&self, group: GroupId) -> Result<(), LogError> {
        let log = self.group(group)?;
        let (tell, told) = tokio::sync::oneshot::channel();
        log.forget(Box::new(move || {
            let _ = tell.send(());
        }));
        let _ = told.await;
        self.groups.lock().remove(&group);
        Ok(())
    }

    /// Syncs since the store was opened.
    pub fn syncs(&self) -> u64 {
        self.shared.syncs.load(Ordering::Relaxed)
    }

    /// Bytes of recent entries in memory.
    pub fn tail_bytes(&self) -> usize {
        self.shared.tail_bytes.load(Ordering::Relaxed)
    }

    /// Bytes of log files in use.
    pub fn disk_bytes(&self) -> usize {
        self.engine.get_used_size()
    }
}

impl Drop for LogStore {
    fn drop(&mut self) {
        self.shared.close();
        *self.stop.0.lock() = true;
        self.stop.1.notify_all();
        for thread in [self.writer.take(), self.upkeep.take()].into_iter().flatten() {
            let _ = thread.join();
        }
    }
}

fn engine_config(dir: &Path, config: &LogConfig) -> raft_engine::Config {
    raft_engine::Config {
        dir: dir.display().to_string(),
        // A write that was cut off by a crash is dropped; damage before the end is an error.
        recovery_mode: RecoveryMode::TolerateTailCorruption,
        batch_compression_threshold: ReadableSize(0), // measured: costs more than it saves
        target_file_size: ReadableSize(config.file_bytes),
        purge_threshold: ReadableSize(config.reclaim_bytes),
        enable_log_recycle: true,
        prefill_for_recycle: config.prefill_bytes > 0,
        prefill_limit: (config.prefill_bytes > 0).then_some(ReadableSize(config.prefill_bytes)),
        recovery_threads: 2,
        ..raft_engine::Config::default()
    }
}

/// Whether the store is closed, now or after so long.
fn stopped(stop: &(Mutex<bool>, Condvar), within: Duration) -> bool {
    let mut stopped = stop.0.lock();
    if !*stopped {
        stop.1.wait_for(&mut stopped, within);
    }
    *stopped
}

/// Has the kernel write the zeros of files that are not in use yet.
fn write_zeros_back(dir: &Path, stop: &(Mutex<bool>, Condvar)) -> io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if !path.to_string_lossy().ends_with(UNUSED) {
            continue;
        }
        let file = std::fs::File::open(&path)?;
        for piece in 0..file.metadata()?.len().div_ceil(ZEROS_PIECE) {
            // Begins to write what is dirty, and waits for nothing.
            let (from, len) = (piece * ZEROS_PIECE, NonZeroU64::new(ZEROS_PIECE));
            rustix::fs::fadvise(&file, from, len, Advice::DontNeed)?;
            if stopped(stop, ZEROS_PAUSE) {
                return Ok(());
            }
        }
    }
    Ok(())
}

fn upkeep(
    engine: &Engine,
    shared: &Shared,
    groups: &Mutex<HashMap<GroupId, GroupLog>>,
    stop: &(Mutex<bool>, Condvar),
) {
    let mut reclaimed = Instant::now();
    loop {
        if stopped(stop, SWEEP_EVERY) {
            return;
        }
        let logs: Vec<GroupLog> = groups.lock().values().cloned().collect();
        for log in &logs {
            log.inner.sweep();
        }
        let tail_bytes = shared.tail_bytes.load(Ordering::Relaxed);
        metrics::gauge!("flotilla_log_tail_bytes").set(tail_bytes as f64);
        metrics::gauge!("flotilla_log_disk_bytes").set(engine.get_used_size() as f64);
        if reclaimed.elapsed() >= RECLAIM_EVERY {
            reclaim(engine);
            reclaimed = Instant::now();
        }
    }
}

fn reclaim(engine: &Engine) {
    match engine.purge_expired_files() {
        Ok(groups) if groups.is_empty() => {}
        // Their entries were copied forward; a purge would have been cheaper.
        Ok(groups) => tracing::debug!(?groups, "groups hold old log files"),
        Err(error) => tracing::warn!(%error, "log files could not be reclaimed"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::{Log, Record, RecordKind};
    use bytes::Bytes;
    use flotilla_topology::ids::LogId;

    #[tokio::test]
    async fn purged_files_are_reclaimed_and_an_idle_group_survives_it() {
        let dir = tempfile::tempdir().unwrap();
        let config = crate::log::tests::small();
        let store = LogStore::open(dir.path(), &config).unwrap();
        let append = async |group, index, len: usize| {
            let id = LogId { term: 1, index };
            let payload = Bytes::from(vec![7; len]);
            let record = Record { id, kind: RecordKind::Normal, payload };
            let (tell, told) = tokio::sync::oneshot::channel();
            let log = store.group(GroupId(group)).unwrap();
            log.append(vec![record], crate::log::tests::signal(tell)).await;
            told.await.unwrap();
            log
        };
        append(1, 1, 10).await; // idle from now on
        for index in 1..=100 {
            let log = append(2, index, 100 << 10).await;
            log.purge(LogId { term: 1, index });
        }
        let before = store.disk_bytes();
        assert!(before > 8 << 20, "{before}");
        reclaim(&store.engine);
        assert!(store.disk_bytes() <= 4 << 20, "{} of {before}", store.disk_bytes());
        drop(store);
        let store = LogStore::open(dir.path(), &config).unwrap();
        let idle = store.group(GroupId(1)).unwrap();
        assert_eq!(idle.read(1, 2, 1).await.unwrap()[0].payload, &[7; 10][..]);
        assert_eq!(store.group(GroupId(2)).unwrap().state().purged.index, 100);
    }
}
