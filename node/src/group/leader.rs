//! What a group's leader does with work, without IO: it evaluates client commands, batches and full
//! states of other clusters, cursors and cleaning through one [`Run`], and gives entries to propose.
//!
//! The driver (`evaluator`) brings work, time and verdicts; the simulator does the same without
//! disks, networks and clocks. Rules:
//! * Everything that writes goes through here, in the order of the log.
//! * An entry has one origin: a batch of another cluster never shares one with local commands.
//! * Time comes with each call, as [`LeaderClock`].

use crate::command::Command;
use crate::engine::keys;
use crate::engine::view::{Rows, View};
use crate::eval::{self, EvalContext, Txn};
use crate::group::GroupContext;
use crate::group::cursor;
use crate::group::exec::{Outcome, REPLY_BYTES_MAX};
use crate::group::live::LiveSet;
use crate::group::merge::{self, Merge};
use crate::group::remote::{self, Answer, LeaderIs, LinkFloor, RemoteAnswer, RemoteBatch};
use crate::group::run::{AnswerJob, EntryJob, ExecJob, Job, JobId, Proposal, Run, Verdict};
use crate::group::state::{StateRequest, StateVerdict};
use crate::group::statemerge::{self, StateEnd};
use crate::group::transaction::Ask;
use crate::group::upkeep::Upkeep;
use crate::group::wait::{Room, Told, Wait};
use crate::group::{levelled, life, synced};
use crate::model::{Parts, Synced};
use flotilla_topology::stamp::{Hlc, Stamp};
use std::io;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::oneshot;

/// What the evaluator is asked to do.
pub enum Work {
    /// Evaluate a connection's commands, in order.
    Exec {
        /// They.
        commands: Vec<Command>,
        /// Outcomes, one for each.
        answer: oneshot::Sender<Vec<Outcome>>,
    },
    /// Watch keys, or carry out a transaction.
    Ask {
        /// It.
        ask: Ask,
        /// One outcome.
        answer: oneshot::Sender<Vec<Outcome>>,
    },
    /// Tell when one of some keys is there.
    Wait {
        /// Which, and for how long.
        wait: Wait,
        /// What came of it; dropped if this replica ceases to lead.
        answer: oneshot::Sender<Told>,
    },
    /// Merge a batch of another cluster.
    Remote {
        /// It.
        batch: RemoteBatch,
        /// How far the group has come with that source group.
        answer: oneshot::Sender<RemoteAnswer>,
    },
    /// A step of merging the full state of a group of another cluster.
    State {
        /// It.
        request: StateRequest,
        /// What came of it.
        answer: oneshot::Sender<Answer<StateVerdict>>,
    },
    /// Keep what a peer has acknowledged.
    LinkFloor {
        /// It.
        floor: LinkFloor,
        /// Whether it was applied.
        answer: oneshot::Sender<Verdict>,
    },
    /// Go by this set of clusters from now on, unless a newer one is known.
    Live {
        /// It.
        set: LiveSet,
        /// Whether it was applied.
        answer: oneshot::Sender<Verdict>,
    },
    /// Be synced from now on, with what is here.
    SwitchOn {
        /// Whether it was applied.
        answer: oneshot::Sender<Verdict>,
    },
    /// Commit a stamp at or above this time, so that keys due by then have passed everywhere.
    Tick {
        /// Milliseconds since 1970.
        at_ms: u64,
        /// Whether it was applied.
        answer: oneshot::Sender<Verdict>,
    },
}

impl Work {
    /// Answers that it was certainly not done, naming who leads instead.
    pub fn refuse(self, leader: Option<String>, term: u64) {
        let elsewhere = LeaderIs { node: leader.clone(), term };
        // Nobody may wait for an answer any more.
        match self {
            Work::Exec { commands, answer } => {
                let _ = answer.send(vec![Outcome::NotApplied { leader }; commands.len()]);
            }
            Work::Ask { answer, .. } => {
                let _ = answer.send(vec![Outcome::NotApplied { leader }]);
            }
            Work::Wait { answer, .. } => drop(answer.send(Told::NotLeader { leader })),
            Work::Remote { answer, .. } => drop(answer.send(Answer::NotLeader(elsewhere))),
            Work::State { answer, .. } => drop(answer.send(Answer::NotLeader(elsewhere))),
            Work::LinkFloor { answer, .. }
            | Work::Live { answer, .. }
            | Work::SwitchOn { answer }
            | Work::Tick { answer, .. } => drop(answer.send(Verdict::NotApplied)),
        }
    }
}

/// What the leader's node says of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaderClock {
    /// Its wall clock, in milliseconds since 1970.
    pub wall_ms: u64,
    /// The group's clock in applied state.
    pub applied: Hlc,
    /// For how long jobs have waited.
    pub now: Instant,
}

/// See the module.
pub struct Leader {
    context: Arc<GroupContext>,
    /// Its present run.
    pub run: Run,
    proposals: Vec<Proposal>,
    pub(super) upkeep: Upkeep,
    /// Who waits for keys.
    pub(super) room: Room,
}

