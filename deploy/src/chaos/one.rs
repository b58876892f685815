//! Scenarios in one cluster of three nodes: what a node that goes, a disk or a client costs the others.

use super::ChaosArgs;
use crate::demo::layout::{Make, Wish};
use crate::demo::world::DemoWorld;
use flotilla_chaos::scenario::{self, Flood, Leave, Report, Settings, Steady};
use std::time::Duration;

/// Groups of the cluster: each node leads some.
const PARTITIONS: u32 = 12;
/// Pause of each client of the usual load: these scenarios measure times, and the machine is shared.
pub(super) const PAUSE: Duration = Duration::from_millis(5);

/// How long `steady` holds its load unless told otherwise.
const STEADY_MINUTES: u64 = 30;
/// Memory of a node in `steady`: caches smaller than the data, logs as large as those of a server.
const STEADY_MEMORY: u64 = 512 << 20;
/// The disk of each node in `disk-full`, of which a part is taken away at first, and what a node keeps
/// free of it: room for what compaction writes anew, and for the seconds until it is noticed.
const DISK: u64 = 768 << 20;
const DISK_RESERVE: u64 = 128 << 20;
/// Memory of a node in `flood` for caches, buffers and logs; clients have a limit of their own.
const FLOOD_MEMORY: u64 = 128 << 20;
/// How long clients flood: longer than a node waits for one that takes nothing of a reply (60 s).
const FLOOD: Duration = Duration::from_secs(75);

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum One {
    /// Nodes are killed: how long their groups take no writes.
    Failover,
    /// Nodes are told to leave: the same.
    Drain,
    /// A load is held for minutes, with all that is done now and then beside it.
    Steady,
    /// Disks are filled up to their reserve, and to the last block.
    DiskFull,
    /// Clients flood one node.
    Flood,
}

impl One {
    pub(super) const ALL: [One; 5] =
        [One::Failover, One::Drain, One::Steady, One::DiskFull, One::Flood];

    /// The word on the command line.
    pub(super) fn name(self) -> &'static str {
        match self {
            One::Failover => Leave::Killed.name(),
            One::Drain => Leave::Told.name(),
            One::Steady => "steady",
            One::DiskFull => "disk-full",
            One::Flood => "flood",
        }
    }

    pub(super) fn of(name: &str) -> Option<One> {
        One::ALL.into_iter().find(|one| one.name() == name)
    }

    /// The cluster that it takes. What `--datacenters` and `--mode` say does not matter.
    pub(super) fn wish(self, args: &ChaosArgs) -> Wish {
        let usual = Make { partitions: Some(PARTITIONS), ..Make::default() };
        let make = match self {
            One::Failover | One::Drain => usual,
            One::Steady => Make { memory: Some(STEADY_MEMORY), ..usual },
            One::DiskFull => Make { disk: Some(DISK), disk_reserve: Some(DISK_RESERVE), ..usual },
            One::Flood => Make { memory: Some(FLOOD_MEMORY), ..usual },
        };
        let program = args.program.clone();
        Wish { datacenters: vec!["one".to_owned()], make, program, ..Wish::default() }
    }

    pub(super) async fn run(
        self,
        args: &ChaosArgs,
        world: &DemoWorld,
        seed: u64,
        settings: &Settings,
    ) -> Report {
        let leave = |how| scenario::leave(world, seed, how, args.rounds, settings);
        match self {
            One::Failover => leave(Leave::Killed).await,
            One::Drain => leave(Leave::Told).await,
            One::Steady => {
                let minutes = args.minutes.unwrap_or(STEADY_MINUTES);
                let size = Steady { duration: Duration::from_secs(minutes * 60) };
                scenario::steady(world, seed, &size, settings).await
            }
            One::DiskFull => scenario::disk_full(world, seed, settings).await,
            One::Flood => {
                let size = Flood { duration: FLOOD, memory: FLOOD_MEMORY };
                scenario::flood(world, seed, &size, settings).await
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::layout::Layout;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: ChaosArgs,
    }

    #[test]
    fn each_has_a_name_and_a_cluster_of_three_nodes() {
        for one in One::ALL {
            assert_eq!(One::of(one.name()), Some(one));
            let line = ["chaos", "--scenario", one.name(), "--program", "/other/flotilla"];
            let args = Line::try_parse_from(line).unwrap().args;
            let layout = Layout::new(&args.wish()).unwrap();
            assert_eq!((layout.clusters.len(), layout.clusters[0].nodes.len()), (1, 3));
            assert_eq!(layout.program, args.program);
            assert_eq!(layout.make.disk.is_some(), one == One::DiskFull);
            assert_eq!(args.settings().pause, PAUSE);
        }
        assert_eq!(One::of("large"), None);
    }
}
