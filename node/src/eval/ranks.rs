//! Ranks in an order index without reading all that stands before.
//!
//! Entries are cut into blocks, and blocks into larger ones. Where one begins is said by a hash of its
//! first entry's place, so nothing is ever balanced: one entry of 512 begins a block, one of 512 of these
//! one of the next level. A block's row counts its entries; what stands before the first one is counted
//! by reading it. So a rank is found in some hundred rows of each level.
//!
//! Blocks count rows, and those of a deleted key are still there until they are swept. Then ranks
//! are found by walking, which costs what is walked over: the sum of all blocks tells, since it is only
//! as large as the number of visible elements when nothing is hidden.

use super::mix::Mix;
use super::order::{Entry, order_of};
use super::txn::{Key, Txn, corrupt};
use crate::codec::{DecodeError, Decoder, Encoder};
use crate::engine::keys;
use crate::engine::order::{OrderOf, Span};
use crate::model::Parts;
use bytes::Bytes;
use std::io;

/// Levels of blocks.
const LEVELS: u8 = 2;
/// A block begins where so many bits of the hash are zero, for each level; fewer in tests, which have
/// no millions of entries.
const LEVEL_BITS: u32 = if cfg!(test) { 2 } else { 9 };
/// So few entries are walked over.
const FEW: u64 = if cfg!(test) { 4 } else { 512 };
/// Seed of the hash; with another one all blocks would be elsewhere.
const SEED: u64 = 0x5241_4E4B;

/// The highest level on which a block begins with this place; 0 if none does.
fn depth(place: &[u8]) -> u8 {
    let mut mix = Mix::new(SEED);
    mix.bytes(place);
    ((mix.finish().trailing_zeros() / LEVEL_BITS) as u8).min(LEVELS)
}

fn decode(value: &[u8]) -> Result<u64, DecodeError> {
    let mut input = Decoder::new(value);
    let entries = input.varint()?;
    input.finish()?;
    Ok(entries)
}

/// A block: where it begins, and how many entries it has.
type Block = (Bytes, u64);

