//! Which arguments of a request are keys.

use super::parse::Command;
use super::spec::KeySpec;
use bytes::Bytes;

impl KeySpec {
    /// Positions of the keys in a request of `args` arguments.
    pub fn positions(self, args: usize) -> impl Iterator<Item = usize> {
        let last = match self.last {
            last if last >= 0 => last as usize,
            back => args.saturating_sub(usize::from(back.unsigned_abs())),
        };
        let last = last.min(args.saturating_sub(1));
        let first = usize::from(self.first);
        let end = if first == 0 { 0 } else { last + 1 };
        (first..end).step_by(usize::from(self.step).max(1))
    }
}

impl Command {
    /// Its keys, in the order sent; the same key may stand there twice.
    pub fn keys(&self) -> impl Iterator<Item = &Bytes> {
        self.spec.keys.positions(self.args.len()).map(|position| &self.args[position])
    }

    /// Its first key.
    pub fn first_key(&self) -> Option<&Bytes> {
        self.keys().next()
    }
}
