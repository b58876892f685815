//! A storage server, put together: opens its directory, joins its cluster, carries the groups that
//! the map gives it, serves clients and other processes, and leaves in good order.

mod backlog;
mod groups;
mod host;
mod identity;
mod standalone;
mod upkeep;

use crate::config::{Config, ConfigError};
use crate::engine::rocks::{Engine, EngineError};
use crate::http::Http;
use crate::log::{LogError, LogStore};
use crate::node::groups::GroupKeeper;
use crate::pd_client::PdClient;
use crate::raft::{Pace, RaftGroups};
use crate::router::{Places, Router};
use crate::rpc::{self, NodeService};
use crate::server::{Door, Server, ServerConfig, ServerConfigError};
use crate::tls::{Tls, TlsError};
use crate::transport;
use flotilla_topology::api::{NodeAddresses, NodeInfo};
use flotilla_topology::ids::Role;
use identity::IdentityError;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio_util::sync::CancellationToken;

/// Threads of the Raft runtime, at most, and one for each two of the machine's: what may take long there
/// gives its thread to others first, and more threads than work wake each other in vain.
const RAFT_THREADS_MAX: usize = 2;
/// How long clients' running commands may take to end when the node stops.
const CLIENT_GRACE: Duration = Duration::from_secs(2);

