//! Runs the state: takes requests one at a time, stores what changed, and only then answers and
//! publishes. The only writer of the store.
//!
//! Invariants:
//! * What was not stored is neither answered nor published.
//! * While this PD does not lead, nothing is published and every request is answered by
//!   [`PdResponse::NotLeader`].

use crate::state::durable::LoadError;
use crate::state::{Assigned, Input, Settings, State};
use crate::store::{Reign, Store, StoreError};
use bytes::Bytes;
use flotilla_topology::api::{ClusterMap, PdRequest, PdResponse};
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

/// Requests that wait for the driver. Heartbeats of the largest cluster for some seconds; more is
/// refused, and those who asked try again.
const REQUESTS_MAX: usize = 1_024;

/// How often time is noticed: a small part of the silence that counts.
const TICK: Duration = Duration::from_millis(100);

/// While PD waits for its disk or does not run at all it hears nobody: between two steps no more
/// time than this passes for the state, so that PD's own silence is not taken for others'.
const STEP_MAX: Duration = Duration::from_millis(250);

/// After a reign that ended in trouble, before the next campaign: a store that is reachable and yet
/// cannot be used must not be asked in a tight loop.
const REST: Duration = Duration::from_millis(500);

/// How often troubles are counted for metrics, which looks at every group.
const MEASURE: Duration = Duration::from_secs(1);

/// Why PD cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Fatal {
    /// The store is not usable.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store holds something that this PD must not touch.
    #[error(transparent)]
    Load(#[from] LoadError),
}

/// What watchers see of a state.
pub struct View {
    /// The map.
    pub map: Arc<ClusterMap>,
    /// Assignments of all syncers.
    pub assigned: Arc<BTreeMap<String, Assigned>>,
    answer: OnceLock<Bytes>,
}

impl View {
    fn of(state: &State) -> View {
        View {
            map: Arc::clone(state.map()),
            assigned: Arc::clone(state.assigned()),
            answer: OnceLock::new(),
        }
    }

    /// The answer to those who watch the map, encoded once for all of them.
    pub fn map_answer(&self) -> Bytes {
        let encode = || encode(&PdResponse::Map { map: Box::new((*self.map).clone()) });
        self.answer.get_or_init(encode).clone()
    }
}

/// An answer as it travels.
pub fn encode(answer: &PdResponse) -> Bytes {
    // Answers are plain structs with text keys: writing them as JSON into memory cannot fail.
    Bytes::from(serde_json::to_vec(answer).expect("answers are always valid JSON"))
}

type Asked = (PdRequest, oneshot::Sender<PdResponse>);

/// Where requests are handed in and views are seen. Cheap to clone.
#[derive(Clone)]
pub struct Door {
    requests: mpsc::Sender<Asked>,
    view: watch::Receiver<Option<Arc<View>>>,
    store: Arc<dyn Store>,
}

impl Door {
    /// The present view, `None` while this PD does not lead.
    pub fn view(&self) -> Option<Arc<View>> {
        self.view.borrow().clone()
    }

    /// Wakes with every change of the view.
    pub fn watch(&self) -> watch::Receiver<Option<Arc<View>>> {
        self.view.clone()
    }

    /// Answers while this PD does not lead.
    pub fn not_leader(&self) -> PdResponse {
        PdResponse::NotLeader { leader: self.store.leader() }
    }

    /// Asks anything but watches. `None` when too many wait.
    pub async fn ask(&self, request: PdRequest) -> Option<PdResponse> {
        if self.view.borrow().is_none() {
            return Some(self.not_leader());
        }
        let (reply, answer) = oneshot::channel();
        self.requests.try_send((request, reply)).ok()?;
        Some(answer.await.unwrap_or_else(|_| self.not_leader()))
    }
}

/// See the module.
pub struct Driver {
    settings: Settings,
    store: Arc<dyn Store>,
    requests: mpsc::Receiver<Asked>,
    view: watch::Sender<Option<Arc<View>>>,
    listened: Listened,
    stop: CancellationToken,
}

/// The time for which PD has listened, see [`STEP_MAX`].
struct Listened {
    at: Instant,
    total: Duration,
}

impl Listened {
    fn new(now: Instant) -> Listened {
        Listened { at: now, total: Duration::ZERO }
    }

    fn ms(&mut self, now: Instant) -> u64 {
        self.total += now.saturating_duration_since(self.at).min(STEP_MAX);
        self.at = now;
        u64::try_from(self.total.as_millis()).unwrap_or(u64::MAX)
    }
}

impl Driver {
    /// A driver that does nothing until it is [`run`](Driver::run), and its door.
    pub fn new(
        settings: Settings,
        store: Arc<dyn Store>,
        stop: CancellationToken,
    ) -> (Driver, Door) {
        let (sender, requests) = mpsc::channel(REQUESTS_MAX);
        let (view, watched) = watch::channel(None);
        let door = Door { requests: sender, view: watched, store: Arc::clone(&store) };
        let listened = Listened::new(Instant::now());
        let driver = Driver { settings, store, requests, view, listened, stop };
        (driver, door)
    }

