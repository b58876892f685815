//! Drives one [`Receiver`]: takes a group's stream of another cluster, splits it to the groups of
//! this one that own its slots, and answers the sender.

use crate::batch::{Batch, Message};
use crate::leaders::{Leaders, MapWatch};
use crate::link::LinkError;
use crate::link::accept::Opened;
use crate::link::stream::Wire;
use crate::mesh::Mesh;
use crate::receiver::{Action, Event, Failure, Receiver};
use flotilla_node::clock;
use flotilla_node::group::remote::{CursorsRequest, RemoteBatch, Verdict};
use flotilla_node::transport::{Class, kinds};
use flotilla_topology::api::ClusterMap;
use flotilla_topology::ids::{GroupId, LogId, Origin};
use flotilla_topology::slot::SlotRange;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::time::sleep_until;

/// Bytes of one stream that wait for leaders; above it the stream is not read, and QUIC holds back
/// the sender.
pub const PENDING_BYTES_MAX: usize = 32 << 20;
/// How often a stream looks whether the process has room again.
const ROOM_LOOK: Duration = Duration::from_millis(20);
/// A leader's answer to a sub-batch is waited for so long; then it is sent again.
const BATCH_DEADLINE: Duration = Duration::from_secs(5);
/// A leader's answer to a question for a cursor is waited for so long.
const CURSOR_DEADLINE: Duration = Duration::from_secs(2);
/// Nothing has to be looked at more often than this when nothing happens.
const IDLE_LOOK: Duration = Duration::from_secs(1);

/// What all streams of the process may hold for leaders together.
#[derive(Clone)]
pub struct Budget {
    used: Arc<AtomicUsize>,
    limit: usize,
}

impl Budget {
    /// Of so many bytes.
    pub fn new(limit: usize) -> Budget {
        Budget { used: Arc::default(), limit }
    }

    fn has_room(&self) -> bool {
        self.used.load(Ordering::Relaxed) < self.limit
    }
}

/// What one stream has of it; given back when the stream ends, however it ends.
struct Share {
    budget: Budget,
    bytes: usize,
}

impl Share {
    fn hold(&mut self, bytes: usize) {
        self.budget.used.fetch_add(bytes, Ordering::Relaxed);
        self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
        self.bytes = bytes;
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.hold(0);
    }
}

/// The groups of this cluster that own slots of a group of another cluster, by the namespace's
/// name. Refused when some slots have no owner: their effects would be lost.
fn targets(
    map: &ClusterMap,
    namespace: &str,
    slots: SlotRange,
) -> Result<Vec<(GroupId, SlotRange)>, String> {
    let info = map.namespaces.iter().find(|info| info.spec.name == namespace);
    let info = info.ok_or_else(|| format!("no namespace `{namespace}` here: create it first"))?;
    if !info.spec.synced {
        return Err(format!(
            "namespace `{namespace}` is not synced here: `flotilla namespace sync {namespace}` there"
        ));
    }
    let mine = |group: &&flotilla_topology::api::GroupInfo| {
        group.namespace == info.id && group.slots.intersects(&slots)
    };
    let mut found: Vec<_> =
        map.groups.iter().filter(mine).map(|group| (group.id, group.slots)).collect();
    found.sort_by_key(|(_, slots)| slots.first);
    let mut next = u32::from(slots.first.0);
    for (_, owned) in &found {
        if u32::from(owned.first.0) > next {
            break;
        }
        next = next.max(u32::from(owned.last.0) + 1);
    }
    if next <= u32::from(slots.last.0) {
        return Err(format!("slot {next} of namespace `{namespace}` has no group here yet"));
    }
    Ok(found)
}

/// As [`targets`], by the map of now.
pub fn owners(
    map: &MapWatch,
    namespace: &str,
    slots: SlotRange,
) -> Result<Vec<(GroupId, SlotRange)>, String> {
    let map = map.borrow();
    targets(map.as_ref().ok_or("this syncer has no map yet")?, namespace, slots)
}

/// The groups of this cluster that take a group of another one, or why they do not.
pub async fn admit(
    map: &MapWatch,
    leaders: &Leaders,
    mesh: &Mesh,
    (namespace, slots): (&str, SlotRange),
    source: (Origin, GroupId),
) -> Result<Vec<(GroupId, SlotRange)>, String> {
    let found = owners(map, namespace, slots)?;
    match mesh.refuses(leaders, source, &found).await {
        Some(reason) => Err(reason),
        None => Ok(found),
    }
}

