//! One run of a group's evaluator: what it has proposed in one term, without a break, and what
//! waits for it. Sans-io: the driver (`evaluator`) feeds work and verdicts and carries out proposals.
//!
//! Invariants:
//! * Entries are numbered 1, 2, 3... in the term, from where applied state stands, and proposed in
//!   that order. After any refusal nothing is evaluated any more: everything in flight ends first,
//!   the overlay goes, and a new run starts from applied state.
//! * A job answers after the last entry of its prefix took effect, also when it wrote nothing: what
//!   it saw in the overlay is then true.
//! * Every job is answered exactly once: done, not applied, or unknown.

use crate::engine::view::{Batch, Overlay, Rows, View};
use crate::group::entry::{Entry, Evaluation, Fence, Header, RowOp};
use crate::group::exec::Outcome;
use crate::group::forgotten;
use crate::group::remote::Answer;
use crate::model::Synced;
use crate::resp::Reply;
use bytes::Bytes;
use flotilla_topology::ids::{LogId, Origin};
use flotilla_topology::slot::{Slot, SlotRange};
use flotilla_topology::stamp::{Hlc, Stamp};
use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;
use tokio::sync::oneshot;

/// An entry is closed when it holds this many commands...
pub const ENTRY_COMMANDS_MAX: usize = 512;
/// ...or this many bytes, whichever comes first. One command may pass it by its own size.
pub const ENTRY_BYTES_SOFT_MAX: usize = 1 << 20;
/// Entries proposed and not applied. Few of them make entries carry more commands, which is what
/// throughput lives on; more than one hides the time of a disk sync.
pub const ENTRIES_IN_FLIGHT_MAX: usize = 8;

/// Numbers the runs of this process. A term has one leader, and a process that starts anew leads in
/// a later term only: term and number name a run.
static NEXT_RUN: AtomicU64 = AtomicU64::new(1);

/// What became of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It took effect at this position.
    Applied(LogId),
    /// It certainly did not and will not.
    NotApplied,
    /// Nobody can tell.
    Unknown,
}

/// Whoever waits for entries. Told once for each entry that it took part in, in order.
pub trait Job: Send {
    /// The reply to command `index`, which counts only once its entry took effect.
    fn record(&mut self, index: usize, reply: Reply);
    /// The entry that carried commands `from..to` of this job ended; `last` if none follows.
    fn settle(&mut self, from: usize, to: usize, verdict: Verdict);
    /// Everything is settled, or given up: answer.
    fn finish(self: Box<Self>);
}

/// Names a job within its run.
pub type JobId = u64;

struct Waiting {
    id: JobId,
    job: Box<dyn Job>,
    /// Entries that still must end; another one while the job is being evaluated.
    entries: usize,
    since: Instant,
}

/// Which commands of which job an entry carries.
struct Ticket {
    job: JobId,
    from: usize,
    to: usize,
}

struct Flight {
    seq: u64,
    tickets: Vec<Ticket>,
}

/// The entry that is being built.
#[derive(Default)]
struct Open {
    tickets: Vec<Ticket>,
    commands: usize,
    first: Stamp,
    last: Stamp,
    /// It must be proposed even if it writes nothing (a tick).
    forced: bool,
    origin: Option<Origin>,
}

/// An entry to propose.
#[derive(Debug, PartialEq, Eq)]
pub struct Proposal {
    /// Number in the term: also the tag of the completion.
    pub seq: u64,
    /// Encoded entry.
    pub bytes: Bytes,
}

/// One run.
pub struct Run {
    /// The term it evaluates in.
    pub term: u64,
    /// Its number: no other run of the term has it.
    pub number: u64,
    /// What proposed entries wrote and storage does not have yet.
    pub overlay: Overlay,
    next_seq: u64,
    clock: Hlc,
    home: Origin,
    open: Open,
    flights: VecDeque<Flight>,
    jobs: VecDeque<Waiting>,
    next_job: JobId,
    stopped: bool,
    forgotten_ms: Option<u64>,
    /// What is known of it, see [`Run::synced`].
    pub(super) synced: Option<Synced>,
}

impl Run {
    /// Starts from applied state, of which nothing is in flight any more.
    pub fn start(term: u64, fence: Fence, clock: Hlc, home: Origin) -> Run {
        assert_eq!(fence.term, term, "a run starts when its term's blank entry is applied");
        let mut overlay = Overlay::new();
        overlay.begin(fence.next_seq);
        Run {
            term,
            number: NEXT_RUN.fetch_add(1, Ordering::Relaxed),
            overlay,
            next_seq: fence.next_seq,
            clock,
            home,
            open: Open::default(),
            flights: VecDeque::new(),
            jobs: VecDeque::new(),
            next_job: 1,
            stopped: false,
            forgotten_ms: None,
            synced: None,
        }
    }

