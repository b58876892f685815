//! `local_never_waits`: no remote cluster, link or syncer can slow or stop local writes.
//!
//! Measured: the 99th percentile of what clients wait for in each cluster, while the WAN is whole
//! and while it is cut in both directions, round after round. The median of the ratios counts, so
//! that one hiccup of the machine decides nothing.

use super::Report;
use super::trial::{Settings, Trial};
use super::world::{self, World};
use crate::checkers::Violation;
use crate::workload::Latency;
use std::collections::BTreeMap;
use std::time::Duration;

const INVARIANT: &str = "local_never_waits";

/// What to measure.
#[derive(Debug, Clone)]
pub struct Cuts {
    /// How often the WAN is cut.
    pub rounds: usize,
    /// How long it is cut, and how long it is measured whole before.
    pub duration: Duration,
    /// How many times as long clients may wait meanwhile.
    pub ratio_max: f64,
}

impl Default for Cuts {
    fn default() -> Self {
        Cuts { rounds: 3, duration: Duration::from_secs(60), ratio_max: 1.5 }
    }
}

/// Cuts the WAN between all clusters again and again under load, and checks everything in the end.
/// Only for worlds whose clusters do not span datacenters: others must wait for the WAN.
pub async fn local_never_waits(
    world: &dyn World,
    seed: u64,
    cuts: &Cuts,
    settings: &Settings,
) -> Report {
    let mut trial = Trial::begin(world, "local-never-waits", seed, settings).await;
    let datacenters = world::datacenters(&world.members());
    let mut ratios: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for round in 1..=cuts.rounds {
        let whole = measure(&trial, cuts.duration).await;
        for from in &datacenters {
            for to in datacenters.iter().filter(|to| *to != from) {
                trial.done(world.cut(from, to));
            }
        }
        let cut = measure(&trial, cuts.duration).await;
        trial.done(world.heal());
        for (cluster, whole) in whole {
            let Some(cut) = cut.get(&cluster) else { continue };
            // Without an answer for the whole time the wait was at least that time.
            let waited = if cut.operations == 0 { cuts.duration } else { cut.p99 };
            let ratio = waited.as_secs_f64() / whole.p99.as_secs_f64().max(1e-6);
            trial.tell(format!(
                "round {round}, {cluster}: p99 {:.2?} of {} operations while whole, {:.2?} of {} \
                 while cut, ratio {ratio:.2}",
                whole.p99, whole.operations, cut.p99, cut.operations
            ));
            ratios.entry(cluster).or_default().push(ratio);
        }
        // The backlog must be gone before the next round measures what is usual.
        trial.settle().await;
    }
    for (cluster, mut ratios) in ratios {
        ratios.sort_by(f64::total_cmp);
        let median = ratios[ratios.len() / 2];
        if median > cuts.ratio_max {
            let what = format!(
                "{cluster} waits {median:.2} times as long while the WAN is cut, more than {}",
                cuts.ratio_max
            );
            trial.violation(Violation { invariant: INVARIANT, what });
        }
    }
    trial.finish().await
}

async fn measure(trial: &Trial<'_>, duration: Duration) -> BTreeMap<String, Latency> {
    trial.take_latency();
    tokio::time::sleep(duration).await;
    trial.take_latency()
}