impl Txn<'_> {
    fn blocks(
        &self,
        order: OrderOf<'_>,
        level: u8,
        span: &Span,
        reverse: bool,
    ) -> impl Iterator<Item = io::Result<Block>> {
        let prefix = order.prefix(level);
        self.view.scan(order.rows(level, span), reverse).map(move |row| {
            let (row, value) = row?;
            Ok((row.slice(prefix..), decode(&value).map_err(corrupt)?))
        })
    }

    fn put_block(&mut self, order: OrderOf<'_>, level: u8, place: &[u8], entries: u64) {
        let mut value = Encoder::with_capacity(4);
        value.put_varint(entries);
        self.put_row(order.at(level, place), value.into_bytes(), Parts::NONE);
    }

    /// Counts an entry that came to the index.
    pub(super) fn enter(&mut self, order: OrderOf<'_>, place: &Bytes) -> io::Result<()> {
        let depth = depth(place);
        for level in 1..=LEVELS {
            let mut own = 0;
            if level <= depth {
                let after = Span { start: keys::behind(place), end: None };
                let end = self.first_block(order, level, &after)?;
                own = self.entries(order, level - 1, &Span { start: place.clone(), end })?;
                self.put_block(order, level, place, own);
            }
            if !self.resize_before(order, level, place, (1, own))? && level > depth {
                break;
            }
        }
        Ok(())
    }

    /// Discounts an entry that has left the index.
    pub(super) fn leave(&mut self, order: OrderOf<'_>, place: &Bytes) -> io::Result<()> {
        let depth = depth(place);
        for level in 1..=LEVELS {
            let mut own = 0;
            if level <= depth {
                let row = order.at(level, place);
                own = self.view.get(&row)?.map_or(Ok(0), |row| decode(&row)).map_err(corrupt)?;
                self.drop_row(row);
            }
            if !self.resize_before(order, level, place, (own, 1))? && level > depth {
                break;
            }
        }
        Ok(())
    }

    /// Gives the last block that begins before a place some entries and takes others from it; false if
    /// there is none, and then none on a higher level either.
    fn resize_before(
        &mut self,
        order: OrderOf<'_>,
        level: u8,
        place: &Bytes,
        (given, taken): (u64, u64),
    ) -> io::Result<bool> {
        let before = Span::before(place.clone());
        let last = self.blocks(order, level, &before, true).next().transpose()?;
        if let Some((first, many)) = &last {
            self.put_block(order, level, first, (many + given).saturating_sub(taken));
        }
        Ok(last.is_some())
    }

    fn first_block(&self, order: OrderOf<'_>, level: u8, span: &Span) -> io::Result<Option<Bytes>> {
        let first = self.blocks(order, level, span, false).next().transpose()?;
        Ok(first.map(|(first, _)| first))
    }

    /// How many entries, visible or not, are in a span, counted with blocks up to a level.
    fn entries(&self, order: OrderOf<'_>, level: u8, span: &Span) -> io::Result<u64> {
        if level == 0 {
            let rows = self.view.scan(order.rows(0, span), false);
            return rows.into_iter().try_fold(0, |count, row| row.map(|_| count + 1));
        }
        let (mut whole, mut first, mut last) = (0, None, None::<Block>);
        for block in self.blocks(order, level, span, false) {
            let block = block?;
            first.get_or_insert_with(|| block.0.clone());
            whole += last.replace(block).map_or(0, |(_, many)| many);
        }
        let (Some(first), Some((last, many))) = (first, last) else {
            return self.entries(order, level - 1, span);
        };
        let head = Span { start: span.start.clone(), end: Some(first) };
        let tail = match &span.end {
            None => many,
            end => self.entries(order, level - 1, &Span { start: last, end: end.clone() })?,
        };
        Ok(self.entries(order, level - 1, &head)? + whole + tail)
    }

    /// Where to walk on, and over how many entries, to come to the one with so many before it.
    fn walk_to(&self, order: OrderOf<'_>, rank: u64) -> io::Result<(Bytes, u64)> {
        let (mut span, mut left) = (Span::ALL, rank);
        for level in (1..=LEVELS).rev() {
            let Some(first) = self.first_block(order, level, &span)? else { continue };
            let head = Span { start: span.start.clone(), end: Some(first.clone()) };
            let before = self.entries(order, level - 1, &head)?;
            if left < before {
                span = head;
                continue;
            }
            left -= before;
            span.start = first;
            for block in self.blocks(order, level, &span.clone(), false) {
                let (first, many) = block?;
                span.start = first;
                if left < many {
                    break;
                }
                left -= many;
            }
        }
        Ok((span.start, left))
    }

    /// How many elements are visible, if all rows of the index are, so that blocks count what is visible;
    /// none also where walking is as quick.
    fn counted(&self, key: &Key, order: OrderOf<'_>) -> io::Result<Option<u64>> {
        let visible = self.count(key)?;
        let all = visible > FEW && self.entries(order, LEVELS, &Span::ALL)? == visible;
        Ok(all.then_some(visible))
    }

    /// How many visible elements of a visible key are in a span.
    pub(super) fn count_in(&self, key: &Key, span: &Span) -> io::Result<u64> {
        let Some(ty) = key.ty else { return Ok(0) };
        let order = order_of(key, ty);
        if self.counted(key, order)?.is_some() {
            return self.entries(order, LEVELS, span);
        }
        self.in_order(key, span, false).try_fold(0, |count, entry| entry.map(|_| count + 1))
    }

    /// The visible elements of a visible key from the one on that has so many before it, from the front
    /// or, in `reverse`, from the back.
    pub(super) fn in_order_from(
        &self,
        key: &Key,
        rank: u64,
        reverse: bool,
    ) -> io::Result<impl Iterator<Item = io::Result<Entry>>> {
        let (mut span, mut over) = (Span::ALL, rank);
        let order = key.ty.map(|ty| order_of(key, ty));
        if let Some(order) = order.filter(|_| rank > FEW)
            && let Some(count) = self.counted(key, order)?
        {
            if rank >= count {
                span = Span::before(Bytes::new()); // nothing
            } else if reverse {
                let (start, left) = self.walk_to(order, count - 1 - rank)?;
                let rest = Span { start, end: None };
                let there = self.in_order(key, &rest, false).nth(left as usize).transpose()?;
                span =
                    Span::before(there.map_or_else(Bytes::new, |entry| keys::behind(&entry.place)));
                over = 0;
            } else {
                (span.start, over) = self.walk_to(order, rank)?;
            }
        }
        let over = usize::try_from(over).unwrap_or(usize::MAX);
        Ok(self.in_order(key, &span, reverse).skip(over))
    }

    /// The visible elements of a visible key that are in a span, but the first `over` of them.
    pub(super) fn in_span_from<'t>(
        &'t self,
        key: &'t Key,
        span: &Span,
        over: usize,
        reverse: bool,
    ) -> io::Result<Box<dyn Iterator<Item = io::Result<Entry>> + 't>> {
        let order = key.ty.map(|ty| order_of(key, ty));
        if let Some(order) = order.filter(|_| over as u64 > FEW)
            && self.counted(key, order)?.is_some()
        {
            let beside = match (reverse, &span.end) {
                (true, Some(end)) => Some(Span { start: end.clone(), end: None }),
                (true, None) => None,
                (false, _) => Some(Span::before(span.start.clone())),
            };
            let beside = beside.map_or(Ok(0), |span| self.entries(order, LEVELS, &span))?;
            let among = self.entries(order, LEVELS, span)?;
            let left = usize::try_from(among).unwrap_or(usize::MAX).saturating_sub(over);
            let rank = beside.saturating_add(over as u64);
            return Ok(Box::new(self.in_order_from(key, rank, reverse)?.take(left)));
        }
        Ok(Box::new(self.in_order(key, span, reverse).skip(over)))
    }
}
