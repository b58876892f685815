//! The store as a whole: what survives, what is read back, how many syncs it takes.

use super::*;
use flotilla_topology::ids::GroupId;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Small files and tails, so that tests meet their ends; no prefill, so that they start at once.
pub(crate) fn small() -> LogConfig {
    LogConfig {
        file_bytes: 1 << 20,
        reclaim_bytes: 2 << 20,
        prefill_bytes: 0,
        tail_bytes: 64 << 10,
        group_tail_bytes: 16 << 10,
        queue_bytes: 1 << 20,
    }
}

/// A callback that tells.
pub(crate) fn signal(tell: tokio::sync::oneshot::Sender<()>) -> Flushed {
    Box::new(move || {
        let _ = tell.send(());
    })
}

fn record(term: u64, index: u64) -> Record {
    let payload = Bytes::from(vec![index as u8; 100]);
    Record { id: LogId { term, index }, kind: RecordKind::Normal, payload }
}

fn records(term: u64, range: std::ops::RangeInclusive<u64>) -> Vec<Record> {
    range.map(|index| record(term, index)).collect()
}

async fn append(log: &impl Log, records: Vec<Record>) {
    let (tell, told) = tokio::sync::oneshot::channel();
    log.append(records, signal(tell)).await;
    told.await.unwrap();
}

async fn save_vote(log: &impl Log, vote: &'static [u8]) {
    let (tell, told) = tokio::sync::oneshot::channel();
    log.save_vote(Bytes::from_static(vote), signal(tell));
    told.await.unwrap();
}

async fn all(log: &impl Log) -> Vec<Record> {
    let state = log.state();
    let mut from = state.purged.index + 1;
    let mut out = Vec::new();
    while from <= state.last.index {
        let part = log.read(from, state.last.index + 1, 1000).await.unwrap();
        assert!(!part.is_empty(), "nothing at {from}");
        from += part.len() as u64;
        out.extend(part);
    }
    out
}

fn at(term: u64, index: u64) -> LogId {
    LogId { term, index }
}

const GROUP: GroupId = GroupId(7);

#[tokio::test]
async fn what_was_flushed_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    {
        let store = LogStore::open(dir.path(), &small()).unwrap();
        let log = store.group(GROUP).unwrap();
        assert_eq!((log.state(), log.vote()), (LogState::behind(at(0, 0)), None));
        save_vote(&log, b"vote").await;
        append(&log, records(1, 1..=10)).await;
        append(&log, records(2, 11..=300)).await;
        append(&store.group(GroupId(8)).unwrap(), records(1, 1..=3)).await;
    }
    let store = LogStore::open(dir.path(), &small()).unwrap();
    let log = store.group(GROUP).unwrap();
    assert_eq!(log.state(), LogState { purged: at(0, 0), first: 1, last: at(2, 300) });
    assert_eq!(log.vote().unwrap(), &b"vote"[..]);
    let mut wanted = records(1, 1..=10);
    wanted.extend(records(2, 11..=300));
    assert_eq!(all(&log).await, wanted);
    assert_eq!(store.stored_groups().len(), 2);
    assert_eq!(store.group(GroupId(8)).unwrap().state().last, at(1, 3));
}

#[tokio::test]
async fn a_truncation_survives_with_and_without_entries_behind_it() {
    let dir = tempfile::tempdir().unwrap();
    {
        let store = LogStore::open(dir.path(), &small()).unwrap();
        for group in [GROUP, GroupId(8)] {
            let log = store.group(group).unwrap();
            append(&log, records(1, 1..=200)).await;
            log.truncate_after(20); // out of the tail: its term is read from the file
            assert_eq!(log.state().last, at(1, 20));
        }
        append(&store.group(GroupId(8)).unwrap(), records(3, 21..=22)).await;
        // The truncation itself is not synced; something that is synced follows it.
        save_vote(&store.group(GROUP).unwrap(), b"later").await;
    }
    let store = LogStore::open(dir.path(), &small()).unwrap();
    let (cut, grown) = (store.group(GROUP).unwrap(), store.group(GroupId(8)).unwrap());
    assert_eq!(all(&cut).await, records(1, 1..=20));
    assert_eq!(grown.state().last, at(3, 22));
    append(&cut, records(4, 21..=21)).await;
    assert_eq!(all(&cut).await.last(), Some(&record(4, 21)));
    assert_eq!(all(&grown).await[19..], [record(1, 20), record(3, 21), record(3, 22)]);
}