/// Serves a stream until it ends. Two streams of one group may be at work at once (a sender that
/// came back before we noticed that it was gone); leaders skip what they have.
pub async fn run(opened: Opened, leaders: Leaders, map: MapWatch, mesh: Mesh, budget: Budget) {
    let source = (opened.origin, opened.group);
    let admitted = admit(&map, &leaders, &mesh, (&opened.namespace, opened.slots), source).await;
    let targets = match admitted {
        Ok(targets) => targets,
        Err(reason) => {
            let (from, group) = (&opened.from, opened.group);
            tracing::info!(%from, source = %group, %reason, "refuses a stream");
            return opened.wire.close_with(Message::Refused { reason });
        }
    };
    let (answers, queue) = mpsc::unbounded_channel();
    let (source, namespace) = ((opened.origin, opened.group, opened.slots), opened.namespace);
    let (wire, share) = (opened.wire, Share { budget, bytes: 0 });
    let inbound = Inbound { source, namespace, targets, wire, leaders, answers, share };
    inbound.run(queue, map).await;
}

struct Inbound {
    source: (Origin, GroupId, SlotRange),
    namespace: String,
    targets: Vec<(GroupId, SlotRange)>,
    wire: Wire,
    leaders: Leaders,
    /// Bounded by what lanes have under way.
    answers: mpsc::UnboundedSender<Event>,
    share: Share,
}

