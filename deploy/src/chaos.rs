//! `flotilla chaos`: runs clusters, breaks them, and checks what their clients saw. Exit code 1 when
//! a promise was broken.

mod one;

use crate::demo::layout::{Mode, Wish};
use crate::demo::world::DemoWorld;
use crate::exit::{self, Exit};
use crate::serve::{self, Stop};
use clap::Args;
use flotilla_chaos::checkers::bounded::Limits;
use flotilla_chaos::scenario::{
    self, Collect, Cuts, Join, Large, Overrun, Report, Scenario, Settings,
};
use flotilla_chaos::wan::{parse_duration, parse_rate};
use flotilla_topology::api::BacklogBudget;
use one::One;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// What is run by name besides the scenarios.
const EACH: &str = "each";
const STORM: &str = "storm";
const LOCAL_NEVER_WAITS: &str = "local-never-waits";
const SYNCER_TAKEOVER: &str = "syncer-takeover";
const JOIN: &str = "join";
const OUTAGE: &str = "outage";
const COLLECT: &str = "collect";
const LARGE: &str = "large";
const ALONE: [&str; 8] =
    [EACH, STORM, LOCAL_NEVER_WAITS, SYNCER_TAKEOVER, JOIN, OUTAGE, COLLECT, LARGE];
/// The scenario that can be made larger than a hunt's.
const OVERRUN: &str = "overrun";
/// Keys of each scenario unless told otherwise.
const JOIN_KEYS: u64 = 5_000_000;
const COLLECT_KEYS: u64 = 1_000_000;
const OVERRUN_KEYS: u64 = 4000;
/// Elements of each collection of `large`, unless told otherwise, and what a node's memory may grow by
/// besides its block cache.
const LARGE_ELEMENTS: u64 = 5_000_000;
const LARGE_GROWTH_MIB: u64 = 300;
/// A hunt exceeds it, so it must be little: the least that PD takes.
const SMALL_BUDGET_MIB: u64 = 64;
/// How long to hunt unless told otherwise.
const HUNT_MINUTES: u64 = 10;
/// Kills of a storm, and of a join, unless told otherwise.
const STORM_KILLS: usize = 100;
const JOIN_KILLS: usize = 5;
/// A comparison of millions of keys takes its time.
const LONG_VERIFY: Duration = Duration::from_secs(120);
/// So many keys that join are worth a second of measuring clients before.
const JOIN_KEYS_PER_SECOND: u64 = 100_000;
const JOIN_BEFORE_MAX: u64 = 30;
const MIB: u64 = 1 << 20;

