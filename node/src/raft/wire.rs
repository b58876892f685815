//! Raft messages as bytes.
//!
//! Every message begins with the format's version, the group, the replica that it is for and the
//! replica that it is from; a replica id is one tenure in one group, so what was meant for a former
//! tenure on the same node is refused. Answers begin with the version. The transport carries the
//! kind, and keeps bytes whole; snapshot chunks carry a checksum of their own, since they rest in
//! memory on both sides before they reach a disk.

use super::config::{C, Entry, Vote};
use super::convert::{self, log_id, put_vote, raft_log_id, take_vote};
use super::types::Applied;
use crate::codec::{DecodeError, Decoder, Encoder, unseal_bytes};
use crate::log::{Record, RecordKind};
use crate::transport::kinds;
use bytes::Bytes;
use flotilla_topology::ids::{GroupId, ReplicaId};
use openraft::raft::{
    AppendEntriesRequest, StreamAppendError, StreamAppendResult, TransferLeaderError,
    TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};

pub(super) const VERSION: u8 = 1;

/// Entries in one message, at most: what a reader accepts, above what a sender sends.
const ENTRIES_MAX: usize = 16 << 10;
/// Bytes of one entry, at most: the transport's frame limit is above it.
const ENTRY_BYTES_MAX: usize = 64 << 20;
/// Bytes of one snapshot chunk, with some room above [`super::CHUNK_BYTES_MAX`].
const CHUNK_BYTES_MAX: usize = 2 * super::CHUNK_BYTES_MAX;

type Decoded<T> = Result<T, DecodeError>;

/// Where a message goes and where it comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) group: GroupId,
    pub(super) to: ReplicaId,
    pub(super) from: ReplicaId,
}

impl Address {
    fn start(&self, capacity: usize) -> Encoder {
        let mut out = Encoder::with_capacity(capacity + 32);
        out.put_u8(VERSION);
        out.put_group(self.group);
        out.put_replica(self.to);
        out.put_replica(self.from);
        out
    }

    /// Reads the beginning of any message.
    pub(super) fn take(input: &mut Decoder<'_>) -> Decoded<Address> {
        input.version(VERSION)?;
        Ok(Address { group: input.group()?, to: input.replica()?, from: input.replica()? })
    }
}

/// The group that a message is for, so that it can be handed to the right one.
pub fn group_of(payload: &Bytes) -> Result<GroupId, DecodeError> {
    Address::take(&mut Decoder::new(payload)).map(|address| address.group)
}

fn start_answer() -> Encoder {
    let mut out = Encoder::with_capacity(32);
    out.put_u8(VERSION);
    out
}

fn answer(bytes: &Bytes) -> Decoded<Decoder<'_>> {
    let mut input = Decoder::shared(bytes);
    input.version(VERSION)?;
    Ok(input)
}

/// An append: the stream it belongs to and its place in it (stream 0: it stands alone), vote,
/// previous entry, commit position, number of entries, each entry's kind, position and payload.
pub(super) struct Append {
    pub(super) stream: u64,
    pub(super) seq: u64,
    pub(super) request: AppendEntriesRequest<C>,
}

impl Append {
    pub(super) fn encode(self, address: &Address) -> Bytes {
        let records: Vec<Record> = self.request.entries.into_iter().map(convert::record).collect();
        let mut out = address.start(64 + records.iter().map(Record::bytes).sum::<usize>());
        out.put_u64(self.stream);
        out.put_varint(self.seq);
        put_vote(&mut out, &self.request.vote);
        out.put_log_id(log_id(self.request.prev_log_id.as_ref()));
        out.put_log_id(log_id(self.request.leader_commit.as_ref()));
        out.put_varint(records.len() as u64);
        for record in &records {
            out.put_u8(record.kind.to_byte());
            out.put_log_id(record.id);
            out.put_bytes(&record.payload);
        }
        out.into_bytes()
    }

    /// Reads what stands behind the address.
    pub(super) fn take(mut input: Decoder<'_>) -> Decoded<Append> {
        let (stream, seq) = (input.u64()?, input.varint()?);
        let vote = take_vote(&mut input)?;
        let prev_log_id = raft_log_id(input.log_id()?);
        let leader_commit = raft_log_id(input.log_id()?);
        let count = input.count(ENTRIES_MAX, 4)?;
        let mut entries = Vec::with_capacity(count);
        let before = log_id(prev_log_id.as_ref()).index;
        for place in 1..=count as u64 {
            let (entry, index) = take_entry(&mut input)?;
            if before.checked_add(place) != Some(index) {
                return Err(input.error("entries without a gap"));
            }
            entries.push(entry);
        }
        input.finish()?;
        let request = AppendEntriesRequest { vote, prev_log_id, entries, leader_commit };
        Ok(Append { stream, seq, request })
    }
}

