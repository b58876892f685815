//! The receiving side of a merge: carries each step to the leaders of the groups that own the slots
//! here, and answers when they have committed it.

use super::wire::{MergeMessage, Part};
use crate::batch::Message;
use crate::inbound::admit;
use crate::leaders::{Leaders, MapWatch};
use crate::link::LinkError;
use crate::link::stream::Wire;
use crate::mesh::Mesh;
use crate::receiver::{Failure, RETRY_FIRST, RETRY_LAST};
use bytes::Bytes;
use flotilla_node::group::rows::{DifferentSlot, KeyState, SlotState, Stretch};
use flotilla_node::group::source::{SourceAnswer, SourceRequest};
use flotilla_node::group::state::{StateCut, StateRequest, StateStep, StateVerdict};
use flotilla_node::transport::{Class, kinds};
use flotilla_topology::ids::{GroupId, Identity, Origin};
use flotilla_topology::slot::{Slot, SlotRange};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// One step at a leader: a commit, or the comparison of a slot range.
const STEP_DEADLINE: Duration = Duration::from_secs(10);
/// A step that no leader takes for so long ends the merge; the sender begins anew.
const STEP_PATIENCE: Duration = Duration::from_secs(30);
/// Shortest wait of a parked chunk.
const PARKED_WAIT: Duration = Duration::from_millis(100);

/// A merge that another cluster's syncer wants to begin.
pub struct OpenedMerge {
    /// The cluster of the certificate, in the life that it greeted with.
    pub origin: Origin,
    /// Who sends.
    pub from: Identity,
    /// Name of the namespace.
    pub namespace: String,
    /// Which attempt.
    pub id: u64,
    /// What will be merged.
    pub cut: StateCut,
    /// The stream.
    pub wire: Wire,
}

/// Serves a merge until it ends.
pub async fn run(opened: OpenedMerge, leaders: Leaders, map: MapWatch, mesh: Mesh) {
    let OpenedMerge { origin, from, namespace, id, cut, wire } = opened;
    let (group, slots) = (cut.group, cut.slots);
    let found = admit(&map, &leaders, &mesh, (&namespace, slots), (origin, group)).await;
    let found = found.and_then(|found| match cut.origin == origin {
        true => Ok(found),
        false => Err(format!("a state of {} on a link of {origin}", cut.origin)),
    });
    let targets = match found {
        Ok(targets) => targets,
        Err(reason) => {
            tracing::info!(%from, source = %group, %reason, "refuses a merge");
            return wire.close_with(Message::Refused { reason });
        }
    };
    tracing::info!(%from, source = %group, at = %cut.position, "a full state is being merged");
    let mut merging = Merging { origin, group, slots, id, targets, leaders, wire };
    let ended = merging.serve(cut).await;
    match ended {
        Ok(()) => {
            tracing::info!(%from, source = %group, "the full state is merged");
            merging.wire.close_with(Message::Merge(MergeMessage::Closed));
        }
        Err(Ended::Lost(error)) => tracing::warn!(%from, source = %group, %error, "merge cut off"),
        Err(Ended::Refused(reason)) => {
            tracing::warn!(%from, source = %group, %reason, "merge ended");
            merging.wire.close_with(Message::Refused { reason });
        }
    }
}

enum Ended {
    Lost(LinkError),
    Refused(String),
}

struct Merging {
    origin: Origin,
    group: GroupId,
    slots: SlotRange,
    id: u64,
    targets: Vec<(GroupId, SlotRange)>,
    leaders: Leaders,
    wire: Wire,
}

impl Merging {
    fn say(&self, message: MergeMessage) {
        self.wire.send(Message::Merge(message));
    }

    async fn serve(&mut self, cut: StateCut) -> Result<(), Ended> {
        let mut covers = false;
        for (target, _) in self.targets.clone() {
            match self.step(target, StateStep::Open(cut.clone())).await? {
                StateVerdict::Older { cursor } => {
                    self.say(MergeMessage::Older { cursor });
                    return Err(Ended::Refused(format!("a group here is at {cursor} already")));
                }
                verdict => covers |= verdict == StateVerdict::Covers,
            }
        }
        self.say(MergeMessage::Opened { covers });
        loop {
            match self.wire.next().await.map_err(Ended::Lost)? {
                Message::Merge(MergeMessage::Slots(states)) => {
                    let slots = self.different_slots(states).await?;
                    self.say(MergeMessage::DifferentSlots(slots));
                }
                Message::Merge(MergeMessage::Keys { slot, states }) => {
                    let keys = self.different_keys(slot, states).await?;
                    self.say(MergeMessage::DifferentKeys { slot, keys });
                }
                Message::Merge(MergeMessage::Chunk(parts)) => {
                    self.chunk(parts).await?;
                    self.say(MergeMessage::Merged);
                }
                Message::Merge(MergeMessage::Cover { slot, stretch, effects }) => {
                    self.cover(slot, stretch, effects).await?;
                    self.say(MergeMessage::Merged);
                }
                Message::Merge(MergeMessage::Close) => {
                    let (origin, group) = (self.origin, self.group);
                    for (target, _) in self.targets.clone() {
                        self.step(target, StateStep::Close { origin, group }).await?;
                    }
                    return Ok(());
                }
                _ => return Err(Ended::Refused("not for the receiver of a merge".into())),
            }
        }
    }

