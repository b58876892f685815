//! What a demo writes before it starts anything: certificates, topology files, configurations.
//!
//! ```text
//! DIR/demo.json     which demo this is          DIR/certs/    an authority's certificates, of this run
//! DIR/config/       a TOML file per process     DIR/data/     kept between runs
//! DIR/logs/         a log per process           DIR/state.json, DIR/control   unless told otherwise
//! DIR/disks/        disks of nodes that have their own
//! DIR/clocks/       how far clocks are shifted, where they are
//! ```

use super::layout::{Cluster, Layout, Node, Pd, Syncer};
use super::roads::Roads;
use crate::exit::Exit;
use crate::state::ClientFiles;
use anyhow::Context;
use flotilla_chaos::disk::SmallDisk;
use flotilla_node::tls::TlsFiles;
use flotilla_node::tls::dev::{Authority, Request};
use flotilla_topology::api::BacklogBudget;
use flotilla_topology::duration::Ms;
use flotilla_topology::file::{self, Datacenter, Mode, Rtt, TopologyFile};
use flotilla_topology::ids::{ClusterId, Identity, Role};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Memory of a node: many of them share this machine.
const NODE_MEMORY: u64 = 128 << 20;
/// Memory of a syncer, for what peers have not acknowledged.
const SYNCER_MEMORY: u64 = 256 << 20;
/// The same where groups keep little of their logs: what a syncer has read and holds for a peer needs
/// no log, so it must be less than what a test writes to exceed that.
const SYNCER_MEMORY_SMALL: u64 = 64 << 20;
/// The demo's certificates outlive any demo.
const CERTIFICATE_DAYS: u32 = 365;
/// Names the demo that a directory belongs to.
const MARK: &str = "demo.json";
/// The name in the certificate of the command line.
const CLIENT: &str = "demo";

/// Makes the directory ready, or says why it cannot be used.
pub fn prepare(dir: &Path, layout: &Layout) -> anyhow::Result<()> {
    let shown = dir.display();
    let mark = dir.join(MARK);
    let mine = json!({ "shape": layout.shape() });
    match std::fs::read_to_string(&mark) {
        Ok(text) => {
            let there: Value = serde_json::from_str(&text).unwrap_or_default();
            if there != mine {
                return Err(Exit::usage(format!(
                    "--dir {shown} holds a demo of another shape ({there}): choose another directory"
                )));
            }
        }
        Err(_) => {
            let empty = match std::fs::read_dir(dir) {
                Ok(mut entries) => entries.next().is_none(),
                Err(_) => true,
            };
            if !empty {
                let line = format!("--dir {shown} is not empty and no demo's: choose another one");
                return Err(Exit::usage(line));
            }
        }
    }
    for part in ["data", "logs"] {
        let path = dir.join(part);
        std::fs::create_dir_all(&path)
            .map_err(|error| Exit::usage(format!("cannot create {}: {error}", path.display())))?;
    }
    // Certificates, configurations and clocks belong to a run, data to the demo.
    for part in ["certs", "config", "clocks"] {
        let path = dir.join(part);
        if path.exists() {
            std::fs::remove_dir_all(&path)
                .with_context(|| format!("cannot replace {}", path.display()))?;
        }
        std::fs::create_dir_all(&path)?;
    }
    std::fs::write(&mark, mine.to_string())?;
    Ok(())
}

/// The log of a process.
pub fn log(dir: &Path, name: &str) -> PathBuf {
    dir.join("logs").join(format!("{name}.log"))
}

/// The configuration of a process.
pub fn config(dir: &Path, name: &str) -> PathBuf {
    dir.join("config").join(format!("{name}.toml"))
}

/// The data of a process.
pub fn data(dir: &Path, name: &str) -> PathBuf {
    dir.join("data").join(name)
}

/// How far the clock of a process is shifted; no file: not at all.
pub fn clock(dir: &Path, name: &str) -> PathBuf {
    dir.join("clocks").join(name)
}

/// Gives each node a disk of its own, if that is wished for; its data directory is a link to it.
pub fn mount_disks(dir: &Path, layout: &Layout) -> anyhow::Result<BTreeMap<String, SmallDisk>> {
    let mut disks = BTreeMap::new();
    let Some(bytes) = layout.make.disk else { return Ok(disks) };
    for node in layout.clusters.iter().flat_map(|cluster| &cluster.nodes) {
        let disk = SmallDisk::mount(&dir.join("disks").join(&node.name), bytes)?;
        let inside = disk.path().join("data");
        std::fs::create_dir_all(&inside)?;
        std::os::unix::fs::symlink(&inside, data(dir, &node.name))
            .with_context(|| format!("{} is there already", node.name))?;
        disks.insert(node.name.clone(), disk);
    }
    Ok(disks)
}

