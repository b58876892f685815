//! Reads.

use super::super::args::{Outcome, Stop, integer, is};
use super::super::collection::{self, Budget};
use super::super::txn::Txn;
use super::super::zsets::places;
use super::{from_index, load, position_at};
use crate::engine::order::Span;
use crate::resp::Reply;
use bytes::Bytes;

pub(in super::super) fn lindex(txn: &mut Txn<'_>, args: &[Bytes]) -> Outcome {
    let key = load(txn, &args[1])?;
    if key.ty.is_none() {
        return Ok(Reply::Null);
    }
    let position = position_at(txn, &key, integer(&args[2])?)?;
    let value = position.map(|position| txn.field(&key, &position)).transpose()?;
    Ok(Reply::bulk_or_null(value.flatten()))
}

pub(in super::super) fn lrange(txn: &mut Txn<'_>, args: &[Bytes]) -> Outcome {
    let (start, stop) = (integer(&args[2])?, integer(&args[3])?);
    let key = load(txn, &args[1])?;
    let places = places(start, stop, collection::size(txn, &key)?);
    let (mut values, mut budget) = (Vec::new(), Budget::reply());
    if !places.is_empty() {
        let many = (places.end - places.start) as usize;
        for element in from_index(txn, &key, places.start)?.take(many) {
            let (_, value) = element?;
            budget.take(value.len())?;
            values.push(value);
        }
    }
    Ok(Reply::bulks(values))
}

/// Options of LPOS.
struct Wanted {
    /// Which match is the first: from the end if negative.
    rank: i64,
    /// How many matches, 0 for all; none for one that is not in an array.
    count: Option<u64>,
    /// How many elements to look at, 0 for all.
    most: u64,
}

impl Wanted {
    fn parse(options: &[Bytes]) -> Result<Wanted, Stop> {
        let mut wanted = Wanted { rank: 1, count: None, most: 0 };
        for option in options.chunks(2) {
            let [word, value] = option else { return Err(Stop::syntax()) };
            let not_negative = |what: &str| {
                let line = || Stop::error(format!("ERR {what} can't be negative"));
                integer(value).ok().and_then(|value| u64::try_from(value).ok()).ok_or_else(line)
            };
            match () {
                () if is(word, "RANK") => wanted.rank = rank(value)?,
                () if is(word, "COUNT") => wanted.count = Some(not_negative("COUNT")?),
                () if is(word, "MAXLEN") => wanted.most = not_negative("MAXLEN")?,
                () => return Err(Stop::syntax()),
            }
        }
        Ok(wanted)
    }
}

fn rank(value: &[u8]) -> Result<i64, Stop> {
    let error = |line: &str| Stop::error(line.to_owned());
    match integer(value)? {
        i64::MIN => Err(Stop::not_between(-i64::MAX, i64::MAX)),
        0 => Err(error(
            "ERR RANK can't be zero: use 1 to start from the first match, 2 from the second ... or use negative to start from the end of the list",
        )),
        rank => Ok(rank),
    }
}

pub(in super::super) fn lpos(txn: &mut Txn<'_>, args: &[Bytes]) -> Outcome {
    let wanted = Wanted::parse(&args[3..])?;
    let key = load(txn, &args[1])?;
    let mut found = Vec::new();
    if key.ty.is_some() {
        let (reverse, len) = (wanted.rank < 0, txn.count(&key)? as i64);
        let mut over = wanted.rank.unsigned_abs() - 1;
        let most = if wanted.most == 0 { usize::MAX } else { wanted.most as usize };
        let many = match wanted.count {
            None => 1,
            Some(0) => usize::MAX,
            Some(count) => count as usize,
        };
        for (at, element) in (0..).zip(txn.fields_in(&key, Span::ALL, reverse).take(most)) {
            let (_, value) = element?;
            if value != args[2] {
                continue;
            }
            if over > 0 {
                over -= 1;
                continue;
            }
            found.push(Reply::Int(if reverse { len - 1 - at } else { at }));
            if found.len() == many {
                break;
            }
        }
    }
    Ok(match wanted.count {
        None => found.into_iter().next().unwrap_or(Reply::Null),
        Some(_) => Reply::Array(found),
    })
}