fn take_entry(input: &mut Decoder<'_>) -> Decoded<(Entry, u64)> {
    let wrong = input.error("the kind of an entry, 0 to 2");
    let kind = RecordKind::from_byte(input.u8()?).ok_or(wrong)?;
    let id = input.log_id()?;
    let payload = input.bytes(ENTRY_BYTES_MAX)?;
    Ok((convert::entry(Record { id, kind, payload })?, id.index))
}

/// 0 and how far the logs match; 1 and the entry that conflicts; 2 and a newer vote.
pub(super) fn encode_append_answer(result: &StreamAppendResult<C>) -> Bytes {
    let mut out = start_answer();
    match result {
        Ok(matching) => {
            out.put_u8(0);
            out.put_log_id(log_id(matching.as_ref()));
        }
        Err(StreamAppendError::Conflict(at)) => {
            out.put_u8(1);
            out.put_log_id(log_id(Some(at)));
        }
        Err(StreamAppendError::HigherVote(vote)) => {
            out.put_u8(2);
            put_vote(&mut out, vote);
        }
    }
    out.into_bytes()
}

pub(super) fn decode_append_answer(bytes: &Bytes) -> Decoded<StreamAppendResult<C>> {
    let mut input = answer(bytes)?;
    let wrong = input.error("an answer to an append, 0 to 2");
    let result = match input.u8()? {
        0 => Ok(raft_log_id(input.log_id()?)),
        1 => Err(StreamAppendError::Conflict(raft_log_id(input.log_id()?).ok_or(wrong)?)),
        2 => Err(StreamAppendError::HigherVote(take_vote(&mut input)?)),
        _ => return Err(wrong),
    };
    input.finish()?;
    Ok(result)
}

pub(super) fn encode_vote_request(address: &Address, request: &VoteRequest<C>) -> Bytes {
    let mut out = address.start(32);
    put_vote(&mut out, &request.vote);
    out.put_log_id(log_id(request.last_log_id.as_ref()));
    out.put_bool(request.leadership_transfer);
    out.into_bytes()
}

pub(super) fn take_vote_request(mut input: Decoder<'_>) -> Decoded<VoteRequest<C>> {
    let vote = take_vote(&mut input)?;
    let mut request = VoteRequest::new(vote, raft_log_id(input.log_id()?));
    request.leadership_transfer = input.bool()?;
    input.finish()?;
    Ok(request)
}

pub(super) fn encode_vote_answer(response: &VoteResponse<C>) -> Bytes {
    let mut out = start_answer();
    put_vote(&mut out, &response.vote);
    out.put_bool(response.vote_granted);
    out.put_log_id(log_id(response.last_log_id.as_ref()));
    out.into_bytes()
}

pub(super) fn decode_vote_answer(bytes: &Bytes) -> Decoded<VoteResponse<C>> {
    let mut input = answer(bytes)?;
    let vote = take_vote(&mut input)?;
    let granted = input.bool()?;
    let last = raft_log_id(input.log_id()?);
    input.finish()?;
    Ok(VoteResponse::new(vote, last, granted))
}

pub(super) fn encode_transfer(address: &Address, request: &TransferLeaderRequest<C>) -> Bytes {
    let mut out = address.start(32);
    put_vote(&mut out, request.from_leader());
    out.put_varint(*request.to_node_id());
    out.put_log_id(log_id(request.last_log_id()));
    out.into_bytes()
}

pub(super) fn take_transfer(mut input: Decoder<'_>) -> Decoded<TransferLeaderRequest<C>> {
    let from = take_vote(&mut input)?;
    let to = input.varint()?;
    let last = raft_log_id(input.log_id()?);
    input.finish()?;
    Ok(TransferLeaderRequest::new(from, to, last))
}

/// 0; or 1 and two votes; or 2 and two positions: expected, actual.
pub(super) fn encode_transfer_answer(response: &TransferLeaderResponse<C>) -> Bytes {
    let mut out = start_answer();
    match response {
        Ok(()) => out.put_u8(0),
        Err(TransferLeaderError::VoteChanged { expected, actual }) => {
            out.put_u8(1);
            put_vote(&mut out, expected);
            put_vote(&mut out, actual);
        }
        Err(TransferLeaderError::LogNotFlushed { expected, actual }) => {
            out.put_u8(2);
            out.put_log_id(log_id(expected.as_ref()));
            out.put_log_id(log_id(actual.as_ref()));
        }
    }
    out.into_bytes()
}

pub(super) fn decode_transfer_answer(bytes: &Bytes) -> Decoded<TransferLeaderResponse<C>> {
    let mut input = answer(bytes)?;
    let wrong = input.error("an answer to a transfer, 0 to 2");
    let response = match input.u8()? {
        0 => Ok(()),
        1 => Err(TransferLeaderError::VoteChanged {
            expected: take_vote(&mut input)?,
            actual: take_vote(&mut input)?,
        }),
        2 => Err(TransferLeaderError::LogNotFlushed {
            expected: raft_log_id(input.log_id()?),
            actual: raft_log_id(input.log_id()?),
        }),
        _ => return Err(wrong),
    };
    input.finish()?;
    Ok(response)
}

