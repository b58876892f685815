//! The node's one RocksDB: rows of all groups in the family `data`, what is known of the groups
//! themselves in `meta`.
//!
//! Invariants:
//! * No WAL. The Raft log is the WAL: every batch carries the applied log id of its group, both
//!   families are flushed together (atomic flush), so whatever survives a crash is a prefix of each
//!   group's log, and the rest is applied again.
//! * A group's rows live under a *tablet* number, given out here and never reused. `meta` maps the
//!   group to its tablet, so a snapshot fills a new tablet and becomes current with one row.
//! * Every iterator has an upper bound inside its tablet.

use crate::codec::{DecodeError, Decoder, Encoder};
use crate::engine::meta::GroupMeta;
use crate::engine::row_cache::{Change, RowCache};
use crate::threads::{INLINE_BYTES_MAX, may_block, set_nice};
use bytes::Bytes;
use flotilla_topology::ids::GroupId;
use rocksdb::{
    BlockBasedIndexType, BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DB,
    DBCompressionType, Env, ErrorKind, FlushOptions, IteratorMode, Options, ReadOptions, ReadTier,
    WriteBatch, WriteOptions,
};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// Levels: level 0 is compacted at this many files, each about one write buffer, so that level 0
/// and the base level have one size and a compaction between them is balanced.
const LEVEL0_TRIGGER: u64 = 8;
/// With so many files in level 0 writes are slowed down, and with so many they wait. Files are small, and who
/// catches up writes more of them than compactions keep up with.
const LEVEL0_SLOWDOWN: i32 = 64;
const LEVEL0_STOP: i32 = 96;
/// Write buffers of the rows, at most: one that is written to, and those that wait to be flushed.
const WRITE_BUFFERS: i32 = 8;
/// One partition of a filter or an index: what a point read that misses the cache reads of it.
const PARTITION_BYTES: usize = 4096;
/// Bytes that flushes and compactions write a second at most, unless the configuration says otherwise.
pub const BACKGROUND_BYTES_PER_SECOND: u64 = 256 << 20;
/// What may be written in a second is given out in parts, one each so many microseconds: a sync of the
/// log that comes in between waits for one part at most.
const RATE_PERIOD_US: i64 = 10_000;
/// One time in so many a compaction goes before a flush.
const RATE_FAIRNESS: i32 = 10;
/// How nice a compaction is: of a processor that others want, too, it gets a tenth of what a thread that
/// serves gets, so that those who wait for an answer hardly notice it. It must not be starved: writes wait
/// for it in the end.
const COMPACTION_NICE: i32 = 10;
/// Threads for compactions. One is used: see `max_background_jobs`.
const COMPACTION_THREADS: i32 = 2;
const DATA: &str = "data";
const META: &str = "meta";
const NEXT_TABLET: &[u8] = b"\0next-tablet";

/// Where a group's rows stand in `data`; given out by this node, never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TabletId(pub u32);

impl TabletId {
    /// The key of a row in `data`.
    pub fn key(self, row_key: &[u8]) -> Vec<u8> {
        let mut key = Vec::with_capacity(4 + row_key.len());
        key.extend_from_slice(&self.0.to_be_bytes());
        key.extend_from_slice(row_key);
        key
    }

    /// All rows: from the first key to the one behind the last.
    fn bounds(self) -> (Vec<u8>, Vec<u8>) {
        (self.0.to_be_bytes().to_vec(), (self.0 + 1).to_be_bytes().to_vec())
    }
}

/// Sizes, all in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EngineConfig {
    /// Block cache.
    pub block_cache_bytes: usize,
    /// Rows that are read often.
    pub row_cache_bytes: usize,
    /// One write buffer. Small ones insert faster: the skiplist stays in the CPU's cache.
    pub write_buffer_bytes: usize,
    /// Bytes that flushes and compactions write a second at most. RocksDB goes slower by itself, down to
    /// a twentieth, as long as they keep up.
    pub background_bytes_per_second: u64,
}

