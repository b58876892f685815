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
    slots: SlotRange,
    id: u64,
    phase: Phase,
    /// Keys that both have alike are left out.
    compares: bool,
    /// What is still to be sent, from the end; not known before the first rows are.
    wanted: Option<Vec<Wanted>>,
    /// Chunks that were sent, for those that arrive late.
    sent: Vec<StateRequest>,
    answer: Option<Awaited>,
    /// The target covers: it is given all stretches of the slots.
    covers: bool,
    closed: bool,
}

/// A step whose answer has not come yet.
struct Awaited {
    /// Where the merge is once the step is done.
    phase: Phase,
    /// What is left to be sent then.
    wanted: Option<Vec<Wanted>>,
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
            slots,
            id,
            phase: Phase::Open,
            compares: dice.chance(50),
            wanted: None,
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
                (self.phase, self.wanted) = (awaited.phase, awaited.wanted);
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
        let mut wanted = awaited.wanted.clone().unwrap_or_default();
        let left = awaited.rows[done..].iter().rev().cloned();
        wanted.extend(left.map(Wanted::all));
        if let Some(next) = wanted.last_mut() {
            next.stretch.from = Some(from);
        }
        (self.phase, self.wanted) = (Phase::Rows, Some(wanted));
    }

    /// Takes the next step at the target.
    pub fn step(&mut self, target: &mut SimGroup, clock: LeaderClock, dice: &mut Dice) {
        if !self.take_answer() || self.is_done() {
            return;
        }
        let (origin, group) = (self.cut.origin, self.cut.group);
        let (mut stretches, mut wanted) = (Vec::new(), None);
        let (step, phase) = match self.phase {
            Phase::Open => (StateStep::Open(self.cut.clone()), Phase::Rows),
            Phase::Rows => {
                let (rows, left) = self.rows(target, dice);
                let phase = if left.is_empty() { Phase::Close } else { Phase::Rows };
                stretches = rows.iter().map(|one| one.stretch.clone()).collect();
                wanted = Some(left);
                (self.carry(rows), phase)
            }
            _ => (StateStep::Close { origin, group }, Phase::Done),
        };
        let request = StateRequest { target: target.context.group, id: self.id, step };
        if matches!(request.step, StateStep::Chunk { .. }) {
            self.sent.push(request.clone());
        }
        let answer = submit(target, clock, request);
        self.answer = Some(Awaited { phase, wanted, rows: stretches, answer });
    }

    fn carry(&self, rows: Vec<StretchRows>) -> StateStep {
        let (origin, group) = (self.cut.origin, self.cut.group);
        if self.covers {
            return StateStep::Cover { origin, group, rows };
        }
        let effects = rows.into_iter().flat_map(|one| one.effects).collect();
        StateStep::Chunk { origin, group, effects }
    }

    /// Rows for one step, and what is wanted after it.
    fn rows(&mut self, target: &SimGroup, dice: &mut Dice) -> (Vec<StretchRows>, Vec<Wanted>) {
        if self.wanted.is_none() {
            self.wanted = Some(self.find_wanted(target, dice));
        }
        let mut left = self.wanted.clone().unwrap_or_default();
        let (mut rows, mut most) = (Vec::new(), 1 + dice.roll(4));
        while most > 0
            && let Some(mut want) = left.pop()
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
                    left.push(want);
                    break;
                }
            }
            rows.push(StretchRows { stretch, effects });
        }
        (rows, left)
    }

    /// What the target shall be given, the next of it last: found as two clusters find it, in steps
    /// of any size, or just everything.
    fn find_wanted(&self, target: &SimGroup, dice: &mut Dice) -> Vec<Wanted> {
        let readable = "rows in memory can be read";
        let (theirs, ours) = (&self.state.rows, &target.state.rows);
        let of = |slot: Slot| SlotRange { first: slot, last: slot };
        let (stretch_rows, rows) = (1 + dice.roll(4) as u64, 1 + dice.roll(8) as u64);
        let step = Step { stretch_rows, rows, ..Step::USUAL };
        let mut wanted = Vec::new();
        for slot in slots_in_use(self.slots) {
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

/// The slots of a range that any history uses, in order.
fn slots_in_use(slots: SlotRange) -> Vec<Slot> {
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
