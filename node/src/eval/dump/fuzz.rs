//! Payloads as a target of [`crate::fuzz`]: what stands before the footer, whose checksum would hide it.

use super::super::collection::Budget;
use super::super::contents::Contents;
use super::super::order::value_of;
use super::{decode, encode};
use crate::codec::DecodeError;
use crate::fuzz::{Target, written_max};
use crate::model::Type;
use bytes::Bytes;

/// Bytes of the key's name that is restored.
const KEY_BYTES: usize = 8;

/// Forms that are read and not written: what Redis made of small collections.
const PACKED: &[&[u8]] = &[
    // The hash f=1 as a listpack, the sorted set m=2 and the hash f=v as ziplists, the set {1, 2}.
    b"\x10\x0C\x0C\0\0\0\x02\0\x81f\x02\x01\x01\xFF",
    b"\x0C\x10\x10\0\0\0\x0D\0\0\0\x02\0\0\x01m\x03\xF3\xFF",
    b"\x0D\x11\x11\0\0\0\x0D\0\0\0\x02\0\0\x01f\x03\x01v\xFF",
    b"\x0B\x0C\x02\0\0\0\x02\0\0\0\x01\0\x02\0",
    // The list a, b in two nodes, one of them a listpack; the list a of a ziplist.
    b"\x12\x02\x01\x01a\x02\x0A\x0A\0\0\0\x01\0\x81b\x02\xFF",
    b"\x0E\x01\x0E\x0E\0\0\0\x0A\0\0\0\x01\0\0\x01a\xFF",
    // A packed string, integers, and scores as text.
    b"\0\xC3\x05\x41\x09\0x\xE0\xFF\0",
    b"\x02\x03\xC0\xFF\xC1\0\x01\xC2\0\0\0\x01",
    b"\x03\x02\x01a\x031.5\x01b\xFF",
];

/// A body as it came: most forms are not written again.
struct Body {
    bytes: Bytes,
    contents: Contents,
}

impl PartialEq for Body {
    fn eq(&self, other: &Body) -> bool {
        self.contents == other.contents
    }
}

fn read(bytes: &Bytes) -> Result<Body, DecodeError> {
    let contents = |body: Bytes| decode::contents(body, Budget::write_under(KEY_BYTES));
    let refused = |_| DecodeError { expected: "the body of a payload", offset: 0 };
    let read = contents(bytes.clone()).map_err(refused)?;
    let written = Bytes::from(encode::body(&read));
    assert!(written.len() <= written_max(bytes.len()), "{} bytes", written.len());
    assert_eq!(contents(written).ok().as_ref(), Some(&read), "written in its plainest form");
    Ok(Body { bytes: bytes.clone(), contents: read })
}

pub(crate) fn target() -> Target {
    let text = Bytes::from_static;
    let pairs = || vec![(text(b"a"), text(b"1")), (text(b"b"), text(&[b'x'; 100]))];
    let scored = [(b"a", 1.5), (b"b", f64::INFINITY)];
    let scored = scored.map(|(name, score)| (text(name), value_of(score))).to_vec();
    let members = vec![(text(b"a"), Bytes::new()), (text(b""), Bytes::new())];
    let values = pairs().into_iter().map(|(_, value)| (Bytes::new(), value)).collect();
    let plain = [
        Contents::String(text(b"value")),
        Contents::Elements(Type::Hash, pairs()),
        Contents::Elements(Type::List, values),
        Contents::Elements(Type::Set, members),
        Contents::Elements(Type::SortedSet, scored),
    ];
    let plain = plain.iter().map(|contents| Bytes::from(encode::body(contents)));
    let all = plain.chain(PACKED.iter().map(|bytes| text(bytes)));
    let corpus = all.map(|bytes| read(&bytes).unwrap_or_else(|error| panic!("{error}: {bytes:?}")));
    Target::new("payload of RESTORE", corpus.collect(), read, |body| body.bytes.clone())
}
