//! Load for `checkers::no_resurrection`: keys that are written once, seen everywhere, deleted, seen
//! gone everywhere, and looked for ever after.
//!
//! Each subject is worked on by one cluster at a time: one writes it, and when all have shown it one
//! of them deletes it. A write whose outcome is unknown may take effect behind the deletion, so such
//! a subject is given up. A deletion may be repeated as often as it takes.

use super::client::Outcome;
use super::door::{Closed, Door, Doorway, meaning, words};
use super::finals;
use crate::checkers::Violation;
use crate::checkers::no_resurrection::{Deaths, Subject};
use crate::resp::Value;
use parking_lot::Mutex;
use rand::Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Subjects between birth and being gone: a cut link holds them all up.
const ALIVE_MAX: usize = 64;
/// Gone subjects that stay under watch.
const GONE_MAX: usize = 2000;
/// Gone subjects that each cluster is asked for at a time.
const LOOKS_PER_ROUND: usize = 20;
/// Pause of each cluster's task between two rounds, about.
const PAUSE: Duration = Duration::from_millis(50);
/// How long those live that expire, after all have seen them, in milliseconds.
const EXPIRY_MS: &str = "200";
/// Violations that are kept; one that is seen is seen again and again.
const VIOLATIONS_MAX: usize = 20;

/// Tasks under way, one in each cluster.
pub struct Graves {
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
    stop: CancellationToken,
}

/// What they have left behind.
pub struct GravesRan {
    /// What was seen again while they ran.
    pub violations: Vec<Violation>,
    /// Subjects that were seen gone everywhere.
    pub buried: u64,
    gone: Vec<Subject>,
}

/// Ways to come and go.
#[derive(Debug, Clone, Copy)]
enum Kind {
    /// SET, DEL.
    Text,
    /// HSET, HDEL; another field of the hash stays.
    Field,
    /// INCR, DEL.
    Counter,
    /// SET, PEXPIRE.
    Lapsing,
}

const KINDS: [Kind; 4] = [Kind::Text, Kind::Field, Kind::Counter, Kind::Lapsing];

struct Life {
    kind: Kind,
    stage: Stage,
}

enum Stage {
    /// This cluster shall write it.
    Unborn(String),
    /// These have shown it.
    Spreading(BTreeSet<String>),
    /// This cluster shall delete it.
    Condemned(String),
    /// It was deleted: `Deaths` knows the rest.
    Dying,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Act {
    Write,
    Look,
    Delete,
}

struct Shared {
    prefix: String,
    clusters: Vec<String>,
    began: Instant,
    born: AtomicU64,
    buried: AtomicU64,
    yard: Mutex<Yard>,
}

struct Yard {
    alive: BTreeMap<Subject, Life>,
    deaths: Deaths,
    violations: Vec<Violation>,
    /// Where each cluster goes on looking among the gone.
    rounds: BTreeMap<String, usize>,
}

impl Graves {
    /// Starts a task in each cluster. Must be called inside a tokio runtime.
    pub fn start(
        clusters: &BTreeMap<String, Doorway>,
        prefix: impl Into<String>,
        seed: u64,
    ) -> Graves {
        let shared = Arc::new(Shared {
            prefix: prefix.into(),
            clusters: clusters.keys().cloned().collect(),
            began: Instant::now(),
            born: AtomicU64::new(0),
            buried: AtomicU64::new(0),
            yard: Mutex::new(Yard {
                alive: BTreeMap::new(),
                deaths: Deaths::new(clusters.len(), GONE_MAX, seed),
                violations: vec![],
                rounds: BTreeMap::new(),
            }),
        });
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        for (number, (cluster, way)) in clusters.iter().enumerate() {
            let door = Door::new(
                way.addresses.clone(),
                way.gate.clone(),
                seed.wrapping_add(number as u64),
            );
            tasks.spawn(run(shared.clone(), cluster.clone(), door, stop.clone()));
        }
        Graves { shared, tasks, stop }
    }

    /// Whether somebody was seen again so far.
    pub fn is_broken(&self) -> bool {
        !self.shared.yard.lock().violations.is_empty()
    }

    /// Subjects that were seen gone everywhere so far.
    pub fn buried(&self) -> u64 {
        self.shared.buried.load(Relaxed)
    }

