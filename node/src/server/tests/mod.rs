//! The server against a backend that keeps keys in a map, and against a real Redis.

mod against_redis;
mod blocking;
mod limits;
mod protocol;
mod session;
mod transactions;
mod waiting;

use super::backend::{Backend, Door, SessionView};
use super::config::ServerConfig;
use super::listener::Server;
use super::patience::Patience;
use crate::command::{Command, Id};
use crate::group::transaction::{Transaction, Watch};
use crate::resp::Reply;
use bytes::Bytes;
use flotilla_topology::api::{
    ClusterMap, GroupInfo, LeaderHint, NamespaceInfo, NamespaceSpec, NodeAddresses, NodeInfo,
    ReplicaInfo,
};
use flotilla_topology::ids::{ClusterId, Epoch, GroupId, NamespaceId, ReplicaId};
use flotilla_topology::slot::SlotRange;
use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

/// Nothing in these tests takes as long.
const PATIENCE: Duration = Duration::from_secs(20);

/// Keys in a map, and a record of what was asked.
pub(super) struct Fake {
    data: Mutex<BTreeMap<(NamespaceId, Bytes), Bytes>>,
    pub(super) runs: Mutex<Vec<(SessionView, Vec<&'static str>)>>,
    /// Each run takes a permit, and keeps it.
    pub(super) gate: Semaphore,
    /// Runs that were asked for.
    pub(super) begun: AtomicUsize,
    with_map: bool,
}

impl Fake {
    pub(super) fn new() -> Arc<Fake> {
        Fake::build(Semaphore::MAX_PERMITS, true)
    }

    pub(super) fn build(permits: usize, with_map: bool) -> Arc<Fake> {
        let gate = Semaphore::new(permits);
        Arc::new(Fake {
            data: Mutex::default(),
            runs: Mutex::default(),
            gate,
            begun: AtomicUsize::new(0),
            with_map,
        })
    }

    fn answer(&self, namespace: NamespaceId, command: &Command) -> Reply {
        let mut data = self.data.lock();
        let get = |data: &BTreeMap<_, Bytes>, key: &Bytes| {
            Reply::bulk_or_null(data.get(&(namespace, key.clone())).cloned())
        };
        match command.spec.id {
            Id::Get => get(&data, &command.args[1]),
            Id::Set => {
                data.insert((namespace, command.args[1].clone()), command.args[2].clone());
                Reply::Ok
            }
            Id::Mget => Reply::Array(command.keys().map(|key| get(&data, key)).collect()),
            Id::HgetAll => Reply::Map(vec![(Reply::bulk("f"), Reply::bulk("v"))]),
            Id::DbSize => Reply::Int(data.len() as i64),
            _ if command.spec.is_blocking() => Reply::NullArray,
            _ => Reply::error("ERR the fake knows no such command"),
        }
    }
}

impl Backend for Fake {
    fn execute(
        self: Arc<Self>,
        session: SessionView,
        commands: Vec<Command>,
    ) -> BoxFuture<'static, Vec<Reply>> {
        async move {
            self.begun.fetch_add(1, Ordering::Relaxed);
            self.gate.acquire().await.unwrap().forget();
            let names = commands.iter().map(|command| command.spec.name).collect();
            self.runs.lock().push((session, names));
            commands.iter().map(|command| self.answer(session.namespace, command)).collect()
        }
        .boxed()
    }

    fn wait(
        self: Arc<Self>,
        _: SessionView,
        _: Command,
        mut patience: Patience,
    ) -> BoxFuture<'static, Option<Reply>> {
        async move { patience.ended().await.reply() }.boxed()
    }

    fn may_queue(&self, _: SessionView, _: &Command) -> Result<(), Reply> {
        Ok(())
    }

    fn watch(
        self: Arc<Self>,
        _: SessionView,
        _: Vec<Bytes>,
    ) -> BoxFuture<'static, Result<Vec<Watch>, Reply>> {
        async { Err(Reply::error("ERR the fake watches nothing")) }.boxed()
    }

    fn transact(
        self: Arc<Self>,
        session: SessionView,
        transaction: Transaction,
    ) -> BoxFuture<'static, Reply> {
        let replies = self.execute(session, transaction.then);
        async move { Reply::Array(replies.await) }.boxed()
    }

    fn namespace(&self, name: &str) -> Option<NamespaceId> {
        match name {
            "default" if self.with_map => Some(NamespaceId(1)),
            "jobs" if self.with_map => Some(NamespaceId(2)),
            _ => None,
        }
    }

    fn map(&self) -> Option<Arc<ClusterMap>> {
        self.with_map.then(|| Arc::new(map()))
    }

    fn node(&self) -> &str {
        "n1"
    }

    fn datacenter(&self) -> &str {
        "east"
    }

    fn info(&self, section: &str) -> Vec<(String, String)> {
        match section {
            "keyspace" => vec![("db0".into(), "keys=1,expires=0,avg_ttl=0".into())],
            "replication" => vec![("master_repl_offset".into(), "77".into())],
            _ => vec![],
        }
    }

    fn settings(&self) -> Vec<(String, String)> {
        vec![("dir".into(), "/data".into())]
    }
}

