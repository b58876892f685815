//! `flotilla node`: a storage server, as a member of a cluster or all by itself.

use crate::exit::Exit;
use crate::serve::{self, Stop};
use clap::Args;
use flotilla_node::config::{Config, Scheduling};
use flotilla_node::http;
use flotilla_node::node::{Node, StartError};
use flotilla_node::threads;
use std::path::PathBuf;
use std::process::ExitCode;

/// What `flotilla node` takes.
#[derive(Debug, Args)]
pub struct NodeArgs {
    /// Configuration, TOML.
    #[arg(long, required_unless_present = "standalone", conflicts_with = "standalone")]
    config: Option<PathBuf>,
    /// One process that needs nothing else: no PD, no certificates, one replica of everything.
    #[arg(long, requires = "dir")]
    standalone: bool,
    /// Where a standalone node keeps its data.
    #[arg(long, requires = "standalone")]
    dir: Option<PathBuf>,
    /// Plain RESP port of a standalone node; the cluster port is the next one, metrics the one
    /// after that.
    #[arg(long, default_value_t = 7379, requires = "standalone",
        value_parser = clap::value_parser!(u16).range(1..=65533))]
    port: u16,
    /// Groups of a standalone node, for good: a directory keeps what it was made with. Default: what the
    /// directory has; 4 for a new one.
    #[arg(long, requires = "standalone", value_parser = clap::value_parser!(u32).range(1..=64))]
    partitions: Option<u32>,
}

/// Serves until it is told to end.
pub fn run(args: NodeArgs) -> anyhow::Result<ExitCode> {
    let (config, standalone) = match (args.config, args.dir) {
        (Some(file), _) => (Config::load(&file).map_err(Exit::usage)?, false),
        (None, Some(dir)) => {
            let config = Config::standalone(dir, args.port);
            (Config { partitions: args.partitions, ..config }, true)
        }
        (None, None) => return Err(Exit::usage("give --config, or --standalone and --dir")),
    };
    http::install_metrics();
    if config.scheduling == Scheduling::Batch {
        threads::schedule_as_batch(); // where it is not to be had, nothing is lost but speed
    }
    let runtime = serve::runtime(config.threads)?;
    runtime.block_on(async {
        let mut stop = Stop::listen()?;
        let dir = config.dir.clone();
        let node = Node::start(config, standalone).await.map_err(explain)?;
        if standalone {
            let at = node.addresses();
            println!(
                "Flotilla node at {} (cluster port {}, metrics {}); data in {}",
                at.resp,
                at.cluster_resp,
                at.http,
                dir.display()
            );
        }
        let signal = stop.asked().await;
        tracing::info!(signal, "stopping");
        stop.leave(node.shutdown()).await;
        Ok(ExitCode::SUCCESS)
    })
}

fn explain(error: StartError) -> anyhow::Error {
    match error {
        StartError::Config(error) => Exit::usage(error),
        error => error.into(),
    }
}
