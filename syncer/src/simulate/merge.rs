//! Full-state merges of the simulation: rows of a cut, from the leading or a lagging replica, chunk
//! by chunk into one target group, while everything else goes on.

use super::dice::Dice;
use super::group::{Replica, SimGroup};
use bytes::Bytes;
use flotilla_node::engine::view::{Overlay, View};
use flotilla_node::group::cursor::{self, closed_vector};
use flotilla_node::group::forgotten;
use flotilla_node::group::leader::{LeaderClock, Work};
use flotilla_node::group::remote::Answer;
use flotilla_node::group::rows::{self, Resume, Units};
use flotilla_node::group::state::{StateCut, StateRequest, StateStep, StateVerdict};
use flotilla_topology::slot::SlotRange;
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
    at: Resume,
    /// Keys that both have alike are left out.
    compares: bool,
    wanted: Option<Vec<u64>>,
    /// Chunks that were sent, for those that arrive late.
    sent: Vec<StateRequest>,
    answer: Option<(Phase, Resume, oneshot::Receiver<Answer<StateVerdict>>)>,
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
        let cursors = cursor::read_all(&state.rows).expect("rows in memory can be read");
        let mut overlay = Overlay::new();
        let view = View::new(&state.rows, &mut overlay);
        let forgotten_ms = forgotten::read(&view).expect("rows in memory can be read");
        let cut = StateCut {
            origin: context.origin,
            group: context.group,
            slots: context.slots,
            position: state.meta.applied,
            fence: state.meta.fence,
            closed: state.meta.own,
            vector: closed_vector(&cursors, context.slots),
            forgotten_ms,
        };
        let slots = SlotRange {
            first: slots.first.max(context.slots.first),
            last: slots.last.min(context.slots.last),
        };
        Some(Merge {
            to: target,
            cut,
            state,
            slots,
            id,
            phase: Phase::Open,
            at: Resume::at(slots),
            compares: dice.chance(50),
            wanted: None,
            sent: Vec::new(),
            answer: None,
        })
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
                (self.phase, self.at) = (*phase, at.clone());
            }
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
            Phase::Rows => {
                let (effects, at, ended) = self.rows(target, dice);
                let next = if ended { Phase::Close } else { Phase::Rows };
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
        let (mut effects, mut at, mut ended) = (Vec::new(), self.at.clone(), true);
        for unit in Units::new(&self.state.rows, self.slots, &self.at, now_ms) {
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

    /// Keys that differ, found as two clusters find them.
    fn compare(&self, target: &SimGroup) -> Vec<u64> {
        let readable = "rows in memory can be read";
        let theirs = rows::slot_states(&self.state.rows, self.slots).expect(readable);
        let ours = &target.state.rows;
        let slots = rows::differing_slots(ours, &theirs).expect(readable);
        let keys = slots.into_iter().flat_map(|slot| {
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

fn submit(
    target: &mut SimGroup,
    clock: LeaderClock,
    request: StateRequest,
) -> oneshot::Receiver<Answer<StateVerdict>> {
    let (answer, outcome) = oneshot::channel();
    target.submit(clock, Work::State { request, answer });
    outcome
}
