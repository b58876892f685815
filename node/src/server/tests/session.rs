//! What a connection agrees with its client.

use super::*;
use crate::resp::Protocol;

#[tokio::test]
async fn strangers_must_authenticate() {
    let config = ServerConfig { requirepass: Some("secret".into()), ..ServerConfig::default() };
    let (_server, plain, _) = start(Fake::new(), config).await;
    let wrong = "-WRONGPASS invalid username-password pair or user is disabled.\r\n";
    for (input, expected) in [
        ("PING\r\nGET a\r\n", "-NOAUTH Authentication required.\r\n".repeat(2)),
        ("AUTH nope\r\nAUTH secre\r\nAUTH secrett\r\nAUTH root secret\r\n", wrong.repeat(4)),
        ("AUTH secret\r\nPING\r\n", "+OK\r\n+PONG\r\n".into()),
        ("AUTH default secret\r\nPING\r\n", "+OK\r\n+PONG\r\n".into()),
        ("AUTH secret\r\nRESET\r\nGET a\r\n", {
            "+OK\r\n+RESET\r\n-NOAUTH Authentication required.\r\n".into()
        }),
        ("QUIT\r\n", "+OK\r\n".into()),
    ] {
        assert_eq!(talk(plain, input.as_bytes()).await, expected);
    }
    // A large request may stand right behind AUTH, but not before it.
    let value = "v".repeat(20_000);
    let set = request(&["SET", "a", &value]);
    let known = [b"AUTH secret\r\n".to_vec(), set.clone()].concat();
    assert_eq!(talk(plain, &known).await, "+OK\r\n+OK\r\n");
    let error = "-ERR Protocol error: unauthenticated bulk length\r\n";
    assert_eq!(talk(plain, &set).await, error);
}

#[tokio::test]
async fn hello_changes_how_replies_are_written() {
    let (_server, plain, cluster) = start(Fake::new(), ServerConfig::default()).await;
    let text =
        talk(plain, b"GET x\r\nHELLO 3 SETNAME me\r\nGET x\r\nHGETALL h\r\nRESET\r\nGET x\r\n")
            .await;
    assert!(text.starts_with("$-1\r\n%7\r\n$6\r\nserver\r\n$5\r\nredis\r\n"), "{text}");
    assert!(text.contains("$5\r\nproto\r\n:3\r\n"), "{text}");
    assert!(text.contains("$4\r\nmode\r\n$10\r\nstandalone\r\n"), "{text}");
    assert!(text.ends_with("_\r\n%1\r\n$1\r\nf\r\n$1\r\nv\r\n+RESET\r\n$-1\r\n"), "{text}");
    let text = talk(cluster, b"HELLO\r\n").await;
    assert!(text.starts_with("*14\r\n") && text.contains("$7\r\ncluster\r\n"), "{text}");
}

#[tokio::test]
async fn select_chooses_a_namespace() {
    let fake = Fake::new();
    let (_server, plain, _) = start(fake.clone(), ServerConfig::default()).await;
    let input =
        b"SET a 1\r\nSELECT jobs\r\nGET a\r\nSET a 2\r\nSELECT 0\r\nGET a\r\nSELECT nope\r\n\
        SELECT 7\r\nGET a\r\n";
    let expected = "+OK\r\n+OK\r\n$-1\r\n+OK\r\n+OK\r\n$1\r\n1\r\n-ERR there is no namespace 'nope'; \
        create it (flotilla namespace create) or SELECT another one\r\n\
        -ERR DB index is out of range\r\n$1\r\n1\r\n";
    assert_eq!(talk(plain, input).await, expected);
    let namespaces: Vec<u32> = fake.runs.lock().iter().map(|(view, _)| view.namespace.0).collect();
    assert_eq!(namespaces, [1, 2, 1, 1], "a run ends where SELECT stands");
}

#[tokio::test]
async fn views_tell_door_protocol_and_readonly() {
    let fake = Fake::new();
    let (_server, plain, cluster) = start(fake.clone(), ServerConfig::default()).await;
    talk(plain, b"READONLY\r\nGET a\r\n").await;
    talk(cluster, b"HELLO 3\r\nREADONLY\r\nGET a\r\nREADWRITE\r\nGET a\r\n").await;
    let runs = fake.runs.lock();
    let views: Vec<_> =
        runs.iter().map(|(view, _)| (view.door, view.readonly, view.protocol)).collect();
    assert_eq!(
        views,
        [
            (Door::Plain, false, Protocol::Resp2),
            (Door::Cluster, true, Protocol::Resp3),
            (Door::Cluster, false, Protocol::Resp3),
        ]
    );
}

