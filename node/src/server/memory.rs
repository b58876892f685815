//! The budget of memory that connections hold: reading buffers, batches, and replies not yet taken.
//!
//! Each connection may hold [`FREE_BYTES`] without asking: with the maximum of connections that is
//! its own bound. What it holds beyond comes off one budget, so that ten thousand clients that
//! each send half of a large value cannot take the machine down.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What a connection holds without asking.
pub(super) const FREE_BYTES: usize = 64 * 1024;

/// What all connections share.
#[derive(Debug)]
pub(super) struct Budget {
    used: AtomicUsize,
    max: usize,
}

impl Budget {
    pub(super) fn new(max: usize) -> Arc<Budget> {
        Arc::new(Budget { used: AtomicUsize::new(0), max })
    }

    pub(super) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }
}

/// One connection's part; it is given back when this is dropped.
#[derive(Debug)]
pub(super) struct Charge {
    budget: Arc<Budget>,
    held: usize,
}

impl Charge {
    pub(super) fn new(budget: Arc<Budget>) -> Charge {
        Charge { budget, held: 0 }
    }

    /// Says how much the connection holds now. `false`: the budget does not allow it.
    #[must_use]
    pub(super) fn set(&mut self, bytes: usize) -> bool {
        let wanted = bytes.saturating_sub(FREE_BYTES);
        if wanted <= self.held {
            self.budget.used.fetch_sub(self.held - wanted, Ordering::Relaxed);
        } else {
            let more = wanted - self.held;
            let before = self.budget.used.fetch_add(more, Ordering::Relaxed);
            if before + more > self.budget.max {
                self.budget.used.fetch_sub(more, Ordering::Relaxed);
                return false;
            }
        }
        self.held = wanted;
        true
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.held, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_no_more_than_the_budget_and_gives_all_back() {
        let budget = Budget::new(1000);
        let mut a = Charge::new(budget.clone());
        let mut b = Charge::new(budget.clone());
        assert!(a.set(FREE_BYTES));
        assert_eq!(budget.used(), 0);
        assert!(a.set(FREE_BYTES + 800));
        assert!(!b.set(FREE_BYTES + 201));
        assert!(b.set(FREE_BYTES + 200));
        assert!(a.set(10));
        assert_eq!(budget.used(), 200);
        drop(b);
        assert!(a.set(FREE_BYTES + 1000));
        drop(a);
        assert_eq!(budget.used(), 0);
    }
}
