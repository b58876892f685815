//! The laws of join, and that rows keep what they are given.

use super::{
    Claim, Count, Effect, Element, Expiry, Floor, Head, Parts, Register, Reset, Sum, Type,
};
use super::{decode_element, decode_head, effect_of, encode_element, encode_head};
use crate::codec::{Decoder, Encoder};
use crate::engine::keys;
use bytes::Bytes;
use flotilla_topology::ids::{ClusterId, Incarnation, Origin};
use flotilla_topology::slot::Slot;
use flotilla_topology::stamp::{Hlc, Stamp};
use proptest::prelude::*;

/// Few distinct stamps, so that equal ones meet often.
pub(crate) fn stamps() -> impl Strategy<Value = Stamp> {
    (1u64..8, 1u8..4).prop_map(|(ms, cluster)| stamp(ms, cluster))
}

pub(crate) fn stamp(ms: u64, cluster: u8) -> Stamp {
    Stamp { hlc: Hlc::from_ms(ms), cluster: ClusterId(cluster) }
}

fn types() -> impl Strategy<Value = Type> {
    prop_oneof![Just(Type::String), Just(Type::Hash)]
}

fn slots() -> impl Strategy<Value = Origin> {
    (1u8..4, 1u32..3).prop_map(|(cluster, life)| origin(cluster, life))
}

fn origin(cluster: u8, life: u32) -> Origin {
    Origin { cluster: ClusterId(cluster), incarnation: Incarnation(life) }
}

fn registers() -> impl Strategy<Value = Register> {
    let value = prop_oneof![Just(""), Just("5"), Just("-7"), Just("x")];
    (stamps(), proptest::option::of(value.prop_map(Bytes::from)))
        .prop_map(|(stamp, value)| Register { stamp, value })
}

fn sums() -> impl Strategy<Value = Sum> {
    (slots(), stamps(), stamps(), -3i128..4).prop_map(|(slot, a, b, sum)| Sum {
        slot,
        start: a.min(b),
        stamp: a.max(b),
        sum,
    })
}

fn resets() -> impl Strategy<Value = Reset> {
    (slots(), stamps(), stamps(), -3i128..4).prop_map(|(slot, a, b, sum)| Reset {
        slot,
        stamp: a.min(b),
        sum,
        by: a.max(b),
    })
}

pub(crate) fn elements() -> impl Strategy<Value = Element> {
    let sums = proptest::collection::vec(sums(), 0..4);
    let resets = proptest::collection::vec(resets(), 0..4);
    (proptest::option::of(registers()), sums, resets).prop_map(
        |(register, mut sums, mut resets)| {
            sums.sort_by_key(|sum| sum.slot);
            sums.dedup_by_key(|sum| sum.slot);
            resets.sort_by_key(|reset| reset.slot);
            resets.dedup_by_key(|reset| reset.slot);
            Element { register, resets, sums }
        },
    )
}

fn floors() -> impl Strategy<Value = Floor> {
    prop_oneof![
        Just(Floor::NONE),
        stamps().prop_map(Floor::below),
        stamps().prop_map(Floor::through)
    ]
}

pub(crate) fn heads() -> impl Strategy<Value = Head> {
    let claim = (stamps(), types()).prop_map(|(stamp, ty)| Claim { stamp, ty });
    let expiry = (stamps(), types(), 0u64..8, 0u64..3).prop_map(|(stamp, ty, at, low)| Expiry {
        stamp,
        ty,
        at,
        low,
    });
    let (claim, expiry) = (proptest::option::of(claim), proptest::option::of(expiry));
    let parts = (claim, floors(), expiry, elements(), 0u64..4);
    parts.prop_map(|(claim, floor, expiry, string, forgotten)| Head {
        claim,
        floor,
        expiry,
        string,
        count: None,
        forgotten,
    })
}

