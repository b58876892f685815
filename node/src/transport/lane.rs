//! One class of connection to one peer: its queue, its calls in flight, and the task that dials
//! and drives it while it is needed.
//!
//! Invariants:
//! * A frame leaves the queue in the order in which it came in, and only while its call waits.
//! * Every call ends exactly once: by its answer, by being forgotten, or with the connection.
//! * `in_flight` and `in_flight_bytes` count the calls that are marked as sent.
//! * A driver task runs exactly while the phase is `Dialing`, `Up` or `Draining`.

use super::frame::{Frame, write_one};
use super::frame::{FrameReader, Sort, Source, WRITE_BATCH_BYTES, hello, invalid, write_frames};
use super::stats::{CallCounts, Meter, PULSES_MAX, Pulse, count_dial};
use super::{CONNECT_TIMEOUT, Class, Expect, HANDSHAKE_TIMEOUT, IN_FLIGHT_BYTES_MAX};
use super::{IN_FLIGHT_CALLS_MAX, PAYLOAD_BYTES_MAX, PING_INTERVAL, PeerClock, QUEUED_BYTES_MAX};
use super::{QUEUED_CALLS_MAX, RECONNECT_MAX, RECONNECT_MIN, RpcError, RpcRefused, SILENCE_MAX};
use crate::clock;
use crate::tls::Tls;
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

/// Whom to dial, and where the work runs.
pub(super) struct Target {
    pub addr: String,
    pub expect: Expect,
    pub tls: Arc<rustls::ClientConfig>,
    /// Where Raft's connections live.
    pub raft: Handle,
    /// Where all others do.
    pub runtime: Handle,
    /// When a connection of any class last came up.
    pub reached: Mutex<Option<Instant>>,
}

impl Target {
    fn was_reached_since(&self, when: Instant) -> bool {
        self.reached.lock().is_some_and(|reached| reached > when)
    }
}

type Answer = Result<Bytes, RpcError>;

enum Phase {
    /// Nobody has called yet.
    Idle,
    /// The driver dials; calls wait for the result.
    Dialing,
    /// The driver moves frames.
    Up,
    /// The server said goodbye; answers may still come.
    Draining(Arc<str>),
    /// The last dial or connection failed; calls fail until the next dial is due, or the peer is reached
    /// by another class.
    Down { since: Instant, until: Instant, reason: Arc<str> },
    /// The last [`super::Client`] is gone.
    Closed,
}

struct Call {
    answer: oneshot::Sender<Answer>,
    sent: bool,
    bytes: usize,
}

struct State {
    phase: Phase,
    backoff: Duration,
    next_id: u64,
    calls: HashMap<u64, Call>,
    queue: VecDeque<Frame>,
    queue_bytes: usize,
    /// Pings and pongs: they pass the queue and its limits.
    pulses: VecDeque<Frame>,
    in_flight: usize,
    in_flight_bytes: usize,
}

/// See the module's text.
pub(super) struct Lane {
    class: Class,
    target: Arc<Target>,
    state: Mutex<State>,
    wake: Notify,
    closed: CancellationToken,
    pulse: Mutex<Arc<Pulse>>,
    counts: Arc<CallCounts>,
}

impl Lane {
    pub fn new(class: Class, target: Arc<Target>) -> Lane {
        Lane {
            class,
            target,
            state: Mutex::new(State {
                phase: Phase::Idle,
                backoff: RECONNECT_MIN,
                next_id: 0,
                calls: HashMap::new(),
                queue: VecDeque::new(),
                queue_bytes: 0,
                pulses: VecDeque::new(),
                in_flight: 0,
                in_flight_bytes: 0,
            }),
            wake: Notify::new(),
            closed: CancellationToken::new(),
            pulse: Mutex::new(Arc::new(Pulse::default())),
            counts: Arc::new(CallCounts::new(class)),
        }
    }

    pub fn target(&self) -> &Target {
        &self.target
    }

    pub fn counts(&self) -> Arc<CallCounts> {
        self.counts.clone()
    }

    pub fn is_up(&self) -> bool {
        matches!(self.state.lock().phase, Phase::Up)
    }

    pub fn clock(&self) -> Option<PeerClock> {
        self.pulse.lock().clock(clock::wall_ms())
    }

