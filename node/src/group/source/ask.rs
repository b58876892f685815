//! What is asked of replicas about full state, and their answers: payload of RPC kind 36.

use crate::codec::{DecodeError, Decoder, Encoder};
use crate::group::remote::{EFFECT_BYTES_MAX, Outcome};
use crate::group::rows::{DifferentSlot, KeyState, Resume, SlotState};
use crate::group::state::StateCut;
use bytes::Bytes;
use flotilla_topology::ids::{ClusterId, GroupId, LogId};
use flotilla_topology::slot::{SLOT_COUNT, Slot, SlotRange};

const SOURCE_VERSION: u8 = 1;
/// Keys that one comparison names: 16 bytes each.
pub const KEYS_MAX: usize = 1 << 16;
/// Effects in one answer.
pub const ROWS_MAX: usize = 2048;

type Decoded<T> = Result<T, DecodeError>;

/// What is asked of a replica that is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceRequest {
    /// Cut a group; refused by a replica that has not applied `after`.
    Cut {
        /// The group.
        group: GroupId,
        /// What the cut must hold at least.
        after: LogId,
        /// Whether rows will be read: otherwise only the position is wanted.
        keep: bool,
        /// Who will merge it: the group must count that cluster among the live ones, or it would go
        /// on forgetting what the cut still holds. 0 for nobody.
        peer: ClusterId,
        /// The group must know this version of the set of clusters: what it takes nothing of any
        /// more must be in the cut as far as it ever will be.
        mesh: u64,
    },
    /// State digests of slots.
    Slots {
        /// From [`SourceAnswer::Cut`].
        cut: u64,
        /// Which.
        slots: SlotRange,
    },
    /// State digests of the keys of a slot.
    Keys {
        /// From [`SourceAnswer::Cut`].
        cut: u64,
        /// Which.
        slot: Slot,
    },
    /// Rows of a slot.
    Rows {
        /// From [`SourceAnswer::Cut`].
        cut: u64,
        /// Which.
        slot: Slot,
        /// Only of these keys, by hash, in order; all if none.
        keys: Option<Vec<u64>>,
        /// Where to go on; at the beginning if none.
        from: Option<Resume>,
    },
    /// The cut is not needed any more.
    Drop {
        /// From [`SourceAnswer::Cut`].
        cut: u64,
    },
    /// At a target: which of these slots are another state here.
    CompareSlots {
        /// The target.
        group: GroupId,
        /// Their states at the source, in order.
        states: Vec<SlotState>,
    },
    /// At a target: which of these keys of a slot are another state here.
    CompareKeys {
        /// The target.
        group: GroupId,
        /// The slot.
        slot: Slot,
        /// Their states at the source, in order.
        states: Vec<KeyState>,
    },
}

/// What a replica answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceAnswer {
    /// The cut, and its number for reading.
    Cut {
        /// Its number; 0 if it is not kept.
        cut: u64,
        /// What it holds.
        state: StateCut,
    },
    /// State digests of slots that hold anything.
    Slots(Vec<SlotState>),
    /// State digests of keys.
    Keys(Vec<KeyState>),
    /// Rows.
    Rows {
        /// Encoded effects, of each key the head first.
        effects: Vec<Bytes>,
        /// Where to go on; none at the end.
        next: Option<Resume>,
    },
    /// Slots that differ.
    DifferentSlots(Vec<DifferentSlot>),
    /// Keys that differ, by hash.
    DifferentKeys(Vec<u64>),
    /// Dropped.
    Dropped,
}

fn put_list<T>(out: &mut Encoder, list: &[T], put: impl Fn(&mut Encoder, &T)) {
    out.put_varint(list.len() as u64);
    list.iter().for_each(|item| put(out, item));
}

fn take_list<'a, T>(
    from: &mut Decoder<'a>,
    max: usize,
    bytes_min: usize,
    take: impl Fn(&mut Decoder<'a>) -> Decoded<T>,
) -> Decoded<Vec<T>> {
    let count = from.count(max, bytes_min)?;
    (0..count).map(|_| take(from)).collect()
}

/// Appends state digests of slots.
pub fn put_slot_states(out: &mut Encoder, states: &[SlotState]) {
    put_list(out, states, |out, state| {
        out.put_slot(state.slot);
        out.put_u64(state.sum);
        out.put_varint(state.rows);
    });
}

