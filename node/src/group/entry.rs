//! The payload of a log entry: a header and row operations, both decided by the group's leader.
//!
//! Applying an entry reads nothing: its operations are final rows. What the syncer ships is cut out
//! of the same rows by the `parts` mask of each put, so values stand in the log once.
//!
//! Invariants:
//! * `fence` is (term, seq) of the evaluation; whoever applies or ships the entry compares it with
//!   the entry's own log id and with the state before it, and treats a mismatch as a no-op.
//! * One origin per entry: a batch of another cluster and local commands never share one.
//! * Row keys carry no tablet number: that is local to each replica.

use crate::codec::{DecodeError, Decoder, Encoder, unseal_bytes};
use crate::flaws::{self, Flaw};
use bytes::Bytes;
use flotilla_topology::ids::Origin;
use flotilla_topology::slot::SlotRange;
use flotilla_topology::stamp::{Hlc, Stamp};

/// Newest format that this code writes and reads.
pub const ENTRY_VERSION: u8 = 1;
/// Largest entry in bytes. A whole value and its key fit; transports and the log allow this much.
pub const ENTRY_BYTES_MAX: usize = 24 * 1024 * 1024;
/// Longest row key or row value.
const ROW_BYTES_MAX: usize = ENTRY_BYTES_MAX;

/// Which prefix of the log an entry was evaluated on: the `seq`-th evaluation of `term`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Evaluation {
    /// Term of the evaluating leader.
    pub term: u64,
    /// 1, 2, 3... within the term.
    pub seq: u64,
}

/// What the next entry must carry to take effect. Part of applied state and of snapshots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Fence {
    /// Term of the last blank entry.
    pub term: u64,
    /// The seq that takes effect next.
    pub next_seq: u64,
}

impl Fence {
    /// The blank entry of a new term opens it.
    pub fn blank(&mut self, term: u64) {
        *self = Fence { term, next_seq: 1 };
    }

    /// Whether an entry with this evaluation, standing in the log at `log_term`, takes effect; if
    /// so the fence moves on. Replicas and syncers share this one rule.
    pub fn admit(&mut self, log_term: u64, evaluation: Evaluation) -> bool {
        let prefix = evaluation.seq == self.next_seq || flaws::has(Flaw::FenceByTerm);
        let admitted = evaluation.term == log_term && log_term == self.term && prefix;
        if admitted {
            self.next_seq += 1;
        }
        admitted
    }

    /// Appends it.
    pub fn encode(&self, out: &mut Encoder) {
        out.put_varint(self.term);
        out.put_varint(self.next_seq);
    }

    /// Reads it.
    pub fn decode(input: &mut Decoder<'_>) -> Result<Fence, DecodeError> {
        Ok(Fence { term: input.varint()?, next_seq: input.varint()? })
    }
}

/// Everything about an entry that can be known without its operations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// On which prefix it was evaluated.
    pub evaluation: Evaluation,
    /// Where its effects were born.
    pub origin: Origin,
    /// Lowest stamp of its effects, or the tick.
    pub first: Stamp,
    /// Highest stamp of its effects, or the tick. Of a remote entry: the stamps of its origin.
    pub last: Stamp,
    /// The group's clock once it is applied.
    pub clock: Hlc,
    /// Slots that it touches, if any.
    pub slots: Option<SlotRange>,
}

/// One operation on rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RowOp {
    /// The row's whole new value.
    Put {
        /// Row key without tablet.
        key: Bytes,
        /// Row value.
        value: Bytes,
        /// Which parts of the row this entry wrote anew: what the syncer ships. 0: none.
        parts: u16,
    },
    /// The row goes.
    Delete {
        /// Row key without tablet.
        key: Bytes,
    },
    /// All rows from `from` (included) to `to` (excluded) go.
    DeleteRange {
        /// First row key.
        from: Bytes,
        /// Row key behind the last.
        to: Bytes,
    },
}

/// A whole entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its header.
    pub header: Header,
    /// Its operations: range deletes first, then rows in key order.
    pub ops: Vec<RowOp>,
}

const OP_PUT: u8 = 1;
const OP_DELETE: u8 = 2;
const OP_DELETE_RANGE: u8 = 3;

impl Header {
    fn encode(&self, out: &mut Encoder) {
        out.put_varint(self.evaluation.term);
        out.put_varint(self.evaluation.seq);
        out.put_origin(self.origin);
        out.put_stamp(self.first);
        out.put_stamp(self.last);
        out.put_hlc(self.clock);
        out.put_option(self.slots, |out, slots| out.put_slots(slots));
    }

    fn decode(input: &mut Decoder<'_>) -> Result<Header, DecodeError> {
        Ok(Header {
            evaluation: Evaluation { term: input.varint()?, seq: input.varint()? },
            origin: input.origin()?,
            first: input.stamp()?,
            last: input.stamp()?,
            clock: input.hlc()?,
            slots: input.option(|input| input.slots())?,
        })
    }

    /// Reads the header of an encoded entry, without its operations and without its checksum.
    pub fn peek(entry: &[u8]) -> Result<Header, DecodeError> {
        let mut input = Decoder::new(entry);
        input.version(ENTRY_VERSION)?;
        Header::decode(&mut input)
    }
}

