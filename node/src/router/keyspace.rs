//! Commands over a whole keyspace: SCAN goes on in the group that owns its cursor's slot, DBSIZE,
//! KEYS and FLOTILLA CONFLICTS ask every group, RANDOMKEY the next one in turn that has a key. None
//! is a moment of the whole namespace, as in Redis Cluster.

use crate::command::{Command, Id};
use crate::eval::{ConflictOptions, ScanOptions, newest_conflicts, too_many_keys};
use crate::resp::{COMMAND_REPLY_BYTES_MAX, Reply};
use crate::router::Router;
use crate::router::split::group_of;
use crate::server::{Door, SessionView};
use flotilla_topology::api::ClusterMap;
use flotilla_topology::ids::GroupId;
use flotilla_topology::slot::Slot;
use futures::future::join_all;
use std::sync::Arc;
use std::sync::atomic::Ordering;

impl Router {
    /// Executes one command over the session's namespace.
    pub(super) async fn over_keyspace(
        self: Arc<Self>,
        session: SessionView,
        map: &ClusterMap,
        command: Command,
    ) -> Reply {
        // These name no key, so there is nothing to move to: the cluster door forwards them too.
        let session = SessionView { door: Door::Plain, ..session };
        match command.spec.id {
            Id::Scan => self.scan(session, map, command).await,
            Id::DbSize => self.db_size(session, map, command).await,
            Id::Flotilla => self.conflicts(session, map, command).await,
            Id::Keys => self.keys(session, map, command).await,
            Id::RandomKey => self.random_key(session, map, command).await,
            _ => Reply::error(format!("ERR '{}' is not carried out here", command.spec.name)),
        }
    }

    async fn scan(
        self: &Arc<Self>,
        session: SessionView,
        map: &ClusterMap,
        command: Command,
    ) -> Reply {
        let options = match ScanOptions::parse(&command.args) {
            Ok(options) => options,
            Err(reply) => return reply,
        };
        let group = match group_of(map, session.namespace, options.cursor.slot) {
            Ok(group) => group,
            Err(reply) => return reply,
        };
        let mut replies = self.execute_in_group(session, map, group, vec![command]).await;
        replies.pop().unwrap_or_else(|| Reply::error("ERR SCAN was not answered"))
    }

    async fn db_size(
        self: &Arc<Self>,
        session: SessionView,
        map: &ClusterMap,
        command: Command,
    ) -> Reply {
        let groups = map.groups.iter().filter(|group| group.namespace == session.namespace);
        let counts = groups
            .map(|group| self.execute_in_group(session, map, group.id, vec![command.clone()]));
        let mut sum = 0;
        for reply in join_all(counts).await.into_iter().flatten() {
            match reply {
                Reply::Int(count) => sum += count,
                other => return other,
            }
        }
        Reply::Int(sum)
    }

    async fn conflicts(
        self: &Arc<Self>,
        session: SessionView,
        map: &ClusterMap,
        command: Command,
    ) -> Reply {
        let options = match ConflictOptions::parse(&command.args) {
            Ok(options) => options,
            Err(reply) => return reply,
        };
        let slot = options.key.as_ref().map(|key| Slot::of(key));
        let groups = map.groups.iter().filter(|group| {
            group.namespace == session.namespace
                && slot.is_none_or(|slot| group.slots.contains(slot))
        });
        let answers = groups
            .map(|group| self.execute_in_group(session, map, group.id, vec![command.clone()]));
        let mut all = Vec::new();
        for reply in join_all(answers).await.into_iter().flatten() {
            match reply {
                Reply::Array(some) => all.extend(some),
                other => return other,
            }
        }
        newest_conflicts(all, options.count)
    }

    /// One group after the other: all at once could answer with more than there is room for.
    async fn keys(
        self: &Arc<Self>,
        session: SessionView,
        map: &ClusterMap,
        command: Command,
    ) -> Reply {
        let (mut all, mut bytes) = (Vec::new(), 0);
        for group in groups_of(map, session) {
            let replies = self.execute_in_group(session, map, group, vec![command.clone()]).await;
            for reply in replies {
                let Reply::Array(some) = reply else { return reply };
                bytes += some.iter().map(Reply::size).sum::<usize>();
                if bytes > COMMAND_REPLY_BYTES_MAX {
                    return too_many_keys();
                }
                all.extend(some);
            }
        }
        Reply::Array(all)
    }

    async fn random_key(
        self: &Arc<Self>,
        session: SessionView,
        map: &ClusterMap,
        command: Command,
    ) -> Reply {
        let mut groups = groups_of(map, session);
        if !groups.is_empty() {
            let turn = self.turn.fetch_add(1, Ordering::Relaxed) % groups.len();
            groups.rotate_left(turn);
        }
        for group in groups {
            let replies = self.execute_in_group(session, map, group, vec![command.clone()]).await;
            if let Some(found) = replies.into_iter().find(|reply| *reply != Reply::Null) {
                return found;
            }
        }
        Reply::Null
    }
}

fn groups_of(map: &ClusterMap, session: SessionView) -> Vec<GroupId> {
    let groups = map.groups.iter().filter(|group| group.namespace == session.namespace);
    groups.map(|group| group.id).collect()
}