#[tokio::test]
async fn a_purge_may_run_ahead_of_the_log() {
    let dir = tempfile::tempdir().unwrap();
    {
        let store = LogStore::open(dir.path(), &small()).unwrap();
        let log = store.group(GROUP).unwrap();
        append(&log, records(1, 1..=10)).await;
        log.truncate_after(5);
        log.purge(at(1, 3));
        assert_eq!(all(&log).await, records(1, 4..=5));
        assert_eq!(log.read(2, 4, 1000).await.unwrap(), []);
        log.purge(at(4, 8)); // a snapshot; entries 9 and 10 of the past still lie in the file
        assert_eq!(log.state(), LogState::behind(at(4, 8)));
        save_vote(&log, b"x").await;
    }
    {
        let store = LogStore::open(dir.path(), &small()).unwrap();
        let log = store.group(GROUP).unwrap();
        assert_eq!(log.state(), LogState::behind(at(4, 8)));
        append(&log, records(5, 9..=9)).await;
        assert_eq!(all(&log).await, records(5, 9..=9));
        log.purge(at(6, 100));
        append(&log, records(6, 101..=102)).await;
    }
    let store = LogStore::open(dir.path(), &small()).unwrap();
    let log = store.group(GROUP).unwrap();
    assert_eq!(log.state(), LogState { purged: at(6, 100), first: 101, last: at(6, 102) });
    assert_eq!(all(&log).await, records(6, 101..=102));
}

#[tokio::test]
async fn a_dropped_group_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = LogStore::open(dir.path(), &small()).unwrap();
    let log = store.group(GROUP).unwrap();
    append(&log, records(1, 1..=10)).await;
    save_vote(&log, b"vote").await;
    store.drop_group(GROUP).await.unwrap();
    let again = store.group(GROUP).unwrap();
    assert_eq!((again.state(), again.vote()), (LogState::behind(at(0, 0)), None));
    append(&again, records(2, 1..=2)).await;
    drop((log, again, store));
    let store = LogStore::open(dir.path(), &small()).unwrap();
    assert_eq!(all(&store.group(GROUP).unwrap()).await, records(2, 1..=2));
}

