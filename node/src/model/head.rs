//! The head of a key: type claim, delete floor, expiry, and the element of a string.

use super::element::Element;
use super::floor::Floor;
use super::{Type, expiry_stamp};
use crate::flaws::{self, Flaw};
use flotilla_topology::stamp::Stamp;

/// The highest stamp of a value write, and the type it wrote. Ordered by stamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Claim {
    /// Of the latest value write.
    pub stamp: Stamp,
    /// What it wrote.
    pub ty: Type,
}

/// When a key ends: a register of its own. Fields are in the order that decides between equal
/// stamps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Expiry {
    /// When and where it was set.
    pub stamp: Stamp,
    /// The type of the key it was set on; it is void for another.
    pub ty: Type,
    /// The end in milliseconds since 1970; 0 is never.
    pub at: u64,
    /// The passed end that this register replaced, or that one's own; else 0. What had ended then
    /// stays hidden, though the register that hid it is gone.
    pub low: u64,
}

/// How many elements are visible: each cluster's own upkeep, never joined or shipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count {
    /// Visible elements.
    pub live: u64,
    /// The floor under which they were counted; under any other the number means nothing.
    pub under: Floor,
}

/// All of a key that is not an element row.
///
/// What was written before an end that has passed is collected, and then the expiry itself, once every
/// live cluster has seen it. Others may be slower: they still hold those rows, hidden by the expiry,
/// which any later one replaces. So a later one must go on hiding what this cluster does not have
/// any more, and `forgotten` remembers up to when that may be.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Head {
    /// What type the key has.
    pub claim: Option<Claim>,
    /// The delete floor.
    pub floor: Floor,
    /// When the key ends.
    pub expiry: Option<Expiry>,
    /// The value, if the type is string.
    pub string: Element,
    /// How many elements there are, if the type has elements.
    pub count: Option<Count>,
    /// Milliseconds since 1970: whatever of this key was stamped before and is not here any more was
    /// hidden by an end, and must stay hidden elsewhere too. 0 if nothing was forgotten that the
    /// floor does not hide. Each cluster's own memory: full states carry it, logs do not.
    pub forgotten: u64,
}

