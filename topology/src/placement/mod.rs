//! Where the replicas of a group stand and which of them should lead.
//!
//! Three pure decisions that PD takes and takes again: [`place`] new groups (and [`add_voter`] to
//! an old one), [`spread_leaders`], and name the [`violations`] of what stands now.
//!
//! Invariants:
//! * The spread rule is hard: a group's replicas stand in as many datacenters as there are
//!   replicas or live datacenters, evenly; in a cluster of three datacenters or more, dead ones
//!   counted, none holds a majority. What cannot keep the rule is refused with the reason.
//! * A node carries at most one replica of a group.
//! * The same arguments give the same answer on every PD: ties go by load, then by name, and the
//!   order of the arguments does not matter.
//!
//! Not here: which nodes are alive, ids of replicas, and when to act; those are PD's.

mod leaders;
mod violations;

pub use leaders::{GroupLeader, spread_leaders};
pub use violations::{GroupVoters, Violation, violations};

use crate::api::ClusterMap;
use std::collections::{BTreeMap, BTreeSet};

/// A node as placement sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Its name, unique in the cluster.
    pub name: String,
    /// The failure domain that it stands in.
    pub datacenter: String,
    /// Whether it can carry new replicas and lead.
    pub alive: bool,
    /// How many replicas it carries already.
    pub replicas: usize,
}

impl Host {
    /// All nodes of a map, with the voters wanted on each counted.
    pub fn all(map: &ClusterMap) -> Vec<Host> {
        let mut carried: BTreeMap<&str, usize> = BTreeMap::new();
        for voter in map.groups.iter().flat_map(|group| &group.replicas) {
            *carried.entry(voter.node.as_str()).or_default() += 1;
        }
        map.nodes
            .iter()
            .map(|node| Host {
                name: node.name.clone(),
                datacenter: node.datacenter.clone(),
                alive: node.alive,
                replicas: carried.get(node.name.as_str()).copied().unwrap_or(0),
            })
            .collect()
    }
}

/// Why replicas cannot be placed. Nothing was placed; the text says what would help.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CannotPlace {
    /// A group of no replicas is nothing.
    #[error("a group needs at least one replica: ask for 1, 3 or 5")]
    NoReplicas,
    /// Fewer live nodes than replicas.
    #[error(
        "{wanted} replicas need {wanted} live nodes and there are {live}: start more nodes or \
         ask for fewer replicas"
    )]
    TooFewNodes {
        /// Replicas asked for.
        wanted: usize,
        /// Nodes that could carry one each.
        live: usize,
    },
    /// One datacenter would hold a majority although there are three or more.
    #[error(
        "{wanted} replicas over {datacenters} datacenters would put {count}, a majority, into \
         {datacenter}, whose loss would stop the group: start nodes in the other datacenters"
    )]
    MajorityInOneDatacenter {
        /// Replicas asked for.
        wanted: usize,
        /// Datacenters of the cluster, also those that are down.
        datacenters: usize,
        /// The one that would hold too many.
        datacenter: String,
        /// How many it would hold.
        count: usize,
    },
    /// A datacenter of the cluster has no live node yet, and the spread would need it.
    #[error(
        "{replicas} replicas are to stand in {needed} datacenters and only {live} have live \
         nodes: start nodes in {missing}"
    )]
    DatacentersMissing {
        /// Replicas asked for.
        replicas: usize,
        /// Datacenters that they must stand in.
        needed: usize,
        /// Datacenters of the cluster that have live nodes.
        live: usize,
        /// The others, comma separated.
        missing: String,
    },
}

/// Places `groups` new groups of `replicas` voters each, and returns the names of the nodes of
/// each group, in the order in which they were chosen.
///
/// Least loaded first, within the spread rule. Hosts that are not alive are passed over.
pub fn place(
    hosts: &[Host],
    replicas: usize,
    groups: usize,
) -> Result<Vec<Vec<String>>, CannotPlace> {
    if replicas == 0 {
        return Err(CannotPlace::NoReplicas);
    }
    let mut floor = Floor::new(hosts);
    (0..groups).map(|_| floor.place_group(replicas)).collect()
}

/// The node for one more voter of a group that has `voters`, as after the loss of a replica. The
/// result together with `voters` keeps the spread rule, if `voters` can be completed to keep it.
pub fn add_voter(hosts: &[Host], voters: &[String]) -> Result<String, CannotPlace> {
    let mut floor = Floor::new(hosts);
    let mut group = Group::default();
    for voter in voters {
        // A voter on a node that nobody knows stands in no datacenter that could count.
        let host = hosts.iter().find(|host| host.name == *voter);
        group.add(voter, host.map_or("", |host| &host.datacenter));
    }
    let wanted = voters.len() + 1;
    let Some((datacenter, index)) = floor.next_for(&group) else {
        return Err(CannotPlace::TooFewNodes { wanted, live: floor.live() });
    };
    let name = floor.take(&datacenter, index);
    group.add(&name, &datacenter);
    floor.refuse_majority(&group, wanted)?;
    Ok(name)
}

