//! The side that compares: drives one [`Pass`] after another over a group and a peer. All waiting is
//! here.

use super::Audits;
use super::pass::{Found, Next, Part, Pass, Question, Seen};
use super::serve;
use super::shown::Shown;
use super::wire::AuditMessage;
use crate::batch::Message;
use crate::leaders::Leaders;
use crate::link::dial::LinkStatus as Connection;
use crate::link::stream::Wire;
use crate::outbound::Route;
use crate::tenure::Peer;
use flotilla_node::clock;
use flotilla_node::group::digest::LookRequest;
use flotilla_topology::api::{LinkState, LinkStatus, Standing};
use flotilla_topology::slot::{Slot, SlotRange};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::{sleep, timeout};

/// The first pass of a tenure begins within this: not all groups at one time.
const START_SPREAD: Duration = Duration::from_secs(10);
/// A question must be answered within this.
const ANSWER_DEADLINE: Duration = Duration::from_secs(60);
/// Wait while the link is not fit, and after a question that was not answered.
const HOLD_PAUSE: Duration = Duration::from_secs(1);
/// A pass in which so many questions in a row were not answered is given up.
const FAILURES_MAX: u32 = 30;
/// Wait after a pass that was given up, and how often slots that differ are looked at anew, unless a
/// whole pass comes sooner.
const AGAIN_PAUSE: Duration = Duration::from_secs(30);
/// A link that is so far behind is not compared: too much is under way.
const LAG_SECONDS_MAX: f64 = 10.0;
/// How often the metrics are brought up to date.
const PUBLISH_INTERVAL: Duration = Duration::from_secs(1);

/// Compares one group with a peer's.
pub struct Audit {
    /// Group and peer.
    pub route: Route,
    /// The peer.
    pub peer: Peer,
    /// Speaks to our leader.
    pub leaders: Leaders,
    /// What all of them share.
    pub audits: Audits,
    /// How the link stands.
    pub status: Arc<Mutex<LinkStatus>>,
    /// Where to put what is found.
    pub shown: Shown,
}

/// Compares until the peer is removed; dropping the future ends it.
pub async fn run(audit: Audit) {
    let guard = Guard { shown: audit.shown.clone(), route: audit.route.clone() };
    guard.shown.begin(Instant::now());
    let mut told = audit.peer.told.clone();
    let gone = async move { while told.changed().await.is_ok() {} };
    let passes = Passes { audit, wire: None, number: 0 };
    tokio::select! {
        () = passes.run() => {}
        () = guard.publish() => {}
        () = gone => {} // the peer was removed
    }
}

/// What is told ends with who tells it.
struct Guard {
    shown: Shown,
    route: Route,
}

impl Guard {
    async fn publish(&self) {
        loop {
            self.shown.publish(&self.route.peer_name, self.route.group);
            sleep(PUBLISH_INTERVAL).await;
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.shown.end(&self.route.peer_name, self.route.group);
    }
}

struct Passes {
    audit: Audit,
    wire: Option<Wire>,
    /// Of the last question.
    number: u64,
}

impl Passes {
    async fn run(mut self) {
        let every = self.audit.audits.every;
        sleep(START_SPREAD.min(every).mul_f64(rand::random_range(0.0..1.0))).await;
        let mut whole_at = Instant::now();
        loop {
            let now = Instant::now();
            let whole = now >= whole_at;
            let slots =
                if whole { vec![self.audit.route.slots] } else { self.audit.shown.different() };
            if !slots.is_empty() {
                let ended = self.pass(slots, whole).await;
                self.wire = None; // a stream is opened for each pass
                if whole && ended {
                    whole_at = now + every;
                }
            }
            let left = whole_at.saturating_duration_since(Instant::now());
            // Whoever failed at once must not try at once.
            sleep(if left.is_zero() { HOLD_PAUSE } else { left.min(AGAIN_PAUSE) }).await;
        }
    }

