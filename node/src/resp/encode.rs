//! Writes replies as RESP2 or RESP3, as Redis does.
//!
//! The `redis-protocol` crate writes every scalar that it writes as Redis does. Ours are:
//! * doubles: the crate prints 1e300 with 301 digits;
//! * integers: the crate sizes them through `f64` and leaves a NUL behind 999999999999999999;
//! * error and status lines: they may carry a client's bytes, which need not be UTF-8, and a line
//!   break in them would end the reply early;
//! * headers of aggregates: elements are written one by one, without building the crate's tree;
//! * RESP2's null array, which the crate does not have.

use super::double::format_double;
use super::reply::{Protocol, Reply};
use bytes::{BufMut, Bytes, BytesMut};
use redis_protocol::resp2::{self, types::BytesFrame as Frame2};
use redis_protocol::resp3::{self, types::BytesFrame as Frame3, types::VerbatimStringFormat};

const CRLF: &[u8] = b"\r\n";

impl Reply {
    /// Appends the reply to `out` in the given version of the protocol.
    pub fn encode(&self, protocol: Protocol, out: &mut BytesMut) {
        match self {
            Reply::Ok => out.put_slice(b"+OK\r\n"),
            Reply::Simple(text) => line(b'+', text, out),
            Reply::Error(text) => line(b'-', text, out),
            Reply::Int(value) => integer(b':', *value, out),
            Reply::Bulk(value) => bulk(value, out),
            Reply::Null => null(protocol, out),
            Reply::NullArray if protocol == Protocol::Resp2 => out.put_slice(b"*-1\r\n"),
            Reply::NullArray => null(protocol, out),
            Reply::Array(items) => aggregate(b'*', items, protocol, out),
            Reply::Set(items) => aggregate(pick(protocol, b'*', b'~'), items, protocol, out),
            Reply::Push(items) => aggregate(pick(protocol, b'*', b'>'), items, protocol, out),
            Reply::Map(pairs) => {
                encode_map_header(pairs.len(), protocol, out);
                for (key, value) in pairs {
                    key.encode(protocol, out);
                    value.encode(protocol, out);
                }
            }
            Reply::Pairs(pairs) => {
                let flat = protocol == Protocol::Resp2;
                encode_array_header(pairs.len() * if flat { 2 } else { 1 }, out);
                for (key, value) in pairs {
                    if !flat {
                        encode_array_header(2, out);
                    }
                    key.encode(protocol, out);
                    value.encode(protocol, out);
                }
            }
            Reply::Double(value) => double(*value, protocol, out),
            Reply::Bool(value) => boolean(*value, protocol, out),
            Reply::Verbatim(text) => verbatim(text, protocol, out),
        }
    }
}

/// Begins an array whose elements the caller writes one by one.
pub fn encode_array_header(elements: usize, out: &mut BytesMut) {
    integer(b'*', elements as i64, out);
}

/// Begins a map whose keys and values the caller writes one by one.
pub fn encode_map_header(pairs: usize, protocol: Protocol, out: &mut BytesMut) {
    match protocol {
        Protocol::Resp2 => integer(b'*', (pairs * 2) as i64, out),
        Protocol::Resp3 => integer(b'%', pairs as i64, out),
    }
}

fn pick(protocol: Protocol, resp2: u8, resp3: u8) -> u8 {
    match protocol {
        Protocol::Resp2 => resp2,
        Protocol::Resp3 => resp3,
    }
}

fn aggregate(kind: u8, items: &[Reply], protocol: Protocol, out: &mut BytesMut) {
    integer(kind, items.len() as i64, out);
    for item in items {
        item.encode(protocol, out);
    }
}

fn integer(kind: u8, value: i64, out: &mut BytesMut) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    let mut rest = value.unsigned_abs();
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.put_u8(kind);
    if value < 0 {
        out.put_u8(b'-');
    }
    out.put_slice(&digits[at..]);
    out.put_slice(CRLF);
}

fn line(kind: u8, text: &[u8], out: &mut BytesMut) {
    out.reserve(text.len() + 3);
    out.put_u8(kind);
    let start = out.len();
    out.put_slice(text);
    for byte in &mut out[start..] {
        if matches!(*byte, b'\r' | b'\n') {
            *byte = b' '; // the line may quote a client's bytes
        }
    }
    out.put_slice(CRLF);
}

fn crate_resp2(frame: &Frame2, out: &mut BytesMut) {
    let end = resp2::encode::extend_encode(out, frame, false);
    // The crate reserves the room itself, so it can only fail by a defect of its own.
    out.truncate(end.expect("a scalar frame fits the room that was made for it"));
}

fn crate_resp3(frame: &Frame3, out: &mut BytesMut) {
    let end = resp3::encode::complete::extend_encode(out, frame, false);
    // As above.
    out.truncate(end.expect("a scalar frame fits the room that was made for it"));
}

fn bulk(value: &Bytes, out: &mut BytesMut) {
    // A shared handle, not a copy. Both versions write byte strings alike.
    crate_resp2(&Frame2::BulkString(value.clone()), out);
}

fn null(protocol: Protocol, out: &mut BytesMut) {
    match protocol {
        Protocol::Resp2 => crate_resp2(&Frame2::Null, out),
        Protocol::Resp3 => crate_resp3(&Frame3::Null, out),
    }
}

fn boolean(value: bool, protocol: Protocol, out: &mut BytesMut) {
    match protocol {
        Protocol::Resp2 => integer(b':', i64::from(value), out),
        Protocol::Resp3 => crate_resp3(&Frame3::from(value), out),
    }
}

fn double(value: f64, protocol: Protocol, out: &mut BytesMut) {
    let text = format_double(value);
    match protocol {
        Protocol::Resp2 => bulk(&Bytes::from(text), out),
        Protocol::Resp3 => line(b',', text.as_bytes(), out),
    }
}

fn verbatim(text: &Bytes, protocol: Protocol, out: &mut BytesMut) {
    match protocol {
        Protocol::Resp2 => bulk(text, out),
        Protocol::Resp3 => {
            let format = VerbatimStringFormat::Text;
            let frame = Frame3::VerbatimString { data: text.clone(), format, attributes: None };
            crate_resp3(&frame, out);
        }
    }
}
