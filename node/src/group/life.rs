//! The life of its cluster that a group is in.
//!
//! A cluster that was fenced comes back in a new life, with its data. Others have deleted meanwhile and
//! forgotten what they deleted, so before the group gives its state to anybody, it *covers* it with
//! the states of all live clusters: what only it has, and they once had, was deleted. Until then
//! nothing is collected here, and no cut of the group is given to another cluster.

use crate::codec::{DecodeError, Decoder, Encoder, unseal};
use crate::engine::keys;
use crate::engine::view::View;
use crate::flaws::{self, Flaw};
use crate::group::GroupContext;
use crate::group::live::LiveSet;
use crate::group::state::StateCut;
use crate::model::Parts;
use bytes::Bytes;
use flotilla_topology::ids::{ClusterId, Incarnation};
use flotilla_topology::slot::{SLOT_COUNT, SlotRange};
use std::collections::BTreeMap;
use std::io;

const LIFE_VERSION: u8 = 1;
/// Other clusters: ids are 1 to 255.
const CLUSTERS_MAX: usize = 254;

/// Which life it is, and what must still be merged before the group is one of the mesh again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Life {
    /// The life.
    pub life: Incarnation,
    /// Slots that are not yet covered with the state of a cluster.
    pub owed: BTreeMap<ClusterId, Vec<SlotRange>>,
}

impl Life {
    pub(super) fn encode(&self) -> Bytes {
        let mut out = Encoder::new();
        out.put_u8(LIFE_VERSION);
        out.put_u32(self.life.0);
        out.put_varint(self.owed.len() as u64);
        for (cluster, slots) in &self.owed {
            out.put_cluster(*cluster);
            put_ranges(&mut out, slots);
        }
        out.seal(0);
        out.into_bytes()
    }

    pub(super) fn decode(value: &[u8]) -> Result<Life, DecodeError> {
        let mut input = Decoder::new(unseal(value)?);
        input.version(LIFE_VERSION)?;
        let life = Incarnation(input.u32()?);
        let mut owed = BTreeMap::new();
        for _ in 0..input.count(CLUSTERS_MAX, 1)? {
            owed.insert(input.cluster()?, take_ranges(&mut input)?);
        }
        input.finish()?;
        Ok(Life { life, owed })
    }

    /// What a group knows of its life; none before it was first told of other clusters.
    pub fn read(view: &View<'_>) -> io::Result<Option<Life>> {
        let row = view.get(&keys::single(keys::LIFE))?;
        row.map(|value| Life::decode(&value)).transpose().map_err(io::Error::other)
    }

    fn write(&self, view: &mut View<'_>) {
        view.put(keys::single(keys::LIFE), self.encode(), Parts::NONE);
    }

    /// Why no other cluster is given the state of a group in this life; none if it is. A replica
    /// that lags may not have come to it yet.
    pub fn refuses_cut(&self, life: Incarnation) -> Option<String> {
        if flaws::has(Flaw::GivenEarly) {
            return None;
        }
        if self.life < life {
            return Some(format!("this replica is not in life {life} of the cluster yet"));
        }
        let owed: Vec<String> = self.owed.keys().map(ToString::to_string).collect();
        (!self.is_whole())
            .then(|| format!("the group returns: clusters {} come first", owed.join(", ")))
    }

    /// Whether nothing is owed.
    pub fn is_whole(&self) -> bool {
        self.owed.is_empty()
    }
}

/// Appends slot ranges.
pub(super) fn put_ranges(out: &mut Encoder, ranges: &[SlotRange]) {
    out.put_varint(ranges.len() as u64);
    ranges.iter().for_each(|range| out.put_slots(*range));
}

/// Reads slot ranges: no more than there are slots.
pub(super) fn take_ranges(from: &mut Decoder<'_>) -> Result<Vec<SlotRange>, DecodeError> {
    let count = from.count(usize::from(SLOT_COUNT), 4)?;
    (0..count).map(|_| from.slots()).collect()
}

/// Whether a group has told itself that it is in this life of its cluster.
pub(crate) fn is_current(view: &View<'_>, context: &GroupContext) -> io::Result<bool> {
    Ok(Life::read(view)?.is_some_and(|life| life.life >= context.origin.incarnation))
}

