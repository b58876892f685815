//! Limits hold, and what is not our protocol costs the sender its connection and nobody else.

use super::*;
use crate::transport::frame::{Frame, FrameReader, Sort, hello, write_one};
use bytes::BytesMut;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

#[tokio::test]
async fn calls_beyond_the_limits_wait_and_then_fail() {
    let pair = pair().await;
    let Pair { client, probe, .. } = &pair;
    echo(client, Class::Data, "connect").await.unwrap();
    let call = || client.call(Class::Data, HOLD, Bytes::from_static(b"x"), DEADLINE);
    let mut calls: Vec<_> = (0..IN_FLIGHT_CALLS_MAX).map(|_| call()).collect();
    until("all are in flight", || probe.held.lock().len() == IN_FLIGHT_CALLS_MAX).await;
    calls.extend((0..QUEUED_CALLS_MAX).map(|_| call()));
    let beyond = call().await;
    assert!(matches!(&beyond, Err(RpcError::Unreachable(why)) if why.contains("full")));
    assert_eq!(probe.held.lock().len(), IN_FLIGHT_CALLS_MAX, "the rest waits here, not there");

    let answering = async {
        while probe.calls.load(Ordering::SeqCst) < 1 + IN_FLIGHT_CALLS_MAX + QUEUED_CALLS_MAX
            || !probe.held.lock().is_empty()
        {
            let held = std::mem::take(&mut *probe.held.lock());
            held.into_iter().for_each(|reply| reply.send(Ok(Bytes::new())));
            tokio::task::yield_now().await;
        }
    };
    let (answers, ()) = tokio::join!(futures::future::join_all(calls), answering);
    assert!(answers.iter().all(Result::is_ok));
}

/// Speaks the protocol by hand, with a good certificate.
async fn by_hand(server: &Server, tls: &Tls) -> (TlsStream<TcpStream>, FrameReader) {
    let tcp = TcpStream::connect(server.local_addr()).await.unwrap();
    let connector = TlsConnector::from(tls.client());
    let mut stream = connector.connect(Tls::server_name(), tcp).await.unwrap();
    write_one(&mut stream, &Frame::plain(Sort::Hello, 0, hello(Class::Data))).await.unwrap();
    let mut reader = FrameReader::greeting();
    assert_eq!(reader.one(&mut stream).await.unwrap().sort, Sort::Welcome);
    reader.widen();
    (stream, reader)
}

fn request(id: u64, kind: u16) -> Frame {
    Frame { id, kind, sort: Sort::Request, payload: Bytes::new() }
}

#[tokio::test]
async fn a_server_with_too_much_in_hand_stops_reading() {
    let (authority, probe) = (authority(), Arc::new(Probe::default()));
    let tls = node(&authority, "a");
    let server = Server::bind("127.0.0.1:0", &tls, nodes_of_1, probe.clone()).await.unwrap();
    let (mut stream, mut reader) = by_hand(&server, &node(&authority, "b")).await;
    let extra = 10;
    for id in 0..SERVED_CALLS_MAX + extra {
        write_one(&mut stream, &request(id as u64, HOLD)).await.unwrap();
    }
    until("the limit is reached", || probe.held.lock().len() == SERVED_CALLS_MAX).await;
    // It still pings: a client that waits must not think that it is dead.
    let mut pings = 0;
    while pings < 2 {
        pings += usize::from(reader.one(&mut stream).await.unwrap().sort == Sort::Ping);
    }
    assert_eq!(probe.held.lock().len(), SERVED_CALLS_MAX);
    let held = std::mem::take(&mut *probe.held.lock());
    held.into_iter().for_each(|reply| reply.send(Ok(Bytes::new())));
    let mut answers = 0;
    while answers < SERVED_CALLS_MAX {
        answers += usize::from(reader.one(&mut stream).await.unwrap().sort == Sort::Answer);
    }
    until("the rest is read", || probe.held.lock().len() == extra).await;
}

