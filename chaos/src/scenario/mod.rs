//! Scenarios: load, a fault, recovery, and then the checkers.
//!
//! A scenario runs over a `World`, which the demo implements with real processes. It needs no fresh
//! one: keys of each trial are its own. The seed decides the victims and what the clients do; time
//! and the network decide the rest, so a replay is likely to show the same, not certain.

mod collect;
mod crossing;
mod disk_full;
mod finish;
mod flood;
mod given_up;
mod join;
mod large;
mod leave;
mod local_never_waits;
mod meters;
mod operator;
mod outage;
mod probes;
mod report;
mod steady;
mod strike;
mod takeover;
mod trial;
mod world;

#[cfg(test)]
mod tests;

pub use collect::{Collect, collect};
pub use disk_full::disk_full;
pub use flood::{Flood, flood};
pub use join::{Join, join};
pub use large::{Large, large};
pub use leave::{Leave, leave};
pub use local_never_waits::{Cuts, local_never_waits};
pub use outage::{Overrun, outage, overrun};
pub use report::{Report, SERVES};
pub use steady::{Steady, steady};
pub use takeover::syncer_takeover;
pub use trial::{Settings, Trial};
pub use world::{Backlog, GroupView, LinkView, Member, Rows, World};

use flotilla_topology::ids::Role;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::time::{Duration, Instant};

/// What breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scenario {
    /// kill -9 of the node that leads most groups of a cluster.
    KillLeader,
    /// kill -9 of another node.
    KillFollower,
    /// kill -9 of a syncer.
    KillSyncer,
    /// kill -9 of a placement driver.
    KillPd,
    /// kill -9 of all processes of a cluster at once.
    KillCluster,
    /// kill -9 of all processes in a datacenter of a cluster that spans several.
    KillDatacenter,
    /// SIGSTOP of the node that leads most groups: it wakes up as a stale leader.
    PauseLeader,
    /// SIGSTOP of a syncer: another one takes over, and it wakes up with tenures that have ended.
    PauseSyncer,
    /// The WAN is cut in one direction between two datacenters, and then in the other.
    CutOneWay,
    /// One datacenter is cut off from all others, both ways, for `Settings::long_cut`.
    LongCut,
    /// Jitter, loss, reordering, copies and damage at once, in all directions.
    BadWan,
    /// The clock of a node, or those of a cluster's nodes, jump by seconds, and back.
    ClockJump,
    /// An operator pauses a link, resumes it, rewinds it, and has all rows compared.
    LinkOps,
    /// One datacenter is cut off until the others' logs no longer reach back to it.
    Overrun,
    /// A cluster dies and is given up by all others; later it returns, empty.
    FenceReturn,
}

impl Scenario {
    /// All of them.
    pub const ALL: [Scenario; 15] = [
        Scenario::KillLeader,
        Scenario::KillFollower,
        Scenario::KillSyncer,
        Scenario::KillPd,
        Scenario::KillCluster,
        Scenario::KillDatacenter,
        Scenario::PauseLeader,
        Scenario::PauseSyncer,
        Scenario::CutOneWay,
        Scenario::LongCut,
        Scenario::BadWan,
        Scenario::ClockJump,
        Scenario::LinkOps,
        Scenario::Overrun,
        Scenario::FenceReturn,
    ];
    /// Those that a storm adds to its kills: nobody dies of them.
    const SQUALLS: [Scenario; 3] = [Scenario::CutOneWay, Scenario::BadWan, Scenario::ClockJump];

