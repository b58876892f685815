//! What everybody must come to: all effects that ever took effect, joined, with nothing collected
//! and nothing merged from snapshots.

use super::counters::Added;
use super::group::{MemoryRows, SimGroup};
use super::world::{Broken, Step, World};
use flotilla_node::engine::keys;
use flotilla_node::engine::view::{Overlay, Rows, View};
use flotilla_node::eval::{self, EvalContext, SlotDigest, Txn};
use flotilla_node::group::census;
use flotilla_node::group::cursor;
use flotilla_node::group::entry::{Entry, Fence, RowOp};
use flotilla_node::model::{
    Effect, Floor, Head, Parts, Register, Synced, Type, decode_element, decode_head, effect_of,
};
use flotilla_node::raft::Body;
use flotilla_topology::ids::{ClusterId, Incarnation, LogId, Origin};
use flotilla_topology::slot::{Slot, SlotRange};
use flotilla_topology::stamp::Stamp;
use std::collections::BTreeMap;

/// See the module.
#[derive(Default)]
pub struct Oracle {
    rows: MemoryRows,
    overlay: Overlay,
    seq: u64,
    /// How far each group's log was read, and its fence there.
    read: BTreeMap<(usize, usize), (usize, Fence)>,
    pub(super) added: Added,
    ends: BTreeMap<Slot, Ends>,
    /// Entries of each group with effects, by slots that they touched.
    pub(super) touched: BTreeMap<(usize, usize), Vec<(u64, SlotRange)>>,
}

/// What was done to the ends of the keys of a slot.
#[derive(Default)]
struct Ends {
    /// When the first one was to come, in milliseconds.
    first_ms: Option<u64>,
    /// Stamps of commands that set an end, took one back, or deleted a key, and its end with it.
    changes: Vec<Stamp>,
}

impl Ends {
    fn note(&mut self, effect: &Effect) {
        let Effect::Head { head, .. } = effect else { return };
        if let Some(expiry) = head.expiry {
            let at = Some(expiry.at).filter(|at| *at > 0);
            self.first_ms = self.first_ms.into_iter().chain(at).min();
            self.changes.push(expiry.stamp);
        }
        if !head.floor.is_none() {
            self.changes.push(head.floor.stamp);
        }
    }
}

fn context(now_ms: u64) -> EvalContext {
    let origin = Origin { cluster: ClusterId(255), incarnation: Incarnation(1) };
    EvalContext {
        origin,
        slots: SlotRange::ALL,
        synced: Synced::Always,
        stamp: Stamp::floor_at_ms(now_ms),
        now_ms,
        applied_clock_ms: now_ms,
        forgotten_ms: 0,
        chance: 0,
    }
}

impl Oracle {
    /// Reads on in a group's log.
    pub fn witness(&mut self, at: (usize, usize), group: &SimGroup) {
        let (mut read, mut fence) = self.read.get(&at).copied().unwrap_or_default();
        while let Some(entry) = group.log.get(read) {
            read += 1;
            match &entry.body {
                Body::Blank => fence.blank(entry.log_id.term),
                Body::Membership(_) => {}
                Body::Normal(bytes) => {
                    let decoded = Entry::decode(bytes).expect("entries are readable");
                    if fence.admit(entry.log_id.term, decoded.header.evaluation)
                        && decoded.header.origin.cluster == group.context.origin.cluster
                    {
                        self.join(at, entry.log_id, &decoded);
                    }
                }
            }
        }
        self.read.insert(at, (read, fence));
    }

