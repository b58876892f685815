//! What the operating system tells of this process.

use std::fs;

/// Memory and processor time; zeros where the system does not tell.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Usage {
    pub(super) resident_bytes: u64,
    pub(super) resident_peak_bytes: u64,
    pub(super) system_bytes: u64,
    pub(super) user_seconds: f64,
    pub(super) system_seconds: f64,
}

/// Clock ticks per second in /proc: fixed in the kernel's interface.
const TICKS: f64 = 100.0;

impl Usage {
    pub(super) fn now() -> Usage {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let (user_seconds, system_seconds) = cpu();
        Usage {
            resident_bytes: kib(&status, "VmRSS:"),
            resident_peak_bytes: kib(&status, "VmHWM:"),
            system_bytes: kib(&memory, "MemTotal:"),
            user_seconds,
            system_seconds,
        }
    }
}

fn kib(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|line| line.split_whitespace().next());
    number.and_then(|number| number.parse::<u64>().ok()).unwrap_or(0) * 1024
}

fn cpu() -> (f64, f64) {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The program's name stands in brackets and may hold anything; the numbers stand behind it.
    let fields: Vec<&str> =
        stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
    let seconds = |index: usize| {
        fields.get(index).and_then(|ticks| ticks.parse::<f64>().ok()).unwrap_or(0.0) / TICKS
    };
    (seconds(11), seconds(12))
}

/// The system's name and version.
pub(super) fn os() -> String {
    let read = |name: &str| {
        let path = format!("/proc/sys/kernel/{name}");
        fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default()
    };
    format!("{} {} {}", read("ostype"), read("osrelease"), std::env::consts::ARCH)
}

/// Bytes as people read them, in Redis' form.
pub(super) fn human(bytes: u64) -> String {
    let value = bytes as f64;
    match bytes {
        0..1024 => format!("{bytes}B"),
        1024..1_048_576 => format!("{:.2}K", value / 1024.0),
        1_048_576..1_073_741_824 => format!("{:.2}M", value / 1_048_576.0),
        _ => format!("{:.2}G", value / 1_073_741_824.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_this_process() {
        let usage = Usage::now();
        assert!(usage.resident_bytes > 100_000);
        assert!(usage.resident_peak_bytes >= usage.resident_bytes / 2);
        assert!(usage.system_bytes > usage.resident_bytes);
        assert!(os().starts_with("Linux "));
        assert_eq!(human(100), "100B");
        assert_eq!(human(1_140_200), "1.09M");
    }
}
