//! One Flotilla storage server: RESP in, Raft in the middle, RocksDB at the bottom.
//!
//! ```text
//! write  client -> resp -> command -> router -> group evaluator -> raft -> log (sync) -> commit -> apply -> engine -> reply
//! read   client -> resp -> command -> router -> read barrier (lease or read index) -> engine -> reply
//! ```
//!
//! The modules stand in the order in which data flows. What a syncer or PD needs is public; see
//! `README.md` for the invariants and for what this crate leaves to others.

pub mod server;

pub mod resp;

pub mod command;

pub mod router;

pub mod rpc;

pub mod node;

pub mod config;

pub mod sizes;

pub mod pd_client;

pub mod group;

pub mod eval;

pub mod raft;

pub mod log;

pub mod model;

pub mod engine;

pub mod codec;

pub mod tls;

pub mod transport;

pub mod http;

pub mod clock;

pub mod threads;

pub mod flaws;

pub mod fuzz;
