//! The `flotilla` executable: maps arguments to the crates, and results to exit codes.

mod bench;
mod census;
mod cert;
mod chaos;
mod demo;
mod exit;
mod find;
mod fuzz;
mod lag;
mod link;
mod links;
mod logging;
mod namespace;
mod node;
mod pd;
mod serve;
mod simulate;
mod state;
mod status;
mod syncer;
mod topology;
mod verify;

use clap::{Parser, Subcommand};
use logging::Kind;
use std::process::ExitCode;
use tikv_jemallocator::Jemalloc;

#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// A Redis-protocol store that spans datacenters.
///
/// Exit codes: 0 done, or the answer is yes; 1 failed, or the answer is no; 2 wrong usage;
/// 3 cannot connect; 5 not in time; 6 still moving, or a part cannot be reached.
#[derive(Debug, Parser)]
#[command(name = "flotilla", version, max_term_width = 100)]
struct Cli {
    #[command(flatten)]
    log: logging::LogArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a storage server.
    Node(node::NodeArgs),
    /// Run a placement driver.
    Pd(pd::PdArgs),
    /// Run the edge of a cluster: links to other clusters.
    Syncer(syncer::SyncerArgs),
    /// Run datacenters on this machine, to try and to break.
    Demo(demo::DemoArgs),
    /// Give a command to a running demo.
    DemoCtl(demo::CtlArgs),
    /// Show how clusters stand.
    Status(status::StatusArgs),
    /// Show how far each cluster is behind each other one.
    Lag(lag::LagArgs),
    /// Pause, rewind, merge, fence, add and remove links between clusters.
    Link(link::LinkArgs),
    /// List and create namespaces, and switch sync on for one that has data.
    Namespace(namespace::NamespaceArgs),
    /// Compare what clusters hold.
    Verify(verify::VerifyArgs),
    /// Count rows: what is live, and what waits to be collected.
    Census(census::CensusArgs),
    /// Run clusters, break them, and check what clients saw.
    Chaos(Box<chaos::ChaosArgs>),
    /// Run histories of clusters without processes, and check that all come to the same.
    Simulate(simulate::SimulateArgs),
    /// Give damaged bytes to every decoder of what arrives.
    Fuzz(fuzz::FuzzArgs),
    /// Measure three nodes beside redis-server, etcd and others.
    Bench(bench::BenchArgs),
    /// Make and show certificates.
    Cert(cert::CertArgs),
    /// Check a topology file.
    Topology(topology::TopologyArgs),
}

impl Command {
    fn kind(&self) -> Kind {
        match self {
            Command::Node(_) | Command::Pd(_) | Command::Syncer(_) => Kind::Server,
            _ => Kind::Command,
        }
    }

    fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            Command::Node(args) => node::run(args),
            Command::Pd(args) => pd::run(args),
            Command::Syncer(args) => syncer::run(args),
            Command::Demo(args) => demo::run(args),
            Command::DemoCtl(args) => demo::control(args),
            Command::Status(args) => status::run(args),
            Command::Lag(args) => lag::run(args),
            Command::Link(args) => link::run(args),
            Command::Namespace(args) => namespace::run(args),
            Command::Verify(args) => verify::run(args),
            Command::Census(args) => census::run(args),
            Command::Chaos(args) => chaos::run(*args),
            Command::Simulate(args) => simulate::run(args),
            Command::Fuzz(args) => fuzz::run(args),
            Command::Bench(args) => bench::run(args),
            // What it refuses is how it was asked.
            Command::Cert(args) => cert::run(args).map_err(exit::Exit::usage_chain),
            Command::Topology(args) => topology::run(args),
        }
    }
}

/// A server with a part of it gone would go on looking alive: it is better dead, so that others
/// take over and whoever watches it starts it again.
fn die_of_panics() {
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        tell(panic);
        std::process::abort();
    }));
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    if cli.command.kind() == Kind::Server {
        die_of_panics();
    }
    let outcome = logging::start(&cli.log, cli.command.kind()).and_then(|()| cli.command.run());
    outcome.unwrap_or_else(|error| {
        eprintln!("flotilla: {error:#}");
        exit::code_of(&error)
    })
}
