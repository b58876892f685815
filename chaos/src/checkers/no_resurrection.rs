//! `no_resurrection`: what was deleted, or has expired, and was seen gone in every cluster is never
//! seen again in any.
//!
//! It relies on what the workload takes care of: a subject is written once, with a known outcome,
//! and is deleted only when every cluster has shown it, so that nothing of it is still under way.
//!
//! Memory is bounded: above a number of gone subjects some, by chance, are forgotten, so that both
//! old and new ones stay under watch.

use super::Violation;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

const INVARIANT: &str = "no_resurrection";

/// What can be gone: a key, or a field of one.
pub type Subject = (String, Option<String>);

/// Who is dying and who is gone. All times are of one clock, since any moment.
pub struct Deaths {
    clusters: usize,
    gone_max: usize,
    dice: SmallRng,
    /// Deleted, with the clusters that were seen without them.
    dying: BTreeMap<Subject, BTreeSet<String>>,
    /// Seen gone everywhere, with the time at which that was known.
    gone: BTreeMap<Subject, Duration>,
    /// The same, in no order that matters.
    watched: Vec<Subject>,
}

impl Deaths {
    /// Nobody is dying yet. At most `gone_max` gone subjects are remembered.
    pub fn new(clusters: usize, gone_max: usize, seed: u64) -> Deaths {
        Deaths {
            clusters,
            gone_max,
            dice: SmallRng::seed_from_u64(seed),
            dying: BTreeMap::new(),
            gone: BTreeMap::new(),
            watched: Vec::new(),
        }
    }

    /// A deletion was acknowledged, or an expiry was set.
    pub fn deleted(&mut self, subject: Subject) {
        self.dying.insert(subject, BTreeSet::new());
    }

    /// A cluster answered a read that was begun at `asked`.
    pub fn saw(
        &mut self,
        cluster: &str,
        subject: &Subject,
        (asked, now): (Duration, Duration),
        found: Option<&str>,
    ) -> Option<Violation> {
        if let Some(since) = self.gone.get(subject) {
            let found = found.filter(|_| asked > *since)?;
            let (key, field) = subject;
            let field = field.as_ref().map_or(String::new(), |field| format!(" field {field}"));
            let what = format!(
                "{key}{field}: {cluster} reads `{found}`, {:.1?} after it was gone in all {} \
                 clusters",
                asked - *since,
                self.clusters
            );
            return Some(Violation { invariant: INVARIANT, what });
        }
        let absent = self.dying.get_mut(subject)?;
        match found {
            Some(_) => absent.remove(cluster),
            None => absent.insert(cluster.to_owned()),
        };
        if absent.len() == self.clusters {
            self.dying.remove(subject);
            self.bury(subject.clone(), now);
        }
        None
    }

    fn bury(&mut self, subject: Subject, now: Duration) {
        if self.watched.len() >= self.gone_max {
            let forgotten = self.watched.swap_remove(self.dice.random_range(0..self.gone_max));
            self.gone.remove(&forgotten);
        }
        self.watched.push(subject.clone());
        self.gone.insert(subject, now);
    }

    /// Whether a cluster has yet to be seen without a subject that is dying.
    pub fn is_missing(&self, cluster: &str, subject: &Subject) -> bool {
        self.dying.get(subject).is_some_and(|absent| !absent.contains(cluster))
    }

    /// Whether a subject was deleted and is not gone everywhere yet.
    pub fn is_dying(&self, subject: &Subject) -> bool {
        self.dying.contains_key(subject)
    }

    /// All that are gone and remembered. They must be absent wherever one looks.
    pub fn gone(&self) -> &[Subject] {
        &self.watched
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn key(name: &str) -> Subject {
        (name.to_owned(), None)
    }

    /// Reads of one deleted key: cluster, when it was asked (it is answered a millisecond later),
    /// and what was found.
    fn told(reads: &[(&str, u32, Option<&str>)]) -> Option<String> {
        let mut deaths = Deaths::new(2, 10, 1);
        deaths.deleted(key("k"));
        let mut see = |(cluster, asked, found): &(&str, u32, Option<&str>)| {
            let asked = *asked * MS;
            deaths.saw(cluster, &key("k"), (asked, asked + MS), *found)
        };
        reads.iter().find_map(&mut see).map(|violation| violation.what)
    }

    #[test]
    fn what_is_gone_everywhere_must_not_come_back_anywhere() {
        assert_eq!(told(&[("east", 1, None), ("west", 2, None), ("east", 9, None)]), None);
        let back = told(&[("east", 1, None), ("west", 2, None), ("west", 10, Some("v"))]);
        assert_eq!(back.unwrap(), "k: west reads `v`, 7.0ms after it was gone in all 2 clusters");
        let first = told(&[("west", 1, None), ("east", 2, None), ("west", 10, Some("v"))]);
        assert!(first.is_some(), "also where it was gone first");
    }

    #[test]
    fn what_is_on_its_way_is_no_resurrection() {
        assert_eq!(told(&[("east", 1, None), ("west", 2, Some("v")), ("west", 3, None)]), None);
        // Asked before the last cluster was seen without it, answered after.
        assert_eq!(told(&[("east", 1, None), ("west", 5, None), ("east", 2, Some("v"))]), None);
        // Seen again before it was gone everywhere: then it must be seen gone there once more.
        let again = [("east", 1, None), ("east", 2, Some("v")), ("west", 3, None)];
        assert_eq!(told(&again), None);
        assert_eq!(told(&[&again[..], &[("east", 9, Some("v"))]].concat()), None);
        assert!(
            told(&[&again[..], &[("east", 9, None), ("west", 20, Some("v"))]].concat()).is_some()
        );
    }

    #[test]
    fn fields_are_subjects_of_their_own() {
        let mut deaths = Deaths::new(1, 10, 1);
        let field = ("h".to_owned(), Some("f".to_owned()));
        deaths.deleted(field.clone());
        assert_eq!(deaths.saw("east", &field, (MS, MS), None), None);
        assert_eq!(deaths.saw("east", &key("h"), (9 * MS, 9 * MS), Some("v")), None);
        let what = deaths.saw("east", &field, (9 * MS, 9 * MS), Some("v")).unwrap().what;
        assert!(what.starts_with("h field f: east reads `v`"), "{what}");
    }

    #[test]
    fn memory_is_bounded_and_both_old_and_new_stay_under_watch() {
        let mut deaths = Deaths::new(1, 100, 1);
        for number in 0..1000u32 {
            let subject = key(&number.to_string());
            deaths.deleted(subject.clone());
            assert!(deaths.is_dying(&subject) && deaths.is_missing("east", &subject));
            deaths.saw("east", &subject, (number * MS, number * MS), None);
            assert!(!deaths.is_dying(&subject));
        }
        assert_eq!((deaths.gone().len(), deaths.gone.len(), deaths.dying.len()), (100, 100, 0));
        let numbers: Vec<u32> = deaths.gone().iter().map(|(key, _)| key.parse().unwrap()).collect();
        assert!(numbers.iter().any(|number| *number < 900) && numbers.contains(&999));
    }
}
