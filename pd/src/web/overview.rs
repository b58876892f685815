//! The page's view of everything: all clusters that this PD knows of, the links between them in
//! both directions, and one sentence that says how it stands. Pure.

use flotilla_topology::api::{ClusterStatus, LinkState, LinkStatus, Standing};
use flotilla_topology::ids::{ClusterId, GroupId, ReplicaId};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// Everything that the page shows.
#[derive(Debug, Clone, Serialize)]
pub struct Overview {
    /// The PD that says so.
    pub pd: String,
    /// One sentence.
    pub verdict: Verdict,
    /// This cluster first, then its peers.
    pub clusters: Vec<ClusterView>,
    /// Links between any two of them.
    pub links: Vec<LinkView>,
}

/// How it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// For colour and symbol.
    pub level: Level,
    /// For people.
    pub sentence: String,
}

/// How much of a person's attention is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// None.
    Ok,
    /// Some: it still serves, or mends itself.
    Warn,
    /// All: something does not serve.
    Bad,
}

/// A cluster as seen from here.
#[derive(Debug, Clone, Serialize)]
pub struct ClusterView {
    /// Its id.
    pub id: ClusterId,
    /// Its name.
    pub name: String,
    /// Whether it is the one that this PD serves.
    pub here: bool,
    /// How old `status` is, in seconds.
    pub age_seconds: f64,
    /// Why there is no status, or none of now; one line that says what to do.
    pub error: Option<String>,
    /// What its PD says.
    pub status: Option<ClusterStatus>,
    /// The node that leads each group.
    pub leaders: BTreeMap<GroupId, String>,
    /// Groups that nobody leads.
    pub leaderless: Vec<GroupId>,
    /// Processes not heard of, `node n1`.
    pub silent: Vec<String>,
}

/// A link between two clusters, over all its groups. Numbers are of the sending side.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LinkView {
    /// Name of the sending cluster.
    pub from: String,
    /// Name of the receiving cluster.
    pub to: String,
    /// The worst of its groups; `None` when nobody tells.
    pub state: Option<LinkState>,
    /// What was seen last in the worst group, or why nobody tells.
    pub detail: String,
    /// Groups that report.
    pub groups: usize,
    /// Groups in the worst state.
    pub affected: usize,
    /// Largest lag over groups, in seconds: the 99th percentile of the last minute, or the age of
    /// what waits now if that is more.
    pub lag_seconds: f64,
    /// The group with that lag.
    pub lag_group: Option<GroupId>,
    /// Largest median over groups, in seconds.
    pub lag_p50_seconds: Option<f64>,
    /// Largest 99th percentile over groups, in seconds.
    pub lag_p99_seconds: Option<f64>,
    /// Sum over groups.
    pub backlog_entries: u64,
    /// Sum over groups.
    pub backlog_bytes: u64,
    /// Round trip time by the topology file.
    pub rtt_ms: Option<f64>,
    /// What the receiving cluster counts for at the sending one; `None` when nobody tells.
    pub standing: Option<Standing>,
    /// Shortest over groups: seconds until a backlog exceeds its budget. `None` when none grows.
    pub runway_seconds: Option<f64>,
    /// Smallest over groups that merge: the share that is done.
    pub merge_done: Option<f64>,
    /// Sum over groups: slots that both clusters hold differently although nothing is under way.
    pub different_slots: u64,
    /// Largest over groups: how long ago all of its slots had been compared. `None` while one of them
    /// was not compared yet.
    pub audit_age_seconds: Option<f64>,
}

/// What is known of a cluster before it is looked into.
pub struct Source {
    /// Its id.
    pub id: ClusterId,
    /// Its name.
    pub name: String,
    /// How old `status` is, in seconds.
    pub age_seconds: f64,
    /// Why there is no status, or none of now.
    pub error: Option<String>,
    /// What its PD says.
    pub status: Option<ClusterStatus>,
}

/// Puts it together; the first source is the cluster that this PD serves.
pub fn overview(pd: &str, sources: Vec<Source>) -> Overview {
    let clusters: Vec<ClusterView> =
        sources.into_iter().enumerate().map(|(n, source)| look_into(source, n == 0)).collect();
    let mut links = Vec::new();
    for from in &clusters {
        for to in clusters.iter().filter(|to| to.id != from.id) {
            links.extend(link_between(from, to));
        }
    }
    Overview { pd: pd.to_owned(), verdict: verdict(&clusters, &links), clusters, links }
}

fn look_into(source: Source, here: bool) -> ClusterView {
    let (mut leaders, mut leaderless, mut silent) = (BTreeMap::new(), Vec::new(), Vec::new());
    if let Some(status) = &source.status {
        let map = &status.map;
        leaders = leaders_of(status);
        let groups = map.groups.iter().map(|group| group.id);
        leaderless.extend(groups.filter(|group| !leaders.contains_key(group)));
        let nodes = map.nodes.iter().filter(|node| !node.alive);
        silent.extend(nodes.map(|node| format!("node {}", node.name)));
        let syncers = map.syncers.iter().filter(|syncer| !syncer.alive);
        silent.extend(syncers.map(|syncer| format!("syncer {}", syncer.name)));
    }
    ClusterView {
        id: source.id,
        name: source.name,
        here,
        age_seconds: source.age_seconds,
        error: source.error,
        status: source.status,
        leaders,
        leaderless,
        silent,
    }
}

