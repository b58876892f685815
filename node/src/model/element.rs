//! One element: the value of a string or of a hash field, as a register and counter sums.

use super::floor::Floor;
use super::integer::{format_integer, parse_integer};
use crate::flaws::{self, Flaw};
use bytes::Bytes;
use flotilla_topology::ids::{ClusterId, Incarnation, Origin};
use flotilla_topology::stamp::Stamp;

/// A value under the stamp of the command that wrote it. Fields are in the order that decides
/// between equal stamps, which no two commands should ever have.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Register {
    /// When and where it was written.
    pub stamp: Stamp,
    /// The value; none when it was removed.
    pub value: Option<Bytes>,
}

/// What one cluster, in one of its lives, has added to a counter since `start`. The sum is
/// cumulative: the latest state says all, so states that were lost in between are not missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sum {
    /// Who counts here.
    pub slot: Origin,
    /// First command of this sum. A floor kills a sum by its start: its later stamps carry
    /// increments from before the delete.
    pub start: Stamp,
    /// Last command of this sum.
    pub stamp: Stamp,
    /// What they added. Wider than any value, so that it never wraps.
    pub sum: i128,
}

/// A register's memory of a sum that it has absorbed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reset {
    /// Whose sum.
    pub slot: Origin,
    /// The sum's stamp when it was absorbed.
    pub stamp: Stamp,
    /// The sum's amount when it was absorbed.
    pub sum: i128,
    /// The command that absorbed it.
    pub by: Stamp,
}

/// Nobody's sum: a reset of it is a removal for good, see [`Element::remove_for_good`].
const NOBODY: Origin = Origin { cluster: ClusterId(0), incarnation: Incarnation(0) };

impl Sum {
    /// The stamp by which a floor judges it.
    fn mark(&self) -> Stamp {
        if flaws::has(Flaw::SumByLast) { self.stamp } else { self.start }
    }

    fn rank(&self) -> (Stamp, Stamp, i128) {
        (self.stamp, self.start, self.sum)
    }
}

impl Reset {
    fn rank(&self) -> (Stamp, Stamp, i128) {
        (self.stamp, self.by, self.sum)
    }
}

/// A register, what it absorbed, and sums. `resets` and `sums` are sorted by slot, one per slot.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Element {
    /// The last value or removal.
    pub register: Option<Register>,
    /// Absorbed sums. Joined on their own, whichever register wins: a later register may come
    /// from a cluster that never saw the sum which an earlier one absorbed.
    pub resets: Vec<Reset>,
    /// Counter sums per cluster.
    pub sums: Vec<Sum>,
}

impl Element {
    /// An element with just a value.
    pub fn of(stamp: Stamp, value: Bytes) -> Element {
        let register = Some(Register { stamp, value: Some(value) });
        Element { register, resets: Vec::new(), sums: Vec::new() }
    }

    /// Whether nothing was ever written.
    pub fn is_empty(&self) -> bool {
        self.register.is_none() && self.resets.is_empty() && self.sums.is_empty()
    }

    /// The two states as one.
    pub fn join(self, other: Element) -> Element {
        let resets = match flaws::has(Flaw::ResetWithRegister) {
            false => join_by_slot(self.resets, other.resets, |r| r.slot, |r| r.rank()),
            true if self.register >= other.register => self.resets,
            true => other.resets,
        };
        Element {
            register: self.register.max(other.register),
            resets,
            sums: join_by_slot(self.sums, other.sums, |s| s.slot, |s| s.rank()),
        }
    }

    /// The register, if it is not hidden.
    fn counted(&self, floor: Floor) -> Option<&Register> {
        let register = self.register.as_ref().filter(|_| self.gone_for_good().is_none());
        register.filter(|register| !floor.hides(register.stamp))
    }

    /// Removes it so that no later write brings it back, whatever its stamp: only for elements whose
    /// names are never used again. A list's element is such; another cluster may set it without having
    /// seen that it was popped. No floor hides the removal, so it counts wherever it comes first or last.
    pub fn remove_for_good(&mut self, stamp: Stamp) {
        let gone = Reset { slot: NOBODY, stamp, sum: 0, by: stamp };
        self.resets.retain(|reset| reset.slot != NOBODY);
        self.resets.insert(0, gone); // the least of all slots
        self.register = Some(Register { stamp, value: None });
    }

    /// When it was removed for good.
    fn gone_for_good(&self) -> Option<Stamp> {
        self.resets.first().filter(|reset| reset.slot == NOBODY).map(|reset| reset.by)
    }

