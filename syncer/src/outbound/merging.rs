//! The full-state merge of one group and peer, as the loop of the outgoing side sees it: at most one
//! under way, begun when the log cannot serve the peer or when an operator asks for it.

use super::Route;
use crate::link::dial::Link;
use crate::merge::send::MergeProgress;
use flotilla_topology::ids::LogId;
use futures::future::BoxFuture;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Wait after a merge that failed: whatever was in its way may take a moment to go.
const RETRY_PAUSE: Duration = Duration::from_secs(2);

/// Merges the state of a group, of which the peer has everything up to a position, over a link.
pub type Merger = Arc<
    dyn Fn(
            Route,
            Arc<Link>,
            LogId,
            watch::Sender<MergeProgress>,
        ) -> BoxFuture<'static, Result<(), String>>
        + Send
        + Sync,
>;

/// See the module.
pub struct Merging {
    merger: Merger,
    task: Option<JoinHandle<Result<(), String>>>,
    progress: watch::Receiver<MergeProgress>,
    retry_at: Instant,
    /// Which request of an operator was carried out last.
    epoch: u64,
    /// One is wanted, whatever the log can do.
    pub wanted: bool,
}

impl Merging {
    /// None under way; requests of operators up to `epoch` were carried out.
    pub fn new(merger: Merger, epoch: u64) -> Merging {
        let (_, progress) = watch::channel(MergeProgress::default());
        Merging { merger, task: None, progress, retry_at: Instant::now(), epoch, wanted: false }
    }

    /// Notes what an operator has asked for; whether that is new.
    pub fn asked(&mut self, epoch: u64) -> bool {
        let new = std::mem::replace(&mut self.epoch, epoch) != epoch;
        self.wanted |= new;
        new
    }

    /// Whether one is under way.
    pub fn is_active(&self) -> bool {
        self.task.is_some()
    }

    /// Whether one may begin now.
    pub fn is_due(&self) -> bool {
        self.task.is_none() && Instant::now() >= self.retry_at
    }

    /// When one may begin.
    pub fn retry_at(&self) -> Instant {
        self.retry_at
    }

    /// Begins one.
    pub fn begin(&mut self, route: Route, link: Arc<Link>, after: LogId) {
        let (tell, progress) = watch::channel(MergeProgress::default());
        self.progress = progress;
        self.task = Some(tokio::spawn((self.merger)(route, link, after, tell)));
    }

    /// Waits for the end of the one that is under way.
    pub async fn ended(&mut self) -> Result<(), String> {
        let Some(task) = &mut self.task else { return std::future::pending().await };
        let ended = task.await.unwrap_or_else(|error| Err(error.to_string()));
        self.task = None;
        match &ended {
            Ok(()) => self.wanted = false,
            Err(_) => self.retry_at = Instant::now() + RETRY_PAUSE,
        }
        ended
    }

    /// Gives up the one that is under way.
    pub fn stop(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
    }

    /// How far it is.
    pub fn progress(&self) -> MergeProgress {
        self.progress.borrow().clone()
    }
}

impl Drop for Merging {
    fn drop(&mut self) {
        self.stop();
    }
}
