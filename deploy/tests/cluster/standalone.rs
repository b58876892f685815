//! `flotilla node --standalone`: one process that needs nothing else.

use crate::harness::{Process, Redis, alone, eventually, flotilla, free_ports, said};
use std::path::Path;
use std::process::Command;

struct Standalone {
    process: Process,
    port: u16,
}

impl Standalone {
    fn start(dir: &Path, log: &Path) -> Standalone {
        let port = free_ports(3);
        let (dir, number) = (dir.display().to_string(), port.to_string());
        let args = ["node", "--standalone", "--dir", &dir, "--port", &number];
        let node = Standalone { process: Process::start(&args, log), port };
        node.redis().becomes(&["PING"], "PONG");
        node
    }

    fn redis(&self) -> Redis {
        Redis::new(&format!("127.0.0.1:{}", self.port))
    }

    fn write(&self, key: &str) {
        let mut redis = self.redis();
        eventually("a write is acknowledged", || redis.try_call(&["SET", key, key]));
    }
}

#[test]
fn what_was_acknowledged_survives_a_stop_and_a_kill() {
    let _alone = alone();
    let temp = tempfile::tempdir().unwrap();
    let (dir, log) = (temp.path().join("data"), temp.path().join("log"));
    let mut first = Standalone::start(&dir, &log);
    first.write("stopped");
    let status = first.process.terminate();
    assert!(status.success(), "{status}: {}", first.process.output());
    let mut second = Standalone::start(&dir, &log);
    second.redis().becomes(&["GET", "stopped"], "stopped");
    second.write("killed");
    second.process.kill();
    let third = Standalone::start(&dir, &log);
    third.redis().becomes(&["GET", "killed"], "killed");
    redis_cli_works(&third);
    another_node_is_refused(&dir, temp.path());
}

fn redis_cli_works(node: &Standalone) {
    let port = node.port.to_string();
    let run = |args: &[&str]| {
        let output = Command::new("redis-cli").args(["-p", &port]).args(args).output();
        String::from_utf8_lossy(&output.expect("redis-cli runs").stdout).trim().to_owned()
    };
    for protocol in ["-2", "-3"] {
        assert_eq!(run(&[protocol, "SET", "cli", protocol]), "OK");
        assert_eq!(run(&[protocol, "GET", "cli"]), protocol);
        assert_eq!(run(&[protocol, "HSET", "cli:h", "f", "v"]).len(), 1);
    }
}

/// The directory of one node is no other node's, whatever its configuration says.
fn another_node_is_refused(dir: &Path, temp: &Path) {
    let ports = free_ports(4);
    let at = |n: u16| format!("127.0.0.1:{}", ports + n);
    let config = temp.join("other.toml");
    let text = format!(
        "name = \"other\"\ncluster = 9\ndatacenter = \"dc\"\ndir = {:?}\npd = [\"127.0.0.1:1\"]\n\
         listen = {{ resp = {:?}, cluster_resp = {:?}, rpc = {:?}, http = {:?} }}\n\
         tls = {{ ca = \"ca\", cert = \"cert\", key = \"key\" }}\n",
        dir,
        at(0),
        at(1),
        at(2),
        at(3)
    );
    std::fs::write(&config, text).unwrap();
    let output = flotilla(&["node", "--config", &config.display().to_string()]);
    let text = said(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("standalone") && text.contains("data"), "names whose it is: {text}");
}
