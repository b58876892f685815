//! PING, HELLO, AUTH, SELECT, CLIENT, READONLY, QUIT, RESET.

use super::super::backend::Door;
use super::super::patience::Ended;
use super::super::session::{DEFAULT_NAMESPACE, Session, Silence};
use super::{error_about, integer, needs_cluster_door, syntax_error};
use crate::command::CommandError;
use crate::resp::{Protocol, Reply};
use bytes::Bytes;

/// The version of Redis that clients may take us for.
pub(super) const REDIS_VERSION: &str = "7.2.4";
/// Bytes of a connection's or a library's name.
const NAME_BYTES_MAX: usize = 256;

const WRONGPASS: &str = "WRONGPASS invalid username-password pair or user is disabled.";
const BAD_NAME: &str = "ERR Client names cannot contain spaces, newlines or special characters.";

pub(super) fn ping(args: &[Bytes]) -> Reply {
    match args {
        [_] => Reply::status("PONG"),
        [_, message] => Reply::Bulk(message.clone()),
        _ => CommandError::arity("ping").reply(),
    }
}

pub(super) fn quit(session: &mut Session) -> Reply {
    session.closing = true;
    Reply::Ok
}

pub(super) fn reset(session: &mut Session) -> Reply {
    session.reset();
    Reply::status("RESET")
}

pub(super) fn readonly(session: &mut Session, readonly: bool) -> Reply {
    if let Err(reply) = needs_cluster_door(session) {
        return reply;
    }
    session.readonly = readonly;
    session.record.update(|state| state.readonly = readonly);
    Reply::Ok
}

pub(super) fn auth(session: &mut Session, args: &[Bytes]) -> Reply {
    let (user, password) = match args {
        [_, password] if session.shared.config.requirepass.is_none() => {
            let _ = password;
            return Reply::error(
                "ERR AUTH <password> called without any password configured for the default user. \
                 Are you sure your configuration is correct?",
            );
        }
        [_, password] => (&b"default"[..], password),
        [_, user, password] => (&user[..], password),
        _ => return syntax_error(),
    };
    if session.authenticate(user, password) { Reply::Ok } else { Reply::error(WRONGPASS) }
}

/// What HELLO asks for.
#[derive(Default)]
struct Hello<'a> {
    protocol: Option<Protocol>,
    auth: Option<(&'a Bytes, &'a Bytes)>,
    name: Option<&'a Bytes>,
}