/// A part of a snapshot transfer. All parts name the transfer, so that a late one is not taken for
/// one of the next transfer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum SnapshotPart {
    /// Vote and position. Sent again to ask how far the receiver is.
    Begin { transfer: u64, vote: Vote, applied: Applied },
    /// Chunk number `seq`, counted from 0; checksum at the end.
    Chunk { transfer: u64, seq: u64, bytes: Bytes },
    /// There were so many chunks.
    End { transfer: u64, vote: Vote, chunks: u64 },
}

impl SnapshotPart {
    pub(super) fn kind(&self) -> u16 {
        match self {
            SnapshotPart::Begin { .. } => kinds::SNAPSHOT_BEGIN,
            SnapshotPart::Chunk { .. } => kinds::SNAPSHOT_CHUNK,
            SnapshotPart::End { .. } => kinds::SNAPSHOT_END,
        }
    }

    pub(super) fn transfer(&self) -> u64 {
        match self {
            SnapshotPart::Begin { transfer, .. }
            | SnapshotPart::Chunk { transfer, .. }
            | SnapshotPart::End { transfer, .. } => *transfer,
        }
    }

    pub(super) fn encode(&self, address: &Address) -> Bytes {
        match self {
            SnapshotPart::Begin { transfer, vote, applied } => {
                let mut out = address.start(256);
                out.put_u64(*transfer);
                put_vote(&mut out, vote);
                convert::put_applied(&mut out, applied);
                out.into_bytes()
            }
            SnapshotPart::Chunk { transfer, seq, bytes } => {
                let mut out = address.start(bytes.len());
                let start = out.len();
                out.put_u64(*transfer);
                out.put_varint(*seq);
                out.put_bytes(bytes);
                out.seal(start);
                out.into_bytes()
            }
            SnapshotPart::End { transfer, vote, chunks } => {
                let mut out = address.start(32);
                out.put_u64(*transfer);
                put_vote(&mut out, vote);
                out.put_varint(*chunks);
                out.into_bytes()
            }
        }
    }

    /// Reads what stands behind the address in a message of that kind.
    pub(super) fn take(kind: u16, mut input: Decoder<'_>) -> Decoded<SnapshotPart> {
        if kind == kinds::SNAPSHOT_CHUNK {
            let body = unseal_bytes(&input.rest_bytes())?;
            let mut input = Decoder::shared(&body);
            let (transfer, seq) = (input.u64()?, input.varint()?);
            let bytes = input.bytes(CHUNK_BYTES_MAX)?;
            input.finish()?;
            return Ok(SnapshotPart::Chunk { transfer, seq, bytes });
        }
        let transfer = input.u64()?;
        let vote = take_vote(&mut input)?;
        let part = if kind == kinds::SNAPSHOT_BEGIN {
            let applied = convert::take_applied(&mut input)?;
            SnapshotPart::Begin { transfer, vote, applied }
        } else {
            SnapshotPart::End { transfer, vote, chunks: input.varint()? }
        };
        input.finish()?;
        Ok(part)
    }
}

/// What the receiver of a snapshot says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum SnapshotAnswer {
    /// 0: the next chunk that it expects, and whether it wants any.
    Next { seq: u64, wants_data: bool },
    /// 1: it is done (installed, or refused for a newer vote), and its vote.
    Done(Vote),
    /// 2: it knows nothing of this transfer: begin again.
    Lost,
}

impl SnapshotAnswer {
    pub(super) fn encode(&self) -> Bytes {
        let mut out = start_answer();
        match self {
            SnapshotAnswer::Next { seq, wants_data } => {
                out.put_u8(0);
                out.put_varint(*seq);
                out.put_bool(*wants_data);
            }
            SnapshotAnswer::Done(vote) => {
                out.put_u8(1);
                put_vote(&mut out, vote);
            }
            SnapshotAnswer::Lost => out.put_u8(2),
        }
        out.into_bytes()
    }

    pub(super) fn decode(bytes: &Bytes) -> Decoded<SnapshotAnswer> {
        let mut input = answer(bytes)?;
        let wrong = input.error("an answer to a snapshot, 0 to 2");
        let answer = match input.u8()? {
            0 => SnapshotAnswer::Next { seq: input.varint()?, wants_data: input.bool()? },
            1 => SnapshotAnswer::Done(take_vote(&mut input)?),
            2 => SnapshotAnswer::Lost,
            _ => return Err(wrong),
        };
        input.finish()?;
        Ok(answer)
    }
}
