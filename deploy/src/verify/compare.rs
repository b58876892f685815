//! Whether two clusters hold the same of a namespace, and whether that can be told. Pure.

use super::ask::Part;
use flotilla_topology::ids::ClusterId;
use flotilla_topology::slot::Slot;
use flotilla_topology::stamp::Stamp;
use std::collections::BTreeMap;

/// What a comparison shows.
#[derive(Debug, Clone, PartialEq)]
pub enum Comparison {
    /// One side has written what the other has not seen.
    NotYet(String),
    /// Both have seen the same writes and hold different things.
    Differ {
        /// Where.
        slots: Vec<Slot>,
        /// Keys on each side.
        keys: [u64; 2],
    },
    /// Both hold the same.
    Equal {
        /// How many keys.
        keys: u64,
    },
}

/// Compares two sides, whatever their partition counts.
pub fn compare(a: (ClusterId, &[Part]), b: (ClusterId, &[Part])) -> Comparison {
    for one in a.1 {
        for other in b.1.iter().filter(|other| other.slots.intersects(&one.slots)) {
            let sides = [(a.0, one, b.0, other), (b.0, other, a.0, one)];
            for (writer, written, reader, read) in sides {
                if !covers(read, writer, written.digest.own) {
                    return Comparison::NotYet(format!(
                        "cluster {reader} has not seen all that cluster {writer} wrote in slots \
                         {} to {}",
                        written.slots.first, written.slots.last
                    ));
                }
            }
        }
    }
    let (left, right) = (sums(a.1), sums(b.1));
    let keys = [&left, &right].map(|side| side.values().map(|(_, keys)| keys).sum::<u64>());
    let mut slots: Vec<Slot> = left.keys().chain(right.keys()).copied().collect();
    slots.sort_unstable();
    slots.dedup();
    slots.retain(|slot| left.get(slot) != right.get(slot));
    match slots.is_empty() {
        true => Comparison::Equal { keys: keys[0] },
        false => Comparison::Differ { slots, keys },
    }
}

/// Whether two readings of one side show the same writes and the same contents.
pub fn same(then: &[Part], now: &[Part]) -> bool {
    let own = |parts: &[Part]| -> Vec<Stamp> { parts.iter().map(|part| part.digest.own).collect() };
    own(then) == own(now) && sums(then) == sums(now)
}

fn covers(reader: &Part, writer: ClusterId, written: Stamp) -> bool {
    let seen = reader.digest.vector.iter().find(|(cluster, _)| *cluster == writer);
    written.is_zero() || seen.is_some_and(|(_, closed)| *closed >= written)
}

/// Slots that hold something, with the sum and the number of their keys.
fn sums(parts: &[Part]) -> BTreeMap<Slot, (u128, u64)> {
    let digests = parts.iter().flat_map(|part| &part.digest.slots);
    digests.map(|digest| (digest.slot, (digest.sum, digest.keys))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use flotilla_node::eval::SlotDigest;
    use flotilla_node::group::digest::DigestAnswer;
    use flotilla_topology::ids::LogId;
    use flotilla_topology::slot::SlotRange;
    use flotilla_topology::stamp::Hlc;

    const EAST: ClusterId = ClusterId(1);
    const WEST: ClusterId = ClusterId(2);

    fn stamp(time: u64, cluster: ClusterId) -> Stamp {
        if time == 0 { Stamp::ZERO } else { Stamp { hlc: Hlc(time), cluster } }
    }

    fn part(n: u32, of: u32, me: ClusterId, own: u64, seen: u64, sums: &[(u16, u128)]) -> Part {
        let other = if me == EAST { WEST } else { EAST };
        let slots =
            sums.iter().map(|(slot, sum)| SlotDigest { slot: Slot(*slot), sum: *sum, keys: 1 });
        Part {
            slots: SlotRange::partition(n, of),
            digest: DigestAnswer {
                at: LogId::default(),
                own: stamp(own, me),
                vector: if seen == 0 { vec![] } else { vec![(other, stamp(seen, other))] },
                slots: slots.collect(),
            },
        }
    }

    #[test]
    fn what_one_side_has_not_seen_cannot_be_compared() {
        let east = [part(0, 1, EAST, 9, 0, &[(5, 1)])];
        let behind = [part(0, 1, WEST, 0, 8, &[])];
        assert!(matches!(compare((EAST, &east), (WEST, &behind)), Comparison::NotYet(_)));
        let never = [part(0, 1, WEST, 0, 0, &[])];
        assert!(matches!(compare((EAST, &east), (WEST, &never)), Comparison::NotYet(_)));
        let level = [part(0, 1, WEST, 0, 9, &[(5, 1)])];
        assert_eq!(compare((EAST, &east), (WEST, &level)), Comparison::Equal { keys: 1 });
    }

    #[test]
    fn partition_counts_may_differ() {
        let east = [part(0, 1, EAST, 9, 7, &[(5, 1), (9000, 2)])];
        let west = [part(0, 2, WEST, 7, 9, &[(5, 1)]), part(1, 2, WEST, 0, 9, &[(9000, 2)])];
        assert_eq!(compare((EAST, &east), (WEST, &west)), Comparison::Equal { keys: 2 });
        let half = [part(0, 2, WEST, 7, 9, &[(5, 1)]), part(1, 2, WEST, 0, 8, &[(9000, 2)])];
        assert!(matches!(compare((EAST, &east), (WEST, &half)), Comparison::NotYet(_)));
    }

    #[test]
    fn differences_name_their_slots_and_count_when_nothing_moved() {
        let east = [part(0, 1, EAST, 9, 7, &[(5, 1), (6, 3)])];
        let west = [part(0, 1, WEST, 7, 9, &[(5, 1), (6, 4), (7, 1)])];
        let expected = Comparison::Differ { slots: vec![Slot(6), Slot(7)], keys: [2, 3] };
        assert_eq!(compare((EAST, &east), (WEST, &west)), expected);
        assert!(same(&east, &east.clone()));
        assert!(!same(&east, &[part(0, 1, EAST, 10, 7, &[(5, 1), (6, 3)])]));
    }
}
