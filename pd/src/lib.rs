//! The placement driver of a cluster: it knows the members, decides where data stands, and tells
//! everybody by one versioned map. The data path never waits for it.
//!
//! The modules stand in the order in which a request goes through them; see `README.md`.

pub mod config;

mod pd;

mod server;

mod web;

mod driver;

mod state;

mod store;

pub use config::Config;
pub use pd::{Pd, StartError};
