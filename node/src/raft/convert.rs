//! Where our words and the library's meet.
//!
//! The library numbers entries from 0; we number them from 1 and keep 0 for "before the first".
//! So its `None` is our index 0, and its index `i` is our `i + 1`.

use super::config::{C, Entry, Payload, RaftLogId, SnapshotMeta, StoredMembership, Vote};
use super::types::{Applied, Body, Committed, Member, Membership};
use crate::codec::{DecodeError, Decoder, Encoder};
use crate::log::{Record, RecordKind};
use bytes::Bytes;
use flotilla_topology::ids::{LogId, ReplicaId, Role};
use openraft::EntryPayload;
use openraft::vote::{RaftLeaderId, RaftVote};
use std::collections::{BTreeMap, BTreeSet};
use std::io;

const VERSION: u8 = 1;

/// Members of a group, at most: bounds what a reader accepts.
const MEMBERS_MAX: usize = 1024;

/// Bytes of a process's name, at most.
const NAME_BYTES_MAX: usize = 256;

pub(super) type LeaderId = <C as openraft::RaftTypeConfig>::LeaderId;

pub(super) fn log_id(id: Option<&RaftLogId>) -> LogId {
    match id {
        Some(id) => LogId { term: id.leader_id.term, index: id.index + 1 },
        None => LogId::default(),
    }
}

pub(super) fn raft_log_id(id: LogId) -> Option<RaftLogId> {
    let index = id.index.checked_sub(1)?;
    Some(RaftLogId { leader_id: id.term.into(), index })
}

pub(super) fn membership(stored: &StoredMembership) -> Membership {
    members(log_id(stored.log_id().as_ref()), stored.membership())
}

fn members(log_id: LogId, from: &openraft::Membership<u64, Member>) -> Membership {
    let config = |ids: &BTreeSet<u64>| ids.iter().copied().map(ReplicaId).collect();
    Membership {
        log_id,
        configs: from.get_joint_config().iter().map(config).collect(),
        members: from.nodes().map(|(id, member)| (ReplicaId(*id), member.clone())).collect(),
    }
}

/// Refuses what the library refuses: a voter that is no member, an empty set of voters.
pub(super) fn raft_membership(
    from: &Membership,
) -> Result<openraft::Membership<u64, Member>, String> {
    let configs: Vec<BTreeSet<u64>> =
        from.configs.iter().map(|ids| ids.iter().map(|id| id.0).collect()).collect();
    let members: BTreeMap<u64, Member> =
        from.members.iter().map(|(id, member)| (id.0, member.clone())).collect();
    openraft::Membership::new(configs, members).map_err(|error| error.to_string())
}

pub(super) fn stored_membership(from: &Membership) -> Result<StoredMembership, String> {
    if from.members.is_empty() {
        // Nothing was ever agreed on; the library calls that a membership without sets.
        return Ok(StoredMembership::default());
    }
    Ok(StoredMembership::new(raft_log_id(from.log_id), raft_membership(from)?))
}

pub(super) fn applied(meta: &SnapshotMeta) -> Applied {
    Applied {
        log_id: log_id(meta.last_log_id.as_ref()),
        membership: membership(&meta.last_membership),
    }
}

pub(super) fn snapshot_meta(applied: &Applied) -> io::Result<SnapshotMeta> {
    let last_membership = stored_membership(&applied.membership).map_err(invalid)?;
    Ok(SnapshotMeta { last_log_id: raft_log_id(applied.log_id), last_membership })
}

pub(super) fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

pub(super) fn committed(entry: Entry) -> Committed {
    let log_id = log_id(Some(&entry.log_id));
    let body = match entry.payload {
        EntryPayload::Blank => Body::Blank,
        EntryPayload::Normal(Payload(bytes)) => Body::Normal(bytes),
        EntryPayload::Membership(from) => Body::Membership(members(log_id, &from)),
    };
    Committed { log_id, body }
}

/// What an entry counts for in limits, as [`Record::bytes`] does.
pub(super) fn entry_bytes(entry: &Entry) -> usize {
    let payload = match &entry.payload {
        EntryPayload::Normal(Payload(bytes)) => bytes.len(),
        EntryPayload::Blank | EntryPayload::Membership(_) => 0,
    };
    payload + Record::OVERHEAD
}

pub(super) fn record(entry: Entry) -> Record {
    let id = log_id(Some(&entry.log_id));
    let (kind, payload) = match entry.payload {
        EntryPayload::Blank => (RecordKind::Blank, Bytes::new()),
        EntryPayload::Normal(Payload(bytes)) => (RecordKind::Normal, bytes),
        EntryPayload::Membership(from) => {
            let mut out = Encoder::new();
            put_members(&mut out, &members(id, &from));
            (RecordKind::Membership, out.into_bytes())
        }
    };
    Record { id, kind, payload }
}

