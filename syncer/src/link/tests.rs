//! Two ends of a link in one process, with a path between them that delays and loses packets and
//! can be cut, and beyond the receiving end a node that answers as a group's leader would.

use super::accept::{self, Host, Opened};
use super::dial::{Dialer, Link, LinkStatus};
use super::transport;
use crate::audit::serve::OpenedAudit;
use crate::batch::{Batch, Hello, LINK_VERSION, Message};
use crate::gate::Gate;
use crate::leaders::Leaders;
use crate::learned::{Learned, Position};
use crate::merge::receive::OpenedMerge;
use crate::outbound::{Merges, Outbound, Route};
use crate::tap::{News, Outlets};
use bytes::Bytes;
use flotilla_node::group::entry::Fence;
use flotilla_node::group::remote::{
    Answer, CursorsAnswer, LeaderIs, RemoteAnswer, RemoteBatch, RemoteEffect, Verdict,
};
use flotilla_node::tls::Tls;
use flotilla_node::tls::dev::Authority;
use flotilla_node::transport::{ReplyTo, Server, Service, kinds};
use flotilla_topology::api::{
    ClusterMap, GroupInfo, LinkState, NamespaceInfo, NamespaceSpec, NodeAddresses, NodeInfo,
    PeerCluster, ReplicaInfo, View,
};
use flotilla_topology::ids::{
    ClusterId, GroupId, Identity, Incarnation, LogId, NamespaceId, Origin, ReplicaId, Role,
};
use flotilla_topology::slot::{Slot, SlotRange};
use flotilla_topology::stamp::Stamp;
use parking_lot::Mutex;
use rand::{Rng, SeedableRng, rngs::StdRng};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, sleep_until};

mod holds;
mod west;

use west::{Node, west};

const EAST: ClusterId = ClusterId(1);
const WEST: ClusterId = ClusterId(2);

/// A path for UDP: one direction of it is a queue in which every packet waits for `delay`.
struct Path {
    address: SocketAddr,
    cut: Arc<AtomicBool>,
}

impl Path {
    async fn start(to: SocketAddr, delay: Duration, loss: f64) -> Path {
        let front = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
        let back = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
        back.connect(to).await.unwrap();
        let (address, cut) = (front.local_addr().unwrap(), Arc::new(AtomicBool::new(false)));
        let client: Arc<Mutex<Option<SocketAddr>>> = Arc::default();
        let there = carry(delay, {
            let back = Arc::clone(&back);
            move |packet| drop(back.try_send(&packet))
        });
        let home = carry(delay, {
            let (front, client) = (Arc::clone(&front), Arc::clone(&client));
            move |packet: Bytes| {
                if let Some(to) = *client.lock() {
                    let _ = front.try_send_to(&packet, to);
                }
            }
        });
        let seen = Arc::clone(&client);
        tokio::spawn(pump(front, loss, 1, Arc::clone(&cut), there, move |from| {
            *seen.lock() = Some(from);
        }));
        tokio::spawn(pump(back, loss, 2, Arc::clone(&cut), home, |_| {}));
        Path { address, cut }
    }

    fn cut(&self, cut: bool) {
        self.cut.store(cut, Ordering::SeqCst);
    }
}

type Delayed = mpsc::UnboundedSender<(Instant, Bytes)>;

fn carry(delay: Duration, send: impl Fn(Bytes) + Send + 'static) -> Delayed {
    let (queue, mut waiting) = mpsc::unbounded_channel::<(Instant, Bytes)>();
    tokio::spawn(async move {
        while let Some((came, packet)) = waiting.recv().await {
            if came + delay > Instant::now() {
                sleep_until((came + delay).into()).await;
            }
            send(packet);
        }
    });
    queue
}

