//! The `long double` of x86-64, in which Redis adds floats: 64 bits of mantissa, 15 of exponent.
//!
//! A float of 64 bits would show: 3 + 0.2 is 3.2 in Redis, and 0.1 + 0.2 is 0.3. So texts are read,
//! added and printed here exactly as `strtold`, the processor and `%.17Lf` do: every step rounds to
//! the nearest, ties to even. A text has [`TEXT_BYTES_MAX`] bytes, so no number is large for long.

use std::cmp::Ordering;

/// A longer text is no float, as in Redis.
const TEXT_BYTES_MAX: usize = 5 * 1024 - 1;
/// Exponent of the lowest bit of the smallest numbers, which have fewer bits.
const EXPONENT_MIN: i32 = -16_445;
/// Exponent of the lowest bit of the largest numbers.
const EXPONENT_MAX: i32 = 16_320;
/// Written exponents beyond this are all the same.
const WRITTEN_EXPONENT_MAX: i64 = 1_000_000;
/// Powers of ten beyond these are infinite and zero, whatever their digits.
const TENS_MAX: i64 = 4_940;
const TENS_MIN: i64 = -4_960;
/// Digits behind the point.
const DECIMALS: usize = 17;

/// A number: the mantissa times two to the exponent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LongDouble {
    negative: bool,
    size: Size,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Size {
    /// The highest bit of the mantissa is set, unless it is zero or the exponent the smallest.
    Finite {
        mantissa: u64,
        exponent: i32,
    },
    Infinite,
}

impl LongDouble {
    /// Zero.
    pub(super) const ZERO: LongDouble =
        LongDouble { negative: false, size: Size::Finite { mantissa: 0, exponent: 0 } };

    /// The number that a text is: decimal or hexadecimal, or an infinity; nothing around it.
    pub(super) fn parse(text: &[u8]) -> Option<LongDouble> {
        if text.len() > TEXT_BYTES_MAX {
            return None;
        }
        let (negative, rest) = match text {
            [b'-', rest @ ..] => (true, rest),
            [b'+', rest @ ..] => (false, rest),
            rest => (false, rest),
        };
        let size = match rest {
            [b'0', b'x' | b'X', rest @ ..] => Written::read(rest, 16)?.binary()?,
            rest if rest.eq_ignore_ascii_case(b"inf") || rest.eq_ignore_ascii_case(b"infinity") => {
                Size::Infinite
            }
            rest => Written::read(rest, 10)?.decimal()?,
        };
        Some(LongDouble { negative, size })
    }

    /// Whether it is a number and no infinity.
    pub(super) fn is_finite(self) -> bool {
        self.size != Size::Infinite
    }

    /// The sum, if it is finite.
    pub(super) fn add(self, other: LongDouble) -> Option<LongDouble> {
        let (Size::Finite { mantissa: a, exponent: x }, Size::Finite { mantissa: b, exponent: y }) =
            (self.size, other.size)
        else {
            return None;
        };
        if a == 0 || b == 0 {
            return Some(if a == 0 { other } else { self });
        }
        if x < y {
            return other.add(self);
        }
        // 62 bits below the larger one, and whether anything is left of the other one below these.
        let apart = x.abs_diff(y);
        let (large, exponent) = (u128::from(a) << 62, x - 62);
        let whole = u128::from(b) << 62;
        let small = whole.checked_shr(apart).unwrap_or(0);
        let more = small.checked_shl(apart) != Some(whole);
        let (negative, sum) = if self.negative == other.negative {
            (self.negative, large + small)
        } else if large >= small {
            (self.negative, large - small - u128::from(more))
        } else {
            (other.negative, small - large)
        };
        let sum = LongDouble { negative, size: round(sum, exponent, more) };
        sum.is_finite().then_some(sum)
    }

    /// A thousand times the number, rounded up to an integer; none if 64 bits do not hold that.
    pub(super) fn thousandfold(self) -> Option<i64> {
        let Size::Finite { mantissa, exponent } = self.size else { return None };
        let product = round(u128::from(mantissa) * 1000, exponent, false);
        let Size::Finite { mantissa, exponent } = product else { return None };
        let mantissa = i128::from(mantissa);
        let whole = match u32::try_from(exponent) {
            Ok(up @ 0..64) => mantissa.checked_mul(1 << up)?,
            Ok(_) => return None,
            Err(_) => {
                let down = exponent.unsigned_abs();
                let whole = mantissa.checked_shr(down).unwrap_or(0);
                let rest = whole.checked_shl(down) != Some(mantissa);
                whole + i128::from(rest && !self.negative)
            }
        };
        i64::try_from(if self.negative { -whole } else { whole }).ok()
    }

