//! Sends one snapshot: begin, chunks in a small window, end.
//!
//! Chunks that are not acknowledged are kept, so that a broken connection does not cost the cut:
//! the receiver says which chunk it expects, and sending goes on from there. A transfer that makes no
//! progress for [`Settings::snapshot_stall_ms`](super::Settings) is given up; the library then takes
//! a new cut.

use super::adapter::SnapshotData;
use super::config::{C, Vote};
use super::machine::{SnapshotCut, SnapshotSource};
use super::network::Link;
use super::wire::{SnapshotAnswer, SnapshotPart};
use crate::transport::{Class, RpcError, RpcRefused};
use bytes::Bytes;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesOrdered;
use openraft::errors::{NetworkError, StreamingError, Unreachable};
use openraft::raft::SnapshotResponse;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Chunks in flight, at most.
const WINDOW_CHUNKS_MAX: usize = 4;

/// How long one part waits for its answer: installing happens within the last one.
const PART_DEADLINE: Duration = Duration::from_secs(10);
const END_DEADLINE: Duration = Duration::from_secs(120);

/// The least share of the rate, however busy the node is: the log behind the snapshot is kept meanwhile.
const LEAST_SHARE: f64 = 1.0 / 8.0;

/// Pause before the receiver is asked again.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

pub(super) async fn send(
    link: &Link,
    vote: Vote,
    data: SnapshotData,
) -> Result<SnapshotResponse<C>, StreamingError<C>> {
    let SnapshotData::Cut(cut) = data else {
        return Err(give_up("only a cut can be sent"));
    };
    let mut transfer = Transfer::new(link, vote, cut);
    let result = transfer.run().await;
    let (chunks, took) = (transfer.sent, transfer.started.elapsed());
    match &result {
        Ok(_) => tracing::info!(address = ?link.address, chunks, ?took, "snapshot sent"),
        Err(error) => tracing::warn!(address = ?link.address, chunks, %error, "snapshot not sent"),
    }
    result
}

fn give_up(reason: impl ToString) -> StreamingError<C> {
    StreamingError::Unreachable(Unreachable::from_string(reason))
}

struct Transfer<'a> {
    link: &'a Link,
    id: u64,
    vote: Vote,
    applied: super::types::Applied,
    source: Option<Box<dyn SnapshotSource>>,
    /// Chunks that were read and are not acknowledged, oldest first, and the number of the oldest.
    kept: VecDeque<Bytes>,
    oldest: u64,
    sent: u64,
    /// The next chunk does not leave before.
    due: Instant,
    started: Instant,
    progress: Instant,
}

impl<'a> Transfer<'a> {
    fn new(link: &'a Link, vote: Vote, cut: SnapshotCut) -> Transfer<'a> {
        let now = Instant::now();
        Transfer {
            link,
            id: rand::random(),
            vote,
            applied: cut.applied,
            source: Some(cut.source),
            kept: VecDeque::new(),
            oldest: 0,
            sent: 0,
            due: now,
            started: now,
            progress: now,
        }
    }

    fn call(&self, part: &SnapshotPart) -> BoxFuture<'static, Result<Bytes, RpcError>> {
        let deadline = match part {
            SnapshotPart::End { .. } => END_DEADLINE,
            _ => PART_DEADLINE,
        };
        self.link.call(Class::Bulk, part.kind(), part.encode(&self.link.address), deadline)
    }

