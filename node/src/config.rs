//! Configuration of a node: one TOML file, or `--standalone --dir D` with defaults for the rest.
//!
//! Unknown keys are refused. [`Config::validate`] names both sides of a broken relation and reports
//! everything that is wrong at once.

use crate::server::{CLIENTS_MEMORY_MAX, REQUEST_BYTES_MAX};
use crate::sizes::Storage;
use crate::tls::TlsFiles;
use flotilla_topology::api::NodeAddresses;
use flotilla_topology::ids::ClusterId;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Longest key, in bytes. Redis allows 512 MiB; a key is in every row of its collection here.
pub const KEY_BYTES_MAX: usize = 64 * 1024;
/// Longest value or field, in bytes. An entry carries whole values, and a follower needs them whole.
pub const VALUE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// What a node is told. Field names are the keys of the file.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Name, unique in the cluster, as in the certificate.
    pub name: String,
    /// Id of the cluster, as in the certificate.
    pub cluster: ClusterId,
    /// The failure domain that it stands in.
    pub datacenter: String,
    /// Where everything is kept.
    pub dir: PathBuf,
    /// PD's rpc addresses, `host:port`. Empty only in standalone mode.
    #[serde(default)]
    pub pd: Vec<String>,
    /// Where to listen.
    pub listen: NodeAddresses,
    /// Addresses that others shall use, when they differ from `listen`.
    #[serde(default)]
    pub advertise: Option<NodeAddresses>,
    /// The same, for processes in certain datacenters (NAT, VPN).
    #[serde(default)]
    pub advertise_to: BTreeMap<String, NodeAddresses>,
    /// Certificates of the internal port. Needed unless standalone.
    #[serde(default)]
    pub tls: Option<TlsFiles>,
    /// Bytes for block cache, write buffers and log tails. Default: a quarter of the machine.
    #[serde(default)]
    pub memory: Option<u64>,
    /// What store and log are given of that, and of the disk.
    #[serde(default)]
    pub storage: Storage,
    /// Password that clients must give with AUTH.
    #[serde(default)]
    pub requirepass: Option<String>,
    /// Limits for clients.
    #[serde(default)]
    pub limits: Limits,
    /// Raft timing. Default: what suits the largest round trip between voters, as `rtt_ms` says.
    #[serde(default)]
    pub raft: RaftTiming,
    /// Threads that serve clients. Default: one for each core.
    #[serde(default)]
    pub threads: Option<usize>,
    /// How the kernel treats the process's threads.
    #[serde(default)]
    pub scheduling: Scheduling,
    /// Groups of a standalone node's namespace; `None`: as many as its directory has. Those of a cluster
    /// are PD's.
    #[serde(skip)]
    pub partitions: Option<u32>,
}

/// How the kernel treats a process's threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scheduling {
    /// A thread that is woken waits until who runs has finished or used its slice up (`SCHED_BATCH`): threads
    /// of a busy node hand over more at a time and switch less. Where processors idle nothing changes.
    #[default]
    Batch,
    /// A thread that is woken may take the processor at once, from whoever runs: for a node that shares a
    /// machine with processes that compute.
    Normal,
}

/// Limits for clients, each with a metric of the same name.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Open client connections on both RESP ports together.
    pub connections_max: usize,
    /// Bytes of one key.
    pub key_bytes_max: usize,
    /// Bytes of one argument that is not a key.
    pub value_bytes_max: usize,
    /// Arguments of one command.
    pub arguments_max: usize,
    /// Bytes of replies that wait for a client that does not read; it is closed above this.
    pub output_bytes_max: usize,
    /// Bytes that all clients of the node together may hold, beyond 64 KiB each: requests that have not
    /// arrived whole, commands and replies under way. Who wants more is told so and closed.
    pub clients_memory_max: usize,
    /// Free bytes on the data directory's disk below which client writes are refused; those that only
    /// take away are refused below half of it.
    pub disk_reserve: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            connections_max: 10_000,
            key_bytes_max: KEY_BYTES_MAX,
            value_bytes_max: VALUE_BYTES_MAX,
            arguments_max: 1_048_576,
            output_bytes_max: 256 * 1024 * 1024,
            clients_memory_max: CLIENTS_MEMORY_MAX,
            disk_reserve: 512 * 1024 * 1024,
        }
    }
}

/// A group parks within a day or never.
const PARK_AFTER_MS_MAX: u64 = 24 * 60 * 60 * 1000;

/// Raft timing.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RaftTiming {
    /// Largest round trip between two voters of a group, in milliseconds. 0 inside a datacenter.
    pub rtt_ms: f64,
    /// A group that this node leads, and that nobody has read or written for so many milliseconds, sends no
    /// more heartbeats until somebody does. 0: never.
    pub park_after_ms: u64,
    /// Most bytes a second at which this node sends the state of one group to a replica that lacks more than
    /// the log has; down to an eighth of it while the node is busy. 0: as fast as it goes.
    pub snapshot_bytes_per_second: u64,
    /// Most bytes a second at which this node sends old entries of all groups together to replicas that
    /// were away, and twice what it sends of new ones beside; down to a thirty-second of it while the node
    /// is busy. 0: as fast as it goes.
    pub catch_up_bytes_per_second: u64,
}

