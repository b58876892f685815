//! Batches of other clusters, and what others have acknowledged, inside a [`Run`].
//!
//! A batch of another cluster is decided here, in log order and through the overlay: a gap is
//! refused naming the cursor, what is at or below the cursor is skipped, the rest is joined, and
//! the cursor moves in the same entry, also when nothing won. So two senders at once do no harm.

use crate::codec::Decoder;
use crate::engine::keys;
use crate::engine::view::{Rows, View};
use crate::eval::{self, LoserKind, Txn};
use crate::flaws::{self, Flaw};
use crate::group::GroupContext;
use crate::group::cursor::Cursor;
use crate::group::leader::eval_context;
use crate::group::live;
use crate::group::losers;
use crate::group::remote::{self, Answer, LinkFloor, RemoteAnswer, RemoteBatch, Vector};
use crate::group::run::Run;
use crate::group::statemerge;
use crate::model::{Closed, Effect, Parts, Synced};
use bytes::Bytes;
use flotilla_topology::ids::{LogId, Origin};
use flotilla_topology::slot::SlotRange;
use flotilla_topology::stamp::Stamp;
use std::collections::BTreeMap;
use std::io;

/// What a batch of another cluster comes to.
pub(super) enum Merge {
    /// Nothing to write: this is the answer.
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
    rows: &dyn Rows,
    wall_ms: u64,
    batch: &RemoteBatch,
) -> io::Result<Merge> {
    let key = keys::cursor(batch.origin, batch.source_group);
    let never = refusal(context, run.synced(context, rows)?, batch.origin, batch.source_slots);
    let view = View::new(rows, &mut run.overlay);
    if let Some(reason) =
        never.map_or_else(|| live::refusal(&view, batch.origin), |n| Ok(Some(n)))?
    {
        return Ok(Merge::Answer(Answer::Refused { reason }));
    }
    let mut ahead_ms = batch.closed.hlc.ms().saturating_sub(wall_ms);
    let stored = view.get(&key)?.map(|value| Cursor::decode(&value)).transpose();
    let cursor = stored.map_err(io::Error::other)?;
    let position = cursor.as_ref().map_or(LogId::default(), |cursor| cursor.position);
    if batch.from.index > position.index && !flaws::has(Flaw::GapTaken) {
        let gap = remote::Verdict::Gap { cursor: position };
        return Ok(Merge::Answer(Answer::Done(gap)));
    }
    let again = flaws::has(Flaw::JoinedAgain);
    if batch.to.index <= position.index && !again && !flaws::has(Flaw::CursorBack) {
        let known = remote::Verdict::Accepted { cursor: position };
        return Ok(Merge::Answer(Answer::Done(known)));
    }
    let fresh = batch.effects.iter().filter(|effect| effect.index > position.index || again);
    let effects = match decode_effects(context, fresh.map(|effect| &effect.body)) {
        Ok(effects) => effects,
        Err(reason) => return Ok(Merge::Answer(Answer::Refused { reason })),
    };
    let highest = effects.iter().map(Effect::max_stamp).max().unwrap_or(batch.closed);
    let lowest = effects.iter().map(Effect::max_stamp).min().unwrap_or(batch.closed);
    ahead_ms = ahead_ms.max(highest.hlc.ms().saturating_sub(wall_ms));
    if ahead_ms > context.max_skew_ms {
        let parked = remote::Verdict::Parked { ahead_ms };
        return Ok(Merge::Answer(Answer::Done(parked)));
    }
    if !flaws::has(Flaw::ClockBehind) {
        run.observe(highest.max(batch.closed));
    }
    join(context, run, rows, wall_ms, &effects, &Closed::new())?;
    let to = Cursor {
        position: batch.to,
        closed: batch.closed,
        slots: batch.source_slots,
        vector: batch.vector.clone(),
    };
    let first = cursor.is_none();
    let next = advanced(cursor, to);
    let mut view = View::new(rows, &mut run.overlay);
    if first {
        statemerge::end_former(&mut view, batch.origin)?;
    }
    view.put(key, next.encode(), Parts::NONE);
    statemerge::overtaken(&mut view, batch.origin, batch.source_group, next.position)?;
    Ok(Merge::Entry { cursor: next.position, first: lowest, last: highest.max(batch.closed) })
}

