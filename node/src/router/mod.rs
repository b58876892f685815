//! From a connection's commands to groups and back.
//!
//! The router knows the partition map, the groups on this node and the other nodes. It splits a run
//! of commands by group, executes all groups in parallel, one request after the other in each, and
//! puts the replies together in the order of the commands.
//!
//! Invariants:
//! * Commands of one run and one group are evaluated in the order given. What stands behind a
//!   refused command is refused too and retried behind it.
//! * Only what was certainly not applied is retried, for up to [`RETRY_DEADLINE`].
//! * A multi-key command over several groups is split if its table entry says so: each part is
//!   atomic, the whole is not. All others are refused with the remedy.
//! * A transaction is carried out by one group, or refused with the remedy.
//! * A command that waits is carried out as often as it takes; see `wait`.

mod barrier;
mod exec;
mod keyspace;
mod places;
mod split;
mod transact;
mod wait;

pub use places::{Places, Target};
pub use wait::POLLS_FORWARDED_MAX;

use crate::command::{Command, Flags, Place};
use crate::config::Limits;
use crate::group::transaction::{Transaction, Watch};
use crate::resp::Reply;
use crate::router::barrier::Barriers;
use crate::router::split::{Part, Plan};
use crate::server::{Backend, Door, Patience, SessionView};
use bytes::Bytes;
use flotilla_topology::api::ClusterMap;
use flotilla_topology::ids::{GroupId, NamespaceId};
use futures::future::{BoxFuture, join_all};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::time::Duration;

/// Commands that were not applied are tried again for so long before the client hears of it.
pub const RETRY_DEADLINE: Duration = Duration::from_secs(5);
/// First pause between two tries; it doubles up to [`RETRY_PAUSE_MAX`].
pub const RETRY_PAUSE_MIN: Duration = Duration::from_millis(2);
/// Longest pause between two tries: an election takes a few of these.
pub const RETRY_PAUSE_MAX: Duration = Duration::from_millis(50);

/// How much room the disk has for what clients write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Room {
    Enough,
    /// Only for what makes room: a log entry is small beside what it deletes.
    ForDeletes,
    None,
}

impl Room {
    /// Deletes have half of the reserve; the rest is the node's own.
    fn of(free: u64, reserve: u64) -> Room {
        match free {
            free if free >= reserve => Room::Enough,
            free if free >= reserve / 2 => Room::ForDeletes,
            _ => Room::None,
        }
    }
}

/// Carries out data commands.
pub struct Router {
    places: Arc<Places>,
    limits: Limits,
    /// What CONFIG GET and INFO show of the node's configuration.
    settings: Vec<(String, String)>,
    barriers: Barriers,
    /// What clients may write as long as the disk is as full as it is: a [`Room`].
    room: AtomicU8,
    /// Which group RANDOMKEY asks first.
    turn: AtomicUsize,
    /// Polls of clients that wait, in the hands of other nodes.
    polls_forwarded: AtomicUsize,
}

impl Router {
    /// A router over the groups and nodes of `places`.
    pub fn new(
        places: Arc<Places>,
        limits: Limits,
        settings: Vec<(String, String)>,
    ) -> Arc<Router> {
        let barriers = Barriers::new(places.clone());
        let (room, turn) = (AtomicU8::new(Room::Enough as u8), AtomicUsize::new(0));
        let polls_forwarded = AtomicUsize::new(0);
        Arc::new(Router { places, limits, settings, barriers, room, turn, polls_forwarded })
    }

    /// The disk has so many bytes left, of which `reserve` are not for what clients write.
    pub fn set_disk_free(&self, free: u64, reserve: u64) {
        let room = Room::of(free, reserve);
        if self.room.swap(room as u8, Ordering::Relaxed) != room as u8 {
            tracing::warn!(
                free,
                reserve,
                ?room,
                "what clients may write has changed with the disk"
            );
        }
    }

    /// Refuses what no group may see.
    fn admit(&self, command: &Command) -> Result<(), Reply> {
        let room = self.room.load(Ordering::Relaxed);
        if command.spec.is_write() && room != Room::Enough as u8 {
            let grows = command.spec.flags.has(Flags::DENYOOM);
            if grows || room == Room::None as u8 {
                return Err(Reply::error(
                    "ERR the disk is nearly full: writes are refused until space is freed \
                     (limits.disk_reserve)",
                ));
            }
        }
        command.keys().try_for_each(|key| self.admit_key(key))?;
        let value_max = self.limits.value_bytes_max;
        if let Some(arg) = command.args.iter().find(|arg| arg.len() > value_max) {
            return Err(Reply::error(format!(
                "ERR an argument of {} bytes is above limits.value_bytes_max ({value_max})",
                arg.len()
            )));
        }
        Ok(())
    }

    fn admit_key(&self, key: &Bytes) -> Result<(), Reply> {
        let (bytes, max) = (key.len(), self.limits.key_bytes_max);
        if bytes <= max {
            return Ok(());
        }
        let line = format!("ERR a key of {bytes} bytes is above limits.key_bytes_max ({max})");
        Err(Reply::error(line))
    }

    /// The group of a command that is alone in its run and in one slot, as most are: there is nothing to split,
    /// nor to put together. `None` also for what is refused.
    fn sole_group(
        &self,
        map: &ClusterMap,
        session: SessionView,
        command: &Command,
    ) -> Option<GroupId> {
        self.admit(command).ok()?;
        let of_all = command.spec.place == Place::EveryGroup;
        if of_all { None } else { split::sole_group(map, session.namespace, command) }
    }

