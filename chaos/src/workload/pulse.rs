//! A client for each group that writes to keys of that group all the time: it is seen how long a
//! group acknowledged no write.
//!
//! All that is written is in one history, over all rounds. A client goes through one node, which must be
//! one that stays: what is measured is then the silence of the group, not that of a connection.

use super::client::{Outcome, understand};
use super::{Counts, Ran, UNEXPECTED_MAX};
use crate::history::{Op, Record, Recorder};
use crate::resp::{Client, Value};
use flotilla_topology::slot::{Slot, SlotRange};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Pause of a client behind each write: short beside every gap that matters, and long enough to leave
/// the machine to the servers.
const PAUSE: Duration = Duration::from_millis(2);
/// Pause after a failure.
const FAILED_PAUSE: Duration = Duration::from_millis(5);
/// How long a reply is waited for; longer than a node tries by itself.
const PATIENCE: Duration = Duration::from_secs(10);
/// Writes to one key before the next one is used: its history stays easy to check.
const WRITES_PER_KEY: u64 = 100;
/// How often it is asked whether all groups take writes.
const LOOK_PERIOD: Duration = Duration::from_millis(5);

/// Clients that write at some times and rest at others.
pub struct Pulses {
    shared: Arc<Shared>,
    round: u64,
    tasks: JoinSet<()>,
    stop: CancellationToken,
}

struct Shared {
    prefix: String,
    recorder: Recorder,
    beats: Mutex<Beats>,
    ended: Mutex<(Counts, Vec<String>)>,
}

/// When each group acknowledged writes, in nanoseconds of the history; since the clients were started.
#[derive(Debug, Clone, Default)]
pub struct Beats(BTreeMap<String, Vec<u64>>);

impl Beats {
    /// The longest time without an acknowledged write of a group that overlaps `from..to`: from the
    /// last write before `from` at the earliest, to the first one behind `to` at the latest. Where there is
    /// no such write the window ends it.
    pub fn longest_gap(&self, group: &str, from: u64, to: u64) -> Duration {
        let beats = self.0.get(group).map(Vec::as_slice).unwrap_or_default();
        let first = beats.partition_point(|beat| *beat <= from);
        let mut last = first.checked_sub(1).map_or(from, |before| beats[before]);
        let mut longest = 0;
        for beat in &beats[first..] {
            longest = longest.max(beat - last);
            last = *beat;
            if last >= to {
                break;
            }
        }
        Duration::from_nanos(longest.max(to.saturating_sub(last)))
    }

    /// The longest of all groups, and whose it is.
    pub fn worst(&self, from: u64, to: u64) -> Option<(Duration, String)> {
        self.0.keys().map(|group| (self.longest_gap(group, from, to), group.clone())).max()
    }

    /// What was known at some time: the writes that were acknowledged until then.
    pub fn until(&self, at: u64) -> Beats {
        let known = |beats: &[u64]| beats[..beats.partition_point(|beat| *beat <= at)].to_vec();
        Beats(self.0.iter().map(|(group, beats)| (group.clone(), known(beats))).collect())
    }

    fn since(&self, group: &str, at: u64) -> usize {
        let beats = self.0.get(group).map(Vec::as_slice).unwrap_or_default();
        beats.len() - beats.partition_point(|beat| *beat <= at)
    }
}

/// A hash tag whose keys lie in these slots.
fn tag_in(slots: &SlotRange, prefix: &str) -> String {
    let tags = (0u64..).map(|number| format!("{prefix}-{number}"));
    let mut fitting = tags.filter(|tag| slots.contains(Slot::of(tag.as_bytes())));
    fitting.next().expect("hashing reaches every slot")
}

impl Pulses {
    /// Clients at rest, whose keys all begin with `prefix`.
    pub fn new(prefix: impl Into<String>) -> Pulses {
        let shared = Arc::new(Shared {
            prefix: prefix.into(),
            recorder: Recorder::default(),
            beats: Mutex::default(),
            ended: Mutex::default(),
        });
        Pulses { shared, round: 0, tasks: JoinSet::new(), stop: CancellationToken::new() }
    }

