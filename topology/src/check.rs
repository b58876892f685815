//! What `flotilla topology check FILE` says, as text and as JSON.

use crate::election::Timing;
use crate::file::{Cluster, Link, Mode, Problem, Problems};
use crate::plan::{LOCAL_RTT_MS, Outcome, Range, SHIP_MS, SYNC_MS, Topology};
use serde::Serialize;
use std::fmt::Write;

/// The answer to a file: a plan, or what is wrong.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Check {
    /// Whether the file holds.
    pub ok: bool,
    /// What is wrong with it, by line.
    pub problems: Vec<Problem>,
    /// What it amounts to, when nothing is wrong.
    pub plan: Option<Plan>,
}

/// What a topology amounts to.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Plan {
    /// Declared or selected.
    pub mode: Mode,
    /// Why, in one sentence.
    pub why: String,
    /// Whether the clusters are our proposal; the file needs them before anything can run.
    pub proposed: bool,
    /// All clusters.
    pub clusters: Vec<PlannedCluster>,
    /// All links.
    pub links: Vec<PlannedLink>,
    /// What each loss leaves; the loss of nothing first.
    pub outcomes: Vec<Outcome>,
}

/// A cluster and how long its groups wait.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PlannedCluster {
    /// The cluster.
    #[serde(flatten)]
    pub cluster: Cluster,
    /// Its heartbeats and elections.
    pub election: Timing,
}

/// A link and its length.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PlannedLink {
    /// The link.
    #[serde(flatten)]
    pub link: Link,
    /// The longest round trip time between the two clusters.
    pub rtt_ms: f64,
}

impl Check {
    /// Checks the text of a file.
    pub fn of(text: &str) -> Check {
        match Topology::parse(text) {
            Ok(topology) => Check { ok: true, problems: Vec::new(), plan: Some(plan(&topology)) },
            Err(problems) => Check { ok: false, problems: problems.all().to_vec(), plan: None },
        }
    }

    /// For people. `file` is how they named it.
    pub fn text(&self, file: &str) -> String {
        match (&self.plan, Problems::new(self.problems.clone())) {
            (Some(plan), None) => plan.text(),
            (_, Some(problems)) => {
                let n = problems.all().len();
                let s = if n == 1 { "" } else { "s" };
                format!("{}{file} does not hold: {n} problem{s}\n", problems.text(file))
            }
            (None, None) => String::new(),
        }
    }
}

fn plan(topology: &Topology) -> Plan {
    let stands_in = |name: &String| {
        let cluster = topology.clusters.iter().find(|cluster| cluster.name == *name);
        cluster.map_or(&[][..], |cluster| cluster.datacenters.as_slice())
    };
    let link = |link: &Link| PlannedLink {
        rtt_ms: topology.distances.farthest(stands_in(&link.from), stands_in(&link.to)),
        link: link.clone(),
    };
    let cluster = |cluster: &Cluster| PlannedCluster {
        election: topology.election_of(cluster.id),
        cluster: cluster.clone(),
    };
    Plan {
        mode: topology.mode,
        why: topology.why.clone(),
        proposed: topology.proposed,
        clusters: topology.clusters.iter().map(cluster).collect(),
        links: topology.links.iter().map(link).collect(),
        outcomes: topology.report().outcomes,
    }
}

impl Plan {
    fn text(&self) -> String {
        let mut out = String::new();
        self.write(&mut out).expect("writing to a string does not fail");
        out
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        writeln!(out, "mode {}: {}", self.mode, self.why)?;
        if self.proposed {
            let advice =
                "the clusters below are proposed; list them with their addresses to run it";
            writeln!(out, "{advice}")?;
        }
        writeln!(out)?;
        let mut rows =
            vec![["cluster", "id", "datacenters", "heartbeat", "election"].map(str::to_owned)];
        rows.extend(self.clusters.iter().map(|planned| {
            let (cluster, wait) = (&planned.cluster, &planned.election);
            [
                cluster.name.clone(),
                cluster.id.to_string(),
                cluster.datacenters.join(", "),
                format!("{} ms", wait.heartbeat_ms),
                format!("{}-{} ms", wait.election_min_ms, wait.election_max_ms),
            ]
        }));
        table(out, &rows)?;
        if !self.links.is_empty() {
            writeln!(out)?;
            let mut rows = vec![["link", "round trip"].map(str::to_owned)];
            rows.extend(self.links.iter().map(|planned| {
                let Link { from, to } = &planned.link;
                [format!("{from} -> {to}"), format!("{} ms", planned.rtt_ms)]
            }));
            table(out, &rows)?;
        }
        writeln!(out)?;
        let header = ["loss of", "survived", "write", "read", "lost writes", "what happens"];
        let mut rows = vec![header.map(str::to_owned)];
        rows.extend(self.outcomes.iter().map(row));
        table(out, &rows)?;
        writeln!(out)?;
        let copies = self.outcomes.first().map_or(0.0, |all_is_well| {
            all_is_well.clusters.iter().map(|c| c.wan_copies).fold(0.0, f64::max)
        });
        writeln!(
            out,
            "Each written byte crosses between datacenters {copies:.1} times at most, on average."
        )?;
        writeln!(
            out,
            "Times are estimates: {LOCAL_RTT_MS} ms inside a datacenter, {SYNC_MS} ms for a sync, \
             {SHIP_MS} ms for batching on a link, and the\nround trip times of the file. Lost \
             writes are those of a link that keeps up; while it is cut they grow until it heals."
        )
    }
}

fn row(outcome: &Outcome) -> [String; 6] {
    let over = |of: fn(&crate::plan::ClusterFate) -> Option<Range>| {
        let range = outcome.clusters.iter().map(of).fold(None, Range::cover);
        match range {
            None => "-".to_owned(),
            Some(r) if format!("{:.1}", r.min_ms) == format!("{:.1}", r.max_ms) => {
                format!("{:.1} ms", r.max_ms)
            }
            Some(r) => format!("{:.1}-{:.1} ms", r.min_ms, r.max_ms),
        }
    };
    [
        outcome.loss.to_string(),
        if outcome.survived { "yes" } else { "NO" }.to_owned(),
        over(|cluster| cluster.write),
        over(|cluster| cluster.read),
        match outcome.rpo_ms {
            Some(0.0) => "none".to_owned(),
            Some(ms) => format!("{ms:.0} ms"),
            None => "until it is back".to_owned(),
        },
        outcome.summary.clone(),
    ]
}

/// Columns as wide as their widest cell; the last one ends where it ends.
fn table<const N: usize>(out: &mut String, rows: &[[String; N]]) -> std::fmt::Result {
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..N).map(width).collect();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            write!(line, "{cell:width$}  ")?;
        }
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}