/// The node that leads each group by the last heartbeats of live nodes.
fn leaders_of(status: &ClusterStatus) -> BTreeMap<GroupId, String> {
    let alive: BTreeSet<&str> =
        status.map.nodes.iter().filter(|node| node.alive).map(|node| node.name.as_str()).collect();
    let placed = status.map.groups.iter().flat_map(|group| {
        group.replicas.iter().map(|replica| ((group.id, replica.id), replica.node.as_str()))
    });
    let placed: BTreeMap<(GroupId, ReplicaId), &str> = placed.collect();
    let leading = status.replicas.iter().filter(|replica| replica.leads);
    leading
        .filter_map(|replica| {
            Some((replica.group, *placed.get(&(replica.group, replica.replica))?))
        })
        .filter(|(_, node)| alive.contains(node))
        .map(|(group, node)| (group, node.to_owned()))
        .collect()
}

/// Lag of one group of a link as people understand it.
fn lag(link: &LinkStatus) -> f64 {
    link.lag_seconds.max(link.lag_p99_seconds.unwrap_or(0.0))
}

fn largest(values: impl Iterator<Item = Option<f64>>) -> Option<f64> {
    values.flatten().fold(None, |max: Option<f64>, value| Some(max.map_or(value, |m| m.max(value))))
}

fn smallest(values: impl Iterator<Item = Option<f64>>) -> Option<f64> {
    values.flatten().fold(None, |min: Option<f64>, value| Some(min.map_or(value, |m| m.min(value))))
}

/// `None` when the topology of `from` has no link to `to`.
fn link_between(from: &ClusterView, to: &ClusterView) -> Option<LinkView> {
    let mut view = LinkView {
        from: from.name.clone(),
        to: to.name.clone(),
        state: None,
        detail: String::new(),
        groups: 0,
        affected: 0,
        lag_seconds: 0.0,
        lag_group: None,
        lag_p50_seconds: None,
        lag_p99_seconds: None,
        backlog_entries: 0,
        backlog_bytes: 0,
        rtt_ms: None,
        standing: None,
        runway_seconds: None,
        merge_done: None,
        different_slots: 0,
        audit_age_seconds: None,
    };
    let Some(status) = &from.status else {
        view.detail = from.error.clone().unwrap_or_else(|| "its PD was not asked yet".to_owned());
        return Some(view);
    };
    let peer = status.map.peers.iter().find(|peer| peer.id == to.id)?;
    view.rtt_ms = peer.rtt_ms;
    view.standing = Some(peer.standing);
    let links: Vec<&LinkStatus> = status.links.iter().filter(|link| link.peer == to.id).collect();
    view.groups = links.len();
    view.lag_p50_seconds = largest(links.iter().map(|link| link.lag_p50_seconds));
    view.lag_p99_seconds = largest(links.iter().map(|link| link.lag_p99_seconds));
    view.runway_seconds = smallest(links.iter().map(|link| link.runway_seconds));
    view.merge_done = smallest(links.iter().map(|link| link.merge_done));
    let audits = || links.iter().map(|link| link.audit.as_ref());
    view.different_slots = audits().flatten().map(|audit| audit.different_slots).sum();
    let ages: Option<Vec<f64>> = audits().map(|audit| audit?.age_seconds).collect();
    view.audit_age_seconds = largest(ages.unwrap_or_default().into_iter().map(Some));
    view.backlog_entries = links.iter().map(|link| link.backlog_entries).sum();
    view.backlog_bytes = links.iter().map(|link| link.backlog_bytes).sum();
    if let Some(slowest) = links.iter().max_by(|a, b| lag(a).total_cmp(&lag(b))) {
        view.lag_seconds = lag(slowest);
        view.lag_group = Some(slowest.group);
    }
    match links.iter().max_by_key(|link| (link.state, link.backlog_entries)) {
        Some(worst) => {
            view.state = Some(worst.state);
            view.detail.clone_from(&worst.detail);
            view.affected = links.iter().filter(|link| link.state == worst.state).count();
        }
        None => view.detail = "no syncer of the sending cluster reports it: start one".to_owned(),
    }
    Some(view)
}

