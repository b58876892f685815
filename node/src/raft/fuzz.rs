//! Raft's messages, as targets of [`crate::fuzz`].

use super::config::{C, Vote};
use super::convert;
use super::herd::{self, Listed};
use super::parking::Rest;
use super::types::Applied;
use super::wire::{self, Address, Append, SnapshotAnswer, SnapshotPart};
use crate::codec::{DecodeError, Decoder, Encoder, SEAL_BYTES};
use crate::fuzz::sample::{AT, GROUP};
use crate::fuzz::{Target, membership};
use crate::log::{Record, RecordKind};
use crate::transport::kinds;
use bytes::Bytes;
use flotilla_topology::ids::{GroupId, LogId, ReplicaId};
use openraft::raft::{
    AppendEntriesRequest, StreamAppendError, StreamAppendResult, TransferLeaderError,
    TransferLeaderRequest, VoteRequest, VoteResponse,
};

const ADDRESS: Address = Address { group: GROUP, to: ReplicaId(2), from: ReplicaId(1) };

/// All of them. Most are the library's types, so their bytes are compared.
pub(crate) fn targets() -> Vec<Target> {
    let mut all = requests();
    all.extend(snapshots());
    all.extend(answers());
    all.extend(listings());
    all
}

fn vote() -> Vote {
    Vote::new_committed(7, 1)
}

