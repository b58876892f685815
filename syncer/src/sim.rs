//! One group, its peer, and everything that can happen between them, in one thread and from one
//! seed: streams that break and lose what was under way, a sender and a receiver that restart,
//! leaders that refuse, lose answers, and get the same sub-batch again much later. The real
//! [`Shipper`] and [`Receiver`] run in it; the leaders and the check are simple on purpose.

use crate::batch::Batch;
use crate::learned::{Learned, Position};
use crate::receiver::{self, Failure, Receiver};
use crate::shipper::{self, Parcel, Shipper};
use bytes::Bytes;
use flotilla_node::group::entry::Fence;
use flotilla_node::group::remote::{RemoteBatch, RemoteEffect, Verdict};
use flotilla_topology::api::LinkState;
use flotilla_topology::ids::{ClusterId, GroupId, Incarnation, LogId, Origin};
use flotilla_topology::slot::{SLOT_COUNT, Slot, SlotRange};
use flotilla_topology::stamp::Stamp;
use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

const SOURCE: GroupId = GroupId(5);

/// The group that merges: it keeps a cursor and the indices that it applied.
struct Target {
    id: GroupId,
    slots: SlotRange,
    cursor: LogId,
    applied: Vec<u64>,
    calls: VecDeque<(u64, u64, Arc<RemoteBatch>)>,
}

impl Target {
    /// The rule of a leader: refuse a gap, skip what is there, take the rest in order.
    fn merge(&mut self, batch: &RemoteBatch) -> Verdict {
        if batch.from.index > self.cursor.index {
            return Verdict::Gap { cursor: self.cursor };
        }
        for effect in batch.effects.iter().filter(|e| e.index > self.cursor.index) {
            assert!(effect.slot.is_none_or(|slot| self.slots.contains(slot)), "a foreign slot");
            assert!(effect.index <= batch.to.index, "an effect behind its batch");
            self.applied.push(effect.index);
        }
        if batch.to.index > self.cursor.index {
            self.cursor = batch.to;
        }
        Verdict::Accepted { cursor: self.cursor }
    }
}

/// A stream: what is under way in both directions, in order.
struct Stream {
    id: u64,
    up: VecDeque<Batch>,
    down: VecDeque<receiver::Action>,
    receiver: Receiver,
}

struct World {
    rng: StdRng,
    now: Instant,
    /// (slot of its effect or none, whether it is news) of entry 1, 2, 3...
    log: Vec<(Option<u16>, bool)>,
    shipper: Shipper,
    learned: LogId,
    floor: Position,
    stream: Option<Stream>,
    streams: u64,
    targets: Vec<Target>,
    faults: bool,
    delivered: usize,
}

fn id(index: u64) -> LogId {
    LogId { term: if index == 0 { 0 } else { 1 + index / 50 }, index }
}

fn position(index: u64) -> Position {
    Position {
        id: id(index),
        fence: Fence { term: id(index).term, next_seq: index },
        closed: Stamp::ZERO,
        vector: Arc::default(),
    }
}

impl World {
    fn new(seed: u64) -> World {
        let mut rng = StdRng::seed_from_u64(seed);
        let now = Instant::now();
        let partitions = rng.random_range(1..4);
        let targets = (0..partitions).map(|index| Target {
            id: GroupId(index),
            slots: SlotRange::partition(index, partitions),
            cursor: LogId::default(),
            applied: Vec::new(),
            calls: VecDeque::new(),
        });
        World {
            targets: targets.collect(),
            rng,
            now,
            log: Vec::new(),
            shipper: Shipper::new(Position::default(), now),
            learned: LogId::default(),
            floor: Position::default(),
            stream: None,
            streams: 0,
            faults: true,
            delivered: 0,
        }
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.rng.random_range(0..100) < percent
    }

    fn faulty(&mut self, percent: u32) -> bool {
        self.faults && self.chance(percent)
    }

    fn commit(&mut self) {
        for _ in 0..self.rng.random_range(1..6) {
            let effect = self.chance(60).then(|| self.rng.random_range(0..SLOT_COUNT));
            let news = effect.is_some() || self.chance(20);
            self.log.push((effect, news));
        }
    }

