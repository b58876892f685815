//! The log of losers: writes that a client was told of and that a merge has hidden, kept by each
//! group so that people can find out what two clusters did to each other.
//!
//! Local upkeep of the group: its rows are written with the merge that they tell of, in the same
//! entry, and are the same on all replicas; they are never shipped, and no digest that clusters
//! compare looks at them. Rows are numbered without gaps, so the one that must go is known without
//! counting: at most [`LOSERS_KEPT`] are there, whatever happens.

use crate::engine::keys::{self, RowKey};
use crate::engine::view::View;
use crate::eval::{Loser, LoserRow};
use crate::model::Parts;
use flotilla_topology::stamp::Hlc;
use std::io;

/// Losers that a group remembers.
pub const LOSERS_KEPT: u64 = 1_000;

/// Appends losers, and drops as many of the oldest as there are too many.
pub(super) fn record(view: &mut View<'_>, at: Hlc, losers: &[Loser]) -> io::Result<()> {
    if losers.is_empty() {
        return Ok(());
    }
    let first = next_number(view)?;
    for (number, loser) in (first..).zip(losers) {
        let row = LoserRow { at, loser: loser.clone() };
        view.put(keys::loser(number), row.encode(), Parts::NONE);
        if let Some(oldest) = number.checked_sub(LOSERS_KEPT) {
            view.delete(keys::loser(oldest));
        }
    }
    Ok(())
}

