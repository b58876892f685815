//! What of the clusters is compared.

use crate::exit::Exit;
use flotilla_topology::api::{ClusterMap, NamespaceSpec};
use flotilla_topology::slot::{SLOT_COUNT, Slot, SlotRange};

/// Which namespaces and slots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    /// One, or all that are synced.
    pub namespace: Option<String>,
    /// Of each.
    pub slots: SlotRange,
}

impl Scope {
    /// Everything that is synced.
    pub fn all() -> Scope {
        Scope { namespace: None, slots: SlotRange::ALL }
    }

    /// Whether a namespace is in it.
    pub fn has(&self, spec: &NamespaceSpec) -> bool {
        spec.synced && self.namespace.as_ref().is_none_or(|name| *name == spec.name)
    }

    /// Refuses a namespace that no cluster has: nothing would be compared, and called equal.
    pub fn check<'m>(&self, maps: impl Iterator<Item = &'m ClusterMap>) -> anyhow::Result<()> {
        let Some(name) = &self.namespace else { return Ok(()) };
        let mut all: Vec<&NamespaceSpec> =
            maps.flat_map(|map| &map.namespaces).map(|known| &known.spec).collect();
        if all.iter().any(|spec| self.has(spec)) {
            return Ok(());
        }
        all.retain(|spec| spec.synced);
        let mut names: Vec<&str> = all.iter().map(|spec| spec.name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        Err(Exit::usage(format!("no cluster has a synced namespace `{name}`: there are {names}")))
    }
}

/// Reads `A-B` or `A`.
pub fn parse_slots(text: &str) -> Result<SlotRange, String> {
    let last = SLOT_COUNT - 1;
    let slot = |text: &str| {
        let number = text.parse::<u16>().ok().filter(|number| *number <= last);
        number.map(Slot).ok_or_else(|| format!("give slots as A-B, each 0 to {last}"))
    };
    let (first, end) = text.split_once('-').unwrap_or((text, text));
    let (first, end) = (slot(first)?, slot(end)?);
    match first <= end {
        true => Ok(SlotRange { first, last: end }),
        false => Err(format!("the first slot ({first}) is behind the last one ({end})")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_a_range_or_one_and_nonsense_is_refused() {
        let range = |first, last| SlotRange { first: Slot(first), last: Slot(last) };
        assert_eq!(parse_slots("7-2101"), Ok(range(7, 2101)));
        assert_eq!(parse_slots("7"), Ok(range(7, 7)));
        assert_eq!(parse_slots("0-16383"), Ok(SlotRange::ALL));
        for bad in ["", "-", "a", "7-", "-7", "9-7", "0-16384", "1-2-3", "7,9", " 7"] {
            let line = parse_slots(bad).unwrap_err();
            assert!(!line.contains('\n'), "{bad}: {line}");
        }
    }
}
