//! The commands that a connection answers itself, as Redis 7 does. One file per topic.

pub(in crate::server) mod cluster;
mod commands;
mod config;
mod connection;
mod info;
mod process;

use super::backend::Door;
use super::session::Session;
use crate::command::{
    Command, CommandError, Id, Place, lookup, named_subcommand, subcommand, subcommands_of,
};
use crate::resp::Reply;
use bytes::Bytes;

/// Whether the connection answers a command: also HELP, and what is wrong with a subcommand, of one
/// whose other subcommands are answered by groups.
pub(super) fn answers(command: &Command) -> bool {
    match command.spec.id {
        Id::Flotilla | Id::Object => {
            subcommand(command.spec.id, &command.args).map_or(true, |sub| sub.name() == "help")
        }
        _ => command.spec.place == Place::Connection,
    }
}

/// Answers such a command.
pub(super) fn execute(session: &mut Session, command: &Command) -> Reply {
    let args = &command.args;
    match command.spec.id {
        Id::Ping => connection::ping(args),
        Id::Echo => Reply::Bulk(args[1].clone()),
        Id::Hello => connection::hello(session, args),
        Id::Auth => connection::auth(session, args),
        Id::Select => connection::select(session, args),
        Id::Readonly => connection::readonly(session, true),
        Id::Readwrite => connection::readonly(session, false),
        Id::Unwatch => session.transaction.unwatch(),
        Id::Quit => connection::quit(session),
        Id::Reset => connection::reset(session),
        Id::Info => info::info(session, args),
        Id::Time => time(),
        Id::Client => container(session, command, connection::client),
        Id::Config => container(session, command, config::config),
        Id::Cluster => container(session, command, cluster::cluster),
        Id::Flotilla | Id::Object => container(session, command, |_, name, _| {
            unreachable!("{name} of such a command is answered by groups")
        }),
        Id::Command if args.len() == 1 => commands::all(),
        Id::Command => container(session, command, commands::command),
        _ => unreachable!("{} is not answered by connections", command.spec.name),
    }
}

/// TIME.
fn time() -> Reply {
    let ms = crate::clock::wall_ms();
    let micros = ms % 1000 * 1000;
    Reply::bulks([ms / 1000, micros].map(|number| number.to_string()))
}

type Answerer = fn(&mut Session, &str, &[Bytes]) -> Reply;

/// Finds the subcommand; `answer` gets its name and all arguments.
fn container(session: &mut Session, command: &Command, answer: Answerer) -> Reply {
    match subcommand(command.spec.id, &command.args) {
        Ok(sub) if sub.name() == "help" => help(command),
        Ok(sub) => answer(session, sub.name(), &command.args),
        Err(error) => CommandError::reply(&error),
    }
}

/// The name that CLIENT LIST shows, with the subcommand.
pub(super) fn display_name(args: &[Bytes]) -> Option<&'static str> {
    let spec = lookup(args.first()?)?;
    let sub = args.get(1).and_then(|name| named_subcommand(spec.id, name));
    Some(sub.map_or(spec.name, |sub| sub.full_name))
}

fn help(command: &Command) -> Reply {
    let name = command.spec.name.to_ascii_uppercase();
    let first = format!("{name} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:");
    let rows = subcommands_of(command.spec.id)
        .flat_map(|sub| [sub.name().to_ascii_uppercase(), format!("    {}", sub.summary)]);
    let lines = std::iter::once(first).chain(rows);
    Reply::Array(lines.map(|line| Reply::Simple(Bytes::from(line))).collect())
}

/// What the cluster commands say on the plain door: a client must not switch mode by itself.
fn needs_cluster_door(session: &Session) -> Result<(), Reply> {
    match session.door {
        Door::Cluster => Ok(()),
        Door::Plain => Err(Reply::error("ERR This instance has cluster support disabled")),
    }
}

/// An error line around a client's bytes, which need not be text.
fn error_about(before: &str, given: &[u8], behind: &str) -> Reply {
    Reply::error([before.as_bytes(), given, behind.as_bytes()].concat())
}

fn syntax_error() -> Reply {
    Reply::error("ERR syntax error")
}

/// A decimal integer as Redis reads it.
fn integer(arg: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(arg).ok()?;
    let plain = text.strip_prefix('-').unwrap_or(text);
    let canonical = plain == "0" && !text.starts_with('-')
        || plain.starts_with(|c: char| ('1'..='9').contains(&c));
    if canonical { text.parse().ok() } else { None }
}
