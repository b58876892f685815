use super::*;
use flotilla_node::engine::keys;
use flotilla_node::group::cursor::Cursor;
use flotilla_node::group::entry::{Evaluation, Header};
use flotilla_node::model::{Claim, Head, Type, encode_head};
use flotilla_topology::ids::{ClusterId, Incarnation};
use flotilla_topology::slot::Slot;
use flotilla_topology::stamp::Hlc;

const OWN: Origin = Origin { cluster: ClusterId(1), incarnation: Incarnation(1) };
const OTHER: Origin = Origin { cluster: ClusterId(2), incarnation: Incarnation(1) };

fn stamp(origin: Origin, ms: u64) -> Stamp {
    Stamp { hlc: Hlc::from_ms(ms), cluster: origin.cluster }
}

fn put(slot: u16, ms: u64) -> RowOp {
    let claim = Some(Claim { ty: Type::String, stamp: stamp(OWN, ms) });
    let head = Head { claim, ..Head::default() };
    let key = keys::head(Slot(slot), b"key");
    RowOp::Put { key, value: encode_head(&head), parts: Parts::CLAIM.0 }
}

fn cursor_row(origin: Origin, closed_ms: u64) -> RowOp {
    let cursor = Cursor {
        position: LogId { term: 1, index: 9 },
        closed: stamp(origin, closed_ms),
        slots: SlotRange::ALL,
        vector: vec![],
    };
    let key = keys::cursor(origin, GroupId(4));
    RowOp::Put { key, value: cursor.encode(), parts: 0 }
}

fn entry(origin: Origin, seq: u64, ms: u64, ops: Vec<RowOp>) -> Body {
    let header = Header {
        evaluation: Evaluation { term: 3, seq },
        origin,
        first: stamp(origin, ms),
        last: stamp(origin, ms),
        clock: Hlc::from_ms(ms),
        slots: None,
    };
    Body::Normal(Entry { header, ops }.encode())
}

fn tap(seed: Position) -> (Tap, mpsc::UnboundedReceiver<News>, Gate) {
    let (outlets, gate) = (Outlets::default(), Gate::default());
    let news = outlets.add(gate.clone());
    (Tap::new(GroupId(7), OWN, SlotRange::ALL, seed, outlets), news, gate)
}

fn apply(tap: &mut Tap, bodies: Vec<Body>) -> Vec<Outcome> {
    let first = tap.at.id.index + 1;
    let committed = |(body, index)| Committed { log_id: LogId { term: 3, index }, body };
    tap.apply(bodies.into_iter().zip(first..).map(committed).collect()).unwrap()
}

fn heard(news: &mut mpsc::UnboundedReceiver<News>) -> Vec<Arc<Learned>> {
    let mut all = Vec::new();
    while let Ok(news) = news.try_recv() {
        match news {
            News::Committed(entries) => all.extend(entries),
            News::Jumped(to) => panic!("jumped to {to}"),
        }
    }
    all
}

#[test]
fn own_effects_are_handed_on_and_all_else_moves_the_position() {
    let (mut tap, mut news, gate) = tap(Position::default());
    let bodies = vec![
        Body::Blank,
        entry(OWN, 1, 10, vec![put(5, 10)]),
        entry(OTHER, 2, 11, vec![put(6, 11), cursor_row(OTHER, 11)]),
        entry(OWN, 3, 12, vec![]),
        entry(OWN, 4, 13, vec![put(7, 13)]),
    ];
    assert!(apply(&mut tap, bodies).iter().all(|outcome| *outcome == Outcome::TookEffect));
    let heard = heard(&mut news);
    let shape: Vec<_> =
        heard.iter().map(|l| (l.prev.index, l.at.id.index, l.effects.len(), l.news)).collect();
    assert_eq!(shape, [(0, 1, 0, false), (1, 2, 1, true), (2, 4, 0, true), (4, 5, 1, true)]);
    assert_eq!(heard[1].effects[0].slot, Some(Slot(5)));
    assert_eq!(heard[1].born_ms, 10);
    assert_eq!(heard[3].at.closed, stamp(OWN, 13), "only own stamps close our stream");
    assert_eq!(*heard[1].at.vector, vec![]);
    assert_eq!(*heard[2].at.vector, vec![(ClusterId(2), stamp(OTHER, 11))]);
    assert_eq!(heard[3].at.fence, Fence { term: 3, next_seq: 5 });
    assert_eq!(gate.bytes(), heard[1].bytes + heard[3].bytes);
}

#[test]
fn what_the_replicas_fence_ships_nothing() {
    let (mut tap, mut news, _) = tap(Position::default());
    let bodies = vec![
        Body::Blank,
        entry(OWN, 2, 10, vec![put(5, 10)]), // 1 was refused
        entry(OWN, 1, 11, vec![put(5, 11)]),
        entry(OWN, 1, 12, vec![put(5, 12)]), // a repeat
    ];
    let outcomes = apply(&mut tap, bodies);
    use Outcome::{Fenced, TookEffect};
    assert_eq!(outcomes, [TookEffect, Fenced, TookEffect, Fenced]);
    let effects: Vec<u64> =
        heard(&mut news).iter().flat_map(|l| l.effects.iter().map(|e| e.index)).collect();
    assert_eq!(effects, [3]);
}

#[test]
fn a_seeded_tap_goes_on_with_the_fence_and_the_vector_of_its_seed() {
    let floor = LinkFloor {
        group: GroupId(7),
        peer: ClusterId(2),
        position: LogId { term: 3, index: 40 },
        fence: Fence { term: 3, next_seq: 6 },
        closed: stamp(OWN, 9),
        vector: vec![(ClusterId(2), stamp(OTHER, 50))],
        merged: None,
    };
    let (mut tap, mut news, _) = tap(seed_position(Some(&floor)));
    assert_eq!(tap.applied().unwrap().log_id, floor.position);
    let bodies =
        vec![entry(OWN, 6, 10, vec![put(5, 10)]), entry(OTHER, 7, 11, vec![cursor_row(OTHER, 11)])];
    apply(&mut tap, bodies);
    let heard = heard(&mut news);
    assert_eq!((heard[0].prev.index, heard[0].effects.len()), (40, 1));
    let vector = &heard[1].at.vector;
    assert_eq!(**vector, vec![(ClusterId(2), stamp(OTHER, 50))], "it never goes back");
}

#[test]
fn an_entry_that_cannot_be_read_stops_the_learner() {
    let (mut tap, mut news, _) = tap(Position::default());
    let garbage = Committed {
        log_id: LogId { term: 3, index: 1 },
        body: Body::Normal(Bytes::from_static(b"what is this?")),
    };
    assert!(tap.apply(vec![garbage]).is_err());
    assert!(heard(&mut news).is_empty());
}

#[test]
fn after_a_snapshot_nothing_more_is_handed_on() {
    let (mut tap, mut news, _) = tap(Position::default());
    let applied = Applied { log_id: LogId { term: 3, index: 90 }, ..Applied::default() };
    let sink = tap.receiver().open(&applied).unwrap();
    assert!(!tap.receiver().wants_data());
    tap.install(applied, sink).unwrap();
    assert!(matches!(news.try_recv(), Ok(News::Jumped(to)) if to.index == 90));
    apply(&mut tap, vec![Body::Blank, entry(OWN, 1, 10, vec![put(5, 10)])]);
    assert!(news.try_recv().is_err());
}
