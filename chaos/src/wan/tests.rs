//! The network as processes see it. Times are checked with medians and generous upper bounds, as
//! the machine may be busy; lower bounds are strict, since nothing may arrive early.

mod knobs;

use super::*;
use std::time::Instant;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::time::timeout;

const MS: Duration = Duration::from_millis(1);
/// Nothing that should come takes longer.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long a test watches that nothing comes.
const SILENCE: Duration = Duration::from_millis(150);

async fn tcp_echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            stream.set_nodelay(true).unwrap();
            tokio::spawn(async move {
                let (mut read, mut write) = stream.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
                let _ = write.shutdown().await;
            });
        }
    });
    address
}

async fn udp_echo() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 2048];
        while let Ok((size, from)) = socket.recv_from(&mut buffer).await {
            let _ = socket.send_to(&buffer[..size], from).await;
        }
    });
    address
}

async fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

async fn read_exact(stream: &mut TcpStream, size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    timeout(PATIENCE, stream.read_exact(&mut bytes)).await.unwrap().unwrap();
    bytes
}

async fn is_silent(stream: &mut TcpStream) -> bool {
    timeout(SILENCE, stream.read_u8()).await.is_err()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

#[tokio::test]
async fn tcp_takes_the_round_trip_time() {
    let relay = Relay::new(1).unwrap();
    let address = relay.forward_tcp("east", "west", tcp_echo().await).await.unwrap();
    relay.set_rtt("east", "west", 20 * MS);
    let dialled = Instant::now();
    let mut stream = connect(address).await;
    let mut times = Vec::new();
    for round in 0..20 {
        let sent = if round == 0 { dialled } else { Instant::now() };
        stream.write_all(b"hello").await.unwrap();
        assert_eq!(read_exact(&mut stream, 5).await, b"hello");
        let took = sent.elapsed();
        let least = if round == 0 { 40 * MS } else { 20 * MS };
        assert!(took >= least, "round {round} took only {took:?}");
        times.push(took);
    }
    let median = median(times);
    println!("tcp at rtt 20ms: median {median:?}");
    assert!(median < 26 * MS, "median {median:?} at a round trip of 20 ms");
    relay.update("east", "west", |path| path.delay = 40 * MS);
    let sent = Instant::now();
    stream.write_all(b"hello").await.unwrap();
    read_exact(&mut stream, 5).await;
    assert!(sent.elapsed() >= 50 * MS, "a longer delay must hold at once");
}

#[tokio::test]
async fn tcp_bytes_are_held_back_by_a_cut_and_flow_after_healing() {
    let relay = Relay::new(2).unwrap();
    let address = relay.forward_tcp("east", "west", tcp_echo().await).await.unwrap();
    let mut stream = connect(address).await;
    stream.write_all(b"a").await.unwrap();
    assert_eq!(read_exact(&mut stream, 1).await, b"a");

    relay.cut("east", "west");
    stream.write_all(b"b").await.unwrap();
    assert!(is_silent(&mut stream).await, "the way there is cut");
    let mut late = connect(address).await;
    late.write_all(b"x").await.unwrap();
    assert!(is_silent(&mut late).await, "new connections hang");
    relay.heal();
    assert_eq!(read_exact(&mut stream, 1).await, b"b");
    assert_eq!(read_exact(&mut late, 1).await, b"x");

    relay.cut("west", "east");
    stream.write_all(b"c").await.unwrap();
    assert!(is_silent(&mut stream).await, "the way back is cut");
    relay.heal();
    assert_eq!(read_exact(&mut stream, 1).await, b"c");
}

#[tokio::test]
async fn tcp_one_way_cut_lets_the_other_way_pass() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let relay = Relay::new(3).unwrap();
    let target = listener.local_addr().unwrap();
    let address = relay.forward_tcp("east", "west", target).await.unwrap();
    let mut near = connect(address).await;
    let (mut far, _) = timeout(PATIENCE, listener.accept()).await.unwrap().unwrap();
    // Carried once, so that the connection is up before the cut.
    far.write_all(b"0").await.unwrap();
    read_exact(&mut near, 1).await;
    relay.cut("east", "west");
    near.write_all(b"there").await.unwrap();
    far.write_all(b"back").await.unwrap();
    assert_eq!(read_exact(&mut near, 4).await, b"back");
    assert!(is_silent(&mut far).await);
    relay.heal();
    assert_eq!(read_exact(&mut far, 5).await, b"there");
}

#[tokio::test]
async fn tcp_ends_arrive_behind_the_bytes_and_refusals_are_resets() {
    let relay = Relay::new(4).unwrap();
    relay.set_rtt("east", "west", 10 * MS);
    let address = relay.forward_tcp("east", "west", tcp_echo().await).await.unwrap();
    let mut stream = connect(address).await;
    let sent = vec![7; 1 << 20];
    let (mut read, mut write) = stream.split();
    let mut received = Vec::new();
    let both = async {
        tokio::join!(read.read_to_end(&mut received), async {
            write.write_all(&sent).await.unwrap();
            write.shutdown().await.unwrap();
        })
    };
    timeout(PATIENCE, both).await.unwrap().0.unwrap();
    assert!(received == sent, "{} of {} bytes came back", received.len(), sent.len());

    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let address = relay.forward_tcp("east", "west", nobody).await.unwrap();
    let mut stream = connect(address).await;
    let end = timeout(PATIENCE, stream.read_u8()).await.unwrap();
    assert!(end.is_err(), "a refused connection must not hang");
}

