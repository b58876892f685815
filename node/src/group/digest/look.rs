//! What an audit between clusters looks at: of cells of a group, what is visible in them, and a
//! digest of everything that they hold, hidden or not.
//!
//! A cell is a slot, or those keys of a slot whose hash falls into one of some buckets. With what is
//! visible clusters are compared; by the state digest is known whether a cell was written between two
//! looks: what is visible may go and come back. The answer carries what tells which writes the group
//! had seen: its clock, above which no stamp in it lies, and its closed vector.

use super::{Decoded, put_sum, take_sum, told};
use crate::codec::{Decoder, Encoder};
use crate::engine::meta::GroupMeta;
use crate::engine::rows::FrozenRows;
use crate::engine::view::{Overlay, Rows, View};
use crate::eval::{self, Mix, Txn};
use crate::group::compare::row_digests;
use crate::group::cursor::{self, closed_vector};
use crate::group::leader::eval_context;
use crate::group::live::LiveSet;
use crate::group::remote::{
    Answer, Outcome, TEXT_BYTES_MAX, VECTOR_MAX, Vector, put_vector, take_vector,
};
use crate::group::{Group, GroupContext, levelled, life};
use flotilla_topology::ids::{ClusterId, GroupId};
use flotilla_topology::slot::{SLOT_COUNT, Slot, SlotRange};
use flotilla_topology::stamp::{Hlc, Stamp};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

/// Buckets of one slot.
pub const BUCKETS_MAX: u16 = 4096;
/// Cells of one look.
pub const CELLS_MAX: usize = SLOT_COUNT as usize;
/// Bytes of a cell, at least.
const CELL_BYTES_MIN: usize = 29;

/// Which cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cells {
    /// Of these slots.
    pub slots: SlotRange,
    /// Into how many buckets the keys of each slot fall; 1 means the slot as a whole.
    pub buckets: u16,
    /// Seed of the hash by which they do: with another one, other keys share a bucket.
    pub seed: u64,
}

impl Cells {
    /// Slots as a whole.
    pub fn slots(slots: SlotRange) -> Cells {
        Cells { slots, buckets: 1, seed: 0 }
    }

    /// The bucket of a key.
    pub fn bucket_of(&self, key: &[u8]) -> u16 {
        if self.buckets <= 1 {
            return 0;
        }
        let mut mix = Mix::new(self.seed);
        mix.bytes(key);
        (mix.finish() % u64::from(self.buckets)) as u16
    }

    /// Appends it.
    pub fn put(&self, out: &mut Encoder) {
        out.put_slots(self.slots);
        out.put_varint(u64::from(self.buckets));
        out.put_u64(self.seed);
    }

    /// Reads it.
    pub fn take(from: &mut Decoder<'_>) -> Decoded<Cells> {
        let error = from.error("slots and buckets within the cells of one look");
        let slots = from.slots()?;
        let buckets = u16::try_from(from.varint()?).map_err(|_| error)?;
        let cells = Cells { slots, buckets, seed: from.u64()? };
        let count = usize::from(slots.last.0.saturating_sub(slots.first.0)) + 1;
        let fits =
            (1..=BUCKETS_MAX).contains(&buckets) && count * usize::from(buckets) <= CELLS_MAX;
        if fits { Ok(cells) } else { Err(error) }
    }
}

/// Asks a group's leader for a look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LookRequest {
    /// The group.
    pub group: GroupId,
    /// As for [`super::DigestRequest`].
    pub at_ms: u64,
    /// At what; the answer is cut to the slots of the group.
    pub cells: Cells,
}

impl LookRequest {
    pub(super) fn put(&self, out: &mut Encoder) {
        out.put_group(self.group);
        out.put_varint(self.at_ms);
        self.cells.put(out);
    }

    pub(super) fn take(from: &mut Decoder<'_>) -> Decoded<LookRequest> {
        let (group, at_ms) = (from.group()?, from.varint()?);
        Ok(LookRequest { group, at_ms, cells: Cells::take(from)? })
    }
}

/// What a cell held. The default is what an empty one holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cell {
    /// Sum of the hashes of what is visible.
    pub sum: u128,
    /// How many keys are visible.
    pub keys: u64,
    /// State digest: changes with every row that is written, also with one that hides others.
    pub state: u64,
    /// How many rows there are, hidden ones too.
    pub rows: u64,
}

/// What a group showed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Look {
    /// The group's clock: no stamp in it is above, and all that it issues later are.
    pub clock: Hlc,
    /// The other clusters that the group goes by.
    pub live: BTreeSet<ClusterId>,
    /// Its closed vector.
    pub vector: Vector,
    /// Why the group may lack writes although its vector covers them; none if it may not.
    pub unsettled: Option<String>,
    /// Cells that hold anything, by slot and bucket.
    pub cells: BTreeMap<(Slot, u16), Cell>,
}

