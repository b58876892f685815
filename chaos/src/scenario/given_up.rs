//! A cluster that is away for so long that the others give it up by themselves, together; and how it
//! comes back, with its data.

use super::outage::Away;
use super::trial::Trial;
use super::world;
use crate::checkers::Violation;
use flotilla_topology::api::{LinkOp, LinkState};
use std::time::{Duration, Instant};

/// Pause between two looks.
const PERIOD: Duration = Duration::from_secs(1);
/// Of what was deleted so little may still wait to be collected: the load goes on deleting.
const LEFT_SHARE: u64 = 10;

impl Trial<'_> {
    /// Waits until all the living have fenced the one that is away, and until what they deleted does not
    /// wait for it any more.
    pub(super) async fn await_given_up(&mut self, away: &Away) {
        let began = Instant::now();
        while !self.is_given_up(away).await {
            if began.elapsed() > self.settings.settle || !self.is_sound() {
                let (victim, after) = (&away.victim, began.elapsed());
                return self.violated(format!("{victim} is not fenced by all after {after:.1?}"));
            }
            tokio::time::sleep(PERIOD).await;
        }
        self.tell(format!("{} is fenced by all after {:.1?}", away.victim, began.elapsed()));
        let began = Instant::now();
        loop {
            let rows = self.scan().await;
            let living = rows.iter().filter(|rows| away.living.contains(&rows.cluster));
            let left = living.map(|rows| rows.garbage).max().unwrap_or_default();
            if left <= away.size.deletes / LEFT_SHARE {
                self.tell(format!(
                    "of {} deleted keys {left} rows wait at most on one node, {:.1?} later",
                    away.size.deletes,
                    began.elapsed()
                ));
                return;
            }
            if began.elapsed() > self.settings.settle || !self.is_sound() {
                let what = format!("{left} rows wait for {}, which is fenced", away.victim);
                return self.violation(Violation { invariant: "collected", what });
            }
            tokio::time::sleep(PERIOD).await;
        }
    }

    async fn is_given_up(&self, away: &Away) -> bool {
        let links = self.world.links().await;
        let to = links.iter().filter(|link| link.to == away.victim);
        to.filter(|link| link.is_all(LinkState::Fenced)).count() == away.living.len()
    }

    /// The operators' part: a higher incarnation, everything started again with its data, and the others
    /// let it return.
    pub(super) async fn begin_another_life(&mut self, away: &Away) {
        let names = world::names_of(&self.world.members(), &away.victim);
        self.tell(format!("{} begins another life with its data", away.victim));
        for name in &names {
            self.done(self.world.kill(name).await);
        }
        self.done(self.world.begin_life(&away.victim, false));
        for other in &away.living {
            self.operate(other, &away.victim, LinkOp::Return).await;
        }
        for name in &names {
            self.done(self.world.restart(name).await);
        }
    }

    /// Starts again what ends in a cluster that begins another life, as a supervisor does: a process
    /// that still knew the former life ends when it hears of the new one.
    pub(super) async fn supervise(&mut self, away: &Away) {
        if !self.world.fences_together() {
            return;
        }
        let names = world::names_of(&self.world.members(), &away.victim);
        for death in self.world.unexpected_deaths() {
            match names.iter().find(|name| death.starts_with(name.as_str())) {
                Some(name) => self.done(self.world.restart(name).await),
                None => self.violated(format!("died by itself: {death}")),
            }
        }
    }
}
