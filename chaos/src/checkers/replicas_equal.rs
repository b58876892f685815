//! `replicas_equal`: at the same applied index all replicas of a group have the same digest.

use super::Violation;
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::time::{Duration, Instant};

const INVARIANT: &str = "replicas_equal";
/// Pause between two samples.
const SAMPLE_PERIOD: Duration = Duration::from_millis(100);

/// What one replica says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicaDigest {
    /// The cluster and group, as shown in messages.
    pub group: String,
    /// The replica, as shown in messages.
    pub replica: String,
    /// The log index up to which it has applied.
    pub applied: u64,
    /// Digest of all its rows there.
    pub digest: String,
}

/// Compares the replicas of each group that stand at the same index.
pub fn check(sample: &[ReplicaDigest]) -> Vec<Violation> {
    let mut points: BTreeMap<(&str, u64), &ReplicaDigest> = BTreeMap::new();
    let mut violations = Vec::new();
    for one in sample {
        let first = points.entry((&one.group, one.applied)).or_insert(one);
        if first.digest != one.digest {
            let what = format!(
                "group {} at index {}: {} has {}, {} has {}",
                one.group, one.applied, first.replica, first.digest, one.replica, one.digest
            );
            violations.push(Violation { invariant: INVARIANT, what });
        }
    }
    violations
}

/// Samples until all replicas of every group stood at the same index, and compares every sample on
/// the way. A sample is asked to leave out groups that met in an earlier one: reading all rows of all
/// replicas takes longer than a group stands still. Groups that do not meet in time are a violation too:
/// a replica is stuck.
pub async fn check_until_level<F, S>(mut sample: F, patience: Duration) -> Vec<Violation>
where
    F: FnMut(BTreeSet<String>) -> S,
    S: Future<Output = Result<Vec<ReplicaDigest>, String>>,
{
    let deadline = Instant::now() + patience;
    let mut met = BTreeSet::new();
    loop {
        let apart = match sample(met.clone()).await {
            Ok(replicas) => {
                let violations = check(&replicas);
                let (together, apart) = sorted(&replicas);
                met.extend(together);
                if !violations.is_empty() || apart.is_empty() {
                    return violations;
                }
                apart.join("; ")
            }
            Err(why) => why,
        };
        if Instant::now() > deadline {
            let what = format!("the replicas do not meet within {patience:?}: {apart}");
            return vec![Violation { invariant: INVARIANT, what }];
        }
        tokio::time::sleep(SAMPLE_PERIOD).await;
    }
}

/// Groups whose replicas are at one index, and what to say of the others.
fn sorted(sample: &[ReplicaDigest]) -> (Vec<String>, Vec<String>) {
    let mut groups: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for one in sample {
        let (least, most) = groups.entry(&one.group).or_insert((one.applied, one.applied));
        (*least, *most) = ((*least).min(one.applied), (*most).max(one.applied));
    }
    let (met, apart): (Vec<_>, Vec<_>) =
        groups.into_iter().partition(|(_, (least, most))| least == most);
    let apart = apart.into_iter();
    let apart = apart.map(|(group, (least, most))| format!("group {group} at {least} to {most}"));
    (met.into_iter().map(|(group, _)| group.to_owned()).collect(), apart.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(replica: &str, applied: u64, digest: &str) -> ReplicaDigest {
        let (replica, digest) = (replica.into(), digest.into());
        ReplicaDigest { group: "east/7".into(), replica, applied, digest }
    }

    #[test]
    fn only_the_same_index_is_compared() {
        assert_eq!(check(&[at("a", 5, "x"), at("b", 5, "x"), at("c", 6, "y")]), []);
        let told = check(&[at("a", 5, "x"), at("b", 5, "y")]);
        assert_eq!(told[0].what, "group east/7 at index 5: a has x, b has y");
    }

    #[tokio::test]
    async fn replicas_are_given_time_to_meet_but_not_for_ever() {
        let mut behind = 3;
        let meet = |met: BTreeSet<String>| {
            behind -= 1;
            let mut all = vec![at("a", 5, "x"), at("b", 5 - behind, "x")];
            // Another group, whose replicas meet at once, is not asked for again.
            assert_eq!(met.contains("east/8"), behind < 2);
            if behind == 2 {
                let other = ReplicaDigest { group: "east/8".into(), ..at("c", 9, "y") };
                all.extend([other.clone(), other]);
            }
            std::future::ready(Ok(all))
        };
        assert_eq!(check_until_level(meet, Duration::from_secs(20)).await, []);
        let never = |_| std::future::ready(Ok(vec![at("a", 5, "x"), at("b", 4, "x")]));
        let told = check_until_level(never, Duration::from_millis(1)).await;
        assert!(told[0].what.contains("group east/7 at 4 to 5"), "{told:?}");
    }
}
