//! Full-state merges of the simulation: rows of a cut, from the leading or a lagging replica, chunk
//! by chunk into one target group, while everything else goes on.

use super::commands::KEYS;
use super::dice::Dice;
use super::group::{Replica, SimGroup};
use flotilla_node::group::compare::{self, Step, StretchKeys, Wanted};
use flotilla_node::group::leader::{LeaderClock, Work};
use flotilla_node::group::remote::Answer;
use flotilla_node::group::rows::{self, Resume, Stretch, StretchRows, Units};
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
    id: u64,
    phase: Phase,
    /// Keys that both have alike are left out.
    compares: bool,
    left: Left,
    /// Chunks that were sent, for those that arrive late.
    sent: Vec<StateRequest>,
    answer: Option<Awaited>,
    /// The target covers: it is given all stretches of the slots.
    covers: bool,
    closed: bool,
}

/// What a merge has still to do, both from the end.
#[derive(Debug, Clone, Default)]
struct Left {
    /// Slots that were not compared yet.
    slots: Vec<Slot>,
    /// What the target shall be given of those that were.
    wanted: Vec<Wanted>,
}

impl Left {
    fn is_empty(&self) -> bool {
        self.slots.is_empty() && self.wanted.is_empty()
    }
}

/// A step whose answer has not come yet.
struct Awaited {
    /// Where the merge is once the step is done.
    phase: Phase,
    /// What is left then.
    left: Left,
    /// The stretches of the step.
    rows: Vec<Stretch>,
    answer: oneshot::Receiver<Answer<StateVerdict>>,
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
            id,
            phase: Phase::Open,
            compares: dice.chance(50),
            left: Left { slots: slots_in_use(slots), wanted: Vec::new() },
            sent: Vec::new(),
            answer: None,
            covers: false,
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
        let Some(mut awaited) = self.answer.take() else { return true };
        match awaited.answer.try_recv() {
            Ok(Answer::Done(verdict @ (StateVerdict::Done | StateVerdict::Covers))) => {
                self.closed = self.phase == Phase::Close;
                self.covers |= verdict == StateVerdict::Covers;
                (self.phase, self.left) = (awaited.phase, awaited.left);
            }
            Ok(Answer::Done(StateVerdict::More { done, from })) => self.go_on(&awaited, done, from),
            Ok(Answer::Done(StateVerdict::Parked { .. }) | Answer::NotLeader(_)) => {}
            Ok(_) => self.phase = Phase::Done, // an older cut, another merge, or refused: given up
            Err(oneshot::error::TryRecvError::Empty) => {
                self.answer = Some(awaited);
                return false;
            }
            Err(oneshot::error::TryRecvError::Closed) => {} // lost with its leader: once more
        }
        true
    }

    /// What is left to be covered once `done` stretches of a step are, and the next one up to `from`.
    fn go_on(&mut self, awaited: &Awaited, done: usize, from: Resume) {
        let mut left = awaited.left.clone();
        let again = awaited.rows[done..].iter().rev().cloned();
        left.wanted.extend(again.map(Wanted::all));
        if let Some(next) = left.wanted.last_mut() {
            next.stretch.from = Some(from);
        }
        (self.phase, self.left) = (Phase::Rows, left);
    }

    /// Takes the next step at the target.
    pub fn step(&mut self, target: &mut SimGroup, clock: LeaderClock, dice: &mut Dice) {
        if !self.take_answer() || self.is_done() {
            return;
        }
        let (origin, group) = (self.cut.origin, self.cut.group);
        let (mut stretches, mut left) = (Vec::new(), self.left.clone());
        let (step, phase) = match self.phase {
            Phase::Open => (StateStep::Open(self.cut.clone()), Phase::Rows),
            Phase::Rows => {
                let rows = self.rows(&mut left, target, dice);
                let phase = if left.is_empty() { Phase::Close } else { Phase::Rows };
                stretches = rows.iter().map(|one| one.stretch.clone()).collect();
                (self.carry(rows), phase)
            }
            _ => (StateStep::Close { origin, group }, Phase::Done),
        };
        let request = StateRequest { target: target.context.group, id: self.id, step };
        if matches!(request.step, StateStep::Chunk { .. }) {
            self.sent.push(request.clone());
        }
        let answer = submit(target, clock, request);
        self.answer = Some(Awaited { phase, left, rows: stretches, answer });
    }

    fn carry(&self, rows: Vec<StretchRows>) -> StateStep {
        let (origin, group) = (self.cut.origin, self.cut.group);
        if self.covers {
            return StateStep::Cover { origin, group, rows };
        }
        let effects = rows.into_iter().flat_map(|one| one.effects).collect();
        StateStep::Chunk { origin, group, effects }
    }

    /// Rows for one step, of what is left.
    fn rows(&self, left: &mut Left, target: &SimGroup, dice: &mut Dice) -> Vec<StretchRows> {
        if left.wanted.is_empty() {
            // As many slots as a call compares: of one that comes late the target knows more by then.
            let slots = left.slots.len() - left.slots.len().min(1 + dice.roll(3));
            left.wanted = self.find_wanted(left.slots.split_off(slots), target, dice);
        }
        let (mut rows, mut most) = (Vec::new(), 1 + dice.roll(4));
        while most > 0
            && let Some(mut want) = left.wanted.pop()
        {
            let mut stretch = want.stretch.clone();
            let mut effects = Vec::new();
            for unit in Units::of(&self.state.rows, &stretch, self.state.meta.clock.ms()) {
                let unit = unit.expect("rows in memory can be read");
                if !want.has(&unit.key) {
                    continue;
                }
                effects.push(rows::encode_effect(&unit.effect));
                most -= 1;
                if most == 0 {
                    stretch.to = Some(unit.next.clone());
                    want.stretch.from = Some(unit.next);
                    left.wanted.push(want);
                    break;
                }
            }
            rows.push(StretchRows { stretch, effects });
        }
        rows
    }

    /// What the target shall be given of these slots, the next of it last: found as two clusters find
    /// it, in steps of any size, or just everything.
    fn find_wanted(&self, slots: Vec<Slot>, target: &SimGroup, dice: &mut Dice) -> Vec<Wanted> {
        let readable = "rows in memory can be read";
        let (theirs, ours) = (&self.state.rows, &target.state.rows);
        let of = |slot: Slot| SlotRange { first: slot, last: slot };
        let (stretch_rows, rows) = (1 + dice.roll(4) as u64, 1 + dice.roll(8) as u64);
        let step = Step { stretch_rows, rows, ..Step::USUAL };
        let mut wanted = Vec::new();
        for slot in slots.into_iter().rev() {
            if !self.compares {
                wanted.push(Wanted::all(Stretch::of_slot(slot)));
                continue;
            }
            let (mut from, mut states) = (None, Vec::new());
            loop {
                let told = compare::states(theirs, of(slot), from, self.covers, &step);
                let told = told.expect(readable);
                states.extend(told.states);
                let Some(next) = told.next else { break };
                from = next.from;
            }
            for different in compare::differing(ours, &states).expect(readable) {
                let stretch = states[different.at].stretch.clone();
                if different.empty || self.covers {
                    wanted.push(Wanted::all(stretch));
                    continue;
                }
                let mut all = u64::MAX;
                let keys = compare::key_states(theirs, &stretch, &mut all).expect(readable);
                let keys = StretchKeys { stretch, keys: keys.unwrap_or_default() };
                wanted.extend(compare::wanted_of(ours, &[keys]).expect(readable));
            }
        }
        wanted.reverse();
        wanted
    }

    /// A chunk that was sent long ago arrives once more.
    pub fn repeat(&self, target: &mut SimGroup, clock: LeaderClock, dice: &mut Dice) {
        if !self.sent.is_empty() {
            let request = self.sent[dice.roll(self.sent.len())].clone();
            drop(submit(target, clock, request));
        }
    }
}

/// The slots of a range that any history uses, the first last.
fn slots_in_use(slots: SlotRange) -> Vec<Slot> {
    let all = KEYS.iter().map(|key| Slot::of(key.as_bytes()));
    all.filter(|slot| slots.contains(*slot)).collect::<BTreeSet<_>>().into_iter().rev().collect()
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
