//! Runs processes by name, and hurts them: shared by the demo and the scenarios.
//!
//! The `Runner` owns its processes. Each has a keeper: a thread that spawns it, waits for its end
//! and collects it.
//!
//! Invariants:
//! * No process outlives the runner: it kills them when it is dropped, and the kernel does when the
//!   runner's process dies in whatever way (the request is bound to the keeper's life, which is
//!   why the keeper lives as long as its process).
//! * A process is never restarted by itself. Its death is reported once, unless it was asked for.
//! * A signal reaches the process it was meant for: a dead one is collected under the same lock
//!   under which it is signalled, so its number cannot have passed to another.
//! * Ctrl-C at a terminal does not reach the processes (they have their own process group): the
//!   runner decides when they stop.

mod os;
mod ports;

#[cfg(test)]
mod tests;

pub use ports::{HeldPort, PortTaken};

use crate::http;
use os::Signal;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};

/// Deaths that wait to be reported. More processes than this do not fit on one machine.
const DEATHS_MAX: usize = 1024;
/// How often a starting process is asked whether it is ready.
const HEALTH_PERIOD: Duration = Duration::from_millis(20);
/// How long a process may take to answer that.
const HEALTH_PATIENCE: Duration = Duration::from_secs(1);
/// A killed process is gone after this, or the machine is in trouble.
const KILL_PATIENCE: Duration = Duration::from_secs(20);

/// How to start a process.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Unique name, used in messages and to address it.
    pub name: String,
    /// Path of the executable.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// Environment variables besides the inherited ones.
    pub env: Vec<(OsString, OsString)>,
    /// Where its output goes; a restart appends.
    pub log: PathBuf,
    /// `host:port` whose `/health` answers with success when it is ready.
    pub health: Option<String>,
}

/// What a process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It runs, or is stopped by SIGSTOP.
    Running {
        /// Its number.
        pid: u32,
    },
    /// It has ended.
    Ended {
        /// The number it had.
        pid: u32,
        /// How it ended.
        status: ExitStatus,
    },
}

/// A process ended that was not told to.
#[derive(Debug, Clone)]
pub struct Death {
    /// Its name.
    pub name: String,
    /// The number it had.
    pub pid: u32,
    /// How it ended.
    pub status: ExitStatus,
    /// Where it may have said why.
    pub log: PathBuf,
}

impl std::fmt::Display for Death {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Death { name, pid, status, log } = self;
        write!(f, "{name} (pid {pid}) died: {status}; its log is {}", log.display())
    }
}

/// Why a process could not be started or told something.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// There is none of that name.
    #[error("there is no process `{name}`; there are {known}")]
    NoSuchProcess {
        /// The name asked for.
        name: String,
        /// All names.
        known: String,
    },
    /// It must end before it can be started again.
    #[error("{name} is running already (pid {pid})")]
    Running {
        /// Its name.
        name: String,
        /// Its number.
        pid: u32,
    },
    /// It must run to be told something.
    #[error("{name} is not running ({status}); its log is {}", .log.display())]
    Ended {
        /// Its name.
        name: String,
        /// How it ended.
        status: ExitStatus,
        /// Where it may have said why.
        log: PathBuf,
    },
    /// It runs, but does not answer.
    #[error("{name} is not ready after {patience:?} ({last}); its log is {}", .log.display())]
    NotReady {
        /// Its name.
        name: String,
        /// How long it was waited for.
        patience: Duration,
        /// What it answered last.
        last: String,
        /// Where it may have said why.
        log: PathBuf,
    },
    /// The system refused.
    #[error("{what} {name}: {cause}")]
    System {
        /// What was tried.
        what: &'static str,
        /// With which process.
        name: String,
        /// Why not.
        cause: io::Error,
    },
}

/// Owns processes. Clones are handles of the same runner.
#[derive(Clone)]
pub struct Runner {
    shared: Arc<Shared>,
}

struct Shared {
    processes: Mutex<BTreeMap<String, Arc<Process>>>,
    deaths: mpsc::Sender<Death>,
}

struct Process {
    plan: Plan,
    pid: u32,
    life: Mutex<Life>,
    state: watch::Sender<State>,
}

