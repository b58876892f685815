//! Clients and servers over loopback, with certificates made for the test.

mod authentic;
mod bounded;

use super::*;
use crate::tls::Tls;
use crate::tls::dev::{Authority, Request};
use parking_lot::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

const DEADLINE: Duration = Duration::from_secs(20);

fn identity(cluster: u8, role: Role, name: &str) -> Identity {
    Identity { cluster: ClusterId(cluster), role, name: name.to_owned() }
}

fn node(authority: &Authority, name: &str) -> Tls {
    authority.tls(identity(1, Role::Node, name)).unwrap()
}

fn authority() -> Authority {
    Authority::create("test", 1).unwrap()
}

fn any_node() -> Expect {
    Expect { cluster: ClusterId(1), role: Role::Node, name: None }
}

fn nodes_of_1(peer: &Identity) -> bool {
    peer.cluster == ClusterId(1) && peer.role == Role::Node
}

const ECHO: u16 = 900;
const HOLD: u16 = 901;
const DROP: u16 = 902;
const REFUSE: u16 = 903;
const HUGE: u16 = 904;

/// Answers by the kind of request, and remembers what came in which order.
#[derive(Default)]
struct Probe {
    seen: Mutex<Vec<Bytes>>,
    held: Mutex<Vec<ReplyTo>>,
    calls: AtomicUsize,
}

impl Service for Probe {
    fn call(&self, _peer: &Identity, kind: u16, payload: Bytes, reply: ReplyTo) {
        self.calls.fetch_add(1, Ordering::SeqCst);
        self.seen.lock().push(payload.clone());
        match kind {
            ECHO => reply.send(Ok(payload)),
            HOLD => self.held.lock().push(reply),
            DROP => drop(reply),
            HUGE => reply.send(Ok(vec![7; PAYLOAD_BYTES_MAX + 1].into())),
            _ => reply.send(Err(RpcRefused::new(77, "no"))),
        }
    }
}

struct Pair {
    probe: Arc<Probe>,
    server: Server,
    client: Client,
}

async fn pair() -> Pair {
    let authority = authority();
    let probe = Arc::new(Probe::default());
    let tls = node(&authority, "a");
    let server = Server::bind("127.0.0.1:0", &tls, nodes_of_1, probe.clone()).await.unwrap();
    let addr = server.local_addr().to_string();
    let client = Client::new(addr, &node(&authority, "b"), any_node());
    Pair { probe, server, client }
}

async fn echo(client: &Client, class: Class, text: &'static str) -> Result<Bytes, RpcError> {
    client.call(class, ECHO, Bytes::from_static(text.as_bytes()), DEADLINE).await
}