impl Leader {
    /// Evaluates through `run`.
    pub fn new(context: Arc<GroupContext>, run: Run) -> Leader {
        let (upkeep, room) = (Upkeep::default(), Room::default());
        Leader { context, run, proposals: Vec::new(), upkeep, room }
    }

    /// Entries to propose, in this order, since this was last asked.
    pub fn take_proposals(&mut self) -> Vec<Proposal> {
        std::mem::take(&mut self.proposals)
    }

    /// Evaluates work. An error means that rows could not be read half way through: what the
    /// overlay holds of it may not be proposed, the run must end.
    pub fn evaluate(&mut self, rows: &dyn Rows, clock: LeaderClock, work: Work) -> io::Result<()> {
        self.work(rows, clock, work)?;
        self.rouse(rows, clock, false)
    }

    fn work(&mut self, rows: &dyn Rows, clock: LeaderClock, work: Work) -> io::Result<()> {
        match work {
            Work::Exec { commands, answer } => self.exec(rows, clock, &commands, answer),
            Work::Ask { ask, answer } => self.ask(rows, clock, &ask, answer),
            Work::Wait { wait, answer } => self.wait(rows, clock, wait, answer),
            Work::Remote { batch, answer } => {
                self.close(); // an entry has one origin
                let evaluated = self.remote(rows, clock, &batch, answer);
                self.close();
                evaluated
            }
            Work::State { request, answer } => {
                self.close();
                let evaluated = self.state(rows, clock, &request, answer);
                self.close();
                evaluated
            }
            Work::LinkFloor { floor, answer } => {
                self.entry(clock, answer, |run, _| merge::write_floor(run, rows, &floor))
            }
            Work::Live { set, answer } => {
                let context = Arc::clone(&self.context);
                self.entry(clock, answer, |run, _| {
                    let mut view = View::new(rows, &mut run.overlay);
                    let known = LiveSet::read(&view)?;
                    let set = match known {
                        Some(known) if known.version >= set.version => known,
                        known => {
                            let set = set.after(known, &cursor::read_view(&view)?);
                            view.put(keys::single(keys::LIVE), set.encode(), Parts::NONE);
                            set
                        }
                    };
                    let reborn = !life::is_current(&view, &context)?;
                    statemerge::refused_now(&mut view, &set, reborn)?;
                    levelled::follow(&mut view, &set)?;
                    life::follow(&mut view, &context, &set)
                })
            }
            Work::SwitchOn { answer } => {
                self.close(); // what was evaluated before has no stamps
                let context = Arc::clone(&self.context);
                let switched = self.entry(clock, answer, |run, stamp| {
                    synced::switch_on(&context, run, rows, *stamp)
                });
                self.close();
                switched
            }
            Work::Tick { at_ms, answer } => {
                let tick = self.context.stamp_at_ms(at_ms);
                self.entry(clock, answer, |run, stamp| {
                    run.observe(tick);
                    *stamp = (*stamp).max(tick);
                    Ok(())
                })
            }
        }
    }

    fn exec(
        &mut self,
        rows: &dyn Rows,
        clock: LeaderClock,
        commands: &[Command],
        answer: oneshot::Sender<Vec<Outcome>>,
    ) -> io::Result<()> {
        let job = ExecJob::new(commands.len(), answer);
        let job = self.run.begin_job(Box::new(job), clock.now);
        let mut failed = Ok(());
        let mut bytes = 0;
        for (index, command) in commands.iter().enumerate() {
            if self.run.is_stopped() || bytes > REPLY_BYTES_MAX {
                break; // what is not evaluated is not applied, and asked for again
            }
            let evaluated = self.command(rows, clock, (job, index), command);
            // Command by command: who waits hears of what one wrote before the next one takes it.
            let popped = command.spec.is_blocking();
            match evaluated.and_then(|reply| self.rouse(rows, clock, popped).map(|()| reply)) {
                Ok(reply) => bytes += reply,
                Err(error) => {
                    failed = Err(error);
                    break;
                }
            }
            if self.run.is_entry_full() {
                self.close();
            }
        }
        self.run.end_job(job);
        failed
    }

    /// Evaluates one command of a job into the open entry. Tells how many bytes its reply takes.
    fn command(
        &mut self,
        rows: &dyn Rows,
        clock: LeaderClock,
        (job, index): (JobId, usize),
        command: &Command,
    ) -> io::Result<usize> {
        let at = self.next_context(rows, clock, command.spec.is_write())?;
        let (run, stamp) = (&mut self.run, at.stamp);
        let mut txn = Txn::new(View::new(rows, &mut run.overlay), at);
        let reply = eval::command(&mut txn, command)?;
        let (tick, wrote) = (txn.needs_tick(), txn.wrote());
        if tick {
            // What this command saw end must have ended for every later leader too.
            run.observe(stamp);
        }
        self.upkeep.moved |= wrote;
        let bytes = reply.size();
        run.record(job, index, reply);
        run.add(job, index, (tick || wrote).then_some(stamp), tick);
        Ok(bytes)
    }

