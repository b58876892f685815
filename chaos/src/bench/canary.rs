//! What the disk does without us: how often a small block can be written and synced, and how long
//! one such write takes.

use anyhow::{Context, Result};
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// Size of a block, as of a small log entry.
const BLOCK_BYTES: usize = 128;
/// The file is written in a circle of this size, allocated before: as a recycled log.
const FILE_BYTES: u64 = 1 << 20;
/// How long it is measured: long enough for a thousand syncs of a good disk.
const DURATION: Duration = Duration::from_millis(200);

/// What it said.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Canary {
    /// Syncs per second of one thread.
    pub(super) per_second: f64,
    /// Median time of one write with its fdatasync, in microseconds.
    pub(super) p50_us: f64,
}

/// Asks the disk of this directory.
pub(super) fn ask(dir: &Path) -> Result<Canary> {
    let path = dir.join("canary");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(&path)
        .with_context(|| format!("cannot write {}", path.display()))?;
    if file.metadata()?.len() < FILE_BYTES {
        file.write_all_at(&vec![0; FILE_BYTES as usize], 0)?;
        file.sync_all()?;
    }
    let block = [7; BLOCK_BYTES];
    let (started, mut times) = (Instant::now(), Vec::new());
    while started.elapsed() < DURATION {
        let one = Instant::now();
        file.write_all_at(&block, times.len() as u64 * BLOCK_BYTES as u64 % FILE_BYTES)?;
        file.sync_data()?;
        times.push(one.elapsed());
    }
    let per_second = times.len() as f64 / started.elapsed().as_secs_f64();
    times.sort_unstable();
    let p50_us = times[times.len() / 2].as_secs_f64() * 1e6;
    Ok(Canary { per_second, p50_us })
}
