//! What the server counts, for INFO and for Prometheus.
//!
//! Handles of metrics are taken once, when the server starts: install the recorder before.

use super::backend::Door;
use crate::command::{Flags, Place, Spec, TABLE};
use crate::resp::Reply;
use metrics::{Counter, Gauge, Histogram};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Error codes that are told apart; more of them count as OTHER, so that replies which quote
/// clients cannot fill the memory.
const ERROR_CODES_MAX: usize = 64;
/// Over how long the rate of commands is taken.
const RATE_WINDOW: Duration = Duration::from_secs(1);

/// Counters of one command.
struct PerCommand {
    calls: AtomicU64,
    failed: AtomicU64,
    nanos: AtomicU64,
    ok: Counter,
    error: Counter,
    seconds: Histogram,
}

/// Counters of the whole server.
pub(super) struct Stats {
    commands: Vec<PerCommand>,
    errors: Mutex<BTreeMap<String, u64>>,
    pub(super) clients: AtomicUsize,
    /// Of these, how many wait in a command.
    pub(super) waiting: AtomicUsize,
    pub(super) accepted: AtomicU64,
    pub(super) rejected: AtomicU64,
    pub(super) bytes_in: AtomicU64,
    pub(super) bytes_out: AtomicU64,
    pub(super) error_replies: AtomicU64,
    rate: Mutex<Rate>,
    clients_gauge: [Gauge; 2],
    waiting_gauge: Gauge,
    accepted_counter: Counter,
    rejected_counter: Counter,
    bytes_in_counter: Counter,
    bytes_out_counter: Counter,
    closed: BTreeMap<&'static str, Counter>,
}

struct Rate {
    since: Instant,
    calls: u64,
    per_second: u64,
}

/// Why connections were closed, other than by the client.
pub(super) const CLOSE_REASONS: [&str; 6] =
    ["protocol", "output_limit", "output_stall", "idle", "memory", "shutdown"];

impl Stats {
    pub(super) fn new() -> Stats {
        describe();
        let gauge = |door: Door| metrics::gauge!("flotilla_clients", "door" => door.as_str());
        let closed = |reason| {
            (reason, metrics::counter!("flotilla_clients_closed_total", "reason" => reason))
        };
        Stats {
            commands: TABLE.iter().map(PerCommand::new).collect(),
            errors: Mutex::default(),
            clients: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            accepted: AtomicU64::new(0),
            rejected: AtomicU64::new(0),
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            error_replies: AtomicU64::new(0),
            rate: Mutex::new(Rate { since: Instant::now(), calls: 0, per_second: 0 }),
            clients_gauge: [gauge(Door::Plain), gauge(Door::Cluster)],
            waiting_gauge: metrics::gauge!("flotilla_clients_waiting"),
            accepted_counter: metrics::counter!("flotilla_clients_accepted_total"),
            rejected_counter: metrics::counter!("flotilla_clients_rejected_total"),
            bytes_in_counter: metrics::counter!("flotilla_client_bytes_total", "way" => "in"),
            bytes_out_counter: metrics::counter!("flotilla_client_bytes_total", "way" => "out"),
            closed: CLOSE_REASONS.into_iter().map(closed).collect(),
        }
    }

    pub(super) fn connected(&self, door: Door) {
        self.accepted.fetch_add(1, Ordering::Relaxed);
        self.accepted_counter.increment(1);
        self.clients_gauge[door as usize].increment(1.0);
    }

    pub(super) fn disconnected(&self, door: Door) {
        self.clients_gauge[door as usize].decrement(1.0);
    }

    /// A client begins to wait in a command, or waits no more.
    pub(super) fn waits(&self, begins: bool) {
        if begins {
            self.waiting.fetch_add(1, Ordering::Relaxed);
            self.waiting_gauge.increment(1.0);
        } else {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            self.waiting_gauge.decrement(1.0);
        }
    }

    pub(super) fn reject(&self) {
        self.rejected.fetch_add(1, Ordering::Relaxed);
        self.rejected_counter.increment(1);
    }

    pub(super) fn close(&self, reason: &'static str) {
        if let Some(counter) = self.closed.get(reason) {
            counter.increment(1);
        }
    }

    pub(super) fn received(&self, bytes: usize) {
        self.bytes_in.fetch_add(bytes as u64, Ordering::Relaxed);
        self.bytes_in_counter.increment(bytes as u64);
    }

    pub(super) fn sent(&self, bytes: usize) {
        self.bytes_out.fetch_add(bytes as u64, Ordering::Relaxed);
        self.bytes_out_counter.increment(bytes as u64);
    }

