//! The rule by which a difference of one cell is real; see the module's text for its proof.

use flotilla_node::group::digest::Look;
use flotilla_node::group::digest::look::Cell;
use flotilla_topology::ids::ClusterId;
use flotilla_topology::stamp::Hlc;
use std::collections::BTreeSet;

/// The two sides of a look, as far as they concern one slot.
pub struct Sides<'a> {
    /// The group time that both were asked for.
    pub at_ms: u64,
    /// This cluster, and what its group showed.
    pub ours: (ClusterId, &'a Look),
    /// The peer, and what its group showed.
    pub theirs: (ClusterId, &'a Look),
}

impl Sides<'_> {
    /// Why nothing can be concluded from this look.
    pub fn unfit(&self) -> Option<String> {
        for (cluster, look) in [self.ours, self.theirs] {
            if let Some(reason) = &look.unsettled {
                return Some(format!("cluster {cluster}: {reason}"));
            }
        }
        if clusters(self.ours) != clusters(self.theirs) {
            return Some("the two sides do not go by the same clusters yet".to_owned());
        }
        None
    }

    fn clock(&self) -> Hlc {
        self.ours.1.clock.max(self.theirs.1.clock)
    }

    /// Whether both sides have all that was stamped up to `clock`, by anybody.
    fn covers(&self, clock: Hlc) -> bool {
        let all = clusters(self.ours);
        let has = |(me, look): (ClusterId, &Look)| {
            all.iter().filter(|cluster| **cluster != me).all(|cluster| {
                let known = look.vector.iter().find(|(known, _)| known == cluster);
                known.is_some_and(|(_, closed)| closed.hlc >= clock)
            })
        };
        self.at_ms > clock.ms() && has(self.ours) && has(self.theirs)
    }
}

/// All clusters that a side goes by, itself among them.
fn clusters((me, look): (ClusterId, &Look)) -> BTreeSet<ClusterId> {
    look.live.iter().copied().chain([me]).collect()
}

/// What a look says of a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Both sides show the same.
    Equal,
    /// They hold different things, whatever is under way.
    Different,
    /// One of them was written since the look before.
    Changed,
    /// Nothing has changed, and one of them may still lack what the other had at first.
    Same,
}

/// A cell that differed at the last look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suspect {
    /// What the two sides held.
    held: [Cell; 2],
    /// The greater clock of the look that showed this first.
    since: Hlc,
    /// The greater clock of the look that covered that one, once one has.
    covered: Option<Hlc>,
    /// How often a look showed something else than the one before.
    pub changes: u32,
}

impl Suspect {
    /// Of a first look at a cell; none if it is equal.
    pub fn of(held: [Cell; 2], sides: &Sides<'_>) -> Option<Suspect> {
        let suspect = Suspect { held, since: sides.clock(), covered: None, changes: 0 };
        (!shows_equal(&held)).then_some(suspect)
    }

    /// Takes the next look, which must have begun after the one before had ended.
    pub fn look(&mut self, held: [Cell; 2], sides: &Sides<'_>) -> Verdict {
        if shows_equal(&held) {
            return Verdict::Equal;
        }
        let rows = |held: &[Cell; 2]| held.map(|cell| (cell.state, cell.rows));
        if rows(&held) != rows(&self.held) {
            let changes = self.changes + 1;
            *self = Suspect { held, since: sides.clock(), covered: None, changes };
            return Verdict::Changed;
        }
        match self.covered {
            Some(clock) if sides.at_ms > clock.ms() => return Verdict::Different,
            Some(_) => {}
            None => self.covered = sides.covers(self.since).then(|| sides.clock()),
        }
        Verdict::Same
    }
}

fn shows_equal([ours, theirs]: &[Cell; 2]) -> bool {
    (ours.sum, ours.keys) == (theirs.sum, theirs.keys)
}

#[cfg(test)]
mod tests {
    use super::*;
    use flotilla_topology::stamp::Stamp;

    const IDS: [ClusterId; 3] = [ClusterId(1), ClusterId(2), ClusterId(3)];

    /// A group of one of three clusters, at a clock, that has the others up to these times.
    fn look(me: usize, clock_ms: u64, has_ms: [u64; 3]) -> Look {
        let others = || (0..3).filter(move |other| *other != me);
        let closed = |of: usize| Stamp { hlc: Hlc::from_ms(has_ms[of]), cluster: IDS[of] };
        Look {
            clock: Hlc::from_ms(clock_ms),
            live: others().map(|other| IDS[other]).collect(),
            vector: others().map(|other| (IDS[other], closed(other))).collect(),
            ..Look::default()
        }
    }

