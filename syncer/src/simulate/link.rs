//! The links of the simulation: the real tap, shipper and receiver, over streams that break, lose
//! what was under way, and repeat.

use crate::batch::Batch;
use crate::gate::Gate;
use crate::receiver::{self, Receiver};
use crate::shipper::{self, Parcel, Shipper};
use crate::tap::{News, Outlets, Tap, seed_position};
use flotilla_node::flaws::{self, Flaw};
use flotilla_node::group::remote::{LinkFloor, RemoteAnswer, RemoteBatch};
use flotilla_node::raft::StateMachine;
use flotilla_topology::ids::{GroupId, Origin};
use flotilla_topology::slot::SlotRange;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::{mpsc, oneshot};

use super::group::SimGroup;
use crate::learned::Position;

/// Which stream: sending cluster and group, which of two syncers, receiving cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    /// The sending cluster, by its place.
    pub from: usize,
    /// Its group, by its place.
    pub group: usize,
    /// Which of the syncers that serve it.
    pub syncer: usize,
    /// The receiving cluster, by its place.
    pub to: usize,
}

/// A stream: what is under way in both directions, in order.
pub struct Stream {
    /// Never used twice.
    pub id: u64,
    /// To the receiver.
    pub up: VecDeque<Batch>,
    /// To the sender.
    pub down: VecDeque<receiver::Action>,
    /// At the other end.
    pub receiver: Receiver,
}

/// One peer of a tenure.
pub struct Ship {
    /// The sender.
    pub shipper: Shipper,
    /// Its stream, if one stands.
    pub stream: Option<Stream>,
    /// What the receiver has committed last.
    pub floor: Option<Position>,
    news: mpsc::UnboundedReceiver<News>,
}

/// One syncer's learner in one group.
pub struct Tenure {
    tap: Tap,
    learned: usize,
    /// By place of the peer.
    pub ships: BTreeMap<usize, Ship>,
}

impl Tenure {
    /// Begins where the slowest peer is, as the group remembers.
    pub fn begin(
        group: &SimGroup,
        floors: &[LinkFloor],
        peers: &[(usize, u8)],
        now: Instant,
    ) -> Tenure {
        let of = |peer: u8| floors.iter().find(|floor| floor.peer.0 == peer);
        let all: Option<Vec<&LinkFloor>> = peers.iter().map(|(_, id)| of(*id)).collect();
        let lowest = all.and_then(|all| all.into_iter().min_by_key(|floor| floor.position.index));
        let base = seed_position(lowest);
        let outlets = Outlets::default();
        let ships = peers.iter().map(|(place, _)| {
            let news = outlets.add(Gate::default());
            let shipper = Shipper::new(base.clone(), now);
            (*place, Ship { shipper, stream: None, floor: None, news })
        });
        let ships = ships.collect();
        let context = &group.context;
        let learned = base.id.index as usize;
        let tap = Tap::new(context.group, context.origin, context.slots, base, outlets);
        Tenure { tap, learned, ships }
    }

    /// Learns up to `most` entries more; tells the shippers what came of it.
    pub fn learn(&mut self, group: &SimGroup, most: usize) -> Vec<(usize, Vec<shipper::Event>)> {
        let until = group.log.len().min(self.learned.saturating_add(most));
        if until > self.learned {
            let entries = group.log[self.learned..until].to_vec();
            self.learned = until;
            self.tap.apply(entries).expect("entries of the simulation are readable");
        }
        let told = self.ships.iter_mut().map(|(place, ship)| {
            let mut events = Vec::new();
            while let Ok(news) = ship.news.try_recv() {
                events.push(match news {
                    News::Committed(entries) => shipper::Event::Committed(entries),
                    News::Jumped(to) => shipper::Event::Jumped(to),
                });
            }
            (*place, events)
        });
        told.collect()
    }
}

/// A sub-batch on its way to a leader.
pub struct Call {
    /// Where its answer goes, if that stream still stands.
    pub route: Route,
    /// The stream.
    pub stream: u64,
    /// Attempt of the lane.
    pub round: u64,
    /// What to merge.
    pub batch: Arc<RemoteBatch>,
}

/// A leader's answer that is awaited.
pub struct Pending {
    /// Where it goes.
    pub route: Route,
    /// The stream.
    pub stream: u64,
    /// Attempt of the lane.
    pub round: u64,
    /// Which group.
    pub target: GroupId,
    /// It.
    pub answer: oneshot::Receiver<RemoteAnswer>,
    /// It gets lost.
    pub lost: bool,
}

/// A parcel as a batch.
pub fn batch_of(parcel: Parcel, group: &SimGroup, origin: Origin, slots: SlotRange) -> Batch {
    let mut batch = Batch {
        origin,
        group: group.context.group,
        slots,
        from: parcel.from,
        to: parcel.to.id,
        closed: parcel.to.closed,
        fence: parcel.to.fence,
        vector: parcel.to.vector.to_vec(),
        sent_ms: 0,
        born_ms: parcel.born_ms,
        effects: parcel.effects,
    };
    if flaws::has(Flaw::VectorNow) || flaws::has(Flaw::Overtaking) {
        let cursors = flotilla_node::group::cursor::read_all(&group.state.rows);
        let cursors = cursors.expect("rows in memory can be read");
        batch.vector = flotilla_node::group::cursor::closed_vector(&cursors, slots);
    }
    if flaws::has(Flaw::Overtaking) {
        batch.closed = batch.closed.max(group.state.meta.own);
    }
    batch
}
