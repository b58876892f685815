//! Looks at processes while they run, for `checkers::bounded`: memory from /proc, the size of data
//! directories, and gauges from `/metrics`.

use crate::checkers::bounded::{Measure, Peaks};
use crate::http;
use parking_lot::Mutex;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::{CancellationToken, DropGuard};

/// How often all processes are looked at.
const PERIOD: Duration = Duration::from_secs(1);
/// Directories are walked only every so many times: that costs a call per file.
const WALK_EVERY: u64 = 5;
/// How long a process may take to tell its metrics; one that is stopped tells none.
const PATIENCE: Duration = Duration::from_millis(500);
/// Directories below a data directory.
const DEPTH_MAX: usize = 8;

/// A process and its things.
#[derive(Debug, Clone)]
pub struct Vital {
    /// Its name.
    pub name: String,
    /// Its number just now.
    pub pid: u32,
    /// `host:port` of its metrics.
    pub http: String,
    /// Its data directory.
    pub data: PathBuf,
}

/// Says which processes there are just now: numbers change with every restart.
pub type Census = Box<dyn Fn() -> Vec<Vital> + Send + Sync>;

/// Looks on until it is stopped.
pub struct Watch {
    peaks: Arc<Mutex<Peaks>>,
    _stop: DropGuard,
}

impl Watch {
    /// Begins to look. Must be called inside a tokio runtime.
    pub fn start(census: Census) -> Watch {
        let stop = CancellationToken::new();
        let peaks = Arc::new(Mutex::new(Peaks::default()));
        let (seen, stopped) = (peaks.clone(), stop.clone());
        tokio::spawn(async move { stopped.run_until_cancelled(watch(census, &seen)).await });
        Watch { peaks, _stop: stop.drop_guard() }
    }

    /// What was seen up to now.
    pub fn peaks(&self) -> Peaks {
        self.peaks.lock().clone()
    }
}

async fn watch(census: Census, peaks: &Arc<Mutex<Peaks>>) {
    let mut tick = tokio::time::interval(PERIOD);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    for round in 0.. {
        tick.tick().await;
        let vitals = census();
        let asked = vitals.iter().map(|vital| look(vital, peaks));
        futures::future::join_all(asked).await;
        if round % WALK_EVERY == 0 {
            let peaks = peaks.clone();
            // A walk that fails is a panic of ours; the next round walks again.
            let _ = tokio::task::spawn_blocking(move || {
                for vital in &vitals {
                    let bytes = data_bytes(vital);
                    peaks.lock().saw(&vital.name, Measure::Data, bytes);
                }
            })
            .await;
        }
        peaks.lock().samples += 1;
    }
}

async fn look(vital: &Vital, peaks: &Mutex<Peaks>) {
    if let Some(bytes) = resident_bytes(vital) {
        peaks.lock().saw(&vital.name, Measure::Memory, bytes);
    }
    let Ok(answer) = http::get(&vital.http, "/metrics", PATIENCE).await else { return };
    let text = String::from_utf8_lossy(&answer.body);
    for measure in Measure::ALL {
        if let Some(bytes) = measure.metric().and_then(|name| metric(&text, name)) {
            peaks.lock().saw(&vital.name, measure, bytes);
        }
    }
}

/// The memory that a process has of the machine's; `None` while it is dead.
pub fn resident_bytes(vital: &Vital) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", vital.pid)).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// The sum of a gauge or counter over all its labels, in the Prometheus text format; `None` where it
/// is not told.
pub fn metric(text: &str, name: &str) -> Option<u64> {
    let samples = text.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        let value = match rest.strip_prefix('{') {
            Some(labelled) => labelled.rsplit_once('}')?.1,
            None => rest.strip_prefix(' ')?,
        };
        value.trim().parse::<f64>().ok()
    });
    let samples: Vec<f64> = samples.collect();
    (!samples.is_empty()).then(|| samples.iter().sum::<f64>().max(0.0) as u64)
}

/// What the data directory of a process takes, by a walk.
pub fn data_bytes(vital: &Vital) -> u64 {
    directory_bytes(&vital.data, DEPTH_MAX)
}

/// Files may come and go meanwhile: what cannot be read counts as nothing.
fn directory_bytes(path: &Path, depth: usize) -> u64 {
    let Ok(entries) = std::fs::read_dir(path) else { return 0 };
    let sizes = entries.flatten().map(|entry| match entry.metadata() {
        Ok(meta) if meta.is_dir() && depth > 0 => directory_bytes(&entry.path(), depth - 1),
        Ok(meta) if meta.is_file() => meta.len(),
        _ => 0,
    });
    sizes.sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkers::bounded::Limits;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[test]
    fn gauges_are_summed_over_their_labels_and_not_mixed_up() {
        let text = "# TYPE a_bytes gauge\na_bytes{peer=\"w\",group=\"1\"} 10\n\
                    a_bytes{peer=\"}\",group=\"2\"} 2.5e1\na_bytes_total 7\nb 3\n";
        assert_eq!(metric(text, "a_bytes"), Some(35));
        assert_eq!(metric(text, "b"), Some(3));
        assert_eq!(metric(text, "a"), None);
    }

    #[tokio::test]
    async fn a_process_is_seen_with_its_memory_its_gauges_and_its_files() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let http = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = [0; 512];
                let _ = stream.read(&mut request).await;
                let answer = b"HTTP/1.0 200 OK\r\n\r\nflotilla_log_disk_bytes 5000\n";
                let _ = stream.write_all(answer).await;
            }
        });
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("sub")).unwrap();
        std::fs::write(dir.path().join("sub").join("file"), [0; 3000]).unwrap();
        let vital = Vital {
            name: "me".to_owned(),
            pid: std::process::id(),
            http,
            data: dir.path().to_owned(),
        };
        let watch = Watch::start(Box::new(move || vec![vital.clone()]));
        while watch.peaks().samples == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let tight =
            Limits { memory_max: 1 << 10, data_max: 2999, log_max: 4999, ..Limits::default() };
        assert_eq!(watch.peaks().check(&tight).len(), 3, "{}", watch.peaks().told());
        let exact = Limits { data_max: 3000, log_max: 5000, ..Limits::default() };
        assert_eq!(watch.peaks().check(&exact), []);
    }
}
