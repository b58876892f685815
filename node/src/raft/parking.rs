//! Whether one replica is parked: the library's clock stands, so there are neither heartbeats nor
//! elections, and the group costs nothing. Sans-io: time, what the log holds and what others say are given.
//!
//! ```text
//!            nothing new for a while             it is used, a message came, a majority is silent
//!  awake ──────────────────────────────▶ parked ─────────────────────────────────────────────────▶ waking
//!    ▲            a leader lists it         (leads or follows)                                         │
//!    └────────────────────────────────────────────────────────────────────────────────────────────────┘
//!                       a majority has answered (leader), or the next round
//! ```
//!
//! A leader that is parked lists its group to the other voters once a round ([`super::herd`]), and each
//! listing counts for what a heartbeat counts for in an election: a voter that hears it refuses its vote for
//! a lease, and stands for election a random time after that. It is no lease: a parked leader answers no
//! read before a majority has answered a real heartbeat. So nothing here decides what is safe: who parks
//! only asks for no votes, and gives none.

use super::types::Settings;
use flotilla_topology::ids::ReplicaId;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::{Duration, Instant};

/// What a majority of the voters have, and all that can be reached, when they park: this leader's whole log,
/// committed and applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rest {
    /// The leader's term.
    pub(super) term: u64,
    /// The last entry's index.
    pub(super) index: u64,
}

/// In which way a replica is parked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Parked {
    /// It leads.
    Leads,
    /// It follows.
    Follows,
}

/// What a request for votes gets.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ballot {
    /// The library decides.
    Pass,
    /// No vote: the leader is there.
    Refuse,
    /// No vote: we lead, and show it now.
    Lead,
}

enum State {
    Awake {
        /// How the leader has stood, and since when.
        rest: Option<(Rest, Instant)>,
        /// No parking before.
        not_before: Option<Instant>,
    },
    Leads {
        rest: Rest,
        /// When each other voter last agreed.
        heard: BTreeMap<ReplicaId, Instant>,
    },
    Follows {
        leader: ReplicaId,
        /// When it last listed us.
        heard: Instant,
        /// Drawn by chance, so that followers do not all stand at once.
        patience: Duration,
    },
    /// Ticks run again (leader), or from the next round on (follower: what woke it is handled first).
    Waking {
        /// No parking before.
        not_before: Option<Instant>,
    },
}

const AWAKE: u8 = 0;
const WAKING: u8 = 1;
const PARKED: u8 = 2;

/// See the module.
pub(super) struct Parking {
    /// `AWAKE`, `WAKING` or `PARKED`, as `state` says; to be read without its lock.
    mode: AtomicU8,
    /// Somebody read or proposed since the last round.
    used: AtomicBool,
    state: Mutex<State>,
    /// Lets the library's clock run or stand. Called under the lock, so in the order of the changes.
    tick: Box<dyn Fn(bool) + Send + Sync>,
}

impl Parking {
    /// Of a replica that is awake.
    pub(super) fn new(tick: impl Fn(bool) + Send + Sync + 'static) -> Parking {
        let state = Mutex::new(State::Awake { rest: None, not_before: None });
        let (mode, used) = (AtomicU8::new(AWAKE), AtomicBool::new(false));
        Parking { mode, used, state, tick: Box::new(tick) }
    }

