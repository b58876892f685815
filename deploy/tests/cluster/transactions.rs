//! Transactions through nodes that lead and nodes that do not.

use crate::harness::{Demo, Redis, alone};

#[test]
fn transactions_are_all_or_nothing_through_any_node() {
    let _alone = alone();
    let demo = Demo::start(&["--datacenters", "east"]);
    let cluster = demo.cluster("east");
    let redis = |node: usize| Redis::new(cluster["nodes"][node]["resp"].as_str().expect("one"));
    for (here, there) in [(0, 1), (1, 2), (2, 0)] {
        let (mut a, mut b) = (redis(here), redis(there));
        a.becomes(&["DEL", "{t}k", "{t}n", "a", "b"], "0");
        let queue = |a: &mut Redis| {
            assert_eq!(a.call(&["MULTI"]), "OK");
            assert_eq!(a.call(&["SET", "{t}k", "mine"]), "QUEUED");
            assert_eq!(a.call(&["INCR", "{t}n"]), "QUEUED");
        };
        assert_eq!(a.call(&["WATCH", "{t}k"]), "OK");
        queue(&mut a);
        assert_eq!(b.call(&["MGET", "{t}k", "{t}n"]), "nil nil");
        assert_eq!(a.call(&["EXEC"]), "OK 1");
        assert_eq!(b.call(&["MGET", "{t}k", "{t}n"]), "mine 1");

        assert_eq!(a.call(&["WATCH", "{t}k"]), "OK");
        assert_eq!(b.call(&["SET", "{t}k", "theirs"]), "OK");
        queue(&mut a);
        assert_eq!(a.call(&["EXEC"]), "nil", "it was changed through another node");
        assert_eq!(a.call(&["MGET", "{t}k", "{t}n"]), "theirs 1");

        assert_eq!(a.call(&["MULTI"]), "OK");
        for key in ["a", "b"] {
            assert_eq!(a.call(&["SET", key, "1"]), "QUEUED");
        }
        let refused = a.try_call(&["EXEC"]).expect_err("the keys are in two groups");
        assert!(refused.starts_with("CROSSSLOT") && refused.contains("{hash tag}"), "{refused}");
        assert_eq!(a.call(&["EXISTS", "a", "b"]), "0");

        let condition = ["TXN", "IF", "{t}k", "EQ", "theirs", "THEN"];
        let then = ["3", "SET", "{t}k", "txn", "2", "INCR", "{t}n"];
        let txn = [&condition[..], &then[..]].concat();
        assert_eq!(a.call(&txn), "1 OK 2");
        assert_eq!(b.call(&txn), "0 ");
        assert_eq!(b.call(&["DEL", "{t}k", "{t}n"]), "2");
    }
    demo.stop();
}
