//! What an open connection that does nothing costs in memory.

use super::kind::Kind;
use super::{Server, usage};
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use std::fmt::{self, Write};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Connections that can be asked for: from one address to one port Linux has 28,000 by itself.
pub const IDLE_MAX: usize = 25_000;
/// Files that a server, or the benchmark, has open besides.
const OTHER_FILES: u64 = 512;
/// Clients that a standalone node lets in, less some for others.
const STANDALONE_MAX: usize = 9_900;
/// How long a server has to come to rest before its memory is looked at.
const REST: Duration = Duration::from_millis(500);

/// Memory of idle connections of one server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct IdleRow {
    /// The server.
    pub server: Kind,
    /// Connections, all to one process.
    pub connections: usize,
    /// Resident memory of that process without them, in bytes.
    pub before: u64,
    /// The same with them.
    pub with: u64,
    /// Growth per connection, in bytes.
    pub per_connection: f64,
}

impl fmt::Display for IdleRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let IdleRow { server, connections, per_connection, .. } = self;
        write!(f, "{server}: {per_connection:.0} bytes for each of {connections} idle connections")
    }
}

/// Refuses more connections than can be opened here, in one line that says what to do.
pub fn check(count: usize) -> Result<(), String> {
    if count > IDLE_MAX {
        return Err(format!("--idle ({count}) must be at most {IDLE_MAX}"));
    }
    let files = usage::open_files_max().map_err(|error| format!("{error:#}"))?;
    let needed = count as u64 + OTHER_FILES;
    if files < needed {
        return Err(format!(
            "--idle {count} takes {needed} open files, and {files} are allowed: `ulimit -n {needed}`"
        ));
    }
    Ok(())
}

/// Whether a server can be asked for so many.
pub(super) fn applies(kind: Kind, count: usize) -> bool {
    match kind {
        Kind::Standalone => count <= STANDALONE_MAX,
        // The other doors have the same connections.
        kind => kind.takes_all() && kind != Kind::Flotilla,
    }
}

/// Opens the connections, each with one PING, and closes them again.
pub(super) async fn measure(server: &Server, connections: usize) -> Result<IdleRow> {
    let address = &server.targets[0].address;
    let (_, pid) = server.processes.first().context("no process")?;
    tokio::time::sleep(REST).await;
    let before = usage::resident(*pid)?;
    let mut open = Vec::with_capacity(connections);
    for number in 0..connections {
        let opened = ping(address).await;
        open.push(opened.with_context(|| {
            format!("{}: connection {} of {connections}", server.kind, number + 1)
        })?);
    }
    tokio::time::sleep(REST).await;
    let with = usage::resident(*pid)?;
    drop(open);
    Ok(IdleRow {
        server: server.kind,
        connections,
        before,
        with,
        per_connection: with.saturating_sub(before) as f64 / connections.max(1) as f64,
    })
}

async fn ping(address: &str) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(b"*1\r\n$4\r\nPING\r\n").await?;
    let mut reply = [0; 7];
    stream.read_exact(&mut reply).await?;
    if &reply != b"+PONG\r\n" {
        bail!("{} for PING", String::from_utf8_lossy(&reply));
    }
    Ok(stream)
}

/// The table for people.
pub(super) fn markdown(rows: &[IdleRow]) -> String {
    let mut text = "### Memory of idle connections\n\n\
        | server | connections | resident MiB without | with | bytes per connection |\n\
        |---|---|---|---|---|\n"
        .to_owned();
    for IdleRow { server, connections, before, with, per_connection } in rows {
        let mib = |bytes: &u64| *bytes as f64 / f64::from(1 << 20);
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "| {server} | {connections} | {:.1} | {:.1} | {per_connection:.0} |",
            mib(before),
            mib(with)
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_can_be_opened_is_refused_in_a_line() {
        assert_eq!(check(10), Ok(()));
        let error = check(IDLE_MAX + 1).unwrap_err();
        assert_eq!(error, "--idle (25001) must be at most 25000");
        assert!(applies(Kind::FlotillaOne, 10_000) && applies(Kind::Standalone, 9_900));
        assert!(!applies(Kind::Standalone, 10_000) && !applies(Kind::Etcd, 1));
    }
}