    fn join(&mut self, at: (usize, usize), id: LogId, entry: &Entry) {
        let effects = entry.ops.iter().filter_map(|op| match op {
            RowOp::Put { key, value, parts } => {
                effect_of(entry.header.origin, key, value, Parts(*parts)).expect("readable")
            }
            _ => None,
        });
        let effects: Vec<Effect> = effects.collect();
        if effects.is_empty() {
            return;
        }
        for effect in &effects {
            self.added.note(effect);
            self.ends.entry(effect.slot()).or_default().note(effect);
            let slots = SlotRange { first: effect.slot(), last: effect.slot() };
            self.touched.entry(at).or_default().push((id.index, slots));
        }
        self.seq += 1;
        self.overlay.begin(self.seq);
        let now = context(entry.header.clock.ms());
        let mut txn = Txn::new(View::new(&self.rows, &mut self.overlay), now);
        eval::remote(&mut txn, &effects).expect("rows in memory can be read");
        let batch = self.overlay.finish();
        batch.apply_to(&mut self.rows);
        self.overlay.retire(self.seq);
    }

    /// What it has come to.
    pub fn rows(&self) -> &MemoryRows {
        &self.rows
    }

    fn digest(&self, now_ms: u64) -> Vec<SlotDigest> {
        digest(&self.rows, SlotRange::ALL, now_ms)
    }

    /// Everything that is stored of a key, for reading.
    pub fn dump(&self) -> String {
        dump(&self.rows)
    }
}

fn digest(rows: &MemoryRows, slots: SlotRange, now_ms: u64) -> Vec<SlotDigest> {
    let mut overlay = Overlay::new();
    let txn = Txn::new(View::new(rows, &mut overlay), context(now_ms));
    eval::digest(&txn, slots).expect("rows in memory can be read")
}

/// The registers of all rows that count at a time, with the floor of their key at time 0: the real
/// one.
fn registers(rows: &MemoryRows, ms: u64) -> BTreeMap<bytes::Bytes, (Floor, Option<Register>)> {
    use flotilla_node::engine::keys::RowKey;
    let readable = "rows of the simulation are readable";
    let mut heads: BTreeMap<bytes::Bytes, Head> = BTreeMap::new();
    let mut found = BTreeMap::new();
    for (row, value) in rows {
        let (key, ty, element) = match keys::decode(row) {
            Ok(RowKey::Head { key, .. }) => {
                let head = decode_head(value).expect(readable);
                heads.insert(key.clone(), head.clone());
                (key, Type::String, head.string)
            }
            Ok(RowKey::Element { key, ty, .. }) => {
                (key, ty, decode_element(value).expect(readable))
            }
            _ => continue,
        };
        let head = heads.get(&key).cloned().unwrap_or_default();
        let counts = |register: &Register| {
            ms == 0 || (head.ty() == Some(ty) && !head.floor_at(ms).hides(register.stamp))
        };
        let register = element.register.filter(counts);
        found.insert(row.clone(), (head.floor, register));
    }
    found
}

/// The slot of a row that [`registers`] found.
fn slot_of(row: &bytes::Bytes) -> Slot {
    use flotilla_node::engine::keys::RowKey;
    match keys::decode(row) {
        Ok(RowKey::Head { slot, .. } | RowKey::Element { slot, .. }) => slot,
        _ => unreachable!("only rows of keys have registers"),
    }
}

/// What is stored of keys, and everything else that is, as text.
pub fn dump(rows: &MemoryRows) -> String {
    let others = rows.keys().filter_map(|row| match keys::decode(row) {
        Ok(keys::RowKey::Head { .. } | keys::RowKey::Element { .. }) => None,
        Ok(other @ keys::RowKey::Cursor { .. }) => {
            Some(format!("{other:?}: {:?}", cursor::Cursor::decode(&rows[row])))
        }
        Ok(other) => Some(format!("{other:?}")),
        Err(error) => Some(error.to_string()),
    });
    let lines: Vec<String> = dump_rows(rows).into_iter().chain(others).collect();
    lines.join("\n")
}

