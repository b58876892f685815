//! The servers that can be measured, by the names that `--servers` and the tables use.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A server under test.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// redis-server with `appendfsync always`: what the others are compared with.
    Redis,
    /// redis-server that writes nothing to disk: how fast it could be at most.
    RedisUnsynced,
    /// Three etcd nodes; linearizable reads.
    Etcd,
    /// kvrocks, from a binary that is given.
    Kvrocks,
    /// One Flotilla node without replicas: `flotilla node --standalone`.
    Standalone,
    /// The Flotilla cluster through the plain ports of all its nodes in turn.
    Flotilla,
    /// The Flotilla cluster through the plain port of its first node only.
    FlotillaOne,
    /// The Flotilla cluster through its cluster ports, each key at its leader.
    FlotillaCluster,
    /// The same ports after READONLY, any key at any node: reads that may be stale.
    FlotillaReadonly,
}

impl Kind {
    /// Those that `--servers` may name. The last kind answers no writes.
    pub const CHOICE: [Kind; 8] = [
        Kind::Redis,
        Kind::RedisUnsynced,
        Kind::Etcd,
        Kind::Kvrocks,
        Kind::Standalone,
        Kind::Flotilla,
        Kind::FlotillaOne,
        Kind::FlotillaCluster,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Redis => "redis",
            Kind::RedisUnsynced => "redis-unsynced",
            Kind::Etcd => "etcd",
            Kind::Kvrocks => "kvrocks",
            Kind::Standalone => "standalone",
            Kind::Flotilla => "flotilla",
            Kind::FlotillaOne => "flotilla-one",
            Kind::FlotillaCluster => "flotilla-cluster",
            Kind::FlotillaReadonly => "flotilla-readonly",
        }
    }

    /// The kind of a name, or a line that lists the names.
    pub fn parse(name: &str) -> Result<Kind, String> {
        let names = Self::CHOICE.map(Kind::name);
        let found = Self::CHOICE.into_iter().find(|kind| kind.name() == name);
        found.ok_or_else(|| format!("there is no server `{name}`; there are {}", names.join(", ")))
    }

    /// Whether it is a door of the cluster, and not a process of its own.
    pub fn is_cluster(self) -> bool {
        use Kind::{Flotilla, FlotillaCluster, FlotillaOne, FlotillaReadonly};
        matches!(self, Flotilla | FlotillaOne | FlotillaCluster | FlotillaReadonly)
    }

    /// Whether any command on any keys can be sent to it.
    pub fn takes_all(self) -> bool {
        !matches!(self, Kind::Etcd | Kind::FlotillaCluster | Kind::FlotillaReadonly)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_is_understood_and_an_unknown_one_is_answered_with_all() {
        for kind in Kind::CHOICE {
            assert_eq!(Kind::parse(kind.name()), Ok(kind));
            let json = serde_json::to_string(&kind).unwrap();
            assert_eq!(json, format!("\"{kind}\""));
        }
        let error = Kind::parse("flotila").unwrap_err();
        assert_eq!(
            error,
            "there is no server `flotila`; there are redis, redis-unsynced, etcd, kvrocks, \
             standalone, flotilla, flotilla-one, flotilla-cluster"
        );
        assert!(Kind::parse("flotilla-readonly").is_err(), "it takes no writes");
    }
}
