//! What the accepting side of links asks this process: who may link with it, and who takes a stream.

use super::Shared;
use crate::audit::{self, serve::OpenedAudit};
use crate::batch::{Hello, LINK_VERSION};
use crate::inbound;
use crate::link::accept::{Host, Opened};
use crate::merge::{self, receive::OpenedMerge};
use crate::mesh::{self, Mesh, Seen};
use flotilla_topology::api::{PeerView, Standing, View};
use flotilla_topology::ids::ClusterId;
use std::sync::Arc;

impl Host for Shared {
    fn hello(&self) -> Hello {
        let map = self.map.borrow();
        Hello {
            oldest: 1,
            newest: LINK_VERSION,
            cluster: self.config.cluster,
            incarnation: map.as_ref().map(|map| map.incarnation).unwrap_or_default(),
            layout: map.as_ref().map_or(0, |map| map.epoch.0),
        }
    }

    fn admits(&self, cluster: ClusterId) -> Result<(), String> {
        let map = self.map.borrow();
        let found = map.as_ref().and_then(|map| map.peers.iter().find(|peer| peer.id == cluster));
        match found.map(|peer| peer.standing) {
            Some(Standing::Live | Standing::Returning) => Ok(()),
            Some(Standing::Fenced) => {
                Err("this cluster has fenced yours: it must return (flotilla link return)".into())
            }
            None => Err(format!("cluster {cluster} is not one that this one is linked with")),
        }
    }

    fn knows(&self) -> Vec<(ClusterId, View)> {
        let map = self.map.borrow();
        map.iter().flat_map(|map| &map.peers).map(|peer| (peer.id, peer.view())).collect()
    }

    fn opened(&self, stream: Opened) {
        let (leaders, map) = (self.leaders.clone(), self.map.clone());
        tokio::spawn(inbound::run(stream, leaders, map, self.mesh(), self.budget.clone()));
    }

    fn merges(&self, merge: OpenedMerge) {
        let (leaders, map) = (self.leaders.clone(), self.map.clone());
        tokio::spawn(merge::receive::run(merge, leaders, map, self.mesh()));
    }

    fn audits(&self, opened: OpenedAudit) {
        let (leaders, map) = (self.leaders.clone(), self.map.clone());
        tokio::spawn(audit::serve::run(opened, self.audits.clone(), leaders, map));
    }
}

impl Shared {
    /// What peers say of each other.
    pub(super) fn views(&self) -> Vec<PeerView> {
        let views = |seen: Seen| seen.knows.map(|of| PeerView { by: seen.id, of });
        self.peers.seen().into_iter().filter_map(views).collect()
    }

    fn mesh(&self) -> Mesh {
        let peers = Arc::clone(&self.peers);
        Mesh::new(move |cluster| mesh::gap(&peers.seen(), cluster))
    }
}
