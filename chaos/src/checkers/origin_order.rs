//! `origin_order`: what one cluster writes to one slot arrives elsewhere in the order in which it
//! was written, and nothing that was seen goes away again.
//!
//! Judged by pairs of keys, x and y, of one slot. One client of one cluster writes rising numbers:
//! x, and when that is acknowledged the same number to y. Elsewhere y is read, and then x: x must
//! have the number that y had, or a later one.

use super::Violation;

const INVARIANT: &str = "origin_order";

/// What the only writer of a pair knows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// The last number that was acknowledged for x.
    pub x: u64,
    /// The last number that was acknowledged for y.
    pub y: u64,
    /// The highest number that was ever sent.
    pub sent: u64,
    /// The outcome of the last write is unknown: it may take effect at any time. Nothing was
    /// written after it.
    pub open: bool,
}

/// What one cluster has shown of one pair, read by read, each begun after the one before had
/// ended.
#[derive(Debug, Clone, Copy, Default)]
pub struct Seen {
    x: u64,
    y: u64,
}

impl Seen {
    /// Takes a read of y and a read of x that began when that of y had ended; nothing is 0. `sent`
    /// is the highest number that was sent up to now.
    pub fn look(
        &mut self,
        pair: &str,
        cluster: &str,
        (y, x): (u64, u64),
        sent: u64,
    ) -> Option<Violation> {
        let before = *self;
        *self = Seen { x: x.max(before.x), y: y.max(before.y) };
        let what = if y < before.y {
            format!("y goes back from {} to {y}", before.y)
        } else if x < before.x {
            format!("x goes back from {} to {x}", before.x)
        } else if x < y {
            format!("x is {x} after y was {y}, although x was written first")
        } else if x > sent {
            format!("x is {x}, but nobody has written more than {sent}")
        } else {
            return None;
        };
        Some(violation(pair, cluster, &what))
    }
}

/// Checks what a cluster shows in the end, when everything has arrived.
pub fn check_final(
    pair: &str,
    cluster: &str,
    (y, x): (u64, u64),
    written: &Progress,
) -> Option<Violation> {
    let fits = |found: u64, acked: u64| found == acked || written.open && found == written.sent;
    let what = if !fits(x, written.x) {
        format!("x ends at {x}, but {} was acknowledged last", written.x)
    } else if !fits(y, written.y) {
        format!("y ends at {y}, but {} was acknowledged last", written.y)
    } else if x < y {
        format!("x ends at {x} and y at {y}, although x was written first")
    } else {
        return None;
    };
    Some(violation(pair, cluster, &what))
}

/// A value that no client of ours writes.
pub fn check_text(pair: &str, cluster: &str, text: Option<&str>) -> Result<u64, Violation> {
    let Some(text) = text else { return Ok(0) };
    text.parse().map_err(|_| violation(pair, cluster, &format!("reads `{text}`, no number")))
}

fn violation(pair: &str, cluster: &str, what: &str) -> Violation {
    Violation { invariant: INVARIANT, what: format!("{pair} in {cluster}: {what}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first complaint about reads of (y, x), while numbers up to 9 are sent.
    fn told(looks: &[(u64, u64)]) -> Option<String> {
        let mut seen = Seen::default();
        let found = looks.iter().find_map(|look| seen.look("p", "west", *look, 9));
        found.map(|violation| violation.what)
    }

    #[test]
    fn rising_numbers_pass_however_far_behind() {
        assert_eq!(told(&[(0, 0), (0, 1), (1, 1), (1, 1), (3, 7), (9, 9)]), None);
    }

    #[test]
    fn a_value_that_goes_back_is_told() {
        assert_eq!(told(&[(1, 2), (0, 2)]).unwrap(), "p in west: y goes back from 1 to 0");
        assert_eq!(told(&[(1, 2), (1, 1)]).unwrap(), "p in west: x goes back from 2 to 1");
        // Also when it comes again in between.
        assert_eq!(told(&[(3, 3), (3, 4), (2, 4)]).unwrap(), "p in west: y goes back from 3 to 2");
    }

    #[test]
    fn the_second_before_the_first_is_told() {
        let what = told(&[(1, 1), (3, 2)]).unwrap();
        assert_eq!(what, "p in west: x is 2 after y was 3, although x was written first");
        assert!(told(&[(1, 0)]).is_some(), "an x that is not there yet is behind too");
    }

    #[test]
    fn what_nobody_wrote_is_told() {
        assert!(told(&[(9, 10)]).unwrap().contains("nobody has written more than 9"));
        assert_eq!(check_text("p", "west", None), Ok(0));
        assert_eq!(check_text("p", "west", Some("12")), Ok(12));
        assert!(check_text("p", "west", Some("-1")).is_err());
    }

    #[test]
    fn in_the_end_everything_acknowledged_is_there() {
        let told = |look, written: &Progress| {
            check_final("p", "west", look, written).map(|violation| violation.what)
        };
        let written = Progress { x: 5, y: 4, sent: 5, open: false };
        assert_eq!(told((4, 5), &written), None);
        assert!(told((4, 4), &written).unwrap().contains("x ends at 4, but 5 was acknowledged"));
        assert!(told((3, 5), &written).unwrap().contains("y ends at 3, but 4 was acknowledged"));
        assert!(told((5, 5), &written).unwrap().contains("y ends at 5"), "it was never sent");
        let open = Progress { open: true, ..written };
        assert_eq!(told((4, 5), &open), None);
        assert_eq!(told((5, 5), &open), None, "the open write of y may have taken effect");
        let open = Progress { x: 4, y: 4, sent: 5, open: true };
        assert!(told((5, 4), &open).is_some(), "y without its x");
    }
}