fn next_number(view: &View<'_>) -> io::Result<u64> {
    let Some(last) = view.scan(keys::of_kind(keys::LOSER), true).next() else { return Ok(0) };
    match keys::decode(&last?.0).map_err(io::Error::other)? {
        RowKey::Loser { number } => Ok(number + 1),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "not a row of the log of losers")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::Encoder;
    use crate::command::Command;
    use crate::engine::view::Overlay;
    use crate::eval::{self, LoserKind, Txn};
    use crate::group::GroupContext;
    use crate::group::entry::{Entry, Fence, RowOp};
    use crate::group::leader::{Leader, LeaderClock, Work, eval_context};
    use crate::group::remote::{RemoteBatch, RemoteEffect};
    use crate::group::run::Run;
    use crate::model::{Synced, effect_of};
    use crate::resp::Reply;
    use bytes::Bytes;
    use flotilla_topology::ids::{ClusterId, GroupId, Incarnation, LogId, Origin};
    use flotilla_topology::slot::SlotRange;
    use flotilla_topology::stamp::Stamp;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, VecDeque};
    use std::sync::Arc;
    use std::time::Instant;
    use tokio::sync::oneshot;

    fn loser(n: u64) -> Loser {
        let stamp = |cluster| Stamp { hlc: Hlc(n), cluster: ClusterId(cluster) };
        let text = Bytes::from(n.to_string());
        Loser {
            kind: LoserKind::Register,
            key: text.clone(),
            element: Bytes::new(),
            lost: stamp(1),
            won: stamp(2),
            value: text,
        }
    }

    /// A group of one cluster, on rows in memory that nothing is applied to.
    struct Side {
        context: Arc<GroupContext>,
        leader: Leader,
        rows: BTreeMap<Bytes, Bytes>,
    }

    impl Side {
        fn new(cluster: u8) -> Side {
            let context = Arc::new(GroupContext {
                group: GroupId(1),
                slots: SlotRange::ALL,
                born_synced: true,
                origin: Origin { cluster: ClusterId(cluster), incarnation: Incarnation(1) },
                max_skew_ms: 500,
            });
            let run = Run::start(1, Fence { term: 1, next_seq: 1 }, Hlc::ZERO, context.origin);
            let leader = Leader::new(context.clone(), run);
            Side { context, leader, rows: BTreeMap::new() }
        }

        /// What the work becomes in the log.
        fn evaluate(&mut self, wall_ms: u64, work: Work) -> Vec<Entry> {
            let clock = LeaderClock { wall_ms, applied: Hlc::ZERO, now: Instant::now() };
            self.leader.evaluate(&self.rows, clock, work).unwrap();
            self.leader.close();
            let proposals = self.leader.take_proposals();
            proposals.iter().map(|proposal| Entry::decode(&proposal.bytes).unwrap()).collect()
        }

        fn set(&mut self, wall_ms: u64, value: &'static str) -> Vec<Entry> {
            let args = ["SET", "k", value].map(|word| Bytes::from_static(word.as_bytes()));
            let commands = vec![Command::parse(args.to_vec()).unwrap()];
            self.evaluate(wall_ms, Work::Exec { commands, answer: oneshot::channel().0 })
        }

        /// A batch for `target` with what entries wrote.
        fn batch(&self, entries: &[Entry], target: GroupId) -> RemoteBatch {
            let origin = self.context.origin;
            let ops = entries.iter().flat_map(|entry| &entry.ops);
            let effects = ops.filter_map(|op| match op {
                RowOp::Put { key, value, parts } => {
                    effect_of(origin, key, value, Parts(*parts)).unwrap()
                }
                _ => None,
            });
            let effects = effects.map(|effect| {
                let mut body = Encoder::new();
                effect.to_wire(&mut body);
                RemoteEffect { index: 1, slot: Some(effect.slot()), body: body.into_bytes() }
            });
            RemoteBatch {
                target,
                origin,
                source_group: GroupId(1),
                source_slots: SlotRange::ALL,
                from: LogId::default(),
                to: LogId { term: 1, index: 1 },
                closed: entries[0].header.last,
                fence: Fence { term: 1, next_seq: 2 },
                vector: vec![],
                effects: effects.collect(),
            }
        }

        fn conflicts(&mut self) -> Vec<(String, i64, i64)> {
            let words = ["FLOTILLA", "CONFLICTS", "KEY", "k"];
            let words = words.map(|word| Bytes::from_static(word.as_bytes()));
            let command = Command::parse(words.to_vec()).unwrap();
            let at = eval_context(&self.context, Synced::Always, Stamp::ZERO, 9_000, 9_000);
            let mut overlay = std::mem::take(&mut self.leader.run.overlay);
            let mut txn = Txn::new(View::new(&self.rows, &mut overlay), at);
            let reply = eval::command(&mut txn, &command).unwrap();
            self.leader.run.overlay = overlay;
            let Reply::Array(all) = reply else { panic!("{reply:?}") };
            all.into_iter().map(told).collect()
        }
    }

    /// Kind, loser's cluster and winner's cluster.
    fn told(reply: Reply) -> (String, i64, i64) {
        let Reply::Map(fields) = reply else { panic!("{reply:?}") };
        let field = |wanted: &'static str| {
            let found = fields.iter().find(|(name, _)| *name == Reply::bulk(wanted));
            found.unwrap_or_else(|| panic!("no {wanted}")).1.clone()
        };
        let (Reply::Bulk(kind), Reply::Int(lost), Reply::Int(won)) =
            (field("kind"), field("lost-cluster"), field("won-cluster"))
        else {
            panic!("{fields:?}")
        };
        (String::from_utf8_lossy(&kind).into_owned(), lost, won)
    }

    /// Both sides write one key; each merges what the other wrote, and each then knows who lost.
    #[test]
    fn a_merge_writes_its_losers_into_its_own_entry() {
        let (mut east, mut west) = (Side::new(1), Side::new(2));
        let (first, second) = (east.set(1_000, "east"), west.set(1_200, "west"));
        let from_west = west.batch(&second, GroupId(1));
        let from_east = east.batch(&first, GroupId(1));
        for (side, batch) in [(&mut east, from_west), (&mut west, from_east)] {
            let entries =
                side.evaluate(1_300, Work::Remote { batch, answer: oneshot::channel().0 });
            let [entry] = &entries[..] else { panic!("{entries:?}") };
            let rows: Vec<u16> = entry
                .ops
                .iter()
                .filter_map(|op| match op {
                    RowOp::Put { key, parts, .. } if key[0] == keys::LOSER => Some(*parts),
                    _ => None,
                })
                .collect();
            assert_eq!(rows, [Parts::NONE.0], "one loser, and nobody ships it");
        }
        assert_eq!(east.conflicts(), [("replaced".to_owned(), 1, 2)]);
        assert_eq!(west.conflicts(), [("floor".to_owned(), 1, 2)]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        /// Whatever comes, and however much of it is still in flight: the last ones are there, in
        /// order, and no others.
        #[test]
        fn the_log_keeps_the_last_losers_and_no_more(
            calls in prop::collection::vec((0u64..130, 1usize..6), 1..40),
        ) {
            let (mut rows, mut overlay) = (BTreeMap::<Bytes, Bytes>::new(), Overlay::new());
            let (mut flying, mut seq, mut told) = (VecDeque::new(), 0, 0);
            for (count, in_flight) in calls {
                seq += 1;
                overlay.begin(seq);
                let losers: Vec<Loser> = (told..told + count).map(loser).collect();
                record(&mut View::new(&rows, &mut overlay), Hlc(seq), &losers).unwrap();
                told += count;
                let batch = overlay.finish();
                prop_assert!(batch.rows.iter().all(|row| row.parts.is_none()), "nothing is shipped");
                flying.push_back((seq, batch));
                while flying.len() > in_flight {
                    let Some((seq, batch)) = flying.pop_front() else { break };
                    batch.apply_to(&mut rows);
                    overlay.retire(seq);
                }
            }
            let view = View::new(&rows, &mut overlay);
            let kept: Vec<Bytes> = view
                .scan(keys::of_kind(keys::LOSER), false)
                .map(|row| LoserRow::decode(&row.unwrap().1).unwrap().loser.key)
                .collect();
            let wanted = told.saturating_sub(LOSERS_KEPT)..told;
            prop_assert_eq!(kept, wanted.map(|n| Bytes::from(n.to_string())).collect::<Vec<_>>());
        }
    }
}
