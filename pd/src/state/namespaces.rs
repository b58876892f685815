//! What data exists: namespaces, their groups, and where those stand.

use super::durable::{GroupRecord, NamespaceRecord};
use super::members::check_name;
use super::place::{Candidate, place};
use super::{Done, Refusal, State, refuse};
use flotilla_topology::api::{NamespaceInfo, NamespaceSpec, ReplicaInfo};
use flotilla_topology::ids::{GroupId, NamespaceId, ReplicaId};
use flotilla_topology::slot::SlotRange;
use std::collections::BTreeSet;

/// The namespace of clients that name none.
pub const DEFAULT_NAMESPACE: &str = "default";

/// Groups of one namespace.
pub const PARTITIONS_MAX: u32 = 1_024;

/// Groups of a cluster. Each costs every one of its nodes a timer, a task and some memory.
pub const GROUPS_MAX: usize = 2_048;

/// Namespaces of a cluster.
pub const NAMESPACES_MAX: usize = 256;

impl State {
    pub(super) fn create_namespace(
        &mut self,
        spec: NamespaceSpec,
    ) -> Result<NamespaceInfo, Refusal> {
        check_spec(&spec)?;
        let mut existing = self.durable.namespaces.values().map(|record| &record.info);
        if let Some(existing) = existing.find(|info| info.spec.name == spec.name) {
            if existing.spec == spec {
                return Ok(existing.clone());
            }
            let has = &existing.spec;
            refuse!(
                "namespace `{}` exists with {} partitions, {} replicas, synced = {}: ask for the \
                 same, take another name, or drop it first",
                has.name,
                has.partitions,
                has.replicas,
                has.synced
            );
        }
        let groups = self.durable.groups.len() + spec.partitions as usize;
        if groups > GROUPS_MAX || self.durable.namespaces.len() >= NAMESPACES_MAX {
            refuse!(
                "a cluster takes {GROUPS_MAX} groups and {NAMESPACES_MAX} namespaces: take fewer \
                 partitions, or drop a namespace"
            );
        }
        self.check_no_foreign_replicas()?;
        let placed = self.place_groups(&spec)?;
        Ok(self.write_namespace(spec, placed))
    }

    /// Numbers that this PD never gave out are in use: it must not give them out now.
    fn check_no_foreign_replicas(&self) -> Result<(), Refusal> {
        for (name, node) in &self.live.nodes {
            if let Some(foreign) = &node.foreign {
                refuse!(
                    "node `{name}` carries replica {} of group {}, which this PD never gave out: \
                     its store was lost or is an old copy. Give PD its store back",
                    foreign.replica,
                    foreign.group
                );
            }
        }
        Ok(())
    }

    /// For every group the nodes that carry it and, first, the one that should lead it.
    fn place_groups(&self, spec: &NamespaceSpec) -> Result<Vec<Placed>, Refusal> {
        let mut candidates = self.candidates();
        let datacenters = self.datacenters().len();
        let mut placed = Vec::with_capacity(spec.partitions as usize);
        for _ in 0..spec.partitions {
            let chosen = place(&candidates, usize::from(spec.replicas), datacenters)
                .map_err(|reason| self.cannot_place(spec, &reason))?;
            let leader = chosen
                .iter()
                .copied()
                .min_by_key(|&i| (candidates[i].leaders, &candidates[i].name))
                .expect("replicas were checked to be one at least");
            candidates[leader].leaders += 1;
            chosen.iter().for_each(|&i| candidates[i].replicas += 1);
            placed.push(Placed {
                nodes: chosen.iter().map(|&i| candidates[i].name.clone()).collect(),
                leader: candidates[leader].name.clone(),
            });
        }
        Ok(placed)
    }

    fn cannot_place(&self, spec: &NamespaceSpec, reason: &str) -> Refusal {
        let silent: Vec<&str> = self
            .durable
            .nodes
            .keys()
            .filter(|name| !self.live.shown.nodes.contains(*name))
            .map(String::as_str)
            .collect();
        let silent = if silent.is_empty() { "none".to_owned() } else { silent.join(", ") };
        Refusal(format!(
            "namespace `{}`: {reason}. Start nodes (silent ones: {silent}), or ask for fewer replicas",
            spec.name
        ))
    }

    /// Nodes that are alive, with what they carry.
    fn candidates(&self) -> Vec<Candidate> {
        let groups = self.durable.groups.values();
        let alive =
            self.durable.nodes.values().filter(|n| self.live.shown.nodes.contains(&n.info.name));
        alive
            .map(|node| {
                let name = &node.info.name;
                Candidate {
                    name: name.clone(),
                    datacenter: node.info.datacenter.clone(),
                    replicas: groups
                        .clone()
                        .filter(|group| group.replicas.iter().any(|r| r.node == *name))
                        .count(),
                    leaders: groups.clone().filter(|g| g.preferred_leader == *name).count(),
                }
            })
            .collect()
    }

