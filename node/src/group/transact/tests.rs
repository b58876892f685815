//! Transactions on real evaluation: a group that is led in memory, and what its entries hold.

use super::*;
use crate::engine::keys;
use crate::group::GroupContext;
use crate::group::entry::{Entry, Fence, RowOp};
use crate::group::leader::Work;
use crate::group::remote::{RemoteBatch, RemoteEffect};
use crate::group::rows::encode_effect;
use crate::group::run::Verdict;
use crate::group::transaction::watched;
use crate::group::wait::{Told, Wait};
use crate::model::{Effect, Parts, effect_of};
use crate::resp::Protocol;
use bytes::BytesMut;
use flotilla_topology::ids::{ClusterId, GroupId, Incarnation, LogId, Origin};
use flotilla_topology::slot::SlotRange;
use flotilla_topology::stamp::Hlc;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

const HOME: Origin = Origin { cluster: ClusterId(1), incarnation: Incarnation(1) };
pub(crate) const GROUP: GroupId = GroupId(1);

/// A group of one replica, in memory. Entries take effect when [`Solo::land`] is called.
pub(crate) struct Solo {
    leader: Leader,
    rows: BTreeMap<Bytes, Bytes>,
    context: Arc<GroupContext>,
    term: u64,
    applied: Hlc,
    proposed: Vec<(u64, Entry)>,
    /// Entries that took effect.
    pub(crate) log: Vec<Entry>,
    /// What the wall clock says.
    pub(crate) wall_ms: u64,
    waited: Instant,
}

impl Solo {
    pub(crate) fn new(synced: bool) -> Solo {
        let context = Arc::new(GroupContext {
            group: GROUP,
            slots: SlotRange::ALL,
            born_synced: synced,
            origin: HOME,
            max_skew_ms: 500,
        });
        let run = Run::start(1, Fence { term: 1, next_seq: 1 }, Hlc::ZERO, HOME);
        Solo {
            leader: Leader::new(context.clone(), run),
            rows: BTreeMap::new(),
            context,
            term: 1,
            applied: Hlc::ZERO,
            proposed: Vec::new(),
            log: Vec::new(),
            wall_ms: 1_000,
            waited: Instant::now(),
        }
    }

    fn clock(&self) -> LeaderClock {
        LeaderClock { wall_ms: self.wall_ms, applied: self.applied, now: self.waited }
    }

    /// Hands work over; it may stay in the open entry.
    fn submit(&mut self, work: Work) {
        self.leader.evaluate(&self.rows, self.clock(), work).unwrap();
    }

    /// Closes the open entry.
    fn propose(&mut self) {
        self.leader.close();
        for proposal in self.leader.take_proposals() {
            self.proposed.push((proposal.seq, Entry::decode(&proposal.bytes).unwrap()));
        }
    }

    /// Lets everything take effect.
    pub(crate) fn land(&mut self) {
        self.propose();
        for (seq, entry) in std::mem::take(&mut self.proposed) {
            for op in entry.ops.clone() {
                match op {
                    RowOp::Put { key, value, .. } => drop(self.rows.insert(key, value)),
                    RowOp::Delete { key } => drop(self.rows.remove(&key)),
                    RowOp::DeleteRange { from, to } => {
                        self.rows.retain(|key, _| !(from.clone()..to.clone()).contains(key));
                    }
                }
            }
            self.applied = self.applied.max(entry.header.clock);
            self.log.push(entry);
            let at = LogId { term: self.term, index: self.log.len() as u64 };
            self.leader.run.complete(seq, Verdict::Applied(at));
        }
        if self.leader.run.has_unproposed() {
            let unproposed = self.leader.run.take_unproposed();
            self.leader.run.settle_unproposed(unproposed, Verdict::Applied(LogId::default()));
        }
    }

    /// Asks for keys to be there.
    pub(crate) fn wait(&mut self, wait: Wait) -> oneshot::Receiver<Told> {
        let (answer, told) = oneshot::channel();
        self.submit(Work::Wait { wait, answer });
        told
    }

