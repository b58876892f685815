//! For each possible loss: who serves on, how fast, and what is lost.

use super::Topology;
use super::latency::{Damage, Distances, Range, SHIP_MS, SYNC_MS, estimate};
use crate::file::{Cluster, TopologyFile};
use serde::Serialize;
use std::collections::BTreeSet;
use std::fmt;

/// What may be lost.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Loss {
    /// Nothing: how it is when all is well.
    Nothing,
    /// A datacenter, with all that stands in it.
    Datacenter(String),
    /// A region, with all its datacenters.
    Region(String),
    /// All traffic between two datacenters.
    Link(String, String),
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Loss::Nothing => write!(f, "nothing"),
            Loss::Datacenter(name) => write!(f, "datacenter {name}"),
            Loss::Region(name) => write!(f, "region {name}"),
            Loss::Link(a, b) => write!(f, "link {a} - {b}"),
        }
    }
}

impl Loss {
    /// Everything that a topology may lose, one at a time, after [`Loss::Nothing`].
    pub fn all(file: &TopologyFile) -> Vec<Loss> {
        let names: Vec<&String> = file.datacenters.iter().map(|d| &d.name).collect();
        let mut losses = vec![Loss::Nothing];
        losses.extend(names.iter().map(|name| Loss::Datacenter((*name).clone())));
        losses.extend(file.regions.iter().map(|region| Loss::Region(region.clone())));
        for (i, a) in names.iter().enumerate() {
            losses.extend(names[i + 1..].iter().map(|b| Loss::Link((*a).clone(), (*b).clone())));
        }
        losses
    }

    /// What it breaks.
    pub(super) fn damage<'a>(&'a self, file: &'a TopologyFile) -> Damage<'a> {
        let mut damage = Damage::default();
        match self {
            Loss::Nothing => {}
            Loss::Datacenter(name) => {
                damage.lost.insert(name);
            }
            Loss::Region(region) => {
                let inside = file.datacenters.iter().filter(|d| d.region.as_ref() == Some(region));
                damage.lost = inside.map(|d| d.name.as_str()).collect();
            }
            Loss::Link(a, b) => damage.cut = Some((a, b)),
        }
        damage
    }
}

/// What becomes of a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fate {
    /// All groups keep a majority.
    Serves,
    /// Some groups keep a majority and some do not.
    SomeGroupsStop,
    /// No group keeps a majority: it waits until enough is back.
    Stops,
    /// Nothing of it is left.
    Gone,
}

/// A cluster after a loss.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ClusterFate {
    /// Its name.
    pub cluster: String,
    /// Which of its groups serve.
    pub fate: Fate,
    /// What a write takes there.
    pub write: Option<Range>,
    /// What a linearizable read takes there.
    pub read: Option<Range>,
    /// How often each byte written there crosses between datacenters, links included.
    pub wan_copies: f64,
}

/// What a loss leaves.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Outcome {
    /// What was lost.
    pub loss: Loss,
    /// Whether all data are served on, by the same cluster or another.
    pub survived: bool,
    /// Acknowledged writes of about this long are lost with it while links keep up; 0 is none.
    /// `None`: they are out of reach until what was lost is back.
    pub rpo_ms: Option<f64>,
    /// Every cluster.
    pub clusters: Vec<ClusterFate>,
    /// What happens, for people.
    pub summary: String,
}

/// The plan of a topology: how it is when all is well, and what each loss leaves.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// [`Loss::Nothing`] first.
    pub outcomes: Vec<Outcome>,
}

/// Looks at every loss.
pub(super) fn report(topology: &Topology) -> Report {
    let mut losses = Loss::all(&topology.file);
    // A region of one datacenter is that datacenter's line again.
    losses.retain(|loss| {
        !matches!(loss, Loss::Region(_)) || loss.damage(&topology.file).lost.len() > 1
    });
    let look = |loss| outcome(loss, &topology.file, &topology.clusters, &topology.distances);
    Report { outcomes: losses.into_iter().map(look).collect() }
}

