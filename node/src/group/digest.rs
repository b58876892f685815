//! Digests of a group: what `flotilla verify` compares, and what tells replicas apart.
//!
//! Payload of RPC kind 34, which asks one of four things:
//! * **Slots** (version 1): the leader's convergence digests at one group time. Two clusters are
//!   comparable when each one's closed vector covers the other's highest own stamp: then both have
//!   seen the same writes, and equal digests mean equal data, whatever the partition counts.
//! * **Keys** (version 2): the same of the keys of one slot, page by page: where slots differ.
//! * **Replica** (version 2): one replica's digest of all its rows at its applied position. At the
//!   same position it is the same on all replicas of the group; there are no rows in which they may
//!   differ.
//! * **Look** (version 2): what an audit between clusters compares, see [`look`].

pub mod look;
mod replica;

pub use look::{Look, LookRequest};
pub use replica::ReplicaState;

use crate::clock;
use crate::codec::{DecodeError, Decoder, Encoder};
use crate::engine::rows::FrozenRows;
use crate::engine::view::{Overlay, View};
use crate::eval::{self, KeyDigest, SlotDigest, Txn};
use crate::group::Group;
use crate::group::cursor::{self, closed_vector};
use crate::group::leader::eval_context;
use crate::group::remote::{Answer, Outcome, Vector, put_vector, take_vector};
use bytes::Bytes;
use flotilla_topology::ids::{GroupId, LogId};
use flotilla_topology::slot::{SLOT_COUNT, Slot, SlotRange};
use flotilla_topology::stamp::Stamp;
use std::io;

/// Of questions for slots, as they always were.
const SLOTS_VERSION: u8 = 1;
/// Of all others.
const DIGEST_VERSION: u8 = 2;
const ASK_KEYS: u8 = 1;
const ASK_REPLICA: u8 = 2;
const ASK_LOOK: u8 = 3;
/// Keys of one page.
pub const PAGE_KEYS_MAX: usize = 4096;
/// Bytes of the keys of one page, about.
const PAGE_BYTES_MAX: usize = 4 << 20;

type Decoded<T> = Result<T, DecodeError>;

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
        out.put_u8(SLOTS_VERSION);
        out.put_group(self.group);
        out.put_varint(self.at_ms);
        out.put_slots(self.slots);
        out.into_bytes()
    }
}

/// Asks a group's leader for the digests of keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeysRequest {
    /// The group.
    pub group: GroupId,
    /// As for [`DigestRequest`].
    pub at_ms: u64,
    /// The slot of the keys.
    pub slot: Slot,
    /// The last key of the page before; none at the beginning.
    pub after: Option<Bytes>,
    /// How many keys at most.
    pub max: usize,
}

impl KeysRequest {
    /// The payload.
    pub fn encode(&self) -> Bytes {
        let mut out = Encoder::with_capacity(32 + self.after.as_ref().map_or(0, Bytes::len));
        out.put_u8(DIGEST_VERSION);
        out.put_u8(ASK_KEYS);
        out.put_group(self.group);
        out.put_varint(self.at_ms);
        out.put_slot(self.slot);
        out.put_option(self.after.as_ref(), |out, key| out.put_bytes(key));
        out.put_varint(self.max as u64);
        out.into_bytes()
    }
}

/// What is asked by an RPC of kind 34.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DigestCall {
    /// [`DigestAnswer`], of the leader.
    Slots(DigestRequest),
    /// [`KeyPage`], of the leader.
    Keys(KeysRequest),
    /// [`ReplicaState`], of the replica that is asked, whether it leads or not.
    Replica(GroupId),
    /// [`Look`], of the leader.
    Look(LookRequest),
}

impl DigestCall {
    /// The group that is asked.
    pub fn group(&self) -> GroupId {
        match self {
            DigestCall::Slots(request) => request.group,
            DigestCall::Keys(request) => request.group,
            DigestCall::Replica(group) => *group,
            DigestCall::Look(request) => request.group,
        }
    }

