//! What travels on a link: framed messages, of which the [`Batch`] is the one that matters.
//!
//! A frame is a length (4 bytes, big-endian) and that many bytes: version, kind, fields, crc32c.
//! The effects of a batch stand at its end, compressed when that pays. What must always hold:
//! * A batch never cuts an entry: `from` and `to` are positions between entries.
//! * Garbage gives an error and closes the stream; what it makes us allocate has a named limit.
//! * An unknown version or kind is an error, never skipped: the reader stops with a reason.

use crate::audit::wire::AuditMessage;
use crate::merge::wire::MergeMessage;
use bytes::Bytes;
use flotilla_node::codec::{DecodeError, Decoder, Encoder, unseal_bytes};
use flotilla_node::group::entry::{ENTRY_BYTES_MAX, Fence};
use flotilla_node::group::remote::{
    EFFECTS_MAX, RemoteEffect, TEXT_BYTES_MAX, VECTOR_MAX, Vector, clip, put_vector, take_vector,
};
use flotilla_topology::api::View;
use flotilla_topology::ids::{ClusterId, GroupId, Incarnation, LogId, Origin};
use flotilla_topology::slot::SlotRange;
use flotilla_topology::stamp::Stamp;

/// Newest wire version that this code writes and reads.
pub const LINK_VERSION: u8 = 1;
/// Effects of one batch, before compression, unless a single entry is larger: enough to fill a
/// path, and less than a stream's window of 2 MiB.
pub const BATCH_BYTES_MAX: usize = 1 << 20;
/// Effects of one batch at the most: the largest entry, and as much around its effects.
pub const BODY_BYTES_MAX: usize = 2 * ENTRY_BYTES_MAX;
/// A frame: the largest body and its header.
pub const FRAME_BYTES_MAX: usize = BODY_BYTES_MAX + (64 << 10);
/// Shorter bodies are sent as they are: compressing them costs more than it saves.
const COMPRESS_BYTES_MIN: usize = 512;
/// zstd's fast end: the link must keep up with a WAN on a core that it shares.
const COMPRESS_LEVEL: i32 = 1;

type Decoded<T> = Result<T, DecodeError>;

/// Entries `from` (exclusive) to `to` (inclusive) of one group, as far as they were born in its
/// own cluster. Without effects it only moves the cursor and the closed stamp.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// Where the effects were born: the sending cluster.
    pub origin: Origin,
    /// The group whose log this is.
    pub group: GroupId,
    /// Its slots.
    pub slots: SlotRange,
    /// Everything up to here is in earlier batches.
    pub from: LogId,
    /// Everything up to here is in this batch or in earlier ones.
    pub to: LogId,
    /// Highest stamp of the group's own entries up to `to`.
    pub closed: Stamp,
    /// The group's fence after `to`.
    pub fence: Fence,
    /// What the group has of every other cluster as of `to`.
    pub vector: Vector,
    /// The sender's wall clock when it sent.
    pub sent_ms: u64,
    /// When the oldest effect was evaluated, by its stamp; 0 without effects.
    pub born_ms: u64,
    /// The effects, in order.
    pub effects: Vec<RemoteEffect>,
}

/// The first message on a control stream, in both directions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// Oldest wire version that the speaker reads.
    pub oldest: u8,
    /// Newest wire version that the speaker reads and writes.
    pub newest: u8,
    /// The speaker's cluster; its certificate must say the same.
    pub cluster: ClusterId,
    /// Its present life.
    pub incarnation: Incarnation,
    /// The epoch of its partition map.
    pub layout: u64,
}

/// Everything that is said on a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// Who speaks; control stream, first.
    Hello(Hello),
    /// Are you there, and what is your clock? Control stream.
    Ping {
        /// The asker's wall clock.
        sent_ms: u64,
    },
    /// Yes. Control stream.
    Pong {
        /// From the ping.
        sent_ms: u64,
        /// The answerer's wall clock.
        wall_ms: u64,
        /// The clusters that it knows, and what it says of each.
        knows: Vec<(ClusterId, View)>,
    },
    /// First on a group's stream, sender to receiver: what follows is this group's. Asks for its
    /// cursor.
    Open {
        /// Name of its namespace, the same in both clusters.
        namespace: String,
        /// The sender's group.
        group: GroupId,
        /// Its slots.
        slots: SlotRange,
    },
    /// Answer to `Open`: what the receiver has committed.
    Cursor {
        /// The sender's group.
        group: GroupId,
        /// The smallest cursor of the groups that own its slots there.
        cursor: LogId,
    },
    /// Entries.
    Batch(Batch),
    /// The receiver has committed everything up to `cursor`.
    Ack {
        /// The sender's group.
        group: GroupId,
        /// The smallest cursor of the groups that own its slots there.
        cursor: LogId,
        /// The receiver's wall clock when the last batch that this covers had arrived.
        received_ms: u64,
        /// The receiver's wall clock when it was committed.
        committed_ms: u64,
    },
    /// A batch began behind the cursor: send from `cursor` on.
    Gap {
        /// The sender's group.
        group: GroupId,
        /// What the receiver has.
        cursor: LogId,
    },
    /// Stamps run ahead of the receiver's clock; it waits and tries again by itself.
    Parked {
        /// The sender's group.
        group: GroupId,
        /// By how much.
        ahead_ms: u64,
    },
    /// On the stream of a full-state merge.
    Merge(MergeMessage),
    /// On the stream of an audit.
    Audit(AuditMessage),
    /// The receiver will not take this; it closes the stream.
    Refused {
        /// One line that says why.
        reason: String,
    },
}

