//! The receiving side: messages of other members, in the order in which they arrived.
//!
//! Appends of a stream are fed into the library in order, without waiting for one to be answered
//! before the next. A stream is one sender's; a new one replaces it; a message out of its place is
//! refused, which makes the sender open a new stream. Everything else stands alone.

use super::adapter::Machine;
use super::config::C;
use super::machine::SnapshotReceiver;
use super::parking::{Ballot, Parking};
use super::recv_snapshot::{self, Part};
use super::types::Settings;
use super::wire::{self, Address, Append, SnapshotPart};
use crate::codec::Decoder;
use crate::transport::{ReplyTo, RpcRefused, kinds};
use bytes::Bytes;
use flotilla_topology::ids::{GroupId, ReplicaId};
use futures::StreamExt;
use openraft::raft::AppendEntriesRequest;
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

/// Appends of one stream that wait to be taken by the library: a sender's whole window.
const APPENDS_WAITING_MAX: usize = 128;

/// Streams of one group at a time, at most. Only a leader sends, so more than one is rare.
const STREAMS_MAX: usize = 16;

type Raft = openraft::Raft<C, Machine>;

/// Code of every refusal by Raft: the sender does the same whatever the reason.
const REFUSED: u16 = RpcRefused::FIRST_FREE;

pub(super) fn refused(reason: impl ToString) -> RpcRefused {
    RpcRefused::new(REFUSED, reason.to_string())
}

/// Takes the messages of one group.
pub(super) struct Door {
    group: GroupId,
    me: ReplicaId,
    raft: Raft,
    runtime: Handle,
    streams: Mutex<HashMap<ReplicaId, AppendStream>>,
    snapshots: mpsc::Sender<Part>,
    gate: Gate,
}

/// What stands before the library where votes are asked for.
pub(super) struct Gate {
    settings: Settings,
    parking: Arc<Parking>,
    /// Until then it gives no votes.
    silent_until: Instant,
}

impl Gate {
    /// Gives no votes for `silence`, and none against a leader whose group is parked.
    pub(super) fn new(
        settings: Settings,
        parking: Arc<Parking>,
        silence: Option<Duration>,
    ) -> Gate {
        Gate { settings, parking, silent_until: Instant::now() + silence.unwrap_or_default() }
    }
}

struct AppendStream {
    id: u64,
    next: u64,
    queue: mpsc::Sender<(AppendEntriesRequest<C>, ReplyTo)>,
}

impl Door {
    pub(super) fn new(
        group: GroupId,
        me: ReplicaId,
        raft: Raft,
        receiver: Arc<dyn SnapshotReceiver>,
        runtime: Handle,
        gate: Gate,
    ) -> Door {
        let (snapshots, parts) = mpsc::channel(recv_snapshot::PARTS_WAITING_MAX);
        runtime.spawn(recv_snapshot::run(raft.clone(), receiver, parts));
        Door { group, me, raft, runtime, streams: Mutex::default(), snapshots, gate }
    }

    /// Takes one message. Never blocks.
    pub(super) fn handle(&self, kind: u16, payload: &Bytes, reply: ReplyTo) {
        let mut input = Decoder::shared(payload);
        let address = match Address::take(&mut input) {
            Ok(address) => address,
            Err(error) => return reply.send(Err(refused(error))),
        };
        if (address.group, address.to) != (self.group, self.me) {
            return reply.send(Err(refused(format!(
                "this is replica {} of group {}, the message is for replica {} of group {}",
                self.me, self.group, address.to, address.group
            ))));
        }
        if let Err((reply, error)) = self.dispatch(kind, address, input, reply) {
            reply.send(Err(refused(error)));
        }
    }

