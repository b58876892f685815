//! Requests on the wire: order, pieces, garbage.

use super::super::listener::Shared;
use super::super::memory::Charge;
use super::super::session::Session;
use super::super::{connection, listener};
use super::*;
use proptest::prelude::*;
use tokio_util::sync::CancellationToken;

/// One connection over a pipe instead of a socket, fed in pieces that end at `cuts`.
async fn over_a_pipe(input: Vec<u8>, cuts: Vec<usize>) -> Vec<u8> {
    let shared = Arc::new(Shared::new(Fake::new(), ServerConfig::default()));
    let _place = listener::Place::take(&shared, Door::Plain).unwrap();
    let entered = shared.clients.enter(Door::Plain, "pipe".into(), "pipe".into());
    let session = Session::new(shared.clone(), entered.record.clone());
    let charge = Charge::new(shared.budget.clone());
    let (ours, theirs) = tokio::io::duplex(64);
    let server = connection::serve(theirs, session, charge, CancellationToken::new());
    let (mut read, mut write) = tokio::io::split(ours);
    let feed = async move {
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (input.len() + 1)).collect();
        cuts.push(input.len());
        cuts.sort_unstable();
        let mut fed = 0;
        for cut in cuts {
            // The server may have closed already: that is its answer.
            if write.write_all(&input[fed..cut]).await.is_err() {
                return;
            }
            tokio::task::yield_now().await;
            fed = cut;
        }
        let _ = write.shutdown().await;
    };
    let mut output = Vec::new();
    let take = read.read_to_end(&mut output);
    let all = async { tokio::join!(server, feed, take).2 };
    tokio::time::timeout(PATIENCE, all).await.expect("the connection ends").unwrap();
    assert_eq!(shared.budget.used(), 0);
    drop(entered);
    assert!(shared.clients.all().is_empty());
    output
}

#[tokio::test]
async fn replies_leave_in_the_order_of_requests() {
    let fake = Fake::new();
    let (_server, plain, _) = start(fake.clone(), ServerConfig::default()).await;
    let mut input = Vec::new();
    let mut expected = String::new();
    for i in 0..3000 {
        let (key, value) = (format!("k{i}"), format!("v{i}"));
        input.extend(request(&["SET", &key, &value]));
        input.extend(request(&["ECHO", &key]));
        input.extend(b"PING\r\n");
        input.extend(request(&["GET", &key]));
        input.extend(request(&["GET"]));
        expected.push_str(&format!("+OK\r\n${}\r\n{key}\r\n+PONG\r\n", key.len()));
        expected.push_str(&format!("${}\r\n{value}\r\n", value.len()));
        expected.push_str("-ERR wrong number of arguments for 'get' command\r\n");
    }
    assert_eq!(talk(plain, &input).await, expected);
    let runs = fake.runs.lock();
    assert!(runs.len() < 3000, "data commands go in runs, local ones do not cut them");
    assert!(runs.iter().all(|(_, names)| names.len() <= super::super::COMMANDS_MAX));
}

#[tokio::test]
async fn half_a_request_waits_and_the_rest_completes_it() {
    let (_server, plain, _) = start(Fake::new(), ServerConfig::default()).await;
    let mut client = Client::connect(plain).await;
    let input = request(&["SET", "key", "value"]);
    for byte in &input[..input.len() - 1] {
        client.send(&[*byte]).await;
    }
    client.send(b"\n").await;
    client.expect("+OK\r\n").await;
    client.send(b"get key\r\nPI").await;
    client.expect("$5\r\nvalue\r\n").await;
    client.send(b"NG\r\n").await;
    client.expect("+PONG\r\n").await;
}