    /// The payload.
    pub fn encode(&self) -> Bytes {
        match self {
            DigestCall::Slots(request) => request.encode(),
            DigestCall::Keys(request) => request.encode(),
            DigestCall::Replica(group) => {
                let mut out = Encoder::with_capacity(8);
                out.put_u8(DIGEST_VERSION);
                out.put_u8(ASK_REPLICA);
                out.put_group(*group);
                out.into_bytes()
            }
            DigestCall::Look(request) => {
                let mut out = Encoder::with_capacity(40);
                out.put_u8(DIGEST_VERSION);
                out.put_u8(ASK_LOOK);
                request.put(&mut out);
                out.into_bytes()
            }
        }
    }

    /// Reads it.
    pub fn decode(payload: &Bytes) -> Decoded<DigestCall> {
        let mut input = Decoder::shared(payload);
        let unknown = input.error("a question for digests that this release knows");
        let call = match input.u8()? {
            SLOTS_VERSION => DigestCall::Slots(DigestRequest {
                group: input.group()?,
                at_ms: input.varint()?,
                slots: input.slots()?,
            }),
            DIGEST_VERSION => match input.u8()? {
                ASK_KEYS => DigestCall::Keys(KeysRequest {
                    group: input.group()?,
                    at_ms: input.varint()?,
                    slot: input.slot()?,
                    after: input.option(|input| input.bytes(usize::MAX))?,
                    max: usize::try_from(input.varint()?).unwrap_or(usize::MAX),
                }),
                ASK_REPLICA => DigestCall::Replica(input.group()?),
                ASK_LOOK => DigestCall::Look(LookRequest::take(&mut input)?),
                _ => return Err(unknown),
            },
            _ => return Err(unknown),
        };
        input.finish()?;
        Ok(call)
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

fn put_sum(out: &mut Encoder, sum: u128) {
    out.put_u64((sum >> 64) as u64);
    out.put_u64(sum as u64);
}

fn take_sum(from: &mut Decoder<'_>) -> Decoded<u128> {
    Ok(u128::from(from.u64()?) << 64 | u128::from(from.u64()?))
}

impl Outcome for DigestAnswer {
    fn put(&self, out: &mut Encoder) {
        out.put_log_id(self.at);
        out.put_stamp(self.own);
        put_vector(out, &self.vector);
        out.put_varint(self.slots.len() as u64);
        for digest in &self.slots {
            out.put_slot(digest.slot);
            put_sum(out, digest.sum);
            out.put_varint(digest.keys);
        }
    }

    fn take(from: &mut Decoder<'_>) -> Decoded<DigestAnswer> {
        let (at, own, vector) = (from.log_id()?, from.stamp()?, take_vector(from)?);
        let count = from.count(usize::from(SLOT_COUNT), 19)?;
        let mut slots = Vec::with_capacity(count);
        for _ in 0..count {
            let (slot, sum) = (from.slot()?, take_sum(from)?);
            slots.push(SlotDigest { slot, sum, keys: from.varint()? });
        }
        Ok(DigestAnswer { at, own, vector, slots })
    }
}

/// Keys of a slot, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyPage {
    /// They, with their digests.
    pub keys: Vec<KeyDigest>,
    /// Whether there are more behind the last of them.
    pub more: bool,
}

impl Outcome for KeyPage {
    fn put(&self, out: &mut Encoder) {
        out.put_varint(self.keys.len() as u64);
        for digest in &self.keys {
            out.put_bytes(&digest.key);
            put_sum(out, digest.sum);
        }
        out.put_bool(self.more);
    }

