//! The sending side of a merge: cuts the group on one of its replicas, compares, sends what
//! differs.

use super::wire::MergeMessage;
use crate::batch::Message;
use crate::leaders::Leaders;
use crate::link::LinkError;
use crate::link::dial::Link;
use crate::link::stream::Wire;
use crate::outbound::Route;
use crate::receiver::Failure;
use flotilla_node::group::compare::{Different, States, StretchKeys, StretchState, Wanted};
use flotilla_node::group::remote::LinkFloor;
use flotilla_node::group::rows::{Resume, Stretch, StretchRows};
use flotilla_node::group::source::{PARTS_MAX, ROWS_MAX, SourceAnswer, SourceRequest};
use flotilla_node::group::state::StateCut;
use flotilla_node::transport::{Class, kinds};
use flotilla_topology::ids::{ClusterId, LogId};
use flotilla_topology::slot::{Slot, SlotRange};
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

/// One question to a replica, which reads some tens of thousands of rows from disk.
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
        let kept = KeptCut { leaders: leaders.clone(), node, cut };
        let floor = floor_of(&route, &state);
        // The log behind the cut must stay until the peer has come past it.
        pin(&leaders, &floor).await?;
        let wire = open(&link, &route).await?;
        let (route, progress) = (&route, &progress);
        let sending = Sending { route, kept, wire, progress, under_way: 0, covers: false };
        match sending.run(state).await {
            Ok(()) => return pin(&leaders, &LinkFloor { merged: Some(request), ..floor }).await,
            Err(Ended::Older(cursor)) => after = cursor,
            Err(Ended::Failed(reason)) => return Err(reason),
        }
        sleep(CUT_PAUSE).await;
    }
    Err("the peer is always ahead of what can be cut".into())
}

/// A cut that a replica keeps for this merge. It is dropped there however the merge ends: a replica
/// keeps few at a time, and by itself it would forget this one after a minute.
struct KeptCut {
    leaders: Leaders,
    node: String,
    cut: u64,
}

impl KeptCut {
    async fn ask(&self, request: SourceRequest) -> Result<SourceAnswer, String> {
        ask(&self.leaders, &self.node, request).await
    }
}

impl Drop for KeptCut {
    fn drop(&mut self) {
        let Ok(runtime) = Handle::try_current() else { return };
        let (leaders, node, cut) = (self.leaders.clone(), self.node.clone(), self.cut);
        runtime.spawn(async move { ask(&leaders, &node, SourceRequest::Drop { cut }).await });
    }
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
    kept: KeptCut,
    wire: Wire,
    progress: &'a watch::Sender<MergeProgress>,
    /// Chunks that are not merged yet.
    under_way: usize,
    /// The peer comes back from a fence.
    covers: bool,
}

fn unexpected(answer: impl std::fmt::Debug) -> Ended {
    Ended::Failed(super::unexpected(answer))
}

