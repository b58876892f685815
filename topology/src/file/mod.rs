//! The topology file: what the owner declares, in TOML.
//!
//! [`TopologyFile`] is the declaration as data: the demo makes one and writes it with
//! [`TopologyFile::to_toml`]. A file is read with [`crate::Topology::parse`], which gives the
//! *checked* form or every [`Problem`] at once, each with its line and its remedy.
//!
//! Not here: what the declaration leaves open (mode, clusters, links), see [`crate::plan`].

mod raw;

pub(crate) mod validate;

mod problem;

pub use problem::{Problem, Problems};

use crate::duration::Ms;
use crate::ids::ClusterId;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Largest file that is read: far above any real one, small enough to parse in no time.
pub const FILE_BYTES_MAX: usize = 1 << 20;
/// Datacenters in a file.
pub const DATACENTERS_MAX: usize = 64;
/// Datacenters of one cluster: the plan looks at every way to spread replicas over them.
pub const CLUSTER_DATACENTERS_MAX: usize = 12;
/// Longest round trip time: beyond it no election could end within minutes.
pub const RTT_MS_MAX: f64 = 10_000.0;
/// Voters of each group that the plan assumes where a cluster does not say.
pub const REPLICAS_DEFAULT: u8 = 3;

/// How clusters and datacenters go together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Every cluster stands in one datacenter; links carry writes between them.
    Async,
    /// One cluster spans all datacenters.
    Stretched,
    /// Several clusters, of which at least one spans datacenters.
    Mixed,
}

impl Mode {
    /// The word used in files and reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Mode::Async => "async",
            Mode::Stretched => "stretched",
            Mode::Mixed => "mixed",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A topology as its owner declares it.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct TopologyFile {
    /// Selected by [`crate::plan`] when left open.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// Names of the regions that datacenters may stand in.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub regions: Vec<String>,
    /// What the owner wants of it.
    #[serde(skip_serializing_if = "Wants::is_empty")]
    pub wants: Wants,
    /// All datacenters.
    #[serde(rename = "datacenter", skip_serializing_if = "Vec::is_empty")]
    pub datacenters: Vec<Datacenter>,
    /// Round trip times, one for each pair of datacenters.
    #[serde(rename = "rtt", skip_serializing_if = "Vec::is_empty")]
    pub rtts: Vec<Rtt>,
    /// All clusters. Left out, they follow from the mode.
    #[serde(rename = "cluster", skip_serializing_if = "Vec::is_empty")]
    pub clusters: Vec<Cluster>,
    /// All links. Left out, every cluster is linked to every other in both directions.
    #[serde(rename = "link", skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<Link>,
}

/// What the owner wants; each is checked against the plan.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Wants {
    /// Acknowledged writes of at most this long may be lost with a datacenter; 0 is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rpo: Option<Ms>,
    /// A write takes at most this long while nothing is broken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub write_latency: Option<Ms>,
    /// Losses that must leave all data served: the name of a datacenter or region, or `datacenter`,
    /// `region` or `link` for any one of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub survive: Vec<String>,
}

impl Wants {
    fn is_empty(&self) -> bool {
        *self == Wants::default()
    }
}

/// A failure domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Datacenter {
    /// Its name.
    pub name: String,
    /// The region that it stands in, if regions matter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
}

/// The round trip time between two datacenters.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Rtt {
    /// The two, in any order.
    pub between: [String; 2],
    /// The time.
    pub rtt: Ms,
}

/// The nodes that share one PD and one set of Raft groups.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Cluster {
    /// 1 to 255, never changed and never reused: it is in every stamp and certificate.
    pub id: ClusterId,
    /// Its name.
    pub name: String,
    /// Where its nodes stand.
    pub datacenters: Vec<String>,
    /// `host:port` of the internal port of each of its PDs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pd: Vec<String>,
    /// `host:port` (UDP) where other clusters reach each of its syncers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub syncers: Vec<String>,
    /// Voters of each group that the plan assumes; namespaces decide for themselves.
    pub replicas: u8,
}

/// The directed replication from one cluster to another. There is nothing to say about its
/// certificates: links are mutual TLS always, so one without cannot be written down.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Link {
    /// Name of the sending cluster.
    pub from: String,
    /// Name of the receiving cluster.
    pub to: String,
}

impl TopologyFile {
    /// The declaration as a file, which [`crate::Topology::parse`] reads back to the same.
    pub fn to_toml(&self) -> String {
        // Strings, integers and lists of tables: nothing in here can fail to be TOML.
        toml::to_string(self).expect("a topology file is made of what TOML can hold")
    }
}

#[cfg(test)]
mod tests;
