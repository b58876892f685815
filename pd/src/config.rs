//! Configuration of a PD: one TOML file.
//!
//! Unknown keys are refused. [`Config::validate`] names both sides of a broken relation and reports
//! everything that is wrong at once. What follows from the topology file is checked in
//! [`Config::settings`], since that file is shared by all clusters.

use crate::state::{Bootstrap, PARTITIONS_MAX, Settings};
use flotilla_node::config::{ConfigError, read_toml};
use flotilla_node::tls::TlsFiles;
use flotilla_topology::Topology;
use flotilla_topology::ids::{ClusterId, Incarnation};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Groups of the namespace `default`, unless configured.
pub const PARTITIONS_DEFAULT: u32 = 8;

/// Nodes that a cluster waits for before it creates `default`, unless configured.
pub const NODES_DEFAULT: usize = 3;

/// Replicas of each group of `default`, unless configured or there are fewer nodes.
pub const REPLICAS_DEFAULT: u8 = 3;

/// Life of the lease by which a PD on etcd leads: after this long without its leader the cluster
/// has a new one. The data path does not notice, so there is no hurry.
pub const LEASE_SECONDS_DEFAULT: u16 = 5;

/// Bytes of log that a group keeps for a peer that lags, unless configured: what a node keeps for
/// all its logs together (8 GiB), shared by the groups of `default`.
pub const BACKLOG_BUDGET_DEFAULT: u64 = 1 << 30;

/// Seconds for which a group keeps log for a peer that lags, unless configured: a day.
pub const BACKLOG_SECONDS_DEFAULT: u64 = 24 * 3600;

/// The least budget: less is the backlog of a busy second.
pub const BACKLOG_BUDGET_MIN: u64 = 64 << 20;

/// What a PD is told. Field names are the keys of the file.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Name, unique in the cluster, as in the certificate.
    pub name: String,
    /// Id of the cluster, as in all its certificates.
    pub cluster: ClusterId,
    /// Name of the cluster.
    pub cluster_name: String,
    /// Present life of the cluster; raised when it is restored, cloned or forcibly recovered.
    #[serde(default = "first_incarnation")]
    pub incarnation: Incarnation,
    /// Where the embedded store is kept.
    pub dir: PathBuf,
    /// Where to listen.
    pub listen: Listen,
    /// `host:port` where others reach the rpc port, when it differs from `listen.rpc`.
    #[serde(default)]
    pub advertise: Option<String>,
    /// Certificates of the rpc port.
    pub tls: TlsFiles,
    /// Where records are kept.
    #[serde(default)]
    pub store: StoreConfig,
    /// The topology file: datacenters of this cluster, and the clusters that it is linked with.
    #[serde(default)]
    pub topology: Option<PathBuf>,
    /// When and how the namespace `default` is created.
    #[serde(default)]
    pub bootstrap: BootstrapConfig,
    /// Bytes of log that a group keeps for each peer that lags. Beyond, the peer needs a merge; the
    /// time until then is the runway of its link.
    #[serde(default = "default_backlog_budget")]
    pub backlog_budget_bytes: u64,
    /// How old the oldest of it may get, in seconds; the same happens beyond.
    #[serde(default = "default_backlog_seconds")]
    pub backlog_budget_seconds: u64,
    /// A peer that has been away beyond its backlog budget for so many seconds is fenced, when all other
    /// clusters find the same. Default: never, an operator decides.
    #[serde(default)]
    pub fence_after_seconds: Option<u64>,
    /// `host:port` of the http ports of other clusters' PDs, by name of the cluster: the page asks
    /// them for the other direction of the links. Nothing else depends on it.
    #[serde(default)]
    pub peers: BTreeMap<String, Vec<String>>,
}

/// Where a PD listens, each as `host:port`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listen {
    /// Mutual TLS: nodes, syncers, command lines.
    pub rpc: String,
    /// The page, metrics, health and read-only JSON, without authentication: keep it on loopback,
    /// or in a network where everybody may read.
    pub http: String,
}

/// Where records are kept: `"embedded"`, or a table `etcd`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StoreConfig {
    /// In `dir`, by this one PD.
    #[default]
    Embedded,
    /// In an etcd, shared with other PDs of the cluster.
    Etcd(EtcdConfig),
}

/// How to reach the etcd.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EtcdConfig {
    /// `http://host:port` of each member.
    pub endpoints: Vec<String>,
    /// See [`LEASE_SECONDS_DEFAULT`].
    #[serde(default = "default_lease")]
    pub lease_seconds: u16,
}

/// When and how the namespace `default` is created.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BootstrapConfig {
    /// Nodes that must have registered.
    pub nodes: usize,
    /// How many groups it gets.
    pub partitions: u32,
    /// Replicas of each group: 1, 3 or 5. Default: 3, or 1 with fewer than 3 nodes.
    pub replicas: Option<u8>,
}