    /// A command was answered, `took` after its batch was read.
    pub(super) fn answered(&self, spec: &Spec, reply: &Reply, took: Duration) {
        let command = &self.commands[spec.id as usize];
        command.calls.fetch_add(1, Ordering::Relaxed);
        command.nanos.fetch_add(took.as_nanos() as u64, Ordering::Relaxed);
        command.seconds.record(took.as_secs_f64());
        if reply.is_error() {
            command.failed.fetch_add(1, Ordering::Relaxed);
            command.error.increment(1);
        } else {
            command.ok.increment(1);
        }
        self.error(reply);
    }

    /// Counts an error reply by its code.
    pub(super) fn error(&self, reply: &Reply) {
        let Reply::Error(line) = reply else { return };
        self.error_replies.fetch_add(1, Ordering::Relaxed);
        let code = line.split(|byte| *byte == b' ').next().unwrap_or(&[]);
        let plain = code.len() <= 32 && code.iter().all(u8::is_ascii_alphanumeric);
        let code = if plain { String::from_utf8_lossy(code) } else { "OTHER".into() };
        let mut errors = self.errors.lock();
        let code = match errors.len() < ERROR_CODES_MAX || errors.contains_key(&*code) {
            true => code.into_owned(),
            false => "OTHER".to_owned(),
        };
        *errors.entry(code).or_default() += 1;
    }

    /// Calls of all commands.
    pub(super) fn calls(&self) -> u64 {
        self.commands.iter().map(|command| command.calls.load(Ordering::Relaxed)).sum()
    }

    /// Commands per second, over the time between two looks of at least a second.
    pub(super) fn calls_per_second(&self) -> u64 {
        let calls = self.calls();
        let mut rate = self.rate.lock();
        let passed = rate.since.elapsed();
        if passed >= RATE_WINDOW {
            let answered = calls.saturating_sub(rate.calls) as f64;
            let per_second = (answered / passed.as_secs_f64()) as u64;
            *rate = Rate { since: Instant::now(), calls, per_second };
        }
        rate.per_second
    }

    /// `(name, calls, failed, time)` of each command that was called.
    pub(super) fn per_command(&self) -> Vec<(&'static str, u64, u64, Duration)> {
        let load = |value: &AtomicU64| value.load(Ordering::Relaxed);
        let rows = TABLE.iter().zip(&self.commands).map(|(spec, counts)| {
            let time = Duration::from_nanos(load(&counts.nanos));
            (spec.name, load(&counts.calls), load(&counts.failed), time)
        });
        rows.filter(|(_, calls, ..)| *calls > 0).collect()
    }

    /// Error replies by code.
    pub(super) fn errors(&self) -> BTreeMap<String, u64> {
        self.errors.lock().clone()
    }

    /// CONFIG RESETSTAT: what INFO shows begins anew. Prometheus' counters never go back.
    pub(super) fn reset(&self) {
        for command in &self.commands {
            for value in [&command.calls, &command.failed, &command.nanos] {
                value.store(0, Ordering::Relaxed);
            }
        }
        for value in
            [&self.accepted, &self.rejected, &self.bytes_in, &self.bytes_out, &self.error_replies]
        {
            value.store(0, Ordering::Relaxed);
        }
        self.errors.lock().clear();
    }
}

impl PerCommand {
    fn new(spec: &Spec) -> PerCommand {
        let class = match (spec.place, spec.flags.has(Flags::WRITE)) {
            (Place::Connection, _) => "connection",
            (Place::Transaction, _) => "transaction",
            (_, true) => "write",
            (_, false) => "read",
        };
        let counter = |status| metrics::counter!("flotilla_commands_total", "command" => spec.name, "status" => status);
        PerCommand {
            calls: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            nanos: AtomicU64::new(0),
            ok: counter("ok"),
            error: counter("error"),
            seconds: metrics::histogram!("flotilla_command_seconds", "class" => class),
        }
    }
}

fn describe() {
    metrics::describe_counter!("flotilla_commands_total", "Commands answered, by name and status");
    metrics::describe_histogram!(
        "flotilla_command_seconds",
        metrics::Unit::Seconds,
        "Time from reading a batch to having a command's reply, without what a client waited in it"
    );
    metrics::describe_gauge!("flotilla_clients", "Connections of clients, by door");
    metrics::describe_gauge!(
        "flotilla_clients_waiting",
        "Connections of clients that wait in a command such as BLPOP"
    );
    metrics::describe_counter!("flotilla_clients_accepted_total", "Connections ever accepted");
    metrics::describe_counter!(
        "flotilla_clients_rejected_total",
        "Connections refused because there were too many"
    );
    metrics::describe_counter!(
        "flotilla_clients_closed_total",
        "Connections closed by the server, by reason"
    );
    metrics::describe_counter!(
        "flotilla_client_bytes_total",
        metrics::Unit::Bytes,
        "Bytes from and to clients"
    );
}

const _: () = assert!(Door::Plain as usize == 0 && Door::Cluster as usize == 1);