/// Why no state is taken yet by a group that is in a later life of its cluster than it has told itself;
/// none if it is not. It does not know yet whom it owes: what was merged before would cover nothing, and
/// whoever sent it would not send it again.
pub(super) fn refuses_states(
    view: &View<'_>,
    context: &GroupContext,
) -> io::Result<Option<String>> {
    let life = context.origin.incarnation;
    let known = Life::read(view)?.filter(|known| known.life < life);
    let refused = known.filter(|_| !flaws::has(Flaw::CoveredByJoin));
    Ok(refused.map(|known| {
        format!("the group goes by life {} of its cluster, not yet {life}: try again", known.life)
    }))
}

/// A set of clusters is in force: a new life begins owing all live ones, and nobody is owed who is
/// not live.
pub(super) fn follow(view: &mut View<'_>, context: &GroupContext, set: &LiveSet) -> io::Result<()> {
    let incarnation = context.origin.incarnation;
    let counts = |cluster: &ClusterId| set.live.contains(cluster) && !set.fenced.contains(cluster);
    let known = Life::read(view)?;
    let mut life = match known.clone() {
        None => Life { life: incarnation, owed: BTreeMap::new() },
        Some(life) if life.life < incarnation && flaws::has(Flaw::NoCover) => {
            Life { life: incarnation, ..life }
        }
        Some(life) if life.life < incarnation => {
            let owed = set.live.iter().map(|cluster| (*cluster, vec![context.slots]));
            Life { life: incarnation, owed: owed.collect() }
        }
        Some(life) => life,
    };
    life.owed.retain(|cluster, _| counts(cluster));
    if known.as_ref() != Some(&life) {
        life.write(view);
    }
    Ok(())
}

/// Whether the group covers its state with that of a cluster.
pub(super) fn covers(view: &View<'_>, cluster: ClusterId) -> io::Result<bool> {
    Ok(Life::read(view)?.is_some_and(|life| life.owed.contains_key(&cluster)))
}

/// Whether nothing is owed to anybody.
pub(super) fn is_whole(view: &View<'_>) -> io::Result<bool> {
    Ok(Life::read(view)?.is_none_or(|life| life.is_whole()))
}

/// The slots of a cut are covered.
pub(super) fn covered(view: &mut View<'_>, cut: &StateCut) -> io::Result<()> {
    let Some(mut life) = Life::read(view)? else { return Ok(()) };
    let Some(owed) = life.owed.get_mut(&cut.origin.cluster) else { return Ok(()) };
    *owed = owed.iter().flat_map(|slots| slots.without(&cut.slots)).collect();
    if owed.is_empty() {
        life.owed.remove(&cut.origin.cluster);
    }
    life.write(view);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::view::Overlay;
    use flotilla_topology::ids::{GroupId, Origin};
    use flotilla_topology::slot::Slot;

    #[test]
    fn a_life_survives_its_row_and_slots_are_taken_away() {
        let whole = SlotRange { first: Slot(10), last: Slot(20) };
        let owed = BTreeMap::from([(ClusterId(2), vec![whole]), (ClusterId(3), Vec::new())]);
        let life = Life { life: Incarnation(7), owed };
        assert_eq!(Life::decode(&life.encode()).unwrap(), life);
        let part = |first, last| SlotRange { first: Slot(first), last: Slot(last) };
        let left = |other| whole.without(&other).collect::<Vec<_>>();
        assert_eq!(left(part(0, 5)), [whole]);
        assert_eq!(left(part(12, 13)), [part(10, 11), part(14, 20)]);
        assert_eq!(left(part(0, 12)), [part(13, 20)]);
        assert_eq!(left(part(15, 30)), [part(10, 14)]);
        assert_eq!(left(SlotRange::ALL), []);
    }
    #[test]
    fn a_group_takes_no_state_before_it_knows_its_life() {
        let origin = Origin { cluster: ClusterId(1), incarnation: Incarnation(2) };
        let (group, slots) = (GroupId(7), SlotRange::ALL);
        let context = GroupContext { group, slots, born_synced: true, origin, max_skew_ms: 0 };
        let refuses = |known: Option<u32>| {
            let life = known.map(|life| Life { life: Incarnation(life), ..Life::default() });
            let row = life.map(|life| (keys::single(keys::LIFE), life.encode()));
            let rows: BTreeMap<Bytes, Bytes> = row.into_iter().collect();
            refuses_states(&View::new(&rows, &mut Overlay::new()), &context).unwrap()
        };
        assert_eq!(refuses(None), None, "it has no state of another life");
        assert!(
            refuses(Some(1)).is_some_and(|why| why.contains("life 1") && why.contains("yet 2"))
        );
        assert_eq!(refuses(Some(2)), None);
    }
}
