//! Holds back a leader that is faster than a link, so that a slow peer costs no memory.
//!
//! Each link of a group counts the bytes that were learned for it and are not acknowledged yet.
//! While any of them is above the limit, appends for the group's learner wait at the door; the
//! leader has few under way, so it stops sending, and the learner lags. That is all that happens:
//! nobody waits for a learner.

use bytes::Bytes;
use flotilla_node::transport::{ReplyTo, RpcRefused};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::Notify;

/// Appends that wait at a closed door. A leader that gets no answers opens new streams and sends
/// again; what comes on top is refused.
pub const HELD_MAX: usize = 64;
/// Bytes that wait at a closed door; one append more may exceed it.
pub const HELD_BYTES_MAX: usize = 32 << 20;

/// Counts what one link of a group has not got acknowledged.
#[derive(Clone, Default)]
pub struct Gate {
    bytes: Arc<AtomicUsize>,
    moved: Arc<Notify>,
}

impl Gate {
    /// Another gate of the same door.
    pub fn beside(&self) -> Gate {
        Gate { bytes: Arc::default(), moved: Arc::clone(&self.moved) }
    }

    /// More was learned.
    pub fn add(&self, bytes: usize) {
        self.bytes.fetch_add(bytes, Ordering::AcqRel);
    }

    /// This much is done with.
    pub fn sub(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::AcqRel);
        self.moved.notify_one(); // kept for the tender if it is busy
    }

    /// What is not acknowledged.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Acquire)
    }
}

type Append = (u16, Bytes, ReplyTo);

/// The door of one group's learner.
pub struct Door {
    gates: Vec<Gate>,
    /// Bytes per link above which the door is closed.
    limit: usize,
    held: Mutex<VecDeque<Append>>,
    pass: Box<dyn Fn(Append) + Send + Sync>,
}

impl Door {
    /// A door before `pass`, which must not block. All gates are made beside the first.
    pub fn new(
        gates: Vec<Gate>,
        limit: usize,
        pass: impl Fn((u16, Bytes, ReplyTo)) + Send + Sync + 'static,
    ) -> Door {
        Door { gates, limit, held: Mutex::default(), pass: Box::new(pass) }
    }

    fn open(&self) -> bool {
        self.gates.iter().all(|gate| gate.bytes() < self.limit)
    }

    /// Lets an append pass, or holds it, in the order of arrival.
    pub fn append(&self, kind: u16, payload: Bytes, reply: ReplyTo) {
        let mut held = self.held.lock();
        if held.is_empty() && self.open() {
            return (self.pass)((kind, payload, reply));
        }
        let bytes: usize = held.iter().map(|(_, payload, _)| payload.len()).sum();
        if held.len() >= HELD_MAX || bytes >= HELD_BYTES_MAX {
            drop(held);
            let code = RpcRefused::FIRST_FREE;
            return reply.send(Err(RpcRefused::new(code, "the links of this group are full")));
        }
        held.push_back((kind, payload, reply));
    }

    /// Lets held appends pass when there is room again. Runs as long as the learner does, once.
    pub async fn tend(&self) {
        let Some(gate) = self.gates.first() else { return };
        loop {
            gate.moved.notified().await;
            let mut held = self.held.lock();
            while self.open()
                && let Some(append) = held.pop_front()
            {
                (self.pass)(append);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn a_full_link_holds_appends_back_in_order_and_refuses_too_many() {
        let gate = Gate::default();
        let passed: Arc<Mutex<Vec<u8>>> = Arc::default();
        let seen = Arc::clone(&passed);
        let door = Arc::new(Door::new(vec![gate.clone()], 100, move |(_, payload, reply)| {
            seen.lock().push(payload[0]);
            reply.send(Ok(Bytes::new()));
        }));
        let send = |number: u8| {
            let (reply, answer) = ReplyTo::local();
            door.append(1, Bytes::from(vec![number]), reply);
            answer
        };
        send(0).await.unwrap().unwrap();
        gate.add(100);
        let mut waiting: Vec<_> = (1..=HELD_MAX as u8).map(send).collect();
        assert!(send(99).await.unwrap().is_err(), "one too many");
        assert!(waiting[0].try_recv().is_err());
        let tender = tokio::spawn({
            let door = Arc::clone(&door);
            async move { door.tend().await }
        });
        gate.sub(1);
        let last = waiting.pop().unwrap();
        tokio::time::timeout(Duration::from_secs(5), last).await.unwrap().unwrap().unwrap();
        assert_eq!(*passed.lock(), (0..=HELD_MAX as u8).collect::<Vec<_>>());
        tender.abort();
    }
}
