//! Over a world of fakes: two clusters that share one fake Redis, and so are always equal.

use super::*;
use crate::checkers::converge::Verified;
use crate::fake::FakeRedis;
use crate::wan::Path;
use anyhow::Result;
use flotilla_topology::api::{LinkOp, LinkState, PeerCluster};
use flotilla_topology::slot::{Slot, SlotRange};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

pub(super) struct FakeWorld {
    redis: BTreeMap<String, FakeRedis>,
    members: Vec<Member>,
    log: Mutex<Vec<String>>,
    paths: Mutex<BTreeMap<(String, String), Path>>,
    states: Mutex<BTreeMap<(String, String), LinkState>>,
    garbage: AtomicU64,
}

impl FakeWorld {
    pub(super) async fn new(equal: bool) -> FakeWorld {
        FakeWorld::with_syncers(equal, 1).await
    }

    async fn with_syncers(equal: bool, syncers: usize) -> FakeWorld {
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
            for n in 0..syncers {
                add(Role::Syncer, n, None);
            }
            add(Role::Pd, 0, None);
            redis.insert(cluster.to_owned(), server);
        }
        FakeWorld {
            redis,
            members,
            log: Mutex::default(),
            paths: Mutex::default(),
            states: Mutex::default(),
            garbage: AtomicU64::new(0),
        }
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
    fn groups(&self, cluster: &str) -> BoxFuture<'_, Result<Vec<GroupView>>> {
        let half = |n: u16| GroupView {
            name: n.to_string(),
            slots: SlotRange { first: Slot(n * 8192), last: Slot(n * 8192 + 8191) },
            leader: Some(format!("{cluster}-node{n}")),
            preferred: format!("{cluster}-node{n}"),
        };
        done(Ok([0, 1].map(half).into()))
    }
    fn settled(&self) -> BoxFuture<'_, Result<()>> {
        done(Ok(()))
    }
    fn kill(&self, name: &str) -> BoxFuture<'_, Result<()>> {
        done(self.note(format!("kill {name}")))
    }
    fn terminate(&self, name: &str) -> BoxFuture<'_, Result<()>> {
        done(self.note(format!("terminate {name}")))
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
    fn path(&self, from: &str, to: &str) -> Path {
        self.paths.lock().get(&(from.to_owned(), to.to_owned())).copied().unwrap_or_default()
    }
    fn set_path(&self, from: &str, to: &str, path: Path) -> Result<()> {
        self.paths.lock().insert((from.to_owned(), to.to_owned()), path);
        self.note(format!("path {from} {to}"))
    }
    fn shift_clock(&self, name: &str, ms: i64) -> Result<()> {
        self.note(format!("clock {name} {ms:+}"))
    }
    fn carried(&self, _: &str) -> BoxFuture<'_, Result<usize>> {
        done(Ok(2))
    }
    fn links(&self) -> BoxFuture<'_, Vec<LinkView>> {
        let view = |(from, to): (&str, &str)| {
            let state = self.states.lock().get(&(from.to_owned(), to.to_owned())).copied();
            let states = vec![state.unwrap_or(LinkState::Live)];
            LinkView { from: from.into(), to: to.into(), states, wanted: 1, backlog: 0 }
        };
        done([("east", "west"), ("west", "east")].into_iter().map(view).collect())
    }
    fn operate(&self, cluster: &str, peer: &str, op: LinkOp) -> BoxFuture<'_, Result<Vec<String>>> {
        let state = match op {
            LinkOp::Pause => LinkState::Paused,
            LinkOp::Fence => LinkState::Fenced,
            _ => LinkState::Live,
        };
        self.states.lock().insert((cluster.to_owned(), peer.to_owned()), state);
        done(self.note(format!("{op:?} {cluster} {peer}")).map(|()| vec![]))
    }
    fn as_seen(&self, _: &str, cluster: &str) -> Result<PeerCluster> {
        Ok(PeerCluster { name: cluster.to_owned(), ..PeerCluster::default() })
    }
    fn begin_life(&self, cluster: &str, empty: bool) -> Result<()> {
        self.note(format!("{} {cluster}", if empty { "anew" } else { "again" }))
    }
    fn rows(&self) -> BoxFuture<'_, Result<Vec<Rows>>> {
        let nodes = self.members.iter().filter(|member| member.role == Role::Node);
        let rows = nodes.map(|node| Rows {
            cluster: node.cluster.clone(),
            node: node.name.clone(),
            keys: self.redis[&node.cluster].keys(),
            elements: 0,
            garbage: self.garbage.load(Relaxed),
            told: "rows".into(),
        });
        done(Ok(rows.collect()))
    }
    fn verify(&self) -> BoxFuture<'_, Result<Verified>> {
        done(Ok(Verified::Equal))
    }
    fn unexpected_deaths(&self) -> Vec<String> {
        vec![]
    }
}

