//! What a command answers, and its form between nodes (a forwarded command's reply).
//!
//! Wire form: a kind byte, then what the kind holds; byte strings and elements stand behind their
//! number. Invariants:
//! * A reply read from the wire is nested at most [`DEPTH_MAX`] deep and no larger than its bytes.
//! * Bytes are shared with the message they came in, not copied.

use crate::codec::{DecodeError, Decoder, Encoder};
use bytes::Bytes;

/// How deep replies may nest: COMMAND's, the deepest of Redis, has seven levels.
pub const DEPTH_MAX: usize = 16;

/// Bytes of one command's reply. It fits a frame between nodes together with what stands before it
/// (`group::exec::REPLY_BYTES_MAX`).
pub const COMMAND_REPLY_BYTES_MAX: usize = 48 << 20;

/// Version of the protocol that a connection speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Protocol {
    /// What every connection begins with.
    #[default]
    Resp2,
    /// After `HELLO 3`.
    Resp3,
}

/// What a command answers.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    /// `+OK`.
    Ok,
    /// A short status line.
    Simple(Bytes),
    /// An error line that begins with its code, for example `ERR`.
    Error(Bytes),
    /// An integer.
    Int(i64),
    /// A byte string.
    Bulk(Bytes),
    /// Nothing in place of a byte string.
    Null,
    /// Nothing in place of an array.
    NullArray,
    /// A list.
    Array(Vec<Reply>),
    /// Pairs; a flat array in RESP2.
    Map(Vec<(Reply, Reply)>),
    /// Elements without order; an array in RESP2.
    Set(Vec<Reply>),
    /// A float; a byte string in RESP2.
    Double(f64),
    /// A truth value; 1 or 0 in RESP2.
    Bool(bool),
    /// Text for people; a byte string in RESP2.
    Verbatim(Bytes),
    /// A message that answers no command; an array in RESP2.
    Push(Vec<Reply>),
    /// Pairs in order, an array each; a flat array in RESP2.
    Pairs(Vec<(Reply, Reply)>),
}

mod kind {
    pub const OK: u8 = 0;
    pub const SIMPLE: u8 = 1;
    pub const ERROR: u8 = 2;
    pub const INT: u8 = 3;
    pub const BULK: u8 = 4;
    pub const NULL: u8 = 5;
    pub const NULL_ARRAY: u8 = 6;
    pub const ARRAY: u8 = 7;
    pub const MAP: u8 = 8;
    pub const SET: u8 = 9;
    pub const DOUBLE: u8 = 10;
    pub const BOOL: u8 = 11;
    pub const VERBATIM: u8 = 12;
    pub const PUSH: u8 = 13;
    pub const PAIRS: u8 = 14;
}

impl Reply {
    /// A status line other than OK.
    pub fn status(line: &'static str) -> Reply {
        Reply::Simple(Bytes::from_static(line.as_bytes()))
    }

    /// An error line with its code, for example `ERR syntax error`.
    pub fn error(line: impl Into<Bytes>) -> Reply {
        Reply::Error(line.into())
    }

    /// A byte string that shares or owns its bytes.
    pub fn bulk(value: impl Into<Bytes>) -> Reply {
        Reply::Bulk(value.into())
    }

    /// A byte string, or nothing.
    pub fn bulk_or_null(value: Option<Bytes>) -> Reply {
        value.map_or(Reply::Null, Reply::Bulk)
    }

    /// An array of byte strings.
    pub fn bulks<B: Into<Bytes>>(values: impl IntoIterator<Item = B>) -> Reply {
        Reply::Array(values.into_iter().map(Reply::bulk).collect())
    }

    /// A set of status words, as COMMAND shows flags.
    pub fn words(words: impl IntoIterator<Item = &'static str>) -> Reply {
        Reply::Set(words.into_iter().map(Reply::status).collect())
    }

    /// Whether this is an error line.
    pub fn is_error(&self) -> bool {
        matches!(self, Reply::Error(_))
    }

    /// Bytes that this reply takes up, about: what queues count.
    pub fn size(&self) -> usize {
        const BASE: usize = size_of::<Reply>();
        BASE + match self {
            Reply::Simple(b) | Reply::Error(b) | Reply::Bulk(b) | Reply::Verbatim(b) => b.len(),
            Reply::Array(items) | Reply::Set(items) | Reply::Push(items) => {
                items.iter().map(Reply::size).sum()
            }
            Reply::Map(pairs) | Reply::Pairs(pairs) => {
                pairs.iter().map(|(k, v)| k.size() + v.size()).sum()
            }
            _ => 0,
        }
    }

