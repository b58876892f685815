//! The Redis protocol as bytes: requests in, replies out. Nobody else reads or writes RESP.
//!
//! * [`RequestReader`] takes commands from a growing buffer, within [`Limits`].
//! * [`Reply`] is what a command answers; [`Reply::encode`] is its one writer, for both versions
//!   of the protocol, and [`Reply::to_wire`] carries it between nodes.
//!
//! What commands mean is not known here (`command`), nor are sockets (`server`).

mod double;
mod encode;
mod inline;
mod reader;
mod reply;
#[cfg(test)]
mod tests;

pub use double::format_double;
pub use encode::{encode_array_header, encode_map_header};
pub use reader::{Limits, ProtocolError, RequestReader};
pub use reply::{COMMAND_REPLY_BYTES_MAX, Protocol, Reply};
