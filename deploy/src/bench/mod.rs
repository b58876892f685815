//! `flotilla bench`: Flotilla nodes beside redis-server, etcd and others, on this machine.

mod cluster;
mod plan;

use crate::exit::Exit;
use crate::serve::{self, Stop};
use clap::Args;
use cluster::Cluster;
use flotilla_chaos::bench::{
    Case, Config, Gate, Kind, OpenRow, Report, Samples, Session, Table, Variation, check_idle,
};
use plan::{Matrix, Plan};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// What `flotilla bench` takes.
#[derive(Debug, Args)]
pub struct BenchArgs {
    /// Also write the result as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Rounds over all cases.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
    /// Where data goes: on a disk, since syncs are measured. Default: a directory in the user's
    /// cache that is deleted in the end.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Servers to measure: redis (synced), redis-unsynced (nothing on disk), etcd (three nodes),
    /// kvrocks (see --kvrocks), standalone (one Flotilla node), and the cluster of three through
    /// flotilla (the plain ports of all nodes in turn), flotilla-one (that of its first node) or
    /// flotilla-cluster (cluster ports, each key at its leader). Default: redis, standalone,
    /// flotilla, flotilla-one; matrices: redis, flotilla-one.
    #[arg(long, value_name = "NAMES", value_delimiter = ',', value_parser = Kind::parse)]
    servers: Vec<Kind>,
    /// Measure kvrocks too, with this executable.
    #[arg(long, value_name = "PATH")]
    kvrocks: Option<PathBuf>,
    /// MiB of memory that each node of a cluster is given. With 1024 its log has files of the same
    /// size as that of a standalone node, which takes a quarter of the machine.
    #[arg(long, value_name = "MIB", default_value_t = 1024,
        value_parser = clap::value_parser!(u64).range(64..=1_048_576))]
    memory: u64,
    /// Different keys.
    #[arg(long, default_value_t = 100_000,
        value_parser = clap::value_parser!(u32).range(100..=10_000_000))]
    keys: u32,
    /// Leave out the cases at 1 and 50 connections, for a run of matrices only.
    #[arg(long, conflicts_with = "gates")]
    no_cases: bool,
    /// Also an open loop: SET and GET at 50 connections come at a fixed rate, half of what the
    /// closed loop showed, and times count from when each was due.
    #[arg(long)]
    open: bool,
    /// The open loop's rate per second, for all servers. Implies --open.
    #[arg(long, value_name = "PER_SECOND",
        value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rate: Option<u32>,
    /// Also open so many connections that do nothing, and show what each costs in memory.
    #[arg(long, value_name = "CONNECTIONS")]
    idle: Option<usize>,
    /// Matrix: clusters of 1, 3 or 5 nodes with as many replicas, one after the other.
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = replicas)]
    replicas: Vec<u8>,
    /// Matrix: clusters whose namespace has so many groups, one after the other.
    #[arg(long, value_name = "LIST", value_delimiter = ',',
        value_parser = clap::value_parser!(u32).range(1..=1024))]
    groups: Vec<u32>,
    /// Matrix: values of so many bytes.
    #[arg(long, value_name = "LIST", value_delimiter = ',',
        value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    values: Vec<u32>,
    /// Matrix: keys by Zipf (exponent 0.99) beside keys that are all asked for alike.
    #[arg(long)]
    zipf: bool,
    /// Matrix: GET through any node, one node, each key's leader, and after READONLY.
    #[arg(long)]
    reads: bool,
    /// Matrix: a command of each family, from INCR to MSET of ten keys.
    #[arg(long)]
    families: bool,
    /// Hold flotilla-one to its gates: measures what they need, and prints which hold.
    #[arg(long)]
    gates: bool,
    /// Exit with 1 when a gate does not hold.
    #[arg(long, requires = "gates")]
    strict: bool,
}

fn replicas(text: &str) -> Result<u8, String> {
    match text {
        "1" => Ok(1),
        "3" => Ok(3),
        "5" => Ok(5),
        _ => Err("replicas are 1, 3 or 5".to_owned()),
    }
}

/// Runs `flotilla bench`.
pub fn run(args: BenchArgs) -> anyhow::Result<ExitCode> {
    let temporary = args.dir.is_none();
    let dir = std::path::absolute(args.dir.clone().unwrap_or_else(cache_dir))?;
    let plan = Plan::new(&args)?;
    let result = serve::block_on(measure(&args, &plan, &dir));
    if temporary {
        let _ = std::fs::remove_dir_all(&dir);
    }
    result
}

/// Not the system's directory for temporary files: that may be in memory.
fn cache_dir() -> PathBuf {
    let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or(home);
    let name = format!("bench-{}", std::process::id());
    cache.unwrap_or_else(std::env::temp_dir).join("flotilla").join(name)
}

