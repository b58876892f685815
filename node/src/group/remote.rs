//! What a syncer asks of the leader of a group of its own cluster: to merge a batch of another
//! cluster ([`RemoteBatch`]), how far it has come with others ([`CursorsRequest`]), to keep how far
//! others have come with it (`LinkFloor`), and where a learner may start (`SeedRequest`).
//!
//! These are the payloads of RPC kinds 30 to 33 and nothing else: who evaluates them is the
//! group's leader, who sends them is the syncer. What must always hold:
//! * Each payload begins with a version byte; unknown versions are refused, never skipped.
//! * Reading garbage gives an error; nothing is allocated beyond what the input could fill.
//! * Effects pass through as bytes. The syncer knows their slot and never their meaning, so an
//!   effect of a newer format reaches the leader, which refuses it with a reason.

use crate::codec::{DecodeError, Decoder, Encoder};
use crate::group::entry::Fence;
use bytes::Bytes;
use flotilla_topology::ids::{ClusterId, GroupId, LogId, Origin};
use flotilla_topology::slot::{SLOT_COUNT, Slot, SlotRange};
use flotilla_topology::stamp::Stamp;

/// Version of every payload of this module.
pub const REMOTE_VERSION: u8 = 1;
/// Effects of one batch. An entry is never cut, and one holds far fewer.
pub const EFFECTS_MAX: usize = 1 << 20;
/// One encoded effect: a value at its limit and what surrounds it.
pub const EFFECT_BYTES_MAX: usize = 64 << 20;
/// Clusters in a vector: ids are 1 to 255.
pub const VECTOR_MAX: usize = 255;
/// Source groups asked for at once: a namespace has at most 1024.
pub const CURSORS_MAX: usize = 1024;
/// A reason or a node's name.
pub const TEXT_BYTES_MAX: usize = 1024;

/// Slot number on the wire for effects that touch every slot of the source group.
const EVERY_SLOT: u16 = u16::MAX;

type Decoded<T> = Result<T, DecodeError>;

/// The closed stamp that a group has of each cluster.
pub type Vector = Vec<(ClusterId, Stamp)>;

/// Appends a vector.
pub fn put_vector(out: &mut Encoder, vector: &[(ClusterId, Stamp)]) {
    out.put_varint(vector.len() as u64);
    for (cluster, stamp) in vector {
        out.put_cluster(*cluster);
        out.put_stamp(*stamp);
    }
}

/// Reads a vector.
pub fn take_vector(from: &mut Decoder<'_>) -> Decoded<Vector> {
    let count = from.count(VECTOR_MAX, 10)?;
    (0..count).map(|_| Ok((from.cluster()?, from.stamp()?))).collect()
}

/// One effect on its way: an encoded portable effect, and what routes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteEffect {
    /// Index of the entry of the source group that it belongs to.
    pub index: u64,
    /// Its slot, or `None` when it touches every slot of the source group.
    pub slot: Option<Slot>,
    /// The effect, as its own module encodes it.
    pub body: Bytes,
}

impl RemoteEffect {
    /// Appends it.
    pub fn put(&self, out: &mut Encoder) {
        out.put_varint(self.index);
        out.put_u16(self.slot.map_or(EVERY_SLOT, |slot| slot.0));
        out.put_bytes(&self.body);
    }

    /// Reads it.
    pub fn take(from: &mut Decoder<'_>) -> Decoded<RemoteEffect> {
        let index = from.varint()?;
        let error = from.error("a slot below 16384, or 65535 for all");
        let slot = match from.u16()? {
            EVERY_SLOT => None,
            slot if slot < SLOT_COUNT => Some(Slot(slot)),
            _ => return Err(error),
        };
        Ok(RemoteEffect { index, slot, body: from.bytes(EFFECT_BYTES_MAX)? })
    }

    /// Bytes that it takes at least: what [`Decoder::count`] needs to know.
    pub const BYTES_MIN: usize = 4;
}

