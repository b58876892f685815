//! Several collections as one sorted stream: nothing of them is loaded but where each stands.

use super::txn::{Key, Txn};
use bytes::Bytes;
use std::io;
use std::iter::Peekable;

/// What is made of several sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Algebra {
    /// What is in all.
    Inter,
    /// What is in any.
    Union,
    /// What is in the first and in no other.
    Diff,
}

type Member = (Bytes, Bytes);

type Members<'a> = Peekable<Box<dyn Iterator<Item = io::Result<Member>> + 'a>>;

/// Members of several keys as one sorted stream.
pub(super) struct Streams<'a> {
    algebra: Algebra,
    sets: Vec<Members<'a>>,
    /// In which keys the last member was, by place, and with what values.
    found: Vec<(usize, Bytes)>,
}

impl<'a> Streams<'a> {
    /// Of visible keys, or of such that do not exist.
    pub(super) fn new(txn: &'a Txn<'_>, keys: &'a [Key], algebra: Algebra) -> Streams<'a> {
        let members = |key: &'a Key| -> Members<'a> {
            (Box::new(txn.fields(key)) as Box<dyn Iterator<Item = io::Result<Member>>>).peekable()
        };
        Streams { algebra, sets: keys.iter().map(members).collect(), found: Vec::new() }
    }

    /// In which keys the last member was, by place, and with what values.
    pub(super) fn found(&self) -> &[(usize, Bytes)] {
        &self.found
    }

    /// The smallest name that stands next anywhere.
    fn least(&mut self) -> io::Result<Option<Bytes>> {
        let mut least: Option<Bytes> = None;
        for set in &mut self.sets {
            match set.next_if(Result::is_err) {
                Some(error) => return error.map(|(name, _)| Some(name)),
                None => {
                    let Some(Ok((name, _))) = set.peek() else { continue };
                    if least.as_ref().is_none_or(|least| name < least) {
                        least = Some(name.clone());
                    }
                }
            }
        }
        Ok(least)
    }

    /// Takes a member from all that have it next.
    fn take(&mut self, name: &Bytes) {
        self.found.clear();
        for (place, set) in self.sets.iter_mut().enumerate() {
            let next = set.next_if(|next| next.as_ref().is_ok_and(|(next, _)| next == name));
            if let Some(Ok((_, value))) = next {
                self.found.push((place, value));
            }
        }
    }

    /// The next member of the result.
    pub(super) fn step(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            // Where one has no more, or the first has none, nothing follows.
            let needed = match self.algebra {
                Algebra::Union => 0,
                Algebra::Diff => 1,
                Algebra::Inter => self.sets.len(),
            };
            if self.sets.iter_mut().take(needed).any(|set| set.peek().is_none()) {
                return Ok(None);
            }
            let Some(name) = self.least()? else { return Ok(None) };
            self.take(&name);
            let count = self.found.len();
            let is_in = match self.algebra {
                Algebra::Union => true,
                Algebra::Diff => count == 1 && self.found[0].0 == 0,
                Algebra::Inter => count == self.sets.len(),
            };
            if is_in {
                return Ok(Some(name));
            }
        }
    }
}

impl Iterator for Streams<'_> {
    type Item = io::Result<Bytes>;

    fn next(&mut self) -> Option<io::Result<Bytes>> {
        self.step().transpose()
    }
}
