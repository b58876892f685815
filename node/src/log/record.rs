//! One entry of a log, and its durable form.
//!
//! Format, version 1: version byte, kind byte, term (varint), index (varint), payload (to the end),
//! crc32c of all of it. The index stands in it so that an entry found in the wrong place is noticed.
//!
//! `Stored` carries a record through the log engine's interface, which speaks protobuf: a length
//! and the bytes above, no protobuf fields.

use crate::codec::{DecodeError, Decoder, Encoder, SEAL_BYTES, unseal_bytes};
use bytes::Bytes;
use flotilla_topology::ids::LogId;
use protobuf::{
    Clear, CodedInputStream, CodedOutputStream, Message, ProtobufError, ProtobufResult,
    UnknownFields,
};
use std::any::Any;
use std::io;
use std::sync::OnceLock;

const VERSION: u8 = 1;

/// Why bytes are not a record.
pub type RecordError = DecodeError;

/// What kind of payload an entry carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RecordKind {
    /// The first entry of a term; no payload.
    #[default]
    Blank,
    /// A proposal.
    Normal,
    /// A change of members.
    Membership,
}

impl RecordKind {
    /// Its number in durable and wire bytes.
    pub fn to_byte(self) -> u8 {
        match self {
            RecordKind::Blank => 0,
            RecordKind::Normal => 1,
            RecordKind::Membership => 2,
        }
    }

    /// The kind with that number.
    pub fn from_byte(byte: u8) -> Option<RecordKind> {
        match byte {
            0 => Some(RecordKind::Blank),
            1 => Some(RecordKind::Normal),
            2 => Some(RecordKind::Membership),
            _ => None,
        }
    }
}

/// One entry of a log.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Record {
    /// Its position.
    pub id: LogId,
    /// What the payload is.
    pub kind: RecordKind,
    /// The payload.
    pub payload: Bytes,
}

impl Record {
    /// What surrounds a payload counts as so many bytes.
    pub const OVERHEAD: usize = 64;

    /// What it counts for in limits: the payload and what surrounds it.
    pub fn bytes(&self) -> usize {
        self.payload.len() + Record::OVERHEAD
    }

    fn header(&self) -> Encoder {
        let mut header = Encoder::with_capacity(22);
        header.put_u8(VERSION);
        header.put_u8(self.kind.to_byte());
        header.put_log_id(self.id);
        header
    }

    /// Its durable form.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = self.header();
        out.put_raw(&self.payload);
        out.seal(0);
        out.into_vec()
    }

    /// Reads the durable form; the payload shares the bytes.
    pub fn decode(bytes: &Bytes) -> Result<Record, RecordError> {
        let body = unseal_bytes(bytes)?;
        let mut input = Decoder::shared(&body);
        input.version(VERSION)?;
        let bad_kind = input.error("the kind of an entry, 0 to 2");
        let kind = RecordKind::from_byte(input.u8()?).ok_or(bad_kind)?;
        let id = input.log_id()?;
        Ok(Record { id, kind, payload: input.rest_bytes() })
    }
}

/// A record in the hands of the log engine.
#[derive(Debug, Clone, Default)]
pub(super) struct Stored {
    pub(super) record: Record,
    unknown: UnknownFields,
}

impl From<Record> for Stored {
    fn from(record: Record) -> Stored {
        Stored { record, unknown: UnknownFields::default() }
    }
}

impl PartialEq for Stored {
    fn eq(&self, other: &Stored) -> bool {
        self.record == other.record
    }
}

/// Tells the log engine where to find an entry's index.
pub(super) struct StoredIndex;

impl raft_engine::MessageExt for StoredIndex {
    type Entry = Stored;

    fn index(entry: &Stored) -> u64 {
        entry.record.id.index
    }
}

impl Clear for Stored {
    fn clear(&mut self) {
        *self = Stored::default();
    }
}

impl Message for Stored {
    fn descriptor(&self) -> &'static protobuf::reflect::MessageDescriptor {
        // Asked for only to name a message that lacks fields, which this one cannot.
        Self::descriptor_static()
    }

    fn is_initialized(&self) -> bool {
        true
    }

    fn merge_from(&mut self, input: &mut CodedInputStream<'_>) -> ProtobufResult<()> {
        let bytes = Bytes::from(input.read_bytes()?);
        self.record = Record::decode(&bytes).map_err(|error| {
            ProtobufError::IoError(io::Error::new(io::ErrorKind::InvalidData, error))
        })?;
        Ok(())
    }

    fn write_to_with_cached_sizes(&self, out: &mut CodedOutputStream<'_>) -> ProtobufResult<()> {
        // In pieces, so that the payload is copied once: into the engine's write buffer.
        let header = self.record.header();
        let crc = crc32c::crc32c_append(crc32c::crc32c(header.as_slice()), &self.record.payload);
        let len = header.len() + self.record.payload.len() + SEAL_BYTES;
        let len = u32::try_from(len).map_err(|_| {
            ProtobufError::IoError(io::Error::other("a log entry of more than 4 GiB"))
        })?;
        out.write_raw_varint32(len)?;
        out.write_raw_bytes(header.as_slice())?;
        out.write_raw_bytes(&self.record.payload)?;
        out.write_raw_bytes(&crc.to_be_bytes())
    }

    fn compute_size(&self) -> u32 {
        // Only reserves room; `write_to_with_cached_sizes` refuses what does not fit.
        u32::try_from(self.record.bytes()).unwrap_or(u32::MAX)
    }

    fn get_cached_size(&self) -> u32 {
        self.compute_size()
    }

    fn get_unknown_fields(&self) -> &UnknownFields {
        &self.unknown
    }

    fn mut_unknown_fields(&mut self) -> &mut UnknownFields {
        &mut self.unknown
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn new() -> Stored {
        Stored::default()
    }

    fn default_instance() -> &'static Stored {
        static DEFAULT: OnceLock<Stored> = OnceLock::new();
        DEFAULT.get_or_init(Stored::default)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        Record {
            id: LogId { term: 3, index: 300 },
            kind: RecordKind::Normal,
            payload: Bytes::from_static(b"rows"),
        }
    }

    #[test]
    fn golden_bytes_of_version_1() {
        let hex: String = record().encode().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(&hex[..hex.len() - 8], "010103ac02726f7773");
        assert_eq!(Record::decode(&Bytes::from(record().encode())).unwrap(), record());
    }

    #[test]
    fn damage_and_truncation_are_noticed() {
        let bytes = record().encode();
        for len in 0..bytes.len() {
            assert!(Record::decode(&Bytes::copy_from_slice(&bytes[..len])).is_err(), "{len}");
        }
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 0x10;
            assert!(Record::decode(&Bytes::from(bad)).is_err(), "byte {at}");
        }
    }

    #[test]
    fn the_engines_form_is_a_length_and_ours() {
        let stored = Stored::from(record());
        let mut bytes = Vec::new();
        stored.write_to_vec(&mut bytes).unwrap();
        assert_eq!(bytes[0] as usize, bytes.len() - 1);
        assert_eq!(bytes[1..], record().encode());
        let back: Stored = Stored::parse_from_bytes(&bytes).unwrap();
        assert_eq!(back, stored);
        bytes[5] ^= 1;
        assert!(Stored::parse_from_bytes(&bytes).is_err());
    }
}