    /// What a sum adds on top of the register: none if it is hidden or wholly absorbed.
    fn contribution(&self, sum: &Sum, floor: Floor) -> Option<i128> {
        if floor.hides(sum.mark()) {
            return None;
        }
        match self.reset_of(sum.slot) {
            Some(reset) if sum.stamp <= reset.stamp => None,
            Some(reset) if sum.start <= reset.stamp => Some(sum.sum.saturating_sub(reset.sum)),
            _ => Some(sum.sum),
        }
    }

    fn reset_of(&self, slot: Origin) -> Option<&Reset> {
        self.resets.iter().find(|reset| reset.slot == slot)
    }

    /// All that contributes, or none if no sum does.
    fn contributions(&self, floor: Floor) -> Option<i128> {
        let each = self.sums.iter().filter_map(|sum| self.contribution(sum, floor));
        each.reduce(i128::saturating_add)
    }

    /// The value under `floor`. Sums do not count on a value that is no integer; past the range
    /// of an integer the value stays at the end of the range.
    pub fn value(&self, floor: Floor) -> Option<Bytes> {
        let value = self.counted(floor).and_then(|register| register.value.as_ref());
        let added = self.contributions(floor);
        match (value, added) {
            (None, None) => None,
            (Some(value), None) => Some(value.clone()),
            (None, Some(added)) => Some(format_integer(saturate(added))),
            (Some(value), Some(added)) => match parse_integer(value) {
                None => Some(value.clone()),
                Some(base) => {
                    Some(format_integer(saturate(added.saturating_add(i128::from(base)))))
                }
            },
        }
    }

    /// What the value under `floor` comes from: of each part the stamp by which a floor judges it, and
    /// its latest one.
    fn visible(&self, floor: Floor) -> impl Iterator<Item = (Stamp, Stamp)> {
        let register = self.counted(floor).filter(|register| register.value.is_some());
        let sums = self.sums.iter().filter(move |sum| self.contribution(sum, floor).is_some());
        let register = register.map(|register| (register.stamp, register.stamp));
        register.into_iter().chain(sums.map(|sum| (sum.mark(), sum.stamp)))
    }

    /// The register's value and its stamp, hidden or not, if it was not removed.
    pub fn last_value(&self) -> Option<(Stamp, &Bytes)> {
        let register = self.counted(Floor::NONE)?;
        Some((register.stamp, register.value.as_ref()?))
    }

    /// Whether it has a value under `floor`.
    pub fn exists(&self, floor: Floor) -> bool {
        self.visible(floor).next().is_some()
    }

    /// The latest stamp that the value under `floor` comes from.
    pub fn visible_stamp(&self, floor: Floor) -> Option<Stamp> {
        self.visible(floor).map(|(_, last)| last).max()
    }

    /// The earliest stamp that a floor would have to hide to change the value under `floor`.
    pub fn earliest_visible(&self, floor: Floor) -> Option<Stamp> {
        self.visible(floor).map(|(judged_by, _)| judged_by).min()
    }

    /// Writes `value` (or its removal) at `stamp`, over all sums now seen.
    pub fn write(&mut self, stamp: Stamp, value: Option<Bytes>) {
        let seen = self.sums.iter().map(|sum| Reset {
            slot: sum.slot,
            stamp: sum.stamp,
            sum: sum.sum,
            by: stamp,
        });
        let seen: Vec<Reset> = seen.collect();
        let resets = std::mem::take(&mut self.resets);
        self.resets = join_by_slot(resets, seen, |r| r.slot, |r| r.rank());
        self.register = Some(Register { stamp, value });
    }

    /// Adds to the own sum of `slot` at `stamp`. A sum that is hidden or absorbed starts anew,
    /// so that it carries nothing from before.
    pub fn add(&mut self, slot: Origin, stamp: Stamp, amount: i64, floor: Floor) {
        let amount = i128::from(amount);
        let at = self.sums.binary_search_by_key(&slot, |sum| sum.slot);
        let anew = Sum { slot, start: stamp, stamp, sum: amount };
        match at {
            Err(place) => self.sums.insert(place, anew),
            Ok(place) => {
                let old = self.sums[place];
                let goes_on = self.contribution(&old, floor).is_some();
                let sum = old.sum.saturating_add(amount);
                self.sums[place] = if goes_on { Sum { stamp, sum, ..old } } else { anew };
            }
        }
    }

