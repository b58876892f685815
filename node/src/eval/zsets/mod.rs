//! Commands on sorted sets. A member is an element whose value is its score; the order index has them by
//! score and name.

mod add;
mod algebra;
mod bounds;
mod pop;
mod range;

pub(super) use add::{zadd, zincrby};
pub(super) use algebra::{combine, combine_store, zintercard};
pub(super) use bounds::places;
pub(super) use pop::{zmpop, zpop};
pub(super) use range::{By, Source, range, rem_range, zcount, zrange_store};

use super::args::{Outcome, Stop};
use super::collection;
use super::order::{Entry, place_of};
use super::txn::{Key, Txn};
use crate::engine::order::Span;
use crate::model::Type;
use crate::resp::Reply;
use bytes::Bytes;

/// Which end is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Min,
    Max,
}

fn load(txn: &mut Txn<'_>, name: &Bytes) -> Result<Key, Stop> {
    collection::load(txn, name, Type::SortedSet)
}

fn load_to_write(txn: &mut Txn<'_>, name: &Bytes) -> Result<Key, Stop> {
    collection::load_to_write(txn, name, Type::SortedSet)
}

/// Members as an answer, with or without their scores.
fn answer(entries: Vec<Entry>, with_scores: bool) -> Reply {
    let entries = entries.into_iter();
    match with_scores {
        true => Reply::Pairs(entries.map(|entry| pair(&entry)).collect()),
        false => Reply::bulks(entries.map(|entry| entry.member())),
    }
}

fn pair(entry: &Entry) -> (Reply, Reply) {
    (Reply::Bulk(entry.member()), Reply::Double(entry.score))
}

pub(super) fn zrem(txn: &mut Txn<'_>, args: &[Bytes]) -> Outcome {
    let mut key = load_to_write(txn, &args[1])?;
    if key.ty.is_none() {
        return Ok(Reply::Int(0));
    }
    let removed = remove(txn, &mut key, &args[2..])?;
    if removed > 0 {
        txn.save_or_drop(key)?;
    }
    Ok(Reply::Int(removed))
}

/// Removes members of a visible key; how many were there.
fn remove(txn: &mut Txn<'_>, key: &mut Key, members: &[Bytes]) -> Result<i64, Stop> {
    let mut removed = 0;
    for member in members {
        removed += i64::from(txn.remove_field(key, member)?);
    }
    Ok(removed)
}

pub(super) fn zcard(txn: &mut Txn<'_>, args: &[Bytes]) -> Outcome {
    let key = load(txn, &args[1])?;
    let count = if key.ty.is_some() { txn.count(&key)? } else { 0 };
    Ok(Reply::Int(count as i64))
}

pub(super) fn zscore(txn: &mut Txn<'_>, args: &[Bytes]) -> Outcome {
    let key = load(txn, &args[1])?;
    Ok(txn.score(&key, &args[2])?.map_or(Reply::Null, Reply::Double))
}

pub(super) fn zmscore(txn: &mut Txn<'_>, args: &[Bytes]) -> Outcome {
    let key = load(txn, &args[1])?;
    let mut scores = Vec::with_capacity(args.len() - 2);
    for member in &args[2..] {
        scores.push(txn.score(&key, member)?.map_or(Reply::Null, Reply::Double));
    }
    Ok(Reply::Array(scores))
}

/// ZRANK, or ZREVRANK from the `Max` end.
pub(super) fn zrank(txn: &mut Txn<'_>, args: &[Bytes], from: End) -> Outcome {
    let key = load(txn, &args[1])?;
    let Some(score) = txn.score(&key, &args[2])? else { return Ok(Reply::Null) };
    let rank = txn.count_in(&key, &Span::before(place_of(score, &args[2])))?;
    Ok(Reply::Int(match from {
        End::Min => rank as i64,
        End::Max => txn.count(&key)? as i64 - 1 - rank as i64,
    }))
}
