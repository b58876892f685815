//! Which processes a demo has, what they are called and where they listen. Pure.
//!
//! Ports are fixed, so that what a person typed yesterday works today. Datacenter `i` (from 0) has
//! the hundred ports from `--port` + 100 i on:
//!
//! | port | who |
//! |---|---|
//! | + 0 .. 19 | plain port of node 1, 2, ... |
//! | + 20 .. 39 | their cluster ports |
//! | + 40 .. 59 | their internal ports |
//! | + 60 .. 79 | their metrics and health |
//! | + 80, + 90 | the PD: internal port, page |
//! | + 81, + 82, + 83 | the syncer: internal port, link (UDP), metrics and health |
//! | + 84 .. 86, + 87 .. 89 | the second and third syncer, likewise |
//! | + 91 .. 93, + 94 .. 96, + 97 .. 99 | the fourth, fifth and sixth |

use crate::exit::Exit;
use flotilla_topology::api::{BacklogBudget, NodeAddresses};
use flotilla_topology::ids::{ClusterId, Role};
use std::collections::BTreeSet;
use std::path::PathBuf;

/// Datacenters of a demo: each costs processes, and this is one machine.
pub const DATACENTERS_MAX: usize = 8;
/// Nodes in each datacenter, as many as there are ports for.
pub const NODES_MAX: usize = 20;
/// First of the three ports of each syncer of a cluster: what nodes and PD leave of the hundred.
const SYNCER_PORTS: [usize; 6] = [81, 84, 87, 91, 94, 97];
/// Syncers of each cluster, as many as there are ports for.
pub const SYNCERS_MAX: usize = SYNCER_PORTS.len();
/// Ports of a datacenter.
pub const PORTS: usize = 100;
/// Groups of the namespace `default`: enough to spread leaders over some nodes.
pub const PARTITIONS: u32 = 4;

/// How the datacenters belong together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Mode {
    /// A cluster in each datacenter, kept in step over links.
    Async,
    /// One cluster over all of them.
    Stretched,
}

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Wish {
    /// How the datacenters belong together.
    pub mode: Mode,
    /// Their names.
    pub datacenters: Vec<String>,
    /// Nodes in each.
    pub nodes: Option<usize>,
    /// Syncers of each cluster that has peers.
    pub syncers: usize,
    /// First port.
    pub port: u16,
    /// Clusters that no other one is told of at first.
    pub apart: Vec<String>,
    /// What groups keep of their logs for peers that lag, if not what PD keeps by itself.
    pub backlog: Option<BacklogBudget>,
    /// Seconds after which clusters fence one that is away beyond its budget, if they do.
    pub fence_after: Option<u64>,
    /// What the clusters are made of, besides their processes.
    pub make: Make,
    /// The flotilla executable of all processes; `None`: the one that runs.
    pub program: Option<PathBuf>,
}

/// What clusters are made of, besides their processes; `None` is what the demo has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Make {
    /// Groups of the namespace `default`.
    pub partitions: Option<u32>,
    /// Replicas of each group.
    pub replicas: Option<u8>,
    /// Client connections that a node takes.
    pub connections_max: Option<usize>,
    /// Bytes of memory that a node may use.
    pub memory: Option<u64>,
    /// Bytes of a disk of its own that each node has; only root may mount one.
    pub disk: Option<u64>,
    /// Free bytes of the disk below which a node refuses writes.
    pub disk_reserve: Option<u64>,
}

impl Make {
    /// Groups of the namespace `default`.
    pub fn partitions(&self) -> u32 {
        self.partitions.unwrap_or(PARTITIONS)
    }

    /// Replicas of each group in a cluster of so many nodes: 3 where that is possible.
    pub fn replicas(&self, nodes: usize) -> u8 {
        self.replicas.unwrap_or(if nodes >= 3 { 3 } else { 1 })
    }
}

impl Default for Wish {
    /// Two clusters, as `flotilla demo` starts them.
    fn default() -> Self {
        let datacenters = ["east", "west"].map(str::to_owned).into();
        Wish {
            mode: Mode::Async,
            datacenters,
            nodes: None,
            syncers: 1,
            port: 7000,
            apart: vec![],
            backlog: None,
            fence_after: None,
            make: Make::default(),
            program: None,
        }
    }
}

