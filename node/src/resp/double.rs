//! Floats as Redis 7.2 prints them.
//!
//! The shortest digits that read back to the same float; plain for integers below 2^52 and for
//! numbers of moderate size, `d.ddde+x` for others. (Redis 7.0 printed 17 digits: 3.1 came out as
//! 3.1000000000000001. We say that we are compatible with 7.2.)

/// Integers up to here are printed as integers, whatever their zeros.
const INTEGER_MAX: f64 = 4_503_599_627_370_495.0; // 2^52 - 1

/// The text of a float in a reply.
pub fn format_double(value: f64) -> String {
    if value.is_nan() {
        return "nan".into();
    }
    if value.is_infinite() {
        return if value > 0.0 { "inf".into() } else { "-inf".into() };
    }
    if value == 0.0 {
        return if value.is_sign_negative() { "-0".into() } else { "0".into() };
    }
    if value.trunc() == value && value.abs() <= INTEGER_MAX {
        return (value as i64).to_string();
    }
    shortest(value)
}

fn shortest(value: f64) -> String {
    let scientific = format!("{:e}", value.abs()); // d[.ddd]e[-]x, shortest digits
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let digits: String = mantissa.chars().filter(|c| *c != '.').collect();
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let sign = if value < 0.0 { "-" } else { "" };
    let len = digits.len() as i32;
    let scale = exponent - len + 1; // value = digits * 10^scale
    if scale >= 0 && exponent < len + 7 {
        return format!("{sign}{digits}{}", "0".repeat(scale as usize));
    }
    if scale < 0 && (scale > -7 || exponent.abs() < 4) {
        return if exponent < 0 {
            format!("{sign}0.{}{digits}", "0".repeat((-exponent - 1) as usize))
        } else {
            let (whole, fraction) = digits.split_at((exponent + 1) as usize);
            format!("{sign}{whole}.{fraction}")
        };
    }
    let (first, rest) = digits.split_at(1);
    let point = if rest.is_empty() { "" } else { "." };
    let exponent_sign = if exponent < 0 { '-' } else { '+' };
    format!("{sign}{first}{point}{rest}e{exponent_sign}{}", exponent.abs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn prints_as_redis_7_2() {
        let cases: [(f64, &str); 20] = [
            (0.0, "0"),
            (-0.0, "-0"),
            (1.0, "1"),
            (3.1, "3.1"),
            (-2.5, "-2.5"),
            (0.1, "0.1"),
            (0.001, "0.001"),
            (0.000_001, "0.000001"),
            (0.000_000_1, "1e-7"),
            (1.5e-9, "1.5e-9"),
            (1e17, "1e+17"),
            (123_456_789_012_345_680.0, "123456789012345680"),
            (4_503_599_627_370_495.0, "4503599627370495"),
            (100_000_000.0, "100000000"),
            (1e300, "1e+300"),
            (-1.25e300, "-1.25e+300"),
            (f64::INFINITY, "inf"),
            (f64::NEG_INFINITY, "-inf"),
            (f64::NAN, "nan"),
            (f64::MIN_POSITIVE, "2.2250738585072014e-308"),
        ];
        for (value, text) in cases {
            assert_eq!(format_double(value), text);
        }
    }

    proptest! {
        #[test]
        fn reads_back_to_the_same_float(bits: u64) {
            let value = f64::from_bits(bits);
            prop_assume!(value.is_finite());
            let back: f64 = format_double(value).parse().unwrap();
            prop_assert_eq!(back.to_bits(), value.to_bits());
        }
    }
}
