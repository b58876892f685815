use super::*;
use crate::Topology;
use crate::testing::{far_apart, full, topology_file};
use proptest::prelude::*;

const EXAMPLE: &str = include_str!("../../../deploy/examples/topology.toml");

/// What `text` is refused for, one line each.
fn refused(text: &str) -> Vec<String> {
    match Topology::parse(text) {
        Ok(topology) => panic!("accepted: {topology:?}"),
        Err(problems) => problems.to_string().lines().map(str::to_owned).collect(),
    }
}

/// The number of the first line that contains `part`.
fn line_of(text: &str, part: &str) -> usize {
    1 + text.lines().position(|line| line.contains(part)).unwrap_or_else(|| panic!("no {part}"))
}

#[test]
fn the_example_is_accepted_and_written_back_the_same() {
    let topology = Topology::parse(EXAMPLE).unwrap_or_else(|p| panic!("{p}"));
    assert_eq!(topology.mode, Mode::Async);
    assert_eq!((topology.clusters.len(), topology.links.len()), (3, 6));
    let again = topology.file.check().unwrap_or_else(|p| panic!("{p}"));
    assert_eq!(again.file, topology.file);
}

#[test]
fn every_key_of_the_file_stands_in_the_example() {
    for line in full().to_toml().lines() {
        let key = line.split(" = ").next().unwrap();
        assert!(EXAMPLE.lines().any(|l| l.starts_with(key)), "{key} is not in the example");
    }
}

/// Wrong in every section.
const BROKEN: &str = r#"mode = "fast"
regions = ["eu", "eu", "link"]
[wants]
rpo = "soon"
survive = ["mars"]
[[datacenter]]
name = "a"
region = "us"
[[datacenter]]
name = "a"
[[datacenter]]
name = "b c"
[[datacenter]]
region = "eu"
[[datacenter]]
name = "b"
[[rtt]]
between = ["a", "x"]
rtt = "5"
[[rtt]]
between = ["a"]
[[rtt]]
between = ["a", "a"]
rtt = "1ms"
[[cluster]]
id = 256
datacenters = ["a", "a", "y"]
pd = ["a:0"]
replicas = 2
[[cluster]]
id = 1
name = "one"
datacenters = []
pd = ["p:1"]
syncers = ["s:1"]
[[cluster]]
id = 1
name = "one"
datacenters = ["a"]
pd = ["p:1"]
syncers = ["s:1"]
[[link]]
from = "one"
to = "one"
[[link]]
from = "two"
"#;

#[test]
fn everything_wrong_is_told_at_once() {
    let expected = r#"line 1: mode "fast" does not exist: write "async" or "stretched", or leave mode out to have it selected
line 2: a region cannot be named "link", which means any one of them: give it another name
line 2: region eu stands on line 2 already: change or delete one of the two
line 4: rpo cannot be read: `soon` is not a duration: write a number and us, ms, s or m, as in "60ms"
line 5: loss "mars" is unknown: declare it, or use one of a, b, datacenter, eu, link, region
line 8: region "us" is unknown: declare it, or use one of eu, link
line 10: datacenter a stands on line 7 already: change or delete one of the two
line 12: datacenter name "b c" is not allowed: use 1 to 64 of a-z A-Z 0-9 . _ - and begin with a letter or digit
line 13: datacenter without a name: add name = "..."
line 16: no cluster stands in datacenter b: add it to a cluster's datacenters, give it a cluster, or delete it
line 16: the round trip time between a and b is missing: add [[rtt]] with between = ["a", "b"] and rtt = "..."
line 18: datacenter "x" is unknown: declare it, or use one of a, b
line 19: the round trip time cannot be read: `5` is not a duration: write a number and us, ms, s or m, as in "60ms"
line 20: a pair of datacenters without a round trip time: add rtt = "60ms", as measured
line 20: a round trip time between 1 datacenters: write between = ["...", "..."] with two names
line 23: a round trip time from a to itself: name two datacenters, or delete it
line 25: cluster without a name: add name = "..."
line 25: the cluster is to be linked and has no syncer that others could reach: add syncers = ["host:port"]
line 26: cluster id 256 is not from 1 to 255: choose one that no cluster has ever had
line 27: datacenter "y" is unknown: declare it, or use one of a, b
line 27: the cluster names datacenter a twice: delete one of the two
line 28: PD address "a:0" is not host:port: write it as in "10.0.0.1:7200" or "[::1]:7200"
line 29: 2 replicas are not 1, 3 or 5: use 3, or 5 where two nodes may fail at once
line 30: cluster one stands in no datacenter: add datacenters = ["..."]
line 37: cluster id 1 stands on line 31 already: change or delete one of the two
line 38: cluster one stands on line 32 already: change or delete one of the two
line 40: PD address p:1 stands on line 34 already: change or delete one of the two
line 41: syncer address s:1 stands on line 35 already: change or delete one of the two
line 42: a link from one to itself: name two clusters, or delete it
line 45: a link without `to`: add to = "...", the name of a cluster
line 46: cluster "two" is unknown: declare it, or use one of one"#;
    assert_eq!(refused(BROKEN).join("\n"), expected);
}