/// Takes all data from a cluster whose processes are dead.
pub fn take_data(dir: &Path, cluster: &Cluster) -> anyhow::Result<()> {
    let nodes = cluster.nodes.iter().map(|node| &node.name);
    let syncers = cluster.syncers.iter().map(|syncer| &syncer.name);
    for name in nodes.chain(syncers).chain([&cluster.pd.name]) {
        let data = data(dir, name);
        if data.exists() {
            std::fs::remove_dir_all(&data)
                .with_context(|| format!("cannot remove {}", data.display()))?;
        }
    }
    Ok(())
}

/// Gives a cluster whose processes are dead a higher incarnation, in the configuration of its PD.
pub fn begin_life(dir: &Path, cluster: &Cluster) -> anyhow::Result<()> {
    let path = config(dir, &cluster.pd.name);
    let mut table: toml::Table = std::fs::read_to_string(&path)?.parse()?;
    let before = table.get("incarnation").and_then(toml::Value::as_integer).unwrap_or(1);
    table.insert("incarnation".to_owned(), toml::Value::Integer(before + 1));
    Ok(std::fs::write(&path, toml::to_string(&table)?)?)
}

/// Writes everything; returns the command line's certificate for each cluster.
pub fn write(
    dir: &Path,
    layout: &Layout,
    roads: &Roads,
    rtt: Duration,
) -> anyhow::Result<BTreeMap<ClusterId, ClientFiles>> {
    let writer = Writer {
        dir,
        layout,
        roads,
        rtt,
        authority: Authority::create("Flotilla demo", CERTIFICATE_DAYS)?,
    };
    let mut clients = BTreeMap::new();
    for cluster in &layout.clusters {
        writer.cluster(cluster)?;
        let TlsFiles { ca, cert, key } = writer.tls(cluster.id, Role::Client, CLIENT)?;
        clients.insert(cluster.id, ClientFiles { ca, cert, key });
    }
    Ok(clients)
}

struct Writer<'a> {
    dir: &'a Path,
    layout: &'a Layout,
    roads: &'a Roads,
    rtt: Duration,
    /// One for all clusters, so that they trust each other's links; it is not written down.
    authority: Authority,
}

