//! Clusters, what happens to them, and how it ends.

use super::checker::Checker;
use super::commands::{self, KEYS, Mix};
use super::dead::Dead;
use super::dice::Dice;
use super::group::SimGroup;
use super::link::{Call, Pending, Route, Tenure};
use super::merge::Merge;
use super::mesh::Mesh;
use super::oracle::Oracle;
use super::story::Story;
use crate::receiver;
use flotilla_node::group::GroupContext;
use flotilla_node::group::leader::{LeaderClock, Work};
use flotilla_node::group::live::LiveSet;
use flotilla_node::group::upkeep::{TICK_INTERVAL, TICK_INTERVAL_IDLE};
use flotilla_topology::ids::{ClusterId, GroupId, Incarnation, Origin};
use flotilla_topology::slot::{Slot, SlotRange};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// A history went wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// Which invariant.
    pub invariant: &'static str,
    /// In one line.
    pub what: String,
}

pub(super) type Step<T = ()> = Result<T, Broken>;

/// What a history favours.
pub(super) struct Taste {
    /// Of each cluster.
    pub(super) mixes: Vec<Mix>,
    keys: usize,
    /// Weights: writing, cleaning, leaders.
    writes: usize,
    upkeep: usize,
    /// Links that are slow, by receiving and sending cluster.
    pub(super) slow: BTreeSet<(usize, usize)>,
    /// How often something goes over one of those, in percent.
    pub(super) slow_pace: usize,
    pub(super) dead: Option<Dead>,
    /// Weight of merges.
    pub(super) merges: usize,
    /// How often a merge goes on, in percent.
    merge_pace: usize,
    pub(super) syncers: usize,
    /// Weight of what happens to the set of clusters: fences and returns.
    pub(super) fences: usize,
    refusals: bool,
    /// How far stamps may run ahead before they are parked.
    max_skew_ms: u64,
}

impl Taste {
    /// That of a history with so many clusters. `parks`: what is ahead in time is.
    fn new(dice: &mut Dice, count: usize, fences: usize, parks: bool) -> Taste {
        let pairs = (0..count * count).map(|pair| (pair / count, pair % count));
        let dead = (fences == 0 && count == 3 && dice.chance(12)).then(|| Dead::new(dice));
        // A link that is all but dead hides one cluster's doings from one.
        let (slow, slow_pace) = match &dead {
            Some(dead) => dead.slow(dice),
            None if dice.chance(25) => (pairs.filter(|_| dice.chance(15)).collect(), 1),
            None => (pairs.filter(|_| dice.chance(35)).collect(), 20),
        };
        let mixes = match &dead {
            Some(dead) => dead.mixes(dice),
            None => vec![Mix::new(dice); count],
        };
        Taste {
            mixes,
            keys: if dead.is_some() { 1 } else { 1 + dice.roll(3) },
            writes: 10 + dice.roll(20),
            upkeep: dice.pick(&[6, 14, 26]),
            slow,
            slow_pace,
            dead,
            merges: dice.pick(&[0, 12, 12, 12, 36]),
            merge_pace: dice.pick(&[100, 100, 20]),
            syncers: 1 + dice.roll(2),
            fences,
            refusals: dice.chance(30),
            max_skew_ms: if parks { 2 } else { SKEW_NEVER_MS },
        }
    }
}

/// How far a leader's clock may be off.
pub(super) const OFFSET_MAX_MS: usize = 4;
/// Nothing is parked.
const SKEW_NEVER_MS: u64 = 1_000_000;

/// See the module.
pub struct World {
    pub(super) dice: Dice,
    pub(super) taste: Taste,
    pub(super) clusters: Vec<Vec<SimGroup>>,
    pub(super) tenures: BTreeMap<(usize, usize, usize), Tenure>,
    pub(super) calls: BTreeMap<(usize, usize), VecDeque<Call>>,
    pub(super) pending: Vec<Pending>,
    pub(super) merges: Vec<Merge>,
    pub(super) mesh: Mesh,
    pub(super) oracle: Oracle,
    pub(super) checker: Checker,
    /// Wall time of a perfect clock, in milliseconds.
    pub(super) now_ms: u64,
    pub(super) instant: Instant,
    pub(super) faults: bool,
    pub(super) streams: u64,
    pub(super) ids: u64,
    /// What happened, if somebody wants to read it.
    pub(super) story: Option<Story>,
}

pub(super) fn origin(place: usize) -> Origin {
    Origin { cluster: ClusterId(place as u8 + 1), incarnation: Incarnation(1) }
}

/// Number of a group: no two clusters of a history share one, so that mixing them up shows.
pub(super) fn group_id(cluster: usize, group: usize) -> GroupId {
    GroupId(cluster as u32 * 10 + group as u32 + 1)
}

