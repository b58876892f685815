use super::*;
use flotilla_topology::ids::Incarnation;
use flotilla_topology::stamp::Hlc;
use proptest::prelude::*;

fn id(term: u64, index: u64) -> LogId {
    LogId { term, index }
}

fn stamp(ms: u64, cluster: u8) -> Stamp {
    Stamp { hlc: Hlc::from_ms(ms), cluster: ClusterId(cluster) }
}

fn batch() -> RemoteBatch {
    RemoteBatch {
        target: GroupId(7),
        origin: Origin { cluster: ClusterId(2), incarnation: Incarnation(3) },
        source_group: GroupId(300),
        source_slots: SlotRange { first: Slot(0), last: Slot(8191) },
        from: id(4, 10),
        to: id(5, 12),
        closed: stamp(9, 2),
        fence: Fence { term: 5, next_seq: 2 },
        vector: vec![(ClusterId(1), stamp(8, 1))],
        effects: vec![
            RemoteEffect { index: 11, slot: Some(Slot(258)), body: Bytes::from_static(b"ab") },
            RemoteEffect { index: 12, slot: None, body: Bytes::new() },
        ],
    }
}

fn floor() -> LinkFloor {
    LinkFloor {
        group: GroupId(1),
        peer: ClusterId(9),
        position: id(2, 3),
        fence: Fence { term: 2, next_seq: 4 },
        closed: stamp(5, 1),
        vector: vec![(ClusterId(9), stamp(6, 9))],
        merged: Some(3),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn bytes_of_version_1_stay_as_they_are() {
    assert_eq!(
        hex(&batch().encode()),
        concat!(
            "01070203ac0200001fff040a050c0000000000090000020502",
            "0101000000000008000001020b01020261620cffff00",
        )
    );
    assert_eq!(
        hex(&floor().encode()),
        "0101090203020400000000000500000101090000000000060000090103"
    );
    let gap = RemoteAnswer::Done(Verdict::Gap { cursor: id(1, 2) });
    assert_eq!(hex(&gap.encode()), "0100010102");
    let elsewhere = LeaderIs { node: Some("n1".into()), term: 6 };
    assert_eq!(hex(&FloorAnswer::NotLeader(elsewhere).encode()), "010101026e3106");
    assert_eq!(hex(&SeedRequest { group: GroupId(5) }.encode()), "0105");
}

#[test]
fn what_was_written_is_read_back() {
    assert_eq!(RemoteBatch::decode(&batch().encode()), Ok(batch()));
    assert_eq!(LinkFloor::decode(&floor().encode()), Ok(floor()));
    let seed = SeedAnswer::Done(Seed {
        floors: vec![floor(), floor()],
        start: LogId { term: 1, index: 4 },
    });
    assert_eq!(SeedAnswer::decode(&seed.encode()), Ok(seed));
    let cursors = CursorsAnswer::Done(vec![id(0, 0), id(1, u64::MAX)]);
    assert_eq!(CursorsAnswer::decode(&cursors.encode()), Ok(cursors));
    let asked = CursorsRequest {
        group: GroupId(1),
        origin: batch().origin,
        source_groups: vec![GroupId(0), GroupId(u32::MAX)],
    };
    assert_eq!(CursorsRequest::decode(&asked.encode()), Ok(asked));
}

#[test]
fn a_long_reason_is_cut_at_a_character() {
    let reason = "é".repeat(TEXT_BYTES_MAX);
    let answer = RemoteAnswer::Refused { reason };
    let Ok(Answer::Refused { reason }) = RemoteAnswer::decode(&answer.encode()) else {
        panic!("a refusal with a long reason must be readable");
    };
    assert_eq!(reason.len(), TEXT_BYTES_MAX);
}

#[test]
fn cut_bytes_and_unknown_versions_are_errors() {
    let whole = batch().encode();
    for len in 0..whole.len() {
        assert!(RemoteBatch::decode(&whole.slice(..len)).is_err(), "cut at {len}");
    }
    let mut newer = whole.to_vec();
    newer[0] = REMOTE_VERSION + 1;
    assert!(RemoteBatch::decode(&newer.into()).is_err());
}

proptest! {
    #[test]
    fn garbage_is_an_error_or_a_value_but_never_a_panic(
        mut bytes in proptest::collection::vec(any::<u8>(), 0..200),
        versioned in any::<bool>(),
    ) {
        if let (true, Some(first)) = (versioned, bytes.first_mut()) {
            *first = REMOTE_VERSION;
        }
        let shared = Bytes::from(bytes);
        let _ = RemoteBatch::decode(&shared);
        let _ = RemoteAnswer::decode(&shared);
        let _ = CursorsRequest::decode(&shared);
        let _ = CursorsAnswer::decode(&shared);
        let _ = LinkFloor::decode(&shared);
        let _ = SeedAnswer::decode(&shared);
    }

    #[test]
    fn flipped_bits_never_panic(at in 0usize..80, bit in 0u8..8) {
        let mut bytes = batch().encode().to_vec();
        let at = at % bytes.len();
        bytes[at] ^= 1 << bit;
        let _ = RemoteBatch::decode(&bytes.into());
    }
}
