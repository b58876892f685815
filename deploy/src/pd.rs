//! `flotilla pd`: a placement driver.

use crate::exit::Exit;
use crate::serve::{self, Stop};
use clap::Args;
use flotilla_node::http;
use flotilla_pd::{Config, Pd, StartError};
use std::path::PathBuf;
use std::process::ExitCode;

/// What `flotilla pd` takes.
#[derive(Debug, Args)]
pub struct PdArgs {
    /// Configuration, TOML.
    #[arg(long)]
    config: PathBuf,
}

/// Serves until it is told to end or cannot go on.
pub fn run(args: PdArgs) -> anyhow::Result<ExitCode> {
    let config = Config::load(&args.config).map_err(Exit::usage)?;
    http::install_metrics();
    let runtime = serve::runtime(None)?;
    runtime.block_on(async {
        let mut stop = Stop::listen()?;
        let mut pd = Pd::start(config).await.map_err(explain)?;
        tokio::select! {
            signal = stop.asked() => tracing::info!(signal, "stopping"),
            reason = pd.failed() => anyhow::bail!("PD cannot go on: {reason}"),
        }
        stop.leave(pd.shutdown()).await;
        Ok(ExitCode::SUCCESS)
    })
}

fn explain(error: StartError) -> anyhow::Error {
    match error {
        StartError::Config(error) => Exit::usage(error),
        error => error.into(),
    }
}