impl Outcome for Look {
    fn put(&self, out: &mut Encoder) {
        out.put_hlc(self.clock);
        out.put_varint(self.live.len() as u64);
        self.live.iter().for_each(|cluster| out.put_cluster(*cluster));
        put_vector(out, &self.vector);
        out.put_option(self.unsettled.as_deref(), Encoder::put_text);
        out.put_varint(self.cells.len() as u64);
        for ((slot, bucket), cell) in &self.cells {
            out.put_slot(*slot);
            out.put_varint(u64::from(*bucket));
            put_sum(out, cell.sum);
            out.put_varint(cell.keys);
            out.put_u64(cell.state);
            out.put_varint(cell.rows);
        }
    }

    fn take(from: &mut Decoder<'_>) -> Decoded<Look> {
        let clock = from.hlc()?;
        let count = from.count(VECTOR_MAX, 1)?;
        let live = (0..count).map(|_| from.cluster()).collect::<Decoded<_>>()?;
        let vector = take_vector(from)?;
        let unsettled = from.option(|from| Ok(from.text(TEXT_BYTES_MAX)?.to_owned()))?;
        let mut cells = BTreeMap::new();
        for _ in 0..from.count(CELLS_MAX, CELL_BYTES_MIN)? {
            let error = from.error("the number of a bucket");
            let slot = from.slot()?;
            let bucket = u16::try_from(from.varint()?).map_err(|_| error)?;
            let sum = take_sum(from)?;
            let (keys, state) = (from.varint()?, from.u64()?);
            cells.insert((slot, bucket), Cell { sum, keys, state, rows: from.varint()? });
        }
        Ok(Look { clock, live, vector, unsettled, cells })
    }
}

impl Group {
    /// Looks at applied state at a group time, if this replica leads.
    pub async fn look(self: Arc<Group>, request: LookRequest) -> Answer<Look> {
        if let Err(answer) = self.reach(request.at_ms).await {
            return answer;
        }
        let looked = tokio::task::spawn_blocking(move || {
            let (rows, meta) = FrozenRows::of_group(&self.engine, self.context.group)?;
            look(&self.context, &rows, &meta, &request)
        });
        told(looked.await.unwrap_or_else(|error| Err(io::Error::other(error))))
    }
}

fn look(
    context: &GroupContext,
    rows: &dyn Rows,
    meta: &GroupMeta,
    request: &LookRequest,
) -> io::Result<Look> {
    let mut overlay = Overlay::new();
    let view = View::new(rows, &mut overlay);
    let set = LiveSet::read(&view)?.unwrap_or_default();
    let unsettled = if set.live.is_empty() {
        Some("the group does not know of other clusters yet")
    } else if !life::is_whole(&view)? {
        Some("the group has not covered what it has since its cluster came back")
    } else if levelled::counting(&view, context.slots, &set)? != set.live {
        Some("the group has not got all yet that others had of a fenced cluster")
    } else {
        None
    };
    let cursors = cursor::read_all(rows)?;
    let slots = context.slots.common(&request.cells.slots);
    let cells = match slots {
        Some(slots) => cells(context, rows, request.at_ms, &Cells { slots, ..request.cells })?,
        None => BTreeMap::new(),
    };
    Ok(Look {
        clock: meta.clock,
        live: set.live,
        vector: closed_vector(&cursors, context.slots),
        unsettled: unsettled.map(str::to_owned),
        cells,
    })
}