#[tokio::test]
async fn clients_are_listed() {
    let (_server, plain, _) = start(Fake::new(), ServerConfig::default()).await;
    let mut first = Client::connect(plain).await;
    first.send(b"CLIENT SETNAME first\r\nCLIENT GETNAME\r\nCLIENT ID\r\n").await;
    first.expect("+OK\r\n$5\r\nfirst\r\n:1\r\n").await;
    first.send(b"CLIENT SETINFO LIB-NAME redis-py\r\nCLIENT SETINFO lib-ver 8.1\r\n").await;
    first.expect("+OK\r\n+OK\r\n").await;
    let text =
        talk(plain, b"CLIENT SETINFO x y\r\nCLIENT SETINFO lib-name \"a b\"\r\nCLIENT LIST\r\n")
            .await;
    assert!(text.starts_with("-ERR Unrecognized option 'x'\r\n-ERR lib-name cannot"), "{text}");
    let line = text.lines().find(|line| line.starts_with("id=1 ")).unwrap();
    assert!(line.contains(" name=first ") && line.contains(" cmd=client|setinfo "), "{line}");
    assert!(line.contains(" lib-name=redis-py lib-ver=8.1 namespace=default"), "{line}");
    assert!(text.contains("\nid=2 "), "{text}");
    let text = talk(plain, b"CLIENT LIST ID 1\r\nCLIENT LIST TYPE pubsub\r\n").await;
    assert!(!text.contains("id=3 ") && text.ends_with("$0\r\n\r\n"), "{text}");
}

#[tokio::test]
async fn info_has_the_fields_that_tools_look_for() {
    let (_server, plain, cluster) = start(Fake::new(), ServerConfig::default()).await;
    talk(plain, b"GET x\r\nSET\r\nHGET a b\r\n").await;
    let text = talk(plain, b"INFO\r\n").await;
    for field in [
        "redis_version:7.2.4",
        "flotilla_version:",
        "redis_mode:standalone",
        "tcp_port:",
        "run_id:",
        "uptime_in_seconds:",
        "flotilla_node:n1",
        "flotilla_cluster:east",
        "connected_clients:",
        "used_memory:",
        "maxmemory_policy:noeviction",
        "loading:0",
        "total_commands_processed:",
        "role:master",
        "master_repl_offset:77",
        "used_cpu_user:",
        "errorstat_ERR:count=2",
        "cluster_enabled:0",
        "db0:keys=1,",
    ] {
        assert!(text.contains(&format!("\r\n{field}")), "{field} in {text}");
    }
    assert!(!text.contains("cmdstat_"));
    assert!(talk(plain, b"INFO commandstats\r\n").await.contains("cmdstat_get:calls=1,usec="));
    assert!(talk(plain, b"INFO ALL\r\n").await.contains("cmdstat_hget:calls=1"));
    assert_eq!(talk(plain, b"INFO nonsense\r\n").await, "$0\r\n\r\n");
    assert!(talk(cluster, b"INFO cluster\r\n").await.contains("cluster_enabled:1"));
    assert_eq!(talk(plain, b"CONFIG RESETSTAT\r\n").await, "+OK\r\n");
    assert!(!talk(plain, b"INFO all\r\n").await.contains("errorstat_"));
}

#[tokio::test]
async fn config_shows_settings_and_changes_none() {
    let (_server, plain, _) = start(Fake::new(), ServerConfig::default()).await;
    assert_eq!(talk(plain, b"CONFIG GET Dir databases nope\r\n").await, {
        "*4\r\n$9\r\ndatabases\r\n$1\r\n1\r\n$3\r\nDir\r\n$5\r\n/data\r\n"
    });
    assert!(talk(plain, b"CONFIG GET max*\r\n").await.contains("$10\r\nmaxclients\r\n$5\r\n10000"));
    assert_eq!(talk(plain, b"CONFIG SET maxmemory 0\r\n").await, "+OK\r\n");
    assert!(talk(plain, b"CONFIG SET maxmemory 1\r\n").await.contains("immutable"));
}

