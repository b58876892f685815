//! The words in which an operator says what a network is like: `150ms`, `1%`, `100mbit`.

use std::time::Duration;

/// The text is not a quantity of the expected kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {expected}")]
pub struct UnitError {
    text: String,
    expected: &'static str,
}

/// Parses a duration: `60ms`, `1.5s`, `200us`.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    const UNITS: &[(&str, f64)] = &[("us", 1e-6), ("ms", 1e-3), ("s", 1.0)];
    let seconds = scaled(text, UNITS, "a duration such as 60ms, 1.5s or 200us")?;
    // Ten minutes one way is beyond every network, and keeps the arithmetic far from overflow.
    if seconds > 600.0 {
        return Err(UnitError { text: text.into(), expected: "a duration up to 600s" });
    }
    Ok(Duration::from_secs_f64(seconds))
}

/// Parses a probability: `1%`, `0.1%`, `0`. The result is between 0 and 1.
pub fn parse_share(text: &str) -> Result<f64, UnitError> {
    const EXPECTED: &str = "a share between 0% and 100%, such as 0.1%";
    let number = scaled(text.strip_suffix('%').unwrap_or(text), &[("", 0.01)], EXPECTED)
        .map_err(|_| UnitError { text: text.into(), expected: EXPECTED })?;
    if number > 1.0 {
        return Err(UnitError { text: text.into(), expected: EXPECTED });
    }
    Ok(number)
}

/// Parses a bandwidth into bits per second: `100mbit`, `1gbit`, `500kbit`; `0` or `none` means
/// without a limit.
pub fn parse_rate(text: &str) -> Result<Option<u64>, UnitError> {
    const UNITS: &[(&str, f64)] = &[("kbit", 1e3), ("mbit", 1e6), ("gbit", 1e9)];
    if matches!(text, "0" | "none") {
        return Ok(None);
    }
    let bits = scaled(text, UNITS, "a rate such as 100mbit, 1gbit or none")?;
    if bits < 8_000.0 {
        return Err(UnitError { text: text.into(), expected: "a rate of at least 8kbit, or none" });
    }
    Ok(Some(bits as u64))
}

fn scaled(text: &str, units: &[(&str, f64)], expected: &'static str) -> Result<f64, UnitError> {
    let bad = || UnitError { text: text.to_owned(), expected };
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: f64 = number.parse().map_err(|_| bad())?;
    let (_, factor) = units.iter().find(|(name, _)| *name == unit).ok_or_else(bad)?;
    Ok(number * factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_as_operators_write_them() {
        assert_eq!(parse_duration("150ms"), Ok(Duration::from_millis(150)));
        assert_eq!(parse_duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(parse_duration("200us"), Ok(Duration::from_micros(200)));
        assert_eq!(parse_share("1%"), Ok(0.01));
        assert_eq!(parse_share("0"), Ok(0.0));
        assert_eq!(parse_rate("100mbit"), Ok(Some(100_000_000)));
        assert_eq!(parse_rate("none"), Ok(None));
    }

    #[test]
    fn what_is_no_quantity_is_refused() {
        for text in ["", "ms", "-1ms", "1 ms", "5", "1h", "1e9s", "999999s", "1..2ms"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
        for text in ["", "%", "101%", "-1%", "x"] {
            assert!(parse_share(text).is_err(), "{text}");
        }
        for text in ["", "5", "mbit", "1kbit", "-1mbit"] {
            assert!(parse_rate(text).is_err(), "{text}");
        }
    }
}
