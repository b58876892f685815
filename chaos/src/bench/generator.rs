//! The load generator: one thread, a small runtime of its own, and raw RESP bytes.
//!
//! Each connection writes a batch, counts the replies without building them, and writes the next.
//! A batch is timed from before its write to its last reply.

use super::{Case, Command, Config, cpu};
use anyhow::{Context, Result, anyhow};
use hdrhistogram::Histogram;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// A batch that takes longer counts as a failed connection.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest time that the histogram keeps apart.
const LATENCY_MAX_US: u64 = 20_000_000;
/// How much is read at once.
const READ_BYTES: usize = 64 << 10;
/// How the keys are written before the measurement.
const LOAD_CONNECTIONS: usize = 8;
const LOAD_PIPELINE: usize = 64;

/// Where to send, and which keys; all when `None`.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) address: String,
    pub(super) keys: Option<Arc<[u32]>>,
}

/// What one run showed.
pub(super) struct Measured {
    pub(super) operations: u64,
    pub(super) errors: u64,
    pub(super) first_error: Option<String>,
    pub(super) took: Duration,
    /// Microseconds per batch.
    pub(super) latency: Histogram<u64>,
    pub(super) generator_cpu: f64,
}

/// The name of a key.
pub(super) fn key(number: u32) -> String {
    format!("bench:{number:08}")
}

/// Measures one case.
pub(super) async fn run(
    targets: &[Target],
    case: Case,
    config: &Config,
    round: usize,
) -> Result<Measured> {
    let mut connections = Vec::new();
    for number in 0..case.connections {
        // With fewer connections than targets, each round asks others.
        let target = &targets[(number + round) % targets.len()];
        connections.push(Connection::new(number, target.clone(), case, config));
    }
    let duration = config.duration;
    on_own_thread(connections, Some(duration)).await
}

/// Writes all keys once.
pub(super) async fn load(targets: &[Target], config: &Config) -> Result<Measured> {
    let case =
        Case { command: Command::Set, connections: LOAD_CONNECTIONS, pipeline: LOAD_PIPELINE };
    let mut connections = Vec::new();
    for number in 0..LOAD_CONNECTIONS {
        let target = &targets[number % targets.len()];
        let mut connection = Connection::new(number, target.clone(), case, config);
        let mine = (0..config.keys).filter(|key| *key as usize % LOAD_CONNECTIONS == number);
        connection.in_order = Some(mine.collect());
        connections.push(connection);
    }
    on_own_thread(connections, None).await
}

async fn on_own_thread(
    connections: Vec<Connection>,
    duration: Option<Duration>,
) -> Result<Measured> {
    let (done, result) = tokio::sync::oneshot::channel();
    let work = move || {
        let measured = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot start the generator")
            .and_then(|runtime| runtime.block_on(drive(connections, duration)));
        // Nobody waits any more: then nobody wants it.
        let _ = done.send(measured);
    };
    std::thread::Builder::new().name("generator".into()).spawn(work)?;
    result.await.map_err(|_| anyhow!("the generator failed"))?
}

async fn drive(connections: Vec<Connection>, duration: Option<Duration>) -> Result<Measured> {
    let mut tasks = JoinSet::new();
    let mut streams = Vec::new();
    for connection in connections {
        let address = &connection.target.address;
        let stream = TcpStream::connect(address).await;
        let stream = stream.with_context(|| format!("cannot connect to {address}"))?;
        stream.set_nodelay(true)?;
        streams.push((connection, stream));
    }
    let cpu = cpu::seconds_of_this_thread()?;
    let started = Instant::now();
    for (connection, stream) in streams {
        tasks.spawn(connection.run(stream, duration.map(|duration| started + duration)));
    }
    let mut measured = Measured {
        operations: 0,
        errors: 0,
        first_error: None,
        took: Duration::ZERO,
        latency: Histogram::new_with_bounds(1, LATENCY_MAX_US, 3)?,
        generator_cpu: 0.0,
    };
    while let Some(connection) = tasks.join_next().await {
        let connection = connection?;
        measured.operations += connection.operations;
        measured.errors += connection.replies.errors;
        measured.first_error = measured.first_error.or(connection.replies.first_error);
        measured.latency.add(&connection.latency)?;
    }
    measured.took = started.elapsed();
    measured.generator_cpu = cpu::seconds_of_this_thread()? - cpu;
    Ok(measured)
}

struct Connection {
    target: Target,
    case: Case,
    keys: u32,
    dice: SmallRng,
    value: Vec<u8>,
    /// Keys to write once, in this order from the end, instead of random ones.
    in_order: Option<Vec<u32>>,
    request: Vec<u8>,
    replies: Replies,
    operations: u64,
    latency: Histogram<u64>,
}

