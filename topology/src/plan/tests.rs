use super::survival::Fate;
use super::*;
use crate::check::Check;
use crate::duration::Ms;
use crate::file::{Datacenter, Wants};
use crate::placement::{Host, majority, place};
use crate::testing::{build, far_apart, topology_file};
use proptest::prelude::*;

fn accepted(file: &TopologyFile) -> Topology {
    file.check().unwrap_or_else(|p| panic!("{p}"))
}

fn outcome(report: &Report, loss: &str) -> Outcome {
    let found = report.outcomes.iter().find(|outcome| outcome.loss.to_string() == loss);
    found.unwrap_or_else(|| panic!("no {loss}")).clone()
}

fn wants(rpo: Option<f64>, write_latency: Option<f64>, survive: &[&str]) -> Wants {
    Wants {
        rpo: rpo.and_then(Ms::new),
        write_latency: write_latency.and_then(Ms::new),
        survive: survive.iter().map(|word| (*word).to_owned()).collect(),
    }
}

#[test]
fn the_mode_is_selected_and_explained() {
    let select = |datacenters, rtt, wants| {
        let topology = accepted(&TopologyFile { wants, ..build(datacenters, 0, &[rtt]) });
        assert!(topology.proposed);
        (topology.mode, topology.why)
    };
    let none = || wants(None, None, &[]);
    let (mode, why) = select(1, 0.0, none());
    assert_eq!((mode, why.contains("one datacenter")), (Mode::Async, true));
    let (mode, why) = select(2, 60.0, none());
    assert_eq!((mode, why.contains("linked clusters serve alone")), (Mode::Async, true));
    let (mode, why) = select(3, 60.0, none());
    assert_eq!((mode, why.contains("up to 60.0 ms apart")), (Mode::Async, true));
    let (mode, why) = select(3, 2.0, none());
    assert_eq!((mode, why.contains("losing nothing costs little")), (Mode::Stretched, true));
    let (mode, why) = select(3, 60.0, wants(Some(0.0), None, &[]));
    assert_eq!((mode, why.contains("an rpo of 0")), (Mode::Stretched, true));
    let (mode, why) = select(3, 60.0, wants(None, Some(20.0), &[]));
    assert_eq!((mode, why.contains("121.5 ms, and 20ms is asked for")), (Mode::Async, true));
    let (mode, why) = select(3, 60.0, wants(None, Some(150.0), &[]));
    assert_eq!((mode, why.contains("loses nothing")), (Mode::Stretched, true));
    let (mode, why) = select(3, 60.0, wants(Some(1.0), None, &[]));
    assert_eq!((mode, why.contains("async would not do")), (Mode::Stretched, true), "{why}");
}

#[test]
fn listed_clusters_are_the_mode() {
    for (clusters, mode) in [(1, Mode::Stretched), (2, Mode::Mixed), (3, Mode::Async)] {
        let mut file = far_apart(3, clusters);
        assert_eq!(accepted(&file).mode, mode);
        assert!(!accepted(&file).proposed);
        file.mode = Some(mode);
        assert_eq!(accepted(&file).mode, mode);
        file.mode = Some(if mode == Mode::Async { Mode::Stretched } else { Mode::Async });
        let problems = file.check().unwrap_err();
        assert_eq!(problems.all()[0].line, 1);
        assert!(problems.to_string().contains("and the clusters are"), "{problems}");
    }
    // One cluster in one datacenter is either.
    for mode in [Mode::Async, Mode::Stretched] {
        let file = TopologyFile { mode: Some(mode), ..far_apart(1, 1) };
        assert_eq!(accepted(&file).mode, mode);
    }
}

#[test]
fn two_datacenters_cannot_be_stretched_to_survive_either() {
    for survive in ["datacenter", "d0", "d1", "link"] {
        let file = TopologyFile {
            mode: Some(Mode::Stretched),
            wants: wants(None, None, &[survive]),
            ..build(2, 0, &[5.0])
        };
        let problems = file.check().unwrap_err().to_string();
        assert!(problems.contains("two datacenters cannot keep a majority"), "{problems}");
        accepted(&TopologyFile { mode: Some(Mode::Async), ..file.clone() });
        accepted(&TopologyFile { mode: None, ..file });
    }
    // Who does not ask for it may have it.
    accepted(&TopologyFile { mode: Some(Mode::Stretched), ..build(2, 0, &[5.0]) });
}

#[test]
fn wants_that_do_not_hold_are_told_beside_other_problems() {
    let mut file = far_apart(2, 1);
    file.wants = wants(Some(0.0), None, &["d0"]);
    file.clusters[0].pd = vec!["nowhere".to_owned()];
    file.rtts.clear();
    let text = file.check().unwrap_err().to_string();
    for told in ["is not host:port", "between d0 and d1 is missing", "loss of datacenter d0"] {
        assert!(text.contains(told), "{told}: {text}");
    }
}

