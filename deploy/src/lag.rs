//! `flotilla lag`: how far each cluster is behind each other one. Exit code 1 when a link is not
//! live.

use crate::find::{self, Told, Where};
use crate::links::{self, LinkSummary};
use crate::serve::{self, Stop};
use clap::Args;
use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

/// Syncers report once a second.
const WATCH_PERIOD: Duration = Duration::from_secs(1);

/// What `flotilla lag` takes.
#[derive(Debug, Args)]
pub struct LagArgs {
    #[command(flatten)]
    place: Where,
    /// Ask again each second, until Ctrl-C.
    #[arg(long)]
    watch: bool,
    /// Print as JSON; with --watch an array a line.
    #[arg(long)]
    json: bool,
}

/// Runs `flotilla lag`.
pub fn run(args: LagArgs) -> anyhow::Result<ExitCode> {
    let known = args.place.clusters()?;
    if args.watch {
        return serve::block_on(watch(known, args.json));
    }
    let answers = serve::block_on(async { Ok(find::ask_all(known).await) })?;
    let all = summaries(&answers.told);
    if args.json {
        println!("{}", serde_json::to_string_pretty(&all)?);
    } else if !answers.told.is_empty() {
        print!("{}", table(&all));
    }
    let live = all.iter().all(LinkSummary::is_live);
    Ok(answers.code(live))
}

async fn watch(known: Vec<find::Known>, json: bool) -> anyhow::Result<ExitCode> {
    let mut stop = Stop::listen()?;
    let mut tick = tokio::time::interval(WATCH_PERIOD);
    let screen = std::io::stdout().is_terminal() && !json;
    loop {
        tokio::select! {
            _ = stop.asked() => return Ok(ExitCode::SUCCESS),
            _ = tick.tick() => {}
        }
        let answers = find::ask_all(known.clone()).await;
        let all = summaries(&answers.told);
        let mut text = match json {
            true => format!("{}\n", serde_json::to_string(&all)?),
            false => table(&all),
        };
        for line in &answers.silent {
            // Whoever watches wants to see it come back.
            if json { eprintln!("flotilla: {line}") } else { text += &format!("{line}\n") }
        }
        // Home and erase below: redraws without flicker.
        print!("{}{text}", if screen { "\x1b[H\x1b[J" } else { "" });
    }
}

fn summaries(told: &[Told]) -> Vec<LinkSummary> {
    told.iter().flat_map(|one| links::outgoing(&one.status)).collect()
}

fn table(all: &[LinkSummary]) -> String {
    if all.is_empty() {
        return "no links: one cluster needs none\n".to_owned();
    }
    let mut rows =
        vec![["link", "state", "lag now", "p50", "p99", "entries", "bytes", ""].map(str::to_owned)];
    rows.extend(all.iter().map(|link| {
        [
            format!("{} -> {}", link.from, link.to),
            link.state_word().to_owned(),
            links::shown(link.lag_seconds),
            links::shown_or_dash(link.lag_p50_seconds),
            links::shown_or_dash(link.lag_p99_seconds),
            link.backlog_entries.to_string(),
            link.backlog_bytes.to_string(),
            if link.is_live() { String::new() } else { link.detail.clone() },
        ]
    }));
    columns(&rows)
}

/// Columns as wide as their widest cell.
pub fn columns<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..N).map(width).collect();
    let mut out = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        out.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        out.push('\n');
    }
    out
}
