//! A cluster of one: the map that a PD would give, made here, always the same.

use crate::config::Config;
use crate::node::groups::GroupKeeper;
use crate::router::Places;
use flotilla_topology::api::{
    ClusterMap, GroupInfo, NamespaceInfo, NamespaceSpec, NodeAddresses, NodeInfo, ReplicaInfo,
};
use flotilla_topology::ids::{GroupId, NamespaceId, ReplicaId};
use flotilla_topology::slot::SlotRange;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// The map, with this many groups of the one namespace.
pub fn map(config: &Config, addresses: &NodeAddresses, partitions: u32) -> ClusterMap {
    let node = NodeInfo {
        name: config.name.clone(),
        datacenter: config.datacenter.clone(),
        addresses: config.advertise.clone().unwrap_or_else(|| addresses.clone()),
        advertise: config.advertise_to.clone(),
        alive: true,
    };
    let spec = NamespaceSpec { name: "default".to_owned(), partitions, replicas: 1, synced: false };
    let group = |index: u32| {
        let replica =
            ReplicaInfo { id: ReplicaId(u64::from(index) + 1), node: config.name.clone() };
        GroupInfo {
            id: GroupId(index + 1),
            namespace: NamespaceId(1),
            slots: SlotRange::partition(index, partitions),
            birth: vec![replica.clone()],
            replicas: vec![replica],
            learners: Vec::new(),
            preferred_leader: config.name.clone(),
            leader: None,
        }
    };
    ClusterMap {
        nodes: vec![node],
        namespaces: vec![NamespaceInfo { id: NamespaceId(1), spec, switched: false }],
        groups: (0..partitions).map(group).collect(),
        ..ClusterMap::new(config.cluster, &config.name)
    }
}

/// Carries the groups of the map that never changes.
pub fn serve(
    map: ClusterMap,
    places: &Arc<Places>,
    keeper: &Arc<GroupKeeper>,
    stop: CancellationToken,
) {
    places.set_map(Arc::new(map));
    tokio::spawn(keeper.clone().keep(stop));
}
