//! What connections answer, side by side with redis-server 7.0.

use super::*;
use crate::command::{BEYOND_REDIS, REFUSED, SUBCOMMANDS, TABLE};
use redis_protocol::resp2::{decode::decode_bytes, types::BytesFrame};
use std::collections::BTreeSet;
use std::process::{Child, Command as Process, Stdio};

/// A real Redis on a free port; it ends with this.
pub(super) struct Redis {
    child: Child,
    pub(super) address: SocketAddr,
    _dir: tempfile::TempDir,
}

impl Redis {
    pub(super) async fn start(settings: &[&str]) -> Redis {
        // Another process may take the port between our look and Redis' start: then once more.
        for _ in 0..5 {
            if let Some(redis) = Redis::try_start(settings).await {
                return redis;
            }
        }
        panic!("redis-server does not start; `apt-get install redis-server` if it is not there");
    }

    async fn try_start(settings: &[&str]) -> Option<Redis> {
        let address = std::net::TcpListener::bind("127.0.0.1:0").ok()?.local_addr().ok()?;
        let dir = tempfile::tempdir().unwrap();
        let mut process = Process::new("redis-server");
        process.args(["--port", &address.port().to_string(), "--save", "", "--bind", "127.0.0.1"]);
        process.args(["--dir", dir.path().to_str().unwrap()]).args(settings);
        let child = process.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let child = child.expect("redis-server is installed: apt-get install redis-server");
        let mut redis = Redis { child, address, _dir: dir };
        let deadline = std::time::Instant::now() + PATIENCE;
        while std::time::Instant::now() < deadline {
            if TcpStream::connect(address).await.is_ok() {
                return Some(redis);
            }
            if redis.child.try_wait().unwrap().is_some() {
                return None;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        None
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// HELLO tells versions and ids, which differ: they are left out.
fn without_identity(text: &str) -> String {
    let mut out = String::new();
    let mut skip = 0;
    for line in text.lines() {
        if skip > 0 {
            skip -= 1;
            continue;
        }
        skip = match line {
            "version" => 2,
            "id" => 1,
            _ => 0,
        };
        out.push_str(line);
        out.push('\n');
    }
    out
}

async fn same(ours: SocketAddr, theirs: SocketAddr, inputs: &[&[u8]]) {
    for input in inputs {
        let (our, their) = (talk(ours, input).await, talk(theirs, input).await);
        let shown = String::from_utf8_lossy(&input[..input.len().min(100)]);
        assert_eq!(without_identity(&our), without_identity(&their), "{shown}");
    }
}

#[tokio::test]
async fn connections_answer_as_redis() {
    let redis = Redis::start(&[]).await;
    let config = ServerConfig { limits: Default::default(), ..ServerConfig::default() };
    let config = ServerConfig {
        clients_memory_max: config.limits.request_bytes,
        output_bytes_max: config.limits.request_bytes,
        ..config
    };
    let (_server, plain, _) = start(Fake::new(), config).await;
    let long = [b"*1".to_vec(), vec![b'1'; 70_000]].concat();
    let inline = vec![b'a'; 70_000];
    let bulk = [b"*1\r\n$".to_vec(), vec![b'1'; 70_000]].concat();
    let word = [b"foo ".to_vec(), vec![b'b'; 300], b" c\r\n".to_vec()].concat();
    let words = b"foo aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa \
        bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb ccc\r\n";
    same(
        plain,
        redis.address,
        &[
            b"*-1\r\nPING\r\n",
            b"*0\r\nPING\r\n",
            b"*abc\r\n",
            b"*2147483648\r\n",
            b"*\r\n",
            b"*1\r\n+PING\r\n",
            b"*1\r\n$-1\r\n",
            b"*1\r\n$abc\r\n",
            b"*1\r\n$536870913\r\n",
            b"*1\r\n$4\r\nPINGxxPING\r\n",
            b"\r\nPING\r\n",
            b"PING \"a\r\n",
            b"*1\n$4\nPING\n",
            b"ECHO \"a\\x41b\\n\\\"\"\r\n",
            b"ECHO 'a\\'b'\r\n",
            b"ECHO \"a\"b\r\n",
            b"\"\" x\r\n",
            b"PING\n",
            b"PING\r\nPI",
            b"*00001\r\n$4\r\nPING\r\n",
            b"*+1\r\n$4\r\nPING\r\n",
            b"* 1\r\n",
            b"*1\r\n$04\r\nPING\r\n",
            b"*1\r\r\n$4\r\nPING\r\n",
            b"*1\r\n\r\n\r\n",
            &long,
            &inline,
            &bulk,
            &word,
            words,
            b"foo\r\n",
            b"foo bar baz\r\n",
            b"*2\r\n$3\r\nf\0o\r\n$3\r\na\r\n\r\n",
            b"POST x\r\n",
            b"Host: x\r\nPING\r\n",
        ],
    )
    .await;
    same(
        plain,
        redis.address,
        &[
            b"PING\r\n",
            b"PING a\r\n",
            b"PING a b\r\n",
            b"ECHO\r\n",
            b"ECHO a\r\n",
            b"ECHO a b\r\n",
            b"GET\r\n",
            b"GET nokey\r\n",
            b"DBSIZE x\r\n",
            b"QUIT\r\nPING\r\n",
            b"QUIT a b\r\n",
            b"RESET\r\n",
            b"SELECT 0\r\n",
            b"SELECT 99\r\n",
            b"SELECT\r\n",
            b"READONLY\r\n",
            b"READWRITE\r\n",
            b"CLUSTER SLOTS\r\n",
            b"CLUSTER KEYSLOT a\r\n",
            b"CLUSTER foo\r\n",
            b"CLUSTER\r\n",
            b"CLUSTER INFO x\r\n",
            b"CLUSTER KEYSLOT\r\n",
        ],
    )
    .await;
    same(
        plain,
        redis.address,
        &[
            b"HELLO\r\n",
            b"HELLO 2\r\n",
            b"HELLO 3\r\nGET nokey\r\nCLIENT GETNAME\r\n",
            b"HELLO 4\r\n",
            b"HELLO 1\r\n",
            b"HELLO x\r\n",
            b"HELLO 03\r\n",
            b"HELLO 3 foo\r\n",
            b"HELLO 3 SETNAME\r\n",
            b"HELLO 3 AUTH a\r\n",
            b"HELLO 2 SETNAME ab\r\nCLIENT GETNAME\r\nRESET\r\nCLIENT GETNAME\r\n",
            b"HELLO 3 SETNAME \"a b\"\r\nGET nokey\r\n",
            b"HELLO 3 AUTH foo bar\r\nGET nokey\r\n",
            b"HELLO 3 AUTH default x SETNAME y\r\nCLIENT GETNAME\r\n",
            b"HELLO 3\r\nHELLO 2\r\nGET nokey\r\n",
            b"AUTH\r\n",
            b"AUTH x\r\n",
            b"AUTH default x\r\n",
            b"AUTH foo x\r\n",
            b"AUTH a b c\r\n",
        ],
    )
    .await;
    same(
        plain,
        redis.address,
        &[
            b"CLIENT\r\n",
            b"CLIENT foo\r\n",
            b"CLIENT ID x\r\n",
            b"CLIENT GETNAME x\r\n",
            b"CLIENT SETNAME\r\n",
            b"CLIENT SETNAME a\r\nCLIENT GETNAME\r\n",
            b"CLIENT GETNAME\r\n",
            b"CLIENT SETNAME a\r\nCLIENT SETNAME \"\"\r\nCLIENT GETNAME\r\n",
            b"CLIENT SETNAME \"a b\"\r\n",
            b"CLIENT GETREDIR\r\n",
            b"CLIENT TRACKINGINFO\r\n",
            b"HELLO 3\r\nCLIENT TRACKINGINFO\r\n",
            b"CLIENT NO-EVICT on\r\n",
            b"CLIENT NO-EVICT x\r\n",
            b"CLIENT LIST TYPE foo\r\n",
            b"CLIENT LIST TYPE pubsub\r\n",
            b"CLIENT LIST ID a\r\n",
            b"CLIENT LIST ID\r\n",
            b"CLIENT LIST foo bar\r\n",
            b"CLIENT LIST ID 99999\r\n",
            b"CLIENT REPLY ON\r\n",
            b"CLIENT REPLY foo\r\n",
            b"CLIENT REPLY OFF\r\nPING\r\n",
            b"CLIENT REPLY SKIP\r\nPING\r\nPING\r\n",
            b"CLIENT REPLY OFF\r\nPING\r\nCLIENT REPLY ON\r\n",
            b"CLIENT REPLY OFF\r\nFOO\r\nCLIENT REPLY SKIP\r\nPING\r\nCLIENT REPLY ON\r\nPING\r\n",
            b"CLIENT REPLY SKIP\r\nCLIENT REPLY SKIP\r\nPING\r\nPING\r\n",
            b"CLIENT REPLY SKIP\r\nCLIENT REPLY ON\r\nPING\r\n",
            b"CLIENT REPLY SKIP\r\nFOO\r\nPING\r\n",
            b"CLIENT REPLY SKIP\r\nGET nokey\r\nPING\r\n",
            b"CLIENT REPLY OFF\r\nRESET\r\nPING\r\n",
            b"CONFIG\r\n",
            b"CONFIG foo\r\n",
            b"CONFIG GET\r\n",
            b"CONFIG GET nosuch save\r\n",
            b"CONFIG GET maxmemory-policy\r\n",
            b"HELLO 3\r\nCONFIG GET save\r\n",
            b"CONFIG SET nosuch 1\r\n",
            b"CONFIG SET maxmemory\r\n",
            b"CONFIG SET save \"\"\r\n",
            b"CONFIG RESETSTAT\r\n",
            b"INFO nonsense\r\n",
            b"INFO modules\r\n",
            b"COMMAND foo\r\n",
            b"COMMAND COUNT x\r\n",
            b"COMMAND GETKEYS\r\n",
            b"COMMAND GETKEYS get\r\n",
            b"COMMAND GETKEYS get a\r\n",
            b"COMMAND GETKEYS get a b\r\n",
            b"COMMAND GETKEYS ping x\r\n",
            b"COMMAND GETKEYS foo x\r\n",
            b"COMMAND GETKEYS mset a b c d\r\n",
            b"COMMAND GETKEYS sort a by {a}* store b desc\r\n",
            b"COMMAND GETKEYS georadius a 1 2 3 km count 1 storedist c\r\n",
            b"COMMAND GETKEYS georadiusbymember a m 3 km store b asc\r\n",
            b"COMMAND GETKEYS del a b\r\n",
            b"COMMAND GETKEYS object encoding a\r\n",
            b"COMMAND GETKEYS object help\r\n",
            b"COMMAND GETKEYS object encoding\r\n",
            b"COMMAND GETKEYS object foo a\r\n",
            b"COMMAND GETKEYS client id\r\n",
            b"COMMAND LIST FILTERBY PATTERN object|enc*\r\n",
            b"TIME x\r\n",
            b"COMMAND DOCS foo\r\n",
            b"COMMAND INFO foo\r\n",
            b"HELLO 3\r\nCOMMAND INFO foo\r\n",
            b"COMMAND LIST FILTERBY foo bar\r\n",
            b"COMMAND LIST FILTERBY PATTERN get\r\n",
            b"COMMAND LIST FILTERBY PATTERN GET\r\n",
            b"COMMAND LIST FILTERBY MODULE nope\r\n",
        ],
    )
    .await;
}

#[tokio::test]
async fn strangers_are_answered_as_by_redis() {
    let redis = Redis::start(&["--requirepass", "secret"]).await;
    let config = ServerConfig { requirepass: Some("secret".into()), ..ServerConfig::default() };
    let (_server, plain, _) = start(Fake::new(), config).await;
    same(
        plain,
        redis.address,
        &[
            b"PING\r\n",
            b"FOO\r\n",
            b"GET\r\n",
            b"GET a\r\n",
            b"AUTH\r\n",
            b"AUTH x\r\n",
            b"AUTH a b c\r\n",
            b"AUTH secret\r\nGET nokey\r\n",
            b"AUTH default secret\r\nPING\r\n",
            b"AUTH foo secret\r\n",
            b"AUTH secret\r\nAUTH wrong\r\nPING\r\n",
            b"HELLO 3\r\n",
            b"HELLO\r\n",
            b"HELLO 9\r\n",
            b"HELLO 3 AUTH default wrong\r\nPING\r\n",
            b"HELLO 3 AUTH default secret\r\nGET nokey\r\n",
            b"HELLO 3 SETNAME x\r\n",
            b"RESET\r\nPING\r\n",
            b"QUIT\r\n",
            b"AUTH secret\r\nRESET\r\nPING\r\n",
            b"*11\r\n",
            b"*1\r\n$16385\r\n",
            b"CLIENT ID\r\n",
            b"COMMAND COUNT\r\n",
            b"SELECT 0\r\n",
        ],
    )
    .await;
}

#[tokio::test]
async fn the_cluster_door_answers_as_redis_cluster() {
    let redis = Redis::start(&["--cluster-enabled", "yes"]).await;
    let (_server, _, cluster) = start(Fake::new(), ServerConfig::default()).await;
    same(
        cluster,
        redis.address,
        &[
            b"CLUSTER KEYSLOT foo\r\n",
            b"CLUSTER KEYSLOT {a}b\r\n",
            b"CLUSTER KEYSLOT \"\"\r\n",
            b"READONLY\r\n",
            b"READWRITE\r\n",
            b"READONLY x\r\n",
            b"CLUSTER LINKS\r\n",
            b"SELECT 0\r\n",
            b"CLUSTER foo\r\n",
            b"HELLO\r\n",
            b"CLUSTER MYID x\r\n",
        ],
    )
    .await;
}

/// The elements of an array.
fn elements(frame: &BytesFrame) -> &[BytesFrame] {
    match frame {
        BytesFrame::Array(elements) => elements,
        other => panic!("an array, not {other:?}"),
    }
}

fn text(frame: &BytesFrame) -> String {
    match frame {
        BytesFrame::BulkString(bytes) | BytesFrame::SimpleString(bytes) => {
            String::from_utf8_lossy(bytes).into_owned()
        }
        BytesFrame::Integer(value) => value.to_string(),
        other => panic!("a word, not {other:?}"),
    }
}

fn words(frame: &BytesFrame) -> Vec<String> {
    let mut words: Vec<String> = elements(frame).iter().map(text).collect();
    words.sort_unstable();
    words
}

/// In steps: of a longer answer Redis drops the end when the client has closed its side.
async fn command_info(address: SocketAddr, names: &[&str]) -> Vec<BytesFrame> {
    let mut all = Vec::new();
    for names in names.chunks(40) {
        let reply = talk(address, &request(&[&["COMMAND", "INFO"][..], names].concat())).await;
        let (frame, _) = decode_bytes(&Bytes::from(reply)).unwrap().unwrap();
        all.extend_from_slice(elements(&frame));
    }
    all
}

#[tokio::test]
async fn the_tables_are_those_of_redis() {
    let redis = Redis::start(&[]).await;
    let (_server, plain, _) = start(Fake::new(), ServerConfig::default()).await;
    let names: Vec<&str> = TABLE.iter().map(|spec| spec.name).collect();
    let subs = SUBCOMMANDS.iter().map(|sub| sub.full_name);
    let names: Vec<&str> = names.into_iter().chain(subs).collect();
    let (ours, theirs) =
        (command_info(plain, &names).await, command_info(redis.address, &names).await);
    assert_eq!(ours.len(), names.len());
    for ((our, their), name) in ours.iter().zip(&theirs).zip(&names) {
        let known = !matches!(their, BytesFrame::Null);
        assert_eq!(known, !BEYOND_REDIS.contains(name), "{name}: does Redis 7.0 know it?");
        if !known {
            continue;
        }
        let (our, their) = (elements(our), elements(their));
        for (index, what) in [(0, "name"), (1, "arity"), (3, "first"), (4, "last"), (5, "step")] {
            assert_eq!(text(&our[index]), text(&their[index]), "{what} of {name}");
        }
        assert_eq!(words(&our[2]), words(&their[2]), "flags of {name}");
        assert_eq!(words(&our[6]), words(&their[6]), "categories of {name}");
        // All but the flags of the keys, which tell apart more than COMMAND's users look at.
        let place = |entry: &[BytesFrame]| -> Vec<BytesFrame> {
            let specs = elements(&entry[8]).iter().map(elements);
            specs.flat_map(|spec| spec[spec.len() - 4..].to_vec()).collect()
        };
        assert_eq!(place(our), place(their), "key specification of {name}");
    }
}

/// Names in the answer of COMMAND LIST.
async fn names_of(address: SocketAddr) -> BTreeSet<String> {
    let reply = talk(address, &request(&["COMMAND", "LIST"])).await;
    let (frame, _) = decode_bytes(&Bytes::from(reply)).unwrap().unwrap();
    words(&frame).into_iter().collect()
}

#[tokio::test]
async fn all_of_redis_is_supported_or_refused_for_a_reason() {
    let redis = Redis::start(&[]).await;
    let (_server, plain, _) = start(Fake::new(), ServerConfig::default()).await;
    let mut ours = names_of(plain).await;
    assert!(BEYOND_REDIS.iter().all(|name| ours.remove(*name)));
    ours.extend(REFUSED.iter().flat_map(|refused| refused.names).map(|name| (*name).to_owned()));
    let theirs = names_of(redis.address).await;
    assert_eq!(ours, theirs);
    assert_eq!(theirs.len(), 366, "what README.md counts");
}
