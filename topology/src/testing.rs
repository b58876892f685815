//! Topology files for tests: fixed ones and all that are right.

use crate::duration::Ms;
use crate::file::{Cluster, Datacenter, Link, Mode, Rtt, TopologyFile, Wants};
use crate::ids::ClusterId;
use proptest::prelude::*;

/// A file in which every key stands, right or not.
pub(crate) fn full() -> TopologyFile {
    TopologyFile {
        mode: Some(Mode::Async),
        regions: vec!["r".into()],
        wants: Wants {
            rpo: Ms::new(1.0),
            write_latency: Ms::new(1.0),
            survive: vec!["link".into()],
        },
        datacenters: vec![Datacenter { name: "a".into(), region: Some("r".into()) }],
        rtts: vec![Rtt { between: ["a".into(), "b".into()], rtt: Ms::default() }],
        clusters: vec![cluster(0, vec!["a".into()])],
        links: vec![Link { from: "a".into(), to: "b".into() }],
    }
}

fn cluster(index: usize, datacenters: Vec<String>) -> Cluster {
    Cluster {
        id: ClusterId(u8::try_from(index + 1).unwrap()),
        name: format!("c{index}"),
        datacenters,
        pd: vec![format!("pd.c{index}:7100")],
        syncers: vec![format!("syncer.c{index}:7300")],
        replicas: 3,
    }
}

/// `datacenters` places, each 60 ms from the others, dealt out to `clusters` clusters.
pub(crate) fn far_apart(datacenters: usize, clusters: usize) -> TopologyFile {
    build(datacenters, clusters, &[60.0])
}

/// The same with these round trip times, over and over; no clusters leaves them out.
pub(crate) fn build(datacenters: usize, clusters: usize, rtts: &[f64]) -> TopologyFile {
    let names: Vec<String> = (0..datacenters).map(|d| format!("d{d}")).collect();
    let pairs = (0..datacenters).flat_map(|b| (0..b).map(move |a| (a, b)));
    let rtts = pairs.zip(rtts.iter().cycle()).map(|((a, b), ms)| Rtt {
        between: [names[a].clone(), names[b].clone()],
        rtt: Ms::new(*ms).unwrap(),
    });
    let of = |c: usize| names.iter().skip(c).step_by(clusters).cloned().collect();
    TopologyFile {
        rtts: rtts.collect(),
        clusters: (0..clusters).map(|c| cluster(c, of(c))).collect(),
        datacenters: names.iter().map(|n| Datacenter { name: n.clone(), region: None }).collect(),
        ..TopologyFile::default()
    }
}

prop_compose! {
    /// Any file that is right and wants nothing.
    pub(crate) fn topology_file()(
        datacenters in 1usize..6,
        clusters in 0usize..6,
        rtts in prop::collection::vec((1u32..3000).prop_map(|n| f64::from(n) / 10.0), 1..15),
        replicas in prop::sample::select(vec![1u8, 3, 5]),
        europe in 0usize..6,
        links in any::<bool>(),
    ) -> TopologyFile {
        let mut file = build(datacenters, clusters.min(datacenters), &rtts);
        file.clusters.iter_mut().for_each(|cluster| cluster.replicas = replicas);
        if europe > 0 {
            file.regions = vec!["eu".to_owned(), "us".to_owned()];
            for (i, datacenter) in file.datacenters.iter_mut().enumerate() {
                datacenter.region = Some(if i < europe { "eu" } else { "us" }.to_owned());
            }
        }
        if links && file.clusters.len() > 1 {
            file.links = file.check().unwrap_or_else(|p| panic!("{p}")).links;
        }
        file
    }
}
