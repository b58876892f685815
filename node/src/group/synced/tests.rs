//! The switch in a leader, in applied state over restarts and snapshots, and where learners begin.

use super::*;
use crate::command::Command;
use crate::engine::rocks::{Engine, EngineConfig};
use crate::engine::rows::TabletRows;
use crate::group::apply::Machine;
use crate::group::entry::{Entry, Fence};
use crate::group::leader::{Leader, LeaderClock, Work};
use crate::group::remote::{Answer, RemoteAnswer, RemoteBatch};
use crate::model::{decode_head, decode_head_since};
use crate::raft::{Body, Committed, SnapshotCut, StateMachine};
use flotilla_topology::ids::{ClusterId, GroupId, Incarnation, Origin, ReplicaId};
use flotilla_topology::slot::{Slot, SlotRange};
use flotilla_topology::stamp::Hlc;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::oneshot;

const HOME: Origin = Origin { cluster: ClusterId(1), incarnation: Incarnation(1) };
const GROUP: GroupId = GroupId(1);

/// The leader of a group that was not born synced, on rows that nothing is applied to.
struct Led {
    leader: Leader,
    rows: BTreeMap<Bytes, Bytes>,
}

impl Led {
    fn new() -> Led {
        let context = Arc::new(GroupContext {
            group: GROUP,
            slots: SlotRange::ALL,
            born_synced: false,
            origin: HOME,
            max_skew_ms: 500,
        });
        let run = Run::start(1, Fence { term: 1, next_seq: 1 }, Hlc::ZERO, HOME);
        Led { leader: Leader::new(context, run), rows: BTreeMap::new() }
    }

    fn clock(ms: u64) -> LeaderClock {
        LeaderClock { wall_ms: ms, applied: Hlc::ZERO, now: Instant::now() }
    }

    fn proposed(&mut self) -> Vec<Bytes> {
        self.leader.close();
        self.leader.take_proposals().into_iter().map(|proposal| proposal.bytes).collect()
    }

    fn evaluate(&mut self, ms: u64, work: Work) -> Vec<Bytes> {
        self.leader.evaluate(&self.rows, Led::clock(ms), work).unwrap();
        self.proposed()
    }

    fn run(&mut self, ms: u64, line: &str) -> Vec<Bytes> {
        let words = line.split(' ').map(|word| Bytes::copy_from_slice(word.as_bytes()));
        let commands = vec![Command::parse(words.collect()).unwrap()];
        self.evaluate(ms, Work::Exec { commands, answer: oneshot::channel().0 })
    }

    fn switch(&mut self, ms: u64) -> Vec<Bytes> {
        self.evaluate(ms, Work::SwitchOn { answer: oneshot::channel().0 })
    }
}

fn decoded(entries: &[Bytes]) -> Vec<Entry> {
    entries.iter().map(|bytes| Entry::decode(bytes).unwrap()).collect()
}

fn switches(entries: &[Bytes]) -> Vec<Stamp> {
    let ops = decoded(entries).into_iter().map(|entry| switched_by(&entry.ops).unwrap());
    ops.flatten().collect()
}

fn head_of(entry: &Entry) -> Bytes {
    let put = entry.ops.iter().find_map(|op| match op {
        RowOp::Put { key, value, .. } if key[0] == keys::HEAD => Some(value.clone()),
        _ => None,
    });
    put.expect("it writes a head")
}

#[test]
fn a_leader_switches_once_and_writes_stamps_from_then_on() {
    let mut led = Led::new();
    let entries = led.run(100, "SET k v");
    let before = decode_head(&head_of(&decoded(&entries)[0])).unwrap();
    assert!(before.max_stamp().is_zero(), "{before:?}");

    let entries = led.switch(200);
    let [entry] = &decoded(&entries)[..] else { panic!("one entry") };
    assert_eq!(switches(&entries), [entry.header.last], "it has its own stamp");
    assert!(entry.header.last > Stamp::ZERO && entry.header.first == entry.header.last);
    let since = entry.header.last;
    assert!(switches(&led.switch(300)).is_empty(), "asked again nothing changes");

    // The row stands as it was, and counts as written by that entry.
    let view = View::new(&led.rows, &mut led.leader.run.overlay);
    let row = view.get(&keys::head(Slot::of(b"k"), b"k")).unwrap().unwrap();
    assert_eq!(decode_head_since(&row, since).unwrap().max_stamp(), since);
    let entries = led.run(400, "DEL k");
    let head = decode_head(&head_of(&decoded(&entries)[0])).unwrap();
    assert!(head.floor.hides(since), "a tombstone: {head:?}");
}

#[test]
fn many_keys_that_have_ended_go_before_the_switch() {
    let mut led = Led::new();
    let keys = ENDED_MAX as u64 + 10;
    for key in 0..keys {
        led.run(100, &format!("SET k{key} v PXAT 150"));
    }
    led.run(100, "SET stays v PXAT 900");
    assert!(switches(&led.switch(200)).is_empty(), "too many at once");
    let entries = led.switch(200);
    assert_eq!(switches(&entries).len(), 1);
    let deletes = |entry: &Entry| {
        let deleted = |op: &&RowOp| matches!(op, RowOp::Delete { key } if key[0] == keys::HEAD);
        entry.ops.iter().filter(deleted).count()
    };
    assert_eq!(deletes(&decoded(&entries)[0]), 10, "the rest of them, in the same entry");
}

