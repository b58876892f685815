//! Spreads leaders over nodes, moving as few as it can.
//!
//! A semi-matching of groups to their live voters: start from who is preferred now, then shift
//! leaders along chains (group by group, each to another of its own voters) from a node that has
//! too many to one that has at least two fewer. Every shift lowers the sum of squares of the
//! loads, so it ends; when no chain is left, no other choice is more even.

use super::Host;
use crate::ids::GroupId;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// A group whose leader is to be chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupLeader {
    /// The group.
    pub group: GroupId,
    /// The nodes that carry its voters.
    pub voters: Vec<String>,
    /// The node preferred so far; it stays if it is a live voter and the spread allows.
    pub preferred: Option<String>,
}

/// Chooses the node that should lead each group, so that the loads of the live nodes are as even
/// as the voters allow. Groups without a live voter are left out.
pub fn spread_leaders(hosts: &[Host], groups: &[GroupLeader]) -> BTreeMap<GroupId, String> {
    let mut spread = Spread::new(hosts, groups);
    while spread.shift_once() {}
    spread.leader.into_iter().map(|(group, node)| (group, node.to_owned())).collect()
}

struct Spread<'a> {
    /// Live voters of each group.
    voters: BTreeMap<GroupId, BTreeSet<&'a str>>,
    leader: BTreeMap<GroupId, &'a str>,
    /// Groups led by each live node.
    led: BTreeMap<&'a str, BTreeSet<GroupId>>,
}

impl<'a> Spread<'a> {
    fn new(hosts: &'a [Host], groups: &'a [GroupLeader]) -> Spread<'a> {
        let mut led: BTreeMap<&str, BTreeSet<GroupId>> =
            hosts.iter().filter(|h| h.alive).map(|h| (h.name.as_str(), BTreeSet::new())).collect();
        let mut voters: BTreeMap<GroupId, BTreeSet<&str>> = BTreeMap::new();
        let mut leader = BTreeMap::new();
        for group in groups {
            let live: BTreeSet<&str> =
                group.voters.iter().map(String::as_str).filter(|v| led.contains_key(v)).collect();
            if let Some(node) = group.preferred.as_deref().and_then(|node| live.get(node)) {
                leader.insert(group.group, *node);
            }
            voters.insert(group.group, live);
        }
        for (group, node) in &leader {
            led.entry(node).or_default().insert(*group);
        }
        // The others go to their least loaded voter; what that gets wrong is shifted afterwards.
        for (group, live) in &voters {
            if leader.contains_key(group) {
                continue;
            }
            let least =
                live.iter().min_by_key(|node| (led.get(*node).map_or(0, |l| l.len()), **node));
            if let Some(node) = least {
                leader.insert(*group, *node);
                led.entry(node).or_default().insert(*group);
            }
        }
        Spread { voters, leader, led }
    }

    fn load(&self, node: &str) -> usize {
        self.led.get(node).map_or(0, BTreeSet::len)
    }

    /// Moves one leader's worth of load from some node to one with at least two fewer, if any
    /// chain of voters leads there. The most loaded nodes are tried first.
    fn shift_once(&mut self) -> bool {
        let mut sources: Vec<&'a str> = self.led.keys().copied().collect();
        sources.sort_by_key(|node| (std::cmp::Reverse(self.load(node)), *node));
        for source in sources {
            if let Some(chain) = self.chain_from(source) {
                for (group, to) in chain {
                    self.hand_over(group, to);
                }
                return true;
            }
        }
        false
    }

    /// Shortest chain of hand-overs from `source` to a node with at least two leaders fewer.
    fn chain_from(&self, source: &'a str) -> Option<Vec<(GroupId, &'a str)>> {
        let limit = self.load(source).checked_sub(2)?;
        let mut came: BTreeMap<&str, (GroupId, &'a str)> = BTreeMap::new();
        let mut queue = VecDeque::from([source]);
        while let Some(node) = queue.pop_front() {
            if node != source && self.load(node) <= limit {
                return Some(self.walk_back(source, node, &came));
            }
            for group in self.led.get(node).into_iter().flatten() {
                for next in self.voters.get(group).into_iter().flatten() {
                    if *next != source && !came.contains_key(next) && *next != node {
                        came.insert(next, (*group, node));
                        queue.push_back(next);
                    }
                }
            }
        }
        None
    }

    fn walk_back(
        &self,
        source: &str,
        end: &'a str,
        came: &BTreeMap<&str, (GroupId, &'a str)>,
    ) -> Vec<(GroupId, &'a str)> {
        let mut chain = Vec::new();
        let mut node = end;
        while node != source {
            let (group, from) = came[node];
            chain.push((group, node));
            node = from;
        }
        chain
    }

    fn hand_over(&mut self, group: GroupId, to: &'a str) {
        if let Some(from) = self.leader.insert(group, to) {
            self.led.entry(from).or_default().remove(&group);
        }
        self.led.entry(to).or_default().insert(group);
    }
}