    /// The text in a reply and in a value: up to 17 digits behind the point, no zeros at the end.
    pub(super) fn format(self) -> String {
        let sign = if self.negative { "-" } else { "" };
        let Size::Finite { mantissa, exponent } = self.size else { return format!("{sign}inf") };
        if exponent >= 0 {
            let mut whole = Large::from(u128::from(mantissa));
            whole.shift_up(exponent.unsigned_abs());
            let digits = whole.decimal();
            return if mantissa == 0 { digits } else { format!("{sign}{digits}") };
        }
        let unit = 10u128.pow(DECIMALS as u32);
        let scaled = shift_rounding(u128::from(mantissa) * unit, exponent.unsigned_abs(), false);
        if scaled == 0 {
            return "0".to_owned();
        }
        let text = format!("{sign}{}.{:0DECIMALS$}", scaled / unit, scaled % unit);
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    }
}

/// What stands in a text, before it is a float: `digits` times the base to the exponent.
struct Written {
    digits: Vec<u8>,
    /// Of ten, or of two.
    exponent: i64,
}

impl Written {
    /// Digits with a point, and an exponent; all of the text, or it is none.
    fn read(text: &[u8], base: u32) -> Option<Written> {
        let mut rest = text;
        let (mut digits, mut seen, mut behind) = (Vec::new(), 0usize, None);
        while let Some((&byte, after)) = rest.split_first() {
            match char::from(byte).to_digit(base) {
                Some(digit) => {
                    seen += 1;
                    behind = behind.map(|count: i64| count + 1);
                    if digit != 0 || !digits.is_empty() {
                        digits.push(digit as u8);
                    }
                }
                None if byte == b'.' && behind.is_none() => behind = Some(0),
                None => break,
            }
            rest = after;
        }
        let mark = if base == 10 { b'e' } else { b'p' };
        let written = match rest.split_first() {
            None => 0,
            Some((byte, exponent)) if byte.eq_ignore_ascii_case(&mark) => signed(exponent)?,
            Some(_) => return None,
        };
        let place = if base == 10 { 1 } else { 4 };
        let exponent = written - behind.unwrap_or(0) * place;
        (seen > 0).then_some(Written { digits, exponent })
    }

    fn large(&self, base: u32) -> Large {
        let mut large = Large::default();
        self.digits.iter().for_each(|digit| large.multiply_add(base, u32::from(*digit)));
        large
    }

    /// A decimal number as a float. One that is not zero, but too small or too large, is none.
    fn decimal(mut self) -> Option<Size> {
        while self.digits.last() == Some(&0) {
            self.digits.pop();
            self.exponent += 1;
        }
        if self.digits.is_empty() {
            return Some(LongDouble::ZERO.size);
        }
        let tens = self.digits.len() as i64 + self.exponent;
        if !(TENS_MIN..=TENS_MAX).contains(&tens) {
            return None;
        }
        let mut large = self.large(10);
        if self.exponent >= 0 {
            large.multiply_by_ten_to(self.exponent as usize);
            return checked(large.round(0));
        }
        let mut divisor = Large::from(1);
        divisor.multiply_by_ten_to(self.exponent.unsigned_abs() as usize);
        checked(large.divided(divisor))
    }

    /// A hexadecimal number as a float.
    fn binary(self) -> Option<Size> {
        if self.digits.is_empty() {
            return Some(LongDouble::ZERO.size);
        }
        let exponent = self.exponent.clamp(-WRITTEN_EXPONENT_MAX, WRITTEN_EXPONENT_MAX);
        checked(self.large(16).round(exponent as i32))
    }
}

/// Neither beyond the range nor nothing.
fn checked(size: Size) -> Option<Size> {
    let in_range = matches!(size, Size::Finite { mantissa, .. } if mantissa != 0);
    in_range.then_some(size)
}

/// A written exponent.
fn signed(text: &[u8]) -> Option<i64> {
    let (sign, digits) = match text {
        [b'-', digits @ ..] => (-1, digits),
        [b'+', digits @ ..] => (1, digits),
        digits => (1, digits),
    };
    let mut value = 0i64;
    for digit in digits {
        let digit = digit.is_ascii_digit().then(|| i64::from(digit - b'0'))?;
        value = (value * 10 + digit).min(WRITTEN_EXPONENT_MAX);
    }
    (!digits.is_empty()).then_some(sign * value)
}