impl EngineConfig {
    /// Fractions of a node's memory budget: 45 % blocks, 15 % rows, and eight write buffers of 1/64,
    /// 2 to 8 MiB each.
    pub fn for_memory(bytes: u64) -> EngineConfig {
        let percent = |part: u64| usize::try_from(bytes / 100 * part).unwrap_or(usize::MAX);
        EngineConfig {
            block_cache_bytes: percent(45),
            row_cache_bytes: percent(15),
            write_buffer_bytes: (bytes / 64).clamp(2 << 20, 8 << 20) as usize,
            background_bytes_per_second: BACKGROUND_BYTES_PER_SECOND,
        }
    }
}

/// The data store cannot be opened, or failed.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// RocksDB says so.
    #[error("data store: {0}")]
    Rocks(#[from] rocksdb::Error),
    /// A row of `meta` is not what was written.
    #[error("data store: group {group}: {source}")]
    Meta {
        /// Whose row.
        group: GroupId,
        /// What is wrong with it.
        source: DecodeError,
    },
}

impl From<EngineError> for io::Error {
    fn from(error: EngineError) -> io::Error {
        io::Error::other(error.to_string())
    }
}

/// A thread is as nice as the one that starts it, and RocksDB starts those for compactions when it is told
/// their number, if that is more than one. Once in a process; if it fails they are not nice.
fn start_compaction_threads() {
    let tell = |mut env: Env| env.set_low_priority_background_threads(COMPACTION_THREADS);
    let start = move || set_nice(COMPACTION_NICE) && Env::new().map(tell).is_ok();
    if !std::thread::spawn(start).join().unwrap_or(false) {
        tracing::debug!("compactions run at normal priority: threads for them were not started");
    }
}

/// A row with its full key, as the store gives it.
pub type StoredRow = Result<(Box<[u8]>, Box<[u8]>), rocksdb::Error>;

/// The opened data store of a node.
pub struct Engine {
    db: DB,
    rows: RowCache,
    next_tablet: AtomicU32,
}

impl Engine {
    /// Opens or creates the store in `dir` and drops tablets that no group owns (an install that a
    /// crash cut off, or a dropped group).
    pub fn open(dir: &Path, config: &EngineConfig) -> Result<Arc<Engine>, EngineError> {
        let mut options = Options::default();
        options.create_if_missing(true);
        options.create_missing_column_families(true);
        options.set_atomic_flush(true);
        options.set_max_background_jobs(2);
        options.set_allow_concurrent_memtable_write(false);
        options.set_max_open_files(4096);
        options.set_bytes_per_sync(1 << 20);
        options.set_keep_log_file_num(4);
        options.set_max_log_file_size(16 << 20);
        let rate = i64::try_from(config.background_bytes_per_second).unwrap_or(i64::MAX);
        options.set_auto_tuned_ratelimiter(rate, RATE_PERIOD_US, RATE_FAIRNESS);
        start_compaction_threads();
        let cache = Cache::new_lru_cache(config.block_cache_bytes);
        let families = [DATA, META]
            .map(|name| ColumnFamilyDescriptor::new(name, Self::family_options(config, &cache)));
        let db = DB::open_cf_descriptors(&options, dir, families)?;
        let next = db
            .get_cf(family(&db, META), NEXT_TABLET)?
            .and_then(|bytes| Some(u32::from_be_bytes(bytes.try_into().ok()?)))
            .unwrap_or(1);
        let rows = RowCache::new(config.row_cache_bytes);
        let engine = Arc::new(Engine { db, rows, next_tablet: AtomicU32::new(next) });
        engine.drop_orphans(next)?;
        Ok(engine)
    }

