//! INFO: the fields that tools look for, in Redis' sections, and a `Flotilla` section of our own.

use super::super::backend::Door;
use super::super::session::Session;
use super::connection::REDIS_VERSION;
use super::process::{Usage, human, os};
use crate::resp::Reply;
use bytes::Bytes;
use std::fmt::Write;
use std::sync::atomic::Ordering;

/// `(name, title, whether it is shown when none is asked for)`, in Redis' order.
const SECTIONS: [(&str, &str, bool); 14] = [
    ("server", "Server", true),
    ("flotilla", "Flotilla", true),
    ("clients", "Clients", true),
    ("memory", "Memory", true),
    ("persistence", "Persistence", true),
    ("stats", "Stats", true),
    ("replication", "Replication", true),
    ("cpu", "CPU", true),
    ("modules", "Modules", true),
    ("commandstats", "Commandstats", false),
    ("errorstats", "Errorstats", true),
    ("latencystats", "Latencystats", false),
    ("cluster", "Cluster", true),
    ("keyspace", "Keyspace", true),
];

type Fields = Vec<(String, String)>;

pub(super) fn info(session: &Session, args: &[Bytes]) -> Reply {
    let wanted: Vec<String> =
        args[1..].iter().map(|arg| String::from_utf8_lossy(arg).to_ascii_lowercase()).collect();
    let named = |name: &str| wanted.iter().any(|wanted| wanted == name);
    let by_default = wanted.is_empty() || named("default");
    let everything = named("all") || named("everything");
    let mut out = String::new();
    for (name, title, default) in SECTIONS {
        if everything || named(name) || by_default && default {
            section(session, name, title, &mut out);
        }
    }
    Reply::Verbatim(Bytes::from(out))
}

fn section(session: &Session, name: &str, title: &str, out: &mut String) {
    let mut fields = own_fields(session, name);
    for (field, value) in session.shared.backend.info(name) {
        match fields.iter_mut().find(|(own, _)| *own == field) {
            Some(own) => own.1 = value,
            None => fields.push((field, value)),
        }
    }
    if !out.is_empty() {
        out.push_str("\r\n");
    }
    // Writing to a string cannot fail.
    let _ = write!(out, "# {title}\r\n");
    for (field, value) in fields {
        let _ = write!(out, "{field}:{value}\r\n");
    }
}

fn own_fields(session: &Session, name: &str) -> Fields {
    match name {
        "server" => server(session),
        "flotilla" => flotilla(session),
        "clients" => clients(session),
        "memory" => memory(session),
        "persistence" => persistence(),
        "stats" => stats(session),
        "replication" => replication(session),
        "cpu" => cpu(),
        "commandstats" => command_stats(session),
        "errorstats" => error_stats(session),
        "cluster" => fields([("cluster_enabled", cluster_enabled(session.door).to_string())]),
        _ => Fields::new(),
    }
}

