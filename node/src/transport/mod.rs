//! Requests and answers between processes: framed, multiplexed, over mutual TLS.
//!
//! A [`Client`] stands for one peer process. It keeps up to five TCP connections to it, one per
//! [`Class`], so that a heartbeat never queues behind data, and dials each when it is first used.
//! A [`Server`] accepts connections and hands every request to its [`Service`].
//!
//! ```text
//! Client::call ──▶ queue ──▶ writer ══ TLS ══▶ reader ──▶ Service::call
//!      ▲                                                        │
//!   answer ◀────── reader ◀═══════════ writer ◀── queue ◀── ReplyTo::send
//! ```
//!
//! What callers may rely on:
//! * **Order.** [`Client::call`] enqueues before it returns its future. Within a class, requests
//!   reach [`Service::call`] in the order of the calls. A connection that ends takes everything
//!   with it that was queued on it: a later call never overtakes one that failed, and nothing that
//!   was called before the break arrives after it.
//! * **Outcome.** [`RpcError::Unreachable`] means that the service never saw the request,
//!   [`RpcError::Refused`] that it said no. [`RpcError::Lost`] and [`RpcError::Timeout`] mean that
//!   nobody knows. Nothing is ever sent twice.
//! * **Speed of failure.** While a peer is down, calls fail at once until the next dial is due
//!   ([`RECONNECT_MAX`] at most), or a connection of another class reaches it; who repeats a call waits
//!   before it does.
//! * **Dropping** the future of a call gives it up: it is not sent if it still waits in the queue,
//!   and its answer is ignored otherwise.
//!
//! What is bounded: calls and bytes in flight, calls and bytes queued behind them (then calls are
//! unreachable), a frame, the greeting, connections, handshakes in time. A server that has too
//! much in hand stops reading, and TCP holds back the client.
//!
//! Liveness: each side pings each second with its wall clock, and drops a connection on which
//! nothing came for [`SILENCE_MAX`]. [`Client::clock`] tells round trip time and clock offset.
//!
//! Authentication: both certificates must chain to the authority (see [`crate::tls`]); the client
//! then checks that it reached whom it [`Expect`]s, the server asks its `allow` predicate.

mod client;
mod frame;
pub(crate) mod fuzz;
pub mod kinds;
mod lane;
mod server;
mod stats;
#[cfg(test)]
mod tests;

pub use client::Client;
pub use frame::PAYLOAD_BYTES_MAX;
pub use server::{ReplyTo, Server, Service};
pub use stats::PeerClock;

use crate::codec::{DecodeError, Decoder, Encoder};
use bytes::Bytes;
use flotilla_topology::ids::{ClusterId, Identity, Role};
use std::sync::Arc;
use std::time::Duration;

/// A dial, TCP alone, must succeed within this.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// TLS and greeting must be done within this, on both sides.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(3);

/// Wait after the first failed dial; it doubles with each further one.
pub const RECONNECT_MIN: Duration = Duration::from_millis(50);

/// Longest wait between dials.
pub const RECONNECT_MAX: Duration = Duration::from_secs(1);

/// How often each side of a connection sends a ping.
pub const PING_INTERVAL: Duration = Duration::from_secs(1);

/// A connection on which nothing came for so long is dropped: five pings were lost.
pub const SILENCE_MAX: Duration = Duration::from_secs(5);

/// A server that shuts down waits so long for answers that are owed.
pub const DRAIN_MAX: Duration = Duration::from_secs(2);

/// Calls in flight per connection. Raft pipelines tens, forwards hundreds.
pub const IN_FLIGHT_CALLS_MAX: usize = 4_096;

/// Request bytes in flight per connection; a larger single request travels alone.
pub const IN_FLIGHT_BYTES_MAX: usize = 32 << 20;

/// Calls that may wait behind those in flight, per connection.
pub const QUEUED_CALLS_MAX: usize = 16_384;

/// Bytes that may wait behind those in flight, per connection.
pub const QUEUED_BYTES_MAX: usize = 64 << 20;

/// Requests and bytes in a server's hands per connection before it stops reading. More than a
/// client has in flight, since a client forgets what timed out while the server still works on it.
pub const SERVED_CALLS_MAX: usize = 2 * IN_FLIGHT_CALLS_MAX;
/// See [`SERVED_CALLS_MAX`]; requests that are not answered and answers that are not sent.
pub const SERVED_BYTES_MAX: usize = 2 * IN_FLIGHT_BYTES_MAX;

