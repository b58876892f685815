//! Stories of a cluster that is away beyond its backlog budget.

use super::*;
use flotilla_topology::api::{LinkOp, LinkState, LinkStatus, PeerView, Standing, View};

const WEST: ClusterId = ClusterId(2);
const NORTH: ClusterId = ClusterId(3);

/// One cluster of three, with the two others as it finds them.
struct Three {
    world: World,
    /// How the links to west and north stand.
    links: [LinkState; 2],
    /// To whom the logs no longer reach back.
    outrun: Vec<ClusterId>,
    /// What west and north say of each other; nothing when they are not heard.
    views: [Option<View>; 2],
}

impl Three {
    fn new(fence_after_seconds: Option<u64>) -> Three {
        let mut settings = Settings { fence_after_seconds, ..settings(3, 3) };
        let north = PeerCluster { id: NORTH, name: "north".into(), ..settings.peers[0].clone() };
        settings.peers.push(north);
        let mut world = World::new(settings);
        for name in ["n1", "n2", "n3"] {
            world.register(name, "e1");
        }
        world.register_syncer("s1");
        let (links, views) = ([LinkState::Live; 2], [Some(View::Counts); 2]);
        let mut three = Three { world, links, outrun: vec![], views };
        three.pass(10);
        three
    }

    fn pass(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.world.now_ms += 1000;
            for name in ["n1", "n2", "n3"] {
                let mut replicas = self.world.statuses(name);
                let leads = replicas.iter_mut().filter(|replica| replica.leads);
                leads.for_each(|replica| replica.outrun.clone_from(&self.outrun));
                self.world.ask(PdRequest::NodeHeartbeat { name: name.into(), replicas });
            }
            let groups: Vec<GroupId> = self.world.held("s1").iter().map(|one| one.group).collect();
            let link = |(peer, state)| groups.iter().map(move |g| LinkStatus::new(*g, peer, state));
            let links = [WEST, NORTH].into_iter().zip(self.links).flat_map(link).collect();
            let pairs = [(WEST, NORTH), (NORTH, WEST)].into_iter().zip(self.views);
            let view = |((by, of), view): ((ClusterId, ClusterId), Option<View>)| {
                Some(PeerView { by, of: vec![(ClusterId(1), View::Counts), (of, view?)] })
            };
            let views = pairs.filter_map(view).collect();
            let name = "s1".into();
            self.world.ask(PdRequest::SyncerHeartbeat { name, links: Some(links), views });
        }
    }

    fn north(&self) -> (Standing, bool) {
        let peers = &self.world.state.map().peers;
        let north = peers.iter().find(|peer| peer.id == NORTH).expect("it is a peer");
        (north.standing, north.overdue)
    }

    fn north_is_away(&mut self) {
        self.links[1] = LinkState::Disconnected;
        self.outrun = vec![NORTH];
        self.views[1] = None;
    }
}

#[test]
fn who_is_away_beyond_its_budget_is_fenced_when_the_others_agree() {
    let mut three = Three::new(Some(60));
    three.north_is_away();
    three.pass(59);
    assert_eq!(three.north(), (Standing::Live, false));
    let problems = three.world.state.status().problems;
    assert!(problems.iter().any(|line| line.contains("beyond its backlog budget for 5")));
    let epoch = three.world.state.map().epoch;
    three.pass(5);
    assert_eq!(three.north(), (Standing::Live, true), "west does not find so");
    assert_eq!(three.world.state.map().epoch, epoch, "nobody has to do anything for that");
    three.views[0] = Some(View::Overdue);
    three.pass(1);
    assert_eq!(three.north(), (Standing::Fenced, false));
    let west = three.world.state.map().peers[0].clone();
    assert_eq!(west.merge_epoch, 1, "the survivors level what they have of it");
    // It does not come back by itself.
    three.links[1] = LinkState::Live;
    three.pass(90);
    assert_eq!(three.north(), (Standing::Fenced, false));
}

#[test]
fn who_comes_back_in_time_is_not_fenced() {
    let mut three = Three::new(Some(60));
    three.north_is_away();
    three.views[0] = Some(View::Overdue);
    three.pass(50);
    three.links[1] = LinkState::Merging;
    three.pass(50);
    three.links[1] = LinkState::Disconnected;
    three.pass(50);
    assert_eq!(three.north(), (Standing::Live, false), "the time began anew");
    three.world.restart();
    three.pass(50);
    assert_eq!(three.north(), (Standing::Live, false), "and with each start of PD");
    three.pass(20);
    assert_eq!(three.north().0, Standing::Fenced);
}

#[test]
fn nobody_is_fenced_by_who_sees_nobody_has_other_troubles_or_is_not_asked_to() {
    let never = |three: &mut Three| {
        three.pass(200);
        let peers = three.world.state.map().peers.clone();
        assert!(peers.iter().all(|peer| peer.standing == Standing::Live && !peer.overdue));
    };
    let mut alone = Three::new(Some(60));
    alone.links = [LinkState::Disconnected; 2];
    (alone.outrun, alone.views) = (vec![WEST, NORTH], [None, None]);
    never(&mut alone);

    let mut torn = Three::new(Some(60));
    torn.north_is_away();
    torn.links[0] = LinkState::Stalled;
    torn.views[0] = Some(View::Overdue);
    never(&mut torn);

    let mut within = Three::new(Some(60));
    within.north_is_away();
    within.outrun.clear();
    never(&mut within);

    let mut slow = Three::new(Some(60));
    slow.north_is_away();
    slow.links[1] = LinkState::CatchingUp;
    never(&mut slow);

    let mut paused = Three::new(Some(60));
    paused.north_is_away();
    paused.views[0] = Some(View::Overdue);
    paused.world.ask(PdRequest::Link { peer: "north".into(), op: LinkOp::Pause, dry_run: false });
    never(&mut paused);

    let mut unasked = Three::new(None);
    unasked.north_is_away();
    unasked.views[0] = Some(View::Overdue);
    never(&mut unasked);
}

#[test]
fn of_two_clusters_none_gives_up_the_other_and_a_stranger_to_a_fence_has_no_say() {
    let mut two = World::new(Settings { fence_after_seconds: Some(60), ..settings(3, 3) });
    for name in ["n1", "n2", "n3"] {
        two.register(name, "e1");
    }
    two.register_syncer("s1");
    let world = two;
    let (links, views) = ([LinkState::Disconnected; 2], [None, None]);
    let mut two = Three { world, links, outrun: vec![WEST], views };
    two.pass(200);
    let west = two.world.state.map().peers[0].clone();
    assert_eq!((west.standing, west.overdue), (Standing::Live, true), "it takes an operator");

    // North has fenced west, which counts here: it could be the other's witness against us.
    let mut three = Three::new(Some(60));
    three.links[0] = LinkState::Disconnected;
    three.outrun = vec![WEST];
    three.views = [None, Some(View::Fenced)];
    three.pass(61);
    assert_eq!(three.world.state.map().peers[0].standing, Standing::Fenced, "that one is the same");
    let mut three = Three::new(Some(60));
    three.north_is_away();
    three.views[0] = Some(View::Overdue);
    let south = PeerCluster {
        id: ClusterId(4),
        name: "south".into(),
        ..three.world.settings.peers[0].clone()
    };
    three.world.settings.peers.push(south);
    three.world.restart();
    three.pass(200);
    assert_eq!(three.north(), (Standing::Live, false), "south was not heard, and does not move");
}
