//! Who is in the cluster: nodes and syncers register, are heard of, and are removed.

use super::durable::{Durable, NodeRecord, SyncerRecord};
use super::{Done, NODES_MAX, Refusal, SYNCERS_MAX, State, refuse};
use flotilla_topology::api::{LinkStatus, NodeInfo, PeerView, ReplicaStatus, SyncerInfo};
use flotilla_topology::ids::{Epoch, GroupId};
use flotilla_topology::runway::Growth;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Longest address that is taken, `host:port`: a DNS name has 253 characters at most.
const ADDRESS_BYTES_MAX: usize = 260;

/// Viewing datacenters that a node may have addresses for.
const ADVERTISE_MAX: usize = 64;

/// Links that a syncer may report: every group to every other cluster of a large installation.
const LINKS_MAX: usize = 16_384;

/// What a syncer may tell of what clusters say of each other: all of 255 of all others.
const VIEWS_MAX: usize = 65_536;

impl State {
    pub(super) fn register_node(
        &mut self,
        node: NodeInfo,
        directory: u64,
        seen_epoch: Epoch,
    ) -> Result<Done, Refusal> {
        check_node(&node)?;
        self.check_epoch(&node.name, seen_epoch)?;
        self.check_datacenter("node", &node.name, &node.datacenter)?;
        let durable = &*self.durable;
        match durable.nodes.get(&node.name) {
            Some(known) if known.directory != directory => refuse!(
                "node `{0}` is known with another data directory: a replica that lost its log \
                 would vote twice. Start it with its old directory, or give it a new name and, \
                 when nothing is left on `{0}`, remove that one",
                node.name
            ),
            Some(known)
                if known.info.datacenter != node.datacenter && carries(durable, &node.name) > 0 =>
            {
                refuse!(
                    "node `{}` carries {} replicas placed in datacenter `{}` and now says `{}`: \
                     set `datacenter` back, or start it with an empty directory under a new name",
                    node.name,
                    carries(durable, &node.name),
                    known.info.datacenter,
                    node.datacenter
                )
            }
            Some(_) => {}
            None => {
                let twin = durable.nodes.iter().find(|(_, known)| known.directory == directory);
                if let Some((twin, _)) = twin {
                    refuse!(
                        "this data directory belongs to node `{twin}`: set the name back to \
                         `{twin}`, or start `{}` with an empty directory",
                        node.name
                    );
                }
                if durable.nodes.len() >= NODES_MAX {
                    refuse!("a cluster takes {NODES_MAX} nodes: remove those that are gone first");
                }
            }
        }
        let name = node.name.clone();
        let record = NodeRecord { info: NodeInfo { alive: false, ..node }, directory };
        if self.durable.nodes.get(&name) != Some(&record) {
            self.durable_mut().nodes.insert(name.clone(), record);
        }
        self.live.hear_node(&name);
        Ok(Done::Registered)
    }

    /// A node has seen a newer map than PD has: PD's store is not the one it was.
    fn check_epoch(&self, node: &str, seen: Epoch) -> Result<(), Refusal> {
        let ours = self.durable.counters.epoch;
        if seen > ours {
            refuse!(
                "node `{node}` has seen map epoch {seen}, this PD is at {ours}: its store was lost \
                 or is an old copy, and it would give out used numbers again. Give PD its store \
                 back before anything else"
            );
        }
        Ok(())
    }

    fn check_datacenter(&self, what: &str, name: &str, datacenter: &str) -> Result<(), Refusal> {
        let known = &self.settings.datacenters;
        if !known.is_empty() && !known.iter().any(|dc| dc == datacenter) {
            refuse!(
                "{what} `{name}` says datacenter `{datacenter}`, the topology file gives cluster \
                 `{}` these: {}. Correct one of the two",
                self.settings.name,
                known.join(", ")
            );
        }
        Ok(())
    }

    pub(super) fn node_heartbeat(
        &mut self,
        name: &str,
        replicas: Vec<ReplicaStatus>,
    ) -> Result<Done, Refusal> {
        if !self.durable.nodes.contains_key(name) {
            refuse!("node `{name}` is not registered: register first");
        }
        let durable = Arc::clone(&self.durable);
        // Replicas of a dropped namespace go on for a moment; those of numbers that were never
        // given out can only come from another store.
        let foreign = replicas
            .iter()
            .find(|r| {
                r.group.0 >= durable.counters.group || r.replica.0 >= durable.counters.replica
            })
            .cloned();
        let ours: Vec<_> =
            replicas.into_iter().filter(|replica| carries_it(&durable, name, replica)).collect();
        for replica in ours.iter().filter(|replica| replica.leads) {
            self.live.hear_leader(replica.group, name, replica.term);
        }
        let node = self.live.hear_node(name);
        node.foreign = foreign;
        node.replicas = Arc::new(ours);
        Ok(Done::Plain)
    }

    pub(super) fn remove_node(&mut self, name: &str) -> Result<Done, Refusal> {
        if !self.durable.nodes.contains_key(name) {
            return Ok(Done::Plain);
        }
        if self.live.shown.nodes.contains(name) {
            refuse!("node `{name}` is alive: stop it first");
        }
        let carried = carries(&self.durable, name);
        if carried > 0 {
            refuse!(
                "node `{name}` carries {carried} replicas: start it again, or drop their namespaces"
            );
        }
        self.durable_mut().nodes.remove(name);
        self.live.nodes.remove(name);
        Ok(Done::Plain)
    }