    fn cell(sum: u128, state: u64) -> Cell {
        Cell { sum, keys: 1, state, rows: 1 }
    }

    /// What is said of a cell at a look that both sides were asked for at `at_ms`; both have the
    /// others up to `has_ms`, and their clocks are at `at_ms`.
    fn say(suspect: &mut Suspect, held: [Cell; 2], at_ms: u64, has_ms: [u64; 3]) -> Verdict {
        let (ours, theirs) = (look(0, at_ms, has_ms), look(1, at_ms, has_ms));
        let sides = Sides { at_ms, ours: (IDS[0], &ours), theirs: (IDS[1], &theirs) };
        assert_eq!(sides.unfit(), None);
        suspect.look(held, &sides)
    }

    fn first(held: [Cell; 2]) -> Suspect {
        let (ours, theirs) = (look(0, 1000, [0; 3]), look(1, 1010, [0; 3]));
        let sides = Sides { at_ms: 1000, ours: (IDS[0], &ours), theirs: (IDS[1], &theirs) };
        Suspect::of(held, &sides).expect("they differ")
    }

    const APART: [Cell; 2] =
        [Cell { sum: 1, keys: 1, state: 1, rows: 1 }, Cell { sum: 0, keys: 0, state: 0, rows: 0 }];

    #[test]
    fn a_difference_is_told_behind_the_look_that_covers_the_first() {
        let mut suspect = first(APART);
        assert_eq!(say(&mut suspect, APART, 2000, [1009; 3]), Verdict::Same);
        assert_eq!(say(&mut suspect, APART, 3000, [1010; 3]), Verdict::Same, "it covers the first");
        assert_eq!(say(&mut suspect, APART, 4000, [1010; 3]), Verdict::Different);
    }

    /// The one side was read before it had a delete that the other side had collected when it was
    /// read: the look that covers the first shows a difference that is none.
    #[test]
    fn the_look_that_covers_the_first_is_not_the_last() {
        let mut suspect = first(APART);
        assert_eq!(say(&mut suspect, APART, 2000, [1500; 3]), Verdict::Same);
        assert_eq!(say(&mut suspect, [APART[1]; 2], 3000, [2500; 3]), Verdict::Equal);
    }

    /// What a third cluster wrote may have reached one of the two only.
    #[test]
    fn every_cluster_counts_for_both_sides() {
        for lacks in [[0, 5000, 5000], [5000, 0, 5000], [5000, 5000, 0]] {
            let mut suspect = first(APART);
            for n in 2..20 {
                assert_eq!(say(&mut suspect, APART, n * 1000, lacks), Verdict::Same, "{lacks:?}");
            }
        }
    }

    /// A clock that is ahead of ours: what is written now may be stamped below it.
    #[test]
    fn a_look_at_an_earlier_time_covers_nothing_and_ends_nothing() {
        let mut suspect = first(APART);
        assert_eq!(say(&mut suspect, APART, 1010, [9000; 3]), Verdict::Same);
        assert_eq!(say(&mut suspect, APART, 1011, [9000; 3]), Verdict::Same, "it covers the first");
        assert_eq!(say(&mut suspect, APART, 1011, [9000; 3]), Verdict::Same, "no later than that");
        assert_eq!(say(&mut suspect, APART, 1012, [9000; 3]), Verdict::Different);
    }

    #[test]
    fn whatever_is_written_begins_it_anew_also_what_nobody_sees() {
        let mut suspect = first(APART);
        assert_eq!(say(&mut suspect, APART, 2000, [1010; 3]), Verdict::Same);
        let hidden = [cell(1, 2), APART[1]];
        assert_eq!(say(&mut suspect, hidden, 3000, [2010; 3]), Verdict::Changed);
        assert_eq!(say(&mut suspect, hidden, 4000, [2999; 3]), Verdict::Same, "not covered");
        assert_eq!(say(&mut suspect, hidden, 5000, [3000; 3]), Verdict::Same);
        assert_eq!(say(&mut suspect, hidden, 6000, [3000; 3]), Verdict::Different);
        assert_eq!((suspect.changes, suspect.since), (1, Hlc::from_ms(3000)));
        assert_eq!(say(&mut suspect, [cell(1, 2), cell(1, 9)], 7000, [0; 3]), Verdict::Equal);
    }
}