/// What is stored of keys, a line a row.
pub(super) fn dump_rows(rows: &MemoryRows) -> Vec<String> {
    let mut lines = Vec::new();
    for (key, value) in rows {
        use flotilla_node::engine::keys::RowKey;
        let text = match keys::decode(key) {
            Ok(RowKey::Head { key, .. }) => {
                format!("{key:?}: {:?}", flotilla_node::model::decode_head(value))
            }
            Ok(RowKey::Element { key, name, .. }) => {
                format!("{key:?}.{name:?}: {:?}", flotilla_node::model::decode_element(value))
            }
            _ => continue,
        };
        lines.push(text);
    }
    lines
}

impl World {
    /// A cursor never passes what its group has got: whatever took effect below it and touches its
    /// slots is there, which the end shows; here, that it never passes what was committed.
    pub(super) fn check_cursors(&mut self) -> Step {
        for (cluster, groups) in self.clusters.iter().enumerate() {
            for group in groups {
                let cursors = cursor::read_all(&group.state.rows).expect("rows in memory");
                for ((origin, source), cursor) in cursors {
                    let place = usize::from(origin.cluster.0) - 1;
                    let from = self.clusters[place].iter().find(|g| g.context.group == source);
                    let from = from.expect("cursors name groups that exist");
                    let at = cursor.position.index as usize;
                    let known = at == 0
                        || from.log.get(at - 1).is_some_and(|e| e.log_id == cursor.position);
                    if !known {
                        let what =
                            format!("cluster {cluster} is at {} of {source}", cursor.position);
                        return Err(Broken { invariant: "cursor_behind_commit", what });
                    }
                }
            }
        }
        Ok(())
    }

    /// Nothing that was written is still on its way between those that are live.
    pub fn check_arrived(&self) -> Step {
        let live = self.mesh.live();
        for (at, touched) in self.oracle.touched.iter().filter(|(at, _)| live.contains(&at.0)) {
            let source = &self.clusters[at.0][at.1].context;
            for place in live.iter().copied().filter(|to| *to != at.0) {
                for group in &self.clusters[place] {
                    let mine = touched.iter().filter(|(_, s)| s.intersects(&group.context.slots));
                    let last = mine.map(|(index, _)| *index).max().unwrap_or(0);
                    let cursors = cursor::read_all(&group.state.rows).expect("rows in memory");
                    let cursor = cursors.get(&(source.origin, source.group));
                    let at = cursor.map_or(0, |cursor| cursor.position.index);
                    if at < last {
                        let what = format!(
                            "cluster {place}, group {}, has group {} up to {at} of {last}: {}",
                            group.context.group,
                            source.group,
                            self.links_text()
                        );
                        return Err(Broken { invariant: "stuck", what });
                    }
                }
            }
        }
        Ok(())
    }

    /// All live clusters show the same, now and later: what the oracle shows. Where clusters were fenced
    /// and came back, writes may have lost that the oracle keeps, since it forgets nothing: an end
    /// that was taken back over there, when what it hid was collected here long ago. There nothing
    /// may show that the oracle knows to be deleted.
    pub fn check_converged(&self) -> Step {
        let groups = self.clusters.iter().flatten();
        let clocks = groups.map(|group| group.state.meta.clock.ms());
        let now = clocks.max().unwrap_or(0).max(self.now_ms);
        for ms in [now, now + 1, now + 3, now + 100] {
            let live = self.mesh.live();
            let first = live[0];
            let want = match self.mesh.fences {
                0 => self.oracle.digest(ms),
                _ => self.shown(first, ms),
            };
            for place in live {
                if self.shown(place, ms) != want {
                    let what = format!(
                        "cluster {place} at {ms}:\n{}\ncluster {first}:\n{}\noracle:\n{}",
                        self.rows_of(place),
                        self.rows_of(first),
                        self.oracle.dump()
                    );
                    return Err(Broken { invariant: "converge", what });
                }
            }
        }
        // What a cluster deletes that is away, nobody can know.
        if self.mesh.is_apart() { Ok(()) } else { self.check_not_back(now) }
    }

