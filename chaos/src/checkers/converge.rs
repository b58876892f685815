//! `converge`: when writes stop and links are up, all clusters reach equal contents.
//!
//! The system's own answer is `flotilla verify`; this one compares what clients read in each
//! cluster, so that a digest that forgets something is caught.

use super::{Finals, Violation, shown};

pub(crate) const INVARIANT: &str = "converge";
/// Differences that are told one by one; the rest is counted.
const TOLD_MAX: usize = 10;

/// What `flotilla verify` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verified {
    /// All clusters hold the same.
    Equal,
    /// They differ, and nothing is under way.
    Different(String),
    /// Not comparable yet: something moves or cannot be reached.
    Moving(String),
}

/// Checks what `flotilla verify` said when all had the time to settle.
pub fn check_verified(verified: &Verified) -> Option<Violation> {
    let what = match verified {
        Verified::Equal => return None,
        Verified::Different(what) => format!("verify finds differences: {what}"),
        Verified::Moving(what) => format!("verify finds no rest: {what}"),
    };
    Some(Violation { invariant: INVARIANT, what })
}

/// Checks what was read in each cluster against the first.
pub fn check(clusters: &[(String, Finals)]) -> Vec<Violation> {
    let Some(((first, expected), others)) = clusters.split_first() else { return vec![] };
    let mut violations = Vec::new();
    for (other, found) in others {
        let cells =
            expected.keys().chain(found.keys().filter(|cell| !expected.contains_key(*cell)));
        let differ = cells.filter_map(|cell| {
            // A cell that was not read there counts as absent there.
            let (a, b) = (expected.get(cell).unwrap_or(&None), found.get(cell).unwrap_or(&None));
            (a != b).then_some((cell, a, b))
        });
        let differ: Vec<_> = differ.collect();
        for ((key, field), a, b) in differ.iter().take(TOLD_MAX) {
            let field = field.as_ref().map_or(String::new(), |field| format!(" field {field}"));
            let what = format!("{key}{field}: {first} reads {}, {other} {}", shown(a), shown(b));
            violations.push(Violation { invariant: INVARIANT, what });
        }
        if differ.len() > TOLD_MAX {
            let what =
                format!("{first} and {other} differ in {} more cells", differ.len() - TOLD_MAX);
            violations.push(Violation { invariant: INVARIANT, what });
        }
    }
    violations
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finals(cells: &[(&str, Option<&str>)]) -> Finals {
        let cells = cells.iter();
        cells.map(|(key, value)| ((key.to_string(), None), value.map(str::to_owned))).collect()
    }

    #[test]
    fn equal_contents_pass_and_each_difference_is_told() {
        let east = finals(&[("a", Some("1")), ("b", None), ("c", Some("3"))]);
        let same = [("east".to_owned(), east.clone()), ("west".to_owned(), east.clone())];
        assert_eq!(check(&same), []);
        let west = finals(&[("a", Some("1")), ("b", Some("2")), ("d", Some("4"))]);
        let told = check(&[("east".into(), east), ("west".into(), west)]);
        let told: Vec<_> = told.iter().map(|violation| violation.what.as_str()).collect();
        assert_eq!(
            told,
            [
                "b: east reads nothing, west `2`",
                "c: east reads `3`, west nothing",
                "d: east reads nothing, west `4`"
            ]
        );
    }

    #[test]
    fn many_differences_are_counted() {
        let cells: Vec<String> = (0..30).map(|n| format!("k{n:02}")).collect();
        let cells: Vec<_> = cells.iter().map(|key| (key.as_str(), Some("v"))).collect();
        let told = check(&[("east".into(), finals(&cells)), ("west".into(), finals(&[]))]);
        assert_eq!(told.len(), TOLD_MAX + 1);
        assert_eq!(told[TOLD_MAX].what, "east and west differ in 20 more cells");
    }

    #[test]
    fn only_equal_is_good_enough() {
        assert_eq!(check_verified(&Verified::Equal), None);
        assert!(check_verified(&Verified::Different("slot 7".into())).is_some());
        assert!(check_verified(&Verified::Moving("link down".into())).is_some());
    }
}
