//! Clusters give up one that has been away for long beyond its backlog budget: together, and by
//! themselves, if the configuration says after how long (`fence_after_seconds`).
//!
//! A peer is *away beyond its budget* while some group's log no longer reaches back to it and none of
//! the links to it moves. It is *overdue* when that lasted for so long; the syncers tell the other
//! clusters so, and these tell us what they find. It is fenced here when every other cluster that
//! counts finds it overdue too, or has fenced it. So:
//! * It takes three clusters. Of two that cannot see each other each would give up the other, and
//!   neither could come back with its data.
//! * A cluster that sees nobody fences nobody: it hears no other cluster's view.
//! * Who has another trouble has no say: all other links must move, and nobody that counts may have
//!   been fenced elsewhere. So nobody speaks against two at once, of which each could be the other's
//!   witness.
//!
//! What is known for this is heard, not stored: after a restart of PD the time begins anew.

use super::State;
use flotilla_topology::api::{PeerCluster, Standing, View};
use flotilla_topology::ids::ClusterId;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

impl State {
    /// Notes since when peers are away beyond their budget, and who is overdue.
    pub(super) fn notice_overdue(&mut self) {
        let now_ms = self.live.now_ms;
        let away = self.away_beyond_budget();
        if away.is_empty() && self.live.away_since.is_empty() {
            return;
        }
        let known = std::mem::take(&mut self.live.away_since);
        let since = |id: ClusterId| (id, known.get(&id).copied().unwrap_or(now_ms));
        self.live.away_since = away.into_iter().map(since).collect();
        let after_ms =
            self.settings.fence_after_seconds.map(|seconds| seconds.saturating_mul(1000));
        let long = |(_, since): &(&ClusterId, &u64)| {
            after_ms.is_some_and(|after_ms| now_ms.saturating_sub(**since) >= after_ms)
        };
        let overdue: BTreeSet<ClusterId> =
            self.live.away_since.iter().filter(long).map(|(id, _)| *id).collect();
        if self.live.shown.overdue != overdue {
            Arc::make_mut(&mut self.live.shown).overdue = overdue;
        }
    }

    /// Fences who is overdue here and everywhere else.
    pub(super) fn fence_together(&mut self) {
        let overdue: Vec<ClusterId> = self.live.shown.overdue.iter().copied().collect();
        for id in overdue {
            let others = self.durable.counting_peers().filter(|peer| peer.id != id);
            let others: Vec<ClusterId> = others.map(|peer| peer.id).collect();
            let agree = |other: &ClusterId| {
                matches!(self.view(*other, id), Some(View::Overdue | View::Fenced))
            };
            if !others.is_empty() && others.iter().all(agree) {
                self.give_up(id);
            }
        }
    }

    /// Live peers that some group's log no longer reaches, and to which nothing moves, if all other
    /// links are well.
    fn away_beyond_budget(&self) -> BTreeSet<ClusterId> {
        let nodes = &self.live.nodes;
        let alive = nodes.iter().filter(|(name, _)| self.live.shown.nodes.contains(*name));
        let led = alive.flat_map(|(_, node)| node.replicas.iter()).filter(|replica| replica.leads);
        let outrun: BTreeSet<ClusterId> = led.flat_map(|replica| replica.outrun.clone()).collect();
        if outrun.is_empty() {
            return outrun;
        }
        let moving = self.moving();
        let all: Vec<&PeerCluster> = self.durable.counting_peers().collect();
        let is_away = |peer: &&&PeerCluster| {
            let id = peer.id;
            let waits = peer.standing == Standing::Live && !peer.paused && outrun.contains(&id);
            let well = all.iter().filter(|other| other.id != id).all(|other| {
                moving.get(&other.id) == Some(&true) && !self.gives_up_another(other.id, id)
            });
            waits && moving.get(&id) == Some(&false) && well
        };
        all.iter().filter(is_away).map(|peer| peer.id).collect()
    }

    /// Whether all links to a peer move (true), none does (false), or neither.
    fn moving(&self) -> BTreeMap<ClusterId, bool> {
        let (mut some, mut none) = (BTreeSet::new(), BTreeSet::new());
        let syncers = &self.live.syncers;
        let alive = syncers.iter().filter(|(name, _)| self.live.shown.syncers.contains(*name));
        for (link, _) in alive.flat_map(|(_, syncer)| syncer.links.iter()) {
            let told = if link.state.moves() { &mut some } else { &mut none };
            told.insert(link.peer);
        }
        let clear = some.symmetric_difference(&none);
        clear.map(|peer| (*peer, some.contains(peer))).collect()
    }

    /// Whether a peer has fenced a cluster, other than `but`, that counts here.
    fn gives_up_another(&self, peer: ClusterId, but: ClusterId) -> bool {
        let mut others = self.durable.counting_peers().filter(|other| other.id != but);
        others.any(|other| self.view(peer, other.id) == Some(View::Fenced))
    }

    /// What a peer said last of a cluster, to a syncer that is alive.
    fn view(&self, by: ClusterId, of: ClusterId) -> Option<View> {
        let syncers = &self.live.syncers;
        let alive = syncers.iter().filter(|(name, _)| self.live.shown.syncers.contains(*name));
        let views = alive.flat_map(|(_, syncer)| syncer.views.iter()).filter(|view| view.by == by);
        let said = views.flat_map(|view| &view.of).filter(|(cluster, _)| *cluster == of);
        // Of several the mildest: they were heard at different times.
        said.map(|(_, view)| *view).min()
    }
}