/// Whether the spread that `replicas` would have with all of the cluster's `datacenters` up can be
/// had with the nodes that are alive now. PD asks before it creates the first groups: placed too
/// early, they would all stand in the datacenter whose nodes registered first.
pub fn ready(hosts: &[Host], datacenters: &[String], replicas: usize) -> Result<(), CannotPlace> {
    let expected: BTreeSet<&str> = datacenters.iter().map(String::as_str).collect();
    let live: BTreeSet<&str> =
        hosts.iter().filter(|host| host.alive).map(|host| host.datacenter.as_str()).collect();
    let needed = replicas.min(expected.len());
    let present = expected.intersection(&live).count();
    if present < needed {
        let missing: Vec<&str> = expected.difference(&live).copied().collect();
        return Err(CannotPlace::DatacentersMissing {
            replicas,
            needed,
            live: present,
            missing: missing.join(", "),
        });
    }
    place(hosts, replicas, 1).map(|_| ())
}

/// The majority of `voters`.
pub fn majority(voters: usize) -> usize {
    voters / 2 + 1
}

/// The live nodes by datacenter, with the load that grows while groups are placed.
struct Floor {
    /// (replicas carried, name) of each node, by datacenter.
    rooms: BTreeMap<String, Vec<(usize, String)>>,
    /// Datacenters of all nodes. One that is down still counts: were its replicas put into the
    /// others, the loss of one of those would stop the group.
    datacenters: usize,
}

/// One group while it is being placed.
#[derive(Default)]
struct Group {
    nodes: BTreeSet<String>,
    per_datacenter: BTreeMap<String, usize>,
}

impl Group {
    fn add(&mut self, node: &str, datacenter: &str) {
        self.nodes.insert(node.to_owned());
        *self.per_datacenter.entry(datacenter.to_owned()).or_default() += 1;
    }

    fn in_datacenter(&self, datacenter: &str) -> usize {
        self.per_datacenter.get(datacenter).copied().unwrap_or(0)
    }
}

impl Floor {
    fn new(hosts: &[Host]) -> Floor {
        let mut rooms: BTreeMap<String, Vec<(usize, String)>> = BTreeMap::new();
        for host in hosts.iter().filter(|host| host.alive) {
            rooms
                .entry(host.datacenter.clone())
                .or_default()
                .push((host.replicas, host.name.clone()));
        }
        let datacenters = hosts.iter().map(|host| &host.datacenter).collect::<BTreeSet<_>>().len();
        Floor { rooms, datacenters }
    }

    fn live(&self) -> usize {
        self.rooms.values().map(Vec::len).sum()
    }

    fn place_group(&mut self, replicas: usize) -> Result<Vec<String>, CannotPlace> {
        let mut group = Group::default();
        let mut chosen = Vec::with_capacity(replicas.min(self.live()));
        for _ in 0..replicas {
            let Some((datacenter, index)) = self.next_for(&group) else {
                return Err(CannotPlace::TooFewNodes { wanted: replicas, live: self.live() });
            };
            let name = self.take(&datacenter, index);
            group.add(&name, &datacenter);
            chosen.push(name);
        }
        self.refuse_majority(&group, replicas)?;
        Ok(chosen)
    }

    /// The datacenter with the fewest replicas of the group that has a free node, and its least
    /// loaded free node. Filling evenly makes the fullest datacenter as empty as it can be, so
    /// where this puts a majority into one, every placement would.
    fn next_for(&self, group: &Group) -> Option<(String, usize)> {
        let mut best: Option<(usize, usize, usize, &str, usize)> = None;
        for (datacenter, nodes) in &self.rooms {
            let free =
                nodes.iter().enumerate().filter(|(_, (_, name))| !group.nodes.contains(name));
            let Some((index, (load, _))) = free.min_by_key(|(_, node)| *node) else { continue };
            // Of two datacenters with equally loaded free nodes the emptier one as a whole.
            let total: usize = nodes.iter().map(|(load, _)| load).sum();
            let key = (group.in_datacenter(datacenter), *load, total, datacenter.as_str(), index);
            if best.is_none_or(|best| key < best) {
                best = Some(key);
            }
        }
        best.map(|(_, _, _, datacenter, index)| (datacenter.to_owned(), index))
    }

    fn take(&mut self, datacenter: &str, index: usize) -> String {
        let nodes = self.rooms.get_mut(datacenter).expect("next_for names a room that exists");
        nodes[index].0 += 1;
        nodes[index].1.clone()
    }

    fn refuse_majority(&self, group: &Group, wanted: usize) -> Result<(), CannotPlace> {
        let datacenters = self.datacenters;
        // A lone replica is a majority wherever it stands.
        if datacenters < 3 || wanted < 3 {
            return Ok(());
        }
        match group.per_datacenter.iter().find(|(_, count)| **count >= majority(wanted)) {
            None => Ok(()),
            Some((datacenter, &count)) => Err(CannotPlace::MajorityInOneDatacenter {
                wanted,
                datacenters,
                datacenter: datacenter.clone(),
                count,
            }),
        }
    }
}

#[cfg(test)]
mod tests;
