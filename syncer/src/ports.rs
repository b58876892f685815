//! The ports of a syncer, and what can go wrong before it serves.

use crate::config::Config;
use crate::gate::Door;
use crate::link::{LinkError, transport};
use bytes::Bytes;
use flotilla_node::raft::{RaftGroups, group_of};
use flotilla_node::tls::{Tls, TlsError};
use flotilla_node::transport::{ReplyTo, RpcRefused, Server, Service, kinds};
use flotilla_topology::ids::{GroupId, Identity, Role};
use parking_lot::Mutex;
use quinn::Endpoint;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

/// The doors of all learners of a process.
pub type Doors = Arc<Mutex<BTreeMap<GroupId, Arc<Door>>>>;

/// A syncer cannot start; one line that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Certificates.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The certificate is of somebody else.
    #[error("the certificate is {found}, the configuration says {expected}: use the right one")]
    Identity {
        /// What the certificate says.
        found: Identity,
        /// What the configuration says.
        expected: Identity,
    },
    /// A port.
    #[error("cannot listen on {addr}: {source} (set {key}, or stop who listens there)")]
    Listen {
        /// Which key of the configuration.
        key: &'static str,
        /// Its value.
        addr: String,
        /// Why.
        source: std::io::Error,
    },
    /// The link's port.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The operating system.
    #[error("cannot start: {0}")]
    Io(#[from] std::io::Error),
}

/// The certificate must be ours: a wrong one would be refused by everybody, one by one.
pub fn check_identity(config: &Config, found: &Identity) -> Result<(), StartError> {
    let (cluster, name) = (config.cluster, config.name.clone());
    let expected = Identity { cluster, role: Role::Syncer, name };
    if *found == expected {
        return Ok(());
    }
    Err(StartError::Identity { found: found.clone(), expected })
}

/// Opens the UDP port of links.
pub async fn bind_link(addr: &str, tls: &Tls) -> Result<Endpoint, StartError> {
    let failed = |source| StartError::Listen { key: "listen.link", addr: addr.to_owned(), source };
    let mut found = tokio::net::lookup_host(addr).await.map_err(failed)?;
    let none = || failed(std::io::Error::other("the name has no address"));
    Ok(transport::endpoint(found.next().ok_or_else(none)?, tls)?)
}

/// Opens the port for the leaders of this cluster.
pub async fn bind_rpc(
    addr: &str,
    tls: &Tls,
    allow: impl Fn(&Identity) -> bool + Send + Sync + 'static,
    service: Arc<dyn Service>,
    raft: &tokio::runtime::Handle,
) -> Result<Server, StartError> {
    let failed = |source| StartError::Listen { key: "listen.rpc", addr: addr.to_owned(), source };
    // On Raft's runtime: what is spawned by a server runs where it was made.
    let (address, tls) = (addr.to_owned(), tls.clone());
    let bound = raft.spawn(async move { Server::bind(address, &tls, allow, service).await });
    bound.await.map_err(std::io::Error::other)?.map_err(failed)
}

/// The port that was given out, where the configuration left it to the system (port 0).
pub fn with_port(advertised: &str, bound: SocketAddr) -> String {
    match advertised.rsplit_once(':') {
        Some((host, "0")) => format!("{host}:{}", bound.port()),
        _ => advertised.to_owned(),
    }
}

/// The Raft messages of this cluster's leaders.
pub struct RpcDoor {
    /// The learners.
    pub groups: RaftGroups,
    /// Their doors.
    pub doors: Doors,
}

impl Service for RpcDoor {
    fn call(&self, _peer: &Identity, kind: u16, payload: Bytes, reply: ReplyTo) {
        if !(kinds::RAFT_APPEND..=kinds::TRANSFER_LEADER).contains(&kind) {
            let code = RpcRefused::UNKNOWN_KIND;
            return reply.send(Err(RpcRefused::new(code, "a syncer takes Raft messages only")));
        }
        let door = (kind == kinds::RAFT_APPEND)
            .then(|| group_of(&payload).ok())
            .flatten()
            .and_then(|group| self.doors.lock().get(&group).cloned());
        match door {
            Some(door) => door.append(kind, payload, reply),
            None => self.groups.handle(kind, &payload, reply),
        }
    }
}
