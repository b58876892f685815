//! Names what stands otherwise than the rules of placement ask, one line each.

use super::{Host, majority};
use crate::ids::GroupId;
use std::collections::{BTreeMap, BTreeSet};

/// A group as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupVoters {
    /// The group.
    pub group: GroupId,
    /// The nodes that carry its voters.
    pub voters: Vec<String>,
    /// How many voters its namespace asks for.
    pub wanted: usize,
}

/// A rule of placement that does not hold. The text says what would mend it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Violation {
    /// A voter stands on a node that is not a member.
    #[error("group {group}: a voter stands on {node}, which is not a member: replace it")]
    UnknownNode {
        /// The group.
        group: GroupId,
        /// The node.
        node: String,
    },
    /// Two voters of one group on one node.
    #[error("group {group}: {node} carries two of its voters: move one to another node")]
    SharedNode {
        /// The group.
        group: GroupId,
        /// The node.
        node: String,
    },
    /// Fewer voters than the namespace asks for.
    #[error("group {group}: {have} of {wanted} voters: add {}", wanted - have)]
    TooFewVoters {
        /// The group.
        group: GroupId,
        /// Voters that it has.
        have: usize,
        /// Voters that it should have.
        wanted: usize,
    },
    /// Voters on nodes that PD does not hear from.
    #[error(
        "group {group}: {} of {voters} voters do not answer ({}): {}",
        dead.len(),
        dead.join(", "),
        dead_remedy(*voters, dead.len())
    )]
    DeadVoters {
        /// The group.
        group: GroupId,
        /// How many voters it has.
        voters: usize,
        /// The nodes of those that do not answer.
        dead: Vec<String>,
    },
    /// Not in as many datacenters as there could be.
    #[error("group {group}: voters in {have} datacenters where {possible} are possible: move one")]
    Narrow {
        /// The group.
        group: GroupId,
        /// Datacenters that they stand in.
        have: usize,
        /// Datacenters that they could stand in.
        possible: usize,
    },
    /// One datacenter holds a majority although there are three or more.
    #[error(
        "group {group}: {datacenter} holds {count} of {voters} voters, a majority, so its loss \
         would stop the group: move one to another datacenter"
    )]
    MajorityInOneDatacenter {
        /// The group.
        group: GroupId,
        /// The datacenter.
        datacenter: String,
        /// Voters in it.
        count: usize,
        /// All voters.
        voters: usize,
    },
}

fn dead_remedy(voters: usize, dead: usize) -> &'static str {
    if voters - dead < majority(voters) {
        "the group has stopped until enough of them return"
    } else {
        "restart or replace them"
    }
}

/// Everything that is wrong with where these groups stand, in the order of the groups given.
///
/// What is possible counts the datacenters of all hosts, dead ones too: a datacenter that is down
/// does not make a narrow placement right, it is what the placement was meant for.
pub fn violations(hosts: &[Host], groups: &[GroupVoters]) -> Vec<Violation> {
    let by_name: BTreeMap<&str, &Host> =
        hosts.iter().map(|host| (host.name.as_str(), host)).collect();
    let datacenters = hosts.iter().map(|host| &host.datacenter).collect::<BTreeSet<_>>().len();
    groups.iter().flat_map(|group| group_violations(&by_name, datacenters, group)).collect()
}

fn group_violations(
    hosts: &BTreeMap<&str, &Host>,
    datacenters: usize,
    group: &GroupVoters,
) -> Vec<Violation> {
    let id = group.group;
    let voters = group.voters.len();
    let mut found = Vec::new();
    let mut seen = BTreeSet::new();
    let mut dead = Vec::new();
    let mut per_datacenter: BTreeMap<&str, usize> = BTreeMap::new();
    for node in &group.voters {
        if !seen.insert(node) {
            found.push(Violation::SharedNode { group: id, node: node.clone() });
        }
        match hosts.get(node.as_str()) {
            None => found.push(Violation::UnknownNode { group: id, node: node.clone() }),
            Some(host) => {
                *per_datacenter.entry(&host.datacenter).or_default() += 1;
                if !host.alive {
                    dead.push(node.clone());
                }
            }
        }
    }
    if voters < group.wanted {
        found.push(Violation::TooFewVoters { group: id, have: voters, wanted: group.wanted });
    }
    if !dead.is_empty() {
        found.push(Violation::DeadVoters { group: id, voters, dead });
    }
    let possible = voters.min(datacenters);
    if per_datacenter.len() < possible {
        found.push(Violation::Narrow { group: id, have: per_datacenter.len(), possible });
    }
    if datacenters >= 3 && voters >= 3 {
        let fullest = per_datacenter.iter().find(|(_, count)| **count >= majority(voters));
        if let Some((datacenter, &count)) = fullest {
            let datacenter = (*datacenter).to_owned();
            found.push(Violation::MajorityInOneDatacenter { group: id, datacenter, count, voters });
        }
    }
    found
}
