//! Looks at everything that a file says and collects what is wrong with it.
//!
//! Each section is checked even when an earlier one is wrong; what could not be made out is left
//! out of the draft, and checks that build on it are left out with it, so that one mistake is one
//! problem and not ten.

mod clusters;
mod links;
mod places;
pub(crate) mod wants;

use super::problem::Problem;
use super::raw::{self, At, Lines, RawFile};
use super::{Mode, TopologyFile};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use toml::Spanned;

/// What could be made out of a file, and the lines to name when its plan is found wrong.
pub(crate) struct Draft {
    /// The declaration.
    pub file: TopologyFile,
    /// Where `mode` stands.
    pub mode_line: usize,
    /// Where the wants stand.
    pub wants: wants::WantLines,
    /// Whether datacenters and clusters are right: what survives can be told.
    pub shape_known: bool,
    /// Whether the round trip times are right too: latencies can be told.
    pub times_known: bool,
}

/// Reads and checks a file. `Err` is what ends the reading, the rest goes to `problems`.
pub(crate) fn read(text: &str, problems: &mut Vec<Problem>) -> Result<Draft, Problem> {
    let lines = Lines::of(text);
    let raw = raw::read(text, &lines)?;
    Ok(draft(&raw, &lines, problems))
}

fn draft(raw: &RawFile, lines: &Lines, problems: &mut Vec<Problem>) -> Draft {
    let mut checker = Checker { lines, problems, aside: 0 };
    let regions = places::regions(&mut checker, raw);
    let datacenters = places::datacenters(&mut checker, raw, &regions);
    let clusters = clusters::clusters(&mut checker, raw, &datacenters);
    let (mode, mode_line) = mode(&mut checker, raw);
    let shape_known = checker.problems.len() == checker.aside;

    let rtts = places::rtts(&mut checker, raw, &datacenters);
    let times_known = checker.problems.len() == checker.aside;

    let links = links::links(&mut checker, raw, &clusters);
    let (wants, want_lines) = wants::wants(&mut checker, raw, &regions, &datacenters);
    let file = TopologyFile {
        mode,
        regions: regions.into_iter().map(|region| region.value).collect(),
        wants,
        datacenters: datacenters.into_iter().map(|datacenter| datacenter.value).collect(),
        rtts,
        clusters: clusters.into_iter().map(|cluster| cluster.value).collect(),
        links,
    };
    Draft { file, mode_line, wants: want_lines, shape_known, times_known }
}

fn mode(checker: &mut Checker<'_>, raw: &RawFile) -> (Option<Mode>, usize) {
    let Some(mode) = &raw.mode else { return (None, 1) };
    let At { line, value } = checker.lines.locate(mode);
    let known = [Mode::Async, Mode::Stretched, Mode::Mixed];
    let mode = known.into_iter().find(|mode| mode.as_str() == value);
    if mode.is_none() {
        checker.problem(
            line,
            format!("mode \"{value}\" does not exist"),
            "write \"async\" or \"stretched\", or leave mode out to have it selected",
        );
    }
    (mode, line)
}

/// Stands in for the name of a cluster that has none: no name has a space.
const UNNAMED: &str = "the cluster";
/// Longest name.
const NAME_BYTES_MAX: usize = 64;

/// Collects problems, and keeps the checks that every section needs.
struct Checker<'a> {
    lines: &'a Lines,
    problems: &'a mut Vec<Problem>,
    /// How many of them (addresses) leave clear what stands where.
    aside: usize,
}

impl Checker<'_> {
    fn problem(&mut self, line: usize, message: String, remedy: impl Into<String>) {
        self.problems.push(Problem { line, message, remedy: remedy.into() });
    }

    /// A name that must be there: 1 to 64 of `a-z A-Z 0-9 . _ -`, because it stands in
    /// certificates, file names and metrics.
    fn name(
        &mut self,
        what: &str,
        table: usize,
        name: Option<&Spanned<String>>,
    ) -> Option<At<String>> {
        let Some(name) = name else {
            self.problem(table, format!("{what} without a name"), "add name = \"...\"");
            return None;
        };
        let At { line, value } = self.lines.locate(name);
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        let starts_well = value.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
        if !starts_well || value.len() > NAME_BYTES_MAX || !value.bytes().all(plain) {
            self.problem(
                line,
                format!("{what} name {value:?} is not allowed"),
                "use 1 to 64 of a-z A-Z 0-9 . _ - and begin with a letter or digit",
            );
            return None;
        }
        Some(At { line, value: value.clone() })
    }

    /// Tells of the second use of a name, id or address.
    fn unique<K: Ord + Display>(
        &mut self,
        what: &str,
        seen: &mut BTreeMap<K, usize>,
        key: K,
        line: usize,
    ) {
        if let Some(first) = seen.get(&key) {
            let message = format!("{what} {key} stands on line {first} already");
            self.problem(line, message, "change or delete one of the two");
        } else {
            seen.insert(key, line);
        }
    }

    /// One of `known`, or a problem that lists them.
    fn known(&mut self, what: &str, name: &At<&String>, known: &[&str]) -> bool {
        if known.contains(&name.value.as_str()) {
            return true;
        }
        let remedy = if known.is_empty() {
            format!("declare it; the file has no {what}")
        } else {
            let names: Vec<&str> =
                known.iter().copied().collect::<BTreeSet<_>>().into_iter().collect();
            format!("declare it, or use one of {}", names.join(", "))
        };
        self.problem(name.line, format!("{what} {:?} is unknown", name.value), remedy);
        false
    }
}