pub(super) fn entry(record: Record) -> Result<Entry, DecodeError> {
    let wrong = DecodeError { expected: "an entry with an index from 1", offset: 0 };
    let log_id = raft_log_id(record.id).ok_or(wrong)?;
    let payload = match record.kind {
        RecordKind::Blank => EntryPayload::Blank,
        RecordKind::Normal => EntryPayload::Normal(Payload(record.payload)),
        RecordKind::Membership => {
            let mut input = Decoder::new(&record.payload);
            let found = take_members(&mut input)?;
            let wrong = input.error("voters that are members");
            input.finish()?;
            EntryPayload::Membership(raft_membership(&found).map_err(|_| wrong)?)
        }
    };
    Ok(Entry { log_id, payload })
}

/// Members without the position: an entry has its own. Version byte, number of sets, each set's
/// size and ids, number of members, each member's id, role byte and name.
pub(super) fn put_members(out: &mut Encoder, from: &Membership) {
    out.put_u8(VERSION);
    out.put_varint(from.configs.len() as u64);
    for config in &from.configs {
        out.put_varint(config.len() as u64);
        config.iter().for_each(|id| out.put_replica(*id));
    }
    out.put_varint(from.members.len() as u64);
    for (id, member) in &from.members {
        out.put_replica(*id);
        out.put_u8(role_byte(member.role));
        out.put_text(&member.name);
    }
}

pub(super) fn take_members(input: &mut Decoder<'_>) -> Result<Membership, DecodeError> {
    input.version(VERSION)?;
    let mut out = Membership::default();
    for _ in 0..input.count(2, 1)? {
        let ids = input.count(MEMBERS_MAX, 1)?;
        out.configs.push((0..ids).map(|_| input.replica()).collect::<Result<_, _>>()?);
    }
    for _ in 0..input.count(MEMBERS_MAX, 3)? {
        let id = input.replica()?;
        let wrong = input.error("a role, 0 to 3");
        let role = role(input.u8()?).ok_or(wrong)?;
        let name = input.text(NAME_BYTES_MAX)?.to_owned();
        out.members.insert(id, Member { role, name });
    }
    Ok(out)
}

/// Position and members: what a snapshot is at. The membership's position, then the members.
pub(super) fn put_applied(out: &mut Encoder, applied: &Applied) {
    out.put_log_id(applied.log_id);
    out.put_log_id(applied.membership.log_id);
    put_members(out, &applied.membership);
}

pub(super) fn take_applied(input: &mut Decoder<'_>) -> Result<Applied, DecodeError> {
    let log_id = input.log_id()?;
    let membership_id = input.log_id()?;
    let membership = Membership { log_id: membership_id, ..take_members(input)? };
    Ok(Applied { log_id, membership })
}

fn role_byte(role: Role) -> u8 {
    match role {
        Role::Node => 0,
        Role::Syncer => 1,
        Role::Pd => 2,
        Role::Client => 3,
    }
}

fn role(byte: u8) -> Option<Role> {
    Some(match byte {
        0 => Role::Node,
        1 => Role::Syncer,
        2 => Role::Pd,
        3 => Role::Client,
        _ => return None,
    })
}

/// Term, replica voted for, and whether a majority confirmed it.
pub(super) fn put_vote(out: &mut Encoder, vote: &Vote) {
    out.put_varint(vote.leader_id.term);
    out.put_varint(vote.leader_id.voted_for);
    out.put_bool(vote.committed);
}

pub(super) fn take_vote(input: &mut Decoder<'_>) -> Result<Vote, DecodeError> {
    let (term, replica) = (input.varint()?, input.varint()?);
    Ok(Vote::from_leader_id(LeaderId::new(term, replica), input.bool()?))
}

/// Durable form of a vote: version byte, vote, crc32c.
pub(super) fn encode_vote(vote: &Vote) -> Bytes {
    let mut out = Encoder::with_capacity(32);
    out.put_u8(VERSION);
    put_vote(&mut out, vote);
    out.seal(0);
    out.into_bytes()
}

pub(super) fn decode_vote(bytes: &[u8]) -> Result<Vote, DecodeError> {
    let mut input = Decoder::new(crate::codec::unseal(bytes)?);
    input.version(VERSION)?;
    let vote = take_vote(&mut input)?;
    input.finish()?;
    Ok(vote)
}
