//! Which syncer holds which group: every group of a synced namespace has one tenure, under a Raft
//! node id of its own.
//!
//! Invariants:
//! * A tenure ends for good when its syncer registers again, renews it or is removed, or when the
//!   group is given to another one. The learner's number is never given out again.
//! * A learner is in the map only after its syncer said that it runs.
//! * At most [`TENURES_PER_STEP`] tenures begin in one step, so that a step is one transaction.

use super::durable::{CHANGES_MAX, Durable, GroupRecord, Tenure};
use super::{Assigned, Done, Refusal, State, refuse};
use flotilla_topology::api::Assignment;
use flotilla_topology::ids::{GroupId, ReplicaId};
use std::collections::BTreeMap;

/// See the module. Each may stand in another record; members and counters need a few more.
const TENURES_PER_STEP: usize = 64;
const _: () = assert!(TENURES_PER_STEP + 8 <= CHANGES_MAX);

/// The tenure of a group, if it has not ended.
pub(super) fn valid<'a>(durable: &Durable, group: &'a GroupRecord) -> Option<&'a Tenure> {
    let tenure = group.tenure.as_ref()?;
    let syncer = durable.syncers.get(&tenure.syncer)?;
    (syncer.life == tenure.life).then_some(tenure)
}

impl State {
    /// See [`valid`].
    pub(super) fn tenure<'a>(&self, group: &'a GroupRecord) -> Option<&'a Tenure> {
        valid(&self.durable, group)
    }

    /// Whether a group needs a syncer at all.
    pub(super) fn is_synced(&self, group: &GroupRecord) -> bool {
        self.durable.namespaces.get(&group.namespace).is_some_and(|ns| ns.info.spec.synced)
    }

    pub(super) fn learner_ready(
        &mut self,
        name: &str,
        group: GroupId,
        learner: ReplicaId,
    ) -> Result<Done, Refusal> {
        let Some(record) = self.durable.groups.get(&group) else {
            refuse!("group {group} does not exist any more: drop its learner");
        };
        match self.tenure(record) {
            Some(tenure) if tenure.syncer == name && tenure.learner == learner => {
                if !tenure.ready {
                    let groups = &mut self.durable_mut().groups;
                    let tenure = groups.get_mut(&group).and_then(|g| g.tenure.as_mut());
                    tenure.expect("it was found just above").ready = true;
                }
                Ok(Done::Plain)
            }
            _ => refuse!(
                "tenure {learner} of `{name}` in group {group} has ended: drop that learner and \
                 go by the assignments"
            ),
        }
    }

    /// A new tenure of one group for the syncer that holds it. Asked with a learner that has ended
    /// already this changes nothing: the answer to the first time was lost, or the group has moved.
    pub(super) fn renew_tenure(
        &mut self,
        name: &str,
        group: GroupId,
        learner: ReplicaId,
    ) -> Result<Done, Refusal> {
        if !self.durable.syncers.contains_key(name) {
            refuse!("syncer `{name}` is not registered: register first");
        }
        let Some(record) = self.durable.groups.get(&group) else {
            refuse!("group {group} does not exist any more: drop its learner");
        };
        if learner.0 >= self.durable.counters.replica {
            refuse!("tenure {learner} was never given out: go by the assignments");
        }
        let holds = |tenure: &Tenure| tenure.syncer == name && tenure.learner == learner;
        if self.is_synced(record) && self.tenure(record).is_some_and(holds) {
            self.begin_tenure(group, name);
        }
        Ok(Done::Plain)
    }

    /// Gives groups without a live syncer to one, and evens out what the live ones hold.
    pub(super) fn tend_tenures(&mut self) {
        if self.live.shown.syncers.is_empty() {
            return;
        }
        let mut held: BTreeMap<String, Vec<GroupId>> =
            self.live.shown.syncers.iter().map(|name| (name.clone(), Vec::new())).collect();
        let mut orphans = Vec::new();
        for group in self.durable.groups.values().filter(|group| self.is_synced(group)) {
            let holder = self.tenure(group).and_then(|tenure| held.get_mut(&tenure.syncer));
            holder.unwrap_or(&mut orphans).push(group.id);
        }
        orphans.truncate(TENURES_PER_STEP);
        for group in &orphans {
            let least = held.iter().min_by_key(|(_, groups)| groups.len());
            let syncer = least.map(|(name, _)| name.clone()).expect("one is alive");
            self.begin_tenure(*group, &syncer);
            held.entry(syncer).or_default().push(*group);
        }
        if orphans.is_empty() {
            self.even_out(held);
        }
    }

    fn even_out(&mut self, mut held: BTreeMap<String, Vec<GroupId>>) {
        held.retain(|name, _| self.live.is_steady(name));
        for _ in 0..TENURES_PER_STEP {
            let most = held.iter().max_by_key(|(_, groups)| groups.len());
            let least = held.iter().min_by_key(|(_, groups)| groups.len());
            let (Some((most, from)), Some((least, to))) = (most, least) else { return };
            if from.len() < to.len() + 2 {
                return;
            }
            let (most, least) = (most.clone(), least.clone());
            let group = held.get_mut(&most).and_then(Vec::pop).expect("it holds two at least");
            self.begin_tenure(group, &least);
            held.entry(least).or_default().push(group);
        }
    }

    fn begin_tenure(&mut self, group: GroupId, syncer: &str) {
        let durable = self.durable_mut();
        let life = durable.syncers.get(syncer).map_or(0, |record| record.life);
        let learner = ReplicaId(durable.counters.replica);
        let record = durable.groups.get_mut(&group).expect("only groups of the map are given out");
        durable.counters.replica += 1;
        record.tenures += 1;
        record.tenure = Some(Tenure { syncer: syncer.to_owned(), life, learner, ready: false });
    }

    /// What every syncer shall serve; a list that differs from the present one gets `version`.
    pub(super) fn assignments(&self, version: u64) -> BTreeMap<String, Assigned> {
        let mut all: BTreeMap<String, Assigned> =
            self.durable.syncers.keys().map(|name| (name.clone(), Assigned::default())).collect();
        for group in self.durable.groups.values().filter(|group| self.is_synced(group)) {
            let Some(tenure) = self.tenure(group) else { continue };
            let assigned = all.entry(tenure.syncer.clone()).or_default();
            assigned.groups.push(Assignment {
                group: group.id,
                learner: tenure.learner,
                epoch: group.tenures,
            });
        }
        for (name, assigned) in &mut all {
            let present = self.assigned.get(name).filter(|known| known.groups == assigned.groups);
            assigned.version = present.map_or(version, |known| known.version);
        }
        all
    }
}
