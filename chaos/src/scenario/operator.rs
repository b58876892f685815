//! What operators do with links and clusters, under load.

use super::crossing;
use super::meters::{MERGED_BYTES, Meters};
use super::trial::Trial;
use super::world::{self, LinkView};
use crate::checkers::Violation;
use flotilla_topology::api::{LinkOp, LinkState};
use flotilla_topology::ids::Role;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use std::ops::Range;
use std::time::{Duration, Instant};

/// Pause between two looks at links.
const PERIOD: Duration = Duration::from_millis(100);
/// Keys that are deleted while a cluster is given up.
const FALLEN: Range<u64> = 0..200;

impl Trial<'_> {
    /// Pauses a link, resumes it, rewinds it, and has all rows compared, each by its own operation.
    pub(super) async fn operate_link(&mut self, dice: &mut SmallRng) {
        let clusters = self.clusters();
        let Some(from) = clusters.choose(dice).cloned() else { return };
        let others: Vec<&String> = clusters.iter().filter(|one| **one != from).collect();
        let Some(to) = others.choose(dice).map(|one| (*one).clone()) else { return };
        let syncers = world::of_role(&self.world.members(), Role::Syncer, &clusters);
        self.operate(&from, &to, LinkOp::Pause).await;
        self.await_link(&from, &to, "paused", |link| link.is_all(LinkState::Paused)).await;
        self.hold(&clusters).await;
        self.operate(&from, &to, LinkOp::Resume).await;
        self.await_link(&from, &to, "live", |link| link.is_all(LinkState::Live)).await;
        self.operate(&from, &to, LinkOp::Rewind).await;
        self.more_writes(&clusters, self.settings.writes).await;
        let mut meters = Meters::new(self.world.census()).await;
        let before = meters.total(MERGED_BYTES, &syncers);
        self.operate(&from, &to, LinkOp::Merge).await;
        let deadline = Instant::now() + self.settings.patience;
        while meters.total(MERGED_BYTES, &syncers) == before && !meters.is_blind() {
            if Instant::now() > deadline {
                let patience = self.settings.patience;
                self.violated(format!("no merge from {from} to {to} within {patience:?}"));
                break;
            }
            tokio::time::sleep(PERIOD).await;
            meters.look().await;
        }
        self.more_writes(&clusters, self.settings.writes).await;
        self.settle_merged().await;
    }

    /// One operation at the PD of the sending cluster, which must agree.
    pub(super) async fn operate(&mut self, cluster: &str, peer: &str, op: LinkOp) {
        let what = match &op {
            LinkOp::Add { .. } => "add".to_owned(),
            op => format!("{op:?}").to_lowercase(),
        };
        self.tell(format!("{cluster}: link {what} {peer}"));
        if let Err(error) = self.world.operate(cluster, peer, op).await {
            self.violated(format!("{cluster}: link {what} {peer} is refused: {error:#}"));
        }
    }

    /// Waits until a link is so, by its sender's word; a violation when it does not become so.
    async fn await_link(
        &mut self,
        from: &str,
        to: &str,
        what: &str,
        is_so: impl Fn(&LinkView) -> bool,
    ) {
        let patience = self.settings.patience;
        let deadline = Instant::now() + patience;
        loop {
            let links = self.world.links().await;
            let found = links.iter().find(|link| link.from == from && link.to == to);
            if found.is_some_and(&is_so) {
                return;
            }
            if Instant::now() > deadline {
                let line =
                    format!("link {from} -> {to} is not {what} within {patience:?}: {found:?}");
                return self.violated(line);
            }
            tokio::time::sleep(PERIOD).await;
        }
    }

    /// A cluster dies when all that it has acknowledged has arrived elsewhere; the others fence it,
    /// delete what it has seen, and take it back: empty, under a higher incarnation. What it missed
    /// must be there then, also its own former writes, and nothing of what was deleted.
    pub(super) async fn fence_and_return(&mut self, cluster: &str) {
        let mut others = self.clusters();
        others.retain(|other| other != cluster);
        let Some(first) = others.first().cloned() else { return };
        let names = world::names_of(&self.world.members(), cluster);
        let prefix = format!("fallen:{}:{}", self.mark, self.began.elapsed().as_micros());
        let command = |words: &'static [&'static str]| {
            let prefix = prefix.clone();
            move |number: u64| -> Vec<String> {
                let key = format!("{prefix}:{number}");
                let words = words.iter().map(|word| word.replace("KEY", &key));
                words.collect()
            }
        };
        let gate = self.gates[cluster].clone();
        let shut = gate.shut().await;
        self.tell(format!("nobody asks {cluster} any more"));
        let written = self.bulk(cluster).write(FALLEN, command(&["SET", "KEY", "v"])).await;
        self.done(written.map_err(anyhow::Error::msg));
        self.drain(cluster, &prefix).await;
        self.tell(format!("kill -9 {}", names.join(" ")));
        for name in &names {
            self.done(self.world.kill(name).await);
        }
        for other in &others {
            self.operate(other, cluster, LinkOp::Fence).await;
            self.await_link(other, cluster, "fenced", |link| link.is_all(LinkState::Fenced)).await;
        }
        let deleted = self.bulk(&first).write(FALLEN, command(&["DEL", "KEY"])).await;
        self.done(deleted.map_err(anyhow::Error::msg));
        self.hold(&others).await;
        for other in &others {
            self.operate(other, cluster, LinkOp::Return).await;
        }
        self.tell(format!("{cluster} starts again, empty"));
        self.done(self.world.begin_life(cluster, true));
        for name in &names {
            self.done(self.world.restart(name).await);
        }
        self.settle_merged().await;
        drop(shut);
        for place in self.clusters() {
            let judge = |number: u64, reply: &crate::resp::Value| {
                let found = reply.text()?;
                Some(format!(
                    "{prefix}:{number}: {place} reads `{found}`, deleted while {cluster} was fenced"
                ))
            };
            let read = self.bulk(&place).each(FALLEN, command(&["GET", "KEY"]), judge).await;
            for what in read.unwrap_or_else(|why| vec![format!("{place}: {why}")]) {
                self.violation(Violation { invariant: "no_resurrection", what });
            }
        }
        self.more_writes(&self.clusters(), self.settings.writes).await;
    }

    /// Waits until what a cluster has written is in all others.
    async fn drain(&mut self, cluster: &str, prefix: &str) {
        let patience = self.settings.patience;
        let crossed =
            crossing::out_of(&self.addresses, cluster, &format!("{prefix}:drain"), patience).await;
        if let Err(why) = crossed {
            self.violated(why);
        }
    }
}
