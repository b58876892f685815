//! The harness that runs real Flotilla clusters, breaks them, checks what their clients saw, and
//! measures them. A library: it is handed the path of a `flotilla` binary or the addresses of
//! running nodes, and knows nothing of what is inside them. The command line is in `deploy`.
//!
//! The modules stand in the order in which a scenario uses them.

pub mod disk;
pub mod process;
pub mod wan;

pub mod http;
pub mod resp;

pub mod history;
pub mod workload;

pub mod checkers;
pub mod vitals;

pub mod scenario;

pub mod bench;

#[cfg(test)]
mod fake;
