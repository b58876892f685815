//! Takes connections of other clusters' syncers, checks who they are, answers their pings, and
//! hands each group's stream on.

use super::dial::check_hello;
use super::stream::Wire;
use super::{CONNECTIONS_MAX, CONTROL_PRIORITY, GREETING_TIMEOUT, LinkError, peer_of};
use crate::audit::serve::OpenedAudit;
use crate::audit::wire::AuditMessage;
use crate::batch::{Hello, Message};
use crate::merge::receive::OpenedMerge;
use crate::merge::wire::MergeMessage;
use flotilla_node::clock;
use flotilla_topology::api::View;
use flotilla_topology::ids::{ClusterId, GroupId, Identity, Origin};
use flotilla_topology::slot::SlotRange;
use quinn::{Connection, Endpoint, Incoming};
use std::sync::Arc;
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// A stream of one group of another cluster, opened and not answered yet.
pub struct Opened {
    /// Where its effects must be born: the cluster of the certificate, in the life it greeted with.
    pub origin: Origin,
    /// Who sends.
    pub from: Identity,
    /// Name of the namespace.
    pub namespace: String,
    /// The sender's group.
    pub group: GroupId,
    /// Its slots.
    pub slots: SlotRange,
    /// The stream.
    pub wire: Wire,
}

/// What the acceptor needs to know of the rest.
pub trait Host: Send + Sync + 'static {
    /// What we say of ourselves.
    fn hello(&self) -> Hello;
    /// The clusters that are peers of this one, and what it says of each.
    fn knows(&self) -> Vec<(ClusterId, View)>;
    /// Whether a cluster may link with this one, now; if not, why.
    fn admits(&self, cluster: ClusterId) -> Result<(), String>;
    /// Takes a group's stream; must not block.
    fn opened(&self, stream: Opened);
    /// Takes the stream of a full-state merge; must not block.
    fn merges(&self, merge: OpenedMerge);
    /// Takes the stream of an audit; must not block.
    fn audits(&self, audit: OpenedAudit);
}

/// Accepts until the endpoint is closed.
pub async fn run(endpoint: Endpoint, host: Arc<dyn Host>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    while let Some(incoming) = endpoint.accept().await {
        let Ok(permit) = Arc::clone(&room).try_acquire_owned() else {
            metrics::counter!("flotilla_link_refused_total", "reason" => "too_many").increment(1);
            incoming.refuse();
            continue;
        };
        let host = Arc::clone(&host);
        tokio::spawn(async move {
            let from = incoming.remote_address();
            if let Err(error) = take(incoming, &host).await {
                tracing::warn!(%from, reason = %error, "incoming link ended");
            }
            drop(permit);
        });
    }
}

async fn take(incoming: Incoming, host: &Arc<dyn Host>) -> Result<(), LinkError> {
    let handshake = timeout(GREETING_TIMEOUT, incoming);
    let connection = handshake.await.map_err(LinkError::lost)?.map_err(LinkError::lost)?;
    let result = serve(&connection, host).await;
    if let Err(error) = &result {
        let reason = match error {
            LinkError::Identity(_) => "identity",
            LinkError::Protocol(_) => "protocol",
            _ => "lost",
        };
        metrics::counter!("flotilla_link_refused_total", "reason" => reason).increment(1);
        connection.close(1u32.into(), error.to_string().as_bytes());
    }
    result
}

async fn serve(connection: &Connection, host: &Arc<dyn Host>) -> Result<(), LinkError> {
    let peer = peer_of(connection)?;
    let ours = host.hello();
    if peer.cluster == ours.cluster {
        return Err(LinkError::Identity(format!("{peer} is of this cluster: nobody to link with")));
    }
    host.admits(peer.cluster).map_err(LinkError::Identity)?;
    // The first stream is the control stream; its greeting must come before anything is believed.
    let greeted = timeout(GREETING_TIMEOUT, greet(connection, &**host, &peer));
    let (theirs, mut control) = greeted.await.map_err(LinkError::lost)??;
    let origin = Origin { cluster: peer.cluster, incarnation: theirs.incarnation };
    tracing::info!(%peer, at = %connection.remote_address(), "takes a link");
    loop {
        tokio::select! {
            message = control.next() => match message? {
                Message::Ping { sent_ms } => {
                    // A peer that was fenced or removed meanwhile is told at its next ping.
                    if let Err(reason) = host.admits(peer.cluster) {
                        // Before the streams end, so that it is the first thing that they hear.
                        connection.close(1u32.into(), reason.as_bytes());
                        return Err(LinkError::Identity(reason));
                    }
                    let (wall_ms, knows) = (clock::wall_ms(), host.knows());
                    control.send(Message::Pong { sent_ms, wall_ms, knows });
                }
                other => {
                    return Err(LinkError::Protocol(format!("not for an acceptor: {other:?}")));
                }
            },
            stream = connection.accept_bi() => {
                let (send, receive) = stream.map_err(LinkError::lost)?;
                let wire = Wire::start(send, receive, |_| {});
                // In a task of its own: a lost packet of one stream must not hold up the others.
                tokio::spawn(hand_on(wire, origin, peer.clone(), connection.clone(), host.clone()));
            }
        }
    }
}

async fn greet(
    connection: &Connection,
    host: &dyn Host,
    peer: &Identity,
) -> Result<(Hello, Wire), LinkError> {
    let (send, receive) = connection.accept_bi().await.map_err(LinkError::lost)?;
    send.set_priority(CONTROL_PRIORITY).map_err(LinkError::lost)?;
    let mut control = Wire::start(send, receive, |_| {});
    let Message::Hello(theirs) = control.next().await? else {
        return Err(LinkError::Protocol("a link begins with a greeting".into()));
    };
    let ours = host.hello();
    if let Err(error) = check_hello(&ours, &theirs, peer.cluster) {
        control.close_with(Message::Refused { reason: error.to_string() });
        return Err(error);
    }
    control.send(Message::Hello(ours));
    Ok((theirs, control))
}

/// Reads what a stream is for. The sender writes that together with opening it.
async fn hand_on(
    mut wire: Wire,
    origin: Origin,
    from: Identity,
    connection: Connection,
    host: Arc<dyn Host>,
) {
    match timeout(GREETING_TIMEOUT, wire.next()).await {
        Ok(Ok(Message::Open { namespace, group, slots })) => {
            host.opened(Opened { origin, from, namespace, group, slots, wire });
        }
        Ok(Ok(Message::Merge(MergeMessage::Open { namespace, id, cut }))) => {
            host.merges(OpenedMerge { origin, from, namespace, id, cut, wire });
        }
        Ok(Ok(Message::Audit(AuditMessage::Open { namespace }))) => {
            host.audits(OpenedAudit { from, namespace, wire });
        }
        Ok(Ok(_)) => connection.close(1u32.into(), b"a group's stream begins with its name"),
        Ok(Err(LinkError::Protocol(what))) => connection.close(1u32.into(), what.as_bytes()),
        // Opened and given up again: the connection goes on.
        Ok(Err(_)) | Err(_) => {}
    }
}
