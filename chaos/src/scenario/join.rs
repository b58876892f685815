//! A cluster joins others that are full and under load: the whole state is merged into it, while
//! processes of both sides are killed again and again, and nothing stops for the clients.

use super::Report;
use super::meters::{MERGED_BYTES, MERGED_ROWS, Meters, SHIPPED_BYTES};
use super::report::SERVES;
use super::trial::{Settings, Trial};
use super::world::{self, LinkView, Rows, World};
use crate::checkers::{Violation, converge};
use crate::resp::Value;
use crate::wan::Path;
use crate::workload::{Bulk, Latency, text};
use flotilla_topology::api::{LinkOp, LinkState};
use flotilla_topology::ids::Role;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// Pause between two looks at links and metrics.
const PERIOD: Duration = Duration::from_millis(200);
/// Keys that are read in the new cluster in the end.
const SAMPLE: u64 = 20_000;
/// Of ten keys so many are strings, the others hashes of two fields.
const TEXTS_OF_TEN: u64 = 7;
const MIB: f64 = (1 << 20) as f64;

/// How much joins, and what is done to it.
#[derive(Debug, Clone)]
pub struct Join {
    /// Keys that the others hold before.
    pub keys: u64,
    /// Bytes of each value.
    pub value_bytes: usize,
    /// The cluster that joins; the others must not know it yet.
    pub newcomer: String,
    /// How often something is killed while rows travel.
    pub kills: usize,
    /// Bits per second on each way to it, as long as it merges.
    pub rate: Option<u64>,
    /// How long clients are measured before.
    pub before: Duration,
    /// How long it may take.
    pub patience: Duration,
    /// How long clients of the others may be without an acknowledged write.
    pub silence_max: Duration,
}

/// Fills all clusters but one, adds that one while clients write, kills as it merges, and checks
/// that all are equal in the end.
pub async fn join(world: &dyn World, seed: u64, size: &Join, settings: &Settings) -> Report {
    let mut trial = Trial::idle(world, "join", seed, settings).await;
    let all = trial.addresses.clone();
    trial.addresses.retain(|cluster, _| *cluster != size.newcomer);
    let mut joining = Joining {
        size,
        old: trial.clusters(),
        senders: world::of_role(&world.members(), Role::Syncer, &trial.clusters()),
        receivers: world::of_role(
            &world.members(),
            Role::Syncer,
            std::slice::from_ref(&size.newcomer),
        ),
        mark: trial.mark.clone(),
        meters: Meters::new(world.census()).await,
    };
    joining.fill(&mut trial).await;
    trial.start_loads().await;
    trial.take_latency();
    tokio::time::sleep(size.before).await;
    tell_latency(&mut trial, "before");
    let usual = joining.narrow(&mut trial);
    joining.introduce(&mut trial).await;
    let began = Instant::now();
    joining.kill_and_resume(&mut trial, began).await;
    joining.await_live(&mut trial, began).await;
    tell_latency(&mut trial, "while it joined");
    for ((from, to), path) in usual {
        trial.done(world.set_path(&from, &to, path));
    }
    joining.meters.look().await;
    joining.tell_travelled(&mut trial);
    trial.addresses = all.clone();
    let Joining { old, mark, .. } = joining;
    let mut report = trial.finish().await;
    judge_silence(&mut report, &old, size.silence_max);
    judge_rows(&mut report, world, size.keys).await;
    read_sample(&mut report, size, &mark, (&all[&size.newcomer], settings.patience)).await;
    report
}

struct Joining<'a> {
    size: &'a Join,
    old: Vec<String>,
    /// Syncers of the old clusters, and those of the new one.
    senders: Vec<String>,
    receivers: Vec<String>,
    mark: String,
    meters: Meters,
}

fn key(mark: &str, number: u64) -> String {
    format!("full:{mark}:{number}")
}

fn is_text(number: u64) -> bool {
    number % 10 < TEXTS_OF_TEN
}

