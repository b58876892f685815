//! Takes one group of another cluster into the groups of this one. Pure: events and the time go
//! in, actions come out; streams are in [`crate::link`], calls to leaders in [`crate::leaders`].
//!
//! A source group's slots may belong to several groups here. Each of these *targets* has a lane;
//! every batch becomes one sub-batch per lane, also where it holds nothing for it, so that all
//! lanes move alike. Invariants:
//! * A lane sends in order, and what a leader has not committed stays in the lane.
//! * The acknowledged cursor is the smallest over the lanes, each as its leader named it after a
//!   commit; it never goes back.
//! * Nothing is decided here: the leader skips what it has and refuses a gap, so sending twice is
//!   harmless and two receivers at work are, too.

use crate::batch::Batch;
use flotilla_node::flaws::{self, Flaw};
use flotilla_node::group::remote::{RemoteBatch, RemoteEffect, Verdict};
use flotilla_topology::ids::{GroupId, LogId};
use flotilla_topology::slot::SlotRange;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Sub-batches that a lane has under way to its leader: enough to fill the time of a commit.
pub const LANE_WINDOW: usize = 32;
/// First wait after a leader could not be reached; it doubles.
pub const RETRY_FIRST: Duration = Duration::from_millis(20);
/// Longest wait after a leader could not be reached: elections take about a second.
pub const RETRY_LAST: Duration = Duration::from_millis(320);
/// Shortest and longest wait of a parked lane before it tries again.
pub const PARKED_WAIT_MS: (u64, u64) = (20, 1000);

/// Why a leader did not take something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// No leader, or no answer: whether it was taken is not known, and sending again is harmless.
    Again,
    /// It will never be taken, for this reason.
    Refused(String),
}

/// What a receiver is told.
#[derive(Debug, Clone)]
pub enum Event {
    /// The leader of a target told its cursor, or did not.
    Cursor {
        /// Which target.
        target: GroupId,
        /// The cursor.
        result: Result<LogId, Failure>,
    },
    /// A batch arrived, at this wall clock time.
    Batch(Box<Batch>, u64),
    /// The leader of a target dealt with a sub-batch, or did not.
    Answer {
        /// Which target.
        target: GroupId,
        /// From [`Action::Forward`].
        round: u64,
        /// What came of it.
        result: Result<Verdict, Failure>,
    },
    /// Time has passed.
    Tick,
}

/// What a receiver wants done, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Ask the leader of a target for its cursor.
    Ask(GroupId),
    /// Send a sub-batch to the leader of its target, behind all that were sent there before.
    Forward {
        /// Which attempt of the lane this is; comes back with the answer.
        round: u64,
        /// What to send.
        batch: Arc<RemoteBatch>,
    },
    /// Answer the sender's opening.
    TellCursor(LogId),
    /// Tell the sender that this much is committed, and when the last of it had arrived.
    TellAck(LogId, u64),
    /// Tell the sender to go on from here.
    TellGap(LogId),
    /// Tell the sender that it waits for our clock.
    TellParked(u64),
    /// Tell the sender why and close the stream.
    Refuse(String),
}

#[derive(Debug)]
struct Lane {
    target: GroupId,
    slots: SlotRange,
    /// What its leader has committed, once known.
    cursor: Option<LogId>,
    /// Not committed yet, in order; the first `sent` of them are under way.
    queue: VecDeque<Arc<RemoteBatch>>,
    sent: usize,
    /// Rises whenever the lane begins anew; failures of earlier rounds say nothing new.
    round: u64,
    retry_at: Option<Instant>,
    backoff: Duration,
}

/// See the module's text.
#[derive(Debug)]
pub struct Receiver {
    lanes: Vec<Lane>,
    /// What the sender was told, once it was.
    acked: Option<LogId>,
    /// Where the next batch must begin, or earlier.
    position: LogId,
    /// When the batches ending at these positions arrived.
    arrivals: VecDeque<(LogId, u64)>,
    bytes: usize,
    told_gap: bool,
    refused: bool,
}

impl Receiver {
    /// For a source group whose slots belong to these groups here. Begins by asking for cursors.
    ///
    /// # Panics
    /// Without targets: who calls has refused such a stream.
    pub fn new(targets: &[(GroupId, SlotRange)], actions: &mut Vec<Action>) -> Receiver {
        assert!(!targets.is_empty(), "a source group without targets");
        let lanes = targets.iter().map(|(target, slots)| Lane::new(*target, *slots)).collect();
        actions.extend(targets.iter().map(|(target, _)| Action::Ask(*target)));
        Receiver {
            lanes,
            acked: None,
            position: LogId::default(),
            arrivals: VecDeque::new(),
            bytes: 0,
            told_gap: false,
            refused: false,
        }
    }