/// What `flotilla chaos` takes.
#[derive(Debug, Args)]
pub struct ChaosArgs {
    /// How long to hunt, or steady to hold its load, in minutes. Default: 10, or 30.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    minutes: Option<u64>,
    /// Decides the victims and what clients do. Default: random.
    #[arg(long)]
    seed: Option<u64>,
    /// Run one scenario once instead: kill-leader, kill-follower, kill-syncer, kill-pd,
    /// kill-cluster, kill-datacenter, pause-leader, pause-syncer, cut-one-way, long-cut, bad-wan,
    /// clock-jump, link-ops, overrun, fence-return, storm, local-never-waits, syncer-takeover, join,
    /// outage, collect, large; in one cluster of three nodes failover, drain, steady, disk-full,
    /// flood; or each, for one after the other.
    #[arg(long)]
    scenario: Option<String>,
    /// Kills of a storm, or of a join. Default: 100, or 5.
    #[arg(long)]
    kills: Option<usize>,
    /// Acknowledged writes of a storm.
    #[arg(long, default_value_t = 100_000)]
    writes: u64,
    /// How long local-never-waits cuts the WAN, three times; how long outage and overrun do at least.
    #[arg(long, default_value = "60s", value_parser = parse_duration)]
    cut: Duration,
    /// Acknowledged writes of each cluster before, during and after a fault.
    #[arg(long, default_value_t = 300)]
    load: u64,
    /// How long a fault lasts at least.
    #[arg(long, default_value = "2s", value_parser = parse_duration)]
    fault: Duration,
    /// How long long-cut cuts a datacenter off.
    #[arg(long, default_value = "20s", value_parser = parse_duration)]
    long_cut: Duration,
    /// How often syncer-takeover kills a syncer, failover a node, and drain tells one to leave.
    #[arg(long, default_value_t = 20)]
    rounds: usize,
    /// Keys of join, collect and overrun, elements of each collection of large. Default: 5000000,
    /// 1000000, 4000, 5000000.
    #[arg(long)]
    keys: Option<u64>,
    /// Bytes of each value of join and overrun. Default: 64, 32768.
    #[arg(long)]
    value_bytes: Option<usize>,
    /// Keys that overrun deletes.
    #[arg(long, default_value_t = 20_000)]
    deletes: u64,
    /// How many times the backlog budget overrun writes.
    #[arg(long, default_value_t = 6.0)]
    times: f64,
    /// The network to the cluster that joins, each way, as long as it merges: 100mbit. Default:
    /// without a limit.
    #[arg(long, value_parser = parse_bits)]
    rate: Option<u64>,
    /// How long clients may be without an acknowledged write while another cluster joins.
    #[arg(long, default_value = "3s", value_parser = parse_duration)]
    silence_max: Duration,
    /// How long links may take to be live, clusters to be equal, and rows to be collected, in
    /// seconds. Default: 30; 300 in a hunt, whose state grows; 3600 for join, outage, overrun,
    /// collect and large.
    #[arg(long)]
    settle: Option<u64>,
    /// Log that each group keeps for a peer that lags, in MiB. Default: 64 in a hunt and for overrun,
    /// else as PD has it.
    #[arg(long, value_name = "MIB")]
    backlog_budget: Option<u64>,
    /// How old that gets, in seconds. Default: as PD has it.
    #[arg(long, value_name = "SECONDS")]
    backlog_age: Option<u64>,
    /// Clusters fence one that is away beyond its budget so long, together; of three or more. Default:
    /// they do not.
    #[arg(long, value_name = "SECONDS")]
    fence_after: Option<u64>,
    /// A cluster in each datacenter with links between all, or one cluster over all.
    #[arg(long, default_value = "async")]
    mode: Mode,
    /// Names of the datacenters. Default: east,west; a,b,c when stretched and for join, outage,
    /// overrun and collect; east, with one node, for large. The last one joins.
    #[arg(long, value_delimiter = ',')]
    datacenters: Option<Vec<String>>,
    /// Syncers of each cluster that has links. Default: 1, and 2 for syncer-takeover.
    #[arg(long)]
    syncers: Option<usize>,
    /// Resident memory that any process may take, in MiB.
    #[arg(long, value_name = "MIB", default_value_t = Limits::default().memory_max / MIB)]
    memory_max: u64,
    /// Raft logs that any process may have on disk, in MiB.
    #[arg(long, value_name = "MIB", default_value_t = Limits::default().log_max / MIB)]
    log_max: u64,
    /// What any data directory may take, in MiB.
    #[arg(long, value_name = "MIB", default_value_t = Limits::default().data_max / MIB)]
    data_max: u64,
    /// What the links of any syncer may have unacknowledged, in MiB.
    #[arg(long, value_name = "MIB", default_value_t = Limits::default().backlog_max / MIB)]
    backlog_max: u64,
    /// Round trip time between datacenters.
    #[arg(long, default_value = "20ms", value_parser = parse_duration)]
    rtt: Duration,
    /// The flotilla executable whose processes are broken, to look at another build. Default: this one.
    #[arg(long, value_name = "PATH")]
    program: Option<PathBuf>,
    /// Where everything goes. Default: a directory that is deleted if all promises were kept.
    #[arg(long)]
    dir: Option<PathBuf>,
}

