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

use bytes::Bytes;
use flotilla_topology::ids::{ClusterId, Epoch, GroupId, Incarnation, LogId, NamespaceId};
use flotilla_topology::ids::{Origin, ReplicaId};
use flotilla_topology::slot::{SLOT_COUNT, Slot, SlotRange};
use flotilla_topology::stamp::{Hlc, Stamp};

#[cfg(test)]
mod tests;

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

/// Appends values to a growing buffer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Encoder {
    bytes: Vec<u8>,
}

impl From<Vec<u8>> for Encoder {
    /// Goes on behind what `bytes` holds already.
    fn from(bytes: Vec<u8>) -> Encoder {
        Encoder { bytes }
    }
}

impl Encoder {
    /// An empty buffer.
    pub fn new() -> Encoder {
        Encoder::default()
    }

    /// An empty buffer with room for `bytes`.
    pub fn with_capacity(bytes: usize) -> Encoder {
        Encoder { bytes: Vec::with_capacity(bytes) }
    }

    /// Bytes written so far.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Forgets what was written and keeps the room.
    pub fn clear(&mut self) {
        self.bytes.clear();
    }

    /// What was written.
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes
    }

    /// What was written, as a vector.
    pub fn into_vec(self) -> Vec<u8> {
        self.bytes
    }

    /// What was written, shareable, without a copy.
    pub fn into_bytes(self) -> Bytes {
        Bytes::from(self.bytes)
    }

    /// A byte.
    pub fn put_u8(&mut self, value: u8) {
        self.bytes.push(value);
    }

    /// Two bytes, big-endian.
    pub fn put_u16(&mut self, value: u16) {
        self.put_raw(&value.to_be_bytes());
    }

    /// Four bytes, big-endian.
    pub fn put_u32(&mut self, value: u32) {
        self.put_raw(&value.to_be_bytes());
    }

    /// Eight bytes, big-endian.
    pub fn put_u64(&mut self, value: u64) {
        self.put_raw(&value.to_be_bytes());
    }

    /// The bits of a float, big-endian; NaNs keep theirs.
    pub fn put_f64(&mut self, value: f64) {
        self.put_u64(value.to_bits());
    }

    /// 0 or 1.
    pub fn put_bool(&mut self, value: bool) {
        self.put_u8(u8::from(value));
    }

    /// A number that is small most of the time.
    pub fn put_varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.bytes.push(value as u8);
    }

    /// As [`Encoder::put_varint`], of 128 bits.
    pub fn put_varint128(&mut self, mut value: u128) {
        while value >= 0x80 {
            self.bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.bytes.push(value as u8);
    }

    /// A signed number that is near 0 most of the time.
    pub fn put_signed(&mut self, value: i64) {
        self.put_varint((value << 1 ^ value >> 63) as u64);
    }

    /// As [`Encoder::put_signed`], of 128 bits: sums of counters.
    pub fn put_signed128(&mut self, value: i128) {
        self.put_varint128((value << 1 ^ value >> 127) as u128);
    }

    /// Bytes without a length; the reader must know where they end.
    pub fn put_raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Bytes behind their length.
    pub fn put_bytes(&mut self, bytes: &[u8]) {
        self.put_varint(bytes.len() as u64);
        self.put_raw(bytes);
    }

    /// Text behind its length.
    pub fn put_text(&mut self, text: &str) {
        self.put_bytes(text.as_bytes());
    }

    /// A flag, and the value if there is one.
    pub fn put_option<T>(&mut self, value: Option<T>, put: impl FnOnce(&mut Encoder, T)) {
        self.put_bool(value.is_some());
        if let Some(value) = value {
            put(self, value);
        }
    }

    /// A clock reading.
    pub fn put_hlc(&mut self, hlc: Hlc) {
        self.put_u64(hlc.0);
    }

    /// A stamp.
    pub fn put_stamp(&mut self, stamp: Stamp) {
        self.put_hlc(stamp.hlc);
        self.put_cluster(stamp.cluster);
    }

    /// A position in a Raft log.
    pub fn put_log_id(&mut self, log_id: LogId) {
        self.put_varint(log_id.term);
        self.put_varint(log_id.index);
    }

    /// A cluster in one of its lives.
    pub fn put_origin(&mut self, origin: Origin) {
        self.put_cluster(origin.cluster);
        self.put_varint(u64::from(origin.incarnation.0));
    }

    /// A cluster.
    pub fn put_cluster(&mut self, cluster: ClusterId) {
        self.put_u8(cluster.0);
    }

    /// A group.
    pub fn put_group(&mut self, group: GroupId) {
        self.put_varint(u64::from(group.0));
    }

    /// A namespace.
    pub fn put_namespace(&mut self, namespace: NamespaceId) {
        self.put_varint(u64::from(namespace.0));
    }

    /// A replica's tenure.
    pub fn put_replica(&mut self, replica: ReplicaId) {
        self.put_varint(replica.0);
    }

    /// A version of a partition map.
    pub fn put_epoch(&mut self, epoch: Epoch) {
        self.put_varint(epoch.0);
    }

    /// A slot.
    pub fn put_slot(&mut self, slot: Slot) {
        self.put_u16(slot.0);
    }

    /// A range of slots.
    pub fn put_slots(&mut self, slots: SlotRange) {
        self.put_slot(slots.first);
        self.put_slot(slots.last);
    }

    /// Appends the crc32c of everything from byte `start` on; [`unseal`] checks and removes it.
    ///
    /// # Panics
    /// If `start` lies behind the end.
    pub fn seal(&mut self, start: usize) {
        let crc = crc32c::crc32c(&self.bytes[start..]);
        self.put_u32(crc);
    }
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

/// Takes values from the front of a slice. After an error its position has no meaning.
#[derive(Debug, Clone)]
pub struct Decoder<'a> {
    all: &'a [u8],
    shared: Option<&'a Bytes>,
    at: usize,
}

