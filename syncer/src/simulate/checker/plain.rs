//! What a key is, in the plainest form: everything that was ever said of it, joined, and what can be
//! seen of it at a time.
//!
//! Nothing is optimised, nothing is ever forgotten, and no code is shared with the model of the
//! node: these are the same rules written a second time, so that a slip in one of them shows.
//!
//! * A state and what a command did to it are the same thing, a [`Key`]; [`Key::join`] is all that
//!   ever happens to one. It keeps the later of two stamps, part by part.
//! * What is seen is worked out anew each time ([`Key::seen`]) and never stored.

use std::collections::BTreeMap;
use std::fmt;

/// When and where a command was carried out: the clock (milliseconds times 65536, and a count),
/// and the cluster.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Stamp {
    /// The clock.
    pub clock: u64,
    /// The cluster.
    pub cluster: u8,
}

impl Stamp {
    /// Below everything that was carried out at this millisecond or later.
    pub fn before_ms(ms: u64) -> Stamp {
        Stamp { clock: ms << 16, cluster: 0 }
    }

    /// Its millisecond.
    pub fn ms(self) -> u64 {
        self.clock >> 16
    }
}

impl fmt::Debug for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}@{}", self.ms(), self.clock & 0xFFFF, self.cluster)
    }
}

/// What a key can hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// One value.
    Text,
    /// Fields.
    Hash,
    /// Members: without values, which are empty here.
    Set,
    /// Members with scores: eight bytes, a float.
    Scores,
    /// Elements by position.
    List,
}

/// Bytes of a name or a value.
pub type Text = Vec<u8>;

/// Hides what is stamped below it, and what is stamped like it if `too`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Floor {
    /// Where it stands.
    pub stamp: Stamp,
    /// Its own stamp is hidden as well.
    pub too: bool,
}

impl Floor {
    /// A delete.
    pub fn below(stamp: Stamp) -> Floor {
        Floor { stamp, too: false }
    }

    /// A claim that lost.
    pub fn through(stamp: Stamp) -> Floor {
        Floor { stamp, too: true }
    }

    /// Whether something with this stamp is not seen.
    pub fn hides(self, stamp: Stamp) -> bool {
        if self.too { stamp <= self.stamp } else { stamp < self.stamp }
    }
}

/// The last value write of a key, and what kind it made it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Claim {
    /// When.
    pub stamp: Stamp,
    /// What.
    pub kind: Kind,
}

/// When a key ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Expiry {
    /// When this was said.
    pub stamp: Stamp,
    /// Of a key of this kind.
    pub kind: Kind,
    /// The millisecond, or 0 for never.
    pub end: u64,
    /// An earlier end that had passed when this was said: what it hid stays hidden.
    pub low: u64,
}

/// The last value of an element, or none when that was its removal.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Register {
    /// When.
    pub stamp: Stamp,
    /// What.
    pub value: Option<Text>,
}

/// Who counts: a cluster in one of its lives.
pub type Counter = (u8, u32);

/// Whose reset is a removal for good.
pub const NOBODY: Counter = (0, 0);

/// What one counter has added from `start` to `stamp`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sum {
    /// Its first increment.
    pub start: Stamp,
    /// Its last.
    pub stamp: Stamp,
    /// All of them.
    pub sum: i128,
}

/// What a register has taken into its own value, or away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reset {
    /// The sum's last increment then.
    pub stamp: Stamp,
    /// The sum then.
    pub sum: i128,
    /// The command that wrote the register.
    pub by: Stamp,
}

impl Reset {
    /// Whether the other one speaks of more of the sum, or of as much and was written later.
    pub fn loses_to(&self, other: &Reset) -> bool {
        (other.stamp, other.by, other.sum) > (self.stamp, self.by, self.sum)
    }
}

/// An element.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Element {
    /// Value or removal.
    pub register: Option<Register>,
    /// Sums on top of it.
    pub sums: BTreeMap<Counter, Sum>,
    /// Sums, or parts of them, that count no more.
    pub resets: BTreeMap<Counter, Reset>,
}

impl Element {
    /// Both.
    pub fn join(&mut self, other: &Element) {
        if other.register > self.register {
            self.register.clone_from(&other.register);
        }
        for (who, sum) in &other.sums {
            let mine = self.sums.entry(*who).or_insert(*sum);
            if (sum.stamp, sum.start, sum.sum) > (mine.stamp, mine.start, mine.sum) {
                *mine = *sum;
            }
        }
        for (who, reset) in &other.resets {
            let mine = self.resets.entry(*who).or_insert(*reset);
            if mine.loses_to(reset) {
                *mine = *reset;
            }
        }
    }

    /// What a counter adds, or none if nothing of it is left.
    pub fn adds(&self, who: Counter, floor: Floor) -> Option<i128> {
        let sum = self.sums.get(&who)?;
        if floor.hides(sum.start) {
            return None;
        }
        match self.resets.get(&who) {
            Some(reset) if sum.stamp <= reset.stamp => None,
            Some(reset) if sum.start <= reset.stamp => Some(sum.sum - reset.sum),
            _ => Some(sum.sum),
        }
    }

    /// Its value.
    pub fn value(&self, floor: Floor) -> Option<Text> {
        if self.resets.contains_key(&NOBODY) {
            return None;
        }
        let register = self.register.as_ref().filter(|register| !floor.hides(register.stamp));
        let base = register.and_then(|register| register.value.as_ref());
        let adds: Vec<i128> = self.sums.keys().filter_map(|who| self.adds(*who, floor)).collect();
        let shown = |number: i128| {
            let within = number.clamp(i128::from(i64::MIN), i128::from(i64::MAX));
            within.to_string().into_bytes()
        };
        match base {
            Some(base) if adds.is_empty() => Some(base.clone()),
            Some(base) => Some(match integer(base) {
                Some(number) => shown(i128::from(number) + adds.iter().sum::<i128>()),
                None => base.clone(),
            }),
            None if adds.is_empty() => None,
            None => Some(shown(adds.iter().sum())),
        }
    }

