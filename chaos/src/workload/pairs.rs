//! Load for `checkers::origin_order`: rising numbers, written by one client of one cluster to two
//! keys of one slot, and read in all other clusters all the time.
//!
//! A write whose outcome is unknown may still take effect later, behind newer ones, which would be
//! no fault of anybody: so nothing is written to such a pair any more, and a new one takes its
//! place. The last of those retired are read on for a while, and all that are remembered once more
//! in the end.

use super::client::Outcome;
use super::door::{Door, Doorway, words};
use super::finals;
use crate::checkers::Violation;
use crate::checkers::origin_order::{self, Progress, Seen};
use crate::resp::Value;
use parking_lot::Mutex;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Pairs that each cluster writes at a time: over slots by chance, so that several groups are seen.
const PAIRS_PER_CLUSTER: usize = 4;
/// Retired pairs that are remembered, of all clusters together.
const RETIRED_MAX: usize = 200;
/// Of those, the newest that are read on.
const RETIRED_READ_MAX: usize = 8;
/// Pause of a writer after each number, and of a reader after each look, about: enough to see an order,
/// little enough to leave the machine to the servers.
const PAUSE: Duration = Duration::from_millis(20);
/// Violations that are kept; one that is seen is seen again and again.
const VIOLATIONS_MAX: usize = 20;

/// Writers and readers under way.
pub struct Pairs {
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
    stop: CancellationToken,
}

/// What they have left behind.
pub struct PairsRan {
    /// Orders that were broken while they ran.
    pub violations: Vec<Violation>,
    /// Acknowledged writes.
    pub writes: u64,
    /// Reads of a whole pair.
    pub looks: u64,
    pairs: Vec<Arc<Pair>>,
}

struct Pair {
    origin: String,
    /// `x` or `y` behind it is a key. The hash tag keeps both in one slot.
    name: String,
    progress: Mutex<Progress>,
}

struct Shared {
    prefix: String,
    /// By cluster and place.
    current: Mutex<BTreeMap<(String, usize), Arc<Pair>>>,
    retired: Mutex<VecDeque<Arc<Pair>>>,
    violations: Mutex<Vec<Violation>>,
    born: AtomicU64,
    writes: AtomicU64,
    looks: AtomicU64,
}

impl Pairs {
    /// Starts writers and readers in all clusters. Must be called inside a tokio runtime.
    pub fn start(
        clusters: &BTreeMap<String, Doorway>,
        prefix: impl Into<String>,
        seed: u64,
    ) -> Pairs {
        let shared = Arc::new(Shared {
            prefix: prefix.into(),
            current: Mutex::default(),
            retired: Mutex::default(),
            violations: Mutex::default(),
            born: AtomicU64::new(0),
            writes: AtomicU64::new(0),
            looks: AtomicU64::new(0),
        });
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        for (number, (cluster, way)) in clusters.iter().enumerate() {
            let seed = |task: usize| seed.wrapping_add((number * 100 + task) as u64);
            for place in 0..PAIRS_PER_CLUSTER {
                shared.renew(cluster, place);
                let door = Door::new(way.addresses.clone(), way.gate.clone(), seed(place));
                tasks.spawn(write(shared.clone(), cluster.clone(), place, door, stop.clone()));
            }
            let door = Door::new(way.addresses.clone(), way.gate.clone(), seed(PAIRS_PER_CLUSTER));
            tasks.spawn(read(shared.clone(), cluster.clone(), door, stop.clone()));
        }
        Pairs { shared, tasks, stop }
    }

    /// Whether an order was seen broken so far.
    pub fn is_broken(&self) -> bool {
        !self.shared.violations.lock().is_empty()
    }

    /// Reads of a whole pair so far.
    pub fn looks(&self) -> u64 {
        self.shared.looks.load(Relaxed)
    }

    /// Lets everybody finish.
    pub async fn stop(mut self) -> PairsRan {
        self.stop.cancel();
        while let Some(task) = self.tasks.join_next().await {
            task.expect("a probe does not panic");
        }
        let shared = &self.shared;
        let mut pairs: Vec<Arc<Pair>> = shared.retired.lock().iter().cloned().collect();
        pairs.extend(shared.current.lock().values().cloned());
        PairsRan {
            violations: shared.violations.lock().clone(),
            writes: shared.writes.load(Relaxed),
            looks: shared.looks.load(Relaxed),
            pairs,
        }
    }
}

impl PairsRan {
    /// Reads everything once more in one cluster, when all has arrived there.
    pub async fn check_finals(
        &self,
        cluster: &str,
        addresses: &[String],
        patience: Duration,
    ) -> Result<Vec<Violation>, String> {
        let keys = self.pairs.iter().flat_map(|pair| [pair.key('y'), pair.key('x')]);
        let cells: Vec<_> = keys.map(|key| (key, None)).collect();
        let found = finals::read(None, &cells, addresses, patience).await?;
        let check = |pair: &Arc<Pair>| {
            let value = |side| {
                let found = found.get(&(pair.key(side), None)).and_then(Option::as_deref);
                origin_order::check_text(&pair.told(), cluster, found)
            };
            let look = match (value('y'), value('x')) {
                (Ok(y), Ok(x)) => (y, x),
                (Err(violation), _) | (_, Err(violation)) => return Some(violation),
            };
            origin_order::check_final(&pair.told(), cluster, look, &pair.progress.lock())
        };
        Ok(self.pairs.iter().filter_map(check).take(VIOLATIONS_MAX).collect())
    }
}

