//! PFADD, PFCOUNT, PFMERGE: how many different elements there are, about, in 12 KiB.
//!
//! A sketch is a string in Redis' own format: a header of 16 bytes (`HYLL`, encoding, three zeros, the
//! cached count with its highest bit set if it is void), then 16384 registers of 6 bits. Redis' sparse
//! form is read; what is written is dense. The hash and the estimate are Redis', so that a sketch
//! counts the same in both.
//!
//! A sketch is a string to the merge too: of two clusters that add at once, the later result wins as
//! a whole. A PFADD that changes no register writes nothing.

use super::args::{Outcome, ReadBudget, Stop};
use super::strings::value_of;
use super::txn::{Key, Txn};
use crate::model::Type;
use crate::resp::Reply;
use bytes::Bytes;

const MAGIC: &[u8] = b"HYLL";
const HEADER_BYTES: usize = 16;
const REGISTERS: usize = 1 << INDEX_BITS;
/// Bits of a hash that choose the register; the others are looked at for their lowest one.
const INDEX_BITS: u32 = 14;
const HASH_BITS: u32 = 64 - INDEX_BITS;
const REGISTER_BITS: usize = 6;
const DENSE_BYTES: usize = HEADER_BYTES + REGISTERS * REGISTER_BITS / 8;
const DENSE: u8 = 0;
const SPARSE: u8 = 1;
/// In the last byte of the cached count: it is void.
const VOID: u8 = 0x80;
/// 0.5 / ln 2.
const ALPHA: f64 = 0.721_347_520_444_481_7;
const SEED: u64 = 0xADC8_3B19;

/// A dense sketch, header included.
struct Sketch(Vec<u8>);

/// Bytes of a value that is a sketch, by its header.
fn checked(value: Bytes) -> Result<Bytes, Stop> {
    let valid = value.len() >= HEADER_BYTES && value.starts_with(MAGIC);
    let valid = valid
        && match value[MAGIC.len()] {
            DENSE => value.len() == DENSE_BYTES,
            encoding => encoding == SPARSE,
        };
    let line = "WRONGTYPE Key is not a valid HyperLogLog string value.";
    if valid { Ok(value) } else { Err(Stop::error(line.to_owned())) }
}

fn corrupted() -> Stop {
    Stop::error("INVALIDOBJ Corrupted HLL object detected".to_owned())
}

/// The sketch that a key holds, in either form.
fn stored(key: &Key) -> Result<Option<Bytes>, Stop> {
    value_of(key)?.map(checked).transpose()
}

impl Sketch {
    fn empty() -> Sketch {
        let mut bytes = vec![0; DENSE_BYTES];
        bytes[..MAGIC.len()].copy_from_slice(MAGIC);
        bytes[HEADER_BYTES - 1] = VOID;
        Sketch(bytes)
    }

    /// Of a value that is checked.
    fn read(value: &[u8]) -> Result<Sketch, Stop> {
        if value[MAGIC.len()] == DENSE {
            let mut sketch = Sketch(value.to_vec());
            sketch.0[HEADER_BYTES - 1] |= VOID;
            return Ok(sketch);
        }
        let mut sketch = Sketch::empty();
        let mut index = 0;
        let mut rest = &value[HEADER_BYTES..];
        // 00xxxxxx: so many zeros; 01xxxxxx yyyyyyyy: many zeros; 1vvvvvxx: a value, up to 4 times.
        while let Some((&byte, behind)) = rest.split_first() {
            rest = behind;
            let bits = usize::from(byte);
            index += match byte >> 6 {
                0 => (bits & 0x3F) + 1,
                1 => {
                    let low = rest.first().copied().ok_or_else(corrupted)?;
                    rest = &rest[1..];
                    ((bits & 0x3F) << 8 | usize::from(low)) + 1
                }
                _ => {
                    let (count, times) = (byte >> 2 & 0x1F, (bits & 3) + 1);
                    if index + times > REGISTERS {
                        return Err(corrupted());
                    }
                    (index..index + times).for_each(|index| sketch.set(index, count + 1));
                    times
                }
            };
        }
        if index == REGISTERS { Ok(sketch) } else { Err(corrupted()) }
    }

