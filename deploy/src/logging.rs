//! Logs: text or JSON, to standard error, with levels per module.

use crate::exit::Exit;
use clap::{Args, ValueEnum};
use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;

/// Levels of servers unless told otherwise. The libraries named here tell in `info` what their
/// callers tell anyway.
const SERVER_LEVELS: &str = "info,openraft=warn,raft_engine=warn,quinn=warn,rustls=warn";
/// Levels of commands: their output is what they print.
const COMMAND_LEVELS: &str = "warn,openraft=error,quinn=error";

/// Arguments of every subcommand.
#[derive(Debug, Clone, Args)]
pub struct LogArgs {
    /// Levels, also per module: `info`, `warn,flotilla_node::raft=debug`.
    #[arg(long, global = true, value_name = "LEVELS")]
    log: Option<String>,
    /// How lines look.
    #[arg(long, global = true, value_name = "FORMAT", default_value = "text")]
    log_format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people.
    Text,
    /// For machines: an object a line.
    Json,
}

/// Who writes the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A process that serves.
    Server,
    /// A command that answers and ends.
    Command,
}

/// Begins to log. To be called once.
pub fn start(args: &LogArgs, kind: Kind) -> anyhow::Result<()> {
    let levels = args.log.as_deref().unwrap_or(match kind {
        Kind::Server => SERVER_LEVELS,
        Kind::Command => COMMAND_LEVELS,
    });
    let filter = EnvFilter::try_new(levels)
        .map_err(|error| Exit::usage(format!("--log {levels}: {error}")))?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match args.log_format {
        Format::Text => log.with_ansi(std::io::stderr().is_terminal()).init(),
        Format::Json => log.json().flatten_event(true).init(),
    }
    Ok(())
}
