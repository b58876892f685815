//! What the store and the log are given: fractions of the node's memory, or what its file says.

use crate::engine::rocks::EngineConfig;
use crate::log::LogConfig;
use serde::Deserialize;

/// Sizes that a node's file may set; all in bytes. What is left out is a fraction of `memory`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Storage {
    /// Cache of blocks of the data store. Default: 45 % of `memory`.
    pub block_cache_bytes: Option<u64>,
    /// Cache of rows in front of it. Default: 15 %.
    pub row_cache_bytes: Option<u64>,
    /// One write buffer of four; level 0 is compacted at four of that size. Default: 1/32, from 4 to 32
    /// MiB.
    pub write_buffer_bytes: Option<u64>,
    /// What flushes and compactions write a second, at most. While they have little to do they go slower
    /// by themselves, down to a twentieth. Default: 256 MiB.
    pub background_bytes_per_second: Option<u64>,
    /// One file of the log. Default: 1/16 of `memory`, from 8 to 64 MiB.
    pub log_file_bytes: Option<u64>,
    /// Files of the log are reclaimed once they take so much together. Default: 16 files.
    pub log_reclaim_bytes: Option<u64>,
    /// Recent entries that are kept in memory. Default: 1/16 of `memory`, from 4 to 32 MiB.
    pub log_tail_bytes: Option<u64>,
}

/// The smallest write buffer: below it flushes are all that the disk does.
const WRITE_BUFFER_MIN: u64 = 1 << 20;
/// The smallest file of the log.
const LOG_FILE_MIN: u64 = 1 << 20;
/// Below it writes wait for compactions.
const BACKGROUND_MIN: u64 = 16 << 20;

fn size(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

impl Storage {
    /// Sizes of the data store of a node of so much memory.
    pub fn engine(&self, memory: u64) -> EngineConfig {
        let usual = EngineConfig::for_memory(memory);
        EngineConfig {
            block_cache_bytes: self.block_cache_bytes.map_or(usual.block_cache_bytes, size),
            row_cache_bytes: self.row_cache_bytes.map_or(usual.row_cache_bytes, size),
            write_buffer_bytes: self.write_buffer_bytes.map_or(usual.write_buffer_bytes, size),
            background_bytes_per_second: self
                .background_bytes_per_second
                .unwrap_or(usual.background_bytes_per_second),
        }
    }

    /// Sizes of the log of a node of so much memory.
    pub fn log(&self, memory: u64) -> LogConfig {
        let mut log = LogConfig::for_memory(memory);
        if let Some(file_bytes) = self.log_file_bytes {
            log = log.with_files_of(file_bytes);
        }
        if let Some(tail_bytes) = self.log_tail_bytes {
            log = log.with_tail_of(size(tail_bytes));
        }
        log.reclaim_bytes = self.log_reclaim_bytes.unwrap_or(log.reclaim_bytes);
        log
    }

    /// All of them by name, as they hold on a node of so much memory.
    pub fn settings(&self, memory: u64) -> Vec<(&'static str, u64)> {
        let (engine, log) = (self.engine(memory), self.log(memory));
        vec![
            ("block-cache-bytes", engine.block_cache_bytes as u64),
            ("row-cache-bytes", engine.row_cache_bytes as u64),
            ("write-buffer-bytes", engine.write_buffer_bytes as u64),
            ("background-bytes-per-second", engine.background_bytes_per_second),
            ("log-file-bytes", log.file_bytes),
            ("log-reclaim-bytes", log.reclaim_bytes),
            ("log-tail-bytes", log.tail_bytes as u64),
        ]
    }

    /// What does not hold, one line for each.
    pub fn problems(&self, memory: u64) -> Vec<String> {
        let mut problems = Vec::new();
        let least = [
            ("write_buffer_bytes", self.write_buffer_bytes, WRITE_BUFFER_MIN),
            ("background_bytes_per_second", self.background_bytes_per_second, BACKGROUND_MIN),
            ("log_file_bytes", self.log_file_bytes, LOG_FILE_MIN),
        ];
        for (name, value, least) in least {
            if let Some(value) = value.filter(|value| *value < least) {
                problems.push(format!("storage.{name} ({value}) must be at least {least}"));
            }
        }
        problems.extend(self.log(memory).validate().err());
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn storage(text: &str) -> Storage {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn what_is_left_out_is_a_fraction_of_memory() {
        let usual = Storage::default();
        assert_eq!(usual.engine(GIB), EngineConfig::for_memory(GIB));
        assert_eq!(usual.log(GIB), LogConfig::for_memory(GIB));
        assert!(usual.problems(GIB).is_empty());
        let set = storage("row_cache_bytes = 5\nlog_file_bytes = 16777216");
        let engine = set.engine(GIB);
        assert_eq!(engine.row_cache_bytes, 5);
        assert_eq!(engine.block_cache_bytes, EngineConfig::for_memory(GIB).block_cache_bytes);
        let log = set.log(GIB);
        assert_eq!((log.file_bytes, log.reclaim_bytes), (16 << 20, 256 << 20));
        assert!(set.settings(GIB).contains(&("log-file-bytes", 16 << 20)));
    }

    #[test]
    fn each_problem_names_its_setting_and_what_to_do() {
        let set = storage("write_buffer_bytes = 7\nbackground_bytes_per_second = 8");
        assert_eq!(
            set.problems(GIB),
            [
                "storage.write_buffer_bytes (7) must be at least 1048576",
                "storage.background_bytes_per_second (8) must be at least 16777216",
            ]
        );
        let set = storage("log_reclaim_bytes = 67108864");
        let problems = set.problems(GIB);
        assert!(problems[0].starts_with("log reclaim_bytes (67108864) must be at least twice"));
        assert!(toml::from_str::<Storage>("block_cache = 1").is_err());
    }
}
