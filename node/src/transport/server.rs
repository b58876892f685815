//! The accepting side: checks who comes, hands requests to the [`Service`] in the order in which
//! they arrive, and sends the answers in the order in which they are ready.
//!
//! Invariants:
//! * The service sees no byte from a peer that `allow` does not know.
//! * A connection owes at most [`SERVED_CALLS_MAX`] answers; then it reads no further.
//! * Every request that the service got is answered exactly once, if need be by [`ReplyTo`]'s drop.

use super::frame::{Frame, FrameReader, GREETING_BYTES_MAX, Sort, Source, WRITE_BATCH_BYTES};
use super::frame::{invalid, read_hello, write_frames, write_one};
use super::stats::{Meter, PULSES_MAX, Pulse, count_rejected};
use super::{CONNECTIONS_MAX, Class, DRAIN_MAX, HANDSHAKE_TIMEOUT, PAYLOAD_BYTES_MAX};
use super::{PING_INTERVAL, RpcRefused, SERVED_BYTES_MAX, SERVED_CALLS_MAX, SILENCE_MAX};
use crate::clock;
use crate::tls::Tls;
use bytes::Bytes;
use flotilla_topology::ids::Identity;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncRead;
use tokio::net::{TcpListener, TcpStream, ToSocketAddrs};
use tokio::sync::{Notify, Semaphore, oneshot};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Pause after a failed accept: the process is out of files, and trying at once would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What serves the requests of a [`Server`].
pub trait Service: Send + Sync + 'static {
    /// Serves one request. Called in the order of arrival, per connection, on the task that reads
    /// it: it must not block, and spawns what has to wait. The answer may come later, from
    /// anywhere, through `reply`.
    fn call(&self, peer: &Identity, kind: u16, payload: Bytes, reply: ReplyTo);
}

type Allow = dyn Fn(&Identity) -> bool + Send + Sync;

/// Accepts connections until it is shut down or dropped; dropping cuts them off.
pub struct Server {
    local_addr: SocketAddr,
    shared: Arc<Shared>,
    /// The accepting task and one per connection.
    pub(super) tasks: TaskTracker,
}

struct Shared {
    tls: TlsAcceptor,
    allow: Box<Allow>,
    service: Arc<dyn Service>,
    room: Arc<Semaphore>,
    /// Accept nothing, let answers that are owed leave.
    drain: CancellationToken,
    /// Leave now.
    cut: CancellationToken,
}

impl Server {
    /// Listens on `addr` and serves the peers that `allow` knows. Runs on the current runtime.
    pub async fn bind(
        addr: impl ToSocketAddrs,
        tls: &Tls,
        allow: impl Fn(&Identity) -> bool + Send + Sync + 'static,
        service: Arc<dyn Service>,
    ) -> io::Result<Server> {
        Server::serve(TcpListener::bind(addr).await?, tls, allow, service)
    }

    /// As [`Server::bind`], on a listener that exists already.
    pub fn serve(
        listener: TcpListener,
        tls: &Tls,
        allow: impl Fn(&Identity) -> bool + Send + Sync + 'static,
        service: Arc<dyn Service>,
    ) -> io::Result<Server> {
        let local_addr = listener.local_addr()?;
        let shared = Arc::new(Shared {
            tls: TlsAcceptor::from(tls.server()),
            allow: Box::new(allow),
            service,
            room: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
            drain: CancellationToken::new(),
            cut: CancellationToken::new(),
        });
        let tasks = TaskTracker::new();
        tasks.spawn(accept_loop(listener, shared.clone(), tasks.clone()));
        Ok(Server { local_addr, shared, tasks })
    }

    /// Where it listens; tells the port when it was bound to port 0.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Stops accepting, tells every peer, waits up to [`DRAIN_MAX`] for the answers that are owed,
    /// and closes. Requests that arrive meanwhile are refused as not delivered.
    pub async fn shutdown(self) {
        self.shared.drain.cancel();
        self.tasks.close();
        if tokio::time::timeout(DRAIN_MAX, self.tasks.wait()).await.is_err() {
            self.shared.cut.cancel();
            self.tasks.wait().await;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.cut.cancel();
    }
}

async fn accept_loop(listener: TcpListener, shared: Arc<Shared>, tasks: TaskTracker) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shared.drain.cancelled() => return,
            () = shared.cut.cancelled() => return,
        };
        let (tcp, from) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!("cannot accept connections: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(room) = shared.room.clone().try_acquire_owned() else {
            count_rejected("connections");
            tracing::warn!("connection from {from} dropped: {CONNECTIONS_MAX} are open");
            continue;
        };
        let shared = shared.clone();
        tasks.spawn(async move {
            tokio::select! {
                () = connection(&shared, tcp, from) => {}
                () = shared.cut.cancelled() => {}
            }
            drop(room);
        });
    }
}

