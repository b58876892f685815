//! Over a world of fakes: two clusters that share one fake Redis, and so are always equal.

use super::*;
use crate::checkers::converge::Verified;
use crate::fake::FakeRedis;
use anyhow::Result;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;

struct FakeWorld {
    redis: BTreeMap<String, FakeRedis>,
    members: Vec<Member>,
    log: Mutex<Vec<String>>,
}

impl FakeWorld {
    async fn new(equal: bool) -> FakeWorld {
        let (mut redis, mut members) = (BTreeMap::new(), vec![]);
        let one = FakeRedis::default();
        for cluster in ["east", "west"] {
            let server = if equal { one.clone() } else { FakeRedis::default() };
            let mut add = |role: Role, n: usize, resp| {
                let name = format!("{cluster}-{}{n}", role.as_str());
                let (cluster, datacenter) = (cluster.to_owned(), cluster.to_owned());
                members.push(Member { name, role, cluster, datacenter, resp });
            };
            for n in 0..3 {
                add(Role::Node, n, Some(server.listen().await));
            }
            add(Role::Syncer, 0, None);
            add(Role::Pd, 0, None);
            redis.insert(cluster.to_owned(), server);
        }
        FakeWorld { redis, members, log: Mutex::default() }
    }

    fn note(&self, what: String) -> Result<()> {
        self.log.lock().push(what);
        Ok(())
    }
}

fn done<T: Send + 'static>(value: T) -> BoxFuture<'static, T> {
    Box::pin(std::future::ready(value))
}

impl World for FakeWorld {
    fn members(&self) -> Vec<Member> {
        self.members.clone()
    }
    fn leader(&self, cluster: &str) -> BoxFuture<'_, Result<String>> {
        done(Ok(format!("{cluster}-node0")))
    }
    fn settled(&self) -> BoxFuture<'_, Result<()>> {
        done(Ok(()))
    }
    fn kill(&self, name: &str) -> BoxFuture<'_, Result<()>> {
        done(self.note(format!("kill {name}")))
    }
    fn restart(&self, name: &str) -> BoxFuture<'_, Result<()>> {
        done(self.note(format!("restart {name}")))
    }
    fn pause(&self, name: &str) -> Result<()> {
        self.note(format!("pause {name}"))
    }
    fn resume(&self, name: &str) -> Result<()> {
        self.note(format!("resume {name}"))
    }
    fn cut(&self, from: &str, to: &str) -> Result<()> {
        self.note(format!("cut {from} {to}"))
    }
    fn heal(&self) -> Result<()> {
        self.note("heal".into())
    }
    fn verify(&self) -> BoxFuture<'_, Result<Verified>> {
        done(Ok(Verified::Equal))
    }
    fn unexpected_deaths(&self) -> Vec<String> {
        vec![]
    }
}

fn quick() -> Settings {
    Settings { writes: 50, fault: Duration::ZERO, clients: 2, ..Settings::default() }
}

#[tokio::test]
async fn every_scenario_breaks_what_it_says_and_repairs_it() {
    let world = FakeWorld::new(true).await;
    let cases: &[(Scenario, &[&str])] = &[
        (Scenario::KillLeader, &["kill *-node0", "restart *-node0"]),
        (Scenario::KillFollower, &["kill *-node", "restart *-node"]),
        (Scenario::KillSyncer, &["kill *-syncer0", "restart *-syncer0"]),
        (Scenario::KillPd, &["kill *-pd0", "restart *-pd0"]),
        (Scenario::PauseLeader, &["pause *-node0", "resume *-node0"]),
        (Scenario::CutThere, &["cut east west", "heal"]),
        (Scenario::CutBack, &["cut west east", "heal"]),
    ];
    for (scenario, expected) in cases {
        assert!(scenario.applies(&world), "{scenario}");
        let report = run(&world, *scenario, 3, &quick()).await;
        assert!(report.passed(), "{report}");
        let log: Vec<String> = std::mem::take(&mut *world.log.lock());
        assert_eq!(log.len(), expected.len(), "{scenario}: {log:?}");
        for (line, expected) in log.iter().zip(*expected) {
            let line = line.replace("east-", "*-").replace("west-", "*-");
            assert!(line.starts_with(expected), "{scenario}: {log:?}");
        }
        assert_eq!(scenario.name().parse::<Scenario>().unwrap(), *scenario);
    }
    let report = run(&world, Scenario::KillCluster, 3, &quick()).await;
    assert!(report.passed(), "{report}");
    assert_eq!(world.log.lock().len(), 10, "five processes are killed and restarted");
    assert!(!Scenario::KillDatacenter.applies(&world));
    assert!("nonsense".parse::<Scenario>().unwrap_err().to_string().contains("kill-leader"));
}

#[tokio::test]
async fn a_loss_is_reported_with_the_seed_and_ends_the_hunt() {
    let world = FakeWorld::new(true).await;
    world.redis["east"].forget_every.store(50, Relaxed);
    let mut told = 0;
    let report = hunt(&world, Duration::from_secs(60), 5, &quick(), |_| told += 1).await;
    let report = report.expect("the loss is found");
    assert_eq!(told, 1);
    let text = report.to_string();
    assert!(text.contains("acked_survives violated"), "{text}");
    assert!(text.contains(&format!("--scenario {} --seed {}", report.scenario, report.seed)));
}

#[tokio::test]
async fn clusters_that_stay_apart_are_reported() {
    let world = FakeWorld::new(false).await;
    let report = run(&world, Scenario::KillPd, 3, &quick()).await;
    assert!(report.violations.iter().all(|violation| violation.invariant == "converge"));
    assert!(!report.passed());
}

#[tokio::test]
async fn a_storm_kills_and_writes_as_much_as_asked() {
    let world = FakeWorld::new(true).await;
    let report = storm(&world, 9, 12, 2000, &quick()).await;
    assert!(report.passed(), "{report}");
    let kills = world.log.lock().iter().filter(|line| line.starts_with("kill")).count();
    assert_eq!(kills, 12);
    let writes: u64 = report.counts.iter().map(|(_, counts, _)| counts.writes).sum();
    assert!(writes >= 2000, "{report}");
}

#[tokio::test]
async fn waiting_is_compared_while_the_wan_is_whole_and_cut() {
    let world = FakeWorld::new(true).await;
    let duration = Duration::from_millis(100);
    let cuts = Cuts { rounds: 3, duration, ratio_max: 1e6 };
    let report = local_never_waits(&world, 3, &cuts, &quick()).await;
    assert!(report.passed(), "{report}");
    let log = std::mem::take(&mut *world.log.lock());
    assert_eq!(log, ["cut east west", "cut west east", "heal"].repeat(3));
    let report = local_never_waits(&world, 3, &Cuts { ratio_max: 0.0, ..cuts }, &quick()).await;
    assert_eq!(report.violations.len(), 2, "{report}");
    assert_eq!(report.violations[0].invariant, "local_never_waits");
}
