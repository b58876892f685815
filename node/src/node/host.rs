//! What the machine is like: warnings at start, and free disk space.

use std::path::Path;

/// Open files below which RocksDB, the log and thousands of clients do not fit together.
const NOFILE_WANTED: u64 = 65_536;
const HUGE_PAGES: &str = "/sys/kernel/mm/transparent_hugepage/enabled";

/// Warns about settings that make a store slow or small.
pub fn warn_about_the_machine() {
    let huge = std::fs::read_to_string(HUGE_PAGES).unwrap_or_default();
    if huge.contains("[always]") {
        tracing::warn!(
            "transparent huge pages are on: latency will have spikes; \
             run `echo madvise > {HUGE_PAGES}`"
        );
    }
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    if let Some(files) = limit.current.filter(|files| *files < NOFILE_WANTED) {
        tracing::warn!(
            files,
            "few open files are allowed: run `ulimit -n {NOFILE_WANTED}` before the start"
        );
    }
}

/// Bytes that are free on the disk of `dir`; `None` if the system does not tell.
pub fn free_bytes(dir: &Path) -> Option<u64> {
    let stat = rustix::fs::statvfs(dir).ok()?;
    Some(stat.f_bavail.saturating_mul(stat.f_frsize))
}
