//! Whether the plan gives what the owner wants; a want that does not hold is refused.

use super::latency::{Damage, Distances, estimate};
use super::survival::{Fate, Loss, Outcome, outcome};
use crate::file::validate::Draft;
use crate::file::{Cluster, Problem};

/// Checks every want. Latencies are left out while round trip times are not known.
pub(super) fn check(
    draft: &Draft,
    clusters: &[Cluster],
    distances: &Distances,
    problems: &mut Vec<Problem>,
) {
    let outcomes: Vec<Outcome> = Loss::all(&draft.file)
        .into_iter()
        .map(|loss| outcome(loss, &draft.file, clusters, distances))
        .collect();
    survive(draft, clusters, &outcomes, problems);
    rpo(draft, clusters, &outcomes, problems);
    if draft.times_known {
        write_latency(draft, clusters, distances, problems);
    }
}

/// The losses that a word of `survive` means.
fn meant<'a>(word: &'a str, outcomes: &'a [Outcome]) -> impl Iterator<Item = &'a Outcome> {
    outcomes.iter().filter(move |outcome| match &outcome.loss {
        Loss::Nothing => false,
        Loss::Datacenter(name) => word == "datacenter" || word == name,
        Loss::Region(name) => word == "region" || word == name,
        Loss::Link(..) => word == "link",
    })
}

fn survive(draft: &Draft, clusters: &[Cluster], outcomes: &[Outcome], problems: &mut Vec<Problem>) {
    for (word, line) in draft.file.wants.survive.iter().zip(&draft.wants.survive) {
        for outcome in meant(word, outcomes).filter(|outcome| !outcome.survived) {
            problems.push(Problem {
                line: *line,
                message: format!(
                    "the loss of {} would not be survived as asked: {}",
                    outcome.loss, outcome.summary
                ),
                remedy: remedy(clusters, outcome).to_owned(),
            });
        }
    }
}

fn remedy(clusters: &[Cluster], outcome: &Outcome) -> &'static str {
    let fate_of = |cluster: &Cluster| {
        outcome.clusters.iter().find(|fate| fate.cluster == cluster.name).map(|fate| fate.fate)
    };
    let hurt = clusters.iter().find(|c| fate_of(c) != Some(Fate::Serves));
    match hurt.or(clusters.first()) {
        Some(c) if c.replicas == 1 && c.datacenters.len() > 1 => {
            "one replica does not survive its datacenter: use replicas = 3"
        }
        Some(c) if c.datacenters.len() == 2 => {
            "two datacenters cannot keep a majority when either is lost or they are cut apart: add \
             a third (a small one will do) to the cluster, or give each datacenter a cluster of \
             its own (mode = \"async\")"
        }
        _ => {
            "add a datacenter that does not fail with it, with a cluster of its own (mode = \
             \"async\"), or two to stretch over all three"
        }
    }
}

/// The rpo holds for the losses of places that are to be survived, or for each datacenter.
fn rpo(draft: &Draft, clusters: &[Cluster], outcomes: &[Outcome], problems: &mut Vec<Problem>) {
    let Some(wanted) = draft.file.wants.rpo else { return };
    // While times are not known only what needs none can be told: that nothing may be lost.
    if !draft.times_known && wanted.ms() > 0.0 {
        return;
    }
    let survive = &draft.file.wants.survive;
    let any = ["datacenter".to_owned()];
    let words = if survive.is_empty() { &any } else { survive.as_slice() };
    let asked: Vec<&Loss> =
        words.iter().flat_map(|word| meant(word, outcomes)).map(|o| &o.loss).collect();
    // What is not survived at all was told where that was asked for.
    let told = |outcome: &Outcome| !survive.is_empty() && !outcome.survived;
    let worst = outcomes
        .iter()
        .filter(|outcome| asked.contains(&&outcome.loss) && !told(outcome))
        .max_by(|a, b| lost_ms(a).total_cmp(&lost_ms(b)));
    let Some(worst) = worst.filter(|outcome| lost_ms(outcome) > wanted.ms()) else { return };
    let lost = match worst.rpo_ms {
        _ if !draft.times_known => "writes that were still on their way".to_owned(),
        Some(ms) => format!("about the last {ms:.1} ms of writes"),
        None => "whatever stood only there".to_owned(),
    };
    let linked = clusters.len() > 1;
    problems.push(Problem {
        line: draft.wants.rpo,
        message: format!(
            "an rpo of {wanted} does not hold: the loss of {} loses {lost}",
            worst.loss
        ),
        remedy: if linked && wanted.ms() > 0.0 {
            "links are asynchronous: allow more, or stretch one cluster over three datacenters"
        } else {
            "stretch one cluster with 3 replicas over three datacenters or more, or allow more"
        }
        .to_owned(),
    });
}

fn lost_ms(outcome: &Outcome) -> f64 {
    outcome.rpo_ms.unwrap_or(f64::INFINITY)
}

fn write_latency(
    draft: &Draft,
    clusters: &[Cluster],
    distances: &Distances,
    problems: &mut Vec<Problem>,
) {
    let Some(wanted) = draft.file.wants.write_latency else { return };
    for cluster in clusters {
        let Some(write) = estimate(cluster, distances, &Damage::default()).write else { continue };
        if write.max_ms > wanted.ms() {
            let wide = cluster.datacenters.len() > 1;
            problems.push(Problem {
                line: draft.wants.write_latency,
                message: format!(
                    "a write_latency of {wanted} does not hold: writes in cluster {} take up to \
                     {:.1} ms",
                    cluster.name, write.max_ms
                ),
                remedy: if wide {
                    "give each datacenter a cluster of its own (mode = \"async\"), choose nearer \
                     datacenters, or allow more"
                } else {
                    "a synced majority inside a datacenter takes about that: allow more"
                }
                .to_owned(),
            });
        }
    }
}