/// All processes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// `async`, `stretched`, or `plain` with one datacenter.
    pub mode: &'static str,
    /// Names of the datacenters.
    pub datacenters: Vec<String>,
    /// All clusters.
    pub clusters: Vec<Cluster>,
    /// As in the wish.
    pub apart: Vec<String>,
    /// As in the wish.
    pub backlog: Option<BacklogBudget>,
    /// As in the wish.
    pub fence_after: Option<u64>,
    /// As in the wish.
    pub make: Make,
    /// As in the wish.
    pub program: Option<PathBuf>,
}

/// A cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    /// Its id, from 1.
    pub id: ClusterId,
    /// Its name.
    pub name: String,
    /// Where its nodes stand.
    pub datacenters: Vec<String>,
    /// Its nodes.
    pub nodes: Vec<Node>,
    /// Its placement driver, in the first of its datacenters.
    pub pd: Pd,
    /// Its syncers, when there is another cluster.
    pub syncers: Vec<Syncer>,
}

/// A storage server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Where it stands.
    pub datacenter: String,
    /// Where it listens.
    pub at: NodeAddresses,
}

/// A placement driver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pd {
    /// Its name.
    pub name: String,
    /// Where it stands.
    pub datacenter: String,
    /// Internal port.
    pub rpc: String,
    /// Page, metrics and health.
    pub http: String,
}

/// A syncer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Syncer {
    /// Its name.
    pub name: String,
    /// Where it stands.
    pub datacenter: String,
    /// Internal port.
    pub rpc: String,
    /// Where other clusters reach it (UDP).
    pub link: String,
    /// Metrics and health.
    pub http: String,
}

/// A process of any kind, as the demo speaks of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its unique name.
    pub name: String,
    /// What it is.
    pub role: Role,
    /// Id of its cluster.
    pub cluster: ClusterId,
    /// Name of its cluster.
    pub cluster_name: String,
    /// Where it stands.
    pub datacenter: String,
    /// Metrics and health.
    pub http: String,
    /// Where clients reach it; nodes only.
    pub resp: Option<String>,
}

fn at(port: usize) -> String {
    format!("127.0.0.1:{port}")
}

impl Layout {
    /// What a wish amounts to, or why it cannot be.
    pub fn new(wish: &Wish) -> anyhow::Result<Layout> {
        check(wish)?;
        let count = wish.datacenters.len();
        let stretched = wish.mode == Mode::Stretched && count > 1;
        // Over three datacenters one node in each carries a replica of everything already.
        let nodes = wish.nodes.unwrap_or(if stretched && count >= 3 { 1 } else { 3 });
        let base = |index: usize| usize::from(wish.port) + index * PORTS;
        let nodes_of = |index: usize| -> Vec<Node> {
            (0..nodes).map(|n| node(&wish.datacenters[index], base(index), n)).collect()
        };
        let clusters = if stretched {
            vec![Cluster {
                id: ClusterId(1),
                name: "demo".to_owned(),
                datacenters: wish.datacenters.clone(),
                nodes: (0..count).flat_map(nodes_of).collect(),
                pd: pd(&wish.datacenters[0], base(0)),
                syncers: vec![],
            }]
        } else {
            let cluster = |(index, name): (usize, &String)| Cluster {
                id: ClusterId(index as u8 + 1),
                name: name.clone(),
                datacenters: vec![name.clone()],
                nodes: nodes_of(index),
                pd: pd(name, base(index)),
                syncers: (0..if count > 1 { wish.syncers } else { 0 })
                    .map(|n| syncer(name, base(index), n))
                    .collect(),
            };
            wish.datacenters.iter().enumerate().map(cluster).collect()
        };
        let mode = match (count, stretched) {
            (1, _) => "plain",
            (_, true) => "stretched",
            (_, false) => "async",
        };
        let (datacenters, apart) = (wish.datacenters.clone(), wish.apart.clone());
        let Wish { backlog, fence_after, make, .. } = *wish;
        let program = wish.program.clone();
        Ok(Layout { mode, datacenters, clusters, apart, backlog, fence_after, make, program })
    }

    /// A cluster by its name.
    pub fn cluster(&self, name: &str) -> anyhow::Result<&Cluster> {
        let found = self.clusters.iter().find(|cluster| cluster.name == name);
        found.ok_or_else(|| Exit::usage(format!("there is no cluster `{name}`")))
    }

