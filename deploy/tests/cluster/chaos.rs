//! A short run of every scenario, as `flotilla chaos` does it.

use crate::harness::{alone, flotilla, said};

#[test]
fn promises_hold_while_each_process_dies_and_the_wan_is_cut() {
    let _alone = alone();
    let args = ["chaos", "--scenario", "each", "--seed", "1", "--load", "100", "--fault", "1s"];
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