async fn pump(
    socket: Arc<UdpSocket>,
    loss: f64,
    seed: u64,
    cut: Arc<AtomicBool>,
    to: Delayed,
    from: impl Fn(SocketAddr) + Send + 'static,
) {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut room = vec![0; 65_536];
    loop {
        let Ok((len, sender)) = socket.recv_from(&mut room).await else { continue };
        from(sender);
        let lost = cut.load(Ordering::SeqCst) || rng.random_bool(loss);
        if !lost && to.send((Instant::now(), Bytes::copy_from_slice(&room[..len]))).is_err() {
            return;
        }
    }
}

fn identity(cluster: ClusterId, role: Role, name: &str) -> Identity {
    Identity { cluster, role, name: name.into() }
}

fn authority() -> Authority {
    Authority::create("test", 2).unwrap()
}

fn hello(cluster: ClusterId) -> Hello {
    Hello { oldest: 1, newest: LINK_VERSION, cluster, incarnation: Incarnation(1), layout: 1 }
}

/// Takes streams and counts what comes on them, without any leaders.
#[derive(Default)]
struct Sink {
    knows: ClusterId,
    /// Why nobody is let in, if so.
    fenced: Mutex<Option<String>>,
    bytes: Arc<AtomicUsize>,
}

impl Host for Sink {
    fn hello(&self) -> Hello {
        hello(WEST)
    }

    fn admits(&self, cluster: ClusterId) -> Result<(), String> {
        match &*self.fenced.lock() {
            Some(reason) => Err(reason.clone()),
            None if cluster == self.knows => Ok(()),
            None => Err(format!("cluster {cluster} is not one that this one is linked with")),
        }
    }

    fn knows(&self) -> Vec<(ClusterId, View)> {
        vec![(EAST, View::Counts)]
    }

    fn opened(&self, mut stream: Opened) {
        let bytes = Arc::clone(&self.bytes);
        tokio::spawn(async move {
            while let Ok(message) = stream.wire.next().await {
                if let Message::Batch(batch) = message {
                    let len: usize = batch.effects.iter().map(|e| e.body.len()).sum();
                    bytes.fetch_add(len, Ordering::SeqCst);
                }
            }
        });
    }

    fn merges(&self, _merge: OpenedMerge) {
        panic!("nobody sends a full state here");
    }

    fn audits(&self, _audit: OpenedAudit) {
        panic!("nobody compares here");
    }
}

fn listen(tls: &Tls, host: Arc<dyn Host>) -> SocketAddr {
    let endpoint = transport::endpoint("127.0.0.1:0".parse().unwrap(), tls).unwrap();
    let address = endpoint.local_addr().unwrap();
    tokio::spawn(accept::run(endpoint, host));
    address
}

fn dial(tls: &Tls, to: SocketAddr, rtt_ms: f64) -> watch::Receiver<LinkStatus> {
    dial_all(tls, &[to], rtt_ms)
}

fn dial_all(tls: &Tls, to: &[SocketAddr], rtt_ms: f64) -> watch::Receiver<LinkStatus> {
    let peer = PeerCluster {
        id: WEST,
        name: "west".into(),
        syncers: to.iter().map(SocketAddr::to_string).collect(),
        rtt_ms: Some(rtt_ms),
        ..PeerCluster::default()
    };
    let cluster = tls.identity().cluster;
    let dialer = Dialer {
        endpoint: transport::endpoint("127.0.0.1:0".parse().unwrap(), tls).unwrap(),
        tls: tls.clone(),
        hello: Box::new(move || hello(cluster)),
        peer: watch::channel(peer).1,
    };
    let (status, link) = watch::channel(LinkStatus::Down(String::new()));
    tokio::spawn(dialer.run(status));
    link
}

async fn up(link: &mut watch::Receiver<LinkStatus>) -> Arc<Link> {
    let wait = link.wait_for(|status| matches!(status, LinkStatus::Up(_)));
    match &*tokio::time::timeout(Duration::from_secs(20), wait).await.unwrap().unwrap() {
        LinkStatus::Up(link) => Arc::clone(link),
        LinkStatus::Down(_) => unreachable!(),
    }
}