impl Default for BootstrapConfig {
    fn default() -> Self {
        BootstrapConfig { nodes: NODES_DEFAULT, partitions: PARTITIONS_DEFAULT, replicas: None }
    }
}

impl BootstrapConfig {
    fn replicas(&self) -> u8 {
        let possible =
            if self.nodes >= usize::from(REPLICAS_DEFAULT) { REPLICAS_DEFAULT } else { 1 };
        self.replicas.unwrap_or(possible)
    }
}

fn first_incarnation() -> Incarnation {
    Incarnation(1)
}

fn default_lease() -> u16 {
    LEASE_SECONDS_DEFAULT
}

fn default_backlog_seconds() -> u64 {
    BACKLOG_SECONDS_DEFAULT
}

fn default_backlog_budget() -> u64 {
    BACKLOG_BUDGET_DEFAULT
}

impl Config {
    /// Reads and validates a file.
    pub fn load(path: &Path) -> Result<Config, ConfigError> {
        let config: Config = read_toml(path)?;
        config.validate()?;
        Ok(config)
    }

    /// Everything that can be told from the configuration alone.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let mut problems = Vec::new();
        for (key, name) in [("name", &self.name), ("cluster_name", &self.cluster_name)] {
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
            if name.is_empty() || name.len() > 64 || !name.chars().all(plain) {
                problems.push(format!("{key} (`{name}`) must be 1 to 64 of a-z A-Z 0-9 . _ -"));
            }
        }
        if self.cluster.0 == 0 {
            problems.push("cluster (0) must be 1 to 255: 0 means none in every stamp".to_owned());
        }
        if self.incarnation.0 == 0 {
            problems.push("incarnation (0) counts from 1".to_owned());
        }
        let Listen { rpc, http } = &self.listen;
        if rpc == http && !rpc.ends_with(":0") {
            problems.push(format!("listen.rpc ({rpc}) and listen.http ({http}) must differ"));
        }
        let own = [("listen.rpc", rpc), ("listen.http", http)];
        let advertised = self.advertise.iter().map(|address| ("advertise", address));
        let peers = self.peers.values().flatten().map(|address| ("peers", address));
        for (key, address) in own.into_iter().chain(advertised).chain(peers) {
            let port = address.rsplit_once(':').map(|(_, port)| port.parse::<u16>());
            if !matches!(port, Some(Ok(_))) {
                problems.push(format!("{key} (`{address}`) must be host:port"));
            }
        }
        if self.backlog_budget_bytes < BACKLOG_BUDGET_MIN {
            problems.push(format!(
                "backlog_budget_bytes ({}) must be {BACKLOG_BUDGET_MIN} at least",
                self.backlog_budget_bytes
            ));
        }
        self.validate_bootstrap(&mut problems);
        if let StoreConfig::Etcd(etcd) = &self.store {
            etcd.validate(&mut problems);
        }
        if problems.is_empty() { Ok(()) } else { Err(ConfigError::Invalid(problems)) }
    }

    fn validate_bootstrap(&self, problems: &mut Vec<String>) {
        let BootstrapConfig { nodes, partitions, replicas } = self.bootstrap;
        if nodes == 0 {
            problems.push("bootstrap.nodes (0) must be 1 at least".to_owned());
        }
        if !(1..=PARTITIONS_MAX).contains(&partitions) {
            problems
                .push(format!("bootstrap.partitions ({partitions}) must be 1 to {PARTITIONS_MAX}"));
        }
        let Some(replicas) = replicas else { return };
        if !matches!(replicas, 1 | 3 | 5) {
            problems.push(format!("bootstrap.replicas ({replicas}) must be 1, 3 or 5"));
        }
        if usize::from(replicas) > nodes {
            problems.push(format!(
                "bootstrap.replicas ({replicas}) must not be above bootstrap.nodes ({nodes}): a node \
                 carries one replica of a group at most"
            ));
        }
    }

    /// What the state works with: this configuration and what the topology file says of it.
    pub fn settings(&self) -> Result<Settings, ConfigError> {
        let (datacenters, peers) = match &self.topology {
            Some(path) => self.look_up(path)?,
            None if !self.peers.is_empty() => {
                return Err(ConfigError::Invalid(vec![
                    "peers are given but no topology: set `topology`, links are declared there"
                        .to_owned(),
                ]));
            }
            None => (Vec::new(), Vec::new()),
        };
        Ok(Settings {
            cluster: self.cluster,
            name: self.cluster_name.clone(),
            incarnation: self.incarnation,
            datacenters,
            peers,
            bootstrap: Bootstrap {
                nodes: self.bootstrap.nodes,
                partitions: self.bootstrap.partitions,
                replicas: self.bootstrap.replicas(),
            },
            backlog_budget_bytes: self.backlog_budget_bytes,
            backlog_budget_seconds: self.backlog_budget_seconds,
            fence_after_seconds: self.fence_after_seconds,
        })
    }

    fn look_up(
        &self,
        path: &Path,
    ) -> Result<(Vec<String>, Vec<flotilla_topology::api::PeerCluster>), ConfigError> {
        let shown = path.display().to_string();
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        let topology = Topology::parse(&text).map_err(|problems| ConfigError::Parse {
            path: path.to_owned(),
            message: problems.to_string(),
        })?;
        let invalid = |line: String| Err(ConfigError::Invalid(vec![line]));
        let found = topology.cluster(self.cluster).filter(|_| !topology.proposed);
        let Some(cluster) = found else {
            return invalid(format!(
                "cluster ({}) is not among the clusters of {shown}: declare it there, with its id",
                self.cluster
            ));
        };
        if cluster.name != self.cluster_name {
            return invalid(format!(
                "cluster_name (`{}`) differs from `{}`, as {shown} calls cluster {}",
                self.cluster_name, cluster.name, self.cluster
            ));
        }
        let peers = topology.peers_of(self.cluster);
        if let Some(stranger) =
            self.peers.keys().find(|name| !peers.iter().any(|p| p.name == **name))
        {
            return invalid(format!(
                "peers.{stranger}: {shown} has no link from `{}` to such a cluster",
                self.cluster_name
            ));
        }
        Ok((cluster.datacenters.clone(), peers))
    }
}

