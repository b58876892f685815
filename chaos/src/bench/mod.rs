//! Measures three Flotilla nodes beside one redis-server that syncs every write, on one machine.
//!
//! Rules that make the numbers comparable:
//! * Interleaved: in every round each case is measured on each server in turn, so that a machine
//!   that is slow for a minute is slow for all. Ratios are taken within a round, then the median.
//! * A sync canary (write and fdatasync of a small block) runs before each measurement and stands
//!   beside the numbers: when it moves, the disk moved.
//! * Closed loop: each connection has one batch in flight. The generator shares the machine; what
//!   it uses is shown too.
//! * Errors are counted, and a case with errors is marked, never silently averaged.
//!
//! Not here: starting Flotilla (its addresses and process numbers are handed in).

mod canary;
mod cpu;
mod generator;
mod report;
mod servers;

#[cfg(test)]
mod tests;

pub use report::{Report, Row};

use crate::process::Runner;
use anyhow::{Context, Result};
use generator::{Measured, Target};
use report::Sample;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::Duration;

/// Name of the server that the others are compared with.
pub const REDIS: &str = "redis";
/// Three nodes, through their plain ports.
pub const PLAIN: &str = "flotilla";
/// Three nodes, through their cluster ports, each key at its leader.
pub const CLUSTER: &str = "flotilla-cluster";

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Command {
    /// SET of a value of the configured size.
    Set,
    /// GET of such a value.
    Get,
}

/// One way to ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Case {
    /// What.
    pub command: Command,
    /// Over how many connections.
    pub connections: usize,
    /// How many commands are sent at once.
    pub pipeline: usize,
}

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

/// What to measure.
#[derive(Debug, Clone)]
pub struct Config {
    /// Path or name of the redis-server executable.
    pub redis_server: PathBuf,
    /// Where redis-server and the canary write: the disk that Flotilla writes to.
    pub dir: PathBuf,
    /// The nodes.
    pub nodes: Vec<Node>,
    /// Other processes whose CPU belongs to Flotilla: placement drivers, syncers.
    pub others: Vec<(String, u32)>,
    /// Rounds over all cases and servers.
    pub rounds: usize,
    /// How long one measurement takes.
    pub duration: Duration,
    /// Different keys.
    pub keys: u32,
    /// Bytes of a value.
    pub value_bytes: usize,
    /// The cases.
    pub cases: Vec<Case>,
}

impl Config {
    /// SET and GET at 1 and 50 connections, without and with pipelining of 16.
    pub fn new(dir: PathBuf, nodes: Vec<Node>) -> Config {
        let mut cases = Vec::new();
        for command in [Command::Set, Command::Get] {
            for connections in [1, 50] {
                for pipeline in [1, 16] {
                    cases.push(Case { command, connections, pipeline });
                }
            }
        }
        Config {
            redis_server: "redis-server".into(),
            dir,
            nodes,
            others: vec![],
            rounds: 5,
            duration: Duration::from_secs(2),
            keys: 100_000,
            value_bytes: 128,
            cases,
        }
    }
}

/// A server under test.
struct Server {
    name: &'static str,
    targets: Vec<Target>,
    processes: Vec<(String, u32)>,
}

/// Measures everything. `tell` is handed a line about each measurement as it is made.
pub async fn run(config: &Config, mut tell: impl FnMut(&str)) -> Result<Report> {
    std::fs::create_dir_all(&config.dir)
        .with_context(|| format!("cannot create {}", config.dir.display()))?;
    let (runner, _deaths) = Runner::new();
    let redis = servers::start_redis(&runner, config).await?;
    let mut servers = vec![redis];
    servers.extend(servers::flotilla(config).await?);
    for server in &servers {
        // Both doors of Flotilla lead to the same data.
        if server.name != CLUSTER {
            tell(&format!("{}: writing {} keys", server.name, config.keys));
            let loaded = generator::load(&server.targets, config).await?;
            loaded.first_error.map_or(Ok(()), |error| Err(anyhow::anyhow!("{error}")))?;
        }
    }
    let mut samples = Vec::new();
    for round in 0..config.rounds {
        for case in &config.cases {
            let mut order: Vec<&Server> = servers.iter().collect();
            // Who goes first in a round has no lasting advantage.
            let turn = round % order.len();
            order.rotate_left(turn);
            for server in order {
                let sample = measure(config, server, *case, round).await?;
                tell(&format!("round {} {}", round + 1, sample));
                samples.push(sample);
            }
        }
    }
    runner.stop_all(Duration::from_secs(10)).await;
    Ok(Report::new(config, &samples))
}

async fn measure(config: &Config, server: &Server, case: Case, round: usize) -> Result<Sample> {
    let dir = config.dir.clone();
    let canary = tokio::task::spawn_blocking(move || canary::syncs_per_second(&dir)).await??;
    let before = cpu::seconds_of_all(&server.processes)?;
    let measured = generator::run(&server.targets, case, config, round).await?;
    let after = cpu::seconds_of_all(&server.processes)?;
    let Measured { operations, errors, first_error, took, latency, generator_cpu } = measured;
    let mut cpu: Vec<(String, f64)> = server
        .processes
        .iter()
        .zip(before.iter().zip(after))
        .map(|((name, _), (before, after))| (name.clone(), after - before))
        .collect();
    cpu.push(("generator".into(), generator_cpu));
    Ok(Sample {
        server: server.name,
        case,
        round,
        per_second: operations as f64 / took.as_secs_f64(),
        operations,
        errors,
        first_error,
        p50_us: latency.value_at_quantile(0.5),
        p99_us: latency.value_at_quantile(0.99),
        cpu,
        canary,
    })
}
