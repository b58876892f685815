//! The `flotilla` executable: maps arguments to the crates, and results to exit codes.

mod cert;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// A Redis-protocol store that spans datacenters.
#[derive(Debug, Parser)]
#[command(name = "flotilla", version, about, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make and show certificates.
    Cert(cert::CertArgs),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Cert(args) => cert::run(args),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("flotilla: {error:#}");
        ExitCode::from(2)
    })
}
