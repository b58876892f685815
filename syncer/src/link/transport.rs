//! How QUIC is tuned for a WAN, and the UDP socket beneath it.
//!
//! quinn's defaults carry 1 MB/s over 60 ms with 0.1 % loss; with BBR and windows of the size of
//! the path it is over 100. A stream's window stays at 2 MiB, because quinn closes a connection
//! whose stream has more than 1024 separate gaps; many streams fill the connection's window.

use super::{IDLE_TIMEOUT, KEEP_ALIVE, LinkError, STREAMS_MAX, patience};
use flotilla_node::tls::Tls;
use quinn::congestion::BbrConfig;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{ClientConfig, Endpoint, EndpointConfig, IdleTimeout, ServerConfig, TransportConfig};
use quinn::{TokioRuntime, VarInt};
use socket2::{Domain, Protocol, Socket, Type};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Unread bytes per stream; see the module's text.
pub const STREAM_WINDOW: u32 = 2 << 20;
/// Unread and unacknowledged bytes per connection, at least.
pub const CONNECTION_WINDOW_MIN: u32 = 64 << 20;
/// The same, at most: memory that one peer can make us hold.
pub const CONNECTION_WINDOW_MAX: u32 = 256 << 20;
/// The fastest path that one connection shall fill: 10 Gbit/s.
const PATH_BYTES_PER_MS: f64 = 1_250_000.0;
/// Socket buffers: a burst of some milliseconds at full speed. The kernel may give less.
const SOCKET_BUFFER_BYTES: usize = 8 << 20;

/// Window of a connection over a path with this round trip time: what it can carry meanwhile.
pub fn connection_window(rtt_ms: Option<f64>) -> u32 {
    let product = (rtt_ms.unwrap_or(0.0).max(0.0) * PATH_BYTES_PER_MS) as u64;
    let product = u32::try_from(product).unwrap_or(u32::MAX);
    product.clamp(CONNECTION_WINDOW_MIN, CONNECTION_WINDOW_MAX)
}

/// Limits and timers of a connection. The shorter idle timeout of the two ends holds.
pub fn tuning(rtt_ms: Option<f64>, idle: Duration) -> TransportConfig {
    let window = connection_window(rtt_ms);
    let idle = IdleTimeout::try_from(idle).expect("some seconds fit");
    let mut config = TransportConfig::default();
    config
        .congestion_controller_factory(Arc::new(BbrConfig::default()))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(VarInt::from_u32(window))
        .send_window(u64::from(window))
        .max_concurrent_bidi_streams(VarInt::from_u32(STREAMS_MAX))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None)
        .keep_alive_interval(Some(KEEP_ALIVE))
        .max_idle_timeout(Some(idle))
        // Without a better guess, 333 ms: a lost first packet would cost a third of a second.
        .initial_rtt(Duration::from_secs_f64(rtt_ms.unwrap_or(100.0).clamp(10.0, 1000.0) / 1000.0));
    config
}

/// For dialing a peer.
pub fn client_config(tls: &Tls, rtt_ms: Option<f64>) -> Result<ClientConfig, LinkError> {
    let crypto = QuicClientConfig::try_from(tls.quic_client())
        .map_err(|error| LinkError::Tls(error.to_string()))?;
    let mut config = ClientConfig::new(Arc::new(crypto));
    config.transport_config(Arc::new(tuning(rtt_ms, patience(rtt_ms))));
    Ok(config)
}

/// An endpoint that accepts links, and dials from the same port.
pub fn endpoint(listen: SocketAddr, tls: &Tls) -> Result<Endpoint, LinkError> {
    let crypto = QuicServerConfig::try_from(tls.quic_server())
        .map_err(|error| LinkError::Tls(error.to_string()))?;
    let mut server = ServerConfig::with_crypto(Arc::new(crypto));
    server.transport_config(Arc::new(tuning(None, IDLE_TIMEOUT)));
    // A relay or a NAT between us may change the sender's port at any time.
    server.migration(true);
    let bind = |source| LinkError::Bind { addr: listen.to_string(), source };
    let socket = socket(listen).map_err(bind)?;
    Endpoint::new(EndpointConfig::default(), Some(server), socket, Arc::new(TokioRuntime))
        .map_err(bind)
}

fn socket(listen: SocketAddr) -> std::io::Result<std::net::UdpSocket> {
    let socket = Socket::new(Domain::for_address(listen), Type::DGRAM, Some(Protocol::UDP))?;
    // Best effort: without the right to exceed the system's limit it is that limit.
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES);
    let _ = socket.set_send_buffer_size(SOCKET_BUFFER_BYTES);
    socket.set_nonblocking(true)?;
    socket.bind(&listen.into())?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_follow_the_path_within_bounds() {
        assert_eq!(connection_window(None), CONNECTION_WINDOW_MIN);
        assert_eq!(connection_window(Some(10.0)), CONNECTION_WINDOW_MIN);
        assert_eq!(connection_window(Some(100.0)), 125_000_000);
        assert_eq!(connection_window(Some(1e12)), CONNECTION_WINDOW_MAX);
        assert_eq!(connection_window(Some(-1.0)), CONNECTION_WINDOW_MIN);
    }
}