    /// Starts a client for each of these groups, spread over these nodes, after those before have
    /// ended. Must be called inside a tokio runtime.
    pub async fn start(&mut self, groups: &[(String, SlotRange)], addresses: &[String]) {
        assert!(!addresses.is_empty(), "a node must stay");
        self.rest().await;
        self.round += 1;
        *self.shared.beats.lock() = Beats::default();
        for (place, (group, slots)) in groups.iter().enumerate() {
            let writer = Writer {
                shared: self.shared.clone(),
                group: group.clone(),
                tag: tag_in(slots, &self.shared.prefix),
                address: addresses[place % addresses.len()].clone(),
                client: place as u32,
                round: self.round,
            };
            self.tasks.spawn(writer.run(self.stop.clone()));
        }
    }

    /// Lets every client finish its write.
    pub async fn rest(&mut self) {
        self.stop.cancel();
        while let Some(task) = self.tasks.join_next().await {
            if let Err(error) = task {
                self.shared.unexpected(format!("a client failed: {error}"));
            }
        }
        self.stop = CancellationToken::new();
    }

    /// The time of the history.
    pub fn now(&self) -> u64 {
        self.shared.recorder.now()
    }

    /// All writes that were acknowledged since the clients were started.
    pub fn beats(&self) -> Beats {
        self.shared.beats.lock().clone()
    }

    /// Waits until each of these groups has acknowledged so many more writes; the first that does not
    /// within `patience`.
    pub async fn more(
        &self,
        groups: &[(String, SlotRange)],
        count: usize,
        patience: Duration,
    ) -> Result<(), String> {
        let (from, deadline) = (self.now(), Instant::now() + patience);
        loop {
            let silent = {
                let beats = self.shared.beats.lock();
                groups.iter().find(|(group, _)| beats.since(group, from) < count).cloned()
            };
            let Some((group, _)) = silent else { return Ok(()) };
            if Instant::now() > deadline {
                return Err(group);
            }
            tokio::time::sleep(LOOK_PERIOD).await;
        }
    }

    /// What all clients saw, in all rounds.
    pub async fn stop(mut self) -> Ran {
        self.rest().await;
        let (counts, unexpected) = self.shared.ended.lock().clone();
        let recorder = self.shared.recorder.clone();
        Ran { counts, unexpected, longest_silence: Duration::ZERO, recorder }
    }
}

impl Shared {
    fn unexpected(&self, what: String) {
        let (counts, kept) = &mut *self.ended.lock();
        counts.unexpected += 1;
        if kept.len() < UNEXPECTED_MAX {
            kept.push(what);
        }
    }

    fn count(&self, count: impl Fn(&mut Counts)) {
        count(&mut self.ended.lock().0);
    }
}

struct Writer {
    shared: Arc<Shared>,
    group: String,
    tag: String,
    address: String,
    client: u32,
    round: u64,
}

impl Writer {
    async fn run(self, stop: CancellationToken) {
        let mut connection = None;
        let mut turn = 0;
        while !stop.is_cancelled() {
            let connected = match connection.take() {
                Some(client) => Ok(client),
                None => Client::connect(&self.address, PATIENCE).await,
            };
            let pause = match connected {
                Ok(mut client) => {
                    let goes_on = self.write(&mut client, turn).await;
                    connection = goes_on.then_some(client);
                    if goes_on { PAUSE } else { FAILED_PAUSE }
                }
                Err(_) => {
                    self.shared.count(|counts| counts.refused += 1);
                    FAILED_PAUSE
                }
            };
            turn += 1;
            tokio::time::sleep(pause).await;
        }
    }

