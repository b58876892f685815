//! A cluster to be measured: the processes of a demo with one datacenter.

use crate::demo::layout::{Make, Wish};
use crate::demo::world::DemoWorld;
use flotilla_chaos::bench::{Fleet, Node};
use flotilla_topology::ids::Role;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long a cluster may take to spread the leaders of its groups over its nodes.
const SPREAD_PATIENCE: Duration = Duration::from_secs(20);
const SPREAD_PERIOD: Duration = Duration::from_millis(200);

/// A cluster that runs.
pub(super) struct Cluster {
    world: DemoWorld,
    nodes: usize,
    make: Make,
}

impl Cluster {
    /// Starts nodes and their placement driver, and waits until they are at rest and, if it comes
    /// to that in time, each node leads a group.
    pub(super) async fn start(nodes: usize, make: Make, dir: &Path) -> anyhow::Result<Cluster> {
        let datacenters = vec!["east".to_owned()];
        let wish = Wish { datacenters, nodes: Some(nodes), make, ..Wish::default() };
        let world = DemoWorld::start(wish, Duration::ZERO, dir).await?;
        let cluster = Cluster { world, nodes, make };
        let deadline = Instant::now() + SPREAD_PATIENCE;
        while cluster.led().await.len() < cluster.leaders_wanted() && Instant::now() < deadline {
            tokio::time::sleep(SPREAD_PERIOD).await;
        }
        Ok(cluster)
    }

    /// What the load and the meters need to know.
    pub(super) fn fleet(&self) -> Fleet {
        let fleet = &self.world.fleet;
        let nodes = fleet.layout.clusters[0].nodes.iter().map(|node| Node {
            name: node.name.clone(),
            pid: fleet.pid(&node.name),
            resp: node.at.resp.clone(),
            cluster_resp: Some(node.at.cluster_resp.clone()),
        });
        let others = fleet.layout.processes().into_iter().filter(|one| one.role != Role::Node);
        let others = others.map(|one| (one.name.clone(), fleet.pid(&one.name)));
        Fleet { nodes: nodes.collect(), others: others.collect() }
    }

    /// A line about it, with who leads.
    pub(super) async fn describe(&self) -> String {
        let led = self.led().await;
        let by: Vec<String> = led.iter().map(|(node, groups)| format!("{node} {groups}")).collect();
        let spread = if led.len() < self.leaders_wanted() { " (NOT SPREAD)" } else { "" };
        format!(
            "Cluster of {} Flotilla nodes of {} MiB each, internal mutual TLS on; {} groups of {} \
             replicas, led by {}{spread}.",
            self.nodes,
            self.make.memory.unwrap_or_default() >> 20,
            self.make.partitions(),
            self.make.replicas(self.nodes),
            by.join(", ")
        )
    }

    /// Stops it.
    pub(super) async fn stop(self) {
        self.world.fleet.stop().await;
    }

    fn leaders_wanted(&self) -> usize {
        self.nodes.min(self.make.partitions() as usize)
    }

    /// How many groups each node leads, of those that lead any.
    async fn led(&self) -> BTreeMap<String, usize> {
        let mut led = BTreeMap::new();
        for status in self.world.fleet.statuses().await {
            let leaders = status.map.groups.into_iter().filter_map(|group| group.leader);
            leaders.for_each(|leader| *led.entry(leader.node).or_default() += 1);
        }
        led
    }
}
