//! Groups that have nothing to do: they cost no message, and are there when they are wanted.

use super::harness::{Cluster, GROUP, id, member, payload, until};
use super::net::NodeNet;
use crate::raft::herd::{self, Listed};
use crate::raft::parking::Rest;
use crate::raft::wire::Address;
use crate::raft::{Network, RaftRole, Settings};
use crate::transport::{Class, kinds};
use flotilla_topology::ids::ReplicaId;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const ALL: [ReplicaId; 3] = [ReplicaId(1), ReplicaId(2), ReplicaId(3)];

/// What depends on time is tried so often: other work may hold this machine up.
const TRIES: usize = 4;

async fn parked(cluster: &Cluster) {
    let all = || cluster.nodes.values().all(|node| node.raft.is_parked());
    until("the group is parked", all).await;
}

fn others(than: ReplicaId) -> Vec<ReplicaId> {
    ALL.into_iter().filter(|it| *it != than).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_group_costs_no_messages_and_a_write_finds_its_leader() {
    let mut cluster = Cluster::of_three().await;
    let leader = cluster.leader().await;
    let term = cluster.status(leader).term;
    let mut quickest = Duration::MAX;
    let mut quiet = false;
    for round in 0..TRIES as u64 {
        cluster.write(leader, round..round + 1).await;
        parked(&cluster).await;
        let carried = cluster.net.carried();
        tokio::time::sleep(3 * Settings::default().lease()).await;
        quiet |= cluster.net.carried() == carried;
        assert_eq!(cluster.raft(leader).leased_index(), None, "no lease is left");
        let start = Instant::now();
        cluster.write(leader, 100 + round..101 + round).await;
        quickest = quickest.min(start.elapsed());
    }
    println!("the first write takes {quickest:?}");
    assert!(quiet, "a parked group sends nothing");
    assert!(quickest < Duration::from_millis(Settings::default().election_min_ms / 3));
    assert_eq!(cluster.leader().await, leader);
    assert_eq!(cluster.status(leader).term, term, "nobody stood for election");
    cluster.settle(leader, &ALL).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_finds_a_parked_leader() {
    let mut cluster = Cluster::of_three().await;
    let leader = cluster.leader().await;
    cluster.write(leader, 0..10).await;
    for _ in 0..3 {
        parked(&cluster).await;
        assert_eq!(cluster.raft(leader).leased_index(), None);
        let at = cluster.raft(leader).read_index().await.unwrap();
        assert_eq!(at.index, cluster.raft(leader).applied().index);
        assert!(!cluster.raft(leader).is_parked());
        let awake = || cluster.raft(leader).leased_index().is_some();
        until("the leader has a lease", awake).await;
        // Who is read does not park.
        let end = Instant::now() + Duration::from_secs(1);
        while Instant::now() < end {
            assert!(!cluster.raft(leader).is_parked());
            let _ = cluster.raft(leader).leased_index();
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parked_leader_that_ends_is_replaced_within_two_seconds() {
    let mut cluster = Cluster::of_three().await;
    let mut quickest = Duration::MAX;
    for round in 0..TRIES as u64 {
        let old = cluster.leader().await;
        cluster.write(old, round..round + 1).await;
        parked(&cluster).await;
        let start = Instant::now();
        // Nobody hears from it any more, and it takes no leave.
        cluster.net.isolate(old, &others(old));
        let new = cluster.leader_among(&others(old)).await;
        quickest = quickest.min(start.elapsed());
        assert_ne!(new, old);
        cluster.net.heal();
        until("the old one follows", || cluster.status(old).role == RaftRole::Follower).await;
        cluster.settle(new, &ALL).await;
    }
    println!("a new leader is ready after {quickest:?}");
    assert!(quickest < Duration::from_secs(2), "{quickest:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parked_leader_that_is_cut_off_answers_no_reads() {
    let mut cluster = Cluster::of_three().await;
    let old = cluster.leader().await;
    cluster.write(old, 0..10).await;
    parked(&cluster).await;
    cluster.net.isolate(old, &others(old));
    let raft = cluster.raft(old).clone();
    let asks = tokio::spawn(async move {
        let mut last = None;
        // A promise that was made before the cut may hold for a lease; then nobody may answer.
        let end = Instant::now() + raft.settings().lease();
        while Instant::now() < end {
            last = raft.leased_index().or(last);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        for _ in 0..10 {
            assert_eq!(raft.leased_index(), None);
            assert_eq!(raft.read_index().await.unwrap_err().leader, None);
        }
        last
    });
    let new = cluster.leader_among(&others(old)).await;
    assert_eq!(cluster.raft(old).leased_index(), None, "another one leads");
    cluster.write(new, 10..20).await;
    assert!(asks.await.unwrap() < Some(cluster.raft(new).applied().index));
    cluster.net.heal();
    cluster.settle(new, &[old]).await;
    until("the old leader follows", || cluster.status(old).role == RaftRole::Follower).await;
    parked(&cluster).await;
    assert_eq!(cluster.leader().await, new);
    assert_eq!(cluster.books[&old].payloads(), (0..20).map(payload).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_hears_nothing_does_not_depose_a_parked_leader() {
    let mut cluster = Cluster::of_three().await;
    let leader = cluster.leader().await;
    cluster.write(leader, 0..10).await;
    parked(&cluster).await;
    let (term, away) = (cluster.status(leader).term, others(leader)[0]);
    cluster.net.cut(leader, away);
    until("it stands for election", || !cluster.raft(away).is_parked()).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(cluster.raft(leader).is_parked(), "two of three are there");
    cluster.write(leader, 10..20).await;
    cluster.net.heal();
    cluster.settle(leader, &ALL).await;
    assert_eq!(cluster.status(leader).term, term);
    parked(&cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_parks_without_a_voter_that_is_down() {
    let mut cluster = Cluster::of_three().await;
    let leader = cluster.leader().await;
    let (term, there) = (cluster.status(leader).term, others(leader)[0]);
    let down = others(leader)[1];
    cluster.stop(down).await;
    cluster.write(leader, 0..10).await;
    let two = || [leader, there].iter().all(|it| cluster.raft(*it).is_parked());
    until("two of three are parked", two).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(two());
    cluster.start(down).await;
    until("it is sent what it lacks", || cluster.books[&down].payloads().len() == 10).await;
    parked(&cluster).await;
    assert_eq!((cluster.leader().await, cluster.status(leader).term), (leader, term));
    // Without a majority there is nobody to park with.
    cluster.net.isolate(leader, &[there, down]);
    until("it hears of nobody", || !cluster.raft(leader).is_parked()).await;
    cluster.net.heal();
    parked(&cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_back_finds_a_parked_group() {
    let mut cluster = Cluster::of_three().await;
    let leader = cluster.leader().await;
    cluster.write(leader, 0..10).await;
    parked(&cluster).await;
    let (term, away) = (cluster.status(leader).term, others(leader)[0]);
    cluster.stop(away).await;
    cluster.start(away).await;
    until("it knows its leader", || cluster.status(away).leader.is_some()).await;
    parked(&cluster).await;
    assert_eq!(cluster.status(leader).term, term);
    cluster.write(leader, 10..20).await;
    cluster.settle(leader, &ALL).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parked_group_changes_its_leader_and_its_members() {
    let mut cluster = Cluster::of_three().await;
    let old = cluster.leader().await;
    cluster.write(old, 0..100).await;
    parked(&cluster).await;
    let target = others(old)[0];
    let start = Instant::now();
    cluster.raft(old).transfer_leader(target).await.unwrap();
    until("the target leads", || cluster.status(target).ready()).await;
    println!("handed over in {:?}", start.elapsed());
    parked(&cluster).await;
    cluster.start(id(4)).await;
    let learners = BTreeMap::from([(id(4), member(id(4)))]);
    cluster.raft(target).set_learners(&learners).await.unwrap();
    cluster.settle(target, &[id(4)]).await;
    cluster.write(target, 100..110).await;
    cluster.settle(target, &[id(1), id(2), id(3), id(4)]).await;
    // A learner is asked by nobody whether it has everything, so its leader does not rest.
    let end = Instant::now() + Duration::from_secs(2);
    while Instant::now() < end {
        assert!(!cluster.raft(target).is_parked());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    cluster.raft(target).set_learners(&BTreeMap::new()).await.unwrap();
    until("the voters park", || ALL.iter().all(|voter| cluster.raft(*voter).is_parked())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_stays_awake_with_a_process_that_knows_no_parking() {
    let cluster = Cluster::of_three().await;
    let leader = cluster.leader().await;
    cluster.net.make_older(others(leader)[0]);
    let (mut longest, mut since) = (Duration::ZERO, None);
    let term = cluster.status(leader).term;
    let end = Instant::now() + Duration::from_secs(3);
    while Instant::now() < end {
        // It parks to ask, and hears at once.
        since = cluster.raft(leader).is_parked().then(|| since.unwrap_or_else(Instant::now));
        longest = longest.max(since.map_or(Duration::ZERO, |since| since.elapsed()));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    println!("parked for {longest:?} at most");
    assert!(longest < Settings::default().lease() / 2, "{longest:?}");
    assert_eq!((cluster.leader().await, cluster.status(leader).term), (leader, term));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_who_has_what_its_own_leader_has_agrees_to_be_parked() {
    let mut cluster = Cluster::of_three().await;
    let old = cluster.leader().await;
    cluster.write(old, 0..10).await;
    cluster.settle(old, &ALL).await;
    let list = async |from: ReplicaId, to: ReplicaId, rest: Rest| {
        let listed = Listed { address: Address { group: GROUP, to, from }, rest };
        let net = NodeNet { net: cluster.net.clone(), me: from };
        let payload = herd::encode_listing([listed].into_iter());
        let peer = net.peer(to, &member(to)).unwrap();
        let answer = peer.call(Class::Control, kinds::RAFT_PARKED, payload, Duration::from_secs(9));
        herd::decode_disagreed(&answer.await.unwrap()).unwrap().is_empty()
    };
    let rest = |leader| {
        let status = cluster.status(leader);
        Rest { term: status.term, index: status.last_index }
    };
    let (now, follower) = (rest(old), others(old)[0]);
    until("it is committed there", || cluster.status(follower).committed.index == now.index).await;
    // Twice, late or by chance: it is the same.
    assert!(list(old, follower, now).await && list(old, follower, now).await);
    let (behind, ahead) =
        (Rest { index: now.index - 1, ..now }, Rest { index: now.index + 1, ..now });
    assert!(!list(old, follower, behind).await && !list(old, follower, ahead).await);
    assert!(!list(old, old, now).await, "it leads");
    assert!(!list(others(old)[1], follower, now).await, "it follows another one");
    let newer = Rest { term: now.term + 1, ..now };
    assert!(!list(old, follower, newer).await);
    let told =
        || cluster.status(old).replication.get(&follower).is_some_and(|at| at.index == now.index);
    until("its leader knows that it has all", told).await;
    // The former leader's listing comes when another one leads.
    cluster.raft(old).transfer_leader(follower).await.unwrap();
    until("the target leads", || cluster.status(follower).ready()).await;
    let (now, third) =
        (rest(follower), others(old).into_iter().find(|it| *it != follower).unwrap());
    until("all is known", || cluster.status(third).committed.index == now.index).await;
    let late = Rest { term: now.term - 1, ..now };
    assert!(!list(old, third, late).await && !list(old, follower, late).await);
    assert!(list(follower, third, now).await);
}
