//! Regions, datacenters and the time between them.

use super::super::raw::{At, RawFile};
use super::super::{DATACENTERS_MAX, Datacenter, RTT_MS_MAX, Rtt};
use super::Checker;
use crate::duration::Ms;
use std::collections::BTreeMap;

/// Words of `survive` that mean any one of a kind, so no place may have them as its name.
pub(super) const KINDS: [&str; 3] = ["datacenter", "region", "link"];

pub(super) fn regions(checker: &mut Checker<'_>, raw: &RawFile) -> Vec<At<String>> {
    let mut seen = BTreeMap::new();
    let mut regions = Vec::new();
    for region in &raw.regions {
        let line = checker.lines.locate(region).line;
        if let Some(name) = checker.name("region", line, Some(region)) {
            checker.unique("region", &mut seen, name.value.clone(), line);
            refuse_kind(checker, "region", &name);
            regions.push(name);
        }
    }
    regions
}

fn refuse_kind(checker: &mut Checker<'_>, what: &str, name: &At<String>) {
    if KINDS.contains(&name.value.as_str()) {
        checker.problem(
            name.line,
            format!("a {what} cannot be named {:?}, which means any one of them", name.value),
            "give it another name",
        );
    }
}

pub(super) fn datacenters(
    checker: &mut Checker<'_>,
    raw: &RawFile,
    regions: &[At<String>],
) -> Vec<At<Datacenter>> {
    let known: Vec<&str> = regions.iter().map(|region| region.value.as_str()).collect();
    let mut seen = BTreeMap::new();
    let mut datacenters = Vec::new();
    for table in &raw.datacenters {
        let At { line, value } = checker.lines.locate(table);
        let region = value.region.as_ref().map(|region| checker.lines.locate(region));
        if let Some(region) = &region {
            checker.known("region", region, &known);
        }
        let Some(name) = checker.name("datacenter", line, value.name.as_ref()) else { continue };
        checker.unique("datacenter", &mut seen, name.value.clone(), name.line);
        refuse_kind(checker, "datacenter", &name);
        if known.contains(&name.value.as_str()) {
            let message = format!("{} is a region and a datacenter", name.value);
            checker.problem(name.line, message, "give one of them another name");
        }
        let region = region.map(|region| region.value.clone());
        datacenters.push(At { line: name.line, value: Datacenter { name: name.value, region } });
    }
    if raw.datacenters.is_empty() {
        let remedy = "add [[datacenter]] with a name for each place that can fail on its own";
        checker.problem(1, "the file has no datacenter".to_owned(), remedy);
    }
    if let Some(extra) = datacenters.get(DATACENTERS_MAX) {
        checker.problem(
            extra.line,
            format!("more than {DATACENTERS_MAX} datacenters"),
            "describe them in several files",
        );
    }
    datacenters
}

pub(super) fn rtts(
    checker: &mut Checker<'_>,
    raw: &RawFile,
    datacenters: &[At<Datacenter>],
) -> Vec<Rtt> {
    let known: Vec<&str> = datacenters.iter().map(|d| d.value.name.as_str()).collect();
    let mut pairs: BTreeMap<[String; 2], usize> = BTreeMap::new();
    let mut rtts = Vec::new();
    for table in &raw.rtts {
        let At { line, value } = checker.lines.locate(table);
        let time = time(checker, line, value.rtt.as_ref());
        let ends: Vec<At<&String>> =
            value.between.iter().map(|end| checker.lines.locate(end)).collect();
        let [a, b] = ends.as_slice() else {
            let message = format!("a round trip time between {} datacenters", ends.len());
            checker.problem(line, message, "write between = [\"...\", \"...\"] with two names");
            continue;
        };
        let both_known =
            [a, b].map(|end| checker.known("datacenter", end, &known)).iter().all(|known| *known);
        if a.value == b.value {
            let message = format!("a round trip time from {} to itself", a.value);
            checker.problem(a.line, message, "name two datacenters, or delete it");
            continue;
        }
        let between = [a.value.clone(), b.value.clone()];
        let mut pair = between.clone();
        pair.sort();
        if let Some(first) = pairs.get(&pair) {
            let message = format!(
                "the time between {} and {} stands on line {first} already",
                a.value, b.value
            );
            checker.problem(line, message, "delete one of the two");
        } else {
            pairs.insert(pair, line);
        }
        if let (true, Some(rtt)) = (both_known, time) {
            rtts.push(Rtt { between, rtt });
        }
    }
    missing(checker, datacenters, &pairs);
    rtts
}

fn time(
    checker: &mut Checker<'_>,
    table: usize,
    rtt: Option<&toml::Spanned<String>>,
) -> Option<Ms> {
    let Some(rtt) = rtt else {
        let message = "a pair of datacenters without a round trip time".to_owned();
        checker.problem(table, message, "add rtt = \"60ms\", as measured");
        return None;
    };
    let At { line, value } = checker.lines.locate(rtt);
    match value.parse::<Ms>() {
        Ok(time) if time.ms() <= RTT_MS_MAX => Some(time),
        Ok(time) => {
            let message = format!("a round trip time of {time} is above {RTT_MS_MAX} ms");
            checker.problem(line, message, "write what `ping` shows between the two");
            None
        }
        Err(error) => {
            checker.problem(line, "the round trip time cannot be read".into(), error.to_string());
            None
        }
    }
}

/// Every pair needs its time: elections, windows and the plan are made from it, and a guess would
/// be wrong without anyone seeing it.
fn missing(
    checker: &mut Checker<'_>,
    datacenters: &[At<Datacenter>],
    pairs: &BTreeMap<[String; 2], usize>,
) {
    for (i, later) in datacenters.iter().enumerate().take(DATACENTERS_MAX) {
        for earlier in &datacenters[..i] {
            let (a, b) = (&earlier.value.name, &later.value.name);
            let mut pair = [a.clone(), b.clone()];
            pair.sort();
            if a != b && !pairs.contains_key(&pair) {
                checker.problem(
                    later.line,
                    format!("the round trip time between {a} and {b} is missing"),
                    format!("add [[rtt]] with between = [\"{a}\", \"{b}\"] and rtt = \"...\""),
                );
            }
        }
    }
}
