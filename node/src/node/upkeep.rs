//! What must be done now and then: purging logs below what everybody has, watching the disk,
//! telling metrics.
//!
//! The purge floor of a synced group is the smallest position that a live peer has acknowledged,
//! as written through the group itself, so that every replica, also the next leader, respects it.
//! It is capped by a budget: beyond so many bytes or so much time of a group's log (PD's map says
//! how much), or above [`BACKLOG_BYTES_MAX`] of logs on this node, the floor gives way, and the link
//! that needed it has to merge full state.

use crate::group::Group;
use crate::group::live::LiveSet;
use crate::node::backlog::Backlog;
use crate::node::groups::GroupKeeper;
use crate::node::host;
use crate::raft::Lags;
use crate::router::Router;
use flotilla_topology::api::{BacklogBudget, ClusterMap, PeerCluster, Standing};
use flotilla_topology::ids::GroupId;
use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

const UPKEEP_INTERVAL: Duration = Duration::from_secs(1);
/// Entries kept behind the applied position, so that a replica that was away for a moment is
/// served from the log and needs no snapshot, whoever leads then.
const KEPT_ENTRIES: u64 = 10_000;
/// Entries that a leader keeps for replicas that lack them, and how many bytes of them for how long. It costs
/// the log's index some 50 bytes of memory for each.
const LAG_ENTRIES_MAX: u64 = 100_000;
const LAG_MAX: BacklogBudget = BacklogBudget { bytes: 128 << 20, age_seconds: 3600 };
/// Purging is worth its flush only from so many entries on, or so many bytes.
const PURGE_STEP: u64 = 10_000;
const PURGE_STEP_BYTES: u64 = 16 << 20;
/// Logs of this size on one node make the purge floor of lagging peers give way.
const BACKLOG_BYTES_MAX: usize = 8 << 30;

/// Starts upkeep; it ends with `stop`.
pub fn start(
    keeper: Arc<GroupKeeper>,
    router: Arc<Router>,
    dir: PathBuf,
    disk_reserve: u64,
    stop: CancellationToken,
) {
    tokio::spawn(async move {
        let mut tick = tokio::time::interval(UPKEEP_INTERVAL);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut backlogs: BTreeMap<GroupId, Backlog> = BTreeMap::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = tick.tick() => {}
            }
            if let Some(free) = host::free_bytes(&dir) {
                metrics::gauge!("flotilla_disk_free_bytes").set(free as f64);
                router.set_disk_free(free, disk_reserve);
            }
            let synced = keeper.places.map().map(|map| wanted_synced(&map)).unwrap_or_default();
            let over_budget = keeper.logs.disk_bytes() > BACKLOG_BYTES_MAX;
            let mut purges = Vec::new();
            for group in keeper.places.groups() {
                tell_metrics(&group);
                follow_mesh(&keeper, &group, &synced);
                let backlog = backlogs.entry(group.context.group).or_default();
                let applied = group.applied();
                backlog.note(Instant::now(), applied.log_id.index, applied.bytes);
                let upto = purge_upto(&keeper, &group, over_budget, backlog);
                purges.extend(upto.map(|upto| (group, upto)));
            }
            purge(&keeper, purges).await;
            backlogs.retain(|group, _| keeper.places.group(*group).is_some());
            metrics::gauge!("flotilla_log_disk_bytes").set(keeper.logs.disk_bytes() as f64);
            let estimate = keeper.engine.property("rocksdb.estimate-num-keys");
            metrics::gauge!("flotilla_storage_rows_estimate").set(estimate as f64);
            let pending = keeper.engine.property("rocksdb.estimate-pending-compaction-bytes");
            metrics::gauge!("flotilla_storage_pending_compaction_bytes").set(pending as f64);
            let cached = keeper.engine.property("rocksdb.block-cache-usage");
            metrics::gauge!("flotilla_storage_block_cache_bytes").set(cached as f64);
            let rows = keeper.engine.row_cache();
            metrics::gauge!("flotilla_storage_row_cache_bytes").set(rows.bytes() as f64);
            let (hits, misses) = rows.hits_and_misses();
            metrics::counter!("flotilla_storage_row_cache_hits_total").absolute(hits);
            metrics::counter!("flotilla_storage_row_cache_misses_total").absolute(misses);
        }
    });
}

fn tell_metrics(group: &Group) {
    let label = group.context.group.to_string();
    let applied = group.applied().log_id.index as f64;
    metrics::gauge!("flotilla_group_applied_index", "group" => label.clone()).set(applied);
    let leads = if group.leads() { 1.0 } else { 0.0 };
    metrics::gauge!("flotilla_group_leads", "group" => label).set(leads);
}

/// Has a group be synced if the map wants that, and go by the map's set of live clusters, if it leads
/// and its own is older.
fn follow_mesh(keeper: &GroupKeeper, group: &Arc<Group>, synced: &HashSet<GroupId>) {
    let Some(map) = keeper.places.map().filter(|_| group.leads()) else { return };
    if !group.synced().is_on() {
        if synced.contains(&group.context.group) {
            let group = Arc::clone(group);
            // Not waited for: the next round sees whether it was done.
            tokio::spawn(async move { group.switch_on().await });
        }
        return;
    }
    let known = match group.live_set() {
        Ok(known) => known,
        Err(error) => {
            return tracing::error!(group = %group.context.group, %error, "cannot read live set");
        }
    };
    let current = match group.is_life_current() {
        Ok(current) => current,
        Err(error) => {
            return tracing::error!(group = %group.context.group, %error, "cannot read life");
        }
    };
    if current && known.is_some_and(|known| known.version >= map.mesh_version) {
        return;
    }
    let (fenced, live): (Vec<_>, Vec<_>) =
        map.peers.iter().partition(|peer| peer.standing == Standing::Fenced);
    let ids = |peers: Vec<&PeerCluster>| peers.into_iter().map(|peer| peer.id).collect();
    let set = LiveSet {
        version: map.mesh_version,
        live: ids(live),
        fenced: ids(fenced),
        ..LiveSet::default()
    };
    let group = Arc::clone(group);
    // Not waited for: the next round sees whether it was done.
    tokio::spawn(async move { group.set_live(set).await });
}