#[tokio::test]
async fn the_cluster_door_tells_the_map() {
    let (_server, _, cluster) = start(Fake::new(), ServerConfig::default()).await;
    let ids: Vec<String> =
        ["n1", "n2", "n3"].iter().map(|name| super::super::node_id(name)).collect();
    let member =
        |port: u16, id: &str| format!("*4\r\n$8\r\n10.0.0.1\r\n:{port}\r\n$40\r\n{id}\r\n*0\r\n");
    let expected = format!(
        "*2\r\n*4\r\n:0\r\n:8191\r\n{}{}*4\r\n:8192\r\n:16383\r\n{}{}",
        member(7001, &ids[0]),
        member(7011, &ids[1]),
        member(7011, &ids[1]),
        member(7021, &ids[2]),
    );
    assert_eq!(talk(cluster, b"CLUSTER SLOTS\r\n").await, expected);
    let nodes = talk(cluster, b"CLUSTER NODES\r\n").await;
    let lines: Vec<&str> = nodes.lines().skip(1).collect();
    assert_eq!(
        lines[0],
        format!("{} 10.0.0.1:7001@7002 myself,master - 0 0 5 connected 0-8191", ids[0])
    );
    assert_eq!(
        lines[1],
        format!("{} 10.0.0.1:7011@7012 master - 0 0 5 connected 8192-16383", ids[1])
    );
    assert_eq!(lines[2], format!("{} 10.0.0.1:7021@7022 slave {} 0 0 5 connected", ids[2], ids[1]));
    let info = talk(cluster, b"CLUSTER INFO\r\n").await;
    assert!(
        info.contains("cluster_state:ok\r\n") && info.contains("cluster_slots_ok:16384"),
        "{info}"
    );
    assert!(
        info.contains("cluster_size:2\r\n") && info.contains("cluster_known_nodes:3"),
        "{info}"
    );
    assert_eq!(talk(cluster, b"CLUSTER MYID\r\n").await, format!("$40\r\n{}\r\n", ids[0]));
    let shards = talk(cluster, b"HELLO 3\r\nCLUSTER SHARDS\r\n").await;
    assert!(
        shards.contains("%2\r\n$5\r\nslots\r\n*2\r\n:0\r\n:8191\r\n$5\r\nnodes\r\n*2\r\n%7\r\n"),
        "{shards}"
    );
    assert!(shards.contains("$6\r\nhealth\r\n$6\r\nonline\r\n"), "{shards}");
}

#[tokio::test]
async fn a_node_without_a_map_asks_to_try_again() {
    let fake = Fake::build(0, false);
    let (_server, plain, cluster) = start(fake, ServerConfig::default()).await;
    let line = "-LOADING this node has not heard of its cluster yet, try again\r\n";
    assert_eq!(
        talk(plain, b"GET a\r\nSELECT 0\r\nSELECT x\r\n").await,
        format!("{line}+OK\r\n{line}")
    );
    assert_eq!(talk(cluster, b"CLUSTER SLOTS\r\nCLUSTER NODES\r\n").await, line.repeat(2));
}

#[tokio::test]
async fn flotilla_is_a_container_that_groups_and_the_connection_share() {
    let fake = Fake::new();
    let (_server, plain, cluster) = start(fake.clone(), ServerConfig::default()).await;
    for door in [plain, cluster] {
        let help = talk(door, b"FLOTILLA HELP\r\n").await;
        let first = "+FLOTILLA <subcommand> [<arg> [value] [opt] ...]. Subcommands are:\r\n";
        let conflicts = "+CONFLICTS\r\n+    [KEY key] [COUNT n]: writes that lost against another \
             cluster's, the newest first.\r\n";
        let rows = "+HELP\r\n+    The subcommands that there are.\r\n";
        assert_eq!(help, format!("*5\r\n{first}{conflicts}{rows}"));
        let wrong = talk(door, b"FLOTILLA FOO\r\nFLOTILLA\r\n").await;
        let unknown = "-ERR unknown subcommand 'FOO'. Try FLOTILLA HELP.\r\n";
        let arity = "-ERR wrong number of arguments for 'flotilla' command\r\n";
        assert_eq!(wrong, format!("{unknown}{arity}"));
    }
    assert!(fake.runs.lock().is_empty(), "nothing of this concerns groups");
    talk(plain, b"GET a\r\nFLOTILLA CONFLICTS\r\nGET a\r\n").await;
    let runs: Vec<_> = fake.runs.lock().iter().map(|(_, names)| names.clone()).collect();
    assert_eq!(runs, [["get"], ["flotilla"], ["get"]], "what asks every group comes alone");
}

#[tokio::test]
async fn time_is_the_nodes_clock_also_within_a_transaction() {
    let (_server, plain, _) = start(Fake::new(), ServerConfig::default()).await;
    let before = crate::clock::wall_ms();
    let answer = talk(plain, b"TIME\r\nMULTI\r\nTIME\r\nEXEC\r\n").await;
    let after = crate::clock::wall_ms();
    let lines: Vec<&str> = answer.lines().collect();
    assert_eq!((lines[0], lines[5], lines[6], lines[7]), ("*2", "+OK", "+QUEUED", "*1"));
    for (seconds, micros) in [(lines[2], lines[4]), (lines[10], lines[12])] {
        let (seconds, micros): (u64, u64) = (seconds.parse().unwrap(), micros.parse().unwrap());
        assert!(micros < 1_000_000);
        let ms = seconds * 1000 + micros / 1000;
        assert!((before..=after).contains(&ms), "{ms} is not in {before}..={after}");
    }
}
