//! Full-state merge: what one group holds travels to another cluster, when the log no longer reaches
//! back to where that cluster is.
//!
//! The sender cuts the group on a replica of its own cluster and opens a stream of its own for it;
//! the receiver carries each step to the leaders of the groups that own the slots. First they
//! compare: state digests of stretches, then of the keys of stretches that differ; only keys that differ
//! travel. So a merge that was cut off begins anew with a new cut and soon is where it was, and
//! nothing needs to be remembered. Both sides go on serving and writing; each step is bounded.
//!
//! * `wire`: what is said on the stream.
//! * `send`: the side that has the state.
//! * `receive`: the side that takes it.

pub mod wire;

pub mod send;

pub mod receive;

use flotilla_node::group::remote::clip;

/// Why a merge ends when an answer is not to the question, in one line.
fn unexpected(answer: impl std::fmt::Debug) -> String {
    clip(&format!("an answer to something else: {answer:?}")).to_owned()
}
