//! Starts demos and nodes, runs commands, asks Redis questions, waits for conditions.

use flotilla_chaos::process::HeldPort;
use flotilla_chaos::resp::{Client, Value};
use rand::Rng;
use serde_json::Value as Json;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The binary under test.
pub const FLOTILLA: &str = env!("CARGO_BIN_EXE_flotilla");
/// How long anything may take on a machine that is busy with other things.
pub const PATIENCE: Duration = Duration::from_secs(90);
/// How often a condition is looked at.
const PERIOD: Duration = Duration::from_millis(25);

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Clusters share two cores with each other badly: one test has them at a time.
pub fn alone() -> MutexGuard<'static, ()> {
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits until `check` gives something; panics with `what` and the last complaint when it does not.
pub fn eventually<T>(what: &str, mut check: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match check() {
            Ok(value) => return value,
            Err(why) if Instant::now() > deadline => panic!("{what}: {why}"),
            Err(_) => std::thread::sleep(PERIOD),
        }
    }
}

/// Runs `flotilla` to its end.
pub fn flotilla(args: &[&str]) -> Output {
    Command::new(FLOTILLA).args(args).stdin(Stdio::null()).output().expect("flotilla starts")
}

/// Standard output and error of a command, for messages.
pub fn said(output: &Output) -> String {
    let (out, err) = (&output.stdout, &output.stderr);
    format!("{}\n{}{}", output.status, String::from_utf8_lossy(out), String::from_utf8_lossy(err))
}

/// A first port so that this many from there on are free just now.
pub fn free_ports(count: u16) -> u16 {
    let mut random = rand::rng();
    loop {
        let first = random.random_range(10_000..31_000 - count);
        if (first..first + count).all(|port| HeldPort::wanted(port).is_ok()) {
            return first;
        }
    }
}

/// Sends a signal by the `kill` of the system.
pub fn signal(name: &str, pid: u64) {
    let status = Command::new("kill").args([name, &pid.to_string()]).status().expect("kill runs");
    assert!(status.success(), "kill {name} {pid}: {status}");
}

/// Whether a process of that number runs.
pub fn runs(pid: u64) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // A zombie has ended; only its parent has not noticed.
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}

/// A process of ours that ends with the test.
pub struct Process {
    child: Child,
    /// Where its output goes.
    pub log: PathBuf,
}

impl Process {
    /// Starts `flotilla` with its output in a file.
    pub fn start(args: &[&str], log: &Path) -> Process {
        let open = || std::fs::File::options().create(true).append(true).open(log);
        let child = Command::new(FLOTILLA)
            .args(args)
            .stdin(Stdio::null())
            .stdout(open().expect("log opens"))
            .stderr(open().expect("log opens"))
            .spawn()
            .expect("flotilla starts");
        Process { child, log: log.to_owned() }
    }

    /// Its number.
    pub fn pid(&self) -> u64 {
        u64::from(self.child.id())
    }

    /// What it has said so far.
    pub fn output(&self) -> String {
        let mut text = String::new();
        let file = std::fs::File::open(&self.log);
        let _ = file.and_then(|mut file| file.read_to_string(&mut text));
        text
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child can be waited for")
    }

    /// SIGTERM, and how it ended.
    pub fn terminate(&mut self) -> ExitStatus {
        signal("-TERM", self.pid());
        eventually("the process ends", || self.ended().ok_or_else(|| self.output()))
    }

    /// kill -9.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A running demo.
pub struct Demo {
    /// It.
    pub process: Process,
    /// Its state file.
    pub state: String,
    dir: TempDir,
}

impl Demo {
    /// Starts one and waits until it is ready.
    pub fn start(args: &[&str]) -> Demo {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = |name: &str| dir.path().join(name).display().to_string();
        let (demo_dir, state) = (path("demo"), path("state.json"));
        let port = free_ports(300).to_string();
        let mut all = vec!["demo", "--no-prompt", "--port", &port, "--dir", &demo_dir];
        all.extend(["--state", &state]);
        all.extend(args);
        let mut process = Process::start(&all, &dir.path().join("output"));
        eventually("the demo is ready", || {
            if let Some(status) = process.ended() {
                panic!("the demo ended, {status}: {}", process.output());
            }
            Path::new(&state).exists().then_some(()).ok_or_else(|| process.output())
        });
        Demo { process, state, dir }
    }

    /// The state file as it is now.
    pub fn read_state(&self) -> Json {
        let text = std::fs::read_to_string(&self.state).expect("a state file");
        serde_json::from_str(&text).expect("the state file is JSON")
    }

    /// A cluster in the state file.
    pub fn cluster(&self, name: &str) -> Json {
        let state = self.read_state();
        let clusters = state["clusters"].as_array().expect("clusters").clone();
        let found = clusters.into_iter().find(|cluster| cluster["name"] == name);
        found.unwrap_or_else(|| panic!("no cluster {name} in {state}"))
    }

    /// All processes in the state file: name and number.
    pub fn pids(&self) -> Vec<(String, u64)> {
        let state = self.read_state();
        let mut found = Vec::new();
        for cluster in state["clusters"].as_array().expect("clusters") {
            for kind in ["nodes", "pd", "syncers"] {
                for one in cluster[kind].as_array().expect("processes") {
                    let name = one["name"].as_str().expect("a name").to_owned();
                    found.push((name, one["pid"].as_u64().expect("a number")));
                }
            }
        }
        found
    }

    /// The configuration of a process.
    pub fn config(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join("demo/config").join(format!("{name}.toml"))
    }

