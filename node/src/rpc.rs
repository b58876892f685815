//! What this node does for other processes: Raft messages, forwarded commands, read barriers,
//! remote batches, digests. Requests of one connection are taken in the order in which they came.

use crate::group::census;
use crate::group::cursor;
use crate::group::digest::{DigestAnswer, DigestCall, KeyPage};
use crate::group::exec::{
    ExecRequest, Outcome, decode_barrier_request, decode_barriers_request, encode_barrier,
    encode_barriers, encode_outcomes,
};
use crate::group::handover::encode_applied;
use crate::group::remote::{
    Answer, CursorsAnswer, CursorsRequest, FloorAnswer, LinkFloor, RemoteBatch, Seed, SeedAnswer,
    SeedRequest,
};
use crate::group::source::{self, Cuts, SourceAnswer, SourceRequest};
use crate::group::state::StateRequest;
use crate::group::transaction::AskRequest;
use crate::group::wait::{Told, WaitRequest};
use crate::group::{Group, ReadError, Work, synced};
use crate::raft::RaftGroups;
use crate::router::Places;
use crate::transport::{ReplyTo, RpcRefused, Service, kinds};
use bytes::Bytes;
use flotilla_topology::ids::{GroupId, Identity, LogId, Role};
use std::sync::Arc;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

/// The payload is not what its kind says.
pub const REFUSED_PAYLOAD: u16 = RpcRefused::FIRST_FREE;
/// The group is not on this node.
pub const REFUSED_GROUP: u16 = RpcRefused::FIRST_FREE + 1;
/// The caller's role may not ask for this.
pub const REFUSED_ROLE: u16 = RpcRefused::FIRST_FREE + 2;
/// The group's queue is full, or its data cannot be read.
pub const REFUSED_NOW: u16 = RpcRefused::FIRST_FREE + 3;

/// The node's internal port.
pub struct NodeService {
    places: Arc<Places>,
    raft: RaftGroups,
    /// Full states that syncers read.
    cuts: Arc<Cuts>,
    /// Everything but Raft, and what is answered where it is read, runs here, so that it never delays a
    /// heartbeat.
    runtime: Handle,
}

impl NodeService {
    /// Serves the groups of this node.
    pub fn new(places: Arc<Places>, raft: RaftGroups, runtime: Handle) -> Arc<NodeService> {
        Arc::new(NodeService { places, raft, cuts: Arc::default(), runtime })
    }

    fn group(&self, group: GroupId) -> Result<Arc<Group>, RpcRefused> {
        self.places.group(group).ok_or_else(|| {
            RpcRefused::new(REFUSED_GROUP, format!("group {group} is not on {}", self.places.node))
        })
    }

    /// Queues forwarded commands at once, in the order of arrival.
    fn exec(&self, payload: &Bytes, reply: ReplyTo) -> Result<(), (ReplyTo, RpcRefused)> {
        let request = match ExecRequest::decode(payload) {
            Ok(request) => request,
            Err(error) => return Err((reply, bad_payload(&error))),
        };
        let group = match self.group(request.group) {
            Ok(group) => group,
            Err(refused) => return Err((reply, refused)),
        };
        let commands = request.commands;
        if commands.iter().all(|command| !command.spec.is_write()) {
            self.runtime.spawn(async move {
                reply.send(Ok(encode_outcomes(&read_here(&group, &commands).await)));
            });
            return Ok(());
        }
        let count = commands.len();
        let (answer, outcomes) = oneshot::channel();
        if group.submit(Work::Exec { commands, answer }).is_err() {
            let refused = vec![Outcome::NotApplied { leader: None }; count];
            reply.send(Ok(encode_outcomes(&refused)));
            return Ok(());
        }
        self.runtime.spawn(async move {
            let outcomes = outcomes.await.unwrap_or_else(|_| vec![Outcome::Unknown; count]);
            reply.send(Ok(encode_outcomes(&outcomes)));
        });
        Ok(())
    }

