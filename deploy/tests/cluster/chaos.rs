//! A short run of every scenario, as `flotilla chaos` does it.

use crate::harness::{alone, flotilla, said};

#[test]
fn promises_hold_while_each_process_dies_and_the_wan_is_cut() {
    let _alone = alone();
    let mut args = vec!["chaos", "--scenario", "each", "--seed", "1", "--load", "100"];
    // A cluster that returns is sent everything, which takes longer than the rest.
    args.extend(["--fault", "1s", "--long-cut", "3s", "--settle", "90"]);
    let output = flotilla(&args);
    assert!(output.status.success(), "{}", said(&output));
}

#[test]
fn a_stretched_cluster_survives_the_loss_of_a_datacenter() {
    let _alone = alone();
    let mut args = vec!["chaos", "--mode", "stretched", "--scenario", "kill-datacenter"];
    args.extend(["--seed", "1", "--load", "100", "--fault", "1s"]);
    let output = flotilla(&args);
    assert!(output.status.success(), "{}", said(&output));
}

#[test]
fn three_clusters_survive_a_one_way_cut_between_any_two() {
    let _alone = alone();
    let mut args = vec!["chaos", "--datacenters", "a,b,c", "--scenario", "cut-one-way"];
    args.extend(["--seed", "1", "--load", "100", "--fault", "1s"]);
    let output = flotilla(&args);
    assert!(output.status.success(), "{}", said(&output));
}

#[test]
fn a_cluster_joins_under_load_though_syncers_die() {
    let _alone = alone();
    let mut args = vec!["chaos", "--scenario", "join", "--keys", "3000", "--kills", "2"];
    args.extend(["--rate", "1mbit", "--seed", "1", "--load", "50", "--fault", "500ms"]);
    args.extend(["--silence-max", "10s", "--settle", "90"]);
    let output = flotilla(&args);
    let told = said(&output);
    assert!(output.status.success(), "{told}");
    assert_eq!(told.matches("while it merges").count(), 2, "{told}");
}

#[test]
fn another_syncer_takes_over_and_the_time_is_told() {
    let _alone = alone();
    let mut args = vec!["chaos", "--scenario", "syncer-takeover", "--rounds", "2"];
    args.extend(["--seed", "1", "--load", "100"]);
    let output = flotilla(&args);
    let told = said(&output);
    assert!(output.status.success(), "{told}");
    assert!(told.contains("takeover to others: median"), "{told}");
    assert!(told.contains("takeover from others: median"), "{told}");
}

#[test]
fn other_nodes_lead_the_groups_of_one_that_is_killed_and_the_silence_is_told() {
    let _alone = alone();
    let mut args = vec!["chaos", "--scenario", "failover", "--rounds", "2"];
    args.extend(["--seed", "1", "--load", "100"]);
    let output = flotilla(&args);
    let told = said(&output);
    // How long it may take is held to its gate by `make failover`, where nothing else runs.
    let slow = |line: &&str| line.contains("took no writes for");
    let violated: Vec<&str> = told.lines().filter(|line| line.contains(" violated: ")).collect();
    let too_slow = !violated.is_empty() && violated.iter().all(slow);
    assert!(output.status.success() || too_slow, "{told}");
    assert!(told.contains("which led 4 of 12 groups"), "{told}");
    assert!(told.contains("of 8 groups"), "{told}");
}
