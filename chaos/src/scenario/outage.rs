//! A cluster that is away: within the backlog budget, where the logs bring it back, and beyond it,
//! where the others forget their logs and its state is merged.

use super::Report;
use super::meters::{LOG_DISK, LOGGED_BYTES, MERGED_BYTES, MERGED_ROWS, Meters, SHIPPED_BYTES};
use super::trial::{Settings, Trial};
use super::world::{self, LinkView, World};
use crate::checkers::Violation;
use crate::resp::Value;
use crate::workload::text;
use flotilla_topology::api::LinkState;
use flotilla_topology::ids::Role;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use std::time::{Duration, Instant};

const BUDGET: &str = "backlog_budget";
const NO_RESURRECTION: &str = "no_resurrection";
/// Pause between two looks at links and metrics.
const PERIOD: Duration = Duration::from_millis(200);
/// Deleted keys that are looked for at a time while a cluster comes back.
const LOOKS: u64 = 200;
/// What each living cluster writes for a group whose budget is an age: logs are purged in steps of
/// this order, and syncers hold some tens of mebibytes for a peer.
const AGED_BYTES: u64 = 24 << 20;
/// Written so many times beyond the budget, disks have no reason to grow any more.
const LEVEL_FROM: f64 = 2.0;
/// How much the later half of the samples may be above the earlier half: files of the log are
/// recycled, those of the data compacted, both in steps of tens of mebibytes.
const GROWTH_MAX: f64 = 1.25;
const GROWTH_STEP: u64 = 128 << 20;
/// Fewer samples in a half say nothing.
const HALF_MIN: usize = 3;
const MIB: f64 = (1 << 20) as f64;

/// How much is written beyond a budget.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Overrun {
    /// Keys that are overwritten again and again.
    pub keys: u64,
    /// Size of their values.
    pub value_bytes: usize,
    /// Keys that are deleted meanwhile.
    pub deletes: u64,
    /// How many times the budget is written.
    pub times: f64,
    /// How long the cut lasts at least.
    pub hold: Duration,
}

impl Default for Overrun {
    /// Just enough that the logs must go.
    fn default() -> Self {
        let (keys, value_bytes, deletes) = (1000, 32 << 10, 1000);
        Overrun { keys, value_bytes, deletes, times: 1.5, hold: Duration::ZERO }
    }
}

/// One look at the living while they overwrite.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sample {
    /// Payload written so far.
    written: u64,
    /// The largest log on disk of any node.
    log: u64,
    /// The largest data directory of any node.
    data: u64,
}

/// Cuts one cluster off from all others for so long, under load everywhere, within the budget: the
/// logs must bring it back, without any merge.
pub async fn outage(world: &dyn World, seed: u64, cut: Duration, settings: &Settings) -> Report {
    let mut dice = SmallRng::seed_from_u64(seed);
    let mut trial = Trial::begin(world, "outage", seed, settings).await;
    let clusters = trial.clusters();
    let Some(victim) = clusters.choose(&mut dice).cloned() else { return trial.finish().await };
    let syncers = world::of_role(&world.members(), Role::Syncer, &clusters);
    let mut meters = Meters::new(world.census()).await;
    let counted = |meters: &Meters| {
        [MERGED_BYTES, MERGED_ROWS, SHIPPED_BYTES].map(|name| meters.total(name, &syncers))
    };
    let (before, writes) = (counted(&meters), trial.writes());
    let around = world::around(&world.members(), &victim);
    trial.tell(format!("cut {victim} off for {cut:?}"));
    for (from, to) in &around {
        trial.done(world.cut(from, to));
    }
    let (until, mut backlog) = (Instant::now() + cut, 0);
    while Instant::now() < until && trial.is_sound() {
        trial.more_writes(&clusters, 1).await;
        let links = world.links().await;
        backlog = links.iter().map(|link| link.backlog).max().unwrap_or_default().max(backlog);
        tokio::time::sleep(PERIOD).await;
    }
    trial.tell(format!(
        "heal after {} writes meanwhile, {:.1} MiB waited on one link as told",
        trial.writes() - writes,
        backlog as f64 / MIB
    ));
    trial.done(world.heal());
    let (healed, mut merging) = (Instant::now(), None);
    loop {
        let links = world.links().await;
        if are_live(&links, clusters.len()) {
            break;
        }
        if healed.elapsed() > trial.settings.settle {
            let after = healed.elapsed();
            trial.violated(format!("not live {after:.1?} after the cut: {links:?}"));
            break;
        }
        merging = merging.or_else(|| links.into_iter().find(LinkView::merges));
        tokio::time::sleep(PERIOD).await;
    }
    trial.tell(format!("all links are live {:.1?} after the cut", healed.elapsed()));
    meters.look().await;
    let after = counted(&meters);
    let [bytes, rows, shipped] = [0, 1, 2].map(|n| after[n] - before[n]);
    trial.tell(format!(
        "{:.1} MiB of logs travelled, {bytes} bytes and {rows} rows of full state",
        shipped as f64 / MIB
    ));
    if let Some(link) = merging {
        trial.over_budget(format!("within the budget, {} -> {} merges", link.from, link.to));
    }
    if bytes + rows > 0 {
        trial.over_budget(format!("within the budget, {rows} rows and {bytes} bytes were merged"));
    }
    trial.more_writes(&clusters, trial.settings.writes).await;
    trial.finish().await
}

