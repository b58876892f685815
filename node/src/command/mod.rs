//! Commands: which there are, and one that a client sent.
//!
//! [`Spec`] says all that is known of a command before it runs: its shape, where its keys stand,
//! where it is carried out, and what it means between clusters. The table in `table` is the only
//! list of commands, with that of their subcommands; COMMAND, the routing of keys and the documentation are
//! drawn from them. `refused` lists what Redis has beyond them.
//! [`Command`] is a request whose name and number of arguments are right.
//!
//! What a command does is not here: connections answer some (`server`), groups the others.

mod glob;
mod keys;
mod markdown;
mod parse;
mod refused;
mod spec;
mod subcommands;
mod table;
#[cfg(test)]
mod tests;

pub use glob::glob_matches;
pub use markdown::markdown;
pub use parse::{Command, CommandError};
pub use refused::{BEYOND_REDIS, REDIS_COUNTED, REFUSED, Refused, refusal_of};
pub use spec::{Family, Flags, KeySpec, Place, Spec, Split};
pub use subcommands::{SUBCOMMANDS, Subcommand, named_subcommand, subcommand, subcommands_of};
pub use table::{Id, TABLE, lookup};
