//! `flotilla bench`: three nodes beside one redis-server, on this machine.

use crate::demo::layout::Wish;
use crate::demo::world::DemoWorld;
use crate::serve::{self, Stop};
use clap::Args;
use flotilla_chaos::bench::{self, Config, Node};
use flotilla_topology::ids::Role;
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
}

/// Runs `flotilla bench`.
pub fn run(args: BenchArgs) -> anyhow::Result<ExitCode> {
    let temporary = args.dir.is_none();
    let dir = std::path::absolute(args.dir.clone().unwrap_or_else(cache_dir))?;
    let result = serve::block_on(measure(&args, &dir));
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

async fn measure(args: &BenchArgs, dir: &Path) -> anyhow::Result<ExitCode> {
    let mut stop = Stop::listen()?;
    std::fs::create_dir_all(dir)?;
    let nodes = dir.join("nodes");
    let wish = Wish { datacenters: vec!["east".to_owned()], nodes: Some(3), ..Wish::default() };
    let world = DemoWorld::start(wish, Duration::ZERO, &nodes).await?;
    let fleet = &world.fleet;
    let cluster = &fleet.layout.clusters[0];
    let measured = cluster.nodes.iter().map(|node| Node {
        name: node.name.clone(),
        pid: fleet.pid(&node.name),
        resp: node.at.resp.clone(),
        // The generator does not route by slot: on the cluster port it would measure MOVED.
        cluster_resp: None,
    });
    let mut config = Config::new(dir.join("redis"), measured.collect());
    let others = fleet.layout.processes().into_iter().filter(|one| one.role != Role::Node);
    config.others = others.map(|one| (one.name.clone(), fleet.pid(&one.name))).collect();
    config.rounds = args.rounds as usize;
    config.duration = Duration::from_secs(u64::from(args.seconds));
    let report = tokio::select! {
        report = bench::run(&config, |line| eprintln!("{line}")) => report,
        signal = stop.asked() => Err(anyhow::anyhow!("{signal}: nothing was measured to the end")),
    };
    world.fleet.stop().await;
    let report = report?;
    print!("{}", report.markdown());
    if let Some(file) = &args.json {
        std::fs::write(file, serde_json::to_vec_pretty(&report)?)?;
    }
    Ok(ExitCode::SUCCESS)
}
