//! The messages of a merge. One question at a time in one direction, but for chunks, of which
//! several may be under way.

use crate::batch::{put_body, take_body};
use bytes::Bytes;
use flotilla_node::codec::{DecodeError, Decoder, Encoder};
use flotilla_node::group::remote::{EFFECT_BYTES_MAX, TEXT_BYTES_MAX};
use flotilla_node::group::rows::{DifferentSlot, KeyState, SlotState, Stretch};
use flotilla_node::group::source::{
    ROWS_MAX, put_different_slots, put_hashes, put_key_states, put_slot_states,
    take_different_slots, take_hashes, take_key_states, take_slot_states,
};
use flotilla_node::group::state::StateCut;
use flotilla_topology::ids::LogId;
use flotilla_topology::slot::Slot;

type Decoded<T> = Result<T, DecodeError>;

/// Slots that one chunk holds rows of.
pub const PARTS_MAX: usize = 512;

/// Rows of a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The slot.
    pub slot: Slot,
    /// Encoded effects, of each key the head first.
    pub effects: Vec<Bytes>,
}

/// What is said on the stream of a merge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MergeMessage {
    /// First: a merge of this cut begins. Answered by `Opened` or `Older`.
    Open {
        /// Name of the namespace, the same in both clusters.
        namespace: String,
        /// Which attempt.
        id: u64,
        /// What will be merged.
        cut: StateCut,
    },
    /// All targets have it open.
    Opened {
        /// Some of them come back from a fence: all slots are compared, also those without rows, and of
        /// slots that differ all rows travel, as `Cover`.
        covers: bool,
    },
    /// A target has come further than the cut: cut a newer one.
    Older {
        /// What it has.
        cursor: LogId,
    },
    /// States of slots, in order. Answered by `DifferentSlots`.
    Slots(Vec<SlotState>),
    /// Those that are another state there.
    DifferentSlots(Vec<DifferentSlot>),
    /// States of the keys of a slot. Answered by `DifferentKeys`.
    Keys {
        /// The slot.
        slot: Slot,
        /// Of its keys.
        states: Vec<KeyState>,
    },
    /// Those that are another state there, by hash.
    DifferentKeys {
        /// The slot.
        slot: Slot,
        /// By hash, in order.
        keys: Vec<u64>,
    },
    /// Rows of some slots. Answered by `Merged`.
    Chunk(Vec<Part>),
    /// All rows of a stretch of a slot. Answered by `Merged`.
    Cover {
        /// The slot.
        slot: Slot,
        /// Which part of it.
        stretch: Stretch,
        /// Encoded effects.
        effects: Vec<Bytes>,
    },
    /// A chunk or a stretch is committed.
    Merged,
    /// The target's clock is behind; it waits and tries again by itself.
    Parked {
        /// By how much, in milliseconds.
        ahead_ms: u64,
    },
    /// Everything was sent. Answered by `Closed`.
    Close,
    /// The cursor of the source group is that of the cut now.
    Closed,
}

impl MergeMessage {
    /// Appends it.
    pub fn put(&self, out: &mut Encoder) {
        match self {
            MergeMessage::Open { namespace, id, cut } => {
                out.put_u8(1);
                out.put_text(namespace);
                out.put_u64(*id);
                cut.put(out);
            }
            MergeMessage::Opened { covers } => {
                out.put_u8(2);
                out.put_bool(*covers);
            }
            MergeMessage::Older { cursor } => {
                out.put_u8(3);
                out.put_log_id(*cursor);
            }
            MergeMessage::Slots(states) => {
                out.put_u8(4);
                put_slot_states(out, states);
            }
            MergeMessage::DifferentSlots(slots) => {
                out.put_u8(5);
                put_different_slots(out, slots);
            }
            MergeMessage::Keys { slot, states } => {
                out.put_u8(6);
                out.put_slot(*slot);
                put_key_states(out, states);
            }
            MergeMessage::DifferentKeys { slot, keys } => {
                out.put_u8(7);
                out.put_slot(*slot);
                put_hashes(out, keys);
            }
            MergeMessage::Chunk(parts) => {
                out.put_u8(8);
                out.put_varint(parts.len() as u64);
                for part in parts {
                    out.put_slot(part.slot);
                    put_effects(out, &part.effects);
                }
            }
            MergeMessage::Cover { slot, stretch, effects } => {
                out.put_u8(13);
                out.put_slot(*slot);
                stretch.put(out);
                put_effects(out, effects);
            }
            MergeMessage::Merged => out.put_u8(9),
            MergeMessage::Parked { ahead_ms } => {
                out.put_u8(10);
                out.put_varint(*ahead_ms);
            }
            MergeMessage::Close => out.put_u8(11),
            MergeMessage::Closed => out.put_u8(12),
        }
    }