    fn take(from: &mut Decoder<'_>) -> Decoded<KeyPage> {
        let count = from.count(PAGE_KEYS_MAX, 17)?;
        let mut keys = Vec::with_capacity(count);
        for _ in 0..count {
            // Copied: a shared slice would keep the whole page alive for one name.
            let key = Bytes::copy_from_slice(&from.bytes(usize::MAX)?);
            keys.push(KeyDigest { key, sum: take_sum(from)? });
        }
        Ok(KeyPage { keys, more: from.bool()? })
    }
}

impl Group {
    /// Digests applied state at a group time, if this replica leads.
    pub async fn digest(&self, request: &DigestRequest) -> Answer<DigestAnswer> {
        if let Err(answer) = self.reach(request.at_ms).await {
            return answer;
        }
        told(self.digest_applied(request))
    }

    /// Digests the keys of a slot at a group time, if this replica leads.
    pub async fn digest_keys(&self, request: &KeysRequest) -> Answer<KeyPage> {
        if let Err(answer) = self.reach(request.at_ms).await {
            return answer;
        }
        told(self.digest_page(request))
    }

    /// Waits until applied state is that of `at_ms`; or the answer, if this cannot be.
    async fn reach<T>(&self, at_ms: u64) -> Result<(), Answer<T>> {
        if self.barrier().await.is_err() {
            return Err(self.not_leader());
        }
        let ahead_ms = at_ms.saturating_sub(clock::wall_ms());
        if ahead_ms > self.context.max_skew_ms {
            return Err(Answer::Refused {
                reason: format!("the time asked for is {ahead_ms} ms ahead of this node's clock"),
            });
        }
        if self.applied().clock.ms() < at_ms && self.tick(at_ms).await.is_err() {
            return Err(self.not_leader());
        }
        Ok(())
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
        let synced = self.context.synced_in(&rows)?;
        let at = eval_context(&self.context, synced, Stamp::ZERO, request.at_ms, request.at_ms);
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

    fn digest_page(&self, request: &KeysRequest) -> io::Result<KeyPage> {
        let (rows, _) = FrozenRows::of_group(&self.engine, self.context.group)?;
        let mut overlay = Overlay::new();
        let synced = self.context.synced_in(&rows)?;
        let at = eval_context(&self.context, synced, Stamp::ZERO, request.at_ms, request.at_ms);
        page(&Txn::new(View::new(&rows, &mut overlay), at), request)
    }
}

fn told<T>(read: io::Result<T>) -> Answer<T> {
    match read {
        Ok(answer) => Answer::Done(answer),
        Err(error) => Answer::Refused { reason: format!("cannot read: {error}") },
    }
}

/// The keys that a request asks for, as many of them as make a page.
fn page(txn: &Txn<'_>, request: &KeysRequest) -> io::Result<KeyPage> {
    let max = request.max.clamp(1, PAGE_KEYS_MAX);
    let (mut keys, mut bytes) = (Vec::new(), 0);
    for digest in eval::key_digests(txn, request.slot, request.after.as_deref()) {
        if keys.len() == max || bytes > PAGE_BYTES_MAX {
            return Ok(KeyPage { keys, more: true });
        }
        let digest: KeyDigest = digest?;
        bytes += digest.key.len();
        keys.push(digest);
    }
    Ok(KeyPage { keys, more: false })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Command;
    use crate::eval::EvalContext;
    use crate::model::Synced;
    use flotilla_topology::ids::{ClusterId, Incarnation, Origin};
    use flotilla_topology::stamp::Hlc;
    use std::collections::BTreeMap;

    #[test]
    fn requests_and_answers_survive_the_wire() {
        let group = GroupId(3);
        let keys = |after| KeysRequest { group, at_ms: 99, slot: Slot(7), after, max: 5 };
        for call in [
            DigestCall::Slots(DigestRequest { group, at_ms: 99, slots: SlotRange::ALL }),
            DigestCall::Keys(keys(None)),
            DigestCall::Keys(keys(Some(Bytes::from_static(b"k")))),
            DigestCall::Replica(group),
            DigestCall::Look(LookRequest {
                group,
                at_ms: 99,
                cells: look::Cells::slots(SlotRange::ALL),
            }),
        ] {
            let bytes = call.encode();
            assert_eq!(DigestCall::decode(&bytes).unwrap(), call);
            for end in 0..bytes.len() {
                assert!(DigestCall::decode(&bytes.slice(..end)).is_err());
            }
        }
        let stamp = Stamp { hlc: Hlc(5), cluster: ClusterId(1) };
        survives(&Answer::Done(DigestAnswer {
            at: LogId { term: 1, index: 2 },
            own: stamp,
            vector: vec![(ClusterId(2), stamp)],
            slots: vec![SlotDigest { slot: Slot(7), sum: u128::MAX - 1, keys: 3 }],
        }));
        let key = KeyDigest { key: Bytes::from_static(b"k"), sum: u128::MAX - 1 };
        survives(&Answer::Done(KeyPage { keys: vec![key], more: true }));
    }

    fn survives<T: Outcome + PartialEq + std::fmt::Debug>(answer: &Answer<T>) {
        let bytes = answer.encode();
        assert_eq!(&Answer::<T>::decode(&bytes).unwrap(), answer);
        for end in 0..bytes.len() {
            assert!(Answer::<T>::decode(&bytes[..end]).is_err());
        }
    }

    fn context(ms: u64) -> EvalContext {
        let origin = Origin { cluster: ClusterId(1), incarnation: Incarnation(1) };
        let stamp = Stamp { hlc: Hlc::from_ms(ms), cluster: origin.cluster };
        let slots = SlotRange::ALL;
        EvalContext {
            origin,
            slots,
            synced: Synced::Always,
            stamp,
            now_ms: ms,
            applied_clock_ms: ms,
            forgotten_ms: 0,
            chance: 0,
        }
    }

    /// Page by page a slot gives all its visible keys once, in order, and their digests are together
    /// that of the slot.
    #[test]
    fn pages_cover_a_slot() {
        let (rows, mut overlay) = (BTreeMap::<Bytes, Bytes>::new(), Overlay::new());
        overlay.begin(1);
        let mut run = |ms, words: &[&str]| {
            let args = words.iter().map(|word| Bytes::copy_from_slice(word.as_bytes()));
            let command = Command::parse(args.collect()).unwrap();
            let mut txn = Txn::new(View::new(&rows, &mut overlay), context(ms));
            eval::command(&mut txn, &command).unwrap();
        };
        for n in 0..23 {
            run(10 + n, &["SET", &format!("k{n:02}{{t}}"), "v"]);
        }
        run(50, &["HSET", "h{t}", "f", "v", "g", "w"]);
        run(51, &["SET", "elsewhere", "v"]);
        run(52, &["DEL", "k05{t}"]);
        let txn = Txn::new(View::new(&rows, &mut overlay), context(60));
        let slot = Slot::of(b"{t}");
        for max in [1, 2, 5, 100] {
            let (mut all, mut after) = (Vec::<KeyDigest>::new(), None);
            loop {
                let request = KeysRequest { group: GroupId(1), at_ms: 60, slot, after, max };
                let found = page(&txn, &request).unwrap();
                assert!(found.keys.len() <= max);
                all.extend(found.keys);
                after = all.last().map(|digest| digest.key.clone());
                if !found.more {
                    break;
                }
            }
            let mut wanted: Vec<String> = (0..23).map(|n| format!("k{n:02}{{t}}")).collect();
            wanted.remove(5);
            wanted.insert(0, "h{t}".to_owned());
            let names = all.iter().map(|digest| String::from_utf8_lossy(&digest.key));
            assert_eq!(names.collect::<Vec<_>>(), wanted);
            let sum = all.iter().fold(0u128, |sum, digest| sum.wrapping_add(digest.sum));
            let whole = eval::digest(&txn, SlotRange { first: slot, last: slot }).unwrap();
            assert_eq!(whole, [SlotDigest { slot, sum, keys: 23 }]);
        }
    }
}
