//! Keeps one connection to a peer cluster: dials its syncers in turn, greets, compares clocks, and
//! dials again when it is lost.

use super::stream::Wire;
use super::{
    CONTROL_PRIORITY, LinkError, PING_INTERVAL, REDIAL_MAX, REDIAL_MIN, dial_timeout, patience,
    peer_of, transport,
};
use crate::batch::{Hello, Message};
use crate::lag::ClockOffset;
use flotilla_node::clock;
use flotilla_node::tls::Tls;
use flotilla_topology::api::{PeerCluster, View};
use flotilla_topology::ids::ClusterId;
use parking_lot::Mutex;
use quinn::{Connection, Endpoint};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

/// A connection that stands.
pub struct Link {
    /// The QUIC connection.
    pub connection: Connection,
    /// The peer's clock, by pings.
    pub clock: Mutex<ClockOffset>,
    /// Whom the peer knows, and what it says of each, as it told last.
    pub knows: Mutex<Option<Vec<(ClusterId, View)>>>,
}

/// What is known about the connection to a peer.
#[derive(Clone)]
pub enum LinkStatus {
    /// None stands, for this reason.
    Down(String),
    /// It stands.
    Up(Arc<Link>),
}

/// What it takes to dial.
pub struct Dialer {
    /// Where to dial from.
    pub endpoint: Endpoint,
    /// Who we are.
    pub tls: Tls,
    /// What we say of ourselves; asked for every connection, since the map moves on.
    pub hello: Box<dyn Fn() -> Hello + Send + Sync>,
    /// Whom to dial, followed as the map changes. The cluster stays the same.
    pub peer: watch::Receiver<PeerCluster>,
}

impl Dialer {
    /// Dials for ever; tells what stands.
    pub async fn run(self, status: watch::Sender<LinkStatus>) {
        let mut pause = REDIAL_MIN;
        let mut turn = 0;
        loop {
            let peer = self.peer.borrow().clone();
            let reason = match self.connect(&peer, turn).await {
                Ok((link, control)) => {
                    let at = link.connection.remote_address();
                    tracing::info!(peer = %peer.name, %at, "link is up");
                    status.send_replace(LinkStatus::Up(Arc::clone(&link)));
                    pause = REDIAL_MIN;
                    set_connected(&peer, 1.0);
                    let error = keep(&peer, &link, control).await;
                    set_connected(&peer, 0.0);
                    link.connection.close(0u32.into(), error.to_string().as_bytes());
                    tracing::warn!(peer = %peer.name, reason = %error, "link is down");
                    error.to_string()
                }
                Err(error) => {
                    tracing::debug!(peer = %peer.name, reason = %error, "cannot dial");
                    error.to_string()
                }
            };
            status.send_replace(LinkStatus::Down(reason));
            turn += 1;
            // A little chance, so that two ends of a broken path do not dial in step.
            sleep(pause.mul_f64(rand::random_range(0.75..1.25))).await;
            pause = (pause * 2).min(REDIAL_MAX);
        }
    }

    async fn connect(
        &self,
        peer: &PeerCluster,
        turn: usize,
    ) -> Result<(Arc<Link>, Wire), LinkError> {
        let none = || LinkError::Lost(format!("cluster {} has no syncer addresses", peer.name));
        let address = peer.syncers.get(turn % peer.syncers.len().max(1)).ok_or_else(none)?;
        let (dial, within) = (self.dial(peer, address), dial_timeout(peer.rtt_ms));
        let result = timeout(within, dial)
            .await
            .unwrap_or_else(|_| Err(LinkError::Lost(format!("no answer within {within:?}"))));
        result.map_err(|error| match error {
            LinkError::Lost(why) => LinkError::Lost(format!("{address}: {why}")),
            other => other,
        })
    }

    async fn dial(
        &self,
        peer: &PeerCluster,
        address: &str,
    ) -> Result<(Arc<Link>, Wire), LinkError> {
        let address = resolve(address, self.endpoint.local_addr().ok()).await?;
        let config = transport::client_config(&self.tls, peer.rtt_ms)?;
        let connecting =
            self.endpoint.connect_with(config, address, "flotilla").map_err(LinkError::lost)?;
        let connection = connecting.await.map_err(LinkError::lost)?;
        let result = self.greet(peer, &connection).await.map_err(|error| {
            // The stream only says that it is gone; the connection knows what the other side said.
            connection.close_reason().map_or(error, LinkError::lost)
        });
        if let Err(error) = &result {
            connection.close(1u32.into(), error.to_string().as_bytes());
        }
        let control = result?;
        let (clock, knows) = (Mutex::default(), Mutex::default());
        Ok((Arc::new(Link { connection, clock, knows }), control))
    }

