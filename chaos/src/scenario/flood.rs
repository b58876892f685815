//! `flood`: clients that send without reading, and clients that send half of huge values, against one
//! node: they are delayed, told so or closed, its memory stays within what its configuration says, and
//! everybody else is served, through the same node.

use super::Report;
use super::trial::{Settings, Trial};
use super::world::World;
use crate::checkers::Violation;
use crate::resp::{Client, Value, encode};
use crate::vitals::resident_bytes;
use crate::workload::{Pulses, text};
use flotilla_topology::slot::SlotRange;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

const INVARIANT: &str = "flood";
/// Clients that ask for large values and read none.
const GREEDY: usize = 8;
/// Clients that write small values and read nothing.
const DEAF: usize = 4;
/// Halves of what clients may hold that are sent by clients which send a huge value but for its last byte.
const HUGE_HALVES: u64 = 3;
/// Bytes of a huge value: the largest that a node takes.
const HUGE_BYTES: usize = 16 << 20;
/// Bytes of each value that is asked for.
const LARGE_BYTES: usize = 1 << 20;
/// Bytes that a flooder hands over at once.
const PIECE_BYTES: usize = 64 << 10;
/// How long others may wait meanwhile: nothing that is promised by figure, but served is not stalled.
const OTHERS_WAIT_MAX: Duration = Duration::from_secs(1);
/// Who moved nothing for so long is held back.
const HELD_BACK: Duration = Duration::from_secs(1);
/// How often memory is looked at.
const PERIOD: Duration = Duration::from_millis(50);
/// How long a line is waited for, and a command of ours.
const PATIENCE: Duration = Duration::from_secs(10);
/// Writes of each group before and behind the flood.
const WRITES: usize = 50;

/// How much of it.
#[derive(Debug, Clone, Copy)]
pub struct Flood {
    /// How long clients flood.
    pub duration: Duration,
    /// Bytes that the configuration of a node gives to caches, buffers and logs. Its memory may grow by
    /// them, and by what it says that clients may hold.
    pub memory: u64,
}

/// What a flooder does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Greedy,
    Deaf,
    Huge,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Greedy => "ask for large values and read nothing",
            Kind::Deaf => "write small values and read nothing",
            Kind::Huge => "send huge values but for the last byte",
        }
    }
}

/// How far one flooder got.
struct Progress {
    kind: Kind,
    sent: AtomicU64,
    /// When something was sent last, and how the connection ended.
    state: Mutex<(Instant, Option<String>)>,
}

impl Progress {
    fn new(kind: Kind) -> Arc<Progress> {
        let state = Mutex::new((Instant::now(), None));
        Arc::new(Progress { kind, sent: AtomicU64::new(0), state })
    }

    fn moved(&self, bytes: usize) {
        self.sent.fetch_add(bytes as u64, Relaxed);
        self.state.lock().0 = Instant::now();
    }
}

/// Floods the first node of a cluster.
pub async fn flood(world: &dyn World, seed: u64, size: &Flood, settings: &Settings) -> Report {
    let mut trial = Trial::begin(world, INVARIANT, seed, settings).await;
    let Some(cluster) = &trial.cluster_of_three() else { return trial.finish().await };
    let mut pulses = Pulses::new(format!("pulse:{}", trial.mark));
    trial.flood_one(cluster, size, &mut pulses).await;
    let ran = pulses.stop().await;
    trial.check_history(cluster, &ran).await;
    trial.finish().await
}