    fn owner(&self, slot: Slot) -> Result<GroupId, Ended> {
        let found = self.targets.iter().find(|(_, slots)| slots.contains(slot));
        match found.filter(|_| self.slots.contains(slot)) {
            Some((target, _)) => Ok(*target),
            None => Err(Ended::Refused(format!("slot {slot} is not one of this merge"))),
        }
    }

    /// One entry for all that goes to the same group.
    async fn chunk(&mut self, parts: Vec<Part>) -> Result<(), Ended> {
        let mut by_target: BTreeMap<GroupId, Vec<Bytes>> = BTreeMap::new();
        for Part { slot, effects } in parts {
            by_target.entry(self.owner(slot)?).or_default().extend(effects);
        }
        let (origin, group) = (self.origin, self.group);
        for (target, effects) in by_target {
            metrics::counter!("flotilla_merge_received_rows_total").increment(effects.len() as u64);
            self.step(target, StateStep::Chunk { origin, group, effects }).await?;
        }
        Ok(())
    }

    /// A stretch of a slot, in as many steps as the target wants.
    async fn cover(
        &mut self,
        slot: Slot,
        mut stretch: Stretch,
        effects: Vec<Bytes>,
    ) -> Result<(), Ended> {
        let target = self.owner(slot)?;
        let (origin, group) = (self.origin, self.group);
        metrics::counter!("flotilla_merge_received_rows_total").increment(effects.len() as u64);
        loop {
            let (stretch_now, effects) = (stretch.clone(), effects.clone());
            let step = StateStep::Cover { origin, group, stretch: stretch_now, effects };
            match self.step(target, step).await? {
                StateVerdict::More { from } => stretch.from = from,
                _ => return Ok(()),
            }
        }
    }

    /// Has a leader commit a step. Taken twice it is as if taken once, so it is sent again until
    /// somebody answers.
    async fn step(&mut self, target: GroupId, step: StateStep) -> Result<StateVerdict, Ended> {
        let payload = StateRequest { target, id: self.id, step }.encode();
        let (began, mut pause) = (Instant::now(), RETRY_FIRST);
        loop {
            let asked = self.leaders.ask::<StateVerdict>(
                target,
                Class::Forward,
                kinds::MERGE_STEP,
                payload.clone(),
                STEP_DEADLINE,
            );
            let wait = match asked.await {
                Ok(StateVerdict::NotOpen) => {
                    return Err(Ended::Refused("another merge of this group was begun".into()));
                }
                Ok(StateVerdict::Parked { ahead_ms }) => {
                    self.say(MergeMessage::Parked { ahead_ms });
                    Duration::from_millis(ahead_ms).max(PARKED_WAIT)
                }
                Ok(verdict) => return Ok(verdict),
                Err(Failure::Refused(reason)) => return Err(Ended::Refused(reason)),
                Err(Failure::Again) if began.elapsed() > STEP_PATIENCE => {
                    let what = format!("no leader of group {target} for {STEP_PATIENCE:?}");
                    return Err(Ended::Refused(what));
                }
                Err(Failure::Again) => {
                    let wait = pause;
                    pause = (pause * 2).min(RETRY_LAST);
                    wait
                }
            };
            sleep(wait).await;
        }
    }

    async fn compare(
        &self,
        target: GroupId,
        request: SourceRequest,
    ) -> Result<SourceAnswer, Ended> {
        let asked = self.leaders.ask_until_answered::<SourceAnswer>(
            target,
            kinds::FULL_STATE,
            request.encode(),
            STEP_DEADLINE,
        );
        match tokio::time::timeout(STEP_PATIENCE, asked).await {
            Ok(answer) => answer.map_err(Ended::Refused),
            Err(_) => Err(Ended::Refused(format!("group {target} does not answer"))),
        }
    }

    async fn different_slots(&self, states: Vec<SlotState>) -> Result<Vec<DifferentSlot>, Ended> {
        let mut different = Vec::new();
        for (group, slots) in &self.targets {
            let mine = states.iter().filter(|state| slots.contains(state.slot));
            let states: Vec<SlotState> = mine.copied().collect();
            if states.is_empty() {
                continue;
            }
            let request = SourceRequest::CompareSlots { group: *group, states };
            match self.compare(*group, request).await? {
                SourceAnswer::DifferentSlots(slots) => different.extend(slots),
                other => return Err(Ended::Refused(format!("an answer to slots: {other:?}"))),
            }
        }
        Ok(different)
    }

    async fn different_keys(&self, slot: Slot, states: Vec<KeyState>) -> Result<Vec<u64>, Ended> {
        let group = self.owner(slot)?;
        let request = SourceRequest::CompareKeys { group, slot, states };
        match self.compare(group, request).await? {
            SourceAnswer::DifferentKeys(keys) => Ok(keys),
            other => Err(Ended::Refused(format!("an answer to keys: {other:?}"))),
        }
    }
}