    /// Whether another command may be evaluated now.
    pub fn can_take(&self) -> bool {
        !self.stopped && self.flights.len() < ENTRIES_IN_FLIGHT_MAX && !self.overlay.is_full()
    }

    /// Whether the entry being built is large enough.
    pub fn is_entry_full(&self) -> bool {
        self.open.commands >= ENTRY_COMMANDS_MAX
            || self.overlay.entry_bytes() >= ENTRY_BYTES_SOFT_MAX
    }

    /// Whether nothing was evaluated into the open entry.
    pub fn entry_is_empty(&self) -> bool {
        self.open.commands == 0 && self.overlay.entry_is_empty()
    }

    /// Whether a refusal ended it.
    pub fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// Whether nothing is in flight.
    pub fn is_drained(&self) -> bool {
        self.flights.is_empty()
    }

    /// The group's clock as a command sees it now.
    pub fn clock_at(&self, wall_ms: u64) -> Hlc {
        self.clock.max(Hlc::from_ms(wall_ms))
    }

    /// The stamp of the next command: above every stamp before it, and not behind the wall clock.
    pub fn next_stamp(&mut self, wall_ms: u64) -> Stamp {
        self.clock = self.clock.next().max(Hlc::from_ms(wall_ms));
        Stamp { hlc: self.clock, cluster: self.home.cluster }
    }

    /// A remote effect was evaluated: later stamps of this group must beat it.
    pub fn observe(&mut self, stamp: Stamp) {
        self.clock = self.clock.max(stamp.hlc);
    }

    /// Up to when ends may have been collected in the group.
    pub fn forgotten_ms(&mut self, rows: &dyn Rows) -> io::Result<u64> {
        if let Some(known) = self.forgotten_ms {
            return Ok(known);
        }
        let known = forgotten::read(&View::new(rows, &mut self.overlay))?;
        self.forgotten_ms = Some(known);
        Ok(known)
    }

    /// An end at `ms` is collected in the open entry.
    pub fn forget(&mut self, rows: &dyn Rows, ms: u64) -> io::Result<()> {
        if ms > self.forgotten_ms(rows)? {
            forgotten::write(&mut View::new(rows, &mut self.overlay), ms);
            self.forgotten_ms = Some(ms);
        }
        Ok(())
    }

    /// Registers a job whose commands are evaluated next.
    pub fn begin_job(&mut self, job: Box<dyn Job>, now: Instant) -> JobId {
        let id = self.next_job;
        self.next_job += 1;
        self.jobs.push_back(Waiting { id, job, entries: 1, since: now });
        id
    }

    /// Keeps the reply to command `index` of `job`.
    pub fn record(&mut self, job: JobId, index: usize, reply: Reply) {
        self.waiting(job).job.record(index, reply);
    }

    /// The command `index` of `job` is evaluated into the open entry, with this stamp if it has
    /// effects; `forced` if the entry must be proposed even if it writes nothing.
    pub fn add(&mut self, job: JobId, index: usize, stamp: Option<Stamp>, forced: bool) {
        let open = &mut self.open;
        open.commands += 1;
        open.forced |= forced;
        if let Some(stamp) = stamp {
            if open.first.is_zero() {
                open.first = stamp;
            }
            open.last = open.last.max(stamp);
        }
        match open.tickets.last_mut() {
            Some(ticket) if ticket.job == job => ticket.to = index + 1,
            _ => {
                open.tickets.push(Ticket { job, from: index, to: index + 1 });
                self.waiting(job).entries += 1;
            }
        }
    }

    /// The open entry is of another origin: it must hold nothing else. What was evaluated before
    /// and wrote nothing rides on it.
    pub fn set_origin(&mut self, origin: Origin, first: Stamp, last: Stamp) {
        let open = &self.open;
        let holds_nothing = open.last.is_zero() && !open.forced && open.origin.is_none();
        assert!(holds_nothing, "an entry has one origin");
        self.open.origin = Some(origin);
        self.open.first = first;
        self.open.last = last;
    }

    /// All commands of the job are evaluated.
    pub fn end_job(&mut self, job: JobId) {
        self.waiting(job).entries -= 1;
        self.answer_ended();
    }

