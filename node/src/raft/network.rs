//! The sending side: what the library asks us to carry to other members.
//!
//! Appends are pipelined: the next ones leave while earlier ones are not answered, within a window,
//! and each carries its stream's number and its place in it, so that the receiver notices a gap.
//! Any failure ends the stream; the library then opens a new one behind what was acknowledged. The
//! library's own deadlines are not used for appends: they are as short as a heartbeat, and a burst
//! of data is no reason to tear a stream down.

use super::adapter::SnapshotData;
use super::config::{C, Vote};
use super::convert;
use super::news::{News, Told};
use super::peer::Network;
use super::purge::Transfers;
use super::send_snapshot;
use super::types::{Member, Settings};
use super::wire::{self, Address, Append};
use crate::codec::DecodeError;
use crate::transport::{Class, RpcError, RpcRefused, kinds};
use bytes::Bytes;
use flotilla_topology::ids::{GroupId, ReplicaId, Role};
use futures::future::{BoxFuture, OptionFuture};
use futures::stream::{BoxStream, FuturesOrdered};
use futures::{FutureExt, Stream, StreamExt};
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::RPCOption;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendError,
    StreamAppendResult, TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::storage::Snapshot;
use openraft::{OptionalSend, RaftNetworkFactory, RaftNetworkV2};
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Appends that one stream has in flight, at most.
const WINDOW_MESSAGES_MAX: usize = 64;

/// Entries that end so far below what is committed are old: the member was away.
const OLD_ENTRIES: u64 = 128;

/// Pause before a transfer that did not leave is said again.
const TRANSFER_AGAIN_AFTER: Duration = Duration::from_millis(10);

/// Makes the clients of one group.
pub(super) struct Links {
    pub(super) group: GroupId,
    pub(super) me: ReplicaId,
    pub(super) settings: Settings,
    pub(super) network: Arc<dyn Network>,
    pub(super) told: Told,
    pub(super) transfers: Transfers,
}

impl Links {
    fn link(&self, target: u64, member: &Member, class: Class) -> Link {
        let to = ReplicaId(target);
        Link {
            address: Address { group: self.group, to, from: self.me },
            member: member.clone(),
            network: self.network.clone(),
            class,
            settings: self.settings.clone(),
            told: self.told.clone(),
            transfers: self.transfers.clone(),
            not_before: None,
        }
    }
}

impl RaftNetworkFactory<C> for Links {
    type Network = Link;

    async fn new_client(&mut self, target: u64, node: &Member) -> Link {
        self.link(target, node, Class::Data)
    }

    async fn new_heartbeat_client(&mut self, target: u64, node: &Member) -> Link {
        self.link(target, node, Class::Control)
    }

    async fn new_snapshot_client(&mut self, target: u64, node: &Member) -> Link {
        self.link(target, node, Class::Bulk)
    }
}

/// A client of one replica, over one class of connection.
pub(super) struct Link {
    pub(super) address: Address,
    member: Member,
    pub(super) network: Arc<dyn Network>,
    class: Class,
    pub(super) settings: Settings,
    told: Told,
    transfers: Transfers,
    /// No entries leave before: what left last was old (see [`super::Pace`]), whatever stream it was of.
    not_before: Option<Instant>,
}

fn rpc_error(error: RpcError) -> RPCError<C> {
    match error {
        // Its stream or task ended without an answer: try again at once, on a new stream.
        RpcError::Refused(RpcRefused { code: RpcRefused::DROPPED, .. })
        | RpcError::Lost(_)
        | RpcError::Timeout => RPCError::Network(NetworkError::from_string(error)),
        // Nobody there, or it does not want to hear us: wait before the next attempt.
        RpcError::Unreachable(_) | RpcError::Refused(_) => {
            RPCError::Unreachable(Unreachable::from_string(error))
        }
    }
}

fn garbage(error: DecodeError) -> RPCError<C> {
    RPCError::Unreachable(Unreachable::from_string(format!("answer not understood: {error}")))
}

impl Link {
    /// Queues a message before it returns, as [`super::Peer::call`] does.
    pub(super) fn call(
        &self,
        class: Class,
        kind: u16,
        payload: Bytes,
        within: Duration,
    ) -> BoxFuture<'static, Result<Bytes, RpcError>> {
        match self.network.peer(self.address.to, &self.member) {
            Some(peer) => peer.call(class, kind, payload, within),
            None => {
                let reason = format!("no address of {} is known", self.member.name);
                futures::future::ready(Err(RpcError::Unreachable(reason.into()))).boxed()
            }
        }
    }

    /// Votes and transfers go over the control connection, whichever client they are asked of.
    async fn control(
        &self,
        kind: u16,
        payload: Bytes,
        within: Duration,
    ) -> Result<Bytes, RPCError<C>> {
        self.call(Class::Control, kind, payload, within).await.map_err(rpc_error)
    }

    fn append_alone(
        &self,
        request: AppendEntriesRequest<C>,
        within: Duration,
    ) -> BoxFuture<'static, Result<Bytes, RpcError>> {
        self.append((0, 0), request, within).1
    }

    /// Queues an append, the second number's of the first one's stream; its bytes and its answer.
    fn append(
        &self,
        (stream, seq): (u64, u64),
        request: AppendEntriesRequest<C>,
        within: Duration,
    ) -> (usize, BoxFuture<'static, Result<Bytes, RpcError>>) {
        self.told.note(&request);
        let payload = Append { stream, seq, request }.encode(&self.address);
        (payload.len(), self.call(self.class, kinds::RAFT_APPEND, payload, within))
    }
}

