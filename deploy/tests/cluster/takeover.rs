//! Two syncers in each of two clusters: when one is killed, the other one serves its groups and its
//! links within three seconds, counted from the kill to what a client of the other cluster sees.

use crate::harness::{Process, Redis, alone, eventually, flotilla, free_ports, said};
use flotilla_node::tls::dev::{Authority, Request};
use flotilla_topology::ids::{ClusterId, Identity, Role};
use serde_json::Value as Json;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// What is promised.
const WITHIN: Duration = Duration::from_secs(3);
/// Ports of one cluster.
const PORTS: u16 = 20;
/// Keys of a round: enough to meet every group.
const KEYS: usize = 32;

const CLUSTERS: [(u8, &str); 2] = [(1, "east"), (2, "west")];

/// Both clusters, one node each.
struct World {
    port: u16,
    dir: TempDir,
    authority: Authority,
    processes: BTreeMap<String, Process>,
}

impl World {
    fn start() -> World {
        let mut world = World {
            port: free_ports(2 * PORTS),
            dir: tempfile::tempdir().expect("a temporary directory"),
            authority: Authority::create("takeover", 1).expect("an authority"),
            processes: BTreeMap::new(),
        };
        world.write("topology", &world.topology());
        for (id, name) in CLUSTERS {
            let (pd, node) = (world.pd(id, name), world.node(id, name));
            world.run("pd", &format!("{name}-pd"), &pd);
            world.run("node", &format!("{name}-n1"), &node);
            for n in [1, 2] {
                let syncer = world.syncer(id, name, n);
                world.run("syncer", &format!("{name}-s{n}"), &syncer);
            }
        }
        world
    }

    fn at(&self, cluster: u8, port: u16) -> String {
        format!("127.0.0.1:{}", self.port + u16::from(cluster - 1) * PORTS + port)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.dir.path().join(format!("{name}.toml"));
        std::fs::write(path, text).expect("a file");
    }

    fn run(&mut self, kind: &str, name: &str, config: &str) {
        self.write(name, config);
        self.begin(kind, name);
    }

    /// Starts what is configured already.
    fn begin(&mut self, kind: &str, name: &str) {
        let file = |end: &str| self.dir.path().join(format!("{name}.{end}"));
        let config = file("toml").display().to_string();
        let process = Process::start(&[kind, "--config", &config], &file("log"));
        self.processes.insert(name.to_owned(), process);
    }

    fn topology(&self) -> String {
        let mut text = "mode = \"async\"\n".to_owned();
        for (id, name) in CLUSTERS {
            let (pd, links) = (self.at(id, 4), [self.at(id, 11), self.at(id, 14)]);
            text += &format!(
                "[[datacenter]]\nname = \"{name}\"\n[[cluster]]\nid = {id}\nname = \"{name}\"\n\
                 datacenters = [\"{name}\"]\npd = [\"{pd}\"]\nsyncers = {links:?}\nreplicas = 1\n"
            );
        }
        text + "[[rtt]]\nbetween = [\"east\", \"west\"]\nrtt = \"1ms\"\n"
    }

    /// What all configurations have in common.
    fn common(&self, cluster: u8, role: Role, name: &str) -> String {
        let identity = Identity { cluster: ClusterId(cluster), role, name: name.to_owned() };
        let certs = self.dir.path().join(format!("certs{cluster}"));
        let files = self.authority.issue_files(&Request::of(identity), &certs).expect("issued");
        let shown = |path: &Path| path.display().to_string();
        format!(
            "name = \"{name}\"\ncluster = {cluster}\ndir = {:?}\ntls = {{ ca = {:?}, cert = {:?}, \
             key = {:?} }}\n",
            shown(&self.dir.path().join(name)),
            shown(&files.ca),
            shown(&files.cert),
            shown(&files.key)
        )
    }

    fn pd(&self, id: u8, cluster: &str) -> String {
        format!(
            "{}cluster_name = \"{cluster}\"\ntopology = {:?}\nlisten = {{ rpc = \"{}\", http = \
             \"{}\" }}\nbootstrap = {{ nodes = 1, partitions = 4, replicas = 1 }}\n",
            self.common(id, Role::Pd, &format!("{cluster}-pd")),
            self.dir.path().join("topology.toml").display().to_string(),
            self.at(id, 4),
            self.at(id, 5)
        )
    }

