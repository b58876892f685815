//! Against a fake Redis: an honest one passes all checkers, however often connections end; one
//! that lies is caught.

use super::client::{Outcome, understand};
use super::*;
use crate::checkers::{acked_survives, linearizable};
use crate::fake::FakeRedis;
use crate::history::{Answer, Op};
use crate::resp::Value;
use bytes::Bytes;

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
