//! What evaluation of each kind of work does inside a [`Run`]: client commands, batches of other
//! clusters, link floors, expired keys.
//!
//! A batch of another cluster is decided here, in log order and through the overlay: a gap is
//! refused naming the cursor, what is at or below the cursor is skipped, the rest is joined, and
//! the cursor moves in the same entry, also when nothing won. So two senders at once do no harm.

use crate::clock;
use crate::codec::Decoder;
use crate::command::Command;
use crate::engine::keys;
use crate::engine::rows::TabletRows;
use crate::engine::view::View;
use crate::eval::{self, LoserKind, Txn};
use crate::group::GroupContext;
use crate::group::cursor::Cursor;
use crate::group::evaluator::eval_context;
use crate::group::remote::{self, Answer, LinkFloor, RemoteAnswer, RemoteBatch, Vector};
use crate::group::run::{Job, JobId, Run, Verdict};
use crate::model::{Effect, Parts};
use crate::resp::Reply;
use flotilla_topology::ids::LogId;
use flotilla_topology::stamp::{Hlc, Stamp};
use std::collections::BTreeMap;
use std::io;
use tokio::sync::oneshot;

/// Evaluates one command of a job into the open entry. Tells how many bytes its reply takes.
pub(super) fn evaluate_command(
    context: &GroupContext,
    run: &mut Run,
    rows: &TabletRows,
    applied_clock: Hlc,
    (job, index): (JobId, usize),
    command: &Command,
) -> io::Result<usize> {
    let wall_ms = clock::wall_ms();
    let writes = command.spec.is_write();
    let stamp = match writes {
        true => run.next_stamp(wall_ms),
        false => context.stamp(run.clock_at(wall_ms)),
    };
    let at = eval_context(context, stamp, stamp.hlc.ms(), applied_clock.ms());
    let mut txn = Txn::new(View::new(rows, &mut run.overlay), at);
    let reply = eval::command(&mut txn, command)?;
    let (tick, wrote) = (txn.needs_tick(), txn.wrote());
    if tick {
        // What this command saw end must have ended for every later leader too.
        run.observe(stamp);
    }
    let bytes = reply.size();
    run.record(job, index, reply);
    run.add(job, index, (tick || wrote).then_some(stamp), tick);
    Ok(bytes)
}

/// What a batch of another cluster comes to.
pub(super) enum Merge {
    /// Nothing to write: tell the sender at once.
    Answer(RemoteAnswer),
    /// It is in the open entry.
    Entry {
        /// Where the cursor stands once that is applied.
        cursor: LogId,
        /// Lowest stamp of the effects.
        first: Stamp,
        /// Highest stamp of the effects, or the closed stamp.
        last: Stamp,
    },
}

/// Evaluates a batch of another cluster into the open entry, which must be empty.
pub(super) fn evaluate_batch(
    context: &GroupContext,
    run: &mut Run,
    rows: &TabletRows,
    batch: &RemoteBatch,
) -> io::Result<Merge> {
    if let Some(reason) = refusal(context, batch) {
        return Ok(Merge::Answer(Answer::Refused { reason }));
    }
    let wall_ms = clock::wall_ms();
    let mut ahead_ms = batch.closed.hlc.ms().saturating_sub(wall_ms);
    let key = keys::cursor(batch.origin, batch.source_group);
    let view = View::new(rows, &mut run.overlay);
    let stored = view.get(&key)?.map(|value| Cursor::decode(&value)).transpose();
    let cursor = stored.map_err(io::Error::other)?;
    let position = cursor.as_ref().map_or(LogId::default(), |cursor| cursor.position);
    if batch.from.index > position.index {
        let gap = remote::Verdict::Gap { cursor: position };
        return Ok(Merge::Answer(Answer::Done(gap)));
    }
    if batch.to.index <= position.index {
        let known = remote::Verdict::Accepted { cursor: position };
        return Ok(Merge::Answer(Answer::Done(known)));
    }
    let fresh = batch.effects.iter().filter(|effect| effect.index > position.index);
    let mut effects = Vec::with_capacity(batch.effects.len());
    for effect in fresh {
        let mut input = Decoder::shared(&effect.body);
        match Effect::from_wire(&mut input).and_then(|effect| input.finish().map(|()| effect)) {
            Ok(effect) if context.slots.contains(effect.slot()) => effects.push(effect),
            Ok(effect) => {
                let reason = format!(
                    "group {} does not carry slot {}: the sender's partition map is old",
                    context.group,
                    effect.slot()
                );
                return Ok(Merge::Answer(Answer::Refused { reason }));
            }
            Err(error) => {
                let reason = format!("entry {}: {error}: upgrade this cluster", effect.index);
                return Ok(Merge::Answer(Answer::Refused { reason }));
            }
        }
    }
    let highest = effects.iter().map(Effect::max_stamp).max().unwrap_or(batch.closed);
    let lowest = effects.iter().map(Effect::max_stamp).min().unwrap_or(batch.closed);
    ahead_ms = ahead_ms.max(highest.hlc.ms().saturating_sub(wall_ms));
    if ahead_ms > context.max_skew_ms {
        let parked = remote::Verdict::Parked { ahead_ms };
        return Ok(Merge::Answer(Answer::Done(parked)));
    }
    run.observe(highest.max(batch.closed));
    join(context, run, rows, &effects)?;
    let next = advance(cursor, batch);
    View::new(rows, &mut run.overlay).put(key, next.encode(), Parts::NONE);
    Ok(Merge::Entry { cursor: next.position, first: lowest, last: highest.max(batch.closed) })
}

