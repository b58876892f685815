//! A group in memory: rows, an overlay with entries in flight, a clock, and the effects that its
//! entries would ship.

use crate::command::Command;
use crate::engine::keys;
use crate::engine::view::{Batch, Overlay, View};
use crate::eval::{self, EvalContext, Losers, ScanMarks, SlotDigest, Txn};
use crate::group::rows::{Resume, Units};
use crate::group::synced;
use crate::model::{Effect, Parts, Synced, effect_of};
use crate::resp::Reply;
use bytes::Bytes;
use flotilla_topology::ids::{ClusterId, Incarnation, Origin};
use flotilla_topology::slot::SlotRange;
use flotilla_topology::stamp::{Hlc, Stamp};
use std::collections::{BTreeMap, VecDeque};

pub(super) struct World {
    pub(super) rows: BTreeMap<Bytes, Bytes>,
    pub(super) clock: Hlc,
    pub(super) origin: Origin,
    pub(super) synced: Synced,
    pub(super) slots: SlotRange,
    pub(super) needs_tick: bool,
    overlay: Overlay,
    in_flight: VecDeque<(u64, Batch)>,
    /// How many entries stay in flight: what they wrote is then seen through the overlay.
    pub(super) flight_max: usize,
    /// What commands leave to chance begins with it.
    pub(super) chance: u64,
    /// Up to when ends may have been collected.
    pub(super) forgotten_ms: u64,
    /// Where scans stand, if that is remembered.
    pub(super) marks: Option<ScanMarks>,
    seq: u64,
    applied_ms: u64,
}

impl World {
    pub(super) fn new(cluster: u8, synced: bool) -> World {
        World {
            rows: BTreeMap::new(),
            clock: Hlc::from_ms(1),
            origin: Origin { cluster: ClusterId(cluster), incarnation: Incarnation(1) },
            synced: if synced { Synced::Always } else { Synced::No },
            slots: SlotRange::ALL,
            needs_tick: false,
            overlay: Overlay::new(),
            in_flight: VecDeque::new(),
            flight_max: 0,
            chance: 0,
            forgotten_ms: 0,
            marks: None,
            seq: 0,
            applied_ms: 0,
        }
    }

    /// Lets the clock be at least at `ms`.
    pub(super) fn at(&mut self, ms: u64) -> &mut World {
        self.clock = self.clock.max(Hlc::from_ms(ms));
        self
    }

    fn context(&self, now_ms: u64) -> EvalContext {
        EvalContext {
            origin: self.origin,
            slots: self.slots,
            synced: self.synced,
            stamp: Stamp { hlc: self.clock, cluster: self.origin.cluster },
            now_ms,
            applied_clock_ms: self.applied_ms,
            forgotten_ms: self.forgotten_ms,
            chance: self.chance,
        }
    }