    fn waiting(&mut self, job: JobId) -> &mut Waiting {
        let index = self.jobs.partition_point(|waiting| waiting.id < job);
        let waiting = self.jobs.get_mut(index).filter(|waiting| waiting.id == job);
        waiting.expect("a job is known until its last entry ended")
    }

    fn must_propose(&self) -> bool {
        self.open.forced || !self.overlay.entry_is_empty()
    }

    /// Closes the open entry. `None` if there is nothing to propose: what was evaluated then rides
    /// on the last entry in flight, or is returned by [`Run::take_unproposed`].
    pub fn close(&mut self) -> Option<Proposal> {
        if !self.must_propose() {
            if let Some(last) = self.flights.back_mut() {
                last.tickets.append(&mut self.open.tickets);
                self.open = Open::default();
            }
            return None;
        }
        let seq = self.next_seq;
        self.next_seq += 1;
        let open = std::mem::take(&mut self.open);
        let batch = self.overlay.finish();
        self.overlay.begin(self.next_seq);
        let evaluation = Evaluation { term: self.term, seq };
        let header = Header {
            evaluation,
            origin: open.origin.unwrap_or(self.home),
            first: open.first,
            last: open.last,
            clock: self.clock,
            slots: slots_of(&batch),
        };
        let bytes = Entry { header, ops: ops_of(batch) }.encode();
        self.flights.push_back(Flight { seq, tickets: open.tickets });
        Some(Proposal { seq, bytes })
    }

    /// Whether [`Run::take_unproposed`] would give anything.
    pub fn has_unproposed(&self) -> bool {
        !self.open.tickets.is_empty() && self.flights.is_empty() && !self.must_propose()
    }

    /// Jobs that were evaluated with nothing in flight and wrote nothing. They may be answered once
    /// leadership is confirmed; `settle` them with [`Run::settle_unproposed`].
    pub fn take_unproposed(&mut self) -> Unproposed {
        assert!(!self.must_propose() && self.flights.is_empty());
        Unproposed { tickets: std::mem::take(&mut self.open).tickets }
    }

    /// Ends what [`Run::take_unproposed`] gave.
    pub fn settle_unproposed(&mut self, unproposed: Unproposed, verdict: Verdict) {
        self.settle(unproposed.tickets, verdict);
    }

    /// The entry `seq` ended. A verdict other than applied stops the run.
    pub fn complete(&mut self, seq: u64, verdict: Verdict) {
        match verdict {
            Verdict::Applied(_) => self.overlay.retire(seq),
            Verdict::NotApplied | Verdict::Unknown => self.stopped = true,
        }
        let Ok(index) = self.flights.binary_search_by_key(&seq, |flight| flight.seq) else {
            return;
        };
        if let Some(flight) = self.flights.remove(index) {
            self.settle(flight.tickets, verdict);
        }
    }

    /// Nothing is evaluated any more. What was evaluated and not proposed is not applied.
    pub fn stop(&mut self) {
        self.stopped = true;
        let open = std::mem::take(&mut self.open);
        self.settle(open.tickets, Verdict::NotApplied);
    }

    /// Jobs that have waited since before `deadline` are answered as unknown. Their entries stay in
    /// flight: only Raft can end those.
    pub fn give_up(&mut self, deadline: Instant) {
        let late = self.jobs.partition_point(|waiting| waiting.since < deadline);
        for mut waiting in self.jobs.drain(..late) {
            for flight in self.flights.iter_mut() {
                for ticket in flight.tickets.iter().filter(|t| t.job == waiting.id) {
                    waiting.job.settle(ticket.from, ticket.to, Verdict::Unknown);
                }
                flight.tickets.retain(|ticket| ticket.job != waiting.id);
            }
            waiting.job.finish();
        }
    }

    fn settle(&mut self, tickets: Vec<Ticket>, verdict: Verdict) {
        for ticket in tickets {
            let index = self.jobs.partition_point(|waiting| waiting.id < ticket.job);
            if let Some(waiting) = self.jobs.get_mut(index).filter(|w| w.id == ticket.job) {
                waiting.job.settle(ticket.from, ticket.to, verdict);
                waiting.entries -= 1;
            }
        }
        self.answer_ended();
    }

    fn answer_ended(&mut self) {
        while self.jobs.front().is_some_and(|waiting| waiting.entries == 0) {
            if let Some(waiting) = self.jobs.pop_front() {
                waiting.job.finish();
            }
        }
    }
}