impl World {
    /// A history from its seed.
    pub fn new(seed: u64, trace: bool) -> World {
        let mut dice = Dice::new(seed);
        // Weight of what happens to the set of clusters.
        let fences = dice.pick(&[0, 0, 0, 20, 140]);
        let count = match fences {
            0 => 2 + dice.roll(2) + usize::from(dice.chance(8)),
            _ => dice.pick(&[2, 3, 3, 3, 4]),
        };
        let taste = Taste::new(&mut dice, count, fences, seed.is_multiple_of(3));
        let mut partitions = vec![1u32, 2, 3, 2];
        for last in (1..4).rev() {
            partitions.swap(last, dice.roll(last + 1));
        }
        let mut world = World {
            clusters: Vec::new(),
            taste,
            dice,
            tenures: BTreeMap::new(),
            calls: BTreeMap::new(),
            pending: Vec::new(),
            merges: Vec::new(),
            mesh: Mesh::new(count),
            oracle: Oracle::default(),
            checker: Checker::default(),
            now_ms: 10,
            instant: Instant::now(),
            faults: true,
            streams: 0,
            ids: 0,
            story: trace.then(Story::default),
        };
        for (place, partitions) in partitions.into_iter().take(count).enumerate() {
            let group = |index: u32| {
                SimGroup::new(GroupContext {
                    group: group_id(place, index as usize),
                    slots: SlotRange::partition(index, partitions),
                    born_synced: true,
                    origin: origin(place),
                    max_skew_ms: world.taste.max_skew_ms,
                })
            };
            world.clusters.push((0..partitions).map(group).collect());
        }
        world.checker = Checker::new(&world.clusters);
        world.link_all(count);
        world
    }

    fn link_all(&mut self, count: usize) {
        for (cluster, group) in self.groups() {
            let live = (0..count).filter(|other| *other != cluster);
            let live = live.map(|other| origin(other).cluster).collect();
            let set = LiveSet { version: 1, live, ..LiveSet::default() };
            let (answer, _) = oneshot::channel();
            self.submit((cluster, group), Work::Live { set, answer });
            let group = &mut self.clusters[cluster][group];
            group.commit(&mut self.dice, usize::MAX, false);
        }
        for (cluster, group) in self.groups() {
            for syncer in 0..self.taste.syncers {
                self.begin_tenure(cluster, group, syncer);
            }
        }
    }

    pub(super) fn tell(&mut self, what: impl FnOnce() -> String) {
        if let Some(story) = &mut self.story {
            story.tell(&self.clusters, what());
        }
    }

    pub(super) fn groups(&self) -> Vec<(usize, usize)> {
        let each = self.clusters.iter().enumerate();
        each.flat_map(|(cluster, groups)| (0..groups.len()).map(move |g| (cluster, g))).collect()
    }

    /// Which group of a cluster has a slot, by its place.
    pub(super) fn group_of(&self, cluster: usize, slot: Slot) -> usize {
        let mut groups = self.clusters[cluster].iter();
        let place = groups.position(|group| group.context.slots.contains(slot));
        place.expect("every slot has a group")
    }

    pub(super) fn clock(&self, at: (usize, usize)) -> LeaderClock {
        self.clusters[at.0][at.1].clock(self.now_ms, self.instant)
    }

    pub(super) fn submit(&mut self, at: (usize, usize), work: Work) {
        let clock = self.clock(at);
        self.clusters[at.0][at.1].submit(clock, work);
    }

    /// Steps until the faults end, and of those how many with writes: a fence and a return take a
    /// while, and one may come in the midst of writes or when most of them have arrived.
    pub(super) fn length(&mut self) -> (usize, usize) {
        if let Some(dead) = &self.taste.dead {
            return dead.length(&mut self.dice);
        }
        let fences = if self.taste.fences > 0 { 400 } else { 0 };
        let steps = 80 + self.dice.roll(320) + self.dice.roll(fences);
        (steps, if self.dice.chance(50) { steps } else { steps * 2 / 3 })
    }

    // ---- one step ----

