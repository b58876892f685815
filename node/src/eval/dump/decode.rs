//! The body of a payload as contents, in every form that Redis has written since 2.6.

use super::super::args::Stop;
use super::super::collection::Budget;
use super::super::contents::Contents;
use super::super::order::value_of;
use super::super::{VALUE_BYTES_MAX, WRITE_BYTES_MAX};
use super::encode::LONG_MARK;
use super::input::{Input, bad};
use super::{lzf, packed, too_large};
use crate::model::{Type, format_integer};
use bytes::Bytes;
use std::collections::HashSet;

/// What the packed strings of one payload may unpack to, all together. The elements in them take less
/// room than as rows, so no payload that may be written needs more.
pub(super) const UNPACKED_BYTES_MAX: usize = WRITE_BYTES_MAX;

/// The first byte: a type in one of its forms.
pub(super) mod form {
    pub(crate) const STRING: u8 = 0;
    pub(crate) const LIST: u8 = 1;
    pub(crate) const SET: u8 = 2;
    /// Scores as text.
    pub(crate) const SORTED_SET_OF_TEXT: u8 = 3;
    pub(crate) const HASH: u8 = 4;
    pub(crate) const SORTED_SET: u8 = 5;
    pub(crate) const MODULE: u8 = 6;
    pub(crate) const MODULE_2: u8 = 7;
    pub(crate) const HASH_ZIPMAP: u8 = 9;
    pub(crate) const LIST_ZIPLIST: u8 = 10;
    pub(crate) const SET_INTSET: u8 = 11;
    pub(crate) const SORTED_SET_ZIPLIST: u8 = 12;
    pub(crate) const HASH_ZIPLIST: u8 = 13;
    /// A list of ziplists.
    pub(crate) const LIST_QUICKLIST: u8 = 14;
    pub(crate) const STREAM: u8 = 15;
    pub(crate) const HASH_LISTPACK: u8 = 16;
    pub(crate) const SORTED_SET_LISTPACK: u8 = 17;
    /// A list of listpacks and of single elements.
    pub(crate) const LIST_QUICKLIST_2: u8 = 18;
    pub(crate) const STREAM_2: u8 = 19;
    pub(crate) const SET_LISTPACK: u8 = 20;
    pub(crate) const STREAM_3: u8 = 21;
}

/// What stands in a node of [`form::LIST_QUICKLIST_2`].
const NODE_ELEMENT: u64 = 1;
const NODE_LISTPACK: u64 = 2;

/// A length that says what follows instead: an integer of 1, 2 or 4 bytes, or a packed string.
const INT_8: u8 = 0;
const INT_16: u8 = 1;
const INT_32: u8 = 2;
const PACKED: u8 = 3;

const LONGER_MARK: u8 = 0x81;

/// Of a score as text, instead of its length.
const NOT_A_NUMBER: u8 = 253;
const POSITIVE_INFINITY: u8 = 254;
const NEGATIVE_INFINITY: u8 = 255;

/// Takes the body of a payload apart.
pub(super) fn contents(body: Bytes, budget: Budget) -> Result<Contents, Stop> {
    let mut reader = Reader { input: Input::new(body), unpacked_left: UNPACKED_BYTES_MAX };
    let form = reader.input.byte()?;
    let contents = match form {
        form::STRING => Contents::String(fitting(reader.text()?)?),
        form => {
            let mut elements = Elements { ty: type_of(form)?, all: Vec::new(), name: None, budget };
            reader.elements(form, &mut elements)?;
            elements.finish()?
        }
    };
    if reader.input.left() > 0 {
        return Err(bad());
    }
    Ok(contents)
}

fn type_of(form: u8) -> Result<Type, Stop> {
    let not_supported = |what: &str| Err(Stop::error(format!("ERR Bad data format: {what}")));
    Ok(match form {
        form::LIST | form::LIST_ZIPLIST | form::LIST_QUICKLIST | form::LIST_QUICKLIST_2 => {
            Type::List
        }
        form::SET | form::SET_INTSET | form::SET_LISTPACK => Type::Set,
        form::HASH | form::HASH_ZIPLIST | form::HASH_LISTPACK => Type::Hash,
        form::SORTED_SET
        | form::SORTED_SET_OF_TEXT
        | form::SORTED_SET_ZIPLIST
        | form::SORTED_SET_LISTPACK => Type::SortedSet,
        form::STREAM | form::STREAM_2 | form::STREAM_3 => {
            return not_supported("there is no type for streams here");
        }
        form::MODULE | form::MODULE_2 => return not_supported("it is a value of a module"),
        form::HASH_ZIPMAP => {
            return not_supported("it is a zipmap; Redis 2.6 to 7.2 dump it in another form");
        }
        _ => return Err(bad()),
    })
}

/// A length, or what stands in its place.
enum Len {
    Of(u64),
    Special(u8),
}

struct Reader {
    input: Input,
    unpacked_left: usize,
}

impl Reader {
    fn len(&mut self) -> Result<Len, Stop> {
        let first = self.input.byte()?;
        let low = first & 0x3F;
        Ok(match first {
            0..=0x3F => Len::Of(u64::from(low)),
            0x40..=0x7F => Len::Of(u64::from(u16::from_be_bytes([low, self.input.byte()?]))),
            LONG_MARK => Len::Of(u64::from(u32::from_be_bytes(self.input.array()?))),
            LONGER_MARK => Len::Of(u64::from_be_bytes(self.input.array()?)),
            0xC0.. => Len::Special(low),
            _ => return Err(bad()),
        })
    }

