//! A page of something that has no order which an integer could name: items stand by a fixed 32-bit
//! hash, and a cursor is the hash to go on from.
//!
//! All items are offered for each page and the lowest are kept, so an item that is there throughout
//! is on exactly one page, whatever comes and goes around it. Items of one hash are never parted.
//! Pages grow with what is offered, so that it is read about [`PASSES_MAX`] times at most.

use super::mix::Mix;
use std::collections::BinaryHeap;

/// How many items a page has at least, if there are as many.
const PAGE_ITEMS_MIN: usize = 1024;

/// How often everything is read at most for one scan through it.
const PASSES_MAX: usize = 64;

/// A page of items of more bytes is cut, wherever it can be.
const PAGE_BYTES_MAX: usize = 16 << 20;

/// Seed of the hash that orders items.
const ORDER_SEED: u64 = 0x5343_414E;

/// Where an item of this name stands.
pub(super) fn position_of(name: &[u8]) -> u32 {
    let mut mix = Mix::new(ORDER_SEED);
    mix.bytes(name);
    (mix.finish() >> 32) as u32
}

/// A page that is being put together.
pub(super) struct Page<T> {
    from: u32,
    count: usize,
    offered: usize,
    bytes: usize,
    /// The lowest positions, the highest of them on top; what does not fit bounds the page.
    lowest: BinaryHeap<(u32, usize, T)>,
    cut: Option<u32>,
}

impl<T: Ord> Page<T> {
    /// Of items at `from` or behind, about `count` of them.
    pub(super) fn new(from: u32, count: usize) -> Page<T> {
        Page { from, count, offered: 0, bytes: 0, lowest: BinaryHeap::new(), cut: None }
    }

    /// Counts something that was read and is no item.
    pub(super) fn pass(&mut self) {
        self.offered += 1;
    }

    /// Offers an item at its position, with what it adds to a reply.
    pub(super) fn offer(&mut self, position: u32, bytes: usize, item: T) {
        self.offered += 1;
        if position < self.from || self.cut.is_some_and(|cut| position >= cut) {
            return;
        }
        self.lowest.push((position, bytes, item));
        self.bytes += bytes;
        let room = self.count.max(PAGE_ITEMS_MIN).max(self.offered / PASSES_MAX);
        // Items of one position stay together, even if they are more than a page.
        while (self.lowest.len() > room || self.bytes > PAGE_BYTES_MAX) && self.is_parted() {
            let top = self.lowest.peek().map_or(0, |(position, ..)| *position);
            self.cut = Some(top);
            while self.lowest.peek().is_some_and(|(position, ..)| *position >= top) {
                self.bytes -= self.lowest.pop().map_or(0, |(_, bytes, _)| bytes);
            }
        }
    }

    /// Whether the page can be cut below its highest position and still get on.
    fn is_parted(&self) -> bool {
        let top = self.lowest.peek().map_or(self.from, |(position, ..)| *position);
        top > self.from && self.lowest.iter().any(|(position, ..)| *position < top)
    }

    /// How much was read for it.
    pub(super) fn offered(&self) -> usize {
        self.offered
    }

    /// Its items, and where the next page goes on; none if this is the last.
    pub(super) fn finish(self) -> (Vec<T>, Option<u32>) {
        (self.lowest.into_iter().map(|(.., item)| item).collect(), self.cut)
    }
}
