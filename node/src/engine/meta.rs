//! What a node knows of a group besides its rows: one row of the family `meta`, written in the same
//! batch as the rows that it speaks of.

use crate::codec::{DecodeError, Decoder, Encoder};
use crate::engine::rocks::TabletId;
use crate::group::entry::Fence;
use crate::raft::{Member, Membership};
use flotilla_topology::ids::{LogId, ReplicaId, Role};
use flotilla_topology::stamp::{Hlc, Stamp};
use std::collections::{BTreeMap, BTreeSet};

/// Newest format that this code writes and reads.
const META_VERSION: u8 = 1;
/// Members of a group, voters and learners, at most.
const MEMBERS_MAX: usize = 64;
/// Longest name of a process.
const NAME_BYTES_MAX: usize = 256;

/// The applied state of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupMeta {
    /// Where its rows stand.
    pub tablet: TabletId,
    /// Which replica this node carries.
    pub replica: ReplicaId,
    /// Last applied position; index 0 before the first.
    pub applied: LogId,
    /// Last applied membership.
    pub membership: Membership,
    /// What the next entry must carry to take effect.
    pub fence: Fence,
    /// The group's clock: the highest stamp that its log has issued or seen.
    pub clock: Hlc,
    /// Highest stamp of this cluster's own effects in the state; ticks do not count.
    pub own: Stamp,
}

impl GroupMeta {
    /// A group that has applied nothing.
    pub fn new(tablet: TabletId, replica: ReplicaId) -> GroupMeta {
        GroupMeta {
            tablet,
            replica,
            applied: LogId::default(),
            membership: Membership::default(),
            fence: Fence::default(),
            clock: Hlc::ZERO,
            own: Stamp::ZERO,
        }
    }

    /// Appends it.
    pub fn encode(&self, out: &mut Encoder) {
        out.put_u8(META_VERSION);
        out.put_u32(self.tablet.0);
        out.put_replica(self.replica);
        out.put_log_id(self.applied);
        put_membership(out, &self.membership);
        self.fence.encode(out);
        out.put_hlc(self.clock);
        out.put_stamp(self.own);
    }

    /// Reads it.
    pub fn decode(input: &mut Decoder<'_>) -> Result<GroupMeta, DecodeError> {
        input.version(META_VERSION)?;
        Ok(GroupMeta {
            tablet: TabletId(input.u32()?),
            replica: input.replica()?,
            applied: input.log_id()?,
            membership: take_membership(input)?,
            fence: Fence::decode(input)?,
            clock: input.hlc()?,
            own: input.stamp()?,
        })
    }
}

fn put_membership(out: &mut Encoder, membership: &Membership) {
    out.put_log_id(membership.log_id);
    out.put_varint(membership.configs.len() as u64);
    for config in &membership.configs {
        out.put_varint(config.len() as u64);
        config.iter().for_each(|replica| out.put_replica(*replica));
    }
    out.put_varint(membership.members.len() as u64);
    for (replica, member) in &membership.members {
        out.put_replica(*replica);
        out.put_bool(member.role == Role::Syncer);
        out.put_text(&member.name);
    }
}

fn take_membership(input: &mut Decoder<'_>) -> Result<Membership, DecodeError> {
    let log_id = input.log_id()?;
    let mut configs = Vec::new();
    for _ in 0..input.count(2, 1)? {
        let voters = input.count(MEMBERS_MAX, 1)?;
        configs.push((0..voters).map(|_| input.replica()).collect::<Result<BTreeSet<_>, _>>()?);
    }
    let mut members = BTreeMap::new();
    for _ in 0..input.count(MEMBERS_MAX, 3)? {
        let replica = input.replica()?;
        let role = if input.bool()? { Role::Syncer } else { Role::Node };
        members.insert(replica, Member { role, name: input.text(NAME_BYTES_MAX)?.to_owned() });
    }
    Ok(Membership { log_id, configs, members })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meta_survives_its_row() {
        let members = BTreeMap::from([
            (ReplicaId(4), Member::node("n1")),
            (ReplicaId(5), Member::node("n2")),
            (ReplicaId(9), Member::syncer("s1")),
        ]);
        let configs = vec![BTreeSet::from([ReplicaId(4), ReplicaId(5)])];
        let at = LogId { term: 2, index: 7 };
        let mut meta = GroupMeta::new(TabletId(3), ReplicaId(4));
        meta.membership = Membership { log_id: at, configs, members };
        meta.applied = at;
        meta.fence = Fence { term: 2, next_seq: 5 };
        meta.clock = Hlc(99);
        let mut out = Encoder::new();
        meta.encode(&mut out);
        let mut input = Decoder::new(out.as_slice());
        assert_eq!(GroupMeta::decode(&mut input).unwrap(), meta);
        input.finish().unwrap();
    }
}
