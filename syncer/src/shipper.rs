//! Ships one group's committed log to one other cluster. Pure: events and the time go in, actions
//! come out; sockets are in [`crate::link`], the learner in [`crate::tap`].
//!
//! The [`Shipper`] owns no durable fact. What the receiver has committed, the cursor, lives at the
//! receiver, which names it when the link comes up. Invariants:
//! * cursor <= sent <= committed, and everything behind the cursor that was learned is kept.
//! * The cursor moves by the receiver's word only: we may send again (it skips), never skip.
//! * A batch is whole entries, and begins where the one before it on this connection ended.
//! * At most [`WINDOW_BATCHES`] and about [`WINDOW_BYTES`] are unacknowledged.
//!
//! When the log no longer reaches back to the receiver's cursor, the link stops with
//! `needs-merge`: sending on would leave a gap.

use crate::learned::{Learned, Position};
use flotilla_node::group::remote::RemoteEffect;
use flotilla_topology::api::LinkState;
use flotilla_topology::ids::LogId;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::batch::BATCH_BYTES_MAX;

/// Unacknowledged batches per group and peer: at 200 ms round trip still 320 batches a second.
pub const WINDOW_BATCHES: usize = 64;
/// Unacknowledged bytes per group and peer; a batch begun below the limit is finished. Fills
/// 160 MB/s at 200 ms round trip with one group.
pub const WINDOW_BYTES: usize = 32 << 20;
/// Small batches of one group leave at most this often, so that each carries more when many
/// commits follow each other. A lone commit never waits.
pub const PACE: Duration = Duration::from_millis(2);
/// This many entries without news are worth a batch of their own: it lets the log be purged. Far
/// more than one, because each batch makes an entry at the other side, which is such an entry for
/// the way back.
pub const SILENT_ENTRIES_MAX: u64 = 1024;
/// With something under way and nothing acknowledged for this long the stream is opened anew.
pub const STALL_AFTER: Duration = Duration::from_secs(5);
/// Wait after the receiver named a gap, so that one that goes on doing so costs little.
pub const REWIND_PAUSE: Duration = Duration::from_millis(20);

const _: () = assert!(WINDOW_BYTES >= 2 * BATCH_BYTES_MAX);

/// What a shipper is told.
#[derive(Debug, Clone)]
pub enum Event {
    /// The log goes on; each stretch begins where the one before it ended.
    Committed(Vec<Arc<Learned>>),
    /// A snapshot took the place of entries up to here: they will never come.
    Jumped(LogId),
    /// Memory is short and the peer is away: forget what it waits for. When it comes back, the
    /// learner has to begin anew from the log.
    Shed,
    /// The receiver has got the full state: it says where it is when the stream stands again.
    Merged,
    /// A stream stands, and the receiver has committed everything up to this position.
    LinkUp(LogId),
    /// The stream is gone, and what was under way with it.
    LinkDown(String),
    /// The receiver has committed everything up to this position.
    Acked(LogId),
    /// A batch began behind what the receiver has, which is this.
    Gap(LogId),
    /// The receiver waits until its clock has caught up with our stamps.
    Parked {
        /// By how much our stamps are ahead.
        ahead_ms: u64,
    },
    /// The receiver will not take the stream.
    Refused(String),
    /// Time has passed.
    Tick,
}

/// What is to be sent: whole entries. The driver adds names and clocks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parcel {
    /// Everything up to here was sent earlier.
    pub from: LogId,
    /// Where it ends.
    pub to: Position,
    /// When its oldest effect was evaluated; 0 without effects.
    pub born_ms: u64,
    /// Its effects, in order.
    pub effects: Vec<RemoteEffect>,
}

/// What a shipper wants done, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Send this on the stream.
    Send(Parcel),
    /// The receiver has committed everything up to here: the group may remember that.
    Floor(Position),
    /// Entries evaluated at these times (by their stamps) are committed at the receiver now.
    Delivered(Vec<u64>),
    /// Close the stream and open it anew, for this reason.
    Reset(String),
    /// The peer that was shed is back: begin anew, with a learner that starts at its cursor.
    Rewind,
}

#[derive(Debug)]
struct Flight {
    to: LogId,
    bytes: usize,
}