/// The groups of namespaces that the map wants to be synced.
fn wanted_synced(map: &ClusterMap) -> HashSet<GroupId> {
    let synced = map.namespaces.iter().filter(|ns| ns.spec.synced);
    let synced: HashSet<_> = synced.map(|ns| ns.id).collect();
    let groups = map.groups.iter().filter(|info| synced.contains(&info.namespace));
    groups.map(|info| info.id).collect()
}

/// Up to which index a group's log is to be purged, if that is worth it.
fn purge_upto(
    keeper: &GroupKeeper,
    group: &Group,
    over_budget: bool,
    backlog: &Backlog,
) -> Option<u64> {
    let (applied, label) = (group.applied(), group.context.group.to_string());
    let budget = keeper.places.map().map(|map| map.backlog).unwrap_or_default();
    let (now, last) = (Instant::now(), applied.log_id.index);
    let beyond = backlog.beyond(now, applied.bytes, budget);
    let purged = group.raft.purged().index;
    let mut kept = last.saturating_sub(KEPT_ENTRIES);
    // Nearly all groups of a node that has many have nothing to purge: nobody is asked what they lack.
    if !over_budget && kept > purged {
        let lag_max = backlog.beyond(now, applied.bytes, LAG_MAX);
        let lag_max = lag_max.max(last.saturating_sub(LAG_ENTRIES_MAX));
        kept = kept_for(group.raft.lags(), kept, lag_max);
    }
    // Entries may be large: what is kept for replicas has the same budget as what is kept for peers.
    let kept = kept.max(beyond);
    let upto = match floor(keeper, group) {
        Ok(Some(floor)) if !over_budget => {
            let behind = backlog.bytes_behind(floor, applied.bytes) as f64;
            metrics::gauge!("flotilla_backlog_bytes", "group" => label).set(behind);
            kept.min(floor.max(beyond))
        }
        Ok(_) => kept,
        Err(error) => {
            tracing::error!(group = %group.context.group, %error, "cannot read link floors");
            return None;
        }
    };
    let bytes = |index| backlog.bytes_behind(index, applied.bytes);
    let many = upto >= purged + PURGE_STEP
        || bytes(purged).saturating_sub(bytes(upto)) >= PURGE_STEP_BYTES;
    many.then_some(upto)
}

/// Up to where the log may go of which others lack something, if it could go up to `kept` otherwise; those
/// that are sent entries hold nothing back up to `lag_max`. Who is sent a snapshot lacks all behind it.
fn kept_for(lags: Lags, kept: u64, lag_max: u64) -> u64 {
    let log = lags.log.map(|index| index.max(lag_max));
    [log, lags.snapshot].into_iter().flatten().fold(kept, u64::min)
}

/// Purges logs. What is applied up to there must be on the disk, so one flush, beside the groups' work,
/// serves all of them; none is needed where memtables were written since anyway.
async fn purge(keeper: &GroupKeeper, purges: Vec<(Arc<Group>, u64)>) {
    let on_disk = |group: &Group| keeper.engine.group_on_disk(group.context.group);
    let is_behind = |(group, upto): &(Arc<Group>, u64)| !matches!(on_disk(group), Ok(Some(meta)) if meta.applied.index >= *upto);
    if purges.iter().any(is_behind) {
        let engine = keeper.engine.clone();
        if let Ok(Err(error)) = tokio::task::spawn_blocking(move || engine.flush()).await {
            tracing::warn!(%error, "flush failed: logs are purged less far");
        }
    }
    for (group, upto) in purges {
        if let Err(error) = group.raft.purge(upto).await {
            tracing::warn!(group = %group.context.group, %error, "log not purged");
        }
    }
}

/// The smallest position that a live peer has acknowledged; `None` if nobody follows this group.
/// Who is fenced holds nothing back.
fn floor(keeper: &GroupKeeper, group: &Group) -> std::io::Result<Option<u64>> {
    let Some(map) = keeper.places.map().filter(|_| group.synced().is_on()) else { return Ok(None) };
    let positions = group.acknowledged(map.peers.iter().filter(|peer| peer.counts()))?;
    Ok(positions.into_iter().map(|(_, index)| index).min())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leader_keeps_what_others_lack_within_bounds() {
        let kept = |log, snapshot| kept_for(Lags { log, snapshot }, 1000, 500);
        assert_eq!(kept(None, None), 1000);
        assert_eq!(kept(Some(2000), Some(2000)), 1000, "nobody is behind what is kept anyway");
        assert_eq!(kept(Some(700), None), 700);
        assert_eq!(kept(Some(200), None), 500, "it has been away for too long");
        assert_eq!(kept(Some(700), Some(200)), 200, "it is being brought up");
    }
}
