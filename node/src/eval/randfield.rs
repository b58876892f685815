//! HRANDFIELD and ZRANDMEMBER: elements by chance.

use super::args::{Outcome, Stop, integer, is};
use super::collection::{self, Budget};
use super::order::score_of;
use super::sample::Sample;
use super::txn::Txn;
use crate::model::Type;
use crate::resp::Reply;
use bytes::Bytes;

/// Elements of a key of this type.
pub(super) fn rand_elements(txn: &mut Txn<'_>, args: &[Bytes], ty: Type) -> Outcome {
    let Some(count) = args.get(2) else {
        let key = collection::load(txn, &args[1], ty)?;
        let picked = match key.ty {
            Some(_) => Sample::new(txn, &key).distinct(txn, &key, 1, Budget::reply())?.pop(),
            None => None,
        };
        return Ok(Reply::bulk_or_null(picked.map(|(name, _)| name)));
    };
    let (count, with_values) = count_of(count, &args[3..], ty)?;
    let key = collection::load(txn, &args[1], ty)?;
    if key.ty.is_none() || count == 0 {
        return Ok(Reply::Array(Vec::new()));
    }
    let (mut sample, wanted) = (Sample::new(txn, &key), count.unsigned_abs());
    let picked = match count > 0 {
        true => sample.distinct(txn, &key, wanted, Budget::reply())?,
        false => sample.with_repeats(txn, &key, wanted, Budget::reply())?,
    };
    let value = |value: Bytes| match ty {
        Type::SortedSet => score_of(&value).map_or(Reply::Null, Reply::Double),
        _ => Reply::Bulk(value),
    };
    let fields = picked.into_iter();
    Ok(match with_values {
        true => Reply::Pairs(fields.map(|(a, b)| (Reply::Bulk(a), value(b))).collect()),
        false => Reply::bulks(fields.map(|(name, _)| name)),
    })
}

fn count_of(count: &[u8], rest: &[Bytes], ty: Type) -> Result<(i64, bool), Stop> {
    let count = integer(count)?;
    if count == i64::MIN {
        return Err(Stop::not_between(-i64::MAX, i64::MAX));
    }
    let with_values = if ty == Type::SortedSet { "WITHSCORES" } else { "WITHVALUES" };
    match rest {
        [] => Ok((count, false)),
        [word] if is(word, with_values) => {
            let in_range = count.abs() <= i64::MAX / 2;
            let line = || Stop::error("ERR value is out of range".to_owned());
            if in_range { Ok((count, true)) } else { Err(line()) }
        }
        _ => Err(Stop::syntax()),
    }
}
