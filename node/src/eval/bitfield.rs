//! BITFIELD and BITFIELD_RO: integers of 1 to 64 bits at any place of a string.

use super::args::{Outcome, Stop, integer, is};
use super::bits::{bit_offset, up_to, write};
use super::strings::value_of;
use super::txn::Txn;
use crate::model::parse_integer;
use crate::resp::Reply;
use bytes::Bytes;

/// What becomes of a number that does not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Overflow {
    Wrap,
    Saturate,
    Fail,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Get,
    Set(i64),
    IncrBy(i64),
}

/// An integer of so many bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Kind {
    signed: bool,
    bits: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Operation {
    what: What,
    kind: Kind,
    offset: u64,
    overflow: Overflow,
}

impl Operation {
    fn last_bit(&self) -> u64 {
        self.offset + u64::from(self.kind.bits) - 1
    }
}

impl Kind {
    fn read(arg: &[u8]) -> Result<Kind, Stop> {
        let line = "ERR Invalid bitfield type. Use something like i16 u8. Note that u64 is not \
                    supported but i64 is.";
        let wrong = || Stop::error(line.to_owned());
        let (signed, max, bits) = match arg {
            [b'i', bits @ ..] => (true, 64, bits),
            [b'u', bits @ ..] => (false, 63, bits),
            _ => return Err(wrong()),
        };
        let bits = parse_integer(bits).and_then(|bits| u32::try_from(bits).ok());
        let bits = bits.filter(|bits| (1..=max).contains(bits)).ok_or_else(wrong)?;
        Ok(Kind { signed, bits })
    }

    /// The smallest and the largest number.
    fn ends(self) -> (i128, i128) {
        match self.signed {
            true => (-(1 << (self.bits - 1)), (1 << (self.bits - 1)) - 1),
            false => (0, (1 << self.bits) - 1),
        }
    }

    /// The number that the lowest bits of `raw` are.
    fn of_bits(self, raw: u64) -> i64 {
        let above = 64 - self.bits;
        match self.signed {
            true => (raw << above) as i64 >> above,
            false => (raw << above >> above) as i64,
        }
    }

    fn load(self, value: &[u8], offset: u64) -> i64 {
        let bit = |at: u64| {
            let byte = usize::try_from(at >> 3).ok().and_then(|byte| value.get(byte));
            u64::from(byte.map_or(0, |byte| byte >> (7 - (at & 7)) & 1))
        };
        let end = offset + u64::from(self.bits);
        self.of_bits((offset..end).fold(0, |raw, at| raw << 1 | bit(at)))
    }

    fn store(self, value: &mut [u8], offset: u64, number: i64) {
        for place in 0..self.bits {
            let at = offset + u64::from(self.bits - 1 - place);
            let (byte, mask) = (&mut value[(at >> 3) as usize], 1u8 << (7 - (at & 7)));
            let on = number as u64 >> place & 1 == 1;
            *byte = if on { *byte | mask } else { *byte & !mask };
        }
    }

    /// The number that is stored instead of one that does not fit; none if nothing is.
    fn fit(self, number: i128, overflow: Overflow) -> Option<i64> {
        let (min, max) = self.ends();
        if (min..=max).contains(&number) {
            return Some(number as i64);
        }
        match overflow {
            Overflow::Wrap => Some(self.of_bits(number as u64)),
            Overflow::Saturate => Some(number.clamp(min, max) as i64),
            Overflow::Fail => None,
        }
    }

    /// A number as SET is given it. As in Redis a negative one counts as a very large one where the
    /// kind is unsigned, and so does, if it is saturated, one that is farther than 63 bits below the
    /// largest of a signed kind.
    fn given(self, number: i64, overflow: Overflow) -> i128 {
        let given = i128::from(number);
        let far = self.bits < 64 && self.ends().1 - given > i128::from(i64::MAX);
        match self.signed {
            false => i128::from(number as u64),
            true if far && overflow == Overflow::Saturate => i128::MAX,
            true => given,
        }
    }
}

fn operations(args: &[Bytes]) -> Result<Vec<Operation>, Stop> {
    let mut found = Vec::new();
    let mut overflow = Overflow::Wrap;
    let mut rest = args;
    while let Some((word, behind)) = rest.split_first() {
        rest = match behind {
            [name, rest @ ..] if is(word, "OVERFLOW") => {
                overflow = read_overflow(name)?;
                rest
            }
            [kind, offset, rest @ ..] if is(word, "GET") => {
                let (kind, offset) = place(kind, offset)?;
                found.push(Operation { what: What::Get, kind, offset, overflow });
                rest
            }
            [kind, offset, number, rest @ ..] if is(word, "SET") || is(word, "INCRBY") => {
                let (kind, offset) = place(kind, offset)?;
                let number = integer(number)?;
                let set = is(word, "SET");
                let what = if set { What::Set(number) } else { What::IncrBy(number) };
                found.push(Operation { what, kind, offset, overflow });
                rest
            }
            _ => return Err(Stop::syntax()),
        };
    }
    Ok(found)
}

fn read_overflow(name: &[u8]) -> Result<Overflow, Stop> {
    let names = [("WRAP", Overflow::Wrap), ("SAT", Overflow::Saturate), ("FAIL", Overflow::Fail)];
    let named = names.into_iter().find(|(word, _)| is(name, word));
    let line = || Stop::error("ERR Invalid OVERFLOW type specified".to_owned());
    named.map(|(_, overflow)| overflow).ok_or_else(line)
}

fn place(kind: &[u8], offset: &[u8]) -> Result<(Kind, u64), Stop> {
    let kind = Kind::read(kind)?;
    Ok((kind, bit_offset(offset, Some(kind.bits))?))
}

/// BITFIELD and, if `read_only`, BITFIELD_RO.
pub(super) fn bitfield(txn: &mut Txn<'_>, args: &[Bytes], read_only: bool) -> Outcome {
    let operations = operations(&args[2..])?;
    let writes = operations.iter().filter(|operation| operation.what != What::Get);
    let last_bit = writes.map(Operation::last_bit).max();
    if last_bit.is_some() && read_only {
        let line = "ERR BITFIELD_RO only supports the GET subcommand";
        return Err(Stop::error(line.to_owned()));
    }
    let key = txn.load(&args[1])?;
    let Some(last_bit) = last_bit else {
        let value = value_of(&key)?.unwrap_or_default();
        let get = |o: &Operation| Reply::Int(o.kind.load(&value, o.offset));
        return Ok(Reply::Array(operations.iter().map(get).collect()));
    };
    let before = value_of(&key)?.map_or(0, |value| value.len());
    let mut value = up_to(&key, last_bit)?;
    // Room is made also for what then fails, as in Redis.
    let mut changed = value.len() > before;
    let mut replies = Vec::with_capacity(operations.len());
    for operation in operations {
        let Operation { what, kind, offset, overflow } = operation;
        let old = kind.load(&value, offset);
        let new = match what {
            What::Get => Some(old),
            What::Set(number) => kind.fit(kind.given(number, overflow), overflow),
            What::IncrBy(amount) => kind.fit(i128::from(old) + i128::from(amount), overflow),
        };
        if let Some(new) = new.filter(|_| what != What::Get) {
            kind.store(&mut value, offset, new);
            changed = true;
        }
        replies.push(match (what, new) {
            (_, None) => Reply::Null,
            (What::IncrBy(_), Some(new)) => Reply::Int(new),
            (_, Some(_)) => Reply::Int(old),
        });
    }
    if changed {
        write(txn, key, value);
    }
    Ok(Reply::Array(replies))
}
