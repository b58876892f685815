//! What a scenario acts on.

use crate::checkers::converge::Verified;
use crate::checkers::replicas_equal::ReplicaDigest;
use crate::vitals::Census;
use crate::wan::Path;
use anyhow::{Result, bail};
use flotilla_topology::api::{LinkOp, LinkState, PeerCluster};
use flotilla_topology::ids::Role;
use flotilla_topology::slot::SlotRange;
use futures::future::BoxFuture;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A process of the world.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its unique name.
    pub name: String,
    /// What it is.
    pub role: Role,
    /// The cluster that it belongs to.
    pub cluster: String,
    /// The datacenter that it stands in.
    pub datacenter: String,
    /// `host:port` where clients reach it; nodes only.
    pub resp: Option<String>,
}

/// A link as its sender tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkView {
    /// The sending cluster.
    pub from: String,
    /// The receiving cluster.
    pub to: String,
    /// Each group that reports.
    pub states: Vec<LinkState>,
    /// Groups that should report.
    pub wanted: usize,
    /// What waits, in bytes.
    pub backlog: u64,
}

impl LinkView {
    /// Whether all groups report, and all are in this state.
    pub fn is_all(&self, state: LinkState) -> bool {
        self.states.len() >= self.wanted && self.states.iter().all(|one| *one == state)
    }

    /// Whether the full state of any group travels, or must.
    pub fn merges(&self) -> bool {
        let merging = [LinkState::Merging, LinkState::NeedsMerge];
        self.states.iter().any(|state| merging.contains(state))
    }
}

/// What groups keep of their logs for a peer that lags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backlog {
    /// Bytes of each group.
    pub bytes: u64,
    /// How old it gets.
    pub age: Duration,
    /// Groups of each cluster.
    pub groups: u64,
}

/// A group of the namespace that clients use, by its PD's word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupView {
    /// As it is shown in messages.
    pub name: String,
    /// Whose keys it carries.
    pub slots: SlotRange,
    /// The node that leads it, as PD has heard.
    pub leader: Option<String>,
    /// The node that should, so that leaders are spread.
    pub preferred: String,
}

impl GroupView {
    /// Whether the node leads it that should.
    pub(super) fn is_in_place(&self) -> bool {
        self.leader.as_ref() == Some(&self.preferred)
    }
}

/// What a scan of all replicas on a node counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rows {
    /// The cluster.
    pub cluster: String,
    /// The node.
    pub node: String,
    /// Keys that are visible.
    pub keys: u64,
    /// Elements that are visible.
    pub elements: u64,
    /// Rows and parts of rows that wait to be collected.
    pub garbage: u64,
    /// All counts, for people.
    pub told: String,
}

/// Clusters that can be broken.
pub trait World: Send + Sync {
    /// All processes, running or not.
    fn members(&self) -> Vec<Member>;

    /// The node that leads most groups of a cluster.
    fn leader(&self, cluster: &str) -> BoxFuture<'_, Result<String>>;

    /// The groups of a cluster, with who leads them.
    fn groups(&self, cluster: &str) -> BoxFuture<'_, Result<Vec<GroupView>>>;

    /// Waits until all groups have leaders and all links are live, or says why not.
    fn settled(&self) -> BoxFuture<'_, Result<()>>;

    /// kill -9; returns when the process is gone.
    fn kill(&self, name: &str) -> BoxFuture<'_, Result<()>>;

    /// SIGTERM; returns when the process is gone. One that does not go in time is killed.
    fn terminate(&self, name: &str) -> BoxFuture<'_, Result<()>>;

    /// Starts a dead process again; returns when it runs, ready or not.
    fn restart(&self, name: &str) -> BoxFuture<'_, Result<()>>;

    /// SIGSTOP.
    fn pause(&self, name: &str) -> Result<()>;

    /// SIGCONT.
    fn resume(&self, name: &str) -> Result<()>;

    /// Drops what travels from one datacenter to another.
    fn cut(&self, from: &str, to: &str) -> Result<()>;

    /// Lifts all cuts.
    fn heal(&self) -> Result<()>;

    /// What the network is like from one datacenter to another.
    fn path(&self, from: &str, to: &str) -> Path;

    /// Changes it, but for cuts: those stay as they are.
    fn set_path(&self, from: &str, to: &str, path: Path) -> Result<()>;

    /// Lets the wall clock of a process run so far ahead of the machine's, or behind it, from about
    /// now on, also after a restart.
    fn shift_clock(&self, name: &str, ms: i64) -> Result<()>;

    /// How many groups a syncer carries, by its PD's word.
    fn carried(&self, syncer: &str) -> BoxFuture<'_, Result<usize>>;

    /// All links, as far as their senders can be asked.
    fn links(&self) -> BoxFuture<'_, Vec<LinkView>>;

    /// An operator does something with the link from a cluster to a peer. Returns what PD answers.
    fn operate(&self, cluster: &str, peer: &str, op: LinkOp) -> BoxFuture<'_, Result<Vec<String>>>;

