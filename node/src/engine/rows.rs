//! A group's rows as the evaluator and reads see them: the node's store, seen through a tablet.

use crate::engine::meta::GroupMeta;
use crate::engine::rocks::{Engine, StoredRow, TabletId};
use crate::engine::snapshot::OwnedSnapshot;
use crate::engine::view::{RowIter, Rows};
use bytes::Bytes;
use flotilla_topology::ids::GroupId;
use std::io;
use std::ops::Range;
use std::sync::Arc;

/// Bytes of the tablet number in front of each row key.
const TABLET_BYTES: usize = 4;

/// Rows as they are at the moment of each call.
pub struct TabletRows {
    engine: Arc<Engine>,
    tablet: TabletId,
}

impl TabletRows {
    /// The rows of a tablet.
    pub fn new(engine: &Arc<Engine>, tablet: TabletId) -> TabletRows {
        TabletRows { engine: engine.clone(), tablet }
    }

    fn bounds(&self, range: &Range<Bytes>) -> (Vec<u8>, Vec<u8>) {
        (self.tablet.key(&range.start), self.tablet.key(&range.end))
    }
}

fn strip(row: StoredRow) -> io::Result<(Bytes, Bytes)> {
    let (key, value) = row.map_err(io::Error::other)?;
    Ok((Bytes::from(key).slice(TABLET_BYTES..), Bytes::from(value)))
}

impl Rows for TabletRows {
    fn get(&self, key: &[u8]) -> io::Result<Option<Bytes>> {
        Ok(self.engine.get(&self.tablet.key(key))?)
    }

    fn scan<'a>(&'a self, range: Range<Bytes>, reverse: bool) -> RowIter<'a> {
        let (from, to) = self.bounds(&range);
        Box::new(self.engine.iterate(self.engine.db(), (&from, &to), reverse).map(strip))
    }
}

/// Rows as they were when it was made: reads of several rows are consistent.
pub struct FrozenRows {
    snapshot: OwnedSnapshot,
    live: TabletRows,
}

impl FrozenRows {
    /// Freezes the rows of a group together with its meta row.
    pub fn of_group(engine: &Arc<Engine>, group: GroupId) -> io::Result<(FrozenRows, GroupMeta)> {
        let snapshot = OwnedSnapshot::take(engine);
        let meta = snapshot.with_dependent(|engine, snapshot| engine.group_at(snapshot, group))?;
        let meta = meta.ok_or_else(|| io::Error::other(format!("group {group} has no state")))?;
        let live = TabletRows::new(engine, meta.tablet);
        Ok((FrozenRows { snapshot, live }, meta))
    }

    /// Freezes the rows of a tablet.
    pub fn new(engine: &Arc<Engine>, tablet: TabletId) -> FrozenRows {
        FrozenRows { snapshot: OwnedSnapshot::take(engine), live: TabletRows::new(engine, tablet) }
    }
}

impl Rows for FrozenRows {
    fn get(&self, key: &[u8]) -> io::Result<Option<Bytes>> {
        let key = self.live.tablet.key(key);
        self.snapshot
            .with_dependent(|engine, snapshot| snapshot.get_pinned_cf(engine.data(), key))
            .map(|value| value.map(|value| Bytes::copy_from_slice(&value)))
            .map_err(io::Error::other)
    }

    fn scan<'a>(&'a self, range: Range<Bytes>, reverse: bool) -> RowIter<'a> {
        let (from, to) = self.live.bounds(&range);
        self.snapshot.with_dependent(|engine, snapshot| -> RowIter<'a> {
            Box::new(engine.iterate(snapshot, (&from, &to), reverse).map(strip))
        })
    }
}
