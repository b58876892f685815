//! Asks groups and replicas of a cluster for digests, over the internal port, with mutual TLS.

use super::scope::Scope;
use anyhow::{Context, bail};
use bytes::Bytes;
use flotilla_node::group::digest::{
    DigestAnswer, DigestCall, DigestRequest, KeyPage, KeysRequest, ReplicaState,
};
use flotilla_node::group::remote::{Answer, Outcome};
use flotilla_node::tls::Tls;
use flotilla_node::transport::{Class, Client, Expect, kinds};
use flotilla_topology::api::{ClusterMap, GroupInfo};
use flotilla_topology::ids::{ClusterId, Role};
use flotilla_topology::slot::{Slot, SlotRange};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::time::Duration;

/// A group reads all it has to answer.
const DEADLINE: Duration = Duration::from_secs(120);
/// Nodes that are asked for one group before it is given up for this round.
const TRIES_MAX: usize = 6;

/// What a cluster holds.
#[derive(Debug, Clone)]
pub struct Content {
    /// Its name.
    pub name: String,
    /// Its id.
    pub cluster: ClusterId,
    /// Where its groups were when it was asked.
    pub map: ClusterMap,
    /// By name of namespace; synced ones only.
    pub namespaces: BTreeMap<String, Vec<Part>>,
}

/// What a group holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Part {
    /// Its slots.
    pub slots: SlotRange,
    /// Its answer.
    pub digest: DigestAnswer,
}

impl Content {
    /// Of a cluster that was not asked.
    pub fn empty(map: &ClusterMap) -> Content {
        let namespaces = BTreeMap::new();
        Content { name: map.name.clone(), cluster: map.cluster, map: map.clone(), namespaces }
    }

    /// The group that carries a slot of a namespace.
    pub fn group_of(&self, namespace: &str, slot: Slot) -> Option<&GroupInfo> {
        let named = self.map.namespaces.iter().find(|known| known.spec.name == namespace)?;
        let mut groups = self.map.groups.iter().filter(|group| group.namespace == named.id);
        groups.find(|group| group.slots.contains(slot))
    }
}

/// Asks the nodes of one cluster, and keeps its connections.
pub struct Asker {
    tls: Tls,
    clients: Mutex<BTreeMap<String, Client>>,
}

impl Asker {
    /// With a certificate of role client of that cluster.
    pub fn new(tls: Tls) -> Asker {
        Asker { tls, clients: Mutex::default() }
    }

    /// Everything that is synced and in scope, at one group time.
    pub async fn content(
        &self,
        map: &ClusterMap,
        scope: &Scope,
        at_ms: u64,
    ) -> anyhow::Result<Content> {
        let (mut content, slots) = (Content::empty(map), scope.slots);
        for namespace in map.namespaces.iter().filter(|namespace| scope.has(&namespace.spec)) {
            let groups = map.groups.iter().filter(|group| group.namespace == namespace.id);
            let groups = groups.filter(|group| group.slots.intersects(&slots));
            let parts = groups.map(|group| async move {
                let payload = DigestRequest { group: group.id, at_ms, slots };
                let digest =
                    self.leader(map, group, payload.encode()).await.with_context(|| {
                        format!("group {} of {} cannot be asked", group.id, map.name)
                    })?;
                anyhow::Ok(Part { slots: group.slots, digest })
            });
            let parts = futures::future::try_join_all(parts).await?;
            content.namespaces.insert(namespace.spec.name.clone(), parts);
        }
        Ok(content)
    }

    /// A page of the keys of a slot.
    pub async fn keys(
        &self,
        content: &Content,
        group: &GroupInfo,
        request: &KeysRequest,
    ) -> anyhow::Result<KeyPage> {
        self.leader(&content.map, group, request.encode())
            .await
            .with_context(|| format!("group {} of {} cannot be asked", group.id, content.name))
    }

    /// What the replica of a group on a node is.
    pub async fn replica(
        &self,
        map: &ClusterMap,
        group: &GroupInfo,
        node: &str,
    ) -> anyhow::Result<ReplicaState> {
        let client = self.client(map, node).context("it is not in the map")?;
        let payload = DigestCall::Replica(group.id).encode();
        let bytes = client.call(Class::Bulk, kinds::DIGEST, payload, DEADLINE).await?;
        match Answer::decode(&bytes)? {
            Answer::Done(state) => Ok(state),
            other => bail!("answers {other:?}"),
        }
    }

    /// Asks whoever leads: by the map's hint first, then whom the others point to.
    async fn leader<T: Outcome>(
        &self,
        map: &ClusterMap,
        group: &GroupInfo,
        payload: Bytes,
    ) -> anyhow::Result<T> {
        let hint = group.leader.iter().map(|leader| leader.node.clone());
        let mut left: Vec<String> =
            hint.chain(group.replicas.iter().map(|replica| replica.node.clone())).collect();
        left.dedup();
        let mut last = "it has no replicas".to_owned();
        for _ in 0..TRIES_MAX {
            if left.is_empty() {
                break;
            }
            let node = left.remove(0);
            let Some(client) = self.client(map, &node) else {
                last = format!("node {node} is not in the map");
                continue;
            };
            let bytes =
                match client.call(Class::Bulk, kinds::DIGEST, payload.clone(), DEADLINE).await {
                    Ok(bytes) => bytes,
                    Err(error) => {
                        last = format!("{node}: {error}");
                        continue;
                    }
                };
            match Answer::<T>::decode(&bytes) {
                Ok(Answer::Done(answer)) => return Ok(answer),
                Ok(Answer::NotLeader(leader)) => {
                    last = format!("{node} does not lead");
                    if let Some(leader) = leader.node.filter(|leader| *leader != node) {
                        left.retain(|other| *other != leader);
                        left.insert(0, leader);
                    }
                }
                Ok(Answer::Refused { reason }) => bail!("{node}: {reason}"),
                Err(error) => bail!("{node} answers what cannot be read: {error}"),
            }
        }
        bail!("{last}")
    }

    fn client(&self, map: &ClusterMap, node: &str) -> Option<Client> {
        let info = map.nodes.iter().find(|info| info.name == node)?;
        let mut clients = self.clients.lock();
        let address = &info.addresses.rpc;
        if let Some(client) = clients.get(node).filter(|client| client.addr() == address) {
            return Some(client.clone());
        }
        let expect = Expect { cluster: map.cluster, role: Role::Node, name: Some(node.to_owned()) };
        let client = Client::new(address.clone(), &self.tls, expect);
        clients.insert(node.to_owned(), client.clone());
        Some(client)
    }
}