    /// False when the connection is to be given up.
    async fn write(&self, client: &mut Client, turn: u64) -> bool {
        let Writer { shared, tag, round, .. } = self;
        let key = format!("{{{tag}}}:{round}-{}", turn / WRITES_PER_KEY);
        let op = Op::Set(format!("{round}-{turn}"));
        let invoked = shared.recorder.now();
        let reply = client.call(&["SET", &key, &format!("{round}-{turn}")]).await;
        let now = shared.recorder.now();
        let outcome = reply.map_or(Outcome::Unknown, |value: Value| understand(&op, value));
        let add = |returned| {
            let (client, key, op) = (self.client, key.clone(), op.clone());
            shared.recorder.add(Record { client, key, op, invoked, returned });
        };
        match outcome {
            Outcome::Answered(answer) => {
                add(Some((now, answer)));
                shared.count(|counts| counts.writes += 1);
                shared.beats.lock().0.entry(self.group.clone()).or_default().push(now);
                true
            }
            Outcome::Refused => {
                shared.count(|counts| counts.refused += 1);
                true
            }
            Outcome::Unknown => {
                add(None);
                shared.count(|counts| counts.unknown += 1);
                false
            }
            Outcome::Unexpected(what) => {
                add(None);
                shared.unexpected(format!("{op:?} of {key}: {what}"));
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::FakeRedis;

    #[test]
    fn a_gap_counts_from_the_last_write_before_to_the_first_one_after() {
        let beats = Beats([("g".to_owned(), vec![10, 20, 100, 110, 500])].into());
        let gap = |from, to| beats.longest_gap("g", from, to).as_nanos();
        assert_eq!(gap(30, 40), 80, "it began before and ended after the window");
        assert_eq!(gap(15, 100), 80);
        assert_eq!(gap(101, 109), 10);
        assert_eq!(gap(105, 200), 390);
        assert_eq!(gap(0, 5), 10, "nothing before: from the window's start");
        assert_eq!(gap(600, 900), 400, "nothing after: to the window's end");
        assert_eq!(
            beats.until(130).longest_gap("g", 101, 130).as_nanos(),
            20,
            "not the one to 500"
        );
        assert_eq!(beats.longest_gap("silent", 5, 9).as_nanos(), 4);
        assert_eq!(beats.worst(101, 109), Some((Duration::from_nanos(10), "g".to_owned())));
    }

    #[test]
    fn a_tag_lies_where_it_should() {
        let narrow = SlotRange { first: Slot(77), last: Slot(80) };
        let tag = tag_in(&narrow, "p");
        assert!(narrow.contains(Slot::of(format!("{{{tag}}}:1-2").as_bytes())), "{tag}");
    }

    #[tokio::test]
    async fn groups_beat_are_silent_and_are_told() {
        let redis = FakeRedis::default();
        let half = |n: u16| {
            (n.to_string(), SlotRange { first: Slot(n * 8192), last: Slot(n * 8192 + 8191) })
        };
        let (groups, addresses) = ([half(0), half(1)], [redis.listen().await]);
        let mut pulses = Pulses::new("p");
        for _ in 0..2 {
            pulses.start(&groups, &addresses).await;
            assert_eq!(pulses.more(&groups, 20, Duration::from_secs(20)).await, Ok(()));
        }
        redis.refuse_every.store(1, std::sync::atomic::Ordering::Relaxed);
        let silent = pulses.more(&groups, 5, Duration::from_millis(100)).await;
        assert_eq!(silent, Err("0".to_owned()));
        redis.refuse_every.store(0, std::sync::atomic::Ordering::Relaxed);
        let ran = pulses.stop().await;
        let finals = ran.read_finals(&addresses, Duration::from_secs(5)).await.unwrap();
        assert_eq!(finals.len(), 4, "a key of each group in each round: {finals:?}");
        assert!(ran.counts.writes >= 80 && ran.counts.refused > 0, "{:?}", ran.counts);
        assert_eq!(crate::checkers::acked_survives::check(&ran.history(), &finals), []);
    }
}
