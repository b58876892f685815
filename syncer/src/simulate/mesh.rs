//! Fences and returns of the simulation: what operators and PDs of all clusters do together, one
//! cluster at a time.
//!
//! A fence: every cluster that goes on refuses the streams of the one that is given up; then they merge
//! their states into each other, so that each has what any had of it; then it counts no more.
//! A
//! return: every live cluster counts it again; it begins a new life, covers its state with those of
//! all live clusters, and then gives them its own.

use super::merge::Merge;
use super::world::{World, origin};
use flotilla_node::engine::view::{Overlay, View};
use flotilla_node::flaws::{self, Flaw};
use flotilla_node::group::cursor;
use flotilla_node::group::leader::Work;
use flotilla_node::group::life::Life;
use flotilla_node::group::live::LiveSet;
use flotilla_topology::ids::{Incarnation, Origin};
use flotilla_topology::stamp::{Hlc, Stamp};
use std::collections::BTreeSet;
use tokio::sync::oneshot;

/// A group, by place of its cluster and its own.
type At = (usize, usize);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Live,
    Fenced,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Barring,
    Levelling,
    Returning,
    Covering,
    Giving,
}

struct Moving {
    cluster: usize,
    phase: Phase,
    /// States that must still be merged, from and to.
    pairs: BTreeSet<(At, At)>,
    merge: Option<((At, At), Merge)>,
}

/// See the module.
pub(super) struct Mesh {
    version: u64,
    standing: Vec<Standing>,
    moving: Option<Moving>,
    /// Nothing goes from one to the other.
    blocked: BTreeSet<(usize, usize)>,
    /// Clusters were fenced in this history.
    pub(super) fences: usize,
    /// What clusters wrote that others deleted without having seen it: of each fence, the stamps
    /// that no other cluster may have seen until the return.
    unseen: Vec<(Stamp, Stamp)>,
}

impl Mesh {
    pub(super) fn new(clusters: usize) -> Mesh {
        Mesh {
            version: 1,
            standing: vec![Standing::Live; clusters],
            moving: None,
            blocked: BTreeSet::new(),
            fences: 0,
            unseen: Vec::new(),
        }
    }

    pub(super) fn is_blocked(&self, from: usize, to: usize) -> bool {
        self.blocked.contains(&(from, to))
    }

    /// Whether a row was written where nobody saw it. What is deleted and forgotten meanwhile cannot
    /// delete it.
    pub(super) fn may_outlive_deletes(&self, stamp: Stamp) -> bool {
        let unseen = |(from, to): &(Stamp, Stamp)| {
            from.cluster == stamp.cluster && *from < stamp && stamp <= *to
        };
        self.unseen.iter().any(unseen)
    }

    /// Whether states go from one cluster to another: also to one that returns, as soon as it counts
    /// again and before it knows that it is in another life.
    pub(super) fn may_merge(&self, from: usize, to: usize) -> bool {
        let returns = self.moving.as_ref().is_some_and(|moving| {
            moving.cluster == to && matches!(moving.phase, Phase::Returning | Phase::Covering)
        });
        let live = self.standing[from] == Standing::Live && returns;
        live || !self.is_blocked(from, to)
    }

    fn live(&self) -> Vec<usize> {
        (0..self.standing.len()).filter(|at| self.standing[*at] == Standing::Live).collect()
    }

    /// What a cluster's PD tells its groups.
    fn set_for(&self, own: usize) -> LiveSet {
        let of = |wanted: Standing| {
            let all = self.standing.iter().enumerate();
            let some = all.filter(|(at, standing)| *at != own && **standing == wanted);
            some.map(|(at, _)| origin(at).cluster).collect()
        };
        LiveSet {
            version: self.version,
            live: of(Standing::Live),
            fenced: of(Standing::Fenced),
            ..LiveSet::default()
        }
    }
}

impl World {
    /// The next thing that happens to the set of clusters.
    pub(super) fn step_mesh(&mut self) {
        if self.mesh.moving.is_some() {
            return self.advance();
        }
        let live = self.mesh.live();
        let away: Vec<usize> = (0..self.clusters.len()).filter(|at| !live.contains(at)).collect();
        if !away.is_empty() && (live.len() < 2 || self.dice.chance(50)) {
            let cluster = away[self.dice.roll(away.len())];
            self.begin_return(cluster);
        } else if live.len() > 1 && self.dice.chance(20) {
            let cluster = live[self.dice.roll(live.len())];
            self.begin_fence(cluster);
        }
    }

