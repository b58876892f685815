//! MULTI, EXEC and WATCH on real evaluation, side by side with redis-server, and what is ours.

use super::against_redis::Redis;
use super::*;
use crate::group::transact::tests::Solo;
use crate::group::transaction::{Ask, TRANSACTION_COMMANDS_MAX, WATCHES_MAX};

/// One group in memory that takes the wall's time, behind a server.
struct Real(Mutex<Solo>);

impl Real {
    fn new(synced: bool) -> Arc<Real> {
        Arc::new(Real(Mutex::new(Solo::new(synced))))
    }

    fn solo(&self) -> parking_lot::MutexGuard<'_, Solo> {
        let mut solo = self.0.lock();
        solo.wall_ms = crate::clock::wall_ms();
        solo
    }
}

impl Backend for Real {
    fn execute(
        self: Arc<Self>,
        _: SessionView,
        commands: Vec<Command>,
    ) -> BoxFuture<'static, Vec<Reply>> {
        async move { self.solo().exec(commands) }.boxed()
    }

    fn wait(
        self: Arc<Self>,
        _: SessionView,
        _: Command,
        mut patience: Patience,
    ) -> BoxFuture<'static, Option<Reply>> {
        async move { patience.ended().await.reply() }.boxed()
    }

    fn may_queue(&self, _: SessionView, command: &Command) -> Result<(), Reply> {
        let full = command.first_key().is_some_and(|key| key.starts_with(b"full"));
        if full { Err(Reply::error("ERR the disk is nearly full")) } else { Ok(()) }
    }

    fn watch(
        self: Arc<Self>,
        _: SessionView,
        keys: Vec<Bytes>,
    ) -> BoxFuture<'static, Result<Vec<Watch>, Reply>> {
        async move {
            match &keys[0][..] {
                b"down" => Err(Reply::error("TRYAGAIN not applied")),
                b"moved" => Err(Reply::error("MOVED 1 10.0.0.1:7000")),
                _ => Ok(self.solo().watch(keys)),
            }
        }
        .boxed()
    }

    fn transact(
        self: Arc<Self>,
        _: SessionView,
        transaction: Transaction,
    ) -> BoxFuture<'static, Reply> {
        async move { self.solo().ask(Ask::Transact(transaction)) }.boxed()
    }

    fn namespace(&self, name: &str) -> Option<NamespaceId> {
        (name == "default").then_some(NamespaceId(1))
    }

    fn map(&self) -> Option<Arc<ClusterMap>> {
        Some(Arc::new(map()))
    }

    fn node(&self) -> &str {
        "n1"
    }

    fn datacenter(&self) -> &str {
        "east"
    }

    fn info(&self, _: &str) -> Vec<(String, String)> {
        vec![]
    }

    fn settings(&self) -> Vec<(String, String)> {
        vec![]
    }
}

/// Two connections to one server: steps of both, in order, and all that they answer.
async fn story(address: SocketAddr, hello: &str, steps: &[&str]) -> Vec<String> {
    let mut connections = [Client::connect(address).await, Client::connect(address).await];
    let mut said = Vec::new();
    for connection in &mut connections {
        connection.send(format!("{hello}\r\nECHO end\r\n").as_bytes()).await;
        connection.until("$3\r\nend\r\n").await;
    }
    for step in steps {
        let (who, line) = step.split_at(2);
        let connection = &mut connections[usize::from(who == "b ")];
        if line == "ends k" {
            // Both servers let it end by their own clocks.
            loop {
                connection.send(b"EXISTS k\r\nECHO end\r\n").await;
                if connection.until("$3\r\nend\r\n").await.starts_with(":0") {
                    break;
                }
            }
            continue;
        }
        let lines: Vec<&str> = line.split(';').collect();
        connection.send(format!("{}\r\n", lines.join("\r\n")).as_bytes()).await;
        said.push(format!("{step}: {}", connection.reply().await));
        for _ in 1..lines.len() {
            said.push(connection.reply().await);
        }
    }
    said
}