    /// Walks over slots; whether it came to the end.
    async fn pass(&mut self, slots: Vec<SlotRange>, whole: bool) -> bool {
        let route = &self.audit.route;
        let clusters = (route.origin.cluster, route.peer);
        let mut pass = Pass::new(clusters, slots, rand::random(), Instant::now());
        if whole {
            self.audit.shown.pass_begins();
        }
        let mut failures = 0;
        loop {
            let question = match pass.next(Instant::now()) {
                Next::Ask(question) => question,
                Next::Wait(at) => {
                    tokio::time::sleep_until(at.into()).await;
                    continue;
                }
                Next::Done => break,
            };
            if let Err(reason) = self.fit() {
                self.audit.shown.waits(reason);
                self.wire = None;
                sleep(HOLD_PAUSE).await;
                continue;
            }
            match self.ask(&question).await {
                Ok((seen, took)) => {
                    failures = 0;
                    let now = Instant::now();
                    match pass.answered(&question, &seen, took, now) {
                        Ok(decided) => self.tell(&decided),
                        Err(reason) => {
                            self.audit.shown.waits(reason);
                            sleep(AGAIN_PAUSE).await;
                            return false;
                        }
                    }
                }
                Err(reason) => {
                    self.audit.shown.waits(reason);
                    self.wire = None;
                    failures += 1;
                    if failures == FAILURES_MAX {
                        return false;
                    }
                    sleep(HOLD_PAUSE).await;
                }
            }
        }
        if whole {
            self.audit.shown.pass_ended(Instant::now());
        }
        true
    }

    fn tell(&self, decided: &[(Slot, Found)]) {
        let route = &self.audit.route;
        metrics::counter!("flotilla_link_audited_slots_total", "peer" => route.peer_name.clone())
            .increment(decided.len() as u64);
        let new = self.audit.shown.decided(decided);
        // PD may ask from now on, and metrics may not say something else.
        self.audit.shown.publish(&route.peer_name, route.group);
        if let Some(first) = new.first() {
            let (group, peer, slots) = (route.group, &route.peer_name, new.len());
            tracing::error!(%group, %peer, slots, %first, "holds something else than the peer");
        }
    }

    /// Whether the link stands so that comparing makes sense; if not, why.
    fn fit(&self) -> Result<(), String> {
        if self.audit.peer.told.borrow().standing == Standing::Returning {
            return Err("the peer is returning".to_owned());
        }
        let status = self.audit.status.lock();
        match status.state {
            LinkState::Live | LinkState::CatchingUp if status.lag_seconds > LAG_SECONDS_MAX => {
                Err(format!("the link is {:.0} s behind", status.lag_seconds))
            }
            LinkState::Live | LinkState::CatchingUp => Ok(()),
            state => Err(format!("the link is {}", state.word())),
        }
    }

    /// Asks both sides. The error says in one line why there is no answer.
    async fn ask(&mut self, question: &Question) -> Result<(Seen, Duration), String> {
        let audits = self.audit.audits.clone();
        let Ok(_room) = audits.asked.acquire().await else {
            return Err("the syncer stops".to_owned());
        };
        let (began, at_ms, cells) = (Instant::now(), clock::wall_ms(), question.cells);
        self.number += 1;
        let number = self.number;
        if self.wire.is_none() {
            self.wire = Some(self.open().await?);
        }
        let Some(wire) = &mut self.wire else { return Err("no stream".to_owned()) };
        wire.send(Message::Audit(AuditMessage::Look { number, at_ms, cells }));
        let (group, slots) = (self.audit.route.group, self.audit.route.slots);
        let ours = serve::look(&self.audit.leaders, LookRequest { group, at_ms, cells });
        let both = futures::future::try_join(ours, hear(wire, number));
        let silent = |_| format!("no answer within {ANSWER_DEADLINE:?}");
        let (look, theirs) = timeout(ANSWER_DEADLINE, both).await.map_err(silent)??;
        let ours = vec![Part { slots, look }];
        Ok((Seen { at_ms, ours, theirs }, began.elapsed()))
    }

    async fn open(&self) -> Result<Wire, String> {
        let link = match &*self.audit.peer.link.borrow() {
            Connection::Up(link) => Arc::clone(link),
            Connection::Down(reason) => return Err(reason.clone()),
        };
        let opened = timeout(ANSWER_DEADLINE, link.connection.open_bi()).await;
        let opened = opened.map_err(|_| "the peer takes no more streams".to_owned())?;
        let (send, receive) = opened.map_err(|error| error.to_string())?;
        let wire = Wire::start(send, receive, |_| {});
        let namespace = self.audit.route.namespace.clone();
        wire.send(Message::Audit(AuditMessage::Open { namespace }));
        Ok(wire)
    }
}

/// Waits for the answer to a question.
async fn hear(wire: &mut Wire, asked: u64) -> Result<Vec<Part>, String> {
    match wire.next().await.map_err(|error| error.to_string())? {
        Message::Audit(AuditMessage::Holds { number, parts }) if number == asked => Ok(parts),
        Message::Audit(AuditMessage::NotNow { number, reason }) if number == asked => Err(reason),
        Message::Refused { reason } => Err(reason),
        other => Err(format!("not for who compares: {other:?}")),
    }
}
