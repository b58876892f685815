//! `flotilla link`: what operators do with the links between clusters, through PD.
//!
//! `list` asks the read-only ports, as `status` does. Everything else changes something: it goes to
//! the internal port of the PD of the *sending* cluster, with a certificate of role client, and with
//! `--dry-run` only tells what would happen. Exit code 1 when PD refuses, 3 when none answers.

use crate::exit::{self, Exit};
use crate::find::{self, Where};
use crate::lag::columns;
use crate::links::{self, LinkSummary};
use crate::serve;
use crate::state::{ClientFiles, StateFile};
use clap::{Args, Subcommand};
use flotilla_chaos::wan::parse_duration;
use flotilla_node::pd_client::{PdClient, PdError};
use flotilla_node::tls::{Tls, TlsFiles};
use flotilla_topology::api::{LinkOp, PdRequest, PdResponse, PeerCluster};
use flotilla_topology::ids::ClusterId;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// What `flotilla link` takes.
#[derive(Debug, Args)]
pub struct LinkArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show every link: standing, states of its groups, backlog, runway, floor, clocks.
    List(ListArgs),
    /// Ship nothing to a peer until it is resumed. Logs are kept for it, up to the backlog budget.
    Pause(PeerArgs),
    /// Go on shipping to a paused peer.
    Resume(PeerArgs),
    /// Open all streams to a peer anew, at the cursors that it has. Costs nothing.
    Rewind(PeerArgs),
    /// Compare all rows with a peer's and send what it lacks.
    Merge(PeerArgs),
    /// Give a peer up: it holds nothing back any more, and its streams are refused.
    Fence(PeerArgs),
    /// Let a fenced peer come back; it merges its state first.
    Return(PeerArgs),
    /// Add a peer while PD runs.
    Add(AddArgs),
    /// Forget a peer, which must be paused or fenced.
    Remove(PeerArgs),
}

#[derive(Debug, Args)]
struct ListArgs {
    #[command(flatten)]
    place: Where,
    /// Print as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct PeerArgs {
    /// Name or id of the cluster at the other end.
    peer: String,
    #[command(flatten)]
    operator: Operator,
}

#[derive(Debug, Args)]
struct AddArgs {
    /// Name of the new peer, as in its own configuration.
    peer: String,
    /// Its id, 1 to 255.
    #[arg(long)]
    id: u8,
    /// `host:port` (UDP) where one of its syncers takes links; repeat it for each.
    #[arg(long, value_name = "ADDR", required = true)]
    syncer: Vec<String>,
    /// Round trip time to it; sizes windows and timeouts.
    #[arg(long, value_parser = parse_duration)]
    rtt: Option<Duration>,
    #[command(flatten)]
    operator: Operator,
}

/// Where the PD of the cluster to change is (that which sends, for a link), and who asks.
#[derive(Debug, Args)]
pub struct Operator {
    /// Only tell what would happen.
    #[arg(long)]
    pub dry_run: bool,
    /// State file of a demo; it names PD and certificates.
    #[arg(long, value_name = "FILE", required_unless_present = "pd_rpc")]
    state: Option<PathBuf>,
    /// The cluster to change in the state file (that which sends, for a link); needed when there are
    /// several others than the peer.
    #[arg(long, value_name = "NAME", requires = "state")]
    cluster: Option<String>,
    /// `host:port` of the internal port of a PD of that cluster; repeat it for all of them.
    #[arg(long, value_name = "ADDR", conflicts_with = "state", requires_all = ["ca", "cert", "key"])]
    pd_rpc: Vec<String>,
    /// The authority's certificate.
    #[arg(long, value_name = "FILE", requires = "pd_rpc")]
    ca: Option<PathBuf>,
    /// Certificate of role client of the sending cluster.
    #[arg(long, value_name = "FILE", requires = "pd_rpc")]
    cert: Option<PathBuf>,
    /// Its key.
    #[arg(long, value_name = "FILE", requires = "pd_rpc")]
    key: Option<PathBuf>,
}

/// Runs `flotilla link`.
pub fn run(args: LinkArgs) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::List(args) => list(&args),
        Command::Pause(args) => operate(args, LinkOp::Pause),
        Command::Resume(args) => operate(args, LinkOp::Resume),
        Command::Rewind(args) => operate(args, LinkOp::Rewind),
        Command::Merge(args) => operate(args, LinkOp::Merge),
        Command::Fence(args) => operate(args, LinkOp::Fence),
        Command::Return(args) => operate(args, LinkOp::Return),
        Command::Remove(args) => operate(args, LinkOp::Remove),
        Command::Add(args) => {
            let AddArgs { peer, id, syncer, rtt, operator } = args;
            let new = PeerCluster {
                id: ClusterId(id),
                name: peer.clone(),
                syncers: syncer,
                rtt_ms: rtt.map(|rtt| rtt.as_secs_f64() * 1e3),
                ..PeerCluster::default()
            };
            operate(PeerArgs { peer, operator }, LinkOp::Add { peer: new })
        }
    }
}

fn list(args: &ListArgs) -> anyhow::Result<ExitCode> {
    let known = args.place.clusters()?;
    let answers = serve::block_on(async { Ok(find::ask_all(known).await) })?;
    let all: Vec<LinkSummary> =
        answers.told.iter().flat_map(|one| links::outgoing(&one.status)).collect();
    if args.json {
        println!("{}", serde_json::to_string_pretty(&all)?);
    } else if !answers.told.is_empty() {
        print!("{}", table(&all));
    }
    Ok(answers.code(true))
}

