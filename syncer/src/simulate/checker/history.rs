//! One plain state for each group, joined from what was committed there and what arrived, in the
//! order of the group's log; and the judgement of every command on the way.
//!
//! What arrived is known by the cursors: an entry that moves the cursor of a source group brings
//! everything that this group's entries said up to there. Only rows of a full state come without
//! one; they must say nothing that their source did not know.

use super::judge::{Case, Written};
use super::local::{Answer, Place, carry_out};
use super::ordered::shown;
use super::plain::{Counter, Key, Kind, Seen, Stamp, Text};
use std::collections::BTreeMap;

/// A group: cluster and group, by place.
pub type At = (usize, usize);

/// What a group is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupIs {
    /// Its cluster, in its present life.
    pub counter: Counter,
    /// Its first and last slot.
    pub slots: (u16, u16),
}

/// What was said of a key, which lies in a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// The key's name.
    pub key: Text,
    /// Its slot.
    pub slot: u16,
    /// What was said.
    pub written: Written,
}

/// A command as it was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// Its words; the second names the key.
    pub words: Vec<Text>,
    /// The group's clock, in milliseconds.
    pub now: u64,
    /// What the product showed of the key, as [`lines`] would.
    pub before: Option<Vec<String>>,
}

/// An entry that took effect.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Entry {
    /// Where it stands in the log.
    pub index: u64,
    /// The lowest stamp that it names.
    pub first: Stamp,
    /// The highest.
    pub last: Stamp,
    /// The group's clock from then on.
    pub clock: u64,
}

/// A group as the rules have it.
struct Group {
    is: GroupIs,
    keys: BTreeMap<Text, Key>,
    clock: u64,
    highest: Stamp,
    /// What its own entries said, by index.
    said: Vec<(u64, Told)>,
    /// How much of what each source group said has arrived.
    arrived: BTreeMap<At, usize>,
}

/// Where the rules and the product part, or nothing.
pub type Verdict<T = ()> = Result<T, String>;

/// See the module.
#[derive(Default)]
pub struct History {
    groups: BTreeMap<At, Group>,
    /// Everything that was ever said.
    all: BTreeMap<Text, Key>,
}

/// What is seen, as commands show it: type, value or elements, number of elements, end.
pub fn lines(seen: &Seen) -> Vec<String> {
    let text = |bytes: &Text| String::from_utf8_lossy(bytes).into_owned();
    let end = seen.end.map_or("-1".to_owned(), |end| end.to_string());
    match seen.kind {
        None => vec!["none".to_owned(), "-2".to_owned()],
        Some(Kind::Text) => {
            let value = seen.values.values().map(text).collect();
            vec!["string".to_owned(), value, end]
        }
        Some(Kind::Hash) => {
            let pairs = seen.values.iter().flat_map(|(name, value)| [text(name), text(value)]);
            let pairs: Vec<String> = pairs.collect();
            vec!["hash".to_owned(), pairs.join(" "), seen.values.len().to_string(), end]
        }
        Some(Kind::Set) => {
            let members: Vec<String> = seen.values.keys().map(text).collect();
            vec!["set".to_owned(), members.join(" "), members.len().to_string(), end]
        }
        Some(Kind::Scores) => {
            let mut members: Vec<(f64, String)> =
                seen.values.iter().map(|(name, value)| (shown(value), text(name))).collect();
            members.sort_by(|(a, one), (b, other)| a.total_cmp(b).then_with(|| one.cmp(other)));
            let pairs: Vec<String> =
                members.iter().map(|(score, name)| format!("{name} {score}")).collect();
            vec!["zset".to_owned(), pairs.join(" "), pairs.len().to_string(), end]
        }
        Some(Kind::List) => {
            let values: Vec<String> = seen.values.values().map(text).collect();
            vec!["list".to_owned(), values.join(" "), values.len().to_string(), end]
        }
    }
}

impl Command {
    /// In one line.
    pub fn line(&self) -> String {
        let words = self.words.iter().map(|word| String::from_utf8_lossy(word));
        format!("{} at {}", words.collect::<Vec<_>>().join(" "), self.now)
    }
}

