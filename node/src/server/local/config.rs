//! CONFIG: what this node's settings are, in Redis' words where it has one.

use super::super::backend::Door;
use super::super::session::Session;
use super::{error_about, syntax_error};
use crate::command::glob_matches;
use crate::resp::Reply;
use bytes::Bytes;
use std::collections::BTreeMap;

pub(super) fn config(session: &mut Session, name: &str, args: &[Bytes]) -> Reply {
    match name {
        "get" => get(session, &args[2..]),
        "set" => set(session, &args[2..]),
        "resetstat" => {
            session.shared.stats.reset();
            Reply::Ok
        }
        _ => unreachable!("config|{name} is in the table"),
    }
}

/// All settings by name.
fn settings(session: &Session) -> BTreeMap<String, String> {
    let config = &session.shared.config;
    let port = session.shared.ports.lock()[session.door as usize];
    let cluster = if session.door == Door::Cluster { "yes" } else { "no" };
    let own = [
        // What clients and tools ask for. Durability is the Raft log's, synced before the reply.
        ("appendfsync", "always".to_owned()),
        ("appendonly", "yes".to_owned()),
        ("cluster-enabled", cluster.to_owned()),
        ("databases", "1".to_owned()),
        ("maxclients", config.clients_max.to_string()),
        ("maxmemory", "0".to_owned()),
        ("maxmemory-clients", config.clients_memory_max.to_string()),
        ("maxmemory-policy", "noeviction".to_owned()),
        ("notify-keyspace-events", String::new()),
        ("port", port.to_string()),
        ("proto-max-bulk-len", config.limits.bulk_bytes.to_string()),
        ("replica-read-only", "yes".to_owned()),
        ("save", String::new()),
        ("slave-read-only", "yes".to_owned()),
        ("timeout", config.idle_max.as_secs().to_string()),
    ];
    let mut all: BTreeMap<String, String> =
        own.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    all.extend(session.shared.backend.settings());
    all
}

fn get(session: &Session, patterns: &[Bytes]) -> Reply {
    let settings = settings(session);
    // Each once, under its name as it was first given, or its own where a pattern matches.
    let mut found: BTreeMap<&str, Bytes> = BTreeMap::new();
    for pattern in patterns {
        if pattern.iter().any(|byte| b"*?[".contains(byte)) {
            let matches = |name: &&String| glob_matches(pattern, name.as_bytes(), true);
            for name in settings.keys().filter(matches) {
                found.entry(name).or_insert_with(|| Bytes::from(name.clone()));
            }
        } else if let Some((name, _)) = settings.get_key_value(&lower(pattern)) {
            found.entry(name).or_insert_with(|| pattern.clone());
        }
    }
    let pair = |(name, shown)| (Reply::Bulk(shown), Reply::bulk(settings[name].clone()));
    Reply::Map(found.into_iter().map(pair).collect())
}

fn lower(name: &[u8]) -> String {
    String::from_utf8_lossy(name).to_ascii_lowercase()
}

/// Settings live in the node's file. Setting one to the value that it has is no change.
fn set(session: &Session, pairs: &[Bytes]) -> Reply {
    let settings = settings(session);
    if !pairs.len().is_multiple_of(2) {
        return syntax_error();
    }
    // Redis looks at all names before it looks at any value.
    for (index, pair) in pairs.chunks(2).enumerate() {
        let name = &pair[0];
        if !settings.contains_key(&lower(name)) {
            let line = "ERR Unknown option or number of arguments for CONFIG SET - '";
            return error_about(line, name, "'");
        }
        if pairs.chunks(2).take(index).any(|other| other[0].eq_ignore_ascii_case(name)) {
            return refused(name, "duplicate parameter");
        }
    }
    for pair in pairs.chunks(2) {
        let name = lower(&pair[0]);
        if settings.get(&name).is_none_or(|value| value.as_bytes() != &pair[1][..]) {
            return refused(&pair[0], "can't set immutable config; set it in the node's file");
        }
    }
    Reply::Ok
}

fn refused(name: &[u8], why: &str) -> Reply {
    let line = "ERR CONFIG SET failed (possibly related to argument '";
    error_about(line, name, &format!("') - {why}"))
}