impl ChaosArgs {
    fn wish(&self) -> Wish {
        if let Some(one) = self.one() {
            return one.wish(self);
        }
        let usual: &[&str] = match self.mode {
            _ if self.is(LARGE) => &["east"],
            Mode::Async if !self.is_long() => &["east", "west"],
            _ => &["a", "b", "c"],
        };
        let usual = || usual.iter().map(|name| (*name).to_owned()).collect();
        let datacenters: Vec<String> = self.datacenters.clone().unwrap_or_else(usual);
        let joins = datacenters.last().filter(|_| self.is(JOIN)).cloned();
        let one = self.is(LARGE) && datacenters.len() == 1;
        Wish {
            nodes: one.then_some(1),
            mode: self.mode,
            syncers: self.syncers.unwrap_or(if self.is(SYNCER_TAKEOVER) { 2 } else { 1 }),
            apart: joins.into_iter().collect(),
            backlog: self.backlog(),
            fence_after: self.fence_after,
            program: self.program.clone(),
            datacenters,
            ..Wish::default()
        }
    }

    /// The scenario, if it is one in a single cluster.
    fn one(&self) -> Option<One> {
        self.scenario.as_deref().and_then(One::of)
    }

    fn is(&self, scenario: &str) -> bool {
        self.scenario.as_deref() == Some(scenario)
    }

    /// One that takes as long as it is made large.
    fn is_long(&self) -> bool {
        [JOIN, OUTAGE, COLLECT, OVERRUN, LARGE].into_iter().any(|name| self.is(name))
    }

    fn backlog(&self) -> Option<BacklogBudget> {
        let small = (self.scenario.is_none() || self.is(OVERRUN)).then_some(SMALL_BUDGET_MIB);
        let bytes = self.backlog_budget.or(small).map(|mib| mib.saturating_mul(MIB));
        let usual = BacklogBudget::default();
        (bytes.is_some() || self.backlog_age.is_some()).then(|| BacklogBudget {
            bytes: bytes.unwrap_or(usual.bytes),
            age_seconds: self.backlog_age.unwrap_or(usual.age_seconds),
        })
    }

    /// What `--settle` says, or what is usual.
    fn settle(&self) -> Duration {
        match self.settle {
            Some(seconds) => Duration::from_secs(seconds),
            None if self.is_long() => Duration::from_secs(3600),
            None if self.scenario.is_none() => Duration::from_secs(300),
            None => Settings::default().settle,
        }
    }

    fn overrun(&self) -> Overrun {
        let value_bytes = self.value_bytes.unwrap_or(Overrun::default().value_bytes);
        match self.is(OVERRUN) {
            true => Overrun {
                keys: self.keys.unwrap_or(OVERRUN_KEYS),
                value_bytes,
                deletes: self.deletes,
                times: self.times,
                hold: self.cut,
            },
            false => Overrun::default(),
        }
    }

    fn large(&self) -> Large {
        let elements = self.keys.unwrap_or(LARGE_ELEMENTS);
        Large::new(elements, LARGE_GROWTH_MIB * MIB, self.settle())
    }

    fn join(&self) -> Join {
        let keys = self.keys.unwrap_or(JOIN_KEYS);
        let before = (keys / JOIN_KEYS_PER_SECOND).clamp(1, JOIN_BEFORE_MAX);
        Join {
            keys,
            value_bytes: self.value_bytes.unwrap_or(64),
            newcomer: self.wish().apart.pop().unwrap_or_default(),
            kills: self.kills.unwrap_or(JOIN_KILLS),
            rate: self.rate,
            before: Duration::from_secs(before),
            patience: self.settle(),
            silence_max: self.silence_max,
        }
    }

    fn settings(&self) -> Settings {
        let bytes = |mib: u64| mib.saturating_mul(MIB);
        let limits = Limits {
            memory_max: bytes(self.memory_max),
            log_max: bytes(self.log_max),
            data_max: bytes(self.data_max),
            backlog_max: bytes(self.backlog_max),
            ..Limits::default()
        };
        Settings {
            writes: self.load,
            fault: self.fault,
            long_cut: self.long_cut,
            limits,
            settle: self.settle(),
            overrun: self.overrun(),
            pause: self.one().map_or(Duration::ZERO, |_| one::PAUSE),
            ..Settings::default()
        }
    }
}

/// A rate that is a limit.
fn parse_bits(text: &str) -> Result<u64, String> {
    let rate = parse_rate(text).map_err(|error| error.to_string())?;
    rate.ok_or_else(|| "leave it out for a network without a limit".to_owned())
}

