//! One connection of the generator, or one request in flight to etcd.

use super::case::{self, Material};
use super::etcd::{self, KvClient};
use super::generator::{LATENCY_MAX_US, Load, Pace};
use super::open::{Schedule, Timer};
use super::replies::Replies;
use hdrhistogram::Histogram;
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

/// A batch that takes longer counts as a failed connection.
const PATIENCE: Duration = Duration::from_secs(10);

/// What requests go through.
pub(super) enum Line {
    Resp(TcpStream),
    Etcd(Box<KvClient>),
}

/// Sends and counts.
pub(super) struct Worker {
    address: String,
    line: Line,
    pub(super) load: Load,
    with: Material,
    in_order: Option<Vec<u32>>,
    /// A batch in RESP.
    request: Vec<u8>,
    pub(super) replies: Replies,
    pub(super) operations: u64,
    pub(super) unsent: u64,
    pub(super) user_bytes: u64,
    /// Microseconds per batch.
    pub(super) latency: Histogram<u64>,
}

impl Worker {
    pub(super) fn new(
        address: String,
        line: Line,
        load: Load,
        with: Material,
        in_order: Option<Vec<u32>>,
    ) -> Worker {
        let latency = Histogram::new_with_bounds(1, LATENCY_MAX_US, 3);
        Worker {
            address,
            line,
            load,
            with,
            in_order,
            request: Vec::new(),
            replies: Replies::default(),
            operations: 0,
            unsent: 0,
            user_bytes: 0,
            latency: latency.expect("constant bounds are valid"),
        }
    }

    /// Works until its pace says that it is over, or the connection fails. `place` is its number
    /// and how many there are.
    pub(super) async fn run(
        mut self,
        pace: Pace,
        started: Instant,
        place: (usize, usize),
    ) -> Worker {
        match pace {
            Pace::Closed(duration) => self.closed(Some(started + duration)).await,
            Pace::Once => self.closed(None).await,
            Pace::Open(schedule) => self.open(schedule, started, place).await,
        }
        self
    }

    async fn closed(&mut self, until: Option<Instant>) {
        while until.is_none_or(|until| Instant::now() < until) {
            if !self.batch(Instant::now()).await {
                return;
            }
        }
    }

    async fn open(
        &mut self,
        schedule: Schedule,
        started: Instant,
        (number, count): (usize, usize),
    ) {
        let mut timer = match Timer::new() {
            Ok(timer) => timer,
            Err(error) => return self.replies.failed(format!("cannot make a timer: {error}")),
        };
        for turn in 0.. {
            let Some(offset) = schedule.due(turn, number, count) else { return };
            if started.elapsed() > schedule.gives_up() {
                self.unsent += 1;
                continue;
            }
            let due = started + offset;
            if let Err(error) = timer.until(due).await {
                return self.replies.failed(format!("cannot wait: {error}"));
            }
            if !self.batch(due).await {
                return;
            }
            if let Some(timeline) = &self.load.timeline {
                timeline.note(offset, due.elapsed());
            }
        }
    }

    /// Sends one batch and waits for its end; its time counts from `since`. False: no more.
    async fn batch(&mut self, since: Instant) -> bool {
        let exchange = tokio::time::timeout(PATIENCE, self.exchange());
        let count = match exchange.await {
            Ok(Ok(0)) => return false,
            Ok(Ok(count)) => count,
            Ok(Err(error)) => {
                self.replies.failed(format!("{}: {error}", self.address));
                return false;
            }
            Err(_) => {
                self.replies.failed(format!("{}: no reply within {PATIENCE:?}", self.address));
                return false;
            }
        };
        let took = u64::try_from(since.elapsed().as_micros()).unwrap_or(LATENCY_MAX_US);
        self.latency.saturating_record(took.max(1));
        self.operations += count as u64;
        true
    }

    async fn exchange(&mut self) -> std::io::Result<usize> {
        if matches!(self.line, Line::Resp(_)) {
            let count = self.prepare();
            let Line::Resp(stream) = &mut self.line else { return Ok(0) };
            if count > 0 {
                stream.write_all(&self.request).await?;
                self.replies.read(stream, count).await?;
            }
            return Ok(count);
        }
        let key = case::key(self.load.keys.choose(&mut self.with.dice));
        let Line::Etcd(client) = &mut self.line else { return Ok(0) };
        let command = self.load.case.command;
        match etcd::exchange(client, command, key, &mut self.with).await {
            Ok(etcd::Done { user_bytes, found }) => {
                self.user_bytes += user_bytes as u64;
                self.replies.nothing += u64::from(!found);
            }
            // As an error reply of RESP: the connection goes on.
            Err(error) => self.replies.failed(error.to_string()),
        }
        Ok(1)
    }

    /// Builds the next batch and says how many commands it has.
    fn prepare(&mut self) -> usize {
        self.request.clear();
        let Load { case, keys, .. } = &self.load;
        for count in 0..case.pipeline {
            let given = match &mut self.in_order {
                None => None,
                Some(keys) => match keys.pop() {
                    Some(key) => Some(key),
                    None => return count,
                },
            };
            let choose = |dice: &mut _| given.unwrap_or_else(|| keys.choose(dice));
            let bytes = case::append(case.command, choose, &mut self.with, &mut self.request);
            self.user_bytes += bytes as u64;
        }
        case.pipeline
    }
}