/// Bytes of an append, whether it was old, and its answer.
type Answered = (usize, bool, Result<Bytes, RpcError>);

type AppendAnswer = Result<StreamAppendResult<C>, RPCError<C>>;

/// One stream of appends.
struct Pipeline<'s, S> {
    link: &'s mut Link,
    input: S,
    stream: u64,
    seq: u64,
    in_flight: FuturesOrdered<BoxFuture<'static, Answered>>,
    bytes: usize,
    input_ended: bool,
    /// The answer that ends the stream, behind one that is told first.
    end: Option<AppendAnswer>,
    news: News,
}

impl<'s, S: Stream<Item = AppendEntriesRequest<C>> + Unpin> Pipeline<'s, S> {
    fn new(link: &'s mut Link, input: S) -> Pipeline<'s, S> {
        // A learner works on what is committed, as a syncer does.
        let news = News::new(link.member.role == Role::Node);
        Pipeline {
            link,
            input,
            // 0 is for appends that stand alone.
            stream: rand::random::<u64>() | 1,
            seq: 0,
            in_flight: FuturesOrdered::new(),
            bytes: 0,
            input_ended: false,
            end: None,
            news,
        }
    }

    fn take(&mut self, request: AppendEntriesRequest<C>) {
        if let Some(request) = self.news.pass(request, &self.link.told, Instant::now()) {
            self.send(request);
        }
    }

    fn send(&mut self, request: AppendEntriesRequest<C>) {
        let old = is_old(&request);
        let stall = Duration::from_millis(self.link.settings.append_stall_ms);
        let (len, answer) = self.link.append((self.stream, self.seq), request, stall);
        self.seq += 1;
        self.bytes += len;
        self.in_flight.push_back(answer.map(move |answer| (len, old, answer)).boxed());
        match self.link.network.catch_up() {
            Some(pace) if old => {
                let now = Instant::now();
                self.link.not_before = Some(pace.old(len, now)).filter(|due| *due > now);
            }
            Some(pace) => pace.new_entries(len),
            None => {}
        }
    }

    /// Old entries may leave again.
    fn end_pause(&mut self) {
        let due = self.link.not_before.take();
        if let (Some(pace), Some(due)) = (self.link.network.catch_up(), due) {
            pace.woke(due, Instant::now());
        }
    }

    /// Settles what an old append cost: nothing, if it never left.
    fn sent_old(&mut self, len: usize, answer: &Result<Bytes, RpcError>) {
        if !matches!(answer, Err(RpcError::Unreachable(_))) {
            metrics::counter!("flotilla_raft_catch_up_sent_bytes_total").increment(len as u64);
        } else if let Some(pace) = self.link.network.catch_up() {
            pace.give_back(len);
            self.link.not_before = None;
        }
    }

    fn settle(&mut self, (len, old, answer): Answered) -> AppendAnswer {
        self.bytes -= len;
        if old {
            self.sent_old(len, &answer);
        }
        let bytes = answer.map_err(rpc_error)?;
        wire::decode_append_answer(&bytes).map_err(garbage)
    }

    /// Of answers that are here already the last one says what those before it say: the library's core hears of
    /// one. What ends the stream is told after it.
    fn last_of_those_here(&mut self, mut answer: AppendAnswer) -> AppendAnswer {
        while let Ok(Ok(_)) = answer {
            let Some(Some(next)) = self.in_flight.next().now_or_never() else { break };
            match self.settle(next) {
                Ok(Ok(matching)) => answer = Ok(Ok(matching)),
                end => {
                    self.end = Some(end);
                    break;
                }
            }
        }
        answer
    }

    /// The next answer; meanwhile sends what there is to send. `None`: input and answers ended.
    async fn next(&mut self) -> Option<AppendAnswer> {
        if let Some(end) = self.end.take() {
            return Some(end);
        }
        loop {
            let room = self.in_flight.len() < WINDOW_MESSAGES_MAX
                && self.bytes < self.link.settings.append_window_bytes
                && !self.input_ended;
            let told = self.link.told.clone();
            let news_due = self.news.due();
            // Taken before it is looked what is wanted, so that nothing is missed.
            let more_wanted = news_due.map(|_| told.more_wanted());
            if let Some(news) = self.news.release(&told, Instant::now()) {
                self.send(news);
                continue;
            }
            let news_due = news_due.map(|due| tokio::time::sleep_until(due.into()));
            let due = self.link.not_before.map(|due| tokio::time::sleep_until(due.into()));
            let held = due.is_some();
            tokio::select! {
                biased;
                Some(answered) = self.in_flight.next() => {
                    let first = self.settle(answered);
                    return Some(self.last_of_those_here(first));
                }
                Some(()) = OptionFuture::from(due), if room => self.end_pause(),
                Some(()) = OptionFuture::from(more_wanted) => {}
                Some(()) = OptionFuture::from(news_due) => {}
                request = self.input.next(), if room && !held => match request {
                    Some(request) => self.take(request),
                    None => {
                        self.input_ended = true;
                        if let Some(news) = self.news.end() {
                            self.send(news);
                        }
                    }
                },
                else => return None,
            }
        }
    }
}

/// Whether a request carries entries that its member should have had long ago.
fn is_old(request: &AppendEntriesRequest<C>) -> bool {
    let committed = convert::log_id(request.leader_commit.as_ref()).index;
    request.entries.last().is_some_and(|last| last.log_id.index + OLD_ENTRIES < committed)
}

impl RaftNetworkV2<C> for Link {
    type SnapshotData = SnapshotData;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<C>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<C>, RPCError<C>> {
        let last = rpc.entries.last().map(|entry| entry.log_id).or(rpc.prev_log_id);
        let bytes = self.append_alone(rpc, option.hard_ttl()).await.map_err(rpc_error)?;
        Ok(match wire::decode_append_answer(&bytes).map_err(garbage)? {
            Ok(matching) if matching == last => AppendEntriesResponse::Success,
            Ok(matching) => AppendEntriesResponse::PartialSuccess(matching),
            Err(StreamAppendError::Conflict(_)) => AppendEntriesResponse::Conflict,
            Err(StreamAppendError::HigherVote(vote)) => AppendEntriesResponse::HigherVote(vote),
        })
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> BoxFuture<'s, Result<BoxStream<'s, Result<StreamAppendResult<C>, RPCError<C>>>, RPCError<C>>>
    where
        S: Stream<Item = AppendEntriesRequest<C>> + OptionalSend + Unpin + 'static,
    {
        if self.class == Class::Control {
            // A heartbeat: one message without entries, on its own way, to no stream's account.
            let link = &*self;
            let answers = input.then(move |request| {
                let answer = link.append_alone(request, option.hard_ttl());
                async move {
                    let bytes = answer.await.map_err(rpc_error)?;
                    wire::decode_append_answer(&bytes).map_err(garbage)
                }
            });
            return async move { Ok(answers.boxed()) }.boxed();
        }
        let pipeline = Pipeline::new(self, input);
        let answers = futures::stream::unfold(Some(pipeline), |pipeline| async move {
            let mut pipeline = pipeline?;
            let answer = pipeline.next().await?;
            // A refusal of any kind ends the stream: what follows it was built upon it.
            let goes_on = matches!(answer, Ok(Ok(_)));
            Some((answer, goes_on.then_some(pipeline)))
        });
        async move { Ok(answers.boxed()) }.boxed()
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<C>,
        option: RPCOption,
    ) -> Result<VoteResponse<C>, RPCError<C>> {
        let payload = wire::encode_vote_request(&self.address, &rpc);
        let bytes = self.control(kinds::RAFT_VOTE, payload, option.hard_ttl()).await?;
        wire::decode_vote_answer(&bytes).map_err(garbage)
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<C>,
        option: RPCOption,
    ) -> Result<VoteResponse<C>, RPCError<C>> {
        let payload = wire::encode_vote_request(&self.address, &rpc);
        let bytes = self.control(kinds::RAFT_PRE_VOTE, payload, option.hard_ttl()).await?;
        wire::decode_vote_answer(&bytes).map_err(garbage)
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot<openraft::alias::CommittedLeaderIdOf<C>, u64, Member, SnapshotData>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<C>, StreamingError<C>> {
        let at = convert::log_id(snapshot.meta.last_log_id.as_ref()).index;
        let transfer = self.transfers.begin(self.address.to, at);
        let sent = tokio::select! {
            closed = cancel => Err(StreamingError::Closed(closed)),
            sent = send_snapshot::send(self, vote, snapshot.snapshot) => sent,
        };
        if sent.is_ok() {
            transfer.arrived();
        }
        sent
    }

    async fn transfer_leader(
        &mut self,
        req: TransferLeaderRequest<C>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<C>, RPCError<C>> {
        // The library says it once, and takes no more proposals in this term whatever comes of it: what did
        // not leave is said again for as long as it waits.
        let payload = wire::encode_transfer(&self.address, &req);
        let (kind, end) = (kinds::TRANSFER_LEADER, Instant::now() + option.hard_ttl());
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match self.call(Class::Control, kind, payload.clone(), left).await {
                Err(RpcError::Unreachable(_)) if left > TRANSFER_AGAIN_AFTER => {
                    tokio::time::sleep(TRANSFER_AGAIN_AFTER).await;
                }
                Err(error) => return Err(rpc_error(error)),
                Ok(bytes) => return wire::decode_transfer_answer(&bytes).map_err(garbage),
            }
        }
    }
}
