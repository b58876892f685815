//! Continuous proof of convergence: each group is compared with the groups of every live peer that
//! own its slots, stripe by stripe, again and again, whatever is written meanwhile.
//!
//! # When a difference is real
//!
//! Two clusters A and B are looked at at a group time `at` (see [`flotilla_node::group::digest::look`]).
//! A look shows of each cell what is visible at `at`, a digest of *all* its rows, and of the group its
//! clock and its closed vector. A cell is **different** when three looks, each begun after the one
//! before has ended, show it so:
//!
//! 1. What is visible differs in all three, and the rows of neither side change from one to the next.
//! 2. The second one, or a later one before the last, *covers* the first: with `c` the greater of the
//!    two clocks at the first look, its time is after `c`, and each side's closed vector has reached
//!    `c` for every other cluster that they go by.
//!
//! Proof that nothing under way looks like that. No stamp in A or B at the first look is above `c`,
//! and what either issues after the covering look is. So when it covers, both sides have every effect
//! stamped up to `c`, of every cluster, also a third one; call them E. Then A at the first look <= E
//! <= A at the covering look in the order of joins, and the same of B. Suppose that a state v is
//! visible in A and not in B. It is in E, so B has joined it by the covering look, and something h in
//! B hides or replaces it. If a row of B still says h, then so did the same rows at the first look, h
//! is in E, and A has joined it too: v is not visible in A, a contradiction. If h was collected at B,
//! it was stable, that is, every live cluster had said that it has it; so A has h before its last look,
//! which began later, and v is not visible there: the same contradiction. What ended (an expiry) is
//! such an h: it hides at both sides at the same `at`, and who had collected it by the covering look
//! had heard from everybody that their clocks are past it, so that the last `at` is past it too.
//!
//! That what is *visible* does not change would not be enough: a key that arrives and is deleted
//! between two looks leaves a cell as it was, while its delete is still on its way back. That is why
//! rows are compared, hidden ones too. And two looks would not be enough: the one side may be read
//! before it has a delete that the other side, read later, has already collected.
//!
//! Equal at any one look counts as equal for the pass: sums contain stamps. A leader that changes
//! between looks changes nothing, since rows, clock and vector are applied state, and each look is
//! behind a barrier. A link that is cut, clocks too far apart, a merge, a fence: then the vectors do
//! not reach `c`, or a side says that it may lack writes, and there is no verdict.
//!
//! A cell that is written between looks again and again is cut into buckets of keys (see
//! [`pass::LEVELS`]), which are compared by the same rule, so that a key that never rests does not
//! hide another; what is still written in the smallest buckets is *undecided*, never different.
//!
//! * `rule`: the rule of one cell; pure.
//! * `pass`: one walk over some slots: which question next, what was found; pure.
//! * `shown`: what is told of it.
//! * `wire`: what is said on the stream.
//! * `run`: the side that compares.
//! * `serve`: the side that is asked.

pub mod wire;

pub mod rule;

mod stripe;

pub mod pass;

pub mod shown;

pub mod run;

pub mod serve;

use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

/// Questions that a process has under way at one time, over all groups and peers.
const ASKED_MAX: usize = 2;
/// Questions of peers that a process has its leaders answer at one time.
const SERVED_MAX: usize = 2;

/// What all audits of a process share.
#[derive(Clone)]
pub struct Audits {
    /// Between the beginnings of two passes over a group. Zero: nothing is compared.
    pub every: Duration,
    asked: Arc<Semaphore>,
    served: Arc<Semaphore>,
}

impl Audits {
    /// A pass over each group so often.
    pub fn new(every: Duration) -> Audits {
        let room = |max| Arc::new(Semaphore::new(max));
        Audits { every, asked: room(ASKED_MAX), served: room(SERVED_MAX) }
    }
}

#[cfg(test)]
mod tests;