async fn measure(args: &BenchArgs, plan: &Plan, dir: &Path) -> anyhow::Result<ExitCode> {
    let mut stop = Stop::listen()?;
    std::fs::create_dir_all(dir)?;
    let config = Config {
        kvrocks: args.kvrocks.clone(),
        flotilla: std::env::current_exe()?,
        rounds: args.rounds as usize,
        duration: Duration::from_secs(u64::from(args.seconds)),
        keys: args.keys,
        ..Config::new(dir.join("peers"))
    };
    let run = Run { config: &config, plan, dir };
    let report = tokio::select! {
        report = run.all() => report?,
        signal = stop.asked() => anyhow::bail!("{signal}: nothing was measured to the end"),
    };
    print!("{}", report.markdown());
    if let Some(file) = &args.json {
        std::fs::write(file, serde_json::to_vec_pretty(&report)?)?;
    }
    let held = report.gates.iter().all(Gate::holds);
    Ok(if args.strict && !held { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

struct Run<'a> {
    config: &'a Config,
    plan: &'a Plan,
    dir: &'a Path,
}

impl Run<'_> {
    async fn all(&self) -> anyhow::Result<Report> {
        let tell = |line: &str| eprintln!("{line}");
        let mut session = Session::start(self.config, &self.plan.kinds(), tell).await?;
        let mut report = Report::new(self.config, "No Flotilla cluster.".to_owned());
        let mut all = Samples::default();
        if self.plan.has_standing() {
            let cluster = if self.plan.standing_cluster() {
                let make = self.plan.make;
                let cluster = Cluster::start(3, make, &self.dir.join("nodes")).await?;
                session.use_fleet(&cluster.fleet(), &self.plan.kinds()).await?;
                report.cluster = cluster.describe().await;
                Some(cluster)
            } else {
                None
            };
            self.standing(&mut session, &mut report, &mut all).await?;
            if let Some(cluster) = cluster {
                cluster.stop().await;
            }
        }
        for matrix in &self.plan.clusters {
            let samples = self.clusters(&mut session, matrix).await?;
            report.tables.push(Table::new(&matrix.title, &matrix.axis, true, &samples));
            all.add(samples);
        }
        session.stop().await;
        report.set_canary(&all);
        Ok(report)
    }

    /// All that is measured on one cluster, or on none.
    async fn standing(
        &self,
        session: &mut Session<'_>,
        report: &mut Report,
        all: &mut Samples,
    ) -> anyhow::Result<()> {
        // First, while no memory has been used and given back.
        if let Some(count) = self.plan.idle {
            report.idle = session.idle(&self.plan.main, count).await?;
        }
        let cases = self.closed_cases(session).await?;
        if !cases.is_empty() {
            report.tables.push(Table::new("Closed loop", "", true, &cases));
        }
        if !self.plan.open.is_empty() {
            let variation = self.variation(self.plan.open.clone(), &self.plan.main);
            let fixed = self.plan.rate;
            let rate = |kind, case| fixed.or_else(|| Some(cases.per_second(kind, case)? / 2.0));
            let open = session.open(&variation, rate).await?;
            report.open = OpenRow::all(&open);
            all.add(open);
        }
        if self.plan.gates {
            report.gates = Gate::all(&cases, &report.open);
        }
        all.add(cases);
        for matrix in &self.plan.matrices {
            let mut samples = Samples::default();
            for variation in &matrix.variations {
                samples.add(session.closed(variation).await?);
            }
            report.tables.push(Table::new(&matrix.title, &matrix.axis, matrix.costs, &samples));
            all.add(samples);
        }
        Ok(())
    }

    async fn closed_cases(&self, session: &mut Session<'_>) -> anyhow::Result<Samples> {
        if self.plan.cases.is_empty() {
            return Ok(Samples::default());
        }
        session.closed(&self.variation(self.plan.cases.clone(), &self.plan.main)).await
    }

    /// Clusters of different makes, one after the other, each beside redis.
    async fn clusters(
        &self,
        session: &mut Session<'_>,
        matrix: &Matrix,
    ) -> anyhow::Result<Samples> {
        let mut samples = Samples::default();
        for (number, variation) in matrix.variations.iter().enumerate() {
            let (nodes, make) = matrix.makes[number];
            let name = format!("nodes-{}-{}", matrix.axis, variation.label);
            let cluster = Cluster::start(nodes, make, &self.dir.join(name)).await?;
            session.use_fleet(&cluster.fleet(), &variation.kinds).await?;
            eprintln!("{}", cluster.describe().await);
            samples.add(session.closed(variation).await?);
            cluster.stop().await;
        }
        Ok(samples)
    }

    fn variation(&self, cases: Vec<Case>, kinds: &[Kind]) -> Variation {
        plan::variation("", cases, kinds, self.config.keys)
    }
}

/// Refuses what cannot be, in one line.
fn check(args: &BenchArgs) -> anyhow::Result<()> {
    if let Some(count) = args.idle {
        check_idle(count).map_err(Exit::usage)?;
    }
    if let Some(path) = args.kvrocks.as_deref().filter(|path| !path.is_file()) {
        return Err(Exit::usage(format!("--kvrocks {}: there is no such file", path.display())));
    }
    if args.servers.contains(&Kind::Kvrocks) && args.kvrocks.is_none() {
        return Err(Exit::usage("--servers kvrocks: give its executable with --kvrocks PATH"));
    }
    if args.no_cases && args.open && args.rate.is_none() {
        return Err(Exit::usage("--open with --no-cases: give a rate with --rate"));
    }
    Ok(())
}
