//! Raft's bytes: golden, whole, cut, and garbage.

use crate::codec::{Decoder, Encoder};
use crate::raft::config::{C, Vote};
use crate::raft::convert;
use crate::raft::types::{Applied, Member, Membership};
use crate::raft::wire::{self, Address, Append, SnapshotAnswer, SnapshotPart};
use crate::transport::kinds;
use bytes::Bytes;
use flotilla_topology::ids::{GroupId, LogId, ReplicaId};
use openraft::raft::{
    AppendEntriesRequest, StreamAppendError, StreamAppendResult, TransferLeaderError,
    TransferLeaderRequest, VoteRequest, VoteResponse,
};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

const ADDRESS: Address = Address { group: GroupId(5), to: ReplicaId(2), from: ReplicaId(1) };

fn vote() -> Vote {
    Vote::new_committed(7, 1)
}

fn at(term: u64, index: u64) -> LogId {
    LogId { term, index }
}

fn membership() -> Membership {
    let member = |n: u64| (ReplicaId(n), Member::node(format!("n{n}")));
    let mut members: BTreeMap<_, _> = [member(1), member(2)].into();
    members.insert(ReplicaId(9), Member::syncer("s"));
    let voters: BTreeSet<_> = [ReplicaId(1), ReplicaId(2)].into();
    Membership { log_id: at(1, 3), configs: vec![voters], members }
}

fn request() -> AppendEntriesRequest<C> {
    use crate::log::{Record, RecordKind};
    let mut members = Encoder::new();
    convert::put_members(&mut members, &membership());
    let record =
        |index, kind, payload| convert::entry(Record { id: at(7, index), kind, payload }).unwrap();
    AppendEntriesRequest {
        vote: vote(),
        prev_log_id: convert::raft_log_id(at(6, 299)),
        leader_commit: convert::raft_log_id(at(6, 298)),
        entries: vec![
            record(300, RecordKind::Blank, Bytes::new()),
            record(301, RecordKind::Normal, Bytes::from_static(b"rows")),
            record(302, RecordKind::Membership, members.into_bytes()),
        ],
    }
}

