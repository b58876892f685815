//! Stability: what every live cluster is known to have, and what may therefore be forgotten.
//!
//! A tombstone, floor or reset with stamp s of cluster O may go at R once R has everything of O up
//! to s and every other live cluster has said *in its own stream* that it has, too. That a closed
//! stamp has passed s here says only that nothing stamped lower is on its way from there; a cluster
//! that has not seen s may still write on top of what s deleted.

use crate::flaws::{self, Flaw};
use flotilla_topology::ids::ClusterId;
use flotilla_topology::stamp::{Hlc, Stamp};
use std::collections::BTreeMap;

/// Closed stamps by cluster; one that is missing has never been heard of.
pub type Closed = BTreeMap<ClusterId, Stamp>;

/// What one group knows of all live clusters, for its own slots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stability {
    /// This cluster.
    pub own: ClusterId,
    /// Everything of each cluster up to this stamp is here.
    pub heard: Closed,
    /// What each other live cluster has said of what it has heard.
    pub told: BTreeMap<ClusterId, Closed>,
}

fn of(closed: &Closed, cluster: ClusterId) -> Stamp {
    closed.get(&cluster).copied().unwrap_or(Stamp::ZERO)
}

impl Stability {
    /// Whether every live cluster has everything of the stamp's cluster up to it.
    pub fn stable(&self, stamp: Stamp) -> bool {
        let origin = stamp.cluster;
        if flaws::has(Flaw::GcClosed) {
            return self.told.keys().all(|live| of(&self.heard, *live).hlc >= stamp.hlc);
        }
        let here = origin == self.own || of(&self.heard, origin) >= stamp;
        let others = self.told.iter().filter(|(live, _)| **live != origin);
        here && others.into_iter().all(|(_, closed)| of(closed, origin) >= stamp)
    }

    /// Whether every live cluster has everything that was stamped before `ms` anywhere: so nothing of
    /// it can come any more, and nobody writes an expiry who does not know what an end at `ms` hides.
    pub fn passed(&self, ms: u64) -> bool {
        let end = super::expiry_stamp(ms);
        if flaws::has(Flaw::ExpiryUnpassed) {
            return true;
        }
        let here = self.told.keys().all(|live| of(&self.heard, *live) >= end);
        here && (flaws::has(Flaw::ExpiryUntold) || self.horizon(end.hlc) >= end.hlc)
    }

    /// Every stamp of a live cluster up to this reading is stable; `now` if there is no other
    /// cluster. Where a cleaner need not look any further.
    pub fn horizon(&self, now: Hlc) -> Hlc {
        let origins = || self.told.keys().copied().chain([self.own]);
        let here = self.told.keys().map(|live| of(&self.heard, *live).hlc);
        let there = self.told.iter().flat_map(|(live, closed)| {
            origins().filter(move |origin| origin != live).map(|origin| of(closed, origin).hlc)
        });
        here.chain(there).min().unwrap_or(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: ClusterId = ClusterId(1);

    fn stamp(hlc: u64, cluster: u8) -> Stamp {
        Stamp { hlc: Hlc(hlc), cluster: ClusterId(cluster) }
    }

    fn closed(each: &[(u64, u8)]) -> Closed {
        each.iter().map(|(hlc, cluster)| (ClusterId(*cluster), stamp(*hlc, *cluster))).collect()
    }

    #[test]
    fn a_stamp_is_stable_when_every_live_cluster_has_said_so_itself() {
        let told = BTreeMap::from([
            (ClusterId(2), closed(&[(50, 1), (30, 3)])),
            (ClusterId(3), closed(&[(40, 1), (60, 2)])),
        ]);
        let know = Stability { own: OWN, heard: closed(&[(70, 2), (35, 3)]), told };
        assert!(know.stable(stamp(40, 1)) && !know.stable(stamp(41, 1)), "ours: the slower one");
        assert!(know.stable(stamp(60, 2)) && !know.stable(stamp(61, 2)), "3 has 60 of 2");
        assert!(know.stable(stamp(30, 3)) && !know.stable(stamp(31, 3)), "2 has 30 of 3");
        assert_eq!(know.horizon(Hlc(99)), Hlc(30));
        assert!(!know.stable(stamp(1, 9)), "of a cluster that nobody has heard");
        let ms = Hlc::from_ms(5).0;
        let heard = closed(&[(ms, 2), (ms + 1, 3)]);
        let later = Stability { heard, ..know };
        assert!(!later.passed(5), "it is all here, and not everywhere");
        let all = [(ms, 1), (ms, 2), (ms, 3)];
        let told = BTreeMap::from([(ClusterId(2), closed(&all)), (ClusterId(3), closed(&all))]);
        let later = Stability { told, ..later };
        assert!(later.passed(5) && !later.passed(6));
    }

    #[test]
    fn alone_everything_of_ours_is_stable() {
        let alone = Stability { own: OWN, heard: Closed::new(), told: BTreeMap::new() };
        assert!(alone.stable(stamp(9, 1)) && alone.passed(9));
        assert_eq!(alone.horizon(Hlc(7)), Hlc(7));
    }
}
