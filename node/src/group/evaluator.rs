//! The driver of a group's evaluator: takes work, evaluates it through a [`Run`] while this replica
//! leads, proposes the entries, hands verdicts back.
//!
//! One task per group and node. On followers it refuses work, naming the leader. Between winning an
//! election and having applied the term's blank entry work waits in the queue, and so it does after a
//! leadership was handed over, until somebody knows who leads now; after a refusal work is refused until
//! everything in flight has ended. A clock that is too far ahead of the voters' is held back (`skew`).

use crate::clock;
use crate::engine::rocks::Engine;
use crate::engine::rows::TabletRows;
use crate::group::GroupContext;
use crate::group::apply::AppliedState;
use crate::group::handover::{HandOver, LOOK_AGAIN_AFTER};
use crate::group::leader::{Leader, LeaderClock, Work};
use crate::group::run::{Run, Unproposed, Verdict};
use crate::group::skew::{Clocks, SkewLimit, voters_clocks};
use crate::raft::{self, ChangeError, Completion, Completions, RaftGroup, RaftRole, RaftStatus};
use futures::future::OptionFuture;
use parking_lot::Mutex;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};

/// After so long without a verdict a client is told that the outcome is unknown.
pub const UNKNOWN_AFTER: Duration = Duration::from_secs(5);
/// How often waiting jobs are looked at for that, and what is due by itself is done.
const HOUSEKEEPING_INTERVAL: Duration = Duration::from_millis(250);
/// The same for a leader that had no work for [`IDLE_AFTER`].
const HOUSEKEEPING_INTERVAL_IDLE: Duration = Duration::from_secs(2);
/// Work, its ends and what is done by itself make a leader busy for so long.
const IDLE_AFTER: Duration = Duration::from_secs(5);
/// Confirmations of leadership whose answer waits for this task at once, at most.
const CONFIRMATIONS_MAX: usize = 64;
/// So long work waits for the name of the next leader, at most: an election takes longer than a transfer.
const SUCCESSOR_WAIT: Duration = Duration::from_millis(500);

type Confirmation = (u64, Unproposed, Verdict);

pub(crate) struct Evaluator {
    context: Arc<GroupContext>,
    engine: Arc<Engine>,
    raft: RaftGroup,
    status: watch::Receiver<RaftStatus>,
    applied: watch::Receiver<AppliedState>,
    work: mpsc::Receiver<Work>,
    completions: Completions,
    leader: Option<Leader>,
    rows: TabletRows,
    confirm: mpsc::Sender<Confirmation>,
    confirmations: mpsc::Receiver<Confirmation>,
    clocks: Arc<dyn Clocks>,
    skew: Arc<Mutex<SkewLimit>>,
    /// When there last was something to do.
    busy: Instant,
    /// Until when work waits for the name of the next leader, since the last handover.
    successor_by: Option<Instant>,
    handovers: mpsc::Receiver<HandOver>,
    /// The one that is under way: no work is taken.
    handing_over: Option<HandOver>,
}

impl Evaluator {
    pub(crate) fn new(
        context: Arc<GroupContext>,
        engine: Arc<Engine>,
        raft: RaftGroup,
        applied: watch::Receiver<AppliedState>,
        (work, handovers): (mpsc::Receiver<Work>, mpsc::Receiver<HandOver>),
        completions: Completions,
        (clocks, skew): (Arc<dyn Clocks>, Arc<Mutex<SkewLimit>>),
    ) -> Evaluator {
        let (confirm, confirmations) = mpsc::channel(CONFIRMATIONS_MAX);
        let rows = TabletRows::new(&engine, applied.borrow().tablet);
        let status = raft.watch();
        let leader = None;
        Evaluator {
            context,
            engine,
            raft,
            status,
            applied,
            work,
            completions,
            leader,
            rows,
            confirm,
            confirmations,
            clocks,
            skew,
            busy: Instant::now(),
            successor_by: None,
            handovers,
            handing_over: None,
        }
    }