    /// What is left of it in a cluster that comes back from a fence, next to the state of a cluster
    /// that went on: a value or a sum that they `had` once and do not have any more was deleted and
    /// forgotten there. An older state that they have is no sign of it: another cluster may have
    /// brought that back with it, and then it is what is left here too. Removals and resets stay. A
    /// sum that they do not have at all is judged by its start: going on with one that they have
    /// deleted would bring back what was deleted.
    pub fn next_to(&self, theirs: &Element, had: impl Fn(Stamp) -> bool) -> Element {
        let newest = theirs.register.as_ref().map_or(Stamp::ZERO, |register| register.stamp);
        let register = self.register.as_ref().filter(|register| {
            let removal = register.value.is_none() && !flaws::has(Flaw::CoverageOfAll);
            removal || register.stamp <= newest || !had(register.stamp)
        });
        let sums = self.sums.iter().filter(|sum| {
            match theirs.sums.iter().find(|other| other.slot == sum.slot) {
                Some(other) => sum.stamp <= other.stamp || !had(sum.stamp),
                None => !had(sum.start),
            }
        });
        let kept = Element {
            register: register.cloned(),
            resets: self.resets.clone(),
            sums: sums.copied().collect(),
        };
        if kept == *self { kept } else { kept.join(theirs.clone()) }
    }

    /// Forgets what a real floor hides for ever. A reset goes with the sums that it can concern:
    /// a sum that starts above it counts in full.
    pub fn trim(&mut self, floor: Floor) {
        if self.register.as_ref().is_some_and(|register| floor.hides(register.stamp)) {
            self.register = None;
        }
        self.resets.retain(|reset| reset.slot == NOBODY || !floor.hides(reset.stamp));
        self.sums.retain(|sum| !floor.hides(sum.mark()));
    }

    /// Whether a reset says nothing about the sum that is here: none is, it is wholly absorbed, or
    /// it began anew behind the reset.
    fn is_spent(&self, reset: &Reset) -> bool {
        let sum = self.sums.iter().find(|sum| sum.slot == reset.slot);
        sum.is_none_or(|sum| sum.stamp <= reset.stamp || sum.start > reset.stamp)
    }

    fn is_absorbed(&self, sum: &Sum) -> bool {
        self.reset_of(sum.slot).is_some_and(|reset| sum.stamp <= reset.stamp)
    }

    /// The removal that the register is, if no sum has begun on top of it.
    fn removal(&self) -> Option<Stamp> {
        let gone = self.register.as_ref().filter(|register| register.value.is_none())?;
        self.sums.iter().all(|sum| self.is_absorbed(sum)).then_some(gone.stamp)
    }

    /// The latest stamp of what in it waits to be collected: a removal, and what a register has
    /// absorbed. None if nothing does.
    pub fn garbage(&self) -> Option<Stamp> {
        let spent = self.resets.iter().filter(|reset| self.is_spent(reset));
        self.removal().into_iter().chain(spent.map(|reset| reset.by)).max()
    }

    /// Forgets what no cluster can need any more; `stable` says of a stamp whether all live
    /// clusters have said that they have it. A removal goes with everything that it hides; a value
    /// only loses the sums that it has absorbed, and its memory of them.
    pub fn collect(&mut self, stable: impl Fn(Stamp) -> bool) {
        if self.gone_for_good().is_some_and(&stable) {
            *self = Element::default();
            return;
        }
        let asked = |reset: &Reset| flaws::has(Flaw::ResetUnasked) || stable(reset.by);
        if self.gone_for_good().is_none()
            && self.removal().is_some_and(&stable)
            && self.resets.iter().all(asked)
        {
            *self = Element::default();
            return;
        }
        let settled = |reset: &&Reset| reset.slot != NOBODY && asked(reset) && self.is_spent(reset);
        let settled: Vec<Reset> = self.resets.iter().filter(settled).copied().collect();
        if settled.is_empty() {
            return;
        }
        let goes = |sum: &Sum| settled.iter().any(|r| r.slot == sum.slot && sum.stamp <= r.stamp);
        self.sums.retain(|sum| !goes(sum));
        self.resets.retain(|reset| !settled.contains(reset));
    }

    /// The highest stamp in it.
    pub fn max_stamp(&self) -> Stamp {
        let register = self.register.iter().map(|register| register.stamp);
        let sums = self.sums.iter().map(|sum| sum.stamp);
        let resets = self.resets.iter().map(|reset| reset.by.max(reset.stamp));
        register.chain(sums).chain(resets).max().unwrap_or(Stamp::ZERO)
    }
}

fn saturate(value: i128) -> i64 {
    value.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64
}

/// Of two lists sorted by slot, the greater rank per slot.
fn join_by_slot<T: Copy, R: Ord>(
    a: Vec<T>,
    b: Vec<T>,
    slot: fn(&T) -> Origin,
    rank: fn(&T) -> R,
) -> Vec<T> {
    if b.is_empty() {
        return a;
    }
    let mut joined = a;
    for item in b {
        match joined.binary_search_by_key(&slot(&item), slot) {
            Err(place) => joined.insert(place, item),
            Ok(place) if rank(&item) > rank(&joined[place]) => joined[place] = item,
            Ok(_) => {}
        }
    }
    joined
}