    async fn run(self: Arc<Self>, session: SessionView, commands: Vec<Command>) -> Vec<Reply> {
        let Some(map) = self.places.map() else {
            let reply =
                Reply::error("TRYAGAIN this node has no partition map yet: is PD reachable?");
            return vec![reply; commands.len()];
        };
        if let [command] = &commands[..]
            && let Some(group) = self.sole_group(&map, session, command)
        {
            return self.execute_in_group(session, &map, group, commands).await;
        }
        let mut plan = Plan::new(commands.len());
        let mut whole = Vec::new();
        for (index, command) in commands.into_iter().enumerate() {
            if let Err(reply) = self.admit(&command) {
                plan.answer(index, reply);
            } else if command.spec.place == Place::EveryGroup {
                whole.push((index, command));
            } else if let Err(reply) = plan.add(&map, session, index, command) {
                plan.answer(index, reply);
            }
        }
        // A run with a command over the whole keyspace executes what stands before it first: the
        // server hands such commands over alone, so that there is nothing behind them either.
        let parts = std::mem::take(&mut plan.parts);
        let answers = self.clone().run_parts(session, map.clone(), parts).await;
        plan.collect(answers);
        for (index, command) in whole {
            plan.answer(index, self.clone().over_keyspace(session, &map, command).await);
        }
        plan.replies()
    }

    async fn run_parts(
        self: Arc<Self>,
        session: SessionView,
        map: Arc<ClusterMap>,
        parts: BTreeMap<GroupId, Vec<Part>>,
    ) -> Vec<(Part<()>, Reply)> {
        if parts.len() == 1 {
            let mut parts = parts;
            let Some((group, parts)) = parts.pop_first() else { return Vec::new() };
            return self.run_group(session, &map, group, parts).await;
        }
        let runs = parts.into_iter().map(|(group, parts)| {
            let (router, map) = (self.clone(), map.clone());
            async move { router.run_group(session, &map, group, parts).await }
        });
        join_all(runs).await.into_iter().flatten().collect()
    }

    async fn run_group(
        self: &Arc<Self>,
        session: SessionView,
        map: &ClusterMap,
        group: GroupId,
        parts: Vec<Part>,
    ) -> Vec<(Part<()>, Reply)> {
        let mut commands = Vec::with_capacity(parts.len());
        let mut kept = Vec::with_capacity(parts.len());
        for part in parts {
            let (part, command) = part.split();
            commands.push(command);
            kept.push(part);
        }
        let replies = self.execute_in_group(session, map, group, commands).await;
        kept.into_iter().zip(replies).collect()
    }
}

impl Backend for Router {
    fn execute(
        self: Arc<Self>,
        session: SessionView,
        commands: Vec<Command>,
    ) -> BoxFuture<'static, Vec<Reply>> {
        Box::pin(self.run(session, commands))
    }

    fn wait(
        self: Arc<Self>,
        session: SessionView,
        command: Command,
        patience: Patience,
    ) -> BoxFuture<'static, Option<Reply>> {
        Box::pin(self.wait_for(session, command, patience))
    }

    fn may_queue(&self, session: SessionView, command: &Command) -> Result<(), Reply> {
        Router::may_queue(self, session, command)
    }

    fn watch(
        self: Arc<Self>,
        session: SessionView,
        keys: Vec<Bytes>,
    ) -> BoxFuture<'static, Result<Vec<Watch>, Reply>> {
        Box::pin(self.watch_keys(session, keys))
    }

    fn transact(
        self: Arc<Self>,
        session: SessionView,
        transaction: Transaction,
    ) -> BoxFuture<'static, Reply> {
        let carried_out = self.carry_out(session, transaction);
        Box::pin(async move { carried_out.await.unwrap_or_else(|refused| refused) })
    }

    fn namespace(&self, name: &str) -> Option<NamespaceId> {
        let map = self.places.map()?;
        map.namespaces.iter().find(|namespace| namespace.spec.name == name).map(|n| n.id)
    }

    fn map(&self) -> Option<Arc<ClusterMap>> {
        self.places.map()
    }

    fn node(&self) -> &str {
        &self.places.node
    }

    fn datacenter(&self) -> &str {
        &self.places.datacenter
    }

    fn info(&self, section: &str) -> Vec<(String, String)> {
        let mut fields = self.places.info(section);
        if section == "flotilla" {
            let named = |(name, value): &(String, String)| {
                (format!("config_{}", name.replace('-', "_")), value.clone())
            };
            fields.extend(self.settings.iter().map(named));
        }
        fields
    }

    fn settings(&self) -> Vec<(String, String)> {
        self.settings.clone()
    }
}

/// The answer where a command's keys cannot be carried out together.
pub(crate) fn cross_slot(door: Door) -> Reply {
    match door {
        Door::Cluster => Reply::error("CROSSSLOT Keys in request don't hash to the same slot"),
        Door::Plain => Reply::error(
            "CROSSSLOT Keys in request don't hash to the same slot: give them one {hash tag}",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_reserve_is_for_deletes() {
        let rooms = [100, 99, 50, 49, 0].map(|free| Room::of(free, 100));
        let (deletes, none) = (Room::ForDeletes, Room::None);
        assert_eq!(rooms, [Room::Enough, deletes, deletes, none, none]);
        assert_eq!(Room::of(0, 0), Room::Enough, "no reserve, no refusal");
    }
}