    /// Filters and indexes are in partitions: that of a whole file takes a mebibyte and more, and a
    /// cache that cannot hold those of all files would read and check one for each missing row
    /// (57 % of a node's CPU with 128 MiB of memory and a gibibyte of rows).
    fn family_options(config: &EngineConfig, cache: &Cache) -> Options {
        let mut table = BlockBasedOptions::default();
        table.set_block_cache(cache);
        table.set_bloom_filter(10.0, false);
        table.set_index_type(BlockBasedIndexType::TwoLevelIndexSearch);
        table.set_partition_filters(true);
        table.set_metadata_block_size(PARTITION_BYTES);
        table.set_cache_index_and_filter_blocks(true);
        table.set_pin_top_level_index_and_filter(true);
        table.set_pin_l0_filter_and_index_blocks_in_cache(true);
        let mut options = Options::default();
        options.set_block_based_table_factory(&table);
        options.set_compression_type(DBCompressionType::Lz4);
        options.set_write_buffer_size(config.write_buffer_bytes);
        options.set_max_write_buffer_number(WRITE_BUFFERS);
        options.set_level_zero_file_num_compaction_trigger(LEVEL0_TRIGGER as i32);
        options.set_level_zero_slowdown_writes_trigger(LEVEL0_SLOWDOWN);
        options.set_level_zero_stop_writes_trigger(LEVEL0_STOP);
        options.set_max_bytes_for_level_base(LEVEL0_TRIGGER * config.write_buffer_bytes as u64);
        options.set_level_compaction_dynamic_level_bytes(true);
        options
    }

    fn drop_orphans(&self, next: u32) -> Result<(), EngineError> {
        let owned: std::collections::BTreeSet<u32> =
            self.groups()?.iter().map(|(_, meta)| meta.tablet.0).collect();
        for tablet in (1..next).filter(|tablet| !owned.contains(tablet)) {
            let (from, to) = TabletId(tablet).bounds();
            let bounds = (from.as_slice(), to.as_slice());
            let present = self.iterate(&self.db, bounds, false).next().transpose()?.is_some();
            if present {
                tracing::info!(tablet, "dropping the rows of a tablet that no group owns");
                self.drop_tablet(TabletId(tablet))?;
            }
        }
        Ok(())
    }

    /// A new, empty tablet. Its number is never given out again: the counter is written before the
    /// first row can be, and both are flushed together.
    pub fn new_tablet(&self) -> Result<TabletId, EngineError> {
        let tablet = self.next_tablet.fetch_add(1, Ordering::SeqCst);
        let mut batch = WriteBatch::default();
        batch.put_cf(self.meta(), NEXT_TABLET, (tablet + 1).to_be_bytes());
        self.write(batch)?;
        Ok(TabletId(tablet))
    }

    /// Deletes all rows of a tablet.
    pub fn drop_tablet(&self, tablet: TabletId) -> Result<(), EngineError> {
        let (from, to) = tablet.bounds();
        let mut batch = WriteBatch::default();
        batch.delete_range_cf(self.data(), from, to);
        self.write(batch)
    }

    /// What is known of a group, or `None` if this node never carried it.
    pub fn group(&self, group: GroupId) -> Result<Option<GroupMeta>, EngineError> {
        let bytes = self.db.get_cf(self.meta(), group.0.to_be_bytes())?;
        bytes.map(|bytes| decode_meta(group, &bytes)).transpose()
    }

    /// What of a group survives when the process or the machine stops now: what was flushed.
    pub fn group_on_disk(&self, group: GroupId) -> Result<Option<GroupMeta>, EngineError> {
        let mut options = ReadOptions::default();
        options.set_read_tier(ReadTier::Persisted);
        let bytes = self.db.get_cf_opt(self.meta(), group.0.to_be_bytes(), &options)?;
        bytes.map(|bytes| decode_meta(group, &bytes)).transpose()
    }

    /// All groups that this node carries.
    pub fn groups(&self) -> Result<Vec<(GroupId, GroupMeta)>, EngineError> {
        let mut groups = Vec::new();
        for row in self.db.iterator_cf(self.meta(), IteratorMode::Start) {
            let (key, value) = row?;
            if let Ok(id) = <[u8; 4]>::try_from(&*key) {
                let group = GroupId(u32::from_be_bytes(id));
                groups.push((group, decode_meta(group, &value)?));
            }
        }
        Ok(groups)
    }