proptest! {
    #[test]
    fn element_join_commutes(a in elements(), b in elements()) {
        prop_assert_eq!(a.clone().join(b.clone()), b.join(a));
    }

    #[test]
    fn element_join_associates(a in elements(), b in elements(), c in elements()) {
        let left = a.clone().join(b.clone()).join(c.clone());
        prop_assert_eq!(left, a.join(b.join(c)));
    }

    #[test]
    fn element_join_repeats_without_effect(a in elements(), b in elements()) {
        prop_assert_eq!(a.clone().join(a.clone()), a.clone());
        let joined = a.join(b.clone());
        prop_assert_eq!(joined.clone().join(b), joined);
    }

    #[test]
    fn head_join_commutes(a in heads(), b in heads()) {
        prop_assert_eq!(a.clone().join(b.clone()), b.join(a));
    }

    #[test]
    fn head_join_associates(a in heads(), b in heads(), c in heads()) {
        let left = a.clone().join(b.clone()).join(c.clone());
        prop_assert_eq!(left, a.join(b.join(c)));
    }

    #[test]
    fn head_join_repeats_without_effect(a in heads(), b in heads()) {
        prop_assert_eq!(a.clone().join(a.clone()), a.clone());
        let joined = a.join(b.clone());
        prop_assert_eq!(joined.clone().join(b), joined);
    }

    /// What trimming forgets was hidden, and stays hidden.
    #[test]
    fn trimming_changes_nothing_that_can_be_seen(head in heads(), ms in 0u64..10) {
        let mut trimmed = head.clone();
        trimmed.trim();
        let floor = head.floor_at(ms);
        prop_assert_eq!(trimmed.floor_at(ms), floor);
        prop_assert_eq!(trimmed.deadline(ms), head.deadline(ms));
        prop_assert_eq!(trimmed.low(ms), head.low(ms));
        prop_assert_eq!(trimmed.string.value(floor), head.string.value(floor));
        prop_assert_eq!(trimmed.string.visible_stamp(floor), head.string.visible_stamp(floor));
    }

    #[test]
    fn a_value_is_there_iff_it_has_a_stamp(element in elements(), floor in floors()) {
        let value = element.value(floor);
        prop_assert_eq!(value.is_some(), element.exists(floor));
        prop_assert_eq!(value.is_some(), element.visible_stamp(floor).is_some());
    }

    #[test]
    fn rows_keep_what_they_are_given(mut head in heads(), live in 0u64..300, under in floors()) {
        prop_assert_eq!(decode_head(&encode_head(&head)).unwrap(), head.clone());
        head.count = Some(Count { live, under });
        prop_assert_eq!(decode_head(&encode_head(&head)).unwrap(), head.clone());
        let element = head.string;
        prop_assert_eq!(decode_element(&encode_element(&element)).unwrap(), element);
    }

    #[test]
    fn garbage_rows_are_errors(mut row in proptest::collection::vec(any::<u8>(), 0..60)) {
        let _ = (decode_head(&row.clone().into()), decode_element(&row.clone().into()));
        if let Some(version) = row.first_mut() {
            *version = 1;
        }
        let _ = (decode_head(&row.clone().into()), decode_element(&row.clone().into()));
        let _ = Effect::from_wire(&mut Decoder::new(&row));
    }

    /// The parts of a row, shipped and joined one by one, give the row.
    #[test]
    fn parts_together_are_the_row(head in heads(), element in elements()) {
        let key = keys::head(Slot(1), b"k");
        let mut all = Head::default();
        let mut resets = head.string.resets.clone();
        let by = head.string.register.as_ref().map(|register| register.stamp);
        resets.retain(|reset| Some(reset.by) == by);
        for part in [Parts::CLAIM, Parts::FLOOR, Parts::EXPIRY, Parts::REGISTER, Parts::SUM] {
            for slot in (1..4).flat_map(|cluster| [origin(cluster, 1), origin(cluster, 2)]) {
                let effect = effect_of(slot, &key, &encode_head(&head), part).unwrap();
                let Some(effect) = effect else { continue };
                prop_assert_eq!(through_wire(&effect), effect.clone());
                let Effect::Head { head: part, .. } = effect else { panic!("not of a head") };
                all = all.join(part);
            }
        }
        let string = Element { resets, ..head.string.clone() };
        // What was forgotten is each cluster's own.
        prop_assert_eq!(all, Head { string, forgotten: 0, ..head });
        let key = keys::element(Slot(1), b"k", Type::Hash, b"f");
        let parts = Parts::REGISTER | Parts::SUM;
        let effect = effect_of(origin(1, 1), &key, &encode_element(&element), parts).unwrap();
        if let Some(effect) = effect {
            prop_assert_eq!(through_wire(&effect), effect);
        }
    }
}