impl Sending<'_> {
    fn say(&self, message: MergeMessage) {
        self.wire.send(Message::Merge(message));
    }

    /// The next message, if it says more than that a chunk is merged.
    async fn next(&mut self) -> Result<Option<MergeMessage>, Ended> {
        let heard = timeout(ANSWER_DEADLINE, self.wire.next()).await;
        let silent = || Ended::Failed(format!("no answer for {ANSWER_DEADLINE:?}"));
        match heard.map_err(|_| silent())?? {
            Message::Merge(MergeMessage::Merged) if self.under_way > 0 => self.under_way -= 1,
            Message::Merge(MergeMessage::Parked { .. }) => {}
            Message::Merge(MergeMessage::Older { cursor }) => return Err(Ended::Older(cursor)),
            Message::Merge(message) => return Ok(Some(message)),
            Message::Refused { reason } => return Err(Ended::Failed(reason)),
            other => return Err(unexpected(other)),
        }
        Ok(None)
    }

    /// Asks, and hears the answer: there is one question at a time.
    async fn ask(&mut self, question: MergeMessage) -> Result<MergeMessage, Ended> {
        self.say(question);
        loop {
            if let Some(answer) = self.next().await? {
                return Ok(answer);
            }
        }
    }

    /// Waits until few enough chunks are under way.
    async fn room(&mut self, most: usize) -> Result<(), Ended> {
        while self.under_way > most {
            if let Some(message) = self.next().await? {
                return Err(unexpected(message));
            }
        }
        Ok(())
    }

    async fn source(&self, request: SourceRequest) -> Result<SourceAnswer, Ended> {
        self.kept.ask(request).await.map_err(Ended::Failed)
    }

    async fn run(mut self, state: StateCut) -> Result<(), Ended> {
        let slots = state.slots;
        // Chosen anew for each attempt; nothing depends on it but that no two are alike.
        let id = rand::random();
        let namespace = self.route.namespace.clone();
        match self.ask(MergeMessage::Open { namespace, id, cut: state }).await? {
            MergeMessage::Opened { covers } => self.covers = covers,
            other => return Err(unexpected(other)),
        }
        let mut done = 0;
        for part in self.parts(slots) {
            let mut next = Some(Stretch::of_slot(part.first));
            while let Some(at) = next {
                let here = at.slot.0.saturating_sub(part.first.0);
                let share = f64::from(done + here) / f64::from(slots.last.0 - slots.first.0 + 1);
                self.progress.send_modify(|now| now.done = share);
                next = self.step(SlotRange { first: at.slot, last: part.last }, at.from).await?;
            }
            done += part.last.0 - part.first.0 + 1;
        }
        self.room(0).await?;
        match self.ask(MergeMessage::Close).await? {
            MergeMessage::Closed => Ok(()),
            other => Err(unexpected(other)),
        }
    }

    /// The slots in the order in which they are merged. Each cluster begins elsewhere: when several
    /// merge into one at once, each finds there what the others have brought.
    fn parts(&self, slots: SlotRange) -> Vec<SlotRange> {
        let map = self.kept.leaders.map();
        let others = map.iter().flat_map(|map| &map.peers).map(|peer| peer.id);
        let mut sources: Vec<ClusterId> = others.filter(|id| *id != self.route.peer).collect();
        sources.push(self.route.origin.cluster);
        sources.sort_unstable();
        let rank = sources.iter().position(|id| *id == self.route.origin.cluster);
        in_turn(slots, rank.unwrap_or(0), sources.len())
    }

    /// Compares as many rows as are read in one step, and sends what differs; what comes next.
    async fn step(
        &mut self,
        slots: SlotRange,
        from: Option<Resume>,
    ) -> Result<Option<Stretch>, Ended> {
        let (cut, all) = (self.kept.cut, self.covers);
        let States { states, next } =
            match self.source(SourceRequest::States { cut, slots, from, all }).await? {
                SourceAnswer::States(states) => states,
                other => return Err(unexpected(other)),
            };
        if states.is_empty() {
            return Ok(next);
        }
        let stretches: Vec<Stretch> = states.iter().map(|state| state.stretch.clone()).collect();
        let wanted = self.wanted(states, &stretches).await?;
        self.rows(wanted).await?;
        Ok(next)
    }

    /// What differs: all rows of stretches that the peer has nothing of, or covers; of others those of
    /// keys that differ.
    async fn wanted(
        &mut self,
        states: Vec<StretchState>,
        stretches: &[Stretch],
    ) -> Result<Vec<Wanted>, Ended> {
        let different = match self.ask(MergeMessage::States(states)).await? {
            MergeMessage::Different(different) => different,
            other => return Err(unexpected(other)),
        };
        let (mut wanted, mut compared) = (Vec::new(), Vec::new());
        for Different { at, empty } in different {
            let stretch = stretches.get(at).cloned();
            let stretch = stretch.ok_or_else(|| unexpected("a stretch that was not told"))?;
            match empty || self.covers {
                true => wanted.push(Wanted::all(stretch)),
                false => compared.push(stretch),
            }
        }
        let mut compared = &compared[..];
        while !compared.is_empty() {
            let keys = self.keys(compared).await?;
            compared = &compared[keys.len()..];
            match self.ask(MergeMessage::Keys(keys)).await? {
                MergeMessage::Wanted(some) => wanted.extend(some),
                other => return Err(unexpected(other)),
            }
        }
        Ok(wanted)
    }

    /// Keys of the first of some stretches, of one at least.
    async fn keys(&self, stretches: &[Stretch]) -> Result<Vec<StretchKeys>, Ended> {
        let request = SourceRequest::Keys { cut: self.kept.cut, stretches: stretches.to_vec() };
        match self.source(request).await? {
            SourceAnswer::Keys(keys) if (1..=stretches.len()).contains(&keys.len()) => Ok(keys),
            other => Err(unexpected(other)),
        }
    }

    /// Reads and sends rows, answer by answer.
    async fn rows(&mut self, mut wanted: Vec<Wanted>) -> Result<(), Ended> {
        wanted.reverse(); // the next is the last
        while !wanted.is_empty() {
            let request = SourceRequest::Rows { cut: self.kept.cut, wanted: few(&wanted) };
            let rows = match self.source(request).await? {
                SourceAnswer::Rows(rows) if (1..=wanted.len()).contains(&rows.len()) => rows,
                other => return Err(unexpected(other)),
            };
            let left = wanted.split_off(wanted.len() - rows.len());
            if let (Some(mut want), Some(last)) = (left.into_iter().next(), rows.last())
                && want.stretch.to != last.stretch.to
            {
                want.stretch.from = last.stretch.to.clone();
                wanted.push(want);
            }
            self.chunk(rows).await?;
        }
        Ok(())
    }

    /// Sends rows once few enough chunks are under way. Each is an entry there, and a sync of disks.
    async fn chunk(&mut self, rows: Vec<StretchRows>) -> Result<(), Ended> {
        let effects = rows.iter().flat_map(|one| &one.effects);
        let (count, bytes) =
            effects.fold((0, 0), |(count, bytes), effect| (count + 1, bytes + effect.len() as u64));
        if count == 0 && !self.covers {
            return Ok(());
        }
        self.progress.send_modify(|now| {
            now.rows += count;
            now.bytes += bytes;
        });
        self.room(CHUNKS_MAX - 1).await?;
        self.under_way += 1;
        self.say(MergeMessage::Rows(rows));
        Ok(())
    }
}

