//! `large`: a set, a hash, a sorted set and a list of millions of elements each are built, read, ranked
//! and deleted, and leave nothing behind; and no node holds them in memory.

use super::Report;
use super::trial::{Settings, Trial};
use super::world::World;
use crate::checkers::Violation;
use crate::http;
use crate::resp::{Client, Value};
use crate::vitals::{Census, Vital, metric, resident_bytes};
use crate::workload::{Bulk, words};
use flotilla_topology::ids::Role;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::{CancellationToken, DropGuard};

const INVARIANT: &str = "large";
/// Elements that one command adds.
const CHUNK: u64 = 100;
/// Elements that one range or one step of a scan reads.
const RANGE: u64 = 1000;
/// How often the memory of all nodes is looked at.
const PERIOD: Duration = Duration::from_millis(500);
/// How long a node may take to tell its metrics.
const PATIENCE: Duration = Duration::from_secs(5);
/// Pause between two scans of everything.
const SCAN_PERIOD: Duration = Duration::from_secs(2);
/// How long one question may take. To load five million elements takes several times as long.
const QUESTION_MAX: Duration = Duration::from_secs(1);

/// How large.
#[derive(Debug, Clone, Copy)]
pub struct Large {
    /// Elements of each collection, some thousands.
    elements: u64,
    /// How much the memory of a node may grow, in bytes, besides its block cache.
    growth_max: u64,
    /// How long deleting the rows may take once the keys are deleted.
    patience: Duration,
}

impl Large {
    /// So many elements, rounded up: whole commands add them, and a range stands behind their middle.
    pub fn new(elements: u64, growth_max: u64, patience: Duration) -> Large {
        let elements = elements.max(1).next_multiple_of(2 * RANGE);
        Large { elements, growth_max, patience }
    }
}

/// The four collections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Set,
    Hash,
    SortedSet,
    List,
}

impl Kind {
    const ALL: [Kind; 4] = [Kind::Set, Kind::Hash, Kind::SortedSet, Kind::List];

    fn name(self) -> &'static str {
        match self {
            Kind::Set => "set",
            Kind::Hash => "hash",
            Kind::SortedSet => "zset",
            Kind::List => "list",
        }
    }

    /// Adds the elements from `first` on.
    fn add(self, key: &str, first: u64) -> Vec<String> {
        let verb = match self {
            Kind::Set => "SADD",
            Kind::Hash => "HSET",
            Kind::SortedSet => "ZADD",
            Kind::List => "RPUSH",
        };
        let mut command = words(&[verb, key]);
        for number in first..first + CHUNK {
            match self {
                Kind::Set => command.push(format!("m{number}")),
                Kind::Hash => command.extend([format!("f{number}"), format!("v{number}")]),
                Kind::SortedSet => command.extend([number.to_string(), format!("m{number}")]),
                Kind::List => command.push(format!("v{number}")),
            }
        }
        command
    }

    /// Questions about a collection of so many elements, and their answers.
    fn questions(self, key: &str, size: u64) -> Vec<(Vec<String>, Value)> {
        let (last, middle) = (size - 1, size / 2);
        let ask = |line: String| words(&line.replace('*', key).split(' ').collect::<Vec<_>>());
        let int = |number: u64| Value::Int(number as i64);
        let text = |text: String| Value::Bulk(text.into());
        let range = |sign: char, from: u64| {
            Value::Array(
                (from..from + RANGE).map(|number| text(format!("{sign}{number}"))).collect(),
            )
        };
        let to = middle + RANGE - 1;
        let questions = match self {
            Kind::Set => vec![
                ("SCARD *".to_owned(), int(size)),
                (format!("SISMEMBER * m{last}"), int(1)),
                (format!("SISMEMBER * m{size}"), int(0)),
                (format!("SMISMEMBER * m0 m{middle}"), Value::Array(vec![int(1), int(1)])),
            ],
            Kind::Hash => vec![
                ("HLEN *".to_owned(), int(size)),
                (format!("HGET * f{middle}"), text(format!("v{middle}"))),
                (format!("HEXISTS * f{size}"), int(0)),
                (format!("HSTRLEN * f{last}"), int(last.to_string().len() as u64 + 1)),
            ],
            Kind::SortedSet => vec![
                ("ZCARD *".to_owned(), int(size)),
                (format!("ZRANK * m{middle}"), int(middle)),
                (format!("ZREVRANK * m{middle}"), int(last - middle)),
                (format!("ZSCORE * m{last}"), text(last.to_string())),
                (format!("ZCOUNT * {middle} +inf"), int(size - middle)),
                (format!("ZRANGE * {middle} {to}"), range('m', middle)),
                (format!("ZRANGE * {middle} +inf BYSCORE LIMIT 0 {RANGE}"), range('m', middle)),
                (format!("ZRANGE * -inf +inf BYSCORE LIMIT {middle} {RANGE}"), range('m', middle)),
            ],
            Kind::List => vec![
                ("LLEN *".to_owned(), int(size)),
                ("LINDEX * 0".to_owned(), text("v0".to_owned())),
                ("LINDEX * -1".to_owned(), text(format!("v{last}"))),
                (format!("LINDEX * {middle}"), text(format!("v{middle}"))),
                (format!("LRANGE * {middle} {to}"), range('v', middle)),
                ("LPUSH * a".to_owned(), int(size + 1)),
                ("RPOP *".to_owned(), text(format!("v{last}"))),
                ("LPOP *".to_owned(), text("a".to_owned())),
                (format!("RPUSH * v{last}"), int(size)),
            ],
        };
        questions.into_iter().map(|(line, answer)| (ask(line), answer)).collect()
    }

    /// The command that walks over all, without its cursor, and words of its answer per element; a
    /// list has none.
    fn scan(self) -> Option<(&'static str, usize)> {
        match self {
            Kind::Set => Some(("SSCAN", 1)),
            Kind::Hash => Some(("HSCAN", 2)),
            Kind::SortedSet => Some(("ZSCAN", 2)),
            Kind::List => None,
        }
    }
}

