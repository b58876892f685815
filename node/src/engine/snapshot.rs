//! A group's state on its way to another replica: a consistent cut, read as one stream of bytes
//! that is cut into chunks, and the other side's new tablet that it fills.
//!
//! Stream: version, fence, clock, own stamp, then rows (key without tablet, value) in key order.
//!
//! Invariants:
//! * Data and position come from one RocksDB snapshot.
//! * A sink writes into a tablet of its own. The group's meta row points to it only after
//!   everything was flushed, and that row is flushed before `finish` returns: a crash at any point
//!   leaves the old state or the new. What an unfinished sink wrote is dropped, and so is the old tablet
//!   by whom the state belongs to, at the latest when the store is opened again.

use crate::codec::{DecodeError, Decoder, Encoder};
use crate::engine::meta::GroupMeta;
use crate::engine::rocks::{Engine, TabletId};
use crate::group::entry::{ENTRY_BYTES_MAX, Fence};
use crate::raft::{Applied, CHUNK_BYTES_MAX, SnapshotSink, SnapshotSource};
use bytes::{Bytes, BytesMut};
use flotilla_topology::ids::{GroupId, ReplicaId};
use flotilla_topology::stamp::{Hlc, Stamp};
use rocksdb::{Snapshot, WriteBatch};
use std::io;
use std::sync::Arc;

const STREAM_VERSION: u8 = 1;
/// Rows are written in batches of about this many bytes.
const SINK_BATCH_BYTES: usize = 1 << 20;

self_cell::self_cell!(
    /// A RocksDB snapshot together with the store that it belongs to.
    pub struct OwnedSnapshot {
        owner: Arc<Engine>,
        #[not_covariant]
        dependent: Snapshot,
    }
);

impl OwnedSnapshot {
    /// The state of all groups as of now.
    pub fn take(engine: &Arc<Engine>) -> OwnedSnapshot {
        OwnedSnapshot::new(engine.clone(), |engine| engine.db().snapshot())
    }
}

/// Reads the rows of one group out of a cut.
pub struct RowStream {
    snapshot: OwnedSnapshot,
    tablet: TabletId,
    /// Full key of the last row that was read.
    after: Option<Vec<u8>>,
    ended: bool,
    pending: Encoder,
}

impl RowStream {
    /// A cut of a group, and its meta row as of that cut. `None` if the group has no state.
    pub fn cut(engine: &Arc<Engine>, group: GroupId) -> io::Result<Option<(GroupMeta, RowStream)>> {
        let snapshot = OwnedSnapshot::take(engine);
        let meta = snapshot.with_dependent(|engine, snapshot| engine.group_at(snapshot, group))?;
        let Some(meta) = meta else { return Ok(None) };
        let mut pending = Encoder::new();
        pending.put_u8(STREAM_VERSION);
        meta.fence.encode(&mut pending);
        pending.put_hlc(meta.clock);
        pending.put_stamp(meta.own);
        let stream =
            RowStream { snapshot, tablet: meta.tablet, after: None, ended: false, pending };
        Ok(Some((meta, stream)))
    }

    /// Reads rows until a chunk is full.
    fn fill(&mut self) -> io::Result<()> {
        let from = match &self.after {
            Some(key) => [key.as_slice(), &[0]].concat(),
            None => self.tablet.0.to_be_bytes().to_vec(),
        };
        let to = (self.tablet.0 + 1).to_be_bytes();
        let (pending, after) = (&mut self.pending, &mut self.after);
        self.ended = self.snapshot.with_dependent(|engine, snapshot| {
            for row in engine.iterate(snapshot, (&from, &to), false) {
                let (key, value) = row.map_err(io::Error::other)?;
                pending.put_bytes(&key[4..]);
                pending.put_bytes(&value);
                if pending.len() >= CHUNK_BYTES_MAX {
                    *after = Some(key.into_vec());
                    return Ok::<_, io::Error>(false);
                }
            }
            Ok(true)
        })?;
        Ok(())
    }
}

