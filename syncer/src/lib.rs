//! The edge of a Flotilla cluster: a process that follows every group's log as a learner, streams
//! what was committed to the other clusters, and takes their streams into its own groups.
//!
//! The modules stand in the order in which data flows: out, over the link, in.

mod learned;

mod tap;

mod gate;

mod shipper;

mod lag;

mod outbound;

mod batch;

mod link;

mod receiver;

mod inbound;

mod merge;

mod audit;

mod leaders;

mod tenure;

mod peers;

mod mesh;

pub mod ports;

pub mod config;

pub mod driver;

pub mod simulate;

pub mod fuzz;

pub use config::Config;
pub use driver::Syncer;
pub use ports::StartError;

#[cfg(test)]
mod sim;