/// The write of a key.
fn write(mark: &str, number: u64, bytes: usize) -> Vec<String> {
    let (key, value) = (key(mark, number), text(number, bytes));
    if is_text(number) {
        return vec!["SET".into(), key, value];
    }
    vec!["HSET".into(), key, "f".into(), value, "g".into(), number.to_string()]
}

/// The read of a part of it, and what that must be.
fn read(mark: &str, number: u64, bytes: usize) -> (Vec<String>, String) {
    let key = key(mark, number);
    match is_text(number) {
        true => (vec!["GET".into(), key], text(number, bytes)),
        false => (vec!["HGET".into(), key, "g".into()], number.to_string()),
    }
}

fn tell_latency(trial: &mut Trial<'_>, when: &str) {
    for (cluster, Latency { operations, p50, p99, max }) in trial.take_latency() {
        trial.tell(format!(
            "{cluster} {when}: {operations} operations, p50 {p50:.2?}, p99 {p99:.2?}, longest {max:.2?}"
        ));
    }
}

impl Joining<'_> {
    async fn fill(&self, trial: &mut Trial<'_>) {
        let began = Instant::now();
        let Join { keys, value_bytes, patience, .. } = *self.size;
        let share = keys.div_ceil(self.old.len() as u64);
        let mark = &self.mark;
        let fills = (0u64..).zip(&self.old).map(|(place, cluster)| {
            let bulk = trial.bulk(cluster);
            let numbers = place * share..keys.min((place + 1) * share);
            async move { bulk.write(numbers, |number| write(mark, number, value_bytes)).await }
        });
        for result in futures::future::join_all(fills).await {
            trial.done(result.map_err(anyhow::Error::msg));
        }
        let took = began.elapsed();
        let rate = keys as f64 / took.as_secs_f64();
        trial.tell(format!("{keys} keys written in {took:.1?}, {rate:.0} in a second"));
        trial.await_crossing(&self.old, patience).await;
        trial.tell(format!("all are everywhere {:.1?} after the first", began.elapsed()));
        let rows = trial.scan().await;
        if let Some(one) = rows.iter().find(|one| self.old.contains(&one.cluster)) {
            trial.tell(format!("{}: {}", one.node, one.told));
        }
    }

    /// Limits what travels to the newcomer. Returns what was usual.
    fn narrow(&self, trial: &mut Trial<'_>) -> Vec<((String, String), Path)> {
        let Some(rate) = self.size.rate else { return vec![] };
        trial.tell(format!(
            "{:.1} Mbit/s on each way to {}",
            rate as f64 / 1e6,
            self.size.newcomer
        ));
        let around = world::around(&trial.world.members(), &self.size.newcomer);
        let mut usual = Vec::new();
        for (from, to) in around {
            let path = trial.world.path(&from, &to);
            trial.done(trial.world.set_path(&from, &to, Path { rate: Some(rate), ..path }));
            usual.push(((from, to), path));
        }
        usual
    }

    /// Every cluster is told of the newcomer, which knows them from its topology file.
    async fn introduce(&self, trial: &mut Trial<'_>) {
        let new = &self.size.newcomer;
        for cluster in &self.old {
            match trial.world.as_seen(cluster, new) {
                Ok(seen) => trial.operate(cluster, new, LinkOp::Add { peer: seen }).await,
                Err(error) => trial.violated(format!("{cluster} cannot see {new}: {error:#}")),
            }
        }
    }

    /// Kills something of the links to the newcomer whenever another part of the rows has come.
    async fn kill_and_resume(&mut self, trial: &mut Trial<'_>, began: Instant) {
        for kill in 0..self.size.kills {
            let part = (kill as u64 + 1) * self.size.keys / (self.size.kills as u64 + 2);
            if !self.await_rows(trial, part, (kill, began)).await {
                return;
            }
            let victim = match self.victim(trial, kill).await {
                Ok(victim) => victim,
                Err(error) => return trial.violated(format!("nobody to kill: {error:#}")),
            };
            let rows = self.meters.total(MERGED_ROWS, &self.receivers);
            let after = began.elapsed();
            trial.tell(format!(
                "kill -9 {victim} while it merges, {rows} rows have come in {after:.1?}"
            ));
            trial.done(trial.world.kill(&victim).await);
            let others = self.old.clone();
            trial.hold(&others).await;
            trial.restart(&victim).await;
        }
    }

    /// By turns a syncer that sends, one that receives, and a leader of the new cluster.
    async fn victim(&self, trial: &Trial<'_>, kill: usize) -> anyhow::Result<String> {
        let world = trial.world;
        let members = world.members();
        let syncers = match kill % 5 {
            2 => return world.leader(&self.size.newcomer).await,
            1 | 4 => self.receivers.clone(),
            0 => world::of_role(&members, Role::Syncer, &self.old[..1]),
            _ => world::of_role(&members, Role::Syncer, &self.old[self.old.len() - 1..]),
        };
        let mut most = (0, None);
        for syncer in syncers {
            let carried = world.carried(&syncer).await?;
            if most.1.is_none() || carried > most.0 {
                most = (carried, Some(syncer));
            }
        }
        most.1.ok_or_else(|| anyhow::anyhow!("there is no syncer"))
    }

    async fn links(&self, world: &dyn World) -> Vec<LinkView> {
        let mut links = world.links().await;
        links.retain(|link| link.to == self.size.newcomer || link.from == self.size.newcomer);
        links
    }

    /// Waits until so many rows have come and more travel. False, with a violation, when all is over
    /// before, or when it takes too long.
    async fn await_rows(
        &mut self,
        trial: &mut Trial<'_>,
        part: u64,
        (kills, began): (usize, Instant),
    ) -> bool {
        loop {
            self.meters.look().await;
            let rows = self.meters.total(MERGED_ROWS, &self.receivers);
            let links = self.links(trial.world).await;
            let to_it = links.iter().filter(|link| link.to == self.size.newcomer);
            let merging = to_it.clone().any(|link| link.states.contains(&LinkState::Merging));
            if rows >= part && merging {
                return true;
            }
            let live = to_it.clone().all(|link| link.is_all(LinkState::Live));
            if rows > 0 && live && to_it.count() == self.old.len() {
                trial.violated(format!(
                    "the merge was over after {kills} kills: join more --keys, or give a lower --rate"
                ));
                return false;
            }
            if began.elapsed() > self.size.patience {
                trial.violated(format!("only {rows} rows in {:?}: {links:?}", self.size.patience));
                return false;
            }
            tokio::time::sleep(PERIOD).await;
        }
    }

    async fn await_live(&mut self, trial: &mut Trial<'_>, began: Instant) {
        let wanted = self.old.len() * 2;
        loop {
            self.meters.look().await;
            let links = self.links(trial.world).await;
            let live = links.iter().filter(|link| link.is_all(LinkState::Live));
            if live.count() == wanted {
                break;
            }
            if began.elapsed() > self.size.patience {
                let patience = self.size.patience;
                return trial.violated(format!("not live within {patience:?}: {links:?}"));
            }
            tokio::time::sleep(PERIOD).await;
        }
        trial.tell(format!(
            "all links of {} are live after {:.1?}",
            self.size.newcomer,
            began.elapsed()
        ));
        let clusters: Vec<String> = trial.clusters();
        trial.more_writes(&clusters, trial.settings.writes).await;
    }

    fn tell_travelled(&self, trial: &mut Trial<'_>) {
        let of = |name, processes| self.meters.total(name, processes);
        let rows = of(MERGED_ROWS, &self.receivers);
        let back = of(MERGED_ROWS, &self.senders);
        trial.tell(format!(
            "{rows} rows of full state came to {}, {back} from it; {:.1} MiB of full state and {:.1} \
             MiB of logs were sent in all, as counted about every {PERIOD:?}",
            self.size.newcomer,
            (of(MERGED_BYTES, &self.senders) + of(MERGED_BYTES, &self.receivers)) as f64 / MIB,
            (of(SHIPPED_BYTES, &self.senders) + of(SHIPPED_BYTES, &self.receivers)) as f64 / MIB,
        ));
    }
}

