//! Drives one [`Shipper`]: carries what the tap learned and what the stream says to it, and does
//! what it wants done. All waiting of the outgoing side is in the loop of [`Outbound::run`].

mod hold;
mod merging;
mod status;
mod stream;

pub use merging::{Merger, Merges};

use crate::audit::shown::Shown;
use crate::batch::{Batch, Message};
use crate::gate::Gate;
use crate::lag::Lag;
use crate::learned::Position;
use crate::link::LinkError;
use crate::link::dial::{Link, LinkStatus as Connection};
use crate::link::stream::Wire;
use crate::shipper::{Action, Event, Parcel, Shipper};
use crate::tap::News;
use flotilla_node::clock;
use flotilla_topology::api::{LinkState, LinkStatus, PeerCluster};
use flotilla_topology::ids::{ClusterId, GroupId, LogId, Origin};
use flotilla_topology::slot::SlotRange;
use hold::Hold;
use merging::Merging;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::{Duration, Instant};
use stream::{next, open, opened};
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep_until, timeout};

/// A stream must be opened and answered with a cursor within this; elections there take a second.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);
/// First wait before a stream is opened anew; it doubles.
const REOPEN_MIN: Duration = Duration::from_millis(50);
/// Longest wait before a stream is opened anew.
const REOPEN_MAX: Duration = Duration::from_secs(1);
/// Wait after the receiver refused, or cannot be served: somebody has to do something first.
const REFUSED_PAUSE: Duration = Duration::from_secs(5);
/// How often the status is brought up to date when nothing happens.
const STATUS_INTERVAL: Duration = Duration::from_millis(500);
/// How long a peer that the log must be read anew for waits for merges of other peers.
const REWIND_PATIENCE: Duration = Duration::from_secs(30);

/// With other peers waiting for the same learner, one that is away for so long is shed when its
/// backlog has grown to half of what it may have: it costs them nothing from then on.
const SHED_AFTER: Duration = Duration::from_secs(10);

/// What does not change during the tenure of a group at a peer.
#[derive(Debug, Clone)]
pub struct Route {
    /// This cluster.
    pub origin: Origin,
    /// Name of the group's namespace.
    pub namespace: String,
    /// The group.
    pub group: GroupId,
    /// Its slots.
    pub slots: SlotRange,
    /// The receiving cluster.
    pub peer: ClusterId,
    /// Its name.
    pub peer_name: String,
    /// Backlog above which it is shed while it is away; `None` if nobody else would wait for it.
    pub shed_bytes: Option<usize>,
}

/// What others may look at.
#[derive(Clone)]
pub struct Window {
    /// For PD and people.
    pub status: Arc<Mutex<LinkStatus>>,
    /// What the receiver has committed last, for the group to remember.
    pub floor: watch::Receiver<Option<Position>>,
    /// What comparing has shown.
    pub audit: Shown,
}

/// See the module's text.
pub struct Outbound {
    route: Route,
    shipper: Shipper,
    gate: Gate,
    news: mpsc::UnboundedReceiver<News>,
    link: watch::Receiver<Connection>,
    /// The peer, as operators want it.
    told: watch::Receiver<PeerCluster>,
    held: Option<Hold>,
    rewind_epoch: u64,
    up: Option<Arc<Link>>,
    /// The peer is away since then.
    away_since: Option<Instant>,
    /// The tap has to begin anew, where the peer is; wanted since then.
    rewind: Option<Instant>,
    merging: Merging,
    wire: Option<Wire>,
    opening: Option<tokio::task::JoinHandle<Result<(Wire, Message), LinkError>>>,
    reopen_at: Instant,
    reopen_pause: Duration,
    lag: Lag,
    /// Bytes and log entries that were learned, for their mean.
    learned: (usize, u64),
    acknowledged_at: Option<Instant>,
    status: Arc<Mutex<LinkStatus>>,
    floor: watch::Sender<Option<Position>>,
}

