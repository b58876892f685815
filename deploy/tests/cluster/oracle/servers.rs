//! The oracle's processes, which end with the test.

use super::talk::{Connection, Reply};
use crate::harness::{Process, eventually, free_ports};
use flotilla_node::command::REDIS_COUNTED;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// A real Redis.
pub struct Redis {
    child: Child,
    /// Where it listens.
    pub port: u16,
}

impl Redis {
    /// Starts one with its files in a directory.
    pub fn start(dir: &Path, settings: &[&str]) -> Redis {
        std::fs::create_dir_all(dir).expect("a directory");
        let ports = free_ports(2);
        let child = Command::new("redis-server")
            .args(["--port", &ports.to_string(), "--bind", "127.0.0.1", "--save", ""])
            .args(["--cluster-port", &(ports + 1).to_string()])
            .args(settings)
            .current_dir(dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("redis-server is installed: apt-get install redis-server");
        let mut redis = Redis { child, port: ports };
        eventually("redis-server listens", || {
            if let Some(status) = redis.child.try_wait().expect("a child can be waited for") {
                panic!("redis-server ended, {status}");
            }
            std::net::TcpStream::connect(("127.0.0.1", ports)).map_err(|error| error.to_string())
        });
        let info = Connection::open(ports, 2).ask(&["INFO", "server"]).shown();
        let wanted = format!("redis_version:{REDIS_COUNTED}\\r");
        assert!(info.contains(&wanted), "the oracle is redis-server {REDIS_COUNTED}, not {info}");
        redis
    }

    /// Starts one in cluster mode that has all slots; it is ready some two seconds later.
    pub fn start_cluster(dir: &Path) -> Redis {
        let redis = Redis::start(dir, &["--cluster-enabled", "yes"]);
        let added =
            Connection::open(redis.port, 2).ask(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]);
        assert_eq!(added, Reply::Line(b"+OK".to_vec()));
        redis
    }

    /// Waits until a cluster of one takes commands.
    pub fn ready(&self) {
        eventually("Redis Cluster is ready", || {
            let info = Connection::open(self.port, 2).ask(&["CLUSTER", "INFO"]).shown();
            if info.contains("cluster_state:ok") { Ok(()) } else { Err(info) }
        });
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A real Flotilla: one process, one group, so that all keys lie together on its plain port.
pub struct Flotilla {
    process: Process,
    /// Its plain port; the cluster port is the next one.
    pub port: u16,
}

impl Flotilla {
    /// Starts one with its files in a directory, and waits until it takes writes.
    pub fn start(dir: &Path) -> Flotilla {
        let port = free_ports(3);
        let data = dir.join("data").display().to_string();
        let number = port.to_string();
        let standalone = ["node", "--standalone", "--dir", &data, "--port", &number];
        let args = [&standalone[..], &["--partitions", "1"]].concat();
        let mut flotilla = Flotilla { process: Process::start(&args, &dir.join("log")), port };
        eventually("a node takes writes", || {
            if let Some(status) = flotilla.process.ended() {
                panic!("the node ended, {status}: {}", flotilla.process.output());
            }
            let listens = std::net::TcpStream::connect(("127.0.0.1", port));
            listens.map_err(|error| error.to_string())?;
            let mut connection = Connection::open(port, 2);
            let reply = connection.ask(&["DEL", "ready"]);
            if reply == Reply::Line(b":0".to_vec()) { Ok(()) } else { Err(reply.shown()) }
        });
        flotilla
    }
}
