//! How many histories it takes until a rule that was put wrong is found.

use super::run;
use flotilla_node::flaws::Flaw;

/// Rules that the simulator must find wrong.
pub const FLAWS: &[Flaw] = &[
    Flaw::GcClosed,
    Flaw::VectorMax,
    Flaw::VectorOne,
    Flaw::GcWhileMerging,
    Flaw::HeaderEarly,
    Flaw::ExpiryUnpassed,
    Flaw::ExpiryUntold,
    Flaw::ExpiryAnyType,
    Flaw::ResetUnasked,
    Flaw::ResetWithRegister,
    Flaw::SumByLast,
    Flaw::NoLow,
    Flaw::LowForgotten,
    Flaw::TtlInherited,
    Flaw::ClockBehind,
    Flaw::GapTaken,
    Flaw::JoinedAgain,
    Flaw::CursorBack,
    Flaw::VectorNow,
    Flaw::Overtaking,
    Flaw::RestartAtLargest,
    Flaw::OldSnapshot,
    Flaw::LateChunk,
    Flaw::LapsedLeftOut,
    Flaw::NoLevel,
    Flaw::LevelUntold,
    Flaw::MergesOnFenced,
    Flaw::NoCover,
    Flaw::CoveredByJoin,
    Flaw::CoverageOfAll,
    Flaw::GivenEarly,
    Flaw::NoReissue,
    Flaw::FenceByTerm,
    Flaw::ShipsNoOps,
    Flaw::ParkedSkipped,
];

/// How a flaw was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Histories that it took, from the first seed on.
    pub after: u64,
    /// The seed.
    pub seed: u64,
    /// The invariant that broke.
    pub invariant: &'static str,
}

/// Looks for a flaw in up to `most` histories.
pub fn search(flaw: Flaw, first: u64, most: u64) -> Option<Found> {
    (0..most).find_map(|number| {
        let seed = first + number;
        let broken = run(seed, Some(flaw)).err()?;
        Some(Found { after: number + 1, seed, invariant: broken.invariant })
    })
}