/// The one sentence: the worst thing that is known, in the words of the page.
fn verdict(clusters: &[ClusterView], links: &[LinkView]) -> Verdict {
    let say = |level, sentence| Verdict { level, sentence };
    let Some(here) = clusters.first() else {
        return say(Level::Bad, "This PD knows no cluster.".to_owned());
    };
    let Some(status) = &here.status else {
        let why = here.error.as_deref().unwrap_or("wait a moment");
        return say(Level::Warn, format!("This PD does not lead: {why}."));
    };
    if let Some(sentence) = leaderless_sentence(clusters) {
        return say(Level::Bad, sentence);
    }
    if status.map.groups.is_empty() {
        let why = status.problems.first().map_or("create a namespace", String::as_str);
        return say(Level::Warn, format!("{} has no groups yet: {why}.", here.name));
    }
    if let Some(link) = links.iter().max_by_key(|link| link.different_slots)
        && link.different_slots > 0
    {
        return say(Level::Bad, different_sentence(link));
    }
    let broken = |link: &&LinkView| link.state.is_some_and(|state| !state.moves());
    let most = links.iter().filter(broken).max_by_key(|link| link.state);
    if let Some(link) = most {
        // What an operator wanted, or what mends itself, is no disaster.
        let mild = link.state.is_some_and(|state| state <= LinkState::Disconnected);
        let level = if mild { Level::Warn } else { Level::Bad };
        return say(level, broken_sentence(link));
    }
    if let Some(cluster) = clusters.iter().find(|cluster| !cluster.silent.is_empty()) {
        let who = cluster.silent.join(", ");
        return say(
            Level::Warn,
            format!("All groups have a leader, but {who} in {} is silent.", cluster.name),
        );
    }
    if let Some(link) = links.iter().find(|link| link.state.is_none()) {
        return say(
            Level::Warn,
            format!("Nobody tells how {}→{} stands: {}.", link.from, link.to, link.detail),
        );
    }
    links_sentence(status.map.groups.len(), links)
}

fn leaderless_sentence(clusters: &[ClusterView]) -> Option<String> {
    let cluster = clusters.iter().find(|cluster| !cluster.leaderless.is_empty())?;
    let (count, first) = (cluster.leaderless.len(), cluster.leaderless.first()?);
    let all = cluster.status.as_ref().map_or(count, |status| status.map.groups.len());
    Some(if count == 1 {
        format!("Group {first} of {} has no leader: its writes wait.", cluster.name)
    } else {
        format!("{count} of {all} groups of {} have no leader: their writes wait.", cluster.name)
    })
}

fn different_sentence(link: &LinkView) -> String {
    let slots = match link.different_slots {
        1 => "1 slot".to_owned(),
        n => format!("{n} slots"),
    };
    format!("{} and {} differ in {slots}: both serve what they have.", link.from, link.to)
}

fn broken_sentence(link: &LinkView) -> String {
    let what = match link.state {
        Some(LinkState::Paused) => "is paused by an operator",
        Some(LinkState::Fenced) => "is fenced by an operator",
        Some(LinkState::Disconnected) => "is disconnected",
        Some(LinkState::Stalled) => "is stalled",
        Some(LinkState::Parked) => "is parked, the clocks differ too much",
        Some(LinkState::Refused) => "is refused by the receiver",
        Some(LinkState::NeedsMerge) => "needs a full-state merge",
        Some(LinkState::Live | LinkState::CatchingUp | LinkState::Merging) | None => "is up",
    };
    let groups = if link.affected == link.groups {
        String::new()
    } else {
        format!(" in {} of {} groups", link.affected, link.groups)
    };
    let waits = match link.backlog_entries {
        0 => "nothing waits yet".to_owned(),
        1 => "1 entry waits".to_owned(),
        n => format!("{n} entries wait"),
    };
    format!("{}→{} {what}{groups}: {waits}, local writes go on.", link.from, link.to)
}

fn links_sentence(groups: usize, links: &[LinkView]) -> Verdict {
    let say = |level, sentence| Verdict { level, sentence };
    let Some(worst) = links.iter().max_by(|a, b| a.lag_seconds.total_cmp(&b.lag_seconds)) else {
        return say(Level::Ok, format!("All {groups} groups have a leader. No cluster is linked."));
    };
    let group = worst.lag_group.map(|group| format!(", group {group}")).unwrap_or_default();
    let lag = format!("{} {}→{}{group}", duration(worst.lag_seconds), worst.from, worst.to);
    if let Some(link) = links.iter().find(|link| link.state == Some(LinkState::Merging)) {
        let done = link.merge_done.map(|done| format!(", {:.0} %", done * 100.0));
        return say(
            Level::Warn,
            format!("{}→{} merges its state{}.", link.from, link.to, done.unwrap_or_default()),
        );
    }
    if let Some(link) = links.iter().find(|link| link.state == Some(LinkState::CatchingUp)) {
        return say(
            Level::Warn,
            format!(
                "{}→{} is catching up, {} entries behind. Worst lag {lag}.",
                link.from, link.to, link.backlog_entries
            ),
        );
    }
    if worst.lag_seconds == 0.0 {
        return say(Level::Ok, "All links live. Nothing waits.".to_owned());
    }
    say(Level::Ok, format!("All links live. Worst lag {lag}."))
}

/// A duration with two or three digits that matter.
fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 0.000_95 => "under 1 ms".to_owned(),
        s if s < 0.995 => format!("{:.0} ms", s * 1000.0),
        s if s < 59.5 => format!("{s:.1} s"),
        s if s < 3_570.0 => format!("{:.0} min", s / 60.0),
        s => format!("{:.1} h", s / 3600.0),
    }
}

#[cfg(test)]
#[path = "overview_tests.rs"]
mod tests;
