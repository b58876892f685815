//! What two clusters compare to find out which rows must travel.
//!
//! A state digest covers everything that a join looks at, hidden or not: tombstones, floors, claims
//! and sums too. If two groups have the same digest of a stretch, joining one into the other changes
//! nothing there, so nothing of it needs to travel; if they differ only in what one of them has
//! collected already, the rows travel in vain and change nothing either. Counts and what was forgotten
//! are not covered: they are each cluster's own.
//!
//! The source says of its rows, stretch by stretch, what they sum to ([`states`]); the target finds the
//! stretches that sum to something else there ([`differing`]); of these the source names the keys
//! ([`key_states`]), and the target those that it wants ([`wanted_of`]). A stretch is a slot, or a part
//! of one that holds many rows, so that no step is larger for a large slot or a large key.

use crate::engine::view::Rows;
use crate::eval::Mix;
use crate::group::rows::{Resume, Stretch, Unit, Units};
use crate::model::{Effect, Head, encode_element, encode_head};
use bytes::Bytes;
use flotilla_topology::slot::{Slot, SlotRange};
use std::io;

/// Seed of state digests.
const SEED: u64 = 0x5374_6174;
/// Seed of the hashes that stand for keys.
const KEY_SEED: u64 = 0x4B65_7973;
/// Rows of its own that a target looks at to compare once, whatever it is told.
const LOOKS_MAX: u64 = 1 << 17;

/// How much the source looks at in one step.
#[derive(Debug, Clone, Copy)]
pub struct Step {
    /// Slots.
    pub slots: u16,
    /// Rows of one stretch: a slot with more has several.
    pub stretch_rows: u64,
    /// Rows in all.
    pub rows: u64,
    /// Bytes of them, and one row.
    pub bytes: usize,
}

impl Step {
    /// Some tens of milliseconds of a core.
    pub const USUAL: Step =
        Step { slots: 2048, stretch_rows: 4096, rows: 32 << 10, bytes: 32 << 20 };
}

/// What stands for a key in comparisons.
pub fn key_hash(key: &[u8]) -> u64 {
    let mut mix = Mix::new(KEY_SEED);
    mix.bytes(key);
    mix.finish()
}

/// What one row adds to a state digest, and its bytes.
fn row_digest(effect: &Effect) -> (u64, usize) {
    let mut mix = Mix::new(SEED);
    mix.bytes(effect.key());
    let value = match effect {
        Effect::Head { head, .. } => encode_head(&Head { forgotten: 0, ..head.clone() }),
        Effect::Element { ty, name, element, .. } => {
            mix.number(u64::from(ty.number()));
            mix.bytes(name);
            encode_element(element)
        }
    };
    mix.bytes(&value);
    (mix.finish(), effect.key().len() + value.len())
}

/// What each row of some slots adds to a state digest, with its slot and key, in order.
pub fn row_digests(
    rows: &dyn Rows,
    slots: SlotRange,
) -> impl Iterator<Item = io::Result<(Slot, Bytes, u64)>> + '_ {
    let units = Units::new(rows, slots, &Resume::at(slots), 0);
    units.map(|unit| unit.map(|Unit { slot, key, effect, .. }| (slot, key, row_digest(&effect).0)))
}

/// The state digest of a stretch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StretchState {
    /// Which.
    pub stretch: Stretch,
    /// Sum over its rows.
    pub sum: u64,
    /// How many these are.
    pub rows: u64,
}

/// State digests as far as one step came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct States {
    /// Of stretches, in order.
    pub states: Vec<StretchState>,
    /// What follows: a slot, or the rest of one; none at the end.
    pub next: Option<Stretch>,
}

/// Sums up rows, stretch by stretch.
struct Survey {
    told: Vec<StretchState>,
    now: StretchState,
    /// Tells of stretches without rows, too.
    all: bool,
}

impl Survey {
    fn new(first: Stretch, all: bool) -> Survey {
        Survey { told: Vec::new(), now: StretchState { stretch: first, sum: 0, rows: 0 }, all }
    }

    fn begin(&mut self, stretch: Stretch) {
        let ended = std::mem::replace(&mut self.now, StretchState { stretch, sum: 0, rows: 0 });
        if ended.rows > 0 || self.all {
            self.told.push(ended);
        }
    }

    fn come_to(&mut self, slot: Slot) {
        while self.now.stretch.slot < slot {
            self.begin(Stretch::of_slot(Slot(self.now.stretch.slot.0 + 1)));
        }
    }

    fn row(&mut self, slot: Slot, digest: u64) {
        self.come_to(slot);
        self.now.sum = self.now.sum.wrapping_add(digest);
        self.now.rows += 1;
    }

    /// Ends the stretch here; what is left of its slot comes next.
    fn cut(&mut self, place: Resume) {
        let slot = self.now.stretch.slot;
        self.now.stretch.to = Some(place.clone());
        self.begin(Stretch { slot, from: Some(place), to: None });
    }

    fn end(mut self, last: Slot) -> Vec<StretchState> {
        self.come_to(last);
        self.begin(Stretch::of_slot(last)); // it is not told
        self.told
    }
}

