//! What is measured, from what was asked for. Pure.

use super::BenchArgs;
use crate::demo::layout::Make;
use crate::exit::Exit;
use flotilla_chaos::bench::{Case, Command, Gate, Kind, VALUE_BYTES, Variation};

/// Bytes of all values together where values are large: fewer keys then.
const VALUES_BYTES_MAX: usize = 64 << 20;
/// Keys at least, however large the values.
const KEYS_MIN: u32 = 100;
/// Connections of the matrices and the open loop.
const CONNECTIONS: usize = 50;
/// Client connections of a node besides the idle ones.
const OTHER_CONNECTIONS: usize = 1000;

/// A table whose rows differ in one thing.
pub(super) struct Matrix {
    pub(super) title: String,
    /// What they differ in.
    pub(super) axis: String,
    pub(super) variations: Vec<Variation>,
    /// Nodes and make of the cluster of each variation, where they have one of their own.
    pub(super) makes: Vec<(usize, Make)>,
    /// Whether costs are shown.
    pub(super) costs: bool,
}

/// All that is measured.
pub(super) struct Plan {
    /// Servers of the cases, the open loop and the idle connections.
    pub(super) main: Vec<Kind>,
    pub(super) cases: Vec<Case>,
    pub(super) open: Vec<Case>,
    pub(super) rate: Option<f64>,
    pub(super) idle: Option<usize>,
    pub(super) gates: bool,
    /// Of the cluster that these and `matrices` are measured on.
    pub(super) make: Make,
    pub(super) matrices: Vec<Matrix>,
    /// Matrices that start clusters of their own.
    pub(super) clusters: Vec<Matrix>,
}

/// Uniform keys and usual values.
pub(super) fn variation(label: &str, cases: Vec<Case>, kinds: &[Kind], keys: u32) -> Variation {
    let (label, kinds) = (label.to_owned(), kinds.to_vec());
    Variation { label, cases, kinds, keys, value_bytes: VALUE_BYTES, zipf: false }
}

fn cases(commands: &[Command], connections: &[usize], pipelines: &[usize]) -> Vec<Case> {
    let mut cases = Vec::new();
    for &command in commands {
        for &connections in connections {
            let case = |&pipeline| Case { command, connections, pipeline };
            cases.extend(pipelines.iter().map(case));
        }
    }
    cases
}

/// SET and GET at 50 connections, without and with pipelining.
fn usual_cases() -> Vec<Case> {
    cases(&[Command::Set, Command::Get], &[CONNECTIONS], &[1, 16])
}

impl Plan {
    /// What was asked for, or why it cannot be.
    pub(super) fn new(args: &BenchArgs) -> anyhow::Result<Plan> {
        super::check(args)?;
        let mut asked = args.servers.clone();
        if args.kvrocks.is_some() && !asked.contains(&Kind::Kvrocks) {
            if asked.is_empty() {
                asked.extend(MAIN);
            }
            asked.push(Kind::Kvrocks);
        }
        let mut main = if asked.is_empty() && !args.gates { MAIN.to_vec() } else { asked.clone() };
        let matrix = if asked.is_empty() { MATRIX.to_vec() } else { asked };
        let set_and_get = [Command::Set, Command::Get];
        let mut measured = cases(&set_and_get, &[1, CONNECTIONS], &[1, 16]);
        if args.gates {
            let (kinds, cases) = Gate::needs();
            main.extend(kinds);
            measured = cases;
        }
        once(&mut main);
        let open = args.open || args.gates || args.rate.is_some();
        let connections = args.idle.map(|count| count + OTHER_CONNECTIONS);
        let plan = Plan {
            cases: if args.no_cases { vec![] } else { measured },
            open: if open { cases(&set_and_get, &[CONNECTIONS], &[1]) } else { vec![] },
            rate: args.rate.map(f64::from),
            idle: args.idle,
            gates: args.gates,
            make: Make { connections_max: connections, ..make(args) },
            matrices: matrices(args, &matrix),
            clusters: clusters(args, &matrix),
            main,
        };
        let all = plan.matrices.iter().chain(&plan.clusters);
        let empty = |one: &Variation| one.kinds.is_empty();
        if let Some(matrix) = all.into_iter().find(|one| one.variations.iter().any(empty)) {
            let line = format!("--servers: none of these can be measured for: {}", matrix.title);
            return Err(Exit::usage(line));
        }
        if !plan.has_standing() && plan.clusters.is_empty() {
            return Err(Exit::usage("--no-cases: give something else to measure, see --help"));
        }
        Ok(plan)
    }

    /// Whether anything is measured that needs no clusters of its own.
    pub(super) fn has_standing(&self) -> bool {
        let some = !self.cases.is_empty() || !self.open.is_empty() || self.idle.is_some();
        some || !self.matrices.is_empty()
    }

