//! Which mode, and why: one sentence that a person can disagree with.

use super::latency::{Damage, Distances, estimate};
use super::wants;
use crate::election::NEAR_RTT_MS;
use crate::file::validate::Draft;
use crate::file::{
    CLUSTER_DATACENTERS_MAX, Cluster, Mode, Problem, REPLICAS_DEFAULT, TopologyFile,
};
use crate::ids::ClusterId;

/// What was selected.
pub(super) struct Selected {
    pub mode: Mode,
    pub why: String,
    pub clusters: Vec<Cluster>,
}

/// The mode that the listed clusters have; a declared one must be the same.
pub(super) fn by_clusters(
    file: &TopologyFile,
    mode_line: usize,
    problems: &mut Vec<Problem>,
) -> Selected {
    let clusters = file.clusters.clone();
    let wide = clusters.iter().find(|cluster| cluster.datacenters.len() > 1);
    let (shape, why) = match (wide, clusters.len()) {
        (None, 1) => {
            let why = "one cluster in one datacenter has nothing to stretch over and nobody to \
                       link to";
            (Mode::Async, why.to_owned())
        }
        (None, n) => (Mode::Async, format!("each of the {n} clusters stands in one datacenter")),
        (Some(wide), 1) => {
            let n = wide.datacenters.len();
            (Mode::Stretched, format!("the one cluster spans {n} datacenters"))
        }
        (Some(wide), n) => {
            (Mode::Mixed, format!("there are {n} clusters, and {} spans datacenters", wide.name))
        }
    };
    // A plain cluster is both: stretched over one datacenter and linked to nobody.
    let plain = wide.is_none() && clusters.len() == 1;
    let mode = match file.mode {
        Some(mode) if plain && mode != Mode::Mixed => mode,
        Some(mode) if mode != shape => {
            problems.push(Problem {
                line: mode_line,
                message: format!("the mode is {mode} and the clusters are {shape}: {why}"),
                remedy: remedy(mode).to_owned(),
            });
            shape
        }
        _ => shape,
    };
    let why = match file.mode {
        Some(_) => format!("the file says so, and {why}"),
        None => why,
    };
    Selected { mode, why, clusters }
}

fn remedy(mode: Mode) -> &'static str {
    match mode {
        Mode::Async => "give each datacenter a cluster of its own, or leave mode out",
        Mode::Stretched => "list one cluster with all datacenters, or leave mode out",
        Mode::Mixed => "leave mode out",
    }
}

/// The clusters that the declared mode means.
pub(super) fn by_mode(
    file: &TopologyFile,
    mode: Mode,
    mode_line: usize,
    problems: &mut Vec<Problem>,
) -> Option<Selected> {
    let mut refuse = |message: String, remedy: &str| {
        problems.push(Problem { line: mode_line, message, remedy: remedy.to_owned() });
        None
    };
    if mode == Mode::Mixed {
        let remedy = "list the clusters, or write \"async\" or \"stretched\"";
        return refuse("a mixed topology does not follow from its datacenters".into(), remedy);
    }
    let n = file.datacenters.len();
    if mode == Mode::Stretched && n > CLUSTER_DATACENTERS_MAX {
        let message =
            format!("{n} datacenters are more than the {CLUSTER_DATACENTERS_MAX} of one cluster");
        return refuse(message, "list several clusters and leave mode out");
    }
    Some(Selected { mode, why: "the file says so".to_owned(), clusters: clusters(file, mode) })
}

/// Stretched where that loses nothing at a bearable price, else async; the other one where only
/// that holds.
pub(super) fn by_wants(draft: &Draft, distances: &Distances) -> Selected {
    let file = &draft.file;
    let (mode, why) = weigh(file, distances);
    let selected = Selected { mode, why, clusters: clusters(file, mode) };
    let Some(problem) = first_problem(draft, &selected.clusters, distances) else {
        return selected;
    };
    let n = file.datacenters.len();
    let other = match mode {
        Mode::Stretched => Mode::Async,
        _ if (3..=CLUSTER_DATACENTERS_MAX).contains(&n) => Mode::Stretched,
        _ => return selected,
    };
    let clusters = clusters(file, other);
    if first_problem(draft, &clusters, distances).is_some() {
        return selected;
    }
    Selected { mode: other, why: format!("{mode} would not do, because {problem}"), clusters }
}

fn first_problem(draft: &Draft, clusters: &[Cluster], distances: &Distances) -> Option<String> {
    let mut problems = Vec::new();
    wants::check(draft, clusters, distances, &mut problems);
    problems.into_iter().next().map(|problem| problem.message)
}

fn weigh(file: &TopologyFile, distances: &Distances) -> (Mode, String) {
    let n = file.datacenters.len();
    if n == 1 {
        let why = "one datacenter has nothing to stretch over and nobody to link to";
        return (Mode::Async, why.to_owned());
    }
    if n == 2 {
        let why = "one cluster over two datacenters would stop with either of them, while linked \
                   clusters serve alone";
        return (Mode::Async, why.to_owned());
    }
    if n > CLUSTER_DATACENTERS_MAX {
        let why =
            format!("{n} datacenters are more than the {CLUSTER_DATACENTERS_MAX} of one cluster");
        return (Mode::Async, why);
    }
    let stretched = clusters(file, Mode::Stretched);
    let names = &stretched[0].datacenters;
    let apart = distances.farthest(names, names);
    let write = estimate(&stretched[0], distances, &Damage::default()).write;
    let write = write.map_or(0.0, |range| range.max_ms);
    let rpo = file.wants.rpo.map(|rpo| rpo.ms());
    match file.wants.write_latency {
        _ if rpo == Some(0.0) => {
            let why = format!(
                "an rpo of 0 is asked for, which only a majority over {n} datacenters gives"
            );
            (Mode::Stretched, why)
        }
        Some(limit) if write > limit.ms() => {
            let why = format!(
                "a stretched write would take up to {write:.1} ms, and {limit} is asked for"
            );
            (Mode::Async, why)
        }
        Some(limit) => {
            let why = format!(
                "it loses nothing, and its writes of up to {write:.1} ms are within {limit}"
            );
            (Mode::Stretched, why)
        }
        None if apart <= NEAR_RTT_MS => {
            let why = format!(
                "the datacenters are at most {apart:.1} ms apart, so that losing nothing costs \
                 little"
            );
            (Mode::Stretched, why)
        }
        None => {
            let why = format!(
                "the datacenters are up to {apart:.1} ms apart, a stretched write would take up to \
                 {write:.1} ms, and an rpo of 0 is not asked for"
            );
            (Mode::Async, why)
        }
    }
}

/// The clusters of a mode over all datacenters.
fn clusters(file: &TopologyFile, mode: Mode) -> Vec<Cluster> {
    let cluster = |id: u8, name: &str, datacenters: Vec<String>| Cluster {
        id: ClusterId(id),
        name: name.to_owned(),
        datacenters,
        pd: Vec::new(),
        syncers: Vec::new(),
        replicas: REPLICAS_DEFAULT,
    };
    let names = file.datacenters.iter().map(|datacenter| datacenter.name.clone());
    match mode {
        Mode::Stretched => vec![cluster(1, "main", names.collect())],
        _ => (1..).zip(names).map(|(id, name)| cluster(id, &name.clone(), vec![name])).collect(),
    }
}
