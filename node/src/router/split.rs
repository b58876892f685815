//! Splitting a run of commands by group, and putting the replies together again.

use crate::command::{Command, Split};
use crate::resp::Reply;
use crate::router::cross_slot;
use crate::server::{Door, SessionView};
use bytes::Bytes;
use flotilla_topology::api::ClusterMap;
use flotilla_topology::ids::{GroupId, NamespaceId};
use flotilla_topology::slot::Slot;
use std::collections::BTreeMap;

/// What one group does for one command.
pub struct Part<C = Command> {
    /// Which command of the run.
    pub index: usize,
    /// Of a split command: which of its keys, by position.
    pub keys: Vec<usize>,
    command: C,
}

impl Part {
    /// Takes the command out.
    pub fn split(self) -> (Part<()>, Command) {
        (Part { index: self.index, keys: self.keys, command: () }, self.command)
    }
}

/// How the parts of a command become one reply.
enum Merge {
    /// There is one part.
    Whole,
    /// Values in the order of the keys.
    Values(Vec<Reply>),
    /// The sum of the parts.
    Count(i64),
    /// OK once all parts are.
    Ok,
}

/// A run, split.
pub struct Plan {
    /// What each group does, in order.
    pub parts: BTreeMap<GroupId, Vec<Part>>,
    merges: Vec<Merge>,
    replies: Vec<Option<Reply>>,
}

impl Plan {
    /// For a run of this many commands.
    pub fn new(commands: usize) -> Plan {
        let merges = (0..commands).map(|_| Merge::Whole).collect();
        Plan { parts: BTreeMap::new(), merges, replies: vec![None; commands] }
    }

    /// The reply to a command that no group carries out.
    pub fn answer(&mut self, index: usize, reply: Reply) {
        self.replies[index] = Some(reply);
    }

    /// Gives the command `index` to the groups of its keys. The error is its reply.
    pub fn add(
        &mut self,
        map: &ClusterMap,
        session: SessionView,
        index: usize,
        command: Command,
    ) -> Result<(), Reply> {
        let slots: Vec<Slot> = command.keys().map(|key| Slot::of(key)).collect();
        let Some(&first) = slots.first() else {
            return Err(Reply::error("ERR this command names no key"));
        };
        if slots.iter().all(|slot| *slot == first) {
            let group = group_of(map, session.namespace, first)?;
            self.push(group, Part { index, keys: Vec::new(), command });
            return Ok(());
        }
        if session.door == Door::Cluster || command.spec.split == Split::No {
            return Err(cross_slot(session.door));
        }
        let mut keys: BTreeMap<GroupId, Vec<usize>> = BTreeMap::new();
        for (position, slot) in slots.iter().enumerate() {
            keys.entry(group_of(map, session.namespace, *slot)?).or_default().push(position);
        }
        self.merges[index] = match command.spec.split {
            Split::Values => Merge::Values(vec![Reply::Null; slots.len()]),
            Split::Count => Merge::Count(0),
            Split::Pairs | Split::No => Merge::Ok,
        };
        for (group, keys) in keys {
            let command = part_of(&command, &keys);
            self.push(group, Part { index, keys, command });
        }
        Ok(())
    }

    fn push(&mut self, group: GroupId, part: Part) {
        self.parts.entry(group).or_default().push(part);
    }

    /// Takes the replies of all parts.
    pub fn collect(&mut self, answers: Vec<(Part<()>, Reply)>) {
        for (part, reply) in answers {
            // Of several errors the first one is told; a part that did its work stays done.
            if self.replies[part.index].as_ref().is_some_and(Reply::is_error) {
                continue;
            }
            match (&mut self.merges[part.index], reply) {
                (Merge::Whole, reply) | (_, reply @ Reply::Error(_)) => {
                    self.replies[part.index] = Some(reply);
                }
                (Merge::Values(values), Reply::Array(found)) => {
                    for (position, value) in part.keys.into_iter().zip(found) {
                        values[position] = value;
                    }
                }
                (Merge::Count(sum), Reply::Int(count)) => *sum += count,
                (Merge::Ok, _) => {}
                (_, reply) => {
                    let line = format!("ERR a part of this command answered {reply:?}");
                    self.replies[part.index] = Some(Reply::error(line));
                }
            }
        }
    }

    /// One reply for each command.
    pub fn replies(self) -> Vec<Reply> {
        let whole = |merge| match merge {
            Merge::Whole => Reply::error("ERR this command was not carried out"),
            Merge::Values(values) => Reply::Array(values),
            Merge::Count(sum) => Reply::Int(sum),
            Merge::Ok => Reply::Ok,
        };
        let merged = self.merges.into_iter().zip(self.replies);
        merged.map(|(merge, reply)| reply.unwrap_or_else(|| whole(merge))).collect()
    }
}

/// The command with only some of its keys, and what belongs to them.
fn part_of(command: &Command, keys: &[usize]) -> Command {
    let first = usize::from(command.spec.keys.first);
    let step = usize::from(command.spec.keys.step.max(1));
    let mut args: Vec<Bytes> = command.args[..first].to_vec();
    for key in keys {
        let at = first + key * step;
        args.extend_from_slice(&command.args[at..at + step]);
    }
    Command { spec: command.spec, args }
}

/// The group that owns a slot of a namespace.
pub fn group_of(map: &ClusterMap, namespace: NamespaceId, slot: Slot) -> Result<GroupId, Reply> {
    map.groups
        .iter()
        .find(|group| group.namespace == namespace && group.slots.contains(slot))
        .map(|group| group.id)
        .ok_or_else(|| {
            Reply::error("TRYAGAIN no group owns this slot yet, or the namespace is gone")
        })
}
