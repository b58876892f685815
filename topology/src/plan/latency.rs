//! What a write and a read take, estimated from round trip times.
//!
//! A model, not a measurement, and meant to compare topologies: a write reaches the leader, which
//! and a majority of voters sync it, so it takes the way to the leader, the way to the last voter
//! that is needed, and one sync. A linearizable read takes the way to the leader, whose lease
//! answers. Every way to spread the voters over the datacenters (as placement spreads them), every
//! leader among them and every datacenter for the client is looked at.

use super::survival::Fate;
use crate::file::{Cluster, Rtt};
use crate::placement::majority;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// Assumed round trip time inside a datacenter.
pub const LOCAL_RTT_MS: f64 = 0.5;
/// Assumed time of one sync to a disk that a server would have.
pub const SYNC_MS: f64 = 1.0;
/// Assumed time that a link spends on batching at both ends.
pub const SHIP_MS: f64 = 2.0;

/// Round trip times between datacenters.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Distances {
    pairs: BTreeMap<(String, String), f64>,
}

impl Distances {
    /// Of a checked file.
    pub fn new(rtts: &[Rtt]) -> Distances {
        let both = |rtt: &Rtt| {
            let [a, b] = rtt.between.clone();
            [((a.clone(), b.clone()), rtt.rtt.ms()), ((b, a), rtt.rtt.ms())]
        };
        Distances { pairs: rtts.iter().flat_map(both).collect() }
    }

    /// Milliseconds from `a` to `b` and back; [`LOCAL_RTT_MS`] inside one, and for pairs that are
    /// not known, which a checked topology does not have.
    pub fn rtt_ms(&self, a: &str, b: &str) -> f64 {
        self.pairs.get(&(a.to_owned(), b.to_owned())).copied().unwrap_or(LOCAL_RTT_MS)
    }

    /// The longest time from any of `from` to any of `to`.
    pub fn farthest(&self, from: &[String], to: &[String]) -> f64 {
        let pairs = from.iter().flat_map(|a| to.iter().map(move |b| self.rtt_ms(a, b)));
        pairs.fold(0.0, f64::max)
    }

    /// The shortest time from any of `from` to any of `to`.
    pub fn nearest(&self, from: &[String], to: &[String]) -> f64 {
        let pairs = from.iter().flat_map(|a| to.iter().map(move |b| self.rtt_ms(a, b)));
        pairs.fold(f64::INFINITY, f64::min)
    }
}

/// From the best case to the worst, over clients, leaders and spreads.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Range {
    /// Best case.
    pub min_ms: f64,
    /// Worst case.
    pub max_ms: f64,
}

impl Range {
    fn with(range: Option<Range>, ms: f64) -> Option<Range> {
        Some(match range {
            None => Range { min_ms: ms, max_ms: ms },
            Some(r) => Range { min_ms: r.min_ms.min(ms), max_ms: r.max_ms.max(ms) },
        })
    }

    /// The range over both.
    pub fn cover(a: Option<Range>, b: Option<Range>) -> Option<Range> {
        match b {
            None => a,
            Some(b) => Range::with(Range::with(a, b.min_ms), b.max_ms),
        }
    }
}

/// What is broken.
#[derive(Debug, Clone, Default)]
pub(super) struct Damage<'a> {
    /// Datacenters that are gone.
    pub lost: BTreeSet<&'a str>,
    /// Two datacenters that do not hear each other, in either direction.
    pub cut: Option<(&'a str, &'a str)>,
}

impl Damage<'_> {
    fn hears(&self, a: &str, b: &str) -> bool {
        let cut = self.cut.is_some_and(|(x, y)| (a, b) == (x, y) || (a, b) == (y, x));
        !cut && !self.lost.contains(a) && !self.lost.contains(b)
    }
}

/// How one cluster fares.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Estimate {
    /// Which of its groups serve.
    pub fate: Fate,
    /// Acknowledged writes, where served.
    pub write: Option<Range>,
    /// Linearizable reads, where served.
    pub read: Option<Range>,
    /// How often each written byte crosses between its datacenters, on average.
    pub wan_copies: f64,
    /// Whether some clients cannot reach the leaders of some groups that have one.
    pub out_of_reach: bool,
    /// Whether moving leaders would bring all groups into reach of all clients.
    pub reachable: bool,
}

