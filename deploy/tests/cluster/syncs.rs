//! A lone write is acknowledged only after at least two nodes have synced it.

use crate::harness::{Demo, alone, eventually};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

/// Traces the syncs of one process.
struct Trace {
    strace: Child,
    file: PathBuf,
}

impl Trace {
    fn attach(pid: u64, file: PathBuf) -> Trace {
        let strace = Command::new("strace")
            .args(["-f", "-ttt", "-T", "-e", "trace=fsync,fdatasync", "-p", &pid.to_string()])
            .arg("-o")
            .arg(&file)
            .stderr(Stdio::null())
            .spawn()
            .expect("strace is installed by `make setup`");
        let trace = Trace { strace, file };
        eventually("strace is attached", || {
            // Every thread is traced once the tracer of the last one is known.
            let tasks = format!("/proc/{pid}/task");
            let traced = std::fs::read_dir(&tasks).map_err(|error| error.to_string())?;
            let traced = traced.flatten().all(|task| is_traced(&task.path()));
            if traced { Ok(()) } else { Err("some threads are not traced".to_owned()) }
        });
        trace
    }

    /// Times, in seconds, at which a sync ended well.
    fn ends(&self) -> Vec<f64> {
        let text = std::fs::read_to_string(&self.file).unwrap_or_default();
        text.lines().filter_map(end_of_sync).collect()
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        let _ = self.strace.kill();
        let _ = self.strace.wait();
    }
}

fn is_traced(task: &Path) -> bool {
    let status = std::fs::read_to_string(task.join("status")).unwrap_or_default();
    status.lines().any(|line| line.starts_with("TracerPid:") && !line.ends_with("\t0"))
}

/// `1234 1700000000.000001 fdatasync(7) = 0 <0.001234>`, also when it was resumed.
fn end_of_sync(line: &str) -> Option<f64> {
    let mut words = line.split_whitespace();
    let begun: f64 = words.nth(1)?.parse().ok()?;
    let (_, result) = line.rsplit_once("= 0 <")?;
    let took: f64 = result.trim_end_matches('>').parse().ok()?;
    // A resumed line carries the time of its end.
    Some(if line.contains("resumed>") { begun } else { begun + took })
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}

#[test]
fn a_lone_write_is_synced_on_two_nodes_before_its_reply() {
    let _alone = alone();
    let demo = Demo::start(&["--datacenters", "east"]);
    let temp = tempfile::tempdir().unwrap();
    let traces: Vec<Trace> = ["east-n1", "east-n2", "east-n3"]
        .iter()
        .map(|name| Trace::attach(demo.pid(name), temp.path().join(name)))
        .collect();
    let mut redis = demo.redis("east", 0);
    redis.call(&["SET", "warm", "up"]);
    for n in 0..5 {
        let begun = now();
        assert_eq!(redis.call(&["SET", "lone", &n.to_string()]), "OK");
        let replied = now();
        eventually("two nodes have synced before the reply", || {
            // strace writes its lines soon after; what counts is the time in them.
            let within = |end: &f64| (begun..=replied).contains(end);
            let synced = traces.iter().filter(|trace| trace.ends().iter().any(within)).count();
            if synced >= 2 { Ok(()) } else { Err(format!("only {synced} did, write {n}")) }
        });
    }
    drop(traces);
    demo.stop();
}

#[test]
fn lines_of_strace_are_understood() {
    assert_eq!(end_of_sync("12 100.5 fdatasync(7) = 0 <0.25>"), Some(100.75));
    assert_eq!(end_of_sync("12 100.5 <... fsync resumed>) = 0 <0.25>"), Some(100.5));
    assert_eq!(end_of_sync("12 100.5 fdatasync(7 <unfinished ...>"), None);
    assert_eq!(end_of_sync("12 100.5 fdatasync(7) = -1 EIO (x) <0.25>"), None);
}