    /// Whatever chance wants.
    pub fn step(&mut self, writes: bool) -> Step {
        if self.dice.chance(30) {
            self.now_ms += 1;
        }
        self.instant += Duration::from_millis(self.dice.roll(30) as u64);
        let cluster = self.dice.roll(self.clusters.len());
        let group = self.dice.roll(self.clusters[cluster].len());
        let (w, u) = (self.taste.writes, self.taste.upkeep);
        let merges = self.taste.merges;
        let at = self.dice.roll(w + u + 76 + merges + self.taste.fences);
        match at {
            at if at < w => {
                if writes {
                    self.write(cluster)?;
                }
            }
            at if at < w + u => self.housekeep((cluster, group)),
            at => match at - w - u {
                0..2 => self.elect((cluster, group)),
                2..8 => self.commit((cluster, group)),
                8..13 => self.learn_some((cluster, group)),
                13..18 => self.carry_up_some(),
                18..23 => self.carry_down_some(),
                23..30 => self.serve_some(),
                30..32 => self.tick_links(),
                32..35 => self.open_or_break(),
                35..37 => self.tell_floors((cluster, group)),
                37..39 => self.restart((cluster, group)),
                39 => self.clusters[cluster][group].catch_up(&mut self.dice),
                40..76 => self.deliver_some(),
                at if at >= 76 + merges => self.step_mesh(),
                at if at < 76 + merges / 4 => self.begin_merge((cluster, group)),
                _ => self.step_merges(),
            },
        }
        self.answers();
        self.check_cursors()?;
        self.check_found()
    }

    fn housekeep(&mut self, at: (usize, usize)) {
        self.instant += Duration::from_secs(1);
        let clock = self.clock(at);
        self.clusters[at.0][at.1].housekeep(clock);
        self.tell(|| format!("housekeep {at:?}"));
        self.maybe_commit(at);
    }

    fn elect(&mut self, at: (usize, usize)) {
        let offset = self.dice.roll(2 * OFFSET_MAX_MS + 1) as i64 - OFFSET_MAX_MS as i64;
        self.clusters[at.0][at.1].elect(&mut self.dice, offset);
        self.witness(at);
        self.tell(|| format!("elect {at:?}, clock {offset:+} ms"));
    }

    fn commit(&mut self, at: (usize, usize)) {
        let (most, refusals) = (1 + self.dice.roll(4), self.faults && self.taste.refusals);
        self.clusters[at.0][at.1].commit(&mut self.dice, most, refusals);
        self.witness(at);
    }

    /// Most of the time what was proposed is committed before anything else happens.
    pub(super) fn maybe_commit(&mut self, at: (usize, usize)) {
        if self.dice.chance(75) {
            self.commit(at);
        }
    }

    /// The oracle learns of everything that took effect, at once.
    pub(super) fn witness(&mut self, at: (usize, usize)) {
        self.oracle.witness(at, &self.clusters[at.0][at.1]);
        self.checker.witness(at, &mut self.clusters[at.0][at.1]);
    }

    fn write(&mut self, cluster: usize) -> Step {
        let key = KEYS[self.dice.roll(self.taste.keys)];
        let slot = Slot::of(key.as_bytes());
        let at = (cluster, self.group_of(cluster, slot));
        let line = self.taste.mixes[cluster].command(&mut self.dice, key, self.now_ms);
        self.command(at, key, &line)?;
        self.maybe_commit(at);
        Ok(())
    }

    /// A group evaluates a command; it must leave of its key what Redis leaves.
    pub(super) fn command(&mut self, at: (usize, usize), key: &str, line: &str) -> Step {
        let clock = self.clock(at);
        let group = &mut self.clusters[at.0][at.1];
        if group.leader.run.is_stopped() || !group.leader.run.can_take() {
            return Ok(());
        }
        let ms = group.leader.run.clock_at(clock.wall_ms).ms();
        let before = commands::look_at(group, key, ms);
        let (answer, reply) = oneshot::channel();
        let commands = vec![commands::parse(line)];
        self.submit(at, Work::Exec { commands, answer });
        if let Some(heard) = self.clusters[at.0][at.1].heard.last_mut() {
            heard.with(before.clone(), reply);
        }
        let after = commands::look_at(&mut self.clusters[at.0][at.1], key, ms);
        let want = commands::expected(&before, ms, key, line);
        self.tell(|| format!("{at:?} at {ms}: {line}: {before:?} -> {after:?}"));
        if after != want {
            let what =
                format!("{line} at {ms} left {after:?} of {before:?}, Redis leaves {want:?}");
            return Err(Broken { invariant: "semantic", what });
        }
        Ok(())
    }

    /// A merge into some group of another cluster.
    fn begin_merge(&mut self, from: (usize, usize)) {
        let (from, to) = match self.taste.dead {
            Some(Dead { from, to, .. }) => ((to, self.dice.roll(self.clusters[to].len())), from),
            None => (from, self.dice.roll(self.clusters.len())),
        };
        if to == from.0 || self.mesh.is_blocked(from.0, to) || !self.passes(from.0, to) {
            return;
        }
        let slots = self.clusters[from.0][from.1].context.slots;
        let groups = self.clusters[to].iter().enumerate();
        let targets: Vec<usize> =
            groups.filter(|(_, g)| g.context.slots.intersects(&slots)).map(|(at, _)| at).collect();
        let target = (to, targets[self.dice.roll(targets.len())]);
        let slots = self.clusters[target.0][target.1].context.slots;
        self.ids += 1;
        let source = &self.clusters[from.0][from.1];
        if let Some(merge) = Merge::cut(source, target, slots, self.ids, &mut self.dice) {
            self.merges.push(merge);
            self.tell(|| format!("cuts {from:?} for {target:?}"));
        }
    }

