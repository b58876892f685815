//! How long Raft waits, as a function of the round trip time between voters.
//!
//! A follower that has heard nothing for the leader's lease (`election_max_ms`) and its own random
//! timeout (`election_min_ms` to `election_max_ms`) asks for votes. So a dead leader is replaced
//! within 2 x `election_max_ms` and two round trips (a trial vote, then the vote).

use serde::Serialize;

/// Up to this round trip time voters count as standing in one datacenter.
pub const NEAR_RTT_MS: f64 = 10.0;

/// Heartbeats and election timeouts of a group, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Timing {
    /// The leader says that it lives this often.
    pub heartbeat_ms: u64,
    /// The shortest election timeout.
    pub election_min_ms: u64,
    /// The longest, which is also the leader's lease.
    pub election_max_ms: u64,
}

impl Timing {
    /// Inside one datacenter.
    pub const NEAR: Timing =
        Timing { heartbeat_ms: 100, election_min_ms: 300, election_max_ms: 600 };

    /// For voters that are at most `rtt_ms` apart.
    ///
    /// A heartbeat must be answered before the next one is due (the Raft library gives up on it
    /// then), also when it is a round trip late; three may be lost before a follower moves. The
    /// range is as wide as its lower end, several round trips: two followers seldom ask for votes
    /// at once.
    pub fn for_rtt(rtt_ms: f64) -> Timing {
        assert!(rtt_ms.is_finite() && rtt_ms >= 0.0, "a round trip time of {rtt_ms} ms");
        if rtt_ms <= NEAR_RTT_MS {
            return Timing::NEAR;
        }
        let rtt_ms = rtt_ms.ceil() as u64;
        let heartbeat_ms = Timing::NEAR.heartbeat_ms.max(2 * rtt_ms);
        let election_min_ms = 3 * heartbeat_ms + rtt_ms;
        Timing { heartbeat_ms, election_min_ms, election_max_ms: 2 * election_min_ms }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn far_voters_wait_longer() {
        assert_eq!(Timing::for_rtt(0.5), Timing::NEAR);
        let far = Timing { heartbeat_ms: 120, election_min_ms: 420, election_max_ms: 840 };
        assert_eq!(Timing::for_rtt(60.0), far);
        let farther = Timing { heartbeat_ms: 500, election_min_ms: 1750, election_max_ms: 3500 };
        assert_eq!(Timing::for_rtt(250.0), farther);
    }

    proptest! {
        #[test]
        fn relations_hold(rtt in 0.0f64..10_000.0, more in 0.0f64..1000.0) {
            let (timing, slower) = (Timing::for_rtt(rtt), Timing::for_rtt(rtt + more));
            prop_assert!(timing.heartbeat_ms as f64 >= rtt.min(100.0));
            prop_assert!(timing.election_min_ms >= 3 * timing.heartbeat_ms);
            prop_assert!(timing.election_max_ms >= 2 * timing.election_min_ms);
            prop_assert!((timing.election_max_ms - timing.election_min_ms) as f64 >= 2.0 * rtt);
            prop_assert!(slower.heartbeat_ms >= timing.heartbeat_ms);
            prop_assert!(slower.election_min_ms >= timing.election_min_ms);
            // Killing a whole datacenter must be over within 5 s at what continents are apart.
            if rtt <= 150.0 {
                prop_assert!(2 * timing.election_max_ms + 2 * rtt.ceil() as u64 <= 5_000);
            }
        }
    }
}
