//! `collected`: what was deleted or has ended leaves nothing behind, on no replica of any cluster,
//! once all is quiet.

use super::Report;
use super::trial::{Settings, Trial};
use super::world::{Rows, World};
use crate::checkers::Violation;
use crate::workload::words;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const INVARIANT: &str = "collected";
/// Pause between two scans of everything, which cost as much as what they count.
const PERIOD: Duration = Duration::from_secs(2);
/// One key in so many stays.
const STAYS: u64 = 50;
/// How long those live that are written with an end, in milliseconds.
const LIFE_MS: &str = "2000";
/// The same for those that get one later.
const REST_MS: &str = "500";

/// How much is deleted.
#[derive(Debug, Clone, Copy)]
pub struct Collect {
    /// Keys that are written; nearly all of them end.
    pub keys: u64,
    /// How long collection may take after that.
    pub patience: Duration,
}

/// What becomes of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    TextStays,
    HashStays,
    TextDeleted,
    TextWrittenWithEnd,
    TextEnds,
    HashDeleted,
    HashEnds,
    FieldsDeleted,
}

impl Fate {
    fn of(number: u64) -> Fate {
        match (number % STAYS, number % 6) {
            (0, part) if part < 3 => Fate::TextStays,
            (0, _) => Fate::HashStays,
            (_, 0) => Fate::TextDeleted,
            (_, 1) => Fate::TextWrittenWithEnd,
            (_, 2) => Fate::TextEnds,
            (_, 3) => Fate::HashDeleted,
            (_, 4) => Fate::HashEnds,
            _ => Fate::FieldsDeleted,
        }
    }

    fn stays(self) -> bool {
        matches!(self, Fate::TextStays | Fate::HashStays)
    }

    fn begin(self, key: &str) -> Vec<String> {
        let line: &[&str] = match self {
            Fate::TextStays | Fate::TextDeleted | Fate::TextEnds => &["SET", key, "value"],
            Fate::TextWrittenWithEnd => &["SET", key, "value", "PX", LIFE_MS],
            _ => &["HSET", key, "f", "value", "g", "other"],
        };
        words(line)
    }

    fn end(self, key: &str) -> Vec<String> {
        let line: &[&str] = match self {
            Fate::TextDeleted | Fate::HashDeleted => &["DEL", key],
            Fate::TextEnds | Fate::HashEnds => &["PEXPIRE", key, REST_MS],
            Fate::FieldsDeleted => &["HDEL", key, "f", "g"],
            // Nothing is to be done: a look.
            Fate::TextStays | Fate::HashStays | Fate::TextWrittenWithEnd => &["EXISTS", key],
        };
        words(line)
    }
}

/// Writes keys in all clusters, ends nearly all of them in all clusters, and waits until scans of
/// all replicas find nothing of them.
pub async fn collect(world: &dyn World, seed: u64, size: &Collect, settings: &Settings) -> Report {
    let mut trial = Trial::idle(world, "collect", seed, settings).await;
    let clusters = trial.clusters();
    let before = trial.scan().await;
    for (what, turn) in [("written", 0), ("ended", 1)] {
        let began = Instant::now();
        trial.everywhere(size, turn).await;
        let crossed = trial.settings.settle;
        trial.await_crossing(&clusters, crossed).await;
        let (keys, took) = (size.keys, began.elapsed());
        let rate = keys as f64 / took.as_secs_f64();
        trial.tell(format!(
            "{keys} keys {what} and everywhere in {took:.1?}, {rate:.0} in a second"
        ));
        let garbage = trial.scan().await.iter().map(|rows| rows.garbage).max();
        trial.tell(format!("{} wait to be collected on one node", garbage.unwrap_or_default()));
    }
    let began = Instant::now();
    let rows = loop {
        let rows = trial.scan().await;
        let waits = rows.iter().any(|rows| rows.garbage > 0);
        if !waits || began.elapsed() > size.patience || !trial.is_sound() {
            break rows;
        }
        tokio::time::sleep(PERIOD).await;
    };
    trial.tell(format!("scanned {:.1?} after the last key has ended:", began.elapsed()));
    for one in &rows {
        trial.tell(format!("{}: {}", one.node, one.told));
        if one.garbage > 0 {
            let took = began.elapsed();
            let what = format!("{} after {took:.0?} of quiet: {}", one.node, one.told);
            trial.violation(Violation { invariant: INVARIANT, what });
        }
    }
    let stay = (0..size.keys).filter(|number| Fate::of(*number).stays()).count() as u64;
    trial.judge_survivors(&before, &rows, stay);
    trial.finish().await
}

impl Trial<'_> {
    pub(super) async fn scan(&mut self) -> Vec<Rows> {
        match self.world.rows().await {
            Ok(rows) => rows,
            Err(error) => {
                self.violated(format!("cannot scan: {error:#}"));
                vec![]
            }
        }
    }

    /// One command for each key, each cluster its part of them; which part turns.
    async fn everywhere(&mut self, size: &Collect, turn: u64) {
        let clusters = self.clusters();
        let count = clusters.len() as u64;
        let share = size.keys.div_ceil(count);
        let mark = self.mark.clone();
        let work = (0u64..).zip(&clusters).map(|(place, cluster)| {
            let part = (place + turn) % count;
            let (bulk, mark) = (self.bulk(cluster), &mark);
            let command = move |number| {
                let (key, fate) = (format!("end:{mark}:{number}"), Fate::of(number));
                if turn == 0 { fate.begin(&key) } else { fate.end(&key) }
            };
            let numbers = part * share..size.keys.min((part + 1) * share);
            async move { bulk.write(numbers, command).await }
        });
        for result in futures::future::join_all(work).await {
            self.done(result.map_err(anyhow::Error::msg));
        }
    }

    /// What was not ended is there, and nothing else is.
    fn judge_survivors(&mut self, before: &[Rows], after: &[Rows], stay: u64) {
        let keys = |rows: &[Rows]| -> BTreeMap<String, u64> {
            rows.iter().map(|one| (one.node.clone(), one.keys)).collect()
        };
        let (before, after) = (keys(before), keys(after));
        // Those that were written to see others arrive stay too: as many everywhere.
        let more: Vec<u64> = after
            .iter()
            .map(|(node, keys)| keys.saturating_sub(before.get(node).copied().unwrap_or_default()))
            .collect();
        let wanted = stay + self.crossed;
        self.tell(format!("{stay} keys stay, and {} that crossed", self.crossed));
        if more.iter().any(|more| *more != wanted) {
            let what =
                format!("{wanted} keys should be left, nodes have {more:?} more than before");
            self.violation(Violation { invariant: INVARIANT, what });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_fate_is_met_and_few_stay() {
        let fates: BTreeSet<String> =
            (0..600).map(|number| format!("{:?}", Fate::of(number))).collect();
        assert_eq!(fates.len(), 8, "{fates:?}");
        assert_eq!((0..600).filter(|number| Fate::of(*number).stays()).count(), 12);
    }
}
