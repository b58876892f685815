//! Which arguments of a request are keys.

use super::parse::Command;
use super::spec::KeySpec;
use crate::model::parse_integer;
use bytes::Bytes;

impl KeySpec {
    /// Positions of the keys in a request.
    pub fn positions(self, args: &[Bytes]) -> impl Iterator<Item = usize> {
        self.fixed(args.len()).chain(self.counted(args)).chain(self.named(args))
    }

    fn fixed(self, args: usize) -> impl Iterator<Item = usize> {
        let last = match self.last {
            last if last >= 0 => last as usize,
            back => args.saturating_sub(usize::from(back.unsigned_abs())),
        };
        let last = last.min(args.saturating_sub(1));
        let first = usize::from(self.first);
        let end = if first == 0 { 0 } else { last + 1 };
        (first..end).step_by(usize::from(self.step).max(1))
    }

    /// Keys behind their number. If that is none the command fails at whoever owns the key before it, or
    /// where there is no such key, the first of them.
    fn counted(self, args: &[Bytes]) -> impl Iterator<Item = usize> {
        let first = usize::from(self.counted) + 1;
        let number = self.number(args).unwrap_or(usize::from(self.first == 0));
        let end = if self.counted == 0 { first } else { first + number };
        (first..end).take_while({
            let args = args.len();
            move |position| *position < args
        })
    }

    /// The number that stands before counted keys, if that many arguments follow.
    fn number(self, args: &[Bytes]) -> Option<usize> {
        let at = usize::from(self.counted);
        let number = usize::try_from(parse_integer(args.get(at)?)?).ok()?;
        (1..args.len() - at).contains(&number).then_some(number)
    }

    /// Whether the number before counted keys is one, where there are such keys.
    pub fn counts(self, args: &[Bytes]) -> bool {
        self.counted == 0 || self.number(args).is_some()
    }
}

impl KeySpec {
    /// The key that an option names. Options are read as the command itself reads them: where that finds
    /// one wrong it does nothing.
    fn named(self, args: &[Bytes]) -> Option<usize> {
        let options = self.options?;
        let (mut at, mut key) = (usize::from(options.from), None);
        while let Some(word) = args.get(at) {
            let is = |name: &str| word.eq_ignore_ascii_case(name.as_bytes());
            let other = options.other_words.iter().find(|(name, _)| is(name));
            at += 1 + other.map_or(0, |(_, arguments)| usize::from(*arguments));
            if options.key_words.iter().any(|name| is(name)) && at < args.len() {
                key = Some(at);
                at += 1;
            }
        }
        key
    }
}

impl Command {
    /// Its keys, in the order sent; the same key may stand there twice.
    pub fn keys(&self) -> impl Iterator<Item = &Bytes> {
        self.spec.keys.positions(&self.args).map(|position| &self.args[position])
    }

    /// Its first key.
    pub fn first_key(&self) -> Option<&Bytes> {
        self.keys().next()
    }
}
