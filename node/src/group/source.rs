//! Full state of a group on its way out: cuts that a syncer reads from a replica, and what a target
//! is asked to compare with (RPC kinds 36 to 38).
//!
//! A cut is one RocksDB snapshot, so rows, position, closed stamp and vector belong together. It is
//! kept while it is read; one that nobody reads for [`CUT_IDLE`] is dropped, since it keeps deleted
//! data on the disk. Any replica can be cut that has come far enough; one that does not lead has the
//! time.

mod ask;

pub use ask::{
    KEYS_MAX, PARTS_MAX, ROWS_MAX, STRETCHES_MAX, SourceAnswer, SourceRequest, put_different,
    put_keys, put_rows, put_states, put_wanted, take_different, take_keys, take_rows, take_states,
    take_wanted,
};

use crate::engine::meta::GroupMeta;
use crate::engine::rows::FrozenRows;
use crate::engine::view::{Overlay, Rows, View};
use crate::group::compare::{self, Step, StretchKeys, Wanted};
use crate::group::cursor::{self, closed_vector};
use crate::group::forgotten;
use crate::group::life::Life;
use crate::group::live::LiveSet;
use crate::group::rows::{Stretch, StretchRows, Units, encode_effect};
use crate::group::state::{Heard, StateCut};
use crate::group::{Group, GroupContext};
use flotilla_topology::ids::{ClusterId, LogId};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Cuts that a node keeps at once.
const CUTS_MAX: usize = 16;
/// A cut that was not read for so long is dropped.
pub const CUT_IDLE: Duration = Duration::from_secs(60);
/// Effects in one answer hold about so many bytes, or one effect: a step of the evaluator.
pub const ROWS_BYTES_MAX: usize = 512 << 10;
/// Rows that one answer is picked from.
const LOOKS_MAX: usize = 1 << 16;

struct Kept {
    rows: Arc<FrozenRows>,
    now_ms: u64,
    used: Instant,
}

/// The cuts that a node keeps.
#[derive(Default)]
pub struct Cuts {
    kept: Mutex<HashMap<u64, Kept>>,
    next: AtomicU64,
}

/// Why a request for full state was not answered; one line.
pub type SourceRefusal = String;

fn unreadable(error: &io::Error) -> SourceRefusal {
    format!("cannot read: {error}")
}

impl Cuts {
    /// Drops cuts that nobody reads any more.
    pub fn drop_idle(&self) {
        self.kept.lock().retain(|_, kept| kept.used.elapsed() < CUT_IDLE);
    }

    /// Cuts a group's applied state here, for a peer that is in a version of the mesh.
    pub fn cut(
        &self,
        group: &Group,
        after: LogId,
        keep: bool,
        (peer, mesh): (ClusterId, u64),
    ) -> Result<SourceAnswer, SourceRefusal> {
        let frozen = FrozenRows::of_group(group.engine(), group.context.group);
        let (rows, meta) = frozen.map_err(|error| unreadable(&error))?;
        if meta.applied.index < after.index {
            return Err(format!("this replica is at {}, {after} is needed", meta.applied));
        }
        let refused = refusal(&group.context, &rows, peer, mesh).map_err(|e| unreadable(&e))?;
        if let Some(reason) = refused {
            return Err(reason);
        }
        let state = cut_of(&group.context, &meta, &rows).map_err(|error| unreadable(&error))?;
        if !keep {
            return Ok(SourceAnswer::Cut { cut: 0, state });
        }
        self.drop_idle();
        let mut kept = self.kept.lock();
        if kept.len() >= CUTS_MAX {
            return Err(format!("{CUTS_MAX} cuts are being read here already: ask again later"));
        }
        // Numbers of another life of this node must not be taken for ours.
        let cut =
            crate::clock::wall_ms() << 20 | self.next.fetch_add(1, Ordering::Relaxed) & 0xF_FFFF;
        let now_ms = meta.clock.ms();
        kept.insert(cut, Kept { rows: Arc::new(rows), now_ms, used: Instant::now() });
        Ok(SourceAnswer::Cut { cut, state })
    }

    /// Reads from a cut. Blocks on the disk.
    pub fn read(&self, request: &SourceRequest) -> Result<SourceAnswer, SourceRefusal> {
        check(request)?;
        let answer = match request {
            SourceRequest::States { cut, slots, from, all } => {
                let (rows, _) = self.kept(*cut)?;
                compare::states(rows.as_ref(), *slots, from.clone(), *all, &Step::USUAL)
                    .map(SourceAnswer::States)
            }
            SourceRequest::Keys { cut, stretches } => {
                let (rows, _) = self.kept(*cut)?;
                read_keys(&rows, stretches).map(SourceAnswer::Keys)
            }
            SourceRequest::Rows { cut, wanted } => {
                let (rows, now_ms) = self.kept(*cut)?;
                read_rows(&rows, wanted, now_ms).map(SourceAnswer::Rows)
            }
            SourceRequest::Drop { cut } => {
                self.kept.lock().remove(cut);
                Ok(SourceAnswer::Dropped)
            }
            _ => return Err("not a request that a cut can answer".into()),
        };
        answer.map_err(|error| unreadable(&error))
    }