#[tokio::test]
async fn reads_are_cut_by_bytes_and_never_empty() {
    let dir = tempfile::tempdir().unwrap();
    let store = LogStore::open(dir.path(), &small()).unwrap();
    let log = store.group(GROUP).unwrap();
    append(&log, records(1, 1..=1000)).await;
    for from in [1, 500, 1000] {
        assert_eq!(log.read(from, 1001, 1).await.unwrap(), [record(1, from)]);
        let some = log.read(from, 1001, 700).await.unwrap();
        assert!(!some.is_empty() && some.len() < 12, "{} entries at {from}", some.len());
    }
    assert_eq!(log.read(1001, 1002, 700).await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_share_syncs_and_memory_stays_bounded() {
    const GROUPS: u32 = 8;
    const APPENDS: u64 = 200;
    let dir = tempfile::tempdir().unwrap();
    let store = LogStore::open(dir.path(), &small()).unwrap();
    let flushed = Arc::new(AtomicUsize::new(0));
    let mut tasks = Vec::new();
    for group in 0..GROUPS {
        let (log, flushed) = (store.group(GroupId(group)).unwrap(), flushed.clone());
        tasks.push(tokio::spawn(async move {
            for index in 1..=APPENDS {
                let flushed = flushed.clone();
                let done = Box::new(move || {
                    flushed.fetch_add(1, Ordering::SeqCst);
                });
                log.append(vec![record(1, index)], done).await;
            }
            append(&log, vec![record(1, APPENDS + 1)]).await;
            // Everything before it was called back before it.
            assert_eq!(all(&log).await.len() as u64, APPENDS + 1);
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(flushed.load(Ordering::SeqCst), GROUPS as usize * APPENDS as usize);
    let syncs = store.syncs();
    assert!(syncs < u64::from(GROUPS) * APPENDS / 2, "{syncs} syncs");
    assert!(store.tail_bytes() <= small().tail_bytes + GROUPS as usize * small().group_tail_bytes);
}

#[tokio::test]
async fn a_memory_log_is_seeded_at_a_position() {
    let log = MemoryLog::seeded(at(3, 500));
    assert_eq!(log.state(), LogState::behind(at(3, 500)));
    append(&log, records(4, 501..=510)).await;
    assert_eq!(all(&log).await, records(4, 501..=510));
    log.truncate_after(505);
    append(&log, records(5, 506..=506)).await;
    log.purge(at(4, 503));
    assert_eq!(all(&log).await.len(), 3);
    log.purge(at(9, 900));
    assert_eq!((log.state().last, log.bytes()), (at(9, 900), 0));
}

#[tokio::test]
async fn a_memory_log_holds_its_sender_back() {
    let log = MemoryLog::seeded(at(1, 10));
    let flushed = Arc::new(AtomicUsize::new(0));
    let big = Bytes::from(vec![0; MEMORY_LOG_BYTES_MAX / 2]);
    for index in 11..=16 {
        let flushed = flushed.clone();
        let done = Box::new(move || {
            flushed.fetch_add(1, Ordering::SeqCst);
        });
        let payload =
            if index == 16 { [&big[..], &big, &big].concat().into() } else { big.clone() };
        log.append(vec![Record { id: at(1, index), kind: RecordKind::Normal, payload }], done)
            .await;
    }
    let flushed = || flushed.load(Ordering::SeqCst);
    assert_eq!(flushed(), 2);
    log.applied(at(1, 12));
    assert_eq!(flushed(), 4);
    log.applied(at(1, 15));
    assert_eq!(flushed(), 6, "one that is larger than the bound passes in the end");
    log.applied(at(1, 16));
    assert_eq!((log.bytes(), log.state().last), (0, at(1, 16)));
    append(&log, vec![record(1, 17)]).await;
    log.truncate_after(16);
    assert_eq!(log.state().last, at(1, 16), "what was applied is known though it is gone");
}

#[test]
fn sizes_are_checked_against_each_other() {
    LogConfig::default().validate().unwrap();
    let config = LogConfig { reclaim_bytes: 1, ..LogConfig::default() };
    assert!(config.validate().unwrap_err().contains("file_bytes"));
    let config = LogConfig { tail_bytes: 1, ..LogConfig::default() };
    assert!(config.validate().unwrap_err().contains("group_tail_bytes"));
}

const CHILD_DIR: &str = "FLOTILLA_TEST_LOG_DIR";

/// Not a test by itself: the process that `kill_9_loses_nothing_flushed` kills.
#[tokio::test]
async fn child_that_writes_until_it_is_killed() {
    let Ok(dir) = std::env::var(CHILD_DIR) else { return };
    let store = LogStore::open(Path::new(&dir), &small()).unwrap();
    let log = store.group(GROUP).unwrap();
    for index in log.state().last.index + 1.. {
        let told = move || println!("flushed {index}");
        log.append(vec![record(1, index)], Box::new(told)).await;
        if index % 50 == 0 {
            log.purge(at(1, index - 40));
        }
    }
}

#[tokio::test]
async fn kill_9_loses_nothing_flushed() {
    let dir = tempfile::tempdir().unwrap();
    let mut last = 0;
    for round in 1..=3 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "log::tests::child_that_writes_until_it_is_killed", "--nocapture"])
            .env(CHILD_DIR, dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        while last < round * 2000 {
            let line = lines.next().expect("the child writes for ever").unwrap();
            if let Some((_, index)) = line.split_once("flushed ") {
                last = index.parse().unwrap();
            }
        }
        child.kill().unwrap(); // SIGKILL
        child.wait().unwrap();
        // What it still said before it died counts as well.
        for line in lines.map_while(Result::ok) {
            if let Some(index) = line.strip_prefix("flushed ").and_then(|i| i.parse().ok()) {
                last = index;
            }
        }
        let store = LogStore::open(dir.path(), &small()).unwrap();
        let log = store.group(GROUP).unwrap();
        assert!(log.state().last.index >= last, "{} < {last}", log.state().last.index);
        assert_eq!(all(&log).await.last(), Some(&record(1, log.state().last.index)));
    }
}