    /// Whether a cluster is told of another one from the beginning.
    pub fn knows(&self, viewer: &Cluster, other: &Cluster) -> bool {
        viewer.id == other.id || !self.apart.contains(&other.name)
    }

    /// All processes, cluster by cluster.
    pub fn processes(&self) -> Vec<Process> {
        let mut all = Vec::new();
        for cluster in &self.clusters {
            let mut add = |name: &str, role, datacenter: &str, http: &str, resp: Option<&str>| {
                all.push(Process {
                    name: name.to_owned(),
                    role,
                    cluster: cluster.id,
                    cluster_name: cluster.name.clone(),
                    datacenter: datacenter.to_owned(),
                    http: http.to_owned(),
                    resp: resp.map(str::to_owned),
                });
            };
            let pd = &cluster.pd;
            add(&pd.name, Role::Pd, &pd.datacenter, &pd.http, None);
            for node in &cluster.nodes {
                let resp = Some(node.at.resp.as_str());
                add(&node.name, Role::Node, &node.datacenter, &node.at.http, resp);
            }
            for syncer in &cluster.syncers {
                add(&syncer.name, Role::Syncer, &syncer.datacenter, &syncer.http, None);
            }
        }
        all
    }

    /// All ports.
    pub fn ports(&self) -> Vec<u16> {
        let mut addresses: Vec<&String> = Vec::new();
        for cluster in &self.clusters {
            for node in &cluster.nodes {
                let NodeAddresses { resp, cluster_resp, rpc, http } = &node.at;
                addresses.extend([resp, cluster_resp, rpc, http]);
            }
            addresses.extend([&cluster.pd.rpc, &cluster.pd.http]);
            for Syncer { rpc, link, http, .. } in &cluster.syncers {
                addresses.extend([rpc, link, http]);
            }
        }
        let port = |address: &String| address.rsplit_once(':').and_then(|(_, p)| p.parse().ok());
        addresses.into_iter().filter_map(port).collect()
    }

    /// What must be the same for a directory to be used again.
    pub fn shape(&self) -> String {
        let nodes = self.clusters.iter().map(|c| c.nodes.len().to_string()).collect::<Vec<_>>();
        format!("{} {} {}", self.mode, self.datacenters.join(","), nodes.join(","))
    }
}

fn node(datacenter: &str, base: usize, n: usize) -> Node {
    Node {
        name: format!("{datacenter}-n{}", n + 1),
        datacenter: datacenter.to_owned(),
        at: NodeAddresses {
            resp: at(base + n),
            cluster_resp: at(base + 20 + n),
            rpc: at(base + 40 + n),
            http: at(base + 60 + n),
        },
    }
}

fn pd(datacenter: &str, base: usize) -> Pd {
    Pd {
        name: format!("{datacenter}-pd"),
        datacenter: datacenter.to_owned(),
        rpc: at(base + 80),
        http: at(base + 90),
    }
}

fn syncer(datacenter: &str, base: usize, n: usize) -> Syncer {
    let number = if n == 0 { String::new() } else { (n + 1).to_string() };
    let first = base + SYNCER_PORTS[n];
    Syncer {
        name: format!("{datacenter}-syncer{number}"),
        datacenter: datacenter.to_owned(),
        rpc: at(first),
        link: at(first + 1),
        http: at(first + 2),
    }
}