async fn refused(link: &mut watch::Receiver<LinkStatus>) -> String {
    let reason = |status: &LinkStatus| match status {
        LinkStatus::Down(reason) if !reason.is_empty() => Some(reason.clone()),
        _ => None,
    };
    let wait = link.wait_for(|status| reason(status).is_some());
    reason(&tokio::time::timeout(Duration::from_secs(20), wait).await.unwrap().unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_speaks_for_another() {
    let ca = authority();
    let tls = |cluster, role| ca.tls(identity(cluster, role, "s1")).unwrap();
    let sink = Arc::new(Sink { knows: EAST, ..Sink::default() });
    let west = listen(&tls(WEST, Role::Syncer), sink.clone());
    let ours = tls(EAST, Role::Syncer);
    up(&mut dial(&ours, west, 10.0)).await;

    let why = refused(&mut dial(&tls(ClusterId(3), Role::Syncer), west, 10.0)).await;
    assert!(why.contains("not one that this one is linked with"), "{why}");
    let why = refused(&mut dial(&tls(EAST, Role::Node), west, 10.0)).await;
    assert!(why.contains("not a syncer"), "{why}");
    let stranger = authority().tls(identity(EAST, Role::Syncer, "s1")).unwrap();
    refused(&mut dial(&stranger, west, 10.0)).await;
    let elsewhere = listen(&tls(ClusterId(9), Role::Syncer), sink);
    let why = refused(&mut dial(&ours, elsewhere, 10.0)).await;
    assert!(why.contains("dialed cluster 2"), "{why}");
}

/// Incompressible batches on four streams, until as many bytes have arrived.
async fn throughput(link: &Link, arrived: &AtomicUsize, bytes: usize) -> f64 {
    let before = arrived.load(Ordering::SeqCst);
    let mut noise = vec![0u8; 512 << 10];
    StdRng::seed_from_u64(7).fill(&mut noise[..]);
    let body = Bytes::from(noise);
    let mut wires = Vec::new();
    let started = Instant::now();
    for group in 0..4u32 {
        let (send, receive) = link.connection.open_bi().await.unwrap();
        let wire = super::stream::Wire::start(send, receive, |_| {});
        let group = GroupId(group);
        wire.send(Message::Open { namespace: "default".into(), group, slots: SlotRange::ALL });
        for index in 1..=(bytes / 4 / body.len()) as u64 {
            wire.send(Message::Batch(batch(group, index, body.clone())));
        }
        wires.push(wire);
    }
    let want = before + bytes / 4 / body.len() * 4 * body.len();
    while arrived.load(Ordering::SeqCst) < want && started.elapsed() < Duration::from_secs(30) {
        sleep(Duration::from_millis(5)).await;
    }
    let moved = arrived.load(Ordering::SeqCst) - before;
    moved as f64 / 1e6 / started.elapsed().as_secs_f64()
}

fn batch(group: GroupId, index: u64, body: Bytes) -> Batch {
    Batch {
        origin: Origin { cluster: EAST, incarnation: Incarnation(1) },
        group,
        slots: SlotRange::ALL,
        from: LogId { term: 1, index: index - 1 },
        to: LogId { term: 1, index },
        closed: Stamp::ZERO,
        fence: Fence::default(),
        vector: vec![],
        sent_ms: 0,
        born_ms: 1,
        effects: vec![RemoteEffect { index, slot: Some(Slot(1)), body }],
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wan_with_loss_carries_ten_megabytes_a_second() {
    let ca = authority();
    let tls = |cluster| ca.tls(identity(cluster, Role::Syncer, "s1")).unwrap();
    let arrived = Arc::new(AtomicUsize::new(0));
    let sink = Sink { knows: EAST, bytes: Arc::clone(&arrived), ..Sink::default() };
    let west = listen(&tls(WEST), Arc::new(sink));
    let path = Path::start(west, Duration::from_millis(30), 0.001).await;
    let link = up(&mut dial(&tls(EAST), path.address, 60.0)).await;
    let mut best: f64 = 0.0;
    // The machine may be busy with other tests; what counts is what the link can do.
    for _ in 0..3 {
        best = best.max(throughput(&link, &arrived, 64 << 20).await);
        println!("{best:.1} MB/s at 60 ms and 0.1 % loss");
        if best >= 10.0 {
            break;
        }
    }
    assert!(best >= 10.0, "{best:.1} MB/s");
}

fn learned(index: u64) -> Arc<Learned> {
    let id = |index: u64| LogId { term: u64::from(index > 0), index };
    let slot = Slot((index * 37 % 16_384) as u16);
    let effect = RemoteEffect { index, slot: Some(slot), body: Bytes::from(vec![7; 100]) };
    Arc::new(Learned {
        prev: id(index - 1),
        at: Position { id: id(index), ..Position::default() },
        effects: vec![effect],
        bytes: 164,
        born_ms: flotilla_node::clock::wall_ms(),
        news: true,
    })
}

fn route() -> Route {
    Route {
        origin: Origin { cluster: EAST, incarnation: Incarnation(1) },
        namespace: "default".into(),
        group: GroupId(77),
        slots: SlotRange::ALL,
        peer: WEST,
        peer_name: "west".into(),
        shed_bytes: None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_learned_is_merged_once_over_a_path_that_is_cut_and_heals() {
    let ca = authority();
    let (node, west, _keep) = west(&ca).await;
    let path = Path::start(west, Duration::from_millis(5), 0.001).await;
    let link = dial(&ca.tls(identity(EAST, Role::Syncer, "s1")).unwrap(), path.address, 10.0);

    let (outlets, gate) = (Outlets::default(), Gate::default());
    let news = outlets.add(gate.clone());
    let (_told, telling) = watch::channel(PeerCluster::default());
    let base = Position::default();
    let (outbound, window) = Outbound::new(
        route(),
        (base, 0),
        gate.clone(),
        news,
        link,
        telling,
        Merges::new(no_merger()),
    );
    tokio::spawn(outbound.run());
    let total = 3000u64;
    for chunk in 0..30 {
        let entries = (chunk * 100 + 1..=chunk * 100 + 100).map(learned).collect();
        outlets.tell(&News::Committed(entries));
        path.cut((10..13).contains(&chunk));
        sleep(Duration::from_millis(20)).await;
    }
    let deadline = Instant::now() + Duration::from_secs(60);
    let done = || window.floor.borrow().as_ref().is_some_and(|floor| floor.id.index == total);
    while !done() && Instant::now() < deadline {
        sleep(Duration::from_millis(20)).await;
    }
    assert!(done(), "stopped at {:?}, {:?}", window.floor.borrow(), window.status.lock());
    assert_eq!(gate.bytes(), 0, "all memory is given back");
    for (target, (cursor, merged)) in node.groups.lock().iter() {
        assert_eq!(cursor.index, total);
        let slots = SlotRange::partition(target.0, 3);
        let mine = |index: &u64| slots.contains(Slot((index * 37 % 16_384) as u16));
        assert_eq!(*merged, (1..=total).filter(mine).collect::<Vec<_>>(), "{target}");
    }
    let settled = || {
        let status = window.status.lock();
        status.state == LinkState::Live && status.backlog_entries == 0
    };
    while !settled() && Instant::now() < deadline {
        sleep(Duration::from_millis(20)).await;
    }
    let status = window.status.lock().clone();
    assert_eq!((status.state, status.backlog_entries), (LinkState::Live, 0));
    println!("p50 {:?} s, p99 {:?} s", status.lag_p50_seconds, status.lag_p99_seconds);
}

/// Nothing here is ever merged as a whole.
fn no_merger() -> crate::outbound::Merger {
    std::sync::Arc::new(|_, _, _, _, _| {
        Box::pin(async { Err("these tests have no state to merge".to_owned()) })
    })
}
