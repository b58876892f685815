//! Clusters, what happens to them, and how it ends.

use super::commands::{self, KEYS, Mix};
use super::dice::Dice;
use super::group::SimGroup;
use super::link::{Call, Pending, Route, Stream, Tenure, batch_of};
use super::merge::Merge;
use super::oracle::Oracle;
use crate::receiver::{self, Failure, Receiver};
use crate::shipper;
use flotilla_node::engine::keys;
use flotilla_node::engine::view::Rows;
use flotilla_node::group::GroupContext;
use flotilla_node::group::cursor;
use flotilla_node::group::leader::{LeaderClock, Work};
use flotilla_node::group::live::LiveSet;
use flotilla_node::group::remote::{Answer, LinkFloor};
use flotilla_topology::ids::{ClusterId, GroupId, Incarnation, LogId, Origin};
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
    mix: Mix,
    keys: usize,
    /// Weights: writing, cleaning, leaders.
    writes: usize,
    upkeep: usize,
    /// Links that are slow, by receiving and sending cluster.
    slow: BTreeSet<(usize, usize)>,
    merges: bool,
    syncers: usize,
    refusals: bool,
}

/// See the module.
pub struct World {
    pub(super) dice: Dice,
    pub(super) taste: Taste,
    pub(super) clusters: Vec<Vec<SimGroup>>,
    tenures: BTreeMap<(usize, usize, usize), Tenure>,
    calls: BTreeMap<(usize, usize), VecDeque<Call>>,
    pending: Vec<Pending>,
    merges: Vec<Merge>,
    pub(super) oracle: Oracle,
    /// Wall time of a perfect clock, in milliseconds.
    pub(super) now_ms: u64,
    pub(super) instant: Instant,
    faults: bool,
    streams: u64,
    ids: u64,
    /// What happened, if somebody wants to read it.
    pub trace: Option<Vec<String>>,
}

fn origin(place: usize) -> Origin {
    Origin { cluster: ClusterId(place as u8 + 1), incarnation: Incarnation(1) }
}

/// Number of a group: no two clusters of a history share one, so that mixing them up shows.
fn group_id(cluster: usize, group: usize) -> GroupId {
    GroupId(cluster as u32 * 10 + group as u32 + 1)
}

