//! What is told of the audit of one group and peer: to PD with the state of the link, and as metrics.

use super::pass::Found;
use flotilla_topology::api::LinkAudit;
use flotilla_topology::ids::GroupId;
use flotilla_topology::slot::{Slot, SlotRange};
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

/// Slots that are named.
const NAMED_MAX: usize = 8;

/// Shared by who finds and who tells.
#[derive(Clone, Default)]
pub struct Shown {
    /// None until something is compared.
    findings: Arc<Mutex<Option<Findings>>>,
}

struct Findings {
    different: BTreeSet<Slot>,
    /// Of the pass that goes on.
    compared: u64,
    undecided: u64,
    /// Of the last whole one: slots compared, undecided, when it ended.
    last: Option<(u64, u64, Instant)>,
    began: Instant,
    waits_for: Option<String>,
}

impl Shown {
    /// Comparing begins.
    pub fn begin(&self, now: Instant) {
        *self.findings.lock() = Some(Findings {
            different: BTreeSet::new(),
            compared: 0,
            undecided: 0,
            last: None,
            began: now,
            waits_for: None,
        });
    }

    fn with<T>(&self, change: impl FnOnce(&mut Findings) -> T) -> Option<T> {
        self.findings.lock().as_mut().map(change)
    }

    /// A pass begins.
    pub fn pass_begins(&self) {
        self.with(|now| (now.compared, now.undecided) = (0, 0));
    }

    /// Slots were decided. Those that are different and were not before, for the log.
    pub fn decided(&self, decided: &[(Slot, Found)]) -> Vec<Slot> {
        let new = self.with(|now| {
            let mut new = Vec::new();
            for (slot, found) in decided {
                now.compared += 1;
                match found {
                    Found::Equal => drop(now.different.remove(slot)),
                    Found::Different if now.different.insert(*slot) => new.push(*slot),
                    Found::Different => {}
                    // What was different before stays so until it is seen to be equal.
                    Found::Undecided => now.undecided += 1,
                }
            }
            now.waits_for = None;
            new
        });
        new.unwrap_or_default()
    }

    /// A pass over the whole group has ended.
    pub fn pass_ended(&self, at: Instant) {
        self.with(|now| now.last = Some((now.compared, now.undecided, at)));
    }

    /// Nothing is compared just now.
    pub fn waits(&self, reason: String) {
        self.with(|now| now.waits_for = Some(reason));
    }

    /// The slots that are different, as ranges.
    pub fn different(&self) -> Vec<SlotRange> {
        let mut ranges: Vec<SlotRange> = Vec::new();
        let slots = self.with(|now| now.different.clone()).unwrap_or_default();
        for slot in slots {
            match ranges.last_mut() {
                Some(range) if range.last.0 + 1 == slot.0 => range.last = slot,
                _ => ranges.push(SlotRange { first: slot, last: slot }),
            }
        }
        ranges
    }

    /// For PD.
    pub fn status(&self) -> Option<LinkAudit> {
        self.with(|now| LinkAudit {
            different_slots: now.different.len() as u64,
            first_slots: now.different.iter().take(NAMED_MAX).copied().collect(),
            undecided_slots: now.last.map_or(0, |(_, undecided, _)| undecided),
            compared_slots: now.last.map_or(0, |(compared, _, _)| compared),
            age_seconds: now.last.map(|(_, _, at)| at.elapsed().as_secs_f64()),
            waits_for: now.waits_for.clone(),
        })
    }

    /// Sets the metrics. The age counts from the beginning while no pass has ended.
    pub fn publish(&self, peer: &str, group: GroupId) {
        let Some(began) = self.with(|now| now.last.map_or(now.began, |(_, _, at)| at)) else {
            return;
        };
        let Some(status) = self.status() else { return };
        set(peer, group, status.different_slots, status.undecided_slots);
        metrics::gauge!("flotilla_link_audit_age_seconds", &labels(peer, group))
            .set(began.elapsed().as_secs_f64());
    }

    /// Nothing is compared here any more: an alarm may not stay for ever.
    pub fn end(&self, peer: &str, group: GroupId) {
        *self.findings.lock() = None;
        set(peer, group, 0, 0);
        metrics::gauge!("flotilla_link_audit_age_seconds", &labels(peer, group)).set(0.0);
    }
}

fn labels(peer: &str, group: GroupId) -> [(&'static str, String); 2] {
    [("peer", peer.to_owned()), ("group", group.to_string())]
}

fn set(peer: &str, group: GroupId, different: u64, undecided: u64) {
    let labels = labels(peer, group);
    metrics::gauge!("flotilla_link_different_slots", &labels).set(different as f64);
    metrics::gauge!("flotilla_link_undecided_slots", &labels).set(undecided as f64);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differed_is_told_until_it_is_seen_to_be_equal() {
        let shown = Shown::default();
        assert_eq!(shown.status(), None);
        shown.begin(Instant::now());
        shown.pass_begins();
        let of = |slots: &[u16], found| -> Vec<(Slot, Found)> {
            slots.iter().map(|slot| (Slot(*slot), found)).collect()
        };
        shown.decided(&of(&[1, 2], Found::Equal));
        let found = of(&[5, 6, 9], Found::Different);
        assert_eq!(shown.decided(&found), [Slot(5), Slot(6), Slot(9)]);
        assert!(shown.decided(&found).is_empty(), "they are known");
        assert_eq!(shown.status().unwrap().age_seconds, None);
        shown.pass_ended(Instant::now());
        shown.pass_begins();
        shown.decided(&of(&[5, 7], Found::Undecided));
        let range = |first, last| SlotRange { first: Slot(first), last: Slot(last) };
        assert_eq!(shown.different(), [range(5, 6), range(9, 9)]);
        shown.decided(&of(&[6, 9], Found::Equal));
        shown.waits("the link is down".into());
        let status = shown.status().unwrap();
        assert_eq!((status.different_slots, status.first_slots), (1, vec![Slot(5)]));
        assert_eq!((status.compared_slots, status.undecided_slots), (8, 0), "of the whole pass");
        assert_eq!(status.waits_for.as_deref(), Some("the link is down"));
        shown.end("west", GroupId(1));
        assert_eq!(shown.status(), None);
    }
}