    /// A read or a proposal begins. True if it must be made sure first that a majority answers.
    pub(super) fn note_use(&self) -> bool {
        if !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Relaxed);
        }
        self.mode.load(Ordering::Acquire) != AWAKE
    }

    /// Whether it is parked, from whichever side.
    pub(super) fn is_parked(&self) -> bool {
        self.mode.load(Ordering::Acquire) == PARKED
    }

    /// In which way it is parked, if it is.
    pub(super) fn parked(&self) -> Option<Parked> {
        match *self.state.lock() {
            State::Leads { .. } => Some(Parked::Leads),
            State::Follows { .. } => Some(Parked::Follows),
            State::Awake { .. } | State::Waking { .. } => None,
        }
    }

    /// Ends parking of a leader; whether it was parked, and has to show now that it lives.
    pub(super) fn wake_leader(&self) -> bool {
        if !self.is_parked() {
            return false;
        }
        let mut state = self.state.lock();
        let leads = matches!(*state, State::Leads { .. });
        if leads {
            (self.tick)(true);
            self.set(&mut state, State::Waking { not_before: None });
        }
        leads
    }

    /// A message came for this replica, other than a listing or a request for votes. A follower's clock
    /// runs from the next round on: before that the message is handled, or it would look as if its leader
    /// had been silent for all the time that it was parked.
    pub(super) fn hear(&self) {
        if self.wake_leader() || !self.is_parked() {
            return;
        }
        let mut state = self.state.lock();
        if matches!(*state, State::Follows { .. }) {
            self.set(&mut state, State::Waking { not_before: None });
        }
    }

    /// A majority has answered this leader since it woke.
    pub(super) fn woken(&self) {
        let mut state = self.state.lock();
        if matches!(*state, State::Waking { .. }) {
            self.set(&mut state, State::Awake { rest: None, not_before: None });
        }
    }

    /// Once a round, on a replica that leads: `rest` is how it stands if it could park, `voters` the other
    /// voters. True if it is parked and is to be listed to them. `late`: so long did this process itself not
    /// run, in which it took no answers.
    pub(super) fn lead(
        &self,
        rest: Option<Rest>,
        voters: impl Iterator<Item = ReplicaId>,
        late: Duration,
        settings: &Settings,
        now: Instant,
    ) -> bool {
        let used = self.used.swap(false, Ordering::Relaxed);
        let mut state = self.state.lock();
        match &mut *state {
            State::Awake { rest: before, not_before } => {
                let Some(rest) = rest.filter(|_| !used) else {
                    *before = None;
                    return false;
                };
                let (_, since) = *before.insert(match *before {
                    Some((same, since)) if same == rest => (same, since),
                    _ => (rest, now),
                });
                let may = not_before.is_none_or(|at| now >= at);
                let parks = settings.park_after_ms > 0 && may;
                if !parks || now < since + Duration::from_millis(settings.park_after_ms) {
                    return false;
                }
                (self.tick)(false);
                let heard = voters.map(|voter| (voter, now)).collect();
                self.set(&mut state, State::Leads { rest, heard });
                true
            }
            State::Leads { rest: agreed, heard } => {
                // Ourselves included: who is down may stay away while the others have everything.
                heard.values_mut().for_each(|at| *at = now.min(*at + late));
                let voters = heard.len() + 1;
                let there = heard.values().filter(|at| now <= **at + settings.lease()).count() + 1;
                let silent = there * 2 <= voters;
                if rest == Some(*agreed) && !silent && !used {
                    return true;
                }
                (self.tick)(true);
                let not_before = silent.then(|| now + settings.park_again());
                self.set(&mut state, State::Waking { not_before });
                false
            }
            State::Waking { not_before } => {
                let not_before = *not_before;
                (self.tick)(true);
                self.set(&mut state, State::Awake { rest: None, not_before });
                false
            }
            // It was elected meanwhile.
            State::Follows { .. } => {
                (self.tick)(true);
                self.set(&mut state, State::Waking { not_before: None });
                false
            }
        }
    }

    /// A voter's answer to being listed. True if it ends parking: the leader has to show that it lives.
    pub(super) fn answered(
        &self,
        voter: ReplicaId,
        (listed, agreed): (Rest, bool),
        settings: &Settings,
        now: Instant,
    ) -> bool {
        let mut state = self.state.lock();
        let State::Leads { rest, heard } = &mut *state else { return false };
        if *rest != listed {
            return false;
        }
        if agreed {
            heard.insert(voter, now);
            return false;
        }
        (self.tick)(true);
        let not_before = Some(now + settings.park_again());
        self.set(&mut state, State::Waking { not_before });
        true
    }

    /// A leader lists this replica. `agrees`: it follows that leader and has all that it has. Whether it is
    /// parked now; `patience` is for [`Parking::follow`].
    pub(super) fn listed(
        &self,
        leader: ReplicaId,
        agrees: bool,
        patience: Duration,
        now: Instant,
    ) -> bool {
        let mut state = self.state.lock();
        if !agrees {
            if matches!(*state, State::Follows { .. }) {
                self.set(&mut state, State::Waking { not_before: None });
            }
            return false;
        }
        if !matches!(*state, State::Follows { .. }) {
            (self.tick)(false);
        }
        self.set(&mut state, State::Follows { leader, heard: now, patience });
        true
    }

    /// Once a round, on a replica that does not lead: ends parking when the leader was silent for too long.
    /// True if it did. `late`: so long did this process itself not run, which is no silence of the leader's.
    pub(super) fn follow(&self, late: Duration, settings: &Settings, now: Instant) -> bool {
        if self.mode.load(Ordering::Acquire) == AWAKE {
            return false;
        }
        let mut state = self.state.lock();
        let silent = match &mut *state {
            State::Follows { heard, patience, .. } => {
                *heard = now.min(*heard + late);
                if now <= *heard + settings.lease() + *patience {
                    return false;
                }
                true
            }
            // It led, and was told of a newer leader; or was woken.
            State::Leads { .. } | State::Waking { .. } => false,
            State::Awake { .. } => return false,
        };
        (self.tick)(true);
        self.set(&mut state, State::Awake { rest: None, not_before: None });
        silent
    }

    /// Another replica asks for this one's vote, without this leader's leave.
    pub(super) fn vote(&self, from: ReplicaId, settings: &Settings, now: Instant) -> Ballot {
        if !self.is_parked() {
            return Ballot::Pass;
        }
        let mut state = self.state.lock();
        match *state {
            State::Follows { leader, heard, .. }
                if leader != from && now <= heard + settings.lease() =>
            {
                Ballot::Refuse
            }
            State::Follows { .. } => {
                self.set(&mut state, State::Waking { not_before: None });
                Ballot::Pass
            }
            State::Leads { .. } => {
                (self.tick)(true);
                self.set(&mut state, State::Waking { not_before: None });
                Ballot::Lead
            }
            State::Awake { .. } | State::Waking { .. } => Ballot::Pass,
        }
    }

    fn set(&self, state: &mut State, next: State) {
        let mode = match next {
            State::Awake { .. } => AWAKE,
            State::Waking { .. } => WAKING,
            State::Leads { .. } | State::Follows { .. } => PARKED,
        };
        *state = next;
        self.mode.store(mode, Ordering::Release);
    }
}

#[cfg(test)]
mod tests;
