//! Fences and returns of the simulation: what operators and PDs of all clusters do together, one
//! cluster at a time.
//!
//! A fence: every cluster that goes on refuses the streams of the one that is given up; then they merge
//! their states into each other, so that each has what any had of it; then it counts no more. A
//! return: every live cluster counts it again; it begins a new life, covers its state with those of
//! all live clusters, and gives them its own: each group by itself, as soon as it may. Groups learn
//! of either one after the other.

use super::commands::KEYS;
use super::group::SimGroup;
use super::merge::Merge;
use super::world::{Broken, Step, World, origin};
use flotilla_node::engine::view::{Overlay, View};
use flotilla_node::flaws::{self, Flaw};
use flotilla_node::group::cursor;
use flotilla_node::group::leader::Work;
use flotilla_node::group::life::Life;
use flotilla_node::group::live::LiveSet;
use flotilla_topology::ids::{ClusterId, GroupId, Incarnation, Origin};
use flotilla_topology::slot::Slot;
use flotilla_topology::stamp::{Hlc, Stamp};
use std::collections::{BTreeMap, BTreeSet};
use tokio::sync::oneshot;

/// Steps after which the set of clusters must have come to rest.
const MOVES_MAX: usize = 100_000;

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
    Exchanging,
}

struct Moving {
    cluster: usize,
    phase: Phase,
    /// States that must still be merged, from and to.
    pairs: BTreeSet<(At, At)>,
    merge: Option<((At, At), Merge)>,
}

/// Of one fence, the stamps that no other cluster need have seen until the return.
struct Unseen {
    cluster: ClusterId,
    /// Everybody who went on has had these, by slot.
    seen: BTreeMap<Slot, Stamp>,
    until: Stamp,
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
    /// What clusters wrote that others may have deleted without having seen it.
    unseen: Vec<Unseen>,
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
    pub(super) fn may_outlive_deletes(&self, slot: Slot, stamp: Stamp) -> bool {
        self.unseen.iter().filter(|unseen| unseen.cluster == stamp.cluster).any(|unseen| {
            let seen = unseen.seen.get(&slot).copied().unwrap_or(Stamp::ZERO);
            seen < stamp && stamp <= unseen.until
        })
    }

    /// The clusters that are not given up.
    pub(super) fn live(&self) -> Vec<usize> {
        (0..self.standing.len()).filter(|at| self.standing[*at] == Standing::Live).collect()
    }

    /// The same without one.
    fn others(&self, cluster: usize) -> Vec<usize> {
        self.live().into_iter().filter(|at| *at != cluster).collect()
    }

    /// Whether a cluster is given up.
    pub(super) fn is_apart(&self) -> bool {
        self.away().next().is_some()
    }

    fn away(&self) -> impl Iterator<Item = usize> {
        let all = self.standing.iter().enumerate();
        all.filter(|(_, standing)| **standing != Standing::Live).map(|(at, _)| at)
    }

    /// What was not seen of a cluster since its last fence.
    fn unseen_of(&mut self, cluster: usize) -> &mut Unseen {
        let own = origin(cluster).cluster;
        let mut unseen = self.unseen.iter_mut().rev();
        unseen.find(|unseen| unseen.cluster == own).expect("it was fenced")
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
        let away: Vec<usize> = self.mesh.away().collect();
        // Two that are away at once find what one that is away cannot.
        let fence = if away.is_empty() { 20 } else { 50 };
        if !away.is_empty() && (live.len() < 2 || self.dice.chance(25)) {
            let cluster = self.dice.pick(&away);
            self.begin_return(cluster);
        } else if live.len() > 1 && self.dice.chance(fence) {
            let cluster = self.dice.pick(&live);
            self.begin_fence(cluster);
        }
    }

    /// Whatever is under way ends, or, in the midst of everything, a cluster is given up once more;
    /// whether one is away then.
    pub(super) fn settle_apart(&mut self) -> Step<bool> {
        if self.taste.fences > 0 && self.mesh.moving.is_none() {
            let live = self.mesh.live();
            if live.len() > 2 && self.dice.chance(50) {
                let cluster = self.dice.pick(&live);
                self.begin_fence(cluster);
            }
        }
        self.end_moves()
    }

    fn end_moves(&mut self) -> Step<bool> {
        for _ in 0..MOVES_MAX {
            if self.mesh.moving.is_none() {
                break;
            }
            self.advance();
        }
        match &self.mesh.moving {
            None => Ok(self.mesh.is_apart()),
            Some(Moving { cluster, phase, pairs, .. }) => Err(Broken {
                invariant: "stuck",
                what: format!("cluster {cluster}, {phase:?}: not merged, from and to: {pairs:?}"),
            }),
        }
    }

    /// Whatever is under way ends, and everybody comes back.
    pub(super) fn settle_mesh(&mut self) -> Step {
        while self.end_moves()? {
            let away: Vec<usize> = self.mesh.away().collect();
            let cluster = self.dice.pick(&away);
            self.begin_return(cluster);
        }
        Ok(())
    }

    /// Every live cluster merges the states of all others (`flotilla link merge`).
    pub(super) fn merge_all(&mut self) -> Step {
        let live = self.mesh.live();
        let pairs = self.pairs(&live, &live);
        self.enter(live[0], Phase::Levelling, pairs);
        self.end_moves().map(|_| ())
    }

