//! How commands find clusters: by the demo's state file, or by the http ports of PDs.

use crate::exit::{self, Exit};
use crate::state::{ClientFiles, StateFile};
use clap::Args;
use flotilla_chaos::http;
use flotilla_topology::api::ClusterStatus;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// A PD answers in milliseconds; a machine under load may take longer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Arguments of commands that ask clusters.
#[derive(Debug, Clone, Args)]
#[group(required = true, multiple = false)]
pub struct Where {
    /// State file of a demo.
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
    /// `host:port` of the http port of a PD; repeat it for the PDs of one or more clusters.
    #[arg(long, value_name = "ADDR")]
    pd: Vec<String>,
}

/// A cluster to ask.
#[derive(Debug, Clone)]
pub struct Known {
    /// What it is called until it has told its name.
    pub name: String,
    /// `host:port` of the http ports of its PDs; with `--pd` one address each, since it is not
    /// known yet which of them belong together.
    pub pds: Vec<String>,
    /// A certificate for its internal ports, when the state file names one.
    pub client: Option<ClientFiles>,
}

impl Where {
    /// The clusters, as far as they are known without asking anybody.
    pub fn clusters(&self) -> anyhow::Result<Vec<Known>> {
        let Some(file) = &self.state else {
            let known = |addr: &String| {
                let addr = addr.trim_start_matches("http://").trim_end_matches('/').to_owned();
                Known { name: addr.clone(), pds: vec![addr], client: None }
            };
            return Ok(self.pd.iter().map(known).collect());
        };
        let state = StateFile::load(file)?;
        let clusters = state.clusters.into_iter();
        Ok(clusters
            .map(|cluster| Known {
                name: cluster.name,
                pds: cluster.pd.into_iter().map(|pd| pd.http).collect(),
                client: cluster.client,
            })
            .collect())
    }
}

/// What a cluster says of itself, and who it is.
pub struct Told {
    /// How it was found.
    pub known: Known,
    /// Its answer.
    pub status: ClusterStatus,
}

/// What was heard.
pub struct Answers {
    /// From those that answer.
    pub told: Vec<Told>,
    /// One line for each that does not.
    pub silent: Vec<String>,
}

impl Answers {
    /// All of them, or the first that is missing: exit code 3.
    pub fn all(self) -> anyhow::Result<Vec<Told>> {
        match self.silent.into_iter().next() {
            Some(line) => Err(Exit::error(exit::CANNOT_CONNECT, line)),
            None => Ok(self.told),
        }
    }

    /// Tells who is silent; the exit code of a command that did what it could with the rest.
    pub fn code(&self, fine: bool) -> ExitCode {
        for line in &self.silent {
            eprintln!("flotilla: {line}");
        }
        match (self.silent.is_empty(), fine) {
            (false, _) => ExitCode::from(exit::CANNOT_CONNECT),
            (true, false) => ExitCode::from(exit::FAILED),
            (true, true) => ExitCode::SUCCESS,
        }
    }
}

/// Asks all clusters. Several PDs of one cluster count as one: whichever leads answers.
pub async fn ask_all(known: Vec<Known>) -> Answers {
    let answers = futures::future::join_all(known.into_iter().map(|known| async move {
        let status = status_of(&known.pds).await;
        (known, status)
    }))
    .await;
    let (mut told, mut silent): (Vec<Told>, Vec<String>) = Default::default();
    for (known, status) in answers {
        match status {
            Ok(status) if told.iter().any(|one| one.status.map.cluster == status.map.cluster) => {}
            Ok(status) => told.push(Told { known, status }),
            Err(NoStatus::Follows(_)) => {}
            Err(NoStatus::Unreachable(why)) => silent.push(format!("{}: {why}", known.name)),
        }
    }
    if told.is_empty() && silent.is_empty() {
        silent.push("none of these PDs leads: look at their store".to_owned());
    }
    Answers { told, silent }
}

/// Why there is no status.
#[derive(Debug, Clone, thiserror::Error)]
pub enum NoStatus {
    /// That PD does not lead.
    #[error("{0}")]
    Follows(String),
    /// No answer, or one that cannot be read.
    #[error("{0}")]
    Unreachable(String),
}

/// Asks the PDs of one cluster, until one answers.
pub async fn status_of(pds: &[String]) -> Result<ClusterStatus, NoStatus> {
    let mut last = NoStatus::Unreachable("no PD is known".to_owned());
    for pd in pds {
        match ask(pd).await {
            Ok(status) => return Ok(status),
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn ask(pd: &str) -> Result<ClusterStatus, NoStatus> {
    let unreachable = |why: String| NoStatus::Unreachable(format!("PD at http://{pd}: {why}"));
    let answer = http::get(pd, "/api/v1/status", PATIENCE)
        .await
        .map_err(|error| unreachable(format!("{error}; is it running?")))?;
    if answer.status == 503 {
        return Err(NoStatus::Follows(format!("PD at http://{pd} does not lead")));
    }
    if !answer.is_ok() {
        return Err(unreachable(format!("answers {}: is this a PD's http port?", answer.status)));
    }
    serde_json::from_slice(&answer.body)
        .map_err(|error| unreachable(format!("its answer cannot be read: {error}")))
}
