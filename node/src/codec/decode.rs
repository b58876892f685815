//! The reading half: see the table in [`crate::codec`]. Nothing here panics, whatever the bytes.

use super::DecodeError;
use bytes::Bytes;
use flotilla_topology::ids::{ClusterId, Epoch, GroupId, Incarnation, LogId, NamespaceId};
use flotilla_topology::ids::{Origin, ReplicaId};
use flotilla_topology::slot::{SLOT_COUNT, Slot, SlotRange};
use flotilla_topology::stamp::{Hlc, Stamp};

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