/// State digests of some slots from a place in the first of them on, as far as one step comes. Of what
/// holds no rows only if `all` is wanted.
pub fn states(
    rows: &dyn Rows,
    slots: SlotRange,
    from: Option<Resume>,
    all: bool,
    step: &Step,
) -> io::Result<States> {
    let last = Slot(slots.last.0.min(slots.first.0.saturating_add(step.slots - 1)));
    let within = SlotRange { first: slots.first, last };
    let first = Stretch { slot: slots.first, from, to: None };
    let begin = first.begin();
    let mut survey = Survey::new(first, all);
    let (mut looked, mut bytes) = (0, 0);
    for unit in Units::new(rows, within, &begin, 0) {
        let unit = unit?;
        let (digest, size) = row_digest(&unit.effect);
        survey.row(unit.slot, digest);
        (looked, bytes) = (looked + 1, bytes + size);
        let full = looked >= step.rows || bytes >= step.bytes;
        if full || survey.now.rows >= step.stretch_rows {
            survey.cut(unit.next);
        }
        if full {
            let Survey { told: states, now, .. } = survey;
            return Ok(States { states, next: Some(now.stretch) });
        }
    }
    let next = (last < slots.last).then(|| Stretch::of_slot(Slot(last.0 + 1)));
    Ok(States { states: survey.end(last), next })
}

/// A stretch whose state is another at the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Different {
    /// Its place among those that were told.
    pub at: usize,
    /// The target has nothing there: keys need not be compared.
    pub empty: bool,
}

/// Which stretches of `theirs` are another state here.
pub fn differing(rows: &dyn Rows, theirs: &[StretchState]) -> io::Result<Vec<Different>> {
    let mut different = Vec::new();
    let mut left = LOOKS_MAX;
    for (at, state) in theirs.iter().enumerate() {
        // One more than there are is enough to know.
        let most = state.rows.saturating_add(1);
        if most > left {
            different.push(Different { at, empty: false });
            continue;
        }
        let (mut sum, mut count) = (0u64, 0);
        for unit in Units::of(rows, &state.stretch, 0).take(most as usize) {
            sum = sum.wrapping_add(row_digest(&unit?.effect).0);
            count += 1;
        }
        left -= count;
        if (sum, count) != (state.sum, state.rows) {
            different.push(Different { at, empty: count == 0 });
        }
    }
    Ok(different)
}

/// The state digest of a key, as far as its rows are in a stretch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyState {
    /// Stands for the key.
    pub key: u64,
    /// Sum over its rows.
    pub sum: u64,
}

/// State digests of the keys of a stretch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StretchKeys {
    /// Which.
    pub stretch: Stretch,
    /// In the order of their hashes.
    pub keys: Vec<KeyState>,
}

/// State digests of the keys of a stretch in the order of their hashes; none if it holds more rows than
/// are left to be looked at. Each that is takes from these.
pub fn key_states(
    rows: &dyn Rows,
    stretch: &Stretch,
    left: &mut u64,
) -> io::Result<Option<Vec<KeyState>>> {
    let mut states: Vec<KeyState> = Vec::new();
    let mut last: Option<Bytes> = None;
    for unit in Units::of(rows, stretch, 0) {
        let unit = unit?;
        let Some(rest) = left.checked_sub(1) else { return Ok(None) };
        *left = rest;
        let (digest, _) = row_digest(&unit.effect);
        match states.last_mut().filter(|_| last.as_ref() == Some(&unit.key)) {
            Some(state) => state.sum = state.sum.wrapping_add(digest),
            None => states.push(KeyState { key: key_hash(&unit.key), sum: digest }),
        }
        last = Some(unit.key);
    }
    states.sort_unstable();
    Ok(Some(states))
}

/// Which rows of a stretch shall travel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Which.
    pub stretch: Stretch,
    /// Of these keys, by hash, in order; all if none.
    pub keys: Option<Vec<u64>>,
}

impl Wanted {
    /// All of a stretch.
    pub fn all(stretch: Stretch) -> Wanted {
        Wanted { stretch, keys: None }
    }

    /// Whether rows of a key are meant.
    pub fn has(&self, key: &[u8]) -> bool {
        self.keys.as_ref().is_none_or(|keys| keys.binary_search(&key_hash(key)).is_ok())
    }
}

/// What a target wants of stretches with these keys; nothing of those without a difference.
pub fn wanted_of(rows: &dyn Rows, theirs: &[StretchKeys]) -> io::Result<Vec<Wanted>> {
    let mut wanted = Vec::new();
    let mut left = LOOKS_MAX;
    for StretchKeys { stretch, keys } in theirs {
        let Some(ours) = key_states(rows, stretch, &mut left)? else {
            wanted.push(Wanted::all(stretch.clone()));
            continue;
        };
        let differs = |state: &&KeyState| ours.binary_search(state).is_err();
        let keys: Vec<u64> = keys.iter().filter(differs).map(|state| state.key).collect();
        if !keys.is_empty() {
            wanted.push(Wanted { stretch: stretch.clone(), keys: Some(keys) });
        }
    }
    Ok(wanted)
}

#[cfg(test)]
mod tests;
