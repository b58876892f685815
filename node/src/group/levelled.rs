//! What the clusters that go on had of one that they fence: each has a part of what it sent last.
//!
//! They merge their full states into each other, cut after they took nothing of it any more. Then each
//! has what any of them had, and may say so: otherwise what the fenced one wrote last could never be
//! collected, and when it comes back, what was deleted of it meanwhile would be taken for new. Until
//! a group has all these states the fenced cluster counts there as if it were live.

use crate::codec::{DecodeError, Decoder, Encoder, unseal};
use crate::engine::keys;
use crate::engine::view::View;
use crate::flaws::{self, Flaw};
use crate::group::cursor::{Cursor, SourceGroup};
use crate::group::life::{put_ranges, take_ranges};
use crate::group::live::LiveSet;
use crate::group::state::{Heard, StateCut};
use crate::model::Parts;
use bytes::Bytes;
use flotilla_topology::ids::{ClusterId, GroupId, Incarnation, LogId, Origin};
use flotilla_topology::slot::{Slot, SlotRange};
use flotilla_topology::stamp::Stamp;
use std::collections::{BTreeMap, BTreeSet};
use std::io;

const LEVELLED_VERSION: u8 = 1;
/// Groups that have told of one fenced group: they share slots with this group.
const TOLD_MAX: usize = 1 << 16;

/// What groups of live clusters had of one group of a fenced cluster: in which slots, up to when.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Levelled(pub(super) BTreeMap<SourceGroup, (SlotRange, Stamp)>);

impl Levelled {
    pub(super) fn encode(&self) -> Bytes {
        let mut out = Encoder::new();
        out.put_u8(LEVELLED_VERSION);
        out.put_varint(self.0.len() as u64);
        for ((origin, group), (slots, closed)) in &self.0 {
            out.put_origin(*origin);
            out.put_group(*group);
            out.put_slots(*slots);
            out.put_stamp(*closed);
        }
        out.seal(0);
        out.into_bytes()
    }

    pub(super) fn decode(value: &[u8]) -> Result<Levelled, DecodeError> {
        let mut input = Decoder::new(unseal(value)?);
        input.version(LEVELLED_VERSION)?;
        let mut told = BTreeMap::new();
        for _ in 0..input.count(TOLD_MAX, 1)? {
            let source: (Origin, GroupId) = (input.origin()?, input.group()?);
            told.insert(source, (input.slots()?, input.stamp()?));
        }
        input.finish()?;
        Ok(Levelled(told))
    }

    /// Up to when all of `slots` is here: in each slot what the best has, of all slots the least.
    fn closed(&self, slots: SlotRange) -> Stamp {
        let ends = self.0.values().map(|(told, _)| told.last.0.saturating_add(1));
        let starts = self.0.values().map(|(told, _)| told.first.0);
        let cuts = starts.chain(ends).chain([slots.first.0]).map(Slot);
        let of = |slot: Slot| {
            let telling = self.0.values().filter(|(told, _)| told.contains(slot));
            telling.map(|(_, closed)| *closed).max().unwrap_or(Stamp::ZERO)
        };
        cuts.filter(|slot| slots.contains(*slot)).map(of).min().unwrap_or(Stamp::ZERO)
    }
}

/// Whose states were merged since they took nothing of a fenced cluster any more: in which slots,
/// and the last life of it that they knew.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Levels(
    pub(super) BTreeMap<(ClusterId, ClusterId), (Incarnation, Vec<SlotRange>)>,
);

impl Levels {
    pub(super) fn encode(&self) -> Bytes {
        let mut out = Encoder::new();
        out.put_u8(LEVELLED_VERSION);
        out.put_varint(self.0.len() as u64);
        for ((fenced, by), (life, slots)) in &self.0 {
            out.put_cluster(*fenced);
            out.put_cluster(*by);
            out.put_u32(life.0);
            put_ranges(&mut out, slots);
        }
        out.seal(0);
        out.into_bytes()
    }

    pub(super) fn decode(value: &[u8]) -> Result<Levels, DecodeError> {
        let mut input = Decoder::new(unseal(value)?);
        input.version(LEVELLED_VERSION)?;
        let mut levels = BTreeMap::new();
        for _ in 0..input.count(TOLD_MAX, 1)? {
            let pair = (input.cluster()?, input.cluster()?);
            let life = Incarnation(input.u32()?);
            levels.insert(pair, (life, take_ranges(&mut input)?));
        }
        input.finish()?;
        Ok(Levels(levels))
    }

    fn read(view: &View<'_>) -> io::Result<Levels> {
        let row = view.get(&keys::single(keys::LEVELS))?;
        let known = row.map(|value| Levels::decode(&value)).transpose();
        Ok(known.map_err(io::Error::other)?.unwrap_or_default())
    }

    fn write(&self, view: &mut View<'_>) {
        view.put(keys::single(keys::LEVELS), self.encode(), Parts::NONE);
    }

    /// Whether the state of `by` was merged in all of `own` since it fenced this life.
    fn has(&self, fenced: ClusterId, by: ClusterId, life: Incarnation, own: SlotRange) -> bool {
        let Some((known, slots)) = self.0.get(&(fenced, by)) else { return false };
        let mut left = vec![own];
        for slots in slots {
            left = left.iter().flat_map(|range| range.without(slots)).collect();
        }
        *known >= life && left.is_empty()
    }
}