fn check(wish: &Wish) -> anyhow::Result<()> {
    let names = &wish.datacenters;
    if names.is_empty() || names.len() > DATACENTERS_MAX {
        let line = format!("--datacenters: give 1 to {DATACENTERS_MAX} names, as in east,west");
        return Err(Exit::usage(line));
    }
    for name in names {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if name.is_empty() || name.len() > 32 || !name.chars().all(plain) {
            return Err(Exit::usage(format!(
                "--datacenters: `{name}` must be 1 to 32 of a-z 0-9 -"
            )));
        }
    }
    if names.iter().collect::<BTreeSet<_>>().len() < names.len() {
        return Err(Exit::usage("--datacenters: each name can be given once"));
    }
    if let Some(nodes) = wish.nodes
        && !(1..=NODES_MAX).contains(&nodes)
    {
        return Err(Exit::usage(format!("--nodes ({nodes}) must be 1 to {NODES_MAX}")));
    }
    if !(1..=SYNCERS_MAX).contains(&wish.syncers) {
        let syncers = wish.syncers;
        return Err(Exit::usage(format!("--syncers ({syncers}) must be 1 to {SYNCERS_MAX}")));
    }
    if wish.syncers > 1 && (wish.mode == Mode::Stretched || names.len() < 2) {
        let line = "--syncers: only clusters that have links have syncers; leave it out";
        return Err(Exit::usage(line));
    }
    let last = usize::from(wish.port) + names.len() * PORTS;
    if wish.port < 1024 || last > 65_535 {
        return Err(Exit::usage(format!(
            "--port ({}): each datacenter takes the next {PORTS} ports, between 1024 and 65535",
            wish.port
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(mode: Mode, datacenters: &[&str], nodes: Option<usize>) -> Wish {
        let datacenters = datacenters.iter().map(|name| (*name).to_owned()).collect();
        Wish { mode, datacenters, nodes, ..Wish::default() }
    }

    #[test]
    fn async_is_a_cluster_in_each_datacenter_and_one_datacenter_is_plain() {
        let layout = Layout::new(&wish(Mode::Async, &["east", "west"], None)).unwrap();
        assert_eq!(layout.mode, "async");
        assert_eq!(layout.clusters[1].name, "west");
        assert_eq!(layout.clusters[1].nodes[2].at.resp, "127.0.0.1:7102");
        assert_eq!(layout.processes().len(), 10);
        let plain = Layout::new(&wish(Mode::Stretched, &["east"], None)).unwrap();
        assert_eq!((plain.mode, plain.clusters[0].name.as_str()), ("plain", "east"));
        assert_eq!(plain.clusters[0].syncers, []);
    }

    #[test]
    fn further_syncers_have_numbers_and_ports_of_their_own() {
        let wish = Wish { syncers: 2, ..Wish::default() };
        let layout = Layout::new(&wish).unwrap();
        let [first, second] = layout.clusters[1].syncers.as_slice() else { panic!("{layout:?}") };
        assert_eq!((first.name.as_str(), first.link.as_str()), ("west-syncer", "127.0.0.1:7182"));
        assert_eq!(
            (second.name.as_str(), second.http.as_str()),
            ("west-syncer2", "127.0.0.1:7186")
        );
        assert_eq!(layout.processes().len(), 12);
    }

    #[test]
    fn stretched_is_one_cluster_over_all() {
        let layout = Layout::new(&wish(Mode::Stretched, &["a", "b", "c"], None)).unwrap();
        assert_eq!((layout.clusters.len(), layout.clusters[0].name.as_str()), (1, "demo"));
        let places: Vec<&str> =
            layout.clusters[0].nodes.iter().map(|node| node.datacenter.as_str()).collect();
        assert_eq!(places, ["a", "b", "c"]);
        assert_eq!(layout.clusters[0].pd.datacenter, "a");
    }

    #[test]
    fn no_port_and_no_name_is_given_twice() {
        for mode in [Mode::Async, Mode::Stretched] {
            let wish = wish(mode, &["a", "b", "c"], Some(NODES_MAX));
            let syncers = if mode == Mode::Async { SYNCERS_MAX } else { 1 };
            let layout = Layout::new(&Wish { syncers, ..wish }).unwrap();
            let ports = layout.ports();
            assert_eq!(ports.iter().collect::<BTreeSet<_>>().len(), ports.len());
            let names: Vec<String> = layout.processes().into_iter().map(|p| p.name).collect();
            assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
        }
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for (datacenters, nodes) in [
            (&[][..], None),
            (&["east", "east"][..], None),
            (&["Ost/West"][..], None),
            (&["east"][..], Some(0)),
            (&["east"][..], Some(21)),
        ] {
            assert!(Layout::new(&wish(Mode::Async, datacenters, nodes)).is_err());
        }
        for (mode, syncers) in [(Mode::Async, 0), (Mode::Async, 7), (Mode::Stretched, 2)] {
            let wish = Wish { syncers, ..wish(mode, &["east", "west"], None) };
            assert!(Layout::new(&wish).unwrap_err().to_string().contains("--syncers"));
        }
        let far = Wish { port: 65_500, ..wish(Mode::Async, &["east"], None) };
        assert!(Layout::new(&far).unwrap_err().to_string().contains("--port"));
    }
}