/// Slower ones would hardly end.
const BYTES_PER_SECOND_MIN: u64 = 1 << 20;
/// Half of what one snapshot may take: all groups share it, on the threads that carry their appends.
const CATCH_UP_BYTES_PER_SECOND: u64 = 32 << 20;

impl Default for RaftTiming {
    fn default() -> Self {
        let usual = crate::raft::Settings::default();
        RaftTiming {
            rtt_ms: 0.0,
            park_after_ms: usual.park_after_ms,
            snapshot_bytes_per_second: usual.snapshot_bytes_per_s,
            catch_up_bytes_per_second: CATCH_UP_BYTES_PER_SECOND,
        }
    }
}

/// The configuration cannot hold; one line for each problem, all of them.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not what it should be.
    #[error("{path}: {message}")]
    Parse {
        /// Which file.
        path: PathBuf,
        /// Where and why.
        message: String,
    },
    /// It is well formed and contradicts itself.
    #[error("{}", .0.join("\n"))]
    Invalid(Vec<String>),
}

/// Reads a TOML file into a configuration type, with errors that name the file and the line.
pub fn read_toml<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    toml::from_str(&text).map_err(|error| ConfigError::Parse {
        path: path.to_owned(),
        message: error.to_string().trim_end().to_owned(),
    })
}

impl Config {
    /// Reads and validates a file.
    pub fn load(path: &Path) -> Result<Config, ConfigError> {
        let config: Config = read_toml(path)?;
        config.validate(false)?;
        Ok(config)
    }

    /// A node that needs nothing else: one process, one replica of everything, loopback ports.
    pub fn standalone(dir: PathBuf, resp_port: u16) -> Config {
        let at = |port: u16| format!("127.0.0.1:{port}");
        Config {
            name: "standalone".to_owned(),
            cluster: ClusterId(1),
            datacenter: "local".to_owned(),
            dir,
            pd: Vec::new(),
            listen: NodeAddresses {
                resp: at(resp_port),
                cluster_resp: at(resp_port.saturating_add(1)),
                rpc: String::new(),
                http: at(resp_port.saturating_add(2)),
            },
            advertise: None,
            advertise_to: BTreeMap::new(),
            tls: None,
            memory: None,
            storage: Storage::default(),
            requirepass: None,
            limits: Limits::default(),
            raft: RaftTiming::default(),
            threads: None,
            scheduling: Scheduling::default(),
            partitions: None,
        }
    }

    /// Checks everything; `standalone` says which relations hold.
    pub fn validate(&self, standalone: bool) -> Result<(), ConfigError> {
        let mut problems = Vec::new();
        let mut check = |ok: bool, problem: &str| {
            if !ok {
                problems.push(problem.to_owned());
            }
        };
        check(self.cluster.0 != 0, "cluster (0) must be 1 to 255, as in the certificate");
        check(
            !self.name.is_empty() && !self.name.contains('/'),
            "name must not be empty or contain `/`: it stands in the certificate",
        );
        check(!self.datacenter.is_empty(), "datacenter must not be empty");
        check(
            standalone || !self.pd.is_empty(),
            "pd must name at least one PD address (or start with --standalone)",
        );
        check(
            standalone || self.tls.is_some(),
            "tls must name ca, cert and key: internal ports are never open (see `flotilla cert`)",
        );
        let l = &self.limits;
        check(
            l.key_bytes_max <= KEY_BYTES_MAX,
            "limits.key_bytes_max must be at most 65536: a key stands in every row of its collection",
        );
        check(
            l.value_bytes_max <= VALUE_BYTES_MAX,
            "limits.value_bytes_max must be at most 16777216: an entry carries whole values",
        );
        check(
            l.output_bytes_max >= l.value_bytes_max,
            "limits.output_bytes_max must be at least limits.value_bytes_max: a GET could not be answered",
        );
        check(
            l.clients_memory_max >= REQUEST_BYTES_MAX,
            "limits.clients_memory_max must be at least 33554432 (32 MiB): one request may take as much",
        );
        check(l.connections_max > 0, "limits.connections_max must be above 0");
        check(
            self.memory.is_none_or(|m| m >= 64 << 20),
            "memory must be at least 67108864 (64 MiB): write buffers and caches are fractions of it",
        );
        check(
            self.raft.rtt_ms >= 0.0 && self.raft.rtt_ms < 2_000.0,
            "raft.rtt_ms must be 0 to 2000",
        );
        let holds = |rate: u64| rate == 0 || rate >= BYTES_PER_SECOND_MIN;
        check(
            holds(self.raft.snapshot_bytes_per_second),
            "raft.snapshot_bytes_per_second must be 0 (no limit) or at least 1048576: slower ones are \
             given up",
        );
        check(
            holds(self.raft.catch_up_bytes_per_second),
            "raft.catch_up_bytes_per_second must be 0 (no limit) or at least 1048576: slower, a replica \
             would hardly catch up",
        );
        check(
            self.raft.park_after_ms <= PARK_AFTER_MS_MAX,
            "raft.park_after_ms must be 0 (never) to 86400000 (a day)",
        );
        problems.extend(self.storage.problems(self.memory_bytes()));
        if problems.is_empty() { Ok(()) } else { Err(ConfigError::Invalid(problems)) }
    }