    fn count(&mut self) -> Result<u64, Stop> {
        match self.len()? {
            Len::Of(count) => Ok(count),
            Len::Special(_) => Err(bad()),
        }
    }

    fn text(&mut self) -> Result<Bytes, Stop> {
        Ok(match self.len()? {
            Len::Of(len) => self.input.take(len)?,
            Len::Special(INT_8) => format_integer(i64::from(self.input.byte()? as i8)),
            Len::Special(INT_16) => {
                format_integer(i64::from(i16::from_le_bytes(self.input.array()?)))
            }
            Len::Special(INT_32) => {
                format_integer(i64::from(i32::from_le_bytes(self.input.array()?)))
            }
            Len::Special(PACKED) => self.unpacked()?,
            Len::Special(_) => return Err(bad()),
        })
    }

    fn unpacked(&mut self) -> Result<Bytes, Stop> {
        let (bytes, len) = (self.count()?, self.count()?);
        let bytes = self.input.take(bytes)?;
        let len = usize::try_from(len).map_err(|_| bad())?;
        self.unpacked_left = self.unpacked_left.checked_sub(len).ok_or_else(too_large)?;
        Ok(lzf::unpacked(&bytes, len).ok_or_else(bad)?.into())
    }

    fn score(&mut self) -> Result<f64, Stop> {
        match self.input.byte()? {
            NOT_A_NUMBER => Err(bad()),
            POSITIVE_INFINITY => Ok(f64::INFINITY),
            NEGATIVE_INFINITY => Ok(f64::NEG_INFINITY),
            len => parse_score(&self.input.take(u64::from(len))?),
        }
    }

    /// Each element takes a byte of the payload at least, so a number of them that lies ends soon.
    fn elements(&mut self, form: u8, into: &mut Elements) -> Result<(), Stop> {
        match form {
            form::LIST_ZIPLIST | form::HASH_ZIPLIST | form::SORTED_SET_ZIPLIST => {
                return packed::ziplist(self.text()?, &mut |item| into.item(item));
            }
            form::HASH_LISTPACK | form::SORTED_SET_LISTPACK | form::SET_LISTPACK => {
                return packed::listpack(self.text()?, &mut |item| into.item(item));
            }
            form::SET_INTSET => {
                return packed::intset(self.text()?, &mut |item| into.item(item));
            }
            _ => {}
        }
        for _ in 0..self.count()? {
            match form {
                form::LIST_QUICKLIST => {
                    packed::ziplist(self.text()?, &mut |item| into.item(item))?;
                }
                form::LIST_QUICKLIST_2 => self.node(into)?,
                form::SORTED_SET_OF_TEXT => {
                    let name = self.text()?;
                    into.scored(name, self.score()?)?;
                }
                form::SORTED_SET => {
                    let name = self.text()?;
                    into.scored(name, f64::from_le_bytes(self.input.array()?))?;
                }
                form::HASH => {
                    into.item(self.text()?)?;
                    into.item(self.text()?)?;
                }
                _ => into.item(self.text()?)?,
            }
        }
        Ok(())
    }

    fn node(&mut self, into: &mut Elements) -> Result<(), Stop> {
        match self.count()? {
            NODE_ELEMENT => into.item(self.text()?),
            NODE_LISTPACK => packed::listpack(self.text()?, &mut |item| into.item(item)),
            _ => Err(bad()),
        }
    }
}

/// A value or a name that may be written.
fn fitting(text: Bytes) -> Result<Bytes, Stop> {
    if text.len() > VALUE_BYTES_MAX { Err(too_large()) } else { Ok(text) }
}

fn parse_score(text: &[u8]) -> Result<f64, Stop> {
    std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).ok_or_else(bad)
}

/// Elements that were read so far.
struct Elements {
    ty: Type,
    all: Vec<(Bytes, Bytes)>,
    /// A field or a member whose value or score comes next.
    name: Option<Bytes>,
    budget: Budget,
}

impl Elements {
    /// An element of a list or a set; of a hash and a sorted set names and values by turns.
    fn item(&mut self, item: Bytes) -> Result<(), Stop> {
        match (self.ty, self.name.take()) {
            (Type::List, _) => self.push(Bytes::new(), item),
            (Type::Set, _) => self.push(item, Bytes::new()),
            (Type::SortedSet, Some(name)) => self.scored(name, parse_score(&item)?),
            (_, Some(name)) => self.push(name, item),
            (_, None) => {
                self.name = Some(item);
                Ok(())
            }
        }
    }

    fn scored(&mut self, name: Bytes, score: f64) -> Result<(), Stop> {
        if score.is_nan() {
            return Err(bad());
        }
        self.push(name, value_of(score))
    }

    fn push(&mut self, name: Bytes, value: Bytes) -> Result<(), Stop> {
        self.budget.take(name.len() + value.len()).map_err(|_| too_large())?;
        self.all.push((fitting(name)?, fitting(value)?));
        Ok(())
    }

    /// There must be an element, no half one, and none twice but in a list.
    fn finish(self) -> Result<Contents, Stop> {
        let mut seen = HashSet::with_capacity(self.all.len());
        let twice = self.ty != Type::List && !self.all.iter().all(|(name, _)| seen.insert(name));
        if self.name.is_some() || self.all.is_empty() || twice {
            return Err(bad());
        }
        Ok(Contents::Elements(self.ty, self.all))
    }
}
