//! Finds the leaders of this cluster's own groups and speaks to them.
//!
//! Whom to ask comes from the map's hints and from the answers of nodes that do not lead; what
//! fails is asked elsewhere next time. Requests to one group leave in the order of the calls as
//! long as its leader stays the same; when it changes, whoever depends on order begins anew.

use crate::receiver::Failure;
use bytes::Bytes;
use flotilla_node::group::remote::{Answer, LeaderIs, Outcome};
use flotilla_node::raft::{Member, Network, Peer};
use flotilla_node::tls::Tls;
use flotilla_node::transport::{Class, Client, Expect};
use flotilla_topology::api::{ClusterMap, GroupInfo};
use flotilla_topology::ids::{GroupId, ReplicaId, Role};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::watch;

/// The map as the syncer follows it.
pub type MapWatch = watch::Receiver<Option<Arc<ClusterMap>>>;

/// Speaks to the nodes of this cluster. Clones share connections and what was learned.
#[derive(Clone)]
pub struct Leaders {
    shared: Arc<Shared>,
}

struct Shared {
    tls: Tls,
    datacenter: String,
    map: MapWatch,
    runtime: Handle,
    clients: Mutex<HashMap<String, Client>>,
    hints: Mutex<HashMap<GroupId, Hint>>,
}

#[derive(Debug, Clone, Default)]
struct Hint {
    node: Option<String>,
    term: u64,
    /// Failures since the last answer: chooses whom to ask when nobody is known to lead.
    failures: usize,
}

impl Leaders {
    /// For a syncer in `datacenter`.
    pub fn new(tls: Tls, datacenter: String, map: MapWatch, runtime: Handle) -> Leaders {
        let (clients, hints) = (Mutex::default(), Mutex::default());
        Leaders { shared: Arc::new(Shared { tls, datacenter, map, runtime, clients, hints }) }
    }

    /// The map that was seen last.
    pub fn map(&self) -> Option<Arc<ClusterMap>> {
        self.shared.map.borrow().clone()
    }

    /// Asks the leader of `group` once. The request is queued when this returns, before the future
    /// is polled.
    pub fn ask<T: Outcome>(
        &self,
        group: GroupId,
        class: Class,
        kind: u16,
        payload: Bytes,
        deadline: Duration,
    ) -> impl Future<Output = Result<T, Failure>> + Send + use<T> {
        let leaders = self.clone();
        let asked = self.candidate(group).and_then(|node| Some((self.client(&node)?, node)));
        let call = asked.map(|(client, node)| (client.call(class, kind, payload, deadline), node));
        async move {
            let Some((call, node)) = call else {
                leaders.failed(group);
                return Err(Failure::Again);
            };
            let answer = match call.await {
                Ok(answer) => Answer::<T>::decode(&answer),
                Err(error) => {
                    tracing::debug!(%group, %node, kind, %error, "leader did not answer");
                    leaders.failed(group);
                    return Err(Failure::Again);
                }
            };
            match answer {
                Ok(Answer::Done(outcome)) => {
                    leaders.answered(group, node);
                    Ok(outcome)
                }
                Ok(Answer::NotLeader(leader)) => {
                    leaders.elsewhere(group, &node, leader);
                    Err(Failure::Again)
                }
                Ok(Answer::Refused { reason }) => Err(Failure::Refused(reason)),
                Err(error) => Err(Failure::Refused(format!("unreadable answer: {error}"))),
            }
        }
    }

    /// Asks one node once, whoever leads.
    pub async fn ask_node<T: Outcome>(
        &self,
        node: &str,
        class: Class,
        kind: u16,
        payload: Bytes,
        deadline: Duration,
    ) -> Result<T, Failure> {
        let Some(client) = self.client(node) else { return Err(Failure::Again) };
        let answer = client.call(class, kind, payload, deadline).await;
        let answer = answer.map_err(|error| {
            tracing::debug!(%node, kind, %error, "node did not answer");
            Failure::Again
        })?;
        match Answer::<T>::decode(&answer) {
            Ok(Answer::Done(outcome)) => Ok(outcome),
            Ok(Answer::NotLeader(_)) => Err(Failure::Again),
            Ok(Answer::Refused { reason }) => Err(Failure::Refused(reason)),
            Err(error) => Err(Failure::Refused(format!("unreadable answer: {error}"))),
        }
    }

    /// The nodes that carry a group, those that do not lead first.
    pub fn replicas(&self, group: GroupId) -> Vec<String> {
        let Some(map) = self.map() else { return Vec::new() };
        let Some(info) = map.groups.iter().find(|info| info.id == group) else {
            return Vec::new();
        };
        let hint = self.shared.hints.lock().get(&group).cloned().unwrap_or_default();
        let leader = choose(info, &hint);
        let mut nodes: Vec<String> = info.replicas.iter().map(|r| r.node.clone()).collect();
        nodes.sort_by_key(|node| Some(node) == leader.as_ref());
        nodes
    }