type Decoded<T> = Result<T, DecodeError>;

impl<'a> Decoder<'a> {
    /// Over borrowed bytes: [`Decoder::bytes`] copies.
    pub fn new(all: &'a [u8]) -> Decoder<'a> {
        Decoder { all, shared: None, at: 0 }
    }

    /// Over shared bytes: [`Decoder::bytes`] shares them.
    pub fn shared(all: &'a Bytes) -> Decoder<'a> {
        Decoder { all, shared: Some(all), at: 0 }
    }

    /// Bytes read so far.
    pub fn offset(&self) -> usize {
        self.at
    }

    /// Bytes not read yet.
    pub fn remaining(&self) -> usize {
        self.all.len() - self.at
    }

    /// Whether everything was read.
    pub fn is_empty(&self) -> bool {
        self.remaining() == 0
    }

    /// An error at the current position, for checks that only the caller can make.
    pub fn error(&self, expected: &'static str) -> DecodeError {
        DecodeError { expected, offset: self.at }
    }

    /// Nothing may be left: bytes that nobody reads mean that the format is not the one we know.
    pub fn finish(self) -> Decoded<()> {
        if self.is_empty() { Ok(()) } else { Err(self.error("the end")) }
    }

    /// A version byte between 1 and `newest`.
    pub fn version(&mut self, newest: u8) -> Decoded<u8> {
        let offset = self.at;
        let expected = "a format version that this release knows";
        match self.u8()? {
            version if (1..=newest).contains(&version) => Ok(version),
            _ => Err(DecodeError { expected, offset }),
        }
    }

    /// Exactly `len` bytes that carry no length of their own.
    pub fn raw(&mut self, len: usize, expected: &'static str) -> Decoded<&'a [u8]> {
        let taken = self.all[self.at..].get(..len).ok_or(self.error(expected))?;
        self.at += len;
        Ok(taken)
    }

    /// All bytes that are left.
    pub fn rest(&mut self) -> &'a [u8] {
        let rest = &self.all[self.at..];
        self.at = self.all.len();
        rest
    }

    /// All bytes that are left, shared where possible.
    pub fn rest_bytes(&mut self) -> Bytes {
        let rest = self.rest();
        self.share(rest)
    }

    fn share(&self, part: &'a [u8]) -> Bytes {
        match self.shared {
            Some(all) => all.slice_ref(part),
            None => Bytes::copy_from_slice(part),
        }
    }

    fn array<const N: usize>(&mut self, expected: &'static str) -> Decoded<[u8; N]> {
        let chunk = self.all[self.at..].first_chunk::<N>().ok_or(self.error(expected))?;
        self.at += N;
        Ok(*chunk)
    }

    /// A byte.
    pub fn u8(&mut self) -> Decoded<u8> {
        Ok(self.array::<1>("a byte")?[0])
    }

    /// Two bytes, big-endian.
    pub fn u16(&mut self) -> Decoded<u16> {
        self.array("2 bytes").map(u16::from_be_bytes)
    }

    /// Four bytes, big-endian.
    pub fn u32(&mut self) -> Decoded<u32> {
        self.array("4 bytes").map(u32::from_be_bytes)
    }

    /// Eight bytes, big-endian.
    pub fn u64(&mut self) -> Decoded<u64> {
        self.array("8 bytes").map(u64::from_be_bytes)
    }

    /// The bits of a float.
    pub fn f64(&mut self) -> Decoded<f64> {
        self.u64().map(f64::from_bits)
    }

    /// 0 or 1.
    pub fn bool(&mut self) -> Decoded<bool> {
        let error = self.error("a flag, 0 or 1");
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(error),
        }
    }

    /// A canonical varint of 64 bits.
    pub fn varint(&mut self) -> Decoded<u64> {
        let error = self.error("a varint of 64 bits");
        let wide = self.varint_of(10, error)?;
        u64::try_from(wide).map_err(|_| error)
    }

    /// A canonical varint of 128 bits.
    pub fn varint128(&mut self) -> Decoded<u128> {
        let error = self.error("a varint of 128 bits");
        self.varint_of(19, error)
    }

    fn varint_of(&mut self, bytes_max: usize, error: DecodeError) -> Decoded<u128> {
        let mut value = 0u128;
        for place in 0..bytes_max {
            let byte = *self.all.get(self.at).ok_or(error)?;
            self.at += 1;
            let bits = u128::from(byte & 0x7F);
            let shifted = bits << (7 * place);
            if shifted >> (7 * place) != bits {
                return Err(error); // more than 128 bits
            }
            value |= shifted;
            if byte & 0x80 == 0 {
                // A last byte of 0 would be a second way to write the same number.
                return if byte == 0 && place > 0 { Err(error) } else { Ok(value) };
            }
        }
        Err(error)
    }

    /// A canonical varint of 32 bits.
    pub fn varint32(&mut self) -> Decoded<u32> {
        let error = self.error("a varint of 32 bits");
        u32::try_from(self.varint()?).map_err(|_| error)
    }

    /// A signed varint of 64 bits.
    pub fn signed(&mut self) -> Decoded<i64> {
        let zigzag = self.varint()?;
        Ok((zigzag >> 1) as i64 ^ -((zigzag & 1) as i64))
    }

    /// A signed varint of 128 bits.
    pub fn signed128(&mut self) -> Decoded<i128> {
        let zigzag = self.varint128()?;
        Ok((zigzag >> 1) as i128 ^ -((zigzag & 1) as i128))
    }

    /// How many items follow: at most `max`, and no more than the rest could hold at
    /// `item_bytes_min` each, so that the caller may reserve room for all of them.
    pub fn count(&mut self, max: usize, item_bytes_min: usize) -> Decoded<usize> {
        let error = self.error("a count within its limit");
        let count = usize::try_from(self.varint()?).map_err(|_| error)?;
        let fits = count.checked_mul(item_bytes_min).is_some_and(|b| b <= self.remaining());
        if count <= max && fits { Ok(count) } else { Err(error) }
    }

    /// At most `max` bytes behind their length, borrowed.
    pub fn slice(&mut self, max: usize) -> Decoded<&'a [u8]> {
        let error = self.error("bytes behind a length within its limit");
        let len = usize::try_from(self.varint()?).map_err(|_| error)?;
        if len > max || len > self.remaining() {
            return Err(error);
        }
        self.raw(len, error.expected)
    }

