//! Sums, and what registers take in of them.

use super::*;

#[test]
fn a_sum_goes_on_and_two_clusters_add_up() {
    let mut story = Story::new();
    story.did(1, 10, "HINCRBY h f 5", "hash; f sum 5 since 10").arrives(1, 2);
    story.never(
        1,
        20,
        "HINCRBY h f 2",
        &["hash; f=7", "hash; f sum 2 since 20", "f sum 7 since 10"],
    );
    story.did(1, 20, "HINCRBY h f 2", "hash; f sum 7 since 10");
    story.did(2, 30, "HINCRBY h f 1", "hash; f sum 1 since 30").ends(31, "h", "hash f 8 1 -1");
}

#[test]
fn a4_a_removed_sum_begins_anew_and_the_late_one_counts_from_the_removal_on() {
    let mut story = Story::new();
    story.did(2, 10, "HINCRBY h f 1", "hash; f sum 1 since 10").arrives(2, 1);
    story.never(1, 20, "HDEL h f", &["f gone", "f gone; f takes 1@10.1", "f gone; f takes 2@10.2"]);
    story.did(1, 20, "HDEL h f", "f gone; f takes 1@10.2");
    story.did(2, 30, "HINCRBY h f 1", "hash; f sum 2 since 10");
    story.all_arrives().shows(1, 31, "h", "hash f 1 1 -1");
    story.did(2, 40, "HDEL h f", "f gone; f takes 2@30.2");
    story.never(2, 50, "HINCRBY h f 4", &["hash; f sum 6 since 10"]);
    story.did(2, 50, "HINCRBY h f 4", "hash; f sum 4 since 50").ends(51, "h", "hash f 4 1 -1");
}

#[test]
fn a16_a_floor_goes_by_the_first_increment_of_a_sum() {
    let mut story = Story::new();
    story.did(2, 10, "HINCRBY h f 5", "hash; f sum 5 since 10").arrives(2, 1);
    story.did(1, 20, "DEL h", "floor").did(2, 30, "HINCRBY h f 1", "hash; f sum 6 since 10");
    story.all_arrives().shows(1, 31, "h", "none -2");
    story.never(2, 40, "HINCRBY h f 1", &["hash; f sum 7 since 10"]);
    story.did(2, 40, "HINCRBY h f 1", "hash; f sum 1 since 40").ends(41, "h", "hash f 1 1 -1");
}

#[test]
fn a16_a_smaller_sum_may_be_the_later_one() {
    let mut story = Story::new();
    story.did(1, 10, "INCRBY s 5", "text; . sum 5 since 10").arrives(1, 2);
    story.did(1, 20, "INCRBY s -9", "text; . sum -4 since 10").ends(21, "s", "string -4 -1");
}

#[test]
fn a16_sums_do_not_count_on_what_is_no_number() {
    let mut story = Story::new();
    story.did(1, 10, "INCRBY s 5", "text; . sum 5 since 10");
    story.did(2, 20, "APPEND s x", "text; .=x").ends(21, "s", "string x -1");
    assert_eq!(story.does(1, 30, "INCRBY s 1", ""), Ok(Answer::Error("ERR".into())));
    story.never(1, 30, "INCRBY s 1", &["text; . sum 6 since 10"]);
}

#[test]
fn a16_an_increment_past_the_range_is_refused_and_two_at_once_stay_at_the_end_of_it() {
    let most = i64::MAX;
    let mut story = Story::new();
    story.did(1, 10, &format!("SET s {most}"), &format!("floor; text; .={most}"));
    assert_eq!(story.does(1, 20, "INCRBY s 1", ""), Ok(Answer::Error("ERR".into())));
    story.arrives(1, 2).did(1, 30, "INCRBY s -5", "text; . sum -5 since 30");
    story.did(1, 31, "INCRBY s 5", "text; . sum 0 since 30").arrives(1, 2);
    story.did(2, 32, "INCRBY s -9", "text; . sum -9 since 32");
    story.did(2, 33, "INCRBY s 9", "text; . sum 0 since 32");
    story.did(1, 40, "INCRBY s -3", "text; . sum -3 since 30");
    story.did(2, 41, "INCRBY s -3", "text; . sum -3 since 32").all_arrives();
    story.did(1, 50, "INCRBY s 6", "text; . sum 3 since 30");
    story.did(2, 51, "INCRBY s 6", "text; . sum 3 since 32").ends(
        52,
        "s",
        &format!("string {most} -1"),
    );
}

#[test]
fn f1_a_reset_outlives_the_register_that_made_it() {
    let mut story = Story::new();
    story.did(1, 26, "HINCRBY h f 4", "hash; f sum 4 since 26");
    story.did(1, 27, "HDEL h f", "f gone; f takes 4@26.1").arrives(1, 2);
    // Cluster 2 has collected the removal with the sum: its register takes nothing in.
    story.did(2, 57, "HSET h f 9", "hash; f=9").did(2, 62, "HDEL h f", "f gone");
    story.ends(70, "h", "none -2");
}

#[test]
fn f1_a_register_takes_in_what_is_still_there() {
    let mut story = Story::new();
    story.did(1, 10, "HINCRBY h f 4", "hash; f sum 4 since 10").arrives(1, 2);
    story.never(
        2,
        20,
        "HSET h f 9",
        &["hash; f=9", "hash; f=9; f takes 3@10.1", "hash; f=9; f keeps 1"],
    );
    story.did(2, 20, "HSET h f 9", "hash; f=9; f takes 4@10.1; f keeps 1");
    // What counts for nothing any more must be taken in all the same while it is there.
    story.never(2, 30, "HSET h f 8", &["hash; f=8; f keeps 1"]);
    story.did(2, 30, "HSET h f 8", "hash; f=8; f takes 4@10.1; f keeps 1");
    story.did(2, 40, "HSET h f 7", "hash; f=7").ends(41, "h", "hash f 7 1 -1");
}

#[test]
fn a_late_increment_counts_on_top_of_a_value_that_took_in_the_earlier_ones() {
    let mut story = Story::new();
    story.did(1, 10, "HINCRBY h f 4", "hash; f sum 4 since 10").arrives(1, 2);
    story.did(2, 20, "HSET h f 100", "hash; f=100; f takes 4@10.1");
    story.did(1, 15, "HINCRBY h f 3", "hash; f sum 7 since 10").ends(30, "h", "hash f 103 1 -1");
}
