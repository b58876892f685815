//! Which other clusters count: for collection, for the purge floor, and whose streams are taken.
//!
//! The set is a versioned, committed fact of every group, written by the group's leader when PD's
//! map shows a newer one. Without it nothing is collected.

use crate::codec::{DecodeError, Decoder, Encoder, unseal};
use crate::engine::keys;
use crate::engine::view::View;
use crate::flaws::{self, Flaw};
use crate::group::cursor::{self, Cursors};
use crate::model::{Closed, Stability};
use bytes::Bytes;
use flotilla_topology::ids::{ClusterId, GroupId, Incarnation, Origin};
use flotilla_topology::slot::SlotRange;
use flotilla_topology::stamp::Stamp;
use std::collections::{BTreeMap, BTreeSet};
use std::io;

const LIVE_VERSION: u8 = 1;
/// Other clusters: ids are 1 to 255.
const CLUSTERS_MAX: usize = 254;

/// The other clusters of the mesh.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LiveSet {
    /// Rises with every change; an older set never replaces a newer one.
    pub version: u64,
    /// What they have seen counts, and what they send is taken.
    pub live: BTreeSet<ClusterId>,
    /// Given up by the live ones: they hold back no logs, and their streams are not taken. They hold
    /// back collection until the live ones are level: each has all of them that any has.
    pub fenced: BTreeSet<ClusterId>,
    /// Lives that ended with a fence. What such a life holds may have been deleted and forgotten
    /// here, so nothing of it is taken any more, whatever the cluster's standing: it comes back
    /// in a later life, which first covers what it has with our state.
    pub barred: BTreeMap<ClusterId, Incarnation>,
}

impl LiveSet {
    /// Its row value.
    pub fn encode(&self) -> Bytes {
        let mut out = Encoder::with_capacity(16 + self.live.len() + self.fenced.len());
        out.put_u8(LIVE_VERSION);
        out.put_varint(self.version);
        for set in [&self.live, &self.fenced] {
            out.put_varint(set.len() as u64);
            set.iter().for_each(|cluster| out.put_cluster(*cluster));
        }
        out.put_varint(self.barred.len() as u64);
        for (cluster, life) in &self.barred {
            out.put_cluster(*cluster);
            out.put_varint(u64::from(life.0));
        }
        out.seal(0);
        out.into_bytes()
    }

    /// Reads a row value.
    pub fn decode(value: &[u8]) -> Result<LiveSet, DecodeError> {
        let mut input = Decoder::new(unseal(value)?);
        input.version(LIVE_VERSION)?;
        let version = input.varint()?;
        let mut sets = [BTreeSet::new(), BTreeSet::new()];
        for set in &mut sets {
            for _ in 0..input.count(CLUSTERS_MAX, 1)? {
                set.insert(input.cluster()?);
            }
        }
        let mut barred = BTreeMap::new();
        for _ in 0..input.count(CLUSTERS_MAX, 2)? {
            barred.insert(input.cluster()?, Incarnation(input.varint32()?));
        }
        input.finish()?;
        let [live, fenced] = sets;
        Ok(LiveSet { version, live, fenced, barred })
    }

    /// The set that comes after `known` in a group that has heard of these clusters.
    pub fn after(mut self, known: Option<LiveSet>, cursors: &Cursors) -> LiveSet {
        self.barred = known.map(|known| known.barred).unwrap_or_default();
        for cluster in &self.fenced {
            let lives = cursors.keys().map(|(origin, _)| *origin).filter(|o| o.cluster == *cluster);
            let last = lives.map(|origin| origin.incarnation).max().unwrap_or(Incarnation(1));
            let barred = self.barred.entry(*cluster).or_default();
            *barred = (*barred).max(last);
        }
        self
    }

    /// The clusters that are fenced, and the last of their lives that was known.
    pub fn barred_now(&self) -> Vec<(ClusterId, Incarnation)> {
        let life = |cluster| self.barred.get(cluster).copied().unwrap_or_default();
        self.fenced.iter().map(|cluster| (*cluster, life(cluster))).collect()
    }

    /// The set that a group goes by, if it has one.
    pub fn read(view: &View<'_>) -> io::Result<Option<LiveSet>> {
        let row = view.get(&keys::single(keys::LIVE))?;
        row.map(|value| LiveSet::decode(&value)).transpose().map_err(io::Error::other)
    }
}

/// What a group of `own` that carries `slots` knows of all clusters that count.
pub fn stability(
    own: ClusterId,
    slots: SlotRange,
    cursors: &Cursors,
    counting: &BTreeSet<ClusterId>,
) -> Stability {
    let heard: Closed = cursor::closed_vector(cursors, slots).into_iter().collect();
    let told = counting.iter().map(|live| (*live, told_by(*live, slots, cursors)));
    Stability { own, heard, told: told.collect() }
}

/// What a cluster has said, in its own stream, that it has of the others: the least of what the
/// groups have said that share slots with ours.
fn told_by(cluster: ClusterId, slots: SlotRange, cursors: &Cursors) -> Closed {
    let newest = cursors.keys().map(|(origin, _)| *origin).filter(|o| o.cluster == cluster).max();
    let Some(newest) = newest else { return Closed::new() };
    let Some(sources) = cursor::sources_of(cursors, newest, slots) else { return Closed::new() };
    let mut told: Option<Closed> = None;
    for source in sources {
        let this: Closed = source.vector.iter().copied().collect();
        told = Some(match told {
            None => this,
            Some(told) => combined(&told, &this),
        });
    }
    told.unwrap_or_default()
}

