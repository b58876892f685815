//! What Redis clients see: connections, the two doors, and the commands that a connection answers.
//!
//! ```text
//! socket -> RequestReader -> batch -> local commands here; data commands in runs -> Backend -> replies
//! ```
//!
//! * A connection executes batch after batch: what has come, at most [`COMMANDS_MAX`] commands and
//!   [`BATCH_BYTES_MAX`] bytes. It reads no more before the batch is answered, so a client that
//!   sends faster than it is served waits in its own socket.
//! * A command that waits (`patience`) waits alone: what was answered before is written, what comes
//!   meanwhile is kept, [`BATCH_BYTES_MAX`] bytes of it, and who goes away waits no more.
//! * Since MULTI commands are only queued ([`TRANSACTION_COMMANDS_MAX`]); EXEC hands them over as one.
//! * Replies leave in the order of requests, one write per batch unless they are large.
//! * Everything that grows with what clients do has a limit with a name ([`ServerConfig`]).
//!
//! Not here: what data commands do, where groups are, redirections ([`Backend`]).

mod backend;
mod batch;
mod clients;
mod config;
mod connection;
mod line;
mod listener;
mod local;
mod memory;
mod patience;
mod session;
mod stats;
#[cfg(test)]
mod tests;
mod transaction;

pub use crate::group::transaction::TRANSACTION_COMMANDS_MAX;
pub use backend::{Backend, Door, SessionView};
pub use batch::{BATCH_BYTES_MAX, COMMANDS_MAX};
pub use config::{CLIENTS_MEMORY_MAX, REQUEST_BYTES_MAX, ServerConfig, ServerConfigError};
pub use listener::Server;
pub use local::cluster::{leader_address, node_id};
pub use patience::{Ended, Patience};