/// What entries `from` (exclusive) to `to` (inclusive) of a source group did to the slots of one
/// target group. It may be empty: the cursor moves all the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteBatch {
    /// The group that shall merge it.
    pub target: GroupId,
    /// Where the effects were born.
    pub origin: Origin,
    /// The group whose log this is.
    pub source_group: GroupId,
    /// Its slots.
    pub source_slots: SlotRange,
    /// Everything up to here is in earlier batches.
    pub from: LogId,
    /// Everything up to here is in this batch or in earlier ones.
    pub to: LogId,
    /// Highest stamp of the source group's own entries up to `to`.
    pub closed: Stamp,
    /// Fence of the source group after `to`.
    pub fence: Fence,
    /// What the source group had of every other cluster as of `to`.
    pub vector: Vector,
    /// The effects, in order.
    pub effects: Vec<RemoteEffect>,
}

impl RemoteBatch {
    /// The bytes of an RPC of kind 30.
    pub fn encode(&self) -> Bytes {
        let body: usize = self.effects.iter().map(|e| e.body.len() + 16).sum();
        let mut out = Encoder::with_capacity(body + 128);
        out.put_u8(REMOTE_VERSION);
        out.put_group(self.target);
        out.put_origin(self.origin);
        out.put_group(self.source_group);
        out.put_slots(self.source_slots);
        out.put_log_id(self.from);
        out.put_log_id(self.to);
        out.put_stamp(self.closed);
        self.fence.encode(&mut out);
        put_vector(&mut out, &self.vector);
        out.put_varint(self.effects.len() as u64);
        for effect in &self.effects {
            effect.put(&mut out);
        }
        out.into_bytes()
    }

    /// Reads what [`RemoteBatch::encode`] wrote; the effects share `bytes`.
    pub fn decode(bytes: &Bytes) -> Decoded<RemoteBatch> {
        let mut from = Decoder::shared(bytes);
        from.version(REMOTE_VERSION)?;
        let mut batch = RemoteBatch {
            target: from.group()?,
            origin: from.origin()?,
            source_group: from.group()?,
            source_slots: from.slots()?,
            from: from.log_id()?,
            to: from.log_id()?,
            closed: from.stamp()?,
            fence: Fence::decode(&mut from)?,
            vector: take_vector(&mut from)?,
            effects: Vec::new(),
        };
        let count = from.count(EFFECTS_MAX, RemoteEffect::BYTES_MIN)?;
        for _ in 0..count {
            batch.effects.push(RemoteEffect::take(&mut from)?);
        }
        from.finish()?;
        Ok(batch)
    }
}

/// Who leads instead, as far as the asked node knows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LeaderIs {
    /// The node, `None` while an election is on.
    pub node: Option<String>,
    /// The term in which it leads.
    pub term: u64,
}

impl LeaderIs {
    fn put(&self, out: &mut Encoder) {
        out.put_option(self.node.as_deref(), |out, node| out.put_text(node));
        out.put_varint(self.term);
    }

    fn take(from: &mut Decoder<'_>) -> Decoded<LeaderIs> {
        let node = from.option(|from| Ok(from.text(TEXT_BYTES_MAX)?.to_owned()))?;
        Ok(LeaderIs { node, term: from.varint()? })
    }
}

/// What a leader says to a payload of this module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer<T> {
    /// It was dealt with; this is what came of it.
    Done(T),
    /// Not taken: another replica leads.
    NotLeader(LeaderIs),
    /// Not taken, and the same never will be.
    Refused {
        /// One line that says why.
        reason: String,
    },
}

/// To a [`RemoteBatch`].
pub type RemoteAnswer = Answer<Verdict>;
/// To a [`CursorsRequest`]: one cursor for each group asked for, in that order, and
/// `LogId::default()` where nothing came yet.
pub type CursorsAnswer = Answer<Vec<LogId>>;
/// To a [`LinkFloor`]: committed, or one at least as high is.
pub type FloorAnswer = Answer<()>;
/// To a [`SeedRequest`].
pub type SeedAnswer = Answer<Seed>;

/// Where a learner may start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seed {
    /// The last floor written for each peer. One that is missing has acknowledged nothing yet.
    pub floors: Vec<LinkFloor>,
    /// The log begins behind this position: who has less needs a full state.
    pub start: LogId,
}

