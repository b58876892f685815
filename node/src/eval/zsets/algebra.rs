//! Unions, intersections and differences of sorted sets and sets, whose members have the score 1.

use super::super::args::{Outcome, Stop, integer, is};
use super::super::collection::Budget;
use super::super::doubles;
use super::super::order::{Entry, place_of, score_of};
use super::super::streams::{Algebra, Streams};
use super::super::txn::{Key, Txn};
use super::answer;
use super::range::store;
use crate::model::Type;
use crate::resp::Reply;
use bytes::Bytes;

/// How the scores of a member that several keys have become one.
#[derive(Debug, Clone, Copy)]
enum Aggregate {
    Sum,
    Min,
    Max,
}

impl Aggregate {
    fn of(self, a: f64, b: f64) -> f64 {
        match self {
            // As in Redis: of two opposite infinities nothing is left.
            Aggregate::Sum => Some(a + b).filter(|sum| !sum.is_nan()).unwrap_or(0.0),
            Aggregate::Min => a.min(b),
            Aggregate::Max => a.max(b),
        }
    }
}

/// What a command of this kind asks for.
struct Asked {
    keys: Vec<Key>,
    weights: Vec<f64>,
    aggregate: Aggregate,
    with_scores: bool,
    /// For ZINTERCARD; 0 is no limit.
    limit: i64,
}

/// Which options a command takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Takes {
    Scores,
    Nothing,
    Limit,
}

impl Asked {
    /// Reads the number of keys, the keys and the options.
    fn parse(
        txn: &mut Txn<'_>,
        args: &[Bytes],
        algebra: Algebra,
        takes: Takes,
        name: &str,
    ) -> Result<Asked, Stop> {
        let number = integer(&args[0])?;
        if number < 1 {
            let line = format!("ERR at least 1 input key is needed for '{name}' command");
            return Err(Stop::error(line));
        }
        let number = usize::try_from(number).ok().filter(|number| *number < args.len());
        let (names, options) = args[1..].split_at(number.ok_or_else(Stop::syntax)?);
        let keys = names.iter().map(|name| load_any(txn, name)).collect::<Result<Vec<_>, _>>()?;
        let weights = vec![1.0; keys.len()];
        let mut asked =
            Asked { keys, weights, aggregate: Aggregate::Sum, with_scores: false, limit: 0 };
        asked.options(options, algebra, takes)?;
        Ok(asked)
    }

    fn options(
        &mut self,
        mut options: &[Bytes],
        algebra: Algebra,
        takes: Takes,
    ) -> Result<(), Stop> {
        let weighs = algebra != Algebra::Diff && takes != Takes::Limit;
        while let [option, rest @ ..] = options {
            options = rest;
            if weighs && is(option, "WEIGHTS") && rest.len() >= self.keys.len() {
                let (weights, rest) = rest.split_at(self.keys.len());
                let error = || Stop::error("ERR weight value is not a float".to_owned());
                let weights = weights.iter().map(|weight| doubles::score(weight).ok_or_else(error));
                self.weights = weights.collect::<Result<_, _>>()?;
                options = rest;
            } else if let (true, [how, rest @ ..]) = (weighs && is(option, "AGGREGATE"), rest) {
                self.aggregate = match () {
                    () if is(how, "SUM") => Aggregate::Sum,
                    () if is(how, "MIN") => Aggregate::Min,
                    () if is(how, "MAX") => Aggregate::Max,
                    () => return Err(Stop::syntax()),
                };
                options = rest;
            } else if takes == Takes::Scores && is(option, "WITHSCORES") {
                self.with_scores = true;
            } else if let (true, [limit, rest @ ..]) =
                (takes == Takes::Limit && is(option, "LIMIT"), rest)
            {
                let error = || Stop::error("ERR LIMIT can't be negative".to_owned());
                let limit = integer(limit).ok().filter(|limit| *limit >= 0);
                self.limit = limit.ok_or_else(error)?;
                options = rest;
            } else {
                return Err(Stop::syntax());
            }
        }
        Ok(())
    }

    /// The members of the result, by name.
    fn members(
        &self,
        txn: &Txn<'_>,
        algebra: Algebra,
        mut budget: Budget,
    ) -> Result<Vec<(Bytes, f64)>, Stop> {
        let mut streams = Streams::new(txn, &self.keys, algebra);
        let mut members = Vec::new();
        while let Some(name) = streams.step()? {
            budget.take(name.len() + size_of::<Reply>())?;
            let scores = streams.found().iter().map(|(place, value)| {
                let score = score_of(value).unwrap_or(1.0) * self.weights[*place];
                if score.is_nan() { 0.0 } else { score }
            });
            let score = scores.reduce(|a, b| self.aggregate.of(a, b)).unwrap_or(0.0);
            members.push((name, score));
        }
        Ok(members)
    }
}

/// A set, a sorted set or nothing.
fn load_any(txn: &mut Txn<'_>, name: &Bytes) -> Result<Key, Stop> {
    let key = txn.load(name)?;
    match key.ty {
        None | Some(Type::Set | Type::SortedSet) => Ok(key),
        Some(_) => Err(Stop::wrong_type()),
    }
}

/// ZUNION, ZINTER and ZDIFF.
pub(in super::super) fn combine(
    txn: &mut Txn<'_>,
    args: &[Bytes],
    algebra: Algebra,
    name: &str,
) -> Outcome {
    let asked = Asked::parse(txn, &args[1..], algebra, Takes::Scores, name)?;
    let members = asked.members(txn, algebra, Budget::reply())?;
    let entry = |(name, score): (Bytes, f64)| Entry { place: place_of(score, &name), score };
    let mut entries: Vec<Entry> = members.into_iter().map(entry).collect();
    entries.sort_by(|a, b| a.place.cmp(&b.place));
    Ok(answer(entries, asked.with_scores))
}

/// ZUNIONSTORE, ZINTERSTORE and ZDIFFSTORE: the target first.
pub(in super::super) fn combine_store(
    txn: &mut Txn<'_>,
    args: &[Bytes],
    algebra: Algebra,
    name: &str,
) -> Outcome {
    let asked = Asked::parse(txn, &args[2..], algebra, Takes::Nothing, name)?;
    let target = txn.load(&args[1])?;
    let members = asked.members(txn, algebra, Budget::write(&target))?;
    store(txn, target, members)
}

/// ZINTERCARD.
pub(in super::super) fn zintercard(txn: &mut Txn<'_>, args: &[Bytes], name: &str) -> Outcome {
    let asked = Asked::parse(txn, &args[1..], Algebra::Inter, Takes::Limit, name)?;
    let mut streams = Streams::new(txn, &asked.keys, Algebra::Inter);
    let mut found = 0;
    while (asked.limit == 0 || found < asked.limit) && streams.step()?.is_some() {
        found += 1;
    }
    Ok(Reply::Int(found))
}