/// See the module's text.
#[derive(Debug)]
pub struct Shipper {
    /// Everything up to here was dropped: the receiver has it, or it came before the learner.
    base: Position,
    /// What was learned behind `base`.
    entries: VecDeque<Arc<Learned>>,
    /// How many of `entries` were sent on this stream.
    next: usize,
    /// Bytes and entries with effects in `entries`.
    backlog: Backlog,
    /// What the receiver has committed, as it said.
    cursor: LogId,
    /// Where the next batch begins.
    sent: LogId,
    up: bool,
    shed: bool,
    flights: VecDeque<Flight>,
    flight_bytes: usize,
    last_send: Option<Instant>,
    last_progress: Instant,
    hold_until: Option<Instant>,
    state: LinkState,
    detail: String,
}

/// What waits for a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Backlog {
    /// Entries with effects that the receiver has not acknowledged.
    pub entries: u64,
    /// Their bytes.
    pub bytes: usize,
}

impl Shipper {
    /// For a learner that will tell everything behind `base`.
    pub fn new(base: Position, now: Instant) -> Shipper {
        Shipper {
            cursor: base.id,
            sent: base.id,
            base,
            entries: VecDeque::new(),
            next: 0,
            backlog: Backlog::default(),
            up: false,
            shed: false,
            flights: VecDeque::new(),
            flight_bytes: 0,
            last_send: None,
            last_progress: now,
            hold_until: None,
            state: LinkState::Disconnected,
            detail: "not connected yet".into(),
        }
    }

    /// Takes an event, appends what it leads to.
    pub fn step(&mut self, now: Instant, event: Event, actions: &mut Vec<Action>) {
        match event {
            Event::Committed(entries) => self.committed(entries),
            Event::Jumped(to) => self.jumped(to),
            Event::Shed => self.shed(),
            Event::Merged => self.stop(LinkState::Disconnected, "merged, opens its stream".into()),
            Event::LinkUp(cursor) => self.link_up(now, cursor, actions),
            Event::LinkDown(detail) => {
                // A link that must not go on says why until it is told otherwise.
                if !matches!(self.state, LinkState::NeedsMerge | LinkState::Refused) {
                    self.stop(LinkState::Disconnected, detail);
                }
                self.up = false;
            }
            Event::Acked(cursor) => self.acked(now, cursor, actions),
            Event::Gap(cursor) => self.gap(now, cursor, actions),
            Event::Parked { ahead_ms } => {
                self.last_progress = now;
                self.state = LinkState::Parked;
                self.detail = format!("our stamps are {ahead_ms} ms ahead of the receiver's clock");
            }
            Event::Refused(reason) => self.stop(LinkState::Refused, reason),
            Event::Tick => self.watch(now, actions),
        }
        self.pump(now, actions);
        assert!(self.cursor.index <= self.sent.index, "a cursor ahead of what was sent");
        assert!(self.next <= self.entries.len(), "sent more than was learned");
    }

    /// When to call with [`Event::Tick`] at the latest, if nothing else happens.
    pub fn deadline(&self) -> Option<Instant> {
        if !self.up {
            return None;
        }
        let stall = (!self.flights.is_empty()).then(|| self.last_progress + STALL_AFTER);
        let send = self.waits_to_send().then(|| self.send_after()).flatten();
        stall.into_iter().chain(send).min()
    }

    /// What the receiver has not acknowledged.
    pub fn backlog(&self) -> Backlog {
        self.backlog
    }

    /// What the receiver has committed, as it said last.
    pub fn cursor(&self) -> LogId {
        self.cursor
    }

    /// Everything up to here has been learned.
    pub fn committed_at(&self) -> LogId {
        self.entries.back().map_or(self.base.id, |entry| entry.at.id)
    }

    /// When the oldest news that the receiver lacks was evaluated, by its stamp.
    pub fn oldest_ms(&self) -> Option<u64> {
        self.entries.iter().find(|entry| entry.news && entry.born_ms > 0).map(|e| e.born_ms)
    }

    /// Reason code, and one line about what was seen last.
    pub fn state(&self) -> (LinkState, &str) {
        let state = match self.state {
            LinkState::Live if self.unsent().any(|entry| entry.news) => LinkState::CatchingUp,
            state => state,
        };
        (state, &self.detail)
    }

    fn unsent(&self) -> impl Iterator<Item = &Arc<Learned>> {
        self.entries.range(self.next..)
    }

