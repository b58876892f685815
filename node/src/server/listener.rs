//! Listens at the two doors and gives each client a task of its own.

use super::backend::{Backend, Door};
use super::clients::Clients;
use super::config::{ServerConfig, ServerConfigError};
use super::connection::serve;
use super::line::linger;
use super::memory::{Budget, Charge};
use super::session::Session;
use super::stats::Stats;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// After a failed accept (no file descriptors left, mostly) nothing is gained by trying at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// A peer that vanished without a word is noticed by probes after this much silence.
const KEEPALIVE: Duration = Duration::from_secs(300);
/// Refused clients that are being told so at a time; more are closed without a word.
const REFUSALS_MAX: usize = 64;

/// What all connections share.
pub(super) struct Shared {
    pub(super) backend: Arc<dyn Backend>,
    pub(super) config: ServerConfig,
    pub(super) stats: Stats,
    pub(super) clients: Arc<Clients>,
    pub(super) budget: Arc<Budget>,
    pub(super) started: Instant,
    /// 40 hex digits, new for each start.
    pub(super) run_id: String,
    refusals: std::sync::atomic::AtomicUsize,
    /// Ports of the plain and the cluster door.
    pub(super) ports: parking_lot::Mutex<[u16; 2]>,
}

impl Shared {
    pub(super) fn new(backend: Arc<dyn Backend>, config: ServerConfig) -> Shared {
        let budget = Budget::new(config.clients_memory_max);
        let digits = || format!("{:032x}", rand::random::<u128>());
        Shared {
            backend,
            config,
            stats: Stats::new(),
            clients: Arc::default(),
            budget,
            started: Instant::now(),
            run_id: [digits(), digits()].concat()[..40].to_owned(),
            refusals: Default::default(),
            ports: Default::default(),
        }
    }
}

/// The RESP server of a node.
pub struct Server {
    shared: Arc<Shared>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Server {
    /// A server that listens nowhere yet. Install the metrics recorder before.
    pub fn new(
        backend: Arc<dyn Backend>,
        config: ServerConfig,
    ) -> Result<Server, ServerConfigError> {
        config.validate()?;
        let shared = Arc::new(Shared::new(backend, config));
        Ok(Server { shared, stop: CancellationToken::new(), tasks: TaskTracker::new() })
    }

    /// Opens a door at `address` (`host:port`; port 0 picks a free one) and tells where it is.
    pub async fn listen(&self, door: Door, address: &str) -> io::Result<SocketAddr> {
        let listener = TcpListener::bind(address).await?;
        let local = listener.local_addr()?;
        self.shared.ports.lock()[door as usize] = local.port();
        let accept = accept(
            listener,
            door,
            self.shared.clone(),
            self.stop.child_token(),
            self.tasks.clone(),
        );
        self.tasks.spawn(accept);
        Ok(local)
    }

    /// Connections at present, over both doors.
    pub fn clients(&self) -> usize {
        self.shared.stats.clients.load(Ordering::Relaxed)
    }

    /// Closes the doors, lets every connection finish its batch, and closes them. Connections that
    /// have not ended within `grace` go on to do so by themselves.
    pub async fn shutdown(&self, grace: Duration) {
        self.stop.cancel();
        self.tasks.close();
        if tokio::time::timeout(grace, self.tasks.wait()).await.is_err() {
            tracing::warn!(clients = self.clients(), "some clients are not done yet");
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn accept(
    listener: TcpListener,
    door: Door,
    shared: Arc<Shared>,
    stop: CancellationToken,
    tasks: TaskTracker,
) {
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let Some(place) = Place::take(&shared, door) else {
                    refuse(stream, &shared, &tasks);
                    continue;
                };
                // A token of its own: all that wait on one share a lock, and take it at each read.
                let stop = stop.child_token();
                tasks.spawn(client(stream, peer, place, shared.clone(), stop));
            }
            Err(error) => {
                tracing::warn!(door = door.as_str(), %error, "cannot accept a client");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// One of `clients_max` places; given back when dropped, also by a panic.
pub(super) struct Place {
    shared: Arc<Shared>,
    door: Door,
}

impl Place {
    pub(super) fn take(shared: &Arc<Shared>, door: Door) -> Option<Place> {
        let clients = &shared.stats.clients;
        if clients.fetch_add(1, Ordering::Relaxed) >= shared.config.clients_max {
            clients.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        shared.stats.connected(door);
        Some(Place { shared: shared.clone(), door })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.shared.stats.clients.fetch_sub(1, Ordering::Relaxed);
        self.shared.stats.disconnected(self.door);
    }
}

/// Tells a client that there are too many, without waiting for it.
fn refuse(mut stream: TcpStream, shared: &Arc<Shared>, tasks: &TaskTracker) {
    shared.stats.reject();
    if shared.refusals.fetch_add(1, Ordering::Relaxed) >= REFUSALS_MAX {
        shared.refusals.fetch_sub(1, Ordering::Relaxed);
        return;
    }
    let shared = shared.clone();
    tasks.spawn(async move {
        if stream.write_all(b"-ERR max number of clients reached\r\n").await.is_ok() {
            linger(&mut stream).await;
        }
        shared.refusals.fetch_sub(1, Ordering::Relaxed);
    });
}

async fn client(
    stream: TcpStream,
    peer: SocketAddr,
    place: Place,
    shared: Arc<Shared>,
    stop: CancellationToken,
) {
    let door = place.door;
    let local = stream.local_addr().map(|address| address.to_string()).unwrap_or_default();
    // Without these a client is slower or noticed later, but served all the same.
    let _ = stream.set_nodelay(true);
    let keepalive = socket2::TcpKeepalive::new().with_time(KEEPALIVE);
    let _ = socket2::SockRef::from(&stream).set_tcp_keepalive(&keepalive);
    let entered = shared.clients.enter(door, peer.to_string(), local);
    let session = Session::new(shared.clone(), entered.record.clone());
    let charge = Charge::new(shared.budget.clone());
    serve(stream, session, charge, stop).await;
    drop(entered);
    drop(place);
}
