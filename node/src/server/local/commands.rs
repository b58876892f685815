//! COMMAND: the table, as clients ask for it.

use super::super::session::Session;
use super::syntax_error;
use crate::command::{
    Flags, Id, KeySpec, SUBCOMMANDS, Spec, Subcommand, TABLE, glob_matches, lookup,
    named_subcommand, subcommands_of,
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
    let spec = if spec.id == Id::Object { &bare } else { spec };
    let subs = subcommands_of(spec.id).map(sub_entry).collect();
    elements(spec, spec.categories(), subs)
}

fn sub_entry(sub: &Subcommand) -> Reply {
    let spec = Spec {
        name: sub.full_name,
        arity: sub.arity,
        flags: sub.flags,
        keys: sub.keys(),
        ..*sub.container()
    };
    elements(&spec, sub.categories(), vec![])
}

fn elements(spec: &Spec, categories: Vec<&'static str>, subs: Vec<Reply>) -> Reply {
    Reply::Array(vec![
        Reply::bulk(spec.name),
        Reply::Int(i64::from(spec.arity)),
        Reply::words(spec.flags.names()),
        Reply::Int(i64::from(spec.keys.first)),
        Reply::Int(i64::from(spec.keys.last)),
        Reply::Int(i64::from(spec.keys.step)),
        Reply::words(categories),
        Reply::Set(vec![]),
        Reply::Set(key_specs(spec)),
        Reply::Set(subs),
    ])
}

