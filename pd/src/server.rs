//! PD's rpc port: one kind of request, JSON both ways, over mutual TLS.
//!
//! Who may ask what follows from the certificate: a node speaks for itself, a syncer for itself,
//! an operator's command line for the whole cluster. Watches wait here, on the published view, so
//! that they cost the driver nothing.

use crate::driver::{Door, encode};
use bytes::Bytes;
use flotilla_node::transport::{ReplyTo, RpcRefused, Service, kinds};
use flotilla_topology::api::{PdRequest, PdResponse};
use flotilla_topology::ids::{Identity, Role};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

/// A watch is answered after this long at the latest, so that a client notices a PD that hangs.
pub const WATCH_MAX: Duration = Duration::from_secs(20);

/// Requests in hand, most of them watches: two for each process of the largest cluster, with room
/// for command lines. More are refused.
pub const REQUESTS_MAX: usize = 1_024;

/// Bytes of a request: the heartbeat of a syncer with all links of the largest cluster is about half
/// of it.
pub const REQUEST_BYTES_MAX: usize = 8 << 20;

/// A refusal because too much is in hand already.
pub const BUSY: u16 = RpcRefused::FIRST_FREE;

/// A request that is no request.
pub const MALFORMED: u16 = RpcRefused::FIRST_FREE + 1;

/// See the module.
pub(crate) struct PdService {
    door: Door,
    room: Arc<Semaphore>,
    stop: CancellationToken,
}

impl PdService {
    pub(crate) fn new(door: Door, stop: CancellationToken) -> PdService {
        PdService { door, room: Arc::new(Semaphore::new(REQUESTS_MAX)), stop }
    }
}

impl Service for PdService {
    fn call(&self, peer: &Identity, kind: u16, payload: Bytes, reply: ReplyTo) {
        if kind != kinds::PD_CALL {
            let message = format!("PD serves kind {}, not {kind}", kinds::PD_CALL);
            return reply.send(Err(RpcRefused::new(RpcRefused::UNKNOWN_KIND, message)));
        }
        if payload.len() > REQUEST_BYTES_MAX {
            let message = format!("{} bytes: PD takes {REQUEST_BYTES_MAX}", payload.len());
            return reply.send(Err(RpcRefused::new(MALFORMED, message)));
        }
        let request: PdRequest = match serde_json::from_slice(&payload) {
            Ok(request) => request,
            Err(error) => {
                let message = format!("not a request that this PD knows: {error}");
                return reply.send(Err(RpcRefused::new(MALFORMED, message)));
            }
        };
        let method = method(&request);
        metrics::counter!("flotilla_pd_requests_total", "method" => method).increment(1);
        if let Err(reason) = authorize(peer, &request) {
            metrics::counter!("flotilla_pd_refused_total", "method" => method).increment(1);
            return reply.send(Ok(encode(&PdResponse::Refused { reason })));
        }
        let Ok(permit) = Arc::clone(&self.room).try_acquire_owned() else {
            return reply.send(Err(busy()));
        };
        let (door, stop) = (self.door.clone(), self.stop.clone());
        tokio::spawn(serve(door, request, reply, permit, stop));
    }
}

async fn serve(
    door: Door,
    request: PdRequest,
    reply: ReplyTo,
    _permit: OwnedSemaphorePermit,
    stop: CancellationToken,
) {
    let method = method(&request);
    let answer = match request {
        PdRequest::WatchMap { revision } => Some(watch_map(&door, revision, stop).await),
        PdRequest::WatchAssignments { name, version } => {
            Some(watch_assignments(&door, &name, version, stop).await)
        }
        request => door.ask(request).await.map(|answer| {
            if let PdResponse::Refused { reason } = &answer {
                metrics::counter!("flotilla_pd_refused_total", "method" => method).increment(1);
                tracing::info!(method, "refused: {reason}");
            }
            encode(&answer)
        }),
    };
    reply.send(answer.ok_or_else(busy));
}

fn busy() -> RpcRefused {
    RpcRefused::new(BUSY, "PD has too much in hand: try again")
}

async fn watch_map(door: &Door, revision: u64, stop: CancellationToken) -> Bytes {
    let newer = |door: &Door| door.view().is_none_or(|view| view.map.revision > revision);
    wait(door, newer, stop).await;
    match door.view() {
        Some(view) => view.map_answer(),
        None => encode(&door.not_leader()),
    }
}

async fn watch_assignments(
    door: &Door,
    name: &str,
    version: u64,
    stop: CancellationToken,
) -> Bytes {
    let differs = |door: &Door| match door.view() {
        Some(view) => view.assigned.get(name).is_none_or(|assigned| assigned.version != version),
        None => true,
    };
    wait(door, differs, stop).await;
    let Some(view) = door.view() else { return encode(&door.not_leader()) };
    encode(&match view.assigned.get(name) {
        Some(assigned) => {
            PdResponse::Assignments { version: assigned.version, groups: assigned.groups.clone() }
        }
        None => PdResponse::Refused {
            reason: format!("syncer `{name}` is not registered: register first"),
        },
    })
}