    /// Lets time pass, and does what is due for those who wait.
    pub(crate) fn pass(&mut self, time: Duration) {
        self.waited += time;
        self.leader.rouse_due(&self.rows, self.clock()).unwrap();
    }

    /// Another run begins; what was proposed and has not landed never will.
    pub(crate) fn restart(&mut self) {
        self.leader.run.stop();
        self.proposed.clear();
        let fence = Fence { term: self.term, next_seq: self.log.len() as u64 + 1 };
        let run = Run::start(self.term, fence, self.applied, HOME);
        self.leader = Leader::new(self.context.clone(), run);
    }

    pub(crate) fn exec(&mut self, commands: Vec<Command>) -> Vec<Reply> {
        let (answer, mut outcomes) = oneshot::channel();
        self.submit(Work::Exec { commands, answer });
        self.land();
        outcomes.try_recv().unwrap().into_iter().map(done).collect()
    }

    fn begin(&mut self, ask: Ask) -> oneshot::Receiver<Vec<Outcome>> {
        let (answer, outcomes) = oneshot::channel();
        self.submit(Work::Ask { ask, answer });
        outcomes
    }

    pub(crate) fn ask(&mut self, ask: Ask) -> Reply {
        let mut outcomes = self.begin(ask);
        self.land();
        done(outcomes.try_recv().unwrap().remove(0))
    }

    pub(crate) fn watch(&mut self, keys: Vec<Bytes>) -> Vec<Watch> {
        let reply = self.ask(Ask::Watch(keys.clone()));
        watched(GROUP, keys, &reply).unwrap()
    }

    pub(crate) fn line(&mut self, line: &str) -> String {
        show(&self.exec(vec![command(line)])[0])
    }

    fn watches(&mut self, keys: &str) -> Vec<Watch> {
        self.watch(keys.split(' ').map(|key| Bytes::copy_from_slice(key.as_bytes())).collect())
    }

    pub(crate) fn transact(&mut self, watches: Vec<Watch>, lines: &[&str]) -> String {
        show(&self.ask(Ask::Transact(multi(watches, lines))))
    }

    fn txn(&mut self, line: &str) -> String {
        let words: Vec<Bytes> = words(line);
        show(&self.ask(Ask::Transact(Transaction::parse(&words).unwrap())))
    }

    /// What an entry ships.
    pub(crate) fn shipped(&self, entry: &Entry) -> Vec<Effect> {
        let effect = |op: &RowOp| match op {
            RowOp::Put { key, value, parts } => effect_of(HOME, key, value, Parts(*parts)).unwrap(),
            _ => None,
        };
        entry.ops.iter().filter_map(effect).collect()
    }

    /// Merges what another cluster has shipped.
    pub(crate) fn merge(&mut self, from: u64, effects: &[Effect]) {
        let origin = Origin { cluster: ClusterId(2), ..HOME };
        let last = effects.iter().map(Effect::max_stamp).max().unwrap();
        let effects = effects.iter().map(|effect| RemoteEffect {
            index: from + 1,
            slot: None,
            body: encode_effect(effect),
        });
        let batch = RemoteBatch {
            target: GROUP,
            origin,
            source_group: GROUP,
            source_slots: SlotRange::ALL,
            from: LogId { term: u64::from(from > 0), index: from },
            to: LogId { term: 1, index: from + 1 },
            closed: last,
            fence: Fence { term: 1, next_seq: from + 2 },
            vector: vec![],
            effects: effects.collect(),
        };
        let (answer, mut told) = oneshot::channel();
        self.submit(Work::Remote { batch, answer });
        self.land();
        let told = format!("{:?}", told.try_recv().unwrap());
        assert!(told.contains("Accepted"), "{told}");
    }
}

fn done(outcome: Outcome) -> Reply {
    match outcome {
        Outcome::Done(reply) => reply,
        other => panic!("not done: {other:?}"),
    }
}

