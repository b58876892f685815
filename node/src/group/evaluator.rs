//! The driver of a group's evaluator: takes work, evaluates it through a [`Run`] while this replica
//! leads, proposes the entries, hands verdicts back.
//!
//! One task per group and node. On followers it refuses work, naming the leader. Between winning an
//! election and having applied the term's blank entry work waits in the queue; after a refusal work
//! is refused until everything in flight has ended.

use crate::clock;
use crate::command::Command;
use crate::engine::rows::TabletRows;
use crate::eval::EvalContext;
use crate::group::GroupContext;
use crate::group::apply::AppliedState;
use crate::group::exec::{Outcome, REPLY_BYTES_MAX};
use crate::group::merge::{self, Merge};
use crate::group::remote::{Answer, LeaderIs, LinkFloor, RemoteAnswer, RemoteBatch};
use crate::group::run::{EntryJob, ExecJob, Run, Unproposed, Verdict};
use crate::raft::{self, Completion, Completions, RaftGroup, RaftRole, RaftStatus};
use flotilla_topology::stamp::Stamp;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot, watch};

/// After so long without a verdict a client is told that the outcome is unknown.
pub const UNKNOWN_AFTER: Duration = Duration::from_secs(5);
/// How often waiting jobs are looked at for that, and expired keys are looked for.
const HOUSEKEEPING_INTERVAL: Duration = Duration::from_millis(250);
/// Expired keys that one housekeeping deletes at most, so that clients wait for few of them.
const EXPIRE_BATCH: usize = 256;
/// Confirmations of leadership whose answer waits for this task at once, at most.
const CONFIRMATIONS_MAX: usize = 64;

