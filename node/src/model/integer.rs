//! Integers as Redis reads them in values and arguments: canonical decimal 64-bit numbers only.

use bytes::Bytes;

/// Longest text of a 64-bit integer: a sign and 19 digits.
const TEXT_MAX: usize = 20;

/// The integer that `text` is, if it is the one canonical way to write it: no spaces, no plus, no
/// leading zero, no "-0". Otherwise a value like "007" would lose its zeros in an INCR.
pub fn parse_integer(text: &[u8]) -> Option<i64> {
    if text.is_empty() || text.len() > TEXT_MAX {
        return None;
    }
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    match digits {
        [b'0'] if !negative => return Some(0),
        [b'1'..=b'9', ..] => {}
        _ => return None,
    }
    let mut value = 0i128;
    for digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        value = value * 10 + i128::from(digit - b'0');
    }
    i64::try_from(if negative { -value } else { value }).ok()
}

/// The canonical text of an integer.
pub fn format_integer(value: i64) -> Bytes {
    Bytes::from(value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_canonical_integers_are_integers() {
        for good in ["0", "-1", "10", "9223372036854775807", "-9223372036854775808"] {
            assert_eq!(
                parse_integer(good.as_bytes()).map(|v| v.to_string()).as_deref(),
                Some(good)
            );
        }
        let bad = ["", "-", "-0", "007", " 5", "5 ", "+5", "1.0", "0x1", "9223372036854775808"];
        for bad in bad {
            assert_eq!(parse_integer(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(parse_integer(b"-9223372036854775809"), None);
        assert_eq!(parse_integer(b"99999999999999999999999999"), None);
    }
}
