//! What Redis 7.0 has and this has not, and the other way round: so the documentation can say how many
//! of its commands are supported, and an unknown one gets a reason. A test holds it against a running
//! Redis: together with the table it is all of COMMAND DOCS.

/// The release whose commands are counted.
pub const REDIS_COUNTED: &str = "7.0.15";

/// Commands and subcommands of Redis that are refused for one reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// What they are about.
    pub topic: &'static str,
    /// One line: why there are none, or what to use.
    pub why: &'static str,
    /// In lower case, subcommands as `container|name`.
    pub names: &'static [&'static str],
}

macro_rules! refused {
    ($($topic:literal, $why:literal: $($name:literal)*;)*) => {
        /// All of them.
        pub const REFUSED: &[Refused] =
            &[$(Refused { topic: $topic, why: $why, names: &[$($name),*] },)*];
    };
}

refused! {
    "streams", "there is no type for streams":
        "xack" "xadd" "xautoclaim" "xclaim" "xdel" "xgroup" "xgroup|create" "xgroup|createconsumer"
        "xgroup|delconsumer" "xgroup|destroy" "xgroup|help" "xgroup|setid" "xinfo" "xinfo|consumers"
        "xinfo|groups" "xinfo|help" "xinfo|stream" "xlen" "xpending" "xrange" "xread" "xreadgroup"
        "xrevrange" "xsetid" "xtrim";
    "scripts and functions", "nothing is run in the server: use MULTI, WATCH or TXN":
        "eval" "eval_ro" "evalsha" "evalsha_ro" "fcall" "fcall_ro" "function" "function|delete"
        "function|dump" "function|flush" "function|help" "function|kill" "function|list"
        "function|load" "function|restore" "function|stats" "script" "script|debug" "script|exists"
        "script|flush" "script|help" "script|kill" "script|load";
    "publish and subscribe", "messages are not passed on":
        "psubscribe" "publish" "pubsub" "pubsub|channels" "pubsub|help" "pubsub|numpat"
        "pubsub|numsub" "pubsub|shardchannels" "pubsub|shardnumsub" "punsubscribe" "spublish"
        "ssubscribe" "subscribe" "sunsubscribe" "unsubscribe";
    "access control lists", "there is one user, whose password stands in the node's file":
        "acl" "acl|cat" "acl|deluser" "acl|dryrun" "acl|genpass" "acl|getuser" "acl|help" "acl|list"
        "acl|load" "acl|log" "acl|save" "acl|setuser" "acl|users" "acl|whoami";
    "modules", "none can be loaded":
        "module" "module|help" "module|list" "module|load" "module|loadex" "module|unload";
    "replication", "Raft replicates within a cluster and the syncer between clusters; an acknowledged write is on a majority, so there is nothing to WAIT for":
        "failover" "psync" "replconf" "replicaof" "role" "slaveof" "sync" "wait";
    "saving", "the log has every acknowledged write; nothing is saved on demand":
        "bgrewriteaof" "bgsave" "lastsave" "save";
    "changing Redis Cluster", "the placement driver decides where slots lie":
        "asking" "cluster|addslots" "cluster|addslotsrange" "cluster|bumpepoch"
        "cluster|count-failure-reports" "cluster|delslots" "cluster|delslotsrange" "cluster|failover"
        "cluster|flushslots" "cluster|forget" "cluster|meet" "cluster|replicate" "cluster|reset"
        "cluster|saveconfig" "cluster|set-config-epoch" "cluster|setslot";
    "Redis Cluster's slots and replicas", "CLUSTER SHARDS has the replicas, and SCAN the keys":
        "cluster|countkeysinslot" "cluster|getkeysinslot" "cluster|replicas" "cluster|slaves";
    "moving keys", "keys are in one namespace and do not move: use DUMP and RESTORE":
        "migrate" "move" "restore-asking" "swapdb";
    "deleting everything", "find keys with SCAN and delete them with UNLINK":
        "flushall" "flushdb";
    "client-side caching", "no client is told of changes":
        "client|caching" "client|tracking";
    "other connections", "a connection cannot end, stop or watch another one":
        "client|kill" "client|pause" "client|unpause" "monitor";
    "the process", "a supervisor and the node's file control it":
        "config|rewrite" "debug" "lolwut" "shutdown";
    "measurements", "see the metrics and INFO":
        "latency" "latency|doctor" "latency|graph" "latency|help" "latency|histogram" "latency|history"
        "latency|latest" "latency|reset" "memory" "memory|doctor" "memory|help" "memory|malloc-stats"
        "memory|purge" "memory|stats" "memory|usage" "slowlog" "slowlog|get" "slowlog|help"
        "slowlog|len" "slowlog|reset";
    "access times", "no access times are kept":
        "object|idletime";
    "Redis' own tests", "they look into its implementation":
        "command|getkeysandflags" "pfdebug" "pfselftest";
}

/// What the table has beyond Redis 7.0.
pub const BEYOND_REDIS: &[&str] = &[
    "cad",
    "cas",
    "client|setinfo",
    "delex",
    "delifeq",
    "flotilla",
    "flotilla|conflicts",
    "flotilla|help",
    "txn",
];

/// Why a command of Redis is not there, if it is one of those refused.
pub fn refusal_of(name: &[u8]) -> Option<&'static Refused> {
    REFUSED.iter().find(|refused| {
        refused.names.iter().any(|known| name.eq_ignore_ascii_case(known.as_bytes()))
    })
}

#[cfg(test)]
mod tests {
    use super::super::{SUBCOMMANDS, TABLE};
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn nothing_is_both_there_and_refused() {
        let mut there: BTreeSet<&str> = TABLE.iter().map(|spec| spec.name).collect();
        there.extend(SUBCOMMANDS.iter().map(|sub| sub.full_name));
        assert!(BEYOND_REDIS.iter().all(|name| there.contains(name)));
        let mut seen = BTreeSet::new();
        for refused in REFUSED {
            for name in refused.names {
                assert!(!there.contains(name), "{name} is there: take it out of REFUSED");
                assert!(seen.insert(name), "{name} is refused twice");
                assert_eq!(refusal_of(name.to_ascii_uppercase().as_bytes()), Some(refused));
            }
        }
    }
}