fn words(line: &str) -> Vec<Bytes> {
    line.split(' ').map(|word| Bytes::copy_from_slice(word.as_bytes())).collect()
}

fn command(line: &str) -> Command {
    Command::parse(words(line)).unwrap()
}

fn multi(watches: Vec<Watch>, lines: &[&str]) -> Transaction {
    let then = lines.iter().map(|line| command(line)).collect();
    Transaction { watches, then, ..Transaction::default() }
}

/// A reply as RESP2, in one line.
fn show(reply: &Reply) -> String {
    let mut out = BytesMut::new();
    reply.encode(Protocol::Resp2, &mut out);
    String::from_utf8_lossy(&out).trim_end().replace("\r\n", " ")
}

const NOTHING: &str = "*-1";

#[test]
fn a_transaction_is_one_entry_of_consecutive_stamps_and_ships_as_such() {
    let mut solo = Solo::new(true);
    solo.line("SET other 1");
    let lines = ["SET a 1", "INCR a", "HSET h f v", "INCR h", "DEL a", "SET a 3", "GET a"];
    let reply = solo.transact(vec![], &lines);
    let wrong = "-WRONGTYPE Operation against a key holding the wrong kind of value";
    assert_eq!(reply, format!("*7 +OK :2 :1 {wrong} :1 +OK $1 3"));
    let [_, entry] = &solo.log[..] else { panic!("one entry: {:?}", solo.log) };
    let header = &entry.header;
    let between = header.last.hlc.0 - header.first.hlc.0;
    // Six commands that may write; the one that was refused has used its stamp up.
    assert_eq!(between, 5, "{header:?}");
    let effects = solo.shipped(entry);
    assert_eq!(effects.len(), 3, "the heads of a and h, and a field: {effects:?}");

    // Another cluster has it all, and in one entry too.
    let mut other = Solo::new(true);
    let before = other.log.len();
    other.merge(0, &effects);
    assert_eq!(other.log.len(), before + 1);
    assert_eq!(other.line("GET a"), "$1 3");
    assert_eq!(other.line("HGETALL h"), "*2 $1 f $1 v");
}

#[test]
fn an_entry_that_was_refused_leaves_nothing_of_a_transaction() {
    for synced in [true, false] {
        let mut solo = Solo::new(synced);
        solo.line("SET a 0");
        let mut outcomes = solo.begin(Ask::Transact(multi(vec![], &["SET a 1", "SET b 1"])));
        solo.propose();
        assert_eq!(solo.proposed.len(), 1);
        let seq = solo.proposed[0].0;
        solo.leader.run.complete(seq, Verdict::NotApplied);
        assert_eq!(outcomes.try_recv().unwrap(), [Outcome::NotApplied { leader: None }]);
        solo.restart();
        assert_eq!(solo.line("MGET a b"), "*2 $1 0 $-1");
        let mut outcomes = solo.begin(Ask::Transact(multi(vec![], &["SET a 2"])));
        solo.propose();
        let seq = solo.proposed[0].0;
        solo.leader.run.complete(seq, Verdict::Unknown);
        assert_eq!(outcomes.try_recv().unwrap(), [Outcome::Unknown]);
    }
}

#[test]
fn a_transaction_that_is_too_large_writes_nothing() {
    for synced in [true, false] {
        let mut solo = Solo::new(synced);
        let big = "x".repeat(9 << 20);
        solo.line(&format!("SET a {big}"));
        solo.line(&format!("SET b {big}"));
        solo.line(&format!("SET c {big}"));
        let entries = solo.log.len();
        let appends = ["SET first 1", "APPEND a y", "APPEND b y", "APPEND c y", "GET nokey"];
        let reply = solo.transact(vec![], &appends);
        assert!(reply.starts_with("-ERR not executed: a transaction may write"), "{reply}");
        let gets = vec!["GET a"; 7];
        let reply = solo.transact(vec![], &gets);
        assert!(reply.starts_with("-ERR not executed: the replies"), "{}", &reply[..60]);
        assert_eq!(solo.log.len(), entries, "no entry");
        assert_eq!(solo.line("EXISTS first a b c"), ":3");
        assert_eq!(solo.line("STRLEN a"), format!(":{}", 9 << 20));
        let appends = ["APPEND a y", "APPEND b y"];
        assert_eq!(solo.transact(vec![], &appends), "*2 :9437185 :9437185");
    }
}

