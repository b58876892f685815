//! The messages of a merge. One question at a time in one direction, but for chunks, of which
//! several may be under way.

use crate::batch::{put_body, take_body};
use flotilla_node::codec::{DecodeError, Decoder, Encoder};
use flotilla_node::group::compare::{Different, StretchKeys, StretchState, Wanted};
use flotilla_node::group::remote::TEXT_BYTES_MAX;
use flotilla_node::group::rows::StretchRows;
use flotilla_node::group::source::{
    put_different, put_keys, put_rows, put_states, put_wanted, take_different, take_keys,
    take_rows, take_states, take_wanted,
};
use flotilla_node::group::state::StateCut;
use flotilla_topology::ids::LogId;

type Decoded<T> = Result<T, DecodeError>;

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
        /// stretches that differ all rows travel.
        covers: bool,
    },
    /// A target has come further than the cut: cut a newer one.
    Older {
        /// What it has.
        cursor: LogId,
    },
    /// States of stretches, in order. Answered by `Different`.
    States(Vec<StretchState>),
    /// Those that are another state there.
    Different(Vec<Different>),
    /// States of the keys of stretches. Answered by `Wanted`.
    Keys(Vec<StretchKeys>),
    /// What shall travel of these.
    Wanted(Vec<Wanted>),
    /// Rows of stretches: all of them, if the target covers. Answered by `Merged`.
    Rows(Vec<StretchRows>),
    /// Rows are committed.
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
            MergeMessage::States(states) => {
                out.put_u8(4);
                put_states(out, states);
            }
            MergeMessage::Different(different) => {
                out.put_u8(5);
                put_different(out, different);
            }
            MergeMessage::Keys(keys) => {
                out.put_u8(6);
                put_keys(out, keys);
            }
            MergeMessage::Wanted(wanted) => {
                out.put_u8(7);
                put_wanted(out, wanted);
            }
            MergeMessage::Rows(rows) => {
                out.put_u8(8);
                let mut body = Encoder::new();
                put_rows(&mut body, rows);
                put_body(out, body.as_slice());
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
        let unknown = from.error("a message of a merge (1 to 12)");
        Ok(match from.u8()? {
            1 => MergeMessage::Open {
                namespace: from.text(TEXT_BYTES_MAX)?.to_owned(),
                id: from.u64()?,
                cut: StateCut::take(from)?,
            },
            2 => MergeMessage::Opened { covers: from.bool()? },
            3 => MergeMessage::Older { cursor: from.log_id()? },
            4 => MergeMessage::States(take_states(from)?),
            5 => MergeMessage::Different(take_different(from)?),
            6 => MergeMessage::Keys(take_keys(from)?),
            7 => MergeMessage::Wanted(take_wanted(from)?),
            8 => {
                let body = take_body(from)?;
                let mut rows = Decoder::shared(&body);
                let taken = take_rows(&mut rows)?;
                rows.finish()?;
                MergeMessage::Rows(taken)
            }
            9 => MergeMessage::Merged,
            10 => MergeMessage::Parked { ahead_ms: from.varint()? },
            11 => MergeMessage::Close,
            12 => MergeMessage::Closed,
            _ => return Err(unknown),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::Message;
    use bytes::Bytes;
    use flotilla_node::group::compare::KeyState;
    use flotilla_node::group::entry::Fence;
    use flotilla_node::group::rows::Stretch;
    use flotilla_topology::ids::{ClusterId, GroupId, Incarnation, Origin};
    use flotilla_topology::slot::{Slot, SlotRange};
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
        let stretch = || Stretch::of_slot(Slot(7));
        let effects = vec![Bytes::from(vec![7; 3000]), Bytes::new()];
        let key = KeyState { key: 1, sum: 2 };
        vec![
            MergeMessage::Open { namespace: "default".into(), id: 9, cut },
            MergeMessage::Opened { covers: true },
            MergeMessage::Older { cursor: LogId { term: 1, index: 2 } },
            MergeMessage::States(vec![StretchState { stretch: stretch(), sum: 1, rows: 2 }]),
            MergeMessage::Different(vec![Different { at: 0, empty: false }]),
            MergeMessage::Keys(vec![StretchKeys { stretch: stretch(), keys: vec![key] }]),
            MergeMessage::Wanted(vec![Wanted { stretch: stretch(), keys: Some(vec![1]) }]),
            MergeMessage::Rows(vec![StretchRows { stretch: stretch(), effects }]),
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
