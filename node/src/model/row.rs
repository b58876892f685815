//! Heads and elements as row values.
//!
//! Format 1. A head row:
//!
//! | bytes | what |
//! |---|---|
//! | 1 | version |
//! | 1 | type number, 0 for none; plus 128 if something was forgotten |
//! | 1 | flags: which parts follow, see [`head_flag`] |
//! | 9 | stamp of the claim, if it has one: the *base*, which other stamps may refer to |
//! | 9 | stamp of the floor, if there is one that is not the base |
//! | 9 + 1 + n | expiry: stamp if not the base, type number if not the head's, end, low (varints) |
//! | n | what was forgotten, if anything (varint) |
//! | n | count: number (varint), how its floor is given (1 byte), that floor's stamp if explicit |
//! | rest | the string's element |
//!
//! An element: a flag byte, see [`element_flag`]; the register's stamp if it is not the base;
//! sums and resets, each behind their number; the value to the end, without a length, so that it
//! is shared with the row. An element row is a version byte and an element with base zero.
//! Rows of a namespace that is not synced have stamps of zero, so they hold none. If sync is switched
//! on later, they are read with the stamp of the entry that did it as their base, and mean what a write
//! at that moment would have left: a string also the floor that every SET leaves under its own stamp,
//! so that of two clusters' strings one wins with its expiry, or with having none.

use super::{Claim, Count, Element, Expiry, Floor, Head, Register, Reset, Sum, Type};
use crate::codec::{DecodeError, Decoder, Encoder};
use bytes::Bytes;
use flotilla_topology::stamp::Stamp;

/// The format that is written.
const VERSION: u8 = 1;

/// Stands in the type byte of a head row: what was forgotten follows.
const FORGOTTEN: u8 = 128;

/// Most sums or resets that one element may have: one per life of a cluster.
const SLOTS_MAX: usize = 4096;

/// Flags of a head row.
mod head_flag {
    /// The claim's stamp is not zero and follows.
    pub const STAMPED: u8 = 1;
    /// There is a floor.
    pub const FLOOR: u8 = 2;
    /// The floor hides its own stamp too.
    pub const FLOOR_INCLUSIVE: u8 = 4;
    /// The floor's stamp is the base.
    pub const FLOOR_AT_BASE: u8 = 8;
    /// There is an expiry.
    pub const EXPIRY: u8 = 16;
    /// The expiry's stamp is the base.
    pub const EXPIRY_AT_BASE: u8 = 32;
    /// The expiry names another type than the head.
    pub const EXPIRY_TYPE: u8 = 64;
    /// There is a count.
    pub const COUNT: u8 = 128;
}

/// Flags of an element.
mod element_flag {
    /// There is a register.
    pub const REGISTER: u8 = 1;
    /// The register is a removal.
    pub const GONE: u8 = 2;
    /// The register's stamp is the base.
    pub const AT_BASE: u8 = 4;
    /// There are sums.
    pub const SUMS: u8 = 8;
    /// There are resets.
    pub const RESETS: u8 = 16;
    /// All of them.
    pub const ALL: u8 = 31;
}

/// How the floor of a count is given.
mod count_floor {
    /// It hides nothing.
    pub const NONE: u8 = 0;
    /// It is the head's.
    pub const HEAD: u8 = 1;
    /// Its stamp follows.
    pub const BELOW: u8 = 2;
    /// Its stamp follows, and is hidden too.
    pub const THROUGH: u8 = 3;
}

/// The row value of a head.
pub fn encode_head(head: &Head) -> Bytes {
    let value = head.string.register.as_ref().and_then(|r| r.value.as_ref()).map_or(0, Bytes::len);
    let mut out = Encoder::with_capacity(64 + value);
    let base = head.claim.map_or(Stamp::ZERO, |claim| claim.stamp);
    out.put_u8(VERSION);
    let forgotten = if head.forgotten == 0 { 0 } else { FORGOTTEN };
    out.put_u8(head.ty().map_or(0, Type::number) | forgotten);
    out.put_u8(head_flags(head, base));
    if !base.is_zero() {
        out.put_stamp(base);
    }
    if !head.floor.is_none() && head.floor.stamp != base {
        out.put_stamp(head.floor.stamp);
    }
    if let Some(expiry) = &head.expiry {
        if expiry.stamp != base {
            out.put_stamp(expiry.stamp);
        }
        if head.ty() != Some(expiry.ty) {
            out.put_u8(expiry.ty.number());
        }
        out.put_varint(expiry.at);
        out.put_varint(expiry.low);
    }
    if head.forgotten != 0 {
        out.put_varint(head.forgotten);
    }
    if let Some(count) = &head.count {
        put_count(&mut out, count, head.floor);
    }
    put_element(&mut out, &head.string, base);
    out.into_bytes()
}