    /// Takes an event, appends what it leads to.
    pub fn step(&mut self, now: Instant, event: Event, actions: &mut Vec<Action>) {
        if self.refused {
            return;
        }
        match event {
            Event::Cursor { target, result } => self.cursor(now, target, result, actions),
            Event::Batch(batch, wall_ms) => self.batch(now, *batch, wall_ms, actions),
            Event::Answer { target, round, result } => {
                self.answer(now, target, round, result, actions);
            }
            Event::Tick => self.tick(now, actions),
        }
    }

    /// When to call with [`Event::Tick`] at the latest, if nothing else happens.
    pub fn deadline(&self) -> Option<Instant> {
        self.lanes.iter().filter_map(|lane| lane.retry_at).min()
    }

    /// Bytes that wait for leaders; who reads the stream stops while they are too many.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    fn lane(&mut self, target: GroupId) -> &mut Lane {
        self.lanes.iter_mut().find(|lane| lane.target == target).expect("an answer of a target")
    }

    fn cursor(
        &mut self,
        now: Instant,
        target: GroupId,
        result: Result<LogId, Failure>,
        actions: &mut Vec<Action>,
    ) {
        let lane = self.lane(target);
        match result {
            Ok(cursor) => {
                lane.cursor = lane.cursor.max(Some(cursor));
                lane.retry_at = None;
                lane.backoff = RETRY_FIRST;
            }
            Err(Failure::Again) => lane.back_off(now),
            Err(Failure::Refused(reason)) => return self.refuse(reason, actions),
        }
        if self.acked.is_none()
            && let Some(cursor) = self.smallest()
        {
            self.acked = Some(cursor);
            self.position = cursor;
            actions.push(Action::TellCursor(cursor));
        }
    }

    /// The cursor of the source group: the smallest, once all are known.
    fn smallest(&self) -> Option<LogId> {
        let cursors: Option<Vec<LogId>> = self.lanes.iter().map(|lane| lane.cursor).collect();
        let cursors = cursors?.into_iter();
        match flaws::has(Flaw::RestartAtLargest) {
            false => cursors.min_by_key(|cursor| cursor.index),
            true => cursors.max_by_key(|cursor| cursor.index),
        }
    }

    fn batch(&mut self, now: Instant, batch: Batch, wall_ms: u64, actions: &mut Vec<Action>) {
        let Some(acked) = self.acked else {
            return self.refuse("a batch before the cursor was told".into(), actions);
        };
        if batch.from.index > self.position.index {
            // Told once: what was sent before the sender heard of it ends here as well, and
            // naming it each time would rewind the sender again and again.
            if !std::mem::replace(&mut self.told_gap, true) {
                actions.push(Action::TellGap(self.position));
            }
            return;
        }
        self.told_gap = false;
        if batch.to.index <= self.position.index {
            if batch.to.index <= acked.index {
                actions.push(Action::TellAck(acked, wall_ms));
            }
            return;
        }
        self.position = batch.to;
        self.arrivals.push_back((batch.to, wall_ms));
        for lane in &mut self.lanes {
            let part = Arc::new(part_for(&batch, lane.target, &lane.slots));
            self.bytes += size(&part);
            lane.queue.push_back(part);
            lane.flush(now, actions);
        }
    }

    fn answer(
        &mut self,
        now: Instant,
        target: GroupId,
        round: u64,
        result: Result<Verdict, Failure>,
        actions: &mut Vec<Action>,
    ) {
        match result {
            Ok(Verdict::Accepted { cursor }) => self.reached(now, target, cursor, actions),
            Ok(Verdict::Gap { cursor }) => {
                // The cursor is a fact in any round; that the batch was refused only in this one.
                self.reached(now, target, cursor, actions);
                let lane = self.lane(target);
                if lane.round != round {
                    return;
                }
                lane.back_off(now);
                let covered = lane.queue.front().is_none_or(|b| b.from.index <= cursor.index);
                if !covered {
                    self.begin_anew(actions);
                }
            }
            Ok(Verdict::Parked { .. }) if flaws::has(Flaw::ParkedSkipped) => {
                let front = self.lane(target).queue.front().map(|batch| batch.to);
                front.into_iter().for_each(|to| self.reached(now, target, to, actions));
            }
            Ok(Verdict::Parked { ahead_ms }) => {
                let lane = self.lane(target);
                if lane.round == round {
                    lane.back_off(now);
                    let wait = ahead_ms.clamp(PARKED_WAIT_MS.0, PARKED_WAIT_MS.1);
                    lane.retry_at = Some(now + Duration::from_millis(wait));
                    actions.push(Action::TellParked(ahead_ms));
                }
            }
            Err(Failure::Again) => {
                let lane = self.lane(target);
                if lane.round == round {
                    lane.back_off(now);
                }
            }
            Err(Failure::Refused(reason)) => self.refuse(reason, actions),
        }
    }

    /// A target has committed everything up to `cursor`.
    fn reached(&mut self, now: Instant, target: GroupId, cursor: LogId, actions: &mut Vec<Action>) {
        let lane = self.lane(target);
        if lane.cursor.is_none_or(|known| known.index < cursor.index) {
            lane.cursor = Some(cursor);
            lane.backoff = RETRY_FIRST;
        }
        let mut freed = 0;
        while let Some(done) = lane.queue.pop_front_if(|b| b.to.index <= cursor.index) {
            lane.sent = lane.sent.saturating_sub(1);
            freed += size(&done);
        }
        lane.flush(now, actions);
        self.bytes -= freed;
        let (Some(acked), Some(smallest)) = (self.acked, self.smallest()) else { return };
        if smallest.index > acked.index {
            self.acked = Some(smallest);
            let mut arrived_ms = 0;
            while let Some((_, at)) =
                self.arrivals.pop_front_if(|(to, _)| to.index <= smallest.index)
            {
                arrived_ms = at;
            }
            actions.push(Action::TellAck(smallest, arrived_ms));
        }
    }

    /// A leader lacks entries that we do not hold any more: the sender must send them again.
    fn begin_anew(&mut self, actions: &mut Vec<Action>) {
        let Some(smallest) = self.smallest() else { return };
        for lane in &mut self.lanes {
            lane.queue.clear();
            lane.sent = 0;
            lane.round += 1;
            lane.retry_at = None;
        }
        self.bytes = 0;
        self.arrivals.clear();
        self.position = smallest;
        self.told_gap = true;
        actions.push(Action::TellGap(smallest));
    }

    fn tick(&mut self, now: Instant, actions: &mut Vec<Action>) {
        for lane in &mut self.lanes {
            if lane.retry_at.is_some_and(|at| at <= now) {
                lane.retry_at = None;
                if lane.cursor.is_none() {
                    actions.push(Action::Ask(lane.target));
                } else {
                    lane.flush(now, actions);
                }
            }
        }
    }

    fn refuse(&mut self, reason: String, actions: &mut Vec<Action>) {
        self.refused = true;
        actions.push(Action::Refuse(reason));
    }
}