/// Evaluated, not proposed, not confirmed.
pub struct Unproposed {
    tickets: Vec<Ticket>,
}

fn ops_of(batch: Batch) -> Vec<RowOp> {
    let mut ops = Vec::with_capacity(batch.range_deletes.len() + batch.rows.len());
    ops.extend(
        batch.range_deletes.into_iter().map(|r| RowOp::DeleteRange { from: r.start, to: r.end }),
    );
    ops.extend(batch.rows.into_iter().map(|row| match row.value {
        Some(value) => RowOp::Put { key: row.key, value, parts: row.parts.0 },
        None => RowOp::Delete { key: row.key },
    }));
    ops
}

/// Lowest and highest slot of the heads and elements that a batch writes.
fn slots_of(batch: &Batch) -> Option<SlotRange> {
    use crate::engine::keys::{ELEMENT, HEAD};
    let slot = |key: &Bytes| match key[..] {
        [HEAD | ELEMENT, high, low, ..] => Some(Slot(u16::from_be_bytes([high, low]))),
        _ => None,
    };
    let rows = batch.rows.iter().map(|row| &row.key);
    let ranges = batch.range_deletes.iter().map(|range| &range.start);
    let mut slots = rows.chain(ranges).filter_map(slot);
    let first = slots.next()?;
    let range = SlotRange { first, last: first };
    Some(slots.fold(range, |range, slot| SlotRange {
        first: range.first.min(slot),
        last: range.last.max(slot),
    }))
}

/// A client's commands: their replies, which count only once their entries took effect.
pub struct ExecJob {
    replies: Vec<Option<Reply>>,
    outcomes: Vec<Outcome>,
    answer: oneshot::Sender<Vec<Outcome>>,
}

impl ExecJob {
    /// For this many commands; what is never evaluated is not applied.
    pub fn new(commands: usize, answer: oneshot::Sender<Vec<Outcome>>) -> ExecJob {
        let outcomes = vec![Outcome::NotApplied { leader: None }; commands];
        ExecJob { replies: vec![None; commands], outcomes, answer }
    }
}

impl Job for ExecJob {
    fn record(&mut self, index: usize, reply: Reply) {
        self.replies[index] = Some(reply);
    }

    fn settle(&mut self, from: usize, to: usize, verdict: Verdict) {
        for index in from..to {
            match (verdict, self.replies[index].take()) {
                (Verdict::Applied(_), Some(reply)) => self.outcomes[index] = Outcome::Done(reply),
                (Verdict::Unknown, _) => self.outcomes[index] = Outcome::Unknown,
                _ => {} // stays not applied
            }
        }
    }

    fn finish(self: Box<Self>) {
        let _ = self.answer.send(self.outcomes); // nobody waits any more: the client is gone
    }
}

/// Waits for entries without replies, and tells where the last of them stands.
pub struct EntryJob {
    verdict: Verdict,
    answer: oneshot::Sender<Verdict>,
}

impl EntryJob {
    /// Until an entry ends it is not applied.
    pub fn new(answer: oneshot::Sender<Verdict>) -> EntryJob {
        EntryJob { verdict: Verdict::NotApplied, answer }
    }
}

impl Job for EntryJob {
    fn record(&mut self, _index: usize, _reply: Reply) {}

    fn settle(&mut self, _from: usize, _to: usize, verdict: Verdict) {
        self.verdict = verdict;
    }

    fn finish(self: Box<Self>) {
        let _ = self.answer.send(self.verdict);
    }
}

/// Gives an answer that counts once the entries that it was read through have taken effect.
pub struct AnswerJob<T> {
    told: Answer<T>,
    verdict: Verdict,
    answer: oneshot::Sender<Answer<T>>,
}

impl<T> AnswerJob<T> {
    /// Will give `told`.
    pub fn new(told: Answer<T>, answer: oneshot::Sender<Answer<T>>) -> AnswerJob<T> {
        AnswerJob { told, verdict: Verdict::NotApplied, answer }
    }
}

impl<T: Send> Job for AnswerJob<T> {
    fn record(&mut self, _index: usize, _reply: Reply) {}

    fn settle(&mut self, _from: usize, _to: usize, verdict: Verdict) {
        self.verdict = verdict;
    }

    fn finish(self: Box<Self>) {
        // What is not known is asked for again: cursors tell, and joining twice is joining once.
        let _ = self.answer.send(match self.verdict {
            Verdict::Applied(_) => self.told,
            Verdict::NotApplied | Verdict::Unknown => Answer::NotLeader(Default::default()),
        });
    }
}