struct Life {
    ended: bool,
    /// It was told to end, so its end is no news.
    told: bool,
}

impl Runner {
    /// A runner without processes, and where it reports the deaths of processes that were not told
    /// to end.
    pub fn new() -> (Runner, mpsc::Receiver<Death>) {
        let (deaths, reports) = mpsc::channel(DEATHS_MAX);
        let shared = Shared { processes: Mutex::default(), deaths };
        (Runner { shared: Arc::new(shared) }, reports)
    }

    /// Starts a process and returns its number. It is not ready then: see `ready`.
    pub fn start(&self, plan: Plan) -> Result<u32, ProcessError> {
        let mut processes = self.shared.processes.lock();
        if let Some(known) = processes.get(&plan.name)
            && let State::Running { pid } = *known.state.borrow()
        {
            return Err(ProcessError::Running { name: plan.name, pid });
        }
        let name = plan.name.clone();
        let process = spawn(plan, self.shared.deaths.clone()).map_err(|cause| {
            ProcessError::System { what: "cannot start", name: name.clone(), cause }
        })?;
        let pid = process.pid;
        processes.insert(name, process);
        Ok(pid)
    }

    /// Starts a process again that has ended, in whatever way.
    pub fn restart(&self, name: &str) -> Result<u32, ProcessError> {
        let plan = self.process(name)?.plan.clone();
        self.start(plan)
    }

    /// Waits until a process says that it is ready.
    pub async fn ready(&self, name: &str, patience: Duration) -> Result<(), ProcessError> {
        let process = self.process(name)?;
        let Some(address) = process.plan.health.clone() else { return Ok(()) };
        let deadline = Instant::now() + patience;
        loop {
            let last = match http::get(&address, "/health", HEALTH_PATIENCE).await {
                Ok(answer) if answer.is_ok() => return Ok(()),
                Ok(answer) => format!(
                    "{} {}",
                    answer.status,
                    String::from_utf8_lossy(&answer.body[..answer.body.len().min(200)])
                ),
                Err(error) => error.to_string(),
            };
            if let State::Ended { status, .. } = *process.state.borrow() {
                let log = process.plan.log.clone();
                return Err(ProcessError::Ended { name: name.into(), status, log });
            }
            if Instant::now() > deadline {
                let log = process.plan.log.clone();
                return Err(ProcessError::NotReady { name: name.into(), patience, last, log });
            }
            tokio::time::sleep(HEALTH_PERIOD).await;
        }
    }

    /// Kills a process as a power cut would (SIGKILL), and waits until it is gone.
    pub async fn kill(&self, name: &str) -> Result<(), ProcessError> {
        let process = self.process(name)?;
        self.tell(&process, Signal::Kill, true)?;
        ended(&process, KILL_PATIENCE).await
    }

    /// Asks a process to end (SIGTERM) and waits for it; kills it when it does not end in time.
    pub async fn terminate(&self, name: &str, patience: Duration) -> Result<(), ProcessError> {
        let process = self.process(name)?;
        // A stopped process cannot act on the request.
        self.tell(&process, Signal::Continue, true)?;
        self.tell(&process, Signal::Terminate, true)?;
        if ended(&process, patience).await.is_ok() {
            return Ok(());
        }
        tracing::warn!(process = name, ?patience, "did not end in time and is killed");
        self.tell(&process, Signal::Kill, true)?;
        ended(&process, KILL_PATIENCE).await
    }

    /// Stops a process in its tracks (SIGSTOP).
    pub fn pause(&self, name: &str) -> Result<(), ProcessError> {
        self.tell(&*self.process(name)?, Signal::Stop, false)
    }

    /// Lets a paused process go on (SIGCONT).
    pub fn resume(&self, name: &str) -> Result<(), ProcessError> {
        self.tell(&*self.process(name)?, Signal::Continue, false)
    }

    /// What a process does.
    pub fn state(&self, name: &str) -> Result<State, ProcessError> {
        Ok(*self.process(name)?.state.borrow())
    }

    /// All processes by name, with what they do.
    pub fn states(&self) -> BTreeMap<String, State> {
        let processes = self.shared.processes.lock();
        processes.iter().map(|(name, process)| (name.clone(), *process.state.borrow())).collect()
    }

