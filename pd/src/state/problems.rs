//! What is wrong, one line each with what to do. Empty means healthy.

use super::State;
use super::durable::GroupRecord;
use flotilla_topology::api::{LinkState, Standing};
use flotilla_topology::ids::{ClusterId, GroupId};
use flotilla_topology::placement::{GroupVoters, Violation, violations};
use flotilla_topology::slot::Slot;
use std::collections::{BTreeMap, BTreeSet};

/// Lines at most; more is one more line that says how many.
const PROBLEMS_MAX: usize = 100;

/// Groups named in a line.
const NAMED_MAX: usize = 8;

impl State {
    /// See the module.
    pub(super) fn problems(&self) -> Vec<String> {
        let mut lines = Vec::new();
        self.bootstrap_problems(&mut lines);
        self.silence_problems(&mut lines);
        self.foreign_problems(&mut lines);
        self.leader_problems(&mut lines);
        self.placement_problems(&mut lines);
        self.syncer_problems(&mut lines);
        self.peer_problems(&mut lines);
        self.link_problems(&mut lines);
        self.audit_problems(&mut lines);
        if lines.len() > PROBLEMS_MAX {
            let more = lines.len() - PROBLEMS_MAX;
            lines.truncate(PROBLEMS_MAX);
            lines.push(format!("{more} more problems are not shown: solve the first ones"));
        }
        lines
    }

    fn bootstrap_problems(&self, lines: &mut Vec<String>) {
        match self.waits_for() {
            Some(reason) if reason.is_empty() => {}
            Some(reason) => {
                lines.push(format!("namespace `default` is not created yet: {reason}"));
            }
            None => {
                // It waits for nothing and yet does not exist: try it and tell what is refused.
                if let Err(refusal) = self.clone().create_namespace(self.default_spec()) {
                    lines.push(format!("namespace `default` cannot be created: {}", refusal.0));
                }
            }
        }
    }

    fn silence_problems(&self, lines: &mut Vec<String>) {
        let silent_s = |heard_ms: u64| self.live.now_ms.saturating_sub(heard_ms) / 1000;
        for (name, record) in &self.durable.nodes {
            if self.live.shown.nodes.contains(name) {
                continue;
            }
            let seconds = self.live.nodes.get(name).map_or(0, |node| silent_s(node.heard_ms));
            lines.push(format!(
                "node `{name}` in datacenter `{}` has been silent for {seconds} s: start it, or look \
                 at its log and at the network to {}",
                record.info.datacenter, record.info.addresses.rpc
            ));
        }
        for (name, record) in &self.durable.syncers {
            if self.live.shown.syncers.contains(name) {
                continue;
            }
            let seconds = self.live.syncers.get(name).map_or(0, |s| silent_s(s.heard_ms));
            lines.push(format!(
                "syncer `{name}` in datacenter `{}` has been silent for {seconds} s: start it, or \
                 remove it if it is gone for good",
                record.info.datacenter
            ));
        }
    }

    fn foreign_problems(&self, lines: &mut Vec<String>) {
        for (name, node) in &self.live.nodes {
            if let Some(foreign) = &node.foreign {
                lines.push(format!(
                    "node `{name}` carries replica {} of group {}, which this PD never gave out: \
                     PD's store was lost or is an old copy; give it its store back",
                    foreign.replica, foreign.group
                ));
            }
        }
    }

    fn leader_problems(&self, lines: &mut Vec<String>) {
        let led = self.led();
        for group in self.durable.groups.values().filter(|group| !led.contains(&group.id)) {
            let (alive, silent): (Vec<&str>, Vec<&str>) = group
                .replicas
                .iter()
                .map(|replica| replica.node.as_str())
                .partition(|node| self.live.shown.nodes.contains(*node));
            let what_to_do = if alive.len() * 2 > group.replicas.len() {
                "a quorum is alive and should elect one within seconds; if not, look at their logs"
                    .to_owned()
            } else {
                format!("start {}", silent.join(" or "))
            };
            lines.push(format!(
                "group {} ({}, slots {}) has no leader, {} of {} replicas are heard of: {what_to_do}",
                group.id,
                self.namespace_name(group),
                group.slots,
                alive.len(),
                group.replicas.len()
            ));
        }
    }

    /// Groups that some live node says it leads.
    pub(super) fn led(&self) -> BTreeSet<GroupId> {
        let alive = |name: &&String| self.live.shown.nodes.contains(*name);
        let nodes = self.live.nodes.iter().filter(|(name, _)| alive(name));
        let replicas = nodes.flat_map(|(_, node)| node.replicas.iter());
        replicas.filter(|replica| replica.leads).map(|replica| replica.group).collect()
    }

    fn namespace_name(&self, group: &GroupRecord) -> &str {
        self.durable.namespaces.get(&group.namespace).map_or("?", |ns| ns.info.spec.name.as_str())
    }

    fn placement_problems(&self, lines: &mut Vec<String>) {
        let groups: Vec<GroupVoters> = self
            .durable
            .groups
            .values()
            .map(|group| GroupVoters {
                group: group.id,
                voters: group.replicas.iter().map(|replica| replica.node.clone()).collect(),
                wanted: group.birth.len(),
            })
            .collect();
        let all = violations(&self.hosts(), &groups);
        // A dead node is told once, and a group that it stops is told as one without a leader.
        let told = |violation: &&Violation| !matches!(violation, Violation::DeadVoters { .. });
        lines.extend(all.iter().filter(told).map(Violation::to_string));
    }

