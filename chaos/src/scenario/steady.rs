//! `steady`: no client waits long while what must be done now and then is done: compaction, purging
//! of logs, a node that leaves, lacks what happened meanwhile, and comes back.
//!
//! A mixed load comes at half of the rate that was measured before, through the nodes that stay; its times
//! count from when each request was due (`bench::Timeline`). Large values are written over and over
//! beside it, and the last node goes and comes back by turns. It is told to leave (SIGTERM), so
//! that it follows when it goes.

use super::Report;
use super::meters::{LOG_DISK, LOGGED_BYTES, Meters, SNAPSHOT_BYTES, UNCOMPACTED};
use super::trial::{Settings, Trial};
use super::world::{self, GroupView, World};
use crate::bench::{Held, MixedLoad, Timeline, Times};
use crate::checkers::Violation;
use crate::resp::{Client, Value};
use crate::workload::text;
use flotilla_topology::ids::Role;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

const INVARIANT: &str = "steady";
/// Longest 99.9th percentile.
const P999_MAX: Duration = Duration::from_millis(50);
/// A line of the story, where there is time for some of them.
const PART: Duration = Duration::from_secs(60);
const PARTS_MIN: u32 = 8;
/// How long the maximum is measured.
const MAXIMUM: Duration = Duration::from_secs(10);
/// Keys of the load.
const KEYS: u32 = 100_000;
/// Large values that are written over and over, in turn: so many of so many bytes, so many a second.
const LARGE_KEYS: u64 = 500;
const LARGE_BYTES: usize = 64 << 10;
const LARGE_PER_SECOND: u32 = 32;
/// How long one of them may take; the load beside is what is judged.
const LARGE_PATIENCE: Duration = Duration::from_secs(10);
/// How often processes are looked at.
const PERIOD: Duration = Duration::from_millis(500);
/// How long the node is away, and how long it has come back for, as parts of the whole; at most.
const AWAY_PART: u32 = 4;
const AWAY_MAX: Duration = Duration::from_secs(120);
const HERE_MAX: Duration = Duration::from_secs(180);

/// The node that leaves and comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Guest {
    /// It has been here since then.
    Here(Instant),
    /// It has been away since then.
    Away(Instant),
    /// It was started then, and is not whole yet.
    Coming(Instant),
}

/// How long to hold.
#[derive(Debug, Clone, Copy)]
pub struct Steady {
    /// Of the load at a fixed rate.
    pub duration: Duration,
}

impl Steady {
    fn part(&self) -> Duration {
        PART.min(self.duration / PARTS_MIN)
    }

    fn away(&self) -> Duration {
        AWAY_MAX.min(self.duration / AWAY_PART)
    }

    /// Before it goes, and between two times.
    fn here(&self) -> Duration {
        HERE_MAX.min(self.duration / AWAY_PART / 2)
    }
}

/// Holds a load, and tells what it took minute by minute.
pub async fn steady(world: &dyn World, seed: u64, size: &Steady, settings: &Settings) -> Report {
    let mut trial = Trial::begin(world, INVARIANT, seed, settings).await;
    let Some(cluster) = &trial.cluster_of_three() else { return trial.finish().await };
    if let Err(error) = trial.hold_steady(cluster, size).await {
        trial.violated(format!("{error:#}"));
    }
    trial.finish().await
}