    async fn greet(&self, peer: &PeerCluster, connection: &Connection) -> Result<Wire, LinkError> {
        let who = peer_of(connection)?;
        if who.cluster != peer.id {
            let (wanted, name) = (peer.id, &peer.name);
            let what = format!("dialed cluster {wanted} ({name}), reached {who}");
            return Err(LinkError::Identity(what));
        }
        let (send, receive) = connection.open_bi().await.map_err(LinkError::lost)?;
        send.set_priority(CONTROL_PRIORITY).map_err(LinkError::lost)?;
        let mut control = Wire::start(send, receive, |_| {});
        let ours = (self.hello)();
        control.send(Message::Hello(ours.clone()));
        match control.next().await? {
            Message::Hello(theirs) => check_hello(&ours, &theirs, who.cluster)?,
            Message::Refused { reason } => return Err(LinkError::Identity(reason)),
            other => return Err(LinkError::Protocol(format!("a greeting, not {other:?}"))),
        }
        Ok(control)
    }
}

/// Whether a greeting fits to ours and to the certificate that was shown.
pub fn check_hello(ours: &Hello, theirs: &Hello, cluster: ClusterId) -> Result<(), LinkError> {
    if theirs.cluster != cluster {
        let said = theirs.cluster;
        let what = format!("says it is cluster {said}, its certificate says {cluster}");
        return Err(LinkError::Identity(what));
    }
    if !ours.understands(theirs) {
        let (o, t) = (ours, theirs);
        let what = format!(
            "no common version: ours {} to {}, theirs {} to {}",
            o.oldest, o.newest, t.oldest, t.newest
        );
        return Err(LinkError::Protocol(what));
    }
    Ok(())
}

fn set_connected(peer: &PeerCluster, up: f64) {
    metrics::gauge!("flotilla_link_connected", "peer" => peer.name.clone()).set(up);
}

async fn resolve(address: &str, local: Option<SocketAddr>) -> Result<SocketAddr, LinkError> {
    let fits = |to: &SocketAddr| local.is_none_or(|local| local.is_ipv4() == to.is_ipv4());
    let mut found = tokio::net::lookup_host(address).await.map_err(LinkError::lost)?;
    found.find(fits).ok_or_else(|| LinkError::Lost(format!("{address} has no usable address")))
}

/// Pings until the connection is lost; says why it was.
async fn keep(peer: &PeerCluster, link: &Link, mut control: Wire) -> LinkError {
    let mut ticks = interval(PING_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut heard = Instant::now();
    loop {
        tokio::select! {
            _ = ticks.tick() => {
                // The path may be longer than the topology file says.
                let measured_ms = link.connection.rtt().as_secs_f64() * 1000.0;
                let patience = patience(peer.rtt_ms).max(patience(Some(measured_ms)));
                if heard.elapsed() > patience {
                    return LinkError::Lost(format!("no answer to pings for {patience:?}"));
                }
                control.send(Message::Ping { sent_ms: clock::wall_ms() });
                publish(peer, link);
            }
            message = control.next() => match message {
                Ok(Message::Pong { sent_ms, wall_ms, knows }) => {
                    heard = Instant::now();
                    *link.knows.lock() = Some(knows);
                    link.clock.lock().ping(sent_ms, wall_ms, clock::wall_ms());
                }
                Ok(Message::Refused { reason }) => return LinkError::Identity(reason),
                Ok(other) => return LinkError::Protocol(format!("not for a dialer: {other:?}")),
                // The stream only says that it is gone.
                Err(error) => return link.connection.close_reason().map_or(error, LinkError::lost),
            },
            reason = link.connection.closed() => return LinkError::lost(reason),
        }
    }
}

fn publish(peer: &PeerCluster, link: &Link) {
    let name = || peer.name.clone();
    let stats = link.connection.stats();
    let rtt: Duration = stats.path.rtt;
    metrics::gauge!("flotilla_link_rtt_seconds", "peer" => name()).set(rtt.as_secs_f64());
    metrics::gauge!("flotilla_link_window_bytes", "peer" => name()).set(stats.path.cwnd as f64);
    metrics::gauge!("flotilla_link_packets_lost", "peer" => name())
        .set(stats.path.lost_packets as f64);
    let offset = link.clock.lock().offset_ms() as f64 / 1000.0;
    metrics::gauge!("flotilla_link_clock_offset_seconds", "peer" => name()).set(offset);
}