    /// Runs until the group's handle is dropped.
    pub(crate) async fn drive(mut self) {
        let mut housekeeping = tokio::time::interval(HOUSEKEEPING_INTERVAL);
        housekeeping.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            self.hand_over().await;
            self.follow_raft();
            let takes = self.takes_work();
            let goes_on = self.handing_over.is_none();
            let look_again = (!goes_on).then(|| tokio::time::sleep(LOOK_AGAIN_AFTER));
            let due = self.leader.as_ref().filter(|_| goes_on).and_then(Leader::wait_due);
            let due = due.map(|due| tokio::time::sleep_until(due.into()));
            let patience = self.waits_for_successor();
            let patience = patience.map(|until| tokio::time::sleep_until(until.into()));
            tokio::select! {
                biased;
                Some(completion) = self.completions.recv() => self.completed(completion),
                Some(confirmation) = self.confirmations.recv() => self.confirmed(confirmation),
                changed = self.status.changed() => if changed.is_err() { break },
                Some(asked) = self.handovers.recv(), if goes_on => self.handing_over = Some(asked),
                Some(()) = OptionFuture::from(look_again) => {}
                changed = self.applied.changed(), if self.leader.is_none() => {
                    if changed.is_err() { break }
                }
                work = self.work.recv(), if takes => match work {
                    Some(work) => {
                        if self.is_idle() {
                            housekeeping.reset_after(HOUSEKEEPING_INTERVAL);
                        }
                        self.take(work).await;
                        self.busy = Instant::now();
                    }
                    None => break,
                },
                _ = housekeeping.tick(), if self.leader.is_some() && goes_on => {
                    self.housekeep().await;
                    if self.is_idle() {
                        housekeeping.reset_after(HOUSEKEEPING_INTERVAL_IDLE);
                    }
                }
                Some(()) = OptionFuture::from(due) => self.rouse(),
                Some(()) = OptionFuture::from(patience) => {}
            }
        }
        if let Some(mut leader) = self.leader.take() {
            leader.run.stop();
            leader.run.give_up(Instant::now());
        }
    }

    /// Starts and ends runs as leadership comes and goes.
    fn follow_raft(&mut self) {
        let (ready, term) = {
            let status = self.status.borrow_and_update();
            (status.ready(), status.term)
        };
        if let Some(leader) = &mut self.leader {
            if !leader.run.is_stopped() && (!ready || term != leader.run.term) {
                leader.run.stop();
            }
            if leader.run.is_stopped() {
                leader.end_waits();
                if leader.run.is_drained() {
                    self.leader = None;
                }
            }
        }
        let state = *self.applied.borrow_and_update();
        let may_lead = ready && !self.raft.has_handed_over(term);
        if self.leader.is_none() && may_lead && state.fence.term == term {
            self.rows = TabletRows::new(&self.engine, state.tablet);
            let run = Run::start(term, state.fence, state.clock, self.context.origin);
            self.leader = Some(Leader::new(self.context.clone(), run));
            self.busy = Instant::now();
            self.learn_clocks();
            tracing::info!(group = %self.context.group, term, "leads and evaluates");
        }
    }

    /// Has the next leader told, once nothing is in flight and it has everything.
    async fn hand_over(&mut self) {
        let Some(asked) = self.handing_over.take() else { return };
        let drained = self.leader.as_ref().is_none_or(|leader| leader.run.is_drained());
        if !drained && asked.can_wait() {
            self.handing_over = Some(asked);
            return;
        }
        let told = self.raft.transfer_leader(asked.to).await;
        if matches!(told, Err(ChangeError::Refused(_))) && asked.can_wait() {
            self.handing_over = Some(asked);
            return;
        }
        if let (Ok(()), Some(leader)) = (&told, &mut self.leader) {
            leader.run.stop();
            self.successor_by = Some(Instant::now() + SUCCESSOR_WAIT);
        }
        asked.end(told);
    }

    /// Whether to look at the queue: to evaluate, or to refuse. A leader that has not applied its
    /// blank entry yet does neither, nor does who waits for the one that it handed over to.
    fn takes_work(&self) -> bool {
        match self.leader.as_ref().map(|leader| &leader.run) {
            _ if self.handing_over.is_some() => false,
            Some(run) if !run.is_stopped() => run.can_take(),
            _ if self.waits_for_successor().is_some() => false,
            Some(_) => true,
            None => !self.is_leader(),
        }
    }

    /// Whether this replica leads in a term that it has not handed over.
    fn is_leader(&self) -> bool {
        let status = self.status.borrow();
        status.role == RaftRole::Leader && !self.raft.has_handed_over(status.term)
    }

    /// Who else leads, as far as is known.
    fn successor(&self) -> Option<String> {
        let status = self.status.borrow();
        let (leader, member) = status.leader.as_ref()?;
        (*leader != self.raft.me()).then(|| member.name.clone())
    }

    /// Until when it does, if this replica has handed over and nobody else is known to lead.
    fn waits_for_successor(&self) -> Option<Instant> {
        let until = self.successor_by.filter(|until| Instant::now() < *until)?;
        (self.successor().is_none() && !self.is_leader()).then_some(until)
    }

    fn is_idle(&self) -> bool {
        let drained = self.leader.as_ref().is_none_or(|leader| leader.run.is_drained());
        drained && self.busy.elapsed() >= IDLE_AFTER
    }

    fn completed(&mut self, completion: Completion) {
        self.busy = Instant::now();
        let verdict = match completion.verdict {
            raft::Verdict::Applied(at, raft::Outcome::TookEffect) => Verdict::Applied(at),
            raft::Verdict::Applied(_, raft::Outcome::Fenced) => Verdict::NotApplied,
            raft::Verdict::Refused { .. } => Verdict::NotApplied,
            raft::Verdict::Unknown => Verdict::Unknown,
        };
        if let Some(leader) = &mut self.leader {
            leader.run.complete(completion.tag, verdict);
        }
    }

    fn confirmed(&mut self, (term, unproposed, verdict): Confirmation) {
        // A run of another term has other jobs; those of this one were given up with their run.
        if let Some(leader) = self.leader.as_mut().filter(|leader| leader.run.term == term) {
            leader.run.settle_unproposed(unproposed, verdict);
        }
    }

    /// Evaluates `first` and what else waits into one entry, or more if it is much, and proposes. What
    /// other connections bring in this turn of the runtime goes along: an entry costs what tens of
    /// commands do.
    async fn take(&mut self, first: Work) {
        tokio::task::yield_now().await;
        let mut next = Some(first);
        while let Some(work) = next.take() {
            if self.leader.as_ref().is_some_and(|leader| !leader.run.is_stopped()) {
                self.evaluate(work).await;
            } else {
                self.refuse(work);
            }
            let run = self.leader.as_ref().map(|leader| &leader.run);
            if run.is_some_and(|run| run.can_take() && !run.is_entry_full()) {
                next = self.work.try_recv().ok();
            }
        }
        self.close().await;
    }

    fn refuse(&self, work: Work) {
        let term = self.status.borrow().term;
        work.refuse(self.successor(), term);
    }

    /// Asks for the clocks of the voters, shows how far ours is ahead of them, and warns when it is
    /// held back.
    fn learn_clocks(&mut self) {
        let (wall_ms, now) = (clock::wall_ms(), Instant::now());
        let known = voters_clocks(&self.status.borrow(), wall_ms, self.clocks.as_ref());
        let mut skew = self.skew.lock();
        skew.learn(known, now);
        let ahead_ms = skew.ahead_ms(wall_ms, now);
        metrics::gauge!("flotilla_clock_ahead_ms", "group" => self.context.group.to_string())
            .set(ahead_ms as f64);
        if ahead_ms > self.context.max_skew_ms && skew.warns(now) {
            tracing::warn!(
                group = %self.context.group, ahead_ms, max_skew_ms = self.context.max_skew_ms,
                "this node's clock is too far ahead of those of the group's voters and is held \
                 back: set the clock"
            );
        }
    }

    fn clock(&self) -> LeaderClock {
        let applied = self.applied.borrow().clock;
        let now = Instant::now();
        LeaderClock { wall_ms: self.skew.lock().limited_ms(clock::wall_ms(), now), applied, now }
    }

    async fn evaluate(&mut self, work: Work) {
        let clock = self.clock();
        let Some(leader) = &mut self.leader else { return };
        let evaluated = leader.evaluate(&self.rows, clock, work);
        self.ends_on_error(evaluated);
        self.propose().await;
    }

    /// A read failed half way through: what the overlay holds of it may not be proposed.
    fn ends_on_error(&mut self, evaluated: io::Result<()>) {
        if let (Err(error), Some(leader)) = (evaluated, &mut self.leader) {
            tracing::error!(group = %self.context.group, %error, "evaluation failed, the run ends");
            leader.run.stop();
        }
    }

    async fn propose(&mut self) {
        let Some(leader) = &mut self.leader else { return };
        let term = leader.run.term;
        for proposal in leader.take_proposals() {
            if let Err(stopped) = self.raft.propose(proposal.bytes, term, proposal.seq).await {
                tracing::error!(group = %self.context.group, error = %stopped, "cannot propose");
                leader.run.complete(proposal.seq, Verdict::Unknown);
            }
        }
    }

    /// Proposes the open entry, if it holds anything that must be; otherwise lets what was
    /// evaluated ride on the last entry, or confirms that this replica still leads.
    async fn close(&mut self) {
        let Some(leader) = &mut self.leader else { return };
        leader.close();
        if !leader.run.is_stopped() && leader.run.has_unproposed() {
            let (term, unproposed) = (leader.run.term, leader.run.take_unproposed());
            let (raft, confirm) = (self.raft.clone(), self.confirm.clone());
            tokio::spawn(async move {
                let verdict = match raft.read_index().await {
                    Ok(at) => Verdict::Applied(at),
                    Err(_) => Verdict::NotApplied,
                };
                let _ = confirm.send((term, unproposed, verdict)).await; // the group may be gone
            });
        }
        self.propose().await;
    }

    /// Does what is due for clients that wait.
    fn rouse(&mut self) {
        let clock = self.clock();
        let Some(leader) = &mut self.leader else { return };
        let roused = leader.rouse_due(&self.rows, clock);
        self.ends_on_error(roused);
    }

    async fn housekeep(&mut self) {
        if self.leader.is_none() {
            return;
        }
        self.learn_clocks();
        let clock = self.clock();
        let Some(leader) = &mut self.leader else { return };
        if let Some(deadline) = clock.now.checked_sub(UNKNOWN_AFTER) {
            leader.run.give_up(deadline);
        }
        let kept = leader.housekeep(&self.rows, clock);
        self.ends_on_error(kept);
        self.propose().await;
    }
}