fn cells(
    context: &GroupContext,
    rows: &dyn Rows,
    at_ms: u64,
    wanted: &Cells,
) -> io::Result<BTreeMap<(Slot, u16), Cell>> {
    let mut cells: BTreeMap<(Slot, u16), Cell> = BTreeMap::new();
    let mut overlay = Overlay::new();
    let synced = context.synced_in(rows)?;
    let at = eval_context(context, synced, Stamp::ZERO, at_ms, at_ms);
    let txn = Txn::new(View::new(rows, &mut overlay), at);
    for key in eval::visible_keys(&txn, wanted.slots) {
        let (slot, digest) = key?;
        let cell = cells.entry((slot, wanted.bucket_of(&digest.key))).or_default();
        cell.sum = cell.sum.wrapping_add(digest.sum);
        cell.keys += 1;
    }
    for row in row_digests(rows, wanted.slots) {
        let (slot, key, digest) = row?;
        let cell = cells.entry((slot, wanted.bucket_of(&key))).or_default();
        cell.state = cell.state.wrapping_add(digest);
        cell.rows += 1;
    }
    Ok(cells)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Command;
    use crate::engine::rocks::TabletId;
    use crate::eval::EvalContext;
    use crate::model::Synced;
    use bytes::Bytes;
    use flotilla_topology::ids::{Incarnation, Origin, ReplicaId};

    const ORIGIN: Origin = Origin { cluster: ClusterId(1), incarnation: Incarnation(1) };

    fn context() -> GroupContext {
        GroupContext {
            group: GroupId(1),
            slots: SlotRange::ALL,
            born_synced: true,
            origin: ORIGIN,
            max_skew_ms: 500,
        }
    }

    /// The rows after these commands, each a millisecond after the one before.
    fn rows(commands: &[&[&str]]) -> BTreeMap<Bytes, Bytes> {
        let mut rows = BTreeMap::<Bytes, Bytes>::new();
        for (ms, words) in (10..).zip(commands) {
            let args = words.iter().map(|word| Bytes::copy_from_slice(word.as_bytes()));
            let command = Command::parse(args.collect()).unwrap();
            let stamp = Stamp { hlc: Hlc::from_ms(ms), cluster: ORIGIN.cluster };
            let at = EvalContext {
                origin: ORIGIN,
                slots: SlotRange::ALL,
                synced: Synced::Always,
                stamp,
                now_ms: ms,
                applied_clock_ms: ms,
                forgotten_ms: 0,
                chance: 0,
            };
            let mut overlay = Overlay::new();
            overlay.begin(1);
            eval::command(&mut Txn::new(View::new(&rows, &mut overlay), at), &command).unwrap();
            overlay.finish().apply_to(&mut rows);
        }
        rows
    }

    fn seen(rows: &BTreeMap<Bytes, Bytes>, buckets: u16) -> BTreeMap<(Slot, u16), Cell> {
        let slots = SlotRange { first: Slot::of(b"{t}"), last: Slot::of(b"{t}") };
        let cells = Cells { slots, buckets, seed: 7 };
        let request = LookRequest { group: GroupId(1), at_ms: 500, cells };
        let meta = GroupMeta::new(TabletId(1), ReplicaId(1));
        look(&context(), rows, &meta, &request).unwrap().cells
    }

    /// What was written and deleted again is not visible, and yet the cell has changed.
    #[test]
    fn a_write_shows_in_the_state_even_when_nothing_of_it_is_visible() {
        let one: &[&str] = &["SET", "a{t}", "v"];
        let (set, del): (&[&str], &[&str]) = (&["SET", "b{t}", "v"], &["DEL", "b{t}"]);
        let before = seen(&rows(&[one]), 1);
        let after = seen(&rows(&[one, set, del]), 1);
        let (before, after) = (before.values().next().unwrap(), after.values().next().unwrap());
        assert_eq!((before.sum, before.keys), (after.sum, after.keys));
        assert_eq!(before.keys, 1);
        assert_ne!(before.state, after.state);
    }

    /// Buckets are the slot cut into pieces.
    #[test]
    fn buckets_are_together_what_the_slot_is() {
        let names: Vec<String> = (0..50).map(|n| format!("k{n}{{t}}")).collect();
        let commands: Vec<Vec<&str>> = names.iter().map(|name| vec!["SET", name, "v"]).collect();
        let commands: Vec<&[&str]> = commands.iter().map(Vec::as_slice).collect();
        let rows = rows(&commands);
        let whole = *seen(&rows, 1).values().next().unwrap();
        assert_eq!(whole.keys, 50);
        let parts = seen(&rows, 64);
        assert!(parts.len() > 20, "{}", parts.len());
        let together = parts.values().fold(Cell::default(), |all, part| Cell {
            sum: all.sum.wrapping_add(part.sum),
            keys: all.keys + part.keys,
            state: all.state.wrapping_add(part.state),
            rows: all.rows + part.rows,
        });
        assert_eq!(together, whole);
    }

    #[test]
    fn a_look_survives_the_wire_and_is_bounded() {
        let cell = Cell { sum: u128::MAX - 1, keys: 3, state: 9, rows: 300 };
        let look = Look {
            clock: Hlc(99),
            live: BTreeSet::from([ClusterId(2), ClusterId(3)]),
            vector: vec![(ClusterId(2), Stamp { hlc: Hlc(5), cluster: ClusterId(2) })],
            unsettled: Some("it levels".into()),
            cells: BTreeMap::from([((Slot(3), 0), cell), ((Slot(3), 400), cell)]),
        };
        let answer = Answer::Done(look);
        let bytes = answer.encode();
        assert_eq!(Answer::<Look>::decode(&bytes).unwrap(), answer);
        for end in 0..bytes.len() {
            assert!(Answer::<Look>::decode(&bytes[..end]).is_err());
        }
        let reads = |slots, buckets| {
            let mut out = Encoder::new();
            Cells { slots, buckets, seed: 1 }.put(&mut out);
            Cells::take(&mut Decoder::new(&out.into_vec())).is_ok()
        };
        let one = SlotRange { first: Slot(5), last: Slot(5) };
        assert!(reads(SlotRange::ALL, 1) && reads(one, BUCKETS_MAX));
        assert!(!reads(SlotRange::ALL, 2) && !reads(one, BUCKETS_MAX + 1) && !reads(one, 0));
    }
}