/// Cuts one cluster off until its budget is exceeded, under load: the others' disks must stop
/// growing, its state is merged when it is back, and nothing deleted comes back.
pub async fn overrun(world: &dyn World, seed: u64, size: &Overrun, settings: &Settings) -> Report {
    let mut dice = SmallRng::seed_from_u64(seed);
    let mut trial = Trial::begin(world, "overrun", seed, settings).await;
    trial.strike_overrun(size, &mut dice).await;
    trial.finish().await
}

/// Whether the links between so many clusters are all live.
fn are_live(links: &[LinkView], clusters: usize) -> bool {
    let live = links.iter().filter(|link| link.is_all(LinkState::Live));
    live.count() == clusters * (clusters - 1)
}

/// What one outage beyond the budget is about.
pub(super) struct Away {
    pub(super) victim: String,
    pub(super) living: Vec<String>,
    /// Start of the names of its keys.
    prefix: String,
    nodes: Vec<String>,
    syncers: Vec<String>,
    pub(super) size: Overrun,
}

impl Away {
    fn doomed(&self, number: u64) -> String {
        format!("{}:doomed:{number}", self.prefix)
    }
}

impl Trial<'_> {
    fn over_budget(&mut self, what: String) {
        self.violation(Violation { invariant: BUDGET, what });
    }

    /// See [`overrun`].
    pub(super) async fn strike_overrun(&mut self, size: &Overrun, dice: &mut SmallRng) {
        let clusters = self.clusters();
        let Some(budget) = self.world.backlog() else {
            return self.violated("no small backlog budget: give --backlog-budget".to_owned());
        };
        let Some(victim) = clusters.choose(dice).cloned() else { return };
        let living: Vec<String> = clusters.into_iter().filter(|one| *one != victim).collect();
        let members = self.world.members();
        let away = Away {
            prefix: format!("away:{}:{}", self.mark, self.began.elapsed().as_micros()),
            nodes: world::of_role(&members, Role::Node, &living),
            syncers: world::of_role(&members, Role::Syncer, std::slice::from_ref(&victim)),
            victim,
            living,
            size: *size,
        };
        self.write_doomed(&away).await;
        let mut meters = Meters::new(self.world.census()).await;
        let merged = meters.total(MERGED_ROWS, &away.syncers);
        self.tell(format!("cut {} off", away.victim));
        for (from, to) in world::around(&members, &away.victim) {
            self.done(self.world.cut(&from, &to));
        }
        let cut = Instant::now();
        self.delete_doomed(&away).await;
        // So long that most of what was written since the cut is too old.
        let aged = budget.age < Duration::from_secs(600);
        let (bytes, hold) = match aged {
            true => (AGED_BYTES * away.living.len() as u64, size.hold.max(4 * budget.age)),
            false => (budget.bytes, size.hold),
        };
        let enough = (bytes as f64 * budget.groups as f64 * size.times) as u64;
        let samples = self.overwrite(&away, &mut meters, (enough, cut + hold)).await;
        self.judge_growth(&samples, bytes * budget.groups);
        let together = self.world.fences_together() && away.living.len() > 1;
        if together {
            self.await_given_up(&away).await;
        }
        self.tell(format!("heal, {:.1?} after the cut", cut.elapsed()));
        self.done(self.world.heal());
        let gate = self.gates[&away.victim].clone();
        let shut = if together { Some(gate.shut().await) } else { None };
        if together {
            self.begin_another_life(&away).await;
        }
        let back = self.await_return(&away).await;
        drop(shut);
        meters.look().await;
        let rows = meters.total(MERGED_ROWS, &away.syncers) - merged;
        self.tell(format!("{rows} rows of full state have come to {}", away.victim));
        if rows == 0 && !meters.is_blind() {
            let written = samples.last().map_or(0, |sample| sample.written) as f64 / MIB;
            self.over_budget(format!("no merge was needed after {written:.0} MiB beyond the cut"));
        }
        // What has not arrived is no resurrection.
        for place in if back { self.clusters() } else { away.living.clone() } {
            self.look_for_doomed(&away, &place, 0..size.deletes).await;
        }
        self.more_writes(&self.clusters(), self.settings.writes).await;
    }

    async fn write_doomed(&mut self, away: &Away) {
        let clusters = self.clusters();
        let share = away.size.deletes.div_ceil(clusters.len() as u64);
        for (place, cluster) in (0..).zip(&clusters) {
            let numbers = place * share..away.size.deletes.min((place + 1) * share);
            let set = |number| vec!["SET".to_owned(), away.doomed(number), "v".to_owned()];
            let written = self.bulk(cluster).write(numbers, set).await;
            self.done(written.map_err(anyhow::Error::msg));
        }
        self.await_crossing(&clusters, self.settings.patience).await;
        self.tell(format!("{} keys that will be deleted are everywhere", away.size.deletes));
    }

    /// The living delete them, each its part, and see them gone.
    async fn delete_doomed(&mut self, away: &Away) {
        let share = away.size.deletes.div_ceil(away.living.len() as u64);
        for (place, cluster) in (0..).zip(&away.living) {
            let numbers = place * share..away.size.deletes.min((place + 1) * share);
            let del = |number| vec!["DEL".to_owned(), away.doomed(number)];
            let deleted = self.bulk(cluster).write(numbers, del).await;
            self.done(deleted.map_err(anyhow::Error::msg));
        }
        self.await_crossing(&away.living, self.settings.patience).await;
        self.tell(format!("{} keys are deleted in {}", away.size.deletes, away.living.join(", ")));
        for place in &away.living {
            self.look_for_doomed(away, place, 0..away.size.deletes).await;
        }
    }

    async fn look_for_doomed(&mut self, away: &Away, place: &str, numbers: std::ops::Range<u64>) {
        let judge = |number: u64, reply: &Value| {
            let found = reply.text()?;
            let (key, victim) = (away.doomed(number), &away.victim);
            Some(format!("{key}: {place} reads `{found}`, deleted while {victim} was away"))
        };
        let get = |number| vec!["GET".to_owned(), away.doomed(number)];
        match self.bulk(place).each(numbers, get, judge).await {
            Ok(back) => {
                for what in back {
                    self.violation(Violation { invariant: NO_RESURRECTION, what });
                }
            }
            Err(why) => self.violated(format!("{place}: {why}")),
        }
    }

    /// The living overwrite the same keys until so much is written and it is so late.
    async fn overwrite(
        &mut self,
        away: &Away,
        meters: &mut Meters,
        (enough, late): (u64, Instant),
    ) -> Vec<Sample> {
        let size = away.size;
        let mut samples: Vec<Sample> = Vec::new();
        let (mut written, logged) = (0, meters.total(LOGGED_BYTES, &away.nodes));
        while (written < enough || Instant::now() < late) && self.is_sound() {
            let share = size.keys.div_ceil(away.living.len() as u64);
            let writes = (0u64..).zip(&away.living).map(|(place, cluster)| {
                let bulk = self.bulk(cluster).sized(size.value_bytes);
                let numbers = place * share..size.keys.min((place + 1) * share);
                let set = move |number| {
                    let value = text(written.wrapping_add(number), size.value_bytes);
                    vec!["SET".to_owned(), format!("{}:over:{number}", away.prefix), value]
                };
                async move { bulk.write(numbers, set).await }
            });
            for result in futures::future::join_all(writes).await {
                self.done(result.map_err(anyhow::Error::msg));
            }
            written += size.keys * size.value_bytes as u64;
            meters.look().await;
            let log = meters.most(LOG_DISK, &away.nodes);
            samples.push(Sample { written, log, data: meters.largest_data(&away.nodes) });
        }
        let logged = meters.total(LOGGED_BYTES, &away.nodes) - logged;
        if let Some(last) = samples.last() {
            self.tell(format!(
                "{:.0} MiB overwritten in {} rounds; {:.0} MiB went into the logs of {} nodes, of \
                 which {:.0} are left on one at most; its data directory takes {:.0}",
                written as f64 / MIB,
                samples.len(),
                logged as f64 / MIB,
                away.nodes.len(),
                last.log as f64 / MIB,
                last.data as f64 / MIB
            ));
        }
        samples
    }

    /// Beyond the budget neither logs nor data may go on growing.
    fn judge_growth(&mut self, samples: &[Sample], budget: u64) {
        let from = (budget as f64 * LEVEL_FROM) as u64;
        let level: Vec<&Sample> = samples.iter().filter(|sample| sample.written >= from).collect();
        let (early, late) = level.split_at(level.len() / 2);
        if early.len() < HALF_MIN {
            return self.tell("too few samples beyond the budget to tell whether disks grow");
        }
        type Of = fn(&Sample) -> u64;
        for (what, of) in [("log", (|one| one.log) as Of), ("data", |one| one.data)] {
            let most = |half: &[&Sample]| half.iter().map(|one| of(one)).max().unwrap_or_default();
            let (early, late) = (most(early), most(late));
            self.tell(format!(
                "{what} on disk: {:.0} MiB at most in the earlier half beyond {LEVEL_FROM} times the \
                 budget, {:.0} in the later one",
                early as f64 / MIB,
                late as f64 / MIB
            ));
            if late as f64 > early as f64 * GROWTH_MAX + GROWTH_STEP as f64 {
                self.over_budget(format!("{what} grows on from {early} to {late} bytes"));
            }
        }
    }

    /// Waits until all links are live, and looks meanwhile for what was deleted. False, with a
    /// violation, if they do not become live.
    async fn await_return(&mut self, away: &Away) -> bool {
        let (healed, mut merged, mut first) = (Instant::now(), false, 0);
        loop {
            let links = self.world.links().await;
            if are_live(&links, away.living.len() + 1) {
                break;
            }
            merged |= links.iter().any(LinkView::merges);
            self.supervise(away).await;
            for place in &away.living {
                let last = away.size.deletes.min(first + LOOKS);
                self.look_for_doomed(away, place, first..last).await;
            }
            first = if first + LOOKS < away.size.deletes { first + LOOKS } else { 0 };
            if healed.elapsed() > self.settings.settle {
                let after = healed.elapsed();
                self.violated(format!("not live {after:.1?} after the cut: {links:?}"));
                return false;
            }
            if !self.is_sound() {
                return false;
            }
            tokio::time::sleep(PERIOD).await;
        }
        let seen = if merged { "a merge was told" } else { "no merge was told" };
        self.tell(format!("all links are live {:.1?} after the cut, {seen}", healed.elapsed()));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{FakeWorld, quick};
    use super::*;

    async fn judged(samples: &[Sample]) -> Vec<String> {
        let world = FakeWorld::new(true).await;
        let mut trial = Trial::idle(&world, "by-hand", 1, &quick()).await;
        trial.judge_growth(samples, 100);
        trial.report.violations.into_iter().map(|one| one.what).collect()
    }

    #[tokio::test]
    async fn disks_that_grow_beyond_the_budget_are_told() {
        let grows = |step: u64| {
            let sample = move |n: u64| Sample { written: n * 50, log: n * step, data: 1 << 30 };
            (0..16).map(sample).collect::<Vec<_>>()
        };
        assert_eq!(judged(&grows(1 << 20)).await, Vec::<String>::new(), "within a step");
        let told = judged(&grows(64 << 20)).await;
        assert!(told.len() == 1 && told[0].starts_with("log grows on from"), "{told:?}");
        // Growth up to the budget is what it is there for.
        assert_eq!(judged(&grows(64 << 20)[..4]).await, Vec::<String>::new());
    }
}