    /// Puts a group's meta row into a batch.
    pub fn put_group(&self, batch: &mut WriteBatch, group: GroupId, meta: &GroupMeta) {
        let mut out = Encoder::with_capacity(128);
        meta.encode(&mut out);
        out.seal(0);
        batch.put_cf(self.meta(), group.0.to_be_bytes(), out.as_slice());
    }

    /// Forgets a group and drops its rows.
    pub fn drop_group(&self, group: GroupId, tablet: TabletId) -> Result<(), EngineError> {
        let mut batch = WriteBatch::default();
        batch.delete_cf(self.meta(), group.0.to_be_bytes());
        self.write(batch)?;
        self.flush()?;
        self.drop_tablet(tablet)
    }

    /// Writes a batch that changes these rows of `data`, by their full keys and each of them once.
    pub fn write_rows(&self, batch: WriteBatch, changes: Vec<Change>) -> Result<(), EngineError> {
        self.rows.write(changes, || self.write(batch))
    }

    /// Writes a batch that deletes ranges of rows.
    pub fn write_ranges(&self, batch: WriteBatch) -> Result<(), EngineError> {
        self.rows.write_ranges(|| self.write(batch))
    }

    /// Writes a batch of rows that nobody reads at the time: of `meta`, of a tablet that is new, or of
    /// one that is given up. A small one is written on the spot, unless the store holds writes back just
    /// then: such a one, and a large one, are written while the runtime's thread is given to others
    /// (`threads::may_block`).
    pub fn write(&self, batch: WriteBatch) -> Result<(), EngineError> {
        let mut options = WriteOptions::default();
        options.disable_wal(true);
        if batch.size_in_bytes() > INLINE_BYTES_MAX {
            return Ok(may_block(|| self.db.write_opt(batch, &options))?);
        }
        options.set_no_slowdown(true);
        let copy = batch.data().to_vec();
        match self.db.write_opt(batch, &options) {
            Err(error) if error.kind() == ErrorKind::Incomplete => {
                options.set_no_slowdown(false);
                let batch = WriteBatch::from_data(&copy);
                Ok(may_block(|| self.db.write_opt(batch, &options))?)
            }
            written => Ok(written?),
        }
    }

    /// Makes everything written so far durable. Blocks until it is.
    pub fn flush(&self) -> Result<(), EngineError> {
        let mut options = FlushOptions::default();
        options.set_wait(true);
        self.db.flush_cfs_opt(&[self.data(), self.meta()], &options)?;
        Ok(())
    }

    /// The family of rows.
    pub fn data(&self) -> &ColumnFamily {
        family(&self.db, DATA)
    }

    fn meta(&self) -> &ColumnFamily {
        family(&self.db, META)
    }

    /// The underlying store, for snapshots.
    pub fn db(&self) -> &DB {
        &self.db
    }

    /// The group's meta row as of a snapshot.
    pub fn group_at(
        &self,
        snapshot: &rocksdb::Snapshot<'_>,
        group: GroupId,
    ) -> Result<Option<GroupMeta>, EngineError> {
        let bytes = snapshot.get_cf(self.meta(), group.0.to_be_bytes())?;
        bytes.map(|bytes| decode_meta(group, &bytes)).transpose()
    }

    /// One row by its full key.
    pub fn get(&self, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        if let Some(row) = self.rows.get(key) {
            return Ok(row);
        }
        let note = self.rows.note(key);
        let row = self.db.get_pinned_cf(self.data(), key)?.map(|v| Bytes::copy_from_slice(&v));
        self.rows.fill(key, row.as_ref(), note);
        Ok(row)
    }

    /// What is known of rows without reading them.
    pub fn row_cache(&self) -> &RowCache {
        &self.rows
    }

    /// Rows between two full keys, from `from` (included) to `to` (excluded), as `source` sees them.
    pub fn iterate<'a>(
        &'a self,
        source: &'a impl Iterate,
        (from, to): (&[u8], &[u8]),
        reverse: bool,
    ) -> impl Iterator<Item = StoredRow> + 'a {
        let mut options = ReadOptions::default();
        options.set_iterate_lower_bound(from);
        options.set_iterate_upper_bound(to);
        let mode = if reverse { IteratorMode::End } else { IteratorMode::Start };
        source.iterate(self.data(), options, mode)
    }

    /// A property of the store as a number, by RocksDB's name; 0 if it has none.
    pub fn property(&self, name: &str) -> u64 {
        self.db.property_int_value_cf(self.data(), name).ok().flatten().unwrap_or(0)
    }
}

