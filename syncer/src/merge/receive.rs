//! The receiving side of a merge: carries each step to the leaders of the groups that own the slots
//! here, and answers when they have committed it.

use super::wire::MergeMessage;
use crate::batch::Message;
use crate::inbound::admit;
use crate::leaders::{Leaders, MapWatch};
use crate::link::LinkError;
use crate::link::stream::Wire;
use crate::mesh::Mesh;
use crate::receiver::{Failure, RETRY_FIRST, RETRY_LAST};
use flotilla_node::group::compare::{Different, StretchKeys, StretchState, Wanted};
use flotilla_node::group::rows::{Stretch, StretchRows};
use flotilla_node::group::source::{SourceAnswer, SourceRequest};
use flotilla_node::group::state::{StateCut, StateRequest, StateStep, StateVerdict};
use flotilla_node::transport::{Class, kinds};
use flotilla_topology::ids::{GroupId, Identity, Origin};
use flotilla_topology::slot::SlotRange;
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
    let covers = false;
    let mut merging = Merging { origin, group, slots, id, targets, leaders, wire, covers };
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
    /// Some targets come back from a fence.
    covers: bool,
}

impl Merging {
    fn say(&self, message: MergeMessage) {
        self.wire.send(Message::Merge(message));
    }

    async fn serve(&mut self, cut: StateCut) -> Result<(), Ended> {
        for (target, _) in self.targets.clone() {
            match self.step(target, StateStep::Open(cut.clone())).await? {
                StateVerdict::Older { cursor } => {
                    self.say(MergeMessage::Older { cursor });
                    return Err(Ended::Refused(format!("a group here is at {cursor} already")));
                }
                verdict => self.covers |= verdict == StateVerdict::Covers,
            }
        }
        self.say(MergeMessage::Opened { covers: self.covers });
        loop {
            match self.wire.next().await.map_err(Ended::Lost)? {
                Message::Merge(MergeMessage::States(states)) => {
                    let different = self.different(states).await?;
                    self.say(MergeMessage::Different(different));
                }
                Message::Merge(MergeMessage::Keys(keys)) => {
                    let wanted = self.wanted(keys).await?;
                    self.say(MergeMessage::Wanted(wanted));
                }
                Message::Merge(MergeMessage::Rows(rows)) => {
                    self.rows(rows).await?;
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

    /// Parts them by the groups that own their slots here.
    fn by_owner<T>(
        &self,
        all: Vec<T>,
        stretch: impl Fn(&T) -> &Stretch,
    ) -> Result<BTreeMap<GroupId, Vec<T>>, Ended> {
        let mut parted: BTreeMap<GroupId, Vec<T>> = BTreeMap::new();
        for one in all {
            let slot = stretch(&one).slot;
            let owner = self.targets.iter().find(|(_, slots)| slots.contains(slot));
            let Some((owner, _)) = owner.filter(|_| self.slots.contains(slot)) else {
                return Err(Ended::Refused(format!("slot {slot} is not one of this merge")));
            };
            parted.entry(*owner).or_default().push(one);
        }
        Ok(parted)
    }

    /// One entry for all that goes to the same group, or as many as it needs to cover.
    async fn rows(&mut self, rows: Vec<StretchRows>) -> Result<(), Ended> {
        for (target, rows) in self.by_owner(rows, |one| &one.stretch)? {
            let count = rows.iter().map(|one| one.effects.len() as u64).sum();
            metrics::counter!("flotilla_merge_received_rows_total").increment(count);
            let (origin, group) = (self.origin, self.group);
            if self.covers {
                self.cover(target, rows).await?;
            } else if count > 0 {
                let effects = rows.into_iter().flat_map(|one| one.effects).collect();
                self.step(target, StateStep::Chunk { origin, group, effects }).await?;
            }
        }
        Ok(())
    }

    async fn cover(&mut self, target: GroupId, mut rows: Vec<StretchRows>) -> Result<(), Ended> {
        let (origin, group) = (self.origin, self.group);
        loop {
            let step = StateStep::Cover { origin, group, rows: rows.clone() };
            match self.step(target, step).await? {
                StateVerdict::More { done, from } if done < rows.len() => {
                    rows.drain(..done);
                    rows[0].stretch.from = Some(from);
                }
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

    async fn different(&self, states: Vec<StretchState>) -> Result<Vec<Different>, Ended> {
        let mut different = Vec::new();
        let numbered = states.into_iter().enumerate().collect();
        for (group, numbered) in self.by_owner(numbered, |(_, state)| &state.stretch)? {
            let (places, states): (Vec<usize>, Vec<_>) = numbered.into_iter().unzip();
            match self.compare(group, SourceRequest::CompareStates { group, states }).await? {
                SourceAnswer::Different(some) => {
                    let told = |one: Different| Some(Different { at: *places.get(one.at)?, ..one });
                    different.extend(some.into_iter().filter_map(told));
                }
                other => return Err(unexpected(other)),
            }
        }
        Ok(different)
    }

    async fn wanted(&self, keys: Vec<StretchKeys>) -> Result<Vec<Wanted>, Ended> {
        let mut wanted = Vec::new();
        for (group, keys) in self.by_owner(keys, |one| &one.stretch)? {
            match self.compare(group, SourceRequest::CompareKeys { group, keys }).await? {
                SourceAnswer::Wanted(some) => wanted.extend(some),
                other => return Err(unexpected(other)),
            }
        }
        Ok(wanted)
    }
}

fn unexpected(answer: impl std::fmt::Debug) -> Ended {
    Ended::Refused(super::unexpected(answer))
}