/// Runs `flotilla chaos`.
pub fn run(args: ChaosArgs) -> anyhow::Result<ExitCode> {
    let wanted = match args.scenario.as_deref() {
        None => None,
        Some(name) if ALONE.contains(&name) || One::of(name).is_some() => None,
        Some(name) => Some(name.parse::<Scenario>().map_err(|error| {
            let others = ALONE.into_iter().chain(One::ALL.map(One::name)).collect::<Vec<_>>();
            Exit::usage(format!("{error}, {}", others.join(", ")))
        })?),
    };
    let temporary = args.dir.is_none();
    let name = format!("flotilla-chaos-{}", std::process::id());
    let dir = args.dir.clone().unwrap_or_else(|| std::env::temp_dir().join(name));
    let dir = std::path::absolute(dir)?;
    let passed = serve::block_on(hunt(&args, wanted, &dir))?;
    if passed && temporary {
        let _ = std::fs::remove_dir_all(&dir);
    } else {
        println!("logs and data are in {}", dir.display());
    }
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::from(exit::FAILED) })
}

async fn hunt(args: &ChaosArgs, wanted: Option<Scenario>, dir: &Path) -> anyhow::Result<bool> {
    let mut stop = Stop::listen()?;
    let seed = args.seed.unwrap_or_else(rand::random);
    println!("starting the clusters; seed {seed}, logs in {}", dir.join("logs").display());
    let mut world = DemoWorld::start(args.wish(), args.rtt, dir).await?;
    if args.is_long() {
        world.verify_patience = LONG_VERIFY;
    }
    let passed = tokio::select! {
        passed = work(args, wanted, seed, &world) => passed,
        signal = stop.asked() => {
            println!("{signal}: stopping");
            true
        }
    };
    world.fleet.stop().await;
    Ok(passed)
}

async fn work(args: &ChaosArgs, wanted: Option<Scenario>, seed: u64, world: &DemoWorld) -> bool {
    let settings = args.settings();
    let tell = |report: &Report| {
        // A story is for those who look for what broke.
        if report.passed() { println!("{}", report.summary()) } else { println!("{report}") }
    };
    let time = Duration::from_secs(args.minutes.unwrap_or(HUNT_MINUTES) * 60);
    if let Some(one) = args.one() {
        let report = one.run(args, world, seed, &settings).await;
        println!("{report}");
        return report.passed();
    }
    let report = match (wanted, args.scenario.as_deref()) {
        (Some(one), _) => scenario::run(world, one, seed, &settings).await,
        (_, Some(EACH)) => {
            let mut passed = true;
            for one in Scenario::ALL.into_iter().filter(|one| one.applies(world)) {
                let report = scenario::run(world, one, seed, &settings).await;
                tell(&report);
                passed &= report.passed();
            }
            return passed;
        }
        (_, Some(STORM)) => {
            let kills = args.kills.unwrap_or(STORM_KILLS);
            scenario::storm(world, seed, kills, args.writes, &settings).await
        }
        (_, Some(JOIN)) => scenario::join(world, seed, &args.join(), &settings).await,
        (_, Some(OUTAGE)) => scenario::outage(world, seed, args.cut, &settings).await,
        (_, Some(COLLECT)) => {
            let keys = args.keys.unwrap_or(COLLECT_KEYS);
            let size = Collect { keys, patience: args.settle() };
            scenario::collect(world, seed, &size, &settings).await
        }
        (_, Some(LARGE)) => scenario::large(world, seed, &args.large(), &settings).await,
        (_, Some(LOCAL_NEVER_WAITS)) => {
            let cuts = Cuts { duration: args.cut, ..Cuts::default() };
            scenario::local_never_waits(world, seed, &cuts, &settings).await
        }
        (_, Some(SYNCER_TAKEOVER)) => {
            scenario::syncer_takeover(world, seed, args.rounds, &settings).await
        }
        _ => return scenario::hunt(world, time, seed, &settings, tell).await.is_none(),
    };
    println!("{report}");
    report.passed()
}
