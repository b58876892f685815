//! Full state of a group of another cluster on its way into a group of this one: what a syncer asks
//! of the target's leader (RPC kinds 35 to 37), and the row that says that such a merge is open.
//!
//! A merge opens by an entry in the target group, which stops collection there; its chunks count
//! only as long as it is open; and only its end moves the target's cursor, closed stamp and vector
//! to those of the cut, never back. What the source has forgotten counts here from the end on. So a
//! merge may be given up at any time and begun anew.
//!
//! A group that comes back from a fence in a new life *covers* its state with those of all live
//! clusters before it gives anything away (see [`crate::group::life`]): such a merge goes stretch by
//! stretch over all rows of the cut, and each stretch also drops what was deleted and forgotten there
//! ([`crate::eval::cover`]).

use crate::codec::{DecodeError, Decoder, Encoder, unseal};
use crate::group::cursor::Cursors;
use crate::group::entry::Fence;
use crate::group::remote::{EFFECT_BYTES_MAX, Outcome, Vector, put_vector, take_vector};
use crate::group::rows::{Resume, StretchRows};
use crate::group::source::{put_rows, take_rows};
use bytes::Bytes;
use flotilla_topology::ids::{ClusterId, GroupId, Incarnation, LogId, Origin};
use flotilla_topology::slot::{Slot, SlotRange};
use flotilla_topology::stamp::Stamp;

const STATE_VERSION: u8 = 1;
/// Groups of other clusters that a cut may speak of: each shares slots with the cut's group.
const HEARD_MAX: usize = 1 << 16;
/// Clusters that a cut may call fenced: ids are 1 to 255.
const FENCED_MAX: usize = 254;
/// Effects of one chunk.
const CHUNK_EFFECTS_MAX: usize = 1 << 16;

type Decoded<T> = Result<T, DecodeError>;

/// Where a full state of a group was cut: all that its rows say, and no more, is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateCut {
    /// Where the group is.
    pub origin: Origin,
    /// The group.
    pub group: GroupId,
    /// Its slots.
    pub slots: SlotRange,
    /// The last entry that is in it.
    pub position: LogId,
    /// The group's fence there.
    pub fence: Fence,
    /// Highest stamp of the group's own entries up to there.
    pub closed: Stamp,
    /// What the group had of every other cluster.
    pub vector: Vector,
    /// Up to when it may have collected ends, in milliseconds since 1970.
    pub forgotten_ms: u64,
    /// How far it had come with each group of other clusters.
    pub heard: Vec<Heard>,
    /// Clusters of which it took nothing any more, and up to which of their lives.
    pub fenced: Vec<(ClusterId, Incarnation)>,
}

/// That everything of a group up to a stamp was there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heard {
    /// Where the group is.
    pub origin: Origin,
    /// The group.
    pub group: GroupId,
    /// Its slots.
    pub slots: SlotRange,
    /// Up to here.
    pub closed: Stamp,
}

impl Heard {
    /// Out of cursors.
    pub fn of(cursors: &Cursors) -> Vec<Heard> {
        let each = cursors.iter().map(|((origin, group), cursor)| Heard {
            origin: *origin,
            group: *group,
            slots: cursor.slots,
            closed: cursor.closed,
        });
        each.collect()
    }

    fn put(&self, out: &mut Encoder) {
        out.put_origin(self.origin);
        out.put_group(self.group);
        out.put_slots(self.slots);
        out.put_stamp(self.closed);
    }

    fn take(from: &mut Decoder<'_>) -> Decoded<Heard> {
        Ok(Heard {
            origin: from.origin()?,
            group: from.group()?,
            slots: from.slots()?,
            closed: from.stamp()?,
        })
    }
}

impl StateCut {
    /// Appends it.
    pub fn put(&self, out: &mut Encoder) {
        out.put_origin(self.origin);
        out.put_group(self.group);
        out.put_slots(self.slots);
        out.put_log_id(self.position);
        self.fence.encode(out);
        out.put_stamp(self.closed);
        put_vector(out, &self.vector);
        out.put_varint(self.forgotten_ms);
        out.put_varint(self.heard.len() as u64);
        self.heard.iter().for_each(|heard| heard.put(out));
        out.put_varint(self.fenced.len() as u64);
        for (cluster, life) in &self.fenced {
            out.put_cluster(*cluster);
            out.put_varint(u64::from(life.0));
        }
    }