    fn node(&self, id: u8, cluster: &str) -> String {
        format!(
            "{}datacenter = \"{cluster}\"\npd = [\"{}\"]\nmemory = {}\nlisten = {{ resp = \"{}\", \
             cluster_resp = \"{}\", rpc = \"{}\", http = \"{}\" }}\n",
            self.common(id, Role::Node, &format!("{cluster}-n1")),
            self.at(id, 4),
            128 << 20,
            self.at(id, 0),
            self.at(id, 1),
            self.at(id, 2),
            self.at(id, 3)
        )
    }

    fn syncer(&self, id: u8, cluster: &str, n: u16) -> String {
        let port = 10 + 3 * (n - 1);
        format!(
            "{}datacenter = \"{cluster}\"\npd = [\"{}\"]\nlisten = {{ rpc = \"{}\", link = \"{}\", \
             http = \"{}\" }}\n",
            self.common(id, Role::Syncer, &format!("{cluster}-s{n}")),
            self.at(id, 4),
            self.at(id, port),
            self.at(id, port + 1),
            self.at(id, port + 2)
        )
    }

    fn redis(&self, cluster: u8) -> Redis {
        Redis::new(&self.at(cluster, 0))
    }

    /// Both syncers of both clusters hold groups, and every link is live.
    fn settles(&self) {
        let pds = [self.at(1, 5), self.at(2, 5)];
        eventually("two syncers share the groups of each cluster", || {
            let output = flotilla(&["status", "--json", "--pd", &pds[0], "--pd", &pds[1]]);
            let status: Json = serde_json::from_slice(&output.stdout)
                .map_err(|error| format!("{error}: {}", said(&output)))?;
            let clusters = status["clusters"].as_array().ok_or("no clusters")?.clone();
            let shared = clusters.iter().all(|cluster| {
                let groups = cluster["map"]["groups"].as_array().expect("groups").iter();
                let holders: BTreeSet<String> =
                    groups.map(|group| group["learners"][0]["syncer"].to_string()).collect();
                let links = cluster["links"].as_array().expect("links");
                let live = links.len() == 4 && links.iter().all(|link| link["state"] == "live");
                live && holders.len() == 2 && !holders.contains("null")
            });
            if clusters.len() == 2 && shared { Ok(()) } else { Err(status.to_string()) }
        });
    }

    /// kill -9, and how long it takes until what is written right after it is seen over there, for
    /// each direction.
    fn kill(&mut self, name: &str) -> [Duration; 2] {
        let mut ends = [self.redis(1), self.redis(2)];
        // Connected already: what is measured is not the test.
        ends.iter_mut().for_each(|end| drop(end.call(&["PING"])));
        self.processes.get_mut(name).expect("it runs").kill();
        let killed = Instant::now();
        for (n, end) in ends.iter_mut().enumerate() {
            for key in 0..KEYS {
                end.call(&["SET", &format!("{name}:{n}:{key}"), "seen"]);
            }
        }
        let mut took = [Duration::ZERO; 2];
        let mut left: BTreeSet<(usize, usize)> =
            (0..2).flat_map(|n| (0..KEYS).map(move |key| (n, key))).collect();
        eventually("everything arrives", || {
            left.retain(|(n, key)| {
                let reply = ends[1 - n].call(&["GET", &format!("{name}:{n}:{key}")]);
                let arrived = reply == "seen";
                if arrived {
                    took[*n] = killed.elapsed();
                }
                !arrived
            });
            if left.is_empty() { Ok(()) } else { Err(format!("{} are missing", left.len())) }
        });
        took
    }
}

#[test]
fn the_other_syncer_takes_over_within_three_seconds() {
    let _alone = alone();
    let mut world = World::start();
    world.settles();
    for name in ["east-s1", "west-s1"] {
        let took = world.kill(name);
        println!(
            "{name} killed: east to west after {:?}, west to east after {:?}",
            took[0], took[1]
        );
        assert!(took.iter().all(|took| *took < WITHIN), "{name}: {took:?}");
        // It comes back, and gets its share without harm to the others.
        world.begin("syncer", name);
        world.settles();
    }
    let (mut east, mut west) = (world.redis(1), world.redis(2));
    east.call(&["SET", "last", "1"]);
    west.becomes(&["GET", "last"], "1");
}