const KIND_HELLO: u8 = 1;
const KIND_PING: u8 = 2;
const KIND_PONG: u8 = 3;
const KIND_OPEN: u8 = 4;
const KIND_CURSOR: u8 = 5;
const KIND_BATCH: u8 = 6;
const KIND_ACK: u8 = 7;
const KIND_GAP: u8 = 8;
const KIND_PARKED: u8 = 9;
const KIND_REFUSED: u8 = 10;
const KIND_MERGE: u8 = 11;
const KIND_AUDIT: u8 = 12;

const BODY_PLAIN: u8 = 0;
const BODY_ZSTD: u8 = 1;

impl Message {
    /// The whole frame, length included.
    pub fn encode(&self) -> Bytes {
        let mut out = Encoder::with_capacity(64);
        out.put_u32(0);
        out.put_u8(LINK_VERSION);
        self.put(&mut out);
        out.seal(4);
        let mut frame = out.into_vec();
        let len = u32::try_from(frame.len() - 4).expect("a frame stays below its limit");
        frame[..4].copy_from_slice(&len.to_be_bytes());
        Bytes::from(frame)
    }

    fn put(&self, out: &mut Encoder) {
        match self {
            Message::Hello(hello) => hello.put(out),
            Message::Ping { sent_ms } => {
                out.put_u8(KIND_PING);
                out.put_varint(*sent_ms);
            }
            Message::Pong { sent_ms, wall_ms, knows } => {
                out.put_u8(KIND_PONG);
                out.put_varint(*sent_ms);
                out.put_varint(*wall_ms);
                out.put_varint(knows.len() as u64);
                for (cluster, view) in knows {
                    out.put_cluster(*cluster);
                    out.put_u8(*view as u8);
                }
            }
            Message::Open { namespace, group, slots } => {
                out.put_u8(KIND_OPEN);
                out.put_text(namespace);
                out.put_group(*group);
                out.put_slots(*slots);
            }
            Message::Cursor { group, cursor } => put_position(out, KIND_CURSOR, *group, *cursor),
            Message::Batch(batch) => batch.put(out),
            Message::Ack { group, cursor, received_ms, committed_ms } => {
                put_position(out, KIND_ACK, *group, *cursor);
                out.put_varint(*received_ms);
                out.put_varint(*committed_ms);
            }
            Message::Gap { group, cursor } => put_position(out, KIND_GAP, *group, *cursor),
            Message::Parked { group, ahead_ms } => {
                out.put_u8(KIND_PARKED);
                out.put_group(*group);
                out.put_varint(*ahead_ms);
            }
            Message::Merge(message) => {
                out.put_u8(KIND_MERGE);
                message.put(out);
            }
            Message::Audit(message) => {
                out.put_u8(KIND_AUDIT);
                message.put(out);
            }
            Message::Refused { reason } => {
                out.put_u8(KIND_REFUSED);
                out.put_text(clip(reason));
            }
        }
    }

    /// Reads what stands behind a frame's length.
    pub fn decode(frame: &Bytes) -> Decoded<Message> {
        let sealed = unseal_bytes(frame)?;
        let mut from = Decoder::shared(&sealed);
        from.version(LINK_VERSION)?;
        let error = from.error("a message kind that this release knows");
        let message = match from.u8()? {
            KIND_HELLO => Message::Hello(Hello::take(&mut from)?),
            KIND_PING => Message::Ping { sent_ms: from.varint()? },
            KIND_PONG => Message::Pong {
                sent_ms: from.varint()?,
                wall_ms: from.varint()?,
                knows: {
                    let count = from.count(VECTOR_MAX, 2)?;
                    (0..count)
                        .map(|_| Ok((from.cluster()?, take_view(&mut from)?)))
                        .collect::<Decoded<_>>()?
                },
            },
            KIND_OPEN => Message::Open {
                namespace: from.text(TEXT_BYTES_MAX)?.to_owned(),
                group: from.group()?,
                slots: from.slots()?,
            },
            KIND_CURSOR => Message::Cursor { group: from.group()?, cursor: from.log_id()? },
            KIND_BATCH => Message::Batch(Batch::take(&mut from)?),
            KIND_ACK => Message::Ack {
                group: from.group()?,
                cursor: from.log_id()?,
                received_ms: from.varint()?,
                committed_ms: from.varint()?,
            },
            KIND_GAP => Message::Gap { group: from.group()?, cursor: from.log_id()? },
            KIND_PARKED => Message::Parked { group: from.group()?, ahead_ms: from.varint()? },
            KIND_REFUSED => Message::Refused { reason: from.text(TEXT_BYTES_MAX)?.to_owned() },
            KIND_MERGE => Message::Merge(MergeMessage::take(&mut from)?),
            KIND_AUDIT => Message::Audit(AuditMessage::take(&mut from)?),
            _ => return Err(error),
        };
        from.finish()?;
        Ok(message)
    }
}