    /// Does something as one entry, with a stamp of its own.
    pub(super) fn entry<T>(&mut self, act: impl FnOnce(&mut Txn<'_>) -> T) -> (T, Vec<Effect>) {
        self.begin();
        let done = self.act(act);
        (done, self.commit())
    }

    /// Opens an entry for [`World::act`].
    pub(super) fn begin(&mut self) {
        self.seq += 1;
        self.overlay.begin(self.seq);
    }

    /// Does something within the open entry, with a stamp of its own.
    pub(super) fn act<T>(&mut self, act: impl FnOnce(&mut Txn<'_>) -> T) -> T {
        self.clock = self.clock.next();
        let empty = self.overlay.entry_is_empty();
        let context = self.context(self.clock.ms());
        let mut txn = Txn::new(View::new(&self.rows, &mut self.overlay), context);
        if let Some(marks) = &self.marks {
            txn = txn.with_marks(marks);
        }
        let done = act(&mut txn);
        let wrote = txn.wrote();
        self.needs_tick = txn.needs_tick();
        if empty {
            let writes = !self.overlay.entry_is_empty();
            assert_eq!(wrote, writes, "a transaction knows whether it wrote");
        }
        done
    }

    /// Ends the open entry; what it ships.
    pub(super) fn commit(&mut self) -> Vec<Effect> {
        let batch = self.overlay.finish();
        let effects = self.effects(&batch);
        self.in_flight.push_back((self.seq, batch));
        self.land(self.flight_max);
        self.applied_ms = self.clock.ms();
        effects
    }

    /// Reads at the present clock, also within an open entry.
    pub(super) fn read(&mut self, line: &str) -> String {
        let args = line.split(' ').map(|word| Bytes::copy_from_slice(word.as_bytes())).collect();
        let command = Command::parse(args).unwrap();
        let context = self.context(self.clock.ms());
        let mut txn = Txn::new(View::new(&self.rows, &mut self.overlay), context);
        let reply = eval::command(&mut txn, &command).unwrap();
        assert!(!txn.wrote(), "{line} is no read");
        show(&reply)
    }

    /// Runs a command given as one line within the open entry; its reply as text.
    pub(super) fn act_line(&mut self, line: &str) -> String {
        let args = line.split(' ').map(|word| Bytes::copy_from_slice(word.as_bytes())).collect();
        let command = Command::parse(args).unwrap();
        show(&self.act(|txn| eval::command(txn, &command).unwrap()))
    }

    fn effects(&self, batch: &Batch) -> Vec<Effect> {
        if !self.synced.is_on() {
            assert!(batch.rows.iter().all(|row| row.key[0] != 0x62), "no floors without sync");
            return Vec::new();
        }
        let puts = batch.rows.iter().filter_map(|row| Some((row, row.value.as_ref()?)));
        let effects = puts
            .filter_map(|(row, value)| effect_of(self.origin, &row.key, value, row.parts).unwrap());
        effects.collect()
    }

    /// Switches sync on in an entry of its own: deletes what has ended, and counts what is left as
    /// written now.
    pub(super) fn switch_on(&mut self) -> Stamp {
        let (stamp, _) = self.entry(|txn| {
            assert!(!eval::expire_due(txn, usize::MAX).unwrap().more);
            let stamp = txn.context.stamp;
            txn.put_row(keys::single(keys::SYNCED), synced::encode(&stamp), Parts::NONE);
            stamp
        });
        self.synced = Synced::Since(stamp);
        stamp
    }

    /// Everything in it, as a full state travels. Nothing stays in flight.
    pub(super) fn state(&mut self) -> Vec<Effect> {
        self.land(0);
        let start = Resume::at(SlotRange::ALL);
        let units = Units::new(&self.rows, SlotRange::ALL, &start, self.clock.ms());
        units.map(|unit| unit.unwrap().effect).collect()
    }

    /// Lets entries be applied until this many are in flight.
    fn land(&mut self, in_flight: usize) {
        while self.in_flight.len() > in_flight {
            let Some((seq, batch)) = self.in_flight.pop_front() else { break };
            batch.apply_to(&mut self.rows);
            self.overlay.retire(seq);
        }
    }

    /// Runs a command given as words; its reply and what it ships.
    pub(super) fn run(&mut self, words: &[&[u8]]) -> (Reply, Vec<Effect>) {
        let args = words.iter().map(|word| Bytes::copy_from_slice(word)).collect();
        let command = match Command::parse(args) {
            Ok(command) => command,
            Err(error) => return (error.reply(), Vec::new()),
        };
        self.entry(|txn| eval::command(txn, &command).unwrap())
    }

    /// Runs a command given as one line; its reply as text.
    pub(super) fn cmd(&mut self, line: &str) -> String {
        show(&self.ship(line).0)
    }

    /// Runs a command given as one line.
    pub(super) fn ship(&mut self, line: &str) -> (Reply, Vec<Effect>) {
        let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        self.run(&words)
    }

    /// Takes effects of another cluster as one entry.
    pub(super) fn take(&mut self, effects: &[Effect]) -> Losers {
        let seen = effects.iter().map(|effect| effect.max_stamp().hlc).max();
        self.clock = self.clock.max(seen.unwrap_or(Hlc::ZERO));
        let (losers, shipped) = self.entry(|txn| eval::remote(txn, effects).unwrap());
        assert!(shipped.is_empty(), "what came from elsewhere is not shipped again");
        losers
    }

    /// What is visible at `ms`, as digests.
    pub(super) fn digest(&mut self, ms: u64) -> Vec<SlotDigest> {
        let context = self.context(ms);
        let txn = Txn::new(View::new(&self.rows, &mut self.overlay), context);
        eval::digest(&txn, SlotRange::ALL).unwrap()
    }
}

/// The elements of an array of byte strings.
pub(super) fn elements(reply: &Reply) -> Vec<String> {
    let text = |reply: &Reply| match reply {
        Reply::Bulk(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        other => panic!("{other:?}"),
    };
    match reply {
        Reply::Array(items) => items.iter().map(text).collect(),
        other => panic!("an array, not {other:?}"),
    }
}

/// A reply as one line of text.
pub(super) fn show(reply: &Reply) -> String {
    let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
    match reply {
        Reply::Ok => "OK".into(),
        Reply::Simple(line) | Reply::Error(line) => text(line),
        Reply::Int(value) => value.to_string(),
        Reply::Bulk(value) => format!("\"{}\"", text(value)),
        Reply::Null => "nil".into(),
        Reply::Array(items) => {
            format!("[{}]", items.iter().map(show).collect::<Vec<_>>().join(" "))
        }
        Reply::Map(pairs) => {
            let pairs = pairs.iter().map(|(k, v)| format!("{}={}", show(k), show(v)));
            format!("{{{}}}", pairs.collect::<Vec<_>>().join(" "))
        }
        other => format!("{other:?}"),
    }
}