    /// The byte in which a register begins, and at which bit.
    fn place(index: usize) -> (usize, usize) {
        let bit = index * REGISTER_BITS;
        (HEADER_BYTES + bit / 8, bit % 8)
    }

    fn get(&self, index: usize) -> u8 {
        let (byte, bit) = Self::place(index);
        let next = self.0.get(byte + 1).copied().unwrap_or(0);
        (u16::from_le_bytes([self.0[byte], next]) >> bit & 0x3F) as u8
    }

    fn set(&mut self, index: usize, count: u8) {
        let (byte, bit) = Self::place(index);
        let next = self.0.get(byte + 1).copied().unwrap_or(0);
        let pair = u16::from_le_bytes([self.0[byte], next]) & !(0x3F << bit);
        let [low, high] = (pair | u16::from(count) << bit).to_le_bytes();
        self.0[byte] = low;
        if let Some(next) = self.0.get_mut(byte + 1) {
            *next = high;
        }
    }

    /// Whether the register had less.
    fn raise(&mut self, index: usize, count: u8) -> bool {
        let raises = count > self.get(index);
        if raises {
            self.set(index, count);
        }
        raises
    }

    /// Whether a register changed.
    fn add(&mut self, element: &[u8]) -> bool {
        let hash = murmur64a(element);
        let index = hash as usize % REGISTERS;
        // The bit above the hash ends the search.
        let run = (hash >> INDEX_BITS | 1 << HASH_BITS).trailing_zeros() + 1;
        self.raise(index, run as u8)
    }

    fn union(&mut self, other: &Sketch) {
        for index in 0..REGISTERS {
            self.raise(index, other.get(index));
        }
    }

    /// How many elements were added, about: Ertl's estimate over the histogram of the registers,
    /// step by step as Redis computes it, so that it rounds the same.
    fn estimate(&self) -> i64 {
        let mut histogram = [0u32; 1 << REGISTER_BITS];
        for index in 0..REGISTERS {
            histogram[usize::from(self.get(index))] += 1;
        }
        let of = |count: u32| f64::from(histogram[count as usize]);
        let m = REGISTERS as f64;
        let mut z = m * tau((m - of(HASH_BITS + 1)) / m);
        for count in (1..=HASH_BITS).rev() {
            z += of(count);
            z *= 0.5;
        }
        z += m * sigma(of(0) / m);
        (ALPHA * m * m / z).round() as i64
    }
}

/// The count that a sketch's header remembers, if it is not void.
fn cached(value: &[u8]) -> Option<i64> {
    let bytes: [u8; 8] = value[8..HEADER_BYTES].try_into().ok()?;
    (bytes[7] & VOID == 0).then_some(i64::from_le_bytes(bytes))
}

fn sigma(mut x: f64) -> f64 {
    if x == 1.0 {
        return f64::INFINITY;
    }
    let (mut y, mut z) = (1.0, x);
    loop {
        x *= x;
        let before = z;
        z += x * y;
        y += y;
        if before == z {
            return z;
        }
    }
}

fn tau(mut x: f64) -> f64 {
    if x == 0.0 || x == 1.0 {
        return 0.0;
    }
    let (mut y, mut z) = (1.0, 1.0 - x);
    loop {
        x = x.sqrt();
        let before = z;
        y *= 0.5;
        z -= (1.0 - x) * (1.0 - x) * y;
        if before == z {
            return z / 3.0;
        }
    }
}

/// MurmurHash2 of 64 bits (A), as Redis seeds it.
fn murmur64a(bytes: &[u8]) -> u64 {
    const M: u64 = 0xC6A4_A793_5BD1_E995;
    let mut hash = SEED ^ (bytes.len() as u64).wrapping_mul(M);
    let words = bytes.chunks_exact(8);
    let rest = words.remainder();
    for word in words {
        let word = u64::from_le_bytes(word.try_into().unwrap_or_default()).wrapping_mul(M);
        hash = (hash ^ (word ^ word >> 47).wrapping_mul(M)).wrapping_mul(M);
    }
    if !rest.is_empty() {
        let last = rest.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
        hash = (hash ^ last).wrapping_mul(M);
    }
    hash = (hash ^ hash >> 47).wrapping_mul(M);
    hash ^ hash >> 47
}

