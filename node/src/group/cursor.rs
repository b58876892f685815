//! How far this group has come with the groups of other clusters: one row per source group, written
//! in the same entry as the effects that it speaks of.
//!
//! The syncer reads the same rows out of committed entries to know the closed vector as of each
//! index; that is why their format and [`closed_vector`] are public.

use crate::codec::{DecodeError, Decoder, Encoder, unseal};
use crate::engine::keys::{self, RowKey};
use crate::engine::view::{RowIter, Rows, View};
use crate::flaws::{self, Flaw};
use crate::group::remote::{Vector, put_vector, take_vector};
use bytes::Bytes;
use flotilla_topology::ids::{ClusterId, GroupId, LogId, Origin};
use flotilla_topology::slot::SlotRange;
use flotilla_topology::stamp::Stamp;
use std::collections::BTreeMap;
use std::io;

const CURSOR_VERSION: u8 = 1;

/// The value of a cursor row. Nothing in it ever goes back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    /// Everything of the source group up to here is merged.
    pub position: LogId,
    /// Everything of the source group stamped up to here is merged.
    pub closed: Stamp,
    /// The slots of the source group.
    pub slots: SlotRange,
    /// What the source group had of every other cluster as of `position`.
    pub vector: Vector,
}

impl Cursor {
    /// Its row value.
    pub fn encode(&self) -> Bytes {
        let mut out = Encoder::with_capacity(64);
        out.put_u8(CURSOR_VERSION);
        out.put_log_id(self.position);
        out.put_stamp(self.closed);
        out.put_slots(self.slots);
        put_vector(&mut out, &self.vector);
        out.seal(0);
        out.into_bytes()
    }

    /// Reads a row value.
    pub fn decode(value: &[u8]) -> Result<Cursor, DecodeError> {
        let mut input = Decoder::new(unseal(value)?);
        input.version(CURSOR_VERSION)?;
        let cursor = Cursor {
            position: input.log_id()?,
            closed: input.stamp()?,
            slots: input.slots()?,
            vector: take_vector(&mut input)?,
        };
        input.finish()?;
        Ok(cursor)
    }
}

/// All cursors of a group.
pub type Cursors = BTreeMap<SourceGroup, Cursor>;

/// Reads all cursor rows.
pub fn read_all(rows: &dyn Rows) -> io::Result<Cursors> {
    collect(rows.scan(keys::of_kind(keys::CURSOR), false))
}

/// Reads all cursor rows as the evaluator sees them.
pub fn read_view(view: &View<'_>) -> io::Result<Cursors> {
    collect(view.scan(keys::of_kind(keys::CURSOR), false))
}

fn collect(rows: RowIter<'_>) -> io::Result<Cursors> {
    let mut cursors = Cursors::new();
    for row in rows {
        let (key, value) = row?;
        if let Some((name, cursor)) = read_row(&key, &value).map_err(io::Error::other)? {
            cursors.insert(name, cursor);
        }
    }
    Ok(cursors)
}

/// A cursor's name: whose log it stands in.
pub type SourceGroup = (Origin, GroupId);

/// Reads a row if it is a cursor.
pub fn read_row(key: &[u8], value: &[u8]) -> Result<Option<(SourceGroup, Cursor)>, DecodeError> {
    match keys::decode(key)? {
        RowKey::Cursor { origin, group } => Ok(Some(((origin, group), Cursor::decode(value)?))),
        _ => Ok(None),
    }
}

/// The closed stamp of every other cluster in a group that carries `slots`: the lowest of those of
/// its source groups that share slots with it. A cluster some of whose slots were never heard of is
/// left out, which means zero.
pub fn closed_vector(cursors: &Cursors, slots: SlotRange) -> Vector {
    let mut newest: BTreeMap<ClusterId, Origin> = BTreeMap::new();
    for (origin, _) in cursors.keys() {
        newest.insert(origin.cluster, *origin); // keys rise by incarnation: the last one stays
    }
    let closed = |origin: Origin| {
        let sources = sources_of(cursors, origin, slots)?;
        let closed = sources.iter().map(|cursor| cursor.closed);
        if flaws::has(Flaw::VectorMax) { closed.max() } else { closed.min() }
    };
    newest.into_iter().filter_map(|(cluster, origin)| Some((cluster, closed(origin)?))).collect()
}

/// The cursors of those groups of `origin` that share slots with `slots`; none if some slot was
/// never heard of.
pub fn sources_of(cursors: &Cursors, origin: Origin, slots: SlotRange) -> Option<Vec<&Cursor>> {
    let of_origin = cursors.range((origin, GroupId(0))..=(origin, GroupId(u32::MAX)));
    let shares = of_origin.map(|(_, cursor)| cursor).filter(|c| c.slots.intersects(&slots));
    let mut sources: Vec<&Cursor> = shares.collect();
    sources.sort_by_key(|cursor| cursor.slots.first);
    let mut next = slots.first.0;
    for source in &sources {
        if source.slots.first.0 > next {
            return None;
        }
        next = next.max(source.slots.last.0 + 1);
    }
    (next > slots.last.0).then_some(sources)
}

#[cfg(test)]
mod tests {
    use super::*;
    use flotilla_topology::ids::Incarnation;
    use flotilla_topology::stamp::Hlc;

    fn origin(cluster: u8) -> Origin {
        Origin { cluster: ClusterId(cluster), incarnation: Incarnation(1) }
    }

    fn stamp(hlc: u64) -> Stamp {
        Stamp { hlc: Hlc(hlc), cluster: ClusterId(2) }
    }

    fn cursor(part: u32, of: u32, closed: u64) -> Cursor {
        Cursor {
            position: LogId { term: 1, index: closed },
            closed: stamp(closed),
            slots: SlotRange::partition(part, of),
            vector: vec![(ClusterId(3), stamp(9))],
        }
    }

    #[test]
    fn a_cursor_survives_its_row() {
        let cursor = cursor(1, 4, 77);
        assert_eq!(Cursor::decode(&cursor.encode()).unwrap(), cursor);
        let bytes = cursor.encode();
        for end in 0..bytes.len() {
            assert!(Cursor::decode(&bytes[..end]).is_err());
        }
    }

    #[test]
    fn the_closed_stamp_is_the_lowest_of_all_sources_of_my_slots() {
        let mut cursors = Cursors::new();
        cursors.insert((origin(2), GroupId(1)), cursor(0, 4, 50));
        assert_eq!(closed_vector(&cursors, SlotRange::partition(0, 2)), vec![], "half is unheard");
        cursors.insert((origin(2), GroupId(2)), cursor(1, 4, 40));
        cursors.insert((origin(2), GroupId(3)), cursor(2, 4, 30));
        let vector = closed_vector(&cursors, SlotRange::partition(0, 2));
        assert_eq!(vector, vec![(ClusterId(2), stamp(40))], "the third shares no slot");
    }
}