/// Looks at one loss.
pub(super) fn outcome(
    loss: Loss,
    file: &TopologyFile,
    clusters: &[Cluster],
    distances: &Distances,
) -> Outcome {
    let damage = loss.damage(file);
    let estimates: Vec<_> = clusters.iter().map(|c| estimate(c, distances, &damage)).collect();
    let links = clusters.len().saturating_sub(1) as f64;
    let fates: Vec<ClusterFate> = clusters
        .iter()
        .zip(&estimates)
        .map(|(cluster, estimate)| ClusterFate {
            cluster: cluster.name.clone(),
            fate: estimate.fate,
            write: estimate.write,
            read: estimate.read,
            wan_copies: estimate.wan_copies + links,
        })
        .collect();
    let serving: Vec<&Cluster> = clusters
        .iter()
        .zip(&fates)
        .filter(|(_, f)| f.fate == Fate::Serves)
        .map(|(c, _)| c)
        .collect();
    let reachable = estimates.iter().all(|e| e.fate != Fate::Serves || e.reachable);
    let survived = match loss {
        Loss::Link(..) => serving.len() == clusters.len() && reachable,
        _ => !serving.is_empty(),
    };
    let rpo_ms = rpo_ms(clusters, &fates, &serving, distances);
    let out_of_reach = estimates.iter().any(|e| e.out_of_reach);
    let summary = summary(&loss, clusters, &fates, out_of_reach, reachable);
    Outcome { loss, survived, rpo_ms, clusters: fates, summary }
}

/// The lag of what no longer serves, towards the nearest cluster that does.
fn rpo_ms(
    clusters: &[Cluster],
    fates: &[ClusterFate],
    serving: &[&Cluster],
    distances: &Distances,
) -> Option<f64> {
    let mut rpo = 0.0f64;
    for (cluster, _) in clusters.iter().zip(fates).filter(|(_, f)| f.fate != Fate::Serves) {
        let lag = |to: &&Cluster| {
            // One way, a sync by the majority there, and what batching adds.
            let there = estimate(to, distances, &Damage::default()).write?;
            Some(
                distances.nearest(&cluster.datacenters, &to.datacenters) / 2.0
                    + there.min_ms.max(SYNC_MS)
                    + SHIP_MS,
            )
        };
        rpo = rpo.max(serving.iter().filter_map(lag).min_by(f64::total_cmp)?);
    }
    Some(rpo)
}

fn summary(
    loss: &Loss,
    clusters: &[Cluster],
    fates: &[ClusterFate],
    out_of_reach: bool,
    reachable: bool,
) -> String {
    let named = |fate: Fate| -> Vec<&str> {
        fates.iter().filter(|f| f.fate == fate).map(|f| f.cluster.as_str()).collect()
    };
    let mut parts = Vec::new();
    let serves = named(Fate::Serves);
    if !serves.is_empty() {
        parts.push(format!(
            "{} serve{}",
            serves.join(", "),
            if serves.len() == 1 { "s" } else { "" }
        ));
    }
    for (fate, text) in [
        (Fate::SomeGroupsStop, "keeps some groups and loses the majority of others"),
        (Fate::Stops, "stops until enough of it is back"),
        (Fate::Gone, "is gone"),
    ] {
        parts.extend(named(fate).iter().map(|name| format!("{name} {text}")));
    }
    if let Loss::Link(a, b) = loss {
        let held = |place: &String| -> BTreeSet<&str> {
            clusters
                .iter()
                .filter(|c| c.datacenters.contains(place))
                .map(|c| c.name.as_str())
                .collect()
        };
        if held(a).intersection(&held(b)).next().is_none() {
            parts.push("links over it wait and their lag grows until it heals".to_owned());
        }
    }
    match (out_of_reach, reachable) {
        (false, _) => {}
        (true, true) => parts.push(
            "groups led on one side are out of reach of clients on the other until their leaders \
             are moved to a third datacenter"
                .to_owned(),
        ),
        (true, false) => {
            parts.push("each side reaches only the groups that are led on it".to_owned())
        }
    }
    parts.join("; ")
}
