//! Cursors, and rows of full states.

use super::*;

fn rows(key: &str, says: &str, at_: Stamp) -> Vec<Told> {
    vec![Told { key: key.into(), slot: 7, written: said(says, at_) }]
}

#[test]
fn a22_rows_of_a_full_state_count_before_the_cursor_moves() {
    let mut story = Story::new();
    story.did(1, 10, "HSET h f 1", "hash; f=1").arrives(1, 2);
    let (now, none) = (stamp(10, 1), Entry::default());
    story.history.rows_arrive(at(3), &none, 1, &rows("h", "hash; f=1", now)).unwrap();
    story.shows(3, 11, "h", "hash f 1 1 -1");
    story.never(3, 12, "HDEL h f", &[""]).did(3, 12, "HDEL h f", "f gone");
    story.ends(20, "h", "none -2");
}

#[test]
fn a6_a_full_state_says_nothing_that_its_source_did_not_know() {
    let mut story = Story::new();
    story.did(1, 10, "HSET h f 1", "hash; f=1").did(1, 20, "HSET h f 2", "hash; f=2");
    let none = Entry::default();
    for (says, ms) in [("f=3", 20), ("f=2", 21), ("hash", 21), ("floor", 20), ("g gone", 5)] {
        let rows = rows("h", says, stamp(ms, 1));
        assert!(story.history.rows_arrive(at(2), &none, 0, &rows).is_err(), "{says} at {ms}");
    }
    // Less is no lie: it was collected, or hidden by a floor.
    let old = rows("h", "f=1", stamp(10, 1));
    story.history.rows_arrive(at(2), &none, 0, &old).unwrap();
    // Cluster 3 knows nothing of it yet.
    assert!(story.history.rows_arrive(at(2), &none, 2, &old).is_err());
    story.ends(30, "h", "hash f 2 1 -1");
}

#[test]
fn f4_rows_without_their_head_show_what_was_deleted() {
    let mut story = Story::new();
    story.did(1, 10, "HSET h f 1", "hash; f=1").did(1, 20, "DEL h", "floor");
    story.did(1, 30, "HSET h g 1", "hash; g=1");
    // The product shows this if the head stays behind; the rules know the floor by the cursor.
    story.arrives(1, 2).shows(2, 31, "h", "hash g 1 1 -1");
    let before = Some(vec!["hash".into(), "f 1 g 1".into(), "2".into(), "-1".into()]);
    let command = Command { words: words("HDEL h x"), now: 31, before };
    assert!(story.history.idle(at(2), &command).is_err());
}

#[test]
fn a8_what_lies_at_or_below_a_cursor_came_once_and_what_lies_above_not_yet() {
    let mut story = Story::new();
    story.did(1, 10, "HSET h f 1", "hash; f=1").did(1, 20, "HSET h f 2", "hash; f=2");
    let none = Entry::default();
    story.history.arrives(at(2), &none, at(1), 1);
    story.shows(2, 30, "h", "hash f 1 1 -1");
    story.history.arrives(at(2), &none, at(1), 0);
    story.shows(2, 30, "h", "hash f 1 1 -1");
    story.history.arrives(at(2), &none, at(1), 2);
    story.shows(2, 30, "h", "hash f 2 1 -1");
}

#[test]
fn a8_a_group_takes_what_touches_its_slots() {
    let mut history = History::default();
    history.add(at(1), GroupIs { counter: counter(1), slots: ALL });
    history.add((1, 0), GroupIs { counter: counter(2), slots: (0, 6) });
    history.add((1, 1), GroupIs { counter: counter(2), slots: (7, 16_383) });
    let mut story = Story { history, entries: 0 };
    story.did(1, 10, "HSET h f 1", "hash; f=1");
    for group in [0, 1] {
        story.history.arrives((1, group), &Entry::default(), at(1), 1);
    }
    assert_eq!(story.history.shows_at((1, 0), b"h", 11), ["none", "-2"]);
    assert_eq!(story.history.shows_at((1, 1), b"h", 11), ["hash", "f 1", "1", "-1"]);
}
