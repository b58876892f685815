//! How fast another syncer takes over from one that was killed, under load.

use super::Report;
use super::trial::{Settings, Trial};
use super::world::{self, World};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use std::time::{Duration, Instant};

/// Pause between two looks whether a syncer has got its part.
const PERIOD: Duration = Duration::from_millis(100);

/// Kills one of the syncers of a cluster that has several, again and again, restarting it after
/// each time. The story ends with the times until writes were seen again.
pub async fn syncer_takeover(
    world: &dyn World,
    seed: u64,
    rounds: usize,
    settings: &Settings,
) -> Report {
    let mut dice = SmallRng::seed_from_u64(seed);
    let mut trial = Trial::begin(world, "syncer-takeover", seed, settings).await;
    let clusters = world::syncers(&world.members()).into_iter();
    let clusters: Vec<(String, Vec<String>)> =
        clusters.filter(|(_, syncers)| syncers.len() > 1).collect();
    let mut times = Vec::new();
    for round in 1..=rounds {
        let Some((cluster, syncers)) = clusters.choose(&mut dice) else {
            trial.violated("no cluster has two syncers: give --syncers 2".to_owned());
            break;
        };
        let Some(victim) = syncers.choose(&mut dice) else { break };
        trial.tell(format!("round {round}"));
        await_part(&mut trial, victim).await;
        if let Some(took) = trial.take_over(cluster, victim).await {
            times.push(took);
        }
        trial.restart(victim).await;
        // What is not whole again would be measured in the next round.
        trial.settle().await;
        if !trial.is_sound() {
            break;
        }
    }
    let (out, back): (Vec<Duration>, Vec<Duration>) = times.into_iter().unzip();
    for (what, mut times) in [("to others", out), ("from others", back)] {
        trial.tell(format!("takeover {what}: {}", summary(&mut times, "rounds")));
    }
    trial.finish().await
}

/// A syncer that carries nothing is missed by nobody: waits until PD has given it a part.
async fn await_part(trial: &mut Trial<'_>, syncer: &str) {
    let patience = trial.settings.patience;
    let deadline = Instant::now() + patience;
    while !matches!(trial.world.carried(syncer).await, Ok(1..)) {
        if Instant::now() > deadline {
            return trial.violated(format!("{syncer} was given no group within {patience:?}"));
        }
        tokio::time::sleep(PERIOD).await;
    }
    trial.settle().await;
}

/// Median and worst of the times of so many `what`.
pub(super) fn summary(times: &mut [Duration], what: &str) -> String {
    times.sort();
    match (times.get(times.len() / 2), times.last()) {
        (Some(median), Some(worst)) => {
            format!("median {median:.2?}, worst {worst:.2?} of {} {what}", times.len())
        }
        _ => "not measured".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_and_the_worst_are_told() {
        let mut times: Vec<Duration> = [5, 1, 3].into_iter().map(Duration::from_secs).collect();
        assert_eq!(summary(&mut times, "rounds"), "median 3.00s, worst 5.00s of 3 rounds");
        assert_eq!(summary(&mut [], "rounds"), "not measured");
    }
}