    /// Whatever is under way ends, and everybody comes back.
    pub(super) fn settle_mesh(&mut self) {
        for _ in 0..100_000 {
            if self.mesh.moving.is_some() {
                self.advance();
                continue;
            }
            let away = self.mesh.standing.iter().position(|s| *s != Standing::Live);
            let Some(away) = away else { return };
            self.begin_return(away);
        }
        panic!("the set of clusters does not come to rest");
    }

    fn begin_fence(&mut self, cluster: usize) {
        self.tell(|| format!("cluster {cluster} is fenced"));
        self.mesh.fences += 1;
        let seen = self.seen_of(cluster);
        self.mesh.unseen.push((seen, Stamp { hlc: Hlc(u64::MAX), ..seen }));
        self.mesh.standing[cluster] = Standing::Fenced;
        self.mesh.version += 1;
        for other in (0..self.clusters.len()).filter(|other| *other != cluster) {
            self.mesh.blocked.extend([(cluster, other), (other, cluster)]);
        }
        for route in self.routes() {
            if self.mesh.is_blocked(route.from, route.to) {
                self.break_stream(route);
            }
        }
        self.enter(cluster, Phase::Barring, BTreeSet::new());
    }

    /// What every other cluster has of one, at least.
    fn seen_of(&self, cluster: usize) -> Stamp {
        let zero = Stamp { hlc: Hlc::ZERO, cluster: origin(cluster).cluster };
        let mut seen: Option<Stamp> = None;
        for group in self.clusters.iter().enumerate().filter(|(at, _)| *at != cluster) {
            for group in group.1 {
                let cursors = cursor::read_all(&group.state.rows).expect("rows in memory");
                let closed = cursor::closed_vector(&cursors, group.context.slots);
                let of = closed.into_iter().find(|(id, _)| *id == zero.cluster);
                let of = of.map_or(zero, |(_, stamp)| stamp);
                seen = Some(seen.map_or(of, |seen| seen.min(of)));
            }
        }
        seen.map_or(zero, |seen| Stamp { cluster: zero.cluster, ..seen })
    }

    fn begin_return(&mut self, cluster: usize) {
        self.mesh.standing[cluster] = Standing::Live;
        self.mesh.version += 1;
        for group in 0..self.clusters[cluster].len() {
            let state = &mut self.clusters[cluster][group];
            let life = state.context.origin.incarnation.0 + 1;
            let next = Origin { incarnation: Incarnation(life), ..state.context.origin };
            state.begin_life(&mut self.dice, next);
            self.witness((cluster, group));
            for syncer in 0..self.taste.syncers {
                self.begin_tenure(cluster, group, syncer);
            }
        }
        self.tell(|| format!("cluster {cluster} returns"));
        self.enter(cluster, Phase::Returning, BTreeSet::new());
    }

    fn enter(&mut self, cluster: usize, phase: Phase, pairs: BTreeSet<(At, At)>) {
        self.tell(|| format!("cluster {cluster}: {phase:?}"));
        self.mesh.moving = Some(Moving { cluster, phase, pairs, merge: None });
    }

    fn advance(&mut self) {
        let Some(moving) = &self.mesh.moving else { return };
        let (cluster, phase) = (moving.cluster, moving.phase);
        let mut others = self.mesh.live();
        others.retain(|at| *at != cluster);
        let told = match phase {
            Phase::Barring => self.tell_set(&others),
            Phase::Returning => self.tell_set(&self.mesh.live()),
            Phase::Levelling | Phase::Covering | Phase::Giving => self.merge_pairs(),
        };
        if !told {
            return;
        }
        match phase {
            Phase::Barring => {
                let level = !flaws::has(Flaw::NoLevel);
                let pairs = if level { self.pairs(&others, &others) } else { BTreeSet::new() };
                self.enter(cluster, Phase::Levelling, pairs);
            }
            Phase::Returning => {
                let pairs = self.pairs(&others, &[cluster]);
                self.enter(cluster, Phase::Covering, pairs);
            }
            Phase::Covering => {
                let gives = !flaws::has(Flaw::NoReissue);
                let pairs = if gives { self.pairs(&[cluster], &others) } else { BTreeSet::new() };
                self.enter(cluster, Phase::Giving, pairs);
            }
            Phase::Levelling => self.mesh.moving = None,
            Phase::Giving => {
                let last = self.clusters[cluster].iter().map(|group| group.state.meta.own).max();
                let mut unseen = self.mesh.unseen.iter_mut().rev();
                let own = origin(cluster).cluster;
                if let Some(open) = unseen.find(|(from, _)| from.cluster == own) {
                    open.1 = last.unwrap_or_default();
                }
                self.tell(|| format!("cluster {cluster} is back"));
                self.mesh.moving = None;
                for other in others {
                    self.mesh.blocked.remove(&(cluster, other));
                    self.mesh.blocked.remove(&(other, cluster));
                }
            }
        }
    }

