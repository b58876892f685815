//! What data exists: namespaces, their groups, and where those stand.

use super::durable::{GroupRecord, NamespaceRecord};
use super::members::check_name;
use super::{Done, Refusal, State, refuse};
use flotilla_topology::api::{NamespaceInfo, NamespaceSpec, ReplicaInfo};
use flotilla_topology::ids::{GroupId, NamespaceId, ReplicaId};
use flotilla_topology::placement::{GroupLeader, Host, place, ready, spread_leaders};
use flotilla_topology::slot::SlotRange;
use std::collections::BTreeMap;

/// The namespace of clients that name none.
pub const DEFAULT_NAMESPACE: &str = "default";

/// Groups of one namespace.
pub const PARTITIONS_MAX: u32 = 1_024;

/// Groups of a cluster. Each costs every one of its nodes a timer, a task and some memory.
pub const GROUPS_MAX: usize = 2_048;

/// Namespaces of a cluster.
pub const NAMESPACES_MAX: usize = 256;

/// Namespaces that a refusal names at most.
const NAMED_MAX: usize = 16;

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
            if *has == (NamespaceSpec { synced: !spec.synced, ..spec.clone() }) {
                match has.synced {
                    true => refuse!(
                        "namespace `{}` exists and is synced: sync is never switched off, other \
                         clusters have its data",
                        has.name
                    ),
                    false => refuse!(
                        "namespace `{0}` exists and is not synced: switch sync on with `flotilla \
                         namespace sync {0}`",
                        has.name
                    ),
                }
            }
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

    /// For every group the nodes that carry it and the one that should lead it.
    fn place_groups(&self, spec: &NamespaceSpec) -> Result<Vec<Placed>, Refusal> {
        let hosts = self.hosts();
        let replicas = usize::from(spec.replicas);
        let refusal = |reason: &dyn std::fmt::Display| {
            Refusal(format!("namespace `{}` cannot be placed: {reason}", spec.name))
        };
        ready(&hosts, &self.settings.datacenters, replicas).map_err(|e| refusal(&e))?;
        let placed = place(&hosts, replicas, spec.partitions as usize).map_err(|e| refusal(&e))?;

        let first = self.durable.counters.group;
        let known = self.durable.groups.values().map(|group| GroupLeader {
            group: group.id,
            voters: group.replicas.iter().map(|replica| replica.node.clone()).collect(),
            preferred: Some(group.preferred_leader.clone()),
        });
        let new = (first..).zip(&placed).map(|(id, nodes)| GroupLeader {
            group: GroupId(id),
            voters: nodes.clone(),
            preferred: None,
        });
        // Leaders of groups that exist are counted and stay where they are: moving them is not
        // what was asked for.
        let leaders = spread_leaders(&hosts, &known.chain(new).collect::<Vec<_>>());
        let with_leader = |(id, nodes): (u32, Vec<String>)| {
            let leader = leaders.get(&GroupId(id)).or_else(|| nodes.first()).cloned();
            Placed { leader: leader.expect("a group has one replica at least"), nodes }
        };
        Ok((first..).zip(placed).map(with_leader).collect())
    }

    /// All nodes as placement sees them, and one that is not there for every datacenter that the
    /// topology file gives the cluster and that has none yet: it counts for the spread.
    pub(super) fn hosts(&self) -> Vec<Host> {
        let mut carried: BTreeMap<&str, usize> = BTreeMap::new();
        for replica in self.durable.groups.values().flat_map(|group| &group.replicas) {
            *carried.entry(replica.node.as_str()).or_default() += 1;
        }
        let nodes = self.durable.nodes.values().map(|node| &node.info);
        let empty = self.settings.datacenters.iter().filter(|datacenter| {
            !self.durable.nodes.values().any(|node| node.info.datacenter == **datacenter)
        });
        nodes
            .map(|info| Host {
                name: info.name.clone(),
                datacenter: info.datacenter.clone(),
                alive: self.live.shown.nodes.contains(&info.name),
                replicas: carried.get(info.name.as_str()).copied().unwrap_or(0),
            })
            .chain(empty.map(|datacenter| Host {
                name: String::new(),
                datacenter: datacenter.clone(),
                alive: false,
                replicas: 0,
            }))
            .collect()
    }

    fn write_namespace(&mut self, spec: NamespaceSpec, placed: Vec<Placed>) -> NamespaceInfo {
        let durable = self.durable_mut();
        let counters = &mut durable.counters;
        let info = NamespaceInfo { id: NamespaceId(counters.namespace), spec, switched: false };
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

    /// Switches sync on, or tells what that would do. Each group's leader does it when it sees the map.
    pub(super) fn sync_namespace(&mut self, name: &str, dry_run: bool) -> Result<Done, Refusal> {
        let mut all = self.durable.namespaces.values();
        let Some(info) = all.find(|ns| ns.info.spec.name == name).map(|ns| ns.info.clone()) else {
            let known = self.durable.namespaces.values().map(|ns| ns.info.spec.name.as_str());
            let known: Vec<&str> = known.take(NAMED_MAX).collect();
            refuse!("there is no namespace `{name:.80}`: there are {}", known.join(", "));
        };
        if info.spec.synced {
            let lines = vec![format!("namespace `{name}` is synced already: nothing changes")];
            return Ok(Done::Plan { lines, done: !dry_run });
        }
        let lines = self.what_sync_means(&info);
        if !dry_run {
            let record = self.durable_mut().namespaces.get_mut(&info.id);
            let info = &mut record.expect("it was found just above").info;
            info.spec.synced = true;
            info.switched = true;
        }
        Ok(Done::Plan { lines, done: !dry_run })
    }

    fn what_sync_means(&self, info: &NamespaceInfo) -> Vec<String> {
        let name = &info.spec.name;
        let groups = self.durable.groups.values().filter(|group| group.namespace == info.id);
        let mut lines = vec![format!(
            "sync is switched on in {} groups of namespace `{name}`, within seconds and under writes; \
             what they hold counts as written at that moment",
            groups.count()
        )];
        let peers: Vec<String> =
            self.durable.present_peers().map(|peer| format!("`{}`", peer.name)).collect();
        lines.push(match peers.is_empty() {
            true => "there is no other cluster yet: each that `flotilla link add` brings is sent the \
                     full state"
                .to_owned(),
            false => format!(
                "the full state of each group is sent to {}; where there is no namespace `{name}`, or \
                 it is not synced, that link is refused until there is",
                peers.join(", ")
            ),
        });
        lines.push(
            "of keys that several clusters have, the one that is switched on last wins; fields of \
             hashes one by one"
                .to_owned(),
        );
        lines.push(
            "deletes leave tombstones from then on, until every live cluster has seen them"
                .to_owned(),
        );
        lines.push("there is no way back".to_owned());
        lines
    }

    /// Which namespaces no peer is sent anything of, in a line; none if all travel.
    pub(super) fn stays_here(&self) -> Option<String> {
        let unsynced = self.durable.namespaces.values().filter(|record| !record.info.spec.synced);
        let names: Vec<&str> = unsynced.map(|record| record.info.spec.name.as_str()).collect();
        let first = names.first()?;
        let all = names.join("`, `");
        Some(format!("nothing of `{all}` travels until `flotilla namespace sync {first}`"))
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
            synced: self.durable.present_peers().next().is_some(),
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
        let replicas = usize::from(self.settings.bootstrap.replicas);
        ready(&self.hosts(), &self.settings.datacenters, replicas).err().map(|e| e.to_string())
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
