//! One trial: loads on every cluster, faults while they run, and the checkers in the end.
//!
//! Two kinds of load run in each cluster: one on keys of its own, whose history must be
//! linearizable there, and a light one on keys that all clusters write at once, which must only
//! become equal everywhere.

use super::Scenario;
use super::report::{Report, SERVES};
use super::world::{self, World};
use crate::checkers::{Violation, acked_survives, converge, linearizable, replicas_equal};
use crate::workload::{Config, Counts, Family, Latency, Load, Ran};
use converge::Verified;
use flotilla_topology::ids::Role;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Pause between two questions whether all is at rest.
const SETTLE_PERIOD: Duration = Duration::from_millis(200);
/// Pause of the clients that write to shared keys: they are there to conflict, not to load.
const SHARED_PAUSE: Duration = Duration::from_millis(5);
/// Clients per cluster that write to shared keys.
const SHARED_CLIENTS: usize = 2;

/// How much of everything.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Acknowledged writes of each cluster before, during and after a fault.
    pub writes: u64,
    /// How long those writes, a restart or a recovery may take.
    pub patience: Duration,
    /// How long the clusters may take to become equal in the end.
    pub settle: Duration,
    /// Clients per cluster.
    pub clients: usize,
    /// Pause of each client between two operations.
    pub pause: Duration,
    /// How long a fault lasts at least.
    pub fault: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            writes: 300,
            patience: Duration::from_secs(30),
            settle: Duration::from_secs(30),
            clients: 6,
            pause: Duration::ZERO,
            fault: Duration::from_secs(2),
        }
    }
}

/// A trial under way.
pub struct Trial<'a> {
    world: &'a dyn World,
    settings: Settings,
    began: Instant,
    report: Report,
    /// Per cluster: the load on its own keys and the one on shared keys.
    loads: BTreeMap<String, (Load, Load)>,
    addresses: BTreeMap<String, Vec<String>>,
}