/// Until it is so, or [`WATCH_MAX`], or PD stops.
async fn wait(door: &Door, is_so: impl Fn(&Door) -> bool, stop: CancellationToken) {
    let mut watch = door.watch();
    let watching = async {
        loop {
            // Marked before the look, so that no change falls between look and wait.
            watch.mark_unchanged();
            if is_so(door) || watch.changed().await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = watching => {}
        () = tokio::time::sleep(WATCH_MAX) => {}
        () = stop.cancelled() => {}
    }
}

/// Whether this peer may ask this.
fn authorize(peer: &Identity, request: &PdRequest) -> Result<(), String> {
    let (role, speaks_for) = match request {
        PdRequest::RegisterNode { node, .. } => (Role::Node, &node.name),
        PdRequest::NodeHeartbeat { name, .. } => (Role::Node, name),
        PdRequest::RegisterSyncer { syncer } => (Role::Syncer, &syncer.name),
        PdRequest::SyncerHeartbeat { name, .. }
        | PdRequest::WatchAssignments { name, .. }
        | PdRequest::LearnerReady { name, .. }
        | PdRequest::RenewTenure { name, .. } => (Role::Syncer, name),
        // Any syncer of the cluster may have seen the last group of a merge.
        PdRequest::PeerLive { .. } if peer.role == Role::Syncer => return Ok(()),
        PdRequest::CreateNamespace { .. }
        | PdRequest::DropNamespace { .. }
        | PdRequest::SyncNamespace { .. }
        | PdRequest::RemoveNode { .. }
        | PdRequest::RemoveSyncer { .. }
        | PdRequest::PeerLive { .. }
        | PdRequest::Link { .. } => {
            return if peer.role == Role::Client {
                Ok(())
            } else {
                Err(format!("{peer} may not change the cluster: use a client certificate"))
            };
        }
        PdRequest::WatchMap { .. } | PdRequest::Status => return Ok(()),
    };
    if peer.role == role && peer.name == *speaks_for {
        return Ok(());
    }
    Err(format!(
        "{peer} may not speak for {} `{speaks_for:.80}`: let the name in its configuration and in \
         its certificate be the same",
        role.as_str()
    ))
}

/// The word in metrics and logs.
fn method(request: &PdRequest) -> &'static str {
    match request {
        PdRequest::RegisterNode { .. } => "register_node",
        PdRequest::RegisterSyncer { .. } => "register_syncer",
        PdRequest::NodeHeartbeat { .. } => "node_heartbeat",
        PdRequest::SyncerHeartbeat { .. } => "syncer_heartbeat",
        PdRequest::WatchMap { .. } => "watch_map",
        PdRequest::WatchAssignments { .. } => "watch_assignments",
        PdRequest::LearnerReady { .. } => "learner_ready",
        PdRequest::RenewTenure { .. } => "renew_tenure",
        PdRequest::PeerLive { .. } => "peer_live",
        PdRequest::Link { .. } => "link",
        PdRequest::CreateNamespace { .. } => "create_namespace",
        PdRequest::DropNamespace { .. } => "drop_namespace",
        PdRequest::SyncNamespace { .. } => "sync_namespace",
        PdRequest::RemoveNode { .. } => "remove_node",
        PdRequest::RemoveSyncer { .. } => "remove_syncer",
        PdRequest::Status => "status",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_speaks_for_itself_only() {
        let peer = |text: &str| text.parse::<Identity>().unwrap();
        let beat = PdRequest::NodeHeartbeat { name: "n1".into(), replicas: Vec::new() };
        assert!(authorize(&peer("flotilla://1/node/n1"), &beat).is_ok());
        for other in ["flotilla://1/node/n2", "flotilla://1/syncer/n1", "flotilla://1/client/n1"] {
            let reason = authorize(&peer(other), &beat).unwrap_err();
            assert!(reason.contains("node `n1`"), "{reason}");
        }
        let drop = PdRequest::DropNamespace { name: "jobs".into() };
        assert!(authorize(&peer("flotilla://1/client/admin"), &drop).is_ok());
        assert!(authorize(&peer("flotilla://1/node/n1"), &drop).is_err());
        let ready = PdRequest::LearnerReady {
            name: "s1".into(),
            group: flotilla_topology::ids::GroupId(1),
            learner: flotilla_topology::ids::ReplicaId(9),
        };
        assert!(authorize(&peer("flotilla://1/syncer/s1"), &ready).is_ok());
        assert!(authorize(&peer("flotilla://1/syncer/s2"), &ready).is_err());
        let (west, op) = ("west".to_owned(), flotilla_topology::api::LinkOp::Fence);
        let fence = PdRequest::Link { peer: west, op, dry_run: false };
        assert!(authorize(&peer("flotilla://1/client/admin"), &fence).is_ok());
        assert!(authorize(&peer("flotilla://1/syncer/s1"), &fence).is_err());
        let live = PdRequest::PeerLive { peer: flotilla_topology::ids::ClusterId(2) };
        assert!(authorize(&peer("flotilla://1/syncer/s2"), &live).is_ok());
        assert!(authorize(&peer("flotilla://1/node/n1"), &live).is_err());
    }
}
