//! Load with a memory: clients that write and read keys through any node of a cluster, and record
//! what they saw.
//!
//! Invariants:
//! * Every text that is written is unique in its run, so that a read names the write it saw.
//! * A key belongs to one family (`choice::Family`), so that no command meets a value of another
//!   type, and is used for a bounded number of operations, so that its history can be checked.
//! * An operation is left out of the history only when it was certainly not carried out.
//!
//! The seed decides what each client does next; the threads and the network decide when.

mod bulk;
mod choice;
mod client;
mod finals;

mod door;
mod gate;
mod graves;
mod pairs;
mod pulse;

#[cfg(test)]
mod tests;

pub use bulk::{Bulk, text};
pub use choice::Family;
pub(crate) use client::DISK_FULL;
pub use door::Doorway;
pub(crate) use door::words;
pub use gate::{Gate, Pass, Shut};
pub use graves::{Graves, GravesRan};
pub use pairs::{Pairs, PairsRan};
pub use pulse::{Beats, Pulses};

use crate::checkers::Finals;
use crate::history::{History, Recorder};
use hdrhistogram::Histogram;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Unexpected errors that are kept; further ones are counted.
const UNEXPECTED_MAX: usize = 20;
/// Latencies are kept up to this; a longer one counts as this.
const LATENCY_MAX_US: u64 = 600_000_000;

/// What load to make.
#[derive(Debug, Clone)]
pub struct Config {
    /// Decides what is done.
    pub seed: u64,
    /// Concurrent clients, each with a connection at a time.
    pub clients: usize,
    /// `host:port` of the nodes.
    pub addresses: Vec<String>,
    /// Start of all key names.
    pub prefix: String,
    /// How long a client waits for a reply before it takes the outcome for unknown.
    pub patience: Duration,
    /// Pause of each client between two operations.
    pub pause: Duration,
    /// Families to use, each as often as the others.
    pub families: Vec<Family>,
    /// Holds all clients back while it is shut.
    pub gate: Gate,
}

impl Config {
    /// All families, eight clients, no pause.
    pub fn new(seed: u64, addresses: Vec<String>, prefix: impl Into<String>) -> Config {
        Config {
            seed,
            clients: 8,
            addresses,
            prefix: prefix.into(),
            patience: Duration::from_secs(10),
            pause: Duration::ZERO,
            families: Family::ALL.to_vec(),
            gate: Gate::default(),
        }
    }
}

/// How many operations ended how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Writes that were acknowledged, including conditional ones whose condition was unmet.
    pub writes: u64,
    /// Reads that were answered.
    pub reads: u64,
    /// Operations that were certainly not carried out: no connection, or refused.
    pub refused: u64,
    /// Operations whose outcome is unknown.
    pub unknown: u64,
    /// Replies that no server should give.
    pub unexpected: u64,
}

/// Times that answered operations took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Latency {
    /// How many.
    pub operations: u64,
    /// Median.
    pub p50: Duration,
    /// 99th percentile.
    pub p99: Duration,
    /// Longest.
    pub max: Duration,
}

/// Load under way.
pub struct Load {
    shared: Arc<Shared>,
    clients: JoinSet<()>,
    stop: CancellationToken,
}

/// What a load has left behind.
pub struct Ran {
    /// How the operations ended.
    pub counts: Counts,
    /// The first of the replies that no server should give.
    pub unexpected: Vec<String>,
    /// The longest time between two acknowledged writes.
    pub longest_silence: Duration,
    recorder: Recorder,
}

struct Shared {
    config: Config,
    recorder: Recorder,
    /// Operations begun by all clients; decides which keys are in use.
    begun: AtomicU64,
    counts: [AtomicU64; 5],
    latency: Mutex<Histogram<u64>>,
    unexpected: Mutex<Vec<String>>,
    /// When the last write was acknowledged, and the longest pause so far, in nanoseconds.
    last_write: AtomicU64,
    longest_silence: AtomicU64,
}

/// Places in `Shared::counts`.
#[derive(Clone, Copy)]
enum Ended {
    Write = 0,
    Read = 1,
    Refused = 2,
    Unknown = 3,
    Unexpected = 4,
}

