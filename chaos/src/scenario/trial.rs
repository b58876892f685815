//! One trial: loads on every cluster, faults while they run (`strike`), and the checkers in the end
//! (`finish`).
//!
//! Two kinds of load run in each cluster: one on keys of its own, whose history must be
//! linearizable there, and a light one on keys that all clusters write at once, which must only
//! become equal everywhere. Besides them run the probes, which check while they run.

use super::crossing;
use super::outage::Overrun;
use super::probes::Probes;
use super::report::{Report, SERVES};
use super::world::{self, World};
use crate::checkers::Violation;
use crate::checkers::bounded::Limits;
use crate::workload::{Bulk, Config, Doorway, Family, Gate, Latency, Load};
use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

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
    /// How long a long cut lasts.
    pub long_cut: Duration,
    /// How much memory and disk a process may take.
    pub limits: Limits,
    /// What a scenario writes beyond a backlog budget.
    pub overrun: Overrun,
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
            long_cut: Duration::from_secs(20),
            limits: Limits::default(),
            overrun: Overrun::default(),
        }
    }
}

/// A trial under way.
pub struct Trial<'a> {
    pub(super) world: &'a dyn World,
    pub(super) settings: Settings,
    pub(super) began: Instant,
    pub(super) report: Report,
    /// Start of the names of keys that only this trial uses.
    pub(super) mark: String,
    /// Per cluster: the load on its own keys and the one on shared keys.
    pub(super) loads: BTreeMap<String, (Load, Load)>,
    pub(super) probes: Option<Probes>,
    pub(super) addresses: BTreeMap<String, Vec<String>>,
    /// What holds back all clients of a cluster.
    pub(super) gates: BTreeMap<String, Gate>,
    /// Keys that were written to see them arrive.
    pub(super) crossed: u64,
}

impl<'a> Trial<'a> {
    /// Waits until the world is at rest, and starts the load in all clusters.
    pub async fn begin(
        world: &'a dyn World,
        scenario: &str,
        seed: u64,
        settings: &Settings,
    ) -> Trial<'a> {
        let mut trial = Trial::idle(world, scenario, seed, settings).await;
        trial.start_loads().await;
        trial
    }

    /// Waits until the world is at rest.
    pub(super) async fn idle(
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
        // A trial may find the keys of another with the same seed: the time tells them apart.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
        let mut trial = Trial {
            world,
            settings: settings.clone(),
            began: Instant::now(),
            report,
            mark: format!("{now:x}"),
            loads: BTreeMap::new(),
            probes: None,
            crossed: 0,
            gates: addresses.keys().map(|name| (name.clone(), Gate::default())).collect(),
            addresses,
        };
        trial.settle().await;
        trial
    }

    /// Starts the load in all clusters that there are addresses of, and waits for its first writes.
    pub(super) async fn start_loads(&mut self) {
        let (seed, mark) = (self.report.seed, &self.mark);
        let gate = |cluster: &String| self.gates.get(cluster).cloned().unwrap_or_default();
        let mut doors = BTreeMap::new();
        for (number, (cluster, addresses)) in self.addresses.iter().enumerate() {
            let seed = seed.wrapping_add(number as u64);
            let addresses = addresses.clone();
            let door = Doorway { addresses: addresses.clone(), gate: gate(cluster) };
            doors.insert(cluster.clone(), door);
            let own = Config {
                gate: gate(cluster),
                clients: self.settings.clients,
                pause: self.settings.pause,
                ..Config::new(seed, addresses.clone(), format!("{cluster}:{mark}"))
            };
            let shared = Config {
                gate: gate(cluster),
                clients: SHARED_CLIENTS,
                pause: SHARED_PAUSE,
                families: vec![Family::Register, Family::Counter, Family::Hash],
                ..Config::new(seed, addresses, format!("shared:{mark}"))
            };
            self.loads.insert(cluster.clone(), (Load::start(own), Load::start(shared)));
        }
        self.probes = Some(Probes::start(self.world, &doors, mark, seed));
        self.more_writes(&self.clusters(), self.settings.writes).await;
    }

    /// For many commands to a cluster.
    pub(super) fn bulk(&self, cluster: &str) -> Bulk {
        Bulk::new(&self.addresses[cluster], self.settings.patience)
    }

    /// Waits until all that was written in each of these clusters is in all others of them: what is
    /// written now in every group is seen there.
    pub(super) async fn await_crossing(&mut self, clusters: &[String], patience: Duration) {
        let mut these = self.addresses.clone();
        these.retain(|cluster, _| clusters.contains(cluster));
        if these.len() < 2 {
            return;
        }
        for cluster in clusters {
            let prefix = format!("crossing:{}:{}", self.mark, self.began.elapsed().as_micros());
            self.crossed += 2 * (clusters.len() as u64 - 1) * u64::from(crossing::KEYS);
            if let Err(why) = crossing::both_ways(&these, cluster, &prefix, patience).await {
                return self.violated(why);
            }
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
        self.report.violations.is_empty() && self.probes.as_ref().is_none_or(Probes::is_sound)
    }

    /// The cluster of scenarios that have only one; none is a violation.
    pub(super) fn cluster_of_three(&mut self) -> Option<String> {
        let cluster = world::clusters_with_quorum(&self.world.members()).into_iter().next();
        if cluster.is_none() {
            self.violated("no cluster has three nodes".to_owned());
        }
        cluster
    }

    /// Notes what happens.
    pub fn tell(&mut self, what: impl Into<String>) {
        let what = what.into();
        tracing::info!(scenario = self.report.scenario, seed = self.report.seed, "{what}");
        self.report.story.push((self.began.elapsed(), what));
    }

    pub(super) fn violated(&mut self, what: String) {
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

    /// The same after a full state had to travel, which takes the longer the more there is.
    pub(super) async fn settle_merged(&mut self) {
        let (began, patience) = (Instant::now(), self.settings.settle);
        loop {
            let left = patience.saturating_sub(began.elapsed());
            match tokio::time::timeout(left, self.world.settled()).await {
                Ok(Ok(())) => break,
                // The world has a patience of its own.
                Ok(Err(_)) if began.elapsed() < patience => {}
                Ok(Err(error)) => return self.violated(format!("{error:#}")),
                Err(_) => return self.violated(format!("not at rest within {patience:?}")),
            }
        }
        self.tell(format!("at rest {:.1?} after that", began.elapsed()));
    }

    /// Waits until all groups have leaders and all links are live; a violation when they have not.
    pub(super) async fn settle(&mut self) {
        let patience = self.settings.patience;
        match tokio::time::timeout(patience, self.world.settled()).await {
            Ok(result) => self.done(result),
            Err(_) => self.violated(format!("not at rest within {patience:?}")),
        }
    }
}