#[test]
fn nothing_of_others_is_taken_before_the_switch() {
    let mut led = Led::new();
    let batch = || RemoteBatch {
        target: GROUP,
        origin: Origin { cluster: ClusterId(2), ..HOME },
        source_group: GROUP,
        source_slots: SlotRange::ALL,
        from: LogId::default(),
        to: LogId { term: 1, index: 1 },
        closed: Stamp { hlc: Hlc::from_ms(90), cluster: ClusterId(2) },
        fence: Fence { term: 1, next_seq: 2 },
        vector: vec![],
        effects: vec![],
    };
    let send = |led: &mut Led| {
        let (answer, mut told) = oneshot::channel::<RemoteAnswer>();
        let entries = led.evaluate(100, Work::Remote { batch: batch(), answer });
        if entries.is_empty() {
            let unproposed = led.leader.run.take_unproposed();
            let at = crate::group::run::Verdict::Applied(LogId::default());
            led.leader.run.settle_unproposed(unproposed, at);
            return told.try_recv().ok();
        }
        None
    };
    let Some(Answer::Refused { reason }) = send(&mut led) else { panic!("it is refused") };
    assert!(reason.contains("flotilla namespace sync"), "{reason}");
    led.switch(100);
    assert_eq!(send(&mut led), None, "it becomes an entry");
}

fn committed(index: u64, bytes: &Bytes) -> Committed {
    Committed { log_id: LogId { term: 1, index }, body: Body::Normal(bytes.clone()) }
}

fn context_of(group: GroupId) -> GroupContext {
    GroupContext { group, slots: SlotRange::ALL, born_synced: false, origin: HOME, max_skew_ms: 0 }
}

#[test]
fn the_switch_survives_restarts_and_travels_in_snapshots() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let config = EngineConfig::for_memory(64 << 20);
    let open = |which: usize| Engine::open(dirs[which].path(), &config).unwrap();
    let mut led = Led::new();
    let mut entries = led.run(100, "SET k v");
    entries.extend(led.switch(200));
    let since = switches(&entries)[0];

    let engine = open(0);
    let (mut machine, applied) = Machine::open(&engine, GROUP, ReplicaId(1), HOME).unwrap();
    let blank = Committed { log_id: LogId { term: 1, index: 1 }, body: Body::Blank };
    machine.apply(vec![blank, committed(2, &entries[0])]).unwrap();
    let context = context_of(GROUP);
    let at = |applied: &tokio::sync::watch::Receiver<crate::group::AppliedState>| {
        context.synced_since(applied.borrow().since)
    };
    assert_eq!(at(&applied), Synced::No);
    machine.apply(vec![committed(3, &entries[1])]).unwrap();
    assert_eq!(at(&applied), Synced::Since(since));
    assert_eq!(applied.borrow().own, since, "all that is here counts as stamped so");

    // Another replica gets a snapshot.
    let other = open(1);
    let (mut replica, followed) = Machine::open(&other, GROUP, ReplicaId(2), HOME).unwrap();
    assert_eq!(at(&followed), Synced::No);
    let SnapshotCut { applied: position, mut source } = machine.snapshot().unwrap();
    let mut sink = replica.receiver().open(&position).unwrap();
    while let Some(chunk) = source.next_chunk().unwrap() {
        sink.write_chunk(chunk).unwrap();
    }
    replica.install(position, sink).unwrap();
    assert_eq!(at(&followed), Synced::Since(since));
    let rows = TabletRows::new(&other, followed.borrow().tablet);
    assert_eq!(context.synced_in(&rows).unwrap(), Synced::Since(since));
    assert_eq!(unstamped(&rows).unwrap(), since);

    // The first one starts again.
    engine.flush().unwrap();
    drop((machine, source, applied, engine));
    let (_machine, applied) = Machine::open(&open(0), GROUP, ReplicaId(1), HOME).unwrap();
    assert_eq!(at(&applied), Synced::Since(since));
}

#[test]
fn the_row_survives_and_damage_is_an_error() {
    let since = Stamp { hlc: Hlc(77), cluster: ClusterId(3) };
    let row = encode(&since);
    assert_eq!(decode(&row).unwrap(), since);
    for end in 0..row.len() {
        assert!(decode(&row[..end]).is_err());
    }
}

#[test]
fn learners_begin_behind_the_switch_or_with_a_full_state() {
    let stamp = |ms| Stamp { hlc: Hlc::from_ms(ms), cluster: ClusterId(1) };
    let floor = |peer, index, closed| LinkFloor {
        group: GROUP,
        peer: ClusterId(peer),
        position: LogId { term: 1, index },
        fence: Fence { term: 1, next_seq: index },
        closed,
        vector: vec![],
        merged: None,
    };
    let floors =
        || vec![floor(2, 40, stamp(100)), floor(3, 60, stamp(200)), floor(4, 70, stamp(300))];
    let purged = |index| LogId { term: u64::from(index > 0), index };
    let born = seed(floors(), purged(0), Synced::Always);
    assert_eq!((born.floors.len(), born.start), (3, purged(0)));
    let switched = seed(floors(), purged(0), Synced::Since(stamp(200)));
    let peers: Vec<u8> = switched.floors.iter().map(|floor| floor.peer.0).collect();
    assert_eq!(peers, [3, 4], "2 stands before the switch");
    assert_eq!(
        switched.start.index, 1,
        "the log is whole, and who has no floor is not served by it"
    );
    assert_eq!(seed(floors(), purged(50), Synced::Since(stamp(200))).start, purged(50));
}
