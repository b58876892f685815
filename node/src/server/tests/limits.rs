//! Everything that a client can make grow ends at a limit, and with words.

use super::*;
use std::sync::atomic::Ordering;

#[tokio::test]
async fn too_many_clients_are_told_so() {
    let config = ServerConfig { clients_max: 2, ..ServerConfig::default() };
    let (server, plain, cluster) = start(Fake::new(), config).await;
    let mut first = Client::connect(plain).await;
    let mut second = Client::connect(cluster).await;
    for client in [&mut first, &mut second] {
        client.send(b"PING\r\n").await;
        client.expect("+PONG\r\n").await;
    }
    for address in [plain, cluster] {
        let mut third = Client::connect(address).await;
        third.expect("-ERR max number of clients reached\r\n").await;
        third.expect_end().await;
    }
    drop(first);
    until("a place is free", || server.clients() == 1).await;
    assert_eq!(talk(plain, b"PING\r\n").await, "+PONG\r\n");
}

#[tokio::test]
async fn oversized_requests_are_refused_before_they_come() {
    let mut config = ServerConfig::default();
    config.limits.bulk_bytes = 1000;
    config.limits.request_bytes = 2000;
    let (_server, plain, _) = start(Fake::new(), config).await;
    let error = "-ERR Protocol error: invalid bulk length\r\n";
    assert_eq!(talk(plain, b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1001\r\n").await, error);
    let value = "v".repeat(1000);
    let fits = request(&["SET", "k", &value]);
    assert_eq!(talk(plain, &fits).await, "+OK\r\n");
    let pair = request(&["MSET", "a", &value, "b", &value]);
    let error = "-ERR Protocol error: too big request\r\n";
    assert_eq!(talk(plain, &pair).await, error);
}

#[tokio::test]
async fn half_sent_values_come_off_one_budget() {
    let mut config = ServerConfig::default();
    config.limits.bulk_bytes = 300_000;
    config.limits.request_bytes = 400_000;
    config.clients_memory_max = 650_000;
    let (_server, plain, _) = start(Fake::new(), config).await;
    let half =
        [b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$300000\r\n".to_vec(), vec![b'v'; 290_000]].concat();
    let mut clients = Vec::new();
    for _ in 0..2 {
        let mut client = Client::connect(plain).await;
        client.send(&half).await;
        clients.push(client);
    }
    // Two have buffers of up to 378 kB each, 64 kB of them free; a third does not fit any more.
    until_held(plain, 2, 290_000).await;
    let mut third = Client::connect(plain).await;
    let _ = third.0.write_all(&half).await;
    let line = "-ERR clients of this node hold clients_memory_max bytes together, closing this one";
    third.expect(&format!("{line}\r\n")).await;
    third.expect_end().await;
    for client in &mut clients {
        client.send(&[&vec![b'v'; 10_000][..], b"\r\n"].concat()).await;
        client.expect("+OK\r\n").await;
    }
}

/// Waits until so many connections have so many bytes of an unfinished request.
async fn until_held(plain: SocketAddr, wanted: usize, bytes: usize) {
    let wait = async {
        loop {
            let info = talk(plain, b"INFO memory\r\n").await;
            let held = info.lines().find_map(|line| line.strip_prefix("mem_clients_normal:"));
            let held: usize = held.unwrap().trim().parse().unwrap();
            if held >= wanted * (bytes - 64 * 1024) {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.expect("the server reads what was sent");
}

#[tokio::test]
async fn replies_beyond_the_output_limit_close() {
    let mut config = ServerConfig { output_bytes_max: 17 << 20, ..ServerConfig::default() };
    config.limits.bulk_bytes = 1 << 20;
    let (server, plain, _) = start(Fake::new(), config).await;
    let value = "v".repeat(1 << 20);
    assert_eq!(talk(plain, &request(&["SET", "k", &value])).await, "+OK\r\n");
    let many = vec!["k"; 18];
    let words = [&["MGET"][..], &many].concat();
    let line = "-ERR the replies of this pipeline take more than output_bytes_max, closing\r\n";
    assert_eq!(talk(plain, &request(&words)).await, line);
    let fits = [&["MGET"][..], &many[..15]].concat();
    assert_eq!(talk(plain, &request(&fits)).await.len(), 5 + 15 * (value.len() + 12));
    until("they are gone", || server.clients() == 0).await;
}

/// What a pipeline asks for is not gathered before any of it is written.
#[tokio::test]
async fn large_replies_of_many_commands_are_written_as_they_come() {
    let mut config = ServerConfig { output_bytes_max: 80 << 20, ..ServerConfig::default() };
    config.limits.bulk_bytes = 1 << 20;
    let fake = Fake::new();
    let (_server, plain, _) = start(fake.clone(), config).await;
    let value = "v".repeat(1 << 20);
    assert_eq!(talk(plain, &request(&["SET", "k", &value])).await, "+OK\r\n");
    let many = request(&["GET", "k"]).repeat(150);
    assert_eq!(talk(plain, &many).await.len(), 150 * (value.len() + 12));
    let runs: Vec<usize> = fake.runs.lock().iter().map(|(_, names)| names.len()).collect();
    assert_eq!(runs[..3], [1, 8, 1], "SET, then as little is known, then as it is known: {runs:?}");
    assert_eq!(runs.iter().sum::<usize>(), 151);
}

#[tokio::test]
async fn who_does_not_read_is_not_worked_for() {
    let stall = Duration::from_millis(200);
    let config = ServerConfig { output_stall_max: stall, ..ServerConfig::default() };
    let fake = Fake::new();
    let (server, plain, _) = start(fake.clone(), config).await;
    let value = "v".repeat(1 << 20);
    assert_eq!(talk(plain, &request(&["SET", "k", &value])).await, "+OK\r\n");
    let mut deaf = Client::connect(plain).await;
    deaf.send(&request(&["GET", "k"]).repeat(300)).await;
    until("it is served", || server.clients() == 1).await;
    until("it is closed without having read", || server.clients() == 0).await;
    let served: usize = fake.runs.lock().iter().map(|(_, names)| names.len()).sum();
    assert!(served < 100, "its socket takes a few: {served}");
}

#[tokio::test]
async fn who_does_not_read_is_closed() {
    let stall = Duration::from_millis(200);
    let config = ServerConfig { output_stall_max: stall, ..ServerConfig::default() };
    let (server, plain, _) = start(Fake::new(), config).await;
    let value = "v".repeat(16 << 20);
    assert_eq!(talk(plain, &request(&["SET", "k", &value])).await, "+OK\r\n");
    let mut client = Client::connect(plain).await;
    client.send(&request(&["MGET", "k", "k", "k", "k"])).await;
    until("it is served", || server.clients() == 1).await;
    until("it is closed without having read", || server.clients() == 0).await;
}

#[tokio::test]
async fn idle_clients_are_closed_if_asked_for() {
    let idle = Duration::from_millis(100);
    let config = ServerConfig { idle_max: idle, ..ServerConfig::default() };
    let (_server, plain, _) = start(Fake::new(), config).await;
    let mut client = Client::connect(plain).await;
    client.send(b"PING\r\n").await;
    client.expect("+PONG\r\n").await;
    client.expect_end().await;
}

#[tokio::test]
async fn shutdown_finishes_what_is_under_way() {
    let fake = Fake::build(0, true);
    let (server, plain, _) = start(fake.clone(), ServerConfig::default()).await;
    let mut idle = Client::connect(plain).await;
    let mut busy = Client::connect(plain).await;
    busy.send(b"SET a 1\r\n").await;
    until("it is under way", || fake.begun.load(Ordering::Relaxed) == 1).await;
    assert_eq!(server.clients(), 2);
    let finish = async {
        idle.expect_end().await;
        fake.gate.add_permits(1);
        busy.expect("+OK\r\n").await;
        busy.expect_end().await;
    };
    tokio::join!(server.shutdown(PATIENCE), finish);
    assert_eq!(server.clients(), 0);
    assert!(TcpStream::connect(plain).await.is_err(), "the door is closed");
}
