//! Limits and settings of the RESP server.

use crate::resp::Limits;
use std::time::Duration;

/// Settings of the RESP server. `Duration::ZERO` means without end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerConfig {
    /// Connections at a time, over both doors. More are told so and closed.
    pub clients_max: usize,
    /// What a request may be.
    pub limits: Limits,
    /// Bytes that all connections together hold beyond 64 KiB each. When they are used up, the
    /// connection that wants more is told so and closed.
    pub clients_memory_max: usize,
    /// Bytes that the replies of one batch may take; a connection that passes it is closed.
    pub output_bytes_max: usize,
    /// How long a client may take nothing of a reply before it is closed.
    pub output_stall_max: Duration,
    /// How long a client may send nothing before it is closed.
    pub idle_max: Duration,
    /// The password that AUTH wants.
    pub requirepass: Option<String>,
}

const MIB: usize = 1024 * 1024;
/// A batch that is nearly full and one more request fit a frame between nodes.
pub const REQUEST_BYTES_MAX: usize = 32 * MIB;
/// What all clients of a node may hold, unless the configuration says otherwise.
pub const CLIENTS_MEMORY_MAX: usize = 1024 * MIB;

impl Default for ServerConfig {
    fn default() -> ServerConfig {
        ServerConfig {
            clients_max: 10_000,
            limits: Limits {
                bulk_bytes: 16 * MIB,
                request_bytes: REQUEST_BYTES_MAX,
                ..Limits::default()
            },
            clients_memory_max: CLIENTS_MEMORY_MAX,
            output_bytes_max: 256 * MIB,
            output_stall_max: Duration::from_secs(60),
            idle_max: Duration::ZERO,
            requirepass: None,
        }
    }
}

/// Two settings that cannot both hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ServerConfigError {
    /// A request could not hold one argument of the allowed size.
    #[error("request_bytes ({request}) must be above bulk_bytes ({bulk}): one value must fit")]
    RequestBelowBulk {
        /// `limits.request_bytes`.
        request: usize,
        /// `limits.bulk_bytes`.
        bulk: usize,
    },
    /// A stored value could not be read.
    #[error("output_bytes_max ({output}) must be at least bulk_bytes ({bulk}): one value must fit")]
    OutputBelowBulk {
        /// `output_bytes_max`.
        output: usize,
        /// `limits.bulk_bytes`.
        bulk: usize,
    },
    /// One request could not be held.
    #[error("clients_memory_max ({memory}) must be at least request_bytes ({request})")]
    MemoryBelowRequest {
        /// `clients_memory_max`.
        memory: usize,
        /// `limits.request_bytes`.
        request: usize,
    },
    /// Nothing could ever connect or be sent.
    #[error("`{0}` must not be 0")]
    Zero(&'static str),
    /// Positions in a request have 32 bits.
    #[error("request_bytes ({0}) must be below 4 GiB")]
    RequestTooLarge(usize),
}

impl ServerConfig {
    /// Checks that the settings fit each other.
    pub fn validate(&self) -> Result<(), ServerConfigError> {
        let bulk = self.limits.bulk_bytes;
        let request = self.limits.request_bytes;
        for (value, name) in [
            (self.clients_max, "clients_max"),
            (self.limits.args, "args"),
            (self.limits.line_bytes, "line_bytes"),
            (bulk, "bulk_bytes"),
        ] {
            if value == 0 {
                return Err(ServerConfigError::Zero(name));
            }
        }
        if request <= bulk {
            return Err(ServerConfigError::RequestBelowBulk { request, bulk });
        }
        if request > u32::MAX as usize {
            return Err(ServerConfigError::RequestTooLarge(request));
        }
        let output = self.output_bytes_max;
        if output < bulk {
            return Err(ServerConfigError::OutputBelowBulk { output, bulk });
        }
        let memory = self.clients_memory_max;
        if memory < request {
            return Err(ServerConfigError::MemoryBelowRequest { memory, request });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_fit_and_broken_relations_name_both_sides() {
        assert_eq!(ServerConfig::default().validate(), Ok(()));
        let mut config = ServerConfig::default();
        config.limits.request_bytes = 10;
        assert_eq!(config.validate().unwrap_err().to_string(), {
            "request_bytes (10) must be above bulk_bytes (16777216): one value must fit"
        });
        let config = ServerConfig { clients_memory_max: 5, ..ServerConfig::default() };
        assert!(config.validate().unwrap_err().to_string().starts_with("clients_memory_max (5)"));
        let config = ServerConfig { clients_max: 0, ..ServerConfig::default() };
        assert_eq!(config.validate(), Err(ServerConfigError::Zero("clients_max")));
    }
}