    /// Puts a request behind those that wait, and sees to it that a driver runs.
    pub fn enqueue(
        self: &Arc<Lane>,
        kind: u16,
        payload: Bytes,
    ) -> Result<(u64, oneshot::Receiver<Answer>), RpcError> {
        if payload.len() > PAYLOAD_BYTES_MAX {
            let message = format!("a request of {} bytes is too large", payload.len());
            return Err(RpcRefused::new(RpcRefused::TOO_LARGE, message).into());
        }
        let mut state = self.state.lock();
        self.admit(&mut state, payload.len())?;
        state.next_id += 1;
        let id = state.next_id;
        let (answer, receiver) = oneshot::channel();
        let bytes = payload.len();
        state.calls.insert(id, Call { answer, sent: false, bytes });
        state.queue_bytes += bytes;
        state.queue.push_back(Frame { id, kind, sort: Sort::Request, payload });
        drop(state);
        self.wake.notify_one();
        Ok((id, receiver))
    }

    fn admit(self: &Arc<Lane>, state: &mut State, bytes: usize) -> Result<(), RpcError> {
        let full = state.queue.len() >= QUEUED_CALLS_MAX
            || (!state.queue.is_empty() && state.queue_bytes + bytes > QUEUED_BYTES_MAX);
        if full {
            return Err(self.unreachable("the queue of calls is full"));
        }
        match &state.phase {
            Phase::Dialing | Phase::Up => return Ok(()),
            Phase::Closed => return Err(self.unreachable("the client is closed")),
            Phase::Draining(reason) => return Err(RpcError::Unreachable(reason.clone())),
            Phase::Down { since, until, reason }
                if Instant::now() < *until && !self.target.was_reached_since(*since) =>
            {
                return Err(RpcError::Unreachable(reason.clone()));
            }
            Phase::Down { .. } | Phase::Idle => {}
        }
        state.phase = Phase::Dialing;
        let target = &self.target;
        let runtime = if self.class.is_rafts() { &target.raft } else { &target.runtime };
        runtime.spawn(drive(self.clone()));
        Ok(())
    }

    fn unreachable(&self, what: &str) -> RpcError {
        RpcError::Unreachable(format!("{}: {what}", self.target.addr).into())
    }

    /// Gives up a call. Tells whether it had been sent, or none if it had ended.
    pub fn forget(&self, id: u64) -> Option<bool> {
        self.take_call(id).map(|call| call.sent)
    }

    fn take_call(&self, id: u64) -> Option<Call> {
        let mut state = self.state.lock();
        let call = state.calls.remove(&id)?;
        if call.sent {
            state.in_flight -= 1;
            state.in_flight_bytes -= call.bytes;
            let waiting = !state.queue.is_empty() || matches!(state.phase, Phase::Draining(_));
            drop(state);
            if waiting {
                self.wake.notify_one(); // room for the next, or the last answer before the end
            }
        }
        Some(call)
    }

    /// Ends all connections for good.
    pub fn close(&self) {
        self.closed.cancel();
        self.end(Phase::Closed, "the client is closed");
    }

    /// Ends every call; those that never left are known to be undelivered.
    fn end(&self, phase: Phase, reason: &str) {
        let reason: Arc<str> = format!("{}: {reason}", self.target.addr).into();
        let mut state = self.state.lock();
        if !matches!(state.phase, Phase::Closed) {
            state.phase = phase;
        }
        state.queue.clear();
        state.queue_bytes = 0;
        state.pulses.clear();
        (state.in_flight, state.in_flight_bytes) = (0, 0);
        let calls = std::mem::take(&mut state.calls);
        drop(state);
        for call in calls.into_values() {
            let error = if call.sent { RpcError::Lost } else { RpcError::Unreachable };
            let _ = call.answer.send(Err(error(reason.clone()))); // who gave up does not listen
        }
    }

    /// The connection or the dial failed: the next dial waits, longer each time.
    fn down(&self, error: &io::Error, was_up: bool) {
        let reason = error.to_string();
        let wait = {
            let mut state = self.state.lock();
            let wait = if was_up { RECONNECT_MIN } else { state.backoff };
            state.backoff = (wait * 2).min(RECONNECT_MAX);
            wait
        };
        let full: Arc<str> = format!("{}: {reason}", self.target.addr).into();
        let since = Instant::now();
        self.end(Phase::Down { since, until: since + wait, reason: full }, &reason);
    }

