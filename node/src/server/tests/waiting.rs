//! What connections do while a command waits, with a backend in which nothing ever comes.

use super::*;
use crate::server::line::KEPT_BYTES_MAX;
use std::time::Instant;

#[tokio::test]
async fn who_waits_is_seen_to_wait() {
    let (_server, plain, _) = start(Fake::new(), ServerConfig::default()).await;
    let mut client = Client::connect(plain).await;
    let mut observer = Client::connect(plain).await;
    let id = client.id().await;
    client.send(b"PING\r\nBLPOP q 0\r\nGET x\r\n").await;
    client.expect("+PONG\r\n").await;
    observer.until_waiting(1).await;
    let line = observer.ask(&format!("CLIENT LIST ID {id}")).await;
    assert!(line.contains(" flags=b ") && line.contains(" cmd=blpop "), "{line}");
    assert_eq!(observer.ask(&format!("CLIENT UNBLOCK {id}")).await, ":1\r\n");
    client.expect("*-1\r\n$-1\r\n").await;
    let line = observer.ask(&format!("CLIENT LIST ID {id}")).await;
    assert!(line.contains(" flags=N "), "{line}");
    observer.until_waiting(0).await;
}

#[tokio::test]
async fn what_comes_meanwhile_is_kept_up_to_a_limit() {
    let fake = Fake::new();
    let (server, plain, _) = start(fake, ServerConfig::default()).await;
    let mut client = Client::connect(plain).await;
    let mut observer = Client::connect(plain).await;
    let id = client.id().await;
    client.send(b"BLPOP q 0\r\n").await;
    observer.until_waiting(1).await;
    // More than is kept: the rest waits in the sockets.
    let (read, mut write) = client.0.into_split();
    let set = request(&["SET", "k", &"v".repeat(1 << 20)]);
    let count = KEPT_BYTES_MAX / set.len() + 20;
    let sender = tokio::spawn(async move {
        for _ in 0..count {
            write.write_all(&set).await.unwrap();
        }
        write
    });
    let held = |text: String| {
        let held = text.lines().find_map(|line| line.strip_prefix("mem_clients_normal:"));
        held.unwrap().trim().parse::<usize>().unwrap()
    };
    let deadline = Instant::now() + PATIENCE;
    while held(observer.ask("INFO memory").await) < KEPT_BYTES_MAX - (1 << 20) {
        assert!(Instant::now() < deadline, "it reads what comes");
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(held(observer.ask("INFO memory").await) < KEPT_BYTES_MAX + (1 << 20));
    assert_eq!(observer.waiting().await, 1);
    assert_eq!(observer.ask(&format!("CLIENT UNBLOCK {id}")).await, ":1\r\n");
    let write = sender.await.unwrap();
    let mut client = Client(read.reunite(write).unwrap());
    client.expect("*-1\r\n").await;
    client.expect(&"+OK\r\n".repeat(count)).await;
    drop(client);
    until("it is gone", || server.clients() == 1).await;
}

#[tokio::test]
async fn what_comes_meanwhile_comes_off_the_budget() {
    let mut config = ServerConfig::default();
    config.limits.bulk_bytes = 300_000;
    config.limits.request_bytes = 400_000;
    config.clients_memory_max = 500_000;
    let (server, plain, _) = start(Fake::new(), config).await;
    let mut client = Client::connect(plain).await;
    let mut observer = Client::connect(plain).await;
    client.send(b"PING\r\nBLPOP q 0\r\n").await;
    client.expect("+PONG\r\n").await;
    observer.until_waiting(1).await;
    let set = request(&["SET", "k", &"v".repeat(290_000)]);
    let _ = client.0.write_all(&set.repeat(2)).await; // it may be closed before all has left
    let line = "-ERR clients of this node hold clients_memory_max bytes together, closing this one";
    client.expect(&format!("{line}\r\n")).await;
    client.expect_end().await;
    observer.until_waiting(0).await;
    until("it is gone", || server.clients() == 1).await;
}

#[tokio::test]
async fn a_server_that_stops_lets_nobody_wait() {
    let (server, plain, _) = start(Fake::new(), ServerConfig::default()).await;
    let mut clients = Vec::new();
    let mut observer = Client::connect(plain).await;
    for number in 0..3 {
        let mut client = Client::connect(plain).await;
        client.send(b"BLPOP q 0\r\nSET k v\r\n").await;
        observer.until_waiting(number + 1).await;
        clients.push(client);
    }
    let began = Instant::now();
    let ended = async {
        for client in &mut clients {
            client.expect_end().await;
        }
        observer.expect_end().await;
    };
    tokio::join!(server.shutdown(PATIENCE), ended);
    assert!(began.elapsed() < PATIENCE / 2);
    assert_eq!(server.clients(), 0);
}