    /// Groups of `from` and `to` that share slots.
    fn pairs(&self, from: &[usize], to: &[usize]) -> BTreeSet<(At, At)> {
        let places = |clusters: &[usize]| -> Vec<At> {
            let mut places = self.groups();
            places.retain(|(cluster, _)| clusters.contains(cluster));
            places
        };
        let slots = |at: At| self.clusters[at.0][at.1].context.slots;
        let mut pairs = BTreeSet::new();
        for from in places(from) {
            let sharing = places(to).into_iter().filter(|to| to.0 != from.0);
            pairs.extend(
                sharing.filter(|to| slots(from).intersects(&slots(*to))).map(|to| (from, to)),
            );
        }
        pairs
    }

    /// Tells the groups of some clusters of the present set; whether all have it.
    fn tell_set(&mut self, clusters: &[usize]) -> bool {
        let mut all = true;
        for at in self.groups() {
            if !clusters.contains(&at.0) || self.follows(at) {
                continue;
            }
            all = false;
            let set = self.mesh.set_for(at.0);
            let (answer, _) = oneshot::channel();
            self.submit(at, Work::Live { set, answer });
            self.maybe_commit(at);
        }
        all
    }

    fn follows(&self, at: At) -> bool {
        let group = &self.clusters[at.0][at.1];
        let mut overlay = Overlay::new();
        let view = View::new(&group.state.rows, &mut overlay);
        let set = LiveSet::read(&view).expect("rows in memory can be read");
        let life = Life::read(&view).expect("rows in memory can be read");
        set.is_some_and(|set| set.version >= self.mesh.version)
            && life.is_some_and(|life| life.life == group.context.origin.incarnation)
    }

    /// Goes on with one of the merges that are wanted; whether none is any more.
    fn merge_pairs(&mut self) -> bool {
        let Some(mut moving) = self.mesh.moving.take() else { return true };
        if moving.merge.is_none() {
            let Some(pair) = moving.pairs.iter().nth(self.dice.roll(moving.pairs.len().max(1)))
            else {
                self.mesh.moving = Some(moving);
                return true;
            };
            let (from, to) = *pair;
            let slots = self.clusters[to.0][to.1].context.slots;
            self.ids += 1;
            let source = &self.clusters[from.0][from.1];
            let cut = Merge::cut(source, to, slots, self.ids, &mut self.dice);
            // A replica that lags may not know the set or the life yet, and then it is not cut.
            let (peer, mesh) = (origin(to.0).cluster, self.mesh.version);
            let given = |merge: &Merge| merge.is_given(source, peer, mesh);
            moving.merge = cut.filter(given).map(|merge| ((from, to), merge));
        }
        if let Some((pair, mut merge)) = moving.merge.take() {
            let (from, to) = pair;
            for _ in 0..1 + self.dice.roll(6) {
                let clock = self.clock(to);
                let target = &mut self.clusters[to.0][to.1];
                merge.step(target, clock, &mut self.dice);
                target.commit(&mut self.dice, 4, false);
                self.witness(to);
            }
            let given_up = self.faults && self.dice.chance(3);
            match merge.is_done() || given_up {
                false => moving.merge = Some((pair, merge)),
                true if merge.is_closed() => {
                    moving.pairs.remove(&pair);
                    self.tell(|| format!("{to:?} has the state of {from:?}"));
                }
                true => {}
            }
        }
        let done = moving.pairs.is_empty();
        self.mesh.moving = Some(moving);
        done
    }
}
