//! The formats of this crate. Those whose decoders are a module's own affair are listed in it.

use super::{Target, sample};
use crate::codec::{DecodeError, Decoder, Encoder};
use crate::command::Command;
use crate::engine::keys::{self, RowKey};
use crate::engine::meta::GroupMeta;
use crate::engine::rocks::TabletId;
use crate::eval::{Loser, LoserKind, LoserRow};
use crate::log::{Record, RecordKind};
use crate::model::{Effect, Type};
use crate::model::{decode_element, decode_head, encode_element, encode_head};
use crate::raft::{Member, Membership};
use crate::resp::{Limits, Reply, RequestReader};
use bytes::{Bytes, BytesMut};
use flotilla_topology::ids::{ClusterId, ReplicaId};
use flotilla_topology::stamp::Hlc;
use std::collections::{BTreeMap, BTreeSet};

/// All formats that cross a border between processes and are read by this crate.
pub fn targets() -> Vec<Target> {
    let mut all = rows();
    all.extend([commands(), replies(), requests(), crate::eval::fuzz_target()]);
    all.extend(crate::group::fuzz::targets());
    all.extend(crate::raft::fuzz::targets());
    all.extend(crate::transport::fuzz::targets());
    all
}

fn rows() -> Vec<Target> {
    let effect = |effect: &Effect| {
        let mut out = Encoder::new();
        effect.to_wire(&mut out);
        out.into_bytes()
    };
    let read_effect = |bytes: &Bytes| whole(bytes, Effect::from_wire);
    let read_meta = |bytes: &Bytes| whole(bytes, GroupMeta::decode);
    let meta = |meta: &GroupMeta| {
        let mut out = Encoder::new();
        meta.encode(&mut out);
        out.into_bytes()
    };
    let record = |record: &Record| Bytes::from(record.encode());
    vec![
        Target::new("head row", sample::heads(), decode_head, encode_head),
        Target::new("element row", sample::elements(), decode_element, encode_element),
        Target::new("row key", row_keys(), |bytes| keys::decode(bytes), encode_row_key),
        Target::new("effect", sample::effects(), read_effect, effect),
        Target::new("loser row", losers(), LoserRow::decode, LoserRow::encode).sealed(),
        Target::new("group meta", vec![group_meta()], read_meta, meta),
        Target::new("log record", records(), Record::decode, record).sealed(),
    ]
}

