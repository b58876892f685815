//! What runs besides the load of every trial, for the checkers that judge while it runs.

use super::trial::Settings;
use super::world::World;
use crate::checkers::Violation;
use crate::checkers::bounded::Peaks;
use crate::vitals::Watch;
use crate::workload::{Doorway, Graves, GravesRan, Pairs, PairsRan};
use std::collections::BTreeMap;

/// Under way.
pub(super) struct Probes {
    pairs: Pairs,
    graves: Graves,
    watch: Watch,
}

/// At their end.
pub(super) struct Stopped {
    pairs: PairsRan,
    graves: GravesRan,
    watch: Watch,
}

/// What they showed.
#[derive(Default)]
pub(super) struct Checked {
    pub(super) story: Vec<String>,
    pub(super) violations: Vec<Violation>,
    /// What could not be read in the end.
    pub(super) unread: Vec<String>,
}

impl Probes {
    pub(super) fn start(
        world: &dyn World,
        doors: &BTreeMap<String, Doorway>,
        mark: &str,
        seed: u64,
    ) -> Probes {
        Probes {
            pairs: Pairs::start(doors, format!("pair:{mark}"), seed),
            graves: Graves::start(doors, format!("grave:{mark}"), seed),
            watch: Watch::start(world.census()),
        }
    }

    /// Whether nothing was seen broken so far.
    pub(super) fn is_sound(&self) -> bool {
        !self.pairs.is_broken() && !self.graves.is_broken()
    }

    /// Subjects that were seen gone everywhere so far.
    #[cfg(test)]
    pub(super) fn buried(&self) -> u64 {
        self.graves.buried()
    }

    /// Ends the load, but goes on looking at the processes.
    pub(super) async fn stop(self) -> Stopped {
        let (pairs, graves) = tokio::join!(self.pairs.stop(), self.graves.stop());
        Stopped { pairs, graves, watch: self.watch }
    }
}

impl Stopped {
    /// Checks what was seen, and looks once more. Everything must be at rest.
    pub(super) async fn check(
        &self,
        addresses: &BTreeMap<String, Vec<String>>,
        settings: &Settings,
    ) -> Checked {
        let mut checked = Checked::default();
        checked.violations.extend(self.pairs.violations.iter().cloned());
        checked.violations.extend(self.graves.violations.iter().cloned());
        for (cluster, nodes) in addresses {
            let found = [
                self.pairs.check_finals(cluster, nodes, settings.patience).await,
                self.graves.check_finals(cluster, nodes, settings.patience).await,
            ];
            for found in found {
                match found {
                    Ok(violations) => checked.violations.extend(violations),
                    Err(why) => checked.unread.push(format!("{cluster}: {why}")),
                }
            }
        }
        let peaks: Peaks = self.watch.peaks();
        checked.violations.extend(peaks.check(&settings.limits));
        checked.story = vec![
            format!("origin_order: {} writes, {} looks", self.pairs.writes, self.pairs.looks),
            format!("no_resurrection: {} seen gone everywhere", self.graves.buried),
            format!("bounded: {}", peaks.told()),
        ];
        checked
    }
}
