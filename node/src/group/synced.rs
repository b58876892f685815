//! Since when a group is kept in step with other clusters.
//!
//! A group is synced from its birth on if the map says that it was born so. Any other is synced from an
//! entry on that its leader writes when the map wants it: the entry puts its own stamp into a row, which
//! stays for good. So the log decides, not the map, and all replicas agree. What must hold:
//! * Commands before that entry leave no stamps and delete physically; commands behind it do as in
//!   any synced group.
//! * A row without stamps counts as written by that entry, wherever rows are read
//!   ([`decode_head_since`](crate::model::decode_head_since) and its like).
//! * Keys that have ended by its time are deleted before: their rows would count as written after
//!   their end, and be seen again.
//! * What stands in the log before that entry has no stamps and is never shipped: who is not behind it
//!   merges a full state.

use crate::codec::{DecodeError, Decoder, Encoder, unseal};
use crate::engine::keys;
use crate::engine::view::{Overlay, Rows, View};
use crate::eval::{self, Txn};
use crate::group::GroupContext;
use crate::group::entry::RowOp;
use crate::group::leader::eval_context;
use crate::group::remote::{LinkFloor, Seed};
use crate::group::run::Run;
use crate::model::{Parts, Synced};
use bytes::Bytes;
use flotilla_topology::ids::LogId;
use flotilla_topology::stamp::Stamp;
use std::io;

const SINCE_VERSION: u8 = 1;
/// Keys that have ended and are deleted by the entry that switches sync on, at most. If there are more,
/// the leader deletes these first and is asked again.
const ENDED_MAX: usize = 1024;

/// The value of the row: since which stamp the group is synced.
pub(crate) fn encode(since: &Stamp) -> Bytes {
    let mut out = Encoder::with_capacity(16);
    out.put_u8(SINCE_VERSION);
    out.put_stamp(*since);
    out.seal(0);
    out.into_bytes()
}

/// Reads it.
pub(crate) fn decode(value: &[u8]) -> Result<Stamp, DecodeError> {
    let mut input = Decoder::new(unseal(value)?);
    input.version(SINCE_VERSION)?;
    let since = input.stamp()?;
    input.finish()?;
    Ok(since)
}

/// What the value of the row says, if there is one.
pub(super) fn read(row: Option<Bytes>) -> io::Result<Option<Stamp>> {
    row.map(|value| decode(&value)).transpose().map_err(io::Error::other)
}

/// What these rows are stamped by where they have no stamps; zero if that means nothing.
pub(super) fn unstamped(rows: &dyn Rows) -> io::Result<Stamp> {
    Ok(read(rows.get(&keys::single(keys::SYNCED))?)?.unwrap_or(Stamp::ZERO))
}

/// The stamp that these operations switch sync on with, if they do.
pub(super) fn switched_by(ops: &[RowOp]) -> io::Result<Option<Stamp>> {
    let switch = ops.iter().find_map(|op| match op {
        RowOp::Put { key, value, .. } if key[..] == [keys::SYNCED] => Some(value.clone()),
        _ => None,
    });
    read(switch)
}

impl GroupContext {
    /// Whether the group is synced, by what stands in its rows.
    pub fn synced(&self, view: &View<'_>) -> io::Result<Synced> {
        if self.born_synced {
            return Ok(Synced::Always);
        }
        Ok(self.synced_since(read(view.get(&keys::single(keys::SYNCED))?)?))
    }

    /// The same, of rows without anything under way.
    pub fn synced_in(&self, rows: &dyn Rows) -> io::Result<Synced> {
        self.synced(&View::new(rows, &mut Overlay::new()))
    }

    /// The same, for who knows what the row says.
    pub fn synced_since(&self, since: Option<Stamp>) -> Synced {
        match since {
            _ if self.born_synced => Synced::Always,
            Some(stamp) => Synced::Since(stamp),
            None => Synced::No,
        }
    }
}

impl Run {
    /// Whether the group is synced for what is evaluated next: the switch may still be under way.
    pub fn synced(&mut self, context: &GroupContext, rows: &dyn Rows) -> io::Result<Synced> {
        if let Some(known) = self.synced {
            return Ok(known);
        }
        let known = context.synced(&View::new(rows, &mut self.overlay))?;
        self.synced = Some(known);
        Ok(known)
    }
}

/// Switches sync on with the open entry, which has this stamp, unless it is on. It stays off if too many
/// keys have ended and are still there: some of them are deleted.
pub(super) fn switch_on(
    context: &GroupContext,
    run: &mut Run,
    rows: &dyn Rows,
    stamp: Stamp,
) -> io::Result<()> {
    if run.synced(context, rows)?.is_on() {
        return Ok(());
    }
    let now_ms = stamp.hlc.ms();
    let at = eval_context(context, Synced::No, stamp, now_ms, now_ms);
    let mut txn = Txn::new(View::new(rows, &mut run.overlay), at);
    if eval::expire_due(&mut txn, ENDED_MAX)?.more {
        return Ok(());
    }
    let mut view = View::new(rows, &mut run.overlay);
    view.put(keys::single(keys::SYNCED), encode(&stamp), Parts::NONE);
    run.synced = Some(Synced::Since(stamp));
    Ok(())
}

/// Where learners of a group may start whose log was purged up to `purged`. A peer's floor whose
/// closed stamp is below the switch stands before it; who has no floor has nothing.
pub(crate) fn seed(mut floors: Vec<LinkFloor>, purged: LogId, synced: Synced) -> Seed {
    let since = synced.unstamped();
    let mut start = purged;
    if !since.is_zero() {
        floors.retain(|floor| floor.closed >= since);
        start.index = start.index.max(1);
    }
    Seed { floors, start }
}

#[cfg(test)]
mod tests;