impl Client {
    /// All bytes up to these, with them.
    pub(super) async fn until(&mut self, end: &str) -> String {
        let mut text = Vec::new();
        let read = async {
            while !text.ends_with(end.as_bytes()) {
                text.push(self.0.read_u8().await.unwrap());
            }
        };
        tokio::time::timeout(PATIENCE, read).await.expect(end);
        String::from_utf8_lossy(&text).into_owned()
    }

    /// One reply, whole, as it is written.
    pub(super) async fn reply(&mut self) -> String {
        let mut text = String::new();
        let mut left = 1;
        while left > 0 {
            let line = self.until("\r\n").await;
            let count = || line[1..].trim_end().parse::<usize>().unwrap_or(0);
            left += match line.as_bytes()[0] {
                b'*' | b'~' => count(),
                b'%' => 2 * count(),
                _ => 0,
            };
            left -= 1;
            text.push_str(&line);
            if line.starts_with('$') && !line.starts_with("$-") {
                let mut bytes = vec![0; count() + 2];
                let read = self.0.read_exact(&mut bytes);
                tokio::time::timeout(PATIENCE, read).await.expect(&line).expect(&line);
                text.push_str(&String::from_utf8_lossy(&bytes));
            }
        }
        text
    }
}

const STORIES: &[&[&str]] = &[
    &["a EXEC", "a DISCARD", "a EXEC x", "a MULTI x", "a UNWATCH", "a UNWATCH x", "a WATCH"],
    &[
        "a MULTI",
        "a SET k 1",
        "a INCR k",
        "a GET k",
        "b GET k",
        "a MGET k nokey",
        "a EXEC",
        "b GET k",
        "a EXEC",
    ],
    &["a MULTI", "a EXEC", "a MULTI", "a MULTI", "a SET k 2", "a EXEC", "a GET k"],
    &["a MULTI", "a SET k 1", "a DISCARD", "a GET k", "a DISCARD", "a EXEC"],
    &["a MULTI", "a SET k", "a SET k 3", "a EXEC", "a GET k"],
    &["a MULTI", "a FOO bar", "a SET k 3", "a EXEC", "a GET k"],
    &["a MULTI", "a SET k 3", "a EXEC x", "a EXEC", "a GET k"],
    &["a MULTI", "a DISCARD x", "a SET k 4", "a EXEC", "a GET k"],
    &["a MULTI", "a WATCH k", "a SET k 4", "a EXEC", "a MULTI", "a WATCH", "a EXEC"],
    &[
        "a MULTI",
        "a HSET h f v",
        "a INCR h",
        "a INCR",
        "a EXEC",
        "a MULTI",
        "a HSET h f v",
        "a INCR h",
        "a SET s x",
        "a INCR s",
        "a HGETALL h",
        "a HGETALL nokey",
        "a EXEC",
        "a MULTI",
        "a SET s 1 XX NX",
        "a EXPIRE s 0",
        "a EXISTS s",
        "a EXEC",
    ],
    &[
        "a WATCH k",
        "a UNWATCH",
        "a MULTI",
        "a PING",
        "a PING x",
        "a PING x y",
        "a ECHO z",
        "a UNWATCH",
        "a GET k",
        "a EXEC",
    ],
    &["a MULTI", "a CLIENT foo", "a EXEC", "a MULTI", "a RESET", "a EXEC", "a GET nokey"],
    // Watches.
    &["a WATCH k", "b SET k 1", "a MULTI", "a SET k 2", "a EXEC", "a GET k"],
    &["a WATCH k", "a SET k 1", "a MULTI", "a SET k 2", "a EXEC", "a MULTI", "a EXEC"],
    &[
        "a WATCH k j",
        "b SET x 1",
        "b GET k",
        "a MULTI",
        "b DEL k",
        "a SET k 2",
        "a EXEC",
        "a GET k",
    ],
    &["a WATCH k", "a MULTI", "b SET k 1", "a EXEC", "a WATCH k", "a MULTI", "a EXEC"],
    &["a WATCH k", "b SET k 1", "a UNWATCH", "a MULTI", "a SET k 3", "a EXEC"],
    &["a WATCH k", "b SET k 1", "a MULTI", "a DISCARD", "a MULTI", "a SET k 3", "a EXEC"],
    &["a WATCH k", "a WATCH j", "b SET k 1", "a WATCH k", "a MULTI", "a EXEC"],
    &["a WATCH k", "b SET k 1", "a MULTI", "a FOO", "a EXEC", "a MULTI", "a EXEC"],
    &["a WATCH k", "b SET k 1", "a MULTI", "a EXEC x", "a MULTI", "a GET k", "a EXEC"],
    &["a WATCH k", "b SET k 1", "a EXEC", "a MULTI", "a EXEC"],
    &["a HSET h f 1", "a WATCH h", "b HSET h g 1", "a MULTI", "a HLEN h", "a EXEC", "a HLEN h"],
    &["a HSET h f 1", "a WATCH h", "b HDEL h f", "a MULTI", "a HLEN h", "a EXEC", "a HLEN h"],
    &["a HSET h f 1", "a WATCH h", "b HSET h f 1", "a MULTI", "a HLEN h", "a EXEC"],
    &["a HSET h f 1", "a WATCH h", "b HDEL h g", "a MULTI", "a HLEN h", "a EXEC"],
    &["a SET k v", "a WATCH k", "b EXPIRE k 100", "a MULTI", "a GET k", "a EXEC"],
    &["a SET k v", "a WATCH k", "b PERSIST k", "a MULTI", "a GET k", "a EXEC"],
    &["a SET k v PX 60", "a WATCH k", "b ends k", "a MULTI", "a SET k 2", "a EXEC", "a GET k"],
    &["a SET k v", "a WATCH k", "b SETNX k w", "a MULTI", "a GET k", "a EXEC"],
    &["a SET k v", "a WATCH k", "b GETDEL k", "b SET k v", "a MULTI", "a GET k", "a EXEC"],
    // The whole transaction in one piece.
    &["a WATCH k;MULTI;SET k 1;INCR k;EXEC;GET k", "a MULTI;GET k;FOO;EXEC;GET k"],
];

