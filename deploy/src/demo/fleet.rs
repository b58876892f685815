//! The processes of a demo and the network between them: the part that chaos and the benchmark
//! share with it.

use super::files;
use super::layout::{Layout, Process};
use super::roads::Roads;
use crate::exit::{self, Exit};
use crate::find;
use crate::links;
use crate::state::{
    ClientFiles, ClusterState, DemoState, NodeState, PdState, StateFile, SyncerState,
};
use anyhow::Context;
use flotilla_chaos::disk::SmallDisk;
use flotilla_chaos::process::{Death, HeldPort, Plan, ProcessError, Runner, State};
use flotilla_chaos::vitals::{Census, Vital};
use flotilla_chaos::wan::Relay;
use flotilla_node::clock::OFFSET_FILE_VARIABLE;
use flotilla_topology::api::{ClusterStatus, PeerCluster};
use flotilla_topology::ids::{ClusterId, Role};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// How often it is asked whether all is at rest. Heartbeats come twice a second.
const SETTLE_PERIOD: Duration = Duration::from_millis(100);
/// How long a process may take to leave before it is killed.
const STOP_PATIENCE: Duration = Duration::from_secs(10);

/// Running processes.
pub struct Fleet {
    /// What there is.
    pub layout: Layout,
    /// Where everything is kept.
    pub dir: PathBuf,
    /// The emulated network.
    pub relay: Relay,
    roads: Roads,
    rtt: Duration,
    runner: Runner,
    clients: BTreeMap<ClusterId, ClientFiles>,
    /// Behind the runner: processes end before their disks go.
    disks: BTreeMap<String, SmallDisk>,
}

impl Fleet {
    /// Writes the files and starts all processes at once. Nothing is started, and nothing written,
    /// when a port is taken.
    pub async fn start(
        layout: Layout,
        dir: &Path,
        rtt: Duration,
    ) -> anyhow::Result<(Fleet, mpsc::Receiver<Death>)> {
        let mut held = Vec::new();
        for port in layout.ports() {
            held.push(HeldPort::wanted(port).map_err(Exit::usage)?);
        }
        let program = match &layout.program {
            Some(program) => program.clone(),
            None => std::env::current_exe()?,
        };
        files::prepare(dir, &layout)?;
        let disks = files::mount_disks(dir, &layout)?;
        let relay = Relay::new(0)?;
        for (n, a) in layout.datacenters.iter().enumerate() {
            for b in &layout.datacenters[n + 1..] {
                relay.set_rtt(a, b, rtt);
            }
        }
        let roads = Roads::open(&relay, &layout).await?;
        let clients = files::write(dir, &layout, &roads, rtt)?;
        let (runner, deaths) = Runner::new();
        drop(held);
        for process in layout.processes() {
            runner.start(plan(&process, dir, &program))?;
        }
        let dir = dir.to_owned();
        Ok((Fleet { layout, dir, relay, roads, rtt, runner, clients, disks }, deaths))
    }

    /// Waits until all is at rest; exit code 5 with what is missing when it takes too long.
    pub async fn settled(&self, patience: Duration) -> anyhow::Result<()> {
        let deadline = Instant::now() + patience;
        loop {
            let missing = self.missing().await;
            if missing.is_empty() {
                return Ok(());
            }
            if Instant::now() > deadline {
                let line = format!("not ready after {patience:?}: {}", missing.join("; "));
                return Err(Exit::error(exit::TIMED_OUT, line));
            }
            tokio::time::sleep(SETTLE_PERIOD).await;
        }
    }

    /// What keeps the clusters from being at rest: processes that are not heard of, groups without
    /// a leader, links that are not live.
    pub async fn missing(&self) -> Vec<String> {
        let asked =
            self.layout.clusters.iter().map(|cluster| async {
                find::status_of(std::slice::from_ref(&cluster.pd.http)).await
            });
        let answers = futures::future::join_all(asked).await;
        let told: Vec<&ClusterStatus> = answers.iter().flatten().collect();
        let mut missing = Vec::new();
        for (cluster, answer) in self.layout.clusters.iter().zip(&answers) {
            match answer {
                Ok(status) => {
                    let sizes = (cluster.nodes.len(), cluster.syncers.len());
                    missing.extend(missing_in(status, sizes, &told));
                }
                Err(error) => missing.push(error.to_string()),
            }
        }
        for process in self.layout.processes() {
            if missing.is_empty() && process.role == Role::Node {
                let ready = self.runner.ready(&process.name, Duration::ZERO).await;
                missing.extend(ready.err().map(|error| error.to_string()));
            }
        }
        missing
    }

    /// What PD says of each cluster that answers.
    pub async fn statuses(&self) -> Vec<ClusterStatus> {
        let asked = self.layout.clusters.iter().map(|cluster| async {
            find::status_of(std::slice::from_ref(&cluster.pd.http)).await.ok()
        });
        futures::future::join_all(asked).await.into_iter().flatten().collect()
    }