#[test]
fn what_is_no_topology_file_is_refused_with_its_line() {
    let one = |text: &str| refused(text).join("\n");
    assert_eq!(
        one("mode = \"async\"\n[[link]]\nfrom = \"a\"\ntls = false\n"),
        "line 4: unknown field `tls`, expected `from` or `to`: correct its spelling or delete it"
    );
    assert_eq!(
        one("mode = \"async\"\n\nregions = 5\n"),
        "line 3: invalid type: integer `5`, expected a sequence: see deploy/examples/topology.toml"
    );
    assert!(one("\n\nmode = \n").starts_with("line 3: "), "{}", one("\n\nmode = \n"));
    assert!(one("[[cluster]]\nid = 99999999999999999999\n").starts_with("line 2: "));
    assert_eq!(
        one(""),
        "line 1: the file has no datacenter: add [[datacenter]] with a name for each place that \
         can fail on its own"
    );
    let long = format!("# {}", "x".repeat(FILE_BYTES_MAX));
    assert!(one(&long).starts_with("line 1: the file has 1048578 bytes"));
}

#[test]
fn a_mesh_with_a_hole_is_refused_with_the_reason() {
    let mut file = far_apart(3, 3);
    let all = file.check().unwrap_or_else(|p| panic!("{p}")).links;
    file.links =
        all.iter().filter(|l| (l.from.as_str(), l.to.as_str()) != ("c1", "c2")).cloned().collect();
    let text = file.to_toml();
    assert_eq!(
        refused(&text),
        [format!(
            "line {}: no link from c1 to c2: synced namespaces need a full mesh, since links do \
             not relay and writes of c1 would never reach c2: add [[link]] with from = \"c1\" and \
             to = \"c2\", or leave out all links to have the full mesh",
            line_of(&text, "[[link]]")
        )]
    );
}

#[test]
fn limits_are_refused() {
    let mut file = far_apart(CLUSTER_DATACENTERS_MAX + 1, 1);
    let found = file.check().unwrap_err().to_string();
    assert!(found.contains("cluster c0 spans more than 12 datacenters"), "{found}");
    file.clusters.clear();
    file.mode = Some(Mode::Stretched);
    let found = file.check().unwrap_err().to_string();
    assert!(found.contains("13 datacenters are more than the 12 of one cluster"), "{found}");
    let found =
        far_apart(DATACENTERS_MAX + 1, DATACENTERS_MAX + 1).check().unwrap_err().to_string();
    assert!(found.contains("more than 64 datacenters"), "{found}");
}