    /// Whether that takes a cluster.
    pub(super) fn standing_cluster(&self) -> bool {
        let variations = self.matrices.iter().flat_map(|matrix| &matrix.variations);
        let kinds = variations.flat_map(|variation| &variation.kinds);
        kinds.chain(&self.main).any(|kind| kind.is_cluster())
    }

    /// All servers that are needed.
    pub(super) fn kinds(&self) -> Vec<Kind> {
        let matrices = self.matrices.iter().chain(&self.clusters);
        let variations = matrices.flat_map(|matrix| &matrix.variations);
        let main = if self.cases.is_empty() && self.open.is_empty() && self.idle.is_none() {
            [].iter()
        } else {
            self.main.iter()
        };
        let mut kinds: Vec<Kind> =
            main.chain(variations.flat_map(|one| &one.kinds)).copied().collect();
        once(&mut kinds);
        kinds
    }
}

/// Servers, where nothing is asked for.
const MAIN: [Kind; 4] = [Kind::Redis, Kind::Standalone, Kind::Flotilla, Kind::FlotillaOne];
/// The same of matrices.
const MATRIX: [Kind; 2] = [Kind::Redis, Kind::FlotillaOne];
/// All ways to read the cluster.
const READS: [Kind; 5] =
    [Kind::Redis, Kind::Flotilla, Kind::FlotillaOne, Kind::FlotillaCluster, Kind::FlotillaReadonly];

/// Takes out what is there already.
fn once(kinds: &mut Vec<Kind>) {
    let mut seen = Vec::new();
    kinds.retain(|kind| {
        let new = !seen.contains(kind);
        seen.push(*kind);
        new
    });
}

fn matrices(args: &BenchArgs, kinds: &[Kind]) -> Vec<Matrix> {
    let mut all = Vec::new();
    let mut add = |title: &str, axis: &str, costs, variations| {
        let (title, axis, makes) = (title.to_owned(), axis.to_owned(), vec![]);
        all.push(Matrix { title, axis, variations, makes, costs });
    };
    let only = |may: fn(Kind) -> bool| -> Vec<Kind> {
        kinds.iter().copied().filter(|kind| may(*kind)).collect()
    };
    if args.zipf {
        // At the leaders' doors the keys are told by their leaders.
        let kinds = only(|kind| kind != Kind::FlotillaCluster);
        let uniform = variation("uniform", usual_cases(), &kinds, args.keys);
        let zipf = Variation { label: "zipf".to_owned(), zipf: true, ..uniform.clone() };
        add("Keys all alike, and by Zipf", "keys", false, vec![uniform, zipf]);
    }
    if args.reads {
        let gets = cases(&[Command::Get], &[CONNECTIONS], &[1, 16]);
        add("Ways to read", "", true, vec![variation("", gets, &READS, args.keys)]);
    }
    if args.families {
        let kinds = only(Kind::takes_all);
        let families = cases(&Command::FAMILIES, &[CONNECTIONS], &[1]);
        let variations = vec![variation("", families, &kinds, args.keys)];
        add("A command of each family", "", false, variations);
    }
    if !args.values.is_empty() {
        let kinds = only(|kind| kind != Kind::FlotillaCluster);
        let of = |bytes: &u32| {
            let bytes = *bytes as usize;
            let most = u32::try_from(VALUES_BYTES_MAX / bytes).unwrap_or(u32::MAX).max(KEYS_MIN);
            let usual = variation(&bytes.to_string(), usual_cases(), &kinds, args.keys.min(most));
            Variation { value_bytes: bytes, ..usual }
        };
        let variations = args.values.iter().map(of).collect();
        add("Bytes of a value", "bytes", true, variations);
    }
    all
}

/// What all clusters have in common.
fn make(args: &BenchArgs) -> Make {
    Make { memory: Some(args.memory << 20), ..Make::default() }
}

