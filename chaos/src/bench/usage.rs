//! CPU time and memory of processes, and bytes that a disk was given to write, from /proc.

use anyhow::{Context, Result};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Linux reports CPU time to user space in hundredths of a second on every machine.
const TICKS_PER_SECOND: f64 = 100.0;
/// A sector of /proc/diskstats, whatever those of the disk are (kernel: Documentation/admin-guide/iostats).
const SECTOR_BYTES: u64 = 512;

/// CPU seconds that each process has used, user and system.
pub(super) fn seconds_of_all(processes: &[(String, u32)]) -> Result<Vec<f64>> {
    let seconds = processes.iter().map(|(name, pid)| {
        seconds(&format!("/proc/{pid}/stat")).with_context(|| format!("{name} (pid {pid}) is gone"))
    });
    seconds.collect()
}

/// CPU seconds that the calling thread has used.
pub(super) fn seconds_of_this_thread() -> Result<f64> {
    seconds("/proc/thread-self/stat")
}

/// Bytes that the disk of a directory has been given to write, by everybody: what processes are charged
/// with in /proc/PID/io counts whole folios, megabytes for a synced block, where a file system has such.
/// An error where the directory is on no disk of its own, as in memory or an overlay.
pub(super) fn written_to_disk_of(dir: &Path) -> Result<u64> {
    let device = std::fs::metadata(dir).with_context(|| dir.display().to_string())?.dev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let disks =
        std::fs::read_to_string("/proc/diskstats").context("cannot read /proc/diskstats")?;
    written_to(&disks, major, minor)
        .with_context(|| format!("{} is on no disk: device {major}:{minor}", dir.display()))
}

fn written_to(disks: &str, major: u32, minor: u32) -> Option<u64> {
    let mut lines = disks.lines().map(|line| line.split_ascii_whitespace());
    lines.find_map(|mut words| {
        let mine = words.next()?.parse() == Ok(major) && words.next()?.parse() == Ok(minor);
        // Behind the name: four fields of reads, then writes, merged writes, sectors written.
        let sectors: u64 = words.nth(7).filter(|_| mine)?.parse().ok()?;
        Some(sectors * SECTOR_BYTES)
    })
}

/// Resident memory of a process, in bytes.
pub(super) fn resident(pid: u32) -> Result<u64> {
    // In KiB, whatever the machine.
    Ok(field(&format!("/proc/{pid}/status"), "VmRSS")? * 1024)
}

/// Files that this process may have open.
pub(super) fn open_files_max() -> Result<u64> {
    field("/proc/self/limits", "Max open files")
}

/// The first number behind a name that begins a line.
fn field(path: &str, name: &str) -> Result<u64> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
    number_of(&text, name).with_context(|| format!("{path} has no number of {name}"))
}

fn number_of(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let word = line.trim_start_matches(':').split_ascii_whitespace().next()?;
    if word == "unlimited" { Some(u64::MAX) } else { word.parse().ok() }
}

fn seconds(path: &str) -> Result<f64> {
    let stat = std::fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
    parse(&stat).with_context(|| format!("{path} is not as expected: {stat}"))
}

fn parse(stat: &str) -> Option<f64> {
    // The name, in parentheses, may contain anything; the fields behind it do not.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some((user + system) as f64 / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_times_are_found_behind_any_name() {
        let stat = "42 (a) b (c) S 1 42 42 0 -1 4194560 100 0 0 0 250 150 0 0 20 0 8 0 100 0";
        assert_eq!(parse(stat), Some(4.0));
        assert_eq!(parse("42 (x) S 1"), None);
        assert!(seconds_of_this_thread().unwrap() >= 0.0);
    }

    #[test]
    fn sectors_are_those_of_the_very_disk() {
        let disks = " 254 0 vda 1 2 3 4 5 6 70 8 0\n 254 16 vdb 1 2 3 4 5 6 90 8 0\n 7 0 loop0 1\n";
        assert_eq!(written_to(disks, 254, 0), Some(70 * 512));
        assert_eq!(written_to(disks, 254, 16), Some(90 * 512));
        assert_eq!(written_to(disks, 254, 1), None);
        assert_eq!(written_to(disks, 7, 0), None, "a short line");
        assert!(written_to_disk_of(Path::new("/proc")).is_err(), "in memory");
    }

    #[test]
    fn numbers_are_found_by_their_names() {
        let io = "rchar: 1\nwrite_bytes: 4096\ncancelled_write_bytes: 5\n";
        assert_eq!(number_of(io, "write_bytes"), Some(4096));
        assert_eq!(number_of("VmPeak:\t 9 kB\nVmRSS:\t  12 kB\n", "VmRSS"), Some(12));
        let limits = "Max open files            20000                20000        files\n";
        assert_eq!(number_of(limits, "Max open files"), Some(20_000));
        assert_eq!(number_of("Max open files unlimited x", "Max open files"), Some(u64::MAX));
        assert_eq!(number_of(io, "VmRSS"), None);
        assert!(resident(std::process::id()).unwrap() > 1 << 20);
        assert!(open_files_max().unwrap() > 0);
    }
}
