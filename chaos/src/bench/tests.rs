//! Against redis-server itself in the place of the nodes, and against bytes.

use super::generator::Replies;
use super::*;
use crate::process::State;

#[test]
fn replies_are_counted_whole() {
    let bytes = b"+OK\r\n$3\r\na\nb\r\n$-1\r\n-ERR no\r\n:5\r\n$5\r\nhal";
    let mut replies = Replies::over(bytes);
    let (mut at, mut ends) = (0, vec![]);
    while let Some(end) = replies.skip(at).unwrap() {
        at = end;
        ends.push(end);
    }
    assert_eq!(ends, [5, 14, 19, 28, 32]);
    assert_eq!((replies.errors, replies.first_error.as_deref()), (1, Some("-ERR no")));
    assert!(Replies::over(b"?\r\n").skip(0).is_err());
    assert_eq!(Replies::over(b"$99999999999999999999999\r\n").skip(0).unwrap(), None);
}

/// Not faster than itself: redis stands in for the nodes. Needs redis-server, which `make setup`
/// installs.
#[tokio::test]
async fn the_whole_measurement_runs_and_makes_a_table() {
    let dir = tempfile::tempdir().unwrap();
    let (runner, _deaths) = Runner::new();
    let config = Config::new(dir.path().join("other"), vec![]);
    std::fs::create_dir_all(&config.dir).unwrap();
    let other = servers::start_redis(&runner, &config).await.unwrap();
    let State::Running { pid } = runner.state(REDIS).unwrap() else { panic!("redis ended") };
    let resp = other.targets[0].address.clone();
    let node = |name: &str| Node { name: name.into(), pid, resp: resp.clone(), cluster_resp: None };
    let case = |command, connections, pipeline| Case { command, connections, pipeline };
    let config = Config {
        rounds: 2,
        duration: Duration::from_millis(100),
        keys: 2000,
        cases: vec![case(Command::Set, 5, 16), case(Command::Get, 1, 1)],
        ..Config::new(dir.path().join("bench"), vec![node("n1"), node("n2"), node("n3")])
    };
    let mut lines = 0;
    let report = run(&config, |_| lines += 1).await.unwrap();
    assert_eq!((report.rows.len(), lines), (4, 2 + 8));
    assert!(report.rows.iter().all(|row| row.errors == 0 && row.per_second[1] > 0.0));
    let table = report.markdown();
    println!("{table}");
    assert!(table.contains("| SET c5 P16 | flotilla | "), "{table}");
    let json = serde_json::to_string(&report).unwrap();
    assert_eq!(serde_json::from_str::<Report>(&json).unwrap().rows.len(), 4);
}
