//! What the shares and the jitter do to datagrams, as a receiver sees it.

use super::*;

const DATAGRAM: usize = 64;
const COUNT: u64 = 4000;

/// Datagrams are told apart by their eight copies of their number: one flipped bit leaves seven.
fn content(number: u64) -> [u8; DATAGRAM] {
    let mut bytes = [0; DATAGRAM];
    bytes.chunks_mut(8).for_each(|chunk| chunk.copy_from_slice(&number.to_be_bytes()));
    bytes
}

/// A datagram that arrived: its number, how many of its bits are flipped, and how long it took.
struct Arrived {
    number: u64,
    flipped: u32,
    took: Duration,
}

fn understood(bytes: &[u8], sent: &[Instant]) -> Arrived {
    assert_eq!(bytes.len(), DATAGRAM);
    let numbers = bytes.chunks(8).map(|chunk| u64::from_be_bytes(chunk.try_into().unwrap()));
    let numbers: Vec<u64> = numbers.collect();
    let number = if numbers[0] == numbers[1] { numbers[0] } else { numbers[2] };
    let expected = content(number);
    let flipped = bytes.iter().zip(expected).map(|(a, b)| (a ^ b).count_ones()).sum();
    Arrived { number, flipped, took: sent[number as usize].elapsed() }
}

/// Sends `COUNT` datagrams at a pace that no buffer minds; returns what arrived, in that order.
async fn travel(path: Path) -> (Vec<Arrived>, Traffic) {
    let relay = Relay::new(12).unwrap();
    relay.update("east", "west", |now| *now = path);
    let sink = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = relay.forward_udp("east", "west", sink.local_addr().unwrap()).await.unwrap();
    let source = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let sent = Arc::new(Mutex::new(Vec::new()));
    let times = sent.clone();
    let received = tokio::spawn(async move {
        let mut received = Vec::new();
        let mut buffer = [0; 2 * DATAGRAM];
        while let Ok(Ok((size, _))) = timeout(400 * MS, sink.recv_from(&mut buffer)).await {
            received.push(understood(&buffer[..size], &times.lock()));
        }
        received
    });
    for number in 0..COUNT {
        sent.lock().push(Instant::now());
        source.send_to(&content(number), address).await.unwrap();
        if number % 40 == 39 {
            tokio::time::sleep(MS).await;
        }
    }
    (received.await.unwrap(), relay.traffic("east", "west"))
}

fn numbers(arrived: &[Arrived]) -> Vec<u64> {
    arrived.iter().map(|one| one.number).collect()
}

#[tokio::test]
async fn at_zero_everything_arrives_once_whole_and_in_order() {
    let (arrived, traffic) = travel(Path { delay: 5 * MS, ..Path::default() }).await;
    assert_eq!(numbers(&arrived), (0..COUNT).collect::<Vec<u64>>());
    assert!(arrived.iter().all(|one| one.flipped == 0 && one.took >= 5 * MS));
    let bytes = COUNT * DATAGRAM as u64;
    assert_eq!(traffic, Traffic { bytes, datagrams: COUNT, ..Traffic::default() });
}

#[tokio::test]
async fn jitter_lets_datagrams_overtake_each_other_and_loses_none() {
    let path = Path { delay: 5 * MS, jitter: 10 * MS, ..Path::default() };
    let (arrived, _) = travel(path).await;
    let mut found = numbers(&arrived);
    let overtaken = found.windows(2).filter(|pair| pair[0] > pair[1]).count();
    assert!(overtaken > COUNT as usize / 10, "{overtaken} of {COUNT} were overtaken");
    found.sort();
    assert_eq!(found, (0..COUNT).collect::<Vec<u64>>());
    assert!(arrived.iter().all(|one| one.took >= 5 * MS), "nothing comes early");
    let later = arrived.iter().filter(|one| one.took >= 10 * MS).count();
    assert!(later > COUNT as usize / 3, "{later} of {COUNT} took half of the jitter or more");
}

#[tokio::test]
async fn some_are_held_back_behind_later_ones() {
    let (arrived, traffic) = travel(Path { reorder: 0.05, ..Path::default() }).await;
    assert!((150..250).contains(&traffic.reordered), "{traffic:?}");
    let mut found = numbers(&arrived);
    let mut highest = 0;
    let behind = found.iter().filter(|number| {
        highest = highest.max(**number);
        highest > **number
    });
    // One that nothing followed for some milliseconds is not behind anything.
    let behind = behind.count() as u64;
    assert!(behind <= traffic.reordered && behind > traffic.reordered * 8 / 10, "{behind}");
    found.sort();
    assert_eq!(found, (0..COUNT).collect::<Vec<u64>>());
}

#[tokio::test]
async fn some_come_twice_and_some_are_damaged_by_one_bit() {
    let path = Path { duplicate: 0.05, corrupt: 0.05, ..Path::default() };
    let (arrived, traffic) = travel(path).await;
    assert!((150..250).contains(&traffic.duplicated), "{traffic:?}");
    assert!((150..250).contains(&traffic.corrupted), "{traffic:?}");
    assert_eq!(arrived.len() as u64, COUNT + traffic.duplicated);
    assert!(arrived.iter().all(|one| one.flipped <= 1));
    let damaged = arrived.iter().filter(|one| one.flipped == 1).count();
    assert_eq!(damaged as u64, traffic.corrupted);
    let mut found = numbers(&arrived);
    found.sort();
    found.dedup();
    assert_eq!(found.len() as u64, COUNT, "none is lost");
}

#[tokio::test]
async fn tcp_with_jitter_is_late_and_in_order() {
    let relay = Relay::new(13).unwrap();
    let bad =
        Path { delay: 5 * MS, jitter: 20 * MS, reorder: 0.5, duplicate: 0.5, ..Path::default() };
    relay.update("east", "west", |path| *path = Path { corrupt: 0.5, loss: 0.5, ..bad });
    let address = relay.forward_tcp("east", "west", tcp_echo().await).await.unwrap();
    let mut stream = connect(address).await;
    stream.write_all(b"!").await.unwrap();
    read_exact(&mut stream, 1).await;
    let mut times = Vec::new();
    for _ in 0..40 {
        let sent = Instant::now();
        stream.write_all(b"hello").await.unwrap();
        assert_eq!(read_exact(&mut stream, 5).await, b"hello");
        times.push(sent.elapsed());
    }
    let (least, most) = (times.iter().min().unwrap(), times.iter().max().unwrap());
    assert!(*least >= 5 * MS && *most > 15 * MS, "{least:?} to {most:?}");
    // Pieces that are under way together do not overtake each other.
    let (mut read, mut write) = stream.split();
    let numbers = async {
        for number in 0..200u32 {
            write.write_all(&number.to_be_bytes()).await.unwrap();
            tokio::time::sleep(MS).await;
        }
    };
    let answers = async {
        for number in 0..200u32 {
            assert_eq!(timeout(PATIENCE, read.read_u32()).await.unwrap().unwrap(), number);
        }
    };
    tokio::join!(numbers, answers);
}
