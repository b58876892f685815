//! Strings as rows of bits: SETBIT, GETBIT, BITCOUNT, BITPOS, BITOP. Bit 0 is the highest of the
//! first byte. What is written is a string: between clusters the later result wins as a whole.

use super::args::{Outcome, ReadBudget, Stop, integer, is};
use super::ranges::range;
use super::strings::{replace, value_of};
use super::txn::{Key, Txn};
use super::{BIT_OFFSET_BYTES_MAX, VALUE_BYTES_MAX};
use crate::model::{Type, parse_integer};
use crate::resp::Reply;
use bytes::Bytes;

/// A bit's position. With `width`, `#2` is the position of the third number of so many bits.
pub(super) fn bit_offset(arg: &[u8], width: Option<u32>) -> Result<u64, Stop> {
    let wrong = || Stop::error("ERR bit offset is not an integer or out of range".to_owned());
    let offset = match (arg, width) {
        ([b'#', index @ ..], Some(width)) => {
            parse_integer(index).map(|index| index.wrapping_mul(i64::from(width)))
        }
        _ => parse_integer(arg),
    };
    let offset = offset.and_then(|offset| u64::try_from(offset).ok()).ok_or_else(wrong)?;
    if offset >> 3 >= BIT_OFFSET_BYTES_MAX { Err(wrong()) } else { Ok(offset) }
}

/// The value of a string key, with zeros up to the byte of this bit.
pub(super) fn up_to(key: &Key, bit: u64) -> Result<Vec<u8>, Stop> {
    let old = value_of(key)?.unwrap_or_default();
    let needed = usize::try_from(bit >> 3).map_or(usize::MAX, |byte| byte + 1);
    if needed > VALUE_BYTES_MAX {
        return Err(Stop::too_long());
    }
    let mut value = Vec::with_capacity(needed.max(old.len()));
    value.extend_from_slice(&old);
    value.resize(needed.max(old.len()), 0);
    Ok(value)
}

/// Writes what the bits of a string key are now.
pub(super) fn write(txn: &mut Txn<'_>, mut key: Key, value: Vec<u8>) {
    txn.claim(&mut key, Type::String);
    txn.write_string(&mut key, Bytes::from(value));
    txn.save(key);
}

fn bit_of(value: &[u8], offset: u64) -> bool {
    let byte = usize::try_from(offset >> 3).ok().and_then(|at| value.get(at));
    byte.is_some_and(|byte| byte >> (7 - (offset & 7)) & 1 == 1)
}

pub(super) fn setbit(txn: &mut Txn<'_>, args: &[Bytes]) -> Outcome {
    let offset = bit_offset(&args[2], None)?;
    let wrong = || Stop::error("ERR bit is not an integer or out of range".to_owned());
    let on = match parse_integer(&args[3]) {
        Some(bit @ (0 | 1)) => bit == 1,
        _ => return Err(wrong()),
    };
    let key = txn.load(&args[1])?;
    let mut value = up_to(&key, offset)?;
    let before = bit_of(&value, offset);
    let mask = 1 << (7 - (offset & 7));
    let byte = &mut value[(offset >> 3) as usize];
    *byte = if on { *byte | mask } else { *byte & !mask };
    write(txn, key, value);
    Ok(Reply::Int(i64::from(before)))
}

pub(super) fn getbit(txn: &mut Txn<'_>, args: &[Bytes]) -> Outcome {
    let offset = bit_offset(&args[2], None)?;
    let key = txn.load(&args[1])?;
    let value = value_of(&key)?.unwrap_or_default();
    Ok(Reply::Int(i64::from(bit_of(&value, offset))))
}

/// Whether positions are those of bits, by the word that says so.
fn counts_bits(word: Option<&Bytes>) -> Result<bool, Stop> {
    match word {
        None => Ok(false),
        Some(word) if is(word, "BIT") => Ok(true),
        Some(word) if is(word, "BYTE") => Ok(false),
        Some(_) => Err(Stop::syntax()),
    }
}

/// The bytes in which bits from `first` to `last` lie, the others in them put to `fill`.
fn bits_between(value: &[u8], first: usize, last: usize, fill: bool) -> Vec<u8> {
    let mut bytes = value[first / 8..=last / 8].to_vec();
    let put = |byte: &mut u8, mask: u8| *byte = if fill { *byte | mask } else { *byte & !mask };
    let (before, behind) = (!(0xFF >> (first % 8)), 0x7F >> (last % 8));
    bytes.first_mut().into_iter().for_each(|byte| put(byte, before));
    bytes.last_mut().into_iter().for_each(|byte| put(byte, behind));
    bytes
}