    fn committed(&mut self, entries: Vec<Arc<Learned>>) {
        assert!(self.base.id.index < u64::MAX, "entries behind a jump");
        for entry in entries {
            assert_eq!(entry.prev, self.committed_at(), "the learner skipped or repeated an entry");
            if self.shed {
                self.base = entry.at.clone();
                continue;
            }
            if entry.at.id.index <= self.cursor.index {
                self.check_term(entry.at.id);
                self.base = entry.at.clone();
                continue;
            }
            let last_unsent = self.entries.len() > self.next;
            match self.entries.back().filter(|_| last_unsent).and_then(|b| b.merged(&entry)) {
                Some(merged) => *self.entries.back_mut().expect("just seen") = Arc::new(merged),
                None => {
                    self.backlog.entries += u64::from(!entry.effects.is_empty());
                    self.backlog.bytes += entry.bytes;
                    self.entries.push_back(entry);
                }
            }
        }
    }

    fn shed(&mut self) {
        assert!(!self.up, "a peer that is there is not shed");
        if let Some(last) = self.entries.back() {
            self.base = last.at.clone();
        }
        self.entries.clear();
        self.backlog = Backlog::default();
        self.shed = true;
        self.detail = "away for long: begins anew from the log when it is back".into();
    }

    /// Nothing that comes now follows on what was sent. The tap knows the fence no more, so even a
    /// receiver that is ahead of the jump cannot be served by this learner.
    fn jumped(&mut self, to: LogId) {
        let detail = format!("the log begins behind {to} now, the receiver is at {}", self.cursor);
        self.entries.clear();
        self.backlog = Backlog::default();
        self.base = Position { id: LogId { index: u64::MAX, ..to }, ..self.base.clone() };
        self.sent = self.cursor;
        self.stop(LinkState::NeedsMerge, detail);
    }

    /// A cursor inside our log must name an entry of our log: another term at that index means
    /// that the receiver has entries which no longer exist here.
    fn check_term(&mut self, id: LogId) {
        if id.index == self.cursor.index && id.term != self.cursor.term {
            let cursor = self.cursor;
            let detail = format!("the receiver is at {cursor}, but our log has {id} there");
            self.stop(LinkState::NeedsMerge, detail);
        }
    }

    fn link_up(&mut self, now: Instant, cursor: LogId, actions: &mut Vec<Action>) {
        self.stop(LinkState::Live, String::new());
        if self.shed && cursor.index < self.base.id.index {
            self.stop(LinkState::CatchingUp, "begins anew from the log".into());
            return actions.push(Action::Rewind);
        }
        self.shed = false;
        if cursor.index < self.base.id.index {
            let base = self.base.id;
            let detail = format!("the receiver is at {cursor}, our log begins behind {base}");
            return self.stop(LinkState::NeedsMerge, detail);
        }
        self.up = true;
        self.last_progress = now;
        self.hold_until = None;
        self.cursor = cursor;
        self.sent = cursor;
        self.drop_behind(cursor, actions);
        self.next = 0;
    }

    fn acked(&mut self, now: Instant, cursor: LogId, actions: &mut Vec<Action>) {
        if !self.up {
            return; // of a stream that is gone; the next one begins with a cursor
        }
        if cursor.index > self.sent.index {
            let sent = self.sent;
            return self.reset(format!("acknowledged {cursor}, sent only {sent}"), actions);
        }
        if cursor.index <= self.cursor.index {
            return;
        }
        self.last_progress = now;
        self.cursor = cursor;
        self.state = LinkState::Live;
        self.detail.clear();
        while let Some(flight) = self.flights.pop_front_if(|f| f.to.index <= cursor.index) {
            self.flight_bytes -= flight.bytes;
        }
        let born = self.drop_behind(cursor, actions);
        if !born.is_empty() {
            actions.push(Action::Delivered(born));
        }
    }

    fn gap(&mut self, now: Instant, cursor: LogId, actions: &mut Vec<Action>) {
        if !self.up {
            return;
        }
        if cursor.index > self.sent.index {
            let sent = self.sent;
            return self.reset(format!("named a gap at {cursor}, sent only {sent}"), actions);
        }
        if cursor.index < self.base.id.index {
            let base = self.base.id;
            let detail = format!("the receiver fell back to {cursor}, ours begins behind {base}");
            return self.stop(LinkState::NeedsMerge, detail);
        }
        self.detail = format!("rewound to {cursor}, which is all that the receiver has");
        self.cursor = cursor;
        self.sent = cursor;
        self.next = self.entries.partition_point(|entry| entry.at.id.index <= cursor.index);
        self.flights.clear();
        self.flight_bytes = 0;
        self.hold_until = Some(now + REWIND_PAUSE);
    }