    /// How a process was started.
    pub fn plan(&self, name: &str) -> Result<Plan, ProcessError> {
        Ok(self.process(name)?.plan.clone())
    }

    /// Asks all processes to end at once, and kills those that do not in time.
    pub async fn stop_all(&self, patience: Duration) {
        let names: Vec<String> = self.shared.processes.lock().keys().cloned().collect();
        let stops = names.iter().map(|name| self.terminate(name, patience));
        for (name, result) in names.iter().zip(futures::future::join_all(stops).await) {
            match result {
                Ok(()) | Err(ProcessError::Ended { .. }) => {}
                Err(error) => tracing::error!(process = name, %error, "cannot be stopped"),
            }
        }
    }

    fn process(&self, name: &str) -> Result<Arc<Process>, ProcessError> {
        let processes = self.shared.processes.lock();
        processes.get(name).cloned().ok_or_else(|| ProcessError::NoSuchProcess {
            name: name.into(),
            known: processes.keys().cloned().collect::<Vec<_>>().join(", "),
        })
    }

    fn tell(&self, process: &Process, signal: Signal, ends: bool) -> Result<(), ProcessError> {
        let mut life = process.life.lock();
        let name = process.plan.name.clone();
        if life.ended {
            let state = *process.state.borrow();
            let State::Ended { status, .. } = state else { unreachable!("ended, but {state:?}") };
            return Err(ProcessError::Ended { name, status, log: process.plan.log.clone() });
        }
        life.told |= ends;
        os::signal(process.pid, signal).map_err(|cause| ProcessError::System {
            what: "cannot signal",
            name,
            cause,
        })
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        for process in self.processes.get_mut().values() {
            process.kill();
        }
    }
}

impl Process {
    fn kill(&self) {
        let mut life = self.life.lock();
        life.told = true;
        if !life.ended {
            // It is our child and not collected yet, so the signal can only succeed.
            let _ = os::signal(self.pid, Signal::Kill);
        }
    }
}

async fn ended(process: &Process, patience: Duration) -> Result<(), ProcessError> {
    let mut state = process.state.subscribe();
    let end = state.wait_for(|state| matches!(state, State::Ended { .. }));
    match tokio::time::timeout(patience, end).await {
        Ok(_) => Ok(()),
        Err(_) => Err(ProcessError::System {
            what: "waited in vain for the end of",
            name: process.plan.name.clone(),
            cause: io::ErrorKind::TimedOut.into(),
        }),
    }
}

/// Starts the keeper, which starts the process.
fn spawn(plan: Plan, deaths: mpsc::Sender<Death>) -> io::Result<Arc<Process>> {
    let log = OpenOptions::new().create(true).append(true).open(&plan.log)?;
    let mut command = Command::new(&plan.program);
    command
        .args(&plan.args)
        .envs(plan.env.iter().map(|(key, value)| (key, value)))
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .process_group(0);
    os::die_with_parent(&mut command);
    let (tell, told) = std::sync::mpsc::sync_channel(1);
    let keeper = move || {
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(error) => return drop(tell.send(Err(error))),
        };
        let pid = child.id();
        let process = Arc::new(Process {
            plan,
            pid,
            life: Mutex::new(Life { ended: false, told: false }),
            state: watch::Sender::new(State::Running { pid }),
        });
        // The starter waits for this message, so it cannot have gone.
        let _ = tell.send(Ok(process.clone()));
        let waited = os::wait_exited(pid);
        let mut life = process.life.lock();
        let status = waited.and_then(|()| child.wait());
        let status = status.expect("a child that was never collected can be waited for");
        life.ended = true;
        process.state.send_replace(State::Ended { pid, status });
        if !life.told {
            let Plan { name, log, .. } = process.plan.clone();
            // Nobody listens any more: then nobody misses it.
            let _ = deaths.try_send(Death { name, pid, status, log });
        }
    };
    std::thread::Builder::new().name("keeper".into()).stack_size(256 << 10).spawn(keeper)?;
    told.recv().unwrap_or_else(|_| Err(io::Error::other("the keeper thread ended early")))
}