impl Writer<'_> {
    fn cluster(&self, cluster: &Cluster) -> anyhow::Result<()> {
        let topology = self.dir.join("config").join(format!("{}-topology.toml", cluster.name));
        std::fs::write(&topology, self.topology(cluster).to_toml())?;
        self.toml(&cluster.pd.name, &self.pd(cluster, &cluster.pd, &topology)?)?;
        for node in &cluster.nodes {
            self.toml(&node.name, &self.node(cluster, node)?)?;
        }
        for syncer in &cluster.syncers {
            self.toml(&syncer.name, &self.syncer(cluster, syncer)?)?;
        }
        Ok(())
    }

    fn toml(&self, name: &str, value: &Value) -> anyhow::Result<()> {
        let path = config(self.dir, name);
        std::fs::write(&path, toml::to_string(value)?)
            .with_context(|| format!("cannot write {}", path.display()))
    }

    fn tls(&self, cluster: ClusterId, role: Role, name: &str) -> anyhow::Result<TlsFiles> {
        let identity = Identity { cluster, role, name: name.to_owned() };
        // Names are unique in a cluster: the command line's is the same in all of them.
        let dir = self.dir.join("certs").join(cluster.to_string());
        let request = Request { days: CERTIFICATE_DAYS, ..Request::of(identity) };
        Ok(self.authority.issue_files(&request, &dir)?)
    }

    fn data(&self, name: &str) -> PathBuf {
        data(self.dir, name)
    }

    fn node(&self, cluster: &Cluster, node: &Node) -> anyhow::Result<Value> {
        let others = cluster.datacenters.iter().filter(|other| **other != node.datacenter);
        let seen: BTreeMap<&String, Value> =
            others.map(|from| (from, json!(self.roads.node_seen_from(from, &node.at)))).collect();
        let mut config = json!({
            "name": node.name,
            "cluster": cluster.id,
            "datacenter": node.datacenter,
            "dir": self.data(&node.name),
            "pd": [self.roads.seen_from(&node.datacenter, &cluster.pd.rpc)],
            "memory": self.layout.make.memory.unwrap_or(NODE_MEMORY),
            "listen": node.at,
            "advertise_to": seen,
            "tls": tls_table(&self.tls(cluster.id, Role::Node, &node.name)?),
            "raft": { "rtt_ms": self.spread_ms(cluster) },
        });
        let make = &self.layout.make;
        let limits = [
            ("connections_max", make.connections_max.map(|count| count as u64)),
            ("disk_reserve", make.disk_reserve),
        ];
        let limits = limits.into_iter().filter_map(|(name, limit)| Some((name, limit?)));
        config["limits"] = limits.collect::<BTreeMap<_, _>>().into_iter().collect();
        Ok(config)
    }

    /// The round trip between voters.
    fn spread_ms(&self, cluster: &Cluster) -> f64 {
        if cluster.datacenters.len() > 1 { self.rtt.as_secs_f64() * 1e3 } else { 0.0 }
    }

    fn pd(&self, cluster: &Cluster, pd: &Pd, topology: &Path) -> anyhow::Result<Value> {
        let peers: BTreeMap<&String, [String; 1]> = self
            .layout
            .clusters
            .iter()
            .filter(|peer| peer.id != cluster.id && self.layout.knows(cluster, peer))
            .map(|peer| (&peer.name, [self.roads.seen_from(&pd.datacenter, &peer.pd.http)]))
            .collect();
        let mut config = json!({
            "name": pd.name,
            "cluster": cluster.id,
            "cluster_name": cluster.name,
            "dir": self.data(&pd.name),
            "topology": topology,
            "listen": { "rpc": pd.rpc, "http": pd.http },
            "tls": tls_table(&self.tls(cluster.id, Role::Pd, &pd.name)?),
            "bootstrap": {
                "nodes": cluster.nodes.len(),
                "partitions": self.layout.make.partitions(),
                "replicas": self.layout.make.replicas(cluster.nodes.len()),
            },
            "peers": peers,
        });
        if let Some(BacklogBudget { bytes, age_seconds }) = self.layout.backlog {
            config["backlog_budget_bytes"] = json!(bytes);
            config["backlog_budget_seconds"] = json!(age_seconds);
        }
        if let Some(seconds) = self.layout.fence_after {
            config["fence_after_seconds"] = json!(seconds);
        }
        Ok(config)
    }

    fn syncer(&self, cluster: &Cluster, syncer: &Syncer) -> anyhow::Result<Value> {
        Ok(json!({
            "name": syncer.name,
            "cluster": cluster.id,
            "datacenter": syncer.datacenter,
            "dir": self.data(&syncer.name),
            "pd": [self.roads.seen_from(&syncer.datacenter, &cluster.pd.rpc)],
            "memory": if self.layout.backlog.is_some() { SYNCER_MEMORY_SMALL } else { SYNCER_MEMORY },
            "listen": { "rpc": syncer.rpc, "link": syncer.link, "http": syncer.http },
            "tls": tls_table(&self.tls(cluster.id, Role::Syncer, &syncer.name)?),
        }))
    }

    /// The topology as one cluster's PD is told: peers behind the relay.
    fn topology(&self, viewer: &Cluster) -> TopologyFile {
        let here = &viewer.pd.datacenter;
        let known = self.layout.clusters.iter().filter(|other| self.layout.knows(viewer, other));
        let known: Vec<&Cluster> = known.collect();
        let stands = |name: &&String| known.iter().any(|one| one.datacenters.contains(name));
        let names: Vec<&String> = self.layout.datacenters.iter().filter(stands).collect();
        let pairs = names.iter().enumerate();
        let pairs = pairs.flat_map(|(n, a)| names[n + 1..].iter().map(move |b| (*a, *b)));
        let rtt = Ms::new(self.rtt.as_secs_f64() * 1e3).unwrap_or_default();
        let cluster = |cluster: &Cluster| file::Cluster {
            id: cluster.id,
            name: cluster.name.clone(),
            datacenters: cluster.datacenters.clone(),
            pd: vec![self.roads.seen_from(here, &cluster.pd.rpc)],
            syncers: cluster
                .syncers
                .iter()
                .map(|syncer| self.roads.seen_from(here, &syncer.link))
                .collect(),
            replicas: self.layout.make.replicas(cluster.nodes.len()),
        };
        TopologyFile {
            mode: match self.layout.mode {
                "async" => Some(Mode::Async),
                "stretched" => Some(Mode::Stretched),
                _ => None,
            },
            datacenters: names
                .iter()
                .map(|name| Datacenter { name: (*name).clone(), region: None })
                .collect(),
            rtts: pairs.map(|(a, b)| Rtt { between: [a.clone(), b.clone()], rtt }).collect(),
            clusters: known.iter().map(|one| cluster(one)).collect(),
            ..TopologyFile::default()
        }
    }
}