#[tokio::test]
async fn transactions_answer_as_redis() {
    let redis = Redis::start(&[]).await;
    for synced in [true, false] {
        for hello in ["HELLO 2", "HELLO 3"] {
            let (_server, plain, _) = start(Real::new(synced), ServerConfig::default()).await;
            for steps in STORIES {
                let clean = ["a DEL k j h s x"];
                for address in [plain, redis.address] {
                    story(address, hello, &clean).await;
                }
                let ours = story(plain, hello, steps).await;
                assert_eq!(ours, story(redis.address, hello, steps).await, "{synced} {hello}");
            }
        }
    }
}

#[tokio::test]
async fn a_transaction_is_one_entry_and_commands_beside_it_are_not_in_it() {
    let real = Real::new(true);
    let (_server, plain, _) = start(real.clone(), ServerConfig::default()).await;
    let text = talk(plain, b"SET a 0\r\nMULTI\r\nINCR a\r\nSET b 1\r\nEXEC\r\nMGET a b\r\n").await;
    let expected =
        "+OK\r\n+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n:1\r\n+OK\r\n*2\r\n$1\r\n1\r\n$1\r\n1\r\n";
    assert_eq!(text, expected);
    assert_eq!(real.solo().log.len(), 2);
    // A connection that ends before EXEC has done nothing.
    let text = talk(plain, b"MULTI\r\nSET a 9\r\n").await;
    assert_eq!(text, "+OK\r\n+QUEUED\r\n");
    assert_eq!(talk(plain, b"GET a\r\n").await, "$1\r\n1\r\n");
}

#[tokio::test]
async fn what_cannot_be_part_of_a_transaction_aborts_it() {
    let (_server, plain, _) = start(Real::new(true), ServerConfig::default()).await;
    for (line, why) in [
        ("SCAN 0", "every group"),
        ("DBSIZE", "every group"),
        ("INFO", "connection"),
        ("SELECT 0", "connection"),
        ("HELLO 3", "connection"),
        ("TXN IF k EXISTS THEN", "nest"),
        ("SET full 1", "disk"),
    ] {
        let input = format!("MULTI\r\nSET k 1\r\n{line}\r\nEXEC\r\nEXISTS k\r\n");
        let text = talk(plain, input.as_bytes()).await;
        let lines: Vec<&str> = text.lines().collect();
        let [_, "+QUEUED", error, abort, ":0"] = &lines[..] else { panic!("{text}") };
        assert!(error.starts_with("-ERR ") && error.contains(why), "{error}");
        let aborted = "-EXECABORT Transaction discarded because of previous errors.";
        assert_eq!(*abort, aborted, "{line}");
    }
}