/// Estimates one cluster under `damage`.
pub(super) fn estimate(cluster: &Cluster, distances: &Distances, damage: &Damage<'_>) -> Estimate {
    let places: Vec<&str> = cluster.datacenters.iter().map(String::as_str).collect();
    let clients: Vec<&str> =
        places.iter().copied().filter(|place| !damage.lost.contains(place)).collect();
    let voters = usize::from(cluster.replicas);
    let spreads = spreads(places.len(), voters);
    let mut sum = Estimate {
        fate: Fate::Serves,
        write: None,
        read: None,
        wan_copies: 0.0,
        out_of_reach: false,
        reachable: true,
    };
    let (mut stopped, mut copies, mut leaders_seen) = (0, 0, 0);
    for spread in &spreads {
        let mut led = false;
        let mut someone_reaches_all = false;
        for (leader, in_leaders_place) in
            places.iter().copied().zip(spread).filter(|(_, n)| **n > 0)
        {
            let Some(quorum_ms) = quorum_ms(leader, &places, spread, distances, damage) else {
                continue;
            };
            led = true;
            leaders_seen += 1;
            copies += voters - in_leaders_place;
            let mut reached = true;
            for client in &clients {
                if damage.hears(client, leader) {
                    let way = LOCAL_RTT_MS + way_ms(client, leader, distances);
                    sum.write = Range::with(sum.write, way + quorum_ms + SYNC_MS);
                    sum.read = Range::with(sum.read, way);
                } else {
                    reached = false;
                    sum.out_of_reach = true;
                }
            }
            someone_reaches_all |= reached;
        }
        stopped += usize::from(!led);
        sum.reachable &= someone_reaches_all;
    }
    sum.fate = match stopped {
        _ if clients.is_empty() => Fate::Gone,
        0 => Fate::Serves,
        n if n < spreads.len() => Fate::SomeGroupsStop,
        _ => Fate::Stops,
    };
    sum.wan_copies = f64::from(copies as u32) / f64::from((leaders_seen as u32).max(1));
    sum
}

/// From the node that the client speaks to, to the leader: nothing when it is the leader itself.
fn way_ms(client: &str, leader: &str, distances: &Distances) -> f64 {
    if client == leader { 0.0 } else { distances.rtt_ms(client, leader) }
}

/// The way to the last voter that a majority needs; `None` when there is no majority.
fn quorum_ms(
    leader: &str,
    places: &[&str],
    spread: &[usize],
    distances: &Distances,
    damage: &Damage<'_>,
) -> Option<f64> {
    if damage.lost.contains(leader) {
        return None;
    }
    let mut ways = Vec::new();
    for (place, count) in places.iter().zip(spread).filter(|(p, _)| damage.hears(leader, p)) {
        // One of the voters in the leader's datacenter is the leader, which has no way to go.
        let followers = count - usize::from(*place == leader);
        ways.extend(std::iter::repeat_n(distances.rtt_ms(leader, place), followers));
    }
    ways.sort_by(f64::total_cmp);
    match majority(spread.iter().sum()) - 1 {
        0 => Some(0.0),
        needed => ways.get(needed - 1).copied(),
    }
}

/// Every way in which placement may spread `replicas` over `datacenters` places: evenly, the ones
/// that are left over in any of them.
pub(super) fn spreads(datacenters: usize, replicas: usize) -> Vec<Vec<usize>> {
    if datacenters == 0 {
        return Vec::new();
    }
    let (base, extra) = (replicas / datacenters, replicas % datacenters);
    let mut found = Vec::new();
    choose(datacenters, extra, &mut vec![base; datacenters], 0, &mut found);
    found
}

fn choose(
    places: usize,
    extra: usize,
    spread: &mut Vec<usize>,
    at: usize,
    found: &mut Vec<Vec<usize>>,
) {
    if extra == 0 {
        found.push(spread.clone());
        return;
    }
    for place in at..=(places - extra) {
        spread[place] += 1;
        choose(places, extra - 1, spread, place + 1, found);
        spread[place] -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::placement::{Host, place};
    use proptest::prelude::*;

    proptest! {
        /// The plan speaks of the placement that PD makes.
        #[test]
        fn spreads_are_those_of_placement(
            datacenters in 1usize..7,
            replicas in prop::sample::select(vec![1usize, 3, 5]),
            groups in 1usize..9,
        ) {
            let hosts: Vec<Host> = (0..datacenters * replicas)
                .map(|n| Host {
                    name: format!("n{n}"),
                    datacenter: format!("{}", n % datacenters),
                    alive: true,
                    replicas: 0,
                })
                .collect();
            let spreads = spreads(datacenters, replicas);
            for voters in place(&hosts, replicas, groups).unwrap() {
                let mut counts = vec![0; datacenters];
                for voter in voters {
                    let n: usize = voter[1..].parse().unwrap();
                    counts[n % datacenters] += 1;
                }
                prop_assert!(spreads.contains(&counts), "{:?} not in {:?}", counts, spreads);
            }
            prop_assert!(spreads.iter().all(|spread| spread.iter().sum::<usize>() == replicas));
        }
    }
}