fn table(all: &[LinkSummary]) -> String {
    if all.is_empty() {
        return "no links: one cluster needs none\n".to_owned();
    }
    let head = [
        "link", "standing", "groups", "entries", "bytes", "runway", "floor", "clock", "compared",
        "",
    ];
    let mut rows = vec![head.map(str::to_owned)];
    rows.extend(all.iter().map(|link| {
        let clock = link.clock_offset_ms.map_or_else(|| "-".to_owned(), |ms| format!("{ms:+} ms"));
        [
            format!("{} -> {}", link.from, link.to),
            link.standing.word().to_owned(),
            link.states_shown(),
            link.backlog_entries.to_string(),
            link.backlog_bytes.to_string(),
            link.runway_seconds.map_or_else(|| "-".to_owned(), links::long),
            link.floor_age_seconds.map_or_else(|| "-".to_owned(), links::long),
            clock,
            link.compared(),
            if link.is_live() { String::new() } else { link.detail.clone() },
        ]
    }));
    columns(&rows)
}

fn operate(args: PeerArgs, op: LinkOp) -> anyhow::Result<ExitCode> {
    let PeerArgs { peer, operator } = args;
    let (addresses, files) = operator.find(Some(&peer))?;
    let request = PdRequest::Link { peer, op, dry_run: operator.dry_run };
    let (lines, done) = serve::block_on(ask(addresses, files, request))?;
    print_plan(&lines, done);
    Ok(ExitCode::SUCCESS)
}

/// What an operation does, or would do.
pub fn print_plan(lines: &[String], done: bool) {
    lines.iter().for_each(|line| println!("{line}"));
    if !done {
        println!("dry run: nothing was done");
    }
}

/// Asks the PDs of a cluster for an operation on a link or a namespace. Returns what it tells, and
/// whether it was done.
pub async fn ask(
    addresses: Vec<String>,
    files: ClientFiles,
    request: PdRequest,
) -> anyhow::Result<(Vec<String>, bool)> {
    match call(addresses, files, request).await? {
        PdResponse::LinkPlan { lines, done } => Ok((lines, done)),
        _ => anyhow::bail!("PD answers something else: is it of the same version?"),
    }
}

/// Asks the PDs of a cluster; what they refuse is an error.
pub async fn call(
    addresses: Vec<String>,
    files: ClientFiles,
    request: PdRequest,
) -> anyhow::Result<PdResponse> {
    let ClientFiles { ca, cert, key } = files;
    let tls = Tls::load(&TlsFiles { ca, cert, key }).map_err(Exit::usage)?;
    PdClient::new(addresses, tls).call(request).await.map_err(|error| match error {
        PdError::Refused(reason) => Exit::error(exit::FAILED, reason),
        error @ PdError::Unavailable(_) => Exit::error(exit::CANNOT_CONNECT, error.to_string()),
    })
}

impl Operator {
    /// Addresses of the PDs to ask, and the certificate to ask with; without a peer it must be clear
    /// otherwise which cluster is meant.
    pub fn find(&self, peer: Option<&str>) -> anyhow::Result<(Vec<String>, ClientFiles)> {
        if let (Some(ca), Some(cert), Some(key)) = (&self.ca, &self.cert, &self.key) {
            let (ca, cert, key) = (ca.clone(), cert.clone(), key.clone());
            return Ok((self.pd_rpc.clone(), ClientFiles { ca, cert, key }));
        }
        let Some(file) = &self.state else {
            return Err(Exit::usage("give --state, or --pd-rpc with --ca, --cert and --key"));
        };
        let mut clusters = StateFile::load(file)?.clusters;
        let names: Vec<String> = clusters.iter().map(|cluster| cluster.name.clone()).collect();
        match &self.cluster {
            Some(name) => clusters.retain(|cluster| cluster.name == *name),
            None => clusters.retain(|one| {
                peer.is_none_or(|peer| one.name != peer && one.id.to_string() != peer)
            }),
        }
        let [cluster] = clusters.as_slice() else {
            let names = names.join(", ");
            return Err(Exit::usage(format!(
                "name the cluster to change with --cluster: one of {names}"
            )));
        };
        let Some(files) = cluster.client.clone() else {
            let name = &cluster.name;
            return Err(Exit::usage(format!("the state file names no certificate for {name}")));
        };
        Ok((cluster.pd.iter().map(|pd| pd.rpc.clone()).collect(), files))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        link: LinkArgs,
    }

    fn parses(words: &str) -> bool {
        Cli::try_parse_from(std::iter::once("link").chain(words.split(' '))).is_ok()
    }

    #[test]
    fn it_must_be_clear_whom_to_ask_and_with_what() {
        for good in [
            "list --state s.json",
            "list --pd h:1 --pd h:2",
            "pause west --state s.json --dry-run",
            "fence 2 --state s.json --cluster east",
            "return west --pd-rpc h:1 --ca a --cert b --key c",
            "add west --id 2 --syncer h:1 --syncer h:2 --rtt 60ms --state s.json",
        ] {
            assert!(parses(good), "{good}");
        }
        for bad in [
            "list",
            "pause --state s.json",
            "pause west",
            "pause west --pd-rpc h:1",
            "pause west --pd-rpc h:1 --ca a --cert b",
            "pause west --state s.json --pd-rpc h:1 --ca a --cert b --key c",
            "pause west --cluster east",
            "add west --id 2 --state s.json",
            "add west --id 300 --syncer h:1 --state s.json",
            "explode west --state s.json",
        ] {
            assert!(!parses(bad), "{bad}");
        }
    }
}
