//! Commands on sorted sets. A member is an element whose value is its score; the order index has them by
//! score and name.

mod add;
mod algebra;
mod bounds;
mod pop;
mod range;

pub(super) use add::{add_scored, zadd, zincrby};
pub(super) use algebra::{combine, combine_store, zintercard};
pub(super) use bounds::places;
pub(super) use bounds::score as float;
pub(super) use pop::{bzpop, zmpop, zpop};
pub(super) use range::store;
pub(super) use range::{By, Source, range, rem_range, zcount, zlexcount, zrange_store};

use super::args::{Outcome, Stop, is};
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

impl End {
    fn parse(word: &[u8]) -> Result<End, Stop> {
        match () {
            () if is(word, "MIN") => Ok(End::Min),
            () if is(word, "MAX") => Ok(End::Max),
            () => Err(Stop::syntax()),
        }
    }
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
