//! Free ports: picked below the kernel's range for outgoing connections, so that none of those
//! takes a port between its release and the start of the process that was promised it.

use rand::Rng;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::ops::Range;

/// Where free ports are looked for. Linux gives 32768 and above to outgoing connections.
const PORTS: Range<u16> = 10_000..32_000;
/// Ports that are tried before giving up: with half of them taken, failing is out of the question.
const TRIES_MAX: usize = 200;

/// A port that somebody else uses.
#[derive(Debug, thiserror::Error)]
#[error("port {port} on 127.0.0.1 is in use ({cause}): stop what uses it, or choose another port")]
pub struct PortTaken {
    port: u16,
    cause: io::Error,
}

/// A port, held for TCP and UDP until it is dropped: drop it right before its process starts.
#[derive(Debug)]
pub struct HeldPort {
    port: u16,
    _tcp: TcpListener,
    _udp: UdpSocket,
}

impl HeldPort {
    /// Holds any free port.
    pub fn any() -> Result<HeldPort, PortTaken> {
        let mut random = rand::rng();
        let mut last = Self::wanted(random.random_range(PORTS));
        for _ in 1..TRIES_MAX {
            if last.is_ok() {
                break;
            }
            last = Self::wanted(random.random_range(PORTS));
        }
        last
    }

    /// Holds this port, or says that it is taken.
    pub fn wanted(port: u16) -> Result<HeldPort, PortTaken> {
        let taken = |cause| PortTaken { port, cause };
        let address = (Ipv4Addr::LOCALHOST, port);
        Ok(HeldPort {
            port,
            _tcp: TcpListener::bind(address).map_err(taken)?,
            _udp: UdpSocket::bind(address).map_err(taken)?,
        })
    }

    /// Its number.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its address, on the loopback interface.
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_named_and_a_released_one_is_free() {
        let held = HeldPort::any().unwrap();
        let error = HeldPort::wanted(held.port()).unwrap_err().to_string();
        assert!(error.contains(&format!("port {} on 127.0.0.1 is in use", held.port())), "{error}");
        let port = held.port();
        drop(held);
        // A child that another test forks just now has a copy of the socket until it execs.
        while HeldPort::wanted(port).is_err() {
            std::thread::yield_now();
        }
    }
}
