//! Rules put wrong on purpose, so that the simulator can show that it would notice.
//!
//! Each flaw is a rule of the merge that was once thought right and then broken by a counterexample.
//! The rule's own code asks [`has`]; outside of a simulation the answer is always no. A flaw belongs
//! to a thread, and a simulated history runs in one.

use std::cell::Cell;

/// A rule that was once thought right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Flaw {
    /// A tombstone goes once everybody's closed stamp has passed it here; that they have seen it is
    /// not asked.
    GcClosed,
    /// Of several groups of a cluster the one that is furthest decides what has been heard of it.
    VectorMax,
    /// One group of a live cluster that has seen a tombstone is enough.
    VectorOne,
    /// Collection goes on while a full state is merged into the group, and the merge goes on when the
    /// log has overtaken it. Each of the two rules does what is needed without the other.
    GcWhileMerging,
    /// A header goes although its claim is not stable.
    HeaderEarly,
    /// A passed expiry is collected before every live clock has passed it.
    ExpiryUnpassed,
    /// A passed expiry is collected before everybody has all that it hides.
    ExpiryUntold,
    /// Collecting an expiry removes rows of every type.
    ExpiryAnyType,
    /// A tombstone goes although not everybody knows the sums that it absorbed.
    ResetUnasked,
    /// A register takes its resets along when it is replaced.
    ResetWithRegister,
    /// A floor kills a sum by its last stamp, not by its first.
    SumByLast,
    /// An expiry register forgets what had ended under the one that it replaces.
    NoLow,
    /// Once an end is collected, a later expiry register knows nothing of it.
    LowForgotten,
    /// A key that is created again inherits the end of the one that was emptied.
    TtlInherited,
    /// The stamp of a command need not lie above what was merged.
    ClockBehind,
    /// A batch that begins behind the cursor is taken.
    GapTaken,
    /// What lies at or below the cursor is joined again.
    JoinedAgain,
    /// The cursor goes to the end of any batch, also back.
    CursorBack,
    /// A vector speaks of the moment of sending, not of the end of its batch.
    VectorNow,
    /// Closed stamps and vectors travel ahead of the data.
    Overtaking,
    /// A link that starts anew goes on from the largest cursor of the groups that take it.
    RestartAtLargest,
    /// A merge of a state that is older than the cursor is let in.
    OldSnapshot,
    /// A chunk counts without its merge being open.
    LateChunk,
    /// What has lapsed is left out of a full state.
    LapsedLeftOut,
    /// A range floor reaches beyond the slots of the group that it came from.
    RangeFloorWide,
    /// An entry takes effect if its term is right, whatever it was evaluated on.
    FenceByTerm,
    /// The syncer ships entries that took no effect.
    ShipsNoOps,
    /// A survivor keeps what it had of a fenced cluster to itself.
    NoLevel,
    /// Chunks of a fenced cluster's state that was being merged are still taken.
    MergesOnFenced,
    /// A returning cluster joins what others have, and drops nothing.
    NoCover,
    /// A merge that only joins, begun before the group knew of its new life, counts as one that covers.
    CoveredByJoin,
    /// A returning cluster drops removals and ends too that only it has.
    CoverageOfAll,
    /// A returning cluster gives its state away before it has that of all others.
    GivenEarly,
    /// A returning cluster keeps what only it has to itself.
    NoReissue,
    /// What a cluster that went on has heard of a fenced one is not told with its state.
    LevelUntold,
    /// A batch that is parked counts as arrived.
    ParkedSkipped,
}

thread_local! {
    static PRESENT: Cell<u64> = const { Cell::new(0) };
}

/// Whether a rule is put wrong on this thread.
pub fn has(flaw: Flaw) -> bool {
    PRESENT.get() >> flaw as u8 & 1 == 1
}

/// Puts one rule wrong on this thread while `run` runs. For simulations only.
pub fn with<T>(flaw: Option<Flaw>, run: impl FnOnce() -> T) -> T {
    struct Restore(u64);
    impl Drop for Restore {
        fn drop(&mut self) {
            PRESENT.set(self.0);
        }
    }
    let _restore = Restore(PRESENT.get());
    PRESENT.set(flaw.map_or(0, |flaw| 1 << flaw as u8));
    run()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flaw_ends_with_its_run() {
        assert!(!has(Flaw::GcClosed));
        assert!(with(Some(Flaw::GcClosed), || has(Flaw::GcClosed) && !has(Flaw::NoLow)));
        assert!(!has(Flaw::GcClosed));
    }
}