/// Half or more of the lowest bit rounds up, a half exactly only to an even number. `more`: there is
/// something below what is given.
fn shift_rounding(value: u128, by: u32, more: bool) -> u128 {
    if by == 0 {
        return value;
    }
    if by > 128 {
        return 0;
    }
    let kept = value.checked_shr(by).unwrap_or(0);
    let lost = value - kept.checked_shl(by).unwrap_or(0);
    let half = 1u128 << (by - 1);
    let up = match lost.cmp(&half) {
        Ordering::Less => false,
        Ordering::Equal => more || kept & 1 == 1,
        Ordering::Greater => true,
    };
    kept + u128::from(up)
}

/// The float nearest to `value * 2^exponent`. If there is `more` below it, `value` has 66 bits.
fn round(value: u128, exponent: i32, more: bool) -> Size {
    if value == 0 {
        return LongDouble::ZERO.size;
    }
    let bits = 128 - value.leading_zeros() as i32;
    let shift = (bits - 64).max(EXPONENT_MIN - exponent);
    let mut at = exponent + shift;
    let mantissa = match u32::try_from(shift) {
        Ok(shift) => shift_rounding(value, shift, more),
        Err(_) => value << shift.unsigned_abs(),
    };
    let mantissa = match u64::try_from(mantissa) {
        Ok(mantissa) => mantissa,
        Err(_) => {
            at += 1; // rounded up to the next power of two
            1 << 63
        }
    };
    if at > EXPONENT_MAX { Size::Infinite } else { Size::Finite { mantissa, exponent: at } }
}

/// A natural number of any size: digits of 32 bits, the lowest first, the highest not zero.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Large(Vec<u32>);

impl From<u128> for Large {
    fn from(value: u128) -> Large {
        let mut large = Large((0..4).map(|word| (value >> (32 * word)) as u32).collect());
        large.trim();
        large
    }
}

impl Large {
    fn trim(&mut self) {
        while self.0.last() == Some(&0) {
            self.0.pop();
        }
    }

    fn bits(&self) -> u32 {
        let top = self.0.last().map_or(0, |word| 32 - word.leading_zeros());
        (self.0.len().max(1) as u32 - 1) * 32 + top
    }

    fn multiply_add(&mut self, by: u32, add: u32) {
        let mut carry = u64::from(add);
        for word in &mut self.0 {
            carry += u64::from(*word) * u64::from(by);
            *word = carry as u32;
            carry >>= 32;
        }
        if carry > 0 {
            self.0.push(carry as u32);
        }
    }

    fn multiply_by_ten_to(&mut self, mut power: usize) {
        while power > 0 {
            let step = power.min(9);
            self.multiply_add(10u32.pow(step as u32), 0);
            power -= step;
        }
    }

    fn shift_up(&mut self, by: u32) {
        self.multiply_add(1 << (by % 32), 0);
        if !self.0.is_empty() {
            self.0.splice(0..0, std::iter::repeat_n(0, (by / 32) as usize));
        }
    }

    fn halve(&mut self) {
        let mut carry = 0;
        for word in self.0.iter_mut().rev() {
            let low = *word & 1;
            *word = *word >> 1 | carry << 31;
            carry = low;
        }
        self.trim();
    }

    fn compare(&self, other: &Large) -> Ordering {
        let by_length = self.0.len().cmp(&other.0.len());
        by_length.then_with(|| self.0.iter().rev().cmp(other.0.iter().rev()))
    }

    /// Takes away what is no larger.
    fn subtract(&mut self, other: &Large) {
        let mut borrow = false;
        for (at, word) in self.0.iter_mut().enumerate() {
            let (less, first) = word.overflowing_sub(other.0.get(at).copied().unwrap_or(0));
            let (less, second) = less.overflowing_sub(u32::from(borrow));
            *word = less;
            borrow = first || second;
        }
        debug_assert!(!borrow, "only what is no larger is taken away");
        self.trim();
    }

    /// The float nearest to this times two to the exponent.
    fn round(&self, exponent: i32) -> Size {
        let below = self.bits().saturating_sub(128);
        let (words, bits) = ((below / 32) as usize, below % 32);
        let word = |at: usize| u128::from(self.0.get(words + at).copied().unwrap_or(0));
        let low = word(0) | word(1) << 32 | word(2) << 64 | word(3) << 96;
        let high = word(4).checked_shl(128 - bits).unwrap_or(0);
        let value = low >> bits | high;
        let lost = (1u32 << bits) - 1;
        let more = self.0.iter().take(words).any(|word| *word != 0)
            || self.0.get(words).is_some_and(|word| word & lost != 0);
        round(value, exponent + below as i32, more)
    }

