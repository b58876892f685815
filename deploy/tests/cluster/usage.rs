//! What is asked wrongly ends at once, with its exit code and a line that says what to do.

use crate::harness::{flotilla, free_ports, said};
use flotilla_chaos::process::HeldPort;

#[test]
fn a_taken_port_is_told_before_anything_starts() {
    let dir = tempfile::tempdir().unwrap();
    let port = free_ports(100);
    let _held = HeldPort::wanted(port + 41).unwrap();
    let demo_dir = dir.path().join("demo");
    let output = flotilla(&[
        "demo",
        "--no-prompt",
        "--datacenters",
        "east",
        "--port",
        &port.to_string(),
        "--dir",
        &demo_dir.display().to_string(),
    ]);
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    assert!(said(&output).contains(&format!("port {}", port + 41)), "{}", said(&output));
    assert!(!demo_dir.exists(), "nothing was written");
}

#[test]
fn exit_codes_tell_usage_from_failure_from_silence() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("missing").display().to_string();
    let file = dir.path().join("topology.toml");
    std::fs::write(&file, "[[datacenter]]\nname = \"east\"\n[[cluster]]\nid = 300\n").unwrap();
    let port = free_ports(1).to_string();
    let nobody = format!("127.0.0.1:{port}");
    let cases: &[(&[&str], i32)] = &[
        (&["explode"], 2),
        (&["node"], 2),
        (&["node", "--config", &missing], 2),
        (&["pd", "--config", &missing], 2),
        (&["syncer", "--config", &missing], 2),
        (&["status"], 2),
        (&["status", "--state", &missing], 2),
        (&["status", "--pd", &nobody], 3),
        (&["lag", "--pd", &nobody], 3),
        (&["verify", "--pd", &nobody, "--timeout", "0s"], 6),
        (&["link"], 2),
        (&["link", "list", "--pd", &nobody], 3),
        (&["link", "pause", "west"], 2),
        (&["link", "pause", "west", "--state", &missing], 2),
        (&["topology", "check", &file.display().to_string()], 1),
        (&["topology", "check", &missing], 2),
        (&["demo", "--datacenters", "a,a"], 2),
        (&["demo", "--nodes", "0"], 2),
        (&["chaos", "--scenario", "explode"], 2),
        (&["--log", "no=such=level", "status", "--pd", &nobody], 2),
    ];
    for (args, code) in cases {
        let output = flotilla(args);
        assert_eq!(output.status.code(), Some(*code), "{args:?}: {}", said(&output));
        assert!(!output.stderr.is_empty() || *code == 1 || *code == 6, "{args:?} says nothing");
    }
    assert_eq!(flotilla(&["--help"]).status.code(), Some(0));
}
