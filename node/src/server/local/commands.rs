//! COMMAND: the table, as clients ask for it.

use super::super::session::Session;
use super::syntax_error;
use crate::command::{SUBCOMMANDS, Spec, Subcommand, TABLE, glob_matches, lookup};
use crate::resp::Reply;
use bytes::Bytes;

/// All commands.
pub(super) fn all() -> Reply {
    Reply::Array(TABLE.iter().map(entry).collect())
}

pub(super) fn command(_session: &mut Session, name: &str, args: &[Bytes]) -> Reply {
    match name {
        "count" => Reply::Int(TABLE.len() as i64),
        "info" if args.len() == 2 => all(),
        "info" => Reply::Array(args[2..].iter().map(|name| info(name)).collect()),
        "docs" => docs(&args[2..]),
        "getkeys" => get_keys(&args[2..]),
        "list" => list(&args[2..]),
        _ => unreachable!("command|{name} is in the table"),
    }
}

fn info(name: &[u8]) -> Reply {
    match (lookup(name), find_subcommand(name)) {
        (Some(spec), _) => entry(spec),
        (None, Some(sub)) => sub_entry(sub),
        (None, None) => Reply::Null,
    }
}

fn find_subcommand(name: &[u8]) -> Option<&'static Subcommand> {
    SUBCOMMANDS.iter().find(|sub| name.eq_ignore_ascii_case(sub.full_name.as_bytes()))
}

/// The ten elements of a command.
fn entry(spec: &Spec) -> Reply {
    let subs = SUBCOMMANDS.iter().filter(|sub| sub.container == spec.id).map(sub_entry);
    Reply::Array(vec![
        Reply::bulk(spec.name),
        Reply::Int(i64::from(spec.arity)),
        Reply::words(spec.flags.names()),
        Reply::Int(i64::from(spec.keys.first)),
        Reply::Int(i64::from(spec.keys.last)),
        Reply::Int(i64::from(spec.keys.step)),
        Reply::words(spec.categories()),
        Reply::Array(vec![]),
        Reply::Array(key_specs(spec)),
        Reply::Array(subs.collect()),
    ])
}

fn sub_entry(sub: &Subcommand) -> Reply {
    Reply::Array(vec![
        Reply::bulk(sub.full_name),
        Reply::Int(i64::from(sub.arity)),
        Reply::words(["loading", "stale"]),
        Reply::Int(0),
        Reply::Int(0),
        Reply::Int(0),
        Reply::words(["@slow"]),
        Reply::Array(vec![]),
        Reply::Array(vec![]),
        Reply::Array(vec![]),
    ])
}

fn map<const N: usize>(fields: [(&'static str, Reply); N]) -> Reply {
    Reply::Map(fields.into_iter().map(|(name, value)| (Reply::bulk(name), value)).collect())
}

/// Redis' newer form of first, last and step.
fn key_specs(spec: &Spec) -> Vec<Reply> {
    if spec.keys.first == 0 {
        return Vec::new();
    }
    let flags = if spec.is_write() { ["RW", "update"] } else { ["RO", "access"] };
    let first = i64::from(spec.keys.first);
    // Counted from the first key here; negative from the end.
    let last = match i64::from(spec.keys.last) {
        last if last < 0 => last,
        last => last - first,
    };
    let begin =
        map([("type", Reply::bulk("index")), ("spec", map([("index", Reply::Int(first))]))]);
    let range = map([
        ("lastkey", Reply::Int(last)),
        ("keystep", Reply::Int(i64::from(spec.keys.step))),
        ("limit", Reply::Int(0)),
    ]);
    let find = map([("type", Reply::bulk("range")), ("spec", range)]);
    vec![map([("flags", Reply::words(flags)), ("begin_search", begin), ("find_keys", find)])]
}

fn docs(names: &[Bytes]) -> Reply {
    let specs: Vec<&Spec> = match names {
        [] => TABLE.iter().collect(),
        names => names.iter().filter_map(|name| lookup(name)).collect(),
    };
    let doc = |spec: &Spec| {
        let fields = map([
            ("summary", Reply::bulk(spec.summary)),
            ("since", Reply::bulk("1.0.0")),
            ("group", Reply::bulk(spec.family.group())),
            ("complexity", Reply::bulk(spec.complexity)),
        ]);
        (Reply::bulk(spec.name), fields)
    };
    Reply::Map(specs.into_iter().map(doc).collect())
}

fn get_keys(args: &[Bytes]) -> Reply {
    let Some(spec) = args.first().and_then(|name| lookup(name)) else {
        return Reply::error("ERR Invalid command specified");
    };
    if spec.keys.first == 0 {
        return Reply::error("ERR The command has no key arguments");
    }
    if !spec.takes(args.len()) {
        return Reply::error("ERR Invalid number of arguments specified for command");
    }
    Reply::bulks(spec.keys.positions(args.len()).map(|position| args[position].clone()))
}

fn list(filter: &[Bytes]) -> Reply {
    let matches: Box<dyn Fn(&Spec) -> bool> = match filter {
        [] => Box::new(|_| true),
        [by, kind, value] if by.eq_ignore_ascii_case(b"filterby") => {
            let value = value.clone();
            match kind.to_ascii_lowercase().as_slice() {
                b"module" => Box::new(|_| false),
                b"aclcat" => Box::new(move |spec| {
                    let has = |category: &str| {
                        value.eq_ignore_ascii_case(category.trim_start_matches('@').as_bytes())
                    };
                    spec.categories().into_iter().any(has)
                }),
                b"pattern" => {
                    Box::new(move |spec| glob_matches(&value, spec.name.as_bytes(), true))
                }
                _ => return syntax_error(),
            }
        }
        _ => return syntax_error(),
    };
    Reply::bulks(TABLE.iter().filter(|spec| matches(spec)).map(|spec| spec.name))
}