impl Trial<'_> {
    async fn hold_steady(&mut self, cluster: &str, size: &Steady) -> anyhow::Result<()> {
        let members = self.world.members();
        let nodes = world::of_role(&members, Role::Node, &[cluster.to_owned()]);
        let guest = nodes.last().cloned().unwrap_or_default();
        let mut addresses = self.addresses[cluster].clone();
        addresses.pop();
        self.await_spread(cluster).await;
        let load = MixedLoad::new(&addresses, KEYS);
        load.fill().await?;
        let maximum = load.maximum(MAXIMUM).await?;
        let rate = maximum / 2.0;
        self.tell(format!("maximum {maximum:.0} a second; half of it from now on: {rate:.0}"));
        let mut meters = Meters::new(self.world.census()).await;
        let logged = meters.total(LOGGED_BYTES, &nodes);
        let large = Large::start(&addresses, &self.mark);
        let timeline = Timeline::new(size.part());
        let noted = timeline.clone();
        let duration = size.duration;
        let holding = tokio::spawn(async move { load.hold(rate, duration, &noted).await });
        let held = self.watch(size, (cluster, &guest), (&timeline, holding), &mut meters).await?;
        meters.look().await;
        let large = large.stop();
        self.tell(format!(
            "beside it {large} values of {LARGE_BYTES} bytes were written over each other; logs took {} \
             MiB in all, {} MiB of a node are left; {} MiB came by snapshots",
            (meters.total(LOGGED_BYTES, &nodes) - logged) >> 20,
            meters.most(LOG_DISK, &nodes) >> 20,
            meters.total(SNAPSHOT_BYTES, &nodes) >> 20
        ));
        self.judge_steady(&held, timeline.all());
        Ok(())
    }

    /// Tells each part as it ends, and has the guest go and come, until the load has ended and the guest
    /// is back.
    async fn watch(
        &mut self,
        size: &Steady,
        (cluster, guest): (&str, &str),
        (timeline, holding): (&Timeline, JoinHandle<anyhow::Result<Held>>),
        meters: &mut Meters,
    ) -> anyhow::Result<Held> {
        let (began, mut told) = (Instant::now(), 0);
        let mut state = Guest::Here(began);
        while !holding.is_finished() {
            tokio::time::sleep(PERIOD).await;
            meters.look().await;
            // What is due in a part is answered a little later.
            while began.elapsed() > size.part() * (told + 1) + PERIOD {
                self.tell_part(told as usize, timeline, size.part(), (guest, state), meters);
                told += 1;
            }
            let ends = began + size.duration;
            state = self.move_guest(size, (cluster, guest), state, ends, meters).await;
        }
        while size.part() * (told + 1) <= size.duration {
            self.tell_part(told as usize, timeline, size.part(), (guest, state), meters);
            told += 1;
        }
        if matches!(state, Guest::Away(_)) {
            self.restart(guest).await;
        }
        self.settle().await;
        holding.await?
    }

    async fn move_guest(
        &mut self,
        size: &Steady,
        (cluster, guest): (&str, &str),
        state: Guest,
        ends: Instant,
        meters: &Meters,
    ) -> Guest {
        let name = [guest.to_owned()];
        match state {
            // There must be time to come back while the load goes on.
            Guest::Here(since)
                if since.elapsed() >= size.here() && Instant::now() + size.away() * 2 < ends =>
            {
                self.tell(format!("{guest} is told to leave"));
                let gone = self.world.terminate(guest).await;
                self.done(gone);
                Guest::Away(Instant::now())
            }
            Guest::Away(since) if since.elapsed() >= size.away() => {
                self.restart(guest).await;
                Guest::Coming(Instant::now())
            }
            Guest::Coming(since) => {
                // A node is given its groups back when it has all that happened meanwhile.
                let leads = |groups: &[GroupView]| groups.iter().all(GroupView::is_in_place);
                let waited = tokio::time::timeout(PERIOD, self.world.settled()).await;
                let whole = matches!(waited, Ok(Ok(())));
                let groups = self.world.groups(cluster).await;
                if !whole || !groups.is_ok_and(|groups| leads(&groups)) {
                    return state;
                }
                let snapshots = meters.total(SNAPSHOT_BYTES, &name) >> 20;
                self.tell(format!(
                    "{guest} has all and leads again {:.1?} after its start; {snapshots} MiB of snapshots so far",
                    since.elapsed()
                ));
                Guest::Here(Instant::now())
            }
            state => state,
        }
    }

    fn tell_part(
        &mut self,
        number: usize,
        timeline: &Timeline,
        part: Duration,
        (guest, state): (&str, Guest),
        meters: &Meters,
    ) {
        let beside = match state {
            Guest::Here(_) => "here",
            Guest::Away(_) => "away",
            Guest::Coming(_) => "catching up",
        };
        let nodes: Vec<String> =
            self.world.members().into_iter().map(|member| member.name).collect();
        let waits = meters.most(UNCOMPACTED, &nodes) >> 20;
        let line = match timeline.part(number) {
            Some(times) => shown(&times, part),
            None => "nothing was answered".to_owned(),
        };
        let number = number + 1;
        self.tell(format!(
            "part {number} of {part:?}: {line}; {guest} is {beside}, {waits} MiB wait for compaction"
        ));
    }

    fn judge_steady(&mut self, held: &Held, all: Option<Times>) {
        let mut wrong = Vec::new();
        match all {
            Some(times) => {
                self.tell(format!(
                    "in all {} operations: p50 {:.2?}, p99 {:.2?}, p99.9 {:.2?}, max {:.2?}",
                    times.operations, times.p50, times.p99, times.p999, times.max
                ));
                if times.p999 > P999_MAX {
                    wrong.push(format!("p99.9 is {:.2?}, more than {P999_MAX:?}", times.p999));
                }
            }
            None => wrong.push("nothing was answered".to_owned()),
        }
        if held.unsent > 0 {
            wrong.push(format!("{} requests were due and not sent: too far behind", held.unsent));
        }
        if let Some(error) = &held.first_error {
            wrong.push(format!("{} errors, the first: {error}", held.errors));
        }
        for what in wrong {
            self.violation(Violation { invariant: INVARIANT, what });
        }
    }
}

