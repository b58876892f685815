//! Real client libraries against both ports of a node, over RESP2 and RESP3. `make setup-clients`
//! installs them; the scripts stand in `tests/clients`.

use crate::harness::{Demo, alone};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where `.ci/setup-clients` puts the libraries.
fn libraries() -> PathBuf {
    let from_env = |name: &str| std::env::var_os(name).map(PathBuf::from);
    from_env("FLOTILLA_CLIENTS").unwrap_or_else(|| {
        let cache = from_env("XDG_CACHE_HOME")
            .or_else(|| Some(from_env("HOME")?.join(".cache")))
            .expect("HOME is set");
        cache.join("flotilla/clients")
    })
}

fn port(address: &serde_json::Value) -> String {
    let address = address.as_str().expect("an address");
    address.rsplit(':').next().expect("a port").to_owned()
}

fn run(program: &str, script: &str, path_variable: &str, path: &Path, ports: &[String; 2]) {
    assert!(path.exists(), "{} is missing: run `make setup-clients`", path.display());
    // Tests run in their crate's directory; a path of the build would be another clone's when clones
    // share a target directory.
    let script = Path::new("tests/clients").join(script);
    let output = Command::new(program)
        .arg(&script)
        .args(ports)
        .env(path_variable, path)
        .output()
        .unwrap_or_else(|error| panic!("{program} cannot be started: {error}"));
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {text}{errors}", script.display());
    for line in ["plain RESP2 ok", "plain RESP3 ok", "cluster RESP2 ok", "cluster RESP3 ok"] {
        assert!(text.contains(line), "{}: no `{line}` in {text}", script.display());
    }
}

#[test]
fn client_libraries_work_on_both_ports_and_over_both_protocols() {
    let _alone = alone();
    let demo = Demo::start(&["--datacenters", "east"]);
    let cluster = demo.cluster("east");
    let node = &cluster["nodes"][1];
    let ports = [port(&node["resp"]), port(&node["cluster_resp"])];
    let libraries = libraries();
    run("python3", "redis_py.py", "PYTHONPATH", &libraries.join("python"), &ports);
    run("node", "ioredis.js", "NODE_PATH", &libraries.join("node/node_modules"), &ports);
    for (port, more) in [(&ports[0], None), (&ports[1], Some("-c"))] {
        for protocol in ["-2", "-3"] {
            redis_cli(port, protocol, more);
        }
    }
    demo.stop();
}

fn redis_cli(port: &str, protocol: &str, more: Option<&str>) {
    let call = |args: &[&str]| {
        let mut command = Command::new("redis-cli");
        command.args(["-p", port, protocol]).args(more).args(args);
        let output = command.output().expect("redis-cli is installed by `make setup`");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    assert_eq!(call(&["SET", "cli", protocol]), "OK");
    assert_eq!(call(&["GET", "cli"]), protocol);
    assert_eq!(call(&["DEL", "cli"]), "1");
}