fn head_flags(head: &Head, base: Stamp) -> u8 {
    let mut flags = 0;
    let mut set = |flag, on| flags |= if on { flag } else { 0 };
    set(head_flag::STAMPED, !base.is_zero());
    if !head.floor.is_none() {
        set(head_flag::FLOOR, true);
        set(head_flag::FLOOR_INCLUSIVE, head.floor.inclusive);
        set(head_flag::FLOOR_AT_BASE, head.floor.stamp == base);
    }
    if let Some(expiry) = &head.expiry {
        set(head_flag::EXPIRY, true);
        set(head_flag::EXPIRY_AT_BASE, expiry.stamp == base);
        set(head_flag::EXPIRY_TYPE, head.ty() != Some(expiry.ty));
    }
    set(head_flag::COUNT, head.count.is_some());
    flags
}

fn put_count(out: &mut Encoder, count: &Count, floor: Floor) {
    out.put_varint(count.live);
    match count.under {
        under if under.is_none() => out.put_u8(count_floor::NONE),
        under if under == floor => out.put_u8(count_floor::HEAD),
        under => {
            out.put_u8(if under.inclusive { count_floor::THROUGH } else { count_floor::BELOW });
            out.put_stamp(under.stamp);
        }
    }
}

/// Reads a head row.
pub fn decode_head(row: &Bytes) -> Result<Head, DecodeError> {
    decode_head_since(row, Stamp::ZERO)
}

/// Reads a head row of a group in which rows without stamps count as written at `since`.
pub fn decode_head_since(row: &Bytes, since: Stamp) -> Result<Head, DecodeError> {
    let mut input = Decoder::shared(row);
    input.version(VERSION)?;
    let first = input.u8()?;
    let ty = match first & !FORGOTTEN {
        0 => None,
        number => Some(type_of(&input, number)?),
    };
    let flags = input.u8()?;
    let has = |flag| flags & flag != 0;
    let unstamped = ty.is_some() && !has(head_flag::STAMPED) && !since.is_zero();
    let base = match has(head_flag::STAMPED) {
        true => input.stamp()?,
        false if unstamped => since,
        false => Stamp::ZERO,
    };
    let mut head = Head { claim: ty.map(|ty| Claim { stamp: base, ty }), ..Head::default() };
    if unstamped && ty == Some(Type::String) {
        head.floor = Floor::below(since);
    }
    if has(head_flag::FLOOR) {
        let stamp = if has(head_flag::FLOOR_AT_BASE) { base } else { input.stamp()? };
        head.floor = Floor { stamp, inclusive: has(head_flag::FLOOR_INCLUSIVE) };
    }
    if has(head_flag::EXPIRY) {
        let stamp = if has(head_flag::EXPIRY_AT_BASE) { base } else { input.stamp()? };
        let number = if has(head_flag::EXPIRY_TYPE) { Some(input.u8()?) } else { None };
        let named = number.map(|number| type_of(&input, number)).transpose()?;
        let ty = named.or(ty).ok_or(input.error("the type of an expiry"))?;
        head.expiry = Some(Expiry { stamp, ty, at: input.varint()?, low: input.varint()? });
    }
    if first & FORGOTTEN != 0 {
        head.forgotten = input.varint()?;
    }
    if has(head_flag::COUNT) {
        head.count = Some(take_count(&mut input, head.floor)?);
    }
    head.string = take_element(&mut input, base)?;
    Ok(head)
}

fn type_of(input: &Decoder<'_>, number: u8) -> Result<Type, DecodeError> {
    Type::from_number(number).ok_or(input.error("a type that this release knows"))
}

fn take_count(input: &mut Decoder<'_>, floor: Floor) -> Result<Count, DecodeError> {
    let live = input.varint()?;
    let unknown = input.error("how the floor of a count is given");
    let under = match input.u8()? {
        count_floor::NONE => Floor::NONE,
        count_floor::HEAD => floor,
        count_floor::BELOW => Floor::below(input.stamp()?),
        count_floor::THROUGH => Floor::through(input.stamp()?),
        _ => return Err(unknown),
    };
    Ok(Count { live, under })
}

/// The row value of an element.
pub fn encode_element(element: &Element) -> Bytes {
    let value = element.register.as_ref().and_then(|r| r.value.as_ref()).map_or(0, Bytes::len);
    let mut out = Encoder::with_capacity(16 + value);
    out.put_u8(VERSION);
    put_element(&mut out, element, Stamp::ZERO);
    out.into_bytes()
}