impl Pair {
    fn key(&self, side: char) -> String {
        format!("{}{side}", self.name)
    }

    fn told(&self) -> String {
        format!("{} of {}", self.name, self.origin)
    }
}

impl Shared {
    /// Gives a place a new pair, and remembers the old one.
    fn renew(&self, cluster: &str, place: usize) {
        let number = self.born.fetch_add(1, Relaxed);
        let pair = Arc::new(Pair {
            origin: cluster.to_owned(),
            name: format!("{{{}:{number}}}", self.prefix),
            progress: Mutex::default(),
        });
        let old = self.current.lock().insert((cluster.to_owned(), place), pair);
        if let Some(old) = old {
            let mut retired = self.retired.lock();
            if retired.len() == RETIRED_MAX {
                retired.pop_front();
            }
            retired.push_back(old);
        }
    }

    fn keep(&self, violations: Vec<Violation>) {
        let mut kept = self.violations.lock();
        let room = VIOLATIONS_MAX.saturating_sub(kept.len());
        kept.extend(violations.into_iter().take(room));
    }

    /// What a cluster has to read: the pairs of all others.
    fn foreign(&self, cluster: &str) -> Vec<Arc<Pair>> {
        let mut pairs: Vec<Arc<Pair>> = self.current.lock().values().cloned().collect();
        pairs.extend(self.retired.lock().iter().rev().take(RETIRED_READ_MAX).cloned());
        pairs.retain(|pair| pair.origin != cluster);
        pairs
    }
}

async fn write(
    shared: Arc<Shared>,
    cluster: String,
    place: usize,
    mut door: Door,
    stop: CancellationToken,
) {
    while !stop.is_cancelled() {
        let inside = door.gate.pass().await;
        let pair = shared.current.lock()[&(cluster.clone(), place)].clone();
        for side in ['x', 'y'] {
            if !write_one(&shared, &pair, side, &mut door, &stop).await {
                break;
            }
        }
        if pair.progress.lock().open {
            shared.renew(&cluster, place);
        }
        drop(inside);
        door.pause(PAUSE).await;
    }
}

/// Writes the next number until it is acknowledged; false when it is not.
async fn write_one(
    shared: &Shared,
    pair: &Pair,
    side: char,
    door: &mut Door,
    stop: &CancellationToken,
) -> bool {
    let number = {
        let mut progress = pair.progress.lock();
        let number = if side == 'x' { progress.x + 1 } else { progress.x };
        progress.sent = number;
        number
    };
    let command = words(&["SET", &pair.key(side), &number.to_string()]);
    loop {
        match door.write(&command).await {
            Outcome::Answered(_) => break,
            Outcome::Refused if !stop.is_cancelled() => door.pause(PAUSE).await,
            Outcome::Refused => return false,
            Outcome::Unknown | Outcome::Unexpected(_) => {
                pair.progress.lock().open = true;
                return false;
            }
        }
    }
    let mut progress = pair.progress.lock();
    *(if side == 'x' { &mut progress.x } else { &mut progress.y }) = number;
    shared.writes.fetch_add(1, Relaxed);
    true
}

async fn read(shared: Arc<Shared>, cluster: String, mut door: Door, stop: CancellationToken) {
    let mut seen: BTreeMap<String, Seen> = BTreeMap::new();
    while !stop.is_cancelled() {
        let inside = door.gate.pass().await;
        let pairs = shared.foreign(&cluster);
        // Read again under another name only: a pair that left never comes back.
        seen.retain(|name, _| pairs.iter().any(|pair| pair.name == *name));
        shared.keep(look(&shared, &cluster, &pairs, &mut seen, &mut door).await);
        drop(inside);
        door.pause(PAUSE).await;
    }
}

/// Reads y of all pairs, and when all have answered x of all pairs. What is refused is not judged.
async fn look(
    shared: &Shared,
    cluster: &str,
    pairs: &[Arc<Pair>],
    seen: &mut BTreeMap<String, Seen>,
    door: &mut Door,
) -> Vec<Violation> {
    let mut answers = Vec::new();
    for side in ['y', 'x'] {
        let gets: Vec<Vec<String>> =
            pairs.iter().map(|pair| words(&["GET", &pair.key(side)])).collect();
        match door.pipeline(&gets).await {
            Ok(replies) => answers.push(replies),
            Err(_) => return vec![],
        }
    }
    let mut violations = Vec::new();
    for (pair, (y, x)) in pairs.iter().zip(answers[0].iter().zip(&answers[1])) {
        if [y, x].into_iter().any(|reply| matches!(reply, Value::Error(_))) {
            continue;
        }
        shared.looks.fetch_add(1, Relaxed);
        let number = |reply: &Value| {
            origin_order::check_text(&pair.told(), cluster, reply.text().as_deref())
        };
        match (number(y), number(x)) {
            (Ok(y), Ok(x)) => {
                let sent = pair.progress.lock().sent;
                let seen = seen.entry(pair.name.clone()).or_default();
                violations.extend(seen.look(&pair.told(), cluster, (y, x), sent));
            }
            (Err(violation), _) | (_, Err(violation)) => violations.push(violation),
        }
    }
    violations
}