    fn watch(&mut self, now: Instant, actions: &mut Vec<Action>) {
        let waits = self.up && !self.flights.is_empty();
        if waits && now >= self.last_progress + STALL_AFTER {
            self.state = LinkState::Stalled;
            self.reset(format!("nothing acknowledged for {STALL_AFTER:?}"), actions);
        }
    }

    fn reset(&mut self, reason: String, actions: &mut Vec<Action>) {
        let state = match self.state {
            LinkState::Stalled => LinkState::Stalled,
            _ => LinkState::Disconnected,
        };
        self.stop(state, reason.clone());
        actions.push(Action::Reset(reason));
    }

    fn stop(&mut self, state: LinkState, detail: String) {
        self.up = false;
        self.flights.clear();
        self.flight_bytes = 0;
        self.next = 0;
        self.state = state;
        self.detail = detail;
    }

    /// Drops what the receiver has; answers when the entries with effects among it were evaluated.
    fn drop_behind(&mut self, cursor: LogId, actions: &mut Vec<Action>) -> Vec<u64> {
        let mut born = Vec::new();
        let before = self.base.id;
        while let Some(entry) = self.entries.pop_front_if(|e| e.at.id.index <= cursor.index) {
            self.check_term(entry.at.id);
            self.next = self.next.saturating_sub(1);
            if !entry.effects.is_empty() {
                self.backlog.entries -= 1;
                self.backlog.bytes -= entry.bytes;
                born.push(entry.born_ms);
            }
            self.base = entry.at.clone();
        }
        // A receiver with another log than ours has nothing that we may forget.
        if self.base.id != before && self.state != LinkState::NeedsMerge {
            actions.push(Action::Floor(self.base.clone()));
        }
        born
    }

    /// Whether something waits that shall not wait for more.
    fn waits_to_send(&self) -> bool {
        let room = self.flights.len() < WINDOW_BATCHES && self.flight_bytes < WINDOW_BYTES;
        let silent = self.committed_at().index.saturating_sub(self.sent.index);
        self.up && room && (silent >= SILENT_ENTRIES_MAX || self.unsent().any(|e| e.news))
    }

    /// The time before which a small batch must not leave.
    fn send_after(&self) -> Option<Instant> {
        let paced = self.last_send.map(|at| at + PACE);
        paced.into_iter().chain(self.hold_until).max()
    }

    fn pump(&mut self, now: Instant, actions: &mut Vec<Action>) {
        while self.waits_to_send() {
            let held = self.hold_until.is_some_and(|at| now < at);
            let early = self.last_send.is_some_and(|at| now < at + PACE);
            if held || (early && !self.unsent_fills_a_batch()) {
                return;
            }
            self.hold_until = None;
            if self.flights.is_empty() {
                self.last_progress = now; // nobody owed us anything until now
            }
            let parcel = self.pack();
            self.last_send = Some(now);
            actions.push(Action::Send(parcel));
        }
    }

    fn unsent_fills_a_batch(&self) -> bool {
        let mut bytes = 0;
        self.unsent().any(|entry| {
            bytes += entry.bytes;
            bytes >= BATCH_BYTES_MAX
        })
    }

    /// The next whole entries, as many as a batch holds and at least one.
    fn pack(&mut self) -> Parcel {
        let mut effects = Vec::new();
        let (mut bytes, mut born_ms, mut taken) = (0, 0, 0);
        for entry in self.entries.range(self.next..) {
            if taken > 0 && bytes + entry.bytes > BATCH_BYTES_MAX {
                break;
            }
            if born_ms == 0 && !entry.effects.is_empty() {
                born_ms = entry.born_ms;
            }
            bytes += entry.bytes;
            effects.extend(entry.effects.iter().cloned());
            taken += 1;
        }
        assert!(taken > 0, "nothing to pack");
        let to = self.entries[self.next + taken - 1].at.clone();
        let parcel = Parcel { from: self.sent, to, born_ms, effects };
        assert!(parcel.from.index < parcel.to.id.index, "a batch must move the cursor");
        self.next += taken;
        self.sent = parcel.to.id;
        self.flights.push_back(Flight { to: parcel.to.id, bytes });
        self.flight_bytes += bytes;
        parcel
    }
}

#[cfg(test)]
mod tests;
