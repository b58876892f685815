//! `flotilla census`: counts the rows of every replica of every cluster by a whole scan: what is
//! live, and what waits to be collected. Exit code 0 when nothing waits, 6 when something does.

use crate::exit::{self, Exit};
use crate::find::{self, Known, Where};
use crate::serve;
use crate::state::ClientFiles;
use anyhow::{Context, bail};
use clap::Args;
use flotilla_node::group::census::{Census, encode_request};
use flotilla_node::group::remote::Answer;
use flotilla_node::tls::{Tls, TlsFiles};
use flotilla_node::transport::{Class, Client, Expect, kinds};
use flotilla_topology::api::ClusterMap;
use flotilla_topology::ids::Role;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// A replica reads all its rows.
const DEADLINE: Duration = Duration::from_secs(120);

/// What `flotilla census` takes.
#[derive(Debug, Args)]
pub struct CensusArgs {
    #[command(flatten)]
    place: Where,
    /// The authority's certificate; a state file names it already.
    #[arg(long, requires = "cert")]
    ca: Option<PathBuf>,
    /// Certificate of role client of the cluster that is asked.
    #[arg(long, requires = "key")]
    cert: Option<PathBuf>,
    /// Its key.
    #[arg(long, requires = "ca")]
    key: Option<PathBuf>,
}

/// Runs `flotilla census`.
pub fn run(args: CensusArgs) -> anyhow::Result<ExitCode> {
    let known = args.place.clusters()?;
    let given = match (args.ca, args.cert, args.key) {
        (Some(ca), Some(cert), Some(key)) => Some(ClientFiles { ca, cert, key }),
        _ => None,
    };
    let counts = serve::block_on(count_all(known, given.as_ref()))?;
    let headers = ["keys", "elements", "dead heads", "floors", "tombstones", "lapsed", "queued"];
    println!("{:<20} {}", "replica", headers.map(|header| format!("{header:>11}")).concat());
    for Counted { node, census, .. } in &counts {
        let Census { keys, elements, dead_heads, floors, tombstones, lapsed, queued } = *census;
        let numbers = [keys, elements, dead_heads, floors, tombstones, lapsed, queued];
        println!("{node:<20} {}", numbers.map(|number| format!("{number:>11}")).concat());
    }
    let waits: u64 = counts.iter().map(|one| one.census.garbage()).sum();
    Ok(if waits == 0 { ExitCode::SUCCESS } else { ExitCode::from(exit::MOVING) })
}

/// What a scan of a node has counted.
pub struct Counted {
    /// Name of its cluster.
    pub cluster: String,
    /// Its name.
    pub node: String,
    /// All its replicas of synced namespaces together.
    pub census: Census,
}

/// Scans all replicas of these clusters. `given` goes before the certificates that are known of them.
pub async fn count_all(
    known: Vec<Known>,
    given: Option<&ClientFiles>,
) -> anyhow::Result<Vec<Counted>> {
    let mut all = Vec::new();
    for told in find::ask_all(known).await.all()? {
        let files = given.or(told.known.client.as_ref()).ok_or_else(|| {
            Exit::usage("nodes ask for a certificate: give --state, or --ca, --cert and --key")
        })?;
        let ClientFiles { ca, cert, key } = files.clone();
        let tls = Tls::load(&TlsFiles { ca, cert, key })?;
        let map = &told.status.map;
        for (node, census) in count(&tls, map).await? {
            all.push(Counted { cluster: map.name.clone(), node, census });
        }
    }
    Ok(all)
}

/// The counts of every node of a cluster, over its groups of synced namespaces.
async fn count(tls: &Tls, map: &ClusterMap) -> anyhow::Result<BTreeMap<String, Census>> {
    let mut counts: BTreeMap<String, Census> = BTreeMap::new();
    let synced = |id| map.namespaces.iter().any(|ns| ns.id == id && ns.spec.synced);
    for group in map.groups.iter().filter(|group| synced(group.namespace)) {
        for replica in &group.replicas {
            let info = map.nodes.iter().find(|info| info.name == replica.node);
            let info = info.with_context(|| format!("node {} is not in the map", replica.node))?;
            let (cluster, role) = (map.cluster, Role::Node);
            let expect = Expect { cluster, role, name: Some(replica.node.clone()) };
            let client = Client::new(info.addresses.rpc.clone(), tls, expect);
            let payload = encode_request(group.id);
            let answer = client.call(Class::Bulk, kinds::CENSUS, payload, DEADLINE).await;
            let answer =
                answer.with_context(|| format!("node {} does not answer", replica.node))?;
            match Answer::<Census>::decode(&answer)? {
                Answer::Done(census) => *counts.entry(replica.node.clone()).or_default() += census,
                other => bail!("node {}: {other:?}", replica.node),
            }
        }
    }
    Ok(counts)
}
