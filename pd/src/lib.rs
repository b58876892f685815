//! The placement driver of a cluster: it knows the members, decides where data stands, and tells
//! everybody by one versioned map. The data path never waits for it.
//!
//! The modules stand in the order in which a request goes through them.

pub mod driver;

pub mod state;

pub mod store;

mod web;
