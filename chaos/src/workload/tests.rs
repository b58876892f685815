//! Against a fake Redis: an honest one passes all checkers, however often connections end; one
//! that lies is caught.

use super::client::{Outcome, understand};
use super::*;
use crate::checkers::{acked_survives, linearizable};
use crate::fake::FakeRedis;
use crate::history::{Answer, Op};
use crate::resp::Value;
use bytes::Bytes;
use std::collections::BTreeMap;

const PATIENCE: Duration = Duration::from_secs(20);

async fn load(redis: &FakeRedis, writes: u64) -> (Ran, Vec<String>) {
    let addresses = vec![redis.listen().await, redis.listen().await];
    let load = Load::start(Config::new(7, addresses.clone(), "east"));
    assert!(load.more_writes(writes, PATIENCE).await, "{:?}", load.counts());
    assert!(load.take_latency().operations >= writes);
    assert!(load.silence() < PATIENCE);
    (load.stop().await, addresses)
}

#[tokio::test]
async fn an_honest_server_passes_and_unknown_outcomes_stay_open() {
    let redis = FakeRedis::default();
    redis.drop_every.store(101, Relaxed);
    redis.refuse_every.store(37, Relaxed);
    let (ran, addresses) = load(&redis, 5000).await;
    redis.drop_every.store(0, Relaxed);
    let finals = ran.read_finals(&addresses, PATIENCE).await.unwrap();
    let history = ran.history();
    let report = linearizable::check(&history);
    println!("{:?}, {} keys, {} open", ran.counts, report.keys, report.open);
    assert_eq!((report.violations, report.undecided), (vec![], vec![]));
    assert_eq!(acked_survives::check(&history, &finals), vec![]);
    assert_eq!(ran.unexpected, Vec::<String>::new());
    assert!(ran.counts.unknown > 20 && report.open as u64 == ran.counts.unknown);
    assert!(ran.counts.refused > 50 && ran.counts.reads > 500);
    assert_eq!(ran.read_elsewhere(&addresses, PATIENCE).await.unwrap(), finals);
}

#[tokio::test]
async fn a_server_that_forgets_is_caught() {
    let redis = FakeRedis::default();
    redis.forget_every.store(211, Relaxed);
    let (ran, addresses) = load(&redis, 3000).await;
    let finals = ran.read_finals(&addresses, PATIENCE).await.unwrap();
    let history = ran.history();
    assert!(!linearizable::check(&history).violations.is_empty());
    assert!(!acked_survives::check(&history, &finals).is_empty());
}

#[tokio::test]
async fn a_server_that_is_away_leaves_no_history() {
    let address = {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap().to_string()
    };
    let load = Load::start(Config::new(1, vec![address.clone()], "east"));
    while load.counts().refused == 0 {
        tokio::task::yield_now().await;
    }
    let ran = load.stop().await;
    assert_eq!(ran.history().records, vec![]);
    assert_eq!(ran.read_finals(&[address], Duration::ZERO).await, Ok(Finals::new()));
}

/// Two clusters in front of one server: what is written in one is in the other at once.
async fn two_clusters(redis: &FakeRedis) -> BTreeMap<String, Doorway> {
    let mut clusters = BTreeMap::new();
    for cluster in ["east", "west"] {
        let addresses = vec![redis.listen().await, redis.listen().await];
        clusters.insert(cluster.to_owned(), Doorway { addresses, gate: Gate::default() });
    }
    clusters
}

async fn reaches(mut so_far: impl FnMut() -> u64, least: u64) {
    let wait = async {
        while so_far() < least {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.expect("the probes get on");
}

#[tokio::test]
async fn pairs_stay_in_order_on_an_honest_server_however_often_connections_end() {
    let redis = FakeRedis::default();
    redis.drop_every.store(53, Relaxed);
    redis.refuse_every.store(37, Relaxed);
    let clusters = two_clusters(&redis).await;
    let pairs = Pairs::start(&clusters, "pair", 3);
    reaches(|| pairs.looks(), 500).await;
    let ran = pairs.stop().await;
    redis.drop_every.store(0, Relaxed);
    redis.refuse_every.store(0, Relaxed);
    assert_eq!(ran.violations, vec![]);
    assert!(ran.writes > 50 && ran.looks >= 500, "{} writes, {} looks", ran.writes, ran.looks);
    for (cluster, door) in &clusters {
        assert_eq!(ran.check_finals(cluster, &door.addresses, PATIENCE).await, Ok(vec![]));
    }
}

#[tokio::test]
async fn pairs_show_what_a_server_forgets() {
    let redis = FakeRedis::default();
    redis.forget_every.store(11, Relaxed);
    let clusters = two_clusters(&redis).await;
    let pairs = Pairs::start(&clusters, "pair", 3);
    reaches(|| u64::from(pairs.is_broken()), 1).await;
    let ran = pairs.stop().await;
    // A y that is there without its x is in the wrong order, as far as a reader can tell.
    let told = &ran.violations[0].what;
    assert!(told.ends_with("although x was written first"), "{told}");
    assert!(ran.violations.iter().all(|one| one.invariant == "origin_order"));
}

#[tokio::test]
async fn graves_stay_closed_on_an_honest_server_and_what_comes_back_is_caught() {
    let redis = FakeRedis::default();
    redis.drop_every.store(97, Relaxed);
    redis.refuse_every.store(31, Relaxed);
    let clusters = two_clusters(&redis).await;
    let graves = Graves::start(&clusters, "grave", 3);
    reaches(|| graves.buried(), 30).await;
    let ran = graves.stop().await;
    redis.drop_every.store(0, Relaxed);
    redis.refuse_every.store(0, Relaxed);
    assert_eq!(ran.violations, vec![]);
    assert_eq!(ran.check_finals("east", &clusters["east"].addresses, PATIENCE).await, Ok(vec![]));

    let graves = Graves::start(&clusters, "other", 4);
    reaches(|| graves.buried(), 10).await;
    redis.revive();
    let before = graves.buried();
    reaches(|| graves.buried(), before + 10).await;
    let again = graves.stop().await;
    assert!(!again.violations.is_empty(), "it is seen while they run");
    for ran in [ran, again] {
        let found = ran.check_finals("west", &clusters["west"].addresses, PATIENCE).await.unwrap();
        assert!(!found.is_empty() && found[0].what.starts_with("in the end, "), "{found:?}");
        assert!(found.iter().all(|one| one.invariant == "no_resurrection"));
    }
}

#[test]
fn replies_mean_what_they_say_and_nothing_else() {
    let error = |text: &'static str| Value::Error(Bytes::from_static(text.as_bytes()));
    assert_eq!(understand(&Op::Incr, error("UNKNOWN outcome: no quorum")), Outcome::Unknown);
    assert_eq!(understand(&Op::Incr, error("TRYAGAIN no leader")), Outcome::Refused);
    assert!(matches!(understand(&Op::Incr, error("ERR not a number")), Outcome::Unexpected(_)));
    assert!(matches!(understand(&Op::Incr, Value::Nil), Outcome::Unexpected(_)));
    assert_eq!(understand(&Op::SetNx("a".into()), Value::Nil), Outcome::Answered(Answer::Unmet));
    assert_eq!(understand(&Op::Get, Value::Nil), Outcome::Answered(Answer::Value(None)));
    assert!(matches!(understand(&Op::Set("a".into()), Value::Nil), Outcome::Unexpected(_)));
}
