//! How a group's leader watches keys and carries out transactions.
//!
//! Commands of a transaction are evaluated one by one, each with a stamp of its own, into a draft: an
//! overlay above the run's. Only a whole transaction is taken over from there into the open entry, so
//! one that turns out to be too large has written nothing, and no entry ends within one.
//!
//! Watches are kept by the run's overlay, where every write comes by, and are gone with the run: a
//! key is unchanged only to the run that began to watch it. Whoever is told that a key is watched is
//! told after everything evaluated before has taken effect, so what it reads next is no older.

use crate::command::Command;
use crate::engine::view::{Overlay, Rows, View};
use crate::eval::{self, EvalContext, Txn, WRITE_BYTES_MAX};
use crate::group::exec::Outcome;
use crate::group::leader::{Leader, LeaderClock};
use crate::group::run::{ExecJob, JobId, Run};
use crate::group::transaction::{Ask, Since, Transaction, Watch, told};
use crate::resp::{COMMAND_REPLY_BYTES_MAX, Reply};
use bytes::Bytes;
use flotilla_topology::slot::Slot;
use flotilla_topology::stamp::Stamp;
use std::io;
use tokio::sync::oneshot;

/// Bytes of a draft in memory above which the transaction is given up at once. More than a
/// transaction may write, since rows cost more here than in an entry.
const DRAFT_BYTES_MAX: usize = 64 << 20;

/// What a transaction has come to so far.
struct Draft {
    overlay: Overlay,
    replies: Vec<Reply>,
    reply_bytes: usize,
    /// Stamps of the first and the last command with effects.
    stamps: Option<(Stamp, Stamp)>,
    /// A key was found ended that the log does not know to have ended: the entry must say so.
    ticks: bool,
}

impl Draft {
    fn new() -> Draft {
        let mut overlay = Overlay::new();
        overlay.begin(1);
        Draft { overlay, replies: Vec::new(), reply_bytes: 0, stamps: None, ticks: false }
    }

    /// Why it cannot go on.
    fn refusal(&self) -> Option<Reply> {
        let line = if self.reply_bytes > COMMAND_REPLY_BYTES_MAX {
            "ERR not executed: the replies of this transaction are larger than 48 MiB".to_owned()
        } else if self.overlay.entry_bytes() > DRAFT_BYTES_MAX {
            too_much()
        } else {
            return None;
        };
        Some(Reply::error(line))
    }
}

fn too_much() -> String {
    format!("ERR not executed: a transaction may write {WRITE_BYTES_MAX} bytes: split it")
}

impl Run {
    /// Whether a watched key was certainly not changed, nor did it end.
    fn is_unchanged(&self, watch: &Watch, now_ms: u64) -> bool {
        let Since { term, run, change, end_ms } = watch.since;
        let ended = end_ms != 0 && end_ms <= now_ms;
        let ours = term == self.term && run == self.number;
        let watches = &self.overlay.watches;
        ours && !ended && watches.is_unchanged(Slot::of(&watch.key), &watch.key, change)
    }
}

impl Leader {
    /// Does what is asked beside plain commands, as one job with one outcome.
    pub(super) fn ask(
        &mut self,
        rows: &dyn Rows,
        clock: LeaderClock,
        ask: &Ask,
        answer: oneshot::Sender<Vec<Outcome>>,
    ) -> io::Result<()> {
        let job = self.run.begin_job(Box::new(ExecJob::new(1, answer)), clock.now);
        let evaluated = match ask {
            Ask::Watch(keys) => self.watch(rows, clock, keys, job),
            Ask::Transact(transaction) => self.transact(rows, clock, transaction, job),
        };
        self.run.end_job(job);
        if self.run.is_entry_full() {
            self.close();
        }
        evaluated
    }

    fn watch(
        &mut self,
        rows: &dyn Rows,
        clock: LeaderClock,
        keys: &[Bytes],
        job: JobId,
    ) -> io::Result<()> {
        let at = self.next_context(rows, clock, false)?;
        let run = &mut self.run;
        let mut ends = Vec::with_capacity(keys.len());
        let mut change = 0;
        for key in keys {
            let txn = Txn::new(View::new(rows, &mut run.overlay), at);
            ends.push(eval::end_of_key(&txn, key)?);
            change = run.overlay.watches.watch(Slot::of(key), key, clock.now);
        }
        let since = Since { term: run.term, run: run.number, change, end_ms: 0 };
        run.record(job, 0, told(since, ends));
        run.add(job, 0, None, false);
        Ok(())
    }