impl SnapshotSource for RowStream {
    fn next_chunk(&mut self) -> io::Result<Option<Bytes>> {
        if self.pending.len() < CHUNK_BYTES_MAX && !self.ended {
            self.fill()?;
        }
        if self.pending.is_empty() {
            return Ok(None);
        }
        // One row may be larger than a chunk: the stream is cut anywhere.
        let mut bytes = std::mem::take(&mut self.pending).into_vec();
        let rest = bytes.split_off(bytes.len().min(CHUNK_BYTES_MAX));
        self.pending = Encoder::from(rest);
        Ok(Some(bytes.into()))
    }
}

/// Fills a new tablet from a stream.
pub struct TabletSink {
    engine: Arc<Engine>,
    group: GroupId,
    replica: ReplicaId,
    tablet: Option<TabletId>,
    header: Option<(Fence, Hlc, Stamp)>,
    buffer: BytesMut,
}

impl TabletSink {
    /// A new tablet for a snapshot of `group`, carried here as `replica`.
    pub fn open(
        engine: &Arc<Engine>,
        group: GroupId,
        replica: ReplicaId,
    ) -> io::Result<TabletSink> {
        Ok(TabletSink {
            engine: engine.clone(),
            group,
            replica,
            tablet: Some(engine.new_tablet()?),
            header: None,
            buffer: BytesMut::new(),
        })
    }

    /// Takes whole records out of the buffer; what is cut off at its end stays for the next chunk.
    fn drain(&mut self) -> io::Result<()> {
        let tablet = self.tablet.expect("a sink has its tablet until it is finished");
        let all = self.buffer.split().freeze();
        let mut input = Decoder::shared(&all);
        let mut taken = 0;
        if self.header.is_none() {
            let mut read = || {
                input.version(STREAM_VERSION)?;
                let fence = Fence::decode(&mut input)?;
                Ok::<_, DecodeError>((fence, input.hlc()?, input.stamp()?))
            };
            match read() {
                Ok(header) => self.header = Some(header),
                // The header is a few bytes: with that much here, it is not cut off but wrong.
                Err(error) if all.len() >= 64 => return Err(io::Error::other(error)),
                Err(_) => {
                    self.buffer.extend_from_slice(&all);
                    return Ok(());
                }
            }
            taken = input.offset();
        }
        let mut batch = WriteBatch::default();
        while let (Ok(key), Ok(value)) =
            (input.bytes(ENTRY_BYTES_MAX), input.bytes(ENTRY_BYTES_MAX))
        {
            batch.put_cf(self.engine.data(), tablet.key(&key), &value);
            taken = input.offset();
            if batch.size_in_bytes() >= SINK_BATCH_BYTES {
                self.engine.write(std::mem::take(&mut batch))?;
            }
        }
        self.engine.write(batch)?;
        let rest = &all[taken..];
        if rest.len() > 2 * ENTRY_BYTES_MAX {
            return Err(io::Error::other("snapshot: a row is larger than any row can be"));
        }
        self.buffer.extend_from_slice(rest);
        Ok(())
    }
}

impl SnapshotSink for TabletSink {
    fn write_chunk(&mut self, chunk: Bytes) -> io::Result<()> {
        self.buffer.extend_from_slice(&chunk);
        self.drain()
    }

    fn finish(mut self: Box<Self>, applied: &Applied) -> io::Result<()> {
        let Some((fence, clock, own)) = self.header else {
            return Err(io::Error::other("snapshot: it ended before its header"));
        };
        if !self.buffer.is_empty() {
            return Err(io::Error::other("snapshot: it ended inside a row"));
        }
        self.engine.flush()?;
        let tablet = self.tablet.take().expect("finish is called once");
        let meta = GroupMeta {
            tablet,
            replica: self.replica,
            applied: applied.log_id,
            membership: applied.membership.clone(),
            fence,
            clock,
            own,
        };
        let mut batch = WriteBatch::default();
        self.engine.put_group(&mut batch, self.group, &meta);
        self.engine.write(batch)?;
        self.engine.flush()?;
        Ok(())
    }
}

impl Drop for TabletSink {
    fn drop(&mut self) {
        if let Some(tablet) = self.tablet.take()
            && let Err(error) = self.engine.drop_tablet(tablet)
        {
            tracing::warn!(%error, "rows of an aborted snapshot stay until the next start");
        }
    }
}