impl World {
    /// A history from its seed.
    pub fn new(seed: u64, trace: bool) -> World {
        let mut dice = Dice::new(seed);
        let count = 2 + dice.roll(2) + usize::from(dice.chance(8));
        let taste = Taste {
            mix: Mix::new(&mut dice),
            keys: 1 + dice.roll(3),
            writes: 10 + dice.roll(20),
            upkeep: dice.pick(&[6, 14, 26]),
            slow: (0..count * count)
                .map(|pair| (pair / count, pair % count))
                .filter(|_| dice.chance(35))
                .collect(),
            merges: dice.chance(70),
            syncers: 1 + dice.roll(2),
            refusals: dice.chance(30),
        };
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
            oracle: Oracle::default(),
            now_ms: 10,
            instant: Instant::now(),
            faults: true,
            streams: 0,
            ids: 0,
            trace: trace.then(Vec::new),
        };
        for (place, partitions) in partitions.into_iter().take(count).enumerate() {
            let group = |index: u32| {
                SimGroup::new(GroupContext {
                    group: group_id(place, index as usize),
                    slots: SlotRange::partition(index, partitions),
                    synced: true,
                    origin: origin(place),
                    max_skew_ms: 0,
                })
            };
            world.clusters.push((0..partitions).map(group).collect());
        }
        world.link_all(count);
        world
    }

    fn link_all(&mut self, count: usize) {
        for (cluster, group) in self.groups() {
            let live = (0..count).filter(|other| *other != cluster);
            let live = live.map(|other| origin(other).cluster).collect();
            let set = LiveSet { version: 1, live, fenced: BTreeSet::new() };
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
        if let Some(trace) = &mut self.trace {
            trace.push(what());
        }
    }

    pub(super) fn groups(&self) -> Vec<(usize, usize)> {
        let each = self.clusters.iter().enumerate();
        each.flat_map(|(cluster, groups)| (0..groups.len()).map(move |g| (cluster, g))).collect()
    }

    fn clock(&self, at: (usize, usize)) -> LeaderClock {
        self.clusters[at.0][at.1].clock(self.now_ms, self.instant)
    }

    fn submit(&mut self, at: (usize, usize), work: Work) {
        let clock = self.clock(at);
        self.clusters[at.0][at.1].submit(clock, work);
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
        let merges = if self.taste.merges { 14 } else { 0 };
        let at = self.dice.roll(w + u + 75 + merges);
        match at {
            at if at < w => {
                if writes {
                    self.write(cluster)?;
                }
            }
            at if at < w + u => self.housekeep((cluster, group)),
            at => match at - w - u {
                0..2 => self.elect((cluster, group)),
                2..16 => self.commit((cluster, group)),
                16..26 => self.learn_some((cluster, group)),
                26..38 => self.carry_up_some(),
                38..48 => self.carry_down_some(),
                48..62 => self.serve_some(),
                62..66 => self.tick_links(),
                66..70 => self.open_or_break(),
                70..72 => self.tell_floors((cluster, group)),
                72..74 => self.restart((cluster, group)),
                74 => self.clusters[cluster][group].catch_up(&mut self.dice),
                75..79 => self.begin_merge((cluster, group)),
                _ => self.step_merges(),
            },
        }
        self.answers();
        self.check_cursors()
    }

    fn housekeep(&mut self, at: (usize, usize)) {
        self.instant += Duration::from_secs(1);
        let clock = self.clock(at);
        self.clusters[at.0][at.1].housekeep(clock);
        self.tell(|| format!("housekeep {at:?}"));
    }

    fn elect(&mut self, at: (usize, usize)) {
        let offset = self.dice.roll(9) as i64 - 4;
        self.clusters[at.0][at.1].elect(&mut self.dice, offset);
        self.witness(at);
        self.tell(|| format!("elect {at:?}, clock {offset:+} ms"));
    }

    fn commit(&mut self, at: (usize, usize)) {
        let (most, refusals) = (1 + self.dice.roll(4), self.faults && self.taste.refusals);
        self.clusters[at.0][at.1].commit(&mut self.dice, most, refusals);
        self.witness(at);
    }

    /// The oracle learns of everything that took effect, at once.
    fn witness(&mut self, at: (usize, usize)) {
        self.oracle.witness(at, &self.clusters[at.0][at.1]);
    }

    fn write(&mut self, cluster: usize) -> Step {
        let key = KEYS[self.dice.roll(self.taste.keys)];
        let slot = Slot::of(key.as_bytes());
        let groups = &self.clusters[cluster];
        let group = groups.iter().position(|group| group.context.slots.contains(slot));
        let at = (cluster, group.expect("every slot has a group"));
        let line = self.taste.mix.command(&mut self.dice, key, self.now_ms);
        let clock = self.clock(at);
        let group = &mut self.clusters[at.0][at.1];
        if group.leader.run.is_stopped() || !group.leader.run.can_take() {
            return Ok(());
        }
        let ms = group.leader.run.clock_at(clock.wall_ms).ms();
        let before = commands::look_at(group, key, ms);
        let (answer, _) = oneshot::channel();
        let commands = vec![commands::parse(&line)];
        self.submit(at, Work::Exec { commands, answer });
        let after = commands::look_at(&mut self.clusters[at.0][at.1], key, ms);
        let want = commands::expected(&before, ms, key, &line);
        self.tell(|| format!("{at:?} at {ms}: {line}: {before:?} -> {after:?}"));
        if after != want {
            let what = format!("{line} at {ms} left {after:?} of {before:?}, Redis leaves {want:?}");
            return Err(Broken { invariant: "semantic", what });
        }
        Ok(())
    }

    // ---- links ----

    fn floors(&self, at: (usize, usize)) -> Vec<LinkFloor> {
        let rows = &self.clusters[at.0][at.1].state.rows;
        let rows = Rows::scan(rows, keys::of_kind(keys::LINK_FLOOR), false);
        let floor = |row: std::io::Result<(bytes::Bytes, bytes::Bytes)>| {
            LinkFloor::decode(&row.expect("rows in memory").1).expect("floors are readable")
        };
        rows.map(floor).collect()
    }

    fn begin_tenure(&mut self, cluster: usize, group: usize, syncer: usize) {
        let peers: Vec<(usize, u8)> = (0..self.clusters.len())
            .filter(|peer| *peer != cluster)
            .map(|peer| (peer, origin(peer).cluster.0))
            .collect();
        let floors = self.floors((cluster, group));
        let state = &self.clusters[cluster][group];
        let tenure = Tenure::begin(state, &floors, &peers, self.instant);
        self.tenures.insert((cluster, group, syncer), tenure);
    }

    fn restart(&mut self, at: (usize, usize)) {
        let syncer = self.dice.roll(self.taste.syncers);
        self.begin_tenure(at.0, at.1, syncer);
        self.tell(|| format!("syncer {syncer} of {at:?} begins anew"));
    }

    fn learn_some(&mut self, at: (usize, usize)) {
        let (syncer, most) = (self.dice.roll(self.taste.syncers), 1 + self.dice.roll(6));
        self.learn((at.0, at.1, syncer), most);
    }

    fn learn(&mut self, tenure: (usize, usize, usize), most: usize) {
        let group = &self.clusters[tenure.0][tenure.1];
        let Some(kept) = self.tenures.get_mut(&tenure) else { return };
        for (to, events) in kept.learn(group, most) {
            let route = Route { from: tenure.0, group: tenure.1, syncer: tenure.2, to };
            events.into_iter().for_each(|event| self.ship(route, event));
        }
    }

    fn routes(&self) -> Vec<Route> {
        let each = self.tenures.iter().flat_map(|((from, group, syncer), tenure)| {
            let (from, group, syncer) = (*from, *group, *syncer);
            tenure.ships.keys().map(move |to| Route { from, group, syncer, to: *to })
        });
        each.collect()
    }

    fn some_route(&mut self) -> Option<Route> {
        let routes = self.routes();
        let route = routes[self.dice.roll(routes.len())];
        let slow = self.faults && self.taste.slow.contains(&(route.to, route.from));
        (!slow || self.dice.chance(20)).then_some(route)
    }

    fn ship_of(&mut self, route: Route) -> Option<&mut super::link::Ship> {
        let tenure = self.tenures.get_mut(&(route.from, route.group, route.syncer))?;
        tenure.ships.get_mut(&route.to)
    }

    fn stream_of(&mut self, route: Route) -> Option<&mut Stream> {
        self.ship_of(route)?.stream.as_mut()
    }

    fn ship(&mut self, route: Route, event: shipper::Event) {
        let (now, mut actions) = (self.instant, Vec::new());
        let Some(ship) = self.ship_of(route) else { return };
        ship.shipper.step(now, event, &mut actions);
        for action in actions {
            match action {
                shipper::Action::Send(parcel) => {
                    let group = &self.clusters[route.from][route.group];
                    let (origin, slots) = (group.context.origin, group.context.slots);
                    let batch = batch_of(parcel, group, origin, slots);
                    if let Some(stream) = self.stream_of(route) {
                        stream.up.push_back(batch);
                    }
                }
                shipper::Action::Floor(position) => {
                    if let Some(ship) = self.ship_of(route) {
                        ship.floor = Some(position);
                    }
                }
                shipper::Action::Delivered(_) => {}
                shipper::Action::Reset(_) => self.break_stream(route),
                shipper::Action::Rewind => {
                    self.begin_tenure(route.from, route.group, route.syncer);
                    return;
                }
            }
        }
    }

    fn break_stream(&mut self, route: Route) {
        if self.ship_of(route).and_then(|ship| ship.stream.take()).is_some() {
            self.ship(route, shipper::Event::LinkDown("cut".into()));
        }
    }

    fn open_stream(&mut self, route: Route) {
        let slots = self.clusters[route.from][route.group].context.slots;
        let targets = self.clusters[route.to].iter().map(|group| &group.context);
        let targets: Vec<(GroupId, SlotRange)> = targets
            .filter(|context| context.slots.intersects(&slots))
            .map(|context| (context.group, context.slots))
            .collect();
        let mut actions = Vec::new();
        let receiver = Receiver::new(&targets, &mut actions);
        self.streams += 1;
        let stream =
            Stream { id: self.streams, up: VecDeque::new(), down: VecDeque::new(), receiver };
        if let Some(ship) = self.ship_of(route) {
            ship.stream = Some(stream);
        }
        self.carry_out(route, actions);
    }

    fn receive(&mut self, route: Route, event: receiver::Event) {
        let (now, mut actions) = (self.instant, Vec::new());
        if let Some(stream) = self.stream_of(route) {
            stream.receiver.step(now, event, &mut actions);
        }
        self.carry_out(route, actions);
    }

    fn place_of(&self, cluster: usize, target: GroupId) -> usize {
        let groups = &self.clusters[cluster];
        groups.iter().position(|group| group.context.group == target).expect("a group of there")
    }

    fn carry_out(&mut self, route: Route, actions: Vec<receiver::Action>) {
        for action in actions {
            match action {
                receiver::Action::Ask(target) => {
                    let lost = self.faults && self.dice.chance(15);
                    let cursor = self.cursor(route, self.place_of(route.to, target));
                    let result = if lost { Err(Failure::Again) } else { Ok(cursor) };
                    self.receive(route, receiver::Event::Cursor { target, result });
                }
                receiver::Action::Forward { round, batch } => {
                    let Some(stream) = self.stream_of(route).map(|stream| stream.id) else {
                        return;
                    };
                    let place = self.place_of(route.to, batch.target);
                    let call = Call { route, stream, round, batch };
                    self.calls.entry((route.to, place)).or_default().push_back(call);
                }
                tell => {
                    if let Some(stream) = self.stream_of(route) {
                        stream.down.push_back(tell);
                    }
                }
            }
        }
    }

    /// What a target has committed of the source group of a route.
    fn cursor(&self, route: Route, target: usize) -> LogId {
        let source = &self.clusters[route.from][route.group].context;
        let rows = &self.clusters[route.to][target].state.rows;
        let cursors = cursor::read_all(rows).expect("rows in memory can be read");
        cursors.get(&(source.origin, source.group)).map_or(LogId::default(), |c| c.position)
    }

    fn carry_up_some(&mut self) {
        if let Some(route) = self.some_route() {
            let batch = self.stream_of(route).and_then(|stream| stream.up.pop_front());
            if let Some(batch) = batch {
                self.receive(route, receiver::Event::Batch(Box::new(batch), 0));
            }
        }
    }

    fn carry_down_some(&mut self) {
        if let Some(route) = self.some_route() {
            self.carry_down(route);
        }
    }

    fn carry_down(&mut self, route: Route) {
        let Some(told) = self.stream_of(route).and_then(|s| s.down.pop_front()) else { return };
        match told {
            receiver::Action::TellCursor(at) => self.ship(route, shipper::Event::LinkUp(at)),
            receiver::Action::TellAck(at, _) => self.ship(route, shipper::Event::Acked(at)),
            receiver::Action::TellGap(at) => self.ship(route, shipper::Event::Gap(at)),
            receiver::Action::TellParked(ahead_ms) => {
                self.ship(route, shipper::Event::Parked { ahead_ms });
            }
            receiver::Action::Refuse(reason) => {
                self.ship(route, shipper::Event::Refused(reason));
                self.break_stream(route);
            }
            _ => {}
        }
    }

    fn serve_some(&mut self) {
        let busy: Vec<(usize, usize)> =
            self.calls.iter().filter(|(_, calls)| !calls.is_empty()).map(|(at, _)| *at).collect();
        if !busy.is_empty() {
            let at = busy[self.dice.roll(busy.len())];
            self.serve(at);
        }
    }

    /// One call reaches a leader, or does not; it may come back much later.
    fn serve(&mut self, at: (usize, usize)) {
        let Some(call) = self.calls.get_mut(&at).and_then(VecDeque::pop_front) else { return };
        let (lost, again) = (self.faults && self.dice.chance(8), self.faults && self.dice.chance(6));
        let Call { route, stream, round, batch } = call;
        let target = batch.target;
        if again {
            let batch = batch.clone();
            let late = Call { route, stream: 0, round, batch };
            self.calls.entry(at).or_default().push_back(late);
        }
        if lost {
            return self.answered(route, stream, target, round, Err(Failure::Again));
        }
        let (answer, outcome) = oneshot::channel();
        let lost = self.faults && self.dice.chance(5);
        self.tell(|| {
            format!("{at:?} takes {} of {route:?} to {}", batch.effects.len(), batch.to)
        });
        self.submit(at, Work::Remote { batch: (*batch).clone(), answer });
        self.pending.push(Pending { route, stream, round, target, answer: outcome, lost });
    }

    fn answers(&mut self) {
        let mut index = 0;
        while index < self.pending.len() {
            let result = match self.pending[index].answer.try_recv() {
                Err(oneshot::error::TryRecvError::Empty) => {
                    index += 1;
                    continue;
                }
                Ok(Answer::Done(verdict)) => Ok(verdict),
                Ok(Answer::Refused { reason }) => Err(Failure::Refused(reason)),
                Ok(Answer::NotLeader(_)) | Err(_) => Err(Failure::Again),
            };
            let ended = self.pending.remove(index);
            let result = if ended.lost { Err(Failure::Again) } else { result };
            self.answered(ended.route, ended.stream, ended.target, ended.round, result);
        }
    }

    fn answered(
        &mut self,
        route: Route,
        stream: u64,
        target: GroupId,
        round: u64,
        result: Result<flotilla_node::group::remote::Verdict, Failure>,
    ) {
        if self.stream_of(route).is_some_and(|known| known.id == stream) {
            self.receive(route, receiver::Event::Answer { target, round, result });
        }
    }

    fn tick_links(&mut self) {
        let routes = self.routes();
        let route = routes[self.dice.roll(routes.len())];
        self.tick_link(route);
    }

    fn tick_link(&mut self, route: Route) {
        self.ship(route, shipper::Event::Tick);
        self.receive(route, receiver::Event::Tick);
    }

    fn open_or_break(&mut self) {
        let Some(route) = self.some_route() else { return };
        let stands = self.stream_of(route).is_some();
        match stands {
            false => self.open_stream(route),
            true if self.dice.chance(30) => self.break_stream(route),
            true => {}
        }
    }

    fn tell_floors(&mut self, at: (usize, usize)) {
        for syncer in 0..self.taste.syncers {
            let Some(tenure) = self.tenures.get_mut(&(at.0, at.1, syncer)) else { continue };
            let floors: Vec<(usize, crate::learned::Position)> = tenure
                .ships
                .iter_mut()
                .filter_map(|(to, ship)| Some((*to, ship.floor.take()?)))
                .collect();
            for (to, position) in floors {
                let floor = LinkFloor {
                    group: group_id(at.0, at.1),
                    peer: origin(to).cluster,
                    position: position.id,
                    fence: position.fence,
                    closed: position.closed,
                    vector: position.vector.to_vec(),
                };
                let (answer, _) = oneshot::channel();
                self.submit(at, Work::LinkFloor { floor, answer });
            }
        }
    }

    /// How the links stand, in one line.
    pub(super) fn links_text(&self) -> String {
        let each = self.tenures.iter().flat_map(|(tenure, kept)| {
            kept.ships.iter().map(move |(to, ship)| {
                let (state, detail) = ship.shipper.state();
                format!("{tenure:?} to {to}: {state:?} at {} {detail}", ship.shipper.cursor())
            })
        });
        each.collect::<Vec<_>>().join("; ")
    }

    // ---- full state ----

    fn begin_merge(&mut self, from: (usize, usize)) {
        let to = self.dice.roll(self.clusters.len());
        if to == from.0 {
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
        if self.merges.is_empty() {
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

    // ---- the end ----

    /// No more faults: everything that is under way arrives, everybody ticks and cleans.
    pub fn settle(&mut self, rounds: usize) -> Step {
        self.faults = false;
        for _ in 0..rounds {
            self.now_ms += 1;
            self.instant += Duration::from_secs(1);
            for at in self.groups() {
                self.clusters[at.0][at.1].commit_all(&mut self.dice);
                self.housekeep(at);
                self.clusters[at.0][at.1].commit_all(&mut self.dice);
                self.witness(at);
            }
            self.finish_merges();
            self.carry_everything();
            self.check_cursors()?;
        }
        Ok(())
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
        for route in self.routes() {
            if self.stream_of(route).is_none() {
                self.open_stream(route);
            }
        }
        for _ in 0..12 {
            self.instant += Duration::from_millis(400);
            for tenure in self.tenures.keys().copied().collect::<Vec<_>>() {
                self.learn(tenure, usize::MAX);
            }
            for route in self.routes() {
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
