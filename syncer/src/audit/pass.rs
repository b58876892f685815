//! One walk over slots of a group: which question comes next, and what was found. Pure: time and
//! answers are arguments.
//!
//! Slots that are equal at their first look are done. Others are kept and looked at again while the
//! walk goes on; how many is bounded by [`SUSPECTS_MAX`], above which no new stripe begins. Reading
//! takes at most one part in [`PACE`] of the time.

use super::rule::{Sides, Suspect, Verdict};
use super::stripe::{SLOTS_MAX, Width};
use flotilla_node::group::digest::Look;
use flotilla_node::group::digest::look::{BUCKETS_MAX, Cell, Cells};
use flotilla_topology::ids::ClusterId;
use flotilla_topology::slot::{Slot, SlotRange};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

/// After a look that took a second nothing is asked for so many, less one.
const PACE: u32 = 10;
/// Cells that are looked at again, about; no new ones are begun while there are more.
const SUSPECTS_MAX: usize = 8192;
/// Between two looks at a slot, as long as something changes; it doubles while nothing does.
const LOOK_PAUSE: Duration = Duration::from_millis(500);
/// Longest wait between two looks at a slot.
const LOOK_PAUSE_MAX: Duration = Duration::from_secs(8);
/// A slot is undecided after so long and so many looks on one level: a group without writes tells
/// every half minute how far it is.
const PATIENCE: Duration = Duration::from_secs(90);
const PATIENCE_LOOKS: u32 = 4;

/// How closely slots are looked at.
pub struct Level {
    /// Into how many buckets the keys of a slot fall.
    pub buckets: u16,
    /// Slots of one question, at most.
    pub slots: u16,
    /// A cell that was another one at so many looks never rests: it is cut into smaller ones, or
    /// left undecided.
    pub changes: u32,
}

/// From slots as a whole to buckets of a few keys.
pub const LEVELS: [Level; 3] = [
    Level { buckets: 1, slots: SLOTS_MAX, changes: 3 },
    Level { buckets: 64, slots: 64, changes: 4 },
    Level { buckets: BUCKETS_MAX, slots: 1, changes: 6 },
];

/// What both sides are to be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Question {
    /// Which cells.
    pub cells: Cells,
    /// Index into [`LEVELS`].
    level: usize,
    /// Slots that were not looked at in this pass before.
    fresh: bool,
}

/// What one group showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The slots that it carries.
    pub slots: SlotRange,
    /// It.
    pub look: Look,
}

/// What both sides showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The group time that they were asked for.
    pub at_ms: u64,
    /// Our group.
    pub ours: Vec<Part>,
    /// The groups of the peer that own the slots.
    pub theirs: Vec<Part>,
}

/// What was found of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Found {
    /// Both sides hold the same.
    Equal,
    /// They hold different things although nothing is under way.
    Different,
    /// It is written too often to tell, or one side has not seen what the other has.
    Undecided,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Ask both sides.
    Ask(Question),
    /// Nothing before this time.
    Wait(Instant),
    /// Every slot is decided.
    Done,
}

/// A slot that is looked at again.
struct Open {
    level: usize,
    /// Not looked at on this level yet.
    fresh: bool,
    /// By bucket, those that differed at every look so far.
    cells: BTreeMap<u16, Suspect>,
    /// Some bucket never rests.
    busy: bool,
    /// Looks on this level, ...
    looks: u32,
    /// ... and how many of the last ones showed nothing new.
    quiet: u32,
    due: Instant,
    began: Instant,
}

impl Open {
    fn new(level: usize, now: Instant) -> Open {
        let cells = BTreeMap::new();
        Open { level, fresh: true, cells, busy: false, looks: 0, quiet: 0, due: now, began: now }
    }
}

/// See the module's text.
pub struct Pass {
    clusters: (ClusterId, ClusterId),
    /// Slots that no stripe has come to yet.
    left: VecDeque<SlotRange>,
    width: Width,
    open: BTreeMap<Slot, Open>,
    seed: u64,
    ready: Instant,
}

impl Pass {
    /// Over these slots, by cluster `own` with cluster `peer`. With another seed other keys share a
    /// bucket.
    pub fn new(
        (own, peer): (ClusterId, ClusterId),
        slots: impl IntoIterator<Item = SlotRange>,
        seed: u64,
        now: Instant,
    ) -> Pass {
        Pass {
            clusters: (own, peer),
            left: slots.into_iter().collect(),
            width: Width::default(),
            open: BTreeMap::new(),
            seed,
            ready: now,
        }
    }

    /// What to do now.
    pub fn next(&self, now: Instant) -> Next {
        if self.left.is_empty() && self.open.is_empty() {
            return Next::Done;
        }
        if now < self.ready {
            return Next::Wait(self.ready);
        }
        let room = self.open.values().map(|open| open.cells.len()).sum::<usize>() < SUSPECTS_MAX;
        let may = |open: &Open| !open.fresh || room;
        let first = self.open.iter().find(|(_, open)| open.due <= now && may(open));
        if let Some((slot, open)) = first {
            return Next::Ask(self.again(*slot, open.level, now));
        }
        match self.left.front().filter(|_| room) {
            Some(range) => {
                let last = range.last.0.min(range.first.0.saturating_add(self.width.slots() - 1));
                let slots = SlotRange { first: range.first, last: Slot(last) };
                Next::Ask(Question { cells: Cells::slots(slots), level: 0, fresh: true })
            }
            // Whatever is open and may be looked at has a time; what may not waits for it to end.
            None => {
                let waiting = self.open.values().filter(|open| may(open));
                Next::Wait(waiting.map(|open| open.due).min().unwrap_or(now + LOOK_PAUSE))
            }
        }
    }