    /// As [`Leaders::ask`], again until there is an answer.
    pub async fn ask_until_answered<T: Outcome>(
        &self,
        group: GroupId,
        kind: u16,
        payload: Bytes,
        deadline: Duration,
    ) -> Result<T, String> {
        let mut pause = crate::receiver::RETRY_FIRST;
        loop {
            match self.ask(group, Class::Control, kind, payload.clone(), deadline).await {
                Ok(outcome) => return Ok(outcome),
                Err(Failure::Refused(reason)) => return Err(reason),
                Err(Failure::Again) => tokio::time::sleep(pause).await,
            }
            pause = (pause * 2).min(crate::receiver::RETRY_LAST);
        }
    }

    fn candidate(&self, group: GroupId) -> Option<String> {
        let map = self.map()?;
        let info = map.groups.iter().find(|info| info.id == group)?;
        let hint = self.shared.hints.lock().get(&group).cloned().unwrap_or_default();
        choose(info, &hint)
    }

    fn failed(&self, group: GroupId) {
        let mut hints = self.shared.hints.lock();
        let hint = hints.entry(group).or_default();
        hint.node = None;
        hint.failures += 1;
    }

    fn answered(&self, group: GroupId, node: String) {
        let mut hints = self.shared.hints.lock();
        let hint = hints.entry(group).or_default();
        hint.node = Some(node);
        hint.failures = 0;
    }

    fn elsewhere(&self, group: GroupId, asked: &str, leader: LeaderIs) {
        let mut hints = self.shared.hints.lock();
        let hint = hints.entry(group).or_default();
        match leader.node {
            // Two calls may come back in any order: a newer term is not undone by an older one.
            Some(node) if leader.term >= hint.term && node != asked => {
                *hint = Hint { node: Some(node), term: leader.term, failures: 0 };
            }
            _ if hint.node.as_deref() == Some(asked) || hint.node.is_none() => {
                hint.node = None;
                hint.failures += 1;
            }
            _ => {}
        }
    }

    fn client(&self, node: &str) -> Option<Client> {
        let map = self.map()?;
        let info = map.nodes.iter().find(|info| info.name == node)?;
        let addr = &info.addresses_from(&self.shared.datacenter).rpc;
        let mut clients = self.shared.clients.lock();
        if let Some(client) = clients.get(node)
            && client.addr() == addr
        {
            return Some(client.clone());
        }
        let expect = Expect { cluster: map.cluster, role: Role::Node, name: Some(node.into()) };
        let client = Client::on(&self.shared.runtime, addr.clone(), &self.shared.tls, expect);
        clients.insert(node.to_owned(), client.clone());
        Some(client)
    }
}

/// Who was named by an answer, else by the map, else everybody in turn.
fn choose(info: &GroupInfo, hint: &Hint) -> Option<String> {
    if let Some(node) = &hint.node {
        return Some(node.clone());
    }
    let told = info.leader.as_ref().filter(|_| hint.failures == 0).map(|leader| &leader.node);
    let replicas = &info.replicas;
    let turn = || replicas.get(hint.failures % replicas.len().max(1)).map(|r| &r.node);
    told.or_else(turn).cloned()
}

impl Network for Leaders {
    fn peer(&self, _replica: ReplicaId, member: &Member) -> Option<Arc<dyn Peer>> {
        let node = (member.role == Role::Node).then(|| self.client(&member.name))??;
        Some(Arc::new(node))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flotilla_topology::api::{LeaderHint, ReplicaInfo};
    use flotilla_topology::ids::NamespaceId;
    use flotilla_topology::slot::SlotRange;

    fn info(leader: Option<&str>) -> GroupInfo {
        let replica = |id: u64| ReplicaInfo { id: ReplicaId(id), node: format!("n{id}") };
        let replicas: Vec<_> = (1..=3).map(replica).collect();
        GroupInfo {
            id: GroupId(1),
            namespace: NamespaceId(1),
            slots: SlotRange::ALL,
            birth: replicas.clone(),
            replicas,
            learners: vec![],
            preferred_leader: "n1".into(),
            leader: leader.map(|node| LeaderHint { node: node.into(), term: 3 }),
        }
    }

    #[test]
    fn an_answer_beats_the_map_and_failures_go_round() {
        let named = Hint { node: Some("n9".into()), term: 4, failures: 0 };
        assert_eq!(choose(&info(Some("n2")), &named).as_deref(), Some("n9"));
        assert_eq!(choose(&info(Some("n2")), &Hint::default()).as_deref(), Some("n2"));
        let asked: Vec<_> = (1..=3)
            .map(|failures| choose(&info(Some("n2")), &Hint { failures, ..Hint::default() }))
            .collect();
        assert_eq!(asked, [Some("n2".into()), Some("n3".into()), Some("n1".into())]);
        assert_eq!(choose(&info(None), &Hint::default()).as_deref(), Some("n1"));
    }
}
