//! Receives snapshots of one group: one at a time, one task, in the order of arrival.
//!
//! Parts of a transfer that is not the current one are answered "lost"; a `Begin` of another
//! transfer drops what was received so far, since only a leader starts one, and it starts another
//! only when it gave up the last. A chunk that is repeated is answered without being written again.

use super::adapter::{Machine, SnapshotData};
use super::config::{C, Vote};
use super::convert;
use super::machine::{SnapshotReceiver, SnapshotSink};
use super::server::refused;
use super::types::Applied;
use super::wire::{SnapshotAnswer, SnapshotPart};
use crate::transport::ReplyTo;
use bytes::Bytes;
use openraft::storage::Snapshot;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// Parts that wait, at most: more than a sender's window.
pub(super) const PARTS_WAITING_MAX: usize = 16;

/// A transfer that is silent for so long is dropped, and what it had collected with it.
const IDLE_MAX: Duration = Duration::from_secs(60);

type Raft = openraft::Raft<C, Machine>;

/// A part and who waits for the answer.
pub(super) type Part = (SnapshotPart, ReplyTo);

struct Incoming {
    transfer: u64,
    applied: Applied,
    sink: Box<dyn SnapshotSink>,
    next: u64,
}

struct Receiver {
    raft: Raft,
    target: Arc<dyn SnapshotReceiver>,
    incoming: Option<Incoming>,
    /// The last transfer that ended, in case its answer got lost.
    done: Option<(u64, Vote)>,
}

/// Body of the task.
pub(super) async fn run(
    raft: Raft,
    target: Arc<dyn SnapshotReceiver>,
    mut parts: mpsc::Receiver<Part>,
) {
    let mut receiver = Receiver { raft, target, incoming: None, done: None };
    loop {
        let part = match receiver.incoming {
            None => parts.recv().await,
            Some(_) => match tokio::time::timeout(IDLE_MAX, parts.recv()).await {
                Ok(part) => part,
                Err(_) => {
                    tracing::warn!("a snapshot transfer fell silent; dropped");
                    receiver.incoming = None;
                    continue;
                }
            },
        };
        let Some((part, reply)) = part else { return };
        match receiver.take(part).await {
            Ok(answer) => reply.send(Ok(answer.encode())),
            Err(error) => {
                tracing::error!(%error, "receiving a snapshot failed");
                receiver.incoming = None;
                reply.send(Err(refused(error)));
            }
        }
    }
}

impl Receiver {
    async fn take(&mut self, part: SnapshotPart) -> io::Result<SnapshotAnswer> {
        let transfer = part.transfer();
        match part {
            SnapshotPart::Begin { vote, applied, .. } => self.begin(transfer, vote, applied).await,
            SnapshotPart::Chunk { seq, bytes, .. } => self.chunk(transfer, seq, bytes).await,
            SnapshotPart::End { vote, chunks, .. } => self.end(transfer, vote, chunks).await,
        }
    }

    fn next(&self, incoming: &Incoming) -> SnapshotAnswer {
        SnapshotAnswer::Next { seq: incoming.next, wants_data: self.target.wants_data() }
    }

    async fn begin(
        &mut self,
        transfer: u64,
        vote: Vote,
        applied: Applied,
    ) -> io::Result<SnapshotAnswer> {
        if let Some((done, vote)) = self.done
            && done == transfer
        {
            return Ok(SnapshotAnswer::Done(vote));
        }
        // A deposed leader hears so before it sends gigabytes.
        let newer = self
            .raft
            .with_raft_state(move |state| {
                let ours: Vote = *state.vote_ref();
                (ours > vote).then_some(ours)
            })
            .await
            .map_err(io::Error::other)?;
        if let Some(ours) = newer {
            return Ok(SnapshotAnswer::Done(ours));
        }
        if let Some(incoming) = &self.incoming
            && incoming.transfer == transfer
        {
            return Ok(self.next(incoming));
        }
        self.incoming = None;
        let target = self.target.clone();
        let (sink, applied) = blocking(move || Ok((target.open(&applied)?, applied))).await?;
        tracing::info!(at = %applied.log_id, from = vote.leader_id.voted_for, "a snapshot comes in");
        let incoming = Incoming { transfer, applied, sink, next: 0 };
        let answer = self.next(&incoming);
        self.incoming = Some(incoming);
        Ok(answer)
    }

    async fn chunk(&mut self, transfer: u64, seq: u64, bytes: Bytes) -> io::Result<SnapshotAnswer> {
        let Some(mut incoming) = self.incoming.take_if(|it| it.transfer == transfer) else {
            return Ok(SnapshotAnswer::Lost);
        };
        if seq == incoming.next {
            metrics::counter!("flotilla_raft_snapshot_received_bytes_total")
                .increment(bytes.len() as u64);
            let mut sink = incoming.sink;
            incoming.sink = blocking(move || {
                sink.write_chunk(bytes)?;
                Ok(sink)
            })
            .await?;
            incoming.next += 1;
        }
        let answer = self.next(&incoming);
        self.incoming = Some(incoming);
        Ok(answer)
    }

    async fn end(&mut self, transfer: u64, vote: Vote, chunks: u64) -> io::Result<SnapshotAnswer> {
        let complete = |it: &Incoming| it.next == chunks || !self.target.wants_data();
        let Some(incoming) = self.incoming.take_if(|it| it.transfer == transfer) else {
            return Ok(match self.done {
                Some((done, vote)) if done == transfer => SnapshotAnswer::Done(vote),
                _ => SnapshotAnswer::Lost,
            });
        };
        if !complete(&incoming) {
            let answer = self.next(&incoming);
            self.incoming = Some(incoming);
            return Ok(answer);
        }
        let meta = convert::snapshot_meta(&incoming.applied)?;
        let snapshot = Snapshot { meta, snapshot: SnapshotData::Received(incoming.sink) };
        let response =
            self.raft.install_full_snapshot(vote, snapshot).await.map_err(io::Error::other)?;
        tracing::info!(at = %incoming.applied.log_id, chunks, "snapshot installed");
        self.done = Some((transfer, response.vote));
        Ok(SnapshotAnswer::Done(response.vote))
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}
