//! Handing a leadership over with nothing in flight.
//!
//! A leader that hands over takes no more proposals; those that come are refused and tried again
//! elsewhere, and one that is in flight when the next term begins may end as unknown. So the evaluator takes
//! no work, lets what is in flight end, and only then has the other replica told; what came meanwhile waits
//! in the queue for the next leader's name.

use crate::raft::{ChangeError, RaftStatus};
use flotilla_topology::ids::ReplicaId;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// How long what is in flight may take to end, and the next leader to have it. Then it is tried anyway.
const PAUSE_MAX: Duration = Duration::from_millis(40);
/// Who lacks more entries than this is not waited for.
const NEAR_ENTRIES: u64 = 64;
/// How long the evaluator may take to answer: it may be at a long command. It hands over
/// then, if that is still to be done.
pub(super) const ANSWER_MAX: Duration = Duration::from_millis(500);
/// Pause between two looks whether the next leader has everything.
pub(super) const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(1);

/// A leadership is to go to another replica.
pub(super) struct HandOver {
    pub(super) to: ReplicaId,
    until: Instant,
    answer: oneshot::Sender<Result<(), ChangeError>>,
}

impl HandOver {
    /// From now on, and where its end is told.
    pub(super) fn new(to: ReplicaId) -> (HandOver, oneshot::Receiver<Result<(), ChangeError>>) {
        let (answer, told) = oneshot::channel();
        (HandOver { to, until: Instant::now() + PAUSE_MAX, answer }, told)
    }

    /// Refuses if `to` lacks so much that nobody should wait for it.
    pub(super) fn check(status: &RaftStatus, to: ReplicaId) -> Result<(), ChangeError> {
        let (last, has) = (status.last_index, status.matched(to));
        if has + NEAR_ENTRIES < last {
            let behind = format!(
                "replica {to} has {has} of {last} entries: hand over when it has caught up"
            );
            return Err(ChangeError::Refused(behind));
        }
        Ok(())
    }

    /// Whether there is time to wait.
    pub(super) fn can_wait(&self) -> bool {
        Instant::now() < self.until
    }

    /// Tells how it ended.
    pub(super) fn end(self, told: Result<(), ChangeError>) {
        let _ = self.answer.send(told); // who asked may be gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::{Membership, RaftRole};
    use flotilla_topology::ids::LogId;
    use std::sync::Arc;

    #[test]
    fn who_lacks_much_is_not_waited_for() {
        let (near, far) = (ReplicaId(2), ReplicaId(3));
        let at = |index| LogId { term: 1, index };
        let status = RaftStatus {
            role: RaftRole::Leader,
            term: 1,
            leader: None,
            last_index: 1000,
            committed: at(1000),
            applied: at(1000),
            own_blank_applied: true,
            replication: [(near, at(1000 - NEAR_ENTRIES)), (far, at(999 - NEAR_ENTRIES))].into(),
            last_quorum_ack: None,
            membership: Arc::new(Membership::default()),
            purged: LogId::default(),
        };
        assert_eq!(HandOver::check(&status, near), Ok(()));
        let refused = |to| matches!(HandOver::check(&status, to), Err(ChangeError::Refused(_)));
        assert!(refused(far) && refused(ReplicaId(9)), "one that is not there has nothing");
    }
}