fn shown(times: &Times, part: Duration) -> String {
    let Times { operations, p50, p99, p999, max } = times;
    let rate = *operations as f64 / part.as_secs_f64();
    format!("{rate:.0} a second, p50 {p50:.2?}, p99 {p99:.2?}, p99.9 {p999:.2?}, max {max:.2?}")
}

/// Large values, written over each other.
struct Large {
    written: Arc<AtomicU64>,
    _stop: DropGuard,
}

impl Large {
    fn start(addresses: &[String], mark: &str) -> Large {
        let (written, stop) = (Arc::<AtomicU64>::default(), CancellationToken::new());
        let (addresses, prefix) = (addresses.to_vec(), format!("steady:{mark}"));
        let (count, stopped) = (written.clone(), stop.clone());
        tokio::spawn(async move {
            stopped.run_until_cancelled(write_large(addresses, prefix, &count)).await;
        });
        Large { written, _stop: stop.drop_guard() }
    }

    /// How many were written.
    fn stop(self) -> u64 {
        self.written.load(Relaxed)
    }
}

async fn write_large(addresses: Vec<String>, prefix: String, written: &AtomicU64) {
    let mut tick = tokio::time::interval(Duration::from_secs(1) / LARGE_PER_SECOND);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut client: Option<Client> = None;
    for number in 0u64.. {
        tick.tick().await;
        let address = &addresses[number as usize % addresses.len()];
        let mut line = match client.take() {
            Some(line) => line,
            None => match Client::connect(address, LARGE_PATIENCE).await {
                Ok(line) => line,
                Err(_) => continue,
            },
        };
        let key = format!("{prefix}:{}", number % LARGE_KEYS);
        match line.call(&["SET", &key, &text(number, LARGE_BYTES)]).await {
            Ok(Value::Error(_)) | Err(_) => {}
            Ok(_) => {
                written.fetch_add(1, Relaxed);
                client = Some(line);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_and_absences_fit_the_time() {
        let size = |minutes: u64| Steady { duration: Duration::from_secs(60 * minutes) };
        assert_eq!((size(30).part(), size(30).away()), (PART, AWAY_MAX));
        let short = size(2);
        assert_eq!((short.part(), short.away()), (PART / 4, PART / 2));
        assert!(short.here() + short.away() * 2 < short.duration, "it goes and comes once");
    }

    #[test]
    fn a_part_is_a_line() {
        let ms = Duration::from_millis;
        let times = Times { operations: 600, p50: ms(1), p99: ms(2), p999: ms(3), max: ms(4) };
        let line = shown(&times, ms(60_000));
        assert_eq!(line, "10 a second, p50 1.00ms, p99 2.00ms, p99.9 3.00ms, max 4.00ms");
    }
}
