//! Commands on members between two ranks, scores or names.

use super::super::args::{Outcome, Stop, integer, is};
use super::super::collection::{self, Budget};
use super::super::order::{Entry, value_of};
use super::super::txn::{Key, Txn};
use super::bounds::{Names, Scores, Section, places, ranks};
use super::{answer, load, load_to_write};
use crate::model::Type;
use crate::resp::Reply;
use bytes::Bytes;
use std::io;

/// What the two ends of a range are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum By {
    Rank,
    Score,
    Name,
}

/// Which command's arguments are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Source {
    /// ZRANGE and ZRANGESTORE: the options say by what and in which direction.
    Any,
    /// An older command, whose name says so.
    Old { by: By, reverse: bool },
}

impl Source {
    pub(in super::super) const REV_RANGE: Source = Source::Old { by: By::Rank, reverse: true };
    pub(in super::super) const BY_SCORE: Source = Source::Old { by: By::Score, reverse: false };
    pub(in super::super) const REV_BY_SCORE: Source = Source::Old { by: By::Score, reverse: true };
    pub(in super::super) const BY_NAME: Source = Source::Old { by: By::Name, reverse: false };
    pub(in super::super) const REV_BY_NAME: Source = Source::Old { by: By::Name, reverse: true };
}

/// The two ends, read.
#[derive(Debug, Clone)]
enum Ends {
    Ranks(i64, i64),
    Scores(Scores),
    Names(Names),
}

impl Ends {
    fn parse(by: By, first: &Bytes, last: &Bytes) -> Result<Ends, Stop> {
        Ok(match by {
            By::Rank => {
                let (start, stop) = ranks(first, last)?;
                Ends::Ranks(start, stop)
            }
            By::Score => Ends::Scores(Scores::parse(first, last)?),
            By::Name => Ends::Names(Names::parse(first, last)?),
        })
    }
}

/// A range as a command asks for it.
struct Range {
    ends: Ends,
    reverse: bool,
    /// How many to leave out and, if not negative, how many to take at most.
    limit: (i64, i64),
    with_scores: bool,
}

impl Range {
    /// Reads the ends and what follows them.
    fn parse(args: &[Bytes], source: Source, stores: bool) -> Result<Range, Stop> {
        let (mut by, mut reverse) = match source {
            Source::Any => (None, false),
            Source::Old { by, reverse } => (Some(by), reverse),
        };
        let (mut limit, mut with_scores) = (None, false);
        let mut options = &args[2..];
        while let [option, rest @ ..] = options {
            options = rest;
            if !stores && is(option, "WITHSCORES") {
                with_scores = true;
            } else if let (true, [offset, count, rest @ ..]) = (is(option, "LIMIT"), rest) {
                limit = Some((integer(offset)?, integer(count)?));
                options = rest;
            } else if source == Source::Any && !reverse && is(option, "REV") {
                reverse = true;
            } else if source == Source::Any && by.is_none() && is(option, "BYSCORE") {
                by = Some(By::Score);
            } else if source == Source::Any && by.is_none() && is(option, "BYLEX") {
                by = Some(By::Name);
            } else {
                return Err(Stop::syntax());
            }
        }
        let by = by.unwrap_or(By::Rank);
        let error = |line: &str| Err(Stop::error(line.to_owned()));
        // As in Redis one that leaves nothing out is let pass.
        if limit.is_some_and(|(_, count)| count != -1) && by == By::Rank {
            return error(
                "ERR syntax error, LIMIT is only supported in combination with either BYSCORE or BYLEX",
            );
        }
        if with_scores && by == By::Name {
            return error("ERR syntax error, WITHSCORES not supported in combination with BYLEX");
        }
        let (first, last) = match reverse && by != By::Rank {
            true => (&args[1], &args[0]),
            false => (&args[0], &args[1]),
        };
        let ends = Ends::parse(by, first, last)?;
        Ok(Range { ends, reverse, limit: limit.unwrap_or((0, -1)), with_scores })
    }