impl EtcdConfig {
    fn validate(&self, problems: &mut Vec<String>) {
        if self.endpoints.is_empty() {
            problems
                .push("store.etcd.endpoints must name one member of the etcd at least".to_owned());
        }
        for endpoint in self.endpoints.iter().filter(|e| !e.starts_with("http://")) {
            problems.push(format!("store.etcd.endpoints (`{endpoint}`) must be http://host:port"));
        }
        if !(2..=60).contains(&self.lease_seconds) {
            problems.push(format!(
                "store.etcd.lease_seconds ({}) must be 2 to 60: etcd grants no shorter ones",
                self.lease_seconds
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINIMAL: &str = r#"
        name = "pd-1"
        cluster = 1
        cluster_name = "east"
        dir = "/tmp/pd"
        listen = { rpc = "127.0.0.1:7400", http = "127.0.0.1:7401" }
        tls = { ca = "ca.pem", cert = "pd.pem", key = "pd.key" }
    "#;

    fn parse(more: &str) -> Result<Config, toml::de::Error> {
        toml::from_str(&format!("{MINIMAL}{more}"))
    }

    fn problems(more: &str) -> String {
        parse(more).unwrap().validate().unwrap_err().to_string()
    }

    #[test]
    fn little_is_needed() {
        let config = parse("").unwrap();
        config.validate().unwrap();
        assert_eq!(config.store, StoreConfig::Embedded);
        let settings = config.settings().unwrap();
        assert_eq!(settings.bootstrap, Bootstrap { nodes: 3, partitions: 8, replicas: 3 });
        let lone = parse("[bootstrap]\nnodes = 1").unwrap();
        assert_eq!(lone.settings().unwrap().bootstrap.replicas, 1);
        let etcd = parse("[store.etcd]\nendpoints = [\"http://127.0.0.1:2379\"]").unwrap();
        etcd.validate().unwrap();
        assert!(matches!(etcd.store, StoreConfig::Etcd(EtcdConfig { lease_seconds: 5, .. })));
    }

    #[test]
    fn unknown_keys_are_refused() {
        for more in ["color = 1", "[bootstrap]\nnode = 3", "[store.etcd]\nendpoints=[]\nttl=1"] {
            assert!(parse(more).unwrap_err().to_string().contains("unknown field"), "{more}");
        }
    }

    #[test]
    fn errors_name_both_sides() {
        let text = problems("[bootstrap]\nnodes = 1\nreplicas = 3");
        assert!(
            text.contains("bootstrap.replicas (3) must not be above bootstrap.nodes (1)"),
            "{text}"
        );
        let text = problems("[store.etcd]\nendpoints = [\"127.0.0.1:2379\"]\nlease_seconds = 1");
        assert!(text.contains("http://host:port") && text.contains("2 to 60"), "{text}");
        let config = parse("[peers]\nwest = [\"127.0.0.1:7501\"]").unwrap();
        assert!(config.settings().unwrap_err().to_string().contains("no topology"));
        let text = problems("backlog_budget_bytes = 1024");
        assert!(text.contains("backlog_budget_bytes (1024)"), "{text}");
        let text = problems("[peers]\nwest = [\"nowhere\"]");
        assert!(text.contains("`nowhere`"), "{text}");
    }
}
