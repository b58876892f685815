//! Floats of 64 bits as Redis reads them, which is as C's `strtod` does: decimal, hexadecimal or an infinity.
//! Where they stand says what else is allowed around them, and how far they may reach.

/// What all of a text is.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Read {
    value: f64,
    /// Its digits say something that is no number of normal size: too large, or too small.
    out_of_range: bool,
}

/// A score, weight or coordinate: nothing around it. What is too large for a float, or too small to be
/// told from 0, is none.
pub(super) fn score(text: &[u8]) -> Option<f64> {
    let read = read(text)?;
    let lost = read.out_of_range && (read.value == 0.0 || read.value.is_infinite());
    (!lost).then_some(read.value)
}

/// An end of a range of scores: up to a zero byte, behind white space; without anything it is 0. What is
/// too large is infinite.
pub(super) fn end(text: &[u8]) -> Option<f64> {
    read_c_string(text).map(|read| read.value)
}

/// What SORT sorts by: read as an end of a range, but nothing out of range.
pub(super) fn weight(text: &[u8]) -> Option<f64> {
    read_c_string(text).filter(|read| !read.out_of_range).map(|read| read.value)
}

fn read_c_string(text: &[u8]) -> Option<Read> {
    let text = text.split(|byte| *byte == 0).next().unwrap_or_default();
    if text.is_empty() {
        return Some(Read { value: 0.0, out_of_range: false });
    }
    let space = |byte: &u8| byte.is_ascii_whitespace() || *byte == 0x0b;
    let start = text.iter().position(|byte| !space(byte))?;
    read(&text[start..])
}

fn read(text: &[u8]) -> Option<Read> {
    let text = std::str::from_utf8(text).ok()?;
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let signed = |value: f64| if negative { -value } else { value };
    if digits.eq_ignore_ascii_case("inf") || digits.eq_ignore_ascii_case("infinity") {
        return Some(Read { value: signed(f64::INFINITY), out_of_range: false });
    }
    let hex = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X"));
    let mantissa = match hex {
        Some(hex) => hex.split(['p', 'P']).next(),
        None => digits.split(['e', 'E']).next(),
    };
    let number = match hex {
        Some(hex) => hexadecimal(hex)?,
        None if digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') => {
            digits.parse::<f64>().ok()?
        }
        None => return None,
    };
    let zero = mantissa.unwrap_or_default().bytes().all(|byte| matches!(byte, b'0' | b'.'));
    Some(Read { value: signed(number), out_of_range: !zero && !number.is_normal() })
}

/// Hexadecimal digits, perhaps with a point and a power of two.
fn hexadecimal(text: &str) -> Option<f64> {
    let (mantissa, power) = match text.split_once(['p', 'P']) {
        Some((mantissa, power)) => (mantissa, power.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (whole, part) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if whole.is_empty() && part.is_empty() {
        return None;
    }
    // The first bits, and in the lowest of them whether any bit was dropped: so it is rounded once.
    let (mut bits, mut dropped) = (0u64, 0i32);
    for digit in whole.chars().chain(part.chars()) {
        let digit = u64::from(digit.to_digit(16)?);
        if bits >> 59 == 0 {
            bits = bits * 16 + digit;
        } else {
            bits |= u64::from(digit != 0);
            dropped = dropped.checked_add(4)?;
        }
    }
    let behind = i32::try_from(part.len()).ok()?.checked_mul(4)?;
    let mut power = power.checked_sub(behind)?.checked_add(dropped)?;
    let mut number = bits as f64;
    while power != 0 && number != 0.0 && number.is_finite() {
        let step = power.clamp(-1000, 1000);
        number *= f64::from(step).exp2();
        power -= step;
    }
    Some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_are_read_as_redis_reads_them() {
        for (text, value) in [
            ("1", 1.0),
            ("-1.5e3", -1500.0),
            (".5", 0.5),
            ("5.", 5.0),
            ("+inf", f64::INFINITY),
            ("-Infinity", f64::NEG_INFINITY),
            ("0x10", 16.0),
            ("-0X1.8p1", -3.0),
            ("0x1fffffffffffffffff", 590_295_810_358_705_700_000.0),
            ("0x1p-1074", 5e-324),
            ("5e-324", 5e-324),
            ("0e999999", 0.0),
        ] {
            assert_eq!(score(text.as_bytes()), Some(value), "{text}");
        }
        let wrong =
            ["", " 1", "1 ", "nan", "x", "1x", "--1", "in", "1e400", "-1e400", "1e-400", "0x"];
        for text in wrong.into_iter().chain(["0x1p1024", "0x1p-2000", "1\0", "1e", "0x1p", "."]) {
            assert_eq!(score(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn ends_of_ranges_are_read_with_less_care() {
        for (text, value) in [("", 0.0), (" 1", 1.0), ("\x0b2", 2.0), ("1\0x", 1.0), ("\0", 0.0)] {
            assert_eq!(end(text.as_bytes()), Some(value), "{text}");
            assert_eq!(weight(text.as_bytes()), Some(value), "{text}");
        }
        assert_eq!((end(b"1e400"), weight(b"1e400")), (Some(f64::INFINITY), None));
        assert_eq!((end(b"1e-400"), weight(b"1e-400")), (Some(0.0), None));
        assert_eq!((end(b"1e-310"), weight(b"1e-310")), (Some(1e-310), None));
        for text in [" ", "1 ", "nan", "(", "-"] {
            assert_eq!(end(text.as_bytes()), None, "{text}");
        }
    }
}