    /// Whether clusters differ, but only in keys that have ended, and whose end was set or taken back by
    /// a cluster that was given up, where nobody saw it: when it comes back with that, some may have
    /// collected what the end hid before, and others not yet. The audit tells, and merges mend it.
    pub(super) fn differs_by_ends(&self) -> bool {
        let live = self.mesh.live();
        let first = self.shown(live[0], self.now_ms);
        let of = |all: &[SlotDigest], slot| all.iter().find(|digest| digest.slot == slot).copied();
        let mut differing = live.iter().flat_map(|place| {
            let shown = self.shown(*place, self.now_ms);
            let slots = shown.iter().chain(&first).map(|digest| digest.slot);
            slots.filter(|slot| of(&shown, *slot) != of(&first, *slot)).collect::<Vec<_>>()
        });
        let mut differing = differing.by_ref().peekable();
        differing.peek().is_some() && differing.all(|slot| self.has_unseen_end(slot))
    }

    fn has_unseen_end(&self, slot: Slot) -> bool {
        self.oracle.ends.get(&slot).is_some_and(|ends| {
            let mut changes = ends.changes.iter();
            ends.first_ms.is_some_and(|at| at <= self.now_ms)
                && changes.any(|change| self.mesh.may_outlive_deletes(slot, *change))
        })
    }

    fn rows_of(&self, place: usize) -> String {
        let groups = self.clusters[place].iter();
        groups.map(|group| dump(&group.state.rows)).collect::<Vec<_>>().join("\n")
    }

    fn shown(&self, place: usize, ms: u64) -> Vec<SlotDigest> {
        let groups = self.clusters[place].iter();
        let each = groups.flat_map(|group| digest(&group.state.rows, group.context.slots, ms));
        let mut shown: Vec<SlotDigest> = each.collect();
        shown.sort_by_key(|digest| digest.slot);
        shown
    }

    /// Nothing shows that was deleted later than it was written.
    fn check_not_back(&self, now_ms: u64) -> Step {
        let deleted = registers(&self.oracle.rows, 0);
        for (place, groups) in self.clusters.iter().enumerate() {
            for group in groups {
                for (row, (_, shown)) in registers(&group.state.rows, now_ms) {
                    let Some(stamp) = shown.filter(|register| register.value.is_some()) else {
                        continue;
                    };
                    let stamp = stamp.stamp;
                    let (floor, last) = deleted.get(&row).cloned().unwrap_or_default();
                    let gone = last.is_some_and(|r| r.value.is_none() && r.stamp > stamp);
                    let deleted = (floor.hides(stamp) || gone) && self.mesh.fences > 0;
                    if deleted && !self.mesh.may_outlive_deletes(slot_of(&row), stamp) {
                        let what = format!(
                            "cluster {place} shows {row:?} of {stamp:?}\n{}\noracle:\n{}",
                            dump(&group.state.rows),
                            self.oracle.dump()
                        );
                        return Err(Broken { invariant: "deleted_is_back", what });
                    }
                }
            }
        }
        Ok(())
    }

    /// Nothing waits to be collected any more.
    pub fn check_collected(&self) -> Step {
        for (place, groups) in self.clusters.iter().enumerate() {
            for group in groups {
                let rows = &group.state.rows;
                let waits = Rows::scan(rows, keys::of_kind(keys::GARBAGE), false).count();
                let lapsed = Rows::scan(rows, keys::expiries_until(self.now_ms), false).count();
                let census = census::count(rows, self.now_ms).expect("rows in memory");
                if waits + lapsed > 0 || census.garbage() > 0 {
                    let what = format!(
                        "cluster {place}, group {}: {waits} wait, {lapsed} lapsed, {census:?}\n{}\n{}",
                        group.context.group,
                        self.links_text(),
                        dump(rows)
                    );
                    return Err(Broken { invariant: "collected", what });
                }
            }
        }
        Ok(())
    }
}
