//! The one place that turns values into durable and wire bytes, and back.
//!
//! Everything that outlives a process or leaves it (log entries, rows, effects, snapshots, Raft
//! frames, link batches) is laid out by [`Encoder`] and read by [`Decoder`]; each format begins
//! with a version byte and is described beside its type. What must always hold:
//! * A value has exactly one encoding: varints are canonical, flags are 0 or 1. So equal values
//!   have equal bytes, and replicas can be compared by digests of bytes.
//! * Reading never panics and never allocates more than the input could fill, whatever the bytes.
//! * Every length is bounded by a maximum that the reader names, before anything is taken.
//!
//! | value | bytes |
//! |---|---|
//! | `u8`, `u16`, `u32`, `u64` | fixed, big-endian, so that their order is the order of bytes |
//! | varint | LEB128, at most 10 bytes (19 for 128 bits) |
//! | signed varint | zigzag, then varint |
//! | bytes, text | varint length, then the bytes |
//! | option | 0, or 1 and the value |
//! | [`Hlc`] | 8 bytes, big-endian |
//! | [`Stamp`] | [`Hlc`], then the cluster: 9 bytes, ordered as stamps are |
//! | [`LogId`] | varint term, varint index |
//! | [`Origin`] | cluster byte, varint incarnation |
//! | [`SlotRange`] | first and last slot, 2 bytes each |
//! | seal | crc32c of what stands before it, 4 bytes, big-endian |
//!
//! [`Hlc`]: flotilla_topology::stamp::Hlc
//! [`Stamp`]: flotilla_topology::stamp::Stamp
//! [`LogId`]: flotilla_topology::ids::LogId
//! [`Origin`]: flotilla_topology::ids::Origin
//! [`SlotRange`]: flotilla_topology::slot::SlotRange

mod decode;
mod encode;
#[cfg(test)]
mod tests;

pub use decode::Decoder;
pub use encode::Encoder;

use bytes::Bytes;

/// Bytes that [`Encoder::seal`] appends.
pub const SEAL_BYTES: usize = 4;

/// The bytes are not what the reader expects there: garbage, or a format it does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected} at byte {offset}")]
pub struct DecodeError {
    /// What should have stood there.
    pub expected: &'static str,
    /// Where, from the start of the decoded slice.
    pub offset: usize,
}

/// What stands before a seal, if the seal is right.
pub fn unseal(sealed: &[u8]) -> Result<&[u8], DecodeError> {
    let offset = sealed.len().saturating_sub(SEAL_BYTES);
    let bad = |expected| DecodeError { expected, offset };
    let (body, seal) =
        sealed.split_last_chunk::<SEAL_BYTES>().ok_or(bad("a checksum of 4 bytes"))?;
    if crc32c::crc32c(body) != u32::from_be_bytes(*seal) {
        return Err(bad("the checksum of the bytes before it"));
    }
    Ok(body)
}

/// As [`unseal`], sharing the bytes instead of borrowing them.
pub fn unseal_bytes(sealed: &Bytes) -> Result<Bytes, DecodeError> {
    unseal(sealed).map(|body| sealed.slice(..body.len()))
}
