//! HRANDFIELD: fields by [chance](Chance). All fields are read for it, and as few kept as are asked
//! for.

use super::args::{Outcome, Stop, integer, is};
use super::chance::Chance;
use super::hashes;
use super::txn::{Key, Txn};
use crate::resp::{COMMAND_REPLY_BYTES_MAX, Reply};
use bytes::Bytes;
use std::collections::BinaryHeap;

type Field = (Bytes, Bytes);

pub(super) fn hrandfield(txn: &mut Txn<'_>, args: &[Bytes]) -> Outcome {
    let Some(count) = args.get(2) else {
        let key = hashes::load(txn, &args[1])?;
        let picked = if key.ty.is_some() { distinct(txn, &key, 1, false)?.pop() } else { None };
        return Ok(Reply::bulk_or_null(picked.map(|(name, _)| name)));
    };
    let (count, with_values) = count_of(count, &args[3..])?;
    let key = hashes::load(txn, &args[1])?;
    if key.ty.is_none() || count == 0 {
        return Ok(Reply::Array(Vec::new()));
    }
    let wanted = usize::try_from(count.unsigned_abs()).unwrap_or(usize::MAX);
    let picked = match count > 0 {
        true => distinct(txn, &key, wanted, with_values)?,
        false => with_repeats(txn, &key, wanted, with_values)?,
    };
    let fields = picked.into_iter();
    Ok(match with_values {
        true => Reply::Pairs(fields.map(|(a, b)| (Reply::Bulk(a), Reply::Bulk(b))).collect()),
        false => Reply::bulks(fields.map(|(name, _)| name)),
    })
}

fn count_of(count: &[u8], rest: &[Bytes]) -> Result<(i64, bool), Stop> {
    let count = integer(count)?;
    if count == i64::MIN {
        let (min, max) = (-i64::MAX, i64::MAX);
        let line = format!("ERR value is out of range, value must between {min} and {max}");
        return Err(Stop::error(line));
    }
    match rest {
        [] => Ok((count, false)),
        [word] if is(word, "WITHVALUES") => {
            let in_range = count.abs() <= i64::MAX / 2;
            let line = || Stop::error("ERR value is out of range".to_owned());
            if in_range { Ok((count, true)) } else { Err(line()) }
        }
        _ => Err(Stop::syntax()),
    }
}

fn size_of_field((name, value): &Field) -> usize {
    2 * size_of::<Reply>() + name.len() + value.len()
}

/// Values that nobody asked for are not held.
fn as_asked((name, value): Field, with_values: bool) -> Field {
    (name, if with_values { value } else { Bytes::new() })
}

/// So many different fields, or all: those of the lowest draws.
fn distinct(
    txn: &Txn<'_>,
    key: &Key,
    wanted: usize,
    with_values: bool,
) -> Result<Vec<Field>, Stop> {
    let chance = Chance::new(txn, &key.name);
    let mut kept: BinaryHeap<(u64, Field)> = BinaryHeap::new();
    let mut bytes = 0;
    for field in txn.fields(key) {
        let field = as_asked(field?, with_values);
        bytes += size_of_field(&field);
        kept.push((chance.of(&field.0), field));
        if kept.len() > wanted {
            bytes -= kept.pop().map_or(0, |(_, field)| size_of_field(&field));
        }
        if bytes > COMMAND_REPLY_BYTES_MAX {
            return Err(Stop::reply_too_large());
        }
    }
    Ok(kept.into_iter().map(|(_, field)| field).collect())
}

/// So many fields, each drawn from all: first their places are drawn, then they are read in order.
fn with_repeats(
    txn: &Txn<'_>,
    key: &Key,
    wanted: usize,
    with_values: bool,
) -> Result<Vec<Field>, Stop> {
    if wanted > COMMAND_REPLY_BYTES_MAX / (2 * size_of::<Reply>()) {
        return Err(Stop::reply_too_large());
    }
    let (chance, fields) = (Chance::new(txn, &key.name), txn.count(key)?);
    let mut drawn: Vec<(u64, usize)> =
        (0..wanted).map(|draw| (chance.below(draw as u64, fields.max(1)), draw)).collect();
    drawn.sort_unstable();
    let mut picked = vec![(Bytes::new(), Bytes::new()); wanted];
    let (mut next, mut bytes) = (drawn.into_iter().peekable(), 0);
    for (place, field) in (0..).zip(txn.fields(key)) {
        let field = as_asked(field?, with_values);
        while let Some((_, draw)) = next.next_if(|(drawn, _)| *drawn == place) {
            bytes += size_of_field(&field);
            if bytes > COMMAND_REPLY_BYTES_MAX {
                return Err(Stop::reply_too_large());
            }
            picked[draw] = field.clone();
        }
    }
    Ok(picked)
}
