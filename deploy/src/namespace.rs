//! `flotilla namespace`: what namespaces there are, new ones, and sync for one that has data.
//!
//! `list` asks the read-only ports. `create` and `sync` change something: they go to the internal port
//! of a PD, with a certificate of role client. Exit code 1 when PD refuses, 3 when none answers.

use crate::exit::Exit;
use crate::find::{self, Where};
use crate::lag::columns;
use crate::link::{self, Operator};
use crate::serve;
use clap::{Args, Subcommand};
use flotilla_topology::api::{ClusterStatus, NamespaceInfo, NamespaceSpec, PdRequest, PdResponse};
use std::process::ExitCode;

/// What `flotilla namespace` takes.
#[derive(Debug, Args)]
pub struct NamespaceArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show every namespace of every cluster.
    List(ListArgs),
    /// Create a namespace. Repeating the same is fine.
    Create(CreateArgs),
    /// Keep a namespace in step with the other clusters from now on, with the data that it has. Cannot
    /// be undone.
    Sync(SyncArgs),
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
struct CreateArgs {
    /// 1 to 64 characters of `a-z A-Z 0-9 . _ -`.
    name: String,
    /// How many groups share its slots, 1 to 1024.
    #[arg(long, default_value_t = 8)]
    partitions: u32,
    /// Replicas of each group: 1, 3 or 5.
    #[arg(long, default_value_t = 3)]
    replicas: u8,
    /// Keep it in step with the other clusters from the beginning.
    #[arg(long)]
    synced: bool,
    #[command(flatten)]
    operator: Operator,
}

#[derive(Debug, Args)]
struct SyncArgs {
    /// The namespace.
    name: String,
    #[command(flatten)]
    operator: Operator,
}

/// Runs `flotilla namespace`.
pub fn run(args: NamespaceArgs) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::List(args) => list(&args),
        Command::Create(args) => create(args),
        Command::Sync(args) => {
            let SyncArgs { name, operator } = args;
            let (addresses, files) = operator.find(None)?;
            let request = PdRequest::SyncNamespace { name, dry_run: operator.dry_run };
            let (lines, done) = serve::block_on(link::ask(addresses, files, request))?;
            link::print_plan(&lines, done);
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn create(args: CreateArgs) -> anyhow::Result<ExitCode> {
    let CreateArgs { name, partitions, replicas, synced, operator } = args;
    if operator.dry_run {
        return Err(Exit::usage("creating a namespace has no dry run: it can be dropped again"));
    }
    let (addresses, files) = operator.find(None)?;
    let spec = NamespaceSpec { name, partitions, replicas, synced };
    let request = PdRequest::CreateNamespace { spec };
    let answer = serve::block_on(link::call(addresses, files, request))?;
    let PdResponse::Namespace { namespace } = answer else {
        anyhow::bail!("PD answers something else: is it of the same version?");
    };
    println!("{}", line(&namespace));
    Ok(ExitCode::SUCCESS)
}

fn list(args: &ListArgs) -> anyhow::Result<ExitCode> {
    let known = args.place.clusters()?;
    let answers = serve::block_on(async { Ok(find::ask_all(known).await) })?;
    let all: Vec<&ClusterStatus> = answers.told.iter().map(|one| &one.status).collect();
    if args.json {
        let of = |status: &&ClusterStatus| serde_json::json!({ "cluster": status.map.name, "namespaces": status.map.namespaces });
        let all: Vec<serde_json::Value> = all.iter().map(of).collect();
        println!("{}", serde_json::to_string_pretty(&all)?);
    } else if !all.is_empty() {
        print!("{}", table(&all));
    }
    Ok(answers.code(true))
}

fn table(all: &[&ClusterStatus]) -> String {
    let head = ["cluster", "namespace", "groups", "replicas", "sync"];
    let mut rows = vec![head.map(str::to_owned)];
    for status in all {
        for namespace in &status.map.namespaces {
            let NamespaceSpec { name, partitions, replicas, .. } = &namespace.spec;
            let (groups, replicas) = (partitions.to_string(), replicas.to_string());
            let sync = sync_in_words(namespace).to_owned();
            rows.push([status.map.name.clone(), name.clone(), groups, replicas, sync]);
        }
    }
    columns(&rows)
}

fn line(namespace: &NamespaceInfo) -> String {
    let NamespaceSpec { name, partitions, replicas, .. } = &namespace.spec;
    format!("{name}, {partitions} groups, {replicas} replicas, {}", sync_in_words(namespace))
}

fn sync_in_words(namespace: &NamespaceInfo) -> &'static str {
    match (namespace.spec.synced, namespace.switched) {
        (false, _) => "not synced",
        (true, false) => "synced",
        (true, true) => "synced, switched on later",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        namespace: NamespaceArgs,
    }

    fn parses(words: &str) -> bool {
        Cli::try_parse_from(std::iter::once("namespace").chain(words.split(' '))).is_ok()
    }

    #[test]
    fn it_must_be_clear_which_namespace_and_whom_to_ask() {
        for good in [
            "list --state s.json",
            "list --pd h:1 --json",
            "create jobs --partitions 4 --replicas 1 --synced --state s.json --cluster east",
            "sync jobs --state s.json --cluster east --dry-run",
            "sync jobs --pd-rpc h:1 --ca a --cert b --key c",
        ] {
            assert!(parses(good), "{good}");
        }
        for bad in
            ["list", "sync", "sync jobs", "sync --state s.json", "unsync jobs --state s.json"]
        {
            assert!(!parses(bad), "{bad}");
        }
    }

    #[test]
    fn a_namespace_says_how_it_came_to_be_synced() {
        let spec =
            |synced| NamespaceSpec { name: "jobs".into(), partitions: 4, replicas: 3, synced };
        let said = |synced, switched| {
            let id = flotilla_topology::ids::NamespaceId(1);
            line(&NamespaceInfo { id, spec: spec(synced), switched })
        };
        assert_eq!(said(false, false), "jobs, 4 groups, 3 replicas, not synced");
        assert_eq!(said(true, false), "jobs, 4 groups, 3 replicas, synced");
        assert!(said(true, true).ends_with("synced, switched on later"));
    }
}
