//! What the disk does without us: how often a small block can be written and synced.

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

/// Syncs per second of one thread in this directory.
pub(super) fn syncs_per_second(dir: &Path) -> Result<f64> {
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
    let (started, mut syncs) = (Instant::now(), 0u64);
    while started.elapsed() < DURATION {
        file.write_all_at(&block, syncs * BLOCK_BYTES as u64 % FILE_BYTES)?;
        file.sync_data()?;
        syncs += 1;
    }
    Ok(syncs as f64 / started.elapsed().as_secs_f64())
}
