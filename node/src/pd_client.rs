//! How nodes, syncers and the command line talk to PD: whichever one leads, wherever it is.
//!
//! The data path never waits for PD. So the map that was seen last is kept in a file, and a process
//! that starts while PD is down starts with that one. Invariants:
//! * The map that [`PdClient::watch_map`] shows never goes back to an older epoch.
//! * The file holds a complete map or is not there: it is written beside and renamed.
//! * A request may arrive twice when an answer is lost; all of PD's requests bear that.

use crate::tls::Tls;
use crate::transport::{Class, Client, Expect, RpcError, kinds};
use bytes::Bytes;
use flotilla_topology::api::{ClusterMap, PdRequest, PdResponse};
use flotilla_topology::ids::{Epoch, Role};
use parking_lot::Mutex;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::Instant;

/// One try at one PD. It answers in milliseconds, but its disk may be slow.
const TRY_DEADLINE: Duration = Duration::from_secs(3);

/// One try of a watch: PD answers after 20 s at the latest.
const WATCH_DEADLINE: Duration = Duration::from_secs(25);

/// A call goes on trying for this long, which is longer than a change of the leading PD.
const CALL_DEADLINE: Duration = Duration::from_secs(8);

/// Pause after all PDs were tried, doubled with every further round.
const PAUSE_MIN: Duration = Duration::from_millis(50);

/// Longest pause between rounds.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// PDs that are known at most, configured ones and those pointed to.
const PDS_MAX: usize = 16;

/// Largest map file that is read.
const MAP_FILE_BYTES_MAX: u64 = 64 << 20;

/// Why PD did not do it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PdError {
    /// PD says no; repeating does not help. The line says what to do.
    #[error("{0}")]
    Refused(String),
    /// No PD answered, or none leads: try again later.
    #[error("no PD serves: {0}")]
    Unavailable(String),
}

/// See the module. Clones share connections and the watch, which ends with the last of them.
#[derive(Clone)]
pub struct PdClient {
    core: Arc<Core>,
    watcher: Arc<Watcher>,
}

/// The task behind [`PdClient::watch_map`], once it was asked for.
#[derive(Default)]
struct Watcher(Mutex<Option<AbortHandle>>);

impl Drop for Watcher {
    fn drop(&mut self) {
        if let Some(task) = self.0.lock().take() {
            task.abort();
        }
    }
}

struct Core {
    tls: Tls,
    pds: Mutex<Pds>,
    map_file: Option<PathBuf>,
    map: watch::Sender<Option<Arc<ClusterMap>>>,
}

/// PDs in the order in which they are tried: who answered last comes first.
struct Pds {
    clients: Vec<Client>,
}

impl PdClient {
    /// A client of the PDs at `addrs` (`host:port` of their rpc ports). Connects when first used.
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    pub fn new(addrs: Vec<String>, tls: Tls) -> PdClient {
        let clients = addrs.into_iter().map(|addr| dial(addr, &tls)).collect();
        let core = Core {
            tls,
            pds: Mutex::new(Pds { clients }),
            map_file: None,
            map: watch::Sender::new(None),
        };
        PdClient { core: Arc::new(core), watcher: Arc::default() }
    }

    /// Keeps the last map in `file`, and begins with the one that is there. To be called before the
    /// client is cloned or used.
    ///
    /// # Panics
    /// If the client was cloned already.
    #[must_use]
    pub fn with_map_file(mut self, file: PathBuf) -> PdClient {
        let core = Arc::get_mut(&mut self.core).expect("the map file is set before cloning");
        match read_map(&file) {
            Ok(map) if map.cluster == core.tls.identity().cluster => {
                core.map.send_replace(Some(Arc::new(map)));
            }
            Ok(map) => tracing::error!(
                "{} is a map of cluster {}, not of {}: ignored",
                file.display(),
                map.cluster,
                core.tls.identity().cluster
            ),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!("cannot use the map in {}: {error}", file.display()),
        }
        core.map_file = Some(file);
        self
    }

    /// Asks PD: tries all, follows the one that leads, and goes on for some seconds.
    pub async fn call(&self, request: PdRequest) -> Result<PdResponse, PdError> {
        self.core.call(&request).await
    }