/// Reads state digests of slots.
pub fn take_slot_states(from: &mut Decoder<'_>) -> Decoded<Vec<SlotState>> {
    take_list(from, usize::from(SLOT_COUNT), 11, |from| {
        Ok(SlotState { slot: from.slot()?, sum: from.u64()?, rows: from.varint()? })
    })
}

/// Appends slots that differ.
pub fn put_different_slots(out: &mut Encoder, slots: &[DifferentSlot]) {
    put_list(out, slots, |out, different| {
        out.put_slot(different.slot);
        out.put_bool(different.empty);
    });
}

/// Reads slots that differ.
pub fn take_different_slots(from: &mut Decoder<'_>) -> Decoded<Vec<DifferentSlot>> {
    take_list(from, usize::from(SLOT_COUNT), 3, |from| {
        Ok(DifferentSlot { slot: from.slot()?, empty: from.bool()? })
    })
}

/// Appends state digests of keys.
pub fn put_key_states(out: &mut Encoder, states: &[KeyState]) {
    put_list(out, states, |out, state| {
        out.put_u64(state.key);
        out.put_u64(state.sum);
    });
}

/// Reads state digests of keys.
pub fn take_key_states(from: &mut Decoder<'_>) -> Decoded<Vec<KeyState>> {
    take_list(from, KEYS_MAX, 16, |from| Ok(KeyState { key: from.u64()?, sum: from.u64()? }))
}

/// Appends hashes of keys.
pub fn put_hashes(out: &mut Encoder, hashes: &[u64]) {
    put_list(out, hashes, |out, hash| out.put_u64(*hash));
}

/// Reads hashes of keys.
pub fn take_hashes(from: &mut Decoder<'_>) -> Decoded<Vec<u64>> {
    take_list(from, KEYS_MAX, 8, |from| from.u64())
}

impl SourceRequest {
    /// The payload of the RPC.
    pub fn encode(&self) -> Bytes {
        let mut out = Encoder::new();
        out.put_u8(SOURCE_VERSION);
        match self {
            SourceRequest::Cut { group, after, keep, peer, mesh } => {
                out.put_u8(1);
                out.put_group(*group);
                out.put_log_id(*after);
                out.put_bool(*keep);
                out.put_cluster(*peer);
                out.put_varint(*mesh);
            }
            SourceRequest::Slots { cut, slots } => {
                out.put_u8(2);
                out.put_u64(*cut);
                out.put_slots(*slots);
            }
            SourceRequest::Keys { cut, slot } => {
                out.put_u8(3);
                out.put_u64(*cut);
                out.put_slot(*slot);
            }
            SourceRequest::Rows { cut, slot, keys, from } => {
                out.put_u8(4);
                out.put_u64(*cut);
                out.put_slot(*slot);
                out.put_option(keys.as_ref(), |out, keys| put_hashes(out, keys));
                out.put_option(from.as_ref(), |out, from| from.put(out));
            }
            SourceRequest::Drop { cut } => {
                out.put_u8(5);
                out.put_u64(*cut);
            }
            SourceRequest::CompareSlots { group, states } => {
                out.put_u8(6);
                out.put_group(*group);
                put_slot_states(&mut out, states);
            }
            SourceRequest::CompareKeys { group, slot, states } => {
                out.put_u8(7);
                out.put_group(*group);
                out.put_slot(*slot);
                put_key_states(&mut out, states);
            }
        }
        out.into_bytes()
    }

    /// Reads it.
    pub fn decode(payload: &Bytes) -> Decoded<SourceRequest> {
        let mut from = Decoder::shared(payload);
        from.version(SOURCE_VERSION)?;
        let unknown = from.error("a request for full state (1 to 7)");
        let request = match from.u8()? {
            1 => SourceRequest::Cut {
                group: from.group()?,
                after: from.log_id()?,
                keep: from.bool()?,
                peer: from.cluster()?,
                mesh: from.varint()?,
            },
            2 => SourceRequest::Slots { cut: from.u64()?, slots: from.slots()? },
            3 => SourceRequest::Keys { cut: from.u64()?, slot: from.slot()? },
            4 => SourceRequest::Rows {
                cut: from.u64()?,
                slot: from.slot()?,
                keys: from.option(take_hashes)?,
                from: from.option(Resume::take)?,
            },
            5 => SourceRequest::Drop { cut: from.u64()? },
            6 => SourceRequest::CompareSlots {
                group: from.group()?,
                states: take_slot_states(&mut from)?,
            },
            7 => SourceRequest::CompareKeys {
                group: from.group()?,
                slot: from.slot()?,
                states: take_key_states(&mut from)?,
            },
            _ => return Err(unknown),
        };
        from.finish()?;
        Ok(request)
    }
}