impl Group {
    fn key(&self, name: &Text) -> Key {
        self.keys.get(name).cloned().unwrap_or_default()
    }

    fn join(&mut self, told: &Told) {
        self.keys.entry(told.key.clone()).or_default().join(&told.written.said);
        self.highest = self.highest.max(told.written.said.highest());
    }

    fn owns(&self, slot: u16) -> bool {
        (self.is.slots.0..=self.is.slots.1).contains(&slot)
    }

    /// What the rules say of a command, once the product has seen what it should.
    fn carry_out(&self, command: &Command, place: Place<'_>) -> Verdict<(Key, Key, Answer)> {
        let before = self.key(&command.words[1]);
        let want = lines(&before.seen(place.now));
        if let Some(found) = command.before.as_ref().filter(|found| **found != want) {
            return Err(format!("{} found {found:?}, there was {want:?}", command.line()));
        }
        let words: Vec<&[u8]> = command.words.iter().map(|word| &word[..]).collect();
        let outcome = carry_out(&before, &words, place);
        match outcome.answer {
            Answer::NoRule => Err(format!(
                "there is no rule for {}: write one in simulate/checker/local.rs",
                command.line()
            )),
            answer => Ok((before, outcome.said, answer)),
        }
    }

    /// An entry that says anything has one stamp, and one that is above all that was known here.
    fn check_stamp(&self, entry: &Entry) -> Verdict {
        let Entry { first, last, .. } = *entry;
        let is_new = last > self.highest && last.clock > self.clock;
        if first == last && is_new && last.cluster == self.is.counter.0 {
            return Ok(());
        }
        let (ms, highest) = (self.clock >> 16, self.highest);
        Err(format!("stamps {first:?} to {last:?}, while {highest:?} was here, at {ms}"))
    }
}

impl History {
    /// A group that has no entries yet.
    pub fn add(&mut self, at: At, is: GroupIs) {
        let group = Group {
            is,
            keys: BTreeMap::new(),
            clock: 0,
            highest: Stamp::default(),
            said: Vec::new(),
            arrived: BTreeMap::new(),
        };
        self.groups.insert(at, group);
    }

    fn group(&mut self, at: At) -> &mut Group {
        self.groups.get_mut(&at).expect("entries are of groups that were added")
    }

    /// An entry of the group's own with what it says, and the command that it carries, if it does;
    /// the answer that the rules have for that.
    pub fn own(
        &mut self,
        at: At,
        entry: &Entry,
        told: Vec<Told>,
        command: Option<&Command>,
    ) -> Verdict<Option<Answer>> {
        let group = self.groups.get_mut(&at).expect("entries are of groups that were added");
        if entry.clock < group.clock {
            return Err(format!("the clock goes from {} back to {}", group.clock, entry.clock));
        }
        let mut answer = None;
        if let Some(command) = command {
            if !told.is_empty() {
                group.check_stamp(entry)?;
            }
            answer = Some(group.command(entry, &told, command)?);
        } else if let Some(told) = told.first() {
            return Err(format!("an entry without a command says {:?}", told.written.said));
        }
        group.clock = entry.clock;
        group.highest = group.highest.max(entry.last);
        for told in told {
            group.join(&told);
            self.all.entry(told.key.clone()).or_default().join(&told.written.said);
            group.said.push((entry.index, told));
        }
        Ok(answer)
    }

    /// A command that wrote nothing, as the group stands now.
    pub fn idle(&self, at: At, command: &Command) -> Verdict<Answer> {
        let group = &self.groups[&at];
        let now = command.now;
        let counter = group.is.counter;
        // Any stamp that it could have had; with none a delete would look like nothing.
        let stamp = Stamp { clock: group.clock.max(now << 16) + 1, cluster: counter.0 };
        let place = Place { stamp, now, counter, fresh: &[] };
        let (before, said, answer) = group.carry_out(command, place)?;
        if said != Key::default() {
            return Err(format!("{} said nothing, it should {said:?}", command.line()));
        }
        let ends = before.counting_expiry().map_or(0, |expiry| expiry.end);
        if ends > group.clock >> 16 && ends <= now {
            return Err(format!("{} saw the end at {ends}, which is in no entry", command.line()));
        }
        Ok(answer)
    }

