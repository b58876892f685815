//! Claims, values, removals and deletes.

use super::*;

#[test]
fn a20_a_value_that_is_set_again_has_a_new_stamp() {
    let mut story = Story::new();
    story.did(1, 10, "HSET h f 1", "hash; f=1").arrives(1, 2);
    story.did(2, 30, "HDEL h f", "f gone");
    story.never(1, 50, "HSET h f 1", &["", "hash", "f=1"]);
    story.did(1, 50, "HSET h f 1", "hash; f=1").ends(60, "h", "hash f 1 1 -1");
}

#[test]
fn a_condition_that_fails_says_nothing() {
    let mut story = Story::new();
    story.did(1, 10, "SET s 1", "floor; text; .=1");
    story.never(1, 20, "SET s 2 NX", &["text; .=1", "floor; text; .=2"]);
    story.did(1, 20, "SET s 2 NX", "");
    assert_eq!(story.does(1, 21, "SET s 2 NX", ""), Ok(Answer::Null));
    assert_eq!(story.does(1, 21, "HSET s f 2", ""), Ok(Answer::Error("WRONGTYPE".into())));
    story.never(1, 22, "HSET s f 2", &["hash; f=2"]);
}

#[test]
fn a14_floor_and_value_have_one_stamp_and_the_value_stands() {
    let mut story = Story::new();
    story.did(1, 10, "HSET k f 1", "hash; f=1").arrives(1, 2);
    story.never(1, 20, "SET k v", &["text; .=v", "floor; .=v", "floor; text", "floor; text; .=w"]);
    story.did(1, 20, "SET k v", "floor; text; .=v");
    story.shows(1, 20, "k", "string v -1").shows(2, 20, "k", "hash f 1 1 -1");
    story.ends(20, "k", "string v -1");
}

#[test]
fn a14_stamps_of_two_clusters_order_values_that_came_crosswise() {
    let mut story = Story::new();
    story.did(1, 10, "SET k a", "floor; text; .=a").did(2, 10, "SET k b", "floor; text; .=b");
    story.ends(11, "k", "string b -1");
}

#[test]
fn a15_of_two_types_the_later_claim_wins_and_the_other_is_gone_for_good() {
    let mut story = Story::new();
    story.did(1, 10, "HSET k f 1", "hash; f=1").did(2, 20, "APPEND k v", "text; .=v");
    story.did(1, 30, "HSET k g 3", "hash; g=3");
    story.all_arrives().shows(2, 40, "k", "hash g 3 1 -1");
    story.did(1, 50, "HDEL k g", "g gone");
    story.never(1, 60, "HSET k f 2", &["f=2", "hash; f=2; g gone", "hash; g=2"]);
    story.did(1, 60, "HSET k h 2", "hash; h=2").ends(60, "k", "hash h 2 1 -1");
}

#[test]
fn a15_the_floor_of_a_lost_claim_may_be_said_but_no_higher_one() {
    let mut story = Story::new();
    story.did(1, 10, "HSET k f 1", "hash; f=1").did(1, 20, "HDEL k f", "f gone");
    story.never(1, 30, "APPEND k v", &["over 20@1; text; .=v", "floor; text; .=v", ".=v"]);
    story.did(1, 30, "APPEND k v", "over 10@1; text; .=v").ends(30, "k", "string v -1");
}

#[test]
fn a_removal_claims_nothing_and_removes_only_what_is_there() {
    let mut story = Story::new();
    story.never(1, 5, "HDEL h f", &["f gone"]).did(1, 5, "HDEL h f", "");
    story.did(1, 10, "HSET h f 1", "hash; f=1");
    story.never(1, 20, "HDEL h f", &["", "hash; f gone", "floor", "f gone; g gone"]);
    story.never(1, 20, "HDEL h g", &["g gone"]);
    story.did(1, 20, "HDEL h f", "f gone").ends(21, "h", "none -2");
}

#[test]
fn a_delete_is_a_floor_and_only_of_a_key_that_exists() {
    let mut story = Story::new();
    story.never(1, 5, "DEL h", &["floor"]).did(1, 5, "DEL h", "");
    story.did(1, 10, "HSET h f 1", "hash; f=1").arrives(1, 2);
    story.never(2, 20, "DEL h", &["", "f gone", "hash; floor"]);
    story.did(2, 20, "DEL h", "floor").did(1, 15, "HSET h g 1", "hash; g=1");
    story.did(1, 25, "HSET h h 1", "hash; h=1").ends(30, "h", "hash h 1 1 -1");
}

#[test]
fn a24_a_stamp_is_above_all_that_was_known_where_it_was_given() {
    let mut story = Story::new();
    story.did(2, 30, "HSET h f 1", "hash; f=1").arrives(2, 1);
    story.never(1, 20, "HSET h f 2", &["hash; f=2"]);
    let foreign = stamp(40, 2);
    assert!(story.does_at(1, foreign, "HSET h f 2", said("hash; f=2", foreign)).is_err());
    story.did(1, 31, "HSET h f 2", "hash; f=2").ends(31, "h", "hash f 2 1 -1");
}

#[test]
fn an_entry_says_what_its_command_said_and_of_that_key_only() {
    let mut story = Story::new();
    let told = |key: &str| {
        let written = said("hash; f=1", stamp(10, 1));
        Told { key: key.into(), slot: 7, written }
    };
    let now = stamp(10, 1);
    let entry = Entry { index: 1, first: now, last: now, clock: now.clock };
    let command = Command { words: words("HSET h f 1"), now: 10, before: None };
    let mut own = |told, command| story.history.own(at(1), &entry, told, command);
    assert!(own(vec![told("h")], None).is_err(), "upkeep says nothing");
    assert!(own(vec![told("h"), told("i")], Some(&command)).is_err(), "another key");
    assert!(own(vec![], Some(&command)).is_err(), "it wrote nothing");
    assert!(own(vec![told("h")], Some(&command)).is_ok());
}

#[test]
fn a3_what_comes_back_is_found_where_a_command_meets_it() {
    let mut story = Story::new();
    story.did(1, 10, "HSET h e 1", "hash; e=1").arrives(1, 2).did(2, 20, "DEL h", "floor");
    story.arrives(2, 3).arrives(1, 3);
    let seen = |lines: &[&str]| Some(lines.iter().map(|line| (*line).to_owned()).collect());
    let mut command = Command { words: words("DEL h"), now: 30, before: seen(&["none", "-2"]) };
    assert_eq!(story.history.idle(at(3), &command), Ok(Answer::Int(0)));
    command.before = seen(&["hash", "e 1", "1", "-1"]);
    let wrong = story.history.idle(at(3), &command).unwrap_err();
    assert!(wrong.contains("found"), "{wrong}");
}
