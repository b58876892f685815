//! Commands that wait, through nodes that do not lead, while leaders die, and between datacenters.

use crate::harness::{Demo, PATIENCE, Redis, alone, eventually, show};
use flotilla_chaos::resp::Client;
use std::thread::{JoinHandle, spawn};

const NODES: usize = 3;

/// A client that waits in one command; its reply.
fn waiter(demo: &Demo, cluster: &str, node: usize, command: &str) -> JoinHandle<String> {
    let before = waiting(demo, cluster, node);
    let address = address(demo, cluster, node, "resp");
    let args: Vec<String> = command.split(' ').map(str::to_owned).collect();
    let reply = spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let mut client = Client::connect(&address, PATIENCE).await.expect("it connects");
            show(&client.call(&args).await.expect("it is answered"))
        })
    });
    eventually("it waits", || match waiting(demo, cluster, node) {
        now if now > before => Ok(()),
        now => Err(format!("{now} wait, {before} before")),
    });
    reply
}

fn address(demo: &Demo, cluster: &str, node: usize, door: &str) -> String {
    demo.cluster(cluster)["nodes"][node][door].as_str().expect("an address").to_owned()
}

/// How many clients of a node wait.
fn waiting(demo: &Demo, cluster: &str, node: usize) -> usize {
    let info = demo.redis(cluster, node).call(&["INFO", "clients"]);
    let field = info.lines().find_map(|line| line.strip_prefix("blocked_clients:"));
    field.and_then(|count| count.trim().parse().ok()).expect("a number")
}

/// The node that leads the group of a key.
fn leader_of(demo: &Demo, cluster: &str, key: &str) -> usize {
    eventually("a node leads", || {
        let leads = |node: &usize| {
            let mut door = Redis::new(&address(demo, cluster, *node, "cluster_resp"));
            door.try_call(&["EXISTS", key]).is_ok()
        };
        (0..NODES).find(leads).ok_or_else(|| "all say MOVED".to_owned())
    })
}

#[test]
fn waiting_through_any_node_outlives_leaders() {
    let _alone = alone();
    let demo = Demo::start(&["--datacenters", "east"]);
    demo.redis("east", 0).becomes(&["DEL", "q"], "0");
    served_through_any_node(&demo);
    moved_at_the_cluster_door(&demo);
    goes_on_when_the_leader_dies(&demo);
    demo.stop();
}

fn served_through_any_node(demo: &Demo) {
    // One of three nodes leads: the others ask it.
    let waiters: Vec<_> =
        (0..NODES).map(|node| waiter(demo, "east", node, "BLPOP nokey{q} q 0")).collect();
    let mut pusher = demo.redis("east", 1);
    let elements: Vec<String> = (0..NODES).map(|number| format!("e{number}")).collect();
    for element in &elements {
        pusher.call(&["RPUSH", "q", element]);
    }
    let mut served: Vec<String> =
        waiters.into_iter().map(|waiter| waiter.join().expect("it is served")).collect();
    served.sort_unstable();
    let wanted: Vec<String> = elements.iter().map(|element| format!("q {element}")).collect();
    assert_eq!(served, wanted, "each one once");
    assert_eq!(pusher.call(&["EXISTS", "q"]), "0");

    // A chain over three clients of three nodes.
    let chain = ["BLMOVE a{q} b{q} LEFT RIGHT 0", "BLMOVE b{q} c{q} LEFT RIGHT 0", "BLPOP c{q} 0"];
    let chain: Vec<_> = (0..NODES).map(|node| waiter(demo, "east", node, chain[node])).collect();
    pusher.call(&["RPUSH", "a{q}", "x"]);
    let served: Vec<String> =
        chain.into_iter().map(|waiter| waiter.join().expect("it is served")).collect();
    assert_eq!(served, ["x", "x", "c{q} x"]);

    let follower = (leader_of(demo, "east", "q") + 1) % NODES;
    let timed = waiter(demo, "east", follower, "BZPOPMIN q 1.5");
    assert_eq!(timed.join().expect("it is answered"), "nil");
    let scored = waiter(demo, "east", follower, "BZMPOP 0 1 z{q} MAX COUNT 2");
    pusher.call(&["ZADD", "z{q}", "1", "a", "3", "c", "2", "b"]);
    assert_eq!(scored.join().expect("it is served"), "z{q} c 3 b 2");
    let mut unblocks = demo.redis("east", follower);
    let asked = waiter(demo, "east", follower, "BLPOP q 0");
    let clients = unblocks.call(&["CLIENT", "LIST"]);
    let line = clients.lines().find(|line| line.contains(" flags=b ")).expect("one that waits");
    let id = line.strip_prefix("id=").and_then(|line| line.split(' ').next()).expect("a number");
    assert_eq!(unblocks.call(&["CLIENT", "UNBLOCK", id]), "1");
    assert_eq!(asked.join().expect("it is answered"), "nil");
    pusher.call(&["DEL", "z{q}"]);
}

fn moved_at_the_cluster_door(demo: &Demo) {
    let leader = leader_of(demo, "east", "q");
    for node in 0..NODES {
        let mut door = Redis::new(&address(demo, "east", node, "cluster_resp"));
        let told = door.try_call(&["BLPOP", "q", "0.1"]);
        if node == leader {
            assert_eq!(told.map(|reply| show(&reply)), Ok("nil".to_owned()));
        } else {
            let moved = told.expect_err("it does not lead");
            let to = address(demo, "east", leader, "cluster_resp");
            assert!(moved.starts_with("MOVED ") && moved.ends_with(&to), "{moved}");
        }
    }
}

fn goes_on_when_the_leader_dies(demo: &Demo) {
    let leader = leader_of(demo, "east", "q");
    let (first, second) = ((leader + 1) % NODES, (leader + 2) % NODES);
    let waiters = [first, second].map(|node| waiter(demo, "east", node, "BLPOP q 0"));
    let name = demo.cluster("east")["nodes"][leader]["name"].as_str().expect("a name").to_owned();
    demo.ctl(&["kill", &name]);
    let mut pusher = demo.redis("east", second);
    // Which may be repeated while it is not known whether it was applied.
    eventually("another one leads", || pusher.try_call(&["SET", "probe{q}", "x"]));
    for element in ["one", "two"] {
        pusher.call(&["RPUSH", "q", element]);
    }
    let mut served = waiters.map(|waiter| waiter.join().expect("it is served"));
    served.sort_unstable();
    assert_eq!(served, ["q one", "q two"]);
    demo.ctl(&["restart", &name]);
    demo.redis("east", leader).becomes(&["EXISTS", "q"], "0");
}

#[test]
fn what_is_pushed_in_another_datacenter_wakes() {
    let _alone = alone();
    let demo = Demo::start(&["--rtt", "20ms"]);
    let mut east = demo.redis("east", 0);
    assert_eq!(east.call(&["SET", "up", "1"]), "OK");
    demo.redis("west", 0).becomes(&["GET", "up"], "1");
    for node in 0..NODES {
        let list = waiter(&demo, "west", node, "BRPOP q 0");
        east.call(&["RPUSH", "q", &format!("e{node}")]);
        assert_eq!(list.join().expect("it is served"), format!("q e{node}"));
        // The pop travels back.
        east.becomes(&["EXISTS", "q"], "0");
    }
    let scored = waiter(&demo, "west", 1, "BZPOPMAX z 0");
    east.call(&["ZADD", "z", "1", "a", "2", "b"]);
    assert_eq!(scored.join().expect("it is served"), "z b 2");
    east.becomes(&["ZRANGE", "z", "0", "-1"], "a");
    demo.verify_equal();
    demo.stop();
}