/// Reads an element row.
pub fn decode_element(row: &Bytes) -> Result<Element, DecodeError> {
    decode_element_since(row, Stamp::ZERO)
}

/// Reads an element row of a group in which rows without stamps count as written at `since`. Only a
/// register without a stamp was written with base zero.
pub fn decode_element_since(row: &Bytes, since: Stamp) -> Result<Element, DecodeError> {
    let mut input = Decoder::shared(row);
    input.version(VERSION)?;
    take_element(&mut input, since)
}

fn put_element(out: &mut Encoder, element: &Element, base: Stamp) {
    let mut flags = 0;
    let mut set = |flag, on| flags |= if on { flag } else { 0 };
    if let Some(register) = &element.register {
        set(element_flag::REGISTER, true);
        set(element_flag::GONE, register.value.is_none());
        set(element_flag::AT_BASE, register.stamp == base);
    }
    set(element_flag::SUMS, !element.sums.is_empty());
    set(element_flag::RESETS, !element.resets.is_empty());
    out.put_u8(flags);
    if let Some(register) = &element.register
        && register.stamp != base
    {
        out.put_stamp(register.stamp);
    }
    if !element.sums.is_empty() {
        out.put_varint(element.sums.len() as u64);
        for sum in &element.sums {
            out.put_origin(sum.slot);
            out.put_stamp(sum.start);
            out.put_stamp(sum.stamp);
            out.put_signed128(sum.sum);
        }
    }
    if !element.resets.is_empty() {
        out.put_varint(element.resets.len() as u64);
        for reset in &element.resets {
            out.put_origin(reset.slot);
            out.put_stamp(reset.stamp);
            out.put_signed128(reset.sum);
            out.put_stamp(reset.by);
        }
    }
    if let Some(value) = element.register.as_ref().and_then(|register| register.value.as_ref()) {
        out.put_raw(value);
    }
}

/// Reads an element to the end of the input.
fn take_element(input: &mut Decoder<'_>, base: Stamp) -> Result<Element, DecodeError> {
    let unknown = input.error("flags of an element that this release knows");
    let flags = input.u8()?;
    if flags & !element_flag::ALL != 0 {
        return Err(unknown);
    }
    let has = |flag| flags & flag != 0;
    let stamp = match has(element_flag::REGISTER) {
        true if has(element_flag::AT_BASE) => Some(base),
        true => Some(input.stamp()?),
        false => None,
    };
    let sums = if has(element_flag::SUMS) { take_sums(input)? } else { Vec::new() };
    let resets = if has(element_flag::RESETS) { take_resets(input)? } else { Vec::new() };
    let register = match stamp {
        None => None,
        Some(stamp) if has(element_flag::GONE) => Some(Register { stamp, value: None }),
        Some(stamp) => Some(Register { stamp, value: Some(input.rest_bytes()) }),
    };
    if !input.is_empty() {
        return Err(input.error("the end of an element without a value"));
    }
    Ok(Element { register, resets, sums })
}

/// Bytes of the shortest sum: origin, two stamps, amount.
const SUM_BYTES_MIN: usize = 2 + 9 + 9 + 1;

fn take_sums(input: &mut Decoder<'_>) -> Result<Vec<Sum>, DecodeError> {
    let count = input.count(SLOTS_MAX, SUM_BYTES_MIN)?;
    let mut sums: Vec<Sum> = Vec::with_capacity(count);
    for _ in 0..count {
        let disorder = input.error("a sum of a later slot than the one before");
        let slot = input.origin()?;
        let (start, stamp) = (input.stamp()?, input.stamp()?);
        if sums.last().is_some_and(|last| last.slot >= slot) {
            return Err(disorder);
        }
        sums.push(Sum { slot, start, stamp, sum: input.signed128()? });
    }
    Ok(sums)
}

fn take_resets(input: &mut Decoder<'_>) -> Result<Vec<Reset>, DecodeError> {
    let count = input.count(SLOTS_MAX, SUM_BYTES_MIN)?;
    let mut resets: Vec<Reset> = Vec::with_capacity(count);
    for _ in 0..count {
        let disorder = input.error("a reset of a later slot than the one before");
        let (slot, stamp) = (input.origin()?, input.stamp()?);
        if resets.last().is_some_and(|last| last.slot >= slot) {
            return Err(disorder);
        }
        resets.push(Reset { slot, stamp, sum: input.signed128()?, by: input.stamp()? });
    }
    Ok(resets)
}