#[test]
fn a_watched_key_that_was_written_lets_nothing_be_carried_out() {
    for synced in [true, false] {
        let mut solo = Solo::new(synced);
        for write in [
            "SET k v",
            "SET k v", // the same value again
            "HSET h new 1",
            "HSET h f 2",
            "HDEL h f",
            "EXPIRE h 100",
            "PERSIST h",
            "DEL k",
            "INCR n",
            "INCR n",
            "DEL n h",
            "HSET h f 1",
        ] {
            let watches = solo.watches("k h n");
            assert_eq!(solo.transact(watches.clone(), &["GET k"]).chars().nth(1), Some('1'));
            solo.line(write);
            assert_eq!(solo.transact(watches, &["SET k mine"]), NOTHING, "{synced} {write}");
        }
        // What changes nothing is no change, and neither is another key.
        let watches = solo.watches("k h n");
        for line in ["SET other 1", "SETNX h x", "HDEL h nofield", "DEL k", "GET k", "PERSIST h"] {
            solo.line(line);
        }
        assert_eq!(solo.transact(watches, &["SET k mine"]), "*1 +OK", "{synced}");
        assert_eq!(solo.line("GET k"), "$4 mine");
    }
}

#[test]
fn a_write_in_the_open_entry_counts_and_so_does_one_that_never_lands() {
    let mut solo = Solo::new(true);
    solo.line("SET k 0");
    let watches = solo.watches("k");
    // Two transactions of two connections meet in one entry: one of them is first.
    let (mut one, mut two) = (
        solo.begin(Ask::Transact(multi(watches.clone(), &["SET k 1"]))),
        solo.begin(Ask::Transact(multi(watches, &["SET k 2"]))),
    );
    let entries = solo.log.len();
    solo.land();
    assert_eq!(solo.log.len(), entries + 1, "one entry for both");
    assert_eq!(show(&done(one.try_recv().unwrap().remove(0))), "*1 +OK");
    assert_eq!(show(&done(two.try_recv().unwrap().remove(0))), NOTHING);

    let watches = solo.watches("k");
    solo.restart();
    assert_eq!(solo.transact(watches, &["SET k 3"]), NOTHING, "another run cannot tell");
    let later = solo.watches("k");
    assert_eq!(solo.transact(later, &["SET k 4"]), "*1 +OK");
}

#[test]
fn whoever_watches_reads_everything_that_was_written_before() {
    let mut solo = Solo::new(true);
    solo.submit(Work::Exec { commands: vec![command("SET k 1")], answer: oneshot::channel().0 });
    let mut outcomes = solo.begin(Ask::Watch(vec![Bytes::from_static(b"k")]));
    solo.propose();
    assert!(outcomes.try_recv().is_err(), "the write before it has not taken effect");
    solo.land();
    assert!(matches!(outcomes.try_recv().unwrap()[..], [Outcome::Done(_)]));
}

#[test]
fn a_merge_of_another_cluster_changes_what_it_writes() {
    let mut there = Solo::new(true);
    there.wall_ms += 100;
    there.line("SET k theirs");
    there.line("HSET h g 1");
    let effects: Vec<Vec<Effect>> = there.log.iter().map(|entry| there.shipped(entry)).collect();
    let mut here = Solo::new(true);
    here.line("SET k ours");
    here.line("HSET h f 1");
    let (k, h) = (here.watches("k"), here.watches("h"));
    here.merge(0, &effects[0]);
    assert_eq!(here.transact(h.clone(), &["HLEN h"]), "*1 :1");
    assert_eq!(here.transact(k, &["SET k mine"]), NOTHING);
    here.merge(1, &effects[1]);
    assert_eq!(here.transact(h, &["HLEN h"]), NOTHING);
    assert_eq!(here.line("HLEN h"), ":2");
    assert_eq!(here.line("GET k"), "$6 theirs");
}