fn map() -> ClusterMap {
    let node = |name: &str, port: u16| NodeInfo {
        name: name.into(),
        datacenter: "east".into(),
        addresses: NodeAddresses {
            resp: format!("10.0.0.1:{port}"),
            cluster_resp: format!("10.0.0.1:{}", port + 1),
            rpc: format!("10.0.0.1:{}", port + 2),
            http: format!("10.0.0.1:{}", port + 3),
        },
        advertise: BTreeMap::new(),
        alive: true,
    };
    let replica = |id, node: &str| ReplicaInfo { id: ReplicaId(id), node: node.into() };
    let group = |id: u64, slots, leader: &str, other: &str| {
        let replicas = vec![replica(id * 10, leader), replica(id * 10 + 1, other)];
        GroupInfo {
            id: GroupId(id as u32),
            namespace: NamespaceId(1),
            slots,
            birth: replicas.clone(),
            replicas,
            learners: vec![],
            preferred_leader: "n3".into(),
            leader: Some(LeaderHint { node: leader.into(), term: 3 }),
        }
    };
    let spec = NamespaceSpec { name: "default".into(), partitions: 2, replicas: 3, synced: true };
    ClusterMap {
        epoch: Epoch(5),
        revision: 9,
        nodes: vec![node("n1", 7000), node("n2", 7010), node("n3", 7020)],
        namespaces: vec![NamespaceInfo { id: NamespaceId(1), spec, switched: false }],
        groups: vec![
            group(2, SlotRange::partition(1, 2), "n2", "n3"),
            group(1, SlotRange::partition(0, 2), "n1", "n2"),
        ],
        ..ClusterMap::new(ClusterId(1), "east")
    }
}

/// A server on free ports: `(it, plain, cluster)`.
pub(super) async fn start(
    backend: Arc<impl Backend>,
    config: ServerConfig,
) -> (Server, SocketAddr, SocketAddr) {
    let server = Server::new(backend, config).unwrap();
    let plain = server.listen(Door::Plain, "127.0.0.1:0").await.unwrap();
    let cluster = server.listen(Door::Cluster, "127.0.0.1:0").await.unwrap();
    (server, plain, cluster)
}

/// Sends everything, ends our side, and returns all that comes back.
pub(super) async fn talk(address: SocketAddr, input: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let mut output = Vec::new();
    let work = async {
        stream.write_all(input).await.unwrap();
        stream.shutdown().await.unwrap();
        stream.read_to_end(&mut output).await.unwrap();
    };
    tokio::time::timeout(PATIENCE, work).await.expect("the server answers and closes");
    String::from_utf8_lossy(&output).into_owned()
}

/// A request as clients send it.
pub(super) fn request(words: &[&str]) -> Vec<u8> {
    let mut out = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        out.extend_from_slice(format!("${}\r\n{word}\r\n", word.len()).as_bytes());
    }
    out
}

/// Waits until something holds.
pub(super) async fn until(what: &str, holds: impl Fn() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, wait).await.is_ok(), "{what}");
}

/// A client that reads as much as it expects.
pub(super) struct Client(pub(super) TcpStream);

impl Client {
    pub(super) async fn connect(address: SocketAddr) -> Client {
        Client(TcpStream::connect(address).await.unwrap())
    }

    pub(super) async fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.unwrap();
    }

    /// The next bytes must be these.
    pub(super) async fn expect(&mut self, text: &str) {
        let mut bytes = vec![0; text.len()];
        let read = self.0.read_exact(&mut bytes);
        tokio::time::timeout(PATIENCE, read).await.expect(text).expect(text);
        assert_eq!(String::from_utf8_lossy(&bytes), text);
    }

    /// Nothing but the end must come.
    pub(super) async fn expect_end(&mut self) {
        let mut rest = Vec::new();
        let read = self.0.read_to_end(&mut rest);
        let _ = tokio::time::timeout(PATIENCE, read).await.expect("the server closes");
        assert_eq!(String::from_utf8_lossy(&rest), "");
    }
}