/// Reads a value that must be all of the bytes.
fn whole<T>(
    bytes: &Bytes,
    take: impl FnOnce(&mut Decoder<'_>) -> Result<T, DecodeError>,
) -> Result<T, DecodeError> {
    let mut input = Decoder::shared(bytes);
    let value = take(&mut input)?;
    input.finish()?;
    Ok(value)
}

fn row_keys() -> Vec<RowKey> {
    let (slot, key) = (sample::SLOT, Bytes::from_static(b"\0a\0\xFFkey"));
    let name = Bytes::from_static(b"na\0me");
    let (origin, group) = (sample::ORIGIN, sample::GROUP);
    let garbage = |element| RowKey::Garbage { at: Hlc(88), slot, key: key.clone(), element };
    vec![
        RowKey::Head { slot, key: key.clone() },
        RowKey::Element { slot, key: key.clone(), ty: Type::Hash, name: name.clone() },
        RowKey::Expiry { at: 99, slot, key: key.clone() },
        garbage(None),
        garbage(Some((Type::Hash, name))),
        RowKey::Merge { origin, group },
        RowKey::Cursor { origin, group },
        RowKey::LinkFloor { peer: ClusterId(3) },
        RowKey::Loser { number: 7 },
        RowKey::Other { kind: keys::LIVE },
    ]
}

fn encode_row_key(key: &RowKey) -> Bytes {
    match key {
        RowKey::Head { slot, key } => keys::head(*slot, key),
        RowKey::Element { slot, key, ty, name } => keys::element(*slot, key, *ty, name),
        RowKey::Expiry { at, slot, key } => keys::expiry(*at, *slot, key),
        RowKey::Garbage { at, slot, key, element } => {
            let element = element.as_ref().map(|(ty, name)| (*ty, &name[..]));
            keys::garbage(*at, *slot, key, element)
        }
        RowKey::Merge { origin, group } => keys::merge(*origin, *group),
        RowKey::Cursor { origin, group } => keys::cursor(*origin, *group),
        RowKey::LinkFloor { peer } => keys::link_floor(*peer),
        RowKey::Loser { number } => keys::loser(*number),
        RowKey::Other { kind } => keys::single(*kind),
    }
}

fn losers() -> Vec<LoserRow> {
    let loser = |kind: &LoserKind| Loser {
        kind: *kind,
        key: Bytes::from_static(b"key"),
        element: Bytes::from_static(b"field"),
        lost: sample::stamp(4, 1),
        won: sample::stamp(5, 2),
        value: Bytes::from_static(b"lost"),
    };
    LoserKind::ALL.iter().map(|kind| LoserRow { at: Hlc(77), loser: loser(kind) }).collect()
}

/// A membership while its voters change.
pub(crate) fn membership() -> Membership {
    let members = BTreeMap::from([
        (ReplicaId(1), Member::node("n1")),
        (ReplicaId(200), Member::node("n2")),
        (ReplicaId(9), Member::syncer("s")),
    ]);
    let configs =
        vec![BTreeSet::from([ReplicaId(1)]), BTreeSet::from([ReplicaId(1), ReplicaId(200)])];
    Membership { log_id: sample::AT, configs, members }
}

fn group_meta() -> GroupMeta {
    GroupMeta {
        membership: membership(),
        applied: sample::AT,
        fence: sample::FENCE,
        clock: Hlc(99),
        own: sample::stamp(9, 1),
        ..GroupMeta::new(TabletId(3), ReplicaId(4))
    }
}

fn records() -> Vec<Record> {
    let record = |kind, payload| Record { id: sample::AT, kind, payload };
    vec![
        record(RecordKind::Blank, Bytes::new()),
        record(RecordKind::Normal, Bytes::from_static(b"rows")),
        record(RecordKind::Membership, Bytes::from_static(b"members")),
    ]
}

/// Requests of clients, as forwarded between nodes.
pub(crate) fn sample_commands() -> Vec<Command> {
    let lines = ["PING", "SET key value EX 10", "MGET a b c", "HSET h f v g w", "MSET a 1 b 2"];
    let parse = |line: &str| {
        let args = line.split(' ').map(|word| Bytes::copy_from_slice(word.as_bytes()));
        Command::parse(args.collect()).ok()
    };
    lines.into_iter().filter_map(parse).collect()
}

fn commands() -> Target {
    let encode = |command: &Command| {
        let mut out = Encoder::new();
        command.to_wire(&mut out);
        out.into_bytes()
    };
    Target::new(
        "forwarded command",
        sample_commands(),
        |bytes| whole(bytes, Command::from_wire),
        encode,
    )
}

/// Replies of every kind.
pub(crate) fn sample_replies() -> Vec<Reply> {
    let bulk = || Reply::bulk("bulk");
    vec![
        Reply::Ok,
        Reply::status("PONG"),
        Reply::error("ERR no"),
        Reply::Int(i64::MIN),
        bulk(),
        Reply::Null,
        Reply::NullArray,
        Reply::Array(vec![Reply::Array(vec![bulk(), Reply::Array(Vec::new())]), Reply::Int(300)]),
        Reply::Map(vec![(bulk(), Reply::Double(1.5)), (Reply::Bool(true), Reply::Null)]),
        Reply::Set(vec![bulk(), bulk()]),
        Reply::Double(f64::NAN),
        Reply::Bool(false),
        Reply::Verbatim(Bytes::from_static(b"text")),
        Reply::Push(vec![bulk()]),
        Reply::Pairs(vec![(bulk(), Reply::Int(1)), (bulk(), Reply::Null)]),
    ]
}

/// Not a number is not equal to itself: bytes are compared.
fn replies() -> Target {
    let encode = |reply: &Reply| {
        let mut out = Encoder::new();
        reply.to_wire(&mut out);
        out.into_bytes()
    };
    let corpus = sample_replies().iter().map(encode).collect();
    Target::of_bytes("forwarded reply", corpus, move |bytes| {
        whole(bytes, Reply::from_wire).map(|reply| encode(&reply))
    })
}

type Requests = Vec<Vec<Bytes>>;

/// What clients send. It comes in pieces, which must not matter.
fn requests() -> Target {
    let request = |line: &str| line.split(' ').map(|word| Bytes::from(word.to_owned())).collect();
    let lines = ["PING", "SET key value", "GET  key", "SET a b SET c d EX 9 KEEPTTL x y z 1 2 3"];
    let one = lines.iter().map(|line| vec![request(line)]);
    let values = one.chain([lines.iter().map(|line| request(line)).collect()]).collect();
    Target::new("client requests", values, read_requests, write_requests)
}

fn write_requests(requests: &Requests) -> Bytes {
    let mut out = Vec::new();
    for request in requests {
        out.extend_from_slice(format!("*{}\r\n", request.len()).as_bytes());
        for arg in request {
            out.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
            out.extend_from_slice(arg);
            out.extend_from_slice(b"\r\n");
        }
    }
    out.into()
}

/// The requests at the front of the bytes; refused if there is none.
fn read_requests(bytes: &Bytes) -> Result<Requests, DecodeError> {
    let (whole, error) = read_pieces(&[bytes]);
    let cut = crc32c::crc32c(bytes) as usize % (bytes.len() + 1);
    let pieces = read_pieces(&[&bytes[..cut], &bytes[cut..]]);
    assert_eq!((&whole, &error), (&pieces.0, &pieces.1), "cut at byte {cut}");
    match whole.is_empty() {
        true => Err(DecodeError { expected: "a request", offset: 0 }),
        false => Ok(whole),
    }
}

fn read_pieces(pieces: &[&[u8]]) -> (Requests, Option<String>) {
    let (mut reader, mut buffer) = (RequestReader::new(Limits::default()), BytesMut::new());
    let mut requests = Requests::new();
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            match reader.next(&mut buffer) {
                Ok(Some(request)) => requests.push(request),
                Ok(None) => break,
                Err(error) => return (requests, Some(error.to_string())),
            }
        }
    }
    (requests, None)
}
