//! `failover` and `drain`: how long groups take no writes when a node that leads them is killed, or
//! told to leave.
//!
//! In each round a node goes, and all its groups with it, to others. A client for each group writes
//! through a node that stays (`Pulses`), so what it sees is the silence of the group. Everything that
//! was acknowledged must be there in the end, and be linearizable.

use super::Report;
use super::takeover::summary;
use super::trial::{Settings, Trial};
use super::world::{GroupView, World};
use crate::checkers::Violation;
use crate::workload::Pulses;
use flotilla_topology::ids::Role;
use flotilla_topology::slot::SlotRange;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Writes of each group before a node goes, and those that show that a group serves again.
const WRITES: usize = 50;
/// How long it is looked on before a node goes: what is usual.
const USUAL: Duration = Duration::from_secs(1);
/// How long groups must have been led by whom PD wants before they count as spread; nodes tell PD twice
/// a second who leads.
const SPREAD_FOR: Duration = Duration::from_millis(1200);
const SPREAD_PERIOD: Duration = Duration::from_millis(100);

/// How a node goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leave {
    /// kill -9: others must notice, and elect.
    Killed,
    /// SIGTERM: it hands its groups over first.
    Told,
}

impl Leave {
    /// The scenario's word on the command line; also that of what it promises.
    pub fn name(self) -> &'static str {
        match self {
            Leave::Killed => "failover",
            Leave::Told => "drain",
        }
    }

    /// How long a group may be without an acknowledged write.
    fn gap_max(self) -> Duration {
        match self {
            Leave::Killed => Duration::from_millis(1500),
            Leave::Told => Duration::from_millis(50),
        }
    }

    fn signal(self) -> &'static str {
        match self {
            Leave::Killed => "kill -9",
            Leave::Told => "SIGTERM",
        }
    }
}

/// The longest silence of a group as a node went.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Gap {
    length: Duration,
    group: String,
    /// Whether the node that went led it.
    led: bool,
}

/// The longest silences of one round.
struct Round {
    /// Of each group that counts: those that the killed node led, and all when it was told to leave.
    gone: Vec<Gap>,
    /// Of any group, while nothing happened before.
    usual: Duration,
    /// Of any group, as the node came back and was given its groups again.
    back: Duration,
}

/// Lets nodes go and come back, so many times, under load.
pub async fn leave(
    world: &dyn World,
    seed: u64,
    how: Leave,
    rounds: usize,
    settings: &Settings,
) -> Report {
    let mut dice = SmallRng::seed_from_u64(seed);
    let mut trial = Trial::begin(world, how.name(), seed, settings).await;
    let Some(cluster) = &trial.cluster_of_three() else { return trial.finish().await };
    let mut pulses = Pulses::new(format!("pulse:{}", trial.mark));
    let mut all = Vec::new();
    for round in 1..=rounds {
        trial.tell(format!("round {round}"));
        all.extend(trial.leave_once(how, cluster, &mut pulses, &mut dice).await);
        if !trial.is_sound() {
            break;
        }
    }
    trial.judge(how, &all);
    let ran = pulses.stop().await;
    trial.tell(format!("clients of the groups: {:?}", ran.counts));
    trial.check_history(cluster, &ran).await;
    trial.finish().await
}

/// Those that lead most groups.
fn leaders(groups: &[GroupView]) -> Vec<String> {
    let mut led: BTreeMap<&String, usize> = BTreeMap::new();
    for leader in groups.iter().filter_map(|group| group.leader.as_ref()) {
        *led.entry(leader).or_default() += 1;
    }
    let most = led.values().max().copied();
    led.into_iter().filter(|(_, one)| Some(*one) == most).map(|(name, _)| name.clone()).collect()
}

fn ms(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1e3)
}