#[test]
fn a_watched_key_that_ends_has_changed_and_one_that_had_ended_has_not() {
    for synced in [true, false] {
        let mut solo = Solo::new(synced);
        solo.line("SET k v PXAT 5000");
        let before = solo.watches("k");
        solo.wall_ms = 4999;
        assert_eq!(solo.transact(before.clone(), &["GET k"]), "*1 $1 v");
        solo.wall_ms = 5000;
        assert_eq!(solo.transact(before, &["GET k"]), NOTHING);
        let ended = solo.watches("k");
        assert_eq!(solo.transact(ended, &["SET k new"]), "*1 +OK");
        assert_eq!(solo.line("TTL k"), ":-1");
    }
}

#[test]
fn cleaning_does_not_break_watches_of_other_keys() {
    let mut solo = Solo::new(false);
    solo.line("SET ends v PXAT 2000");
    solo.line("HSET h f v");
    let watches = solo.watches("h nokey");
    solo.wall_ms = 60_000;
    let clock = solo.clock();
    solo.leader.housekeep(&solo.rows, clock).unwrap();
    solo.land();
    let left = solo.rows.keys().filter(|row| row[0] == keys::HEAD).count();
    assert_eq!(left, 1, "what had ended is gone");
    assert_eq!(solo.transact(watches.clone(), &["HLEN h"]), "*1 :1");
    let long = Duration::from_secs(1201);
    for _ in 0..2 {
        solo.waited += long;
        let clock = solo.clock();
        solo.leader.housekeep(&solo.rows, clock).unwrap();
        solo.land();
    }
    assert_eq!(solo.transact(watches, &["HLEN h"]), NOTHING, "nobody watches for so long");
}

#[test]
fn txn_carries_out_one_list_or_the_other() {
    for synced in [true, false] {
        let mut solo = Solo::new(synced);
        solo.line("SET stock m");
        solo.line("HSET h f v");
        for (condition, met) in [
            ("stock EXISTS", true),
            ("nokey EXISTS", false),
            ("h EXISTS", true),
            ("stock NOTEXISTS", false),
            ("nokey NOTEXISTS", true),
            ("stock EQ m", true),
            ("stock EQ M", false),
            ("nokey EQ m", false),
            ("stock NE m", false),
            ("stock NE x", true),
            ("nokey NE x", true),
            ("stock GT lzzz", true),
            ("stock GT m", false),
            ("nokey GT a", false),
            ("stock GE m", true),
            ("stock GE ma", false),
            ("stock LT ma", true),
            ("stock LT m", false),
            ("stock LE m", true),
            ("stock LE l", false),
            ("nokey LE z", false),
            ("stock EQ m IF h EXISTS", true),
            ("stock EQ m IF h NOTEXISTS", false),
        ] {
            let entries = solo.log.len();
            let reply = solo
                .txn(&format!("TXN IF {condition} THEN 3 SET t then 2 GET t ELSE 3 SET t else"));
            let want = if met { "*2 :1 *2 +OK $4 then" } else { "*2 :0 *1 +OK" };
            assert_eq!(reply, want, "{condition}");
            assert_eq!(solo.log.len(), entries + 1, "{condition}");
        }
        let entries = solo.log.len();
        let wrong = "-WRONGTYPE Operation against a key holding the wrong kind of value";
        assert_eq!(solo.txn("TXN IF h EQ v THEN 3 SET t no"), wrong);
        assert_eq!(solo.txn("TXN IF stock EQ no THEN 3 SET t no"), "*2 :0 *0");
        assert_eq!(solo.log.len(), entries, "nothing is carried out");
    }
}
