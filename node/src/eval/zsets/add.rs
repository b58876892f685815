//! ZADD and ZINCRBY.

use super::super::args::{Outcome, Stop, is};
use super::super::order::value_of;
use super::super::txn::{Key, Txn};
use super::bounds::score;
use super::load_to_write;
use crate::model::Type;
use crate::resp::Reply;
use bytes::Bytes;

/// Options of ZADD.
#[derive(Debug, Clone, Copy, Default)]
struct Options {
    only_new: bool,
    only_old: bool,
    greater: bool,
    less: bool,
    changed: bool,
    increment: bool,
}

impl Options {
    /// Takes them from the front; what follows them.
    fn parse(mut args: &[Bytes], of_scores: bool) -> (Options, &[Bytes]) {
        let mut options = Options::default();
        while let [word, rest @ ..] = args {
            match () {
                () if is(word, "NX") => options.only_new = true,
                () if is(word, "XX") => options.only_old = true,
                () if of_scores && is(word, "GT") => options.greater = true,
                () if of_scores && is(word, "LT") => options.less = true,
                () if is(word, "CH") => options.changed = true,
                () if of_scores && is(word, "INCR") => options.increment = true,
                () => break,
            }
            args = rest;
        }
        (options, args)
    }

    fn check(self, members: usize) -> Result<(), Stop> {
        let line = if self.only_new && self.only_old {
            "ERR XX and NX options at the same time are not compatible"
        } else if (self.only_new && (self.greater || self.less)) || (self.greater && self.less) {
            "ERR GT, LT, and/or NX options at the same time are not compatible"
        } else if self.increment && members > 1 {
            "ERR INCR option supports a single increment-element pair"
        } else {
            return Ok(());
        };
        Err(Stop::error(line.to_owned()))
    }

    /// The score that is to be written over `old`, or none.
    fn next(self, old: Option<f64>, given: f64) -> Result<Option<f64>, Stop> {
        let Some(old) = old else { return Ok((!self.only_old).then_some(given)) };
        if self.only_new {
            return Ok(None);
        }
        let next = if self.increment { old + given } else { given };
        if next.is_nan() {
            let line = "ERR resulting score is not a number (NaN)";
            return Err(Stop::error(line.to_owned()));
        }
        let refused = (self.less && next >= old) || (self.greater && next <= old);
        Ok((!refused).then_some(next))
    }
}

/// What was done to a key's members.
#[derive(Debug, Default)]
struct Done {
    added: i64,
    updated: i64,
    last: Option<f64>,
    wrote: bool,
}

fn put(
    txn: &mut Txn<'_>,
    key: &mut Key,
    options: Options,
    pairs: &[(f64, &Bytes)],
) -> Result<Done, Stop> {
    let mut done = Done::default();
    for (given, member) in pairs {
        let old = txn.score(key, member)?;
        done.last = options.next(old, *given)?;
        let Some(next) = done.last else { continue };
        // What is asserted again is written again: another cluster's older removal must lose.
        if !done.wrote {
            txn.claim(key, Type::SortedSet);
            done.wrote = true;
        }
        txn.set_field(key, member, value_of(next))?;
        done.added += i64::from(old.is_none());
        done.updated += i64::from(old.is_some_and(|old| old != next));
    }
    Ok(done)
}

pub(in super::super) fn zadd(txn: &mut Txn<'_>, args: &[Bytes]) -> Outcome {
    let (options, pairs) = Options::parse(&args[2..], true);
    if pairs.is_empty() || !pairs.len().is_multiple_of(2) {
        return Err(Stop::syntax());
    }
    options.check(pairs.len() / 2)?;
    let pairs = pairs.chunks_exact(2).map(|pair| Ok((score(&pair[0])?, &pair[1])));
    let pairs = pairs.collect::<Result<Vec<_>, Stop>>()?;
    write(txn, &args[1], options, &pairs)
}

/// GEOADD: members behind what their scores are made of, `each` words for one.
pub(in super::super) fn add_scored(
    txn: &mut Txn<'_>,
    args: &[Bytes],
    each: usize,
    score: impl Fn(&[Bytes]) -> Result<f64, Stop>,
) -> Outcome {
    let (options, words) = Options::parse(&args[2..], false);
    let both = options.only_new && options.only_old;
    if words.is_empty() || !words.len().is_multiple_of(each) || both {
        return Err(Stop::syntax());
    }
    let pairs = words.chunks_exact(each).map(|words| Ok((score(words)?, &words[each - 1])));
    let pairs = pairs.collect::<Result<Vec<_>, Stop>>()?;
    write(txn, &args[1], options, &pairs)
}

fn write(txn: &mut Txn<'_>, name: &Bytes, options: Options, pairs: &[(f64, &Bytes)]) -> Outcome {
    let mut key = load_to_write(txn, name)?;
    let done = put(txn, &mut key, options, pairs)?;
    if done.wrote {
        txn.save(key);
    }
    Ok(match options.increment {
        true => done.last.map_or(Reply::Null, Reply::Double),
        false if options.changed => Reply::Int(done.added + done.updated),
        false => Reply::Int(done.added),
    })
}

pub(in super::super) fn zincrby(txn: &mut Txn<'_>, args: &[Bytes]) -> Outcome {
    let amount = score(&args[2])?;
    let mut key = load_to_write(txn, &args[1])?;
    let options = Options { increment: true, ..Options::default() };
    let done = put(txn, &mut key, options, &[(amount, &args[3])])?;
    txn.save(key);
    Ok(done.last.map_or(Reply::Null, Reply::Double))
}