/// What came of a [`RemoteBatch`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Committed; everything up to `cursor` is here.
    Accepted {
        /// At least the batch's `to`.
        cursor: LogId,
    },
    /// Not taken: the batch begins behind the cursor. Send from `cursor` on.
    Gap {
        /// What is here.
        cursor: LogId,
    },
    /// Not taken: its stamps run ahead of this cluster's clock. Send it again later.
    Parked {
        /// By how much, in milliseconds.
        ahead_ms: u64,
    },
}

/// What an [`Answer`] can carry.
pub trait Outcome: Sized {
    /// Appends it.
    fn put(&self, out: &mut Encoder);
    /// Reads it.
    fn take(from: &mut Decoder<'_>) -> Decoded<Self>;
}

impl Outcome for () {
    fn put(&self, _out: &mut Encoder) {}

    fn take(_from: &mut Decoder<'_>) -> Decoded<()> {
        Ok(())
    }
}

impl Outcome for Verdict {
    fn put(&self, out: &mut Encoder) {
        match self {
            Verdict::Accepted { cursor } => {
                out.put_u8(0);
                out.put_log_id(*cursor);
            }
            Verdict::Gap { cursor } => {
                out.put_u8(1);
                out.put_log_id(*cursor);
            }
            Verdict::Parked { ahead_ms } => {
                out.put_u8(2);
                out.put_varint(*ahead_ms);
            }
        }
    }

    fn take(from: &mut Decoder<'_>) -> Decoded<Verdict> {
        let error = from.error("what came of a remote batch");
        Ok(match from.u8()? {
            0 => Verdict::Accepted { cursor: from.log_id()? },
            1 => Verdict::Gap { cursor: from.log_id()? },
            2 => Verdict::Parked { ahead_ms: from.varint()? },
            _ => return Err(error),
        })
    }
}

impl Outcome for Vec<LogId> {
    fn put(&self, out: &mut Encoder) {
        out.put_varint(self.len() as u64);
        self.iter().for_each(|cursor| out.put_log_id(*cursor));
    }

    fn take(from: &mut Decoder<'_>) -> Decoded<Vec<LogId>> {
        let count = from.count(CURSORS_MAX, 2)?;
        (0..count).map(|_| from.log_id()).collect()
    }
}

impl Outcome for Seed {
    fn put(&self, out: &mut Encoder) {
        out.put_varint(self.floors.len() as u64);
        self.floors.iter().for_each(|floor| floor.put(out));
        out.put_log_id(self.start);
    }

    fn take(from: &mut Decoder<'_>) -> Decoded<Seed> {
        let count = from.count(VECTOR_MAX, LinkFloor::BYTES_MIN)?;
        let floors = (0..count).map(|_| LinkFloor::take(from)).collect::<Decoded<_>>()?;
        Ok(Seed { floors, start: from.log_id()? })
    }
}

impl<T: Outcome> Answer<T> {
    /// The bytes of the RPC's answer.
    pub fn encode(&self) -> Bytes {
        let mut out = Encoder::new();
        out.put_u8(REMOTE_VERSION);
        match self {
            Answer::Done(outcome) => {
                out.put_u8(0);
                outcome.put(&mut out);
            }
            Answer::NotLeader(leader) => {
                out.put_u8(1);
                leader.put(&mut out);
            }
            Answer::Refused { reason } => {
                out.put_u8(2);
                out.put_text(clip(reason));
            }
        }
        out.into_bytes()
    }

    /// Reads what [`Answer::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Decoded<Answer<T>> {
        let mut from = Decoder::new(bytes);
        from.version(REMOTE_VERSION)?;
        let error = from.error("an answer of a group's leader");
        let answer = match from.u8()? {
            0 => Answer::Done(T::take(&mut from)?),
            1 => Answer::NotLeader(LeaderIs::take(&mut from)?),
            2 => Answer::Refused { reason: from.text(TEXT_BYTES_MAX)?.to_owned() },
            _ => return Err(error),
        };
        from.finish()?;
        Ok(answer)
    }
}

/// How far has `group` come with these groups of another cluster? Only the leader may answer, as
/// of a moment after it was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CursorsRequest {
    /// The group that is asked.
    pub group: GroupId,
    /// The other cluster, in one of its lives.
    pub origin: Origin,
    /// Its groups.
    pub source_groups: Vec<GroupId>,
}

