//! Full-state merges of the simulation: rows of a cut, from the leading or a lagging replica, chunk
//! by chunk into one target group, while everything else goes on.

use super::commands::KEYS;
use super::dice::Dice;
use super::group::{Replica, SimGroup};
use bytes::Bytes;
use flotilla_node::group::leader::{LeaderClock, Work};
use flotilla_node::group::remote::Answer;
use flotilla_node::group::rows::{self, Resume, Stretch, Units};
use flotilla_node::group::source;
use flotilla_node::group::state::{StateCut, StateRequest, StateStep, StateVerdict};
use flotilla_topology::ids::ClusterId;
use flotilla_topology::slot::{Slot, SlotRange};
use std::collections::BTreeSet;
use tokio::sync::oneshot;

/// Where a merge is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    Rows,
    Close,
    Done,
}

/// A merge under way, or given up.
pub struct Merge {
    /// Receiving cluster and group, by place.
    pub to: (usize, usize),
    cut: StateCut,
    state: Replica,
    slots: SlotRange,
    id: u64,
    phase: Phase,
    at: Place,
    /// Keys that both have alike are left out.
    compares: bool,
    wanted: Option<Vec<u64>>,
    /// Chunks that were sent, for those that arrive late.
    sent: Vec<StateRequest>,
    answer: Option<(Phase, Place, oneshot::Receiver<Answer<StateVerdict>>)>,
    /// The target covers: it is given all stretches of these slots.
    covers: bool,
    stretches: Vec<Slot>,
    closed: bool,
}

/// How far a merge has come: in the rows, or in the slots that are covered and the last of them.
#[derive(Debug, Clone)]
struct Place {
    at: Resume,
    slot: usize,
}

impl Merge {
    /// Cuts the state of a source group for a target.
    pub fn cut(
        source: &SimGroup,
        target: (usize, usize),
        slots: SlotRange,
        id: u64,
        dice: &mut Dice,
    ) -> Option<Merge> {
        let state = if dice.chance(50) { source.lagging.clone() } else { source.state.clone() };
        if state.meta.applied.index == 0 {
            return None;
        }
        let context = &source.context;
        let cut = source::cut_of(context, &state.meta, &state.rows);
        let cut = cut.expect("rows in memory can be read");
        let slots = slots.common(&context.slots)?;
        Some(Merge {
            to: target,
            cut,
            state,
            slots,
            id,
            phase: Phase::Open,
            at: Place { at: Resume::at(slots), slot: 0 },
            compares: dice.chance(50),
            wanted: None,
            sent: Vec::new(),
            answer: None,
            covers: false,
            stretches: stretches(slots),
            closed: false,
        })
    }

    /// Whether a replica of the source gives this cut to a cluster in this version of the mesh.
    pub fn is_given(&self, source: &SimGroup, peer: ClusterId, mesh: u64) -> bool {
        let refusal = source::refusal(&source.context, &self.state.rows, peer, mesh);
        refusal.expect("rows in memory can be read").is_none()
    }

    /// Whether the target has all of it.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Whether nothing is left to do.
    pub fn is_done(&self) -> bool {
        self.phase == Phase::Done
    }

    /// Takes the answer to the last step, if there is one; false while it is awaited.
    fn take_answer(&mut self) -> bool {
        let Some((phase, at, answer)) = &mut self.answer else { return true };
        match answer.try_recv() {
            Ok(Answer::Done(StateVerdict::Done)) => {
                self.closed = self.phase == Phase::Close;
                (self.phase, self.at) = (*phase, at.clone());
            }
            Ok(Answer::Done(StateVerdict::Covers)) => {
                (self.phase, self.covers) = (*phase, true);
                self.at.at = self.stretch().from;
            }
            Ok(Answer::Done(StateVerdict::More { from })) => self.at.at = from,
            Ok(Answer::Done(StateVerdict::Parked { .. }) | Answer::NotLeader(_)) => {}
            Ok(_) => self.phase = Phase::Done, // an older cut, another merge, or refused: given up
            Err(oneshot::error::TryRecvError::Empty) => return false,
            Err(oneshot::error::TryRecvError::Closed) => {} // lost with its leader: once more
        }
        self.answer = None;
        true
    }

