//! The codec against itself: every value survives, no byte string panics, one value has one form.

use super::*;
use flotilla_topology::ids::{ClusterId, Incarnation, LogId, Origin};
use flotilla_topology::slot::{SLOT_COUNT, Slot, SlotRange};
use flotilla_topology::stamp::{Hlc, Stamp};
use proptest::prelude::*;

fn encoded(put: impl FnOnce(&mut Encoder)) -> Vec<u8> {
    let mut out = Encoder::new();
    put(&mut out);
    out.into_vec()
}

/// Every prefix of `bytes` is refused, and all of them give `value` and nothing else.
fn check<'a, T: PartialEq + std::fmt::Debug>(
    bytes: &'a [u8],
    value: &T,
    take: impl Fn(&mut Decoder<'a>) -> Result<T, DecodeError>,
) {
    let mut input = Decoder::new(bytes);
    assert_eq!(&take(&mut input).unwrap(), value);
    input.finish().unwrap();
    for len in 0..bytes.len() {
        assert!(take(&mut Decoder::new(&bytes[..len])).is_err(), "{len} bytes of {bytes:?}");
    }
}

#[test]
fn golden_bytes() {
    let bytes = encoded(|out| {
        out.put_varint(300);
        out.put_signed(-3);
        out.put_signed128(i128::from(i64::MIN));
        out.put_bytes(b"key");
        out.put_option(Some(7u64), Encoder::put_varint);
        out.put_option(None::<u64>, Encoder::put_varint);
        out.put_stamp(Stamp { hlc: Hlc(0x0102_0304_0506_0708), cluster: ClusterId(9) });
        out.put_log_id(LogId { term: 2, index: 129 });
        out.put_origin(Origin { cluster: ClusterId(3), incarnation: Incarnation(1) });
        out.put_slots(SlotRange::ALL);
        out.seal(0);
    });
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(
        hex,
        "ac0205ffffffffffffffffff01036b65790107000102030405060708090281010301\
         00003fff75ee378d"
    );
}

#[test]
fn a_number_has_one_form() {
    let wrong: [&[u8]; 5] = [
        &[0x80, 0x00],
        &[0xFF, 0x80, 0x00],
        &[0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x02],
        &[0x80; 11],
        &[],
    ];
    for bytes in wrong {
        let error = Decoder::new(bytes).varint().unwrap_err();
        assert_eq!(error.to_string(), "expected a varint of 64 bits at byte 0");
    }
    check(&encoded(|out| out.put_varint(u64::MAX)), &u64::MAX, Decoder::varint);
    check(&encoded(|out| out.put_varint128(u128::MAX)), &u128::MAX, Decoder::varint128);
    let mut too_wide = vec![0xFF; 18];
    too_wide.push(0x04);
    assert!(Decoder::new(&too_wide).varint128().is_err());
    assert!(Decoder::new(&[2]).bool().is_err());
    assert!(Decoder::new(&encoded(|out| out.put_varint(1 << 32))).varint32().is_err());
}

#[test]
fn limits_hold_before_anything_is_taken() {
    let long = encoded(|out| out.put_bytes(&[0; 100]));
    assert_eq!(Decoder::new(&long).slice(99).unwrap_err().offset, 0);
    let lies = encoded(|out| out.put_varint(u64::MAX));
    assert!(Decoder::new(&lies).slice(usize::MAX).is_err());
    assert!(Decoder::new(&lies).count(usize::MAX, 1).is_err());
    let items = encoded(|out| {
        out.put_varint(3);
        out.put_raw(&[0; 6]);
    });
    assert_eq!(Decoder::new(&items).count(3, 2), Ok(3));
    assert!(Decoder::new(&items).count(2, 2).is_err());
    assert!(Decoder::new(&items).count(3, 3).is_err());
    assert!(Decoder::new(&[0x40, 0x00]).slot().is_err());
    assert!(Decoder::new(&[0, 2, 0, 1]).slots().is_err());
    assert!(Decoder::new(&[2]).version(1).is_err());
    assert!(Decoder::new(&[0]).version(1).is_err());
    assert_eq!(Decoder::new(&[1]).version(2), Ok(1));
}

#[test]
fn shared_bytes_are_not_copied() {
    let all = Bytes::from(encoded(|out| out.put_bytes(b"value")));
    let part = Decoder::shared(&all).bytes(5).unwrap();
    assert_eq!(part.as_ptr(), all[1..].as_ptr());
    assert_eq!(Decoder::new(&all).bytes(5).unwrap(), part);
}

#[test]
fn the_seal_is_crc32c() {
    let sealed = encoded(|out| {
        out.put_raw(b"123456789");
        out.seal(0);
    });
    assert_eq!(sealed[9..], [0xE3, 0x06, 0x92, 0x83]); // check value from RFC 3720
}

