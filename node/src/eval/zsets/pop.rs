//! Members taken from either end.

use super::super::args::{Outcome, Stop};
use super::super::blocking::keys_before_timeout;
use super::super::collection::{self, Budget, first_there, mpop, positive};
use super::super::order::Entry;
use super::super::txn::{Key, Txn};
use super::{End, load_to_write, pair};
use crate::engine::order::Span;
use crate::model::Type;
use crate::resp::Reply;
use bytes::Bytes;

/// Removes up to so many members from an end of a visible key.
fn pop(txn: &mut Txn<'_>, key: Key, end: End, count: u64) -> Result<Vec<Entry>, Stop> {
    let (mut popped, mut budget) = (Vec::new(), Budget::write(&key));
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    for entry in txn.in_order(&key, &Span::ALL, end == End::Max).take(count) {
        let entry = entry?;
        budget.take(entry.place.len())?;
        popped.push(entry);
    }
    let members: Vec<Bytes> = popped.iter().map(Entry::member).collect();
    collection::remove(txn, key, &members)?;
    Ok(popped)
}

/// ZPOPMIN and ZPOPMAX.
pub(in super::super) fn zpop(txn: &mut Txn<'_>, args: &[Bytes], end: End) -> Outcome {
    if args.len() > 3 {
        return Err(Stop::syntax());
    }
    let count = args.get(2).map(|count| positive(count)).transpose()?;
    let key = load_to_write(txn, &args[1])?;
    if key.ty.is_none() {
        return Ok(Reply::Array(Vec::new()));
    }
    let popped = pop(txn, key, end, count.unwrap_or(1))?;
    let pairs = popped.iter().map(pair);
    Ok(match count {
        Some(_) => Reply::Pairs(pairs.collect()),
        None => Reply::Array(pairs.flat_map(|(member, score)| [member, score]).collect()),
    })
}

/// Removes up to so many members from an end of the first of the keys that exists: which one, and they.
fn pop_of_first<'n>(
    txn: &mut Txn<'_>,
    names: &'n [Bytes],
    end: End,
    count: u64,
) -> Result<Option<(&'n Bytes, Vec<Entry>)>, Stop> {
    let Some((name, key)) = first_there(txn, names, Type::SortedSet)? else { return Ok(None) };
    Ok(Some((name, pop(txn, key, end, count)?)))
}

/// ZMPOP, by what stands behind its name; BZMPOP if it has a timeout.
pub(in super::super) fn zmpop(
    txn: &mut Txn<'_>,
    args: &[Bytes],
    max_wait: Option<&Bytes>,
) -> Outcome {
    let (names, end, count) = mpop(args, max_wait, End::parse)?;
    let Some((name, popped)) = pop_of_first(txn, names, end, count)? else {
        return Ok(Reply::NullArray);
    };
    let members = popped.iter().map(pair).map(|(member, score)| Reply::Array(vec![member, score]));
    Ok(Reply::Array(vec![Reply::Bulk(name.clone()), Reply::Array(members.collect())]))
}

/// BZPOPMIN and BZPOPMAX.
pub(in super::super) fn bzpop(txn: &mut Txn<'_>, args: &[Bytes], end: End) -> Outcome {
    let names = keys_before_timeout(&args[1..])?;
    let Some((name, popped)) = pop_of_first(txn, names, end, 1)? else {
        return Ok(Reply::NullArray);
    };
    let members = popped.iter().map(pair).flat_map(|(member, score)| [member, score]);
    Ok(Reply::Array(std::iter::once(Reply::Bulk(name.clone())).chain(members).collect()))
}