async fn connection(shared: &Shared, tcp: TcpStream, from: SocketAddr) {
    let greeted = tokio::select! {
        greeted = tokio::time::timeout(HANDSHAKE_TIMEOUT, greet(shared, tcp)) => greeted,
        () = shared.drain.cancelled() => return,
    };
    let greeted = match greeted {
        Ok(Ok(greeted)) => greeted,
        Ok(Err(error)) => {
            count_rejected("handshake");
            return tracing::warn!("connection from {from} refused: {error}");
        }
        Err(_) => {
            count_rejected("timeout");
            return tracing::debug!("connection from {from} dropped: no greeting in time");
        }
    };
    let Greeted { stream, reader, peer, class } = greeted;
    let conn = Arc::new(Conn::default());
    let meter = Meter::new(class, "server");
    let (mut input, mut output) = tokio::io::split(stream);
    let ended = tokio::select! {
        ended = read_loop(&conn, shared, &peer, &mut input, reader, &meter) => ended,
        ended = write_frames(&mut output, &*conn, &meter) => ended,
        ended = pulse_loop(&conn) => ended,
        never = say_goodbye(&conn, shared) => never,
    };
    conn.close();
    if let Err(error) = ended {
        tracing::debug!(%peer, class = class.as_str(), "connection from {from} ended: {error}");
    }
}

struct Greeted {
    stream: TlsStream<TcpStream>,
    reader: FrameReader,
    peer: Identity,
    class: Class,
}

async fn greet(shared: &Shared, tcp: TcpStream) -> io::Result<Greeted> {
    tcp.set_nodelay(true)?;
    let mut stream = shared.tls.accept(tcp).await?;
    let certs = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let peer = Tls::peer_identity(certs).map_err(io::Error::other)?;
    if !(shared.allow)(&peer) {
        let reason = format!("{peer} may not connect to this port");
        // Told, not just cut off: a wrong role or address is found much faster that way.
        let mut told = reason.clone();
        told.truncate(GREETING_BYTES_MAX);
        write_one(&mut stream, &Frame::plain(Sort::Goodbye, 0, told)).await?;
        tokio::io::AsyncWriteExt::shutdown(&mut stream).await?;
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, reason));
    }
    let mut reader = FrameReader::greeting();
    let hello = reader.one(&mut stream).await?;
    if hello.sort != Sort::Hello {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "expected a hello"));
    }
    let class = read_hello(&hello.payload).map_err(invalid)?;
    reader.widen();
    write_one(&mut stream, &Frame::plain(Sort::Welcome, 0, Bytes::new())).await?;
    Ok(Greeted { stream, reader, peer, class })
}

/// What a connection owes.
#[derive(Default)]
struct Conn {
    state: Mutex<ConnState>,
    /// Wakes the writer.
    wake: Notify,
    /// Wakes the reader when it waits for room.
    room: Notify,
    pulse: Pulse,
}

#[derive(Default)]
struct ConnState {
    out: VecDeque<Frame>,
    pulses: VecDeque<Frame>,
    /// Requests that the service has not answered.
    owed: usize,
    /// Bytes of those requests, and of answers that are not written.
    bytes: usize,
    /// The reader waits for room: silence of the peer means nothing then.
    stalled: bool,
    draining: bool,
    closed: bool,
}

impl ConnState {
    fn push(&mut self, frame: Frame) {
        if self.closed {
            return;
        }
        if !matches!(frame.sort, Sort::Ping | Sort::Pong) {
            self.bytes += frame.payload.len();
            self.out.push_back(frame);
        } else if self.pulses.len() < PULSES_MAX {
            self.pulses.push_back(frame);
        }
    }

    fn is_full(&self) -> bool {
        self.owed + self.out.len() >= SERVED_CALLS_MAX || self.bytes >= SERVED_BYTES_MAX
    }
}

impl Conn {
    fn push(&self, frame: Frame) {
        self.state.lock().push(frame);
        self.wake.notify_one();
    }

    /// Takes responsibility for a request. False: it must be refused.
    fn owe(&self, bytes: usize) -> bool {
        let mut state = self.state.lock();
        if state.draining {
            return false;
        }
        state.owed += 1;
        state.bytes += bytes;
        true
    }

    fn settle(&self, request_bytes: usize, answer: Frame) {
        // In one step: the writer must not see that nothing is owed before it sees the answer.
        let mut state = self.state.lock();
        state.owed -= 1;
        state.bytes -= request_bytes;
        state.push(answer);
        drop(state);
        self.wake.notify_one();
    }

    async fn wait_for_room(&self) {
        while {
            let mut state = self.state.lock();
            state.stalled = state.is_full();
            state.stalled
        } {
            self.room.notified().await;
            self.pulse.heard();
        }
    }

    fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        state.out.clear();
        state.pulses.clear();
    }
}

impl Source for Conn {
    fn take(&self, out: &mut Vec<Frame>) -> bool {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        out.extend(state.pulses.drain(..));
        let mut taken = 0;
        while taken < WRITE_BATCH_BYTES
            && let Some(frame) = state.out.pop_front()
        {
            taken += frame.wire_bytes();
            state.bytes -= frame.payload.len();
            out.push(frame);
        }
        if state.stalled && !state.is_full() {
            self.room.notify_one();
        }
        true
    }

