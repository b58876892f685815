//! Random cuts and restarts under proposals: what was promised must hold, whatever happens.

use super::harness::{Cluster, id, payload};
use crate::raft::{Completion, Outcome, Verdict};
use flotilla_topology::ids::ReplicaId;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

const ALL: [ReplicaId; 3] = [ReplicaId(1), ReplicaId(2), ReplicaId(3)];

/// How long to hunt; longer by hand, with this variable in seconds (and `SEED` to repeat one).
const HUNT_VARIABLE: &str = "HUNT_SECONDS";
const HUNT: Duration = Duration::from_secs(4);

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

struct Hunt {
    cluster: Cluster,
    random: StdRng,
    next: u64,
    ends: BTreeMap<u64, Verdict>,
}

impl Hunt {
    /// Proposes some entries through a replica that thinks it may.
    async fn propose(&mut self) {
        let at = ALL[self.random.random_range(0..3)];
        let status = self.cluster.status(at);
        if !status.ready() {
            return;
        }
        for _ in 0..self.random.random_range(1..40) {
            let raft = self.cluster.raft(at);
            raft.propose(payload(self.next), status.term, self.next).await.unwrap();
            self.next += 1;
        }
    }

    fn note(&mut self, end: Completion) {
        let twice = self.ends.insert(end.tag, end.verdict);
        assert_eq!(twice, None, "proposal {} ended twice", end.tag);
    }

    fn collect(&mut self) {
        for replica in ALL {
            while let Some(end) =
                self.cluster.nodes.get_mut(&replica).unwrap().completions.try_recv()
            {
                self.note(end);
            }
        }
    }

    async fn restart(&mut self, replica: ReplicaId) {
        self.collect();
        for end in self.cluster.stop(replica).await {
            self.note(end);
        }
        self.cluster.start(replica).await;
    }

    async fn disturb(&mut self) {
        let victim = ALL[self.random.random_range(0..3)];
        let others: Vec<_> = ALL.into_iter().filter(|it| *it != victim).collect();
        match self.random.random_range(0..14) {
            0..4 => self.cluster.net.isolate(victim, &others),
            4..6 => self.cluster.net.isolate(victim, &others[..1]),
            6..9 => self.cluster.net.heal(),
            9..12 => {
                let raft = self.cluster.raft(victim).clone();
                let upto = raft.applied().index.saturating_sub(20);
                // Beside the rest: it waits for the state machine's word.
                tokio::spawn(async move { raft.purge(upto).await });
            }
            _ => self.restart(victim).await,
        }
    }

    /// Everybody holds the same, and every end told the truth.
    fn check(&self) {
        let entries = self.cluster.books[&id(1)].state().entries.clone();
        for replica in ALL {
            assert!(self.cluster.books[&replica].state().entries == entries, "{replica} differs");
        }
        let mut places = HashMap::new();
        for (log_id, bytes) in &entries {
            assert_eq!(places.insert(bytes.clone(), *log_id), None, "an entry stands twice");
        }
        let mut counts = [0; 3];
        for (tag, verdict) in &self.ends {
            let place = places.get(&payload(*tag));
            match verdict {
                Verdict::Applied(log_id, outcome) => {
                    assert_eq!((place, *outcome), (Some(log_id), Outcome::TookEffect), "{tag}");
                    counts[0] += 1;
                }
                Verdict::Refused { .. } => {
                    assert_eq!(place, None, "{tag} was refused and is there");
                    counts[1] += 1;
                }
                Verdict::Unknown => counts[2] += 1,
            }
        }
        let [applied, refused, unknown] = counts;
        let installs: usize = self.cluster.books.values().map(|book| book.state().installs).sum();
        println!("{installs} snapshots; {applied} applied, {refused} refused, {unknown} unknown");
        assert!(applied > 100, "{applied}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn promises_hold_under_cuts_and_restarts() {
    let seed = variable("SEED").unwrap_or_else(rand::random);
    println!("SEED={seed}");
    let random = StdRng::seed_from_u64(seed);
    let cluster = Cluster::of_three().await;
    let mut hunt = Hunt { cluster, random, next: 0, ends: BTreeMap::new() };
    let start = Instant::now();
    let mut disturb_at = Instant::now();
    let hunt_for = variable(HUNT_VARIABLE).map_or(HUNT, Duration::from_secs);
    while start.elapsed() < hunt_for {
        hunt.propose().await;
        hunt.collect();
        if Instant::now() > disturb_at {
            hunt.disturb().await;
            disturb_at = Instant::now() + Duration::from_millis(hunt.random.random_range(50..2000));
        }
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    hunt.cluster.net.heal();
    let leader = hunt.cluster.leader().await;
    let last = hunt.next;
    let term = hunt.cluster.status(leader).term;
    hunt.cluster.raft(leader).propose(payload(last), term, last).await.unwrap();
    hunt.next += 1;
    let all_ended = Instant::now();
    while (hunt.ends.len() as u64) < hunt.next {
        assert!(
            all_ended.elapsed() < Duration::from_secs(30),
            "{} of {}",
            hunt.ends.len(),
            hunt.next
        );
        hunt.collect();
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let leader = hunt.cluster.leader().await;
    hunt.cluster.settle(leader, &ALL).await;
    hunt.check();
}
