//! A cluster of one node that leads all groups, and its syncer.

use super::*;
use crate::mesh::Mesh;

/// A node that leads all groups: it keeps cursors and what was merged, and now and then refuses.
#[derive(Default)]
pub struct Node {
    pub groups: Mutex<std::collections::BTreeMap<GroupId, (LogId, Vec<u64>)>>,
    calls: AtomicUsize,
    /// What its syncer finds missing in the mesh.
    pub gap: Mutex<Option<String>>,
}

impl Node {
    /// A part of what is sent is here already, in all groups.
    pub fn has_begun(&self) {
        let first = LogId { term: 1, index: 1 };
        self.groups.lock().extend((0..3).map(|group| (GroupId(group), (first, vec![]))));
    }
}

impl Service for Node {
    fn call(&self, _peer: &Identity, kind: u16, payload: Bytes, reply: ReplyTo) {
        let refuse = self.calls.fetch_add(1, Ordering::SeqCst) % 13 == 12;
        reply.send(Ok(match kind {
            kinds::CURSORS => {
                let asked = flotilla_node::group::remote::CursorsRequest::decode(&payload).unwrap();
                let groups = self.groups.lock();
                let cursor = groups.get(&asked.group).map(|group| group.0).unwrap_or_default();
                CursorsAnswer::Done(vec![cursor]).encode()
            }
            kinds::REMOTE_BATCH if refuse => {
                RemoteAnswer::NotLeader(LeaderIs { node: Some("n1".into()), term: 1 }).encode()
            }
            kinds::REMOTE_BATCH => {
                let batch = RemoteBatch::decode(&payload).unwrap();
                let mut groups = self.groups.lock();
                let (cursor, merged) = groups.entry(batch.target).or_default();
                let gap = batch.from.index > cursor.index;
                if !gap && batch.to.index > cursor.index {
                    let fresh = batch.effects.iter().filter(|e| e.index > cursor.index);
                    merged.extend(fresh.map(|effect| effect.index));
                    *cursor = batch.to;
                }
                let cursor = *cursor;
                let verdict =
                    if gap { Verdict::Gap { cursor } } else { Verdict::Accepted { cursor } };
                Answer::Done(verdict).encode()
            }
            other => panic!("kind {other}"),
        }));
    }
}

struct West {
    leaders: Leaders,
    map: crate::leaders::MapWatch,
    node: Arc<Node>,
}

impl Host for West {
    fn hello(&self) -> Hello {
        hello(WEST)
    }

    fn admits(&self, cluster: ClusterId) -> Result<(), String> {
        assert_eq!(cluster, EAST);
        Ok(())
    }

    fn knows(&self) -> Vec<(ClusterId, View)> {
        vec![(EAST, View::Counts)]
    }

    fn opened(&self, stream: Opened) {
        let (leaders, map, node) = (self.leaders.clone(), self.map.clone(), self.node.clone());
        let mesh = Mesh::new(move |_| node.gap.lock().clone());
        // Less than a few batches, so that streams have to wait for room.
        let budget = crate::inbound::Budget::new(4096);
        tokio::spawn(crate::inbound::run(stream, leaders, map, mesh, budget));
    }

    fn merges(&self, _merge: OpenedMerge) {
        panic!("nobody sends a full state here");
    }

    fn audits(&self, _audit: OpenedAudit) {
        panic!("nobody compares here");
    }
}

fn west_map(rpc: SocketAddr, partitions: u32) -> ClusterMap {
    let replica = ReplicaInfo { id: ReplicaId(1), node: "n1".into() };
    let group = |index| GroupInfo {
        id: GroupId(index),
        namespace: NamespaceId(1),
        slots: SlotRange::partition(index, partitions),
        birth: vec![replica.clone()],
        replicas: vec![replica.clone()],
        learners: vec![],
        preferred_leader: "n1".into(),
        leader: None,
    };
    let spec = NamespaceSpec { name: "default".into(), partitions, replicas: 1, synced: true };
    let addresses = NodeAddresses { rpc: rpc.to_string(), ..NodeAddresses::default() };
    ClusterMap {
        nodes: vec![NodeInfo {
            name: "n1".into(),
            datacenter: "west".into(),
            addresses,
            advertise: Default::default(),
            alive: true,
        }],
        namespaces: vec![NamespaceInfo { id: NamespaceId(1), spec, switched: false }],
        groups: (0..partitions).map(group).collect(),
        ..ClusterMap::new(WEST, "west")
    }
}

/// West with its node, and what ends with them.
pub async fn west(ca: &Authority) -> (Arc<Node>, SocketAddr, impl Sized) {
    let tls = |role, name| ca.tls(identity(WEST, role, name)).unwrap();
    let node = Arc::new(Node::default());
    let service: Arc<dyn Service> = node.clone();
    let node_tls = tls(Role::Node, "n1");
    let server = Server::bind("127.0.0.1:0", &node_tls, |_| true, service).await.unwrap();
    let (keep, map) = watch::channel(Some(Arc::new(west_map(server.local_addr(), 3))));
    let west_tls = tls(Role::Syncer, "s1");
    let runtime = tokio::runtime::Handle::current();
    let leaders = Leaders::new(west_tls.clone(), "west".into(), map.clone(), runtime);
    let west = listen(&west_tls, Arc::new(West { leaders, map, node: node.clone() }));
    (node, west, (keep, server))
}