impl Lane {
    fn new(target: GroupId, slots: SlotRange) -> Lane {
        Lane {
            target,
            slots,
            cursor: None,
            queue: VecDeque::new(),
            sent: 0,
            round: 0,
            retry_at: None,
            backoff: RETRY_FIRST,
        }
    }

    /// Begins anew after a while, with the first sub-batch that is not known to be committed.
    fn back_off(&mut self, now: Instant) {
        self.round += 1;
        self.sent = 0;
        self.retry_at = Some(now + self.backoff);
        self.backoff = (self.backoff * 2).min(RETRY_LAST);
    }

    fn flush(&mut self, now: Instant, actions: &mut Vec<Action>) {
        if self.retry_at.is_some_and(|at| now < at) {
            return;
        }
        while self.sent < self.queue.len().min(LANE_WINDOW) {
            let batch = Arc::clone(&self.queue[self.sent]);
            actions.push(Action::Forward { round: self.round, batch });
            self.sent += 1;
        }
    }
}

/// What of a batch belongs to the slots of one target.
fn part_for(batch: &Batch, target: GroupId, slots: &SlotRange) -> RemoteBatch {
    let mine = |effect: &&RemoteEffect| effect.slot.is_none_or(|slot| slots.contains(slot));
    RemoteBatch {
        target,
        origin: batch.origin,
        source_group: batch.group,
        source_slots: batch.slots,
        from: batch.from,
        to: batch.to,
        closed: batch.closed,
        fence: batch.fence,
        vector: batch.vector.clone(),
        effects: batch.effects.iter().filter(mine).cloned().collect(),
    }
}

/// What a sub-batch holds in memory, about.
fn size(batch: &RemoteBatch) -> usize {
    256 + batch.effects.iter().map(|effect| 64 + effect.body.len()).sum::<usize>()
}
