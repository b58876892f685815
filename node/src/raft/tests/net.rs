//! A network in one process: messages in order per link and class, links that can be cut, bulk
//! messages that get lost.

use crate::raft::{Member, Network, Pace, Peer, RaftGroups};
use crate::transport::{Class, ReplyTo, RpcError, RpcRefused, kinds};
use bytes::Bytes;
use flotilla_topology::ids::ReplicaId;
use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// Messages between replicas: in order per link and class, as the transport has it.
#[derive(Clone, Default)]
pub(super) struct TestNet {
    inner: Arc<NetState>,
}

#[derive(Default)]
struct NetState {
    /// Messages of groups that are not parked.
    carried: AtomicUsize,
    nodes: Mutex<HashMap<ReplicaId, RaftGroups>>,
    cut: Mutex<HashSet<(ReplicaId, ReplicaId)>>,
    /// Who takes no listings of parked groups.
    older: Mutex<HashSet<ReplicaId>>,
    lanes: Mutex<HashMap<(ReplicaId, ReplicaId, Class), mpsc::UnboundedSender<Delivery>>>,
    bulk: Mutex<BulkFaults>,
    /// So many transfers of leadership are still not delivered.
    transfers_held: AtomicUsize,
    /// Of old entries, if there is one.
    pace: OnceLock<Pace>,
}

/// Every n-th bulk message gets lost on its way, if n is not 0.
#[derive(Default)]
struct BulkFaults {
    lose_every: usize,
    seen: usize,
}

struct Delivery {
    kind: u16,
    payload: Bytes,
    deadline: Duration,
    answer: oneshot::Sender<Result<Bytes, RpcError>>,
}

impl TestNet {
    pub(super) fn attach(&self, replica: ReplicaId, groups: RaftGroups) {
        self.inner.nodes.lock().insert(replica, groups);
    }

    pub(super) fn detach(&self, replica: ReplicaId) {
        self.inner.nodes.lock().remove(&replica);
    }

    /// Nothing passes between `replica` and the others, in either direction.
    pub(super) fn isolate(&self, replica: ReplicaId, others: &[ReplicaId]) {
        let mut cut = self.inner.cut.lock();
        for other in others {
            cut.insert((replica, *other));
            cut.insert((*other, replica));
        }
    }

    /// From now on old entries leave at this pace.
    pub(super) fn catch_up_at(&self, pace: Pace) {
        assert!(self.inner.pace.set(pace).is_ok(), "it has one");
    }

    /// Nothing passes between these two.
    pub(super) fn cut(&self, one: ReplicaId, other: ReplicaId) {
        self.isolate(one, &[other]);
    }

    pub(super) fn heal(&self) {
        self.inner.cut.lock().clear();
    }

    /// How many messages were delivered, without listings of parked groups.
    pub(super) fn carried(&self) -> usize {
        self.inner.carried.load(Ordering::SeqCst)
    }

    /// This process knows nothing of parked groups.
    pub(super) fn make_older(&self, replica: ReplicaId) {
        self.inner.older.lock().insert(replica);
    }

    /// The next transfers of leadership cannot be delivered, so many.
    pub(super) fn hold_transfers(&self, n: usize) {
        self.inner.transfers_held.store(n, Ordering::SeqCst);
    }

    fn holds_transfer(&self) -> bool {
        let (held, order) = (&self.inner.transfers_held, Ordering::SeqCst);
        held.fetch_update(order, order, |n| n.checked_sub(1)).is_ok()
    }

    pub(super) fn transfers_held(&self) -> usize {
        self.inner.transfers_held.load(Ordering::SeqCst)
    }

    pub(super) fn lose_every_bulk(&self, n: usize) {
        self.inner.bulk.lock().lose_every = n;
    }

