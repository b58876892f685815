//! The edge of a Flotilla cluster: a process that follows every group's log as a learner, streams
//! what was committed to the other clusters, and takes their streams into its own groups.
//!
//! The modules stand in the order in which data flows: out, over the link, in.

pub mod learned;

pub mod shipper;

pub mod batch;

pub mod receiver;

#[cfg(test)]
mod sim;
