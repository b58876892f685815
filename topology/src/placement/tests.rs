use super::*;
use crate::ids::GroupId;
use proptest::prelude::*;

/// `sizes[d]` nodes in datacenter `d`, each with a load from `loads`.
fn floor(sizes: &[usize], loads: &[usize]) -> Vec<Host> {
    let mut loads = loads.iter().cycle();
    let mut hosts = Vec::new();
    for (d, size) in sizes.iter().enumerate() {
        for n in 0..*size {
            hosts.push(Host {
                name: format!("d{d}-n{n}"),
                datacenter: format!("d{d}"),
                alive: true,
                replicas: *loads.next().unwrap_or(&0),
            });
        }
    }
    hosts
}

fn datacenter<'a>(hosts: &'a [Host], node: &str) -> &'a str {
    &hosts.iter().find(|h| h.name == node).unwrap().datacenter
}

fn counts(hosts: &[Host], voters: &[String]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for voter in voters {
        *counts.entry(datacenter(hosts, voter).to_owned()).or_default() += 1;
    }
    counts
}

fn sizes() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(1usize..5, 1..6)
}

proptest! {
    #[test]
    fn placement_keeps_the_spread_rule_or_says_why_not(
        sizes in sizes(),
        loads in prop::collection::vec(0usize..9, 1..20),
        replicas in prop::sample::select(vec![1usize, 3, 5]),
        groups in 1usize..12,
    ) {
        let hosts = floor(&sizes, &loads);
        match place(&hosts, replicas, groups) {
            Ok(placed) => {
                prop_assert_eq!(placed.len(), groups);
                let all: Vec<GroupVoters> = placed
                    .into_iter()
                    .zip(1..)
                    .map(|(voters, id)| GroupVoters { group: GroupId(id), voters, wanted: replicas })
                    .collect();
                prop_assert_eq!(violations(&hosts, &all), vec![]);
                for group in &all {
                    prop_assert_eq!(group.voters.len(), replicas);
                    let counts = counts(&hosts, &group.voters);
                    prop_assert_eq!(counts.len(), replicas.min(sizes.len()));
                    // As even as the nodes allow: one more somewhere only where the other is full.
                    for (from, high) in &counts {
                        for (d, size) in sizes.iter().enumerate() {
                            let low = counts.get(&format!("d{d}")).copied().unwrap_or(0);
                            prop_assert!(low + 1 >= *high || low == *size, "{from}: {counts:?}");
                        }
                    }
                }
            }
            Err(CannotPlace::TooFewNodes { wanted, live }) => {
                prop_assert_eq!(wanted, replicas);
                prop_assert!(sizes.iter().sum::<usize>() < replicas && live < replicas);
            }
            Err(CannotPlace::MajorityInOneDatacenter { .. }) => {
                // Not even filling every datacenter up to a minority makes enough room.
                let minority = replicas - majority(replicas);
                prop_assert!(sizes.len() >= 3);
                prop_assert!(sizes.iter().map(|s| *s.min(&minority)).sum::<usize>() < replicas);
            }
            Err(other) => prop_assert!(false, "{other}"),
        }
    }

    #[test]
    fn the_order_of_nodes_does_not_matter(
        sizes in sizes(),
        loads in prop::collection::vec(0usize..9, 1..20),
        groups in 1usize..8,
        seed in any::<u64>(),
    ) {
        let hosts = floor(&sizes, &loads);
        let mut other = hosts.clone();
        other.sort_by_key(|h| h.name.bytes().fold(seed, |s, b| (s ^ u64::from(b)).wrapping_mul(31)));
        prop_assert_eq!(place(&hosts, 3, groups), place(&other, 3, groups));
    }

    #[test]
    fn load_is_even_in_equal_datacenters(
        datacenters in 1usize..5, size in 3usize..5, groups in 1usize..40,
    ) {
        let hosts = floor(&vec![size; datacenters], &[0]);
        let placed = place(&hosts, 3, groups).unwrap();
        let mut load: BTreeMap<&str, usize> = hosts.iter().map(|h| (h.name.as_str(), 0)).collect();
        for voter in placed.iter().flatten() {
            *load.get_mut(voter.as_str()).unwrap() += 1;
        }
        let (low, high) = (load.values().min().unwrap(), load.values().max().unwrap());
        prop_assert!(high - low <= 1, "{:?}", load);
    }

    #[test]
    fn a_lost_voter_is_replaced_within_the_rule(
        sizes in prop::collection::vec(2usize..4, 3..5), groups in 1usize..5, lost in 0usize..3,
    ) {
        let mut hosts = floor(&sizes, &[0]);
        for mut voters in place(&hosts.clone(), 3, groups).unwrap() {
            let gone = voters.remove(lost);
            hosts.iter_mut().for_each(|h| h.alive = h.name != gone);
            let new = add_voter(&hosts, &voters).unwrap();
            prop_assert!(!voters.contains(&new) && new != gone);
            voters.push(new);
            let counts = counts(&hosts, &voters);
            prop_assert_eq!(counts.len(), 3);
        }
    }

    #[test]
    fn leaders_are_spread_as_evenly_as_voters_allow(
        nodes in 1usize..5,
        groups in prop::collection::vec((1u8..16, 0usize..5), 0..6),
        dead in 0usize..9,
    ) {
        let mut hosts = floor(&[nodes], &[0]);
        if let Some(host) = hosts.get_mut(dead) {
            host.alive = false;
        }
        let groups: Vec<GroupLeader> = groups
            .iter()
            .zip(1..)
            .map(|((mask, preferred), id)| GroupLeader {
                group: GroupId(id),
                voters: (0..nodes).filter(|n| mask >> n & 1 == 1).map(|n| format!("d0-n{n}")).collect(),
                preferred: Some(format!("d0-n{preferred}")),
            })
            .collect();
        let leaders = spread_leaders(&hosts, &groups);
        for group in &groups {
            let live: Vec<&String> = group
                .voters
                .iter()
                .filter(|v| hosts.iter().any(|h| h.alive && h.name == **v))
                .collect();
            prop_assert_eq!(leaders.contains_key(&group.group), !live.is_empty());
            if let Some(leader) = leaders.get(&group.group) {
                prop_assert!(live.contains(&leader));
            }
        }
        prop_assert_eq!(squares(leaders.values()), best_squares(&hosts, &groups));
        // Chosen once, nothing moves any more.
        let settled: Vec<GroupLeader> = groups
            .iter()
            .map(|g| GroupLeader { preferred: leaders.get(&g.group).cloned(), ..g.clone() })
            .collect();
        prop_assert_eq!(spread_leaders(&hosts, &settled), leaders);
    }
}