    /// Takes the next step at the target.
    pub fn step(&mut self, target: &mut SimGroup, clock: LeaderClock, dice: &mut Dice) {
        if !self.take_answer() || self.is_done() {
            return;
        }
        let (origin, group) = (self.cut.origin, self.cut.group);
        let (step, next, at) = match self.phase {
            Phase::Open => (StateStep::Open(self.cut.clone()), Phase::Rows, self.at.clone()),
            Phase::Rows if self.covers => {
                let (stretch, effects, at) = self.cover(dice);
                let ended = at.slot == self.stretches.len();
                let next = if ended { Phase::Close } else { Phase::Rows };
                (StateStep::Cover { origin, group, stretch, effects }, next, at)
            }
            Phase::Rows => {
                let (effects, at, ended) = self.rows(target, dice);
                let next = if ended { Phase::Close } else { Phase::Rows };
                let at = Place { at, ..self.at };
                (StateStep::Chunk { origin, group, effects }, next, at)
            }
            _ => (StateStep::Close { origin, group }, Phase::Done, self.at.clone()),
        };
        let request = StateRequest { target: target.context.group, id: self.id, step };
        if matches!(request.step, StateStep::Chunk { .. }) {
            self.sent.push(request.clone());
        }
        self.answer = Some((next, at, submit(target, clock, request)));
    }

    fn rows(&mut self, target: &SimGroup, dice: &mut Dice) -> (Vec<Bytes>, Resume, bool) {
        let now_ms = self.state.meta.clock.ms();
        if self.compares && self.wanted.is_none() {
            self.wanted = Some(self.compare(target));
        }
        let most = 1 + dice.roll(3);
        let (mut effects, mut at, mut ended) = (Vec::new(), self.at.at.clone(), true);
        for unit in Units::new(&self.state.rows, self.slots, &self.at.at, now_ms) {
            let unit = unit.expect("rows in memory can be read");
            let key = rows::key_hash(&unit.key);
            if self.wanted.as_ref().is_some_and(|wanted| !wanted.contains(&key)) {
                continue;
            }
            if effects.len() == most {
                ended = false;
                break;
            }
            at = unit.next;
            effects.push(rows::encode_effect(&unit.effect));
        }
        (effects, at, ended)
    }

    fn stretch(&self) -> Stretch {
        match self.stretches.get(self.at.slot) {
            Some(slot) => Stretch::of_slot(*slot),
            None => Stretch { from: Resume::at(self.slots), to: Resume::at(self.slots) },
        }
    }

    /// The next stretch, what stands there, and the place behind it.
    fn cover(&self, dice: &mut Dice) -> (Stretch, Vec<Bytes>, Place) {
        let whole = self.stretch();
        let from = self.at.at.clone();
        let Some(slot) = self.stretches.get(self.at.slot) else {
            let nowhere = Stretch { from: from.clone(), to: from };
            return (nowhere, Vec::new(), self.at.clone());
        };
        let slots = SlotRange { first: *slot, last: *slot };
        let most = 1 + dice.roll(3);
        let mut effects = Vec::new();
        for unit in Units::new(&self.state.rows, slots, &from, self.state.meta.clock.ms()) {
            let unit = unit.expect("rows in memory can be read");
            effects.push(rows::encode_effect(&unit.effect));
            if effects.len() == most {
                let at = Place { at: unit.next.clone(), slot: self.at.slot };
                return (Stretch { from, to: unit.next }, effects, at);
            }
        }
        let slot = self.at.slot + 1;
        let next =
            self.stretches.get(slot).map_or(from.clone(), |slot| Stretch::of_slot(*slot).from);
        (Stretch { from, to: whole.to }, effects, Place { at: next, slot })
    }

    /// Keys that differ, found as two clusters find them.
    fn compare(&self, target: &SimGroup) -> Vec<u64> {
        let readable = "rows in memory can be read";
        let theirs = rows::slot_states(&self.state.rows, self.slots).expect(readable);
        let ours = &target.state.rows;
        let slots = rows::differing_slots(ours, &theirs).expect(readable);
        let keys = slots.into_iter().map(|different| different.slot).flat_map(|slot| {
            let theirs = rows::key_states(&self.state.rows, slot).expect(readable);
            rows::differing_keys(ours, slot, &theirs).expect(readable)
        });
        keys.collect()
    }

    /// A chunk that was sent long ago arrives once more.
    pub fn repeat(&self, target: &mut SimGroup, clock: LeaderClock, dice: &mut Dice) {
        if !self.sent.is_empty() {
            let request = self.sent[dice.roll(self.sent.len())].clone();
            drop(submit(target, clock, request));
        }
    }
}

/// The slots of a range that any history uses.
fn stretches(slots: SlotRange) -> Vec<Slot> {
    let all = KEYS.iter().map(|key| Slot::of(key.as_bytes()));
    all.filter(|slot| slots.contains(*slot)).collect::<BTreeSet<_>>().into_iter().collect()
}

fn submit(
    target: &mut SimGroup,
    clock: LeaderClock,
    request: StateRequest,
) -> oneshot::Receiver<Answer<StateVerdict>> {
    let (answer, outcome) = oneshot::channel();
    target.submit(clock, Work::State { request, answer });
    outcome
}
