//! Where slots differ: the first keys of each that do, page by page from both sides.

use super::ask::{Asker, Content};
use anyhow::{Context, bail};
use bytes::Bytes;
use flotilla_node::clock;
use flotilla_node::eval::KeyDigest;
use flotilla_node::group::digest::{KeyPage, KeysRequest, PAGE_KEYS_MAX};
use flotilla_topology::slot::Slot;
use serde::Serialize;
use std::collections::BTreeMap;

/// Keys named of one slot.
const KEYS_NAMED_MAX: usize = 3;
/// Pages of one slot that are compared: a slot with more keys than these hold is given up.
const PAGES_MAX: usize = 256;

/// A key that two clusters do not hold alike.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DifferentKey {
    /// Its slot.
    pub slot: Slot,
    /// It, with anything but printable ASCII escaped.
    pub key: String,
    /// Whether it is visible in the first cluster.
    pub in_a: bool,
    /// Whether it is visible in the second cluster.
    pub in_b: bool,
}

/// A cluster and who asks it.
pub type Side<'s> = (&'s Content, &'s Asker);

/// Where a page begins, and as of when.
struct Place {
    at_ms: u64,
    slot: Slot,
    after: Option<Bytes>,
}

/// The first different keys of some slots of a namespace.
pub async fn first_keys(
    sides: [Side<'_>; 2],
    namespace: &str,
    slots: &[Slot],
) -> anyhow::Result<Vec<DifferentKey>> {
    let mut found = Vec::new();
    for slot in slots {
        found.extend(of_slot(sides, namespace, *slot).await?);
    }
    Ok(found)
}

async fn of_slot(
    sides: [Side<'_>; 2],
    namespace: &str,
    slot: Slot,
) -> anyhow::Result<Vec<DifferentKey>> {
    let at_ms = clock::wall_ms();
    let mut found = Vec::new();
    let mut after = None;
    for _ in 0..PAGES_MAX {
        let [a, b] = sides;
        let from = Place { at_ms, slot, after };
        let pages = (page(a, namespace, &from), page(b, namespace, &from));
        let (a, b) = futures::future::try_join(pages.0, pages.1).await?;
        let (different, next) = compare(slot, &a, &b);
        found.extend(different);
        found.truncate(KEYS_NAMED_MAX);
        after = next;
        if found.len() == KEYS_NAMED_MAX || after.is_none() {
            return Ok(found);
        }
    }
    bail!("slot {slot} holds too many keys")
}

/// A page of one side, from the group that carries the slot there.
async fn page(
    (content, asker): Side<'_>,
    namespace: &str,
    from: &Place,
) -> anyhow::Result<KeyPage> {
    let Place { at_ms, slot, ref after } = *from;
    let group = content.group_of(namespace, slot);
    let group =
        group.with_context(|| format!("no group of {} carries slot {slot}", content.name))?;
    let after = after.clone();
    let request = KeysRequest { group: group.id, at_ms, slot, after, max: PAGE_KEYS_MAX };
    asker.keys(content, group, &request).await
}

/// What differs on two pages that begin at one key, as far as both of them go; and the key behind
/// which to go on.
fn compare(slot: Slot, a: &KeyPage, b: &KeyPage) -> (Vec<DifferentKey>, Option<Bytes>) {
    let end = |page: &KeyPage| {
        let last = page.keys.last().filter(|_| page.more)?;
        Some(last.key.clone())
    };
    let horizon = match (end(a), end(b)) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    };
    let mut sums: BTreeMap<&Bytes, [Option<u128>; 2]> = BTreeMap::new();
    for (side, page) in [a, b].into_iter().enumerate() {
        for KeyDigest { key, sum } in &page.keys {
            if horizon.as_ref().is_none_or(|horizon| key <= horizon) {
                sums.entry(key).or_default()[side] = Some(*sum);
            }
        }
    }
    let different = sums.into_iter().filter(|(_, [a, b])| a != b);
    let different = different.map(|(key, [a, b])| DifferentKey {
        slot,
        key: key.escape_ascii().to_string(),
        in_a: a.is_some(),
        in_b: b.is_some(),
    });
    (different.collect(), horizon)
}

/// What a line says of them, between two clusters of these names.
pub fn in_words(keys: &[DifferentKey], [a, b]: [&str; 2]) -> String {
    let word = |key: &DifferentKey| {
        let found = match (key.in_a, key.in_b) {
            (true, false) => format!("only in {a}"),
            (false, true) => format!("only in {b}"),
            _ => "in both, different".to_owned(),
        };
        format!("\"{}\" (slot {}, {found})", key.key, key.slot)
    };
    match keys {
        [] => "; no key differs any more".to_owned(),
        keys => format!("; first keys: {}", keys.iter().map(word).collect::<Vec<_>>().join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(keys: &[(&'static str, u128)], more: bool) -> KeyPage {
        let digest = |(key, sum): &(&'static str, u128)| KeyDigest {
            key: Bytes::from_static(key.as_bytes()),
            sum: *sum,
        };
        KeyPage { keys: keys.iter().map(digest).collect(), more }
    }

    fn names(a: &KeyPage, b: &KeyPage) -> (String, Option<Bytes>) {
        let (keys, next) = compare(Slot(5), a, b);
        (in_words(&keys, ["east", "west"]), next)
    }

    #[test]
    fn different_keys_are_named_with_where_they_are() {
        let a = page(&[("a", 1), ("b", 2), ("d\n", 4)], false);
        let b = page(&[("a", 1), ("b", 3), ("c", 4)], false);
        let (words, next) = names(&a, &b);
        let wanted = "; first keys: \"b\" (slot 5, in both, different), \"c\" (slot 5, only in \
                      west), \"d\\n\" (slot 5, only in east)";
        assert_eq!(words, wanted);
        assert_eq!(next, None);
        assert_eq!(names(&a, &a).0, "; no key differs any more");
    }

    #[test]
    fn nothing_is_said_of_keys_behind_the_shorter_page() {
        let long = page(&[("a", 1), ("b", 2), ("c", 3), ("d", 9)], false);
        let short = page(&[("a", 1), ("b", 2)], true);
        assert_eq!(compare(Slot(5), &long, &short), (vec![], Some("b".into())));
        assert_eq!(compare(Slot(5), &short, &long), (vec![], Some("b".into())));
        let both = page(&[("a", 7), ("c", 3)], true);
        let (found, next) = compare(Slot(5), &short, &both);
        assert_eq!((found.len(), next), (2, Some("b".into())), "a differs and b is lacking");
    }
}
