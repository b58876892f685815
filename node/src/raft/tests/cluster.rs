//! Electing, proposing, reading, changing members.

use super::harness::{Book, Cluster, id, member, payload, until};
use crate::raft::{ChangeError, Member, Membership, Outcome, Pace, RaftRole, Settings, Verdict};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

#[tokio::test(flavor = "multi_thread")]
async fn proposals_are_applied_in_order_everywhere() {
    let mut cluster = Cluster::of_three().await;
    let leader = cluster.leader().await;
    cluster.write(leader, 0..3000).await;
    cluster.settle(leader, &[id(1), id(2), id(3)]).await;
    let wanted: Vec<Bytes> = (0..3000).map(payload).collect();
    for book in cluster.books.values() {
        assert!(book.payloads() == wanted);
    }
    let status = cluster.status(leader);
    assert_eq!(status.leader, Some((leader, member(leader))));
    assert_eq!(status.membership.members.len(), 3);
    assert!(status.last_quorum_ack.is_some());
    assert_eq!(status.last_index, cluster.raft(leader).applied().index);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_ends_as_what_it_was() {
    let mut cluster = Cluster::of_three().await;
    let leader = cluster.leader().await;
    let fenced = Bytes::from_static(b"fenced");
    let verdicts = cluster.propose(leader, vec![payload(1), fenced, payload(2)]).await;
    let outcomes: Vec<Outcome> = verdicts
        .iter()
        .map(|verdict| match verdict {
            Verdict::Applied(_, outcome) => *outcome,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(outcomes, [Outcome::TookEffect, Outcome::Fenced, Outcome::TookEffect]);
    // An evaluator of a former term is refused at the door, and so is whoever does not lead.
    let term = cluster.status(leader).term;
    let node = cluster.nodes.get_mut(&leader).unwrap();
    node.raft.propose(payload(3), term - 1, 7).await.unwrap();
    assert!(matches!(node.completions.recv().await.unwrap().verdict, Verdict::Refused { .. }));
    let follower = *cluster.nodes.keys().find(|node| **node != leader).unwrap();
    let refused = cluster.propose(follower, vec![payload(4)]).await;
    assert_eq!(refused, [Verdict::Refused { leader: Some(leader) }]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_outlives_its_leader() {
    let mut cluster = Cluster::of_three().await;
    let first = cluster.leader().await;
    cluster.write(first, 0..100).await;
    let start = Instant::now();
    cluster.stop(first).await;
    let second = cluster.leader().await;
    println!("a new leader is ready after {:?}", start.elapsed());
    assert_ne!(first, second);
    cluster.write(second, 100..200).await;
    cluster.start(first).await;
    cluster.settle(second, &[id(1), id(2), id(3)]).await;
    let wanted: Vec<Bytes> = (0..200).map(payload).collect();
    assert!(cluster.books.values().all(|book| book.payloads() == wanted));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_away_is_sent_old_entries_at_a_pace() {
    let mut cluster = Cluster::of_three().await;
    let leader = cluster.leader().await;
    let away = [1, 2, 3].map(id).into_iter().find(|node| *node != leader).unwrap();
    cluster.stop(away).await;
    cluster.write(leader, 0..12_000).await;
    let bytes: usize = (0..12_000).map(|n| payload(n).len()).sum();
    cluster.net.catch_up_at(Pace::new(bytes as u64 * 4)); // begins with an eighth of it a second
    let start = Instant::now();
    cluster.start(away).await;
    cluster.write(leader, 12_000..12_010).await; // not held up by what is old
    cluster.settle(leader, &[away]).await;
    // Two seconds' worth, less a burst and the last message, a MiB at most, which is not old; each of the six
    // messages raises the rate by a twentieth.
    assert!(start.elapsed() > Duration::from_secs(1), "{:?}", start.elapsed());
    assert_eq!(cluster.books[&away].payloads(), (0..12_010).map(payload).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_need_a_leader_that_a_majority_answers() {
    let mut cluster = Cluster::of_three().await;
    let old = cluster.leader().await;
    let others: Vec<_> = [1, 2, 3].map(id).into_iter().filter(|node| *node != old).collect();
    cluster.write(old, 0..10).await;
    let at = cluster.raft(old).read_index().await.unwrap();
    assert!(at.index >= cluster.raft(old).applied().index);
    until("the leader has a lease", || cluster.raft(old).leased_index().is_some()).await;
    // Whatever the others know of is at or below what a read waits for.
    cluster.settle(old, &others).await;
    let known = others.iter().map(|other| cluster.raft(*other).applied().index).max();
    assert!(cluster.raft(old).leased_index() >= known);
    assert_eq!(cluster.raft(others[0]).leased_index(), None, "it does not lead");
    assert!(cluster.raft(others[0]).wait_applied(at, Duration::from_secs(10)).await);
    let refused = cluster.raft(others[0]).read_index().await.unwrap_err();
    assert_eq!(refused.leader.map(|(id, _)| id), Some(old));

    cluster.net.isolate(old, &others);
    let new = cluster.leader_among(&others).await;
    // The new one leads, so the lease of the old one is over.
    assert_eq!(cluster.raft(old).leased_index(), None);
    let refused = cluster.raft(old).read_index().await.unwrap_err();
    assert_eq!(refused.leader, None);
    cluster.write(new, 10..20).await;
    assert!(cluster.raft(new).read_index().await.unwrap().index > at.index);
    let verdicts = cluster.propose(old, vec![payload(99)]).await;
    assert!(matches!(verdicts[0], Verdict::Refused { .. }), "its lease is over: {verdicts:?}");

    cluster.net.heal();
    cluster.settle(new, &[old]).await;
    until("the old leader follows", || cluster.status(old).role == RaftRole::Follower).await;
    assert_eq!(cluster.books[&old].payloads(), (0..20).map(payload).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_votes_alone_has_a_lease_and_loses_it_to_others() {
    let mut cluster = Cluster::of_three().await;
    let alone = cluster.leader().await;
    let others: Vec<_> = [1, 2, 3].map(id).into_iter().filter(|node| *node != alone).collect();
    cluster.write(alone, 0..10).await;
    cluster.raft(alone).set_voters(&BTreeSet::from([alone])).await.unwrap();
    cluster.net.isolate(alone, &others);
    let end = Instant::now() + Settings::default().lease() * 3;
    while Instant::now() < end {
        assert!(cluster.raft(alone).leased_index().is_some(), "nobody else can be elected");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    cluster.write(alone, 10..20).await;

    cluster.net.heal();
    let learners = others.iter().map(|other| (*other, member(*other))).collect();
    cluster.raft(alone).set_learners(&learners).await.unwrap();
    cluster.settle(alone, &others).await;
    cluster.raft(alone).set_voters(&BTreeSet::from([1, 2, 3].map(id))).await.unwrap();
    assert!(cluster.raft(alone).read_index().await.is_ok());
    cluster.net.isolate(alone, &others);
    let new = cluster.leader_among(&others).await;
    assert_eq!(cluster.raft(alone).leased_index(), None, "others may lead, and do");
    cluster.write(new, 20..30).await;
    cluster.net.heal();
    cluster.settle(new, &[alone]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_in_flight_at_a_cut_is_unknown() {
    let mut cluster = Cluster::of_three().await;
    let old = cluster.leader().await;
    let others: Vec<_> = [1, 2, 3].map(id).into_iter().filter(|node| *node != old).collect();
    cluster.write(old, 0..10).await;
    cluster.net.isolate(old, &others);
    let term = cluster.status(old).term;
    for tag in 0..5 {
        cluster.raft(old).propose(payload(100 + tag), term, tag).await.unwrap();
    }
    let new = cluster.leader_among(&others).await;
    cluster.write(new, 10..20).await;
    cluster.net.heal();
    let node = cluster.nodes.get_mut(&old).unwrap();
    for tag in 0..5 {
        let end = node.completions.recv().await.unwrap();
        assert_eq!((end.tag, end.verdict), (tag, Verdict::Unknown));
    }
    cluster.settle(new, &[old]).await;
    assert_eq!(cluster.books[&old].payloads(), (0..20).map(payload).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn leadership_is_handed_over() {
    let mut cluster = Cluster::of_three().await;
    let old = cluster.leader().await;
    cluster.write(old, 0..100).await;
    let target = cluster.follower_with_all(old).await;
    let refused = cluster.raft(target).transfer_leader(old).await.unwrap_err();
    assert!(matches!(refused, ChangeError::NotLeader(_)), "{refused}");
    let refused = cluster.raft(old).transfer_leader(id(9)).await.unwrap_err();
    assert!(matches!(refused, ChangeError::Refused(_)), "{refused}");
    let start = Instant::now();
    cluster.raft(old).transfer_leader(target).await.unwrap();
    assert_eq!(cluster.raft(old).leased_index(), None, "another may lead from now on");
    until("the target leads", || cluster.status(target).ready()).await;
    println!("handed over in {:?}", start.elapsed());
    cluster.write(target, 100..110).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transfer_that_does_not_leave_is_said_again() {
    let mut cluster = Cluster::of_three().await;
    let old = cluster.leader().await;
    cluster.write(old, 0..10).await;
    let target = cluster.follower_with_all(old).await;
    let term = cluster.status(old).term;
    // One for each of the other two, and one of them once more.
    cluster.net.hold_transfers(3);
    cluster.raft(old).transfer_leader(target).await.unwrap();
    until("the target leads", || cluster.status(target).ready()).await;
    assert_eq!(cluster.net.transfers_held(), 0, "it did not wait for an election");
    assert_eq!(cluster.status(target).term, term + 1);
    cluster.write(target, 10..20).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_less_learner_streams_from_its_seed() {
    let mut cluster = Cluster::of_three().await;
    let leader = cluster.leader().await;
    cluster.write(leader, 0..500).await;
    let mut seed = cluster.books[&leader].state().applied.clone();
    cluster.write(leader, 500..2500).await;
    seed.membership = Membership::default(); // a syncer need not know the members of the past
    cluster.start_in_memory(id(9), Book::seeded(seed.clone())).await;
    let learners = BTreeMap::from([(id(9), Member::syncer("s1"))]);
    cluster.raft(leader).set_learners(&learners).await.unwrap();
    cluster.settle(leader, &[id(9)]).await;
    cluster.write(leader, 2500..3000).await;
    cluster.settle(leader, &[id(9)]).await;
    {
        let book = cluster.books[&id(9)].state();
        assert_eq!((book.installs, book.sinks_opened), (0, 0), "no snapshot was needed");
        assert_eq!(book.entries[0].0.index, seed.log_id.index + 1);
        assert_eq!(book.entries.len(), 2500);
        assert_eq!(book.applied.membership.members[&id(9)], Member::syncer("s1"));
    }
    // It purges what it has applied, and must never vote.
    let applied = cluster.raft(id(9)).applied();
    cluster.raft(id(9)).purge(applied.index).await.unwrap();
    until("the window moves", || cluster.status(id(9)).purged.index == applied.index).await;
    let wanted: BTreeSet<_> = [1, 2, 3, 9].map(id).into();
    let refused = cluster.raft(leader).set_voters(&wanted).await.unwrap_err();
    assert!(refused.to_string().contains("never vote"), "{refused}");
    // A new tenure takes its place.
    let learners = BTreeMap::from([(id(10), Member::syncer("s1"))]);
    cluster.raft(leader).set_learners(&learners).await.unwrap();
    let members: Vec<_> = cluster.status(leader).membership.members.keys().copied().collect();
    assert_eq!(members, [1, 2, 3, 10].map(id));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_is_replaced() {
    let mut cluster = Cluster::of_three().await;
    let leader = cluster.leader().await;
    cluster.write(leader, 0..200).await;
    let gone = *cluster.nodes.keys().find(|node| **node != leader).unwrap();
    cluster.stop(gone).await;
    cluster.start(id(4)).await;
    let learners = BTreeMap::from([(id(4), member(id(4)))]);
    cluster.raft(leader).set_learners(&learners).await.unwrap();
    cluster.settle(leader, &[id(4)]).await;
    let voters: BTreeSet<_> = [1, 2, 3, 4].map(id).into_iter().filter(|it| *it != gone).collect();
    cluster.raft(leader).set_voters(&voters).await.unwrap();
    let membership = cluster.status(leader).membership;
    assert_eq!(membership.configs, vec![voters]);
    assert!(!membership.members.contains_key(&gone));
    cluster.write(leader, 200..300).await;
    cluster.settle(leader, &[id(4)]).await;
    assert_eq!(cluster.books[&id(4)].payloads().len(), 300);
}
