//! One run: servers that stay up, and measurements of them in turn.

use super::case::{self, Case};
use super::generator::{self, Load, Measured, Pace};
use super::keys::{Keys, Zipf};
use super::kind::Kind;
use super::open::Schedule;
use super::sample::{Sample, Samples};
use super::{Config, Fleet, Server, canary, idle, peers, servers, usage};
use crate::process::Runner;
use crate::resp::Client;
use anyhow::{Context, Result, bail};
use std::sync::Arc;
use std::time::Duration;

/// How long a server may take to end.
const STOP_PATIENCE: Duration = Duration::from_secs(10);
/// Commands that are sent at once to prepare a case.
const PREPARE_PIPELINE: usize = 16;

/// A way to measure, one line or group of lines of a table.
#[derive(Debug, Clone)]
pub struct Variation {
    /// What is different, as in `8 groups`; empty where nothing is.
    pub label: String,
    /// The cases.
    pub cases: Vec<Case>,
    /// The servers, in their order.
    pub kinds: Vec<Kind>,
    /// Different keys.
    pub keys: u32,
    /// Bytes of a value.
    pub value_bytes: usize,
    /// Some keys far more often than others.
    pub zipf: bool,
}

/// A run.
pub struct Session<'a> {
    config: &'a Config,
    runner: Runner,
    servers: Vec<Server>,
    tell: Box<dyn FnMut(&str) + Send + 'a>,
}

impl<'a> Session<'a> {
    /// Starts the servers among `kinds` that are no doors of the cluster. `tell` is handed a line
    /// about each measurement as it is made.
    pub async fn start(
        config: &'a Config,
        kinds: &[Kind],
        tell: impl FnMut(&str) + Send + 'a,
    ) -> Result<Session<'a>> {
        std::fs::create_dir_all(&config.dir)
            .with_context(|| format!("cannot create {}", config.dir.display()))?;
        let (runner, _deaths) = Runner::new();
        let mut servers = Vec::new();
        for kind in kinds.iter().filter(|kind| !kind.is_cluster()) {
            servers.push(peers::start(*kind, &runner, config).await?);
        }
        Ok(Session { config, runner, servers, tell: Box::new(tell) })
    }

    /// From now on the cluster is this one, through those of `kinds` that are its doors.
    pub async fn use_fleet(&mut self, fleet: &Fleet, kinds: &[Kind]) -> Result<()> {
        self.servers.retain(|server| !server.kind.is_cluster());
        let doors = kinds.iter().filter(|kind| kind.is_cluster() && **kind != Kind::Flotilla);
        // Keys are written through this one.
        for kind in [&Kind::Flotilla].into_iter().chain(doors) {
            let server = servers::door(*kind, fleet, self.config.keys).await?;
            self.servers.push(server);
        }
        Ok(())
    }

    /// Stops the servers that were started here.
    pub async fn stop(self) {
        self.runner.stop_all(STOP_PATIENCE).await;
    }

    /// Measures in a closed loop.
    pub async fn closed(&mut self, variation: &Variation) -> Result<Samples> {
        let pace = Pace::Closed(self.config.duration);
        self.measure(variation, |_, _| Some(pace)).await
    }

    /// Measures in an open loop, each case on each server at the rate per second that `rate` says;
    /// what it says nothing for is left out.
    pub async fn open(
        &mut self,
        variation: &Variation,
        rate: impl Fn(Kind, Case) -> Option<f64>,
    ) -> Result<Samples> {
        let duration = self.config.duration;
        let pace = |kind, case| Some(Pace::Open(Schedule { rate: rate(kind, case)?, duration }));
        self.measure(variation, pace).await
    }

    /// What idle connections cost those of `kinds` that can be asked for it.
    pub async fn idle(&mut self, kinds: &[Kind], count: usize) -> Result<Vec<idle::IdleRow>> {
        let mut rows = Vec::new();
        for server in self.servers.iter().filter(|server| kinds.contains(&server.kind)) {
            if !idle::applies(server.kind, count) {
                (self.tell)(&format!("{}: is not asked for idle connections", server.kind));
                continue;
            }
            let row = idle::measure(server, count).await?;
            (self.tell)(&row.to_string());
            rows.push(row);
        }
        Ok(rows)
    }

    async fn measure(
        &mut self,
        variation: &Variation,
        pace: impl Fn(Kind, Case) -> Option<Pace>,
    ) -> Result<Samples> {
        self.fill(variation).await?;
        let keys = if variation.zipf {
            Keys::Zipf(Arc::new(Zipf::new(variation.keys)))
        } else {
            Keys::Below(variation.keys)
        };
        let mut samples = Vec::new();
        for round in 0..self.config.rounds {
            for case in &variation.cases {
                let mut order = self.among(&variation.kinds)?;
                // Who goes first in a round has no lasting advantage.
                let turn = round % order.len();
                order.rotate_left(turn);
                for server in order {
                    let server = &self.servers[server];
                    let Some(pace) = pace(server.kind, *case) else { continue };
                    let load = Load {
                        case: *case,
                        keys: keys.clone(),
                        value_bytes: variation.value_bytes,
                        timeline: None,
                    };
                    let sample = one(self.config, server, &load, pace, round).await?;
                    let sample = Sample { label: variation.label.clone(), ..sample };
                    (self.tell)(&format!("round {} {sample}", round + 1));
                    samples.push(sample);
                }
            }
        }
        Ok(Samples(samples))
    }

    /// Where the servers of these kinds stand.
    fn among(&self, kinds: &[Kind]) -> Result<Vec<usize>> {
        let places = kinds.iter().map(|kind| {
            let place = self.servers.iter().position(|server| server.kind == *kind);
            place.with_context(|| format!("{kind} was not started"))
        });
        let places: Vec<usize> = places.collect::<Result<_>>()?;
        if places.is_empty() { bail!("there is no server to measure") } else { Ok(places) }
    }

    /// Sees to it that each server holds the keys, with values of that size.
    async fn fill(&mut self, variation: &Variation) -> Result<()> {
        let wanted = (variation.keys, variation.value_bytes);
        for place in self.among(&variation.kinds)? {
            // All doors of the cluster lead to the same data, and this one takes any key.
            let place = match self.servers[place].kind {
                kind if kind.is_cluster() => self.among(&[Kind::Flotilla])?[0],
                _ => place,
            };
            let server = &mut self.servers[place];
            if server.loaded == Some(wanted) {
                continue;
            }
            let line = format!("{}: writing {} keys of {} bytes", server.kind, wanted.0, wanted.1);
            (self.tell)(&line);
            let loaded = generator::load(&server.targets, wanted.0, wanted.1).await?;
            loaded.first_error.map_or(Ok(()), |error| Err(anyhow::anyhow!("{error}")))?;
            server.loaded = Some(wanted);
        }
        Ok(())
    }
}

