//! What the PDs of other clusters say, for the other direction of the links.
//!
//! Asked only while somebody looks, at most once a second each, and bounded in time and size: a
//! peer that is slow or lies costs this PD nothing but the sight of it.

use super::overview::Source;
use flotilla_topology::api::{ClusterStatus, PeerCluster};
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;

/// Largest status that is taken: that of the largest cluster is a few megabytes.
const ANSWER_BYTES_MAX: u64 = 16 << 20;

/// One question, all in all.
const DEADLINE: Duration = Duration::from_secs(3);

/// Between questions.
const PAUSE: Duration = Duration::from_millis(900);

/// Somebody who opens the page waits this long for what is not known yet.
const FIRST_WAIT: Duration = Duration::from_millis(600);

/// An answer that is older is told to be old.
const OLD: Duration = Duration::from_secs(4);

/// The PDs of all other clusters.
pub(super) struct Peers {
    by_name: BTreeMap<String, Peer>,
}

struct Peer {
    wanted: Arc<Notify>,
    seen: watch::Receiver<Option<Seen>>,
    task: AbortHandle,
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What was heard last.
#[derive(Clone)]
struct Seen {
    status: Option<(Instant, Arc<ClusterStatus>)>,
    error: Option<String>,
}

impl Peers {
    pub(super) fn new(addresses: &BTreeMap<String, Vec<String>>) -> Peers {
        let peer = |addresses: &Vec<String>| {
            let wanted = Arc::new(Notify::new());
            let (sender, seen) = watch::channel(None);
            let task = tokio::spawn(look(addresses.clone(), Arc::clone(&wanted), sender));
            Peer { wanted, seen, task: task.abort_handle() }
        };
        Peers { by_name: addresses.iter().map(|(name, a)| (name.clone(), peer(a))).collect() }
    }

    /// What is known of a peer; asks for more.
    pub(super) async fn source(&self, cluster: &PeerCluster) -> Source {
        let mut source = Source {
            id: cluster.id,
            name: cluster.name.clone(),
            age_seconds: 0.0,
            error: None,
            status: None,
        };
        let Some(peer) = self.by_name.get(&cluster.name) else {
            source.error = Some(format!(
                "give the http address of its PD as peers.{} in this PD's configuration",
                cluster.name
            ));
            return source;
        };
        peer.wanted.notify_one();
        let mut seen = peer.seen.clone();
        // An error of this wait is a wait that took too long: then what is known is nothing.
        let _ = tokio::time::timeout(FIRST_WAIT, seen.wait_for(Option::is_some)).await;
        let Some(seen) = peer.seen.borrow().clone() else {
            source.error = Some("its PD has not answered yet".to_owned());
            return source;
        };
        source.error = seen.error;
        if let Some((at, status)) = seen.status {
            source.age_seconds = at.elapsed().as_secs_f64();
            if status.map.cluster != cluster.id {
                source.error = Some(format!(
                    "what answers there is the PD of cluster {}: correct peers.{}",
                    status.map.cluster, cluster.name
                ));
            } else if at.elapsed() < OLD {
                source.status = Some((*status).clone());
            }
        }
        source
    }
}

/// Asks whenever somebody wants to know.
async fn look(addresses: Vec<String>, wanted: Arc<Notify>, seen: watch::Sender<Option<Seen>>) {
    loop {
        wanted.notified().await;
        let mut next = Seen { status: None, error: Some("no address of its PD is known".into()) };
        for address in &addresses {
            match tokio::time::timeout(DEADLINE, ask(address)).await {
                Ok(Ok(status)) => {
                    let status = Some((Instant::now(), Arc::new(status)));
                    next = Seen { status, error: None };
                    break;
                }
                Ok(Err(error)) => next.error = Some(format!("its PD at {address}: {error}")),
                Err(_) => next.error = Some(format!("its PD at {address} does not answer")),
            }
        }
        if next.status.is_none() {
            next.status = seen.borrow().as_ref().and_then(|last| last.status.clone());
        }
        seen.send_replace(Some(next));
        tokio::time::sleep(PAUSE).await;
    }
}

/// `GET /api/v1/status`. HTTP/1.0, so that the answer is plain and ends with the connection.
async fn ask(address: &str) -> io::Result<ClusterStatus> {
    let mut tcp = TcpStream::connect(address).await?;
    let request = format!("GET /api/v1/status HTTP/1.0\r\nHost: {address}\r\n\r\n");
    tcp.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    tcp.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await?;
    let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n");
    let end = end.ok_or_else(|| bad("the answer is not HTTP"))?;
    let body = &answer[end + 4..];
    let head = String::from_utf8_lossy(&answer[..end]);
    match head.split_ascii_whitespace().nth(1) {
        Some("200") => serde_json::from_slice(body)
            .map_err(|_| bad("the answer cannot be read, it may be of another version")),
        Some("503") => Err(bad("it does not lead")),
        other => Err(bad(&format!("it says {}", other.unwrap_or("nothing")))),
    }
}