    /// Reads it.
    pub fn take(from: &mut Decoder<'_>) -> Decoded<StateCut> {
        Ok(StateCut {
            origin: from.origin()?,
            group: from.group()?,
            slots: from.slots()?,
            position: from.log_id()?,
            fence: Fence::decode(from)?,
            closed: from.stamp()?,
            vector: take_vector(from)?,
            forgotten_ms: from.varint()?,
            heard: {
                let count = from.count(HEARD_MAX, 1)?;
                (0..count).map(|_| Heard::take(from)).collect::<Decoded<_>>()?
            },
            fenced: {
                let count = from.count(FENCED_MAX, 2)?;
                let one = |from: &mut Decoder<'_>| -> Decoded<_> {
                    Ok((from.cluster()?, Incarnation(from.varint32()?)))
                };
                (0..count).map(|_| one(from)).collect::<Decoded<_>>()?
            },
        })
    }

    /// Whether it had what was stamped so in a slot: of each cluster by the group that owned the
    /// slot, in whatever life.
    pub fn had(&self, slot: Slot, stamp: Stamp) -> bool {
        if stamp.cluster == self.origin.cluster {
            return stamp <= self.closed;
        }
        let of =
            |heard: &&Heard| heard.origin.cluster == stamp.cluster && heard.slots.contains(slot);
        self.heard.iter().filter(of).any(|heard| stamp <= heard.closed)
    }
}

/// A step of a merge at one target group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateRequest {
    /// The group that shall merge.
    pub target: GroupId,
    /// Which merge: chosen anew by the sender for each attempt.
    pub id: u64,
    /// What to do.
    pub step: StateStep,
}

/// See [`StateRequest`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StateStep {
    /// A merge of this cut begins; another one of the same source group that is open ends without
    /// effect.
    Open(StateCut),
    /// Rows of the cut.
    Chunk {
        /// Where the cut is from.
        origin: Origin,
        /// The group there.
        group: GroupId,
        /// Whole rows as encoded effects: of each key the head first.
        effects: Vec<Bytes>,
    },
    /// All rows of some stretches of the cut, for a target that covers: what it has there besides, and
    /// the source had once, goes.
    Cover {
        /// Where the cut is from.
        origin: Origin,
        /// The group there.
        group: GroupId,
        /// Stretches, and all that is in each.
        rows: Vec<StretchRows>,
    },
    /// Everything is merged.
    Close {
        /// Where the cut is from.
        origin: Origin,
        /// The group there.
        group: GroupId,
    },
}

const OPEN: u8 = 1;
const CHUNK: u8 = 2;
const CLOSE: u8 = 3;
const COVER: u8 = 4;

fn put_effects(out: &mut Encoder, effects: &[Bytes]) {
    out.put_varint(effects.len() as u64);
    effects.iter().for_each(|effect| out.put_bytes(effect));
}

fn take_effects(from: &mut Decoder<'_>) -> Decoded<Vec<Bytes>> {
    let count = from.count(CHUNK_EFFECTS_MAX, 1)?;
    (0..count).map(|_| from.bytes(EFFECT_BYTES_MAX)).collect()
}

impl StateRequest {
    /// The payload of the RPC.
    pub fn encode(&self) -> Bytes {
        let mut out = Encoder::new();
        out.put_u8(STATE_VERSION);
        out.put_group(self.target);
        out.put_u64(self.id);
        match &self.step {
            StateStep::Open(cut) => {
                out.put_u8(OPEN);
                cut.put(&mut out);
            }
            StateStep::Chunk { origin, group, effects } => {
                out.put_u8(CHUNK);
                out.put_origin(*origin);
                out.put_group(*group);
                put_effects(&mut out, effects);
            }
            StateStep::Cover { origin, group, rows } => {
                out.put_u8(COVER);
                out.put_origin(*origin);
                out.put_group(*group);
                put_rows(&mut out, rows);
            }
            StateStep::Close { origin, group } => {
                out.put_u8(CLOSE);
                out.put_origin(*origin);
                out.put_group(*group);
            }
        }
        out.into_bytes()
    }

    /// Reads it; effects share the given bytes.
    pub fn decode(payload: &Bytes) -> Decoded<StateRequest> {
        let mut from = Decoder::shared(payload);
        from.version(STATE_VERSION)?;
        let (target, id) = (from.group()?, from.u64()?);
        let unknown = from.error("a step of a merge (1 open, 2 chunk, 3 close, 4 cover)");
        let step = match from.u8()? {
            OPEN => StateStep::Open(StateCut::take(&mut from)?),
            CHUNK => {
                let (origin, group) = (from.origin()?, from.group()?);
                StateStep::Chunk { origin, group, effects: take_effects(&mut from)? }
            }
            COVER => {
                let (origin, group) = (from.origin()?, from.group()?);
                StateStep::Cover { origin, group, rows: take_rows(&mut from)? }
            }
            CLOSE => StateStep::Close { origin: from.origin()?, group: from.group()? },
            _ => return Err(unknown),
        };
        from.finish()?;
        Ok(StateRequest { target, id, step })
    }
}