    /// Lets every task finish its round.
    pub async fn stop(mut self) -> GravesRan {
        self.stop.cancel();
        while let Some(task) = self.tasks.join_next().await {
            task.expect("a probe does not panic");
        }
        let yard = self.shared.yard.lock();
        GravesRan {
            violations: yard.violations.clone(),
            buried: self.shared.buried.load(Relaxed),
            gone: yard.deaths.gone().to_vec(),
        }
    }
}

impl GravesRan {
    /// Looks once more for everything that is gone, in one cluster.
    pub async fn check_finals(
        &self,
        cluster: &str,
        addresses: &[String],
        patience: Duration,
    ) -> Result<Vec<Violation>, String> {
        let found = finals::read(None, &self.gone, addresses, patience).await?;
        // A checker that has just seen them all gone: all that is found is found again.
        let mut deaths = Deaths::new(1, self.gone.len().max(1), 0);
        let later = Duration::from_nanos(1);
        let check = |subject: &Subject| {
            deaths.deleted(subject.clone());
            deaths.saw(cluster, subject, (Duration::ZERO, Duration::ZERO), None);
            let value = found.get(subject).and_then(Option::as_deref);
            deaths.saw(cluster, subject, (later, later), value)
        };
        let found = self.gone.iter().filter_map(check).take(VIOLATIONS_MAX);
        let in_the_end = |violation: Violation| Violation {
            what: format!("in the end, {}", violation.what),
            ..violation
        };
        Ok(found.map(in_the_end).collect())
    }
}

async fn run(shared: Arc<Shared>, cluster: String, mut door: Door, stop: CancellationToken) {
    while !stop.is_cancelled() {
        let inside = door.gate.pass().await;
        shared.give_birth(&cluster, &mut door);
        let tasks = shared.tasks(&cluster);
        let commands: Vec<Vec<String>> = tasks.iter().map(command).collect();
        let asked = shared.began.elapsed();
        match door.pipeline(&commands).await {
            Ok(replies) => {
                for ((subject, kind, act), reply) in tasks.into_iter().zip(replies) {
                    shared.answered(&cluster, (subject, kind, act), reply, asked, &mut door);
                }
            }
            Err(Closed::NotSent) => {}
            Err(Closed::Unknown) => {
                let mut yard = shared.yard.lock();
                for (subject, _, _) in tasks.iter().filter(|(_, _, act)| *act == Act::Write) {
                    yard.alive.remove(subject);
                }
            }
        }
        drop(inside);
        door.pause(PAUSE).await;
    }
}

type Task = (Subject, Kind, Act);

impl Shared {
    fn give_birth(&self, cluster: &str, door: &mut Door) {
        let mut yard = self.yard.lock();
        if yard.alive.len() >= ALIVE_MAX {
            return;
        }
        let number = self.born.fetch_add(1, Relaxed);
        let kind = KINDS[door.dice.random_range(0..KINDS.len())];
        let field = matches!(kind, Kind::Field).then(|| "f".to_owned());
        let subject = (format!("{}:{number}", self.prefix), field);
        yard.alive.insert(subject, Life { kind, stage: Stage::Unborn(cluster.to_owned()) });
    }

    /// What a cluster has to do next.
    fn tasks(&self, cluster: &str) -> Vec<Task> {
        let mut yard = self.yard.lock();
        let Yard { alive, deaths, rounds, .. } = &mut *yard;
        let act = |(subject, life): (&Subject, &Life)| {
            let act = match &life.stage {
                Stage::Unborn(writer) if writer == cluster => Act::Write,
                Stage::Spreading(seen) if !seen.contains(cluster) => Act::Look,
                Stage::Condemned(by) if by == cluster => Act::Delete,
                Stage::Dying if deaths.is_missing(cluster, subject) => Act::Look,
                _ => return None,
            };
            Some((subject.clone(), life.kind, act))
        };
        let mut tasks: Vec<Task> = alive.iter().filter_map(act).collect();
        let gone = deaths.gone();
        let round = rounds.entry(cluster.to_owned()).or_default();
        for place in *round..*round + LOOKS_PER_ROUND.min(gone.len()) {
            // What is read does not depend on the kind.
            tasks.push((gone[place % gone.len()].clone(), Kind::Text, Act::Look));
        }
        *round += LOOKS_PER_ROUND;
        tasks
    }

    fn answered(
        &self,
        cluster: &str,
        (subject, _, act): Task,
        reply: Value,
        asked: Duration,
        door: &mut Door,
    ) {
        let mut yard = self.yard.lock();
        let Yard { alive, deaths, violations, .. } = &mut *yard;
        if act == Act::Look {
            if matches!(reply, Value::Error(_)) {
                return;
            }
            let found = reply.text();
            if let Some(life) = alive.get_mut(&subject)
                && let Stage::Spreading(seen) = &mut life.stage
            {
                if found.is_some() {
                    seen.insert(cluster.to_owned());
                }
                if seen.len() == self.clusters.len() {
                    let by = door.dice.random_range(0..self.clusters.len());
                    life.stage = Stage::Condemned(self.clusters[by].clone());
                }
                return;
            }
            let times = (asked, self.began.elapsed());
            let seen = deaths.saw(cluster, &subject, times, found.as_deref());
            violations.extend(seen.filter(|_| violations.len() < VIOLATIONS_MAX));
            if alive.contains_key(&subject) && !deaths.is_dying(&subject) {
                alive.remove(&subject);
                self.buried.fetch_add(1, Relaxed);
            }
            return;
        }
        let Some(life) = alive.get_mut(&subject) else { return };
        match (act, meaning(reply)) {
            (Act::Write, Outcome::Answered(_)) => life.stage = Stage::Spreading(BTreeSet::new()),
            (Act::Delete, Outcome::Answered(_)) => {
                life.stage = Stage::Dying;
                deaths.deleted(subject);
            }
            (_, Outcome::Refused) | (Act::Delete, Outcome::Unknown) => {}
            _ => {
                alive.remove(&subject);
            }
        }
    }
}

fn command(((key, field), kind, act): &Task) -> Vec<String> {
    match (act, field, kind) {
        (Act::Look, None, _) => words(&["GET", key]),
        (Act::Look, Some(field), _) => words(&["HGET", key, field]),
        (Act::Write, Some(field), _) => words(&["HSET", key, field, "v", "stays", "v"]),
        (Act::Write, None, Kind::Counter) => words(&["INCR", key]),
        (Act::Write, None, _) => words(&["SET", key, "v"]),
        (Act::Delete, Some(field), _) => words(&["HDEL", key, field]),
        (Act::Delete, None, Kind::Lapsing) => words(&["PEXPIRE", key, EXPIRY_MS]),
        (Act::Delete, None, _) => words(&["DEL", key]),
    }
}
