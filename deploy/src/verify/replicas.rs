//! What the replicas of all groups say of themselves: what the checker `replicas_equal` compares.

use super::{ask::Asker, load};
use crate::find::{self, Known};
use anyhow::{Context, Result};
use flotilla_chaos::checkers::replicas_equal::ReplicaDigest;
use flotilla_topology::api::GroupInfo;

/// Replicas that read all their rows at once: each must answer in time, however many there are.
const REPLICAS_AT_ONCE: usize = 4;

/// Asks every replica of every group of every cluster. All must answer: one that cannot be asked
/// could be the one that differs.
pub async fn replicas(known: Vec<Known>) -> Result<Vec<ReplicaDigest>> {
    let mut all = Vec::new();
    for told in find::ask_all(known).await.all()? {
        let map = &told.status.map;
        let files = told.known.client.as_ref();
        let files = files.with_context(|| format!("no certificate for {} is known", map.name))?;
        let asker = &Asker::new(load(files)?);
        let groups = map.groups.iter();
        let places: Vec<(&GroupInfo, &String)> = groups
            .flat_map(|group| group.replicas.iter().map(move |replica| (group, &replica.node)))
            .collect();
        for some in places.chunks(REPLICAS_AT_ONCE) {
            let asked = some.iter().map(|(group, node)| async move {
                let state = asker.replica(map, group, node).await;
                let state =
                    state.with_context(|| format!("group {} on {node} is not told", group.id))?;
                anyhow::Ok(ReplicaDigest {
                    group: format!("{}/{}", map.name, group.id),
                    replica: (*node).clone(),
                    applied: state.at.index,
                    digest: format!("{:032x} ({} rows)", state.sum, state.rows),
                })
            });
            all.extend(futures::future::try_join_all(asked).await?);
        }
    }
    Ok(all)
}