    fn passes(&self, from: ReplicaId, to: ReplicaId, class: Class) -> Result<RaftGroups, RpcError> {
        let inner = &self.inner;
        if inner.cut.lock().contains(&(from, to)) {
            return Err(RpcError::Unreachable("the link is cut".into()));
        }
        if class == Class::Bulk {
            let mut bulk = inner.bulk.lock();
            bulk.seen += 1;
            if bulk.lose_every > 0 && bulk.seen.is_multiple_of(bulk.lose_every) {
                return Err(RpcError::Lost("lost by the test".into()));
            }
        }
        let nodes = inner.nodes.lock();
        nodes.get(&to).cloned().ok_or_else(|| RpcError::Unreachable("the node is down".into()))
    }

    fn lane(
        &self,
        from: ReplicaId,
        to: ReplicaId,
        class: Class,
    ) -> mpsc::UnboundedSender<Delivery> {
        let mut lanes = self.inner.lanes.lock();
        if let Some(lane) = lanes.get(&(from, to, class))
            && !lane.is_closed()
        {
            return lane.clone();
        }
        let (lane, mut deliveries) = mpsc::unbounded_channel::<Delivery>();
        let net = self.clone();
        tokio::spawn(async move {
            while let Some(delivery) = deliveries.recv().await {
                net.deliver(from, to, class, delivery);
            }
        });
        lanes.insert((from, to, class), lane.clone());
        lane
    }

    fn deliver(&self, from: ReplicaId, to: ReplicaId, class: Class, delivery: Delivery) {
        let Delivery { kind, payload, deadline, answer } = delivery;
        let groups = match self.passes(from, to, class) {
            Ok(groups) => groups,
            Err(error) => return drop(answer.send(Err(error))),
        };
        if kind == kinds::TRANSFER_LEADER && self.holds_transfer() {
            return drop(answer.send(Err(RpcError::Unreachable("held by the test".into()))));
        }
        let (reply, told) = ReplyTo::local();
        if kind != kinds::RAFT_PARKED {
            self.inner.carried.fetch_add(1, Ordering::SeqCst);
        } else if self.inner.older.lock().contains(&to) {
            let refused = RpcRefused::new(RpcRefused::UNKNOWN_KIND, "upgrade it".to_owned());
            return drop(answer.send(Err(refused.into())));
        }
        groups.handle(kind, &payload, reply);
        let net = self.clone();
        tokio::spawn(async move {
            let result = match tokio::time::timeout(deadline, told).await {
                Err(_) => Err(RpcError::Timeout),
                Ok(Err(_)) => Err(RpcRefused::new(RpcRefused::DROPPED, "dropped").into()),
                Ok(Ok(result)) => result.map_err(RpcError::from),
            };
            // The way back may be cut meanwhile.
            let back = net.inner.cut.lock().contains(&(to, from));
            let _ = answer.send(if back { Err(RpcError::Lost("cut".into())) } else { result });
        });
    }
}

struct TestPeer {
    net: TestNet,
    from: ReplicaId,
    to: ReplicaId,
}

impl Peer for TestPeer {
    fn call(
        &self,
        class: Class,
        kind: u16,
        payload: Bytes,
        deadline: Duration,
    ) -> BoxFuture<'static, Result<Bytes, RpcError>> {
        let (answer, told) = oneshot::channel();
        let delivery = Delivery { kind, payload, deadline, answer };
        let _ = self.net.lane(self.from, self.to, class).send(delivery);
        async move { told.await.unwrap_or_else(|_| Err(RpcError::Lost("dropped".into()))) }.boxed()
    }
}

/// The network as one replica sees it.
pub(super) struct NodeNet {
    pub(super) net: TestNet,
    pub(super) me: ReplicaId,
}

impl Network for NodeNet {
    fn catch_up(&self) -> Option<&Pace> {
        self.net.inner.pace.get()
    }

    fn peer(&self, replica: ReplicaId, _member: &Member) -> Option<Arc<dyn Peer>> {
        Some(Arc::new(TestPeer { net: self.net.clone(), from: self.me, to: replica }))
    }
}
