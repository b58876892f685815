//! Values that the valid encodings are made of.

use crate::group::digest::look::{Cell, Cells, Look};
use crate::group::entry::Fence;
use crate::group::remote::Vector;
use crate::group::rows::{Resume, Stretch};
use crate::group::state::{Heard, StateCut};
use crate::model::{
    Claim, Count, Effect, Element, Expiry, Floor, Head, Register, Reset, Sum, Type,
};
use bytes::Bytes;
use flotilla_topology::ids::{ClusterId, GroupId, Incarnation, LogId, Origin};
use flotilla_topology::slot::{Slot, SlotRange};
use flotilla_topology::stamp::{Hlc, Stamp};

/// A cluster in its second life.
pub const ORIGIN: Origin = Origin { cluster: ClusterId(2), incarnation: Incarnation(2) };
/// A group, of a number that takes two bytes.
pub const GROUP: GroupId = GroupId(300);
/// A position.
pub const AT: LogId = LogId { term: 3, index: 70_000 };
/// A fence.
pub const FENCE: Fence = Fence { term: 3, next_seq: 400 };
/// A slot.
pub const SLOT: Slot = Slot(7_000);

/// A stamp of this millisecond and cluster.
pub fn stamp(ms: u64, cluster: u8) -> Stamp {
    Stamp { hlc: Hlc(ms << 16 | 3), cluster: ClusterId(cluster) }
}

/// What a group has of two clusters.
pub fn vector() -> Vector {
    vec![(ClusterId(1), stamp(4, 1)), (ClusterId(3), stamp(9, 3))]
}

/// A cut with all its parts.
pub fn cut() -> StateCut {
    StateCut {
        origin: ORIGIN,
        group: GROUP,
        slots: SlotRange::partition(1, 3),
        position: AT,
        fence: FENCE,
        closed: stamp(8, 2),
        vector: vector(),
        forgotten_ms: 77,
        heard: vec![Heard {
            origin: Origin { cluster: ClusterId(3), incarnation: Incarnation(1) },
            group: GroupId(9),
            slots: SlotRange::ALL,
            closed: stamp(9, 3),
        }],
        fenced: vec![(ClusterId(4), Incarnation(2))],
    }
}

/// Cells of a slot.
pub fn cells() -> Cells {
    Cells { slots: SlotRange { first: SLOT, last: SLOT }, buckets: 300, seed: u64::MAX }
}

/// A look at them with all its parts.
pub fn look() -> Look {
    let cell = Cell { sum: u128::MAX - 1, keys: 300, state: u64::MAX, rows: 400 };
    Look {
        clock: Hlc(8 << 16),
        live: [ClusterId(1), ClusterId(3)].into(),
        vector: vector(),
        unsettled: Some("it levels".into()),
        cells: [((SLOT, 0), cell), ((SLOT, 299), cell)].into(),
    }
}

/// A place within a slot.
pub fn resume() -> Resume {
    Resume::at(SlotRange { first: SLOT, last: SLOT })
}

/// All of a slot, and a part of one.
pub fn stretches() -> [Stretch; 2] {
    let part = Stretch { slot: SLOT, from: Some(resume()), to: Some(resume()) };
    [Stretch::of_slot(SLOT), part]
}

fn sum(cluster: u8, amount: i128) -> Sum {
    let slot = Origin { cluster: ClusterId(cluster), incarnation: Incarnation(1) };
    Sum { slot, start: stamp(2, cluster), stamp: stamp(6, cluster), sum: amount }
}

/// Elements: with each of their parts, and with all.
pub fn elements() -> Vec<Element> {
    let value = Element::of(stamp(5, 1), Bytes::from_static(b"a value"));
    let gone = Register { stamp: stamp(5, 1), value: None };
    let gone = Element { register: Some(gone), ..Element::default() };
    let sums = vec![sum(1, i128::MIN), sum(2, -7), sum(3, i128::from(u64::MAX))];
    let reset = Reset { slot: ORIGIN, stamp: stamp(4, 2), sum: 12, by: stamp(5, 1) };
    vec![
        Element::default(),
        value.clone(),
        gone.clone(),
        Element { sums: sums.clone(), ..Element::default() },
        Element { sums: sums.clone(), resets: vec![reset], ..value },
        Element { sums, resets: vec![reset], ..gone },
    ]
}

/// Heads: of strings and of hashes, with each of their parts.
pub fn heads() -> Vec<Head> {
    let claim = |ty| Some(Claim { stamp: stamp(5, 1), ty });
    let expiry = |stamp, ty| Some(Expiry { stamp, ty, at: 1_700_000_000_000, low: 9 });
    let through = Floor::through(stamp(5, 1));
    let below = Floor::below(stamp(3, 2));
    let [string, other] = [Type::String, Type::Hash];
    let mut heads: Vec<Head> = Vec::new();
    for (place, element) in elements().into_iter().enumerate() {
        heads.push(Head { claim: claim(string), string: element, ..Head::default() });
        if let Some(head) = heads.last_mut().filter(|_| place % 2 == 0) {
            head.expiry = expiry(stamp(5, 1), string);
        }
    }
    let under = [through, below, Floor::through(stamp(2, 2)), Floor::NONE];
    for under in under {
        heads.push(Head {
            claim: claim(other),
            floor: through,
            expiry: expiry(stamp(6, 2), string),
            count: Some(Count { live: 300, under }),
            forgotten: 1_600_000_000_000,
            ..Head::default()
        });
    }
    heads.push(Head { floor: below, expiry: expiry(stamp(3, 2), other), ..Head::default() });
    heads.push(Head::default());
    heads
}

/// Effects on heads and elements. Nobody ships a count.
pub fn effects() -> Vec<Effect> {
    let key = Bytes::from_static(b"a\0key");
    let of_head =
        |head| Effect::Head { slot: SLOT, key: key.clone(), head: Head { count: None, ..head } };
    let of_element = |element| Effect::Element {
        slot: SLOT,
        key: key.clone(),
        ty: Type::Hash,
        name: Bytes::from_static(b"field"),
        element,
    };
    heads().into_iter().map(of_head).chain(elements().into_iter().map(of_element)).collect()
}
