//! The clusters that this one ships to, as the map names them: a dialer for each, and what PD says of
//! it as it changes.
//!
//! Who is gone takes only its own links along; who changes is told of it; who is new is found by
//! every tenure that began without it.

use crate::link::dial::{Dialer, LinkStatus as Connection};
use crate::mesh::Seen;
use crate::tenure::Peer;
use flotilla_topology::api::{ClusterMap, PeerCluster};
use flotilla_topology::ids::ClusterId;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use tokio::sync::watch;
use tokio::task::AbortHandle;

/// Peers by id and number: one that is removed and added again is another one.
pub type PeerSet = BTreeSet<(ClusterId, u64)>;

/// See the module's text.
#[derive(Default)]
pub struct Peers {
    kept: Mutex<Kept>,
    set: watch::Sender<PeerSet>,
}

#[derive(Default)]
struct Kept {
    peers: BTreeMap<ClusterId, KeptPeer>,
    /// Numbers given out.
    numbers: u64,
}

struct KeptPeer {
    number: u64,
    told: watch::Sender<PeerCluster>,
    link: watch::Receiver<Connection>,
    dialer: AbortHandle,
}

impl Drop for KeptPeer {
    fn drop(&mut self) {
        self.dialer.abort();
    }
}

impl Peers {
    /// Makes them those of the map.
    pub fn update(
        &self,
        map: &ClusterMap,
        dialer: impl Fn(watch::Receiver<PeerCluster>) -> Dialer,
    ) {
        let mut kept = self.kept.lock();
        kept.peers.retain(|id, _| map.peers.iter().any(|peer| peer.id == *id));
        for peer in &map.peers {
            if let Some(known) = kept.peers.get(&peer.id) {
                known.told.send_if_modified(|told| {
                    let new = told != peer;
                    told.clone_from(peer);
                    new
                });
                continue;
            }
            let (told, telling) = watch::channel(peer.clone());
            let (status, link) = watch::channel(Connection::Down("not dialed yet".into()));
            let dialer = tokio::spawn(dialer(telling).run(status)).abort_handle();
            kept.numbers += 1;
            let number = kept.numbers;
            kept.peers.insert(peer.id, KeptPeer { number, told, link, dialer });
        }
        let set: PeerSet = kept.peers.iter().map(|(id, peer)| (*id, peer.number)).collect();
        self.set.send_if_modified(|known| {
            let new = *known != set;
            *known = set;
            new
        });
    }

    /// Who they are, as that changes.
    pub fn set(&self) -> watch::Receiver<PeerSet> {
        self.set.subscribe()
    }

    /// Whether a cluster is one.
    pub fn has(&self, id: ClusterId) -> bool {
        self.kept.lock().peers.contains_key(&id)
    }

    /// All of them, and whom each knows.
    pub fn seen(&self) -> Vec<Seen> {
        let seen = |(id, kept): (&ClusterId, &KeptPeer)| {
            let told = kept.told.borrow();
            let knows = match &*kept.link.borrow() {
                Connection::Up(link) => link.knows.lock().clone(),
                Connection::Down(_) => None,
            };
            Seen { id: *id, name: told.name.clone(), counts: told.counts(), knows }
        };
        self.kept.lock().peers.iter().map(seen).collect()
    }

    /// All of them, for a tenure.
    pub fn all(&self) -> Vec<Peer> {
        let peer = |(id, kept): (&ClusterId, &KeptPeer)| Peer {
            id: *id,
            name: kept.told.borrow().name.clone(),
            number: kept.number,
            link: kept.link.clone(),
            told: kept.told.subscribe(),
        };
        self.kept.lock().peers.iter().map(peer).collect()
    }

    /// Hangs up.
    pub fn end_all(&self) {
        self.kept.lock().peers.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{Hello, LINK_VERSION};
    use crate::link::transport;
    use flotilla_node::tls::dev::Authority;
    use flotilla_topology::api::Standing;
    use flotilla_topology::ids::{Identity, Incarnation, Role};

    fn peer(id: u8) -> PeerCluster {
        let name = format!("c{id}");
        PeerCluster { id: ClusterId(id), name, ..PeerCluster::default() }
    }

    #[tokio::test]
    async fn a_change_reaches_those_whom_it_concerns_and_nobody_else() {
        let ca = Authority::create("test", 2).unwrap();
        let name = "s1".into();
        let tls = ca.tls(Identity { cluster: ClusterId(1), role: Role::Syncer, name }).unwrap();
        let endpoint = transport::endpoint("127.0.0.1:0".parse().unwrap(), &tls).unwrap();
        let dialer = |peer| Dialer {
            endpoint: endpoint.clone(),
            tls: tls.clone(),
            hello: Box::new(|| Hello {
                oldest: 1,
                newest: LINK_VERSION,
                cluster: ClusterId(1),
                incarnation: Incarnation(1),
                layout: 1,
            }),
            peer,
        };
        let mut map = ClusterMap { mesh_version: 1, ..ClusterMap::new(ClusterId(1), "east") };
        let peers = Peers::default();
        let mut set = peers.set();
        map.peers = vec![peer(2), peer(3)];
        peers.update(&map, dialer);
        assert!(set.has_changed().unwrap());
        let known = set.borrow_and_update().clone();
        let mut all = peers.all();
        assert_eq!(all.len(), 2);

        peers.update(&map, dialer);
        map.peers[0].standing = Standing::Fenced;
        peers.update(&map, dialer);
        assert!(!set.has_changed().unwrap(), "the same peers");
        assert!(all[0].told.has_changed().unwrap() && !all[1].told.has_changed().unwrap());
        assert_eq!(all[0].told.borrow_and_update().standing, Standing::Fenced);

        map.peers.remove(0);
        peers.update(&map, dialer);
        assert!(all[0].told.changed().await.is_err(), "it is gone");
        assert!(!all[1].told.has_changed().unwrap() && !peers.has(ClusterId(2)));
        assert!(set.borrow_and_update().is_subset(&known), "nobody is new");
        map.peers.push(peer(2));
        peers.update(&map, dialer);
        assert!(!set.borrow_and_update().is_subset(&known), "it is another one than before");
    }
}
