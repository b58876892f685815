//! What PD must not forget, as records of a store: members, namespaces, groups, and the counters
//! that keep every number from being given out twice.
//!
//! Invariants:
//! * [`Durable::changes`] of two states, applied to the records of the first, gives the records of
//!   the second: nothing can be forgotten by a transition, since changes are found by comparing.
//! * One step touches at most [`CHANGES_MAX`] records, so that a store can write them in one
//!   transaction. Groups therefore stand in chunks of [`GROUPS_PER_CHUNK`].
//! * Counters only rise, and rise in the same transaction that uses the number.

use super::links::PeerRecord;
use flotilla_topology::api::{NamespaceInfo, NodeInfo, PeerCluster, ReplicaInfo, SyncerInfo};
use flotilla_topology::ids::{ClusterId, Epoch, GroupId, Incarnation, NamespaceId, ReplicaId};
use flotilla_topology::slot::SlotRange;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Version of the records' layout. A store with a higher one is refused.
pub const FORMAT: u32 = 1;

/// Groups per record. A record is then some 13 KB: small enough to rewrite for one learner, and
/// 1,024 partitions are 32 records, well within one transaction.
pub const GROUPS_PER_CHUNK: u32 = 32;

/// Most records that one step changes: etcd takes 128 operations in a transaction as it comes,
/// and the guard is among them.
pub const CHANGES_MAX: usize = 120;

/// One record to write or, without a value, to delete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Its key: readable text with `/` between parts.
    pub key: String,
    /// JSON, or `None` to delete.
    pub value: Option<Vec<u8>>,
}

/// All records of a store, by key.
pub type Records = BTreeMap<String, Vec<u8>>;

/// Why a store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The store is of another cluster.
    #[error(
        "the store belongs to cluster {found} `{found_name}`, the configuration says {configured}: \
         point PD at its own store"
    )]
    OtherCluster {
        /// Whose it is.
        found: ClusterId,
        /// Its name.
        found_name: String,
        /// What the configuration says.
        configured: ClusterId,
    },
    /// The store was written by a newer Flotilla.
    #[error(
        "the store has format {found}, this version knows up to {FORMAT}: use a newer flotilla"
    )]
    NewerFormat {
        /// What it says.
        found: u32,
    },
    /// The peers of the topology file and those added while PD ran do not go together.
    #[error("{0}")]
    Peers(String),
    /// The configured incarnation is of a former life.
    #[error(
        "incarnation {configured} in the configuration is below {found} in the store: a former \
         life cannot come back, set it to {found} or higher"
    )]
    OldIncarnation {
        /// In the store.
        found: Incarnation,
        /// In the configuration.
        configured: Incarnation,
    },
    /// A record cannot be read.
    #[error("record `{key}` of the store is damaged ({reason}): restore the store from a backup")]
    Damaged {
        /// Its key.
        key: String,
        /// What is wrong.
        reason: String,
    },
}

/// Whose store it is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Meta {
    /// Layout of the records.
    pub format: u32,
    /// Whose it is.
    pub cluster: ClusterId,
    /// Its name.
    pub name: String,
    /// Its present life.
    pub incarnation: Incarnation,
}

/// Numbers that were given out so far.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Next namespace.
    pub namespace: u32,
    /// Next group.
    pub group: u32,
    /// Next replica or learner, in any group.
    pub replica: u64,
    /// Next life of a syncer, of any one: a name that is removed and comes back must not find its
    /// old tenures valid.
    pub syncer_life: u64,
    /// Version of the map.
    pub epoch: Epoch,
    /// How often a PD has taken up this store. The upper half of every revision, so that revisions
    /// rise over restarts although they are not written one by one.
    pub life: u64,
    /// Whether the namespace `default` was created once; if it is dropped it stays dropped.
    pub bootstrapped: bool,
    /// Version of the set of peers and their standings.
    #[serde(default)]
    pub mesh: u64,
}

impl Default for Counters {
    fn default() -> Self {
        Counters {
            namespace: 1,
            group: 1,
            replica: 1,
            syncer_life: 1,
            epoch: Epoch(0),
            life: 0,
            bootstrapped: false,
            mesh: 0,
        }
    }
}

/// A node that registered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// As it registered; `alive` is always false here.
    pub info: NodeInfo,
    /// The number of its data directory.
    pub directory: u64,
}

