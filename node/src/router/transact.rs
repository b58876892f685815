//! Transactions: to the one group that all keys of one lie in, and again while they were certainly
//! not applied.

use crate::command::Command;
use crate::group::exec::{Outcome, decode_outcomes};
use crate::group::transaction::{Ask, AskRequest, Transaction, Watch, watched};
use crate::resp::Reply;
use crate::router::exec::{FORWARD_DEADLINE, moved_to, try_again, unknown};
use crate::router::split::place;
use crate::router::{RETRY_DEADLINE, RETRY_PAUSE_MAX, RETRY_PAUSE_MIN, Router, Target, cross_slot};
use crate::server::{Door, SessionView};
use crate::transport::{Class, RpcError, kinds};
use bytes::Bytes;
use flotilla_topology::api::ClusterMap;
use flotilla_topology::ids::{GroupId, Role};
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

fn moved(slot: Slot, to: &str) -> Reply {
    Reply::error(format!("MOVED {slot} {to}"))
}

fn no_map() -> Reply {
    Reply::error("TRYAGAIN this node has no partition map yet: is PD reachable?")
}
