//! Executing one group's commands: here, at the leader, or from the local replica; again where they
//! were certainly not applied.

use crate::command::Command;
use crate::group::exec::{Barrier, ExecRequest, Outcome, decode_outcomes};
use crate::group::{Group, ReadError};
use crate::resp::Reply;
use crate::router::{RETRY_DEADLINE, RETRY_PAUSE_MAX, RETRY_PAUSE_MIN, Router, Target};
use crate::server::{Door, SessionView};
use crate::transport::{Class, RpcError, kinds};
use flotilla_topology::api::ClusterMap;
use flotilla_topology::ids::{GroupId, Role};
use flotilla_topology::slot::Slot;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Longer than the leader's own deadline, after which it answers "unknown" itself.
pub(super) const FORWARD_DEADLINE: Duration = Duration::from_secs(8);
/// Barriers and ticks that one run of reads asks for at most before it is tried elsewhere.
const TICKS_MAX: usize = 8;

/// What one try came to.
enum Tried {
    /// Outcomes from the first command on, as many as were given.
    Outcomes(Vec<Outcome>),
    /// The cluster door's answer to everything: go there.
    Moved(String),
    /// Nothing was done; the leader, if the asked one named it.
    Elsewhere(Option<String>),
}

impl Router {
    /// Executes commands of one group in order, with one reply for each.
    pub(super) async fn execute_in_group(
        self: &Arc<Self>,
        session: SessionView,
        map: &ClusterMap,
        group: GroupId,
        commands: Vec<Command>,
    ) -> Vec<Reply> {
        let mut deadline = Instant::now() + RETRY_DEADLINE;
        let mut pause = RETRY_PAUSE_MIN;
        let mut hint: Option<String> = None;
        let mut replies = Vec::with_capacity(commands.len());
        let mut bytes = 0;
        let mut left = commands;
        loop {
            let tried = self.try_in_group(session, map, group, &left, hint.take()).await;
            match tried {
                Tried::Moved(to) => {
                    let moved = left.iter().map(|command| moved(command, &to));
                    replies.extend(moved);
                    return replies;
                }
                Tried::Elsewhere(leader) => hint = leader,
                Tried::Outcomes(outcomes) => {
                    let done = outcomes.len().min(left.len());
                    let mut refused_at = None;
                    for (index, outcome) in outcomes.into_iter().take(done).enumerate() {
                        match outcome {
                            Outcome::Done(reply) => {
                                bytes += reply.size();
                                replies.push(reply);
                            }
                            Outcome::Unknown => replies.push(unknown()),
                            Outcome::NotApplied { leader } => {
                                hint = leader;
                                refused_at = Some(index);
                                break;
                            }
                        }
                    }
                    let taken = refused_at.unwrap_or(done);
                    left.drain(..taken);
                    if taken > 0 {
                        // It moves: a group takes only as many as its replies' limit allows.
                        (pause, deadline) = (RETRY_PAUSE_MIN, Instant::now() + RETRY_DEADLINE);
                    }
                }
            }
            if left.is_empty() {
                return replies;
            }
            if bytes > session.reply_bytes_max {
                replies.extend(left.iter().map(|_| too_large()));
                return replies;
            }
            if Instant::now() >= deadline {
                replies.extend(left.iter().map(|_| try_again()));
                return replies;
            }
            if hint.is_none() {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(RETRY_PAUSE_MAX);
            } else {
                // A wrong hint must not make two nodes send a command to and fro at full speed.
                tokio::time::sleep(RETRY_PAUSE_MIN).await;
            }
        }
    }

    async fn try_in_group(
        self: &Arc<Self>,
        session: SessionView,
        map: &ClusterMap,
        group: GroupId,
        commands: &[Command],
        hint: Option<String>,
    ) -> Tried {
        let reads = commands.iter().all(|command| !command.spec.is_write());
        let local = self.places.group(group);
        if reads
            && session.readonly
            && session.door == Door::Cluster
            && let Some(local) = &local
            && local.leader().is_some()
        {
            return match local.read_stale(commands) {
                Ok(replies) => Tried::Outcomes(replies.into_iter().map(Outcome::Done).collect()),
                Err(_) => Tried::Elsewhere(None),
            };
        }
        match self.places.leader(map, group, hint.as_deref()) {
            Target::Unknown => Tried::Elsewhere(None),
            Target::Local(leader) if reads => self.read_at_leader(&leader, commands).await,
            Target::Local(leader) => Tried::Outcomes(leader.exec(commands.to_vec()).await),
            Target::Node(node) if session.door == Door::Cluster => self.moved_to(map, &node),
            Target::Node(node) => match local {
                Some(local) if reads => self.read_at_replica(&local, &node, commands).await,
                _ => self.forward(group, &node, commands).await,
            },
        }
    }

