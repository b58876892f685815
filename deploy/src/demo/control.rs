//! Commands to a running demo: their words, and the socket on which they come from elsewhere.
//!
//! One connection carries one command: a line `["kill","east-n1"]`, answered by a line
//! `{"code":0,"text":"..."}`. The socket belongs to who started the demo.

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use flotilla_chaos::wan::{Path as Wan, parse_duration, parse_rate, parse_share};
use serde::{Deserialize, Serialize};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};

/// A command or answer is a line of at most so many bytes.
const LINE_BYTES_MAX: u64 = 1 << 20;
/// Commands that wait to be carried out.
const QUEUE_MAX: usize = 64;
/// Linux takes paths of sockets up to 107 bytes.
const SOCKET_PATH_MAX: usize = 100;
/// A client that connects says at once what it wants.
const READ_PATIENCE: Duration = Duration::from_secs(10);

/// What can be done to a running demo.
#[derive(Debug, Clone, PartialEq, Subcommand)]
pub enum Verb {
    /// Change the network between two datacenters, in both directions.
    Wan {
        /// One of them.
        a: String,
        /// The other.
        b: String,
        #[command(flatten)]
        change: Change,
    },
    /// Drop what travels from one datacenter to another; the other direction stays.
    Cut {
        /// Where it comes from.
        from: String,
        /// Where it would go.
        to: String,
    },
    /// Lift all cuts.
    Heal,
    /// kill -9 of a process, or of all in a datacenter.
    Kill {
        /// Name of a process or a datacenter.
        name: String,
    },
    /// Start a process again that was killed or died, or all such in a datacenter.
    Restart {
        /// Name of a process or a datacenter.
        name: String,
    },
    /// Stop a process in its tracks (SIGSTOP).
    Pause {
        /// Name of a process or a datacenter.
        name: String,
    },
    /// Let it go on (SIGCONT).
    Resume {
        /// Name of a process or a datacenter.
        name: String,
    },
    /// Show processes, clusters, network and lag.
    Status,
    /// Stop everything and end the demo.
    #[command(visible_aliases = ["quit", "exit"])]
    Stop,
}

/// What changes in both directions; what is left out stays.
#[derive(Debug, Clone, Copy, PartialEq, Default, Args)]
pub struct Change {
    /// Round trip time, as in 150ms.
    #[arg(long, value_parser = parse_duration)]
    pub rtt: Option<Duration>,
    /// What a datagram takes longer at most, by chance, as in 10ms.
    #[arg(long, value_parser = parse_duration)]
    pub jitter: Option<Duration>,
    /// Share of datagrams that are lost, as in 1%.
    #[arg(long, value_parser = parse_share)]
    pub loss: Option<f64>,
    /// Share of datagrams that arrive behind later ones, as in 1%.
    #[arg(long, value_parser = parse_share)]
    pub reorder: Option<f64>,
    /// Share of datagrams that arrive twice, as in 1%.
    #[arg(long, value_parser = parse_share)]
    pub duplicate: Option<f64>,
    /// Share of datagrams that arrive with a bit flipped, as in 0.1%.
    #[arg(long, value_parser = parse_share)]
    pub corrupt: Option<f64>,
    /// Bandwidth in each direction, as in 100mbit, or none.
    #[arg(long, value_parser = rate)]
    pub rate: Option<Rate>,
}

impl Change {
    /// Changes one direction.
    pub fn apply(&self, path: &mut Wan) {
        path.delay = self.rtt.map_or(path.delay, |rtt| rtt / 2);
        path.jitter = self.jitter.unwrap_or(path.jitter);
        path.loss = self.loss.unwrap_or(path.loss);
        path.reorder = self.reorder.unwrap_or(path.reorder);
        path.duplicate = self.duplicate.unwrap_or(path.duplicate);
        path.corrupt = self.corrupt.unwrap_or(path.corrupt);
        path.rate = self.rate.map_or(path.rate, |rate| rate.0);
    }
}

/// Bits per second; none: no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate(pub Option<u64>);

fn rate(text: &str) -> Result<Rate, flotilla_chaos::wan::UnitError> {
    parse_rate(text).map(Rate)
}

#[derive(Debug, Parser)]
#[command(
    name = "demo",
    no_binary_name = true,
    disable_help_flag = true,
    max_term_width = 100,
    override_usage = "COMMAND [ARGUMENTS]"
)]
struct Line {
    #[command(subcommand)]
    verb: Verb,
}

/// Understands a command.
pub fn parse(words: &[String]) -> Result<Verb, Answer> {
    match Line::try_parse_from(words) {
        Ok(line) => Ok(line.verb),
        Err(error) => {
            let code = if error.use_stderr() { crate::exit::USAGE } else { 0 };
            Err(Answer { code, text: error.render().to_string() })
        }
    }
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Exit code.
    pub code: u8,
    /// For people.
    pub text: String,
}

/// A command and where its answer goes.
pub struct Order {
    /// Its words.
    pub words: Vec<String>,
    /// Takes the answer.
    pub answer: oneshot::Sender<Answer>,
}

/// Where orders are put.
pub type Orders = mpsc::Sender<Order>;

/// The queue of orders.
pub fn orders() -> (Orders, mpsc::Receiver<Order>) {
    mpsc::channel(QUEUE_MAX)
}

