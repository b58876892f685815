//! LCS: the longest common subsequence of two strings.
//!
//! The table of lengths is the one of Redis, and ways through it are chosen in the same order, so
//! that of several longest ones the same is answered. It holds a cell for each pair of positions.

use super::args::{Outcome, Stop, integer, is};
use super::txn::Txn;
use crate::model::Type;
use crate::resp::Reply;
use bytes::Bytes;

/// Cells of a table, 4 bytes each: bounds both memory and time. Two values of 4 KiB fit.
const TABLE_CELLS_MAX: usize = 4097 * 4097;

#[derive(Debug, Default)]
struct Options {
    len: bool,
    idx: bool,
    with_match_len: bool,
    /// Shorter matches are not listed.
    match_len_min: i64,
}

fn options(args: &[Bytes]) -> Result<Options, Stop> {
    let mut found = Options::default();
    let mut rest = args.iter();
    while let Some(option) = rest.next() {
        if is(option, "IDX") {
            found.idx = true;
        } else if is(option, "LEN") {
            found.len = true;
        } else if is(option, "WITHMATCHLEN") {
            found.with_match_len = true;
        } else if is(option, "MINMATCHLEN") {
            found.match_len_min = integer(rest.next().ok_or_else(Stop::syntax)?)?;
        } else {
            return Err(Stop::syntax());
        }
    }
    if found.len && found.idx {
        let line = "ERR If you want both the length and indexes, please just use IDX.";
        return Err(Stop::error(line.to_owned()));
    }
    Ok(found)
}

pub(super) fn lcs(txn: &mut Txn<'_>, args: &[Bytes]) -> Outcome {
    let (a, b) = (txn.load(&args[1])?, txn.load(&args[2])?);
    if [&a, &b].iter().any(|key| key.ty.is_some_and(|ty| ty != Type::String)) {
        let line = "ERR The specified keys must contain string values";
        return Err(Stop::error(line.to_owned()));
    }
    let (a, b) = (a.string().unwrap_or_default(), b.string().unwrap_or_default());
    let options = options(&args[3..])?;
    let cells = (a.len() + 1).saturating_mul(b.len() + 1);
    if cells > TABLE_CELLS_MAX {
        return Err(Stop::error(format!(
            "ERR LCS of these values would need a table of {cells} cells, more than \
             {TABLE_CELLS_MAX}: compare shorter values"
        )));
    }
    let table = Table::new(&a, &b);
    let len = Reply::Int(i64::from(table.at(a.len(), b.len())));
    if options.idx {
        let matches = table.matches(&a, &b).into_iter();
        let long = matches.filter(|found| found.len as i64 >= options.match_len_min);
        let matches = long.map(|found| found.reply(options.with_match_len)).collect();
        let pairs = [("matches", Reply::Array(matches)), ("len", len)];
        return Ok(Reply::Map(pairs.map(|(name, value)| (Reply::bulk(name), value)).to_vec()));
    }
    if options.len {
        return Ok(len);
    }
    let mut text = Vec::new();
    for found in table.matches(&a, &b).iter().rev() {
        text.extend_from_slice(&a[found.a..found.a + found.len]);
    }
    Ok(Reply::bulk(text))
}

/// At (i, j): the length of the longest common subsequence of the first i and j bytes.
struct Table {
    cells: Vec<u32>,
    width: usize,
}

/// A stretch that is the same in both.
#[derive(Debug, Clone, Copy)]
struct Match {
    a: usize,
    b: usize,
    len: usize,
}

impl Table {
    fn new(a: &[u8], b: &[u8]) -> Table {
        let width = b.len() + 1;
        let mut cells = vec![0; width * (a.len() + 1)];
        for (i, x) in a.iter().enumerate() {
            let (before, row) = cells[i * width..].split_at_mut(width);
            for (j, y) in b.iter().enumerate() {
                row[j + 1] = if x == y { before[j] + 1 } else { before[j + 1].max(row[j]) };
            }
        }
        Table { cells, width }
    }

    fn at(&self, i: usize, j: usize) -> u32 {
        self.cells[i * self.width + j]
    }

    /// The stretches of one longest common subsequence, the last one first.
    fn matches(&self, a: &[u8], b: &[u8]) -> Vec<Match> {
        let mut found = Vec::new();
        let mut open: Option<Match> = None;
        let (mut i, mut j) = (a.len(), b.len());
        while i > 0 && j > 0 {
            if a[i - 1] != b[j - 1] {
                found.extend(open.take());
                if self.at(i - 1, j) > self.at(i, j - 1) {
                    i -= 1
                } else {
                    j -= 1
                }
                continue;
            }
            (i, j) = (i - 1, j - 1);
            let len = open.map_or(1, |open| open.len + 1);
            open = Some(Match { a: i, b: j, len });
        }
        found.extend(open);
        found
    }
}

impl Match {
    fn reply(self, with_len: bool) -> Reply {
        let range = |start: usize| {
            Reply::Array([start, start + self.len - 1].map(|at| Reply::Int(at as i64)).to_vec())
        };
        let mut parts = vec![range(self.a), range(self.b)];
        if with_len {
            parts.push(Reply::Int(self.len as i64));
        }
        Reply::Array(parts)
    }
}