/// Connections per server: some hundred peers with five classes each, several times.
pub const CONNECTIONS_MAX: usize = 4_096;

const _: () = assert!(PAYLOAD_BYTES_MAX <= QUEUED_BYTES_MAX);

/// A connection of its own for each kind of urgency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// Small and urgent: heartbeats, votes, questions about who leads.
    Control = 0,
    /// Raft's log entries.
    Data = 1,
    /// Commands on behalf of clients.
    Forward = 2,
    /// Snapshots and other large transfers.
    Bulk = 3,
    /// Questions that are answered late on purpose: they hold places in flight, which others must not
    /// miss.
    Wait = 4,
}

impl Class {
    /// All classes.
    pub const ALL: [Class; 5] =
        [Class::Control, Class::Data, Class::Forward, Class::Bulk, Class::Wait];

    /// The word in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Class::Control => "control",
            Class::Data => "data",
            Class::Forward => "forward",
            Class::Bulk => "bulk",
            Class::Wait => "wait",
        }
    }

    /// Whether Raft's own messages travel on it.
    pub fn is_rafts(self) -> bool {
        matches!(self, Class::Control | Class::Data)
    }

    fn from_byte(byte: u8) -> Option<Class> {
        Class::ALL.get(usize::from(byte)).copied()
    }
}

/// Whom a client means to reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expect {
    /// The peer's cluster.
    pub cluster: ClusterId,
    /// Its role there.
    pub role: Role,
    /// Its name; none: any process of that role.
    pub name: Option<String>,
}

impl Expect {
    fn accepts(&self, peer: &Identity) -> bool {
        peer.cluster == self.cluster
            && peer.role == self.role
            && self.name.as_ref().is_none_or(|name| *name == peer.name)
    }
}

impl std::fmt::Display for Expect {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = self.name.as_deref().unwrap_or("*");
        write!(f, "flotilla://{}/{}/{name}", self.cluster, self.role.as_str())
    }
}

/// The request was understood and not carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message} (code {code})")]
pub struct RpcRefused {
    /// What the caller's program looks at. Codes below [`RpcRefused::FIRST_FREE`] are the
    /// transport's; each service gives out its own from there on.
    pub code: u16,
    /// What a human reads, one line.
    pub message: String,
}

impl RpcRefused {
    /// The service let go of the request without an answer that could be sent. What it did is not
    /// known, so callers of a [`Client`] see [`RpcError::Lost`] instead.
    pub const DROPPED: u16 = 1;
    /// The server was shutting down and did not look at the request. Callers of a [`Client`] see
    /// [`RpcError::Unreachable`] instead.
    pub const SHUTDOWN: u16 = 2;
    /// The request's payload is larger than [`PAYLOAD_BYTES_MAX`] and was not sent.
    pub const TOO_LARGE: u16 = 3;
    /// The service does not serve this kind of request.
    pub const UNKNOWN_KIND: u16 = 4;
    /// The first code that services may give a meaning.
    pub const FIRST_FREE: u16 = 16;

    /// A refusal.
    pub fn new(code: u16, message: impl Into<String>) -> RpcRefused {
        RpcRefused { code, message: message.into() }
    }

    fn encode(&self) -> Bytes {
        let mut out = Encoder::with_capacity(self.message.len() + 8);
        out.put_u16(self.code);
        out.put_text(&self.message);
        out.into_bytes()
    }

    fn decode(payload: &[u8]) -> Result<RpcRefused, DecodeError> {
        let mut input = Decoder::new(payload);
        let code = input.u16()?;
        let message = input.text(PAYLOAD_BYTES_MAX)?.to_owned();
        input.finish()?;
        Ok(RpcRefused { code, message })
    }
}

/// Why a call has no result. The variants differ in what the caller may conclude.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RpcError {
    /// The request was certainly not delivered: it may be sent again, here after a pause or
    /// elsewhere at once.
    #[error("not delivered: {0}")]
    Unreachable(Arc<str>),
    /// The connection ended after the request had left, or the peer lost track of it: the outcome
    /// is unknown.
    #[error("outcome unknown: {0}")]
    Lost(Arc<str>),
    /// The peer said no.
    #[error("refused: {0}")]
    Refused(#[from] RpcRefused),
    /// The deadline passed after the request had left: the outcome is unknown.
    #[error("outcome unknown, no answer in time")]
    Timeout,
}
