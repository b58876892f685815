//! The way into one cluster: a connection to any of its nodes, another one after a failure and now
//! and then by itself.

use super::client::{Outcome, error_means};
use super::gate::Gate;
use crate::resp::{Client, RespError, Value};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::time::Duration;

/// How long a reply is waited for: probes would rather look elsewhere than wait.
const PATIENCE: Duration = Duration::from_secs(3);
/// Exchanges with one node on average.
const EXCHANGES_PER_NODE: u32 = 50;

/// Where a cluster is reached, and what holds its clients back.
#[derive(Debug, Clone, Default)]
pub struct Doorway {
    /// `host:port` of its nodes.
    pub addresses: Vec<String>,
    /// Passed for each exchange.
    pub gate: Gate,
}

/// See the module.
pub(super) struct Door {
    addresses: Vec<String>,
    client: Option<Client>,
    pub(super) gate: Gate,
    pub(super) dice: SmallRng,
}

/// Why there are no replies.
pub(super) enum Closed {
    /// Nothing was sent.
    NotSent,
    /// Everything may or may not have been carried out.
    Unknown,
}

impl Door {
    pub(super) fn new(addresses: Vec<String>, gate: Gate, seed: u64) -> Door {
        assert!(!addresses.is_empty(), "a cluster has nodes");
        Door { addresses, client: None, gate, dice: SmallRng::seed_from_u64(seed) }
    }

    /// Sends several commands at once and waits for all replies.
    pub(super) async fn pipeline(
        &mut self,
        commands: &[Vec<String>],
    ) -> Result<Vec<Value>, Closed> {
        if self.dice.random_ratio(1, EXCHANGES_PER_NODE) {
            self.client = None;
        }
        let mut client = match self.client.take() {
            Some(client) => client,
            None => {
                let node = self.dice.random_range(0..self.addresses.len());
                let client = Client::connect(&self.addresses[node], PATIENCE).await;
                client.map_err(|_| Closed::NotSent)?
            }
        };
        match client.pipeline(commands).await {
            Ok(replies) => {
                // A node that refuses may go on doing so.
                let refuses = replies.iter().any(|reply| matches!(reply, Value::Error(_)));
                self.client = (!refuses).then_some(client);
                Ok(replies)
            }
            Err(RespError::NotSent { .. }) => Err(Closed::NotSent),
            Err(RespError::Unknown(_)) => Err(Closed::Unknown),
        }
    }

    /// Pauses for about so long. By chance, since writers and readers in step with each other
    /// would see the same moment of every write, and no other.
    pub(super) async fn pause(&mut self, about: Duration) {
        tokio::time::sleep(self.dice.random_range(about / 4..about * 7 / 4)).await;
    }

    /// Sends one command that is acknowledged by any reply that is no error.
    pub(super) async fn write(&mut self, command: &[String]) -> Outcome {
        match self.pipeline(&[command.to_vec()]).await {
            Ok(mut replies) => meaning(replies.pop().unwrap_or(Value::Nil)),
            Err(Closed::NotSent) => Outcome::Refused,
            Err(Closed::Unknown) => Outcome::Unknown,
        }
    }
}

/// What a reply to a write means whose value does not matter.
pub(super) fn meaning(reply: Value) -> Outcome {
    match reply {
        Value::Error(error) => error_means(&error),
        _ => Outcome::Answered(crate::history::Answer::Done),
    }
}

/// A command from its words.
pub(crate) fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}
