//! The store of a lone PD: a RocksDB of its own, every commit synced before it is answered.
//!
//! One process at a time opens the directory (RocksDB's lock), so its reign never ends.

use super::{Reign, Store, StoreError};
use crate::state::durable::{Change, Records};
use futures::FutureExt;
use futures::future::BoxFuture;
use rocksdb::{DB, IteratorMode, Options, WriteBatch, WriteOptions};
use std::path::Path;
use std::sync::Arc;

/// The records of the largest cluster are about one megabyte.
const WRITE_BUFFER_BYTES: usize = 4 << 20;

/// Information logs of RocksDB that are kept.
const INFO_LOGS_MAX: usize = 2;

/// See the module.
#[derive(Debug)]
pub struct EmbeddedStore {
    db: Arc<DB>,
}

impl EmbeddedStore {
    /// Opens or creates the store in `dir`.
    pub fn open(dir: &Path) -> Result<EmbeddedStore, StoreError> {
        let mut options = Options::default();
        options.create_if_missing(true);
        options.set_write_buffer_size(WRITE_BUFFER_BYTES);
        options.set_keep_log_file_num(INFO_LOGS_MAX);
        let db = DB::open(&options, dir).map_err(|error| {
            StoreError::Broken(format!(
                "cannot open the store in {} ({error}): stop the other PD that uses it, or correct \
                 `dir`",
                dir.display()
            ))
        })?;
        Ok(EmbeddedStore { db: Arc::new(db) })
    }

    /// RocksDB blocks, and a sync may take long: never on a thread of the runtime.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&DB) -> Result<T, rocksdb::Error> + Send + 'static,
    ) -> Result<T, StoreError> {
        let db = Arc::clone(&self.db);
        match tokio::task::spawn_blocking(move || work(&db)).await {
            Ok(Ok(value)) => Ok(value),
            // A failed sync is not tried again: what the disk holds afterwards is unknown.
            Ok(Err(error)) => Err(StoreError::Broken(format!("PD's store failed: {error}"))),
            Err(error) => Err(StoreError::Broken(format!("PD's store failed: {error}"))),
        }
    }
}

impl Store for EmbeddedStore {
    fn campaign(&self) -> BoxFuture<'_, Result<Reign, StoreError>> {
        async { Ok(Reign::new(0, 0)) }.boxed()
    }

    fn load<'a>(&'a self, _: &'a Reign) -> BoxFuture<'a, Result<Records, StoreError>> {
        let work = |db: &DB| {
            let mut records = Records::new();
            for row in db.iterator(IteratorMode::Start) {
                let (key, value) = row?;
                records.insert(String::from_utf8_lossy(&key).into_owned(), value.into_vec());
            }
            Ok(records)
        };
        self.blocking(work).boxed()
    }

    fn commit<'a>(
        &'a self,
        _: &'a Reign,
        changes: Vec<Change>,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        let work = move |db: &DB| {
            let mut batch = WriteBatch::default();
            for change in changes {
                match change.value {
                    Some(value) => batch.put(change.key, value),
                    None => batch.delete(change.key),
                }
            }
            let mut options = WriteOptions::default();
            options.set_sync(true);
            db.write_opt(batch, &options)
        };
        self.blocking(work).boxed()
    }

    fn resign(&self, _: Reign) -> BoxFuture<'_, ()> {
        async {}.boxed()
    }

    fn leader(&self) -> Option<String> {
        None
    }
}
