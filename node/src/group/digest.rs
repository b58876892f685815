//! Convergence digests of a group at one group time: what `flotilla verify` compares.
//!
//! Payload of RPC kind 34. Two clusters are comparable when each one's closed vector covers the
//! other's highest own stamp: then both have seen the same writes, and equal digests mean equal
//! data, whatever the partition counts.

use crate::clock;
use crate::codec::{DecodeError, Decoder, Encoder};
use crate::engine::rows::FrozenRows;
use crate::engine::view::{Overlay, View};
use crate::eval::{self, SlotDigest, Txn};
use crate::group::Group;
use crate::group::cursor::{self, closed_vector};
use crate::group::leader::eval_context;
use crate::group::remote::{Answer, Outcome, Vector, put_vector, take_vector};
use bytes::Bytes;
use flotilla_topology::ids::{GroupId, LogId};
use flotilla_topology::slot::{SLOT_COUNT, SlotRange};
use flotilla_topology::stamp::Stamp;
use std::io;

const DIGEST_VERSION: u8 = 1;

/// Asks a group's leader for its digests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DigestRequest {
    /// The group.
    pub group: GroupId,
    /// The group time in milliseconds at which visibility is judged; the group ticks to it.
    pub at_ms: u64,
    /// Which slots; the answer is cut to those of the group.
    pub slots: SlotRange,
}

impl DigestRequest {
    /// The payload.
    pub fn encode(&self) -> Bytes {
        let mut out = Encoder::with_capacity(24);
        out.put_u8(DIGEST_VERSION);
        out.put_group(self.group);
        out.put_varint(self.at_ms);
        out.put_slots(self.slots);
        out.into_bytes()
    }

    /// Reads it.
    pub fn decode(payload: &Bytes) -> Result<DigestRequest, DecodeError> {
        let mut input = Decoder::shared(payload);
        input.version(DIGEST_VERSION)?;
        let request =
            DigestRequest { group: input.group()?, at_ms: input.varint()?, slots: input.slots()? };
        input.finish()?;
        Ok(request)
    }
}

/// What a group holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DigestAnswer {
    /// The position that was digested.
    pub at: LogId,
    /// Highest stamp of this cluster's own effects in it; ticks do not count.
    pub own: Stamp,
    /// Its closed vector.
    pub vector: Vector,
    /// Digests of the slots that hold anything visible.
    pub slots: Vec<SlotDigest>,
}

impl Outcome for DigestAnswer {
    fn put(&self, out: &mut Encoder) {
        out.put_log_id(self.at);
        out.put_stamp(self.own);
        put_vector(out, &self.vector);
        out.put_varint(self.slots.len() as u64);
        for digest in &self.slots {
            out.put_slot(digest.slot);
            out.put_u64((digest.sum >> 64) as u64);
            out.put_u64(digest.sum as u64);
            out.put_varint(digest.keys);
        }
    }

    fn take(from: &mut Decoder<'_>) -> Result<DigestAnswer, DecodeError> {
        let (at, own, vector) = (from.log_id()?, from.stamp()?, take_vector(from)?);
        let count = from.count(usize::from(SLOT_COUNT), 19)?;
        let mut slots = Vec::with_capacity(count);
        for _ in 0..count {
            let slot = from.slot()?;
            let sum = u128::from(from.u64()?) << 64 | u128::from(from.u64()?);
            slots.push(SlotDigest { slot, sum, keys: from.varint()? });
        }
        Ok(DigestAnswer { at, own, vector, slots })
    }
}

impl Group {
    /// Digests applied state at a group time, if this replica leads.
    pub async fn digest(&self, request: &DigestRequest) -> Answer<DigestAnswer> {
        if self.barrier().await.is_err() {
            return self.not_leader();
        }
        let ahead_ms = request.at_ms.saturating_sub(clock::wall_ms());
        if ahead_ms > self.context.max_skew_ms {
            return Answer::Refused {
                reason: format!("the time asked for is {ahead_ms} ms ahead of this node's clock"),
            };
        }
        if self.applied().clock.ms() < request.at_ms && self.tick(request.at_ms).await.is_err() {
            return self.not_leader();
        }
        match self.digest_applied(request) {
            Ok(answer) => Answer::Done(answer),
            Err(error) => Answer::Refused { reason: format!("cannot read: {error}") },
        }
    }

    fn digest_applied(&self, request: &DigestRequest) -> io::Result<DigestAnswer> {
        let engine = &self.engine;
        let mine = self.context.slots;
        let slots = SlotRange {
            first: mine.first.max(request.slots.first),
            last: mine.last.min(request.slots.last),
        };
        let (rows, meta) = FrozenRows::of_group(engine, self.context.group)?;
        let mut overlay = Overlay::new();
        let at = eval_context(&self.context, Stamp::ZERO, request.at_ms, request.at_ms);
        let txn = Txn::new(View::new(&rows, &mut overlay), at);
        let digests =
            if slots.first <= slots.last { eval::digest(&txn, slots)? } else { Vec::new() };
        let cursors = cursor::read_all(&rows)?;
        Ok(DigestAnswer {
            at: meta.applied,
            own: meta.own,
            vector: closed_vector(&cursors, mine),
            slots: digests,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flotilla_topology::ids::ClusterId;
    use flotilla_topology::slot::Slot;
    use flotilla_topology::stamp::Hlc;

    #[test]
    fn requests_and_answers_survive_the_wire() {
        let request = DigestRequest { group: GroupId(3), at_ms: 99, slots: SlotRange::ALL };
        assert_eq!(DigestRequest::decode(&request.encode()).unwrap(), request);
        let stamp = Stamp { hlc: Hlc(5), cluster: ClusterId(1) };
        let answer = Answer::Done(DigestAnswer {
            at: LogId { term: 1, index: 2 },
            own: stamp,
            vector: vec![(ClusterId(2), stamp)],
            slots: vec![SlotDigest { slot: Slot(7), sum: u128::MAX - 1, keys: 3 }],
        });
        let bytes = answer.encode();
        assert_eq!(Answer::<DigestAnswer>::decode(&bytes).unwrap(), answer);
        for end in 0..bytes.len() {
            assert!(Answer::<DigestAnswer>::decode(&bytes[..end]).is_err());
        }
    }
}