impl Trial<'_> {
    async fn flood_one(&mut self, cluster: &str, size: &Flood, pulses: &mut Pulses) -> Option<()> {
        let views = self.await_spread(cluster).await?;
        let address = self.addresses[cluster].first()?.clone();
        let groups: Vec<(String, SlotRange)> =
            views.into_iter().map(|group| (group.name, group.slots)).collect();
        let clients = match clients_max(&address).await {
            Ok(bytes) => bytes,
            Err(why) => {
                self.violated(why);
                return None;
            }
        };
        let huge = clients * HUGE_HALVES / 2 / HUGE_BYTES as u64 + 1;
        let large = format!("flood:{}", self.mark);
        if let Err(why) = fill(&address, &large).await {
            self.violated(why);
            return None;
        }
        pulses.start(&groups, std::slice::from_ref(&address)).await;
        self.beats(pulses, &groups, WRITES).await?;
        let rest = self.resident();
        let (began, from) = (Instant::now(), pulses.now());
        let mut flooders = JoinSet::new();
        let progress = start(&mut flooders, &address, &large, huge as usize);
        let mut most = rest.clone();
        while began.elapsed() < size.duration {
            tokio::time::sleep(PERIOD).await;
            for (name, bytes) in self.resident() {
                let one = most.entry(name).or_default();
                *one = bytes.max(*one);
            }
        }
        let told = tell_of(&progress);
        let upto = pulses.now();
        flooders.shutdown().await;
        for (line, wrong) in told {
            self.tell(line);
            if let Some(what) = wrong {
                self.violation(Violation { invariant: INVARIANT, what });
            }
        }
        let (waited, group) = pulses.beats().worst(from, upto)?;
        self.tell(format!(
            "others, through the same node, waited {waited:.1?} at most (group {group})"
        ));
        if waited > OTHERS_WAIT_MAX {
            let what = format!("others waited {waited:.1?}, more than {OTHERS_WAIT_MAX:?}");
            self.violation(Violation { invariant: INVARIANT, what });
        }
        self.tell(format!("all clients may hold {} MiB", clients >> 20));
        self.judge_memory(&rest, &most, size.memory + clients);
        self.beats(pulses, &groups, WRITES).await
    }

    /// Memory of every process.
    fn resident(&self) -> BTreeMap<String, u64> {
        let vitals = (self.world.census())();
        let each = vitals.iter().filter_map(|one| Some((one.name.clone(), resident_bytes(one)?)));
        each.collect()
    }

    fn judge_memory(
        &mut self,
        rest: &BTreeMap<String, u64>,
        most: &BTreeMap<String, u64>,
        max: u64,
    ) {
        for (name, most) in most {
            let before = rest.get(name).copied().unwrap_or_default();
            let grown = most.saturating_sub(before) >> 20;
            let (before, most) = (before >> 20, most >> 20);
            self.tell(format!("{name}: {before} MiB before, {most} MiB at most"));
            if grown > max >> 20 {
                let what = format!("{name} grew by {grown} MiB, {} are configured", max >> 20);
                self.violation(Violation { invariant: INVARIANT, what });
            }
        }
    }
}

/// Bytes that all clients of a node together may hold beyond what each has free.
async fn clients_max(address: &str) -> Result<u64, String> {
    let client = Client::connect(address, PATIENCE).await;
    let mut client = client.map_err(|error| error.to_string())?;
    let told = client.call(&["CONFIG", "GET", "maxmemory-clients"]).await;
    let number = match &told {
        Ok(Value::Array(words)) => words.get(1).and_then(Value::text),
        _ => None,
    };
    let number = number.and_then(|number| number.parse().ok());
    number.ok_or_else(|| format!("CONFIG GET maxmemory-clients: {told:?}"))
}

/// Writes the value that is asked for.
async fn fill(address: &str, key: &str) -> Result<(), String> {
    let client = Client::connect(address, PATIENCE).await;
    let mut client = client.map_err(|error| error.to_string())?;
    match client.call(&["SET", key, &text(1, LARGE_BYTES)]).await {
        Ok(Value::Simple(_)) => Ok(()),
        other => Err(format!("a value of {LARGE_BYTES} bytes: {other:?}")),
    }
}

fn start(tasks: &mut JoinSet<()>, address: &str, large: &str, huge: usize) -> Vec<Arc<Progress>> {
    let mut all = Vec::new();
    let kinds = [(Kind::Greedy, GREEDY), (Kind::Deaf, DEAF), (Kind::Huge, huge)];
    for (kind, count) in kinds {
        for number in 0..count {
            let progress = Progress::new(kind);
            all.push(progress.clone());
            let key = format!("{large}:{}:{number}", kind as u8);
            let (address, large) = (address.to_owned(), large.to_owned());
            tasks.spawn(async move {
                let end = match kind {
                    Kind::Greedy => pour(&address, &["GET", &large], &progress).await,
                    Kind::Deaf => pour(&address, &["SET", &key, "v"], &progress).await,
                    Kind::Huge => send_half(&address, &key, &progress).await,
                };
                progress.state.lock().1 = Some(end);
            });
        }
    }
    all
}

/// Sends a command again and again and reads nothing. Returns how it ended.
async fn pour(address: &str, command: &[&str], progress: &Progress) -> String {
    let mut piece = Vec::with_capacity(PIECE_BYTES);
    while piece.len() < PIECE_BYTES {
        encode(command, &mut piece);
    }
    let sent = async {
        let mut stream = TcpStream::connect(address).await?;
        loop {
            let bytes = stream.write(&piece).await?;
            progress.moved(bytes);
            // Whole commands only: what was cut off goes first.
            stream.write_all(&piece[bytes..]).await?;
            progress.moved(piece.len() - bytes);
        }
    };
    let sent: std::io::Result<()> = sent.await;
    sent.map_or_else(|error| format!("closed: {error}"), |()| String::new())
}