fn combined(a: &Closed, b: &Closed) -> Closed {
    if flaws::has(Flaw::VectorOne) {
        let mut any = a.clone();
        for (cluster, stamp) in b {
            let known = any.entry(*cluster).or_default();
            *known = (*known).max(*stamp);
        }
        return any;
    }
    let both =
        a.iter().filter_map(|(cluster, stamp)| Some((*cluster, *stamp.min(b.get(cluster)?))));
    both.collect::<BTreeMap<ClusterId, Stamp>>()
}

/// Why nothing of a cluster in one of its lives is taken; none if it is.
pub fn refusal(view: &View<'_>, origin: Origin) -> io::Result<Option<String>> {
    let set = LiveSet::read(view)?.unwrap_or_default();
    if set.fenced.contains(&origin.cluster) {
        let line = "this cluster has fenced yours: it must return (flotilla link return)";
        return Ok(Some(line.to_owned()));
    }
    if set.barred.get(&origin.cluster).is_some_and(|life| origin.incarnation <= *life) {
        let line = format!(
            "life {origin} was fenced here: come back with a higher `incarnation`, so that what was \
             deleted meanwhile does not come back with you"
        );
        return Ok(Some(line));
    }
    let next = Incarnation(origin.incarnation.0.saturating_add(1));
    let bound = |incarnation, group| keys::cursor(Origin { incarnation, ..origin }, group);
    let later = bound(next, GroupId(0))..bound(Incarnation(u32::MAX), GroupId(u32::MAX));
    let later = view.scan(later, false).next().transpose()?.is_some();
    Ok(later.then(|| format!("{origin} is an earlier life of a cluster that is known here")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::view::Overlay;
    use crate::group::cursor::Cursor;
    use flotilla_topology::ids::LogId;
    use flotilla_topology::stamp::Hlc;

    fn stamp(hlc: u64, cluster: u8) -> Stamp {
        Stamp { hlc: Hlc(hlc), cluster: ClusterId(cluster) }
    }

    #[test]
    fn a_live_set_survives_its_row() {
        let set = LiveSet {
            version: 7,
            live: BTreeSet::from([ClusterId(2), ClusterId(9)]),
            fenced: BTreeSet::from([ClusterId(4)]),
            barred: BTreeMap::from([(ClusterId(4), Incarnation(2))]),
        };
        let bytes = set.encode();
        assert_eq!(LiveSet::decode(&bytes).unwrap(), set);
        for end in 0..bytes.len() {
            assert!(LiveSet::decode(&bytes[..end]).is_err());
        }
    }

    #[test]
    fn a_life_that_was_fenced_is_barred_for_good() {
        let life =
            |incarnation| Origin { cluster: ClusterId(2), incarnation: Incarnation(incarnation) };
        let mut rows: BTreeMap<Bytes, Bytes> = BTreeMap::new();
        let go_by = |rows: &mut BTreeMap<Bytes, Bytes>, fenced: &[u8], cursors: &Cursors| {
            let (mut overlay, fenced) = (Overlay::new(), fenced.iter().map(|id| ClusterId(*id)));
            let known = LiveSet::read(&View::new(rows, &mut overlay)).unwrap();
            let set = LiveSet { fenced: fenced.collect(), ..LiveSet::default() };
            let set = set.after(known, cursors);
            rows.insert(keys::single(keys::LIVE), set.encode());
        };
        let taken = |rows: &BTreeMap<Bytes, Bytes>, origin| {
            refusal(&View::new(rows, &mut Overlay::new()), origin).unwrap().is_none()
        };
        assert!(taken(&rows, life(1)));
        go_by(&mut rows, &[2], &Cursors::new());
        assert!(!taken(&rows, life(1)) && !taken(&rows, life(2)), "fenced");
        go_by(&mut rows, &[], &Cursors::new());
        assert!(!taken(&rows, life(1)) && taken(&rows, life(2)), "back in a later life");
        rows.insert(keys::cursor(life(3), GroupId(7)), Bytes::new());
        assert!(!taken(&rows, life(2)) && taken(&rows, life(3)), "an earlier life");
    }

    #[test]
    fn a_cluster_has_said_what_all_its_groups_of_our_slots_have_said() {
        let mut cursors = Cursors::new();
        let origin = Origin { cluster: ClusterId(2), incarnation: Incarnation(1) };
        for (part, seen) in [(0, 50), (1, 30), (2, 10)] {
            let cursor = Cursor {
                position: LogId { term: 1, index: 1 },
                closed: stamp(seen, 2),
                slots: SlotRange::partition(part, 4),
                vector: vec![(ClusterId(1), stamp(seen, 1)), (ClusterId(3), stamp(seen, 3))],
            };
            cursors.insert((origin, GroupId(part)), cursor);
        }
        let set =
            LiveSet { version: 1, live: BTreeSet::from([ClusterId(2)]), ..LiveSet::default() };
        let know = stability(ClusterId(1), SlotRange::partition(0, 2), &cursors, &set.live);
        assert!(know.stable(stamp(30, 1)) && !know.stable(stamp(31, 1)));
        let know = stability(ClusterId(1), SlotRange::partition(1, 2), &cursors, &set.live);
        assert!(!know.stable(stamp(1, 1)), "a quarter was never heard of");
    }
}
