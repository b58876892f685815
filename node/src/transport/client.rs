//! The door for callers: a [`Client`] is one peer, with a lane per class.

use super::lane::{Lane, Target};
use super::{Class, Expect, PeerClock, RpcError};
use crate::tls::Tls;
use bytes::Bytes;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

/// Calls one peer. Clones share its connections, which close when the last clone is dropped.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    lanes: [Arc<Lane>; Class::ALL.len()],
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.lanes.iter().for_each(|lane| lane.close());
    }
}

/// A call that waits. It keeps the connections alive, and is given up when it is dropped.
struct Ticket {
    client: Client,
    class: Class,
    id: u64,
    waits: bool,
}

impl Ticket {
    fn give_up(&mut self) -> Option<bool> {
        self.waits = false;
        self.client.lane(self.class).forget(self.id)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if self.waits {
            self.give_up();
        }
    }
}

impl Client {
    /// A client for the process at `addr` (`host:port`), which must be the one that `expect`
    /// describes. Nothing is dialed before the first call. Connections live on the current
    /// runtime.
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    pub fn new(addr: String, tls: &Tls, expect: Expect) -> Client {
        Client::on(&Handle::current(), addr, tls, expect)
    }

    /// As [`Client::new`], with connections that live on `runtime`, which may be another one than
    /// the caller's.
    pub fn on(runtime: &Handle, addr: String, tls: &Tls, expect: Expect) -> Client {
        Client::on_two(runtime, runtime, addr, tls, expect)
    }

    /// As [`Client::on`], with Raft's connections ([`Class::is_rafts`]) on a runtime of their own, so that
    /// command load never delays a heartbeat, and all others where those run who call: an answer then
    /// wakes its caller without a change of threads.
    pub fn on_two(
        raft: &Handle,
        runtime: &Handle,
        addr: String,
        tls: &Tls,
        expect: Expect,
    ) -> Client {
        let (raft, runtime, reached) = (raft.clone(), runtime.clone(), Mutex::default());
        let target = Arc::new(Target { addr, expect, tls: tls.client(), raft, runtime, reached });
        let lanes = Class::ALL.map(|class| Arc::new(Lane::new(class, target.clone())));
        Client { inner: Arc::new(Inner { lanes }) }
    }

    /// Sends a request and waits for its answer, until `deadline` from now at most.
    ///
    /// The request is enqueued before this returns: the order of the calls is the order on the
    /// wire, per class. The future need not be polled for the request to be sent, but dropping it
    /// before that gives it up.
    pub fn call(
        &self,
        class: Class,
        kind: u16,
        payload: Bytes,
        deadline: Duration,
    ) -> impl Future<Output = Result<Bytes, RpcError>> + Send + use<> {
        let end = tokio::time::Instant::now() + deadline;
        // Made here and not inside the future: one that is dropped unpolled must give up as well.
        let queued = self
            .lane(class)
            .enqueue(kind, payload)
            .map(|(id, answer)| (Ticket { client: self.clone(), class, id, waits: true }, answer));
        let counts = self.lane(class).counts();
        async move {
            let outcome = match queued {
                Ok((ticket, answer)) => finish(ticket, answer, end).await,
                Err(error) => Err(error),
            };
            counts.count(&outcome);
            outcome
        }
    }

    /// Round trip time and wall clock of the peer, the best that any connection measured. None
    /// before the first ping was answered.
    pub fn clock(&self) -> Option<PeerClock> {
        self.inner.lanes.iter().filter_map(|lane| lane.clock()).min_by_key(|clock| clock.rtt)
    }

    /// Whether the connection of `class` stands.
    pub fn is_connected(&self, class: Class) -> bool {
        self.lane(class).is_up()
    }

    fn lane(&self, class: Class) -> &Arc<Lane> {
        &self.inner.lanes[class as usize]
    }

    /// The address that is dialed.
    pub fn addr(&self) -> &str {
        &self.inner.lanes[0].target().addr
    }
}

async fn finish(
    mut ticket: Ticket,
    answer: oneshot::Receiver<Result<Bytes, RpcError>>,
    end: tokio::time::Instant,
) -> Result<Bytes, RpcError> {
    match tokio::time::timeout_at(end, answer).await {
        Ok(outcome) => {
            ticket.waits = false;
            // The sender is dropped without a word only when the whole runtime goes down.
            outcome.unwrap_or_else(|_| Err(RpcError::Lost("the runtime ended".into())))
        }
        Err(_) => match ticket.give_up() {
            Some(false) => Err(RpcError::Unreachable("no connection in time".into())),
            _ => Err(RpcError::Timeout),
        },
    }
}