fn append() -> Bytes {
    Append { stream: 3, seq: 4, request: request() }.encode(&ADDRESS)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn golden_bytes_of_version_1() {
    let golden = [
        "01050201",           // version, group, to, from
        "000000000000000304", // stream, place in it
        "07010106ab0206aa02", // vote, previous entry, committed
        "03",                 // three entries: kind, position, length, payload
        "0007ac0200",
        "0107ad0204726f7773",
        "0207ae0214", // members: version, one set of two voters, three members
        "010102010203",
        "0100026e310200026e3209010173", // each: id, role, name
    ];
    assert_eq!(hex(&append()), golden.concat());
    assert_eq!(hex(&convert::encode_vote(&vote())[..4]), "01070101");
    let next = SnapshotAnswer::Next { seq: 5, wants_data: true };
    assert_eq!(hex(&next.encode()), "01000501");
    let chunk = SnapshotPart::Chunk { transfer: 1, seq: 2, bytes: Bytes::from_static(b"ab") };
    let chunk = chunk.encode(&ADDRESS);
    assert_eq!(hex(&chunk[..chunk.len() - 4]), "01050201000000000000000102026162");
}

/// Reads a message of some kind behind its address; tells whether it was accepted.
fn accepts(kind: u16, bytes: &Bytes) -> bool {
    let mut input = Decoder::shared(bytes);
    if Address::take(&mut input).is_err() {
        return false;
    }
    match kind {
        kinds::RAFT_APPEND => Append::take(input).is_ok(),
        kinds::RAFT_VOTE => wire::take_vote_request(input).is_ok(),
        kinds::TRANSFER_LEADER => wire::take_transfer(input).is_ok(),
        kind => SnapshotPart::take(kind, input).is_ok(),
    }
}

fn messages() -> Vec<(u16, Bytes)> {
    let last = convert::raft_log_id(at(6, 5));
    let applied = Applied { log_id: at(6, 300), membership: membership() };
    let parts = [
        SnapshotPart::Begin { transfer: 8, vote: vote(), applied },
        SnapshotPart::Chunk { transfer: 8, seq: 0, bytes: Bytes::from_static(b"chunk") },
        SnapshotPart::End { transfer: 8, vote: vote(), chunks: 1 },
    ];
    let transfer = TransferLeaderRequest::new(vote(), 2, last);
    let mut messages = vec![
        (kinds::RAFT_APPEND, append()),
        (kinds::RAFT_VOTE, wire::encode_vote_request(&ADDRESS, &VoteRequest::new(vote(), last))),
        (kinds::TRANSFER_LEADER, wire::encode_transfer(&ADDRESS, &transfer)),
    ];
    messages.extend(parts.iter().map(|part| (part.kind(), part.encode(&ADDRESS))));
    messages
}

#[test]
fn messages_are_read_whole_or_not_at_all() {
    for (kind, bytes) in messages() {
        assert!(accepts(kind, &bytes), "kind {kind}");
        assert_eq!(wire::group_of(&bytes).unwrap(), GroupId(5));
        for len in 0..bytes.len() {
            assert!(!accepts(kind, &bytes.slice(..len)), "kind {kind}, {len} bytes");
        }
        let longer = Bytes::from([&bytes[..], &[0]].concat());
        assert!(!accepts(kind, &longer), "kind {kind} with a byte too much");
    }
}

#[test]
fn an_append_survives() {
    let bytes = append();
    let mut input = Decoder::shared(&bytes);
    assert_eq!(Address::take(&mut input).unwrap(), ADDRESS);
    let back = Append::take(input).unwrap();
    assert_eq!((back.stream, back.seq), (3, 4));
    assert_eq!(back.request.entries, request().entries);
    assert_eq!(back.request.vote, vote());
    assert_eq!(back.request.prev_log_id, request().prev_log_id);
    assert_eq!(back.request.leader_commit, request().leader_commit);
}

/// Nothing stands behind the last index that there is, and the reader must not count on.
#[test]
fn an_append_behind_the_last_index_is_refused() {
    let record = crate::log::Record { id: at(7, u64::MAX), ..Default::default() };
    let request = AppendEntriesRequest {
        prev_log_id: convert::raft_log_id(at(6, u64::MAX)),
        entries: vec![convert::entry(record).unwrap()],
        ..request()
    };
    let bytes = Append { stream: 0, seq: 0, request }.encode(&ADDRESS);
    assert!(!accepts(kinds::RAFT_APPEND, &bytes));
}

#[test]
fn an_append_with_a_gap_is_refused() {
    let mut request = request();
    request.entries.remove(1);
    let bytes = Append { stream: 0, seq: 0, request }.encode(&ADDRESS);
    assert!(!accepts(kinds::RAFT_APPEND, &bytes));
}

#[test]
fn a_damaged_chunk_is_refused() {
    let (kind, bytes) = messages().remove(4);
    assert_eq!(kind, kinds::SNAPSHOT_CHUNK);
    let start = bytes.len() - 5 - 1 - 1 - 8 - 4; // behind the address
    for at in start..bytes.len() {
        let mut bad = bytes.to_vec();
        bad[at] ^= 4;
        assert!(!accepts(kind, &Bytes::from(bad)), "byte {at}");
    }
}

#[test]
fn answers_survive() {
    let results: [StreamAppendResult<C>; 4] = [
        Ok(None),
        Ok(convert::raft_log_id(at(3, 4))),
        Err(StreamAppendError::Conflict(convert::raft_log_id(at(3, 1)).unwrap())),
        Err(StreamAppendError::HigherVote(vote())),
    ];
    for result in results {
        let bytes = wire::encode_append_answer(&result);
        assert_eq!(wire::decode_append_answer(&bytes).unwrap(), result);
        assert!(wire::decode_append_answer(&bytes.slice(..bytes.len() - 1)).is_err());
    }
    let answer = VoteResponse::new(vote(), convert::raft_log_id(at(1, 1)), true);
    assert_eq!(wire::decode_vote_answer(&wire::encode_vote_answer(&answer)).unwrap(), answer);
    let (expected, actual) = (vote(), Vote::new(9, 3));
    for answer in [
        Ok(()),
        Err(TransferLeaderError::VoteChanged { expected, actual }),
        Err(TransferLeaderError::LogNotFlushed {
            expected: convert::raft_log_id(at(2, 2)),
            actual: None,
        }),
    ] {
        let bytes = wire::encode_transfer_answer(&answer);
        assert_eq!(wire::decode_transfer_answer(&bytes).unwrap(), answer);
    }
    for answer in [SnapshotAnswer::Lost, SnapshotAnswer::Done(vote())] {
        assert_eq!(SnapshotAnswer::decode(&answer.encode()).unwrap(), answer);
    }
}

#[test]
fn positions_are_ours_from_1() {
    assert_eq!(convert::raft_log_id(LogId::default()), None);
    let first = convert::raft_log_id(at(0, 1)).unwrap();
    assert_eq!(first.index, 0);
    assert_eq!(convert::log_id(Some(&first)), at(0, 1));
    assert_eq!(convert::log_id(None), LogId::default());
}

#[test]
fn votes_and_members_survive_and_damage_is_noticed() {
    for vote in [vote(), Vote::new(1, 2)] {
        let bytes = convert::encode_vote(&vote);
        assert_eq!(convert::decode_vote(&bytes).unwrap(), vote);
        for at in 0..bytes.len() {
            let mut bad = bytes.to_vec();
            bad[at] ^= 1;
            assert!(convert::decode_vote(&bad).is_err(), "byte {at}");
        }
    }
    let applied = Applied { log_id: at(4, 5), membership: membership() };
    let meta = convert::snapshot_meta(&applied).unwrap();
    assert_eq!(convert::applied(&meta), applied);
    let empty = Applied { log_id: at(4, 5), membership: Membership::default() };
    assert_eq!(convert::applied(&convert::snapshot_meta(&empty).unwrap()), empty);
    let mut wrong = membership();
    wrong.configs[0].insert(ReplicaId(77));
    assert!(convert::raft_membership(&wrong).is_err(), "a voter that is no member");
}

proptest! {
    #[test]
    fn garbage_never_panics(bytes: Vec<u8>, kind in 1u16..9) {
        let bytes = Bytes::from(bytes);
        accepts(kind, &bytes);
        let _ = wire::decode_append_answer(&bytes);
        let _ = wire::decode_vote_answer(&bytes);
        let _ = wire::decode_transfer_answer(&bytes);
        let _ = SnapshotAnswer::decode(&bytes);
        let _ = convert::decode_vote(&bytes);
    }

    #[test]
    fn damage_never_panics(message in 0usize..6, at: usize, flip: u8) {
        let (kind, bytes) = messages().remove(message);
        let mut bad = bytes.to_vec();
        let at = at % bad.len();
        bad[at] ^= flip;
        accepts(kind, &Bytes::from(bad));
    }
}
