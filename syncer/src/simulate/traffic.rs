//! What travels between the clusters of a history: tenures, streams, calls to leaders and their
//! answers.

use super::link::{Call, Pending, Route, Ship, Stream, Tenure, batch_of};
use super::world::{World, group_id, origin};
use crate::learned::Position;
use crate::receiver::{self, Failure, Receiver};
use crate::shipper;
use flotilla_node::engine::keys;
use flotilla_node::engine::view::Rows;
use flotilla_node::group::cursor;
use flotilla_node::group::leader::Work;
use flotilla_node::group::remote::{Answer, LinkFloor, Verdict};
use flotilla_topology::ids::{GroupId, LogId};
use flotilla_topology::slot::SlotRange;
use std::collections::VecDeque;
use tokio::sync::oneshot;

impl World {
    pub(super) fn floors(&self, at: (usize, usize)) -> Vec<LinkFloor> {
        let rows = &self.clusters[at.0][at.1].state.rows;
        let rows = Rows::scan(rows, keys::of_kind(keys::LINK_FLOOR), false);
        let floor = |row: std::io::Result<(bytes::Bytes, bytes::Bytes)>| {
            LinkFloor::decode(&row.expect("rows in memory").1).expect("floors are readable")
        };
        rows.map(floor).collect()
    }

    pub(super) fn begin_tenure(&mut self, cluster: usize, group: usize, syncer: usize) {
        let peers: Vec<(usize, u8)> = (0..self.clusters.len())
            .filter(|peer| *peer != cluster)
            .map(|peer| (peer, origin(peer).cluster.0))
            .collect();
        let floors = self.floors((cluster, group));
        let state = &self.clusters[cluster][group];
        let tenure = Tenure::begin(state, &floors, &peers, self.instant);
        self.tenures.insert((cluster, group, syncer), tenure);
    }

    pub(super) fn restart(&mut self, at: (usize, usize)) {
        let syncer = self.dice.roll(self.taste.syncers);
        self.begin_tenure(at.0, at.1, syncer);
        self.tell(|| format!("syncer {syncer} of {at:?} begins anew"));
    }

    pub(super) fn learn_some(&mut self, at: (usize, usize)) {
        let (syncer, most) = (self.dice.roll(self.taste.syncers), 1 + self.dice.roll(6));
        self.learn((at.0, at.1, syncer), most);
    }

    pub(super) fn learn(&mut self, tenure: (usize, usize, usize), most: usize) {
        let group = &self.clusters[tenure.0][tenure.1];
        let Some(kept) = self.tenures.get_mut(&tenure) else { return };
        for (to, events) in kept.learn(group, most) {
            let route = Route { from: tenure.0, group: tenure.1, syncer: tenure.2, to };
            events.into_iter().for_each(|event| self.ship(route, event));
        }
    }

    pub(super) fn routes(&self) -> Vec<Route> {
        let each = self.tenures.iter().flat_map(|((from, group, syncer), tenure)| {
            let (from, group, syncer) = (*from, *group, *syncer);
            tenure.ships.keys().map(move |to| Route { from, group, syncer, to: *to })
        });
        each.collect()
    }

    pub(super) fn some_route(&mut self) -> Option<Route> {
        let routes = self.routes();
        let route = routes[self.dice.roll(routes.len())];
        self.passes(route.from, route.to).then_some(route)
    }

    /// Whether anything goes from one cluster to another just now: not often where the link is slow.
    pub(super) fn passes(&mut self, from: usize, to: usize) -> bool {
        let slow = self.faults && self.taste.slow.contains(&(to, from));
        !slow || self.dice.chance(self.taste.slow_pace)
    }

    pub(super) fn ship_of(&mut self, route: Route) -> Option<&mut Ship> {
        let tenure = self.tenures.get_mut(&(route.from, route.group, route.syncer))?;
        tenure.ships.get_mut(&route.to)
    }

    pub(super) fn stream_of(&mut self, route: Route) -> Option<&mut Stream> {
        self.ship_of(route)?.stream.as_mut()
    }

