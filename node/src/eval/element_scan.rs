//! HSCAN, SSCAN and ZSCAN: the elements of one key in steps, each behind the last [name](super::marks) of
//! the one before.

use super::args::{Outcome, Stop, integer, is};
use super::collection;
use super::marks::cursor_at;
use super::order::score_of;
use super::scan::cursor_of;
use super::txn::{Key, Txn};
use crate::command::glob_matches;
use crate::engine::keys;
use crate::engine::order::Span;
use crate::model::Type;
use crate::resp::{Reply, format_double};
use bytes::Bytes;
use std::io;

/// Elements that a step returns if nothing else is asked for.
const COUNT_DEFAULT: usize = 10;
/// Elements that a step returns at least, if there are as many: a small key comes whole.
const STEP_ITEMS_MIN: usize = 1024;
/// A step ends with the element that makes its answer longer.
const STEP_BYTES_MAX: usize = 16 << 20;
/// A step looks at so many rows for each element that it may tell, at most: what was removed and waits
/// to be collected has rows too.
const ROWS_PER_ITEM: usize = 16;

/// MATCH and COUNT.
fn options(args: &[Bytes]) -> Result<(Option<&Bytes>, usize), Stop> {
    let (mut pattern, mut count) = (None, COUNT_DEFAULT);
    for option in args.chunks(2) {
        let [word, value] = option else { return Err(Stop::syntax()) };
        if is(word, "COUNT") {
            let given = usize::try_from(integer(value)?).ok();
            count = given.filter(|count| *count > 0).ok_or_else(Stop::syntax)?;
        } else if is(word, "MATCH") {
            pattern = Some(value);
        } else {
            return Err(Stop::syntax());
        }
    }
    Ok((pattern, count))
}

/// A step through a key of this type, whose elements are told with or without their values.
pub(super) fn element_scan(txn: &mut Txn<'_>, args: &[Bytes], ty: Type) -> Outcome {
    let cursor = cursor_of(&args[2])?;
    let key = collection::load(txn, &args[1], ty)?;
    if key.ty.is_none() {
        return Ok(step(0, Vec::new()));
    }
    let (pattern, count) = options(&args[3..])?;
    let behind = if cursor == 0 { None } else { resume(txn, &key, cursor)? };
    let (fields, next) = read_on(txn, &key, behind, count.max(STEP_ITEMS_MIN))?;
    let wanted = |name: &[u8]| pattern.is_none_or(|pattern| glob_matches(pattern, name, false));
    let found = fields.into_iter().filter(|(name, _)| wanted(name));
    Ok(step(
        next,
        match ty {
            Type::Set => found.map(|(name, _)| name).collect(),
            Type::SortedSet => found.flat_map(|(name, value)| [name, score(&value)]).collect(),
            _ => found.flat_map(|(name, value)| [name, value]).collect(),
        },
    ))
}

/// The name that a scan has come to; none if it must begin anew.
fn resume(txn: &Txn<'_>, key: &Key, cursor: u64) -> io::Result<Option<Bytes>> {
    let remembered = txn.marks.and_then(|marks| marks.name(&key.name, cursor));
    if remembered.is_some() {
        return Ok(remembered);
    }
    for row in txn.element_rows(key, Span::ALL) {
        let (name, _) = row?;
        if cursor_at(&key.name, &name) == cursor {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

type Fields = Vec<(Bytes, Bytes)>;

/// About `count` visible elements behind a name, and the cursor to go on from; 0 at the end.
fn read_on(
    txn: &Txn<'_>,
    key: &Key,
    behind: Option<Bytes>,
    count: usize,
) -> io::Result<(Fields, u64)> {
    let start = behind.map_or_else(Bytes::new, |name| keys::behind(&name));
    let (mut fields, mut bytes) = (Vec::new(), 0);
    let (mut rows, most) = (0, count.saturating_mul(ROWS_PER_ITEM));
    let mut last: Option<Bytes> = None;
    for row in txn.element_rows(key, Span { start, end: None }) {
        let full = fields.len() >= count || bytes >= STEP_BYTES_MAX || rows >= most;
        if let Some(last) = last.as_ref().filter(|_| full) {
            let cursor = cursor_at(&key.name, last);
            if let Some(marks) = txn.marks {
                marks.put(cursor, last);
            }
            return Ok((fields, cursor));
        }
        let (name, value) = row?;
        rows += 1;
        last = Some(name.clone());
        if let Some(value) = value {
            bytes += 2 * size_of::<Reply>() + name.len() + value.len();
            fields.push((name, value));
        }
    }
    Ok((fields, 0))
}

/// A score as text, also in RESP3.
fn score(value: &[u8]) -> Bytes {
    Bytes::from(score_of(value).map_or_else(String::new, format_double))
}

/// A cursor, 0 at the end, and what was found.
fn step(next: u64, found: Vec<Bytes>) -> Reply {
    Reply::Array(vec![Reply::bulk(next.to_string()), Reply::bulks(found)])
}
