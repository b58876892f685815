//! Who dials what: inside a datacenter the process itself, across datacenters the relay's address
//! for it.

use super::layout::{Cluster, Layout};
use anyhow::Context;
use flotilla_chaos::wan::Relay;
use flotilla_topology::api::NodeAddresses;
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// Addresses as seen from each datacenter.
#[derive(Debug, Default)]
pub struct Roads {
    /// By viewing datacenter and own address.
    seen: BTreeMap<(String, String), String>,
}

impl Roads {
    /// Opens the relay's ports for everything that is dialed across datacenters.
    pub async fn open(relay: &Relay, layout: &Layout) -> anyhow::Result<Roads> {
        let mut roads = Roads::default();
        for cluster in &layout.clusters {
            for from in &layout.datacenters {
                roads.open_cluster(relay, cluster, from).await?;
            }
        }
        Ok(roads)
    }

    async fn open_cluster(
        &mut self,
        relay: &Relay,
        cluster: &Cluster,
        from: &str,
    ) -> anyhow::Result<()> {
        // PDs ask each other over http, for the page; nodes and syncers dial their own PD.
        let pd = &cluster.pd;
        self.open_tcp(relay, from, &pd.datacenter, &pd.http).await?;
        if cluster.datacenters.iter().any(|own| own == from) {
            self.open_tcp(relay, from, &pd.datacenter, &pd.rpc).await?;
            for node in &cluster.nodes {
                let NodeAddresses { resp, cluster_resp, rpc, .. } = &node.at;
                for target in [resp, cluster_resp, rpc] {
                    self.open_tcp(relay, from, &node.datacenter, target).await?;
                }
            }
        }
        for syncer in &cluster.syncers {
            let target = parse(&syncer.link)?;
            let address = relay.forward_udp(from, &syncer.datacenter, target).await;
            let address = address.with_context(|| format!("cannot relay {target}"))?;
            self.seen.insert((from.to_owned(), syncer.link.clone()), address.to_string());
        }
        Ok(())
    }

    async fn open_tcp(
        &mut self,
        relay: &Relay,
        from: &str,
        to: &str,
        target: &str,
    ) -> anyhow::Result<()> {
        let address = relay.forward_tcp(from, to, parse(target)?).await;
        let address = address.with_context(|| format!("cannot relay {target}"))?;
        self.seen.insert((from.to_owned(), target.to_owned()), address.to_string());
        Ok(())
    }

    /// What processes in datacenter `from` dial to reach `target`.
    pub fn seen_from(&self, from: &str, target: &str) -> String {
        let road = self.seen.get(&(from.to_owned(), target.to_owned()));
        road.map_or(target, String::as_str).to_owned()
    }

    /// The same for all addresses of a node. Metrics are not for other datacenters.
    pub fn node_seen_from(&self, from: &str, at: &NodeAddresses) -> NodeAddresses {
        NodeAddresses {
            resp: self.seen_from(from, &at.resp),
            cluster_resp: self.seen_from(from, &at.cluster_resp),
            rpc: self.seen_from(from, &at.rpc),
            http: at.http.clone(),
        }
    }
}

fn parse(address: &str) -> anyhow::Result<SocketAddr> {
    address.parse().with_context(|| format!("{address} is not an address"))
}
