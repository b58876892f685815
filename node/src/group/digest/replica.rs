//! The digest of one replica: all its rows, and what else applying decides, at one position.

use super::{put_sum, take_sum};
use crate::codec::{DecodeError, Decoder, Encoder};
use crate::engine::meta::GroupMeta;
use crate::engine::rows::FrozenRows;
use crate::engine::view::Rows;
use crate::eval::Mix;
use crate::group::Group;
use crate::group::remote::Outcome;
use bytes::Bytes;
use flotilla_topology::ids::LogId;
use std::io;

/// Seeds of the two halves.
const SEEDS: [u64; 2] = [0x5265_706C, 0x6963_6173];
/// No row kind is this high.
const KINDS_END: u8 = 0xFF;

/// What a replica is at its applied position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplicaState {
    /// The position.
    pub at: LogId,
    /// The digest: of rows in order, the group's clock, its fence and its highest own stamp.
    pub sum: u128,
    /// How many rows there are.
    pub rows: u64,
}

impl Outcome for ReplicaState {
    fn put(&self, out: &mut Encoder) {
        out.put_log_id(self.at);
        put_sum(out, self.sum);
        out.put_varint(self.rows);
    }

    fn take(from: &mut Decoder<'_>) -> Result<ReplicaState, DecodeError> {
        Ok(ReplicaState { at: from.log_id()?, sum: take_sum(from)?, rows: from.varint()? })
    }
}

impl Group {
    /// Digests this replica, whether it leads or not. Reads all rows: blocks on the disk.
    pub fn digest_replica(&self) -> io::Result<ReplicaState> {
        let (rows, meta) = FrozenRows::of_group(&self.engine, self.context.group)?;
        replica_state(&rows, &meta)
    }
}

fn replica_state(rows: &dyn Rows, meta: &GroupMeta) -> io::Result<ReplicaState> {
    let mut mixes = SEEDS.map(Mix::new);
    let mut state = Encoder::with_capacity(40);
    meta.fence.encode(&mut state);
    state.put_hlc(meta.clock);
    state.put_stamp(meta.own);
    mixes.iter_mut().for_each(|mix| mix.bytes(state.as_slice()));
    let mut count = 0;
    let all = Bytes::from_static(&[0])..Bytes::from_static(&[KINDS_END]);
    for row in rows.scan(all, false) {
        let (key, value) = row?;
        for mix in &mut mixes {
            mix.bytes(&key);
            mix.bytes(&value);
        }
        count += 1;
    }
    let [high, low] = mixes.map(Mix::finish);
    let sum = u128::from(high) << 64 | u128::from(low);
    Ok(ReplicaState { at: meta.applied, sum, rows: count })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::keys;
    use crate::engine::rocks::TabletId;
    use crate::group::remote::Answer;
    use flotilla_topology::ids::ReplicaId;
    use flotilla_topology::slot::Slot;
    use flotilla_topology::stamp::Hlc;
    use std::collections::BTreeMap;

    fn rows(some: &[(Bytes, &'static [u8])]) -> BTreeMap<Bytes, Bytes> {
        some.iter().map(|(key, value)| (key.clone(), Bytes::from_static(value))).collect()
    }

    fn sum(rows: &BTreeMap<Bytes, Bytes>, meta: &GroupMeta) -> u128 {
        replica_state(rows, meta).unwrap().sum
    }

    #[test]
    fn whatever_replicas_hold_differently_shows() {
        let meta = GroupMeta::new(TabletId(1), ReplicaId(1));
        let (head, loser) = (keys::head(Slot(1), b"k"), keys::loser(0));
        let one = rows(&[(head.clone(), b"ab"), (loser.clone(), b"c")]);
        let state = replica_state(&one, &meta).unwrap();
        assert_eq!(state.rows, 2);
        // Where it stands on its node, and as whom, is local.
        let elsewhere = GroupMeta::new(TabletId(9), ReplicaId(2));
        assert_eq!(sum(&one.clone(), &elsewhere), state.sum);
        for other in [
            rows(&[(head.clone(), b"ab")]),
            rows(&[(head.clone(), b"aB"), (loser.clone(), b"c")]),
            rows(&[(head.clone(), b"a"), (loser, b"bc")]),
            rows(&[(head, b"ab"), (keys::loser(1), b"c")]),
        ] {
            assert_ne!(sum(&other, &meta), state.sum, "{other:?}");
        }
        let later = GroupMeta { clock: Hlc(1), ..meta };
        assert_ne!(sum(&one, &later), state.sum, "the clock is state too");
    }

    #[test]
    fn an_answer_survives_the_wire() {
        let at = LogId { term: 1, index: 2 };
        let answer = Answer::Done(ReplicaState { at, sum: u128::MAX - 1, rows: 7 });
        let bytes = answer.encode();
        assert_eq!(Answer::<ReplicaState>::decode(&bytes).unwrap(), answer);
        for end in 0..bytes.len() {
            assert!(Answer::<ReplicaState>::decode(&bytes[..end]).is_err());
        }
    }
}
