//! Numbers by chance, without a source of chance: what a command draws is hashed from the number that
//! whoever has it evaluated gave it, and its key. Of a write that number is its stamp.

use super::mix::Mix;
use super::txn::Txn;

/// Seed of what is left to chance.
const SEED: u64 = 0x4472_6177;

/// The draws of one command.
#[derive(Debug, Clone, Copy)]
pub(super) struct Chance(Mix);

impl Chance {
    /// For this command and this key.
    pub(super) fn new(txn: &Txn<'_>, key: &[u8]) -> Chance {
        let mut mix = Mix::new(SEED);
        mix.number(txn.context.chance);
        mix.bytes(key);
        Chance(mix)
    }

    /// The draw of this number.
    pub(super) fn number(self, draw: u64) -> u64 {
        let mut mix = self.0;
        mix.number(draw);
        mix.finish()
    }

    /// The same, below `end`, which is not 0.
    pub(super) fn below(self, draw: u64, end: u64) -> u64 {
        ((u128::from(self.number(draw)) * u128::from(end)) >> 64) as u64
    }
}
