//! Small histories by hand: what the rules allow, and that anything else is found.

mod counters;

mod ends;

mod floors;

mod full_state;

mod whole;

use super::history::{At, Command, Entry, GroupIs, History, Told, Verdict};
use super::judge::Written;
use super::local::Answer;
use super::plain::{
    Claim, Counter, Element, Expiry, Floor, Key, Kind, Register, Reset, Stamp, Sum, Text,
};
use std::collections::BTreeSet;

/// Clusters 1, 2 and 3, with one group each. A command at a millisecond has its first stamp.
struct Story {
    history: History,
    entries: u64,
}

const ALL: (u16, u16) = (0, 16_383);

fn at(cluster: u8) -> At {
    (usize::from(cluster) - 1, 0)
}

fn stamp(ms: u64, cluster: u8) -> Stamp {
    Stamp { clock: ms << 16, cluster }
}

fn counter(cluster: u8) -> Counter {
    (cluster, 1)
}

fn words(line: &str) -> Vec<Text> {
    line.split(' ').map(|word| word.into()).collect()
}

impl Story {
    fn new() -> Story {
        let mut history = History::default();
        for cluster in 1..=3 {
            history.add(at(cluster), GroupIs { counter: counter(cluster), slots: ALL });
        }
        Story { history, entries: 0 }
    }

    /// A command whose entry says this, if anything: see [`said`].
    fn does(&mut self, cluster: u8, ms: u64, line: &str, says: &str) -> Verdict<Answer> {
        self.does_at(cluster, stamp(ms, cluster), line, said(says, stamp(ms, cluster)))
    }

    fn does_at(&mut self, cluster: u8, at_: Stamp, line: &str, says: Written) -> Verdict<Answer> {
        let command = Command { words: words(line), now: at_.ms(), before: None };
        if says.said == Key::default() {
            return self.history.idle(at(cluster), &command);
        }
        self.entries += 1;
        let entry = Entry { index: self.entries, first: at_, last: at_, clock: at_.clock };
        let told = Told { key: command.words[1].clone(), slot: 7, written: says };
        let answer = self.history.own(at(cluster), &entry, vec![told], Some(&command))?;
        Ok(answer.expect("an entry with a command has an answer"))
    }

    /// The same, and it is right.
    fn did(&mut self, cluster: u8, ms: u64, line: &str, says: &str) -> &mut Story {
        self.does(cluster, ms, line, says).unwrap_or_else(|wrong| panic!("{line}: {wrong}"));
        self
    }

    /// Each of these would be wrong.
    fn never(&mut self, cluster: u8, ms: u64, line: &str, says: &[&str]) -> &mut Story {
        for says in says {
            let verdict = self.does(cluster, ms, line, says);
            assert!(verdict.is_err(), "{line} at {ms} may say {says:?}: {verdict:?}");
        }
        self
    }

    /// Everything that `from` has said arrives.
    fn arrives(&mut self, from: u8, to: u8) -> &mut Story {
        let entry = Entry { index: 0, ..Entry::default() };
        self.history.arrives(at(to), &entry, at(from), self.entries);
        self
    }

    fn all_arrives(&mut self) -> &mut Story {
        let pairs = (1..=3).flat_map(|from| (1..=3).map(move |to| (from, to)));
        pairs
            .filter(|(from, to)| from != to)
            .fold(self, |story, (from, to)| story.arrives(from, to))
    }

    /// What a cluster shows of a key.
    fn shows(&mut self, cluster: u8, ms: u64, key: &str, want: &str) -> &mut Story {
        let shown = self.history.shows_at(at(cluster), key.as_bytes(), ms).join(" ");
        assert_eq!(shown, want, "{key} at {ms} in cluster {cluster}");
        self
    }

    /// All clusters show this once everything has arrived.
    fn ends(&mut self, ms: u64, key: &str, want: &str) {
        self.all_arrives();
        assert_eq!(self.history.shows(key.as_bytes(), ms).join(" "), want, "{key} at {ms}");
        for cluster in 1..=3 {
            self.shows(cluster, ms, key, want);
        }
    }
}

/// What an entry says with a stamp, in words apart by `;`:
/// `hash` or `text` (a claim), `floor`, `over 4@2` (the floor of a claim that lost), `ends hash 30`
/// or `ends hash 30 low 5`, `f=1`, `f gone`, `f sum 4 since 26`, `f takes 4@26.2` (a sum of 4 that
/// cluster 2 had at 26), `f keeps 2` (the row still holds cluster 2's sum). A text is the element `.`.
fn said(text: &str, stamp: Stamp) -> Written {
    let mut written = Written::default();
    let mut kind = Kind::Hash;
    for part in text.split(';').map(str::trim).filter(|part| !part.is_empty()) {
        let words: Vec<&str> = part.split(' ').collect();
        if ["hash", "text"].contains(&words[0]) {
            kind = kind_of(words[0]);
        }
        part_of(&mut written, kind, &words, stamp);
    }
    written
}

fn kind_of(word: &str) -> Kind {
    if word == "hash" { Kind::Hash } else { Kind::Text }
}

fn number<T: std::str::FromStr>(word: &str) -> T {
    word.parse().unwrap_or_else(|_| panic!("{word} is a number"))
}

fn split(word: &str, by: char) -> (&str, &str) {
    word.split_once(by).unwrap_or_else(|| panic!("{word} has a {by}"))
}

fn part_of(written: &mut Written, kind: Kind, words: &[&str], at: Stamp) {
    let key = &mut written.said;
    match words {
        ["hash" | "text"] => key.claim = Some(Claim { stamp: at, kind }),
        ["floor"] => key.floor = Floor::below(at),
        ["over", of] => {
            let (ms, cluster) = split(of, '@');
            key.floor = Floor::through(stamp(number(ms), number(cluster)));
        }
        ["ends", kind, end, rest @ ..] => {
            let low = rest.get(1).map_or(0, |low| number(low));
            let (kind, end) = (kind_of(kind), number(end));
            key.expiry = Some(Expiry { stamp: at, kind, end, low });
        }
        [name, rest @ ..] => {
            let (name, value) = name.split_once('=').map_or((*name, None), |(n, v)| (n, Some(v)));
            let name = (kind, if name == "." { Text::new() } else { name.into() });
            if let ["keeps", cluster] = rest {
                let holds = BTreeSet::from([counter(number(cluster))]);
                written.holds.insert(name, holds);
                return;
            }
            let element = key.elements.entry(name).or_default();
            match value {
                Some(value) => set(element, at, Some(value.into())),
                None => element_of(element, rest, at),
            }
        }
        [] => {}
    }
}

fn set(element: &mut Element, stamp: Stamp, value: Option<Text>) {
    element.register = Some(Register { stamp, value });
}

fn element_of(element: &mut Element, words: &[&str], at: Stamp) {
    match words {
        ["gone"] => set(element, at, None),
        ["sum", sum, "since", start] => {
            let start = stamp(number(start), at.cluster);
            let sum = Sum { start, stamp: at, sum: number(sum) };
            element.sums.insert(counter(at.cluster), sum);
        }
        ["takes", what] => {
            let (sum, from) = split(what, '@');
            let (ms, cluster) = split(from, '.');
            let cluster = number(cluster);
            let reset = Reset { stamp: stamp(number(ms), cluster), sum: number(sum), by: at };
            element.resets.insert(counter(cluster), reset);
        }
        other => panic!("no such words: {other:?}"),
    }
}
