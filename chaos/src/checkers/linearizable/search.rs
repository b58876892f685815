//! The search: walks the calls and returns of one key in the order of time, takes operations out of
//! the list as it gives them a place, and goes back when it stands before the return of an
//! operation that has none.
//!
//! Invariants:
//! * The operations taken out, in the order of `taken`, are a sequential run of the model that ends
//!   in `state`.
//! * No operation is placed after its return: the walk never passes the return of an operation that
//!   is still in the list.
//! * A set of placed operations with a state that was reached once is not entered again.

use super::model::{Model, State};
use std::collections::HashSet;

/// What the search found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// An order that explains all answers.
    Order,
    /// There is none; the operation before whose return the longest attempts stood.
    NoOrder { stuck: usize },
    /// More steps than allowed.
    GaveUp,
}

/// Ends of the list of events; the events themselves are numbered from 1.
const HEAD: usize = 0;

struct Event {
    operation: usize,
    is_call: bool,
}

/// Calls and returns, linked in the order of time.
struct Events {
    events: Vec<Event>,
    next: Vec<usize>,
    previous: Vec<usize>,
    call_of: Vec<usize>,
    return_of: Vec<Option<usize>>,
}

impl Events {
    fn new(model: &Model) -> Events {
        // At equal times calls stand before returns: then the two operations overlap.
        let mut order: Vec<(u64, bool, usize)> = Vec::new();
        for (number, operation) in model.operations.iter().enumerate() {
            order.push((operation.invoked, false, number));
            order.extend(operation.returned.map(|at| (at, true, number)));
        }
        order.sort_unstable();
        let count = order.len() + 1;
        let mut events = Events {
            events: vec![Event { operation: usize::MAX, is_call: false }],
            next: (1..=count).map(|at| at % count).collect(),
            previous: (0..count).map(|at| (at + count - 1) % count).collect(),
            call_of: vec![HEAD; model.operations.len()],
            return_of: vec![None; model.operations.len()],
        };
        for (number, (_, is_return, operation)) in order.into_iter().enumerate() {
            if is_return {
                events.return_of[operation] = Some(number + 1);
            } else {
                events.call_of[operation] = number + 1;
            }
            events.events.push(Event { operation, is_call: !is_return });
        }
        events
    }

    fn take_out(&mut self, operation: usize) {
        self.unlink(self.call_of[operation]);
        if let Some(at) = self.return_of[operation] {
            self.unlink(at);
        }
    }

    /// Puts back the operation that was taken out last.
    fn put_back(&mut self, operation: usize) {
        if let Some(at) = self.return_of[operation] {
            self.relink(at);
        }
        self.relink(self.call_of[operation]);
    }

    fn unlink(&mut self, at: usize) {
        let (previous, next) = (self.previous[at], self.next[at]);
        (self.next[previous], self.previous[next]) = (next, previous);
    }

    fn relink(&mut self, at: usize) {
        let (previous, next) = (self.previous[at], self.next[at]);
        (self.next[previous], self.previous[next]) = (at, at);
    }
}

/// Which operations are placed.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Placed(Box<[u64]>);

impl Placed {
    fn contains(&self, operation: usize) -> bool {
        self.0[operation / 64] & (1 << (operation % 64)) != 0
    }

    fn flip(&mut self, operation: usize) {
        self.0[operation / 64] ^= 1 << (operation % 64);
    }
}

/// Searches an order of the model's operations.
pub(super) fn search(model: &Model, steps_max: u64) -> Found {
    let mut events = Events::new(model);
    let mut to_place = model.operations.iter().filter(|one| one.returned.is_some()).count();
    let mut placed = Placed(vec![0; model.operations.len() / 64 + 1].into());
    let mut seen: HashSet<(Placed, State)> = HashSet::new();
    let mut taken: Vec<(usize, State)> = Vec::new();
    let mut state = State::Absent;
    let mut at = events.next[HEAD];
    // How far the best attempt came, and before whose return it stood.
    let (mut farthest, mut stuck) = (0, 0);
    for _ in 0..steps_max {
        if to_place == 0 {
            return Found::Order;
        }
        // Behind the last return there is nothing that must be placed.
        let Event { operation, is_call } = events.events[at];
        if at != HEAD && is_call {
            let next = step(model, &state, operation, taken.last(), &placed);
            if let Some(next) = next.filter(|next| enter(operation, next, &mut placed, &mut seen)) {
                taken.push((operation, std::mem::replace(&mut state, next)));
                events.take_out(operation);
                to_place -= usize::from(model.operations[operation].returned.is_some());
                at = events.next[HEAD];
            } else {
                at = events.next[at];
            }
            continue;
        }
        if at != HEAD && taken.len() >= farthest {
            (farthest, stuck) = (taken.len(), operation);
        }
        let Some((last, before)) = taken.pop() else { return Found::NoOrder { stuck } };
        state = before;
        placed.flip(last);
        events.put_back(last);
        to_place += usize::from(model.operations[last].returned.is_some());
        at = events.next[events.call_of[last]];
    }
    Found::GaveUp
}

/// The state after an operation, when it fits here and placing it here is worth a try.
fn step(
    model: &Model,
    state: &State,
    operation: usize,
    last: Option<&(usize, State)>,
    placed: &Placed,
) -> Option<State> {
    let is_open = |operation: usize| model.operations[operation].returned.is_none();
    if model.operations[operation].twin.is_some_and(|twin| !placed.contains(twin)) {
        return None;
    }
    let next = model.step(state, operation)?;
    // It changes nothing and nobody waits for it.
    if is_open(operation) && next == *state {
        return None;
    }
    // The open operation before this one was placed in vain: without it all is the same, and it
    // remains for later. That road is tried too, so this one need not be.
    if let Some((last, before)) = last
        && is_open(*last)
        && model.step(before, operation).as_ref() == Some(&next)
    {
        return None;
    }
    Some(next)
}

/// Marks an operation as placed, unless that leads to where the search has been.
fn enter(
    operation: usize,
    next: &State,
    placed: &mut Placed,
    seen: &mut HashSet<(Placed, State)>,
) -> bool {
    placed.flip(operation);
    let new = seen.insert((placed.clone(), next.clone()));
    if !new {
        placed.flip(operation);
    }
    new
}
