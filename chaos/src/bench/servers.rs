//! The doors of the Flotilla cluster, and which keys to send where.

use super::case;
use super::generator::{Door, Target};
use super::kind::Kind;
use super::peers::PATIENCE;
use super::{Fleet, Node, Server};
use crate::resp::{Client, Value};
use anyhow::{Context, Result, bail};
use flotilla_topology::slot::Slot;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The cluster through one of its doors. `keys`: how many there are.
pub(super) async fn door(kind: Kind, fleet: &Fleet, keys: u32) -> Result<Server> {
    let nodes = fleet.nodes.iter().map(|node| (node.name.clone(), node.pid));
    let processes = nodes.chain(fleet.others.iter().cloned()).collect();
    let plain = |node: &Node| Target { door: Door::Resp, address: node.resp.clone(), keys: None };
    let readonly =
        |address: &String| Target { door: Door::Readonly, address: address.clone(), keys: None };
    let cluster_ports = || fleet.nodes.iter().filter_map(|node| node.cluster_resp.as_ref());
    let targets: Vec<Target> = match kind {
        Kind::Flotilla => fleet.nodes.iter().map(plain).collect(),
        Kind::FlotillaOne => fleet.nodes.iter().take(1).map(plain).collect(),
        Kind::FlotillaReadonly => cluster_ports().map(readonly).collect(),
        Kind::FlotillaCluster => {
            let door = cluster_ports().next().context("the nodes have no cluster ports")?;
            leaders(door, fleet, keys).await?
        }
        kind => bail!("{kind} is not of the cluster"),
    };
    if targets.is_empty() {
        bail!("{kind}: there is no node to ask");
    }
    Ok(Server::new(kind, targets, processes))
}

/// Which keys each node leads, as CLUSTER SLOTS says.
async fn leaders(door: &str, fleet: &Fleet, keys: u32) -> Result<Vec<Target>> {
    let reply = Client::connect(door, PATIENCE).await?.call(&["CLUSTER", "SLOTS"]).await?;
    let ranges = ranges(&reply).with_context(|| format!("CLUSTER SLOTS answered {reply:?}"))?;
    let mut led: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    for number in 0..keys {
        let slot = i64::from(Slot::of(case::key(number).as_bytes()).0);
        let range = ranges.iter().find(|(first, last, _)| (*first..=*last).contains(&slot));
        let (_, _, leader) = range.with_context(|| format!("nobody leads slot {slot}"))?;
        led.entry(leader.clone()).or_default().push(number);
    }
    let known = |node: &Node, address: &String| node.cluster_resp.as_ref() == Some(address);
    if let Some(stranger) =
        led.keys().find(|address| !fleet.nodes.iter().any(|node| known(node, address)))
    {
        tracing::warn!(stranger, "CLUSTER SLOTS names a node that is not measured");
    }
    Ok(led
        .into_iter()
        .map(|(address, keys)| Target { door: Door::Resp, address, keys: Some(Arc::from(keys)) })
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