/// Reads an address, and what stands behind it.
fn addressed<T>(
    bytes: &Bytes,
    take: impl FnOnce(Decoder<'_>) -> Result<T, DecodeError>,
) -> Result<(Address, T), DecodeError> {
    let mut input = Decoder::shared(bytes);
    let address = Address::take(&mut input)?;
    Ok((address, take(input)?))
}

fn append() -> Bytes {
    let mut members = Encoder::new();
    convert::put_members(&mut members, &membership());
    let kinds = [
        (RecordKind::Blank, Bytes::new()),
        (RecordKind::Normal, Bytes::from_static(b"rows")),
        (RecordKind::Membership, members.into_bytes()),
    ];
    let entry = |(index, (kind, payload))| {
        convert::entry(Record { id: LogId { term: 3, index }, kind, payload }).ok()
    };
    let request = AppendEntriesRequest::<C> {
        vote: vote(),
        prev_log_id: convert::raft_log_id(AT),
        leader_commit: convert::raft_log_id(AT),
        entries: (AT.index + 1..).zip(kinds).filter_map(entry).collect(),
    };
    Append { stream: 3, seq: 400, request }.encode(&ADDRESS)
}

fn requests() -> Vec<Target> {
    let last = convert::raft_log_id(AT);
    let votes = [None, last]
        .map(|last| wire::encode_vote_request(&ADDRESS, &VoteRequest::new(vote(), last)));
    let transfer = wire::encode_transfer(&ADDRESS, &TransferLeaderRequest::new(vote(), 300, last));
    vec![
        Target::of_bytes("raft append", vec![append()], |bytes| {
            let (address, append) = addressed(bytes, Append::take)?;
            Ok(append.encode(&address))
        }),
        Target::of_bytes("raft vote", votes.to_vec(), |bytes| {
            let (address, request) = addressed(bytes, wire::take_vote_request)?;
            Ok(wire::encode_vote_request(&address, &request))
        }),
        Target::of_bytes("raft transfer", vec![transfer], |bytes| {
            let (address, request) = addressed(bytes, wire::take_transfer)?;
            Ok(wire::encode_transfer(&address, &request))
        }),
    ]
}

fn part(name: &'static str, kind: u16, values: Vec<SnapshotPart>) -> Target {
    Target::new(
        name,
        values.into_iter().map(|part| (ADDRESS, part)).collect(),
        move |bytes| addressed(bytes, |input| SnapshotPart::take(kind, input)),
        |(address, part)| part.encode(address),
    )
}

fn snapshots() -> Vec<Target> {
    let applied = Applied { log_id: AT, membership: membership() };
    let begin = SnapshotPart::Begin { transfer: 8, vote: vote(), applied };
    let end = SnapshotPart::End { transfer: 8, vote: vote(), chunks: 300 };
    let chunk = |bytes| SnapshotPart::Chunk { transfer: 8, seq: 300, bytes };
    let chunks = vec![chunk(Bytes::from_static(b"rows")), chunk(Bytes::new())];
    // The seal of a chunk begins behind the address: it is put on for each reading.
    let address = ADDRESS.bytes();
    let sealed = move |bytes: &Bytes| {
        let mut out = Encoder::from(address.to_vec());
        let start = out.len();
        out.put_raw(bytes);
        out.seal(start);
        addressed(&out.into_bytes(), |input| SnapshotPart::take(kinds::SNAPSHOT_CHUNK, input))
    };
    let skipped = ADDRESS.bytes().len();
    let encode = move |(address, part): &(Address, SnapshotPart)| {
        let whole = part.encode(address);
        whole.slice(skipped..whole.len() - SEAL_BYTES)
    };
    let values = chunks.into_iter().map(|part| (ADDRESS, part)).collect();
    vec![
        part("snapshot begin", kinds::SNAPSHOT_BEGIN, vec![begin]),
        part("snapshot end", kinds::SNAPSHOT_END, vec![end]),
        Target::new("snapshot chunk", values, sealed, encode),
    ]
}

fn listings() -> Vec<Target> {
    let rest = Rest { term: AT.term, index: AT.index };
    let listed = Listed { address: ADDRESS, rest };
    let encode = |listed: &Vec<Listed>| herd::encode_listing(listed.iter().copied());
    let answers = vec![vec![], vec![GROUP, GROUP]];
    vec![
        Target::new("listing", vec![vec![], vec![listed; 2]], herd::decode_listing, encode),
        Target::new("listing answer", answers, herd::decode_disagreed, |groups: &Vec<GroupId>| {
            herd::encode_disagreed(groups)
        }),
    ]
}

fn answers() -> Vec<Target> {
    let at = convert::raft_log_id(AT);
    let conflict = at.map(|at| Err(StreamAppendError::Conflict(at)));
    let appended: Vec<StreamAppendResult<C>> =
        [Ok(at), Ok(None), Err(StreamAppendError::HigherVote(vote()))]
            .into_iter()
            .chain(conflict)
            .collect();
    let changed = TransferLeaderError::VoteChanged { expected: vote(), actual: vote() };
    let unflushed = TransferLeaderError::LogNotFlushed { expected: at, actual: None };
    let transferred = [Ok(()), Err(changed), Err(unflushed)];
    let snapshot = vec![
        SnapshotAnswer::Next { seq: 300, wants_data: true },
        SnapshotAnswer::Done(vote()),
        SnapshotAnswer::Lost,
    ];
    let voted = [VoteResponse::new(vote(), at, true), VoteResponse::new(vote(), None, false)];
    let stored = convert::encode_vote(&vote());
    vec![
        Target::of_bytes(
            "append answer",
            appended.iter().map(wire::encode_append_answer).collect(),
            |bytes| wire::decode_append_answer(bytes).map(|a| wire::encode_append_answer(&a)),
        ),
        Target::of_bytes(
            "vote answer",
            voted.iter().map(wire::encode_vote_answer).collect(),
            |bytes| wire::decode_vote_answer(bytes).map(|a| wire::encode_vote_answer(&a)),
        ),
        Target::of_bytes(
            "transfer answer",
            transferred.iter().map(wire::encode_transfer_answer).collect(),
            |bytes| wire::decode_transfer_answer(bytes).map(|a| wire::encode_transfer_answer(&a)),
        ),
        Target::new("snapshot answer", snapshot, SnapshotAnswer::decode, SnapshotAnswer::encode),
        Target::of_bytes("stored vote", vec![stored], |bytes| {
            convert::decode_vote(bytes).map(|vote| convert::encode_vote(&vote))
        })
        .sealed(),
    ]
}

impl Address {
    /// What every message to it begins with.
    fn bytes(&self) -> Bytes {
        let end = SnapshotPart::End { transfer: 0, vote: vote(), chunks: 0 }.encode(self);
        let mut input = Decoder::new(&end);
        let len = Address::take(&mut input).map_or(0, |_| input.offset());
        end.slice(..len)
    }
}