impl Outcome for SourceAnswer {
    fn put(&self, out: &mut Encoder) {
        match self {
            SourceAnswer::Cut { cut, state } => {
                out.put_u8(1);
                out.put_u64(*cut);
                state.put(out);
            }
            SourceAnswer::Slots(states) => {
                out.put_u8(2);
                put_slot_states(out, states);
            }
            SourceAnswer::Keys(states) => {
                out.put_u8(3);
                put_key_states(out, states);
            }
            SourceAnswer::Rows { effects, next } => {
                out.put_u8(4);
                put_list(out, effects, |out, effect| out.put_bytes(effect));
                out.put_option(next.as_ref(), |out, next| next.put(out));
            }
            SourceAnswer::DifferentSlots(slots) => {
                out.put_u8(5);
                put_different_slots(out, slots);
            }
            SourceAnswer::DifferentKeys(keys) => {
                out.put_u8(6);
                put_hashes(out, keys);
            }
            SourceAnswer::Dropped => out.put_u8(7),
        }
    }

    fn take(from: &mut Decoder<'_>) -> Decoded<SourceAnswer> {
        let unknown = from.error("an answer about full state (1 to 7)");
        Ok(match from.u8()? {
            1 => SourceAnswer::Cut { cut: from.u64()?, state: StateCut::take(from)? },
            2 => SourceAnswer::Slots(take_slot_states(from)?),
            3 => SourceAnswer::Keys(take_key_states(from)?),
            4 => SourceAnswer::Rows {
                effects: take_list(from, ROWS_MAX, 1, |from| from.bytes(EFFECT_BYTES_MAX))?,
                next: from.option(Resume::take)?,
            },
            5 => SourceAnswer::DifferentSlots(take_different_slots(from)?),
            6 => SourceAnswer::DifferentKeys(take_hashes(from)?),
            7 => SourceAnswer::Dropped,
            _ => return Err(unknown),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_answers_survive_the_wire() {
        let states = vec![SlotState { slot: Slot(3), sum: u64::MAX, rows: 7 }];
        let keys = vec![KeyState { key: 1, sum: 2 }, KeyState { key: 3, sum: 4 }];
        let slots = SlotRange::partition(1, 3);
        let from = Some(Resume::at(slots));
        let requests = [
            SourceRequest::Cut {
                group: GroupId(3),
                after: LogId { term: 1, index: 9 },
                keep: true,
                peer: ClusterId(2),
                mesh: 300,
            },
            SourceRequest::Slots { cut: 5, slots },
            SourceRequest::Keys { cut: 5, slot: Slot(9) },
            SourceRequest::Rows {
                cut: 5,
                slot: Slot(9),
                keys: Some(vec![1, 2]),
                from: from.clone(),
            },
            SourceRequest::Rows { cut: 5, slot: Slot(9), keys: None, from: None },
            SourceRequest::Drop { cut: 5 },
            SourceRequest::CompareSlots { group: GroupId(3), states: states.clone() },
            SourceRequest::CompareKeys { group: GroupId(3), slot: Slot(9), states: keys.clone() },
        ];
        for request in requests {
            let bytes = request.encode();
            assert_eq!(SourceRequest::decode(&bytes).unwrap(), request);
            for end in 0..bytes.len() {
                assert!(SourceRequest::decode(&bytes.slice(..end)).is_err());
            }
        }
        let answers = [
            SourceAnswer::Slots(states),
            SourceAnswer::Keys(keys),
            SourceAnswer::Rows { effects: vec![Bytes::from_static(b"x")], next: from },
            SourceAnswer::DifferentSlots(vec![DifferentSlot { slot: Slot(1), empty: true }]),
            SourceAnswer::DifferentKeys(vec![5]),
            SourceAnswer::Dropped,
        ];
        for answer in answers {
            let mut out = Encoder::new();
            answer.put(&mut out);
            let mut input = Decoder::new(out.as_slice());
            assert_eq!(SourceAnswer::take(&mut input).unwrap(), answer);
            input.finish().unwrap();
        }
    }
}
