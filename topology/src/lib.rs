//! Vocabulary and pure decisions of Flotilla. No IO, no clock, no async: every function here is
//! a function of its arguments.
//!
//! The modules stand in the order in which a reader needs them.

pub mod ids;

pub mod slot;

pub mod stamp;

pub mod api;

pub mod duration;

pub mod runway;

pub mod placement;

pub mod election;

pub mod file;

pub mod plan;

pub mod check;

pub use file::{Mode, TopologyFile};
pub use plan::Topology;

#[cfg(test)]
mod testing;
