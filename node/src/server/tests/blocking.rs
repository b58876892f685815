//! Commands that wait, on a whole node, side by side with redis-server and by themselves.

use super::against_redis::Redis;
use super::*;
use crate::config::Config;
use crate::group::wait::WAIT_KEYS_MAX;
use crate::node::Node;
use std::time::Instant;

/// A node that needs nothing else, until this is dropped.
struct Whole {
    node: Node,
    plain: SocketAddr,
    _dir: tempfile::TempDir,
}

impl Whole {
    async fn start() -> Whole {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config::standalone(dir.path().to_owned(), 0);
        let any = || "127.0.0.1:0".to_owned();
        (config.listen.resp, config.listen.cluster_resp) = (any(), any());
        config.listen.http = any();
        let node = Node::start(config, true).await.unwrap();
        let plain = node.addresses().resp.parse().unwrap();
        Whole { node, plain, _dir: dir }
    }
}

impl Client {
    /// One command, as a line, and its reply.
    pub(super) async fn ask(&mut self, line: &str) -> String {
        self.send(format!("{line}\r\n").as_bytes()).await;
        self.reply().await
    }

    /// How many clients the server says to wait.
    pub(super) async fn waiting(&mut self) -> usize {
        let info = self.ask("INFO clients").await;
        let field = info.lines().find_map(|line| line.strip_prefix("blocked_clients:"));
        field.unwrap().trim().parse().unwrap()
    }

