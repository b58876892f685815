//! Clusters: who they are, where they stand and how they are reached.

use super::super::raw::{At, RawCluster, RawFile};
use super::super::{CLUSTER_DATACENTERS_MAX, Cluster, Datacenter, REPLICAS_DEFAULT};
use super::{Checker, UNNAMED};
use crate::ids::ClusterId;
use std::collections::BTreeMap;
use toml::Spanned;

/// What must not stand twice in the file, with the line where it stood first.
#[derive(Default)]
struct Seen {
    ids: BTreeMap<u8, usize>,
    names: BTreeMap<String, usize>,
    pd: BTreeMap<String, usize>,
    syncers: BTreeMap<String, usize>,
}

pub(super) fn clusters(
    checker: &mut Checker<'_>,
    raw: &RawFile,
    datacenters: &[At<Datacenter>],
) -> Vec<At<Cluster>> {
    let known: Vec<&str> = datacenters.iter().map(|d| d.value.name.as_str()).collect();
    let mut seen = Seen::default();
    let linked = raw.clusters.len() > 1;
    let clusters: Vec<At<Cluster>> = raw
        .clusters
        .iter()
        .map(|table| cluster(checker, &mut seen, &known, linked, table))
        .collect();
    // A datacenter that only a broken cluster mentions is not left over.
    let mentioned = |name: &str| {
        raw.clusters.iter().flat_map(|c| &c.get_ref().datacenters).any(|d| d.get_ref() == name)
    };
    for datacenter in datacenters {
        if !raw.clusters.is_empty() && !mentioned(&datacenter.value.name) {
            checker.problem(
                datacenter.line,
                format!("no cluster stands in datacenter {}", datacenter.value.name),
                "add it to a cluster's datacenters, give it a cluster, or delete it",
            );
        }
    }
    clusters
}

fn cluster(
    checker: &mut Checker<'_>,
    seen: &mut Seen,
    known: &[&str],
    linked: bool,
    table: &Spanned<RawCluster>,
) -> At<Cluster> {
    let At { line, value } = checker.lines.locate(table);
    // What a cluster is called and how it is reached does not change what its loss would mean.
    let before = checker.problems.len();
    let name = checker.name("cluster", line, value.name.as_ref());
    if let Some(name) = &name {
        checker.unique("cluster", &mut seen.names, name.value.clone(), name.line);
    }
    let label = name.as_ref().map_or(UNNAMED.to_owned(), |name| format!("cluster {}", name.value));
    let id = id(checker, &mut seen.ids, &label, line, value.id.as_ref());
    let pd = addresses(checker, &mut seen.pd, "PD address", &value.pd);
    if value.pd.is_empty() {
        let message = format!("{label} has no PD");
        checker.problem(line, message, "add pd = [\"host:port\"]");
    }
    let syncers = addresses(checker, &mut seen.syncers, "syncer address", &value.syncers);
    if linked && value.syncers.is_empty() {
        let message = format!("{label} is to be linked and has no syncer that others could reach");
        checker.problem(line, message, "add syncers = [\"host:port\"]");
    }
    checker.aside += checker.problems.len() - before;

    let datacenters = stands_in(checker, known, &label, line, &value.datacenters);
    let replicas = replicas(checker, value.replicas.as_ref());
    // Placeholders go no further: there is a problem, so nobody gets to see the topology.
    let id = id.unwrap_or(ClusterId(0));
    let name = name.unwrap_or(At { line, value: label });
    let value = Cluster { id, name: name.value, datacenters, pd, syncers, replicas };
    At { line: name.line, value }
}

fn id(
    checker: &mut Checker<'_>,
    seen: &mut BTreeMap<u8, usize>,
    label: &str,
    table: usize,
    id: Option<&Spanned<i64>>,
) -> Option<ClusterId> {
    let Some(id) = id else {
        checker.problem(table, format!("{label} has no id"), "add id = ..., from 1 to 255");
        return None;
    };
    let At { line, value } = checker.lines.locate(id);
    match u8::try_from(*value) {
        Ok(id) if id > 0 => {
            checker.unique("cluster id", seen, id, line);
            Some(ClusterId(id))
        }
        _ => {
            let message = format!("cluster id {value} is not from 1 to 255");
            checker.problem(line, message, "choose one that no cluster has ever had");
            None
        }
    }
}

fn stands_in(
    checker: &mut Checker<'_>,
    known: &[&str],
    label: &str,
    table: usize,
    datacenters: &[Spanned<String>],
) -> Vec<String> {
    if datacenters.is_empty() {
        let message = format!("{label} stands in no datacenter");
        checker.problem(table, message, "add datacenters = [\"...\"]");
    }
    if let Some(extra) = datacenters.get(CLUSTER_DATACENTERS_MAX) {
        let line = checker.lines.locate(extra).line;
        let message = format!("{label} spans more than {CLUSTER_DATACENTERS_MAX} datacenters");
        checker.problem(line, message, "make several clusters of it and link them");
    }
    let mut names: Vec<String> = Vec::new();
    for datacenter in datacenters {
        let name = checker.lines.locate(datacenter);
        if names.contains(name.value) {
            let message = format!("{label} names datacenter {} twice", name.value);
            checker.problem(name.line, message, "delete one of the two");
        } else if checker.known("datacenter", &name, known) {
            names.push(name.value.clone());
        }
    }
    names
}

fn addresses(
    checker: &mut Checker<'_>,
    seen: &mut BTreeMap<String, usize>,
    what: &str,
    addresses: &[Spanned<String>],
) -> Vec<String> {
    let mut good = Vec::new();
    for address in addresses {
        let At { line, value } = checker.lines.locate(address);
        if is_address(value) {
            checker.unique(what, seen, value.clone(), line);
            good.push(value.clone());
        } else {
            let message = format!("{what} {value:?} is not host:port");
            checker.problem(line, message, "write it as in \"10.0.0.1:7200\" or \"[::1]:7200\"");
        }
    }
    good
}

/// `host:port`, an IPv6 address in brackets.
fn is_address(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let digits = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    let port = digits && port.parse::<u16>().is_ok_and(|port| port > 0);
    let host_is_good = match host.strip_prefix('[') {
        Some(inner) => {
            inner.strip_suffix(']').is_some_and(|v6| v6.parse::<std::net::Ipv6Addr>().is_ok())
        }
        None => {
            let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
            !host.is_empty() && host.len() <= 253 && host.bytes().all(plain)
        }
    };
    port && host_is_good
}

fn replicas(checker: &mut Checker<'_>, replicas: Option<&Spanned<i64>>) -> u8 {
    let Some(replicas) = replicas else { return REPLICAS_DEFAULT };
    let At { line, value } = checker.lines.locate(replicas);
    match value {
        1 => 1,
        3 => 3,
        5 => 5,
        _ => {
            let message = format!("{value} replicas are not 1, 3 or 5");
            checker.problem(line, message, "use 3, or 5 where two nodes may fail at once");
            REPLICAS_DEFAULT
        }
    }
}

#[cfg(test)]
mod tests {
    use super::is_address;

    #[test]
    fn addresses_are_host_and_port() {
        for good in ["127.0.0.1:7000", "east.example.com:1", "[::1]:65535", "n_1:7"] {
            assert!(is_address(good), "{good}");
        }
        for bad in
            ["", ":1", "a", "a:", "a:0", "a:65536", "a:+1", "::1:7", "[::1]", "[x]:1", "a b:1"]
        {
            assert!(!is_address(bad), "{bad}");
        }
    }
}
