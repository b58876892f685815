//! Where PD's records are kept, and who may write them.
//!
//! A store is written by one PD at a time, within its *reign*: from a won [`Store::campaign`] until
//! the reign's token is cancelled or a commit says otherwise. Every commit is one transaction that
//! the store refuses when the reign has ended, so a PD that has not noticed yet changes nothing.

use crate::state::durable::{Change, Records};
use futures::future::BoxFuture;
use tokio_util::sync::{CancellationToken, DropGuard};

pub mod embedded;

pub mod etcd;

/// What went wrong, by what to do next.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Nothing was written, another PD leads: campaign again.
    #[error("another PD leads")]
    Deposed,
    /// The outcome is unknown or the store cannot be reached: end the reign, campaign and load.
    #[error("the store does not answer: {0}")]
    Unavailable(String),
    /// The disk failed or the store cannot be used at all: stop the process.
    #[error("{0}")]
    Broken(String),
}

/// The right to write, see the module. Dropping it stops keeping it alive.
#[derive(Debug)]
pub struct Reign {
    /// Names this reign to the store.
    token: i64,
    /// The store's handle on what keeps the reign alive.
    lease: i64,
    /// Cancelled when the reign has ended or may have.
    pub ended: CancellationToken,
    _guard: DropGuard,
}

impl Reign {
    fn new(token: i64, lease: i64) -> Reign {
        let ended = CancellationToken::new();
        Reign { token, lease, _guard: ended.clone().drop_guard(), ended }
    }
}

/// See the module.
pub trait Store: Send + Sync + 'static {
    /// Waits until this PD may write.
    fn campaign(&self) -> BoxFuture<'_, Result<Reign, StoreError>>;

    /// All records, as of within the reign.
    fn load<'a>(&'a self, reign: &'a Reign) -> BoxFuture<'a, Result<Records, StoreError>>;

    /// Writes all changes or none. They are durable when this returns.
    fn commit<'a>(
        &'a self,
        reign: &'a Reign,
        changes: Vec<Change>,
    ) -> BoxFuture<'a, Result<(), StoreError>>;

    /// Gives the reign up, so that another PD need not wait for it to run out.
    fn resign(&self, reign: Reign) -> BoxFuture<'_, ()>;

    /// RPC address of the PD that leads, as far as is known.
    fn leader(&self) -> Option<String>;
}