async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !is_so() {
        assert!(Instant::now() < end, "{what} did not come true in time");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn answers_come_back_on_every_class() {
    let Pair { client, server, .. } = pair().await;
    for class in Class::ALL {
        assert_eq!(echo(&client, class, "hello").await.unwrap(), "hello");
        assert!(client.is_connected(class));
    }
    server.shutdown().await;
}

#[tokio::test]
async fn requests_arrive_in_the_order_of_the_calls() {
    let pair = pair().await;
    let Pair { client, probe, .. } = &pair;
    let calls: Vec<_> = (0..5_000u32)
        .map(|i| client.call(Class::Data, ECHO, i.to_be_bytes().to_vec().into(), DEADLINE))
        .collect();
    let answers = futures::future::join_all(calls).await;
    for (i, answer) in answers.into_iter().enumerate() {
        assert_eq!(answer.unwrap(), (i as u32).to_be_bytes()[..]);
    }
    let seen = probe.seen.lock();
    assert!(seen.iter().enumerate().all(|(i, payload)| payload[..] == (i as u32).to_be_bytes()));
}

#[tokio::test]
async fn large_and_small_payloads_mix() {
    let pair = pair().await;
    let Pair { client, .. } = &pair;
    let sizes = [0, 1, 16 << 10, (16 << 10) + 1, 300_000, 5, 9 << 20, 64 << 10, 40 << 20, 3];
    let calls: Vec<_> = sizes
        .iter()
        .map(|&size| client.call(Class::Bulk, ECHO, vec![size as u8; size].into(), DEADLINE))
        .collect();
    for (answer, size) in futures::future::join_all(calls).await.into_iter().zip(sizes) {
        let answer = answer.unwrap();
        assert!(answer.len() == size && answer.iter().all(|&byte| byte == size as u8));
    }
}

#[tokio::test]
async fn refusals_and_dropped_replies_are_told() {
    let pair = pair().await;
    let Pair { client, .. } = &pair;
    let call = |kind| client.call(Class::Forward, kind, Bytes::new(), DEADLINE);
    assert_eq!(call(REFUSE).await, Err(RpcRefused::new(77, "no").into()));
    // The service saw these and may have acted on them.
    assert!(matches!(call(DROP).await, Err(RpcError::Lost(why)) if why.contains("dropped")));
    assert!(matches!(call(HUGE).await, Err(RpcError::Lost(why)) if why.contains("too large")));
    let huge = vec![0; PAYLOAD_BYTES_MAX + 1].into();
    let huge = client.call(Class::Forward, ECHO, huge, DEADLINE).await;
    assert!(matches!(huge, Err(RpcError::Refused(no)) if no.code == RpcRefused::TOO_LARGE));
}

#[tokio::test]
async fn outcomes_tell_what_is_known() {
    let Pair { client, probe, server } = pair().await;
    let short = client.call(Class::Data, HOLD, Bytes::new(), Duration::from_millis(200));
    assert_eq!(short.await, Err(RpcError::Timeout));
    let held = client.call(Class::Data, HOLD, Bytes::new(), DEADLINE);
    until("the request is held", || probe.held.lock().len() == 2).await;
    drop(server); // without a goodbye: as if the process died
    assert!(matches!(held.await, Err(RpcError::Lost(_))));
    // The port is closed by now or soon; either way nothing is delivered any more.
    until("the connection is gone", || !client.is_connected(Class::Data)).await;
    assert!(matches!(echo(&client, Class::Data, "x").await, Err(RpcError::Unreachable(_))));
    assert_eq!(probe.calls.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_call_that_was_given_up_is_not_sent() {
    let pair = pair().await;
    let Pair { client, probe, .. } = &pair;
    // Nothing was dialed yet, so all of these wait in the queue.
    let given_up = client.call(Class::Data, ECHO, Bytes::from_static(b"given up"), DEADLINE);
    let late = client.call(Class::Data, ECHO, Bytes::from_static(b"late"), Duration::ZERO);
    drop(given_up);
    assert!(matches!(late.await, Err(RpcError::Unreachable(_))));
    echo(client, Class::Data, "kept").await.unwrap();
    assert_eq!(*probe.seen.lock(), ["kept"]);
}

#[tokio::test]
async fn a_restarted_server_is_found_again() {
    let authority = authority();
    let (tls, probe) = (node(&authority, "a"), Arc::new(Probe::default()));
    let server = Server::bind("127.0.0.1:0", &tls, nodes_of_1, probe.clone()).await.unwrap();
    let addr = server.local_addr();
    let client = Client::new(addr.to_string(), &node(&authority, "b"), any_node());
    echo(&client, Class::Control, "1").await.unwrap();
    server.shutdown().await;
    assert!(matches!(echo(&client, Class::Control, "2").await, Err(RpcError::Unreachable(_))));
    let _server = Server::bind(addr, &tls, nodes_of_1, probe.clone()).await.unwrap();
    let end = Instant::now() + DEADLINE;
    while let Err(error) = echo(&client, Class::Control, "3").await {
        assert!(matches!(error, RpcError::Unreachable(_)) && Instant::now() < end, "{error}");
        tokio::time::sleep(RECONNECT_MIN).await;
    }
}

#[tokio::test]
async fn who_is_reached_by_one_class_is_dialed_by_all() {
    let authority = authority();
    let (tls, probe) = (node(&authority, "a"), Arc::new(Probe::default()));
    let server = Server::bind("127.0.0.1:0", &tls, nodes_of_1, probe.clone()).await.unwrap();
    let addr = server.local_addr();
    server.shutdown().await;
    let client = Client::new(addr.to_string(), &node(&authority, "b"), any_node());
    // Until the control connection would wait for longer than the other one needs.
    let mut dials = 0;
    while dials < 5 {
        let start = Instant::now();
        assert!(matches!(echo(&client, Class::Control, "1").await, Err(RpcError::Unreachable(_))));
        dials += 1;
        let wait = RECONNECT_MIN * 2u32.pow(dials - 1);
        if dials < 5 {
            tokio::time::sleep_until((start + wait + RECONNECT_MIN).into()).await;
        }
    }
    let _server = Server::bind(addr, &tls, nodes_of_1, probe.clone()).await.unwrap();
    assert!(matches!(echo(&client, Class::Control, "2").await, Err(RpcError::Unreachable(_))));
    echo(&client, Class::Data, "3").await.unwrap();
    echo(&client, Class::Control, "4").await.unwrap();
}

#[tokio::test]
async fn a_shutdown_delivers_what_is_owed() {
    let Pair { client, probe, server } = pair().await;
    let held = client.call(Class::Forward, HOLD, Bytes::new(), DEADLINE);
    until("the request is held", || probe.held.lock().len() == 1).await;
    let closing = tokio::spawn(server.shutdown());
    until("the client knows", || !client.is_connected(Class::Forward)).await;
    assert!(matches!(echo(&client, Class::Forward, "x").await, Err(RpcError::Unreachable(_))));
    probe.held.lock().pop().unwrap().send(Ok("at last".into()));
    assert_eq!(held.await.unwrap(), "at last");
    closing.await.unwrap();
    assert_eq!(probe.calls.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_shutdown_does_not_wait_for_ever() {
    let Pair { client, probe, server } = pair().await;
    let held = client.call(Class::Forward, HOLD, Bytes::new(), DEADLINE);
    until("the request is held", || probe.held.lock().len() == 1).await;
    server.shutdown().await;
    assert!(matches!(held.await, Err(RpcError::Lost(_))));
    probe.held.lock().pop().unwrap().send(Ok("too late".into())); // harmless
}

#[tokio::test]
async fn connections_close_with_the_last_clone() {
    let Pair { client, server, .. } = pair().await;
    let clone = client.clone();
    drop(client);
    let waiting = clone.call(Class::Data, ECHO, Bytes::from_static(b"1"), DEADLINE);
    drop(clone);
    assert_eq!(waiting.await.unwrap(), "1", "a call keeps its connection");
    until("only the accepting task is left", || server.tasks.len() == 1).await;
}

#[tokio::test]
async fn pings_tell_distance_and_clock() {
    let pair = pair().await;
    assert_eq!(pair.client.clock(), None);
    echo(&pair.client, Class::Control, "x").await.unwrap();
    until("a ping is answered", || pair.client.clock().is_some()).await;
    let clock = pair.client.clock().unwrap();
    assert!(clock.rtt < DEADLINE && clock.offset_ms.unsigned_abs() <= 20_000, "{clock:?}");
}

#[tokio::test]
async fn a_local_reply_needs_no_connection() {
    let (reply, answer) = ReplyTo::local();
    let peer = identity(1, Role::Node, "me");
    Probe::default().call(&peer, ECHO, Bytes::from_static(b"x"), reply);
    assert_eq!(answer.await.unwrap().unwrap(), "x");
    let (reply, answer) = ReplyTo::local();
    drop(reply);
    assert_eq!(answer.await.unwrap().unwrap_err().code, RpcRefused::DROPPED);
}
