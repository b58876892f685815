//! What a client does next: a function of its dice and of how much all clients have done.

use crate::history::Op;
use rand::Rng;
use rand::rngs::SmallRng;

/// Keys of one family that are in use at a time: few, so that clients meet on them.
const KEYS_IN_USE: u64 = 3;
/// Operations on one key before the next ones are used: its history stays easy to check.
const OPERATIONS_PER_KEY: u64 = 60;
/// Fields of a hash.
const FIELDS: u32 = 3;

/// Keys on which the same kind of commands is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Strings: SET, SET NX, SET XX, GETSET, GETDEL, DEL, GET.
    Register,
    /// Numbers: INCR, GET, seldom DEL.
    Counter,
    /// Hashes: HSET, HGET, seldom DEL.
    Hash,
    /// Strings that are written once, plainly, and then left alone: what is lost is seen.
    Once,
}

impl Family {
    /// All of them.
    pub const ALL: [Family; 4] = [Family::Register, Family::Counter, Family::Hash, Family::Once];

    fn letter(self) -> char {
        match self {
            Family::Register => 'r',
            Family::Counter => 'c',
            Family::Hash => 'h',
            Family::Once => 'o',
        }
    }
}

/// Chooses for one client.
pub(super) struct Chooser {
    pub(super) dice: SmallRng,
    client: u32,
    /// Texts written so far; makes the next one unique.
    texts: u64,
}

impl Chooser {
    pub(super) fn new(dice: SmallRng, client: u32) -> Chooser {
        Chooser { dice, client, texts: 0 }
    }

    /// The next operation and its key. `begun` counts the operations of all clients.
    pub(super) fn next(&mut self, families: &[Family], prefix: &str, begun: u64) -> (String, Op) {
        let family = families[self.dice.random_range(0..families.len())];
        let letter = family.letter();
        if family == Family::Once {
            let text = self.text();
            return (format!("{prefix}:{letter}{text}"), Op::Set(text));
        }
        let per_generation = OPERATIONS_PER_KEY * KEYS_IN_USE * families.len() as u64;
        let generation = begun / per_generation;
        let key = generation * KEYS_IN_USE + self.dice.random_range(0..KEYS_IN_USE);
        let op = match family {
            Family::Register => self.register(),
            Family::Counter => self.counter(),
            Family::Hash | Family::Once => self.hash(),
        };
        (format!("{prefix}:{letter}{key}"), op)
    }

    fn register(&mut self) -> Op {
        match self.dice.random_range(0..100) {
            0..30 => Op::Get,
            30..55 => Op::Set(self.text()),
            55..67 => Op::SetNx(self.text()),
            67..77 => Op::SetXx(self.text()),
            77..89 => Op::GetSet(self.text()),
            89..96 => Op::Del,
            _ => Op::GetDel,
        }
    }

    fn counter(&mut self) -> Op {
        match self.dice.random_range(0..100) {
            0..75 => Op::Incr,
            75..98 => Op::Get,
            _ => Op::Del,
        }
    }

    fn hash(&mut self) -> Op {
        let field = format!("f{}", self.dice.random_range(0..FIELDS));
        match self.dice.random_range(0..100) {
            0..50 => Op::HSet(field, self.text()),
            50..94 => Op::HGet(field),
            _ => Op::Del,
        }
    }

    fn text(&mut self) -> String {
        self.texts += 1;
        format!("{}-{}", self.client, self.texts)
    }
}
