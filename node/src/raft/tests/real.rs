//! The same replicas over the real transport: TLS, sockets, one connection per class.

use super::harness::{Cluster, id, payload, until};
use crate::raft::{Member, Network, Peer, RaftGroups};
use crate::tls::Tls;
use crate::tls::dev::Authority;
use crate::transport::{Client, Expect, ReplyTo, Server, Service};
use bytes::Bytes;
use flotilla_topology::ids::{ClusterId, Identity, ReplicaId, Role};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

const CLUSTER: ClusterId = ClusterId(1);

/// Certificates, and where every replica listens at the moment.
#[derive(Clone)]
pub(super) struct RealNet {
    authority: Arc<Authority>,
    addresses: Arc<Mutex<HashMap<ReplicaId, String>>>,
}

impl RealNet {
    pub(super) fn new() -> RealNet {
        let authority = Arc::new(Authority::create("test", 1).unwrap());
        RealNet { authority, addresses: Arc::default() }
    }

    fn tls(&self, replica: ReplicaId) -> Tls {
        let name = format!("n{replica}");
        self.authority.tls(Identity { cluster: CLUSTER, role: Role::Node, name }).unwrap()
    }

    /// Opens a replica's port.
    pub(super) async fn listen(&self, replica: ReplicaId, groups: RaftGroups) -> Server {
        let service = Arc::new(Port { groups });
        let tls = self.tls(replica);
        let server = Server::bind("127.0.0.1:0", &tls, |_| true, service).await.unwrap();
        self.addresses.lock().insert(replica, server.local_addr().to_string());
        server
    }

    /// The network as one replica sees it.
    pub(super) fn of(&self, replica: ReplicaId) -> Arc<dyn Network> {
        let tls = self.tls(replica);
        Arc::new(RealNode { net: self.clone(), tls, clients: Mutex::default() })
    }
}

struct Port {
    groups: RaftGroups,
}

impl Service for Port {
    fn call(&self, _peer: &Identity, kind: u16, payload: Bytes, reply: ReplyTo) {
        self.groups.handle(kind, &payload, reply);
    }
}

struct RealNode {
    net: RealNet,
    tls: Tls,
    clients: Mutex<HashMap<ReplicaId, Client>>,
}

impl Network for RealNode {
    fn peer(&self, replica: ReplicaId, member: &Member) -> Option<Arc<dyn Peer>> {
        let address = self.net.addresses.lock().get(&replica).cloned()?;
        let mut clients = self.clients.lock();
        if let Some(client) = clients.get(&replica)
            && client.addr() == address
        {
            return Some(Arc::new(client.clone()));
        }
        let name = Some(member.name.clone());
        let expect = Expect { cluster: CLUSTER, role: Role::Node, name };
        let client = Client::new(address, &self.tls, expect);
        clients.insert(replica, client.clone());
        Some(Arc::new(client))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_works_over_the_real_transport() {
    let mut cluster = Cluster::of_three_over(Some(RealNet::new())).await;
    let all = [1, 2, 3].map(id);
    let leader = cluster.leader().await;
    let start = Instant::now();
    cluster.write(leader, 0..3000).await;
    println!("3000 entries of {} bytes in {:?}", payload(0).len(), start.elapsed());
    cluster.settle(leader, &all).await;
    assert!(cluster.raft(leader).read_index().await.is_ok());

    // Behind the purge, over a new port.
    let behind = all.into_iter().find(|it| *it != leader).unwrap();
    cluster.stop(behind).await;
    cluster.write(leader, 3000..4000).await;
    let upto = cluster.raft(leader).applied().index - 10;
    cluster.raft(leader).purge(upto).await.unwrap();
    until("the log is purged", || cluster.status(leader).purged.index == upto).await;
    cluster.start(behind).await;
    cluster.settle(leader, &[behind]).await;
    assert_eq!(cluster.books[&behind].state().installs, 1);

    let start = Instant::now();
    cluster.stop(leader).await;
    let leader = cluster.leader().await;
    println!("a new leader is ready after {:?}", start.elapsed());
    cluster.write(leader, 4000..4010).await;
    cluster.settle(leader, &[behind]).await;
    let wanted: Vec<Bytes> = (0..4010).map(payload).collect();
    assert!(cluster.books[&behind].payloads() == wanted);
}