#[tokio::test]
async fn garbage_gets_the_error_of_redis_and_closes_only_that_connection() {
    let (server, plain, _) = start(Fake::new(), ServerConfig::default()).await;
    let mut other = Client::connect(plain).await;
    other.send(b"PING\r\n").await;
    other.expect("+PONG\r\n").await;
    for (input, error) in [
        (&b"PING\r\n*abc\r\nPING\r\n"[..], "invalid multibulk length"),
        (b"PING\r\n*1\r\n*1\r\n", "expected '$', got '*'"),
        (b"PING\r\n*1\r\n$-5\r\n", "invalid bulk length"),
        (b"PING\r\nSET \"a\r\n", "unbalanced quotes in request"),
    ] {
        let expected = format!("+PONG\r\n-ERR Protocol error: {error}\r\n");
        assert_eq!(talk(plain, input).await, expected);
    }
    assert_eq!(talk(plain, b"POST / HTTP/1.1\r\nHost: x\r\n\r\nPING\r\n").await, "");
    other.send(b"PING\r\n").await;
    other.expect("+PONG\r\n").await;
    until("the others are gone", || server.clients() == 1).await;
}

#[tokio::test]
async fn quit_ends_the_pipeline() {
    let fake = Fake::new();
    let (_server, plain, _) = start(fake.clone(), ServerConfig::default()).await;
    let input = b"SET a 1\r\nQUIT\r\nSET a 2\r\n";
    assert_eq!(talk(plain, input).await, "+OK\r\n+OK\r\n");
    assert_eq!(talk(plain, b"GET a\r\n").await, "$1\r\n1\r\n");
}

#[tokio::test]
async fn client_reply_silences() {
    let (_server, plain, _) = start(Fake::new(), ServerConfig::default()).await;
    let input = b"CLIENT REPLY SKIP\r\nPING\r\nECHO a\r\nCLIENT REPLY OFF\r\nSET a 1\r\nPING\r\n\
        FOO\r\nCLIENT REPLY ON\r\nGET a\r\nCLIENT REPLY SKIP\r\nGET a\r\nPING\r\n";
    assert_eq!(talk(plain, input).await, "$1\r\na\r\n+OK\r\n$1\r\n1\r\n+PONG\r\n");
}

fn pipeline() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        Just(request(&["SET", "a", "1"])),
        Just(request(&["GET", "a"])),
        Just(request(&["MGET", "a", "b"])),
        Just(request(&["HELLO", "3"])),
        Just(request(&["HELLO", "2"])),
        Just(request(&["SELECT", "jobs"])),
        Just(request(&["RESET"])),
        Just(request(&["QUIT"])),
        Just(request(&["CLIENT", "REPLY", "SKIP"])),
        Just(request(&["HGETALL", "h"])),
        Just(b"PING\r\n".to_vec()),
        Just(b"*1\r\n$4\r\n".to_vec()),
        Just(b"\"".to_vec()),
        prop::collection::vec(any::<u8>(), 0..6),
    ];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]
    #[test]
    fn any_bytes_in_any_pieces_give_one_answer(
        input in pipeline(), cuts in prop::collection::vec(any::<usize>(), 0..10)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let whole = runtime.block_on(over_a_pipe(input.clone(), vec![]));
        let pieces = runtime.block_on(over_a_pipe(input, cuts));
        // HELLO tells the connection's id: 1, since each has a server of its own.
        prop_assert_eq!(String::from_utf8_lossy(&whole), String::from_utf8_lossy(&pieces));
    }
}

#[tokio::test]
async fn commands_over_all_groups_run_alone() {
    let fake = Fake::new();
    let (_server, plain, _) = start(fake.clone(), ServerConfig::default()).await;
    let input = b"SET a 1\r\nGET a\r\nDBSIZE\r\nSET b 2\r\nPING\r\nGET b\r\n";
    let expected = "+OK\r\n$1\r\n1\r\n:1\r\n+OK\r\n+PONG\r\n$1\r\n2\r\n";
    assert_eq!(talk(plain, input).await, expected);
    let runs: Vec<_> = fake.runs.lock().iter().map(|(_, names)| names.clone()).collect();
    assert_eq!(runs, [vec!["set", "get"], vec!["dbsize"], vec!["set", "get"]]);
}