    fn syncer_problems(&self, lines: &mut Vec<String>) {
        let unserved: Vec<GroupId> = self
            .durable
            .groups
            .values()
            .filter(|group| self.is_synced(group))
            .filter(|group| {
                self.tenure(group)
                    .is_none_or(|tenure| !self.live.shown.syncers.contains(&tenure.syncer))
            })
            .map(|group| group.id)
            .collect();
        if !unserved.is_empty() && self.durable.present_peers().next().is_some() {
            lines.push(format!(
                "{} served by no live syncer: start one, writes wait in the log until then",
                count_groups(&unserved)
            ));
        }
    }

    fn peer_problems(&self, lines: &mut Vec<String>) {
        for peer in self.durable.present_peers() {
            let name = &peer.name;
            match peer.standing {
                Standing::Fenced => lines.push(format!(
                    "cluster `{name}` is fenced, nothing is shipped to it: `flotilla link return \
                     {name}` when it is well again, or `flotilla link remove {name}`"
                )),
                _ if peer.paused => lines.push(format!(
                    "link to cluster `{name}` is paused, logs are kept for it: `flotilla link \
                     resume {name}`"
                )),
                _ => {}
            }
        }
        for (id, since_ms) in &self.live.away_since {
            let Some(record) = self.durable.peers.get(id) else { continue };
            let (name, now_ms) = (&record.peer.name, self.live.now_ms);
            let together = match self.settings.fence_after_seconds {
                Some(seconds) => format!(
                    "; it is fenced when all other clusters have found that for {seconds} s"
                ),
                None => String::new(),
            };
            lines.push(format!(
                "cluster `{name}` has been away beyond its backlog budget for {} s: its state is merged \
                 when it is back, and deletes wait for it; if that takes too long, `flotilla link \
                 fence {name}` at every other cluster{together}",
                now_ms.saturating_sub(*since_ms) / 1000
            ));
        }
        for peer in self.removed_and_listed() {
            lines.push(format!(
                "cluster `{0}` is in the topology file and was removed: take it out of the file, or \
                 bring it back with `flotilla link add {0}`",
                peer.name
            ));
        }
    }

    fn link_problems(&self, lines: &mut Vec<String>) {
        let mut bad: BTreeMap<(ClusterId, LinkState), (Vec<GroupId>, String)> = BTreeMap::new();
        for link in self.links() {
            // What an operator wanted is told once for the peer.
            if link.state.moves() || matches!(link.state, LinkState::Paused | LinkState::Fenced) {
                continue;
            }
            let (groups, detail) = bad.entry((link.peer, link.state)).or_default();
            groups.push(link.group);
            *detail = link.detail;
        }
        for ((peer, state), (groups, detail)) in bad {
            let name = self.durable.peers.get(&peer).map(|record| record.peer.name.as_str());
            lines.push(format!(
                "link to cluster {}: {} {}: {detail:.200}",
                name.map_or_else(|| peer.to_string(), |name| format!("`{name}`")),
                count_groups(&groups),
                state_words(state)
            ));
        }
    }
}

impl State {
    /// What an audit found: nothing is under way, and yet clusters hold different things.
    fn audit_problems(&self, lines: &mut Vec<String>) {
        let mut differ: BTreeMap<(ClusterId, String), (u64, Vec<Slot>)> = BTreeMap::new();
        for link in self.links() {
            let Some(audit) = link.audit.filter(|audit| audit.different_slots > 0) else {
                continue;
            };
            let Some(group) = self.durable.groups.get(&link.group) else { continue };
            let namespace = self.namespace_name(group).to_owned();
            let (slots, named) = differ.entry((link.peer, namespace)).or_default();
            *slots += audit.different_slots;
            named.extend(audit.first_slots);
        }
        for ((peer, namespace), (slots, mut named)) in differ {
            named.sort_unstable();
            named.truncate(NAMED_MAX);
            let (Some(first), Some(last)) = (named.first(), named.last()) else { continue };
            let peer = self.durable.peers.get(&peer).map_or("?", |known| &known.peer.name);
            let ours = &self.settings.name;
            let many = if slots == 1 { "1 slot" } else { &format!("{slots} slots") };
            let all: Vec<String> = named.iter().map(Slot::to_string).collect();
            lines.push(format!(
                "`{ours}` and `{peer}` differ in {many} of namespace `{namespace}`, first {}: \
                 `flotilla verify --namespace {namespace} --slots {first}-{last}` names keys; \
                 `flotilla link merge {peer}` here and `flotilla link merge {ours}` there mend it",
                all.join(", ")
            ));
        }
    }
}

fn state_words(state: LinkState) -> &'static str {
    match state {
        LinkState::Live => "live",
        LinkState::CatchingUp => "catching up",
        LinkState::Merging => "merging",
        LinkState::Paused => "paused",
        LinkState::Fenced => "fenced",
        LinkState::Disconnected => "disconnected, look at the network and the syncers there",
        LinkState::Stalled => "stalled, look at the log of the syncers on both sides",
        LinkState::Parked => "parked, set the clocks right",
        LinkState::Refused => "refused by the receiver",
        LinkState::NeedsMerge => "need a full-state merge, the log no longer reaches back",
    }
}

/// `3 groups (5, 6, 7) are`, with a limit on how many are named.
fn count_groups(groups: &[GroupId]) -> String {
    let mut named: Vec<String> =
        groups.iter().take(NAMED_MAX).map(|group| group.to_string()).collect();
    if groups.len() > NAMED_MAX {
        named.push("...".to_owned());
    }
    match groups.len() {
        1 => format!("group {} is", named[0]),
        n => format!("{n} groups ({}) are", named.join(", ")),
    }
}
