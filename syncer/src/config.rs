//! Configuration of a syncer: one TOML file.
//!
//! Unknown keys are refused. [`Config::validate`] names both sides of a broken relation and reports
//! everything that is wrong at once.

use crate::batch::BATCH_BYTES_MAX;
use flotilla_node::config::{ConfigError, read_toml};
use flotilla_node::tls::TlsFiles;
use flotilla_topology::api::SyncerInfo;
use flotilla_topology::duration::Ms;
use flotilla_topology::ids::ClusterId;
use serde::{Deserialize, Deserializer, de};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// See [`Config::memory`], unless configured.
pub const MEMORY_DEFAULT: u64 = 512 << 20;
/// Of that, what one group may have for one peer, at most.
pub const GROUP_MEMORY_MAX: usize = 32 << 20;
/// And at least, however many groups there are: some batches.
pub const GROUP_MEMORY_MIN: usize = 4 * BATCH_BYTES_MAX;
/// See [`Config::audit_every`], unless configured.
pub const AUDIT_EVERY_DEFAULT: Duration = Duration::from_secs(3600);
/// A pass over each group more often than this would be nothing but passes.
pub const AUDIT_EVERY_MIN: Duration = Duration::from_secs(1);

/// What a syncer is told. Field names are the keys of the file.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Name, unique in the cluster, as in the certificate.
    pub name: String,
    /// Id of the cluster, as in the certificate.
    pub cluster: ClusterId,
    /// The datacenter that it stands in.
    pub datacenter: String,
    /// PD's rpc addresses, `host:port`.
    pub pd: Vec<String>,
    /// Where to listen.
    pub listen: Addresses,
    /// Addresses that others shall use, when they differ from `listen`.
    #[serde(default)]
    pub advertise: Option<Addresses>,
    /// Certificates of the rpc port and of links.
    pub tls: TlsFiles,
    /// Where the last map is kept, so that a restart needs no PD. Default: nowhere.
    #[serde(default)]
    pub dir: Option<PathBuf>,
    /// Bytes for what peers have not acknowledged, over all groups, and as much again for what this
    /// cluster's leaders have not taken yet. Above it learners lag, and peers are held back.
    #[serde(default = "default_memory")]
    pub memory: u64,
    /// How often each group is compared with those of every live peer, as in `10m`; `0s` switches
    /// it off.
    #[serde(default = "default_audit_every", deserialize_with = "duration")]
    pub audit_every: Duration,
}

/// Where a syncer listens, each as `host:port`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Addresses {
    /// TCP, mutual TLS: the Raft traffic of its learners.
    pub rpc: String,
    /// UDP, QUIC with mutual TLS: other clusters.
    pub link: String,
    /// Metrics and health, without authentication: keep it on loopback, or in a network where
    /// everybody may read.
    pub http: String,
}

fn default_memory() -> u64 {
    MEMORY_DEFAULT
}

fn default_audit_every() -> Duration {
    AUDIT_EVERY_DEFAULT
}

fn duration<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    let ms: Ms = String::deserialize(from)?.parse().map_err(de::Error::custom)?;
    Duration::try_from_secs_f64(ms.ms() / 1000.0).map_err(de::Error::custom)
}

impl Config {
    /// Reads and checks a file.
    pub fn load(path: &Path) -> Result<Config, ConfigError> {
        let config: Config = read_toml(path)?;
        config.validate()?;
        Ok(config)
    }