fn fields<const N: usize>(fields: [(&str, String); N]) -> Fields {
    fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn fixed<const N: usize>(fields: [(&str, &str); N]) -> Fields {
    fields.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// What clients take the door for.
pub(super) fn mode(door: Door) -> &'static str {
    match door {
        Door::Plain => "standalone",
        Door::Cluster => "cluster",
    }
}

fn cluster_enabled(door: Door) -> u8 {
    u8::from(door == Door::Cluster)
}

fn server(session: &Session) -> Fields {
    let uptime = session.shared.started.elapsed().as_secs();
    let port = session.shared.ports.lock()[session.door as usize];
    let executable = std::env::current_exe().map(|path| path.display().to_string());
    fields([
        ("redis_version", REDIS_VERSION.into()),
        ("flotilla_version", env!("CARGO_PKG_VERSION").into()),
        ("redis_git_sha1", "00000000".into()),
        ("redis_git_dirty", "0".into()),
        ("redis_build_id", "0".into()),
        ("redis_mode", mode(session.door).into()),
        ("os", os()),
        ("arch_bits", "64".into()),
        ("multiplexing_api", "epoll".into()),
        ("process_id", std::process::id().to_string()),
        ("process_supervised", "no".into()),
        ("run_id", session.shared.run_id.clone()),
        ("tcp_port", port.to_string()),
        ("server_time_usec", (crate::clock::wall_ms() * 1000).to_string()),
        ("uptime_in_seconds", uptime.to_string()),
        ("uptime_in_days", (uptime / 86_400).to_string()),
        ("hz", "10".into()),
        ("configured_hz", "10".into()),
        ("lru_clock", "0".into()),
        ("executable", executable.unwrap_or_default()),
        ("config_file", String::new()),
        ("io_threads_active", "1".into()),
    ])
}

fn flotilla(session: &Session) -> Fields {
    let backend = &session.shared.backend;
    let map = backend.map();
    let epoch = map.as_ref().map_or(0, |map| map.epoch.0);
    let cluster = map.as_ref().map_or(String::new(), |map| map.name.clone());
    fields([
        ("flotilla_version", env!("CARGO_PKG_VERSION").into()),
        ("flotilla_node", backend.node().into()),
        ("flotilla_datacenter", backend.datacenter().into()),
        ("flotilla_cluster", cluster),
        ("flotilla_map_epoch", epoch.to_string()),
        ("flotilla_door", session.door.as_str().into()),
        ("flotilla_namespace", session.namespace.clone()),
    ])
}

fn clients(session: &Session) -> Fields {
    let stats = &session.shared.stats;
    let connected = stats.clients.load(Ordering::Relaxed);
    let waiting = stats.waiting.load(Ordering::Relaxed);
    fields([
        ("connected_clients", connected.to_string()),
        ("cluster_connections", "0".into()),
        ("maxclients", session.shared.config.clients_max.to_string()),
        ("client_recent_max_input_buffer", "0".into()),
        ("client_recent_max_output_buffer", "0".into()),
        ("blocked_clients", waiting.to_string()),
        ("tracking_clients", "0".into()),
        ("clients_in_timeout_table", "0".into()),
    ])
}

fn memory(session: &Session) -> Fields {
    let usage = Usage::now();
    fields([
        ("used_memory", usage.resident_bytes.to_string()),
        ("used_memory_human", human(usage.resident_bytes)),
        ("used_memory_rss", usage.resident_bytes.to_string()),
        ("used_memory_rss_human", human(usage.resident_bytes)),
        ("used_memory_peak", usage.resident_peak_bytes.to_string()),
        ("used_memory_peak_human", human(usage.resident_peak_bytes)),
        ("total_system_memory", usage.system_bytes.to_string()),
        ("total_system_memory_human", human(usage.system_bytes)),
        ("used_memory_lua", "0".into()),
        ("maxmemory", "0".into()),
        ("maxmemory_human", "0B".into()),
        ("maxmemory_policy", "noeviction".into()),
        ("mem_fragmentation_ratio", "1.00".into()),
        ("mem_clients_normal", session.shared.budget.used().to_string()),
        ("mem_allocator", "libc".into()),
        ("active_defrag_running", "0".into()),
        ("lazyfree_pending_objects", "0".into()),
    ])
}

fn persistence() -> Fields {
    // Writes are in the synced Raft log before they are answered; there are no RDB or AOF files.
    fixed([
        ("loading", "0"),
        ("async_loading", "0"),
        ("rdb_changes_since_last_save", "0"),
        ("rdb_bgsave_in_progress", "0"),
        ("rdb_last_save_time", "0"),
        ("rdb_last_bgsave_status", "ok"),
        ("rdb_last_bgsave_time_sec", "-1"),
        ("rdb_current_bgsave_time_sec", "-1"),
        ("aof_enabled", "0"),
        ("aof_rewrite_in_progress", "0"),
        ("aof_rewrite_scheduled", "0"),
        ("aof_last_rewrite_time_sec", "-1"),
        ("aof_current_rewrite_time_sec", "-1"),
        ("aof_last_bgrewrite_status", "ok"),
        ("aof_last_write_status", "ok"),
    ])
}

fn stats(session: &Session) -> Fields {
    let stats = &session.shared.stats;
    let load = |value: &std::sync::atomic::AtomicU64| value.load(Ordering::Relaxed).to_string();
    let mut all = fields([
        ("total_connections_received", load(&stats.accepted)),
        ("total_commands_processed", stats.calls().to_string()),
        ("instantaneous_ops_per_sec", stats.calls_per_second().to_string()),
        ("total_net_input_bytes", load(&stats.bytes_in)),
        ("total_net_output_bytes", load(&stats.bytes_out)),
        ("rejected_connections", load(&stats.rejected)),
        ("total_error_replies", load(&stats.error_replies)),
    ]);
    all.extend(fixed([
        ("instantaneous_input_kbps", "0.00"),
        ("instantaneous_output_kbps", "0.00"),
        ("sync_full", "0"),
        ("sync_partial_ok", "0"),
        ("sync_partial_err", "0"),
        ("expired_keys", "0"),
        ("evicted_keys", "0"),
        ("evicted_clients", "0"),
        ("keyspace_hits", "0"),
        ("keyspace_misses", "0"),
        ("pubsub_channels", "0"),
        ("pubsub_patterns", "0"),
        ("latest_fork_usec", "0"),
        ("total_forks", "0"),
        ("migrate_cached_sockets", "0"),
        ("slave_expires_tracked_keys", "0"),
        ("active_defrag_hits", "0"),
        ("active_defrag_misses", "0"),
        ("active_defrag_key_hits", "0"),
        ("active_defrag_key_misses", "0"),
    ]));
    all
}

fn replication(session: &Session) -> Fields {
    // Every node takes writes; how Raft replicates is in the Flotilla section.
    fields([
        ("role", "master".into()),
        ("connected_slaves", "0".into()),
        ("master_failover_state", "no-failover".into()),
        ("master_replid", session.shared.run_id.clone()),
        ("master_replid2", "0".repeat(40)),
        ("master_repl_offset", "0".into()),
        ("second_repl_offset", "-1".into()),
        ("repl_backlog_active", "0".into()),
        ("repl_backlog_size", "0".into()),
        ("repl_backlog_first_byte_offset", "0".into()),
        ("repl_backlog_histlen", "0".into()),
    ])
}

fn cpu() -> Fields {
    let usage = Usage::now();
    fields([
        ("used_cpu_sys", format!("{:.6}", usage.system_seconds)),
        ("used_cpu_user", format!("{:.6}", usage.user_seconds)),
        ("used_cpu_sys_children", "0.000000".into()),
        ("used_cpu_user_children", "0.000000".into()),
    ])
}

fn command_stats(session: &Session) -> Fields {
    let row = |(name, calls, failed, time): (&str, u64, u64, std::time::Duration)| {
        let usec = time.as_micros();
        let per_call = usec as f64 / calls.max(1) as f64;
        let value = format!(
            "calls={calls},usec={usec},usec_per_call={per_call:.2},rejected_calls=0,\
             failed_calls={failed}"
        );
        (format!("cmdstat_{name}"), value)
    };
    session.shared.stats.per_command().into_iter().map(row).collect()
}

fn error_stats(session: &Session) -> Fields {
    let row = |(code, count)| (format!("errorstat_{code}"), format!("count={count}"));
    session.shared.stats.errors().into_iter().map(row).collect()
}
