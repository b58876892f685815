//! Whether what an entry says of a key is what the rules say.
//!
//! It must be that, word for word, with these liberties, which come from what a cluster may have
//! forgotten by then and a checker has not:
//! * A register need not take in sums that are gone where it was written, if they counted for
//!   nothing any more, nor sums of which more was taken in before, by a register that is known there.
//!   It may say the latter again. A cluster that lacks that other register, or the floor under which
//!   the sums went, shows them on top of this one until that arrives, too.
//! * The floor that a lost claim leaves may be said or not: everybody works it out from the claims.
//! * `low` may be higher than the rule says, as long as that hides nothing that is seen. It may be
//!   missing where all that it would hide is under the floor: an end is collected when everybody has
//!   all that it hides.

use super::plain::{Counter, Element, Floor, Key, Kind, Stamp, Text};
use std::collections::{BTreeMap, BTreeSet};

/// What an entry says of a key.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Written {
    /// It.
    pub said: Key,
    /// Counters whose sums the written elements still hold.
    pub holds: BTreeMap<(Kind, Text), BTreeSet<Counter>>,
}

/// A key before a command, and what the rules and the entry say that it did.
pub struct Case<'a> {
    /// Before.
    pub before: &'a Key,
    /// What the rules say.
    pub rules: &'a Key,
    /// What the entry says.
    pub entry: &'a Written,
    /// The group's clock, in milliseconds.
    pub now: u64,
}

impl Case<'_> {
    /// What is wrong, if anything is.
    pub fn wrong(&self) -> Option<String> {
        let (rules, entry) = (self.rules, &self.entry.said);
        if rules.claim != entry.claim {
            return Some(format!("claim {:?}, not {:?}", entry.claim, rules.claim));
        }
        let known = self.before.with(rules).floor;
        let derived = rules.floor == Floor::default() && entry.floor <= known;
        if rules.floor != entry.floor && !derived {
            return Some(format!("floor {:?}, not {:?}", entry.floor, rules.floor));
        }
        let names: BTreeSet<_> = rules.elements.keys().chain(entry.elements.keys()).collect();
        let none = Element::default();
        let elements = names.into_iter().find_map(|name| {
            let of = |key: &'_ Key| key.elements.get(name).cloned();
            let (rules, entry) = (of(rules), of(entry));
            let wrong = self.element(
                name,
                rules.as_ref().unwrap_or(&none),
                entry.as_ref().unwrap_or(&none),
            );
            wrong.map(|wrong| format!("{}: {wrong}", String::from_utf8_lossy(&name.1)))
        });
        self.expiry().or(elements)
    }

    fn expiry(&self) -> Option<String> {
        let (rules, entry) = (self.rules.expiry, self.entry.said.expiry);
        let wrong = || Some(format!("expiry {entry:?}, not {rules:?}"));
        let (Some(rule), Some(said)) = (rules, entry) else {
            return if rules == entry { None } else { wrong() };
        };
        let same = (rule.stamp, rule.kind, rule.end) == (said.stamp, said.kind, said.end);
        let known = self.before.with(self.rules);
        let needless = said.low == 0 && !known.ends_any(rule.kind, rule.low);
        if !same || (said.low < rule.low && !needless) {
            return wrong();
        }
        let seen = known.lowest_seen(self.now);
        let hides = |stamp| said.low > rule.low && stamp < Stamp::before_ms(said.low);
        let hidden = seen.filter(|stamp| hides(*stamp))?;
        Some(format!("low {} hides {hidden:?}, the rule says {}", said.low, rule.low))
    }

    fn element(&self, name: &(Kind, Text), rules: &Element, entry: &Element) -> Option<String> {
        if rules.register != entry.register {
            return Some(format!("{:?}, not {:?}", entry.register, rules.register));
        }
        if rules.sums != entry.sums {
            return Some(format!("{:?}, not {:?}", entry.sums, rules.sums));
        }
        let before = self.before.elements.get(name);
        let known = |who: &Counter| before.and_then(|element| element.resets.get(who));
        let mut said = entry.resets.iter();
        let more = said.find(|(who, reset)| {
            let rule = rules.resets.get(who);
            let again = known(who) == Some(*reset) && rule.is_none_or(|rule| rule.loses_to(reset));
            rule != Some(*reset) && !again
        });
        if let Some((who, reset)) = more {
            return Some(format!("takes in {reset:?}, not {:?}", rules.resets.get(who)));
        }
        let mut missed = rules.resets.iter().filter(|(who, rule)| {
            let taken = known(who).is_some_and(|before| rule.loses_to(before));
            let here = self.holds(name, **who) || self.counts(name, **who);
            !entry.resets.contains_key(who) && here && !taken
        });
        missed.next().map(|(_, rule)| format!("does not take in {rule:?}"))
    }

    fn holds(&self, name: &(Kind, Text), who: Counter) -> bool {
        self.entry.holds.get(name).is_some_and(|holds| holds.contains(&who))
    }

    /// Whether a sum counts for anything before the command, if a floor of the command is not
    /// enough to end that.
    fn counts(&self, name: &(Kind, Text), who: Counter) -> bool {
        let mut floored = self.before.clone();
        floored.floor = floored.floor.max(self.rules.floor);
        let floor = floored.floor_at(self.now);
        self.before.elements.get(name).is_some_and(|element| element.adds(who, floor).is_some())
    }
}