    fn learn(&mut self) {
        let until = (self.learned.index + self.rng.random_range(1..9)).min(self.log.len() as u64);
        let fresh = (self.learned.index + 1..=until).map(|index| {
            let (slot, news) = self.log[index as usize - 1];
            let body = Bytes::from(vec![0; 200_000 * usize::from(index % 7 == 0)]);
            let effect = |slot| RemoteEffect { index, slot: Some(Slot(slot)), body: body.clone() };
            let effects: Vec<_> = slot.into_iter().map(effect).collect();
            let bytes = effects.iter().map(|effect| effect.body.len()).sum();
            let (prev, at) = (id(index - 1), position(index));
            Arc::new(Learned { prev, at, effects, bytes, born_ms: index, news })
        });
        let fresh: Vec<_> = fresh.collect();
        self.learned = id(until);
        self.ship(shipper::Event::Committed(fresh));
    }

    fn ship(&mut self, event: shipper::Event) {
        let mut actions = Vec::new();
        self.shipper.step(self.now, event, &mut actions);
        for action in actions {
            match action {
                shipper::Action::Send(parcel) => {
                    let batch = batch_of(parcel);
                    self.stream.as_mut().expect("sends only while up").up.push_back(batch);
                }
                shipper::Action::Floor(position) => {
                    assert!(position.id.index >= self.floor.id.index, "a floor went back");
                    let smallest = self.targets.iter().map(|t| t.cursor.index).min();
                    assert!(position.id.index <= smallest.unwrap(), "a floor beyond a cursor");
                    self.floor = position;
                }
                shipper::Action::Delivered(born) => self.delivered += born.len(),
                shipper::Action::Reset(_) => self.break_stream(),
                shipper::Action::Rewind => self.restart_sender(),
            }
        }
    }

    fn break_stream(&mut self) {
        if self.stream.take().is_some() {
            self.ship(shipper::Event::LinkDown("cut".into()));
        }
    }

    fn open_stream(&mut self) {
        self.streams += 1;
        let layout: Vec<_> = self.targets.iter().map(|t| (t.id, t.slots)).collect();
        let mut actions = Vec::new();
        let receiver = Receiver::new(&layout, &mut actions);
        let (id, up, down) = (self.streams, VecDeque::new(), VecDeque::new());
        self.stream = Some(Stream { id, up, down, receiver });
        self.carry_out(actions);
    }

    fn receive(&mut self, event: receiver::Event) {
        let mut actions = Vec::new();
        if let Some(stream) = &mut self.stream {
            stream.receiver.step(self.now, event, &mut actions);
        }
        self.carry_out(actions);
    }

    fn carry_out(&mut self, actions: Vec<receiver::Action>) {
        for action in actions {
            match action {
                receiver::Action::Ask(target) => {
                    let cursor = self.targets[target.0 as usize].cursor;
                    let lost = self.faulty(20);
                    let result = if lost { Err(Failure::Again) } else { Ok(cursor) };
                    self.receive(receiver::Event::Cursor { target, result });
                }
                receiver::Action::Forward { round, batch } => {
                    let stream = self.stream.as_ref().expect("forwards while up").id;
                    let target = &mut self.targets[batch.target.0 as usize];
                    target.calls.push_back((stream, round, batch));
                }
                receiver::Action::Refuse(reason) => panic!("refused: {reason}"),
                tell => self.stream.as_mut().expect("tells while up").down.push_back(tell),
            }
        }
    }

    /// One call reaches a leader, or does not; its answer comes back, or does not.
    fn serve_call(&mut self, target: usize) {
        let Some((stream, round, batch)) = self.targets[target].calls.pop_front() else { return };
        let refused = self.faulty(10);
        let again = self.faulty(5);
        if again {
            self.targets[target].calls.push_back((0, round, Arc::clone(&batch))); // comes back late
        }
        let verdict = (!refused).then(|| self.targets[target].merge(&batch));
        let known = self.stream.as_ref().is_some_and(|s| s.id == stream);
        let lost = self.faulty(5);
        let result = verdict.filter(|_| !lost).ok_or(Failure::Again);
        if known {
            let target = GroupId(target as u32);
            self.receive(receiver::Event::Answer { target, round, result });
        }
    }