/// What the evaluator is asked to do.
pub enum Work {
    /// Evaluate a connection's commands, in order.
    Exec {
        /// They.
        commands: Vec<Command>,
        /// Outcomes, one for each.
        answer: oneshot::Sender<Vec<Outcome>>,
    },
    /// Merge a batch of another cluster.
    Remote {
        /// It.
        batch: RemoteBatch,
        /// How far the group has come with that source group.
        answer: oneshot::Sender<RemoteAnswer>,
    },
    /// Keep what a peer has acknowledged.
    LinkFloor {
        /// It.
        floor: LinkFloor,
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

type Confirmation = (u64, Unproposed, Verdict);

pub(crate) struct Evaluator {
    context: Arc<GroupContext>,
    raft: RaftGroup,
    status: watch::Receiver<RaftStatus>,
    applied: watch::Receiver<AppliedState>,
    work: mpsc::Receiver<Work>,
    completions: Completions,
    run: Option<Run>,
    rows: TabletRows,
    confirm: mpsc::Sender<Confirmation>,
    confirmations: mpsc::Receiver<Confirmation>,
}

impl Evaluator {
    pub(crate) fn new(
        context: Arc<GroupContext>,
        raft: RaftGroup,
        applied: watch::Receiver<AppliedState>,
        work: mpsc::Receiver<Work>,
        completions: Completions,
    ) -> Evaluator {
        let (confirm, confirmations) = mpsc::channel(CONFIRMATIONS_MAX);
        let rows = TabletRows::new(&context.engine, applied.borrow().tablet);
        let status = raft.watch();
        let run = None;
        Evaluator {
            context,
            raft,
            status,
            applied,
            work,
            completions,
            run,
            rows,
            confirm,
            confirmations,
        }
    }

    /// Runs until the group's handle is dropped.
    pub(crate) async fn drive(mut self) {
        let mut housekeeping = tokio::time::interval(HOUSEKEEPING_INTERVAL);
        housekeeping.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            self.follow_raft();
            let takes = self.takes_work();
            tokio::select! {
                biased;
                Some(completion) = self.completions.recv() => self.completed(completion),
                Some(confirmation) = self.confirmations.recv() => self.confirmed(confirmation),
                changed = self.status.changed() => if changed.is_err() { break },
                changed = self.applied.changed(), if self.run.is_none() => {
                    if changed.is_err() { break }
                }
                work = self.work.recv(), if takes => match work {
                    Some(work) => self.take(work).await,
                    None => break,
                },
                _ = housekeeping.tick() => self.housekeep().await,
            }
        }
        if let Some(mut run) = self.run.take() {
            run.stop();
            run.give_up(Instant::now());
        }
    }

    /// Starts and ends runs as leadership comes and goes.
    fn follow_raft(&mut self) {
        let (ready, term) = {
            let status = self.status.borrow_and_update();
            (status.ready(), status.term)
        };
        if let Some(run) = &mut self.run {
            if !run.is_stopped() && (!ready || term != run.term) {
                run.stop();
            }
            if run.is_stopped() && run.is_drained() {
                self.run = None;
            }
        }
        let state = *self.applied.borrow_and_update();
        if self.run.is_none() && ready && state.fence.term == term {
            self.rows = TabletRows::new(&self.context.engine, state.tablet);
            self.run = Some(Run::start(term, state.fence, state.clock, self.context.origin));
            tracing::info!(group = %self.context.group, term, "leads and evaluates");
        }
    }

    /// Whether to look at the queue: to evaluate, or to refuse. A leader that has not applied its
    /// blank entry yet does neither.
    fn takes_work(&self) -> bool {
        match &self.run {
            Some(run) => run.is_stopped() || run.can_take(),
            None => self.status.borrow().role != RaftRole::Leader,
        }
    }

    fn completed(&mut self, completion: Completion) {
        let verdict = match completion.verdict {
            raft::Verdict::Applied(at, raft::Outcome::TookEffect) => Verdict::Applied(at),
            raft::Verdict::Applied(_, raft::Outcome::Fenced) => Verdict::NotApplied,
            raft::Verdict::Refused { .. } => Verdict::NotApplied,
            raft::Verdict::Unknown => Verdict::Unknown,
        };
        if let Some(run) = &mut self.run {
            run.complete(completion.tag, verdict);
        }
    }

    fn confirmed(&mut self, (term, unproposed, verdict): Confirmation) {
        // A run of another term has other jobs; those of this one were given up with their run.
        if let Some(run) = self.run.as_mut().filter(|run| run.term == term) {
            run.settle_unproposed(unproposed, verdict);
        }
    }

    /// Evaluates `first` and what else waits into one entry, or more if it is much, and proposes.
    async fn take(&mut self, first: Work) {
        let mut next = Some(first);
        while let Some(work) = next.take() {
            if self.run.as_ref().is_some_and(|run| !run.is_stopped()) {
                self.evaluate(work).await;
            } else {
                self.refuse(work);
            }
            if self.run.as_ref().is_some_and(|run| run.can_take() && !run.is_entry_full()) {
                next = self.work.try_recv().ok();
            }
        }
        self.close().await;
    }

    fn refuse(&self, work: Work) {
        let (leader, term) = {
            let status = self.status.borrow();
            (status.leader.as_ref().map(|(_, member)| member.name.clone()), status.term)
        };
        match work {
            Work::Exec { commands, answer } => {
                let _ = answer.send(vec![Outcome::NotApplied { leader }; commands.len()]);
            }
            Work::Remote { answer, .. } => {
                let _ = answer.send(Answer::NotLeader(LeaderIs { node: leader, term }));
            }
            Work::LinkFloor { answer, .. } | Work::Tick { answer, .. } => {
                let _ = answer.send(Verdict::NotApplied);
            }
        }
    }

    async fn evaluate(&mut self, work: Work) {
        let evaluated = match work {
            Work::Exec { commands, answer } => self.evaluate_commands(commands, answer).await,
            Work::Remote { batch, answer } => {
                self.close().await; // an entry has one origin
                let evaluated = self.evaluate_remote(batch, answer);
                self.close().await;
                evaluated
            }
            Work::LinkFloor { floor, answer } => self.evaluate_entry(answer, |run, rows, stamp| {
                merge::write_floor(run, rows, &floor)?;
                Ok(Some(stamp))
            }),
            Work::Tick { at_ms, answer } => {
                let tick = self.context.stamp_at_ms(at_ms);
                self.evaluate_entry(answer, |run, _, stamp| {
                    run.observe(tick);
                    Ok(Some(stamp.max(tick)))
                })
            }
        };
        if let Err(error) = evaluated {
            // A read failed half way through a command: what the overlay holds of it is nothing
            // that may be proposed.
            tracing::error!(group = %self.context.group, %error, "evaluation failed, the run ends");
            if let Some(run) = &mut self.run {
                run.stop();
            }
        }
    }

    async fn evaluate_commands(
        &mut self,
        commands: Vec<Command>,
        answer: oneshot::Sender<Vec<Outcome>>,
    ) -> io::Result<()> {
        let Some(run) = &mut self.run else { return Ok(()) };
        let job = run.begin_job(Box::new(ExecJob::new(commands.len(), answer)), Instant::now());
        let mut failed = Ok(());
        let mut bytes = 0;
        for (index, command) in commands.iter().enumerate() {
            let Some(run) = self.run.as_mut().filter(|run| !run.is_stopped()) else { break };
            if bytes > REPLY_BYTES_MAX {
                break; // what is not evaluated is not applied, and asked for again
            }
            let applied_clock = self.applied.borrow().clock;
            match merge::evaluate_command(
                &self.context,
                run,
                &self.rows,
                applied_clock,
                (job, index),
                command,
            ) {
                Ok(reply) => bytes += reply,
                Err(error) => {
                    failed = Err(error);
                    break;
                }
            }
            if run.is_entry_full() {
                self.close().await;
            }
        }
        if let Some(run) = &mut self.run {
            run.end_job(job);
        }
        failed
    }

    /// An entry of our own that answers with its verdict only.
    fn evaluate_entry(
        &mut self,
        answer: oneshot::Sender<Verdict>,
        write: impl FnOnce(&mut Run, &TabletRows, Stamp) -> io::Result<Option<Stamp>>,
    ) -> io::Result<()> {
        let Some(run) = &mut self.run else { return Ok(()) };
        let job = run.begin_job(Box::new(EntryJob::new(answer)), Instant::now());
        let stamp = run.next_stamp(clock::wall_ms());
        let written = write(run, &self.rows, stamp);
        if let Ok(stamp) = &written {
            run.add(job, 0, *stamp, true);
        }
        run.end_job(job);
        written.map(|_| ())
    }

    fn evaluate_remote(
        &mut self,
        batch: RemoteBatch,
        answer: oneshot::Sender<RemoteAnswer>,
    ) -> io::Result<()> {
        let Some(run) = &mut self.run else { return Ok(()) };
        match merge::evaluate_batch(&self.context, run, &self.rows, &batch)? {
            Merge::Answer(now) => {
                let _ = answer.send(now);
            }
            Merge::Entry { cursor, first, last } => {
                run.set_origin(batch.origin, first, last);
                let job = Box::new(merge::MergeJob::new(cursor, answer));
                let job = run.begin_job(job, Instant::now());
                run.add(job, 0, None, true);
                run.end_job(job);
            }
        }
        Ok(())
    }

    /// Proposes the open entry, if it holds anything that must be; otherwise lets what was
    /// evaluated ride on the last entry, or confirms that this replica still leads.
    async fn close(&mut self) {
        let Some(run) = self.run.as_mut().filter(|run| !run.is_stopped()) else { return };
        if let Some(proposal) = run.close() {
            let (term, seq) = (run.term, proposal.seq);
            metrics::histogram!("flotilla_entry_bytes").record(proposal.bytes.len() as f64);
            if let Err(stopped) = self.raft.propose(proposal.bytes, term, seq).await {
                tracing::error!(group = %self.context.group, error = %stopped, "cannot propose");
                if let Some(run) = &mut self.run {
                    run.complete(seq, Verdict::Unknown);
                }
            }
        } else if run.has_unproposed() {
            let (term, unproposed) = (run.term, run.take_unproposed());
            let (raft, confirm) = (self.raft.clone(), self.confirm.clone());
            tokio::spawn(async move {
                let verdict = match raft.read_index().await {
                    Ok(at) => Verdict::Applied(at),
                    Err(_) => Verdict::NotApplied,
                };
                let _ = confirm.send((term, unproposed, verdict)).await; // the group may be gone
            });
        }
    }

    async fn housekeep(&mut self) {
        let Some(run) = &mut self.run else { return };
        if let Some(deadline) = Instant::now().checked_sub(UNKNOWN_AFTER) {
            run.give_up(deadline);
        }
        if self.context.synced || !run.can_take() {
            return; // synced: what has expired stays until every cluster has seen it
        }
        if let Err(error) = merge::expire_due(&self.context, run, &self.rows, EXPIRE_BATCH) {
            tracing::error!(group = %self.context.group, %error, "expiry failed, the run ends");
            run.stop();
        }
        self.close().await;
    }
}

/// What a command may know of the group and of time.
pub(crate) fn eval_context(
    context: &GroupContext,
    stamp: Stamp,
    now_ms: u64,
    applied_clock_ms: u64,
) -> EvalContext {
    let GroupContext { origin, slots, synced, .. } = *context;
    EvalContext { origin, slots, synced, stamp, now_ms, applied_clock_ms }
}