pub(super) fn quick() -> Settings {
    let (fault, long_cut) = (Duration::ZERO, Duration::ZERO);
    Settings { writes: 50, fault, long_cut, clients: 2, ..Settings::default() }
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
        (Scenario::CutOneWay, &["cut ", "heal", "cut ", "heal"]),
        (Scenario::LongCut, &["cut east west", "cut west east", "heal"]),
        (
            Scenario::BadWan,
            &["path east west", "path west east", "path east west", "path west east"],
        ),
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
    let usual = Path::default();
    assert!(world.paths.lock().values().all(|path| *path == usual), "the WAN is as it was");
    let report = run(&world, Scenario::KillCluster, 3, &quick()).await;
    assert!(report.passed(), "{report}");
    assert_eq!(world.log.lock().len(), 10, "five processes are killed and restarted");
    assert!(!Scenario::KillDatacenter.applies(&world));
    assert!("nonsense".parse::<Scenario>().unwrap_err().to_string().contains("kill-leader"));
}

#[tokio::test]
async fn clocks_jump_and_come_back() {
    let world = FakeWorld::new(true).await;
    let mut jumped = BTreeMap::new();
    for seed in 0..8 {
        let report = run(&world, Scenario::ClockJump, seed, &quick()).await;
        assert!(report.passed(), "{report}");
        let log = std::mem::take(&mut *world.log.lock());
        let (there, back) = log.split_at(log.len() / 2);
        assert_eq!(there.len(), back.len());
        for (there, back) in there.iter().zip(back) {
            let (name, ms) = there.rsplit_once(' ').unwrap();
            assert!(ms == "+3000" || ms == "-3000", "{there}");
            assert_eq!(back, &format!("{name} +0"));
            *jumped.entry((ms.to_owned(), log.len() / 2)).or_insert(0) += 1;
        }
    }
    let ways: Vec<_> = jumped.keys().map(|(ms, nodes)| (ms.as_str(), *nodes)).collect();
    assert_eq!(ways, [("+3000", 1), ("+3000", 3), ("-3000", 1), ("-3000", 3)]);
}

#[tokio::test]
async fn a_syncer_is_taken_over_by_another_and_the_times_are_told() {
    let world = FakeWorld::with_syncers(true, 2).await;
    let report = syncer_takeover(&world, 3, 5, &quick()).await;
    assert!(report.passed(), "{report}");
    let log = std::mem::take(&mut *world.log.lock());
    assert_eq!(log.len(), 10, "{log:?}");
    assert!(log.iter().all(|line| line.contains("-syncer")), "{log:?}");
    let text = report.to_string();
    assert!(text.contains("takeover to others: median") && text.contains("of 5 rounds"), "{text}");
    let report = run(&world, Scenario::KillSyncer, 3, &quick()).await;
    assert!(report.passed() && report.to_string().contains("are seen elsewhere after"), "{report}");

    let apart = FakeWorld::with_syncers(false, 2).await;
    let settings = Settings { patience: Duration::from_secs(2), ..quick() };
    let report = syncer_takeover(&apart, 3, 5, &settings).await;
    let text = report.to_string();
    assert!(text.contains("although there is another syncer: writes of"), "{text}");
    let alone = FakeWorld::new(true).await;
    let report = syncer_takeover(&alone, 3, 5, &quick()).await;
    assert!(report.to_string().contains("give --syncers 2"), "{report}");
}