    pub(super) fn register_syncer(&mut self, syncer: SyncerInfo) -> Result<Done, Refusal> {
        check_name("syncer", &syncer.name)?;
        check_name("datacenter", &syncer.datacenter)?;
        for (what, address) in
            [("rpc", &syncer.rpc), ("link", &syncer.link), ("http", &syncer.http)]
        {
            check_address(&syncer.name, what, address)?;
        }
        self.check_datacenter("syncer", &syncer.name, &syncer.datacenter)?;
        let known = self.durable.syncers.get(&syncer.name);
        if known.is_none() && self.durable.syncers.len() >= SYNCERS_MAX {
            refuse!("a cluster takes {SYNCERS_MAX} syncers: remove those that are gone first");
        }
        let name = syncer.name.clone();
        let durable = self.durable_mut();
        let life = durable.counters.syncer_life;
        durable.counters.syncer_life += 1;
        let record = SyncerRecord { info: SyncerInfo { alive: false, ..syncer }, life };
        durable.syncers.insert(name.clone(), record);
        let live = self.live.hear_syncer(&name);
        live.links = Arc::default();
        Ok(Done::Registered)
    }

    pub(super) fn syncer_heartbeat(
        &mut self,
        name: &str,
        links: Option<Vec<LinkStatus>>,
        views: Vec<PeerView>,
    ) -> Result<Done, Refusal> {
        if !self.durable.syncers.contains_key(name) {
            refuse!("syncer `{name}` is not registered: register first");
        }
        let now_ms = self.live.now_ms;
        let Some(links) = links else {
            self.live.hear_syncer(name);
            return Ok(Done::Plain);
        };
        if links.len() > LINKS_MAX {
            refuse!("{} links in a heartbeat: PD takes {LINKS_MAX}", links.len());
        }
        let said: usize = views.iter().map(|view| view.of.len() + 1).sum();
        if said > VIEWS_MAX {
            refuse!("{said} views in a heartbeat: PD takes {VIEWS_MAX}");
        }
        let ends = self.log_ends();
        let syncer = self.live.hear_syncer(name);
        let before: BTreeMap<_, &Growth> =
            syncer.links.iter().map(|(link, growth)| ((link.group, link.peer), growth)).collect();
        let told = links.into_iter().map(|link| {
            let known = before.get(&(link.group, link.peer));
            let mut growth = known.map_or_else(Growth::default, |growth| (*growth).clone());
            growth.tell(now_ms, backlog_bytes(&link, ends.get(&link.group).copied()));
            (link, growth)
        });
        syncer.links = Arc::new(told.collect());
        syncer.views = Arc::new(views);
        Ok(Done::Plain)
    }

    /// The highest log index that any replica of a group is known to have applied.
    fn log_ends(&self) -> BTreeMap<GroupId, u64> {
        let mut ends = BTreeMap::new();
        for replica in self.live.nodes.values().flat_map(|node| node.replicas.iter()) {
            let end = ends.entry(replica.group).or_default();
            *end = replica.applied.index.max(*end);
        }
        ends
    }

    pub(super) fn remove_syncer(&mut self, name: &str) -> Result<Done, Refusal> {
        if !self.durable.syncers.contains_key(name) {
            return Ok(Done::Plain);
        }
        if self.live.shown.syncers.contains(name) {
            refuse!("syncer `{name}` is alive: stop it first");
        }
        self.durable_mut().syncers.remove(name);
        self.live.syncers.remove(name);
        Ok(Done::Plain)
    }
}

/// The backlog of a link as far as the syncer has read the log, or, when that is more, as long as
/// the log is by what nodes say: a syncer reads no further than its memory goes.
fn backlog_bytes(link: &LinkStatus, log_end: Option<u64>) -> u64 {
    let behind = log_end.unwrap_or(0).saturating_sub(link.cursor.index);
    let guessed = behind as f64 * link.entry_bytes.max(0.0);
    link.backlog_bytes.max(guessed as u64)
}

/// How many replicas the map places on a node.
fn carries(durable: &Durable, node: &str) -> usize {
    let placed = |group: &&super::durable::GroupRecord| {
        group.replicas.iter().any(|replica| replica.node == node)
    };
    durable.groups.values().filter(placed).count()
}

fn carries_it(durable: &Durable, node: &str, status: &ReplicaStatus) -> bool {
    durable.groups.get(&status.group).is_some_and(|group| {
        group.replicas.iter().any(|r| r.id == status.replica && r.node == node)
    })
}

fn check_node(node: &NodeInfo) -> Result<(), Refusal> {
    check_name("node", &node.name)?;
    check_name("datacenter", &node.datacenter)?;
    if node.advertise.len() > ADVERTISE_MAX {
        refuse!("node `{}` has addresses for more than {ADVERTISE_MAX} datacenters", node.name);
    }
    for from in node.advertise.keys() {
        check_name("datacenter", from)?;
    }
    for addresses in std::iter::once(&node.addresses).chain(node.advertise.values()) {
        for (what, address) in [
            ("resp", &addresses.resp),
            ("cluster_resp", &addresses.cluster_resp),
            ("rpc", &addresses.rpc),
            ("http", &addresses.http),
        ] {
            check_address(&node.name, what, address)?;
        }
    }
    Ok(())
}

pub(super) fn check_address(name: &str, what: &str, address: &str) -> Result<(), Refusal> {
    let port = address.rsplit_once(':').map(|(_, port)| port.parse::<u16>());
    if address.len() > ADDRESS_BYTES_MAX || !matches!(port, Some(Ok(_))) {
        refuse!("`{name}` registers `{what}` address `{address:.300}`, which is not host:port");
    }
    Ok(())
}

/// Names of members and namespaces: 1 to 64 characters that need no quoting anywhere.
pub(super) fn check_name(what: &str, name: &str) -> Result<(), Refusal> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if name.is_empty() || name.len() > 64 || !name.chars().all(plain) {
        refuse!("{what} name `{name:.80}` must be 1 to 64 characters of a-z A-Z 0-9 . _ -");
    }
    Ok(())
}
