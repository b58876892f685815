//! A fixed 64-bit hash. Digests are compared between clusters of different releases and scan
//! cursors live in clients, so it never changes; the hashes of the standard library may.
//!
//! Eight bytes at a time, little-endian, the last ones filled up with zeros:
//! `h = (rotl(h, 27) ^ (word * A)) * B`; the start is mixed from the seed; at the end the
//! finalizer of MurmurHash3, so that every input bit reaches every output bit.

const A: u64 = 0x9E37_79B9_7F4A_7C15;
const B: u64 = 0xD6E8_FEB8_6659_FD93;

/// Collects parts; each enters with its length, so that their borders count.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mix(u64);

impl Mix {
    pub(crate) fn new(seed: u64) -> Mix {
        Mix(finish(seed ^ A))
    }

    pub(crate) fn number(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(27) ^ word.wrapping_mul(A)).wrapping_mul(B);
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.number(u64::from_le_bytes(word));
        }
    }

    pub(crate) fn finish(self) -> u64 {
        finish(self.0)
    }
}

fn finish(mut h: u64) -> u64 {
    h ^= h >> 33;
    h = h.wrapping_mul(0xFF51_AFD7_ED55_8CCD);
    h ^= h >> 33;
    h = h.wrapping_mul(0xC4CE_B9FE_1A85_EC53);
    h ^ h >> 33
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(seed: u64, bytes: &[u8]) -> u64 {
        let mut mix = Mix::new(seed);
        mix.bytes(bytes);
        mix.finish()
    }

    #[test]
    fn golden_hashes() {
        let hashes = [of(0, b""), of(1, b""), of(0, b"a"), of(0, b"a\0"), of(0, b"123456789")];
        assert_eq!(hashes, GOLDEN);
    }

    /// From an independent implementation (Python).
    const GOLDEN: [u64; 5] = [
        0x132A_8FE4_0D77_FFBA,
        0x5C10_19B9_C2F2_DC78,
        0x3F72_CF17_731E_E88F,
        0x113A_B8DF_9ECD_5486,
        0xEAF7_91C1_631A_0D66,
    ];

    #[test]
    fn every_bit_of_the_input_moves_many_bits() {
        let base = of(0, &[0; 16]);
        for bit in 0..128 {
            let mut bytes = [0u8; 16];
            bytes[bit / 8] = 1 << (bit % 8);
            let moved = (of(0, &bytes) ^ base).count_ones();
            assert!((12..=52).contains(&moved), "bit {bit} moves {moved}");
        }
    }
}