    /// All datacenters that the cluster spans: those of the topology file and those of its nodes.
    pub(super) fn datacenters(&self) -> BTreeSet<&str> {
        let configured = self.settings.datacenters.iter().map(String::as_str);
        let seen = self.durable.nodes.values().map(|node| node.info.datacenter.as_str());
        configured.chain(seen).collect()
    }

    fn write_namespace(&mut self, spec: NamespaceSpec, placed: Vec<Placed>) -> NamespaceInfo {
        let durable = self.durable_mut();
        let counters = &mut durable.counters;
        let info = NamespaceInfo { id: NamespaceId(counters.namespace), spec };
        counters.namespace += 1;
        if info.spec.name == DEFAULT_NAMESPACE {
            counters.bootstrapped = true;
        }
        let first_group = GroupId(counters.group);
        for (index, placed) in placed.into_iter().enumerate() {
            let id = GroupId(counters.group);
            counters.group += 1;
            let mut birth = Vec::with_capacity(placed.nodes.len());
            for node in placed.nodes {
                birth.push(ReplicaInfo { id: ReplicaId(counters.replica), node });
                counters.replica += 1;
            }
            let group = GroupRecord {
                id,
                namespace: info.id,
                slots: SlotRange::partition(index as u32, info.spec.partitions),
                replicas: birth.clone(),
                birth,
                preferred_leader: placed.leader,
                tenure: None,
                tenures: 0,
            };
            let twin = durable.groups.insert(id, group);
            assert!(twin.is_none(), "a group number must not be given out twice");
        }
        durable.namespaces.insert(info.id, NamespaceRecord { info: info.clone(), first_group });
        info
    }

    pub(super) fn drop_namespace(&mut self, name: &str) -> Result<Done, Refusal> {
        check_name("namespace", name)?;
        let found = self.durable.namespaces.values().find(|ns| ns.info.spec.name == name);
        let Some(id) = found.map(|record| record.info.id) else { return Ok(Done::Plain) };
        let durable = self.durable_mut();
        durable.namespaces.remove(&id);
        durable.groups.retain(|_, group| group.namespace != id);
        let left = self.durable.clone();
        self.live.forget_groups(|group| !left.groups.contains_key(&group));
        Ok(Done::Plain)
    }

    /// Creates `default` once as many nodes are alive as are expected.
    pub(super) fn bootstrap(&mut self) {
        if self.waits_for().is_none() {
            // What hinders it is told by `problems`; it is tried again with every step.
            let _ = self.create_namespace(self.default_spec());
        }
    }

    pub(super) fn default_spec(&self) -> NamespaceSpec {
        NamespaceSpec {
            name: DEFAULT_NAMESPACE.to_owned(),
            partitions: self.settings.bootstrap.partitions,
            replicas: self.settings.bootstrap.replicas,
            synced: !self.settings.peers.is_empty(),
        }
    }

    /// What the namespace `default` waits for: `None` when for nothing, `Some("")` when it has
    /// been created.
    pub(super) fn waits_for(&self) -> Option<String> {
        if self.durable.counters.bootstrapped {
            return Some(String::new());
        }
        let expected = self.settings.bootstrap.nodes;
        let alive = &self.live.shown.nodes;
        if alive.len() < expected {
            let names = alive.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
            return Some(format!(
                "{expected} nodes are expected and {} are alive ({names})",
                alive.len()
            ));
        }
        let inhabited: BTreeSet<&str> = self
            .durable
            .nodes
            .values()
            .filter(|node| alive.contains(&node.info.name))
            .map(|node| node.info.datacenter.as_str())
            .collect();
        let empty = self.settings.datacenters.iter().find(|dc| !inhabited.contains(dc.as_str()));
        empty.map(|dc| format!("datacenter `{dc}` has no node that is alive"))
    }
}

/// Where a group stands.
struct Placed {
    nodes: Vec<String>,
    leader: String,
}

fn check_spec(spec: &NamespaceSpec) -> Result<(), Refusal> {
    check_name("namespace", &spec.name)?;
    if !(1..=PARTITIONS_MAX).contains(&spec.partitions) {
        refuse!(
            "namespace `{}` with {} partitions: 1 to {PARTITIONS_MAX} are possible",
            spec.name,
            spec.partitions
        );
    }
    if !matches!(spec.replicas, 1 | 3 | 5) {
        refuse!(
            "namespace `{}` with {} replicas: take 1, 3 or 5; an even number survives no more \
             losses than one less",
            spec.name,
            spec.replicas
        );
    }
    Ok(())
}
