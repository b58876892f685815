//! SCAN and DBSIZE over one group.
//!
//! A cursor is an integer in the client's hands, so all state is in it: a slot and a position in
//! the slot. Slots are visited in order, and groups own ranges of slots, so one cursor leads
//! through all groups of a namespace, also when they split or move in between. Within a slot keys
//! come in pages ([`Page`]), and the position is where a page goes on.
//!
//! Slots have few keys as a rule and are returned whole. One with many (a hash tag) is read once
//! for each page of it. A cursor has 46 bits: clients that keep it in a double keep all of it.

use super::args::{Outcome, Stop, integer, is};
use super::page::{Page, position_of};
use super::txn::Txn;
use crate::command::glob_matches;
use crate::engine::keys;
use crate::resp::Reply;
use bytes::Bytes;
use flotilla_topology::slot::{SLOT_COUNT, Slot, SlotRange};
use std::io;

/// How many keys that are not visible may be passed for each one asked for.
const VISITS_PER_KEY: usize = 10;

/// Where a scan goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct ScanCursor {
    /// The slot; the group that owns it goes on.
    pub slot: Slot,
    /// The place within the slot.
    pub position: u32,
}

impl ScanCursor {
    /// The beginning of a scan; also what the client gets at its end.
    pub const START: ScanCursor = ScanCursor { slot: Slot(0), position: 0 };

    /// The integer that clients see.
    pub fn to_integer(self) -> u64 {
        u64::from(self.slot.0) << 32 | u64::from(self.position)
    }

    /// Reads the integer that a client sent back; none if no cursor is like that.
    pub fn from_integer(integer: u64) -> Option<ScanCursor> {
        let slot = u16::try_from(integer >> 32).ok().filter(|slot| *slot < SLOT_COUNT)?;
        Some(ScanCursor { slot: Slot(slot), position: integer as u32 })
    }

    /// The beginning of the slot after `slot`, if there is one.
    fn after(slot: Slot) -> Option<ScanCursor> {
        let next = slot.0 + 1;
        (next < SLOT_COUNT).then_some(ScanCursor { slot: Slot(next), position: 0 })
    }
}

/// The arguments of SCAN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScanOptions {
    /// Where to go on.
    pub cursor: ScanCursor,
    /// About how many keys to visit.
    pub count: usize,
    /// A glob pattern that keys must match.
    pub pattern: Option<Bytes>,
    /// The name of the type that keys must have.
    pub type_name: Option<Bytes>,
}

impl ScanOptions {
    /// Reads the arguments of SCAN, the name included; an error is the reply to give.
    pub fn parse(args: &[Bytes]) -> Result<ScanOptions, Reply> {
        Self::read(args).map_err(|stop| match stop {
            Stop::Reply(reply) => reply,
            Stop::Io(error) => Reply::error(format!("ERR {error}")),
        })
    }

    fn read(args: &[Bytes]) -> Result<ScanOptions, Stop> {
        let cursor = args.get(1).map_or(&[][..], |arg| arg);
        let cursor = cursor_of(cursor)?;
        let cursor = ScanCursor::from_integer(cursor).ok_or_else(invalid_cursor)?;
        let mut options = ScanOptions { cursor, count: 10, pattern: None, type_name: None };
        for option in args[2..].chunks(2) {
            let [word, value] = option else { return Err(Stop::syntax()) };
            if is(word, "COUNT") {
                let count = integer(value)?;
                options.count =
                    usize::try_from(count).ok().filter(|c| *c > 0).ok_or_else(Stop::syntax)?;
            } else if is(word, "MATCH") {
                options.pattern = Some(value.clone()).filter(|pattern| &pattern[..] != b"*");
            } else if is(word, "TYPE") {
                options.type_name = Some(value.clone());
            } else {
                return Err(Stop::syntax());
            }
        }
        Ok(options)
    }

    fn wants(&self, name: &[u8], type_name: &str) -> bool {
        self.pattern.as_ref().is_none_or(|pattern| glob_matches(pattern, name, false))
            && self.type_name.as_ref().is_none_or(|wanted| is(wanted, type_name))
    }
}