impl Load {
    /// Starts the clients. Must be called inside a tokio runtime.
    pub fn start(config: Config) -> Load {
        assert!(!config.addresses.is_empty(), "a load needs an address");
        assert!(!config.families.is_empty(), "a load needs a family of keys");
        let recorder = Recorder::default();
        let latency = Histogram::new_with_bounds(1, LATENCY_MAX_US, 3);
        let shared = Arc::new(Shared {
            last_write: AtomicU64::new(recorder.now()),
            longest_silence: AtomicU64::new(0),
            recorder,
            begun: AtomicU64::new(0),
            counts: Default::default(),
            latency: Mutex::new(latency.expect("constant bounds are valid")),
            unexpected: Mutex::default(),
            config,
        });
        let stop = CancellationToken::new();
        let mut clients = JoinSet::new();
        for number in 0..shared.config.clients {
            clients.spawn(client::run(shared.clone(), number as u32, stop.clone()));
        }
        Load { shared, clients, stop }
    }

    /// How the operations ended so far.
    pub fn counts(&self) -> Counts {
        self.shared.counts()
    }

    /// The times of the operations since this was last asked.
    pub fn take_latency(&self) -> Latency {
        let mut histogram = self.shared.latency.lock();
        let at = |quantile| Duration::from_micros(histogram.value_at_quantile(quantile));
        let latency =
            Latency { operations: histogram.len(), p50: at(0.5), p99: at(0.99), max: at(1.0) };
        histogram.reset();
        latency
    }

    /// How long ago a write was acknowledged.
    pub fn silence(&self) -> Duration {
        let now = self.shared.recorder.now();
        Duration::from_nanos(now.saturating_sub(self.shared.last_write.load(Relaxed)))
    }

    /// Waits until so many more writes are acknowledged; false when that takes longer than
    /// `patience`.
    pub async fn more_writes(&self, count: u64, patience: Duration) -> bool {
        let enough = self.counts().writes + count;
        let wait = async {
            while self.counts().writes < enough {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(patience, wait).await.is_ok()
    }

    /// Lets every client finish its operation, and returns what they saw.
    pub async fn stop(mut self) -> Ran {
        self.stop.cancel();
        while let Some(client) = self.clients.join_next().await {
            if let Err(error) = client {
                self.shared.end(Ended::Unexpected);
                self.shared.unexpected(format!("a client failed: {error}"));
            }
        }
        Ran {
            counts: self.shared.counts(),
            unexpected: self.shared.unexpected.lock().clone(),
            longest_silence: Duration::from_nanos(self.shared.longest_silence.load(Relaxed)),
            recorder: self.shared.recorder.clone(),
        }
    }
}

impl Ran {
    /// What the clients saw, and what was read since.
    pub fn history(&self) -> History {
        self.recorder.history()
    }

    /// Reads every key that was touched, through the given nodes, and adds the reads to the
    /// history. Repeats what is refused until `patience` is over.
    pub async fn read_finals(
        &self,
        addresses: &[String],
        patience: Duration,
    ) -> Result<Finals, String> {
        let cells = finals::cells(&self.history());
        finals::read(Some(&self.recorder), &cells, addresses, patience).await
    }

    /// Reads the same keys without recording it: for another cluster, whose reads are not
    /// linearizable with this one's writes.
    pub async fn read_elsewhere(
        &self,
        addresses: &[String],
        patience: Duration,
    ) -> Result<Finals, String> {
        let cells = finals::cells(&self.history());
        finals::read(None, &cells, addresses, patience).await
    }
}

impl Shared {
    fn counts(&self) -> Counts {
        let [writes, reads, refused, unknown, unexpected] =
            self.counts.each_ref().map(|count| count.load(Relaxed));
        Counts { writes, reads, refused, unknown, unexpected }
    }

    fn end(&self, ended: Ended) {
        self.counts[ended as usize].fetch_add(1, Relaxed);
    }

    fn unexpected(&self, what: String) {
        let mut unexpected = self.unexpected.lock();
        if unexpected.len() < UNEXPECTED_MAX {
            unexpected.push(what);
        }
    }

    fn write_acked(&self, at: u64) {
        let before = self.last_write.fetch_max(at, Relaxed);
        self.longest_silence.fetch_max(at.saturating_sub(before), Relaxed);
    }

    fn took(&self, nanoseconds: u64) {
        let microseconds = (nanoseconds / 1000).clamp(1, LATENCY_MAX_US);
        self.latency.lock().saturating_record(microseconds);
    }
}
