//! A client that waits in a command: what ends its wait, and that others see it wait.
//!
//! Invariant: a wait is ended once, by its connection or by CLIENT UNBLOCK, whoever comes first; and it
//! is counted as long as its [`Patience`] lives.

use super::clients::ClientRecord;
use super::listener::Shared;
use crate::resp::Reply;
use std::sync::Arc;
use tokio::sync::oneshot;

/// Why a client waits no more, though nothing has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Nobody is there any more to whom an element could be given.
    Gone,
    /// CLIENT UNBLOCK, as if the time were up.
    TimedOut,
    /// CLIENT UNBLOCK with ERROR.
    Unblocked,
}

impl Ended {
    /// What the client is told; nothing if it is gone.
    pub fn reply(self) -> Option<Reply> {
        match self {
            Ended::Gone => None,
            Ended::TimedOut => Some(Reply::NullArray),
            Ended::Unblocked => Some(Reply::error("UNBLOCKED client unblocked via CLIENT UNBLOCK")),
        }
    }
}

/// Held by who waits for a client.
pub struct Patience {
    shared: Arc<Shared>,
    record: Arc<ClientRecord>,
    told: oneshot::Receiver<Ended>,
    ended: Option<Ended>,
}

impl Patience {
    /// The connection waits from now on.
    pub(super) fn begin(shared: Arc<Shared>, record: Arc<ClientRecord>) -> Patience {
        shared.stats.waits(true);
        let told = record.begin_wait();
        Patience { shared, record, told, ended: None }
    }

    /// Ready when the wait has ended. It may be asked again, and be given up.
    pub async fn ended(&mut self) -> Ended {
        match self.ended {
            Some(ended) => ended,
            None => {
                let ended = (&mut self.told).await.unwrap_or(Ended::Gone);
                *self.ended.insert(ended)
            }
        }
    }
}

impl Drop for Patience {
    fn drop(&mut self) {
        self.record.leave_wait();
        self.shared.stats.waits(false);
    }
}
