//! What the owner wants, as far as it can be read; whether it holds is asked of the plan.

use super::super::raw::{At, RawFile};
use super::super::{Datacenter, Wants};
use super::Checker;
use super::places::KINDS;
use crate::duration::Ms;
use toml::Spanned;

/// Where each want stands.
pub(crate) struct WantLines {
    /// `rpo`.
    pub rpo: usize,
    /// `write_latency`.
    pub write_latency: usize,
    /// Each entry of `survive`.
    pub survive: Vec<usize>,
}

pub(super) fn wants(
    checker: &mut Checker<'_>,
    raw: &RawFile,
    regions: &[At<String>],
    datacenters: &[At<Datacenter>],
) -> (Wants, WantLines) {
    let (rpo, rpo_line) = duration(checker, "rpo", raw.wants.rpo.as_ref());
    let (write_latency, write_latency_line) =
        duration(checker, "write_latency", raw.wants.write_latency.as_ref());
    let regions: Vec<&str> = regions.iter().map(|region| region.value.as_str()).collect();
    let mut known = KINDS.to_vec();
    known.extend(datacenters.iter().map(|d| d.value.name.as_str()));
    known.extend(&regions);
    let mut wants = Wants { rpo, write_latency, survive: Vec::new() };
    let mut lines =
        WantLines { rpo: rpo_line, write_latency: write_latency_line, survive: Vec::new() };
    for loss in &raw.wants.survive {
        let loss = checker.lines.locate(loss);
        if loss.value == "region" && regions.is_empty() {
            let remedy = "list the regions and give each datacenter its region";
            checker.problem(loss.line, "the file has no region to survive".into(), remedy);
        } else if checker.known("loss", &loss, &known) {
            wants.survive.push(loss.value.clone());
            lines.survive.push(loss.line);
        }
    }
    (wants, lines)
}

fn duration(
    checker: &mut Checker<'_>,
    key: &str,
    value: Option<&Spanned<String>>,
) -> (Option<Ms>, usize) {
    let Some(value) = value else { return (None, 1) };
    let At { line, value } = checker.lines.locate(value);
    match value.parse::<Ms>() {
        Ok(duration) => (Some(duration), line),
        Err(error) => {
            checker.problem(line, format!("{key} cannot be read"), error.to_string());
            (None, line)
        }
    }
}
