//! The sending side of a merge: cuts the group on one of its replicas, compares, sends what
//! differs.

use super::wire::{MergeMessage, PARTS_MAX, Part};
use crate::batch::Message;
use crate::leaders::Leaders;
use crate::link::LinkError;
use crate::link::dial::Link;
use crate::link::stream::Wire;
use crate::outbound::Route;
use crate::receiver::Failure;
use crate::stripe::Width;
use bytes::Bytes;
use flotilla_node::group::remote::LinkFloor;
use flotilla_node::group::rows::{DifferentSlot, Resume, SlotState, Stretch};
use flotilla_node::group::source::{
    KEYS_MAX, ROWS_BYTES_MAX, ROWS_MAX, SourceAnswer, SourceRequest,
};
use flotilla_node::group::state::StateCut;
use flotilla_node::transport::{Class, kinds};
use flotilla_topology::ids::{ClusterId, LogId};
use flotilla_topology::slot::{Slot, SlotRange};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

/// One question to a replica: digests of a slot range are read from disk.
const ASK_DEADLINE: Duration = Duration::from_secs(20);
/// The other side must answer within this: its groups may have to elect leaders first.
const ANSWER_DEADLINE: Duration = Duration::from_secs(60);
/// Chunks under way: each is half a mebibyte at most.
const CHUNKS_MAX: usize = 8;
/// How often a replica is looked for that can be cut, and the wait between.
const CUT_TRIES: usize = 20;
const CUT_PAUSE: Duration = Duration::from_millis(250);

/// How far a merge is.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct MergeProgress {
    /// Share of the slots that are done, 0 to 1.
    pub done: f64,
    /// Rows that had to travel.
    pub rows: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Merges the state of a route's group into its peer, and has the group remember that this request is
/// carried out. The error says in one line why it ended; trying again is always right.
pub async fn run(
    route: Route,
    link: Arc<Link>,
    leaders: Leaders,
    after: LogId,
    request: u64,
    progress: watch::Sender<MergeProgress>,
) -> Result<(), String> {
    let mut after = after;
    for _ in 0..CUT_TRIES {
        let (node, cut, state) = cut(&leaders, &route, after, true).await?;
        let floor = floor_of(&route, &state);
        // The log behind the cut must stay until the peer has come past it.
        pin(&leaders, &floor).await?;
        let wire = open(&link, &route).await?;
        let (route, leaders, node, answers) = (&route, &leaders, &node, VecDeque::new());
        let sending = Sending {
            route,
            leaders,
            node,
            cut,
            wire,
            under_way: 0,
            answers,
            covers: false,
            parts: Vec::new(),
            parts_bytes: 0,
        };
        let ended = sending.run(state, &progress).await;
        let drop = SourceRequest::Drop { cut };
        let _ = ask(leaders, node, drop).await; // it would be dropped by itself in a minute
        match ended {
            Ok(()) => return pin(leaders, &LinkFloor { merged: Some(request), ..floor }).await,
            Err(Ended::Older(cursor)) => after = cursor,
            Err(Ended::Failed(reason)) => return Err(reason),
        }
        sleep(CUT_PAUSE).await;
    }
    Err("the peer is always ahead of what can be cut".into())
}

/// What the group remembers of a peer that has the cut.
fn floor_of(route: &Route, cut: &StateCut) -> LinkFloor {
    LinkFloor {
        group: route.group,
        peer: route.peer,
        position: cut.position,
        fence: cut.fence,
        closed: cut.closed,
        vector: cut.vector.clone(),
        merged: None,
    }
}

async fn pin(leaders: &Leaders, floor: &LinkFloor) -> Result<(), String> {
    let (group, payload) = (floor.group, floor.encode());
    leaders.ask_until_answered::<()>(group, kinds::LINK_FLOOR, payload, ASK_DEADLINE).await
}

/// Cuts a group on a replica that does not lead, if one has come far enough.
pub async fn cut(
    leaders: &Leaders,
    route: &Route,
    after: LogId,
    keep: bool,
) -> Result<(String, u64, StateCut), String> {
    let mut last = "its group is not in the map".to_owned();
    for _ in 0..CUT_TRIES {
        for node in leaders.replicas(route.group) {
            let peer = if keep { route.peer } else { ClusterId(0) };
            let mesh = leaders.map().filter(|_| keep).map_or(0, |map| map.mesh_version);
            let request = SourceRequest::Cut { group: route.group, after, keep, peer, mesh };
            match ask(leaders, &node, request).await {
                Ok(SourceAnswer::Cut { cut, state }) => return Ok((node, cut, state)),
                Ok(other) => last = format!("{node} answers a cut with {other:?}"),
                Err(reason) => last = format!("{node}: {reason}"),
            }
        }
        sleep(CUT_PAUSE).await;
    }
    Err(format!("group {} cannot be cut: {last}", route.group))
}