    /// An entry brings what a source group has said up to an index.
    pub fn arrives(&mut self, at: At, entry: &Entry, source: At, index: u64) {
        let from = &self.groups[&source].said;
        let group = &self.groups[&at];
        let had = group.arrived.get(&source).copied().unwrap_or(0);
        let upto = from.partition_point(|(said, _)| *said <= index).max(had);
        let news = from[had..upto].iter().filter(|(_, told)| group.owns(told.slot));
        let news: Vec<Told> = news.map(|(_, told)| told.clone()).collect();
        let group = self.group(at);
        group.arrived.insert(source, upto);
        news.iter().for_each(|told| group.join(told));
        group.clock = group.clock.max(entry.clock);
    }

    /// An entry brings rows of a full state of another cluster.
    pub fn rows_arrive(&mut self, at: At, entry: &Entry, cluster: usize, rows: &[Told]) -> Verdict {
        for row in rows {
            let mut sources = self.groups.iter().filter(|((of, _), _)| *of == cluster);
            let source = sources.find(|(_, source)| source.owns(row.slot));
            let known = source.map(|(_, source)| source.key(&row.key)).unwrap_or_default();
            let both = known.with(&row.written.said);
            if both != known {
                return Err(format!("a full state says {:?} of {known:?}", row.written.said));
            }
        }
        let group = self.group(at);
        rows.iter().for_each(|row| group.join(row));
        group.clock = group.clock.max(entry.clock);
        Ok(())
    }

    /// An entry that says nothing of keys.
    pub fn nothing(&mut self, at: At, entry: &Entry) {
        let group = self.group(at);
        group.clock = group.clock.max(entry.clock);
    }

    /// What everybody must show of a key once everything has arrived.
    pub fn shows(&self, key: &[u8], now: u64) -> Vec<String> {
        lines(&self.all.get(key).map(|key| key.seen(now)).unwrap_or_default())
    }

    /// What a group must show of a key as it stands now.
    pub fn shows_at(&self, at: At, key: &[u8], now: u64) -> Vec<String> {
        lines(&self.groups[&at].keys.get(key).map(|key| key.seen(now)).unwrap_or_default())
    }

    /// Everything that was ever said of a key.
    pub fn all_of(&self, key: &[u8]) -> Key {
        self.all.get(key).cloned().unwrap_or_default()
    }
}

impl Group {
    /// Positions of a list that are named for the first time.
    fn fresh(&self, told: &[Told]) -> Vec<Text> {
        let named = told.iter().flat_map(|told| {
            let known = self.keys.get(&told.key);
            let names = told.written.said.elements.keys();
            names.filter(move |name| known.is_none_or(|key| !key.elements.contains_key(*name)))
        });
        let of_lists = named.filter(|(kind, _)| *kind == Kind::List);
        of_lists.map(|(_, position)| position.clone()).collect()
    }

    /// Judges what an entry says for a command.
    fn command(&self, entry: &Entry, told: &[Told], command: &Command) -> Verdict<Answer> {
        let now = if told.is_empty() { command.now } else { entry.last.ms() };
        let fresh = self.fresh(told);
        let place = Place { stamp: entry.last, now, counter: self.is.counter, fresh: &fresh };
        let (before, said, answer) = self.carry_out(command, place)?;
        let name = &command.words[1];
        if let Some(other) = told.iter().find(|told| told.key != *name) {
            let key = String::from_utf8_lossy(&other.key);
            return Err(format!("{} says something of {key}", command.line()));
        }
        let nothing = Written::default();
        let written = told.first().map_or(&nothing, |told| &told.written);
        let case = Case { before: &before, rules: &said, entry: written, now };
        if let Some(wrong) = case.wrong() {
            return Err(format!(
                "{} with stamp {:?}: {wrong}; the key was {before:?}",
                command.line(),
                entry.last
            ));
        }
        Ok(answer)
    }
}
