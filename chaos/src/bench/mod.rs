//! Measures Flotilla nodes beside redis-server, etcd and others, on one machine.
//!
//! Rules that make the numbers comparable:
//! * Interleaved: in every round each case is measured on each server in turn, so that a machine
//!   that is slow for a minute is slow for all. Ratios are taken within a round, then the median.
//! * A sync canary (write and fdatasync of a small block) runs before each measurement and stands
//!   beside the numbers: when it moves, the disk moved.
//! * Closed loop: each connection has one batch in flight. The generator shares the machine; what
//!   it uses is shown too. The open loop is told in `open`.
//! * Errors, and reads that find nothing, are counted, and a case with any is marked, never
//!   silently averaged. A gate is not passed with them.
//!
//! | module | owns |
//! |---|---|
//! | `kind`, `peers`, `etcd`, `servers` | names; servers that are started here; the doors of the cluster |
//! | `case`, `keys` | commands and their bytes; which keys |
//! | `generator`, `worker`, `replies`, `open` | the load: connections, replies, the schedule of the open loop |
//! | `mixed`, `timeline` | a mixed load on given nodes, at a fixed rate, with its times part by part |
//! | `usage`, `canary`, `idle` | what processes use; what the disk does; what a connection costs |
//! | `sample`, `table`, `open_table`, `report`, `gates` | numbers to rows, rows to text, aims |
//!
//! Not here: starting the Flotilla cluster (its addresses and process numbers are handed in).

mod canary;
mod case;
mod etcd;
mod gates;
mod generator;
mod idle;
mod keys;
mod kind;
mod mixed;
mod open;
mod open_table;
mod peers;
mod replies;
mod report;
mod sample;
mod servers;
mod session;
mod table;
mod timeline;
mod usage;
mod worker;

#[cfg(test)]
mod tests;

pub use case::{Case, Command};
pub use gates::{Gate, GateResult};
pub use idle::{IDLE_MAX, IdleRow, check as check_idle};
pub use kind::Kind;
pub use mixed::{Held, MixedLoad};
pub use open_table::OpenRow;
pub use report::Report;
pub use sample::Samples;
pub use session::{Session, Variation};
pub use table::{Row, Table};
pub use timeline::{Timeline, Times};

use generator::Target;
use std::path::PathBuf;
use std::time::Duration;

/// Bytes of a value where they are not what varies.
pub const VALUE_BYTES: usize = 128;

/// A Flotilla node to be measured.
#[derive(Debug, Clone)]
pub struct Node {
    /// Its name, as shown.
    pub name: String,
    /// Its process.
    pub pid: u32,
    /// `host:port` of the plain port.
    pub resp: String,
    /// `host:port` of the cluster port; without it only the plain ports are measured.
    pub cluster_resp: Option<String>,
}

/// A Flotilla cluster to be measured.
#[derive(Debug, Clone, Default)]
pub struct Fleet {
    /// The nodes.
    pub nodes: Vec<Node>,
    /// Other processes whose CPU belongs to it: placement drivers, syncers.
    pub others: Vec<(String, u32)>,
}

/// How to measure.
#[derive(Debug, Clone)]
pub struct Config {
    /// Path or name of the redis-server executable.
    pub redis_server: PathBuf,
    /// Path or name of the etcd executable.
    pub etcd: PathBuf,
    /// Path of the kvrocks executable.
    pub kvrocks: Option<PathBuf>,
    /// Path of the flotilla executable, for the standalone node.
    pub flotilla: PathBuf,
    /// Where servers that are started here and the canary write: the disk that Flotilla writes to.
    pub dir: PathBuf,
    /// Rounds over all cases and servers.
    pub rounds: usize,
    /// How long one measurement takes.
    pub duration: Duration,
    /// Different keys.
    pub keys: u32,
    /// Bytes of a value.
    pub value_bytes: usize,
}

impl Config {
    /// Five rounds of two seconds, 100,000 keys, values of 128 bytes.
    pub fn new(dir: PathBuf) -> Config {
        Config {
            redis_server: "redis-server".into(),
            etcd: "etcd".into(),
            kvrocks: None,
            flotilla: "flotilla".into(),
            dir,
            rounds: 5,
            duration: Duration::from_secs(2),
            keys: 100_000,
            value_bytes: VALUE_BYTES,
        }
    }
}

/// A server under test.
struct Server {
    kind: Kind,
    targets: Vec<Target>,
    processes: Vec<(String, u32)>,
    /// How many keys it holds, and the bytes of their values.
    loaded: Option<(u32, usize)>,
}

impl Server {
    fn new(kind: Kind, targets: Vec<Target>, processes: Vec<(String, u32)>) -> Server {
        Server { kind, targets, processes, loaded: None }
    }
}