/// Sends a value but for its last byte, and waits for what it is told.
async fn send_half(address: &str, key: &str, progress: &Progress) -> String {
    let head = format!("*3\r\n$3\r\nSET\r\n${}\r\n{key}\r\n${HUGE_BYTES}\r\n", key.len());
    let piece = vec![b'x'; PIECE_BYTES];
    let talk = async {
        let stream = TcpStream::connect(address).await?;
        let (mut read, mut write) = stream.into_split();
        let sending = async {
            write.write_all(head.as_bytes()).await?;
            let mut left = HUGE_BYTES - 1;
            while left > 0 {
                let bytes = write.write(&piece[..left.min(PIECE_BYTES)]).await?;
                progress.moved(bytes);
                left -= bytes;
            }
            std::future::pending::<std::io::Result<()>>().await
        };
        let mut said = Vec::new();
        let listening = async {
            while !said.ends_with(b"\r\n") && read.read_buf(&mut said).await? > 0 {}
            Ok::<_, std::io::Error>(())
        };
        // Who is told something while it sends is told, whatever becomes of the sending.
        tokio::pin!(listening);
        tokio::select! {
            heard = &mut listening => heard?,
            sent = sending => {
                let last = tokio::time::timeout(PATIENCE, listening).await;
                if !matches!(last, Ok(Ok(()))) {
                    sent?;
                }
            }
        }
        Ok(String::from_utf8_lossy(&said).trim_end().to_owned())
    };
    let said: std::io::Result<String> = talk.await;
    match said {
        Ok(line) if line.is_empty() => "closed and told nothing".to_owned(),
        Ok(line) => line,
        Err(error) => format!("closed: {error}"),
    }
}

/// A line about each kind, and what is wrong with it: nobody may go on unhindered, but who writes small
/// values and is merely answered; and who holds a huge value must be told when there is no room.
fn tell_of(all: &[Arc<Progress>]) -> Vec<(String, Option<String>)> {
    let mut lines = Vec::new();
    for kind in [Kind::Greedy, Kind::Deaf, Kind::Huge] {
        let mine: Vec<&Arc<Progress>> = all.iter().filter(|one| one.kind == kind).collect();
        let sent: u64 = mine.iter().map(|one| one.sent.load(Relaxed)).sum();
        let mut ends: BTreeMap<String, usize> = BTreeMap::new();
        let (mut held, mut going) = (0, 0);
        for one in &mine {
            match &*one.state.lock() {
                (_, Some(end)) => *ends.entry(end.clone()).or_default() += 1,
                (moved, None) if moved.elapsed() >= HELD_BACK => held += 1,
                _ => going += 1,
            }
        }
        let ended: Vec<String> =
            ends.iter().map(|(end, count)| format!("{count} ended: {end}")).collect();
        let line = format!(
            "{} clients that {}: {} MiB taken, {held} held back, {going} go on; {}",
            mine.len(),
            kind.name(),
            sent >> 20,
            ended.join("; ")
        );
        let told = ends.keys().any(|end| end.starts_with("-ERR "));
        let wrong = match kind {
            Kind::Greedy if going > 0 => Some("clients that read nothing are still served"),
            Kind::Huge if !told => Some("nobody was told that clients hold too much"),
            _ => None,
        };
        lines.push((line, wrong.map(str::to_owned)));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_goes_on_and_who_is_not_told_is_found() {
        let ended = |kind, end: &str| {
            let one = Progress::new(kind);
            one.state.lock().1 = Some(end.to_owned());
            one
        };
        let fine = [ended(Kind::Greedy, "closed: broken pipe"), ended(Kind::Huge, "-ERR clients")];
        let lines = tell_of(&fine);
        assert!(lines.iter().all(|(_, wrong)| wrong.is_none()), "{lines:?}");
        assert!(lines[2].0.contains("1 ended: -ERR clients"), "{lines:?}");
        let bad = [Progress::new(Kind::Greedy), ended(Kind::Huge, "closed: reset")];
        let wrong = tell_of(&bad).into_iter().filter(|(_, wrong)| wrong.is_some()).count();
        assert_eq!(wrong, 2);
    }

    #[tokio::test]
    async fn who_sends_half_is_told_and_who_reads_nothing_is_held_back() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let progress = Progress::new(Kind::Huge);
        let serve = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut bytes = vec![0; 1 << 20];
            stream.read_exact(&mut bytes).await.unwrap();
            stream.write_all(b"-ERR too much\r\n").await.unwrap();
            stream
        };
        let (end, _stream) = tokio::join!(send_half(&address, "k", &progress), serve);
        assert_eq!(end, "-ERR too much");
        let progress = Progress::new(Kind::Greedy);
        let pouring = pour(&address, &["GET", "k"], &progress);
        assert!(tokio::time::timeout(Duration::from_secs(2), pouring).await.is_err());
        let sent = progress.sent.load(Relaxed);
        assert!(sent > 0 && progress.state.lock().0.elapsed() > Duration::from_millis(500));
    }
}
