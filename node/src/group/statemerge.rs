//! Merging the full state of a group of another cluster, inside a [`Run`]: the target's side, one
//! bounded step at a time. See [`crate::group::state`] for what must hold.

use crate::engine::keys::{self, RowKey};
use crate::engine::view::{Rows, View};
use crate::eval::{self, Coverage, Txn};
use crate::flaws::{self, Flaw};
use crate::group::GroupContext;
use crate::group::cursor::{self, Cursor};
use crate::group::leader::eval_context;
use crate::group::live::LiveSet;
use crate::group::merge;
use crate::group::remote::Answer;
use crate::group::rows::{Resume, StretchRows};
use crate::group::run::Run;
use crate::group::state::{OpenMerge, StateCut, StateRequest, StateStep, StateVerdict};
use crate::group::{levelled, life, live, number};
use crate::model::{Closed, Effect, Parts};
use bytes::Bytes;
use flotilla_topology::ids::{GroupId, LogId, Origin};
use flotilla_topology::stamp::{Hlc, Stamp};
use std::io;

/// Rows of its own that a target looks at in one step of covering.
const COVER_ROWS: usize = 4096;

/// What a step comes to.
pub(super) enum StateEnd {
    /// Nothing to write: this is the answer.
    Answer(Answer<StateVerdict>),
    /// It is in the open entry.
    Entry {
        /// Whose state it is.
        origin: Origin,
        /// Highest stamp in it.
        last: Stamp,
        /// The answer once it took effect.
        verdict: StateVerdict,
    },
}

fn told(verdict: StateVerdict) -> io::Result<StateEnd> {
    Ok(StateEnd::Answer(Answer::Done(verdict)))
}

fn refused(reason: String) -> io::Result<StateEnd> {
    Ok(StateEnd::Answer(Answer::Refused { reason }))
}

/// Evaluates a step into the open entry, which must be empty.
pub(super) fn evaluate(
    context: &GroupContext,
    run: &mut Run,
    rows: &dyn Rows,
    wall_ms: u64,
    request: &StateRequest,
) -> io::Result<StateEnd> {
    match &request.step {
        StateStep::Open(cut) => open(context, run, rows, request.id, cut),
        StateStep::Chunk { origin, group, effects } => {
            let view = View::new(rows, &mut run.overlay);
            if !is_open(&view, *origin, *group, request.id)? && !flaws::has(Flaw::LateChunk) {
                return told(StateVerdict::NotOpen);
            }
            match merge::decode_effects(context, effects.iter()) {
                Ok(effects) => chunk(context, run, rows, wall_ms, *origin, &effects),
                Err(reason) => refused(reason),
            }
        }
        StateStep::Cover { origin, group, rows: stretches } => {
            let open = read_open(&View::new(rows, &mut run.overlay), *origin, *group)?;
            match open.filter(|open| open.id == request.id) {
                Some(open) => cover(context, run, rows, wall_ms, &open.cut, stretches),
                None => told(StateVerdict::NotOpen),
            }
        }
        StateStep::Close { origin, group } => {
            let row = keys::merge(*origin, *group);
            let mut view = View::new(rows, &mut run.overlay);
            let Some(open) = read_open(&view, *origin, *group)?.filter(|o| o.id == request.id)
            else {
                return told(StateVerdict::NotOpen);
            };
            ended(&mut view, row)?;
            levelled::merged(&mut view, context.slots, &open.cut)?;
            life::covered(&mut view, &open.cut)?;
            let key = keys::cursor(*origin, *group);
            let cursor = read_cursor(&view, *origin, *group)?;
            let cut = open.cut;
            let closed = cut.closed;
            let to =
                Cursor { position: cut.position, closed, slots: cut.slots, vector: cut.vector };
            let next = merge::advanced(cursor, to);
            view.put(key, next.encode(), Parts::NONE);
            // What the source knew of keys that it forgot is here now, or gone.
            run.forget(rows, cut.forgotten_ms)?;
            run.observe(closed);
            Ok(StateEnd::Entry { origin: *origin, last: closed, verdict: StateVerdict::Done })
        }
    }
}