#[test]
fn a_broken_seal_is_refused() {
    let sealed = encoded(|out| {
        out.put_u8(0xEE); // stands before the sealed part
        out.put_bytes(b"payload");
        out.seal(1);
    });
    let sealed = Bytes::from(sealed).slice(1..);
    assert_eq!(unseal_bytes(&sealed).unwrap(), &b"\x07payload"[..]);
    for at in 0..sealed.len() {
        let mut bad = sealed.to_vec();
        bad[at] ^= 1;
        assert!(unseal(&bad).is_err());
        assert!(unseal(&sealed[..at]).is_err());
    }
}

proptest! {
    #[test]
    fn numbers_survive(a: u64, b: i64, c: i128, d: u32, e: u16, shift in 0u32..64) {
        let a = a >> shift;
        check(&encoded(|out| out.put_varint(a)), &a, Decoder::varint);
        check(&encoded(|out| out.put_signed(b >> shift)), &(b >> shift), Decoder::signed);
        check(&encoded(|out| out.put_signed128(c)), &c, Decoder::signed128);
        check(&encoded(|out| out.put_u64(a)), &a, Decoder::u64);
        check(&encoded(|out| out.put_u32(d)), &d, Decoder::u32);
        check(&encoded(|out| out.put_u16(e)), &e, Decoder::u16);
    }

    #[test]
    fn words_survive(hlc: u64, cluster: u8, life: u32, term: u64, index: u64, s in 0..SLOT_COUNT) {
        let stamp = Stamp { hlc: Hlc(hlc), cluster: ClusterId(cluster) };
        check(&encoded(|out| out.put_stamp(stamp)), &stamp, Decoder::stamp);
        let log_id = LogId { term, index };
        check(&encoded(|out| out.put_log_id(log_id)), &log_id, Decoder::log_id);
        let origin = Origin { cluster: ClusterId(cluster), incarnation: Incarnation(life) };
        check(&encoded(|out| out.put_origin(origin)), &origin, Decoder::origin);
        let slots = SlotRange { first: Slot(s / 2), last: Slot(s) };
        check(&encoded(|out| out.put_slots(slots)), &slots, Decoder::slots);
    }

    #[test]
    fn stamps_are_ordered_as_their_bytes(a: (u64, u8), b: (u64, u8)) {
        let stamp = |(hlc, cluster)| Stamp { hlc: Hlc(hlc), cluster: ClusterId(cluster) };
        let bytes = |stamp| encoded(|out| out.put_stamp(stamp));
        let (a, b) = (stamp(a), stamp(b));
        prop_assert_eq!(a.cmp(&b), bytes(a).cmp(&bytes(b)));
    }

    #[test]
    fn bytes_and_text_survive(bytes: Vec<u8>, text: String, some: bool) {
        check(&encoded(|out| out.put_bytes(&bytes)), &bytes, |i| i.slice(1 << 20).map(Vec::from));
        check(&encoded(|out| out.put_text(&text)), &text, |i| i.text(1 << 20).map(str::to_owned));
        let option = some.then_some(bytes);
        let put = encoded(|out| out.put_option(option.as_ref(), |out, b| out.put_bytes(b)));
        check(&put, &option, |i| i.option(|i| i.slice(1 << 20).map(Vec::from)));
    }

    #[test]
    fn garbage_never_panics(bytes: Vec<u8>, choices: Vec<u8>) {
        let shared = Bytes::from(bytes);
        let _ = unseal(&shared);
        let mut input = Decoder::shared(&shared);
        for choice in choices {
            let ok = match choice % 14 {
                0 => input.u8().is_ok(),
                1 => input.u16().is_ok(),
                2 => input.bool().is_ok(),
                3 => input.varint().is_ok(),
                4 => input.varint128().is_ok(),
                5 => input.signed128().is_ok(),
                6 => input.count(1000, 3).is_ok(),
                7 => input.bytes(1000).is_ok(),
                8 => input.text(1000).is_ok(),
                9 => input.option(Decoder::stamp).is_ok(),
                10 => input.log_id().is_ok(),
                11 => input.origin().is_ok(),
                12 => input.slots().is_ok(),
                _ => input.version(3).is_ok(),
            };
            if !ok {
                break;
            }
        }
        let _ = input.finish();
    }

    #[test]
    fn what_reads_back_writes_the_same_bytes(bytes: Vec<u8>) {
        let mut input = Decoder::new(&bytes);
        if let Ok(value) = input.varint128() {
            let used = input.offset();
            prop_assert_eq!(encoded(|out| out.put_varint128(value)), &bytes[..used]);
        }
    }
}
