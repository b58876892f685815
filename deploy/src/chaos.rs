//! `flotilla chaos`: runs clusters, breaks them, and checks what their clients saw. Exit code 1 when
//! a promise was broken.

use crate::demo::layout::{Mode, Wish};
use crate::demo::world::DemoWorld;
use crate::exit::{self, Exit};
use crate::serve::{self, Stop};
use clap::Args;
use flotilla_chaos::checkers::bounded::Limits;
use flotilla_chaos::scenario::{self, Cuts, Report, Scenario, Settings};
use flotilla_chaos::wan::parse_duration;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// What is run by name besides the scenarios.
const EACH: &str = "each";
const STORM: &str = "storm";
const LOCAL_NEVER_WAITS: &str = "local-never-waits";
const SYNCER_TAKEOVER: &str = "syncer-takeover";
const MIB: u64 = 1 << 20;

/// What `flotilla chaos` takes.
#[derive(Debug, Args)]
pub struct ChaosArgs {
    /// How long to hunt, in minutes.
    #[arg(long, default_value_t = 10)]
    minutes: u64,
    /// Decides the victims and what clients do. Default: random.
    #[arg(long)]
    seed: Option<u64>,
    /// Run one scenario once instead: kill-leader, kill-follower, kill-syncer, kill-pd,
    /// kill-cluster, kill-datacenter, pause-leader, cut-one-way, long-cut, bad-wan, clock-jump,
    /// storm, local-never-waits, syncer-takeover; or each, for one after the other.
    #[arg(long)]
    scenario: Option<String>,
    /// Kills of a storm.
    #[arg(long, default_value_t = 100)]
    kills: usize,
    /// Acknowledged writes of a storm.
    #[arg(long, default_value_t = 100_000)]
    writes: u64,
    /// How long local-never-waits cuts the WAN, three times.
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
    /// How often syncer-takeover kills a syncer.
    #[arg(long, default_value_t = 20)]
    rounds: usize,
    /// A cluster in each datacenter with links between all, or one cluster over all.
    #[arg(long, default_value = "async")]
    mode: Mode,
    /// Names of the datacenters. Default: east,west, or a,b,c when stretched.
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
    /// Where everything goes. Default: a directory that is deleted if all promises were kept.
    #[arg(long)]
    dir: Option<PathBuf>,
}

impl ChaosArgs {
    fn wish(&self) -> Wish {
        let usual: &[&str] = match self.mode {
            Mode::Async => &["east", "west"],
            Mode::Stretched => &["a", "b", "c"],
        };
        let usual = || usual.iter().map(|name| (*name).to_owned()).collect();
        let takeover = self.scenario.as_deref() == Some(SYNCER_TAKEOVER);
        Wish {
            mode: self.mode,
            datacenters: self.datacenters.clone().unwrap_or_else(usual),
            syncers: self.syncers.unwrap_or(if takeover { 2 } else { 1 }),
            ..Wish::default()
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
            ..Settings::default()
        }
    }
}

/// Runs `flotilla chaos`.
pub fn run(args: ChaosArgs) -> anyhow::Result<ExitCode> {
    let wanted = match args.scenario.as_deref() {
        None | Some(EACH | STORM | LOCAL_NEVER_WAITS | SYNCER_TAKEOVER) => None,
        Some(name) => Some(name.parse::<Scenario>().map_err(|error| {
            Exit::usage(format!("{error}, {STORM}, {LOCAL_NEVER_WAITS}, {SYNCER_TAKEOVER}, {EACH}"))
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
    let world = DemoWorld::start(args.wish(), args.rtt, dir).await?;
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
    let time = Duration::from_secs(args.minutes * 60);
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
        (_, Some(STORM)) => scenario::storm(world, seed, args.kills, args.writes, &settings).await,
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