/// What one step of a scan found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScanPage {
    /// Keys, without order.
    pub keys: Vec<Bytes>,
    /// Where to go on, perhaps in another group; none at the end of the namespace.
    pub next: Option<ScanCursor>,
}

fn invalid_cursor() -> Stop {
    Stop::error("ERR invalid cursor".to_owned())
}

/// The integer that a client gives as its cursor; nothing is 0, as in Redis.
pub(super) fn cursor_of(arg: &[u8]) -> Result<u64, Stop> {
    if arg.is_empty() {
        return Ok(0);
    }
    let text = std::str::from_utf8(arg).ok();
    text.and_then(|text| text.parse().ok()).ok_or_else(invalid_cursor)
}

/// SCAN's step in this group. Its cursor leads on into the group that owns the next slots.
pub(super) fn scan_command(txn: &Txn<'_>, args: &[Bytes]) -> Outcome {
    let page = scan(txn, &ScanOptions::read(args)?)?;
    let next = page.next.unwrap_or(ScanCursor::START).to_integer();
    Ok(Reply::Array(vec![Reply::bulk(next.to_string()), Reply::bulks(page.keys)]))
}

/// One step of a scan in this group. A cursor before its slots begins with the first of them, one
/// behind them finds nothing here.
pub fn scan(txn: &Txn<'_>, options: &ScanOptions) -> io::Result<ScanPage> {
    let slots = txn.context.slots;
    let mut at = options.cursor.max(ScanCursor { slot: slots.first, position: 0 });
    let mut page = ScanPage { keys: Vec::new(), next: None };
    let mut room = options.count;
    let mut visits = options.count.saturating_mul(VISITS_PER_KEY);
    while slots.contains(at.slot) && room > 0 && visits > 0 {
        let rest = SlotRange { first: at.slot, last: slots.last };
        let first = match txn.view.scan(keys::of_slots(keys::HEAD, rest), false).next() {
            None => break,
            Some(row) => slot_of_row(&row?.0)?,
        };
        if first != at.slot {
            at = ScanCursor { slot: first, position: 0 };
        }
        let step = scan_slot(txn, at, options)?;
        room = room.saturating_sub(step.visible);
        visits = visits.saturating_sub(step.visited.max(1));
        page.keys.extend(step.keys);
        match step.next {
            Some(position) => {
                page.next = Some(ScanCursor { slot: at.slot, position });
                return Ok(page);
            }
            None => match ScanCursor::after(at.slot) {
                Some(next) => at = next,
                None => return Ok(page),
            },
        }
    }
    let done = room > 0 && visits > 0;
    page.next =
        if done && at.slot <= slots.last { ScanCursor::after(slots.last) } else { Some(at) };
    Ok(page)
}

fn slot_of_row(row: &[u8]) -> io::Result<Slot> {
    match keys::decode(row).map_err(super::txn::corrupt)? {
        keys::RowKey::Head { slot, .. } => Ok(slot),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "not a head row")),
    }
}

struct SlotStep {
    keys: Vec<Bytes>,
    visible: usize,
    visited: usize,
    /// Where to go on in the slot; none at its end.
    next: Option<u32>,
}

/// The keys of one slot from a position on, or as many of them as make a page.
fn scan_slot(txn: &Txn<'_>, at: ScanCursor, options: &ScanOptions) -> io::Result<SlotStep> {
    let slots = SlotRange { first: at.slot, last: at.slot };
    let mut page = Page::new(at.position, options.count);
    for key in txn.keys(slots) {
        let key = key?;
        match key.ty {
            Some(ty) => {
                page.offer(position_of(&key.name), key.name.len(), (key.name, ty.name()));
            }
            None => page.pass(),
        }
    }
    let visited = page.offered();
    let (keys, next) = page.finish();
    let visible = keys.len();
    let found = keys.into_iter().filter(|(name, ty)| options.wants(name, ty));
    let keys = found.map(|(name, _)| name).collect();
    Ok(SlotStep { keys, visible, visited, next })
}

/// How many keys are visible in the group: O(n), since a lapse or a merge changes the number
/// without a command that could count.
pub(super) fn db_size(txn: &Txn<'_>) -> io::Result<u64> {
    let mut keys = txn.keys(txn.context.slots);
    keys.try_fold(0, |count, key| Ok(count + u64::from(key?.ty.is_some())))
}
