//! The table and the parser.

use super::*;
use crate::codec::{Decoder, Encoder};
use bytes::Bytes;
use proptest::prelude::*;

fn args(words: &[&str]) -> Vec<Bytes> {
    words.iter().map(|word| Bytes::copy_from_slice(word.as_bytes())).collect()
}

fn command(words: &[&str]) -> Command {
    Command::parse(args(words)).unwrap()
}

fn error(words: &[&str]) -> String {
    Command::parse(args(words)).unwrap_err().to_string()
}

#[test]
fn names_are_found_in_any_case() {
    for (index, spec) in TABLE.iter().enumerate() {
        assert_eq!(spec.id as usize, index);
        assert_eq!(lookup(spec.name.as_bytes()), Some(spec));
        assert_eq!(lookup(spec.name.to_ascii_uppercase().as_bytes()), Some(spec));
        assert_eq!(TABLE.iter().filter(|other| other.name == spec.name).count(), 1);
    }
    assert_eq!(lookup(b""), None);
    assert_eq!(lookup(b"get\0"), None);
    assert_eq!(lookup(&[b'g'; 100]), None);
}

#[test]
fn errors_have_the_words_of_redis() {
    assert_eq!(error(&["GET"]), "ERR wrong number of arguments for 'get' command");
    assert_eq!(error(&["MSET", "a", "1", "b"]), {
        "ERR wrong number of arguments for 'mset' command"
    });
    assert_eq!(error(&["foo"]), "ERR unknown command 'foo', with args beginning with: ");
    assert_eq!(error(&["foo", "bar", "baz"]), {
        "ERR unknown command 'foo', with args beginning with: 'bar' 'baz' "
    });
    assert_eq!(error(&["XADD", "s"]), "ERR unknown command 'XADD': there is no type for streams");
    assert_eq!(error(&["foo", &"b".repeat(300), "x"]), {
        format!("ERR unknown command 'foo', with args beginning with: '{}' ", "b".repeat(128))
    });
    let sub = |words: &[&str]| subcommand(Id::Client, &args(words)).unwrap_err().to_string();
    assert_eq!(sub(&["client", "foo"]), "ERR unknown subcommand 'foo'. Try CLIENT HELP.");
    assert_eq!(sub(&["client", "Caching", "yes"]), {
        "ERR unknown subcommand 'Caching': no client is told of changes"
    });
    assert_eq!(sub(&["client", "Id", "x"]), {
        "ERR wrong number of arguments for 'client|id' command"
    });
    assert!(subcommand(Id::Client, &args(&["client", "ID"])).is_ok());
}

#[test]
fn keys_stand_where_the_table_says() {
    let keys = |words: &[&str]| -> Vec<String> {
        let keys = command(words);
        keys.keys().map(|key| String::from_utf8_lossy(key).into()).collect()
    };
    assert_eq!(keys(&["get", "a"]), ["a"]);
    assert_eq!(keys(&["set", "a", "b", "ex", "1"]), ["a"]);
    assert_eq!(keys(&["mget", "a", "b", "a"]), ["a", "b", "a"]);
    assert_eq!(keys(&["mset", "a", "1", "b", "2"]), ["a", "b"]);
    assert_eq!(keys(&["hset", "h", "f", "v"]), ["h"]);
    assert_eq!(keys(&["smove", "a", "b", "m"]), ["a", "b"]);
    assert_eq!(keys(&["sintercard", "2", "a", "b", "limit", "1"]), ["a", "b"]);
    for wrong in ["0", "-1", "4", "x", "99999999999999999999"] {
        assert_eq!(keys(&["sintercard", wrong, "a", "b", "c"]), ["a"], "{wrong}");
    }
    assert_eq!(keys(&["zunionstore", "d", "2", "a", "b", "weights", "1", "2"]), ["d", "a", "b"]);
    for wrong in ["0", "-1", "4", "x"] {
        assert_eq!(keys(&["zunionstore", "d", wrong, "a", "b", "c"]), ["d"], "{wrong}");
    }
    assert_eq!(keys(&["sort", "a"]), ["a"]);
    assert_eq!(keys(&["sort", "a", "desc", "store", "b", "LIMIT", "0", "1"]), ["a", "b"]);
    assert_eq!(keys(&["sort", "a", "STORE", "b", "store", "store", "alpha"]), ["a", "store"]);
    assert_eq!(keys(&["sort", "a", "by", "store", "get", "store", "asc", "store"]), ["a"]);
    assert_eq!(keys(&["sort", "a", "limit", "store", "b"]), ["a"]);
    assert_eq!(keys(&["sort_ro", "a", "get", "store", "b"]), ["a"]);
    let around = |options: &[&'static str]| {
        let words: Vec<&str> = [&["georadius", "a", "store", "x", "1", "km"], options].concat();
        keys(&words)
    };
    assert_eq!(around(&[]), ["a"]);
    assert_eq!(around(&["asc", "STORE", "b"]), ["a", "b"]);
    assert_eq!(around(&["storedist", "b", "count", "1", "store", "c"]), ["a", "c"]);
    assert_eq!(around(&["count", "store", "b", "any", "store"]), ["a"]);
    assert_eq!(keys(&["georadiusbymember", "a", "store", "1", "km", "StoreDist", "b"]), ["a", "b"]);
    assert_eq!(keys(&["georadius_ro", "a", "1", "2", "1", "km", "store", "b"]), ["a"]);
    assert!(keys(&["scan", "0"]).is_empty());
    assert!(keys(&["ping", "0"]).is_empty());
}