fn squares<'a>(leaders: impl Iterator<Item = &'a String>) -> usize {
    let mut load: BTreeMap<&String, usize> = BTreeMap::new();
    leaders.for_each(|leader| *load.entry(leader).or_default() += 1);
    load.values().map(|n| n * n).sum()
}

/// The least sum of squared loads, by trying everything.
fn best_squares(hosts: &[Host], groups: &[GroupLeader]) -> usize {
    fn go(hosts: &[Host], groups: &[GroupLeader], chosen: &mut Vec<String>) -> usize {
        let Some((group, rest)) = groups.split_first() else { return squares(chosen.iter()) };
        let live = group.voters.iter().filter(|v| hosts.iter().any(|h| h.alive && h.name == **v));
        let mut best = usize::MAX;
        for voter in live {
            chosen.push(voter.clone());
            best = best.min(go(hosts, rest, chosen));
            chosen.pop();
        }
        if best == usize::MAX { go(hosts, rest, chosen) } else { best }
    }
    go(hosts, groups, &mut Vec::new())
}

#[test]
fn three_replicas_over_three_datacenters_stand_one_in_each() {
    let hosts = floor(&[2, 1, 3], &[0]);
    for voters in place(&hosts, 3, 8).unwrap() {
        assert_eq!(counts(&hosts, &voters).len(), 3);
    }
}