    /// Stamps of all that can be seen of it: of sums the first, which floors go by.
    fn seen_stamps(&self, floor: Floor) -> impl Iterator<Item = Stamp> {
        let gone = self.resets.contains_key(&NOBODY);
        let register = self.register.iter();
        let register = register.filter(move |register| register.value.is_some() && !gone);
        let register = register.map(|register| register.stamp).filter(move |s| !floor.hides(*s));
        let sums = self.sums.iter().filter(move |(who, _)| self.adds(**who, floor).is_some());
        register.chain(sums.map(|(_, sum)| sum.start))
    }

    /// The highest stamp in it.
    fn highest(&self) -> Stamp {
        let register = self.register.iter().map(|register| register.stamp);
        let sums = self.sums.values().map(|sum| sum.stamp);
        let resets = self.resets.values().map(|reset| reset.stamp.max(reset.by));
        register.chain(sums).chain(resets).max().unwrap_or_default()
    }
}

/// The number that a text is, written as Redis writes numbers.
pub fn integer(text: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(text).ok()?;
    let number: i64 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

/// The name of the only element of a text.
pub const ONLY: &[u8] = b"";

/// A key, or what a command did to it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Key {
    /// The last value write.
    pub claim: Option<Claim>,
    /// The last delete.
    pub floor: Floor,
    /// The last word on its end.
    pub expiry: Option<Expiry>,
    /// Elements of every kind that it ever was.
    pub elements: BTreeMap<(Kind, Text), Element>,
}

/// What can be seen of a key.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Seen {
    /// What it is, if it exists.
    pub kind: Option<Kind>,
    /// Elements with their values.
    pub values: BTreeMap<Text, Text>,
    /// When it will end.
    pub end: Option<u64>,
}

impl Key {
    /// Both.
    pub fn join(&mut self, other: &Key) {
        self.floor = self.floor.max(other.floor);
        if let (Some(mine), Some(theirs)) = (self.claim, other.claim)
            && mine.kind != theirs.kind
        {
            self.floor = self.floor.max(Floor::through(mine.min(theirs).stamp));
        }
        self.claim = self.claim.max(other.claim);
        self.expiry = self.expiry.max(other.expiry);
        for (name, element) in &other.elements {
            self.elements.entry(name.clone()).or_default().join(element);
        }
    }

    /// The same joined with another.
    pub fn with(&self, other: &Key) -> Key {
        let mut both = self.clone();
        both.join(other);
        both
    }

    /// The expiry, if it speaks of what the key is now.
    pub fn counting_expiry(&self) -> Option<Expiry> {
        let kind = self.claim?.kind;
        self.expiry.filter(|expiry| expiry.kind == kind && !self.floor.hides(expiry.stamp))
    }

    /// What hides its elements at a time.
    pub fn floor_at(&self, now: u64) -> Floor {
        let mut floor = self.floor;
        if let Some(expiry) = self.counting_expiry() {
            floor = floor.max(Floor::below(Stamp::before_ms(expiry.low)));
            if expiry.end != 0 && expiry.end <= now {
                floor = floor.max(Floor::below(Stamp::before_ms(expiry.end)));
            }
        }
        floor
    }

    /// Elements of the kind that it is.
    fn present(&self) -> impl Iterator<Item = (&Text, &Element)> {
        let kind = self.claim.map(|claim| claim.kind);
        let elements = self.elements.iter().filter(move |((of, _), _)| Some(*of) == kind);
        elements.map(|((_, name), element)| (name, element))
    }

    /// What can be seen of it at a time.
    pub fn seen(&self, now: u64) -> Seen {
        let floor = self.floor_at(now);
        let values = self
            .present()
            .filter_map(|(name, element)| element.value(floor).map(|value| (name.clone(), value)));
        let values: BTreeMap<Text, Text> = values.collect();
        if values.is_empty() {
            return Seen::default();
        }
        let expiry = self.counting_expiry().filter(|expiry| !floor.hides(expiry.stamp));
        let end = expiry.map(|expiry| expiry.end).filter(|end| *end > now);
        Seen { kind: self.claim.map(|claim| claim.kind), values, end }
    }

    /// The lowest stamp of all that can be seen of it at a time.
    pub fn lowest_seen(&self, now: u64) -> Option<Stamp> {
        let floor = self.floor_at(now);
        self.present().flat_map(|(_, element)| element.seen_stamps(floor)).min()
    }

    /// Whether an end hides anything of a kind that the floor does not hide.
    pub fn ends_any(&self, kind: Kind, end: u64) -> bool {
        let of = self.elements.iter().filter(|((of, _), _)| *of == kind);
        let mut stamps = of.flat_map(|(_, element)| element.seen_stamps(self.floor));
        stamps.any(|stamp| stamp < Stamp::before_ms(end))
    }

    /// The highest stamp in it.
    pub fn highest(&self) -> Stamp {
        let claim = self.claim.map_or(Stamp::default(), |claim| claim.stamp);
        let expiry = self.expiry.map_or(Stamp::default(), |expiry| expiry.stamp);
        let elements = self.elements.values().map(Element::highest).max().unwrap_or_default();
        claim.max(expiry).max(self.floor.stamp).max(elements)
    }
}
