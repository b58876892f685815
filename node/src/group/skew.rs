//! A leader's limit on its own stamps: nothing is issued more than `max_skew` ahead of the median
//! wall clock of the group's voters.
//!
//! A clock that runs ahead would let this group's writes win against later ones of others, end keys
//! before their time, and have its stream parked by every other cluster; and stamps never go back.
//! So a leader whose clock is too far ahead goes by the median and that much: its stamps still rise,
//! keys end when they should, and everything is served. Sans-io: clocks and time are given.
//!
//! The median is of the clocks that are known, our own included. Of an even number the later one of
//! the middle counts, and fewer than three say nothing: nobody is outvoted by half. A peer's clock is
//! known to half a round trip; the later end of that counts.

use crate::raft::{Member, RaftStatus};
use std::time::{Duration, Instant};

/// Fewer clocks than this cannot outvote one of them.
const CLOCKS_MIN: usize = 3;
/// Between two warnings of one group.
const WARN_INTERVAL: Duration = Duration::from_secs(10);

/// What this node knows of the wall clocks of others.
pub trait Clocks: Send + Sync {
    /// The latest that a member's wall clock may show now, in milliseconds since 1970; none if it is
    /// not connected or has not told yet.
    fn wall_ms_of(&self, member: &Member) -> Option<u64>;
}

/// The median of wall clocks; none of too few.
pub fn median_ms(mut clocks: Vec<u64>) -> Option<u64> {
    clocks.sort_unstable();
    clocks.get(clocks.len() / 2).filter(|_| clocks.len() >= CLOCKS_MIN).copied()
}

/// The clocks of a group's voters, as its leader knows them: ours, and the others'.
pub(super) fn voters_clocks(status: &RaftStatus, own_ms: u64, clocks: &dyn Clocks) -> Vec<u64> {
    let me = status.leader.as_ref().map(|(replica, _)| *replica);
    let members = status.membership.members.iter();
    let others = members.filter(|(id, _)| status.membership.is_voter(**id) && Some(**id) != me);
    let known = others.filter_map(|(_, member)| clocks.wall_ms_of(member));
    known.chain([own_ms]).collect()
}

/// See the module.
#[derive(Debug)]
pub struct SkewLimit {
    max_ms: u64,
    /// The voters' median when it was learned.
    median: Option<(u64, Instant)>,
    warned: Option<Instant>,
}

impl SkewLimit {
    /// A limit of so many milliseconds, which holds nobody back before clocks are known.
    pub fn new(max_ms: u64) -> SkewLimit {
        SkewLimit { max_ms, median: None, warned: None }
    }

    /// Takes the clocks of the voters as of `now`.
    pub fn learn(&mut self, clocks: Vec<u64>, now: Instant) {
        self.median = median_ms(clocks).map(|median| (median, now));
    }

    /// How far a clock that shows `wall_ms` is ahead of the voters' median, which goes on by
    /// monotonic time: a jump of our own clock shows at once.
    pub fn ahead_ms(&self, wall_ms: u64, now: Instant) -> u64 {
        let Some((median, at)) = self.median else { return 0 };
        let passed = now.saturating_duration_since(at).as_millis();
        wall_ms.saturating_sub(median.saturating_add(u64::try_from(passed).unwrap_or(u64::MAX)))
    }

    /// What a clock that shows `wall_ms` may count as.
    pub fn limited_ms(&self, wall_ms: u64, now: Instant) -> u64 {
        wall_ms - self.ahead_ms(wall_ms, now).saturating_sub(self.max_ms).min(wall_ms)
    }

    /// Whether it is time to warn of it, again.
    pub fn warns(&mut self, now: Instant) -> bool {
        let due = self.warned.is_none_or(|at| now.saturating_duration_since(at) >= WARN_INTERVAL);
        if due {
            self.warned = Some(now);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::{Membership, RaftRole};
    use flotilla_topology::ids::{LogId, ReplicaId};
    use std::collections::{BTreeMap, BTreeSet};

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_median_needs_a_majority_that_could_outvote() {
        assert_eq!(median_ms(vec![]), None);
        assert_eq!(median_ms(vec![9_000, 1]), None, "one against one");
        assert_eq!(median_ms(vec![9_000, 1, 2]), Some(2));
        assert_eq!(median_ms(vec![9_000, 8_000, 2]), Some(8_000));
        assert_eq!(median_ms(vec![9_000, 8_000, 1, 2]), Some(8_000), "two against two");
        assert_eq!(median_ms(vec![9_000, 1, 2, 3]), Some(3));
        assert_eq!(median_ms(vec![1, 2, 9_000, 3, 8_000]), Some(3));
    }

    #[test]
    fn a_clock_ahead_of_the_others_counts_as_theirs_and_the_limit() {
        let now = Instant::now();
        let mut limit = SkewLimit::new(500);
        assert_eq!(limit.limited_ms(u64::MAX, now), u64::MAX, "nothing is known yet");
        limit.learn(vec![10_000, 9_400, 9_500], now);
        assert_eq!(limit.ahead_ms(10_000, now), 500);
        assert_eq!(limit.limited_ms(10_000, now), 10_000, "just as much as is allowed");
        assert_eq!(limit.limited_ms(10_001, now), 10_000);
        // Time passes for all.
        assert_eq!(limit.limited_ms(10_200, now + 200 * MS), 10_200);
        // Ours jumps, or the others' fall back.
        assert_eq!(limit.limited_ms(13_200, now + 200 * MS), 10_200);
        limit.learn(vec![10_300, 9_000, 9_100], now + 300 * MS);
        assert_eq!(limit.limited_ms(10_300, now + 300 * MS), 9_600);
        // Behind is no harm: stamps rise by themselves.
        assert_eq!(limit.limited_ms(1, now + 300 * MS), 1);
        // The others went away: nobody is left to say so.
        limit.learn(vec![10_400, 9_000], now + 400 * MS);
        assert_eq!(limit.limited_ms(10_400, now + 400 * MS), 10_400);
    }

    #[test]
    fn warnings_are_few() {
        let now = Instant::now();
        let mut limit = SkewLimit::new(500);
        assert!(limit.warns(now) && !limit.warns(now + 9_999 * MS));
        assert!(limit.warns(now + 10_000 * MS));
    }

    struct Known(BTreeMap<&'static str, u64>);

    impl Clocks for Known {
        fn wall_ms_of(&self, member: &Member) -> Option<u64> {
            self.0.get(&member.name[..]).copied()
        }
    }

    #[test]
    fn voters_count_and_learners_do_not() {
        let names = ["n1", "n2", "n3", "s1"];
        let members = (1..).map(ReplicaId).zip(names.map(Member::node)).collect();
        let configs = vec![BTreeSet::from([1, 2, 3].map(ReplicaId))];
        let status = RaftStatus {
            role: RaftRole::Leader,
            term: 1,
            leader: Some((ReplicaId(1), Member::node("n1"))),
            last_index: 0,
            committed: LogId::default(),
            applied: LogId::default(),
            own_blank_applied: true,
            replication: BTreeMap::new(),
            last_quorum_ack: None,
            membership: Membership { log_id: LogId::default(), configs, members }.into(),
            purged: LogId::default(),
        };
        let known = Known(BTreeMap::from([("n1", 1), ("n2", 2), ("s1", 4)]));
        assert_eq!(voters_clocks(&status, 7, &known), [2, 7], "n1 is ourselves, n3 is silent");
    }
}