    fn carry_up(&mut self) {
        let batch = self.stream.as_mut().and_then(|stream| stream.up.pop_front());
        if let Some(batch) = batch {
            self.receive(receiver::Event::Batch(Box::new(batch), 0));
        }
    }

    fn carry_down(&mut self) {
        let Some(tell) = self.stream.as_mut().and_then(|s| s.down.pop_front()) else { return };
        self.ship(match tell {
            receiver::Action::TellCursor(cursor) => shipper::Event::LinkUp(cursor),
            receiver::Action::TellAck(cursor, _) => shipper::Event::Acked(cursor),
            receiver::Action::TellGap(cursor) => shipper::Event::Gap(cursor),
            receiver::Action::TellParked(ahead_ms) => shipper::Event::Parked { ahead_ms },
            other => panic!("not for the sender: {other:?}"),
        });
    }

    fn restart_sender(&mut self) {
        self.stream = None;
        self.shipper = Shipper::new(self.floor.clone(), self.now);
        self.learned = self.floor.id;
    }

    fn step(&mut self) {
        self.now += Duration::from_millis(self.rng.random_range(0..8));
        match self.rng.random_range(0..12) {
            0 if self.faults => self.commit(),
            1 | 2 => self.learn(),
            3 | 4 => self.carry_up(),
            5 | 6 => self.carry_down(),
            7 | 8 => {
                let target = self.rng.random_range(0..self.targets.len());
                self.serve_call(target);
            }
            9 => self.ship(shipper::Event::Tick),
            10 => self.receive(receiver::Event::Tick),
            _ if self.stream.is_none() && self.faulty(10) => self.ship(shipper::Event::Shed),
            _ if self.stream.is_none() => self.open_stream(),
            _ if self.faulty(10) => self.restart_sender(),
            _ if self.faulty(20) => self.break_stream(),
            _ => {}
        }
        self.check();
    }

    /// Each target has exactly what the log holds for its slots up to its cursor, in order.
    fn check(&self) {
        for target in &self.targets {
            let expected = self.log[..target.cursor.index as usize].iter().zip(1u64..);
            let mine = |slot: Option<u16>| slot.is_some_and(|s| target.slots.contains(Slot(s)));
            let expected: Vec<u64> =
                expected.filter(|((slot, _), _)| mine(*slot)).map(|(_, index)| index).collect();
            assert_eq!(target.applied, expected, "a gap, a repeat, or out of order");
        }
    }

    fn last_news(&self) -> u64 {
        self.log.iter().rposition(|(_, news)| *news).map_or(0, |at| at as u64 + 1)
    }
}

fn batch_of(parcel: Parcel) -> Batch {
    Batch {
        origin: Origin { cluster: ClusterId(1), incarnation: Incarnation(1) },
        group: SOURCE,
        slots: SlotRange::ALL,
        from: parcel.from,
        to: parcel.to.id,
        closed: parcel.to.closed,
        fence: parcel.to.fence,
        vector: parcel.to.vector.to_vec(),
        sent_ms: 0,
        born_ms: parcel.born_ms,
        effects: parcel.effects,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn whatever_breaks_nothing_is_skipped_and_it_ends_once_healed(seed: u64) {
        let mut world = World::new(seed);
        for _ in 0..600 {
            world.step();
        }
        world.faults = false;
        for _ in 0..20_000 {
            world.step();
            if world.targets.iter().all(|t| t.cursor.index >= world.last_news())
                && world.shipper.cursor().index >= world.last_news()
                && world.shipper.state().0 == LinkState::Live
            {
                break;
            }
        }
        for target in &world.targets {
            prop_assert!(target.cursor.index >= world.last_news(), "stuck at {}", target.cursor);
        }
        prop_assert!(world.shipper.cursor().index >= world.last_news());
        prop_assert_eq!(world.shipper.backlog(), shipper::Backlog::default());
        prop_assert_eq!(world.shipper.state().0, LinkState::Live);
    }
}