    /// Queues a transaction, or watches, at once, in the order of arrival.
    fn ask(&self, payload: &Bytes) -> Result<Pending, RpcRefused> {
        let AskRequest { group, ask } = AskRequest::decode(payload).map_err(|e| bad_payload(&e))?;
        let group = self.group(group)?;
        let (answer, outcomes) = oneshot::channel();
        let queued = group.submit(Work::Ask { ask, answer });
        Ok(Box::pin(async move {
            let outcomes = match queued {
                Ok(()) => outcomes.await.unwrap_or_else(|_| vec![Outcome::Unknown]),
                Err(_) => vec![Outcome::NotApplied { leader: None }],
            };
            Ok(encode_outcomes(&outcomes))
        }))
    }

    /// Queues a poll at once.
    fn wait(&self, payload: &Bytes) -> Result<Pending, RpcRefused> {
        let WaitRequest { group, wait } =
            WaitRequest::decode(payload).map_err(|e| bad_payload(&e))?;
        let group = self.group(group)?;
        let (answer, told) = oneshot::channel();
        if group.submit(Work::Wait { wait, answer }).is_err() {
            return Err(RpcRefused::new(REFUSED_NOW, "the group's queue is full: ask again"));
        }
        Ok(Box::pin(async move {
            let told = told.await.unwrap_or_else(|_| Told::NotLeader { leader: group.leader() });
            Ok(told.encode())
        }))
    }

    fn barrier(&self, payload: &Bytes) -> Result<Pending, RpcRefused> {
        let (group, at_ms) = decode_barrier_request(payload).map_err(|e| bad_payload(&e))?;
        let group = self.group(group)?;
        Ok(Box::pin(async move { Ok(encode_barrier(&group.barrier_elsewhere(at_ms).await)) }))
    }

    /// Answers at once: what must wait is asked for alone.
    fn barriers(&self, payload: &Bytes) -> Result<Bytes, RpcRefused> {
        let groups = decode_barriers_request(payload).map_err(|e| bad_payload(&e))?;
        let answer = |id| match self.places.group(id) {
            Some(group) => group.barrier_now(),
            None => Some(Err(None)),
        };
        Ok(encode_barriers(&groups.into_iter().map(answer).collect::<Vec<_>>()))
    }

    fn applied(&self, payload: &Bytes) -> Result<Bytes, RpcRefused> {
        let groups = decode_barriers_request(payload).map_err(|e| bad_payload(&e))?;
        let index = |id| self.places.group(id).map_or(0, |group| group.applied().log_id.index);
        Ok(encode_applied(&groups.into_iter().map(index).collect::<Vec<_>>()))
    }

    /// Queues a batch at once, in the order of arrival.
    fn remote(&self, payload: &Bytes) -> Result<Pending, RpcRefused> {
        let batch = RemoteBatch::decode(payload).map_err(|e| bad_payload(&e))?;
        let group = self.group(batch.target)?;
        let (answer, outcome) = oneshot::channel();
        if group.submit(Work::Remote { batch, answer }).is_err() {
            return Err(RpcRefused::new(REFUSED_NOW, "the group's queue is full: send it again"));
        }
        Ok(Box::pin(
            async move { Ok(outcome.await.unwrap_or_else(|_| group.not_leader()).encode()) },
        ))
    }

    fn cursors(&self, payload: &Bytes) -> Result<Pending, RpcRefused> {
        let request = CursorsRequest::decode(payload).map_err(|e| bad_payload(&e))?;
        let group = self.group(request.group)?;
        Ok(Box::pin(async move {
            if group.barrier().await.is_err() {
                return Ok(group.not_leader::<Vec<LogId>>().encode());
            }
            let cursors = cursor::read_all(&group.rows()).map_err(|e| unreadable(&e))?;
            // A group that comes back in a new life must have the full state first, whatever it had.
            let covers = group.covers(request.origin.cluster).map_err(|e| unreadable(&e))?;
            let position = |source| {
                let cursor = cursors.get(&(request.origin, source)).filter(|_| !covers);
                cursor.map_or_else(Default::default, |cursor| cursor.position)
            };
            let positions = request.source_groups.iter().map(|group| position(*group)).collect();
            Ok(CursorsAnswer::Done(positions).encode())
        }))
    }

    fn floor(&self, payload: &Bytes) -> Result<Pending, RpcRefused> {
        let floor = LinkFloor::decode(payload).map_err(|e| bad_payload(&e))?;
        let group = self.group(floor.group)?;
        Ok(Box::pin(async move {
            let answer: FloorAnswer = group.write_floor(floor).await;
            Ok(answer.encode())
        }))
    }

