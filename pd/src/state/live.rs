//! What PD knows only as long as it hears it: who is alive, who leads, how links fare.
//!
//! Nothing here is stored. After a restart or a change of the leading PD everybody known counts as
//! heard of just then, so that a PD that was down moves nothing before it has listened for a while.

use super::durable::Durable;
use flotilla_topology::api::{
    LeaderHint, LinkState, LinkStatus, PeerCluster, PeerView, ReplicaStatus, Standing,
};
use flotilla_topology::ids::{ClusterId, GroupId};
use flotilla_topology::runway::Growth;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A node that sent no heartbeat for this long is not alive. They are sent about once a second: two
/// may be lost or late.
pub const SILENCE_MS: u64 = 3_000;

/// The same for a syncer, which sends four in a second: another one takes over its groups within
/// three, and nothing is lost when it was alive after all.
pub const SYNCER_SILENCE_MS: u64 = 1_000;

/// When PD begins, syncers have as long as nodes to find it.
const FIRST_GRACE_MS: u64 = SILENCE_MS - SYNCER_SILENCE_MS;

/// A syncer gets groups of another live one only when it has been alive this long, so that one
/// that comes and goes does not drag groups along.
pub const STEADY_MS: u64 = 5_000;

/// What is in the map although it is not stored.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Shown {
    /// Nodes that are alive.
    pub nodes: BTreeSet<String>,
    /// Syncers that are alive.
    pub syncers: BTreeSet<String>,
    /// Who leads, by the highest term heard.
    pub leaders: BTreeMap<GroupId, LeaderHint>,
    /// Peers that have been away beyond their backlog budget for longer than is configured.
    pub overdue: BTreeSet<ClusterId>,
}

/// The last heartbeat of a node.
#[derive(Debug, Clone)]
pub(super) struct NodeLive {
    /// When.
    pub heard_ms: u64,
    /// Replicas of the map that it carries.
    pub replicas: Arc<Vec<ReplicaStatus>>,
    /// A replica with a number that this PD never gave out, if it told of one.
    pub foreign: Option<ReplicaStatus>,
}

/// The last heartbeat of a syncer.
#[derive(Debug, Clone)]
pub(super) struct SyncerLive {
    /// When.
    pub heard_ms: u64,
    /// Since when it has been alive without a break.
    pub since_ms: u64,
    /// Its links, and how their backlogs grow.
    pub links: Arc<Vec<(LinkStatus, Growth)>>,
    /// What peers told it of each other.
    pub views: Arc<Vec<PeerView>>,
}

/// See the module.
#[derive(Debug, Clone, Default)]
pub(super) struct Live {
    /// Monotonic, of this process.
    pub now_ms: u64,
    /// By name.
    pub nodes: BTreeMap<String, NodeLive>,
    /// By name.
    pub syncers: BTreeMap<String, SyncerLive>,
    /// Since when peers are away beyond their backlog budget.
    pub away_since: BTreeMap<ClusterId, u64>,
    /// What the map shows of it.
    pub shown: Arc<Shown>,
}

impl Live {
    /// Everybody known was heard of just now.
    pub fn after_load(durable: &Durable, now_ms: u64) -> Live {
        let mut live = Live { now_ms, ..Live::default() };
        for name in durable.nodes.keys() {
            live.hear_node(name);
        }
        for name in durable.syncers.keys() {
            live.hear_syncer(name).heard_ms += FIRST_GRACE_MS;
        }
        live
    }

    /// A peer as the map shows it.
    pub fn with_overdue(&self, peer: &PeerCluster) -> PeerCluster {
        let overdue = peer.standing == Standing::Live && self.shown.overdue.contains(&peer.id);
        PeerCluster { overdue, ..peer.clone() }
    }

