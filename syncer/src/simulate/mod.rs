//! The simulator: clusters with the real leader, the real rules of applying, the real tap, shipper
//! and receiver, and everything that can happen between them, from one seed and without disks,
//! networks or clocks.
//!
//! A history is some hundred random steps: commands, commits and refusals, elections with slow
//! clocks, syncers that come and go, streams that break, repeat and lose, cleaning, merges of full
//! state that are begun, given up and begun anew; clusters that are fenced, and return. Then the faults end and everything arrives. What
//! is checked:
//! * `semantic`: each command leaves of a key what Redis would.
//! * `cursor_behind_commit`, `stuck`: cursors name committed entries and reach everything; fences and
//!   returns come to their end.
//! * `converge`: all clusters show the same, and what an oracle shows that joined every effect and
//!   never collected or merged anything.
//! * `counter_back`: no counter shows more than what was added since its key was deleted last; this
//!   is counted beside the rules, which may be wrong all alike.
//! * `plain_rules`: commands and clusters do what a second, plain writing of the rules says, which
//!   shares no code with the product (`checker`).
//! * `collected`: after a while nothing waits to be collected.
//!
//! That these checks would notice is shown by [`calibrate`]: it puts one rule wrong at a time and
//! counts the histories until that is found.

pub mod calibrate;

mod checker;

mod commands;

mod counters;

mod dead;

mod dice;

mod group;

mod link;

mod merge;

mod mesh;

mod oracle;

mod story;

mod traffic;

mod world;

pub use world::{Broken, World};

use flotilla_node::flaws::{self, Flaw};

/// Rounds of ticking, cleaning and delivering in the end.
const SETTLE_ROUNDS: usize = 6;
/// Rounds after which everything that has ended must be collected.
const COLLECT_ROUNDS: usize = 8;
/// Long after everything has ended.
const LATER_MS: u64 = 1_000;

/// Runs one history.
pub fn run(seed: u64, flaw: Option<Flaw>) -> Result<(), Broken> {
    run_only(seed, flaw, None)
}

/// Runs one history; if an invariant is given, it goes on when another one breaks.
pub fn run_only(seed: u64, flaw: Option<Flaw>, only: Option<&str>) -> Result<(), Broken> {
    flaws::with(flaw, || history(&mut World::new(seed, false), only))
}

/// Runs one history; what happened in it, and how it ended.
pub fn trace(seed: u64, flaw: Option<Flaw>) -> (Vec<String>, Result<(), Broken>) {
    let mut world = World::new(seed, true);
    let end = flaws::with(flaw, || history(&mut world, None));
    let story = world.story.take().map(|story| story.end(&world.clusters));
    (story.unwrap_or_default(), end)
}

fn history(world: &mut World, only: Option<&str>) -> Result<(), Broken> {
    let heed = |step: Result<(), Broken>| match step {
        Err(broken) if only.is_some_and(|only| only != broken.invariant) => Ok(false),
        step => step.map(|()| true),
    };
    heed(world.before_it_dies())?;
    let (steps, writes) = world.length();
    for step in 0..steps {
        heed(world.step(step < writes))?;
    }
    world.end_faults();
    // Those that went on must agree also if the others never come back.
    if world.settle_apart()? && heed(world.settle(SETTLE_ROUNDS))? && heed(world.check_arrived())? {
        heed(world.converge(SETTLE_ROUNDS))?;
        // Of the last that came of a fenced cluster some waits until that returns.
        world.now_ms += LATER_MS;
        heed(world.settle(COLLECT_ROUNDS))?;
        heed(world.converge(COLLECT_ROUNDS))?;
    }
    world.settle_mesh()?;
    // What has not arrived cannot be shown.
    if !heed(world.settle(SETTLE_ROUNDS))? || !heed(world.check_arrived())? {
        return Ok(());
    }
    heed(world.converge(SETTLE_ROUNDS))?;
    heed(world.check_rules())?;
    heed(world.check_counters())?;
    world.now_ms += LATER_MS;
    heed(world.settle(COLLECT_ROUNDS))?;
    heed(world.converge(COLLECT_ROUNDS))?;
    heed(world.check_rules())?;
    heed(world.check_collected())?;
    Ok(())
}

impl World {
    /// Whether all show the same; what the audit would tell and nothing else can mend is mended first.
    fn converge(&mut self, rounds: usize) -> Result<(), Broken> {
        if self.differs_by_ends() {
            self.merge_all()?;
            self.settle(rounds)?;
        }
        self.check_converged()
    }
}

#[cfg(test)]
mod tests;
