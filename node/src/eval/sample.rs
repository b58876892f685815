//! Elements chosen by chance, without loading a key.
//!
//! A small key is read whole and drawn from. In a large sorted set a draw takes a rank. In another key
//! it walks down the names like down a tree: of the bytes that may follow what is chosen already it takes
//! one by chance, between those of the first and of the last name there, until one does follow. Names of
//! one length, numbered or random, come about equally often; in general those with few neighbours come
//! more often. A draw reads a few rows for each byte in which names differ.

use super::args::Stop;
use super::chance::Chance;
use super::collection::Budget;
use super::order::value_of;
use super::txn::{Key, Txn};
use crate::model::Type;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::io;

/// A key with so many elements is read whole.
const SMALL: u64 = 1024;
/// Draws for each element that is wanted, before all are read to find those that are missing.
const DRAWS_PER_ELEMENT: u64 = 8;

/// Bytes that are tried at one place, before what follows the last of them is taken.
const TRIES: u32 = 32;

type Field = (Bytes, Bytes);

/// The draws of one command from one key.
pub(super) struct Sample {
    chance: Chance,
    drawn: u64,
}

impl Sample {
    /// Begins anew for each command.
    pub(super) fn new(txn: &Txn<'_>, key: &Key) -> Sample {
        Sample { chance: Chance::new(txn, &key.name), drawn: 0 }
    }

    /// A number below `end`, which is not 0.
    fn below(&mut self, end: u64) -> u64 {
        self.drawn += 1;
        self.chance.below(self.drawn, end)
    }

    /// So many different elements of a visible key, or all; in no order.
    pub(super) fn distinct(
        &mut self,
        txn: &Txn<'_>,
        key: &Key,
        count: u64,
        mut budget: Budget,
    ) -> Result<Vec<Field>, Stop> {
        let known = txn.count(key)?;
        let mut all = Vec::new();
        if known <= SMALL || count >= known / 2 {
            // Each has the same chance to be among those that stay (reservoir sampling).
            for (seen, field) in (1..).zip(txn.fields(key)) {
                let field = field?;
                if (all.len() as u64) < count {
                    budget.take(field.0.len() + field.1.len())?;
                    all.push(field);
                } else {
                    let place = self.below(seen);
                    if place < count {
                        all[place as usize] = field;
                    }
                }
            }
            return Ok(all);
        }
        let mut drawn = BTreeMap::new();
        for _ in 0..count.saturating_mul(DRAWS_PER_ELEMENT) {
            if drawn.len() as u64 == count {
                break;
            }
            if let Some((name, value)) = self.draw(txn, key)?
                && !drawn.contains_key(&name)
            {
                budget.take(name.len() + value.len())?;
                drawn.insert(name, value);
            }
        }
        // Names with few neighbours came again and again: the rest is taken in order.
        let mut rest = txn.fields(key);
        while (drawn.len() as u64) < count
            && let Some(field) = rest.next().transpose()?
        {
            budget.take(field.0.len() + field.1.len())?;
            drawn.insert(field.0, field.1);
        }
        Ok(drawn.into_iter().collect())
    }

    /// So many elements of a visible key, each drawn from all.
    pub(super) fn with_repeats(
        &mut self,
        txn: &Txn<'_>,
        key: &Key,
        count: u64,
        mut budget: Budget,
    ) -> Result<Vec<Field>, Stop> {
        let small = match txn.count(key)? <= SMALL {
            true => txn.fields(key).collect::<io::Result<Vec<_>>>()?,
            false => Vec::new(),
        };
        let mut drawn = Vec::new();
        for _ in 0..count {
            let field = match small.len() as u64 {
                0 => self.draw(txn, key)?,
                many => Some(small[self.below(many) as usize].clone()),
            };
            let Some(field) = field else { break };
            budget.take(field.0.len() + field.1.len())?;
            drawn.push(field);
        }
        Ok(drawn)
    }

    /// One element of a visible key: by rank where there is an order, so each as often as any other.
    fn draw(&mut self, txn: &Txn<'_>, key: &Key) -> io::Result<Option<Field>> {
        if key.ty != Some(Type::SortedSet) {
            return self.draw_by_name(txn, key);
        }
        let rank = self.below(txn.count(key)?.max(1));
        let entry = txn.in_order_from(key, rank, false)?.next().transpose()?;
        Ok(entry.map(|entry| (entry.member(), value_of(entry.score))))
    }

    fn draw_by_name(&mut self, txn: &Txn<'_>, key: &Key) -> io::Result<Option<Field>> {
        let mut prefix: Vec<u8> = Vec::new();
        loop {
            let (Some(first), Some(last)) =
                (txn.edge_under(key, &prefix, false)?, txn.edge_under(key, &prefix, true)?)
            else {
                return Ok(None);
            };
            if first.0 == last.0 {
                return Ok(Some(first));
            }
            let depth = prefix.len();
            // Two names differ, so the last one goes on behind the prefix.
            let (low, high) = (first.0.get(depth).copied(), last.0[depth]);
            let span = u64::from(high) - u64::from(low.unwrap_or(0)) + 1;
            let ends_here = low.is_none() && self.below(span + 1) == span;
            if ends_here {
                return Ok(Some(first));
            }
            prefix.push(high);
            for _ in 0..TRIES {
                let byte = low.unwrap_or(0) + self.below(span) as u8;
                prefix[depth] = byte;
                // What follows it is behind it, since the last name is, and begins like these.
                let Some(next) = txn.first_from(key, &prefix)? else { return Ok(Some(last)) };
                prefix[depth] = next.0[depth];
                if prefix[depth] == byte {
                    break;
                }
            }
        }
    }
}