    /// The server will serve nothing more: fail what has not left, wait for the other answers.
    fn drain(&self, reason: &str) {
        let reason: Arc<str> = format!("{}: {reason}", self.target.addr).into();
        let mut state = self.state.lock();
        state.phase = Phase::Draining(reason.clone());
        let queue = std::mem::take(&mut state.queue);
        state.queue_bytes = 0;
        let calls: Vec<_> = queue.iter().filter_map(|f| state.calls.remove(&f.id)).collect();
        drop(state);
        for call in calls {
            let _ = call.answer.send(Err(RpcError::Unreachable(reason.clone())));
        }
        self.wake.notify_one();
    }

    fn push_pulse(&self, frame: Frame) {
        let mut state = self.state.lock();
        if state.pulses.len() < PULSES_MAX {
            state.pulses.push_back(frame);
        }
        drop(state);
        self.wake.notify_one();
    }
}

impl Source for Lane {
    fn take(&self, out: &mut Vec<Frame>) -> bool {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        out.extend(state.pulses.drain(..));
        let mut taken = 0;
        while taken < WRITE_BATCH_BYTES
            && let Some(next) = state.queue.front()
        {
            let bytes = next.payload.len();
            let room = state.in_flight < IN_FLIGHT_CALLS_MAX
                && state.in_flight_bytes + bytes <= IN_FLIGHT_BYTES_MAX;
            if !room && state.in_flight > 0 {
                break;
            }
            let Some(frame) = state.queue.pop_front() else { break };
            state.queue_bytes -= bytes;
            if let Some(call) = state.calls.get_mut(&frame.id) {
                call.sent = true;
                state.in_flight += 1;
                state.in_flight_bytes += bytes;
                taken += frame.wire_bytes();
                out.push(frame);
            }
        }
        !(matches!(state.phase, Phase::Draining(_)) && state.in_flight == 0)
    }

    fn wake(&self) -> &Notify {
        &self.wake
    }
}

/// Dials, moves frames until the connection ends, and leaves. The next call starts it again.
async fn drive(lane: Arc<Lane>) {
    let connected = tokio::select! {
        connected = connect(&lane.target, lane.class) => connected,
        () = lane.closed.cancelled() => return,
    };
    let (stream, reader) = match connected {
        Ok(connected) => connected,
        Err(error) => {
            count_dial("failed");
            tracing::debug!(
                peer = %lane.target.expect, class = lane.class.as_str(),
                "cannot reach {}: {error}", lane.target.addr
            );
            return lane.down(&error, false);
        }
    };
    count_dial("connected");
    let pulse = Arc::new(Pulse::default());
    *lane.pulse.lock() = pulse.clone();
    {
        let mut state = lane.state.lock();
        if matches!(state.phase, Phase::Closed) {
            return;
        }
        state.phase = Phase::Up;
        // A peer that was away is back: no other class waits out its pause.
        *lane.target.reached.lock() = Some(Instant::now());
    }
    let meter = Meter::new(lane.class, "client");
    let (mut input, mut output) = tokio::io::split(stream);
    let ended = tokio::select! {
        ended = read_loop(&lane, &mut input, reader, &pulse, &meter) => ended,
        ended = write_frames(&mut output, &*lane, &meter) => ended,
        ended = ping_loop(&lane, &pulse) => ended,
        () = lane.closed.cancelled() => Ok(()),
    };
    let error = ended.err().unwrap_or_else(|| io::Error::other("the server shut down"));
    tracing::debug!(
        peer = %lane.target.expect, class = lane.class.as_str(),
        "connection to {} ended: {error}", lane.target.addr
    );
    lane.down(&error, true);
    hang_up(input, output).await;
}

/// Says good-bye to the peer's TLS, as well as it goes.
async fn hang_up(input: ReadHalf<TlsStream<TcpStream>>, output: WriteHalf<TlsStream<TcpStream>>) {
    let mut stream = input.unsplit(output);
    let closing = tokio::io::AsyncWriteExt::shutdown(&mut stream);
    let _ = tokio::time::timeout(RECONNECT_MIN, closing).await;
}

fn timed_out(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, what)
}

async fn connect(target: &Target, class: Class) -> io::Result<(TlsStream<TcpStream>, FrameReader)> {
    let tcp = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(&target.addr));
    let tcp = tcp.await.map_err(|_| timed_out("no answer to the dial"))??;
    tokio::time::timeout(HANDSHAKE_TIMEOUT, greet(target, class, tcp))
        .await
        .map_err(|_| timed_out("no answer in the handshake"))?
}