    fn transact(
        &mut self,
        rows: &dyn Rows,
        clock: LeaderClock,
        transaction: &Transaction,
        job: JobId,
    ) -> io::Result<()> {
        let now_ms = self.run.clock_at(clock.wall_ms).ms();
        let unchanged = |watch: &Watch| self.run.is_unchanged(watch, now_ms);
        let mut draft = Draft::new();
        let reply = match transaction.watches.iter().all(unchanged) {
            true => self.carry_out(rows, clock, transaction, &mut draft)?,
            false => {
                metrics::counter!("flotilla_transactions_total", "outcome" => "changed")
                    .increment(1);
                Reply::NullArray
            }
        };
        let run = &mut self.run;
        run.record(job, 0, reply);
        let (first, last) = draft.stamps.unzip();
        run.add(job, 0, first, draft.ticks);
        if last > first {
            run.add(job, 0, last, draft.ticks);
        }
        Ok(())
    }

    /// Evaluates the list of commands that the conditions choose, and takes over what it wrote.
    fn carry_out(
        &mut self,
        rows: &dyn Rows,
        clock: LeaderClock,
        transaction: &Transaction,
        draft: &mut Draft,
    ) -> io::Result<Reply> {
        let met = match self.is_met(rows, clock, transaction, draft)? {
            Ok(met) => met,
            Err(reply) => return Ok(reply),
        };
        let commands = if met { &transaction.then } else { &transaction.otherwise };
        for command in commands {
            self.draft(rows, clock, command, draft)?;
            if let Some(reply) = draft.refusal() {
                return Ok(refused(draft, reply));
            }
        }
        let batch = draft.overlay.finish();
        if batch.bytes() > WRITE_BYTES_MAX {
            return Ok(refused(draft, Reply::error(too_much())));
        }
        self.upkeep.moved |= !batch.is_empty();
        batch.write_to(&mut View::new(rows, &mut self.run.overlay));
        metrics::counter!("flotilla_transactions_total", "outcome" => "done").increment(1);
        let replies = Reply::Array(std::mem::take(&mut draft.replies));
        Ok(match transaction.conditions.is_empty() {
            true => replies,
            false => Reply::Array(vec![Reply::Int(i64::from(met)), replies]),
        })
    }

    /// Whether all conditions are met; the inner error is the answer.
    fn is_met(
        &mut self,
        rows: &dyn Rows,
        clock: LeaderClock,
        transaction: &Transaction,
        draft: &mut Draft,
    ) -> io::Result<Result<bool, Reply>> {
        for condition in &transaction.conditions {
            let at = self.next_context(rows, clock, false)?;
            let txn = Txn::new(View::new(rows, &mut self.run.overlay), at);
            let met = eval::is_met(&txn, condition)?;
            let ticks = txn.needs_tick();
            self.note(at, draft, false, ticks);
            if met != Ok(true) {
                return Ok(met);
            }
        }
        Ok(Ok(true))
    }

    /// Evaluates one command into the draft.
    fn draft(
        &mut self,
        rows: &dyn Rows,
        clock: LeaderClock,
        command: &Command,
        draft: &mut Draft,
    ) -> io::Result<()> {
        let at = self.next_context(rows, clock, command.spec.is_write())?;
        let below = View::new(rows, &mut self.run.overlay);
        let mut txn = Txn::new(View::new(&below, &mut draft.overlay), at);
        let reply = eval::command(&mut txn, command)?;
        let (wrote, ticks) = (txn.wrote(), txn.needs_tick());
        self.note(at, draft, wrote, ticks);
        if wrote {
            // Who waits is served by what was written first.
            self.run.overlay.waited.foretell(command.keys());
        }
        draft.reply_bytes += reply.size();
        draft.replies.push(reply);
        Ok(())
    }

    fn note(&mut self, at: EvalContext, draft: &mut Draft, wrote: bool, ticks: bool) {
        if ticks {
            // What it saw end must have ended for every later leader too.
            self.run.observe(at.stamp);
        }
        if wrote || ticks {
            let first = draft.stamps.map_or(at.stamp, |(first, _)| first);
            draft.stamps = Some((first, at.stamp));
        }
        draft.ticks |= ticks;
    }
}

/// Nothing of the draft is taken over; what it read to have ended has ended all the same.
fn refused(draft: &mut Draft, reply: Reply) -> Reply {
    if !draft.ticks {
        draft.stamps = None;
    }
    metrics::counter!("flotilla_transactions_total", "outcome" => "refused").increment(1);
    reply
}

#[cfg(test)]
pub(crate) mod tests;