    /// A cluster as another one must be told of it.
    fn as_seen(&self, viewer: &str, cluster: &str) -> Result<PeerCluster>;

    /// Gives a cluster, whose processes must be dead, a higher incarnation; takes all data from them if
    /// it is to be empty.
    fn begin_life(&self, cluster: &str, empty: bool) -> Result<()>;

    /// What groups keep for a peer that lags, where that is little enough to be exceeded.
    fn backlog(&self) -> Option<Backlog> {
        None
    }

    /// Whether clusters fence one that is away beyond its budget by themselves, soon.
    fn fences_together(&self) -> bool {
        false
    }

    /// Bytes that are free on the disk of a node, where nodes have disks of their own.
    fn disk_free(&self, node: &str) -> Result<u64> {
        bail!("{node} has no disk of its own")
    }

    /// Takes the disk of a node away but for so many bytes, or gives back what was taken.
    fn squeeze_disk(&self, node: &str, _leave: Option<u64>) -> Result<()> {
        bail!("{node} has no disk of its own")
    }

    /// Scans all replicas.
    fn rows(&self) -> BoxFuture<'_, Result<Vec<Rows>>>;

    /// Where the processes can be looked at; empty where they cannot.
    fn census(&self) -> Census {
        Box::new(Vec::new)
    }

    /// Compares the clusters, once. With one cluster there is nothing to compare: equal.
    fn verify(&self) -> BoxFuture<'_, Result<Verified>>;

    /// What the replicas of all groups but those in `met` say of themselves, those of one group at the
    /// same moment; empty where they cannot be asked.
    fn replica_digests<'a>(
        &'a self,
        _met: &'a BTreeSet<String>,
    ) -> BoxFuture<'a, Result<Vec<ReplicaDigest>>> {
        Box::pin(std::future::ready(Ok(vec![])))
    }

    /// Processes that died without being told to, since this was last asked.
    fn unexpected_deaths(&self) -> Vec<String>;
}

/// The processes of a cluster, in the order in which they are started.
pub(super) fn names_of(members: &[Member], cluster: &str) -> Vec<String> {
    let own = members.iter().filter(|member| member.cluster == cluster);
    own.map(|member| member.name.clone()).collect()
}

/// Datacenters in order of their first appearance.
pub(super) fn datacenters(members: &[Member]) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for member in members {
        if !found.contains(&member.datacenter) {
            found.push(member.datacenter.clone());
        }
    }
    found
}

/// The addresses of the nodes of each cluster.
pub(super) fn clusters(members: &[Member]) -> BTreeMap<String, Vec<String>> {
    let mut clusters: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for member in members {
        if let (Role::Node, Some(resp)) = (member.role, &member.resp) {
            clusters.entry(member.cluster.clone()).or_default().push(resp.clone());
        }
    }
    clusters
}

/// Clusters that keep a quorum when one of their nodes is gone.
pub(super) fn clusters_with_quorum(members: &[Member]) -> Vec<String> {
    let clusters = clusters(members).into_iter();
    clusters.filter(|(_, nodes)| nodes.len() >= 3).map(|(name, _)| name).collect()
}

/// Clusters whose nodes stand in several datacenters.
pub(super) fn spanning_clusters(members: &[Member]) -> Vec<String> {
    let mut found: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for member in members.iter().filter(|member| member.role == Role::Node) {
        found.entry(&member.cluster).or_default().insert(&member.datacenter);
    }
    // Over two datacenters one of them holds the majority; losing it may stop the cluster.
    let spanning = found.into_iter().filter(|(_, datacenters)| datacenters.len() >= 3);
    spanning.map(|(name, _)| name.to_owned()).collect()
}

/// The syncers of each cluster.
pub(super) fn syncers(members: &[Member]) -> BTreeMap<String, Vec<String>> {
    let mut syncers: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for member in members.iter().filter(|member| member.role == Role::Syncer) {
        syncers.entry(member.cluster.clone()).or_default().push(member.name.clone());
    }
    syncers
}

/// Names of the processes of these clusters in a role.
pub(super) fn of_role(members: &[Member], role: Role, clusters: &[String]) -> Vec<String> {
    let found = members.iter().filter(|one| one.role == role && clusters.contains(&one.cluster));
    found.map(|one| one.name.clone()).collect()
}

/// All directions from and to the datacenters of a cluster that stands in no other one.
pub(super) fn around(members: &[Member], cluster: &str) -> Vec<(String, String)> {
    let inside: Vec<Member> =
        members.iter().filter(|one| one.cluster == cluster).cloned().collect();
    let own = datacenters(&inside);
    let crosses = |(from, to): &(String, String)| own.contains(from) != own.contains(to);
    directions(members).into_iter().filter(crosses).collect()
}

/// All ordered pairs of datacenters.
pub(super) fn directions(members: &[Member]) -> Vec<(String, String)> {
    let all = datacenters(members);
    let pairs = all.iter().flat_map(|from| all.iter().map(move |to| (from, to)));
    pairs.filter(|(from, to)| from != to).map(|(from, to)| (from.clone(), to.clone())).collect()
}