/// Slots from the beginning of the part `rank` of `parts` on, and then those before it.
fn in_turn(slots: SlotRange, rank: usize, parts: usize) -> Vec<SlotRange> {
    let total = usize::from(slots.last.0 - slots.first.0) + 1;
    let begin = slots.first.0 + (total * rank / parts) as u16;
    if begin == slots.first.0 {
        return vec![slots];
    }
    vec![
        SlotRange { first: Slot(begin), last: slots.last },
        SlotRange { first: slots.first, last: Slot(begin - 1) },
    ]
}

/// The next of what is wanted, which stands last, and no more than an answer can hold.
fn few(wanted: &[Wanted]) -> Vec<Wanted> {
    let mut keys = 0;
    let next = wanted.iter().rev().take(PARTS_MAX).take_while(|want| {
        let fits = keys < ROWS_MAX;
        keys += want.keys.as_ref().map_or(0, Vec::len);
        fits
    });
    next.cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_source_begins_elsewhere_and_comes_to_all_slots() {
        for (first, last) in [(0, 16383), (5, 5), (7, 9), (8192, 12287)] {
            let slots = SlotRange { first: Slot(first), last: Slot(last) };
            for sources in 1..5 {
                let mut begins = Vec::new();
                for rank in 0..sources {
                    let parts = in_turn(slots, rank, sources);
                    begins.push(parts[0].first);
                    let all = parts.iter().flat_map(|part| part.first.0..=part.last.0);
                    let mut all: Vec<u16> = all.collect();
                    all.sort_unstable();
                    assert_eq!(all, (first..=last).collect::<Vec<_>>());
                }
                begins.dedup();
                let different = sources.min(usize::from(last - first) + 1);
                assert_eq!(begins.len(), different);
            }
        }
    }

    #[test]
    fn what_is_asked_for_at_once_is_bounded() {
        let stretch = || Stretch::of_slot(Slot(1));
        let of = |keys: usize| Wanted { stretch: stretch(), keys: Some(vec![7; keys]) };
        assert_eq!(few(&[of(1), of(1), of(5000)]).len(), 1, "a large one alone");
        assert_eq!(few(&[of(5000), of(1), of(1)]).len(), 3, "and the last one begun is finished");
        assert_eq!(few(&vec![Wanted::all(stretch()); 2000]).len(), PARTS_MAX);
    }
}
