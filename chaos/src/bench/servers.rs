//! The servers under test: starts redis-server, and finds out which keys to send where.

use super::generator::Target;
use super::{CLUSTER, Config, Node, PLAIN, REDIS, Server, generator};
use crate::process::{HeldPort, Plan, Runner};
use crate::resp::{Client, Value};
use anyhow::{Context, Result, bail};
use flotilla_topology::slot::Slot;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a server may take to start or to answer a question.
const PATIENCE: Duration = Duration::from_secs(10);

/// Starts redis-server with every write synced.
pub(super) async fn start_redis(runner: &Runner, config: &Config) -> Result<Server> {
    let port = HeldPort::any()?;
    let address = port.address().to_string();
    let number = port.port().to_string();
    let dir = config.dir.join("redis");
    // A file of an earlier run would be loaded.
    if dir.exists() {
        std::fs::remove_dir_all(&dir).with_context(|| format!("cannot empty {}", dir.display()))?;
    }
    std::fs::create_dir_all(&dir)?;
    let args: Vec<&str> = vec![
        "--port",
        &number,
        "--bind",
        "127.0.0.1",
        "--appendonly",
        "yes",
        "--appendfsync",
        "always",
        "--save",
        "",
        "--auto-aof-rewrite-percentage",
        "0",
        "--daemonize",
        "no",
    ];
    let mut args: Vec<_> = args.into_iter().map(Into::into).collect();
    args.extend(["--dir".into(), dir.clone().into_os_string()]);
    let plan = Plan {
        name: REDIS.into(),
        program: config.redis_server.clone(),
        args,
        env: vec![],
        log: dir.join("redis.log"),
        health: None,
    };
    drop(port);
    let pid = runner.start(plan).context("redis-server is needed to compare with")?;
    let deadline = Instant::now() + PATIENCE;
    while ping(&address).await.is_err() {
        if Instant::now() > deadline {
            bail!("redis-server does not answer; its log is {}", dir.join("redis.log").display());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let targets = vec![Target { address, keys: None }];
    Ok(Server { name: REDIS, targets, processes: vec![(REDIS.into(), pid)] })
}

async fn ping(address: &str) -> Result<()> {
    let reply = Client::connect(address, PATIENCE).await?.call(&["PING"]).await?;
    if reply.text().as_deref() == Some("PONG") { Ok(()) } else { bail!("{reply:?} for PING") }
}

/// The nodes through their plain ports and, where they have them, through their cluster ports.
pub(super) async fn flotilla(config: &Config) -> Result<Vec<Server>> {
    let plain = config.nodes.iter();
    let plain = plain.map(|node| Target { address: node.resp.clone(), keys: None }).collect();
    let processes: Vec<(String, u32)> = config
        .nodes
        .iter()
        .map(|node| (node.name.clone(), node.pid))
        .chain(config.others.iter().cloned())
        .collect();
    let mut servers = vec![Server { name: PLAIN, targets: plain, processes: processes.clone() }];
    if let Some(door) = config.nodes.iter().find_map(|node| node.cluster_resp.as_ref()) {
        let targets = leaders(door, config).await?;
        servers.push(Server { name: CLUSTER, targets, processes });
    }
    Ok(servers)
}

/// Which keys each node leads, as CLUSTER SLOTS says.
async fn leaders(door: &str, config: &Config) -> Result<Vec<Target>> {
    let reply = Client::connect(door, PATIENCE).await?.call(&["CLUSTER", "SLOTS"]).await?;
    let ranges = ranges(&reply).with_context(|| format!("CLUSTER SLOTS answered {reply:?}"))?;
    let mut keys: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    for number in 0..config.keys {
        let slot = i64::from(Slot::of(generator::key(number).as_bytes()).0);
        let range = ranges.iter().find(|(first, last, _)| (*first..=*last).contains(&slot));
        let (_, _, leader) = range.with_context(|| format!("nobody leads slot {slot}"))?;
        keys.entry(leader.clone()).or_default().push(number);
    }
    let known = |node: &Node, address: &String| node.cluster_resp.as_ref() == Some(address);
    if let Some(stranger) =
        keys.keys().find(|address| !config.nodes.iter().any(|node| known(node, address)))
    {
        tracing::warn!(stranger, "CLUSTER SLOTS names a node that is not measured");
    }
    Ok(keys
        .into_iter()
        .map(|(address, keys)| Target { address, keys: Some(Arc::from(keys)) })
        .collect())
}

/// First slot, last slot and leader of each range.
fn ranges(reply: &Value) -> Option<Vec<(i64, i64, String)>> {
    let Value::Array(ranges) = reply else { return None };
    let range = |range: &Value| {
        let Value::Array(parts) = range else { return None };
        let (Value::Int(first), Value::Int(last)) = (parts.first()?, parts.get(1)?) else {
            return None;
        };
        let Value::Array(leader) = parts.get(2)? else { return None };
        let Value::Int(port) = leader.get(1)? else { return None };
        Some((*first, *last, format!("{}:{port}", leader.first()?.text()?)))
    };
    ranges.iter().map(range).collect()
}
