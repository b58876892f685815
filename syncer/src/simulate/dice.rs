//! Chance from one seed.

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

/// All decisions of one history.
pub struct Dice {
    rng: SmallRng,
}

impl Dice {
    /// The same seed gives the same decisions.
    pub fn new(seed: u64) -> Dice {
        Dice { rng: SmallRng::seed_from_u64(seed) }
    }

    /// A number below `sides`.
    pub fn roll(&mut self, sides: usize) -> usize {
        self.rng.random_range(0..sides.max(1))
    }

    /// True in so many of a hundred cases.
    pub fn chance(&mut self, percent: usize) -> bool {
        self.roll(100) < percent
    }

    /// One of these.
    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.roll(of.len())]
    }
}