fn tls_table(files: &TlsFiles) -> Value {
    json!({ "ca": files.ca, "cert": files.cert, "key": files.key })
}

#[cfg(test)]
mod tests {
    use super::super::layout::Wish;
    use super::*;
    use flotilla_node::config::Config as NodeConfig;
    use flotilla_syncer::Config as SyncerConfig;

    fn layout(mode: super::super::layout::Mode, datacenters: &[&str]) -> Layout {
        let datacenters: Vec<String> = datacenters.iter().map(|name| (*name).to_owned()).collect();
        let syncers =
            if mode == super::super::layout::Mode::Async && datacenters.len() > 2 { 2 } else { 1 };
        Layout::new(&Wish { mode, datacenters, syncers, ..Wish::default() }).unwrap()
    }

    #[test]
    fn what_is_written_is_what_the_processes_read() {
        use super::super::layout::Mode::{Async, Stretched};
        let layouts = [
            layout(Async, &["east", "west"]),
            layout(Async, &["a", "b", "c"]),
            layout(Stretched, &["a", "b", "c"]),
            layout(Stretched, &["a", "b"]),
            layout(Async, &["east"]),
        ];
        for layout in layouts {
            let dir = tempfile::tempdir().unwrap();
            prepare(dir.path(), &layout).unwrap();
            let rtt = Duration::from_millis(60);
            write(dir.path(), &layout, &Roads::default(), rtt).unwrap();
            for cluster in &layout.clusters {
                let pd = flotilla_pd::Config::load(&config(dir.path(), &cluster.pd.name)).unwrap();
                pd.settings().unwrap();
                for node in &cluster.nodes {
                    NodeConfig::load(&config(dir.path(), &node.name)).unwrap();
                }
                for syncer in &cluster.syncers {
                    SyncerConfig::load(&config(dir.path(), &syncer.name)).unwrap();
                }
            }
            topology_names_all(dir.path(), &layout);
            // The same demo again is fine, another one is not.
            prepare(dir.path(), &layout).unwrap();
            let other = self::layout(Async, &["x", "y"]);
            let error = prepare(dir.path(), &other).unwrap_err().to_string();
            assert!(error.contains("another shape"), "{error}");
        }
    }

    /// Peers can reach each other by any syncer.
    fn topology_names_all(dir: &Path, layout: &Layout) {
        for viewer in &layout.clusters {
            let path = dir.join("config").join(format!("{}-topology.toml", viewer.name));
            let text = std::fs::read_to_string(path).unwrap();
            for syncer in layout.clusters.iter().flat_map(|cluster| &cluster.syncers) {
                assert!(text.contains(&syncer.link), "{} in {text}", syncer.name);
            }
        }
    }

    #[test]
    fn who_is_apart_is_told_to_no_other_and_who_begins_anew_is_empty() {
        let datacenters = ["a", "b", "c"].map(str::to_owned).into();
        let apart = vec!["c".to_owned()];
        let backlog = Some(BacklogBudget { bytes: 64 << 20, age_seconds: 7 });
        let wish = Wish { datacenters, apart, backlog, fence_after: Some(5), ..Wish::default() };
        let layout = Layout::new(&wish).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        prepare(dir, &layout).unwrap();
        write(dir, &layout, &Roads::default(), Duration::from_millis(60)).unwrap();
        let settings =
            |name: &str| flotilla_pd::Config::load(&config(dir, name)).unwrap().settings().unwrap();
        let peers = |name: &str| settings(name).peers.into_iter().map(|peer| peer.name);
        assert_eq!(peers("a-pd").collect::<Vec<_>>(), ["b"]);
        assert_eq!(peers("c-pd").collect::<Vec<_>>(), ["a", "b"], "else nothing of it is synced");
        assert_eq!(settings("c-pd").backlog_budget_seconds, 7);
        assert_eq!(settings("c-pd").fence_after_seconds, Some(5));

        std::fs::create_dir_all(data(dir, "c-n1").join("rows")).unwrap();
        for incarnation in [1, 2] {
            assert_eq!(settings("c-pd").incarnation.0, incarnation);
            begin_life(dir, &layout.clusters[2]).unwrap();
        }
        assert!(data(dir, "c-n1").exists());
        take_data(dir, &layout.clusters[2]).unwrap();
        assert!(!data(dir, "c-n1").exists());
    }

    #[test]
    fn a_directory_of_somebody_else_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("thesis.tex"), "").unwrap();
        let layout = layout(super::super::layout::Mode::Async, &["east"]);
        let error = prepare(dir.path(), &layout).unwrap_err().to_string();
        assert!(error.contains("not empty"), "{error}");
    }
}