    /// The members that it means.
    fn members(&self, txn: &Txn<'_>, key: &Key, mut budget: Budget) -> Result<Vec<Entry>, Stop> {
        if key.ty.is_none() {
            return Ok(Vec::new());
        }
        let mut members = Vec::new();
        let mut take = |entries: &mut dyn Iterator<Item = io::Result<Entry>>| {
            for entry in entries {
                let entry = entry?;
                budget.take(entry.place.len() + size_of::<Reply>())?;
                members.push(entry);
            }
            Ok::<(), Stop>(())
        };
        let (offset, count) = self.limit;
        let at_most = usize::try_from(count).unwrap_or(usize::MAX);
        // As in Redis nothing is behind a negative offset.
        let over = usize::try_from(offset).unwrap_or(usize::MAX);
        match &self.ends {
            Ends::Ranks(start, stop) => {
                let places = places(*start, *stop, txn.count(key)?);
                let many = (places.end - places.start) as usize;
                take(&mut txn.in_order_from(key, places.start, self.reverse)?.take(many))?;
            }
            Ends::Scores(scores) => {
                let section = Section::of_scores(*scores);
                take(&mut section.members_from(txn, key, over, self.reverse)?.take(at_most))?;
            }
            Ends::Names(names) => {
                let section = Section::of_names(txn, key, names.clone())?;
                take(&mut section.members_from(txn, key, over, self.reverse)?.take(at_most))?;
            }
        }
        Ok(members)
    }
}

/// ZRANGE and its older forms.
pub(in super::super) fn range(txn: &mut Txn<'_>, args: &[Bytes], source: Source) -> Outcome {
    let range = Range::parse(&args[2..], source, false)?;
    let key = load(txn, &args[1])?;
    Ok(answer(range.members(txn, &key, Budget::reply())?, range.with_scores))
}

/// ZRANGESTORE: the target first, then the source.
pub(in super::super) fn zrange_store(txn: &mut Txn<'_>, args: &[Bytes]) -> Outcome {
    let range = Range::parse(&args[3..], Source::Any, true)?;
    let source = load(txn, &args[2])?;
    let target = txn.load(&args[1])?;
    let members = range.members(txn, &source, Budget::write(&target))?;
    store(txn, target, members.into_iter().map(|entry| (entry.member(), entry.score)).collect())
}

/// Writes members over whatever a key holds; how many there are.
pub(in super::super) fn store(
    txn: &mut Txn<'_>,
    target: Key,
    members: Vec<(Bytes, f64)>,
) -> Outcome {
    let elements = members.into_iter().map(|(member, score)| (member, value_of(score)));
    collection::store(txn, target, Type::SortedSet, elements.collect())
}

/// ZCOUNT.
pub(in super::super) fn zcount(txn: &mut Txn<'_>, args: &[Bytes]) -> Outcome {
    let section = Section::of_scores(Scores::parse(&args[2], &args[3])?);
    let key = load(txn, &args[1])?;
    Ok(Reply::Int(section.count(txn, &key)? as i64))
}

/// ZLEXCOUNT.
pub(in super::super) fn zlexcount(txn: &mut Txn<'_>, args: &[Bytes]) -> Outcome {
    let names = Names::parse(&args[2], &args[3])?;
    let key = load(txn, &args[1])?;
    Ok(Reply::Int(Section::of_names(txn, &key, names)?.count(txn, &key)? as i64))
}

/// ZREMRANGEBYRANK, ZREMRANGEBYSCORE and ZREMRANGEBYLEX.
pub(in super::super) fn rem_range(txn: &mut Txn<'_>, args: &[Bytes], by: By) -> Outcome {
    let ends = Ends::parse(by, &args[2], &args[3])?;
    let range = Range { ends, reverse: false, limit: (0, -1), with_scores: false };
    let key = load_to_write(txn, &args[1])?;
    let members = range.members(txn, &key, Budget::write(&key))?;
    let members: Vec<Bytes> = members.iter().map(Entry::member).collect();
    Ok(Reply::Int(collection::remove(txn, key, &members)?))
}