impl Outbound {
    /// Ships what comes out of `news`, all of it behind `base`, to the peer that is `told`, which
    /// has had the merge `merged`.
    pub fn new(
        route: Route,
        (base, merged): (Position, u64),
        gate: Gate,
        news: mpsc::UnboundedReceiver<News>,
        link: watch::Receiver<Connection>,
        told: watch::Receiver<PeerCluster>,
        merges: Merges,
    ) -> (Outbound, Window) {
        let now = Instant::now();
        let (rewind_epoch, merge_epoch) = {
            let told = told.borrow();
            (told.rewind_epoch, told.merge_epoch)
        };
        let (floor, floors) = watch::channel(None);
        let status = Arc::new(Mutex::new(LinkStatus {
            detail: "not connected yet".into(),
            cursor: base.id,
            ..LinkStatus::new(route.group, route.peer, LinkState::Disconnected)
        }));
        let audit = Shown::default();
        let window = Window { status: Arc::clone(&status), floor: floors, audit };
        let outbound = Outbound {
            route,
            shipper: Shipper::new(base, now),
            gate,
            news,
            link,
            held: None,
            rewind_epoch,
            told,
            up: None,
            away_since: Some(now),
            rewind: None,
            merging: Merging::new(merges, merge_epoch, merged),
            wire: None,
            opening: None,
            reopen_at: now,
            reopen_pause: REOPEN_MIN,
            lag: Lag::default(),
            learned: (0, 0),
            acknowledged_at: None,
            status,
            floor,
        };
        (outbound, window)
    }

    /// Runs until the tap is gone, or has to begin anew.
    pub async fn run(mut self) {
        let mut publish_at = Instant::now();
        loop {
            self.look_at_peer();
            self.look_at_link();
            self.merge_if_due();
            self.open_if_due();
            if self.must_rewind() {
                return;
            }
            if Instant::now() >= publish_at {
                self.shed_if_due();
                self.publish();
                publish_at = Instant::now() + STATUS_INTERVAL;
            }
            let wake = self.wake_at().min(publish_at);
            tokio::select! {
                news = self.news.recv() => match news {
                    Some(news) => self.take_news(news),
                    None => return,
                },
                changed = self.link.changed() => if changed.is_err() { return self.pour_away().await },
                changed = self.told.changed() => if changed.is_err() { return self.pour_away().await },
                opened = opened(&mut self.opening) => self.opened(opened),
                message = next(&mut self.wire) => self.message(message),
                merged = self.merging.ended() => self.merged(merged),
                () = sleep_until(wake.into()) => self.step(Event::Tick),
            }
        }
    }

    /// To begin anew ends the merges of other peers, which then compare all over again: it waits for
    /// them, for a while.
    fn must_rewind(&self) -> bool {
        self.rewind
            .is_some_and(|since| !self.merging.any_active() || since.elapsed() > REWIND_PATIENCE)
    }

    fn wake_at(&self) -> Instant {
        let far = Instant::now() + STATUS_INTERVAL;
        let may_open = self.up.is_some() && self.held.is_none();
        let idle = may_open && self.wire.is_none() && self.opening.is_none();
        let idle = idle && !self.merging.is_active();
        let reopen = match self.needs_merge() {
            true => idle.then(|| self.merging.retry_at()),
            false => idle.then_some(self.reopen_at),
        };
        self.shipper.deadline().into_iter().chain(reopen).min().unwrap_or(far)
    }

    /// The cluster is no peer any more. The group's other links go on: what is learned for this one
    /// is forgotten at once, so that it holds nobody back.
    async fn pour_away(mut self) {
        self.close("no peer any more".into());
        self.step(Event::Shed);
        while let Some(news) = self.news.recv().await {
            if let News::Committed(entries) = news {
                self.gate.sub(entries.iter().map(|entry| entry.bytes).sum());
            }
        }
    }

    fn look_at_peer(&mut self) {
        let (held, epoch, merge_epoch) = {
            let peer = self.told.borrow_and_update();
            (Hold::of(&peer), peer.rewind_epoch, peer.merge_epoch)
        };
        if self.merging.asked(merge_epoch) {
            self.close("an operator has it merge its full state".into());
        }
        let rewound = std::mem::replace(&mut self.rewind_epoch, epoch) != epoch;
        if held == self.held && !rewound {
            return;
        }
        let why = held.map_or("an operator has it begin anew", Hold::reason);
        let (group, peer) = (self.route.group, &self.route.peer_name);
        tracing::info!(%group, %peer, why = if held.is_some() || rewound { why } else { "resumed" });
        self.close(why.into());
        if held.is_some() {
            self.merging.stop();
        }
        self.held = held;
        self.reopen_at = Instant::now();
        self.reopen_pause = REOPEN_MIN;
        if held == Some(Hold::Fenced) {
            // It holds nothing back, neither memory; when it returns it merges anyway.
            self.step(Event::Shed);
        }
    }

    fn look_at_link(&mut self) {
        let (up, detail) = match &*self.link.borrow_and_update() {
            Connection::Up(link) => (Some(Arc::clone(link)), String::new()),
            Connection::Down(reason) => (None, reason.clone()),
        };
        let same = match (&self.up, &up) {
            (Some(old), Some(new)) => Arc::ptr_eq(old, new),
            (None, None) => true,
            _ => false,
        };
        if !same {
            self.close(detail);
            self.up = up;
            self.reopen_at = Instant::now();
            self.reopen_pause = REOPEN_MIN;
        }
    }

