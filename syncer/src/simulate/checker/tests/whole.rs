//! The checker on histories of the simulator: rules of the product put wrong are found by it alone.

use super::super::{Checker, Command};
use super::{Answer, words};
use crate::simulate::run_only;
use flotilla_node::flaws::Flaw;
use flotilla_node::group::exec::Outcome;
use flotilla_node::resp::Reply;
use tokio::sync::oneshot;

/// Each was found within 600 histories when this was written.
const HISTORIES: u64 = 3000;

fn finds(flaw: Flaw) {
    finds_within(flaw, HISTORIES);
}

fn finds_within(flaw: Flaw, histories: u64) {
    let found = (1..=histories).find_map(|seed| {
        let broken = run_only(seed, Some(flaw), Some("plain_rules")).err()?;
        Some((seed, broken))
    });
    let (_, broken) = found.unwrap_or_else(|| panic!("{flaw:?} is not found"));
    assert_eq!(broken.invariant, "plain_rules");
}

#[test]
fn f2_finds_ends_that_forget_what_had_ended() {
    finds(Flaw::NoLow);
}

#[test]
fn f2_finds_ends_that_forget_what_was_collected() {
    // It takes an end that was collected and another one soon after: one history of some thousand.
    finds_within(Flaw::LowForgotten, 10_000);
}

#[test]
fn f3_finds_inherited_ends() {
    finds(Flaw::TtlInherited);
}

#[test]
fn a16_finds_sums_that_outlive_a_delete() {
    finds(Flaw::SumByLast);
}

#[test]
fn a24_finds_stamps_below_what_was_merged() {
    finds(Flaw::ClockBehind);
}

#[test]
fn a8_finds_batches_behind_a_gap() {
    finds(Flaw::GapTaken);
}

#[test]
fn a1_finds_entries_that_were_evaluated_on_what_never_was() {
    finds(Flaw::FenceByTerm);
}

#[test]
fn f11_finds_rows_that_went_with_an_end_of_another_type() {
    finds(Flaw::ExpiryAnyType);
}

fn heard(want: Option<Answer>, wrote: bool, outcome: Outcome) -> bool {
    let (answer, reply) = oneshot::channel();
    let mut checker = Checker::default();
    let command = Command { words: words("DEL h"), now: 1, before: None };
    checker.judged(&command, Some(reply), Ok(want), wrote);
    checker.hear();
    assert!(checker.found().is_ok(), "nothing was answered yet");
    assert!(answer.send(vec![outcome]).is_ok());
    checker.hear();
    checker.found().is_err()
}

#[test]
fn a18_an_answer_holds_only_if_what_it_saw_took_effect() {
    let done = |number| Outcome::Done(Reply::Int(number));
    let not = || Outcome::NotApplied { leader: None };
    assert!(!heard(Some(Answer::Int(1)), true, done(1)));
    assert!(heard(Some(Answer::Int(1)), true, done(0)), "another answer");
    assert!(heard(None, false, done(0)), "what it saw never was");
    assert!(heard(Some(Answer::Int(1)), true, not()), "it is in the log");
    assert!(!heard(None, false, not()));
    assert!(!heard(Some(Answer::Int(0)), false, not()), "it wrote nothing and may be told so");
    assert!(!heard(Some(Answer::Int(1)), true, Outcome::Unknown));
}