fn clusters(args: &BenchArgs, kinds: &[Kind]) -> Vec<Matrix> {
    // Beside the cluster only what it is compared with: nothing else is different.
    let beside = |kind: &Kind| kind.is_cluster() || *kind == Kind::Redis;
    let kinds: Vec<Kind> = kinds.iter().copied().filter(beside).collect();
    let of = |label: String| variation(&label, usual_cases(), &kinds, args.keys);
    let mut all = Vec::new();
    if !args.replicas.is_empty() {
        let of_replicas = |replicas: &u8| {
            let nodes = usize::from(*replicas);
            (nodes, Make { replicas: Some(*replicas), ..make(args) })
        };
        all.push(Matrix {
            title: "Replicas, each on a node of its own".to_owned(),
            axis: "replicas".to_owned(),
            variations: args.replicas.iter().map(|one| of(one.to_string())).collect(),
            makes: args.replicas.iter().map(of_replicas).collect(),
            costs: true,
        });
    }
    if !args.groups.is_empty() {
        let of_groups = |groups: &u32| (3, Make { partitions: Some(*groups), ..make(args) });
        all.push(Matrix {
            title: "Groups of the namespace, on three nodes".to_owned(),
            axis: "groups".to_owned(),
            variations: args.groups.iter().map(|one| of(one.to_string())).collect(),
            makes: args.groups.iter().map(of_groups).collect(),
            costs: true,
        });
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: BenchArgs,
    }

    fn parse(words: &str) -> Result<BenchArgs, String> {
        let words = ["bench"].into_iter().chain(words.split_whitespace());
        Line::try_parse_from(words).map(|line| line.args).map_err(|error| error.to_string())
    }

    fn plan(words: &str) -> Plan {
        Plan::new(&parse(words).unwrap()).unwrap_or_else(|error| panic!("{words}: {error}"))
    }

    fn refused(words: &str) -> String {
        match parse(words) {
            Err(error) => error,
            Ok(args) => Plan::new(&args).map(|_| ()).unwrap_err().to_string(),
        }
    }

    #[test]
    fn nothing_asked_for_is_the_cases_and_gates_bring_what_they_need() {
        let usual = plan("");
        assert_eq!((usual.cases.len(), usual.open.len(), usual.kinds()), (8, 0, MAIN.to_vec()));
        assert!(usual.standing_cluster() && !usual.gates);
        let gates = plan("--gates");
        assert_eq!((gates.cases.len(), gates.open.len()), (4, 2));
        let needs = [Kind::Redis, Kind::FlotillaOne, Kind::Etcd, Kind::Standalone];
        assert_eq!(gates.kinds(), needs);
        let more = plan("--gates --servers redis-unsynced,redis");
        assert_eq!(more.kinds()[..2], [Kind::RedisUnsynced, Kind::Redis]);
        assert_eq!(more.kinds().len(), 5);
        assert!(!plan("--servers redis,etcd").standing_cluster());
    }

    #[test]
    fn matrices_measure_what_their_servers_can_do() {
        let all = "--no-cases --zipf --reads --families --values 100,65536 --replicas 1,5 \
                   --groups 8 --servers redis,etcd,flotilla-cluster,flotilla-one";
        let plan = plan(all);
        let titles: Vec<&str> = plan.matrices.iter().map(|one| one.axis.as_str()).collect();
        assert_eq!(titles, ["keys", "", "", "bytes"]);
        let [zipf, reads, families, values] = plan.matrices.as_slice() else { panic!() };
        assert_eq!(zipf.variations[1].kinds, [Kind::Redis, Kind::Etcd, Kind::FlotillaOne]);
        assert!(zipf.variations[1].zipf && !zipf.variations[0].zipf);
        assert_eq!(reads.variations[0].kinds, READS);
        assert_eq!(families.variations[0].kinds, [Kind::Redis, Kind::FlotillaOne]);
        assert_eq!(families.variations[0].cases.len(), 10);
        let [small, large] = values.variations.as_slice() else { panic!() };
        assert_eq!((small.keys, large.keys, large.value_bytes), (100_000, 1024, 65_536));
        let [replicas, groups] = plan.clusters.as_slice() else { panic!() };
        let memory = Some(1 << 30);
        assert_eq!(replicas.makes[1], (5, Make { replicas: Some(5), memory, ..Make::default() }));
        assert_eq!(groups.makes[0], (3, Make { partitions: Some(8), memory, ..Make::default() }));
        assert_eq!(
            groups.variations[0].kinds,
            [Kind::Redis, Kind::FlotillaCluster, Kind::FlotillaOne]
        );
    }

    #[test]
    fn what_cannot_be_is_refused_in_a_line() {
        for (words, why) in [
            ("--servers redis,valkey", "there is no server `valkey`; there are redis, "),
            ("--kvrocks /nowhere/kvrocks", "--kvrocks /nowhere/kvrocks: there is no such file"),
            ("--servers kvrocks", "give its executable with --kvrocks PATH"),
            ("--no-cases", "give something else to measure"),
            ("--no-cases --open", "give a rate with --rate"),
            ("--no-cases --gates", "cannot be used with"),
            ("--strict", "--gates"),
            ("--replicas 2", "replicas are 1, 3 or 5"),
            ("--families --servers etcd", "none of these can be measured for: A command of each"),
            ("--idle 25001", "must be at most 25000"),
            ("--values 0", "0 is not in"),
        ] {
            let error = refused(words);
            assert!(error.contains(why), "{words}: {error}");
        }
    }

    #[test]
    fn idle_connections_widen_the_nodes_limit_and_a_rate_is_an_open_loop() {
        let plan = plan("--idle 100 --rate 500");
        assert_eq!(plan.make.connections_max, Some(1100));
        assert_eq!((plan.open.len(), plan.rate), (2, Some(500.0)));
    }
}