    /// From this slot to the last one of its level that is due and fits into a question.
    fn again(&self, first: Slot, level: usize, now: Instant) -> Question {
        let most = if level == 0 { self.width.slots() } else { LEVELS[level].slots };
        let end = Slot(first.0.saturating_add(most - 1));
        let due = self.open.range(first..=end).rev();
        let mut due = due.filter(|(_, open)| open.level == level && open.due <= now);
        let slots = SlotRange { first, last: due.next().map_or(first, |(slot, _)| *slot) };
        let cells = Cells { slots, buckets: LEVELS[level].buckets, seed: self.seed };
        Question { cells, level, fresh: false }
    }

    /// Takes what a question was answered, and how long that took. The error says why nothing can be
    /// concluded from the answer.
    pub fn answered(
        &mut self,
        question: &Question,
        seen: &Seen,
        took: Duration,
        now: Instant,
    ) -> Result<Vec<(Slot, Found)>, String> {
        self.ready = now + took * (PACE - 1);
        let slots = question.cells.slots;
        let mut decided = Vec::new();
        for slot in (slots.first.0..=slots.last.0).map(Slot) {
            if !question.fresh && self.open.get(&slot).is_none_or(|o| o.level != question.level) {
                continue;
            }
            let sides = self.sides(slot, seen)?;
            if let Some(reason) = sides.unfit() {
                return Err(reason);
            }
            let mut open = self.open.remove(&slot).unwrap_or_else(|| Open::new(0, now));
            match look(&mut open, slot, &sides, now) {
                Some(found) => decided.push((slot, found)),
                None => drop(self.open.insert(slot, open)),
            }
        }
        if question.fresh {
            self.walked(slots, seen);
        }
        Ok(decided)
    }

    /// The stripe is behind us; the next one is as wide as this one's rows allow.
    fn walked(&mut self, slots: SlotRange, seen: &Seen) {
        if let Some(range) = self.left.pop_front()
            && slots.last < range.last
        {
            let first = Slot(slots.last.0 + 1);
            self.left.push_front(SlotRange { first, last: range.last });
        }
        let rows = |parts: &[Part]| {
            let cells = parts.iter().flat_map(|part| part.look.cells.values());
            cells.map(|cell| cell.rows).fold(0, u64::saturating_add)
        };
        self.width = self.width.after(rows(&seen.ours).max(rows(&seen.theirs)));
    }

    fn sides<'s>(&self, slot: Slot, seen: &'s Seen) -> Result<Sides<'s>, String> {
        let of = |parts: &'s [Part], cluster| {
            let owner = parts.iter().find(|part| part.slots.contains(slot));
            let owner = owner.map(|part| (cluster, &part.look));
            owner.ok_or_else(|| format!("slot {slot} has no group in cluster {cluster}"))
        };
        let (own, peer) = self.clusters;
        let (ours, theirs) = (of(&seen.ours, own)?, of(&seen.theirs, peer)?);
        Ok(Sides { at_ms: seen.at_ms, ours, theirs })
    }
}

/// Looks at a slot once more; what was found, if that is decided.
fn look(open: &mut Open, slot: Slot, sides: &Sides<'_>, now: Instant) -> Option<Found> {
    let of = |look: &Look, bucket| look.cells.get(&(slot, bucket)).copied().unwrap_or_default();
    let held = |bucket| -> [Cell; 2] { [of(sides.ours.1, bucket), of(sides.theirs.1, bucket)] };
    let level = &LEVELS[open.level];
    let mut news = open.fresh;
    open.looks += 1;
    if open.fresh {
        open.began = now; // it may have waited for its turn
    }
    if std::mem::replace(&mut open.fresh, false) {
        let all = (slot, 0)..=(slot, u16::MAX);
        let buckets = |look: &Look| {
            look.cells.range(all.clone()).map(|((_, bucket), _)| *bucket).collect::<BTreeSet<_>>()
        };
        for bucket in buckets(sides.ours.1).union(&buckets(sides.theirs.1)) {
            let suspect = Suspect::of(held(*bucket), sides);
            open.cells.extend(suspect.map(|suspect| (*bucket, suspect)));
        }
    } else {
        let mut different = false;
        open.cells.retain(|bucket, suspect| match suspect.look(held(*bucket), sides) {
            Verdict::Equal => false,
            Verdict::Different => {
                different = true;
                true
            }
            Verdict::Same => true,
            Verdict::Changed => {
                news = true;
                open.busy |= suspect.changes >= level.changes;
                suspect.changes < level.changes
            }
        });
        if different {
            return Some(Found::Different);
        }
    }
    if open.cells.is_empty() {
        if !open.busy {
            return Some(Found::Equal);
        }
        if open.level + 1 == LEVELS.len() {
            return Some(Found::Undecided);
        }
        *open = Open::new(open.level + 1, now);
        return None;
    }
    if open.looks >= PATIENCE_LOOKS && now.duration_since(open.began) > PATIENCE {
        return Some(Found::Undecided);
    }
    open.quiet = if news { 0 } else { open.quiet + 1 };
    open.due = now + (LOOK_PAUSE * 2u32.pow(open.quiet.min(8))).min(LOOK_PAUSE_MAX);
    None
}
