//! Which members of a sorted set are meant: by rank, by score or by name.

use super::super::args::{Stop, integer};
use super::super::doubles;
use super::super::order::Entry;
use super::super::txn::{Key, Txn};
use crate::engine::keys;
use crate::engine::order::{Span, ordered_score};
use bytes::Bytes;
use std::io;
use std::ops::Range;

/// One end of a range of scores.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct ScoreBound {
    score: f64,
    excluded: bool,
}

/// A score, or Redis' complaint.
pub(in super::super) fn score(text: &[u8]) -> Result<f64, Stop> {
    doubles::score(text).ok_or_else(|| Stop::error("ERR value is not a valid float".to_owned()))
}

/// From the least to the greatest score.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Scores {
    least: ScoreBound,
    most: ScoreBound,
}

impl Scores {
    /// Reads both ends.
    pub(super) fn parse(least: &[u8], most: &[u8]) -> Result<Scores, Stop> {
        let bound = |text: &[u8]| {
            let (excluded, text) = match text.strip_prefix(b"(") {
                Some(rest) => (true, rest),
                None => (false, text),
            };
            doubles::end(text).map(|score| ScoreBound { score, excluded })
        };
        match (bound(least), bound(most)) {
            (Some(least), Some(most)) => Ok(Scores { least, most }),
            _ => Err(Stop::error("ERR min or max is not a float".to_owned())),
        }
    }

    /// Its places.
    pub(super) fn span(self) -> Span {
        let start = match self.least {
            ScoreBound { score, excluded: false } => Some(at(score)),
            ScoreBound { score, excluded: true } => above(score),
        };
        let end = match self.most {
            ScoreBound { score, excluded: false } => above(score),
            ScoreBound { score, excluded: true } => Some(at(score)),
        };
        // Nothing is above infinity.
        start.map_or(Span::before(Bytes::new()), |start| Span { start, end })
    }
}

/// The first place of a score.
fn at(score: f64) -> Bytes {
    Bytes::copy_from_slice(&ordered_score(score))
}

/// The first place of the next higher score; none above infinity.
fn above(score: f64) -> Option<Bytes> {
    (score != f64::INFINITY).then(|| at(score.next_up()))
}

/// One end of a range of names.
#[derive(Debug, Clone, PartialEq, Eq)]
enum NameBound {
    Lowest,
    Highest,
    At { name: Bytes, excluded: bool },
}

/// From the lowest to the highest name, all of one score.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Names {
    lowest: NameBound,
    highest: NameBound,
}

impl Names {
    /// Reads both ends.
    pub(super) fn parse(lowest: &Bytes, highest: &Bytes) -> Result<Names, Stop> {
        let bound = |text: &Bytes| match text.first() {
            Some(b'-') if text.len() == 1 => Some(NameBound::Lowest),
            Some(b'+') if text.len() == 1 => Some(NameBound::Highest),
            Some(b'[') => Some(NameBound::At { name: text.slice(1..), excluded: false }),
            Some(b'(') => Some(NameBound::At { name: text.slice(1..), excluded: true }),
            _ => None,
        };
        match (bound(lowest), bound(highest)) {
            (Some(lowest), Some(highest)) => Ok(Names { lowest, highest }),
            _ => Err(Stop::error("ERR min or max not valid string range item".to_owned())),
        }
    }

    /// Whether a member is in it.
    fn has(&self, member: &[u8]) -> bool {
        let above = match &self.lowest {
            NameBound::Lowest => true,
            NameBound::Highest => false,
            NameBound::At { name, excluded } => member > &name[..] || (!excluded && member == name),
        };
        let below = match &self.highest {
            NameBound::Lowest => false,
            NameBound::Highest => true,
            NameBound::At { name, excluded } => member < &name[..] || (!excluded && member == name),
        };
        above && below
    }

