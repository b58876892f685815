//! What the sentence says in each situation.

use super::*;
use flotilla_topology::api::{
    ClusterMap, GroupInfo, LinkAudit, NodeAddresses, NodeInfo, PeerCluster, ReplicaInfo,
    ReplicaStatus,
};
use flotilla_topology::ids::{LogId, NamespaceId};
use flotilla_topology::slot::SlotRange;

const EAST: ClusterId = ClusterId(1);
const WEST: ClusterId = ClusterId(2);

fn link(group: u32, peer: ClusterId, state: LinkState, p99_ms: f64, waiting: u64) -> LinkStatus {
    LinkStatus {
        detail: "as seen".into(),
        lag_p50_seconds: Some(p99_ms / 1500.0),
        lag_p99_seconds: Some(p99_ms / 1000.0),
        backlog_entries: waiting,
        backlog_bytes: waiting * 100,
        ..LinkStatus::new(GroupId(group), peer, state)
    }
}

/// A cluster of one node and two groups, led, with a link to `peer`.
fn status(id: ClusterId, peer: ClusterId, links: Vec<LinkStatus>) -> ClusterStatus {
    let replica = |n: u32| ReplicaInfo { id: ReplicaId(u64::from(n)), node: "n1".into() };
    let group = |n: u32| GroupInfo {
        id: GroupId(n),
        namespace: NamespaceId(1),
        slots: SlotRange::partition(n - 1, 2),
        birth: vec![replica(n)],
        replicas: vec![replica(n)],
        learners: Vec::new(),
        preferred_leader: "n1".into(),
        leader: None,
    };
    let leads = |n: u32| ReplicaStatus {
        group: GroupId(n),
        replica: ReplicaId(u64::from(n)),
        term: 1,
        leads: true,
        applied: LogId::default(),
        outrun: vec![],
    };
    ClusterStatus {
        map: ClusterMap {
            nodes: vec![NodeInfo {
                name: "n1".into(),
                datacenter: "dc".into(),
                addresses: NodeAddresses::default(),
                advertise: Default::default(),
                alive: true,
            }],
            groups: vec![group(1), group(2)],
            peers: vec![PeerCluster {
                id: peer,
                name: String::new(),
                syncers: Vec::new(),
                rtt_ms: Some(60.0),
                ..PeerCluster::default()
            }],
            mesh_version: 1,
            ..ClusterMap::new(id, "")
        },
        replicas: vec![leads(1), leads(2)],
        links,
        problems: Vec::new(),
    }
}

fn source(id: ClusterId, name: &str, status: Option<ClusterStatus>) -> Source {
    Source { id, name: name.into(), age_seconds: 0.0, error: None, status }
}

/// East with these links to west, and west with one that lags by 20 ms.
fn both(east: Vec<LinkStatus>) -> Overview {
    let back = vec![link(1, EAST, LinkState::Live, 20.0, 0)];
    overview(
        "pd-1",
        vec![
            source(EAST, "east", Some(status(EAST, WEST, east))),
            source(WEST, "west", Some(status(WEST, EAST, back))),
        ],
    )
}

fn says(overview: &Overview, level: Level, sentence: &str) {
    let expected = Verdict { level, sentence: sentence.into() };
    assert_eq!(overview.verdict, expected);
}

#[test]
fn all_is_well() {
    let live = |group, ms| link(group, WEST, LinkState::Live, ms, 0);
    let seen = both(vec![live(1, 31.0), live(2, 43.2)]);
    says(&seen, Level::Ok, "All links live. Worst lag 43 ms east→west, group 2.");
    let forth = &seen.links[0];
    assert_eq!((forth.from.as_str(), forth.to.as_str(), forth.groups), ("east", "west", 2));
    assert_eq!((forth.rtt_ms, forth.lag_group), (Some(60.0), Some(GroupId(2))));
    assert_eq!(seen.links.len(), 2);

    let idle = overview(
        "pd-1",
        vec![source(EAST, "east", Some(status(EAST, WEST, vec![]))), {
            source(WEST, "west", Some(status(WEST, ClusterId(9), vec![])))
        }],
    );
    says(
        &idle,
        Level::Warn,
        "Nobody tells how east→west stands: no syncer of the sending cluster reports it: start one.",
    );
    assert_eq!(idle.links.len(), 1, "west has no link to east");
}