impl Head {
    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        *self == Head::default()
    }

    /// The type of the key, visible or not.
    pub fn ty(&self) -> Option<Type> {
        self.claim.map(|claim| claim.ty)
    }

    /// The expiry, unless it was set on another type or before a delete.
    pub fn standing_expiry(&self) -> Option<&Expiry> {
        let ty = self.ty()?;
        self.expiry.as_ref().filter(|e| e.ty == ty && !self.floor.hides(e.stamp))
    }

    /// The floor at time `ms`: the stored one, or a passed expiry above it.
    pub fn floor_at(&self, ms: u64) -> Floor {
        let Some(expiry) = self.standing_expiry() else { return self.floor };
        let passed = if expiry.at != 0 && expiry.at <= ms { expiry.at } else { 0 };
        let derived = match passed.max(expiry.low) {
            0 => Floor::NONE,
            end => Floor::below(expiry_stamp(end)),
        };
        self.floor.max(derived)
    }

    /// When the key will end, seen at time `ms`. An expiry that has passed hides itself too: what
    /// was written after it has none.
    pub fn deadline(&self, ms: u64) -> Option<u64> {
        let floor = self.floor_at(ms);
        let expiry = self.standing_expiry().filter(|e| !floor.hides(e.stamp))?;
        (expiry.at > ms).then_some(expiry.at)
    }

    /// Whether the key ends between `applied_ms` (excluded) and `ms`: readers at `ms` see an end
    /// that the log does not know yet.
    pub fn due(&self, applied_ms: u64, ms: u64) -> bool {
        self.standing_expiry().is_some_and(|e| e.at > applied_ms && e.at <= ms)
    }

    /// The end that a new expiry register at time `ms` must go on hiding.
    pub fn low(&self, ms: u64) -> u64 {
        let forgotten = if flaws::has(Flaw::LowForgotten) { 0 } else { self.unhidden_forgotten() };
        let Some(expiry) = self.standing_expiry() else { return forgotten };
        if flaws::has(Flaw::NoLow) {
            return 0;
        }
        let passed = if expiry.at <= ms { expiry.at } else { 0 };
        passed.max(expiry.low).max(forgotten)
    }

    /// What was forgotten, unless the floor hides it: that one is nowhere taken back.
    fn unhidden_forgotten(&self) -> u64 {
        let covered = Floor::below(expiry_stamp(self.forgotten)) <= self.floor;
        if covered { 0 } else { self.forgotten }
    }

    /// A value that stands for all to see was stamped so. No end that was collected can have hidden it,
    /// and no later one may: a cluster that comes back from a fence brings what it wrote while the
    /// others did not wait for it, to keys of which they know no more than that some end has passed.
    pub fn forgot_nothing_since(&mut self, stamp: Stamp) {
        self.forgotten = self.forgotten.min(stamp.hlc.ms());
    }

    /// An end is collected, and what it hid.
    pub fn forget(&mut self, end: u64) {
        self.forgotten = self.forgotten.max(end);
    }

    /// The number of elements at time `ms`, if it is known without counting.
    pub fn known_count(&self, ms: u64) -> Option<u64> {
        let floor = self.floor_at(ms);
        match (self.claim, self.count) {
            (None, _) => Some(0),
            // No value write is later than the claim, so everything is hidden.
            (Some(claim), _) if floor.hides(claim.stamp) => Some(0),
            (_, Some(count)) if count.under == floor => Some(count.live),
            _ => None,
        }
    }

    /// The two states as one; the count stays this side's.
    pub fn join(mut self, other: Head) -> Head {
        self.floor = self.floor.max(other.floor);
        if let Some(claim) = other.claim {
            self.join_claim(claim);
        }
        self.expiry = self.expiry.max(other.expiry);
        self.string = self.string.join(other.string);
        self.forget(other.forgotten);
        self
    }

    /// The later claim decides the type. What the losing type wrote up to its claim is deleted,
    /// or rows that nobody sees could neither be reclaimed nor stay hidden for good.
    pub fn join_claim(&mut self, claim: Claim) {
        let Some(mine) = self.claim else {
            self.claim = Some(claim);
            return;
        };
        if mine.ty != claim.ty {
            self.floor = self.floor.max(Floor::through(mine.min(claim).stamp));
        }
        self.claim = Some(mine.max(claim));
    }

    /// Forgets what the stored floor hides for ever: it is in the same row, so this costs nothing.
    /// Never by a passed expiry, which may yet be replaced.
    pub fn trim(&mut self) {
        let floor = self.floor;
        if floor.is_none() {
            return;
        }
        self.forgotten = self.unhidden_forgotten();
        self.expiry = self.expiry.filter(|expiry| !floor.hides(expiry.stamp));
        self.string.trim(floor);
    }

    /// The latest stamp of what in it waits to be collected, or makes rows wait: a floor, an expiry
    /// that was taken back, what the string has absorbed, the claim of a string that is not there. None
    /// if nothing does. The floor that every overwrite of a string leaves under the string's own stamp
    /// costs nothing and stays.
    pub fn garbage(&self) -> Option<Stamp> {
        let claim = self.claim.map_or(Stamp::ZERO, |claim| claim.stamp);
        let string = self.ty() == Some(Type::String);
        let dead = string && self.string.is_empty() && !claim.is_zero();
        let floor = match self.floor {
            floor if dead => Some(floor.stamp.max(claim)),
            floor if floor.is_none() => None,
            floor if floor.hides(claim) || claim.is_zero() => Some(floor.stamp.max(claim)),
            floor if string && floor == Floor::below(claim) => None,
            floor => Some(floor.stamp),
        };
        let void = self.expiry.filter(|expiry| expiry.at == 0);
        let void = void.map(|expiry| expiry.stamp.max(expiry_stamp(expiry.low)));
        floor.max(void).max(self.string.garbage())
    }

    /// Whether nothing is left but the claim, and what the group remembers too.
    pub fn is_bare(&self) -> bool {
        self.floor.is_none() && self.expiry.is_none() && self.string.is_empty()
    }

    /// The highest stamp in it.
    pub fn max_stamp(&self) -> Stamp {
        let claim = self.claim.map_or(Stamp::ZERO, |claim| claim.stamp);
        let expiry = self.expiry.map_or(Stamp::ZERO, |expiry| expiry.stamp);
        claim.max(expiry).max(self.floor.stamp).max(self.string.max_stamp())
    }
}