    fn seed(&self, payload: &Bytes) -> Result<Pending, RpcRefused> {
        let request = SeedRequest::decode(payload).map_err(|e| bad_payload(&e))?;
        let group = self.group(request.group)?;
        Ok(Box::pin(async move {
            if group.barrier().await.is_err() {
                return Ok(group.not_leader::<Seed>().encode());
            }
            let synced = group.synced();
            if !synced.is_on() {
                let reason = format!("sync is not switched on in group {} yet", request.group);
                return Ok(SeedAnswer::Refused { reason }.encode());
            }
            let floors = group.link_floors().map_err(|e| unreadable(&e))?;
            let seed = synced::seed(floors, group.raft.status().purged, synced);
            Ok(SeedAnswer::Done(seed).encode())
        }))
    }

    /// Queues a step at once, in the order of arrival.
    fn merge_step(&self, payload: &Bytes) -> Result<Pending, RpcRefused> {
        let request = StateRequest::decode(payload).map_err(|e| bad_payload(&e))?;
        let group = self.group(request.target)?;
        let (answer, outcome) = oneshot::channel();
        if group.submit(Work::State { request, answer }).is_err() {
            return Err(RpcRefused::new(REFUSED_NOW, "the group's queue is full: send it again"));
        }
        Ok(Box::pin(
            async move { Ok(outcome.await.unwrap_or_else(|_| group.not_leader()).encode()) },
        ))
    }

    fn full_state(&self, payload: &Bytes) -> Result<Pending, RpcRefused> {
        let request = SourceRequest::decode(payload).map_err(|e| bad_payload(&e))?;
        let cuts = Arc::clone(&self.cuts);
        let group = match &request {
            SourceRequest::Cut { group, .. }
            | SourceRequest::CompareStates { group, .. }
            | SourceRequest::CompareKeys { group, .. } => Some(self.group(*group)?),
            _ => None,
        };
        Ok(Box::pin(async move {
            let compares = !matches!(request, SourceRequest::Cut { .. });
            if let Some(group) = group.as_ref().filter(|_| compares)
                && group.barrier().await.is_err()
            {
                return Ok(group.not_leader::<SourceAnswer>().encode());
            }
            let answered = tokio::task::spawn_blocking(move || match (&request, &group) {
                (SourceRequest::Cut { after, keep, peer, mesh, .. }, Some(group)) => {
                    cuts.cut(group, *after, *keep, (*peer, *mesh))
                }
                (_, Some(group)) => source::compare(group, &request),
                (_, None) => cuts.read(&request),
            });
            let answer = match answered.await {
                Ok(Ok(answer)) => Answer::Done(answer),
                Ok(Err(reason)) => Answer::Refused { reason },
                Err(_) => Answer::Refused { reason: "reading failed: see the node's log".into() },
            };
            Ok(answer.encode())
        }))
    }

    fn census(&self, payload: &Bytes) -> Result<Pending, RpcRefused> {
        let group = census::decode_request(payload).map_err(|e| bad_payload(&e))?;
        let group = self.group(group)?;
        Ok(Box::pin(async move {
            let counted = tokio::task::spawn_blocking(move || census::census(&group)).await;
            let counted = counted.unwrap_or_else(|error| Err(std::io::Error::other(error)));
            Ok(Answer::Done(counted.map_err(|e| unreadable(&e))?).encode())
        }))
    }

    fn digest(&self, payload: &Bytes) -> Result<Pending, RpcRefused> {
        let call = DigestCall::decode(payload).map_err(|e| bad_payload(&e))?;
        let group = self.group(call.group())?;
        Ok(Box::pin(async move {
            let answer: Answer<DigestAnswer> = match &call {
                DigestCall::Slots(request) => group.digest(request).await,
                DigestCall::Keys(request) => {
                    let answer: Answer<KeyPage> = group.digest_keys(request).await;
                    return Ok(answer.encode());
                }
                DigestCall::Look(request) => return Ok(group.look(*request).await.encode()),
                DigestCall::Replica(_) => {
                    let digested =
                        tokio::task::spawn_blocking(move || group.digest_replica()).await;
                    let digested = digested.unwrap_or_else(|e| Err(std::io::Error::other(e)));
                    return Ok(Answer::Done(digested.map_err(|e| unreadable(&e))?).encode());
                }
            };
            Ok(answer.encode())
        }))
    }
}