impl Trial<'_> {
    /// One node goes and comes back. Nothing when that could not be measured, which is a violation.
    async fn leave_once(
        &mut self,
        how: Leave,
        cluster: &str,
        pulses: &mut Pulses,
        dice: &mut SmallRng,
    ) -> Option<Round> {
        let views = self.await_spread(cluster).await?;
        let victim = leaders(&views).choose(dice)?.clone();
        let groups: Vec<(String, SlotRange)> =
            views.iter().map(|group| (group.name.clone(), group.slots)).collect();
        pulses.start(&groups, &self.others(cluster, &victim)).await;
        self.beats(pulses, &groups, WRITES).await?;
        let before = pulses.now();
        tokio::time::sleep(USUAL).await;
        let (left, since) = (pulses.now(), Instant::now());
        let gone = match how {
            Leave::Killed => self.world.kill(&victim).await,
            Leave::Told => self.world.terminate(&victim).await,
        };
        self.done(gone);
        let took = since.elapsed();
        self.beats(pulses, &groups, WRITES).await?;
        tokio::time::sleep(self.settings.fault.saturating_sub(since.elapsed())).await;
        let (seen, upto) = (pulses.beats(), pulses.now());
        let gap = |group: &GroupView| Gap {
            length: seen.longest_gap(&group.name, left, upto),
            group: group.name.clone(),
            led: group.leader.as_ref() == Some(&victim),
        };
        let all: Vec<Gap> = views.iter().map(gap).collect();
        let usual = seen.until(left).worst(before, left)?.0;
        let (led, others): (Vec<Gap>, Vec<Gap>) = all.into_iter().partition(|gap| gap.led);
        let longest = |gaps: &[Gap]| match gaps.iter().max() {
            Some(gap) => format!("{} (group {})", ms(gap.length), gap.group),
            None => "not measured".to_owned(),
        };
        self.tell(format!(
            "{} {victim}, which led {} of {} groups: gone after {}, its groups at most {} without an \
             acknowledged write, others {}; any in the second before: {}",
            how.signal(),
            led.len(),
            views.len(),
            ms(took),
            longest(&led),
            longest(&others),
            ms(usual)
        ));
        let gone = match how {
            Leave::Killed => led,
            Leave::Told => led.into_iter().chain(others).collect(),
        };
        let restarted = pulses.now();
        self.restart(&victim).await;
        self.await_spread(cluster).await?;
        let (back, whose) = pulses.beats().worst(restarted, pulses.now())?;
        self.tell(format!("whole and spread again, at most {} (group {whose})", ms(back)));
        pulses.rest().await;
        Some(Round { gone, usual, back })
    }

    /// `host:port` of the nodes of a cluster that stay.
    fn others(&self, cluster: &str, victim: &str) -> Vec<String> {
        let members = self.world.members().into_iter();
        let stay = members
            .filter(|one| one.cluster == cluster && one.role == Role::Node && one.name != victim);
        stay.filter_map(|one| one.resp).collect()
    }

    /// Every group must take so many more writes.
    pub(super) async fn beats(
        &mut self,
        pulses: &Pulses,
        groups: &[(String, SlotRange)],
        writes: usize,
    ) -> Option<()> {
        let patience = self.settings.patience;
        match pulses.more(groups, writes, patience).await {
            Ok(()) => Some(()),
            Err(group) => {
                let what = format!("group {group} takes no {writes} writes within {patience:?}");
                self.violated(what);
                None
            }
        }
    }

    /// Waits until the cluster is whole, and each group is and stays led by whom PD prefers.
    pub(super) async fn await_spread(&mut self, cluster: &str) -> Option<Vec<GroupView>> {
        self.settle().await;
        let deadline = Instant::now() + self.settings.patience;
        let mut since = None;
        loop {
            let views = match self.world.groups(cluster).await {
                Ok(views) => views,
                Err(error) => {
                    self.violated(format!("{error:#}"));
                    return None;
                }
            };
            let elsewhere = views.iter().filter(|group| !group.is_in_place()).count();
            if elsewhere > 0 || views.is_empty() {
                since = None;
            } else if since.get_or_insert_with(Instant::now).elapsed() >= SPREAD_FOR {
                return Some(views);
            }
            if Instant::now() > deadline {
                let patience = self.settings.patience;
                self.violated(format!(
                    "{elsewhere} of {} groups are not led by whom PD prefers within {patience:?}",
                    views.len()
                ));
                return None;
            }
            tokio::time::sleep(SPREAD_PERIOD).await;
        }
    }

    /// Tells medians and worst of all rounds, and holds them to the promise.
    fn judge(&mut self, how: Leave, rounds: &[Round]) {
        let max = how.gap_max();
        let worst = rounds.iter().filter_map(|round| round.gone.iter().max());
        let mut worst: Vec<Duration> = worst.map(|gap| gap.length).collect();
        let all = || rounds.iter().flat_map(|round| &round.gone);
        let mut each: Vec<Duration> = all().map(|gap| gap.length).collect();
        let mut led: Vec<Duration> = all().filter(|gap| gap.led).map(|gap| gap.length).collect();
        let mut usual: Vec<Duration> = rounds.iter().map(|round| round.usual).collect();
        let mut back: Vec<Duration> = rounds.iter().map(|round| round.back).collect();
        let over = each.iter().filter(|gap| **gap > max).count();
        self.tell(format!("{over} of {} groups waited longer than {max:?}", each.len()));
        for (what, times, of) in [
            ("a group without an acknowledged write", &mut each, "groups"),
            ("the same of those that the node led", &mut led, "groups"),
            ("the longest of each round", &mut worst, "rounds"),
            ("the same of all groups in the second before", &mut usual, "rounds"),
            ("the same while the node comes back", &mut back, "rounds"),
        ] {
            self.tell(format!("{what}: {}", summary(times, of)));
        }
        if let Some(longest) = worst.last().filter(|longest| **longest > max) {
            let what = format!("a group took no writes for {}, more than {max:?}", ms(*longest));
            self.violation(Violation { invariant: how.name(), what });
        }
        if rounds.is_empty() {
            self.violated("nothing was measured".to_owned());
        }
    }
}