#[test]
fn an_rpo_that_links_cannot_give_is_refused() {
    let linked =
        |rpo| TopologyFile { wants: wants(Some(rpo), None, &[]), ..far_apart(2, 2) }.check();
    assert!(linked(100.0).is_ok());
    let text = linked(0.0).unwrap_err().to_string();
    assert!(text.contains("an rpo of 0ms does not hold"), "{text}");
    assert!(text.contains("about the last 34.0 ms of writes"), "{text}");
    assert!(linked(10.0).unwrap_err().to_string().contains("links are asynchronous"));
    let stretched = TopologyFile { wants: wants(Some(0.0), None, &[]), ..far_apart(3, 1) };
    assert_eq!(accepted(&stretched).mode, Mode::Stretched);
    let slow = TopologyFile { wants: wants(Some(0.0), Some(50.0), &[]), ..far_apart(3, 1) };
    let text = slow.check().unwrap_err().to_string();
    assert!(text.contains("writes in cluster c0 take up to 121.5 ms"), "{text}");
}

#[test]
fn regions_are_lost_as_a_whole() {
    let mut file = far_apart(3, 1);
    file.regions = vec!["eu".to_owned(), "us".to_owned()];
    let region =
        |name: &str, region: &str| Datacenter { name: name.into(), region: Some(region.into()) };
    file.datacenters = vec![region("d0", "eu"), region("d1", "eu"), region("d2", "us")];
    let report = accepted(&file).report();
    assert!(!outcome(&report, "region eu").survived);
    assert_eq!(outcome(&report, "region eu").clusters[0].fate, Fate::Stops);
    assert!(!report.outcomes.iter().any(|o| o.loss == Loss::Region("us".to_owned())));
    file.wants = wants(None, None, &["us"]);
    accepted(&file);
    file.wants = wants(None, None, &["region"]);
    assert!(file.check().unwrap_err().to_string().contains("loss of region eu"));
}

#[test]
fn peers_are_all_other_clusters_at_their_distance() {
    let topology = accepted(&build(4, 2, &[10.0, 20.0, 30.0, 40.0, 50.0, 60.0]));
    let peers = topology.peers_of(ClusterId(1));
    assert_eq!(peers.len(), 1);
    assert_eq!((peers[0].id, peers[0].name.as_str()), (ClusterId(2), "c1"));
    assert_eq!(peers[0].syncers, ["syncer.c1:7300"]);
    // d0 and d2 to d1 and d3: 10, 40, 30 and 60.
    assert_eq!(peers[0].rtt_ms, Some(60.0));
    assert_eq!(topology.peers_of(ClusterId(9)), []);
    // d0 to d2 is 20: the cluster waits for that.
    assert_eq!(topology.election_of(ClusterId(1)), Timing::for_rtt(20.0));
    assert_eq!(topology.election_of(ClusterId(9)), Timing::NEAR);
}

#[test]
fn the_check_speaks_to_people_and_programs() {
    let check = Check::of(&far_apart(2, 2).to_toml());
    let text = check.text("t.toml");
    for told in ["mode async: ", "c0 -> c1  60 ms", "datacenter d0", "c1 serves; c0 is gone"] {
        assert!(text.contains(told), "{told}: {text}");
    }
    let json = serde_json::to_value(&check).unwrap();
    assert_eq!(json["ok"], true);
    assert_eq!(json["plan"]["clusters"][1]["election"]["heartbeat_ms"], 100);
    assert_eq!(json["plan"]["outcomes"][1]["loss"]["datacenter"], "d0");
    assert_eq!(json["plan"]["outcomes"][1]["survived"], true);
    let check = Check::of("mode = 5");
    assert!(check.text("t.toml").starts_with("t.toml:1: "), "{}", check.text("t.toml"));
    assert_eq!(serde_json::to_value(&check).unwrap()["problems"][0]["line"], 1);
}