/// Gives an order and waits for its answer.
pub async fn give(orders: &Orders, words: Vec<String>) -> Answer {
    let (answer, answered) = oneshot::channel();
    let ended = || Answer { code: 1, text: "the demo has ended".to_owned() };
    if orders.send(Order { words, answer }).await.is_err() {
        return ended();
    }
    answered.await.unwrap_or_else(|_| ended())
}

/// The socket's place: in the demo's directory unless that makes its path too long.
pub fn socket_path(dir: &Path) -> PathBuf {
    let inside = dir.join("control");
    if inside.as_os_str().len() <= SOCKET_PATH_MAX {
        return inside;
    }
    std::env::temp_dir().join(format!("flotilla-demo-{}.control", std::process::id()))
}

/// Refuses when another demo listens there.
pub async fn refuse_running(path: &Path) -> anyhow::Result<()> {
    if UnixStream::connect(path).await.is_err() {
        return Ok(());
    }
    let shown = path.display();
    let line = format!("another demo runs in this directory (it listens on {shown})");
    Err(crate::exit::Exit::usage(line))
}

/// Listens for orders, in the place of a demo that is gone.
pub async fn listen(path: &Path, orders: Orders) -> anyhow::Result<()> {
    let shown = path.display();
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot replace {shown}"));
        }
        _ => {}
    }
    let listener = UnixListener::bind(path).with_context(|| format!("cannot listen on {shown}"))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    tokio::spawn(async move {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    tokio::spawn(serve(stream, orders.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot take commands");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    });
    Ok(())
}

async fn serve(stream: UnixStream, orders: Orders) -> Option<()> {
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    let mut read = BufReader::new(read.take(LINE_BYTES_MAX));
    tokio::time::timeout(READ_PATIENCE, read.read_line(&mut line)).await.ok()?.ok()?;
    let answer = match serde_json::from_str::<Vec<String>>(&line) {
        Ok(words) => give(&orders, words).await,
        Err(error) => Answer { code: 2, text: format!("not a list of words: {error}") },
    };
    let mut text = serde_json::to_string(&answer).ok()?;
    text.push('\n');
    write.write_all(text.as_bytes()).await.ok()
}

/// Sends a command to the demo that listens on `path`.
pub async fn send(path: &Path, words: &[String]) -> anyhow::Result<Answer> {
    let stream = UnixStream::connect(path).await.map_err(|error| {
        let line = format!("no demo listens on {}: {error}", path.display());
        crate::exit::Exit::error(crate::exit::CANNOT_CONNECT, line)
    })?;
    let (read, mut write) = stream.into_split();
    let mut line = serde_json::to_string(words)?;
    line.push('\n');
    write.write_all(line.as_bytes()).await?;
    let mut answer = String::new();
    BufReader::new(read.take(LINE_BYTES_MAX)).read_line(&mut answer).await?;
    serde_json::from_str(&answer).context("the demo ended before it answered")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn commands_are_understood_as_they_are_written() {
        let wan = parse(&words("wan east west --rtt 150ms --loss 1% --rate 100mbit")).unwrap();
        let (a, b) = ("east".to_owned(), "west".to_owned());
        let rtt = Some(Duration::from_millis(150));
        let rate = Some(Rate(Some(100_000_000)));
        let change = Change { rtt, loss: Some(0.01), rate, ..Change::default() };
        assert_eq!(wan, Verb::Wan { a: a.clone(), b: b.clone(), change });
        let line = "wan east west --jitter 10ms --reorder 1% --duplicate 2% --corrupt 0.1%";
        let Verb::Wan { change, .. } = parse(&words(line)).unwrap() else { panic!("{line}") };
        let mut path = Wan { loss: 0.25, ..Wan::default() };
        change.apply(&mut path);
        let jitter = Duration::from_millis(10);
        let expected = Wan { loss: 0.25, jitter, reorder: 0.01, duplicate: 0.02, ..path };
        assert_eq!((path, path.corrupt), (expected, 0.001));
        assert_eq!(parse(&words("cut east west")).unwrap(), Verb::Cut { from: a, to: b });
        assert_eq!(parse(&words("heal")).unwrap(), Verb::Heal);
        assert_eq!(parse(&words("quit")).unwrap(), Verb::Stop);
    }

    #[test]
    fn what_is_not_understood_is_explained() {
        for line in ["", "explode", "cut east", "wan east west --rtt 5", "kill"] {
            let answer = parse(&words(line)).unwrap_err();
            assert_eq!(answer.code, 2, "{line}: {}", answer.text);
            assert!(!answer.text.is_empty());
        }
        assert_eq!(parse(&words("help")).unwrap_err().code, 0);
    }

    #[tokio::test]
    async fn orders_come_through_the_socket_and_a_second_demo_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = socket_path(dir.path());
        let (orders, mut queue) = orders();
        listen(&path, orders).await.unwrap();
        tokio::spawn(async move {
            while let Some(order) = queue.recv().await {
                let _ = order.answer.send(Answer { code: 7, text: order.words.join("+") });
            }
        });
        let answer = send(&path, &words("kill east-n1")).await.unwrap();
        assert_eq!(answer, Answer { code: 7, text: "kill+east-n1".to_owned() });
        let refused = refuse_running(&path).await.unwrap_err().to_string();
        assert!(refused.contains("another demo"), "{refused}");
    }
}
