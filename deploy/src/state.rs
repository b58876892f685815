//! The state file: where the processes of running clusters are, for tools and tests.
//!
//! The demo writes it; `status`, `lag` and `verify` read it. It is replaced in one step, so a reader
//! sees the old one or the new one.

use crate::exit::Exit;
use flotilla_topology::ids::ClusterId;
use serde::{Deserialize, Serialize};
use std::io::Write;
use std::path::{Path, PathBuf};

/// All of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateFile {
    /// All clusters.
    pub clusters: Vec<ClusterState>,
    /// The demo that runs them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub demo: Option<DemoState>,
}

/// A cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterState {
    /// Its name.
    pub name: String,
    /// Its storage servers.
    pub nodes: Vec<NodeState>,
    /// Its placement drivers.
    pub pd: Vec<PdState>,
    /// Its syncers.
    pub syncers: Vec<SyncerState>,
    /// Its id.
    pub id: ClusterId,
    /// The certificate with which `verify` asks its nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<ClientFiles>,
}

/// A certificate for the command line, PEM files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientFiles {
    /// The authority.
    pub ca: PathBuf,
    /// The certificate.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// A storage server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeState {
    /// Its name.
    pub name: String,
    /// Where it stands.
    pub datacenter: String,
    /// Its process.
    pub pid: u32,
    /// Plain port.
    pub resp: String,
    /// Cluster port.
    pub cluster_resp: String,
    /// Metrics and health.
    pub http: String,
    /// Internal port.
    pub rpc: String,
    /// Its log.
    pub log: PathBuf,
}

/// A placement driver.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PdState {
    /// Its name.
    pub name: String,
    /// Where it stands.
    pub datacenter: String,
    /// Its process.
    pub pid: u32,
    /// The page and the JSON.
    pub http: String,
    /// Internal port.
    pub rpc: String,
    /// Its log.
    pub log: PathBuf,
}

/// A syncer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncerState {
    /// Its name.
    pub name: String,
    /// Where it stands.
    pub datacenter: String,
    /// Its process.
    pub pid: u32,
    /// Metrics and health.
    pub http: String,
    /// Internal port.
    pub rpc: String,
    /// Where other clusters reach it, without the emulated WAN.
    pub link: String,
    /// Its log.
    pub log: PathBuf,
}

/// The demo.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DemoState {
    /// Its process.
    pub pid: u32,
    /// `async`, `stretched` or `plain`.
    pub mode: String,
    /// Its directory.
    pub dir: PathBuf,
    /// The socket on which it takes commands.
    pub control: PathBuf,
}

impl StateFile {
    /// Reads it.
    pub fn load(path: &Path) -> anyhow::Result<StateFile> {
        let shown = path.display();
        let text = std::fs::read_to_string(path).map_err(|error| {
            Exit::usage(format!("cannot read the state file {shown}: {error}; is the demo ready?"))
        })?;
        serde_json::from_str(&text)
            .map_err(|error| Exit::usage(format!("{shown} is not a state file: {error}")))
    }

    /// Replaces it in one step.
    pub fn save(&self, path: &Path) -> std::io::Result<()> {
        let mut beside = path.as_os_str().to_owned();
        beside.push(format!(".{}", std::process::id()));
        let beside = PathBuf::from(beside);
        let mut file = std::fs::File::create(&beside)?;
        file.write_all(serde_json::to_string_pretty(self)?.as_bytes())?;
        file.write_all(b"\n")?;
        drop(file);
        std::fs::rename(&beside, path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_saved_is_loaded_and_replaces_what_was_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.json");
        let cluster = ClusterState {
            name: "east".into(),
            nodes: vec![],
            pd: vec![],
            syncers: vec![],
            id: ClusterId(1),
            client: None,
        };
        let mut state = StateFile { clusters: vec![cluster], demo: None };
        state.save(&path).unwrap();
        state.clusters[0].name = "west".into();
        state.save(&path).unwrap();
        assert_eq!(StateFile::load(&path).unwrap(), state);
        let files = std::fs::read_dir(dir.path()).unwrap().count();
        assert_eq!(files, 1, "nothing is left beside it");
    }
}
