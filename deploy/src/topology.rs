//! `flotilla topology check`: whether a topology file holds, and what it amounts to.

use crate::exit::{self, Exit};
use clap::{Args, Subcommand};
use flotilla_topology::check::Check;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// What `flotilla topology` takes.
#[derive(Debug, Args)]
pub struct TopologyArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check a topology file: its mode and why, its clusters and links, and what each loss leaves.
    /// Exit code 1 if it does not hold.
    Check {
        /// The file, TOML.
        file: PathBuf,
        /// Print the result as JSON.
        #[arg(long)]
        json: bool,
    },
}

/// Runs `flotilla topology`.
pub fn run(args: TopologyArgs) -> anyhow::Result<ExitCode> {
    let Command::Check { file, json } = args.command;
    check(&file, json)
}

fn check(file: &Path, json: bool) -> anyhow::Result<ExitCode> {
    let shown = file.display().to_string();
    let text = std::fs::read_to_string(file)
        .map_err(|error| Exit::usage(format!("cannot read {shown}: {error}")))?;
    let check = Check::of(&text);
    if json {
        println!("{}", serde_json::to_string_pretty(&check)?);
    } else {
        print!("{}", check.text(&shown));
    }
    Ok(if check.ok { ExitCode::SUCCESS } else { ExitCode::from(exit::FAILED) })
}
