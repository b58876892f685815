//! All groups of one process, by number: hands each message to its group.

use super::group::RaftGroup;
use super::server::refused;
use super::wire;
use crate::transport::{ReplyTo, kinds};
use bytes::Bytes;
use flotilla_topology::ids::GroupId;
use parking_lot::RwLock;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The groups of one process. Clones share them.
#[derive(Clone, Default)]
pub struct RaftGroups {
    groups: Arc<RwLock<BTreeMap<GroupId, RaftGroup>>>,
}

impl RaftGroups {
    /// Adds a group; messages reach it from now on. Gives the one that it replaces.
    pub fn insert(&self, group: RaftGroup) -> Option<RaftGroup> {
        self.groups.write().insert(group.group(), group)
    }

    /// Takes a group out; messages for it are refused from now on.
    pub fn remove(&self, group: GroupId) -> Option<RaftGroup> {
        self.groups.write().remove(&group)
    }

    /// The group of that number, if it is here.
    pub fn get(&self, group: GroupId) -> Option<RaftGroup> {
        self.groups.read().get(&group).cloned()
    }

    /// All groups here.
    pub fn all(&self) -> Vec<RaftGroup> {
        self.groups.read().values().cloned().collect()
    }

    /// Takes a message of another process. Never blocks; to be called in the order of arrival.
    pub fn handle(&self, kind: u16, payload: &Bytes, reply: ReplyTo) {
        if kind == kinds::RAFT_PARKED {
            return self.take_listing(payload, reply);
        }
        let group = match wire::group_of(payload) {
            Ok(group) => group,
            Err(error) => return reply.send(Err(refused(error))),
        };
        match self.get(group) {
            Some(raft) => raft.handle(kind, payload, reply),
            None => reply.send(Err(refused(format!("group {group} is not here")))),
        }
    }
}
