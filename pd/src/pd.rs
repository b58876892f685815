//! A PD in this process: store, driver, and both ports.

use crate::config::{Config, StoreConfig};
use crate::driver::{Door, Driver, Fatal};
use crate::server::PdService;
use crate::store::Store;
use crate::store::embedded::EmbeddedStore;
use crate::store::etcd::EtcdStore;
use crate::web::Web;
use flotilla_node::config::ConfigError;
use flotilla_node::http::Http;
use flotilla_node::tls::{Tls, TlsError};
use flotilla_node::transport::Server;
use flotilla_topology::ids::Role;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Why a PD cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration or the topology file.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The certificates.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The certificate is of somebody else.
    #[error(
        "the certificate says {certificate}, the configuration flotilla://{cluster}/pd/{name}: let \
         both be the same"
    )]
    Identity {
        /// Who the certificate names.
        certificate: String,
        /// Cluster by the configuration.
        cluster: u8,
        /// Name by the configuration.
        name: String,
    },
    /// A port.
    #[error("cannot listen on {address} ({key}): {source}; set another one or stop what uses it")]
    Listen {
        /// The key of the configuration.
        key: &'static str,
        /// Its value.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// The store, which may be another cluster's, damaged or in use.
    #[error("{0}")]
    Store(String),
}

/// A running PD. Dropping it stops it without ceremony.
pub struct Pd {
    rpc: Server,
    http: Http,
    /// Taken when it ended: a task can be awaited once.
    driver: Option<JoinHandle<Result<(), Fatal>>>,
    stop: CancellationToken,
    _guard: DropGuard,
}

impl Pd {
    /// Starts a PD. With the embedded store it leads when this returns; with etcd it may follow.
    pub async fn start(config: Config) -> Result<Pd, StartError> {
        config.validate()?;
        let settings = config.settings()?;
        let tls = Tls::load(&config.tls)?;
        let identity = tls.identity();
        if (identity.cluster, identity.role, &identity.name)
            != (config.cluster, Role::Pd, &config.name)
        {
            return Err(StartError::Identity {
                certificate: identity.to_string(),
                cluster: config.cluster.0,
                name: config.name.clone(),
            });
        }
        let listen = |source| StartError::Listen {
            key: "listen.rpc",
            address: config.listen.rpc.clone(),
            source,
        };
        let listener = TcpListener::bind(&config.listen.rpc).await.map_err(listen)?;
        let me = match &config.advertise {
            Some(address) => address.clone(),
            None => listener.local_addr().map_err(listen)?.to_string(),
        };
        let store = open_store(&config, me)?;
        let stop = CancellationToken::new();
        let (driver, door) = Driver::new(settings, store, stop.clone());
        let service = Arc::new(PdService::new(door.clone(), stop.clone()));
        let cluster = config.cluster;
        let ours = move |peer: &flotilla_topology::ids::Identity| peer.cluster == cluster;
        let rpc = Server::serve(listener, &tls, ours, service).map_err(listen)?;
        let http = open_http(&config, &door).await?;
        let mut pd = Pd {
            rpc,
            http,
            driver: Some(tokio::spawn(driver.run())),
            _guard: stop.clone().drop_guard(),
            stop,
        };
        if config.store == StoreConfig::Embedded {
            pd.wait_to_lead(&door).await?;
        }
        tracing::info!(
            name = config.name, rpc = %pd.rpc_addr(), http = %pd.http_addr(), "PD is up"
        );
        Ok(pd)
    }

    /// Where the rpc port listens.
    pub fn rpc_addr(&self) -> SocketAddr {
        self.rpc.local_addr()
    }

    /// Where the page is.
    pub fn http_addr(&self) -> SocketAddr {
        self.http.local_addr()
    }

    /// Waits until this PD cannot go on, and says why; never returns otherwise. The process should
    /// end then.
    pub async fn failed(&mut self) -> String {
        let Some(driver) = &mut self.driver else { return std::future::pending().await };
        let ended = driver.await;
        self.driver = None;
        match ended {
            Ok(Err(fatal)) => fatal.to_string(),
            // Only `stop` ends it well, and that consumes the PD.
            Ok(Ok(())) => std::future::pending().await,
            Err(error) => format!("PD's driver ended: {error}"),
        }
    }

    /// Gives up the lead, answers who waits, and closes both ports.
    pub async fn shutdown(self) {
        self.stop.cancel();
        if let Some(driver) = self.driver
            && let Ok(Err(fatal)) = driver.await
        {
            tracing::error!("{fatal}");
        }
        self.rpc.shutdown().await;
        self.http.shutdown().await;
    }

    async fn wait_to_lead(&mut self, door: &Door) -> Result<(), StartError> {
        let mut view = door.watch();
        tokio::select! {
            reason = self.failed() => Err(StartError::Store(reason)),
            // The sender lives in the driver: its end is told by the other branch.
            Ok(_) = view.wait_for(Option::is_some) => Ok(()),
        }
    }
}

fn open_store(config: &Config, me: String) -> Result<Arc<dyn Store>, StartError> {
    Ok(match &config.store {
        StoreConfig::Embedded => {
            let dir = config.dir.join("store");
            std::fs::create_dir_all(&dir).map_err(|error| {
                StartError::Store(format!("cannot create {}: {error}", dir.display()))
            })?;
            Arc::new(
                EmbeddedStore::open(&dir).map_err(|error| StartError::Store(error.to_string()))?,
            )
        }
        StoreConfig::Etcd(etcd) => {
            Arc::new(EtcdStore::new(etcd.endpoints.clone(), config.cluster, me, etcd.lease_seconds))
        }
    })
}

async fn open_http(config: &Config, door: &Door) -> Result<Http, StartError> {
    let web = Web::new(
        config.name.clone(),
        config.cluster,
        config.cluster_name.clone(),
        door.clone(),
        &config.peers,
    );
    let well = Arc::clone(&web);
    let address = &config.listen.http;
    let http = Http::bind(address, move || well.health(), web.router()).await;
    http.map_err(|source| StartError::Listen {
        key: "listen.http",
        address: address.clone(),
        source,
    })
}
