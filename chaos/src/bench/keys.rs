//! Which keys are asked for: all alike, Zipf, or those that one node leads.

use rand::Rng;
use rand::rngs::SmallRng;
use std::sync::Arc;

/// How steep: the exponent of YCSB.
pub(super) const EXPONENT: f64 = 0.99;
/// Spreads ranks over the keys: a prime above any number of keys, so that each rank has its own key.
const SCATTER: u64 = 4_294_967_311;

/// A choice of keys.
#[derive(Debug, Clone)]
pub(super) enum Keys {
    /// Any below this number, all alike.
    Below(u32),
    /// Any of these, all alike.
    These(Arc<[u32]>),
    /// Some far more often than others.
    Zipf(Arc<Zipf>),
}

impl Keys {
    pub(super) fn choose(&self, dice: &mut SmallRng) -> u32 {
        match self {
            Keys::Below(end) => dice.random_range(0..*end),
            Keys::These(keys) => keys[dice.random_range(0..keys.len())],
            Keys::Zipf(zipf) => zipf.at(dice.random()),
        }
    }
}

/// The rank `n` (from 1) comes with a likelihood of `1 / n^0.99`.
#[derive(Debug)]
pub(super) struct Zipf {
    /// Up to each rank: the sum of likelihoods, which ends at 1.
    sums: Vec<f64>,
}

impl Zipf {
    pub(super) fn new(keys: u32) -> Zipf {
        let mut sum = 0.0;
        let mut sums: Vec<f64> = (1..=keys)
            .map(|rank| {
                sum += f64::from(rank).powf(-EXPONENT);
                sum
            })
            .collect();
        sums.iter_mut().for_each(|one| *one /= sum);
        Zipf { sums }
    }

    /// The key at a point between 0 and 1.
    fn at(&self, point: f64) -> u32 {
        let rank = self.sums.partition_point(|sum| *sum <= point).min(self.sums.len() - 1);
        (rank as u64 * SCATTER % self.sums.len() as u64) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn zipf_has_a_key_for_each_rank_and_the_first_is_asked_most() {
        let zipf = Zipf::new(1000);
        let middle = |rank: usize| {
            let before = if rank == 0 { 0.0 } else { zipf.sums[rank - 1] };
            (before + zipf.sums[rank]) / 2.0
        };
        let mut all: Vec<u32> = (0..1000).map(|rank| zipf.at(middle(rank))).collect();
        all.sort_unstable();
        assert!(all.iter().copied().eq(0..1000), "a key of no rank, or of two");
        assert_eq!(zipf.at(0.0), 0);
        assert!(zipf.at(1.0) < 1000);
        // The sum of 1 / n^0.99 over 1000 ranks is 7.73.
        let mut dice = SmallRng::seed_from_u64(3);
        let keys = Keys::Zipf(Arc::new(zipf));
        let first = (0..20_000).filter(|_| keys.choose(&mut dice) == 0).count();
        assert!((2200..3000).contains(&first), "{first}");
    }
}
