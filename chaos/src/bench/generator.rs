//! The load generator: one thread, a small runtime of its own, and raw RESP bytes.
//!
//! Closed loop: each connection writes a batch, counts the replies without building them, and
//! writes the next. A batch is timed from before its write to its last reply. The open loop is in
//! [`open`](super::open).

use super::case::{Case, Command, Material};
use super::etcd;
use super::keys::Keys;
use super::open::Schedule;
use super::timeline::Timeline;
use super::usage;
use super::worker::{Line, Worker};
use anyhow::{Context, Result, anyhow};
use hdrhistogram::Histogram;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// Longest time that the histogram keeps apart.
pub(super) const LATENCY_MAX_US: u64 = 20_000_000;
/// How the keys are written before the measurement.
const LOAD_CONNECTIONS: usize = 8;
const LOAD_PIPELINE: usize = 64;
/// The same of values of any size: a batch has so many bytes at most, or one value.
const LOAD_BYTES: usize = 1 << 20;

/// How a target is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Door {
    /// RESP.
    Resp,
    /// RESP after READONLY.
    Readonly,
    /// etcd's gRPC.
    Etcd,
}

/// Where to send, and which keys; all when `None`.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) door: Door,
    pub(super) address: String,
    pub(super) keys: Option<Arc<[u32]>>,
}

/// What to send.
#[derive(Debug, Clone)]
pub(super) struct Load {
    pub(super) case: Case,
    /// Keys for targets that have none of their own.
    pub(super) keys: Keys,
    pub(super) value_bytes: usize,
    /// Where times are noted by when each request was due; of the open loop only.
    pub(super) timeline: Option<Timeline>,
}

/// When to send, and when to stop.
#[derive(Debug, Clone, Copy)]
pub(super) enum Pace {
    /// The next batch when the last one is answered, for so long.
    Closed(Duration),
    /// Each request when it is due.
    Open(Schedule),
    /// All keys that a connection was given, once.
    Once,
}

/// What one run showed.
pub(super) struct Measured {
    pub(super) operations: u64,
    /// Requests that were due and not sent, since the server was too far behind.
    pub(super) unsent: u64,
    /// Bytes of keys, fields, members and values in what was sent.
    pub(super) user_bytes: u64,
    pub(super) errors: u64,
    /// Replies, or parts of them, that were empty.
    pub(super) nothing: u64,
    pub(super) first_error: Option<String>,
    pub(super) took: Duration,
    /// Microseconds per batch.
    pub(super) latency: Histogram<u64>,
    pub(super) generator_cpu: f64,
}

/// A connection to be made.
struct Seat {
    number: usize,
    target: Target,
    load: Load,
    /// Keys to write once, in this order from the end.
    in_order: Option<Vec<u32>>,
}

/// Measures one case. With fewer connections than targets, each `round` asks others.
pub(super) async fn run(
    targets: &[Target],
    load: &Load,
    pace: Pace,
    round: usize,
) -> Result<Measured> {
    let seat = |number: usize| Seat {
        number,
        target: targets[(number + round) % targets.len()].clone(),
        load: load.clone(),
        in_order: None,
    };
    on_own_thread((0..load.case.connections).map(seat).collect(), pace).await
}

/// Writes all keys below `keys` once.
pub(super) async fn load(targets: &[Target], keys: u32, value_bytes: usize) -> Result<Measured> {
    if targets.iter().any(|target| target.door == Door::Etcd) {
        let targets = targets.to_vec();
        return in_own_thread(async move { etcd::load(&targets, keys, value_bytes).await }).await;
    }
    let pipeline = (LOAD_BYTES / value_bytes.max(1)).clamp(1, LOAD_PIPELINE);
    let case = Case { command: Command::Set, connections: LOAD_CONNECTIONS, pipeline };
    let load = Load { case, keys: Keys::Below(keys), value_bytes, timeline: None };
    let seat = |number: usize| Seat {
        number,
        target: targets[number % targets.len()].clone(),
        load: load.clone(),
        in_order: Some((number as u32..keys).step_by(LOAD_CONNECTIONS).collect()),
    };
    on_own_thread((0..LOAD_CONNECTIONS).map(seat).collect(), Pace::Once).await
}