    fn wake(&self) -> &Notify {
        &self.wake
    }
}

async fn read_loop(
    conn: &Arc<Conn>,
    shared: &Shared,
    peer: &Identity,
    input: &mut (impl AsyncRead + Unpin),
    mut reader: FrameReader,
    meter: &Meter,
) -> io::Result<()> {
    loop {
        while let Some(frame) = reader.next().map_err(invalid)? {
            meter.received(&frame);
            match frame.sort {
                Sort::Request => {
                    conn.wait_for_room().await;
                    serve(conn, shared, peer, frame);
                }
                Sort::Ping => {
                    conn.push(Frame::pulse(Sort::Pong, frame.id, clock::wall_ms()));
                }
                Sort::Pong => {
                    let there_ms = frame.payload.first_chunk().map(|b| u64::from_be_bytes(*b));
                    let there_ms = there_ms.unwrap_or_default();
                    conn.pulse.pong(frame.id, there_ms, clock::wall_ms());
                }
                _ => return Err(io::Error::new(io::ErrorKind::InvalidData, "expected a request")),
            }
        }
        reader.fill(input).await?;
        conn.pulse.heard();
    }
}

fn serve(conn: &Arc<Conn>, shared: &Shared, peer: &Identity, frame: Frame) {
    let bytes = frame.payload.len();
    if conn.owe(bytes) {
        let to = To::Peer { conn: conn.clone(), id: frame.id, bytes };
        shared.service.call(peer, frame.kind, frame.payload, ReplyTo { to: Some(to) });
    } else {
        let refused = RpcRefused::new(RpcRefused::SHUTDOWN, "the peer is shutting down");
        conn.push(Frame::plain(Sort::Refusal, frame.id, refused.encode()));
    }
}

/// Pings, so that a client hears from a server that reads nothing because it has too much to do.
async fn pulse_loop(conn: &Conn) -> io::Result<()> {
    let mut ticks = tokio::time::interval(PING_INTERVAL);
    loop {
        ticks.tick().await;
        let stalled = conn.state.lock().stalled;
        if !stalled && conn.pulse.silent_for() > SILENCE_MAX {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "the peer fell silent"));
        }
        conn.push(Frame::pulse(Sort::Ping, conn.pulse.ping(), clock::wall_ms()));
    }
}

/// Waits for the shutdown and announces it. The client hangs up when it has all its answers; until
/// then requests that were on their way are refused, so that it knows that they had no effect.
async fn say_goodbye(conn: &Conn, shared: &Shared) -> io::Result<()> {
    shared.drain.cancelled().await;
    conn.push(Frame::plain(Sort::Goodbye, 0, "the peer is shutting down"));
    conn.state.lock().draining = true;
    conn.wake.notify_one();
    std::future::pending().await
}

enum To {
    Peer { conn: Arc<Conn>, id: u64, bytes: usize },
    Local(oneshot::Sender<Result<Bytes, RpcRefused>>),
}

/// Takes the answer to one request. Dropped without an answer, it tells the caller that the outcome
/// is unknown.
pub struct ReplyTo {
    to: Option<To>,
}

impl ReplyTo {
    /// For a request that comes from this process: the answer arrives at the receiver.
    pub fn local() -> (ReplyTo, oneshot::Receiver<Result<Bytes, RpcRefused>>) {
        let (sender, receiver) = oneshot::channel();
        (ReplyTo { to: Some(To::Local(sender)) }, receiver)
    }

    /// Answers. Nothing happens when the peer is gone.
    pub fn send(mut self, answer: Result<Bytes, RpcRefused>) {
        self.deliver(answer);
    }

    fn deliver(&mut self, answer: Result<Bytes, RpcRefused>) {
        match self.to.take() {
            Some(To::Peer { conn, id, bytes }) => {
                let answer = answer.and_then(limited);
                conn.settle(
                    bytes,
                    match answer {
                        Ok(payload) => Frame::plain(Sort::Answer, id, payload),
                        Err(refused) => Frame::plain(Sort::Refusal, id, refused.encode()),
                    },
                );
            }
            Some(To::Local(sender)) => {
                let _ = sender.send(answer); // who gave up does not listen
            }
            None => {}
        }
    }
}

impl Drop for ReplyTo {
    fn drop(&mut self) {
        if self.to.is_some() {
            let message = "the peer dropped the request without an answer";
            self.deliver(Err(RpcRefused::new(RpcRefused::DROPPED, message)));
        }
    }
}

fn limited(answer: Bytes) -> Result<Bytes, RpcRefused> {
    if answer.len() <= PAYLOAD_BYTES_MAX {
        return Ok(answer);
    }
    let message = format!("its answer of {} bytes is too large", answer.len());
    Err(RpcRefused::new(RpcRefused::DROPPED, message))
}
