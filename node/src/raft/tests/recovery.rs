//! Restarts, purges, snapshots.

use super::harness::{Book, CHUNK_ENTRIES, Cluster, id, payload, until};
use bytes::Bytes;
use flotilla_topology::ids::ReplicaId;

const ALL: [ReplicaId; 3] = [ReplicaId(1), ReplicaId(2), ReplicaId(3)];

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_group_comes_back_from_its_logs() {
    let mut cluster = Cluster::of_three().await;
    let leader = cluster.leader().await;
    cluster.write(leader, 0..500).await;
    cluster.settle(leader, &ALL).await;
    let term = cluster.status(leader).term;
    for replica in ALL {
        cluster.stop(replica).await;
    }
    // One lost everything that it had applied (it never was flushed), one kept it.
    cluster.books.insert(id(1), Book::default());
    for replica in ALL {
        cluster.start(replica).await;
    }
    let leader = cluster.leader().await;
    assert!(cluster.status(leader).term > term, "whoever leads now has a blank entry of its own");
    cluster.write(leader, 500..600).await;
    cluster.settle(leader, &ALL).await;
    let wanted: Vec<Bytes> = (0..600).map(payload).collect();
    assert!(cluster.books.values().all(|book| book.payloads() == wanted));
}

async fn purge(cluster: &Cluster, replicas: &[ReplicaId], upto: u64) {
    for replica in replicas {
        cluster.raft(*replica).purge(upto).await.unwrap();
        let purged = || cluster.status(*replica).purged.index;
        until("the log is purged", || purged() == upto).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_replica_purges_and_restarts() {
    let mut cluster = Cluster::of_three().await;
    let leader = cluster.leader().await;
    cluster.write(leader, 0..300).await;
    cluster.settle(leader, &ALL).await;
    purge(&cluster, &ALL, 100).await;
    purge(&cluster, &ALL, 250).await;
    // Further than anything is applied: as far as it is.
    let applied = cluster.raft(leader).applied();
    cluster.raft(leader).purge(u64::MAX).await.unwrap();
    until("all is purged", || cluster.status(leader).purged.index == applied.index).await;
    for replica in ALL {
        cluster.stop(replica).await;
        cluster.start(replica).await;
    }
    let leader = cluster.leader().await;
    cluster.write(leader, 300..400).await;
    cluster.settle(leader, &ALL).await;
    assert!(cluster.books.values().all(|book| book.payloads().len() == 400));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_behind_the_purge_gets_a_snapshot_over_a_bad_line() {
    let mut cluster = Cluster::of_three().await;
    let leader = cluster.leader().await;
    cluster.write(leader, 0..100).await;
    let behind = *ALL.iter().find(|node| **node != leader).unwrap();
    let rest: Vec<ReplicaId> = ALL.into_iter().filter(|node| *node != behind).collect();
    cluster.settle(leader, &ALL).await;
    cluster.stop(behind).await;
    cluster.write(leader, 100..3000).await;
    cluster.settle(leader, &rest).await;
    purge(&cluster, &rest, 2900).await;
    cluster.net.lose_every_bulk(7);
    cluster.start(behind).await;
    until("a snapshot is on its way", || cluster.raft(leader).lags().snapshot.is_some()).await;
    let needed = cluster.raft(leader).lags();
    assert!(needed.snapshot >= Some(2900) && needed.log >= needed.snapshot, "{needed:?}");
    until("a snapshot is installed", || cluster.books[&behind].state().installs > 0).await;
    cluster.write(leader, 3000..3100).await;
    cluster.settle(leader, &[behind]).await;
    let wanted: Vec<Bytes> = (0..3100).map(payload).collect();
    assert!(cluster.books[&behind].payloads() == wanted);
    until("it needs the log of after", || cluster.raft(leader).lags().snapshot.is_none()).await;
    let opened = cluster.books[&behind].state().sinks_opened;
    assert_eq!(opened, 1, "{} chunks, every 7th message lost: resumed", 3000 / CHUNK_ENTRIES);
    // It goes on as if it had the log all along.
    cluster.stop(behind).await;
    cluster.start(behind).await;
    cluster.write(leader, 3100..3110).await;
    cluster.settle(leader, &[behind]).await;
    assert_eq!(cluster.books[&behind].state().installs, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_less_learner_behind_the_purge_hears_of_the_gap() {
    let mut cluster = Cluster::of_three().await;
    let leader = cluster.leader().await;
    cluster.write(leader, 0..100).await;
    let seed = cluster.books[&leader].state().applied.clone();
    cluster.write(leader, 100..400).await;
    cluster.settle(leader, &ALL).await;
    purge(&cluster, &ALL, 300).await;
    cluster.start_in_memory(id(9), Book::seeded(seed)).await;
    let learners = [(id(9), crate::raft::Member::syncer("s1"))].into();
    cluster.raft(leader).set_learners(&learners).await.unwrap();
    until("the position was installed", || cluster.books[&id(9)].state().installs == 1).await;
    cluster.write(leader, 400..410).await;
    cluster.settle(leader, &[id(9)]).await;
    let book = cluster.books[&id(9)].state();
    assert!(book.entries.len() <= 10, "no data came with the snapshot");
}
