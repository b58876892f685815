//! `flotilla status`: how each cluster stands. Exit code 1 when PD reports a problem.

use crate::find::{self, Told, Where};
use crate::links;
use crate::serve;
use clap::Args;
use flotilla_topology::api::{ClusterStatus, LeaderHint, NodeInfo};
use serde_json::json;
use std::fmt::Write;
use std::process::ExitCode;

/// What `flotilla status` takes.
#[derive(Debug, Args)]
pub struct StatusArgs {
    #[command(flatten)]
    place: Where,
    /// Print everything that the PDs say, as JSON.
    #[arg(long)]
    json: bool,
}

/// Runs `flotilla status`.
pub fn run(args: StatusArgs) -> anyhow::Result<ExitCode> {
    let known = args.place.clusters()?;
    let answers = serve::block_on(async { Ok(find::ask_all(known).await) })?;
    let told = &answers.told;
    let well = told.iter().all(|one| one.status.problems.is_empty());
    let healthy = well && answers.silent.is_empty();
    if args.json {
        let clusters: Vec<&ClusterStatus> = told.iter().map(|one| &one.status).collect();
        let value = json!({ "healthy": healthy, "clusters": clusters, "silent": answers.silent });
        println!("{}", serde_json::to_string_pretty(&value)?);
    } else {
        print!("{}", text(told)?);
    }
    Ok(answers.code(well))
}

fn text(told: &[Told]) -> Result<String, std::fmt::Error> {
    let mut out = String::new();
    for one in told {
        cluster(&mut out, &one.status)?;
    }
    Ok(out)
}

/// One cluster, for people.
pub fn cluster(out: &mut String, status: &ClusterStatus) -> std::fmt::Result {
    let map = &status.map;
    writeln!(
        out,
        "cluster {} (id {}): {} nodes, {} groups, map epoch {}",
        map.name,
        map.cluster,
        map.nodes.len(),
        map.groups.len(),
        map.epoch
    )?;
    for node in &map.nodes {
        writeln!(out, "  {}", node_line(status, node))?;
    }
    for syncer in &map.syncers {
        let (name, datacenter) = (&syncer.name, &syncer.datacenter);
        writeln!(out, "  syncer {name} in {datacenter}: {}", up(syncer.alive))?;
    }
    for ns in &map.namespaces {
        let spec = &ns.spec;
        let synced = if spec.synced { "synced" } else { "not synced" };
        writeln!(
            out,
            "  namespace {}: {} groups of {} replicas, {synced}",
            spec.name, spec.partitions, spec.replicas
        )?;
    }
    for link in links::outgoing(status) {
        writeln!(
            out,
            "  link to {}: {}, lag p50 {} p99 {}, {} entries wait, {}",
            link.to,
            link.state_word(),
            links::shown_or_dash(link.lag_p50_seconds),
            links::shown_or_dash(link.lag_p99_seconds),
            link.backlog_entries,
            link.compared()
        )?;
    }
    if status.problems.is_empty() {
        writeln!(out, "  healthy")?;
    }
    for problem in &status.problems {
        writeln!(out, "  problem: {problem}")?;
    }
    Ok(())
}

fn node_line(status: &ClusterStatus, node: &NodeInfo) -> String {
    let leads = |hint: &Option<LeaderHint>| hint.as_ref().is_some_and(|h| h.node == node.name);
    let led = status.map.groups.iter().filter(|group| leads(&group.leader)).count();
    format!(
        "node {} in {}: {}, leads {led} groups, clients at {} (cluster port {})",
        node.name,
        node.datacenter,
        up(node.alive),
        node.addresses.resp,
        node.addresses.cluster_resp
    )
}

fn up(alive: bool) -> &'static str {
    if alive { "up" } else { "DOWN" }
}
