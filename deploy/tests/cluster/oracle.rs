//! The same steps against redis-server and a node, in both protocols, reply by reply. What there is to
//! do are the files in `oracle/`; `steps` says how they are written.

mod servers;
mod steps;
mod talk;

use crate::harness::alone;
use flotilla_node::command::{BEYOND_REDIS, SUBCOMMANDS, TABLE};
use servers::{Flotilla, Redis};
use std::collections::{BTreeMap, BTreeSet};
use steps::{File, How, Section, Step};
use talk::{Connection, Reply};

/// Commands of Redis that must be supported at least, subcommands included.
const SUPPORTED_MIN: usize = 200;
/// Steps of a command, and of one that takes no arguments.
const STEPS_MIN: usize = 3;
/// The family that is asked on the cluster ports.
const CLUSTER: &str = "cluster";
/// Differences that a failure shows.
const SHOWN_MAX: usize = 100;

/// The two that are compared.
struct Pair {
    ours: u16,
    theirs: u16,
    protocol: u8,
}

/// Open connections of a section, by their letters: ours and theirs.
type Connections = BTreeMap<char, (Connection, Connection)>;

impl Pair {
    fn connect(&self) -> (Connection, Connection) {
        (Connection::open(self.ours, self.protocol), Connection::open(self.theirs, self.protocol))
    }

    /// What is wrong with the replies, if anything.
    fn take(&self, step: &Step, connections: &mut Connections) -> Option<String> {
        let (ours, theirs) = connections.entry(step.connection).or_insert_with(|| self.connect());
        ours.send(&step.words);
        theirs.send(&step.words);
        if !step.answered {
            return None;
        }
        let (our, their) = (ours.reply(), theirs.reply());
        if our == Reply::Closed || their == Reply::Closed {
            connections.remove(&step.connection);
        }
        let same = our.same(&their, step.how);
        let known = step.differs.as_ref();
        let differs = known.filter(|known| known.protocol.is_none_or(|one| one == self.protocol));
        // Of a difference these say how far it goes.
        let alike = matches!(step.how, How::Shape | How::Floats);
        let what = match differs {
            None if same => return None,
            None => format!("differs ({:?})", step.how),
            Some(_) if same == alike && our != their => return None,
            Some(known) => format!("differs not as listed ({}, {:?})", known.key, step.how),
        };
        Some(format!("{what}\n    ours   {}\n    theirs {}", our.shown(), their.shown()))
    }

    fn section(&self, family: &str, section: &Section, wrong: &mut Vec<String>) {
        for port in [self.ours, self.theirs] {
            delete_all(port);
        }
        let mut connections = Connections::new();
        for step in &section.steps {
            if let Some(what) = self.take(step, &mut connections) {
                let (line, text, protocol) = (step.line, &step.text, self.protocol);
                wrong.push(format!("{family}.steps:{line} RESP{protocol}: {text}\n  {what}"));
            }
        }
    }
}

/// Every section begins without keys.
fn delete_all(port: u16) {
    let mut connection = Connection::open(port, 2);
    let Reply::Nested(_, keys) = connection.ask(&["KEYS", "*"]) else { panic!("KEYS has no keys") };
    for key in keys {
        let Reply::Text(_, key) = key else { panic!("a key is a string") };
        let deleted = connection.ask(&[&b"DEL"[..], &key]);
        assert!(matches!(&deleted, Reply::Line(line) if line[0] == b':'), "{}", deleted.shown());
    }
}

fn run(pair: &Pair, files: &[File], wanted: impl Fn(&str) -> bool, wrong: &mut Vec<String>) {
    for file in files.iter().filter(|file| wanted(&file.family)) {
        for section in &file.sections {
            pair.section(&file.family, section, wrong);
        }
    }
}

#[test]
fn replies_are_those_of_redis() {
    let _alone = alone();
    let temp = tempfile::tempdir().unwrap();
    let files = steps::read_all();
    let redis_cluster = Redis::start_cluster(&temp.path().join("redis-cluster"));
    let redis = Redis::start(&temp.path().join("redis"), &[]);
    let flotilla = Flotilla::start(temp.path());
    let mut wrong = Vec::new();
    for protocol in [2, 3] {
        let pair = Pair { ours: flotilla.port, theirs: redis.port, protocol };
        run(&pair, &files, |family| family != CLUSTER, &mut wrong);
    }
    redis_cluster.ready();
    for protocol in [2, 3] {
        let pair = Pair { ours: flotilla.port + 1, theirs: redis_cluster.port, protocol };
        run(&pair, &files, |family| family == CLUSTER, &mut wrong);
    }
    let shown = wrong[..wrong.len().min(SHOWN_MAX)].join("\n");
    assert!(wrong.is_empty(), "{} replies are not as expected:\n{shown}", wrong.len());
}

/// Names of all that Redis has as well, and whether they take arguments.
fn supported() -> BTreeMap<&'static str, bool> {
    let commands = TABLE.iter().map(|spec| (spec.name, spec.arity != 1));
    let subs = SUBCOMMANDS.iter().map(|sub| (sub.full_name, sub.arity != 2));
    commands.chain(subs).filter(|(name, _)| !BEYOND_REDIS.contains(name)).collect()
}

#[test]
fn every_command_has_its_steps() {
    let supported = supported();
    assert!(supported.len() >= SUPPORTED_MIN, "{} commands are supported", supported.len());
    let files = steps::read_all();
    let mut own: BTreeMap<&str, usize> = BTreeMap::new();
    for (file, section) in
        files.iter().flat_map(|file| file.sections.iter().map(move |s| (file, s)))
    {
        let (family, name) = (&file.family, section.command.as_str());
        assert!(supported.contains_key(name), "{family}.steps: no command `{name}` is supported");
        *own.entry(name).or_default() += section.own();
    }
    for (name, has_arguments) in supported {
        let wanted = if has_arguments { STEPS_MIN } else { 1 };
        let found = own.get(name).copied().unwrap_or(0);
        assert!(
            found >= wanted,
            "`{name}` has {found} steps of {wanted}: add some to a *.steps file"
        );
    }
    let sections: usize = files.iter().map(|file| file.sections.len()).sum();
    let all = files.iter().flat_map(|file| &file.sections).map(|section| section.steps.len());
    println!("{} commands, {sections} sections, {} steps", own.len(), all.sum::<usize>());
}

const README: &str = "../node/README.md";
const HEADING: &str = "## Where replies differ from Redis 7.0";

#[test]
fn every_difference_has_its_reason_in_the_readme() {
    let text = std::fs::read_to_string(README).unwrap();
    let (_, text) = text.split_once(HEADING).expect("node/README.md lists differences");
    let text = text.split("\n## ").next().unwrap_or_default();
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` |"));
    let listed: BTreeSet<&str> = rows.map(|(key, _)| key).collect();
    let files = steps::read_all();
    let steps = files.iter().flat_map(|file| &file.sections).flat_map(|section| &section.steps);
    let known = steps.filter_map(|step| step.differs.as_ref());
    let used: BTreeSet<&str> = known.map(|known| known.key.as_str()).collect();
    assert_eq!(used, listed, "keys of steps, and keys that {README} lists");
}