    /// What a process has said so far.
    pub fn log(&self, name: &str) -> String {
        let path = self.dir.path().join("demo/logs").join(format!("{name}.log"));
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// The number of a process.
    pub fn pid(&self, name: &str) -> u64 {
        let found = self.pids().into_iter().find(|(known, _)| known == name);
        found.unwrap_or_else(|| panic!("no process {name}")).1
    }

    /// A plain door of a cluster.
    pub fn redis(&self, cluster: &str, node: usize) -> Redis {
        let cluster = self.cluster(cluster);
        Redis::new(cluster["nodes"][node]["resp"].as_str().expect("an address"))
    }

    /// A command to the demo.
    pub fn try_ctl(&self, words: &[&str]) -> Output {
        flotilla(&[&["demo-ctl", "--state", &self.state], words].concat())
    }

    /// A command to the demo; must succeed.
    pub fn ctl(&self, words: &[&str]) -> String {
        let output = self.try_ctl(words);
        assert!(output.status.success(), "demo-ctl {words:?}: {}", said(&output));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Runs a tool on its state file.
    pub fn tool(&self, words: &[&str]) -> Output {
        flotilla(&[words, &["--state", &self.state]].concat())
    }

    /// Runs a tool that must succeed; what it prints.
    pub fn does(&self, words: &[&str]) -> String {
        let output = self.tool(words);
        assert!(output.status.success(), "{words:?}: {}", said(&output));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// The link that leaves a cluster, as `flotilla link list` shows it.
    fn link(&self, from: &str) -> Json {
        let links: Json =
            serde_json::from_str(&self.does(&["link", "list", "--json"])).expect("JSON");
        let found = links.as_array().expect("links").iter().find(|link| link["from"] == from);
        found.unwrap_or_else(|| panic!("no link from {from}: {links}")).clone()
    }

    /// Waits until the link that leaves a cluster is so.
    pub fn link_becomes(&self, from: &str, what: &str, is_so: impl Fn(&Json) -> bool) {
        eventually(&format!("the link from {from} {what}"), || {
            let link = self.link(from);
            if is_so(&link) { Ok(()) } else { Err(link.to_string()) }
        });
    }

    /// Runs `verify` until it says that the clusters are equal.
    pub fn verify_equal(&self) {
        let output = self.tool(&["verify", "--json", "--timeout", "60s"]);
        assert!(output.status.success(), "verify: {}", said(&output));
        let report: Json = serde_json::from_slice(&output.stdout).expect("verify prints JSON");
        assert_eq!(report["verdict"], "equal", "{report}");
    }

    /// Stops it in good order; nothing of it is left.
    pub fn stop(mut self) {
        let pids = self.pids();
        self.ctl(&["stop"]);
        let status =
            eventually("the demo ends", || self.process.ended().ok_or("still runs".into()));
        assert!(status.success(), "{status}: {}", self.process.output());
        for (name, pid) in pids {
            assert!(!runs(pid), "{name} ({pid}) outlives the demo");
        }
        assert!(!Path::new(&self.state).exists(), "the state file names processes that are gone");
    }
}

/// Last lines of each log that a failed test shows, and characters of each.
const TOLD_LINES: usize = 12;
const TOLD_WIDTH: usize = 240;

impl Drop for Demo {
    /// A test that fails takes its directory with it: what the processes said last is shown.
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let Ok(logs) = std::fs::read_dir(self.dir.path().join("demo/logs")) else { return };
        for log in logs.flatten() {
            let text = std::fs::read(log.path()).unwrap_or_default();
            let text = String::from_utf8_lossy(&text);
            let lines: Vec<&str> = text.lines().rev().take(TOLD_LINES).collect();
            eprintln!("--- {}", log.file_name().to_string_lossy());
            for line in lines.iter().rev() {
                eprintln!("{}", line.chars().take(TOLD_WIDTH).collect::<String>());
            }
        }
    }
}

/// A connection to a node, for tests that do not care how commands travel.
pub struct Redis {
    runtime: tokio::runtime::Runtime,
    address: String,
    client: Option<Client>,
}

impl Redis {
    /// Connects when first used, and again after an error.
    pub fn new(address: &str) -> Redis {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        Redis { runtime: runtime.expect("a runtime"), address: address.into(), client: None }
    }

    /// The reply, or why there is none.
    pub fn try_call(&mut self, args: &[&str]) -> Result<Value, String> {
        let call = async {
            let mut client = match self.client.take() {
                Some(client) => client,
                None => Client::connect(&self.address, Duration::from_secs(10)).await?,
            };
            let reply = client.call(args).await?;
            self.client = Some(client);
            Ok::<_, flotilla_chaos::resp::RespError>(reply)
        };
        let reply = self.runtime.block_on(call).map_err(|error| error.to_string())?;
        match &reply {
            Value::Error(_) => Err(reply.text().unwrap_or_default()),
            _ => Ok(reply),
        }
    }

    /// The reply, as text; must be one.
    pub fn call(&mut self, args: &[&str]) -> String {
        match self.try_call(args) {
            Ok(reply) => show(&reply),
            Err(why) => panic!("{args:?} at {}: {why}", self.address),
        }
    }

    /// Waits until the reply is this one.
    pub fn becomes(&mut self, args: &[&str], wanted: &str) {
        let what = format!("{args:?} at {} becomes {wanted}", self.address);
        eventually(&what, || match self.try_call(args).map(|reply| show(&reply)) {
            Ok(reply) if reply == wanted => Ok(()),
            Ok(reply) => Err(reply),
            Err(why) => Err(why),
        });
    }
}

/// A reply as text.
pub fn show(reply: &Value) -> String {
    match reply {
        Value::Int(number) => number.to_string(),
        Value::Nil => "nil".to_owned(),
        Value::Array(all) => all.iter().map(show).collect::<Vec<_>>().join(" "),
        other => other.text().unwrap_or_default(),
    }
}