    /// As [`Decoder::slice`], shared where possible.
    pub fn bytes(&mut self, max: usize) -> Decoded<Bytes> {
        let part = self.slice(max)?;
        Ok(self.share(part))
    }

    /// UTF-8 of at most `max` bytes behind its length.
    pub fn text(&mut self, max: usize) -> Decoded<&'a str> {
        let error = self.error("UTF-8 behind a length within its limit");
        std::str::from_utf8(self.slice(max)?).map_err(|_| error)
    }

    /// A flag, and the value if there is one.
    pub fn option<T>(
        &mut self,
        take: impl FnOnce(&mut Decoder<'a>) -> Decoded<T>,
    ) -> Decoded<Option<T>> {
        if self.bool()? { take(self).map(Some) } else { Ok(None) }
    }

    /// A clock reading.
    pub fn hlc(&mut self) -> Decoded<Hlc> {
        self.u64().map(Hlc)
    }

    /// A stamp.
    pub fn stamp(&mut self) -> Decoded<Stamp> {
        Ok(Stamp { hlc: self.hlc()?, cluster: self.cluster()? })
    }

    /// A position in a Raft log.
    pub fn log_id(&mut self) -> Decoded<LogId> {
        Ok(LogId { term: self.varint()?, index: self.varint()? })
    }

    /// A cluster in one of its lives.
    pub fn origin(&mut self) -> Decoded<Origin> {
        Ok(Origin { cluster: self.cluster()?, incarnation: Incarnation(self.varint32()?) })
    }

    /// A cluster.
    pub fn cluster(&mut self) -> Decoded<ClusterId> {
        self.u8().map(ClusterId)
    }

    /// A group.
    pub fn group(&mut self) -> Decoded<GroupId> {
        self.varint32().map(GroupId)
    }

    /// A namespace.
    pub fn namespace(&mut self) -> Decoded<NamespaceId> {
        self.varint32().map(NamespaceId)
    }

    /// A replica's tenure.
    pub fn replica(&mut self) -> Decoded<ReplicaId> {
        self.varint().map(ReplicaId)
    }

    /// A version of a partition map.
    pub fn epoch(&mut self) -> Decoded<Epoch> {
        self.varint().map(Epoch)
    }

    /// A slot below [`SLOT_COUNT`].
    pub fn slot(&mut self) -> Decoded<Slot> {
        let error = self.error("a slot below 16384");
        let slot = self.u16()?;
        if slot < SLOT_COUNT { Ok(Slot(slot)) } else { Err(error) }
    }

    /// A range of slots that holds at least one.
    pub fn slots(&mut self) -> Decoded<SlotRange> {
        let error = self.error("a slot range whose first is not behind its last");
        let (first, last) = (self.slot()?, self.slot()?);
        if first <= last { Ok(SlotRange { first, last }) } else { Err(error) }
    }
}
