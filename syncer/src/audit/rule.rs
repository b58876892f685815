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