    async fn run(&mut self) -> Result<SnapshotResponse<C>, StreamingError<C>> {
        loop {
            let failure = match self.attempt().await? {
                Ok(vote) => return Ok(SnapshotResponse::new(vote)),
                Err(failure) => failure,
            };
            let stall = Duration::from_millis(self.link.settings.snapshot_stall_ms);
            if self.progress.elapsed() > stall {
                return Err(StreamingError::Network(NetworkError::from_string(format!(
                    "no progress for {} ms; {failure}",
                    stall.as_millis()
                ))));
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    /// Asks where the receiver is, and sends from there to the end. The inner error is worth another
    /// attempt with the same cut; the outer one is not.
    async fn attempt(&mut self) -> Result<Result<Vote, String>, StreamingError<C>> {
        let begin = SnapshotPart::Begin {
            transfer: self.id,
            vote: self.vote,
            applied: self.applied.clone(),
        };
        let begun = self.call(&begin);
        let begun = begun.await;
        let (next, wants_data) = match self.answer(begun)? {
            Ok(SnapshotAnswer::Next { seq, wants_data }) => (seq, wants_data),
            Ok(SnapshotAnswer::Done(vote)) => return Ok(Ok(vote)),
            Ok(SnapshotAnswer::Lost) => return Ok(Err("the receiver lost its place".into())),
            Err(error) => return Ok(Err(error)),
        };
        if wants_data {
            self.acknowledge(next)?;
            if let Err(error) = self.chunks().await? {
                return Ok(Err(error));
            }
        }
        let chunks = self.oldest;
        let end = SnapshotPart::End { transfer: self.id, vote: self.vote, chunks };
        let ended = self.call(&end);
        let ended = ended.await;
        match self.answer(ended)? {
            Ok(SnapshotAnswer::Done(vote)) => Ok(Ok(vote)),
            Ok(_) => Ok(Err("the receiver lacks chunks".into())),
            Err(error) => Ok(Err(error)),
        }
    }

    /// Splits failures: what another attempt may mend is the inner error.
    fn answer(
        &self,
        answer: Result<Bytes, RpcError>,
    ) -> Result<Result<SnapshotAnswer, String>, StreamingError<C>> {
        match answer {
            Ok(bytes) => SnapshotAnswer::decode(&bytes).map(Ok).map_err(give_up),
            Err(RpcError::Refused(refused)) if refused.code != RpcRefused::DROPPED => {
                Err(give_up(refused))
            }
            Err(error) => Ok(Err(error.to_string())),
        }
    }

    /// The receiver has everything before `next`.
    fn acknowledge(&mut self, next: u64) -> Result<(), StreamingError<C>> {
        if next < self.oldest || next > self.oldest + self.kept.len() as u64 {
            return Err(give_up(format!(
                "the receiver expects chunk {next}; kept are {} from {}",
                self.kept.len(),
                self.oldest
            )));
        }
        while self.oldest < next {
            self.kept.pop_front();
            self.oldest += 1;
            self.progress = Instant::now();
        }
        Ok(())
    }

    /// Sends what is kept, then what the source still has.
    async fn chunks(&mut self) -> Result<Result<(), String>, StreamingError<C>> {
        let mut in_flight = FuturesOrdered::new();
        let mut at = 0; // position in `kept` of the next chunk to send
        loop {
            while in_flight.len() < WINDOW_CHUNKS_MAX {
                if at == self.kept.len() && !self.read_chunk().await? {
                    break;
                }
                let seq = self.oldest + at as u64;
                let bytes = self.kept[at].clone();
                self.pace(bytes.len()).await;
                in_flight.push_back(self.call(&SnapshotPart::Chunk {
                    transfer: self.id,
                    seq,
                    bytes,
                }));
                self.sent += 1;
                at += 1;
            }
            let Some(answer) = in_flight.next().await else { return Ok(Ok(())) };
            match self.answer(answer)? {
                Ok(SnapshotAnswer::Next { seq, .. }) => {
                    let before = self.oldest;
                    if seq < before || seq > before + at as u64 {
                        return Ok(Err(format!("the receiver expects chunk {seq}")));
                    }
                    if seq == before {
                        return Ok(Err("the receiver missed a chunk".into()));
                    }
                    self.acknowledge(seq)?;
                    at -= usize::try_from(seq - before).unwrap_or(at);
                }
                Ok(_) => return Ok(Err("the receiver lost its place".into())),
                Err(error) => return Ok(Err(error)),
            }
        }
    }

    /// Reads the next chunk into `kept`; false at the end.
    async fn read_chunk(&mut self) -> Result<bool, StreamingError<C>> {
        let Some(mut source) = self.source.take() else { return Ok(false) };
        let read = tokio::task::spawn_blocking(move || {
            let chunk = source.next_chunk();
            (source, chunk)
        });
        let (source, chunk) = read.await.map_err(|error| give_up(format!("reading: {error}")))?;
        match chunk {
            Ok(Some(chunk)) => {
                self.source = Some(source);
                self.kept.push_back(chunk);
                Ok(true)
            }
            Ok(None) => Ok(false),
            // One bad read must not stop the leader: it says so, and tries again with a new cut.
            Err(error) => Err(give_up(format!("reading the snapshot: {error}"))),
        }
    }

    /// Waits as long as the rate limit demands: on a busy node a share of it, as for old entries.
    async fn pace(&mut self, len: usize) {
        metrics::counter!("flotilla_raft_snapshot_sent_bytes_total").increment(len as u64);
        let limit = self.link.settings.snapshot_bytes_per_s;
        if limit == 0 {
            return;
        }
        let pace = self.link.network.catch_up();
        if self.due > Instant::now() {
            tokio::time::sleep_until(self.due.into()).await;
            if let Some(pace) = pace {
                pace.woke(self.due, Instant::now());
            }
        }
        let now = Instant::now();
        let share = pace.map_or(1.0, |pace| pace.share(now).max(LEAST_SHARE));
        self.due = now + Duration::from_secs_f64(len as f64 / (limit as f64 * share));
    }
}
