//! Transactions: to the one group that all keys of one lie in, and again while they were certainly
//! not applied.

use crate::command::Command;
use crate::group::exec::{Outcome, decode_outcomes};
use crate::group::transaction::{Ask, AskRequest, Transaction, Watch, watched};
use crate::resp::Reply;
use crate::router::exec::{FORWARD_DEADLINE, moved_to, try_again, unknown};
use crate::router::split::group_of;
use crate::router::{RETRY_DEADLINE, RETRY_PAUSE_MAX, RETRY_PAUSE_MIN, Router, Target, cross_slot};
use crate::server::{Door, SessionView};
use crate::transport::{Class, RpcError, kinds};
use bytes::Bytes;
use flotilla_topology::api::ClusterMap;
use flotilla_topology::ids::{GroupId, NamespaceId, Role};
use flotilla_topology::slot::Slot;
use std::sync::Arc;
use std::time::Instant;

impl Router {
    /// Whether a command may be queued, as far as that is known now. The error is its answer.
    pub(super) fn may_queue(&self, session: SessionView, command: &Command) -> Result<(), Reply> {
        self.admit(command)?;
        let map = self.places.map().ok_or_else(no_map)?;
        let (group, slot) = place(&map, session, command.keys())?;
        match (session.door, self.places.leader(&map, group, None)) {
            // As Redis Cluster does it: the client learns of it before it has sent the rest.
            (Door::Cluster, Target::Node(node)) => {
                match moved_to(&map, &node, &self.places.datacenter) {
                    Some(to) => Err(moved(slot, &to)),
                    None => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }

    /// Watches keys of one group.
    pub(super) async fn watch_keys(
        self: Arc<Self>,
        session: SessionView,
        keys: Vec<Bytes>,
    ) -> Result<Vec<Watch>, Reply> {
        let map = self.places.map().ok_or_else(no_map)?;
        keys.iter().try_for_each(|key| self.admit_key(key))?;
        let at = place(&map, session, keys.iter())?;
        let reply = self.ask(session, &map, at, Ask::Watch(keys.clone())).await;
        if reply.is_error() {
            return Err(reply);
        }
        let unreadable = || Reply::error("ERR the leader's answer to WATCH cannot be read");
        watched(at.0, keys, &reply).ok_or_else(unreadable)
    }

    /// Carries out a transaction whose keys all lie in one group.
    pub(super) async fn carry_out(
        self: Arc<Self>,
        session: SessionView,
        transaction: Transaction,
    ) -> Result<Reply, Reply> {
        let map = self.places.map().ok_or_else(no_map)?;
        transaction.commands().try_for_each(|command| self.admit(command))?;
        for condition in &transaction.conditions {
            self.admit_key(&condition.key)?;
        }
        let at = place(&map, session, transaction.keys())?;
        if transaction.watches.iter().any(|watch| watch.group != at.0) {
            return Err(cross_slot(session.door)); // a key of another namespace
        }
        Ok(self.ask(session, &map, at, Ask::Transact(transaction)).await)
    }

    async fn ask(
        &self,
        session: SessionView,
        map: &ClusterMap,
        (group, slot): (GroupId, Slot),
        ask: Ask,
    ) -> Reply {
        let deadline = Instant::now() + RETRY_DEADLINE;
        let mut pause = RETRY_PAUSE_MIN;
        let mut hint: Option<String> = None;
        loop {
            let outcome = match self.places.leader(map, group, hint.take().as_deref()) {
                Target::Unknown => Outcome::NotApplied { leader: None },
                Target::Local(leader) => leader.ask(ask.clone()).await,
                Target::Node(node) if session.door == Door::Cluster => {
                    match moved_to(map, &node, &self.places.datacenter) {
                        Some(to) => return moved(slot, &to),
                        None => Outcome::NotApplied { leader: None },
                    }
                }
                Target::Node(node) => self.forward_ask(group, &node, ask.clone()).await,
            };
            match outcome {
                Outcome::Done(reply) => return reply,
                // A key that may be watched does no harm.
                Outcome::Unknown if matches!(ask, Ask::Watch(_)) => {}
                Outcome::Unknown => return unknown(),
                Outcome::NotApplied { leader } => hint = leader,
            }
            if Instant::now() >= deadline {
                return try_again();
            }
            // A wrong hint must not make two nodes send it to and fro at full speed.
            tokio::time::sleep(if hint.is_some() { RETRY_PAUSE_MIN } else { pause }).await;
            if hint.is_none() {
                pause = (pause * 2).min(RETRY_PAUSE_MAX);
            }
        }
    }

    async fn forward_ask(&self, group: GroupId, node: &str, ask: Ask) -> Outcome {
        let not_applied = Outcome::NotApplied { leader: None };
        let Some(client) = self.places.client(Role::Node, node) else { return not_applied };
        let payload = AskRequest { group, ask }.encode();
        metrics::counter!("flotilla_forwarded_total").increment(1);
        match client.call(Class::Forward, kinds::ASK, payload, FORWARD_DEADLINE).await {
            Ok(answer) => match decode_outcomes(&answer).as_deref() {
                Ok([outcome]) => outcome.clone(),
                _ => Outcome::Unknown,
            },
            Err(RpcError::Unreachable(_) | RpcError::Refused(_)) => not_applied,
            Err(_) => Outcome::Unknown,
        }
    }
}

/// The group that all keys lie in, and the slot of the first. What other clusters merge must be in
/// one slot: they may have cut it into other groups, and it is one unit there too.
fn place<'k>(
    map: &ClusterMap,
    session: SessionView,
    mut keys: impl Iterator<Item = &'k Bytes>,
) -> Result<(GroupId, Slot), Reply> {
    let Some(first) = keys.next() else {
        return Err(Reply::error("ERR this command names no key"));
    };
    let first = Slot::of(first);
    let group = group_of(map, session.namespace, first)?;
    let one_slot = session.door == Door::Cluster || is_synced(map, session.namespace);
    for slot in keys.map(|key| Slot::of(key)).filter(|slot| *slot != first) {
        if one_slot || group_of(map, session.namespace, slot)? != group {
            return Err(cross_slot(session.door));
        }
    }
    Ok((group, first))
}

fn is_synced(map: &ClusterMap, namespace: NamespaceId) -> bool {
    let mut known = map.namespaces.iter().filter(|known| known.id == namespace);
    known.any(|known| known.spec.synced)
}

fn moved(slot: Slot, to: &str) -> Reply {
    Reply::error(format!("MOVED {slot} {to}"))
}

fn no_map() -> Reply {
    Reply::error("TRYAGAIN this node has no partition map yet: is PD reachable?")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resp::Protocol;
    use flotilla_topology::api::{GroupInfo, NamespaceInfo, NamespaceSpec};
    use flotilla_topology::ids::{ClusterId, Epoch, Incarnation};
    use flotilla_topology::slot::SlotRange;

    /// Namespace 1 is synced, namespace 2 is not; both have two groups.
    fn map() -> ClusterMap {
        let namespace = |id, synced| NamespaceInfo {
            id: NamespaceId(id),
            spec: NamespaceSpec { name: format!("n{id}"), partitions: 2, replicas: 1, synced },
            switched: false,
        };
        let group = |id: u32| GroupInfo {
            id: GroupId(id),
            namespace: NamespaceId(id.div_ceil(2)),
            slots: SlotRange::partition((id + 1) % 2, 2),
            birth: vec![],
            replicas: vec![],
            learners: vec![],
            preferred_leader: String::new(),
            leader: None,
        };
        ClusterMap {
            cluster: ClusterId(1),
            name: "east".into(),
            incarnation: Incarnation(1),
            epoch: Epoch(1),
            revision: 1,
            nodes: vec![],
            syncers: vec![],
            namespaces: vec![namespace(1, true), namespace(2, false)],
            groups: (1..=4).map(group).collect(),
            peers: vec![],
            mesh_version: 0,
            backlog: Default::default(),
        }
    }

    fn placed(namespace: u32, door: Door, keys: &[&'static str]) -> Result<u32, String> {
        let session = SessionView {
            client: 1,
            namespace: NamespaceId(namespace),
            door,
            readonly: false,
            protocol: Protocol::Resp2,
            reply_bytes_max: 1 << 20,
        };
        let keys: Vec<Bytes> = keys.iter().map(|key| Bytes::from_static(key.as_bytes())).collect();
        match place(&map(), session, keys.iter()) {
            Ok((group, _)) => Ok(group.0),
            Err(Reply::Error(line)) => Err(String::from_utf8_lossy(&line).into_owned()),
            Err(other) => panic!("not an error: {other:?}"),
        }
    }

    #[test]
    fn a_transaction_stays_in_a_group_and_in_a_synced_namespace_in_a_slot() {
        // Slots 15495, 3300 and 7365: the second and the third are of one group of two.
        let [high, low, lower] = ["a", "b", "c"];
        assert_eq!(Slot::of(lower.as_bytes()), Slot(7365));
        let (plain, cluster) = (Door::Plain, Door::Cluster);
        assert_eq!(placed(2, plain, &[low, lower, low]), Ok(3));
        assert_eq!(placed(2, plain, &[high]), Ok(4));
        assert_eq!(placed(1, plain, &["{b}x", "{b}y", low]), Ok(1));
        let remedy =
            "CROSSSLOT Keys in request don't hash to the same slot: give them one {hash tag}";
        for refused in [
            placed(2, plain, &[low, high]),
            placed(1, plain, &[low, lower]),
            placed(1, plain, &[low, high]),
        ] {
            assert_eq!(refused.unwrap_err(), remedy);
        }
        let redis = "CROSSSLOT Keys in request don't hash to the same slot";
        assert_eq!(placed(2, cluster, &[low, lower]).unwrap_err(), redis);
        assert!(placed(9, plain, &[low]).unwrap_err().starts_with("TRYAGAIN no group"));
    }
}