    fn kept(&self, cut: u64) -> Result<(Arc<FrozenRows>, u64), SourceRefusal> {
        let mut kept = self.kept.lock();
        let kept = kept.get_mut(&cut).ok_or("this cut is not kept here any more: cut anew")?;
        kept.used = Instant::now();
        Ok((Arc::clone(&kept.rows), kept.now_ms))
    }
}

/// Why a peer that is in a version of the mesh is not given the state of these rows; none if it is.
/// Peer 0, which only asks where the group is, is told always.
pub fn refusal(
    context: &GroupContext,
    rows: &dyn Rows,
    peer: ClusterId,
    mesh: u64,
) -> io::Result<Option<SourceRefusal>> {
    let mut overlay = Overlay::new();
    let view = View::new(rows, &mut overlay);
    if !context.synced(&view)?.is_on() {
        return Ok(Some("sync is not switched on in the state of this replica yet".to_owned()));
    }
    let set = LiveSet::read(&view)?.unwrap_or_default();
    if set.version < mesh {
        let known = set.version;
        return Ok(Some(format!("the group goes by set {known} of clusters, not yet {mesh}")));
    }
    if peer == ClusterId(0) {
        return Ok(None);
    }
    if !set.live.contains(&peer) {
        return Ok(Some(format!("the group does not count cluster {peer} as live yet")));
    }
    let life = Life::read(&view)?;
    Ok(life.and_then(|life| life.refuses_cut(context.origin.incarnation)))
}

/// What rows of a group at one point of its log hold.
pub fn cut_of(context: &GroupContext, meta: &GroupMeta, rows: &dyn Rows) -> io::Result<StateCut> {
    let mut overlay = Overlay::new();
    let view = View::new(rows, &mut overlay);
    let set = LiveSet::read(&view)?.unwrap_or_default();
    let cursors = cursor::read_view(&view)?;
    Ok(StateCut {
        origin: context.origin,
        group: context.group,
        slots: context.slots,
        position: meta.applied,
        fence: meta.fence,
        closed: meta.own,
        vector: closed_vector(&cursors, context.slots),
        forgotten_ms: forgotten::read(&view)?,
        heard: Heard::of(&cursors),
        fenced: set.barred_now(),
    })
}

/// Refuses stretches that are none.
fn check(request: &SourceRequest) -> Result<(), SourceRefusal> {
    match request.stretches().into_iter().find(|stretch| !stretch.is_sound()) {
        Some(stretch) => Err(format!("a stretch with places outside of its slot {}", stretch.slot)),
        None => Ok(()),
    }
}

/// Keys of the first stretches, of one at least; rows are counted, and so no more keys than fit.
fn read_keys(rows: &FrozenRows, stretches: &[Stretch]) -> io::Result<Vec<StretchKeys>> {
    let (mut told, mut left) = (Vec::new(), KEYS_MAX as u64);
    for stretch in stretches {
        match compare::key_states(rows, stretch, &mut left)? {
            Some(keys) => told.push(StretchKeys { stretch: stretch.clone(), keys }),
            None if told.is_empty() => {
                return Err(io::Error::other("a stretch of more rows than one is made of"));
            }
            None => break,
        }
    }
    Ok(told)
}

/// Rows of the first stretches, as many as make an answer.
fn read_rows(rows: &FrozenRows, wanted: &[Wanted], now_ms: u64) -> io::Result<Vec<StretchRows>> {
    let (mut told, mut looked, mut count, mut bytes) = (Vec::new(), 0, 0, 0);
    for want in wanted.iter().take(PARTS_MAX) {
        let (mut stretch, mut effects) = (want.stretch.clone(), Vec::new());
        for unit in Units::of(rows, &want.stretch, now_ms) {
            let unit = unit?;
            looked += 1;
            if want.has(&unit.key) {
                let effect = encode_effect(&unit.effect);
                (count, bytes) = (count + 1, bytes + effect.len());
                effects.push(effect);
            }
            if looked >= LOOKS_MAX || count >= ROWS_MAX || bytes >= ROWS_BYTES_MAX {
                stretch.to = Some(unit.next);
                told.push(StretchRows { stretch, effects });
                return Ok(told);
            }
        }
        told.push(StretchRows { stretch, effects });
    }
    Ok(told)
}

/// Compares with a target's applied state. Blocks on the disk.
pub fn compare(group: &Group, request: &SourceRequest) -> Result<SourceAnswer, SourceRefusal> {
    check(request)?;
    let frozen = FrozenRows::of_group(group.engine(), group.context.group);
    let (rows, _) = frozen.map_err(|error| unreadable(&error))?;
    let answer = match request {
        SourceRequest::CompareStates { states, .. } => {
            compare::differing(&rows, states).map(SourceAnswer::Different)
        }
        SourceRequest::CompareKeys { keys, .. } => {
            compare::wanted_of(&rows, keys).map(SourceAnswer::Wanted)
        }
        _ => return Err("not a comparison".into()),
    };
    answer.map_err(|error| unreadable(&error))
}
