//! Stamps: the total order that merge uses.
//!
//! A stamp is a hybrid logical clock (48 bits of milliseconds since 1970, 16 bits of counter) and
//! the id of the cluster that issued it. The stamps of one cluster id rise for ever, also across
//! its incarnations.

use crate::ids::ClusterId;
use serde::{Deserialize, Serialize};
use std::fmt;

/// A hybrid logical clock reading: `ms << 16 | counter`.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Hlc(pub u64);

impl Hlc {
    /// Before everything; also "never heard".
    pub const ZERO: Hlc = Hlc(0);

    /// The first reading of a millisecond.
    pub fn from_ms(ms: u64) -> Hlc {
        Hlc(ms << 16)
    }

    /// Milliseconds since 1970.
    pub fn ms(self) -> u64 {
        self.0 >> 16
    }

    /// The next reading; a full counter carries into the milliseconds.
    pub fn next(self) -> Hlc {
        Hlc(self.0 + 1)
    }
}

impl fmt::Display for Hlc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.ms(), self.0 & 0xFFFF)
    }
}

/// When and where a command was evaluated. Ordered by clock, then by cluster.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct Stamp {
    /// The clock.
    pub hlc: Hlc,
    /// The cluster that issued it; breaks ties between clusters.
    pub cluster: ClusterId,
}

impl Stamp {
    /// Below every issued stamp; rows of a namespace that is not synced carry it.
    pub const ZERO: Stamp = Stamp { hlc: Hlc::ZERO, cluster: ClusterId(0) };

    /// The derived floor of an expiry at `ms`: below every issued stamp of that millisecond,
    /// since cluster ids start at 1.
    pub fn floor_at_ms(ms: u64) -> Stamp {
        Stamp { hlc: Hlc::from_ms(ms), cluster: ClusterId(0) }
    }

    /// Whether this is [`Stamp::ZERO`].
    pub fn is_zero(self) -> bool {
        self == Stamp::ZERO
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.hlc, self.cluster)
    }
}
