//! LZF, as Redis packs strings with it. Only unpacking: what is dumped here is not packed.
//!
//! Packed bytes are runs. A byte below 32 stands before so many bytes and one more, which are taken as they
//! are. Any other says with its upper three bits how many bytes are taken again, and with the lower
//! five and a byte more from how far back; seven in the upper bits is increased by a byte between.

/// The longest run is 264 bytes in three.
const RATIO_MAX: usize = 88;
const AS_THEY_ARE_MAX: u8 = 32;
const MANY_MARK: usize = 7;

/// What the bytes unpack to, if that has the length which was told. No more is reserved than they can
/// unpack to.
pub(super) fn unpacked(packed: &[u8], len: usize) -> Option<Vec<u8>> {
    if len > packed.len().saturating_mul(RATIO_MAX) {
        return None;
    }
    let mut out = Vec::with_capacity(len);
    let mut rest = packed;
    while let Some((&first, behind)) = rest.split_first() {
        rest = behind;
        if first < AS_THEY_ARE_MAX {
            let (run, behind) = rest.split_at_checked(usize::from(first) + 1)?;
            if run.len() > len - out.len() {
                return None;
            }
            out.extend_from_slice(run);
            rest = behind;
            continue;
        }
        let mut many = usize::from(first >> 5);
        if many == MANY_MARK {
            let (&more, behind) = rest.split_first()?;
            many += usize::from(more);
            rest = behind;
        }
        many += 2;
        let (&low, behind) = rest.split_first()?;
        rest = behind;
        let back = (usize::from(first & 0x1F) << 8 | usize::from(low)) + 1;
        let from = out.len().checked_sub(back)?;
        if many > len - out.len() {
            return None;
        }
        // Byte by byte: a run may take up bytes that it makes itself.
        for at in from..from + many {
            out.push(out[at]);
        }
    }
    (out.len() == len).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::unpacked;

    #[test]
    fn runs_are_unpacked() {
        assert_eq!(unpacked(&[2, b'a', b'b', b'c'], 3).unwrap(), b"abc");
        assert_eq!(unpacked(&[0, b'a', 0x20, 0], 4).unwrap(), b"aaaa");
        assert_eq!(unpacked(&[1, b'a', b'b', 0xE0, 1, 1], 12).unwrap(), b"abababababab");
        assert_eq!(unpacked(&[0, b'x', 0xE0, 255, 0], 265).unwrap(), [b'x'; 265]);
        assert_eq!(unpacked(&[], 0).unwrap(), b"");
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let wrong: &[(&[u8], usize)] = &[
            (&[2, b'a', b'b', b'c'], 4),
            (&[2, b'a', b'b', b'c'], 2),
            (&[2, b'a', b'b'], 3),
            (&[0x20, 0], 3),
            (&[0, b'a', 0x20, 1], 4),
            (&[0, b'a', 0x20], 4),
            (&[0, b'a', 0xE0], 4),
            (&[0, b'a', 0x20, 0], 3),
            (&[0, b'a'], usize::MAX),
            (&[], 1),
        ];
        for (packed, len) in wrong {
            assert_eq!(unpacked(packed, *len), None, "{packed:?} {len}");
        }
    }
}
