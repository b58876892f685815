//! Damage to valid encodings, by chance.

/// Longest input.
const INPUT_BYTES_MAX: usize = 64 << 10;
/// Most mutations of one input.
const STACK_MAX: usize = 8;
/// Where versions, kinds and counts stand: half of all mutations happen there.
const FRONT_BYTES: usize = 24;
/// Longest stretch that is inserted or deleted.
const STRETCH_MAX: usize = 32;
/// One in so many inputs is noise and nothing else.
const NOISE_ONE_IN: usize = 64;

/// Chance from a seed and a number. Not that of a library: a seed means the same for ever.
#[derive(Debug, Clone)]
pub struct Chance(u64);

impl Chance {
    /// The same pair gives the same decisions.
    pub fn new(seed: u64, number: u64) -> Chance {
        let mut chance = Chance(seed);
        let start = chance.next();
        Chance(start ^ number.wrapping_mul(0xD1B5_4A32_D192_ED03))
    }

    /// Splitmix64.
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ mixed >> 31
    }

    /// A number below `sides`.
    pub fn below(&mut self, sides: usize) -> usize {
        (self.next() % sides.max(1) as u64) as usize
    }

    /// True once in so many cases.
    pub fn one_in(&mut self, cases: usize) -> bool {
        self.below(cases) == 0
    }

    /// One of these, of which there must be one.
    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }

    fn noise(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }
}

/// Numbers at which something ends.
const EXTREMES: [u64; 20] = [
    0,
    1,
    2,
    0x7F,
    0x80,
    0xFF,
    0x100,
    0x3FFF,
    0x4000,
    0x7FFF,
    0x8000,
    0xFFFF,
    0x1_0000,
    0x7FFF_FFFF,
    0x8000_0000,
    0xFFFF_FFFF,
    0x1_0000_0000,
    0x7FFF_FFFF_FFFF_FFFF,
    0x8000_0000_0000_0000,
    u64::MAX,
];

/// A damaged copy of `base`; `other` is where foreign pieces come from.
pub fn mutated(chance: &mut Chance, base: &[u8], other: &[u8]) -> Vec<u8> {
    if chance.one_in(NOISE_ONE_IN) {
        let len = chance.below(96);
        return chance.noise(len);
    }
    let mut bytes = base.to_vec();
    for _ in 0..=chance.below(STACK_MAX) {
        mutate(chance, &mut bytes, other);
        bytes.truncate(INPUT_BYTES_MAX);
    }
    bytes
}

/// A place in `len` bytes, or behind them.
fn place(chance: &mut Chance, len: usize) -> usize {
    let front = chance.one_in(2);
    chance.below(if front { len.min(FRONT_BYTES) + 1 } else { len + 1 })
}

/// A stretch of `len` bytes: its start and end.
fn stretch(chance: &mut Chance, len: usize) -> (usize, usize) {
    let start = place(chance, len);
    let most = (len - start).min(if chance.one_in(8) { len } else { STRETCH_MAX });
    (start, start + chance.below(most + 1))
}

fn mutate(chance: &mut Chance, bytes: &mut Vec<u8>, other: &[u8]) {
    let at = place(chance, bytes.len());
    match chance.below(12) {
        0 => {
            let bit = 1 << chance.below(8);
            set(bytes, at, |byte| byte ^ bit);
        }
        1 => {
            let to = *chance.pick(&[0, 1, 0x7F, 0x80, 0xFF]);
            set(bytes, at, |_| to);
        }
        2 => {
            let to = chance.next() as u8;
            set(bytes, at, |_| to);
        }
        3 => {
            let by = *chance.pick(&[1, 0xFF]);
            set(bytes, at, |byte| byte.wrapping_add(by));
        }
        4 => bytes.truncate(at),
        5 => {
            let len = 1 + chance.below(8);
            let noise = chance.noise(len);
            bytes.splice(at..at, noise);
        }
        6 => {
            let (start, end) = stretch(chance, bytes.len());
            bytes.drain(start..end);
        }
        7 => {
            let (start, end) = stretch(chance, bytes.len());
            let again = bytes[start..end].repeat(1 + chance.below(3));
            bytes.splice(at..at, again);
        }
        8 => {
            let (start, end) = stretch(chance, other.len());
            bytes.splice(at..at, other[start..end].iter().copied());
        }
        9 => {
            let from = place(chance, other.len());
            bytes.truncate(at);
            bytes.extend_from_slice(&other[from..]);
        }
        10 => {
            let number = chance.pick(&EXTREMES).to_be_bytes();
            let width = *chance.pick(&[1, 2, 4, 8]);
            let end = bytes.len().min(at + width);
            bytes.splice(at..end, number[8 - width..].iter().copied());
        }
        _ => {
            // In place of the varint that stands there, if one does.
            let number = varint(*chance.pick(&EXTREMES));
            let rest = bytes[at..].iter().position(|byte| byte & 0x80 == 0);
            let end = rest.map_or(bytes.len(), |last| at + last + 1);
            bytes.splice(at..end, number);
        }
    }
}

fn set(bytes: &mut [u8], at: usize, to: impl Fn(u8) -> u8) {
    if let Some(byte) = bytes.get_mut(at) {
        *byte = to(*byte);
    }
}

fn varint(number: u64) -> Vec<u8> {
    let mut out = crate::codec::Encoder::new();
    out.put_varint(number);
    out.into_vec()
}