fn map<const N: usize>(fields: [(&'static str, Reply); N]) -> Reply {
    Reply::Map(fields.into_iter().map(|(name, value)| (Reply::bulk(name), value)).collect())
}

/// Redis' newer form of first, last and step.
fn key_specs(spec: &Spec) -> Vec<Reply> {
    let KeySpec { first, last, step, counted, options } = spec.keys;
    let (first, last, step) = (i64::from(first), i64::from(last), i64::from(step));
    let update = spec.is_write();
    if options.is_some() || spec.id == Id::SortRo {
        let source = key_range(false, first, last, step);
        return std::iter::once(source).chain(named_specs(spec)).collect();
    }
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
    // Counted from the first key here; negative from the end.
    let last = if last < 0 { last } else { last - first };
    key_spec(update, "index", map([("index", Reply::Int(first))]), range(last, step))
}

fn range(last: i64, step: i64) -> (&'static str, Reply) {
    let range = [("lastkey", last), ("keystep", step), ("limit", 0)];
    ("range", map(range.map(|(name, value)| (name, Reply::Int(value)))))
}

fn key_spec(
    update: bool,
    begins: &'static str,
    begin: Reply,
    (found_by, find): (&'static str, Reply),
) -> Reply {
    let flags = if update { ["RW", "update"] } else { ["RO", "access"] };
    let part = |by: &'static str, how| map([("type", Reply::bulk(by)), ("spec", how)]);
    map([
        ("flags", Reply::words(flags)),
        ("begin_search", part(begins, begin)),
        ("find_keys", part(found_by, find)),
    ])
}

/// Keys behind words among the options.
fn named_specs(spec: &Spec) -> Vec<Reply> {
    // Those of SORT's patterns nobody can name, and Redis does not name its target either.
    let unknown = |update| key_spec(update, "unknown", map([]), ("unknown", map([])));
    match (spec.id, spec.keys.options) {
        (Id::Sort, _) => vec![unknown(false), unknown(true)],
        (_, None) => vec![unknown(false)],
        (_, Some(options)) => {
            let from = Reply::Int(i64::from(options.from));
            let behind = |word: &&'static str| {
                let begin = map([("keyword", Reply::bulk(*word)), ("startfrom", from.clone())]);
                key_spec(true, "keyword", begin, range(0, 1))
            };
            options.key_words.iter().map(behind).collect()
        }
    }
}

/// The same where a number stands before the keys.
fn counted_spec(spec: &Spec) -> Reply {
    let at = i64::from(spec.keys.counted);
    let number = [("keynumidx", 0), ("firstkey", 1), ("keystep", 1)];
    let number = map(number.map(|(name, value)| (name, Reply::Int(value))));
    key_spec(false, "index", map([("index", Reply::Int(at))]), ("keynum", number))
}

fn docs(names: &[Bytes]) -> Reply {
    let named = |name: &Bytes| match (lookup(name), find_subcommand(name)) {
        (Some(spec), _) => Some(doc(spec)),
        (None, sub) => sub.map(sub_doc),
    };
    Reply::Map(match names {
        [] => TABLE.iter().map(doc).collect(),
        names => names.iter().filter_map(named).collect(),
    })
}

fn doc(spec: &Spec) -> (Reply, Reply) {
    let mut fields = vec![
        (Reply::bulk("summary"), Reply::bulk(spec.summary)),
        (Reply::bulk("since"), Reply::bulk("1.0.0")),
        (Reply::bulk("group"), Reply::bulk(spec.family.group())),
        (Reply::bulk("complexity"), Reply::bulk(spec.complexity)),
    ];
    let subs: Vec<_> = subcommands_of(spec.id).map(sub_doc).collect();
    if !subs.is_empty() {
        fields.push((Reply::bulk("subcommands"), Reply::Map(subs)));
    }
    (Reply::bulk(spec.name), Reply::Map(fields))
}

fn sub_doc(sub: &Subcommand) -> (Reply, Reply) {
    let fields = map([
        ("summary", Reply::bulk(sub.summary)),
        ("since", Reply::bulk("1.0.0")),
        ("group", Reply::bulk(sub.container().family.group())),
        ("complexity", Reply::bulk(sub.container().complexity)),
    ]);
    (Reply::bulk(sub.full_name), fields)
}

fn get_keys(args: &[Bytes]) -> Reply {
    let unknown = || Reply::error("ERR Invalid command specified");
    let Some(spec) = args.first().and_then(|name| lookup(name)) else { return unknown() };
    let container = args.len() > 1 && subcommands_of(spec.id).next().is_some();
    let (keys, fits) = match container.then(|| named_subcommand(spec.id, &args[1])) {
        None => (spec.keys, spec.takes(args.len())),
        Some(None) => return unknown(),
        Some(Some(sub)) => (sub.keys(), sub.takes(args.len())),
    };
    if !keys.has_keys() {
        return Reply::error("ERR The command has no key arguments");
    }
    if !fits {
        return Reply::error("ERR Invalid number of arguments specified for command");
    }
    if !keys.counts(args) {
        return Reply::error("ERR Invalid arguments specified for command");
    }
    Reply::bulks(keys.positions(args).map(|position| args[position].clone()))
}

/// Names of commands and, behind each, of its subcommands.
fn list(filter: &[Bytes]) -> Reply {
    type Matches<'f> = Box<dyn Fn(&str, &[&str]) -> bool + 'f>;
    let matches: Matches<'_> = match filter {
        [] => Box::new(|_, _| true),
        [by, kind, value] if by.eq_ignore_ascii_case(b"filterby") => {
            match kind.to_ascii_lowercase().as_slice() {
                b"module" => Box::new(|_, _| false),
                b"aclcat" => Box::new(move |_, categories| {
                    let has = |category: &&str| {
                        value.eq_ignore_ascii_case(category.trim_start_matches('@').as_bytes())
                    };
                    categories.iter().any(has)
                }),
                b"pattern" => Box::new(move |name, _| glob_matches(value, name.as_bytes(), true)),
                _ => return syntax_error(),
            }
        }
        _ => return syntax_error(),
    };
    let mut names = Vec::new();
    for spec in TABLE {
        names.extend(matches(spec.name, &spec.categories()).then_some(spec.name));
        let subs = subcommands_of(spec.id);
        names.extend(
            subs.filter(|sub| matches(sub.full_name, &sub.categories())).map(|sub| sub.full_name),
        );
    }
    Reply::bulks(names)
}
