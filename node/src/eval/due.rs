//! Deleting what has ended, where nothing is synced.
//!
//! A key that has ended is invisible at once; this gives its room back, through the log, so that
//! replicas stay equal. In a synced namespace lapsed rows stay until every cluster has seen them
//! lapse.

use super::txn::{Txn, corrupt};
use crate::engine::keys::{self, RowKey};
use bytes::Bytes;
use std::io;

/// What one call did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DueOutcome {
    /// Keys deleted.
    pub deleted: usize,
    /// Whether more may have ended than the limit allowed to delete.
    pub more: bool,
}

/// Deletes at most `limit` keys that ended up to the transaction's time.
///
/// # Panics
/// In a synced namespace.
pub fn expire_due(txn: &mut Txn<'_>, limit: usize) -> io::Result<DueOutcome> {
    assert!(!txn.is_synced(), "a synced key that has ended is collected, not deleted");
    let range = keys::expiries_until(txn.context.now_ms);
    let due: Vec<(Bytes, Bytes)> =
        txn.view.scan(range, false).take(limit).collect::<Result<_, _>>()?;
    let more = due.len() == limit;
    let mut deleted = 0;
    for (row, _) in due {
        let RowKey::Expiry { at, slot, key } = keys::decode(&row).map_err(corrupt)? else {
            continue;
        };
        let key = txn.load_unseen(slot, &key)?;
        if key.head.expiry.is_some_and(|expiry| expiry.at == at) {
            txn.delete(key);
            deleted += 1;
        } else {
            // No head says so; an index row alone must not stay in front of the others for ever.
            txn.drop_row(row);
        }
    }
    Ok(DueOutcome { deleted, more })
}