impl CursorsRequest {
    /// The bytes of an RPC of kind 31.
    pub fn encode(&self) -> Bytes {
        let mut out = Encoder::new();
        out.put_u8(REMOTE_VERSION);
        out.put_group(self.group);
        out.put_origin(self.origin);
        out.put_varint(self.source_groups.len() as u64);
        for group in &self.source_groups {
            out.put_group(*group);
        }
        out.into_bytes()
    }

    /// Reads what [`CursorsRequest::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Decoded<CursorsRequest> {
        let mut from = Decoder::new(bytes);
        from.version(REMOTE_VERSION)?;
        let (group, origin) = (from.group()?, from.origin()?);
        let count = from.count(CURSORS_MAX, 1)?;
        let source_groups = (0..count).map(|_| from.group()).collect::<Decoded<_>>()?;
        from.finish()?;
        Ok(CursorsRequest { group, origin, source_groups })
    }
}

/// How far a peer cluster has come with our log, written through the group itself: the log may be
/// purged below the smallest of these, and the next learner starts there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkFloor {
    /// The group whose log it is.
    pub group: GroupId,
    /// The cluster that has it.
    pub peer: ClusterId,
    /// Everything up to here is committed there.
    pub position: LogId,
    /// The fence after `position`.
    pub fence: Fence,
    /// Highest stamp of the group's own entries up to `position`.
    pub closed: Stamp,
    /// What the group had of every other cluster as of `position`.
    pub vector: Vector,
    /// The last merge that was asked for (`PeerCluster::merge_epoch`) and is done; `None` from who does
    /// not know, and what is known stays.
    pub merged: Option<u64>,
}

impl LinkFloor {
    /// Bytes that it takes at least: what [`Decoder::count`] needs to know.
    pub const BYTES_MIN: usize = 18;

    /// Appends it; also the value of its row.
    pub fn put(&self, out: &mut Encoder) {
        out.put_u8(REMOTE_VERSION);
        out.put_group(self.group);
        out.put_cluster(self.peer);
        out.put_log_id(self.position);
        self.fence.encode(out);
        out.put_stamp(self.closed);
        put_vector(out, &self.vector);
        out.put_option(self.merged, Encoder::put_varint);
    }

    /// Reads it.
    pub fn take(from: &mut Decoder<'_>) -> Decoded<LinkFloor> {
        from.version(REMOTE_VERSION)?;
        Ok(LinkFloor {
            group: from.group()?,
            peer: from.cluster()?,
            position: from.log_id()?,
            fence: Fence::decode(from)?,
            closed: from.stamp()?,
            vector: take_vector(from)?,
            merged: from.option(Decoder::varint)?,
        })
    }

    /// The bytes of an RPC of kind 32, and of the row that keeps it.
    pub fn encode(&self) -> Bytes {
        let mut out = Encoder::new();
        self.put(&mut out);
        out.into_bytes()
    }

    /// Reads what [`LinkFloor::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Decoded<LinkFloor> {
        let mut from = Decoder::new(bytes);
        let floor = LinkFloor::take(&mut from)?;
        from.finish()?;
        Ok(floor)
    }
}

/// Where may a learner of this group start? RPC of kind 33.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SeedRequest {
    /// The group.
    pub group: GroupId,
}

impl SeedRequest {
    /// The bytes of an RPC of kind 33.
    pub fn encode(&self) -> Bytes {
        let mut out = Encoder::new();
        out.put_u8(REMOTE_VERSION);
        out.put_group(self.group);
        out.into_bytes()
    }

    /// Reads what [`SeedRequest::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Decoded<SeedRequest> {
        let mut from = Decoder::new(bytes);
        from.version(REMOTE_VERSION)?;
        let group = from.group()?;
        from.finish()?;
        Ok(SeedRequest { group })
    }
}

/// Cuts a text at a character boundary to [`TEXT_BYTES_MAX`], so that what is written can be read back.
pub fn clip(text: &str) -> &str {
    let mut end = text.len().min(TEXT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests;