    /// A node gave a sign of life.
    pub fn hear_node(&mut self, name: &str) -> &mut NodeLive {
        if !self.shown.nodes.contains(name) {
            Arc::make_mut(&mut self.shown).nodes.insert(name.to_owned());
        }
        let heard_ms = self.now_ms;
        let node = self.nodes.entry(name.to_owned()).or_insert_with(|| NodeLive {
            heard_ms,
            replicas: Arc::default(),
            foreign: None,
        });
        node.heard_ms = heard_ms;
        node
    }

    /// A syncer gave a sign of life.
    pub fn hear_syncer(&mut self, name: &str) -> &mut SyncerLive {
        let now_ms = self.now_ms;
        let returned = !self.shown.syncers.contains(name);
        let syncer = self.syncers.entry(name.to_owned()).or_insert_with(|| SyncerLive {
            heard_ms: now_ms,
            since_ms: now_ms,
            links: Arc::default(),
            views: Arc::default(),
        });
        syncer.heard_ms = now_ms;
        if returned {
            syncer.since_ms = now_ms;
            Arc::make_mut(&mut self.shown).syncers.insert(name.to_owned());
        }
        syncer
    }

    /// Takes note of a leader; a hint of an older term, or the same again, changes nothing.
    pub fn hear_leader(&mut self, group: GroupId, node: &str, term: u64) {
        if self.shown.leaders.get(&group).is_none_or(|known| known.term < term) {
            let hint = LeaderHint { node: node.to_owned(), term };
            Arc::make_mut(&mut self.shown).leaders.insert(group, hint);
        }
    }

    /// Those who are silent for too long are not alive.
    pub fn notice_silence(&mut self) {
        let (mut gone_nodes, mut gone_syncers) = (Vec::new(), Vec::new());
        let now_ms = self.now_ms;
        let silent = |heard_ms: u64, max_ms| now_ms.saturating_sub(heard_ms) > max_ms;
        let nodes = self.nodes.iter().filter(|(_, node)| silent(node.heard_ms, SILENCE_MS));
        let syncers = self.syncers.iter().filter(|(_, s)| silent(s.heard_ms, SYNCER_SILENCE_MS));
        for (name, _) in nodes.filter(|(name, _)| self.shown.nodes.contains(*name)) {
            gone_nodes.push(name.clone());
        }
        for (name, _) in syncers.filter(|(name, _)| self.shown.syncers.contains(*name)) {
            gone_syncers.push(name.clone());
        }
        // Not touched without need: who compares old with new sees at once that nothing changed.
        if !gone_nodes.is_empty() || !gone_syncers.is_empty() {
            let shown = Arc::make_mut(&mut self.shown);
            shown.nodes.retain(|name| !gone_nodes.contains(name));
            shown.syncers.retain(|name| !gone_syncers.contains(name));
        }
    }

    /// Forgets hints of groups that are gone.
    pub fn forget_groups(&mut self, gone: impl Fn(GroupId) -> bool) {
        if self.shown.leaders.keys().any(|group| gone(*group)) {
            Arc::make_mut(&mut self.shown).leaders.retain(|group, _| !gone(*group));
        }
    }

    /// Whether a syncer has been alive for long enough to be given more.
    pub fn is_steady(&self, syncer: &str) -> bool {
        self.shown.syncers.contains(syncer)
            && self
                .syncers
                .get(syncer)
                .is_some_and(|s| self.now_ms.saturating_sub(s.since_ms) >= STEADY_MS)
    }
}

impl SyncerLive {
    /// The last word on a link, or, from a syncer that fell silent, what follows from that.
    pub fn as_seen_now(&self, link: &LinkStatus, name: &str, now_ms: u64) -> LinkStatus {
        let silent_ms = now_ms.saturating_sub(self.heard_ms);
        let mut link = link.clone();
        if silent_ms > SYNCER_SILENCE_MS {
            let seconds = silent_ms as f64 / 1000.0;
            link.state = LinkState::Disconnected;
            link.detail = format!("syncer `{name}` has been silent for {seconds:.0} s");
            // What was behind gets older; what was not may be by now, and nobody would know.
            link.lag_seconds += seconds;
        }
        link
    }
}