    fn shed_if_due(&mut self) {
        let long = self.away_since.is_some_and(|at| at.elapsed() > SHED_AFTER);
        let large = self.route.shed_bytes.is_some_and(|max| self.shipper.backlog().bytes > max);
        if long && large {
            let (group, peer) = (self.route.group, &self.route.peer_name);
            tracing::warn!(%group, %peer, "away for long, its backlog is left to the log");
            self.step(Event::Shed);
        }
    }

    fn needs_merge(&self) -> bool {
        self.merging.is_wanted() || self.shipper.state().0 == LinkState::NeedsMerge
    }

    /// When the log cannot serve the peer, or an operator wants it, the full state travels. What is
    /// learned meanwhile is left to the log.
    fn merge_if_due(&mut self) {
        let Some(link) = self.up.clone().filter(|_| self.needs_merge() && self.held.is_none())
        else {
            return;
        };
        if !self.merging.is_due() {
            return;
        }
        self.close("its full state is being merged".into());
        self.step(Event::Shed);
        let (group, peer) = (self.route.group, &self.route.peer_name);
        tracing::info!(%group, %peer, from = %self.shipper.cursor(), "merges its full state");
        self.merging.begin(self.route.clone(), link, self.shipper.cursor());
    }

    fn merged(&mut self, ended: Result<(), String>) {
        let (group, peer) = (self.route.group, &self.route.peer_name);
        let progress = self.merging.progress();
        match ended {
            Ok(()) => {
                let (rows, bytes) = (progress.rows, progress.bytes);
                tracing::info!(%group, %peer, rows, bytes, "its full state is merged");
                self.step(Event::Merged);
                self.reopen_at = Instant::now();
                self.reopen_pause = REOPEN_MIN;
            }
            Err(reason) => tracing::warn!(%group, %peer, %reason, "the merge ended, begins anew"),
        }
    }

    fn open_if_due(&mut self) {
        let Some(link) = &self.up else { return };
        let busy = self.wire.is_some() || self.opening.is_some();
        let busy = busy || self.needs_merge() || self.merging.is_active();
        if busy || self.held.is_some() || Instant::now() < self.reopen_at {
            return;
        }
        let (link, route) = (Arc::clone(link), self.route.clone());
        self.opening = Some(tokio::spawn(async move {
            timeout(OPEN_TIMEOUT, open(&link, &route)).await.unwrap_or_else(|_| {
                Err(LinkError::Lost(format!("no cursor within {OPEN_TIMEOUT:?}")))
            })
        }));
    }

    fn opened(&mut self, opened: Result<(Wire, Message), LinkError>) {
        self.opening = None;
        match opened {
            Ok((wire, first)) => {
                self.wire = Some(wire);
                self.message(Ok(first));
            }
            Err(error) => self.lost(error.to_string()),
        }
    }

    fn close(&mut self, reason: String) {
        if let Some(opening) = self.opening.take() {
            opening.abort();
        }
        self.wire = None;
        self.away_since = self.away_since.or_else(|| Some(Instant::now()));
        self.step(Event::LinkDown(reason));
    }

    /// The stream is gone; the connection may still stand.
    fn lost(&mut self, reason: String) {
        self.close(reason);
        let stuck = matches!(self.shipper.state().0, LinkState::Refused | LinkState::NeedsMerge);
        let pause = if stuck { REFUSED_PAUSE } else { self.reopen_pause };
        self.reopen_at = Instant::now() + pause;
        self.reopen_pause = (self.reopen_pause * 2).min(REOPEN_MAX);
    }

    fn take_news(&mut self, news: News) {
        match news {
            News::Committed(entries) => {
                let first = entries.first().map_or(0, |entry| entry.prev.index);
                let last = entries.last().map_or(first, |entry| entry.at.id.index);
                self.learned.0 += entries.iter().map(|entry| entry.bytes).sum::<usize>();
                self.learned.1 += last.saturating_sub(first);
                self.step(Event::Committed(entries));
            }
            News::Jumped(to) => {
                self.step(Event::Jumped(to));
                self.lost("the log no longer reaches back".into());
            }
        }
    }

