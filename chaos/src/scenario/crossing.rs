//! How long it takes until what is written in one cluster is seen in another: by keys that are
//! spread evenly over all slots, so that every group has one.

use crate::resp::{Client, Value};
use flotilla_topology::slot::{Slot, SlotRange};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Keys, each in another part of the slots: as many groups of equal size are told apart.
pub(super) const KEYS: u32 = 16;
/// Pause between two looks.
const PERIOD: Duration = Duration::from_millis(10);
/// How long one exchange may take.
const EXCHANGE_PATIENCE: Duration = Duration::from_secs(2);

/// Writes in `cluster` and waits until all others have it; meanwhile the other way round. Returns
/// when each was seen by all.
pub(super) async fn both_ways(
    clusters: &BTreeMap<String, Vec<String>>,
    cluster: &str,
    prefix: &str,
    patience: Duration,
) -> Result<(Instant, Instant), String> {
    let others = clusters.keys().filter(|other| *other != cluster);
    let back = others.map(|other| cross(clusters, other, cluster, prefix, patience));
    let out = out_of(clusters, cluster, prefix, patience);
    let (out, back) = tokio::join!(out, futures::future::join_all(back));
    Ok((out?, last(back)?))
}

/// Writes in `cluster` and waits until all others have it. Returns when that was seen.
pub(super) async fn out_of(
    clusters: &BTreeMap<String, Vec<String>>,
    cluster: &str,
    prefix: &str,
    patience: Duration,
) -> Result<Instant, String> {
    let others = clusters.keys().filter(|other| *other != cluster);
    let out = others.map(|other| cross(clusters, cluster, other, prefix, patience));
    last(futures::future::join_all(out).await)
}

fn last(seen: Vec<Result<Instant, String>>) -> Result<Instant, String> {
    let seen: Result<Vec<Instant>, String> = seen.into_iter().collect();
    seen?.into_iter().max().ok_or_else(|| "there is no other cluster".to_owned())
}

async fn cross(
    clusters: &BTreeMap<String, Vec<String>>,
    from: &str,
    to: &str,
    prefix: &str,
    patience: Duration,
) -> Result<Instant, String> {
    let keys = spread(&format!("{prefix}:{from}:{to}"));
    let crossing = async {
        let sets: Vec<Vec<&str>> = keys.iter().map(|key| vec!["SET", key, "1"]).collect();
        until(&clusters[from], &sets, |reply| !matches!(reply, Value::Error(_))).await;
        let gets: Vec<Vec<&str>> = keys.iter().map(|key| vec!["GET", key]).collect();
        until(&clusters[to], &gets, |reply| matches!(reply, Value::Bulk(_))).await;
        Instant::now()
    };
    let in_time = tokio::time::timeout(patience, crossing).await;
    in_time.map_err(|_| format!("writes of {from} are not seen in {to} within {patience:?}"))
}

/// Repeats each command, by any node, until its reply is as wanted.
async fn until(addresses: &[String], commands: &[Vec<&str>], wanted: impl Fn(&Value) -> bool) {
    let mut left: Vec<&Vec<&str>> = commands.iter().collect();
    let mut client = None;
    for address in addresses.iter().cycle() {
        if client.is_none() {
            client = Client::connect(address, EXCHANGE_PATIENCE).await.ok();
        }
        if let Some(mut connected) = client.take()
            && let Ok(replies) = connected.pipeline(&left).await
        {
            let missing = left.iter().zip(&replies).filter(|(_, reply)| !wanted(reply));
            let refused = replies.iter().any(|reply| matches!(reply, Value::Error(_)));
            left = missing.map(|(command, _)| *command).collect();
            client = (!refused).then_some(connected);
        }
        if left.is_empty() {
            return;
        }
        tokio::time::sleep(PERIOD).await;
    }
}

fn spread(prefix: &str) -> Vec<String> {
    let key = |part: u32| {
        let slots = SlotRange::partition(part, KEYS);
        let tries = (0u32..).map(|number| format!("{prefix}:{number}"));
        let mut fitting = tries.filter(|key| slots.contains(Slot::of(key.as_bytes())));
        fitting.next().expect("names do not end")
    };
    (0..KEYS).map(key).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::FakeRedis;

    #[test]
    fn all_groups_have_as_many_keys() {
        let keys = spread("p");
        for groups in [1, 2, 4, 8, 16] {
            for group in 0..groups {
                let slots = SlotRange::partition(group, groups);
                let held = keys.iter().filter(|key| slots.contains(Slot::of(key.as_bytes())));
                assert_eq!(held.count() as u32, KEYS / groups, "group {group} of {groups}");
            }
        }
    }

    #[tokio::test]
    async fn what_crosses_is_timed_and_what_does_not_is_told() {
        let one = FakeRedis::default();
        let other = FakeRedis::default();
        let clusters = |west: &FakeRedis| {
            let (east, west) = (one.clone(), west.clone());
            async move {
                let (east, west) = (east.listen().await, west.listen().await);
                BTreeMap::from([("east".to_owned(), vec![east]), ("west".to_owned(), vec![west])])
            }
        };
        let patience = Duration::from_secs(20);
        let began = Instant::now();
        let same = clusters(&one).await;
        let (out, back) = both_ways(&same, "east", "a", patience).await.unwrap();
        assert!(out > began && back > began && out < began + patience);
        let apart = clusters(&other).await;
        let patience = Duration::from_millis(200);
        let why = both_ways(&apart, "east", "b", patience).await.unwrap_err();
        assert_eq!(why, "writes of east are not seen in west within 200ms");
    }
}