#[tokio::test]
async fn nodes_leave_and_come_back_and_silences_are_told() {
    let world = FakeWorld::new(true).await;
    for (how, word) in [(Leave::Killed, "kill"), (Leave::Told, "terminate")] {
        let report = leave(&world, 3, how, 2, &quick()).await;
        let text = report.to_string();
        // The fakes share the machine with other tests: only what is promised of 1.5 s is certain.
        assert!(how == Leave::Told || report.passed(), "{report}");
        let log = std::mem::take(&mut *world.log.lock());
        let words: Vec<&str> = log.iter().filter_map(|line| line.split(' ').next()).collect();
        assert_eq!(words, [word, "restart"].repeat(2), "{log:?}");
        assert!(text.contains("led 1 of 2 groups"), "{text}");
        assert!(text.contains("the longest of each round: median"), "{text}");
    }
    world.redis["east"].forget_every.store(50, Relaxed);
    let report = leave(&world, 3, Leave::Killed, 1, &quick()).await;
    let lost = report.violations.iter().any(|one| one.invariant == "acked_survives");
    assert!(lost, "{report}");
}

#[tokio::test]
async fn operators_do_what_they_say() {
    let world = FakeWorld::new(true).await;
    let report = run(&world, Scenario::LinkOps, 3, &quick()).await;
    assert!(report.passed(), "{report}");
    let log: Vec<String> = std::mem::take(&mut *world.log.lock());
    let words: Vec<&str> = log.iter().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(words, ["Pause", "Resume", "Rewind", "Merge"]);
    let report = run(&world, Scenario::FenceReturn, 3, &quick()).await;
    assert!(report.passed(), "{report}");
    let log: Vec<String> = std::mem::take(&mut *world.log.lock());
    let words: Vec<&str> = log.iter().filter_map(|line| line.split(' ').next()).collect();
    let steps = [&["kill"; 5][..], &["Fence", "Return", "anew"], &["restart"; 5]].concat();
    assert_eq!(words, steps, "{log:?}");
}

#[tokio::test]
async fn what_is_never_collected_is_told() {
    let world = FakeWorld::new(true).await;
    let size = Collect { keys: 600, patience: Duration::ZERO };
    let report = collect(&world, 3, &size, &quick()).await;
    assert!(report.passed(), "{report}");
    world.garbage.store(1, Relaxed);
    let report = collect(&world, 3, &size, &quick()).await;
    assert_eq!(report.violations.len(), 6, "each node: {report}");
    world.garbage.store(0, Relaxed);
    world.redis["east"].forget_every.store(7, Relaxed);
    let report = collect(&world, 3, &size, &quick()).await;
    assert!(report.to_string().contains("keys should be left"), "{report}");
}

#[tokio::test]
async fn what_comes_back_is_found_in_any_trial() {
    let world = FakeWorld::new(true).await;
    let mut trial = Trial::begin(&world, "by-hand", 3, &quick()).await;
    let buried = |trial: &Trial<'_>| trial.probes.as_ref().unwrap().buried();
    while buried(&trial) < 5 {
        trial.more_writes(&trial.clusters(), 10).await;
    }
    world.redis["east"].revive();
    let report = trial.finish().await;
    let found = report.violations.iter().any(|one| one.invariant == "no_resurrection");
    assert!(found, "{report}");
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
    let known = ["converge", "origin_order"];
    assert!(report.violations.iter().all(|one| known.contains(&one.invariant)), "{report}");
    let told = |invariant| report.violations.iter().any(|one| one.invariant == invariant);
    assert!(told("origin_order"), "{report}");
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