/// Nothing stops for the clients of the others.
fn judge_silence(report: &mut Report, old: &[String], most: Duration) {
    let silent = report.counts.iter().filter(|(cluster, _, _)| old.contains(cluster));
    let silent = silent.filter(|(_, _, silence)| *silence > most);
    let told: Vec<String> = silent
        .map(|(cluster, _, silence)| {
            format!(
                "{cluster} acknowledged no write for {silence:.1?} while another cluster joined"
            )
        })
        .collect();
    report.violations.extend(told.into_iter().map(|what| Violation { invariant: SERVES, what }));
}

/// All clusters hold as many keys and elements, by a scan, and no fewer than were written.
async fn judge_rows(report: &mut Report, world: &dyn World, keys: u64) {
    let rows = match world.rows().await {
        Ok(rows) => rows,
        Err(error) => {
            let what = format!("cannot scan: {error:#}");
            return report.violations.push(Violation { invariant: SERVES, what });
        }
    };
    for one in &rows {
        report.story.push((report.took, format!("{}: {}", one.node, one.told)));
    }
    report
        .violations
        .extend(apart(&rows, keys).map(|what| Violation { invariant: converge::INVARIANT, what }));
}

/// Every node of the demo has a replica of everything.
fn apart(rows: &[Rows], keys: u64) -> Option<String> {
    let counts: BTreeSet<(u64, u64)> = rows.iter().map(|one| (one.keys, one.elements)).collect();
    let by_node: BTreeMap<&str, &str> =
        rows.iter().map(|one| (one.node.as_str(), one.told.as_str())).collect();
    if counts.len() > 1 {
        return Some(format!("nodes hold different numbers of keys and elements: {by_node:?}"));
    }
    let few = counts.iter().any(|(found, _)| *found < keys);
    few.then(|| format!("{keys} keys were written, and fewer are there: {by_node:?}"))
}