#[test]
fn the_worst_comes_first() {
    let live = link(1, WEST, LinkState::Live, 31.0, 0);
    let cut = both(vec![live.clone(), link(2, WEST, LinkState::Disconnected, 0.0, 7)]);
    says(
        &cut,
        Level::Warn,
        "east→west is disconnected in 1 of 2 groups: 7 entries wait, local writes go on.",
    );
    let behind = both(vec![live.clone(), link(2, WEST, LinkState::CatchingUp, 2400.0, 70)]);
    says(
        &behind,
        Level::Warn,
        "east→west is catching up, 70 entries behind. Worst lag 2.4 s east→west, group 2.",
    );
    let mut slow = link(2, WEST, LinkState::Paused, 0.0, 1);
    slow.runway_seconds = Some(700.0);
    let paused = both(vec![live.clone(), slow]);
    says(
        &paused,
        Level::Warn,
        "east→west is paused by an operator in 1 of 2 groups: 1 entry waits, local writes go on.",
    );
    let forth = &paused.links[0];
    assert_eq!((forth.runway_seconds, forth.standing), (Some(700.0), Some(Standing::Live)));
    let mut merging = link(2, WEST, LinkState::Merging, 0.0, 0);
    merging.merge_done = Some(0.421);
    let merging = both(vec![live.clone(), merging]);
    says(&merging, Level::Warn, "east→west merges its state, 42 %.");
    let mut dead = status(EAST, WEST, vec![live]);
    dead.replicas.pop();
    let seen = overview("pd-1", vec![source(EAST, "east", Some(dead))]);
    says(&seen, Level::Bad, "Group 2 of east has no leader: its writes wait.");
}

#[test]
fn what_differs_is_told_before_what_is_behind() {
    let compared = |group, slots, age_seconds| {
        let audit = LinkAudit { different_slots: slots, age_seconds, ..LinkAudit::default() };
        let audit = Some(audit);
        LinkStatus { audit, ..link(group, WEST, LinkState::CatchingUp, 2400.0, 70) }
    };
    let seen = both(vec![compared(1, 0, Some(4.0)), compared(2, 3, Some(9.0))]);
    says(&seen, Level::Bad, "east and west differ in 3 slots: both serve what they have.");
    let forth = &seen.links[0];
    assert_eq!((forth.different_slots, forth.audit_age_seconds), (3, Some(9.0)));
    let begun = both(vec![compared(1, 0, Some(4.0)), compared(2, 0, None)]);
    assert_eq!(begun.links[0].audit_age_seconds, None, "not everything was compared yet");
}

#[test]
fn silence_and_blindness_are_told() {
    let live = link(1, WEST, LinkState::Live, 31.0, 0);
    let mut east = status(EAST, WEST, vec![live.clone()]);
    let mut second = east.map.nodes[0].clone();
    (second.name, second.alive) = ("n2".into(), false);
    east.map.nodes.push(second);
    let seen = overview("pd-1", vec![source(EAST, "east", Some(east))]);
    says(&seen, Level::Warn, "All groups have a leader, but node n2 in east is silent.");

    let unasked = Source { error: Some("no answer".into()), ..source(WEST, "west", None) };
    let east = source(EAST, "east", Some(status(EAST, WEST, vec![live])));
    let seen = overview("pd-1", vec![east, unasked]);
    says(&seen, Level::Warn, "Nobody tells how west→east stands: no answer.");

    let follower = Source { error: Some("pd-2 does".into()), ..source(EAST, "east", None) };
    let seen = overview("pd-1", vec![follower]);
    says(&seen, Level::Warn, "This PD does not lead: pd-2 does.");
}