/// Builds the collections in the first cluster, asks, deletes them, and waits until scans of all
/// replicas find nothing of them.
pub async fn large(world: &dyn World, seed: u64, size: &Large, settings: &Settings) -> Report {
    let mut trial = Trial::idle(world, "large", seed, settings).await;
    let memory = Memory::watch(world);
    let before = trial.most_rows().await.0;
    let Some(cluster) = trial.clusters().first().cloned() else { return trial.finish().await };
    let mut built = Vec::new();
    for kind in Kind::ALL {
        let key = format!("large:{}:{}", trial.mark, kind.name());
        if let Err(why) = trial.build(kind, &key, &cluster, size).await {
            trial.violated(why);
            return trial.finish().await;
        }
        built.push(key);
    }
    let began = Instant::now();
    for key in &built {
        trial.question(&cluster, words(&["DEL", key]), &Value::Int(1)).await;
        trial.question(&cluster, words(&["EXISTS", key]), &Value::Int(0)).await;
    }
    trial.await_rows(before, began, size).await;
    let grown = memory.grown();
    if grown.is_empty() {
        let what = "no node has told how large its block cache is".to_owned();
        trial.violation(Violation { invariant: INVARIANT, what });
    }
    trial.tell(format!("memory grew, besides the caches: {}", told(&grown)));
    for (node, bytes) in grown.into_iter().filter(|(_, bytes)| *bytes > size.growth_max) {
        let what =
            format!("{node} grew by {} MiB, {} are allowed", bytes >> 20, size.growth_max >> 20);
        trial.violation(Violation { invariant: INVARIANT, what });
    }
    trial.finish().await
}

fn told(grown: &BTreeMap<String, u64>) -> String {
    let each = grown.iter().map(|(node, bytes)| format!("{node} {} MiB", bytes >> 20));
    each.collect::<Vec<_>>().join(", ")
}