#[test]
fn a_majority_in_one_of_three_datacenters_is_refused() {
    let error = place(&floor(&[1, 1, 5], &[0]), 5, 1).unwrap_err();
    assert_eq!(
        error.to_string(),
        "5 replicas over 3 datacenters would put 3, a majority, into d2, whose loss would stop \
         the group: start nodes in the other datacenters"
    );
}

#[test]
fn dead_nodes_get_nothing() {
    let mut hosts = floor(&[3], &[0]);
    hosts[1].alive = false;
    assert_eq!(place(&hosts, 3, 1), Err(CannotPlace::TooFewNodes { wanted: 3, live: 2 }));
    assert_eq!(place(&hosts, 0, 1), Err(CannotPlace::NoReplicas));
    assert_eq!(place(&hosts, 1, 2).unwrap(), [["d0-n0"], ["d0-n2"]]);
}

#[test]
fn the_rule_holds_while_a_datacenter_is_down() {
    let mut hosts = floor(&[2, 2, 2], &[0]);
    hosts.iter_mut().for_each(|host| host.alive = host.datacenter != "d2");
    let refused = |error| matches!(error, CannotPlace::MajorityInOneDatacenter { .. });
    assert!(refused(place(&hosts, 3, 1).unwrap_err()));
    let left = ["d0-n0", "d1-n0"].map(String::from);
    assert!(refused(add_voter(&hosts, &left).unwrap_err()));
    // Five replicas can lose a datacenter of one and still be spread.
    let mut hosts = floor(&[2, 2, 2, 2], &[0]);
    hosts.iter_mut().for_each(|host| host.alive = host.datacenter != "d3");
    assert_eq!(counts(&hosts, &place(&hosts, 5, 1).unwrap()[0]).len(), 3);
}

#[test]
fn placing_waits_for_the_datacenters_of_the_cluster() {
    let hosts = floor(&[3], &[0]);
    let expected = ["d0", "d1", "d2"].map(String::from);
    let error = ready(&hosts, &expected, 3).unwrap_err();
    assert_eq!(
        error.to_string(),
        "3 replicas are to stand in 3 datacenters and only 1 have live nodes: start nodes in d1, d2"
    );
    assert_eq!(ready(&floor(&[1, 1, 1], &[0]), &expected, 3), Ok(()));
    assert_eq!(ready(&hosts, &expected[..1], 3), Ok(()));
}

#[test]
fn what_is_wrong_is_named_with_its_remedy() {
    let mut hosts = floor(&[2, 2, 2], &[0]);
    hosts[0].alive = false;
    let group = |id, voters: &[&str]| GroupVoters {
        group: GroupId(id),
        voters: voters.iter().map(|v| (*v).to_owned()).collect(),
        wanted: 3,
    };
    let groups = [
        group(1, &["d0-n1", "d1-n0", "d2-n0"]),
        group(2, &["d0-n0", "d0-n1", "d2-n0"]),
        group(3, &["d1-n0", "d1-n0", "x"]),
        group(4, &["d0-n1"]),
    ];
    let text: Vec<String> = violations(&hosts, &groups).iter().map(ToString::to_string).collect();
    assert_eq!(
        text,
        [
            "group 2: 1 of 3 voters do not answer (d0-n0): restart or replace them",
            "group 2: voters in 2 datacenters where 3 are possible: move one",
            "group 2: d0 holds 2 of 3 voters, a majority, so its loss would stop the group: move \
             one to another datacenter",
            "group 3: d1-n0 carries two of its voters: move one to another node",
            "group 3: a voter stands on x, which is not a member: replace it",
            "group 3: voters in 1 datacenters where 3 are possible: move one",
            "group 3: d1 holds 2 of 3 voters, a majority, so its loss would stop the group: move \
             one to another datacenter",
            "group 4: 1 of 3 voters: add 2",
        ]
    );
}