/// What came of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StateVerdict {
    /// Committed.
    Done,
    /// The merge is open, and the target covers: it must be given every stretch of the cut.
    Covers,
    /// A part of what was to be covered is: send the same without these stretches, and with the next
    /// of them beginning here.
    More {
        /// How many stretches are covered.
        done: usize,
        /// Where it goes on in the next.
        from: Resume,
    },
    /// Not taken: the target has come further by the log than this cut. Cut a newer one.
    Older {
        /// What it has.
        cursor: LogId,
    },
    /// Not taken: this merge is not the one that is open.
    NotOpen,
    /// Not taken: its stamps run ahead of this cluster's clock. Send it again later.
    Parked {
        /// By how much, in milliseconds.
        ahead_ms: u64,
    },
}

impl Outcome for StateVerdict {
    fn put(&self, out: &mut Encoder) {
        match self {
            StateVerdict::Done => out.put_u8(0),
            StateVerdict::Covers => out.put_u8(4),
            StateVerdict::More { done, from } => {
                out.put_u8(5);
                out.put_varint(*done as u64);
                from.put(out);
            }
            StateVerdict::Older { cursor } => {
                out.put_u8(1);
                out.put_log_id(*cursor);
            }
            StateVerdict::NotOpen => out.put_u8(2),
            StateVerdict::Parked { ahead_ms } => {
                out.put_u8(3);
                out.put_varint(*ahead_ms);
            }
        }
    }

    fn take(from: &mut Decoder<'_>) -> Decoded<StateVerdict> {
        let unknown = from.error("what came of a step of a merge");
        Ok(match from.u8()? {
            0 => StateVerdict::Done,
            1 => StateVerdict::Older { cursor: from.log_id()? },
            2 => StateVerdict::NotOpen,
            3 => StateVerdict::Parked { ahead_ms: from.varint()? },
            4 => StateVerdict::Covers,
            5 => {
                let error = from.error("a number of stretches");
                let done = usize::try_from(from.varint()?).map_err(|_| error)?;
                StateVerdict::More { done, from: Resume::take(from)? }
            }
            _ => return Err(unknown),
        })
    }
}

/// The row of an open merge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenMerge {
    /// Which one.
    pub id: u64,
    /// What is being merged.
    pub cut: StateCut,
}

impl OpenMerge {
    /// Its row value.
    pub fn encode(&self) -> Bytes {
        let mut out = Encoder::new();
        out.put_u8(STATE_VERSION);
        out.put_u64(self.id);
        self.cut.put(&mut out);
        out.seal(0);
        out.into_bytes()
    }

    /// Reads a row value.
    pub fn decode(value: &[u8]) -> Decoded<OpenMerge> {
        let mut input = Decoder::new(unseal(value)?);
        input.version(STATE_VERSION)?;
        let merge = OpenMerge { id: input.u64()?, cut: StateCut::take(&mut input)? };
        input.finish()?;
        Ok(merge)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::group::rows::Stretch;
    use flotilla_topology::stamp::Hlc;

    #[test]
    fn requests_verdicts_and_rows_survive_their_bytes() {
        let origin = Origin { cluster: ClusterId(2), incarnation: Incarnation(3) };
        let stamp = Stamp { hlc: Hlc(5), cluster: ClusterId(2) };
        let cut = StateCut {
            origin,
            group: GroupId(4),
            slots: SlotRange::partition(1, 3),
            position: LogId { term: 2, index: 9 },
            fence: Fence { term: 2, next_seq: 3 },
            closed: stamp,
            vector: vec![(ClusterId(1), stamp)],
            forgotten_ms: 77,
            heard: vec![Heard {
                origin: Origin { cluster: ClusterId(3), ..origin },
                group: GroupId(9),
                slots: SlotRange::ALL,
                closed: stamp,
            }],
            fenced: vec![(ClusterId(4), Incarnation(2))],
        };
        let effects = vec![Bytes::from_static(b"one"), Bytes::new()];
        let steps = [
            StateStep::Open(cut.clone()),
            StateStep::Cover {
                origin,
                group: GroupId(4),
                rows: vec![StretchRows {
                    stretch: Stretch::of_slot(Slot(3)),
                    effects: effects.clone(),
                }],
            },
            StateStep::Chunk { origin, group: GroupId(4), effects },
            StateStep::Close { origin, group: GroupId(4) },
        ];
        for step in steps {
            let request = StateRequest { target: GroupId(7), id: 99, step };
            let bytes = request.encode();
            assert_eq!(StateRequest::decode(&bytes).unwrap(), request);
            for end in 0..bytes.len() {
                assert!(StateRequest::decode(&bytes.slice(..end)).is_err());
            }
        }
        let merge = OpenMerge { id: 1, cut };
        assert_eq!(OpenMerge::decode(&merge.encode()).unwrap(), merge);
    }
}