    /// The float nearest to the quotient: 67 or 68 of its bits, and whether anything is left.
    fn divided(mut self, mut divisor: Large) -> Size {
        let apart = self.bits() as i32 - divisor.bits() as i32 - 67;
        match u32::try_from(apart) {
            Ok(above) => divisor.shift_up(above),
            Err(_) => self.shift_up(apart.unsigned_abs()),
        }
        divisor.shift_up(68);
        let mut quotient = 0u128;
        for _ in 0..=68 {
            quotient <<= 1;
            if self.compare(&divisor).is_ge() {
                self.subtract(&divisor);
                quotient |= 1;
            }
            divisor.halve();
        }
        round(quotient, apart, !self.0.is_empty())
    }

    /// Its decimal digits.
    fn decimal(mut self) -> String {
        let mut parts = Vec::new();
        while !self.0.is_empty() {
            let mut rest = 0u64;
            for word in self.0.iter_mut().rev() {
                let value = rest << 32 | u64::from(*word);
                *word = (value / 1_000_000_000) as u32;
                rest = value % 1_000_000_000;
            }
            self.trim();
            parts.push(rest);
        }
        let first = parts.pop().unwrap_or(0).to_string();
        parts.iter().rev().fold(first, |text, part| format!("{text}{part:09}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(a: &str, b: &str) -> String {
        let parse = |text: &str| LongDouble::parse(text.as_bytes()).expect(text);
        parse(a).add(parse(b)).map_or_else(|| "none".to_owned(), LongDouble::format)
    }

    /// What `redis-server` 7.0.15 answers on x86-64.
    #[test]
    fn sums_are_those_of_redis() {
        let cases = [
            ("0.1", "0.2", "0.3"),
            ("3", "0.2", "3.2"),
            ("10.5", "0.1", "10.6"),
            ("5.0e3", "2.0e2", "5200"),
            ("-1", "1", "0"),
            ("-0", "-0", "0"),
            ("1e-17", "0", "0.00000000000000001"),
            ("1e-18", "0", "0"),
            ("0x1p-3", "0", "0.125"),
            ("9223372036854775807", "1", "9223372036854775808"),
            ("18446744073709551615", "1", "18446744073709551616"),
            ("18446744073709551615", "0.5", "18446744073709551616"),
            ("1e20", "1", "100000000000000000000"),
            ("1e4932", "1e4932", "none"),
            ("inf", "1", "none"),
        ];
        for (a, b, want) in cases {
            assert_eq!(sum(a, b), want, "{a} + {b}");
            assert_eq!(sum(b, a), want, "{b} + {a}");
        }
    }

    #[test]
    fn only_whole_texts_in_range_are_floats() {
        for good in
            ["1", ".5", "5.", "+1", "-1e+3", "0x.8", "0XaP2", "InFinity", "1e-4950", "0e9999"]
        {
            assert!(LongDouble::parse(good.as_bytes()).is_some(), "{good}");
        }
        let bad = [
            "",
            " 1",
            "1 ",
            "e5",
            ".",
            "1e",
            "1e+",
            "0x",
            "0xp1",
            "nan",
            "in",
            "1e5000",
            "1e-5000",
            "1..2",
            "--1",
            "0x1p20000",
            "0x1p-20000",
            "1\0",
        ];
        for bad in bad {
            assert!(LongDouble::parse(bad.as_bytes()).is_none(), "{bad}");
        }
        let long = |len| LongDouble::parse(&vec![b'0'; len]);
        assert!(long(TEXT_BYTES_MAX).is_some() && long(TEXT_BYTES_MAX + 1).is_none());
    }

    #[test]
    fn the_ends_of_the_range_round() {
        let largest = "1.18973149535723176502e+4932";
        assert!(LongDouble::parse(largest.as_bytes()).is_some());
        assert!(LongDouble::parse(b"1.18973149535723176506e+4932").is_none());
        let smallest = LongDouble::parse(b"3.6451995318824746025e-4951").unwrap();
        assert_eq!(smallest.size, Size::Finite { mantissa: 1, exponent: EXPONENT_MIN });
        assert!(LongDouble::parse(b"1.8e-4951").is_none(), "less than half of it");
        assert!(LongDouble::parse(b"1.9e-4951").is_some());
        // A half rounds to the even neighbour, and anything more up.
        let integer = |text: &str| LongDouble::parse(text.as_bytes()).unwrap().format();
        assert_eq!(integer("36893488147419103233"), "36893488147419103232");
        assert_eq!(integer("36893488147419103234"), "36893488147419103232");
        assert_eq!(integer(&format!("36893488147419103234.{}1", "0".repeat(4000))), {
            "36893488147419103236"
        });
        assert_eq!(integer("36893488147419103238"), "36893488147419103240");
    }
}
