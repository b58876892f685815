//! One client: does one operation after the other and records what it saw.

use super::choice::Chooser;
use super::{Ended, Shared};
use crate::history::{Answer, Op, Record};
use crate::resp::{Client, RespError, Value};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// A client moves to another node by itself after this many operations on average.
const OPERATIONS_PER_NODE: u32 = 50;
/// Pause after no node could be reached or it refused, so that an outage is not a busy loop.
const REFUSED_PAUSE: Duration = Duration::from_millis(10);

/// Errors that say that the command was not carried out.
const NOT_APPLIED: &[&str] =
    &["TRYAGAIN", "CLUSTERDOWN", "LOADING", "MASTERDOWN", "READONLY", "NOREPLICAS", "MOVED", "ASK"];

/// So begins the answer to a write where the disk has too little left.
pub(crate) const DISK_FULL: &str = "ERR the disk is nearly full";

/// Runs until stopped; the operation under way is finished.
pub(super) async fn run(shared: Arc<Shared>, number: u32, stop: CancellationToken) {
    let config = &shared.config;
    let seed = config.seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(number.into());
    let mut chooser = Chooser::new(SmallRng::seed_from_u64(seed), number);
    let mut connection = None;
    while !stop.is_cancelled() {
        let _inside = config.gate.pass().await;
        if chooser.dice.random_ratio(1, OPERATIONS_PER_NODE) {
            connection = None;
        }
        let mut client = match connection.take() {
            Some(client) => client,
            None => {
                let node = chooser.dice.random_range(0..config.addresses.len());
                match Client::connect(&config.addresses[node], config.patience).await {
                    Ok(client) => client,
                    Err(_) => {
                        shared.end(Ended::Refused);
                        tokio::time::sleep(REFUSED_PAUSE).await;
                        continue;
                    }
                }
            }
        };
        let begun = shared.begun.fetch_add(1, Relaxed);
        let (key, op) = chooser.next(&config.families, &config.prefix, begun);
        if operate(&shared, number, &mut client, key, op).await {
            connection = Some(client);
        } else {
            tokio::time::sleep(REFUSED_PAUSE).await;
        }
        if !config.pause.is_zero() {
            tokio::time::sleep(config.pause).await;
        }
    }
}

/// Does one operation. False when the client should try another node.
async fn operate(shared: &Shared, number: u32, client: &mut Client, key: String, op: Op) -> bool {
    let invoked = shared.recorder.now();
    let reply = client.call(&command(&key, &op)).await;
    let now = shared.recorder.now();
    let outcome = match reply {
        Ok(value) => understand(&op, value),
        // Connected, so it may have arrived.
        Err(RespError::Unknown(_) | RespError::NotSent { .. }) => Outcome::Unknown,
    };
    let is_read = matches!(op, Op::Get | Op::HGet(_));
    let add = |returned| {
        shared.recorder.add(Record {
            client: number,
            key: key.clone(),
            op: op.clone(),
            invoked,
            returned,
        });
    };
    match outcome {
        Outcome::Answered(answer) => {
            add(Some((now, answer)));
            shared.took(now - invoked);
            shared.end(if is_read { Ended::Read } else { Ended::Write });
            if !is_read {
                shared.write_acked(now);
            }
            true
        }
        Outcome::Refused => {
            shared.end(Ended::Refused);
            false
        }
        Outcome::Unknown => {
            add(None);
            shared.end(Ended::Unknown);
            false
        }
        Outcome::Unexpected(what) => {
            add(None);
            shared.end(Ended::Unexpected);
            shared.unexpected(format!("{op:?} of {key}: {what}"));
            false
        }
    }
}

/// What a reply means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Answered(Answer),
    Refused,
    Unknown,
    Unexpected(String),
}

pub(super) fn command<'a>(key: &'a str, op: &'a Op) -> Vec<&'a str> {
    match op {
        Op::Get => vec!["GET", key],
        Op::Set(value) => vec!["SET", key, value],
        Op::SetNx(value) => vec!["SET", key, value, "NX"],
        Op::SetXx(value) => vec!["SET", key, value, "XX"],
        Op::GetSet(value) => vec!["GETSET", key, value],
        Op::GetDel => vec!["GETDEL", key],
        Op::Del => vec!["DEL", key],
        Op::Incr => vec!["INCR", key],
        Op::HSet(field, value) => vec!["HSET", key, field, value],
        Op::HGet(field) => vec!["HGET", key, field],
    }
}

pub(super) fn understand(op: &Op, reply: Value) -> Outcome {
    let conditional = matches!(op, Op::SetNx(_) | Op::SetXx(_));
    let reads = matches!(op, Op::Get | Op::GetSet(_) | Op::GetDel | Op::HGet(_));
    let counts = matches!(op, Op::Del | Op::Incr | Op::HSet(..));
    let answer = match &reply {
        Value::Error(error) => return error_means(error),
        Value::Simple(ok) if !reads && !counts && &ok[..] == b"OK" => Answer::Done,
        Value::Nil if conditional => Answer::Unmet,
        Value::Nil if reads => Answer::Value(None),
        Value::Bulk(_) if reads => Answer::Value(reply.text()),
        Value::Int(number) if counts => Answer::Int(*number),
        _ => return Outcome::Unexpected(format!("{reply:?}")),
    };
    Outcome::Answered(answer)
}

/// What an error means.
pub(super) fn error_means(error: &[u8]) -> Outcome {
    let text = String::from_utf8_lossy(error);
    let prefix = text.split(' ').next().unwrap_or_default();
    match prefix {
        "UNKNOWN" => Outcome::Unknown,
        prefix if NOT_APPLIED.contains(&prefix) => Outcome::Refused,
        _ if text.starts_with(DISK_FULL) => Outcome::Refused,
        _ => Outcome::Unexpected(text.into_owned()),
    }
}
