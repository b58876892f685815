//! Three etcd nodes: starts them, fills them and asks them, by the `etcd-client` crate.
//!
//! A connection is an HTTP/2 connection to one node. With a pipeline of 16 it has 16 requests in
//! flight at any time, each answered by itself: RESP waits for a whole batch, so this is the kinder
//! of the two.

use super::case::{self, Command, Material};
use super::generator::{Door, Measured, Target};
use super::kind::Kind;
use super::peers::{PATIENCE, empty_dir};
use super::{Config, Server};
use crate::process::{HeldPort, Plan, Runner};
use anyhow::{Context, Result, bail};
use etcd_client::{Client, Txn, TxnOp};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use std::time::Instant;

pub(super) use etcd_client::KvClient;

/// Nodes.
const NODES: usize = 3;
/// Bytes that a node may keep: all versions of all values of a run. Its default of 2 GiB is for less.
const QUOTA: &str = "8589934592";
/// Puts of one transaction while keys are written before the measurement: its default limit is 128.
const LOAD_PUTS: usize = 100;
/// Bytes of such a transaction; its limit is 1.5 MiB.
const LOAD_BYTES: usize = 1 << 20;
/// Such transactions in flight.
const LOAD_INFLIGHT: usize = 8;

/// Starts three nodes that sync each write, as etcd does by itself, and waits until they serve.
pub(super) async fn start(runner: &Runner, config: &Config) -> Result<Server> {
    let dir = empty_dir(config, "etcd")?;
    let mut ports = Vec::new();
    for _ in 0..2 * NODES {
        ports.push(HeldPort::any()?);
    }
    let at = |port: &HeldPort| format!("http://{}", port.address());
    let (clients, peers): (Vec<String>, Vec<String>) =
        ports.chunks(2).map(|pair| (at(&pair[0]), at(&pair[1]))).unzip();
    drop(ports);
    let names: Vec<String> = (1..=NODES).map(|number| format!("etcd-{number}")).collect();
    let pairs = names.iter().zip(&peers);
    let cluster: Vec<String> = pairs.map(|(name, peer)| format!("{name}={peer}")).collect();
    let cluster = cluster.join(",");
    let mut processes = Vec::new();
    for (name, (client, peer)) in names.iter().zip(clients.iter().zip(&peers)) {
        let data = dir.join(name).display().to_string();
        let args: [&str; 22] = [
            "--name",
            name,
            "--data-dir",
            &data,
            "--listen-client-urls",
            client,
            "--advertise-client-urls",
            client,
            "--listen-peer-urls",
            peer,
            "--initial-advertise-peer-urls",
            peer,
            "--initial-cluster",
            &cluster,
            "--initial-cluster-state",
            "new",
            "--initial-cluster-token",
            "flotilla-bench",
            "--quota-backend-bytes",
            QUOTA,
            "--log-level",
            "warn",
        ];
        let plan = Plan {
            name: name.clone(),
            program: config.etcd.clone(),
            args: args.into_iter().map(Into::into).collect(),
            env: vec![],
            log: dir.join(format!("{name}.log")),
            health: None,
        };
        let started = runner.start(plan);
        let pid = started.context("etcd is needed to compare with: `make setup` installs it")?;
        processes.push((name.clone(), pid));
    }
    let deadline = Instant::now() + PATIENCE;
    for address in &clients {
        while let Err(error) = connect(address).await {
            if Instant::now() > deadline {
                bail!("etcd does not serve ({error:#}); its logs are in {}", dir.display());
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    }
    let target = |address| Target { door: Door::Etcd, address, keys: None };
    Ok(Server::new(Kind::Etcd, clients.into_iter().map(target).collect(), processes))
}

/// Connects to one node, and reads once: a connection is made when it is first used.
pub(super) async fn connect(address: &str) -> Result<KvClient> {
    let client = Client::connect([address], None).await?;
    let mut keys = client.kv_client();
    let read = tokio::time::timeout(PATIENCE, keys.get("bench", None)).await;
    read.ok()
        .context("no answer in time")
        .and_then(|read| Ok(read?))
        .with_context(|| format!("cannot ask etcd at {address}"))?;
    Ok(keys)
}

/// What a request came to.
pub(super) struct Done {
    /// Bytes of key and value.
    pub(super) user_bytes: usize,
    /// False: a read that found nothing.
    pub(super) found: bool,
}

/// One put, or one linearizable read.
pub(super) async fn exchange(
    client: &mut KvClient,
    command: Command,
    key: String,
    with: &mut Material,
) -> Result<Done> {
    let size = key.len();
    match command {
        Command::Set => {
            let value = with.value().to_vec();
            let user_bytes = size + value.len();
            client.put(key, value, None).await?;
            Ok(Done { user_bytes, found: true })
        }
        Command::Get => {
            // Without options the range is not `serializable`, so the read is linearizable.
            let found = !client.get(key, None).await?.kvs().is_empty();
            Ok(Done { user_bytes: size, found })
        }
        other => bail!("etcd has no {}", other.name()),
    }
}

/// Writes all keys below `keys`, in large transactions.
pub(super) async fn load(targets: &[Target], keys: u32, value_bytes: usize) -> Result<Measured> {
    let client = connect(&targets[0].address).await?;
    let mut with = Material::new(SmallRng::seed_from_u64(0), value_bytes);
    let puts = (LOAD_BYTES / (value_bytes + 64)).clamp(1, LOAD_PUTS);
    let numbers: Vec<u32> = (0..keys).collect();
    for some in numbers.chunks(puts * LOAD_INFLIGHT) {
        let writes = some.chunks(puts).map(|chunk| {
            let put = |number: &u32| TxnOp::put(case::key(*number), with.value(), None);
            let txn = Txn::new().and_then(chunk.iter().map(put).collect::<Vec<_>>());
            let mut client = client.clone();
            async move { client.txn(txn).await }
        });
        let writes: Vec<_> = writes.collect();
        futures::future::try_join_all(writes).await.context("etcd does not take the keys")?;
    }
    Ok(Measured { operations: u64::from(keys), ..Measured::nothing()? })
}