/// A node cannot start; one line that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration cannot hold.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The data directory is not this node's.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The limits for clients contradict each other.
    #[error(transparent)]
    Clients(#[from] ServerConfigError),
    /// The certificates cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The certificate is another process's.
    #[error("the certificate is for {found}, not for node `{name}` of cluster {cluster}")]
    WrongCertificate {
        /// What the certificate says.
        found: String,
        /// Who this node is.
        name: String,
        /// Its cluster.
        cluster: flotilla_topology::ids::ClusterId,
    },
    /// The data cannot be opened.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The log cannot be opened.
    #[error(transparent)]
    Log(#[from] LogError),
    /// An address cannot be listened on.
    #[error("cannot listen on {address} ({what}): {source}")]
    Listen {
        /// Which.
        address: String,
        /// What for.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
    /// PD refuses this node.
    #[error("PD refuses this node: {0}")]
    Refused(String),
    /// The system refuses threads.
    #[error("cannot start threads: {0}")]
    Threads(#[source] io::Error),
}

/// A running node.
pub struct Node {
    addresses: NodeAddresses,
    keeper: Arc<GroupKeeper>,
    server: Server,
    rpc: Option<transport::Server>,
    http: Option<Http>,
    stop: CancellationToken,
    raft_runtime: Option<Runtime>,
}

impl Node {
    /// Starts a member of a cluster, or a node that needs nothing else. Returns once it listens;
    /// groups follow as the map names them.
    pub async fn start(config: Config, standalone: bool) -> Result<Node, StartError> {
        config.validate(standalone)?;
        // Before anything counts: handles of metrics that are taken earlier count nowhere.
        crate::http::install_metrics();
        host::warn_about_the_machine();
        let identity =
            identity::open(&config.dir, config.cluster, &config.name, config.partitions)?;
        let tls = load_tls(&config, standalone)?;
        let (engine, logs) = open_stores(&config).await?;
        let raft_runtime = Builder::new_multi_thread()
            .worker_threads(raft_threads())
            .thread_name("flotilla-raft")
            .enable_all()
            .build()
            .map_err(StartError::Threads)?;
        let raft_handle = raft_runtime.handle().clone();
        let places = Places::new(
            config.name.clone(),
            config.datacenter.clone(),
            config.cluster,
            tls.clone(),
            raft_handle.clone(),
            Pace::new(config.raft.catch_up_bytes_per_second),
        );
        let raft = RaftGroups::default();
        let router = Router::new(places.clone(), config.limits.clone(), config.settings());
        let server = Server::new(router.clone(), server_config(&config))?;
        let listen = &config.listen;
        let resp = listen_on(&server, Door::Plain, &listen.resp).await?;
        let cluster_resp = listen_on(&server, Door::Cluster, &listen.cluster_resp).await?;
        let (rpc, rpc_address) = match &tls {
            Some(tls) => {
                let service = NodeService::new(places.clone(), raft.clone(), Handle::current());
                let server = bind_rpc(&config, tls, service, &raft_handle).await?;
                let address = server.local_addr().to_string();
                (Some(server), address)
            }
            None => (None, String::new()),
        };
        let stop = CancellationToken::new();
        raft.park_idle(&raft_handle, stop.clone());
        let keeper = GroupKeeper::new(&config, places.clone(), raft, engine, logs, raft_handle);
        let health = keeper.clone();
        let http =
            Http::bind(&listen.http, move || health.health(), axum::Router::new()).await.map_err(
                |source| StartError::Listen { address: listen.http.clone(), what: "http", source },
            )?;
        let addresses = NodeAddresses {
            resp,
            cluster_resp,
            rpc: rpc_address,
            http: http.local_addr().to_string(),
        };
        if standalone {
            let map = standalone::map(&config, &addresses, identity.partitions());
            standalone::serve(map, &places, &keeper, stop.clone());
        } else if let Some(tls) = &tls {
            let info = node_info(&config, &addresses);
            let cache = config.dir.join("map.json");
            let pd = PdClient::new(config.pd.clone(), tls.clone()).with_map_file(cache);
            groups::join(keeper.clone(), pd, info, identity.directory, stop.clone()).await?;
        }
        upkeep::start(
            keeper.clone(),
            router,
            config.dir.clone(),
            config.limits.disk_reserve,
            stop.clone(),
        );
        tracing::info!(
            node = %config.name, datacenter = %config.datacenter, resp = %addresses.resp,
            cluster_resp = %addresses.cluster_resp, http = %addresses.http, "node started"
        );
        let raft_runtime = Some(raft_runtime);
        Ok(Node { addresses, keeper, server, rpc, http: Some(http), stop, raft_runtime })
    }

    /// Where it listens.
    pub fn addresses(&self) -> &NodeAddresses {
        &self.addresses
    }

    /// Leaves in good order: takes no more commands, hands its leaderships over, makes what it
    /// applied durable, stops.
    pub async fn shutdown(mut self) {
        self.keeper.hand_over().await;
        self.server.shutdown(CLIENT_GRACE).await;
        // A group may have come back meanwhile: to others we are alive, and perhaps preferred.
        self.keeper.hand_over().await;
        self.stop.cancel();
        self.keeper.stop().await;
        if let Some(rpc) = self.rpc.take() {
            rpc.shutdown().await;
        }
        if let Some(http) = self.http.take() {
            http.shutdown().await;
        }
        if let Some(runtime) = self.raft_runtime.take() {
            runtime.shutdown_background();
        }
        tracing::info!("node stopped");
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stop.cancel();
        // A runtime must not be dropped where waiting is not allowed.
        if let Some(runtime) = self.raft_runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn raft_threads() -> usize {
    let machine = std::thread::available_parallelism().map_or(1, usize::from);
    (machine / 2).clamp(1, RAFT_THREADS_MAX)
}

fn load_tls(config: &Config, standalone: bool) -> Result<Option<Tls>, StartError> {
    let Some(files) = config.tls.as_ref().filter(|_| !standalone) else { return Ok(None) };
    let tls = Tls::load(files)?;
    let found = tls.identity();
    let wanted = (config.cluster, Role::Node, config.name.as_str());
    if (found.cluster, found.role, found.name.as_str()) != wanted {
        return Err(StartError::WrongCertificate {
            found: found.to_string(),
            name: config.name.clone(),
            cluster: config.cluster,
        });
    }
    Ok(Some(tls))
}

async fn open_stores(config: &Config) -> Result<(Arc<Engine>, Arc<LogStore>), StartError> {
    let memory = config.memory_bytes();
    let dir = config.dir.clone();
    let (data, log) = (config.storage.engine(memory), config.storage.log(memory));
    let opened = tokio::task::spawn_blocking(move || {
        let engine = Engine::open(&dir.join("data"), &data)?;
        let logs = LogStore::open(&dir.join("log"), &log)?;
        Ok::<_, StartError>((engine, logs))
    });
    opened.await.map_err(|error| StartError::Threads(io::Error::other(error)))?
}

fn server_config(config: &Config) -> ServerConfig {
    let limits = &config.limits;
    let defaults = ServerConfig::default();
    let mut requests = defaults.limits;
    requests.bulk_bytes = limits.value_bytes_max.max(limits.key_bytes_max);
    requests.args = limits.arguments_max;
    ServerConfig {
        clients_max: limits.connections_max,
        limits: requests,
        output_bytes_max: limits.output_bytes_max,
        clients_memory_max: limits.clients_memory_max,
        requirepass: config.requirepass.clone(),
        ..defaults
    }
}

async fn listen_on(server: &Server, door: Door, address: &str) -> Result<String, StartError> {
    let what = match door {
        Door::Plain => "resp",
        Door::Cluster => "cluster_resp",
    };
    match server.listen(door, address).await {
        Ok(local) => Ok(local.to_string()),
        Err(source) => Err(StartError::Listen { address: address.to_owned(), what, source }),
    }
}

async fn bind_rpc(
    config: &Config,
    tls: &Tls,
    service: Arc<NodeService>,
    runtime: &Handle,
) -> Result<transport::Server, StartError> {
    let (address, cluster) = (config.listen.rpc.clone(), config.cluster);
    let failed =
        |source| StartError::Listen { address: config.listen.rpc.clone(), what: "rpc", source };
    let tls = tls.clone();
    runtime
        .spawn(async move {
            transport::Server::bind(address, &tls, rpc::allows(cluster), service).await
        })
        .await
        .map_err(|error| failed(io::Error::other(error)))?
        .map_err(failed)
}

/// What the node tells PD of itself: advertised addresses, with the ports that the system chose
/// where the configuration left that open (port 0).
fn node_info(config: &Config, bound: &NodeAddresses) -> NodeInfo {
    NodeInfo {
        name: config.name.clone(),
        datacenter: config.datacenter.clone(),
        addresses: config.advertise.clone().unwrap_or_else(|| bound.clone()),
        advertise: config.advertise_to.clone(),
        alive: true,
    }
}