async fn ask(
    leaders: &Leaders,
    node: &str,
    request: SourceRequest,
) -> Result<SourceAnswer, String> {
    let payload = request.encode();
    let asked = leaders.ask_node(node, Class::Forward, kinds::FULL_STATE, payload, ASK_DEADLINE);
    asked.await.map_err(|failure| match failure {
        Failure::Again => "no answer".into(),
        Failure::Refused(reason) => reason,
    })
}

async fn open(link: &Link, route: &Route) -> Result<Wire, String> {
    let (send, receive) = link.connection.open_bi().await.map_err(|error| error.to_string())?;
    let peer = route.peer_name.clone();
    let sent = metrics::counter!("flotilla_merge_sent_bytes_total", "peer" => peer);
    Ok(Wire::start(send, receive, move |bytes| sent.increment(bytes as u64)))
}

enum Ended {
    Older(LogId),
    Failed(String),
}

impl From<LinkError> for Ended {
    fn from(error: LinkError) -> Ended {
        Ended::Failed(error.to_string())
    }
}

struct Sending<'a> {
    route: &'a Route,
    leaders: &'a Leaders,
    node: &'a str,
    cut: u64,
    wire: Wire,
    /// Chunks that are not merged yet.
    under_way: usize,
    /// Answers that came while something else was waited for.
    answers: VecDeque<MergeMessage>,
    /// The peer comes back from a fence.
    covers: bool,
    /// Rows that wait for company.
    parts: Vec<Part>,
    parts_bytes: usize,
}