async fn greet(
    target: &Target,
    class: Class,
    tcp: TcpStream,
) -> io::Result<(TlsStream<TcpStream>, FrameReader)> {
    tcp.set_nodelay(true)?;
    let connector = TlsConnector::from(target.tls.clone());
    let mut stream = connector.connect(Tls::server_name(), tcp).await?;
    let certs = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let peer = Tls::peer_identity(certs).map_err(io::Error::other)?;
    if !target.expect.accepts(&peer) {
        let wrong = format!("expected {} there and found {peer}: check the address", target.expect);
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, wrong));
    }
    write_one(&mut stream, &Frame::plain(Sort::Hello, 0, hello(class))).await?;
    let mut reader = FrameReader::greeting();
    let welcome = reader.one(&mut stream).await?;
    match welcome.sort {
        Sort::Welcome => {
            reader.widen();
            Ok((stream, reader))
        }
        Sort::Goodbye => {
            let reason = String::from_utf8_lossy(&welcome.payload).into_owned();
            Err(io::Error::new(io::ErrorKind::PermissionDenied, reason))
        }
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "expected a welcome")),
    }
}

async fn read_loop(
    lane: &Lane,
    input: &mut (impl AsyncRead + Unpin),
    mut reader: FrameReader,
    pulse: &Pulse,
    meter: &Meter,
) -> io::Result<()> {
    loop {
        while let Some(frame) = reader.next().map_err(invalid)? {
            meter.received(&frame);
            handle(lane, pulse, frame)?;
        }
        reader.fill(input).await?;
        pulse.heard();
    }
}

fn handle(lane: &Lane, pulse: &Pulse, frame: Frame) -> io::Result<()> {
    let outcome = match frame.sort {
        Sort::Answer => Ok(frame.payload),
        Sort::Refusal => Err(refusal(lane, &frame.payload).map_err(invalid)?),
        Sort::Ping => {
            lane.push_pulse(Frame::pulse(Sort::Pong, frame.id, clock::wall_ms()));
            return Ok(());
        }
        Sort::Pong => {
            note_pong(lane, pulse, &frame);
            return Ok(());
        }
        Sort::Goodbye => {
            lane.drain(&String::from_utf8_lossy(&frame.payload));
            return Ok(());
        }
        Sort::Request | Sort::Hello | Sort::Welcome => {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "expected an answer"));
        }
    };
    if let Some(call) = lane.take_call(frame.id) {
        let _ = call.answer.send(outcome);
    }
    Ok(())
}

fn refusal(lane: &Lane, payload: &[u8]) -> Result<RpcError, crate::codec::DecodeError> {
    let refused = RpcRefused::decode(payload)?;
    Ok(match refused.code {
        RpcRefused::SHUTDOWN => lane.unreachable(&refused.message),
        // It reached the service, which may have acted on it: not a refusal that may be retried.
        RpcRefused::DROPPED => {
            RpcError::Lost(format!("{}: {}", lane.target.addr, refused.message).into())
        }
        _ => RpcError::Refused(refused),
    })
}

fn note_pong(lane: &Lane, pulse: &Pulse, frame: &Frame) {
    let Some(there_ms) = frame.payload.first_chunk().map(|bytes| u64::from_be_bytes(*bytes)) else {
        return;
    };
    if let Some(clock) = pulse.pong(frame.id, there_ms, clock::wall_ms()) {
        let peer = lane.target.expect.to_string();
        let class = lane.class.as_str();
        let rtt = clock.rtt.as_secs_f64();
        metrics::gauge!(
            "flotilla_transport_rtt_seconds", "peer" => peer.clone(), "class" => class
        )
        .set(rtt);
        metrics::gauge!(
            "flotilla_transport_clock_offset_seconds", "peer" => peer, "class" => class
        )
        .set(clock.offset_ms as f64 / 1000.0);
    }
}

async fn ping_loop(lane: &Lane, pulse: &Pulse) -> io::Result<()> {
    let mut ticks = tokio::time::interval(PING_INTERVAL);
    loop {
        ticks.tick().await;
        if pulse.silent_for() > SILENCE_MAX {
            return Err(timed_out("the peer fell silent"));
        }
        lane.push_pulse(Frame::pulse(Sort::Ping, pulse.ping(), clock::wall_ms()));
    }
}
