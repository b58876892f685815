//! A mixed load on nodes that are given by their addresses: as fast as it goes, or at a fixed rate.

use super::case::{Case, Command};
use super::generator::{self, Door, Load, Measured, Pace, Target};
use super::keys::Keys;
use super::open::Schedule;
use super::timeline::Timeline;
use super::{VALUE_BYTES, case};
use crate::resp::{Client, Value};
use anyhow::{Result, bail};
use std::time::Duration;

/// Connections, spread over the nodes.
const CONNECTIONS: usize = 50;
/// Commands that are sent at once to write what is read.
const PREPARE_PIPELINE: usize = 16;
/// How long those may take.
const PREPARE_PATIENCE: Duration = Duration::from_secs(30);

/// GET, SET, HGET, HSET and INCR, by chance.
pub struct MixedLoad {
    targets: Vec<Target>,
    keys: u32,
}

/// How a load at a fixed rate ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Held {
    /// Requests that were answered.
    pub operations: u64,
    /// Requests that were due and not sent, since the nodes were too far behind.
    pub unsent: u64,
    /// Errors, broken connections included.
    pub errors: u64,
    /// The first of them.
    pub first_error: Option<String>,
}

impl MixedLoad {
    /// On the plain ports of these nodes, with so many keys.
    pub fn new(addresses: &[String], keys: u32) -> MixedLoad {
        let target =
            |address: &String| Target { door: Door::Resp, address: address.clone(), keys: None };
        MixedLoad { targets: addresses.iter().map(target).collect(), keys }
    }

    /// Writes what is read.
    pub async fn fill(&self) -> Result<()> {
        fine(generator::load(&self.targets, self.keys, VALUE_BYTES).await?)?;
        let mut client = Client::connect(&self.targets[0].address, PREPARE_PATIENCE).await?;
        let commands = case::before(Command::Hget, VALUE_BYTES);
        for some in commands.chunks(PREPARE_PIPELINE) {
            let replies = client.pipeline(some).await?;
            if let Some(error) = replies.iter().find(|reply| matches!(reply, Value::Error(_))) {
                bail!("{}", error.text().unwrap_or_default());
            }
        }
        Ok(())
    }

    /// Operations per second when each connection sends as soon as it is answered.
    pub async fn maximum(&self, duration: Duration) -> Result<f64> {
        let pace = Pace::Closed(duration);
        let measured = fine(generator::run(&self.targets, &self.load(None), pace, 0).await?)?;
        Ok(measured.operations as f64 / measured.took.as_secs_f64())
    }

    /// Asks at a fixed rate per second; times are noted as they come.
    pub async fn hold(&self, rate: f64, duration: Duration, timeline: &Timeline) -> Result<Held> {
        let pace = Pace::Open(Schedule { rate, duration });
        let load = self.load(Some(timeline.clone()));
        let measured = generator::run(&self.targets, &load, pace, 0).await?;
        let Measured { operations, unsent, errors, first_error, .. } = measured;
        Ok(Held { operations, unsent, errors, first_error })
    }

    fn load(&self, timeline: Option<Timeline>) -> Load {
        let case = Case { command: Command::Mixed, connections: CONNECTIONS, pipeline: 1 };
        Load { case, keys: Keys::Below(self.keys), value_bytes: VALUE_BYTES, timeline }
    }
}

fn fine(measured: Measured) -> Result<Measured> {
    match &measured.first_error {
        Some(error) => bail!("{error}"),
        None => Ok(measured),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::FakeRedis;

    #[tokio::test]
    async fn a_rate_is_held_and_errors_are_told() {
        let redis = FakeRedis::default();
        let load = MixedLoad::new(&[redis.listen().await], 300);
        load.fill().await.unwrap();
        assert!(load.maximum(Duration::from_millis(100)).await.unwrap() > 0.0);
        let timeline = Timeline::new(Duration::from_millis(100));
        let held = load.hold(1000.0, Duration::from_millis(300), &timeline).await.unwrap();
        assert_eq!((held.operations, held.unsent, held.errors), (300, 0, 0), "{held:?}");
        let parts = [0, 1, 2].map(|number| timeline.part(number).unwrap().operations);
        assert_eq!((parts, timeline.part(3)), ([100; 3], None));
        redis.refuse_every.store(3, std::sync::atomic::Ordering::Relaxed);
        let held = load.hold(1000.0, Duration::from_millis(50), &timeline).await.unwrap();
        assert!(held.errors > 5 && held.first_error.unwrap().contains("TRYAGAIN"));
    }
}
