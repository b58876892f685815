//! What a scenario breaks, and how it is repaired.

use super::Scenario;
use super::crossing;
use super::trial::Trial;
use super::world;
use crate::wan::Path;
use flotilla_topology::ids::Role;
use rand::Rng;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use std::time::{Duration, Instant};

/// How far clocks jump, forth or back.
const JUMP_MS: i64 = 3000;

/// Everything at once that a WAN does to datagrams, besides its usual delay.
fn bad(usual: Path) -> Path {
    Path {
        jitter: Duration::from_millis(10),
        loss: 0.02,
        reorder: 0.02,
        duplicate: 0.02,
        corrupt: 0.005,
        ..usual
    }
}

impl Trial<'_> {
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
            Scenario::KillSyncer => {
                if let Some(name) = pick(of_role(Role::Syncer), dice) {
                    self.strike_syncer(&name).await;
                }
            }
            Scenario::PauseSyncer => {
                if let Some(name) = pick(of_role(Role::Syncer), dice) {
                    self.pause_and_resume(&name).await;
                }
            }
            Scenario::KillPd => {
                if let Some(name) = pick(of_role(Role::Pd), dice) {
                    self.kill_and_restart(&[name]).await;
                }
            }
            Scenario::KillCluster | Scenario::KillDatacenter => {
                let victims = self.whole_victims(scenario, dice);
                self.kill_and_restart(&victims).await;
            }
            _ => self.strike_links(scenario, dice).await,
        }
    }

    /// All processes of a cluster, or of a cluster in one of its datacenters.
    fn whole_victims(&self, scenario: Scenario, dice: &mut SmallRng) -> Vec<String> {
        let members = self.world.members();
        let clusters = match scenario {
            Scenario::KillDatacenter => world::spanning_clusters(&members),
            _ => self.clusters(),
        };
        let cluster = clusters.choose(dice);
        let inside = members.iter().filter(|one| Some(&one.cluster) == cluster);
        let mut victims: Vec<_> = inside.cloned().collect();
        if scenario == Scenario::KillDatacenter {
            let datacenter = world::datacenters(&victims).choose(dice).cloned();
            victims.retain(|one| Some(&one.datacenter) == datacenter.as_ref());
        }
        victims.into_iter().map(|one| one.name).collect()
    }

    /// What breaks between clusters, and clocks.
    async fn strike_links(&mut self, scenario: Scenario, dice: &mut SmallRng) {
        let members = self.world.members();
        match scenario {
            Scenario::CutOneWay => {
                if let Some((from, to)) = world::directions(&members).choose(dice) {
                    self.cut_and_heal(&[(from.clone(), to.clone())], self.settings.fault).await;
                    self.cut_and_heal(&[(to.clone(), from.clone())], self.settings.fault).await;
                }
            }
            Scenario::LongCut => {
                if let Some(one) = world::datacenters(&members).choose(dice) {
                    let around = world::directions(&members).into_iter();
                    let around: Vec<_> =
                        around.filter(|(from, to)| from == one || to == one).collect();
                    self.cut_and_heal(&around, self.settings.long_cut).await;
                    self.settle_and_tell().await;
                }
            }
            Scenario::BadWan => self.bad_wan().await,
            Scenario::LinkOps => self.operate_link(dice).await,
            Scenario::Overrun => {
                let overrun = self.settings.overrun;
                self.strike_overrun(&overrun, dice).await;
            }
            Scenario::FenceReturn => {
                if let Some(cluster) = self.clusters().choose(dice).cloned() {
                    self.fence_and_return(&cluster).await;
                }
            }
            Scenario::ClockJump => {
                let cluster = self.clusters().choose(dice).cloned();
                self.jump_clocks(cluster, dice).await;
            }
            // Those of processes.
            _ => {}
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
            Scenario::PauseLeader => self.pause_and_resume(&leader).await,
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

    async fn pause_and_resume(&mut self, name: &str) {
        self.tell(format!("pause {name}"));
        self.done(self.world.pause(name));
        self.hold(&self.clusters()).await;
        self.tell(format!("resume {name}"));
        self.done(self.world.resume(name));
        self.more_writes(&self.clusters(), self.settings.writes).await;
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

    pub(super) async fn cut_and_heal(
        &mut self,
        directions: &[(String, String)],
        duration: Duration,
    ) {
        let told = directions.iter().map(|(from, to)| format!("{from} {to}"));
        self.tell(format!("cut {}", told.collect::<Vec<_>>().join(", ")));
        for (from, to) in directions {
            self.done(self.world.cut(from, to));
        }
        self.hold_for(&self.clusters(), duration).await;
        self.tell("heal");
        self.done(self.world.heal());
        self.more_writes(&self.clusters(), self.settings.writes).await;
    }

    /// Waits for rest, and tells how long that took.
    async fn settle_and_tell(&mut self) {
        let began = Instant::now();
        self.settle().await;
        self.tell(format!("at rest {:.1?} after that", began.elapsed()));
    }

    /// All directions are bad at once, for as long as the fault lasts.
    async fn bad_wan(&mut self) {
        let directions = world::directions(&self.world.members());
        let usual = directions.iter().map(|(from, to)| self.world.path(from, to));
        let usual: Vec<Path> = usual.collect();
        if let Some(path) = usual.first() {
            self.tell(format!("everywhere: {}", bad(*path)));
        }
        for ((from, to), usual) in directions.iter().zip(&usual) {
            self.done(self.world.set_path(from, to, bad(*usual)));
        }
        self.hold(&self.clusters()).await;
        self.tell("as usual again");
        for ((from, to), usual) in directions.iter().zip(&usual) {
            self.done(self.world.set_path(from, to, *usual));
        }
        self.more_writes(&self.clusters(), self.settings.writes).await;
    }

    /// The clock of one node, or those of all nodes of a cluster, jump and later jump back. Links
    /// may be parked meanwhile; they must be live again in the end.
    async fn jump_clocks(&mut self, cluster: Option<String>, dice: &mut SmallRng) {
        let members = self.world.members();
        let nodes = members
            .iter()
            .filter(|one| one.role == Role::Node && Some(&one.cluster) == cluster.as_ref());
        let nodes: Vec<String> = nodes.map(|one| one.name.clone()).collect();
        let one = nodes.choose(dice).cloned();
        let victims = if dice.random_bool(0.5) { nodes } else { one.into_iter().collect() };
        let ms = if dice.random_bool(0.5) { JUMP_MS } else { -JUMP_MS };
        for ms in [ms, 0] {
            self.tell(format!("clocks {ms:+} ms from now on: {}", victims.join(" ")));
            for name in &victims {
                self.done(self.world.shift_clock(name, ms));
            }
            self.hold(&self.clusters()).await;
        }
        self.settle_and_tell().await;
    }

    /// Kills a syncer. Where its cluster has another one, its links must move again before it is
    /// back, and the story tells when.
    async fn strike_syncer(&mut self, name: &str) {
        let members = self.world.members();
        let Some(cluster) = members.iter().find(|one| one.name == name).map(|one| &one.cluster)
        else {
            return;
        };
        let others = world::syncers(&members).get(cluster).is_some_and(|all| all.len() > 1);
        if !others {
            return self.kill_and_restart(&[name.to_owned()]).await;
        }
        self.take_over(cluster, name).await;
        self.hold(&self.clusters()).await;
        self.restart(name).await;
        self.more_writes(&self.clusters(), self.settings.writes).await;
    }

    /// Kills a syncer and waits until writes cross to and from its cluster without it. Returns how
    /// long each took since the kill.
    pub(super) async fn take_over(
        &mut self,
        cluster: &str,
        name: &str,
    ) -> Option<(Duration, Duration)> {
        let groups = self.world.carried(name).await;
        let groups = groups.map_or("unknown".to_owned(), |groups| groups.to_string());
        self.tell(format!("kill -9 {name}, which carries {groups} groups"));
        let killed = Instant::now();
        self.done(self.world.kill(name).await);
        let prefix = format!("crossing:{}:{}", self.mark, self.began.elapsed().as_micros());
        let crossed =
            crossing::both_ways(&self.addresses, cluster, &prefix, self.settings.patience).await;
        match crossed {
            Ok((out, back)) => {
                let (out, back) = (out - killed, back - killed);
                self.tell(format!(
                    "without {name}, writes of {cluster} are seen elsewhere after {out:.2?}, \
                     others' writes there after {back:.2?}"
                ));
                Some((out, back))
            }
            Err(why) => {
                self.violated(format!("without {name}, although there is another syncer: {why}"));
                None
            }
        }
    }

    pub(super) async fn restart(&mut self, name: &str) {
        self.tell(format!("restart {name}"));
        let restarted = self.world.restart(name).await;
        self.done(restarted);
    }

    /// Lets a fault last, and waits for writes in the clusters that must serve meanwhile.
    pub(super) async fn hold(&mut self, serving: &[String]) {
        self.hold_for(serving, self.settings.fault).await;
    }

    async fn hold_for(&mut self, serving: &[String], duration: Duration) {
        let until = Instant::now() + duration;
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
}
