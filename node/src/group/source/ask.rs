//! What is asked of replicas about full state, and their answers: payload of RPC kind 36.

use crate::codec::{DecodeError, Decoder, Encoder};
use crate::group::compare::{Different, KeyState, States, StretchKeys, StretchState, Wanted};
use crate::group::remote::{EFFECT_BYTES_MAX, Outcome};
use crate::group::rows::{Resume, Stretch, StretchRows};
use crate::group::state::StateCut;
use bytes::Bytes;
use flotilla_topology::ids::{ClusterId, GroupId, LogId};
use flotilla_topology::slot::SlotRange;

const SOURCE_VERSION: u8 = 1;
/// Keys that one comparison names: 16 bytes each.
pub const KEYS_MAX: usize = 1 << 16;
/// Stretches of one message.
pub const STRETCHES_MAX: usize = 4096;
/// Stretches with rows in one answer.
pub const PARTS_MAX: usize = 512;
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
    /// State digests of slots, as far as one step comes.
    States {
        /// From [`SourceAnswer::Cut`].
        cut: u64,
        /// Which.
        slots: SlotRange,
        /// From this place of the first on.
        from: Option<Resume>,
        /// Also of what holds no rows.
        all: bool,
    },
    /// State digests of the keys of some stretches.
    Keys {
        /// From [`SourceAnswer::Cut`].
        cut: u64,
        /// Which.
        stretches: Vec<Stretch>,
    },
    /// Rows.
    Rows {
        /// From [`SourceAnswer::Cut`].
        cut: u64,
        /// Which.
        wanted: Vec<Wanted>,
    },
    /// The cut is not needed any more.
    Drop {
        /// From [`SourceAnswer::Cut`].
        cut: u64,
    },
    /// At a target: which of these stretches are another state here.
    CompareStates {
        /// The target.
        group: GroupId,
        /// Their states at the source.
        states: Vec<StretchState>,
    },
    /// At a target: which of these keys are another state here.
    CompareKeys {
        /// The target.
        group: GroupId,
        /// Their states at the source.
        keys: Vec<StretchKeys>,
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
    /// State digests.
    States(States),
    /// State digests of keys: of the first stretches that were asked for, of one at least.
    Keys(Vec<StretchKeys>),
    /// Rows of the first stretches that were asked for, of one at least; what is left of the last of
    /// them begins where it ends here.
    Rows(Vec<StretchRows>),
    /// Stretches that differ.
    Different(Vec<Different>),
    /// What must travel.
    Wanted(Vec<Wanted>),
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

/// Appends state digests.
pub fn put_states(out: &mut Encoder, states: &[StretchState]) {
    put_list(out, states, |out, state| {
        state.stretch.put(out);
        out.put_u64(state.sum);
        out.put_varint(state.rows);
    });
}

/// Reads state digests.
pub fn take_states(from: &mut Decoder<'_>) -> Decoded<Vec<StretchState>> {
    take_list(from, STRETCHES_MAX, Stretch::BYTES_MIN + 9, |from| {
        Ok(StretchState { stretch: Stretch::take(from)?, sum: from.u64()?, rows: from.varint()? })
    })
}

/// Appends which stretches differ.
pub fn put_different(out: &mut Encoder, list: &[Different]) {
    put_list(out, list, |out, different| {
        out.put_varint(different.at as u64);
        out.put_bool(different.empty);
    });
}

/// Reads which stretches differ.
pub fn take_different(from: &mut Decoder<'_>) -> Decoded<Vec<Different>> {
    take_list(from, STRETCHES_MAX, 2, |from| {
        let error = from.error("a place in a list of stretches");
        let at = usize::try_from(from.varint()?).ok().filter(|at| *at < STRETCHES_MAX);
        Ok(Different { at: at.ok_or(error)?, empty: from.bool()? })
    })
}

/// Appends state digests of keys.
pub fn put_keys(out: &mut Encoder, list: &[StretchKeys]) {
    put_list(out, list, |out, StretchKeys { stretch, keys }| {
        stretch.put(out);
        put_list(out, keys, |out, state| {
            out.put_u64(state.key);
            out.put_u64(state.sum);
        });
    });
}

/// Reads state digests of keys.
pub fn take_keys(from: &mut Decoder<'_>) -> Decoded<Vec<StretchKeys>> {
    let state = |from: &mut Decoder<'_>| Ok(KeyState { key: from.u64()?, sum: from.u64()? });
    take_list(from, STRETCHES_MAX, Stretch::BYTES_MIN + 1, |from| {
        let stretch = Stretch::take(from)?;
        Ok(StretchKeys { stretch, keys: take_list(from, KEYS_MAX, 16, state)? })
    })
}

/// Appends what is wanted.
pub fn put_wanted(out: &mut Encoder, list: &[Wanted]) {
    put_list(out, list, |out, Wanted { stretch, keys }| {
        stretch.put(out);
        out.put_option(keys.as_ref(), |out, keys| {
            put_list(out, keys, |out, hash| out.put_u64(*hash));
        });
    });
}

/// Reads what is wanted.
pub fn take_wanted(from: &mut Decoder<'_>) -> Decoded<Vec<Wanted>> {
    take_list(from, STRETCHES_MAX, Stretch::BYTES_MIN + 1, |from| {
        let stretch = Stretch::take(from)?;
        let keys = from.option(|from| take_list(from, KEYS_MAX, 8, Decoder::u64))?;
        Ok(Wanted { stretch, keys })
    })
}

/// Appends rows.
pub fn put_rows(out: &mut Encoder, list: &[StretchRows]) {
    put_list(out, list, |out, StretchRows { stretch, effects }| {
        stretch.put(out);
        put_list(out, effects, |out, effect| out.put_bytes(effect));
    });
}

/// Reads rows; effects share the given bytes.
pub fn take_rows(from: &mut Decoder<'_>) -> Decoded<Vec<StretchRows>> {
    let effect = |from: &mut Decoder<'_>| from.bytes(EFFECT_BYTES_MAX);
    take_list(from, PARTS_MAX, Stretch::BYTES_MIN + 1, |from| {
        let stretch = Stretch::take(from)?;
        Ok(StretchRows { stretch, effects: take_list(from, ROWS_MAX, 1, effect)? })
    })
}

impl SourceRequest {
    /// The stretches that it names.
    pub fn stretches(&self) -> Vec<&Stretch> {
        match self {
            SourceRequest::Keys { stretches, .. } => stretches.iter().collect(),
            SourceRequest::Rows { wanted, .. } => wanted.iter().map(|one| &one.stretch).collect(),
            SourceRequest::CompareStates { states, .. } => {
                states.iter().map(|one| &one.stretch).collect()
            }
            SourceRequest::CompareKeys { keys, .. } => {
                keys.iter().map(|one| &one.stretch).collect()
            }
            _ => Vec::new(),
        }
    }

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
            SourceRequest::States { cut, slots, from, all } => {
                out.put_u8(2);
                out.put_u64(*cut);
                out.put_slots(*slots);
                out.put_option(from.as_ref(), |out, from| from.put(out));
                out.put_bool(*all);
            }
            SourceRequest::Keys { cut, stretches } => {
                out.put_u8(3);
                out.put_u64(*cut);
                put_list(&mut out, stretches, |out, stretch| stretch.put(out));
            }
            SourceRequest::Rows { cut, wanted } => {
                out.put_u8(4);
                out.put_u64(*cut);
                put_wanted(&mut out, wanted);
            }
            SourceRequest::Drop { cut } => {
                out.put_u8(5);
                out.put_u64(*cut);
            }
            SourceRequest::CompareStates { group, states } => {
                out.put_u8(6);
                out.put_group(*group);
                put_states(&mut out, states);
            }
            SourceRequest::CompareKeys { group, keys } => {
                out.put_u8(7);
                out.put_group(*group);
                put_keys(&mut out, keys);
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
            2 => SourceRequest::States {
                cut: from.u64()?,
                slots: from.slots()?,
                from: from.option(Resume::take)?,
                all: from.bool()?,
            },
            3 => {
                let cut = from.u64()?;
                let take = Stretch::take;
                let stretches = take_list(&mut from, STRETCHES_MAX, Stretch::BYTES_MIN, take)?;
                SourceRequest::Keys { cut, stretches }
            }
            4 => SourceRequest::Rows { cut: from.u64()?, wanted: take_wanted(&mut from)? },
            5 => SourceRequest::Drop { cut: from.u64()? },
            6 => SourceRequest::CompareStates {
                group: from.group()?,
                states: take_states(&mut from)?,
            },
            7 => SourceRequest::CompareKeys { group: from.group()?, keys: take_keys(&mut from)? },
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
            SourceAnswer::States(States { states, next }) => {
                out.put_u8(2);
                put_states(out, states);
                out.put_option(next.as_ref(), |out, next| next.put(out));
            }
            SourceAnswer::Keys(keys) => {
                out.put_u8(3);
                put_keys(out, keys);
            }
            SourceAnswer::Rows(rows) => {
                out.put_u8(4);
                put_rows(out, rows);
            }
            SourceAnswer::Different(different) => {
                out.put_u8(5);
                put_different(out, different);
            }
            SourceAnswer::Wanted(wanted) => {
                out.put_u8(6);
                put_wanted(out, wanted);
            }
            SourceAnswer::Dropped => out.put_u8(7),
        }
    }

    fn take(from: &mut Decoder<'_>) -> Decoded<SourceAnswer> {
        let unknown = from.error("an answer about full state (1 to 7)");
        Ok(match from.u8()? {
            1 => SourceAnswer::Cut { cut: from.u64()?, state: StateCut::take(from)? },
            2 => SourceAnswer::States(States {
                states: take_states(from)?,
                next: from.option(Stretch::take)?,
            }),
            3 => SourceAnswer::Keys(take_keys(from)?),
            4 => SourceAnswer::Rows(take_rows(from)?),
            5 => SourceAnswer::Different(take_different(from)?),
            6 => SourceAnswer::Wanted(take_wanted(from)?),
            7 => SourceAnswer::Dropped,
            _ => return Err(unknown),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flotilla_topology::slot::Slot;

    #[test]
    fn requests_and_answers_survive_the_wire() {
        let slots = SlotRange::partition(1, 3);
        let from = Some(Resume::at(slots));
        let whole = Stretch::of_slot(Slot(3));
        let part = Stretch { slot: Slot(9), from: from.clone(), to: from.clone() };
        let states = [&whole, &part].map(|stretch| StretchState {
            stretch: stretch.clone(),
            sum: u64::MAX,
            rows: 7,
        });
        let key = KeyState { key: 1, sum: 2 };
        let keys = vec![StretchKeys { stretch: part.clone(), keys: vec![key] }];
        let wanted = vec![
            Wanted::all(whole.clone()),
            Wanted { stretch: part.clone(), keys: Some(vec![1, 2]) },
        ];
        let requests = [
            SourceRequest::Cut {
                group: GroupId(3),
                after: LogId { term: 1, index: 9 },
                keep: true,
                peer: ClusterId(2),
                mesh: 300,
            },
            SourceRequest::States { cut: 5, slots, from, all: true },
            SourceRequest::Keys { cut: 5, stretches: vec![whole.clone(), part.clone()] },
            SourceRequest::Rows { cut: 5, wanted: wanted.clone() },
            SourceRequest::Drop { cut: 5 },
            SourceRequest::CompareStates { group: GroupId(3), states: states.to_vec() },
            SourceRequest::CompareKeys { group: GroupId(3), keys: keys.clone() },
        ];
        for request in requests {
            let bytes = request.encode();
            assert_eq!(SourceRequest::decode(&bytes).unwrap(), request);
            for end in 0..bytes.len() {
                assert!(SourceRequest::decode(&bytes.slice(..end)).is_err());
            }
        }
        let effects = vec![Bytes::from_static(b"x")];
        let answers = [
            SourceAnswer::States(States { states: states.to_vec(), next: Some(part.clone()) }),
            SourceAnswer::Keys(keys),
            SourceAnswer::Rows(vec![StretchRows { stretch: part, effects }]),
            SourceAnswer::Different(vec![Different { at: 300, empty: true }]),
            SourceAnswer::Wanted(wanted),
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