impl Trial<'_> {
    async fn build(
        &mut self,
        kind: Kind,
        key: &str,
        cluster: &str,
        size: &Large,
    ) -> Result<(), String> {
        let began = Instant::now();
        // A list is in the order of its commands: one client sends them.
        let clients = if kind == Kind::List { 1 } else { 4 };
        let bulk = Bulk { clients, ..self.bulk(cluster) };
        bulk.write(0..size.elements / CHUNK, |chunk| kind.add(key, chunk * CHUNK)).await?;
        let rate = size.elements as f64 / began.elapsed().as_secs_f64();
        let name = kind.name();
        self.tell(format!("{name} of {} elements built, {rate:.0} in a second", size.elements));
        for (question, answer) in kind.questions(key, size.elements) {
            self.question(cluster, question, &answer).await;
        }
        if let Some((scan, words)) = kind.scan() {
            self.walk(cluster, (scan, words), key, size.elements).await?;
        }
        Ok(())
    }

    /// A question must be answered so, and soon.
    async fn question(&mut self, cluster: &str, question: Vec<String>, answer: &Value) {
        let began = Instant::now();
        let line = question.join(" ");
        let told = match self.client(cluster).await {
            Ok(mut client) => client.call(&question).await.map_err(|error| error.to_string()),
            Err(why) => Err(why),
        };
        let took = began.elapsed();
        self.tell(format!("{line}: {:.1} ms", took.as_secs_f64() * 1000.0));
        let wrong = match told {
            Ok(told) if told == *answer && took <= QUESTION_MAX => return,
            Ok(told) if told == *answer => format!("{line} took {took:.1?}"),
            Ok(told) => format!("{line}: {}, not {}", short(&told), short(answer)),
            Err(why) => format!("{line}: {why}"),
        };
        self.violation(Violation { invariant: INVARIANT, what: wrong });
    }

    async fn client(&self, cluster: &str) -> Result<Client, String> {
        let address = self.addresses[cluster].first().ok_or("no node to ask")?;
        let client = Client::connect(address, self.settings.patience).await;
        client.map_err(|error| error.to_string())
    }

    /// Scans a collection from end to end: nothing changes meanwhile, so each element comes once.
    async fn walk(
        &mut self,
        cluster: &str,
        (scan, words): (&str, usize),
        key: &str,
        elements: u64,
    ) -> Result<(), String> {
        let (began, count) = (Instant::now(), RANGE.to_string());
        let mut client = self.client(cluster).await?;
        let (mut cursor, mut found, mut slowest) = ("0".to_owned(), 0, Duration::ZERO);
        loop {
            let asked = Instant::now();
            let step = client.call(&[scan, key, &cursor, "COUNT", &count]).await;
            slowest = slowest.max(asked.elapsed());
            let (next, items) = match step.map_err(|error| error.to_string())? {
                Value::Array(parts) => match <[Value; 2]>::try_from(parts) {
                    Ok([next, Value::Array(items)]) => (next.text().unwrap_or_default(), items),
                    other => return Err(format!("{scan} answers {other:?}")),
                },
                other => return Err(format!("{scan} answers {other:?}")),
            };
            found += (items.len() / words) as u64;
            cursor = next;
            if cursor == "0" {
                break;
            }
        }
        let took = began.elapsed();
        self.tell(format!("{scan} to the end in {took:.1?}, the slowest step {slowest:.1?}"));
        if found != elements || slowest > QUESTION_MAX {
            let what =
                format!("{scan} found {found} of {elements}, its slowest step took {slowest:.1?}");
            self.violation(Violation { invariant: INVARIANT, what });
        }
        Ok(())
    }

    /// The most rows of a node, and what all have.
    async fn most_rows(&mut self) -> (u64, String) {
        let rows = self.scan().await;
        let each = rows.iter().map(|rows| format!("{}: {}", rows.node, rows.told));
        let told = each.collect::<Vec<_>>().join("; ");
        (rows.iter().map(|rows| rows.elements + rows.garbage).max().unwrap_or_default(), told)
    }

    async fn await_rows(&mut self, before: u64, began: Instant, size: &Large) {
        loop {
            let (rows, told) = self.most_rows().await;
            let took = began.elapsed();
            if rows <= before {
                return self.tell(format!("no row of them is left {took:.1?} after the deletes"));
            }
            if took > size.patience || !self.is_sound() {
                let what = format!("rows are left after {took:.0?}: {told}");
                return self.violation(Violation { invariant: INVARIANT, what });
            }
            tokio::time::sleep(SCAN_PERIOD).await;
        }
    }
}

fn short(value: &Value) -> String {
    format!("{value:?}").chars().take(120).collect()
}

/// What the memory of each node was first and at most, besides its block cache.
struct Memory {
    seen: Arc<Mutex<BTreeMap<String, (u64, u64)>>>,
    _stop: DropGuard,
}

impl Memory {
    /// Looks at all nodes until it is asked.
    fn watch(world: &dyn World) -> Memory {
        let members = world.members().into_iter().filter(|member| member.role == Role::Node);
        let nodes: Vec<String> = members.map(|member| member.name).collect();
        let (seen, stop) = (Arc::<Mutex<BTreeMap<_, _>>>::default(), CancellationToken::new());
        let (noted, stopped, census) = (seen.clone(), stop.clone(), world.census());
        tokio::spawn(async move {
            stopped.run_until_cancelled(look_on(census, nodes, &noted)).await;
        });
        Memory { seen, _stop: stop.drop_guard() }
    }

    /// By how much it grew at most.
    fn grown(self) -> BTreeMap<String, u64> {
        let seen = self.seen.lock();
        seen.iter().map(|(node, (first, most))| (node.clone(), most - first)).collect()
    }
}

async fn look_on(census: Census, nodes: Vec<String>, seen: &Mutex<BTreeMap<String, (u64, u64)>>) {
    let mut tick = tokio::time::interval(PERIOD);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        for vital in census().iter().filter(|vital| nodes.contains(&vital.name)) {
            if let Some(bytes) = besides_caches(vital).await {
                let mut seen = seen.lock();
                let (_, most) = seen.entry(vital.name.clone()).or_insert((bytes, bytes));
                *most = bytes.max(*most);
            }
        }
    }
}

async fn besides_caches(vital: &Vital) -> Option<u64> {
    let answer = http::get(&vital.http, "/metrics", PATIENCE).await.ok()?;
    let text = String::from_utf8_lossy(&answer.body);
    let blocks = metric(&text, "flotilla_storage_block_cache_bytes")?;
    let rows = metric(&text, "flotilla_storage_row_cache_bytes")?;
    Some(resident_bytes(vital)?.saturating_sub(blocks + rows))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_whole_and_questions_ask_for_what_is_there() {
        for kind in Kind::ALL {
            let command = kind.add("k", 200);
            let words = kind.scan().map_or(1, |(_, words)| words);
            assert_eq!(command.len() as u64, 2 + CHUNK * words as u64, "{kind:?}");
            assert!(command.last().is_some_and(|word| word.ends_with("299")), "{kind:?}");
            let questions = kind.questions("k", 5000);
            assert!(questions.iter().all(|(question, _)| question[1] == "k"), "{kind:?}");
            assert!(questions.iter().any(|(_, answer)| *answer == Value::Int(5000)), "{kind:?}");
        }
    }
}
