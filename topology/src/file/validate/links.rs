//! Links: all of them or none listed, since anything less than a full mesh does not hold.

use super::super::raw::{At, RawFile};
use super::super::{Cluster, Link};
use super::{Checker, UNNAMED};
use std::collections::{BTreeMap, BTreeSet};
use toml::Spanned;

pub(super) fn links(
    checker: &mut Checker<'_>,
    raw: &RawFile,
    clusters: &[At<Cluster>],
) -> Vec<Link> {
    let Some(first) = raw.links.first() else { return Vec::new() };
    let first_line = checker.lines.locate(first).line;
    let names: BTreeSet<&str> = clusters.iter().map(|c| c.value.name.as_str()).collect();
    let known: Vec<&str> = names.into_iter().filter(|name| *name != UNNAMED).collect();
    let mut seen: BTreeMap<Link, usize> = BTreeMap::new();
    let mut links = Vec::new();
    let before = checker.problems.len();
    for table in &raw.links {
        let At { line, value } = checker.lines.locate(table);
        let from = end(checker, "from", line, value.from.as_ref(), &known);
        let to = end(checker, "to", line, value.to.as_ref(), &known);
        let (Some(from), Some(to)) = (from, to) else { continue };
        if from == to {
            let message = format!("a link from {from} to itself");
            checker.problem(line, message, "name two clusters, or delete it");
            continue;
        }
        let link = Link { from, to };
        if let Some(first) = seen.get(&link) {
            let message = format!(
                "the link from {} to {} stands on line {first} already",
                link.from, link.to
            );
            checker.problem(line, message, "delete one of the two");
        } else {
            links.push(link.clone());
            seen.insert(link, line);
        }
    }
    // A link that could not be read may be the one that seems to be missing.
    if checker.problems.len() == before {
        complete(checker, first_line, &known, &seen);
    }
    links
}

fn end(
    checker: &mut Checker<'_>,
    key: &str,
    table: usize,
    end: Option<&Spanned<String>>,
    known: &[&str],
) -> Option<String> {
    let Some(end) = end else {
        let message = format!("a link without `{key}`");
        checker.problem(table, message, format!("add {key} = \"...\", the name of a cluster"));
        return None;
    };
    let end = checker.lines.locate(end);
    checker.known("cluster", &end, known).then(|| end.value.clone())
}

/// Links do not relay, so what is not linked directly never becomes equal, and what waits until
/// every cluster has seen a write would wait for ever.
fn complete(
    checker: &mut Checker<'_>,
    line: usize,
    clusters: &[&str],
    links: &BTreeMap<Link, usize>,
) {
    for from in clusters {
        for to in clusters.iter().filter(|to| *to != from) {
            let link = Link { from: (*from).to_owned(), to: (*to).to_owned() };
            if !links.contains_key(&link) {
                checker.problem(
                    line,
                    format!(
                        "no link from {from} to {to}: synced namespaces need a full mesh, since \
                         links do not relay and writes of {from} would never reach {to}"
                    ),
                    format!(
                        "add [[link]] with from = \"{from}\" and to = \"{to}\", or leave out all \
                         links to have the full mesh"
                    ),
                );
            }
        }
    }
}