    /// The word on the command line and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Scenario::KillLeader => "kill-leader",
            Scenario::KillFollower => "kill-follower",
            Scenario::KillSyncer => "kill-syncer",
            Scenario::KillPd => "kill-pd",
            Scenario::KillCluster => "kill-cluster",
            Scenario::KillDatacenter => "kill-datacenter",
            Scenario::PauseLeader => "pause-leader",
            Scenario::PauseSyncer => "pause-syncer",
            Scenario::CutOneWay => "cut-one-way",
            Scenario::LongCut => "long-cut",
            Scenario::BadWan => "bad-wan",
            Scenario::ClockJump => "clock-jump",
            Scenario::LinkOps => "link-ops",
            Scenario::Overrun => "overrun",
            Scenario::FenceReturn => "fence-return",
        }
    }

    /// Whether this world has what it breaks.
    pub fn applies(self, world: &dyn World) -> bool {
        let members = world.members();
        let has = |role: Role| members.iter().any(|member| member.role == role);
        match self {
            Scenario::KillLeader | Scenario::KillFollower | Scenario::PauseLeader => {
                !world::clusters_with_quorum(&members).is_empty()
            }
            Scenario::KillSyncer | Scenario::PauseSyncer => has(Role::Syncer),
            Scenario::KillPd => has(Role::Pd),
            Scenario::KillCluster | Scenario::ClockJump => has(Role::Node),
            Scenario::KillDatacenter => !world::spanning_clusters(&members).is_empty(),
            Scenario::CutOneWay | Scenario::BadWan => world::datacenters(&members).len() > 1,
            // A part of a spanning cluster has no quorum of its own: that is another promise.
            Scenario::LongCut | Scenario::LinkOps | Scenario::FenceReturn => {
                world::clusters(&members).len() > 1
            }
            Scenario::Overrun => world::clusters(&members).len() > 1 && world.backlog().is_some(),
        }
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// There is no such scenario.
#[derive(Debug, thiserror::Error)]
#[error("there is no scenario `{asked}`; there are {}", Scenario::ALL.map(Scenario::name).join(", "))]
pub struct NoSuchScenario {
    asked: String,
}

impl FromStr for Scenario {
    type Err = NoSuchScenario;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let known = Scenario::ALL.into_iter().find(|scenario| scenario.name() == text);
        known.ok_or_else(|| NoSuchScenario { asked: text.to_owned() })
    }
}

/// Runs one scenario.
pub async fn run(world: &dyn World, scenario: Scenario, seed: u64, settings: &Settings) -> Report {
    let mut dice = SmallRng::seed_from_u64(seed);
    let mut trial = Trial::begin(world, scenario.name(), seed, settings).await;
    trial.strike(scenario, &mut dice).await;
    trial.finish().await
}

/// Before one kill in so many a storm does something else besides.
const KILLS_PER_SQUALL: u32 = 8;

/// Kills one process at a time, any of nodes, syncers and placement drivers, until there were that
/// many kills and that many acknowledged writes. Now and then the network or a clock goes bad too.
pub async fn storm(
    world: &dyn World,
    seed: u64,
    kills: usize,
    writes: u64,
    settings: &Settings,
) -> Report {
    let mut dice = SmallRng::seed_from_u64(seed);
    let mut trial = Trial::begin(world, "storm", seed, settings).await;
    let mut killed = 0;
    while trial.is_sound() && (killed < kills || trial.writes() < writes) {
        if killed < kills {
            let squalls = Scenario::SQUALLS.into_iter().filter(|one| one.applies(world));
            let squalls: Vec<Scenario> = squalls.collect();
            if dice.random_ratio(1, KILLS_PER_SQUALL)
                && let Some(squall) = squalls.choose(&mut dice)
            {
                trial.strike(*squall, &mut dice).await;
            }
            let names: Vec<String> = world.members().into_iter().map(|one| one.name).collect();
            let Some(victim) = names.choose(&mut dice) else { break };
            trial.kill_and_restart(std::slice::from_ref(victim)).await;
            killed += 1;
        }
        // Spread the kills over the writes.
        let part = writes.checked_div(kills as u64).unwrap_or(writes).max(1);
        let clusters = trial.clusters();
        trial.more_writes(&clusters, part / clusters.len().max(1) as u64).await;
    }
    trial.tell(format!("{killed} kills, {} acknowledged writes", trial.writes()));
    trial.finish().await
}

/// Runs scenarios, one after the other, until the time is over or a promise is broken. Each report
/// is handed to `tell` as it comes. Returns the last report that failed.
pub async fn hunt(
    world: &dyn World,
    time: Duration,
    seed: u64,
    settings: &Settings,
    mut tell: impl FnMut(&Report),
) -> Option<Report> {
    let mut dice = SmallRng::seed_from_u64(seed);
    let fitting: Vec<Scenario> =
        Scenario::ALL.into_iter().filter(|scenario| scenario.applies(world)).collect();
    let until = Instant::now() + time;
    // All of them in random order, again and again, so that a short hunt is not one-sided.
    let mut left: BTreeSet<Scenario> = BTreeSet::new();
    while Instant::now() < until {
        if left.is_empty() {
            left.extend(&fitting);
        }
        let choice: Vec<Scenario> = left.iter().copied().collect();
        let scenario = *choice.choose(&mut dice)?;
        left.remove(&scenario);
        let report = run(world, scenario, dice.random(), settings).await;
        tell(&report);
        if !report.passed() {
            return Some(report);
        }
    }
    None
}
