//! Durations as people write them in configuration: `60ms`, `1.5s`, `0s`, `250us`, `2m`.

use serde::{Serialize, Serializer};
use std::fmt;
use std::str::FromStr;

/// A duration in milliseconds, finite and not negative.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Default)]
pub struct Ms(f64);

impl Ms {
    /// `ms` milliseconds; `None` when negative, infinite or not a number.
    pub fn new(ms: f64) -> Option<Ms> {
        // Adding zero turns -0.0 into 0.0, which would be written as `-0ms` and not be read again.
        (ms.is_finite() && ms >= 0.0).then_some(Ms(ms + 0.0))
    }

    /// How many milliseconds.
    pub fn ms(self) -> f64 {
        self.0
    }
}

/// The text is not a duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a duration: write a number and us, ms, s or m, as in \"60ms\"")]
pub struct DurationError(String);

impl FromStr for Ms {
    type Err = DurationError;

    fn from_str(text: &str) -> Result<Ms, DurationError> {
        let bad = || DurationError(text.chars().take(40).collect());
        let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(bad)?;
        let (number, unit) = text.split_at(digits);
        let number: f64 = number.parse().map_err(|_| bad())?;
        let ms = match unit.trim_start() {
            "us" => number / 1000.0,
            "ms" => number,
            "s" => number * 1000.0,
            "m" => number * 60_000.0,
            _ => return Err(bad()),
        };
        Ms::new(ms).ok_or_else(bad)
    }
}

impl fmt::Display for Ms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 >= 1000.0 && self.0 % 1000.0 == 0.0 {
            write!(f, "{}s", self.0 / 1000.0)
        } else {
            write!(f, "{}ms", self.0)
        }
    }
}

impl Serialize for Ms {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn units_are_read() {
        for (text, ms) in [("60ms", 60.0), ("1.5s", 1500.0), ("250us", 0.25), ("2m", 120_000.0)] {
            assert_eq!(text.parse::<Ms>().unwrap().ms(), ms);
        }
        assert_eq!("0 s".parse::<Ms>().unwrap().ms(), 0.0);
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in ["", "60", "ms", "-1ms", "1e9ms", "1h", ".ms", "1.2.3s", "NaNms", "infs"] {
            assert!(text.parse::<Ms>().is_err(), "{text}");
        }
        assert!(Ms::new(f64::NAN).is_none() && Ms::new(f64::INFINITY).is_none());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(ms in 0.0f64..1e9) {
            let ms = Ms::new(ms).unwrap();
            let read: Ms = ms.to_string().parse().unwrap();
            prop_assert!((read.ms() - ms.ms()).abs() <= ms.ms() * 1e-15);
        }

        #[test]
        fn nothing_makes_it_panic(text in ".{0,20}") {
            let _ = text.parse::<Ms>();
        }
    }
}