impl<'a> Hello<'a> {
    fn parse(args: &'a [Bytes]) -> Result<Hello<'a>, Reply> {
        let mut hello = Hello::default();
        let Some(version) = args.get(1) else { return Ok(hello) };
        hello.protocol = Some(match integer(version) {
            None => {
                let line = "ERR Protocol version is not an integer or out of range";
                return Err(Reply::error(line));
            }
            Some(2) => Protocol::Resp2,
            Some(3) => Protocol::Resp3,
            Some(_) => return Err(Reply::error("NOPROTO unsupported protocol version")),
        });
        let mut rest = &args[2..];
        while let [option, more @ ..] = rest {
            rest = match more {
                [user, password, rest @ ..] if option.eq_ignore_ascii_case(b"auth") => {
                    hello.auth = Some((user, password));
                    rest
                }
                [name, rest @ ..] if option.eq_ignore_ascii_case(b"setname") => {
                    hello.name = Some(name);
                    rest
                }
                _ => {
                    return Err(error_about("ERR Syntax error in HELLO option '", option, "'"));
                }
            };
        }
        Ok(hello)
    }
}

pub(super) fn hello(session: &mut Session, args: &[Bytes]) -> Reply {
    let hello = match Hello::parse(args) {
        Ok(hello) => hello,
        Err(reply) => return reply,
    };
    if let Some((user, password)) = hello.auth
        && !session.authenticate(user, password)
    {
        return Reply::error(WRONGPASS);
    }
    if !session.authenticated {
        return Reply::error(
            "NOAUTH HELLO must be called with the client already authenticated, otherwise the \
             HELLO AUTH <user> <pass> option can be used to authenticate the client and \
             select the RESP protocol version at the same time",
        );
    }
    if let Some(name) = hello.name {
        if !is_name(name) {
            return Reply::error(BAD_NAME);
        }
        session.record.update(|state| state.name = owned(name));
    }
    if let Some(protocol) = hello.protocol {
        session.protocol = protocol;
        session.record.update(|state| state.protocol = protocol);
    }
    about(session)
}

/// What HELLO tells of the server.
fn about(session: &Session) -> Reply {
    let version = if session.protocol == Protocol::Resp3 { 3 } else { 2 };
    let mode = super::info::mode(session.door);
    let fields = [
        ("server", Reply::bulk("redis")),
        ("version", Reply::bulk(REDIS_VERSION)),
        ("proto", Reply::Int(version)),
        ("id", Reply::Int(session.record.id as i64)),
        ("mode", Reply::bulk(mode)),
        ("role", Reply::bulk("master")),
        ("modules", Reply::Array(vec![])),
    ];
    Reply::Map(fields.into_iter().map(|(name, value)| (Reply::bulk(name), value)).collect())
}

/// SELECT takes a namespace's name. Redis' numbers: 0 is the default namespace, and a number that
/// is no namespace's name gets the error that clients know.
pub(super) fn select(session: &mut Session, args: &[Bytes]) -> Reply {
    let given = &args[1];
    let name = if &given[..] == b"0" { DEFAULT_NAMESPACE.as_bytes() } else { given };
    let Ok(name) = std::str::from_utf8(name) else {
        return Reply::error("ERR a namespace's name is made of a-z A-Z 0-9 . _ -");
    };
    if name != DEFAULT_NAMESPACE && session.shared.backend.namespace(name).is_none() {
        if integer(given).is_some() && session.door == Door::Cluster {
            return Reply::error("ERR SELECT is not allowed in cluster mode");
        }
        if integer(given).is_some() {
            return Reply::error("ERR DB index is out of range");
        }
        return session.no_namespace(name);
    }
    session.namespace = name.to_owned();
    session.record.update(|state| state.namespace = name.to_owned());
    Reply::Ok
}

pub(super) fn client(session: &mut Session, name: &str, args: &[Bytes]) -> Reply {
    match name {
        "id" => Reply::Int(session.record.id as i64),
        "getname" => {
            let name = session.record.state().name;
            if name.is_empty() { Reply::Null } else { Reply::Bulk(name) }
        }
        // Nothing is tracked, so nothing is sent to anybody.
        "getredir" => Reply::Int(-1),
        "trackinginfo" => Reply::Map(vec![
            (Reply::bulk("flags"), Reply::Set(vec![Reply::bulk("off")])),
            (Reply::bulk("redirect"), Reply::Int(-1)),
            (Reply::bulk("prefixes"), Reply::Array(vec![])),
        ]),
        "setname" => set_name(session, &args[2]),
        "setinfo" => set_info(session, &args[2], &args[3]),
        "info" => {
            let line = [session.record.line(), b"\n".to_vec()].concat();
            Reply::Verbatim(Bytes::from(line))
        }
        "list" => list(session, &args[2..]),
        "reply" => reply(session, &args[2]),
        "unblock" => unblock(session, args),
        // Nothing is ever evicted here.
        "no-evict" => match args[2].to_ascii_lowercase().as_slice() {
            b"on" | b"off" => Reply::Ok,
            _ => syntax_error(),
        },
        _ => unreachable!("client|{name} is in the table"),
    }
}

fn is_name(name: &[u8]) -> bool {
    name.len() <= NAME_BYTES_MAX && name.iter().all(|byte| (b'!'..=b'~').contains(byte))
}

/// A copy: a slice would keep the whole buffer alive that it was read into.
fn owned(bytes: &Bytes) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

fn set_name(session: &Session, name: &Bytes) -> Reply {
    if !is_name(name) {
        return Reply::error(BAD_NAME);
    }
    session.record.update(|state| state.name = owned(name));
    Reply::Ok
}

fn set_info(session: &Session, option: &Bytes, value: &Bytes) -> Reply {
    let lower = option.to_ascii_lowercase();
    let lib_name = lower == b"lib-name";
    if !lib_name && lower != b"lib-ver" {
        return error_about("ERR Unrecognized option '", option, "'");
    }
    if !is_name(value) {
        let option = if lib_name { "lib-name" } else { "lib-ver" };
        let line = format!("ERR {option} cannot contain spaces, newlines or special characters.");
        return Reply::error(line);
    }
    session.record.update(|state| match lib_name {
        true => state.lib_name = owned(value),
        false => state.lib_ver = owned(value),
    });
    Reply::Ok
}

fn reply(session: &mut Session, mode: &Bytes) -> Reply {
    session.silence = match mode.to_ascii_lowercase().as_slice() {
        b"on" => Silence::Off,
        b"off" => Silence::On,
        b"skip" if session.silence == Silence::On => Silence::On,
        b"skip" => Silence::Next,
        _ => return syntax_error(),
    };
    Reply::Ok
}

/// Ends the wait of another connection. 1 also if that is served at this very moment.
fn unblock(session: &Session, args: &[Bytes]) -> Reply {
    let ended = match args {
        [_, _, _] => Ended::TimedOut,
        [_, _, _, reason] if reason.eq_ignore_ascii_case(b"timeout") => Ended::TimedOut,
        [_, _, _, reason] if reason.eq_ignore_ascii_case(b"error") => Ended::Unblocked,
        [_, _, _, _] => {
            return Reply::error("ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR");
        }
        _ => {
            let given = String::from_utf8_lossy(&args[1]);
            return Reply::error(format!(
                "ERR unknown subcommand or wrong number of arguments for '{given}'. Try CLIENT HELP."
            ));
        }
    };
    let Some(id) = integer(&args[2]) else {
        return Reply::error("ERR value is not an integer or out of range");
    };
    let record = u64::try_from(id).ok().and_then(|id| session.shared.clients.find(id));
    Reply::Int(i64::from(record.is_some_and(|record| record.end_wait(ended))))
}

fn list(session: &Session, filter: &[Bytes]) -> Reply {
    let mut records = session.shared.clients.all();
    match filter {
        [] => {}
        [option, kind] if option.eq_ignore_ascii_case(b"type") => {
            match kind.to_ascii_lowercase().as_slice() {
                b"normal" => {}
                b"master" | b"replica" | b"slave" | b"pubsub" => records.clear(),
                _ => return error_about("ERR Unknown client type '", kind, "'"),
            }
        }
        [option, ids @ ..] if option.eq_ignore_ascii_case(b"id") && !ids.is_empty() => {
            let ids: Option<Vec<i64>> = ids.iter().map(|id| integer(id)).collect();
            let Some(ids) = ids else { return Reply::error("ERR Invalid client ID") };
            records.retain(|record| ids.contains(&(record.id as i64)));
        }
        _ => return syntax_error(),
    }
    let mut text = Vec::new();
    for record in records {
        text.extend_from_slice(&record.line());
        text.push(b'\n');
    }
    Reply::Verbatim(Bytes::from(text))
}
