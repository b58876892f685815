//! What the clusters that go on had of one that they fence: each has a part of what it sent last.
//!
//! They merge their full states into each other once none of them takes anything of it any more. Then
//! each has what any of them had, and may say so: otherwise what the fenced one wrote last could never
//! be collected, and when it comes back, what was deleted of it meanwhile would be taken for new.

use crate::codec::{DecodeError, Decoder, Encoder, unseal};
use crate::engine::keys;
use crate::engine::view::View;
use crate::group::cursor::{Cursor, SourceGroup};
use crate::group::live::LiveSet;
use crate::group::state::{Heard, StateCut};
use crate::model::Parts;
use bytes::Bytes;
use flotilla_topology::ids::{GroupId, LogId, Origin};
use flotilla_topology::slot::{Slot, SlotRange};
use flotilla_topology::stamp::Stamp;
use std::collections::BTreeMap;
use std::io;

const LEVELLED_VERSION: u8 = 1;
/// Groups that have told of one fenced group: they share slots with this group.
const TOLD_MAX: usize = 1 << 16;

/// What groups of live clusters had of one group of a fenced cluster: in which slots, up to when.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Levelled(BTreeMap<SourceGroup, (SlotRange, Stamp)>);

impl Levelled {
    fn encode(&self) -> Bytes {
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

    fn decode(value: &[u8]) -> Result<Levelled, DecodeError> {
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

/// The full state of a cut is merged: what it had of fenced clusters is here too.
pub(super) fn merged(view: &mut View<'_>, own: SlotRange, cut: &StateCut) -> io::Result<()> {
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
    if closed > cursor.closed {
        cursor.closed = closed;
        view.put(row, cursor.encode(), Parts::NONE);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use flotilla_topology::ids::{ClusterId, Incarnation};
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
        assert_eq!(Levelled::decode(&levelled.encode()).unwrap(), levelled);
    }
}