impl Connection {
    fn new(number: usize, target: Target, case: Case, config: &Config) -> Connection {
        let mut dice = SmallRng::seed_from_u64(number as u64);
        // Text without repetition, so that no compression makes it cheaper than it looks.
        let value = (0..config.value_bytes).map(|_| dice.random_range(b'!'..=b'~')).collect();
        let latency = Histogram::new_with_bounds(1, LATENCY_MAX_US, 3);
        Connection {
            target,
            case,
            keys: config.keys,
            dice,
            value,
            in_order: None,
            request: Vec::new(),
            replies: Replies::default(),
            operations: 0,
            latency: latency.expect("constant bounds are valid"),
        }
    }

    async fn run(mut self, mut stream: TcpStream, until: Option<Instant>) -> Connection {
        while until.is_none_or(|until| Instant::now() < until) {
            let count = self.prepare();
            if count == 0 {
                break;
            }
            let sent = Instant::now();
            match tokio::time::timeout(PATIENCE, self.exchange(&mut stream, count)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    self.replies.failed(format!("{}: {error}", self.target.address));
                    break;
                }
                Err(_) => {
                    self.replies.failed(format!("{}: no reply", self.target.address));
                    break;
                }
            }
            let took = u64::try_from(sent.elapsed().as_micros()).unwrap_or(LATENCY_MAX_US);
            self.latency.saturating_record(took.max(1));
            self.operations += count as u64;
        }
        self
    }

    /// Builds the next batch and says how many commands it has.
    fn prepare(&mut self) -> usize {
        self.request.clear();
        for count in 0..self.case.pipeline {
            let key = match &mut self.in_order {
                Some(keys) => match keys.pop() {
                    Some(key) => key,
                    None => return count,
                },
                None => match &self.target.keys {
                    Some(keys) => keys[self.dice.random_range(0..keys.len())],
                    None => self.dice.random_range(0..self.keys),
                },
            };
            self.append(key);
        }
        self.case.pipeline
    }

    fn append(&mut self, number: u32) {
        let (key, request) = (key(number), &mut self.request);
        let command = match self.case.command {
            Command::Get => format!("*2\r\n$3\r\nGET\r\n${}\r\n{key}\r\n", key.len()),
            Command::Set => {
                let (keys, values) = (key.len(), self.value.len());
                format!("*3\r\n$3\r\nSET\r\n${keys}\r\n{key}\r\n${values}\r\n")
            }
        };
        request.extend_from_slice(command.as_bytes());
        if self.case.command == Command::Set {
            // Each value differs from the one before.
            let at = self.dice.random_range(0..self.value.len().max(1));
            if let Some(byte) = self.value.get_mut(at) {
                *byte = if *byte == b'~' { b'!' } else { *byte + 1 };
            }
            request.extend_from_slice(&self.value);
            request.extend_from_slice(b"\r\n");
        }
    }

    async fn exchange(&mut self, stream: &mut TcpStream, count: usize) -> std::io::Result<()> {
        stream.write_all(&self.request).await?;
        self.replies.read(stream, count).await
    }
}

/// Counts replies without building them.
#[derive(Default)]
pub(super) struct Replies {
    buffer: Vec<u8>,
    pub(super) errors: u64,
    pub(super) first_error: Option<String>,
}

impl Replies {
    async fn read(&mut self, stream: &mut TcpStream, count: usize) -> std::io::Result<()> {
        let (mut seen, mut at) = (0, 0);
        self.buffer.clear();
        loop {
            while seen < count {
                let Some(end) = self.skip(at)? else { break };
                (at, seen) = (end, seen + 1);
            }
            if seen == count {
                return Ok(());
            }
            self.buffer.reserve(READ_BYTES);
            if stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Where the reply that starts at `at` ends; `None` when it is incomplete.
    pub(super) fn skip(&mut self, at: usize) -> std::io::Result<Option<usize>> {
        let rest = &self.buffer[at..];
        let Some(line) = rest.iter().position(|byte| *byte == b'\n') else { return Ok(None) };
        let end = at + line + 1;
        match rest[0] {
            b'+' | b':' | b'_' => Ok(Some(end)),
            b'$' if rest[1] == b'-' => Ok(Some(end)),
            b'$' => {
                let digits = rest[1..line].iter().filter(|byte| byte.is_ascii_digit());
                let size = digits.fold(0usize, |size, digit| {
                    size.saturating_mul(10).saturating_add(usize::from(digit - b'0'))
                });
                let end = end.saturating_add(size).saturating_add(2);
                Ok((end <= self.buffer.len()).then_some(end))
            }
            b'-' => {
                let text = String::from_utf8_lossy(&rest[..line]).trim_end().to_owned();
                self.failed(text);
                Ok(Some(end))
            }
            _ => Err(std::io::Error::other("a reply of unknown type")),
        }
    }

    #[cfg(test)]
    pub(super) fn over(bytes: &[u8]) -> Replies {
        Replies { buffer: bytes.to_vec(), ..Replies::default() }
    }

    fn failed(&mut self, what: String) {
        self.errors += 1;
        self.first_error.get_or_insert(what);
    }
}
