//! Fuzzing of what arrives: every decoder of bytes that another process wrote is given valid
//! encodings that were damaged by chance.
//!
//! A [`Target`] is one format: valid encodings of it, how it is read, how it is written. For every
//! input must hold:
//! * Reading and writing again never panic.
//! * What can be read can be written and read again, and is the same value then.
//! * Reading takes less than [`READ_MAX`].
//! * What is read is no larger, written again, than [`written_max`] of the input's length. What a
//!   decoder reserves before it has read is bounded by [`Decoder::count`](crate::codec::Decoder::count).
//!
//! An input depends on the seed and the number of the iteration alone, so a [`Finding`] is met again
//! by running that one iteration, or by giving its bytes to [`Fuzzer::replay`]. Formats with a seal
//! get a right one most of the time: a checksum would hide what stands behind it.

mod mutate;
mod quiet;
pub mod sample;
mod targets;

pub use targets::targets;
pub(crate) use targets::{membership, sample_commands, sample_replies};

use crate::codec::{DecodeError, Encoder, SEAL_BYTES};
use bytes::Bytes;
use mutate::{Chance, mutated};
use std::fmt;
use std::ops::Range;
use std::time::{Duration, Instant};

/// Longest time that reading one input may take.
pub const READ_MAX: Duration = Duration::from_millis(100);
/// How often a slow input is read again before it counts as slow: others may have had the core.
const SLOW_AGAIN: usize = 3;
/// One in so many inputs of a sealed format keeps a wrong seal.
const UNSEALED_ONE_IN: usize = 32;

/// Longest encoding of what was read from so many bytes: stamps that refer to a base are written
/// out, and a seal is added.
pub fn written_max(bytes: usize) -> usize {
    64 * bytes + (1 << 20)
}

/// What reading an input came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Read {
    /// It was refused.
    Refused,
    /// It is a value; whether its encoding is another one.
    Value { respelled: bool },
}

type Probe = dyn Fn(&Bytes) -> Result<(Read, Duration), String> + Send + Sync;

/// One format that crosses the border of a process.
pub struct Target {
    name: &'static str,
    sealed: bool,
    /// Valid encodings, without seal.
    corpus: Vec<Bytes>,
    /// The encoding of a value that is not read as that value, if there is one.
    lost: Option<Bytes>,
    probe: Box<Probe>,
}

impl Target {
    /// A format, with values that show all of it.
    pub fn new<T: PartialEq + 'static>(
        name: &'static str,
        values: Vec<T>,
        decode: impl Fn(&Bytes) -> Result<T, DecodeError> + Send + Sync + 'static,
        encode: impl Fn(&T) -> Bytes + Send + Sync + 'static,
    ) -> Target {
        let corpus: Vec<Bytes> = values.iter().map(&encode).collect();
        let mut pairs = corpus.iter().zip(&values);
        let lost = pairs.find(|(bytes, value)| decode(bytes).ok().as_ref() != Some(*value));
        let lost = lost.map(|(bytes, _)| bytes.clone());
        let probe = move |input: &Bytes| probe(input, &decode, &encode);
        Target { name, sealed: false, corpus, lost, probe: Box::new(probe) }
    }

    /// A format whose values cannot be compared: `read` reads and writes again, and the bytes that
    /// it gives are compared.
    pub fn of_bytes(
        name: &'static str,
        corpus: Vec<Bytes>,
        read: impl Fn(&Bytes) -> Result<Bytes, DecodeError> + Send + Sync + 'static,
    ) -> Target {
        Target::new(name, corpus, read, Bytes::clone)
    }

    /// Its encodings end with a seal.
    pub fn sealed(mut self) -> Target {
        self.sealed = true;
        for entry in &mut self.corpus {
            entry.truncate(entry.len().saturating_sub(SEAL_BYTES));
        }
        self
    }

    fn seal(&self, body: Vec<u8>) -> Bytes {
        let mut out = Encoder::from(body);
        if self.sealed {
            out.seal(0);
        }
        out.into_bytes()
    }
}

fn probe<T: PartialEq>(
    input: &Bytes,
    decode: &impl Fn(&Bytes) -> Result<T, DecodeError>,
    encode: &impl Fn(&T) -> Bytes,
) -> Result<(Read, Duration), String> {
    let timed = || {
        let began = Instant::now();
        (decode(input), began.elapsed())
    };
    let (read, mut took) = timed();
    for _ in 0..SLOW_AGAIN {
        if took < READ_MAX {
            break;
        }
        took = took.min(timed().1);
    }
    if took >= READ_MAX {
        return Err(format!("reading took {took:.0?}"));
    }
    let Ok(value) = read else { return Ok((Read::Refused, took)) };
    let written = encode(&value);
    if written.len() > written_max(input.len()) {
        return Err(format!("{} bytes became {}", input.len(), written.len()));
    }
    match decode(&written) {
        Err(error) => Err(format!("what was read is refused once it is written again: {error}")),
        Ok(again) if again != value => {
            Err("what was read is another value once it is written again".to_owned())
        }
        Ok(_) => Ok((Read::Value { respelled: written != *input }, took)),
    }
}

