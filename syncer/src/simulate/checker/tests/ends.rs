//! Expiries.

use super::*;

#[test]
fn a10_an_end_that_a_command_saw_is_in_an_entry() {
    let mut story = Story::new();
    story.did(1, 10, "HSET h f 1", "hash; f=1").did(1, 11, "PEXPIREAT h 20", "ends hash 20");
    story.never(1, 20, "DEL h", &[""]);
    let entry = Entry { clock: stamp(20, 1).clock, ..Entry::default() };
    assert_eq!(story.history.own(at(1), &entry, Vec::new(), None), Ok(None));
    story.did(1, 20, "DEL h", "").ends(20, "h", "none -2");
}

#[test]
fn a11_a_passed_end_hides_what_is_older_and_nothing_else() {
    let mut story = Story::new();
    story.did(1, 1, "HSET h f 1", "hash; f=1").arrives(1, 2);
    story.did(1, 2, "PEXPIREAT h 5", "ends hash 5").did(2, 7, "HSET h g 1", "hash; g=1");
    story.shows(2, 7, "h", "hash f 1 g 1 2 -1");
    story.all_arrives().shows(1, 4, "h", "hash f 1 g 1 2 5").ends(7, "h", "hash g 1 1 -1");
}

#[test]
fn a11_a_passed_end_is_never_said_as_a_floor() {
    let mut story = Story::new();
    story.did(1, 1, "HSET h f 1", "hash; f=1").did(1, 2, "PEXPIREAT h 5", "ends hash 5");
    story.never(1, 7, "HSET h g 1", &["floor; hash; g=1", "over 5@1; hash; g=1", ""]);
    story.did(1, 7, "HSET h g 1", "hash; g=1");
    // An extension from before the end is still on its way: with it nothing has ended.
    let mut story = Story::new();
    story.did(1, 1, "HSET h f 1", "hash; f=1").did(1, 2, "PEXPIREAT h 5", "ends hash 5");
    story.arrives(1, 2).did(2, 4, "PEXPIREAT h 9", "ends hash 9");
    story.did(1, 7, "HSET h g 1", "hash; g=1").ends(8, "h", "hash f 1 g 1 2 9");
}

#[test]
fn an_end_is_said_whole_and_an_end_in_the_past_deletes() {
    let mut story = Story::new();
    story.did(1, 10, "SET s 1", "floor; text; .=1");
    story.never(1, 11, "PEXPIREAT s 20", &["", "ends text 21", "ends hash 20", "floor"]);
    story.never(1, 11, "PEXPIREAT s 9", &["", "ends text 9"]);
    story.did(1, 11, "PEXPIREAT s 20", "ends text 20");
    story.never(1, 12, "SET s 2", &["text; .=2", "floor; text; .=2; ends text 20"]);
    story.never(1, 12, "SET s 2 KEEPTTL", &["floor; text; .=2", "text; .=2; ends text 20"]);
    story.did(1, 12, "SET s 2 KEEPTTL", "text; .=2").shows(1, 12, "s", "string 2 20");
    story.never(1, 13, "SET s 3 PXAT 30", &["floor; text; .=3", "text; .=3; ends text 30"]);
    story.did(1, 13, "SET s 3 PXAT 30", "floor; text; .=3; ends text 30");
    story.never(1, 14, "PERSIST s", &["", "ends text 30"]).did(1, 14, "PERSIST s", "ends text 0");
    story.never(1, 15, "PERSIST s", &["ends text 0"]);
    story.did(1, 15, "GETEX s PXAT 15", "floor").ends(16, "s", "none -2");
}

#[test]
fn f2_a_new_end_goes_on_hiding_what_had_ended() {
    let mut story = Story::new();
    story.did(1, 4, "HSET h f 1", "hash; f=1").did(1, 5, "PEXPIREAT h 10", "ends hash 10");
    story.did(1, 12, "HSET h g 2", "hash; g=2");
    story.never(1, 13, "PEXPIREAT h 30", &["ends hash 30", "ends hash 30 low 9"]);
    story.did(1, 13, "PEXPIREAT h 30", "ends hash 30 low 10");
    story.never(1, 14, "PERSIST h", &["ends hash 0"]);
    story.did(1, 14, "PERSIST h", "ends hash 0 low 10").ends(15, "h", "hash g 2 1 -1");
}