impl Sending<'_> {
    fn say(&self, message: MergeMessage) {
        self.wire.send(Message::Merge(message));
    }

    /// The next message; what it says of chunks is counted here.
    async fn next(&mut self) -> Result<Option<MergeMessage>, Ended> {
        let heard = timeout(ANSWER_DEADLINE, self.wire.next()).await;
        let silent = || Ended::Failed(format!("no answer for {ANSWER_DEADLINE:?}"));
        match heard.map_err(|_| silent())?? {
            Message::Merge(MergeMessage::Merged) if self.under_way > 0 => self.under_way -= 1,
            Message::Merge(MergeMessage::Parked { .. }) => {}
            Message::Merge(MergeMessage::Older { cursor }) => return Err(Ended::Older(cursor)),
            Message::Merge(message) => return Ok(Some(message)),
            Message::Refused { reason } => return Err(Ended::Failed(reason)),
            other => return Err(Ended::Failed(format!("not for a merge: {other:?}"))),
        }
        Ok(None)
    }

    /// The answer to the oldest question.
    async fn hear(&mut self) -> Result<MergeMessage, Ended> {
        loop {
            if let Some(answer) = self.answers.pop_front() {
                return Ok(answer);
            }
            let heard = self.next().await?;
            self.answers.extend(heard);
        }
    }

    /// Waits until few enough chunks are under way. Answers to questions that were asked before
    /// come in between: no more than there are slots in a stripe.
    async fn room(&mut self, most: usize) -> Result<(), Ended> {
        while self.under_way > most {
            let heard = self.next().await?;
            self.answers.extend(heard);
        }
        Ok(())
    }

    async fn run(
        mut self,
        state: StateCut,
        progress: &watch::Sender<MergeProgress>,
    ) -> Result<(), Ended> {
        let slots = state.slots;
        // Chosen anew for each attempt; nothing depends on it but that no two are alike.
        let id = rand::random();
        self.say(MergeMessage::Open { namespace: self.route.namespace.clone(), id, cut: state });
        match self.hear().await? {
            MergeMessage::Opened { covers } => self.covers = covers,
            other => return Err(Ended::Failed(format!("an answer to an opening: {other:?}"))),
        }
        let total = f64::from(slots.last.0 - slots.first.0) + 1.0;
        let (mut first, mut width) = (slots.first.0, Width::default());
        while first <= slots.last.0 {
            let last = slots.last.0.min(first.saturating_add(width.slots() - 1));
            let stripe = SlotRange { first: Slot(first), last: Slot(last) };
            let rows = self.stripe(stripe, progress).await?;
            width = width.after(rows);
            progress.send_modify(|now| now.done = f64::from(last - slots.first.0 + 1) / total);
            first = last + 1;
        }
        self.room(0).await?;
        self.say(MergeMessage::Close);
        match self.hear().await? {
            MergeMessage::Closed => Ok(()),
            other => Err(Ended::Failed(format!("an answer to the end: {other:?}"))),
        }
    }

    async fn source(&self, request: SourceRequest) -> Result<SourceAnswer, Ended> {
        ask(self.leaders, self.node, request).await.map_err(Ended::Failed)
    }

    /// Compares some slots and sends what differs; how many rows they hold.
    async fn stripe(
        &mut self,
        slots: SlotRange,
        progress: &watch::Sender<MergeProgress>,
    ) -> Result<u64, Ended> {
        let states: Vec<SlotState> =
            match self.source(SourceRequest::Slots { cut: self.cut, slots }).await? {
                SourceAnswer::Slots(states) => states,
                other => return Err(Ended::Failed(format!("an answer to slots: {other:?}"))),
            };
        let states = if self.covers { with_empty(slots, &states) } else { states };
        if states.is_empty() {
            return Ok(0);
        }
        let rows = states.iter().map(|state| state.rows).sum();
        self.say(MergeMessage::Slots(states));
        let different = match self.hear().await? {
            MergeMessage::DifferentSlots(slots) => slots,
            other => return Err(Ended::Failed(format!("an answer to slots: {other:?}"))),
        };
        if self.covers {
            for DifferentSlot { slot, .. } in different {
                self.rows(slot, None, progress).await?;
            }
            return Ok(rows);
        }
        // All questions first: one round trip for the whole stripe.
        let mut asked = Vec::with_capacity(different.len());
        for DifferentSlot { slot, empty } in different {
            if empty {
                asked.push((slot, false));
                continue;
            }
            let states = match self.source(SourceRequest::Keys { cut: self.cut, slot }).await? {
                SourceAnswer::Keys(states) => states,
                other => return Err(Ended::Failed(format!("an answer to keys: {other:?}"))),
            };
            let compares = states.len() <= KEYS_MAX;
            if compares {
                self.say(MergeMessage::Keys { slot, states });
            }
            asked.push((slot, compares));
        }
        for (slot, compares) in asked {
            let keys = if compares { Some(self.different_keys(slot).await?) } else { None };
            self.rows(slot, keys, progress).await?;
        }
        self.flush().await?;
        Ok(rows)
    }

    /// Sends a chunk once few enough are under way.
    async fn chunk(&mut self, chunk: MergeMessage) -> Result<(), Ended> {
        self.room(CHUNKS_MAX - 1).await?;
        self.under_way += 1;
        self.say(chunk);
        Ok(())
    }

    /// Rows of slots that hold few travel together: each chunk is an entry, and a sync of disks.
    async fn collect(&mut self, part: Part) -> Result<(), Ended> {
        let size = |part: &Part| part.effects.iter().map(Bytes::len).sum::<usize>();
        let rows = |parts: &[Part]| parts.iter().map(|part| part.effects.len()).sum::<usize>();
        let more = rows(&self.parts) + part.effects.len();
        if more > ROWS_MAX || self.parts_bytes + size(&part) > ROWS_BYTES_MAX {
            self.flush().await?;
        }
        self.parts_bytes += size(&part);
        self.parts.push(part);
        if self.parts.len() == PARTS_MAX {
            self.flush().await?;
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), Ended> {
        let parts = std::mem::take(&mut self.parts);
        self.parts_bytes = 0;
        if parts.is_empty() { Ok(()) } else { self.chunk(MergeMessage::Chunk(parts)).await }
    }

    async fn different_keys(&mut self, asked: Slot) -> Result<Vec<u64>, Ended> {
        match self.hear().await? {
            MergeMessage::DifferentKeys { slot, keys } if slot == asked => Ok(keys),
            other => Err(Ended::Failed(format!("an answer to keys of {asked}: {other:?}"))),
        }
    }

    async fn rows(
        &mut self,
        slot: Slot,
        keys: Option<Vec<u64>>,
        progress: &watch::Sender<MergeProgress>,
    ) -> Result<(), Ended> {
        let mut from: Option<Resume> = None;
        loop {
            let (keys, cut, begin) = (keys.clone(), self.cut, from.clone());
            let request = SourceRequest::Rows { cut, slot, keys, from };
            let (effects, next) = match self.source(request).await? {
                SourceAnswer::Rows { effects, next } => (effects, next),
                other => return Err(Ended::Failed(format!("an answer to rows: {other:?}"))),
            };
            if !effects.is_empty() || self.covers {
                progress.send_modify(|now| {
                    now.rows += effects.len() as u64;
                    now.bytes += effects.iter().map(|e: &Bytes| e.len() as u64).sum::<u64>();
                });
                if self.covers {
                    let stretch = stretch(slot, begin, &next);
                    self.chunk(MergeMessage::Cover { slot, stretch, effects }).await?;
                } else {
                    self.collect(Part { slot, effects }).await?;
                }
            }
            match next {
                Some(next) => from = Some(next),
                None => return Ok(()),
            }
        }
    }
}

/// What an answer with rows of a slot covers.
fn stretch(slot: Slot, from: Option<Resume>, next: &Option<Resume>) -> Stretch {
    let whole = Stretch::of_slot(slot);
    Stretch { from: from.unwrap_or(whole.from), to: next.clone().unwrap_or(whole.to) }
}

/// The states of all slots of a range, given those that hold anything.
fn with_empty(slots: SlotRange, states: &[SlotState]) -> Vec<SlotState> {
    let all = (slots.first.0..=slots.last.0).map(Slot);
    let mut states = states.iter().copied().peekable();
    all.map(|slot| {
        let held = states.next_if(|state| state.slot == slot);
        held.unwrap_or(SlotState { slot, sum: 0, rows: 0 })
    })
    .collect()
}