type Pending = futures::future::BoxFuture<'static, Result<Bytes, RpcRefused>>;

fn bad_payload(error: &dyn std::fmt::Display) -> RpcRefused {
    RpcRefused::new(REFUSED_PAYLOAD, format!("bad payload: {error}"))
}

fn unreadable(error: &std::io::Error) -> RpcRefused {
    tracing::error!(%error, "cannot read this node's data");
    RpcRefused::new(REFUSED_NOW, format!("this node cannot read its data: {error}"))
}

/// Reads at this replica, if it leads.
async fn read_here(group: &Group, commands: &[crate::command::Command]) -> Vec<Outcome> {
    let not_applied = |leader| vec![Outcome::NotApplied { leader }; commands.len()];
    let mut barrier = match group.barrier().await {
        Ok(barrier) => barrier,
        Err(leader) => return not_applied(leader),
    };
    loop {
        match group.read(commands, barrier).await {
            Ok(replies) => return replies.into_iter().map(Outcome::Done).collect(),
            Err(ReadError::NeedsTick(at_ms)) => match group.tick(at_ms).await {
                Ok(behind) => barrier = behind,
                Err(leader) => return not_applied(leader),
            },
            Err(error) => {
                tracing::warn!(%error, "a forwarded read was not answered");
                return not_applied(None);
            }
        }
    }
}

impl Service for NodeService {
    fn call(&self, peer: &Identity, kind: u16, payload: Bytes, reply: ReplyTo) {
        use kinds::{
            APPLIED, ASK, CENSUS, CURSORS, DIGEST, EXEC, FULL_STATE, LINK_FLOOR, LINK_SEED,
            MERGE_STEP, RAFT_APPEND, RAFT_PARKED, READ_INDEX, READ_INDEXES, REMOTE_BATCH, TICK,
            WAIT,
        };
        let allowed = match kind {
            RAFT_APPEND..=RAFT_PARKED
            | EXEC
            | READ_INDEX
            | READ_INDEXES
            | TICK
            | ASK
            | WAIT
            | APPLIED => peer.role == Role::Node,
            REMOTE_BATCH | CURSORS | LINK_FLOOR | LINK_SEED | MERGE_STEP | FULL_STATE => {
                peer.role == Role::Syncer
            }
            DIGEST | CENSUS => peer.role != Role::Node,
            _ => true,
        };
        if !allowed {
            let line = format!("{peer} may not send requests of kind {kind}");
            return reply.send(Err(RpcRefused::new(REFUSED_ROLE, line)));
        }
        let pending = match kind {
            RAFT_APPEND..=RAFT_PARKED => {
                return self.raft.handle(kind, &payload, reply);
            }
            EXEC => {
                if let Err((reply, refused)) = self.exec(&payload, reply) {
                    reply.send(Err(refused));
                }
                return;
            }
            READ_INDEXES => return reply.send(self.barriers(&payload)),
            APPLIED => return reply.send(self.applied(&payload)),
            READ_INDEX | TICK => self.barrier(&payload),
            ASK => self.ask(&payload),
            WAIT => self.wait(&payload),
            REMOTE_BATCH => self.remote(&payload),
            CURSORS => self.cursors(&payload),
            LINK_FLOOR => self.floor(&payload),
            LINK_SEED => self.seed(&payload),
            DIGEST => self.digest(&payload),
            CENSUS => self.census(&payload),
            MERGE_STEP => self.merge_step(&payload),
            FULL_STATE => self.full_state(&payload),
            _ => Err(RpcRefused::new(
                RpcRefused::UNKNOWN_KIND,
                format!("a node knows no request of kind {kind}: upgrade it"),
            )),
        };
        match pending {
            Ok(pending) => {
                self.runtime.spawn(async move { reply.send(pending.await) });
            }
            Err(refused) => reply.send(Err(refused)),
        }
    }
}

/// Who may open the internal port of a node of this cluster.
pub fn allows(cluster: flotilla_topology::ids::ClusterId) -> impl Fn(&Identity) -> bool {
    move |peer| peer.cluster == cluster
}