/// Why this group can never take the batch.
fn refusal(context: &GroupContext, batch: &RemoteBatch) -> Option<String> {
    if !context.synced {
        return Some("the namespace is not synced here: create it with synced = true".to_owned());
    }
    if batch.origin.cluster == context.origin.cluster {
        return Some(format!("the batch names this cluster ({}) as its origin", batch.origin));
    }
    if !batch.source_slots.intersects(&context.slots) {
        return Some(format!("group {} shares no slot with the source group", context.group));
    }
    None
}

fn join(
    context: &GroupContext,
    run: &mut Run,
    rows: &TabletRows,
    effects: &[Effect],
) -> io::Result<()> {
    let now = run.clock_at(clock::wall_ms());
    let at = eval_context(context, context.stamp(now), now.ms(), now.ms());
    let mut txn = Txn::new(View::new(rows, &mut run.overlay), at);
    let losers = eval::remote(&mut txn, effects)?;
    for (kind, count) in LoserKind::ALL.iter().zip(losers.counts) {
        if count > 0 {
            metrics::counter!("flotilla_merge_losers_total", "kind" => kind.name())
                .increment(count);
        }
    }
    metrics::counter!("flotilla_merged_effects_total").increment(effects.len() as u64);
    Ok(())
}

/// The cursor behind a batch; nothing in it goes back.
fn advance(cursor: Option<Cursor>, batch: &RemoteBatch) -> Cursor {
    let Some(old) = cursor else {
        return Cursor {
            position: batch.to,
            closed: batch.closed,
            slots: batch.source_slots,
            vector: batch.vector.clone(),
        };
    };
    let mut vector: BTreeMap<_, _> = old.vector.into_iter().collect();
    for (cluster, stamp) in &batch.vector {
        let closed = vector.entry(*cluster).or_default();
        *closed = (*closed).max(*stamp);
    }
    Cursor {
        position: batch.to,
        closed: old.closed.max(batch.closed),
        slots: batch.source_slots,
        vector: Vector::from_iter(vector),
    }
}

/// Answers a batch once its entry has ended.
pub(super) struct MergeJob {
    cursor: LogId,
    verdict: Verdict,
    answer: oneshot::Sender<RemoteAnswer>,
}

impl MergeJob {
    pub(super) fn new(cursor: LogId, answer: oneshot::Sender<RemoteAnswer>) -> MergeJob {
        MergeJob { cursor, verdict: Verdict::NotApplied, answer }
    }
}

impl Job for MergeJob {
    fn record(&mut self, _index: usize, _reply: Reply) {}

    fn settle(&mut self, _from: usize, _to: usize, verdict: Verdict) {
        self.verdict = verdict;
    }

    fn finish(self: Box<Self>) {
        // An unknown outcome is asked for again: the cursor will tell.
        let _ = self.answer.send(match self.verdict {
            Verdict::Applied(_) => Answer::Done(remote::Verdict::Accepted { cursor: self.cursor }),
            Verdict::NotApplied | Verdict::Unknown => Answer::NotLeader(Default::default()),
        });
    }
}

/// Keeps what a peer has acknowledged, unless more is known already.
pub(super) fn write_floor(run: &mut Run, rows: &TabletRows, floor: &LinkFloor) -> io::Result<()> {
    let key = keys::link_floor(floor.peer);
    let mut view = View::new(rows, &mut run.overlay);
    let known = view.get(&key)?.map(|value| LinkFloor::decode(&value)).transpose();
    let known = known.map_err(io::Error::other)?;
    if known.is_none_or(|known| known.position.index < floor.position.index) {
        view.put(key, floor.encode(), Parts::NONE);
    }
    Ok(())
}

/// Deletes keys that have ended, in a namespace that is not synced.
pub(super) fn expire_due(
    context: &GroupContext,
    run: &mut Run,
    rows: &TabletRows,
    limit: usize,
) -> io::Result<usize> {
    let stamp = context.stamp(run.clock_at(clock::wall_ms()));
    let at = eval_context(context, stamp, stamp.hlc.ms(), stamp.hlc.ms());
    let mut txn = Txn::new(View::new(rows, &mut run.overlay), at);
    let deleted = eval::expire_due(&mut txn, limit)?;
    if txn.wrote() {
        run.observe(stamp);
        metrics::counter!("flotilla_expired_keys_total").increment(deleted.deleted as u64);
    }
    Ok(deleted.deleted)
}