    fn begin_fence(&mut self, cluster: usize) {
        self.tell(|| format!("cluster {cluster} is fenced"));
        self.mesh.fences += 1;
        let until = Stamp { hlc: Hlc(u64::MAX), cluster: origin(cluster).cluster };
        let unseen = Unseen { cluster: until.cluster, seen: BTreeMap::new(), until };
        self.mesh.unseen.push(unseen);
        self.mesh.standing[cluster] = Standing::Fenced;
        self.mesh.version += 1;
        // Its streams may come until each group refuses them.
        let silent = self.dice.chance(50);
        self.block(cluster, silent);
        self.enter(cluster, Phase::Barring, BTreeSet::new());
    }

    /// Nothing goes to a cluster any more, nor, if it is `silent`, comes from it.
    fn block(&mut self, cluster: usize, silent: bool) {
        for other in (0..self.clusters.len()).filter(|other| *other != cluster) {
            self.mesh.blocked.insert((other, cluster));
            if silent {
                self.mesh.blocked.insert((cluster, other));
            }
        }
        for route in self.routes() {
            if self.mesh.is_blocked(route.from, route.to) {
                self.break_stream(route);
            }
        }
    }

    /// What every cluster that goes on will have had of one, once they are level: what it has heard
    /// itself, and what any other has in all groups that share slots with its own.
    fn seen_of(&self, cluster: usize, others: &[usize]) -> BTreeMap<Slot, Stamp> {
        let slots = KEYS.iter().map(|key| Slot::of(key.as_bytes()));
        let seen = slots.map(|slot| {
            let levels = others.iter().map(|own| {
                let group = |cluster: usize| &self.clusters[cluster][self.group_of(cluster, slot)];
                let (source, at) = (group(cluster), group(*own));
                let shared = source.context.slots.common(&at.context.slots);
                let shared = shared.expect("both have the slot");
                let of = |other: &usize| {
                    let groups = self.clusters[*other].iter();
                    let sharing = groups.filter(|group| group.context.slots.intersects(&shared));
                    sharing.map(|group| heard(group, source.context.group)).min()
                };
                let given = others.iter().filter_map(of).max().unwrap_or(Stamp::ZERO);
                given.max(heard(at, source.context.group))
            });
            (slot, levels.min().unwrap_or(Stamp::ZERO))
        });
        seen.collect()
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
        let others = self.mesh.others(cluster);
        // A cluster that counts again is sent states before it knows that it is in another life.
        let pairs = self.pairs(&others, &[cluster]);
        self.enter(cluster, Phase::Returning, pairs);
    }

    fn enter(&mut self, cluster: usize, phase: Phase, pairs: BTreeSet<(At, At)>) {
        self.tell(|| format!("cluster {cluster}: {phase:?}"));
        self.mesh.moving = Some(Moving { cluster, phase, pairs, merge: None });
    }

    fn advance(&mut self) {
        let Some(moving) = &self.mesh.moving else { return };
        let (cluster, phase) = (moving.cluster, moving.phase);
        let others = self.mesh.others(cluster);
        let told = match phase {
            Phase::Barring => self.tell_set(&others),
            Phase::Returning => {
                if self.dice.chance(50) {
                    self.merge_pairs();
                }
                self.tell_set(&self.mesh.live())
            }
            Phase::Levelling | Phase::Exchanging => self.merge_pairs(),
        };
        if !told {
            return;
        }
        match phase {
            Phase::Barring => {
                self.block(cluster, true);
                let seen = self.seen_of(cluster, &others);
                self.mesh.unseen_of(cluster).seen = seen;
                let level = !flaws::has(Flaw::NoLevel);
                let pairs = if level { self.pairs(&others, &others) } else { BTreeSet::new() };
                self.enter(cluster, Phase::Levelling, pairs);
            }
            Phase::Levelling => self.mesh.moving = None,
            Phase::Returning => {
                let back = self.pairs(&[cluster], &others);
                self.tell(|| format!("cluster {cluster}: {:?}", Phase::Exchanging));
                if let Some(moving) = &mut self.mesh.moving {
                    moving.phase = Phase::Exchanging;
                    if !flaws::has(Flaw::NoReissue) {
                        moving.pairs.extend(back);
                    }
                }
            }
            Phase::Exchanging => self.is_back(cluster, &others),
        }
    }

    fn is_back(&mut self, cluster: usize, others: &[usize]) {
        let last = self.clusters[cluster].iter().map(|group| group.state.meta.own).max();
        self.mesh.unseen_of(cluster).until = last.unwrap_or_default();
        self.tell(|| format!("cluster {cluster} is back"));
        self.mesh.moving = None;
        for other in others {
            self.mesh.blocked.remove(&(cluster, *other));
            self.mesh.blocked.remove(&(*other, cluster));
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
            if !self.dice.chance(70) {
                continue; // it hears of it later
            }
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
            let pairs = moving.pairs.iter();
            let Some(pair) = pairs.copied().nth(self.dice.roll(moving.pairs.len().max(1))) else {
                self.mesh.moving = Some(moving);
                return true;
            };
            let (from, to) = pair;
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

/// How far a group has heard of a group of another cluster, in any of its lives.
fn heard(group: &SimGroup, source: GroupId) -> Stamp {
    let cursors = cursor::read_all(&group.state.rows).expect("rows in memory can be read");
    let of = cursors.iter().filter(|((_, group), _)| *group == source);
    of.map(|(_, cursor)| cursor.closed).max().unwrap_or(Stamp::ZERO)
}