    /// The map, now and whenever it changes; `None` until the first one is known.
    pub fn watch_map(&self) -> watch::Receiver<Option<Arc<ClusterMap>>> {
        let mut task = self.watcher.0.lock();
        if task.is_none() {
            *task = Some(tokio::spawn(Arc::clone(&self.core).watch()).abort_handle());
        }
        self.core.map.subscribe()
    }

    /// The map that was seen last.
    pub fn map(&self) -> Option<Arc<ClusterMap>> {
        self.core.map.borrow().clone()
    }

    /// Epoch of the newest map that this process has seen, also before it was restarted; for
    /// [`PdRequest::RegisterNode`].
    pub fn seen_epoch(&self) -> Epoch {
        self.core.map.borrow().as_ref().map_or(Epoch(0), |map| map.epoch)
    }
}

fn dial(addr: String, tls: &Tls) -> Client {
    let expect = Expect { cluster: tls.identity().cluster, role: Role::Pd, name: None };
    Client::new(addr, tls, expect)
}

/// How one try ended.
enum Try {
    Answer(PdResponse),
    /// Try the next one, this one first next time if `Some`.
    Elsewhere(Option<String>, String),
}

impl Core {
    async fn call(&self, request: &PdRequest) -> Result<PdResponse, PdError> {
        let (class, try_deadline, deadline) = match request {
            PdRequest::WatchMap { .. } | PdRequest::WatchAssignments { .. } => {
                (Class::Bulk, WATCH_DEADLINE, WATCH_DEADLINE)
            }
            PdRequest::Status => (Class::Bulk, TRY_DEADLINE, CALL_DEADLINE),
            _ => (Class::Control, TRY_DEADLINE, CALL_DEADLINE),
        };
        let payload = serde_json::to_vec(request)
            .map_err(|error| PdError::Refused(format!("the request cannot be written: {error}")))?;
        let payload = Bytes::from(payload);
        let end = Instant::now() + deadline;
        let mut pause = PAUSE_MIN;
        let mut reason = "no address of a PD is configured".to_owned();
        loop {
            // One round: everybody who is known now, and whom they point to.
            let mut left = self.pds.lock().clients.len();
            let mut next = 0;
            while left > 0 {
                left -= 1;
                let Some(client) = self.nth(next) else { break };
                match self.try_at(&client, class, payload.clone(), try_deadline).await {
                    Try::Answer(answer) => {
                        self.prefer(client.addr());
                        return self.accept(answer);
                    }
                    Try::Elsewhere(Some(leader), why) if self.prefer(&leader) => {
                        reason = why;
                        // The leader stands first now; everybody else moved back by one.
                        if leader != client.addr() {
                            next = 0;
                        }
                    }
                    Try::Elsewhere(_, why) => {
                        reason = why;
                        next += 1;
                    }
                }
            }
            if Instant::now() + pause >= end {
                return Err(PdError::Unavailable(reason));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    async fn try_at(
        &self,
        client: &Client,
        class: Class,
        payload: Bytes,
        deadline: Duration,
    ) -> Try {
        let addr = client.addr();
        match client.call(class, kinds::PD_CALL, payload, deadline).await {
            Ok(answer) => match serde_json::from_slice(&answer) {
                Ok(PdResponse::NotLeader { leader }) => {
                    let why = match &leader {
                        Some(leader) => format!("{addr} points to {leader}"),
                        None => format!("{addr} does not lead and knows nobody who does"),
                    };
                    Try::Elsewhere(leader, why)
                }
                Ok(answer) => Try::Answer(answer),
                Err(error) => Try::Elsewhere(
                    None,
                    format!(
                        "the answer of {addr} cannot be read ({error}): is it of another version?"
                    ),
                ),
            },
            Err(RpcError::Refused(refused)) => Try::Elsewhere(None, format!("{addr}: {refused}")),
            Err(error) => Try::Elsewhere(None, format!("{addr}: {error}")),
        }
    }

    fn accept(&self, answer: PdResponse) -> Result<PdResponse, PdError> {
        match answer {
            PdResponse::Refused { reason } => Err(PdError::Refused(reason)),
            PdResponse::Map { map } => {
                self.offer(&map);
                Ok(PdResponse::Map { map })
            }
            PdResponse::Registered { map } => {
                self.offer(&map);
                Ok(PdResponse::Registered { map })
            }
            answer => Ok(answer),
        }
    }

    /// Shows a map to watchers, unless they have it or a newer one.
    fn offer(&self, map: &ClusterMap) {
        self.map.send_if_modified(|known| {
            // Revisions rise over restarts of PD too; the epoch comes first, so that a PD with an
            // old store cannot take the map back.
            let version = |map: &ClusterMap| (map.epoch, map.revision);
            let newer = known.as_ref().is_none_or(|known| version(map) > version(known));
            if newer {
                *known = Some(Arc::new(map.clone()));
            }
            newer
        });
    }

    fn nth(&self, n: usize) -> Option<Client> {
        self.pds.lock().clients.get(n).cloned()
    }

    /// Puts a PD first. One that is not known yet is added; `false` when there is no room.
    fn prefer(&self, addr: &str) -> bool {
        let mut pds = self.pds.lock();
        let client = match pds.clients.iter().position(|client| client.addr() == addr) {
            Some(0) => return true,
            Some(n) => pds.clients.remove(n),
            None if pds.clients.len() < PDS_MAX => dial(addr.to_owned(), &self.tls),
            None => return false,
        };
        pds.clients.insert(0, client);
        true
    }

    /// Keeps the map up to date for as long as a client lives.
    async fn watch(self: Arc<Self>) {
        let mut revision = 0; // of the leading PD; a file's revision is no reason to wait
        let mut kept = self.map.borrow().as_ref().map(|map| map.epoch);
        let mut serving = true;
        loop {
            match self.call(&PdRequest::WatchMap { revision }).await {
                Ok(PdResponse::Map { map }) => {
                    if !serving {
                        tracing::info!("PD serves again, map epoch {}", map.epoch);
                    }
                    serving = true;
                    self.look_back(&map);
                    revision = map.revision;
                    // What was written counts: a registration may have shown a newer map already.
                    let epoch = map.epoch;
                    if kept.is_none_or(|kept| kept < epoch) && self.keep(*map).await {
                        kept = Some(epoch);
                    }
                }
                Ok(_) => tracing::error!("PD answers a watch of the map with something else"),
                Err(error) => {
                    if serving {
                        tracing::warn!("{error}; going on with the map that is known");
                    }
                    serving = false;
                    revision = 0;
                }
            }
            if !serving {
                tokio::time::sleep(PAUSE_MAX).await;
            }
        }
    }

    /// Complains about a PD that knows less than we do.
    fn look_back(&self, map: &ClusterMap) {
        let seen = self.map.borrow().as_ref().map_or(Epoch(0), |known| known.epoch);
        if map.epoch < seen {
            tracing::error!(
                "PD's map has epoch {}, this process has seen {seen}: PD's store was lost or is an \
                 old copy, give it its store back",
                map.epoch
            );
        }
    }

    /// Writes the map to the file, if there is one. Only a change of epoch is worth it.
    async fn keep(&self, map: ClusterMap) -> bool {
        let Some(file) = self.map_file.clone() else { return false };
        let shown = file.display().to_string();
        let written = tokio::task::spawn_blocking(move || write_map(&file, &map)).await;
        match written {
            Ok(Ok(())) => true,
            Ok(Err(error)) => {
                tracing::warn!("cannot keep the map in {shown}: {error}");
                false
            }
            Err(_) => false,
        }
    }
}

fn read_map(file: &Path) -> io::Result<ClusterMap> {
    if std::fs::metadata(file)?.len() > MAP_FILE_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the file is too large"));
    }
    serde_json::from_slice(&std::fs::read(file)?).map_err(io::Error::from)
}

fn write_map(file: &Path, map: &ClusterMap) -> io::Result<()> {
    let beside = file.with_extension("new");
    let mut out = std::fs::File::create(&beside)?;
    io::Write::write_all(&mut out, &serde_json::to_vec_pretty(map)?)?;
    out.sync_all()?;
    std::fs::rename(&beside, file)?;
    match file.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => std::fs::File::open(dir)?.sync_all(),
        _ => Ok(()),
    }
}
