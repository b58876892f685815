//! What an operator holds back.

use flotilla_topology::api::{LinkState, PeerCluster, Standing};

/// An operator holds the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hold {
    Paused,
    Fenced,
}

impl Hold {
    pub(super) fn of(peer: &PeerCluster) -> Option<Hold> {
        match peer.standing {
            Standing::Fenced => Some(Hold::Fenced),
            Standing::Live | Standing::Returning => peer.paused.then_some(Hold::Paused),
        }
    }

    pub(super) fn state(self) -> LinkState {
        match self {
            Hold::Paused => LinkState::Paused,
            Hold::Fenced => LinkState::Fenced,
        }
    }

    pub(super) fn reason(self) -> &'static str {
        match self {
            Hold::Paused => "paused by an operator: flotilla link resume",
            Hold::Fenced => "fenced by this cluster: flotilla link return",
        }
    }
}