    /// Reads it.
    pub fn take(from: &mut Decoder<'_>) -> Decoded<MergeMessage> {
        let unknown = from.error("a message of a merge (1 to 13)");
        Ok(match from.u8()? {
            1 => MergeMessage::Open {
                namespace: from.text(TEXT_BYTES_MAX)?.to_owned(),
                id: from.u64()?,
                cut: StateCut::take(from)?,
            },
            2 => MergeMessage::Opened { covers: from.bool()? },
            3 => MergeMessage::Older { cursor: from.log_id()? },
            4 => MergeMessage::Slots(take_slot_states(from)?),
            5 => MergeMessage::DifferentSlots(take_different_slots(from)?),
            6 => MergeMessage::Keys { slot: from.slot()?, states: take_key_states(from)? },
            7 => MergeMessage::DifferentKeys { slot: from.slot()?, keys: take_hashes(from)? },
            8 => {
                let count = from.count(PARTS_MAX, 4)?;
                let part = |from: &mut Decoder<'_>| -> Decoded<_> {
                    Ok(Part { slot: from.slot()?, effects: take_effects(from)? })
                };
                MergeMessage::Chunk((0..count).map(|_| part(from)).collect::<Decoded<_>>()?)
            }
            9 => MergeMessage::Merged,
            10 => MergeMessage::Parked { ahead_ms: from.varint()? },
            11 => MergeMessage::Close,
            12 => MergeMessage::Closed,
            13 => MergeMessage::Cover {
                slot: from.slot()?,
                stretch: Stretch::take(from)?,
                effects: take_effects(from)?,
            },
            _ => return Err(unknown),
        })
    }
}

fn put_effects(out: &mut Encoder, effects: &[Bytes]) {
    out.put_varint(effects.len() as u64);
    let mut body = Encoder::new();
    effects.iter().for_each(|effect| body.put_bytes(effect));
    put_body(out, body.as_slice());
}

fn take_effects(from: &mut Decoder<'_>) -> Decoded<Vec<Bytes>> {
    let error = from.error("as many effects as the body holds");
    let count = usize::try_from(from.varint()?).map_err(|_| error)?;
    let body = take_body(from)?;
    if count > ROWS_MAX || count > body.len() {
        return Err(error);
    }
    let mut effects = Decoder::shared(&body);
    let taken = (0..count).map(|_| effects.bytes(EFFECT_BYTES_MAX)).collect::<Decoded<_>>()?;
    effects.finish()?;
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::Message;
    use flotilla_node::group::entry::Fence;
    use flotilla_topology::ids::{ClusterId, GroupId, Incarnation, Origin};
    use flotilla_topology::slot::SlotRange;
    use flotilla_topology::stamp::{Hlc, Stamp};

    fn all() -> Vec<MergeMessage> {
        let stamp = Stamp { hlc: Hlc(5), cluster: ClusterId(2) };
        let cut = StateCut {
            origin: Origin { cluster: ClusterId(2), incarnation: Incarnation(1) },
            group: GroupId(4),
            slots: SlotRange::ALL,
            position: LogId { term: 2, index: 9 },
            fence: Fence { term: 2, next_seq: 3 },
            closed: stamp,
            forgotten_ms: 77,
            heard: Vec::new(),
            fenced: Vec::new(),
            vector: vec![(ClusterId(1), stamp)],
        };
        let state = SlotState { slot: Slot(7), sum: 1, rows: 2 };
        let effects = vec![Bytes::from(vec![7; 3000]), Bytes::new()];
        vec![
            MergeMessage::Open { namespace: "default".into(), id: 9, cut },
            MergeMessage::Opened { covers: true },
            MergeMessage::Cover {
                slot: Slot(9),
                stretch: Stretch::of_slot(Slot(9)),
                effects: vec![Bytes::from_static(b"e")],
            },
            MergeMessage::Older { cursor: LogId { term: 1, index: 2 } },
            MergeMessage::Slots(vec![state]),
            MergeMessage::DifferentSlots(vec![DifferentSlot { slot: Slot(7), empty: false }]),
            MergeMessage::Keys { slot: Slot(7), states: vec![KeyState { key: 1, sum: 2 }] },
            MergeMessage::DifferentKeys { slot: Slot(7), keys: vec![1] },
            MergeMessage::Chunk(vec![Part { slot: Slot(7), effects }]),
            MergeMessage::Merged,
            MergeMessage::Parked { ahead_ms: 700 },
            MergeMessage::Close,
            MergeMessage::Closed,
        ]
    }

    #[test]
    fn messages_survive_the_wire_and_garbage_is_refused() {
        for message in all() {
            let frame = Message::Merge(message.clone()).encode().slice(4..);
            assert_eq!(Message::decode(&frame), Ok(Message::Merge(message)));
            for end in 0..frame.len() {
                assert!(Message::decode(&frame.slice(..end)).is_err());
            }
            for bit in 0..frame.len().min(64) * 8 {
                let mut bad = frame.to_vec();
                bad[bit / 8] ^= 1 << (bit % 8);
                assert!(Message::decode(&bad.into()).is_err(), "a flipped bit");
            }
        }
    }
}