fn through_wire(effect: &Effect) -> Effect {
    let mut out = Encoder::new();
    effect.to_wire(&mut out);
    let bytes = out.into_bytes();
    let mut input = Decoder::shared(&bytes);
    let back = Effect::from_wire(&mut input).unwrap();
    input.finish().unwrap();
    back
}

#[test]
fn an_unsynced_string_costs_four_bytes() {
    let claim = Some(Claim { stamp: Stamp::ZERO, ty: Type::String });
    let string = Element::of(Stamp::ZERO, Bytes::from_static(b"v"));
    let head = Head { claim, string, ..Head::default() };
    assert_eq!(&encode_head(&head)[..], b"\x01\x01\x00\x05v");
}

#[test]
fn golden_rows() {
    let s = stamp(0x0102, 3);
    let claim = Some(Claim { stamp: s, ty: Type::String });
    let string = Element::of(s, Bytes::from_static(b"v"));
    let head = Head { claim, floor: Floor::below(s), string, ..Head::default() };
    assert_eq!(&encode_head(&head)[..], b"\x01\x01\x0B\0\0\0\0\x01\x02\0\0\x03\x05v");

    let expiry = Some(Expiry { stamp: stamp(1, 1), ty: Type::String, at: 300, low: 2 });
    let count = Some(Count { live: 5, under: Floor::NONE });
    let claim = Some(Claim { stamp: s, ty: Type::Hash });
    let head = Head { claim, expiry, count, ..Head::default() };
    let want =
        b"\x01\x02\xD1\0\0\0\0\x01\x02\0\0\x03\0\0\0\0\0\x01\0\0\x01\x01\xAC\x02\x02\x05\0\0";
    assert_eq!(&encode_head(&head)[..], want);

    let slot = origin(2, 1);
    let mut element = Element::default();
    element.add(slot, stamp(1, 2), -2, Floor::NONE);
    element.write(stamp(2, 2), None);
    let want = b"\x01\x1B\0\0\0\0\0\x02\0\0\x02\
        \x01\x02\x01\0\0\0\0\0\x01\0\0\x02\0\0\0\0\0\x01\0\0\x02\x03\
        \x01\x02\x01\0\0\0\0\0\x01\0\0\x02\x03\0\0\0\0\0\x02\0\0\x02";
    assert_eq!(&encode_element(&element)[..], want);
}

/// A counter under values: adds, absorbs, restarts.
#[test]
fn a_counter_absorbs_and_restarts() {
    let (a, b) = (origin(1, 1), origin(2, 1));
    let shown = |element: &Element| element.value(Floor::NONE).map(|v| v.to_vec());
    let mut element = Element::default();
    element.add(a, stamp(1, 1), 3, Floor::NONE);
    element.add(b, stamp(1, 2), 4, Floor::NONE);
    assert_eq!(shown(&element), Some(b"7".to_vec()));
    let mut ahead = element.clone(); // another cluster goes on counting
    ahead.add(b, stamp(3, 2), 10, Floor::NONE);
    element.write(stamp(2, 1), Some(Bytes::from_static(b"100")));
    assert_eq!(shown(&element), Some(b"100".to_vec()));
    element.add(a, stamp(4, 1), 1, Floor::NONE);
    let own = element.sums.iter().find(|sum| sum.slot == a).unwrap();
    assert_eq!((own.start, own.sum), (stamp(4, 1), 1), "an absorbed sum starts anew");
    let joined = element.join(ahead);
    assert_eq!(shown(&joined), Some(b"111".to_vec()), "only what the value had not seen is added");
}

/// The end of an integer's range holds: reading saturates.
#[test]
fn a_counter_saturates_when_read() {
    let mut element = Element::of(stamp(1, 1), Bytes::from(i64::MAX.to_string()));
    element.add(origin(2, 1), stamp(2, 2), i64::MAX, Floor::NONE);
    assert_eq!(element.value(Floor::NONE), Some(Bytes::from(i64::MAX.to_string())));
    let mut text = Element::of(stamp(1, 1), Bytes::from_static(b"text"));
    text.add(origin(2, 1), stamp(2, 2), 1, Floor::NONE);
    assert_eq!(text.value(Floor::NONE), Some(Bytes::from_static(b"text")));
}
