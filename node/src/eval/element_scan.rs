//! HSCAN, SSCAN and ZSCAN: the elements of one key in [pages](Page), by the same kind of cursor as SCAN's.

use super::args::{Outcome, Stop, integer, is};
use super::collection;
use super::order::score_of;
use super::page::{Page, position_of};
use super::scan::{cursor_of, invalid_cursor};
use super::txn::Txn;
use crate::command::glob_matches;
use crate::model::Type;
use crate::resp::{Reply, format_double};
use bytes::Bytes;

/// Elements that a step returns if nothing else is asked for; a small key comes whole.
const COUNT_DEFAULT: usize = 10;

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
    let from = u32::try_from(cursor_of(&args[2])?).map_err(|_| invalid_cursor())?;
    let key = collection::load(txn, &args[1], ty)?;
    if key.ty.is_none() {
        return Ok(step(None, Vec::new()));
    }
    let (pattern, count) = options(&args[3..])?;
    let mut page = Page::new(from, count);
    for field in txn.fields(&key) {
        let (name, value) = field?;
        let bytes = 2 * size_of::<Reply>() + name.len() + value.len();
        page.offer(position_of(&name), bytes, (name, value));
    }
    let (fields, next) = page.finish();
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

/// A score as text, also in RESP3.
fn score(value: &[u8]) -> Bytes {
    Bytes::from(score_of(value).map_or_else(String::new, format_double))
}

/// A cursor, 0 at the end, and what was found.
fn step(next: Option<u32>, found: Vec<Bytes>) -> Reply {
    Reply::Array(vec![Reply::bulk(next.unwrap_or(0).to_string()), Reply::bulks(found)])
}