/// What can be iterated: the live store or a snapshot of it.
pub trait Iterate {
    /// Rows of a family under the given bounds.
    fn iterate<'a>(
        &'a self,
        family: &'a ColumnFamily,
        options: ReadOptions,
        mode: IteratorMode<'_>,
    ) -> rocksdb::DBIteratorWithThreadMode<'a, DB>;
}

impl Iterate for DB {
    fn iterate<'a>(
        &'a self,
        family: &'a ColumnFamily,
        options: ReadOptions,
        mode: IteratorMode<'_>,
    ) -> rocksdb::DBIteratorWithThreadMode<'a, DB> {
        self.iterator_cf_opt(family, options, mode)
    }
}

impl Iterate for rocksdb::Snapshot<'_> {
    fn iterate<'a>(
        &'a self,
        family: &'a ColumnFamily,
        options: ReadOptions,
        mode: IteratorMode<'_>,
    ) -> rocksdb::DBIteratorWithThreadMode<'a, DB> {
        self.iterator_cf_opt(family, options, mode)
    }
}

fn family<'a>(db: &'a DB, name: &'static str) -> &'a ColumnFamily {
    db.cf_handle(name).expect("both families are created when the store is opened")
}

fn decode_meta(group: GroupId, bytes: &[u8]) -> Result<GroupMeta, EngineError> {
    let read = || {
        let body = crate::codec::unseal(bytes)?;
        let mut input = Decoder::new(body);
        let meta = GroupMeta::decode(&mut input)?;
        input.finish()?;
        Ok(meta)
    };
    read().map_err(|source| EngineError::Meta { group, source })
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_os = "linux")]
    use crate::threads::stat_field;
    use flotilla_topology::ids::{LogId, ReplicaId};

    #[test]
    fn on_disk_is_what_was_flushed() {
        let dir = tempfile::tempdir().unwrap();
        let engine = Engine::open(dir.path(), &EngineConfig::for_memory(64 << 20)).unwrap();
        let group = GroupId(7);
        let mut meta = GroupMeta::new(engine.new_tablet().unwrap(), ReplicaId(1));
        let mut write = |index| {
            meta.applied = LogId { term: 1, index };
            let mut batch = WriteBatch::default();
            engine.put_group(&mut batch, group, &meta);
            engine.write(batch).unwrap();
        };
        let on_disk = || engine.group_on_disk(group).unwrap().map(|meta| meta.applied.index);
        write(5);
        assert_eq!(on_disk(), None);
        engine.flush().unwrap();
        assert_eq!(on_disk(), Some(5));
        write(6);
        assert_eq!(on_disk(), Some(5));
        assert_eq!(engine.group(group).unwrap().unwrap().applied.index, 6);
        engine.flush().unwrap();
        assert_eq!(on_disk(), Some(6));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn threads_for_compactions_are_nice_and_those_for_flushes_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let engine = Engine::open(dir.path(), &EngineConfig::for_memory(64 << 20)).unwrap();
        engine.new_tablet().unwrap();
        engine.flush().unwrap();
        let mut nice = std::collections::BTreeMap::<String, i32>::new();
        for task in std::fs::read_dir("/proc/self/task").unwrap() {
            // A thread of another test may have ended meanwhile.
            let path = task.unwrap().path();
            let read = |file| std::fs::read_to_string(path.join(file));
            let (Ok(name), Ok(stat)) = (read("comm"), read("stat")) else { continue };
            nice.insert(name.trim_end().to_owned(), stat_field(&stat, 19).parse().unwrap());
        }
        assert_eq!(nice["rocksdb:low"], COMPACTION_NICE);
        assert_ne!(nice["rocksdb:high"], COMPACTION_NICE);
    }
}
