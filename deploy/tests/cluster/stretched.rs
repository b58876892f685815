//! One cluster over three datacenters: the loss of any one is survived, also of the one with PD.

use crate::harness::{Demo, alone, eventually};
use std::time::{Duration, Instant};

/// From the kill to the next acknowledged write; the design promises 5 s on a quiet machine.
const SILENCE_MAX: Duration = Duration::from_secs(15);

#[test]
fn the_loss_of_the_datacenter_with_pd_loses_nothing() {
    let _alone = alone();
    let demo = Demo::start(&["--mode", "stretched", "--datacenters", "a,b,c", "--rtt", "10ms"]);
    let cluster = demo.cluster("demo");
    let place = |n: usize| cluster["nodes"][n]["datacenter"].as_str().unwrap().to_owned();
    assert_eq!([place(0), place(1), place(2)], ["a", "b", "c"]);
    let mut b = demo.redis("demo", 1);
    for n in 0..100 {
        b.call(&["SET", &format!("key:{n}"), &n.to_string()]);
    }
    demo.ctl(&["kill", "a"]);
    let killed = Instant::now();
    // A write to every group: keys spread over all of them.
    for n in 0..32 {
        let key = format!("after:{n}");
        eventually("a write is acknowledged", || b.try_call(&["SET", &key, "x"]));
    }
    let silence = killed.elapsed();
    assert!(silence < SILENCE_MAX, "no writes for {silence:?}");
    let mut c = demo.redis("demo", 2);
    for n in 0..100 {
        assert_eq!(c.call(&["GET", &format!("key:{n}")]), n.to_string());
    }
    demo.ctl(&["restart", "a"]);
    demo.redis("demo", 0).becomes(&["GET", "after:31"], "x");
    demo.stop();
}
