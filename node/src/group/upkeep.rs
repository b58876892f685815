//! What a leader does by itself: deleting what has ended, cleaning, ticks.
//!
//! A tick is an entry with only a stamp. It tells the other clusters how far this group has come,
//! so that they can collect; it never decides safety. A group ticks once a second while something
//! waits to be collected, or when its stamps or its closed vector moved since the last tick by an
//! entry with effects; ticks of others do not count, or two clusters would answer each other for
//! ever. Otherwise it ticks every half minute.

use crate::engine::view::{Rows, View};
use crate::eval::{self, CleanFrom, CleanRules, Txn};
use crate::flaws::{self, Flaw};
use crate::group::GroupContext;
use crate::group::cursor;
use crate::group::leader::{LeaderClock, eval_context};
use crate::group::live::{self, LiveSet};
use crate::group::run::{EntryJob, Run};
use crate::group::statemerge;
use crate::group::{levelled, life};
use crate::model::Synced;
use std::io;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Expired keys that one step deletes at most, so that clients wait for few of them.
const EXPIRE_BATCH: usize = 256;
/// Rows that one step of the cleaner looks at, about: some milliseconds of the evaluator.
pub const CLEAN_ROWS: usize = 512;
/// How often the cleaner looks when it found nothing more to do.
pub const CLEAN_INTERVAL: Duration = Duration::from_secs(1);
/// Between two ticks while something waits or moved.
pub const TICK_INTERVAL: Duration = Duration::from_secs(1);
/// Between two ticks otherwise.
pub const TICK_INTERVAL_IDLE: Duration = Duration::from_secs(30);

/// What a leader remembers of its upkeep; a new one begins with nothing.
#[derive(Debug, Default)]
pub struct Upkeep {
    /// Something with effects was written since the last tick.
    pub moved: bool,
    waits: bool,
    /// There are other live clusters.
    linked: bool,
    ticked: Option<Instant>,
    cleaned: Option<Instant>,
    clean_more: bool,
    from: CleanFrom,
}

impl Upkeep {
    /// Does what is due into the open entry, which must be empty.
    pub fn step(
        &mut self,
        context: &GroupContext,
        run: &mut Run,
        rows: &dyn Rows,
        clock: LeaderClock,
    ) -> io::Result<()> {
        if !run.synced(context, rows)?.is_on() {
            return expire_due(context, run, rows, clock);
        }
        let due = |at: Option<Instant>, interval| at.is_none_or(|at| clock.now >= at + interval);
        let busy = self.waits || self.moved;
        let interval = if busy { TICK_INTERVAL } else { TICK_INTERVAL_IDLE };
        // First, by what the cleaner said last: one that always finds something may not keep others
        // from hearing how far this group is.
        if self.linked && due(self.ticked, interval) {
            self.ticked = Some(clock.now);
            self.moved = false;
            tick(run, clock);
        }
        if self.clean_more || due(self.cleaned, CLEAN_INTERVAL) {
            self.cleaned = Some(clock.now);
            self.clean(context, run, rows, clock)?;
        }
        Ok(())
    }

    fn clean(
        &mut self,
        context: &GroupContext,
        run: &mut Run,
        rows: &dyn Rows,
        clock: LeaderClock,
    ) -> io::Result<()> {
        let stamp = context.stamp(run.clock_at(clock.wall_ms));
        let synced = run.synced(context, rows)?;
        let at = eval_context(context, synced, stamp, stamp.hlc.ms(), stamp.hlc.ms());
        let mut txn = Txn::new(View::new(rows, &mut run.overlay), at);
        self.waits = eval::garbage_waits(&txn)?;
        self.clean_more = false;
        let view = txn.view();
        let set = LiveSet::read(view)?;
        self.linked = set.as_ref().is_some_and(|set| !set.live.is_empty());
        let merging = statemerge::any_open(view)? && !flaws::has(Flaw::GcWhileMerging);
        let frozen = merging || !life::is_whole(view)?;
        let Some(set) = set.filter(|_| self.waits && !frozen) else { return Ok(()) };
        let cursors = cursor::read_view(view)?;
        let counting = levelled::counting(view, context.slots, &set)?;
        let stability = live::stability(context.origin.cluster, context.slots, &cursors, &counting);
        let merges = statemerge::merges(view)?;
        let rules = CleanRules { stability: &stability, merges, budget: CLEAN_ROWS };
        let done = eval::clean(&mut txn, &mut self.from, &rules)?;
        let wrote = txn.wrote();
        run.forget(rows, done.forgotten_ms)?;
        self.clean_more = done.more && wrote;
        if wrote {
            // What was seen to have ended has ended for every later leader too.
            run.observe(stamp);
            metrics::counter!("flotilla_collected_total").increment(done.collected);
        }
        metrics::gauge!("flotilla_collect_waiting", "group" => context.group.to_string())
            .set(done.waiting as f64);
        Ok(())
    }
}

fn tick(run: &mut Run, clock: LeaderClock) {
    let (answer, _nobody_waits) = oneshot::channel();
    let job = run.begin_job(Box::new(EntryJob::new(answer)), clock.now);
    let stamp = run.next_stamp(clock.wall_ms);
    run.add(job, 0, Some(stamp), true);
    run.end_job(job);
}

/// Deletes keys that have ended, in a namespace that is not synced.
fn expire_due(
    context: &GroupContext,
    run: &mut Run,
    rows: &dyn Rows,
    clock: LeaderClock,
) -> io::Result<()> {
    let stamp = context.stamp(run.clock_at(clock.wall_ms));
    let at = eval_context(context, Synced::No, stamp, stamp.hlc.ms(), stamp.hlc.ms());
    let mut txn = Txn::new(View::new(rows, &mut run.overlay), at);
    let due = eval::expire_due(&mut txn, EXPIRE_BATCH)?;
    if txn.wrote() {
        run.observe(stamp);
        metrics::counter!("flotilla_expired_keys_total").increment(due.deleted as u64);
    }
    Ok(())
}
