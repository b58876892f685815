//! What processes count, over a whole trial: a counter begins anew with each life of its process,
//! the sum here does not.

use crate::http;
use crate::vitals::{self, Census, Vital};
use std::collections::BTreeMap;
use std::time::Duration;

/// Rows that full-state merges have brought, at the syncers that receive.
pub(super) const MERGED_ROWS: &str = "flotilla_merge_received_rows_total";
/// Bytes that full-state merges have sent, at the syncers that send.
pub(super) const MERGED_BYTES: &str = "flotilla_merge_sent_bytes_total";
/// Bytes that links have sent of logs.
pub(super) const SHIPPED_BYTES: &str = "flotilla_link_sent_bytes_total";
/// Bytes appended to logs.
pub(super) const LOGGED_BYTES: &str = "flotilla_log_bytes_total";
/// Bytes of snapshots that nodes have taken from others.
pub(super) const SNAPSHOT_BYTES: &str = "flotilla_raft_snapshot_received_bytes_total";
const COUNTERS: [&str; 5] =
    [MERGED_ROWS, MERGED_BYTES, SHIPPED_BYTES, LOGGED_BYTES, SNAPSHOT_BYTES];
/// Logs on disk just now.
pub(super) const LOG_DISK: &str = "flotilla_log_disk_bytes";
/// What RocksDB would compact just now.
pub(super) const UNCOMPACTED: &str = "flotilla_storage_pending_compaction_bytes";
const GAUGES: [&str; 2] = [LOG_DISK, UNCOMPACTED];
/// How long a process may take to tell; one that is busy or stopped is asked again later.
const PATIENCE: Duration = Duration::from_secs(2);

#[derive(Debug, Default, Clone, Copy)]
struct Kept {
    pid: u32,
    /// Sum over earlier lives.
    before: u64,
    last: u64,
}

/// See the module.
pub(super) struct Meters {
    census: Census,
    counters: BTreeMap<(String, &'static str), Kept>,
    gauges: BTreeMap<(String, &'static str), u64>,
}

impl Meters {
    /// Looks once.
    pub async fn new(census: Census) -> Meters {
        let mut meters = Meters { census, counters: BTreeMap::new(), gauges: BTreeMap::new() };
        meters.look().await;
        meters
    }

    /// Asks all processes that run.
    pub async fn look(&mut self) {
        let vitals = (self.census)();
        let asked = vitals.iter().map(|vital| http::get(&vital.http, "/metrics", PATIENCE));
        let answers = futures::future::join_all(asked).await;
        for (vital, answer) in vitals.iter().zip(answers) {
            if let Ok(answer) = answer {
                self.take(vital, &String::from_utf8_lossy(&answer.body));
            }
        }
    }

    fn take(&mut self, vital: &Vital, text: &str) {
        for name in COUNTERS {
            let Some(value) = vitals::metric(text, name) else { continue };
            let kept = self.counters.entry((vital.name.clone(), name)).or_default();
            if kept.pid != vital.pid {
                *kept = Kept { pid: vital.pid, before: kept.before + kept.last, last: 0 };
            }
            kept.last = value;
        }
        for name in GAUGES {
            if let Some(value) = vitals::metric(text, name) {
                self.gauges.insert((vital.name.clone(), name), value);
            }
        }
    }

    /// Whether no process can be looked at.
    pub fn is_blind(&self) -> bool {
        (self.census)().is_empty()
    }

    /// A counter over all lives of these processes. What was counted between the last look and a
    /// death is missing.
    pub fn total(&self, name: &str, processes: &[String]) -> u64 {
        let found = self
            .counters
            .iter()
            .filter(|((process, counter), _)| *counter == name && processes.contains(process));
        found.map(|(_, kept)| kept.before + kept.last).sum()
    }

    /// The largest value of a gauge among these processes.
    pub fn most(&self, name: &str, processes: &[String]) -> u64 {
        let found = self
            .gauges
            .iter()
            .filter(|((process, gauge), _)| *gauge == name && processes.contains(process));
        found.map(|(_, value)| *value).max().unwrap_or_default()
    }

    /// The largest data directory among these processes, by a walk.
    pub fn largest_data(&self, processes: &[String]) -> u64 {
        let vitals = (self.census)();
        let asked = vitals.iter().filter(|vital| processes.contains(&vital.name));
        asked.map(vitals::data_bytes).max().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn counters_go_on_over_restarts_and_gauges_do_not() {
        let mut meters = Meters::new(Box::new(Vec::new)).await;
        let name = |name: &str| name.to_owned();
        let vital = |process: &str, pid| Vital {
            name: name(process),
            pid,
            http: String::new(),
            data: "/nowhere".into(),
        };
        let told = |rows, log| {
            format!("flotilla_merge_received_rows_total {rows}\nflotilla_log_disk_bytes {log}\n")
        };
        meters.take(&vital("a", 1), &told(10, 500));
        meters.take(&vital("a", 1), &told(30, 700));
        meters.take(&vital("a", 2), "# nothing yet\n");
        meters.take(&vital("a", 3), &told(5, 100));
        meters.take(&vital("b", 9), &told(100, 300));
        assert_eq!(meters.total(MERGED_ROWS, &[name("a")]), 35);
        assert_eq!(meters.total(MERGED_ROWS, &[name("a"), name("b")]), 135);
        assert_eq!(meters.total(MERGED_BYTES, &[name("a")]), 0);
        assert_eq!(meters.most(LOG_DISK, &[name("a"), name("b")]), 300);
        assert_eq!(meters.largest_data(&[name("a")]), 0);
    }
}
