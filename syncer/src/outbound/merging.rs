//! The full-state merge of one group and peer, as the loop of the outgoing side sees it: at most one
//! under way, begun when the log cannot serve the peer or when an operator asks for it.
//!
//! What operators ask for is numbered (`PeerCluster::merge_epoch`). Which of it is done is written into
//! the group, with the peer's floor, before the merge counts as ended: so a syncer that dies before that,
//! or a tenure that ends, leaves the rest to the next one.

use super::Route;
use crate::link::dial::Link;
use crate::merge::send::MergeProgress;
use flotilla_topology::ids::LogId;
use futures::future::BoxFuture;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Wait after a merge that failed: whatever was in its way may take a moment to go.
const RETRY_PAUSE: Duration = Duration::from_secs(2);

/// Merges the state of a group, of which the peer has everything up to a position, over a link; then
/// has the group remember which request that was.
pub type Merger = Arc<
    dyn Fn(
            Route,
            Arc<Link>,
            LogId,
            u64,
            watch::Sender<MergeProgress>,
        ) -> BoxFuture<'static, Result<(), String>>
        + Send
        + Sync,
>;

/// How one group is merged into its peers, and how many such merges are under way.
#[derive(Clone)]
pub struct Merges {
    merger: Merger,
    under_way: Arc<AtomicUsize>,
}

impl Merges {
    /// None under way.
    pub fn new(merger: Merger) -> Merges {
        Merges { merger, under_way: Arc::default() }
    }

    /// Whether one is under way, to whatever peer.
    pub fn any(&self) -> bool {
        self.under_way.load(Ordering::Relaxed) > 0
    }

    fn begin(&self) -> UnderWay {
        self.under_way.fetch_add(1, Ordering::Relaxed);
        UnderWay(Arc::clone(&self.under_way))
    }
}

/// Counts one merge.
struct UnderWay(Arc<AtomicUsize>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// See the module.
pub struct Merging {
    merges: Merges,
    task: Option<(JoinHandle<Result<(), String>>, UnderWay)>,
    progress: watch::Receiver<MergeProgress>,
    retry_at: Instant,
    /// What an operator asked for last.
    asked: u64,
    /// What the one that is under way was begun for.
    carries: u64,
    /// Which request was carried out last.
    done: u64,
    /// One is wanted, whatever the log can do and nobody asked.
    needed: bool,
}

impl Merging {
    /// None under way; what an operator asked for last is `asked`, and `done` was carried out.
    pub fn new(merges: Merges, asked: u64, done: u64) -> Merging {
        let (_, progress) = watch::channel(MergeProgress::default());
        Merging {
            merges,
            task: None,
            progress,
            retry_at: Instant::now(),
            asked,
            carries: done,
            done,
            needed: false,
        }
    }

    /// Notes what an operator has asked for; whether that is new.
    pub fn asked(&mut self, epoch: u64) -> bool {
        std::mem::replace(&mut self.asked, epoch) != epoch
    }

    /// One is needed, though nobody asked for it.
    pub fn need(&mut self) {
        self.needed = true;
    }

    /// Whether one is wanted, whatever the log can do.
    pub fn is_wanted(&self) -> bool {
        self.needed || self.asked != self.done
    }

    /// Whether one is under way to any peer.
    pub fn any_active(&self) -> bool {
        self.merges.any()
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
        self.carries = self.asked;
        let merge = (self.merges.merger)(route, link, after, self.carries, tell);
        self.task = Some((tokio::spawn(merge), self.merges.begin()));
    }

    /// Waits for the end of the one that is under way.
    pub async fn ended(&mut self) -> Result<(), String> {
        let Some((task, _)) = &mut self.task else { return std::future::pending().await };
        let ended = task.await.unwrap_or_else(|error| Err(error.to_string()));
        self.task = None;
        match &ended {
            Ok(()) => {
                self.needed = false;
                self.done = self.carries;
            }
            Err(_) => self.retry_at = Instant::now() + RETRY_PAUSE,
        }
        ended
    }

    /// Gives up the one that is under way.
    pub fn stop(&mut self) {
        if let Some((task, _)) = self.task.take() {
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
