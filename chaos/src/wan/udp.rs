//! UDP over a lane: a socket per forward, and behind it one socket per client, like a NAT, so that
//! the target can answer each.
//!
//! Datagrams move in batches as the kernel groups them (GRO in, GSO out): one system call carries
//! tens of packets. The fate of each datagram is decided one by one.

use super::lane::Lane;
use super::shaper::{Arrival, Fate};
use quinn_udp::{BATCH_SIZE, EcnCodepoint, RecvMeta, Transmit, UdpSocketState};
use std::collections::HashMap;
use std::io::{self, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::task::AbortHandle;

/// Clients of one forward; the one silent for longest is forgotten to admit another.
const CLIENTS_MAX: usize = 1024;
/// Receive and send buffers of the relay's sockets: a burst must not be lost by accident, since
/// losses are asked for by their rate. The kernel may grant less.
const SOCKET_BUFFER_BYTES: usize = 8 << 20;
/// Batches that one receive call takes; each needs 64 KiB.
const RECEIVE_BATCHES: usize = if BATCH_SIZE < 8 { BATCH_SIZE } else { 8 };
/// Largest batch: what an IP packet can say of its length.
const BATCH_BYTES_MAX: usize = 64 << 10;
/// Datagrams of one batch that arrive further apart than this travel as separate batches.
const BATCH_TIME_MAX: Duration = Duration::from_millis(1);
/// Pause after a failed receive, which is not expected to happen.
const RECEIVE_PAUSE: Duration = Duration::from_millis(10);

/// Datagrams of equal size (the last may be shorter) under way to one socket.
pub(super) struct Flight {
    due: Instant,
    bytes: Vec<u8>,
    stride: usize,
    ecn: Option<EcnCodepoint>,
    via: Arc<Port>,
    destination: SocketAddr,
}

impl Flight {
    pub(super) fn due(&self) -> Instant {
        self.due
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether a datagram that is due then may travel along, behind the others.
    fn takes(&self, due: Instant) -> bool {
        due >= self.due && due <= self.due + BATCH_TIME_MAX
    }

    pub(super) fn count(&self) -> usize {
        self.bytes.len().div_ceil(self.stride.max(1)).max(1)
    }
}

/// Hands a flight that is due to its destination.
pub(super) fn land(flight: &Flight) {
    flight.via.send(flight);
}

/// A socket that sends and receives batches.
pub(super) struct Port {
    socket: UdpSocket,
    state: UdpSocketState,
}

impl Port {
    async fn bind() -> io::Result<Port> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let state = UdpSocketState::new((&socket).into())?;
        // Best effort: the kernel caps them at net.core.{r,w}mem_max.
        let _ = state.set_recv_buffer_size((&socket).into(), SOCKET_BUFFER_BYTES);
        let _ = state.set_send_buffer_size((&socket).into(), SOCKET_BUFFER_BYTES);
        Ok(Port { socket, state })
    }

    async fn receive(&self, buffers: &mut [Vec<u8>], metas: &mut [RecvMeta]) -> io::Result<usize> {
        self.socket
            .async_io(Interest::READABLE, || {
                let mut slices = buffers.iter_mut().map(|buffer| IoSliceMut::new(buffer));
                let mut slices: [IoSliceMut<'_>; RECEIVE_BATCHES] =
                    std::array::from_fn(|_| slices.next().unwrap_or(IoSliceMut::new(&mut [])));
                self.state.recv((&self.socket).into(), &mut slices, metas)
            })
            .await
    }

    /// Sends a flight, in as many calls as the kernel needs. What cannot be sent is lost, as on
    /// any network: the receiver is gone, or its buffer is full.
    fn send(&self, flight: &Flight) {
        let most = self.state.max_gso_segments().max(1) * flight.stride.max(1);
        for part in flight.bytes.chunks(most.min(BATCH_BYTES_MAX)) {
            let transmit = Transmit {
                destination: flight.destination,
                ecn: flight.ecn,
                contents: part,
                segment_size: (part.len() > flight.stride).then_some(flight.stride),
                src_ip: None,
            };
            let _ = self.state.try_send((&self.socket).into(), &transmit);
        }
    }
}

/// One forwarded target with its clients.
pub(super) struct Forward {
    front: Arc<Port>,
    target: SocketAddr,
    out: Arc<Lane>,
    back: Arc<Lane>,
    clients: HashMap<SocketAddr, Client>,
}

struct Client {
    port: Arc<Port>,
    seen: Instant,
    answers: AbortHandle,
}

impl Drop for Client {
    fn drop(&mut self) {
        self.answers.abort();
    }
}

impl Forward {
    pub(super) async fn bind(
        out: Arc<Lane>,
        back: Arc<Lane>,
        target: SocketAddr,
    ) -> io::Result<Forward> {
        let front = Arc::new(Port::bind().await?);
        Ok(Forward { front, target, out, back, clients: HashMap::new() })
    }

    pub(super) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.front.socket.local_addr()
    }

    pub(super) async fn serve(mut self) {
        let front = self.front.clone();
        let mut inbox = Inbox::new();
        loop {
            let received = inbox.receive(&front).await;
            for batch in 0..received {
                let client = inbox.metas[batch].addr;
                match self.port_of(client).await {
                    Ok(port) => inbox.pass(batch, &self.out, &port, self.target),
                    Err(error) => tracing::warn!(%client, %error, "no socket for a UDP client"),
                }
            }
        }
    }

    /// The socket through which a client's datagrams leave, and to which its answers come.
    async fn port_of(&mut self, client: SocketAddr) -> io::Result<Arc<Port>> {
        if let Some(known) = self.clients.get_mut(&client) {
            known.seen = Instant::now();
            return Ok(known.port.clone());
        }
        if self.clients.len() >= CLIENTS_MAX {
            let silent = self.clients.iter().min_by_key(|(_, client)| client.seen);
            if let Some(silent) = silent.map(|(address, _)| *address) {
                self.clients.remove(&silent);
            }
        }
        let port = Arc::new(Port::bind().await?);
        let answers = tokio::spawn(answer(
            port.clone(),
            self.target,
            self.back.clone(),
            self.front.clone(),
            client,
        ));
        let entry =
            Client { port: port.clone(), seen: Instant::now(), answers: answers.abort_handle() };
        self.clients.insert(client, entry);
        Ok(port)
    }
}

/// Takes a target's answers to one client.
async fn answer(
    port: Arc<Port>,
    target: SocketAddr,
    back: Arc<Lane>,
    front: Arc<Port>,
    client: SocketAddr,
) {
    let mut inbox = Inbox::new();
    loop {
        let received = inbox.receive(&port).await;
        for batch in 0..received {
            // Like a NAT: only whom the client wrote to may answer.
            if inbox.metas[batch].addr == target {
                inbox.pass(batch, &back, &front, client);
            }
        }
    }
}

/// The buffers of one receiving task.
struct Inbox {
    buffers: Vec<Vec<u8>>,
    metas: [RecvMeta; RECEIVE_BATCHES],
    fates: Vec<Fate>,
}

impl Inbox {
    fn new() -> Inbox {
        Inbox {
            buffers: vec![vec![0; BATCH_BYTES_MAX]; RECEIVE_BATCHES],
            metas: [RecvMeta::default(); RECEIVE_BATCHES],
            fates: Vec::new(),
        }
    }

    async fn receive(&mut self, port: &Port) -> usize {
        match port.receive(&mut self.buffers, &mut self.metas).await {
            Ok(received) => received,
            Err(error) => {
                tracing::warn!(%error, "the relay cannot receive");
                tokio::time::sleep(RECEIVE_PAUSE).await;
                0
            }
        }
    }

    /// Puts the datagrams of one received batch on a lane.
    fn pass(&mut self, batch: usize, lane: &Arc<Lane>, via: &Arc<Port>, destination: SocketAddr) {
        let meta = self.metas[batch];
        let received = &self.buffers[batch][..meta.len];
        let stride = meta.stride.clamp(1, BATCH_BYTES_MAX);
        self.fates.clear();
        lane.datagrams(received.chunks(stride).map(<[u8]>::len), &mut self.fates);
        let flight = |due, bytes| Flight {
            due,
            bytes,
            stride,
            ecn: meta.ecn,
            via: via.clone(),
            destination,
        };
        let mut open: Option<Flight> = None;
        for (datagram, fate) in received.chunks(stride).zip(&self.fates) {
            let Fate::Arrives(Arrival { due, held, again, flip }) = *fate else { continue };
            if let Some(again) = again {
                lane.launch(flight(again, datagram.to_vec()));
            }
            if held {
                lane.launch(flight(due, flipped(datagram.to_vec(), flip)));
                continue;
            }
            if let Some(flight) = open.take_if(|flight| !flight.takes(due)) {
                lane.launch(flight);
            }
            let open = open.get_or_insert_with(|| flight(due, Vec::with_capacity(received.len())));
            open.bytes.extend_from_slice(datagram);
            if let Some(bit) = flip {
                let start = open.bytes.len() - datagram.len();
                flip_bit(&mut open.bytes[start..], bit);
            }
        }
        if let Some(flight) = open {
            lane.launch(flight);
        }
    }
}

fn flip_bit(bytes: &mut [u8], bit: usize) {
    bytes[bit / 8] ^= 1 << (bit % 8);
}

fn flipped(mut bytes: Vec<u8>, flip: Option<usize>) -> Vec<u8> {
    if let Some(bit) = flip {
        flip_bit(&mut bytes, bit);
    }
    bytes
}
