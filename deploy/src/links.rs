//! Links as people ask about them: all groups of a link together, the worst first.

use flotilla_topology::api::{
    ClusterStatus, LinkAudit, LinkState, LinkStatus, PeerCluster, Standing,
};
use serde::Serialize;
use std::collections::BTreeMap;

/// A link between two clusters. Numbers are of the sending side.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LinkSummary {
    /// Name of the sending cluster.
    pub from: String,
    /// Name of the receiving cluster.
    pub to: String,
    /// The worst state among its groups; `None` while nobody reports.
    pub state: Option<LinkState>,
    /// What was seen last in the worst group.
    pub detail: String,
    /// Groups that report.
    pub groups: usize,
    /// Groups that should.
    pub groups_wanted: usize,
    /// Age of the oldest entry that is not acknowledged, in seconds.
    pub lag_seconds: f64,
    /// Median over the last minute of the median of each group, in seconds.
    pub lag_p50_seconds: Option<f64>,
    /// Largest 99th percentile of any group over the last minute, in seconds.
    pub lag_p99_seconds: Option<f64>,
    /// Entries that wait.
    pub backlog_entries: u64,
    /// Their bytes.
    pub backlog_bytes: u64,
    /// What the receiving cluster counts for at the sending one.
    pub standing: Standing,
    /// Groups in each state, by its word.
    pub states: BTreeMap<&'static str, usize>,
    /// Shortest over groups: seconds until a backlog exceeds its budget.
    pub runway_seconds: Option<f64>,
    /// Largest over groups: how long ago the receiver acknowledged anything.
    pub floor_age_seconds: Option<f64>,
    /// Milliseconds that the receiver's clock is ahead.
    pub clock_offset_ms: Option<i64>,
    /// Slots that both clusters hold differently although nothing is under way.
    pub different_slots: u64,
    /// Slots of the last passes of which nothing could be told.
    pub undecided_slots: u64,
    /// Largest over groups: how long ago all of its slots had been compared. `None` while one of them
    /// was not compared yet.
    pub audit_age_seconds: Option<f64>,
}

impl LinkSummary {
    /// What comparing has shown, for people.
    pub fn compared(&self) -> String {
        match (self.different_slots, self.audit_age_seconds) {
            (0, None) => "not compared yet".to_owned(),
            (0, Some(age)) => format!("equal {} ago", long(age)),
            (1, _) => "1 SLOT DIFFERS".to_owned(),
            (n, _) => format!("{n} SLOTS DIFFER"),
        }
    }

    /// Whether every group that should be on the link is, and is live.
    pub fn is_live(&self) -> bool {
        self.state == Some(LinkState::Live) && self.groups >= self.groups_wanted
    }

    /// Groups by state, for people: `7 live, 1 stalled`.
    pub fn states_shown(&self) -> String {
        let counts: Vec<String> =
            self.states.iter().map(|(state, count)| format!("{count} {state}")).collect();
        if counts.is_empty() { "not reported".to_owned() } else { counts.join(", ") }
    }

    /// The state in a word.
    pub fn state_word(&self) -> &'static str {
        self.state.map_or("not reported", LinkState::word)
    }
}

/// All outgoing links of a cluster.
pub fn outgoing(status: &ClusterStatus) -> Vec<LinkSummary> {
    let map = &status.map;
    let synced = |group: &&flotilla_topology::api::GroupInfo| {
        map.namespaces.iter().any(|ns| ns.id == group.namespace && ns.spec.synced)
    };
    let groups_wanted = map.groups.iter().filter(synced).count();
    let links = map.peers.iter().map(|peer| {
        let links: Vec<&LinkStatus> =
            status.links.iter().filter(|link| link.peer == peer.id).collect();
        summary(&map.name, peer, &links, groups_wanted)
    });
    links.collect()
}

