//! With a shell in place of a server.

use super::*;
use std::os::unix::process::ExitStatusExt;

const PATIENCE: Duration = Duration::from_secs(20);

fn shell(dir: &tempfile::TempDir, name: &str, script: &str) -> Plan {
    Plan {
        name: name.into(),
        program: "/bin/sh".into(),
        args: vec!["-c".into(), script.into()],
        env: vec![("WORD".into(), "hello".into())],
        log: dir.path().join(format!("{name}.log")),
        health: None,
    }
}

fn stat_of(pid: u32) -> String {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().unwrap_or("").trim().chars().take(1).collect()
}

async fn becomes(mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "the condition did not come true");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_death_is_reported_once_with_its_log_and_a_kill_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let (runner, mut deaths) = Runner::new();
    runner.start(shell(&dir, "a", "echo $WORD; exit 3")).unwrap();
    let death = tokio::time::timeout(PATIENCE, deaths.recv()).await.unwrap().unwrap();
    assert_eq!((death.name.as_str(), death.status.code()), ("a", Some(3)));
    assert!(death.to_string().contains("a.log"), "{death}");
    assert_eq!(std::fs::read_to_string(&death.log).unwrap(), "hello\n");

    runner.start(shell(&dir, "b", "sleep 1000")).unwrap();
    runner.kill("b").await.unwrap();
    let State::Ended { status, .. } = runner.state("b").unwrap() else { panic!("b still runs") };
    assert_eq!(status.signal(), Some(9));
    assert!(deaths.try_recv().is_err(), "a kill that was asked for is no news");
    let error = runner.kill("b").await.unwrap_err().to_string();
    assert!(error.contains("b is not running"), "{error}");
    assert!(runner.kill("c").await.unwrap_err().to_string().contains("there are a, b"));

    // Killed from outside, then restarted.
    let pid = runner.restart("b").unwrap();
    assert!(matches!(runner.restart("b"), Err(ProcessError::Running { .. })));
    os::signal(pid, Signal::Kill).unwrap();
    let death = tokio::time::timeout(PATIENCE, deaths.recv()).await.unwrap().unwrap();
    assert_eq!((death.name.as_str(), death.pid), ("b", pid));
    assert_ne!(runner.restart("b").unwrap(), pid);
}

#[tokio::test]
async fn a_request_to_end_is_waited_for_and_then_enforced() {
    let dir = tempfile::tempdir().unwrap();
    let (runner, mut deaths) = Runner::new();
    let polite = "trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.01; done";
    runner.start(shell(&dir, "polite", polite)).unwrap();
    let deaf = "trap '' TERM; echo up; while :; do sleep 0.01; done";
    runner.start(shell(&dir, "deaf", deaf)).unwrap();
    let said = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap_or_default();
    becomes(|| said("polite.log") == "up\n" && said("deaf.log") == "up\n").await;
    runner.pause("polite").unwrap();
    runner.terminate("polite", PATIENCE).await.unwrap();
    assert_eq!(said("polite.log"), "up\nbye\n");
    runner.terminate("deaf", Duration::from_millis(50)).await.unwrap();
    let State::Ended { status, .. } = runner.state("deaf").unwrap() else { panic!("still runs") };
    assert_eq!(status.signal(), Some(9));
    assert!(deaths.try_recv().is_err());
}

#[tokio::test]
async fn a_paused_process_stands_still() {
    let dir = tempfile::tempdir().unwrap();
    let (runner, _deaths) = Runner::new();
    let pid = runner.start(shell(&dir, "a", "sleep 1000")).unwrap();
    runner.pause("a").unwrap();
    becomes(|| stat_of(pid) == "T").await;
    runner.resume("a").unwrap();
    becomes(|| stat_of(pid) == "S").await;
}

#[tokio::test]
async fn nothing_survives_its_runner() {
    let dir = tempfile::tempdir().unwrap();
    let (runner, _deaths) = Runner::new();
    let pid = runner.start(shell(&dir, "a", "exec sleep 1000")).unwrap();
    drop(runner);
    becomes(|| stat_of(pid).is_empty()).await;
}

/// Not a test of its own: run by the next one in a process of its own.
#[tokio::test]
#[ignore = "crashes on purpose"]
async fn crash() {
    let Ok(dir) = std::env::var("CHAOS_CRASH_DIR") else { return };
    let dir = PathBuf::from(dir);
    let (runner, _deaths) = Runner::new();
    let plan = Plan {
        name: "orphan".into(),
        program: "/bin/sleep".into(),
        args: vec!["1000".into()],
        env: vec![],
        log: dir.join("orphan.log"),
        health: None,
    };
    let pid = runner.start(plan).unwrap();
    std::fs::write(dir.join("pid"), pid.to_string()).unwrap();
    std::process::abort();
}

#[tokio::test]
async fn nothing_survives_a_crash_of_the_runners_process() {
    let dir = tempfile::tempdir().unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "process::tests::crash", "--ignored"])
        .env("CHAOS_CRASH_DIR", dir.path())
        .output()
        .unwrap();
    assert_eq!(output.status.signal(), Some(6), "{output:?}");
    let pid = std::fs::read_to_string(dir.path().join("pid")).unwrap().parse().unwrap();
    // Whoever inherits the dead one may take its time to collect it.
    becomes(|| matches!(stat_of(pid).as_str(), "" | "Z")).await;
}

#[tokio::test]
async fn readiness_is_asked_for_and_failures_are_explained() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let dir = tempfile::tempdir().unwrap();
    let (runner, _deaths) = Runner::new();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let health = Some(listener.local_addr().unwrap().to_string());
    tokio::spawn(async move {
        for answer in ["HTTP/1.0 503 Busy\r\n\r\nno leader", "HTTP/1.0 200 OK\r\n\r\nok"] {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(stream.read_u8().await.unwrap());
            }
            assert!(request.starts_with(b"GET /health "));
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
        // Dropped: whoever asks now is refused.
    });
    let plan = shell(&dir, "a", "exec sleep 1000");
    runner.start(Plan { health: health.clone(), ..plan }).unwrap();
    runner.ready("a", PATIENCE).await.unwrap();
    let error = runner.ready("a", Duration::from_millis(50)).await.unwrap_err().to_string();
    assert!(error.contains("a is not ready after 50ms") && error.contains("a.log"), "{error}");

    runner.start(Plan { health, ..shell(&dir, "b", "exit 1") }).unwrap();
    let error = runner.ready("b", PATIENCE).await.unwrap_err().to_string();
    assert!(error.contains("b is not running (exit status: 1)"), "{error}");
    let nothing = Plan { program: "/nonexistent".into(), ..shell(&dir, "c", "") };
    let error = runner.start(nothing).unwrap_err().to_string();
    assert!(error.contains("cannot start c: No such file"), "{error}");
}