/// An input that a decoder does not stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The format.
    pub target: &'static str,
    /// The seed, and the iteration that made the input; none if it is a valid encoding or was given.
    pub at: Option<(u64, u64)>,
    /// What went wrong.
    pub fault: String,
    /// The input.
    pub input: Bytes,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; ", self.target, self.fault)?;
        if let Some((seed, iteration)) = self.at {
            write!(f, "seed {seed}, iteration {iteration}, ")?;
        }
        write!(f, "bytes ")?;
        self.input.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// What became of the inputs of one target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    /// The format.
    pub target: &'static str,
    /// How many inputs.
    pub inputs: u64,
    /// How many of them were read as a value.
    pub read: u64,
    /// How many of these have another encoding: damage that the format does not notice, or a body
    /// that is compressed in another way.
    pub respelled: u64,
    /// The longest that one took.
    pub slowest: Duration,
}

/// What became of all inputs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// By target, in their order.
    pub tallies: Vec<Tally>,
}

impl Report {
    /// How many inputs there were.
    pub fn inputs(&self) -> u64 {
        self.tallies.iter().map(|tally| tally.inputs).sum()
    }

    /// Takes in what another run over the same targets came to.
    pub fn add(&mut self, other: &Report) {
        if self.tallies.is_empty() {
            self.tallies.clone_from(&other.tallies);
            return;
        }
        for (sum, more) in self.tallies.iter_mut().zip(&other.tallies) {
            sum.inputs += more.inputs;
            sum.read += more.read;
            sum.respelled += more.respelled;
            sum.slowest = sum.slowest.max(more.slowest);
        }
    }
}

/// Runs targets.
pub struct Fuzzer {
    targets: Vec<Target>,
}

impl Fuzzer {
    /// Over these targets, whose valid encodings are read once: each must be its value's encoding.
    pub fn new(targets: Vec<Target>) -> Result<Fuzzer, Finding> {
        for target in &targets {
            let invalid = |fault, input| Finding { target: target.name, at: None, fault, input };
            if let Some(input) = &target.lost {
                let fault = "a value is not read from its encoding".to_owned();
                return Err(invalid(fault, input.clone()));
            }
            for entry in &target.corpus {
                let input = target.seal(entry.to_vec());
                let read = examine(target, None, &input)?.0;
                if read != (Read::Value { respelled: false }) {
                    let fault = format!("a valid encoding is read as {read:?}");
                    return Err(invalid(fault, input));
                }
            }
        }
        Ok(Fuzzer { targets })
    }

    /// The names of the targets.
    pub fn names(&self) -> Vec<&'static str> {
        self.targets.iter().map(|target| target.name).collect()
    }

    /// Runs iterations, which go round the targets.
    pub fn run(&self, seed: u64, iterations: Range<u64>) -> Result<Report, Finding> {
        let empty = |target: &Target| Tally {
            target: target.name,
            inputs: 0,
            read: 0,
            respelled: 0,
            slowest: Duration::ZERO,
        };
        let mut tallies: Vec<Tally> = self.targets.iter().map(empty).collect();
        for iteration in iterations {
            let place = (iteration % self.targets.len().max(1) as u64) as usize;
            let Some(target) = self.targets.get(place) else { break };
            let input = self.input(target, seed, iteration);
            let (read, took) = examine(target, Some((seed, iteration)), &input)?;
            let tally = &mut tallies[place];
            tally.inputs += 1;
            tally.slowest = tally.slowest.max(took);
            if let Read::Value { respelled } = read {
                tally.read += 1;
                tally.respelled += u64::from(respelled);
            }
        }
        Ok(Report { tallies })
    }

    /// Gives bytes to the target of that name; none if there is none.
    pub fn replay(&self, target: &str, input: Bytes) -> Option<Result<(), Finding>> {
        let target = self.targets.iter().find(|known| known.name == target)?;
        Some(examine(target, None, &input).map(|_| ()))
    }

    fn input(&self, target: &Target, seed: u64, iteration: u64) -> Bytes {
        let mut chance = Chance::new(seed, iteration);
        let base = chance.pick(&target.corpus);
        // Formats share their parts, so a piece of any may be a piece of this one.
        let corpus = match chance.one_in(4) {
            true => &chance.pick(&self.targets).corpus,
            false => &target.corpus,
        };
        let other = chance.pick(corpus);
        let body = mutated(&mut chance, base, other);
        if chance.one_in(UNSEALED_ONE_IN) { Bytes::from(body) } else { target.seal(body) }
    }
}

/// Gives an input to a target, and catches its panic.
fn examine(
    target: &Target,
    at: Option<(u64, u64)>,
    input: &Bytes,
) -> Result<(Read, Duration), Finding> {
    let found = match quiet::caught(|| (target.probe)(input)) {
        Ok(found) => found,
        Err(panic) => Err(format!("panic: {panic}")),
    };
    found.map_err(|fault| Finding { target: target.name, at, fault, input: input.clone() })
}

#[cfg(test)]
mod tests;
