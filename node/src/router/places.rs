//! Where things are: the partition map, the groups on this node, connections to the other nodes.

use crate::clock;
use crate::group::Group;
use crate::group::skew::Clocks;
use crate::raft::{Member, Network, Pace, Peer};
use crate::tls::Tls;
use crate::transport::{Class, Client, Expect};
use arc_swap::ArcSwapOption;
use flotilla_topology::api::ClusterMap;
use flotilla_topology::ids::{ClusterId, GroupId, ReplicaId, Role};
use parking_lot::{Mutex, RwLock};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use tokio::runtime::Handle;

/// Where a group's leader is, as far as this node knows.
#[derive(Clone)]
pub enum Target {
    /// Here.
    Local(Arc<Group>),
    /// On the node of that name.
    Node(String),
    /// An election is on, or nobody told us.
    Unknown,
}

/// The node's address book.
pub struct Places {
    /// This node.
    pub node: String,
    /// Where it stands.
    pub datacenter: String,
    cluster: ClusterId,
    tls: Option<Tls>,
    /// Raft's connections live on this runtime, so that client load never delays a heartbeat.
    raft: Handle,
    /// All others live on this one, where clients are served.
    runtime: Handle,
    /// For entries that other nodes lack because they were away.
    catch_up: Pace,
    map: ArcSwapOption<ClusterMap>,
    groups: RwLock<BTreeMap<GroupId, Arc<Group>>>,
    clients: Mutex<HashMap<(Role, String), Client>>,
}

impl Places {
    /// An address book without a map. Without `tls` there are no other nodes. Raft's connections to them
    /// live on the runtime `raft`, all others on the caller's. What a node lacks that was away is sent at
    /// the pace `catch_up`.
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    pub fn new(
        node: String,
        datacenter: String,
        cluster: ClusterId,
        tls: Option<Tls>,
        raft: Handle,
        catch_up: Pace,
    ) -> Arc<Places> {
        Arc::new(Places {
            node,
            datacenter,
            cluster,
            tls,
            raft,
            runtime: Handle::current(),
            catch_up,
            map: ArcSwapOption::empty(),
            groups: RwLock::default(),
            clients: Mutex::default(),
        })
    }

    /// The newest map.
    pub fn map(&self) -> Option<Arc<ClusterMap>> {
        self.map.load_full()
    }

    /// Takes a newer map.
    pub fn set_map(&self, map: Arc<ClusterMap>) {
        self.map.store(Some(map));
    }

    /// A group on this node.
    pub fn group(&self, group: GroupId) -> Option<Arc<Group>> {
        self.groups.read().get(&group).cloned()
    }

    /// All groups on this node.
    pub fn groups(&self) -> Vec<Arc<Group>> {
        self.groups.read().values().cloned().collect()
    }

    /// A group was started here.
    pub fn add_group(&self, group: Arc<Group>) {
        self.groups.write().insert(group.context.group, group);
    }

    /// A group is no longer here.
    pub fn remove_group(&self, group: GroupId) -> Option<Arc<Group>> {
        self.groups.write().remove(&group)
    }

    /// Where to send what only the leader may do. `hint` is what the last answer said.
    pub fn leader(&self, map: &ClusterMap, group: GroupId, hint: Option<&str>) -> Target {
        let local = self.group(group);
        if let Some(local) = local.as_ref().filter(|group| group.leads()) {
            return Target::Local(local.clone());
        }
        let known = local.as_ref().and_then(|group| group.leader());
        let from_map = || {
            let info = map.groups.iter().find(|info| info.id == group)?;
            info.leader.as_ref().map(|leader| leader.node.clone())
        };
        match hint.map(str::to_owned).or(known).or_else(from_map) {
            // Our own name: we lead and have not applied our blank entry yet.
            Some(name) if name == self.node => match local {
                Some(group) => Target::Local(group),
                None => Target::Unknown,
            },
            Some(name) => Target::Node(name),
            None => Target::Unknown,
        }
    }

    /// The connection to a process of this cluster; `None` if the map does not know it.
    pub fn client(&self, role: Role, name: &str) -> Option<Client> {
        let tls = self.tls.as_ref()?;
        let map = self.map()?;
        let addr = match role {
            Role::Node => {
                let node = map.nodes.iter().find(|node| node.name == name)?;
                node.addresses_from(&self.datacenter).rpc.clone()
            }
            Role::Syncer => map.syncers.iter().find(|syncer| syncer.name == name)?.rpc.clone(),
            Role::Pd | Role::Client => return None,
        };
        let mut clients = self.clients.lock();
        let key = (role, name.to_owned());
        if let Some(client) = clients.get(&key).filter(|client| client.addr() == addr) {
            return Some(client.clone());
        }
        let expect = Expect { cluster: self.cluster, role, name: Some(name.to_owned()) };
        let client = Client::on_two(&self.raft, &self.runtime, addr, tls, expect);
        clients.insert(key, client.clone());
        Some(client)
    }

    /// INFO fields that only this node's state can give.
    pub fn info(&self, section: &str) -> Vec<(String, String)> {
        let groups = self.groups();
        let leads = groups.iter().filter(|group| group.leads()).count();
        let parked = groups.iter().filter(|group| group.raft.is_parked()).count();
        let fields: Vec<(&str, String)> = match section {
            "flotilla" => {
                let map = self.map();
                let map = map.as_deref();
                vec![
                    ("node", self.node.clone()),
                    ("datacenter", self.datacenter.clone()),
                    ("cluster", map.map_or(String::new(), |map| map.name.clone())),
                    ("cluster_id", self.cluster.to_string()),
                    ("incarnation", map.map_or(0, |map| map.incarnation.0).to_string()),
                    ("epoch", map.map_or(0, |map| map.epoch.0).to_string()),
                    ("groups", groups.len().to_string()),
                    ("groups_led", leads.to_string()),
                    ("groups_parked", parked.to_string()),
                    ("durability", "synced-majority".to_owned()),
                ]
            }
            "replication" => vec![
                ("role", "master".to_owned()),
                ("connected_slaves", "0".to_owned()),
                (
                    "master_repl_offset",
                    groups.iter().map(|g| g.applied().log_id.index).sum::<u64>().to_string(),
                ),
            ],
            _ => Vec::new(),
        };
        fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }
}

impl Clocks for Places {
    fn wall_ms_of(&self, member: &Member) -> Option<u64> {
        let client = self.client(member.role, &member.name)?;
        // What a connection told that is gone may be old.
        Class::ALL.into_iter().find(|class| client.is_connected(*class))?;
        let told = client.clock()?;
        let doubt_ms = u64::try_from(told.rtt.as_millis() / 2).unwrap_or(u64::MAX);
        Some(clock::wall_ms().saturating_add_signed(told.offset_ms).saturating_add(doubt_ms))
    }
}

impl Network for Places {
    fn catch_up(&self) -> Option<&Pace> {
        Some(&self.catch_up)
    }

    fn peer(&self, _replica: ReplicaId, member: &Member) -> Option<Arc<dyn Peer>> {
        let client = self.client(member.role, &member.name)?;
        Some(Arc::new(client))
    }
}