fn summary(
    from: &str,
    to: &PeerCluster,
    links: &[&LinkStatus],
    groups_wanted: usize,
) -> LinkSummary {
    // States are declared from best to worst.
    let worst = links.iter().max_by_key(|link| link.state);
    let mut states = BTreeMap::new();
    links.iter().for_each(|link| *states.entry(link.state.word()).or_default() += 1);
    let audits = || links.iter().map(|link| link.audit.as_ref());
    let sum = |of: fn(&LinkAudit) -> u64| audits().flatten().map(of).sum::<u64>();
    let ages: Option<Vec<f64>> = audits().map(|audit| audit?.age_seconds).collect();
    let most = |of: fn(&LinkStatus) -> f64| links.iter().map(|link| of(link)).fold(0.0, f64::max);
    let mut medians: Vec<f64> = links.iter().filter_map(|link| link.lag_p50_seconds).collect();
    medians.sort_by(f64::total_cmp);
    LinkSummary {
        from: from.to_owned(),
        to: to.name.clone(),
        state: worst.map(|link| link.state),
        detail: worst.map_or("no syncer reports", |link| &link.detail).to_owned(),
        groups: links.len(),
        groups_wanted,
        lag_seconds: most(|link| link.lag_seconds),
        lag_p50_seconds: medians.get(medians.len() / 2).copied(),
        lag_p99_seconds: links
            .iter()
            .filter_map(|link| link.lag_p99_seconds)
            .max_by(f64::total_cmp),
        backlog_entries: links.iter().map(|link| link.backlog_entries).sum(),
        backlog_bytes: links.iter().map(|link| link.backlog_bytes).sum(),
        standing: to.standing,
        states,
        runway_seconds: links.iter().filter_map(|link| link.runway_seconds).min_by(f64::total_cmp),
        floor_age_seconds: links
            .iter()
            .filter_map(|link| link.floor_age_seconds)
            .max_by(f64::total_cmp),
        clock_offset_ms: links.iter().find_map(|link| link.clock_offset_ms),
        different_slots: sum(|audit| audit.different_slots),
        undecided_slots: sum(|audit| audit.undecided_slots),
        audit_age_seconds: ages.unwrap_or_default().into_iter().max_by(f64::total_cmp),
    }
}

/// Seconds for people: milliseconds below ten seconds.
pub fn shown(seconds: f64) -> String {
    if seconds < 10.0 { format!("{:.1} ms", seconds * 1e3) } else { format!("{seconds:.1} s") }
}

/// Seconds for people where only their order matters: `3 s`, `12 min`, `5 h`, `9 days`.
pub fn long(seconds: f64) -> String {
    match seconds {
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7_200.0 => format!("{:.0} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.0} h", s / 3_600.0),
        s => format!("{:.0} days", s / 86_400.0),
    }
}

/// As `shown`, or a dash.
pub fn shown_or_dash(seconds: Option<f64>) -> String {
    seconds.map_or_else(|| "-".to_owned(), shown)
}

#[cfg(test)]
mod tests {
    use super::*;
    use flotilla_topology::ids::{ClusterId, GroupId};

    fn link(group: u32, state: LinkState, p50: Option<f64>) -> LinkStatus {
        LinkStatus {
            detail: format!("group {group}"),
            lag_seconds: f64::from(group),
            lag_p50_seconds: p50,
            lag_p99_seconds: p50.map(|p50| p50 * 2.0),
            backlog_entries: 1,
            backlog_bytes: 10,
            runway_seconds: p50.map(|_| f64::from(group)),
            audit: p50.map(|p50| LinkAudit {
                different_slots: u64::from(group),
                age_seconds: Some(p50 * 1000.0),
                ..LinkAudit::default()
            }),
            floor_age_seconds: Some(f64::from(group) * 10.0),
            ..LinkStatus::new(GroupId(group), ClusterId(2), state)
        }
    }

    #[test]
    fn the_worst_group_speaks_for_the_link() {
        let all = [
            link(1, LinkState::Live, Some(0.03)),
            link(2, LinkState::Stalled, Some(0.05)),
            link(3, LinkState::CatchingUp, None),
        ];
        let west = PeerCluster { name: "west".into(), ..PeerCluster::default() };
        let found = summary("east", &west, &all.iter().collect::<Vec<_>>(), 3);
        assert_eq!((found.state, found.detail.as_str()), (Some(LinkState::Stalled), "group 2"));
        assert_eq!((found.lag_p50_seconds, found.lag_p99_seconds), (Some(0.05), Some(0.1)));
        assert_eq!((found.lag_seconds, found.backlog_entries), (3.0, 3));
        assert!(!found.is_live());
        assert_eq!(found.states_shown(), "1 catching-up, 1 live, 1 stalled");
        assert_eq!((found.runway_seconds, found.floor_age_seconds), (Some(1.0), Some(30.0)));
        assert_eq!((found.different_slots, found.audit_age_seconds), (3, None));
        assert_eq!(found.compared(), "3 SLOTS DIFFER");
        let one = summary("east", &west, &[&all[1]], 1);
        assert_eq!(one.audit_age_seconds, Some(50.0));
        let none = summary("east", &west, &[], 3);
        assert_eq!(none.compared(), "not compared yet");
        assert_eq!((none.state_word(), none.is_live()), ("not reported", false));
        let live = [link(1, LinkState::Live, None)];
        assert!(summary("east", &west, &[&live[0]], 1).is_live());
        assert!(!summary("east", &west, &[&live[0]], 2).is_live());
    }
}