/// A syncer that registered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncerRecord {
    /// As it registered; `alive` is always false here.
    pub info: SyncerInfo,
    /// New with every registration. A tenure given in a former life has ended.
    pub life: u64,
}

/// A syncer's hold on a group, under one Raft node id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tenure {
    /// Who.
    pub syncer: String,
    /// In which life of the syncer.
    pub life: u64,
    /// The Raft node id.
    pub learner: ReplicaId,
    /// Whether the syncer runs it, so that the group may add it.
    pub ready: bool,
}

/// A namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamespaceRecord {
    /// As in the map.
    pub info: NamespaceInfo,
    /// Its groups are this one and the following ones, as many as it has partitions.
    pub first_group: GroupId,
}

/// A group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupRecord {
    /// Its number.
    pub id: GroupId,
    /// Whose slots it carries.
    pub namespace: NamespaceId,
    /// Which of them.
    pub slots: SlotRange,
    /// First membership.
    pub birth: Vec<ReplicaInfo>,
    /// Voters wanted now.
    pub replicas: Vec<ReplicaInfo>,
    /// The node that should lead.
    pub preferred_leader: String,
    /// The present or last hold of a syncer.
    pub tenure: Option<Tenure>,
    /// How many tenures there were: the epoch of the present one.
    pub tenures: u64,
}

/// All that PD keeps.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Durable {
    /// Whose it is.
    pub meta: Meta,
    /// Numbers given out.
    pub counters: Counters,
    /// By name.
    pub nodes: BTreeMap<String, NodeRecord>,
    /// By name.
    pub syncers: BTreeMap<String, SyncerRecord>,
    /// By number.
    pub namespaces: BTreeMap<NamespaceId, NamespaceRecord>,
    /// By number.
    pub groups: BTreeMap<GroupId, GroupRecord>,
    /// Clusters on the other end of links, those that were removed too.
    pub peers: BTreeMap<ClusterId, PeerRecord>,
}

impl Durable {
    /// Reads what [`Durable::changes`] wrote. No records at all give the empty state.
    pub fn load(records: &Records) -> Result<Durable, LoadError> {
        let mut durable = Durable::default();
        if let Some(bytes) = records.get("meta") {
            durable.meta = decode("meta", bytes)?;
        }
        // Before anything else is looked at: what follows may mean something else by then.
        if durable.meta.format > FORMAT {
            return Err(LoadError::NewerFormat { found: durable.meta.format });
        }
        for (key, bytes) in records {
            durable.take(key, bytes)?;
        }
        durable.check()?;
        Ok(durable)
    }

    fn take(&mut self, key: &str, bytes: &[u8]) -> Result<(), LoadError> {
        match key.split_once('/') {
            None if key == "meta" => {}
            None if key == "counters" => self.counters = decode(key, bytes)?,
            None if key == "peers" => {
                let all: Vec<PeerRecord> = decode(key, bytes)?;
                self.peers = all.into_iter().map(|record| (record.peer.id, record)).collect();
            }
            Some(("node", name)) => {
                self.nodes.insert(name.to_owned(), decode(key, bytes)?);
            }
            Some(("syncer", name)) => {
                self.syncers.insert(name.to_owned(), decode(key, bytes)?);
            }
            Some(("namespace", _)) => {
                let record: NamespaceRecord = decode(key, bytes)?;
                self.namespaces.insert(record.info.id, record);
            }
            Some(("groups", _)) => {
                let chunk: Vec<GroupRecord> = decode(key, bytes)?;
                self.groups.extend(chunk.into_iter().map(|group| (group.id, group)));
            }
            _ => return Err(damaged(key, "no record has such a key")),
        }
        Ok(())
    }

    /// Whether the counters are above all that is in use: a number that is given out twice lets a
    /// replica vote twice.
    fn check(&self) -> Result<(), LoadError> {
        for group in self.groups.values() {
            let known = self.namespaces.contains_key(&group.namespace);
            let learner = group.tenure.as_ref().map_or(0, |tenure| tenure.learner.0);
            let highest = group.replicas.iter().map(|r| r.id.0).max().unwrap_or(0).max(learner);
            if !known || group.id.0 >= self.counters.group || highest >= self.counters.replica {
                return Err(damaged("counters", &format!("group {} is beyond them", group.id)));
            }
        }
        match self.namespaces.keys().next_back() {
            Some(last) if last.0 >= self.counters.namespace => {
                Err(damaged("counters", &format!("namespace {last} is beyond them")))
            }
            _ => Ok(()),
        }
    }