    fn dispatch(
        &self,
        kind: u16,
        address: Address,
        input: Decoder<'_>,
        reply: ReplyTo,
    ) -> Result<(), (ReplyTo, String)> {
        macro_rules! take {
            ($decoded:expr) => {
                match $decoded {
                    Ok(message) => message,
                    Err(error) => return Err((reply, error.to_string())),
                }
            };
        }
        let raft = self.raft.clone();
        if !matches!(kind, kinds::RAFT_VOTE | kinds::RAFT_PRE_VOTE) {
            self.gate.parking.hear();
        }
        match kind {
            kinds::RAFT_APPEND => {
                let append = take!(Append::take(input));
                return self.append(address.from, append, reply);
            }
            kinds::RAFT_VOTE | kinds::RAFT_PRE_VOTE => {
                let request = take!(wire::take_vote_request(input));
                if let Some(reason) = self.refusal(address.from, request.leadership_transfer) {
                    return Err((reply, reason.to_owned()));
                }
                self.runtime.spawn(async move {
                    let response = match kind {
                        kinds::RAFT_VOTE => raft.vote(request).await,
                        _ => raft.pre_vote(request).await,
                    };
                    reply.send(response.map(|r| wire::encode_vote_answer(&r)).map_err(refused));
                });
            }
            kinds::TRANSFER_LEADER => {
                let request = take!(wire::take_transfer(input));
                self.runtime.spawn(async move {
                    let response = raft.handle_transfer_leader(request).await;
                    reply.send(response.map(|r| wire::encode_transfer_answer(&r)).map_err(refused));
                });
            }
            kinds::SNAPSHOT_BEGIN | kinds::SNAPSHOT_CHUNK | kinds::SNAPSHOT_END => {
                let part = take!(SnapshotPart::take(kind, input));
                return self.snapshots.try_send((part, reply)).map_err(|error| {
                    let (_, reply) = error.into_inner();
                    (reply, "too many parts of snapshots wait".to_owned())
                });
            }
            _ => return Err((reply, format!("message kind {kind} is not one of Raft's"))),
        }
        Ok(())
    }

    /// Why a vote is refused before the library hears of it. Refusing one is always safe.
    fn refusal(&self, from: ReplicaId, transfer: bool) -> Option<&'static str> {
        let Gate { settings, parking, silent_until } = &self.gate;
        if transfer {
            parking.hear();
            return None;
        }
        let now = Instant::now();
        if now < *silent_until {
            return Some("no votes yet: a lease of a former life may hold");
        }
        match parking.vote(from, settings, now) {
            Ballot::Pass => None,
            Ballot::Refuse => Some("the group is parked and its leader is there"),
            Ballot::Lead => {
                let raft = self.raft.clone();
                self.runtime.spawn(async move { raft.trigger().heartbeat().await });
                Some("the group is parked and this replica leads it")
            }
        }
    }

    fn append(
        &self,
        from: ReplicaId,
        append: Append,
        reply: ReplyTo,
    ) -> Result<(), (ReplyTo, String)> {
        let Append { stream, seq, request } = append;
        if stream == 0 {
            let raft = self.raft.clone();
            self.runtime.spawn(async move {
                let last = request.entries.last().map(|e| e.log_id).or(request.prev_log_id);
                let prev = request.prev_log_id;
                let response = raft.append_entries(request).await;
                reply.send(match response {
                    Ok(response) => {
                        let result = response.into_stream_result(prev, last);
                        Ok(wire::encode_append_answer(&result))
                    }
                    Err(error) => Err(refused(error)),
                });
            });
            return Ok(());
        }
        let mut streams = self.streams.lock();
        if seq == 0 {
            streams.retain(|_, stream| !stream.queue.is_closed());
            if streams.len() >= STREAMS_MAX {
                return Err((reply, "too many append streams".to_owned()));
            }
            streams.insert(from, self.open_stream(stream));
        }
        let Some(open) = streams.get_mut(&from).filter(|open| open.id == stream) else {
            return Err((reply, "this append stream has ended".to_owned()));
        };
        if open.next != seq {
            let error = format!("append {seq} of its stream, expected {}", open.next);
            streams.remove(&from);
            return Err((reply, error));
        }
        open.next += 1;
        open.queue.try_send((request, reply)).map_err(|error| {
            streams.remove(&from);
            let (_, reply) = error.into_inner();
            (reply, "this append stream has ended".to_owned())
        })
    }

    fn open_stream(&self, id: u64) -> AppendStream {
        let (queue, waiting) = mpsc::channel(APPENDS_WAITING_MAX);
        self.runtime.spawn(run_stream(self.raft.clone(), waiting));
        AppendStream { id, next: 0, queue }
    }
}

/// Feeds a stream into the library and gives its answers, in order. Ends with the first refusal;
/// who still waits then hears that there is no answer.
async fn run_stream(raft: Raft, waiting: mpsc::Receiver<(AppendEntriesRequest<C>, ReplyTo)>) {
    let replies: Arc<Mutex<VecDeque<ReplyTo>>> = Arc::default();
    let taken = replies.clone();
    let input = futures::stream::unfold((waiting, taken), |(mut waiting, taken)| async move {
        let (request, reply) = waiting.recv().await?;
        taken.lock().push_back(reply);
        Some((request, (waiting, taken)))
    });
    let mut answers = std::pin::pin!(raft.stream_append(input));
    while let Some(answer) = answers.next().await {
        let Some(reply) = replies.lock().pop_front() else { return };
        match answer {
            Ok(result) => reply.send(Ok(wire::encode_append_answer(&result))),
            Err(fatal) => reply.send(Err(refused(fatal))),
        }
    }
}