    /// Checks what the types cannot.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let mut problems = Vec::new();
        if self.name.is_empty() || self.name.contains('/') {
            problems.push(format!("name (`{}`) must not be empty or contain `/`", self.name));
        }
        if self.cluster == ClusterId(0) {
            problems.push("cluster (0) must be 1 to 255".into());
        }
        if self.datacenter.is_empty() {
            problems.push("datacenter must not be empty".into());
        }
        if self.pd.is_empty() {
            problems.push("pd is empty: give the rpc address of at least one PD".into());
        }
        for (key, address) in self
            .listen
            .named("listen")
            .into_iter()
            .chain(self.advertise.iter().flat_map(|advertise| advertise.named("advertise")))
        {
            if !has_port(address) {
                problems.push(format!("{key} (`{address}`) must be host:port"));
            }
        }
        if self.listen.rpc == self.listen.http {
            problems.push(format!("listen.rpc and listen.http are both {}", self.listen.rpc));
        }
        if self.memory < GROUP_MEMORY_MIN as u64 {
            problems.push(format!(
                "memory ({}) must be at least {GROUP_MEMORY_MIN}, what one group needs",
                self.memory
            ));
        }
        if !self.audit_every.is_zero() && self.audit_every < AUDIT_EVERY_MIN {
            problems.push(format!(
                "audit_every ({:?}) must be at least {AUDIT_EVERY_MIN:?}, or 0s for never",
                self.audit_every
            ));
        }
        if problems.is_empty() { Ok(()) } else { Err(ConfigError::Invalid(problems)) }
    }

    /// How this syncer registers with PD.
    pub fn info(&self) -> SyncerInfo {
        let addresses = self.advertise.as_ref().unwrap_or(&self.listen);
        SyncerInfo {
            name: self.name.clone(),
            datacenter: self.datacenter.clone(),
            rpc: addresses.rpc.clone(),
            link: addresses.link.clone(),
            http: addresses.http.clone(),
            alive: true,
        }
    }

    /// What each of `streams` (groups times peers) may have unacknowledged.
    pub fn stream_memory(&self, streams: usize) -> usize {
        let share = usize::try_from(self.memory).unwrap_or(usize::MAX) / streams.max(1);
        share.clamp(GROUP_MEMORY_MIN, GROUP_MEMORY_MAX)
    }
}

impl Addresses {
    fn named(&self, section: &str) -> [(String, &str); 3] {
        [("rpc", &self.rpc), ("link", &self.link), ("http", &self.http)]
            .map(|(key, address)| (format!("{section}.{key}"), address.as_str()))
    }
}

fn has_port(address: &str) -> bool {
    address
        .rsplit_once(':')
        .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"
        name = "east-s1"
        cluster = 1
        datacenter = "east"
        pd = ["127.0.0.1:2379"]
        listen = { rpc = "127.0.0.1:7300", link = "0.0.0.0:7301", http = "127.0.0.1:7302" }
        tls = { ca = "ca.pem", cert = "s1.pem", key = "s1.key" }
    "#;

    #[test]
    fn a_file_with_the_least_is_enough() {
        let config: Config = toml::from_str(FILE).unwrap();
        config.validate().unwrap();
        assert_eq!((config.memory, config.audit_every), (MEMORY_DEFAULT, AUDIT_EVERY_DEFAULT));
        assert_eq!(config.info().link, "0.0.0.0:7301");
        assert_eq!(config.stream_memory(1), GROUP_MEMORY_MAX);
        assert_eq!(config.stream_memory(10_000), GROUP_MEMORY_MIN);
    }

    #[test]
    fn audits_are_as_often_as_the_file_says() {
        let every = |text: &str| {
            toml::from_str::<Config>(&format!("{FILE}\naudit_every = \"{text}\""))
                .map(|config| config.audit_every)
        };
        assert_eq!(every("1.5m").unwrap(), Duration::from_secs(90));
        assert_eq!(every("0s").unwrap(), Duration::ZERO);
        assert!(every("often").unwrap_err().to_string().contains("is not a duration"));
    }

    #[test]
    fn unknown_keys_and_all_problems_are_named() {
        assert!(toml::from_str::<Config>(&format!("{FILE}\nspool = 1")).is_err());
        let mut config: Config = toml::from_str(FILE).unwrap();
        config.pd.clear();
        config.listen.link = "nowhere".into();
        config.memory = 1;
        config.audit_every = Duration::from_millis(1);
        let text = config.validate().unwrap_err().to_string();
        for part in ["pd is empty", "listen.link (`nowhere`)", "memory (1)", "audit_every (1ms)"] {
            assert!(text.contains(part), "{text}");
        }
    }
}
