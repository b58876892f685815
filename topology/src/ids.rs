//! Names and numbers of the things that Flotilla is made of. Ids are types, never bare integers.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($int:ty)) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub $int);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

id!(
    /// A cluster: the nodes that share one PD and one set of Raft groups. 1 to 255; 0 means none.
    ClusterId(u8)
);
id!(
    /// A namespace of one cluster, given out by its PD and never reused.
    NamespaceId(u32)
);
id!(
    /// A Raft group of one cluster, given out by its PD and never reused.
    GroupId(u32)
);
id!(
    /// One replica's tenure in one group: the Raft node id. Given out by PD and never used twice,
    /// since Raft takes a member that comes back without its log for one that still has it.
    ReplicaId(u64)
);
id!(
    /// Version of a cluster's partition map. Every request that could be stale carries one.
    Epoch(u64)
);
id!(
    /// Changes when a cluster is restored, cloned or forcibly recovered, so that positions of its
    /// former life are never taken for positions of the new one. Counts from 1.
    Incarnation(u32)
);

/// Where an entry was born: a cluster in one of its lives.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct Origin {
    /// The cluster that evaluated the client's command.
    pub cluster: ClusterId,
    /// Its life at that time.
    pub incarnation: Incarnation,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.cluster, self.incarnation)
    }
}

/// Position in a Raft log: the full id, because an index alone is ambiguous after a truncation.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct LogId {
    /// Term of the leader that appended the entry.
    pub term: u64,
    /// Index in the log, from 1; 0 is the position before the first entry.
    pub index: u64,
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.term, self.index)
    }
}

/// What a process is, as its certificate says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// A storage server.
    Node,
    /// The edge of a cluster.
    Syncer,
    /// A placement driver.
    Pd,
    /// An operator's command line.
    Client,
}

impl Role {
    /// The word used in certificates, configuration and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Node => "node",
            Role::Syncer => "syncer",
            Role::Pd => "pd",
            Role::Client => "client",
        }
    }
}

/// Who a process is: the URI in its certificate, `flotilla://<cluster id>/<role>/<name>`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Identity {
    /// The cluster it belongs to.
    pub cluster: ClusterId,
    /// What it is there.
    pub role: Role,
    /// Its name, unique among the processes of that role in the cluster.
    pub name: String,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "flotilla://{}/{}/{}", self.cluster, self.role.as_str(), self.name)
    }
}

/// The text is not `flotilla://<cluster id>/<role>/<name>`.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not flotilla://<cluster id 1-255>/<node|syncer|pd|client>/<name>")]
pub struct IdentityError(String);

impl FromStr for Identity {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, IdentityError> {
        let bad = || IdentityError(text.to_owned());
        let rest = text.strip_prefix("flotilla://").ok_or_else(bad)?;
        let mut parts = rest.splitn(3, '/');
        let cluster: u8 = parts.next().and_then(|p| p.parse().ok()).ok_or_else(bad)?;
        let role = match parts.next().ok_or_else(bad)? {
            "node" => Role::Node,
            "syncer" => Role::Syncer,
            "pd" => Role::Pd,
            "client" => Role::Client,
            _ => return Err(bad()),
        };
        let name = parts.next().ok_or_else(bad)?;
        if cluster == 0 || name.is_empty() || name.contains('/') {
            return Err(bad());
        }
        Ok(Identity { cluster: ClusterId(cluster), role, name: name.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identity_survives_its_text_form() {
        let id = Identity { cluster: ClusterId(7), role: Role::Syncer, name: "east-s1".into() };
        assert_eq!(id.to_string().parse::<Identity>().unwrap(), id);
    }

    #[test]
    fn identity_refuses_what_it_cannot_be() {
        for text in ["", "flotilla://0/node/a", "flotilla://256/node/a", "flotilla://1/king/a"] {
            assert!(text.parse::<Identity>().is_err(), "{text}");
        }
        assert!("flotilla://1/node/".parse::<Identity>().is_err());
        assert!("flotilla://1/node/a/b".parse::<Identity>().is_err());
    }
}