#[test]
fn f2_low_may_be_higher_as_long_as_nothing_seen_is_below() {
    let mut story = Story::new();
    story.did(1, 12, "HSET h g 2", "hash; g=2").did(
        1,
        20,
        "HINCRBY h c 2",
        "hash; c sum 2 since 20",
    );
    story.never(1, 30, "PEXPIREAT h 90", &["ends hash 90 low 13", "ends hash 90 low 20"]);
    story.did(1, 30, "PEXPIREAT h 90", "ends hash 90 low 12");
    story.did(1, 31, "HDEL h g", "g gone");
    story.did(1, 32, "HINCRBY h c 2", "hash; c sum 4 since 20");
    // A sum is hidden by its first increment.
    story.never(1, 33, "PEXPIREAT h 91", &["ends hash 91 low 21", "ends hash 91 low 11"]);
    story.did(1, 33, "PEXPIREAT h 91", "ends hash 91 low 20").ends(40, "h", "hash c 4 1 91");
}

#[test]
fn f2_an_end_that_a_delete_has_voided_is_not_remembered() {
    let mut story = Story::new();
    story.did(1, 4, "SET s 1 PXAT 10", "floor; text; .=1; ends text 10");
    story.did(1, 8, "DEL s", "floor").did(1, 9, "APPEND s x", "text; .=x");
    story.did(1, 12, "PEXPIREAT s 20", "ends text 20").ends(13, "s", "string x 20");
}

#[test]
fn f3_a_key_that_is_created_again_does_not_get_the_end_of_the_emptied_one() {
    let mut story = Story::new();
    story.did(1, 10, "HSET h f 1", "hash; f=1").did(1, 11, "PEXPIREAT h 50", "ends hash 50");
    story.did(1, 12, "HDEL h f", "f gone");
    story.never(1, 13, "HSET h f 2", &["hash; f=2", "hash; f=2; ends hash 50"]);
    story.did(1, 13, "HSET h f 2", "hash; f=2; ends hash 0");
    story.never(1, 14, "HSET h g 2", &["hash; g=2; ends hash 0"]);
    story.ends(60, "h", "hash f 2 1 -1");
}

#[test]
fn f3_the_void_goes_on_hiding_what_had_ended_before() {
    let mut story = Story::new();
    story.did(1, 1, "HSET h e 1", "hash; e=1").did(1, 2, "PEXPIREAT h 5", "ends hash 5");
    story.did(1, 6, "HSET h f 1", "hash; f=1").did(1, 7, "PEXPIREAT h 50", "ends hash 50 low 5");
    story.did(1, 8, "HDEL h f", "f gone");
    story.never(1, 9, "HSET h f 2", &["hash; f=2", "hash; f=2; ends hash 0"]);
    story.did(1, 9, "HSET h f 2", "hash; f=2; ends hash 0 low 5").ends(60, "h", "hash f 2 1 -1");
}

#[test]
fn f3_a_passed_end_needs_no_void() {
    let mut story = Story::new();
    story.did(1, 1, "HSET h e 1", "hash; e=1").did(1, 2, "PEXPIREAT h 5", "ends hash 5");
    story.never(1, 6, "HSET h f 1", &["hash; f=1; ends hash 0", "hash; f=1; ends hash 0 low 5"]);
    story.did(1, 6, "HSET h f 1", "hash; f=1").ends(7, "h", "hash f 1 1 -1");
}

#[test]
fn f11_an_end_speaks_of_the_type_that_it_was_set_on() {
    let mut story = Story::new();
    story.did(1, 1, "HSET k f 1", "hash; f=1").did(2, 2, "APPEND k v", "text; .=v");
    story.did(2, 3, "PEXPIREAT k 5", "ends text 5").did(1, 4, "HSET k g 1", "hash; g=1");
    story.ends(9, "k", "hash g 1 1 -1");
    // The register is of another type: it is neither kept low nor voided.
    story.never(1, 10, "PEXPIREAT k 20", &["ends hash 20 low 5"]);
    story.did(1, 10, "PEXPIREAT k 20", "ends hash 20");
}