    fn step_merges(&mut self) {
        if self.merges.is_empty() || !self.dice.chance(self.taste.merge_pace) {
            return;
        }
        let index = self.dice.roll(self.merges.len());
        for _ in 0..1 + self.dice.roll(4) {
            let to = self.merges[index].to;
            let clock = self.clock(to);
            let (merge, target) = (&mut self.merges[index], &mut self.clusters[to.0][to.1]);
            match merge.is_done() {
                true if self.dice.chance(20) => merge.repeat(target, clock, &mut self.dice),
                true => {}
                false => merge.step(target, clock, &mut self.dice),
            }
            target.commit(&mut self.dice, 4, false);
            self.witness(to);
        }
        if self.merges.len() > 4 {
            self.merges.remove(0); // given up, or long done
        }
    }

    /// No more faults, and no clock is ahead any more.
    pub(super) fn end_faults(&mut self) {
        self.faults = false;
        self.mend_clocks();
    }

    /// Everything that is under way arrives, everybody ticks and cleans.
    pub(super) fn settle(&mut self, rounds: usize) -> Step {
        // A cluster for which nothing waits any more ticks every half minute only; after a fence one
        // may be done with what another still waits for.
        let pause = if self.mesh.fences > 0 { TICK_INTERVAL_IDLE } else { TICK_INTERVAL };
        for _ in 0..rounds {
            self.now_ms += 1;
            self.instant += pause;
            self.groups().into_iter().for_each(|at| self.tick(at));
            self.finish_merges();
            self.carry_everything();
            self.check_cursors()?;
            self.check_found()?;
        }
        Ok(())
    }

    /// A group does what is due by itself, and all of it is committed.
    pub(super) fn tick(&mut self, at: (usize, usize)) {
        self.clusters[at.0][at.1].commit_all(&mut self.dice);
        self.housekeep(at);
        self.clusters[at.0][at.1].commit_all(&mut self.dice);
        self.witness(at);
    }

    /// No clock is ahead any more, and nobody has seen a later time.
    fn mend_clocks(&mut self) {
        self.now_ms += 2 * OFFSET_MAX_MS as u64;
        for (cluster, group) in self.groups() {
            self.clusters[cluster][group].offset_ms = 0;
        }
    }

    fn finish_merges(&mut self) {
        for index in 0..self.merges.len() {
            if self.dice.chance(50) {
                continue; // given up
            }
            for _ in 0..200 {
                let to = self.merges[index].to;
                let clock = self.clock(to);
                let target = &mut self.clusters[to.0][to.1];
                self.merges[index].step(target, clock, &mut self.dice);
                target.commit_all(&mut self.dice);
                self.witness(to);
            }
        }
        self.merges.clear();
    }

    fn carry_everything(&mut self) {
        self.carry_over(|_| true);
    }

    /// Everything that is under way over some links arrives.
    pub(super) fn carry_over(&mut self, some: impl Fn(&Route) -> bool) {
        let routes: Vec<Route> = self.routes().into_iter().filter(|route| some(route)).collect();
        for route in routes.iter().copied() {
            if self.stream_of(route).is_none() {
                self.open_stream(route);
            }
        }
        for _ in 0..12 {
            self.instant += Duration::from_millis(400);
            for tenure in self.tenures.keys().copied().collect::<Vec<_>>() {
                self.learn(tenure, usize::MAX);
            }
            for route in routes.iter().copied() {
                while self.stream_of(route).is_some_and(|stream| !stream.down.is_empty()) {
                    self.carry_down(route);
                }
                self.tick_link(route);
                if self.stream_of(route).is_none() {
                    self.open_stream(route);
                }
                while let Some(batch) = self.stream_of(route).and_then(|s| s.up.pop_front()) {
                    self.receive(route, receiver::Event::Batch(Box::new(batch), 0));
                }
            }
            for at in self.groups() {
                while self.calls.get(&at).is_some_and(|calls| !calls.is_empty()) {
                    self.serve(at);
                    self.clusters[at.0][at.1].commit_all(&mut self.dice);
                    self.witness(at);
                    self.answers();
                }
            }
            for at in self.groups() {
                self.tell_floors(at);
                self.clusters[at.0][at.1].commit_all(&mut self.dice);
                self.witness(at);
            }
        }
    }
}