/// The clusters that count for collection in a group with these slots: the live ones, and fenced ones
/// of which another live cluster may have more than this group.
pub(super) fn counting(
    view: &View<'_>,
    own: SlotRange,
    set: &LiveSet,
) -> io::Result<BTreeSet<ClusterId>> {
    let levels = Levels::read(view)?;
    let mut counting = set.live.clone();
    for (fenced, life) in set.barred_now() {
        let level = set.live.iter().all(|by| levels.has(fenced, *by, life, own));
        if !level && !flaws::has(Flaw::NoLevel) {
            counting.insert(fenced);
        }
    }
    Ok(counting)
}

/// A set of clusters is in force: what was merged because of a fence that is over counts no more.
pub(super) fn follow(view: &mut View<'_>, set: &LiveSet) -> io::Result<()> {
    let known = Levels::read(view)?;
    let mut levels = known.clone();
    levels.0.retain(|(fenced, _), _| !set.live.contains(fenced));
    if levels != known {
        levels.write(view);
    }
    Ok(())
}

/// The full state of a cut is merged: what it had of fenced clusters is here too.
pub(super) fn merged(view: &mut View<'_>, own: SlotRange, cut: &StateCut) -> io::Result<()> {
    if !cut.fenced.is_empty() {
        let mut levels = Levels::read(view)?;
        for (fenced, life) in &cut.fenced {
            let level = levels.0.entry((*fenced, cut.origin.cluster)).or_default();
            if level.0 < *life {
                *level = (*life, Vec::new());
            }
            if !level.1.contains(&cut.slots) {
                level.1.push(cut.slots);
            }
        }
        levels.write(view);
    }
    let set = LiveSet::read(view)?.unwrap_or_default();
    for heard in cut.heard.iter().filter(|heard| set.fenced.contains(&heard.origin.cluster)) {
        let Some(wanted) = heard.slots.common(&own) else { continue };
        let Some(told) = cut.slots.common(&wanted) else { continue };
        take(view, (cut.origin, cut.group), heard, wanted, told)?;
    }
    Ok(())
}

fn take(
    view: &mut View<'_>,
    by: SourceGroup,
    heard: &Heard,
    wanted: SlotRange,
    told: SlotRange,
) -> io::Result<()> {
    let row = keys::levelled(heard.origin, heard.group);
    let known = view.get(&row)?.map(|value| Levelled::decode(&value)).transpose();
    let mut levelled = known.map_err(io::Error::other)?.unwrap_or_default();
    levelled.0.insert(by, (told, heard.closed));
    view.put(row, levelled.encode(), Parts::NONE);

    let row = keys::cursor(heard.origin, heard.group);
    let known = view.get(&row)?.map(|value| Cursor::decode(&value)).transpose();
    let known = known.map_err(io::Error::other)?;
    let mut cursor = known.unwrap_or_else(|| Cursor {
        position: LogId::default(),
        closed: Stamp::ZERO,
        slots: heard.slots,
        vector: Vec::new(),
    });
    // What the cursor itself says is true of all slots.
    let closed = levelled.closed(wanted);
    if closed > cursor.closed && !flaws::has(Flaw::LevelUntold) {
        cursor.closed = closed;
        view.put(row, cursor.encode(), Parts::NONE);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use flotilla_topology::stamp::Hlc;

    fn stamp(hlc: u64) -> Stamp {
        Stamp { hlc: Hlc(hlc), cluster: ClusterId(9) }
    }

    fn by(cluster: u8, group: u32) -> SourceGroup {
        (Origin { cluster: ClusterId(cluster), incarnation: Incarnation(1) }, GroupId(group))
    }

    #[test]
    fn all_slots_must_be_told_of_and_the_least_counts() {
        let mut levelled = Levelled::default();
        levelled.0.insert(by(2, 1), (SlotRange::partition(0, 2), stamp(5)));
        assert_eq!(levelled.closed(SlotRange::ALL), Stamp::ZERO, "half is missing");
        assert_eq!(levelled.closed(SlotRange::partition(0, 4)), stamp(5));
        levelled.0.insert(by(2, 2), (SlotRange::partition(1, 2), stamp(9)));
        assert_eq!(levelled.closed(SlotRange::ALL), stamp(5));
        assert_eq!(levelled.closed(SlotRange::partition(1, 2)), stamp(9));
        levelled.0.insert(by(3, 1), (SlotRange::ALL, stamp(7)));
        assert_eq!(levelled.closed(SlotRange::ALL), stamp(7), "the best of each slot");
        let mut levels = Levels::default();
        let halves = vec![SlotRange::partition(0, 2), SlotRange::partition(1, 2)];
        levels.0.insert((ClusterId(9), ClusterId(2)), (Incarnation(3), halves));
        let has = |life, by| levels.has(ClusterId(9), ClusterId(by), life, SlotRange::ALL);
        assert!(has(Incarnation(3), 2) && !has(Incarnation(4), 2) && !has(Incarnation(3), 4));
        assert_eq!(Levels::decode(&levels.encode()).unwrap(), levels);
        assert_eq!(Levelled::decode(&levelled.encode()).unwrap(), levelled);
    }
}