proptest! {
    #[test]
    fn every_topology_keeps_its_invariants(file in topology_file()) {
        let topology = accepted(&file);
        let n = topology.clusters.len();
        prop_assert_eq!(topology.links.len(), n * (n - 1));
        for cluster in &topology.clusters {
            let peers = topology.peers_of(cluster.id);
            prop_assert_eq!(peers.len(), n - 1);
            for peer in peers {
                prop_assert!(peer.id != cluster.id);
                let back = topology.peers_of(peer.id);
                let me = back.iter().find(|back| back.id == cluster.id).unwrap();
                prop_assert_eq!(me.rtt_ms, peer.rtt_ms);
            }
        }
        for datacenter in &topology.file.datacenters {
            prop_assert!(topology.clusters.iter().any(|c| c.datacenters.contains(&datacenter.name)));
        }
        let wide = topology.clusters.iter().any(|c| c.datacenters.len() > 1);
        let shape = match (wide, n) {
            (false, _) => Mode::Async,
            (true, 1) => Mode::Stretched,
            (true, _) => Mode::Mixed,
        };
        prop_assert_eq!(topology.mode, shape);
        prop_assert!(!topology.why.is_empty() && !topology.why.contains('\n'));
    }

    #[test]
    fn the_report_says_what_modes_can_do(file in topology_file()) {
        let topology = accepted(&file);
        let report = topology.report();
        prop_assert_eq!(&report.outcomes[0].loss, &Loss::Nothing);
        for outcome in &report.outcomes {
            let fates = &outcome.clusters;
            for fate in fates {
                prop_assert_eq!(fate.write.is_some(), fate.read.is_some());
                prop_assert!(fate.fate != Fate::Serves || fate.write.is_some());
                prop_assert!(!matches!(fate.fate, Fate::Stops | Fate::Gone) || fate.write.is_none());
                if let (Some(write), Some(read)) = (fate.write, fate.read) {
                    prop_assert!(read.min_ms <= read.max_ms && write.min_ms <= write.max_ms);
                    prop_assert!(read.min_ms < write.min_ms && read.max_ms < write.max_ms);
                }
            }
            let all_serve = fates.iter().all(|fate| fate.fate == Fate::Serves);
            prop_assert_eq!(all_serve, outcome.rpo_ms == Some(0.0), "{:?}", outcome);
            if let Loss::Datacenter(_) = outcome.loss {
                let served = fates.iter().any(|fate| fate.fate == Fate::Serves);
                prop_assert_eq!(outcome.survived, served);
                for (cluster, fate) in topology.clusters.iter().zip(fates) {
                    if cluster.datacenters.len() >= 3 && cluster.replicas >= 3 {
                        prop_assert_eq!(fate.fate, Fate::Serves);
                    }
                }
            }
        }
        if topology.mode == Mode::Async && topology.clusters.len() > 1 {
            for outcome in report.outcomes.iter().filter(|o| matches!(o.loss, Loss::Datacenter(_))) {
                prop_assert!(outcome.survived && outcome.rpo_ms.is_some_and(|ms| ms > 0.0));
            }
        }
    }

    /// Left open, the mode is one that does what was asked, if there is one.
    #[test]
    fn selection_finds_what_holds(
        datacenters in 1usize..5,
        rtts in prop::collection::vec(1.0f64..200.0, 1..8),
        rpo in prop::option::of(prop::sample::select(vec![0.0, 1.0, 50.0, 1000.0])),
        write in prop::option::of(prop::sample::select(vec![1.0, 3.0, 30.0, 150.0, 1000.0])),
        survive in prop::sample::subsequence(vec!["datacenter", "region", "link", "d0"], 0..4),
        europe in 0usize..4,
    ) {
        let mut open = build(datacenters, 0, &rtts);
        open.regions = vec!["eu".to_owned(), "us".to_owned()];
        for (i, datacenter) in open.datacenters.iter_mut().enumerate() {
            datacenter.region = Some(if i < europe { "eu" } else { "us" }.to_owned());
        }
        open.wants = wants(rpo, write, &survive);
        let with = |mode| TopologyFile { mode, ..open.clone() }.check();
        let possible = with(Some(Mode::Async)).is_ok() || with(Some(Mode::Stretched)).is_ok();
        prop_assert_eq!(with(None).is_ok(), possible);
    }

    /// What really placed groups would take lies in the range that the report gives.
    #[test]
    fn latencies_are_those_of_placed_groups(
        datacenters in 1usize..5,
        rtts in prop::collection::vec(1.0f64..200.0, 1..8),
        replicas in prop::sample::select(vec![1u8, 3, 5]),
        lost in 0usize..5,
    ) {
        let mut file = build(datacenters, 1, &rtts);
        file.clusters[0].replicas = replicas;
        let topology = accepted(&file);
        let hosts: Vec<Host> = (0..datacenters * 5)
            .map(|n| Host {
                name: format!("n{n}"),
                datacenter: format!("d{}", n % datacenters),
                alive: true,
                replicas: 0,
            })
            .collect();
        let place_of = |node: &String| format!("d{}", node[1..].parse::<usize>().unwrap() % datacenters);
        let lost = format!("d{lost}");
        let report = topology.report();
        let fate = match report.outcomes.iter().find(|o| o.loss == Loss::Datacenter(lost.clone())) {
            Some(outcome) => &outcome.clusters[0],
            None => &report.outcomes[0].clusters[0],
        };
        let mut served = Vec::new();
        for voters in place(&hosts, usize::from(replicas), 12).unwrap() {
            let live: Vec<&String> = voters.iter().filter(|v| place_of(v) != lost).collect();
            served.push(live.len() >= majority(voters.len()));
            for leader in live.iter().filter(|_| live.len() >= majority(voters.len())) {
                let mut ways: Vec<f64> = live
                    .iter()
                    .map(|v| if v == leader { 0.0 } else { topology.distances.rtt_ms(&place_of(leader), &place_of(v)) })
                    .collect();
                ways.sort_by(f64::total_cmp);
                // From a client in the leader's datacenter.
                let ms = LOCAL_RTT_MS + ways[majority(voters.len()) - 1] + SYNC_MS;
                let range = fate.write.unwrap();
                prop_assert!(range.min_ms <= ms + 1e-9 && ms <= range.max_ms + 1e-9, "{ms} {range:?}");
            }
        }
        prop_assert!(fate.fate != Fate::Serves || served.iter().all(|served| *served));
        prop_assert!(!matches!(fate.fate, Fate::Stops | Fate::Gone) || !served.contains(&true));
    }
}