/// Reads some keys in the new cluster.
async fn read_sample(
    report: &mut Report,
    size: &Join,
    mark: &str,
    (addresses, patience): (&[String], Duration),
) {
    let step = (size.keys / SAMPLE).max(1);
    let (bytes, newcomer) = (size.value_bytes, &size.newcomer);
    let judge = |number: u64, reply: &Value| {
        let (_, wanted) = read(mark, number * step, bytes);
        let found = reply.text();
        (found.as_ref() != Some(&wanted)).then(|| {
            let key = key(mark, number * step);
            format!("{key}: {newcomer} reads {found:?}, but `{wanted}` was written")
        })
    };
    let command = |number: u64| read(mark, number * step, bytes).0;
    let bulk = Bulk::new(addresses, patience);
    let wrong = match bulk.each(0..size.keys / step, command, judge).await {
        Ok(wrong) => wrong,
        Err(why) => vec![format!("{newcomer}: {why}")],
    };
    let read = size.keys / step;
    report.story.push((report.took, format!("{read} keys read in {newcomer}")));
    let violation = |what| Violation { invariant: converge::INVARIANT, what };
    report.violations.extend(wrong.into_iter().map(violation));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_can_be_read() {
        assert_eq!(write("m", 3, 5)[..2], ["SET", "full:m:3"]);
        let (command, wanted) = read("m", 3, 5);
        assert_eq!((command, wanted), (vec!["GET".into(), "full:m:3".into()], text(3, 5)));
        assert_eq!(write("m", 9, 5)[4..], ["g", "9"]);
        assert_eq!(read("m", 9, 5).0, ["HGET", "full:m:9", "g"]);
    }

    #[test]
    fn replicas_that_hold_different_numbers_or_too_few_are_told() {
        let rows = |node: &str, keys, elements| Rows {
            cluster: "c".into(),
            node: node.into(),
            keys,
            elements,
            garbage: 0,
            told: format!("{keys} keys"),
        };
        let equal = [rows("n1", 10, 13), rows("n2", 10, 13)];
        assert_eq!(apart(&equal, 10), None);
        assert!(apart(&equal, 11).unwrap().contains("fewer are there"));
        let told = apart(&[rows("n1", 10, 13), rows("n2", 10, 12)], 10).unwrap();
        assert!(told.contains("different numbers"), "{told}");
    }
}
