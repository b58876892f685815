//! Which members of a sorted set are meant: by rank, by score or by name.

use super::super::args::{Stop, integer};
use super::super::txn::Key;
use crate::engine::keys;
use bytes::Bytes;
use std::ops::Range;

/// One end of a range of scores.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct ScoreBound {
    score: f64,
    excluded: bool,
}

/// A score as text: what `strtod` takes, but no NaN and no space.
pub(super) fn parse_score(text: &[u8]) -> Option<f64> {
    let text = std::str::from_utf8(text).ok()?;
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let named = digits.eq_ignore_ascii_case("inf") || digits.eq_ignore_ascii_case("infinity");
    if !named && !digits.starts_with(|first: char| first.is_ascii_digit() || first == '.') {
        return None;
    }
    text.parse::<f64>().ok().filter(|score| !score.is_nan())
}

/// A score, or Redis' complaint.
pub(super) fn score(text: &[u8]) -> Result<f64, Stop> {
    parse_score(text).ok_or_else(|| Stop::error("ERR value is not a valid float".to_owned()))
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
            parse_score(text).map(|score| ScoreBound { score, excluded })
        };
        match (bound(least), bound(most)) {
            (Some(least), Some(most)) => Ok(Scores { least, most }),
            _ => Err(Stop::error("ERR min or max is not a float".to_owned())),
        }
    }

    /// Its rows in the score index.
    pub(super) fn rows(self, key: &Key) -> Range<Bytes> {
        let all = keys::scores(key.slot, &key.name);
        // Rows of a score stand between it and the next higher one.
        let at = |score: f64| keys::score(key.slot, &key.name, score, b"");
        let behind = |score: f64| match score {
            f64::INFINITY => all.end.clone(),
            score => at(score.next_up()),
        };
        let start = match self.least {
            ScoreBound { score, excluded: false } => at(score),
            ScoreBound { score, excluded: true } => behind(score),
        };
        let end = match self.most {
            ScoreBound { score, excluded: false } => behind(score),
            ScoreBound { score, excluded: true } => at(score),
        };
        start..end
    }
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
    pub(super) fn has(&self, member: &[u8]) -> bool {
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
}

/// Places from the front, as two that may count from the end mean them among so many.
pub(super) fn places(start: i64, stop: i64, count: u64) -> Range<u64> {
    let count = i64::try_from(count).unwrap_or(i64::MAX);
    let place = |at: i64| if at < 0 { (count + at).max(if at < 0 { -1 } else { 0 }) } else { at };
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

    #[test]
    fn scores_are_read_as_redis_reads_them() {
        for (text, score) in [("1", 1.0), ("-1.5e3", -1500.0), (".5", 0.5), ("+inf", f64::INFINITY)] {
            assert_eq!(parse_score(text.as_bytes()), Some(score));
        }
        for text in ["", " 1", "1 ", "nan", "x", "1x", "--1", "in"] {
            assert_eq!(parse_score(text.as_bytes()), None, "{text}");
        }
    }
}