    /// What must be written to come from `self` to `next`.
    pub fn changes(&self, next: &Durable) -> Vec<Change> {
        let mut changes = Vec::new();
        put_if_changed(&mut changes, "meta", &self.meta, &next.meta);
        put_if_changed(&mut changes, "counters", &self.counters, &next.counters);
        let peers = |durable: &Durable| durable.peers.values().cloned().collect::<Vec<_>>();
        put_if_changed(&mut changes, "peers", &peers(self), &peers(next));
        compare(&mut changes, &self.nodes, &next.nodes, |name| format!("node/{name}"));
        compare(&mut changes, &self.syncers, &next.syncers, |name| format!("syncer/{name}"));
        compare(&mut changes, &self.namespaces, &next.namespaces, |id| namespace_key(*id));
        compare(&mut changes, &self.chunks(), &next.chunks(), Clone::clone);
        changes
    }

    /// The peers that are none no more are left out.
    pub fn present_peers(&self) -> impl Iterator<Item = &PeerCluster> {
        self.peers.values().filter(|record| record.gone.is_none()).map(|record| &record.peer)
    }

    /// Those of them that were not given up.
    pub fn counting_peers(&self) -> impl Iterator<Item = &PeerCluster> {
        self.present_peers().filter(|peer| peer.counts())
    }

    /// Groups by the key of the record that holds them.
    fn chunks(&self) -> BTreeMap<String, Vec<&GroupRecord>> {
        let mut chunks: BTreeMap<String, Vec<&GroupRecord>> = BTreeMap::new();
        for group in self.groups.values() {
            let first = self.namespaces.get(&group.namespace).map_or(0, |ns| ns.first_group.0);
            let chunk = group.id.0.saturating_sub(first) / GROUPS_PER_CHUNK;
            let key = format!("groups/{:010}/{chunk:04}", group.namespace.0);
            chunks.entry(key).or_default().push(group);
        }
        chunks
    }
}

fn namespace_key(id: NamespaceId) -> String {
    format!("namespace/{:010}", id.0)
}

fn damaged(key: &str, reason: &str) -> LoadError {
    LoadError::Damaged { key: key.to_owned(), reason: reason.to_owned() }
}

fn decode<T: DeserializeOwned>(key: &str, bytes: &[u8]) -> Result<T, LoadError> {
    serde_json::from_slice(bytes).map_err(|error| damaged(key, &error.to_string()))
}

fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    // Records are plain structs with text keys: writing them as JSON into memory cannot fail.
    serde_json::to_vec(value).expect("records are always valid JSON")
}

fn put_if_changed<T: PartialEq + Serialize>(out: &mut Vec<Change>, key: &str, old: &T, new: &T) {
    if old != new {
        out.push(Change { key: key.to_owned(), value: Some(encode(new)) });
    }
}

fn compare<K: Ord, T: PartialEq + Serialize>(
    out: &mut Vec<Change>,
    old: &BTreeMap<K, T>,
    new: &BTreeMap<K, T>,
    key: impl Fn(&K) -> String,
) {
    for gone in old.keys().filter(|k| !new.contains_key(k)) {
        out.push(Change { key: key(gone), value: None });
    }
    for (k, value) in new.iter().filter(|(k, value)| old.get(k) != Some(value)) {
        out.push(Change { key: key(k), value: Some(encode(value)) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_format_is_refused_before_its_records_are_read() {
        let meta = Meta { format: FORMAT + 1, ..Meta::default() };
        let records = Records::from([
            ("meta".to_owned(), encode(&meta)),
            ("hologram/7".to_owned(), b"?".to_vec()),
        ]);
        assert!(matches!(Durable::load(&records), Err(LoadError::NewerFormat { .. })));
    }

    #[test]
    fn damage_names_the_record() {
        for (key, value) in [("counters", "{"), ("nonsense", "{}"), ("node/a", "[]")] {
            let records = Records::from([(key.to_owned(), value.as_bytes().to_vec())]);
            let error = Durable::load(&records).unwrap_err().to_string();
            assert!(error.contains(key), "{error}");
        }
    }
}