    /// The processes that `name` means: one, or all in a datacenter.
    pub fn named(&self, name: &str) -> anyhow::Result<Vec<Process>> {
        let all = self.layout.processes();
        let found: Vec<Process> =
            all.iter().filter(|one| one.name == name || one.datacenter == name).cloned().collect();
        if !found.is_empty() {
            return Ok(found);
        }
        let names: Vec<&str> = all.iter().map(|one| one.name.as_str()).collect();
        Err(Exit::usage(format!(
            "there is no process or datacenter `{name}`; there are {} and {}",
            names.join(", "),
            self.layout.datacenters.join(", ")
        )))
    }

    /// Refuses names that are no datacenters.
    pub fn check_datacenter(&self, name: &str) -> anyhow::Result<()> {
        if self.layout.datacenters.iter().any(|known| known == name) {
            return Ok(());
        }
        let known = self.layout.datacenters.join(", ");
        Err(Exit::usage(format!("there is no datacenter `{name}`; there are {known}")))
    }

    /// kill -9 of one process; returns when it is gone.
    pub async fn kill(&self, name: &str) -> Result<(), ProcessError> {
        self.runner.kill(name).await
    }

    /// SIGTERM to one process; returns when it is gone. It is killed when it does not go in time.
    pub async fn terminate(&self, name: &str) -> Result<(), ProcessError> {
        self.runner.terminate(name, STOP_PATIENCE).await
    }

    /// Starts a dead process again.
    pub fn restart(&self, name: &str) -> Result<u32, ProcessError> {
        self.runner.restart(name)
    }

    /// Waits until a process says that it is ready.
    pub async fn ready(&self, name: &str, patience: Duration) -> Result<(), ProcessError> {
        self.runner.ready(name, patience).await
    }

    /// SIGSTOP.
    pub fn pause(&self, name: &str) -> Result<(), ProcessError> {
        self.runner.pause(name)
    }

    /// SIGCONT.
    pub fn resume(&self, name: &str) -> Result<(), ProcessError> {
        self.runner.resume(name)
    }

    /// Lets the wall clock of a process run so many milliseconds ahead from now on.
    pub fn shift_clock(&self, name: &str, ms: i64) -> anyhow::Result<()> {
        let path = files::clock(&self.dir, name);
        let beside = path.with_extension("new");
        std::fs::write(&beside, ms.to_string())?;
        // In one step: half a number is another number.
        std::fs::rename(&beside, &path)?;
        Ok(())
    }

    /// A cluster as another one must be told of it: behind the relay.
    pub fn as_seen(&self, viewer: &str, cluster: &str) -> anyhow::Result<PeerCluster> {
        let here = &self.layout.cluster(viewer)?.pd.datacenter;
        let seen = self.layout.cluster(cluster)?;
        let links = seen.syncers.iter().map(|syncer| self.roads.seen_from(here, &syncer.link));
        Ok(PeerCluster {
            id: seen.id,
            name: seen.name.clone(),
            syncers: links.collect(),
            rtt_ms: Some(self.rtt.as_secs_f64() * 1e3),
            ..PeerCluster::default()
        })
    }

    /// Gives a cluster whose processes are dead a higher incarnation, and takes all data from it if it is
    /// to be empty.
    pub fn begin_life(&self, cluster: &str, empty: bool) -> anyhow::Result<()> {
        let cluster = self.layout.cluster(cluster)?;
        let states = self.runner.states();
        for process in self.layout.processes().iter().filter(|one| one.cluster == cluster.id) {
            if let Some(State::Running { pid }) = states.get(&process.name) {
                anyhow::bail!("{} still runs (pid {pid}): kill it first", process.name);
            }
        }
        if empty {
            files::take_data(&self.dir, cluster)?;
        }
        files::begin_life(&self.dir, cluster)
    }

    /// Where each process can be looked at, now and later.
    pub fn census(&self) -> Census {
        let (runner, dir, processes) =
            (self.runner.clone(), self.dir.clone(), self.layout.processes());
        Box::new(move || {
            let states = runner.states();
            let running = processes.iter().filter_map(|process| {
                let Some(State::Running { pid }) = states.get(&process.name) else { return None };
                Some(Vital {
                    name: process.name.clone(),
                    pid: *pid,
                    http: process.http.clone(),
                    data: files::data(&dir, &process.name),
                })
            });
            running.collect()
        })
    }

    /// The disk of a node that has its own.
    pub fn disk(&self, node: &str) -> anyhow::Result<&SmallDisk> {
        self.disks.get(node).with_context(|| format!("{node} has no disk of its own"))
    }

    /// What each process does.
    pub fn states(&self) -> BTreeMap<String, State> {
        self.runner.states()
    }

    /// Whether every process runs and nothing is cut, so that waiting for rest makes sense.
    pub fn is_whole(&self) -> bool {
        let runs = |state: &State| matches!(state, State::Running { .. });
        let cut = self.relay.lanes().iter().any(|(_, _, path, _)| path.cut);
        self.states().values().all(runs) && !cut
    }

