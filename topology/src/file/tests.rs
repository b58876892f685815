use super::*;
use crate::Topology;

const EXAMPLE: &str = include_str!("../../../deploy/examples/topology.toml");

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
    let full = TopologyFile {
        mode: Some(Mode::Async),
        regions: vec!["r".into()],
        wants: Wants {
            rpo: Ms::new(1.0),
            write_latency: Ms::new(1.0),
            survive: vec!["link".into()],
        },
        datacenters: vec![Datacenter { name: "a".into(), region: Some("r".into()) }],
        rtts: vec![Rtt { between: ["a".into(), "b".into()], rtt: Ms::default() }],
        clusters: vec![Cluster {
            id: ClusterId(1),
            name: "a".into(),
            datacenters: vec!["a".into()],
            pd: vec!["a:1".into()],
            syncers: vec!["a:2".into()],
            replicas: 3,
        }],
        links: vec![Link { from: "a".into(), to: "b".into() }],
    };
    for line in full.to_toml().lines() {
        let key = line.split(" = ").next().unwrap();
        assert!(EXAMPLE.lines().any(|l| l.starts_with(key)), "{key} is not in the example");
    }
}
