//! CONFIG: what this node's settings are, in Redis' words where it has one.

use super::super::backend::Door;
use super::super::session::Session;
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
    let wanted =
        |name: &String| patterns.iter().any(|pattern| glob_matches(pattern, name.as_bytes(), true));
    let pairs = settings(session)
        .into_iter()
        .filter(|(name, _)| wanted(name))
        .map(|(name, value)| (Reply::bulk(name), Reply::bulk(value)));
    Reply::Map(pairs.collect())
}

/// Settings live in the node's file. Setting one to the value that it has is no change.
fn set(session: &Session, pairs: &[Bytes]) -> Reply {
    let settings = settings(session);
    if !pairs.len().is_multiple_of(2) {
        return super::syntax_error();
    }
    for pair in pairs.chunks(2) {
        let name = String::from_utf8_lossy(&pair[0]).to_ascii_lowercase();
        match settings.get(&name) {
            None => {
                let line = "ERR Unknown option or number of arguments for CONFIG SET";
                return Reply::error(format!("{line} - '{name}'"));
            }
            Some(value) if value.as_bytes() == &pair[1][..] => {}
            Some(_) => {
                let line = "ERR CONFIG SET failed (possibly related to argument";
                return Reply::error(format!(
                    "{line} '{name}') - can't set immutable config; set it in the node's file"
                ));
            }
        }
    }
    Reply::Ok
}
