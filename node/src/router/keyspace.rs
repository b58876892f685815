//! Commands over a whole keyspace: SCAN goes on in the group that owns its cursor's slot, DBSIZE
//! and FLOTILLA CONFLICTS ask every group. None is a moment of the whole namespace, as in Redis
//! Cluster.

use crate::command::{Command, Id};
use crate::eval::{ConflictOptions, ScanOptions, newest_conflicts};
use crate::resp::Reply;
use crate::router::Router;
use crate::router::split::group_of;
use crate::server::{Door, SessionView};
use flotilla_topology::api::ClusterMap;
use flotilla_topology::slot::Slot;
use futures::future::join_all;
use std::sync::Arc;

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
}
