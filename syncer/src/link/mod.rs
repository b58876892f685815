//! QUIC between the syncers of two clusters.
//!
//! The sending syncer dials and keeps one connection per peer cluster. On it: a control stream
//! (who speaks, and pings with the wall clock), and one stream for each group, so that no group
//! waits for another's lost packet. Invariants:
//! * Both ends are syncers, by their certificates; the dialer reached the cluster that it meant,
//!   the acceptor knows the cluster that came. Nobody speaks for another cluster.
//! * Control is never queued behind data: it has a stream and a higher priority.
//! * A peer that does not answer for [`patience`] is gone, and its next syncer is dialed.

pub mod accept;
pub mod dial;
pub mod stream;
pub mod transport;

use flotilla_node::tls::Tls;
use flotilla_topology::ids::{Identity, Role};
use rustls::pki_types::CertificateDer;
use std::time::Duration;

/// Something is sent at least this often.
pub const KEEP_ALIVE: Duration = Duration::from_millis(250);
/// The accepting side takes a connection on which nothing came for so long to be gone. It does not
/// know the round trip time, and loses nothing by waiting: the dialing side acts first.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(5);
/// An answer is waited for at least so long: five pings.
pub const PATIENCE_MIN: Duration = Duration::from_millis(1250);
/// And at least so many round trips: a lost packet is sent again after one or two.
const PATIENCE_ROUND_TRIPS: f64 = 4.0;
/// Round trip time of a peer of which the topology file says nothing.
const RTT_MS_UNKNOWN: f64 = 400.0;
/// Round trip time above which patience ends.
const RTT_MS_MAX: f64 = 2_000.0;
/// The accepting side waits so long for a handshake or a greeting.
pub const GREETING_TIMEOUT: Duration = Duration::from_secs(4);
/// Wait after the first failed dial; it doubles.
pub const REDIAL_MIN: Duration = Duration::from_millis(50);
/// Longest wait between dials.
pub const REDIAL_MAX: Duration = Duration::from_secs(1);
/// How often the peer is asked whether it is there, and clocks are compared.
pub const PING_INTERVAL: Duration = Duration::from_millis(250);
/// Priority of the control stream; groups have 0.
pub const CONTROL_PRIORITY: i32 = 10;
/// Priority of audits: they take what the others leave.
pub const AUDIT_PRIORITY: i32 = -10;
/// Group streams that one connection may have open: a namespace has at most 1024 groups.
pub const STREAMS_MAX: u32 = 4096;
/// Connections that are accepted at one time, from all peers.
pub const CONNECTIONS_MAX: usize = 256;

/// How long a peer at this round trip time may leave a ping without an answer. Two syncers of a
/// cluster take over from each other within three seconds; this is their links' part of it.
pub fn patience(rtt_ms: Option<f64>) -> Duration {
    let rtt_ms = rtt_ms.unwrap_or(RTT_MS_UNKNOWN).clamp(0.0, RTT_MS_MAX);
    PATIENCE_MIN.max(Duration::from_secs_f64(rtt_ms * PATIENCE_ROUND_TRIPS / 1000.0))
}

/// A dial, with handshake and greeting, must succeed within this.
pub fn dial_timeout(rtt_ms: Option<f64>) -> Duration {
    patience(rtt_ms) * 2
}

/// Why a link cannot be used; the text goes to the other side and into the log.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The socket cannot be opened.
    #[error("cannot bind {addr}/udp: {source} (set listen.link, or stop who listens there)")]
    Bind {
        /// Where.
        addr: String,
        /// Why.
        source: std::io::Error,
    },
    /// The certificates cannot be used for QUIC.
    #[error("certificates unusable for QUIC: {0}")]
    Tls(String),
    /// The other side is not who it should be.
    #[error("{0}")]
    Identity(String),
    /// The other side could not be reached, or was lost.
    #[error("{0}")]
    Lost(String),
    /// The other side does not speak as it should.
    #[error("protocol: {0}")]
    Protocol(String),
}

impl LinkError {
    fn lost(error: impl std::fmt::Display) -> LinkError {
        LinkError::Lost(error.to_string())
    }
}

/// Who is at the other end, by its verified certificate. Only a syncer may be.
pub fn peer_of(connection: &quinn::Connection) -> Result<Identity, LinkError> {
    let certs = connection
        .peer_identity()
        .and_then(|any| any.downcast::<Vec<CertificateDer<'static>>>().ok())
        .ok_or_else(|| LinkError::Identity("no certificate was shown".into()))?;
    let identity =
        Tls::peer_identity(&certs).map_err(|error| LinkError::Identity(error.to_string()))?;
    if identity.role != Role::Syncer {
        return Err(LinkError::Identity(format!("{identity} is not a syncer")));
    }
    Ok(identity)
}

#[cfg(test)]
mod tests;