impl Inbound {
    async fn run(mut self, mut answers: mpsc::UnboundedReceiver<Event>, mut map: MapWatch) {
        let mut actions = Vec::new();
        let mut receiver = Receiver::new(&self.targets, &mut actions);
        loop {
            for action in actions.drain(..) {
                if let Some(refusal) = self.carry_out(action) {
                    return self.refuse(refusal);
                }
            }
            self.share.hold(receiver.bytes());
            let room = receiver.bytes() < PENDING_BYTES_MAX && self.share.budget.has_room();
            let look = Instant::now() + if room { IDLE_LOOK } else { ROOM_LOOK };
            let wake = receiver.deadline().map_or(look, |deadline| deadline.min(look));
            let event = tokio::select! {
                Some(event) = answers.recv() => event,
                message = self.wire.next(), if room => match self.take(message) {
                    Ok(event) => event,
                    Err(LinkError::Lost(_)) => return,
                    Err(error) => return self.refuse(error.to_string()),
                },
                changed = map.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    if !self.same_targets(&map) {
                        return self.refuse("the groups here have changed: open anew".into());
                    }
                    continue;
                }
                () = sleep_until(wake.into()) => Event::Tick,
            };
            receiver.step(Instant::now(), event, &mut actions);
        }
    }

    fn same_targets(&self, map: &MapWatch) -> bool {
        let map = map.borrow();
        let found = map.as_ref().map(|map| targets(map, &self.namespace, self.source.2));
        found.is_none_or(|found| found.as_ref() == Ok(&self.targets))
    }

    fn take(&self, message: Result<Message, LinkError>) -> Result<Event, LinkError> {
        let batch = match message? {
            Message::Batch(batch) => batch,
            other => return Err(LinkError::Protocol(format!("not for a receiver: {other:?}"))),
        };
        self.check(&batch)?;
        let now_ms = clock::wall_ms();
        metrics::counter!("flotilla_link_received_batches_total").increment(1);
        metrics::counter!("flotilla_link_received_effects_total")
            .increment(batch.effects.len() as u64);
        Ok(Event::Batch(Box::new(batch), now_ms))
    }

    /// A batch must be of the cluster, group and slots that the stream was opened for, and its
    /// effects of its own stretch of the log: nobody speaks for another.
    fn check(&self, batch: &Batch) -> Result<(), LinkError> {
        let (origin, group, slots) = self.source;
        if batch.origin != origin {
            let said = batch.origin;
            let what = format!("a batch born in {said} on a link of {origin}");
            return Err(LinkError::Identity(what));
        }
        if batch.group != group || batch.slots != slots {
            let what = format!("a batch of group {} on the stream of {group}", batch.group);
            return Err(LinkError::Protocol(what));
        }
        let inside = |index: u64| index > batch.from.index && index <= batch.to.index;
        let mut last = 0;
        for effect in &batch.effects {
            let ordered = effect.index >= last && inside(effect.index);
            if !ordered || effect.slot.is_some_and(|slot| !slots.contains(slot)) {
                let what = format!("an effect of entry {} where it cannot be", effect.index);
                return Err(LinkError::Protocol(what));
            }
            last = effect.index;
        }
        Ok(())
    }

    fn refuse(self, reason: String) {
        let (origin, group, _) = self.source;
        tracing::warn!(%origin, source = %group, %reason, "ends a stream");
        self.wire.close_with(Message::Refused { reason });
    }

    /// Does what the receiver wants; a reason ends the stream.
    fn carry_out(&self, action: Action) -> Option<String> {
        let group = self.source.1;
        match action {
            Action::Ask(target) => self.ask(target),
            Action::Forward { round, batch } => self.forward(round, &batch),
            Action::TellCursor(cursor) => self.wire.send(Message::Cursor { group, cursor }),
            Action::TellAck(cursor, received_ms) => {
                let committed_ms = clock::wall_ms();
                self.wire.send(Message::Ack { group, cursor, received_ms, committed_ms });
            }
            Action::TellGap(cursor) => {
                metrics::counter!("flotilla_link_gaps_total").increment(1);
                self.wire.send(Message::Gap { group, cursor });
            }
            Action::TellParked(ahead_ms) => {
                metrics::counter!("flotilla_link_parked_total").increment(1);
                self.wire.send(Message::Parked { group, ahead_ms });
            }
            Action::Refuse(reason) => return Some(reason),
        }
        None
    }

    fn ask(&self, target: GroupId) {
        let (origin, source, _) = self.source;
        let request = CursorsRequest { group: target, origin, source_groups: vec![source] };
        let asked = self.leaders.ask::<Vec<LogId>>(
            target,
            Class::Control,
            kinds::CURSORS,
            request.encode(),
            CURSOR_DEADLINE,
        );
        let answers = self.answers.clone();
        tokio::spawn(async move {
            let result = asked.await.and_then(|cursors| {
                let none = || Failure::Refused("an answer without a cursor".into());
                cursors.first().copied().ok_or_else(none)
            });
            let _ = answers.send(Event::Cursor { target, result });
        });
    }

    fn forward(&self, round: u64, batch: &Arc<RemoteBatch>) {
        let target = batch.target;
        // Queued here and now: lanes count on the order.
        let asked = self.leaders.ask::<Verdict>(
            target,
            Class::Forward,
            kinds::REMOTE_BATCH,
            batch.encode(),
            BATCH_DEADLINE,
        );
        let answers = self.answers.clone();
        tokio::spawn(async move {
            let result = asked.await;
            let _ = answers.send(Event::Answer { target, round, result });
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flotilla_topology::api::{GroupInfo, NamespaceInfo, NamespaceSpec};
    use flotilla_topology::ids::{ClusterId, NamespaceId};

    fn map(partitions: u32, synced: bool) -> ClusterMap {
        let spec = NamespaceSpec { name: "default".into(), partitions, replicas: 1, synced };
        let group = |index| GroupInfo {
            id: GroupId(10 + index),
            namespace: NamespaceId(1),
            slots: SlotRange::partition(index, partitions),
            birth: vec![],
            replicas: vec![],
            learners: vec![],
            preferred_leader: String::new(),
            leader: None,
        };
        ClusterMap {
            namespaces: vec![NamespaceInfo { id: NamespaceId(1), spec, switched: false }],
            groups: (0..partitions).map(group).collect(),
            ..ClusterMap::new(ClusterId(1), "east")
        }
    }

    #[test]
    fn a_source_group_goes_to_all_groups_that_share_its_slots() {
        let ids = |map: &ClusterMap, part, of| {
            let found = targets(map, "default", SlotRange::partition(part, of)).unwrap();
            found.into_iter().map(|(group, _)| group.0).collect::<Vec<_>>()
        };
        let map = map(3, true);
        assert_eq!(ids(&map, 0, 1), [10, 11, 12]);
        assert_eq!(ids(&map, 0, 2), [10, 11]);
        assert_eq!(ids(&map, 1, 2), [11, 12]);
        assert_eq!(ids(&map, 1, 3), [11]);
    }

    #[test]
    fn a_stream_without_an_owner_for_every_slot_is_refused() {
        assert!(targets(&map(2, true), "other", SlotRange::ALL).is_err());
        assert!(targets(&map(2, false), "default", SlotRange::ALL).is_err());
        let mut holed = map(3, true);
        holed.groups.remove(1);
        assert!(targets(&holed, "default", SlotRange::ALL).is_err());
        holed.groups.pop();
        assert!(targets(&holed, "default", SlotRange::ALL).is_err());
        assert!(targets(&holed, "default", SlotRange::partition(0, 4)).is_ok());
    }
}
