//! Delete floors: everything stamped below one is hidden, whenever it arrives.

use flotilla_topology::stamp::Stamp;

/// Hides what is stamped below it. A delete hides stamps strictly below its own, so that an
/// overwrite may put floor and value under one stamp; the floor that a lost type claim leaves
/// hides that claim's stamp too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Floor {
    /// Where it stands.
    pub stamp: Stamp,
    /// Whether it hides that very stamp as well.
    pub inclusive: bool,
}

impl Floor {
    /// Hides nothing.
    pub const NONE: Floor = Floor { stamp: Stamp::ZERO, inclusive: false };

    /// Hides everything before `stamp`.
    pub fn below(stamp: Stamp) -> Floor {
        Floor { stamp, inclusive: false }
    }

    /// Hides everything up to `stamp`, included.
    pub fn through(stamp: Stamp) -> Floor {
        Floor { stamp, inclusive: true }
    }

    /// Whether what carries `stamp` is hidden.
    pub fn hides(self, stamp: Stamp) -> bool {
        stamp < self.stamp || (self.inclusive && stamp == self.stamp)
    }

    /// Whether it hides nothing.
    pub fn is_none(self) -> bool {
        self == Floor::NONE
    }
}