    fn message(&mut self, message: Result<Message, LinkError>) {
        let (route, offset_ms) = (&self.route, self.offset_ms());
        match message {
            Ok(Message::Cursor { group, cursor }) if group == route.group => {
                self.away_since = None;
                self.step(Event::LinkUp(cursor));
                self.reopen_pause = REOPEN_MIN;
                if self.shipper.state().0 == LinkState::NeedsMerge {
                    self.lost("needs-merge".into());
                } else if cursor == LogId::default() && self.begins_with_state() {
                    self.merging.need();
                    self.lost("it begins with the full state".into());
                }
            }
            Ok(Message::Ack { group, cursor, received_ms, committed_ms })
                if group == route.group =>
            {
                stage("commit_there", committed_ms.saturating_sub(received_ms));
                self.acked(Event::Acked(cursor), committed_ms, offset_ms);
            }
            Ok(Message::Gap { group, cursor }) if group == route.group => {
                tracing::info!(group = %route.group, peer = %route.peer_name, %cursor, "rewinds");
                self.step(Event::Gap(cursor));
            }
            Ok(Message::Parked { group, ahead_ms }) if group == route.group => {
                self.step(Event::Parked { ahead_ms });
            }
            Ok(Message::Refused { reason }) => {
                tracing::warn!(group = %route.group, peer = %route.peer_name, %reason, "refused");
                self.step(Event::Refused(reason.clone()));
                self.lost(reason);
            }
            Ok(other) => self.lost(format!("not for a sender: {other:?}")),
            Err(error) => self.lost(error.to_string()),
        }
    }

    /// A log alone would bring back what was deleted and forgotten: the peer came later, or one of
    /// the two comes back.
    fn begins_with_state(&self) -> bool {
        self.told.borrow().merge_epoch > 0 || self.route.origin.incarnation.0 > 1
    }

    fn offset_ms(&self) -> i64 {
        self.up.as_ref().map_or(0, |link| link.clock.lock().offset_ms())
    }

    fn step(&mut self, event: Event) {
        self.acked(event, 0, 0);
    }

    fn acked(&mut self, event: Event, committed_ms: u64, offset_ms: i64) {
        let fresh = match &event {
            Event::Committed(entries) => entries.iter().map(|entry| entry.bytes).sum(),
            _ => 0,
        };
        let (now, before) = (Instant::now(), self.shipper.backlog().bytes);
        let mut actions = Vec::new();
        self.shipper.step(now, event, &mut actions);
        self.gate.sub((before + fresh).saturating_sub(self.shipper.backlog().bytes));
        for action in actions {
            match action {
                Action::Send(parcel) => self.send(parcel),
                Action::Floor(position) => {
                    self.acknowledged_at = Some(now);
                    self.floor.send_replace(Some(position));
                }
                Action::Delivered(born) => {
                    for born_ms in born {
                        self.lag.delivered(now, born_ms, committed_ms, offset_ms);
                        let lag = committed_ms as f64 - offset_ms as f64 - born_ms as f64;
                        metrics::histogram!(
                            "flotilla_link_lag_seconds", "peer" => self.route.peer_name.clone()
                        )
                        .record((lag / 1000.0).max(0.0));
                    }
                }
                Action::Rewind => self.rewind = self.rewind.or(Some(now)),
                Action::Reset(reason) => {
                    let (group, peer) = (self.route.group, &self.route.peer_name);
                    tracing::warn!(%group, %peer, %reason, "opens the stream anew");
                    self.lost(reason);
                }
            }
        }
    }

    fn send(&self, parcel: Parcel) {
        let Some(wire) = &self.wire else { return };
        if parcel.born_ms > 0 {
            stage("learn", clock::wall_ms().saturating_sub(parcel.born_ms));
        }
        let peer = || self.route.peer_name.clone();
        let raw: usize = parcel.effects.iter().map(|effect| effect.body.len()).sum();
        metrics::counter!("flotilla_link_sent_batches_total", "peer" => peer()).increment(1);
        metrics::counter!("flotilla_link_sent_effects_total", "peer" => peer())
            .increment(parcel.effects.len() as u64);
        metrics::counter!("flotilla_link_sent_raw_bytes_total", "peer" => peer())
            .increment(raw as u64);
        let Parcel { from, to, born_ms, effects } = parcel;
        wire.send(Message::Batch(Batch {
            origin: self.route.origin,
            group: self.route.group,
            slots: self.route.slots,
            from,
            to: to.id,
            closed: to.closed,
            fence: to.fence,
            vector: to.vector.to_vec(),
            sent_ms: clock::wall_ms(),
            born_ms,
            effects,
        }));
    }
}

fn stage(name: &'static str, ms: u64) {
    metrics::histogram!("flotilla_link_stage_seconds", "stage" => name).record(ms as f64 / 1000.0);
}
