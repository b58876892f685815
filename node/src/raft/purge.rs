//! Purging a log, and what of a leader's log others still need.
//!
//! Snapshots on their way count: their receivers will need what comes behind them. The library protects only
//! what a stream is sending, and where a log is purged faster than a snapshot travels and is installed, the
//! next snapshot would be needed, for ever.

use super::config::C;
use super::convert;
use super::group::{RaftGroup, stopped};
use super::types::{RaftRole, RaftStatus, Stopped};
use flotilla_topology::ids::ReplicaId;
use openraft::async_runtime::watch::WatchReceiver;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// How long a purge waits until the state machine says how far it is durable.
const PURGE_MARK_WAIT: Duration = Duration::from_secs(10);

/// Of one group: who is sent, or was sent as last, the state at which index.
#[derive(Clone, Default)]
pub(super) struct Transfers(Arc<Mutex<BTreeMap<ReplicaId, u64>>>);

/// One that is under way. Dropped, its receiver needs nothing more.
pub(super) struct Transfer {
    of: Transfers,
    to: ReplicaId,
    arrived: bool,
}

impl Transfers {
    /// The state at `index` is sent to `to` from now on.
    pub(super) fn begin(&self, to: ReplicaId, index: u64) -> Transfer {
        self.0.lock().insert(to, index);
        Transfer { of: self.clone(), to, arrived: false }
    }

    /// What others lack. Who has what was sent is seen to have it some moments later: until then it is kept
    /// in mind.
    fn lags(&self, status: &RaftStatus) -> Lags {
        let mut sent = self.0.lock();
        sent.retain(|to, index| status.replication.get(to).is_some_and(|has| has.index < *index));
        let served = |member: &ReplicaId| sent.contains_key(member);
        let others = status.replication.iter().filter(|(member, _)| !served(member));
        let log = others.map(|(_, has)| has.index).filter(|has| *has >= status.purged.index).min();
        Lags { log, snapshot: sent.values().copied().min() }
    }
}

impl Transfer {
    /// The receiver has it all, and goes on from there.
    pub(super) fn arrived(mut self) {
        self.arrived = true;
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        if !self.arrived {
            self.of.0.lock().remove(&self.to);
        }
    }
}

/// Up to which index a leader's log is not needed by other members. None: nobody needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lags {
    /// By those that are sent entries, however long they have been away. Who lacks what is purged does not
    /// count.
    pub log: Option<u64>,
    /// By those that are sent a snapshot.
    pub snapshot: Option<u64>,
}

impl RaftGroup {
    /// Leader only: what of its log others still need.
    pub fn lags(&self) -> Lags {
        let status = self.status();
        match status.role {
            RaftRole::Leader => self.transfers().lags(&status),
            _ => Lags::default(),
        }
    }

    /// Lets the log forget entries up to `upto`, as far as the state machine has them durably. To be
    /// called on every replica, again and again as the floor moves; it acts when it can.
    pub async fn purge(&self, upto: u64) -> Result<(), Stopped> {
        let upto = upto.min(self.applied().index);
        if upto == 0 || self.purged().index >= upto {
            return Ok(());
        }
        let raft = self.library();
        let mut metrics = raft.metrics();
        let marked =
            |metrics: &openraft::RaftMetrics<C>| convert::log_id(metrics.snapshot.as_ref());
        let before = marked(&metrics.borrow_and_update());
        if before.index < upto {
            raft.trigger().snapshot().await.map_err(|fatal| stopped(&fatal))?;
            let moved = async {
                while metrics.changed().await.is_ok() {
                    if marked(&metrics.borrow_and_update()) > before {
                        break;
                    }
                }
            };
            // Nothing new may be durable; then the purge goes as far as it went before.
            let _ = tokio::time::timeout(PURGE_MARK_WAIT, moved).await;
        }
        raft.trigger().purge_log(upto - 1).await.map_err(|fatal| stopped(&fatal))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flotilla_topology::ids::LogId;

    fn status(purged: u64, has: &[(u64, u64)]) -> RaftStatus {
        let at = |index| LogId { index, ..LogId::default() };
        let replication = has.iter().map(|(id, index)| (ReplicaId(*id), at(*index))).collect();
        RaftStatus { replication, purged: at(purged), ..RaftStatus::default() }
    }

    #[test]
    fn who_is_sent_a_snapshot_needs_the_log_behind_it_until_it_has_it() {
        let transfers = Transfers::default();
        let lags = |purged, has: &[(u64, u64)]| transfers.lags(&status(purged, has));
        assert_eq!(lags(0, &[]), Lags::default());
        assert_eq!(lags(50, &[(2, 90), (3, 40)]), Lags { log: Some(90), snapshot: None });
        let transfer = transfers.begin(ReplicaId(3), 80);
        assert_eq!(lags(50, &[(2, 90), (3, 40)]), Lags { log: Some(90), snapshot: Some(80) });
        transfer.arrived();
        assert_eq!(lags(50, &[(2, 90), (3, 40)]).snapshot, Some(80), "not seen yet");
        assert_eq!(lags(50, &[(2, 90), (3, 80)]), Lags { log: Some(80), snapshot: None });
    }

    #[test]
    fn a_snapshot_that_fails_or_whose_member_is_gone_holds_nothing() {
        let transfers = Transfers::default();
        drop(transfers.begin(ReplicaId(3), 80));
        assert_eq!(transfers.lags(&status(50, &[(3, 40)])), Lags::default());
        transfers.begin(ReplicaId(3), 80).arrived();
        assert_eq!(transfers.lags(&status(50, &[(2, 60)])), Lags { log: Some(60), snapshot: None });
    }
}
