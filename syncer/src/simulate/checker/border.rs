//! From the node's entries, effects and replies to the plain ones of the checker, and nothing else.

use super::history::{Entry as PlainEntry, Told};
use super::judge::Written;
use super::local::Answer;
use super::plain::{
    Claim, Counter, Element, Expiry, Floor, Key, Kind, ONLY, Register, Reset, Stamp, Sum, Text,
};
use bytes::Bytes;
use flotilla_node::codec::Decoder;
use flotilla_node::engine::keys::{self, RowKey};
use flotilla_node::group::cursor::Cursor;
use flotilla_node::group::entry::{Entry, Header, RowOp};
use flotilla_node::model::{self, Effect, Parts, Type};
use flotilla_node::resp::Reply;
use flotilla_topology::ids::{GroupId, Origin};
use flotilla_topology::stamp;
use std::collections::BTreeSet;

const READABLE: &str = "what the simulation writes is readable";

fn plain_stamp(stamp: stamp::Stamp) -> Stamp {
    Stamp { clock: stamp.hlc.0, cluster: stamp.cluster.0 }
}

/// A cluster in one of its lives.
pub fn counter(origin: Origin) -> Counter {
    (origin.cluster.0, origin.incarnation.0)
}

fn kind(ty: Type) -> Kind {
    match ty {
        Type::String => Kind::Text,
        Type::Hash => Kind::Hash,
        Type::Set => Kind::Set,
        Type::SortedSet => Kind::Scores,
        Type::List => Kind::List,
    }
}

fn element(from: &model::Element) -> Element {
    let register = from.register.as_ref().map(|register| Register {
        stamp: plain_stamp(register.stamp),
        value: register.value.as_ref().map(|value| value.to_vec()),
    });
    let sums = from.sums.iter().map(|sum| {
        let (start, stamp) = (plain_stamp(sum.start), plain_stamp(sum.stamp));
        (counter(sum.slot), Sum { start, stamp, sum: sum.sum })
    });
    let resets = from.resets.iter().map(|reset| {
        let (stamp, by) = (plain_stamp(reset.stamp), plain_stamp(reset.by));
        (counter(reset.slot), Reset { stamp, sum: reset.sum, by })
    });
    Element { register, sums: sums.collect(), resets: resets.collect() }
}

fn head(from: &model::Head) -> Key {
    let mut key = Key {
        claim: from.claim.map(|c| Claim { stamp: plain_stamp(c.stamp), kind: kind(c.ty) }),
        floor: Floor { stamp: plain_stamp(from.floor.stamp), too: from.floor.inclusive },
        expiry: from.expiry.map(|e| Expiry {
            stamp: plain_stamp(e.stamp),
            kind: kind(e.ty),
            end: e.at,
            low: e.low,
        }),
        ..Key::default()
    };
    if !from.string.is_empty() {
        key.elements.insert((Kind::Text, ONLY.to_vec()), element(&from.string));
    }
    key
}

fn told(effect: &Effect) -> Told {
    let said = match effect {
        Effect::Head { head: from, .. } => head(from),
        Effect::Element { ty, name, element: from, .. } => {
            let mut key = Key::default();
            key.elements.insert((kind(*ty), name.to_vec()), element(from));
            key
        }
    };
    let written = Written { said, ..Written::default() };
    Told { key: effect.key().to_vec(), slot: effect.slot().0, written }
}

/// Rows of a full state.
pub fn rows(wire: &[Bytes]) -> Vec<Told> {
    let effect = |bytes| Effect::from_wire(&mut Decoder::shared(bytes)).expect(READABLE);
    wire.iter().map(|bytes| told(&effect(bytes))).collect()
}

/// The header of an entry.
pub fn entry(index: u64, header: &Header) -> PlainEntry {
    let (first, last) = (plain_stamp(header.first), plain_stamp(header.last));
    PlainEntry { index, first, last, clock: header.clock.0 }
}

/// What an entry says, key by key.
pub fn says(entry: &Entry) -> Vec<Told> {
    let mut all: Vec<Told> = Vec::new();
    for op in &entry.ops {
        let RowOp::Put { key, value, parts } = op else { continue };
        let effect = model::effect_of(entry.header.origin, key, value, Parts(*parts));
        let Some(effect) = effect.expect(READABLE) else { continue };
        let mut news = told(&effect);
        for name in news.written.said.elements.keys() {
            news.written.holds.insert(name.clone(), holds(key, value));
        }
        match all.iter_mut().find(|told| told.key == news.key) {
            Some(told) => {
                told.written.said.join(&news.written.said);
                told.written.holds.append(&mut news.written.holds);
            }
            None => all.push(news),
        }
    }
    all
}

/// Counters whose sums are in a row.
fn holds(row: &[u8], value: &Bytes) -> BTreeSet<Counter> {
    let element = match keys::decode(row).expect(READABLE) {
        RowKey::Head { .. } => model::decode_head(value).expect(READABLE).string,
        _ => model::decode_element(value).expect(READABLE),
    };
    element.sums.iter().map(|sum| counter(sum.slot)).collect()
}

/// The cursor that an entry moves, if it moves one: which source group, and to which index.
pub fn cursor(entry: &Entry) -> Option<(GroupId, u64)> {
    entry.ops.iter().find_map(|op| match op {
        RowOp::Put { key, value, .. } if key.first() == Some(&keys::CURSOR) => {
            let RowKey::Cursor { group, .. } = keys::decode(key).expect(READABLE) else {
                return None;
            };
            Some((group, Cursor::decode(value).expect(READABLE).position.index))
        }
        _ => None,
    })
}

/// Whether an entry writes any key.
pub fn touches_keys(entry: &Entry) -> bool {
    let is_key = |key: &Bytes| matches!(key.first(), Some(&keys::HEAD | &keys::ELEMENT));
    entry.ops.iter().any(|op| match op {
        RowOp::Put { key, .. } | RowOp::Delete { key } => is_key(key),
        RowOp::DeleteRange { from, .. } => is_key(from),
    })
}

/// A reply.
pub fn answer(reply: &Reply) -> Answer {
    match reply {
        Reply::Ok => Answer::Ok,
        Reply::Null => Answer::Null,
        Reply::Int(number) => Answer::Int(*number),
        Reply::Bulk(bytes) => Answer::Bulk(bytes.to_vec()),
        Reply::Double(number) => Answer::Bulk(number.to_string().into_bytes()),
        Reply::Error(line) => {
            let code: Option<&[u8]> = line.split(|byte| *byte == b' ').next();
            Answer::Error(code.unwrap_or_default().to_vec())
        }
        other => Answer::Bulk(format!("{other:?}").into()),
    }
}

/// Words of a command.
pub fn words(args: &[Bytes]) -> Vec<Text> {
    args.iter().map(|arg| arg.to_vec()).collect()
}
