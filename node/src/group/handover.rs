//! Handing a leadership over with nothing in flight.
//!
//! A leader that hands over takes no more proposals; those that come are refused and tried again
//! elsewhere, and one that is in flight when the next term begins may end as unknown. So the evaluator takes
//! no work, lets what is in flight end, and only then has the other replica told; what came meanwhile waits
//! in the queue for the next leader's name.

use crate::codec::{DecodeError, Decoder, Encoder};
use crate::group::exec::BARRIERS_MAX;
use crate::raft::{ChangeError, RaftStatus};
use bytes::Bytes;
use flotilla_topology::ids::ReplicaId;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// How long what is in flight may take to end, and the next leader to have it. Then it is tried anyway.
const PAUSE_MAX: Duration = Duration::from_millis(40);
/// Who lacks more entries than this, in its log or applied, is not waited for.
const NEAR_ENTRIES: u64 = 128;
const APPLIED_VERSION: u8 = 1;
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

    /// Refuses if `to` lacks so much that nobody should wait for it: in its log, or of what it has `applied`,
    /// since it serves only when it has applied what it has.
    pub(super) fn check(
        status: &RaftStatus,
        to: ReplicaId,
        applied: u64,
    ) -> Result<(), ChangeError> {
        let logged = ("has", status.matched(to), status.last_index);
        let applied = ("has applied", applied, status.applied.index);
        for (verb, has, last) in [logged, applied] {
            if has + NEAR_ENTRIES < last {
                let behind = format!(
                    "replica {to} {verb} {has} of {last} entries: hand over when it has caught up"
                );
                return Err(ChangeError::Refused(behind));
            }
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

/// The payload of the answer to RPC kind 40, whose request is that of kind 25: up to which index the replicas
/// of these groups have applied, in the order of the request; 0 where there is none.
pub fn encode_applied(indexes: &[u64]) -> Bytes {
    let mut out = Encoder::with_capacity(4 + 8 * indexes.len());
    out.put_u8(APPLIED_VERSION);
    out.put_varint(indexes.len() as u64);
    indexes.iter().for_each(|index| out.put_varint(*index));
    out.into_bytes()
}

/// Reads it.
pub fn decode_applied(payload: &Bytes) -> Result<Vec<u64>, DecodeError> {
    let mut input = Decoder::shared(payload);
    input.version(APPLIED_VERSION)?;
    let count = input.count(BARRIERS_MAX, 1)?;
    let indexes = (0..count).map(|_| input.varint()).collect::<Result<_, _>>()?;
    input.finish()?;
    Ok(indexes)
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
        let check = |to, applied| HandOver::check(&status, to, applied);
        assert_eq!(check(near, 1000 - NEAR_ENTRIES), Ok(()));
        let refused = |to, applied| matches!(check(to, applied), Err(ChangeError::Refused(_)));
        assert!(refused(near, 999 - NEAR_ENTRIES), "it would have to apply first");
        assert!(refused(far, 1000));
        assert!(refused(ReplicaId(9), 1000), "one that is not there has nothing");
    }
}
