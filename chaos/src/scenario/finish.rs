//! The end of a trial: the load stops, everything comes to rest, and the checkers judge.

use super::report::Report;
use super::trial::Trial;
use crate::checkers::{acked_survives, converge, linearizable, replicas_equal};
use crate::workload::{Counts, Ran};
use converge::Verified;
use std::time::{Duration, Instant};

/// Pause between two questions whether all is at rest.
const SETTLE_PERIOD: Duration = Duration::from_millis(200);

impl Trial<'_> {
    /// Stops the load and checks everything.
    pub async fn finish(mut self) -> Report {
        self.tell("stop the load");
        let mut ran: Vec<(String, Ran, Ran)> = Vec::new();
        for (cluster, (own, shared)) in std::mem::take(&mut self.loads) {
            let (own, shared) = tokio::join!(own.stop(), shared.stop());
            ran.push((cluster, own, shared));
        }
        let probes = match self.probes.take() {
            Some(probes) => Some(probes.stop().await),
            None => None,
        };
        self.settle().await;
        self.check_clients(&ran).await;
        self.check_convergence(&ran).await;
        if let Some(probes) = probes {
            self.check_probes(probes).await;
        }
        let world = self.world;
        let sample = |met| async move {
            world.replica_digests(&met).await.map_err(|error| format!("{error:#}"))
        };
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
            self.check_history(cluster, own).await;
            for error in &shared.unexpected {
                self.violated(format!("{cluster} answered: {error}"));
            }
            let Counts { unexpected, .. } = shared.counts;
            let counts = Counts { unexpected: own.counts.unexpected + unexpected, ..own.counts };
            self.report.counts.push((cluster.clone(), counts, own.longest_silence));
        }
    }

    /// What some clients of a cluster saw must be linearizable, and must have survived.
    pub(super) async fn check_history(&mut self, cluster: &str, ran: &Ran) {
        let addresses = self.addresses[cluster].clone();
        match ran.read_finals(&addresses, self.settings.patience).await {
            Ok(finals) => {
                let lost = acked_survives::check(&ran.history(), &finals);
                self.report.violations.extend(lost);
            }
            Err(why) => self.violated(format!("{cluster}: {why}")),
        }
        // Seconds of work, at worst: the relay may live on this runtime and must not wait.
        let history = ran.history();
        let found = tokio::task::spawn_blocking(move || linearizable::check(&history)).await;
        let found = found.expect("the checker does not panic");
        self.tell(format!(
            "{cluster}: {} operations on {} keys, {} open",
            found.operations, found.keys, found.open
        ));
        self.report.violations.extend(found.violations);
        self.report.undecided.extend(found.undecided);
        for error in &ran.unexpected {
            self.violated(format!("{cluster} answered: {error}"));
        }
    }

    /// All clusters must become equal: by their own word, and by what is read there.
    async fn check_convergence(&mut self, ran: &[(String, Ran, Ran)]) {
        if self.addresses.len() < 2 {
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

    /// What the probes saw while they ran, and what is to be seen of it in the end.
    async fn check_probes(&mut self, probes: super::probes::Stopped) {
        let checked = probes.check(&self.addresses, &self.settings).await;
        for line in checked.story {
            self.tell(line);
        }
        self.report.violations.extend(checked.violations);
        for why in checked.unread {
            self.violated(why);
        }
    }
}
