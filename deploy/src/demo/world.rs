//! The demo as a world that chaos can break.

use super::fleet::Fleet;
use super::layout::{Layout, PORTS, Wish};
use crate::census::{self, Counted};
use crate::exit::{self, Exit};
use crate::find::{self, Known};
use crate::link;
use crate::links;
use crate::verify::{self, Scope};
use anyhow::{Context, Result};
use flotilla_chaos::checkers::converge::Verified;
use flotilla_chaos::checkers::replicas_equal::ReplicaDigest;
use flotilla_chaos::process::{Death, HeldPort};
use flotilla_chaos::scenario::{Backlog, GroupView, LinkView, Member, Rows, World};
use flotilla_chaos::vitals::Census;
use flotilla_chaos::wan;
use flotilla_topology::api::{
    BacklogBudget, ClusterStatus, LinkOp, LinkState, PdRequest, PeerCluster,
};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use rand::Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::Path;
use std::time::Duration;
use tokio::sync::mpsc;

/// How long a world may take to be at rest, if nobody else limits it.
const SETTLE_PATIENCE: Duration = Duration::from_secs(60);
/// How long one comparison of the clusters may take, unless told otherwise: long enough to see a difference twice.
const VERIFY_PATIENCE: Duration = Duration::from_secs(2);
/// Where worlds look for free ports: below those that Linux gives to outgoing connections.
const PORT_RANGE: Range<u16> = 10_000..31_000;
/// Places that are tried.
const PLACES_MAX: usize = 50;

/// Processes of a demo, without its prompt.
pub struct DemoWorld {
    /// What runs.
    pub fleet: Fleet,
    /// How long one comparison of the clusters may take.
    pub verify_patience: Duration,
    deaths: Mutex<mpsc::Receiver<Death>>,
}

impl DemoWorld {
    /// Starts one at free ports, whatever port is wished for, and waits until it is at rest.
    pub async fn start(wish: Wish, rtt: Duration, dir: &Path) -> Result<DemoWorld> {
        let layout = free_layout(wish)?;
        let (fleet, deaths) = Fleet::start(layout, dir, rtt).await?;
        let world =
            DemoWorld { fleet, verify_patience: VERIFY_PATIENCE, deaths: Mutex::new(deaths) };
        if let Err(error) = world.settled().await {
            let deaths = world.unexpected_deaths();
            world.fleet.stop().await;
            let why = if deaths.is_empty() { String::new() } else { deaths.join("; ") };
            return Err(if why.is_empty() { error } else { error.context(why) });
        }
        Ok(world)
    }
}

impl DemoWorld {
    /// Its clusters, with what it takes to ask them.
    fn known(&self) -> Vec<Known> {
        let clusters = self.fleet.layout.clusters.iter();
        let known = clusters.map(|cluster| Known {
            name: cluster.name.clone(),
            pds: vec![cluster.pd.http.clone()],
            client: self.fleet.client(cluster.id),
        });
        known.collect()
    }
}

/// A layout whose ports are all free just now.
fn free_layout(wish: Wish) -> Result<Layout> {
    let mut random = rand::rng();
    let room = (wish.datacenters.len() * PORTS) as u16;
    for _ in 0..PLACES_MAX {
        let port = random.random_range(PORT_RANGE.start..PORT_RANGE.end.saturating_sub(room));
        let layout = Layout::new(&Wish { port, ..wish.clone() })?;
        if layout.ports().into_iter().all(|port| HeldPort::wanted(port).is_ok()) {
            return Ok(layout);
        }
    }
    Err(Exit::error(exit::FAILED, format!("no free ports between {PORT_RANGE:?}")))
}

/// The state of each group's link to a peer.
fn states(status: &ClusterStatus, peer: &str) -> Vec<LinkState> {
    let id = status.map.peers.iter().find(|known| known.name == peer).map(|known| known.id);
    let links = status.links.iter().filter(|link| Some(link.peer) == id);
    links.map(|link| link.state).collect()
}

impl World for DemoWorld {
    fn members(&self) -> Vec<Member> {
        let member = |process: super::layout::Process| Member {
            name: process.name,
            role: process.role,
            cluster: process.cluster_name,
            datacenter: process.datacenter,
            resp: process.resp,
        };
        self.fleet.layout.processes().into_iter().map(member).collect()
    }