pub(super) fn bitcount(txn: &mut Txn<'_>, args: &[Bytes]) -> Outcome {
    let key = txn.load(&args[1])?;
    let Some(value) = value_of(&key)? else { return Ok(Reply::Int(0)) };
    let count = |bytes: &[u8]| bytes.iter().map(|byte| i64::from(byte.count_ones())).sum::<i64>();
    if args.len() == 2 {
        return Ok(Reply::Int(count(&value)));
    }
    if args.len() != 4 && args.len() != 5 {
        return Err(Stop::syntax());
    }
    let (start, end) = (integer(&args[2])?, integer(&args[3])?);
    if start < 0 && end < 0 && start > end {
        return Ok(Reply::Int(0)); // before the unit is looked at, as in Redis
    }
    let bits = counts_bits(args.get(4))?;
    let len = if bits { value.len() * 8 } else { value.len() };
    Ok(Reply::Int(match range(start, end, len) {
        None => 0,
        Some((start, end)) if bits => count(&bits_between(&value, start, end, false)),
        Some((start, end)) => count(&value[start..=end]),
    }))
}

/// The first bit that is set (or not) among these.
fn first_bit(bytes: &[u8], set: bool) -> Option<usize> {
    let skipped = if set { 0x00 } else { 0xFF };
    let at = bytes.iter().position(|byte| *byte != skipped)?;
    let wanted = if set { bytes[at] } else { !bytes[at] };
    Some(at * 8 + wanted.leading_zeros() as usize)
}

pub(super) fn bitpos(txn: &mut Txn<'_>, args: &[Bytes]) -> Outcome {
    let set = match integer(&args[2])? {
        bit @ (0 | 1) => bit == 1,
        _ => return Err(Stop::error("ERR The bit argument must be 1 or 0.".to_owned())),
    };
    let key = txn.load(&args[1])?;
    let Some(value) = value_of(&key)? else { return Ok(Reply::Int(if set { -1 } else { 0 })) };
    if args.len() > 6 {
        return Err(Stop::syntax());
    }
    let start = args.get(3).map_or(Ok(0), |start| integer(start))?;
    let bits = counts_bits(args.get(5))?;
    let end = args.get(4).map(|end| integer(end)).transpose()?;
    let len = if bits { value.len() * 8 } else { value.len() };
    let limit = len as i64;
    let from_end = |at: i64| if at < 0 { (limit + at).max(0) } else { at };
    let (start, last) = (from_end(start), from_end(end.unwrap_or(limit - 1)).min(limit - 1));
    if start > last {
        return Ok(Reply::Int(-1));
    }
    let (start, last) = (start as usize, last as usize);
    let (first, last) = if bits { (start, last) } else { (start * 8, last * 8 + 7) };
    let found = first_bit(&bits_between(&value, first, last, !set), set);
    Ok(Reply::Int(match found {
        Some(at) => (first / 8 * 8 + at) as i64,
        // Behind the end zeros go on, unless the end was given.
        None if !set && end.is_none() => value.len() as i64 * 8,
        None => -1,
    }))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Op {
    And,
    Or,
    Xor,
    Not,
}

pub(super) fn bitop(txn: &mut Txn<'_>, args: &[Bytes]) -> Outcome {
    let names = [("AND", Op::And), ("OR", Op::Or), ("XOR", Op::Xor), ("NOT", Op::Not)];
    let named = names.into_iter().find(|(name, _)| is(&args[1], name));
    let op = named.map(|(_, op)| op).ok_or_else(Stop::syntax)?;
    if op == Op::Not && args.len() != 4 {
        let line = "ERR BITOP NOT must be called with a single source key.";
        return Err(Stop::error(line.to_owned()));
    }
    let mut budget = ReadBudget::new("bitop");
    let mut result: Option<Vec<u8>> = None;
    for name in &args[3..] {
        let key = txn.load(name)?;
        let value = value_of(&key)?.unwrap_or_default();
        budget.take(value.len())?;
        match &mut result {
            None if op == Op::Not => result = Some(value.iter().map(|byte| !byte).collect()),
            None => result = Some(value.to_vec()),
            Some(result) => combine(op, result, &value),
        }
    }
    let result = result.unwrap_or_default();
    let (len, mut target) = (result.len() as i64, txn.load(&args[2])?);
    if len > 0 {
        replace(txn, &mut target, &Bytes::from(result));
        txn.save(target);
    } else if target.ty.is_some() {
        txn.delete(target);
    }
    Ok(Reply::Int(len))
}

/// A shorter string goes on with zeros.
fn combine(op: Op, result: &mut Vec<u8>, value: &[u8]) {
    result.resize(result.len().max(value.len()), 0);
    if op == Op::And {
        result[value.len()..].fill(0);
    }
    for (byte, other) in result.iter_mut().zip(value) {
        match op {
            Op::And => *byte &= other,
            Op::Or => *byte |= other,
            Op::Xor => *byte ^= other,
            Op::Not => {}
        }
    }
}