impl<'a> Trial<'a> {
    /// Waits until the world is at rest, and starts the load.
    pub async fn begin(
        world: &'a dyn World,
        scenario: &str,
        seed: u64,
        settings: &Settings,
    ) -> Trial<'a> {
        let addresses = world::clusters(&world.members());
        let report = Report {
            scenario: scenario.into(),
            seed,
            story: vec![],
            violations: vec![],
            undecided: vec![],
            counts: vec![],
            took: Duration::ZERO,
        };
        let began = Instant::now();
        let loads = BTreeMap::new();
        let mut trial =
            Trial { world, settings: settings.clone(), began, report, loads, addresses };
        trial.settle().await;
        trial.start_loads();
        let clusters = trial.clusters();
        trial.more_writes(&clusters, trial.settings.writes).await;
        trial
    }

    fn start_loads(&mut self) {
        // A trial may find the keys of another with the same seed: the time tells them apart.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
        let seed = self.report.seed;
        for (number, (cluster, addresses)) in self.addresses.iter().enumerate() {
            let seed = seed.wrapping_add(number as u64);
            let own = Config {
                clients: self.settings.clients,
                pause: self.settings.pause,
                ..Config::new(seed, addresses.clone(), format!("{cluster}:{now:x}"))
            };
            let shared = Config {
                clients: SHARED_CLIENTS,
                pause: SHARED_PAUSE,
                families: vec![Family::Register, Family::Counter, Family::Hash],
                ..Config::new(seed, addresses.clone(), format!("shared:{now:x}"))
            };
            self.loads.insert(cluster.clone(), (Load::start(own), Load::start(shared)));
        }
    }

    /// All clusters that are under load.
    pub fn clusters(&self) -> Vec<String> {
        self.addresses.keys().cloned().collect()
    }

    /// Acknowledged writes on all clusters' own keys.
    pub fn writes(&self) -> u64 {
        self.loads.values().map(|(own, _)| own.counts().writes).sum()
    }

    /// Whether nothing was found broken so far.
    pub fn is_sound(&self) -> bool {
        self.report.violations.is_empty()
    }

    /// Notes what happens.
    pub fn tell(&mut self, what: impl Into<String>) {
        let what = what.into();
        tracing::info!(scenario = self.report.scenario, seed = self.report.seed, "{what}");
        self.report.story.push((self.began.elapsed(), what));
    }

    fn violated(&mut self, what: String) {
        self.violation(Violation { invariant: SERVES, what });
    }

    /// Waits for more acknowledged writes in each of the clusters; a violation when they stay out.
    pub async fn more_writes(&mut self, clusters: &[String], count: u64) {
        let patience = self.settings.patience;
        let waits = clusters
            .iter()
            .filter_map(|cluster| self.loads.get(cluster))
            .map(|(own, _)| async move { (own.more_writes(count, patience).await, own.silence()) });
        let results = futures::future::join_all(waits).await;
        for (cluster, (enough, silence)) in clusters.iter().zip(results) {
            if !enough {
                self.violated(format!(
                    "{cluster} does not acknowledge {count} writes within {patience:?}; \
                     the last one was {silence:.1?} ago"
                ));
            }
        }
    }

    /// Breaks something, waits for writes where a quorum is left, repairs it, and waits for writes
    /// everywhere.
    pub async fn strike(&mut self, scenario: Scenario, dice: &mut SmallRng) {
        let members = self.world.members();
        let pick = |names: Vec<String>, dice: &mut SmallRng| names.choose(dice).cloned();
        let of_role = |role: Role| -> Vec<String> {
            let found = members.iter().filter(|member| member.role == role);
            found.map(|member| member.name.clone()).collect()
        };
        match scenario {
            Scenario::KillLeader | Scenario::KillFollower | Scenario::PauseLeader => {
                let cluster = pick(world::clusters_with_quorum(&members), dice);
                self.strike_node(scenario, cluster, dice).await;
            }
            Scenario::KillSyncer | Scenario::KillPd => {
                let role = if scenario == Scenario::KillPd { Role::Pd } else { Role::Syncer };
                if let Some(name) = pick(of_role(role), dice) {
                    self.kill_and_restart(&[name]).await;
                }
            }
            Scenario::KillCluster => {
                let cluster = pick(self.clusters(), dice);
                let victims = members.iter().filter(|one| Some(&one.cluster) == cluster.as_ref());
                let victims: Vec<String> = victims.map(|one| one.name.clone()).collect();
                self.kill_and_restart(&victims).await;
            }
            Scenario::KillDatacenter => {
                let cluster = pick(world::spanning_clusters(&members), dice);
                let inside = members.iter().filter(|one| Some(&one.cluster) == cluster.as_ref());
                let inside: Vec<_> = inside.cloned().collect();
                let datacenter = pick(world::datacenters(&inside), dice);
                let victims =
                    inside.iter().filter(|one| Some(&one.datacenter) == datacenter.as_ref());
                let victims: Vec<String> = victims.map(|one| one.name.clone()).collect();
                self.kill_and_restart(&victims).await;
            }
            Scenario::CutThere | Scenario::CutBack => {
                let all = world::datacenters(&members);
                let (Some(first), Some(other)) = (all.first(), pick(all[1..].to_vec(), dice))
                else {
                    return self.tell("nothing to cut");
                };
                match scenario {
                    Scenario::CutThere => self.cut_and_heal(first, &other).await,
                    _ => self.cut_and_heal(&other, first).await,
                }
            }
        }
    }

    async fn strike_node(
        &mut self,
        scenario: Scenario,
        cluster: Option<String>,
        dice: &mut SmallRng,
    ) {
        let Some(cluster) = cluster else { return self.tell("no cluster with a quorum to spare") };
        let leader = match self.world.leader(&cluster).await {
            Ok(leader) => leader,
            Err(error) => return self.violated(format!("{cluster} has no leader: {error:#}")),
        };
        match scenario {
            Scenario::KillLeader => self.kill_and_restart(&[leader]).await,
            Scenario::PauseLeader => {
                self.tell(format!("pause {leader}"));
                self.done(self.world.pause(&leader));
                self.hold(&self.clusters()).await;
                self.tell(format!("resume {leader}"));
                self.done(self.world.resume(&leader));
                self.more_writes(&self.clusters(), self.settings.writes).await;
            }
            _ => {
                let members = self.world.members();
                let others = members.iter().filter(|one| {
                    one.cluster == cluster && one.role == Role::Node && one.name != leader
                });
                let others: Vec<String> = others.map(|one| one.name.clone()).collect();
                let victim = others.choose(dice).cloned();
                self.kill_and_restart(victim.as_slice()).await;
            }
        }
    }

    /// Kills processes, waits for writes where a quorum is left, starts them again, and waits for
    /// writes everywhere.
    pub async fn kill_and_restart(&mut self, victims: &[String]) {
        self.tell(format!("kill -9 {}", victims.join(" ")));
        let kills = victims.iter().map(|name| self.world.kill(name));
        for result in futures::future::join_all(kills).await {
            self.done(result);
        }
        self.hold(&self.serving_without(victims)).await;
        self.tell(format!("restart {}", victims.join(" ")));
        let starts = victims.iter().map(|name| self.world.restart(name));
        for result in futures::future::join_all(starts).await {
            self.done(result);
        }
        self.more_writes(&self.clusters(), self.settings.writes).await;
    }

    async fn cut_and_heal(&mut self, from: &str, to: &str) {
        self.tell(format!("cut {from} {to}"));
        self.done(self.world.cut(from, to));
        self.hold(&self.clusters()).await;
        self.tell("heal");
        self.done(self.world.heal());
        self.more_writes(&self.clusters(), self.settings.writes).await;
    }

    /// Lets a fault last, and waits for writes in the clusters that must serve meanwhile.
    async fn hold(&mut self, serving: &[String]) {
        let until = Instant::now() + self.settings.fault;
        self.more_writes(serving, self.settings.writes).await;
        tokio::time::sleep(until.saturating_duration_since(Instant::now())).await;
    }

    /// Clusters that have a majority of their nodes without the victims.
    fn serving_without(&self, victims: &[String]) -> Vec<String> {
        let members = self.world.members();
        let serving = self.addresses.iter().filter(|(cluster, nodes)| {
            let left = members.iter().filter(|one| {
                one.cluster == **cluster && one.role == Role::Node && !victims.contains(&one.name)
            });
            left.count() > nodes.len() / 2
        });
        serving.map(|(cluster, _)| cluster.clone()).collect()
    }

    /// The times of each cluster's operations since this was last asked.
    pub fn take_latency(&self) -> BTreeMap<String, Latency> {
        let loads = self.loads.iter();
        loads.map(|(cluster, (own, _))| (cluster.clone(), own.take_latency())).collect()
    }

    pub(super) fn violation(&mut self, violation: Violation) {
        self.tell(violation.to_string());
        self.report.violations.push(violation);
    }

    pub(super) fn done(&mut self, result: anyhow::Result<()>) {
        if let Err(error) = result {
            self.violated(format!("{error:#}"));
        }
    }

    /// Waits until all groups have leaders and all links are live; a violation when they have not.
    pub(super) async fn settle(&mut self) {
        let patience = self.settings.patience;
        match tokio::time::timeout(patience, self.world.settled()).await {
            Ok(result) => self.done(result),
            Err(_) => self.violated(format!("not at rest within {patience:?}")),
        }
    }

    /// Stops the load and checks everything.
    pub async fn finish(mut self) -> Report {
        self.tell("stop the load");
        let mut ran: Vec<(String, Ran, Ran)> = Vec::new();
        for (cluster, (own, shared)) in std::mem::take(&mut self.loads) {
            let (own, shared) = tokio::join!(own.stop(), shared.stop());
            ran.push((cluster, own, shared));
        }
        self.settle().await;
        self.check_clients(&ran).await;
        self.check_convergence(&ran).await;
        let world = self.world;
        let sample =
            || async move { world.replica_digests().await.map_err(|error| format!("{error:#}")) };
        let level = replicas_equal::check_until_level(sample, self.settings.settle).await;
        self.report.violations.extend(level);
        for death in self.world.unexpected_deaths() {
            self.violated(death);
        }
        self.report.took = self.began.elapsed();
        self.report
    }

    /// What the clients of each cluster saw must be linearizable and must have survived.
    async fn check_clients(&mut self, ran: &[(String, Ran, Ran)]) {
        for (cluster, own, shared) in ran {
            let addresses = self.addresses[cluster].clone();
            match own.read_finals(&addresses, self.settings.patience).await {
                Ok(finals) => {
                    let lost = acked_survives::check(&own.history(), &finals);
                    self.report.violations.extend(lost);
                }
                Err(why) => self.violated(format!("{cluster}: {why}")),
            }
            // Seconds of work, at worst: the relay may live on this runtime and must not wait.
            let history = own.history();
            let found = tokio::task::spawn_blocking(move || linearizable::check(&history)).await;
            let found = found.expect("the checker does not panic");
            self.tell(format!(
                "{cluster}: {} operations on {} keys, {} open",
                found.operations, found.keys, found.open
            ));
            self.report.violations.extend(found.violations);
            self.report.undecided.extend(found.undecided);
            for error in own.unexpected.iter().chain(&shared.unexpected) {
                self.violated(format!("{cluster} answered: {error}"));
            }
            let Counts { unexpected, .. } = shared.counts;
            let counts = Counts { unexpected: own.counts.unexpected + unexpected, ..own.counts };
            self.report.counts.push((cluster.clone(), counts, own.longest_silence));
        }
    }

    /// All clusters must become equal: by their own word, and by what is read there.
    async fn check_convergence(&mut self, ran: &[(String, Ran, Ran)]) {
        if ran.len() < 2 {
            return;
        }
        let stopped = Instant::now();
        let verified = loop {
            let verified = match self.world.verify().await {
                Ok(verified) => verified,
                Err(error) => Verified::Moving(format!("{error:#}")),
            };
            if verified == Verified::Equal || stopped.elapsed() > self.settings.settle {
                break verified;
            }
            tokio::time::sleep(SETTLE_PERIOD).await;
        };
        self.tell(format!("verify says {verified:?} after {:.1?}", stopped.elapsed()));
        self.report.violations.extend(converge::check_verified(&verified));
        for load in ran.iter().flat_map(|(_, own, shared)| [own, shared]) {
            let mut read = Vec::new();
            for (cluster, addresses) in &self.addresses.clone() {
                match load.read_elsewhere(addresses, self.settings.patience).await {
                    Ok(finals) => read.push((cluster.clone(), finals)),
                    Err(why) => self.violated(format!("{cluster}: {why}")),
                }
            }
            self.report.violations.extend(converge::check(&read));
        }
    }
}
