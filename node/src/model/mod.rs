//! The merge model: what a key is, and how two states of it become one.
//!
//! A key has a [`Head`] (type claim, delete floor, expiry, and the value if it is a string) and
//! [`Element`]s (the fields of a hash). Local writes, effects from other clusters and full state
//! all change rows by one pure join, so the order of arrival does not matter. What must always
//! hold, and is tested as laws:
//! * Join is commutative, associative and idempotent.
//! * Joining the [`Effect`] of a write gives what the write itself gave.
//! * What is visible is a function of the joined state and a time: nothing is decided on arrival.
//!
//! Later stamps win, element by element. A delete is a [`Floor`] that hides every older stamp. A
//! counter is a [`Sum`] per cluster over a register that remembers which sums it has absorbed. An
//! expiry that has passed hides what is stamped before it, derived anew at each look and never
//! stored: a longer one, or a delete that voids it, may still be on its way.
//!
//! Namespaces that are not synced use the same rows with [`Stamp::ZERO`] everywhere and delete
//! physically; nothing is ever joined there. Once sync is switched on such a row counts as written by the
//! entry that did it, see [`Synced`].
//!
//! No clock and no IO here. Who evaluates writes is `eval`; where rows lie is `engine`.

mod effect;
mod element;
mod floor;
mod head;
mod integer;
mod row;
mod stability;
mod synced;
#[cfg(test)]
pub(crate) mod tests;

pub use effect::{Effect, effect_of};
pub use element::{Element, Register, Reset, Sum};
pub use floor::Floor;
pub use head::{Claim, Count, Expiry, Head};
pub use integer::{format_integer, parse_integer};
pub use row::{
    decode_element, decode_element_since, decode_head, decode_head_since, encode_element,
    encode_head,
};
pub use stability::{Closed, Stability};
pub use synced::Synced;

use flotilla_topology::stamp::Stamp;
use std::fmt;
use std::ops::{BitOr, BitOrAssign};

/// What a key holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Type {
    /// One value, in the head.
    String = 1,
    /// Fields, an element each.
    Hash = 2,
    /// Elements at positions, which are their names; one that is removed is [removed for
    /// good](Element::remove_for_good).
    List = 3,
    /// Members, an element each, with an empty value.
    Set = 4,
    /// Members with scores, an element each: its value is the score's eight bytes, IEEE 754, big-endian.
    SortedSet = 5,
}

impl Type {
    /// The type with this number in rows.
    pub fn from_number(number: u8) -> Option<Type> {
        match number {
            1 => Some(Type::String),
            2 => Some(Type::Hash),
            3 => Some(Type::List),
            4 => Some(Type::Set),
            5 => Some(Type::SortedSet),
            _ => None,
        }
    }

    /// Whether its values stand in rows of their own.
    pub fn has_elements(self) -> bool {
        self != Type::String
    }

    /// Whether its elements stand in an order of their own, which the order index has.
    pub fn has_order(self) -> bool {
        matches!(self, Type::List | Type::SortedSet)
    }

    /// Its number in rows.
    pub fn number(self) -> u8 {
        self as u8
    }

    /// What TYPE answers.
    pub fn name(self) -> &'static str {
        match self {
            Type::String => "string",
            Type::Hash => "hash",
            Type::List => "list",
            Type::Set => "set",
            Type::SortedSet => "zset",
        }
    }
}

/// Which parts of a row an entry wrote anew. The syncer ships just these; none means that the
/// write was local upkeep, which every cluster does for itself.
#[derive(Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Parts(pub u16);

impl Parts {
    /// Nothing that other clusters need.
    pub const NONE: Parts = Parts(0);
    /// The head's type claim.
    pub const CLAIM: Parts = Parts(1);
    /// The head's delete floor.
    pub const FLOOR: Parts = Parts(2);
    /// The head's expiry.
    pub const EXPIRY: Parts = Parts(4);
    /// An element's register, with the resets made by that write.
    pub const REGISTER: Parts = Parts(8);
    /// The sum of the entry's own origin.
    pub const SUM: Parts = Parts(16);

    /// Whether all of `other` is in here.
    pub fn contains(self, other: Parts) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether there is nothing to ship.
    pub fn is_none(self) -> bool {
        self == Parts::NONE
    }
}

impl BitOr for Parts {
    type Output = Parts;

    fn bitor(self, other: Parts) -> Parts {
        Parts(self.0 | other.0)
    }
}

impl BitOrAssign for Parts {
    fn bitor_assign(&mut self, other: Parts) {
        self.0 |= other.0;
    }
}

impl fmt::Debug for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMES: [&str; 5] = ["claim", "floor", "expiry", "register", "sum"];
        let set = (0..NAMES.len()).filter(|bit| self.0 >> bit & 1 == 1).map(|bit| NAMES[bit]);
        f.debug_list().entries(set).finish()
    }
}

/// The largest millisecond that a stamp can hold.
const STAMP_MS_MAX: u64 = (1 << 48) - 1;

/// The stamp below which a passed expiry at `ms` hides; `ms` may come from another cluster.
fn expiry_stamp(ms: u64) -> Stamp {
    Stamp::floor_at_ms(ms.min(STAMP_MS_MAX))
}