fn open(
    context: &GroupContext,
    run: &mut Run,
    rows: &dyn Rows,
    id: u64,
    cut: &StateCut,
) -> io::Result<StateEnd> {
    let never = merge::refusal(context, run.synced(context, rows)?, cut.origin, cut.slots);
    let mut view = View::new(rows, &mut run.overlay);
    if let Some(reason) = never.map_or_else(|| live::refusal(&view, cut.origin), |n| Ok(Some(n)))? {
        return refused(reason);
    }
    if let Some(reason) = life::refuses_states(&view, context)? {
        return refused(reason);
    }
    let cursor = read_cursor(&view, cut.origin, cut.group)?;
    let position = cursor.map_or(LogId::default(), |cursor| cursor.position);
    if cut.position.index < position.index && !flaws::has(Flaw::OldSnapshot) {
        return told(StateVerdict::Older { cursor: position });
    }
    end_former(&mut view, cut.origin)?;
    let row = keys::merge(cut.origin, cut.group);
    view.put(row, OpenMerge { id, cut: cut.clone() }.encode(), Parts::NONE);
    let verdict = match life::covers(&view, cut.origin.cluster)? {
        true => StateVerdict::Covers,
        false => StateVerdict::Done,
    };
    Ok(StateEnd::Entry { origin: cut.origin, last: Stamp::ZERO, verdict })
}

/// Joins some stretches of the cut; if the group covers, what only this side has there and the source
/// had once goes.
fn cover(
    context: &GroupContext,
    run: &mut Run,
    rows: &dyn Rows,
    wall_ms: u64,
    cut: &StateCut,
    stretches: &[StretchRows],
) -> io::Result<StateEnd> {
    for StretchRows { stretch, .. } in stretches {
        let slot = stretch.slot;
        if !stretch.is_sound() || !cut.slots.contains(slot) || !context.slots.contains(slot) {
            return refused("a stretch of slots that this merge is not about".into());
        }
    }
    let all = stretches.iter().flat_map(|one| &one.effects);
    let effects = match merge::decode_effects(context, all) {
        Ok(effects) => effects,
        Err(reason) => return refused(reason),
    };
    let joined = chunk(context, run, rows, wall_ms, cut.origin, &effects)?;
    let covers = life::covers(&View::new(rows, &mut run.overlay), cut.origin.cluster)?;
    match joined {
        StateEnd::Entry { origin, last, .. } if covers => {
            let verdict = drop_deleted(context, run, rows, wall_ms, cut, (stretches, &effects))?;
            Ok(StateEnd::Entry { origin, last, verdict })
        }
        joined => Ok(joined),
    }
}

/// Drops what only this side has in stretches of the cut, and the source had once, as far as one step
/// may go. What stands there, all of it in `effects`, is joined already.
fn drop_deleted(
    context: &GroupContext,
    run: &mut Run,
    rows: &dyn Rows,
    wall_ms: u64,
    cut: &StateCut,
    (stretches, effects): (&[StretchRows], &[Effect]),
) -> io::Result<StateVerdict> {
    let now = run.clock_at(wall_ms);
    let synced = run.synced(context, rows)?;
    let at = eval_context(context, synced, context.stamp(now), now.ms(), now.ms());
    let mut txn = Txn::new(View::new(rows, &mut run.overlay), at);
    let (mut budget, mut effects) = (COVER_ROWS, effects);
    for (done, StretchRows { stretch, effects: here }) in stretches.iter().enumerate() {
        let (here, others) = effects.split_at(here.len());
        effects = others;
        let coverage = Coverage {
            heads: stretch.heads(),
            elements: stretch.elements(),
            effects: here,
            had: &|slot, stamp| cut.had(slot, stamp),
        };
        if let Some((heads, elements)) = eval::cover(&mut txn, &coverage, &mut budget)? {
            return Ok(StateVerdict::More { done, from: Resume::new(heads, elements) });
        }
    }
    Ok(StateVerdict::Done)
}

fn chunk(
    context: &GroupContext,
    run: &mut Run,
    rows: &dyn Rows,
    wall_ms: u64,
    origin: Origin,
    effects: &[Effect],
) -> io::Result<StateEnd> {
    let last = effects.iter().map(Effect::max_stamp).max().unwrap_or(Stamp::ZERO);
    let ahead_ms = last.hlc.ms().saturating_sub(wall_ms);
    if ahead_ms > context.max_skew_ms {
        return told(StateVerdict::Parked { ahead_ms });
    }
    if !flaws::has(Flaw::ClockBehind) {
        run.observe(last);
    }
    let seen = seen(context, &View::new(rows, &mut run.overlay))?;
    merge::join(context, run, rows, wall_ms, effects, &seen)?;
    Ok(StateEnd::Entry { origin, last, verdict: StateVerdict::Done })
}