    /// Stops everything, in good order where that is possible.
    pub async fn stop(&self) {
        // What is cut off could not say goodbye.
        self.relay.heal();
        self.runner.stop_all(STOP_PATIENCE).await;
    }

    /// The certificate with which the command line may ask a cluster's nodes.
    pub fn client(&self, cluster: ClusterId) -> Option<ClientFiles> {
        self.clients.get(&cluster).cloned()
    }

    /// Number of a process, also of one that has ended.
    pub fn pid(&self, name: &str) -> u32 {
        match self.runner.state(name) {
            Ok(State::Running { pid } | State::Ended { pid, .. }) => pid,
            Err(_) => 0,
        }
    }

    /// The state file as of now.
    pub fn state(&self, control: &Path) -> StateFile {
        let clusters = self.layout.clusters.iter().map(|cluster| ClusterState {
            name: cluster.name.clone(),
            nodes: cluster.nodes.iter().map(|node| self.node_state(node)).collect(),
            pd: vec![PdState {
                name: cluster.pd.name.clone(),
                datacenter: cluster.pd.datacenter.clone(),
                pid: self.pid(&cluster.pd.name),
                http: cluster.pd.http.clone(),
                rpc: cluster.pd.rpc.clone(),
                log: files::log(&self.dir, &cluster.pd.name),
            }],
            syncers: cluster.syncers.iter().map(|syncer| self.syncer_state(syncer)).collect(),
            id: cluster.id,
            client: self.client(cluster.id),
        });
        StateFile {
            clusters: clusters.collect(),
            demo: Some(DemoState {
                pid: std::process::id(),
                mode: self.layout.mode.to_owned(),
                dir: self.dir.clone(),
                control: control.to_owned(),
            }),
        }
    }

    fn node_state(&self, node: &super::layout::Node) -> NodeState {
        NodeState {
            name: node.name.clone(),
            datacenter: node.datacenter.clone(),
            pid: self.pid(&node.name),
            resp: node.at.resp.clone(),
            cluster_resp: node.at.cluster_resp.clone(),
            http: node.at.http.clone(),
            rpc: node.at.rpc.clone(),
            log: files::log(&self.dir, &node.name),
        }
    }

    fn syncer_state(&self, syncer: &super::layout::Syncer) -> SyncerState {
        SyncerState {
            name: syncer.name.clone(),
            datacenter: syncer.datacenter.clone(),
            pid: self.pid(&syncer.name),
            http: syncer.http.clone(),
            rpc: syncer.rpc.clone(),
            link: syncer.link.clone(),
            log: files::log(&self.dir, &syncer.name),
        }
    }
}

fn plan(process: &Process, dir: &Path, program: &Path) -> Plan {
    let config = files::config(dir, &process.name).into_os_string();
    let args: [OsString; 3] = [process.role.as_str().into(), "--config".into(), config];
    Plan {
        name: process.name.clone(),
        program: program.to_owned(),
        args: args.into(),
        env: vec![(OFFSET_FILE_VARIABLE.into(), files::clock(dir, &process.name).into())],
        log: files::log(dir, &process.name),
        health: Some(process.http.clone()),
    }
}

/// Whether a cluster says that it has no peer of that name: then no link to it can live.
fn is_stranger(told: &[&ClusterStatus], name: &str, to: &str) -> bool {
    let other = told.iter().find(|status| status.map.name == to);
    other.is_some_and(|status| status.map.peers.iter().all(|peer| peer.name != name))
}

fn missing_in(
    status: &ClusterStatus,
    (nodes, syncers): (usize, usize),
    told: &[&ClusterStatus],
) -> Vec<String> {
    let map = &status.map;
    let name = &map.name;
    let mut missing = Vec::new();
    let alive: Vec<&str> =
        map.nodes.iter().filter(|node| node.alive).map(|node| node.name.as_str()).collect();
    if alive.len() < nodes {
        missing.push(format!("{name}: PD hears of {} of {nodes} nodes", alive.len()));
    }
    let syncing = map.syncers.iter().filter(|syncer| syncer.alive).count();
    if syncing < syncers {
        missing.push(format!("{name}: PD hears of {syncing} of {syncers} syncers"));
    }
    if map.groups.is_empty() {
        missing.push(format!("{name}: no namespace yet"));
    }
    for group in &map.groups {
        let leads = |replica: &flotilla_topology::api::ReplicaInfo| {
            let says = |said: &flotilla_topology::api::ReplicaStatus| {
                said.group == group.id && said.replica == replica.id && said.leads
            };
            alive.contains(&replica.node.as_str()) && status.replicas.iter().any(says)
        };
        if !group.replicas.iter().any(leads) {
            missing.push(format!("{name}: group {} has no leader", group.id));
        }
    }
    for link in links::outgoing(status) {
        if !link.is_live() && !is_stranger(told, name, &link.to) {
            missing.push(format!(
                "link {} -> {} is {} in {} of {} groups ({})",
                link.from,
                link.to,
                link.state_word(),
                link.groups,
                link.groups_wanted,
                link.detail
            ));
        }
    }
    missing
}
