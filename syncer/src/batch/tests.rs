use super::*;
use flotilla_topology::slot::Slot;
use flotilla_topology::stamp::Hlc;
use proptest::prelude::*;

fn batch(effects: Vec<RemoteEffect>) -> Batch {
    Batch {
        origin: Origin { cluster: ClusterId(2), incarnation: Incarnation(1) },
        group: GroupId(7),
        slots: SlotRange { first: Slot(0), last: Slot(8191) },
        from: LogId { term: 1, index: 4 },
        to: LogId { term: 2, index: 6 },
        closed: Stamp { hlc: Hlc::from_ms(5), cluster: ClusterId(2) },
        fence: Fence { term: 2, next_seq: 2 },
        vector: vec![(ClusterId(1), Stamp { hlc: Hlc::from_ms(4), cluster: ClusterId(1) })],
        sent_ms: 9,
        born_ms: 5,
        effects,
    }
}

fn effect(index: u64, body: Vec<u8>) -> RemoteEffect {
    RemoteEffect { index, slot: Some(Slot(3)), body: Bytes::from(body) }
}

fn messages() -> Vec<Message> {
    let (group, cursor) = (GroupId(7), LogId { term: 2, index: 6 });
    vec![
        Message::Hello(Hello {
            oldest: 1,
            newest: 1,
            cluster: ClusterId(2),
            incarnation: Incarnation(1),
            layout: 3,
        }),
        Message::Ping { sent_ms: 300 },
        Message::Pong {
            sent_ms: 300,
            wall_ms: 301,
            knows: vec![(ClusterId(2), View::Counts), (ClusterId(3), View::Fenced)],
        },
        Message::Open { namespace: "default".into(), group, slots: SlotRange::ALL },
        Message::Cursor { group, cursor },
        Message::Batch(batch(vec![effect(5, b"ab".to_vec()), effect(6, vec![])])),
        Message::Ack { group, cursor, received_ms: 1, committed_ms: 2 },
        Message::Gap { group, cursor },
        Message::Parked { group, ahead_ms: 700 },
        Message::Refused { reason: "no".into() },
    ]
}

fn payload(message: &Message) -> Bytes {
    let frame = message.encode();
    let len = u32::from_be_bytes(frame[..4].try_into().unwrap()) as usize;
    assert_eq!(len, frame.len() - 4, "the length is that of what follows");
    frame.slice(4..)
}

#[test]
fn bytes_of_version_1_stay_as_they_are() {
    let hex: Vec<String> = messages()
        .iter()
        .map(|message| message.encode().iter().map(|byte| format!("{byte:02x}")).collect())
        .collect();
    assert_eq!(hex.join("\n"), include_str!("link.v1.hex").trim());
}

#[test]
fn what_was_written_is_read_back() {
    for message in messages() {
        assert_eq!(Message::decode(&payload(&message)), Ok(message));
    }
}

#[test]
fn a_body_is_compressed_when_that_pays_and_comes_back_the_same() {
    let dull = Message::Batch(batch(vec![effect(5, vec![7; 100_000])]));
    assert!(payload(&dull).len() < 1000);
    assert_eq!(Message::decode(&payload(&dull)), Ok(dull));
    let mut noise = 1u64;
    let mut next = || {
        noise = noise.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (noise >> 56) as u8
    };
    let noisy = Message::Batch(batch(vec![effect(5, (0..10_000).map(|_| next()).collect())]));
    assert!(payload(&noisy).len() < 10_200, "noise is sent as it is");
    assert_eq!(Message::decode(&payload(&noisy)), Ok(noisy));
}

#[test]
fn every_truncation_and_every_flipped_bit_is_refused() {
    for message in messages() {
        let whole = payload(&message);
        for len in 0..whole.len() {
            assert!(Message::decode(&whole.slice(..len)).is_err());
        }
        for bit in 0..whole.len() * 8 {
            let mut bad = whole.to_vec();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Message::decode(&Bytes::from(bad)).is_err());
        }
    }
}

#[test]
fn a_body_that_lies_about_its_length_is_refused() {
    let packed = zstd::bulk::compress(&[0; 5000], 1).unwrap();
    for len in [0, 4999, 5001, BODY_BYTES_MAX as u64 + 1, u64::MAX] {
        let mut out = Encoder::new();
        out.put_u8(BODY_ZSTD);
        out.put_varint(len);
        out.put_bytes(&packed);
        let bytes = out.into_bytes();
        assert!(take_body(&mut Decoder::shared(&bytes)).is_err(), "{len}");
    }
}

proptest! {
    #[test]
    fn garbage_behind_a_right_checksum_never_panics(
        kind in 0u8..12,
        garbage in proptest::collection::vec(any::<u8>(), 0..120),
    ) {
        let mut out = Encoder::new();
        out.put_u8(LINK_VERSION);
        out.put_u8(kind);
        out.put_raw(&garbage);
        out.seal(0);
        let _ = Message::decode(&out.into_bytes());
    }

    #[test]
    fn any_effects_survive(
        effects in proptest::collection::vec(
            (any::<u64>(), proptest::option::of(0u16..16_384), any::<Vec<u8>>()), 0..20),
    ) {
        let effects = effects
            .into_iter()
            .map(|(index, slot, body)| RemoteEffect {
                index,
                slot: slot.map(Slot),
                body: Bytes::from(body),
            })
            .collect();
        let message = Message::Batch(batch(effects));
        prop_assert_eq!(Message::decode(&payload(&message)), Ok(message));
    }
}