    pub(super) fn ship(&mut self, route: Route, event: shipper::Event) {
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

    pub(super) fn break_stream(&mut self, route: Route) {
        if self.ship_of(route).and_then(|ship| ship.stream.take()).is_some() {
            self.ship(route, shipper::Event::LinkDown("cut".into()));
        }
    }

    pub(super) fn open_stream(&mut self, route: Route) {
        if self.mesh.is_blocked(route.from, route.to) {
            return;
        }
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

    pub(super) fn receive(&mut self, route: Route, event: receiver::Event) {
        let (now, mut actions) = (self.instant, Vec::new());
        if let Some(stream) = self.stream_of(route) {
            stream.receiver.step(now, event, &mut actions);
        }
        self.carry_out(route, actions);
    }

    pub(super) fn place_of(&self, cluster: usize, target: GroupId) -> usize {
        let groups = &self.clusters[cluster];
        groups.iter().position(|group| group.context.group == target).expect("a group of there")
    }

    pub(super) fn carry_out(&mut self, route: Route, actions: Vec<receiver::Action>) {
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
    pub(super) fn cursor(&self, route: Route, target: usize) -> LogId {
        let source = &self.clusters[route.from][route.group].context;
        let rows = &self.clusters[route.to][target].state.rows;
        let cursors = cursor::read_all(rows).expect("rows in memory can be read");
        cursors.get(&(source.origin, source.group)).map_or(LogId::default(), |c| c.position)
    }

    pub(super) fn carry_up_some(&mut self) {
        if let Some(route) = self.some_route() {
            let batch = self.stream_of(route).and_then(|stream| stream.up.pop_front());
            if let Some(batch) = batch {
                self.receive(route, receiver::Event::Batch(Box::new(batch), 0));
            }
        }
    }

    pub(super) fn carry_down_some(&mut self) {
        if let Some(route) = self.some_route() {
            self.carry_down(route);
        }
    }

    pub(super) fn carry_down(&mut self, route: Route) {
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

    /// A stretch of one group's log goes all the way to a cluster, unless something breaks.
    pub(super) fn deliver_some(&mut self) {
        let Some(route) = self.some_route() else { return };
        if self.stream_of(route).is_none() {
            self.open_stream(route);
        }
        self.carry_down(route);
        let most = 1 + self.dice.roll(4);
        self.learn((route.from, route.group, route.syncer), most);
        self.tick_link(route);
        for _ in 0..1 + self.dice.roll(3) {
            let batch = self.stream_of(route).and_then(|stream| stream.up.pop_front());
            if let Some(batch) = batch {
                self.receive(route, receiver::Event::Batch(Box::new(batch), 0));
            }
        }
        for place in 0..self.clusters[route.to].len() {
            let at = (route.to, place);
            let waits = self.calls.get(&at).map_or(0, VecDeque::len);
            for _ in 0..self.dice.roll(waits.min(4) + 1) {
                self.serve(at);
            }
            self.maybe_commit(at);
        }
        self.answers();
        for _ in 0..self.dice.roll(3) {
            self.carry_down(route);
        }
    }

    pub(super) fn serve_some(&mut self) {
        let busy: Vec<(usize, usize)> =
            self.calls.iter().filter(|(_, calls)| !calls.is_empty()).map(|(at, _)| *at).collect();
        if !busy.is_empty() {
            let at = busy[self.dice.roll(busy.len())];
            self.serve(at);
        }
    }

    /// One call reaches a leader, or does not; it may come back much later.
    pub(super) fn serve(&mut self, at: (usize, usize)) {
        let Some(call) = self.calls.get_mut(&at).and_then(VecDeque::pop_front) else { return };
        let (lost, again) =
            (self.faults && self.dice.chance(8), self.faults && self.dice.chance(6));
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
        self.tell(|| format!("{at:?} takes {} of {route:?} to {}", batch.effects.len(), batch.to));
        self.submit(at, Work::Remote { batch: (*batch).clone(), answer });
        self.pending.push(Pending { route, stream, round, target, answer: outcome, lost });
    }

    pub(super) fn answers(&mut self) {
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

    pub(super) fn answered(
        &mut self,
        route: Route,
        stream: u64,
        target: GroupId,
        round: u64,
        result: Result<Verdict, Failure>,
    ) {
        if self.stream_of(route).is_some_and(|known| known.id == stream) {
            self.receive(route, receiver::Event::Answer { target, round, result });
        }
    }

    pub(super) fn tick_links(&mut self) {
        let routes = self.routes();
        let route = routes[self.dice.roll(routes.len())];
        self.tick_link(route);
    }

    pub(super) fn tick_link(&mut self, route: Route) {
        self.ship(route, shipper::Event::Tick);
        self.receive(route, receiver::Event::Tick);
    }

    pub(super) fn open_or_break(&mut self) {
        let Some(route) = self.some_route() else { return };
        let stands = self.stream_of(route).is_some();
        match stands {
            false => self.open_stream(route),
            true if self.dice.chance(30) => self.break_stream(route),
            true => {}
        }
    }

    pub(super) fn tell_floors(&mut self, at: (usize, usize)) {
        for syncer in 0..self.taste.syncers {
            let Some(tenure) = self.tenures.get_mut(&(at.0, at.1, syncer)) else { continue };
            let floors: Vec<(usize, Position)> = tenure
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
                    merged: None,
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
}