    fn leader(&self, cluster: &str) -> BoxFuture<'_, Result<String>> {
        let cluster = self.fleet.layout.clusters.iter().find(|known| known.name == cluster);
        let pd = cluster.map(|cluster| cluster.pd.http.clone());
        Box::pin(async move {
            let status = find::status_of(pd.as_slice()).await?;
            let mut led: BTreeMap<&str, usize> = BTreeMap::new();
            let leaders = status.map.groups.iter().filter_map(|group| group.leader.as_ref());
            for leader in leaders {
                *led.entry(&leader.node).or_default() += 1;
            }
            let most = led.iter().max_by_key(|(_, groups)| **groups);
            most.map(|(node, _)| (*node).to_owned()).context("no group has a leader")
        })
    }

    fn groups(&self, cluster: &str) -> BoxFuture<'_, Result<Vec<GroupView>>> {
        let cluster = self.fleet.layout.clusters.iter().find(|known| known.name == cluster);
        let pd = cluster.map(|cluster| cluster.pd.http.clone());
        Box::pin(async move {
            let map = find::status_of(pd.as_slice()).await?.map;
            let views = map.groups.into_iter().map(|group| GroupView {
                name: group.id.to_string(),
                slots: group.slots,
                leader: group.leader.map(|leader| leader.node),
                preferred: group.preferred_leader,
            });
            Ok(views.collect())
        })
    }

    fn settled(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.fleet.settled(SETTLE_PATIENCE))
    }

    fn kill(&self, name: &str) -> BoxFuture<'_, Result<()>> {
        let name = name.to_owned();
        Box::pin(async move { Ok(self.fleet.kill(&name).await?) })
    }

    fn terminate(&self, name: &str) -> BoxFuture<'_, Result<()>> {
        let name = name.to_owned();
        Box::pin(async move { Ok(self.fleet.terminate(&name).await?) })
    }

    fn restart(&self, name: &str) -> BoxFuture<'_, Result<()>> {
        let restarted = self.fleet.restart(name);
        Box::pin(async move { Ok(restarted.map(|_| ())?) })
    }

    fn pause(&self, name: &str) -> Result<()> {
        Ok(self.fleet.pause(name)?)
    }

    fn resume(&self, name: &str) -> Result<()> {
        Ok(self.fleet.resume(name)?)
    }

    fn cut(&self, from: &str, to: &str) -> Result<()> {
        self.fleet.relay.cut(from, to);
        Ok(())
    }

    fn heal(&self) -> Result<()> {
        self.fleet.relay.heal();
        Ok(())
    }

    fn path(&self, from: &str, to: &str) -> wan::Path {
        self.fleet.relay.path(from, to)
    }

    fn set_path(&self, from: &str, to: &str, path: wan::Path) -> Result<()> {
        self.fleet.relay.update(from, to, |now| *now = wan::Path { cut: now.cut, ..path });
        Ok(())
    }

    fn shift_clock(&self, name: &str, ms: i64) -> Result<()> {
        self.fleet.shift_clock(name, ms)
    }

    fn carried(&self, syncer: &str) -> BoxFuture<'_, Result<usize>> {
        let syncer = syncer.to_owned();
        Box::pin(async move {
            let statuses = self.fleet.statuses().await;
            let groups = statuses.iter().flat_map(|status| &status.map.groups);
            let learners = groups.flat_map(|group| &group.learners);
            Ok(learners.filter(|learner| learner.syncer == syncer).count())
        })
    }

    fn links(&self) -> BoxFuture<'_, Vec<LinkView>> {
        Box::pin(async move {
            let statuses = self.fleet.statuses().await;
            let views = statuses.iter().flat_map(|status| {
                links::outgoing(status).into_iter().map(|link| LinkView {
                    states: states(status, &link.to),
                    from: link.from,
                    to: link.to,
                    wanted: link.groups_wanted,
                    backlog: link.backlog_bytes,
                })
            });
            views.collect()
        })
    }

    fn operate(&self, cluster: &str, peer: &str, op: LinkOp) -> BoxFuture<'_, Result<Vec<String>>> {
        let (cluster, peer) = (cluster.to_owned(), peer.to_owned());
        Box::pin(async move {
            let cluster = self.fleet.layout.cluster(&cluster)?;
            let files = self.fleet.client(cluster.id).context("no certificate of a client")?;
            let request = PdRequest::Link { peer, op, dry_run: false };
            Ok(link::ask(vec![cluster.pd.rpc.clone()], files, request).await?.0)
        })
    }

    fn as_seen(&self, viewer: &str, cluster: &str) -> Result<PeerCluster> {
        self.fleet.as_seen(viewer, cluster)
    }

    fn begin_life(&self, cluster: &str, empty: bool) -> Result<()> {
        self.fleet.begin_life(cluster, empty)
    }

    fn fences_together(&self) -> bool {
        self.fleet.layout.fence_after.is_some()
    }

    fn backlog(&self) -> Option<Backlog> {
        let BacklogBudget { bytes, age_seconds } = self.fleet.layout.backlog?;
        let age = Duration::from_secs(age_seconds);
        Some(Backlog { bytes, age, groups: u64::from(self.fleet.layout.make.partitions()) })
    }

    fn disk_free(&self, node: &str) -> Result<u64> {
        Ok(self.fleet.disk(node)?.free()?)
    }

    fn squeeze_disk(&self, node: &str, leave: Option<u64>) -> Result<()> {
        let disk = self.fleet.disk(node)?;
        match leave {
            Some(leave) => disk.squeeze(leave)?,
            None => disk.give_back()?,
        }
        Ok(())
    }

    fn rows(&self) -> BoxFuture<'_, Result<Vec<Rows>>> {
        let known = self.known();
        Box::pin(async move {
            let counted = census::count_all(known, None).await?.into_iter();
            let rows = counted.map(|Counted { cluster, node, census }| Rows {
                cluster,
                node,
                keys: census.keys,
                elements: census.elements,
                garbage: census.garbage(),
                told: format!(
                    "{} keys, {} elements; waiting: {} dead heads, {} floors, {} tombstones, {} \
                     lapsed, {} queued",
                    census.keys,
                    census.elements,
                    census.dead_heads,
                    census.floors,
                    census.tombstones,
                    census.lapsed,
                    census.queued
                ),
            });
            Ok(rows.collect())
        })
    }

    fn census(&self) -> Census {
        self.fleet.census()
    }

    fn replica_digests<'a>(
        &'a self,
        met: &'a BTreeSet<String>,
    ) -> BoxFuture<'a, Result<Vec<ReplicaDigest>>> {
        let known = self.known();
        Box::pin(async move { verify::replicas(known, met).await })
    }

    fn verify(&self) -> BoxFuture<'_, Result<Verified>> {
        let known = self.known();
        Box::pin(async move {
            Ok(verify::verify(&known, &BTreeMap::new(), &Scope::all(), self.verify_patience)
                .await
                .verified())
        })
    }

    fn unexpected_deaths(&self) -> Vec<String> {
        let mut deaths = self.deaths.lock();
        std::iter::from_fn(|| deaths.try_recv().ok()).map(|death| death.to_string()).collect()
    }
}