fn write(txn: &mut Txn<'_>, mut key: Key, sketch: Sketch) {
    txn.claim(&mut key, Type::String);
    txn.write_string(&mut key, Bytes::from(sketch.0));
    txn.save(key);
}

pub(super) fn pfadd(txn: &mut Txn<'_>, args: &[Bytes]) -> Outcome {
    let key = txn.load(&args[1])?;
    let (mut sketch, mut changed) = match stored(&key)? {
        Some(value) => (Sketch::read(&value)?, false),
        None => (Sketch::empty(), true),
    };
    for element in &args[2..] {
        changed |= sketch.add(element);
    }
    if changed {
        write(txn, key, sketch);
    }
    Ok(Reply::Int(i64::from(changed)))
}

/// The union of the sketches that some keys hold.
fn union(txn: &Txn<'_>, names: &[Bytes], command: &'static str) -> Result<Sketch, Stop> {
    let mut budget = ReadBudget::new(command);
    let mut union = Sketch::empty();
    for name in names {
        if let Some(value) = stored(&txn.load(name)?)? {
            budget.take(DENSE_BYTES.max(value.len()))?; // a sparse one costs as much time
            union.union(&Sketch::read(&value)?);
        }
    }
    Ok(union)
}

pub(super) fn pfcount(txn: &mut Txn<'_>, args: &[Bytes]) -> Outcome {
    let [_, name] = args else {
        return Ok(Reply::Int(union(txn, &args[1..], "pfcount")?.estimate()));
    };
    let Some(value) = stored(&txn.load(name)?)? else { return Ok(Reply::Int(0)) };
    match cached(&value) {
        Some(count) => Ok(Reply::Int(count)),
        None => Ok(Reply::Int(Sketch::read(&value)?.estimate())),
    }
}

/// The target's own sketch is merged too.
pub(super) fn pfmerge(txn: &mut Txn<'_>, args: &[Bytes]) -> Outcome {
    let union = union(txn, &args[1..], "pfmerge")?;
    let target = txn.load(&args[1])?;
    write(txn, target, union);
    Ok(Reply::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_do_not_touch_their_neighbours() {
        let mut sketch = Sketch::empty();
        let count = |index: usize| (index * 7 % 64) as u8;
        (0..REGISTERS).for_each(|index| sketch.set(index, 63 - count(index)));
        (0..REGISTERS).rev().for_each(|index| sketch.set(index, count(index)));
        assert!((0..REGISTERS).all(|index| sketch.get(index) == count(index)));
        assert_eq!(sketch.0.len(), DENSE_BYTES);
        assert_eq!(&sketch.0[..HEADER_BYTES], b"HYLL\0\0\0\0\0\0\0\0\0\0\0\x80");
    }

    #[test]
    fn estimates_are_near() {
        let mut sketch = Sketch::empty();
        assert_eq!(sketch.estimate(), 0);
        for element in 0..100_000u32 {
            sketch.add(&element.to_be_bytes());
        }
        let error = sketch.estimate().abs_diff(100_000);
        assert!(error < 2_500, "three standard errors of 0.81 %: {error}");
        assert!(!sketch.add(&7u32.to_be_bytes()), "it was added before");
    }

    #[test]
    fn the_sparse_form_is_read() {
        let sparse = |body: &[u8]| {
            let mut value = b"HYLL\x01\0\0\0\0\0\0\0\0\0\0\x80".to_vec();
            value.extend_from_slice(body);
            Sketch::read(&checked(Bytes::from(value)).unwrap())
        };
        // 5 zeros, 2 registers of 3, 16377 zeros.
        let sketch = sparse(&[0x04, 0x89, 0x7F, 0xF8]).ok().unwrap();
        let set: Vec<usize> = (0..REGISTERS).filter(|&index| sketch.get(index) > 0).collect();
        assert_eq!((set, sketch.get(5), sketch.get(6)), (vec![5, 6], 3, 3));
        for bad in [&[0x04, 0x89, 0x7F, 0xF7][..], &[0x7F, 0xFF, 0x80], &[0x7F], &[]] {
            assert!(sparse(bad).is_err(), "{bad:?}");
        }
    }
}
