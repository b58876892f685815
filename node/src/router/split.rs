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
        if command.spec.split == Split::No {
            let (group, _) = place(map, session, command.keys())?;
            self.push(group, Part { index, keys: Vec::new(), command });
            return Ok(());
        }
        if session.door == Door::Cluster {
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

/// The group of all keys of a command, if they are in one slot.
pub fn sole_group(map: &ClusterMap, namespace: NamespaceId, command: &Command) -> Option<GroupId> {
    let mut slots = command.keys().map(|key| Slot::of(key));
    let slot = slots.next()?;
    if slots.all(|other| other == slot) { group_of(map, namespace, slot).ok() } else { None }
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

/// The group that all keys lie in, and the slot of the first. What other clusters merge must be in
/// one slot: they may have cut it into other groups, and it is one unit there too.
pub fn place<'k>(
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resp::Protocol;
    use flotilla_topology::api::{GroupInfo, NamespaceInfo, NamespaceSpec};
    use flotilla_topology::ids::ClusterId;
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
            namespaces: vec![namespace(1, true), namespace(2, false)],
            groups: (1..=4).map(group).collect(),
            ..ClusterMap::new(ClusterId(1), "east")
        }
    }

    fn session(namespace: u32, door: Door) -> SessionView {
        SessionView {
            client: 1,
            namespace: NamespaceId(namespace),
            door,
            readonly: false,
            protocol: Protocol::Resp2,
            reply_bytes_max: 1 << 20,
        }
    }

    fn placed(namespace: u32, door: Door, keys: &[&'static str]) -> Result<u32, String> {
        let session = session(namespace, door);
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
    #[test]
    fn a_command_that_is_not_split_goes_where_a_transaction_of_it_would() {
        let [high, low, lower] = ["a", "b", "c"];
        let planned = |namespace, door, words: &[&'static str]| {
            let args = words.iter().map(|word| Bytes::from_static(word.as_bytes())).collect();
            let mut plan = Plan::new(1);
            let command = Command::parse(args).expect("a command");
            let refused = plan.add(&map(), session(namespace, door), 0, command).is_err();
            let groups: Vec<u32> = plan.parts.keys().map(|group| group.0).collect();
            assert_eq!(refused, groups.is_empty());
            groups
        };
        let (plain, cluster, nobody) = (Door::Plain, Door::Cluster, Vec::<u32>::new());
        assert_eq!(planned(2, plain, &["RENAME", low, lower]), [3]);
        assert_eq!(planned(2, plain, &["RENAME", low, high]), nobody);
        assert_eq!(planned(2, cluster, &["RENAME", low, lower]), nobody);
        assert_eq!(planned(1, plain, &["RENAME", low, lower]), nobody, "synced");
        assert_eq!(planned(1, plain, &["RENAME", "{b}x", low]), [1]);
        assert_eq!(planned(1, plain, &["MGET", low, lower, high]), [1, 2], "split");
        assert_eq!(planned(1, cluster, &["MGET", low, lower]), nobody);
    }
}