    /// Appends the form between nodes.
    pub fn to_wire(&self, out: &mut Encoder) {
        let bytes = |out: &mut Encoder, kind, bytes: &[u8]| {
            out.put_u8(kind);
            out.put_bytes(bytes);
        };
        match self {
            Reply::Ok => out.put_u8(kind::OK),
            Reply::Simple(b) => bytes(out, kind::SIMPLE, b),
            Reply::Error(b) => bytes(out, kind::ERROR, b),
            Reply::Bulk(b) => bytes(out, kind::BULK, b),
            Reply::Verbatim(b) => bytes(out, kind::VERBATIM, b),
            Reply::Null => out.put_u8(kind::NULL),
            Reply::NullArray => out.put_u8(kind::NULL_ARRAY),
            Reply::Array(items) => items_to_wire(kind::ARRAY, items, out),
            Reply::Set(items) => items_to_wire(kind::SET, items, out),
            Reply::Push(items) => items_to_wire(kind::PUSH, items, out),
            Reply::Int(value) => {
                out.put_u8(kind::INT);
                out.put_signed(*value);
            }
            Reply::Double(value) => {
                out.put_u8(kind::DOUBLE);
                out.put_f64(*value);
            }
            Reply::Bool(value) => {
                out.put_u8(kind::BOOL);
                out.put_bool(*value);
            }
            Reply::Map(pairs) => pairs_to_wire(kind::MAP, pairs, out),
            Reply::Pairs(pairs) => pairs_to_wire(kind::PAIRS, pairs, out),
        }
    }

    /// Reads what [`Reply::to_wire`] wrote.
    pub fn from_wire(input: &mut Decoder<'_>) -> Result<Reply, DecodeError> {
        read(input, DEPTH_MAX)
    }
}

fn items_to_wire(kind: u8, items: &[Reply], out: &mut Encoder) {
    out.put_u8(kind);
    out.put_varint(items.len() as u64);
    for item in items {
        item.to_wire(out);
    }
}

fn pairs_to_wire(kind: u8, pairs: &[(Reply, Reply)], out: &mut Encoder) {
    out.put_u8(kind);
    out.put_varint(pairs.len() as u64);
    for (key, value) in pairs {
        key.to_wire(out);
        value.to_wire(out);
    }
}

fn read(input: &mut Decoder<'_>, depth: usize) -> Result<Reply, DecodeError> {
    let unknown = input.error("a kind of reply that this release knows");
    let reply = match input.u8()? {
        kind::OK => Reply::Ok,
        kind::SIMPLE => Reply::Simple(input.bytes(usize::MAX)?),
        kind::ERROR => Reply::Error(input.bytes(usize::MAX)?),
        kind::INT => Reply::Int(input.signed()?),
        kind::BULK => Reply::Bulk(input.bytes(usize::MAX)?),
        kind::NULL => Reply::Null,
        kind::NULL_ARRAY => Reply::NullArray,
        kind::ARRAY => Reply::Array(read_items(input, depth)?),
        kind::MAP => Reply::Map(read_pairs(input, depth)?),
        kind::SET => Reply::Set(read_items(input, depth)?),
        kind::DOUBLE => Reply::Double(input.f64()?),
        kind::BOOL => Reply::Bool(input.bool()?),
        kind::VERBATIM => Reply::Verbatim(input.bytes(usize::MAX)?),
        kind::PUSH => Reply::Push(read_items(input, depth)?),
        kind::PAIRS => Reply::Pairs(read_pairs(input, depth)?),
        _ => return Err(unknown),
    };
    Ok(reply)
}

fn below(input: &Decoder<'_>, depth: usize) -> Result<usize, DecodeError> {
    depth.checked_sub(1).ok_or(input.error("a reply nested at most 16 deep"))
}

fn read_items(input: &mut Decoder<'_>, depth: usize) -> Result<Vec<Reply>, DecodeError> {
    let depth = below(input, depth)?;
    let count = input.count(usize::MAX, 1)?;
    (0..count).map(|_| read(input, depth)).collect()
}

fn read_pairs(input: &mut Decoder<'_>, depth: usize) -> Result<Vec<(Reply, Reply)>, DecodeError> {
    let depth = below(input, depth)?;
    let count = input.count(usize::MAX, 2)?;
    (0..count).map(|_| Ok((read(input, depth)?, read(input, depth)?))).collect()
}