async fn on_own_thread(seats: Vec<Seat>, pace: Pace) -> Result<Measured> {
    in_own_thread(drive(seats, pace)).await
}

async fn in_own_thread(
    work: impl Future<Output = Result<Measured>> + Send + 'static,
) -> Result<Measured> {
    let (done, result) = tokio::sync::oneshot::channel();
    let run = move || {
        let measured = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot start the generator")
            .and_then(|runtime| runtime.block_on(work));
        // Nobody waits any more: then nobody wants it.
        let _ = done.send(measured);
    };
    std::thread::Builder::new().name("generator".into()).spawn(run)?;
    result.await.map_err(|_| anyhow!("the generator failed"))?
}

async fn drive(seats: Vec<Seat>, pace: Pace) -> Result<Measured> {
    let mut workers = Vec::new();
    for seat in seats {
        workers.extend(seat.sit().await?);
    }
    let cpu = usage::seconds_of_this_thread()?;
    let (started, count) = (Instant::now(), workers.len());
    let mut tasks = JoinSet::new();
    for (number, worker) in workers.into_iter().enumerate() {
        tasks.spawn(worker.run(pace, started, (number, count)));
    }
    let mut measured = Measured::nothing()?;
    while let Some(worker) = tasks.join_next().await {
        let worker = worker?;
        measured.operations += worker.operations;
        measured.unsent += worker.unsent;
        measured.user_bytes += worker.user_bytes;
        measured.errors += worker.replies.errors;
        if worker.load.case.command.finds() {
            measured.nothing += worker.replies.nothing;
        }
        measured.first_error = measured.first_error.or(worker.replies.first_error);
        measured.latency.add(&worker.latency)?;
    }
    measured.took = started.elapsed();
    measured.generator_cpu = usage::seconds_of_this_thread()? - cpu;
    Ok(measured)
}

impl Measured {
    pub(super) fn nothing() -> Result<Measured> {
        Ok(Measured {
            operations: 0,
            unsent: 0,
            user_bytes: 0,
            errors: 0,
            nothing: 0,
            first_error: None,
            took: Duration::ZERO,
            latency: Histogram::new_with_bounds(1, LATENCY_MAX_US, 3)?,
            generator_cpu: 0.0,
        })
    }
}

impl Seat {
    /// Connects. A RESP connection has one worker, which sends batches; one of etcd has as many as
    /// requests are to be in flight.
    async fn sit(self) -> Result<Vec<Worker>> {
        let Seat { number, target: Target { door, address, keys }, mut load, in_order } = self;
        load.keys = keys.map_or(load.keys, Keys::These);
        let worker = |line, load: Load, number: usize| {
            let dice = SmallRng::seed_from_u64(number as u64);
            let with = Material::new(dice, load.value_bytes);
            Worker::new(address.clone(), line, load, with, in_order.clone())
        };
        if door == Door::Etcd {
            let client = etcd::connect(&address).await?;
            let inflight = std::mem::replace(&mut load.case.pipeline, 1);
            let workers = (0..inflight).map(|one| {
                worker(Line::Etcd(Box::new(client.clone())), load.clone(), number * inflight + one)
            });
            return Ok(workers.collect());
        }
        let stream = TcpStream::connect(&address).await;
        let mut stream = stream.with_context(|| format!("cannot connect to {address}"))?;
        stream.set_nodelay(true)?;
        if door == Door::Readonly {
            stream.write_all(b"*1\r\n$8\r\nREADONLY\r\n").await?;
            let mut replies = super::replies::Replies::default();
            replies.read(&mut stream, 1).await?;
            replies.first_error.map_or(Ok(()), |error| Err(anyhow!("{address}: {error}")))?;
        }
        Ok(vec![worker(Line::Resp(stream), load, number)])
    }
}