    async fn read_at_leader(&self, leader: &Group, commands: &[Command]) -> Tried {
        let mut barrier = match leader.barrier().await {
            Ok(barrier) => barrier,
            Err(hint) => return Tried::Elsewhere(hint),
        };
        for _ in 0..TICKS_MAX {
            match leader.read(commands, barrier).await {
                Ok(replies) => return done(replies),
                Err(ReadError::NeedsTick(at_ms)) => match leader.tick(at_ms).await {
                    Ok(behind) => barrier = behind,
                    Err(hint) => return Tried::Elsewhere(hint),
                },
                Err(error) => return failed(commands, error),
            }
        }
        Tried::Elsewhere(None)
    }

    async fn read_at_replica(&self, local: &Group, leader: &str, commands: &[Command]) -> Tried {
        let group = local.context.group;
        let mut barrier: Barrier = match self.barriers.from(group, leader).await {
            Ok(barrier) => barrier,
            Err(hint) => return Tried::Elsewhere(hint),
        };
        for _ in 0..TICKS_MAX {
            match local.read(commands, barrier).await {
                Ok(replies) => return done(replies),
                Err(ReadError::NeedsTick(at_ms)) => {
                    match self.barriers.tick(group, leader, at_ms).await {
                        Ok(behind) => barrier = behind,
                        Err(hint) => return Tried::Elsewhere(hint),
                    }
                }
                // The leader has what this replica lacks.
                Err(ReadError::Behind) => return self.forward(group, leader, commands).await,
                Err(error) => return failed(commands, error),
            }
        }
        Tried::Elsewhere(None)
    }

    async fn forward(&self, group: GroupId, node: &str, commands: &[Command]) -> Tried {
        let Some(client) = self.places.client(Role::Node, node) else {
            return Tried::Elsewhere(None);
        };
        let payload = ExecRequest { group, commands: commands.to_vec() }.encode();
        metrics::counter!("flotilla_forwarded_total").increment(commands.len() as u64);
        let called = client.call(Class::Forward, kinds::EXEC, payload, FORWARD_DEADLINE).await;
        let reads = commands.iter().all(|command| !command.spec.is_write());
        match called {
            Ok(answer) => match decode_outcomes(&answer) {
                Ok(outcomes) if outcomes.len() == commands.len() => Tried::Outcomes(outcomes),
                _ => Tried::Outcomes(vec![Outcome::Unknown; commands.len()]),
            },
            Err(RpcError::Unreachable(_) | RpcError::Refused(_)) => Tried::Elsewhere(None),
            // A read that got lost did no harm: ask again.
            Err(_) if reads => Tried::Elsewhere(None),
            Err(_) => Tried::Outcomes(vec![Outcome::Unknown; commands.len()]),
        }
    }

    fn moved_to(&self, map: &ClusterMap, node: &str) -> Tried {
        match moved_to(map, node, &self.places.datacenter) {
            Some(to) => Tried::Moved(to),
            None => Tried::Elsewhere(None),
        }
    }
}

/// Where a client on the cluster port in this datacenter finds a node.
pub(super) fn moved_to(map: &ClusterMap, node: &str, datacenter: &str) -> Option<String> {
    let info = map.nodes.iter().find(|info| info.name == node)?;
    Some(info.addresses_from(datacenter).cluster_resp.clone())
}

fn done(replies: Vec<Reply>) -> Tried {
    Tried::Outcomes(replies.into_iter().map(Outcome::Done).collect())
}

fn failed(commands: &[Command], error: ReadError) -> Tried {
    match error {
        ReadError::Io(error) => {
            tracing::error!(%error, "a read failed");
            let reply = Reply::error(format!("ERR this node cannot read its data: {error}"));
            Tried::Outcomes(vec![Outcome::Done(reply); commands.len()])
        }
        ReadError::Behind | ReadError::NeedsTick(_) => Tried::Elsewhere(None),
    }
}

fn moved(command: &Command, to: &str) -> Reply {
    let slot = command.keys().next().map_or(Slot(0), |key| Slot::of(key));
    Reply::error(format!("MOVED {slot} {to}"))
}

fn too_large() -> Reply {
    Reply::error(
        "ERR not executed: the replies before it in this pipeline take too many bytes \
         (limits.output_bytes_max); send fewer commands at once",
    )
}

pub(super) fn unknown() -> Reply {
    metrics::counter!("flotilla_unknown_outcomes_total").increment(1);
    Reply::error(
        "UNKNOWN outcome: the leader went silent; this command may have been applied or may yet \
         be: read before you repeat it",
    )
}

pub(super) fn try_again() -> Reply {
    Reply::error(
        "TRYAGAIN not applied: no leader took it within 5 seconds; a majority of this group's \
         replicas may be down, or its leader's clock runs ahead (see flotilla_clock_ahead_ms)",
    )
}