impl RowOp {
    fn encode(&self, out: &mut Encoder) {
        match self {
            RowOp::Put { key, value, parts } => {
                out.put_u8(OP_PUT);
                out.put_bytes(key);
                out.put_bytes(value);
                out.put_varint(u64::from(*parts));
            }
            RowOp::Delete { key } => {
                out.put_u8(OP_DELETE);
                out.put_bytes(key);
            }
            RowOp::DeleteRange { from, to } => {
                out.put_u8(OP_DELETE_RANGE);
                out.put_bytes(from);
                out.put_bytes(to);
            }
        }
    }

    fn decode(input: &mut Decoder<'_>) -> Result<RowOp, DecodeError> {
        match input.u8()? {
            OP_PUT => Ok(RowOp::Put {
                key: input.bytes(ROW_BYTES_MAX)?,
                value: input.bytes(ROW_BYTES_MAX)?,
                parts: u16::try_from(input.varint()?)
                    .map_err(|_| input.error("a parts mask of 16 bits"))?,
            }),
            OP_DELETE => Ok(RowOp::Delete { key: input.bytes(ROW_BYTES_MAX)? }),
            OP_DELETE_RANGE => Ok(RowOp::DeleteRange {
                from: input.bytes(ROW_BYTES_MAX)?,
                to: input.bytes(ROW_BYTES_MAX)?,
            }),
            _ => Err(input.error("a row operation (1 put, 2 delete, 3 delete range)")),
        }
    }
}

impl Entry {
    /// Its bytes: version, header, operations, crc32c.
    pub fn encode(&self) -> Bytes {
        let mut out = Encoder::with_capacity(128 + self.ops.len() * 64);
        out.put_u8(ENTRY_VERSION);
        self.header.encode(&mut out);
        out.put_varint(self.ops.len() as u64);
        for op in &self.ops {
            op.encode(&mut out);
        }
        out.seal(0);
        out.into_bytes()
    }

    /// Reads an entry; rows share the given bytes. An unknown version or operation is an error, so
    /// that whoever applies or ships it stops with a reason instead of skipping it.
    pub fn decode(sealed: &Bytes) -> Result<Entry, DecodeError> {
        let body = unseal_bytes(sealed)?;
        let mut input = Decoder::shared(&body);
        input.version(ENTRY_VERSION)?;
        let header = Header::decode(&mut input)?;
        let count = input.count(ENTRY_BYTES_MAX, 2)?;
        let mut ops = Vec::with_capacity(count);
        for _ in 0..count {
            ops.push(RowOp::decode(&mut input)?);
        }
        input.finish()?;
        Ok(Entry { header, ops })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flotilla_topology::ids::{ClusterId, Incarnation};
    use flotilla_topology::slot::Slot;
    use proptest::prelude::*;

    fn entry() -> Entry {
        let stamp = |n| Stamp { hlc: Hlc(n), cluster: ClusterId(2) };
        Entry {
            header: Header {
                evaluation: Evaluation { term: 3, seq: 9 },
                origin: Origin { cluster: ClusterId(2), incarnation: Incarnation(1) },
                first: stamp(100),
                last: stamp(101),
                clock: Hlc(101),
                slots: Some(SlotRange { first: Slot(5), last: Slot(7) }),
            },
            ops: vec![
                RowOp::DeleteRange { from: Bytes::from_static(b"a"), to: Bytes::from_static(b"b") },
                RowOp::Put {
                    key: Bytes::from_static(b"k"),
                    value: Bytes::from_static(b"v"),
                    parts: 5,
                },
                RowOp::Delete { key: Bytes::from_static(b"z") },
            ],
        }
    }

    #[test]
    fn version_1_has_these_bytes() {
        let hex: String = entry().encode().iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, include_str!("entry.v1.hex").trim());
        assert_eq!(Entry::decode(&entry().encode()).unwrap(), entry());
        assert_eq!(Header::peek(&entry().encode()).unwrap(), entry().header);
    }

    #[test]
    fn every_truncation_and_every_flipped_bit_is_refused() {
        let bytes = entry().encode();
        for end in 0..bytes.len() {
            assert!(Entry::decode(&bytes.slice(..end)).is_err());
        }
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.to_vec();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Entry::decode(&bad.into()).is_err());
        }
    }

    #[test]
    fn the_fence_admits_an_unbroken_run_of_one_term_only() {
        let mut fence = Fence::default();
        fence.blank(4);
        assert!(fence.admit(4, Evaluation { term: 4, seq: 1 }));
        assert!(!fence.admit(4, Evaluation { term: 4, seq: 3 }), "2 was refused");
        assert!(!fence.admit(4, Evaluation { term: 4, seq: 1 }), "a repeat");
        assert!(!fence.admit(5, Evaluation { term: 4, seq: 2 }), "appended in a later term");
        assert!(!fence.admit(5, Evaluation { term: 5, seq: 2 }), "its blank is not applied");
        assert!(fence.admit(4, Evaluation { term: 4, seq: 2 }));
    }

    proptest! {
        #[test]
        fn garbage_is_refused_without_a_panic(bytes: Vec<u8>) {
            let _ = Entry::decode(&Bytes::from(bytes.clone()));
            let mut sealed = Encoder::from(bytes);
            sealed.seal(0);
            let _ = Entry::decode(&sealed.into_bytes());
        }
    }
}