/// One way to break a file: what it does, and what the refusal must say.
type Fault = (fn(&mut TopologyFile), &'static str);

/// Each needs a file with at least two clusters.
const FAULTS: [Fault; 12] = [
    (|f| f.clusters[1].id = f.clusters[0].id, "cluster id 1 stands on"),
    (|f| f.clusters[1].name = f.clusters[0].name.clone(), "cluster c0 stands on"),
    (|f| f.clusters[0].datacenters.push("mars".into()), "datacenter \"mars\" is unknown"),
    (|f| f.clusters[0].id = ClusterId(0), "cluster id 0 is not from 1 to 255"),
    (|f| f.clusters[0].pd.clear(), "has no PD"),
    (|f| f.clusters[0].syncers.clear(), "no syncer"),
    (|f| f.clusters[1].syncers = vec!["nowhere".into()], "syncer address \"nowhere\" is not"),
    (|f| f.clusters[0].replicas = 4, "4 replicas are not 1, 3 or 5"),
    (|f| f.links.push(Link { from: "c0".into(), to: "c0".into() }), "to itself"),
    (|f| drop(f.rtts.pop()), "is missing"),
    (
        |f| f.rtts.push(Rtt { between: ["d0".into(), "d0".into()], rtt: Ms::default() }),
        "a round trip time from d0 to itself",
    ),
    (|f| f.wants.survive.push("mars".into()), "loss \"mars\" is unknown"),
];

proptest! {
    #[test]
    fn a_good_file_is_written_and_read_back(file in topology_file()) {
        let topology = Topology::parse(&file.to_toml());
        let topology = topology.map_err(|p| TestCaseError::fail(p.to_string()))?;
        prop_assert_eq!(&topology.file, &file);
        prop_assert_eq!(topology.proposed, file.clusters.is_empty());
    }

    #[test]
    fn every_fault_is_told(file in topology_file(), chosen in prop::collection::btree_set(0..FAULTS.len(), 1..4)) {
        prop_assume!(file.clusters.len() > 1);
        let mut broken = file.clone();
        // Two faults of ids or names may undo each other: each of the later ones is checked alone.
        let chosen: Vec<Fault> = chosen.iter().map(|i| FAULTS[*i]).collect();
        chosen.iter().for_each(|(hurt, _)| hurt(&mut broken));
        let problems = broken.check().unwrap_err();
        let lines = broken.to_toml().lines().count();
        prop_assert!(problems.all().iter().all(|p| (1..=lines).contains(&p.line)));
        prop_assert!(problems.all().iter().all(|p| !p.remedy.is_empty()));
        let text = problems.to_string();
        for (hurt, told) in chosen {
            let mut alone = file.clone();
            hurt(&mut alone);
            let alone = alone.check().unwrap_err().to_string();
            prop_assert!(alone.contains(told), "{told}: {alone}");
            let undone = told.starts_with("cluster id 1") && text.contains("cluster id 0");
            prop_assert!(undone || text.contains(told), "{told}: {text}");
        }
    }

    #[test]
    fn an_unknown_key_is_refused_where_it_stands(file in topology_file(), at in any::<prop::sample::Index>()) {
        let text = file.to_toml();
        let mut lines: Vec<&str> = text.lines().collect();
        let at = at.index(lines.len()) + 1;
        lines.insert(at, "surprise = 1");
        let found = refused(&lines.join("\n"));
        let prefix = format!("line {}: unknown field `surprise`", at + 1);
        prop_assert!(found[0].starts_with(&prefix), "{found:?}");
    }

    #[test]
    fn no_text_makes_it_panic(text in "([a-z\\[\\]=\"#{}, \n0-9.-]|async|name|\\[\\[cluster\\]\\]){0,60}") {
        let _ = Topology::parse(&text);
    }

    #[test]
    fn no_damage_makes_it_panic(
        file in topology_file(), at in any::<prop::sample::Index>(), len in 0usize..30, with in ".{0,5}",
    ) {
        let mut chars: Vec<char> = file.to_toml().chars().collect();
        let start = at.index(chars.len());
        let end = (start + len).min(chars.len());
        chars.splice(start..end, with.chars());
        let _ = Topology::parse(&chars.into_iter().collect::<String>());
    }
}