/// Measures one case on one server.
async fn one(
    config: &Config,
    server: &Server,
    load: &Load,
    pace: Pace,
    round: usize,
) -> Result<Sample> {
    prepare(server, load).await?;
    let dir = config.dir.clone();
    let canary = tokio::task::spawn_blocking(move || canary::ask(&dir)).await??;
    let before = usage::seconds_of_all(&server.processes)?;
    let written = usage::written_to_disk_of(&config.dir).ok();
    let measured = generator::run(&server.targets, load, pace, round).await?;
    let after = usage::seconds_of_all(&server.processes)?;
    let written_then = usage::written_to_disk_of(&config.dir).ok();
    let Measured { latency, took, .. } = &measured;
    let times = before.iter().zip(after);
    let processes = server.processes.iter().zip(times);
    let cpu = processes.map(|((name, _), (before, after))| (name.clone(), after - before));
    Ok(Sample {
        kind: server.kind,
        label: String::new(),
        case: load.case,
        round,
        rate: if let Pace::Open(Schedule { rate, .. }) = pace { Some(rate) } else { None },
        per_second: measured.operations as f64 / took.as_secs_f64(),
        operations: measured.operations,
        unsent: measured.unsent,
        errors: measured.errors,
        nothing: measured.nothing,
        p50_us: latency.value_at_quantile(0.5) as f64,
        p99_us: latency.value_at_quantile(0.99) as f64,
        p999_us: latency.value_at_quantile(0.999) as f64,
        cpu: cpu.collect(),
        generator_cpu: measured.generator_cpu,
        written: written.zip(written_then).map(|(before, after)| after.saturating_sub(before)),
        user_bytes: measured.user_bytes,
        first_error: measured.first_error,
        canary,
    })
}

/// Writes what the case needs besides the keys. This takes no part in the measurement.
async fn prepare(server: &Server, load: &Load) -> Result<()> {
    let commands = case::before(load.case.command, load.value_bytes);
    if commands.is_empty() {
        return Ok(());
    }
    let mut client = Client::connect(&server.targets[0].address, peers::PATIENCE).await?;
    for some in commands.chunks(PREPARE_PIPELINE) {
        let replies = client.pipeline(some).await?;
        let error = replies.iter().find(|reply| matches!(reply, crate::resp::Value::Error(_)));
        if let Some(error) = error {
            bail!("{}: {} before {}", server.kind, error.text().unwrap_or_default(), load.case);
        }
    }
    Ok(())
}