    /// Reigns, again and again, until it is stopped or something is beyond repair.
    pub async fn run(mut self) -> Result<(), Fatal> {
        loop {
            let Some(reign) = self.campaign().await? else { return Ok(()) };
            let end = self.reign(&reign).await;
            self.view.send_replace(None);
            metrics::gauge!("flotilla_pd_leads").set(0.0);
            self.store.resign(reign).await;
            match end {
                Ok(()) => return Ok(()),
                Err(Fatal::Store(error @ (StoreError::Deposed | StoreError::Unavailable(_)))) => {
                    tracing::warn!("this PD no longer leads: {error}");
                    tokio::select! {
                        () = self.stop.cancelled() => return Ok(()),
                        () = tokio::time::sleep(REST) => {}
                    }
                }
                Err(fatal) => return Err(fatal),
            }
        }
    }

    /// `None` when stopped meanwhile.
    async fn campaign(&mut self) -> Result<Option<Reign>, Fatal> {
        let store = Arc::clone(&self.store);
        let mut won = store.campaign();
        loop {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return Ok(None),
                reign = &mut won => return Ok(Some(reign?)),
                // Asked just before the view went away. Dropping the reply says: not the leader.
                Some(asked) = self.requests.recv() => drop(asked),
            }
        }
    }

    /// Serves until stopped (`Ok`) or no longer entitled to.
    async fn reign(&mut self, reign: &Reign) -> Result<(), Fatal> {
        let records = self.store.load(reign).await?;
        let now_ms = self.now_ms();
        let (mut state, changes) = State::load(self.settings.clone(), &records, now_ms)?;
        self.store.commit(reign, changes).await?;
        tracing::info!(
            cluster = %state.map().cluster, epoch = %state.map().epoch,
            "leads, {} nodes, {} groups", state.map().nodes.len(), state.map().groups.len()
        );
        metrics::gauge!("flotilla_pd_leads").set(1.0);
        self.publish(&state);
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut measured = Instant::now();
        loop {
            if measured.elapsed() >= MEASURE {
                measured = Instant::now();
                let (leaderless, problems) = state.troubles();
                metrics::gauge!("flotilla_pd_groups_leaderless").set(leaderless as f64);
                metrics::gauge!("flotilla_pd_problems").set(problems as f64);
            }
            let (input, reply) = tokio::select! {
                biased;
                () = self.stop.cancelled() => return Ok(()),
                () = reign.ended.cancelled() => return Err(StoreError::Deposed.into()),
                _ = tick.tick() => (Input::Tick, None),
                Some((request, reply)) = self.requests.recv() => (Input::Request(request), Some(reply)),
            };
            let step = state.step(self.now_ms(), input);
            let changed = !step.changes.is_empty();
            if changed {
                let began = Instant::now();
                self.store.commit(reign, step.changes).await?;
                metrics::histogram!("flotilla_pd_commit_seconds")
                    .record(began.elapsed().as_secs_f64());
            }
            state = step.state;
            self.publish(&state);
            if let (Some(reply), Some(answer)) = (reply, step.answer) {
                // Whoever asked may have gone; the change stands.
                let _ = reply.send(answer);
            }
            if changed {
                // A step does a bounded part of what is due; the rest follows at once.
                tick.reset_immediately();
            }
        }
    }

    /// Shows a state to watchers, if they would see a difference.
    fn publish(&self, state: &State) {
        let seen = self.view.borrow();
        let same = seen.as_ref().is_some_and(|view| {
            Arc::ptr_eq(&view.map, state.map()) && Arc::ptr_eq(&view.assigned, state.assigned())
        });
        drop(seen);
        if same {
            return;
        }
        let map = state.map();
        let alive = map.nodes.iter().filter(|node| node.alive).count();
        let syncers = map.syncers.iter().filter(|syncer| syncer.alive).count();
        metrics::gauge!("flotilla_pd_map_epoch").set(map.epoch.0 as f64);
        metrics::gauge!("flotilla_pd_nodes", "state" => "alive").set(alive as f64);
        metrics::gauge!("flotilla_pd_nodes", "state" => "silent")
            .set((map.nodes.len() - alive) as f64);
        metrics::gauge!("flotilla_pd_syncers", "state" => "alive").set(syncers as f64);
        metrics::gauge!("flotilla_pd_syncers", "state" => "silent")
            .set((map.syncers.len() - syncers) as f64);
        metrics::gauge!("flotilla_pd_groups").set(map.groups.len() as f64);
        self.view.send_replace(Some(Arc::new(View::of(state))));
    }

    fn now_ms(&mut self) -> u64 {
        self.listened.ms(Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_in_which_pd_was_deaf_does_not_count() {
        let start = Instant::now();
        let mut listened = Listened::new(start);
        let steps = [100, 200, 300].map(|ms| listened.ms(start + Duration::from_millis(ms)));
        assert_eq!(steps, [100, 200, 300]);
        let woken = start + Duration::from_secs(60);
        assert_eq!(listened.ms(woken), 300 + 250);
        assert_eq!(listened.ms(woken + Duration::from_millis(100)), 650);
        assert_eq!(listened.ms(woken), 650, "never back");
    }
}
