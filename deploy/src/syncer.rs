//! `flotilla syncer`: the edge of a cluster.

use crate::exit::Exit;
use crate::serve::{self, Stop};
use clap::Args;
use flotilla_node::http;
use flotilla_syncer::{Config, Syncer};
use std::path::PathBuf;
use std::process::ExitCode;

/// What `flotilla syncer` takes.
#[derive(Debug, Args)]
pub struct SyncerArgs {
    /// Configuration, TOML.
    #[arg(long)]
    config: PathBuf,
}

/// Serves until it is told to end.
pub fn run(args: SyncerArgs) -> anyhow::Result<ExitCode> {
    let config = Config::load(&args.config).map_err(Exit::usage)?;
    http::install_metrics();
    let runtime = serve::runtime(None)?;
    runtime.block_on(async {
        let mut stop = Stop::listen()?;
        let syncer = Syncer::start(config).await?;
        let signal = stop.asked().await;
        tracing::info!(signal, "stopping");
        stop.leave(syncer.shutdown()).await;
        Ok(ExitCode::SUCCESS)
    })
}