#[tokio::test]
async fn requests_that_cross_a_goodbye_are_refused_as_undelivered() {
    let (authority, probe) = (authority(), Arc::new(Probe::default()));
    let tls = node(&authority, "a");
    let server = Server::bind("127.0.0.1:0", &tls, nodes_of_1, probe.clone()).await.unwrap();
    let (mut stream, mut reader) = by_hand(&server, &node(&authority, "b")).await;
    write_one(&mut stream, &request(1, HOLD)).await.unwrap();
    until("the request is held", || probe.held.lock().len() == 1).await;
    let closing = tokio::spawn(server.shutdown());
    while reader.one(&mut stream).await.unwrap().sort != Sort::Goodbye {}
    write_one(&mut stream, &request(2, ECHO)).await.unwrap();
    let mut next = async |sort| loop {
        let frame = reader.one(&mut stream).await.unwrap();
        if frame.sort == sort {
            return frame;
        }
    };
    let refused = next(Sort::Refusal).await;
    assert_eq!(RpcRefused::decode(&refused.payload).unwrap().code, RpcRefused::SHUTDOWN);
    probe.held.lock().pop().unwrap().send(Ok(Bytes::new()));
    assert_eq!((refused.id, next(Sort::Answer).await.id), (2, 1));
    drop(stream);
    closing.await.unwrap();
    assert_eq!(probe.calls.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn what_is_not_our_protocol_ends_the_connection() {
    let (authority, probe) = (authority(), Arc::new(Probe::default()));
    let tls = node(&authority, "a");
    let server = Server::bind("127.0.0.1:0", &tls, nodes_of_1, probe.clone()).await.unwrap();
    let client_tls = node(&authority, "b");

    let mut plain = TcpStream::connect(server.local_addr()).await.unwrap();
    plain.write_all(b"*1\r\n$4\r\nPING\r\n").await.unwrap();
    let mut rest = Vec::new();
    let _ = plain.read_to_end(&mut rest).await; // an alert, perhaps, and the end

    let too_long = ((PAYLOAD_BYTES_MAX + 100) as u32).to_be_bytes();
    let bad_sort = [0, 0, 0, 11, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1, 99];
    let too_short = [0, 0, 0, 3, 1, 2, 3];
    let answers_us = [0, 0, 0, 11, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1, Sort::Answer as u8];
    for bytes in [&too_long[..], &bad_sort, &too_short, &answers_us] {
        let (mut stream, _) = by_hand(&server, &client_tls).await;
        stream.write_all(bytes).await.unwrap();
        stream.flush().await.unwrap();
        let _ = stream.read_to_end(&mut rest).await;
    }
    assert_eq!(probe.calls.load(Ordering::SeqCst), 0);
    let client = Client::new(server.local_addr().to_string(), &client_tls, any_node());
    assert_eq!(echo(&client, Class::Data, "still here").await.unwrap(), "still here");
}

#[tokio::test]
async fn a_greeting_must_be_small_and_ours() {
    let (authority, probe) = (authority(), Arc::new(Probe::default()));
    let tls = node(&authority, "a");
    let server = Server::bind("127.0.0.1:0", &tls, nodes_of_1, probe).await.unwrap();
    let client_tls = node(&authority, "b");
    let greetings = [
        request(1, ECHO),
        Frame::plain(Sort::Hello, 0, vec![0; 1 << 20]),
        Frame::plain(Sort::Hello, 0, "flotilla\x01\x09"),
        Frame::plain(Sort::Hello, 0, "flotilla\x02\x00"),
        Frame::plain(Sort::Hello, 0, "flotilla\x01\x00more"),
    ];
    for greeting in greetings {
        let tcp = TcpStream::connect(server.local_addr()).await.unwrap();
        let connector = TlsConnector::from(client_tls.client());
        let mut stream = connector.connect(Tls::server_name(), tcp).await.unwrap();
        let _ = write_one(&mut stream, &greeting).await;
        let answer = FrameReader::greeting().one(&mut stream).await;
        assert!(answer.is_err(), "{answer:?} to {greeting:?}");
    }
}

#[tokio::test]
async fn a_peer_that_falls_silent_is_dropped() {
    let authority = authority();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let acceptor = TlsAcceptor::from(node(&authority, "a").server());
    let mute = tokio::spawn(async move {
        let (tcp, _) = listener.accept().await.unwrap();
        let mut stream = acceptor.accept(tcp).await.unwrap();
        FrameReader::greeting().one(&mut stream).await.unwrap();
        write_one(&mut stream, &Frame::plain(Sort::Welcome, 0, Bytes::new())).await.unwrap();
        (stream, listener) // kept open, and never read again
    });
    let client = Client::new(addr, &node(&authority, "b"), any_node());
    let started = Instant::now();
    let lost = echo(&client, Class::Control, "anybody there?").await;
    assert!(matches!(&lost, Err(RpcError::Lost(why)) if why.contains("silent")), "{lost:?}");
    assert!(started.elapsed() >= SILENCE_MAX);
    mute.abort();
}

#[tokio::test]
async fn a_peer_that_is_not_there_fails_calls_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    drop(listener);
    let client = Client::new(addr, &node(&authority(), "b"), any_node());
    let started = Instant::now();
    for _ in 0..100 {
        assert!(matches!(echo(&client, Class::Data, "x").await, Err(RpcError::Unreachable(_))));
    }
    assert!(started.elapsed() < DEADLINE);
}

proptest! {
    #[test]
    fn frames_survive_any_cut(payloads: Vec<Vec<u8>>, cuts: Vec<u8>) {
        let frames: Vec<Frame> = payloads.into_iter().enumerate()
            .map(|(i, payload)| Frame { id: i as u64, kind: 7, sort: Sort::Answer, payload: payload.into() })
            .collect();
        let mut wire = BytesMut::new();
        for frame in &frames {
            frame.put_head(&mut wire);
            wire.extend_from_slice(&frame.payload);
        }
        let mut reader = FrameReader::greeting();
        reader.widen();
        let mut read = Vec::new();
        let mut cuts = cuts.into_iter().chain(std::iter::repeat(255));
        while !wire.is_empty() {
            let len = (cuts.next().map_or(1, usize::from) + 1).min(wire.len());
            reader.buffer.extend_from_slice(&wire.split_to(len));
            while let Some(frame) = reader.next().unwrap() {
                read.push(frame);
            }
        }
        prop_assert_eq!(read, frames);
    }

    #[test]
    fn garbage_never_panics(bytes: Vec<u8>) {
        let mut reader = FrameReader::greeting();
        reader.buffer.extend_from_slice(&bytes);
        while let Ok(Some(_)) = reader.next() {}
        let _ = frame::read_hello(&bytes);
        let _ = RpcRefused::decode(&bytes);
    }

    #[test]
    fn refusals_survive(code: u16, message: String) {
        let refused = RpcRefused::new(code, message);
        prop_assert_eq!(RpcRefused::decode(&refused.encode()).unwrap(), refused);
    }
}
