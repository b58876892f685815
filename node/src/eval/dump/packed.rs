//! The forms in which Redis holds small collections in one string: listpack, ziplist and intset. They
//! are read from front to end, and everything in them that says the same twice must agree.

use super::super::args::Stop;
use super::input::{Input, bad};
use crate::model::format_integer;
use bytes::Bytes;

/// Behind the last item of a listpack or a ziplist.
const END: u8 = 0xFF;
/// A ziplist's first byte of the length of the item before, if four more hold it.
const LONG_BEFORE: u8 = 0xFE;
/// Bytes before the first item of a ziplist.
const ZIPLIST_HEAD_BYTES: usize = 10;

/// Takes items as they come; numbers as text.
type Each<'a> = &'a mut dyn FnMut(Bytes) -> Result<(), Stop>;

fn int(value: impl Into<i64>) -> Bytes {
    format_integer(value.into())
}

fn int_24([low, middle, high]: [u8; 3]) -> Bytes {
    int(i32::from_le_bytes([0, low, middle, high]) >> 8)
}

fn check(right: bool) -> Result<(), Stop> {
    if right { Ok(()) } else { Err(bad()) }
}

/// Whether all was read, and as many items as the head says; too many for it are told as this.
fn end(input: &Input, told: u16, seen: u64) -> Result<(), Stop> {
    check(input.left() == 0 && (told == u16::MAX || u64::from(told) == seen))
}

/// A listpack: bytes (4), items (2), items, END. Behind an item stands how long it is.
pub(super) fn listpack(blob: Bytes, each: Each<'_>) -> Result<(), Stop> {
    let bytes = blob.len();
    let mut input = Input::new(blob);
    check(u32::from_le_bytes(input.array()?) as usize == bytes)?;
    let told = u16::from_le_bytes(input.array()?);
    let mut seen = 0;
    loop {
        let before = input.left();
        let first = input.byte()?;
        if first == END {
            return end(&input, told, seen);
        }
        let item = listpack_item(&mut input, first)?;
        let (length, used) = back_length(before - input.left());
        check(input.take(used as u64)? == length[..used])?;
        each(item)?;
        seen += 1;
    }
}

fn listpack_item(input: &mut Input, first: u8) -> Result<Bytes, Stop> {
    let low = u16::from(first);
    Ok(match first {
        0..=0x7F => int(first),
        0x80..=0xBF => input.take(u64::from(first & 0x3F))?,
        0xC0..=0xDF => {
            let value = (low & 0x1F) << 8 | u16::from(input.byte()?);
            int((value << 3) as i16 >> 3) // 13 bits with a sign
        }
        0xE0..=0xEF => {
            let len = (low & 0xF) << 8 | u16::from(input.byte()?);
            input.take(u64::from(len))?
        }
        0xF0 => {
            let len = u32::from_le_bytes(input.array()?);
            input.take(u64::from(len))?
        }
        0xF1 => int(i16::from_le_bytes(input.array()?)),
        0xF2 => int_24(input.array()?),
        0xF3 => int(i32::from_le_bytes(input.array()?)),
        0xF4 => int(i64::from_le_bytes(input.array()?)),
        _ => return Err(bad()),
    })
}

/// The length of an item as it stands behind it, to be read backwards: seven bits in each byte.
fn back_length(bytes: usize) -> ([u8; 5], usize) {
    // The bounds are Redis', which are one lower than they could be.
    let used = match bytes {
        0..=127 => 1,
        128..16_383 => 2,
        16_383..2_097_151 => 3,
        2_097_151..268_435_455 => 4,
        _ => 5,
    };
    let mut out = [0; 5];
    for (at, byte) in out[..used].iter_mut().enumerate() {
        let mark = if at == 0 { 0 } else { 0x80 };
        *byte = (bytes >> (7 * (used - 1 - at))) as u8 & 0x7F | mark;
    }
    (out, used)
}

/// A ziplist: bytes (4), where the last item begins (4), items (2), items, END. Before an item stands how
/// long the one before it is.
pub(super) fn ziplist(blob: Bytes, each: Each<'_>) -> Result<(), Stop> {
    let bytes = blob.len();
    let mut input = Input::new(blob);
    check(u32::from_le_bytes(input.array()?) as usize == bytes)?;
    let last = u32::from_le_bytes(input.array()?) as usize;
    let told = u16::from_le_bytes(input.array()?);
    let (mut seen, mut length, mut begin) = (0, 0, ZIPLIST_HEAD_BYTES);
    loop {
        let before = input.left();
        let told_length = match input.byte()? {
            END => {
                check(last == begin)?;
                return end(&input, told, seen);
            }
            LONG_BEFORE => u32::from_le_bytes(input.array()?) as usize,
            short => usize::from(short),
        };
        check(told_length == length)?;
        begin = bytes - before;
        each(ziplist_item(&mut input)?)?;
        length = before - input.left();
        seen += 1;
    }
}

fn ziplist_item(input: &mut Input) -> Result<Bytes, Stop> {
    let first = input.byte()?;
    let low = u16::from(first & 0x3F);
    Ok(match first {
        0..=0x3F => input.take(u64::from(low))?,
        0x40..=0x7F => {
            let len = low << 8 | u16::from(input.byte()?);
            input.take(u64::from(len))?
        }
        0x80..=0xBF => {
            let len = u32::from_be_bytes(input.array()?);
            input.take(u64::from(len))?
        }
        0xC0 => int(i16::from_le_bytes(input.array()?)),
        0xD0 => int(i32::from_le_bytes(input.array()?)),
        0xE0 => int(i64::from_le_bytes(input.array()?)),
        0xF0 => int_24(input.array()?),
        0xF1..=0xFD => int((first & 0xF) - 1),
        0xFE => int(input.byte()? as i8),
        _ => return Err(bad()),
    })
}

/// An intset: bytes of each (4), how many (4), the numbers, each above the one before.
pub(super) fn intset(blob: Bytes, each: Each<'_>) -> Result<(), Stop> {
    let mut input = Input::new(blob);
    let width = u32::from_le_bytes(input.array()?);
    let many = u32::from_le_bytes(input.array()?);
    check(input.left() as u64 == u64::from(width) * u64::from(many))?;
    let mut before = None;
    for _ in 0..many {
        let number = match width {
            2 => i64::from(i16::from_le_bytes(input.array()?)),
            4 => i64::from(i32::from_le_bytes(input.array()?)),
            8 => i64::from_le_bytes(input.array()?),
            _ => return Err(bad()),
        };
        check(before.replace(number).is_none_or(|before| before < number))?;
        each(int(number))?;
    }
    Ok(())
}