#[tokio::test]
async fn a_watch_that_failed_lets_exec_carry_out_nothing() {
    let (_server, plain, _) = start(Real::new(true), ServerConfig::default()).await;
    let rest = "MULTI\r\nSET k 1\r\nEXEC\r\nEXISTS k\r\n";
    let text = talk(plain, format!("WATCH down\r\n{rest}{rest}").as_bytes()).await;
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "-TRYAGAIN not applied");
    assert!(lines[3].starts_with("-EXECABORT Transaction discarded because WATCH"), "{text}");
    assert_eq!((lines[4], *lines.last().unwrap()), (":0", ":1"), "only that one: {text}");
    for forgotten in ["WATCH down\r\nUNWATCH\r\n", "WATCH moved\r\n"] {
        let text = talk(plain, format!("DEL k\r\n{forgotten}{rest}").as_bytes()).await;
        assert!(text.ends_with("*1\r\n+OK\r\n:1\r\n"), "{text}");
    }
    let many = (0..=WATCHES_MAX).map(|key| format!("WATCH k{key}\r\n")).collect::<String>();
    let text = talk(plain, format!("{many}{rest}").as_bytes()).await;
    assert!(text.contains("-ERR a connection may watch 1024 keys: UNWATCH some\r\n"), "{text}");
    assert!(text.contains("-EXECABORT"), "{text}");
}

#[tokio::test]
async fn what_is_queued_has_a_limit_and_counts_as_memory() {
    let config = ServerConfig { clients_memory_max: 600 << 20, ..ServerConfig::default() };
    let (_server, plain, _) = start(Real::new(true), config).await;
    let many = "GET k\r\n".repeat(TRANSACTION_COMMANDS_MAX);
    let text = talk(plain, format!("MULTI\r\n{many}GET k\r\nEXEC\r\n").as_bytes()).await;
    let end = "-ERR a transaction may hold 8192 commands and 16777216 bytes: use several\r\n\
        -EXECABORT Transaction discarded because of previous errors.\r\n";
    assert!(text.ends_with(end), "{}", &text[text.len() - 300..]);
    let text = talk(plain, format!("MULTI\r\n{many}EXEC\r\n").as_bytes()).await;
    assert!(text.ends_with(&format!("*8192\r\n{}", "$-1\r\n".repeat(8192))));

    let value = "v".repeat(6 << 20);
    let set = request(&["SET", "k", &value]);
    let input = [b"MULTI\r\n".to_vec(), set.repeat(3), b"EXEC\r\n".to_vec()].concat();
    let text = talk(plain, &input).await;
    assert!(text.contains("+QUEUED\r\n+QUEUED\r\n-ERR a transaction may hold"), "{text}");
}

#[tokio::test]
async fn txn_and_compare_and_set_need_no_multi() {
    let (_server, plain, _) = start(Real::new(true), ServerConfig::default()).await;
    let lines = "SET k 1\r\nTXN IF k EQ 1 THEN 3 SET k 2 2 GET k ELSE 2 GET k\r\n\
        TXN IF k EQ 1 THEN 3 SET k 3 ELSE 2 GET k\r\nTXN IF k EQ 1 ELSE\r\nCAS k 2 4\r\n\
        MULTI\r\nCAS k 4 5\r\nCAD k 4\r\nEXEC\r\n";
    let text = talk(plain, lines.replace("        ", "").as_bytes()).await;
    let expected = "+OK\r\n*2\r\n:1\r\n*2\r\n+OK\r\n$1\r\n2\r\n*2\r\n:0\r\n*1\r\n$1\r\n2\r\n\
        -ERR syntax error: TXN IF key EXISTS|NOTEXISTS|<EQ|NE|GT|GE|LT|LE value> [IF ...] \
        THEN [n command ...] [ELSE [n command ...]]\r\n:1\r\n\
        +OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n:1\r\n:0\r\n";
    assert_eq!(text, expected);
}