    /// Its places among those of one score.
    fn span(&self, score: f64) -> Span {
        let place = |name: &[u8]| Bytes::from([&ordered_score(score)[..], name].concat());
        let start = match &self.lowest {
            NameBound::Lowest => Some(at(score)),
            NameBound::Highest => None,
            NameBound::At { name, excluded: false } => Some(place(name)),
            NameBound::At { name, excluded: true } => Some(keys::behind(&place(name))),
        };
        let end = match &self.highest {
            NameBound::Lowest => Some(at(score)),
            NameBound::Highest => above(score),
            NameBound::At { name, excluded: false } => Some(keys::behind(&place(name))),
            NameBound::At { name, excluded: true } => Some(place(name)),
        };
        start.map_or(Span::before(Bytes::new()), |start| Span { start, end })
    }
}

/// Members of a sorted set that are meant by their scores or names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Section {
    pub(super) span: Span,
    /// Where scores differ names are not in one order, and each must be looked at.
    names: Option<Names>,
}

impl Section {
    /// Members between two scores.
    pub(super) fn of_scores(scores: Scores) -> Section {
        Section { span: scores.span(), names: None }
    }

    /// Members between two names.
    pub(super) fn of_names(txn: &Txn<'_>, key: &Key, names: Names) -> io::Result<Section> {
        let edge = |reverse| txn.in_order(key, &Span::ALL, reverse).next().transpose();
        Ok(match (edge(false)?, edge(true)?) {
            (Some(first), Some(last)) if first.score == last.score => {
                Section { span: names.span(first.score), names: None }
            }
            _ => Section { span: Span::ALL, names: Some(names) },
        })
    }

    /// Them, in order.
    pub(super) fn members(
        &self,
        txn: &Txn<'_>,
        key: &Key,
        reverse: bool,
    ) -> impl Iterator<Item = io::Result<Entry>> {
        txn.in_order(key, &self.span, reverse).filter(|entry| match (&self.names, entry) {
            (Some(names), Ok(entry)) => names.has(&entry.member()),
            _ => true,
        })
    }

    /// Them but the first `over`, in order.
    pub(super) fn members_from<'t>(
        &'t self,
        txn: &'t Txn<'_>,
        key: &'t Key,
        over: usize,
        reverse: bool,
    ) -> io::Result<Box<dyn Iterator<Item = io::Result<Entry>> + 't>> {
        match self.names {
            None => txn.in_span_from(key, &self.span, over, reverse),
            Some(_) => Ok(Box::new(self.members(txn, key, reverse).skip(over))),
        }
    }

    /// How many there are.
    pub(super) fn count(&self, txn: &Txn<'_>, key: &Key) -> io::Result<u64> {
        match self.names {
            None => txn.count_in(key, &self.span),
            Some(_) => self.members(txn, key, false).try_fold(0, |n, entry| entry.map(|_| n + 1)),
        }
    }
}

/// Places from the front, as two that may count from the end mean them among so many.
pub(in super::super) fn places(start: i64, stop: i64, count: u64) -> Range<u64> {
    let count = i64::try_from(count).unwrap_or(i64::MAX);
    let place = |at: i64| if at < 0 { count.saturating_add(at) } else { at };
    let (start, stop) = (place(start).max(0), place(stop).min(count - 1));
    if start > stop { 0..0 } else { start as u64..stop as u64 + 1 }
}

/// Two places, or Redis' complaint.
pub(super) fn ranks(start: &[u8], stop: &[u8]) -> Result<(i64, i64), Stop> {
    Ok((integer(start)?, integer(stop)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_count_from_both_ends() {
        for (start, stop, expected) in [
            (0, -1, 0..5),
            (1, 2, 1..3),
            (-2, -1, 3..5),
            (-100, 100, 0..5),
            (3, 1, 0..0),
            (5, 9, 0..0),
            (0, -6, 0..0),
            (i64::MIN, i64::MAX, 0..5),
        ] {
            assert_eq!(places(start, stop, 5), expected, "{start} {stop}");
        }
        assert_eq!(places(0, -1, 0), 0..0);
    }
}