/// What this group has had before: all of this cluster, and of others what came by their logs.
fn seen(context: &GroupContext, view: &View<'_>) -> io::Result<Closed> {
    let heard = cursor::closed_vector(&cursor::read_view(view)?, context.slots);
    let mut seen: Closed = heard.into_iter().collect();
    seen.insert(context.origin.cluster, context.stamp(Hlc(u64::MAX)));
    Ok(seen)
}

/// A merge is over: what it brought counts for whoever walks over rows.
fn ended(view: &mut View<'_>, row: Bytes) -> io::Result<()> {
    let merges = merges(view)? + 1;
    number::write(view, keys::MERGES, merges);
    view.delete(row);
    Ok(())
}

/// Ends the merges of clusters whose states are not taken any more, and all when the group begins
/// another life: one that was opened before would be taken for one that covers.
pub(super) fn refused_now(view: &mut View<'_>, set: &LiveSet, reborn: bool) -> io::Result<()> {
    for (row, origin) in all_open(view)? {
        let former = reborn && !flaws::has(Flaw::CoveredByJoin);
        let refused = set.fenced.contains(&origin.cluster) || !set.live.contains(&origin.cluster);
        if former || (refused && !flaws::has(Flaw::MergesOnFenced)) {
            ended(view, row)?;
        }
    }
    Ok(())
}

/// Ends the merges of earlier lives of a cluster, of which the first has come in a later one: nobody
/// goes on with them, and they would hold back collection for ever. A group that was away while that
/// cluster was fenced never hears of the fence.
pub(super) fn end_former(view: &mut View<'_>, origin: Origin) -> io::Result<()> {
    for (row, of) in all_open(view)? {
        if of.cluster == origin.cluster && of.incarnation < origin.incarnation {
            ended(view, row)?;
        }
    }
    Ok(())
}

fn all_open(view: &View<'_>) -> io::Result<Vec<(Bytes, Origin)>> {
    let open = view.scan(keys::of_kind(keys::MERGE), false);
    let origins = open.map(|row| {
        let (row, _) = row?;
        match keys::decode(&row).map_err(io::Error::other)? {
            RowKey::Merge { origin, .. } => Ok((row, origin)),
            other => Err(io::Error::other(format!("{other:?} among the open merges"))),
        }
    });
    origins.collect()
}

/// Ends an open merge that the log has overtaken: everything of its cut has come, so nobody needs
/// to finish it, and a sender that gave it up must not hold back collection for ever.
pub(super) fn overtaken(
    view: &mut View<'_>,
    origin: Origin,
    group: GroupId,
    cursor: LogId,
) -> io::Result<()> {
    match read_open(view, origin, group)? {
        Some(open)
            if open.cut.position.index <= cursor.index && !flaws::has(Flaw::GcWhileMerging) =>
        {
            ended(view, keys::merge(origin, group))
        }
        _ => Ok(()),
    }
}

fn read_cursor(view: &View<'_>, origin: Origin, group: GroupId) -> io::Result<Option<Cursor>> {
    let row = view.get(&keys::cursor(origin, group))?;
    row.map(|value| Cursor::decode(&value)).transpose().map_err(io::Error::other)
}

fn read_open(view: &View<'_>, origin: Origin, group: GroupId) -> io::Result<Option<OpenMerge>> {
    let row = view.get(&keys::merge(origin, group))?;
    row.map(|value| OpenMerge::decode(&value)).transpose().map_err(io::Error::other)
}

fn is_open(view: &View<'_>, origin: Origin, group: GroupId, id: u64) -> io::Result<bool> {
    Ok(read_open(view, origin, group)?.is_some_and(|open| open.id == id))
}

/// Whether any full state is being merged into the group.
pub(super) fn any_open(view: &View<'_>) -> io::Result<bool> {
    Ok(view.scan(keys::of_kind(keys::MERGE), false).next().transpose()?.is_some())
}

/// How many full states were merged into the group so far.
pub(super) fn merges(view: &View<'_>) -> io::Result<u64> {
    number::read(view, keys::MERGES)
}