#[tokio::test]
async fn tcp_keeps_to_the_rate_and_pushes_back() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let relay = Relay::new(5).unwrap();
    relay.update("east", "west", |path| path.rate = Some(40_000_000));
    let target = listener.local_addr().unwrap();
    let address = relay.forward_tcp("east", "west", target).await.unwrap();
    let mut near = connect(address).await;
    let (mut far, _) = timeout(PATIENCE, listener.accept()).await.unwrap().unwrap();
    let started = Instant::now();
    tokio::spawn(async move { near.write_all(&vec![1; 2_500_000]).await });
    read_exact(&mut far, 2_500_000).await;
    let took = started.elapsed();
    println!("2.5 MB at 40 Mbit/s: {took:?}");
    assert!(took >= 450 * MS, "half a second at 40 Mbit/s, but took {took:?}");
    assert!(took < 900 * MS, "half a second at 40 Mbit/s, but took {took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tcp_carries_a_fat_long_pipe() {
    const BYTES: usize = 256 << 20;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let relay = Relay::new(6).unwrap();
    relay.set_rtt("east", "west", 60 * MS);
    let target = listener.local_addr().unwrap();
    let address = relay.forward_tcp("east", "west", target).await.unwrap();
    let mut near = connect(address).await;
    let (mut far, _) = timeout(PATIENCE, listener.accept()).await.unwrap().unwrap();
    let started = Instant::now();
    tokio::spawn(async move {
        let block = vec![1; 1 << 20];
        for _ in 0..BYTES >> 20 {
            near.write_all(&block).await.unwrap();
        }
    });
    let (mut total, mut buffer) = (0, vec![0; 1 << 20]);
    while total < BYTES {
        total += timeout(PATIENCE, far.read(&mut buffer)).await.unwrap().unwrap();
    }
    let rate = BYTES as f64 / 1e6 / started.elapsed().as_secs_f64();
    println!("tcp at rtt 60ms: {rate:.0} MB/s");
    assert!(rate > 40.0, "{rate:.0} MB/s");
}

#[tokio::test]
async fn udp_takes_the_round_trip_time_and_knows_its_clients() {
    let relay = Relay::new(7).unwrap();
    relay.set_rtt("east", "west", 20 * MS);
    let address = relay.forward_udp("east", "west", udp_echo().await).await.unwrap();
    let (a, b) = (
        UdpSocket::bind("127.0.0.1:0").await.unwrap(),
        UdpSocket::bind("127.0.0.1:0").await.unwrap(),
    );
    let mut times = Vec::new();
    let mut buffer = [0; 64];
    for _ in 0..20 {
        let sent = Instant::now();
        a.send_to(b"from a", address).await.unwrap();
        b.send_to(b"from b", address).await.unwrap();
        let (size, _) = timeout(PATIENCE, a.recv_from(&mut buffer)).await.unwrap().unwrap();
        assert_eq!(&buffer[..size], b"from a");
        let took = sent.elapsed();
        assert!(took >= 20 * MS, "took only {took:?}");
        times.push(took);
        let (size, _) = timeout(PATIENCE, b.recv_from(&mut buffer)).await.unwrap().unwrap();
        assert_eq!(&buffer[..size], b"from b");
    }
    let median = median(times);
    println!("udp at rtt 20ms: median {median:?}");
    assert!(median < 26 * MS, "median {median:?} at a round trip of 20 ms");
}

/// Sends numbered datagrams at a pace that no buffer minds, and returns the numbers that arrived.
async fn numbered(relay: &Relay, count: u32) -> Vec<u32> {
    let sink = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = relay.forward_udp("east", "west", sink.local_addr().unwrap()).await.unwrap();
    let source = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let received = tokio::spawn(async move {
        let mut received = Vec::new();
        let mut buffer = [0; 64];
        while let Ok(Ok((4, _))) = timeout(400 * MS, sink.recv_from(&mut buffer)).await {
            received.push(u32::from_be_bytes(buffer[..4].try_into().unwrap()));
        }
        received
    });
    for number in 0..count {
        source.send_to(&number.to_be_bytes(), address).await.unwrap();
        if number % 50 == 49 {
            tokio::time::sleep(MS).await;
        }
    }
    received.await.unwrap()
}