    pub(super) async fn until_waiting(&mut self, wanted: usize) {
        let deadline = Instant::now() + PATIENCE;
        while self.waiting().await != wanted {
            assert!(Instant::now() < deadline, "{wanted} wait");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    pub(super) async fn id(&mut self) -> String {
        self.ask("CLIENT ID").await[1..].trim_end().to_owned()
    }
}

/// Three connections to one server, and one that looks on: steps in order, and all that was answered.
/// `a LINE` asks; `a> LINES` sends, until one more client waits; `a<` takes a reply; `$a` is a number.
async fn story(address: SocketAddr, hello: &str, steps: &[&str]) -> Vec<String> {
    let names = ["a", "b", "c"];
    let mut clients = Vec::new();
    let mut ids = Vec::new();
    for _ in names {
        let mut client = Client::connect(address).await;
        client.send(format!("{hello}\r\nECHO end\r\n").as_bytes()).await;
        client.until("$3\r\nend\r\n").await;
        ids.push(client.id().await);
        clients.push(client);
    }
    let mut observer = Client::connect(address).await;
    observer.ask("DEL {t}k {t}j {t}z {t}s").await;
    observer.until_waiting(0).await;
    let mut said = Vec::new();
    for step in steps {
        let at = names.iter().position(|name| step.starts_with(name)).unwrap();
        let (how, rest) = step[1..].split_at(1.min(step.len() - 1));
        let line = names.iter().zip(&ids).fold(rest.trim_start().to_owned(), |line, (name, id)| {
            line.replace(&format!("${name}"), id)
        });
        match how {
            ">" => {
                let before = observer.waiting().await;
                let lines = line.replace(';', "\r\n");
                clients[at].send(format!("{lines}\r\n").as_bytes()).await;
                observer.until_waiting(before + 1).await;
            }
            "<" => said.push(format!("{step} {}", clients[at].reply().await)),
            _ => said.push(format!("{step} {}", clients[at].ask(&line).await)),
        }
    }
    said
}

const AT_ONCE: &[&str] = &[
    "a RPUSH k 1 2 3 4 5 6 7 8",
    "a BLPOP nokey k 0",
    "a BRPOP k j 0.5",
    "a BLMPOP 0 2 j k LEFT COUNT 2",
    "a BLMPOP 0 1 k RIGHT",
    "a BLMOVE k j LEFT RIGHT 0",
    "a BRPOPLPUSH k j 0",
    "a LRANGE j 0 -1",
    "a ZADD z 1 x 2.5 y 3 w 4 v inf u",
    "a BZPOPMIN nokey z 0",
    "a BZPOPMAX z nokey 1",
    "a BZMPOP 0 2 nokey z MAX",
    "a BZMPOP 0 1 z MIN COUNT 9",
    "a EXISTS z",
];

const TIMES_UP: &[&str] = &[
    "a BLPOP k 0.01",
    "a BRPOP k j 0.01",
    "a BLMPOP 0.01 2 k j LEFT COUNT 3",
    "a BLMOVE k j LEFT RIGHT 0.01",
    "a BRPOPLPUSH k j 0.01",
    "a BZPOPMIN k z 0.01",
    "a BZPOPMAX z 0.01",
    "a BZMPOP 0.01 1 z MIN",
    "a BLPOP k k 0.0001",
    "a PING",
];

const WRONG: &[&str] = &[
    "a BLPOP k",
    "a BLPOP k x",
    "a BLPOP k -1",
    "a BLPOP k \"\"",
    "a BLPOP k inf",
    "a BLPOP k 1e17",
    "a BLMOVE k j LEFT 0",
    "a BLMOVE k j LEFT x 0",
    "a BLMOVE k j x LEFT x",
    "a BLMOVE k j LEFT LEFT x",
    "a BRPOPLPUSH k j x",
    "a BLMPOP 0 1 k",
    "a BLMPOP x x k LEFT",
    "a BLMPOP 0 0 k LEFT",
    "a BLMPOP 0 1 k MIN",
    "a BLMPOP x 1 k LEFT COUNT 0",
    "a BLMPOP x 1 k LEFT COUNT 1",
    "a BLMPOP 0 1 k LEFT COUNT 1 COUNT 1",
    "a BZMPOP -1 1 z MIN",
    "a BZMPOP 0 1 z LEFT",
    "a BZPOPMIN z x",
    "a BZPOPMAX 0",
    "a SET s x",
    "a BLPOP s k 0",
    "a BLPOP k s 0",
    "a BZPOPMIN s 0",
    "a BLMOVE s k LEFT LEFT 0",
    "a BLMPOP 0 2 k s LEFT",
    "a BZMPOP 0 1 s MIN",
    "a RPUSH k x",
    "a BLMOVE k s LEFT LEFT 0",
    "a BRPOPLPUSH k s 0",
    "a LLEN k",
    "a CLIENT UNBLOCK",
    "a CLIENT UNBLOCK x",
    "a CLIENT UNBLOCK 1 foo",
    "a CLIENT UNBLOCK x foo",
    "a CLIENT UNBLOCK 1 ERROR x",
    "a CLIENT UNBLOCK 999999",
    "a CLIENT UNBLOCK -1 ERROR",
    "a CLIENT UNBLOCK $a",
    "a CLIENT UNBLOCK $b timeout",
];

const IN_MULTI: &[&str] = &[
    "a MULTI",
    "a BLPOP k 0",
    "a BRPOP k 0",
    "a BLMPOP 0 1 k LEFT",
    "a BLMOVE k j LEFT LEFT 0",
    "a BRPOPLPUSH k j 0",
    "a BZPOPMIN z 0",
    "a BZPOPMAX z 0",
    "a BZMPOP 0 1 z MIN",
    "a BLPOP k x",
    "a RPUSH k 1 2",
    "a BLPOP k 0",
    "a BLMOVE k j LEFT LEFT 0",
    "a EXEC",
];

/// Each with what comes while others wait.
const WAITS: &[&[&str]] = &[
    &["a> BLPOP k j 0", "b RPUSH j 1 2", "a<", "b LRANGE j 0 -1", "a BLPOP j 0"],
    &["a> BRPOP k k 0", "b RPUSH k 1 2", "a<", "b LRANGE k 0 -1"],
    &["a> BLMPOP 0 2 k j RIGHT COUNT 2", "b RPUSH j 1 2 3", "a<", "b LRANGE j 0 -1"],
    &["a> BLMOVE k j RIGHT LEFT 0", "b RPUSH k 1 2", "a<", "b LRANGE j 0 -1"],
    &["a> BLMOVE k k LEFT RIGHT 0", "b RPUSH k 1 2", "a<", "b LRANGE k 0 -1"],
    &["a> BRPOPLPUSH k j 100", "b LPUSH k 1 2", "a<", "b LRANGE j 0 -1"],
    &["a> BZPOPMIN k z 0", "b ZADD z 2 y 1.5 x", "a<", "b ZRANGE z 0 -1 WITHSCORES"],
    &["a> BZPOPMAX z k 0", "b ZADD z 2 y 1.5 x", "a<", "b ZRANGE z 0 -1 WITHSCORES"],
    &["a> BZMPOP 0 2 k z MIN COUNT 2", "b ZADD z 2 y 1.5 x 7 v", "a<", "b ZCARD z"],
    // Who pops and pushes lets the next one go on.
    &[
        "a> BLMOVE k j LEFT RIGHT 0",
        "c> BLMOVE j z LEFT RIGHT 0",
        "b RPUSH k x",
        "a<",
        "c<",
        "b EXISTS k j",
        "b LRANGE z 0 -1",
    ],
    // Other types do not disturb who waits, and only tell who moves to them.
    &["a> BLPOP k j 0", "b SET k x", "b RPUSH j y", "a<", "b GET k"],
    &["a> BLPOP k 0", "b ZADD k 1 x", "b DEL k", "b RPUSH k y", "a<"],
    &["a> BZPOPMIN k 0", "b RPUSH k x", "b DEL k", "b ZADD k 1 y", "a<"],
    &["a> BLPOP k 0", "c> BZPOPMIN k 0", "b ZADD k 1 x", "c<", "b RPUSH k y", "a<"],
    &["a> BLMOVE k s LEFT LEFT 0", "b SET s x", "b RPUSH k y", "a<", "b LRANGE k 0 -1", "a PING"],
    // Ways in which a list appears.
    &["a> BLPOP k 0", "b RPUSH j 1 2", "b RENAME j k", "a<", "b LLEN k"],
    &["a> BLPOP k 0", "b SADD s 3 1 2", "b SORT s STORE k", "a<", "b LLEN k"],
    &["a> BLPOP k 0", "b RPUSH j 1 2", "b COPY j k", "a<", "b LLEN k"],
    &["a> BZPOPMIN z 0", "b ZADD s 1 x 2 y", "b ZUNIONSTORE z 1 s", "a<", "b ZCARD z"],
    &["a> BZPOPMAX z 0", "b GEOADD z 1 2 x", "a<", "b ZCARD z"],
    // Transactions are seen as a whole.
    &["a> BLPOP k 0", "b MULTI", "b RPUSH k 1", "b LPOP k", "b EXEC", "b RPUSH k 2", "a<"],
    &["a> BLPOP k j 0", "b MULTI", "b RPUSH j 1", "b RPUSH k 2", "b EXEC", "a<", "b LLEN k"],
    &["a> BLPOP j k 0", "b MULTI", "b RPUSH k 1", "b RPUSH j 2", "b EXEC", "a<", "b LLEN j"],
    &[
        "a> BLPOP k 0",
        "b MULTI",
        "b RPUSH k 1",
        "b DEL k",
        "b SET k x",
        "b EXEC",
        "b DEL k",
        "b LPUSH k 3",
        "a<",
    ],
    // What stands before it is answered, and what stands behind it waits.
    &["a> PING;BLPOP k 0;ECHO behind;LLEN k", "a<", "b RPUSH k 1 2", "a<", "a<", "a<"],
    &["a> RPUSH j 1;BLPOP k 0;BLPOP j 0;GET nokey", "a<", "b LPUSH k 1", "a<", "a<", "a<"],
    &["a> CLIENT REPLY SKIP;BLPOP k 0;ECHO x", "b RPUSH k 1", "a<", "b EXISTS k"],
    // CLIENT UNBLOCK.
    &[
        "a> BLPOP k 0",
        "b CLIENT UNBLOCK $a",
        "a<",
        "b CLIENT UNBLOCK $a",
        "b RPUSH k 1",
        "a LLEN k",
    ],
    &["a> BLMOVE k j LEFT LEFT 0", "b CLIENT UNBLOCK $a TIMEOUT", "a<", "a PING"],
    &["a> BZPOPMIN z 0", "b CLIENT UNBLOCK $a error", "a<", "a PING"],
    &["a> BLPOP k 0;PING", "b CLIENT UNBLOCK $a ERROR", "a<", "a<", "b CLIENT UNBLOCK $a ERROR"],
    &["a> BLPOP k 0", "c> BLPOP k 0", "b CLIENT UNBLOCK $a", "a<", "b RPUSH k 1", "c<"],
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiting_clients_are_answered_as_by_redis() {
    let redis = Redis::start(&[]).await;
    let whole = Whole::start().await;
    let stories = [AT_ONCE, TIMES_UP, WRONG, IN_MULTI];
    for hello in ["HELLO 2", "HELLO 3"] {
        for steps in stories.iter().chain(WAITS) {
            // All keys in one slot here, under the same names there.
            let tagged: Vec<String> = steps.iter().map(|step| in_one_slot(step)).collect();
            let tagged: Vec<&str> = tagged.iter().map(String::as_str).collect();
            let ours = story(whole.plain, hello, &tagged).await;
            let theirs = story(redis.address, hello, &tagged).await;
            for (ours, theirs) in ours.iter().zip(&theirs) {
                assert_eq!(ours, theirs, "{hello}: {steps:?}");
            }
            assert_eq!(ours.len(), theirs.len());
        }
    }
    whole.node.shutdown().await;
}

/// The step with keys that all have one hash tag.
fn in_one_slot(step: &str) -> String {
    let key = |word: &str| matches!(word, "k" | "j" | "z" | "s" | "nokey");
    let (who, rest) = step.split_at(1);
    let part = |part: &str| {
        let words = part.split(' ');
        let words = words.map(|word| if key(word) { format!("{{t}}{word}") } else { word.into() });
        words.collect::<Vec<_>>().join(" ")
    };
    format!("{who}{}", rest.split(';').map(part).collect::<Vec<_>>().join(";"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_waited_longest_is_served_first() {
    const CLIENTS: usize = 6;
    let whole = Whole::start().await;
    let mut observer = Client::connect(whole.plain).await;
    // On a machine that is busy enough somebody may not come in time, and then another one is woken.
    for _ in 0..8 {
        let mut clients = Vec::new();
        for number in 0..CLIENTS {
            let mut client = Client::connect(whole.plain).await;
            client.send(b"BLPOP q 0\r\n").await;
            observer.until_waiting(number + 1).await;
            clients.push(client);
        }
        // Polls are renewed in another order than that in which the clients came.
        tokio::time::sleep(Duration::from_millis(1500)).await;
        let elements: Vec<String> = (0..CLIENTS).map(|number| number.to_string()).collect();
        observer.ask(&format!("RPUSH q {}", elements.join(" "))).await;
        let mut served = Vec::new();
        for client in &mut clients {
            let reply = client.reply().await;
            served.push(reply.lines().last().unwrap().to_owned());
        }
        if served == elements {
            return;
        }
        let mut all = served.clone();
        all.sort_unstable();
        assert_eq!(all, elements, "each one once");
    }
    panic!("clients are not served in the order in which they came");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_leaves_loses_nothing() {
    let whole = Whole::start().await;
    let mut observer = Client::connect(whole.plain).await;
    for round in 0..20 {
        let mut client = Client::connect(whole.plain).await;
        let line = ["BLPOP q 0", "BLMOVE q q LEFT LEFT 0", "BLPOP q 0\r\nPING\r\nPING"][round % 3];
        client.send(format!("{line}\r\n").as_bytes()).await;
        observer.until_waiting(1).await;
        drop(client);
        observer.until_waiting(0).await;
        observer.ask(&format!("RPUSH q {round}")).await;
        assert_eq!(observer.ask("LLEN q").await, ":1\r\n");
        let popped = observer.ask("LPOP q").await;
        assert!(popped.ends_with(&format!("\r\n{round}\r\n")), "{popped}");
    }
}

/// And not when its poll is renewed, which would hide that a wake-up was lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_wakes_at_once() {
    const ROUNDS: usize = 20;
    let whole = Whole::start().await;
    let mut observer = Client::connect(whole.plain).await;
    let mut client = Client::connect(whole.plain).await;
    let mut quick = 0;
    for _ in 0..ROUNDS {
        client.send(b"BLPOP q 0\r\n").await;
        observer.until_waiting(1).await;
        let began = Instant::now();
        observer.ask("RPUSH q x").await;
        client.expect("*2\r\n$1\r\nq\r\n$1\r\nx\r\n").await;
        quick += usize::from(began.elapsed() < Duration::from_millis(500));
    }
    assert!(quick > ROUNDS / 2, "{quick} of {ROUNDS}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_who_wait_get_all_that_is_pushed_each_once() {
    const CLIENTS: usize = 40;
    const ELEMENTS: usize = 400;
    let whole = Whole::start().await;
    let mut observer = Client::connect(whole.plain).await;
    let take = |address: SocketAddr, number: usize| async move {
        let mut client = Client::connect(address).await;
        let line = ["BLPOP q 5", "BRPOP nokey{q} q 5", "BLMPOP 5 1 q LEFT COUNT 2"][number % 3];
        let mut taken = Vec::new();
        loop {
            let reply = client.ask(line).await;
            if reply == "*-1\r\n" {
                return taken;
            }
            let elements = reply.lines().filter_map(|line| line.strip_prefix("e:"));
            taken.extend(elements.map(str::to_owned));
        }
    };
    let takers = (0..CLIENTS).map(|number| tokio::spawn(take(whole.plain, number)));
    let takers: Vec<_> = takers.collect();
    observer.until_waiting(CLIENTS).await;
    for number in 0..ELEMENTS / 2 {
        let pair = format!("RPUSH q e:{} e:{}", 2 * number, 2 * number + 1);
        assert!(observer.ask(&pair).await.starts_with(':'));
    }
    let mut all = Vec::new();
    for taker in takers {
        all.extend(taker.await.unwrap());
    }
    all.sort_by_key(|element| element.parse::<usize>().unwrap());
    let wanted: Vec<String> = (0..ELEMENTS).map(|number| number.to_string()).collect();
    assert_eq!(all, wanted);
    assert_eq!(observer.waiting().await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wait_takes_as_long_as_it_was_asked_for() {
    let whole = Whole::start().await;
    let mut client = Client::connect(whole.plain).await;
    for seconds in [0.05, 1.3, 2.0] {
        let began = Instant::now();
        assert_eq!(client.ask(&format!("BLPOP q {seconds}")).await, "*-1\r\n");
        let took = began.elapsed().as_secs_f64();
        assert!((seconds..seconds + 5.0).contains(&took), "{took} for {seconds}");
    }
    // What it waited is nobody's work.
    let stats = client.ask("INFO commandstats").await;
    let line = stats.lines().find(|line| line.starts_with("cmdstat_blpop:calls=3,")).unwrap();
    let usec = line.split(',').find_map(|field| field.strip_prefix("usec=")).unwrap();
    assert!(usec.parse::<u64>().unwrap() < 3_000_000, "{line}");
    let keys: Vec<String> = (0..=WAIT_KEYS_MAX).map(|key| format!("{{q}}{key}")).collect();
    let refused = client.ask(&format!("BLPOP {} 0", keys.join(" "))).await;
    assert_eq!(refused, "-ERR a command may wait for 1024 keys: name fewer\r\n");
    let crossed = client.ask("BLPOP a b 0").await;
    assert!(crossed.starts_with("-CROSSSLOT"), "{crossed}");
}