/// Reads effects that must all belong to the slots of this group; the reason if they do not.
pub(super) fn decode_effects<'b>(
    context: &GroupContext,
    bodies: impl Iterator<Item = &'b Bytes>,
) -> Result<Vec<Effect>, String> {
    let mut effects = Vec::new();
    for body in bodies {
        let mut input = Decoder::shared(body);
        let effect = Effect::from_wire(&mut input).and_then(|e| input.finish().map(|()| e));
        let effect = effect.map_err(|error| format!("{error}: upgrade this cluster"))?;
        if !context.slots.contains(effect.slot()) {
            return Err(format!(
                "group {} does not carry slot {}: the sender's partition map is old",
                context.group,
                effect.slot()
            ));
        }
        effects.push(effect);
    }
    Ok(effects)
}

/// Why this group can never take anything from there.
pub(super) fn refusal(
    context: &GroupContext,
    synced: Synced,
    origin: Origin,
    slots: SlotRange,
) -> Option<String> {
    if !synced.is_on() {
        return Some(format!(
            "group {} is not synced here: switch sync on with `flotilla namespace sync`; if that was \
             done, its leader is about to",
            context.group
        ));
    }
    if origin.cluster == context.origin.cluster {
        return Some(format!("the batch names this cluster ({origin}) as its origin"));
    }
    if !slots.intersects(&context.slots) {
        return Some(format!("group {} shares no slot with the source group", context.group));
    }
    None
}

/// Joins effects into the open entry, and counts and tells what lost; what is stamped up to `seen`
/// was here before.
pub(super) fn join(
    context: &GroupContext,
    run: &mut Run,
    rows: &dyn Rows,
    wall_ms: u64,
    effects: &[Effect],
    seen: &Closed,
) -> io::Result<()> {
    let now = run.clock_at(wall_ms);
    let synced = run.synced(context, rows)?;
    let mut at = eval_context(context, synced, context.stamp(now), now.ms(), now.ms());
    at.forgotten_ms = run.forgotten_ms(rows)?;
    let mut txn = Txn::new(View::new(rows, &mut run.overlay), at);
    let losers = eval::remote_state(&mut txn, effects, seen)?;
    losers::record(&mut View::new(rows, &mut run.overlay), now, &losers.told)?;
    for (kind, count) in LoserKind::ALL.iter().zip(losers.counts) {
        if count > 0 {
            metrics::counter!("flotilla_merge_losers_total", "kind" => kind.name())
                .increment(count);
        }
    }
    metrics::counter!("flotilla_merged_effects_total").increment(effects.len() as u64);
    Ok(())
}

/// The cursor once everything up to `to` is here; nothing in it goes back.
pub(super) fn advanced(cursor: Option<Cursor>, to: Cursor) -> Cursor {
    let Some(old) = cursor else { return to };
    let mut vector: BTreeMap<_, _> = old.vector.into_iter().collect();
    for (cluster, stamp) in &to.vector {
        let closed = vector.entry(*cluster).or_default();
        *closed = (*closed).max(*stamp);
    }
    let back = to.position.index < old.position.index && !flaws::has(Flaw::CursorBack);
    Cursor {
        position: if back { old.position } else { to.position },
        closed: old.closed.max(to.closed),
        slots: to.slots,
        vector: Vector::from_iter(vector),
    }
}

/// Keeps what a peer has acknowledged and which merge it has had, unless more is known already.
pub(super) fn write_floor(run: &mut Run, rows: &dyn Rows, floor: &LinkFloor) -> io::Result<()> {
    let key = keys::link_floor(floor.peer);
    let mut view = View::new(rows, &mut run.overlay);
    let known = view.get(&key)?.map(|value| LinkFloor::decode(&value)).transpose();
    let known = known.map_err(io::Error::other)?;
    let merged = floor.merged.or(known.as_ref().and_then(|known| known.merged));
    let newer = match known {
        Some(known) if known.position.index >= floor.position.index => {
            let same = known.merged == merged;
            (!same).then_some(LinkFloor { merged, ..known })
        }
        _ => Some(LinkFloor { merged, ..floor.clone() }),
    };
    if let Some(newer) = newer {
        view.put(key, newer.encode(), Parts::NONE);
    }
    Ok(())
}