#[tokio::test]
async fn udp_loses_as_asked_and_keeps_order() {
    let relay = Relay::new(8).unwrap();
    relay.update("east", "west", |path| *path = Path { delay: 5 * MS, loss: 0.2, ..*path });
    let received = numbered(&relay, 5000).await;
    assert!(received.is_sorted(), "a lane never reorders");
    let traffic = relay.traffic("east", "west");
    println!("udp at 20 % loss: {} of 5000 arrived, {traffic:?}", received.len());
    assert_eq!(traffic.datagrams, 5000);
    assert!((850..1150).contains(&traffic.lost), "{traffic:?}");
    assert_eq!(received.len() as u64, 5000 - traffic.lost);
}

#[tokio::test]
async fn udp_is_dropped_by_a_cut_and_beyond_the_rate() {
    let relay = Relay::new(9).unwrap();
    relay.cut("east", "west");
    assert!(numbered(&relay, 100).await.is_empty(), "a cut drops");
    assert_eq!(relay.traffic("east", "west").cut, 100);
    relay.heal();
    assert_eq!(numbered(&relay, 100).await.len(), 100, "and nothing more after healing");
    // 4 bytes at 32 kbit/s take 1 ms each: the queue of 50 ms holds some 50 of those sent at once.
    relay.update("east", "west", |path| path.rate = Some(32_000));
    let received = numbered(&relay, 400).await.len();
    let dropped = relay.traffic("east", "west").overflowed;
    println!("udp beyond the rate: {received} of 400 arrived, {dropped} dropped");
    assert!((50..200).contains(&received), "{received} arrived");
    assert_eq!(received as u64 + dropped, 400);
}

#[tokio::test]
async fn the_same_datacenter_is_not_relayed() {
    let relay = Relay::new(10).unwrap();
    let target: SocketAddr = "127.0.0.1:9".parse().unwrap();
    assert_eq!(relay.forward_tcp("east", "east", target).await.unwrap(), target);
    assert_eq!(relay.forward_udp("east", "east", target).await.unwrap(), target);
}

/// Bursts as QUIC sends them: grouped by the sender (GSO), grouped again by the kernel (GRO), one
/// fate per datagram in between.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn udp_carries_bursts_at_full_speed() {
    use quinn_udp::{RecvMeta, Transmit, UdpSocketState};
    use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
    const DATAGRAM: usize = 1200;
    const BURST: usize = 40;
    const BYTES: u64 = 128 << 20;
    // Less than the receiver's buffer, so that a busy machine loses nothing.
    const WINDOW: u64 = 1 << 20;

    let relay = Relay::new(11).unwrap();
    relay.set_rtt("east", "west", 4 * MS);
    let sink = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = relay.forward_udp("east", "west", sink.local_addr().unwrap()).await.unwrap();
    let state = UdpSocketState::new((&sink).into()).unwrap();
    let _ = state.set_recv_buffer_size((&sink).into(), 4 << 20);
    // quinn-udp makes sockets non-blocking; this test has a thread to spare.
    sink.set_nonblocking(false).unwrap();
    sink.set_read_timeout(Some(PATIENCE)).unwrap();
    let received = Arc::new(AtomicU64::new(0));
    let seen = received.clone();
    let receiver = std::thread::spawn(move || {
        let (mut buffer, mut metas, mut next) = (vec![0; 64 << 10], [RecvMeta::default()], 0u64);
        while next * (DATAGRAM as u64) < BYTES {
            let mut slices = [std::io::IoSliceMut::new(&mut buffer)];
            state.recv((&sink).into(), &mut slices, &mut metas).unwrap();
            let meta = metas[0];
            for datagram in buffer[..meta.len].chunks(meta.stride) {
                assert_eq!(datagram.len(), DATAGRAM);
                let number = u64::from_be_bytes(datagram[..8].try_into().unwrap());
                assert_eq!(number, next, "lost or out of order");
                next += 1;
            }
            seen.fetch_add(meta.len as u64, SeqCst);
        }
    });
    let source = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let state = UdpSocketState::new((&source).into()).unwrap();
    source.set_nonblocking(false).unwrap();
    let burst = BURST.min(state.max_gso_segments());
    let (started, mut number) = (Instant::now(), 0u64);
    while number * (DATAGRAM as u64) < BYTES {
        if number * DATAGRAM as u64 - received.load(SeqCst) > WINDOW {
            assert!(!receiver.is_finished(), "the receiver failed");
            tokio::time::sleep(Duration::from_micros(100)).await;
            continue;
        }
        let mut contents = vec![0; burst * DATAGRAM];
        for datagram in contents.chunks_mut(DATAGRAM) {
            datagram[..8].copy_from_slice(&number.to_be_bytes());
            number += 1;
        }
        let transmit = Transmit {
            destination: address,
            ecn: None,
            contents: &contents,
            segment_size: Some(DATAGRAM),
            src_ip: None,
        };
        state.send((&source).into(), &transmit).unwrap();
    }
    tokio::task::spawn_blocking(move || receiver.join().unwrap()).await.unwrap();
    let rate = BYTES as f64 / 1e6 / started.elapsed().as_secs_f64();
    println!("udp bursts of {burst}: {rate:.0} MB/s, {:?}", relay.traffic("east", "west"));
    assert!(rate > 20.0, "{rate:.0} MB/s");
}
