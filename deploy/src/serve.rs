//! What all serving subcommands share: a runtime, and the signals that end it.

use anyhow::Context;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// A runtime with so many threads, or one for each core.
pub fn runtime(threads: Option<usize>) -> anyhow::Result<Runtime> {
    let mut builder = Builder::new_multi_thread();
    if let Some(threads) = threads {
        builder.worker_threads(threads.max(1));
    }
    builder.enable_all().thread_name("flotilla").build().context("cannot start threads")
}

/// Runs a command that waits for the network.
pub fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = runtime(None)?;
    let result = runtime.block_on(work);
    // What still waits for a peer that does not answer must not hold up the end.
    runtime.shutdown_background();
    result
}

/// The signals by which a process is asked to end.
pub struct Stop {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Stop {
    /// Takes the signals over; from now on they do not end the process by themselves.
    pub fn listen() -> anyhow::Result<Stop> {
        let listen = |kind| signal(kind).context("cannot listen for signals");
        Ok(Stop {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }

    /// Waits for the next of them.
    pub async fn asked(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.hangup.recv() => "SIGHUP",
        }
    }

    /// Does what leaving in good order takes; whoever asks a second time is not kept waiting.
    pub async fn leave(&mut self, work: impl Future<Output = ()>) {
        tokio::select! {
            () = work => {}
            signal = self.asked() => tracing::warn!(signal, "asked again: ends at once"),
        }
    }
}