    /// When and where the next command is evaluated: under a stamp of its own if it writes.
    pub(super) fn next_context(
        &mut self,
        rows: &dyn Rows,
        clock: LeaderClock,
        writes: bool,
    ) -> io::Result<EvalContext> {
        let run = &mut self.run;
        let stamp = match writes {
            true => run.next_stamp(clock.wall_ms),
            false => self.context.stamp(run.clock_at(clock.wall_ms)),
        };
        let synced = run.synced(&self.context, rows)?;
        let (now_ms, applied_ms) = (stamp.hlc.ms(), clock.applied.ms());
        let mut at = eval_context(&self.context, synced, stamp, now_ms, applied_ms);
        at.forgotten_ms = run.forgotten_ms(rows)?;
        Ok(at)
    }

    /// An entry of our own that answers with its verdict only.
    fn entry(
        &mut self,
        clock: LeaderClock,
        answer: oneshot::Sender<Verdict>,
        write: impl FnOnce(&mut Run, &mut Stamp) -> io::Result<()>,
    ) -> io::Result<()> {
        let run = &mut self.run;
        let job = run.begin_job(Box::new(EntryJob::new(answer)), clock.now);
        let mut stamp = run.next_stamp(clock.wall_ms);
        let written = write(run, &mut stamp);
        if written.is_ok() {
            run.add(job, 0, Some(stamp), true);
        }
        run.end_job(job);
        written
    }

    fn remote(
        &mut self,
        rows: &dyn Rows,
        clock: LeaderClock,
        batch: &RemoteBatch,
        answer: oneshot::Sender<RemoteAnswer>,
    ) -> io::Result<()> {
        match merge::evaluate_batch(&self.context, &mut self.run, rows, clock.wall_ms, batch)? {
            // What it says was read through the overlay: it is true once that is applied.
            Merge::Answer(told) => self.job(clock, AnswerJob::new(told, answer), false),
            Merge::Entry { cursor, first, last } => {
                self.upkeep.moved |= !batch.effects.is_empty();
                self.run.set_origin(batch.origin, first, last);
                let told = Answer::Done(remote::Verdict::Accepted { cursor });
                self.job(clock, AnswerJob::new(told, answer), true);
            }
        }
        Ok(())
    }

    fn state(
        &mut self,
        rows: &dyn Rows,
        clock: LeaderClock,
        request: &StateRequest,
        answer: oneshot::Sender<Answer<StateVerdict>>,
    ) -> io::Result<()> {
        let end = statemerge::evaluate(&self.context, &mut self.run, rows, clock.wall_ms, request)?;
        match end {
            StateEnd::Answer(told) => self.job(clock, AnswerJob::new(told, answer), false),
            StateEnd::Entry { origin, last, verdict } => {
                self.upkeep.moved = true;
                self.run.set_origin(origin, last, last);
                let told = Answer::Done(verdict);
                self.job(clock, AnswerJob::new(told, answer), true);
            }
        }
        Ok(())
    }

    /// One piece of work in the open entry, or, if it wrote nothing, on the entry before it.
    fn job(&mut self, clock: LeaderClock, job: impl Job + 'static, wrote: bool) {
        let job = self.run.begin_job(Box::new(job), clock.now);
        self.run.add(job, 0, None, wrote);
        self.run.end_job(job);
    }

    /// What is due by itself: keys that have ended, cleaning, ticks.
    pub fn housekeep(&mut self, rows: &dyn Rows, clock: LeaderClock) -> io::Result<()> {
        self.run.overlay.watches.age(clock.now);
        if !self.run.can_take() {
            return Ok(());
        }
        self.close();
        let done = self.upkeep.step(&self.context, &mut self.run, rows, clock);
        self.close();
        done?;
        self.rouse(rows, clock, false)
    }

    /// Closes the open entry, if it holds anything that must be proposed.
    pub fn close(&mut self) {
        if self.run.is_stopped() {
            return;
        }
        if let Some(proposal) = self.run.close() {
            metrics::histogram!("flotilla_entry_bytes").record(proposal.bytes.len() as f64);
            self.proposals.push(proposal);
        }
    }
}

/// What a command may know of the group and of time. One that writes must also be told what the
/// group has forgotten ([`Run::forgotten_ms`]). What a write leaves to chance its stamp decides: no two
/// have the same.
pub(crate) fn eval_context(
    context: &GroupContext,
    synced: Synced,
    stamp: Stamp,
    now_ms: u64,
    applied_clock_ms: u64,
) -> EvalContext {
    let GroupContext { origin, slots, .. } = *context;
    let (chance, forgotten_ms) = (stamp.hlc.0, 0);
    EvalContext { origin, slots, synced, stamp, now_ms, applied_clock_ms, forgotten_ms, chance }
}