#[test]
fn places_and_splits_agree_with_keys() {
    for spec in TABLE.iter().filter(|spec| spec.place != Place::Transaction) {
        assert_eq!(spec.keys.has_keys(), spec.place == Place::Group, "{}", spec.name);
        assert!(spec.keys.last < 0 || spec.split == Split::No, "{}", spec.name);
        let data = spec.place != Place::Connection;
        let flagged = spec.flags.has(Flags::WRITE) != spec.flags.has(Flags::READONLY);
        assert_eq!(data, flagged, "{}: a data command reads or writes", spec.name);
    }
}

#[test]
fn the_documentation_names_every_command() {
    let text = markdown();
    let subs = SUBCOMMANDS.iter().map(|sub| sub.full_name.replace('|', " "));
    for name in TABLE.iter().map(|spec| spec.name.to_owned()).chain(subs) {
        let row = format!("| `{}` | ", name.to_ascii_uppercase());
        assert_eq!(text.matches(&row).count(), 1, "{name}");
    }
    let (table, refused) = text.split_once("\n\n").unwrap();
    assert!(table.lines().all(|line| line.matches('|').count() == 5));
    let (count, refused) = refused.split_once("\n\n").unwrap();
    assert!(count.contains(" of the 366 commands and subcommands of Redis 7.0.15 "), "{count}");
    assert!(refused.lines().all(|line| line.matches('|').count() == 4));
    assert!(refused.contains(", `XGROUP CREATE`, "));
}

proptest! {
    #[test]
    fn commands_survive_the_wire(keys in prop::collection::vec("[a-z]{0,8}", 1..10)) {
        let mut words = vec!["mget"];
        words.extend(keys.iter().map(String::as_str));
        let sent = command(&words);
        let mut out = Encoder::new();
        sent.to_wire(&mut out);
        let bytes = out.into_bytes();
        let mut input = Decoder::shared(&bytes);
        prop_assert_eq!(&Command::from_wire(&mut input).unwrap(), &sent);
        input.finish().unwrap();
        for len in 0..bytes.len() {
            prop_assert!(Command::from_wire(&mut Decoder::new(&bytes[..len])).is_err());
        }
    }

    #[test]
    fn garbage_never_panics(bytes: Vec<u8>, words: Vec<Vec<u8>>) {
        let _ = Command::from_wire(&mut Decoder::new(&bytes));
        let words: Vec<Bytes> = words.into_iter().map(Bytes::from).collect();
        let _ = subcommand(Id::Client, &words);
        if let Ok(command) = Command::parse(words) {
            let _ = command.keys().count();
        }
    }
}
