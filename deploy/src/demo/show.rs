//! What the demo prints about itself.

use super::fleet::Fleet;
use super::layout::{Cluster, Layout};
use crate::links;
use crate::status;
use flotilla_chaos::process::State;
use flotilla_topology::api::ClusterStatus;
use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

/// Characters of the live line: it must not wrap on a terminal of usual width.
const LIVE_MAX: usize = 110;

/// Where to connect and what to try.
pub fn welcome(layout: &Layout, rtt: Duration, took: Duration, state: &Path, dir: &Path) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = write_welcome(&mut out, layout, rtt, took, state, dir);
    out
}

fn write_welcome(
    out: &mut String,
    layout: &Layout,
    rtt: Duration,
    took: Duration,
    state: &Path,
    dir: &Path,
) -> std::fmt::Result {
    let rtt = format!("{} ms round trip between them (emulated)", rtt.as_secs_f64() * 1e3);
    let what = match layout.mode {
        "async" => format!("a cluster in each of {} datacenters, {rtt}", layout.datacenters.len()),
        "stretched" => format!("one cluster over {} datacenters, {rtt}", layout.datacenters.len()),
        _ => "one cluster in one datacenter".to_owned(),
    };
    writeln!(out, "Flotilla demo: {what}; ready in {:.1} s.\n", took.as_secs_f64())?;
    for cluster in &layout.clusters {
        for datacenter in &cluster.datacenters {
            datacenter_lines(out, cluster, datacenter)?;
        }
    }
    writeln!(out, "\nTry, in another terminal:")?;
    let places = places(layout);
    let (first, last) = (&places[0].1, &places[places.len() - 1].1);
    let (state, me) = (state.display(), own_name());
    writeln!(out, "  redis-cli -p {first} SET hello world")?;
    if places.len() > 1 {
        writeln!(out, "  redis-cli -p {last} GET hello")?;
        writeln!(out, "  redis-cli -p {first} INCR visits; redis-cli -p {last} INCR visits")?;
    }
    writeln!(out, "  {me} status --state {state}")?;
    if layout.clusters.len() > 1 {
        writeln!(out, "  {me} lag --watch --state {state}")?;
        writeln!(out, "  {me} verify --state {state}")?;
    }
    writeln!(out, "Then break it, here or with `{me} demo-ctl --state {state} ...`:")?;
    if let [a, .., b] = layout.datacenters.as_slice() {
        writeln!(out, "  cut {a} {b}     heal     wan {a} {b} --rtt 150ms --loss 1%")?;
    }
    let victim = &layout.clusters[0].nodes[0].name;
    writeln!(out, "  kill {victim}     restart {victim}     status     help")?;
    writeln!(out, "Logs and data are in {}. Ctrl-C stops everything.", dir.display())
}

/// How this executable is called: by its name if the shell finds it, or else by its path.
fn own_name() -> String {
    let Ok(me) = std::env::current_exe() else { return "flotilla".to_owned() };
    let name = me.file_name().unwrap_or(me.as_os_str()).to_owned();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|dir| dir.join(&name)).find(|at| at.is_file());
    let same = found.and_then(|at| at.canonicalize().ok()).is_some_and(|at| at == me);
    if same { name.to_string_lossy().into_owned() } else { me.display().to_string() }
}

/// Datacenters with the plain port of their first node.
fn places(layout: &Layout) -> Vec<(String, String)> {
    let mut places: Vec<(String, String)> = Vec::new();
    for node in layout.clusters.iter().flat_map(|cluster| &cluster.nodes) {
        if !places.iter().any(|(datacenter, _)| *datacenter == node.datacenter) {
            places.push((node.datacenter.clone(), port(&node.at.resp).to_owned()));
        }
    }
    places
}

fn datacenter_lines(out: &mut String, cluster: &Cluster, datacenter: &str) -> std::fmt::Result {
    let nodes = cluster.nodes.iter().filter(|node| node.datacenter == datacenter);
    let (plain, doors): (Vec<&str>, Vec<&str>) =
        nodes.map(|node| (port(&node.at.resp), port(&node.at.cluster_resp))).unzip();
    writeln!(
        out,
        "  {datacenter:<10} redis-cli -p {}   nodes at 127.0.0.1:{}, cluster ports {}",
        plain.first().unwrap_or(&"?"),
        plain.join(","),
        doors.join(",")
    )?;
    if cluster.pd.datacenter == datacenter {
        writeln!(out, "  {:<10} http://{}", "", cluster.pd.http)?;
    }
    Ok(())
}

fn port(address: &str) -> &str {
    address.rsplit_once(':').map_or(address, |(_, port)| port)
}

/// One line about lag; empty without links.
pub fn live_line(statuses: &[ClusterStatus]) -> String {
    let links = statuses.iter().flat_map(links::outgoing);
    let parts: Vec<String> = links
        .map(|link| {
            let name = format!("{} -> {}", link.from, link.to);
            if !link.is_live() {
                let behind = links::shown(link.lag_seconds);
                return format!("{name} {}, {behind} behind", link.state_word());
            }
            match link.lag_p50_seconds {
                Some(p50) => {
                    let p99 = links::shown_or_dash(link.lag_p99_seconds);
                    format!("{name} {} (p99 {p99})", links::shown(p50))
                }
                None => format!("{name} idle"),
            }
        })
        .collect();
    if parts.is_empty() {
        return String::new();
    }
    format!("lag: {}", parts.join(" | ")).chars().take(LIVE_MAX).collect()
}

/// Answer to `status`.
pub fn overview(fleet: &Fleet, statuses: &[ClusterStatus]) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = write_overview(&mut out, fleet, statuses);
    out
}

fn write_overview(out: &mut String, fleet: &Fleet, statuses: &[ClusterStatus]) -> std::fmt::Result {
    for (name, state) in fleet.states() {
        match state {
            State::Running { pid } => writeln!(out, "{name:<16} pid {pid}")?,
            State::Ended { status, .. } => writeln!(out, "{name:<16} ENDED ({status})")?,
        }
    }
    for (from, to, path, traffic) in fleet.relay.lanes() {
        writeln!(
            out,
            "network {from} -> {to}: {path}; {} bytes so far, {} lost",
            traffic.bytes,
            traffic.lost + traffic.cut + traffic.overflowed
        )?;
    }
    for one in statuses {
        status::cluster(out, one)?;
    }
    let silent = fleet.layout.clusters.len().saturating_sub(statuses.len());
    if silent > 0 {
        writeln!(out, "{silent} PD does not answer")?;
    }
    Ok(())
}