fn put_position(out: &mut Encoder, kind: u8, group: GroupId, cursor: LogId) {
    out.put_u8(kind);
    out.put_group(group);
    out.put_log_id(cursor);
}

fn take_view(from: &mut Decoder<'_>) -> Decoded<View> {
    let error = from.error("0, 1 or 2 for what a cluster says of another one");
    match from.u8()? {
        0 => Ok(View::Counts),
        1 => Ok(View::Overdue),
        2 => Ok(View::Fenced),
        _ => Err(error),
    }
}

impl Hello {
    fn put(&self, out: &mut Encoder) {
        out.put_u8(KIND_HELLO);
        out.put_u8(self.oldest);
        out.put_u8(self.newest);
        out.put_cluster(self.cluster);
        out.put_varint(u64::from(self.incarnation.0));
        out.put_varint(self.layout);
    }

    fn take(from: &mut Decoder<'_>) -> Decoded<Hello> {
        Ok(Hello {
            oldest: from.u8()?,
            newest: from.u8()?,
            cluster: from.cluster()?,
            incarnation: Incarnation(from.varint32()?),
            layout: from.varint()?,
        })
    }

    /// Whether the two sides have a wire version in common.
    pub fn understands(&self, other: &Hello) -> bool {
        self.oldest <= other.newest && other.oldest <= self.newest
    }
}

impl Batch {
    fn put(&self, out: &mut Encoder) {
        out.put_u8(KIND_BATCH);
        out.put_origin(self.origin);
        out.put_group(self.group);
        out.put_slots(self.slots);
        out.put_log_id(self.from);
        out.put_log_id(self.to);
        out.put_stamp(self.closed);
        self.fence.encode(out);
        put_vector(out, &self.vector);
        out.put_varint(self.sent_ms);
        out.put_varint(self.born_ms);
        out.put_varint(self.effects.len() as u64);
        let bytes: usize = self.effects.iter().map(|effect| effect.body.len() + 16).sum();
        let mut body = Encoder::with_capacity(bytes);
        self.effects.iter().for_each(|effect| effect.put(&mut body));
        put_body(out, body.as_slice());
    }

    fn take(from: &mut Decoder<'_>) -> Decoded<Batch> {
        let mut batch = Batch {
            origin: from.origin()?,
            group: from.group()?,
            slots: from.slots()?,
            from: from.log_id()?,
            to: from.log_id()?,
            closed: from.stamp()?,
            fence: Fence::decode(from)?,
            vector: take_vector(from)?,
            sent_ms: from.varint()?,
            born_ms: from.varint()?,
            effects: Vec::new(),
        };
        let error = from.error("as many effects as the body holds");
        let count = usize::try_from(from.varint()?).map_err(|_| error)?;
        let body = take_body(from)?;
        if count > EFFECTS_MAX || count.saturating_mul(RemoteEffect::BYTES_MIN) > body.len() {
            return Err(error);
        }
        let mut effects = Decoder::shared(&body);
        batch.effects.reserve_exact(count);
        for _ in 0..count {
            batch.effects.push(RemoteEffect::take(&mut effects)?);
        }
        effects.finish()?;
        if batch.from.index >= batch.to.index {
            return Err(from.error("a batch that ends behind its start"));
        }
        Ok(batch)
    }
}

/// Appends a body, compressed when that pays.
pub fn put_body(out: &mut Encoder, body: &[u8]) {
    let packed = (body.len() >= COMPRESS_BYTES_MIN)
        .then(|| zstd::bulk::compress(body, COMPRESS_LEVEL).ok())
        .flatten()
        // Less than a tenth saved is not worth the receiver's time.
        .filter(|packed| packed.len() < body.len() / 10 * 9);
    match packed {
        Some(packed) => {
            out.put_u8(BODY_ZSTD);
            out.put_varint(body.len() as u64);
            out.put_bytes(&packed);
        }
        None => {
            out.put_u8(BODY_PLAIN);
            out.put_bytes(body);
        }
    }
}

/// Reads a body.
pub fn take_body(from: &mut Decoder<'_>) -> Decoded<Bytes> {
    let error = from.error("a body, plain (0) or zstd (1), within its limit");
    match from.u8()? {
        BODY_PLAIN => from.bytes(BODY_BYTES_MAX),
        BODY_ZSTD => {
            let len = usize::try_from(from.varint()?).map_err(|_| error)?;
            let packed = from.slice(BODY_BYTES_MAX)?;
            if len > BODY_BYTES_MAX {
                return Err(error);
            }
            let body = zstd::bulk::decompress(packed, len).map_err(|_| error)?;
            if body.len() == len { Ok(Bytes::from(body)) } else { Err(error) }
        }
        _ => Err(error),
    }
}

#[cfg(test)]
mod tests;
