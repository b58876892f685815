//! Against redis-server itself in the place of the cluster's nodes, and against three etcd nodes.

use super::sample::tests::case;
use super::*;
use crate::process::{Runner, State};

fn short(dir: PathBuf) -> Config {
    let duration = Duration::from_millis(100);
    Config { rounds: 1, duration, keys: 500, ..Config::new(dir) }
}

fn variation(config: &Config, cases: Vec<Case>, kinds: &[Kind]) -> Variation {
    let Config { keys, value_bytes, .. } = *config;
    Variation { label: String::new(), cases, kinds: kinds.to_vec(), keys, value_bytes, zipf: false }
}

/// Not faster than itself: redis stands in for the nodes. Needs redis-server, which `make setup`
/// installs.
#[tokio::test]
async fn the_whole_measurement_runs_and_makes_tables() {
    let dir = tempfile::tempdir().unwrap();
    let config = short(dir.path().join("bench"));
    let (runner, _deaths) = Runner::new();
    let elsewhere = short(dir.path().join("other"));
    let other = peers::start(Kind::Redis, &runner, &elsewhere).await.unwrap();
    let State::Running { pid } = runner.state("redis").unwrap() else { panic!("redis ended") };
    let resp = other.targets[0].address.clone();
    let node = |name: &str| Node { name: name.into(), pid, resp: resp.clone(), cluster_resp: None };
    let fleet = Fleet { nodes: ["n1", "n2", "n3"].map(node).into(), others: vec![] };
    let kinds = [Kind::Redis, Kind::Flotilla, Kind::FlotillaOne];
    let mut lines = vec![];
    let session = Session::start(&config, &kinds, |line| lines.push(line.to_owned()));
    let mut session = session.await.unwrap();
    session.use_fleet(&fleet, &kinds).await.unwrap();

    let mut report = Report::new(&config, "none".into());
    let cases = vec![case(Command::Set, 5, 16), case(Command::Get, 1, 1)];
    let plain = variation(&config, cases.clone(), &kinds);
    let closed = session.closed(&plain).await.unwrap();
    report.set_canary(&closed);
    report.tables.push(Table::new("cases", "", true, &closed));
    let one = variation(&config, vec![case(Command::Set, 5, 1)], &[Kind::FlotillaOne]);
    let open = session.open(&one, |_, _| Some(500.0)).await.unwrap();
    report.open = OpenRow::all(&open);
    let families = Command::FAMILIES.map(|command| case(command, 2, 1)).to_vec();
    let zipf =
        Variation { zipf: true, label: "z".into(), ..variation(&config, families, &kinds[..1]) };
    let families = session.closed(&zipf).await.unwrap();
    report.tables.push(Table::new("families", "keys", false, &families));
    report.idle = session.idle(&[Kind::Redis, Kind::FlotillaOne], 20).await.unwrap();
    report.gates = Gate::all(&closed, &report.open);
    session.stop().await;

    assert_eq!(lines.len(), 2 + 6 + 1 + 10 + 2, "{lines:#?}");
    let rows: Vec<&Row> = report.tables.iter().flat_map(|table| &table.rows).collect();
    assert_eq!(rows.len(), 6 + 10);
    for row in rows {
        assert_eq!((row.errors, row.nothing), (0, 0), "{row:?}");
        assert!(row.per_second[1] > 0.0, "{row:?}");
    }
    let [row] = report.open.as_slice() else { panic!("{:?}", report.open) };
    assert!((row.per_second[0] - 500.0).abs() < 50.0, "{row:?}");
    assert_eq!((row.unsent, row.errors, report.idle.len()), (0, 0, 2));
    let text = report.markdown();
    assert!(text.contains("| SET c5 P16 | flotilla-one | "), "{text}");
    assert!(text.contains("0 of 13 gates hold"), "its connections are not 50: {text}");
    let json = serde_json::to_string(&report).unwrap();
    assert_eq!(serde_json::from_str::<Report>(&json).unwrap().tables.len(), 2);
}

/// Needs etcd, which `make setup` installs.
#[tokio::test]
async fn etcd_keeps_what_it_is_given_and_finds_all_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let config = short(dir.path().join("bench"));
    let mut session = Session::start(&config, &[Kind::Etcd], |_| {}).await.unwrap();
    let cases = vec![case(Command::Get, 3, 1), case(Command::Set, 3, 4), case(Command::Incr, 1, 1)];
    let etcd = variation(&config, cases, &[Kind::Etcd]);
    let samples = session.closed(&etcd).await.unwrap();
    session.stop().await;
    let rows = Table::new("etcd", "", true, &samples).rows;
    for row in &rows[..2] {
        assert_eq!((row.errors, row.nothing, row.server), (0, 0, Kind::Etcd), "{row:?}");
        assert!(row.per_second[1] > 0.0, "{row:?}");
    }
    // 14 bytes of key and 128 of value, on three nodes.
    match (usage::written_to_disk_of(dir.path()), rows[1].written_per_user_byte) {
        (Ok(_), Some(written)) => assert!(written[0] > 3.0, "{written:?}"),
        (told, shown) => assert!(told.is_err() && shown.is_none(), "{told:?}, {shown:?}"),
    }
    assert_eq!(rows[2].first_error.as_deref(), Some("etcd has no INCR"));
}
