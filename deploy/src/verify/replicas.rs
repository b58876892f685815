//! What the replicas of all groups say of themselves: what the checker `replicas_equal` compares.

use super::{ask::Asker, load};
use crate::find::{self, Known};
use anyhow::{Context, Result};
use flotilla_chaos::checkers::replicas_equal::ReplicaDigest;
use std::collections::BTreeSet;

/// Asks every replica of every group of every cluster, except groups named in `but`: group by group, the
/// replicas of one at once, so that each reads what stood at about the same moment and answers in time,
/// however many there are. All must answer: one that cannot be asked could be the one that differs.
pub async fn replicas(known: Vec<Known>, but: &BTreeSet<String>) -> Result<Vec<ReplicaDigest>> {
    let mut all = Vec::new();
    for told in find::ask_all(known).await.all()? {
        let map = &told.status.map;
        let files = told.known.client.as_ref();
        let files = files.with_context(|| format!("no certificate for {} is known", map.name))?;
        let asker = &Asker::new(load(files)?);
        for group in &map.groups {
            let name = &format!("{}/{}", map.name, group.id);
            if but.contains(name) {
                continue;
            }
            let asked = group.replicas.iter().map(|replica| async move {
                let state = asker.replica(map, group, &replica.node).await;
                let state =
                    state.with_context(|| format!("{name} on {} is not told", replica.node))?;
                anyhow::Ok(ReplicaDigest {
                    group: name.clone(),
                    replica: replica.node.clone(),
                    applied: state.at.index,
                    digest: format!("{:032x} ({} rows)", state.sum, state.rows),
                })
            });
            all.extend(futures::future::try_join_all(asked).await?);
        }
    }
    Ok(all)
}
