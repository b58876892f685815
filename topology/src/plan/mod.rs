//! What a declared topology amounts to: its mode, clusters and links, and what they withstand.
//!
//! [`Topology`] is the checked form of a topology file, with everything that was left open decided
//! and the reason kept. It is what PD, the demo and `flotilla topology check` work with.
//!
//! Invariants of a [`Topology`]:
//! * names and ids are unique, every datacenter has its cluster and every pair its round trip time;
//! * every cluster is linked to every other, in both directions;
//! * the mode is the shape of the clusters, and all that its owner wants holds by the plan.

mod select;

mod latency;

mod survival;

mod wants;

pub use latency::{Distances, LOCAL_RTT_MS, Range, SHIP_MS, SYNC_MS};
pub use survival::{ClusterFate, Fate, Loss, Outcome, Report};

use crate::api::PeerCluster;
use crate::election::Timing;
use crate::file::validate::{self, Draft};
use crate::file::{Cluster, FILE_BYTES_MAX, Link, Mode, Problem, Problems, TopologyFile};
use crate::ids::ClusterId;

/// A topology that holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Topology {
    /// As it was declared.
    pub file: TopologyFile,
    /// As it was declared, or else as it was selected.
    pub mode: Mode,
    /// Why that mode, in one sentence.
    pub why: String,
    /// Whether the clusters were left out of the file and follow from the mode: they have no
    /// addresses then, and the file serves for planning only.
    pub proposed: bool,
    /// All clusters.
    pub clusters: Vec<Cluster>,
    /// All links, by name of sender and receiver.
    pub links: Vec<Link>,
    /// Round trip times.
    pub distances: Distances,
}

impl Topology {
    /// Reads and checks a topology file, and decides what it leaves open.
    ///
    /// # Errors
    /// Everything that is wrong, each with its line and what to do.
    pub fn parse(text: &str) -> Result<Topology, Problems> {
        let mut problems = Vec::new();
        match draft(text, &mut problems).and_then(|draft| resolve(draft, &mut problems)) {
            Some(topology) if problems.is_empty() => Ok(topology),
            _ => Err(Problems::new(problems).expect("no topology, so there was a problem")),
        }
    }

    /// The cluster of that id.
    pub fn cluster(&self, id: ClusterId) -> Option<&Cluster> {
        self.clusters.iter().find(|cluster| cluster.id == id)
    }

    /// The clusters that cluster `id` has links with. Empty for a cluster that is not in the file.
    pub fn peers_of(&self, id: ClusterId) -> Vec<PeerCluster> {
        let Some(me) = self.cluster(id) else { return Vec::new() };
        let peers = self.clusters.iter().filter(|peer| {
            self.links.contains(&Link { from: me.name.clone(), to: peer.name.clone() })
        });
        peers
            .map(|peer| PeerCluster {
                id: peer.id,
                name: peer.name.clone(),
                syncers: peer.syncers.clone(),
                rtt_ms: Some(self.distances.farthest(&me.datacenters, &peer.datacenters)),
                ..PeerCluster::default()
            })
            .collect()
    }

    /// How long the groups of cluster `id` wait, by the distance between its datacenters. A cluster
    /// that is not in the file is taken for one in one datacenter.
    pub fn election_of(&self, id: ClusterId) -> Timing {
        let far = self
            .cluster(id)
            .map_or(0.0, |c| self.distances.farthest(&c.datacenters, &c.datacenters));
        Timing::for_rtt(far)
    }

    /// What each possible loss leaves.
    pub fn report(&self) -> Report {
        survival::report(self)
    }
}

impl TopologyFile {
    /// Checks a declaration that was made by a program. Lines are those of its
    /// [`TopologyFile::to_toml`].
    ///
    /// # Errors
    /// As [`Topology::parse`].
    pub fn check(&self) -> Result<Topology, Problems> {
        Topology::parse(&self.to_toml())
    }
}

fn draft(text: &str, problems: &mut Vec<Problem>) -> Option<Draft> {
    if text.len() > FILE_BYTES_MAX {
        problems.push(Problem {
            line: 1,
            message: format!("the file has {} bytes, more than {FILE_BYTES_MAX}", text.len()),
            remedy: "is this the topology file?".to_owned(),
        });
        return None;
    }
    match validate::read(text, problems) {
        Ok(draft) => Some(draft),
        Err(problem) => {
            problems.push(problem);
            None
        }
    }
}

/// Decides what was left open and asks whether the wants hold. `None` when too little is known.
fn resolve(draft: Draft, problems: &mut Vec<Problem>) -> Option<Topology> {
    if !draft.shape_known {
        return None;
    }
    let file = &draft.file;
    let distances =
        if draft.times_known { Distances::new(&file.rtts) } else { Distances::default() };
    let selected = if !file.clusters.is_empty() {
        Some(select::by_clusters(file, draft.mode_line, problems))
    } else if let Some(mode) = file.mode {
        select::by_mode(file, mode, draft.mode_line, problems)
    } else {
        draft.times_known.then(|| select::by_wants(&draft, &distances))
    }?;
    wants::check(&draft, &selected.clusters, &distances, problems);
    let links = if file.links.is_empty() { mesh(&selected.clusters) } else { file.links.clone() };
    Some(Topology {
        mode: selected.mode,
        why: selected.why,
        proposed: file.clusters.is_empty(),
        clusters: selected.clusters,
        links,
        distances,
        file: draft.file,
    })
}

/// Every cluster to every other.
fn mesh(clusters: &[Cluster]) -> Vec<Link> {
    let name = |cluster: &Cluster| cluster.name.clone();
    let pairs = clusters.iter().flat_map(|from| clusters.iter().map(move |to| (from, to)));
    pairs
        .filter(|(from, to)| from.name != to.name)
        .map(|(from, to)| Link { from: name(from), to: name(to) })
        .collect()
}

#[cfg(test)]
mod tests;
