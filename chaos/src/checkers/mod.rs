//! Checkers: each is named as the invariant it checks, knows only what clients saw or what replicas
//! say of themselves, and shares no code with the system.

pub mod acked_survives;
pub mod bounded;
pub mod converge;
pub mod linearizable;
pub mod no_resurrection;
pub mod origin_order;
pub mod replicas_equal;

use std::collections::BTreeMap;
use std::fmt;

/// What was read in the end: key and, in a hash, field; with the value or its absence.
pub type Finals = BTreeMap<(String, Option<String>), Option<String>>;

/// A promise that was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The invariant, by its name.
    pub invariant: &'static str,
    /// What was seen that must not be.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} violated: {}", self.invariant, self.what)
    }
}

/// A value as it is shown in a message.
fn shown(value: &Option<String>) -> String {
    value.as_ref().map_or_else(|| "nothing".into(), |value| format!("`{value}`"))
}
