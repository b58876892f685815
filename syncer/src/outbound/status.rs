//! What others may look at: the status of one group and peer, for PD, people and metrics.

use super::Outbound;
use flotilla_node::clock;
use flotilla_topology::api::{LinkState, LinkStatus};
use std::time::Instant;

impl Outbound {
    pub(super) fn publish(&mut self) {
        let now = Instant::now();
        let backlog = self.shipper.backlog();
        let (progress, merging) = (self.merging.progress(), self.merging.is_active());
        let told = format!("{} rows, {} bytes had to travel so far", progress.rows, progress.bytes);
        let (state, detail) = match self.held {
            Some(hold) => (hold.state(), hold.reason()),
            None if merging => (LinkState::Merging, told.as_str()),
            None => self.shipper.state(),
        };
        let (learned_bytes, learned_entries) = self.learned;
        let age_ms = self.shipper.oldest_ms().map_or(0, |at| clock::wall_ms().saturating_sub(at));
        let status = LinkStatus {
            detail: detail.to_owned(),
            lag_seconds: age_ms as f64 / 1000.0,
            lag_p50_seconds: self.lag.quantile(now, 0.5),
            lag_p99_seconds: self.lag.quantile(now, 0.99),
            backlog_entries: backlog.entries,
            backlog_bytes: backlog.bytes as u64,
            cursor: self.shipper.cursor(),
            entry_bytes: learned_bytes as f64 / learned_entries.max(1) as f64,
            floor_age_seconds: self.acknowledged_at.map(|at| at.elapsed().as_secs_f64()),
            merge_done: merging.then_some(progress.done),
            clock_offset_ms: self.up.as_ref().map(|link| link.clock.lock().offset_ms()),
            ..LinkStatus::new(self.route.group, self.route.peer, state)
        };
        let labels =
            [("peer", self.route.peer_name.clone()), ("group", self.route.group.to_string())];
        metrics::gauge!("flotilla_link_backlog_bytes", &labels).set(backlog.bytes as f64);
        metrics::gauge!("flotilla_link_backlog_entries", &labels).set(backlog.entries as f64);
        metrics::gauge!("flotilla_link_age_seconds", &labels).set(status.lag_seconds);
        let live = matches!(state, LinkState::Live | LinkState::CatchingUp);
        metrics::gauge!("flotilla_link_live", &labels).set(f64::from(u8::from(live)));
        let before = std::mem::replace(&mut *self.status.lock(), status);
        if before.state != state && !(live && before.state == LinkState::CatchingUp) {
            let (group, peer) = (self.route.group, &self.route.peer_name);
            tracing::info!(%group, %peer, ?state, detail, "link state");
        }
    }
}
