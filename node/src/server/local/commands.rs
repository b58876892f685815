//! COMMAND: the table, as clients ask for it.

use super::super::session::Session;
use super::syntax_error;
use crate::command::{
    Flags, Id, KeySpec, SUBCOMMANDS, Spec, Subcommand, TABLE, glob_matches, lookup,
};
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
    // Redis shows the keys of OBJECT with its subcommands.
    let bare = Spec { keys: KeySpec::NONE, flags: Flags::NONE, ..*spec };
    let container = spec.id == Id::Object;
    let categories = if container { vec!["@slow"] } else { spec.categories() };
    let spec = if container { &bare } else { spec };
    let subs = SUBCOMMANDS.iter().filter(|sub| sub.container == spec.id).map(sub_entry);
    Reply::Array(vec![
        Reply::bulk(spec.name),
        Reply::Int(i64::from(spec.arity)),
        Reply::words(spec.flags.names()),
        Reply::Int(i64::from(spec.keys.first)),
        Reply::Int(i64::from(spec.keys.last)),
        Reply::Int(i64::from(spec.keys.step)),
        Reply::words(categories),
        Reply::Array(vec![]),
        Reply::Array(key_specs(spec)),
        Reply::Array(subs.collect()),
    ])
}

fn sub_entry(sub: &Subcommand) -> Reply {
    let container = TABLE.iter().find(|spec| spec.id == sub.container && sub.name() != "help");
    if let Some(spec) = container.filter(|spec| spec.keys.first > 0) {
        return Reply::Array(vec![
            Reply::bulk(sub.full_name),
            Reply::Int(i64::from(sub.arity)),
            Reply::words(spec.flags.names()),
            Reply::Int(i64::from(spec.keys.first)),
            Reply::Int(i64::from(spec.keys.last)),
            Reply::Int(i64::from(spec.keys.step)),
            Reply::words(spec.categories()),
            Reply::Array(vec![]),
            Reply::Array(key_specs(spec)),
            Reply::Array(vec![]),
        ]);
    }
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
    let KeySpec { first, last, step, counted } = spec.keys;
    let (first, last, step) = (i64::from(first), i64::from(last), i64::from(step));
    let update = spec.is_write();
    if counted > 0 {
        let target = (first > 0).then(|| key_range(update, first, last, step));
        return target.into_iter().chain([counted_spec(spec)]).collect();
    }
    if first == 0 {
        return Vec::new();
    }
    // The first key of these has another part to play than the others.
    let stores = matches!(spec.id, Id::SinterStore | Id::SunionStore | Id::SdiffStore);
    let two = update && spec.keys == KeySpec::TWO;
    if stores || two || matches!(spec.id, Id::BitOp | Id::PfMerge) {
        return vec![key_range(update, first, first, 1), key_range(update, first + 1, last, step)];
    }
    vec![key_range(update, first, last, step)]
}

fn key_range(update: bool, first: i64, last: i64, step: i64) -> Reply {
    let flags = if update { ["RW", "update"] } else { ["RO", "access"] };
    // Counted from the first key here; negative from the end.
    let last = if last < 0 { last } else { last - first };
    let begin =
        map([("type", Reply::bulk("index")), ("spec", map([("index", Reply::Int(first))]))]);
    let range = map([
        ("lastkey", Reply::Int(last)),
        ("keystep", Reply::Int(step)),
        ("limit", Reply::Int(0)),
    ]);
    let find = map([("type", Reply::bulk("range")), ("spec", range)]);
    map([("flags", Reply::words(flags)), ("begin_search", begin), ("find_keys", find)])
}

/// The same where a number stands before the keys.
fn counted_spec(spec: &Spec) -> Reply {
    let at = i64::from(spec.keys.counted);
    let begin = map([("type", Reply::bulk("index")), ("spec", map([("index", Reply::Int(at))]))]);
    let number = map([
        ("keynumidx", Reply::Int(0)),
        ("firstkey", Reply::Int(1)),
        ("keystep", Reply::Int(1)),
    ]);
    let find = map([("type", Reply::bulk("keynum")), ("spec", number)]);
    let flags = Reply::words(["RO", "access"]);
    map([("flags", flags), ("begin_search", begin), ("find_keys", find)])
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
    if !spec.keys.has_keys() {
        return Reply::error("ERR The command has no key arguments");
    }
    if !spec.takes(args.len()) {
        return Reply::error("ERR Invalid number of arguments specified for command");
    }
    Reply::bulks(spec.keys.positions(args).map(|position| args[position].clone()))
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
