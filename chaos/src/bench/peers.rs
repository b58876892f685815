//! The servers that are started here: redis-server in two ways, kvrocks, a standalone node.

use super::generator::{Door, Target};
use super::kind::Kind;
use super::{Config, Server, etcd};
use crate::process::{HeldPort, Plan, Runner};
use crate::resp::Client;
use anyhow::{Context, Result, bail};
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How long a server may take to start or to answer a question.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// Clients that redis-server and kvrocks let in: more than `--idle` may ask for.
const CLIENTS_MAX: &str = "60000";
/// Ports that a standalone node takes: plain, cluster, metrics.
const STANDALONE_PORTS: u16 = 3;

/// Starts a server that is no door of the Flotilla cluster.
pub(super) async fn start(kind: Kind, runner: &Runner, config: &Config) -> Result<Server> {
    match kind {
        Kind::Redis => redis(kind, true, runner, config).await,
        Kind::RedisUnsynced => redis(kind, false, runner, config).await,
        Kind::Kvrocks => kvrocks(runner, config).await,
        Kind::Etcd => etcd::start(runner, config).await,
        Kind::Standalone => standalone(runner, config).await,
        kind => bail!("{kind} is a door of the cluster"),
    }
}

/// An empty directory of that name: what an earlier run left would be loaded.
pub(super) fn empty_dir(config: &Config, name: &str) -> Result<PathBuf> {
    let dir = config.dir.join(name);
    if dir.exists() {
        std::fs::remove_dir_all(&dir).with_context(|| format!("cannot empty {}", dir.display()))?;
    }
    std::fs::create_dir_all(&dir)?;
    Ok(dir)
}

async fn redis(kind: Kind, synced: bool, runner: &Runner, config: &Config) -> Result<Server> {
    let dir = empty_dir(config, kind.name())?;
    let aof = if synced { "yes" } else { "no" };
    let port = HeldPort::any()?;
    let number = port.port().to_string();
    let args: [&str; 16] = [
        "--port",
        &number,
        "--bind",
        "127.0.0.1",
        "--appendonly",
        aof,
        "--appendfsync",
        "always",
        "--save",
        "",
        "--auto-aof-rewrite-percentage",
        "0",
        "--maxclients",
        CLIENTS_MAX,
        "--daemonize",
        "no",
    ];
    let mut args: Vec<OsString> = args.into_iter().map(Into::into).collect();
    args.extend(["--dir".into(), dir.into_os_string()]);
    serve(kind, config.redis_server.clone(), args, port, runner, config).await
}

async fn kvrocks(runner: &Runner, config: &Config) -> Result<Server> {
    let program = config.kvrocks.clone().context("kvrocks is measured with --kvrocks PATH only")?;
    let dir = empty_dir(config, Kind::Kvrocks.name())?;
    let port = HeldPort::any()?;
    // Written as redis-server is asked to: the log is synced before a write is acknowledged.
    let text = format!(
        "bind 127.0.0.1\nport {}\ndir {}\nmaxclients {CLIENTS_MAX}\ndaemonize no\nlog-dir stdout\n\
         rocksdb.write_options.sync yes\n",
        port.port(),
        dir.display()
    );
    let file = dir.join("kvrocks.conf");
    std::fs::write(&file, text)?;
    let args = vec!["-c".into(), file.into_os_string()];
    serve(Kind::Kvrocks, program, args, port, runner, config).await
}

async fn standalone(runner: &Runner, config: &Config) -> Result<Server> {
    let dir = empty_dir(config, Kind::Standalone.name())?;
    let (first, others) = ports_in_a_row()?;
    let number = first.port().to_string();
    let mut args: Vec<OsString> =
        ["node", "--standalone", "--port", &number].map(Into::into).into();
    args.extend(["--dir".into(), dir.join("data").into_os_string()]);
    drop(others);
    serve(Kind::Standalone, config.flotilla.clone(), args, first, runner, config).await
}

/// As many free ports in a row as a standalone node takes.
fn ports_in_a_row() -> Result<(HeldPort, Vec<HeldPort>)> {
    const TRIES_MAX: usize = 50;
    for _ in 0..TRIES_MAX {
        let first = HeldPort::any()?;
        let others = (1..STANDALONE_PORTS).map(|n| HeldPort::wanted(first.port() + n));
        if let Ok(others) = others.collect() {
            return Ok((first, others));
        }
    }
    bail!("there are no {STANDALONE_PORTS} free ports in a row")
}

/// Starts a RESP server at a port that is held until now, and waits until it answers.
async fn serve(
    kind: Kind,
    program: PathBuf,
    args: Vec<OsString>,
    port: HeldPort,
    runner: &Runner,
    config: &Config,
) -> Result<Server> {
    let address = port.address().to_string();
    let log = config.dir.join(kind.name()).join("log");
    let plan = Plan {
        name: kind.name().into(),
        program,
        args,
        env: vec![],
        log: log.clone(),
        health: None,
    };
    drop(port);
    let pid = runner.start(plan).with_context(|| format!("{kind} is needed to compare with"))?;
    let deadline = Instant::now() + PATIENCE;
    while let Err(error) = ping(&address).await {
        if Instant::now() > deadline {
            bail!("{kind} does not answer ({error:#}); its log is {}", log.display());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let targets = vec![Target { door: Door::Resp, address, keys: None }];
    Ok(Server::new(kind, targets, vec![(kind.name().into(), pid)]))
}

async fn ping(address: &str) -> Result<()> {
    let reply = Client::connect(address, PATIENCE).await?.call(&["PING"]).await?;
    if reply.text().as_deref() == Some("PONG") { Ok(()) } else { bail!("{reply:?} for PING") }
}
