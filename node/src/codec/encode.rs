//! The writing half: see the table in [`crate::codec`].

use bytes::Bytes;
use flotilla_topology::ids::{ClusterId, Epoch, GroupId, LogId, NamespaceId, Origin, ReplicaId};
use flotilla_topology::slot::{Slot, SlotRange};
use flotilla_topology::stamp::{Hlc, Stamp};

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

    /// Appends the crc32c of everything from byte `start` on; [`unseal`](super::unseal) checks and removes it.
    ///
    /// # Panics
    /// If `start` lies behind the end.
    pub fn seal(&mut self, start: usize) {
        let crc = crc32c::crc32c(&self.bytes[start..]);
        self.put_u32(crc);
    }
}