    /// Addresses that others shall use unless their datacenter has its own.
    pub fn advertised(&self) -> NodeAddresses {
        self.advertise.clone().unwrap_or_else(|| self.listen.clone())
    }

    /// What CONFIG GET and INFO show of it, by name.
    pub fn settings(&self) -> Vec<(String, String)> {
        let (limits, memory) = (&self.limits, self.memory_bytes());
        let mut all = vec![
            ("maxclients", limits.connections_max as u64),
            ("key-bytes-max", limits.key_bytes_max as u64),
            ("proto-max-bulk-len", limits.value_bytes_max as u64),
            ("output-bytes-max", limits.output_bytes_max as u64),
            ("clients-memory-max", limits.clients_memory_max as u64),
            ("disk-reserve", limits.disk_reserve),
            ("park-after-ms", self.raft.park_after_ms),
            ("snapshot-bytes-per-second", self.raft.snapshot_bytes_per_second),
            ("catch-up-bytes-per-second", self.raft.catch_up_bytes_per_second),
            ("memory", memory),
        ];
        all.extend(self.storage.settings(memory));
        let scheduling = match self.scheduling {
            Scheduling::Batch => "batch",
            Scheduling::Normal => "normal",
        };
        let numbers = all.into_iter().map(|(name, value)| (name.to_owned(), value.to_string()));
        numbers.chain([("scheduling".to_owned(), scheduling.to_owned())]).collect()
    }

    /// The memory budget in bytes.
    pub fn memory_bytes(&self) -> u64 {
        self.memory.unwrap_or_else(|| machine_memory_bytes() / 4)
    }
}

/// Memory of the machine in bytes, from /proc/meminfo; 4 GiB when that cannot be read.
pub fn machine_memory_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    text.lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))
        .and_then(|rest| rest.trim().trim_end_matches("kB").trim().parse::<u64>().ok())
        .map_or(4 << 30, |kib| kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn standalone_holds_and_names_what_a_cluster_needs() {
        let config = Config::standalone("/tmp/x".into(), 7000);
        config.validate(true).unwrap();
        let text = config.validate(false).unwrap_err().to_string();
        assert!(text.contains("pd must name") && text.contains("tls must name"), "{text}");
    }

    #[test]
    fn both_sides_of_a_broken_relation_are_named() {
        let mut config = Config::standalone("/tmp/x".into(), 7000);
        config.limits.output_bytes_max = 10;
        let text = config.validate(true).unwrap_err().to_string();
        assert!(text.contains("output_bytes_max") && text.contains("value_bytes_max"), "{text}");
    }

    #[test]
    fn groups_park_after_three_seconds_unless_told_otherwise() {
        let timing = |text: &str| toml::from_str::<RaftTiming>(text).unwrap();
        assert_eq!(timing("rtt_ms = 5.0"), RaftTiming { rtt_ms: 5.0, ..RaftTiming::default() });
        assert_eq!(RaftTiming::default().park_after_ms, 3_000);
        let mut config = Config::standalone("/tmp/x".into(), 7000);
        for (text, holds) in [("0", true), ("86400000", true), ("86400001", false)] {
            config.raft = timing(&format!("park_after_ms = {text}"));
            assert_eq!(config.validate(true).is_ok(), holds, "{text}");
        }
        let text = config.validate(true).unwrap_err().to_string();
        assert!(text.contains("park_after_ms"), "{text}");
    }

    #[test]
    fn rates_are_none_or_at_least_a_mebibyte() {
        let mut config = Config::standalone("/tmp/x".into(), 7000);
        for key in ["snapshot_bytes_per_second", "catch_up_bytes_per_second"] {
            for (rate, holds) in [("0", true), ("1048576", true), ("1048575", false)] {
                config.raft = toml::from_str(&format!("{key} = {rate}")).unwrap();
                assert_eq!(config.validate(true).is_ok(), holds, "{key} {rate}");
            }
            let text = config.validate(true).unwrap_err().to_string();
            assert!(text.contains(key), "{text}");
        }
    }

    #[test]
    fn scheduling_is_shown_in_the_words_of_the_file() {
        let mut config = Config::standalone("/tmp/x".into(), 7000);
        for word in ["batch", "normal"] {
            config.scheduling = toml::Value::from(word).try_into().unwrap();
            assert!(config.settings().contains(&("scheduling".to_owned(), word.to_owned())));
        }
        assert!(toml::Value::from("fifo").try_into::<Scheduling>().is_err());
    }

    #[test]
    fn unknown_keys_are_refused() {
        let error = toml::from_str::<Limits>("connections = 5").unwrap_err().to_string();
        assert!(error.contains("unknown field"), "{error}");
    }
}
